/* See ledger_body.h. */
#include "server/ledger_body.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>

static const char *const kind_names[MEED_LEDGER_KIND_COUNT] = {"genesis", "round", "abandoned",
                                                               "final"};
static const char *const state_names[MEED_RECEIPT_STATE_COUNT] = {"?", "paid", "unpaid", "excluded",
                                                                  "absent"};

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *hash_value(const uint8_t *hash)
{
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(hash, hex);
    return json_string(hex);
}

/* json_object_set_new takes NULL as a failure, so one check at the end covers every member. */
static int set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value);
}

static json_t *open_body(const struct meed_ledger_link *link, enum meed_ledger_kind kind,
                         const char *run_id, int *bad)
{
    json_t *body = json_object();
    *bad |= set(body, "index", json_integer(link->index));
    *bad |= set(body, "kind", json_string(kind_names[kind]));
    *bad |= set(body, "prev", hash_value(link->prev_hash));
    *bad |= set(body, "run", json_string(run_id));
    return body;
}

/* Takes the object. */
static enum meed_status close_body(json_t *object, int bad, struct meed_buf *body)
{
    enum meed_status st = MEED_OK;
    char *text = NULL;
    if (!bad) {
        text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    }
    if (!text) {
        st = MEED_FAIL(MEED_NUMERIC, "a ledger entry holds a value that JSON cannot: not finite, "
                                     "or text that is not UTF-8");
    } else if (strlen(text) > MEED_LIMIT_LEDGER_BODY_BYTES) {
        st = MEED_FAIL(MEED_LIMIT, "a ledger entry of %zu bytes; at most %d", strlen(text),
                       MEED_LIMIT_LEDGER_BODY_BYTES);
    } else {
        st = meed_buf_append(body, text, strlen(text));
    }
    free(text);
    json_decref(object);
    return st;
}

enum meed_status meed_ledger_body_genesis(const struct meed_ledger_link *link,
                                          const struct meed_ledger_genesis *entry,
                                          struct meed_buf *body)
{
    int bad = 0;
    json_t *object = open_body(link, MEED_LEDGER_GENESIS, entry->run_id, &bad);
    bad |= set(object, "model", hash_value(entry->model_hash));
    bad |= set(object, "benchmark", hash_value(entry->benchmark_hash));
    bad |= set(object, "start", hash_value(entry->start_hash));
    bad |= set(object, "config", hash_value(entry->config_hash));
    bad |= set(object, "rounds", json_integer(entry->rounds));
    bad |= set(object, "budget", json_integer(entry->budget));
    bad |= set(object, "aggregation", json_string(entry->aggregation));
    bad |= set(object, "estimator", json_string(entry->estimator));
    bad |= set(object, "payment", json_string(entry->payment));
    json_t *clients = json_array();
    for (int32_t i = 0; i < entry->client_count; i++) {
        bad |= json_array_append_new(clients, json_string(entry->clients[i]));
    }
    bad |= set(object, "clients", clients);
    return close_body(object, bad, body);
}

/* Σ shares + retained = budget, of which all, nothing or the floor is paid, no negative amount,
 * nothing paid to who is not "paid", ids rising.
 */
static bool amounts_add_up(const struct meed_ledger_round *entry)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < entry->client_count; i++) {
        const struct meed_ledger_client *client = &entry->clients[i];
        if (client->share < 0 || client->share > entry->budget - sum ||
            (client->share > 0 && client->state != MEED_RECEIPT_PAID) ||
            (i > 0 && strcmp(entry->clients[i - 1].id, client->id) >= 0)) {
            return false;
        }
        sum += client->share;
    }
    return entry->budget >= 0 && entry->budget <= MEED_LIMIT_CREDITS && entry->floor >= 0 &&
           entry->floor <= entry->budget &&
           (entry->retained == 0 || entry->retained == entry->budget ||
            entry->retained == entry->budget - entry->floor) &&
           sum == entry->budget - entry->retained;
}

static json_t *client_value(const struct meed_ledger_client *client, int *bad)
{
    json_t *object = json_object();
    *bad |= set(object, "id", json_string(client->id));
    *bad |= set(object, "status", json_string(state_names[client->state]));
    *bad |= set(object, "reason", json_string(client->reason));
    *bad |= client->remark[0] ? set(object, "remark", json_string(client->remark)) : 0;
    *bad |= set(object, "update", hash_value(client->update_hash));
    *bad |= set(object, "weight", json_real(client->weight));
    *bad |= set(object, "phi", json_real(client->phi));
    *bad |= set(object, "se", json_real(client->se));
    *bad |= set(object, "share", json_integer(client->share));
    if (client->privacy[0]) {
        *bad |= set(object, "privacy", json_string(client->privacy));
    }
    return object;
}

