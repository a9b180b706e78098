/* v(S) to the bit, on any device: alone, in any batch, in any order, run twice.
 *
 * Pay hangs on these numbers and `meed verify` recomputes them, so nothing but the coalition itself
 * may move one bit. A golden model of two layers, three clients, all eight coalitions and a few
 * fractional ones: scored together in one batch, one by one in small batches, and backwards with a
 * new evaluator, in fp32 and bf16, by stack and by merge. The emulated device runs the same
 * program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "engine/coalition.h"
#include "tests/support/small_net.h"

enum { CLIENTS = 3, COALITIONS = 10 };

static struct {
    struct small_machine machine;
    struct golden golden;
    struct meed_adapter *global;
    struct meed_adapter *clients[CLIENTS];
    double members[COALITIONS * CLIENTS];
} bench;

static int setup(void **state)
{
    (void)state;
    small_machine_open(1, &bench.machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &bench.golden);
    bench.global = small_adapter(&bench.golden, MEED_PROJ_ALL, 2, 1, 0.2f);
    for (int k = 0; k < CLIENTS; k++) {
        bench.clients[k] =
            small_adapter(&bench.golden, MEED_PROJ_ALL, 3 + k, 10 + (uint64_t)k, 0.2f);
    }
    for (int c = 0; c < COALITIONS; c++) {
        for (int k = 0; k < CLIENTS; k++) {
            double whole = (c >> k) & 1 ? 1.0 : 0.0;
            bench.members[c * CLIENTS + k] = c < 8 ? whole : 0.25 * (k + 1) + 0.125 * (c - 8);
        }
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(bench.clients[k]);
    }
    meed_adapter_destroy(bench.global);
    golden_close(&bench.golden);
    small_machine_close(&bench.machine);
    return 0;
}

/* Scores coalitions first, first + step, …; sums in their places. */
static void score(enum meed_coalition_path path, enum meed_dtype dtype, int32_t batch_tokens,
                  int32_t together, bool backwards, double *sums)
{
    static const double weights[CLIENTS] = {0.25, 0.5, 0.25};
    struct meed_coalition *coalition = NULL;
    const struct meed_coalition_options options = {
        .path = path, .dtype = dtype, .batch_tokens = batch_tokens};
    golden_ok(meed_coalition_create(bench.machine.be, bench.golden.checkpoint, bench.global,
                                    (const struct meed_adapter *const *)bench.clients, CLIENTS,
                                    weights, &options, &coalition));
    for (int32_t done = 0; done < COALITIONS; done += together) {
        int32_t count = COALITIONS - done < together ? COALITIONS - done : together;
        int32_t first = backwards ? COALITIONS - done - count : done;
        golden_ok(meed_coalition_score(coalition, bench.members + (ptrdiff_t)first * CLIENTS, count,
                                       bench.golden.sequences, GOLDEN_SEQUENCES,
                                       sums + (ptrdiff_t)first * GOLDEN_SEQUENCES, NULL, NULL));
    }
    meed_coalition_destroy(coalition);
}

static void bits_depend_on_the_coalition_alone(void **state)
{
    (void)state;
    static const enum meed_coalition_path paths[] = {MEED_PATH_STACK, MEED_PATH_MERGE};
    static const enum meed_dtype dtypes[] = {MEED_DTYPE_F32, MEED_DTYPE_BF16};
    for (size_t p = 0; p < MEED_COUNT(paths); p++) {
        for (size_t d = 0; d < MEED_COUNT(dtypes); d++) {
            double together[COALITIONS * GOLDEN_SEQUENCES];
            double other[COALITIONS * GOLDEN_SEQUENCES];
            score(paths[p], dtypes[d], 2048, COALITIONS, false, together);
            score(paths[p], dtypes[d], GOLDEN_MAX_LENGTH, 1, false, other);
            assert_memory_equal(together, other, sizeof together);
            score(paths[p], dtypes[d], 150, 4, true, other);
            assert_memory_equal(together, other, sizeof together);
            score(paths[p], dtypes[d], 2048, COALITIONS, false, other);
            assert_memory_equal(together, other, sizeof together);
            for (int i = 0; i < COALITIONS * GOLDEN_SEQUENCES; i++) {
                assert_true(isfinite(together[i]) && together[i] < 0);
            }
            assert_true(memcmp(together, together + 7 * GOLDEN_SEQUENCES,
                               GOLDEN_SEQUENCES * sizeof *together) != 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_depend_on_the_coalition_alone)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
