/* Gated linear units (Shazeer 2020), h = g·σ(z(g))·u with the low-rank tail, and their gradient.
 *
 * SwiGLU: z = g. GeGLU: z = 2√(2/π)·(g + 0.044715·g³), which is gelu's tanh form without a tanh.
 * With σ = σ(z): dg = dh·u·σ·(1 + g·z′·(1 − σ)), du = dh·g·σ. One exponential and one division an
 * element; expf overflows to infinity for z below −88 and σ becomes 0, as it should. Bytes: 6 an
 * element forward, 10 backward, nothing else to gain but the tail: fused, a block takes 16 rows of
 * gu and makes their T from L2 (tail.cuh), which saves reading h again, F columns wide, for the
 * down projection. Short batches and batches without a tail spread over columns instead
 * (lanes.cuh). Element-wise: a row's bits are its own.
 *
 * The backward loads both halves of its lanes before it stores either, so dgu may be gu.
 */
#include "kernels/cuda/tail.cuh"

template <typename T> struct glu_job {
    enum meed_glu act;
    const T *gu;
    T *out; /* h */
    const T *dout;
    T *dgu;
    int64_t gu_stride;
    int64_t out_stride;
    int64_t dout_stride;
    int64_t dgu_stride;
    int64_t rows;
    int64_t width; /* F */
    bool gu_aligned;
    bool out_aligned;
    bool dout_aligned;
    bool dgu_aligned;
};

#define GELU_LINEAR 1.5957691216f /* 2√(2/π) */
#define GELU_CUBIC 0.0713548163f  /* 0.044715 of it */

static __device__ __forceinline__ float gate_sigmoid(enum meed_glu act, float g)
{
    float z = act == MEED_GLU_SILU ? g : g * fmaf(g * g, GELU_CUBIC, GELU_LINEAR);
    return 1.0f / (1.0f + expf(-z));
}
/* g·z′(g) */
static __device__ __forceinline__ float gate_slope(enum meed_glu act, float g)
{
    return act == MEED_GLU_SILU ? g : g * fmaf(g * g, 3.0f * GELU_CUBIC, GELU_LINEAR);
}

/* h of one lane group. */
template <typename T>
static __device__ __forceinline__ void glu_lanes(const glu_job<T> &job, int64_t row, int64_t col)
{
    constexpr int N = LANE_COUNT<T>;
    const T *from = job.gu + row * job.gu_stride + col;
    int64_t count = job.width - col;
    float gate[N];
    float up[N];
    lanes_get(gate, from, count, job.gu_aligned, 0.0f);
    lanes_get(up, from + job.width, count, job.gu_aligned, 0.0f);
#pragma unroll
    for (int i = 0; i < N; i++) {
        gate[i] = gate[i] * gate_sigmoid(job.act, gate[i]) * up[i];
    }
    lanes_put(job.out + row * job.out_stride + col, gate, count, job.out_aligned);
}

template <typename T>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) glu_fwd_kernel(glu_job<T> job)
{
    sweep<LANE_COUNT<T>>(job.rows, job.width,
                         [&](int64_t row, int64_t col) { glu_lanes(job, row, col); });
}

template <typename T, int NT>
static __global__ void __launch_bounds__(TAIL_THREADS, 2)
    glu_fwd_tail_kernel(glu_job<T> job, tail_job<T> tail)
{
    constexpr int N = LANE_COUNT<T>;
    constexpr int FLOATS = TAIL_SHARED<T, NT>;
    MEED_SHARED(float4[FLOATS / 4], shared);
    int64_t first = (int64_t)blockIdx.x * TAIL_ROWS;
    int lane = (int)threadIdx.x % 32;
#pragma unroll 1
    for (int i = (int)threadIdx.x / 32; i < TAIL_ROWS; i += TAIL_WARPS) {
        if (first + i < job.rows) {
#pragma unroll 2
            for (int64_t col = (int64_t)lane * N; col < job.width; col += 32 * N) {
                glu_lanes(job, first + i, col);
            }
        }
    }
    __syncthreads();
    tail_rows<T, NT>((float *)shared, tail, first);
}

