/* See settlement.h: aggregation, server optimiser, repair.
 *
 * Repair trains what was merged on the operator's data, a few steps from the same seed every time.
 * It comes last, so moments and values know nothing of it: v of what is published in the ledger is
 * that of the merged adapter, whose hash stands beside the repaired one.
 */
#include <string.h>
#include "base/rng.h"
#include "server/server_optimiser.h"
#include "server/settlement.h"

/* ---- the server optimiser's moments ---------------------------------------------------------- */

/* moments [2, count]: those after the last settled round before this one, or the first. */
static enum meed_status load_moments(const struct meed_settlement_basis *basis, int32_t round,
                                     int64_t count, float *moments)
{
    enum meed_status st = MEED_OK;
    bool found = false;
    struct meed_ledger_round entry;
    struct meed_file_map map = {NULL, 0};
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    MEED_TRY_OUT(meed_settlement_before(basis->ledger, round, &arena, &entry, &found));
    if (!found) {
        meed_server_optimiser_start(&basis->terms->server, count, moments, moments + count);
        goto out;
    }
    MEED_TRY_OUT(meed_store_map_blob(basis->store, entry.state_hash, &map));
    if (map.size == 2 * (size_t)count * sizeof *moments) {
        memcpy(moments, map.bytes, map.size);
    } else {
        st = MEED_FAIL(MEED_INTEGRITY, "the server optimiser's moments have another size than the "
                                       "adapter");
    }
    meed_file_map_close(&map);
out:
    meed_arena_clear(&arena);
    return st;
}

/* `next` takes the step; bytes become the moments after it. */
static enum meed_status optimise(const struct meed_settlement_basis *basis,
                                 const struct meed_cohort *cohort, struct meed_adapter *next,
                                 struct meed_buf *bytes)
{
    const struct meed_terms *terms = basis->terms;
    int64_t count = meed_adapter_value_count(next);
    void *block = NULL;
    MEED_TRY(meed_buf_extend(bytes, 2 * (size_t)count * sizeof(float), &block));
    float *moments = block;
    MEED_TRY(load_moments(basis, cohort->round, count, moments));
    meed_server_optimiser_step(&terms->server, cohort->global,
                               meed_terms_trained(terms, cohort->round), moments, moments + count,
                               next);
    return MEED_OK;
}

/* ---- the operator's own training ------------------------------------------------------------- */

static enum meed_status align(const struct meed_settlement_basis *basis,
                              const struct meed_cohort *cohort, const struct meed_adapter *start,
                              const char *purpose, int32_t steps, struct meed_adapter **trained)
{
    const struct meed_terms *terms = basis->terms;
    struct meed_rng rng = meed_rng_stream(terms->seed, purpose, (uint64_t)cohort->round);
    struct meed_align_request request = {.start = start,
                                         .round = cohort->round,
                                         .seed = meed_rng_u64(&rng),
                                         .rank = terms->lora.rank,
                                         .trained_factors =
                                             meed_terms_trained(terms, cohort->round),
                                         .steps = steps,
                                         .lr = terms->repair_lr};
    MEED_TRY(basis->align(basis->align_user, &request, trained));
    if (!meed_adapter_same_shape(start, *trained)) {
        meed_adapter_destroy(*trained);
        *trained = NULL;
        return MEED_FAIL(MEED_BUG, "the operator's training changed the adapter's shape");
    }
    return MEED_OK;
}

/* ---- the merge ------------------------------------------------------------------------------- */

static struct meed_aggregate_options options_of(const struct meed_settlement_basis *basis,
                                                int32_t round)
{
    const struct meed_terms *terms = basis->terms;
    return (struct meed_aggregate_options){.aggregation = terms->aggregation,
                                           .robust = terms->robust,
                                           .round = round,
                                           .rank = terms->lora.rank,
                                           .frozen_cap = terms->frozen_rank,
                                           .seed = meed_terms_seed(terms, round + 1),
                                           .pool = basis->pool};
}

/* p [cohort->count]: what the valuation ended with. */
static enum meed_status merge_weights(const struct meed_cohort *cohort,
                                      const struct meed_settlement_valued *valued,
                                      struct meed_arena *arena, double **p, bool **in)
{
    void *block = NULL, *flags = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)cohort->count + 1, sizeof(double), &block));
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)cohort->count + 1, sizeof(bool), &flags));
    *p = block;
    *in = flags;
    for (int32_t i = 0; i < valued->players; i++) {
        int32_t at = valued->cohort_idx[i];
        (*p)[at] = valued->clients[i].weight;
        (*in)[at] = (*p)[at] > 0.0;
    }
    return MEED_OK;
}

static void merge_init(struct meed_settlement_merge *merge)
{
    memset(merge, 0, sizeof *merge);
    meed_buf_init(&merge->after, MEED_ADAPTER_MAX_FILE_BYTES);
    meed_buf_init(&merge->merged, MEED_ADAPTER_MAX_FILE_BYTES);
    meed_buf_init(&merge->reference, MEED_ADAPTER_MAX_FILE_BYTES);
    meed_buf_init(&merge->moments, 2 * (size_t)MEED_ADAPTER_MAX_FILE_BYTES);
}

void meed_settlement_merge_clear(struct meed_settlement_merge *merge)
{
    meed_buf_clear(&merge->after);
    meed_buf_clear(&merge->merged);
    meed_buf_clear(&merge->reference);
    meed_buf_clear(&merge->moments);
}

enum meed_status meed_settlement_merge(const struct meed_settlement_basis *basis,
                                       const struct meed_cohort *cohort,
                                       const struct meed_settlement_valued *valued,
                                       struct meed_arena *arena,
                                       struct meed_settlement_merge *merge)
{
    enum meed_status st = MEED_OK;
    const struct meed_terms *terms = basis->terms;
    struct meed_aggregate_options options = options_of(basis, cohort->round);
    struct meed_adapter *next = NULL, *reference = NULL, *repaired = NULL;
    double *p = NULL;
    merge_init(merge);
    MEED_TRY_OUT(merge_weights(cohort, valued, arena, &p, &merge->in));
    if (meed_aggregate_traits(terms->aggregation)->wants_reference) {
        MEED_TRY_OUT(align(basis, cohort, cohort->global, "reference", 0, &reference));
        MEED_TRY_OUT(meed_adapter_pack(reference, &merge->reference));
        options.reference = reference;
    }
    MEED_TRY_OUT(meed_aggregate_run(&options, cohort->global,
                                    (const struct meed_adapter *const *)cohort->adapters, p,
                                    cohort->count, &next, &merge->report));
    if (terms->server.rule != MEED_SERVER_NONE) {
        MEED_TRY_OUT(optimise(basis, cohort, next, &merge->moments));
    }
    if (terms->repair_steps > 0) {
        MEED_TRY_OUT(meed_adapter_pack(next, &merge->merged));
        MEED_TRY_OUT(align(basis, cohort, next, "repair", terms->repair_steps, &repaired));
    }
    MEED_TRY_OUT(meed_adapter_pack(repaired ? repaired : next, &merge->after));
out:
    meed_adapter_destroy(next);
    meed_adapter_destroy(reference);
    meed_adapter_destroy(repaired);
    if (st != MEED_OK) {
        meed_settlement_merge_clear(merge);
    }
    return st;
}
