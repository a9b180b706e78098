/* See settlement.h: screening, weights, values, the entry. */
#include "server/settlement.h"

#include <stdio.h>
#include <string.h>
#include "evaluation/payment.h"
#include "server/reputation.h"
#include "server/server_optimiser.h"
#include "server/weighting.h"

enum { PAST_MAX_CLIENTS = 64 };

/* ---- the round before ------------------------------------------------------------------------ */

enum meed_status meed_settlement_before(struct meed_ledger *ledger, int32_t round,
                                        struct meed_arena *arena, struct meed_ledger_round *entry,
                                        bool *found)
{
    struct meed_ledger_place place = {.kind = MEED_LEDGER_GENESIS};
    for (int32_t at = round - 1; at > 0 && place.kind != MEED_LEDGER_ROUND; at--) {
        if (!meed_ledger_find(ledger, at, &place)) {
            break;
        }
    }
    *found = place.kind == MEED_LEDGER_ROUND;
    return *found ? meed_ledger_read_round(ledger, place.index, arena, entry) : MEED_OK;
}

/* ---- screening ------------------------------------------------------------------------------- */

bool meed_settlement_looks_back(const struct meed_settlement_basis *basis)
{
    return meed_registry_count(basis->registry) <= PAST_MAX_CLIENTS;
}

/* The cohort of the last settled round before this one; NULL if there is none to compare with, or
 * if that round left the adapter as it was: who trains on the same data from the same start sends
 * the same again, which is no replay. (Another's update of then is a duplicate of that other's
 * now.) */
static enum meed_status load_past(const struct meed_settlement_basis *basis, int32_t round,
                                  struct meed_cohort **past)
{
    enum meed_status st = MEED_OK;
    bool found = false;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    if (meed_settlement_looks_back(basis)) {
        MEED_TRY_OUT(meed_settlement_before(basis->ledger, round, &arena, &entry, &found));
    }
    if (found && memcmp(entry.before_hash, entry.after_hash, sizeof entry.after_hash) != 0) {
        MEED_TRY_OUT(
            meed_cohort_load(basis->terms, basis->store, entry.round, entry.before_hash, past));
    }
out:
    meed_arena_clear(&arena);
    return st;
}

/* What the ledger says of rounds before this one, over whatever the detectors found. */
static enum meed_status bar_quarantined(const struct meed_settlement_basis *basis,
                                        const struct meed_cohort *cohort,
                                        struct meed_defence_client *verdicts)
{
    struct meed_quarantine_client *clients =
        meed_heap_alloc((size_t)cohort->count + 1, sizeof *clients);
    if (!clients) {
        return MEED_NOMEM;
    }
    enum meed_status st =
        meed_quarantine_replay(&basis->terms->quarantine, basis->ledger, cohort->round,
                               cohort->names, cohort->count, clients);
    for (int32_t i = 0; i < cohort->count && st == MEED_OK; i++) {
        if (meed_quarantine_holds(&clients[i], cohort->round)) {
            verdicts[i].verdict = MEED_DEFENCE_EXCLUDE;
            verdicts[i].factor = 0.0;
            snprintf(verdicts[i].reason, sizeof verdicts[i].reason,
                     "in quarantine up to round %d: it was excluded too often",
                     clients[i].out_until);
        }
    }
    meed_heap_free(clients);
    return st;
}

enum meed_status meed_settlement_screen(const struct meed_settlement_basis *basis,
                                        const struct meed_cohort *cohort,
                                        struct meed_defence_client *verdicts)
{
    struct meed_cohort *past = NULL;
    MEED_TRY(load_past(basis, cohort->round, &past));
    struct meed_step_past compare = {NULL, NULL, 0};
    if (past) {
        compare = (struct meed_step_past){
            past->global, (const struct meed_adapter *const *)past->adapters, past->count};
    }
    enum meed_status st = meed_defence_screen(
        cohort->global, (const struct meed_adapter *const *)cohort->adapters, cohort->names,
        cohort->count, past ? &compare : NULL, &basis->terms->defence, basis->pool, verdicts);
    meed_cohort_destroy(past);
    return st == MEED_OK ? bar_quarantined(basis, cohort, verdicts) : st;
}

