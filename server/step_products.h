/* Inner products of a cohort's steps: all that the detectors know of the matrices.
 *
 * A step is what an update changed in the model, D_i = ΔW_i − ΔW_g, and never what it changed in A
 * or in B: the two can be turned into each other without changing the model. A step has rank 2r and
 * is never formed. With adapters as s B A,
 *
 *     ⟨x − y, z − w⟩ = ⟨x,z⟩ − ⟨x,w⟩ − ⟨y,z⟩ + ⟨y,w⟩
 *
 * so one table of products of adapters (adapter_product.h) serves for all pairs of steps: rows are
 * the cohort and the global adapter, columns everything. In float64, because a step is a small
 * difference of large products.
 *
 * Cost: (n + 1)(n + 2)/2 products of 2 r²(N + K) multiply-adds a module, and n·(1 + past) more.
 */
#ifndef MEED_SERVER_STEP_PRODUCTS_H
#define MEED_SERVER_STEP_PRODUCTS_H

#include "base/threads.h"
#include "engine/adapter.h"

MEED_BEGIN_C

/* What the cohort is compared with; NULL and 0 in the first round. */
struct meed_step_past {
    const struct meed_adapter *base;           /* global adapter of the round before */
    const struct meed_adapter *const *clients; /* [count] its updates */
    int32_t count;
};

struct meed_step_products {
    int32_t count, past, modules; /* past: 0, or 1 + the past's clients */
    double *gram;                 /* [count, count] ⟨D_i, D_j⟩ */
    double *with_past;            /* [count, past] ⟨D_i, P_j⟩; P_0 is the last global step */
    double *past_norms;           /* [past] ‖P_j‖ */
    double *by_module;            /* [count, modules] ‖D_im‖² of module m */
};

/* clients [count], of global's shape; all from arena. A step that is 0 bit for bit has products of
 * exactly 0; values that overflow give infinities or NaN. past may be NULL. */
MEED_MUST_CHECK enum meed_status
meed_step_products_measure(const struct meed_adapter *global,
                           const struct meed_adapter *const *clients, int32_t count,
                           const struct meed_step_past *past, struct meed_pool *pool,
                           struct meed_arena *arena, struct meed_step_products *products);

MEED_END_C
#endif
