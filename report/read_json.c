/* See read_json.h. */
#include "report/read_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"

enum { FILE_MAX_BYTES = 512 << 20 };
#define LARGEST 1e100 /* so that sums and squares of what was read stay finite */

enum meed_status meed_read_json_file(const char *path, json_t **object)
{
    struct meed_buf text;
    json_error_t error;
    meed_buf_init(&text, FILE_MAX_BYTES);
    enum meed_status st = meed_file_read(path, &text);
    if (st == MEED_OK) {
        json_t *root =
            json_loadb(text.data ? text.data : "", text.size, JSON_REJECT_DUPLICATES, &error);
        if (!root) {
            st = MEED_FAIL(MEED_FORMAT,
                           "%s:%d: %s; a report is made from the JSON of `meed up`, `meed "
                           "value` or `meed simulate`",
                           path, error.line, error.text);
        } else if (!json_is_object(root)) {
            json_decref(root);
            st = MEED_FAIL(MEED_FORMAT, "%s: no JSON object", path);
        } else {
            *object = root;
        }
    }
    meed_buf_clear(&text);
    return st;
}

struct meed_read_place meed_read_place_in(const struct meed_read_place *place, const char *name,
                                          int32_t idx)
{
    struct meed_read_place inner = {.file = place->file};
    const char *dot = place->inside[0] ? "." : "";
    if (idx >= 0) {
        snprintf(inner.inside, sizeof inner.inside, "%.100s%s%s[%d]", place->inside, dot, name,
                 idx);
    } else {
        snprintf(inner.inside, sizeof inner.inside, "%.100s%s%s", place->inside, dot, name);
    }
    return inner;
}

enum meed_status meed_read_fail(const struct meed_read_place *place, const char *key,
                                const char *wanted)
{
    return MEED_FAIL(MEED_FORMAT, "%s: %s%s\"%s\" must be %s", place->file, place->inside,
                     place->inside[0] ? ": " : "", key, wanted);
}

enum meed_status meed_read_text(const struct meed_read_place *place, const json_t *object,
                                const char *key, struct meed_run_record *record, const char **text)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? meed_run_record_text(record, value, text) : meed_read_fail(place, key, "a text");
}

static bool missing(const json_t *value)
{
    return !value || json_is_null(value);
}

enum meed_status meed_read_number(const struct meed_read_place *place, const json_t *object,
                                  const char *key, double *number)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value) || !(fabs(json_number_value(value)) <= LARGEST)) {
        return meed_read_fail(place, key, "a finite number");
    }
    *number = json_number_value(value);
    return MEED_OK;
}

enum meed_status meed_read_number_maybe(const struct meed_read_place *place, const json_t *object,
                                        const char *key, double *number)
{
    return missing(json_object_get(object, key)) ? MEED_OK
                                                 : meed_read_number(place, object, key, number);
}

enum meed_status meed_read_integer(const struct meed_read_place *place, const json_t *object,
                                   const char *key, int64_t *integer)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return meed_read_fail(place, key, "a whole number from 0 on");
    }
    *integer = json_integer_value(value);
    return MEED_OK;
}

enum meed_status meed_read_integer_maybe(const struct meed_read_place *place, const json_t *object,
                                         const char *key, int64_t *integer)
{
    return missing(json_object_get(object, key)) ? MEED_OK
                                                 : meed_read_integer(place, object, key, integer);
}

enum meed_status meed_read_list(const struct meed_read_place *place, const json_t *object,
                                const char *key, size_t most, const json_t **list)
{
    const json_t *value = json_object_get(object, key);
    bool good = json_is_array(value) && json_array_size(value) <= most;
    for (size_t i = 0; good && i < json_array_size(value); i++) {
        good = json_is_object(json_array_get(value, i));
    }
    if (!good) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "a list of at most %zu objects", most);
        return meed_read_fail(place, key, wanted);
    }
    *list = value;
    return MEED_OK;
}

