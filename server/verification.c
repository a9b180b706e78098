/* See verification.h: the run as a whole. */
#include "server/verification_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "server/round.h"
#include "server/terms_text.h"

/* ---- words ----------------------------------------------------------------------------------- */

const char *meed_verification_part_name(enum meed_verification_part part)
{
    static const char *const names[MEED_VERIFICATION_PART_COUNT] = {
        "chain", "evidence", "screening", "values", "pay", "aggregate"};
    return part >= 0 && part < MEED_VERIFICATION_PART_COUNT ? names[part] : "?";
}

enum meed_verification_state meed_verification_state_of(const struct meed_verification_round *round)
{
    enum meed_verification_state state = MEED_VERIFICATION_GOOD;
    for (int p = 0; p < MEED_VERIFICATION_PART_COUNT; p++) {
        if (round->parts[p] == MEED_VERIFICATION_WRONG) {
            return MEED_VERIFICATION_WRONG;
        }
        if (round->parts[p] == MEED_VERIFICATION_NOT_KEPT) {
            state = MEED_VERIFICATION_NOT_KEPT;
        }
    }
    return state;
}

void meed_verification_tell(const struct meed_verification_at *at,
                            enum meed_verification_state state, const char *format, ...)
{
    struct meed_verification_round *round = at->round;
    char place[64] = "the end of the run";
    va_list args;
    if (round->round > 0) {
        snprintf(place, sizeof place, "round %d", round->round);
    }
    int used = snprintf(round->text, sizeof round->text, "%s%s%s: ", place, at->client ? ", " : "",
                        at->client ? at->client : "");
    va_start(args, format);
    vsnprintf(round->text + used, sizeof round->text - (size_t)used, format, args);
    va_end(args);
    round->parts[at->part] = state;
}

bool meed_verification_agree_text(const struct meed_verification_at *at, const char *what,
                                  const char *says, const char *found)
{
    if (strcmp(says, found) == 0) {
        return true;
    }
    meed_verification_tell(at, MEED_VERIFICATION_WRONG,
                           "%s: the ledger says %.400s, recomputed is %.400s", what,
                           says[0] ? says : "nothing", found[0] ? found : "nothing");
    return false;
}

bool meed_verification_agree_hash(const struct meed_verification_at *at, const char *what,
                                  const uint8_t *says, const uint8_t *found)
{
    char said[MEED_SHA256_HEX_BYTES], made[MEED_SHA256_HEX_BYTES];
    if (memcmp(says, found, MEED_SHA256_BYTES) == 0) {
        return true;
    }
    meed_sha256_hex(says, said);
    meed_sha256_hex(found, made);
    meed_verification_tell(at, MEED_VERIFICATION_WRONG,
                           "%s: the ledger says %.16s…, recomputed is %.16s…", what, said, made);
    return false;
}

bool meed_verification_agree_integer(const struct meed_verification_at *at, const char *what,
                                     int64_t says, int64_t found)
{
    char said[32], made[32];
    snprintf(said, sizeof said, "%lld", (long long)says);
    snprintf(made, sizeof made, "%lld", (long long)found);
    return meed_verification_agree_text(at, what, said, made);
}

bool meed_verification_agree_real(const struct meed_verification_at *at, const char *what,
                                  double says, double found)
{
    char said[40], made[40];
    if (says == found) {
        return true;
    }
    snprintf(said, sizeof said, "%.17g", says);
    snprintf(made, sizeof made, "%.17g", found);
    return meed_verification_agree_text(at, what, said, made);
}

/* ---- entries --------------------------------------------------------------------------------- */

static enum meed_status read_body(const struct meed_verification *v, int64_t index,
                                  struct meed_ledger_place *place, struct meed_buf *body)
{
    meed_buf_init(body, MEED_LIMIT_LEDGER_BODY_BYTES);
    return meed_ledger_read(v->ledger, index, place, body);
}

enum meed_status meed_verification_entry(const struct meed_verification *v, int32_t round,
                                         struct meed_arena *arena, struct meed_ledger_round *entry)
{
    struct meed_ledger_place place;
    if (!meed_ledger_find(v->ledger, round, &place)) {
        return MEED_FAIL(MEED_NOT_FOUND, "the ledger has no round %d", round);
    }
    return meed_ledger_read_round(v->ledger, place.index, arena, entry);
}

