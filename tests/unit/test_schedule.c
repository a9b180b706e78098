/* The learning rate: its ends, its middle, and that it is a function of the step alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/schedule.h"

static void assert_near(double got, double want)
{
    assert_true(fabs(got - want) <= 1e-12 * fabs(want) + 1e-300);
}

/* Goal: warm-up is a line from 1/warmup, the cosine starts at the peak and ends at the floor. */
static void schedule_has_the_right_ends(void **state)
{
    (void)state;
    struct meed_schedule schedule = {
        .lr = 0.02, .floor_ratio = 0.1, .warmup_steps = 4, .steps = 15};
    assert_near(meed_schedule_lr(&schedule, 0), 0.005);
    assert_near(meed_schedule_lr(&schedule, 3), 0.02);
    assert_near(meed_schedule_lr(&schedule, 4), 0.02);
    assert_near(meed_schedule_lr(&schedule, 9), 0.02 * (0.1 + 0.9 * 0.5));
    assert_near(meed_schedule_lr(&schedule, 14), 0.002);
    for (int64_t step = 5; step < 15; step++) {
        assert_true(meed_schedule_lr(&schedule, step) < meed_schedule_lr(&schedule, step - 1));
    }
}

/* Goal: the corner cases divide by nothing: no warm-up, one step, warm-up only, a constant. */
static void schedule_survives_corners(void **state)
{
    (void)state;
    struct meed_schedule one = {.lr = 1.0, .floor_ratio = 0.0, .steps = 1};
    assert_near(meed_schedule_lr(&one, 0), 1.0);
    struct meed_schedule warm = {.lr = 1.0, .floor_ratio = 0.0, .warmup_steps = 9, .steps = 3};
    assert_near(meed_schedule_lr(&warm, 2), 3.0 / 9.0);
    struct meed_schedule flat = {.lr = 0.5, .floor_ratio = 1.0, .steps = 100};
    for (int64_t step = 0; step < 100; step++) {
        assert_near(meed_schedule_lr(&flat, step), 0.5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule_has_the_right_ends),
        cmocka_unit_test(schedule_survives_corners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
