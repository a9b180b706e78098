/* See scored_cohort.h. */
#include "bench/scored_cohort.h"

enum meed_status meed_bench_cohort_open(const struct meed_backend *be,
                                        const struct meed_bench_cohort_shape *shape,
                                        struct meed_bench_cohort *cohort)
{
    MEED_ASSERT(shape->clients <= MEED_BENCH_MAX_CLIENTS);
    *cohort = (struct meed_bench_cohort){.be = be,
                                         .count = shape->clients,
                                         .length = shape->length,
                                         .sequence_count = shape->sequences};
    meed_arena_init_growing(&cohort->arena, "bench data", 64 << 20);
    MEED_TRY(meed_bench_checkpoint(shape->name, shape->config, &cohort->checkpoint));
    if (shape->global) {
        MEED_TRY(meed_bench_adapter(shape->config, shape->rank, 1, &cohort->global));
    }
    for (int32_t i = 0; i < shape->clients; i++) {
        MEED_TRY(
            meed_bench_adapter(shape->config, shape->rank, (uint64_t)i + 2, &cohort->clients[i]));
    }
    return meed_bench_sequences(shape->config->vocab, shape->length, shape->sequences,
                                &cohort->arena, &cohort->sequences);
}

void meed_bench_cohort_close(struct meed_bench_cohort *cohort)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        meed_adapter_destroy(cohort->clients[i]);
    }
    meed_adapter_destroy(cohort->global);
    meed_checkpoint_close(cohort->checkpoint);
    meed_arena_clear(&cohort->arena);
}

enum meed_status meed_bench_cohort_evaluator(const struct meed_bench_cohort *cohort,
                                             enum meed_coalition_path path, enum meed_dtype dtype,
                                             struct meed_coalition **coalition)
{
    double weights[MEED_BENCH_MAX_CLIENTS];
    const struct meed_adapter *clients[MEED_BENCH_MAX_CLIENTS];
    struct meed_coalition_options options = {
        .path = path, .dtype = dtype, .batch_tokens = cohort->be->host_memory ? 2048 : 8192};
    for (int32_t i = 0; i < cohort->count; i++) {
        weights[i] = 1.0 / cohort->count;
        clients[i] = cohort->clients[i];
    }
    return meed_coalition_create(cohort->be, cohort->checkpoint, cohort->global, clients,
                                 cohort->count, weights, &options, coalition);
}

void meed_bench_cohort_members(const struct meed_bench_cohort *cohort, uint32_t mask,
                               double *members)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        members[i] = mask >> i & 1;
    }
}
