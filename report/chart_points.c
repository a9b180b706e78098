/* Points with errors on two axes, and step curves of detectors; see chart.h. */
#include <math.h>
#include "report/chart_frame.h"

enum { LABELS_MOST = 96, LABEL_HEIGHT = 13 };

struct box {
    double left, right, top, bottom;
};

struct scatter {
    struct meed_chart_frame frame;
    struct meed_scale x, y;
    struct box taken[2 * LABELS_MOST + 1]; /* by the corner's name, points, then labels */
    int taken_count;
};

static bool overlaps(const struct box *a, const struct box *b)
{
    return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

static bool is_free(const struct scatter *s, const struct box *box)
{
    bool inside = box->left >= s->frame.left && box->right <= s->frame.right &&
                  box->top >= s->frame.top - LABEL_HEIGHT / 2 - 1 &&
                  box->bottom <= s->frame.bottom + LABEL_HEIGHT / 2 + 1; /* on an edge is in */
    for (int i = 0; inside && i < s->taken_count; i++) {
        inside = !overlaps(box, &s->taken[i]);
    }
    return inside;
}

/* Pixels that an error reaches to one side. */
static double reach_of(const struct meed_scale *scale, double error)
{
    double pixels = error / (scale->high - scale->low) * fabs(scale->to - scale->from);
    return error > 0 ? pixels : 0;
}

/* Right, left, above, below: the first place that hits neither a point nor a label; false if all
 * hit one. */
static bool draw_label(struct scatter *s, const struct meed_chart_point *point)
{
    double x = meed_scale_place(&s->x, point->x), y = meed_scale_place(&s->y, point->y);
    double width = meed_chart_label_width(point->label);
    double beyond = reach_of(&s->x, point->x_error);
    static const struct {
        double across, down; /* of the text's left end in widths, of its middle in lines */
        double gap;
    } places[] = {{0, 0, 8}, {-1, 0, -8}, {-0.5, -1, 0}, {-0.5, 1, 0}, {0, -1, 4}, {0, 1, 4}};
    for (size_t i = 0; i < MEED_COUNT(places) && s->taken_count < 2 * LABELS_MOST + 1; i++) {
        double left = x + places[i].across * width + places[i].gap;
        left += places[i].down == 0 ? copysign(beyond, places[i].gap) : 0;
        double middle = y + places[i].down * LABEL_HEIGHT;
        struct box box = {left, left + width, middle - LABEL_HEIGHT / 2.0,
                          middle + LABEL_HEIGHT / 2.0};
        if (is_free(s, &box)) {
            s->taken[s->taken_count++] = box;
            meed_chart_frame_label(&s->frame, left, middle + 4, "start", point->label);
            return true;
        }
    }
    return false;
}

static void draw_cross(const struct scatter *s, const struct meed_chart_point *point)
{
    struct meed_markup *m = s->frame.markup;
    double x = meed_scale_place(&s->x, point->x), y = meed_scale_place(&s->y, point->y);
    if (point->x_error > 0) {
        meed_markup_raw(
            m, "<line class=\"whisker\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"/>\n",
            meed_scale_place(&s->x, point->x - point->x_error), y,
            meed_scale_place(&s->x, point->x + point->x_error), y);
    }
    if (point->y_error > 0) {
        meed_markup_raw(
            m, "<line class=\"whisker\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"/>\n", x,
            meed_scale_place(&s->y, point->y - point->y_error), x,
            meed_scale_place(&s->y, point->y + point->y_error));
    }
}

static struct meed_numeral with_error(double value, double error)
{
    return meed_numeral_estimate(value, error > 0 ? error : NAN);
}

static void draw_point(const struct scatter *s, const struct meed_chart_point *point)
{
    struct meed_markup *m = s->frame.markup;
    meed_markup_raw(m, "<g class=\"%s\">\n", meed_chart_tint_class(point->tint));
    draw_cross(s, point);
    meed_markup_raw(m, "<circle class=\"dot\" cx=\"%.2f\" cy=\"%.2f\" r=\"4\"><title>",
                    meed_scale_place(&s->x, point->x), meed_scale_place(&s->y, point->y));
    meed_markup_text(m, point->label);
    meed_markup_raw(m, ": %s, %s</title></circle></g>\n", with_error(point->x, point->x_error).text,
                    with_error(point->y, point->y_error).text);
}

static void draw_identity(const struct scatter *s)
{
    double low = fmax(s->x.low, s->y.low), high = fmin(s->x.high, s->y.high);
    if (low < high) {
        meed_markup_raw(s->frame.markup,
                        "<line class=\"identity\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" "
                        "y2=\"%.2f\"/>\n",
                        meed_scale_place(&s->x, low), meed_scale_place(&s->y, low),
                        meed_scale_place(&s->x, high), meed_scale_place(&s->y, high));
    }
}

static void draw_join(const struct scatter *s, const struct meed_chart_point *from,
                      const struct meed_chart_point *to)
{
    meed_markup_raw(s->frame.markup,
                    "<g class=\"%s\"><path class=\"line\" d=\"M%.2f %.2f L%.2f %.2f\"/></g>\n",
                    meed_chart_tint_class(to->tint), meed_scale_place(&s->x, from->x),
                    meed_scale_place(&s->y, from->y), meed_scale_place(&s->x, to->x),
                    meed_scale_place(&s->y, to->y));
}

static bool known(const struct meed_chart_point *point)
{
    return isfinite(point->x) && isfinite(point->y);
}

static void take_points(struct scatter *s, const struct meed_chart_point *points, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        double x = meed_scale_place(&s->x, points[i].x), y = meed_scale_place(&s->y, points[i].y);
        if (known(&points[i])) {
            double across = fmax(5, reach_of(&s->x, points[i].x_error));
            double along = fmax(5, reach_of(&s->y, points[i].y_error));
            s->taken[s->taken_count++] = (struct box){x - across, x + across, y - along, y + along};
        }
    }
}

