/* See aggregate.h. The strategy table, and the stacks that strategies work on. */
#include "server/aggregate.h"

#include <math.h>
#include <string.h>

/* ---- strategies ------------------------------------------------------------------------------ */

/* A strategy writes module `out` from the stack; the energies are asked for in any case. */
typedef enum meed_status (*strategy_fn)(struct meed_aggregate_stack *stack,
                                        const struct meed_adapter_module *global,
                                        struct meed_adapter_module *out,
                                        struct meed_aggregate_energy *energy);

static enum meed_status run_svd(struct meed_aggregate_stack *stack,
                                const struct meed_adapter_module *global,
                                struct meed_adapter_module *out,
                                struct meed_aggregate_energy *energy)
{
    return meed_aggregate_svd_module(stack, global->a, out->b, out->a, energy);
}

/* Means in fp64, slot by slot in their fixed order. */
static enum meed_status run_fedavg(struct meed_aggregate_stack *stack,
                                   const struct meed_adapter_module *global,
                                   struct meed_adapter_module *out,
                                   struct meed_aggregate_energy *energy)
{
    (void)global;
    for (int64_t i = 0; i < stack->r; i++) {
        for (int64_t k = 0; k < stack->k; k++) {
            double sum = 0.0;
            for (int32_t slot = 0; slot < stack->slots; slot++) {
                sum += stack->gates[slot] * stack->a[(slot * stack->r + i) * stack->k + k];
            }
            out->a[i * stack->k + k] = (float)sum;
        }
        for (int64_t n = 0; n < stack->n; n++) {
            double sum = 0.0;
            for (int32_t slot = 0; slot < stack->slots; slot++) {
                sum += stack->gates[slot] * stack->b[(slot * stack->r + i) * stack->n + n];
            }
            out->b[n * stack->r + i] = (float)sum;
        }
    }
    MEED_TRY(meed_aggregate_svd_module(stack, NULL, NULL, NULL, energy));
    energy->kept = energy->full;
    return MEED_OK;
}

static const struct {
    const char *name;
    strategy_fn run;
} strategies[MEED_AGGREGATION_COUNT] = {
    [MEED_AGGREGATION_SVD] = {"svd", run_svd},
    [MEED_AGGREGATION_FEDAVG] = {"fedavg", run_fedavg},
};

const char *meed_aggregate_name(enum meed_aggregation aggregation)
{
    return aggregation >= 0 && aggregation < MEED_AGGREGATION_COUNT ? strategies[aggregation].name
                                                                    : "?";
}

enum meed_status meed_aggregate_parse(const char *name, enum meed_aggregation *aggregation)
{
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        if (strcmp(name, strategies[i].name) == 0) {
            *aggregation = (enum meed_aggregation)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "aggregation is svd or fedavg, not \"%.32s\"", name);
}

/* ---- the task of one module ------------------------------------------------------------------ */

struct job {
    strategy_fn run;
    int32_t slots;
    const struct meed_adapter **adapters; /* [slots], global first */
    const double *gates;                  /* [slots] */
    struct meed_adapter *out;
    struct meed_aggregate_energy *energies; /* [module_count] */
    enum meed_status *statuses;             /* [module_count] */
};

static void fill_stack(const struct job *job, int64_t at, struct meed_aggregate_stack *stack,
                       double *scales)
{
    for (int32_t slot = 0; slot < job->slots; slot++) {
        const struct meed_adapter_module *module = &job->adapters[slot]->modules[at];
        scales[slot] = (double)module->scale;
        double *b = stack->b + slot * stack->r * stack->n;
        double *a = stack->a + slot * stack->r * stack->k;
        for (int64_t n = 0; n < stack->n; n++) {
            for (int64_t i = 0; i < stack->r; i++) {
                b[i * stack->n + n] = (double)module->b[n * stack->r + i];
            }
        }
        for (int64_t i = 0; i < stack->r * stack->k; i++) {
            a[i] = (double)module->a[i];
        }
    }
}

