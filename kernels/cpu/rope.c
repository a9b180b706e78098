/* Rotary positions (Su et al. 2021) in the half-split order of Hugging Face, and the bias add.
 *
 * Pair (i, i + D/2) of a head turns by the angle of its row's position; the gradient turns back,
 * since a rotation's transpose is its inverse. Both ops are element-wise in place, so a row's bits
 * are its own.
 */
#include "kernels/cpu/isa.h"

#include "base/threads.h"
#include "kernels/cpu/vec.h"

enum { GRAIN_ROWS = 32 };

struct rope_job {
    struct meed_mat x;
    const int32_t *positions;
    struct meed_rope_table table;
    int64_t heads;
    int64_t half;
    float direction;
};

static void rows_turn(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct rope_job *job = user;
    int64_t half = job->half;
    for (int64_t m = begin; m < end; m++) {
        const float *cosine = job->table.cos + job->positions[m] * half;
        const float *sine = job->table.sin + job->positions[m] * half;
        for (int64_t h = 0; h < job->heads; h++) {
            int64_t at = m * job->x.stride + h * 2 * half;
            for (int64_t i = 0; i < half; i += VL) {
                int64_t lanes = half - i;
                vf a = vf_get_n(job->x.data, at + i, job->x.dtype, lanes);
                vf b = vf_get_n(job->x.data, at + half + i, job->x.dtype, lanes);
                vf c = vf_get_n(cosine, i, MEED_DTYPE_F32, lanes);
                vf s = vf_get_n(sine, i, MEED_DTYPE_F32, lanes) * job->direction;
                vf_put_n(job->x.data, at + i, job->x.dtype, lanes, a * c - b * s);
                vf_put_n(job->x.data, at + half + i, job->x.dtype, lanes, b * c + a * s);
            }
        }
    }
}

void MEED_TWIN(rope)(const struct meed_backend *be, struct meed_mat x, int32_t heads,
                     int32_t head_dim, const int32_t *positions, struct meed_rope_table table,
                     int direction)
{
    MEED_ASSERT(head_dim % 2 == 0 && x.cols == (int64_t)heads * head_dim);
    MEED_ASSERT(direction == 1 || direction == -1);
    struct rope_job job = {x, positions, table, heads, head_dim / 2, (float)direction};
    meed_pool_for(be->pool, x.rows, GRAIN_ROWS, rows_turn, &job);
}

struct bias_job {
    struct meed_mat x;
    const float *bias;
};

static void rows_bias(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct bias_job *job = user;
    for (int64_t m = begin; m < end; m++) {
        for (int64_t k = 0; k < job->x.cols; k += VL) {
            int64_t lanes = job->x.cols - k;
            int64_t at = m * job->x.stride + k;
            vf value = vf_get_n(job->x.data, at, job->x.dtype, lanes);
            value += vf_get_n(job->bias, k, MEED_DTYPE_F32, lanes);
            vf_put_n(job->x.data, at, job->x.dtype, lanes, value);
        }
    }
}

void MEED_TWIN(bias_add)(const struct meed_backend *be, struct meed_mat x, const float *bias)
{
    struct bias_job job = {x, bias};
    meed_pool_for(be->pool, x.rows, GRAIN_ROWS, rows_bias, &job);
}
