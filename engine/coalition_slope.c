/* Derivatives of log-likelihoods by membership, along the diagonal m = (t, …, t): see coalition.h.
 *
 * The gate of client k is g_k = p_k·m_k and that of the global adapter g_0 = 1 − Σ p_j·m_j, so
 *
 *     ∂/∂m_k = p_k·(∂/∂g_k − ∂/∂g_0) = p_k·⟨G, s_k B_k A_k − s_g B_g A_g⟩
 *
 * On the stack the first form falls out of the backward pass, one gate vector a sequence, so that
 * every sequence keeps its own slopes. Without a stack the second form: the model at node t is
 * W + s_g B_g A_g + t·D with D = Σ p_k ΔW_k merged once; G is summed over nodes and sequences of a
 * group before any client is looked at, since ΔW_k does not depend on t. One projection per client
 * and group then does for all nodes.
 */
#include "engine/coalition_internal.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"

struct sloping {
    struct meed_coalition *c;
    const struct meed_sequence *sequences;
    int32_t sequence_count;
    int64_t rows_done, rows_total;
    meed_coalition_progress_fn progress;
    void *user;
    float *weight; /* [rows_capacity]: of the batch's loss rows */
};

static enum meed_status sloping_init(struct sloping *s, bool projects)
{
    struct meed_coalition *c = s->c;
    int32_t longest = 1;
    if ((c->path == MEED_PATH_MERGE) != projects || (projects && !meed_coalition_streams(c))) {
        return MEED_FAIL(MEED_STATE, "slopes by gates need the stack path and slopes by projection "
                                     "the streamed merge path");
    }
    MEED_TRY(
        meed_coalition_check_sequences(&c->checkpoint->config, s->sequences, s->sequence_count));
    for (int32_t i = 0; i < s->sequence_count; i++) {
        longest = MEED_MAX(longest, s->sequences[i].length - 1);
    }
    MEED_TRY(meed_coalition_nets_ready(c, longest, true));
    meed_batch_reset(c->batch);
    s->weight = meed_heap_alloc((size_t)c->rows_capacity, sizeof *s->weight);
    return s->weight ? MEED_OK : MEED_NOMEM;
}

static enum meed_status rows_report(struct sloping *s)
{
    s->rows_done += s->c->batch->rows;
    if (s->progress && !s->progress(s->user, s->rows_done, s->rows_total)) {
        return MEED_FAIL(MEED_CANCELLED, "the valuation was stopped");
    }
    return MEED_OK;
}

static bool is_scored(const struct meed_sequence *sequence)
{
    for (int32_t t = 1; t < sequence->length; t++) {
        if (sequence->scored[t]) {
            return true;
        }
    }
    return false;
}

/* Slots' slopes to clients': p_k·(slot − global). */
static void slopes_spread(const struct meed_coalition *c, const double *of_slots, double factor,
                          double *slopes)
{
    double global = c->has_global ? of_slots[0] : 0;
    for (int32_t k = 0; k < c->count; k++) {
        if (c->slot_of[k] != MEED_COALITION_NULL) {
            slopes[k] += factor * c->weights[k] * (of_slots[c->slot_of[k]] - global);
        }
    }
}

/* --- by the gates of the stack ------------------------------------------------------------------
 */

/* One batch: sequence i of it is sequence batch_run[i] of the caller, under gate set i. */
static enum meed_status gates_flush(struct sloping *s, const double *gates, double node_weight,
                                    double *slopes)
{
    struct meed_coalition *c = s->c;
    enum meed_status st = MEED_OK;
    int32_t sets = c->batch->sequences;
    if (sets == 0) {
        return MEED_OK;
    }
    double *dgates = meed_heap_alloc((size_t)sets * ((size_t)c->slot_count + 1), sizeof *dgates);
    if (!dgates) {
        return MEED_NOMEM;
    }
    for (int64_t i = 0; i < (int64_t)sets * c->slot_count; i++) {
        c->batch_gates[i] = (float)gates[i % c->slot_count];
    }
    for (int32_t m = 0; m < c->batch->loss_rows; m++) {
        s->weight[m] = 1.0f;
    }
    MEED_TRY_OUT(meed_net_set_gates(c->stack, c->batch_gates, sets));
    MEED_TRY_OUT(meed_net_backward(c->stack, c->batch, s->weight, 0, c->logprob, NULL, dgates));
    for (int32_t i = 0; i < sets; i++) {
        slopes_spread(c, dgates + (int64_t)i * c->slot_count, node_weight,
                      slopes + (int64_t)c->batch_run[i] * c->count);
    }
    st = rows_report(s);
    meed_batch_reset(c->batch);
out:
    meed_heap_free(dgates);
    return st;
}

