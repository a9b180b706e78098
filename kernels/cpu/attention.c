/* Causal grouped-query attention over packed sequences, forward.
 *
 * The arithmetic is attend.h's block; this file cuts work into blocks: a task is 64 rows of one
 * sequence and one key/value head. The low-rank tail needs all heads of a row and runs after, over
 * out as lora_down does.
 */
#include "kernels/cpu/attend.h"

#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/vmath.h"

static inline const char *at(const void *base, int64_t idx, enum meed_dtype dtype)
{
    return (const char *)base + idx * (int64_t)meed_dtype_bytes(dtype);
}

void MEED_TWIN(attend_mask)(float *scores, int64_t rows, int64_t first, int64_t key_first,
                            int64_t keys, int64_t window, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) {
        int64_t end = first + i - key_first + 1; /* keys [end − window, end) are seen */
        for (int64_t j = 0; j < MEED_MIN(width, end - window); j++) {
            scores[i * width + j] = -__builtin_inff();
        }
        for (int64_t j = MEED_MAX(0, MEED_MIN(keys, end)); j < width; j++) {
            scores[i * width + j] = -__builtin_inff();
        }
    }
}

struct state {
    float *q;     /* [heads, rows, D], scaled */
    float *out;   /* [heads, rows, panel_cols(D)] */
    float *peak;  /* [heads, rows] */
    float *sum;   /* [heads, rows] */
    float *score; /* [rows, 64] */
    float *k;     /* packed Kᵀ */
    float *v;     /* packed V */
};

static struct state state_make(const struct attend_block *b)
{
    int64_t heads_rows = b->heads * b->rows;
    int64_t width = panel_cols(b->size);
    int64_t score_width = panel_cols(ATTEND_BLOCK);
    int64_t total = heads_rows * (width + width + 2) + ATTEND_BLOCK * score_width +
                    ATTEND_BLOCK * width + width * score_width;
    struct state s;
    s.out = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)total + 64);
    s.q = s.out + heads_rows * width;
    s.k = s.q + heads_rows * width;
    s.v = s.k + width * score_width;
    s.score = s.v + ATTEND_BLOCK * width;
    s.peak = s.score + ATTEND_BLOCK * score_width;
    s.sum = s.peak + heads_rows;
    for (int64_t h = 0; h < b->heads; h++) {
        for (int64_t i = 0; i < b->rows; i++) {
            float *row = s.q + (h * b->rows + i) * b->size;
            vf_unpack_row(b->q, i * b->q_stride + h * b->size, b->dtype, b->size, row);
            for (int64_t d = 0; d < b->size; d++) {
                row[d] *= b->scale;
            }
        }
    }
    memset(s.out, 0, (size_t)(heads_rows * width) * sizeof(float));
    for (int64_t i = 0; i < heads_rows; i++) {
        s.peak[i] = -__builtin_inff();
        s.sum[i] = 0.0f;
    }
    return s;
}

void MEED_TWIN(attend_softmax)(float *score, int64_t width, float *peak, float *sum, float *out,
                               int64_t out_width)
{
    vf tops = vf_load(score);
    for (int64_t j = VL; j < width; j += VL) {
        tops = vf_max(tops, vf_load(score + j));
    }
    float top = vf_peak(tops);
    if (top > *peak) {
        float shrink = scalar_exp(*peak - top);
        for (int64_t d = 0; d < out_width; d += VL) {
            vf_store(out + d, vf_load(out + d) * shrink);
        }
        *sum *= shrink;
        *peak = top;
    }
    float base = *peak > -__builtin_inff() ? *peak : 0.0f;
    vf sums = {0};
    for (int64_t j = 0; j < width; j += VL) {
        vf p = vf_exp(vf_load(score + j) - base);
        vf_store(score + j, p);
        sums += p;
    }
    *sum += vf_sum(sums);
}

