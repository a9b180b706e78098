/* Backward of the low-rank branch: dA, dB and its part of dx.
 *
 * After dxt = dy·[W | s∘B] both dx and dT stand in dxt. With U = gates ⊙ dT what is left are
 * products with one skinny operand:
 *     dA   = Uᵀ·x̃        dBᵀ = s·Tᵀ·dy       sums over the M rows of the batch
 *     dx  += mask ⊙ U·A                       sums over R
 *
 * Sums over rows. Rows are cut into slabs of 512, whatever M is; a block sums one slab for 128
 * columns of x or dy and up to 64 ranks, and a second kernel adds the slabs in order. So gradients
 * have one order of summation and no atomics. dA and every module's dB are parts of one launch:
 * columns of x, then columns of dy. Bytes: x and dy once, 2·M·(K + N), which is the floor; the
 * skinny side again for every 128 columns, from L2; 8·(K·R + N·r) for every 512 rows, partial sums
 * written and read, an eighth of x at R 16, in L2 as a rule. FLOPs: 2·R for 2 bytes, a tenth of
 * what sm_80 has. Both operands lie the wrong way round for mma (the sum runs down their columns),
 * so both pass through shared memory and ldmatrix.trans: cp.async, 32 rows a stage, three stages of
 * 13 KB, 8 warps of 16 columns × 64 ranks (32 accumulators). Two such blocks share a multiprocessor
 * (108 registers a thread) and keep 50 KB under way, three times what memory's latency asks for. A
 * thread drops the elements of x̃ in the 16 bytes that it copied itself, between its wait and the
 * barrier.
 *
 * dx is the shape of lora_merge, but for its mask and gates a row, and bound by the read and write
 * of dx: 4·M·K bytes. A block has 128 rows × 128 columns, a warp 16 rows; A passes through shared
 * memory, 32 ranks at a time, U comes straight into fragments (it is used once), and sums go back
 * through shared memory, a warp's own 4 KB, to be added to whole lanes of dx. Gates are fp32: gate
 * times dT is split into two bf16 and two products, or it would cost the result half a rounding.
 *
 * Plain kernels do the same slabs with FMAs: fp32, and dA under gates, which nothing asks for today
 * and where two bf16 would not keep fp32 sums.
 */
#include "kernels/cuda/tail.cuh"

static constexpr int SLAB_ROWS = 512;
static constexpr int GRAD_THREADS = 256;
static constexpr int GRAD_PARTS = 8; /* dA and one dB for each projection of a layer */
static constexpr int GRAD_DEPTH = 32;
static constexpr int GRAD_STAGES = 3;
static constexpr int GRAD_COLS = 128;
static constexpr int GRAD_RANKS = 64;
static constexpr int GRAD_PITCH = GRAD_COLS + 8; /* odd in 16-byte chunks: see ldmatrix */
static constexpr int RANK_PITCH = GRAD_RANKS + 8;
static constexpr int PLAIN_DEPTH = 16;
static constexpr int PLAIN_COLS = 64;
static constexpr int PLAIN_RANKS = 32;

/* out[c, j] += scale·Σ_m right[m, c]·left[m, j]. */
template <typename T> struct grad_part {
    const T *left;  /* [M, r]: dT, or T of one module */
    const T *right; /* [M, cols]: x, or dy of that module */
    float *out;
    int64_t left_stride;
    int64_t right_stride;
    int64_t first; /* of its sums among those of a slab */
    int32_t r;
    int32_t cols;
    int32_t block; /* its first block of columns */
    float scale;
    bool is_da; /* out is [r, cols], x is masked and dT gated; else out is [cols, r] */
    bool left_aligned;
    bool right_aligned;
};

template <typename T> struct grad_job {
    grad_part<T> parts[GRAD_PARTS];
    float *sums; /* [slabs, total] */
    const float *gates;
    const int32_t *gate_of_row;
    struct tail_mask mask;
    int64_t rows;
    int64_t total;
    int32_t part_count;
    int32_t slabs;
    int32_t blocks;
    int32_t rank_max;
};

