/* From the cohort's updates to the next global adapter: one table of strategies.
 *
 * With weights p_k and ΔW_k = s_k B_k A_k − s_g B_g A_g, the model that a round has earned is
 *
 *     S = s_g B_g A_g + Σ p_k ΔW_k = g_0 s_g B_g A_g + Σ p_k s_k B_k A_k,   g_0 = 1 − Σ p_k
 *
 * so whatever weight is left out (an excluded client's, the clipped part of a large one) stays with
 * the global adapter. A strategy is a row of the table in aggregate.c: what clients train, what
 * they send and receive, how weights are turned, how modules are merged, what is kept between
 * rounds. Nothing else in the tree knows the names.
 *
 *   svd        the best rank-r adapter for S (Eckart–Young; FlexLoRA's redistribution without
 *              N × K matrices): QR of the stacked factors, SVD of the R × R core. The default
 *   fedavg     means of A and of B, weighted by g_0, p_1 …: FedIT, the baseline. It misses S by a
 *              covariance of the factors, which is reported for every strategy
 *   ffa        A stays at its start, B is averaged (Sun et al. 2024): exact, as A is shared
 *   rolora     B in odd rounds, A in even ones (Chen et al. 2025): exact for the same reason
 *   stack      exact: [B_1 … B_n] and p_k folded in go to ranks that nobody trains any more, and
 *              training starts anew (Wang et al. 2024, FLoRA)
 *   fedex      the mean of factors is trained on, Σ p_k (B_k − B_g)(A_k − Ā), which is what the
 *              mean misses, goes to such ranks (Singhal et al. 2025): exact
 *   median, trimmed      of each coordinate of ΔW, then svd (aggregate_coordinate.c)
 *   krum, multikrum, normclip, fltrust      other weights, then svd (aggregate_robust.c)
 *
 * Ranks that are not trained follow the trained ones in every module (engine/adapter_split.h). They
 * grow by n·r a round; beyond `frozen_cap` they are cut by SVD to the cap, or to min(N, K), where
 * nothing is lost, and what a cut loses is reported. FLoRA's and FedEx's own answer, folding them
 * into the base weights, would cost every client a full-size download or a requantised base.
 *
 * Sums run over clients in the order given, which is the order of their ids, never of arrival; a
 * module is one task and no task writes another's place: the result is equal bit for bit for any
 * arrival order and thread count. A client that returned the global adapter unchanged is folded
 * into g_0, so a round of such clients returns the global adapter to the bit; the coordinate
 * strategies count it as an update of zero.
 *
 * Directions of rank that svd does not use get a zero column of B and an orthonormal row of A of
 * the initialiser's length, so that training can still take them up; zero in both would be dead for
 * ever.
 */
#ifndef MEED_SERVER_AGGREGATE_H
#define MEED_SERVER_AGGREGATE_H

#include "base/threads.h"
#include "engine/adapter.h"
#include "server/aggregator.h"

MEED_BEGIN_C

/* What a name promises; the same for its whole run. */
struct meed_aggregate_traits {
    const char *name;
    const char *text;        /* half a sentence for help pages */
    enum meed_method method; /* what plans say; FEDIT: as the operator chose */
    bool freezes;            /* leaves ranks that are not trained: downloads grow */
    bool restarts;           /* trained ranks start anew each round */
    bool keeps_gauge;        /* coordinates of A and B stay: client residuals, control variates
                              * and a server optimiser's moments keep their meaning */
    bool wants_optimiser;    /* a server optimiser may follow: its promise survives one */
    bool wants_reference;    /* needs the operator's own update */
};
const struct meed_aggregate_traits *meed_aggregate_traits(enum meed_aggregation aggregation);
/* MEED_FACTOR_A | MEED_FACTOR_B as this round trains them. */
uint32_t meed_aggregate_trained(enum meed_aggregation aggregation, int32_t round);
/* "?" outside the list. */
const char *meed_aggregate_name(enum meed_aggregation aggregation);
/* ARG lists the names. */
MEED_MUST_CHECK enum meed_status meed_aggregate_parse(const char *name,
                                                      enum meed_aggregation *aggregation);
/* CONFIG says which number does not go with a cohort of at least `cohort` updates. */
MEED_MUST_CHECK enum meed_status meed_aggregate_check(enum meed_aggregation aggregation,
                                                      const struct meed_robust_options *robust,
                                                      int32_t cohort);

/* Start from meed_aggregate_options_of. */
struct meed_aggregate_options {
    enum meed_aggregation aggregation;
    struct meed_robust_options robust;
    int32_t round;
    int32_t rank;       /* ranks that are trained; 0: all of the global adapter's */
    int32_t frozen_cap; /* most ranks beside them */
    uint64_t seed;      /* of what starts anew */
    const struct meed_adapter *reference; /* the operator's own update; where wanted, else NULL */
    struct meed_pool *pool;               /* may be NULL */
};
/* Round 1, all ranks, cap 128, robust numbers for no attackers. */
struct meed_aggregate_options meed_aggregate_options_of(enum meed_aggregation aggregation);

struct meed_aggregate_report {
    double update_norm;     /* ‖Σ p_k ΔW_k‖ over all modules, with the strategy's weights */
    double retained_energy; /* ‖cut S‖² / ‖S‖², 1 where S is 0 or nothing is cut */
    double fedit_error; /* ‖S − mean(B)·mean(A)‖ / ‖Σ p_k ΔW_k‖, 0 where there is no update */
    int32_t frozen; /* largest number of ranks beside the trained ones */
    int32_t used;   /* updates that have weight in the result */
};

/* p [count], each ≥ 0, Σ ≤ 1. All adapters of global's shape; FORMAT otherwise. */
MEED_MUST_CHECK enum meed_status
meed_aggregate_run(const struct meed_aggregate_options *options, const struct meed_adapter *global,
                   const struct meed_adapter *const *clients, const double *p, int32_t count,
                   struct meed_adapter **next, struct meed_aggregate_report *report);

MEED_END_C
#endif
