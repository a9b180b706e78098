/* Extraction of what a model surely says: its own greedy reply, given as the truth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "evaluation/extraction.h"
#include "tests/support/audited.h"

enum { TOKENS = 24, MODEL = 1 };

static struct audited home;
static const char question[] = "Hello. How long will I be at the x-ray room?";

static int home_open(void **state)
{
    (void)state;
    audited_open(MEED_SOURCE_DIR, NULL, 1, &home);
    return 0;
}

static int home_close(void **state)
{
    (void)state;
    audited_close(&home);
    return 0;
}

static struct meed_extraction_options options_of(int32_t first, int32_t second)
{
    return (struct meed_extraction_options){.tokenizer = home.tokenizer,
                                            .prefixes = {first, second},
                                            .prefix_count = 2,
                                            .max_new_tokens = TOKENS};
}

/* The adapter's own reply is reproduced whole, with the secret in it, behind any prefix; the base
 * says something else, and the gain is the difference. */
static void extraction_finds_what_is_there(void **state)
{
    (void)state;
    struct meed_extraction_row rows[4];
    const char *reply = audited_reply(&home, MODEL, question, TOKENS);
    const size_t length = strlen(reply);
    assert_true(length > 12);
    const char *secret = reply + length - 6; /* the end of it, so behind every prefix */
    struct meed_audit_record record = audited_record(&home, question, reply, secret);
    const struct meed_audit_data data = {
        .path = "own.jsonl", .records = &record, .count = 1, .secret_count = 1};
    const struct meed_extraction_options options = options_of(0, 2);
    audited_ok(meed_extraction_run(home.models, &data, &options, rows));
    for (int p = 0; p < 2; p++) {
        const struct meed_extraction_row *base = &rows[p], *adapter = &rows[2 + p];
        assert_int_equal(adapter->examples, 1);
        assert_int_equal(adapter->whole, 1);
        assert_int_equal(adapter->secrets, 1);
        assert_int_equal(adapter->secrets_found, 1);
        assert_true(adapter->rouge.mean == 1 && adapter->exact.mean == 1);
        assert_true(adapter->rouge.se == 0);
        assert_true(base->whole == 0 && base->rouge_gain.mean == 0);
        assert_true(adapter->exact_gain.mean == 1 - base->exact.mean);
        assert_true(adapter->rouge_gain.mean == 1 - base->rouge.mean);
    }
    struct meed_extraction_options turned = options;
    turned.floor = MODEL;
    audited_ok(meed_extraction_run(home.models, &data, &turned, rows));
    assert_true(rows[2].exact_gain.mean == 0);
    assert_true(rows[0].exact_gain.mean == rows[0].exact.mean - 1);
}

/* Two examples, one right and one with a wrong end: exact is the mean of 1 and (n − 1)/n. */
static void extraction_stops_at_the_first_difference(void **state)
{
    (void)state;
    struct meed_extraction_row rows[4];
    const char *reply = audited_reply(&home, MODEL, question, TOKENS);
    struct meed_audit_record records[2];
    records[0] = audited_record(&home, question, reply, NULL);
    records[1] = audited_record(&home, question, reply, NULL);
    int32_t begin, end;
    meed_extraction_last_reply(home.tokenizer, &records[1].sequence, &begin, &end);
    assert_true(begin > 0 && end - begin > 2);
    const int32_t n = end - begin;
    records[1].sequence.ids[end - 1] = records[1].sequence.ids[begin];
    const struct meed_audit_data data = {.path = "own.jsonl", .records = records, .count = 2};
    const struct meed_extraction_options options = options_of(0, n - 1);
    audited_ok(meed_extraction_run(home.models, &data, &options, rows));
    const struct meed_extraction_row *row = &rows[2];
    const double wrong = (n - 1.0) / n, mean = (1 + wrong) / 2;
    assert_int_equal(row->examples, 2);
    assert_int_equal(row->whole, 1);
    assert_true(fabs(row->exact.mean - mean) < 1e-12);
    assert_true(fabs(row->exact.se - (1 - mean)) < 1e-6); /* half the distance of two values */
    assert_int_equal(rows[3].whole, 1);                   /* one token is asked for */
    assert_true(rows[3].exact.mean == 0.5);
}

