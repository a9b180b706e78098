/* Attention of new rows against a paged KV cache. A page is [G, 64, D], of k and of v: what a block
 * reads of a page lies together.
 *
 * First every row's k and v go into the cache, in a kernel of their own: a prompt's rows may then
 * attend to each other in any order. Then blocks of 64 (row, head) pairs attend. The query heads of
 * a group share their keys, and rows that continue each other in one slot (a prompt) do too, so a
 * block takes a run of up to 64·G/H such rows; a single row of a batch is a run of one and its
 * H/G heads are the rows of the tile. Blocks whose row continues a run end at once: host and
 * scheduler need to know neither slots nor positions, and the launch is the same for every step.
 *
 * Keys are cut into parts of 256 positions. A part starts with an empty state, and parts are merged
 * in order: a function of the row's own position and of nothing else. So one block may do all parts
 * of a run in sequence (many rows) or each part may have its own block, with the states in scratch
 * and a second kernel that merges (few rows); both do the same operations on the same numbers, and
 * the host chooses by the number of blocks alone. The explicit fmaf in the merge keep the compiler
 * from contracting the two differently.
 *
 * A step is bound by reading the cache: 4·D bytes a position and group. One warp's products on a
 * 64-key block take 1,024 cycles at D 128 for 32 KB, so even one busy warp a multiprocessor keeps
 * up with its 15 bytes per cycle of memory; three blocks (52 KB of shared memory each) keep 50 to
 * 100 KB in flight. A chunk of a prompt runs at the forward's rate with half its fragment reuse.
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_plain.cuh"
#include "kernels/cuda/tail.cuh"

static constexpr int32_t DECODE_THREADS = 128;
static constexpr int32_t DECODE_PAIRS = 64;
static constexpr int32_t DECODE_PART = 256;
static constexpr int32_t DECODE_DEPTH_MAX = 1024; /* blocks for the parts of one run */
static constexpr size_t DECODE_SCRATCH_MAX = (size_t)64 << 20;
static_assert(DECODE_PART % ATTEND_KEYS == 0, "parts are whole key blocks");

struct decode_job {
    const void *qkv; /* [M, (H + 2G)·D] */
    void *out;       /* [M, H·D] */
    void *k;         /* [pages, G, 64, D] */
    void *v;
    const int32_t *table;     /* [slots, slot_pages] */
    const int32_t *slots;     /* [M] */
    const int32_t *positions; /* [M] */
    float *part_out;          /* [M, H, parts, D] */
    float *part_peak;         /* [M, H, parts] */
    float *part_sum;          /* [M, H, parts] */
    int64_t qkv_stride;
    int64_t out_stride;
    int32_t slot_pages;
    int32_t window;
    int32_t rows;
    int32_t parts;
    int32_t heads;
    int32_t kv_heads;
    int32_t size;
    float scale;
    bool qkv_aligned;
    bool out_aligned;
    bool cache_aligned;
};

static __device__ __forceinline__ const int32_t *decode_pages(const struct decode_job &job,
                                                              int32_t row)
{
    return job.table + (int64_t)job.slots[row] * job.slot_pages;
}
static __device__ __forceinline__ int64_t decode_page_elements(const struct decode_job &job)
{
    return (int64_t)job.kv_heads * MEED_KV_PAGE * job.size;
}
/* Where element i of [G, D] of a row lies in the cache. */
static __device__ __forceinline__ int64_t decode_place(const struct decode_job &job, int32_t row,
                                                       int32_t i)
{
    int32_t position = job.positions[row];
    int64_t page = decode_pages(job, row)[position / MEED_KV_PAGE];
    return page * decode_page_elements(job) +
           ((int64_t)(i / job.size) * MEED_KV_PAGE + position % MEED_KV_PAGE) * job.size +
           i % job.size;
}
/* First position that the row at `position` sees. */
static __device__ __forceinline__ int32_t decode_floor(const struct decode_job &job,
                                                       int32_t position)
{
    return MEED_MAX(0, position - job.window + 1);
}

