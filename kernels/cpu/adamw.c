/* AdamW (Loshchilov & Hutter 2019) and the sum of squares for clipping.
 *
 * m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr·(m̂/(√v̂ + ε) + λp) with m̂, v̂ corrected for
 * their zero start; g is clipped by the norm of all gradients (backend.h).
 *
 * sqnorm sums blocks of fixed length in eight float64 lanes and then the blocks in order, whoever
 * computed them: the clipping factor, and with it every weight, is the same for any thread count.
 */
#include "kernels/cpu/isa.h"

#include <math.h>
#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"

enum { GRAIN = 16384, SUM_BLOCK = 4096, SUM_LANES = 8 };

struct job {
    struct meed_adamw_step step;
    const float *gradient;
    float *m;
    float *v;
    float *parameter;
    float scale; /* clipping */
};

static void range_update(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    const float *MEED_RESTRICT gradient = job->gradient + begin;
    float *MEED_RESTRICT m = job->m + begin;
    float *MEED_RESTRICT v = job->v + begin;
    float *MEED_RESTRICT parameter = job->parameter + begin;
    float beta1 = job->step.beta1;
    float beta2 = job->step.beta2;
    float scale = job->scale;
    float epsilon = job->step.epsilon;
    float decay = job->step.decay;
    float rate = job->step.rate;
    float correction = job->step.correction;
    for (int64_t i = 0; i < end - begin; i++) {
        float g = gradient[i] * scale;
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * g * g;
        float change = rate * m[i] / (sqrtf(v[i]) * correction + epsilon);
        parameter[i] = parameter[i] - decay * parameter[i] - change;
    }
}

void MEED_TWIN(adamw)(const struct meed_backend *be, const struct meed_adamw_step *step,
                      int64_t count, const float *gradient, float *m, float *v, float *parameter)
{
    double length = sqrt(step->sqnorm);
    double clip = (double)step->clip_norm;
    if (!isfinite(length) || !isfinite(step->guard)) {
        return;
    }
    struct job job = {*step, gradient, m, v, parameter, 1.0f};
    if (clip > 0.0 && length > clip) {
        job.scale = (float)(clip / length);
    }
    meed_pool_for(be->pool, count, GRAIN, range_update, &job);
}

struct sum_job {
    const float *values;
    int64_t count;
    double *blocks;
};

static void blocks_sum(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct sum_job *job = user;
    for (int64_t block = begin; block < end; block++) {
        double lanes[SUM_LANES] = {0};
        const float *values = job->values + block * SUM_BLOCK;
        int64_t count = MEED_MIN(SUM_BLOCK, job->count - block * SUM_BLOCK);
        int64_t i = 0;
        for (; i + SUM_LANES <= count; i += SUM_LANES) {
            for (int lane = 0; lane < SUM_LANES; lane++) {
                lanes[lane] += (double)values[i + lane] * (double)values[i + lane];
            }
        }
        for (int lane = 0; i < count; i++, lane++) {
            lanes[lane] += (double)values[i] * (double)values[i];
        }
        double sum = 0.0;
        for (int lane = 0; lane < SUM_LANES; lane++) {
            sum += lanes[lane];
        }
        job->blocks[block] = sum;
    }
}

void MEED_TWIN(sqnorm)(const struct meed_backend *be, const float *values, int64_t count,
                       double *sum)
{
    int64_t block_count = (count + SUM_BLOCK - 1) / SUM_BLOCK;
    if (block_count == 0) {
        return;
    }
    struct sum_job job = {values, count, NULL};
    job.blocks = meed_cpu_scratch_get(MEED_SCRATCH_SHARED_A, (size_t)block_count * sizeof(double));
    meed_pool_for(be->pool, block_count, 16, blocks_sum, &job);
    for (int64_t block = 0; block < block_count; block++) {
        *sum += job.blocks[block];
    }
}
