/* See aggregate.h. The strategy table, and the walk over modules that serves every row of it. */
#include "server/aggregate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "engine/adapter_split.h"
#include "server/aggregate_parts.h"

/* ---- strategies ------------------------------------------------------------------------------ */

enum trains { TRAINS_BOTH, TRAINS_B, TRAINS_IN_TURN };

struct strategy {
    struct meed_aggregate_traits traits;
    enum trains trains;
    meed_aggregate_weigh_fn weigh; /* NULL: p as given */
    meed_aggregate_merge_fn merge;
    bool counts_still; /* an unchanged update is a slot of its own, not part of g_0 */
};

static const struct strategy strategies[MEED_AGGREGATION_COUNT] = {
    [MEED_AGGREGATION_SVD] = {{.name = "svd",
                               .text = "exact mean of updates, cut to the rank",
                               .method = MEED_METHOD_FEDIT},
                              TRAINS_BOTH,
                              NULL,
                              meed_aggregate_merge_cut,
                              false},
    [MEED_AGGREGATION_FEDAVG] = {{.name = "fedavg",
                                  .text = "means of A and of B",
                                  .method = MEED_METHOD_FEDIT,
                                  .keeps_gauge = true,
                                  .wants_optimiser = true},
                                 TRAINS_BOTH,
                                 NULL,
                                 meed_aggregate_merge_mean,
                                 false},
    [MEED_AGGREGATION_FFA] = {{.name = "ffa",
                               .text = "A stays at its start, mean of B; exact",
                               .method = MEED_METHOD_FFA,
                               .keeps_gauge = true,
                               .wants_optimiser = true},
                              TRAINS_B,
                              NULL,
                              meed_aggregate_merge_mean,
                              false},
    [MEED_AGGREGATION_ROLORA] = {{.name = "rolora",
                                  .text = "B and A in turn, mean of the one trained; exact",
                                  .method = MEED_METHOD_ROLORA,
                                  .keeps_gauge = true,
                                  .wants_optimiser = true},
                                 TRAINS_IN_TURN,
                                 NULL,
                                 meed_aggregate_merge_mean,
                                 false},
    [MEED_AGGREGATION_STACK] = {{.name = "stack",
                                 .text = "exact; all updates side by side, training starts anew",
                                 .method = MEED_METHOD_FEDIT,
                                 .freezes = true,
                                 .restarts = true},
                                TRAINS_BOTH,
                                NULL,
                                meed_aggregate_merge_stack,
                                false},
    [MEED_AGGREGATION_FEDEX] = {{.name = "fedex",
                                 .text = "exact; means of A and of B, and what they miss beside",
                                 .method = MEED_METHOD_FEDIT,
                                 .freezes = true,
                                 .keeps_gauge = true},
                                TRAINS_BOTH,
                                NULL,
                                meed_aggregate_merge_fedex,
                                false},
    [MEED_AGGREGATION_MEDIAN] = {{.name = "median",
                                  .text = "median of each coordinate of ΔW",
                                  .method = MEED_METHOD_FEDIT},
                                 TRAINS_BOTH,
                                 NULL,
                                 meed_aggregate_merge_coordinate,
                                 true},
    [MEED_AGGREGATION_TRIMMED] = {{.name = "trimmed",
                                   .text = "mean of each coordinate without its extremes",
                                   .method = MEED_METHOD_FEDIT},
                                  TRAINS_BOTH,
                                  NULL,
                                  meed_aggregate_merge_coordinate,
                                  true},
    [MEED_AGGREGATION_KRUM] = {{.name = "krum",
                                .text = "the update nearest to its neighbours",
                                .method = MEED_METHOD_FEDIT},
                               TRAINS_BOTH,
                               meed_aggregate_weigh_krum,
                               meed_aggregate_merge_cut,
                               false},
    [MEED_AGGREGATION_MULTIKRUM] = {{.name = "multikrum",
                                     .text = "mean of the m nearest to their neighbours",
                                     .method = MEED_METHOD_FEDIT},
                                    TRAINS_BOTH,
                                    meed_aggregate_weigh_multikrum,
                                    meed_aggregate_merge_cut,
                                    false},
    [MEED_AGGREGATION_NORMCLIP] = {{.name = "normclip",
                                    .text = "svd of updates clipped to the median norm",
                                    .method = MEED_METHOD_FEDIT},
                                   TRAINS_BOTH,
                                   meed_aggregate_weigh_normclip,
                                   meed_aggregate_merge_cut,
                                   false},
    [MEED_AGGREGATION_FLTRUST] = {{.name = "fltrust",
                                   .text = "weights by likeness to the operator's own update",
                                   .method = MEED_METHOD_FEDIT,
                                   .wants_reference = true},
                                  TRAINS_BOTH,
                                  meed_aggregate_weigh_fltrust,
                                  meed_aggregate_merge_cut,
                                  false},
};

