/* Folding low-rank factors into dense matrices: masters into [W | s∘B], and W' = W + Σ g·s·B·A.
 *
 * lora_pack is two element-wise copies, A and s·B, of every adapted module before every step: one
 * launch does both, since there are hundreds of modules and a launch costs more than their bytes.
 *
 * lora_merge sums the low-rank part first and adds W last: the update is small next to W, and
 * adding its terms one by one would round each at W's size. A gate of 0 contributes exactly
 * nothing. Three forms, chosen by dtype and shape alone; all sum in fp32 over j in order:
 *
 * - tensor, bf16. The gated factor g·b is fp32, and rounding it to bf16 would put 2⁻⁹ of the
 *   update's size on every element, for good, in a matrix that is then used for every token. So it
 *   is split into two bf16, g·b = high + low up to 2⁻¹⁷, for two products each: 4·R FLOPs and 4
 *   bytes an element, bound by memory up to R of about 200 on sm_80. A block has 64 rows × 128
 *   columns, a warp 32 × 32 of them, MERGE_DEPTH ranks at a time; sums go through shared memory (34
 *   KB), so that W is read and written in whole lanes.
 * - tiled, fp32, by FMA: the same block, 4 × 8 sums a thread, 12 shared loads for 32 FMAs, 24 KB.
 * - thin, few rows (the engine's own axpy: one row of millions, rank 1): a thread has eight columns
 *   of a row and reads A from memory.
 */
#include "kernels/cuda/lanes.cuh"

static constexpr int PACK_THREADS = 256;

/* to[i, j] = round(scale·from[i, j]); from is dense. */
template <typename T> struct pack_part {
    const float *from;
    T *to;
    int64_t stride;
    int64_t cols;
    int64_t groups; /* lane groups of a row */
    int64_t units;  /* rows · groups */
    float scale;
    bool from_aligned;
    bool to_aligned;
};

template <typename T> struct pack_job {
    pack_part<T> a;
    pack_part<T> b;
};

template <typename T>
static __device__ __forceinline__ void pack_unit(const pack_part<T> &part, int64_t unit)
{
    constexpr int N = LANE_COUNT<T>;
    int64_t row = unit / part.groups;
    int64_t col = unit % part.groups * N;
    float v[N];
    lanes_get(v, part.from + row * part.cols + col, part.cols - col, part.from_aligned, 0.0f);
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] *= part.scale;
    }
    lanes_put(part.to + row * part.stride + col, v, part.cols - col, part.to_aligned);
}

