/* What LoRA costs: the K-extended layout against the frozen GEMM it extends.
 *
 * One linear of 2048 × 2048 over 2,048 rows at rank 16, in both dtypes. Forward: T = x·Aᵀ into the
 * tail, then [x | T]·[W | s∘B]ᵀ, against x·Wᵀ. Backward: dy·[W | s∘B], then dA, dB and dx, against
 * dy·W. FLOPs alone would give 1.016; the usual two-pass form costs 1.08 to 1.18 on this kind of
 * machine. The forward is checked against the two-pass result before it is timed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/rng.h"
#include "base/threads.h"
#include "bench/harness.h"
#include "kernels/backend.h"

enum { M = 2048, K = 2048, N = 2048, R = 16 };

struct layer {
    struct meed_backend *be;
    enum meed_dtype dtype;
    struct meed_mat x;   /* [M, K] dense */
    struct meed_mat xt;  /* [M, K+R] */
    struct meed_mat w;   /* [N, K] */
    struct meed_mat wb;  /* [N, K+R] */
    struct meed_mat a;   /* [R, K] */
    struct meed_mat y;   /* [M, N] */
    struct meed_mat dy;  /* [M, N] */
    struct meed_mat dx;  /* [M, K] */
    struct meed_mat dxt; /* [M, K+R] */
    float *da;
    float *db;
    struct meed_tail tail;
};

static struct meed_mat mat_create(struct meed_backend *be, int64_t rows, int64_t cols,
                                  enum meed_dtype dtype)
{
    void *data = NULL;
    if (be->alloc(be, (size_t)(rows * cols) * meed_dtype_bytes(dtype), &data) != MEED_OK) {
        abort();
    }
    return meed_mat_view(data, rows, cols, cols, dtype);
}

static void fill(struct meed_mat mat, uint64_t stream, double scale)
{
    struct meed_rng rng = meed_rng_stream(1, "bench", stream);
    for (int64_t i = 0; i < mat.rows * mat.stride; i++) {
        float value = (float)(scale * (2 * meed_rng_unit(&rng) - 1));
        if (mat.dtype == MEED_DTYPE_F32) {
            ((float *)mat.data)[i] = value;
        } else {
            ((meed_bf16 *)mat.data)[i] = meed_bf16_from_f32(value);
        }
    }
}

static float at(struct meed_mat mat, int64_t row, int64_t col)
{
    int64_t i = row * mat.stride + col;
    return mat.dtype == MEED_DTYPE_F32 ? ((float *)mat.data)[i]
                                       : meed_bf16_to_f32(((meed_bf16 *)mat.data)[i]);
}

static void put(struct meed_mat mat, int64_t row, int64_t col, float value)
{
    int64_t i = row * mat.stride + col;
    if (mat.dtype == MEED_DTYPE_F32) {
        ((float *)mat.data)[i] = value;
    } else {
        ((meed_bf16 *)mat.data)[i] = meed_bf16_from_f32(value);
    }
}

static void layer_init(struct layer *layer, struct meed_backend *be, enum meed_dtype dtype)
{
    layer->be = be;
    layer->dtype = dtype;
    layer->x = mat_create(be, M, K, dtype);
    layer->xt = mat_create(be, M, K + R, dtype);
    layer->w = mat_create(be, N, K, dtype);
    layer->wb = mat_create(be, N, K + R, dtype);
    layer->a = mat_create(be, R, K, dtype);
    layer->y = mat_create(be, M, N, dtype);
    layer->dy = mat_create(be, M, N, dtype);
    layer->dx = mat_create(be, M, K, dtype);
    layer->dxt = mat_create(be, M, K + R, dtype);
    layer->da = mat_create(be, R, K, MEED_DTYPE_F32).data;
    layer->db = mat_create(be, N, R, MEED_DTYPE_F32).data;
    fill(layer->x, 1, 1);
    fill(layer->w, 2, 0.05);
    fill(layer->wb, 3, 0.05);
    fill(layer->a, 4, 0.05);
    fill(layer->dy, 5, 1);
    for (int64_t i = 0; i < M; i++) {
        for (int64_t k = 0; k < K; k++) {
            put(layer->xt, i, k, at(layer->x, i, k));
        }
    }
    for (int64_t n = 0; n < N; n++) {
        for (int64_t k = 0; k < K; k++) {
            put(layer->wb, n, k, at(layer->w, n, k));
        }
    }
    layer->tail = (struct meed_tail){.a = layer->a};
}

static void layer_clear(struct layer *layer)
{
    void *blocks[] = {layer->x.data,   layer->xt.data, layer->w.data,  layer->wb.data,
                      layer->a.data,   layer->y.data,  layer->dy.data, layer->dx.data,
                      layer->dxt.data, layer->da,      layer->db};
    layer->be->forget(layer->be, layer->w.data);
    layer->be->forget(layer->be, layer->wb.data);
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        layer->be->free(layer->be, blocks[i]);
    }
}

