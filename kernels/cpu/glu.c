/* Gated linear units (Shazeer 2020), h = act(g)·u with act(g) = g·σ(z(g)): forward with the
 * low-rank tail, and backward.
 *
 * SwiGLU has z = g; GeGLU, in its tanh form, z = 2√(2/π)·(g + 0.044715·g³): no tanh is needed, and
 * unlike ½(1 + tanh) nothing cancels for negative g. The relative error is σ's (vmath.h) plus that
 * of z's roundings, at most |z|·2.4e-7 where σ is small: 4e-6 at g = −5, where act(g) is −2e-7.
 *
 * With σ = σ(z): dg = dh·u·σ·(1 + g·z′·(1 − σ)), du = dh·g·σ; g·z′ of GeGLU is finite below
 * |g| = 1e12. Backward reads both halves of a vector before it writes them, so dgu may be gu.
 */
#include "kernels/cpu/isa.h"

#include "base/threads.h"
#include "kernels/cpu/lora_tail.h"
#include "kernels/cpu/vmath.h"

enum { GRAIN_ROWS = 16 };

struct job {
    enum meed_glu act;
    struct meed_mat gu;
    struct meed_mat out; /* forward: h; backward: dh */
    struct meed_mat dgu;
    int64_t width; /* F */
    struct tail_job tail;
};

static const float GELU_LINEAR = 1.5957691216f; /* 2√(2/π) */
static const float GELU_CUBIC = 0.0713548163f;  /* 0.044715 of it */

VEC_INLINE vf gate_sigmoid(enum meed_glu act, vf gate)
{
    vf z = act == MEED_GLU_SILU
               ? gate
               : gate * vf_fma(gate * gate, vf_set1(GELU_CUBIC), vf_set1(GELU_LINEAR));
    return vf_sigmoid(z);
}
/* g·z′(g) */
VEC_INLINE vf gate_slope(enum meed_glu act, vf gate)
{
    return act == MEED_GLU_SILU
               ? gate
               : gate * vf_fma(gate * gate, vf_set1(3.0f * GELU_CUBIC), vf_set1(GELU_LINEAR));
}

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
                     gate * gate_sigmoid(job->act, gate) * up);
        }
    }
    MEED_TWIN(tail_rows)(&job->tail, job->out, begin, end);
}

void MEED_TWIN(glu_fwd)(const struct meed_backend *be, enum meed_glu act, struct meed_mat gu,
                        const struct meed_tail *tail, struct meed_mat out)
{
    int64_t width = gu.cols / 2;
    struct job job = {act, gu, out, gu, width, MEED_TWIN(tail_prepare)(tail, width, out.dtype)};
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
            vf sigmoid = gate_sigmoid(job->act, gate);
            vf dgate = grad * up * sigmoid * (1.0f + gate_slope(job->act, gate) * (1.0f - sigmoid));
            vf dup = grad * gate * sigmoid;
            int64_t to = m * job->dgu.stride + f;
            vf_put_n(job->dgu.data, to, job->dgu.dtype, lanes, dgate);
            vf_put_n(job->dgu.data, to + job->width, job->dgu.dtype, lanes, dup);
        }
    }
}

void MEED_TWIN(glu_bwd)(const struct meed_backend *be, enum meed_glu act, struct meed_mat dout,
                        struct meed_mat gu, struct meed_mat dgu)
{
    int64_t width = gu.cols / 2;
    MEED_ASSERT(gu.cols % 2 == 0 && dgu.cols == gu.cols && dgu.rows == gu.rows);
    MEED_ASSERT(dout.rows == gu.rows && dout.cols >= width);
    struct job job = {act, gu, dout, dgu, width, {.k = 0}};
    meed_pool_for(be->pool, gu.rows, GRAIN_ROWS, rows_bwd, &job);
}
