/* Statuses: one list, consistent columns, a message that survives forwarding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/status.h"

static void status_rows_are_complete_and_exit_codes_distinct(void **state)
{
    /* Goal: scripts can tell failures apart. Every row has texts; exit codes never repeat. */
    (void)state;
    for (int i = 0; i < MEED_STATUS_COUNT; i++) {
        enum meed_status status = (enum meed_status)i;
        assert_true(strlen(meed_status_name(status)) > 0);
        assert_true(strlen(meed_status_sentence(status)) > 0);
        assert_in_range(meed_status_grpc_code(status), 0, 16);
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(meed_status_exit_code(status),
                                 meed_status_exit_code((enum meed_status)j));
        }
    }
    assert_int_equal(meed_status_exit_code(MEED_OK), 0);
    assert_string_equal(meed_status_name((enum meed_status)999), "?");
}

static void status_from_grpc_inverts_the_first_row_of_a_code(void **state)
{
    /* Goal: a status crosses the wire as itself or as the first status with its gRPC code. */
    (void)state;
    for (int i = 0; i < MEED_STATUS_COUNT; i++) {
        int code = meed_status_grpc_code((enum meed_status)i);
        assert_int_equal(meed_status_grpc_code(meed_status_from_grpc(code)), code);
    }
    assert_int_equal(meed_status_from_grpc(99), MEED_RPC);
}

static enum meed_status inner(void)
{
    return MEED_FAIL(MEED_FORMAT, "line %d is odd", 7);
}

static enum meed_status outer(bool *released)
{
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(inner());
out:
    *released = true;
    return st;
}

static void status_message_survives_forwarding(void **state)
{
    /* Goal: the sentence of the innermost failure is what the caller prints; cleanup runs. */
    (void)state;
    bool released = false;
    assert_int_equal(outer(&released), MEED_FORMAT);
    assert_true(released);
    assert_string_equal(meed_last_error(), "line 7 is odd");
    assert_non_null(strstr(meed_last_error_place(), "test_status.c:"));
    /* a new message may quote the old one */
    meed_status_discard(MEED_FAIL(MEED_IO, "again: %s", meed_last_error()));
    assert_string_equal(meed_last_error(), "again: line 7 is odd");
}

static void status_long_message_is_cut_not_overrun(void **state)
{
    /* Goal: a message longer than the buffer is truncated and terminated. */
    (void)state;
    meed_status_discard(MEED_FAIL(MEED_ARG, "%02000d", 1));
    assert_int_equal(strlen(meed_last_error()), 1023);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_rows_are_complete_and_exit_codes_distinct),
        cmocka_unit_test(status_from_grpc_inverts_the_first_row_of_a_code),
        cmocka_unit_test(status_message_survives_forwarding),
        cmocka_unit_test(status_long_message_is_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
