/* The log: levels per subsystem, one line a call, a sink that keeps lines apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "base/log.h"

static char last_line[2000];

static void keep(void *user, const char *line)
{
    (void)user;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static void log_levels_and_lines(void **state)
{
    /* Goal: a subsystem's own level wins; a line carries level, subsystem and sentence. */
    (void)state;
    assert_int_equal(meed_log_configure("info,proto=debug,server=error"), MEED_OK);
    assert_true(meed_log_enabled(MEED_LOG_LEVEL_INFO, "engine"));
    assert_false(meed_log_enabled(MEED_LOG_LEVEL_DEBUG, "engine"));
    assert_true(meed_log_enabled(MEED_LOG_LEVEL_DEBUG, "proto"));
    assert_false(meed_log_enabled(MEED_LOG_LEVEL_WARN, "server"));
    meed_log_redirect(keep, NULL);
    MEED_LOG_INFO("engine", "loaded (bytes=%d)", 5);
    assert_non_null(strstr(last_line, "Z I engine     loaded (bytes=5)"));
    meed_log_line(MEED_LOG_LEVEL_ERROR, "engine", "%03000d", 1);
    assert_true(strlen(last_line) < 1200);
    meed_log_redirect(NULL, NULL);
}

static void log_refuses_what_it_cannot_read(void **state)
{
    /* Goal: a bad specification is an argument error that quotes the part. */
    (void)state;
    static const char *const bad[] = {"loud", "proto=", "averyveryverylongname=info", "info,,"};
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        assert_int_equal(meed_log_configure(bad[i]), MEED_ARG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_levels_and_lines),
        cmocka_unit_test(log_refuses_what_it_cannot_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