/* One block per row, element by element. */
template <typename From, typename To>
__global__ void __launch_bounds__(DECODE_THREADS) decode_append_kernel(struct decode_job job)
{
    int64_t row = blockIdx.x;
    int32_t width = job.kv_heads * job.size;
    const From *k = (const From *)job.qkv + row * job.qkv_stride + (int64_t)job.heads * job.size;
    const From *v = k + width;
    for (int32_t i = (int32_t)threadIdx.x; i < width; i += DECODE_THREADS) {
        int64_t to = decode_place(job, (int32_t)row, i);
        plain_put((To *)job.k + to, plain_get(k + i));
        plain_put((To *)job.v + to, plain_get(v + i));
    }
}
/* The same for aligned bf16 rows, 16 bytes at a time. */
__global__ void __launch_bounds__(DECODE_THREADS) decode_append_chunks_kernel(struct decode_job job)
{
    int64_t row = blockIdx.x;
    int32_t width = job.kv_heads * job.size;
    const meed_bf16 *k =
        (const meed_bf16 *)job.qkv + row * job.qkv_stride + (int64_t)job.heads * job.size;
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x * ATTEND_CHUNK; i < width;
         i += DECODE_THREADS * ATTEND_CHUNK) {
        int64_t to = decode_place(job, (int32_t)row, i);
        *reinterpret_cast<uint4 *>((meed_bf16 *)job.k + to) =
            *reinterpret_cast<const uint4 *>(k + i);
        *reinterpret_cast<uint4 *>((meed_bf16 *)job.v + to) =
            *reinterpret_cast<const uint4 *>(k + width + i);
    }
}

/* Does row m continue the run of the row before it? Runs are cut at multiples of `length` rows. */
static __device__ __forceinline__ bool decode_continues(const struct decode_job &job, int32_t row,
                                                        int32_t length)
{
    return row % length != 0 && job.slots[row] == job.slots[row - 1] &&
           job.positions[row] == job.positions[row - 1] + 1;
}
/* Rows of the run that begins at `row`; 0 if `row` continues another. */
static __device__ __forceinline__ int32_t decode_run(const struct decode_job &job, int32_t row)
{
    int32_t length = MEED_MAX(1, DECODE_PAIRS / (job.heads / job.kv_heads));
    int32_t lane = (int32_t)(threadIdx.x & 31);
    int32_t count = decode_continues(job, row, length) ? 0 : 1;
    bool open = count > 0;
    while (open) {
        int32_t next = row + count + lane;
        uint32_t votes =
            __ballot_sync(0xFFFFFFFFu, next < job.rows && decode_continues(job, next, length));
        count += __popc(votes & ~(votes + 1));
        open = votes == 0xFFFFFFFFu;
    }
    return count;
}

/* Where pair p of a run lies: row p / (H/G), head p mod (H/G) of the group. */
static __device__ __forceinline__ int64_t decode_offset(const struct decode_job &job, int32_t row,
                                                        int32_t pair, int64_t stride)
{
    int32_t heads = job.heads / job.kv_heads;
    return (int64_t)(row + pair / heads) * stride +
           (int64_t)((int32_t)blockIdx.y * heads + pair % heads) * job.size;
}

template <int D>
static __device__ __forceinline__ void
decode_load_queries(const struct decode_job &job, meed_bf16 *tile, int32_t row, int32_t pairs)
{
    constexpr int CHUNKS = D / ATTEND_CHUNK;
    constexpr int PITCH = D + ATTEND_CHUNK;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < DECODE_PAIRS * CHUNKS; i += DECODE_THREADS) {
        int pair = i / CHUNKS;
        int col = i % CHUNKS * ATTEND_CHUNK;
        bool real = pair < pairs && col < job.size;
        const meed_bf16 *from = (const meed_bf16 *)job.qkv;
        meed_bf16 *to = tile + pair * PITCH + col;
        from += real ? decode_offset(job, row, pair, job.qkv_stride) + col : 0;
        if (job.qkv_aligned) {
            meed_cp_async16(to, from, real ? 16 : 0);
        } else {
            for (int j = 0; j < ATTEND_CHUNK; j++) {
                to[j] = real ? from[j] : (meed_bf16)0;
            }
        }
    }
}

