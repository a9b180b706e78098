/* Coalitions on the embedded model's shape: 64 of six clients over 64 sequences of 96 tokens, and
 * the exact game of ten.
 *
 * The same work by the planner's choice, by the stack and by merging; both paths are first checked
 * to agree. The peer (bench/peers) folds each coalition into PyTorch's weights and scores it alone.
 *
 * The exact game asks for all 1,024 coalitions of ten clients at rank 16, and its Shapley values
 * must add up to v(N) − v(∅). On a device the same work is timed on Llama-3.2-1B over 16,384 scored
 * tokens against 1.7 times 57 s, its FLOPs at 800 TFLOP/s; there an eighth of the coalitions is
 * scored, the rest being more of the same.
 */
#include <math.h>
#include <stdio.h>
#include "base/clock.h"
#include "bench/scored_cohort.h"
#include "bench/harness.h"
#include "evaluation/shapley.h"

enum { CLIENTS = 6, COALITIONS = 64, SEQUENCES = 64, LENGTH = 96, PLAYERS = 10 };

static double sums[COALITIONS * SEQUENCES];

static enum meed_status score(const struct meed_bench_cohort *cohort, enum meed_coalition_path path,
                              enum meed_dtype dtype, int32_t coalitions, double *out,
                              double *seconds)
{
    double *members = meed_heap_alloc((size_t)(coalitions * cohort->count), sizeof *members);
    struct meed_coalition *coalition = NULL;
    enum meed_status st = members ? MEED_OK : MEED_NOMEM;
    int64_t start = meed_clock_monotonic_ns();
    MEED_TRY_OUT(st);
    for (int32_t i = 0; i < coalitions; i++) {
        meed_bench_cohort_members(cohort, (uint32_t)i, members + i * cohort->count);
    }
    MEED_TRY_OUT(meed_bench_cohort_evaluator(cohort, path, dtype, &coalition));
    MEED_TRY_OUT(meed_coalition_score(coalition, members, coalitions, cohort->sequences,
                                      cohort->sequence_count, out, NULL, NULL));
    *seconds = meed_clock_seconds_since(start);
out:
    meed_coalition_destroy(coalition);
    meed_heap_free(members);
    return st;
}

static enum meed_status check_paths(const struct meed_bench_cohort *cohort)
{
    static double stack[4 * SEQUENCES];
    static double merge[4 * SEQUENCES];
    double seconds = 0;
    MEED_TRY(score(cohort, MEED_PATH_STACK, MEED_DTYPE_F32, 4, stack, &seconds));
    MEED_TRY(score(cohort, MEED_PATH_MERGE, MEED_DTYPE_F32, 4, merge, &seconds));
    for (int i = 0; i < 4 * cohort->sequence_count; i++) {
        if (!(fabs(stack[i] - merge[i]) <= 1e-5 * (LENGTH - 1))) { /* nats a token, fp32 sums */
            return MEED_FAIL(MEED_NUMERIC, "stack %g and merge %g differ", stack[i], merge[i]);
        }
    }
    return MEED_OK;
}

static enum meed_status run_paths(const struct meed_bench_cohort *cohort, int32_t coalitions)
{
    static const struct {
        const char *name;
        enum meed_coalition_path path;
    } paths[] = {{"auto", MEED_PATH_AUTO}, {"stack", MEED_PATH_STACK}, {"merge", MEED_PATH_MERGE}};
    MEED_TRY(check_paths(cohort));
    for (size_t i = 0; i < MEED_COUNT(paths); i++) {
        double seconds = 0;
        char name[64];
        MEED_TRY(score(cohort, paths[i].path, MEED_DTYPE_F32, coalitions, sums, &seconds));
        snprintf(name, sizeof name, "%d coalitions, %s", coalitions, paths[i].name);
        meed_bench_row("coalitions", name, seconds, "s", 0, '<');
        snprintf(name, sizeof name, "%d coalitions, %s, rate", coalitions, paths[i].name);
        meed_bench_row("coalitions", name,
                       (double)coalitions * cohort->sequence_count * (LENGTH - 1) / seconds,
                       "tokens/s", 0, '>');
    }
    return MEED_OK;
}

static enum meed_status bench_paths(const struct meed_bench_machine *machine)
{
    struct meed_model_config config = meed_bench_tiny();
    const struct meed_bench_cohort_shape shape = {
        "tiny", &config, CLIENTS, 8, LENGTH, machine->smoke ? 8 : SEQUENCES, true};
    struct meed_bench_cohort cohort;
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(meed_bench_cohort_open(machine->be, &shape, &cohort));
    MEED_TRY_OUT(run_paths(&cohort, machine->smoke ? 4 : COALITIONS));
out:
    meed_bench_cohort_close(&cohort);
    return st;
}

/* --- the exact game --------------------------------------------------------------------------- */

struct exact {
    const struct meed_bench_cohort *cohort;
    struct meed_coalition *coalition;
};

