/* See settle.h: aggregation and pay, publication, abandonment. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "evaluation/payment.h"
#include "server/report_json.h"
#include "server/settle_private.h"

/* ---- totals ---------------------------------------------------------------------------------- */

static void add_totals(struct meed_settle *settle, const struct meed_ledger_round *entry)
{
    for (int32_t i = 0; i < entry->client_count; i++) {
        int32_t client = meed_registry_find(settle->config.registry, entry->clients[i].id);
        if (client >= 0) {
            settle->totals[client] += entry->clients[i].share;
        }
    }
}

static enum meed_aggregator_seat seat_of(enum meed_receipt_state state)
{
    switch (state) {
    case MEED_RECEIPT_PAID:
        return MEED_SEAT_PAID;
    case MEED_RECEIPT_UNPAID:
        return MEED_SEAT_UNPAID;
    case MEED_RECEIPT_EXCLUDED:
        return MEED_SEAT_EXCLUDED;
    default:
        return MEED_SEAT_ABSENT;
    }
}

static void show_round(struct meed_settle *settle, const struct meed_ledger_round *entry)
{
    for (int32_t i = 0; i < entry->client_count; i++) {
        const struct meed_ledger_client *line = &entry->clients[i];
        struct meed_board_verdict verdict = {seat_of(line->state), line->phi,    line->se,
                                             line->share,          line->reason, line->remark};
        meed_board_verdict(settle->config.board, i, &verdict);
        meed_board_total(settle->config.board, i, settle->totals[i]);
    }
}

enum meed_status meed_settle_sum_up(struct meed_settle *settle)
{
    enum meed_status st = MEED_OK;
    struct meed_arena arena;
    struct meed_ledger_round entry;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    struct meed_ledger_place place;
    int32_t last = settle->config.terms->rounds;
    for (int32_t round = 1; round <= last; round++) {
        if (!meed_ledger_find(settle->config.ledger, round, &place)) {
            break;
        }
        if (place.kind == MEED_LEDGER_ROUND) {
            meed_arena_reset(&arena);
            MEED_TRY_OUT(
                meed_ledger_read_round(settle->config.ledger, place.index, &arena, &entry));
            add_totals(settle, &entry);
        }
    }
    for (int32_t i = 0; i < meed_registry_count(settle->config.registry); i++) {
        meed_board_total(settle->config.board, i, settle->totals[i]);
    }
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- SETTLE ---------------------------------------------------------------------------------- */

/* Once a round: if the ledger has the entry already (a crash after it was written), it must be the
 * one that is computed now. */
static enum meed_status write_entry(struct meed_settle *settle,
                                    const struct meed_ledger_round *entry)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger_place place;
    struct meed_ledger_round old;
    if (!meed_ledger_find(settle->config.ledger, entry->round, &place)) {
        MEED_TRY(meed_ledger_append_round(settle->config.ledger, entry));
        add_totals(settle, entry);
        return MEED_OK;
    }
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    MEED_TRY_OUT(meed_ledger_read_round(settle->config.ledger, place.index, &arena, &old));
    bool same = old.client_count == entry->client_count && old.budget == entry->budget &&
                memcmp(old.before_hash, entry->before_hash, MEED_SHA256_BYTES) == 0 &&
                memcmp(old.after_hash, entry->after_hash, MEED_SHA256_BYTES) == 0;
    for (int32_t i = 0; same && i < old.client_count; i++) {
        same = old.clients[i].share == entry->clients[i].share;
    }
    if (!same) {
        st = MEED_FAIL(MEED_INTEGRITY,
                       "round %d: the ledger has another result than is computed "
                       "now; was the software or the machine changed in between?",
                       entry->round);
    }
out:
    meed_arena_clear(&arena);
    return st;
}

enum meed_status meed_settle_pay(struct meed_settle *settle, const struct meed_service_state *state)
{
    enum meed_status st = MEED_OK;
    const struct meed_settlement_basis *basis = &settle->basis;
    struct meed_cohort *cohort = NULL;
    struct meed_defence_client *verdicts = NULL;
    struct meed_settlement_valued valued;
    struct meed_settlement_merge merge = {.in = NULL};
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "round", MEED_SETTLE_ARENA_BYTES);
    meed_settle_fault(settle, "settle");
    MEED_TRY_OUT(meed_settle_cohort(settle, state, &cohort));
    MEED_TRY_OUT(meed_settle_screened(settle, cohort, &arena, &verdicts));
    MEED_TRY_OUT(meed_settle_valued(settle, cohort, verdicts, &arena, &valued));
    MEED_TRY_OUT(meed_settlement_merge(basis, cohort, &valued, &arena, &merge));
    MEED_TRY_OUT(meed_settle_keep_merge(settle, cohort, &merge));
    meed_settle_fault(settle, "settle.blob");
    MEED_TRY_OUT(meed_settlement_entry(basis, cohort, verdicts, &valued, &merge, &arena, &entry));
    MEED_TRY_OUT(write_entry(settle, &entry));
    meed_settle_fault(settle, "settle.ledger");
    MEED_TRY_OUT(meed_service_advance(settle->config.service, MEED_ROUND_EVENT_SETTLED, NULL));
