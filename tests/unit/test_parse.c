/* Strict numbers: what is not exactly a number is refused with its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/parse.h"

static void parse_i64_takes_exact_numbers_only(void **state)
{
    /* Goal: boundaries are in, everything else is out and named in the message. */
    (void)state;
    int64_t value = 42;
    assert_int_equal(meed_parse_i64("--n", "-5", -5, 9, &value), MEED_OK);
    assert_int_equal(value, -5);
    assert_int_equal(meed_parse_i64("--n", "9223372036854775807", 0, INT64_MAX, &value), MEED_OK);
    static const char *const bad[] = {"", " 1", "1 ", "+1", "0x10", "1e3", "-", "10", "-6",
                                      "9223372036854775808"};
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        value = 7;
        assert_int_equal(meed_parse_i64("--n", bad[i], -5, 9, &value), MEED_ARG);
        assert_int_equal(value, 7);
        assert_non_null(strstr(meed_last_error(), "--n"));
    }
}

static void parse_f64_refuses_nan_and_infinity(void **state)
{
    /* Goal: only finite numbers inside the bounds. */
    (void)state;
    double value = 0;
    assert_int_equal(meed_parse_f64("--lr", "2.5e-4", 0, 1, &value), MEED_OK);
    assert_true(value == 2.5e-4);
    static const char *const bad[] = {"nan", "inf", "-inf", "1.5x", "", "2", "-0.1", "1e999"};
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        assert_int_equal(meed_parse_f64("--lr", bad[i], 0, 1, &value), MEED_ARG);
    }
}

static void parse_sizes_durations_and_booleans(void **state)
{
    /* Goal: units are known ones, multiplication cannot wrap. */
    (void)state;
    int64_t value = 0;
    bool flag = false;
    assert_int_equal(meed_parse_bytes("--max", "64K", &value), MEED_OK);
    assert_int_equal(value, 65536);
    assert_int_equal(meed_parse_bytes("--max", "9999999999G", &value), MEED_ARG);
    assert_int_equal(meed_parse_bytes("--max", "12T", &value), MEED_ARG);
    assert_int_equal(meed_parse_duration_ms("--wait", "90s", &value), MEED_OK);
    assert_int_equal(value, 90000);
    assert_int_equal(meed_parse_duration_ms("--wait", "90", &value), MEED_ARG);
    assert_int_equal(meed_parse_duration_ms("--wait", "-1s", &value), MEED_ARG);
    assert_int_equal(meed_parse_bool("--x", "yes", &flag), MEED_OK);
    assert_true(flag);
    assert_int_equal(meed_parse_bool("--x", "maybe", &flag), MEED_ARG);
}

static void parse_finds_the_order_mark_alone(void **state)
{
    (void)state;
    assert_int_equal(meed_parse_order_mark("\xEF\xBB\xBF{}", 5), 3);
    assert_int_equal(meed_parse_order_mark("\xEF\xBB\xBF", 2), 0);
    assert_int_equal(meed_parse_order_mark("{}", 2), 0);
    assert_int_equal(meed_parse_order_mark("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_i64_takes_exact_numbers_only),
        cmocka_unit_test(parse_f64_refuses_nan_and_infinity),
        cmocka_unit_test(parse_sizes_durations_and_booleans),
        cmocka_unit_test(parse_finds_the_order_mark_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
