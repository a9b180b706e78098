/* Attention on tensor cores: the pieces that forward, backward and decoding share.
 *
 * FlashAttention-2 (Dao 2023) in the register scheme of mma.m16n8k16: a warp owns 16·MT rows of the
 * resident operand, keeps scores and outputs in accumulators, and turns scores into the A operand
 * of the next product without leaving its registers (the accumulator of two neighbouring n tiles
 * *is* the fragment of one k step). Nothing of size rows × keys is ever stored.
 *
 * Shared memory. A tile is ROWS rows of D bf16 with a pitch of D + 8: an odd number of 16-byte
 * chunks, so the eight rows that one ldmatrix phase reads, and the eight chunks that one cp.async
 * phase writes, fall into eight different bank groups, for every D that is a multiple of 16. An XOR
 * swizzle would give the same and save 6 % of the space at D 128, but its addresses depend on the
 * row; here every fragment lies at a constant offset from one address per lane, and ldmatrix takes
 * the offset as an immediate.
 *
 * The limit of the inner loops is shared-memory bandwidth, not the tensor core: one mma reads a B
 * fragment of 256 bytes, an SM of sm_80 issues one mma per two cycles and reads 128 bytes a cycle.
 * With MT = 2 (32 rows a warp) the fragment serves twice and the demand halves. Hence 32 rows in
 * the forward, and 16 only where the accumulators of the backward leave no registers.
 *
 * Head sizes are padded to 32, 64, 96 or 128 with zero columns in shared memory only; any multiple
 * of 8 up to 128 therefore takes this path. Rows that are not 16-byte aligned in memory (odd
 * strides) are copied element by element into the same tiles: other speed, same bits.
 *
 * Same bits for a row whatever is around it: tiles begin at multiples of their size within their
 * own sequence, keys are met in rising order, and a key block that is masked for a row changes
 * nothing (its maximum stays, exp2(0) = 1, and it adds zeros; before the first key that a window
 * shows, the maximum is -inf and everything 0), so it does not matter how far the neighbours of the
 * row in its tile look, forward or back.
 */
#ifndef MEED_CUDA_ATTENTION_CUH
#define MEED_CUDA_ATTENTION_CUH

#include "kernels/cuda/port.cuh"
#include "kernels/cuda/cuda_state.h"
#include "kernels/backend.h"

static constexpr int32_t ATTEND_KEYS = 64; /* in a block */
static constexpr int32_t ATTEND_CHUNK = 8; /* bf16 in 16 bytes */
static constexpr int32_t ATTEND_SIZE_MAX = 128;
static constexpr int32_t ATTEND_ALL = 1 << 30; /* the window of a shape without: no row is as far */

#define ATTEND_LOG2E 1.4426950408889634f

/* Where a block works: rows [first, length) of the sequence that begins at row `start`. */
struct attend_tile {
    int32_t start;
    int32_t length;
    int32_t first; /* a multiple of the tile; ≥ length: the block has nothing to do */
};

/* Tiles of B rows over a packed batch, with no list of them: sequence s owns the tiles from
 * starts[s]/B + s, which leaves each sequence at least as many as it needs, and a grid of
 * M/B + sequences tiles covers all. Every warp looks its tile up alone, 32 sequences a step. */
static inline int64_t attend_tile_count(int64_t rows, int32_t sequences, int32_t tile)
{
    return rows / tile + sequences;
}
template <int B>
static __device__ inline struct attend_tile attend_tile_find(const int32_t *starts,
                                                             int32_t sequences, int32_t tile)
{
    int32_t lane = (int32_t)(threadIdx.x & 31);
    int32_t low = 0;
    int32_t high = sequences;
    while (high - low > 1) {
        int32_t step = (high - low + 31) / 32;
        int32_t probe = low + lane * step;
        bool before = probe < high && starts[probe] / B + probe <= tile;
        uint32_t votes = __ballot_sync(0xFFFFFFFFu, before);
        low += (__popc(votes) - 1) * step;
        high = low + step < high ? low + step : high;
    }
    struct attend_tile found;
    found.start = starts[low];
    found.length = starts[low + 1] - found.start;
    found.first = (tile - (found.start / B + low)) * B;
    return found;
}

