/* Lines over rounds or other numbers, with bands or whiskers of error; see chart.h. */
#include <math.h>
#include "report/chart_frame.h"

struct lines {
    struct meed_chart_frame frame;
    struct meed_scale x, y;
    double shift; /* of the present series, so that whiskers do not hide each other */
};

static double place_x(const struct lines *lines, double value)
{
    return meed_scale_place(&lines->x, value) + lines->shift;
}

static void draw_band(const struct lines *lines, const struct meed_chart_series *s)
{
    struct meed_markup *m = lines->frame.markup;
    meed_markup_raw(m, "<polygon class=\"band\" points=\"");
    for (int32_t i = 0; i < 2 * s->count; i++) {
        int32_t at = i < s->count ? i : 2 * s->count - 1 - i; /* there above, back below */
        double error = i < s->count ? s->error[at] : -s->error[at];
        if (isfinite(s->y[at]) && isfinite(error)) {
            meed_markup_raw(m, "%.2f,%.2f ", place_x(lines, s->x[at]),
                            meed_scale_place(&lines->y, s->y[at] + error));
        }
    }
    meed_markup_raw(m, "\"/>\n");
}

static void draw_whiskers(const struct lines *lines, const struct meed_chart_series *s)
{
    for (int32_t i = 0; i < s->count; i++) {
        if (isfinite(s->y[i]) && s->error[i] > 0) {
            double x = place_x(lines, s->x[i]);
            meed_markup_raw(lines->frame.markup,
                            "<line class=\"whisker\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" "
                            "y2=\"%.2f\"/>\n",
                            x, meed_scale_place(&lines->y, s->y[i] - s->error[i]), x,
                            meed_scale_place(&lines->y, s->y[i] + s->error[i]));
        }
    }
}

/* A gap in the values is a gap in the line. */
static void draw_line(const struct lines *lines, const struct meed_chart_series *s, int32_t idx)
{
    struct meed_markup *m = lines->frame.markup;
    bool pen_down = false;
    meed_markup_raw(m, "<path class=\"line %s\" d=\"", meed_chart_dash_class(idx));
    for (int32_t i = 0; i < s->count; i++) {
        if (isfinite(s->y[i])) {
            meed_markup_raw(m, "%s%.2f %.2f", pen_down ? " L" : "M", place_x(lines, s->x[i]),
                            meed_scale_place(&lines->y, s->y[i]));
        }
        pen_down = isfinite(s->y[i]);
    }
    meed_markup_raw(m, "\"/>\n");
}

static void draw_dots(const struct lines *lines, const struct meed_chart_series *s)
{
    struct meed_markup *m = lines->frame.markup;
    for (int32_t i = 0; i < s->count; i++) {
        if (!isfinite(s->y[i])) {
            continue;
        }
        meed_markup_raw(m, "<circle class=\"dot\" cx=\"%.2f\" cy=\"%.2f\" r=\"3\"><title>",
                        place_x(lines, s->x[i]), meed_scale_place(&lines->y, s->y[i]));
        meed_markup_text(m, s->name);
        meed_markup_raw(m, ", %.6g: %s</title></circle>\n", s->x[i],
                        meed_numeral_estimate(s->y[i], s->error ? s->error[i] : NAN).text);
    }
}

static void draw_series(struct lines *lines, const struct meed_chart_series *s, int32_t idx,
                        enum meed_chart_error error)
{
    struct meed_markup *m = lines->frame.markup;
    meed_markup_raw(m, "<g class=\"%s\">\n", meed_chart_tint_class(idx));
    if (s->error && error == MEED_CHART_BAND) {
        draw_band(lines, s);
    } else if (s->error) {
        draw_whiskers(lines, s);
    }
    draw_line(lines, s, idx);
    draw_dots(lines, s);
    meed_markup_raw(m, "</g>\n");
}

static struct meed_scale scale_across(enum meed_chart_across across, double low, double high,
                                      int most_ticks)
{
    switch (across) {
    case MEED_CHART_EVEN:
        return meed_scale_nice(low, high, most_ticks);
    case MEED_CHART_LOG:
        return meed_scale_log(low, high, most_ticks);
    default:
        return meed_scale_whole((int)low, (int)high, most_ticks);
    }
}

static void draw_all(struct meed_markup *markup, const struct meed_chart_words *words,
                     const struct meed_chart_series *series, int32_t count,
                     enum meed_chart_error error, enum meed_chart_across across, double width)
{
    double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
    int32_t drawn = MEED_MIN(count, (int32_t)MEED_CHART_MOST_SERIES);
    for (int32_t s = 0; s < drawn; s++) {
        for (int32_t i = 0; i < series[s].count; i++) {
            meed_chart_widen(series[s].x[i], 0, &x_low, &x_high);
            meed_chart_widen(series[s].y[i], series[s].error ? series[s].error[i] : 0, &y_low,
                             &y_high);
        }
    }
    if (!(x_low <= x_high) || !(y_low <= y_high)) {
        return; /* nothing is known */
    }
    int most_ticks = width < MEED_CHART_WIDTH ? 6 : 12;
    struct lines lines = {.x = scale_across(across, x_low, x_high, most_ticks),
                          .y = meed_scale_nice(y_low, y_high, 6)};
    lines.frame = meed_chart_frame_make(markup, words, width, &lines.x, &lines.y);
    double between = 0;
    if (error == MEED_CHART_WHISKER) { /* inside the frame at both ends */
        double slots = across == MEED_CHART_WHOLE ? x_high - x_low + 1 : 12;
        between = fmin(7, 0.5 * (lines.x.to - lines.x.from) / slots / drawn);
        double room = between * drawn / 2 + 4;
        lines.x.from += room;
        lines.x.to -= room;
    }
    meed_chart_frame_open(&lines.frame);
    meed_chart_frame_axes(&lines.frame, &lines.x, &lines.y);
    for (int32_t s = 0; s < drawn; s++) {
        lines.shift = between * (s - (drawn - 1) / 2.0);
        draw_series(&lines, &series[s], s, error);
    }
    meed_chart_frame_close_svg(&lines.frame);
    if (drawn > 1) {
        meed_markup_raw(markup, "<ul class=\"legend\">\n");
        for (int32_t s = 0; s < drawn; s++) {
            if (series[s].count > 0) {
                meed_chart_frame_key(&lines.frame, s, series[s].name, NULL);
            }
        }
        meed_markup_raw(markup, "</ul>\n");
    }
    meed_chart_frame_close(&lines.frame);
}

void meed_chart_lines(struct meed_markup *markup, const struct meed_chart_words *words,
                      const struct meed_chart_series *series, int32_t count,
                      enum meed_chart_error error)
{
    draw_all(markup, words, series, count, error, MEED_CHART_WHOLE, MEED_CHART_WIDTH);
}

void meed_chart_trend(struct meed_markup *markup, const struct meed_chart_words *words,
                      const struct meed_chart_series *series, int32_t count,
                      enum meed_chart_error error, enum meed_chart_across across)
{
    draw_all(markup, words, series, count, error, across, MEED_CHART_COMPACT);
}