template <typename T> static __device__ __forceinline__ int grad_part_find(const grad_job<T> &job)
{
    int idx = 0;
    while (idx + 1 < job.part_count && (int32_t)blockIdx.x >= job.parts[idx + 1].block) {
        idx++;
    }
    return idx;
}

/* Where the sum of column c and rank j of a part goes. */
template <typename T>
static __device__ __forceinline__ float *grad_sum_at(const grad_job<T> &job,
                                                     const grad_part<T> &part, int32_t c, int32_t j)
{
    int32_t at = part.is_da ? j * part.cols + c : c * part.r + j;
    return job.sums + (blockIdx.y * job.total + part.first) + at;
}

/* Starts the copy of 8 columns; `count` of them are real, the rest become zeros. */
static __device__ __forceinline__ void chunk_load(meed_bf16 *to, const meed_bf16 *from,
                                                  int32_t count, bool aligned)
{
    count = max(min(count, 8), 0);
    if (aligned) {
        meed_cp_async16(to, from, count * 2);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < 8; i++) {
        to[i] = i < count ? from[i] : (meed_bf16)0;
    }
}

/* What a thread copies next: two chunks of the right side, RIGHT_STEP rows apart, one of the left.
 */
struct grad_feed {
    const meed_bf16 *right;
    const meed_bf16 *left;
    int64_t right_stride;
    int64_t left_stride;
    int32_t right_count; /* columns of its chunks that are real, may be negative or more than 8 */
    int32_t left_count;
    int32_t rows; /* of the slab, from the next stage on */
    bool right_aligned;
    bool left_aligned;
};
static constexpr int RIGHT_CHUNKS = GRAD_COLS / 8;
static constexpr int LEFT_CHUNKS = GRAD_RANKS / 8;
static constexpr int RIGHT_STEP = GRAD_THREADS / RIGHT_CHUNKS;
static_assert(GRAD_DEPTH == 2 * RIGHT_STEP && GRAD_DEPTH * LEFT_CHUNKS == GRAD_THREADS, "chunks");

static __device__ __forceinline__ struct grad_feed
grad_feed_make(const grad_part<meed_bf16> &part, int64_t m, int64_t end, int32_t col, int32_t rank)
{
    int c = col + (int)threadIdx.x % RIGHT_CHUNKS * 8;
    int j = rank + (int)threadIdx.x % LEFT_CHUNKS * 8;
    struct grad_feed feed;
    feed.right = part.right + (m + threadIdx.x / RIGHT_CHUNKS) * part.right_stride + c;
    feed.left = part.left + (m + threadIdx.x / LEFT_CHUNKS) * part.left_stride + j;
    feed.right_stride = part.right_stride;
    feed.left_stride = part.left_stride;
    feed.right_count = part.cols - c;
    feed.left_count = part.r - j;
    feed.rows = (int32_t)(end - m);
    feed.right_aligned = part.right_aligned;
    feed.left_aligned = part.left_aligned;
    return feed;
}

/* Starts the copy of the next GRAD_DEPTH rows of both sides; rows past the slab become zeros. */
static __device__ __forceinline__ void grad_load(meed_bf16 *right, meed_bf16 *left,
                                                 struct grad_feed &feed)
{
    int row = (int)threadIdx.x / RIGHT_CHUNKS;
    int c = (int)threadIdx.x % RIGHT_CHUNKS * 8;
#pragma unroll
    for (int i = 0; i < GRAD_DEPTH; i += RIGHT_STEP) {
        chunk_load(right + (row + i) * GRAD_PITCH + c, feed.right + i * feed.right_stride,
                   row + i < feed.rows ? feed.right_count : 0, feed.right_aligned);
    }
    row = (int)threadIdx.x / LEFT_CHUNKS;
    chunk_load(left + row * RANK_PITCH + (int)threadIdx.x % LEFT_CHUNKS * 8, feed.left,
               row < feed.rows ? feed.left_count : 0, feed.left_aligned);
    feed.right += GRAD_DEPTH * feed.right_stride;
    feed.left += GRAD_DEPTH * feed.left_stride;
    feed.rows -= GRAD_DEPTH;
}

