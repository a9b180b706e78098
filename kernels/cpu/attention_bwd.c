/* Gradient of causal grouped-query attention, block by block, nothing of size length² kept.
 *
 * FlashAttention's backward (Dao et al. 2022): with P = exp(S − lse) recomputed per block and
 * δ = Σ_d dO·O per row,  dV += Pᵀ·dO,  dS = P ⊙ (dO·Vᵀ − δ),  dK += dSᵀ·Q,  dQ += dS·K.
 * Q is scaled on reading, so dK needs no factor; dQ gets the scale at the end.
 *
 * A task is one sequence and one key/value head with all its query heads: keys in blocks of 64, for
 * each the heads in order, for each head the query blocks in order. dK and dV of a block live in
 * scratch for exactly that time; dQ of the sequence in fp32 scratch. Every sum has one order, so
 * the gradient is the same for any number of threads. Limit: a batch of one long sequence with one
 * key/value head runs on one core.
 */
#include "kernels/cpu/attend.h"

#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/vmath.h"

struct job {
    struct meed_mat dout;
    struct meed_mat out;
    struct meed_mat qkv;
    struct meed_mat dqkv;
    const float *lse;
    struct meed_attention_shape shape;
    const struct meed_pack *pack;
};

/* The work of one task. */
struct task {
    const struct job *job;
    int64_t start; /* first row of the sequence */
    int64_t length;
    int64_t group;
    int64_t heads; /* query heads of the group */
    int64_t size;
    int64_t width; /* panel_cols(size) */
    float *dq;     /* [heads, length, width] */
    float *delta;  /* [heads, length] */
    float *q;      /* [64, size] scaled queries of a block */
    float *grad;   /* [64, size] dO of a block */
    float *packed_q;
    float *packed_grad;
    float *packed_k;
    float *packed_k_t;
    float *packed_v_t;
    float *dk; /* [64, width] */
    float *dv;
    float *p;  /* [64, 64] */
    float *ds; /* [64, 64] */
};

static float *carve(float **at, int64_t count)
{
    float *block = *at;
    *at += (count + 15) / 16 * 16;
    return block;
}

static void task_reserve(struct task *t)
{
    int64_t score = ATTEND_BLOCK * panel_cols(ATTEND_BLOCK);
    int64_t block = ATTEND_BLOCK * t->width;
    int64_t block_t = t->width * panel_cols(ATTEND_BLOCK);
    int64_t rows = t->heads * t->length;
    int64_t total = rows * t->width + rows + 7 * block + 2 * block_t + 2 * score + 16 * 16;
    float *at = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)total);
    t->dq = carve(&at, rows * t->width);
    t->delta = carve(&at, rows);
    t->q = carve(&at, block);
    t->grad = carve(&at, block);
    t->packed_q = carve(&at, block);
    t->packed_grad = carve(&at, block);
    t->packed_k = carve(&at, block);
    t->dk = carve(&at, block);
    t->dv = carve(&at, block);
    t->packed_k_t = carve(&at, block_t);
    t->packed_v_t = carve(&at, block_t);
    t->p = carve(&at, score);
    t->ds = carve(&at, score);
}

static void task_delta(const struct task *t)
{
    const struct job *job = t->job;
    for (int64_t h = 0; h < t->heads; h++) {
        int64_t col = (t->group * t->heads + h) * t->size;
        for (int64_t i = 0; i < t->length; i++) {
            int64_t m = t->start + i;
            vf dots = {0};
            for (int64_t d = 0; d < t->size; d += VL) {
                int64_t left = t->size - d;
                dots = vf_fma(
                    vf_get_n(job->dout.data, m * job->dout.stride + col + d, job->dout.dtype, left),
                    vf_get_n(job->out.data, m * job->out.stride + col + d, job->out.dtype, left),
                    dots);
            }
            t->delta[h * t->length + i] = vf_sum(dots);
        }
    }
    memset(t->dq, 0, (size_t)(t->heads * t->length * t->width) * sizeof(float));
}

/* P and dS of one block pair from S (in p) and dP (in ds). */
static void block_gradients(const struct task *t, int64_t head, int64_t first, int64_t rows)
{
    int64_t width = panel_cols(ATTEND_BLOCK);
    const float *lse = t->job->lse;
    for (int64_t i = 0; i < rows; i++) {
        int64_t m = t->start + first + i;
        float row_lse = lse[m * t->job->shape.heads + t->group * t->heads + head];
        float delta = t->delta[head * t->length + first + i];
        for (int64_t j = 0; j < width; j += VL) {
            vf p = vf_exp(vf_load(t->p + i * width + j) - row_lse);
            vf ds = p * (vf_load(t->ds + i * width + j) - delta);
            vf_store(t->p + i * width + j, p);
            vf_store(t->ds + i * width + j, ds);
        }
    }
}

