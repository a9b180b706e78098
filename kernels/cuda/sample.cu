/* Picking from rows of logits on the device: the k largest, and one id drawn from a row, so that
 * decoding sends ids to the host and never logits.
 *
 * The algorithm is that of the twin (kernels/cpu/sample.c): ranks that order a row completely, a
 * cut found by radix from their upper bits down, integer weights whose sums are exact in any order.
 * So histograms may be gathered by atomics, which are on integers, and the result does not depend
 * on their order. A block has one row, 2 passes over it for a plain draw and up to 7 more for a
 * cut; logits lie in the second-level cache after the head wrote them. Weights are computed anew in
 * every pass: an exponential costs less than eight bytes of memory.
 */
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/philox.cuh"

static constexpr int SAMPLE_THREADS = 512;
static constexpr int SAMPLE_WARPS = SAMPLE_THREADS / 32;
static constexpr int SAMPLE_ID_BITS = 24;
static constexpr int SAMPLE_RANK_BITS = 32 + SAMPLE_ID_BITS;
static constexpr int SAMPLE_DIGITS = 256;
static constexpr uint64_t SAMPLE_BAD = (uint64_t)0xFFFFFFFFu << SAMPLE_ID_BITS;
static_assert(MEED_VOCAB_MAX == 1 << SAMPLE_ID_BITS, "ids fit below the logit");

typedef unsigned long long sample_word; /* what atomicAdd takes */

template <typename T> struct sample_row {
    const T *logits;
    int32_t vocab;
    float best;
    float inverse; /* of the temperature; 0: weights are not asked for */

    __device__ __forceinline__ uint64_t rank(int32_t id) const
    {
        float value = elem_get(logits + id);
        uint32_t bits = __float_as_uint(value + 0.0f); /* −0 ranks as 0 */
        uint32_t key = bits ^ (bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
        if (value != value || value == INFINITY) {
            key = 0xFFFFFFFFu;
        }
        return (uint64_t)key << SAMPLE_ID_BITS | (uint64_t)(MEED_VOCAB_MAX - 1 - id);
    }
    __device__ __forceinline__ uint64_t weight(int32_t id) const
    {
        float scaled = (elem_get(logits + id) - best) * inverse;
        return inverse > 0.0f ? (uint64_t)(expf(scaled) * 0x1p40f) : 0;
    }
};

static __device__ __forceinline__ int32_t sample_id(uint64_t rank)
{
    return MEED_VOCAB_MAX - 1 - (int32_t)(rank & (MEED_VOCAB_MAX - 1));
}

/* Sum or maximum of the block's words, in every thread. */
template <bool MAX> static __device__ __forceinline__ uint64_t sample_reduce(uint64_t mine)
{
    MEED_SHARED(uint64_t[SAMPLE_WARPS], parts);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        uint64_t other = __shfl_xor_sync(0xFFFFFFFFu, mine, lanes);
        mine = MAX ? (other > mine ? other : mine) : mine + other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = mine;
    }
    __syncthreads();
    uint64_t all = parts[0];
    for (int w = 1; w < SAMPLE_WARPS; w++) {
        all = MAX ? (parts[w] > all ? parts[w] : all) : all + parts[w];
    }
    return all;
}

/* Where a cut stands between two passes. */
struct sample_cut {
    uint64_t prefix;  /* digits chosen so far */
    uint64_t members; /* ranks that begin with them */
    uint64_t above;   /* ranks above all of those, and what they weigh */
    uint64_t mass;
};

/* The bucket in which `count` ranks or the weight `mass` are reached, from the largest down; the
 * lowest that is not empty if neither is. */
static __device__ void sample_choose(struct sample_cut *cut, const unsigned *counts,
                                     const sample_word *masses, uint64_t count, uint64_t mass)
{
    struct sample_cut at = *cut;
    struct sample_cut found = at;
    bool open = true;
    for (int digit = SAMPLE_DIGITS - 1; digit >= 0 && open; digit--) {
        if (counts[digit] > 0) {
            found = at;
            found.prefix = at.prefix << 8 | (uint64_t)digit;
            found.members = counts[digit];
            open = at.above + counts[digit] < count && at.mass + masses[digit] < mass;
            at.above += counts[digit];
            at.mass += masses[digit];
        }
    }
    *cut = found;
}

