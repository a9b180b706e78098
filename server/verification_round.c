/* See verification.h: one round, part by part.
 *
 * A part looks for the first thing in which the entry and the recomputation differ, in the order
 * of the entry's clients; it says so in *found and leaves the later parts unseen. Damaged evidence
 * is a finding too, not a failure of the check: whoever damages a blob must not end the audit.
 */
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "server/ledger_body.h"
#include "server/verification_private.h"

enum { ROUND_ARENA_BYTES = 256 << 20 };

/* The round under examination. */
struct job {
    struct meed_verification *v;
    struct meed_verification_round *found;
    struct meed_arena arena;
    struct meed_ledger_place place;
    struct meed_buf body;
    struct meed_ledger_round entry; /* what the ledger says */
    struct meed_ledger_round made;  /* what was recomputed, from VALUES on */
    struct meed_cohort *cohort;
    struct meed_defence_client *verdicts; /* [cohort->count] */
    struct meed_settlement_valued valued;
    struct meed_settlement_merge merge;
};

static struct meed_verification_at at_part(const struct job *job, enum meed_verification_part part)
{
    return (struct meed_verification_at){job->found, part, NULL};
}

/* ---- chain ----------------------------------------------------------------------------------- */

/* The first adapter is drawn from the terms' seed. */
static enum meed_status check_start(struct job *job, const struct meed_verification_at *at)
{
    const struct meed_verification *v = job->v;
    struct meed_adapter *start = NULL;
    uint8_t hash[MEED_SHA256_BYTES];
    MEED_TRY(meed_adapter_create(&v->terms.model, &v->terms.lora, &start));
    meed_adapter_init(start, v->terms.seed);
    enum meed_status st = meed_adapter_hash(start, hash);
    meed_adapter_destroy(start);
    if (st == MEED_OK) {
        meed_verification_agree_hash(at, "start adapter", v->genesis.start_hash, hash);
    }
    return st;
}

static enum meed_status check_chain(struct job *job)
{
    const struct meed_verification *v = job->v;
    const struct meed_ledger_round *entry = &job->entry;
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_CHAIN);
    uint8_t before[MEED_SHA256_BYTES];
    MEED_TRY(meed_verification_after(v, entry->round - 1, before));
    if (!meed_verification_agree_text(&at, "run", entry->run_id, v->genesis.run_id) ||
        !meed_verification_agree_hash(&at, "adapter that the round began with", entry->before_hash,
                                      before) ||
        job->found->abandoned) {
        return MEED_OK;
    }
    if (meed_verification_agree_hash(&at, "model", entry->model_hash, v->genesis.model_hash) &&
        meed_verification_agree_hash(&at, "benchmark", entry->benchmark_hash,
                                     v->genesis.benchmark_hash) &&
        meed_verification_agree_integer(&at, "clients", entry->client_count,
                                        v->genesis.client_count) &&
        entry->round == 1 && v->tools.checkpoint) {
        return check_start(job, &at);
    }
    return MEED_OK;
}

/* Statuses that speak of the evidence, not of this process. */
static bool blames_evidence(enum meed_status st)
{
    return st == MEED_INTEGRITY || st == MEED_FORMAT || st == MEED_VERSION || st == MEED_LIMIT ||
           st == MEED_NUMERIC || st == MEED_DENIED || st == MEED_UNSUPPORTED;
}

/* ---- evidence -------------------------------------------------------------------------------- */

/* A blob as it is on the disk. */
static bool check_blob(const struct job *job, const struct meed_verification_at *at,
                       const char *what, const uint8_t hash[MEED_SHA256_BYTES])
{
    char path[MEED_PATH_BYTES];
    struct meed_file_map map;
    meed_store_blob_path(job->v->store, hash, path);
    if (!meed_file_exists(path)) {
        meed_verification_tell(at, MEED_VERIFICATION_NOT_KEPT,
                               "evidence not kept (the %s is not there), only what comes before "
                               "it was checked",
                               what);
        return false;
    }
    if (meed_store_map_blob(job->v->store, hash, &map) != MEED_OK) {
        meed_verification_tell(at, MEED_VERIFICATION_WRONG,
                               "the stored %s is not the one whose hash the ledger names: %.300s",
                               what, meed_last_error());
        return false;
    }
    meed_file_map_close(&map);
    return true;
}

