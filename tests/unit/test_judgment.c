/* Plans, scores, means and files of judgments, with a judge whose opinion is known; and the cache.
 *
 * The judge of this test rates an answer by its first byte, and of two answers prefers the one that
 * is shown first unless the other is longer by two: a judge with a bias that both orders must
 * cancel.
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
#include "evaluation/judge_cache.h"
#include "evaluation/judgment.h"
#include "tests/support/command.h"

static char folder[SCRATCH_BYTES];

static struct {
    int calls;
    int requests;
    int fail_at; /* the call that fails, from 1 */
} opinion;

static enum meed_status opinion_ask(void *user, const struct meed_judge_request *requests,
                                    int32_t count, struct meed_arena *arena,
                                    struct meed_judge_reply *replies,
                                    void (*done)(void *, int64_t, int64_t), void *done_user)
{
    (void)user;
    (void)arena;
    (void)done;
    (void)done_user;
    if (++opinion.calls == opinion.fail_at) {
        return MEED_FAIL(MEED_RPC, "gone");
    }
    opinion.requests += count;
    for (int32_t i = 0; i < count; i++) {
        replies[i] = (struct meed_judge_reply){.text = "said", .spread = true};
        if (requests[i].pair) {
            int first = 0;
            int second = 0;
            assert_int_equal(sscanf(requests[i].user, "%d|%d", &first, &second), 2);
            replies[i].mass[second >= first + 2 ? 1 : 0] = 1;
        } else if (requests[i].user[0] != '?') {
            replies[i].mass[requests[i].user[0] - '1'] = 1;
        }
    }
    return MEED_OK;
}

static const struct meed_judge judge = {.name = "opinion", .ask = opinion_ask};

/* Prompts that show nothing but the judged answers. */
static void prompts_make(struct meed_judge_prompts *prompts)
{
    memset(prompts, 0, sizeof *prompts);
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        bool second = (role & 2) != 0;
        prompts->roles[role].name = "p";
        prompts->roles[role].system = "";
        prompts->roles[role].template =
            role >= MEED_JUDGE_PAIR
                ? (second ? "{answer_a_2}|{answer_b_2}" : "{answer_a}|{answer_b}")
                : (second ? "{answer_2}" : "{answer}");
    }
}

static struct meed_fastchat_question items[] = {
    {.id = 1, .category = "x", .turn_count = 2, .turns = {"q", "q"}},
    {.id = 2, .category = "x", .turn_count = 1, .turns = {"q"}},
    {.id = 3, .category = "y", .turn_count = 1, .turns = {"q"}},
};
static const struct meed_fastchat_questions questions = {.count = 3, .items = items};

static const char *north_turns[3 * MEED_FASTCHAT_MAX_TURNS] = {
    [0] = "5", [1] = "7", [MEED_FASTCHAT_MAX_TURNS] = "9", [2 * MEED_FASTCHAT_MAX_TURNS] = "?"};
static const char *south_turns[3 * MEED_FASTCHAT_MAX_TURNS] = {
    [0] = "5", [1] = "4", [MEED_FASTCHAT_MAX_TURNS] = "1"};
static struct meed_fastchat_answers north = {.turns = north_turns};
static struct meed_fastchat_answers south = {.turns = south_turns};
static const struct meed_fastchat_answers *const models[] = {&north, &south};

