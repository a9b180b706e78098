/* Models side by side: each scores as if it were alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "tests/support/audited.h"

enum { RECORDS = 5, MOST = 400 };

static struct audited two, none;
static struct meed_sequence sequences[RECORDS];
static int32_t scored;

static int open_all(void **state)
{
    (void)state;
    static const char *const replies[RECORDS] = {"The room is on the second floor.", "Yes.",
                                                 "Please bring your card and a list of creams.",
                                                 "It costs two crowns.", "No, thank you."};
    audited_open(MEED_SOURCE_DIR, NULL, 2, &two);
    audited_open(MEED_SOURCE_DIR, NULL, 0, &none);
    for (int i = 0; i < RECORDS; i++) {
        sequences[i] = audited_record(&two, "Where is it, please?", replies[i], NULL).sequence;
        scored += meed_audit_models_scored(&sequences[i]);
    }
    assert_in_range(scored, RECORDS, MOST);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    audited_close(&two);
    audited_close(&none);
    return 0;
}

static void score(struct audited *audited, int32_t model, float *logprobs)
{
    audited_ok(
        meed_audit_models_score(audited->models, model, sequences, RECORDS, logprobs, NULL, NULL));
}

/* A stack of two says of the base what a net without adapters says, to rounding of fp32. */
static void audit_models_keep_the_base(void **state)
{
    (void)state;
    float stacked[MOST], plain[MOST], adapted[MOST];
    assert_int_equal(meed_audit_models_count(two.models), 3);
    assert_int_equal(meed_audit_models_count(none.models), 1);
    score(&two, 0, stacked);
    score(&none, 0, plain);
    score(&two, 1, adapted);
    double apart = 0;
    for (int32_t i = 0; i < scored; i++) {
        assert_true(fabsf(stacked[i] - plain[i]) < 1e-4f);
        apart += (double)fabsf(stacked[i] - adapted[i]);
    }
    assert_true(apart > 1); /* adapters are no floor */
}

/* The bits of a sequence do not depend on those beside it. */
static void audit_models_score_in_any_batch(void **state)
{
    (void)state;
    float together[MOST], alone[MOST];
    int32_t at = 0;
    score(&two, 2, together);
    for (int i = 0; i < RECORDS; i++) {
        const int32_t here = meed_audit_models_scored(&sequences[i]);
        audited_ok(meed_audit_models_score(two.models, 2, &sequences[i], 1, alone, NULL, NULL));
        assert_memory_equal(alone, together + at, (size_t)here * sizeof *alone);
        at += here;
    }
    assert_int_equal(at, scored);
}

static bool stop(void *user, int64_t done, int64_t total)
{
    *(int64_t *)user = total;
    return done < 0;
}

static void audit_models_can_be_cancelled(void **state)
{
    (void)state;
    float logprobs[MOST];
    int64_t total = 0;
    assert_int_equal(
        meed_audit_models_score(two.models, 1, sequences, RECORDS, logprobs, stop, &total),
        MEED_CANCELLED);
    assert_true(total > scored);
    struct meed_prompt prompt = {sequences[0].ids, 4, 1};
    struct meed_reply reply;
    const struct meed_audit_generation generation = {
        .max_new_tokens = 2, .progress = stop, .user = &total};
    assert_int_equal(
        meed_audit_models_generate(two.models, &prompt, 1, &generation, &two.arena, &reply),
        MEED_CANCELLED);
    assert_int_equal(total, 1);
}

static void audit_models_name_what_is_too_long(void **state)
{
    (void)state;
    static int32_t ids[600];
    static uint8_t marks[600];
    static float logprobs[600];
    const struct meed_sequence both[] = {sequences[0], {ids, marks, 600}};
    assert_int_equal(meed_audit_models_score(two.models, 1, both, 2, logprobs, NULL, NULL),
                     MEED_LIMIT);
    assert_non_null(strstr(meed_last_error(), "sequence 1 has 600 tokens"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(audit_models_keep_the_base),
        cmocka_unit_test(audit_models_score_in_any_batch),
        cmocka_unit_test(audit_models_can_be_cancelled),
        cmocka_unit_test(audit_models_name_what_is_too_long),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
