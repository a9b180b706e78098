/* The worker against a server of our own in the same process: whole runs, and the same runs with
 * every connection cut once, with stops in the middle, with a round that closes early. What is
 * pushed must be the same bytes each time and be counted once. The model is the embedded one. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "client/compress.h"
#include "client/privacy.h"
#include "client/workbench.h"
#include "client/worker.h"
#include "client/worker_state.h"
#include "proto/chunk.h"
#include "proto/codec.h"
#include "tests/support/worker_bed.h"

/* The hashes of an undisturbed run: what all others must push. */
static uint8_t undisturbed[ROUNDS][MEED_SHA256_BYTES];

static void assert_undisturbed(const struct bed *bed)
{
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(bed->fake.rounds[i].counted, 1);
        assert_memory_equal(bed->fake.rounds[i].sha256, undisturbed[i], MEED_SHA256_BYTES);
    }
    assert_int_equal(bed->receipts, ROUNDS);
    assert_int_equal(bed->finished, 1);
}

/* ---- tests ------------------------------------------------------------------------------------
 */

/* Goal: two rounds, each pushed once, with receipts; the second one feeds the first one's error
 * back (the base is the same and so are the draws, so without feedback it would push the same
 * values). */
static void worker_runs_a_federation(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed_run(bed, MEED_OK);
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(bed->fake.rounds[i].counted, 1);
        memcpy(undisturbed[i], bed->fake.rounds[i].sha256, MEED_SHA256_BYTES);
        assert_true(meed_worker_state_has(bed->folder, i, MEED_WORKER_RECEIPT_FILE));
    }
    assert_int_equal(bed->receipts, ROUNDS);
    assert_int_equal(bed->pushed, ROUNDS);
    assert_int_equal(bed->steps, ROUNDS * STEPS);
    assert_int_equal(bed->retries, 0);
    assert_false(meed_worker_state_has(bed->folder, 0, MEED_WORKER_UPDATE));
    assert_false(meed_worker_state_has(bed->folder, 0, MEED_WORKER_RESIDUAL));
    assert_true(meed_worker_state_has(bed->folder, 1, MEED_WORKER_RESIDUAL));
    bed_close(bed);
}

/* Goal: with every kind of call cut once the same bytes arrive, resumed in the middle, counted
 * once. */
static void worker_rides_out_faults(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed->fake.refuse_joins = 2;
    bed->fake.cut_watches = 2;
    bed->fake.cut_pulls = 1;
    bed->fake.cut_pushes = 1;
    bed->fake.lose_replies = 2;
    bed_run(bed, MEED_OK);
    assert_undisturbed(bed);
    assert_true(bed->retries >= 4);
    assert_true(bed->fake.rounds[0].first_offset > 0);
    assert_int_equal(bed->steps, ROUNDS * STEPS); /* nothing was trained twice */
    bed_close(bed);
}

/* Goal: a stop at any step ends with CANCELLED; the restart goes on and pushes the same bytes. */
static void worker_stops_and_goes_on(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    for (int step = 1; step <= ROUNDS * STEPS; step += 3) {
        bed->stop_at_step = step;
        bed_run(bed, MEED_CANCELLED);
    }
    bed->stop_at_step = 0;
    bed_run(bed, MEED_OK);
    assert_undisturbed(bed);
    assert_int_equal(bed->steps, ROUNDS * STEPS);
    bed_close(bed);
}

/* Goal: a plan that asks for more than the client shares ends the worker before anything is trained
 * or sent. */
static void worker_keeps_its_limit_of_sharing(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed->config.limits_sharing = true;
    bed->config.share_limit = 0.0;
    bed_run(bed, MEED_DENIED);
    assert_int_equal(bed->steps, 0);
    assert_int_equal(bed->fake.rounds[0].counted, 0);
    bed->config.share_limit = 1.0;
    bed_run(bed, MEED_OK);
    assert_undisturbed(bed);
    bed_close(bed);
}

/* Goal: a process that ends in the middle of a push pushes the rest when it is started again, and
 * one that ends between the server's count and its own note is counted once. */
static void worker_restarts_in_a_push(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed->stop_at_retry = true;
    bed->fake.cut_pushes = 1;
    bed_run(bed, MEED_CANCELLED);
    assert_int_equal(bed->fake.rounds[0].counted, 0);
    assert_true(bed->fake.rounds[0].stored.size > 0);
    bed->fake.lose_replies = 1;
    bed_run(bed, MEED_CANCELLED);
    assert_int_equal(bed->fake.rounds[0].counted, 1);
    assert_true(bed->fake.rounds[0].first_offset > 0);
    assert_false(meed_worker_state_has(bed->folder, 0, MEED_WORKER_PUSHED_MARK));
    bed->stop_at_retry = false;
    bed_run(bed, MEED_OK);
    assert_undisturbed(bed);
    bed_close(bed);
}

/* Goal: a round that closes before the push is left, and the next one is taken. */
static void worker_leaves_a_closed_round(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed->fake.refuse_pushes = 1;
    bed_run(bed, MEED_OK);
    assert_int_equal(bed->left, 1);
    assert_int_equal(bed->fake.rounds[0].counted, 0);
    assert_int_equal(bed->fake.rounds[1].counted, 1);
    assert_int_equal(bed->receipts, 1);
    bed_close(bed);
}