const struct meed_aggregate_traits *meed_aggregate_traits(enum meed_aggregation aggregation)
{
    MEED_ASSERT(aggregation >= 0 && aggregation < MEED_AGGREGATION_COUNT);
    return &strategies[aggregation].traits;
}

uint32_t meed_aggregate_trained(enum meed_aggregation aggregation, int32_t round)
{
    switch (strategies[aggregation].trains) {
    case TRAINS_B:
        return MEED_FACTOR_B;
    case TRAINS_IN_TURN:
        return round % 2 == 1 ? MEED_FACTOR_B : MEED_FACTOR_A;
    default:
        return MEED_FACTOR_A | MEED_FACTOR_B;
    }
}

const char *meed_aggregate_name(enum meed_aggregation aggregation)
{
    return aggregation >= 0 && aggregation < MEED_AGGREGATION_COUNT
               ? strategies[aggregation].traits.name
               : "?";
}

enum meed_status meed_aggregate_parse(const char *name, enum meed_aggregation *aggregation)
{
    char list[256] = "";
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        if (strcmp(name, strategies[i].traits.name) == 0) {
            *aggregation = (enum meed_aggregation)i;
            return MEED_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", strategies[i].traits.name);
    }
    return MEED_FAIL(MEED_ARG, "aggregation is one of %s, not \"%.32s\"", list, name);
}

enum meed_status meed_aggregate_check(enum meed_aggregation aggregation,
                                      const struct meed_robust_options *robust, int32_t cohort)
{
    if (aggregation < 0 || aggregation >= MEED_AGGREGATION_COUNT) {
        return MEED_FAIL(MEED_CONFIG, "no such aggregation");
    }
    meed_aggregate_weigh_fn weigh = strategies[aggregation].weigh;
    bool krum = weigh == meed_aggregate_weigh_krum || weigh == meed_aggregate_weigh_multikrum;
    if (robust->attackers < 0 || robust->selected < 0 ||
        !(robust->trim >= 0.0 && robust->trim < 0.5)) {
        return MEED_FAIL(MEED_CONFIG, "robust: attackers and selected must be at least 0, trim in "
                                      "[0, 0.5)");
    }
    if (weigh == meed_aggregate_weigh_normclip && !(robust->norm_multiple > 0.0)) {
        return MEED_FAIL(MEED_CONFIG, "robust: norm_multiple must be positive");
    }
    if (krum && cohort - robust->attackers - 2 < 1) {
        return MEED_FAIL(MEED_CONFIG,
                         "%s against %d attackers needs rounds of at least %d updates, not %d; "
                         "raise the quorum or lower robust.attackers",
                         strategies[aggregation].traits.name, robust->attackers,
                         robust->attackers + 3, cohort);
    }
    if (weigh == meed_aggregate_weigh_multikrum && robust->selected > cohort - robust->attackers) {
        return MEED_FAIL(MEED_CONFIG,
                         "multikrum cannot select %d of %d updates with %d attackers among them",
                         robust->selected, cohort, robust->attackers);
    }
    return MEED_OK;
}

struct meed_aggregate_options meed_aggregate_options_of(enum meed_aggregation aggregation)
{
    return (struct meed_aggregate_options){
        .aggregation = aggregation,
        .robust = {.trim = 0.2, .norm_multiple = 1.0},
        .round = 1,
        .frozen_cap = 128,
        .seed = 1,
    };
}

/* ---- the task of one module ------------------------------------------------------------------ */

struct job {
    const struct strategy *strategy;
    const struct meed_aggregate_options *options;
    int64_t rank; /* trained */
    int32_t slots;
    const struct meed_adapter **adapters; /* [slots], global first */
    double *gates;                        /* [slots] */
    bool stack_global;
    struct meed_adapter *fresh; /* where the strategy restarts */
    struct meed_adapter *out;
    struct meed_low_rank_energy *energies; /* [module_count] */
    enum meed_status *statuses;            /* [module_count] */
};

