/* Coalitions on a random tiny model: both paths against each other and against evaluators
 * of a single adapter, bit-equality under batching and threads, folding of null and equal clients.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "engine/coalition_internal.h"
#include "tests/support/random_cohort.h"

enum { CLIENTS = 6, COALITIONS = 1 << CLIENTS, DIALOGUES = 6, SEQUENCES = 2 * DIALOGUES };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *global;
static struct meed_adapter *clients[CLIENTS];
static const double weights[CLIENTS] = {0.125, 0.25, 0.125, 0.1, 0.2, 0.2};

static int cohort_make(void **state)
{
    (void)state;
    random_cohort_open(&cohort, 2);
    random_cohort_benchmark(DIALOGUES, 1, &benchmark);
    global = random_cohort_adapter(&cohort, 100, 0.2f);
    for (int k = 0; k < CLIENTS; k++) {
        clients[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.2f);
    }
    return 0;
}

static int cohort_drop(void **state)
{
    (void)state;
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(clients[k]);
    }
    meed_adapter_destroy(global);
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static struct meed_coalition *evaluator(const struct meed_adapter *from,
                                        struct meed_adapter *const *of, const double *p,
                                        enum meed_coalition_path path, int32_t batch_tokens)
{
    struct meed_coalition *made = NULL;
    struct meed_coalition_options options = {
        .path = path, .dtype = MEED_DTYPE_F32, .batch_tokens = batch_tokens};
    assert_int_equal(meed_coalition_create(cohort.be, cohort.checkpoint, from,
                                           (const struct meed_adapter *const *)of, CLIENTS, p,
                                           &options, &made),
                     MEED_OK);
    return made;
}

static void members_fill(double *members)
{
    for (int mask = 0; mask < COALITIONS; mask++) {
        for (int k = 0; k < CLIENTS; k++) {
            members[mask * CLIENTS + k] = (mask >> k) & 1 ? 1.0 : 0.0;
        }
    }
}

static void score(struct meed_coalition *coalition, const double *members, int32_t count,
                  double *sums)
{
    assert_int_equal(meed_coalition_score(coalition, members, count, benchmark.sequences, SEQUENCES,
                                          sums, NULL, NULL),
                     MEED_OK);
}

static void coalition_stack_equals_merge_in_all_64_coalitions(void **state)
{
    /* Goal: gates on stacked factors and weights folded into W give the same sums to 1e-5 of their
     * size, all 64 coalitions of six clients over a global adapter. */
    (void)state;
    static double members[COALITIONS * CLIENTS];
    static double stack[COALITIONS * SEQUENCES];
    static double merge[COALITIONS * SEQUENCES];
    members_fill(members);
    struct meed_coalition *one = evaluator(global, clients, weights, MEED_PATH_STACK, 256);
    struct meed_coalition *other = evaluator(global, clients, weights, MEED_PATH_MERGE, 256);
    score(one, members, COALITIONS, stack);
    score(other, members, COALITIONS, merge);
    double spread = 0;
    for (int i = 0; i < COALITIONS * SEQUENCES; i++) {
        assert_true(fabs(stack[i] - merge[i]) <= 1e-5 * fabs(merge[i]));
        spread = fmax(spread, fabs(stack[i] - stack[i % SEQUENCES]));
    }
    assert_true(spread > 0.1); /* the clients do change the model */
    meed_coalition_destroy(one);
    meed_coalition_destroy(other);
}

static void coalition_full_equals_a_model_with_one_averaged_update(void **state)
{
    /* Goal: with one client of weight 1 the full coalition is the client's adapter alone and the
     * empty one the global adapter alone: the same sums as evaluators that know only those. */
    (void)state;
    static const double all_on_one[CLIENTS] = {0, 0, 1, 0, 0, 0};
    static const double nothing[CLIENTS] = {0};
    double members[2 * CLIENTS] = {0};
    double sums[2 * SEQUENCES];
    double alone[SEQUENCES];
    members[CLIENTS + 2] = 1;
    struct meed_coalition *both = evaluator(global, clients, all_on_one, MEED_PATH_STACK, 128);
    score(both, members, 2, sums);
    meed_coalition_destroy(both);
    for (int which = 0; which < 2; which++) {
        struct meed_coalition *only =
            evaluator(which ? clients[2] : global, clients, nothing, MEED_PATH_STACK, 128);
        score(only, members, 1, alone);
        for (int i = 0; i < SEQUENCES; i++) {
            assert_true(fabs(sums[which * SEQUENCES + i] - alone[i]) < 1e-5 * fabs(alone[i]));
        }
        meed_coalition_destroy(only);
    }
}