/* The smallest rank of the set that backend.h and the twin define; ranks from it up are kept. */
template <typename T>
static __device__ uint64_t sample_find(const sample_row<T> &row, uint64_t count, uint64_t mass)
{
    MEED_SHARED(unsigned[SAMPLE_DIGITS], counts);
    MEED_SHARED(sample_word[SAMPLE_DIGITS], masses);
    MEED_SHARED(struct sample_cut, cut);
    int shift = SAMPLE_RANK_BITS;
    bool open = true;
    __syncthreads();
    if (threadIdx.x == 0) {
        cut.prefix = cut.above = cut.mass = 0;
    }
#pragma unroll 1
    while (open) {
        shift -= 8;
        for (int i = (int)threadIdx.x; i < SAMPLE_DIGITS; i += SAMPLE_THREADS) {
            counts[i] = 0;
            masses[i] = 0;
        }
        __syncthreads();
        uint64_t prefix = cut.prefix;
#pragma unroll 1
        for (int32_t id = (int32_t)threadIdx.x; id < row.vocab; id += SAMPLE_THREADS) {
            uint64_t rank = row.rank(id) >> shift;
            if (rank >> 8 == prefix) {
                atomicAdd(&counts[rank & 255], 1u);
                atomicAdd(&masses[rank & 255], (sample_word)row.weight(id));
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            sample_choose(&cut, counts, masses, count, mass);
        }
        __syncthreads();
        open = cut.members > 1;
    }
    return cut.prefix << shift;
}

/* What the ranks from `cut` up weigh. */
template <typename T>
static __device__ __forceinline__ uint64_t sample_mass(const sample_row<T> &row, uint64_t cut)
{
    uint64_t sum = 0;
#pragma unroll 1
    for (int32_t id = (int32_t)threadIdx.x; id < row.vocab; id += SAMPLE_THREADS) {
        sum += row.rank(id) >= cut ? row.weight(id) : 0;
    }
    return sample_reduce<false>(sum);
}

/* The kept id at which the walk in the order of ids passes `left`. Each warp weighs one stretch of
 * the row; the one that holds the place walks it, 32 ids a step. */
template <typename T>
static __device__ void sample_walk(const sample_row<T> &row, uint64_t cut, uint64_t left,
                                   int32_t *id_out)
{
    MEED_SHARED(uint64_t[SAMPLE_WARPS], stretches);
    int32_t warp = (int32_t)threadIdx.x / 32;
    int32_t lane = (int32_t)threadIdx.x % 32;
    int32_t length = (row.vocab + SAMPLE_WARPS - 1) / SAMPLE_WARPS;
    int32_t begin = MEED_MIN(warp * length, row.vocab);
    int32_t end = MEED_MIN(begin + length, row.vocab);
    uint64_t sum = 0;
#pragma unroll 1
    for (int32_t id = begin + lane; id < end; id += 32) {
        sum += row.rank(id) >= cut ? row.weight(id) : 0;
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, lanes);
    }
    if (lane == 0) {
        stretches[warp] = sum;
    }
    __syncthreads();
    for (int32_t w = 0; w < warp; w++) {
        left -= stretches[w]; /* below 0 wraps around: larger than any stretch */
    }
    bool mine = left < sum;
#pragma unroll 1
    for (int32_t first = begin; first < end && mine; first += 32) {
        int32_t id = first + lane;
        uint64_t weight = id < end && row.rank(id) >= cut ? row.weight(id) : 0;
        uint64_t upto = weight;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            uint64_t before = __shfl_up_sync(0xFFFFFFFFu, upto, step);
            upto += lane >= step ? before : 0;
        }
        uint32_t votes = __ballot_sync(0xFFFFFFFFu, upto > left);
        if (votes != 0) {
            if (lane == __ffs((int)votes) - 1) {
                *id_out = id;
            }
            mine = false;
        }
        left -= __shfl_sync(0xFFFFFFFFu, upto, 31);
    }
}

template <typename T>
static __global__ void __launch_bounds__(SAMPLE_THREADS)
    sample_kernel(const T *logits, int64_t stride, int32_t vocab, struct meed_sample_rule rule,
                  const uint64_t *keys, const int32_t *draws, int32_t *ids)
{
    int64_t m = blockIdx.x;
    sample_row<T> row = {logits + m * stride, vocab, 0.0f, 0.0f};
    uint64_t top = 0;
#pragma unroll 1
    for (int32_t id = (int32_t)threadIdx.x; id < vocab; id += SAMPLE_THREADS) {
        uint64_t rank = row.rank(id);
        top = rank > top ? rank : top;
    }
    top = sample_reduce<true>(top);
    bool bad = top >= SAMPLE_BAD || elem_get(row.logits + sample_id(top)) == -INFINITY;
    if (bad || rule.temperature == 0.0f) {
        if (threadIdx.x == 0) {
            ids[m] = bad ? -1 : sample_id(top);
        }
    } else {
        row.best = elem_get(row.logits + sample_id(top));
        row.inverse = 1.0f / rule.temperature;
        uint64_t cut = 0;
        if (rule.top_k > 0 && rule.top_k < vocab) {
            cut = sample_find(row, (uint64_t)rule.top_k, UINT64_MAX);
        }
        uint64_t total = sample_mass(row, cut);
        if (rule.top_p < 1.0f) {
            uint64_t mass = (uint64_t)ceil((double)rule.top_p * (double)total);
            cut = sample_find(row, UINT64_MAX, mass > 0 ? mass : 1);
            total = sample_mass(row, cut);
        }
        struct philox_words words = philox_block(keys[m], (uint64_t)draws[m]);
        uint64_t unit = (uint64_t)words.y << 32 | words.x;
        sample_walk(row, cut, __umul64hi(unit, total), ids + m);
    }
}

