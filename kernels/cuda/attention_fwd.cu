/* Causal grouped-query attention over packed sequences, forward.
 *
 * A block takes 128 query rows of one sequence and one head: four warps of 32 rows each
 * (attention.cuh says why 32), and walks the keys from position 0, or the block where the window of
 * its first row begins, to the diagonal in blocks of 64.
 *
 * Cost: 4·D FLOPs per visible (row, key) pair and head, on tensor cores, and one exp2; K and V of a
 * sequence are read length/128 times per head, which at length 8,192 and D 128 is 64 · 4 MB for
 * 34 GFLOP: L2 serves it. Shared memory at D 128 is 128 + 64 + 64 rows of 272 bytes = 68 KB, so two
 * blocks share a multiprocessor of sm_80 (164 KB), as their 255 registers a thread also ask; one
 * block's softmax hides behind the other's products. At D 64: 36 KB.
 *
 * Blocks with the most keys are issued first, since the last wave decides: the grid counts tiles
 * down, and the heads of one tile, which share keys, run side by side.
 *
 * The sum of a row is of unrounded fp32 probabilities, P·V of bf16 ones; their roundings are
 * independent of the output's and as large, so the error is about 1.4 times one rounding.
 * Limit: `scale` must be positive (maxima are taken before scaling).
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_plain.cuh"
#include "kernels/cuda/tail.cuh"

static constexpr int32_t FWD_THREADS = 128;
static constexpr int32_t FWD_TILES = 2; /* m tiles of 16 rows a warp */
static constexpr int32_t FWD_ROWS = FWD_THREADS / 32 * 16 * FWD_TILES;

struct fwd_job {
    const void *qkv; /* [M, (H + 2G)·D] */
    void *out;       /* [M, H·D] */
    float *lse;      /* [M, H] or NULL */
    const int32_t *starts;
    int64_t qkv_stride;
    int64_t out_stride;
    int32_t sequences;
    int32_t heads;
    int32_t kv_heads;
    int32_t size;
    int32_t window;
    float scale;
    bool qkv_aligned;
    bool out_aligned;
};

/* Writes rows [first, first + count) of a warp: outputs, then lse by the first lane of each quad.
 */
template <int D>
static __device__ __forceinline__ void fwd_finish(const struct fwd_job &job, meed_bf16 *rows,
                                                  struct attend_state<D, FWD_TILES> &state,
                                                  int64_t first, int32_t count, int32_t head)
{
    float factor[FWD_TILES][2];
    int32_t lane = (int32_t)(threadIdx.x & 31);
#pragma unroll
    for (int i = 0; i < FWD_TILES * 2; i++) {
        int m = i / 2;
        int h = i % 2;
        float sum = attend_quad_sum(state.sum[m][h]);
        int32_t row = 16 * m + 8 * h + lane / 4;
        factor[m][h] = 1.0f / sum;
        if (job.lse && lane % 4 == 0 && row < count) {
            job.lse[(first + row) * job.heads + head] =
                fmaf(state.peak[m][h], job.scale, logf(sum));
        }
    }
    attend_stage<D, FWD_TILES>(rows, state.out, factor);
    meed_bf16 *out = (meed_bf16 *)job.out + first * job.out_stride + (int64_t)head * job.size;
    attend_store<D>(rows, count, job.size, job.out_aligned,
                    [=](int32_t row) { return out + row * job.out_stride; });
}

template <int D>
__global__ void __launch_bounds__(FWD_THREADS, 2) attention_fwd_kernel(struct fwd_job job)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    MEED_DYN_SHARED(meed_bf16, q_tile);
    meed_bf16 *k_tile = q_tile + FWD_ROWS * PITCH;
    meed_bf16 *v_tile = k_tile + ATTEND_KEYS * PITCH;
    struct attend_tile tile = attend_tile_find<FWD_ROWS>(job.starts, job.sequences,
                                                         (int32_t)(gridDim.y - 1 - blockIdx.y));
    if (tile.first < tile.length) {
        int32_t head = (int32_t)blockIdx.x;
        int32_t group = head / (job.heads / job.kv_heads);
        const meed_bf16 *base = (const meed_bf16 *)job.qkv + tile.start * job.qkv_stride;
        struct attend_rows q = {base + (int64_t)head * job.size, job.qkv_stride, job.size,
                                job.qkv_aligned};
        struct attend_keys keys;
        keys.k = q;
        keys.k.data = base + (int64_t)(job.heads + group) * job.size;
        keys.v = keys.k;
        keys.v.data += (int64_t)job.kv_heads * job.size;
        keys.length = tile.length;
        keys.window = job.window;
        keys.scale = job.scale * ATTEND_LOG2E;
        int32_t begin = attend_reach(tile.first, job.window, ATTEND_KEYS);
        attend_load<D, FWD_ROWS, FWD_THREADS>(q_tile, q, tile.first, tile.length);
        attend_load<D, ATTEND_KEYS, FWD_THREADS>(k_tile, keys.k, begin, tile.length);
        meed_cp_async_commit();

        int32_t warp_row = (int32_t)(threadIdx.x / 32) * 16 * FWD_TILES;
        int32_t first = tile.first + warp_row;
        meed_bf16 *rows = q_tile + warp_row * PITCH;
        int32_t position = first + (int32_t)(threadIdx.x & 31) / 4;
        keys.limit_min = first;
        keys.limit_max = first + 16 * FWD_TILES - 1;
        struct attend_state<D, FWD_TILES> state;
        attend_reset<D, FWD_TILES>(state);
        int32_t end = MEED_MIN(tile.first + FWD_ROWS, tile.length);
        attend_range<D, FWD_TILES, FWD_THREADS>(
            state, rows, k_tile, v_tile, keys, [=](int i) { return position + 8 * i; }, begin, end,
            end);
        int32_t count = MEED_MIN(16 * FWD_TILES, tile.length - first);
        fwd_finish<D>(job, rows, state, tile.start + first, count, head);
    }
}

