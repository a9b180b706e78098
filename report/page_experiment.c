/* An experiment: its combinations over seeds, as a table and a chart a measure; see page.h. */
#include <math.h>
#include <stdio.h>
#include "report/chart.h"
#include "report/page.h"

enum { BARS_MOST = 64 };

/* What is the same in every row is told once, and what nobody knows not at all. */
static bool varies(const struct meed_run_grid *grid, int32_t measure)
{
    bool found = false;
    double first = grid->rows[0].mean[measure];
    for (int32_t r = 1; r < grid->row_count; r++) {
        double mean = grid->rows[r].mean[measure];
        found = found || (mean != first && !(isnan(mean) && isnan(first)));
    }
    return found;
}

static bool is_column(const struct meed_run_grid *grid, int32_t measure)
{
    bool told =
        varies(grid, measure) || (grid->row_count == 1 && isfinite(grid->rows[0].mean[measure]));
    return told && !meed_page_measure_of(grid->measures[measure]).apart;
}

static void constants(struct meed_markup *m, const struct meed_run_grid *grid)
{
    bool any = false;
    for (int32_t i = 0; i < grid->measure_count; i++) {
        struct meed_page_measure measure = meed_page_measure_of(grid->measures[i]);
        double mean = grid->rows[0].mean[i];
        if (is_column(grid, i) || !isfinite(mean) || measure.apart) {
            continue;
        }
        meed_markup_raw(m, any ? "; " : "<p>The same in every row: ");
        meed_markup_text(m, measure.title);
        meed_markup_raw(m, " %s", meed_page_measure_text(&measure, mean, NAN).text);
        any = true;
    }
    meed_markup_raw(m, any ? ".</p>\n" : "");
}

static void rows_table(struct meed_markup *m, const struct meed_run_grid *grid)
{
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n");
    meed_page_caption(m, "Mean over seeds ± half of Student's 95 % interval");
    meed_markup_raw(m, "<thead><tr><th scope=\"col\">");
    meed_markup_text(m, grid->settings);
    meed_markup_raw(m, "</th><th scope=\"col\" class=\"n\">seeds</th>");
    for (int32_t i = 0; i < grid->measure_count; i++) {
        if (is_column(grid, i)) {
            meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
            meed_markup_text(m, meed_page_measure_of(grid->measures[i]).title);
            meed_markup_raw(m, "</th>");
        }
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t r = 0; r < grid->row_count; r++) {
        const struct meed_run_row *row = &grid->rows[r];
        meed_page_row_open(m);
        meed_page_cell(m, row->label);
        meed_page_cell_number(m, meed_numeral_count(row->count));
        for (int32_t i = 0; i < grid->measure_count; i++) {
            struct meed_page_measure measure = meed_page_measure_of(grid->measures[i]);
            if (is_column(grid, i)) {
                meed_page_cell_number(m,
                                      meed_page_measure_text(&measure, row->mean[i], row->half[i]));
            }
        }
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

static enum meed_status measure_bars(struct meed_markup *m, const struct meed_run_grid *grid,
                                     int32_t measure)
{
    struct meed_page_measure shown = meed_page_measure_of(grid->measures[measure]);
    struct meed_chart_words words = {shown.title, NULL, NULL, NULL};
    double factor = shown.form == MEED_PAGE_SHARE ? 100 : 1;
    int32_t drawn = MEED_MIN(grid->row_count, (int32_t)BARS_MOST);
    struct meed_chart_bar *bars = meed_heap_alloc((size_t)drawn, sizeof *bars);
    if (!bars) {
        return MEED_NOMEM;
    }
    for (int32_t r = 0; r < drawn; r++) {
        double mean = grid->rows[r].mean[measure], half = grid->rows[r].half[measure];
        double reach = fmin(half, fmax(mean - shown.low, shown.high - mean));
        bars[r] = (struct meed_chart_bar){.label = grid->rows[r].label,
                                          .value = factor * mean,
                                          .error = factor * (isnan(half) ? NAN : reach),
                                          .mark = meed_page_measure_text(&shown, mean, half)};
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
    constants(markup, grid);
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    for (int32_t i = 0; i < grid->measure_count && markup->status == MEED_OK; i++) {
        if (varies(grid, i) && meed_page_measure_of(grid->measures[i]).charted) {
            markup->status = measure_bars(markup, grid, i);
        }
    }
    meed_markup_raw(markup, "</div>\n");
}