template <typename T>
static __global__ void __launch_bounds__(SAMPLE_THREADS)
    top_k_kernel(const T *logits, int64_t stride, int32_t vocab, int32_t k, float *values,
                 int32_t *ids)
{
    MEED_SHARED(uint64_t[MEED_TOP_K_MAX], picked);
    MEED_SHARED(unsigned, count);
    int64_t m = blockIdx.x;
    sample_row<T> row = {logits + m * stride, vocab, 0.0f, 0.0f};
    if (threadIdx.x == 0) {
        count = 0;
    }
    uint64_t cut = sample_find(row, (uint64_t)k, UINT64_MAX);
#pragma unroll 1
    for (int32_t id = (int32_t)threadIdx.x; id < vocab; id += SAMPLE_THREADS) {
        uint64_t rank = row.rank(id);
        if (rank >= cut) {
            picked[atomicAdd(&count, 1u)] = rank;
        }
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < k; i += SAMPLE_THREADS) {
        uint64_t rank = picked[i];
        int32_t place = 0;
        for (int32_t j = 0; j < k; j++) {
            place += picked[j] > rank ? 1 : 0;
        }
        int32_t id = sample_id(rank);
        ids[m * k + place] = id;
        values[m * k + place] = elem_get(row.logits + id);
    }
}

extern "C" void meed_cuda_sample(const struct meed_backend *be, struct meed_mat logits,
                                 struct meed_sample_rule rule, const uint64_t *keys,
                                 const int32_t *draws, int32_t *ids)
{
    MEED_ASSERT(logits.cols >= 1 && logits.cols <= MEED_VOCAB_MAX && logits.rows <= INT32_MAX);
    MEED_ASSERT(rule.temperature >= 0.0f && rule.top_p > 0.0f && rule.top_p <= 1.0f);
    if (logits.rows == 0) {
        return;
    }
    dim3 grid((unsigned)logits.rows);
    int32_t vocab = (int32_t)logits.cols;
    if (logits.dtype == MEED_DTYPE_F32) {
        MEED_LAUNCH((sample_kernel<float>), grid, dim3(SAMPLE_THREADS), 0, meed_cuda_stream(be),
                    (const float *)logits.data, logits.stride, vocab, rule, keys, draws, ids);
    } else {
        MEED_LAUNCH((sample_kernel<meed_bf16>), grid, dim3(SAMPLE_THREADS), 0, meed_cuda_stream(be),
                    (const meed_bf16 *)logits.data, logits.stride, vocab, rule, keys, draws, ids);
    }
    meed_cuda_check(be, cudaGetLastError(), "sample");
}

extern "C" void meed_cuda_top_k(const struct meed_backend *be, struct meed_mat logits, int32_t k,
                                float *values, int32_t *ids)
{
    MEED_ASSERT(k >= 1 && k <= MEED_TOP_K_MAX && k <= logits.cols);
    MEED_ASSERT(logits.cols <= MEED_VOCAB_MAX && logits.rows <= INT32_MAX);
    if (logits.rows == 0) {
        return;
    }
    dim3 grid((unsigned)logits.rows);
    int32_t vocab = (int32_t)logits.cols;
    if (logits.dtype == MEED_DTYPE_F32) {
        MEED_LAUNCH((top_k_kernel<float>), grid, dim3(SAMPLE_THREADS), 0, meed_cuda_stream(be),
                    (const float *)logits.data, logits.stride, vocab, k, values, ids);
    } else {
        MEED_LAUNCH((top_k_kernel<meed_bf16>), grid, dim3(SAMPLE_THREADS), 0, meed_cuda_stream(be),
                    (const meed_bf16 *)logits.data, logits.stride, vocab, k, values, ids);
    }
    meed_cuda_check(be, cudaGetLastError(), "top_k");
}
