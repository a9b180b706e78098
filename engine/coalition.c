/* See coalition.h. This file folds a cohort into slots; coalition_score.c runs it, coalition_plan.c
 * chooses the path.
 *
 * Folding happens once, by comparing factors, and never by comparing scores: a null player is null
 * because its update is, not because a benchmark failed to notice. What counts as equal is bits, so
 * that an update that differs by one ulp is valued as the different update it is.
 */
#include "engine/coalition_internal.h"

#include <math.h>
#include <string.h>

static bool all_zero(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (values[i] != 0.0f) {
            return false;
        }
    }
    return true;
}

/* B·A is zero because one of the factors is: a fresh adapter, or none. */
static bool product_is_zero(const struct meed_adapter *adapter)
{
    for (int32_t i = 0; adapter && i < adapter->module_count; i++) {
        const struct meed_adapter_module *module = &adapter->modules[i];
        if (!all_zero(module->b, module->n * module->r) &&
            !all_zero(module->a, module->r * module->k)) {
            return false;
        }
    }
    return true;
}

static enum meed_status weights_check(const double *weights, int32_t count)
{
    double sum = 0;
    for (int32_t k = 0; k < count; k++) {
        if (!(weights[k] >= 0) || !isfinite(weights[k])) {
            return MEED_FAIL(MEED_ARG,
                             "the weight of client %d is %g; weights are numbers from 0 up", k,
                             weights[k]);
        }
        sum += weights[k];
    }
    if (sum > 1 + 1e-6) {
        return MEED_FAIL(MEED_ARG,
                         "the cohort's weights sum to %.9g; they may not pass 1, since the gate of "
                         "the global adapter is what they leave over",
                         sum);
    }
    return MEED_OK;
}

/* Gives every client a slot: none if null, an equal client's if there is one, else a new one. */
static void slots_fold(struct meed_coalition *c, const struct meed_adapter *global,
                       const struct meed_adapter *const *clients)
{
    bool global_is_zero = product_is_zero(global);
    c->has_global = !global_is_zero;
    if (c->has_global) {
        c->slots[c->slot_count++] = global;
    }
    for (int32_t k = 0; k < c->count; k++) {
        bool unchanged = global && meed_adapter_equal(clients[k], global);
        bool both_zero = global_is_zero && product_is_zero(clients[k]);
        c->kind_of[k] = k;
        c->slot_of[k] = MEED_COALITION_NULL;
        if (unchanged || both_zero || c->weights[k] == 0) {
            continue;
        }
        for (int32_t before = 0; before < k && c->slot_of[k] < 0; before++) {
            if (c->slot_of[before] >= 0 && meed_adapter_equal(clients[k], clients[before])) {
                c->slot_of[k] = c->slot_of[before];
            }
        }
        if (c->slot_of[k] < 0) {
            c->slot_of[k] = c->slot_count;
            c->slots[c->slot_count++] = clients[k];
        }
        for (int32_t before = k - 1; before >= 0; before--) {
            if (c->slot_of[before] == c->slot_of[k] && c->weights[before] == c->weights[k]) {
                c->kind_of[k] = c->kind_of[before];
            }
        }
    }
}

enum meed_status meed_coalition_create(const struct meed_backend *be,
                                       const struct meed_checkpoint *checkpoint,
                                       const struct meed_adapter *global,
                                       const struct meed_adapter *const *clients, int32_t count,
                                       const double *weights,
                                       const struct meed_coalition_options *options,
                                       struct meed_coalition **coalition)
{
    if (count < 1 || options->batch_tokens < 1) {
        return MEED_FAIL(MEED_ARG,
                         "a cohort of %d clients with batches of %d tokens cannot be scored; both "
                         "must be at least 1",
                         count, options->batch_tokens);
    }
    if (options->path == MEED_PATH_MERGE && options->base != MEED_BLOCK_NONE) {
        return MEED_FAIL(MEED_ARG,
                         "coalitions cannot be merged into a base held as %s; take the stack path, "
                         "or a dense base",
                         meed_block_format_name(options->base));
    }
    MEED_TRY(weights_check(weights, count));
    struct meed_coalition *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = be;
    made->checkpoint = checkpoint;
    made->options = *options;
    made->path = options->path;
    made->count = count;
    made->slots = meed_heap_alloc((size_t)count + 1, sizeof(void *));
    made->slot_of = meed_heap_alloc((size_t)count, sizeof(int32_t));
    made->kind_of = meed_heap_alloc((size_t)count, sizeof(int32_t));
    made->weights = meed_heap_alloc((size_t)count, sizeof(double));
    made->gates = meed_heap_alloc((size_t)count + 1, sizeof(double));
    if (!made->slots || !made->slot_of || !made->kind_of || !made->weights || !made->gates) {
        meed_coalition_destroy(made);
        return MEED_NOMEM;
    }
    memcpy(made->weights, weights, (size_t)count * sizeof(double));
    slots_fold(made, global, clients);
    *coalition = made;
    return MEED_OK;
}

void meed_coalition_destroy(struct meed_coalition *coalition)
{
    if (coalition) {
        meed_net_destroy(coalition->stack);
        meed_net_destroy(coalition->merged);
        meed_net_dense_destroy(coalition->dense);
        meed_batch_destroy(coalition->batch);
        meed_heap_free(coalition->logprob);
        meed_heap_free(coalition->batch_coalition);
        meed_heap_free(coalition->batch_run);
        meed_heap_free(coalition->batch_gates);
        meed_heap_free((void *)coalition->slots);
        meed_heap_free(coalition->slot_of);
        meed_heap_free(coalition->kind_of);
        meed_heap_free(coalition->weights);
        meed_heap_free(coalition->gates);
        meed_heap_free(coalition);
    }
}

bool meed_coalition_is_null(const struct meed_coalition *coalition, int32_t idx)
{
    MEED_ASSERT(idx >= 0 && idx < coalition->count);
    return coalition->slot_of[idx] == MEED_COALITION_NULL;
}

int32_t meed_coalition_twin_of(const struct meed_coalition *coalition, int32_t idx)
{
    MEED_ASSERT(idx >= 0 && idx < coalition->count);
    return coalition->kind_of[idx];
}

void meed_coalition_canonical(const struct meed_coalition *coalition, const double *members,
                              double *canonical)
{
    for (int32_t k = 0; k < coalition->count; k++) {
        double value = coalition->slot_of[k] == MEED_COALITION_NULL ? 0.0 : members[k];
        /* Insertion into the places of this client's kind, largest member first. */
        int32_t place = k;
        for (int32_t before = k - 1; before >= 0; before--) {
            if (coalition->kind_of[before] == coalition->kind_of[k] && canonical[before] < value) {
                canonical[place] = canonical[before];
                place = before;
            }
        }
        canonical[place] = value;
    }
}

const double *meed_coalition_gates(struct meed_coalition *coalition, const double *canonical)
{
    double *gates = coalition->gates;
    double left = 1;
    memset(gates, 0, (size_t)coalition->slot_count * sizeof *gates);
    for (int32_t k = 0; k < coalition->count; k++) {
        if (coalition->slot_of[k] != MEED_COALITION_NULL) {
            gates[coalition->slot_of[k]] += coalition->weights[k] * canonical[k];
        }
    }
    for (int32_t slot = coalition->has_global ? 1 : 0; slot < coalition->slot_count; slot++) {
        left -= gates[slot];
    }
    if (coalition->has_global) {
        gates[0] = left;
    }
    return gates;
}
