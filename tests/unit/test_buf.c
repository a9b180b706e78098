/* Buffers: they grow to their maximum and not a byte further. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/buf.h"

static void buf_refuses_to_pass_its_maximum(void **state)
{
    /* Goal: the append that would pass the limit fails and leaves the content untouched. */
    (void)state;
    struct meed_buf buf;
    meed_buf_init(&buf, 10);
    assert_int_equal(meed_buf_append(&buf, "0123456", 7), MEED_OK);
    assert_int_equal(meed_buf_append(&buf, "789", 3), MEED_OK);
    assert_int_equal(meed_buf_append(&buf, "x", 1), MEED_LIMIT);
    assert_int_equal(buf.size, 10);
    assert_string_equal(buf.data, "0123456789");
    void *target = NULL;
    assert_int_equal(meed_buf_extend(&buf, SIZE_MAX, &target), MEED_LIMIT);
    meed_buf_clear(&buf);
    assert_int_equal(buf.max_size, 10);
}

static void buf_printf_and_reset(void **state)
{
    /* Goal: formatted text is appended whole and terminated; reset empties. */
    (void)state;
    struct meed_buf buf;
    meed_buf_init(&buf, 1 << 20);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(meed_buf_printf(&buf, "%04d,", i), MEED_OK);
    }
    assert_int_equal(buf.size, 5000);
    assert_memory_equal(buf.data + 4995, "0999,", 6);
    meed_buf_reset(&buf);
    assert_int_equal(buf.size, 0);
    assert_string_equal(buf.data, "");
    meed_buf_clear(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_refuses_to_pass_its_maximum),
        cmocka_unit_test(buf_printf_and_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
