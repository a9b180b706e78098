/* The dense product of the CUDA backend, behind an interface of three functions.
 *
 * The product is the one op that no kernel of this folder computes: cuBLASLt does
 * (blas_cublaslt.cu), and the emulator of the tests has a plain loop in its place. Whoever
 * implements it keeps the two laws of kernels/README.md: the same arguments give the same bits, and
 * a row of C depends neither on M nor on the rows around it. Sums are fp32; C is rounded once,
 * after accumulation.
 */
#ifndef MEED_KERNELS_CUDA_BLAS_H
#define MEED_KERNELS_CUDA_BLAS_H

#include "kernels/cuda/port.cuh"
#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_cuda_blas;

MEED_MUST_CHECK enum meed_status meed_cuda_blas_create(struct meed_cuda_blas **blas);
void meed_cuda_blas_destroy(struct meed_cuda_blas *blas); /* accepts NULL */
/* C (+)= A·op(B) on `stream`, the contract of meed_op_matmul_fn. Shapes are checked by the caller;
 * M, N and K are at least 1. UNSUPPORTED where there is no kernel for these strides and alignments
 * that keeps the laws; nothing is written then, and the answer does not depend on M. */
MEED_MUST_CHECK enum meed_status
meed_cuda_blas_matmul(struct meed_cuda_blas *blas, cudaStream_t stream, enum meed_matmul_kind kind,
                      struct meed_mat a, struct meed_mat b, bool accumulate, struct meed_mat c);

MEED_END_C
#endif
