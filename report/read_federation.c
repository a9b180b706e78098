/* A federation's report.json and ledger; see read_kinds.h. */
#include <math.h>
#include <string.h>
#include "base/file.h"
#include "report/read_kinds.h"

/* ---- report.json ------------------------------------------------------------------------------
 */

static enum meed_status read_clients(const struct meed_read_place *place, const json_t *root,
                                     struct meed_run_record *record)
{
    const json_t *total = NULL;
    MEED_TRY(meed_read_clients(place, root, "total", record, &total));
    for (int32_t k = 0; k < record->client_count; k++) {
        struct meed_read_place here = meed_read_place_in(place, "total", k);
        MEED_TRY(meed_read_integer(&here, json_array_get(total, (size_t)k), "share",
                                   &record->totals[k]));
    }
    return MEED_OK;
}

static enum meed_status read_merge(const struct meed_read_place *place, const json_t *round,
                                   struct meed_run_record *record, struct meed_run_merge *merge)
{
    struct meed_read_place here = meed_read_place_in(place, "merge", -1);
    const json_t *object = json_object_get(round, "merge");
    if (!object) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_number(&here, object, "update_norm", &merge->update_norm));
    MEED_TRY(meed_read_number(&here, object, "fedit_error", &merge->fedit_error));
    MEED_TRY(meed_read_number(&here, object, "retained_energy", &merge->retained_energy));
    MEED_TRY(meed_read_integer(&here, object, "updates", &merge->updates));
    MEED_TRY(meed_read_integer(&here, object, "frozen_ranks", &merge->frozen_ranks));
    return meed_read_text(&here, object, "method", record, &merge->method);
}

static enum meed_status read_round(const struct meed_read_place *place, const json_t *object,
                                   struct meed_run_record *record, struct meed_run_round *round)
{
    const json_t *clients = NULL;
    int64_t number = 0;
    *round = (struct meed_run_round){
        .budget = -1, .value_empty = NAN, .value_full = NAN, .value_kept = NAN};
    MEED_TRY(meed_run_record_cells(record, &round->cells));
    MEED_TRY(meed_read_integer(place, object, "round", &number));
    round->number = (int32_t)MEED_MIN(number, MEED_READ_ROUNDS_MOST);
    round->abandoned = json_is_true(json_object_get(object, "abandoned"));
    if (round->abandoned) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_integer_maybe(place, object, "budget", &round->budget));
    MEED_TRY(meed_read_number(place, object, "utility_before", &round->value_empty));
    MEED_TRY(meed_read_number(place, object, "utility_after", &round->value_kept));
    MEED_TRY(read_merge(place, object, record, &round->merge));
    MEED_TRY(meed_read_list(place, object, "clients", MEED_READ_CLIENTS_MOST, &clients));
    for (size_t i = 0; i < json_array_size(clients); i++) {
        struct meed_read_place here = meed_read_place_in(place, "clients", (int32_t)i);
        const json_t *client = json_array_get(clients, i);
        const char *id = json_string_value(json_object_get(client, "id"));
        int32_t k = id ? meed_run_record_find(record, id) : -1;
        if (k < 0) {
            return meed_read_fail(&here, "id", "a client of \"total\"");
        }
        MEED_TRY(meed_read_cell(&here, client, record, &round->cells[k]));
    }
    return MEED_OK;
}

enum meed_status meed_read_federation(const char *path, const json_t *root,
                                      struct meed_run_record *record)
{
    static const struct meed_read_fact facts[] = {
        {"run", "run"}, {"seconds", "seconds"}, {"adapter", "adapter"}};
    struct meed_read_place place = {.file = path};
    const json_t *rounds = NULL;
    void *block = NULL;
    record->kind = "federation";
    record->course = true;
    MEED_TRY(meed_read_integer(&place, root, "budget", &record->budget));
    MEED_TRY(read_clients(&place, root, record));
    MEED_TRY(meed_read_list(&place, root, "rounds", MEED_READ_ROUNDS_MOST, &rounds));
    size_t count = json_array_size(rounds);
    MEED_TRY(meed_run_record_array(record, count, sizeof *record->rounds, &block));
    record->rounds = block;
    for (size_t r = 0; r < count; r++) {
        struct meed_read_place here = meed_read_place_in(&place, "rounds", (int32_t)r);
        MEED_TRY(read_round(&here, json_array_get(rounds, r), record, &record->rounds[r]));
        record->round_count++;
    }
    return meed_read_facts(root, facts, MEED_COUNT(facts), record);
}

