/* See chart_frame.h. */
#include "report/chart_frame.h"

#include <math.h>

enum { NARROW = 480 }; /* what fits on a phone with its text still readable */

const char *meed_chart_tint_class(int tint)
{
    static const char *const classes[MEED_CHART_TINTS] = {"c0", "c1", "c2", "c3",
                                                          "c4", "c5", "c6", "c7"};
    return tint < 0 ? "muted" : classes[tint % MEED_CHART_TINTS];
}

const char *meed_chart_dash_class(int32_t idx)
{
    static const char *const classes[] = {"d0", "d1", "d2"};
    return classes[(size_t)(idx / MEED_CHART_TINTS) % MEED_COUNT(classes)];
}

double meed_chart_label_width(const char *text)
{
    return MEED_CHART_GLYPH * MEED_MIN(meed_markup_length(text), (int)MEED_CHART_LABEL_MOST);
}

void meed_chart_widen(double value, double error, double *low, double *high)
{
    double reach = isfinite(error) ? fabs(error) : 0;
    if (isfinite(value)) {
        *low = fmin(*low, value - reach);
        *high = fmax(*high, value + reach);
    }
}

void meed_chart_frame_open(const struct meed_chart_frame *frame)
{
    struct meed_markup *m = frame->markup;
    meed_markup_raw(m, "<figure>\n<figcaption><strong>");
    meed_markup_text(m, frame->words->title);
    meed_markup_raw(m, "</strong>");
    if (frame->words->note) {
        meed_markup_raw(m, " ");
        meed_markup_text(m, frame->words->note);
    }
    meed_markup_raw(m,
                    "</figcaption>\n<svg%s viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" role=\"img\" "
                    "aria-label=\"",
                    frame->width > NARROW ? " class=\"wide\"" : "", frame->width, frame->height,
                    frame->width);
    meed_markup_text(m, frame->words->title);
    meed_markup_raw(m, "\">\n");
}

void meed_chart_frame_close_svg(const struct meed_chart_frame *frame)
{
    meed_markup_raw(frame->markup, "</svg>\n");
}

void meed_chart_frame_close(const struct meed_chart_frame *frame)
{
    meed_markup_raw(frame->markup, "</figure>\n");
}

struct meed_chart_frame meed_chart_frame_make(struct meed_markup *markup,
                                              const struct meed_chart_words *words, double width,
                                              struct meed_scale *x, struct meed_scale *y)
{
    double widest = 0;
    for (int i = 0; i < y->tick_count; i++) {
        widest = fmax(widest, meed_chart_label_width(meed_scale_label(y, i).text));
    }
    struct meed_chart_frame frame = {.markup = markup,
                                     .words = words,
                                     .width = width,
                                     .height = MEED_CHART_HEIGHT,
                                     .left = widest + (words->y ? 34 : 14),
                                     .right = width - 20,
                                     .top = 12,
                                     .bottom = MEED_CHART_HEIGHT - (words->x ? 44 : 26)};
    x->from = frame.left;
    x->to = frame.right;
    y->from = frame.bottom;
    y->to = frame.top;
    return frame;
}

void meed_chart_frame_label(const struct meed_chart_frame *frame, double x, double y,
                            const char *anchor, const char *text)
{
    meed_markup_raw(frame->markup, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\">", x, y, anchor);
    meed_markup_text_cut(frame->markup, text, MEED_CHART_LABEL_MOST);
    meed_markup_raw(frame->markup, "</text>\n");
}

static void names_of_axes(const struct meed_chart_frame *frame, bool with_y)
{
    struct meed_markup *m = frame->markup;
    if (frame->words->x) {
        meed_markup_raw(m, "<text class=\"axis\" x=\"%.2f\" y=\"%.2f\" text-anchor=\"middle\">",
                        (frame->left + frame->right) / 2, frame->height - 6);
        meed_markup_text(m, frame->words->x);
        meed_markup_raw(m, "</text>\n");
    }
    if (with_y && frame->words->y) {
        double middle = (frame->top + frame->bottom) / 2;
        meed_markup_raw(m,
                        "<text class=\"axis\" transform=\"translate(14 %.2f) rotate(-90)\" "
                        "text-anchor=\"middle\">",
                        middle);
        meed_markup_text(m, frame->words->y);
        meed_markup_raw(m, "</text>\n");
    }
}

void meed_chart_frame_axes(const struct meed_chart_frame *frame, const struct meed_scale *x,
                           const struct meed_scale *y)
{
    struct meed_markup *m = frame->markup;
    for (int i = 0; i < x->tick_count; i++) {
        double at = meed_scale_place(x, meed_scale_tick(x, i));
        meed_markup_raw(m,
                        "<line class=\"grid\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"/>\n",
                        at, frame->top, at, frame->bottom);
        meed_chart_frame_label(frame, at, frame->bottom + 16, "middle",
                               meed_scale_label(x, i).text);
    }
    for (int i = 0; y && i < y->tick_count; i++) {
        double at = meed_scale_place(y, meed_scale_tick(y, i));
        meed_markup_raw(m,
                        "<line class=\"grid\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"/>\n",
                        frame->left, at, frame->right, at);
        meed_chart_frame_label(frame, frame->left - 6, at + 4, "end", meed_scale_label(y, i).text);
    }
    names_of_axes(frame, y != NULL);
}

void meed_chart_frame_key(const struct meed_chart_frame *frame, int32_t idx, const char *name,
                          const char *value)
{
    struct meed_markup *m = frame->markup;
    meed_markup_raw(m,
                    "<li><svg class=\"key %s\" viewBox=\"0 0 26 8\" width=\"26\" height=\"8\" "
                    "aria-hidden=\"true\"><line class=\"line %s\" x1=\"0\" y1=\"4\" x2=\"26\" "
                    "y2=\"4\"/></svg>",
                    meed_chart_tint_class(idx), meed_chart_dash_class(idx));
    meed_markup_text(m, name);
    if (value) {
        meed_markup_raw(m, " <b>");
        meed_markup_text(m, value);
        meed_markup_raw(m, "</b>");
    }
    meed_markup_raw(m, "</li>\n");
}
