/* Dense sums over linear weights: what any number of adapters is to a network that holds none.
 *
 * A *dense* is one fp32 matrix [N, K] for every linear group that some adapter touches. It serves
 * as D = Σ_k f_k·s_k B_k A_k   what a cohort adds to W, and G = d(Σ weight·logprob)/dW, gathered by
 * a backward pass; and the slope of a value along an adapter is ⟨G, s B A⟩ = s·Σ (Bᵀ G) ∘ A, never
 * forming B·A. So a cohort is merged, and valued, in memory that does not depend on its size:
 * adapters pass through a block of DENSE_ROWS stacked rows on their way, each a share of one GEMM.
 * The stack of net.h (gates) is the other way to the same numbers, cheaper while n·r stays below
 * the width of W.
 */
#ifndef MEED_ENGINE_NET_DENSE_H
#define MEED_ENGINE_NET_DENSE_H

#include "engine/net.h"

MEED_BEGIN_C

struct meed_net_dense;

/* Zeros, for the modules of the adapters [count] in networks of net's shape. */
MEED_MUST_CHECK enum meed_status meed_net_dense_create(const struct meed_net *net,
                                                       const struct meed_adapter *const *adapters,
                                                       int32_t count,
                                                       struct meed_net_dense **dense);
void meed_net_dense_destroy(struct meed_net_dense *dense); /* accepts NULL */
void meed_net_dense_zero(struct meed_net_dense *dense);
/* += Σ factors[i]·s_i·B_i·A_i. */
MEED_MUST_CHECK enum meed_status meed_net_dense_add(struct meed_net_dense *dense,
                                                    const struct meed_adapter *const *adapters,
                                                    const double *factors, int32_t count);
/* products[i] = ⟨dense, s_i·B_i·A_i⟩: fp32 products Bᵀ·dense, fp64 sums. Equal adapters get equal
 * bits. */
MEED_MUST_CHECK enum meed_status meed_net_dense_dot(struct meed_net_dense *dense,
                                                    const struct meed_adapter *const *adapters,
                                                    int32_t count, double *products);
/* Rewrites the linear weights of `net` as those of `from` + factor·dense. Both are fp32, made
 * without adapters; net may be from. */
MEED_MUST_CHECK enum meed_status meed_net_dense_shift(struct meed_net *net,
                                                      const struct meed_net *from,
                                                      const struct meed_net_dense *dense,
                                                      float factor);
/* Forward and backward of an fp32 network without adapters, created with backward:
 * dense += d(Σ weight·logprob)/dW, the sign of a value; weight [loss_rows]. */
MEED_MUST_CHECK enum meed_status meed_net_backward_dense(struct meed_net *net,
                                                         const struct meed_batch *batch,
                                                         const float *weight, float *logprob,
                                                         struct meed_net_dense *dense);

MEED_END_C
#endif