static enum meed_status run_module(const struct job *job, int64_t at)
{
    const struct meed_adapter_module *global = &job->adapters[0]->modules[at];
    size_t rows = (size_t)job->slots * (size_t)global->r;
    enum meed_status st = MEED_OK;
    double *b = meed_heap_alloc(rows * (size_t)global->n, sizeof *b);
    double *a = meed_heap_alloc(rows * (size_t)global->k, sizeof *a);
    double *scales = meed_heap_alloc((size_t)job->slots, sizeof *scales);
    if (!b || !a || !scales) {
        st = MEED_NOMEM;
        goto out;
    }
    struct meed_aggregate_stack stack = {.n = global->n,
                                         .k = global->k,
                                         .r = global->r,
                                         .slots = job->slots,
                                         .scale = (double)global->scale,
                                         .gates = job->gates,
                                         .scales = scales,
                                         .b = b,
                                         .a = a};
    fill_stack(job, at, &stack, scales);
    st = job->run(&stack, global, &job->out->modules[at], &job->energies[at]);
out:
    meed_heap_free(b);
    meed_heap_free(a);
    meed_heap_free(scales);
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

static enum meed_status check_inputs(const struct meed_adapter *global,
                                     const struct meed_adapter *const *clients, const double *p,
                                     int32_t count)
{
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
    return MEED_OK;
}

/* Slot 0 is the global adapter; clients without weight or change get none. */
static void choose_slots(struct job *job, double *gates, const struct meed_adapter *global,
                         const struct meed_adapter *const *clients, const double *p, int32_t count)
{
    job->adapters[0] = global;
    job->slots = 1;
    double taken = 0.0;
    for (int32_t i = 0; i < count; i++) {
        if (p[i] > 0.0 && !meed_adapter_equal(global, clients[i])) {
            job->adapters[job->slots] = clients[i];
            gates[job->slots++] = p[i];
            taken += p[i];
        }
    }
    gates[0] = 1.0 - taken;
    job->gates = gates;
}

static void sum_up(const struct job *job, struct meed_aggregate_report *report)
{
    struct meed_aggregate_energy sum = {0.0, 0.0, 0.0, 0.0};
    for (int32_t at = 0; at < job->out->module_count; at++) {
        sum.update += job->energies[at].update;
        sum.full += job->energies[at].full;
        sum.kept += job->energies[at].kept;
        sum.fedit += job->energies[at].fedit;
    }
    report->update_norm = sqrt(sum.update);
    report->retained_energy = sum.full > 0.0 ? MEED_MIN(sum.kept / sum.full, 1.0) : 1.0;
    report->fedit_error = sum.update > 0.0 ? sqrt(sum.fedit / sum.update) : 0.0;
}

enum meed_status meed_aggregate_run(enum meed_aggregation aggregation,
                                    const struct meed_adapter *global,
                                    const struct meed_adapter *const *clients, const double *p,
                                    int32_t count, struct meed_pool *pool,
                                    struct meed_adapter **next,
                                    struct meed_aggregate_report *report)
{
    MEED_TRY(check_inputs(global, clients, p, count));
    enum meed_status st = MEED_OK;
    struct meed_adapter *made = NULL;
    size_t modules = (size_t)global->module_count;
    struct job job = {.run = strategies[aggregation].run};
    double *gates = meed_heap_alloc((size_t)count + 1, sizeof *gates);
    job.adapters = meed_heap_alloc((size_t)count + 1, sizeof *job.adapters);
    job.energies = meed_heap_alloc(modules, sizeof *job.energies);
    job.statuses = meed_heap_alloc(modules, sizeof *job.statuses);
    if (!gates || !job.adapters || !job.energies || !job.statuses) {
        st = MEED_NOMEM;
        goto out;
    }
    choose_slots(&job, gates, global, clients, p, count);
    MEED_TRY_OUT(meed_adapter_clone(global, &made));
    job.out = made;
    if (job.slots == 1) {
        *report = (struct meed_aggregate_report){0.0, 1.0, 0.0};
    } else {
        meed_pool_for(pool, global->module_count, 1, run_modules, &job);
        for (int32_t at = 0; at < global->module_count; at++) {
            if (job.statuses[at] != MEED_OK) {
                st = MEED_FAIL(job.statuses[at], "cannot aggregate module %d of %d (slots=%d)", at,
                               global->module_count, job.slots);
                goto out;
            }
        }
        sum_up(&job, report);
    }
    *next = made;
    made = NULL;
out:
    meed_adapter_destroy(made);
    meed_heap_free(gates);
    meed_heap_free(job.adapters);
    meed_heap_free(job.energies);
    meed_heap_free(job.statuses);
    return st;
}