/* Drops what this thread's chunks of x̃ must lose; `element` is that of the tile's first. */
static __device__ __forceinline__ void grad_mask(meed_bf16 *right, const struct tail_mask &mask,
                                                 uint64_t element, int32_t k)
{
#pragma unroll 1
    for (int row = (int)threadIdx.x / RIGHT_CHUNKS; row < GRAD_DEPTH; row += RIGHT_STEP) {
        int c = (int)threadIdx.x % RIGHT_CHUNKS * 8;
        uint4 *chunk = (uint4 *)(right + row * GRAD_PITCH + c);
        uint64_t first = element + (uint64_t)row * (uint64_t)k + (uint64_t)c;
        *chunk = tail_mask_octet(*chunk, tail_mask_bits<8>(mask, first));
    }
}

/* sums[n] += right ᵀ·left over GRAD_DEPTH rows: the warp's 16 columns, ranks 8n … 8n + 7. */
static __device__ __forceinline__ void grad_product(float (&sums)[GRAD_RANKS / 8][4],
                                                    const meed_bf16 *right, const meed_bf16 *left,
                                                    int32_t ranks)
{
    int lane = (int)threadIdx.x % 32;
    const meed_bf16 *right_at = right + ((lane & 7) + (lane >> 4) * 8) * GRAD_PITCH +
                                (int)threadIdx.x / 32 * 16 + (lane >> 3 & 1) * 8;
    const meed_bf16 *left_at = left + (lane & 15) * RANK_PITCH + (lane >> 4) * 8;
#pragma unroll
    for (int m = 0; m < GRAD_DEPTH; m += 16) {
        uint32_t a[4];
        meed_ldmatrix_x4_trans(a, right_at + m * GRAD_PITCH);
#pragma unroll
        for (int n = 0; n < GRAD_RANKS / 8; n += 2) {
            if (8 * n < ranks) {
                uint32_t b[4];
                meed_ldmatrix_x4_trans(b, left_at + m * RANK_PITCH + 8 * n);
                meed_mma_bf16_16816(sums[n], a, b);
                meed_mma_bf16_16816(sums[n + 1], a, b + 2);
            }
        }
    }
}

static __global__ void __launch_bounds__(GRAD_THREADS, 2)
    lora_grad_tensor_kernel(grad_job<meed_bf16> job)
{
    constexpr int RIGHT = GRAD_DEPTH * GRAD_PITCH;
    constexpr int LEFT = GRAD_DEPTH * RANK_PITCH;
    MEED_SHARED(uint4[GRAD_STAGES * (RIGHT + LEFT) / 8], aligned);
    meed_bf16 *shared = (meed_bf16 *)aligned;
    const grad_part<meed_bf16> &part = job.parts[grad_part_find(job)];
    int32_t col = ((int32_t)blockIdx.x - part.block) * GRAD_COLS;
    int32_t rank = (int32_t)blockIdx.z * GRAD_RANKS;
    int64_t m = (int64_t)blockIdx.y * SLAB_ROWS;
    int64_t end = min(m + SLAB_ROWS, job.rows);
    if (rank < part.r) {
        bool masked = part.is_da && job.mask.threshold;
        float sums[GRAD_RANKS / 8][4] = {};
        meed_bf16 *left = shared + GRAD_STAGES * RIGHT;
        struct grad_feed feed = grad_feed_make(part, m, end, col, rank);
#pragma unroll 1
        for (int stage = 0; stage < GRAD_STAGES - 1; stage++) {
            grad_load(shared + stage * RIGHT, left + stage * LEFT, feed);
            meed_cp_async_commit();
        }
        int stage = 0;
        int next = GRAD_STAGES - 1;
        for (; m < end; m += GRAD_DEPTH) {
            meed_cp_async_wait<GRAD_STAGES - 2>();
            if (masked) {
                grad_mask(shared + stage * RIGHT, job.mask, (uint64_t)(m * part.cols + col),
                          part.cols);
            }
            __syncthreads();
            grad_load(shared + next * RIGHT, left + next * LEFT, feed);
            meed_cp_async_commit();
            grad_product(sums, shared + stage * RIGHT, left + stage * LEFT, part.r - rank);
            stage = stage + 1 < GRAD_STAGES ? stage + 1 : 0;
            next = next + 1 < GRAD_STAGES ? next + 1 : 0;
        }
        meed_cp_async_wait<0>();
        int lane = (int)threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < GRAD_RANKS / 8 * 4; i++) {
            int32_t c = col + (int)threadIdx.x / 32 * 16 + lane / 4 + i / 2 % 2 * 8;
            int32_t j = rank + i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (c < part.cols && j < part.r) {
                *grad_sum_at(job, part, c, j) = sums[i / 4][i % 4];
            }
        }
    }
}

