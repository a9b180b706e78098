/* SCAFFOLD's part of the trainer: a constant added to gradients, and their mean before it.
 *
 * Goal: a correction of zero changes no bit; the mean gradient of one step is the gradient, and the
 * correction that takes it away leaves the masters where they were; a resumed training ends with
 * the same mean, bit for bit. Method: the golden Llama, one sequence, a few steps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "engine/trainer.h"
#include "tests/support/small_net.h"

static struct golden golden;
static struct small_machine machine;
static struct meed_adapter *start;
static size_t count;
static int32_t ids[] = {3, 5, 7, 9, 11, 13, 4, 6};
static uint8_t scored[] = {0, 0, 1, 1, 1, 1, 1, 1};
static struct meed_sequence sequence = {.ids = ids, .scored = scored, .length = 8};

static int setup(void **state)
{
    (void)state;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    start = small_adapter(&golden, MEED_PROJ_ALL, 3, 1, 0.1f);
    count = (size_t)meed_adapter_value_count(start);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    meed_adapter_destroy(start);
    golden_close(&golden);
    small_machine_close(&machine);
    return 0;
}

static struct meed_trainer *open_trainer(int64_t steps, const float *correction)
{
    struct meed_train_options options = meed_train_defaults();
    struct meed_trainer *trainer = NULL;
    options.steps = steps;
    options.batch_tokens = 16;
    options.lr = 0.01f;
    options.warmup_steps = 0;
    options.dtype = MEED_DTYPE_F32;
    options.correction = correction;
    golden_ok(meed_trainer_create(machine.be, golden.checkpoint, start, &sequence, 1, &options,
                                  &trainer));
    return trainer;
}

/* Trains to the end; what it made, flat, and the mean gradient where there is one. */
static void finish(struct meed_trainer *trainer, int64_t steps, float *masters, float *mean)
{
    struct meed_train_report report;
    struct meed_adapter *made = NULL;
    golden_ok(meed_adapter_clone(start, &made));
    while (meed_trainer_steps_done(trainer) < steps) {
        golden_ok(meed_trainer_step(trainer, &report));
    }
    golden_ok(meed_trainer_export(trainer, made));
    meed_adapter_to_flat(made, masters);
    if (mean) {
        golden_ok(meed_trainer_mean_gradient(trainer, mean));
    }
    meed_adapter_destroy(made);
    meed_trainer_destroy(trainer);
}

static void trainer_correction_of_zero_is_none(void **state)
{
    (void)state;
    float *zero = calloc(count, sizeof *zero), *mean = calloc(count, sizeof *mean);
    float *plain = calloc(count, sizeof *plain), *with = calloc(count, sizeof *with);
    struct meed_trainer *trainer = open_trainer(4, NULL);
    assert_int_equal(meed_trainer_mean_gradient(trainer, mean), MEED_STATE);
    finish(trainer, 4, plain, NULL);
    finish(open_trainer(4, zero), 4, with, mean);
    assert_memory_equal(plain, with, count * sizeof *plain);
    double size = 0.0;
    for (size_t i = 0; i < count; i++) {
        size += (double)mean[i] * (double)mean[i];
    }
    assert_true(size > 0.0);
    free(zero);
    free(mean);
    free(plain);
    free(with);
}

static void trainer_correction_takes_the_gradient_away(void **state)
{
    (void)state;
    float *correction = calloc(count, sizeof *correction), *mean = calloc(count, sizeof *mean);
    float *before = calloc(count, sizeof *before), *after = calloc(count, sizeof *after);
    finish(open_trainer(1, correction), 1, after, mean);
    meed_adapter_to_flat(start, before);
    assert_true(memcmp(before, after, count * sizeof *before) != 0);
    for (size_t i = 0; i < count; i++) {
        correction[i] = -mean[i];
    }
    float *again = calloc(count, sizeof *again);
    finish(open_trainer(1, correction), 1, after, again);
    assert_memory_equal(before, after, count * sizeof *before);
    assert_memory_equal(mean, again, count * sizeof *mean); /* as it was before the correction */
    free(correction);
    free(mean);
    free(before);
    free(after);
    free(again);
}

static void trainer_correction_is_resumed(void **state)
{
    (void)state;
    char path[] = "/tmp/meed_correction_XXXXXX";
    float *correction = calloc(count, sizeof *correction);
    float *masters[2], *means[2];
    struct meed_train_report report;
    close(mkstemp(path));
    for (size_t i = 0; i < count; i++) {
        correction[i] = 1e-3f * (float)(i % 7);
    }
    for (int i = 0; i < 2; i++) {
        masters[i] = calloc(count, sizeof(float));
        means[i] = calloc(count, sizeof(float));
    }
    finish(open_trainer(5, correction), 5, masters[0], means[0]);
    struct meed_trainer *trainer = open_trainer(5, correction);
    golden_ok(meed_trainer_step(trainer, &report));
    golden_ok(meed_trainer_step(trainer, &report));
    golden_ok(meed_trainer_save(trainer, path));
    meed_trainer_destroy(trainer);
    trainer = open_trainer(5, correction);
    golden_ok(meed_trainer_resume(trainer, path));
    finish(trainer, 5, masters[1], means[1]);
    assert_memory_equal(masters[0], masters[1], count * sizeof(float));
    assert_memory_equal(means[0], means[1], count * sizeof(float));
    correction[0] = 1.0f; /* another c: another training */
    trainer = open_trainer(5, correction);
    assert_int_equal(meed_trainer_resume(trainer, path), MEED_VERSION);
    meed_trainer_destroy(trainer);
    unlink(path);
    for (int i = 0; i < 2; i++) {
        free(masters[i]);
        free(means[i]);
    }
    free(correction);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trainer_correction_of_zero_is_none),
        cmocka_unit_test(trainer_correction_takes_the_gradient_away),
        cmocka_unit_test(trainer_correction_is_resumed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