/* Merging a part into what came before it: both sides' factors, and the new maximum. */
static __device__ __forceinline__ void decode_factors(float &peak, float part_peak, float scale,
                                                      float &keep, float &take)
{
    float top = fmaxf(peak, part_peak);
    keep = meed_exp2f((peak - top) * scale);
    take = meed_exp2f((part_peak - top) * scale);
    peak = top;
}

/* Whether a row whose last key is `limit` sees anything of a part. */
static __device__ __forceinline__ bool decode_sees(const struct decode_job &job, int32_t limit,
                                                   int32_t part)
{
    return limit >= part * DECODE_PART && decode_floor(job, limit) < (part + 1) * DECODE_PART;
}

template <int D>
static __device__ __forceinline__ void
decode_merge(const struct decode_job &job, struct attend_state<D, 1> &total,
             const struct attend_state<D, 1> &state, const int32_t (&limit)[2], int32_t part,
             float scale)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = attend_quad_sum(state.sum[0][h]);
        if (decode_sees(job, limit[h], part)) {
            float keep;
            float take;
            decode_factors(total.peak[0][h], state.peak[0][h], scale, keep, take);
            total.sum[0][h] = fmaf(sum, take, total.sum[0][h] * keep);
#pragma unroll
            for (int i = 0; i < D / 4; i++) {
                float *out = &total.out[0][i / 2][2 * h + i % 2];
                *out = fmaf(state.out[0][i / 2][2 * h + i % 2], take, *out * keep);
            }
        }
    }
}

/* The state of one part of each pair of this warp that looks into it, to scratch. */
template <int D>
static __device__ __forceinline__ void
decode_save(const struct decode_job &job, const struct attend_state<D, 1> &state, int32_t row,
            int32_t first, int32_t pairs, const int32_t (&limit)[2], int32_t part)
{
    int32_t lane = (int32_t)(threadIdx.x & 31);
    int32_t heads = job.heads / job.kv_heads;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = attend_quad_sum(state.sum[0][h]);
        int32_t pair = first + 8 * h + lane / 4;
        if (pair < pairs && decode_sees(job, limit[h], part)) {
            int64_t at = (int64_t)(row + pair / heads) * job.heads + (int32_t)blockIdx.y * heads +
                         pair % heads;
            at = at * job.parts + part;
            if (lane % 4 == 0) {
                job.part_peak[at] = state.peak[0][h];
                job.part_sum[at] = sum;
            }
            float *out = job.part_out + at * job.size + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                if (n * 8 < job.size) {
                    *reinterpret_cast<float2 *>(out + n * 8) =
                        make_float2(state.out[0][n][2 * h], state.out[0][n][2 * h + 1]);
                }
            }
        }
    }
}

/* One run of rows and one group of heads. WHOLE: all parts, merged, to the output. Otherwise parts
 * blockIdx.z, + gridDim.z, … to scratch. */
