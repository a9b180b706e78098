/* C (+)= A·Bᵀ or A·B: shapes are checked here, the product is behind blas.h.
 *
 * A LoRA linear is this product over K + R columns, [x | T]·[W | s∘B]ᵀ: the low-rank branch costs
 * its share of the FLOPs and no pass of its own over y.
 */
#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_state.h"

extern "C" void meed_cuda_matmul(const struct meed_backend *be, enum meed_matmul_kind kind,
                                 struct meed_mat a, struct meed_mat b, bool accumulate,
                                 struct meed_mat c)
{
    bool transposed = kind == MEED_MATMUL_NT;
    MEED_ASSERT(a.dtype == b.dtype && (c.dtype == a.dtype || c.dtype == MEED_DTYPE_F32));
    MEED_ASSERT(a.rows == c.rows && a.cols == (transposed ? b.cols : b.rows));
    MEED_ASSERT(c.cols == (transposed ? b.rows : b.cols));
    if (c.rows == 0 || c.cols == 0) {
        return;
    }
    MEED_ASSERT(a.cols > 0);
    meed_cuda_note(be, meed_cuda_blas_matmul(meed_cuda_state_of(be)->blas, meed_cuda_stream(be),
                                             kind, a, b, accumulate, c));
}
