/* The frame that every chart stands in: figure, drawing area, axes, key.
 *
 * Coordinates are the pixels of the viewBox; the browser scales the whole. A glyph of the 12-pixel
 * label font is taken as 6.8 pixels wide, the mean of the digits and wide enough for most words of
 * the usual system fonts.
 */
#ifndef MEED_REPORT_CHART_FRAME_H
#define MEED_REPORT_CHART_FRAME_H

#include "report/chart.h"

MEED_BEGIN_C

struct meed_chart_frame {
    struct meed_markup *markup;
    const struct meed_chart_words *words;
    double width, height;
    double left, right, top, bottom; /* edges of the drawing area */
};

#define MEED_CHART_GLYPH 6.8

enum { MEED_CHART_WIDTH = 640, MEED_CHART_COMPACT = 460, MEED_CHART_HEIGHT = 320 };

/* Writes the figure's opening. Edges and size must be set. */
void meed_chart_frame_open(const struct meed_chart_frame *frame);
/* Ends the drawing; between the two, <svg> content. */
void meed_chart_frame_close_svg(const struct meed_chart_frame *frame);
void meed_chart_frame_close(const struct meed_chart_frame *frame);

/* A frame of a width and the usual height whose left edge fits y's labels; sets where both scales
 * are drawn. */
struct meed_chart_frame meed_chart_frame_make(struct meed_markup *markup,
                                              const struct meed_chart_words *words, double width,
                                              struct meed_scale *x, struct meed_scale *y);
/* Grid, tick labels, names of the axes. y NULL: the x axis alone. */
void meed_chart_frame_axes(const struct meed_chart_frame *frame, const struct meed_scale *x,
                           const struct meed_scale *y);

/* A text at (x, y); anchor is "start", "middle" or "end". */
void meed_chart_frame_label(const struct meed_chart_frame *frame, double x, double y,
                            const char *anchor, const char *text);
/* The key's entry of series `idx`. Call between close_svg and close. */
void meed_chart_frame_key(const struct meed_chart_frame *frame, int32_t idx, const char *name,
                          const char *value);

/* The class names of a tint ("c3", "muted") and of the dash of series idx ("", "d1", "d2"). */
const char *meed_chart_tint_class(int tint);
const char *meed_chart_dash_class(int32_t idx);
/* Pixels of a label of at most MEED_CHART_LABEL_MOST characters. */
double meed_chart_label_width(const char *text);

/* Widens [low, high] to hold value ± error; NaN changes nothing. */
void meed_chart_widen(double value, double error, double *low, double *high);

MEED_END_C
#endif
