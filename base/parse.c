/* See parse.h. */
#include "base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum meed_status meed_parse_i64(const char *what, const char *text, int64_t min, int64_t max,
                                int64_t *value)
{
    char *end = NULL;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    bool starts_well =
        isdigit((unsigned char)text[0]) || (text[0] == '-' && isdigit((unsigned char)text[1]));
    if (!starts_well || *end || errno || parsed < min || parsed > max) {
        return MEED_FAIL(MEED_ARG,
                         "%s: \"%.64s\" is not a whole number from %" PRId64 " to %" PRId64, what,
                         text, min, max);
    }
    *value = parsed;
    return MEED_OK;
}

enum meed_status meed_parse_f64(const char *what, const char *text, double min, double max,
                                double *value)
{
    char *end = NULL;
    errno = 0;
    double parsed = strtod(text, &end);
    bool starts_well = isdigit((unsigned char)text[0]) || strchr("-.", text[0]);
    if (!text[0] || !starts_well || *end || !isfinite(parsed) || parsed < min || parsed > max) {
        return MEED_FAIL(MEED_ARG, "%s: \"%.64s\" is not a number from %g to %g", what, text, min,
                         max);
    }
    *value = parsed;
    return MEED_OK;
}

/* Splits "12unit": digits into *count, the rest must be one of `units`. */
static enum meed_status scaled(const char *what, const char *text, const char *kind,
                               const char *const *units, const int64_t *factors, size_t unit_count,
                               int64_t *value)
{
    char *end = NULL;
    errno = 0;
    long long count = isdigit((unsigned char)text[0]) ? strtoll(text, &end, 10) : -1;
    for (size_t i = 0; count >= 0 && !errno && i < unit_count; i++) {
        int64_t product;
        if (strcmp(end, units[i]) == 0 &&
            !__builtin_mul_overflow((int64_t)count, factors[i], &product)) {
            *value = product;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "%s: \"%.64s\" is not %s", what, text, kind);
}

enum meed_status meed_parse_bytes(const char *what, const char *text, int64_t *bytes)
{
    static const char *const units[] = {"", "K", "M", "G"};
    static const int64_t factors[] = {1, 1 << 10, 1 << 20, 1 << 30};
    return scaled(what, text, "a size such as 4096, 64K, 16M or 2G", units, factors, 4, bytes);
}

enum meed_status meed_parse_duration_ms(const char *what, const char *text, int64_t *duration_ms)
{
    static const char *const units[] = {"ms", "s", "m", "h"};
    static const int64_t factors[] = {1, 1000, 60000, 3600000};
    return scaled(what, text, "a duration such as 500ms, 90s, 10m or 2h", units, factors, 4,
                  duration_ms);
}

enum meed_status meed_parse_bool(const char *what, const char *text, bool *value)
{
    static const char *const names[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *value = i % 2 == 1;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "%s: \"%.64s\" is neither true nor false", what, text);
}

size_t meed_parse_order_mark(const char *bytes, size_t size)
{
    return size >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}