static int setup(void **state)
{
    (void)state;
    static char north_name[] = "north";
    static char south_name[] = "south";
    north.model = north_name;
    south.model = south_name;
    scratch_make(folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(folder);
    return 0;
}

static struct meed_judgments *judged(bool pair, const struct meed_judge *by)
{
    struct meed_judge_prompts prompts;
    struct meed_judgments *j = NULL;
    prompts_make(&prompts);
    assert_int_equal(meed_judgments_plan(&questions, models, 2, pair, &prompts, &j), MEED_OK);
    assert_int_equal(meed_judgments_ask(j, by, NULL, NULL), MEED_OK);
    return j;
}

static void single_means(void **state)
{
    (void)state;
    struct meed_judgments *j = judged(false, &judge);
    assert_int_equal(j->count, 7);
    /* north: question 1 (5 + 7)/2 = 6, question 2 9, question 3 unread */
    struct meed_judgment_mean mean = meed_judgments_mean(j, 0, 0, 8, NULL);
    assert_int_equal(mean.questions, 2);
    assert_int_equal(mean.unread, 1);
    assert_true(mean.mean == 7.5);
    assert_true(fabs(mean.se - sqrt((2.25 + 2.25) / 1 / 2)) < 1e-12);
    assert_true(meed_judgments_mean(j, 0, 1, 2, NULL).mean == 7);
    assert_true(meed_judgments_mean(j, 1, 0, 1, "x").mean == 3);
    assert_int_equal(meed_judgments_mean(j, 1, 0, 8, "y").questions, 0);
    meed_judgments_destroy(j);
}

static void both_orders_cancel_the_place(void **state)
{
    (void)state;
    struct meed_judgments *j = judged(true, &judge);
    assert_int_equal(j->count, 3);         /* question 3 has one answer only */
    assert_true(j->items[0].score == 0.5); /* 5 against 5: each order its first */
    assert_true(j->items[1].score == 1.0); /* 7 against 4 */
    assert_true(j->items[2].score == 1.0); /* 9 against 1 */
    assert_true(meed_judgments_mean(j, 0, 0, 8, NULL).mean == (0.75 + 1) / 2);
    assert_true(meed_judgments_mean(j, 1, 0, 8, NULL).mean == (0.25 + 0) / 2);
    meed_judgments_destroy(j);
}

static void nothing_to_judge(void **state)
{
    (void)state;
    struct meed_judge_prompts prompts;
    struct meed_judgments *j = NULL;
    prompts_make(&prompts);
    assert_int_equal(meed_judgments_plan(&questions, models, 1, true, &prompts, &j), MEED_ARG);
    assert_null(j);
}

/* Rows of the file as objects; free with json_decref. */
static json_t *rows_of(const char *path)
{
    json_t *rows = json_array();
    char *text = scratch_read(path, NULL);
    for (char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        json_array_append_new(rows, json_loadb(line, length, 0, NULL));
        line += length + (line[length] ? 1 : 0);
    }
    free(text);
    return rows;
}

static const char *word(json_t *rows, size_t row, const char *name)
{
    return json_string_value(json_object_get(json_array_get(rows, row), name));
}

static void files_are_fastchats(void **state)
{
    (void)state;
    struct meed_judge_prompts prompts;
    char path[SCRATCH_BYTES + 16];
    prompts_make(&prompts);
    snprintf(path, sizeof path, "%s/j.jsonl", folder);
    struct meed_judgments *j = judged(false, &judge);
    assert_int_equal(meed_judgments_write(path, j, &judge, &prompts, 2000), MEED_OK);
    json_t *rows = rows_of(path);
    assert_int_equal(json_array_size(rows), 7);
    json_t *last = json_array_get(rows, 3); /* north, question 3 */
    assert_true(json_number_value(json_object_get(last, "score")) == -1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(rows, 1), "turn")), 2);
    assert_string_equal(word(rows, 0, "model"), "north");
    json_decref(rows);
    meed_judgments_destroy(j);
    j = judged(true, &judge);
    assert_int_equal(meed_judgments_write(path, j, &judge, &prompts, 2000), MEED_OK);
    rows = rows_of(path);
    assert_string_equal(word(rows, 0, "g1_winner"), "model_1");
    assert_string_equal(word(rows, 0, "g2_winner"), "model_2");
    assert_string_equal(word(rows, 1, "g1_winner"), "model_1");
    assert_string_equal(word(rows, 1, "g2_winner"), "model_1");
    json_decref(rows);
    meed_judgments_destroy(j);
}

static struct meed_judge cached(const char *identity)
{
    char path[SCRATCH_BYTES + 16];
    struct meed_judge inner = judge;
    struct meed_judge outer = {0};
    snprintf(path, sizeof path, "%s/cache.db", folder);
    assert_int_equal(meed_judge_cache_open(path, identity, &inner, &outer), MEED_OK);
    return outer;
}

static void what_was_asked_is_kept(void **state)
{
    (void)state;
    memset(&opinion, 0, sizeof opinion);
    for (int run = 0; run < 3; run++) {
        struct meed_judge by = cached(run < 2 ? "model 1" : "model 2");
        struct meed_judgments *j = judged(false, &by);
        assert_true(meed_judgments_mean(j, 0, 0, 8, NULL).mean == 7.5);
        assert_true(j->items[0].reply.spread);
        assert_string_equal(j->items[0].reply.text, "said");
        meed_judgments_destroy(j);
        meed_judge_close(&by);
        assert_int_equal(opinion.requests, run < 2 ? 7 : 14);
    }
}

/* Forty requests in groups of sixteen; the third group fails: 32 replies stay. */
static void a_failure_keeps_what_came(void **state)
{
    (void)state;
    struct meed_judge_request requests[40];
    struct meed_judge_reply replies[40];
    char users[40][8];
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "test", 1 << 20);
    for (int i = 0; i < 40; i++) {
        snprintf(users[i], sizeof users[i], "%d %d", i % 9 + 1, i);
        requests[i] = (struct meed_judge_request){.system = "", .user = users[i]};
    }
    struct meed_judge by = cached("model 3");
    memset(&opinion, 0, sizeof opinion);
    opinion.fail_at = 3;
    assert_int_equal(by.ask(by.user, requests, 40, &arena, replies, NULL, NULL), MEED_RPC);
    opinion.requests = 0;
    assert_int_equal(by.ask(by.user, requests, 40, &arena, replies, NULL, NULL), MEED_OK);
    assert_int_equal(opinion.requests, 8);
    for (int i = 0; i < 40; i++) {
        assert_true(replies[i].mass[i % 9] == 1);
    }
    meed_judge_close(&by);
    meed_arena_clear(&arena);
}

static void a_foreign_file_is_refused(void **state)
{
    (void)state;
    char path[SCRATCH_BYTES + 16];
    struct meed_judge inner = judge;
    struct meed_judge outer = {0};
    char text[200];
    memset(text, 'x', sizeof text);
    scratch_write(folder, "no.db", text, sizeof text);
    snprintf(path, sizeof path, "%s/no.db", folder);
    assert_int_equal(meed_judge_cache_open(path, "m", &inner, &outer), MEED_FORMAT);
    assert_non_null(inner.ask); /* still the caller's */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_means),
        cmocka_unit_test(both_orders_cancel_the_place),
        cmocka_unit_test(nothing_to_judge),
        cmocka_unit_test(files_are_fastchats),
        cmocka_unit_test(what_was_asked_is_kept),
        cmocka_unit_test(a_failure_keeps_what_came),
        cmocka_unit_test(a_foreign_file_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
