/* See report_json.h. */
#include "server/report_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include "base/file.h"
#include "server/aggregate.h"
#include "server/defence.h"
#include "server/quarantine.h"

enum { REPORT_MAX_BYTES = 512 << 20 };

static const char *state_word(enum meed_receipt_state state)
{
    switch (state) {
    case MEED_RECEIPT_PAID:
        return "paid";
    case MEED_RECEIPT_UNPAID:
        return "unpaid";
    case MEED_RECEIPT_EXCLUDED:
        return "excluded";
    default:
        return "absent";
    }
}

/* What the walk over the ledger gathers. */
struct gather {
    const struct meed_report_json_source *source;
    json_t *rounds;
    json_t *total;                            /* array, built from the first settled round on */
    struct meed_quarantine_client *standings; /* [MEED_LIMIT_CLIENTS], as of the round walked */
    int bad;
};

static void add_total(struct gather *gather, const struct meed_ledger_client *client, size_t at)
{
    json_t *entry = json_array_get(gather->total, at);
    if (!entry) {
        entry = json_object();
        gather->bad |= json_object_set_new(entry, "id", json_string(client->id));
        gather->bad |= json_object_set_new(entry, "share", json_integer(0));
        gather->bad |= json_array_append_new(gather->total, entry);
    }
    json_int_t so_far = json_integer_value(json_object_get(entry, "share"));
    gather->bad |= json_object_set_new(entry, "share", json_integer(so_far + client->share));
}

static json_t *client_entry(struct gather *gather, int32_t round,
                            const struct meed_ledger_client *client)
{
    int64_t up = 0, down = 0;
    struct meed_store_update update;
    json_t *entry = json_object();
    if (meed_store_traffic(gather->source->store, round, client->id, &up, &down) != MEED_OK) {
        up = down = 0;
    }
    gather->bad |= json_object_set_new(entry, "id", json_string(client->id));
    gather->bad |= json_object_set_new(entry, "phi", json_real(client->phi));
    gather->bad |= json_object_set_new(entry, "se", json_real(client->se));
    gather->bad |= json_object_set_new(entry, "share", json_integer(client->share));
    gather->bad |= json_object_set_new(entry, "status", json_string(state_word(client->state)));
    gather->bad |= json_object_set_new(entry, "reason", json_string(client->reason));
    gather->bad |= json_object_set_new(entry, "remark", json_string(client->remark));
    if (client->privacy[0]) {
        gather->bad |= json_object_set_new(entry, "privacy", json_string(client->privacy));
    }
    if (meed_store_find_update(gather->source->store, round, client->id, &update) == MEED_OK &&
        isfinite(update.train_loss)) {
        gather->bad |= json_object_set_new(entry, "loss", json_real(update.train_loss));
    }
    gather->bad |= json_object_set_new(entry, "bytes_up", json_integer(up));
    gather->bad |= json_object_set_new(entry, "bytes_down", json_integer(down));
    return entry;
}

/* What screening measured of each update that the round has; the stage is empty in a round that was
 * settled before it was kept. */
static void add_scores(struct gather *gather, const struct meed_ledger_round *round,
                       json_t *clients)
{
    static const uint8_t nothing[MEED_SHA256_BYTES];
    struct meed_defence_client verdict;
    struct meed_buf stored;
    size_t at = 0;
    meed_buf_init(&stored, MEED_LIMIT_CLIENTS * sizeof verdict);
    if (meed_store_load_stage(gather->source->store, round->round, MEED_REPORT_STAGE_SCREENED,
                              &stored) == MEED_OK) {
        for (int32_t i = 0; i < round->client_count; i++) {
            const struct meed_ledger_client *client = &round->clients[i];
            if (memcmp(client->update_hash, nothing, sizeof nothing) == 0 ||
                (at + 1) * sizeof verdict > stored.size) {
                continue;
            }
            memcpy(&verdict, stored.data + at * sizeof verdict, sizeof verdict);
            json_t *entry = json_array_get(clients, (size_t)i);
            gather->bad |= json_object_set_new(entry, "score", json_real(verdict.score));
            gather->bad |= json_object_set_new(entry, "weight", json_real(client->weight));
            at++;
        }
    }
    meed_buf_clear(&stored);
}

/* Where each client stood when the round began, and its strikes when it ended. */
static void add_standings(struct gather *gather, const struct meed_ledger_round *round,
                          json_t *clients)
{
    const struct meed_quarantine_options *options = &gather->source->terms->quarantine;
    for (int32_t i = 0; options->strikes > 0 && i < round->client_count; i++) {
        struct meed_quarantine_client *standing = &gather->standings[i];
        json_t *entry = json_array_get(clients, (size_t)i);
        bool held = meed_quarantine_holds(standing, round->round);
        if (held || (standing->out_until > 0 && round->round <= standing->on_until)) {
            gather->bad |= json_object_set_new(entry, "standing",
                                               json_string(held ? "quarantine" : "probation"));
        }
        meed_quarantine_note(options, round->round,
                             round->clients[i].state == MEED_RECEIPT_EXCLUDED, standing);
        gather->bad |= json_object_set_new(entry, "strikes", json_integer(standing->strikes));
    }
}

