/* Step curves of detectors against counting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "base/rng.h"
#include "report/roc.h"

static struct meed_roc trace(struct meed_arena *arena, const double *score, const bool *bad,
                             int32_t count)
{
    struct meed_roc roc;
    meed_arena_init_growing(arena, "test", 1 << 20);
    assert_int_equal(meed_roc_trace(score, bad, count, arena, &roc), MEED_OK);
    return roc;
}

static void roc_corners_by_hand(void **state)
{
    /* Goal: the corners of a small case worked on paper; a tie is one slanted edge. */
    (void)state;
    static const double score[] = {0.9, 0.1, 0.5, 0.5, 0.7};
    static const bool bad[] = {true, false, true, false, false};
    static const double x[] = {0, 0, 1.0 / 3, 2.0 / 3, 1}, y[] = {0, 0.5, 0.5, 1, 1};
    struct meed_arena arena;
    struct meed_roc roc = trace(&arena, score, bad, 5);
    assert_int_equal(roc.count, 5);
    for (int i = 0; i < 5; i++) {
        assert_true(fabs(roc.false_positive[i] - x[i]) < 1e-15);
        assert_true(fabs(roc.true_positive[i] - y[i]) < 1e-15);
    }
    assert_true(fabs(roc.area - (1.0 / 6 + 1.0 / 4 + 1.0 / 3)) < 1e-15);
    meed_arena_clear(&arena);
}

static void roc_area_is_a_probability(void **state)
{
    /* Goal: the area is the part of (bad, good) pairs in which the bad one scores higher, ties at
     * one half. Method: count the pairs, on scores with many ties. */
    (void)state;
    struct meed_rng rng = meed_rng_stream(5, "roc", 0);
    for (int repeat = 0; repeat < 50; repeat++) {
        double score[40], won = 0;
        bool bad[40];
        int pairs = 0;
        for (int i = 0; i < 40; i++) {
            score[i] = floor(8 * meed_rng_unit(&rng));
            bad[i] = i == 0 || (i > 1 && meed_rng_unit(&rng) < 0.3);
        }
        for (int i = 0; i < 40; i++) {
            for (int j = 0; j < 40; j++) {
                if (bad[i] && !bad[j]) {
                    won += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
                    pairs++;
                }
            }
        }
        struct meed_arena arena;
        struct meed_roc roc = trace(&arena, score, bad, 40);
        assert_true(fabs(roc.area - won / pairs) < 1e-12);
        assert_true(roc.false_positive[roc.count - 1] == 1 &&
                    roc.true_positive[roc.count - 1] == 1);
        meed_arena_clear(&arena);
    }
}

static void roc_of_one_class_is_nothing(void **state)
{
    /* Goal: no curve and NaN, not a default. */
    (void)state;
    static const double score[] = {1, 2};
    static const bool none[] = {false, false}, all[] = {true, true};
    struct meed_arena arena;
    struct meed_roc roc = trace(&arena, score, none, 2);
    assert_true(roc.count == 0 && isnan(roc.area));
    meed_arena_clear(&arena);
    roc = trace(&arena, score, all, 2);
    assert_true(roc.count == 0 && isnan(roc.area));
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roc_corners_by_hand),
        cmocka_unit_test(roc_area_is_a_probability),
        cmocka_unit_test(roc_of_one_class_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
