/* Charts: the few forms in which a run is looked at, drawn as SVG inside the page.
 *
 * Each call writes one <figure>: a caption, a drawing with an accessible name, and where several
 * series share it, a key. Colours are classes (page_style.c), so light, dark and print are the
 * browser's business; forms also differ by dash and sign, since eyes differ. Every mark carries its
 * exact numbers as a tooltip. No script, no font, no size that text could outgrow: margins are made
 * from the longest label.
 *
 * Values that are NaN are left out, never drawn as 0. Strings are borrowed for the call and escaped
 * here. Failures stick to the markup.
 */
#ifndef MEED_REPORT_CHART_H
#define MEED_REPORT_CHART_H

#include "report/markup.h"
#include "report/roc.h"
#include "report/scale.h"

MEED_BEGIN_C

struct meed_chart_words {
    const char *title;
    const char *note;  /* what to look for, NULL for none */
    const char *x, *y; /* axis names with units; NULL for none */
};

enum {
    MEED_CHART_TINTS = 8,        /* then the dash changes */
    MEED_CHART_MOST_SERIES = 24, /* 8 tints × 3 dashes: more cannot be told apart */
    MEED_CHART_LABEL_MOST = 24,  /* characters of a label before it is cut */
    MEED_CHART_MUTED = -1,       /* the tint of what is not paid, not chosen, not the point */
};

/* ---- lines ------------------------------------------------------------------------------------
 */
enum meed_chart_error { MEED_CHART_BAND, MEED_CHART_WHISKER };

struct meed_chart_series {
    const char *name;
    int32_t count;
    const double *x, *y; /* [count], x rising */
    const double *error; /* [count] ± around y, or NULL */
};
/* Whole-numbered x (rounds). Whiskers of different series stand beside each other. At most
 * MEED_CHART_MOST_SERIES are drawn. */
void meed_chart_lines(struct meed_markup *markup, const struct meed_chart_words *words,
                      const struct meed_chart_series *series, int32_t count,
                      enum meed_chart_error error);
/* The same, narrow enough for a telephone and over other numbers: whole ones, any, or positive ones
 * by their logarithm. */
enum meed_chart_across { MEED_CHART_WHOLE, MEED_CHART_EVEN, MEED_CHART_LOG };
void meed_chart_trend(struct meed_markup *markup, const struct meed_chart_words *words,
                      const struct meed_chart_series *series, int32_t count,
                      enum meed_chart_error error, enum meed_chart_across across);

/* ---- bars -------------------------------------------------------------------------------------
 */
struct meed_chart_bar {
    const char *label;
    double value;
    double error;             /* ±; 0 or NaN for none */
    int tint;                 /* 0 … 7 or MEED_CHART_MUTED */
    struct meed_numeral mark; /* written at the bar's end */
};
/* Horizontal, from zero, one row a bar, in the order given. */
void meed_chart_bars(struct meed_markup *markup, const struct meed_chart_words *words,
                     const struct meed_chart_bar *bars, int32_t count);

/* ---- points -----------------------------------------------------------------------------------
 */
struct meed_chart_point {
    const char *label; /* beside the point as long as it hits no other; always in the tooltip */
    double x, y;
    double x_error, y_error; /* 0 or NaN for none */
    int tint;
    bool joined; /* by a line to the point before, whose label is then left to its tooltip */
};
/* How a scatter is read. */
struct meed_chart_guide {
    bool identity;  /* draws y = x */
    bool low_right; /* names that corner as the better one */
    bool compact; /* narrow enough for a telephone; a key for courses and for labels cut or without
                     room */
    const struct meed_chart_point *beside; /* [beside_count] of a neighbour that shares the axes */
    int32_t beside_count;
};
/* guide may be NULL. */
void meed_chart_scatter(struct meed_markup *markup, const struct meed_chart_words *words,
                        const struct meed_chart_point *points, int32_t count,
                        const struct meed_chart_guide *guide);

struct meed_chart_detector {
    const char *name;
    struct meed_roc roc;
};
void meed_chart_roc(struct meed_markup *markup, const struct meed_chart_words *words,
                    const struct meed_chart_detector *detectors, int32_t count);

/* ---- cells ------------------------------------------------------------------------------------
 */
/* values [count, count] row by row; the strength of a cell's colour is its size, the colour its
 * sign. The colour is full at ±full or the largest size, whichever is more. Numbers are written
 * into the cells as long as they fit. */
void meed_chart_heat(struct meed_markup *markup, const struct meed_chart_words *words,
                     const char *const *names, int32_t count, const double *values, double full);

MEED_END_C
#endif
