/* Log-probability of each row's target and, in place, the gradient of the logits.
 *
 * One pass finds maximum and sum together (Milakov & Gimelshein 2018): blocks of BLOCK logits are
 * scanned for their maximum and then summed while they are in the first cache; a larger maximum
 * rescales the sum so far. Sums stay in vector lanes to the end of the row. The gradient needs a
 * second sweep over a row that is still in the second cache. Everything is fp32; a row's bits
 * depend on the row alone.
 */
#include "kernels/cpu/isa.h"

#include "base/threads.h"
#include "kernels/cpu/vmath.h"

enum { BLOCK = 1024 };

struct job {
    struct meed_mat logits;
    const int32_t *target;
    const float *weight;
    float *logprob;
};

/* log Σ exp of a row. */
static float row_lse(const void *row, int64_t at, enum meed_dtype dtype, int64_t count)
{
    float peak = -__builtin_inff();
    vf sums = {0};
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t end = MEED_MIN(begin + BLOCK, count);
        int64_t whole = begin + (end - begin) / VL * VL;
        vf tops = vf_set1(-__builtin_inff());
        for (int64_t j = begin; j < whole; j += VL) {
            tops = vf_max(tops, vf_get(row, at + j, dtype));
        }
        float top = vf_peak(tops);
        for (int64_t j = whole; j < end; j++) {
            top = MEED_MAX(top, elem_get(row, at + j, dtype));
        }
        if (top > peak) {
            sums *= begin == 0 ? 0.0f : scalar_exp(peak - top);
            peak = top;
        }
        for (int64_t j = begin; j < whole; j += VL) {
            sums += vf_exp(vf_get(row, at + j, dtype) - peak);
        }
        if (whole < end) {
            vf last = vf_set1(-__builtin_inff());
            for (int64_t j = whole; j < end; j++) {
                last[j - whole] = elem_get(row, at + j, dtype) - peak;
            }
            sums += vf_exp(last);
        }
    }
    return peak + scalar_log(vf_sum(sums));
}

static void rows_xent(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    enum meed_dtype dtype = job->logits.dtype;
    int64_t count = job->logits.cols;
    void *data = job->logits.data;
    for (int64_t m = begin; m < end; m++) {
        int64_t at = m * job->logits.stride;
        int32_t target = job->target[m];
        MEED_ASSERT(target >= -1 && target < count);
        float weight = job->weight ? job->weight[m] : 0.0f;
        job->logprob[m] = 0.0f;
        float lse = 0.0f;
        if (target >= 0) {
            lse = row_lse(data, at, dtype, count);
            job->logprob[m] = elem_get(data, at + target, dtype) - lse;
        }
        if (!job->weight) {
            continue;
        }
        bool dead = target < 0 || weight == 0.0f;
        for (int64_t j = 0; j < count; j += VL) {
            vf grad = {0};
            if (!dead) {
                grad = vf_exp(vf_get_n(data, at + j, dtype, count - j) - lse) * weight;
            }
            vf_put_n(data, at + j, dtype, count - j, grad);
        }
        if (!dead) {
            /* p − 1 = −(1 − p), with p from the log-probability: exact where p is near 1. */
            float p = scalar_exp(job->logprob[m]);
            elem_put(data, at + target, dtype, weight * (p - 1.0f));
        }
    }
}

void MEED_TWIN(xent)(const struct meed_backend *be, struct meed_mat logits, const int32_t *target,
                     const float *weight, float *logprob)
{
    struct job job = {logits, target, weight, logprob};
    int64_t grain = MEED_MAX(1, 16384 / MEED_MAX(1, logits.cols));
    meed_pool_for(be->pool, logits.rows, grain, rows_xent, &job);
}
