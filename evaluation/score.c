/* See score.h. A score is a cohort of one client with weight 1, seen from the plain base: the full
 * coalition is the adapter. Without an adapter the client is a zero one, which the evaluator folds
 * away. */
#include "evaluation/score.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/clock.h"
#include "evaluation/bootstrap.h"

static enum meed_status sums_score(const struct meed_backend *be,
                                   const struct meed_checkpoint *checkpoint,
                                   const struct meed_benchmark *benchmark,
                                   const struct meed_adapter *adapter,
                                   const struct meed_score_options *options, double *sums)
{
    enum meed_status st = MEED_OK;
    struct meed_adapter *zero = NULL;
    struct meed_coalition *coalition = NULL;
    const double one = 1.0;
    struct meed_coalition_options how = {
        .path = MEED_PATH_STACK,
        .dtype = MEED_DTYPE_F32,
        .base = options->base,
        .batch_tokens = options->batch_tokens,
    };
    if (!adapter) {
        struct meed_lora_config lora = {.rank = 1, .alpha = 1, .targets = 1u << MEED_PROJ_Q};
        MEED_TRY_OUT(meed_adapter_create(&checkpoint->config, &lora, &zero));
        adapter = zero;
    }
    MEED_TRY_OUT(meed_coalition_create(be, checkpoint, NULL, &adapter, 1, &one, &how, &coalition));
    MEED_TRY_OUT(meed_coalition_score(coalition, &one, 1, benchmark->sequences,
                                      benchmark->sequence_count, sums, options->progress,
                                      options->progress_user));
out:
    meed_coalition_destroy(coalition);
    meed_adapter_destroy(zero);
    return st;
}

static void category_fill(const struct meed_benchmark *b, int32_t axis, int32_t category,
                          const double *utilities, struct meed_score_mean *mean)
{
    double sum = 0;
    double squares = 0;
    *mean = (struct meed_score_mean){0, 0, 0};
    for (int32_t i = 0; i < b->item_count; i++) {
        if (b->items[i].axis == axis && b->items[i].category == category) {
            sum += utilities[i];
            mean->dialogues++;
        }
    }
    if (mean->dialogues == 0) {
        return;
    }
    int32_t count = mean->dialogues;
    mean->value = sum / count;
    for (int32_t i = 0; i < b->item_count; i++) {
        if (b->items[i].axis == axis && b->items[i].category == category) {
            squares += (utilities[i] - mean->value) * (utilities[i] - mean->value);
        }
    }
    mean->se = count > 1 ? sqrt(squares / (count - 1) / count) : 0;
}

static void axis_fill(const struct meed_benchmark *b, int32_t axis, const double *sums,
                      const double *utilities, struct meed_score_axis *out)
{
    double total = 0;
    out->all.value = meed_benchmark_axis_value(b, axis, utilities, NULL);
    for (int32_t c = 0; c < b->category_count; c++) {
        category_fill(b, axis, c, utilities, &out->categories[c]);
        out->all.dialogues += out->categories[c].dialogues;
    }
    for (int32_t i = 0; i < b->item_count && b->axes[axis].kind == MEED_AXIS_LIKELIHOOD; i++) {
        if (b->items[i].axis == axis) {
            total += sums[b->items[i].plus];
            out->scored_tokens += b->scored_tokens[b->items[i].plus];
        }
    }
    out->perplexity = out->scored_tokens > 0 ? exp(-total / (double)out->scored_tokens) : 0;
}

enum meed_status meed_score_run(const struct meed_backend *be,
                                const struct meed_checkpoint *checkpoint,
                                const struct meed_benchmark *benchmark,
                                const struct meed_adapter *adapter,
                                const struct meed_score_options *options, struct meed_score *score)
{
    enum meed_status st = MEED_OK;
    struct meed_score made = {.tokens = benchmark->tokens};
    double axis_se[MEED_BENCHMARK_MAX_AXES] = {0};
    double *sums = meed_heap_alloc((size_t)benchmark->sequence_count + 1, sizeof *sums);
    double *utilities = meed_heap_alloc((size_t)benchmark->item_count + 1, sizeof *utilities);
    if (!sums || !utilities) {
        st = MEED_NOMEM;
        goto out;
    }
    int64_t start_ns = meed_clock_monotonic_ns();
    MEED_TRY_OUT(sums_score(be, checkpoint, benchmark, adapter, options, sums));
    made.seconds = meed_clock_seconds_since(start_ns);
    meed_benchmark_items(benchmark, sums, utilities);
    made.value = meed_benchmark_value(benchmark, utilities, NULL);
    MEED_TRY_OUT(meed_bootstrap_errors(benchmark, utilities, 1, options->bootstrap, options->seed,
                                       axis_se, &made.se));
    for (int32_t a = 0; a < benchmark->axis_count; a++) {
        axis_fill(benchmark, a, sums, utilities, &made.axes[a]);
        made.axes[a].all.se = axis_se[a];
    }
    *score = made;
out:
    meed_heap_free(sums);
    meed_heap_free(utilities);
    return st;
}
