/* See settle.h: preparation, screening, valuation. */
#include "server/settle_private.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "server/report_json.h"
#include "server/terms_text.h"

enum { RESULT_MAX_BYTES = 256 << 20 };

/* ---- preparation ----------------------------------------------------------------------------- */

static enum meed_status check_terms(const struct meed_terms *terms, struct meed_store *store)
{
    struct meed_buf stored;
    meed_buf_init(&stored, 4096);
    enum meed_status st = meed_store_get(store, "terms", &stored);
    if (st == MEED_NOT_FOUND) {
        st = meed_store_set(store, "terms", terms->hash, sizeof terms->hash);
    } else if (st == MEED_OK && (stored.size != sizeof terms->hash ||
                                 memcmp(stored.data, terms->hash, sizeof terms->hash) != 0)) {
        st = MEED_FAIL(MEED_STATE,
                       "%s holds a run on other terms (model, benchmark, clients, plan, "
                       "budget or seed); start it as before or choose another folder",
                       meed_store_folder(store));
    }
    meed_buf_clear(&stored);
    return st;
}

/* Free with meed_heap_free. */
static enum meed_status list_ids(const struct meed_registry *registry, const char ***ids)
{
    int32_t count = meed_registry_count(registry);
    *ids = meed_heap_alloc((size_t)count, sizeof **ids);
    for (int32_t i = 0; *ids && i < count; i++) {
        (*ids)[i] = meed_registry_id(registry, i);
    }
    return *ids ? MEED_OK : MEED_NOMEM;
}

/* A path as it is found from anywhere. */
static enum meed_status keep_path(struct meed_store *store, const char *key, const char *path)
{
    char whole[PATH_MAX];
    const char *kept = realpath(path, whole) ? whole : path;
    return meed_store_set(store, key, kept, strlen(kept));
}

/* What who verifies needs beside blobs and ledger: the terms' text, and where to look for the rest.
 */
static enum meed_status keep_terms(const struct meed_terms *terms, struct meed_store *store,
                                   const struct meed_registry *registry)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    const char **ids = NULL;
    struct meed_buf text;
    meed_buf_init(&text, MEED_TERMS_TEXT_MAX_BYTES);
    MEED_TRY_OUT(list_ids(registry, &ids));
    MEED_TRY_OUT(meed_terms_text_write(terms, ids, meed_registry_count(registry), &text));
    MEED_TRY_OUT(meed_file_join(meed_store_folder(store), MEED_TERMS_TEXT_FILE, path, sizeof path));
    MEED_TRY_OUT(meed_file_write_atomic(path, text.data, text.size));
    MEED_TRY_OUT(keep_path(store, MEED_STORE_MODEL, terms->base_model));
    MEED_TRY_OUT(keep_path(store, MEED_STORE_BENCHMARK, terms->benchmark_path));
    MEED_TRY_OUT(keep_path(store, MEED_STORE_DATA, terms->data_path));
    MEED_TRY_OUT(meed_store_set(store, MEED_STORE_MACHINE, terms->machine, strlen(terms->machine)));
out:
    meed_heap_free(ids);
    meed_buf_clear(&text);
    return st;
}

static enum meed_status write_genesis(const struct meed_terms *terms, struct meed_ledger *ledger,
                                      const struct meed_registry *registry,
                                      const uint8_t start_hash[MEED_SHA256_BYTES])
{
    const char **ids = NULL;
    MEED_TRY(list_ids(registry, &ids));
    struct meed_ledger_genesis entry = {.run_id = terms->run_id,
                                        .clients = ids,
                                        .client_count = meed_registry_count(registry),
                                        .rounds = terms->rounds,
                                        .budget = terms->budget,
                                        .aggregation = meed_aggregate_name(terms->aggregation),
                                        .estimator = terms->estimator,
                                        .payment = terms->payment};
    memcpy(entry.model_hash, terms->model_hash, MEED_SHA256_BYTES);
    memcpy(entry.benchmark_hash, terms->benchmark_hash, MEED_SHA256_BYTES);
    memcpy(entry.start_hash, start_hash, MEED_SHA256_BYTES);
    memcpy(entry.config_hash, terms->hash, MEED_SHA256_BYTES);
    enum meed_status st = meed_ledger_append_genesis(ledger, &entry);
    meed_heap_free(ids);
    return st;
}

