/* An adapter in two parts: what is trained, and what only takes part.
 *
 * Goal: the parts together are the whole; a net of both gives the gradients that the whole has at
 * the trained ranks, and log-probabilities of the whole; a training moves the front and nothing
 * else. Method: the golden Llama with an adapter of rank 5, cut at 2.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "engine/adapter_split.h"
#include "engine/trainer.h"
#include "tests/support/small_net.h"

enum { FRONT = 2, WHOLE = 5 };

static void adapter_split_parts_are_the_whole(void **state)
{
    (void)state;
    struct golden golden;
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    struct meed_adapter *whole = small_adapter(&golden, MEED_PROJ_ALL, WHOLE, 1, 0.1f);
    struct meed_adapter *front = NULL, *rest = NULL, *again = NULL;
    assert_true(meed_adapter_has_rest(whole, FRONT));
    assert_int_equal(meed_adapter_split(whole, FRONT, &front, &rest), MEED_OK);
    assert_int_equal(meed_adapter_clone(whole, &again), MEED_OK);
    for (int32_t m = 0; m < again->module_count; m++) {
        struct meed_adapter_module *module = &again->modules[m];
        assert_int_equal(front->modules[m].r, FRONT);
        assert_int_equal(rest->modules[m].r, WHOLE - FRONT);
        assert_true(front->modules[m].scale == module->scale);
        memset(module->a, 0, (size_t)(module->r * module->k) * sizeof(float));
        memset(module->b, 0, (size_t)(module->n * module->r) * sizeof(float));
        meed_adapter_module_put(module, FRONT, &rest->modules[m]);
        meed_adapter_module_put(module, 0, &front->modules[m]);
    }
    assert_true(meed_adapter_equal(whole, again));
    meed_adapter_destroy(front);
    meed_adapter_destroy(rest);
    assert_int_equal(meed_adapter_split(whole, WHOLE, &front, &rest), MEED_OK);
    assert_null(rest);
    assert_true(meed_adapter_equal(whole, front));
    meed_adapter_destroy(front);
    assert_int_equal(meed_adapter_split(whole, WHOLE + 1, &front, &rest), MEED_FORMAT);
    meed_adapter_destroy(whole);
    meed_adapter_destroy(again);
    golden_close(&golden);
}

static void adapter_split_gradients_are_those_of_the_whole(void **state)
{
    (void)state;
    struct golden golden;
    struct small_machine machine;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    struct meed_adapter *whole = small_adapter(&golden, MEED_PROJ_ALL, WHOLE, 1, 0.1f);
    struct meed_adapter *front = NULL, *rest = NULL;
    assert_int_equal(meed_adapter_split(whole, FRONT, &front, &rest), MEED_OK);
    const struct meed_adapter *one[] = {whole}, *two[] = {front, rest};
    struct meed_net *net = small_net(&machine, &golden, MEED_DTYPE_F32, true, one, 1);
    struct meed_net *pair = small_net(&machine, &golden, MEED_DTYPE_F32, true, two, 2);
    assert_int_equal(meed_net_master_count(pair), meed_adapter_value_count(front));
    float *all = small_gradient(&machine, net, golden.batch, 0);
    float *part = small_gradient(&machine, pair, golden.batch, 0);
    double worst = 0.0, largest = 0.0;
    const float *g = all, *p = part;
    for (int32_t m = 0; m < whole->module_count; m++) {
        int64_t k = whole->modules[m].k, n = whole->modules[m].n;
        for (int64_t i = 0; i < FRONT * k; i++) {
            worst = fmax(worst, fabs((double)p[i] - (double)g[i]));
            largest = fmax(largest, fabs((double)g[i]));
        }
        g += WHOLE * k;
        p += FRONT * k;
        for (int64_t i = 0; i < n * FRONT; i++) {
            worst = fmax(worst, fabs((double)p[i] - (double)g[i / FRONT * WHOLE + i % FRONT]));
        }
        g += n * WHOLE;
        p += n * FRONT;
    }
    assert_true(worst <= 1e-5 * largest); /* the order of the tail's sums, in fp32 */
    meed_heap_free(all);
    meed_heap_free(part);
    meed_net_destroy(net);
    meed_net_destroy(pair);
    meed_adapter_destroy(whole);
    meed_adapter_destroy(front);
    meed_adapter_destroy(rest);
    golden_close(&golden);
    small_machine_close(&machine);
}

/* Sequences of one batch of the golden model's own ids. */
static void adapter_split_trains_the_front(void **state)
{
    (void)state;
    struct golden golden;
    struct small_machine machine;
    small_machine_open(1, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    struct meed_adapter *whole = small_adapter(&golden, MEED_PROJ_ALL, WHOLE, 1, 0.1f);
    struct meed_adapter *front = NULL, *rest = NULL, *trained = NULL;
    assert_int_equal(meed_adapter_split(whole, FRONT, &front, &rest), MEED_OK);
    assert_int_equal(meed_adapter_clone(front, &trained), MEED_OK);
    int32_t ids[] = {3, 5, 7, 9, 11, 13, 4, 6};
    uint8_t scored[] = {0, 0, 1, 1, 1, 1, 1, 1};
    struct meed_sequence sequence = {.ids = ids, .scored = scored, .length = 8};
    struct meed_train_options options = meed_train_defaults();
    options.steps = 4;
    options.batch_tokens = 16;
    options.lr = 0.01f;
    options.dtype = MEED_DTYPE_F32;
    double losses[2];
    for (int with = 0; with < 2; with++) {
        struct meed_trainer *trainer = NULL;
        struct meed_train_report report;
        options.frozen = with ? rest : NULL;
        golden_ok(meed_trainer_create(machine.be, golden.checkpoint, with ? front : whole,
                                      &sequence, 1, &options, &trainer));
        golden_ok(meed_trainer_step(trainer, &report));
        losses[with] = report.loss;
        while (with && meed_trainer_steps_done(trainer) < options.steps) {
            golden_ok(meed_trainer_step(trainer, &report));
        }
        if (with) {
            golden_ok(meed_trainer_export(trainer, trained));
            assert_true(report.loss < losses[1]);
        }
        meed_trainer_destroy(trainer);
    }
    assert_true(fabs(losses[0] - losses[1]) < 1e-5 * losses[0]); /* the whole's loss */
    assert_false(meed_adapter_equal(trained, front));
    meed_adapter_destroy(whole);
    meed_adapter_destroy(front);
    meed_adapter_destroy(rest);
    meed_adapter_destroy(trained);
    golden_close(&golden);
    small_machine_close(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapter_split_parts_are_the_whole),
        cmocka_unit_test(adapter_split_gradients_are_those_of_the_whole),
        cmocka_unit_test(adapter_split_trains_the_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