static enum meed_status run_module(const struct job *job, int64_t at)
{
    const struct meed_adapter_module **inputs = meed_heap_alloc((size_t)job->slots, sizeof *inputs);
    if (!inputs) {
        return MEED_NOMEM;
    }
    for (int32_t slot = 0; slot < job->slots; slot++) {
        inputs[slot] = &job->adapters[slot]->modules[at];
    }
    struct meed_aggregate_module module = {.options = job->options,
                                           .rank = job->rank,
                                           .slots = job->slots,
                                           .inputs = inputs,
                                           .gates = job->gates,
                                           .restart = job->fresh ? &job->fresh->modules[at] : NULL,
                                           .stack_global = job->stack_global,
                                           .place = (uint64_t)at,
                                           .out = &job->out->modules[at]};
    enum meed_status st = job->strategy->merge(&module, &job->energies[at]);
    meed_heap_free(inputs);
    return st;
}

static void run_modules(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    for (int64_t at = begin; at < end; at++) {
        job->statuses[at] = run_module(job, at);
    }
}

/* ---- the whole adapter ----------------------------------------------------------------------- */

static enum meed_status check_inputs(const struct meed_aggregate_options *options,
                                     const struct meed_adapter *global,
                                     const struct meed_adapter *const *clients, const double *p,
                                     int32_t count)
{
    const struct strategy *strategy = &strategies[options->aggregation];
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        if (!meed_adapter_same_shape(global, clients[i])) {
            return MEED_FAIL(MEED_FORMAT, "adapter %d has not the global adapter's shape", i);
        }
        sum += p[i];
        if (!(p[i] >= 0.0) || !(sum <= 1.0 + 1e-9)) {
            return MEED_FAIL(MEED_ARG, "weights must be at least 0 and add up to at most 1");
        }
    }
    int64_t rank = options->rank > 0 ? options->rank : global->lora.rank;
    for (int32_t m = 0; m < global->module_count; m++) {
        int64_t r = global->modules[m].r;
        if (r < rank || (r > rank && !strategy->traits.freezes)) {
            return MEED_FAIL(MEED_FORMAT, "%s trains %lld ranks, the adapter has %lld",
                             strategy->traits.name, (long long)rank, (long long)r);
        }
    }
    if (strategy->traits.wants_reference && !options->reference) {
        return MEED_FAIL(MEED_ARG, "%s needs the operator's own update", strategy->traits.name);
    }
    return options->reference && !meed_adapter_same_shape(global, options->reference)
               ? MEED_FAIL(MEED_FORMAT, "the operator's update has not the global adapter's shape")
               : MEED_OK;
}

/* Slot 0 is the global adapter; clients without weight get none, and unchanged ones only where
 * they count as updates. */
static int32_t choose_slots(struct job *job, const struct meed_adapter *global,
                            const struct meed_adapter *const *clients, const double *q,
                            int32_t count)
{
    int32_t moving = 0;
    double taken = 0.0;
    job->adapters[0] = global;
    job->slots = 1;
    for (int32_t i = 0; i < count; i++) {
        bool still = meed_adapter_equal(global, clients[i]);
        if (q[i] > 0.0 && (!still || job->strategy->counts_still)) {
            job->adapters[job->slots] = clients[i];
            job->gates[job->slots++] = q[i];
            taken += q[i];
            moving += !still;
        }
    }
    job->gates[0] = 1.0 - taken;
    return moving;
}

static bool trained_b_is_zero(const struct meed_adapter *global, int64_t rank)
{
    bool zero = true;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *module = &global->modules[m];
        for (int64_t n = 0; n < module->n; n++) {
            for (int64_t j = 0; j < rank; j++) {
                zero = zero && module->b[n * module->r + j] == 0.0f;
            }
        }
    }
    return zero;
}

/* The next adapter's shape, zero; and what starts anew. */
static enum meed_status make_out(struct job *job, const struct meed_adapter *global)
{
    const struct meed_aggregate_traits *traits = &job->strategy->traits;
    if (!traits->freezes) {
        return meed_adapter_clone(global, &job->out);
    }
    int64_t *ranks = meed_heap_alloc((size_t)global->module_count, sizeof *ranks);
    if (!ranks) {
        return MEED_NOMEM;
    }
    job->stack_global = traits->restarts && !trained_b_is_zero(global, job->rank);
    int64_t added = (job->slots - 1 + job->stack_global) * job->rank;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *module = &global->modules[m];
        ranks[m] = job->rank + meed_aggregate_frozen_after(module, module->r - job->rank, added,
                                                           job->options->frozen_cap);
    }
    enum meed_status st = meed_adapter_create_like(global, ranks, &job->out);
    for (int32_t m = 0; m < global->module_count; m++) {
        ranks[m] = job->rank;
    }
    if (st == MEED_OK && traits->restarts) {
        st = meed_adapter_create_like(global, ranks, &job->fresh);
        if (st == MEED_OK) {
            meed_adapter_init(job->fresh, job->options->seed);
        }
    }
    meed_heap_free(ranks);
    return st;
}