enum meed_status meed_ledger_body_round(const struct meed_ledger_link *link,
                                        const struct meed_ledger_round *entry,
                                        struct meed_buf *body)
{
    if (!amounts_add_up(entry)) {
        return MEED_FAIL(MEED_BUG,
                         "round %d: the shares do not add up to the budget of %lld; "
                         "nothing was written",
                         entry->round, (long long)entry->budget);
    }
    int bad = 0;
    json_t *object = open_body(link, MEED_LEDGER_ROUND, entry->run_id, &bad);
    bad |= set(object, "round", json_integer(entry->round));
    bad |= set(object, "budget", json_integer(entry->budget));
    bad |= set(object, "retained", json_integer(entry->retained));
    bad |= set(object, "floor", json_integer(entry->floor));
    bad |= set(object, "model", hash_value(entry->model_hash));
    bad |= set(object, "benchmark", hash_value(entry->benchmark_hash));
    bad |= set(object, "before", hash_value(entry->before_hash));
    bad |= set(object, "after", hash_value(entry->after_hash));
    bad |= set(object, "utilities", hash_value(entry->utilities_hash));
    bad |= set(object, "method", json_string(entry->method));
    bad |= set(object, "state", hash_value(entry->state_hash));
    bad |= set(object, "merged", hash_value(entry->merged_hash));
    bad |= set(object, "reference", hash_value(entry->reference_hash));
    bad |= set(object, "value_empty", json_real(entry->value_empty));
    bad |= set(object, "value_full", json_real(entry->value_full));
    bad |= set(object, "value_kept", json_real(entry->value_kept));
    json_t *clients = json_array();
    for (int32_t i = 0; i < entry->client_count; i++) {
        bad |= json_array_append_new(clients, client_value(&entry->clients[i], &bad));
    }
    bad |= set(object, "clients", clients);
    return close_body(object, bad, body);
}

enum meed_status meed_ledger_body_abandoned(const struct meed_ledger_link *link, const char *run_id,
                                            int32_t round, const uint8_t *before_hash,
                                            const char *reason, struct meed_buf *body)
{
    int bad = 0;
    json_t *object = open_body(link, MEED_LEDGER_ABANDONED, run_id, &bad);
    bad |= set(object, "round", json_integer(round));
    bad |= set(object, "before", hash_value(before_hash));
    bad |= set(object, "reason", json_string(reason));
    return close_body(object, bad, body);
}

enum meed_status meed_ledger_body_final(const struct meed_ledger_link *link, const char *run_id,
                                        const uint8_t *adapter_hash,
                                        const struct meed_ledger_total *totals, int32_t total_count,
                                        struct meed_buf *body)
{
    int bad = 0;
    json_t *object = open_body(link, MEED_LEDGER_FINAL, run_id, &bad);
    bad |= set(object, "adapter", hash_value(adapter_hash));
    json_t *list = json_array();
    for (int32_t i = 0; i < total_count; i++) {
        json_t *total = json_object();
        bad |= set(total, "id", json_string(totals[i].id));
        bad |= set(total, "share", json_integer(totals[i].share));
        bad |= json_array_append_new(list, total);
    }
    bad |= set(object, "totals", list);
    return close_body(object, bad, body);
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum meed_status body_failed(const char *key)
{
    return MEED_FAIL(MEED_FORMAT, "the entry's \"%s\" is missing or of the wrong kind", key);
}

static enum meed_status get_integer(const json_t *object, const char *key, int64_t *value)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_integer(member)) {
        return body_failed(key);
    }
    *value = json_integer_value(member);
    return MEED_OK;
}

static enum meed_status get_round_number(const json_t *object, int32_t *value)
{
    int64_t wide = 0;
    MEED_TRY(get_integer(object, "round", &wide));
    if (wide < 1 || wide > MEED_LIMIT_ROUNDS) {
        return body_failed("round");
    }
    *value = (int32_t)wide;
    return MEED_OK;
}

static enum meed_status get_real(const json_t *object, const char *key, double *value)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_number(member)) {
        return body_failed(key);
    }
    *value = json_number_value(member);
    return MEED_OK;
}

