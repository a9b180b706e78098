/* Products with a skinny left operand, straight on stored matrices: no packing, no second pass.
 *
 * The gradients of the low-rank branch multiply R rows (8 to a few hundred) with all of x, dy or A.
 * Packing pays when a panel is used many times; here it is used once or twice, so these kernels
 * read the right operand where it lies, convert bf16 on the way, and may add into a bf16 result
 * directly. Chains are those of panel.h: one fma per term in the order of k, starting from what c
 * holds.
 */
#ifndef MEED_CPU_THIN_H
#define MEED_CPU_THIN_H

#include "kernels/cpu/isa.h"

/* c [rows, n] fp32 += aᵀ·src: a [k, rows] with rows of a `a_stride` apart, src [k, n]. Exactly n
 * columns of c are written. */
void MEED_TWIN(thin_sum)(const float *a, int64_t a_stride, int64_t rows, int64_t k, const void *src,
                         enum meed_dtype dtype, int64_t src_stride, int64_t n, float *c,
                         int64_t c_stride);
/* c [rows, n] += a·src: a [rows, k], src [k, n] fp32; exactly n columns of c are written. */
void MEED_TWIN(thin_add)(const float *a, int64_t a_stride, int64_t rows, int64_t k,
                         const float *src, int64_t src_stride, int64_t n, void *c,
                         enum meed_dtype dtype, int64_t c_stride);

#endif
