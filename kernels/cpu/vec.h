/* Vectors of floats: one thin layer over the compiler's vector types, so a twin is written once.
 *
 * VL lanes is the native width of the instruction set the file is compiled for (16, 8 or 4). The
 * operators + - * / and comparisons are the compiler's own; this header adds what it lacks: fused
 * multiply-add, maximum, bf16 loads and stores, partial vectors, and reductions in a fixed tree.
 *
 * Rules that keep results reproducible: a loop over a row always starts at its first element and
 * takes VL lanes a step, the last step is partial with zeros in the missing lanes, and a reduction
 * adds lanes as a tree (lane i with lane i + VL/2, then VL/4, …). So the bits of a row depend on
 * its own numbers and its length, never on its address or its neighbours. Where the processor has
 * no FMA, vf_fma rounds twice: instruction sets may differ in bits, runs on one never do.
 *
 * bf16 goes through integer arithmetic: the conversion instructions of AVX512-BF16 flush denormals
 * to zero, and then the scalar and the vector path of one op would disagree.
 */
#ifndef MEED_CPU_VEC_H
#define MEED_CPU_VEC_H

#include <string.h>
#include "kernels/types.h"
#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { VL = 16, VL_BYTES = 64 };
#elif defined(__AVX2__)
enum { VL = 8, VL_BYTES = 32 };
#else
enum { VL = 4, VL_BYTES = 16 };
#endif

typedef float vf __attribute__((vector_size(VL_BYTES)));
typedef int32_t vi __attribute__((vector_size(VL_BYTES)));
typedef uint32_t vu __attribute__((vector_size(VL_BYTES)));
typedef uint16_t vh __attribute__((vector_size(VL_BYTES / 2)));
typedef float vf_loose __attribute__((vector_size(VL_BYTES), aligned(4), may_alias));
typedef uint16_t vh_loose __attribute__((vector_size(VL_BYTES / 2), aligned(2), may_alias));

#define VEC_INLINE static inline __attribute__((always_inline, unused))