enum meed_status meed_verification_after(const struct meed_verification *v, int32_t round,
                                         uint8_t hash[MEED_SHA256_BYTES])
{
    enum meed_status st = MEED_OK;
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    struct meed_ledger_abandoned abandoned;
    struct meed_arena arena;
    struct meed_buf body;
    if (round == 0 || !meed_ledger_find(v->ledger, round, &place)) {
        memcpy(hash, v->genesis.start_hash, MEED_SHA256_BYTES);
        return MEED_OK;
    }
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    MEED_TRY_OUT(read_body(v, place.index, &place, &body));
    if (place.kind == MEED_LEDGER_ROUND) {
        MEED_TRY_OUT(meed_ledger_parse_round(body.data, body.size, &arena, &entry));
        memcpy(hash, entry.after_hash, MEED_SHA256_BYTES);
    } else {
        MEED_TRY_OUT(meed_ledger_parse_abandoned(body.data, body.size, &abandoned));
        memcpy(hash, abandoned.before_hash, MEED_SHA256_BYTES);
    }
out:
    meed_buf_clear(&body);
    meed_arena_clear(&arena);
    return st;
}

/* ---- open ------------------------------------------------------------------------------------ */

/* Genesis, rounds 1, 2, … without a gap, nothing behind a final entry. */
static enum meed_status check_order(struct meed_verification *v)
{
    int64_t count = meed_ledger_count(v->ledger);
    for (int64_t i = 0; i < count; i++) {
        struct meed_ledger_place place;
        struct meed_buf body;
        enum meed_status st = read_body(v, i, &place, &body);
        if (st == MEED_OK && i == 0) {
            st = meed_ledger_parse_genesis(body.data, body.size, &v->arena, &v->genesis);
        }
        meed_buf_clear(&body);
        MEED_TRY(st);
        bool first = place.kind == MEED_LEDGER_GENESIS;
        bool round = place.kind == MEED_LEDGER_ROUND || place.kind == MEED_LEDGER_ABANDONED;
        if (first != (i == 0) || v->finished || (round && place.round != v->rounds + 1)) {
            return MEED_FAIL(MEED_INTEGRITY,
                             "entry %lld: after round %d comes %s%.0d, which is not the order of "
                             "a run: an entry was removed, doubled or moved",
                             (long long)i, v->rounds,
                             first    ? "another beginning"
                             : !round ? "an end"
                                      : "round ",
                             place.round);
        }
        v->rounds += round;
        v->finished = place.kind == MEED_LEDGER_FINAL;
    }
    if (count == 0) {
        return MEED_FAIL(MEED_NOT_FOUND, "the ledger is empty");
    }
    return MEED_OK;
}

/* The store has seen these rounds end: the ledger must speak of each. */
static enum meed_status check_length(const struct meed_verification *v)
{
    struct meed_store_progress progress;
    enum meed_status st = meed_store_load_progress(v->store, &progress);
    if (st == MEED_NOT_FOUND) {
        return MEED_OK;
    }
    MEED_TRY(st);
    bool finished = progress.phase == MEED_ROUND_FINISHED;
    if (v->rounds < progress.round - (finished ? 0 : 1) || (finished && !v->finished)) {
        return MEED_FAIL(MEED_INTEGRITY,
                         "the ledger ends after round %d%s, but the run has got to round %d%s: "
                         "entries were removed from its end",
                         v->rounds, v->finished ? "" : " without a final entry", progress.round,
                         finished ? " and ended" : "");
    }
    return MEED_OK;
}

static enum meed_status terms_differ(const char *what)
{
    return MEED_FAIL(MEED_INTEGRITY, "entry 0: its %s is not that of the terms whose hash it names",
                     what);
}