static enum meed_status gates_node(struct sloping *s, double node, double node_weight,
                                   double *members, double *slopes)
{
    struct meed_coalition *c = s->c;
    for (int32_t k = 0; k < c->count; k++) {
        members[k] = node;
    }
    const double *gates = meed_coalition_gates(c, members);
    for (int32_t i = 0; i < s->sequence_count; i++) {
        if (!is_scored(&s->sequences[i])) {
            continue;
        }
        if (!meed_batch_add(c->batch, &s->sequences[i], c->batch->sequences)) {
            MEED_TRY(gates_flush(s, gates, node_weight, slopes));
            MEED_ASSERT(meed_batch_add(c->batch, &s->sequences[i], c->batch->sequences));
        }
        c->batch_run[c->batch->sequences - 1] = i;
    }
    return gates_flush(s, gates, node_weight, slopes);
}

enum meed_status meed_coalition_slopes(struct meed_coalition *coalition, const double *nodes,
                                       const double *node_weights, int32_t node_count,
                                       const struct meed_sequence *sequences,
                                       int32_t sequence_count, double *slopes,
                                       meed_coalition_progress_fn progress, void *user)
{
    enum meed_status st = MEED_OK;
    struct sloping s = {.c = coalition,
                        .sequences = sequences,
                        .sequence_count = sequence_count,
                        .progress = progress,
                        .user = user};
    double *members = NULL;
    memset(slopes, 0, (size_t)sequence_count * (size_t)coalition->count * sizeof *slopes);
    if (coalition->slot_count == (coalition->has_global ? 1 : 0)) {
        return MEED_OK; /* everybody is null */
    }
    for (int32_t i = 0; i < sequence_count; i++) {
        s.rows_total += (int64_t)node_count * (sequences[i].length - 1);
    }
    members = meed_heap_alloc((size_t)coalition->count, sizeof *members);
    if (!members) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(sloping_init(&s, false));
    for (int32_t q = 0; q < node_count; q++) {
        MEED_TRY_OUT(gates_node(&s, nodes[q], node_weights[q], members, slopes));
    }
out:
    meed_heap_free(members);
    meed_heap_free(s.weight);
    return st;
}

/* --- by projection ------------------------------------------------------------------------------
 */

struct projection {
    struct sloping base;
    struct meed_net_dense *gradient; /* G of the group at hand */
    struct meed_net_dense *anchor;   /* the global adapter, where there is one */
    double *factors;                 /* [slots] */
    double *products;                /* [slots] */
};

/* dense ← D, anchor ← s_g B_g A_g. */
static enum meed_status diagonal_prepare(struct projection *p)
{
    struct meed_coalition *c = p->base.c;
    double *members = meed_heap_alloc((size_t)c->count, sizeof *members);
    if (!members) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < c->count; k++) {
        members[k] = 1.0;
    }
    const double *gates = meed_coalition_gates(c, members);
    for (int32_t slot = 0; slot < c->slot_count; slot++) {
        /* At t = 1 the global adapter weighs 1 − Σp, at t = 0 it weighs 1. */
        p->factors[slot] = c->has_global && slot == 0 ? gates[0] - 1 : gates[slot];
    }
    meed_heap_free(members);
    meed_net_dense_zero(c->dense);
    MEED_TRY(meed_net_dense_add(c->dense, c->slots, p->factors, c->slot_count));
    if (c->has_global) {
        const double one = 1.0;
        MEED_TRY(meed_net_dense_create(c->stack, c->slots, c->slot_count, &p->anchor));
        MEED_TRY(meed_net_dense_add(p->anchor, c->slots, &one, 1));
    }
    return MEED_OK;
}

/* The model at node t. */
static enum meed_status node_merge(struct projection *p, double node)
{
    struct meed_coalition *c = p->base.c;
    const struct meed_net *from = c->stack;
    if (p->anchor) {
        MEED_TRY(meed_net_dense_shift(c->merged, c->stack, p->anchor, 1.0f));
        from = c->merged;
    }
    return meed_net_dense_shift(c->merged, from, c->dense, (float)node);
}

