/* RMSNorm of every head, in place, and its gradient (Qwen3's q and k norms).
 *
 * A head is D numbers, 64 or 128 as a rule: one lane group (lanes.cuh) a thread and a few threads a
 * head, so WIDTH = 8, 16 or 32 lanes of a warp share a head and their sums meet in log₂ WIDTH
 * shuffles. WIDTH depends on D and dtype alone, and so does the order of a sum. Bytes: 4 an element
 * forward, 6 backward; the second look at a head comes from L1.
 *
 * The backward starts from the forward's output, because the input is gone: x·rstd = y/w. It
 * inherits y's rounding, as its twin does.
 */
#include "kernels/cuda/lanes.cuh"

static constexpr int HEAD_THREADS = 256;

template <typename T> struct head_job {
    T *x; /* forward: in and out; backward: the output */
    T *dx;
    const float *w;
    float *rstd_out;
    const float *rstd;
    int64_t x_stride;
    int64_t dx_stride;
    int64_t count; /* rows · heads */
    int32_t heads;
    int32_t size;
    float eps;
    bool aligned;
    bool dx_aligned;
    bool w_aligned;
};

/* The sum over the WIDTH lanes that share a head; every lane gets it. */
template <int WIDTH> static __device__ __forceinline__ float head_sum(float value)
{
#pragma unroll
    for (int step = WIDTH / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFu, value, step, 32);
    }
    return value;
}

template <typename T, int WIDTH>
static __global__ void __launch_bounds__(HEAD_THREADS) headnorm_fwd_kernel(head_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    int64_t idx = (int64_t)blockIdx.x * (HEAD_THREADS / WIDTH) + threadIdx.x / WIDTH;
    int32_t lane = (int32_t)threadIdx.x % WIDTH;
    int32_t size = idx < job.count ? job.size : 0;
    T *head = job.x + idx / job.heads * job.x_stride + idx % job.heads * job.size;
    float squares = 0.0f;
    for (int32_t d = lane * N; d < size; d += WIDTH * N) {
        float v[N];
        lanes_get(v, head + d, size - d, job.aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            squares = fmaf(v[i], v[i], squares);
        }
    }
    float rstd = 1.0f / sqrtf(head_sum<WIDTH>(squares) / (float)job.size + job.eps);
    if (job.rstd_out && lane == 0 && idx < job.count) {
        job.rstd_out[idx] = rstd;
    }
    for (int32_t d = lane * N; d < size; d += WIDTH * N) {
        float v[N];
        float w[N];
        lanes_get(v, head + d, size - d, job.aligned, 0.0f);
        lanes_get(w, job.w + d, size - d, job.w_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] = v[i] * rstd * w[i];
        }
        lanes_put(head + d, v, size - d, job.aligned);
    }
}

template <typename T, int WIDTH>
static __global__ void __launch_bounds__(HEAD_THREADS) headnorm_bwd_kernel(head_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    int64_t idx = (int64_t)blockIdx.x * (HEAD_THREADS / WIDTH) + threadIdx.x / WIDTH;
    int32_t lane = (int32_t)threadIdx.x % WIDTH;
    int32_t size = idx < job.count ? job.size : 0;
    const T *head = job.x + idx / job.heads * job.x_stride + idx % job.heads * job.size;
    T *grads = job.dx + idx / job.heads * job.dx_stride + idx % job.heads * job.size;
    float dots = 0.0f;
    for (int32_t d = lane * N; d < size; d += WIDTH * N) {
        float y[N];
        float dy[N];
        lanes_get(y, head + d, size - d, job.aligned, 0.0f);
        lanes_get(dy, grads + d, size - d, job.dx_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            dots = fmaf(y[i], dy[i], dots); /* w·dy·(y/w) */
        }
    }
    float mean = head_sum<WIDTH>(dots) / (float)job.size;
    float rstd = idx < job.count ? job.rstd[idx] : 0.0f;
    for (int32_t d = lane * N; d < size; d += WIDTH * N) {
        float y[N];
        float dy[N];
        float w[N];
        lanes_get(y, head + d, size - d, job.aligned, 0.0f);
        lanes_get(dy, grads + d, size - d, job.dx_aligned, 0.0f);
        lanes_get(w, job.w + d, size - d, job.w_aligned, 1.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            dy[i] = (dy[i] * w[i] - y[i] / w[i] * mean) * rstd;
        }
        lanes_put(grads + d, dy, size - d, job.dx_aligned);
    }
}

