/* Weights into blocks and back (block_format.h), bit for bit what the twin writes.
 *
 * Unpacking is bound by memory: 0.56 or 1.06 bytes read and 2 or 4 written an element, before every
 * product of a quantised network. A thread takes eight bytes of codes in one load; that is eight
 * neighbours of int8, or eight low and eight high nibbles half a block apart. In bf16 each run of
 * eight is one 16-byte store, and four or eight threads fill a block, so stores stay coalesced. The
 * sixteen values of a four-bit format lie in shared memory: equal codes broadcast, others hit
 * different banks.
 *
 * Packing happens once, at load: a warp a block, a lane two elements 32 apart, the scale by a
 * shuffled maximum (exact in any order). Division and rounding are IEEE, as on the host.
 */
#include "kernels/cuda/lanes.cuh"

#include <float.h>

static constexpr int UNIT = 8; /* bytes of codes a thread takes at a time */
static constexpr int PACK_THREADS = 256;

template <typename T> struct pack_job {
    const T *w;
    uint8_t *codes;
    float *scales;
    int64_t stride;
    int64_t cols;
    int64_t row_blocks;
    int64_t blocks; /* of all rows */
    enum meed_block_format format;
    float peak;
    float bounds[MEED_BLOCK_BOOK - 1];
};

template <typename T>
static __device__ __forceinline__ uint32_t encode(const pack_job<T> &job, float ratio)
{
    if (job.format != MEED_BLOCK_NF4) {
        return (uint32_t)((int)rintf(ratio) + (job.format == MEED_BLOCK_INT4 ? 8 : 0));
    }
    uint32_t code = 0;
#pragma unroll
    for (int i = 0; i + 1 < MEED_BLOCK_BOOK; i++) {
        code += ratio > job.bounds[i] ? 1u : 0u;
    }
    return code;
}

template <typename T>
static __global__ void __launch_bounds__(PACK_THREADS) block_pack_kernel(pack_job<T> job)
{
    int lane = (int)threadIdx.x % 32;
    int64_t at = (int64_t)blockIdx.x * (PACK_THREADS / 32) + threadIdx.x / 32;
    if (at >= job.blocks) {
        return;
    }
    int64_t col = at % job.row_blocks * MEED_BLOCK + lane;
    const T *from = job.w + at / job.row_blocks * job.stride + col;
    float low = col < job.cols ? elem_get(from) : 0.0f;
    float high = col + MEED_BLOCK_HALF < job.cols ? elem_get(from + MEED_BLOCK_HALF) : 0.0f;
    float peak = fmaxf(fabsf(low), fabsf(high));
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        peak = fmaxf(peak, __shfl_xor_sync(0xFFFFFFFFu, peak, step));
    }
    float scale = peak / job.peak;
    bool zero = !(scale >= FLT_MIN);
    float divisor = zero ? 1.0f : scale;
    uint32_t first = encode(job, zero ? 0.0f : low / divisor);
    uint32_t second = encode(job, zero ? 0.0f : high / divisor);
    if (lane == 0) {
        job.scales[at] = zero ? 0.0f : scale;
    }
    if (job.format == MEED_BLOCK_INT8) {
        job.codes[at * MEED_BLOCK + lane] = (uint8_t)first;
        job.codes[at * MEED_BLOCK + MEED_BLOCK_HALF + lane] = (uint8_t)second;
    } else {
        job.codes[at * MEED_BLOCK_HALF + lane] = (uint8_t)(first | second << 4);
    }
}

template <typename T>
static void pack_launch(const struct meed_backend *be, struct meed_mat w, struct meed_blocks out)
{
    pack_job<T> job;
    job.w = (const T *)w.data;
    job.codes = out.codes;
    job.scales = out.scales;
    job.stride = w.stride;
    job.cols = w.cols;
    job.row_blocks = meed_blocks_per_row(w.cols);
    job.blocks = w.rows * job.row_blocks;
    job.format = out.format;
    job.peak = meed_block_peak(out.format);
    meed_block_bounds(job.bounds);
    int64_t grid = (job.blocks + PACK_THREADS / 32 - 1) / (PACK_THREADS / 32);
    MEED_ASSERT(grid <= INT32_MAX);
    MEED_LAUNCH((block_pack_kernel<T>), dim3((unsigned)grid), dim3(PACK_THREADS), 0,
                meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "block_pack");
}

extern "C" void meed_cuda_block_pack(const struct meed_backend *be, struct meed_mat w,
                                     struct meed_blocks out)
{
    MEED_ASSERT(out.format != MEED_BLOCK_NONE && out.rows == w.rows && out.cols == w.cols);
    if (w.rows > 0 && w.cols > 0) {
        (w.dtype == MEED_DTYPE_F32 ? pack_launch<float> : pack_launch<meed_bf16>)(be, w, out);
    }
}

