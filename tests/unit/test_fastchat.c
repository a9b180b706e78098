/* FastChat's files: read as FastChat writes them, written as FastChat reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "evaluation/fastchat.h"
#include "tests/support/command.h"

static const char questions_text[] =
    "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Write.\", \"Again.\"]}\n"
    "\n"
    "{\"question_id\": 104, \"category\": \"reasoning\", \"turns\": [\"How many?\", \"And?\"],"
    " \"reference\": [\"two\", \"\"]}\n"
    "{\"question_id\": 103, \"category\": \"reasoning\", \"turns\": [\"Why?\"]}\n";

static char folder[SCRATCH_BYTES];

static int folder_make(void **state)
{
    (void)state;
    scratch_make(folder);
    return 0;
}

static int folder_remove(void **state)
{
    (void)state;
    scratch_remove(folder);
    return 0;
}

static const char *file(const char *name, const char *text)
{
    static char path[SCRATCH_BYTES + 64];
    scratch_write(folder, name, text, strlen(text));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static struct meed_fastchat_questions *questions_load(void)
{
    struct meed_fastchat_questions *questions = NULL;
    assert_int_equal(meed_fastchat_questions_load(file("q.jsonl", questions_text), &questions),
                     MEED_OK);
    return questions;
}

static void questions_are_read(void **state)
{
    (void)state;
    struct meed_fastchat_questions *q = questions_load();
    assert_int_equal(q->count, 3);
    assert_int_equal(q->items[1].id, 104);
    assert_string_equal(q->items[0].category, "writing");
    assert_string_equal(q->items[0].turns[1], "Again.");
    assert_int_equal(q->items[2].turn_count, 1);
    assert_null(q->items[0].references[0]);
    assert_string_equal(q->items[1].references[0], "two");
    assert_null(q->items[1].references[1]); /* an empty reference is none */
    meed_fastchat_questions_destroy(q);
}

static void broken_questions_name_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } rows[] = {
        {"{\"question_id\": 1, \"category\": \"c\", \"turns\": [\"a\"]}\nnonsense\n", "q.jsonl:2"},
        {"{\"question_id\": 1, \"category\": \"c\", \"turns\": []}\n", "1 to 8 texts"},
        {"{\"question_id\": 1, \"category\": \"c\", \"turns\": [3]}\n", "something else"},
        {"{\"question_id\": \"1\", \"category\": \"c\", \"turns\": [\"a\"]}\n", "whole number"},
        {"{\"question_id\": 1, \"turns\": [\"a\"]}\n", "\"category\""},
        {"{\"question_id\": 1, \"category\": \"c\", \"turns\": [\"a\"]}\n"
         "{\"question_id\": 1, \"category\": \"c\", \"turns\": [\"a\"]}\n",
         "used twice"},
        {"\n \n", "no question"},
    };
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        struct meed_fastchat_questions *q = NULL;
        assert_int_equal(meed_fastchat_questions_load(file("q.jsonl", rows[i].text), &q),
                         MEED_FORMAT);
        assert_null(q);
        assert_non_null(strstr(meed_last_error(), rows[i].says));
    }
}

static void answers_come_back(void **state)
{
    (void)state;
    struct meed_fastchat_questions *q = questions_load();
    struct meed_fastchat_answers *made = NULL;
    struct meed_fastchat_answers *read = NULL;
    char path[SCRATCH_BYTES + 16];
    snprintf(path, sizeof path, "%s/a.jsonl", folder);
    assert_int_equal(meed_fastchat_answers_create("north", q, &made), MEED_OK);
    made->turns[0] = "Once \"upon\"\na time \xC3\xA9.";
    made->turns[1] = "";
    made->turns[2 * MEED_FASTCHAT_MAX_TURNS] = "Because.";
    assert_int_equal(meed_fastchat_answers_write(path, q, made, 1500), MEED_OK);
    char *text = scratch_read(path, NULL);
    assert_non_null(strstr(text, "\"tstamp\":1.5"));
    assert_null(strstr(text, "104")); /* not answered, not written */
    free(text);
    assert_int_equal(meed_fastchat_answers_load(path, q, &read), MEED_OK);
    assert_string_equal(read->model, "north");
    assert_string_equal(read->turns[0], made->turns[0]);
    assert_string_equal(read->turns[1], "");
    assert_null(read->turns[MEED_FASTCHAT_MAX_TURNS]);
    assert_string_equal(read->turns[2 * MEED_FASTCHAT_MAX_TURNS], "Because.");
    meed_fastchat_answers_destroy(read);
    meed_fastchat_answers_destroy(made);
    meed_fastchat_questions_destroy(q);
}

