/* See kinds.h. */
#include "bench/kinds.h"

#include <math.h>
#include "base/buf.h"
#include "base/rng.h"

static int32_t power(int32_t base, int32_t exponent)
{
    int32_t product = 1;
    for (int32_t i = 0; i < exponent; i++) {
        product *= base;
    }
    return product;
}

static double binomial(int32_t n, int32_t k)
{
    double product = 1;
    for (int32_t i = 1; i <= k; i++) {
        product = product * (n - k + i) / i;
    }
    return product;
}

enum meed_status meed_bench_kinds_score(const struct meed_game *game, const double *coefficients,
                                        int32_t copies, struct meed_bench_kinds *table)
{
    enum meed_status st = MEED_OK;
    int32_t kinds = game->players, rows = power(copies + 1, kinds);
    double *members = meed_heap_alloc((size_t)rows * (size_t)kinds, sizeof *members);
    double *utilities = meed_heap_alloc((size_t)rows * (size_t)game->items, sizeof *utilities);
    *table = (struct meed_bench_kinds){kinds, copies,
                                       meed_heap_alloc((size_t)rows, sizeof *table->values)};
    if (!members || !utilities || !table->values) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t row = 0; row < rows; row++) {
        for (int32_t k = 0, rest = row; k < kinds; k++, rest /= copies + 1) {
            members[(int64_t)row * kinds + k] = (double)(rest % (copies + 1)) / copies;
        }
    }
    MEED_TRY_OUT(game->evaluate(game->user, members, rows, utilities));
    for (int32_t row = 0; row < rows; row++) {
        table->values[row] = 0;
        for (int32_t i = 0; i < game->items; i++) {
            table->values[row] += coefficients[i] * utilities[(int64_t)row * game->items + i];
        }
    }
out:
    meed_heap_free(members);
    meed_heap_free(utilities);
    return st;
}

/* v of counts [kinds] out of `copies` each. */
static double value_at(const struct meed_bench_kinds *table, int32_t copies, const int32_t *counts)
{
    int32_t row = 0;
    for (int32_t k = table->kinds - 1; k >= 0; k--) {
        row = row * (table->copies + 1) + counts[k] * (table->copies / copies);
    }
    return table->values[row];
}

/* Gain of one more of `kind`, with the weight of all coalitions that have these counts. */
static double gain_weighted(const struct meed_bench_kinds *table, int32_t copies, int32_t *counts,
                            int32_t kind)
{
    int32_t n = table->kinds * copies, size = 0;
    double coalitions = 1;
    for (int32_t k = 0; k < table->kinds; k++) {
        coalitions *= binomial(k == kind ? copies - 1 : copies, counts[k]);
        size += counts[k];
    }
    double without = value_at(table, copies, counts);
    counts[kind]++;
    double with = value_at(table, copies, counts);
    counts[kind]--;
    return coalitions / (n * binomial(n - 1, size)) * (with - without);
}

void meed_bench_kinds_shapley(const struct meed_bench_kinds *table, int32_t copies, double *phi)
{
    int32_t counts[MEED_BENCH_KINDS_MAX];
    MEED_ASSERT(table->kinds <= MEED_BENCH_KINDS_MAX && table->copies % copies == 0);
    for (int32_t kind = 0; kind < table->kinds; kind++) {
        phi[kind] = 0;
        for (int32_t row = 0; row < power(copies + 1, table->kinds); row++) {
            for (int32_t k = 0, rest = row; k < table->kinds; k++, rest /= copies + 1) {
                counts[k] = rest % (copies + 1);
            }
            if (counts[kind] < copies) {
                phi[kind] += gain_weighted(table, copies, counts, kind);
            }
        }
    }
}

enum meed_status meed_bench_kinds_orders(const struct meed_bench_kinds *table, const double *truth,
                                         int32_t pairs, uint64_t seed, double *error)
{
    int32_t n = table->kinds * table->copies;
    struct meed_rng rng = meed_rng_stream(seed, "bench orders", (uint64_t)pairs);
    int64_t *order = meed_heap_alloc((size_t)n, sizeof *order);
    double *phi = meed_heap_alloc((size_t)n, sizeof *phi);
    if (!order || !phi) {
        meed_heap_free(order);
        meed_heap_free(phi);
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < n; i++) {
        order[i] = i;
        phi[i] = 0;
    }
    for (int32_t turn = 0; turn < 2 * pairs; turn++) {
        int32_t counts[MEED_BENCH_KINDS_MAX] = {0};
        if (turn % 2 == 0) {
            meed_rng_shuffle(&rng, order, n);
        }
        for (int32_t i = 0; i < n; i++) {
            int64_t client = order[turn % 2 == 0 ? i : n - 1 - i];
            double before = value_at(table, table->copies, counts);
            counts[client % table->kinds]++;
            phi[client] += value_at(table, table->copies, counts) - before;
        }
    }
    *error = 0;
    for (int32_t i = 0; i < n; i++) {
        *error = fmax(*error, fabs(phi[i] / (2 * pairs) - truth[i % table->kinds]));
    }
    meed_heap_free(order);
    meed_heap_free(phi);
    return MEED_OK;
}
