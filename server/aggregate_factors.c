/* Merges that work on factors: the exact cut, means, stacks, and the mean with its residual.
 *
 * fedex writes the residual Σ_k q_k B_k A_k − B̄Ā as Σ_{k≥1} q_k (B_k − B_0)(A_k − Ā): with
 * Σ q_k (A_k − Ā) = 0 the global adapter's own slot can be put in terms of the others', which saves
 * its ranks and leaves exactly what clients sent, B_k − B_0. Ā is the mean as it is published,
 * rounded to fp32: the rounding of B̄ alone stays between the result and S.
 */
#include <string.h>
#include "engine/adapter_split.h"
#include "server/aggregate_parts.h"

/* ---- the stack that energies and cuts are taken from ------------------------------------------
 */

static void fill_stack(const struct meed_aggregate_module *module,
                       struct meed_low_rank_stack *stack, double *scales)
{
    for (int32_t slot = 0; slot < module->slots; slot++) {
        const struct meed_adapter_module *from = module->inputs[slot];
        scales[slot] = (double)from->scale;
        double *b = stack->b + slot * stack->r * stack->n;
        double *a = stack->a + slot * stack->r * stack->k;
        for (int64_t n = 0; n < stack->n; n++) {
            for (int64_t i = 0; i < stack->r; i++) {
                b[i * stack->n + n] = (double)from->b[n * from->r + i];
            }
        }
        for (int64_t i = 0; i < stack->r * stack->k; i++) {
            a[i] = (double)from->a[i];
        }
    }
}

/* Energies of the trained ranks; the cut to them too if b and a are given. */
static enum meed_status run_stack(const struct meed_aggregate_module *module, float *b, float *a,
                                  struct meed_low_rank_energy *energy)
{
    const struct meed_adapter_module *global = module->inputs[0];
    size_t rows = (size_t)module->slots * (size_t)module->rank;
    enum meed_status st = MEED_OK;
    double *stack_b = meed_heap_alloc(rows * (size_t)global->n, sizeof *stack_b);
    double *stack_a = meed_heap_alloc(rows * (size_t)global->k, sizeof *stack_a);
    double *scales = meed_heap_alloc((size_t)module->slots, sizeof *scales);
    if (!stack_b || !stack_a || !scales) {
        st = MEED_NOMEM;
        goto out;
    }
    struct meed_low_rank_stack stack = {.n = global->n,
                                        .k = global->k,
                                        .r = module->rank,
                                        .keep = module->rank,
                                        .slots = module->slots,
                                        .scale = (double)global->scale,
                                        .gates = module->gates,
                                        .scales = scales,
                                        .b = stack_b,
                                        .a = stack_a};
    fill_stack(module, &stack, scales);
    st = meed_low_rank_cut(&stack, global->a, b, a, energy);
out:
    meed_heap_free(stack_b);
    meed_heap_free(stack_a);
    meed_heap_free(scales);
    return st;
}

enum meed_status meed_aggregate_measure(const struct meed_aggregate_module *module,
                                        struct meed_low_rank_energy *energy)
{
    return run_stack(module, NULL, NULL, energy);
}

enum meed_status meed_aggregate_merge_cut(const struct meed_aggregate_module *module,
                                          struct meed_low_rank_energy *energy)
{
    return run_stack(module, module->out->b, module->out->a, energy);
}

/* ---- means ----------------------------------------------------------------------------------- */

/* Trained ranks of out: means in fp64, slot by slot in their fixed order; a factor that nobody
 * trained keeps the global's bits, which a sum of its weighted copies might not. */