/* PLAIN_DEPTH rows from m of both sides in fp32: x̃ under its mask, U under its gates. */
template <typename T>
static __device__ __forceinline__ void
plain_load(float (*right)[PLAIN_COLS], float (*left)[PLAIN_RANKS], const grad_job<T> &job,
           const grad_part<T> &part, int64_t m, int64_t end, int32_t col, int32_t rank)
{
    static_assert(PLAIN_DEPTH * PLAIN_COLS == 4 * GRAD_THREADS, "four columns a thread");
    int row = (int)threadIdx.x / (PLAIN_COLS / 4);
    int c = (int)threadIdx.x % (PLAIN_COLS / 4) * 4;
    uint32_t bits = 0xF;
    if (part.is_da && job.mask.threshold) {
        bits = tail_mask_bits<4>(job.mask,
                                 (uint64_t)(m + row) * (uint64_t)part.cols + (uint64_t)(col + c));
    }
    for (int i = 0; i < 4; i++) {
        bool real = m + row < end && col + c + i < part.cols && (bits >> i & 1);
        right[row][c + i] =
            real ? elem_get(part.right + (m + row) * part.right_stride + col + c + i) : 0.0f;
    }
    for (int i = (int)threadIdx.x; i < PLAIN_DEPTH * PLAIN_RANKS; i += GRAD_THREADS) {
        int64_t from = m + i / PLAIN_RANKS;
        int32_t j = rank + i % PLAIN_RANKS;
        float value = 0.0f;
        if (from < end && j < part.r) {
            value = elem_get(part.left + from * part.left_stride + j);
            if (part.is_da && job.gates) {
                int64_t set = job.gate_of_row ? job.gate_of_row[from] : 0;
                value *= job.gates[set * part.r + j];
            }
        }
        left[i / PLAIN_RANKS][i % PLAIN_RANKS] = value;
    }
}

template <typename T>
static __global__ void __launch_bounds__(GRAD_THREADS) lora_grad_plain_kernel(grad_job<T> job)
{
    MEED_SHARED(float[PLAIN_DEPTH][PLAIN_COLS], right);
    MEED_SHARED(float[PLAIN_DEPTH][PLAIN_RANKS], left);
    const grad_part<T> &part = job.parts[grad_part_find(job)];
    int32_t col = ((int32_t)blockIdx.x - part.block) * PLAIN_COLS;
    int32_t rank = (int32_t)blockIdx.z * PLAIN_RANKS;
    int64_t m = (int64_t)blockIdx.y * SLAB_ROWS;
    int64_t end = min(m + SLAB_ROWS, job.rows);
    int c = (int)threadIdx.x % (PLAIN_COLS / 4) * 4;
    int j = (int)threadIdx.x / (PLAIN_COLS / 4) * 2;
    if (rank < part.r) {
        float sums[4][2] = {};
        for (; m < end; m += PLAIN_DEPTH) {
            plain_load(right, left, job, part, m, end, col, rank);
            __syncthreads();
#pragma unroll
            for (int row = 0; row < PLAIN_DEPTH; row++) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    sums[i / 2][i % 2] =
                        fmaf(right[row][c + i / 2], left[row][j + i % 2], sums[i / 2][i % 2]);
                }
            }
            __syncthreads();
        }
        for (int i = 0; i < 8; i++) {
            if (col + c + i / 2 < part.cols && rank + j + i % 2 < part.r) {
                *grad_sum_at(job, part, col + c + i / 2, rank + j + i % 2) = sums[i / 2][i % 2];
            }
        }
    }
}

