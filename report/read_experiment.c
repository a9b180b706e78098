/* The grid of `meed simulate`; see read_kinds.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/read_kinds.h"

enum {
    ROWS_MOST = 4096,
    MEASURES_MOST = 64,
    KINDS_MOST = 64,
    CORNERS_MOST = 1 << 20,
    KEYS_MOST = 64,
    LABEL_BYTES = 256
};

/* ---- settings ---------------------------------------------------------------------------------
 */
enum part { ALL, THREAT, POLICY };

/* The kind of attack is of neither: a row's kinds say it. */
static bool belongs(const char *key, enum part part)
{
    bool kind = strcmp(key, "attack") == 0;
    bool threat = strcmp(key, "share") == 0 || strcmp(key, "strength") == 0;
    return part == ALL || (!kind && threat == (part == THREAT));
}

/* Names of the row's settings or their values, "swap, 0.3"; of one part of them. */
static enum meed_status settings_text(const json_t *row, enum part part, bool names,
                                      struct meed_run_record *record, const char **text)
{
    char line[LABEL_BYTES] = "";
    size_t used = 0;
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(row, "settings"), key, value)
    {
        const char *word = names ? key : json_string_value(value);
        bool as_it_is = word && strcmp(word, "-") == 0;
        if (word && !as_it_is && belongs(key, part) && used < sizeof line) {
            used +=
                (size_t)snprintf(line + used, sizeof line - used, "%s%s", used ? ", " : "", word);
        }
    }
    const char *nothing = part != ALL ? "" : names ? "settings" : "all";
    return meed_run_record_text(record, used ? line : nothing, text);
}

/* The first row says which keys there are. */
static enum meed_status keys_read(const json_t *row, struct meed_run_record *record)
{
    struct meed_run_grid *grid = &record->grid;
    void *block = NULL;
    const char *key = NULL;
    json_t *value = NULL;
    MEED_TRY(meed_run_record_array(record, KEYS_MOST, sizeof *grid->keys, &block));
    grid->keys = block;
    json_object_foreach(json_object_get(row, "settings"), key, value)
    {
        if (grid->key_count < KEYS_MOST) {
            MEED_TRY(meed_run_record_text(record, key, &grid->keys[grid->key_count]));
            grid->key_count++;
        }
    }
    return MEED_OK;
}

static enum meed_status values_read(const json_t *row, struct meed_run_record *record,
                                    const char ***values)
{
    const struct meed_run_grid *grid = &record->grid;
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, (size_t)grid->key_count, sizeof **values, &block));
    *values = block;
    for (int32_t k = 0; k < grid->key_count; k++) {
        const char *word =
            json_string_value(json_object_get(json_object_get(row, "settings"), grid->keys[k]));
        MEED_TRY(meed_run_record_text(record, word ? word : "", &(*values)[k]));
    }
    return MEED_OK;
}

/* ---- detection --------------------------------------------------------------------------------
 */

/* [[x, y], …] with both in 0 … 1. */
static enum meed_status read_corners(const struct meed_read_place *place, const json_t *corners,
                                     struct meed_run_record *record, struct meed_roc *roc)
{
    void *block = NULL;
    size_t count = json_array_size(corners);
    if (!json_is_array(corners) || count > CORNERS_MOST) {
        return meed_read_fail(place, "roc", "lists of corners");
    }
    MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
    roc->false_positive = block;
    MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
    roc->true_positive = block;
    for (size_t i = 0; i < count; i++) {
        const json_t *corner = json_array_get(corners, i);
        const json_t *x = json_array_get(corner, 0), *y = json_array_get(corner, 1);
        double at[2] = {json_number_value(x), json_number_value(y)};
        if (!json_is_number(x) || !json_is_number(y) || !(at[0] >= 0 && at[0] <= 1) ||
            !(at[1] >= 0 && at[1] <= 1)) {
            return meed_read_fail(place, "roc", "pairs of numbers from 0 to 1");
        }
        roc->false_positive[i] = at[0];
        roc->true_positive[i] = at[1];
    }
    roc->count = (int32_t)count;
    return MEED_OK;
}

static enum meed_status read_kind(const struct meed_read_place *place, const json_t *object,
                                  struct meed_run_record *record, struct meed_run_kind *kind)
{
    static const struct {
        const char *area, *curve;
    } names[MEED_RUN_SCORES] = {{"auroc_score", "score"}, {"auroc_combined", "combined"}};
    const json_t *curves = json_object_get(object, "roc");
    *kind = (struct meed_run_kind){.excluded = NAN, .pay = NAN};
    MEED_TRY(meed_read_text(place, object, "attack", record, &kind->attack));
    MEED_TRY(meed_read_integer(place, object, "updates", &kind->updates));
    MEED_TRY(meed_read_number_maybe(place, object, "excluded", &kind->excluded));
    MEED_TRY(meed_read_number_maybe(place, object, "pay", &kind->pay));
    for (int s = 0; s < MEED_RUN_SCORES; s++) {
        kind->roc[s].area = NAN;
        MEED_TRY(meed_read_number_maybe(place, object, names[s].area, &kind->roc[s].area));
        MEED_TRY(
            read_corners(place, json_object_get(curves, names[s].curve), record, &kind->roc[s]));
    }
    return MEED_OK;
}

