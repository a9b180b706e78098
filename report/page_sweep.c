/* An experiment along a setting that is a number: a line for every combination of the others; see
 * page.h.
 *
 * Rows whose value is no number ("-", a name) have no place on the axis and are left to the other
 * sections. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "report/chart.h"
#include "report/page.h"

#define LARGEST 1e9 /* a setting beyond is no place on an axis */

/* NaN for what is none. */
static double number_of(const char *word)
{
    double value = NAN;
    bool good = meed_parse_f64("setting", word, -LARGEST, LARGEST, &value) == MEED_OK &&
                (value == 0 || fabs(value) >= 1 / LARGEST);
    return good ? value : NAN;
}

static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

struct meed_page_name meed_page_row_name(const struct meed_run_grid *grid, int32_t row,
                                         int32_t except)
{
    struct meed_page_name name = {""};
    for (int32_t k = 0; k < grid->key_count; k++) {
        const char *key = grid->keys[k], *word = grid->rows[row].values[k];
        const size_t used = strlen(name.text);
        const bool silent = word[0] == '\0' || strcmp(word, "-") == 0 ||
                            (strcmp(key, "scheme") == 0 && strcmp(word, "federated") == 0);
        if (k == except || silent) {
            continue;
        }
        snprintf(name.text + used, sizeof name.text - used, "%s%.30s%s%.60s", used ? ", " : "",
                 isnan(number_of(word)) ? "" : last_part(key), isnan(number_of(word)) ? "" : " ",
                 word);
    }
    if (name.text[0] == '\0') {
        snprintf(name.text, sizeof name.text, "%.100s", except < 0 ? grid->rows[row].label : "all");
    }
    return name;
}

/* ---- one key ----------------------------------------------------------------------------------
 */

static bool is_same_line(const struct meed_run_grid *grid, int32_t a, int32_t b, int32_t key)
{
    bool same = true;
    for (int32_t k = 0; k < grid->key_count; k++) {
        same = same && (k == key || strcmp(grid->rows[a].values[k], grid->rows[b].values[k]) == 0);
    }
    return same;
}

/* Some line has two places on it: else the number only comes along with another setting. */
static bool is_axis(const struct meed_run_grid *grid, int32_t key)
{
    for (int32_t a = 0; a < grid->row_count; a++) {
        double first = number_of(grid->rows[a].values[key]);
        for (int32_t b = a + 1; isfinite(first) && b < grid->row_count; b++) {
            double second = number_of(grid->rows[b].values[key]);
            if (isfinite(second) && second != first && is_same_line(grid, a, b, key)) {
                return true;
            }
        }
    }
    return false;
}

struct line {
    struct meed_page_name name;
    int32_t count;
    double *x, *y, *error; /* x rising */
};

static void line_insert(struct line *line, double x, double y, double error)
{
    int32_t at = line->count++;
    for (; at > 0 && line->x[at - 1] > x; at--) {
        line->x[at] = line->x[at - 1];
        line->y[at] = line->y[at - 1];
        line->error[at] = line->error[at - 1];
    }
    line->x[at] = x;
    line->y[at] = y;
    line->error[at] = error;
}

/* Lines in the order of their first rows; a row opens one unless one before it has. numbers
 * [3 · row_count]. */
static int32_t lines_fill(const struct meed_run_grid *grid, int32_t key, int32_t measure,
                          double factor, struct line *lines, double *numbers)
{
    int32_t count = 0, used = 0, rows = grid->row_count;
    for (int32_t r = 0; r < rows; r++) {
        bool opens = isfinite(number_of(grid->rows[r].values[key]));
        for (int32_t q = 0; opens && q < r; q++) {
            opens =
                !(isfinite(number_of(grid->rows[q].values[key])) && is_same_line(grid, q, r, key));
        }
        if (!opens) {
            continue;
        }
        struct line *line = &lines[count++];
        *line = (struct line){.name = meed_page_row_name(grid, r, key),
                              .x = numbers + used,
                              .y = numbers + rows + used,
                              .error = numbers + 2 * (size_t)rows + used};
        for (int32_t q = r; q < rows; q++) {
            double x = number_of(grid->rows[q].values[key]);
            if (isfinite(x) && is_same_line(grid, r, q, key)) {
                line_insert(line, x, factor * grid->rows[q].mean[measure],
                            factor * grid->rows[q].half[measure]);
            }
        }
        used += line->count;
    }
    return count;
}

/* Dirichlet's concentration works by its size, and is read on decades. */
static enum meed_chart_across across_of(const struct meed_run_grid *grid, int32_t key)
{
    bool log = strcmp(grid->keys[key], "alpha") == 0;
    for (int32_t r = 0; r < grid->row_count; r++) {
        log = log && !(number_of(grid->rows[r].values[key]) <= 0);
    }
    return log ? MEED_CHART_LOG : MEED_CHART_EVEN;
}

static enum meed_status measure_draw(struct meed_markup *m, const struct meed_run_grid *grid,
                                     int32_t key, const char *name)
{
    const size_t rows = (size_t)grid->row_count;
    const struct meed_page_measure shown = meed_page_measure_of(name);
    const bool share = shown.form == MEED_PAGE_SHARE;
    struct meed_chart_words words = {shown.title, "by setting; whiskers are 95 % over seeds.",
                                     grid->keys[key],
                                     share ? "% of words over the base" : "nats per token"};
    enum meed_status st = MEED_OK;
    struct line *lines = meed_heap_alloc(rows, sizeof *lines);
    double *numbers = meed_heap_alloc(3 * rows, sizeof *numbers);
    struct meed_chart_series *series = meed_heap_alloc(rows, sizeof *series);
    if (!lines || !numbers || !series) {
        st = MEED_NOMEM;
        goto out;
    }
    int32_t count =
        lines_fill(grid, key, meed_page_measure_find(grid, name), share ? 100 : 1, lines, numbers);
    for (int32_t i = 0; i < count; i++) {
        series[i] = (struct meed_chart_series){lines[i].name.text, lines[i].count, lines[i].x,
                                               lines[i].y, lines[i].error};
    }
    meed_chart_trend(m, &words, series, count, MEED_CHART_WHISKER, across_of(grid, key));
out:
    meed_heap_free(lines);
    meed_heap_free(numbers);
    meed_heap_free(series);
    return st;
}

void meed_page_sweep(struct meed_markup *markup, const struct meed_run_record *record)
{
    static const char *const measures[] = {"utility_after", "leak_global", "leak_update"};
    const struct meed_run_grid *grid = &record->grid;
    for (int32_t k = 0; k < grid->key_count && markup->status == MEED_OK; k++) {
        if (!is_axis(grid, k)) {
            continue;
        }
        char title[128];
        snprintf(title, sizeof title, "Over %.100s", grid->keys[k]);
        meed_page_heading(markup, title);
        meed_markup_raw(markup, "<div class=\"pair\">\n");
        for (size_t i = 0; i < MEED_COUNT(measures) && markup->status == MEED_OK; i++) {
            if (meed_page_measure_known(grid, measures[i])) {
                markup->status = measure_draw(markup, grid, k, measures[i]);
            }
        }
        meed_markup_raw(markup, "</div>\n");
    }
}