template <typename T>
static __global__ void __launch_bounds__(GRAD_THREADS) lora_grad_slabs_kernel(grad_job<T> job)
{
    int64_t element = (int64_t)blockIdx.x * GRAD_THREADS + threadIdx.x;
    if (element < job.total) {
        int idx = 0;
        while (idx + 1 < job.part_count && element >= job.parts[idx + 1].first) {
            idx++;
        }
        const grad_part<T> &part = job.parts[idx];
        float total = 0.0f;
        for (int32_t slab = 0; slab < job.slabs; slab++) {
            total += job.sums[slab * job.total + element];
        }
        /* Rounded, then added: the same bits where a rank computes on zeros and another adds. */
        float *out = &part.out[element - part.first];
        *out = __fadd_rn(*out, __fmul_rn(part.scale, total));
    }
}

/* --- dx -------------------------------------------------------------------------------------- */

static constexpr int DX_THREADS = 256;
static constexpr int DX_ROWS = DX_THREADS / 32 * 16;
static constexpr int DX_COLS = 128;
static constexpr int DX_DEPTH = 32;
static constexpr int DX_PITCH = DX_COLS + 8;
static constexpr int SUM_COLS = 64; /* of a warp's rows in shared memory at a time */
static constexpr int SUM_PITCH = SUM_COLS + 4;

template <typename T> struct dx_job {
    T *dxt;
    const T *a;
    const float *gates;
    const int32_t *gate_of_row;
    struct tail_mask mask;
    int64_t stride;
    int64_t a_stride;
    int64_t rows;
    int32_t k;
    int32_t r;
    bool aligned;
    bool a_aligned;
    bool pairs_aligned; /* dT at even columns may be read two at a time */
};

template <typename T>
static __device__ __forceinline__ float dx_gate(const dx_job<T> &job, int64_t m, int32_t j)
{
    int32_t set = job.gate_of_row ? job.gate_of_row[m] : 0;
    return job.gates[set * job.r + j];
}

/* Adds sums of N columns, masked, to a row of dx. */
template <typename T, int N>
static __device__ __forceinline__ void dx_add(const dx_job<T> &job, int64_t m, int32_t col,
                                              float (&sums)[N])
{
    if (job.mask.threshold) {
        uint32_t bits = tail_mask_bits<N>(job.mask, (uint64_t)m * (uint64_t)job.k + (uint64_t)col);
#pragma unroll
        for (int i = 0; i < N; i++) {
            sums[i] = bits >> i & 1 ? sums[i] * job.mask.scale : 0.0f;
        }
    }
    T *to = job.dxt + m * job.stride + col;
    float v[N];
    lanes_get(v, (const T *)to, job.k - col, job.aligned, 0.0f);
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] += sums[i];
    }
    lanes_put(to, v, job.k - col, job.aligned);
}

/* U of row m, ranks j and j + 1, as bf16 pairs: high, and what high misses. */
template <bool GATED>
static __device__ __forceinline__ void dx_pair(const dx_job<meed_bf16> &job, int64_t m, int32_t j,
                                               uint32_t *high, uint32_t *low)
{
    const meed_bf16 *from = job.dxt + m * job.stride + job.k + j;
    uint32_t raw = 0;
    if (m < job.rows && j + 1 < job.r && job.pairs_aligned) {
        raw = *(const uint32_t *)from;
    } else if (m < job.rows) {
        raw = (j < job.r ? from[0] : 0u) | (j + 1 < job.r ? (uint32_t)from[1] << 16 : 0u);
    }
    *high = raw;
    *low = 0;
    if constexpr (GATED) {
        float u[2];
        meed_unpack_bf16x2(raw, &u[0], &u[1]);
        u[0] *= m < job.rows && j < job.r ? dx_gate(job, m, j) : 0.0f;
        u[1] *= m < job.rows && j + 1 < job.r ? dx_gate(job, m, j + 1) : 0.0f;
        *high = meed_pack_bf16x2(u[0], u[1]);
        float rounded[2];
        meed_unpack_bf16x2(*high, &rounded[0], &rounded[1]);
        *low = meed_pack_bf16x2(u[0] - rounded[0], u[1] - rounded[1]);
    }
}

