/* An audit against independent programs: numpy's pairs, zlib, rouge_score, transformers and PEFT.
 *
 * tests/golden/generate/make_audit_goldens.py wrote the numbers. Statistics must agree to rounding
 * of float64. The model part, on the example model and a random adapter, is fp32 there and here:
 * ranks, argmaxes and pairs are exact, because the script refuses data where two of them are closer
 * than 1e-3 nats; means of shares are then exact too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <string.h>
#include "client/dataset.h"
#include "evaluation/exposure.h"
#include "evaluation/extraction.h"
#include "evaluation/membership.h"
#include "tests/support/audited.h"

static const char clinic[] = MEED_SOURCE_DIR "/examples/tiny/clients/clinic.jsonl";
static const char golden_folder[] = MEED_SOURCE_DIR "/tests/golden/audit/adapter";
static const char *const names[] = {"base", "adapter"};

enum { MOST = 2000 };

static struct {
    json_t *expected;
    struct audited audited;
    struct meed_dataset *dataset;
    struct meed_audit_record records[2][64]; /* members, others */
    struct meed_audit_data data[2];
} home;

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("%s: got %.12g, want %.12g ± %g", what, got, want, tolerance);
    }
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) {
        fail_msg("expected.json lacks %s", key);
    }
    return json_number_value(value);
}

static int32_t numbers(const json_t *object, const char *key, double *values)
{
    const json_t *list = json_object_get(object, key);
    int32_t count = (int32_t)json_array_size(list);
    assert_in_range(count, 1, MOST);
    for (int32_t i = 0; i < count; i++) {
        values[i] = json_number_value(json_array_get(list, (size_t)i));
    }
    return count;
}

static int home_open(void **state)
{
    (void)state;
    json_error_t error;
    home.expected = json_load_file(MEED_SOURCE_DIR "/tests/golden/audit/expected.json", 0, &error);
    assert_non_null(home.expected);
    audited_open(MEED_SOURCE_DIR, golden_folder, 1, &home.audited);
    audited_ok(meed_dataset_load(clinic, home.audited.chat, home.audited.tokenizer, &home.dataset));
    const int32_t count = (int32_t)number(home.expected, "examples");
    for (int32_t i = 0; i < count; i++) {
        home.records[0][i].sequence = home.dataset->sequences[i];
        home.records[1][i].sequence = home.dataset->sequences[home.dataset->count - count + i];
    }
    for (int f = 0; f < 2; f++) {
        home.data[f] =
            (struct meed_audit_data){.path = clinic, .records = home.records[f], .count = count};
    }
    return 0;
}

static int home_close(void **state)
{
    (void)state;
    meed_dataset_destroy(home.dataset);
    audited_close(&home.audited);
    json_decref(home.expected);
    return 0;
}

/* Goal: area and shares as counted over pairs; the bootstrap's interval as wide as DeLong's
 * standard error says. Its 2.5 % points rest on 2,000 draws and a skewed area: within a fifth. */
static void separation_is_numpys(void **state)
{
    (void)state;
    const json_t *item;
    size_t i;
    static double members[MOST], others[MOST];
    json_array_foreach(json_object_get(home.expected, "separation"), i, item)
    {
        struct meed_separation s;
        int32_t count = numbers(item, "members", members);
        int32_t other_count = numbers(item, "others", others);
        audited_ok(meed_separation_measure(members, count, others, other_count, 2000, 1, &s));
        near("area", s.area, number(item, "area"), 1e-12);
        near("found at 1 %", s.found_1, number(item, "found_1"), 1e-12);
        near("found at 5 %", s.found_5, number(item, "found_5"), 1e-12);
        if (count > 20) {
            double width = 2 * 1.96 * number(item, "delong_se");
            near("interval", s.high - s.low, width, 0.2 * width);
            assert_true(s.low < s.area && s.area < s.high);
        }
    }
    assert_int_equal(i, 3);
}

static void scores_are_numpys_and_zlibs(void **state)
{
    (void)state;
    const json_t *item;
    size_t i;
    static double values[MOST];
    static float logprobs[MOST], scratch[MOST];
    json_array_foreach(json_object_get(home.expected, "tokens"), i, item)
    {
        int32_t count = numbers(item, "logprobs", values);
        for (int32_t t = 0; t < count; t++) {
            logprobs[t] = (float)values[t];
        }
        near("loss", meed_membership_loss(logprobs, count), number(item, "loss"), 1e-12);
        near("min-k", meed_membership_min_k(logprobs, count, 0.2, scratch), number(item, "min_k"),
             1e-12);
    }
    json_array_foreach(json_object_get(home.expected, "zlib"), i, item)
    {
        const char *text = json_string_value(json_object_get(item, "text"));
        int64_t bytes;
        audited_ok(meed_membership_zlib_bytes(text, strlen(text), &bytes));
        near("zlib", (double)bytes, number(item, "bytes"), 0);
    }
    assert_int_equal(i, 6);
}