/* The genesis entry repeats some terms for people; it must not say otherwise. */
static enum meed_status check_genesis(const struct meed_verification *v, const char *const *clients,
                                      int32_t count)
{
    const struct meed_ledger_genesis *genesis = &v->genesis;
    const struct meed_terms *terms = &v->terms;
    if (strcmp(genesis->run_id, terms->run_id) != 0) {
        return terms_differ("run");
    }
    if (memcmp(genesis->model_hash, terms->model_hash, MEED_SHA256_BYTES) != 0 ||
        memcmp(genesis->benchmark_hash, terms->benchmark_hash, MEED_SHA256_BYTES) != 0) {
        return terms_differ("model or benchmark");
    }
    if (genesis->rounds != terms->rounds || genesis->budget != terms->budget) {
        return terms_differ("number of rounds or budget");
    }
    if (strcmp(genesis->aggregation, meed_aggregate_name(terms->aggregation)) != 0 ||
        strcmp(genesis->estimator, terms->estimator) != 0 ||
        strcmp(genesis->payment, terms->payment) != 0) {
        return terms_differ("aggregation, estimator or payment");
    }
    bool same = genesis->client_count == count;
    for (int32_t i = 0; same && i < count; i++) {
        same = strcmp(genesis->clients[i], clients[i]) == 0;
    }
    return same ? MEED_OK : terms_differ("list of clients");
}

static enum meed_status read_terms(struct meed_verification *v)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    uint8_t digest[MEED_SHA256_BYTES];
    const char *const *clients = NULL;
    int32_t count = 0;
    struct meed_buf text;
    meed_buf_init(&text, MEED_TERMS_TEXT_MAX_BYTES);
    MEED_TRY_OUT(meed_file_join(v->folder, MEED_TERMS_TEXT_FILE, path, sizeof path));
    if (!meed_file_exists(path)) {
        goto out;
    }
    MEED_TRY_OUT(meed_file_read(path, &text));
    meed_sha256(text.data, text.size, digest);
    if (memcmp(digest, v->genesis.config_hash, sizeof digest) != 0) {
        st = MEED_FAIL(MEED_INTEGRITY,
                       "%s does not hold the terms whose hash the ledger's first "
                       "entry names",
                       path);
        goto out;
    }
    MEED_TRY_OUT(
        meed_terms_text_read(text.data, text.size, &v->arena, &v->terms, &clients, &count));
    MEED_TRY_OUT(check_genesis(v, clients, count));
    MEED_TRY_OUT(meed_registry_create(clients, count, true, &v->registry));
    v->known = true;
out:
    meed_buf_clear(&text);
    return st;
}

static enum meed_status open_all(struct meed_verification *v, const uint8_t *public_key)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(v->folder, "ledger.jsonl", path, sizeof path));
    MEED_TRY(meed_ledger_open_read(path, public_key, &v->ledger));
    MEED_TRY(check_order(v));
    MEED_TRY(read_terms(v));
    MEED_TRY(meed_file_join(v->folder, "state.db", path, sizeof path));
    if (!meed_file_exists(path)) {
        return MEED_OK;
    }
    MEED_TRY(meed_store_open_copy(v->folder, &v->store));
    return check_length(v);
}

enum meed_status meed_verification_open(const char *state,
                                        const uint8_t public_key[MEED_SIGNATURE_KEY_BYTES],
                                        struct meed_verification **verification)
{
    struct meed_verification *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "run", MEED_LIMIT_CLIENTS * 1024u);
    enum meed_status st = MEED_OK;
    if (snprintf(made->folder, sizeof made->folder, "%s", state) >= (int)sizeof made->folder) {
        st = MEED_FAIL(MEED_LIMIT, "the folder's path is too long: %.80s…", state);
    } else {
        st = open_all(made, public_key);
    }
    if (st != MEED_OK) {
        meed_verification_close(made);
        return st;
    }
    *verification = made;
    return MEED_OK;
}

void meed_verification_close(struct meed_verification *v)
{
    if (v) {
        meed_ledger_close(v->ledger);
        meed_store_close(v->store);
        meed_registry_destroy(v->registry);
        meed_arena_clear(&v->arena);
        meed_heap_free(v);
    }
}

/* ---- facts and tools ------------------------------------------------------------------------- */