/* Takes part in the step: not excluded, and not what it was given. */
static bool works(const struct meed_defence_client *verdict)
{
    return verdict->verdict != MEED_DEFENCE_EXCLUDE && verdict->norm > 0.0;
}

enum meed_status meed_settlement_weights(const struct meed_settlement_basis *basis,
                                         const struct meed_cohort *cohort,
                                         const struct meed_defence_client *verdicts,
                                         struct meed_arena *arena, double **weights)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)cohort->count + 1, sizeof **weights, &block));
    *weights = block;
    MEED_TRY(meed_weighting_run(basis->terms, basis->ledger, cohort, *weights));
    double all = 0.0, working = 0.0;
    for (int32_t i = 0; i < cohort->count; i++) {
        all += (*weights)[i];
        working += works(&verdicts[i]) ? (*weights)[i] : 0.0;
    }
    for (int32_t i = 0; i < cohort->count && working > 0.0; i++) {
        (*weights)[i] *= works(&verdicts[i]) ? verdicts[i].factor * all / working : 0.0;
    }
    return MEED_OK;
}

/* ---- values ---------------------------------------------------------------------------------- */

enum meed_status meed_settlement_players(const struct meed_cohort *cohort,
                                         const struct meed_defence_client *verdicts,
                                         struct meed_arena *arena,
                                         struct meed_settlement_valued *valued)
{
    void *block = NULL;
    memset(valued, 0, sizeof *valued);
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)cohort->count, sizeof(int32_t), &block));
    valued->cohort_idx = block;
    for (int32_t i = 0; i < cohort->count; i++) {
        if (verdicts[i].verdict != MEED_DEFENCE_EXCLUDE) {
            valued->cohort_idx[valued->players++] = i;
        }
    }
    return MEED_OK;
}

static enum meed_status doubles(struct meed_arena *arena, int32_t count, double **values)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)count + 1, sizeof **values, &block));
    *values = block;
    return MEED_OK;
}

/* What pay goes by beside φ: declared samples, and where there is reputation the past. */
static enum meed_status gather_claims(const struct meed_settlement_basis *basis,
                                      const struct meed_cohort *cohort, struct meed_arena *arena,
                                      const int32_t *cohort_idx, struct meed_settle_cohort *game)
{
    double *claims = NULL, *samples = NULL, *standing = NULL;
    MEED_TRY(doubles(arena, cohort->count, &claims));
    MEED_TRY(doubles(arena, game->players, &samples));
    MEED_TRY(meed_weighting_claims(cohort, basis->terms->sample_cap, claims));
    for (int32_t i = 0; i < game->players; i++) {
        samples[i] = claims[cohort_idx[i]];
    }
    game->samples = samples;
    if (basis->terms->value.reputation > 0.0) {
        MEED_TRY(doubles(arena, game->players, &standing));
        MEED_TRY(meed_reputation_replay(basis->ledger, cohort->round, game->names, game->players,
                                        standing));
        game->standing = standing;
    }
    return MEED_OK;
}

