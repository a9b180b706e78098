/* A client's control variate: from round to round, through the codec and through loss.
 *
 * Goal: correction is c − c_k; what is kept is c_k plus what was really sent, so the next change
 * makes up for the codec; a lost or damaged file starts from zero; a c of another size is refused;
 * the update with a variate decodes behind the factors. Method: drawn vectors, int4 for a codec
 * that loses much.
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
#include "base/file.h"
#include "client/compress.h"
#include "client/worker_control.h"
#include "tests/support/dense_update.h"

static char path[] = "/tmp/meed_control_XXXXXX";

static void take(struct meed_worker_control *control, const float *values, size_t count)
{
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 20);
    assert_int_equal(meed_buf_append(&bytes, values, count * sizeof *values), MEED_OK);
    assert_int_equal(meed_worker_control_take(control, &bytes), MEED_OK);
    meed_buf_clear(&bytes);
}

static void worker_control_goes_from_round_to_round(void **state)
{
    (void)state;
    const float server[3] = {1.0f, 2.0f, 3.0f}, gradient[3] = {0.5f, -1.0f, 4.0f};
    struct meed_worker_control control = {.count = 0};
    assert_int_equal(meed_worker_control_open(&control, 3, "", 1), MEED_OK); /* round 1: c = 0 */
    memcpy(control.change, gradient, sizeof gradient);
    meed_worker_control_change(&control);
    assert_memory_equal(control.change, gradient, sizeof gradient);
    const float sent[3] = {0.5f, -1.0f, 3.0f}; /* the codec lost 1 */
    memcpy(control.sent, sent, sizeof sent);
    assert_int_equal(meed_worker_control_save(&control, path), MEED_OK);
    meed_worker_control_clear(&control);
    take(&control, server, 3);
    assert_int_equal(meed_worker_control_open(&control, 3, path, 2), MEED_OK);
    for (int i = 0; i < 3; i++) {
        assert_true(control.correction[i] == server[i] - sent[i]);
    }
    memcpy(control.change, gradient, sizeof gradient);
    meed_worker_control_change(&control);
    assert_true(control.change[0] == 0.0f && control.change[2] == 1.0f); /* sent now */
    meed_worker_control_clear(&control);
}

static void worker_control_survives_loss(void **state)
{
    (void)state;
    const float server[2] = {1.0f, 2.0f};
    struct meed_worker_control control = {.count = 0};
    take(&control, server, 2);
    assert_int_equal(meed_worker_control_open(&control, 3, path, 2), MEED_FORMAT);
    meed_worker_control_clear(&control);
    assert_int_equal(meed_file_write_atomic(path, "rubbish", 7), MEED_OK);
    take(&control, server, 2);
    assert_int_equal(meed_worker_control_open(&control, 2, path, 2), MEED_OK);
    assert_memory_equal(control.correction, server, sizeof server);
    meed_worker_control_clear(&control);
    unlink(path);
    assert_int_equal(meed_worker_control_open(&control, 2, path, 2), MEED_OK);
    assert_true(control.own[0] == 0.0f && control.correction[1] == 0.0f);
    meed_worker_control_clear(&control);
    struct meed_buf odd;
    meed_buf_init(&odd, 16);
    assert_int_equal(meed_buf_append(&odd, "12345", 5), MEED_OK);
    assert_int_equal(meed_worker_control_take(&control, &odd), MEED_FORMAT);
    meed_buf_clear(&odd);
}

static void worker_control_rides_behind_the_factors(void **state)
{
    (void)state;
    struct meed_adapter *global = dense_adapter(2, 1, 0.2, false);
    struct meed_adapter *trained =
        dense_changed(global, 2, 5, 0.1, false, MEED_FACTOR_A | MEED_FACTOR_B);
    size_t count = (size_t)meed_adapter_value_count(global);
    float *residual = calloc(count, sizeof *residual), *alone = calloc(count, sizeof *alone);
    float *change = calloc(count, sizeof *change), *sent = calloc(count, sizeof *sent);
    for (size_t i = 0; i < count; i++) {
        change[i] = 0.01f * (float)((int)(i % 23) - 11);
    }
    struct meed_update_header header = {.run_id = "run", .client_id = "north", .round = 1};
    struct meed_msg_codec codec = {MEED_VALUE_INT4, 1.0, 1.0, 64, 0};
    struct meed_compress_job job = {.header = &header,
                                    .codec = &codec,
                                    .global = global,
                                    .trained = trained,
                                    .trained_factors = MEED_FACTOR_B};
    struct meed_buf plain, with;
    meed_buf_init(&plain, 1 << 20);
    meed_buf_init(&with, 1 << 20);
    assert_int_equal(meed_compress_update(&job, alone, &plain, NULL), MEED_OK);
    job.control = change;
    job.control_sent = sent;
    assert_int_equal(meed_compress_update(&job, residual, &with, NULL), MEED_OK);
    assert_memory_equal(residual, alone, count * sizeof *residual); /* factors do not notice */
    assert_true(with.size > plain.size);
    double worst = 0.0;
    int64_t at = 0;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *module = &global->modules[m];
        int64_t a_end = at + module->r * module->k, end = a_end + module->n * module->r;
        for (; at < end; at++) {
            double gap = fabs((double)sent[at] - (double)change[at]);
            assert_true(at >= a_end || sent[at] == 0.0f); /* A is not trained: nothing is sent */
            worst = at >= a_end ? fmax(worst, gap) : worst;
        }
    }
    assert_true(worst > 0.0 && worst < 0.11 / 7.0); /* half a step of int4 at 0.11 */
    float *all[] = {residual, alone, change, sent};
    for (size_t i = 0; i < MEED_COUNT(all); i++) {
        free(all[i]);
    }
    meed_buf_clear(&plain);
    meed_buf_clear(&with);
    meed_adapter_destroy(global);
    meed_adapter_destroy(trained);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_control_goes_from_round_to_round),
        cmocka_unit_test(worker_control_survives_loss),
        cmocka_unit_test(worker_control_rides_behind_the_factors),
    };
    close(mkstemp(path));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