template <int D, bool WHOLE>
__global__ void __launch_bounds__(DECODE_THREADS, WHOLE ? 2 : 3)
    decode_kernel(struct decode_job job)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    MEED_DYN_SHARED(meed_bf16, q_tile);
    meed_bf16 *k_tile = q_tile + DECODE_PAIRS * PITCH;
    meed_bf16 *v_tile = k_tile + ATTEND_KEYS * PITCH;
    int32_t row = (int32_t)blockIdx.x;
    int32_t run = decode_run(job, row);
    int32_t position = job.positions[row];
    int32_t last = position + run - 1;
    int32_t floor = decode_floor(job, position); /* what the run's first row sees first */
    int32_t part = floor / DECODE_PART;
    if (!WHOLE) {
        part += (int32_t)blockIdx.z;
    }
    if (run > 0 && part * DECODE_PART <= last) {
        int32_t heads = job.heads / job.kv_heads;
        int32_t pairs = run * heads;
        int32_t first = (int32_t)(threadIdx.x / 32) * 16;
        int32_t pair = first + (int32_t)(threadIdx.x & 31) / 4;
        const int32_t limit[2] = {position + MEED_MIN(pair, pairs - 1) / heads,
                                  position + MEED_MIN(pair + 8, pairs - 1) / heads};
        int64_t group = (int64_t)blockIdx.y * MEED_KV_PAGE * job.size;
        struct attend_keys keys;
        keys.k.data = (const meed_bf16 *)job.k + group;
        keys.k.stride = job.size;
        keys.k.size = job.size;
        keys.k.aligned = job.cache_aligned;
        keys.k.pages = decode_pages(job, row);
        keys.k.page_stride = decode_page_elements(job);
        keys.v = keys.k;
        keys.v.data = (const meed_bf16 *)job.v + group;
        keys.length = last + 1;
        keys.limit_min = position + first / heads;
        keys.limit_max = first < pairs ? position + MEED_MIN(first + 15, pairs - 1) / heads : -1;
        keys.scale = job.scale * ATTEND_LOG2E;
        keys.window = job.window;
        decode_load_queries<D>(job, q_tile, row, pairs);
        struct attend_state<D, 1> total;
        attend_reset<D, 1>(total);
        bool fresh = true;
#pragma unroll 1
        for (; part * DECODE_PART <= last; part += WHOLE ? 1 : (int32_t)gridDim.z) {
            int32_t begin = MEED_MAX(part * DECODE_PART, floor / ATTEND_KEYS * ATTEND_KEYS);
            int32_t end = MEED_MIN((part + 1) * DECODE_PART, last + 1);
            if (fresh) {
                attend_load<D, ATTEND_KEYS, DECODE_THREADS>(k_tile, keys.k, begin, keys.length);
                meed_cp_async_commit();
                fresh = !WHOLE;
            }
            struct attend_state<D, 1> state;
            attend_reset<D, 1>(state);
            attend_range<D, 1, DECODE_THREADS>(
                state, q_tile + first * PITCH, k_tile, v_tile, keys,
                [=](int i) { return limit[i]; }, begin, end, WHOLE ? last + 1 : end);
            if (WHOLE) {
                decode_merge<D>(job, total, state, limit, part, keys.scale);
            } else {
                decode_save<D>(job, state, row, first, pairs, limit, part);
            }
        }
        if (WHOLE) {
            float factor[1][2] = {{1.0f / total.sum[0][0], 1.0f / total.sum[0][1]}};
            attend_stage<D, 1>(q_tile + first * PITCH, total.out, factor);
            meed_bf16 *out = (meed_bf16 *)job.out;
            attend_store<D>(q_tile + first * PITCH, MEED_MIN(16, pairs - first), job.size,
                            job.out_aligned, [=](int32_t i) {
                                return out + decode_offset(job, row, first + i, job.out_stride);
                            });
        }
    }
}

/* A warp merges the parts of one row and head. */
__global__ void __launch_bounds__(DECODE_THREADS) decode_combine_kernel(struct decode_job job)
{
    int64_t pair = (int64_t)blockIdx.x * (DECODE_THREADS / 32) + threadIdx.x / 32;
    if (pair < (int64_t)job.rows * job.heads) {
        int64_t row = pair / job.heads;
        int64_t head = pair % job.heads;
        int32_t first = decode_floor(job, job.positions[row]) / DECODE_PART;
        int32_t parts = job.positions[row] / DECODE_PART + 1;
        float scale = job.scale * ATTEND_LOG2E;
        meed_bf16 *to = (meed_bf16 *)job.out + row * job.out_stride + head * job.size;
        for (int32_t d = (int32_t)(threadIdx.x & 31); d < job.size; d += 32) {
            float peak = -INFINITY;
            float sum = 0.0f;
            float out = 0.0f;
            for (int32_t part = first; part < parts; part++) {
                int64_t at = pair * job.parts + part;
                float keep;
                float take;
                decode_factors(peak, job.part_peak[at], scale, keep, take);
                sum = fmaf(job.part_sum[at], take, sum * keep);
                out = fmaf(job.part_out[at * job.size + d], take, out * keep);
            }
            float factor = 1.0f / sum;
            to[d] = meed_float_bf16(out * factor);
        }
    }
}