/* Goal: an idle client trains nothing and pushes a message of header and trailer. */
static void worker_idles(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed->config.behaviour = MEED_WORKER_IDLE;
    bed->fake.plan.codec.zstd_level = 0;
    bed_run(bed, MEED_OK);
    assert_int_equal(bed->steps, 0);
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(bed->fake.rounds[i].counted, 1);
        assert_int_equal(bed->fake.rounds[i].stored.size,
                         MEED_UPDATE_HEADER_BYTES + MEED_SHA256_BYTES);
    }
    bed_close(bed);
}

/* Goal: what waiting does not mend ends the worker with a sentence: another model, another name,
 * another run's folder, a method it does not know, data that does not fit. */
static void worker_gives_up_for_good(void **state)
{
    (void)state;
    struct bed *bed = bed_open();
    bed->fake.model_hash[0] ^= 1;
    bed_run(bed, MEED_VERSION);
    bed->fake.model_hash[0] ^= 1;
    bed->config.id = "south";
    bed_run(bed, MEED_DENIED);
    bed->config.id = "north";
    bed->fake.plan.method = MEED_METHOD_FEDPIT; /* and shares all, which is no rule of it */
    bed_run(bed, MEED_FORMAT);
    bed->fake.plan.method = MEED_METHOD_FEDIT;
    bed->fake.plan.sequence_tokens = 8;
    bed_run(bed, MEED_LIMIT);
    assert_non_null(strstr(meed_last_error(), "data.jsonl:1: "));
    bed->fake.plan.sequence_tokens = 41;
    assert_int_equal(meed_worker_state_set_run(bed->folder, "run-0"), MEED_OK);
    bed_run(bed, MEED_VERSION);
    assert_non_null(strstr(meed_last_error(), "belongs to run run-0"));
    bed_close(bed);
}

static struct bed *private_bed(void)
{
    static const char secret[MEED_PRIVACY_SECRET_BYTES] = "the same for all of these tests";
    struct bed *bed = bed_open();
    char path[MEED_PATH_BYTES];
    bed->fake.plan.dp_clip = 0.5;
    bed->fake.plan.dp_noise = 2.0;
    bed->fake.plan.dp_delta = 1e-5;
    assert_int_equal(meed_file_make_folder(bed->folder), MEED_OK);
    assert_int_equal(meed_file_join(bed->folder, "noise.key", path, sizeof path), MEED_OK);
    assert_int_equal(meed_file_write_atomic(path, secret, sizeof secret), MEED_OK);
    return bed;
}

/* Goal: an update with noise is another one, the same after any stop, accounted for over the rounds
 * by its own figure, and goes with no number that tells of the data; a run that has sent an update
 * without noise cannot promise anything any more. */
static void worker_keeps_the_privacy_account(void **state)
{
    (void)state;
    struct bed *bed = private_bed();
    bed_run(bed, MEED_OK);
    double before = 0.0;
    for (int i = 0; i < ROUNDS; i++) {
        const struct meed_msg_push_header *header = &bed->fake.rounds[i].header;
        struct meed_privacy_accountant accountant = {{0.0}};
        meed_privacy_accountant_add(&accountant, 1.0, 1.0, i + 1); /* z C against 2 C */
        assert_true(header->dp_epsilon ==
                    meed_privacy_accountant_epsilon(&accountant, header->dp_delta));
        assert_true(header->dp_epsilon > before && header->dp_noise == 2.0);
        assert_true(header->train_loss == 0.0 && header->token_count == 0);
        assert_true(header->sample_count == 0 && header->train_seconds == 0.0);
        assert_memory_not_equal(bed->fake.rounds[i].sha256, undisturbed[i], MEED_SHA256_BYTES);
        before = header->dp_epsilon;
    }
    for (int stop = 2; stop <= ROUNDS * STEPS; stop += 3) {
        struct bed *stopped = private_bed();
        stopped->stop_at_step = stop;
        bed_run(stopped, MEED_CANCELLED);
        stopped->stop_at_step = 0;
        bed_run(stopped, MEED_OK);
        for (int i = 0; i < ROUNDS; i++) {
            assert_memory_equal(stopped->fake.rounds[i].sha256, bed->fake.rounds[i].sha256,
                                MEED_SHA256_BYTES);
        }
        bed_close(stopped);
    }
    struct bed *late = bed_open();
    late->stop_at_step = STEPS + 1;
    bed_run(late, MEED_CANCELLED);
    late->fake.plan.dp_clip = late->fake.plan.dp_noise = 1.0;
    late->fake.plan.dp_delta = 1e-5;
    bed_run(late, MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "round 0 went without noise"));
    bed_close(late);
    bed_close(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_runs_a_federation),
        cmocka_unit_test(worker_rides_out_faults),
        cmocka_unit_test(worker_stops_and_goes_on),
        cmocka_unit_test(worker_keeps_its_limit_of_sharing),
        cmocka_unit_test(worker_restarts_in_a_push),
        cmocka_unit_test(worker_leaves_a_closed_round),
        cmocka_unit_test(worker_idles),
        cmocka_unit_test(worker_gives_up_for_good),
        cmocka_unit_test(worker_keeps_the_privacy_account),
    };
    return cmocka_run_group_tests(tests, bed_open_model, bed_close_model);
}
