/* Separation against counts by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "base/compat.h"
#include "evaluation/separation.h"

static struct meed_separation measure(const double *members, int32_t count, const double *others,
                                      int32_t other_count)
{
    struct meed_separation s;
    assert_int_equal(meed_separation_measure(members, count, others, other_count, 40, 1, &s),
                     MEED_OK);
    return s;
}

/* Of 2 × 3 pairs one is won by the other side, one tied: 4.5 of 6. */
static void separation_counts_pairs_and_ties(void **state)
{
    (void)state;
    const double members[] = {5, 2}, others[] = {1, 2, 3};
    assert_true(measure(members, 2, others, 3).area == 4.5 / 6);
    assert_true(measure(others, 3, others, 3).area == 0.5);
    assert_true(measure(others, 3, members, 2).area == 1.5 / 6);
}

/* A hundred others at 0 … 99: one false alarm is 1 %, five are 5 %. Members at 99.5, 98.5, 95.5 and
 * 94.5 have 0, 1, 4 and 5 others above them; one at 98 ties with an other. */
static void separation_finds_without_interpolation(void **state)
{
    (void)state;
    const double members[] = {99.5, 98.5, 95.5, 94.5, -1, 98, -2, -3};
    double others[100];
    for (int i = 0; i < 100; i++) {
        others[i] = i;
    }
    struct meed_separation s = measure(members, 8, others, 100);
    assert_true(s.found_1 == 2.0 / 8);
    assert_true(s.found_5 == 5.0 / 8);
    s = measure(members, 8, others, 99); /* 1 % of 99 is no alarm at all */
    assert_true(s.found_1 == 2.0 / 8);   /* above 98: 99.5 and 98.5; 98 ties */
}

static void separation_is_sure_of_the_obvious(void **state)
{
    (void)state;
    const double members[] = {3, 4, 5}, others[] = {0, 1};
    struct meed_separation s = measure(members, 3, others, 2);
    assert_true(s.area == 1 && s.low == 1 && s.high == 1 && s.found_1 == 1);
    const double same[] = {7, 7, 7, 7};
    s = measure(same, 4, same, 4);
    assert_true(s.area == 0.5 && s.low == 0.5 && s.high == 0.5 && s.found_5 == 0);
}

static void separation_repeats_by_seed(void **state)
{
    (void)state;
    const double members[] = {1, 5, 2, 8, 3}, others[] = {2, 4, 1, 0, 7};
    struct meed_separation a = measure(members, 5, others, 5), b = measure(members, 5, others, 5);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.low < a.area && a.area < a.high);
}

static void separation_refuses_what_is_no_number(void **state)
{
    (void)state;
    const double good[] = {1, 2}, bad[] = {1, NAN};
    struct meed_separation s;
    assert_int_equal(meed_separation_measure(good, 2, bad, 2, 40, 1, &s), MEED_NUMERIC);
    assert_non_null(strstr(meed_last_error(), "non-member 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(separation_counts_pairs_and_ties),
        cmocka_unit_test(separation_finds_without_interpolation),
        cmocka_unit_test(separation_is_sure_of_the_obvious),
        cmocka_unit_test(separation_repeats_by_seed),
        cmocka_unit_test(separation_refuses_what_is_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
