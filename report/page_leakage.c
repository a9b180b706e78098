/* What comes out of an experiment's models against how good they are; see page.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
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

/* A floor is shown where one was measured. */
static bool column_told(const struct meed_run_grid *grid, const char *name)
{
    return strncmp(name, "memory_", strlen("memory_")) != 0 || meed_page_measure_known(grid, name);
}

static void leaks_table(struct meed_markup *m, const struct meed_run_grid *grid)
{
    static const struct {
        const char *name;
        bool compared;
    } columns[] = {{"utility_after", false},  {"leak_global", true},    {"leak_update", true},
                   {"leak_own", false},       {"memory_global", true},  {"memory_update", true},
                   {"secrets_global", false}, {"secrets_update", false}};
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n");
    meed_page_caption(m, "Leak: ROUGE-L of extracted replies with the true ones, over what the "
                         "plain base guesses; memory: what of it goes beyond dialogues that "
                         "nobody trained on");
    meed_markup_raw(m, "<thead><tr><th scope=\"col\">combination</th>");
    for (size_t i = 0; i < MEED_COUNT(columns); i++) {
        if (column_told(grid, columns[i].name)) {
            meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
            meed_markup_text(m, meed_page_measure_of(columns[i].name).title);
            meed_markup_raw(m, columns[i].compared
                                   ? "</th><th scope=\"col\" class=\"n\">against the first row</th>"
                                   : "</th>");
        }
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t r = 0; r < grid->row_count; r++) {
        meed_page_row_open(m);
        meed_page_cell(m, meed_page_row_name(grid, r, -1).text);
        for (size_t i = 0; i < MEED_COUNT(columns); i++) {
            struct meed_page_measure measure = meed_page_measure_of(columns[i].name);
            int32_t at = meed_page_measure_find(grid, columns[i].name);
            if (!column_told(grid, columns[i].name)) {
                continue;
            }
            meed_page_cell_number(
                m, meed_page_measure_text(&measure, mean_of(grid, r, at), half_of(grid, r, at)));
            if (columns[i].compared) {
                change_cell(m, grid, r, at);
            }
        }
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

/* ---- drawings -------------------------------------------------------------------------------- */

static const char axis_of_leaks[] = "leak, % of words over the base";

/* A point a row with its intervals, then the base, which leaks nothing by definition. */
static void ends_fill(const struct meed_run_grid *grid, const char *leak,
                      const struct meed_page_name *names, struct meed_chart_point *points)
{
    int32_t x = meed_page_measure_find(grid, "utility_after"),
            y = meed_page_measure_find(grid, leak),
            before = meed_page_measure_find(grid, "utility_before");
    for (int32_t r = 0; r < grid->row_count; r++) {
        points[r] = (struct meed_chart_point){.label = names[r].text,
                                              .x = mean_of(grid, r, x),
                                              .y = 100 * mean_of(grid, r, y),
                                              .x_error = half_of(grid, r, x),
                                              .y_error = 100 * half_of(grid, r, y),
                                              .tint = r};
    }
    points[grid->row_count] = (struct meed_chart_point){
        .label = "base", .x = mean_of(grid, 0, before), .y = 0, .tint = MEED_CHART_MUTED};
}

/* What anybody can pull out beside what the aggregator can, on the same axes. */
static enum meed_status ends(struct meed_markup *m, const struct meed_run_grid *grid,
                             const struct meed_page_name *names)
{
    static const struct {
        const char *leak;
        struct meed_chart_words words;
    } panels[] = {
        {"leak_global",
         {"Out of the global model", "what anybody can pull out. Grey is the base.",
          "utility after the last round, nats per token", axis_of_leaks}},
        {"leak_update",
         {"Out of a client's update",
          "what the aggregator can pull out, against the global model's utility.",
          "utility after the last round, nats per token", axis_of_leaks}},
    };
    const int32_t count = grid->row_count + 1;
    struct meed_chart_point *points[MEED_COUNT(panels)];
    struct meed_chart_point *block =
        meed_heap_alloc(MEED_COUNT(panels) * (size_t)count, sizeof *block);
    if (!block) {
        return MEED_NOMEM;
    }
    for (size_t i = 0; i < MEED_COUNT(panels); i++) {
        points[i] = block + i * (size_t)count;
        ends_fill(grid, panels[i].leak, names, points[i]);
    }
    for (size_t i = 0; i < MEED_COUNT(panels); i++) {
        struct meed_chart_guide guide = {
            .low_right = true, .compact = true, .beside = points[1 - i], .beside_count = count};
        if (meed_page_measure_known(grid, panels[i].leak)) {
            meed_chart_scatter(m, &panels[i].words, points[i], count, &guide);
        }
    }
    meed_heap_free(block);
    return MEED_OK;
}

/* Passages of all rows, each course led by the base. */
static size_t passages_most(const struct meed_run_grid *grid)
{
    size_t most = 0;
    for (int32_t r = 0; r < grid->row_count; r++) {
        most += (size_t)grid->rows[r].course_count + 1;
    }
    return most;
}

/* From the base through what each round published. */
static enum meed_status courses(struct meed_markup *m, const struct meed_run_grid *grid,
                                const struct meed_page_name *names)
{
    static const struct meed_chart_words words = {
        "Leakage on the way",
        "A dot a round, means over seeds, from the base at zero: at one utility, the lower line "
        "leaks less.",
        "utility of the global model, nats per token", axis_of_leaks};
    static const struct meed_chart_guide guide = {.compact = true};
    int32_t before = meed_page_measure_find(grid, "utility_before"), used = 0;
    struct meed_chart_point *points = meed_heap_alloc(passages_most(grid), sizeof *points);
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
            points[used++] = (struct meed_chart_point){.label = names[r].text,
                                                       .x = row->course[i].utility,
                                                       .y = 100 * row->course[i].leak,
                                                       .tint = r,
                                                       .joined = true};
        }
    }
    meed_chart_scatter(m, &words, points, used, &guide);
    meed_heap_free(points);
    return MEED_OK;
}