template <typename T>
static __global__ void __launch_bounds__(PACK_THREADS) lora_pack_kernel(pack_job<T> job)
{
    int64_t unit = (int64_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    if (unit < job.a.units) {
        pack_unit(job.a, unit);
    } else if (unit - job.a.units < job.b.units) {
        pack_unit(job.b, unit - job.a.units);
    }
}

template <typename T>
static pack_part<T> pack_part_make(const float *from, struct meed_mat to, float scale)
{
    pack_part<T> part;
    part.from = from;
    part.to = (T *)to.data;
    part.stride = to.stride;
    part.cols = to.cols;
    part.groups = (to.cols + LANE_COUNT<T> - 1) / LANE_COUNT<T>;
    part.units = to.rows * part.groups;
    part.scale = scale;
    part.from_aligned = lanes_aligned(from, to.cols, MEED_DTYPE_F32);
    part.to_aligned = lanes_aligned(to);
    return part;
}

template <typename T>
static void pack_launch(const struct meed_backend *be, const float *a, const float *b, float scale,
                        struct meed_mat a_rows, struct meed_mat tail)
{
    pack_job<T> job;
    job.a = pack_part_make<T>(a, a_rows, 1.0f);
    job.b = pack_part_make<T>(b, tail, scale);
    int64_t blocks = (job.a.units + job.b.units + PACK_THREADS - 1) / PACK_THREADS;
    MEED_ASSERT(blocks <= INT32_MAX);
    if (blocks > 0) {
        MEED_LAUNCH((lora_pack_kernel<T>), dim3((unsigned)blocks), dim3(PACK_THREADS), 0,
                    meed_cuda_stream(be), job);
        meed_cuda_check(be, cudaGetLastError(), "lora_pack");
    }
}

extern "C" void meed_cuda_lora_pack(const struct meed_backend *be, const float *a, const float *b,
                                    float scale, struct meed_mat a_rows, struct meed_mat tail)
{
    MEED_ASSERT(a_rows.rows == tail.cols && a_rows.dtype == tail.dtype);
    (a_rows.dtype == MEED_DTYPE_F32 ? pack_launch<float> : pack_launch<meed_bf16>)(be, a, b, scale,
                                                                                   a_rows, tail);
}

static constexpr int MERGE_THREADS = 256;
static constexpr int MERGE_ROWS = 64;
static constexpr int MERGE_COLS = 128;
static constexpr int MERGE_DEPTH = 32;
static constexpr int THREAD_ROWS = 4;
static constexpr int THREAD_COLS = 8;
static constexpr int64_t THIN_ROWS = 8;
/* Pitches in elements: rows of a tile must fall into different banks, for ldmatrix and for lanes.
 */
static constexpr int FACTOR_PITCH = MERGE_DEPTH + 8;
static constexpr int A_PITCH = MERGE_COLS + 8;
static constexpr int SUM_PITCH = MERGE_COLS + 4;

/* W and out of one dtype, the factors of one (theirs may differ: fp32 factors of a bf16 matrix). */
template <typename T, typename F> struct merge_job {
    const T *w;
    T *out;
    const F *b;
    const F *a;
    const float *gates; /* or NULL */
    int64_t w_stride;
    int64_t out_stride;
    int64_t b_stride;
    int64_t a_stride;
    int64_t rows;
    int64_t cols;
    int64_t rank;
    int64_t groups; /* lane groups of a row, for thin */
    bool w_aligned;
    bool out_aligned;
    bool a_aligned;
};

/* Ranks [j, j + MERGE_DEPTH) of the block's rows of g·B and columns of A; zeros past the edges. */
template <typename T, typename F>
static __device__ __forceinline__ void merge_load(const merge_job<T, F> &job, int64_t row,
                                                  int64_t col, int64_t j, float (*left)[MERGE_ROWS],
                                                  float (*right)[MERGE_COLS])
{
    for (int i = (int)threadIdx.x; i < MERGE_DEPTH * MERGE_ROWS; i += MERGE_THREADS) {
        int depth = i % MERGE_DEPTH;
        int64_t n = row + i / MERGE_DEPTH;
        bool real = n < job.rows && j + depth < job.rank;
        float gate = real && job.gates ? job.gates[j + depth] : 1.0f;
        left[depth][i / MERGE_DEPTH] =
            real ? gate * elem_get(job.b + n * job.b_stride + j + depth) : 0.0f;
    }
    for (int i = (int)threadIdx.x; i < MERGE_DEPTH * MERGE_COLS; i += MERGE_THREADS) {
        int depth = i / MERGE_COLS;
        int64_t k = col + i % MERGE_COLS;
        bool real = k < job.cols && j + depth < job.rank;
        right[depth][i % MERGE_COLS] =
            real ? elem_get(job.a + (j + depth) * job.a_stride + k) : 0.0f;
    }
}

/* out = w + sums, for THREAD_COLS columns of one row. */
template <typename T, typename F>
static __device__ __forceinline__ void merge_store(const merge_job<T, F> &job, int64_t row,
                                                   int64_t col, const float (&sums)[THREAD_COLS])
{
    float v[THREAD_COLS];
    lanes_get(v, job.w + row * job.w_stride + col, job.cols - col, job.w_aligned, 0.0f);
#pragma unroll
    for (int i = 0; i < THREAD_COLS; i++) {
        v[i] += sums[i];
    }
    lanes_put(job.out + row * job.out_stride + col, v, job.cols - col, job.out_aligned);
}

template <typename T, typename F>
static __global__ void __launch_bounds__(MERGE_THREADS) lora_merge_tiled_kernel(merge_job<T, F> job)
{
    MEED_SHARED(float[MERGE_DEPTH][MERGE_ROWS], left);
    MEED_SHARED(float[MERGE_DEPTH][MERGE_COLS], right);
    int64_t tiles = (job.cols + MERGE_COLS - 1) / MERGE_COLS;
    int64_t row = blockIdx.x / tiles * MERGE_ROWS;
    int64_t col = blockIdx.x % tiles * MERGE_COLS;
    int own_row = (int)threadIdx.x / (MERGE_COLS / THREAD_COLS) * THREAD_ROWS;
    int own_col = (int)threadIdx.x % (MERGE_COLS / THREAD_COLS) * THREAD_COLS;
    float sums[THREAD_ROWS][THREAD_COLS] = {};
    for (int64_t j = 0; j < job.rank; j += MERGE_DEPTH) {
        merge_load(job, row, col, j, left, right);
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < MERGE_DEPTH; depth++) {
#pragma unroll
            for (int i = 0; i < THREAD_ROWS * THREAD_COLS; i++) {
                int r = i / THREAD_COLS;
                int c = i % THREAD_COLS;
                sums[r][c] = fmaf(left[depth][own_row + r], right[depth][own_col + c], sums[r][c]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < THREAD_ROWS; r++) {
        if (row + own_row + r < job.rows && col + own_col < job.cols) {
            merge_store(job, row + own_row + r, col + own_col, sums[r]);
        }
    }
}

/* Ranks [j, j + MERGE_DEPTH) for tensor cores: g·B in two parts, A as it is. */
static __device__ __forceinline__ void merge_stage(const merge_job<meed_bf16, meed_bf16> &job,
                                                   int64_t row, int64_t col, int64_t j,
                                                   meed_bf16 *high, meed_bf16 *low,
                                                   meed_bf16 *right)
{
    for (int i = (int)threadIdx.x; i < MERGE_ROWS * MERGE_DEPTH; i += MERGE_THREADS) {
        int depth = i % MERGE_DEPTH;
        int64_t n = row + i / MERGE_DEPTH;
        float factor = 0.0f;
        if (n < job.rows && j + depth < job.rank) {
            float gate = job.gates ? job.gates[j + depth] : 1.0f;
            factor = gate * elem_get(job.b + n * job.b_stride + j + depth);
        }
        meed_bf16 first = meed_float_bf16(factor);
        high[i / MERGE_DEPTH * FACTOR_PITCH + depth] = first;
        low[i / MERGE_DEPTH * FACTOR_PITCH + depth] =
            meed_float_bf16(factor - meed_bf16_float(first));
    }
    for (int i = (int)threadIdx.x * 8; i < MERGE_DEPTH * MERGE_COLS; i += MERGE_THREADS * 8) {
        int depth = i / MERGE_COLS;
        int64_t k = col + i % MERGE_COLS;
        int64_t left = j + depth < job.rank ? job.cols - k : 0;
        float v[8];
        lanes_get(v, job.a + (j + depth) * job.a_stride + k, left, job.a_aligned, 0.0f);
        lanes_store(right + depth * A_PITCH + i % MERGE_COLS, v);
    }
}

/* sums[m][n] += (high + low)·A over MERGE_DEPTH ranks, for the warp's 32 rows and 32 columns. */
static __device__ __forceinline__ void merge_product(float (&sums)[2][4][4], const meed_bf16 *high,
                                                     const meed_bf16 *low, const meed_bf16 *right)
{
    int lane = (int)threadIdx.x % 32;
    int left_at = (lane & 15) * FACTOR_PITCH + (lane >> 4) * 8;
    int right_at = (lane & 15) * A_PITCH + (lane >> 4) * 8;
#pragma unroll
    for (int k = 0; k < MERGE_DEPTH; k += 16) {
        uint32_t b[2][4];
        meed_ldmatrix_x4_trans(b[0], right + k * A_PITCH + right_at);
        meed_ldmatrix_x4_trans(b[1], right + k * A_PITCH + 16 + right_at);
#pragma unroll
        for (int part = 0; part < 2; part++) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
                uint32_t a[4];
                meed_ldmatrix_x4(a, (part ? low : high) + m * 16 * FACTOR_PITCH + k + left_at);
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    meed_mma_bf16_16816(sums[m][n], a, &b[n / 2][n % 2 * 2]);
                }
            }
        }
    }
}

