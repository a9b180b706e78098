/* See adapter_mix.h. */
#include "engine/adapter_mix.h"

#include <math.h>
#include <string.h>
#include "engine/low_rank.h"

enum {
    SLOTS = 3
}; /* the global adapter with weight 0, to measure against; the two that are mixed */

/* One slot of the stack: columns of B, rows of A. */
static void fill_slot(const struct meed_adapter_module *from, int32_t slot,
                      struct meed_low_rank_stack *stack)
{
    double *b = stack->b + slot * stack->r * stack->n, *a = stack->a + slot * stack->r * stack->k;
    for (int64_t i = 0; i < stack->r; i++) {
        for (int64_t n = 0; n < stack->n; n++) {
            b[i * stack->n + n] = (double)from->b[n * stack->r + i];
        }
    }
    for (int64_t i = 0; i < stack->r * stack->k; i++) {
        a[i] = (double)from->a[i];
    }
}

static enum meed_status mix_module(const struct meed_adapter_module *const inputs[SLOTS],
                                   double beta, struct meed_adapter_module *out,
                                   struct meed_low_rank_energy *energy)
{
    const struct meed_adapter_module *global = inputs[0];
    const double gates[SLOTS] = {0.0, beta, 1.0 - beta};
    double scales[SLOTS];
    struct meed_low_rank_stack stack = {.n = global->n,
                                        .k = global->k,
                                        .r = global->r,
                                        .keep = global->r,
                                        .slots = SLOTS,
                                        .scale = (double)global->scale,
                                        .gates = gates,
                                        .scales = scales};
    enum meed_status st = MEED_OK;
    stack.b = meed_heap_alloc((size_t)(SLOTS * stack.r * stack.n), sizeof *stack.b);
    stack.a = meed_heap_alloc((size_t)(SLOTS * stack.r * stack.k), sizeof *stack.a);
    if (!stack.b || !stack.a) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t slot = 0; slot < SLOTS; slot++) {
        scales[slot] = (double)inputs[slot]->scale;
        fill_slot(inputs[slot], slot, &stack);
    }
    MEED_TRY_OUT(meed_low_rank_cut(&stack, global->a, out->b, out->a, energy));
    MEED_TRY_OUT(
        meed_low_rank_gauge(stack.n, stack.k, stack.r, global->b, global->a, out->b, out->a));
out:
    meed_heap_free(stack.b);
    meed_heap_free(stack.a);
    return st;
}

static enum meed_status check_shapes(const struct meed_adapter *x, const struct meed_adapter *y)
{
    return meed_adapter_same_shape(x, y)
               ? MEED_OK
               : MEED_FAIL(MEED_FORMAT, "adapters of different shapes cannot be mixed");
}

enum meed_status meed_adapter_mix_product(const struct meed_adapter *global,
                                          const struct meed_adapter *first,
                                          const struct meed_adapter *second, double beta,
                                          struct meed_adapter *out,
                                          struct meed_adapter_mix_report *report)
{
    struct meed_low_rank_energy sum = {0.0, 0.0, 0.0, 0.0};
    MEED_TRY(check_shapes(global, first));
    MEED_TRY(check_shapes(global, second));
    MEED_TRY(check_shapes(global, out));
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *inputs[SLOTS] = {&global->modules[m], &first->modules[m],
                                                           &second->modules[m]};
        struct meed_low_rank_energy energy;
        MEED_TRY(mix_module(inputs, beta, &out->modules[m], &energy));
        sum.update += energy.update;
        sum.full += energy.full;
        sum.kept += energy.kept;
        sum.fedit += energy.fedit;
    }
    bool moved = sum.update > 0.0;
    *report = (struct meed_adapter_mix_report){
        .discarded = moved ? fmax(sum.full - sum.kept, 0.0) / sum.update : 0.0,
        .factor_error = moved ? sqrt(sum.fedit / sum.update) : 0.0,
    };
    return MEED_OK;
}

enum meed_status meed_adapter_mix_factors(const struct meed_adapter *first,
                                          const struct meed_adapter *second, double beta,
                                          struct meed_adapter *out)
{
    MEED_TRY(check_shapes(first, second));
    MEED_TRY(check_shapes(first, out));
    for (int32_t m = 0; m < out->module_count; m++) {
        struct meed_adapter_module *to = &out->modules[m];
        const struct meed_adapter_module *x = &first->modules[m], *y = &second->modules[m];
        float *const outs[] = {to->a, to->b};
        const float *const xs[] = {x->a, x->b}, *const ys[] = {y->a, y->b};
        const int64_t counts[] = {to->r * to->k, to->n * to->r};
        for (int half = 0; half < 2; half++) {
            for (int64_t i = 0; i < counts[half]; i++) {
                double one = (double)xs[half][i], other = (double)ys[half][i];
                outs[half][i] = xs[half][i] == ys[half][i]
                                    ? xs[half][i]
                                    : (float)(beta * one + (1.0 - beta) * other);
            }
        }
    }
    return MEED_OK;
}