/* One item: mean log-likelihood a token. */
static enum meed_status evaluate(void *user, const double *members, int32_t coalitions,
                                 double *utilities)
{
    struct exact *exact = user;
    const struct meed_bench_cohort *cohort = exact->cohort;
    int32_t count = cohort->sequence_count;
    double *values = meed_heap_alloc((size_t)(coalitions * count), sizeof *values);
    enum meed_status st = values ? MEED_OK : MEED_NOMEM;
    MEED_TRY_OUT(st);
    MEED_TRY_OUT(meed_coalition_score(exact->coalition, members, coalitions, cohort->sequences,
                                      count, values, NULL, NULL));
    for (int32_t i = 0; i < coalitions; i++) {
        utilities[i] = 0;
        for (int32_t j = 0; j < count; j++) {
            utilities[i] += values[i * count + j] / (count * (cohort->length - 1));
        }
    }
out:
    meed_heap_free(values);
    return st;
}

/* Σφ = v(N) − v(∅), to the rounding of 1,024 fp64 terms. */
static enum meed_status check_efficiency(const struct meed_shapley *values)
{
    double sum = 0;
    double whole = values->utilities[values->coalition_count - 1] - values->utilities[0];
    for (int32_t k = 0; k < values->players; k++) {
        sum += values->phi[k];
    }
    if (!(fabs(sum - whole) <= 1e-12 * fmax(1, fabs(values->utilities[0])))) {
        return MEED_FAIL(MEED_NUMERIC, "Shapley values add up to %.17g, not %.17g", sum, whole);
    }
    return MEED_OK;
}

static enum meed_status bench_exact(const struct meed_bench_machine *machine)
{
    struct meed_model_config config = meed_bench_tiny();
    const struct meed_bench_cohort_shape shape = {
        "tiny", &config, PLAYERS, 16, machine->smoke ? 9 : 33, machine->smoke ? 1 : 16, false};
    struct meed_bench_cohort cohort;
    struct exact exact = {&cohort, NULL};
    struct meed_game game = {.user = &exact, .players = PLAYERS, .items = 1, .evaluate = evaluate};
    struct meed_shapley *values = NULL;
    char name[96];
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(meed_bench_cohort_open(machine->be, &shape, &cohort));
    int64_t start = meed_clock_monotonic_ns();
    MEED_TRY_OUT(
        meed_bench_cohort_evaluator(&cohort, MEED_PATH_AUTO, MEED_DTYPE_F32, &exact.coalition));
    MEED_TRY_OUT(meed_shapley_exact(&game, &values));
    double seconds = meed_clock_seconds_since(start);
    MEED_TRY_OUT(check_efficiency(values));
    snprintf(name, sizeof name, "exact Shapley of ten, tiny f32, %d tokens",
             shape.sequences * (shape.length - 1));
    meed_bench_row("coalitions", name, seconds, "s", 0, '<');
out:
    meed_shapley_destroy(values);
    meed_coalition_destroy(exact.coalition);
    meed_bench_cohort_close(&cohort);
    return st;
}

enum { PART = 8, LARGE_LENGTH = 513, LARGE_SEQUENCES = 32 };

static enum meed_status bench_exact_1b(const struct meed_bench_machine *machine)
{
    static double large[(1 << PLAYERS) / PART * LARGE_SEQUENCES];
    struct meed_model_config config = meed_bench_llama_1b();
    const struct meed_bench_cohort_shape shape = {"llama-3.2-1b", &config,         PLAYERS, 16,
                                                  LARGE_LENGTH,   LARGE_SEQUENCES, false};
    struct meed_bench_cohort cohort;
    double first = 0, seconds = 0;
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(meed_bench_cohort_open(machine->be, &shape, &cohort));
    MEED_TRY_OUT(score(&cohort, MEED_PATH_AUTO, MEED_DTYPE_BF16, 1, large, &first));
    MEED_TRY_OUT(
        score(&cohort, MEED_PATH_AUTO, MEED_DTYPE_BF16, (1 << PLAYERS) / PART, large, &seconds));
    /* Both open a network; the difference is 127 coalitions. */
    meed_bench_row("coalitions", "exact Shapley of ten, llama-3.2-1b bf16, 16,384 tokens",
                   (seconds - first) * (1 << PLAYERS) / ((1 << PLAYERS) / PART - 1), "s", 1.7 * 57,
                   '<');
out:
    meed_bench_cohort_close(&cohort);
    return st;
}

enum meed_status meed_suite_coalitions(struct meed_bench_machine *machine)
{
    meed_bench_heading("coalitions", "six clients, rank 8, 64 sequences of 96 tokens, fp32; ten "
                                     "clients, rank 16, exact");
    MEED_TRY(bench_paths(machine));
    MEED_TRY(bench_exact(machine));
    return machine->be->host_memory || machine->smoke ? MEED_OK : bench_exact_1b(machine);
}
