/* The low-rank tail on the device: T = gates ⊙ (x̃·Aᵀ) of 16 rows, as a piece that producers of x
 * run on the rows they have just written, and that lora_down and attention run over a finished x.
 *
 * Cost. x is M·K, A is R·K with R of 8 to 64 as a rule: 2·R FLOPs for each 2 bytes of x, far below
 * what tensor cores need, so bytes decide. A pass of its own reads x once more, 2·M·K bytes: 64 of
 * the 224 MiB that the forward of a linear moves at K = N = 4,096 and M 8,192. Fused, those bytes
 * come from L2 and the launch goes; what remains is A, read once per 16 rows, from L2 too.
 *
 * Shape. A block is eight warps. They split K, not R or the rows: warp w takes chunks w, w + 8, …
 * of 64 columns, for all 16 rows and up to 48 ranks. So no element of x or of A is wanted by two
 * warps, and nothing goes through shared memory on its way to the tensor cores. A fragment is 16
 * bytes of a row straight from memory: the columns of a product may be permuted as long as both
 * sides agree, so lane q of a quad takes columns 8q … 8q + 7 of 32 and feeds them to two mma steps
 * as if they were columns 2q, 2q + 1, 2q + 8, 2q + 9 of each. That is one wide load where ldmatrix
 * would need a copy, a barrier and a second load. Registers: 4 accumulators and 8 of A for every
 * eight ranks, 16 of x; shared memory 16·(8·NT + 8)·8 floats, 28 KB at most, where the warps' sums
 * meet in the order of the warps.
 *
 * Slices. K is cut into slices of 2,048 columns; a slice's sum is complete before the next is added
 * to it. One block may do all slices of its rows, as the fused form does, or each slice may have a
 * block of its own and leave fp32 sums to tail_finish: same order, same bits. A decode step of one
 * row would otherwise stream all of A through one multiprocessor.
 *
 * fp32 has the same slices and ownership, and a plain chain of FMAs over a slice.
 *
 * Dropout (Srivastava et al. 2014) acts on x in this branch alone, and no mask is stored: element
 * (m, k) stays if word (e mod 4) of Philox block (e div 4) is at least the threshold, e = m·K + k
 * (Salmon et al. 2011; base/rng.h is the host's). Dropped elements become 0 on the way to the
 * product, and 1/(1 − p) multiplies the finished sum, so x̃ is never rounded.
 */
#ifndef MEED_KERNELS_CUDA_TAIL_CUH
#define MEED_KERNELS_CUDA_TAIL_CUH

#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/lanes.cuh"

static constexpr int TAIL_THREADS = 256;
static constexpr int TAIL_WARPS = TAIL_THREADS / 32;
static constexpr int TAIL_ROWS = 16;
static constexpr int TAIL_CHUNK = 64;   /* columns a warp takes at a time */
static constexpr int TAIL_SLICE = 2048; /* a multiple of TAIL_CHUNK */

/* Fills columns [k, k + R) of xt from its first k; without a tail (NULL, or R = 0) does nothing.
 * In stream order after whoever wrote x; uses scratch. */
MEED_BEGIN_C
void meed_cuda_tail_apply(const struct meed_backend *be, struct meed_mat xt, int64_t k,
                          const struct meed_tail *tail);
MEED_END_C

static inline int64_t tail_rank(const struct meed_tail *tail)
{
    return tail && tail->a.data ? tail->a.rows : 0;
}
static inline int64_t tail_slice_count(int64_t k)
{
    return (k + TAIL_SLICE - 1) / TAIL_SLICE;
}

/* --- dropout --------------------------------------------------------------------------------- */

struct tail_mask {
    const uint64_t *key; /* in device memory: it changes from batch to batch */
    uint32_t threshold;  /* 0: everything stays */
    float scale;         /* 1/(1 − p) */
};

static inline struct tail_mask tail_mask_make(const struct meed_tail *tail)
{
    MEED_ASSERT(tail->dropout >= 0.0f && tail->dropout < 1.0f);
    double bound = (double)tail->dropout * 4294967296.0;
    struct tail_mask mask;
    mask.key = tail->dropout_key;
    mask.threshold = bound >= 4294967295.0 ? 0xFFFFFFFFu : (uint32_t)bound;
    mask.scale = 1.0f / (1.0f - tail->dropout);
    return mask;
}

