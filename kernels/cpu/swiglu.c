/* SwiGLU (Shazeer 2020): h = silu(g)·u, forward with the low-rank tail, and backward.
 *
 * silu(g) = g·σ(g); with σ = σ(g): dg = dh·u·σ·(1 + g·(1 − σ)), du = dh·g·σ. Backward reads both
 * halves of a vector before it writes them, so dgu may be gu itself.
 */
#include "kernels/cpu/isa.h"

#include "base/threads.h"
#include "kernels/cpu/lora_tail.h"
#include "kernels/cpu/vmath.h"

enum { GRAIN_ROWS = 16 };

struct job {
    struct meed_mat gu;
    struct meed_mat out; /* forward: h; backward: dh */
    struct meed_mat dgu;
    int64_t width; /* F */
    struct tail_job tail;
};

static void rows_fwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    for (int64_t m = begin; m < end; m++) {
        int64_t at = m * job->gu.stride;
        for (int64_t f = 0; f < job->width; f += VL) {
            int64_t lanes = job->width - f;
            vf gate = vf_get_n(job->gu.data, at + f, job->gu.dtype, lanes);
            vf up = vf_get_n(job->gu.data, at + job->width + f, job->gu.dtype, lanes);
            vf_put_n(job->out.data, m * job->out.stride + f, job->out.dtype, lanes,
                     gate * vf_sigmoid(gate) * up);
        }
    }
    MEED_TWIN(tail_rows)(&job->tail, job->out, begin, end);
}

void MEED_TWIN(swiglu_fwd)(const struct meed_backend *be, struct meed_mat gu,
                           const struct meed_tail *tail, struct meed_mat out)
{
    int64_t width = gu.cols / 2;
    struct job job = {gu, out, gu, width, MEED_TWIN(tail_prepare)(tail, width, out.dtype)};
    MEED_ASSERT(gu.cols % 2 == 0 && out.cols == width + job.tail.r && out.rows == gu.rows);
    meed_pool_for(be->pool, gu.rows, TAIL_ROWS, rows_fwd, &job);
}

static void rows_bwd(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    for (int64_t m = begin; m < end; m++) {
        int64_t at = m * job->gu.stride;
        for (int64_t f = 0; f < job->width; f += VL) {
            int64_t lanes = job->width - f;
            vf gate = vf_get_n(job->gu.data, at + f, job->gu.dtype, lanes);
            vf up = vf_get_n(job->gu.data, at + job->width + f, job->gu.dtype, lanes);
            vf grad = vf_get_n(job->out.data, m * job->out.stride + f, job->out.dtype, lanes);
            vf sigmoid = vf_sigmoid(gate);
            vf dgate = grad * up * sigmoid * (1.0f + gate * (1.0f - sigmoid));
            vf dup = grad * gate * sigmoid;
            int64_t to = m * job->dgu.stride + f;
            vf_put_n(job->dgu.data, to, job->dgu.dtype, lanes, dgate);
            vf_put_n(job->dgu.data, to + job->width, job->dgu.dtype, lanes, dup);
        }
    }
}

void MEED_TWIN(swiglu_bwd)(const struct meed_backend *be, struct meed_mat dout, struct meed_mat gu,
                           struct meed_mat dgu)
{
    int64_t width = gu.cols / 2;
    MEED_ASSERT(gu.cols % 2 == 0 && dgu.cols == gu.cols && dgu.rows == gu.rows);
    MEED_ASSERT(dout.rows == gu.rows && dout.cols >= width);
    struct job job = {gu, dout, dgu, width, {.k = 0}};
    meed_pool_for(be->pool, gu.rows, GRAIN_ROWS, rows_bwd, &job);
}
