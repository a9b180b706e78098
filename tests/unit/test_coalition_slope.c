/* Derivatives by membership on a random model: gates against difference quotients, projection
 * against gates, streamed merging against merging, and what must be exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "engine/coalition.h"
#include "tests/support/random_cohort.h"

enum { CLIENTS = 6, DIALOGUES = 6, MAX_SEQUENCES = 64, GROUPS = 2 };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *global;
static struct meed_adapter *made[CLIENTS];
static const struct meed_adapter *sent[CLIENTS]; /* 2 is null, 3 and 4 are twins */
static const double weights[CLIENTS] = {0.125, 0.25, 0.125, 0.15, 0.15, 0.2};

static int cohort_make(void **state)
{
    (void)state;
    random_cohort_open(&cohort, 2);
    random_cohort_benchmark(DIALOGUES, 1, &benchmark);
    assert_true(benchmark.sequence_count <= MAX_SEQUENCES);
    global = random_cohort_adapter(&cohort, 100, 0.2f);
    for (int k = 0; k < CLIENTS; k++) {
        made[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.2f);
        sent[k] = made[k];
    }
    made[5]->module_count = 3; /* one that reaches a few modules only */
    sent[2] = global;
    sent[4] = made[3];
    return 0;
}

static int cohort_drop(void **state)
{
    (void)state;
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(made[k]);
    }
    meed_adapter_destroy(global);
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static struct meed_coalition *evaluator(const struct meed_adapter *from,
                                        enum meed_coalition_path path, int32_t batch_tokens)
{
    struct meed_coalition *coalition = NULL;
    struct meed_coalition_options options = {.path = path,
                                             .dtype = MEED_DTYPE_F32,
                                             .batch_tokens = batch_tokens,
                                             .streamed = path == MEED_PATH_MERGE};
    assert_int_equal(meed_coalition_create(cohort.be, cohort.checkpoint, from, sent, CLIENTS,
                                           weights, &options, &coalition),
                     MEED_OK);
    return coalition;
}

static const double nodes[2] = {0.25, 0.75};
static const double node_weights[2] = {0.5, 0.5};

static void slopes_of(struct meed_coalition *coalition, double *slopes)
{
    assert_int_equal(meed_coalition_slopes(coalition, nodes, node_weights, 2, benchmark.sequences,
                                           benchmark.sequence_count, slopes, NULL, NULL),
                     MEED_OK);
}

static void slopes_are_difference_quotients(void **state)
{
    /* Goal: the slope of every sequence by every client at a node is the central difference of its
     * log-likelihood. Step 1/128: an h² error of 2.4e-4 of the largest slope, fp32
     * rounding of 20 log-probabilities over 2h below that. */
    (void)state;
    static double slopes[MAX_SEQUENCES * CLIENTS], sums[2 * MAX_SEQUENCES];
    const double at = 0.4, one = 1.0, step = 1.0 / 128;
    struct meed_coalition *c = evaluator(global, MEED_PATH_STACK, 128);
    assert_int_equal(meed_coalition_slopes(c, &at, &one, 1, benchmark.sequences,
                                           benchmark.sequence_count, slopes, NULL, NULL),
                     MEED_OK);
    double worst = 0, largest = 0;
    for (int k = 0; k < CLIENTS; k++) {
        double members[2 * CLIENTS];
        for (int i = 0; i < 2 * CLIENTS; i++) {
            members[i] = at + (i % CLIENTS == k ? (i < CLIENTS ? step : -step) : 0);
        }
        assert_int_equal(meed_coalition_score(c, members, 2, benchmark.sequences,
                                              benchmark.sequence_count, sums, NULL, NULL),
                         MEED_OK);
        for (int s = 0; s < benchmark.sequence_count; s++) {
            double quotient = (sums[s] - sums[benchmark.sequence_count + s]) / (2 * step);
            worst = fmax(worst, fabs(quotient - slopes[s * CLIENTS + k]));
            largest = fmax(largest, fabs(quotient));
        }
    }
    assert_true(largest > 0.5 && worst < 1e-3 * largest);
    meed_coalition_destroy(c);
}