static __global__ void __launch_bounds__(MERGE_THREADS)
    lora_merge_tensor_kernel(merge_job<meed_bf16, meed_bf16> job)
{
    MEED_DYN_SHARED(float, shared);
    meed_bf16 *high = (meed_bf16 *)shared;
    meed_bf16 *low = high + MERGE_ROWS * FACTOR_PITCH;
    meed_bf16 *right = low + MERGE_ROWS * FACTOR_PITCH;
    int64_t tiles = (job.cols + MERGE_COLS - 1) / MERGE_COLS;
    int64_t row = blockIdx.x / tiles * MERGE_ROWS;
    int64_t col = blockIdx.x % tiles * MERGE_COLS;
    int warp_row = (int)threadIdx.x / 128 * 32;
    int warp_col = (int)threadIdx.x / 32 % 4 * 32;
    float sums[2][4][4] = {};
    for (int64_t j = 0; j < job.rank; j += MERGE_DEPTH) {
        merge_stage(job, row, col, j, high, low, right);
        __syncthreads();
        merge_product(sums, high + warp_row * FACTOR_PITCH, low + warp_row * FACTOR_PITCH,
                      right + warp_col);
        __syncthreads();
    }
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2 * 4 * 2; i++) {
        int r = warp_row + i / 8 * 16 + i % 2 * 8 + lane / 4;
        int c = warp_col + i / 2 % 4 * 8 + lane % 4 * 2;
        shared[r * SUM_PITCH + c] = sums[i / 8][i / 2 % 4][i % 2 * 2];
        shared[r * SUM_PITCH + c + 1] = sums[i / 8][i / 2 % 4][i % 2 * 2 + 1];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x * 8; i < MERGE_ROWS * MERGE_COLS; i += MERGE_THREADS * 8) {
        int r = i / MERGE_COLS;
        int c = i % MERGE_COLS;
        if (row + r < job.rows && col + c < job.cols) {
            float v[8];
            lanes_get(v, shared + r * SUM_PITCH + c, 8, true, 0.0f);
            merge_store(job, row + r, col + c, v);
        }
    }
}

