/* Attention without tensor cores: fp32 models, and bf16 heads that the tensor-core path refuses.
 *
 * This is the oracle path: every product is a chain of fp32 fused multiply-adds, and the only
 * tuning is that the eight warps of a block share the keys they read. A warp owns one (row, head);
 * 32 keys a step lie in shared memory as fp32, with an odd pitch so that lane j may read key j
 * without conflicts. Each lane makes one whole score; the output's columns are spread over the
 * lanes, each a chain over the keys in order. A row stops at its own last key, and its bits depend
 * on nothing else. Any head size whose tiles fit into shared memory (about 600).
 */
#ifndef MEED_CUDA_ATTENTION_PLAIN_CUH
#define MEED_CUDA_ATTENTION_PLAIN_CUH

#include "kernels/cuda/attention.cuh"

static constexpr int32_t PLAIN_WARPS = 8;
static constexpr int32_t PLAIN_THREADS = 32 * PLAIN_WARPS;
static constexpr int32_t PLAIN_KEYS = 32;

static __device__ __forceinline__ float plain_get(const float *data)
{
    return *data;
}
static __device__ __forceinline__ float plain_get(const meed_bf16 *data)
{
    return meed_bf16_float(*data);
}
static __device__ __forceinline__ void plain_put(float *data, float value)
{
    *data = value;
}
static __device__ __forceinline__ void plain_put(meed_bf16 *data, float value)
{
    *data = meed_float_bf16(value);
}

static __device__ __forceinline__ float plain_warp_sum(float value)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
    }
    return value;
}
static __device__ __forceinline__ float plain_warp_max(float value)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, lanes));
    }
    return value;
}

/* Rows [first, first + 32) of one head as fp32, zeros from `end` on; pitch size + 1. */
template <typename T>
static __device__ inline void plain_load(float *tile, const T *data, int64_t stride, int32_t size,
                                         int32_t first, int32_t end)
{
    for (int32_t i = (int32_t)threadIdx.x; i < PLAIN_KEYS * size; i += PLAIN_THREADS) {
        int32_t row = i / size;
        int32_t col = i % size;
        bool real = first + row < end;
        tile[row * (size + 1) + col] =
            real ? plain_get(data + (int64_t)(first + row) * stride + col) : 0.0f;
    }
}

static __device__ __forceinline__ float plain_dot(const float *a, const float *b, int32_t size)
{
    float sum = 0.0f;
    for (int32_t d = 0; d < size; d++) {
        sum = fmaf(a[d], b[d], sum);
    }
    return sum;
}
/* row[d] = row[d]·shrink + Σ_j weight[j]·tile[j, d], j in order, for this lane's columns. */
static __device__ inline void plain_add(float *row, float shrink, const float *weight,
                                        const float *tile, int32_t size)
{
    for (int32_t d = (int32_t)(threadIdx.x & 31); d < size; d += 32) {
        float sum = row[d] * shrink;
        for (int32_t j = 0; j < PLAIN_KEYS; j++) {
            sum = fmaf(weight[j], tile[j * (size + 1) + d], sum);
        }
        row[d] = sum;
    }
}

/* The keys of a block and the row of a warp. */
template <typename T, typename C> struct plain_task {
    const T *q; /* [size] */
    const C *k; /* position 0, positions kv_stride apart */
    const C *v;
    int64_t kv_stride;
    T *out;
    float *lse; /* or NULL */
    int32_t size;
    int32_t first; /* the block's keys [first, keys), from a multiple of 32 */
    int32_t keys;
    int32_t limit;  /* the warp's last visible key; −1: no row */
    int32_t window; /* > 0: keys that a row sees up to its limit */
    float scale;
    /* A paged cache: keys lie together in blocks of 64, block b pages[b]·page_stride behind k. */
    const int32_t *pages = nullptr;
    int64_t page_stride = 0;
};

static inline size_t plain_attend_bytes(int32_t size)
{
    return sizeof(float) *
           (size_t)(2 * PLAIN_KEYS * (size + 1) + PLAIN_WARPS * (2 * size + PLAIN_KEYS));
}

template <typename T, typename C>
static __device__ inline void plain_attend(float *shared, const struct plain_task<T, C> &task)
{
    int32_t size = task.size;
    int32_t lane = (int32_t)(threadIdx.x & 31);
    float *k_tile = shared;
    float *v_tile = k_tile + PLAIN_KEYS * (size + 1);
    float *q =
        v_tile + PLAIN_KEYS * (size + 1) + (int32_t)(threadIdx.x / 32) * (2 * size + PLAIN_KEYS);
    float *out = q + size;
    float *weight = out + size;
    float scale = task.scale * ATTEND_LOG2E;
    float peak = -INFINITY;
    float sum = 0.0f;
    for (int32_t d = lane; d < size; d += 32) {
        q[d] = task.limit >= 0 ? plain_get(task.q + d) : 0.0f;
        out[d] = 0.0f;
    }
    for (int32_t key = task.first; key < task.keys; key += PLAIN_KEYS) {
        int64_t page = 0;
        if (task.pages) { /* from the page's first row back to where key 0 would lie */
            page = task.pages[key / MEED_KV_PAGE] * task.page_stride -
                   key / MEED_KV_PAGE * MEED_KV_PAGE * task.kv_stride;
        }
        __syncthreads();
        plain_load(k_tile, task.k + page, task.kv_stride, size, key, task.keys);
        plain_load(v_tile, task.v + page, task.kv_stride, size, key, task.keys);
        __syncthreads();
        if (key <= task.limit && task.limit - key < task.window + PLAIN_KEYS - 1) {
            float score = attend_sees(task.limit, key + lane, task.window)
                              ? plain_dot(q, k_tile + lane * (size + 1), size)
                              : -INFINITY;
            float top = fmaxf(peak, plain_warp_max(score));
            float shrink = meed_exp2f((peak - top) * scale);
            weight[lane] = meed_exp2f((score - top) * scale);
            sum = fmaf(sum, shrink, plain_warp_sum(weight[lane]));
            peak = top;
            __syncwarp();
            plain_add(out, shrink, weight, v_tile, size);
            __syncwarp();
        }
    }
    if (task.limit >= 0) {
        for (int32_t d = lane; d < size; d += 32) {
            plain_put(task.out + d, out[d] / sum);
        }
        if (task.lse && lane == 0) {
            *task.lse = fmaf(peak, task.scale, logf(sum));
        }
    }
}

#endif