static void slopes_keep_nulls_twins_and_bits(void **state)
{
    /* Goal: null clients exactly 0, twins equal bits, and a sequence's slopes do not depend on the
     * batch but for the order of fp64 sums: rows are the same bits in any batch (net.h), a device
     * may add them up in slabs. */
    (void)state;
    static double slopes[MAX_SEQUENCES * CLIENTS], again[MAX_SEQUENCES * CLIENTS];
    struct meed_coalition *wide = evaluator(global, MEED_PATH_STACK, 512);
    struct meed_coalition *narrow = evaluator(global, MEED_PATH_STACK, 24);
    slopes_of(wide, slopes);
    slopes_of(narrow, again);
    for (int i = 0; i < benchmark.sequence_count * CLIENTS; i++) {
        assert_true(fabs(slopes[i] - again[i]) <= 1e-12);
    }
    for (int s = 0; s < benchmark.sequence_count; s++) {
        assert_true(slopes[s * CLIENTS + 2] == 0);
        assert_true(slopes[s * CLIENTS + 3] == slopes[s * CLIENTS + 4]);
    }
    meed_coalition_destroy(wide);
    meed_coalition_destroy(narrow);
}

static void projection_equals_the_gates(void **state)
{
    /* Goal: ⟨G, p ΔW⟩ summed over two groups of weighted sequences is the same sum of gate slopes,
     * with and without a global adapter, to fp32 rounding of sums of many tokens. */
    (void)state;
    static double slopes[MAX_SEQUENCES * CLIENTS], mix[GROUPS * MAX_SEQUENCES];
    double projected[GROUPS * CLIENTS];
    for (int with_global = 0; with_global < 2; with_global++) {
        const struct meed_adapter *from = with_global ? global : NULL;
        struct meed_coalition *stack = evaluator(from, MEED_PATH_STACK, 128);
        struct meed_coalition *merge = evaluator(from, MEED_PATH_MERGE, 96);
        int32_t count = benchmark.sequence_count;
        for (int s = 0; s < count; s++) {
            mix[s] = s % 3 ? 0.25 * (s % 5) - 0.4 : 0;
            mix[count + s] = s % 3 ? 0 : 1.0 / (1 + s);
        }
        slopes_of(stack, slopes);
        assert_int_equal(meed_coalition_project(merge, nodes, node_weights, 2, benchmark.sequences,
                                                count, mix, GROUPS, projected, NULL, NULL),
                         MEED_OK);
        double worst = 0, largest = 0;
        for (int i = 0; i < GROUPS * CLIENTS; i++) {
            double want = 0;
            for (int s = 0; s < count; s++) {
                want += mix[i / CLIENTS * count + s] * slopes[s * CLIENTS + i % CLIENTS];
            }
            worst = fmax(worst, fabs(projected[i] - want));
            largest = fmax(largest, fabs(want));
        }
        assert_true(largest > 0.1 && worst < 2e-5 * largest);
        assert_true(projected[2] == 0 || !with_global);
        assert_true(projected[3] == projected[4]);
        meed_coalition_destroy(stack);
        meed_coalition_destroy(merge);
    }
}

static void streamed_merging_is_merging(void **state)
{
    /* Goal: coalitions through the block have the sums of the stack, before and after a projection
     * used the same networks; the second time to the bit. */
    (void)state;
    static double want[3 * MAX_SEQUENCES], got[3 * MAX_SEQUENCES], mix[MAX_SEQUENCES];
    double projected[CLIENTS];
    const double members[3 * CLIENTS] = {1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0.5, 1, 0, 0, 1, 1};
    struct meed_coalition *stack = evaluator(global, MEED_PATH_STACK, 128);
    struct meed_coalition *merge = evaluator(global, MEED_PATH_MERGE, 96);
    int32_t count = benchmark.sequence_count;
    assert_int_equal(
        meed_coalition_score(stack, members, 3, benchmark.sequences, count, want, NULL, NULL),
        MEED_OK);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(
            meed_coalition_score(merge, members, 3, benchmark.sequences, count, got, NULL, NULL),
            MEED_OK);
        for (int i = 0; i < 3 * count; i++) {
            double room = round == 0 ? 1e-5 * fabs(want[i]) : 0;
            assert_true(fabs(want[i] - got[i]) <= room);
        }
        memcpy(want, got, sizeof want);
        mix[0] = 1;
        assert_int_equal(meed_coalition_project(merge, nodes, node_weights, 2, benchmark.sequences,
                                                count, mix, 1, projected, NULL, NULL),
                         MEED_OK);
    }
    assert_int_equal(meed_coalition_project(stack, nodes, node_weights, 2, benchmark.sequences,
                                            count, mix, 1, projected, NULL, NULL),
                     MEED_STATE);
    meed_coalition_destroy(stack);
    meed_coalition_destroy(merge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_are_difference_quotients),
        cmocka_unit_test(slopes_keep_nulls_twins_and_bits),
        cmocka_unit_test(projection_equals_the_gates),
        cmocka_unit_test(streamed_merging_is_merging),
    };
    return cmocka_run_group_tests(tests, cohort_make, cohort_drop);
}