template <typename T, typename F>
static __global__ void __launch_bounds__(MERGE_THREADS) lora_merge_thin_kernel(merge_job<T, F> job)
{
    int64_t unit = (int64_t)blockIdx.x * MERGE_THREADS + threadIdx.x;
    int64_t row = unit / job.groups;
    int64_t col = unit % job.groups * THREAD_COLS;
    if (row >= job.rows) {
        return;
    }
    float sums[THREAD_COLS] = {};
    for (int64_t j = 0; j < job.rank; j++) {
        float gate = job.gates ? job.gates[j] : 1.0f;
        float factor = gate * elem_get(job.b + row * job.b_stride + j);
        float a[THREAD_COLS];
        lanes_get(a, job.a + j * job.a_stride + col, job.cols - col, job.a_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < THREAD_COLS; i++) {
            sums[i] = fmaf(factor, a[i], sums[i]);
        }
    }
    merge_store(job, row, col, sums);
}

template <typename T, typename F>
static void merge_launch(const struct meed_backend *be, struct meed_mat w, struct meed_mat b,
                         struct meed_mat a, const float *gates, struct meed_mat out)
{
    merge_job<T, F> job;
    job.w = (const T *)w.data;
    job.out = (T *)out.data;
    job.b = (const F *)b.data;
    job.a = (const F *)a.data;
    job.gates = gates;
    job.w_stride = w.stride;
    job.out_stride = out.stride;
    job.b_stride = b.stride;
    job.a_stride = a.stride;
    job.rows = w.rows;
    job.cols = w.cols;
    job.rank = b.cols;
    job.groups = (w.cols + THREAD_COLS - 1) / THREAD_COLS;
    job.w_aligned = lanes_aligned(w);
    job.out_aligned = lanes_aligned(out);
    job.a_aligned = lanes_aligned(a);
    bool thin = w.rows <= THIN_ROWS;
    int64_t blocks =
        thin ? (w.rows * job.groups + MERGE_THREADS - 1) / MERGE_THREADS
             : (w.rows + MERGE_ROWS - 1) / MERGE_ROWS * ((w.cols + MERGE_COLS - 1) / MERGE_COLS);
    MEED_ASSERT(blocks <= INT32_MAX);
    dim3 grid((unsigned)blocks);
    dim3 block(MERGE_THREADS);
    cudaStream_t stream = meed_cuda_stream(be);
    if (thin) {
        MEED_LAUNCH((lora_merge_thin_kernel<T, F>), grid, block, 0, stream, job);
    } else if constexpr (sizeof(T) == 2 && sizeof(F) == 2) {
        constexpr size_t BYTES = (size_t)MERGE_ROWS * SUM_PITCH * sizeof(float);
        static_assert(BYTES >= (2 * MERGE_ROWS * FACTOR_PITCH + MERGE_DEPTH * A_PITCH) * 2,
                      "tiles");
        MEED_LAUNCH((lora_merge_tensor_kernel), grid, block, BYTES, stream, job);
    } else {
        MEED_LAUNCH((lora_merge_tiled_kernel<T, F>), grid, block, 0, stream, job);
    }
    meed_cuda_check(be, cudaGetLastError(), "lora_merge");
}

extern "C" void meed_cuda_lora_merge(const struct meed_backend *be, struct meed_mat w,
                                     struct meed_mat b, struct meed_mat a, const float *gates,
                                     struct meed_mat out)
{
    MEED_ASSERT(b.rows == w.rows && a.cols == w.cols && a.rows == b.cols && a.dtype == b.dtype);
    MEED_ASSERT(out.rows == w.rows && out.cols == w.cols && out.dtype == w.dtype);
    if (w.rows == 0 || w.cols == 0) {
        return;
    }
    if (w.dtype == MEED_DTYPE_F32) {
        (a.dtype == MEED_DTYPE_F32 ? merge_launch<float, float>
                                   : merge_launch<float, meed_bf16>)(be, w, b, a, gates, out);
    } else {
        (a.dtype == MEED_DTYPE_F32 ? merge_launch<meed_bf16, float>
                                   : merge_launch<meed_bf16, meed_bf16>)(be, w, b, a, gates, out);
    }
}
