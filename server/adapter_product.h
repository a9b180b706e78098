/* Inner products of adapters as what they do to the model: ⟨ΔW_x, ΔW_y⟩ summed over modules.
 *
 * ⟨s B A, s' B' A'⟩ = s s' Σ_ij (BᵀB')_ij (A A'ᵀ)_ij, so a product costs 2 r²(n + k) multiply-adds
 * a module and never forms an n × k matrix. Screens compare all pairs of a cohort with it, and
 * take differences of products: everything runs in float64 in one fixed order, whatever the
 * processor and the number of threads.
 */
#ifndef MEED_SERVER_ADAPTER_PRODUCT_H
#define MEED_SERVER_ADAPTER_PRODUCT_H

#include "base/threads.h"
#include "engine/adapter.h"

struct meed_adapter_pair {
    const struct meed_adapter *x, *y; /* of one model; ranks and modules may differ */
    double product;                   /* out */
    double *by_module;                /* out [modules of x]; NULL: only the sum is wanted */
};

/* Fills `product` of each pair, pairs in parallel. Values that overflow give infinities or NaN. */
void meed_adapter_products(struct meed_adapter_pair *pairs, int32_t count, struct meed_pool *pool);

#endif
