/* An experiment: its combinations over seeds, as a table and a chart a measure; see page.h. */
#include <math.h>
#include <stdio.h>
#include "report/chart.h"
#include "report/page.h"

enum { BARS_MOST = 64 };

/* Seeds that all agree leave no interval to show. */
static struct meed_numeral with_half(double mean, double half)
{
    return meed_numeral_estimate(mean, half > 0 ? half : NAN);
}

static void rows_table(struct meed_markup *m, const struct meed_run_grid *grid)
{
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n<caption>Mean over seeds ± half of "
                       "Student&#39;s 95 %% interval</caption>\n<thead><tr><th scope=\"col\">");
    meed_markup_text(m, grid->settings);
    meed_markup_raw(m, "</th><th scope=\"col\" class=\"n\">seeds</th>");
    for (int32_t i = 0; i < grid->measure_count; i++) {
        meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
        meed_markup_text(m, grid->measures[i]);
        meed_markup_raw(m, "</th>");
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t r = 0; r < grid->row_count; r++) {
        const struct meed_run_row *row = &grid->rows[r];
        meed_page_row_open(m);
        meed_page_cell(m, row->label);
        meed_page_cell_number(m, meed_numeral_count(row->count));
        for (int32_t i = 0; i < grid->measure_count; i++) {
            meed_page_cell_number(m, with_half(row->mean[i], row->half[i]));
        }
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

/* A measure that is the same everywhere (the budget) is no chart. */
static bool varies(const struct meed_run_grid *grid, int32_t measure)
{
    bool found = false;
    for (int32_t r = 1; r < grid->row_count; r++) {
        found = found || grid->rows[r].mean[measure] != grid->rows[0].mean[measure];
    }
    return found;
}

static enum meed_status measure_bars(struct meed_markup *m, const struct meed_run_grid *grid,
                                     int32_t measure)
{
    struct meed_chart_words words = {grid->measures[measure], NULL, NULL, NULL};
    int32_t drawn = MEED_MIN(grid->row_count, (int32_t)BARS_MOST);
    struct meed_chart_bar *bars = meed_heap_alloc((size_t)drawn, sizeof *bars);
    if (!bars) {
        return MEED_NOMEM;
    }
    for (int32_t r = 0; r < drawn; r++) {
        double mean = grid->rows[r].mean[measure], half = grid->rows[r].half[measure];
        bars[r] = (struct meed_chart_bar){.label = grid->rows[r].label,
                                          .value = mean,
                                          .error = half,
                                          .mark = with_half(mean, half)};
    }
    meed_chart_bars(m, &words, bars, drawn);
    meed_heap_free(bars);
    return MEED_OK;
}

void meed_page_experiment(struct meed_markup *markup, const struct meed_run_record *record)
{
    const struct meed_run_grid *grid = &record->grid;
    if (!grid->settings) {
        return; /* no experiment */
    }
    if (grid->row_count == 0) {
        meed_markup_raw(markup, "<p>No combination has all its seeds yet.</p>\n");
        return;
    }
    meed_page_heading(markup, "Results");
    rows_table(markup, grid);
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    for (int32_t i = 0; i < grid->measure_count && markup->status == MEED_OK; i++) {
        if (varies(grid, i)) {
            markup->status = measure_bars(markup, grid, i);
        }
    }
    meed_markup_raw(markup, "</div>\n");
}