static void write_means(const struct meed_aggregate_module *module)
{
    const struct meed_adapter_module *global = module->inputs[0];
    struct meed_adapter_module *out = module->out;
    uint32_t trained = meed_aggregate_trained(module->options->aggregation, module->options->round);
    for (int64_t i = 0; i < module->rank; i++) {
        for (int64_t k = 0; k < out->k; k++) {
            double sum = 0.0;
            for (int32_t slot = 0; slot < module->slots; slot++) {
                sum += module->gates[slot] * (double)module->inputs[slot]->a[i * out->k + k];
            }
            out->a[i * out->k + k] =
                trained & MEED_FACTOR_A ? (float)sum : global->a[i * out->k + k];
        }
        for (int64_t n = 0; n < out->n; n++) {
            double sum = 0.0;
            for (int32_t slot = 0; slot < module->slots; slot++) {
                const struct meed_adapter_module *from = module->inputs[slot];
                sum += module->gates[slot] * (double)from->b[n * from->r + i];
            }
            out->b[n * out->r + i] =
                trained & MEED_FACTOR_B ? (float)sum : global->b[n * global->r + i];
        }
    }
}

enum meed_status meed_aggregate_merge_mean(const struct meed_aggregate_module *module,
                                           struct meed_low_rank_energy *energy)
{
    write_means(module);
    MEED_TRY(meed_aggregate_measure(module, energy));
    energy->kept = energy->full;
    return MEED_OK;
}

/* ---- ranks that are not trained ---------------------------------------------------------------
 */

int64_t meed_aggregate_frozen_after(const struct meed_adapter_module *module, int64_t frozen,
                                    int64_t added, int64_t cap)
{
    int64_t all = frozen + added;
    return all <= cap ? all : MEED_MIN(cap, MEED_MIN(module->n, module->k));
}

/* All of them, old and new, fp64: b column by column of N, a row by row of K. */
struct rest {
    int64_t cols, filled;
    double *b, *a;
};

static void rest_clear(struct rest *rest)
{
    meed_heap_free(rest->b);
    meed_heap_free(rest->a);
}

/* Starts with the global adapter's. */
static enum meed_status rest_init(struct rest *rest, const struct meed_aggregate_module *module,
                                  int64_t added)
{
    const struct meed_adapter_module *global = module->inputs[0];
    int64_t frozen = global->r - module->rank;
    rest->cols = frozen + added;
    rest->b = meed_heap_alloc((size_t)(rest->cols * global->n), sizeof *rest->b);
    rest->a = meed_heap_alloc((size_t)(rest->cols * global->k), sizeof *rest->a);
    if (!rest->b || !rest->a) {
        return MEED_NOMEM;
    }
    for (int64_t j = 0; j < frozen; j++) {
        for (int64_t n = 0; n < global->n; n++) {
            rest->b[j * global->n + n] = (double)global->b[n * global->r + module->rank + j];
        }
        for (int64_t k = 0; k < global->k; k++) {
            rest->a[j * global->k + k] = (double)global->a[(module->rank + j) * global->k + k];
        }
    }
    rest->filled = frozen;
    return MEED_OK;
}

/* Room for one slot's ranks. */
static void rest_next(struct rest *rest, const struct meed_aggregate_module *module, double **b,
                      double **a)
{
    MEED_ASSERT(rest->filled + module->rank <= rest->cols);
    *b = rest->b + rest->filled * module->out->n;
    *a = rest->a + rest->filled * module->out->k;
    rest->filled += module->rank;
}

static enum meed_status rest_cut(struct rest *rest, struct meed_adapter_module *part,
                                 struct meed_low_rank_energy *energy)
{
    const double one = 1.0, scale = (double)part->scale;
    struct meed_low_rank_energy cut;
    struct meed_low_rank_stack stack = {.n = part->n,
                                        .k = part->k,
                                        .r = rest->cols,
                                        .keep = part->r,
                                        .slots = 1,
                                        .scale = scale,
                                        .gates = &one,
                                        .scales = &scale,
                                        .b = rest->b,
                                        .a = rest->a};
    float *fallback = meed_heap_alloc((size_t)(part->r * part->k), sizeof *fallback);
    if (!fallback) {
        return MEED_NOMEM;
    }
    enum meed_status st = meed_low_rank_cut(&stack, fallback, part->b, part->a, &cut);
    meed_heap_free(fallback);
    energy->full = cut.full;
    energy->kept = cut.kept;
    return st;
}

