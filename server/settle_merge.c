/* The merging part of SETTLE (settle_private.h): weights, aggregation, server optimiser, repair.
 *
 * All of it is a function of what is on disk. The optimiser's moments after a round are a blob that
 * the round's "optimiser" stage names; a round begins with those of the last settled round before
 * it, so a settlement that was killed and is run again takes the same step from the same moments.
 *
 * Repair trains what was merged on the operator's data, a few steps from the same seed every time.
 * It comes last, so moments and values know nothing of it: v of what is published in the ledger is
 * that of the merged adapter, whose hash stands beside the repaired one.
 */
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/rng.h"
#include "server/control.h"
#include "server/server_optimiser.h"
#include "server/settle_private.h"
#include "server/weighting.h"

static const char optimiser_stage[] = "optimiser";

enum meed_status meed_settle_weights(struct meed_settle *settle, const struct meed_cohort *cohort,
                                     const struct meed_defence_client *verdicts,
                                     struct meed_arena *arena, double **weights)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)cohort->count + 1, sizeof **weights, &block));
    *weights = block;
    MEED_TRY(meed_weighting_run(settle->config.terms, settle->config.ledger, cohort, *weights));
    for (int32_t i = 0; i < cohort->count; i++) {
        (*weights)[i] *= verdicts[i].factor;
    }
    return MEED_OK;
}

/* ---- the server optimiser's moments -----------------------------------------------------------
 */

/* moments [2, values]: those after the last settled round before this one, or the first. */
static enum meed_status load_moments(struct meed_settle *settle, int32_t round, int64_t count,
                                     float *moments)
{
    enum meed_status st = MEED_NOT_FOUND;
    struct meed_file_map map;
    struct meed_buf name;
    meed_buf_init(&name, 4096);
    for (int32_t before = round - 1; before > 0 && st == MEED_NOT_FOUND; before--) {
        st = meed_store_load_stage(settle->config.store, before, optimiser_stage, &name);
    }
    if (st == MEED_NOT_FOUND) {
        meed_server_optimiser_start(&settle->config.terms->server, count, moments, moments + count);
        st = MEED_OK;
        goto out;
    }
    MEED_TRY_OUT(st);
    if (name.size != MEED_SHA256_BYTES) {
        st = MEED_FAIL(MEED_INTEGRITY, "the server optimiser's record of an earlier round is "
                                       "damaged; start the run in another folder");
        goto out;
    }
    MEED_TRY_OUT(meed_store_map_blob(settle->config.store, (const uint8_t *)name.data, &map));
    if (map.size == 2 * (size_t)count * sizeof *moments) {
        memcpy(moments, map.bytes, map.size);
    } else {
        st = MEED_FAIL(MEED_INTEGRITY, "the server optimiser's moments have another size than the "
                                       "adapter");
    }
    meed_file_map_close(&map);
out:
    meed_buf_clear(&name);
    return st;
}

/* `next` takes the step; state_hash names the moments after it. */
static enum meed_status optimise(struct meed_settle *settle, const struct meed_cohort *cohort,
                                 struct meed_adapter *next, uint8_t state_hash[MEED_SHA256_BYTES])
{
    enum meed_status st = MEED_OK;
    const struct meed_terms *terms = settle->config.terms;
    int64_t count = meed_adapter_value_count(next);
    float *moments = meed_heap_alloc(2 * (size_t)count, sizeof *moments);
    if (!moments) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(load_moments(settle, cohort->round, count, moments));
    meed_server_optimiser_step(&terms->server, cohort->global,
                               meed_terms_trained(terms, cohort->round), moments, moments + count,
                               next);
    MEED_TRY_OUT(meed_store_put_blob(settle->config.store, moments,
                                     2 * (size_t)count * sizeof *moments, state_hash));
    MEED_TRY_OUT(meed_store_save_stage(settle->config.store, cohort->round, optimiser_stage,
                                       state_hash, MEED_SHA256_BYTES));
out:
    meed_heap_free(moments);
    return st;
}

static enum meed_status put_adapter(struct meed_settle *settle, const struct meed_adapter *adapter,
                                    uint8_t hash[MEED_SHA256_BYTES])
{
    struct meed_buf packed;
    meed_buf_init(&packed, MEED_ADAPTER_MAX_FILE_BYTES);
    enum meed_status st = meed_adapter_pack(adapter, &packed);
    if (st == MEED_OK) {
        st = meed_store_put_blob(settle->config.store, packed.data, packed.size, hash);
    }
    meed_buf_clear(&packed);
    return st;
}

/* ---- the operator's own training --------------------------------------------------------------
 */

static enum meed_status align(struct meed_settle *settle, const struct meed_cohort *cohort,
                              const struct meed_adapter *start, const char *purpose, int32_t steps,
                              struct meed_adapter **trained)
{
    const struct meed_terms *terms = settle->config.terms;
    struct meed_rng rng = meed_rng_stream(terms->seed, purpose, (uint64_t)cohort->round);
    struct meed_align_request request = {.start = start,
                                         .round = cohort->round,
                                         .seed = meed_rng_u64(&rng),
                                         .rank = terms->lora.rank,
                                         .trained_factors =
                                             meed_terms_trained(terms, cohort->round),
                                         .steps = steps,
                                         .lr = terms->repair_lr};
    MEED_TRY(settle->config.align(settle->config.align_user, &request, trained));
    if (!meed_adapter_same_shape(start, *trained)) {
        meed_adapter_destroy(*trained);
        *trained = NULL;
        return MEED_FAIL(MEED_BUG, "the operator's training changed the adapter's shape");
    }
    return MEED_OK;
}