/* Bit i of the result: word i of this Philox4x32-10 block is at least the threshold. */
static __device__ __forceinline__ uint32_t tail_mask_block(const struct tail_mask &mask,
                                                           uint64_t block)
{
    struct philox_words at = philox_block(*mask.key, block);
    return (uint32_t)(at.x >= mask.threshold) | (uint32_t)(at.y >= mask.threshold) << 1 |
           (uint32_t)(at.z >= mask.threshold) << 2 | (uint32_t)(at.w >= mask.threshold) << 3;
}

/* Bit i: element + i stays, for N elements (4 or 8). */
template <int N>
static __device__ __forceinline__ uint32_t tail_mask_bits(const struct tail_mask &mask,
                                                          uint64_t element)
{
    int shift = (int)(element & 3);
    uint32_t bits = 0;
#pragma unroll 1
    for (int i = 0; i < N + shift; i += 4) {
        bits |= tail_mask_block(mask, element / 4 + (uint64_t)i / 4) << i;
    }
    return bits >> shift;
}

/* Eight bf16 with the dropped ones zero. */
static __device__ __forceinline__ uint4 tail_mask_octet(uint4 raw, uint32_t bits)
{
    raw.x &= (bits & 1 ? 0xFFFFu : 0) | (bits & 2 ? 0xFFFF0000u : 0);
    raw.y &= (bits & 4 ? 0xFFFFu : 0) | (bits & 8 ? 0xFFFF0000u : 0);
    raw.z &= (bits & 16 ? 0xFFFFu : 0) | (bits & 32 ? 0xFFFF0000u : 0);
    raw.w &= (bits & 64 ? 0xFFFFu : 0) | (bits & 128 ? 0xFFFF0000u : 0);
    return raw;
}

/* --- the sum of a slice ---------------------------------------------------------------------- */

template <typename T> struct tail_job {
    T *x; /* [M, K + R], or NULL R where there is no tail */
    const T *a;
    const float *gates;
    const int32_t *gate_of_row;
    struct tail_mask mask;
    int64_t x_stride;
    int64_t rows;
    int32_t a_stride; /* R·stride of A fits 31 bits */
    int32_t k;
    int32_t r;    /* 0: no tail */
    bool aligned; /* rows of x and A start at multiples of 16 bytes, and K is whole lane groups */
};

template <typename T>
static tail_job<T> tail_job_make(struct meed_mat x, int64_t k, const struct meed_tail *tail)
{
    tail_job<T> job = {};
    job.x = (T *)x.data;
    job.x_stride = x.stride;
    job.rows = x.rows;
    job.k = (int32_t)k;
    job.r = (int32_t)tail_rank(tail);
    if (job.r > 0) {
        MEED_ASSERT(tail->a.cols == k && tail->a.dtype == x.dtype && x.cols == k + job.r);
        job.a = (const T *)tail->a.data;
        MEED_ASSERT((job.r + 64) * tail->a.stride <= INT32_MAX);
        job.a_stride = (int32_t)tail->a.stride;
        job.gates = tail->gates;
        job.gate_of_row = tail->gate_of_row;
        job.mask = tail_mask_make(tail);
        job.aligned = lanes_aligned(x) && lanes_aligned(tail->a) && k % LANE_COUNT<T> == 0;
    }
    return job;
}

/* Calls launch with a tail_width whose 8·TILES ranks a block takes at a time. */
template <int NT> struct tail_width {
    static constexpr int TILES = NT;
};
template <typename Launch> static void tail_dispatch(int64_t r, const Launch &launch)
{
    if (r <= 16) {
        launch(tail_width<2>());
    } else if (r <= 32) {
        launch(tail_width<4>());
    } else {
        launch(tail_width<6>());
    }
}