/* Writes them behind the trained ranks of out, cut to the room there. */
static enum meed_status rest_write(struct rest *rest, const struct meed_aggregate_module *module,
                                   struct meed_low_rank_energy *energy)
{
    struct meed_adapter_module *out = module->out, part = *out;
    enum meed_status st = MEED_OK;
    MEED_ASSERT(rest->filled == rest->cols);
    part.r = out->r - module->rank;
    part.b = meed_heap_alloc((size_t)(part.n * part.r), sizeof *part.b);
    part.a = meed_heap_alloc((size_t)(part.r * part.k), sizeof *part.a);
    if (!part.b || !part.a) {
        st = MEED_NOMEM;
        goto out;
    }
    energy->kept = energy->full;
    if (part.r < rest->cols) {
        MEED_TRY_OUT(rest_cut(rest, &part, energy));
    } else {
        for (int64_t j = 0; j < part.r; j++) {
            for (int64_t n = 0; n < part.n; n++) {
                part.b[n * part.r + j] = (float)rest->b[j * part.n + n];
            }
        }
        for (int64_t i = 0; i < part.r * part.k; i++) {
            part.a[i] = (float)rest->a[i];
        }
    }
    meed_adapter_module_put(out, module->rank, &part);
out:
    meed_heap_free(part.b);
    meed_heap_free(part.a);
    return st;
}

/* ---- stack ------------------------------------------------------------------------------------
 */

static void stack_slot(struct rest *rest, const struct meed_aggregate_module *module, int32_t slot)
{
    const struct meed_adapter_module *from = module->inputs[slot];
    double *b, *a;
    rest_next(rest, module, &b, &a);
    for (int64_t j = 0; j < module->rank; j++) {
        for (int64_t n = 0; n < from->n; n++) {
            b[j * from->n + n] = module->gates[slot] * (double)from->b[n * from->r + j];
        }
    }
    for (int64_t i = 0; i < module->rank * from->k; i++) {
        a[i] = (double)from->a[i];
    }
}

enum meed_status meed_aggregate_merge_stack(const struct meed_aggregate_module *module,
                                            struct meed_low_rank_energy *energy)
{
    enum meed_status st = MEED_OK;
    struct rest rest = {.b = NULL};
    int32_t first = module->stack_global ? 0 : 1;
    MEED_TRY_OUT(rest_init(&rest, module, (module->slots - first) * module->rank));
    for (int32_t slot = first; slot < module->slots; slot++) {
        stack_slot(&rest, module, slot);
    }
    MEED_TRY_OUT(meed_aggregate_measure(module, energy));
    MEED_TRY_OUT(rest_write(&rest, module, energy));
    meed_adapter_module_put(module->out, 0, module->restart);
out:
    rest_clear(&rest);
    return st;
}

/* ---- fedex ------------------------------------------------------------------------------------
 */

static void residual_slot(struct rest *rest, const struct meed_aggregate_module *module,
                          int32_t slot)
{
    const struct meed_adapter_module *from = module->inputs[slot], *global = module->inputs[0];
    const struct meed_adapter_module *mean = module->out;
    double *b, *a;
    rest_next(rest, module, &b, &a);
    for (int64_t j = 0; j < module->rank; j++) {
        for (int64_t n = 0; n < from->n; n++) {
            b[j * from->n + n] = module->gates[slot] * ((double)from->b[n * from->r + j] -
                                                        (double)global->b[n * global->r + j]);
        }
    }
    for (int64_t i = 0; i < module->rank * from->k; i++) {
        a[i] = (double)from->a[i] - (double)mean->a[i];
    }
}

enum meed_status meed_aggregate_merge_fedex(const struct meed_aggregate_module *module,
                                            struct meed_low_rank_energy *energy)
{
    enum meed_status st = MEED_OK;
    struct rest rest = {.b = NULL};
    write_means(module);
    MEED_TRY_OUT(rest_init(&rest, module, (module->slots - 1) * module->rank));
    for (int32_t slot = 1; slot < module->slots; slot++) {
        residual_slot(&rest, module, slot);
    }
    MEED_TRY_OUT(meed_aggregate_measure(module, energy));
    MEED_TRY_OUT(rest_write(&rest, module, energy));
out:
    rest_clear(&rest);
    return st;
}
