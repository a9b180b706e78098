/* The skinny product x·Aᵀ on stored bf16, two terms an instruction (AVX512-BF16).
 *
 * A tail over 2,048 columns and rank 16 costs the fp32 kernel of panel.h as many multiply-adds as
 * 3 % of the GEMM it extends, because that GEMM runs on VDPBF16PS at twice the rate and needs no
 * conversion; here the tail does too. Products of bf16 are exact in fp32 and each element of c is
 * one chain over pairs of columns, in order, so bits depend on nothing but the row and A. They
 * differ from the fp32 kernel's in the last place, as the GEMM's do between processors.
 *
 * The instruction flushes denormals; that is why bf16 conversion is not done this way (vec.h), and
 * harmless in a sum of products.
 */
#ifndef MEED_CPU_DOT_BF16_H
#define MEED_CPU_DOT_BF16_H

#include "kernels/types.h"

/* Whether this processor has the instruction and the kernel was compiled. */
bool meed_cpu_dot_bf16_here(void);
/* Packs `depth` columns (even) of A [r, …], rows `stride` apart: for each vector of 16 rows of A
 * [depth / 2][16] pairs, zeros beyond r. packed holds depth / 2 * r_rounded_up_to_16 words. */
void meed_cpu_dot_bf16_pack(const meed_bf16 *a, int64_t stride, int64_t r, int64_t depth,
                            uint32_t *packed);
/* c [rows, c_stride] += x·Aᵀ over the packed depth; r_rounded_up_to_16 columns of c are written. */
void meed_cpu_dot_bf16(const meed_bf16 *x, int64_t x_stride, int64_t rows, int64_t depth,
                       const uint32_t *packed, int64_t r, float *c, int64_t c_stride);

#endif