/* The store's list of updates beside the entry's; both in id order. */
static bool check_list(const struct job *job, struct meed_verification_at *at,
                       const struct meed_ledger_round *entry,
                       const struct meed_store_update *updates, int32_t count)
{
    static const uint8_t none[MEED_SHA256_BYTES];
    int32_t next = 0;
    for (int32_t i = 0; i < entry->client_count; i++) {
        const struct meed_ledger_client *line = &entry->clients[i];
        bool listed = next < count && strcmp(updates[next].client, line->id) == 0;
        at->client = line->id;
        if (!meed_verification_agree_hash(at, "update", line->update_hash,
                                          listed ? updates[next].sha256 : none)) {
            return false;
        }
        bool absent = line->state == MEED_RECEIPT_ABSENT;
        if (absent == listed) {
            meed_verification_tell(
                at, MEED_VERIFICATION_WRONG, "the ledger says %s, but the store has %s",
                absent ? "absent" : "that it took part", listed ? "its update" : "no update of it");
            return false;
        }
        if (listed && !check_blob(job, at, "update", updates[next].sha256)) {
            return false;
        }
        next += listed;
    }
    at->client = NULL;
    if (next < count) {
        at->client = updates[next].client;
        meed_verification_tell(at, MEED_VERIFICATION_WRONG,
                               "the store has an update of it, the ledger does not know it");
        return false;
    }
    return true;
}

static enum meed_status check_updates(struct job *job, const struct meed_ledger_round *entry,
                                      bool *good)
{
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_EVIDENCE);
    struct meed_store_update *updates = NULL;
    int32_t count = 0, named = 0;
    MEED_TRY(meed_store_list_updates(job->v->store, entry->round, &job->arena, &updates, &count));
    for (int32_t i = 0; i < entry->client_count; i++) {
        named += entry->clients[i].state != MEED_RECEIPT_ABSENT;
    }
    if (count == 0 && named > 0) {
        meed_verification_tell(&at, MEED_VERIFICATION_NOT_KEPT,
                               "evidence not kept (no update of round %d is there), only the chain "
                               "was checked",
                               entry->round);
        *good = false;
        return MEED_OK;
    }
    *good = check_list(job, &at, entry, updates, count);
    if (*good) {
        *good = check_blob(job, &at, "adapter that the round began with", entry->before_hash);
    }
    return MEED_OK;
}

/* What earlier rounds left for this one: updates that screening compares with, moments. */
static enum meed_status check_past(struct job *job, bool *good)
{
    const struct meed_verification *v = job->v;
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_EVIDENCE);
    struct meed_ledger_round past;
    bool found = false;
    MEED_TRY(meed_settlement_before(v->ledger, job->entry.round, &job->arena, &past, &found));
    if (found && meed_settlement_looks_back(&v->basis)) {
        MEED_TRY(check_updates(job, &past, good));
    }
    if (found && *good && v->terms.server.rule != MEED_SERVER_NONE) {
        *good = check_blob(job, &at, "server optimiser's moments", past.state_hash);
    }
    return MEED_OK;
}

static enum meed_status check_evidence(struct job *job)
{
    const struct meed_verification *v = job->v;
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_EVIDENCE);
    bool good = true;
    MEED_TRY(check_updates(job, &job->entry, &good));
    if (good) {
        MEED_TRY(check_past(job, &good));
    }
    if (!good) {
        return MEED_OK;
    }
    enum meed_status st = meed_cohort_load(&v->terms, v->store, job->entry.round,
                                           job->entry.before_hash, &job->cohort);
    if (blames_evidence(st)) {
        meed_verification_tell(&at, MEED_VERIFICATION_WRONG, "%.600s", meed_last_error());
        return MEED_OK;
    }
    return st;
}

/* ---- screening ------------------------------------------------------------------------------- */

static const char *state_word(enum meed_receipt_state state)
{
    static const char *const words[MEED_RECEIPT_STATE_COUNT] = {"?", "paid", "unpaid", "excluded",
                                                                "absent"};
    return words[state];
}

static const struct meed_ledger_client *line_of(const struct job *job, const char *id)
{
    for (int32_t i = 0; i < job->entry.client_count; i++) {
        if (strcmp(job->entry.clients[i].id, id) == 0) {
            return &job->entry.clients[i];
        }
    }
    return NULL; /* never: evidence was compared by id */
}

static enum meed_status check_screening(struct job *job)
{
    const struct meed_settlement_basis *basis = &job->v->basis;
    const struct meed_cohort *cohort = job->cohort;
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_SCREENING);
    void *block = NULL;
    MEED_TRY(meed_arena_alloc_array(&job->arena, (size_t)cohort->count + 1, sizeof *job->verdicts,
                                    &block));
    job->verdicts = block;
    enum meed_status st = meed_settlement_screen(basis, cohort, job->verdicts);
    if (blames_evidence(st)) {
        meed_verification_tell(&at, MEED_VERIFICATION_WRONG,
                               "the updates of the round before it: %.600s", meed_last_error());
        return MEED_OK;
    }
    MEED_TRY(st);
    for (int32_t i = 0; i < cohort->count; i++) {
        const struct meed_ledger_client *line = line_of(job, cohort->names[i]);
        bool out = job->verdicts[i].verdict == MEED_DEFENCE_EXCLUDE;
        at.client = cohort->names[i];
        if (out &&
            (!meed_verification_agree_text(&at, "verdict of the screens", state_word(line->state),
                                           "excluded") ||
             !meed_verification_agree_text(&at, "reason", line->reason, job->verdicts[i].reason))) {
            return MEED_OK;
        }
    }
    return MEED_OK;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Other bits on another kind of machine are no proof of anything. */
