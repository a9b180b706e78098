/* RMSNorm of rows (Zhang & Sennrich 2019) and of heads, forward and backward.
 *
 * Forward works on tiles of TAIL_ROWS rows: residual add, norm, store, and then the low-rank tail
 * of the tile while it is in the first cache. The sum is rounded to its dtype before it is squared,
 * so that backward, which reads the stored sum, differentiates what forward computed.
 *
 * Backward of y = s·rstd⊙w with c = Σ w·dy·s:  ds = rstd·w⊙dy − s·rstd³·c/K.
 * headnorm keeps no input: s·rstd = y/w, hence dx = rstd·(w⊙dy − (y/w)·mean(w⊙dy⊙(y/w))).
 */
#include "kernels/cpu/isa.h"

#include <math.h>
#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/lora_tail.h"
#include "kernels/cpu/vec.h"

enum { GRAIN_ROWS = 16 };

struct fwd_job {
    struct meed_mat x;
    struct meed_mat residual;
    struct meed_mat sum;
    struct meed_mat y;
    const float *w;
    float *rstd;
    float eps;
    struct tail_job tail;
};

static void row_fwd(const struct fwd_job *job, int64_t m, float *row)
{
    int64_t k_count = job->x.cols;
    enum meed_dtype dtype = job->x.dtype;
    vf squares = {0};
    for (int64_t k = 0; k < k_count; k += VL) {
        int64_t lanes = k_count - k;
        vf value = vf_get_n(job->x.data, m * job->x.stride + k, dtype, lanes);
        if (job->residual.data) {
            value += vf_get_n(job->residual.data, m * job->residual.stride + k, job->residual.dtype,
                              lanes);
            value = vf_rounded(value, dtype);
        }
        if (job->sum.data) {
            vf_put_n(job->sum.data, m * job->sum.stride + k, dtype, lanes, value);
        }
        vf_store(row + k, value);
        squares = vf_fma(value, value, squares);
    }
    float rstd = 1.0f / sqrtf(vf_sum(squares) / (float)k_count + job->eps);
    if (job->rstd) {
        job->rstd[m] = rstd;
    }
    for (int64_t k = 0; k < k_count; k += VL) {
        vf weight = vf_get_n(job->w, k, MEED_DTYPE_F32, k_count - k);
        vf_put_n(job->y.data, m * job->y.stride + k, job->y.dtype, k_count - k,
                 vf_load(row + k) * rstd * weight);
    }
}

static void rows_fwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct fwd_job *job = user;
    float *row = meed_cpu_scratch_floats(MEED_SCRATCH_PANEL, (size_t)panel_cols(job->x.cols));
    for (int64_t m = begin; m < end; m++) {
        row_fwd(job, m, row);
    }
    MEED_TWIN(tail_rows)(&job->tail, job->y, begin, end);
}

void MEED_TWIN(rmsnorm_fwd)(const struct meed_backend *be, struct meed_mat x,
                            struct meed_mat residual, const float *w, float eps,
                            const struct meed_tail *tail, struct meed_mat sum, struct meed_mat y,
                            float *rstd)
{
    struct fwd_job job = {x, residual, sum, y,
                          w, rstd,     eps, MEED_TWIN(tail_prepare)(tail, x.cols, y.dtype)};
    MEED_ASSERT(x.rows == y.rows && y.cols == x.cols + job.tail.r);
    MEED_ASSERT(!residual.data || (residual.rows == x.rows && residual.cols == x.cols));
    MEED_ASSERT(!sum.data || (sum.rows == x.rows && sum.cols == x.cols && sum.dtype == x.dtype));
    meed_pool_for(be->pool, x.rows, TAIL_ROWS, rows_fwd, &job);
}

struct bwd_job {
    struct meed_mat dy;
    struct meed_mat sum;
    struct meed_mat dsum;
    const float *w;
    const float *rstd;
};

static void rows_bwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct bwd_job *job = user;
    int64_t k_count = job->sum.cols;
    for (int64_t m = begin; m < end; m++) {
        vf dots = {0};
        for (int64_t k = 0; k < k_count; k += VL) {
            int64_t lanes = k_count - k;
            vf grad = vf_get_n(job->dy.data, m * job->dy.stride + k, job->dy.dtype, lanes) *
                      vf_get_n(job->w, k, MEED_DTYPE_F32, lanes);
            vf value = vf_get_n(job->sum.data, m * job->sum.stride + k, job->sum.dtype, lanes);
            dots = vf_fma(grad, value, dots);
        }
        float rstd = job->rstd[m];
        float pull = vf_sum(dots) / (float)k_count * rstd * rstd * rstd;
        for (int64_t k = 0; k < k_count; k += VL) {
            int64_t lanes = k_count - k;
            vf grad = vf_get_n(job->dy.data, m * job->dy.stride + k, job->dy.dtype, lanes) *
                      vf_get_n(job->w, k, MEED_DTYPE_F32, lanes);
            vf value = vf_get_n(job->sum.data, m * job->sum.stride + k, job->sum.dtype, lanes);
            vf total = vf_get_n(job->dsum.data, m * job->dsum.stride + k, job->dsum.dtype, lanes);
            total += grad * rstd - value * pull;
            vf_put_n(job->dsum.data, m * job->dsum.stride + k, job->dsum.dtype, lanes, total);
        }
    }
}