static void block_pair(const struct task *t, int64_t head, int64_t key, int64_t keys, int64_t first)
{
    const struct job *job = t->job;
    int64_t rows = MEED_MIN(ATTEND_BLOCK, t->length - first);
    int64_t width = panel_cols(ATTEND_BLOCK);
    int64_t col = (t->group * t->heads + head) * t->size;
    for (int64_t i = 0; i < rows; i++) {
        int64_t m = t->start + first + i;
        vf_unpack_row(job->qkv.data, m * job->qkv.stride + col, job->qkv.dtype, t->size,
                      t->q + i * t->size);
        vf_unpack_row(job->dout.data, m * job->dout.stride + col, job->dout.dtype, t->size,
                      t->grad + i * t->size);
        for (int64_t d = 0; d < t->size; d++) {
            t->q[i * t->size + d] *= job->shape.scale;
        }
    }
    MEED_TWIN(panel_pack)(t->q, MEED_DTYPE_F32, t->size, false, rows, t->size, t->packed_q);
    MEED_TWIN(panel_pack)(t->grad, MEED_DTYPE_F32, t->size, false, rows, t->size, t->packed_grad);
    memset(t->p, 0, (size_t)(rows * width) * sizeof(float));
    memset(t->ds, 0, (size_t)(rows * width) * sizeof(float));
    MEED_TWIN(panel_gemm)(t->q, t->size, 1, rows, t->size, t->packed_k_t, keys, t->p, width);
    MEED_TWIN(panel_gemm)(t->grad, t->size, 1, rows, t->size, t->packed_v_t, keys, t->ds, width);
    MEED_TWIN(attend_mask)(t->p, rows, first, key, keys, attend_window(job->shape), width);
    block_gradients(t, head, first, rows);
    MEED_TWIN(panel_gemm)(t->p, 1, width, keys, rows, t->packed_grad, t->size, t->dv, t->width);
    MEED_TWIN(panel_gemm)(t->ds, 1, width, keys, rows, t->packed_q, t->size, t->dk, t->width);
    MEED_TWIN(panel_gemm)
    (t->ds, width, 1, rows, keys, t->packed_k, t->size,
     t->dq + (head * t->length + first) * t->width, t->width);
}

/* rows of a [rows, width] tile, times scale, into dqkv at row m, column col. */
static void rows_write(const struct task *t, const float *tile, int64_t rows, int64_t m,
                       int64_t col, float scale)
{
    struct meed_mat to = t->job->dqkv;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t d = 0; d < t->size; d += VL) {
            vf_put_n(to.data, (m + i) * to.stride + col + d, to.dtype, t->size - d,
                     vf_load(tile + i * t->width + d) * scale);
        }
    }
}

static void task_run(struct task *t)
{
    const struct job *job = t->job;
    int64_t key_col = (job->shape.heads + t->group) * t->size;
    int64_t value_col = key_col + job->shape.kv_heads * t->size;
    size_t item = meed_dtype_bytes(job->qkv.dtype);
    task_reserve(t);
    task_delta(t);
    for (int64_t key = 0; key < t->length; key += ATTEND_BLOCK) {
        int64_t keys = MEED_MIN(ATTEND_BLOCK, t->length - key);
        const char *row =
            (const char *)job->qkv.data + (size_t)((t->start + key) * job->qkv.stride) * item;
        const char *k = row + (size_t)key_col * item;
        const char *v = row + (size_t)value_col * item;
        enum meed_dtype dtype = job->qkv.dtype;
        int64_t stride = job->qkv.stride;
        MEED_TWIN(panel_pack)(k, dtype, stride, true, t->size, keys, t->packed_k_t);
        MEED_TWIN(panel_pack)(v, dtype, stride, true, t->size, keys, t->packed_v_t);
        MEED_TWIN(panel_pack)(k, dtype, stride, false, keys, t->size, t->packed_k);
        /* The block's last key is seen by `window` queries; none of the blocks behind sees any. */
        int64_t end = MEED_MIN(t->length, key + keys - 1 + attend_window(job->shape));
        memset(t->dk, 0, (size_t)(keys * t->width) * sizeof(float));
        memset(t->dv, 0, (size_t)(keys * t->width) * sizeof(float));
        for (int64_t h = 0; h < t->heads; h++) {
            for (int64_t first = key; first < end; first += ATTEND_BLOCK) {
                block_pair(t, h, key, keys, first);
            }
        }
        rows_write(t, t->dk, keys, t->start + key, key_col, 1.0f);
        rows_write(t, t->dv, keys, t->start + key, value_col, 1.0f);
    }
    for (int64_t h = 0; h < t->heads; h++) {
        rows_write(t, t->dq + h * t->length * t->width, t->length, t->start,
                   (t->group * t->heads + h) * t->size, job->shape.scale);
    }
}

static void tasks_bwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    int64_t groups = job->shape.kv_heads;
    for (int64_t i = begin; i < end; i++) {
        int64_t sequence = i / groups;
        struct task task = {.job = job};
        task.start = job->pack->starts[sequence];
        task.length = job->pack->starts[sequence + 1] - task.start;
        task.group = i % groups;
        task.heads = job->shape.heads / groups;
        task.size = job->shape.head_dim;
        task.width = panel_cols(task.size);
        if (task.length > 0) {
            task_run(&task);
        }
    }
}

void MEED_TWIN(attention_bwd)(const struct meed_backend *be, struct meed_mat dout,
                              struct meed_mat out, struct meed_mat qkv, const float *lse,
                              struct meed_attention_shape shape, const struct meed_pack *pack,
                              struct meed_mat dqkv)
{
    int64_t width = (int64_t)shape.heads * shape.head_dim;
    MEED_ASSERT(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
    MEED_ASSERT(shape.window >= 0);
    MEED_ASSERT(qkv.cols == width + 2 * (int64_t)shape.kv_heads * shape.head_dim);
    MEED_ASSERT(dqkv.cols == qkv.cols && dqkv.rows == qkv.rows);
    MEED_ASSERT(dout.cols >= width && out.cols >= width && lse);
    struct job job = {dout, out, qkv, dqkv, lse, shape, pack};
    meed_pool_for(be->pool, (int64_t)pack->sequences * shape.kv_heads, 1, tasks_bwd, &job);
}
