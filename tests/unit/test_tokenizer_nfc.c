/* NFC against utf8proc's own, and in linear time.
 *
 * Goal: same form as the library's one-call function on every character and on random runs of
 * marks; no quadratic text. Method: all code points between letters and marks; random mixtures of
 * starters and marks of many classes, short and long runs; a letter with a million alternating
 * marks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "base/clock.h"
#include "base/rng.h"
#include "engine/tokenizer_nfc.h"

static void assert_same_form(const utf8proc_int32_t *points, size_t count)
{
    struct meed_buf text;
    struct meed_buf got;
    meed_buf_init(&text, 1 << 20);
    meed_buf_init(&got, 1 << 20);
    for (size_t i = 0; i < count; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t length = utf8proc_encode_char(points[i], bytes);
        assert_int_equal(meed_buf_append(&text, bytes, (size_t)length), MEED_OK);
    }
    utf8proc_uint8_t *want = NULL;
    utf8proc_ssize_t size =
        utf8proc_map((const utf8proc_uint8_t *)text.data, (utf8proc_ssize_t)text.size, &want,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    assert_true(size >= 0);
    assert_int_equal(meed_tokenizer_nfc_append(text.data, text.size, &got), MEED_OK);
    assert_int_equal(got.size, size);
    assert_memory_equal(got.data, want, (size_t)size);
    free(want);
    meed_buf_clear(&text);
    meed_buf_clear(&got);
}

static void tokenizer_nfc_equals_the_library(void **state)
{
    (void)state;
    for (utf8proc_int32_t point = 0; point < 0x110000; point++) {
        if (point < 0xD800 || point > 0xDFFF) {
            const utf8proc_int32_t points[] = {'a', point, 0x301, point, 0x323, 0x1161, 0x11A8};
            assert_same_form(points, MEED_COUNT(points));
        }
    }
}

static void tokenizer_nfc_orders_marks(void **state)
{
    (void)state;
    static const utf8proc_int32_t pool[] = {0x301,  0x323,  0x328,  0x31B, 0x334,  0x345,
                                            0x94D,  0x93C,  0x5B0,  0x65E, 0x1DCE, 0x302,
                                            0x0061, 0x0065, 0x1100, 0x915};
    struct meed_rng rng = meed_rng_stream(9, "nfc", 0);
    for (int round = 0; round < 3000; round++) {
        utf8proc_int32_t points[300];
        size_t count = 1 + meed_rng_below(&rng, round % 2 ? 299 : 25);
        uint64_t kinds = round % 3 ? MEED_COUNT(pool) : 12; /* 12: marks alone */
        for (size_t i = 0; i < count; i++) {
            points[i] = pool[meed_rng_below(&rng, kinds)];
        }
        assert_same_form(points, count);
    }
}

static void tokenizer_nfc_is_linear(void **state)
{
    (void)state;
    enum { MARKS = 1000000 };
    struct meed_buf text;
    struct meed_buf got;
    meed_buf_init(&text, 1 << 24);
    meed_buf_init(&got, 1 << 24);
    assert_int_equal(meed_buf_append(&text, "e", 1), MEED_OK);
    for (int i = 0; i < MARKS / 2; i++) {
        assert_int_equal(meed_buf_append(&text, "\u0301\u0323", 4), MEED_OK);
    }
    int64_t start = meed_clock_monotonic_ns();
    assert_int_equal(meed_tokenizer_nfc_append(text.data, text.size, &got), MEED_OK);
    assert_true(meed_clock_seconds_since(start) < 20); /* 0.1 s; quadratic would take an hour */
    assert_memory_equal(got.data, "\u1EB9\u0323", 5);
    meed_buf_clear(&text);
    meed_buf_clear(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_nfc_equals_the_library),
        cmocka_unit_test(tokenizer_nfc_orders_marks),
        cmocka_unit_test(tokenizer_nfc_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
