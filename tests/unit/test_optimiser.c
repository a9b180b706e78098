/* AdamW against a float64 reference written here from the paper's formulas, clipping, and spans. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "engine/optimiser.h"

enum { COUNT = 257, STEPS = 12 };

static struct meed_backend *be;

static int open_backend(void **state)
{
    (void)state;
    return meed_backend_open_cpu(NULL, NULL, &be) != MEED_OK;
}

static int close_backend(void **state)
{
    (void)state;
    meed_backend_close(be);
    return 0;
}

static const struct meed_optimiser_options options = {
    .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.1f, .clip_norm = 3.0f};

struct reference {
    double parameter[COUNT], m[COUNT], v[COUNT];
};

/* One step over [begin, end), g already clipped. */
static void reference_step(struct reference *at, const double *g, int begin, int end, double lr,
                           int step)
{
    double beta1 = (double)options.beta1, beta2 = (double)options.beta2;
    for (int i = begin; i < end; i++) {
        at->m[i] = beta1 * at->m[i] + (1.0 - beta1) * g[i];
        at->v[i] = beta2 * at->v[i] + (1.0 - beta2) * g[i] * g[i];
        double m = at->m[i] / (1.0 - pow(beta1, step)), v = at->v[i] / (1.0 - pow(beta2, step));
        at->parameter[i] -= lr * (double)options.weight_decay * at->parameter[i];
        at->parameter[i] -= lr * m / (sqrt(v) + (double)options.epsilon);
    }
}

static void draw(uint64_t step, float *gradient)
{
    struct meed_rng rng = meed_rng_stream(5, "gradient", step);
    for (int i = 0; i < COUNT; i++) {
        gradient[i] = (float)meed_rng_normal(&rng);
    }
}

static void run(const struct meed_optimiser_span *spans, int64_t span_count, float *parameter,
                struct reference *reference)
{
    float gradient[COUNT];
    struct meed_optimiser *optimiser = NULL;
    assert_int_equal(meed_optimiser_create(be, COUNT, spans, span_count, &options, &optimiser),
                     MEED_OK);
    for (int step = 0; step < STEPS; step++) {
        double norm = 0.0, want = 0.0, lr = 0.01 / (1 + step), g[COUNT];
        draw((uint64_t)step, gradient);
        assert_int_equal(meed_optimiser_step(optimiser, lr, gradient, parameter, &norm), MEED_OK);
        for (int64_t s = 0; s < span_count; s++) {
            for (int64_t i = spans[s].begin; i < spans[s].begin + spans[s].count; i++) {
                want += (double)gradient[i] * (double)gradient[i];
            }
        }
        want = sqrt(want);
        assert_true(fabs(norm - want) <= 1e-6 * want);
        for (int i = 0; i < COUNT; i++) {
            g[i] = (double)gradient[i] * fmin(1.0, (double)options.clip_norm / want);
        }
        for (int64_t s = 0; s < span_count; s++) {
            reference_step(reference, g, (int)spans[s].begin,
                           (int)(spans[s].begin + spans[s].count), lr, step + 1);
        }
    }
    assert_int_equal(meed_optimiser_steps(optimiser), STEPS);
    meed_optimiser_destroy(optimiser);
}

static void start(float *parameter, struct reference *reference)
{
    memset(reference, 0, sizeof *reference);
    for (int i = 0; i < COUNT; i++) {
        parameter[i] = (float)i / COUNT - 0.5f;
        reference->parameter[i] = (double)parameter[i];
    }
}

/* Goal: twelve clipped, decayed steps stay within fp32 rounding of the reference. */
static void optimiser_follows_reference(void **state)
{
    (void)state;
    float parameter[COUNT];
    struct reference reference;
    const struct meed_optimiser_span all = {0, COUNT};
    start(parameter, &reference);
    run(&all, 1, parameter, &reference);
    for (int i = 0; i < COUNT; i++) {
        assert_true(fabs((double)parameter[i] - reference.parameter[i]) < 1e-6);
    }
}

/* Goal: outside the spans nothing moves, not even by weight decay; inside it is AdamW. */
static void optimiser_leaves_the_rest_alone(void **state)
{
    (void)state;
    float parameter[COUNT], before[COUNT];
    struct reference reference;
    const struct meed_optimiser_span spans[] = {{3, 40}, {100, 1}, {200, 57}};
    start(parameter, &reference);
    memcpy(before, parameter, sizeof before);
    run(spans, 3, parameter, &reference);
    int moved = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_true(fabs((double)parameter[i] - reference.parameter[i]) < 1e-6);
        moved += parameter[i] != before[i];
    }
    assert_int_equal(moved, 40 + 1 + 57);
}

/* Goal: a gradient that is not finite is refused, and neither parameters nor the step move. */
static void optimiser_refuses_nan(void **state)
{
    (void)state;
    float parameter[COUNT], before[COUNT], gradient[COUNT];
    struct reference reference;
    struct meed_optimiser *optimiser = NULL;
    const struct meed_optimiser_span all = {0, COUNT};
    double norm = 7.0;
    start(parameter, &reference);
    memcpy(before, parameter, sizeof before);
    draw(0, gradient);
    gradient[200] = (float)NAN;
    assert_int_equal(meed_optimiser_create(be, COUNT, &all, 1, &options, &optimiser), MEED_OK);
    assert_int_equal(meed_optimiser_step(optimiser, 0.1, gradient, parameter, &norm), MEED_NUMERIC);
    assert_memory_equal(parameter, before, sizeof before);
    assert_int_equal(meed_optimiser_steps(optimiser), 0);
    meed_optimiser_destroy(optimiser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimiser_follows_reference),
        cmocka_unit_test(optimiser_leaves_the_rest_alone),
        cmocka_unit_test(optimiser_refuses_nan),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
