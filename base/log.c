/* See log.h. One write(2)-sized line under a mutex; levels are read without it, since they are set
 * before threads start. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"

enum { MAX_OVERRIDES = 16, NAME_BYTES = 16 };

static struct {
    enum meed_log_level level;
    int override_count;
    struct {
        char subsystem[NAME_BYTES];
        enum meed_log_level level;
    } overrides[MAX_OVERRIDES];
    meed_log_sink_fn sink;
    void *sink_user;
} config = {.level = MEED_LOG_LEVEL_WARN};
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static bool level_parse(const char *text, size_t length, enum meed_log_level *level)
{
    for (size_t i = 0; i < MEED_COUNT(level_names); i++) {
        if (strlen(level_names[i]) == length && memcmp(level_names[i], text, length) == 0) {
            *level = (enum meed_log_level)i;
            return true;
        }
    }
    return false;
}

enum meed_status meed_log_configure(const char *spec)
{
    for (const char *part = spec; *part;) {
        size_t length = strcspn(part, ",");
        const char *equals = memchr(part, '=', length);
        size_t name_length = equals ? (size_t)(equals - part) : 0;
        const char *value = equals ? equals + 1 : part;
        enum meed_log_level level;
        if (!level_parse(value, length - (size_t)(value - part), &level) ||
            name_length >= NAME_BYTES || (equals && config.override_count == MAX_OVERRIDES)) {
            return MEED_FAIL(
                MEED_ARG,
                "--log: cannot read \"%.*s\"; write a level (error, warn, info, debug) "
                "or subsystem=level",
                (int)length, part);
        }
        if (equals) {
            memcpy(config.overrides[config.override_count].subsystem, part, name_length);
            config.overrides[config.override_count].subsystem[name_length] = '\0';
            config.overrides[config.override_count++].level = level;
        } else {
            config.level = level;
        }
        part += length + (part[length] == ',');
    }
    return MEED_OK;
}

int meed_log_enabled(enum meed_log_level level, const char *subsystem)
{
    for (int i = config.override_count - 1; i >= 0; i--) {
        if (strcmp(config.overrides[i].subsystem, subsystem) == 0) {
            return level <= config.overrides[i].level;
        }
    }
    return level <= config.level;
}

void meed_log_redirect(meed_log_sink_fn sink, void *user)
{
    pthread_mutex_lock(&mutex);
    config.sink = sink;
    config.sink_user = user;
    pthread_mutex_unlock(&mutex);
}

void meed_log_line(enum meed_log_level level, const char *subsystem, const char *format, ...)
{
    char line[1200];
    char time_text[32];
    meed_clock_format_utc(meed_clock_wall_ms(), time_text);
    int used = snprintf(line, sizeof line, "%s %c %-10s ", time_text, "EWID"[level], subsystem);
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, sizeof line - (size_t)used, format, args);
    va_end(args);
    pthread_mutex_lock(&mutex);
    if (config.sink) {
        config.sink(config.sink_user, line);
    } else {
        fprintf(stderr, "%s\n", line);
    }
    pthread_mutex_unlock(&mutex);
}