/* sums += U·A over ranks [rank, rank + DX_DEPTH): the warp's 16 rows from `row`, all columns. */
template <bool GATED>
static __device__ __forceinline__ void dx_product(float (&sums)[DX_COLS / 8][4],
                                                  const dx_job<meed_bf16> &job,
                                                  const meed_bf16 *tile, int64_t row, int32_t rank)
{
    int lane = (int)threadIdx.x % 32;
    const meed_bf16 *tile_at = tile + (lane & 15) * DX_PITCH + (lane >> 4) * 8;
#pragma unroll 1
    for (int k = 0; k < DX_DEPTH; k += 16) {
        uint32_t high[4];
        uint32_t low[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            dx_pair<GATED>(job, row + lane / 4 + i % 2 * 8, rank + k + lane % 4 * 2 + i / 2 * 8,
                           &high[i], &low[i]);
        }
#pragma unroll
        for (int n = 0; n < DX_COLS / 8; n += 2) {
            uint32_t b[4];
            meed_ldmatrix_x4_trans(b, tile_at + k * DX_PITCH + 8 * n);
            meed_mma_bf16_16816(sums[n], high, b);
            meed_mma_bf16_16816(sums[n + 1], high, b + 2);
            if constexpr (GATED) {
                meed_mma_bf16_16816(sums[n], low, b);
                meed_mma_bf16_16816(sums[n + 1], low, b + 2);
            }
        }
    }
}

template <bool GATED>
static __global__ void __launch_bounds__(DX_THREADS, 2) lora_dx_tensor_kernel(dx_job<meed_bf16> job)
{
    MEED_SHARED(uint4[DX_DEPTH * DX_PITCH / 8], a_tile);
    MEED_SHARED(float4[DX_THREADS / 32][16 * SUM_PITCH / 4], stages);
    meed_bf16 *tile = (meed_bf16 *)a_tile;
    int64_t row = (int64_t)blockIdx.x * DX_ROWS + threadIdx.x / 32 * 16;
    int32_t col = (int32_t)blockIdx.y * DX_COLS;
    float sums[DX_COLS / 8][4] = {};
    for (int32_t rank = 0; rank < job.r; rank += DX_DEPTH) {
#pragma unroll 1
        for (int i = 0; i < DX_DEPTH * DX_COLS / 8 / DX_THREADS; i++) {
            int at = (int)threadIdx.x + i * DX_THREADS;
            int32_t j = at / (DX_COLS / 8);
            int32_t c = at % (DX_COLS / 8) * 8;
            chunk_load(tile + j * DX_PITCH + c, job.a + (rank + j) * job.a_stride + col + c,
                       rank + j < job.r ? job.k - col - c : 0, job.a_aligned);
        }
        meed_cp_async_commit();
        meed_cp_async_wait<0>();
        __syncthreads();
        dx_product<GATED>(sums, job, tile, row, rank);
        __syncthreads();
    }
    int lane = (int)threadIdx.x % 32;
    float *stage = (float *)stages[threadIdx.x / 32];
#pragma unroll
    for (int half = 0; half < DX_COLS / SUM_COLS; half++) {
#pragma unroll
        for (int n = 0; n < SUM_COLS / 8; n++) {
            const float *from = sums[half * (SUM_COLS / 8) + n];
            float *to = stage + lane / 4 * SUM_PITCH + 8 * n + lane % 4 * 2;
            *(float2 *)to = make_float2(from[0], from[1]);
            *(float2 *)(to + 8 * SUM_PITCH) = make_float2(from[2], from[3]);
        }
        __syncwarp();
#pragma unroll 1
        for (int at = lane; at < 16 * SUM_COLS / 8; at += 32) {
            int64_t m = row + at / (SUM_COLS / 8);
            int32_t c = at % (SUM_COLS / 8) * 8;
            if (m < job.rows && col + half * SUM_COLS + c < job.k) {
                float v[8];
                lanes_get(v, (const float *)stage + at / (SUM_COLS / 8) * SUM_PITCH + c, 8, true,
                          0.0f);
                dx_add(job, m, col + half * SUM_COLS + c, v);
            }
        }
        __syncwarp();
    }
}

