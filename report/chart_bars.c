/* Horizontal bars with error bars; see chart.h. */
#include <math.h>
#include "report/chart_frame.h"

enum { ROW = 24, BAR = 14 };

struct bars {
    struct meed_chart_frame frame;
    struct meed_scale x;
};

static void draw_bar(const struct bars *bars, const struct meed_chart_bar *bar, int32_t row)
{
    struct meed_markup *m = bars->frame.markup;
    double middle = bars->frame.top + (row + 0.5) * ROW;
    meed_chart_frame_label(&bars->frame, bars->frame.left - 8, middle + 4, "end", bar->label);
    if (!isfinite(bar->value)) {
        return;
    }
    double zero = meed_scale_place(&bars->x, 0), end = meed_scale_place(&bars->x, bar->value);
    double reach = isfinite(bar->error) ? bar->error : 0;
    double tip = meed_scale_place(&bars->x, fmax(bar->value, 0) + (bar->value > 0 ? reach : 0));
    meed_markup_raw(m,
                    "<g class=\"%s\"><rect class=\"bar\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" "
                    "height=\"%d\"><title>",
                    meed_chart_tint_class(bar->tint), fmin(zero, end), middle - BAR / 2.0,
                    fabs(end - zero), BAR);
    meed_markup_text(m, bar->label);
    meed_markup_raw(m, ": %s</title></rect></g>\n", bar->mark.text);
    if (reach > 0) {
        double low = meed_scale_place(&bars->x, bar->value - reach);
        double high = meed_scale_place(&bars->x, bar->value + reach);
        meed_markup_raw(m,
                        "<path class=\"error\" d=\"M%.2f %.2f H%.2f M%.2f %.2f v8 M%.2f %.2f "
                        "v8\"/>\n",
                        low, middle, high, low, middle - 4, high, middle - 4);
        tip = fmax(tip, high);
    }
    meed_markup_raw(m, "<text class=\"mark\" x=\"%.2f\" y=\"%.2f\">%s</text>\n", tip + 8,
                    middle + 4, bar->mark.text);
}

void meed_chart_bars(struct meed_markup *markup, const struct meed_chart_words *words,
                     const struct meed_chart_bar *bars, int32_t count)
{
    double low = 0, high = 0, label = 0, mark = 0;
    for (int32_t i = 0; i < count; i++) {
        meed_chart_widen(bars[i].value, bars[i].error, &low, &high);
        label = fmax(label, meed_chart_label_width(bars[i].label));
        mark = fmax(mark, MEED_CHART_GLYPH * meed_markup_length(bars[i].mark.text));
    }
    if (count == 0) {
        return;
    }
    struct bars chart = {.x = meed_scale_nice(low, high, 7)};
    struct meed_chart_frame *frame = &chart.frame;
    *frame = (struct meed_chart_frame){.markup = markup,
                                       .words = words,
                                       .width = MEED_CHART_WIDTH,
                                       .height = 8 + (double)ROW * count + (words->x ? 44 : 26),
                                       .left = label + 16,
                                       .right = MEED_CHART_WIDTH - mark - 16,
                                       .top = 8,
                                       .bottom = 8 + (double)ROW * count};
    chart.x.from = frame->left;
    chart.x.to = frame->right;
    meed_chart_frame_open(frame);
    meed_chart_frame_axes(frame, &chart.x, NULL);
    double zero = meed_scale_place(&chart.x, 0);
    for (int32_t i = 0; i < count; i++) {
        draw_bar(&chart, &bars[i], i);
    }
    meed_markup_raw(markup,
                    "<line class=\"zero\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"/>\n",
                    zero, frame->top, zero, frame->bottom);
    meed_chart_frame_close_svg(frame);
    meed_chart_frame_close(frame);
}
