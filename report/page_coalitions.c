/* Measured coalitions and what pairs do to each other; see page.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "report/chart.h"
#include "report/page.h"

enum { BARS_MOST = 64, POINTS_MOST = 4096, HEAT_MOST = 40 };

static int by_falling_value(const void *left, const void *right)
{
    const struct meed_run_coalition *a = *(const struct meed_run_coalition *const *)left;
    const struct meed_run_coalition *b = *(const struct meed_run_coalition *const *)right;
    int order = (a->value < b->value) - (a->value > b->value);
    return order ? order : (a > b) - (a < b);
}

static enum meed_status sorted_table(struct meed_markup *m, const struct meed_run_record *record)
{
    static const struct meed_page_column columns[] = {
        {"members", false}, {"clients", true}, {"value", true}};
    size_t count = (size_t)record->coalition_count;
    const struct meed_run_coalition **order = meed_heap_alloc(count, sizeof *order);
    if (!order) {
        return MEED_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = &record->coalitions[i];
    }
    qsort(order, count, sizeof *order, by_falling_value);
    meed_markup_raw(m, "<details><summary>%s coalitions, best first</summary>\n",
                    meed_numeral_count(record->coalition_count).text);
    meed_page_table_open(m, NULL, columns, MEED_COUNT(columns));
    for (size_t i = 0; i < count && i < BARS_MOST; i++) {
        meed_page_row_open(m);
        meed_page_cell(m, order[i]->members);
        meed_page_cell_number(m, meed_numeral_count(order[i]->size));
        meed_page_cell_number(m, meed_numeral_fixed(order[i]->value, 5, false));
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
    if (count > BARS_MOST) {
        meed_markup_raw(m, "<p class=\"lead\">The best %d are listed.</p>\n", BARS_MOST);
    }
    meed_markup_raw(m, "</details>\n");
    meed_heap_free(order);
    return MEED_OK;
}

/* The lattice seen from the side: v(S) over |S|. Past POINTS_MOST every n-th is drawn. */
static enum meed_status lattice(struct meed_markup *m, const struct meed_run_record *record)
{
    int32_t stride = (record->coalition_count + POINTS_MOST - 1) / POINTS_MOST;
    size_t most = (size_t)record->coalition_count;
    struct meed_chart_words words = {"Value by size of coalition",
                                     "Every point is a coalition that was scored; the height of a "
                                     "column says how much it matters who is in.",
                                     "clients in the coalition", record->unit};
    struct meed_chart_point *points = meed_heap_alloc(most, sizeof *points);
    int32_t count = 0;
    if (!points) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < record->coalition_count; i += stride) {
        points[count++] = (struct meed_chart_point){.label = record->coalitions[i].members,
                                                    .x = record->coalitions[i].size,
                                                    .y = record->coalitions[i].value};
    }
    meed_chart_scatter(m, &words, points, count, NULL);
    meed_heap_free(points);
    return MEED_OK;
}

void meed_page_coalitions(struct meed_markup *markup, const struct meed_run_record *record)
{
    if (record->coalition_count > 0 && markup->status == MEED_OK) {
        meed_page_heading(markup, "Coalitions");
        markup->status = lattice(markup, record);
        if (markup->status == MEED_OK) {
            markup->status = sorted_table(markup, record);
        }
    }
    if (record->pair_count > 0 && record->client_count <= HEAT_MOST) {
        meed_page_heading(markup, "Pairs");
        meed_markup_raw(markup, "<div class=\"pair\">\n");
        for (int32_t i = 0; i < record->pair_count; i++) {
            struct meed_chart_words words = {record->pairs[i].title, record->pairs[i].note, NULL,
                                             NULL};
            meed_chart_heat(markup, &words, record->clients, record->client_count,
                            record->pairs[i].values, record->pairs[i].full);
        }
        meed_markup_raw(markup, "</div>\n");
    }
}
