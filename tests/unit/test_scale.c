/* Scales and numerals: ticks a person would choose, numbers that do not say more than is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "report/scale.h"

static void scale_ticks_are_round_and_span_the_data(void **state)
{
    /* Goal: whatever the range, the step is 1, 2 or 5 × 10^k, the ends are ticks that hold the data
     * with less than a step to spare, and there are neither too many nor too few. */
    (void)state;
    static const double bases[] = {0, -3.7, 12345.6, -1e-5};
    for (size_t b = 0; b < MEED_COUNT(bases); b++) {
        for (double width = 1e-4; width < 1e7; width *= 1.37) {
            double low = bases[b], high = low + width;
            struct meed_scale s = meed_scale_nice(low, high, 6);
            double lead = s.step / pow(10, floor(log10(s.step) + 1e-9));
            assert_true(fabs(lead - 1) < 1e-6 || fabs(lead - 2) < 1e-6 || fabs(lead - 5) < 1e-6);
            double slack = 1e-6 * s.step;
            assert_true(s.low <= low + slack && s.low > low - s.step);
            assert_true(s.high >= high - slack && s.high < high + s.step);
            assert_true(s.tick_count >= 3 && s.tick_count <= 7);
            assert_true(fabs(meed_scale_tick(&s, s.tick_count - 1) - s.high) < slack);
        }
    }
}

static void scale_labels_tell_ticks_apart(void **state)
{
    /* Goal: labels have the decimals of the step and no more; a range without width opens. */
    (void)state;
    struct meed_scale s = meed_scale_nice(-0.2, 0.8, 6);
    assert_string_equal(meed_scale_label(&s, 0).text, "−0.2");
    assert_string_equal(meed_scale_label(&s, 1).text, "0.0");
    assert_int_equal(s.tick_count, 6);
    s = meed_scale_nice(0, 8000, 5);
    assert_string_equal(meed_scale_label(&s, 1).text, "2,000");
    s = meed_scale_nice(3, 3, 5);
    assert_true(s.low < 3 && s.high > 3);
    s = meed_scale_whole(1, 3, 12);
    assert_int_equal(s.tick_count, 3);
    s = meed_scale_whole(1, 1, 12);
    assert_int_equal(s.tick_count, 2);
}

static void scale_places_are_linear(void **state)
{
    /* Goal: the ends land on their pixels, upside down too. */
    (void)state;
    struct meed_scale s = meed_scale_nice(0, 10, 6);
    s.from = 300;
    s.to = 20;
    assert_true(meed_scale_place(&s, 0) == 300 && meed_scale_place(&s, 10) == 20);
    assert_true(fabs(meed_scale_place(&s, 2.5) - 230) < 1e-9);
}

static void scale_of_powers_steps_by_decades(void **state)
{
    /* Goal: whole decades around the data, few ticks however wide, labels without spare zeros. */
    (void)state;
    struct meed_scale s = meed_scale_log(0.1, 10, 6);
    s.from = 0;
    s.to = 200;
    assert_int_equal(s.tick_count, 3);
    assert_true(fabs(meed_scale_place(&s, 1) - 100) < 1e-9);
    assert_true(fabs(meed_scale_place(&s, sqrt(10)) - 150) < 1e-9);
    assert_string_equal(meed_scale_label(&s, 0).text, "0.1");
    assert_string_equal(meed_scale_label(&s, 1).text, "1");
    assert_string_equal(meed_scale_label(&s, 2).text, "10");
    s = meed_scale_log(0.3, 0.3, 6);
    assert_true(s.low < 0.3 && s.high > 0.3);
    s = meed_scale_log(1, 1, 6);
    assert_true(s.low <= 1 && s.high > 1);
    s = meed_scale_log(1e-9, 3e9, 6);
    assert_in_range(s.tick_count, 3, 6);
    assert_true(s.low <= 1e-9 * (1 + 1e-9) && s.high >= 3e9);
    assert_true(fabs(meed_scale_tick(&s, s.tick_count - 1) / s.high - 1) < 1e-9);
}

static void numerals_say_what_is_known(void **state)
{
    /* Goal: two digits of the error decide; a true minus; no −0; NaN is a dash; units. */
    (void)state;
    assert_string_equal(meed_numeral_estimate(0.117329, 0.0066909).text, "+0.1173 ± 0.0067");
    assert_string_equal(meed_numeral_estimate(-12.345, 3.21).text, "−12.3 ± 3.2");
    assert_string_equal(meed_numeral_estimate(123.4, 45.6).text, "+123 ± 46");
    assert_string_equal(meed_numeral_estimate(0.1, 0).text, "+0.100000 ± 0.000000");
    assert_string_equal(meed_numeral_estimate(0, 0).text, "0");
    assert_string_equal(meed_numeral_estimate(NAN, 1).text, "–");
    assert_string_equal(meed_numeral_estimate(0.25, NAN).text, "+0.250000");
    assert_string_equal(meed_numeral_estimate(7969, NAN).text, "7,969");
    assert_string_equal(meed_numeral_share(0.982, 0.0131).text, "98.2 ± 1.3\u202F%");
    assert_string_equal(meed_numeral_share(-0.25, NAN).text, "−25.0\u202F%");
    assert_string_equal(meed_numeral_share(1, 0).text, "100.0\u202F%");
    assert_string_equal(meed_numeral_share(NAN, 0.1).text, "–");
    assert_string_equal(meed_numeral_fixed(-0.0004, 3, false).text, "0.000");
    assert_string_equal(meed_numeral_fixed(-0.0006, 3, true).text, "−0.001");
    assert_string_equal(meed_numeral_count(1234567).text, "1,234,567");
    assert_string_equal(meed_numeral_count(-999).text, "−999");
    assert_string_equal(meed_numeral_count(INT64_MIN).text, "−9,223,372,036,854,775,808");
    assert_string_equal(meed_numeral_bytes(275).text, "275\u202FB");
    assert_string_equal(meed_numeral_bytes(267628).text, "268\u202FkB");
    assert_string_equal(meed_numeral_bytes(999600).text, "1.00\u202FMB");
    assert_string_equal(meed_numeral_percent(7969, 30000).text, "26.6\u202F%");
    assert_string_equal(meed_numeral_percent(0, 0).text, "–");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_ticks_are_round_and_span_the_data),
        cmocka_unit_test(scale_labels_tell_ticks_apart),
        cmocka_unit_test(scale_places_are_linear),
        cmocka_unit_test(scale_of_powers_steps_by_decades),
        cmocka_unit_test(numerals_say_what_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
