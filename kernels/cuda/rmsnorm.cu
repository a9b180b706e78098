/* RMSNorm of rows (Zhang & Sennrich 2019) with the residual add before it and the low-rank tail
 * after it, and its gradient.
 *
 * A warp has a row: lanes of 16 bytes (lanes.cuh), four groups under way at a time, the sum of
 * squares in one chain a lane and five shuffles, and a second look at the row, which comes from L1.
 * So the order of a sum depends on K and dtype alone. A block a row would serve a single decoded
 * row better, by two microseconds; the bits would then have to be a block's everywhere, at the cost
 * of a barrier a row.
 *
 * Bytes an element, bf16: 8 forward (x, residual, sum, y), 8 backward (dy, sum, dsum twice). The
 * fused form gives a block 16 rows, two a warp, and then makes their T (tail.cuh): y is read again
 * from L2 rather than memory, for which a pass of its own would pay 2 more bytes.
 *
 * The sum is rounded to its dtype before it is squared, so that backward, which reads the stored
 * sum, differentiates what forward computed. Backward of y = s·rstd⊙w with c = Σ w·dy·s:
 * ds = rstd·w⊙dy − s·rstd³·c/K.
 */
#include "kernels/cuda/tail.cuh"

static constexpr int NORM_WARPS = 8;
static constexpr int NORM_THREADS = 32 * NORM_WARPS;
static constexpr int NORM_DEPTH = 4; /* lane groups under way */
static_assert(NORM_THREADS == TAIL_THREADS, "one block does both");

template <typename T> struct norm_job {
    const T *x;
    const T *residual; /* or NULL */
    T *sum;            /* or NULL; may be x */
    T *y;
    float *rstd; /* or NULL */
    const float *w;
    int64_t x_stride;
    int64_t residual_stride;
    int64_t sum_stride;
    int64_t y_stride;
    int64_t rows;
    int32_t k;
    float eps;
    bool aligned; /* x, residual and sum */
    bool y_aligned;
    bool w_aligned;
};

static __device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
    }
    return value;
}

static __device__ __forceinline__ float rounded(float value, const float *)
{
    return value;
}
static __device__ __forceinline__ float rounded(float value, const meed_bf16 *)
{
    return meed_bf16_float(meed_float_bf16(value));
}