static enum meed_status get_text(const json_t *object, const char *key, char *text, size_t size)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_string(member) || json_string_length(member) >= size) {
        return body_failed(key);
    }
    memcpy(text, json_string_value(member), json_string_length(member) + 1);
    return MEED_OK;
}

static enum meed_status get_hash(const json_t *object, const char *key, uint8_t *hash)
{
    char hex[MEED_SHA256_HEX_BYTES];
    MEED_TRY(get_text(object, key, hex, sizeof hex));
    return meed_sha256_from_hex(hex, hash);
}

static enum meed_status read_client(const json_t *object, struct meed_ledger_client *client)
{
    char state[16];
    MEED_TRY(get_text(object, "id", client->id, sizeof client->id));
    MEED_TRY(get_text(object, "status", state, sizeof state));
    MEED_TRY(!json_object_get(object, "remark")
                 ? MEED_OK
                 : get_text(object, "remark", client->remark, sizeof client->remark));
    MEED_TRY(get_text(object, "reason", client->reason, sizeof client->reason));
    MEED_TRY(get_hash(object, "update", client->update_hash));
    MEED_TRY(!json_object_get(object, "weight") ? MEED_OK
                                                : get_real(object, "weight", &client->weight));
    MEED_TRY(get_real(object, "phi", &client->phi));
    MEED_TRY(get_real(object, "se", &client->se));
    MEED_TRY(get_integer(object, "share", &client->share));
    client->privacy[0] = '\0';
    MEED_TRY(!json_object_get(object, "privacy")
                 ? MEED_OK
                 : get_text(object, "privacy", client->privacy, sizeof client->privacy));
    for (int i = MEED_RECEIPT_PAID; i < MEED_RECEIPT_STATE_COUNT; i++) {
        if (strcmp(state, state_names[i]) == 0) {
            client->state = (enum meed_receipt_state)i;
            return MEED_OK;
        }
    }
    return body_failed("status");
}

/* Ledgers of earlier releases do not say. */
static enum meed_status read_method(const json_t *object, struct meed_ledger_round *entry)
{
    if (!json_object_get(object, "method")) {
        return MEED_OK;
    }
    MEED_TRY(get_text(object, "method", entry->method, sizeof entry->method));
    MEED_TRY(get_hash(object, "state", entry->state_hash));
    MEED_TRY(get_hash(object, "merged", entry->merged_hash));
    return get_hash(object, "reference", entry->reference_hash);
}

static enum meed_status read_round(const json_t *object, struct meed_arena *arena,
                                   struct meed_ledger_round *entry)
{
    MEED_TRY(get_text(object, "run", entry->run_id, sizeof entry->run_id));
    MEED_TRY(get_round_number(object, &entry->round));
    MEED_TRY(get_integer(object, "budget", &entry->budget));
    MEED_TRY(get_integer(object, "retained", &entry->retained));
    MEED_TRY(!json_object_get(object, "floor") ? MEED_OK
                                               : get_integer(object, "floor", &entry->floor));
    MEED_TRY(get_hash(object, "model", entry->model_hash));
    MEED_TRY(get_hash(object, "benchmark", entry->benchmark_hash));
    MEED_TRY(get_hash(object, "before", entry->before_hash));
    MEED_TRY(get_hash(object, "after", entry->after_hash));
    MEED_TRY(get_hash(object, "utilities", entry->utilities_hash));
    MEED_TRY(read_method(object, entry));
    MEED_TRY(get_real(object, "value_empty", &entry->value_empty));
    MEED_TRY(get_real(object, "value_full", &entry->value_full));
    MEED_TRY(get_real(object, "value_kept", &entry->value_kept));
    const json_t *clients = json_object_get(object, "clients");
    if (!json_is_array(clients) || json_array_size(clients) > MEED_LIMIT_CLIENTS) {
        return body_failed("clients");
    }
    entry->client_count = (int32_t)json_array_size(clients);
    void *block = NULL;
    MEED_TRY(
        meed_arena_alloc_array(arena, (size_t)entry->client_count, sizeof *entry->clients, &block));
    entry->clients = block;
    for (int32_t i = 0; i < entry->client_count; i++) {
        MEED_TRY(read_client(json_array_get(clients, (size_t)i), &entry->clients[i]));
    }
    if (!amounts_add_up(entry)) {
        return MEED_FAIL(MEED_INTEGRITY, "round %d: the shares do not add up to the budget",
                         entry->round);
    }
    return MEED_OK;
}