static void read_hint(const struct meed_verification *v, const char *key, char *text, size_t size)
{
    struct meed_buf value;
    meed_buf_init(&value, MEED_PATH_BYTES);
    text[0] = '\0';
    if (v->store && meed_store_get(v->store, key, &value) == MEED_OK && value.size < size) {
        snprintf(text, size, "%s", value.data ? value.data : "");
    }
    meed_buf_clear(&value);
}

/* fltrust and repair train on the operator's data. */
static bool wants_data(const struct meed_verification *v)
{
    return v->known && (v->terms.repair_steps > 0 ||
                        meed_aggregate_traits(v->terms.aggregation)->wants_reference);
}

void meed_verification_facts(const struct meed_verification *v,
                             struct meed_verification_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    snprintf(facts->run_id, sizeof facts->run_id, "%s", v->genesis.run_id);
    facts->entries = meed_ledger_count(v->ledger);
    facts->rounds = v->rounds;
    meed_ledger_head(v->ledger, facts->head);
    facts->known = v->known && v->store;
    read_hint(v, MEED_STORE_MODEL, facts->model, sizeof facts->model);
    read_hint(v, MEED_STORE_BENCHMARK, facts->benchmark, sizeof facts->benchmark);
    read_hint(v, MEED_STORE_DATA, facts->data, sizeof facts->data);
    facts->plan = v->known ? &v->terms.plan : NULL;
    facts->data_hash = wants_data(v) ? v->terms.align_hash : NULL;
}

enum meed_status meed_verification_equip(struct meed_verification *v,
                                         const struct meed_verification_tools *tools)
{
    MEED_ASSERT(v->known && v->store);
    if (memcmp(tools->checkpoint->hash, v->terms.model_hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_VERSION, "the model is not the run's: name the run's own by --model");
    }
    if (memcmp(tools->benchmark->hash, v->terms.benchmark_hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_VERSION,
                         "the benchmark is not the run's: name the run's own by --benchmark");
    }
    struct meed_terms *terms = &v->terms;
    terms->model = tools->checkpoint->config;
    terms->axis_count = MEED_MIN(tools->benchmark->axis_count, MEED_BENCHMARK_MAX_AXES);
    memcpy(terms->axes, tools->benchmark->axes, (size_t)terms->axis_count * sizeof *terms->axes);
    read_hint(v, MEED_STORE_MACHINE, v->machine, sizeof v->machine);
    v->tools = *tools;
    v->appraisal = (struct meed_appraisal){.be = tools->be,
                                           .checkpoint = tools->checkpoint,
                                           .benchmark = tools->benchmark,
                                           .value = &terms->value,
                                           .batch_tokens = meed_valuation_defaults().batch_tokens,
                                           .progress = tools->progress,
                                           .progress_user = tools->progress_user};
    v->basis = (struct meed_settlement_basis){.terms = terms,
                                              .registry = v->registry,
                                              .store = v->store,
                                              .ledger = v->ledger,
                                              .pool = tools->pool,
                                              .value = meed_appraisal_run,
                                              .value_user = &v->appraisal,
                                              .align = tools->align,
                                              .align_user = tools->align_user};
    return MEED_OK;
}

/* ---- the end of the run ---------------------------------------------------------------------- */

/* sums [genesis.client_count]: shares over the rounds of the ledger. Both lists are in id order. */
static enum meed_status sum_up(const struct meed_verification *v, int64_t *sums)
{
    enum meed_status st = MEED_OK;
    struct meed_arena arena;
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    for (int32_t round = 1; round <= v->rounds; round++) {
        if (!meed_ledger_find(v->ledger, round, &place) || place.kind != MEED_LEDGER_ROUND) {
            continue;
        }
        meed_arena_reset(&arena);
        MEED_TRY_OUT(meed_verification_entry(v, round, &arena, &entry));
        for (int32_t i = 0, at = 0; i < entry.client_count; i++) {
            while (at < v->genesis.client_count &&
                   strcmp(v->genesis.clients[at], entry.clients[i].id) < 0) {
                at++;
            }
            if (at < v->genesis.client_count &&
                strcmp(v->genesis.clients[at], entry.clients[i].id) == 0) {
                sums[at] += entry.clients[i].share;
            }
        }
    }
out:
    meed_arena_clear(&arena);
    return st;
}