static void exposure_is_numpys(void **state)
{
    (void)state;
    const json_t *item;
    size_t i;
    static double others[MOST];
    json_array_foreach(json_object_get(home.expected, "exposure"), i, item)
    {
        bool capped;
        int32_t count = numbers(item, "others", others);
        near("bits", meed_exposure_bits(number(item, "secret"), others, count, &capped),
             number(item, "bits"), 1e-12);
    }
    assert_int_equal(i, 3);
}

static void mean_near(const json_t *item, const char *key, struct meed_extraction_mean mean)
{
    const json_t *want = json_object_get(item, key);
    near(key, mean.mean, number(want, "mean"), 1e-12);
    near(key, mean.se, number(want, "se"), 1e-9); /* of one pass over squares */
}

static void extraction_is_transformers(void **state)
{
    (void)state;
    const json_t *item, *models = json_object_get(home.expected, "models");
    size_t i;
    struct meed_extraction_row rows[4];
    const struct meed_extraction_options options = {
        .tokenizer = home.audited.tokenizer,
        .prefixes = {0, 3},
        .prefix_count = 2,
        .max_new_tokens = (int32_t)number(home.expected, "max_new_tokens")};
    audited_ok(meed_extraction_run(home.audited.models, &home.data[0], &options, rows));
    json_array_foreach(json_object_get(models, "extraction"), i, item)
    {
        const struct meed_extraction_row *row = &rows[i];
        assert_string_equal(json_string_value(json_object_get(item, "model")), names[i / 2]);
        near("examples", row->examples, number(item, "examples"), 0);
        near("whole", row->whole, number(item, "whole"), 0);
        mean_near(item, "rouge", row->rouge);
        mean_near(item, "exact", row->exact);
        mean_near(item, "rouge_gain", row->rouge_gain);
        mean_near(item, "exact_gain", row->exact_gain);
    }
    assert_int_equal(i, 4);
}

static void membership_is_transformers(void **state)
{
    (void)state;
    const json_t *item, *models = json_object_get(home.expected, "models");
    size_t i;
    struct meed_separation results[2 * MEED_MEMBERSHIP_COUNT];
    const struct meed_membership_options options = {.tokenizer = home.audited.tokenizer,
                                                    .min_k = number(home.expected, "min_k"),
                                                    .draws = 40,
                                                    .seed = 1};
    audited_ok(
        meed_membership_run(home.audited.models, &home.data[0], &home.data[1], &options, results));
    json_array_foreach(json_object_get(models, "membership"), i, item)
    {
        const char *model = json_string_value(json_object_get(item, "model"));
        const char *score = json_string_value(json_object_get(item, "score"));
        int32_t at = strcmp(model, "base") == 0 ? 0 : MEED_MEMBERSHIP_COUNT;
        while (strcmp(meed_membership_score_name(at % MEED_MEMBERSHIP_COUNT), score) != 0) {
            at++;
        }
        near(score, results[at].area, number(item, "area"), 1e-12);
        near(score, results[at].found_5, number(item, "found_5"), 1e-12);
    }
    assert_int_equal(i, 2 * MEED_MEMBERSHIP_COUNT - 1);
    near("a model less itself", results[MEED_MEMBERSHIP_REFERENCE].area, 0.5, 0);
}

static void canary_ranks_are_transformers(void **state)
{
    (void)state;
    const json_t *item, *models = json_object_get(home.expected, "models");
    size_t i;
    uint64_t secrets[8];
    struct meed_exposure results[2];
    struct meed_arena arena;
    struct meed_canaries canaries = {.repeat = 1, .secrets = secrets};
    const struct meed_exposure_options options = {.chat = home.audited.chat, .candidates = 1000};
    const json_t *list = json_object_get(models, "exposure");
    meed_arena_init_growing(&arena, "test", 1 << 20);
    audited_ok(meed_canary_format_parse("What is the code of locker {n}?",
                                        "The code of locker {n} is {digits:2}.", &canaries.format));
    canaries.count = (int32_t)json_array_size(list) / 2;
    for (int32_t c = 0; c < canaries.count; c++) {
        const char *secret =
            json_string_value(json_object_get(json_array_get(list, (size_t)c), "secret"));
        assert_true(meed_canary_number(&canaries.format, secret, &secrets[c]));
    }
    audited_ok(meed_exposure_run(home.audited.models, &canaries, &options, &arena, results));
    json_array_foreach(list, i, item)
    {
        const int32_t count = canaries.count;
        near("bits", results[(int32_t)i / count].each[(int32_t)i % count], number(item, "bits"),
             1e-12);
    }
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(separation_is_numpys),
        cmocka_unit_test(scores_are_numpys_and_zlibs),
        cmocka_unit_test(exposure_is_numpys),
        cmocka_unit_test(extraction_is_transformers),
        cmocka_unit_test(membership_is_transformers),
        cmocka_unit_test(canary_ranks_are_transformers),
    };
    return cmocka_run_group_tests(tests, home_open, home_close);
}
