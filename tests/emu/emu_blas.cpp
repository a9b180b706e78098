/* The emulator's dense product (kernels/cuda/blas.h): a plain loop on the host.
 *
 * cuBLASLt is not emulated: the product is the one op without a kernel of ours. What matters to the
 * callers holds here too: fp32 sums in one fixed order per element, rounded once, the same for any
 * number of rows.
 */
#include <stdlib.h>
#include "tests/emu/emu.h"
#include "tests/emu/emu_engine.h"
#include "kernels/cuda/blas.h"

struct meed_cuda_blas {
    char nothing;
};
static struct meed_cuda_blas only;
static bool refusing;

void meed_emu_products_refuse(bool refuse)
{
    refusing = refuse;
}

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

static void element_put(const struct meed_mat *mat, int64_t at, float value)
{
    if (mat->dtype == MEED_DTYPE_F32) {
        ((float *)mat->data)[at] = value;
    } else {
        ((meed_bf16 *)mat->data)[at] = meed_bf16_from_f32(value);
    }
}

/* sums[n] += Σ_k row[k]·weight[k, n]: a chain over k for each element, whatever the loop order. */
static void row_product(float *MEED_RESTRICT sums, const float *MEED_RESTRICT weight,
                        const struct meed_mat *a, int64_t m, int64_t n_count)
{
    for (int64_t k = 0; k < a->cols; k++) {
        float x = element(a, m * a->stride + k);
        for (int64_t n = 0; n < n_count; n++) {
            sums[n] = __builtin_fmaf(x, weight[k * n_count + n], sums[n]);
        }
    }
}

static enum meed_status product(enum meed_matmul_kind kind, struct meed_mat a, struct meed_mat b,
                                bool accumulate, struct meed_mat c)
{
    int64_t k_step = kind == MEED_MATMUL_NT ? 1 : b.stride;
    int64_t n_step = kind == MEED_MATMUL_NT ? b.stride : 1;
    float *weight = (float *)malloc((size_t)(a.cols * c.cols + c.cols) * sizeof(float));
    if (!weight) {
        return MEED_FAIL(MEED_NOMEM, "no memory for a product of the emulator");
    }
    float *sums = weight + a.cols * c.cols;
    for (int64_t i = 0; i < a.cols * c.cols; i++) {
        weight[i] = element(&b, i / c.cols * k_step + i % c.cols * n_step);
    }
    for (int64_t m = 0; m < c.rows; m++) {
        for (int64_t n = 0; n < c.cols; n++) {
            sums[n] = 0.0f;
        }
        row_product(sums, weight, &a, m, c.cols);
        for (int64_t n = 0; n < c.cols; n++) {
            int64_t at = m * c.stride + n;
            element_put(&c, at, accumulate ? sums[n] + element(&c, at) : sums[n]);
        }
    }
    free(weight);
    return MEED_OK;
}

struct product_record {
    enum meed_matmul_kind kind;
    struct meed_mat a;
    struct meed_mat b;
    bool accumulate;
    struct meed_mat c;
};
static bool product_replay(const void *record, const void *arguments)
{
    const struct product_record *p = (const struct product_record *)record;
    (void)arguments;
    emu_device_open();
    return product(p->kind, p->a, p->b, p->accumulate, p->c) == MEED_OK;
}

enum meed_status meed_cuda_blas_matmul(struct meed_cuda_blas *blas, cudaStream_t stream,
                                       enum meed_matmul_kind kind, struct meed_mat a,
                                       struct meed_mat b, bool accumulate, struct meed_mat c)
{
    const struct product_record record = {kind, a, b, accumulate, c};
    (void)blas;
    if (refusing) {
        return MEED_UNSUPPORTED;
    }
    if (emu_graph_record(stream, product_replay, &record, sizeof record, NULL, 0)) {
        return MEED_OK;
    }
    emu_device_open();
    return product(kind, a, b, accumulate, c);
}