/* Rows of one matrix in device memory: `size` elements each (a multiple of 8). Rows of a paged
 * cache lie together in blocks of 64: block b begins at data + pages[b]·page_stride. */
struct attend_rows {
    const meed_bf16 *data;
    int64_t stride;
    int32_t size;
    bool aligned; /* every row starts at a multiple of 16 bytes */
    const int32_t *pages = nullptr;
    int64_t page_stride = 0;
};
static inline bool attend_aligned(const void *data, int64_t stride)
{
    return (uintptr_t)data % 16 == 0 && stride % ATTEND_CHUNK == 0;
}

/* Starts the copy of rows [first, first + ROWS) into a tile; rows from `end` on and columns from
 * `size` on become zeros. The caller commits. Eight lanes copy 128 bytes of a row (four, where D is
 * no multiple of 64), and a thread's rows lie a constant number apart, so one pointer walks. */
template <int D, int ROWS, int THREADS>
static __device__ __forceinline__ void attend_load(meed_bf16 *tile, const struct attend_rows &from,
                                                   int32_t first, int32_t end)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    constexpr int LANES = D % 64 == 0 ? 8 : 4;
    constexpr int STEP = THREADS / LANES;
    static_assert(ROWS % STEP == 0, "every thread copies the same number of rows");
    const meed_bf16 *base = from.data;
    base += from.pages ? from.pages[first / ATTEND_KEYS] * from.page_stride : first * from.stride;
    int32_t rows = end - first;
    if (from.aligned) {
        int32_t row = (int32_t)threadIdx.x / LANES;
        int32_t col = (int32_t)threadIdx.x % LANES * ATTEND_CHUNK;
        meed_bf16 *to = tile + row * PITCH + col;
        const meed_bf16 *at = base + row * from.stride + col;
#pragma unroll
        for (int i = 0; i < ROWS / STEP; i++) {
#pragma unroll
            for (int j = 0; j < D; j += LANES * ATTEND_CHUNK) {
                bool real = row < rows && col + j < from.size;
                meed_cp_async16(to + i * STEP * PITCH + j, at + j, real ? 16 : 0);
            }
            row += STEP;
            at += STEP * from.stride;
        }
    } else {
#pragma unroll 1
        for (int32_t i = (int32_t)threadIdx.x; i < ROWS * D; i += THREADS) {
            int32_t row = i / D;
            int32_t col = i % D;
            bool real = row < rows && col < from.size;
            tile[row * PITCH + col] = real ? base[row * from.stride + col] : (meed_bf16)0;
        }
    }
}

/* acc[m][n] += A·Bᵀ over D: A rows 16·MT at `a`, B rows N at `b`, both tiles of pitch D + 8. UNROLL
 * k steps at a time: ptxas moves loads up through unrolled steps as far as registers go, and beyond
 * where accumulators leave few. */
template <int D, int MT, int N, int UNROLL = D / 16>
static __device__ __forceinline__ void attend_product_nt(float (&acc)[MT][N / 8][4],
                                                         const meed_bf16 *a, const meed_bf16 *b)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    int lane = (int)(threadIdx.x & 31);
    const meed_bf16 *a_lane = a + (lane & 15) * PITCH + (lane >> 4) * 8;
    const meed_bf16 *b_lane = b + ((lane & 7) + (lane >> 4) * 8) * PITCH + (lane >> 3 & 1) * 8;
