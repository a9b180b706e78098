/* Scales: from numbers to places on an axis, with ticks a person would have chosen.
 *
 * Ticks stand at multiples of 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph
 * labels", Graphics Gems, 1990), and the axis ends at ticks, so that its labels span it. A range of
 * no width is opened around its value. Labels have just the decimals that tell neighbours apart.
 * On a logarithmic scale ticks are powers of ten.
 */
#ifndef MEED_REPORT_SCALE_H
#define MEED_REPORT_SCALE_H

#include "report/numeral.h"

MEED_BEGIN_C

struct meed_scale {
    double low, high; /* both multiples of step, or powers of ten */
    double step;      /* between ticks; in decades where logarithmic */
    bool logarithmic;
    int tick_count;  /* low and high included */
    int decimals;    /* of the labels */
    double from, to; /* where low and high are drawn */
};

/* low ≤ high, finite; about most_ticks ≥ 2 ticks, at most one more. */
struct meed_scale meed_scale_nice(double low, double high, int most_ticks);
/* Whole numbers first … last, each a tick as long as they are few. */
struct meed_scale meed_scale_whole(int first, int last, int most_ticks);
/* 0 < low ≤ high, both within 1e±12. */
struct meed_scale meed_scale_log(double low, double high, int most_ticks);
double meed_scale_place(const struct meed_scale *scale, double value);
double meed_scale_tick(const struct meed_scale *scale, int idx);
struct meed_numeral meed_scale_label(const struct meed_scale *scale, int idx);

MEED_END_C
#endif