/* Of the merge, and the bytes that client_entry has just listed. */
static void add_merge(struct gather *gather, const struct meed_ledger_round *round,
                      const json_t *clients, json_t *entry)
{
    struct meed_aggregate_report report;
    struct meed_buf stored;
    json_int_t up = 0, down = 0;
    meed_buf_init(&stored, sizeof report);
    enum meed_status st = meed_store_load_stage(gather->source->store, round->round,
                                                MEED_REPORT_STAGE_MERGED, &stored);
    if (st == MEED_OK && stored.size == sizeof report) {
        memcpy(&report, stored.data, sizeof report);
        for (size_t i = 0; i < json_array_size(clients); i++) {
            const json_t *client = json_array_get(clients, i);
            up += json_integer_value(json_object_get(client, "bytes_up"));
            down += json_integer_value(json_object_get(client, "bytes_down"));
        }
        json_t *merge =
            json_pack("{s:s, s:f, s:f, s:f, s:i, s:i, s:I, s:I}", "method", round->method,
                      "update_norm", report.update_norm, "fedit_error", report.fedit_error,
                      "retained_energy", report.retained_energy, "frozen_ranks", (int)report.frozen,
                      "updates", (int)report.used, "bytes_up", up, "bytes_down", down);
        gather->bad |= json_object_set_new(entry, "merge", merge);
    }
    meed_buf_clear(&stored);
}

static enum meed_status add_round(struct gather *gather, const struct meed_buf *body)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger_round round;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    MEED_TRY_OUT(meed_ledger_parse_round(body->data, body->size, &arena, &round));
    json_t *entry = json_object(), *clients = json_array();
    gather->bad |= json_object_set_new(entry, "round", json_integer(round.round));
    gather->bad |= json_object_set_new(entry, "budget", json_integer(round.budget));
    gather->bad |= json_object_set_new(entry, "retained", json_integer(round.retained));
    gather->bad |= json_object_set_new(entry, "utility_before", json_real(round.value_empty));
    gather->bad |= json_object_set_new(entry, "utility_after", json_real(round.value_kept));
    for (int32_t i = 0; i < round.client_count; i++) {
        add_total(gather, &round.clients[i], (size_t)i);
        gather->bad |=
            json_array_append_new(clients, client_entry(gather, round.round, &round.clients[i]));
    }
    add_scores(gather, &round, clients);
    add_standings(gather, &round, clients);
    add_merge(gather, &round, clients, entry);
    gather->bad |= json_object_set_new(entry, "clients", clients);
    gather->bad |= json_array_append_new(gather->rounds, entry);
out:
    meed_arena_clear(&arena);
    return st;
}

static void add_abandoned(struct gather *gather, int32_t round)
{
    json_t *entry = json_object();
    gather->bad |= json_object_set_new(entry, "round", json_integer(round));
    gather->bad |= json_object_set_new(entry, "abandoned", json_true());
    gather->bad |= json_object_set_new(entry, "clients", json_array());
    gather->bad |= json_array_append_new(gather->rounds, entry);
}

static enum meed_status walk(struct gather *gather)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger *ledger = gather->source->ledger;
    struct meed_ledger_place place;
    struct meed_buf body;
    meed_buf_init(&body, MEED_LIMIT_LEDGER_BODY_BYTES);
    for (int64_t i = 0; i < meed_ledger_count(ledger); i++) {
        meed_buf_reset(&body);
        MEED_TRY_OUT(meed_ledger_read(ledger, i, &place, &body));
        if (place.kind == MEED_LEDGER_ROUND) {
            MEED_TRY_OUT(add_round(gather, &body));
        } else if (place.kind == MEED_LEDGER_ABANDONED) {
            add_abandoned(gather, place.round);
        }
    }
out:
    meed_buf_clear(&body);
    return st;
}

enum meed_status meed_report_json_format(const struct meed_report_json_source *source,
                                         struct meed_buf *text)
{
    enum meed_status st = MEED_OK;
    char *dump = NULL;
    struct gather gather = {.source = source, .rounds = json_array(), .total = json_array()};
    json_t *root = json_object();
    gather.standings = meed_heap_alloc(MEED_LIMIT_CLIENTS, sizeof *gather.standings);
    if (!gather.standings) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(walk(&gather));
    gather.bad |= json_object_set_new(root, "run", json_string(source->terms->run_id));
    gather.bad |= json_object_set_new(root, "budget", json_integer(source->terms->budget));
    gather.bad |= json_object_set_new(root, "seconds", json_real(source->seconds));
    gather.bad |= json_object_set_new(root, "adapter", json_string(source->adapter));
    gather.bad |= json_object_set(root, "rounds", gather.rounds);
    gather.bad |= json_object_set(root, "total", gather.total);
    dump = gather.bad ? NULL : json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    st = dump ? meed_buf_printf(text, "%s\n", dump)
              : MEED_FAIL(MEED_NUMERIC, "the report holds a value that JSON cannot");
out:
    free(dump);
    meed_heap_free(gather.standings);
    json_decref(gather.rounds);
    json_decref(gather.total);
    json_decref(root);
    return st;
}

enum meed_status meed_report_json_write(const struct meed_report_json_source *source,
                                        const char *path)
{
    struct meed_buf text;
    meed_buf_init(&text, REPORT_MAX_BYTES);
    enum meed_status st = meed_report_json_format(source, &text);
    if (st == MEED_OK) {
        st = meed_file_write_atomic(path, text.data, text.size);
    }
    meed_buf_clear(&text);
    return st;
}