static enum meed_status load(const char *body, size_t size, json_t **object)
{
    json_error_t error;
    *object = json_loadb(body, size, JSON_REJECT_DUPLICATES, &error);
    return *object ? MEED_OK : MEED_FAIL(MEED_FORMAT, "the entry is not JSON: %.100s", error.text);
}

enum meed_status meed_ledger_parse_round(const char *body, size_t size, struct meed_arena *arena,
                                         struct meed_ledger_round *entry)
{
    json_t *object = NULL;
    MEED_TRY(load(body, size, &object));
    struct meed_ledger_round read = {.round = 0};
    enum meed_status st = read_round(object, arena, &read);
    json_decref(object);
    if (st == MEED_OK) {
        *entry = read;
    }
    return st;
}

enum meed_status meed_ledger_read_round(struct meed_ledger *ledger, int64_t index,
                                        struct meed_arena *arena, struct meed_ledger_round *entry)
{
    struct meed_ledger_place place;
    struct meed_buf body;
    meed_buf_init(&body, MEED_LIMIT_LEDGER_BODY_BYTES);
    enum meed_status st = meed_ledger_read(ledger, index, &place, &body);
    if (st == MEED_OK) {
        st = meed_ledger_parse_round(body.data, body.size, arena, entry);
    }
    meed_buf_clear(&body);
    return st;
}

/* ---- the other kinds ------------------------------------------------------------------------- */

static enum meed_status check_kind(const json_t *object, enum meed_ledger_kind kind)
{
    const char *word = json_string_value(json_object_get(object, "kind"));
    return word && strcmp(word, kind_names[kind]) == 0 ? MEED_OK : body_failed("kind");
}

static enum meed_status keep_text(const json_t *object, const char *key, size_t most,
                                  struct meed_arena *arena, const char **text)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc(arena, most, &block));
    MEED_TRY(get_text(object, key, block, most));
    *text = block;
    return MEED_OK;
}

static enum meed_status read_ids(const json_t *object, struct meed_arena *arena,
                                 struct meed_ledger_genesis *entry)
{
    const json_t *clients = json_object_get(object, "clients");
    void *list = NULL;
    size_t count = json_array_size(clients);
    if (!json_is_array(clients) || count > MEED_LIMIT_CLIENTS) {
        return body_failed("clients");
    }
    MEED_TRY(meed_arena_alloc_array(arena, count + 1, sizeof(char *), &list));
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(clients, i);
        void *text = NULL;
        if (!json_is_string(id) || json_string_length(id) >= MEED_LIMIT_ID_BYTES) {
            return body_failed("clients");
        }
        MEED_TRY(meed_arena_alloc(arena, MEED_LIMIT_ID_BYTES, &text));
        memcpy(text, json_string_value(id), json_string_length(id) + 1);
        ((const char **)list)[i] = text;
    }
    entry->clients = list;
    entry->client_count = (int32_t)count;
    return MEED_OK;
}

static enum meed_status read_genesis(const json_t *object, struct meed_arena *arena,
                                     struct meed_ledger_genesis *entry)
{
    int64_t rounds = 0;
    MEED_TRY(check_kind(object, MEED_LEDGER_GENESIS));
    MEED_TRY(keep_text(object, "run", MEED_LIMIT_ID_BYTES, arena, &entry->run_id));
    MEED_TRY(get_hash(object, "model", entry->model_hash));
    MEED_TRY(get_hash(object, "benchmark", entry->benchmark_hash));
    MEED_TRY(get_hash(object, "start", entry->start_hash));
    MEED_TRY(get_hash(object, "config", entry->config_hash));
    MEED_TRY(get_integer(object, "rounds", &rounds));
    MEED_TRY(get_integer(object, "budget", &entry->budget));
    MEED_TRY(keep_text(object, "aggregation", MEED_LIMIT_WORD_BYTES, arena, &entry->aggregation));
    MEED_TRY(keep_text(object, "estimator", MEED_LIMIT_WORD_BYTES, arena, &entry->estimator));
    MEED_TRY(keep_text(object, "payment", MEED_LIMIT_WORD_BYTES, arena, &entry->payment));
    if (rounds < 1 || rounds > MEED_LIMIT_ROUNDS) {
        return body_failed("rounds");
    }
    entry->rounds = (int32_t)rounds;
    return read_ids(object, arena, entry);
}

