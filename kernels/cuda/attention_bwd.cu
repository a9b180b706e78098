/* Gradient of causal grouped-query attention.
 *
 * With P = exp(scale·S − lse) recomputed block by block and δ = Σ_d dO·O per row,
 *   dV = Pᵀ·dO,  dS = P ⊙ (dO·Vᵀ − δ),  dK = scale·dSᵀ·Q,  dQ = scale·dS·K
 * (Dao et al. 2022). Three kernels: δ; dK and dV over key tiles; dQ over query tiles.
 * FlashAttention computes all three in one pass of five products and adds dQ atomically, in no
 * fixed order; two passes cost seven products and give every sum one order: a key tile meets its
 * group's query heads in order, each with its query blocks in order; a query tile meets key blocks
 * in order. No partial sum leaves registers. Blocks that a window hides from every pair are not
 * loaded; those at its edge are masked like those on the diagonal.
 *
 * Both passes are one scheme with the roles exchanged. A tile of 16 rows a warp is resident, two
 * matrices of it (K and V, or Q and dO); blocks of 64 rows of the other two stream through a double
 * buffer, one barrier a block. A warp makes S and dP of its rows against the block as accumulators
 * and reuses them, rounded to bf16, as the A operand of the gradient products: by letting keys be
 * the rows in the first pass, Pᵀ and dSᵀ come out of the mma already transposed, and neither pass
 * sends scores through shared memory.
 *
 * Registers decide the shape: at D 128 dK and dV take 128 a thread, P 32 and dP, made in two halves
 * and multiplied into P, 16. D ≤ 64: four warps (64 rows), 54 KB of shared memory, two to three
 * blocks a multiprocessor; above: eight warps, 139 KB at D 128, one block. Limit: with 16 rows a
 * warp each B fragment serves one mma, so the rate is bound by shared memory at about 0.9 of
 * sm_80's tensor cores, less on newer ones.
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_plain.cuh"

static constexpr int32_t BWD_BLOCK = 64;
static_assert(BWD_BLOCK == ATTEND_KEYS, "tiles of both passes begin at multiples of key blocks");

struct bwd_job {
    const void *qkv;  /* [M, (H + 2G)·D] */
    const void *dout; /* [M, H·D] */
    const void *out;  /* [M, H·D] */
    void *dqkv;       /* [M, (H + 2G)·D] */
    const float *lse; /* [M, H] */
    float *delta;     /* [M, H] */
    const int32_t *starts;
    int64_t qkv_stride;
    int64_t dout_stride;
    int64_t out_stride;
    int64_t dqkv_stride;
    int64_t rows;
    int32_t sequences;
    int32_t heads;
    int32_t kv_heads;
    int32_t size;
    int32_t window;
    float scale;
    bool qkv_aligned;
    bool dout_aligned;
    bool dqkv_aligned;
};

/* A warp per row and head. */
template <typename T>
__global__ void __launch_bounds__(PLAIN_THREADS) bwd_delta_kernel(struct bwd_job job)
{
    int64_t pair = (int64_t)blockIdx.x * PLAIN_WARPS + threadIdx.x / 32;
    if (pair < job.rows * job.heads) {
        int64_t row = pair / job.heads;
        int64_t col = pair % job.heads * job.size;
        const T *dout = (const T *)job.dout + row * job.dout_stride + col;
        const T *out = (const T *)job.out + row * job.out_stride + col;
        float sum = 0.0f;
        for (int32_t d = (int32_t)(threadIdx.x & 31); d < job.size; d += 32) {
            sum = fmaf(plain_get(dout + d), plain_get(out + d), sum);
        }
        sum = plain_warp_sum(sum);
        if ((threadIdx.x & 31) == 0) {
            job.delta[pair] = sum;
        }
    }
}