static enum meed_status check_totals(const struct meed_verification *v,
                                     const struct meed_ledger_final *final,
                                     struct meed_verification_round *found)
{
    struct meed_verification_at at = {found, MEED_VERIFICATION_PAY, NULL};
    int64_t *sums = meed_heap_alloc((size_t)v->genesis.client_count + 1, sizeof *sums);
    if (!sums) {
        return MEED_NOMEM;
    }
    enum meed_status st = sum_up(v, sums);
    bool good = st == MEED_OK &&
                meed_verification_agree_integer(&at, "clients with a total", final->total_count,
                                                v->genesis.client_count);
    for (int32_t i = 0; good && i < final->total_count; i++) {
        at.client = v->genesis.clients[i];
        good = meed_verification_agree_text(&at, "id", final->totals[i].id, at.client) &&
               meed_verification_agree_integer(&at, "total", final->totals[i].share, sums[i]);
    }
    if (good) {
        found->parts[at.part] = MEED_VERIFICATION_GOOD;
    }
    meed_heap_free(sums);
    return st;
}

/* The folder that people load must hold the adapter that the ledger ends with. */
static enum meed_status check_published(const struct meed_verification *v,
                                        const uint8_t hash[MEED_SHA256_BYTES],
                                        struct meed_verification_round *found)
{
    struct meed_verification_at at = {found, MEED_VERIFICATION_AGGREGATE, NULL};
    struct meed_adapter *adapter = NULL;
    char path[MEED_PATH_BYTES];
    uint8_t published[MEED_SHA256_BYTES];
    MEED_TRY(meed_file_join(v->folder, "adapter", path, sizeof path));
    if (!v->tools.checkpoint || !meed_file_exists(path)) {
        meed_verification_tell(&at, MEED_VERIFICATION_NOT_KEPT,
                               "the published adapter is not there to be compared");
        return MEED_OK;
    }
    if (meed_adapter_load(path, &v->terms.model, &adapter) != MEED_OK) {
        meed_verification_tell(&at, MEED_VERIFICATION_WRONG, "the published adapter: %.500s",
                               meed_last_error());
        return MEED_OK;
    }
    enum meed_status st = meed_adapter_hash(adapter, published);
    meed_adapter_destroy(adapter);
    if (st == MEED_OK &&
        meed_verification_agree_hash(&at, "the adapter in the folder adapter/", hash, published)) {
        found->parts[at.part] = MEED_VERIFICATION_GOOD;
    }
    return st;
}

enum meed_status meed_verification_end(struct meed_verification *v,
                                       struct meed_verification_round *found)
{
    enum meed_status st = MEED_OK;
    struct meed_verification_at at = {found, MEED_VERIFICATION_CHAIN, NULL};
    struct meed_ledger_place place;
    struct meed_ledger_final final;
    struct meed_arena arena;
    struct meed_buf body = {.data = NULL};
    uint8_t last[MEED_SHA256_BYTES];
    memset(found, 0, sizeof *found);
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    if (!v->finished || !meed_ledger_find(v->ledger, 0, &place)) {
        goto out;
    }
    MEED_TRY_OUT(read_body(v, place.index, &place, &body));
    MEED_TRY_OUT(meed_ledger_parse_final(body.data, body.size, &arena, &final));
    MEED_TRY_OUT(meed_verification_after(v, v->rounds, last));
    if (meed_verification_agree_text(&at, "run", final.run_id, v->genesis.run_id) &&
        meed_verification_agree_hash(&at, "final adapter", final.adapter_hash, last)) {
        found->parts[at.part] = MEED_VERIFICATION_GOOD;
        MEED_TRY_OUT(check_totals(v, &final, found));
    }
    if (meed_verification_state_of(found) == MEED_VERIFICATION_GOOD) {
        MEED_TRY_OUT(check_published(v, last, found));
    }
out:
    meed_buf_clear(&body);
    meed_arena_clear(&arena);
    return st;
}