/* *next becomes the repaired adapter; the entry remembers both. */
static enum meed_status repair(struct meed_settle *settle, const struct meed_cohort *cohort,
                               struct meed_adapter **next, struct meed_ledger_round *entry)
{
    struct meed_adapter *repaired = NULL;
    MEED_TRY(put_adapter(settle, *next, entry->merged_hash));
    MEED_TRY(align(settle, cohort, *next, "repair", settle->config.terms->repair_steps, &repaired));
    meed_adapter_destroy(*next);
    *next = repaired;
    return MEED_OK;
}

/* ---- the merge --------------------------------------------------------------------------------
 */

static enum meed_status advance_control(struct meed_settle *settle,
                                        const struct meed_cohort *cohort, const double *p,
                                        struct meed_arena *arena)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)cohort->count + 1, sizeof(bool), &block));
    bool *in = block;
    for (int32_t i = 0; i < cohort->count; i++) {
        in[i] = p[i] > 0.0;
    }
    return meed_control_advance(settle->config.store, cohort, in,
                                meed_registry_count(settle->config.registry));
}

static struct meed_aggregate_options options_of(const struct meed_settle *settle, int32_t round)
{
    const struct meed_terms *terms = settle->config.terms;
    return (struct meed_aggregate_options){.aggregation = terms->aggregation,
                                           .robust = terms->robust,
                                           .round = round,
                                           .rank = terms->lora.rank,
                                           .frozen_cap = terms->frozen_rank,
                                           .seed = meed_terms_seed(terms, round + 1),
                                           .pool = settle->config.pool};
}

static void tell(struct meed_settle *settle, const struct meed_cohort *cohort,
                 const struct meed_ledger_round *entry, const struct meed_aggregate_report *report)
{
    MEED_LOG_INFO("server",
                  "round %d: aggregated by %s (updates=%d update_norm=%.4g fedit_error=%.3f "
                  "retained_energy=%.4f frozen_ranks=%d)",
                  cohort->round, entry->method, report->used, report->update_norm,
                  report->fedit_error, report->retained_energy, report->frozen);
    pthread_mutex_lock(&settle->counts_lock);
    settle->counts.update_norm = report->update_norm;
    settle->counts.fedit_error = report->fedit_error;
    settle->counts.retained_energy = report->retained_energy;
    pthread_mutex_unlock(&settle->counts_lock);
}

static void name_method(const struct meed_terms *terms, struct meed_ledger_round *entry)
{
    bool plain = terms->server.rule == MEED_SERVER_NONE;
    snprintf(entry->method, sizeof entry->method, "%s%s%s%s",
             meed_aggregate_name(terms->aggregation), plain ? "" : "+",
             plain ? "" : meed_server_optimiser_name(terms->server.rule),
             terms->repair_steps > 0 ? "+repair" : "");
}

enum meed_status meed_settle_merge(struct meed_settle *settle, const struct meed_cohort *cohort,
                                   const struct meed_defence_client *verdicts,
                                   const struct meed_settle_valued *valued,
                                   struct meed_arena *arena, struct meed_ledger_round *entry)
{
    enum meed_status st = MEED_OK;
    const struct meed_terms *terms = settle->config.terms;
    struct meed_aggregate_options options = options_of(settle, cohort->round);
    struct meed_aggregate_report report;
    struct meed_adapter *next = NULL, *reference = NULL;
    void *block = NULL;
    double *weights = NULL;
    MEED_TRY_OUT(meed_settle_weights(settle, cohort, verdicts, arena, &weights));
    MEED_TRY_OUT(meed_arena_alloc_array(arena, (size_t)cohort->count + 1, sizeof(double), &block));
    double *p = block;
    for (int32_t i = 0; i < valued->players; i++) {
        int32_t at = valued->cohort_idx[i];
        p[at] = valued->clients[i].status != MEED_PAY_EXCLUDED ? weights[at] : 0.0;
    }
    if (meed_aggregate_traits(terms->aggregation)->wants_reference) {
        MEED_TRY_OUT(align(settle, cohort, cohort->global, "reference", 0, &reference));
        MEED_TRY_OUT(put_adapter(settle, reference, entry->reference_hash));
        options.reference = reference;
    }
    MEED_TRY_OUT(meed_aggregate_run(&options, cohort->global,
                                    (const struct meed_adapter *const *)cohort->adapters, p,
                                    cohort->count, &next, &report));
    if (terms->server.rule != MEED_SERVER_NONE) {
        MEED_TRY_OUT(optimise(settle, cohort, next, entry->state_hash));
    }
    if (meed_control_used(terms)) {
        MEED_TRY_OUT(advance_control(settle, cohort, p, arena));
    }
    if (terms->repair_steps > 0) {
        MEED_TRY_OUT(repair(settle, cohort, &next, entry));
    }
    MEED_TRY_OUT(put_adapter(settle, next, entry->after_hash));
    MEED_TRY_OUT(meed_store_save_stage(settle->config.store, cohort->round,
                                       MEED_REPORT_STAGE_MERGED, &report, sizeof report));
    name_method(terms, entry);
    tell(settle, cohort, entry, &report);
out:
    meed_adapter_destroy(next);
    meed_adapter_destroy(reference);
    return st;
}
