/* exp and log of vectors, by range reduction and a polynomial.
 *
 * exp: x = n·ln2 + r with |r| ≤ ln2/2 (ln2 in two parts, so that r is exact to fp32), then a
 * polynomial of degree 7 (Taylor, whose next term is below 6e-9 at the ends) and a shift of
 * the exponent. Below −87.3 the result is exactly 0 (no denormals: softmax wants masked entries to
 * vanish), above 88.7 it is +infinity. Relative error ≤ 2.5e-7 over the whole range; NaN stays NaN.
 *
 * log: the argument is split into 2^e·m with m in [√½, √2), and log m = 2·atanh(s) by its odd
 * series in s = (m−1)/(m+1), |s| ≤ 0.172, through s^11. Relative error ≤ 4e-7 for
 * positive normal numbers, absolute 1e-7 near 1; log(0) = −infinity, negative arguments give NaN.
 *
 * Both are tested against libm in float64 over dense sweeps (tests/unit/test_vmath.c). libm's own
 * functions are not used on vectors: they are scalar calls, and their bits differ between versions.
 */
#ifndef MEED_CPU_VMATH_H
#define MEED_CPU_VMATH_H

#include "kernels/cpu/vec.h"

VEC_INLINE vf exp_series(vf r)
{
    vf p = vf_set1(1.0f / 5040.0f);
    p = vf_fma(p, r, vf_set1(1.0f / 720.0f));
    p = vf_fma(p, r, vf_set1(1.0f / 120.0f));
    p = vf_fma(p, r, vf_set1(1.0f / 24.0f));
    p = vf_fma(p, r, vf_set1(1.0f / 6.0f));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1.0f));
    return vf_fma(p, r, vf_set1(1.0f));
}

#if defined(__AVX512F__)
VEC_INLINE vf vf_exp(vf x)
{
    /* Operands in this order let a NaN through. */
    vf clamped = _mm512_min_ps(vf_set1(89.0f), _mm512_max_ps(vf_set1(-87.3f), x));
    vf n = _mm512_roundscale_ps(clamped * 1.44269504f, _MM_FROUND_TO_NEAREST_INT);
    vf r = vf_fma(n, vf_set1(-0.693359375f), clamped);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf result = _mm512_scalef_ps(exp_series(r), n);
    return _mm512_mask_mov_ps(result, _mm512_cmp_ps_mask(x, vf_set1(-87.3f), _CMP_LT_OQ), (vf){0});
}
#else
VEC_INLINE vf vf_exp(vf x)
{
    const vf magic = vf_set1(12582912.0f); /* 1.5·2^23: adding it rounds to an integer */
    vf low = vf_set1(-87.3f);
    vf high = vf_set1(88.7f);
    vi under = x < low;
    vi over = x > high;
    vf clamped = vf_select(under, low, vf_select(over, high, x));
    vf n = (clamped * 1.44269504f + magic) - magic;
    vf r = vf_fma(n, vf_set1(-0.693359375f), clamped); /* upper bits of ln2: product exact */
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    /* 2^n in two halves, since n may be 128. */
    vi exponent = __builtin_convertvector(n, vi);
    vi half = exponent >> 1;
    vf scale = (vf)((half + 127) << 23);
    vf rest = (vf)((exponent - half + 127) << 23);
    vf result = exp_series(r) * scale * rest;
    result = vf_select(under, (vf){0}, result);
    return vf_select(over, vf_set1(__builtin_inff()), result);
}
#endif

VEC_INLINE vf vf_log(vf x)
{
    vi bits = (vi)x;
    vi exponent = (bits - 0x3F3504F3) >> 23; /* of √½: m lands in [√½, √2) */
    vf m = (vf)(bits - (exponent << 23));
    vf s = (m - 1.0f) / (m + 1.0f);
    vf q = s * s;
    vf p = vf_set1(2.0f / 11.0f);
    p = vf_fma(p, q, vf_set1(2.0f / 9.0f));
    p = vf_fma(p, q, vf_set1(2.0f / 7.0f));
    p = vf_fma(p, q, vf_set1(2.0f / 5.0f));
    p = vf_fma(p, q, vf_set1(2.0f / 3.0f));
    vf log_m = vf_fma(p * q, s, s + s);
    vf e = __builtin_convertvector(exponent, vf);
    vf result = vf_fma(e, vf_set1(-2.12194440e-4f), log_m);
    result = vf_fma(e, vf_set1(0.693359375f), result);
    result = vf_select(x < 0.0f, vf_set1(__builtin_nanf("")), result);
    result = vf_select(x == 0.0f, vf_set1(-__builtin_inff()), result);
    result = vf_select((vi)(x > 3.402823466e38f), x, result);
    return vf_select((vi)(x != x), x, result);
}

VEC_INLINE vf vf_sigmoid(vf x)
{
    return 1.0f / (1.0f + vf_exp(-x));
}

VEC_INLINE float scalar_exp(float x)
{
    return vf_exp(vf_set1(x))[0];
}
VEC_INLINE float scalar_log(float x)
{
    return vf_log(vf_set1(x))[0];
}

#endif