#pragma unroll UNROLL
    for (int k = 0; k < D / 16; k++) {
        uint32_t fa[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            meed_ldmatrix_x4(fa[m], a_lane + m * 16 * PITCH + k * 16);
        }
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t fb[4];
            meed_ldmatrix_x4(fb, b_lane + n * 16 * PITCH + k * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                meed_mma_bf16_16816(acc[m][2 * n], fa[m], fb);
                meed_mma_bf16_16816(acc[m][2 * n + 1], fa[m], fb + 2);
            }
        }
    }
}

/* acc[m][n] += P·B: P in fragments, one per 16 rows of B; B rows K of D columns at `b`. */
template <int D, int MT, int K>
static __device__ __forceinline__ void attend_product_nn(float (&acc)[MT][D / 8][4],
                                                         const uint32_t (&p)[MT][K / 16][4],
                                                         const meed_bf16 *b)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    int lane = (int)(threadIdx.x & 31);
    const meed_bf16 *b_lane = b + (lane & 15) * PITCH + (lane >> 4) * 8;
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t fb[4];
            meed_ldmatrix_x4_trans(fb, b_lane + k * 16 * PITCH + n * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                meed_mma_bf16_16816(acc[m][2 * n], p[m][k], fb);
                meed_mma_bf16_16816(acc[m][2 * n + 1], p[m][k], fb + 2);
            }
        }
    }
}

/* Accumulators [rows, N] rounded to bf16 as A fragments over N. */
template <int MT, int N>
static __device__ __forceinline__ void attend_fragments(uint32_t (&p)[MT][N / 16][4],
                                                        const float (&s)[MT][N / 8][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int k = 0; k < N / 16; k++) {
            p[m][k][0] = meed_pack_bf16x2(s[m][2 * k][0], s[m][2 * k][1]);
            p[m][k][1] = meed_pack_bf16x2(s[m][2 * k][2], s[m][2 * k][3]);
            p[m][k][2] = meed_pack_bf16x2(s[m][2 * k + 1][0], s[m][2 * k + 1][1]);
            p[m][k][3] = meed_pack_bf16x2(s[m][2 * k + 1][2], s[m][2 * k + 1][3]);
        }
    }
}

/* The sum of the four lanes that share an accumulator row. */
static __device__ __forceinline__ float attend_quad_sum(float value)
{
    value += __shfl_xor_sync(0xFFFFFFFFu, value, 1);
    value += __shfl_xor_sync(0xFFFFFFFFu, value, 2);
    return value;
}
static __device__ __forceinline__ float attend_quad_max(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, 1));
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, 2));
    return value;
}

/* Rows of a warp under way. Row 16m + 8h + lane/4 has peak[m][h]; its sum is spread over its four
 * lanes until attend_quad_sum. */
template <int D, int MT> struct attend_state {
    float out[MT][D / 8][4];
    float peak[MT][2];
    float sum[MT][2];
};
template <int D, int MT>
static __device__ __forceinline__ void attend_reset(struct attend_state<D, MT> &state)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < D / 8 * 4; i++) {
            state.out[m][i / 4][i % 4] = 0.0f;
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            state.peak[m][h] = -INFINITY;
            state.sum[m][h] = 0.0f;
        }
    }
}

/* Scores of 64 keys become probabilities relative to the running maximum; what was summed under the
 * old maximum shrinks. `scale` is positive and in units of log2. A row that sees no key at all
 * (decoding, or a block before its window) keeps the maximum -inf and takes 0 as its base, so
 * nothing becomes NaN. */
template <int D, int MT>
static __device__ __forceinline__ void
attend_softmax(float (&s)[MT][ATTEND_KEYS / 8][4], struct attend_state<D, MT> &state, float scale)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = state.peak[m][h];
#pragma unroll
            for (int n = 0; n < ATTEND_KEYS / 8; n++) {
                top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
            }
            top = attend_quad_max(top);
            float base = top == -INFINITY ? 0.0f : top;
            float shrink = meed_exp2f((state.peak[m][h] - base) * scale);
            float offset = -base * scale;
            float part = 0.0f;