void MEED_TWIN(attend_rows)(const struct attend_block *b)
{
    struct state s = state_make(b);
    int64_t width = panel_cols(b->size);
    int64_t score_width = panel_cols(ATTEND_BLOCK);
    int64_t reach = MEED_MAX(0, b->first - b->window + 1);
    int64_t key = reach / ATTEND_BLOCK * ATTEND_BLOCK;
    for (; key < b->first + b->rows; key += ATTEND_BLOCK) {
        int64_t keys = MEED_MIN(ATTEND_BLOCK, b->first + b->rows - key);
        const char *k = at(b->k, key * b->kv_stride, b->kv_dtype);
        const char *v = at(b->v, key * b->kv_stride, b->kv_dtype);
        MEED_TWIN(panel_pack)(k, b->kv_dtype, b->kv_stride, true, b->size, keys, s.k);
        MEED_TWIN(panel_pack)(v, b->kv_dtype, b->kv_stride, false, keys, b->size, s.v);
        for (int64_t h = 0; h < b->heads; h++) {
            float *out = s.out + h * b->rows * width;
            memset(s.score, 0, (size_t)(b->rows * score_width) * sizeof(float));
            MEED_TWIN(panel_gemm)
            (s.q + h * b->rows * b->size, b->size, 1, b->rows, b->size, s.k, keys, s.score,
             score_width);
            MEED_TWIN(attend_mask)
            (s.score, b->rows, b->first, key, keys, b->window, score_width);
            for (int64_t i = 0; i < b->rows; i++) {
                MEED_TWIN(attend_softmax)
                (s.score + i * score_width, score_width, &s.peak[h * b->rows + i],
                 &s.sum[h * b->rows + i], out + i * width, width);
            }
            MEED_TWIN(panel_gemm)(s.score, score_width, 1, b->rows, keys, s.v, b->size, out, width);
        }
    }
    for (int64_t h = 0; h < b->heads; h++) {
        for (int64_t i = 0; i < b->rows; i++) {
            const float *out = s.out + (h * b->rows + i) * width;
            float sum = s.sum[h * b->rows + i];
            for (int64_t d = 0; d < b->size; d += VL) {
                vf_put_n(b->out, i * b->out_stride + h * b->size + d, b->dtype, b->size - d,
                         vf_load(out + d) / sum);
            }
            if (b->lse) {
                b->lse[i * b->lse_stride + h] = s.peak[h * b->rows + i] + scalar_log(sum);
            }
        }
    }
}

struct fwd_job {
    struct meed_mat qkv;
    struct meed_mat out;
    struct meed_attention_shape shape;
    const struct meed_pack *pack;
    float *lse;
    int64_t blocks; /* of the longest sequence */
};

static void tasks_fwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct fwd_job *job = user;
    int64_t groups = job->shape.kv_heads;
    int64_t size = job->shape.head_dim;
    int64_t heads = job->shape.heads / groups;
    enum meed_dtype dtype = job->qkv.dtype;
    for (int64_t task = begin; task < end; task++) {
        int64_t group = task % groups;
        int64_t sequence = task / groups % job->pack->sequences;
        /* The last, most expensive blocks go first. */
        int64_t first = (job->blocks - 1 - task / groups / job->pack->sequences) * ATTEND_BLOCK;
        int64_t start = job->pack->starts[sequence];
        int64_t length = job->pack->starts[sequence + 1] - start;
        if (first >= length) {
            continue;
        }
        int64_t row = (start + first) * job->qkv.stride;
        int64_t key = start * job->qkv.stride + (job->shape.heads + group) * size;
        struct attend_block block = {
            .q = at(job->qkv.data, row + group * heads * size, dtype),
            .k = at(job->qkv.data, key, dtype),
            .v = at(job->qkv.data, key + groups * size, dtype),
            .out = (void *)(uintptr_t)at(
                job->out.data, (start + first) * job->out.stride + group * heads * size, dtype),
            .lse = job->lse ? job->lse + (start + first) * job->shape.heads + group * heads : NULL,
            .q_stride = job->qkv.stride,
            .kv_stride = job->qkv.stride,
            .out_stride = job->out.stride,
            .lse_stride = job->shape.heads,
            .first = first,
            .rows = MEED_MIN(ATTEND_BLOCK, length - first),
            .heads = heads,
            .size = size,
            .window = attend_window(job->shape),
            .scale = job->shape.scale,
            .dtype = dtype,
            .kv_dtype = dtype,
        };
        MEED_TWIN(attend_rows)(&block);
    }
}

static void shape_check(struct meed_mat qkv, struct meed_attention_shape shape,
                        const struct meed_tail *tail, struct meed_mat out)
{
    int64_t r = tail && tail->a.data ? tail->a.rows : 0;
    MEED_ASSERT(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
    MEED_ASSERT(shape.window >= 0);
    MEED_ASSERT(qkv.cols == (int64_t)(shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    MEED_ASSERT(out.cols == (int64_t)shape.heads * shape.head_dim + r);
    MEED_ASSERT(out.rows == qkv.rows && out.dtype == qkv.dtype);
}

void MEED_TWIN(attention_fwd)(const struct meed_backend *be, struct meed_mat qkv,
                              struct meed_attention_shape shape, const struct meed_pack *pack,
                              const struct meed_tail *tail, struct meed_mat out, float *lse)
{
    shape_check(qkv, shape, tail, out);
    int64_t longest = 0;
    for (int32_t i = 0; i < pack->sequences; i++) {
        longest = MEED_MAX(longest, pack->starts[i + 1] - pack->starts[i]);
    }
    struct fwd_job job = {qkv, out, shape, pack, lse, (longest + ATTEND_BLOCK - 1) / ATTEND_BLOCK};
    meed_pool_for(be->pool, job.blocks * pack->sequences * shape.kv_heads, 1, tasks_fwd, &job);
    MEED_TWIN(lora_down)(be, out, (int64_t)shape.heads * shape.head_dim, tail);
}
