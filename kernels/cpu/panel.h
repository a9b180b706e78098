/* The one inner loop of the own matrix kernels: C += A·P, with P packed into column panels.
 *
 * Matmul without oneDNN, the low-rank tail and its gradients, merging and attention are all small
 * or oddly shaped products; each packs its right operand and calls this kernel, so register
 * blocking is written and tuned once. A is fp32 in memory with any row and column stride (a
 * transposed A costs nothing, since the kernel only broadcasts single elements of it).
 *
 * Order of summation, the base of every determinism promise: each element of C is one chain
 * c = fma(a[m,k], b[k,n], c) for k = 0, 1, 2, … starting from what C held. Cutting K into blocks,
 * M and N into tiles, or giving them to other threads does not change the chain.
 *
 * Packed layout of P [k, n]: n is padded with zeros to a multiple of VL vectors; panels of 1 to 3
 * vectors stand one after another, each [k][panel width].
 */
#ifndef MEED_CPU_PANEL_H
#define MEED_CPU_PANEL_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/vec.h"

/* Row step of A's scratch tiles for which panel_gemm has kernels of its own; not a power of two, so
 * that sixteen rows do not share one set of the first cache. Up to PANEL_DEPTH columns. */
enum { PANEL_DEPTH = 256, PANEL_STEP = PANEL_DEPTH + 16 };

/* n rounded up to whole vectors: the row length of a C tile and the columns of a packed P. */
static inline int64_t panel_cols(int64_t n)
{
    return (n + VL - 1) / VL * VL;
}
/* Vectors of the next panel when `left` vectors remain: 3, but 2 + 2 instead of 3 + 1. */
static inline int panel_next(int64_t left)
{
    return left == 4 || left == 2 ? 2 : left >= 3 ? 3 : 1;
}

/* Packs B [k, n]: element (i, j) at src[i*stride + j], or at src[j*stride + i] if transposed.
 * packed holds k * panel_cols(n) floats. */
void MEED_TWIN(panel_pack)(const void *src, enum meed_dtype dtype, int64_t stride, bool transposed,
                           int64_t k, int64_t n, float *packed);
/* c [rows, panel_cols(n)] += a·P; a[i, j] at a[i*row_step + j*col_step]. */
void MEED_TWIN(panel_gemm)(const float *a, int64_t row_step, int64_t col_step, int64_t rows,
                           int64_t k, const float *packed, int64_t n, float *c, int64_t c_stride);

#endif
