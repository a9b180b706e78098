/* From sequence sums to item utilities to axis values: the arithmetic half of benchmark.h.
 *
 * Everything here is linear in the sums and summed in file order, so values of two coalitions
 * differ only where their log-likelihoods do. Categories weigh alike whatever their number of
 * dialogues: a token- or dialogue-weighted mean would let the domain with the longest answers
 * decide who is paid. No JSON and no tokenizer: an auditor needs this file alone to redo a value.
 */
#include "evaluation/benchmark.h"

#include <string.h>

void meed_benchmark_items(const struct meed_benchmark *benchmark, const double *sums,
                          double *utilities)
{
    for (int32_t i = 0; i < benchmark->item_count; i++) {
        const struct meed_benchmark_item *item = &benchmark->items[i];
        double value = sums[item->plus] / benchmark->scored_tokens[item->plus];
        if (item->minus >= 0) {
            value -= sums[item->minus] / benchmark->scored_tokens[item->minus];
        }
        utilities[i] = value;
    }
}

double meed_benchmark_axis_value(const struct meed_benchmark *benchmark, int32_t axis,
                                 const double *utilities, const double *item_weight)
{
    double sum[MEED_BENCHMARK_MAX_CATEGORIES] = {0};
    double weight[MEED_BENCHMARK_MAX_CATEGORIES] = {0};
    for (int32_t i = 0; i < benchmark->item_count; i++) {
        const struct meed_benchmark_item *item = &benchmark->items[i];
        if (item->axis == axis) {
            double w = item_weight ? item_weight[i] : 1.0;
            sum[item->category] += w * utilities[i];
            weight[item->category] += w;
        }
    }
    double total = 0;
    int32_t categories = 0;
    for (int32_t c = 0; c < benchmark->category_count; c++) {
        if (weight[c] > 0) {
            total += sum[c] / weight[c];
            categories++;
        }
    }
    return categories > 0 ? total / categories : 0;
}

double meed_benchmark_value(const struct meed_benchmark *benchmark, const double *utilities,
                            const double *item_weight)
{
    double value = 0;
    for (int32_t a = 0; a < benchmark->axis_count; a++) {
        if (benchmark->axes[a].weight != 0) {
            value += benchmark->axes[a].weight *
                     meed_benchmark_axis_value(benchmark, a, utilities, item_weight);
        }
    }
    return value;
}

void meed_benchmark_coefficients(const struct meed_benchmark *benchmark, double *rows)
{
    int32_t items = benchmark->item_count;
    memset(rows, 0, (size_t)(1 + benchmark->axis_count) * (size_t)items * sizeof *rows);
    for (int32_t a = 0; a < benchmark->axis_count; a++) {
        int32_t members[MEED_BENCHMARK_MAX_CATEGORIES] = {0};
        int32_t categories = 0;
        for (int32_t i = 0; i < items; i++) {
            const struct meed_benchmark_item *item = &benchmark->items[i];
            categories += item->axis == a && members[item->category]++ == 0 ? 1 : 0;
        }
        for (int32_t i = 0; i < items; i++) {
            const struct meed_benchmark_item *item = &benchmark->items[i];
            if (item->axis == a) {
                double coefficient = 1.0 / ((double)categories * members[item->category]);
                rows[(int64_t)(1 + a) * items + i] = coefficient;
                rows[i] = benchmark->axes[a].weight * coefficient;
            }
        }
    }
}
