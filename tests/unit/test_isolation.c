/* FedPIT's isolation at the wire: a worker against a server of our own (worker_bed.h), the
 * synthetic sets put into its state folder as if it had been stopped behind the choice.
 *
 * Goal: β = 1 is FedIT and β = 0 is `synthetic`, to the bit; under `synthetic` nothing that is sent
 * depends on the local data once the synthetic set is given; no text of the client's is in any
 * message or log line; a stop anywhere changes no byte; the own model is made and stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "client/worker_state.h"
#include "engine/adapter.h"
#include "tests/support/worker_bed.h"

/* Words that no log line or protobuf field name has. */
static const char local_lines[] =
    "{\"prompt\": \"zanzibar quokka marmalade\", \"completion\": \"xylophone heron\"}\n"
    "{\"prompt\": \"juniper walrus\", \"completion\": \"obsidian teapot kumquat\"}\n";
static const char other_lines[] =
    "{\"prompt\": \"What is a loan?\", \"completion\": \"Money to pay back.\"}\n"
    "{\"prompt\": \"Is it open?\", \"completion\": \"No.\"}\n"
    "{\"prompt\": \"Thanks\", \"completion\": \"You are welcome, good bye.\"}\n";
static const char *const secrets[] = {"zanzibar", "quokka",  "marmalade", "xylophone",
                                      "heron",    "juniper", "obsidian",  "teapot",
                                      "kumquat",  "walrus",  "velvet",    "lantern"};
static const char synthetic_lines[] =
    "{\"prompt\": \"What is the velvet rate?\", \"completion\": \"Three lantern a year.\"}\n"
    "{\"prompt\": \"Good morning\", \"completion\": \"How can I help?\"}\n";

static void plan_fedpit(struct bed *bed, enum meed_share_rule share, double beta)
{
    struct meed_msg_plan *plan = &bed->fake.plan;
    plan->method = MEED_METHOD_FEDPIT;
    plan->share = share;
    plan->share_mix = beta;
    plan->synthetic_candidates = 4;
    plan->synthetic_count = 2;
    plan->instruction_demos = 2;
    plan->response_demos = 2;
    plan->rouge_max = 0.7;
}

/* `text` as the synthetic set of every round. */
static void put_synthetic(const struct bed *bed, const char *text)
{
    char path[MEED_PATH_BYTES];
    assert_int_equal(meed_file_make_folder(bed->folder), MEED_OK);
    for (int32_t round = 0; round < ROUNDS; round++) {
        assert_int_equal(meed_worker_state_path(bed->folder, round, "synthetic.jsonl", path),
                         MEED_OK);
        assert_int_equal(meed_file_write_atomic(path, text, strlen(text)), MEED_OK);
    }
}

static struct bed *fedpit_open(enum meed_share_rule share, double beta, const char *synthetic)
{
    struct bed *bed = bed_open();
    plan_fedpit(bed, share, beta);
    put_synthetic(bed, synthetic);
    return bed;
}

static void assert_same_pushes(const struct bed *x, const struct bed *y)
{
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(x->fake.rounds[i].counted, 1);
        assert_int_equal(y->fake.rounds[i].counted, 1);
        assert_memory_equal(x->fake.rounds[i].sha256, y->fake.rounds[i].sha256, MEED_SHA256_BYTES);
    }
}

/* All that a header says, but how long the training took. */
static void assert_same_headers(const struct bed *x, const struct bed *y)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct meed_msg_push_header one = x->fake.rounds[i].header, two = y->fake.rounds[i].header;
        one.train_seconds = two.train_seconds = 0.0;
        assert_memory_equal(&one, &two, sizeof one);
    }
}

static bool same_push(const struct bed *x, const struct bed *y, int round)
{
    return memcmp(x->fake.rounds[round].sha256, y->fake.rounds[round].sha256, MEED_SHA256_BYTES) ==
           0;
}

