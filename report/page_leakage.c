/* What comes out of an experiment's models against how good they are; see page.h. */
#include <math.h>
#include <stdio.h>
#include "report/chart.h"
#include "report/page.h"

static double mean_of(const struct meed_run_grid *grid, int32_t row, int32_t measure)
{
    return measure < 0 ? NAN : grid->rows[row].mean[measure];
}

static double half_of(const struct meed_run_grid *grid, int32_t row, int32_t measure)
{
    return measure < 0 ? NAN : grid->rows[row].half[measure];
}

/* ---- table ----------------------------------------------------------------------------------- */

/* "−82 %" of what the first row leaks; nothing for that row itself. */
static void change_cell(struct meed_markup *m, const struct meed_run_grid *grid, int32_t row,
                        int32_t measure)
{
    double first = mean_of(grid, 0, measure), here = mean_of(grid, row, measure);
    bool told = row > 0 && first > 0 && isfinite(here);
    meed_page_cell_number(m, told ? meed_numeral_share(here / first - 1, NAN)
                                  : (struct meed_numeral){.text = ""});
}

static void leaks_table(struct meed_markup *m, const struct meed_run_grid *grid)
{
    static const struct {
        const char *name;
        bool compared;
    } shown[] = {{"utility_after", false}, {"leak_global", true},     {"leak_update", true},
                 {"leak_own", false},      {"secrets_global", false}, {"secrets_update", false}};
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n");
    meed_page_caption(m, "Leak: ROUGE-L of extracted replies with the true ones, over what the "
                         "plain base guesses");
    meed_markup_raw(m, "<thead><tr><th scope=\"col\">");
    meed_markup_text(m, grid->settings);
    meed_markup_raw(m, "</th>");
    for (size_t i = 0; i < MEED_COUNT(shown); i++) {
        meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
        meed_markup_text(m, meed_page_measure_of(shown[i].name).title);
        meed_markup_raw(m, shown[i].compared
                               ? "</th><th scope=\"col\" class=\"n\">against the first row</th>"
                               : "</th>");
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t r = 0; r < grid->row_count; r++) {
        meed_page_row_open(m);
        meed_page_cell(m, grid->rows[r].label);
        for (size_t i = 0; i < MEED_COUNT(shown); i++) {
            struct meed_page_measure measure = meed_page_measure_of(shown[i].name);
            int32_t at = meed_page_measure_find(grid, shown[i].name);
            meed_page_cell_number(
                m, meed_page_measure_text(&measure, mean_of(grid, r, at), half_of(grid, r, at)));
            if (shown[i].compared) {
                change_cell(m, grid, r, at);
            }
        }
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

/* ---- drawings -------------------------------------------------------------------------------- */

/* Ends with their intervals, a point a row. */
static enum meed_status ends(struct meed_markup *m, const struct meed_run_grid *grid,
                             const char *leak, const char *title, const char *note)
{
    struct meed_chart_words words = {title, note, "utility after the last round, nats per token",
                                     "leak, % of words over the base"};
    int32_t x = meed_page_measure_find(grid, "utility_after"),
            y = meed_page_measure_find(grid, leak);
    struct meed_chart_point *points = meed_heap_alloc((size_t)grid->row_count, sizeof *points);
    if (!points) {
        return MEED_NOMEM;
    }
    for (int32_t r = 0; r < grid->row_count; r++) {
        points[r] = (struct meed_chart_point){.label = grid->rows[r].label,
                                              .x = mean_of(grid, r, x),
                                              .y = 100 * mean_of(grid, r, y),
                                              .x_error = half_of(grid, r, x),
                                              .y_error = 100 * half_of(grid, r, y),
                                              .tint = r};
    }
    meed_chart_scatter(m, &words, points, grid->row_count, false);
    meed_heap_free(points);
    return MEED_OK;
}

/* From the base, which leaks nothing by definition, through what each round published. */
static enum meed_status courses(struct meed_markup *m, const struct meed_run_grid *grid)
{
    struct meed_chart_words words = {
        "Leakage on the way",
        "A dot a round, means over seeds, from the base at zero: at one utility, the lower line "
        "leaks less.",
        "utility of the global model, nats per token", "leak, % of words over the base"};
    int32_t before = meed_page_measure_find(grid, "utility_before"), used = 0;
    size_t most = 0;
    for (int32_t r = 0; r < grid->row_count; r++) {
        most += (size_t)grid->rows[r].course_count + 1;
    }
    struct meed_chart_point *points = meed_heap_alloc(most, sizeof *points);
    if (!points) {
        return MEED_NOMEM;
    }
    for (int32_t r = 0; r < grid->row_count; r++) {
        const struct meed_run_row *row = &grid->rows[r];
        if (row->course_count > 0) {
            points[used++] = (struct meed_chart_point){
                .label = "base", .x = mean_of(grid, r, before), .y = 0, .tint = MEED_CHART_MUTED};
        }
        for (int32_t i = 0; i < row->course_count; i++) {
            points[used++] = (struct meed_chart_point){.label = row->label,
                                                       .x = row->course[i].utility,
                                                       .y = 100 * row->course[i].leak,
                                                       .tint = r,
                                                       .joined = true};
        }
    }
    meed_chart_scatter(m, &words, points, used, false);
    meed_heap_free(points);
    return MEED_OK;
}

static bool is_known(const struct meed_run_grid *grid, const char *name)
{
    bool found = false;
    for (int32_t r = 0; r < grid->row_count; r++) {
        found = found || isfinite(mean_of(grid, r, meed_page_measure_find(grid, name)));
    }
    return found;
}

void meed_page_leakage(struct meed_markup *markup, const struct meed_run_record *record)
{
    const struct meed_run_grid *grid = &record->grid;
    if (!grid->settings || grid->row_count == 0 || markup->status != MEED_OK ||
        !(is_known(grid, "leak_global") || is_known(grid, "leak_own"))) {
        return;
    }
    enum meed_status st = MEED_OK;
    meed_page_heading(markup, "Leakage and quality");
    leaks_table(markup, grid);
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    if (is_known(grid, "leak_global")) {
        st = ends(markup, grid, "leak_global", "Out of the global model",
                  "what anybody can pull out: right and low is what one wants");
    }
    if (st == MEED_OK && is_known(grid, "leak_update")) {
        st = ends(markup, grid, "leak_update", "Out of a client's update",
                  "what the aggregator can pull out, against the global model's utility");
    }
    if (st == MEED_OK && is_known(grid, "leak_global")) {
        st = courses(markup, grid);
    }
    meed_markup_raw(markup, "</div>\n");
    markup->status = markup->status == MEED_OK ? st : markup->status;
}
