/* Does the planner choose well? Stack and merge timed over a grid, and the choice beside the
 * better.
 *
 * n clients of rank 16, T scored tokens a coalition; the planner is asked as an exact game asks it,
 * for 2^n coalitions. A row is the time of the path it chose over that of the better one, and its
 * name carries merge ÷ stack, so that a miss shows which way. On the CPU the embedded model in
 * fp32, on a device Llama-3.2-1B in bf16. Networks are made before the timing; both paths must
 * agree first.
 */
#include <math.h>
#include <stdio.h>
#include "bench/scored_cohort.h"
#include "bench/harness.h"

enum { RANK = 16, LENGTH = 129, MAX_TOKENS = 16384, MAX_COALITIONS = 4 };

struct path {
    const struct meed_bench_cohort *cohort;
    struct meed_coalition *coalition;
    int32_t sequences, coalitions;
    double sums[MAX_COALITIONS * MAX_TOKENS / (LENGTH - 1)];
};

static enum meed_status run_path(void *user)
{
    struct path *path = user;
    double members[MAX_COALITIONS * MEED_BENCH_MAX_CLIENTS];
    for (int32_t i = 0; i < path->coalitions; i++) {
        meed_bench_cohort_members(path->cohort, UINT32_MAX - (uint32_t)i,
                                  members + i * path->cohort->count);
    }
    return meed_coalition_score(path->coalition, members, path->coalitions, path->cohort->sequences,
                                path->sequences, path->sums, NULL, NULL);
}

static enum meed_status check(struct path *stack, struct path *merge, enum meed_dtype dtype)
{
    MEED_TRY(run_path(stack));
    MEED_TRY(run_path(merge));
    double bound = (dtype == MEED_DTYPE_F32 ? 1e-5 : 2e-2) * (LENGTH - 1); /* nats a token */
    for (int32_t i = 0; i < stack->coalitions * stack->sequences; i++) {
        if (!(fabs(stack->sums[i] - merge->sums[i]) <= bound)) {
            return MEED_FAIL(MEED_NUMERIC, "stack %g and merge %g differ", stack->sums[i],
                             merge->sums[i]);
        }
    }
    return MEED_OK;
}

static enum meed_status bench_cell(const struct meed_bench_machine *machine, struct path *stack,
                                   struct path *merge, const struct meed_coalition *planner,
                                   int32_t tokens)
{
    struct meed_bench_contestant contestants[] = {{"stack", run_path, stack},
                                                  {"merge", run_path, merge}};
    struct meed_bench_result result;
    int32_t count = stack->cohort->count;
    char name[96];
    stack->sequences = merge->sequences = tokens / (LENGTH - 1);
    stack->coalitions = merge->coalitions = tokens >= MAX_TOKENS ? 1 : MAX_COALITIONS;
    int turns = machine->smoke ? 1 : tokens >= MAX_TOKENS ? 3 : tokens > 256 ? 5 : 15;
    MEED_TRY(meed_bench_race(contestants, 2, turns, &result));
    bool merges = meed_coalition_path_of(planner, tokens, 1 << count) == MEED_PATH_MERGE;
    double chosen = merges ? result.ratio[1] : 1;
    snprintf(name, sizeof name, "%d clients, %d tokens: %s (merge / stack %.2f)", count, tokens,
             merges ? "merge" : "stack", result.ratio[1]);
    meed_bench_row("planner", name, chosen / fmin(1, result.ratio[1]), "x best", 1.10, '<');
    return MEED_OK;
}

static enum meed_status bench_clients(const struct meed_bench_machine *machine, int32_t clients)
{
    static struct path stack, merge;
    static const int32_t grid[] = {256, 2048, MAX_TOKENS};
    bool host = machine->be->host_memory || machine->smoke;
    struct meed_model_config config = host ? meed_bench_tiny() : meed_bench_llama_1b();
    enum meed_dtype dtype = host ? MEED_DTYPE_F32 : MEED_DTYPE_BF16;
    const struct meed_bench_cohort_shape shape = {
        host ? "tiny" : "llama-3.2-1b", &config, clients, RANK, LENGTH,
        MAX_TOKENS / (LENGTH - 1),      false};
    struct meed_bench_cohort cohort;
    struct meed_coalition *planner = NULL;
    enum meed_status st = MEED_OK;
    stack = merge = (struct path){.cohort = &cohort, .sequences = 1, .coalitions = 1};
    MEED_TRY_OUT(meed_bench_cohort_open(machine->be, &shape, &cohort));
    MEED_TRY_OUT(meed_bench_cohort_evaluator(&cohort, MEED_PATH_STACK, dtype, &stack.coalition));
    MEED_TRY_OUT(meed_bench_cohort_evaluator(&cohort, MEED_PATH_MERGE, dtype, &merge.coalition));
    MEED_TRY_OUT(meed_bench_cohort_evaluator(&cohort, MEED_PATH_AUTO, dtype, &planner));
    MEED_TRY_OUT(check(&stack, &merge, dtype));
    for (size_t i = 0; i < (machine->smoke ? 1 : MEED_COUNT(grid)); i++) {
        MEED_TRY_OUT(bench_cell(machine, &stack, &merge, planner, grid[i]));
    }
out:
    meed_coalition_destroy(planner);
    meed_coalition_destroy(merge.coalition);
    meed_coalition_destroy(stack.coalition);
    meed_bench_cohort_close(&cohort);
    return st;
}

enum meed_status meed_suite_planner(struct meed_bench_machine *machine)
{
    static const int32_t counts[] = {2, 4, 8, 10};
    meed_bench_heading("planner", "the path chosen against the better of stack and merge");
    for (size_t i = 0; i < MEED_COUNT(counts); i++) {
        MEED_TRY(bench_clients(machine, counts[i]));
    }
    return MEED_OK;
}