enum meed_status meed_ledger_parse_genesis(const char *body, size_t size, struct meed_arena *arena,
                                           struct meed_ledger_genesis *entry)
{
    json_t *object = NULL;
    MEED_TRY(load(body, size, &object));
    struct meed_ledger_genesis read = {.run_id = NULL};
    enum meed_status st = read_genesis(object, arena, &read);
    json_decref(object);
    if (st == MEED_OK) {
        *entry = read;
    }
    return st;
}

enum meed_status meed_ledger_parse_abandoned(const char *body, size_t size,
                                             struct meed_ledger_abandoned *entry)
{
    enum meed_status st = MEED_OK;
    json_t *object = NULL;
    struct meed_ledger_abandoned read = {.round = 0};
    MEED_TRY(load(body, size, &object));
    MEED_TRY_OUT(check_kind(object, MEED_LEDGER_ABANDONED));
    MEED_TRY_OUT(get_text(object, "run", read.run_id, sizeof read.run_id));
    MEED_TRY_OUT(get_round_number(object, &read.round));
    MEED_TRY_OUT(get_hash(object, "before", read.before_hash));
    MEED_TRY_OUT(get_text(object, "reason", read.reason, sizeof read.reason));
    *entry = read;
out:
    json_decref(object);
    return st;
}

static enum meed_status read_final(const json_t *object, struct meed_arena *arena,
                                   struct meed_ledger_final *entry)
{
    void *block = NULL;
    const json_t *totals = json_object_get(object, "totals");
    MEED_TRY(check_kind(object, MEED_LEDGER_FINAL));
    MEED_TRY(get_text(object, "run", entry->run_id, sizeof entry->run_id));
    MEED_TRY(get_hash(object, "adapter", entry->adapter_hash));
    if (!json_is_array(totals) || json_array_size(totals) > MEED_LIMIT_CLIENTS) {
        return body_failed("totals");
    }
    entry->total_count = (int32_t)json_array_size(totals);
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)entry->total_count + 1, sizeof *entry->totals,
                                    &block));
    entry->totals = block;
    for (int32_t i = 0; i < entry->total_count; i++) {
        const json_t *total = json_array_get(totals, (size_t)i);
        struct meed_ledger_total *line = &entry->totals[i];
        MEED_TRY(get_text(total, "id", line->id, sizeof line->id));
        MEED_TRY(get_integer(total, "share", &line->share));
    }
    return MEED_OK;
}

enum meed_status meed_ledger_parse_final(const char *body, size_t size, struct meed_arena *arena,
                                         struct meed_ledger_final *entry)
{
    json_t *object = NULL;
    MEED_TRY(load(body, size, &object));
    struct meed_ledger_final read = {.total_count = 0};
    enum meed_status st = read_final(object, arena, &read);
    json_decref(object);
    if (st == MEED_OK) {
        *entry = read;
    }
    return st;
}

/* ---- the head -------------------------------------------------------------------------------- */

static enum meed_status read_head(const json_t *object, const char *body, size_t size,
                                  struct meed_ledger_head *head)
{
    char kind[16];
    MEED_TRY(get_integer(object, "index", &head->index));
    MEED_TRY(get_hash(object, "prev", head->prev_hash));
    MEED_TRY(get_text(object, "kind", kind, sizeof kind));
    int found = 0;
    while (found < MEED_LEDGER_KIND_COUNT && strcmp(kind, kind_names[found]) != 0) {
        found++;
    }
    if (found == MEED_LEDGER_KIND_COUNT) {
        return body_failed("kind");
    }
    head->kind = (enum meed_ledger_kind)found;
    head->round = 0;
    if (head->kind == MEED_LEDGER_ABANDONED) {
        return get_round_number(object, &head->round);
    }
    if (head->kind != MEED_LEDGER_ROUND) {
        return MEED_OK;
    }
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    struct meed_ledger_round entry;
    enum meed_status st = meed_ledger_parse_round(body, size, &arena, &entry);
    meed_arena_clear(&arena);
    if (st == MEED_OK) {
        head->round = entry.round;
    }
    return st;
}

enum meed_status meed_ledger_body_head(const char *body, size_t size, struct meed_ledger_head *head)
{
    json_t *object = NULL;
    MEED_TRY(load(body, size, &object));
    enum meed_status st = read_head(object, body, size, head);
    json_decref(object);
    return st;
}
