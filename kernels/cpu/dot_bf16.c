/* See dot_bf16.h. Sixteen rows against one vector of A: sixteen chains hide the latency of the
 * instruction, one load of A serves sixteen of them, and each broadcast of a pair of x is used as
 * often as A has vectors. */
#include "kernels/cpu/dot_bf16.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { LANES = 16 };

#define DOT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

bool meed_cpu_dot_bf16_here(void)
{
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl");
}

void meed_cpu_dot_bf16_pack(const meed_bf16 *a, int64_t stride, int64_t r, int64_t depth,
                            uint32_t *packed)
{
    for (int64_t begin = 0; begin < r; begin += LANES) {
        for (int64_t i = 0; i < depth / 2; i++) {
            for (int64_t lane = 0; lane < LANES; lane++, packed++) {
                *packed = 0;
                if (begin + lane < r) {
                    memcpy(packed, a + (begin + lane) * stride + 2 * i, sizeof *packed);
                }
            }
        }
    }
}

DOT_TARGET static inline __attribute__((always_inline)) void
rows_run(int rows, const meed_bf16 *x, int64_t x_stride, int64_t depth, const uint32_t *packed,
         float *c, int64_t c_stride)
{
    __m512 acc[16];
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
    {
        acc[i] = _mm512_loadu_ps(c + i * c_stride);
    }
    for (int64_t step = 0; step < depth; step += 2) {
        __m512bh b = (__m512bh)_mm512_loadu_si512(packed);
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
        {
            int pair;
            memcpy(&pair, x + i * x_stride + step, sizeof pair);
            acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)_mm512_set1_epi32(pair), b);
        }
        packed += LANES;
    }
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
    {
        _mm512_storeu_ps(c + i * c_stride, acc[i]);
    }
}

#define DOT_ROWS(N)                                                                                \
    DOT_TARGET static void rows_##N(const meed_bf16 *x, int64_t x_stride, int64_t depth,           \
                                    const uint32_t *packed, float *c, int64_t c_stride)            \
    {                                                                                              \
        rows_run(N, x, x_stride, depth, packed, c, c_stride);                                      \
    }
DOT_ROWS(16)
DOT_ROWS(8)
DOT_ROWS(4)
DOT_ROWS(2)
DOT_ROWS(1)

void meed_cpu_dot_bf16(const meed_bf16 *x, int64_t x_stride, int64_t rows, int64_t depth,
                       const uint32_t *packed, int64_t r, float *c, int64_t c_stride)
{
    static void (*const kernels[])(const meed_bf16 *, int64_t, int64_t, const uint32_t *, float *,
                                   int64_t) = {rows_16, rows_8, rows_4, rows_2, rows_1};
    for (int64_t begin = 0; begin < r; begin += LANES) {
        int64_t row = 0;
        for (int step = 0; step < 5; step++) {
            for (int64_t height = 16 >> step; row + height <= rows; row += height) {
                kernels[step](x + row * x_stride, x_stride, depth, packed,
                              c + row * c_stride + begin, c_stride);
            }
        }
        packed += depth / 2 * LANES;
    }
}

#else

bool meed_cpu_dot_bf16_here(void)
{
    return false;
}

void meed_cpu_dot_bf16_pack(const meed_bf16 *a, int64_t stride, int64_t r, int64_t depth,
                            uint32_t *packed)
{
    (void)a, (void)stride, (void)r, (void)depth, (void)packed;
}

void meed_cpu_dot_bf16(const meed_bf16 *x, int64_t x_stride, int64_t rows, int64_t depth,
                       const uint32_t *packed, int64_t r, float *c, int64_t c_stride)
{
    (void)x, (void)x_stride, (void)rows, (void)depth, (void)packed, (void)r, (void)c;
    (void)c_stride;
}

#endif