template <typename T>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) lora_dx_plain_kernel(dx_job<T> job)
{
    constexpr int N = LANE_COUNT<T>;
    sweep<N>(job.rows, job.k, [&](int64_t m, int64_t col) {
        float sums[N] = {};
        for (int32_t j = 0; j < job.r; j++) {
            float u = elem_get(job.dxt + m * job.stride + job.k + j);
            if (job.gates) {
                u *= dx_gate(job, m, j);
            }
            float a[N];
            lanes_get(a, job.a + j * job.a_stride + col, job.k - col, job.a_aligned, 0.0f);
#pragma unroll
            for (int i = 0; i < N; i++) {
                sums[i] = fmaf(u, a[i], sums[i]);
            }
        }
        dx_add(job, m, (int32_t)col, sums);
    });
}

template <typename T>
static void dx_launch(const struct meed_backend *be, struct meed_mat dxt, int64_t k,
                      const struct meed_tail *tail)
{
    dx_job<T> job;
    job.dxt = (T *)dxt.data;
    job.a = (const T *)tail->a.data;
    job.gates = tail->gates;
    job.gate_of_row = tail->gate_of_row;
    job.mask = tail_mask_make(tail);
    job.stride = dxt.stride;
    job.a_stride = tail->a.stride;
    job.rows = dxt.rows;
    job.k = (int32_t)k;
    job.r = (int32_t)tail->a.rows;
    job.aligned = lanes_aligned(dxt);
    job.a_aligned = lanes_aligned(tail->a);
    job.pairs_aligned = job.aligned && k % 2 == 0;
    cudaStream_t stream = meed_cuda_stream(be);
    if constexpr (sizeof(T) == 4) {
        MEED_LAUNCH((lora_dx_plain_kernel<T>), sweep_grid(job.rows, k, LANE_COUNT<T>),
                    sweep_block(), 0, stream, job);
    } else {
        dim3 grid((unsigned)((job.rows + DX_ROWS - 1) / DX_ROWS),
                  (unsigned)((k + DX_COLS - 1) / DX_COLS));
        if (job.gates) {
            MEED_LAUNCH((lora_dx_tensor_kernel<true>), grid, dim3(DX_THREADS), 0, stream, job);
        } else {
            MEED_LAUNCH((lora_dx_tensor_kernel<false>), grid, dim3(DX_THREADS), 0, stream, job);
        }
    }
    meed_cuda_check(be, cudaGetLastError(), "lora_grad dx");
}

/* --- launching ------------------------------------------------------------------------------- */

template <typename T>
static void part_push(grad_job<T> &job, struct meed_mat left, struct meed_mat right, float *out,
                      float scale, bool is_da, int block_cols)
{
    MEED_ASSERT(job.part_count < GRAD_PARTS);
    MEED_ASSERT(left.cols * right.cols <= INT32_MAX);
    if (left.cols == 0 || right.cols == 0) {
        return;
    }
    grad_part<T> &part = job.parts[job.part_count++];
    part.left = (const T *)left.data;
    part.right = (const T *)right.data;
    part.out = out;
    part.left_stride = left.stride;
    part.right_stride = right.stride;
    part.first = job.total;
    part.r = (int32_t)left.cols;
    part.cols = (int32_t)right.cols;
    part.block = job.blocks;
    part.scale = scale;
    part.is_da = is_da;
    part.left_aligned = lanes_aligned(left);
    part.right_aligned = lanes_aligned(right);
    job.total += left.cols * right.cols;
    job.blocks += (part.cols + block_cols - 1) / block_cols;
    job.rank_max = MEED_MAX(job.rank_max, part.r);
}