static enum meed_status
gather_players(const struct meed_settlement_basis *basis, const struct meed_cohort *cohort,
               const struct meed_defence_client *verdicts, struct meed_arena *arena,
               const struct meed_settlement_valued *valued, struct meed_settle_cohort *game)
{
    void *adapters = NULL, *names = NULL;
    double *p = NULL, *weights = NULL, *unlike = NULL, *loadings = NULL;
    size_t players = (size_t)valued->players;
    MEED_TRY(meed_settlement_weights(basis, cohort, verdicts, arena, &p));
    MEED_TRY(meed_arena_alloc_array(arena, players, sizeof(void *), &adapters));
    MEED_TRY(meed_arena_alloc_array(arena, players, sizeof(void *), &names));
    MEED_TRY(doubles(arena, valued->players, &weights));
    MEED_TRY(doubles(arena, valued->players, &unlike));
    MEED_TRY(doubles(arena, (int64_t)valued->players * MEED_CLIQUE_DIRECTIONS, &loadings));
    for (int32_t i = 0; i < valued->players; i++) {
        int32_t at = valued->cohort_idx[i];
        ((const struct meed_adapter **)adapters)[i] = cohort->adapters[at];
        ((const char **)names)[i] = cohort->names[at];
        weights[i] = p[at];
        unlike[i] = verdicts[at].unlike;
        memcpy(loadings + (int64_t)i * MEED_CLIQUE_DIRECTIONS, verdicts[at].loadings,
               sizeof verdicts[at].loadings);
    }
    *game = (struct meed_settle_cohort){.round = cohort->round,
                                        .budget = meed_terms_budget(basis->terms, cohort->round),
                                        .seed = meed_terms_seed(basis->terms, cohort->round),
                                        .global = cohort->global,
                                        .clients = adapters,
                                        .names = names,
                                        .p = weights,
                                        .unlike = unlike,
                                        .loadings = loadings,
                                        .players = valued->players};
    return gather_claims(basis, cohort, arena, valued->cohort_idx, game);
}

/* Nobody is left to value: the model is what the round before left, and so is what it is worth. In
 * a first round nobody knows yet. */
static enum meed_status value_as_before(const struct meed_settlement_basis *basis,
                                        const struct meed_cohort *cohort,
                                        struct meed_settle_value *value)
{
    bool found = false;
    struct meed_ledger_round before;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    enum meed_status st =
        meed_settlement_before(basis->ledger, cohort->round, &arena, &before, &found);
    if (st == MEED_OK && found) {
        value->value_empty = value->value_full = value->value_kept = before.value_kept;
    }
    meed_arena_clear(&arena);
    return st;
}

enum meed_status meed_settlement_value(const struct meed_settlement_basis *basis,
                                       const struct meed_cohort *cohort,
                                       const struct meed_defence_client *verdicts,
                                       struct meed_arena *arena,
                                       struct meed_settlement_valued *valued)
{
    struct meed_settle_cohort game;
    if (valued->players == 0) {
        return value_as_before(basis, cohort, &valued->value);
    }
    MEED_TRY(gather_players(basis, cohort, verdicts, arena, valued, &game));
    return basis->value(basis->value_user, &game, &valued->value, valued->clients);
}

/* ---- the entry ------------------------------------------------------------------------------- */

