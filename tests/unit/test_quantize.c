/* Arithmetic of compressed values against float64 and brute force. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "proto/limits.h"
#include "proto/quantize.h"

/* Goal: bf16 rounds to the nearest, ties to even. Method: both neighbours of random floats. */
static void quantize_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(1, "bf16", 0);
    for (int i = 0; i < 100000; i++) {
        float x = (float)ldexp(meed_rng_normal(&rng), (int)meed_rng_below(&rng, 100) - 50);
        uint16_t bits = meed_quantize_bf16(x);
        double error = fabs((double)x - (double)meed_quantize_from_bf16(bits));
        for (int step = -1; step <= 1; step += 2) {
            uint16_t other = (uint16_t)(bits + step);
            double there = fabs((double)x - (double)meed_quantize_from_bf16(other));
            assert_true(error < there || (error == there && (bits & 1) == 0) || isnan(there));
        }
    }
    assert_int_equal(meed_quantize_bf16(1.0f), 0x3F80);
    assert_int_equal(meed_quantize_bf16(1.00390625f), 0x3F80); /* a tie */
    assert_int_equal(meed_quantize_bf16(1.01171875f), 0x3F82); /* the next one */
}

/* Goal: a block's largest code is the level, errors stay within half a step, and decoded values
 * quantise to themselves. */
static void quantize_blocks_are_idempotent(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(2, "blocks", 0);
    static const int all_levels[] = {MEED_QUANTIZE_LEVELS_INT4, MEED_QUANTIZE_LEVELS_INT8};
    for (int i = 0; i < 20000; i++) {
        float values[64], decoded[64];
        int8_t codes[64], again[64];
        int levels = all_levels[i & 1];
        int exponent = (int)meed_rng_below(&rng, 200) - 110;
        for (int j = 0; j < 64; j++) {
            values[j] = (float)ldexp(meed_rng_normal(&rng), exponent);
        }
        uint16_t scale = meed_quantize_scale(meed_quantize_max_abs(values, 64), levels);
        meed_quantize_codes(values, 64, scale, levels, codes);
        meed_quantize_decode(codes, 64, scale, decoded);
        double step = (double)meed_quantize_from_bf16(scale);
        int most = 0;
        for (int j = 0; j < 64; j++) {
            most = abs(codes[j]) > most ? abs(codes[j]) : most;
            assert_true(fabs((double)values[j] - (double)decoded[j]) <=
                        0.5 * step * (1.0 + 1e-2) + 1e-37);
        }
        assert_int_equal(most, scale ? levels : 0);
        uint16_t scale_again = meed_quantize_scale(meed_quantize_max_abs(decoded, 64), levels);
        meed_quantize_codes(decoded, 64, scale_again, levels, again);
        assert_int_equal(scale, scale_again);
        assert_memory_equal(codes, again, sizeof codes);
    }
}

struct ranked {
    float magnitude;
    uint32_t index;
};

static int by_rank(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    if (a->magnitude != b->magnitude) {
        return a->magnitude > b->magnitude ? -1 : 1;
    }
    return a->index < b->index ? -1 : 1;
}

static int by_index(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static void check_top_k(const float *values, int64_t count, int64_t keep)
{
    struct ranked *ranked = malloc((size_t)count * sizeof *ranked);
    uint32_t *want = malloc((size_t)count * sizeof *want);
    uint32_t *got = malloc((size_t)count * sizeof *got);
    int64_t kept = 0, expected = 0;
    for (int64_t i = 0; i < count; i++) {
        ranked[i] = (struct ranked){fabsf(values[i]), (uint32_t)i};
    }
    qsort(ranked, (size_t)count, sizeof *ranked, by_rank);
    for (int64_t i = 0; i < count && i < keep && ranked[i].magnitude > 0.0f; i++) {
        want[expected++] = ranked[i].index;
    }
    qsort(want, (size_t)expected, sizeof *want, by_index);
    meed_quantize_top_k(values, count, keep, got, &kept);
    assert_int_equal(kept, expected);
    assert_memory_equal(got, want, (size_t)kept * sizeof *got);
    free(ranked);
    free(want);
    free(got);
}

/* Goal: the k largest, ties by index, zeros never. Method: sorting, over ties, zeros, denormals. */
static void quantize_top_k_matches_sorting(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(3, "topk", 0);
    float values[3000];
    for (int round = 0; round < 200; round++) {
        int64_t count = 1 + (int64_t)meed_rng_below(&rng, 3000);
        int kind = round % 5;
        for (int64_t i = 0; i < count; i++) {
            double x = meed_rng_normal(&rng);
            values[i] = kind == 0   ? (float)x
                        : kind == 1 ? (float)(int)(3.0 * x) /* many ties and zeros */
                        : kind == 2 ? (x > 0 ? 0.5f : -0.5f)
                        : kind == 3 ? (float)(x * 1e-40) /* denormals */
                                    : (i % 7 ? 0.0f : (float)x);
        }
        check_top_k(values, count, 0);
        check_top_k(values, count, 1);
        check_top_k(values, count, (int64_t)meed_rng_below(&rng, (uint64_t)count + 1));
        check_top_k(values, count, count);
        check_top_k(values, count, count + 5);
    }
}

static void quantize_range_sees_every_bad_value(void **state)
{
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY, MEED_LIMIT_VALUE_MAGNITUDE};
    float values[37] = {0};
    assert_true(meed_quantize_in_range(values, 37));
    for (size_t b = 0; b < MEED_COUNT(bad); b++) {
        for (int i = 0; i < 37; i++) {
            values[i] = bad[b];
            assert_false(meed_quantize_in_range(values, 37));
            values[i] = -1e20f;
            assert_true(meed_quantize_in_range(values, 37));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_bf16_rounds_to_nearest_even),
        cmocka_unit_test(quantize_blocks_are_idempotent),
        cmocka_unit_test(quantize_top_k_matches_sorting),
        cmocka_unit_test(quantize_range_sees_every_bad_value),
    };
    return cmocka_run_group_tests_name("quantize", tests, NULL, NULL);
}