void MEED_TWIN(rmsnorm_bwd)(const struct meed_backend *be, struct meed_mat dy, struct meed_mat sum,
                            const float *w, const float *rstd, struct meed_mat dsum)
{
    MEED_ASSERT(dy.rows == sum.rows && dsum.rows == sum.rows && dsum.cols == sum.cols);
    MEED_ASSERT(dy.cols >= sum.cols); /* a view of [dx | dT] may be handed over whole */
    struct bwd_job job = {dy, sum, dsum, w, rstd};
    meed_pool_for(be->pool, sum.rows, GRAIN_ROWS, rows_bwd, &job);
}

struct head_job {
    struct meed_mat x; /* forward: in and out; backward: the output */
    struct meed_mat dx;
    const float *w;
    float *rstd_out;
    const float *rstd;
    int64_t heads;
    int64_t size;
    float eps;
};

static void heads_fwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct head_job *job = user;
    for (int64_t i = begin * job->heads; i < end * job->heads; i++) {
        int64_t at = i / job->heads * job->x.stride + i % job->heads * job->size;
        vf squares = {0};
        for (int64_t d = 0; d < job->size; d += VL) {
            vf value = vf_get_n(job->x.data, at + d, job->x.dtype, job->size - d);
            squares = vf_fma(value, value, squares);
        }
        float rstd = 1.0f / sqrtf(vf_sum(squares) / (float)job->size + job->eps);
        if (job->rstd_out) {
            job->rstd_out[i] = rstd;
        }
        for (int64_t d = 0; d < job->size; d += VL) {
            int64_t lanes = job->size - d;
            vf value = vf_get_n(job->x.data, at + d, job->x.dtype, lanes);
            vf weight = vf_get_n(job->w, d, MEED_DTYPE_F32, lanes);
            vf_put_n(job->x.data, at + d, job->x.dtype, lanes, value * rstd * weight);
        }
    }
}

void MEED_TWIN(headnorm_fwd)(const struct meed_backend *be, struct meed_mat x, int32_t heads,
                             const float *w, float eps, float *rstd)
{
    MEED_ASSERT(heads > 0 && x.cols % heads == 0);
    struct head_job job = {x, x, w, rstd, NULL, heads, x.cols / heads, eps};
    meed_pool_for(be->pool, x.rows, GRAIN_ROWS, heads_fwd, &job);
}

static void heads_bwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct head_job *job = user;
    for (int64_t i = begin * job->heads; i < end * job->heads; i++) {
        int64_t at = i / job->heads * job->x.stride + i % job->heads * job->size;
        int64_t grad_at = i / job->heads * job->dx.stride + i % job->heads * job->size;
        vf dots = {0};
        for (int64_t d = 0; d < job->size; d += VL) {
            int64_t lanes = job->size - d;
            /* w·dy·(y/w) = dy·y */
            dots = vf_fma(vf_get_n(job->x.data, at + d, job->x.dtype, lanes),
                          vf_get_n(job->dx.data, grad_at + d, job->dx.dtype, lanes), dots);
        }
        float mean = vf_sum(dots) / (float)job->size;
        for (int64_t d = 0; d < job->size; d += VL) {
            int64_t lanes = MEED_MIN(VL, job->size - d);
            vf weight = vf_set1(1.0f);
            for (int64_t lane = 0; lane < lanes; lane++) {
                weight[lane] = job->w[d + lane];
            }
            vf unit = vf_get_n(job->x.data, at + d, job->x.dtype, lanes) / weight;
            vf grad = vf_get_n(job->dx.data, grad_at + d, job->dx.dtype, lanes) * weight;
            vf_put_n(job->dx.data, grad_at + d, job->dx.dtype, lanes,
                     (grad - unit * mean) * job->rstd[i]);
        }
    }
}

void MEED_TWIN(headnorm_bwd)(const struct meed_backend *be, struct meed_mat y, int32_t heads,
                             const float *w, const float *rstd, struct meed_mat dx)
{
    MEED_ASSERT(heads > 0 && y.cols % heads == 0 && dx.cols == y.cols && dx.rows == y.rows);
    struct head_job job = {y, dx, w, NULL, rstd, heads, y.cols / heads, 0.0f};
    meed_pool_for(be->pool, y.rows, GRAIN_ROWS, heads_bwd, &job);
}