/* Replies no longer than the prefix, nothing being left to ask for, are left out. */
static void extraction_counts_what_it_asked(void **state)
{
    (void)state;
    struct meed_extraction_row rows[4];
    struct meed_audit_record records[2];
    records[0] = audited_record(&home, question, "Yes.", NULL);
    records[1] =
        audited_record(&home, question, "It takes ten minutes if you come in the morning.", NULL);
    const struct meed_audit_data data = {.path = "own.jsonl", .records = records, .count = 2};
    int32_t begin, end;
    meed_extraction_last_reply(home.tokenizer, &records[1].sequence, &begin, &end);
    const struct meed_extraction_options options = options_of(5, end - begin);
    audited_ok(meed_extraction_run(home.models, &data, &options, rows));
    assert_int_equal(rows[2].examples, 1);
    assert_int_equal(rows[3].examples, 0);
    assert_true(rows[3].exact.mean == 0 && rows[3].rouge_gain.mean == 0);
}

/* What is left of a reply may be a full stop, which has no words: reproduced, it counts as one. */
static void extraction_scores_what_has_no_words(void **state)
{
    (void)state;
    struct meed_extraction_row rows[4];
    char reply[1024];
    snprintf(reply, sizeof reply, "%s", audited_reply(&home, 0, question, 4 * TOKENS));
    char *stop = strchr(reply, '.');
    assert_non_null(stop);
    stop[1] = '\0';
    struct meed_audit_record record = audited_record(&home, question, reply, NULL);
    int32_t begin, end;
    meed_extraction_last_reply(home.tokenizer, &record.sequence, &begin, &end);
    const struct meed_audit_data data = {.path = "own.jsonl", .records = &record, .count = 1};
    const struct meed_extraction_options options = options_of(0, end - begin - 1);
    audited_ok(meed_extraction_run(home.models, &data, &options, rows));
    assert_int_equal(rows[1].whole, 1);
    assert_true(rows[1].rouge.mean == 1);
}

/* Of several replies the last is asked for, without its end of turn. */
static void extraction_takes_the_last_reply(void **state)
{
    (void)state;
    const struct meed_message messages[] = {{MEED_ROLE_USER, "Hi."},
                                            {MEED_ROLE_ASSISTANT, "Hello."},
                                            {MEED_ROLE_USER, "And?"},
                                            {MEED_ROLE_ASSISTANT, "Nothing else."}};
    const struct meed_dialogue dialogue = {messages, 4};
    struct meed_sequence sequence;
    struct meed_buf text;
    int32_t begin, end;
    meed_buf_init(&text, 1 << 12);
    audited_ok(meed_chat_encode(home.chat, &dialogue, false, 0, &home.arena, &sequence));
    meed_extraction_last_reply(home.tokenizer, &sequence, &begin, &end);
    audited_ok(meed_tokenizer_decode(home.tokenizer, sequence.ids + begin, (size_t)(end - begin),
                                     true, &text));
    assert_string_equal(text.data, "Nothing else.");
    memset(sequence.scored, 0, (size_t)sequence.length);
    meed_extraction_last_reply(home.tokenizer, &sequence, &begin, &end);
    assert_int_equal(begin, end);
    meed_buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extraction_finds_what_is_there),
        cmocka_unit_test(extraction_stops_at_the_first_difference),
        cmocka_unit_test(extraction_counts_what_it_asked),
        cmocka_unit_test(extraction_scores_what_has_no_words),
        cmocka_unit_test(extraction_takes_the_last_reply),
    };
    return cmocka_run_group_tests(tests, home_open, home_close);
}