/* s of NORM_DEPTH lane groups of a row, the first at `col`; zeros past its end. */
template <typename T, int N>
static __device__ __forceinline__ void norm_get(float (&s)[NORM_DEPTH][N], const T *x,
                                                const T *residual, int32_t col, int32_t k,
                                                bool aligned)
{
#pragma unroll
    for (int i = 0; i < NORM_DEPTH; i++) {
        int32_t at = col + i * 32 * N;
        lanes_get(s[i], x + at, k - at, aligned, 0.0f);
    }
    if (residual) {
        float add[NORM_DEPTH][N];
#pragma unroll
        for (int i = 0; i < NORM_DEPTH; i++) {
            int32_t at = col + i * 32 * N;
            lanes_get(add[i], residual + at, k - at, aligned, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < NORM_DEPTH * N; i++) {
            s[i / N][i % N] = rounded(s[i / N][i % N] + add[i / N][i % N], x);
        }
    }
}

/* One row by one warp. */
template <typename T>
static __device__ __forceinline__ void norm_row(const norm_job<T> &job, int64_t m)
{
    constexpr int N = LANE_COUNT<T>;
    constexpr int32_t STEP = NORM_DEPTH * 32 * N;
    int32_t lane = (int32_t)threadIdx.x % 32;
    const T *x = job.x + m * job.x_stride;
    const T *residual = job.residual ? job.residual + m * job.residual_stride : NULL;
    T *sum = job.sum ? job.sum + m * job.sum_stride : NULL;
    float squares = 0.0f;
    for (int32_t col = lane * N; col < job.k; col += STEP) {
        float s[NORM_DEPTH][N];
        norm_get(s, x, residual, col, job.k, job.aligned);
#pragma unroll
        for (int i = 0; i < NORM_DEPTH; i++) {
            int32_t at = col + i * 32 * N;
#pragma unroll
            for (int j = 0; j < N; j++) {
                squares = fmaf(s[i][j], s[i][j], squares);
            }
            if (sum) {
                lanes_put(sum + at, s[i], job.k - at, job.aligned);
            }
        }
    }
    float rstd = 1.0f / sqrtf(warp_sum(squares) / (float)job.k + job.eps);
    if (job.rstd && lane == 0) {
        job.rstd[m] = rstd;
    }
    const T *again = sum ? sum : x;
    const T *again_residual = sum ? NULL : residual;
    for (int32_t col = lane * N; col < job.k; col += STEP) {
        float s[NORM_DEPTH][N];
        norm_get(s, again, again_residual, col, job.k, job.aligned);
#pragma unroll
        for (int i = 0; i < NORM_DEPTH; i++) {
            int32_t at = col + i * 32 * N;
            float w[N];
            lanes_get(w, job.w + at, job.k - at, job.w_aligned, 0.0f);
#pragma unroll
            for (int j = 0; j < N; j++) {
                s[i][j] = s[i][j] * rstd * w[j];
            }
            lanes_put(job.y + m * job.y_stride + at, s[i], job.k - at, job.y_aligned);
        }
    }
}

template <typename T>
static __global__ void __launch_bounds__(NORM_THREADS) rmsnorm_fwd_kernel(norm_job<T> job)
{
    int64_t m = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / 32;
    if (m < job.rows) {
        norm_row(job, m);
    }
}

template <typename T, int NT>
static __global__ void __launch_bounds__(NORM_THREADS, 2)
    rmsnorm_fwd_tail_kernel(norm_job<T> job, tail_job<T> tail)
{
    constexpr int FLOATS = TAIL_SHARED<T, NT>;
    MEED_SHARED(float4[FLOATS / 4], shared);
    int64_t first = (int64_t)blockIdx.x * TAIL_ROWS;
#pragma unroll 1
    for (int i = (int)threadIdx.x / 32; i < TAIL_ROWS; i += NORM_WARPS) {
        if (first + i < job.rows) {
            norm_row(job, first + i);
        }
    }
    __syncthreads();
    tail_rows<T, NT>((float *)shared, tail, first);
}

template <typename T>
static void fwd_launch(const struct meed_backend *be, struct meed_mat x, struct meed_mat residual,
                       const float *w, float eps, const struct meed_tail *tail, struct meed_mat sum,
                       struct meed_mat y, float *rstd)
{
    norm_job<T> job;
    job.x = (const T *)x.data;
    job.residual = (const T *)residual.data;
    job.sum = (T *)sum.data;
    job.y = (T *)y.data;
    job.rstd = rstd;
    job.w = w;
    job.x_stride = x.stride;
    job.residual_stride = residual.stride;
    job.sum_stride = sum.stride;
    job.y_stride = y.stride;
    job.rows = x.rows;
    job.k = (int32_t)x.cols;
    job.eps = eps;
    job.aligned = lanes_aligned(x) && (!residual.data || lanes_aligned(residual)) &&
                  (!sum.data || lanes_aligned(sum));
    job.y_aligned = lanes_aligned(y);
    job.w_aligned = lanes_aligned(w);
    if (tail_fused(be, x.rows, tail)) {
        tail_job<T> low = tail_job_make<T>(y, x.cols, tail);
        tail_dispatch(low.r, [&](auto width) {
            constexpr int NT = decltype(width)::TILES;
            dim3 grid((unsigned)((job.rows + TAIL_ROWS - 1) / TAIL_ROWS));
            MEED_LAUNCH((rmsnorm_fwd_tail_kernel<T, NT>), grid, dim3(NORM_THREADS), 0,
                        meed_cuda_stream(be), job, low);
        });
        meed_cuda_check(be, cudaGetLastError(), "rmsnorm_fwd");
        return;
    }
    dim3 grid((unsigned)((job.rows + NORM_WARPS - 1) / NORM_WARPS));
    MEED_LAUNCH((rmsnorm_fwd_kernel<T>), grid, dim3(NORM_THREADS), 0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "rmsnorm_fwd");
    meed_cuda_tail_apply(be, y, x.cols, tail);
}

extern "C" void meed_cuda_rmsnorm_fwd(const struct meed_backend *be, struct meed_mat x,
                                      struct meed_mat residual, const float *w, float eps,
                                      const struct meed_tail *tail, struct meed_mat sum,
                                      struct meed_mat y, float *rstd)
{
    MEED_ASSERT(x.rows == y.rows && y.cols == x.cols + tail_rank(tail) && y.dtype == x.dtype);
    MEED_ASSERT(!residual.data ||
                (residual.rows == x.rows && residual.cols == x.cols && residual.dtype == x.dtype));
    MEED_ASSERT(!sum.data || (sum.rows == x.rows && sum.cols == x.cols && sum.dtype == x.dtype));
    if (x.rows > 0 && x.cols > 0) {
        (x.dtype == MEED_DTYPE_F32 ? fwd_launch<float> : fwd_launch<meed_bf16>)(be, x, residual, w,
                                                                                eps, tail, sum, y,
                                                                                rstd);
    }
}

template <typename T> struct norm_grad_job {
    const T *dy;
    const T *sum;
    T *dsum;
    const float *w;
    const float *rstd;
    int64_t dy_stride;
    int64_t sum_stride;
    int64_t dsum_stride;
    int64_t rows;
    int32_t k;
    bool dy_aligned;
    bool sum_aligned;
    bool dsum_aligned;
    bool w_aligned;
};

template <typename T>
static __global__ void __launch_bounds__(NORM_THREADS, 2) rmsnorm_bwd_kernel(norm_grad_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    int64_t m = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / 32;
    int32_t lane = (int32_t)threadIdx.x % 32;
    int32_t k = m < job.rows ? job.k : 0;
    const T *dy = job.dy + m * job.dy_stride;
    const T *sum = job.sum + m * job.sum_stride;
    T *dsum = job.dsum + m * job.dsum_stride;
    float dots = 0.0f;
#pragma unroll 2
    for (int32_t col = lane * N; col < k; col += 32 * N) {
        float grad[N];
        float s[N];
        float w[N];
        lanes_get(grad, dy + col, k - col, job.dy_aligned, 0.0f);
        lanes_get(s, sum + col, k - col, job.sum_aligned, 0.0f);
        lanes_get(w, job.w + col, k - col, job.w_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            dots = fmaf(grad[i] * w[i], s[i], dots);
        }
    }
    float rstd = m < job.rows ? job.rstd[m] : 0.0f;
    float pull = warp_sum(dots) / (float)job.k * rstd * rstd * rstd;
#pragma unroll 2
    for (int32_t col = lane * N; col < k; col += 32 * N) {
        float grad[N];
        float s[N];
        float w[N];
        float total[N];
        lanes_get(grad, dy + col, k - col, job.dy_aligned, 0.0f);
        lanes_get(s, sum + col, k - col, job.sum_aligned, 0.0f);
        lanes_get(w, job.w + col, k - col, job.w_aligned, 0.0f);
        lanes_get(total, dsum + col, k - col, job.dsum_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            total[i] += grad[i] * w[i] * rstd - s[i] * pull;
        }
        lanes_put(dsum + col, total, k - col, job.dsum_aligned);
    }
}

template <typename T>
static void bwd_launch(const struct meed_backend *be, struct meed_mat dy, struct meed_mat sum,
                       const float *w, const float *rstd, struct meed_mat dsum)
{
    norm_grad_job<T> job;
    job.dy = (const T *)dy.data;
    job.sum = (const T *)sum.data;
    job.dsum = (T *)dsum.data;
    job.w = w;
    job.rstd = rstd;
    job.dy_stride = dy.stride;
    job.sum_stride = sum.stride;
    job.dsum_stride = dsum.stride;
    job.rows = sum.rows;
    job.k = (int32_t)sum.cols;
    job.dy_aligned = lanes_aligned(dy);
    job.sum_aligned = lanes_aligned(sum);
    job.dsum_aligned = lanes_aligned(dsum);
    job.w_aligned = lanes_aligned(w);
    dim3 grid((unsigned)((job.rows + NORM_WARPS - 1) / NORM_WARPS));
    MEED_LAUNCH((rmsnorm_bwd_kernel<T>), grid, dim3(NORM_THREADS), 0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "rmsnorm_bwd");
}

extern "C" void meed_cuda_rmsnorm_bwd(const struct meed_backend *be, struct meed_mat dy,
                                      struct meed_mat sum, const float *w, const float *rstd,
                                      struct meed_mat dsum)
{
    MEED_ASSERT(dy.rows == sum.rows && dsum.rows == sum.rows && dsum.cols == sum.cols);
    MEED_ASSERT(dy.cols >= sum.cols && dy.dtype == sum.dtype && dsum.dtype == sum.dtype);
    if (sum.rows > 0 && sum.cols > 0) {
        (sum.dtype == MEED_DTYPE_F32 ? bwd_launch<float> : bwd_launch<meed_bf16>)(be, dy, sum, w,
                                                                                  rstd, dsum);
    }
}