/* Columns of one head in qkv, dout or dqkv, from row `start` on. */
static __device__ __forceinline__ struct attend_rows bwd_qkv(const struct bwd_job &job,
                                                             int32_t start, int32_t head)
{
    return {(const meed_bf16 *)job.qkv + start * job.qkv_stride + (int64_t)head * job.size,
            job.qkv_stride, job.size, job.qkv_aligned};
}
static __device__ __forceinline__ struct attend_rows bwd_dout(const struct bwd_job &job,
                                                              int32_t start, int32_t head)
{
    return {(const meed_bf16 *)job.dout + start * job.dout_stride + (int64_t)head * job.size,
            job.dout_stride, job.size, job.dout_aligned};
}
template <int D>
static __device__ __forceinline__ void bwd_finish(const struct bwd_job &job, meed_bf16 *rows,
                                                  const float (&acc)[1][D / 8][4], float factor,
                                                  int64_t first, int32_t count, int32_t head)
{
    const float factors[1][2] = {{factor, factor}};
    meed_bf16 *to = (meed_bf16 *)job.dqkv + first * job.dqkv_stride + (int64_t)head * job.size;
    attend_stage<D, 1>(rows, acc, factors);
    attend_store<D>(rows, count, job.size, job.dqkv_aligned,
                    [=](int32_t row) { return to + row * job.dqkv_stride; });
}

/* lse in units of log2 (+inf past the end, so that P is 0) or δ of one row. */
static __device__ __forceinline__ float bwd_row_lse(const struct bwd_job &job, int64_t row,
                                                    bool real, int32_t head)
{
    return real ? job.lse[row * job.heads + head] * ATTEND_LOG2E : INFINITY;
}
static __device__ __forceinline__ float bwd_row_delta(const struct bwd_job &job, int64_t row,
                                                      bool real, int32_t head)
{
    return real ? job.delta[row * job.heads + head] : 0.0f;
}

/* Sixteen keys of a warp (from position `key`) against one block of queries (from `first`). */
template <int D>
static __device__ __forceinline__ void
bwd_keys_block(float (&dk)[1][D / 8][4], float (&dv)[1][D / 8][4], const meed_bf16 *k_rows,
               const meed_bf16 *v_rows, const meed_bf16 *q, const meed_bf16 *g,
               const float (*values)[BWD_BLOCK], float scale, int32_t key, int32_t first,
               int32_t window)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    constexpr int SPAN = D > 64 ? BWD_BLOCK / 2 : BWD_BLOCK;
    constexpr int UNROLL = D > 64 ? 2 : D / 16;
    int32_t lane = (int32_t)(threadIdx.x & 31);
    float s[1][BWD_BLOCK / 8][4] = {};
    uint32_t fragments[1][BWD_BLOCK / 16][4];
    attend_product_nt<D, 1, BWD_BLOCK, UNROLL>(s, k_rows, q);
#pragma unroll
    for (int i = 0; i < BWD_BLOCK / 2; i++) {
        int col = i / 4 * 8 + lane % 4 * 2 + (i & 1);
        float *p = &s[0][i / 4][i & 3];
        *p = meed_exp2f(fmaf(*p, scale, -values[0][col]));
    }
    if (key + 15 > first || first + BWD_BLOCK - 1 - key >= window) {
#pragma unroll
        for (int i = 0; i < BWD_BLOCK / 2; i++) {
            int32_t query = first + i / 4 * 8 + lane % 4 * 2 + (i & 1);
            float *p = &s[0][i / 4][i & 3];
            *p = attend_sees(query, key + lane / 4 + (i >> 1 & 1) * 8, window) ? *p : 0.0f;
        }
    }
    attend_fragments<1, BWD_BLOCK>(fragments, s);
    attend_product_nn<D, 1, BWD_BLOCK>(dv, fragments, g);
