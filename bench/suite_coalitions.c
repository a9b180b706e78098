/* 64 coalitions of six clients over 64 sequences of 96 tokens on the embedded model's shape.
 *
 * The same work by the planner's choice, by the stack and by merging; both paths are first checked
 * to agree. The peer (bench/peers) folds each coalition into PyTorch's weights and scores it alone.
 */
#include <math.h>
#include <stdio.h>
#include "base/clock.h"
#include "bench/harness.h"
#include "bench/shapes.h"
#include "engine/coalition.h"

enum { CLIENTS = 6, COALITIONS = 64, SEQUENCES = 64, LENGTH = 96 };

struct cohort {
    const struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *global;
    struct meed_adapter *clients[CLIENTS];
    struct meed_sequence *sequences;
    double members[COALITIONS * CLIENTS];
};

static enum meed_status score(struct cohort *cohort, enum meed_coalition_path path,
                              int32_t coalitions, double *sums, double *seconds)
{
    double weights[CLIENTS];
    const struct meed_adapter *clients[CLIENTS];
    struct meed_coalition *coalition = NULL;
    struct meed_coalition_options options = {
        .path = path, .dtype = MEED_DTYPE_F32, .batch_tokens = 2048};
    enum meed_status st = MEED_OK;
    int64_t start = meed_clock_monotonic_ns();
    for (int i = 0; i < CLIENTS; i++) {
        weights[i] = 1.0 / CLIENTS;
        clients[i] = cohort->clients[i];
    }
    MEED_TRY_OUT(meed_coalition_create(cohort->be, cohort->checkpoint, cohort->global, clients,
                                       CLIENTS, weights, &options, &coalition));
    MEED_TRY_OUT(meed_coalition_score(coalition, cohort->members, coalitions, cohort->sequences,
                                      SEQUENCES, sums, NULL, NULL));
    *seconds = meed_clock_seconds_since(start);
out:
    meed_coalition_destroy(coalition);
    return st;
}

static enum meed_status check_paths(struct cohort *cohort)
{
    static double stack[4 * SEQUENCES];
    static double merge[4 * SEQUENCES];
    double seconds = 0;
    MEED_TRY(score(cohort, MEED_PATH_STACK, 4, stack, &seconds));
    MEED_TRY(score(cohort, MEED_PATH_MERGE, 4, merge, &seconds));
    for (int i = 0; i < 4 * SEQUENCES; i++) {
        if (!(fabs(stack[i] - merge[i]) <= 1e-5 * (LENGTH - 1))) { /* nats a token, fp32 sums */
            return MEED_FAIL(MEED_NUMERIC, "stack %g and merge %g differ", stack[i], merge[i]);
        }
    }
    return MEED_OK;
}

static enum meed_status cohort_open(struct cohort *cohort, struct meed_arena *arena)
{
    struct meed_model_config config = meed_bench_tiny();
    MEED_TRY(meed_bench_checkpoint("tiny", &config, &cohort->checkpoint));
    MEED_TRY(meed_bench_adapter(&config, 1, &cohort->global));
    for (int i = 0; i < CLIENTS; i++) {
        MEED_TRY(meed_bench_adapter(&config, (uint64_t)i + 2, &cohort->clients[i]));
    }
    for (int i = 0; i < COALITIONS * CLIENTS; i++) {
        cohort->members[i] = i / CLIENTS >> i % CLIENTS & 1;
    }
    return meed_bench_sequences(config.vocab, LENGTH, SEQUENCES, arena, &cohort->sequences);
}

static enum meed_status run_paths(struct cohort *cohort)
{
    static const struct {
        const char *name;
        enum meed_coalition_path path;
    } paths[] = {{"64 coalitions, auto", MEED_PATH_AUTO},
                 {"64 coalitions, stack", MEED_PATH_STACK},
                 {"64 coalitions, merge", MEED_PATH_MERGE}};
    static double sums[COALITIONS * SEQUENCES];
    MEED_TRY(check_paths(cohort));
    for (size_t i = 0; i < MEED_COUNT(paths); i++) {
        double seconds = 0;
        MEED_TRY(score(cohort, paths[i].path, COALITIONS, sums, &seconds));
        meed_bench_row("coalitions", paths[i].name, seconds, "s", 0, '<');
        char name[64];
        snprintf(name, sizeof name, "%s, rate", paths[i].name);
        meed_bench_row("coalitions", name, (double)COALITIONS * SEQUENCES * (LENGTH - 1) / seconds,
                       "tokens/s", 0, '>');
    }
    return MEED_OK;
}

enum meed_status meed_suite_coalitions(struct meed_bench_machine *machine)
{
    static struct cohort cohort;
    struct meed_arena arena;
    enum meed_status st = MEED_OK;
    cohort = (struct cohort){.be = machine->be};
    meed_arena_init_growing(&arena, "bench data", 64 << 20);
    meed_bench_heading("coalitions", "six clients, rank 8, 64 sequences of 96 tokens, fp32");
    MEED_TRY_OUT(cohort_open(&cohort, &arena));
    MEED_TRY_OUT(run_paths(&cohort));
out:
    for (int i = 0; i < CLIENTS; i++) {
        meed_adapter_destroy(cohort.clients[i]);
    }
    meed_adapter_destroy(cohort.global);
    meed_checkpoint_close(cohort.checkpoint);
    meed_arena_clear(&arena);
    return st;
}
