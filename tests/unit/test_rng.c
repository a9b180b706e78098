/* Counter-based random numbers: known answers, independence of streams, no bias. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "base/rng.h"

static void rng_matches_philox_known_answer(void **state)
{
    /* Goal: the generator is Philox 4x32-10: zero key and counter give the published block. */
    (void)state;
    uint32_t block[4];
    meed_rng_block(0, 0, block);
    static const uint32_t expected[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    assert_memory_equal(block, expected, sizeof block);
}

static void rng_streams_do_not_shift_each_other(void **state)
{
    /* Goal: a draw depends on (seed, name, sub, index) alone. */
    (void)state;
    struct meed_rng one = meed_rng_stream(1, "shuffle", 0);
    struct meed_rng same = meed_rng_stream(1, "shuffle", 0);
    struct meed_rng other_name = meed_rng_stream(1, "dropout", 0);
    struct meed_rng other_sub = meed_rng_stream(1, "shuffle", 1);
    struct meed_rng other_seed = meed_rng_stream(2, "shuffle", 0);
    uint64_t first = meed_rng_u64(&one);
    assert_true(first == meed_rng_u64(&same));
    assert_true(first != meed_rng_u64(&other_name));
    assert_true(first != meed_rng_u64(&other_sub));
    assert_true(first != meed_rng_u64(&other_seed));
}

static void rng_moments_are_those_of_their_distributions(void **state)
{
    /* Goal: mean and variance of 200,000 draws lie within five standard errors. */
    (void)state;
    enum { DRAWS = 200000 };
    struct meed_rng rng = meed_rng_stream(7, "moments", 0);
    double unit_sum = 0;
    double normal_sum = 0;
    double normal_squares = 0;
    int64_t below[6] = {0};
    for (int i = 0; i < DRAWS; i++) {
        unit_sum += meed_rng_unit(&rng);
        double normal = meed_rng_normal(&rng);
        normal_sum += normal;
        normal_squares += normal * normal;
        below[meed_rng_below(&rng, 6)]++;
    }
    assert_true(fabs(unit_sum / DRAWS - 0.5) < 5 * sqrt(1.0 / 12 / DRAWS));
    assert_true(fabs(normal_sum / DRAWS) < 5 * sqrt(1.0 / DRAWS));
    assert_true(fabs(normal_squares / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    for (int i = 0; i < 6; i++) {
        assert_true(fabs((double)below[i] - DRAWS / 6.0) < 5 * sqrt(DRAWS * 5.0 / 36));
    }
}

static void rng_shuffle_is_a_permutation(void **state)
{
    /* Goal: every index once, and not the identity. */
    (void)state;
    int64_t values[100];
    bool seen[100] = {false};
    for (int i = 0; i < 100; i++) {
        values[i] = i;
    }
    struct meed_rng rng = meed_rng_stream(3, "order", 0);
    meed_rng_shuffle(&rng, values, 100);
    int fixed = 0;
    for (int i = 0; i < 100; i++) {
        assert_false(seen[values[i]]);
        seen[values[i]] = true;
        fixed += values[i] == i;
    }
    assert_true(fixed < 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rng_matches_philox_known_answer),
        cmocka_unit_test(rng_streams_do_not_shift_each_other),
        cmocka_unit_test(rng_moments_are_those_of_their_distributions),
        cmocka_unit_test(rng_shuffle_is_a_permutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
