/* The curious client: its prefixes counted by hand, and secrets that a model surely says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "evaluation/prefix_frequency.h"
#include "tests/support/audited.h"

static struct audited home;

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

static struct meed_audit_data data_of(const char *path, struct meed_audit_record *records,
                                      int32_t count)
{
    return (struct meed_audit_data){
        .path = path, .records = records, .count = count, .secret_count = count};
}

/* Three before a code, one before another, one that begins the message; a secret said twice in one
 * message counts twice. */
static void prefixes_are_counted(void **state)
{
    (void)state;
    struct meed_frequency_prefix *prefixes;
    int32_t count;
    struct meed_audit_record records[] = {
        audited_record(&home, "Code?", "Well, the code is  4711 today.", "4711"),
        audited_record(&home, "Code?", "Sorry: the code is 12", "12"),
        audited_record(&home, "Code?", "It was 9. No, the code is 9", "9"),
        audited_record(&home, "Sam here. Code?", "You have none.", "Sam"),
    };
    const struct meed_audit_data data = data_of("own.jsonl", records, 4);
    audited_ok(meed_frequency_prefixes(&data, 3, &home.arena, &prefixes, &count));
    assert_int_equal(count, 3);
    assert_string_equal(prefixes[0].text, "the code is");
    assert_int_equal(prefixes[0].count, 3);
    assert_int_equal(prefixes[0].role, MEED_ROLE_ASSISTANT);
    assert_string_equal(prefixes[1].text, ""); /* "" < "It was" */
    assert_int_equal(prefixes[1].role, MEED_ROLE_USER);
    assert_string_equal(prefixes[2].text, "It was");
    audited_ok(meed_frequency_prefixes(&data, 1, &home.arena, &prefixes, &count));
    assert_string_equal(prefixes[0].text, "is");
    audited_ok(meed_frequency_prefixes(&data, 50, &home.arena, &prefixes, &count));
    assert_int_equal(count, 5);
}

/* What a model goes on with behind the attacker's prefix, as a frequency run with one greedy reply
 * sees it: `word` of it is the victim's secret. */
static const char *said_behind(int32_t model, const char *prefix)
{
    const struct meed_message message = {MEED_ROLE_ASSISTANT, prefix};
    const struct meed_dialogue dialogue = {&message, 1};
    const struct meed_audit_generation generation = {.max_new_tokens = 12};
    struct meed_sequence sequence;
    struct meed_reply reply;
    struct meed_buf text;
    char *copy;
    meed_buf_init(&text, 1 << 16);
    audited_ok(meed_chat_encode(home.chat, &dialogue, false, 0, &home.arena, &sequence));
    int32_t length = sequence.length;
    while (sequence.ids[length - 1] != meed_chat_end_of_turn(home.chat)) {
        length--;
    }
    const struct meed_prompt prompt = {sequence.ids, length - 1, model};
    audited_ok(
        meed_audit_models_generate(home.models, &prompt, 1, &generation, &home.arena, &reply));
    audited_ok(
        meed_tokenizer_decode(home.tokenizer, reply.ids, (size_t)reply.length, false, &text));
    audited_ok(meed_arena_strdup(&home.arena, text.data, text.size, &copy));
    meed_buf_clear(&text);
    return copy;
}

static struct meed_frequency_options options_of(float temperature)
{
    return (struct meed_frequency_options){.chat = home.chat,
                                           .tokenizer = home.tokenizer,
                                           .prefixes = 8,
                                           .context_words = 4,
                                           .samples = 6,
                                           .max_new_tokens = 12,
                                           .temperature = temperature,
                                           .seed = 1};
}

static void what_is_said_is_recovered(void **state)
{
    (void)state;
    struct meed_frequency_result results[2];
    const char *said = said_behind(1, "The best thing is");
    assert_true(strlen(said) > 6);
    assert_null(strstr(said_behind(0, "The best thing is"), said));
    struct meed_audit_record own[] = {
        audited_record(&home, "Where?", "The best thing is 4711", "4711")};
    struct meed_audit_record theirs[] = {
        audited_record(&home, "Where?", said, said),
        audited_record(&home, "Where?", "qqzzqq", "qqzzqq"),
        audited_record(&home, "Where?", said, said),           /* once is enough */
        audited_record(&home, "Where?", "4711 it is", "4711"), /* the attacker's own */
    };
    const struct meed_audit_data attacker = data_of("own.jsonl", own, 1);
    const struct meed_audit_data victims = data_of("theirs.jsonl", theirs, 4);
    struct meed_frequency_options options = options_of(0);
    audited_ok(meed_frequency_run(home.models, &attacker, &victims, &options, results));
    assert_int_equal(results[1].prefixes, 1);
    assert_int_equal(results[1].exclusive, 2);
    assert_int_equal(results[1].recovered, 1);
    assert_int_equal(results[1].completions, 1);
    assert_int_equal(results[1].hits, 1);
    assert_int_equal(results[0].recovered, 0); /* the base says something else */
}

/* Draws differ among the samples and repeat from run to run. */
static void samples_are_draws(void **state)
{
    (void)state;
    struct meed_frequency_result first[2], again[2];
    struct meed_audit_record own[] = {
        audited_record(&home, "Where?", "The best thing is 4711", "4711")};
    struct meed_audit_record theirs[] = {audited_record(&home, "Where?", "On e it is", "e")};
    const struct meed_audit_data attacker = data_of("own.jsonl", own, 1);
    const struct meed_audit_data victims = data_of("theirs.jsonl", theirs, 1);
    struct meed_frequency_options options = options_of(1);
    audited_ok(meed_frequency_run(home.models, &attacker, &victims, &options, first));
    audited_ok(meed_frequency_run(home.models, &attacker, &victims, &options, again));
    assert_memory_equal(first, again, sizeof first);
    assert_in_range(first[0].completions, 2, 6);
    assert_int_equal(first[0].recovered, 1); /* some reply has an e */
}

static void nothing_to_find_is_said(void **state)
{
    (void)state;
    struct meed_frequency_result results[2];
    struct meed_audit_record own[] = {audited_record(&home, "A?", "It is 7", "7")};
    struct meed_audit_record plain[] = {audited_record(&home, "A?", "It is 8", NULL)};
    const struct meed_audit_data labelled = data_of("own.jsonl", own, 1);
    struct meed_audit_data unlabelled = data_of("plain.jsonl", plain, 1);
    unlabelled.secret_count = 0;
    const struct meed_frequency_options options = options_of(0);
    assert_int_equal(meed_frequency_run(home.models, &labelled, &labelled, &options, results),
                     MEED_ARG);
    assert_int_equal(meed_frequency_run(home.models, &labelled, &unlabelled, &options, results),
                     MEED_ARG);
    assert_int_equal(meed_frequency_run(home.models, &unlabelled, &labelled, &options, results),
                     MEED_ARG);
    assert_non_null(strstr(meed_last_error(), "plain.jsonl labels no secret"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes_are_counted),
        cmocka_unit_test(what_is_said_is_recovered),
        cmocka_unit_test(samples_are_draws),
        cmocka_unit_test(nothing_to_find_is_said),
    };
    return cmocka_run_group_tests(tests, home_open, home_close);
}