/* Everybody starts absent; updates, verdicts and values are laid over it. */
static enum meed_status fill_clients(const struct meed_settlement_basis *basis,
                                     const struct meed_cohort *cohort,
                                     const struct meed_defence_client *verdicts,
                                     const struct meed_settlement_valued *valued,
                                     struct meed_arena *arena, struct meed_ledger_round *entry)
{
    static const enum meed_receipt_state states[] = {[MEED_PAY_PAID] = MEED_RECEIPT_PAID,
                                                     [MEED_PAY_UNPAID] = MEED_RECEIPT_UNPAID,
                                                     [MEED_PAY_EXCLUDED] = MEED_RECEIPT_EXCLUDED};
    void *block = NULL;
    double *weights = NULL;
    entry->client_count = meed_registry_count(basis->registry);
    MEED_TRY(meed_settlement_weights(basis, cohort, verdicts, arena, &weights));
    MEED_TRY(
        meed_arena_alloc_array(arena, (size_t)entry->client_count, sizeof *entry->clients, &block));
    entry->clients = block;
    for (int32_t i = 0; i < entry->client_count; i++) {
        struct meed_ledger_client *line = &entry->clients[i];
        snprintf(line->id, sizeof line->id, "%s", meed_registry_id(basis->registry, i));
        snprintf(line->reason, sizeof line->reason, "sent no update");
        line->state = MEED_RECEIPT_ABSENT;
    }
    for (int32_t i = 0; i < cohort->count; i++) {
        int32_t client = meed_registry_find(basis->registry, cohort->names[i]);
        struct meed_ledger_client *line = &entry->clients[client];
        memcpy(line->update_hash, cohort->updates[i].sha256, MEED_SHA256_BYTES);
        snprintf(line->privacy, sizeof line->privacy, "%s", cohort->updates[i].privacy);
        line->state = MEED_RECEIPT_EXCLUDED;
        line->weight = weights[i];
        bool barred = verdicts[i].verdict == MEED_DEFENCE_EXCLUDE;
        snprintf(line->reason, sizeof line->reason, "%s", barred ? verdicts[i].reason : "");
        snprintf(line->remark, sizeof line->remark, "%s", barred ? "" : verdicts[i].reason);
    }
    entry->retained = entry->budget;
    for (int32_t i = 0; i < valued->players; i++) {
        int32_t at = valued->cohort_idx[i];
        const struct meed_value_client *value = &valued->clients[i];
        int32_t client = meed_registry_find(basis->registry, cohort->names[at]);
        struct meed_ledger_client *line = &entry->clients[client];
        line->state = states[value->status];
        line->weight = value->weight;
        line->phi = value->phi;
        line->se = value->se;
        line->share = value->share;
        entry->retained -= value->share;
        snprintf(line->reason, sizeof line->reason, "%s", value->reason);
    }
    return MEED_OK;
}

static void name_method(const struct meed_terms *terms, struct meed_ledger_round *entry)
{
    bool plain = terms->server.rule == MEED_SERVER_NONE;
    snprintf(entry->method, sizeof entry->method, "%s%s%s%s",
             meed_aggregate_name(terms->aggregation), plain ? "" : "+",
             plain ? "" : meed_server_optimiser_name(terms->server.rule),
             terms->repair_steps > 0 ? "+repair" : "");
}

/* Zeros where there is no blob. */
static void hash_blob(const struct meed_buf *bytes, uint8_t hash[MEED_SHA256_BYTES])
{
    if (bytes->size > 0) {
        meed_sha256(bytes->data, bytes->size, hash);
    }
}

enum meed_status meed_settlement_entry(const struct meed_settlement_basis *basis,
                                       const struct meed_cohort *cohort,
                                       const struct meed_defence_client *verdicts,
                                       const struct meed_settlement_valued *valued,
                                       const struct meed_settlement_merge *merge,
                                       struct meed_arena *arena, struct meed_ledger_round *entry)
{
    const struct meed_terms *terms = basis->terms;
    memset(entry, 0, sizeof *entry);
    entry->round = cohort->round;
    entry->budget = meed_terms_budget(terms, cohort->round);
    entry->floor = meed_payment_floor(entry->budget, terms->value.floor);
    snprintf(entry->run_id, sizeof entry->run_id, "%s", terms->run_id);
    memcpy(entry->model_hash, terms->model_hash, MEED_SHA256_BYTES);
    memcpy(entry->benchmark_hash, terms->benchmark_hash, MEED_SHA256_BYTES);
    memcpy(entry->before_hash, cohort->base_hash, MEED_SHA256_BYTES);
    memcpy(entry->utilities_hash, valued->value.utilities_hash, MEED_SHA256_BYTES);
    entry->value_empty = valued->value.value_empty;
    entry->value_full = valued->value.value_full;
    entry->value_kept = valued->value.value_kept;
    name_method(terms, entry);
    if (merge) {
        hash_blob(&merge->after, entry->after_hash);
        hash_blob(&merge->merged, entry->merged_hash);
        hash_blob(&merge->reference, entry->reference_hash);
        hash_blob(&merge->moments, entry->state_hash);
    }
    return fill_clients(basis, cohort, verdicts, valued, arena, entry);
}