static void draw_corner(struct scatter *s)
{
    static const char name[] = "better: right and low ↘";
    double right = s->frame.right - 6, middle = s->frame.bottom - 12;
    s->taken[s->taken_count++] =
        (struct box){right - meed_chart_label_width(name), right, middle - LABEL_HEIGHT / 2.0,
                     middle + LABEL_HEIGHT / 2.0};
    meed_markup_raw(s->frame.markup,
                    "<text class=\"axis\" x=\"%.2f\" y=\"%.2f\" text-anchor=\"end\">%s</text>\n",
                    right, middle + 4, name);
}

/* A course is called by its last point. */
static bool wants_label(const struct meed_chart_point *points, int32_t count, int32_t idx)
{
    return known(&points[idx]) && !(idx + 1 < count && points[idx + 1].joined);
}

/* Labels that find room; the others below the drawing, where a key was asked for. */
static void draw_labels(struct scatter *s, const struct meed_chart_point *points, int32_t count,
                        bool keyed)
{
    struct meed_markup *m = s->frame.markup;
    bool written[LABELS_MOST] = {false}, open = false;
    if (count <= LABELS_MOST) {
        take_points(s, points, count);
    }
    for (int32_t i = 0; i < count && count <= LABELS_MOST; i++) {
        bool only_key = keyed && (points[i].joined ||
                                  meed_markup_length(points[i].label) > (int)MEED_CHART_LABEL_MOST);
        written[i] = wants_label(points, count, i) && !only_key && draw_label(s, &points[i]);
    }
    meed_chart_frame_close_svg(&s->frame);
    for (int32_t i = 0; i < count && keyed; i++) {
        if (wants_label(points, count, i) && !(count <= LABELS_MOST && written[i])) {
            meed_markup_raw(m, open ? "" : "<ul class=\"legend\">\n");
            meed_chart_frame_key(&s->frame, points[i].tint, points[i].label, NULL);
            open = true;
        }
    }
    meed_markup_raw(m, open ? "</ul>\n" : "");
}

