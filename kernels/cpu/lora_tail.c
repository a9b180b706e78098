/* See lora_tail.h: the tail of a tile of rows, and lora_down, which is nothing but that. */
#include "kernels/cpu/lora_tail.h"

#include "base/rng.h"
#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/dot_bf16.h"

enum { DEPTH = PANEL_DEPTH }; /* of x converted to fp32 at a time */

void MEED_TWIN(tail_dropout)(const struct meed_tail *tail, int64_t width, int64_t m,
                             int64_t k_begin, int64_t count, float *values)
{
    double bound = (double)tail->dropout * 4294967296.0;
    uint32_t threshold = bound >= 4294967295.0 ? 0xFFFFFFFFu : (uint32_t)bound;
    float scale = 1.0f / (1.0f - tail->dropout);
    uint64_t element = (uint64_t)(m * width + k_begin);
    uint32_t words[4];
    for (int64_t i = 0; i < count; i++, element++) {
        if (i == 0 || element % 4 == 0) {
            meed_rng_block(*tail->dropout_key, element / 4, words);
        }
        values[i] = words[element % 4] >= threshold ? values[i] * scale : 0.0f;
    }
}

/* Whether x and A are multiplied as stored: wide registers, and nothing that changes x. */
static bool pairs_fit(const struct meed_tail *tail, int64_t k, enum meed_dtype dtype)
{
    return VL == 16 && dtype == MEED_DTYPE_BF16 && tail->a.dtype == MEED_DTYPE_BF16 && k % 2 == 0 &&
           tail->dropout == 0.0f && meed_cpu_dot_bf16_here();
}

struct tail_job MEED_TWIN(tail_prepare)(const struct meed_tail *tail, int64_t k,
                                        enum meed_dtype dtype)
{
    struct tail_job job = {tail, NULL, false, k, 0};
    if (!tail || !tail->a.data || tail->a.rows == 0) {
        return job;
    }
    MEED_ASSERT(tail->a.cols == k && tail->dropout >= 0.0f && tail->dropout < 1.0f);
    job.r = tail->a.rows;
    /* Packed in blocks of DEPTH along k, the order in which tail_product reads it. */
    float *packed = meed_cpu_scratch_floats(MEED_SCRATCH_SHARED_A, (size_t)(k * panel_cols(job.r)));
    job.pairs = pairs_fit(tail, k, dtype);
    for (int64_t at = 0; at < k; at += DEPTH) {
        const char *from =
            (const char *)tail->a.data + (size_t)at * meed_dtype_bytes(tail->a.dtype);
        int64_t depth = MEED_MIN(DEPTH, k - at);
        float *to = packed + at * panel_cols(job.r);
        if (job.pairs) {
            meed_cpu_dot_bf16_pack((const meed_bf16 *)from, tail->a.stride, job.r, depth,
                                   (uint32_t *)to);
        } else {
            MEED_TWIN(panel_pack)(from, tail->a.dtype, tail->a.stride, true, depth, job.r, to);
        }
    }
    job.packed = packed;
    return job;
}

/* Asks for the block that row m needs next, which arrives while this one is multiplied: the same
 * row's, or the first one of the row a tile below. */
static void next_prefetch(const struct tail_job *job, struct meed_mat x, int64_t m, int64_t at)
{
    int64_t row = m, col = at + DEPTH;
    if (col >= job->k) {
        row = MEED_MIN(m + TAIL_ROWS, x.rows - 1);
        col = 0;
    }
    size_t item = meed_dtype_bytes(x.dtype);
    const char *next = (const char *)x.data + (size_t)(row * x.stride + col) * item;
    for (size_t ahead = 0; ahead < DEPTH * item; ahead += 64) {
        __builtin_prefetch(next + ahead);
    }
}