/* One block per row, group and eight of the group's heads. */
template <typename T, typename C>
__global__ void __launch_bounds__(PLAIN_THREADS) decode_plain_kernel(struct decode_job job)
{
    MEED_DYN_SHARED(float, shared);
    int32_t heads = job.heads / job.kv_heads;
    int32_t in_group = (int32_t)blockIdx.z * PLAIN_WARPS + (int32_t)(threadIdx.x / 32);
    int64_t head = (int64_t)blockIdx.y * heads + in_group;
    int64_t row = blockIdx.x;
    int64_t group = (int64_t)blockIdx.y * MEED_KV_PAGE * job.size;
    struct plain_task<T, C> task;
    task.q = (const T *)job.qkv + row * job.qkv_stride + head * job.size;
    task.k = (const C *)job.k + group;
    task.v = (const C *)job.v + group;
    task.kv_stride = job.size;
    task.out = (T *)job.out + row * job.out_stride + head * job.size;
    task.lse = NULL;
    task.size = job.size;
    task.keys = job.positions[row] + 1;
    task.limit = in_group < heads ? job.positions[row] : -1;
    task.scale = job.scale;
    task.first = decode_floor(job, job.positions[row]) / PLAIN_KEYS * PLAIN_KEYS;
    task.window = job.window;
    task.pages = decode_pages(job, (int32_t)row);
    task.page_stride = decode_page_elements(job);
    plain_attend(shared, task);
}

template <typename T, typename C>
static void decode_launch_plain(const struct meed_backend *be, const struct decode_job &job)
{
    int32_t heads = job.heads / job.kv_heads;
    dim3 grid((uint32_t)job.rows, (uint32_t)job.kv_heads,
              (uint32_t)((heads + PLAIN_WARPS - 1) / PLAIN_WARPS));
    MEED_LAUNCH((decode_append_kernel<T, C>), dim3((uint32_t)job.rows), dim3(DECODE_THREADS), 0,
                meed_cuda_stream(be), job);
    MEED_LAUNCH((decode_plain_kernel<T, C>), grid, dim3(PLAIN_THREADS),
                plain_attend_bytes(job.size), meed_cuda_stream(be), job);
}

/* Parts get their own blocks where whole runs would leave multiprocessors idle. */
static bool decode_in_parts(const struct meed_backend *be, struct decode_job &job)
{
    const struct meed_cuda_state *state = (const struct meed_cuda_state *)be->state;
    size_t states = (size_t)job.rows * (size_t)job.heads * (size_t)job.parts;
    size_t bytes = states * (size_t)(job.size + 2) * sizeof(float);
    if (job.parts == 1 || bytes > DECODE_SCRATCH_MAX ||
        (int64_t)job.rows * job.kv_heads >= 4 * (int64_t)state->sm_count) {
        return false;
    }
    job.part_out = (float *)meed_cuda_scratch(be, bytes);
    job.part_peak = job.part_out + states * (size_t)job.size;
    job.part_sum = job.part_peak + states;
    return job.part_out != NULL;
}