VEC_INLINE vf vf_set1(float value)
{
    return value - (vf){0};
}
VEC_INLINE vf vf_load(const float *from)
{
    return *(const vf_loose *)from;
}
VEC_INLINE void vf_store(float *to, vf value)
{
    *(vf_loose *)to = value;
}
VEC_INLINE vf vf_fma(vf a, vf b, vf c)
{
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}
VEC_INLINE vf vf_max(vf a, vf b)
{
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
    return _mm_max_ps(a, b);
#else
    for (int i = 0; i < VL; i++) {
        a[i] = a[i] > b[i] ? a[i] : b[i];
    }
    return a;
#endif
}
/* mask lanes are 0 or -1, as comparisons give them. */
VEC_INLINE vf vf_select(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* Lane i takes a[at[i]], or b[at[i] − VL] from VL on. `at` is a constant after inlining. */
VEC_INLINE vf vf_pick(vf a, vf b, vi at)
{
#if defined(__clang__)
    vf picked = {0};
    for (int lane = 0; lane < VL; lane++) {
        picked[lane] = at[lane] < VL ? a[at[lane] % VL] : b[at[lane] % VL];
    }
    return picked;
#else
    return __builtin_shuffle(a, b, at);
#endif
}
#if defined(__AVX512F__) && defined(__AVX512DQ__)
/* Lanes 0…7 and 8…15. */
VEC_INLINE __m256 vf_low(vf value)
{
    return _mm512_castps512_ps256(value);
}
VEC_INLINE __m256 vf_high(vf value)
{
    return _mm512_extractf32x8_ps(value, 1);
}
VEC_INLINE float vf_sum(vf value)
{
    __m256 half = _mm256_add_ps(vf_low(value), vf_high(value));
    __m128 part = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    part = _mm_add_ps(part, _mm_movehl_ps(part, part));
    return _mm_cvtss_f32(_mm_add_ss(part, _mm_movehdup_ps(part)));
}
VEC_INLINE float vf_peak(vf value)
{
    __m256 half = _mm256_max_ps(vf_low(value), vf_high(value));
    __m128 part = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    part = _mm_max_ps(part, _mm_movehl_ps(part, part));
    return _mm_cvtss_f32(_mm_max_ss(part, _mm_movehdup_ps(part)));
}
#else
VEC_INLINE float vf_sum(vf value)
{
    for (int width = VL / 2; width >= 1; width /= 2) {
        for (int i = 0; i < width; i++) {
            value[i] += value[i + width];
        }
    }
    return value[0];
}
VEC_INLINE float vf_peak(vf value)
{
    for (int width = VL / 2; width >= 1; width /= 2) {
        for (int i = 0; i < width; i++) {
            value[i] = value[i] > value[i + width] ? value[i] : value[i + width];
        }
    }
    return value[0];
}
#endif

VEC_INLINE vf vf_from_bf16(const meed_bf16 *from)
{
    vh raw = *(const vh_loose *)from;
    return (vf)(__builtin_convertvector(raw, vu) << 16);
}
VEC_INLINE vh vf_to_bf16(vf value)
{
    vu bits = (vu)value;
    vu rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    vi nan = (vi)((bits & 0x7FFFFFFFu) > 0x7F800000u);
    rounded = (vu)((nan & 0x7FFF) | (~nan & (vi)rounded));
    return __builtin_convertvector(rounded, vh);
}

/* Element idx of an array of either dtype, VL of them or the first `lanes` with zeros behind. */
VEC_INLINE vf vf_get(const void *base, int64_t idx, enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? vf_load((const float *)base + idx)
                                   : vf_from_bf16((const meed_bf16 *)base + idx);
}
VEC_INLINE void vf_put(void *base, int64_t idx, enum meed_dtype dtype, vf value)
{
    if (dtype == MEED_DTYPE_F32) {
        vf_store((float *)base + idx, value);
    } else {
        *(vh_loose *)((meed_bf16 *)base + idx) = vf_to_bf16(value);
    }
}
VEC_INLINE vf vf_get_n(const void *base, int64_t idx, enum meed_dtype dtype, int64_t lanes)
{
    if (lanes >= VL) {
        return vf_get(base, idx, dtype);
    }
#if defined(__AVX512F__)
    __mmask16 mask = (__mmask16)((1u << lanes) - 1u);
    if (dtype == MEED_DTYPE_F32) {
        return _mm512_maskz_loadu_ps(mask, (const float *)base + idx);
    }
    __m256i raw = _mm256_maskz_loadu_epi16(mask, (const meed_bf16 *)base + idx);
    return (vf)(__builtin_convertvector((vh)raw, vu) << 16);
#else
    vf value = {0};
    if (dtype == MEED_DTYPE_F32) {
        for (int64_t i = 0; i < lanes; i++) {
            value[i] = ((const float *)base)[idx + i];
        }
    } else {
        for (int64_t i = 0; i < lanes; i++) {
            value[i] = meed_bf16_to_f32(((const meed_bf16 *)base)[idx + i]);
        }
    }
    return value;
#endif
}
VEC_INLINE void vf_put_n(void *base, int64_t idx, enum meed_dtype dtype, int64_t lanes, vf value)
{
    if (lanes >= VL) {
        vf_put(base, idx, dtype, value);
        return;
    }
#if defined(__AVX512F__)
    __mmask16 mask = (__mmask16)((1u << lanes) - 1u);
    if (dtype == MEED_DTYPE_F32) {
        _mm512_mask_storeu_ps((float *)base + idx, mask, value);
    } else {
        _mm256_mask_storeu_epi16((meed_bf16 *)base + idx, mask, (__m256i)vf_to_bf16(value));
    }
#else
    if (dtype == MEED_DTYPE_F32) {
        for (int64_t i = 0; i < lanes; i++) {
            ((float *)base)[idx + i] = value[i];
        }
    } else {
        for (int64_t i = 0; i < lanes; i++) {
            ((meed_bf16 *)base)[idx + i] = meed_bf16_from_f32(value[i]);
        }
    }
#endif
}
/* value as it reads back after being stored in dtype. */
VEC_INLINE vf vf_rounded(vf value, enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? value
                                   : (vf)(__builtin_convertvector(vf_to_bf16(value), vu) << 16);
}
/* Copies count elements into fp32. */
VEC_INLINE void vf_unpack_row(const void *from, int64_t idx, enum meed_dtype dtype, int64_t count,
                              float *to)
{
    int64_t i = 0;
    if (dtype == MEED_DTYPE_BF16) {
        for (; i + VL <= count; i += VL) {
            vf_store(to + i, vf_from_bf16((const meed_bf16 *)from + idx + i));
        }
    } else {
        for (; i + VL <= count; i += VL) {
            vf_store(to + i, vf_load((const float *)from + idx + i));
        }
    }
    if (i < count) {
        vf_put_n(to, i, MEED_DTYPE_F32, count - i, vf_get_n(from, idx + i, dtype, count - i));
    }
}

VEC_INLINE float elem_get(const void *base, int64_t idx, enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? ((const float *)base)[idx]
                                   : meed_bf16_to_f32(((const meed_bf16 *)base)[idx]);
}
VEC_INLINE void elem_put(void *base, int64_t idx, enum meed_dtype dtype, float value)
{
    if (dtype == MEED_DTYPE_F32) {
        ((float *)base)[idx] = value;
    } else {
        ((meed_bf16 *)base)[idx] = meed_bf16_from_f32(value);
    }
}

#endif