#pragma unroll
    for (int at = 0; at < BWD_BLOCK; at += SPAN) {
        float dp[1][SPAN / 8][4] = {};
        attend_product_nt<D, 1, SPAN, UNROLL>(dp, v_rows, g + at * PITCH);
#pragma unroll
        for (int i = 0; i < SPAN / 2; i++) {
            int col = at + i / 4 * 8 + lane % 4 * 2 + (i & 1);
            s[0][at / 8 + i / 4][i & 3] *= dp[0][i / 4][i & 3] - values[1][col];
        }
    }
    attend_fragments<1, BWD_BLOCK>(fragments, s);
    attend_product_nn<D, 1, BWD_BLOCK>(dk, fragments, q);
}

/* dK and dV of 16·WARPS keys of one key/value head. Step i of the stream is query block
 * i mod blocks of query head i / blocks; blocks start at the tile's own first position. */
template <int D, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 1) bwd_keys_kernel(struct bwd_job job)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    constexpr int ROWS = 16 * WARPS;
    constexpr int THREADS = 32 * WARPS;
    static_assert(THREADS >= 2 * BWD_BLOCK, "a thread fetches one row's lse or δ");
    MEED_DYN_SHARED(meed_bf16, k_tile);
    MEED_SHARED(float[2][2][BWD_BLOCK], row_values);
    meed_bf16 *v_tile = k_tile + ROWS * PITCH;
    meed_bf16 *q_tiles = v_tile + ROWS * PITCH;
    meed_bf16 *g_tiles = q_tiles + 2 * BWD_BLOCK * PITCH;
    struct attend_tile tile =
        attend_tile_find<ROWS>(job.starts, job.sequences, (int32_t)blockIdx.y);
    if (tile.first < tile.length) {
        int32_t group = (int32_t)blockIdx.x;
        int32_t heads = job.heads / job.kv_heads;
        int32_t end = MEED_MIN(tile.length, tile.first + ROWS - 1 + job.window);
        int32_t blocks = (end - tile.first + BWD_BLOCK - 1) / BWD_BLOCK;
        int32_t warp = (int32_t)(threadIdx.x / 32);
        int32_t key = tile.first + warp * 16;
        float scale = job.scale * ATTEND_LOG2E;
        float dk[1][D / 8][4] = {};
        float dv[1][D / 8][4] = {};
        float fetched = 0.0f;
        int32_t head = group * heads - 1;
        int32_t block = end;
        attend_load<D, ROWS, THREADS>(k_tile, bwd_qkv(job, tile.start, job.heads + group),
                                      tile.first, tile.length);
        attend_load<D, ROWS, THREADS>(v_tile,
                                      bwd_qkv(job, tile.start, job.heads + job.kv_heads + group),
                                      tile.first, tile.length);
#pragma unroll 1
        for (int32_t step = -1; step < heads * blocks; step++) {
            int32_t first = block;
            int32_t next = step + 1;
            float(*values)[BWD_BLOCK] = row_values[step & 1];
            meed_cp_async_wait<0>();
            __syncthreads();
            block += BWD_BLOCK;
            if (block >= end) {
                block = tile.first;
                head++;
            }
            if (next < heads * blocks) {
                int32_t row = block;
                int32_t mine = row + (int32_t)threadIdx.x % BWD_BLOCK;
                meed_bf16 *q_next = q_tiles + (next & 1) * BWD_BLOCK * PITCH;
                meed_bf16 *g_next = g_tiles + (next & 1) * BWD_BLOCK * PITCH;
                attend_load<D, BWD_BLOCK, THREADS>(q_next, bwd_qkv(job, tile.start, head), row,
                                                   tile.length);
                attend_load<D, BWD_BLOCK, THREADS>(g_next, bwd_dout(job, tile.start, head), row,
                                                   tile.length);
                fetched = threadIdx.x < BWD_BLOCK
                              ? bwd_row_lse(job, tile.start + mine, mine < tile.length, head)
                              : bwd_row_delta(job, tile.start + mine, mine < tile.length, head);
            }
            meed_cp_async_commit();
            if (step >= 0 && first + BWD_BLOCK > key && first - key < job.window + 15) {
                const meed_bf16 *q = q_tiles + (step & 1) * BWD_BLOCK * PITCH;
                const meed_bf16 *g = g_tiles + (step & 1) * BWD_BLOCK * PITCH;
                bwd_keys_block<D>(dk, dv, k_tile + warp * 16 * PITCH, v_tile + warp * 16 * PITCH, q,
                                  g, values, scale, key, first, job.window);
            }
            if (threadIdx.x < 2 * BWD_BLOCK) {
                row_values[next & 1][threadIdx.x / BWD_BLOCK][threadIdx.x % BWD_BLOCK] = fetched;
            }
        }
        int32_t count = MEED_MIN(16, tile.length - key);
        bwd_finish<D>(job, k_tile + warp * 16 * PITCH, dk, job.scale, tile.start + key, count,
                      job.heads + group);
        bwd_finish<D>(job, v_tile + warp * 16 * PITCH, dv, 1.0f, tile.start + key, count,
                      job.heads + job.kv_heads + group);
    }
}