#pragma unroll
            for (int n = 0; n < ATTEND_KEYS / 8; n++) {
                s[m][n][2 * h] = meed_exp2f(fmaf(s[m][n][2 * h], scale, offset));
                s[m][n][2 * h + 1] = meed_exp2f(fmaf(s[m][n][2 * h + 1], scale, offset));
                part += s[m][n][2 * h] + s[m][n][2 * h + 1];
            }
            state.peak[m][h] = top;
            state.sum[m][h] = fmaf(state.sum[m][h], shrink, part);
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                state.out[m][n][2 * h] *= shrink;
                state.out[m][n][2 * h + 1] *= shrink;
            }
        }
    }
}

/* The keys of one query tile, and how far this warp's rows look. */
struct attend_keys {
    struct attend_rows k; /* position 0 of the sequence */
    struct attend_rows v;
    int32_t length;    /* positions that exist */
    int32_t limit_min; /* smallest and largest last visible key of this warp's rows; */
    int32_t limit_max; /* largest −1: a warp without rows, which only helps to copy */
    int32_t window;    /* > 0: a row sees so many keys up to its limit */
    float scale;       /* in units of log2 */
};

static inline int32_t attend_window(struct meed_attention_shape shape)
{
    return shape.window > 0 && shape.window < ATTEND_ALL ? shape.window : ATTEND_ALL;
}
/* Does the query see the key: neither behind it nor outside the window? */
static __device__ __forceinline__ bool attend_sees(int32_t query, int32_t key, int32_t window)
{
    return (uint32_t)(query - key) < (uint32_t)window;
}
/* Where the keys of a tile begin whose first row is `query`: a multiple of `block`. */
static __device__ __forceinline__ int32_t attend_reach(int32_t query, int32_t window, int32_t block)
{
    return MEED_MAX(0, query - window + 1) / block * block;
}

/* Attends to positions [begin, end), begin a multiple of 64; limit(2m + h) is the last visible key
 * of this lane's row 16m + 8h + lane/4. K and V have one tile each, and each
 * is copied while the warps work on the other: K of the next block during softmax and P·V, V during
 * Q·Kᵀ. (A second tile of both would need 139 KB at D 128 for two blocks a multiprocessor and leave
 * room for one; two blocks hide more than a deeper queue.) On entry the copy of K's block `begin`
 * has been issued and committed; on exit that of `end` if it lies below `stop`. */
template <int D, int MT, int THREADS, typename Limit>
static __device__ __forceinline__ void
attend_range(struct attend_state<D, MT> &state, const meed_bf16 *q_rows, meed_bf16 *k_tile,
             meed_bf16 *v_tile, const struct attend_keys &keys, Limit limit, int32_t begin,
             int32_t end, int32_t stop)
{
#pragma unroll 1
    for (int32_t key = begin; key < end; key += ATTEND_KEYS) {
        bool seen = key <= keys.limit_max && keys.limit_min - key < keys.window + ATTEND_KEYS - 1;
        float s[MT][ATTEND_KEYS / 8][4] = {};
        meed_cp_async_wait<0>();
        __syncthreads();
        attend_load<D, ATTEND_KEYS, THREADS>(v_tile, keys.v, key, keys.length);
        meed_cp_async_commit();
        if (seen) {
            attend_product_nt<D, MT, ATTEND_KEYS>(s, q_rows, k_tile);
        }
        meed_cp_async_wait<0>();
        __syncthreads();
        if (key + ATTEND_KEYS < stop) {
            attend_load<D, ATTEND_KEYS, THREADS>(k_tile, keys.k, key + ATTEND_KEYS, keys.length);
        }
        meed_cp_async_commit();
        if (seen) {
            if (key + ATTEND_KEYS - 1 > keys.limit_min || keys.limit_max - key >= keys.window) {
                int32_t col = key + (int32_t)(threadIdx.x & 3) * 2;
#pragma unroll
                for (int i = 0; i < MT * ATTEND_KEYS / 2; i++) {
                    int m = i / (ATTEND_KEYS / 2);
                    int n = i / 4 % (ATTEND_KEYS / 8);
                    if (!attend_sees(limit(2 * m + (i >> 1 & 1)), col + n * 8 + (i & 1),
                                     keys.window)) {
                        s[m][n][i & 3] = -INFINITY;
                    }
                }
            }
            attend_softmax<D, MT>(s, state, keys.scale);
            uint32_t p[MT][ATTEND_KEYS / 16][4];
            attend_fragments<MT, ATTEND_KEYS>(p, s);
            /* Keeps the loads of V's fragments behind the softmax: hoisted above it they cost
             * registers that D 96 and 128 do not have. */
            __syncwarp();
            attend_product_nn<D, MT, ATTEND_KEYS>(state.out, p, v_tile);
        }
    }
}