static void name_machines(const struct job *job)
{
    const struct meed_verification *v = job->v;
    size_t used = strlen(job->found->text);
    if (v->machine[0] && strcmp(v->machine, v->tools.be->name) != 0) {
        snprintf(job->found->text + used, sizeof job->found->text - used,
                 "; the run was valued on %s, this is %s, whose bits may differ: verify on the "
                 "same kind of machine",
                 v->machine, v->tools.be->name);
    }
}

static enum meed_status check_values(struct job *job)
{
    const struct meed_settlement_basis *basis = &job->v->basis;
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_VALUES);
    const struct meed_ledger_round *says = &job->entry, *made = &job->made;
    void *block = NULL;
    MEED_TRY(meed_settlement_players(job->cohort, job->verdicts, &job->arena, &job->valued));
    MEED_TRY(meed_arena_alloc_array(&job->arena, (size_t)job->valued.players + 1,
                                    sizeof *job->valued.clients, &block));
    job->valued.clients = block;
    MEED_TRY(meed_settlement_value(basis, job->cohort, job->verdicts, &job->arena, &job->valued));
    MEED_TRY(meed_settlement_entry(basis, job->cohort, job->verdicts, &job->valued, NULL,
                                   &job->arena, &job->made));
    bool good =
        meed_verification_agree_hash(&at, "utilities of the coalitions", says->utilities_hash,
                                     made->utilities_hash) &&
        meed_verification_agree_real(&at, "value of nobody", says->value_empty,
                                     made->value_empty) &&
        meed_verification_agree_real(&at, "value of all", says->value_full, made->value_full);
    for (int32_t i = 0; good && i < says->client_count; i++) {
        at.client = says->clients[i].id;
        good =
            meed_verification_agree_real(&at, "weight", says->clients[i].weight,
                                         made->clients[i].weight) &&
            meed_verification_agree_real(&at, "phi", says->clients[i].phi, made->clients[i].phi) &&
            meed_verification_agree_real(&at, "standard error", says->clients[i].se,
                                         made->clients[i].se);
    }
    if (!good) {
        name_machines(job);
    }
    return MEED_OK;
}

/* ---- pay ------------------------------------------------------------------------------------- */

static enum meed_status check_pay(struct job *job)
{
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_PAY);
    const struct meed_ledger_round *says = &job->entry, *made = &job->made;
    bool good = meed_verification_agree_integer(&at, "budget", says->budget, made->budget) &&
                meed_verification_agree_integer(&at, "floor", says->floor, made->floor);
    for (int32_t i = 0; good && i < says->client_count; i++) {
        const struct meed_ledger_client *line = &says->clients[i], *own = &made->clients[i];
        at.client = line->id;
        good = meed_verification_agree_text(&at, "verdict", state_word(line->state),
                                            state_word(own->state)) &&
               meed_verification_agree_integer(&at, "share", line->share, own->share) &&
               meed_verification_agree_text(&at, "reason", line->reason, own->reason) &&
               meed_verification_agree_text(&at, "remark", line->remark, own->remark);
    }
    at.client = NULL;
    if (good &&
        meed_verification_agree_integer(&at, "budget kept", says->retained, made->retained)) {
        meed_verification_agree_real(&at, "value of those who were kept", says->value_kept,
                                     made->value_kept);
    }
    return MEED_OK;
}

/* ---- aggregate ------------------------------------------------------------------------------- */

/* Nothing may stand in an entry but what was compared: the recomputed one has the same bytes. */
static enum meed_status check_bytes(struct job *job, const struct meed_verification_at *at)
{
    struct meed_buf body, before;
    struct meed_ledger_place place;
    enum meed_status st = MEED_OK;
    meed_buf_init(&body, MEED_LIMIT_LEDGER_BODY_BYTES);
    meed_buf_init(&before, MEED_LIMIT_LEDGER_BODY_BYTES);
    MEED_TRY_OUT(meed_ledger_read(job->v->ledger, job->place.index - 1, &place, &before));
    struct meed_ledger_link link = {job->place.index, place.hash};
    MEED_TRY_OUT(meed_ledger_body_round(&link, &job->made, &body));
    if (body.size != job->body.size || memcmp(body.data, job->body.data, body.size) != 0) {
        meed_verification_tell(at, MEED_VERIFICATION_WRONG,
                               "its numbers are right, but the entry says more or less than them: "
                               "another version of Meed wrote it, or a hand");
    }
out:
    meed_buf_clear(&body);
    meed_buf_clear(&before);
    return st;
}