/* The same leaks by round: a row without a course keeps its tint and has no line. */
static enum meed_status rounds(struct meed_markup *m, const struct meed_run_grid *grid,
                               const struct meed_page_name *names)
{
    static const struct meed_chart_words words = {
        "Leakage over rounds",
        "of what each round published; mean over seeds, the band is one standard error.", "round",
        axis_of_leaks};
    const size_t most = passages_most(grid);
    enum meed_status st = MEED_OK;
    struct meed_chart_series *series = meed_heap_alloc((size_t)grid->row_count, sizeof *series);
    double *numbers = meed_heap_alloc(3 * most, sizeof *numbers);
    if (!series || !numbers) {
        st = MEED_NOMEM;
        goto out;
    }
    size_t used = 0;
    for (int32_t r = 0; r < grid->row_count; r++) {
        const struct meed_run_row *row = &grid->rows[r];
        double *x = numbers + used, *y = x + most, *error = y + most;
        x[0] = y[0] = error[0] = 0; /* the base */
        for (int32_t i = 0; i < row->course_count; i++) {
            x[i + 1] = (double)row->course[i].round;
            y[i + 1] = 100 * row->course[i].leak;
            error[i + 1] = 100 * row->course[i].leak_se;
        }
        int32_t count = row->course_count > 0 ? row->course_count + 1 : 0;
        bool spread = count > 0 && isfinite(error[count - 1]);
        series[r] = (struct meed_chart_series){names[r].text, count, x, y, spread ? error : NULL};
        used += (size_t)count;
    }
    meed_chart_trend(m, &words, series, grid->row_count, MEED_CHART_BAND, MEED_CHART_WHOLE);
out:
    meed_heap_free(series);
    meed_heap_free(numbers);
    return st;
}

static enum meed_status drawings(struct meed_markup *m, const struct meed_run_grid *grid)
{
    struct meed_page_name *names = meed_heap_alloc((size_t)grid->row_count, sizeof *names);
    if (!names) {
        return MEED_NOMEM;
    }
    for (int32_t r = 0; r < grid->row_count; r++) {
        names[r] = meed_page_row_name(grid, r, -1);
    }
    enum meed_status st = ends(m, grid, names);
    if (st == MEED_OK && meed_page_measure_known(grid, "leak_global")) {
        st = courses(m, grid, names);
    }
    if (st == MEED_OK && meed_page_measure_known(grid, "leak_global")) {
        st = rounds(m, grid, names);
    }
    meed_heap_free(names);
    return st;
}

void meed_page_leakage(struct meed_markup *markup, const struct meed_run_record *record)
{
    const struct meed_run_grid *grid = &record->grid;
    if (!grid->settings || grid->row_count == 0 || markup->status != MEED_OK ||
        !(meed_page_measure_known(grid, "leak_global") ||
          meed_page_measure_known(grid, "leak_own"))) {
        return;
    }
    meed_page_heading(markup, "Leakage and quality");
    leaks_table(markup, grid);
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    enum meed_status st = drawings(markup, grid);
    meed_markup_raw(markup, "</div>\n");
    markup->status = markup->status == MEED_OK ? st : markup->status;
}