template <int D> static void decode_launch(const struct meed_backend *be, struct decode_job &job)
{
    size_t bytes =
        (size_t)(DECODE_PAIRS + 2 * ATTEND_KEYS) * (D + ATTEND_CHUNK) * sizeof(meed_bf16);
    cudaStream_t stream = meed_cuda_stream(be);
    dim3 rows((uint32_t)job.rows);
    if (job.qkv_aligned && job.cache_aligned) {
        MEED_LAUNCH((decode_append_chunks_kernel), rows, dim3(DECODE_THREADS), 0, stream, job);
    } else {
        MEED_LAUNCH((decode_append_kernel<meed_bf16, meed_bf16>), rows, dim3(DECODE_THREADS), 0,
                    stream, job);
    }
    if (decode_in_parts(be, job)) {
        dim3 grid((uint32_t)job.rows, (uint32_t)job.kv_heads,
                  (uint32_t)MEED_MIN(job.parts, DECODE_DEPTH_MAX));
        int64_t warps = (int64_t)job.rows * job.heads;
        int64_t blocks = (warps + DECODE_THREADS / 32 - 1) / (DECODE_THREADS / 32);
        MEED_LAUNCH((decode_kernel<D, false>), grid, dim3(DECODE_THREADS), bytes, stream, job);
        MEED_LAUNCH((decode_combine_kernel), dim3((uint32_t)blocks), dim3(DECODE_THREADS), 0,
                    stream, job);
    } else {
        dim3 grid((uint32_t)job.rows, (uint32_t)job.kv_heads);
        MEED_LAUNCH((decode_kernel<D, true>), grid, dim3(DECODE_THREADS), bytes, stream, job);
    }
}

static void decode_dispatch(const struct meed_backend *be, struct decode_job &job,
                            enum meed_dtype dtype, enum meed_dtype cache)
{
    if (!attend_on_tensor_cores(dtype, job.size) || cache != dtype ||
        job.heads / job.kv_heads > DECODE_PAIRS) {
        if (dtype == MEED_DTYPE_F32) {
            cache == MEED_DTYPE_F32 ? decode_launch_plain<float, float>(be, job)
                                    : decode_launch_plain<float, meed_bf16>(be, job);
        } else {
            cache == MEED_DTYPE_F32 ? decode_launch_plain<meed_bf16, float>(be, job)
                                    : decode_launch_plain<meed_bf16, meed_bf16>(be, job);
        }
    } else if (job.size <= 32) {
        decode_launch<32>(be, job);
    } else if (job.size <= 64) {
        decode_launch<64>(be, job);
    } else if (job.size <= 96) {
        decode_launch<96>(be, job);
    } else {
        decode_launch<128>(be, job);
    }
}

extern "C" void meed_cuda_attention_decode(const struct meed_backend *be, struct meed_mat qkv,
                                           struct meed_attention_shape shape,
                                           struct meed_kv_layer cache, const int32_t *slots,
                                           const int32_t *positions, const struct meed_tail *tail,
                                           struct meed_mat out)
{
    attend_check(qkv, shape, tail, out);
    if (qkv.rows > 0) {
        struct decode_job job = {};
        job.qkv = qkv.data;
        job.out = out.data;
        job.k = cache.k;
        job.v = cache.v;
        job.slots = slots;
        job.positions = positions;
        job.qkv_stride = qkv.stride;
        job.out_stride = out.stride;
        job.table = cache.table;
        job.slot_pages = cache.slot_pages;
        job.window = attend_window(shape);
        job.rows = (int32_t)qkv.rows;
        job.parts = (cache.slot_pages * MEED_KV_PAGE + DECODE_PART - 1) / DECODE_PART;
        job.heads = shape.heads;
        job.kv_heads = shape.kv_heads;
        job.size = shape.head_dim;
        job.scale = shape.scale;
        job.qkv_aligned = attend_aligned(qkv.data, qkv.stride);
        job.out_aligned = attend_aligned(out.data, out.stride);
        job.cache_aligned =
            attend_aligned(cache.k, shape.head_dim) && attend_aligned(cache.v, shape.head_dim);
        decode_dispatch(be, job, qkv.dtype, cache.dtype);
        meed_cuda_check(be, cudaGetLastError(), "attention_decode");
    }
    meed_cuda_tail_apply(be, out, (int64_t)shape.heads * shape.head_dim, tail);
}
