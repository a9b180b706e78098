/* What a judge is asked, and how its answer is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "evaluation/judge_prompt.h"

static const struct meed_fastchat_question question = {
    .id = 1, .category = "c", .turn_count = 2, .turns = {"FIRST?", "SECOND?"}};
static const char *const answer_a[] = {"alpha {answer_b}", "beta"};
static const char *const answer_b[] = {"gamma", "delta"};

static struct meed_judge_prompts *open_built_in(void)
{
    struct meed_judge_prompts *prompts = NULL;
    assert_int_equal(meed_judge_prompts_open(NULL, &prompts), MEED_OK);
    return prompts;
}

static int count_of(const char *text, const char *word)
{
    int count = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        count++;
    }
    return count;
}

static void check_role(const struct meed_judge_prompts *prompts, enum meed_judge_role role,
                       const struct meed_fastchat_question *q)
{
    bool pair = role >= MEED_JUDGE_PAIR;
    bool second = role == MEED_JUDGE_SINGLE_TURN2 || role == MEED_JUDGE_SINGLE_TURN2_REFERENCE ||
                  role == MEED_JUDGE_PAIR_TURN2 || role == MEED_JUDGE_PAIR_TURN2_REFERENCE;
    int32_t turn = second ? 1 : 0;
    struct meed_buf text;
    meed_buf_init(&text, 1 << 16);
    assert_int_equal(meed_judge_role_of(q, turn, pair), role);
    assert_int_equal(
        meed_judge_prompt_fill(prompts, role, q, turn, answer_a, pair ? answer_b : NULL, &text),
        MEED_OK);
    assert_int_equal(count_of(text.data, "alpha"), 1);
    assert_int_equal(count_of(text.data, "beta"), second ? 1 : 0);
    assert_int_equal(count_of(text.data, "gamma"), pair ? 1 : 0);
    assert_int_equal(count_of(text.data, "delta"), pair && second ? 1 : 0);
    assert_int_equal(count_of(text.data, "SECOND?") > 0, second);
    assert_int_equal(count_of(text.data, "REF1"), q->references[0] ? 1 : 0);
    assert_int_equal(count_of(text.data, "REF2"), q->references[0] && second ? 1 : 0);
    /* what an answer contains is text, not a name */
    assert_int_equal(count_of(text.data, "{answer_b}"), 1);
    assert_int_equal(count_of(prompts->roles[role].system, pair ? "[[C]]" : "[[5]]") > 0, 1);
    meed_buf_clear(&text);
}

static void every_role_shows_its_texts_once(void **state)
{
    (void)state;
    struct meed_judge_prompts *prompts = open_built_in();
    struct meed_fastchat_question with = question;
    with.references[0] = "REF1";
    with.references[1] = "REF2";
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        check_role(prompts, (enum meed_judge_role)role, role % 2 ? &with : &question);
    }
    meed_judge_prompts_close(prompts);
}

static void a_reference_for_one_turn_only(void **state)
{
    (void)state;
    struct meed_fastchat_question half = question;
    half.references[0] = "REF1";
    assert_int_equal(meed_judge_role_of(&half, 0, false), MEED_JUDGE_SINGLE_REFERENCE);
    assert_int_equal(meed_judge_role_of(&half, 1, false), MEED_JUDGE_SINGLE_TURN2);
}

static void ratings_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double rating; /* 0: none */
    } rows[] = {
        {"Good. Rating: [[7]]", 7},
        {"Rating: [[7.5]]", 7.5},
        {"[8]", 8},
        {"[x] then [[3]]", 3},
        {"Rating: 7", 0},
        {"", 0},
        {"[[0]]", 0},
        {"[[11]]", 0},
        {"[[10]]", 10},
        {"[[a]] [[2]]", 2},
        {"[[5", 0},
        {"[[4.]]", 4},
        {"[9] but [[2]]", 2},
        {"[[99999999999999]]", 0},
        {"[[-3]]", 0},
    };
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        double rating = 0;
        bool found = meed_judge_rating_read(rows[i].text, &rating);
        assert_int_equal(found, rows[i].rating != 0);
        assert_true(rating == rows[i].rating);
    }
}

static void winners_are_read(void **state)
{
    (void)state;
    assert_int_equal(meed_judge_winner_read("so [[A]]"), MEED_JUDGE_A);
    assert_int_equal(meed_judge_winner_read("[[B]] and again [[B]]"), MEED_JUDGE_B);
    assert_int_equal(meed_judge_winner_read("[[C]]"), MEED_JUDGE_TIE);
    assert_int_equal(meed_judge_winner_read("[[A]] or [[B]]"), MEED_JUDGE_ERROR);
    assert_int_equal(meed_judge_winner_read("[A]"), MEED_JUDGE_ERROR);
}

static void a_file_with_holes_is_refused(void **state)
{
    (void)state;
    static const char row[] = "{\"name\": \"single-v1\", \"prompt_template\": \"{question}\"}\n";
    struct meed_judge_prompts *prompts = NULL;
    char path[] = "/tmp/meed-judge-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(meed_file_write_atomic(path, row, sizeof row - 1), MEED_OK);
    assert_int_equal(meed_judge_prompts_open(path, &prompts), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "single-math-v1"));
    unlink(path);
}

static void an_unknown_name_is_refused(void **state)
{
    (void)state;
    struct meed_judge_prompts *prompts = open_built_in();
    struct meed_buf text;
    meed_buf_init(&text, 1 << 16);
    prompts->roles[MEED_JUDGE_SINGLE].template = "{ a brace } {question} {mood}";
    assert_int_equal(
        meed_judge_prompt_fill(prompts, MEED_JUDGE_SINGLE, &question, 0, answer_a, NULL, &text),
        MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "{mood}"));
    assert_non_null(strstr(text.data, "{ a brace } FIRST?"));
    meed_buf_clear(&text);
    meed_judge_prompts_close(prompts);
}

/* MT-Bench's own prompts, where they are at hand. */
static void published_prompts_fill(void **state)
{
    (void)state;
    static const char path[] = MEED_SHARED_DATA "/bench/mt_bench/judge_prompts.jsonl";
    struct meed_judge_prompts *prompts = NULL;
    if (!meed_file_exists(path)) {
        printf("skipped: %s is not there\n", path);
        skip();
    }
    assert_int_equal(meed_judge_prompts_open(path, &prompts), MEED_OK);
    struct meed_fastchat_question with = question;
    with.references[0] = "REF1";
    with.references[1] = "REF2";
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        struct meed_buf text;
        meed_buf_init(&text, 1 << 16);
        bool second = (role & 2) != 0;
        assert_int_equal(meed_judge_prompt_fill(prompts, (enum meed_judge_role)role, &with,
                                                second ? 1 : 0, answer_a,
                                                role >= MEED_JUDGE_PAIR ? answer_b : NULL, &text),
                         MEED_OK);
        assert_int_equal(count_of(text.data, "alpha"), 1);
        assert_int_equal(count_of(text.data, "beta"), second ? 1 : 0);
        meed_buf_clear(&text);
    }
    meed_judge_prompts_close(prompts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_role_shows_its_texts_once),
        cmocka_unit_test(a_reference_for_one_turn_only),
        cmocka_unit_test(ratings_are_read),
        cmocka_unit_test(winners_are_read),
        cmocka_unit_test(a_file_with_holes_is_refused),
        cmocka_unit_test(an_unknown_name_is_refused),
        cmocka_unit_test(published_prompts_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