enum meed_status meed_settle_prepare(const struct meed_terms *terms, struct meed_store *store,
                                     struct meed_ledger *ledger,
                                     const struct meed_registry *registry)
{
    enum meed_status st = MEED_OK;
    struct meed_adapter *start = NULL;
    struct meed_buf packed;
    struct meed_store_progress progress = {.round = 1};
    meed_buf_init(&packed, MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(check_terms(terms, store));
    MEED_TRY_OUT(keep_terms(terms, store, registry));
    st = meed_store_load_progress(store, &progress);
    if (st != MEED_NOT_FOUND) {
        goto out;
    }
    MEED_TRY_OUT(meed_adapter_create(&terms->model, &terms->lora, &start));
    meed_adapter_init(start, terms->seed);
    MEED_TRY_OUT(meed_adapter_pack(start, &packed));
    MEED_TRY_OUT(meed_store_put_blob(store, packed.data, packed.size, progress.adapter_hash));
    if (meed_ledger_count(ledger) == 0) {
        MEED_TRY_OUT(write_genesis(terms, ledger, registry, progress.adapter_hash));
    }
    progress.phase = MEED_ROUND_OPEN;
    MEED_TRY_OUT(meed_store_save_progress(store, &progress));
out:
    meed_adapter_destroy(start);
    meed_buf_clear(&packed);
    return st;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum meed_status meed_settle_create(const struct meed_settle_config *config,
                                    struct meed_settle **settle)
{
    enum meed_status st = MEED_OK;
    struct meed_buf seconds;
    meed_buf_init(&seconds, 64);
    struct meed_settle *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->config = *config;
    made->basis = (struct meed_settlement_basis){.terms = config->terms,
                                                 .registry = config->registry,
                                                 .store = config->store,
                                                 .ledger = config->ledger,
                                                 .pool = config->pool,
                                                 .value = config->value,
                                                 .value_user = config->value_user,
                                                 .align = config->align,
                                                 .align_user = config->align_user};
    made->start_ns = meed_clock_monotonic_ns();
    made->counts.retained_energy = 1.0;
    pthread_mutex_init(&made->counts_lock, NULL);
    made->totals =
        meed_heap_alloc((size_t)meed_registry_count(config->registry), sizeof *made->totals);
    if (!made->totals) {
        st = MEED_NOMEM;
        goto out;
    }
    if (meed_store_get(config->store, "seconds", &seconds) == MEED_OK &&
        seconds.size == sizeof made->seconds_before) {
        memcpy(&made->seconds_before, seconds.data, sizeof made->seconds_before);
    }
    MEED_TRY_OUT(meed_settle_sum_up(made));
    *settle = made;
    made = NULL;
out:
    meed_buf_clear(&seconds);
    meed_settle_destroy(made);
    return st;
}

void meed_settle_destroy(struct meed_settle *settle)
{
    if (settle) {
        meed_cohort_destroy(settle->cohort);
        meed_heap_free(settle->totals);
        pthread_mutex_destroy(&settle->counts_lock);
        meed_heap_free(settle);
    }
}

void meed_settle_counts(struct meed_settle *settle, struct meed_settle_counts *counts)
{
    pthread_mutex_lock(&settle->counts_lock);
    *counts = settle->counts;
    pthread_mutex_unlock(&settle->counts_lock);
}

enum meed_status meed_settle_cohort(struct meed_settle *settle,
                                    const struct meed_service_state *state,
                                    struct meed_cohort **cohort)
{
    if (settle->cohort && settle->cohort->round != state->round) {
        meed_cohort_destroy(settle->cohort);
        settle->cohort = NULL;
    }
    if (!settle->cohort) {
        MEED_TRY(meed_cohort_load(settle->config.terms, settle->config.store, state->round,
                                  state->adapter_hash, &settle->cohort));
    }
    *cohort = settle->cohort;
    return MEED_OK;
}

/* A stored result of exactly this size, in the arena; *result stays NULL if there is none. */
static enum meed_status load_result(struct meed_settle *settle, int32_t round, const char *stage,
                                    size_t size, struct meed_arena *arena, void **result)
{
    struct meed_buf stored;
    void *block = NULL;
    meed_buf_init(&stored, RESULT_MAX_BYTES);
    enum meed_status st = meed_store_load_stage(settle->config.store, round, stage, &stored);
    if (st == MEED_OK && stored.size == size) {
        st = meed_arena_alloc(arena, size, &block);
        if (st == MEED_OK && size > 0) {
            memcpy(block, stored.data, size);
            *result = block;
        }
    } else if (st == MEED_NOT_FOUND) {
        st = MEED_OK;
    }
    meed_buf_clear(&stored);
    return st;
}

/* ---- SCREEN ---------------------------------------------------------------------------------- */

enum meed_status meed_settle_screened(struct meed_settle *settle, struct meed_cohort *cohort,
                                      struct meed_arena *arena,
                                      struct meed_defence_client **verdicts)
{
    void *found = NULL;
    size_t size = (size_t)cohort->count * sizeof **verdicts;
    MEED_TRY(load_result(settle, cohort->round, MEED_REPORT_STAGE_SCREENED, size, arena, &found));
    if (!found) {
        MEED_TRY(meed_arena_alloc(arena, MEED_MAX(size, 1), &found));
        MEED_TRY(meed_settlement_screen(&settle->basis, cohort, found));
        MEED_TRY(meed_store_save_stage(settle->config.store, cohort->round,
                                       MEED_REPORT_STAGE_SCREENED, found, size));
    }
    *verdicts = found;
    return MEED_OK;
}

static void sum_up_screen(struct meed_settle *settle, const struct meed_cohort *cohort,
                          const struct meed_defence_client *verdicts)
{
    int32_t clipped = 0, excluded = 0;
    for (int32_t i = 0; i < cohort->count; i++) {
        clipped += verdicts[i].verdict == MEED_DEFENCE_CLIP;
        excluded += verdicts[i].verdict == MEED_DEFENCE_EXCLUDE;
        meed_board_score(settle->config.board,
                         meed_registry_find(settle->config.registry, cohort->names[i]),
                         verdicts[i].score);
        if (verdicts[i].reason[0]) {
            MEED_LOG_INFO("server", "round %d: %s: %s", cohort->round, cohort->names[i],
                          verdicts[i].reason);
        }
    }
    pthread_mutex_lock(&settle->counts_lock);
    settle->counts.clipped += clipped;
    settle->counts.excluded += excluded;
    pthread_mutex_unlock(&settle->counts_lock);
    struct meed_aggregator_event event = {
        .kind = MEED_AGGREGATOR_SCREENED, .round = cohort->round, .client = -1};
    snprintf(event.text, sizeof event.text, "%d updates, %d excluded, %d clipped", cohort->count,
             excluded, clipped);
    meed_board_emit(settle->config.board, &event);
}

static enum meed_status stage_screen(struct meed_settle *settle,
                                     const struct meed_service_state *state)
{
    enum meed_status st = MEED_OK;
    struct meed_cohort *cohort = NULL;
    struct meed_defence_client *verdicts = NULL;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "round", MEED_SETTLE_ARENA_BYTES);
    meed_settle_fault(settle, "screen");
    struct meed_aggregator_event event = {
        .kind = MEED_AGGREGATOR_CLOSED, .round = state->round, .client = -1};
    meed_board_emit(settle->config.board, &event);
    MEED_TRY_OUT(meed_settle_cohort(settle, state, &cohort));
    MEED_LOG_INFO("server", "round %d: screening %d updates", state->round, cohort->count);
    MEED_TRY_OUT(meed_settle_screened(settle, cohort, &arena, &verdicts));
    meed_settle_fault(settle, "screen.stored");
    sum_up_screen(settle, cohort, verdicts);
    MEED_TRY_OUT(meed_service_advance(settle->config.service, MEED_ROUND_EVENT_SCREENED, NULL));
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- VALUE ----------------------------------------------------------------------------------- */

/* The stored form: value, then clients. */
struct stored_value {
    struct meed_settle_value value;
    int32_t players;
};

enum meed_status meed_settle_valued(struct meed_settle *settle, struct meed_cohort *cohort,
                                    const struct meed_defence_client *verdicts,
                                    struct meed_arena *arena, struct meed_settlement_valued *valued)
{
    void *found = NULL;
    MEED_TRY(meed_settlement_players(cohort, verdicts, arena, valued));
    size_t size =
        sizeof(struct stored_value) + (size_t)valued->players * sizeof(struct meed_value_client);
    MEED_TRY(load_result(settle, cohort->round, "valued", size, arena, &found));
    bool stored = found != NULL;
    if (!stored) {
        MEED_TRY(meed_arena_alloc(arena, size, &found));
    }
    struct stored_value *head = found;
    valued->clients = (struct meed_value_client *)(void *)(head + 1);
    if (stored) {
        valued->value = head->value;
        return MEED_OK;
    }
    MEED_TRY(meed_settlement_value(&settle->basis, cohort, verdicts, arena, valued));
    *head = (struct stored_value){valued->value, valued->players};
    pthread_mutex_lock(&settle->counts_lock);
    settle->counts.coalitions += valued->value.coalitions;
    settle->counts.tokens += valued->value.tokens;
    pthread_mutex_unlock(&settle->counts_lock);
    return meed_store_save_stage(settle->config.store, cohort->round, "valued", found, size);
}

static enum meed_status stage_value(struct meed_settle *settle,
                                    const struct meed_service_state *state)
{
    enum meed_status st = MEED_OK;
    struct meed_cohort *cohort = NULL;
    struct meed_defence_client *verdicts = NULL;
    struct meed_settlement_valued valued;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "round", MEED_SETTLE_ARENA_BYTES);
    meed_settle_fault(settle, "value");
    MEED_TRY_OUT(meed_settle_cohort(settle, state, &cohort));
    MEED_TRY_OUT(meed_settle_screened(settle, cohort, &arena, &verdicts));
    MEED_LOG_INFO("server", "round %d: valuing %d updates", state->round, cohort->count);
    MEED_TRY_OUT(meed_settle_valued(settle, cohort, verdicts, &arena, &valued));
    meed_settle_fault(settle, "value.stored");
    for (int32_t i = 0; i < valued.players; i++) {
        const char *name = cohort->names[valued.cohort_idx[i]];
        meed_board_judged(settle->config.board, meed_registry_find(settle->config.registry, name),
                          valued.clients[i].score);
    }
    MEED_TRY_OUT(meed_service_advance(settle->config.service, MEED_ROUND_EVENT_VALUED, NULL));
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- the table ------------------------------------------------------------------------------- */

enum meed_status meed_settle_stage(struct meed_settle *settle,
                                   const struct meed_service_state *state)
{
    int64_t start_ns = meed_clock_monotonic_ns();
    enum meed_status st = MEED_OK;
    switch (state->phase) {
    case MEED_ROUND_SCREEN:
        st = stage_screen(settle, state);
        break;
    case MEED_ROUND_VALUE:
        st = stage_value(settle, state);
        break;
    case MEED_ROUND_SETTLE:
        st = meed_settle_pay(settle, state);
        break;
    case MEED_ROUND_PUBLISH:
        st = meed_settle_publish(settle, state);
        break;
    case MEED_ROUND_ABANDON:
        st = meed_settle_abandon(settle, state);
        break;
    default:
        return MEED_OK;
    }
    pthread_mutex_lock(&settle->counts_lock);
    double seconds = meed_clock_seconds_since(start_ns);
    settle->counts.last_seconds =
        state->phase == MEED_ROUND_SCREEN ? seconds : settle->counts.last_seconds + seconds;
    pthread_mutex_unlock(&settle->counts_lock);
    return st;
}
