/* `meed answer` and `meed judge` as a person runs them, and their mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/compat.h"
#include "tests/support/command.h"

#define MODEL MEED_SOURCE_DIR "/examples/tiny/model"

static char folder[SCRATCH_BYTES];

static const char questions[] =
    "{\"question_id\": 1, \"category\": \"a\", \"turns\": [\"How long can I keep a film?\", "
    "\"Why?\"]}\n"
    "{\"question_id\": 2, \"category\": \"b\", \"turns\": [\"Hi!\"]}\n";

static int setup(void **state)
{
    (void)state;
    scratch_make(folder);
    scratch_write(folder, "q.jsonl", questions, sizeof questions - 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(folder);
    return 0;
}

static void answers_are_judged(void **state)
{
    (void)state;
    struct command_result result;
    char path[SCRATCH_BYTES + 16];
    command_good(&result,
                 "answer --model " MODEL " --base --questions %s/q.jsonl --out %s/answers "
                 "--max-new-tokens 12 --quiet",
                 folder, folder);
    assert_non_null(strstr(result.out, "/answers/base.jsonl"));
    command_clear(&result);
    for (int run = 0; run < 2; run++) { /* the second from the cache */
        command_good(&result,
                     "judge --questions %s/q.jsonl --judge " MODEL " --nulls --cache %s/judged.db "
                     "--json %s/judged%d.jsonl --quiet %s/answers/base.jsonl",
                     folder, folder, folder, run, folder);
        assert_non_null(strstr(result.out, "null: constant"));
        command_clear(&result);
    }
    snprintf(path, sizeof path, "%s/judged1.jsonl", folder);
    char *text = scratch_read(path, NULL);
    int rows = 0;
    for (const char *c = text; *c; c++) {
        rows += *c == '\n' ? 1 : 0;
    }
    assert_int_equal(rows, 9); /* three turns of three models */
    assert_non_null(strstr(text, "\"single-v1-multi-turn\""));
    free(text);
}

static void mistakes_are_one_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *line; /* $ stands for the folder */
        enum meed_status status;
        const char *says;
    } rows[] = {
        {"judge", MEED_ARG, "--questions"},
        {"judge --questions $/q.jsonl", MEED_ARG, "--answers"},
        {"judge --questions $/q.jsonl --answers $/x", MEED_ARG, "one judge"},
        {"judge --questions $/q.jsonl --answers $/x --judge a --endpoint b", MEED_ARG, "one judge"},
        {"judge --questions $/q.jsonl --answers $/x --endpoint http://h", MEED_ARG, "--model-name"},
        {"judge --questions $/none --answers $/x --judge a", MEED_NOT_FOUND, "none"},
        {"judge --questions $/q.jsonl --answers $/q.jsonl --judge a", MEED_FORMAT, "q.jsonl:1"},
        {"judge --questions $/q.jsonl --judge a --adapter x", MEED_ARG, "give both"},
        {"judge --questions $/q.jsonl --judge a --model b --method gradient", MEED_ARG, "gradient"},
        {"judge --questions $/q.jsonl --tries 0", MEED_ARG, "--tries"},
        {"answer --model " MODEL " --questions $/q.jsonl --out $/o", MEED_ARG, "--adapter"},
        {"answer --model " MODEL " --base --questions $/q.jsonl", MEED_ARG, "--out"},
        {"answer --model " MODEL " --questions $/q.jsonl --out $/o $/no/adapter", MEED_NOT_FOUND,
         "adapter"},
    };
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        struct command_result result;
        char line[1024] = "";
        for (const char *c = rows[i].line; *c; c++) {
            size_t length = strlen(line);
            snprintf(line + length, sizeof line - length, "%.*s", *c == '$' ? SCRATCH_BYTES : 1,
                     *c == '$' ? folder : c);
        }
        const char *const says[] = {rows[i].says, NULL};
        command_run(&result, NULL, line);
        command_refused(&result, rows[i].status, says);
        command_clear(&result);
    }
}

/* Nobody listens at that port; the key must not be seen anywhere. */
static void the_key_stays_secret(void **state)
{
    (void)state;
    struct command_result result;
    char line[512];
    static const char answer[] =
        "{\"question_id\": 1, \"model_id\": \"m\", \"choices\": [{\"turns\": [\"x\"]}]}\n";
    scratch_write(folder, "a.jsonl", answer, sizeof answer - 1);
    setenv("JUDGE_KEY", "sk-topsecret", 1);
    snprintf(line, sizeof line,
             "--log debug judge --questions %s/q.jsonl --answers %s/a.jsonl --endpoint "
             "http://127.0.0.1:9/v1 --model-name m --key-variable JUDGE_KEY --tries 1",
             folder, folder);
    command_run(&result, NULL, line);
    const char *const says[] = {"127.0.0.1:9", "after 1 tries", NULL};
    command_refused(&result, MEED_RPC, says);
    assert_null(strstr(result.err, "topsecret"));
    command_clear(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_judged),
        cmocka_unit_test(mistakes_are_one_sentence),
        cmocka_unit_test(the_key_stays_secret),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