/* ---- ledger.jsonl ----------------------------------------------------------------------------
 */

/* HASH, blank, SIGNATURE, blank, BODY: see server/ledger.h. */
static const char *body_of(const char *line, const char *end)
{
    for (int field = 0; field < 2 && line; field++) {
        const char *blank = memchr(line, ' ', (size_t)(end - line));
        line = blank ? blank + 1 : NULL;
    }
    return line;
}

static enum meed_status take_genesis(const json_t *body, struct meed_run_record *record)
{
    static const struct meed_read_fact facts[] = {
        {"rounds", "rounds planned"}, {"aggregation", "aggregation"},
        {"estimator", "estimator"},   {"payment", "payment rule"},
        {"model", "model"},           {"benchmark", "benchmark"},
        {"config", "configuration"},  {"start", "start adapter"},
    };
    return meed_read_facts(body, facts, MEED_COUNT(facts), record);
}

static void take_round(const json_t *body, struct meed_run_record *record)
{
    json_int_t number = json_integer_value(json_object_get(body, "round"));
    const json_t *full = json_object_get(body, "value_full");
    for (int32_t r = 0; json_is_number(full) && r < record->round_count; r++) {
        if (record->rounds[r].number == number && !record->rounds[r].abandoned) {
            record->rounds[r].value_full = json_number_value(full);
        }
    }
}

static enum meed_status take_entry(const struct meed_read_place *place, int line, const char *text,
                                   size_t size, struct meed_run_record *record)
{
    json_error_t error;
    json_t *body = json_loadb(text, size, 0, &error);
    const char *kind = json_string_value(json_object_get(body, "kind"));
    enum meed_status st = MEED_OK;
    if (!kind) {
        st = MEED_FAIL(MEED_FORMAT, "%s:%d: no ledger entry; see `meed ledger verify`", place->file,
                       line);
    } else if (strcmp(kind, "genesis") == 0) {
        st = take_genesis(body, record);
    } else if (strcmp(kind, "round") == 0) {
        take_round(body, record);
    }
    json_decref(body);
    return st;
}

enum meed_status meed_read_ledger(const char *path, struct meed_run_record *record)
{
    enum { LEDGER_MAX_BYTES = 1 << 30, HASH_DIGITS = 64 };
    enum meed_status st = MEED_OK;
    struct meed_read_place place = {.file = path};
    struct meed_buf text;
    int line = 0;
    const char *head = NULL;
    meed_buf_init(&text, LEDGER_MAX_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &text));
    for (const char *at = text.data; at && *at;) {
        const char *end = strchr(at, '\n');
        end = end ? end : at + strlen(at);
        const char *body = body_of(at, end);
        line++;
        if (!body || body - at < HASH_DIGITS) {
            st = MEED_FAIL(MEED_FORMAT, "%s:%d: no ledger entry; see `meed ledger verify`", path,
                           line);
            goto out;
        }
        MEED_TRY_OUT(take_entry(&place, line, body, (size_t)(end - body), record));
        head = at;
        at = *end ? end + 1 : end;
    }
    if (head) {
        MEED_TRY_OUT(meed_run_record_fact(record, "ledger entries", "%d", line));
        MEED_TRY_OUT(meed_run_record_fact(record, "ledger head", "%.*s", HASH_DIGITS, head));
    }
out:
    meed_buf_clear(&text);
    return st;
}
