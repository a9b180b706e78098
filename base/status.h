/* Statuses: how every fallible function of Meed reports.
 *
 * A function that can fail returns `enum meed_status` and hands results through out-parameters that
 * stay untouched on failure. The sentence for people is written exactly once, where the failure
 * happens, by MEED_FAIL; it lives in a thread-local buffer until the next failure of the same
 * thread. Callers only forward: MEED_TRY where nothing is held, MEED_TRY_OUT where the function has
 * things to release under its single label `out:`. Nothing below cli/main.c calls exit.
 *
 * The scheme is NCCL's check macros joined with zstd's forward macros; the code list is one X-macro
 * (status.def), so that names, sentences, exit codes and gRPC codes cannot drift apart.
 */
#ifndef MEED_BASE_STATUS_H
#define MEED_BASE_STATUS_H

#include <stdbool.h>
#include "base/compat.h"

MEED_BEGIN_C

enum meed_status {
#define MEED_STATUS_ROW(name, sentence, retryable, exit_code, grpc_code) MEED_##name,
#include "base/status.def"
#undef MEED_STATUS_ROW
    MEED_STATUS_COUNT
};

/* "FORMAT"; "?" for a value outside the list. */
const char *meed_status_name(enum meed_status status);
/* "malformed input". */
const char *meed_status_sentence(enum meed_status status);
/* True where the same call may succeed later without a change by the caller. */
bool meed_status_retryable(enum meed_status status);
int meed_status_exit_code(enum meed_status status);
int meed_status_grpc_code(enum meed_status status);
/* The status that stands for a gRPC code (first row that carries it; unknown codes are RPC). */
enum meed_status meed_status_from_grpc(int grpc_code);

/* Writes the thread's failure message (truncated at 1,023 bytes) and returns `status`. */
MEED_COLD enum meed_status meed_fail(enum meed_status status, const char *file, int line,
                                     const char *format, ...) MEED_PRINTF(4, 5);
/* Message of the last failure on this thread, "" if none. Valid until the next failure. */
const char *meed_last_error(void);
/* "file:line" of the last failure, for debug logs. */
const char *meed_last_error_place(void);

/* Fail here: what happened, where in the user's world, and what to do about it. */
#define MEED_FAIL(code, ...) meed_fail((code), __FILE__, __LINE__, __VA_ARGS__)

#define MEED_TRY(call)                                                                             \
    do {                                                                                           \
        enum meed_status try_status_ = (call);                                                     \
        if (try_status_ != MEED_OK) {                                                              \
            return try_status_;                                                                    \
        }                                                                                          \
    } while (0)

/* For functions with `enum meed_status st` and a label `out:`. */
#define MEED_TRY_OUT(call)                                                                         \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != MEED_OK) {                                                                       \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

/* In cleanup: run `call`, keep the first failure (its message included). */
#define MEED_KEEP_FIRST(st, call)                                                                  \
    do {                                                                                           \
        if ((st) == MEED_OK) {                                                                     \
            (st) = (call);                                                                         \
        } else {                                                                                   \
            meed_status_discard(call);                                                             \
        }                                                                                          \
    } while (0)
/* Drops a status on purpose: the caller says that this failure changes nothing. */
void meed_status_discard(enum meed_status status);

/* Our own bugs only, never files, peers or flags. Active in every build. */
MEED_COLD void meed_assert_failed(const char *condition, const char *file, int line)
    __attribute__((noreturn));
#define MEED_ASSERT(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            meed_assert_failed(#condition, __FILE__, __LINE__);                                    \
        }                                                                                          \
    } while (0)

MEED_END_C
#endif