static void sum_up(const struct job *job, struct meed_aggregate_report *report)
{
    struct meed_low_rank_energy sum = {0.0, 0.0, 0.0, 0.0};
    for (int32_t at = 0; at < job->out->module_count; at++) {
        sum.update += job->energies[at].update;
        sum.full += job->energies[at].full;
        sum.kept += job->energies[at].kept;
        sum.fedit += job->energies[at].fedit;
    }
    report->update_norm = sqrt(sum.update);
    report->retained_energy = sum.full > 0.0 ? MEED_MIN(sum.kept / sum.full, 1.0) : 1.0;
    report->fedit_error = sum.update > 0.0 ? sqrt(sum.fedit / sum.update) : 0.0;
    report->used = job->slots - 1;
}

static enum meed_status merge_all(struct job *job, const struct meed_adapter *global,
                                  struct meed_aggregate_report *report)
{
    MEED_TRY(make_out(job, global));
    meed_pool_for(job->options->pool, global->module_count, 1, run_modules, job);
    for (int32_t at = 0; at < global->module_count; at++) {
        if (job->statuses[at] != MEED_OK) {
            return MEED_FAIL(job->statuses[at], "cannot aggregate module %d of %d (slots=%d)", at,
                             global->module_count, job->slots);
        }
    }
    sum_up(job, report);
    return MEED_OK;
}

static void job_clear(struct job *job)
{
    meed_adapter_destroy(job->out);
    meed_adapter_destroy(job->fresh);
    meed_heap_free(job->gates);
    meed_heap_free(job->adapters);
    meed_heap_free(job->energies);
    meed_heap_free(job->statuses);
}

static enum meed_status job_init(struct job *job, const struct meed_aggregate_options *options,
                                 const struct meed_adapter *global, int32_t count)
{
    size_t modules = (size_t)global->module_count;
    *job = (struct job){.strategy = &strategies[options->aggregation],
                        .options = options,
                        .rank = options->rank > 0 ? options->rank : global->lora.rank};
    job->gates = meed_heap_alloc((size_t)count + 1, sizeof *job->gates);
    job->adapters = meed_heap_alloc((size_t)count + 1, sizeof *job->adapters);
    job->energies = meed_heap_alloc(modules, sizeof *job->energies);
    job->statuses = meed_heap_alloc(modules, sizeof *job->statuses);
    return job->gates && job->adapters && job->energies && job->statuses ? MEED_OK : MEED_NOMEM;
}

enum meed_status meed_aggregate_run(const struct meed_aggregate_options *options,
                                    const struct meed_adapter *global,
                                    const struct meed_adapter *const *clients, const double *p,
                                    int32_t count, struct meed_adapter **next,
                                    struct meed_aggregate_report *report)
{
    enum meed_status st = MEED_OK;
    struct job job = {.slots = 0};
    struct meed_aggregate_report made = {.retained_energy = 1.0};
    double *q = NULL;
    MEED_TRY(check_inputs(options, global, clients, p, count));
    MEED_TRY_OUT(job_init(&job, options, global, count));
    q = meed_heap_alloc((size_t)count + 1, sizeof *q);
    if (!q) {
        st = MEED_NOMEM;
        goto out;
    }
    memcpy(q, p, (size_t)count * sizeof *q);
    if (job.strategy->weigh) {
        struct meed_aggregate_weigh weigh = {options, global, clients, p, count};
        MEED_TRY_OUT(job.strategy->weigh(&weigh, q));
    }
    if (choose_slots(&job, global, clients, q, count) == 0) {
        MEED_TRY_OUT(meed_adapter_clone(global, &job.out));
    } else {
        MEED_TRY_OUT(merge_all(&job, global, &made));
    }
    for (int32_t m = 0; m < job.out->module_count; m++) {
        made.frozen = MEED_MAX(made.frozen, (int32_t)(job.out->modules[m].r - job.rank));
    }
    *report = made;
    *next = job.out;
    job.out = NULL;
out:
    meed_heap_free(q);
    job_clear(&job);
    return st;
}
