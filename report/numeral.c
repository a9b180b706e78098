/* See numeral.h. */
#include "report/numeral.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define MINUS "\xE2\x88\x92"
#define UNKNOWN "\xE2\x80\x93"
#define PLUS_MINUS "\xC2\xB1"
#define NARROW_SPACE "\xE2\x80\xAF"

enum { MOST_DECIMALS = 12 };

struct meed_numeral meed_numeral_fixed(double value, int decimals, bool sign)
{
    struct meed_numeral n;
    decimals = MEED_MIN(MEED_MAX(decimals, 0), (int)MOST_DECIMALS);
    if (!isfinite(value)) {
        snprintf(n.text, sizeof n.text, UNKNOWN);
    } else if (fabs(value) >= 1e15) {
        snprintf(n.text, sizeof n.text, "%s%.3e", value < 0 ? MINUS : sign ? "+" : "", fabs(value));
    } else {
        double zero = 0.5 * pow(10, -decimals); /* what would print as −0 has no sign */
        snprintf(n.text, sizeof n.text, "%s%.*f",
                 value <= -zero ? MINUS
                 : sign         ? "+"
                                : "",
                 decimals, fabs(value));
    }
    return n;
}

struct meed_numeral meed_numeral_estimate(double value, double se)
{
    if (!isfinite(value)) {
        return meed_numeral_fixed(NAN, 0, false);
    }
    if (!isfinite(se)) {
        bool whole = value == floor(value) && fabs(value) < 1e15;
        return whole ? meed_numeral_count((int64_t)value)
                     : meed_numeral_fixed(value, (int)(5 - floor(log10(fabs(value)))), true);
    }
    if (value == 0 && se == 0) { /* exactly nothing, as a null player has */
        return meed_numeral_count(0);
    }
    int decimals = se > 0 ? (int)(1 - floor(log10(se))) : 6;
    decimals = MEED_MIN(MEED_MAX(decimals, 0), 9);
    struct meed_numeral head = meed_numeral_fixed(value, decimals, true);
    struct meed_numeral tail = meed_numeral_fixed(se, decimals, false);
    struct meed_numeral n;
    snprintf(n.text, sizeof n.text, "%.28s " PLUS_MINUS " %.28s", head.text, tail.text);
    return n;
}

struct meed_numeral meed_numeral_count(int64_t value)
{
    char digits[24];
    struct meed_numeral n;
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    int length = snprintf(digits, sizeof digits, "%" PRIu64, magnitude);
    int used = snprintf(n.text, sizeof n.text, "%s", value < 0 ? MINUS : "");
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            n.text[used++] = ',';
        }
        n.text[used++] = digits[i];
    }
    n.text[used] = '\0';
    return n;
}

struct meed_numeral meed_numeral_bytes(int64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    struct meed_numeral n;
    double shown = (double)bytes;
    size_t unit = 0;
    while (shown >= 999.5 && unit + 1 < MEED_COUNT(units)) {
        shown /= 1000;
        unit++;
    }
    if (bytes < 0) {
        return meed_numeral_fixed(NAN, 0, false);
    }
    int decimals = unit == 0 || shown >= 99.95 ? 0 : shown >= 9.995 ? 1 : 2;
    snprintf(n.text, sizeof n.text, "%.*f" NARROW_SPACE "%s", decimals, shown, units[unit]);
    return n;
}

struct meed_numeral meed_numeral_percent(double part, double all)
{
    struct meed_numeral n;
    if (!(all > 0) || !isfinite(part)) {
        return meed_numeral_fixed(NAN, 0, false);
    }
    snprintf(n.text, sizeof n.text, "%.1f" NARROW_SPACE "%%", 100 * part / all);
    return n;
}

struct meed_numeral meed_numeral_share(double share, double error)
{
    struct meed_numeral n, head = meed_numeral_fixed(100 * share, 1, false);
    if (!isfinite(share)) {
        return meed_numeral_fixed(NAN, 0, false);
    }
    if (error > 0 && isfinite(error)) {
        snprintf(n.text, sizeof n.text, "%.24s " PLUS_MINUS " %.24s" NARROW_SPACE "%%", head.text,
                 meed_numeral_fixed(100 * error, 1, false).text);
    } else {
        snprintf(n.text, sizeof n.text, "%.24s" NARROW_SPACE "%%", head.text);
    }
    return n;
}