static enum meed_status frozen_forward(void *user)
{
    struct layer *l = user;
    l->be->matmul(l->be, MEED_MATMUL_NT, l->x, l->w, false, l->y);
    return l->be->sync(l->be);
}

static enum meed_status lora_forward(void *user)
{
    struct layer *l = user;
    l->be->lora_down(l->be, l->xt, K, &l->tail);
    l->be->matmul(l->be, MEED_MATMUL_NT, l->xt, l->wb, false, l->y);
    return l->be->sync(l->be);
}

static enum meed_status frozen_both(void *user)
{
    struct layer *l = user;
    MEED_TRY(frozen_forward(user));
    l->be->matmul(l->be, MEED_MATMUL_NN, l->dy, l->w, false, l->dx);
    return l->be->sync(l->be);
}

static enum meed_status lora_both(void *user)
{
    struct layer *l = user;
    struct meed_lora_slot slot = {0, N, 0, R, 1.0f, l->db};
    MEED_TRY(lora_forward(user));
    l->be->matmul(l->be, MEED_MATMUL_NN, l->dy, l->wb, false, l->dxt);
    l->be->lora_grad(l->be, l->dy, l->xt, K, &l->tail, &slot, 1, l->da, true, l->dxt);
    return l->be->sync(l->be);
}

/* y of a few rows and columns against float64 on the stored operands. */
static enum meed_status check_forward(struct layer *l)
{
    MEED_TRY(lora_forward(l));
    double worst = 0;
    double scale = 0;
    for (int64_t row = 0; row < M; row += 511) {
        for (int64_t n = 0; n < N; n += 509) {
            double want = 0;
            for (int64_t k = 0; k < K; k++) {
                want += (double)at(l->x, row, k) * at(l->w, n, k);
            }
            for (int64_t j = 0; j < R; j++) {
                double t = 0;
                for (int64_t k = 0; k < K; k++) {
                    t += (double)at(l->x, row, k) * at(l->a, j, k);
                }
                want += t * at(l->wb, n, K + j);
            }
            worst = fmax(worst, fabs(want - at(l->y, row, n)));
            scale = fmax(scale, fabs(want));
        }
    }
    double bound = l->dtype == MEED_DTYPE_F32 ? 1e-5 : 1e-2; /* rounding of sums; of T and y */
    if (worst > bound * scale) {
        return MEED_FAIL(MEED_NUMERIC, "LoRA forward in %s is off by %g of %g",
                         meed_dtype_name(l->dtype), worst, scale);
    }
    return MEED_OK;
}

static enum meed_status bench_dtype(struct meed_backend *be, enum meed_dtype dtype, int threads)
{
    struct layer layer;
    layer_init(&layer, be, dtype);
    struct meed_bench_contestant forward[] = {{"frozen", frozen_forward, &layer},
                                              {"lora", lora_forward, &layer}};
    struct meed_bench_contestant both[] = {{"frozen", frozen_both, &layer},
                                           {"lora", lora_both, &layer}};
    struct meed_bench_result result;
    char name[96];
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(check_forward(&layer));
    MEED_TRY_OUT(meed_bench_race(forward, 2, 31, &result));
    const char *type = meed_dtype_name(dtype);
    snprintf(name, sizeof name, "%s frozen GEMM, %d threads", type, threads);
    meed_bench_row("kernels", name, 2e-9 * M * N * K / result.median_s[0], "GFLOP/s", 0, '>');
    snprintf(name, sizeof name, "%s LoRA forward / frozen GEMM", type);
    meed_bench_row("kernels", name, result.ratio[1], "x", 1.05, '<');
    MEED_TRY_OUT(meed_bench_race(both, 2, 15, &result));
    snprintf(name, sizeof name, "%s LoRA forward+backward / two frozen GEMMs", type);
    meed_bench_row("kernels", name, result.ratio[1], "x", 1.20, '<');
out:
    layer_clear(&layer);
    return st;
}

enum meed_status meed_suite_kernels(int threads)
{
    struct meed_pool *pool = NULL;
    struct meed_backend *be = NULL;
    enum meed_status st = MEED_OK;
    meed_bench_heading("kernels", "2048 x 2048, 2048 rows, rank 16");
    MEED_TRY_OUT(meed_pool_create(threads, &pool));
    MEED_TRY_OUT(meed_backend_open_cpu(pool, NULL, &be));
    MEED_TRY_OUT(bench_dtype(be, MEED_DTYPE_BF16, threads));
    MEED_TRY_OUT(bench_dtype(be, MEED_DTYPE_F32, threads));
out:
    meed_backend_close(be);
    meed_pool_destroy(pool);
    return st;
}