static enum meed_status read_kinds(const struct meed_read_place *place, const json_t *object,
                                   struct meed_run_record *record, struct meed_run_row *row)
{
    const json_t *attacks = NULL;
    void *block = NULL;
    if (!json_object_get(object, "attacks")) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_list(place, object, "attacks", KINDS_MOST, &attacks));
    MEED_TRY(meed_run_record_array(record, json_array_size(attacks), sizeof *row->kinds, &block));
    row->kinds = block;
    for (size_t i = 0; i < json_array_size(attacks); i++) {
        struct meed_read_place here = meed_read_place_in(place, "attacks", (int32_t)i);
        MEED_TRY(read_kind(&here, json_array_get(attacks, i), record, &row->kinds[i]));
        row->kind_count++;
    }
    return MEED_OK;
}

/* ---- measures ---------------------------------------------------------------------------------
 */

static enum meed_status unknown_numbers(struct meed_run_record *record, size_t count,
                                        double **numbers)
{
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
    *numbers = block;
    for (size_t i = 0; i < count; i++) {
        (*numbers)[i] = NAN;
    }
    return MEED_OK;
}

static bool is_named(const struct meed_run_grid *grid, const char *name)
{
    bool found = false;
    for (int32_t i = 0; i < grid->measure_count; i++) {
        found = found || strcmp(grid->measures[i], name) == 0;
    }
    return found;
}

/* Every measure of any row: a row without attack has none that are about one. */
static enum meed_status measure_names(const json_t *rows, struct meed_run_record *record)
{
    void *block = NULL;
    struct meed_run_grid *grid = &record->grid;
    MEED_TRY(meed_run_record_array(record, MEASURES_MOST, sizeof *grid->measures, &block));
    grid->measures = block;
    for (size_t r = 0; r < json_array_size(rows); r++) {
        const char *name = NULL;
        json_t *value = NULL;
        json_object_foreach(json_object_get(json_array_get(rows, r), "summary"), name, value)
        {
            if (grid->measure_count < MEASURES_MOST && !is_named(grid, name)) {
                MEED_TRY(meed_run_record_text(record, name, &grid->measures[grid->measure_count]));
                grid->measure_count++;
            }
        }
    }
    return MEED_OK;
}

static enum meed_status read_row(const struct meed_read_place *place, const json_t *object,
                                 struct meed_run_record *record, struct meed_run_row *row)
{
    const struct meed_run_grid *grid = &record->grid;
    struct meed_read_place summary = meed_read_place_in(place, "summary", -1);
    MEED_TRY(settings_text(object, ALL, false, record, &row->label));
    MEED_TRY(settings_text(object, THREAT, false, record, &row->threat));
    MEED_TRY(settings_text(object, POLICY, false, record, &row->policy));
    MEED_TRY(values_read(object, record, &row->values));
    MEED_TRY(unknown_numbers(record, (size_t)grid->measure_count, &row->mean));
    MEED_TRY(unknown_numbers(record, (size_t)grid->measure_count, &row->half));
    for (int32_t i = 0; i < grid->measure_count; i++) {
        struct meed_read_place here = meed_read_place_in(&summary, grid->measures[i], -1);
        const json_t *measure =
            json_object_get(json_object_get(object, "summary"), grid->measures[i]);
        int64_t count = 0;
        MEED_TRY(meed_read_number_maybe(&here, measure, "mean", &row->mean[i]));
        MEED_TRY(meed_read_number_maybe(&here, measure, "half", &row->half[i]));
        MEED_TRY(meed_read_integer_maybe(&here, measure, "count", &count));
        row->count = MEED_MAX(row->count, count);
    }
    MEED_TRY(meed_read_course(place, object, record, row));
    return read_kinds(place, object, record, row);
}

enum meed_status meed_read_experiment(const char *path, const json_t *root,
                                      struct meed_run_record *record)
{
    static const struct meed_read_fact facts[] = {{"name", "experiment"},
                                                  {"source", "experiment's file"}};
    struct meed_read_place place = {.file = path};
    const json_t *rows = NULL, *cells = NULL;
    void *block = NULL;
    record->kind = "experiment";
    MEED_TRY(meed_read_list(&place, root, "rows", ROWS_MOST, &rows));
    MEED_TRY(meed_read_list(&place, root, "cells", MEED_READ_ROUNDS_MOST, &cells));
    size_t count = json_array_size(rows);
    MEED_TRY(meed_run_record_array(record, count, sizeof *record->grid.rows, &block));
    record->grid.rows = block;
    const json_t *first = json_array_get(rows, 0);
    MEED_TRY(settings_text(first, ALL, true, record, &record->grid.settings));
    MEED_TRY(settings_text(first, POLICY, true, record, &record->grid.policies));
    MEED_TRY(keys_read(first, record));
    MEED_TRY(measure_names(rows, record));
    for (size_t i = 0; i < count; i++) {
        struct meed_read_place here = meed_read_place_in(&place, "rows", (int32_t)i);
        MEED_TRY(read_row(&here, json_array_get(rows, i), record, &record->grid.rows[i]));
        record->grid.row_count++;
    }
    MEED_TRY(meed_read_course_spread(path, root, record));
    MEED_TRY(meed_run_record_fact(record, "finished cells", "%zu", json_array_size(cells)));
    return meed_read_facts(root, facts, MEED_COUNT(facts), record);
}
