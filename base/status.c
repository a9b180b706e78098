/* See status.h. The message buffer is thread-local: a worker's failure is forwarded by value when a
 * job crosses threads (threads.h copies it), never shared. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    const char *name;
    const char *sentence;
    bool retryable;
    int exit_code;
    int grpc_code;
};

static const struct row rows[] = {
#define MEED_STATUS_ROW(name, sentence, retryable, exit_code, grpc_code)                           \
    {#name, sentence, retryable, exit_code, grpc_code},
#include "base/status.def"
#undef MEED_STATUS_ROW
};

static MEED_THREAD_LOCAL char last_message[1024];
static MEED_THREAD_LOCAL char last_place[128];

static const struct row *row_of(enum meed_status status)
{
    static const struct row unknown = {"?", "unknown status", false, 70, 2};
    return (unsigned)status < MEED_STATUS_COUNT ? &rows[status] : &unknown;
}

const char *meed_status_name(enum meed_status status)
{
    return row_of(status)->name;
}

const char *meed_status_sentence(enum meed_status status)
{
    return row_of(status)->sentence;
}

bool meed_status_retryable(enum meed_status status)
{
    return row_of(status)->retryable;
}

int meed_status_exit_code(enum meed_status status)
{
    return row_of(status)->exit_code;
}

int meed_status_grpc_code(enum meed_status status)
{
    return row_of(status)->grpc_code;
}

enum meed_status meed_status_from_grpc(int grpc_code)
{
    for (int i = 0; i < MEED_STATUS_COUNT; i++) {
        if (rows[i].grpc_code == grpc_code) {
            return (enum meed_status)i;
        }
    }
    return MEED_RPC;
}

enum meed_status meed_fail(enum meed_status status, const char *file, int line, const char *format,
                           ...)
{
    char text[sizeof last_message]; /* arguments may point into last_message itself */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(last_message, text, sizeof text);
    snprintf(last_place, sizeof last_place, "%s:%d", file, line);
    return status;
}

const char *meed_last_error(void)
{
    return last_message;
}

const char *meed_last_error_place(void)
{
    return last_place;
}

void meed_status_discard(enum meed_status status)
{
    (void)status;
}

void meed_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "meed: a bug in Meed: %s does not hold at %s:%d\n", condition, file, line);
    abort();
}