/* dQ of 16·WARPS rows of one head. */
template <int D, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 1) bwd_queries_kernel(struct bwd_job job)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    constexpr int ROWS = 16 * WARPS;
    constexpr int THREADS = 32 * WARPS;
    MEED_DYN_SHARED(meed_bf16, q_tile);
    meed_bf16 *g_tile = q_tile + ROWS * PITCH;
    meed_bf16 *k_tiles = g_tile + ROWS * PITCH;
    meed_bf16 *v_tiles = k_tiles + 2 * BWD_BLOCK * PITCH;
    struct attend_tile tile =
        attend_tile_find<ROWS>(job.starts, job.sequences, (int32_t)(gridDim.y - 1 - blockIdx.y));
    if (tile.first < tile.length) {
        int32_t head = (int32_t)blockIdx.x;
        int32_t group = head / (job.heads / job.kv_heads);
        int32_t warp = (int32_t)(threadIdx.x / 32);
        int32_t lane = (int32_t)(threadIdx.x & 31);
        int32_t query = tile.first + warp * 16;
        int32_t begin = attend_reach(tile.first, job.window, BWD_BLOCK);
        int32_t end = MEED_MIN(tile.first + ROWS, tile.length);
        float scale = job.scale * ATTEND_LOG2E;
        float dq[1][D / 8][4] = {};
        float lse[2];
        float delta[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int32_t row = query + 8 * h + lane / 4;
            lse[h] = bwd_row_lse(job, tile.start + row, row < tile.length, head);
            delta[h] = bwd_row_delta(job, tile.start + row, row < tile.length, head);
        }
        struct attend_rows k = bwd_qkv(job, tile.start, job.heads + group);
        struct attend_rows v = bwd_qkv(job, tile.start, job.heads + job.kv_heads + group);
        attend_load<D, ROWS, THREADS>(q_tile, bwd_qkv(job, tile.start, head), tile.first,
                                      tile.length);
        attend_load<D, ROWS, THREADS>(g_tile, bwd_dout(job, tile.start, head), tile.first,
                                      tile.length);
#pragma unroll 1
        for (int32_t key = begin - BWD_BLOCK; key < end; key += BWD_BLOCK) {
            int32_t next = key + BWD_BLOCK;
            int32_t half = key / BWD_BLOCK & 1;
            meed_cp_async_wait<0>();
            __syncthreads();
            if (next < end) {
                int32_t at = (1 - half) * BWD_BLOCK * PITCH;
                attend_load<D, BWD_BLOCK, THREADS>(k_tiles + at, k, next, tile.length);
                attend_load<D, BWD_BLOCK, THREADS>(v_tiles + at, v, next, tile.length);
            }
            meed_cp_async_commit();
            if (key >= begin && key < query + 16 && query - key < job.window + BWD_BLOCK - 1) {
                const meed_bf16 *k_tile = k_tiles + half * BWD_BLOCK * PITCH;
                const meed_bf16 *v_tile = v_tiles + half * BWD_BLOCK * PITCH;
                float s[1][BWD_BLOCK / 8][4] = {};
                float ds[1][BWD_BLOCK / 8][4] = {};
                uint32_t fragments[1][BWD_BLOCK / 16][4];
                attend_product_nt<D, 1, BWD_BLOCK>(s, q_tile + warp * 16 * PITCH, k_tile);
                attend_product_nt<D, 1, BWD_BLOCK>(ds, g_tile + warp * 16 * PITCH, v_tile);
#pragma unroll
                for (int i = 0; i < BWD_BLOCK / 2; i++) {
                    int h = i >> 1 & 1;
                    float p = meed_exp2f(fmaf(s[0][i / 4][i & 3], scale, -lse[h]));
                    ds[0][i / 4][i & 3] = p * (ds[0][i / 4][i & 3] - delta[h]);
                }
                if (key + BWD_BLOCK - 1 > query || query + 15 - key >= job.window) {
#pragma unroll
                    for (int i = 0; i < BWD_BLOCK / 2; i++) {
                        int32_t col = key + i / 4 * 8 + lane % 4 * 2 + (i & 1);
                        float *d = &ds[0][i / 4][i & 3];
                        int32_t row = query + lane / 4 + (i >> 1 & 1) * 8;
                        *d = attend_sees(row, col, job.window) ? *d : 0.0f;
                    }
                }
                attend_fragments<1, BWD_BLOCK>(fragments, ds);
                attend_product_nn<D, 1, BWD_BLOCK>(dq, fragments, k_tile);
            }
        }
        bwd_finish<D>(job, q_tile + warp * 16 * PITCH, dq, job.scale, tile.start + query,
                      MEED_MIN(16, tile.length - query), head);
    }
}