static void isolation_ends_are_fedit_and_synthetic(void **state)
{
    (void)state;
    struct bed *fedit = bed_open();
    struct bed *one = fedpit_open(MEED_SHARE_MIX, 1.0, synthetic_lines);
    struct bed *none = fedpit_open(MEED_SHARE_MIX, 0.0, synthetic_lines);
    struct bed *synthetic = fedpit_open(MEED_SHARE_SYNTHETIC, 0.0, synthetic_lines);
    struct bed *half = fedpit_open(MEED_SHARE_MIX, 0.5, synthetic_lines);
    bed_run(fedit, MEED_OK);
    bed_run(one, MEED_OK);
    bed_run(none, MEED_OK);
    bed_run(synthetic, MEED_OK);
    bed_run(half, MEED_OK);
    assert_same_pushes(one, fedit);
    assert_same_pushes(none, synthetic);
    assert_true(one->fake.rounds[0].header.train_loss == fedit->fake.rounds[0].header.train_loss);
    assert_int_equal(one->fake.rounds[0].header.sample_count, bed_bench.dataset->count);
    assert_int_equal(synthetic->fake.rounds[0].header.sample_count, 2);
    assert_int_equal(synthetic->fake.rounds[0].header.synthetic_count, 2);
    assert_int_equal(half->fake.rounds[0].header.share, MEED_SHARE_MIX);
    assert_true(half->fake.rounds[0].header.share_mix == 0.5);
    assert_false(same_push(half, fedit, 0) || same_push(half, synthetic, 0));
    assert_false(same_push(fedit, synthetic, 0));
    assert_int_equal(one->steps, ROUNDS * STEPS + STEPS); /* one branch a round; the own model */
    assert_int_equal(half->steps, 2 * ROUNDS * STEPS + STEPS);
    bed_close(fedit);
    bed_close(one);
    bed_close(none);
    bed_close(synthetic);
    bed_close(half);
}

/* ---- what is heard ----------------------------------------------------------------------------
 */

static struct meed_buf logged;

static void keep_line(void *user, const char *line)
{
    (void)user;
    if (meed_buf_append(&logged, line, strlen(line)) != MEED_OK) {
        abort();
    }
}

static bool holds(const struct meed_buf *bytes, const char *word)
{
    return bytes->size > 0 && memmem(bytes->data, bytes->size, word, strlen(word)) != NULL;
}

/* One run over `lines`, with every log line kept. */
static struct bed *run_over(enum meed_share_rule share, struct meed_dataset *data)
{
    struct bed *bed = fedpit_open(share, 0.5, synthetic_lines);
    bed->config.dataset = data;
    bed_run(bed, MEED_OK);
    return bed;
}

/* Goal: under `synthetic` with its set held fixed, other local data (even another number of lines)
 * change no byte of an update and no field of its header; under `mix` they do, or this test could
 * not fail. No word of either set is heard by the server or written to the log. */
static void isolation_keeps_local_data(void **state)
{
    (void)state;
    struct meed_dataset *local = bed_data(local_lines), *other = bed_data(other_lines);
    meed_buf_init(&logged, 1 << 24);
    assert_int_equal(meed_log_configure("debug"), MEED_OK);
    meed_log_redirect(keep_line, NULL);
    struct bed *x = run_over(MEED_SHARE_SYNTHETIC, local),
               *y = run_over(MEED_SHARE_SYNTHETIC, other);
    struct bed *mixed = run_over(MEED_SHARE_MIX, local),
               *other_mix = run_over(MEED_SHARE_MIX, other);
    meed_log_redirect(NULL, NULL);
    assert_int_equal(meed_log_configure("warn"), MEED_OK);
    assert_same_pushes(x, y);
    assert_same_headers(x, y);
    assert_false(same_push(mixed, other_mix, 0));
    assert_true(logged.size > 0);
    const struct bed *all[] = {x, y, mixed, other_mix};
    for (size_t i = 0; i < MEED_COUNT(secrets); i++) {
        assert_false(holds(&logged, secrets[i]));
        for (size_t j = 0; j < MEED_COUNT(all); j++) {
            assert_true(all[j]->fake.heard.size > 1000);
            assert_false(holds(&all[j]->fake.heard, secrets[i]));
        }
    }
    meed_buf_clear(&logged);
    bed_close(x);
    bed_close(y);
    bed_close(mixed);
    bed_close(other_mix);
    meed_dataset_destroy(local);
    meed_dataset_destroy(other);
}

/* Goal: `none` takes part, sends the global's own bytes and tells nothing of the training it does
 * for itself; an empty synthetic set leaves the synthetic branch at its start. */
static void isolation_sends_nothing_where_nothing_is_shared(void **state)
{
    (void)state;
    struct bed *idle = bed_open(), *none = fedpit_open(MEED_SHARE_NOTHING, 0.0, synthetic_lines);
    struct bed *empty = fedpit_open(MEED_SHARE_SYNTHETIC, 0.0, "");
    idle->config.behaviour = MEED_WORKER_IDLE;
    bed_run(idle, MEED_OK);
    bed_run(none, MEED_OK);
    bed_run(empty, MEED_OK);
    assert_same_pushes(none, idle);
    assert_same_pushes(empty, idle);
    for (int i = 0; i < ROUNDS; i++) {
        const struct meed_msg_push_header *header = &none->fake.rounds[i].header;
        assert_int_equal(header->share, MEED_SHARE_NOTHING);
        assert_true(header->train_loss == 0.0 && header->token_count == 0);
        assert_true(header->sample_count == 0 && header->train_seconds == 0.0);
        assert_int_equal(empty->fake.rounds[i].header.synthetic_count, 0);
        assert_int_equal(idle->fake.rounds[i].header.share, MEED_SHARE_NOTHING);
    }
    assert_int_equal(none->steps, STEPS); /* of the own model */
    bed_close(idle);
    bed_close(none);
    bed_close(empty);
}