struct reach {
    double x_low, x_high, y_low, y_high;
};

static void widen(struct reach *reach, const struct meed_chart_point *points, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (known(&points[i])) {
            meed_chart_widen(points[i].x, points[i].x_error, &reach->x_low, &reach->x_high);
            meed_chart_widen(points[i].y, points[i].y_error, &reach->y_low, &reach->y_high);
        }
    }
}

void meed_chart_scatter(struct meed_markup *markup, const struct meed_chart_words *words,
                        const struct meed_chart_point *points, int32_t count,
                        const struct meed_chart_guide *guide)
{
    static const struct meed_chart_guide none = {.identity = false};
    struct reach reach = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    guide = guide ? guide : &none;
    widen(&reach, points, count);
    if (!(reach.x_low <= reach.x_high)) {
        return;
    }
    widen(&reach, guide->beside, guide->beside_count);
    struct scatter s = {.x = meed_scale_nice(reach.x_low, reach.x_high, guide->compact ? 5 : 7),
                        .y = meed_scale_nice(reach.y_low, reach.y_high, 6)};
    s.frame = meed_chart_frame_make(
        markup, words, guide->compact ? MEED_CHART_COMPACT : MEED_CHART_WIDTH, &s.x, &s.y);
    meed_chart_frame_open(&s.frame);
    meed_chart_frame_axes(&s.frame, &s.x, &s.y);
    if (guide->identity) {
        draw_identity(&s);
    }
    if (guide->low_right) {
        draw_corner(&s);
    }
    for (int32_t i = 1; i < count; i++) {
        if (points[i].joined && known(&points[i]) && known(&points[i - 1])) {
            draw_join(&s, &points[i - 1], &points[i]);
        }
    }
    for (int32_t i = 0; i < count; i++) {
        if (known(&points[i])) {
            draw_point(&s, &points[i]);
        }
    }
    draw_labels(&s, points, count, guide->compact);
    meed_chart_frame_close(&s.frame);
}

/* ---- detectors ---------------------------------------------------------------------------------
 */
void meed_chart_roc(struct meed_markup *markup, const struct meed_chart_words *words,
                    const struct meed_chart_detector *detectors, int32_t count)
{
    struct scatter s = {.x = meed_scale_nice(0, 1, 6), .y = meed_scale_nice(0, 1, 6)};
    s.frame = meed_chart_frame_make(markup, words, MEED_CHART_WIDTH, &s.x, &s.y);
    s.frame.right = s.frame.left + (s.frame.bottom - s.frame.top); /* chance at 45 degrees */
    s.frame.width = s.frame.right + 20;
    s.x.to = s.frame.right;
    meed_chart_frame_open(&s.frame);
    meed_chart_frame_axes(&s.frame, &s.x, &s.y);
    draw_identity(&s);
    for (int32_t i = 0; i < count; i++) {
        const struct meed_roc *roc = &detectors[i].roc;
        meed_markup_raw(markup, "<g class=\"%s\"><path class=\"line %s\" d=\"",
                        meed_chart_tint_class(i), meed_chart_dash_class(i));
        for (int32_t j = 0; j < roc->count; j++) {
            meed_markup_raw(markup, "%s%.2f %.2f", j ? " L" : "M",
                            meed_scale_place(&s.x, roc->false_positive[j]),
                            meed_scale_place(&s.y, roc->true_positive[j]));
        }
        meed_markup_raw(markup, "\"/></g>\n");
    }
    meed_chart_frame_close_svg(&s.frame);
    meed_markup_raw(markup, "<ul class=\"legend\">\n");
    for (int32_t i = 0; i < count; i++) {
        meed_chart_frame_key(&s.frame, i, detectors[i].name,
                             meed_numeral_fixed(detectors[i].roc.area, 3, false).text);
    }
    meed_markup_raw(markup, "</ul>\n");
    meed_chart_frame_close(&s.frame);
}
