/* Time, replaceable: tests and the round simulation drive it by hand.
 *
 * Two clocks: `monotonic` for durations and deadlines, `wall` for names and receipts. Code that
 * decides something by time takes the value as an argument; only the outermost loops read it here.
 */
#ifndef MEED_BASE_CLOCK_H
#define MEED_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

/* Nanoseconds since an arbitrary start; never goes back. */
int64_t meed_clock_monotonic_ns(void);
/* Milliseconds since 1970-01-01T00:00Z. */
int64_t meed_clock_wall_ms(void);
double meed_clock_seconds_since(int64_t start_ns);
void meed_clock_sleep_ms(int64_t duration_ms);
/* "2026-01-02T03:04:05.678Z"; text must hold 32 bytes. */
void meed_clock_format_utc(int64_t wall_ms, char text[32]);

MEED_END_C
#endif
