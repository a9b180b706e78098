/* AdamW (Loshchilov & Hutter 2019) and the sum of squares for clipping.
 *
 * The engine keeps all LoRA masters in one flat vector, so one launch a span is the multi-tensor
 * update: 28 bytes a parameter and a dozen flops, four parameters a thread. Everything that changes
 * from step to step is read from device memory (backend.h), so that the launch may be part of a
 * graph. Clipping costs no pass of its own: each block takes its factor from the sum of squares.
 *
 * sqnorm sums fixed runs of SUM_RUN values in float64, a block each, and a second kernel adds the
 * runs; both trees are fixed, so the clipping factor, and with it every weight, is the same each
 * time.
 */
#include "kernels/cuda/lanes.cuh"

#include <math.h>

static constexpr int ADAMW_THREADS = 256;
static constexpr int ADAMW_LANES = 4;
static constexpr int SUM_THREADS = 256;
static constexpr int64_t SUM_RUN = 16384;

struct adamw_job {
    const struct meed_adamw_step *step;
    const float *gradient;
    float *m;
    float *v;
    float *parameter;
    int64_t count;
    bool aligned;
};

/* The factor of clipping; NaN where nothing may be written. */
static __device__ __forceinline__ float adamw_scale(const struct meed_adamw_step *step)
{
    double length = sqrt(step->sqnorm);
    double clip = (double)step->clip_norm;
    if (!isfinite(length) || !isfinite(step->guard)) {
        return __uint_as_float(0x7FFFFFFFu);
    }
    return clip > 0.0 && length > clip ? (float)(clip / length) : 1.0f;
}

static __global__ void __launch_bounds__(ADAMW_THREADS) adamw_kernel(adamw_job job)
{
    MEED_SHARED(float, scale);
    if (threadIdx.x == 0) {
        scale = adamw_scale(job.step);
    }
    __syncthreads();
    int64_t at = ((int64_t)blockIdx.x * ADAMW_THREADS + threadIdx.x) * ADAMW_LANES;
    int64_t left = job.count - at;
    if (left <= 0 || isnan(scale)) {
        return;
    }
    float beta1 = job.step->beta1;
    float beta2 = job.step->beta2;
    float epsilon = job.step->epsilon;
    float decay = job.step->decay;
    float rate = job.step->rate;
    float correction = job.step->correction;
    float g[ADAMW_LANES];
    float m[ADAMW_LANES];
    float v[ADAMW_LANES];
    float p[ADAMW_LANES];
    lanes_get(g, job.gradient + at, left, job.aligned, 0.0f);
    lanes_get(m, job.m + at, left, job.aligned, 0.0f);
    lanes_get(v, job.v + at, left, job.aligned, 0.0f);
    lanes_get(p, job.parameter + at, left, job.aligned, 0.0f);
#pragma unroll
    for (int i = 0; i < ADAMW_LANES; i++) {
        float grad = g[i] * scale;
        m[i] = fmaf(beta1, m[i], (1.0f - beta1) * grad);
        v[i] = fmaf(beta2, v[i], (1.0f - beta2) * grad * grad);
        float change = rate * m[i] / fmaf(sqrtf(v[i]), correction, epsilon);
        p[i] = fmaf(-decay, p[i], p[i]) - change;
    }
    lanes_put(job.m + at, m, left, job.aligned);
    lanes_put(job.v + at, v, left, job.aligned);
    lanes_put(job.parameter + at, p, left, job.aligned);
}

extern "C" void meed_cuda_adamw(const struct meed_backend *be, const struct meed_adamw_step *step,
                                int64_t count, const float *gradient, float *m, float *v,
                                float *parameter)
{
    if (count == 0) {
        return;
    }
    adamw_job job;
    job.step = step;
    job.gradient = gradient;
    job.m = m;
    job.v = v;
    job.parameter = parameter;
    job.count = count;
    uintptr_t bits = (uintptr_t)gradient | (uintptr_t)m | (uintptr_t)v | (uintptr_t)parameter;
    job.aligned = bits % 16 == 0;
    constexpr int64_t A_BLOCK = (int64_t)ADAMW_THREADS * ADAMW_LANES;
    int64_t blocks = (count + A_BLOCK - 1) / A_BLOCK;
    MEED_ASSERT(blocks <= INT32_MAX);
    MEED_LAUNCH((adamw_kernel), dim3((unsigned)blocks), dim3(ADAMW_THREADS), 0,
                meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "adamw");
}

/* Adds the block's values in a fixed tree; thread 0 gets the sum. */
static __device__ __forceinline__ double sum_join(double value)
{
    MEED_SHARED(double[SUM_THREADS], parts);
    parts[threadIdx.x] = value;
    for (int step = SUM_THREADS / 2; step > 0; step /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < step) {
            parts[threadIdx.x] += parts[threadIdx.x + step];
        }
    }
    return parts[threadIdx.x];
}

static __global__ void __launch_bounds__(SUM_THREADS)
    sqnorm_runs_kernel(const float *values, int64_t count, double *runs)
{
    int64_t begin = (int64_t)blockIdx.x * SUM_RUN;
    int64_t end = count - begin < SUM_RUN ? count : begin + SUM_RUN;
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += SUM_THREADS) {
        sum = fma((double)values[i], (double)values[i], sum);
    }
    sum = sum_join(sum);
    if (threadIdx.x == 0) {
        runs[blockIdx.x] = sum;
    }
}

static __global__ void __launch_bounds__(SUM_THREADS)
    sqnorm_total_kernel(const double *runs, int64_t count, double *total)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += SUM_THREADS) {
        sum += runs[i];
    }
    sum = sum_join(sum);
    if (threadIdx.x == 0) {
        *total += sum;
    }
}

extern "C" void meed_cuda_sqnorm(const struct meed_backend *be, const float *values, int64_t count,
                                 double *sum)
{
    if (count == 0) {
        return;
    }
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    int64_t blocks = (count + SUM_RUN - 1) / SUM_RUN;
    MEED_ASSERT(blocks <= INT32_MAX);
    double *runs = (double *)meed_cuda_scratch(be, (size_t)blocks * sizeof *runs);
    if (!runs) {
        return;
    }
    MEED_LAUNCH((sqnorm_runs_kernel), dim3((unsigned)blocks), dim3(SUM_THREADS), 0, state->stream,
                values, count, runs);
    MEED_LAUNCH((sqnorm_total_kernel), dim3(1), dim3(SUM_THREADS), 0, state->stream, runs, blocks,
                sum);
    meed_cuda_check(be, cudaGetLastError(), "sqnorm");
}