/* Accumulators times a factor per row, as bf16 into the warp's own rows of a tile, from where
 * attend_store takes whole chunks. The warp is done with what the rows held before. */
template <int D, int MT>
static __device__ __forceinline__ void
attend_stage(meed_bf16 *rows, const float (&acc)[MT][D / 8][4], const float (&factor)[MT][2])
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    int lane = (int)(threadIdx.x & 31);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < MT * D / 4; i++) {
        int m = i / (D / 4);
        int n = i / 2 % (D / 8);
        int h = i & 1;
        uint32_t pair =
            meed_pack_bf16x2(acc[m][n][2 * h] * factor[m][h], acc[m][n][2 * h + 1] * factor[m][h]);
        meed_bf16 *to = rows + (16 * m + 8 * h + lane / 4) * PITCH + 8 * n + lane % 4 * 2;
        *reinterpret_cast<uint32_t *>(to) = pair;
    }
    __syncwarp();
}

/* Staged rows [0, count) to place(row); `size` elements each. */
template <int D, typename Place>
static __device__ __forceinline__ void attend_store(const meed_bf16 *rows, int32_t count,
                                                    int32_t size, bool aligned, Place place)
{
    constexpr int PITCH = D + ATTEND_CHUNK;
    constexpr int CHUNKS = D / ATTEND_CHUNK;
    int lane = (int)(threadIdx.x & 31);
#pragma unroll 1
    for (int i = lane; i < count * CHUNKS; i += 32) {
        int row = i / CHUNKS;
        int col = i % CHUNKS * ATTEND_CHUNK;
        if (col < size) {
            const meed_bf16 *from = rows + row * PITCH + col;
            meed_bf16 *to = place(row) + col;
            if (aligned) {
                *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
            } else {
                for (int j = 0; j < ATTEND_CHUNK; j++) {
                    to[j] = from[j];
                }
            }
        }
    }
}

static inline bool attend_on_tensor_cores(enum meed_dtype dtype, int32_t size)
{
    return dtype == MEED_DTYPE_BF16 && size % ATTEND_CHUNK == 0 && size <= ATTEND_SIZE_MAX;
}
/* What forward and decoding demand of their views. */
static inline void attend_check(struct meed_mat qkv, struct meed_attention_shape shape,
                                const struct meed_tail *tail, struct meed_mat out)
{
    int64_t r = tail && tail->a.data ? tail->a.rows : 0;
    MEED_ASSERT(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
    MEED_ASSERT(shape.head_dim > 0 && shape.head_dim <= 512 && shape.scale > 0.0f);
    MEED_ASSERT(shape.window >= 0);
    MEED_ASSERT(qkv.cols == (int64_t)(shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    MEED_ASSERT(out.cols == (int64_t)shape.heads * shape.head_dim + r);
    MEED_ASSERT(out.rows == qkv.rows && out.dtype == qkv.dtype);
}

#endif