/* Both passes without tensor cores: a warp has one resident row pair (a, b) and meets the stream's
 * rows (x, y), 32 at a time: KEYS: a, b = k, v and x, y = q, dO of each head; else a, b = q, dO and
 * x, y = k, v. Lane j makes p and dS of stream row j; then each lane sums columns over the rows in
 * order. */
static inline size_t bwd_plain_bytes(int32_t size)
{
    return sizeof(float) *
           (size_t)(2 * PLAIN_KEYS * (size + 1) + PLAIN_WARPS * (4 * size + 2 * PLAIN_KEYS));
}
template <typename T, bool KEYS>
__global__ void __launch_bounds__(PLAIN_THREADS) bwd_plain_kernel(struct bwd_job job)
{
    MEED_DYN_SHARED(float, x_tile);
    int32_t size = job.size;
    float *y_tile = x_tile + PLAIN_KEYS * (size + 1);
    float *a = y_tile + PLAIN_KEYS * (size + 1) +
               (int32_t)(threadIdx.x / 32) * (4 * size + 2 * PLAIN_KEYS);
    float *b = a + size;
    float *da = b + size;
    float *db = da + size;
    float *p_row = db + size;
    float *ds_row = p_row + PLAIN_KEYS;
    struct attend_tile tile =
        attend_tile_find<PLAIN_WARPS>(job.starts, job.sequences, (int32_t)blockIdx.y);
    if (tile.first < tile.length) {
        int32_t lane = (int32_t)(threadIdx.x & 31);
        int32_t heads = job.heads / job.kv_heads;
        int32_t group = KEYS ? (int32_t)blockIdx.x : (int32_t)blockIdx.x / heads;
        int32_t k_head = job.heads + group;
        int32_t v_head = k_head + job.kv_heads;
        int32_t own = tile.first + (int32_t)(threadIdx.x / 32);
        bool real = own < tile.length;
        int64_t row = tile.start + (real ? own : 0);
        const T *qkv = (const T *)job.qkv + tile.start * job.qkv_stride;
        const T *dout = (const T *)job.dout + tile.start * job.dout_stride;
        const T *own_qkv = (const T *)job.qkv + row * job.qkv_stride;
        const T *own_dout = (const T *)job.dout + row * job.dout_stride;
        for (int32_t d = lane; d < size; d += 32) {
            a[d] = plain_get(own_qkv + (KEYS ? k_head : (int32_t)blockIdx.x) * size + d);
            b[d] = KEYS ? plain_get(own_qkv + v_head * size + d)
                        : plain_get(own_dout + (int32_t)blockIdx.x * size + d);
            da[d] = 0.0f;
            db[d] = 0.0f;
        }
        int32_t head = KEYS ? group * heads : (int32_t)blockIdx.x;
        int32_t head_end = KEYS ? head + heads : head + 1;
        int32_t begin = KEYS ? tile.first : attend_reach(tile.first, job.window, PLAIN_KEYS);
        int32_t end = MEED_MIN(tile.length, tile.first + PLAIN_WARPS + (KEYS ? job.window - 1 : 0));
        for (; head < head_end; head++) {
            for (int32_t at = begin; at < end; at += PLAIN_KEYS) {
                __syncthreads();
                plain_load(x_tile, qkv + (KEYS ? head : k_head) * size, job.qkv_stride, size, at,
                           end);
                plain_load(y_tile, KEYS ? dout + head * size : qkv + v_head * size,
                           KEYS ? job.dout_stride : job.qkv_stride, size, at, end);
                __syncthreads();
                int32_t other = at + lane;
                bool seen = real && other < end &&
                            attend_sees(KEYS ? other : own, KEYS ? own : other, job.window);
                int64_t of = (KEYS && other < end ? tile.start + other : row) * job.heads + head;
                float s = plain_dot(a, x_tile + lane * (size + 1), size);
                float dp = plain_dot(b, y_tile + lane * (size + 1), size);
                float p = meed_exp2f((s * job.scale - job.lse[of]) * ATTEND_LOG2E);
                p_row[lane] = seen ? p : 0.0f;
                ds_row[lane] = seen ? p * (dp - job.delta[of]) : 0.0f;
                __syncwarp();
                plain_add(da, 1.0f, ds_row, x_tile, size);
                if (KEYS) {
                    plain_add(db, 1.0f, p_row, y_tile, size);
                }
                __syncwarp();
            }
        }
        if (real) {
            T *to = (T *)job.dqkv + row * job.dqkv_stride;
            for (int32_t d = lane; d < size; d += 32) {
                plain_put(to + (KEYS ? k_head : (int32_t)blockIdx.x) * size + d, da[d] * job.scale);
                if (KEYS) {
                    plain_put(to + v_head * size + d, db[d]);
                }
            }
        }
    }
}