/* A thread owns outputs threadIdx + i·256, i < NT/2, of the block's 16 rows × 8·NT ranks. */
template <int NT> static constexpr int TAIL_OWN = NT / 2;
template <int NT> static constexpr int TAIL_PITCH = 8 * NT + 8;
/* Floats of shared memory; kernels declare float4, for its alignment. */
template <typename T, int NT>
static constexpr int TAIL_SHARED = sizeof(T) == 2 ? TAIL_WARPS *TAIL_ROWS *TAIL_PITCH<NT> : 4;

/* Eight bf16 from `at`, of which `count` are real. The unaligned form is a loop on purpose:
 * unrolled, its loads would take the registers that the accumulators need. */
template <bool ALIGNED>
static __device__ __forceinline__ uint4 tail_octet(const meed_bf16 *at, int32_t count)
{
    if constexpr (ALIGNED) {
        return count > 0 ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
    }
    uint64_t low = 0;
    uint64_t high = 0;
#pragma unroll 1
    for (int i = 0; i < 4; i++) {
        low = low >> 16 | (uint64_t)(i < count ? at[i] : 0) << 48;
        high = high >> 16 | (uint64_t)(i + 4 < count ? at[i + 4] : 0) << 48;
    }
    return make_uint4((uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32));
}

/* sums += 16 rows × 32 columns from k of x, times the same columns of 8·NT rows of A. */
template <int NT, bool ALIGNED>
static __device__ __forceinline__ void tail_step(float (&sums)[NT][4],
                                                 const tail_job<meed_bf16> &job, int64_t row,
                                                 int32_t rank, int32_t k, int32_t k_end)
{
    int lane = (int)threadIdx.x % 32;
    int32_t col = k + lane % 4 * 8;
    int32_t count = k_end - col;
    uint4 x[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t m = row + lane / 4 + 8 * h;
        x[h] = tail_octet<ALIGNED>(job.x + m * job.x_stride + col, m < job.rows ? count : 0);
        if (job.mask.threshold) {
            x[h] = tail_mask_octet(
                x[h], tail_mask_bits<8>(job.mask, (uint64_t)m * (uint64_t)job.k + (uint64_t)col));
        }
    }
    uint32_t first[4] = {x[0].x, x[1].x, x[0].y, x[1].y};
    uint32_t second[4] = {x[0].z, x[1].z, x[0].w, x[1].w};
    int32_t a_at = (rank + lane / 4) * job.a_stride + col;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        bool real = rank + 8 * n + lane / 4 < job.r;
        uint4 raw = tail_octet<ALIGNED>(job.a + (a_at + 8 * n * job.a_stride), real ? count : 0);
        uint32_t low[2] = {raw.x, raw.y};
        uint32_t high[2] = {raw.z, raw.w};
        meed_mma_bf16_16816(sums[n], first, low);
        meed_mma_bf16_16816(sums[n], second, high);
    }
}

/* sums[i] = this thread's outputs of one slice, for rows from `row` and ranks from `rank`. All
 * threads of the block call it; `shared` is free again when it returns. */
template <int NT>
static __device__ __forceinline__ void tail_slice(float (&sums)[TAIL_OWN<NT>], float *shared,
                                                  const tail_job<meed_bf16> &job, int64_t row,
                                                  int32_t rank, int32_t slice)
{
    constexpr int PITCH = TAIL_PITCH<NT>;
    int lane = (int)threadIdx.x % 32;
    int warp = (int)threadIdx.x / 32;
    int32_t end = min(job.k, (slice + 1) * TAIL_SLICE);
    float parts[NT][4] = {};
    for (int32_t k = slice * TAIL_SLICE + warp * TAIL_CHUNK; k < end;
         k += TAIL_WARPS * TAIL_CHUNK) {
        if (job.aligned) {
            tail_step<NT, true>(parts, job, row, rank, k, end);
            tail_step<NT, true>(parts, job, row, rank, k + TAIL_CHUNK / 2, end);
        } else {
#pragma unroll 1
            for (int32_t half = k; half < k + TAIL_CHUNK; half += TAIL_CHUNK / 2) {
                tail_step<NT, false>(parts, job, row, rank, half, end);
            }
        }
    }
    float *mine = shared + (warp * TAIL_ROWS + lane / 4) * PITCH + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        *(float2 *)(mine + 8 * n) = make_float2(parts[n][0], parts[n][1]);
        *(float2 *)(mine + 8 * PITCH + 8 * n) = make_float2(parts[n][2], parts[n][3]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TAIL_OWN<NT>; i++) {
        int own = (int)threadIdx.x + i * TAIL_THREADS;
        const float *from = shared + own / (8 * NT) * PITCH + own % (8 * NT);
        sums[i] = from[0];
#pragma unroll
        for (int w = 1; w < TAIL_WARPS; w++) {
            sums[i] += from[w * TAIL_ROWS * PITCH];
        }
    }
    __syncthreads();
}

