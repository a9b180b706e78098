/* The emulator's dense product (kernels/cuda/blas.h): a plain loop on the host.
 *
 * cuBLASLt is not emulated: the product is the one op without a kernel of ours. What matters to the
 * callers holds here too: fp32 sums in one fixed order per element, rounded once, the same for any
 * number of rows.
 */
#include "tests/emu/emu_engine.h"
#include "kernels/cuda/blas.h"

struct meed_cuda_blas {
    char nothing;
};
static struct meed_cuda_blas only;

enum meed_status meed_cuda_blas_create(struct meed_cuda_blas **blas)
{
    *blas = &only;
    return MEED_OK;
}

void meed_cuda_blas_destroy(struct meed_cuda_blas *blas)
{
    (void)blas;
}

static float element(const struct meed_mat *mat, int64_t at)
{
    return mat->dtype == MEED_DTYPE_F32 ? ((const float *)mat->data)[at]
                                        : meed_bf16_to_f32(((const meed_bf16 *)mat->data)[at]);
}

enum meed_status meed_cuda_blas_matmul(struct meed_cuda_blas *blas, cudaStream_t stream,
                                       enum meed_matmul_kind kind, struct meed_mat a,
                                       struct meed_mat b, bool accumulate, struct meed_mat c)
{
    (void)blas;
    (void)stream;
    int64_t k_step = kind == MEED_MATMUL_NT ? 1 : b.stride;
    int64_t n_step = kind == MEED_MATMUL_NT ? b.stride : 1;
    for (int64_t m = 0; m < c.rows; m++) {
        for (int64_t n = 0; n < c.cols; n++) {
            int64_t at = m * c.stride + n;
            float sum = 0.0f;
            for (int64_t k = 0; k < a.cols; k++) {
                sum =
                    fmaf(element(&a, m * a.stride + k), element(&b, k * k_step + n * n_step), sum);
            }
            sum += accumulate ? element(&c, at) : 0.0f;
            if (c.dtype == MEED_DTYPE_F32) {
                ((float *)c.data)[at] = sum;
            } else {
                ((meed_bf16 *)c.data)[at] = meed_bf16_from_f32(sum);
            }
        }
    }
    return MEED_OK;
}