template <typename T> struct unpack_job {
    const uint8_t *codes;
    const float *scales;
    const T *tail;
    T *out;
    int64_t rows;
    int64_t cols; /* K */
    int64_t row_blocks;
    int64_t out_stride;
    int64_t tail_stride;
    int64_t tail_cols;
    bool aligned;
    bool tail_aligned;
    float book[MEED_BLOCK_BOOK];
};

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) block_unpack_kernel(unpack_job<T> job)
{
    constexpr int BYTES = WIDE ? MEED_BLOCK : MEED_BLOCK_HALF;
    MEED_SHARED(float[MEED_BLOCK_BOOK], book);
    if (threadIdx.y == 0 && threadIdx.x < MEED_BLOCK_BOOK) {
        book[threadIdx.x] = job.book[threadIdx.x];
    }
    __syncthreads();
    sweep<UNIT>(job.rows, job.row_blocks * BYTES, [&](int64_t row, int64_t byte) {
        int64_t block = row * job.row_blocks + byte / BYTES;
        int64_t col = byte / BYTES * MEED_BLOCK + byte % BYTES;
        float scale = job.scales[block];
        uint2 raw = *(const uint2 *)(job.codes + block * BYTES + byte % BYTES);
        float low[UNIT];
        float high[UNIT];
#pragma unroll
        for (int i = 0; i < UNIT; i++) {
            uint32_t code = (i < 4 ? raw.x : raw.y) >> 8 * (i % 4) & 0xFFu;
            low[i] = scale * (WIDE ? (float)(int8_t)code : book[code & 15u]);
            high[i] = WIDE ? 0.0f : scale * book[code >> 4];
        }
        T *to = job.out + row * job.out_stride + col;
        if (col < job.cols) {
            lanes_put(to, low, job.cols - col, job.aligned);
        }
        if (!WIDE && col + MEED_BLOCK_HALF < job.cols) {
            lanes_put(to + MEED_BLOCK_HALF, high, job.cols - col - MEED_BLOCK_HALF, job.aligned);
        }
    });
}

template <typename T>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) tail_copy_kernel(unpack_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    sweep<N>(job.rows, job.tail_cols, [&](int64_t row, int64_t col) {
        float v[N];
        lanes_get(v, job.tail + row * job.tail_stride + col, job.tail_cols - col, job.tail_aligned,
                  0.0f);
        lanes_put(job.out + row * job.out_stride + job.cols + col, v, job.tail_cols - col,
                  job.aligned && job.cols % N == 0);
    });
}

template <typename T>
static void unpack_launch(const struct meed_backend *be, struct meed_blocks blocks,
                          struct meed_mat tail, struct meed_mat out)
{
    unpack_job<T> job;
    bool wide = blocks.format == MEED_BLOCK_INT8;
    job.codes = blocks.codes;
    job.scales = blocks.scales;
    job.tail = (const T *)tail.data;
    job.out = (T *)out.data;
    job.rows = blocks.rows;
    job.cols = blocks.cols;
    job.row_blocks = meed_blocks_per_row(blocks.cols);
    job.out_stride = out.stride;
    job.tail_stride = tail.stride;
    job.tail_cols = tail.cols;
    job.aligned = lanes_aligned(out);
    job.tail_aligned = lanes_aligned(tail);
    meed_block_book(blocks.format, job.book);
    dim3 grid = sweep_grid(job.rows, job.row_blocks * meed_block_bytes(blocks.format), UNIT);
    if (wide) {
        MEED_LAUNCH((block_unpack_kernel<T, true>), grid, sweep_block(), 0, meed_cuda_stream(be),
                    job);
    } else {
        MEED_LAUNCH((block_unpack_kernel<T, false>), grid, sweep_block(), 0, meed_cuda_stream(be),
                    job);
    }
    if (tail.cols > 0) {
        grid = sweep_grid(job.rows, tail.cols, LANE_COUNT<T>);
        MEED_LAUNCH((tail_copy_kernel<T>), grid, sweep_block(), 0, meed_cuda_stream(be), job);
    }
    meed_cuda_check(be, cudaGetLastError(), "block_unpack");
}

extern "C" void meed_cuda_block_unpack(const struct meed_backend *be, struct meed_blocks blocks,
                                       struct meed_mat tail, struct meed_mat out)
{
    MEED_ASSERT(blocks.format != MEED_BLOCK_NONE && out.rows == blocks.rows);
    MEED_ASSERT(out.cols == blocks.cols + tail.cols);
    MEED_ASSERT(tail.cols == 0 || (tail.rows == out.rows && tail.dtype == out.dtype));
    if (out.rows > 0 && blocks.cols > 0) {
        (out.dtype == MEED_DTYPE_F32 ? unpack_launch<float> : unpack_launch<meed_bf16>)(be, blocks,
                                                                                        tail, out);
    }
}