template <int NT>
static __device__ __forceinline__ void tail_slice(float (&sums)[TAIL_OWN<NT>], float *shared,
                                                  const tail_job<float> &job, int64_t row,
                                                  int32_t rank, int32_t slice)
{
    (void)shared;
    int32_t end = min(job.k, (slice + 1) * TAIL_SLICE);
#pragma unroll
    for (int i = 0; i < TAIL_OWN<NT>; i++) {
        int own = (int)threadIdx.x + i * TAIL_THREADS;
        int64_t m = row + own / (8 * NT);
        int32_t j = rank + own % (8 * NT);
        sums[i] = 0.0f;
        if (m >= job.rows || j >= job.r) {
            continue;
        }
        for (int32_t k = slice * TAIL_SLICE; k < end; k += 4) {
            float x[4];
            float a[4];
            lanes_get(x, job.x + m * job.x_stride + k, end - k, job.aligned, 0.0f);
            lanes_get(a, job.a + j * job.a_stride + k, end - k, job.aligned, 0.0f);
            uint32_t bits = 0xF;
            if (job.mask.threshold) {
                bits = tail_mask_bits<4>(job.mask, (uint64_t)m * (uint64_t)job.k + (uint64_t)k);
            }
#pragma unroll
            for (int c = 0; c < 4; c++) {
                sums[i] = fmaf(bits >> c & 1 ? x[c] : 0.0f, a[c], sums[i]);
            }
        }
    }
}

/* --- all of a row ---------------------------------------------------------------------------- */

/* T of one element from its finished sum. */
template <typename T>
static __device__ __forceinline__ void tail_put(const tail_job<T> &job, int64_t m, int32_t j,
                                                float sum)
{
    if (job.mask.threshold) {
        sum *= job.mask.scale;
    }
    if (job.gates) {
        int64_t set = job.gate_of_row ? job.gate_of_row[m] : 0;
        sum *= job.gates[set * job.r + j];
    }
    elem_put(job.x + m * job.x_stride + job.k + j, sum);
}

/* T of rows [row, row + 16), by a block that has written their x and passed a barrier since. */
template <typename T, int NT>
static __device__ __forceinline__ void tail_rows(float *shared, const tail_job<T> &job, int64_t row)
{
#pragma unroll 1
    for (int32_t rank = 0; rank < job.r; rank += 8 * NT) {
        float total[TAIL_OWN<NT>];
        tail_slice<NT>(total, shared, job, row, rank, 0);
#pragma unroll 1
        for (int32_t slice = 1; slice * TAIL_SLICE < job.k; slice++) {
            float sums[TAIL_OWN<NT>];
            tail_slice<NT>(sums, shared, job, row, rank, slice);
#pragma unroll
            for (int i = 0; i < TAIL_OWN<NT>; i++) {
                total[i] += sums[i];
            }
        }
#pragma unroll
        for (int i = 0; i < TAIL_OWN<NT>; i++) {
            int own = (int)threadIdx.x + i * TAIL_THREADS;
            int64_t m = row + own / (8 * NT);
            int32_t j = rank + own % (8 * NT);
            if (m < job.rows && j < job.r) {
                tail_put(job, m, j, total[i]);
            }
        }
    }
}

/* Is a batch tall enough to fill the device with 16 rows a block? Else a producer leaves the tail
 * to meed_cuda_tail_apply, which has a block for every slice. The bits are the same. */
static inline bool tail_fused(const struct meed_backend *be, int64_t rows,
                              const struct meed_tail *tail)
{
    return tail_rank(tail) > 0 && rows >= (int64_t)TAIL_ROWS * meed_cuda_state_of(be)->sm_count;
}

#endif
