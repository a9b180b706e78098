/* Losses and IFS of synthetic dialogues against transformers and PEFT.
 *
 * Goal: loss behind the dialogue and loss alone as another program computes them, with and without
 * an adapter; and what IFS means: low where the question holds the reply, above 1 where it
 * misleads. Method: tests/golden/synthesis (make_synthesis_goldens.py), its dialogues put in a
 * candidates file of their own and scored in fp32.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "client/synthesis_internal.h"

#define MODEL MEED_SOURCE_DIR "/examples/tiny/model"
#define GOLDEN MEED_SOURCE_DIR "/tests/golden/synthesis"
enum { MAX_CASES = 16, COPIED = 4, MISLED = 5 };

static void must(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s: %s", meed_status_name(status), meed_last_error());
    }
}

/* Writes the goldens' dialogues as the candidates of the job. */
static void write_candidates(const struct meed_synthesis_job *job, const json_t *cases)
{
    char key[MEED_SHA256_HEX_BYTES];
    struct meed_buf text;
    meed_buf_init(&text, 1 << 20);
    must(meed_synthesis_key(job, key));
    must(meed_synthesis_file_head(key, &text));
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *messages = json_object_get(json_array_get(cases, c), "messages");
        struct meed_synthesis_candidate candidate = {.fate = MEED_SYNTHESIS_WRITTEN,
                                                     .count = (int32_t)json_array_size(messages)};
        for (int32_t m = 0; m < candidate.count; m++) {
            const json_t *message = json_array_get(messages, (size_t)m);
            candidate.messages[m] =
                (struct meed_message){m % 2 ? MEED_ROLE_ASSISTANT : MEED_ROLE_USER,
                                      json_string_value(json_object_get(message, "content"))};
        }
        must(meed_synthesis_file_candidate(&candidate, (int32_t)c, &text));
    }
    must(meed_synthesis_file_write(job, NULL, &text));
    meed_buf_clear(&text);
}

/* fp32 sums on both sides: 2e-6 of a loss was seen. */
static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 2e-5 * want)) {
        fail_msg("loss %.9g, want %.9g", got, want);
    }
}

static void check_scores(const struct meed_synthesis_job *job, const json_t *cases,
                         const struct meed_adapter *adapter, const char *which)
{
    char path[512];
    struct meed_synthesis_report report;
    double ifs[MAX_CASES];
    must(meed_synthesis_select(job, adapter, &report));
    assert_int_equal(report.scored, json_array_size(cases));
    snprintf(path, sizeof path, "%s/scores.jsonl", job->folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        json_t *line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL);
        const json_t *want = json_object_get(json_array_get(cases, c), which);
        double behind = json_number_value(json_array_get(want, 0));
        double alone = json_number_value(json_array_get(want, 1));
        assert_int_equal(json_integer_value(json_object_get(line, "tokens")),
                         json_integer_value(json_object_get(json_array_get(cases, c), "tokens")));
        assert_close(json_number_value(json_object_get(line, "loss")), behind);
        assert_close(json_number_value(json_object_get(line, "loss_alone")), alone);
        ifs[c] = json_number_value(json_object_get(line, "ifs"));
        assert_close(ifs[c], behind / alone);
        json_decref(line);
    }
    fclose(file);
    assert_true(ifs[COPIED] < 0.5);
    assert_true(ifs[MISLED] > 1);
}

static void synthesis_losses_equal_transformers(void **state)
{
    (void)state;
    char folder[] = "/tmp/meed-losses-XXXXXX";
    assert_non_null(mkdtemp(folder));
    json_t *root = json_load_file(GOLDEN "/losses.json", 0, NULL);
    const json_t *cases = json_object_get(root, "cases");
    assert_in_range(json_array_size(cases), 5, MAX_CASES);
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_backend *be = NULL;
    struct meed_adapter *adapter = NULL;
    must(meed_checkpoint_open(MODEL, &checkpoint));
    must(meed_backend_open(NULL, NULL, &be));
    must(meed_adapter_load(GOLDEN "/adapter", &checkpoint->config, &adapter));
    struct meed_synthesis_job job = {.be = be,
                                     .checkpoint = checkpoint,
                                     .model_folder = MODEL,
                                     .data_path = GOLDEN "/losses.json", /* only its hash counts */
                                     .folder = folder,
                                     .dtype = MEED_DTYPE_F32,
                                     .options = meed_synthesis_defaults()};
    job.options.candidates = (int32_t)json_array_size(cases);
    write_candidates(&job, cases);
    check_scores(&job, cases, NULL, "base");
    check_scores(&job, cases, adapter, "adapter");
    meed_adapter_destroy(adapter);
    meed_backend_close(be);
    meed_checkpoint_close(checkpoint);
    json_decref(root);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(synthesis_losses_equal_transformers)};
    return cmocka_run_group_tests_name("synthesis_losses", tests, NULL, NULL);
}