static void coalition_bits_do_not_depend_on_batch_or_threads(void **state)
{
    /* Goal: 64 coalitions together, each alone, in batches of 21 and 1,000 rows, on 1 and 2
     * threads, in reverse order: the same bits, on both paths. */
    (void)state;
    static double members[COALITIONS * CLIENTS];
    static double reversed[COALITIONS * CLIENTS];
    static double expected[COALITIONS * SEQUENCES];
    static double got[COALITIONS * SEQUENCES];
    members_fill(members);
    for (int i = 0; i < COALITIONS; i++) {
        memcpy(reversed + i * CLIENTS, members + (COALITIONS - 1 - i) * CLIENTS,
               CLIENTS * sizeof *members);
    }
    static const int32_t batches[] = {1000, 21, 300};
    for (int path = MEED_PATH_STACK; path <= MEED_PATH_MERGE; path++) {
        for (int variant = 0; variant < 6; variant++) {
            random_cohort_threads(&cohort, variant % 2 ? 1 : 2);
            struct meed_coalition *c = evaluator(
                global, clients, weights, (enum meed_coalition_path)path, batches[variant / 2]);
            score(c, variant == 5 ? reversed : members, COALITIONS, variant ? got : expected);
            for (int i = 0; variant && i < COALITIONS; i++) {
                int from = variant == 5 ? COALITIONS - 1 - i : i;
                assert_memory_equal(got + from * SEQUENCES, expected + i * SEQUENCES,
                                    SEQUENCES * sizeof *got);
            }
            for (int i = 0; variant == 1 && i < COALITIONS; i += 9) {
                score(c, members + i * CLIENTS, 1, got);
                assert_memory_equal(got, expected + i * SEQUENCES, SEQUENCES * sizeof *got);
            }
            meed_coalition_destroy(c);
        }
    }
    random_cohort_threads(&cohort, 2);
}

struct tally {
    int64_t total;
    int calls;
    int stop_at;
};

static bool tally_progress(void *user, int64_t done, int64_t total)
{
    struct tally *tally = user;
    assert_true(done > 0 && done <= total);
    tally->total = total;
    return ++tally->calls != tally->stop_at;
}

static void coalition_folds_null_and_equal_clients(void **state)
{
    /* Goal: client 1 returned the global adapter, 3 and 4 sent the same update with the same
     * weight, 5 has weight 0. Of 64 coalitions 2·3·2 differ; those alike have equal bits; rows are
     * counted for the distinct ones. */
    (void)state;
    static const double p[CLIENTS] = {0.2, 0.2, 0.2, 0.15, 0.15, 0};
    struct meed_adapter *sent[CLIENTS] = {clients[0], global,     clients[2],
                                          clients[3], clients[3], clients[5]};
    static double members[COALITIONS * CLIENTS];
    static double sums[COALITIONS * SEQUENCES];
    members_fill(members);
    struct meed_coalition *c = evaluator(global, sent, p, MEED_PATH_STACK, 200);
    for (int k = 0; k < CLIENTS; k++) {
        assert_true(meed_coalition_is_null(c, k) == (k == 1 || k == 5));
    }
    struct tally tally = {0};
    assert_int_equal(meed_coalition_score(c, members, COALITIONS, benchmark.sequences, SEQUENCES,
                                          sums, tally_progress, &tally),
                     MEED_OK);
    assert_true(tally.total == 12 * benchmark.tokens);
    for (int mask = 0; mask < COALITIONS; mask++) {
        int alike = mask & ~(2 | 32);
        alike = (alike & 24) == 16 ? alike ^ 24 : alike; /* {4} is {3} */
        assert_memory_equal(sums + mask * SEQUENCES, sums + alike * SEQUENCES,
                            SEQUENCES * sizeof *sums);
    }
    meed_coalition_destroy(c);
    /* Without a global adapter, a fresh adapter (B zero) is null. */
    struct meed_adapter *fresh = random_cohort_adapter(&cohort, 1, 0.0f);
    meed_adapter_init(fresh, 7);
    sent[1] = fresh;
    c = evaluator(NULL, sent, p, MEED_PATH_STACK, 200);
    assert_true(meed_coalition_is_null(c, 1) && !meed_coalition_is_null(c, 0));
    meed_coalition_destroy(c);
    c = evaluator(global, sent, p, MEED_PATH_STACK, 200);
    assert_false(meed_coalition_is_null(c, 1)); /* here it takes the global adapter away */
    meed_coalition_destroy(c);
    meed_adapter_destroy(fresh);
}

