/* The log: one line a fact, on stderr, never a word of anybody's data.
 *
 *   2026-01-02T03:04:05.678Z I server  round 12: 7/8 updates, merging (deadline_ms=30000)
 *
 * Time in UTC, level letter, subsystem (a folder of the tree), sentence first, key=value facts with
 * units behind. A failure is either returned or logged, never both. Dialogue text, prompts,
 * gradients and keys are never arguments of a log call: the log leaves the machine, the data does
 * not. Levels are set per subsystem by `--log info,proto=debug`.
 */
#ifndef MEED_BASE_LOG_H
#define MEED_BASE_LOG_H

#include "base/compat.h"
#include "base/status.h"

MEED_BEGIN_C

enum meed_log_level {
    MEED_LOG_LEVEL_ERROR,
    MEED_LOG_LEVEL_WARN,
    MEED_LOG_LEVEL_INFO,
    MEED_LOG_LEVEL_DEBUG
};

/* Parses "info", "warn,proto=debug" … ; fails with MEED_ARG naming the part it cannot read.
 * Call before threads start. The default is warn everywhere. */
MEED_MUST_CHECK enum meed_status meed_log_configure(const char *spec);
/* True if a line of this level would be written for this subsystem. */
int meed_log_enabled(enum meed_log_level level, const char *subsystem);
void meed_log_line(enum meed_log_level level, const char *subsystem, const char *format, ...)
    MEED_PRINTF(3, 4);
/* While set, lines go through this callback instead of stderr (the live table keeps them apart). */
typedef void (*meed_log_sink_fn)(void *user, const char *line);
void meed_log_redirect(meed_log_sink_fn sink, void *user);

#define MEED_LOG(level, subsystem, ...)                                                            \
    do {                                                                                           \
        if (meed_log_enabled(MEED_LOG_LEVEL_##level, subsystem)) {                                 \
            meed_log_line(MEED_LOG_LEVEL_##level, subsystem, __VA_ARGS__);                         \
        }                                                                                          \
    } while (0)
#define MEED_LOG_ERROR(subsystem, ...) MEED_LOG(ERROR, subsystem, __VA_ARGS__)
#define MEED_LOG_WARN(subsystem, ...) MEED_LOG(WARN, subsystem, __VA_ARGS__)
#define MEED_LOG_INFO(subsystem, ...) MEED_LOG(INFO, subsystem, __VA_ARGS__)
#define MEED_LOG_DEBUG(subsystem, ...) MEED_LOG(DEBUG, subsystem, __VA_ARGS__)

MEED_END_C
#endif