/* ---- stops ------------------------------------------------------------------------------------
 */

/* Goal: stopped at any step of either branch and started again, the same bytes are pushed and no
 * branch that was done is trained twice. */
static void isolation_stops_and_goes_on(void **state)
{
    (void)state;
    struct bed *whole = fedpit_open(MEED_SHARE_MIX, 0.5, synthetic_lines);
    bed_run(whole, MEED_OK);
    for (int stop = 1; stop <= 2 * STEPS; stop++) {
        struct bed *bed = fedpit_open(MEED_SHARE_MIX, 0.5, synthetic_lines);
        bed->stop_at_step = stop;
        bed_run(bed, MEED_CANCELLED);
        assert_int_equal(bed->pushed, 0);
        bed->stop_at_step = 0;
        bed_run(bed, MEED_OK);
        assert_same_pushes(bed, whole);
        assert_int_equal(bed->steps, whole->steps);
        bed_close(bed);
    }
    bed_close(whole);
}

/* Goal: a private branch that another restart finds beside other data is not used. */
static void isolation_binds_the_private_branch(void **state)
{
    (void)state;
    struct meed_dataset *local = bed_data(local_lines);
    struct bed *clean = run_over(MEED_SHARE_MIX, local);
    struct bed *bed = fedpit_open(MEED_SHARE_MIX, 0.5, synthetic_lines);
    bed->stop_at_step = STEPS + 1; /* the private branch is on disk, of bed_bench's data */
    bed_run(bed, MEED_CANCELLED);
    assert_true(meed_worker_state_has(bed->folder, 0, MEED_WORKER_PRIVATE));
    bed->stop_at_step = 0;
    bed->config.dataset = local;
    bed_run(bed, MEED_OK);
    assert_same_pushes(bed, clean);
    bed_close(clean);
    bed_close(bed);
    meed_dataset_destroy(local);
}

/* ---- the own model ----------------------------------------------------------------------------
 */

static struct meed_adapter *load_own(const struct bed *bed)
{
    struct meed_adapter *own = NULL;
    char folder[MEED_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/private", bed->folder);
    assert_int_equal(meed_adapter_load(folder, &bed_bench.checkpoint->config, &own), MEED_OK);
    return own;
}

/* Goal: the own model is a PEFT folder, is made of both data sets, and a worker that was stopped
 * over it makes it without an aggregator. */
static void isolation_makes_the_own_model(void **state)
{
    (void)state;
    struct bed *bed = fedpit_open(MEED_SHARE_MIX, 0.5, synthetic_lines);
    struct bed *stopped = fedpit_open(MEED_SHARE_MIX, 0.5, synthetic_lines);
    struct bed *other = fedpit_open(MEED_SHARE_MIX, 0.5, other_lines);
    bed_run(bed, MEED_OK);
    bed_run(other, MEED_OK);
    assert_int_equal(bed->owns, 1);
    stopped->stop_at_step = bed->steps - 1;
    bed_run(stopped, MEED_CANCELLED);
    assert_int_equal(stopped->owns, 0);
    stopped->stop_at_step = 0;
    size_t heard = stopped->fake.heard.size;
    bed_run(stopped, MEED_OK);
    assert_int_equal(stopped->owns, 1);
    assert_int_equal(stopped->fake.heard.size, heard); /* nobody was called */
    struct meed_adapter *x = load_own(bed), *y = load_own(stopped), *z = load_own(other);
    assert_true(meed_adapter_equal(x, y));
    assert_false(meed_adapter_equal(x, z));
    bed_run(bed, MEED_OK); /* again: it is there */
    assert_int_equal(bed->owns, 1);
    meed_adapter_destroy(x);
    meed_adapter_destroy(y);
    meed_adapter_destroy(z);
    bed_close(bed);
    bed_close(stopped);
    bed_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isolation_ends_are_fedit_and_synthetic),
        cmocka_unit_test(isolation_keeps_local_data),
        cmocka_unit_test(isolation_sends_nothing_where_nothing_is_shared),
        cmocka_unit_test(isolation_stops_and_goes_on),
        cmocka_unit_test(isolation_binds_the_private_branch),
        cmocka_unit_test(isolation_makes_the_own_model),
    };
    return cmocka_run_group_tests(tests, bed_open_model, bed_close_model);
}
