/* Rotary positions (Su et al. 2021) in the half-split order of Hugging Face, and the bias add.
 *
 * Pair (i, i + D/2) of a head turns by the angle of its row's position. Both ops read and write x
 * once (4 bytes an element in bf16) and are element-wise, so a row's bits are its own.
 *
 * A rope thread owns one lane group of the half (lanes.cuh) for ROPE_HEADS heads: the cosines and
 * sines, four times the bytes of what they turn, are loaded once for all of them. All heads in one
 * thread would load them less often still, but a decode step of one row would then run on D/16
 * threads. Registers: 4 · 8 floats; the table stays in L1 and L2 (positions · D · 4 bytes).
 */
#include "kernels/cuda/lanes.cuh"

static constexpr int ROPE_THREADS = 128;
static constexpr int32_t ROPE_HEADS = 4;

template <typename T> struct rope_job {
    T *x;
    const int32_t *positions;
    const float *cosine;
    const float *sine;
    int64_t stride;
    int32_t units; /* rows · head groups · lane groups */
    int32_t head_groups;
    int32_t lane_groups;
    int32_t heads;
    int32_t half;
    float direction;
    bool aligned;
    bool table_aligned;
};

template <typename T>
static __global__ void __launch_bounds__(ROPE_THREADS) rope_kernel(rope_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    int32_t unit = (int32_t)(blockIdx.x * ROPE_THREADS + threadIdx.x);
    if (unit >= job.units) {
        return;
    }
    int32_t i = unit % job.lane_groups * N;
    int32_t head = unit / job.lane_groups % job.head_groups * ROPE_HEADS;
    int64_t row = unit / job.lane_groups / job.head_groups;
    int32_t lanes = job.half - i;
    int64_t angle = (int64_t)job.positions[row] * job.half + i;
    float c[N];
    float s[N];
    lanes_get(c, job.cosine + angle, lanes, job.table_aligned, 0.0f);
    lanes_get(s, job.sine + angle, lanes, job.table_aligned, 0.0f);
#pragma unroll
    for (int j = 0; j < N; j++) {
        s[j] *= job.direction;
    }
#pragma unroll
    for (int32_t h = 0; h < ROPE_HEADS; h++) {
        if (head + h < job.heads) {
            T *low = job.x + row * job.stride + (int64_t)(head + h) * 2 * job.half + i;
            T *high = low + job.half;
            float a[N];
            float b[N];
            lanes_get(a, low, lanes, job.aligned, 0.0f);
            lanes_get(b, high, lanes, job.aligned, 0.0f);
#pragma unroll
            for (int j = 0; j < N; j++) {
                float turned = fmaf(a[j], c[j], -(b[j] * s[j]));
                b[j] = fmaf(b[j], c[j], a[j] * s[j]);
                a[j] = turned;
            }
            lanes_put(low, a, lanes, job.aligned);
            lanes_put(high, b, lanes, job.aligned);
        }
    }
}

template <typename T>
static void rope_launch(const struct meed_backend *be, struct meed_mat x, int32_t heads,
                        int32_t head_dim, const int32_t *positions, struct meed_rope_table table,
                        int direction)
{
    constexpr int N = LANE_COUNT<T>;
    rope_job<T> job;
    job.x = (T *)x.data;
    job.positions = positions;
    job.cosine = table.cos;
    job.sine = table.sin;
    job.stride = x.stride;
    job.half = head_dim / 2;
    job.heads = heads;
    job.head_groups = (heads + ROPE_HEADS - 1) / ROPE_HEADS;
    job.lane_groups = (job.half + N - 1) / N;
    job.direction = (float)direction;
    job.aligned = lanes_aligned(x) && job.half % N == 0;
    job.table_aligned = lanes_aligned(table.cos, job.half, MEED_DTYPE_F32) &&
                        lanes_aligned(table.sin, job.half, MEED_DTYPE_F32);
    int64_t units = x.rows * job.head_groups * job.lane_groups;
    MEED_ASSERT(units <= INT32_MAX - ROPE_THREADS);
    job.units = (int32_t)units;
    dim3 grid((unsigned)((units + ROPE_THREADS - 1) / ROPE_THREADS));
    MEED_LAUNCH((rope_kernel<T>), grid, dim3(ROPE_THREADS), 0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "rope");
}

extern "C" void meed_cuda_rope(const struct meed_backend *be, struct meed_mat x, int32_t heads,
                               int32_t head_dim, const int32_t *positions,
                               struct meed_rope_table table, int direction)
{
    MEED_ASSERT(head_dim % 2 == 0 && x.cols == (int64_t)heads * head_dim);
    MEED_ASSERT(direction == 1 || direction == -1);
    if (x.rows > 0 && x.cols > 0) {
        (x.dtype == MEED_DTYPE_F32
             ? rope_launch<float>
             : rope_launch<meed_bf16>)(be, x, heads, head_dim, positions, table, direction);
    }
}

template <typename T> struct bias_job {
    T *x;
    const float *bias;
    int64_t stride;
    int64_t rows;
    int64_t cols;
    bool aligned;
    bool bias_aligned;
};

template <typename T>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) bias_add_kernel(bias_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    sweep<N>(job.rows, job.cols, [&](int64_t row, int64_t col) {
        T *at = job.x + row * job.stride + col;
        float v[N];
        float bias[N];
        lanes_get(v, at, job.cols - col, job.aligned, 0.0f);
        lanes_get(bias, job.bias + col, job.cols - col, job.bias_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] += bias[i];
        }
        lanes_put(at, v, job.cols - col, job.aligned);
    });
}

template <typename T>
static void bias_launch(const struct meed_backend *be, struct meed_mat x, const float *bias)
{
    bias_job<T> job;
    job.x = (T *)x.data;
    job.bias = bias;
    job.stride = x.stride;
    job.rows = x.rows;
    job.cols = x.cols;
    job.aligned = lanes_aligned(x);
    job.bias_aligned = lanes_aligned(bias);
    dim3 grid = sweep_grid(x.rows, x.cols, LANE_COUNT<T>);
    MEED_LAUNCH((bias_add_kernel<T>), grid, sweep_block(), 0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "bias_add");
}

extern "C" void meed_cuda_bias_add(const struct meed_backend *be, struct meed_mat x,
                                   const float *bias)
{
    if (x.rows > 0 && x.cols > 0) {
        (x.dtype == MEED_DTYPE_F32 ? bias_launch<float> : bias_launch<meed_bf16>)(be, x, bias);
    }
}