template <int D, int WARPS>
static void bwd_launch(const struct meed_backend *be, const struct bwd_job &job)
{
    constexpr int ROWS = 16 * WARPS;
    uint32_t tiles = (uint32_t)attend_tile_count(job.rows, job.sequences, ROWS);
    size_t bytes = (size_t)(2 * ROWS + 4 * BWD_BLOCK) * (D + ATTEND_CHUNK) * sizeof(meed_bf16);
    cudaStream_t stream = meed_cuda_stream(be);
    MEED_LAUNCH((bwd_keys_kernel<D, WARPS>), dim3((uint32_t)job.kv_heads, tiles), dim3(32 * WARPS),
                bytes, stream, job);
    MEED_LAUNCH((bwd_queries_kernel<D, WARPS>), dim3((uint32_t)job.heads, tiles), dim3(32 * WARPS),
                bytes, stream, job);
}
template <typename T>
static void bwd_launch_plain(const struct meed_backend *be, const struct bwd_job &job)
{
    uint32_t tiles = (uint32_t)attend_tile_count(job.rows, job.sequences, PLAIN_WARPS);
    size_t bytes = bwd_plain_bytes(job.size);
    cudaStream_t stream = meed_cuda_stream(be);
    MEED_LAUNCH((bwd_plain_kernel<T, true>), dim3((uint32_t)job.kv_heads, tiles),
                dim3(PLAIN_THREADS), bytes, stream, job);
    MEED_LAUNCH((bwd_plain_kernel<T, false>), dim3((uint32_t)job.heads, tiles), dim3(PLAIN_THREADS),
                bytes, stream, job);
}