static enum meed_status projection_flush(struct projection *p, const double *sequence_weights,
                                         double node_weight)
{
    struct meed_coalition *c = p->base.c;
    if (c->batch->sequences == 0) {
        return MEED_OK;
    }
    for (int32_t m = 0; m < c->batch->loss_rows; m++) {
        int32_t sequence = c->batch_run[c->batch->loss_sequence[m]];
        p->base.weight[m] = (float)(node_weight * sequence_weights[sequence]);
    }
    MEED_TRY(meed_net_backward_dense(c->merged, c->batch, p->base.weight, c->logprob, p->gradient));
    MEED_TRY(rows_report(&p->base));
    meed_batch_reset(c->batch);
    return MEED_OK;
}

static enum meed_status group_gather(struct projection *p, const double *sequence_weights,
                                     double node_weight)
{
    struct meed_coalition *c = p->base.c;
    for (int32_t i = 0; i < p->base.sequence_count; i++) {
        const struct meed_sequence *sequence = &p->base.sequences[i];
        if (sequence_weights[i] == 0 || !is_scored(sequence)) {
            continue;
        }
        if (!meed_batch_add(c->batch, sequence, 0)) {
            MEED_TRY(projection_flush(p, sequence_weights, node_weight));
            MEED_ASSERT(meed_batch_add(c->batch, sequence, 0));
        }
        c->batch_run[c->batch->sequences - 1] = i;
    }
    return projection_flush(p, sequence_weights, node_weight);
}

static enum meed_status projection_init(struct projection *p)
{
    struct meed_coalition *c = p->base.c;
    size_t slots = (size_t)c->slot_count + 1;
    MEED_TRY(sloping_init(&p->base, true));
    p->factors = meed_heap_alloc(slots, sizeof *p->factors);
    p->products = meed_heap_alloc(slots, sizeof *p->products);
    if (!p->factors || !p->products) {
        return MEED_NOMEM;
    }
    return meed_net_dense_create(c->stack, c->slots, c->slot_count, &p->gradient);
}

enum meed_status meed_coalition_project(struct meed_coalition *coalition, const double *nodes,
                                        const double *node_weights, int32_t node_count,
                                        const struct meed_sequence *sequences,
                                        int32_t sequence_count, const double *sequence_weights,
                                        int32_t groups, double *slopes,
                                        meed_coalition_progress_fn progress, void *user)
{
    enum meed_status st = MEED_OK;
    struct projection p = {.base = {.c = coalition,
                                    .sequences = sequences,
                                    .sequence_count = sequence_count,
                                    .progress = progress,
                                    .user = user}};
    memset(slopes, 0, (size_t)groups * (size_t)coalition->count * sizeof *slopes);
    if (coalition->slot_count == (coalition->has_global ? 1 : 0)) {
        return MEED_OK; /* everybody is null */
    }
    for (int64_t i = 0; i < (int64_t)groups * sequence_count; i++) {
        bool used = sequence_weights[i] != 0;
        p.base.rows_total +=
            used ? (int64_t)node_count * (sequences[i % sequence_count].length - 1) : 0;
    }
    MEED_TRY_OUT(projection_init(&p));
    MEED_TRY_OUT(diagonal_prepare(&p));
    for (int32_t g = 0; g < groups; g++) {
        const double *weights = sequence_weights + (int64_t)g * sequence_count;
        meed_net_dense_zero(p.gradient);
        for (int32_t q = 0; q < node_count; q++) {
            MEED_TRY_OUT(node_merge(&p, nodes[q]));
            MEED_TRY_OUT(group_gather(&p, weights, node_weights[q]));
        }
        MEED_TRY_OUT(
            meed_net_dense_dot(p.gradient, coalition->slots, coalition->slot_count, p.products));
        slopes_spread(coalition, p.products, 1.0, slopes + (int64_t)g * coalition->count);
    }
out:
    meed_net_dense_destroy(p.gradient);
    meed_net_dense_destroy(p.anchor);
    meed_heap_free(p.factors);
    meed_heap_free(p.products);
    meed_heap_free(p.base.weight);
    return st;
}