/* u [count, width] += x̃·Aᵀ over columns [at, at + depth) of rows [m, m + count). */
static void block_product(const struct tail_job *job, struct meed_mat x, int64_t m, int64_t count,
                          int64_t at, int64_t depth, float *u)
{
    int64_t width = panel_cols(job->r);
    const float *packed = (const float *)job->packed + at * width;
    const char *from =
        (const char *)x.data + (size_t)(m * x.stride + at) * meed_dtype_bytes(x.dtype);
    if (job->pairs) {
        for (int64_t i = 0; i < count; i++) {
            next_prefetch(job, x, m + i, at);
        }
        meed_cpu_dot_bf16((const meed_bf16 *)from, x.stride, count, depth, (const uint32_t *)packed,
                          job->r, u, width);
        return;
    }
    if (x.dtype == MEED_DTYPE_F32 && job->tail->dropout == 0.0f) {
        MEED_TWIN(panel_gemm)
        ((const float *)from, x.stride, 1, count, depth, packed, job->r, u, width);
        return;
    }
    float *rows = meed_cpu_scratch_floats(MEED_SCRATCH_ROWS, TAIL_ROWS * PANEL_STEP);
    for (int64_t i = 0; i < count; i++) {
        vf_unpack_row(from, i * x.stride, x.dtype, depth, rows + i * PANEL_STEP);
        next_prefetch(job, x, m + i, at);
        if (job->tail->dropout > 0.0f) {
            MEED_TWIN(tail_dropout)(job->tail, job->k, m + i, at, depth, rows + i * PANEL_STEP);
        }
    }
    MEED_TWIN(panel_gemm)(rows, PANEL_STEP, 1, count, depth, packed, job->r, u, width);
}

void MEED_TWIN(tail_product)(const struct tail_job *job, struct meed_mat x, int64_t begin,
                             int64_t end, float *u)
{
    int64_t width = panel_cols(job->r);
    memset(u, 0, (size_t)((end - begin) * width) * sizeof *u);
    for (int64_t m = begin; m < end; m += TAIL_ROWS) {
        int64_t count = MEED_MIN(TAIL_ROWS, end - m);
        for (int64_t at = 0; at < job->k; at += DEPTH) {
            block_product(job, x, m, count, at, MEED_MIN(DEPTH, job->k - at),
                          u + (m - begin) * width);
        }
    }
}

void MEED_TWIN(tail_rows)(const struct tail_job *job, struct meed_mat x, int64_t begin, int64_t end)
{
    if (!job->packed) {
        return;
    }
    int64_t width = panel_cols(job->r);
    float *u = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)(TAIL_ROWS * width));
    for (int64_t m = begin; m < end; m += TAIL_ROWS) {
        int64_t count = MEED_MIN(TAIL_ROWS, end - m);
        MEED_TWIN(tail_product)(job, x, m, m + count, u);
        for (int64_t i = 0; i < count; i++) {
            const float *gates = tail_gates(job->tail, m + i);
            for (int64_t j = 0; j < job->r; j += VL) {
                vf value = vf_load(u + i * width + j);
                if (gates) {
                    value *= vf_get_n(gates, j, MEED_DTYPE_F32, job->r - j);
                }
                vf_put_n(x.data, (m + i) * x.stride + job->k + j, x.dtype, job->r - j, value);
            }
        }
    }
}

struct down_job {
    struct tail_job tail;
    struct meed_mat x;
};

static void rows_down(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct down_job *job = user;
    MEED_TWIN(tail_rows)(&job->tail, job->x, begin, end);
}

void MEED_TWIN(lora_down)(const struct meed_backend *be, struct meed_mat xt, int64_t k,
                          const struct meed_tail *tail)
{
    struct down_job job = {MEED_TWIN(tail_prepare)(tail, k, xt.dtype), xt};
    if (!job.tail.packed) {
        return;
    }
    MEED_ASSERT(xt.cols == k + job.tail.r);
    meed_pool_for(be->pool, xt.rows, TAIL_ROWS, rows_down, &job);
}
