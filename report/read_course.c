/* The course of an experiment's combinations; see read_kinds.h.
 *
 * The grid's file has the mean of every round that was attacked, the cells have each seed's. Cells
 * are read for the spread alone, and only from the folder that `meed simulate` writes them into: a
 * file that names another place is not followed there.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "report/read_kinds.h"

enum { SEEDS_MOST = 64, MODELS_MOST = 4096 };

enum meed_status meed_read_course(const struct meed_read_place *place, const json_t *object,
                                  struct meed_run_record *record, struct meed_run_row *row)
{
    const json_t *course = NULL;
    void *block = NULL;
    if (!json_object_get(object, "course")) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_list(place, object, "course", MEED_READ_ROUNDS_MOST, &course));
    MEED_TRY(meed_run_record_array(record, json_array_size(course), sizeof *row->course, &block));
    row->course = block;
    for (size_t i = 0; i < json_array_size(course); i++) {
        struct meed_read_place here = meed_read_place_in(place, "course", (int32_t)i);
        const json_t *passage = json_array_get(course, i);
        row->course[i].leak_se = NAN;
        MEED_TRY(meed_read_integer(&here, passage, "round", &row->course[i].round));
        if (row->course[i].round > MEED_READ_ROUNDS_MOST ||
            (i > 0 && row->course[i].round <= row->course[i - 1].round)) {
            return meed_read_fail(&here, "round", "above that of the entry before");
        }
        MEED_TRY(meed_read_number(&here, passage, "utility", &row->course[i].utility));
        MEED_TRY(meed_read_number(&here, passage, "leak", &row->course[i].leak));
        row->course_count++;
    }
    return MEED_OK;
}

/* ---- spread -----------------------------------------------------------------------------------
 */

/* The cell's path beside the grid's file; false where it is not in cells/ or not there. */
static bool cell_path(const char *path, const json_t *cell, char made[MEED_PATH_BYTES])
{
    static const char folder[] = "cells/";
    const char *file = json_string_value(json_object_get(cell, "file"));
    const char *slash = strrchr(path, '/');
    if (!file || strncmp(file, folder, strlen(folder)) != 0 || strchr(file + strlen(folder), '/')) {
        return false;
    }
    int length = slash ? (int)(slash - path) + 1 : 0;
    int used = snprintf(made, MEED_PATH_BYTES, "%.*s%s", length, path, file);
    return used > 0 && used < MEED_PATH_BYTES && meed_file_exists(made);
}

/* Squares of a seed's distances from the means; seeds[i] counts those that had round i. */
static enum meed_status cell_add(const struct meed_read_place *place, const json_t *root,
                                 const struct meed_run_row *row, double *squares, int64_t *seeds)
{
    struct meed_read_place leakage = meed_read_place_in(place, "leakage", -1);
    const json_t *models = NULL, *object = json_object_get(root, "leakage");
    if (!json_is_object(object)) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_list(&leakage, object, "models", MODELS_MOST, &models));
    for (size_t i = 0, at = 0; i < json_array_size(models); i++) {
        struct meed_read_place here = meed_read_place_in(&leakage, "models", (int32_t)i);
        const json_t *model = json_array_get(models, i);
        const char *kind = json_string_value(json_object_get(model, "kind"));
        int64_t round = 0;
        double gain = 0;
        if (!kind || strcmp(kind, "global") != 0) {
            continue;
        }
        MEED_TRY(meed_read_integer(&here, model, "round", &round));
        MEED_TRY(meed_read_number(&here, model, "gain", &gain));
        while (at < (size_t)row->course_count && row->course[at].round < round) {
            at++;
        }
        if (at < (size_t)row->course_count && row->course[at].round == round) {
            squares[at] += (gain - row->course[at].leak) * (gain - row->course[at].leak);
            seeds[at++]++;
        }
    }
    return MEED_OK;
}

static enum meed_status cell_read(const char *path, const struct meed_run_row *row, double *squares,
                                  int64_t *seeds)
{
    struct meed_read_place place = {.file = path};
    json_t *root = NULL;
    MEED_TRY(meed_read_json_file(path, &root));
    enum meed_status st = cell_add(&place, root, row, squares, seeds);
    json_decref(root);
    return st;
}

/* A mean whose seeds are not all at hand has no spread. */
static enum meed_status row_spread(const char *path, const json_t *cells, const json_t *settings,
                                   struct meed_run_record *record, struct meed_run_row *row)
{
    const size_t count = (size_t)row->course_count;
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
    double *squares = block;
    MEED_TRY(meed_run_record_array(record, count, sizeof(int64_t), &block));
    int64_t *seeds = block;
    int64_t held = 0;
    for (size_t i = 0; i < json_array_size(cells) && held < SEEDS_MOST; i++) {
        const json_t *cell = json_array_get(cells, i);
        char made[MEED_PATH_BYTES];
        if (json_equal(json_object_get(cell, "settings"), settings)) {
            if (!cell_path(path, cell, made)) {
                return MEED_OK;
            }
            MEED_TRY(cell_read(made, row, squares, seeds));
            held++;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (held > 1 && seeds[i] == held) {
            row->course[i].leak_se = sqrt(squares[i] / (double)(held - 1) / (double)held);
        }
    }
    return MEED_OK;
}

enum meed_status meed_read_course_spread(const char *path, const json_t *root,
                                         struct meed_run_record *record)
{
    const json_t *rows = json_object_get(root, "rows"), *cells = json_object_get(root, "cells");
    for (int32_t r = 0; r < record->grid.row_count; r++) {
        struct meed_run_row *row = &record->grid.rows[r];
        if (row->course_count > 0) {
            MEED_TRY(row_spread(path, cells,
                                json_object_get(json_array_get(rows, (size_t)r), "settings"),
                                record, row));
        }
    }
    return MEED_OK;
}