template <typename T>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) glu_bwd_kernel(glu_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    sweep<N>(job.rows, job.width, [&](int64_t row, int64_t col) {
        const T *from = job.gu + row * job.gu_stride + col;
        int64_t count = job.width - col;
        float gate[N];
        float up[N];
        float grad[N];
        lanes_get(gate, from, count, job.gu_aligned, 0.0f);
        lanes_get(up, from + job.width, count, job.gu_aligned, 0.0f);
        lanes_get(grad, job.dout + row * job.dout_stride + col, count, job.dout_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float part = gate_sigmoid(job.act, gate[i]);
            float slope = part * (1.0f + gate_slope(job.act, gate[i]) * (1.0f - part));
            float dup = grad[i] * gate[i] * part;
            gate[i] = grad[i] * up[i] * slope;
            up[i] = dup;
        }
        T *to = job.dgu + row * job.dgu_stride + col;
        lanes_put(to, gate, count, job.dgu_aligned);
        lanes_put(to + job.width, up, count, job.dgu_aligned);
    });
}

template <typename T>
static void fwd_launch(const struct meed_backend *be, enum meed_glu act, struct meed_mat gu,
                       const struct meed_tail *tail, struct meed_mat out)
{
    glu_job<T> job = {};
    job.act = act;
    job.gu = (const T *)gu.data;
    job.out = (T *)out.data;
    job.gu_stride = gu.stride;
    job.out_stride = out.stride;
    job.rows = gu.rows;
    job.width = gu.cols / 2;
    job.gu_aligned = lanes_aligned(gu) && job.width % LANE_COUNT<T> == 0;
    job.out_aligned = lanes_aligned(out);
    if (tail_fused(be, gu.rows, tail)) {
        tail_job<T> low = tail_job_make<T>(out, job.width, tail);
        tail_dispatch(low.r, [&](auto width) {
            constexpr int NT = decltype(width)::TILES;
            dim3 grid((unsigned)((job.rows + TAIL_ROWS - 1) / TAIL_ROWS));
            MEED_LAUNCH((glu_fwd_tail_kernel<T, NT>), grid, dim3(TAIL_THREADS), 0,
                        meed_cuda_stream(be), job, low);
        });
        meed_cuda_check(be, cudaGetLastError(), "glu_fwd");
        return;
    }
    MEED_LAUNCH((glu_fwd_kernel<T>), sweep_grid(job.rows, job.width, LANE_COUNT<T>), sweep_block(),
                0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "glu_fwd");
    meed_cuda_tail_apply(be, out, job.width, tail);
}

extern "C" void meed_cuda_glu_fwd(const struct meed_backend *be, enum meed_glu act,
                                  struct meed_mat gu, const struct meed_tail *tail,
                                  struct meed_mat out)
{
    MEED_ASSERT(gu.cols % 2 == 0 && out.rows == gu.rows && out.dtype == gu.dtype);
    MEED_ASSERT(out.cols == gu.cols / 2 + tail_rank(tail));
    if (gu.rows > 0 && gu.cols > 0) {
        (gu.dtype == MEED_DTYPE_F32 ? fwd_launch<float> : fwd_launch<meed_bf16>)(be, act, gu, tail,
                                                                                 out);
    }
}

template <typename T>
static void bwd_launch(const struct meed_backend *be, enum meed_glu act, struct meed_mat dout,
                       struct meed_mat gu, struct meed_mat dgu)
{
    glu_job<T> job = {};
    job.act = act;
    job.gu = (const T *)gu.data;
    job.dout = (const T *)dout.data;
    job.dgu = (T *)dgu.data;
    job.gu_stride = gu.stride;
    job.dout_stride = dout.stride;
    job.dgu_stride = dgu.stride;
    job.rows = gu.rows;
    job.width = gu.cols / 2;
    job.gu_aligned = lanes_aligned(gu) && job.width % LANE_COUNT<T> == 0;
    job.dout_aligned = lanes_aligned(dout);
    job.dgu_aligned = lanes_aligned(dgu) && job.width % LANE_COUNT<T> == 0;
    MEED_LAUNCH((glu_bwd_kernel<T>), sweep_grid(job.rows, job.width, LANE_COUNT<T>), sweep_block(),
                0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "glu_bwd");
}

extern "C" void meed_cuda_glu_bwd(const struct meed_backend *be, enum meed_glu act,
                                  struct meed_mat dout, struct meed_mat gu, struct meed_mat dgu)
{
    MEED_ASSERT(gu.cols % 2 == 0 && dgu.cols == gu.cols && dgu.rows == gu.rows);
    MEED_ASSERT(dout.rows == gu.rows && dout.cols >= gu.cols / 2);
    MEED_ASSERT(dout.dtype == gu.dtype && dgu.dtype == gu.dtype);
    if (gu.rows > 0 && gu.cols > 0) {
        (gu.dtype == MEED_DTYPE_F32 ? bwd_launch<float> : bwd_launch<meed_bf16>)(be, act, dout, gu,
                                                                                 dgu);
    }
}