template <typename T, int WIDTH>
static void head_launch_width(const struct meed_backend *be, const head_job<T> &job, bool backward)
{
    int64_t heads_a_block = HEAD_THREADS / WIDTH;
    int64_t blocks = (job.count + heads_a_block - 1) / heads_a_block;
    MEED_ASSERT(blocks <= INT32_MAX);
    dim3 grid((unsigned)blocks);
    if (backward) {
        MEED_LAUNCH((headnorm_bwd_kernel<T, WIDTH>), grid, dim3(HEAD_THREADS), 0,
                    meed_cuda_stream(be), job);
    } else {
        MEED_LAUNCH((headnorm_fwd_kernel<T, WIDTH>), grid, dim3(HEAD_THREADS), 0,
                    meed_cuda_stream(be), job);
    }
    meed_cuda_check(be, cudaGetLastError(), backward ? "headnorm_bwd" : "headnorm_fwd");
}

template <typename T>
static void head_launch(const struct meed_backend *be, struct meed_mat x, int32_t heads,
                        const float *w, float eps, float *rstd_out, const float *rstd,
                        struct meed_mat dx)
{
    head_job<T> job;
    job.x = (T *)x.data;
    job.dx = (T *)dx.data;
    job.w = w;
    job.rstd_out = rstd_out;
    job.rstd = rstd;
    job.x_stride = x.stride;
    job.dx_stride = dx.stride;
    job.count = x.rows * heads;
    job.heads = heads;
    job.size = (int32_t)(x.cols / heads);
    job.eps = eps;
    job.aligned = lanes_aligned(x) && job.size % LANE_COUNT<T> == 0;
    job.dx_aligned = lanes_aligned(dx) && job.size % LANE_COUNT<T> == 0;
    job.w_aligned = lanes_aligned(w);
    int32_t groups = (job.size + LANE_COUNT<T> - 1) / LANE_COUNT<T>;
    if (groups <= 8) {
        head_launch_width<T, 8>(be, job, rstd != NULL);
    } else if (groups <= 16) {
        head_launch_width<T, 16>(be, job, rstd != NULL);
    } else {
        head_launch_width<T, 32>(be, job, rstd != NULL);
    }
}

extern "C" void meed_cuda_headnorm_fwd(const struct meed_backend *be, struct meed_mat x,
                                       int32_t heads, const float *w, float eps, float *rstd)
{
    MEED_ASSERT(heads > 0 && x.cols % heads == 0);
    if (x.rows > 0 && x.cols > 0) {
        (x.dtype == MEED_DTYPE_F32 ? head_launch<float>
                                   : head_launch<meed_bf16>)(be, x, heads, w, eps, rstd, NULL, x);
    }
}

extern "C" void meed_cuda_headnorm_bwd(const struct meed_backend *be, struct meed_mat y,
                                       int32_t heads, const float *w, const float *rstd,
                                       struct meed_mat dx)
{
    MEED_ASSERT(heads > 0 && y.cols % heads == 0 && dx.cols == y.cols && dx.rows == y.rows);
    MEED_ASSERT(y.dtype == dx.dtype && rstd);
    if (y.rows > 0 && y.cols > 0) {
        (y.dtype == MEED_DTYPE_F32 ? head_launch<float>
                                   : head_launch<meed_bf16>)(be, y, heads, w, 0.0f, NULL, rstd, dx);
    }
}
