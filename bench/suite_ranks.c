/* What ranks of one training say to each other, on the host: sums in rank order and small gathers
 * between processes of this machine, over loopback (kernels/collective.h).
 *
 * The vector is the gradient of a rank-16 adapter on all modules of a 1 B model. A sum is checked
 * before it is timed. Two ranks of one machine share its memory and cores, so this is a floor for
 * the collective's own work and no measure of a network.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "bench/harness.h"
#include "kernels/collective.h"

enum { VALUES = 11272192, VALUES_SMOKE = 100000, TURNS = 5, GATHERS = 2000, RANKS = 2 };

struct rank {
    struct meed_backend *be;
    struct meed_collective *collective;
    float *sum, *part;
    int64_t count;
};

static enum meed_status sum_checked(struct rank *rank)
{
    int32_t me = meed_collective_rank(rank->collective);
    for (int64_t i = 0; i < rank->count; i++) {
        rank->sum[i] = 1.0f;
        rank->part[i] = (float)(i % 1024 + me);
    }
    MEED_TRY(
        meed_collective_sum(rank->collective, rank->be, rank->sum, rank->part, rank->count, RANKS));
    for (int64_t i = 0; i < rank->count; i++) {
        if (rank->sum[i] != (float)(2 * (i % 1024) + 2)) {
            return MEED_FAIL(MEED_INTEGRITY, "the sum of two ranks is wrong at %lld", (long long)i);
        }
    }
    return MEED_OK;
}

static int by_size(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Both ranks run this; times are of the rank that asks for them, the sum's a median. */
static enum meed_status measure(struct rank *rank, double *sum_s, double *gather_s)
{
    int32_t all[RANKS];
    double turns[TURNS];
    MEED_TRY(sum_checked(rank));
    for (int turn = 0; turn < TURNS; turn++) {
        int64_t start_ns = meed_clock_monotonic_ns();
        MEED_TRY(meed_collective_sum(rank->collective, rank->be, rank->sum, rank->part, rank->count,
                                     RANKS));
        turns[turn] = meed_clock_seconds_since(start_ns);
    }
    qsort(turns, TURNS, sizeof turns[0], by_size);
    *sum_s = turns[TURNS / 2];
    int64_t start_ns = meed_clock_monotonic_ns();
    for (int32_t i = 0; i < GATHERS; i++) {
        MEED_TRY(meed_collective_gather(rank->collective, &i, sizeof i, all));
    }
    *gather_s = meed_clock_seconds_since(start_ns) / GATHERS;
    return MEED_OK;
}

static enum meed_status rank_run(int32_t me, const char *folder, int64_t count, double *sum_s,
                                 double *gather_s)
{
    enum meed_status st = MEED_OK;
    struct rank rank = {.count = count};
    struct meed_rendezvous place = {.rank = me,
                                    .world = RANKS,
                                    .folder = folder,
                                    .key = "bench",
                                    .one_machine = true,
                                    .patience_ms = 20000};
    MEED_TRY_OUT(meed_backend_open_cpu(NULL, NULL, &rank.be));
    MEED_TRY_OUT(rank.be->alloc(rank.be, (size_t)count * sizeof(float), (void **)&rank.sum));
    MEED_TRY_OUT(rank.be->alloc(rank.be, (size_t)count * sizeof(float), (void **)&rank.part));
    MEED_TRY_OUT(meed_collective_open(&place, &rank.collective));
    MEED_TRY_OUT(measure(&rank, sum_s, gather_s));
out:
    meed_collective_close(rank.collective);
    if (rank.be) {
        rank.be->free(rank.be, rank.sum);
        rank.be->free(rank.be, rank.part);
    }
    meed_backend_close(rank.be);
    return st;
}

enum meed_status meed_suite_ranks(struct meed_bench_machine *machine)
{
    char folder[] = "/tmp/meed-bench-XXXXXX", name[96];
    int64_t count = machine->smoke ? VALUES_SMOKE : VALUES;
    double sum_s = 0.0, gather_s = 0.0;
    meed_bench_heading("ranks", "two processes over loopback, sums in rank order");
    if (!mkdtemp(folder)) {
        return MEED_FAIL(MEED_IO, "no folder in /tmp for the ranks to meet");
    }
    fflush(NULL);
    pid_t other = fork();
    if (other == 0) {
        _exit(meed_status_exit_code(rank_run(1, folder, count, &sum_s, &gather_s)));
    }
    enum meed_status st = other < 0 ? MEED_FAIL(MEED_IO, "cannot start a second rank")
                                    : rank_run(0, folder, count, &sum_s, &gather_s);
    if (other > 0) {
        waitpid(other, NULL, 0);
    }
    rmdir(folder);
    MEED_TRY(st);
    double megabytes = (double)count * sizeof(float) / 1e6;
    snprintf(name, sizeof name, "sum of %.1f M values", (double)count / 1e6);
    meed_bench_row("ranks", name, sum_s * 1e3, "ms", 0, '<');
    meed_bench_row("ranks", "  each way, of a rank", megabytes, "MB", 0, '<');
    meed_bench_row("ranks", "  both ways together", 2 * megabytes / sum_s / 1e3, "GB/s", 0, '>');
    meed_bench_row("ranks", "gather of 4 bytes", gather_s * 1e6, "us", 0, '<');
    return MEED_OK;
}