static void coalition_gates_leave_the_rest_to_the_global_adapter(void **state)
{
    /* Goal: g_k = p_k·m_k, g_0 = 1 − Σ, for whole and fractional members. */
    (void)state;
    struct meed_coalition *c = evaluator(global, clients, weights, MEED_PATH_STACK, 200);
    const double members[CLIENTS] = {1, 0, 0.5, 0, 0.25, 1};
    double canonical[CLIENTS];
    meed_coalition_canonical(c, members, canonical);
    assert_memory_equal(canonical, members, sizeof members);
    const double *gates = meed_coalition_gates(c, canonical);
    double left = 1;
    for (int k = 0; k < CLIENTS; k++) {
        assert_true(gates[1 + k] == weights[k] * members[k]);
        left -= weights[k] * members[k];
    }
    assert_true(fabs(gates[0] - left) < 1e-15);
    meed_coalition_destroy(c);
}

static void coalition_shares_one_forward_between_masks(void **state)
{
    /* Goal: a sequence given three times with different masks costs one run, and each sum is over
     * its own tokens: all = first half + second half. */
    (void)state;
    struct meed_sequence three[4];
    uint8_t masks[3][32] = {{0}};
    struct meed_sequence *whole = &benchmark.sequences[0];
    for (int32_t t = 1; t < whole->length; t++) {
        masks[0][t] = 1;
        masks[t <= whole->length / 2 ? 1 : 2][t] = 1;
    }
    for (int i = 0; i < 3; i++) {
        three[i] = *whole;
        three[i].scored = masks[i];
    }
    uint8_t none[32] = {0};
    three[3] = benchmark.sequences[1];
    three[3].scored = none; /* nothing scored: no run, sum 0 */
    struct meed_coalition *c = evaluator(global, clients, weights, MEED_PATH_STACK, 200);
    const double members[CLIENTS] = {1, 1};
    double sums[4];
    struct tally tally = {0};
    assert_int_equal(meed_coalition_score(c, members, 1, three, 4, sums, tally_progress, &tally),
                     MEED_OK);
    assert_true(tally.total == whole->length - 1);
    assert_true(fabs(sums[0] - (sums[1] + sums[2])) < 1e-12 * fabs(sums[0]));
    assert_true(sums[1] < 0 && sums[2] < 0 && sums[3] == 0);
    meed_coalition_destroy(c);
}

static void coalition_stops_and_refuses(void **state)
{
    /* Goal: a progress callback cancels; bad weights, members, tokens and values are named. */
    (void)state;
    double sums[SEQUENCES];
    double members[CLIENTS] = {1, 1, 1, 1, 1, 1};
    struct meed_coalition *c = evaluator(global, clients, weights, MEED_PATH_STACK, 50);
    struct tally tally = {.stop_at = 1};
    assert_int_equal(meed_coalition_score(c, members, 1, benchmark.sequences, SEQUENCES, sums,
                                          tally_progress, &tally),
                     MEED_CANCELLED);
    score(c, members, 1, sums); /* and can go on */
    members[3] = 1.5;
    assert_int_equal(
        meed_coalition_score(c, members, 1, benchmark.sequences, SEQUENCES, sums, NULL, NULL),
        MEED_ARG);
    members[3] = 1;
    int32_t kept = benchmark.sequences[2].ids[1];
    benchmark.sequences[2].ids[1] = 61;
    assert_int_equal(
        meed_coalition_score(c, members, 1, benchmark.sequences, SEQUENCES, sums, NULL, NULL),
        MEED_ARG);
    benchmark.sequences[2].ids[1] = kept;
    meed_coalition_destroy(c);
    static const double heavy[CLIENTS] = {0.5, 0.5, 0.5};
    struct meed_coalition_options options = {
        .path = MEED_PATH_STACK, .dtype = MEED_DTYPE_F32, .batch_tokens = 50};
    struct meed_coalition *none = NULL;
    const struct meed_adapter *const *of = (const struct meed_adapter *const *)clients;
    assert_int_equal(meed_coalition_create(cohort.be, cohort.checkpoint, global, of, CLIENTS, heavy,
                                           &options, &none),
                     MEED_ARG);
    assert_null(none);
    struct meed_adapter *broken = random_cohort_adapter(&cohort, 3, NAN);
    struct meed_adapter *sent[CLIENTS] = {broken,     clients[1], clients[2],
                                          clients[3], clients[4], clients[5]};
    c = evaluator(global, sent, weights, MEED_PATH_STACK, 50);
    assert_int_equal(
        meed_coalition_score(c, members, 1, benchmark.sequences, SEQUENCES, sums, NULL, NULL),
        MEED_NUMERIC);
    meed_coalition_destroy(c);
    meed_adapter_destroy(broken);
}