static void bwd_dispatch(const struct meed_backend *be, const struct bwd_job &job,
                         enum meed_dtype dtype)
{
    dim3 grid((uint32_t)((job.rows * job.heads + PLAIN_WARPS - 1) / PLAIN_WARPS));
    if (dtype == MEED_DTYPE_F32) {
        MEED_LAUNCH((bwd_delta_kernel<float>), grid, dim3(PLAIN_THREADS), 0, meed_cuda_stream(be),
                    job);
    } else {
        MEED_LAUNCH((bwd_delta_kernel<meed_bf16>), grid, dim3(PLAIN_THREADS), 0,
                    meed_cuda_stream(be), job);
    }
    if (!attend_on_tensor_cores(dtype, job.size)) {
        dtype == MEED_DTYPE_F32 ? bwd_launch_plain<float>(be, job)
                                : bwd_launch_plain<meed_bf16>(be, job);
    } else if (job.size <= 32) {
        bwd_launch<32, 4>(be, job);
    } else if (job.size <= 64) {
        bwd_launch<64, 4>(be, job);
    } else if (job.size <= 96) {
        bwd_launch<96, 8>(be, job);
    } else {
        bwd_launch<128, 8>(be, job);
    }
}

extern "C" void meed_cuda_attention_bwd(const struct meed_backend *be, struct meed_mat dout,
                                        struct meed_mat out, struct meed_mat qkv, const float *lse,
                                        struct meed_attention_shape shape,
                                        const struct meed_pack *pack, struct meed_mat dqkv)
{
    int64_t width = (int64_t)shape.heads * shape.head_dim;
    MEED_ASSERT(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
    MEED_ASSERT(shape.head_dim > 0 && shape.head_dim <= 512 && shape.scale > 0.0f && lse);
    MEED_ASSERT(shape.window >= 0);
    MEED_ASSERT(qkv.cols == width + 2 * (int64_t)shape.kv_heads * shape.head_dim);
    MEED_ASSERT(dqkv.cols == qkv.cols && dqkv.rows == qkv.rows && dqkv.dtype == qkv.dtype);
    MEED_ASSERT(dout.cols >= width && out.cols >= width);
    MEED_ASSERT(dout.dtype == qkv.dtype && out.dtype == qkv.dtype);
    if (qkv.rows > 0 && pack->sequences > 0) {
        struct bwd_job job;
        job.qkv = qkv.data;
        job.dout = dout.data;
        job.out = out.data;
        job.dqkv = dqkv.data;
        job.lse = lse;
        job.delta = (float *)meed_cuda_scratch(be, (size_t)(qkv.rows * shape.heads) * 4);
        job.starts = pack->starts;
        job.qkv_stride = qkv.stride;
        job.dout_stride = dout.stride;
        job.out_stride = out.stride;
        job.dqkv_stride = dqkv.stride;
        job.rows = qkv.rows;
        job.sequences = pack->sequences;
        job.heads = shape.heads;
        job.kv_heads = shape.kv_heads;
        job.size = shape.head_dim;
        job.window = attend_window(shape);
        job.scale = shape.scale;
        job.qkv_aligned = attend_aligned(qkv.data, qkv.stride);
        job.dout_aligned = attend_aligned(dout.data, dout.stride);
        job.dqkv_aligned = attend_aligned(dqkv.data, dqkv.stride);
        if (job.delta) {
            bwd_dispatch(be, job, qkv.dtype);
        }
        meed_cuda_check(be, cudaGetLastError(), "attention_bwd");
    }
}
