/* What ten stacked clients cost: a gated forward over the plain one.
 *
 * Rank 16 each, so 160 columns stand beside every input; sixteen coalitions share the batch, each
 * with its own gates. By FLOPs alone a layer of Llama-3-8B should take 1.06, Llama-3.2-1B 1.09 and
 * Qwen2.5-0.5B 1.18 of the plain forward. With all gates 0 both must say the same before either is
 * timed.
 *
 * Llama-3-8B is one of its 32 layers with a vocabulary of 2,048: its head would add the same to
 * both, so the ratio is slightly too strict. On the CPU the others are one layer as well, where
 * memory allows, and their ratios have no goal.
 */
#include <math.h>
#include <stdio.h>
#include "bench/scored_cohort.h"
#include "bench/harness.h"

enum { CLIENTS = 10, RANK = 16, SETS = 16, MAX_ROWS = 8192 };

struct contestants {
    struct meed_net *net;
    const struct meed_batch *batch;
    float *logprob;
};

static enum meed_status forward(void *user)
{
    struct contestants *c = user;
    return meed_net_score(c->net, c->batch, c->logprob);
}

static enum meed_status check(struct contestants *base, struct contestants *stack,
                              enum meed_dtype dtype)
{
    static const float closed[SETS * CLIENTS];
    MEED_TRY(meed_net_set_gates(stack->net, closed, SETS));
    MEED_TRY(forward(base));
    MEED_TRY(forward(stack));
    double bound = dtype == MEED_DTYPE_F32 ? 1e-5 : 5e-2; /* sums of K and of K + R columns */
    for (int32_t i = 0; i < base->batch->loss_rows; i++) {
        double apart = fabs((double)base->logprob[i] - (double)stack->logprob[i]);
        if (!(apart <= bound * fmax(1, fabs((double)base->logprob[i])))) {
            return MEED_FAIL(MEED_NUMERIC, "closed gates: row %d has %g, the base %g", i,
                             (double)stack->logprob[i], (double)base->logprob[i]);
        }
    }
    return MEED_OK;
}

static enum meed_status race(struct contestants *base, struct contestants *stack, int turns,
                             double *ratio)
{
    float gates[SETS * CLIENTS];
    struct meed_bench_contestant contestants[] = {{"base", forward, base},
                                                  {"stack", forward, stack}};
    struct meed_bench_result result;
    for (int set = 0; set < SETS; set++) {
        for (int k = 0; k < CLIENTS; k++) {
            gates[set * CLIENTS + k] = (float)((set * 67 + 1) >> k & 1) / CLIENTS;
        }
    }
    MEED_TRY(meed_net_set_gates(stack->net, gates, SETS));
    MEED_TRY(meed_bench_race(contestants, 2, turns, &result));
    *ratio = result.ratio[1];
    return MEED_OK;
}

static enum meed_status open_nets(const struct meed_bench_cohort *cohort, enum meed_dtype dtype,
                                  int32_t rows, struct meed_net **base, struct meed_net **stack)
{
    const struct meed_adapter *adapters[CLIENTS];
    struct meed_net_options options = {.dtype = dtype, .max_rows = rows, .max_sequences = SETS};
    MEED_TRY(meed_net_create(cohort->be, cohort->checkpoint, &options, base));
    for (int k = 0; k < CLIENTS; k++) {
        adapters[k] = cohort->clients[k];
    }
    options.adapters = adapters;
    options.adapter_count = CLIENTS;
    return meed_net_create(cohort->be, cohort->checkpoint, &options, stack);
}

static enum meed_status bench_model(const struct meed_bench_machine *machine, const char *name,
                                    const struct meed_model_config *config, enum meed_dtype dtype,
                                    double goal)
{
    static float logprob[2][MAX_ROWS];
    bool host = machine->be->host_memory;
    int32_t length = machine->smoke ? 9 : host ? 17 : MAX_ROWS / SETS + 1;
    const struct meed_bench_cohort_shape shape = {name, config, CLIENTS, RANK, length, SETS, false};
    struct meed_bench_cohort cohort;
    struct meed_batch *batch = NULL;
    struct contestants base = {.logprob = logprob[0]}, stack = {.logprob = logprob[1]};
    double ratio = 0;
    char row[96];
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(meed_bench_cohort_open(machine->be, &shape, &cohort));
    MEED_TRY_OUT(meed_batch_create((length - 1) * SETS, SETS, &batch));
    for (int i = 0; i < SETS; i++) {
        MEED_ASSERT(meed_batch_add(batch, &cohort.sequences[i], i));
    }
    base.batch = stack.batch = batch;
    MEED_TRY_OUT(open_nets(&cohort, dtype, (length - 1) * SETS, &base.net, &stack.net));
    MEED_TRY_OUT(check(&base, &stack, dtype));
    MEED_TRY_OUT(race(&base, &stack, machine->smoke ? 1 : host ? 7 : 21, &ratio));
    snprintf(row, sizeof row, "%s %s: ten stacked clients / base forward", name,
             meed_dtype_name(dtype));
    meed_bench_row("stack", row, ratio, "x", host ? 0 : goal, '<');
out:
    meed_net_destroy(stack.net);
    meed_net_destroy(base.net);
    meed_batch_destroy(batch);
    meed_bench_cohort_close(&cohort);
    return st;
}

/* One layer where the machine has room for the file, two networks and their packed copies. */
static enum meed_status bench_layer(const struct meed_bench_machine *machine, const char *name,
                                    struct meed_model_config config, double goal)
{
    config.layers = 1;
    config.vocab = 2048;
    double needed = 12 * meed_bench_weights(&config), free_bytes = meed_bench_free_memory();
    if (free_bytes > 0 && free_bytes < needed) {
        printf("  %s: skipped, needs %.1f GB of memory, %.1f are free\n", name, 1e-9 * needed,
               1e-9 * free_bytes);
        return MEED_OK;
    }
    return bench_model(machine, name, &config, MEED_DTYPE_BF16, goal);
}

enum meed_status meed_suite_stack(struct meed_bench_machine *machine)
{
    struct meed_model_config tiny = meed_bench_tiny(), qwen = meed_bench_qwen();
    struct meed_model_config small = meed_bench_llama_1b(), large = meed_bench_llama_8b();
    meed_bench_heading("stack", "ten clients of rank 16 in sixteen coalitions, one forward");
    MEED_TRY(bench_model(machine, "tiny", &tiny, MEED_DTYPE_F32, 0));
    if (machine->smoke) {
        return MEED_OK;
    }
    MEED_TRY(bench_layer(machine, "llama-3-8b-layer", large, 1.12));
    if (machine->be->host_memory) {
        MEED_TRY(bench_layer(machine, "llama-3.2-1b-layer", small, 0));
        return bench_layer(machine, "qwen2.5-0.5b-layer", qwen, 0);
    }
    MEED_TRY(bench_model(machine, "llama-3.2-1b", &small, MEED_DTYPE_BF16, 1.18));
    return bench_model(machine, "qwen2.5-0.5b", &qwen, MEED_DTYPE_BF16, 1.35);
}
