/* Clip and noise: what leaves is global + clipped change + the plan's noise, and nothing else.
 *
 * Goal: the change is cut to C and no further; the noise is standard normal by its moments, differs
 * by secret, run, round and place, repeats with all four, and touches trained factors alone; the
 * secret is made once and nobody else's to read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "client/privacy.h"
#include "tests/support/dense_update.h"

enum { DRAWS = 40000, RANK = 3, BOTH = MEED_FACTOR_A | MEED_FACTOR_B };

static const struct meed_privacy_noise noise = {.secret = {1, 2, 3}, .run_id = "run", .round = 4};

static void privacy_noise_is_normal(void **state)
{
    (void)state;
    static double x[DRAWS];
    double mean = 0.0, square = 0.0, fourth = 0.0, next = 0.0;
    int beyond = 0;
    meed_privacy_normals(&noise, 0, DRAWS, x);
    for (int i = 0; i < DRAWS; i++) {
        mean += x[i] / DRAWS;
        square += x[i] * x[i] / DRAWS;
        fourth += pow(x[i], 4) / DRAWS;
        next += i > 0 ? x[i] * x[i - 1] / DRAWS : 0.0;
        beyond += fabs(x[i]) > 1.959964;
    }
    /* Five standard errors of each estimate: 1, √2, √96, 1, √(0.05·0.95) over √DRAWS = 200. */
    assert_true(fabs(mean) < 0.025);
    assert_true(fabs(square - 1.0) < 0.036);
    assert_true(fabs(fourth - 3.0) < 0.245);
    assert_true(fabs(next) < 0.025);
    assert_true(fabs(beyond / (double)DRAWS - 0.05) < 0.0055);
}

static void privacy_noise_is_keyed(void **state)
{
    (void)state;
    double first[8], again[8], tail[5];
    struct meed_privacy_noise others[] = {noise, noise, noise};
    others[0].secret[31] = 1;
    others[1].run_id[0] = 'R';
    others[2].round = 5;
    meed_privacy_normals(&noise, 0, 8, first);
    for (size_t i = 0; i < MEED_COUNT(others); i++) {
        meed_privacy_normals(&others[i], 0, 8, again);
        for (int j = 0; j < 8; j++) {
            assert_true(first[j] != again[j]);
        }
    }
    meed_privacy_normals(&noise, 3, 5, tail);
    assert_memory_equal(tail, first + 3, sizeof tail);
}

/* ‖trained − global‖ over the factors of `mask`. */
static double moved(const struct meed_adapter *global, const struct meed_adapter *trained,
                    uint32_t mask)
{
    double sum = 0.0;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *x = &global->modules[m], *y = &trained->modules[m];
        for (int64_t i = 0; (mask & MEED_FACTOR_A) && i < x->r * x->k; i++) {
            sum += pow((double)y->a[i] - (double)x->a[i], 2);
        }
        for (int64_t i = 0; (mask & MEED_FACTOR_B) && i < x->r * x->n; i++) {
            sum += pow((double)y->b[i] - (double)x->b[i], 2);
        }
    }
    return sqrt(sum);
}

/* With a noise of 1e-9 of C what is left is the clipped change. */
static void privacy_clips_to_the_norm(void **state)
{
    (void)state;
    struct meed_adapter *global = dense_adapter(RANK, 1, 0.2, false);
    static const double clips[] = {0.5, 1e6};
    for (size_t i = 0; i < MEED_COUNT(clips); i++) {
        struct meed_adapter *trained = dense_changed(global, RANK, 9, 0.3, false, BOTH);
        struct meed_msg_plan plan = {
            .dp_clip = clips[i], .dp_noise = 1e-9, .trained_factors = BOTH};
        double before = moved(global, trained, BOTH), norm = 0.0;
        assert_true(before > 1.0);
        if (clips[i] > before) {
            plan.dp_noise = 1e-15;
        }
        assert_int_equal(meed_privacy_apply(&noise, &plan, global, trained, &norm), MEED_OK);
        assert_true(fabs(norm - before) <= 1e-12 * before);
        /* fp32 rounds each of some hundred values to 6e-8 of 0.6 */
        assert_true(fabs(moved(global, trained, BOTH) - fmin(before, clips[i])) <= 1e-6);
        meed_adapter_destroy(trained);
    }
    struct meed_adapter *diverged = dense_changed(global, RANK, 9, 0.3, false, BOTH);
    struct meed_msg_plan plan = {.dp_clip = 1.0, .dp_noise = 1.0, .trained_factors = BOTH};
    double norm = 0.0;
    diverged->modules[0].a[0] = NAN;
    assert_int_equal(meed_privacy_apply(&noise, &plan, global, diverged, &norm), MEED_NUMERIC);
    meed_adapter_destroy(diverged);
    meed_adapter_destroy(global);
}

/* From no change at all the result is the noise: zC times the deviates in flat order, on the
 * trained factor alone. */
static void privacy_adds_the_noise(void **state)
{
    (void)state;
    struct meed_adapter *global = dense_adapter(RANK, 1, 0.2, false), *trained = NULL;
    struct meed_msg_plan plan = {.dp_clip = 2.0, .dp_noise = 0.25, .trained_factors = BOTH};
    int64_t count = meed_adapter_value_count(global);
    double norm = 1.0, *deviates = calloc((size_t)count, sizeof *deviates);
    assert_non_null(deviates);
    meed_privacy_normals(&noise, 0, count, deviates);
    assert_int_equal(meed_adapter_clone(global, &trained), MEED_OK);
    assert_int_equal(meed_privacy_apply(&noise, &plan, global, trained, &norm), MEED_OK);
    assert_true(norm == 0.0);
    for (int64_t i = 0; i < count; i++) {
        double want = (double)global->modules[0].a[i] + 0.5 * deviates[i];
        assert_true(trained->modules[0].a[i] == (float)want);
    }
    plan.trained_factors = MEED_FACTOR_B;
    assert_int_equal(meed_privacy_apply(&noise, &plan, global, trained, &norm), MEED_OK);
    assert_true(moved(global, trained, MEED_FACTOR_A) == 0.0);
    assert_true(moved(global, trained, MEED_FACTOR_B) > 0.1);
    free(deviates);
    meed_adapter_destroy(trained);
    meed_adapter_destroy(global);
}

static void privacy_keeps_its_secret(void **state)
{
    (void)state;
    char folder[] = "/tmp/meed-privacy-XXXXXX", path[128];
    uint8_t made[MEED_PRIVACY_SECRET_BYTES] = {0}, read[MEED_PRIVACY_SECRET_BYTES] = {0};
    static const uint8_t zero[MEED_PRIVACY_SECRET_BYTES];
    struct stat info;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/noise.key", folder);
    assert_int_equal(meed_privacy_secret(path, made), MEED_OK);
    assert_memory_not_equal(made, zero, sizeof zero);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(meed_privacy_secret(path, read), MEED_OK);
    assert_memory_equal(made, read, sizeof made);
    assert_int_equal(meed_file_write_atomic(path, "short", 5), MEED_OK);
    assert_int_equal(meed_privacy_secret(path, read), MEED_FORMAT);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(privacy_noise_is_normal),   cmocka_unit_test(privacy_noise_is_keyed),
        cmocka_unit_test(privacy_clips_to_the_norm), cmocka_unit_test(privacy_adds_the_noise),
        cmocka_unit_test(privacy_keeps_its_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
