/* A cohort to score: a model, n clients' adapters, weights 1/n, sequences. What the coalition,
 * planner and stack suites have in common. */
#ifndef MEED_BENCH_SCORED_COHORT_H
#define MEED_BENCH_SCORED_COHORT_H

#include "bench/shapes.h"
#include "engine/coalition.h"

enum { MEED_BENCH_MAX_CLIENTS = 10 };

struct meed_bench_cohort {
    const struct meed_backend *be;
    struct meed_arena arena;
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *global; /* NULL: none */
    struct meed_adapter *clients[MEED_BENCH_MAX_CLIENTS];
    int32_t count;
    struct meed_sequence *sequences;
    int32_t sequence_count;
    int32_t length; /* of each, in tokens: one more than rows */
};

struct meed_bench_cohort_shape {
    const char *name; /* of the checkpoint */
    const struct meed_model_config *config;
    int32_t clients, rank, length, sequences;
    bool global;
};

/* To be closed whatever comes back. */
MEED_MUST_CHECK enum meed_status meed_bench_cohort_open(const struct meed_backend *be,
                                                        const struct meed_bench_cohort_shape *shape,
                                                        struct meed_bench_cohort *cohort);
void meed_bench_cohort_close(struct meed_bench_cohort *cohort);
/* An evaluator of it; batches of 2,048 rows on the host, 8,192 on a device. */
MEED_MUST_CHECK enum meed_status meed_bench_cohort_evaluator(const struct meed_bench_cohort *cohort,
                                                             enum meed_coalition_path path,
                                                             enum meed_dtype dtype,
                                                             struct meed_coalition **coalition);
/* members [count] of coalition `mask`, bit k = client k. */
void meed_bench_cohort_members(const struct meed_bench_cohort *cohort, uint32_t mask,
                               double *members);

#endif
