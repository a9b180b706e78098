/* Sums among devices: kernels/cuda/comm_nccl.cu on the emulated device, over a libnccl.so.2 of the
 * tests' own (tests/emu/nccl).
 *
 * Goal: the bits of one process that adds in rank order, for any number of ranks and parts, vectors
 * shorter than a piece included; where one rank has no NCCL, or cannot join, all fall back to the
 * host and have the same bits. Method: ranks are forked processes, which say by their exit code
 * whether all was well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/rng.h"
#include "kernels/collective.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"
#include "tests/support/command.h"

enum { MAX_RANKS = 5, MOST = 1500 };
static char scratch[SCRATCH_BYTES];
static const struct meed_cuda_caller self = {MEED_RELEASE, sizeof(struct meed_backend)};

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static float value_of(int32_t rank, int64_t i)
{
    struct meed_rng rng = meed_rng_stream((uint64_t)rank + 7, "part", (uint64_t)i);
    return (float)(meed_rng_unit(&rng) - 0.5) * (float)(1 << (i % 20));
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d, line %d: %s\n", rank, __LINE__, meed_last_error());          \
            return __LINE__ % 200 + 1;                                                             \
        }                                                                                          \
    } while (0)

static int sum_once(struct meed_collective *collective, const struct meed_backend *be,
                    int64_t count, int32_t parts)
{
    float sum[MOST], want[MOST], part[MOST], *sum_dev = NULL, *part_dev = NULL;
    int32_t rank = meed_collective_rank(collective);
    size_t bytes = (size_t)count * sizeof(float);
    for (int64_t i = 0; i < count; i++) {
        want[i] = sum[i] = value_of(-1, i);
        part[i] = value_of(rank, i);
        for (int32_t r = 0; r < parts; r++) {
            want[i] += value_of(r, i);
        }
    }
    CHECK(be->alloc(be, bytes, (void **)&sum_dev) == MEED_OK);
    CHECK(be->alloc(be, bytes, (void **)&part_dev) == MEED_OK);
    CHECK(be->copy_to(be, sum_dev, sum, bytes) == MEED_OK);
    CHECK(be->copy_to(be, part_dev, part, bytes) == MEED_OK);
    CHECK(meed_collective_sum(collective, be, sum_dev, part_dev, count, parts) == MEED_OK);
    CHECK(be->copy_from(be, sum, sum_dev, bytes) == MEED_OK);
    CHECK(be->sync(be) == MEED_OK);
    CHECK(memcmp(sum, want, bytes) == 0);
    be->free(be, sum_dev);
    be->free(be, part_dev);
    return 0;
}

static int rank_main(int32_t rank, int32_t world, const char *key, bool devices)
{
    static const int64_t sizes[] = {1, 63, 64, 65, 129, 1023, MOST};
    struct meed_rendezvous place = {.rank = rank,
                                    .world = world,
                                    .folder = scratch,
                                    .key = key,
                                    .one_machine = true,
                                    .patience_ms = 20000};
    struct meed_collective *collective = NULL;
    struct meed_backend *be = NULL;
    struct meed_emu_mode modes[MEED_EMU_MODES];
    meed_emu_mode_list(modes);
    meed_emu_mode_set(modes[0]);
    CHECK(meed_cuda_open(self, 0, &be) == MEED_OK);
    CHECK(meed_collective_open(&place, &collective) == MEED_OK);
    CHECK(meed_collective_use_devices(collective, be) == MEED_OK);
    CHECK(meed_collective_on_devices(collective) == devices);
    for (size_t s = 0; s < MEED_COUNT(sizes); s++) {
        for (int32_t parts = 1; parts <= world; parts++) {
            int line = sum_once(collective, be, sizes[s], parts);
            if (line != 0) {
                return line;
            }
        }
    }
    meed_collective_close(collective);
    meed_backend_close(be);
    return 0;
}

/* `broken` of rank `who` (−1: none) is what its NCCL cannot do. */
static void run_ranks(int32_t world, const char *key, int32_t who, const char *broken)
{
    pid_t ranks[MAX_RANKS];
    int how = 0;
    fflush(NULL);
    for (int32_t r = 0; r < world; r++) {
        ranks[r] = fork();
        assert_true(ranks[r] >= 0);
        if (ranks[r] == 0) {
            alarm(120);
            if (r == who) {
                setenv("MEED_NCCL_STUB", broken, 1);
            }
            _exit(rank_main(r, world, key, who < 0));
        }
    }
    for (int32_t r = 0; r < world; r++) {
        assert_int_equal(waitpid(ranks[r], &how, 0), ranks[r]);
        if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
            fail_msg("rank %d of %d ended with %d", r, world, how);
        }
    }
}

static void devices_add_in_rank_order(void **state)
{
    (void)state;
    run_ranks(2, "two", -1, "");
    run_ranks(3, "three", -1, "");
    run_ranks(5, "five", -1, "");
}

static void one_rank_without_nccl_is_enough_for_the_host(void **state)
{
    (void)state;
    run_ranks(3, "no-id", 2, "id");
    run_ranks(3, "no-join", 1, "init");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_add_in_rank_order),
        cmocka_unit_test(one_rank_without_nccl_is_enough_for_the_host),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
