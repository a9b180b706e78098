/* Log-probability of each row's target and, in place, the gradient of the logits.
 *
 * A block owns a row. One pass finds maximum and sum together (Milakov & Gimelshein 2018): every
 * thread keeps both for its own lane groups (lanes.cuh), XENT_STEP groups at a time so that their
 * loads are in flight together, and the block joins the pairs in a fixed tree. The gradient takes a
 * second sweep. Bytes: V·size forward, 3·V·size with the gradient, of which the second read comes
 * from L2 where the rows in flight fit it (132 rows of 128k floats are 68 MB: mostly not; of bf16,
 * or of V 49k, they do). The engine hands over loss rows only, a chunk at a time, so the logits of
 * a batch never exist at once.
 *
 * Everything is fp32, and a row's bits depend on the row alone.
 */
#include "kernels/cuda/lanes.cuh"

static constexpr int XENT_THREADS = 512;
static constexpr int XENT_WARPS = XENT_THREADS / 32;
static constexpr int XENT_STEP = 4;

template <typename T> struct xent_job {
    T *logits;
    const int32_t *target;
    const float *weight; /* or NULL */
    float *logprob;
    int64_t stride;
    int64_t cols;
    bool aligned;
};

/* Σ exp(x − peak) so far, with its peak; peak −∞ where nothing was seen. */
struct xent_sum {
    float peak;
    float sum;
};

static __device__ __forceinline__ struct xent_sum xent_join(struct xent_sum a, struct xent_sum b)
{
    struct xent_sum joined;
    joined.peak = fmaxf(a.peak, b.peak);
    /* Equal peaks, two empty sides included, need no exp of ∞ − ∞. */
    float left = a.peak == joined.peak ? a.sum : a.sum * expf(a.peak - joined.peak);
    float right = b.peak == joined.peak ? b.sum : b.sum * expf(b.peak - joined.peak);
    joined.sum = left + right;
    return joined;
}

template <typename T>
static __device__ __forceinline__ struct xent_sum xent_scan(const xent_job<T> &job, const T *row)
{
    constexpr int N = LANE_COUNT<T>;
    constexpr int64_t STRIDE = (int64_t)XENT_THREADS * N;
    struct xent_sum found = {-INFINITY, 0.0f};
    for (int64_t first = (int64_t)threadIdx.x * N; first < job.cols; first += XENT_STEP * STRIDE) {
        float v[XENT_STEP][N];
        float top = -INFINITY;
#pragma unroll
        for (int s = 0; s < XENT_STEP; s++) {
            int64_t col = first + s * STRIDE;
            lanes_get(v[s], row + col, job.cols - col, job.aligned, -INFINITY);
        }
#pragma unroll
        for (int i = 0; i < XENT_STEP * N; i++) {
            top = fmaxf(top, v[i / N][i % N]);
        }
        struct xent_sum here = {top, 0.0f};
#pragma unroll
        for (int i = 0; i < XENT_STEP * N; i++) {
            here.sum += expf(v[i / N][i % N] - top);
        }
        found = xent_join(found, here);
    }
    return found;
}

/* log Σ exp of the row, in every thread. */
static __device__ __forceinline__ float xent_lse(struct xent_sum mine)
{
    MEED_SHARED(float[XENT_WARPS], peaks);
    MEED_SHARED(float[XENT_WARPS], sums);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        struct xent_sum other;
        other.peak = __shfl_down_sync(0xFFFFFFFFu, mine.peak, step);
        other.sum = __shfl_down_sync(0xFFFFFFFFu, mine.sum, step);
        mine = xent_join(mine, other);
    }
    if (threadIdx.x % 32 == 0) {
        peaks[threadIdx.x / 32] = mine.peak;
        sums[threadIdx.x / 32] = mine.sum;
    }
    __syncthreads();
    struct xent_sum all = {peaks[0], sums[0]};
    for (int w = 1; w < XENT_WARPS; w++) {
        struct xent_sum next = {peaks[w], sums[w]};
        all = xent_join(all, next);
    }
    return all.peak + logf(all.sum);
}

/* row ← weight·(softmax − onehot), or zeros where the row teaches nothing. */
template <typename T>
static __device__ __forceinline__ void xent_gradient(const xent_job<T> &job, T *row, int32_t target,
                                                     float weight, float lse, float at_target)
{
    constexpr int N = LANE_COUNT<T>;
    for (int64_t col = (int64_t)threadIdx.x * N; col < job.cols; col += (int64_t)XENT_THREADS * N) {
        float v[N];
        lanes_get(v, row + col, job.cols - col, job.aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float p = expf(v[i] - lse) * weight;
            v[i] = weight == 0.0f ? 0.0f : col + i == target ? at_target : p;
        }
        lanes_put(row + col, v, job.cols - col, job.aligned);
    }
}

template <typename T>
static __global__ void __launch_bounds__(XENT_THREADS) xent_kernel(xent_job<T> job)
{
    int64_t m = blockIdx.x;
    T *row = job.logits + m * job.stride;
    int32_t target = job.target[m];
    float chosen = target >= 0 ? elem_get(row + target) : 0.0f;
    struct xent_sum mine = {-INFINITY, 0.0f};
    if (target >= 0) {
        mine = xent_scan(job, row);
    }
    float lse = xent_lse(mine);
    float logprob = target >= 0 ? chosen - lse : 0.0f;
    if (threadIdx.x == 0) {
        job.logprob[m] = logprob;
    }
    if (job.weight) {
        float weight = target >= 0 ? job.weight[m] : 0.0f;
        /* p − 1 from the log-probability: exact where p is near 1. */
        xent_gradient(job, row, target, weight, lse, weight * expm1f(logprob));
    }
}

template <typename T>
static void xent_launch(const struct meed_backend *be, struct meed_mat logits,
                        const int32_t *target, const float *weight, float *logprob)
{
    xent_job<T> job;
    job.logits = (T *)logits.data;
    job.target = target;
    job.weight = weight;
    job.logprob = logprob;
    job.stride = logits.stride;
    job.cols = logits.cols;
    job.aligned = lanes_aligned(logits);
    MEED_ASSERT(logits.rows <= INT32_MAX);
    dim3 grid((unsigned)logits.rows);
    MEED_LAUNCH((xent_kernel<T>), grid, dim3(XENT_THREADS), 0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "xent");
}

extern "C" void meed_cuda_xent(const struct meed_backend *be, struct meed_mat logits,
                               const int32_t *target, const float *weight, float *logprob)
{
    MEED_ASSERT(logits.cols > 0);
    if (logits.rows > 0) {
        (logits.dtype == MEED_DTYPE_F32
             ? xent_launch<float>
             : xent_launch<meed_bf16>)(be, logits, target, weight, logprob);
    }
}
