/* From the cohort's updates to the next global adapter.
 *
 * With weights p_k and ΔW_k = s_k B_k A_k − s_g B_g A_g, the model that a round has earned is
 *
 *     S = s_g B_g A_g + Σ p_k ΔW_k = g_0 s_g B_g A_g + Σ p_k s_k B_k A_k,   g_0 = 1 − Σ p_k
 *
 * so whatever weight is left out (an excluded client's, the clipped part of a large one) stays with
 * the global adapter. Strategies:
 *
 * `svd`, the default: the best rank-r adapter for S (Eckart–Young; FlexLoRA's redistribution,
 * without forming N × K matrices). QR of the stacked factors, SVD of the R × R core, both in fp64,
 * split as U√Σ and √ΣVᵀ. What the cut loses is reported.
 *
 * `fedavg`: means of A and of B, weighted by g_0, p_1 …: FedIT's rule, kept as the baseline. It is
 * not S: the difference is a covariance of the factors, and is reported beside either.
 *
 * Sums run over clients in the order given, which is the order of their ids, never of arrival; a
 * module is one task and no task writes another's place: the result is equal bit for bit for any
 * arrival order and thread count. A client that returned the global adapter unchanged is folded
 * into g_0, so a round of such clients returns the global adapter to the bit.
 *
 * Directions of rank that S does not use get a zero column of B and an orthonormal row of A of the
 * initialiser's length, so that training can still take them up; zero in both would be dead for
 * ever.
 */
#ifndef MEED_SERVER_AGGREGATE_H
#define MEED_SERVER_AGGREGATE_H

#include "base/threads.h"
#include "engine/adapter.h"
#include "server/aggregator.h"

MEED_BEGIN_C

struct meed_aggregate_report {
    double update_norm;     /* ‖Σ p_k ΔW_k‖ over all modules */
    double retained_energy; /* ‖cut S‖² / ‖S‖², 1 where S is 0 or nothing is cut */
    double fedit_error; /* ‖S − mean(B)·mean(A)‖ / ‖Σ p_k ΔW_k‖, 0 where there is no update */
};

/* "svd", "fedavg"; "?" outside the list. */
const char *meed_aggregate_name(enum meed_aggregation aggregation);
/* ARG lists the names. */
MEED_MUST_CHECK enum meed_status meed_aggregate_parse(const char *name,
                                                      enum meed_aggregation *aggregation);

/* p [count], each ≥ 0, Σ ≤ 1. All adapters of global's shape; FORMAT otherwise. */
MEED_MUST_CHECK enum meed_status
meed_aggregate_run(enum meed_aggregation aggregation, const struct meed_adapter *global,
                   const struct meed_adapter *const *clients, const double *p, int32_t count,
                   struct meed_pool *pool, struct meed_adapter **next,
                   struct meed_aggregate_report *report);

/* One module's stack, fp64: what a strategy works on (aggregate_svd.c). */
struct meed_aggregate_stack {
    int64_t n, k, r;      /* of the module */
    int32_t slots;        /* global first, then the clients with weight */
    double scale;         /* s of the result */
    const double *gates;  /* [slots] g_0, p_1 … */
    const double *scales; /* [slots] s of each */
    double *b;            /* [slots·r columns of N], column by column */
    double *a;            /* [slots·r rows of K] */
};

struct meed_aggregate_energy {
    double update; /* squared Frobenius norms */
    double full;
    double kept;
    double fedit;
};

/* Exact core of the stack by QR; fills energy and, if b and a are not NULL, the cut to rank r:
 * b [N, r], a [r, K], fp32 row-major. Destroys the stack's arrays. fallback_a [r, K] serves
 * directions that do not exist (r > min(N, K)). */
MEED_MUST_CHECK enum meed_status meed_aggregate_svd_module(struct meed_aggregate_stack *stack,
                                                           const float *fallback_a, float *b,
                                                           float *a,
                                                           struct meed_aggregate_energy *energy);

MEED_END_C
#endif