out:
    meed_settlement_merge_clear(&merge);
    meed_arena_clear(&arena);
    return st;
}

/* ---- PUBLISH --------------------------------------------------------------------------------- */

static enum meed_status store_details(struct meed_settle *settle, struct meed_cohort *cohort,
                                      struct meed_arena *arena)
{
    struct meed_defence_client *verdicts = NULL;
    struct meed_settlement_valued valued;
    void *block = NULL;
    size_t clients = (size_t)meed_registry_count(settle->config.registry);
    MEED_TRY(meed_settle_screened(settle, cohort, arena, &verdicts));
    MEED_TRY(meed_settle_valued(settle, cohort, verdicts, arena, &valued));
    MEED_TRY(meed_arena_alloc_array(arena, clients, sizeof(struct meed_service_detail), &block));
    struct meed_service_detail *details = block;
    for (size_t i = 0; i < clients; i++) {
        details[i].total_share = settle->totals[i];
    }
    for (int32_t i = 0; i < valued.players; i++) {
        int32_t client =
            meed_registry_find(settle->config.registry, cohort->names[valued.cohort_idx[i]]);
        memcpy(details[client].axis_phi, valued.clients[i].axis_phi,
               sizeof details[client].axis_phi);
        memcpy(details[client].axis_se, valued.clients[i].axis_se, sizeof details[client].axis_se);
    }
    return meed_store_save_stage(settle->config.store, cohort->round, MEED_SERVICE_STAGE_RECEIPTS,
                                 details, clients * sizeof *details);
}

static void folder_path(const struct meed_settle *settle, char path[MEED_PATH_BYTES])
{
    snprintf(path, MEED_PATH_BYTES, "%s/adapter", meed_store_folder(settle->config.store));
}

static enum meed_status write_folder(struct meed_settle *settle,
                                     const uint8_t hash[MEED_SHA256_BYTES])
{
    struct meed_adapter *adapter = NULL;
    char path[MEED_PATH_BYTES];
    folder_path(settle, path);
    MEED_TRY(meed_cohort_adapter(settle->config.terms, settle->config.store, hash, &adapter));
    enum meed_status st = meed_adapter_save(adapter, settle->config.terms->base_model, path);
    meed_adapter_destroy(adapter);
    return st;
}

/* After the last round: the totals close the ledger. */
static enum meed_status write_final(struct meed_settle *settle,
                                    const uint8_t hash[MEED_SHA256_BYTES])
{
    struct meed_ledger_place place;
    int32_t count = meed_registry_count(settle->config.registry);
    if (meed_ledger_find(settle->config.ledger, 0, &place)) {
        return MEED_OK;
    }
    struct meed_ledger_total *totals = meed_heap_alloc((size_t)count, sizeof *totals);
    if (!totals) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        snprintf(totals[i].id, sizeof totals[i].id, "%s",
                 meed_registry_id(settle->config.registry, i));
        totals[i].share = settle->totals[i];
    }
    enum meed_status st = meed_ledger_append_final(
        settle->config.ledger, settle->config.terms->run_id, hash, totals, count);
    meed_heap_free(totals);
    return st;
}

enum meed_status meed_settle_report(struct meed_settle *settle)
{
    char path[MEED_PATH_BYTES];
    folder_path(settle, path);
    double seconds = settle->seconds_before + meed_clock_seconds_since(settle->start_ns);
    MEED_TRY(meed_store_set(settle->config.store, "seconds", &seconds, sizeof seconds));
    if (!settle->config.report_path) {
        return MEED_OK;
    }
    struct meed_report_json_source source = {settle->config.terms, settle->config.ledger,
                                             settle->config.store, seconds, path};
    return meed_report_json_write(&source, settle->config.report_path);
}