enum meed_status meed_read_clients(const struct meed_read_place *place, const json_t *root,
                                   const char *key, struct meed_run_record *record,
                                   const json_t **clients)
{
    void *block = NULL;
    MEED_TRY(meed_read_list(place, root, key, MEED_READ_CLIENTS_MOST, clients));
    size_t count = json_array_size(*clients);
    MEED_TRY(meed_run_record_array(record, count, sizeof *record->clients, &block));
    record->clients = block;
    MEED_TRY(meed_run_record_array(record, count, sizeof *record->totals, &block));
    record->totals = block;
    for (size_t k = 0; k < count; k++) {
        struct meed_read_place here = meed_read_place_in(place, key, (int32_t)k);
        MEED_TRY(
            meed_read_text(&here, json_array_get(*clients, k), "id", record, &record->clients[k]));
        if (meed_run_record_find(record, record->clients[k]) >= 0) {
            return meed_read_fail(&here, "id", "of one client only");
        }
        record->client_count++;
    }
    return MEED_OK;
}

static enum meed_status read_standing(const struct meed_read_place *place, const json_t *object,
                                      struct meed_run_cell *cell)
{
    const json_t *value = json_object_get(object, "standing");
    if (missing(value)) {
        return MEED_OK;
    }
    for (int i = MEED_RUN_FREE + 1; i < MEED_RUN_STANDING_COUNT; i++) {
        const char *word = meed_run_standing_word((enum meed_run_standing)i);
        if (json_is_string(value) && strcmp(json_string_value(value), word) == 0) {
            cell->standing = (enum meed_run_standing)i;
            return MEED_OK;
        }
    }
    return meed_read_fail(place, "standing", "quarantine or probation");
}

enum meed_status meed_read_cell(const struct meed_read_place *place, const json_t *object,
                                struct meed_run_record *record, struct meed_run_cell *cell)
{
    const char *key = json_object_get(object, "state") ? "state" : "status";
    const char *status = json_string_value(json_object_get(object, key));
    cell->state = MEED_RUN_STATE_COUNT;
    for (int i = 0; status && i < MEED_RUN_STATE_COUNT; i++) {
        if (strcmp(status, meed_run_state_word((enum meed_run_state)i)) == 0) {
            cell->state = (enum meed_run_state)i;
        }
    }
    if (cell->state == MEED_RUN_STATE_COUNT) {
        return meed_read_fail(place, key, "paid, unpaid, excluded or absent");
    }
    if (!json_is_null(json_object_get(object, "phi"))) { /* said to be not known */
        MEED_TRY(meed_read_number(place, object, "phi", &cell->phi));
    }
    MEED_TRY(meed_read_number_maybe(place, object, "se", &cell->se));
    MEED_TRY(meed_read_integer(place, object, "share", &cell->share));
    MEED_TRY(meed_read_number_maybe(place, object, "loss", &cell->loss));
    MEED_TRY(meed_read_integer_maybe(place, object, "bytes_up", &cell->bytes_up));
    MEED_TRY(meed_read_integer_maybe(place, object, "bytes_down", &cell->bytes_down));
    MEED_TRY(meed_read_number_maybe(place, object, "score", &cell->score));
    MEED_TRY(meed_read_number_maybe(place, object, "combined", &cell->combined));
    MEED_TRY(meed_read_number_maybe(place, object, "weight", &cell->weight));
    MEED_TRY(read_standing(place, object, cell));
    MEED_TRY(meed_read_text(place, object, "reason", record, &cell->reason));
    return json_object_get(object, "remark") /* older files have none */
               ? meed_read_text(place, object, "remark", record, &cell->remark)
               : MEED_OK;
}

enum meed_status meed_read_facts(const json_t *object, const struct meed_read_fact *facts,
                                 size_t count, struct meed_run_record *record)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(object, facts[i].key);
        if (json_is_string(value) && json_string_length(value) > 0) {
            MEED_TRY(meed_run_record_fact(record, facts[i].name, "%s", json_string_value(value)));
        } else if (json_is_integer(value)) {
            MEED_TRY(meed_run_record_fact(record, facts[i].name, "%" JSON_INTEGER_FORMAT,
                                          json_integer_value(value)));
        } else if (json_is_real(value)) {
            MEED_TRY(meed_run_record_fact(record, facts[i].name, "%.6g", json_real_value(value)));
        }
    }
    return MEED_OK;
}
