/* A row of a matrix in lanes of 16 bytes: four floats or eight bf16, whatever the row's alignment.
 *
 * Row-wise kernels are bound by memory and want 16-byte accesses; engines hand over views whose
 * rows start anywhere. So a thread always owns the same lanes of a row, and only the width of its
 * loads depends on alignment: sums run in the same order either way, and a row's bits do not change
 * with the address of the row before it. Arithmetic is fp32 in registers.
 */
#ifndef MEED_KERNELS_CUDA_LANES_CUH
#define MEED_KERNELS_CUDA_LANES_CUH

#include "kernels/cuda/port.cuh"
#include "kernels/cuda/cuda_state.h"
#include "kernels/backend.h"

template <typename T> static constexpr int LANE_COUNT = 16 / (int)sizeof(T);

static inline bool lanes_aligned(const void *data, int64_t stride, enum meed_dtype dtype)
{
    return (uintptr_t)data % 16 == 0 && (size_t)stride * meed_dtype_bytes(dtype) % 16 == 0;
}
static inline bool lanes_aligned(struct meed_mat mat)
{
    return lanes_aligned(mat.data, mat.stride, mat.dtype);
}
static inline bool lanes_aligned(const float *vector)
{
    return lanes_aligned(vector, 0, MEED_DTYPE_F32);
}

static __device__ __forceinline__ float elem_get(const float *at)
{
    return *at;
}
static __device__ __forceinline__ float elem_get(const meed_bf16 *at)
{
    return meed_bf16_float(*at);
}
static __device__ __forceinline__ void elem_put(float *at, float value)
{
    *at = value;
}
static __device__ __forceinline__ void elem_put(meed_bf16 *at, float value)
{
    *at = meed_float_bf16(value);
}

static __device__ __forceinline__ void lanes_load(float (&v)[4], const float *at)
{
    float4 raw = *(const float4 *)at;
    v[0] = raw.x;
    v[1] = raw.y;
    v[2] = raw.z;
    v[3] = raw.w;
}
static __device__ __forceinline__ void lanes_load(float (&v)[8], const meed_bf16 *at)
{
    uint4 raw = *(const uint4 *)at;
    meed_unpack_bf16x2(raw.x, &v[0], &v[1]);
    meed_unpack_bf16x2(raw.y, &v[2], &v[3]);
    meed_unpack_bf16x2(raw.z, &v[4], &v[5]);
    meed_unpack_bf16x2(raw.w, &v[6], &v[7]);
}
static __device__ __forceinline__ void lanes_store(float *at, const float (&v)[4])
{
    *(float4 *)at = make_float4(v[0], v[1], v[2], v[3]);
}
static __device__ __forceinline__ void lanes_store(meed_bf16 *at, const float (&v)[8])
{
    *(uint4 *)at = make_uint4(meed_pack_bf16x2(v[0], v[1]), meed_pack_bf16x2(v[2], v[3]),
                              meed_pack_bf16x2(v[4], v[5]), meed_pack_bf16x2(v[6], v[7]));
}

/* The first `count` of N lanes from `at`; the others are `rest`. N is a multiple of what 16 bytes
 * hold, or loads are narrow. */
template <typename T, int N>
static __device__ __forceinline__ void lanes_get(float (&v)[N], const T *at, int64_t count,
                                                 bool aligned, float rest)
{
    constexpr int WIDE = LANE_COUNT<T>;
    if constexpr (N % WIDE == 0) {
        if (aligned && count >= N) {
#pragma unroll
            for (int i = 0; i < N; i += WIDE) {
                float part[WIDE];
                lanes_load(part, at + i);
#pragma unroll
                for (int j = 0; j < WIDE; j++) {
                    v[i + j] = part[j];
                }
            }
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = i < count ? elem_get(at + i) : rest;
    }
}
template <typename T, int N>
static __device__ __forceinline__ void lanes_put(T *at, const float (&v)[N], int64_t count,
                                                 bool aligned)
{
    constexpr int WIDE = LANE_COUNT<T>;
    if constexpr (N % WIDE == 0) {
        if (aligned && count >= N) {
#pragma unroll
            for (int i = 0; i < N; i += WIDE) {
                float part[WIDE];
#pragma unroll
                for (int j = 0; j < WIDE; j++) {
                    part[j] = v[i + j];
                }
                lanes_store(at + i, part);
            }
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (i < count) {
            elem_put(at + i, v[i]);
        }
    }
}

/* The grid of an element-wise kernel on rows: a warp takes one row's next SWEEP·32 lane groups, a
 * block eight rows. Short batches then still spread over the device by columns. */
static constexpr int SWEEP = 4;
static constexpr int SWEEP_ROWS = 8;

static inline dim3 sweep_grid(int64_t rows, int64_t cols, int lane_count)
{
    int64_t groups = (cols + lane_count - 1) / lane_count;
    int64_t sweeps = (groups + SWEEP * 32 - 1) / (SWEEP * 32);
    MEED_ASSERT(rows <= INT32_MAX && sweeps <= 65535);
    return dim3((unsigned)((rows + SWEEP_ROWS - 1) / SWEEP_ROWS), (unsigned)sweeps);
}
static inline dim3 sweep_block(void)
{
    return dim3(32, SWEEP_ROWS);
}
/* Calls body(row, first column) for every lane group of this thread. */
template <int N, typename Body>
static __device__ __forceinline__ void sweep(int64_t rows, int64_t cols, const Body &body)
{
    int64_t row = (int64_t)blockIdx.x * SWEEP_ROWS + threadIdx.y;
    int64_t first = (int64_t)blockIdx.y * (SWEEP * 32) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < SWEEP; i++) {
        int64_t col = (first + i * 32) * N;
        if (row < rows && col < cols) {
            body(row, col);
        }
    }
}

#endif