static void two_models_in_a_file_are_refused(void **state)
{
    (void)state;
    struct meed_fastchat_questions *q = questions_load();
    struct meed_fastchat_answers *read = NULL;
    static const char text[] =
        "{\"question_id\": 81, \"model_id\": \"a\", \"choices\": [{\"turns\": [\"x\"]}]}\n"
        "{\"question_id\": 103, \"model_id\": \"b\", \"choices\": [{\"turns\": [\"x\"]}]}\n";
    assert_int_equal(meed_fastchat_answers_load(file("a.jsonl", text), q, &read), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "a.jsonl:2"));
    meed_fastchat_questions_destroy(q);
}

/* 104 is on the list of wrong references, 103 is not. */
static void wrong_references_are_dropped(void **state)
{
    (void)state;
    static const char rows[] =
        "{\"question_id\": 103, \"model_id\": \"%s\", \"choices\": [{\"turns\": [\"r\"]}]}\n"
        "{\"question_id\": 104, \"model_id\": \"%s\", \"choices\": [{\"turns\": [\"3\", "
        "\"9\"]}]}\n";
    static const char *const models[] = {"gpt-4", "corrected"};
    for (int32_t m = 0; m < 2; m++) {
        struct meed_fastchat_questions *q = questions_load();
        char text[512];
        int32_t dropped = -1;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, rows, models[m], models[m]);
#pragma GCC diagnostic pop
        assert_int_equal(meed_fastchat_references_load(file("r.jsonl", text), q, &dropped),
                         MEED_OK);
        assert_int_equal(dropped, m == 0 ? 1 : 0);
        assert_string_equal(q->items[2].references[0], "r");
        if (m == 0) {
            assert_null(q->items[1].references[0]);
        } else {
            assert_string_equal(q->items[1].references[1], "9");
        }
        meed_fastchat_questions_destroy(q);
    }
}

/* The published list, and nothing else of MT-Bench's 80 questions. */
static void the_list_of_wrong_references(void **state)
{
    (void)state;
    static const int32_t list[] = {104, 105, 109, 111, 113, 114, 120, 122, 124, 125, 126, 128, 130};
    int32_t found = 0;
    for (int32_t id = 81; id <= 160; id++) {
        found += meed_fastchat_reference_is_wrong("gpt-4", id) ? 1 : 0;
        assert_false(meed_fastchat_reference_is_wrong("gpt-4o", id));
    }
    assert_int_equal(found, MEED_COUNT(list));
    for (size_t i = 0; i < MEED_COUNT(list); i++) {
        assert_true(meed_fastchat_reference_is_wrong("gpt-4", list[i]));
    }
}

/* The published files, where they are at hand. */
static void mt_bench_loads_as_it_is(void **state)
{
    (void)state;
    static const char base[] = MEED_SHARED_DATA "/bench/mt_bench/";
    struct meed_fastchat_questions *q = NULL;
    struct meed_fastchat_answers *answers = NULL;
    int32_t dropped = 0;
    char path[512];
    snprintf(path, sizeof path, "%squestion.jsonl", base);
    if (!meed_file_exists(path)) {
        printf("skipped: %s is not there\n", path);
        skip();
    }
    assert_int_equal(meed_fastchat_questions_load(path, &q), MEED_OK);
    assert_int_equal(q->count, 80);
    snprintf(path, sizeof path, "%sreference_answer_gpt-4.jsonl", base);
    assert_int_equal(meed_fastchat_references_load(path, q, &dropped), MEED_OK);
    assert_int_equal(dropped, 13);
    snprintf(path, sizeof path, "%smodel_answer/llama-2-chat13b.jsonl", base);
    assert_int_equal(meed_fastchat_answers_load(path, q, &answers), MEED_OK);
    for (int32_t i = 0; i < 80; i++) {
        assert_non_null(answers->turns[i * MEED_FASTCHAT_MAX_TURNS + 1]);
    }
    meed_fastchat_answers_destroy(answers);
    meed_fastchat_questions_destroy(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_are_read),
        cmocka_unit_test(broken_questions_name_their_line),
        cmocka_unit_test(answers_come_back),
        cmocka_unit_test(two_models_in_a_file_are_refused),
        cmocka_unit_test(wrong_references_are_dropped),
        cmocka_unit_test(the_list_of_wrong_references),
        cmocka_unit_test(mt_bench_loads_as_it_is),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