template <typename T>
__global__ void __launch_bounds__(PLAIN_THREADS) attention_fwd_plain_kernel(struct fwd_job job)
{
    MEED_DYN_SHARED(float, shared);
    struct attend_tile tile = attend_tile_find<PLAIN_WARPS>(job.starts, job.sequences,
                                                            (int32_t)(gridDim.y - 1 - blockIdx.y));
    if (tile.first < tile.length) {
        int32_t head = (int32_t)blockIdx.x;
        int32_t group = head / (job.heads / job.kv_heads);
        int32_t position = tile.first + (int32_t)(threadIdx.x / 32);
        int64_t row = tile.start + position;
        const T *base = (const T *)job.qkv + tile.start * job.qkv_stride;
        struct plain_task<T, T> task;
        task.q = (const T *)job.qkv + row * job.qkv_stride + (int64_t)head * job.size;
        task.k = base + (int64_t)(job.heads + group) * job.size;
        task.v = task.k + (int64_t)job.kv_heads * job.size;
        task.kv_stride = job.qkv_stride;
        task.out = (T *)job.out + row * job.out_stride + (int64_t)head * job.size;
        task.lse = job.lse ? job.lse + row * job.heads + head : NULL;
        task.size = job.size;
        task.first = attend_reach(tile.first, job.window, PLAIN_KEYS);
        task.keys = MEED_MIN(tile.first + PLAIN_WARPS, tile.length);
        task.window = job.window;
        task.limit = position < tile.length ? position : -1;
        task.scale = job.scale;
        plain_attend(shared, task);
    }
}

template <int D>
static void fwd_launch(const struct meed_backend *be, const struct fwd_job &job, int64_t rows)
{
    dim3 grid((uint32_t)job.heads, (uint32_t)attend_tile_count(rows, job.sequences, FWD_ROWS));
    size_t bytes = (size_t)(FWD_ROWS + 2 * ATTEND_KEYS) * (D + ATTEND_CHUNK) * sizeof(meed_bf16);
    MEED_LAUNCH((attention_fwd_kernel<D>), grid, dim3(FWD_THREADS), bytes, meed_cuda_stream(be),
                job);
}
template <typename T>
static void fwd_launch_plain(const struct meed_backend *be, const struct fwd_job &job, int64_t rows)
{
    dim3 grid((uint32_t)job.heads, (uint32_t)attend_tile_count(rows, job.sequences, PLAIN_WARPS));
    MEED_LAUNCH((attention_fwd_plain_kernel<T>), grid, dim3(PLAIN_THREADS),
                plain_attend_bytes(job.size), meed_cuda_stream(be), job);
}

static void fwd_dispatch(const struct meed_backend *be, const struct fwd_job &job, int64_t rows,
                         enum meed_dtype dtype)
{
    if (!attend_on_tensor_cores(dtype, job.size)) {
        dtype == MEED_DTYPE_F32 ? fwd_launch_plain<float>(be, job, rows)
                                : fwd_launch_plain<meed_bf16>(be, job, rows);
    } else if (job.size <= 32) {
        fwd_launch<32>(be, job, rows);
    } else if (job.size <= 64) {
        fwd_launch<64>(be, job, rows);
    } else if (job.size <= 96) {
        fwd_launch<96>(be, job, rows);
    } else {
        fwd_launch<128>(be, job, rows);
    }
}

extern "C" void meed_cuda_attention_fwd(const struct meed_backend *be, struct meed_mat qkv,
                                        struct meed_attention_shape shape,
                                        const struct meed_pack *pack, const struct meed_tail *tail,
                                        struct meed_mat out, float *lse)
{
    int64_t width = (int64_t)shape.heads * shape.head_dim;
    attend_check(qkv, shape, tail, out);
    if (qkv.rows > 0 && pack->sequences > 0) {
        struct fwd_job job;
        job.qkv = qkv.data;
        job.out = out.data;
        job.lse = lse;
        job.starts = pack->starts;
        job.qkv_stride = qkv.stride;
        job.out_stride = out.stride;
        job.sequences = pack->sequences;
        job.heads = shape.heads;
        job.kv_heads = shape.kv_heads;
        job.size = shape.head_dim;
        job.window = attend_window(shape);
        job.scale = shape.scale;
        job.qkv_aligned = attend_aligned(qkv.data, qkv.stride);
        job.out_aligned = attend_aligned(out.data, out.stride);
        fwd_dispatch(be, job, qkv.rows, qkv.dtype);
        meed_cuda_check(be, cudaGetLastError(), "attention_fwd");
    }
    meed_cuda_tail_apply(be, out, width, tail);
}
