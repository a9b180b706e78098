/* A square of cells, names on two sides; see chart.h. */
#include <math.h>
#include "report/chart_frame.h"

struct heat {
    struct meed_chart_frame frame;
    double cell;
    double largest; /* of the sizes, > 0 */
};

static void draw_cell(const struct heat *heat, int32_t row, int32_t column, double value,
                      const char *const *names)
{
    struct meed_markup *m = heat->frame.markup;
    double x = heat->frame.left + column * heat->cell, y = heat->frame.top + row * heat->cell;
    if (!isfinite(value)) {
        return;
    }
    meed_markup_raw(m,
                    "<rect class=\"%s\" fill-opacity=\"%.3f\" x=\"%.2f\" y=\"%.2f\" "
                    "width=\"%.2f\" height=\"%.2f\"><title>",
                    value < 0 ? "minus" : "plus", 0.6 * fabs(value) / heat->largest, x + 1, y + 1,
                    heat->cell - 2, heat->cell - 2);
    meed_markup_text(m, names[row]);
    meed_markup_raw(m, ", ");
    meed_markup_text(m, names[column]);
    meed_markup_raw(m, ": %s</title></rect>\n", meed_numeral_fixed(value, 5, true).text);
    if (heat->cell >= 44) {
        meed_chart_frame_label(&heat->frame, x + heat->cell / 2, y + heat->cell / 2 + 4, "middle",
                               meed_numeral_fixed(value, 3, true).text);
    }
}

static void draw_names(const struct heat *heat, const char *const *names, int32_t count)
{
    struct meed_markup *m = heat->frame.markup;
    for (int32_t i = 0; i < count; i++) {
        double middle = (i + 0.5) * heat->cell;
        meed_chart_frame_label(&heat->frame, heat->frame.left - 8, heat->frame.top + middle + 4,
                               "end", names[i]);
        meed_markup_raw(m, "<text transform=\"translate(%.2f %.2f) rotate(-45)\">",
                        heat->frame.left + middle + 4, heat->frame.top - 6);
        meed_markup_text_cut(m, names[i], MEED_CHART_LABEL_MOST);
        meed_markup_raw(m, "</text>\n");
    }
}

void meed_chart_heat(struct meed_markup *markup, const struct meed_chart_words *words,
                     const char *const *names, int32_t count, const double *values, double full)
{
    struct heat heat = {.largest = full};
    double label = 0;
    for (int32_t i = 0; i < count * count; i++) {
        heat.largest = isfinite(values[i]) ? fmax(heat.largest, fabs(values[i])) : heat.largest;
    }
    for (int32_t i = 0; i < count; i++) {
        label = fmax(label, meed_chart_label_width(names[i]));
    }
    if (count == 0 || heat.largest == 0) {
        return;
    }
    double slant = label * 0.71 + 14; /* of names at 45 degrees */
    heat.cell = fmin(56, fmax(10, (MEED_CHART_WIDTH - label - slant - 16) / count));
    heat.frame = (struct meed_chart_frame){
        .markup = markup, .words = words, .left = label + 16, .top = slant};
    heat.frame.right = heat.frame.left + count * heat.cell;
    heat.frame.bottom = heat.frame.top + count * heat.cell;
    heat.frame.width = heat.frame.right + slant;
    heat.frame.height = heat.frame.bottom + 8;
    meed_chart_frame_open(&heat.frame);
    draw_names(&heat, names, count);
    for (int32_t i = 0; i < count * count; i++) {
        draw_cell(&heat, i / count, i % count, values[i], names);
    }
    meed_chart_frame_close_svg(&heat.frame);
    meed_chart_frame_close(&heat.frame);
}
