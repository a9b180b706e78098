/* Vector exp and log against libm in float64 over dense sweeps.
 *
 * Goal: the errors that kernels/cpu/vmath.h states, at the ends of the range, and at the special
 * values. Method: steps of 1/4096 through exp's whole range, every 997th bit pattern of the
 * positive floats for log. This file sees the baseline instruction set's vectors; the parity tests
 * run the others through softmax, silu and cross-entropy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include "kernels/cpu/vmath.h"

static void vmath_exp_keeps_its_error(void **state)
{
    (void)state;
    double worst = 0.0;
    for (double x = -87.29; x < 88.69; x += 1.0 / 4096.0) {
        double want = exp((double)(float)x);
        worst = fmax(worst, fabs((double)scalar_exp((float)x) - want) / want);
    }
    printf("vmath: exp relative error %.3g\n", worst);
    assert_true(worst <= 2.5e-7);
}

static void vmath_log_keeps_its_error(void **state)
{
    (void)state;
    double worst = 0.0;
    double worst_near_one = 0.0;
    for (uint32_t bits = 0x00800000u; bits < 0x7F800000u; bits += 997) {
        union {
            uint32_t bits;
            float value;
        } u = {bits};
        double want = log((double)u.value);
        double error = fabs((double)scalar_log(u.value) - want);
        worst = fmax(worst, fabs(want) > 0.35 ? error / fabs(want) : 0.0);
        worst_near_one = fmax(worst_near_one, fabs(want) <= 0.35 ? error : 0.0);
    }
    printf("vmath: log relative error %.3g, absolute near 1 %.3g\n", worst, worst_near_one);
    assert_true(worst <= 4e-7);
    assert_true(worst_near_one <= 1e-7);
}

static void vmath_special_values(void **state)
{
    (void)state;
    assert_true(scalar_exp(-INFINITY) == 0.0f);
    assert_true(scalar_exp(-100.0f) == 0.0f);
    assert_true(scalar_exp(0.0f) == 1.0f);
    assert_true(isinf(scalar_exp(89.0f)) && isinf(scalar_exp(INFINITY)));
    assert_true(isnan(scalar_exp(NAN)));
    assert_true(scalar_log(1.0f) == 0.0f);
    assert_true(scalar_log(0.0f) == -INFINITY && scalar_log(INFINITY) == INFINITY);
    assert_true(isnan(scalar_log(-1.0f)) && isnan(scalar_log(NAN)));
}

static void vec_bf16_equals_the_scalar_conversion(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits < (1ull << 32); bits += 4099) {
        union {
            uint32_t bits;
            float value;
        } u = {(uint32_t)bits};
        assert_int_equal(vf_to_bf16(vf_set1(u.value))[0], meed_bf16_from_f32(u.value));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vmath_exp_keeps_its_error),
        cmocka_unit_test(vmath_log_keeps_its_error),
        cmocka_unit_test(vmath_special_values),
        cmocka_unit_test(vec_bf16_equals_the_scalar_conversion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
