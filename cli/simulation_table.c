/* See simulation_table.h. */
#include "cli/simulation_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "cli/score_session.h"
#include "cli/simulation_result.h"
#include "evaluation/statistics.h"

enum { CELL_BYTES = 96 };

/* ---- intervals ------------------------------------------------------------------------------- */

json_t *meed_simulation_table_intervals(const json_t *summaries)
{
    json_t *intervals = json_object(), *measure = NULL;
    const char *name = NULL;
    json_object_foreach(json_array_get(summaries, 0), name, measure)
    {
        double values[MEED_SIMULATION_MAX_SEEDS];
        int64_t count = 0;
        for (size_t i = 0; i < json_array_size(summaries) && i < MEED_COUNT(values); i++) {
            const json_t *value = json_object_get(json_array_get(summaries, i), name);
            values[count++] = json_is_number(value) ? json_number_value(value) : NAN;
        }
        struct meed_statistics_interval found = meed_statistics_interval(values, count, 0.95);
        json_object_set_new(intervals, name,
                            json_pack("{s:o, s:o, s:I}", "mean", meed_simulation_number(found.mean),
                                      "half", meed_simulation_number(found.half), "count",
                                      (json_int_t)found.count));
    }
    return intervals;
}

/* ---- print ----------------------------------------------------------------------------------- */

struct column {
    const char *title;
    const char *measure; /* "axis_*": one column for each that ends like this */
    double factor;
    const char *format;
};

static const struct column columns[] = {
    {"utility", "utility_after", 1, "%.4f"},
    {"gain kept %", "gain_kept", 100, "%.1f"},
    {NULL, "axis_*_change", 1, "%+.4f"},
    {"AUROC screen", "auroc_score", 1, "%.3f"},
    {"AUROC all", "auroc_combined", 1, "%.3f"},
    {"caught %", "caught", 100, "%.1f"},
    {"wrongly out %", "false_exclusion", 100, "%.1f"},
    {"attackers' pay %", "attacker_share", 100, "%.2f"},
    {"pay spread %", "spread", 100, "%.1f"},
    {"rho quality", "spearman_quality", 1, "%.3f"},
    {"rho amount", "spearman_amount", 1, "%.3f"},
    {"utility at home", "utility_own", 1, "%.4f"},
    {"leak global %", "leak_global", 100, "%.1f"},
    {"leak update %", "leak_update", 100, "%.1f"},
    {"leak at home %", "leak_own", 100, "%.1f"},
    {"memory global %", "memory_global", 100, "%.1f"},
    {"memory update %", "memory_update", 100, "%.1f"},
    {"memory at home %", "memory_own", 100, "%.1f"},
    {"secrets global %", "secrets_global", 100, "%.1f"},
    {"secrets update %", "secrets_update", 100, "%.1f"},
};

static const json_t *measure_of(const json_t *row, const char *name)
{
    return json_object_get(json_object_get(row, "summary"), name);
}

static void interval_text(const json_t *interval, const struct column *column,
                          char text[CELL_BYTES])
{
    const json_t *mean = json_object_get(interval, "mean"),
                 *half = json_object_get(interval, "half");
    snprintf(text, CELL_BYTES, "-");
    if (json_is_number(mean)) {
        int size =
            snprintf(text, CELL_BYTES, column->format, json_number_value(mean) * column->factor);
        if (json_is_number(half)) {
            char spread[CELL_BYTES];
            snprintf(spread, sizeof spread, column->format,
                     json_number_value(half) * column->factor);
            snprintf(text + size, CELL_BYTES - (size_t)size, " ± %s", spread + (spread[0] == '+'));
        }
    }
}

static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++) {
        width += ((unsigned char)*text & 0xC0) != 0x80; /* not a UTF-8 continuation */
    }
    return width;
}

/* One printed column of the table: the text of a row, or of the head. */
struct printed {
    struct column column;
    char title[CELL_BYTES], measure[CELL_BYTES];
    bool setting;
    int width;
};

static void text_of(const json_t *row, const struct printed *printed, char text[CELL_BYTES])
{
    if (printed->setting) {
        const char *value =
            json_string_value(json_object_get(json_object_get(row, "settings"), printed->measure));
        snprintf(text, CELL_BYTES, "%.90s", value ? value : "-");
    } else {
        interval_text(measure_of(row, printed->measure), &printed->column, text);
    }
}

/* Takes a column in unless no row has an answer to it. */
static void add(const json_t *rows, const struct printed *wanted, struct meed_buf *into)
{
    struct printed printed = *wanted;
    bool any = printed.setting;
    printed.width = width_of(printed.title);
    for (size_t r = 0; r < json_array_size(rows); r++) {
        char text[CELL_BYTES];
        text_of(json_array_get(rows, r), &printed, text);
        any = any || strcmp(text, "-") != 0;
        printed.width = MEED_MAX(printed.width, width_of(text));
    }
    if (any && meed_buf_append(into, &printed, sizeof printed) != MEED_OK) {
        return; /* a table without its last columns is still one */
    }
}

static void add_axes(const json_t *rows, const struct column *column, struct meed_buf *into)
{
    static const char before[] = "axis_", after[] = "_change";
    const char *name = NULL;
    json_t *measure = NULL;
    json_object_foreach(json_object_get(json_array_get(rows, 0), "summary"), name, measure)
    {
        size_t length = strlen(name), ends = strlen(before) + strlen(after);
        if (length <= ends || strncmp(name, before, strlen(before)) != 0 ||
            strcmp(name + length - strlen(after), after) != 0) {
            continue;
        }
        struct printed printed = {.column = *column};
        snprintf(printed.title, sizeof printed.title, "%.*s vs clean", (int)(length - ends),
                 name + strlen(before));
        snprintf(printed.measure, sizeof printed.measure, "%s", name);
        add(rows, &printed, into);
    }
}

static void choose_columns(const json_t *rows, struct meed_buf *into)
{
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(json_array_get(rows, 0), "settings"), key, value)
    {
        struct printed printed = {.setting = true};
        snprintf(printed.title, sizeof printed.title, "%s", key);
        snprintf(printed.measure, sizeof printed.measure, "%s", key);
        add(rows, &printed, into);
    }
    for (size_t c = 0; c < MEED_COUNT(columns); c++) {
        struct printed printed = {.column = columns[c]};
        if (!columns[c].title) {
            add_axes(rows, &columns[c], into);
            continue;
        }
        snprintf(printed.title, sizeof printed.title, "%s", columns[c].title);
        snprintf(printed.measure, sizeof printed.measure, "%s", columns[c].measure);
        add(rows, &printed, into);
    }
}

void meed_simulation_table_print(const json_t *rows)
{
    struct meed_buf chosen;
    meed_buf_init(&chosen, 1u << 20);
    choose_columns(rows, &chosen);
    const struct printed *printed = (const void *)chosen.data;
    size_t count = chosen.size / sizeof *printed;
    for (size_t r = 0; r <= json_array_size(rows) && json_array_size(rows) > 0; r++) {
        for (size_t c = 0; c < count; c++) {
            char text[CELL_BYTES];
            snprintf(text, sizeof text, "%s", printed[c].title);
            if (r > 0) {
                text_of(json_array_get(rows, r - 1), &printed[c], text);
            }
            fputs(c > 0 ? "  " : "", stdout);
            meed_score_session_cell(text, printed[c].width, !printed[c].setting);
        }
        putchar('\n');
    }
    meed_buf_clear(&chosen);
}