static void coalition_planner_prefers_merging_for_many_tokens(void **state)
{
    /* Goal: AUTO is STACK for short coalitions, MERGE for long ones, with one crossover, and a path
     * that was asked for is kept. */
    (void)state;
    struct meed_coalition *c = evaluator(global, clients, weights, MEED_PATH_AUTO, 50);
    assert_int_equal(meed_coalition_path_of(c, 10, 64), MEED_PATH_STACK);
    assert_int_equal(meed_coalition_path_of(c, 10000000, 64), MEED_PATH_MERGE);
    bool merged = false;
    for (int64_t tokens = 1; tokens < 10000000; tokens *= 2) {
        bool merge = meed_coalition_path_of(c, tokens, 64) == MEED_PATH_MERGE;
        assert_true(merge || !merged);
        merged = merge;
    }
    meed_coalition_destroy(c);
    c = evaluator(global, clients, weights, MEED_PATH_MERGE, 50);
    assert_int_equal(meed_coalition_path_of(c, 1, 1), MEED_PATH_MERGE);
    meed_coalition_destroy(c);
}

/* With a base in blocks only the stack serves: AUTO takes it, MERGE is refused, and the value is
 * another base's, to the same bits in any batch. */
static void coalition_on_blocks_is_stacked(void **state)
{
    (void)state;
    double members[CLIENTS] = {1.0, 0.0, 1.0};
    double got[2][SEQUENCES], dense[SEQUENCES];
    struct meed_coalition *c = NULL;
    struct meed_coalition_options options = {
        .path = MEED_PATH_MERGE, .batch_tokens = 50, .base = MEED_BLOCK_NF4};
    const struct meed_adapter *const *of = (const struct meed_adapter *const *)clients;
    assert_int_equal(meed_coalition_create(cohort.be, cohort.checkpoint, global, of, CLIENTS,
                                           weights, &options, &c),
                     MEED_ARG);
    assert_non_null(strstr(meed_last_error(), "nf4"));
    options.path = MEED_PATH_AUTO;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(meed_coalition_create(cohort.be, cohort.checkpoint, global, of, CLIENTS,
                                               weights, &options, &c),
                         MEED_OK);
        assert_int_equal(meed_coalition_path_of(c, 10000000, 64), MEED_PATH_STACK);
        score(c, members, 1, got[i]);
        meed_coalition_destroy(c);
        options.batch_tokens = 300;
    }
    size_t bytes = SEQUENCES * sizeof(double);
    assert_memory_equal(got[0], got[1], bytes);
    c = evaluator(global, clients, weights, MEED_PATH_STACK, 50);
    score(c, members, 1, dense);
    assert_memory_not_equal(got[0], dense, bytes);
    meed_coalition_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coalition_stack_equals_merge_in_all_64_coalitions),
        cmocka_unit_test(coalition_full_equals_a_model_with_one_averaged_update),
        cmocka_unit_test(coalition_bits_do_not_depend_on_batch_or_threads),
        cmocka_unit_test(coalition_folds_null_and_equal_clients),
        cmocka_unit_test(coalition_gates_leave_the_rest_to_the_global_adapter),
        cmocka_unit_test(coalition_shares_one_forward_between_masks),
        cmocka_unit_test(coalition_stops_and_refuses),
        cmocka_unit_test(coalition_planner_prefers_merging_for_many_tokens),
        cmocka_unit_test(coalition_on_blocks_is_stacked),
    };
    return cmocka_run_group_tests(tests, cohort_make, cohort_drop);
}