template <typename T>
static void factors_launch(const struct meed_backend *be, struct meed_mat dy, struct meed_mat xt,
                           int64_t k, const struct meed_tail *tail,
                           const struct meed_lora_slot *slots, int32_t slot_count, float *da,
                           struct meed_mat dxt)
{
    bool tensor = sizeof(T) == 2 && !(da && tail->gates);
    int block_cols = tensor ? GRAD_COLS : PLAIN_COLS;
    grad_job<T> job = {};
    job.gates = tail->gates;
    job.gate_of_row = tail->gate_of_row;
    job.mask = tail_mask_make(tail);
    job.rows = xt.rows;
    job.slabs = (int32_t)((xt.rows + SLAB_ROWS - 1) / SLAB_ROWS);
    if (da) {
        part_push(job, meed_mat_cols(dxt, k, tail->a.rows), meed_mat_cols(xt, 0, k), da,
                  job.mask.scale, true, block_cols);
    }
    for (int32_t i = 0; i < slot_count; i++) {
        const struct meed_lora_slot *slot = &slots[i];
        MEED_ASSERT(slot->n_begin + slot->n_count <= dy.cols);
        MEED_ASSERT(slot->t_begin + slot->r <= tail->a.rows);
        if (slot->db) {
            part_push(job, meed_mat_cols(xt, k + slot->t_begin, slot->r),
                      meed_mat_cols(dy, slot->n_begin, slot->n_count), slot->db, slot->scale, false,
                      block_cols);
        }
    }
    if (job.part_count == 0) {
        return;
    }
    job.sums = (float *)meed_cuda_scratch(be, (size_t)(job.slabs * job.total) * sizeof *job.sums);
    if (!job.sums) {
        return;
    }
    int ranks = tensor ? GRAD_RANKS : PLAIN_RANKS;
    dim3 grid((unsigned)job.blocks, (unsigned)job.slabs,
              (unsigned)((job.rank_max + ranks - 1) / ranks));
    cudaStream_t stream = meed_cuda_stream(be);
    if constexpr (sizeof(T) == 2) {
        if (tensor) {
            MEED_LAUNCH((lora_grad_tensor_kernel), grid, dim3(GRAD_THREADS), 0, stream, job);
        }
    }
    if (!tensor) {
        MEED_LAUNCH((lora_grad_plain_kernel<T>), grid, dim3(GRAD_THREADS), 0, stream, job);
    }
    dim3 flat((unsigned)((job.total + GRAD_THREADS - 1) / GRAD_THREADS));
    MEED_LAUNCH((lora_grad_slabs_kernel<T>), flat, dim3(GRAD_THREADS), 0, stream, job);
    meed_cuda_check(be, cudaGetLastError(), "lora_grad");
}

extern "C" void meed_cuda_lora_grad(const struct meed_backend *be, struct meed_mat dy,
                                    struct meed_mat xt, int64_t k, const struct meed_tail *tail,
                                    const struct meed_lora_slot *slots, int32_t slot_count,
                                    float *da, bool dx_wanted, struct meed_mat dxt)
{
    int64_t r = tail_rank(tail);
    if (r == 0 || dxt.rows == 0) {
        return;
    }
    MEED_ASSERT(tail->a.cols == k && xt.cols == k + r && dxt.cols == k + r);
    MEED_ASSERT(dy.rows == xt.rows && dxt.rows == xt.rows);
    MEED_ASSERT(dxt.dtype == tail->a.dtype && xt.dtype == dxt.dtype && dy.dtype == dxt.dtype);
    bool f32 = dxt.dtype == MEED_DTYPE_F32;
    (f32 ? factors_launch<float> : factors_launch<meed_bf16>)(be, dy, xt, k, tail, slots,
                                                              slot_count, da, dxt);
    if (dx_wanted) {
        (f32 ? dx_launch<float> : dx_launch<meed_bf16>)(be, dxt, k, tail);
    }
}