static void tell_settled(struct meed_settle *settle, const struct meed_ledger_round *entry)
{
    struct meed_aggregator_event event = {.kind = MEED_AGGREGATOR_SETTLED,
                                          .round = entry->round,
                                          .client = -1,
                                          .utility_before = entry->value_empty,
                                          .utility_after = entry->value_kept};
    int32_t paid = 0;
    for (int32_t i = 0; i < entry->client_count; i++) {
        paid += entry->clients[i].share > 0;
    }
    show_round(settle, entry);
    MEED_LOG_INFO("server", "round %d settled: %d of %d clients paid (utility %.4f to %.4f)",
                  entry->round, paid, entry->client_count, entry->value_empty, entry->value_kept);
    pthread_mutex_lock(&settle->counts_lock);
    settle->counts.rounds_settled++;
    pthread_mutex_unlock(&settle->counts_lock);
    meed_board_emit(settle->config.board, &event);
}

/* The next round is on, for eyes too. */
static void tell_opened(struct meed_settle *settle, int32_t settled)
{
    bool last = settled == settle->config.terms->rounds;
    struct meed_aggregator_event event = {.kind = last ? MEED_AGGREGATOR_FINISHED
                                                       : MEED_AGGREGATOR_OPENED,
                                          .round = last ? settled : settled + 1,
                                          .client = -1};
    meed_board_emit(settle->config.board, &event);
}

/* Rows start over before the machine opens the round: the first update may come at once. */
static void clear_board(struct meed_settle *settle, int32_t settled)
{
    if (settled < settle->config.terms->rounds) {
        meed_board_open(settle->config.board, settled + 1);
    }
}

enum meed_status meed_settle_publish(struct meed_settle *settle,
                                     const struct meed_service_state *state)
{
    enum meed_status st = MEED_OK;
    struct meed_cohort *cohort = NULL;
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "round", MEED_SETTLE_ARENA_BYTES);
    meed_settle_fault(settle, "publish");
    if (!meed_ledger_find(settle->config.ledger, state->round, &place)) {
        st = MEED_FAIL(MEED_INTEGRITY, "the ledger has lost the entry of round %d", state->round);
        goto out;
    }
    MEED_TRY_OUT(meed_ledger_read_round(settle->config.ledger, place.index, &arena, &entry));
    MEED_TRY_OUT(meed_settle_cohort(settle, state, &cohort));
    MEED_TRY_OUT(store_details(settle, cohort, &arena));
    meed_settle_fault(settle, "publish.receipts");
    MEED_TRY_OUT(write_folder(settle, entry.after_hash));
    if (state->round == settle->config.terms->rounds) {
        MEED_TRY_OUT(write_final(settle, entry.after_hash));
        meed_settle_fault(settle, "publish.final");
    }
    MEED_TRY_OUT(meed_settle_report(settle));
    meed_settle_fault(settle, "publish.report");
    tell_settled(settle, &entry);
    clear_board(settle, state->round);
    MEED_TRY_OUT(
        meed_service_advance(settle->config.service, MEED_ROUND_EVENT_PUBLISHED, entry.after_hash));
    tell_opened(settle, state->round);
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- ABANDON --------------------------------------------------------------------------------- */

enum meed_status meed_settle_abandon(struct meed_settle *settle,
                                     const struct meed_service_state *state)
{
    const struct meed_terms *terms = settle->config.terms;
    struct meed_ledger_place place;
    struct meed_aggregator_event event = {
        .kind = MEED_AGGREGATOR_ABANDONED, .round = state->round, .client = -1};
    snprintf(event.text, sizeof event.text, "fewer than %d updates at the deadline", terms->quorum);
    meed_settle_fault(settle, "abandon");
    if (!meed_ledger_find(settle->config.ledger, state->round, &place)) {
        MEED_TRY(meed_ledger_append_abandoned(settle->config.ledger, terms->run_id, state->round,
                                              state->adapter_hash, event.text));
    }
    meed_settle_fault(settle, "abandon.ledger");
    if (state->round == terms->rounds) {
        MEED_TRY(write_final(settle, state->adapter_hash));
        MEED_TRY(write_folder(settle, state->adapter_hash));
    }
    MEED_TRY(meed_settle_report(settle));
    pthread_mutex_lock(&settle->counts_lock);
    settle->counts.rounds_abandoned++;
    pthread_mutex_unlock(&settle->counts_lock);
    MEED_LOG_WARN("server", "round %d abandoned: %s", state->round, event.text);
    meed_board_emit(settle->config.board, &event);
    clear_board(settle, state->round);
    MEED_TRY(meed_service_advance(settle->config.service, MEED_ROUND_EVENT_PUBLISHED, NULL));
    tell_opened(settle, state->round);
    return MEED_OK;
}