static enum meed_status check_aggregate(struct job *job)
{
    const struct meed_settlement_basis *basis = &job->v->basis;
    const struct meed_terms *terms = basis->terms;
    struct meed_verification_at at = at_part(job, MEED_VERIFICATION_AGGREGATE);
    const struct meed_ledger_round *says = &job->entry, *made = &job->made;
    bool trains =
        terms->repair_steps > 0 || meed_aggregate_traits(terms->aggregation)->wants_reference;
    if (trains && !basis->align) {
        meed_verification_tell(&at, MEED_VERIFICATION_NOT_KEPT,
                               "the aggregate cannot be made again without the operator's data; "
                               "name it by --data");
        return MEED_OK;
    }
    MEED_TRY(meed_settlement_merge(basis, job->cohort, &job->valued, &job->arena, &job->merge));
    MEED_TRY(meed_settlement_entry(basis, job->cohort, job->verdicts, &job->valued, &job->merge,
                                   &job->arena, &job->made));
    if (meed_verification_agree_text(&at, "method", says->method, made->method) &&
        meed_verification_agree_hash(&at, "operator's own update", says->reference_hash,
                                     made->reference_hash) &&
        meed_verification_agree_hash(&at, "server optimiser's moments", says->state_hash,
                                     made->state_hash) &&
        meed_verification_agree_hash(&at, "adapter before repair", says->merged_hash,
                                     made->merged_hash) &&
        meed_verification_agree_hash(&at, "aggregate", says->after_hash, made->after_hash) &&
        check_blob(job, &at, "aggregate", says->after_hash)) {
        return check_bytes(job, &at);
    }
    return MEED_OK;
}

/* ---- the round ------------------------------------------------------------------------------- */

static enum meed_status read_entry(struct job *job, int32_t round)
{
    struct meed_ledger_abandoned abandoned;
    if (!meed_ledger_find(job->v->ledger, round, &job->place)) {
        return MEED_FAIL(MEED_ARG, "the ledger has no round %d; it has 1 to %d", round,
                         job->v->rounds);
    }
    MEED_TRY(meed_ledger_read(job->v->ledger, job->place.index, &job->place, &job->body));
    if (job->place.kind == MEED_LEDGER_ROUND) {
        return meed_ledger_parse_round(job->body.data, job->body.size, &job->arena, &job->entry);
    }
    MEED_TRY(meed_ledger_parse_abandoned(job->body.data, job->body.size, &abandoned));
    job->found->abandoned = true;
    job->entry.round = round;
    memcpy(job->entry.run_id, abandoned.run_id, sizeof job->entry.run_id);
    memcpy(job->entry.before_hash, abandoned.before_hash, MEED_SHA256_BYTES);
    return MEED_OK;
}

static enum meed_status check_parts(struct job *job)
{
    static enum meed_status (*const checks[MEED_VERIFICATION_PART_COUNT])(struct job *) = {
        check_chain, check_evidence, check_screening, check_values, check_pay, check_aggregate};
    struct meed_verification_round *found = job->found;
    bool more = true;
    for (int p = 0; p < MEED_VERIFICATION_PART_COUNT && more; p++) {
        struct meed_verification_at at = at_part(job, (enum meed_verification_part)p);
        if (p == MEED_VERIFICATION_EVIDENCE && !job->v->tools.checkpoint) {
            meed_verification_tell(&at, MEED_VERIFICATION_NOT_KEPT,
                                   "evidence not kept (terms.txt or state.db is not there), only "
                                   "the chain was checked");
            return MEED_OK;
        }
        MEED_TRY(checks[p](job));
        if (found->parts[p] == MEED_VERIFICATION_UNSEEN) {
            found->parts[p] = MEED_VERIFICATION_GOOD;
        }
        more = found->parts[p] == MEED_VERIFICATION_GOOD && !found->abandoned;
    }
    return MEED_OK;
}

enum meed_status meed_verification_run(struct meed_verification *v, int32_t round,
                                       struct meed_verification_round *found)
{
    struct job job = {.v = v, .found = found};
    memset(found, 0, sizeof *found);
    found->round = round;
    meed_arena_init_growing(&job.arena, "round", ROUND_ARENA_BYTES);
    meed_buf_init(&job.body, MEED_LIMIT_LEDGER_BODY_BYTES);
    enum meed_status st = read_entry(&job, round);
    if (st == MEED_OK) {
        st = check_parts(&job);
    }
    meed_settlement_merge_clear(&job.merge);
    meed_cohort_destroy(job.cohort);
    meed_buf_clear(&job.body);
    meed_arena_clear(&job.arena);
    return st;
}
