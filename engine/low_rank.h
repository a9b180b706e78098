/* Sums of low-rank products, exactly, and their best cut: what merging and mixing stand on.
 *
 * S = Σ_i g_i s_i B_i A_i over a few slots has at most Σ r ranks, so QR of the stacked factors and
 * an SVD of a small core give its norm, its distance to other such sums, and its best rank-r
 * factors (Eckart and Young 1936) without ever forming an N × K matrix. The aggregator merges
 * clients' updates so, a client the two branches of its training.
 *
 * Factors have no meaning of their own: (B·M, M⁻¹·A) is the same product for any invertible M. A
 * cut returns the balanced pair of the SVD; meed_low_rank_gauge turns it into coordinates near a
 * given pair, where differences between the two are small and survive quantisation.
 */
#ifndef MEED_ENGINE_LOW_RANK_H
#define MEED_ENGINE_LOW_RANK_H

#include "base/buf.h"

MEED_BEGIN_C

/* One module's stack, fp64: what QR and SVD work on. */
struct meed_low_rank_stack {
    int64_t n, k, r;      /* of the module; r ranks a slot */
    int64_t keep;         /* ranks of the result */
    int32_t slots;        /* the first is what updates are measured against */
    double scale;         /* s of the result */
    const double *gates;  /* [slots] g */
    const double *scales; /* [slots] s of each */
    double *b;            /* [slots·r columns of N], column by column */
    double *a;            /* [slots·r rows of K] */
};

/* Squared Frobenius norms. */
struct meed_low_rank_energy {
    double update; /* ‖S − s_0 B_0 A_0‖² */
    double full;   /* ‖S‖² */
    double kept;   /* ‖cut S‖² */
    double fedit;  /* ‖S − s (Σ g_i B_i)(Σ g_i A_i)‖²: what a mean of factors misses */
};

/* Exact core of the stack by QR; fills energy and, if b and a are not NULL, the cut to rank keep:
 * b [N, keep], a [keep, K], fp32 row-major, s·b·a the best approximation of S. Destroys the stack's
 * arrays. fallback_a [keep, K] serves directions that do not exist (keep > min(N, K)). */
MEED_MUST_CHECK enum meed_status meed_low_rank_cut(struct meed_low_rank_stack *stack,
                                                   const float *fallback_a, float *b, float *a,
                                                   struct meed_low_rank_energy *energy);

/* Rewrites a cut (b [N, r], a [r, K] with orthogonal rows) in coordinates near (b_near, a_near),
 * b·a as it was. a becomes the part of a_near in its own row space, where that has all r directions
 * to a condition number of 100; else the pair is turned as a whole by the rotation that brings it
 * nearest. The result depends on the product and on the near pair alone. */
MEED_MUST_CHECK enum meed_status meed_low_rank_gauge(int64_t n, int64_t k, int64_t r,
                                                     const float *b_near, const float *a_near,
                                                     float *b, float *a);

MEED_END_C
#endif
