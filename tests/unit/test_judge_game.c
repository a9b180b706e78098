/* Judged coalitions as a game: the values of a judge whose taste is known.
 *
 * The judge of this test rates a reply by the letters in it. The reference lets every coalition
 * answer on its own and sums up Shapley's formula over all of them in float64.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "evaluation/estimator.h"
#include "evaluation/judge_game.h"

enum { PLAYERS = 3, ITEMS = 3, COALITIONS = 1 << PLAYERS };

static const char model_folder[] = MEED_SOURCE_DIR "/examples/tiny/model";

static struct {
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_adapter *adapters[PLAYERS];
    struct meed_judge_prompts *prompts;
    bool mute; /* the judge says nothing */
} home;

static struct meed_fastchat_question items[] = {
    {.id = 1, .category = "a", .turn_count = 2, .turns = {"How long can I keep a film?", "Why?"}},
    {.id = 2, .category = "b", .turn_count = 1, .turns = {"When does the tram leave?"}},
};
static const struct meed_fastchat_questions questions = {.count = 2, .items = items};
static const double weights[PLAYERS] = {0.5, 0.25, 0.25};

static void must(enum meed_status st)
{
    if (st != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
}

static double taste(const char *text)
{
    int letters = 0;
    for (const char *c = text; *c; c++) {
        letters += (*c == 'e' || *c == 't') ? 1 : 0;
    }
    return 1 + letters % 10;
}

static enum meed_status judge_ask(void *user, const struct meed_judge_request *requests,
                                  int32_t count, struct meed_arena *arena,
                                  struct meed_judge_reply *replies,
                                  void (*done)(void *, int64_t, int64_t), void *done_user)
{
    (void)user;
    (void)arena;
    (void)done;
    (void)done_user;
    for (int32_t i = 0; i < count; i++) {
        replies[i] = (struct meed_judge_reply){.text = "", .spread = true};
        if (!home.mute) {
            replies[i].mass[(int)taste(requests[i].user) - 1] = 1;
        }
    }
    return MEED_OK;
}
static const struct meed_judge judge = {.name = "taste", .ask = judge_ask};

/* Two random adapters, the third changes nothing. */
static int home_open(void **state)
{
    (void)state;
    const struct meed_lora_config lora = {.rank = 4, .alpha = 8, .targets = MEED_PROJ_ALL};
    must(meed_backend_open_cpu(NULL, NULL, &home.be));
    must(meed_checkpoint_open(model_folder, &home.checkpoint));
    must(meed_tokenizer_open(model_folder, &home.tokenizer));
    must(meed_chat_open(model_folder, home.tokenizer, &home.chat));
    must(meed_judge_prompts_open(NULL, &home.prompts));
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) { /* the judged reply and nothing else */
        home.prompts->roles[role].template = role & 2 ? "{answer_2}" : "{answer}";
    }
    for (int i = 0; i < PLAYERS; i++) {
        must(meed_adapter_create(&home.checkpoint->config, &lora, &home.adapters[i]));
        meed_adapter_init(home.adapters[i], (uint64_t)i + 1);
        struct meed_rng rng = meed_rng_stream(3, "judge game", (uint64_t)i);
        for (int32_t m = 0; i < 2 && m < home.adapters[i]->module_count; m++) {
            struct meed_adapter_module *module = &home.adapters[i]->modules[m];
            for (int64_t j = 0; j < module->n * module->r; j++) {
                module->b[j] = (float)(0.1 * meed_rng_normal(&rng));
            }
        }
    }
    return 0;
}

static int home_close(void **state)
{
    (void)state;
    for (int i = 0; i < PLAYERS; i++) {
        meed_adapter_destroy(home.adapters[i]);
    }
    meed_judge_prompts_close(home.prompts);
    meed_chat_close(home.chat);
    meed_tokenizer_close(home.tokenizer);
    meed_checkpoint_close(home.checkpoint);
    meed_backend_close(home.be);
    return 0;
}

static struct meed_judge_game_options options_of(int32_t together)
{
    struct meed_judge_game_options options = {.answering = meed_answering_defaults(),
                                              .weights = weights,
                                              .questions = &questions,
                                              .judge = &judge,
                                              .prompts = home.prompts,
                                              .together = together};
    options.answering.be = home.be;
    options.answering.checkpoint = home.checkpoint;
    options.answering.tokenizer = home.tokenizer;
    options.answering.chat = home.chat;
    options.answering.adapters = (const struct meed_adapter *const *)home.adapters;
    options.answering.adapter_count = PLAYERS;
    options.answering.max_new_tokens = 16;
    return options;
}

/* Ratings of one coalition that answers alone. */
static void coalition_alone(int mask, double ratings[ITEMS])
{
    struct meed_fastchat_answers *answers = NULL;
    struct meed_answering_options options = options_of(1).answering;
    float gates[PLAYERS];
    for (int k = 0; k < PLAYERS; k++) {
        gates[k] = (mask >> k) & 1 ? (float)weights[k] : 0.0f;
    }
    options.gates = gates;
    options.models = 1;
    must(meed_fastchat_answers_create("alone", &questions, &answers));
    must(meed_answering_run(&options, &questions, &answers));
    ratings[0] = taste(answers->turns[0]);
    ratings[1] = taste(answers->turns[1]);
    ratings[2] = taste(answers->turns[MEED_FASTCHAT_MAX_TURNS]);
    meed_fastchat_answers_destroy(answers);
}

static void values_are_shapleys(void **state)
{
    (void)state;
    static const double share[PLAYERS] = {1.0 / 3, 1.0 / 6, 1.0 / 3}; /* by |S| without k */
    double v[COALITIONS][ITEMS];
    for (int mask = 0; mask < COALITIONS; mask++) {
        coalition_alone(mask, v[mask]);
    }
    assert_true(memcmp(v[0], v[COALITIONS - 1], sizeof v[0]) != 0); /* a game worth playing */
    for (int32_t together = 1; together <= 8; together += 7) {
        const struct meed_judge_game_options options = options_of(together);
        struct meed_judge_game *judge_game = NULL;
        struct meed_game game;
        struct meed_estimate *estimate = NULL;
        double watch[ITEMS];
        must(meed_judge_game_open(&options, &judge_game, &game));
        assert_int_equal(game.items, ITEMS);
        meed_judge_game_watch(judge_game, watch);
        assert_true(watch[0] == 0.25 && watch[1] == 0.25 && watch[2] == 0.5);
        const struct meed_estimator_options by = {
            .method = MEED_VALUE_EXACT, .watch = watch, .watch_count = 1};
        must(meed_estimator_run(&game, &by, &estimate));
        for (int k = 0; k < PLAYERS; k++) {
            for (int i = 0; i < ITEMS; i++) {
                double phi = 0;
                for (int mask = 0; mask < COALITIONS; mask++) {
                    if (!((mask >> k) & 1)) {
                        phi += share[__builtin_popcount((unsigned)mask)] *
                               (v[mask | 1 << k][i] - v[mask][i]);
                    }
                }
                assert_true(fabs(estimate->phi[k * ITEMS + i] - phi) < 1e-9);
            }
        }
        for (int i = 0; i < ITEMS; i++) {
            assert_true(estimate->phi[2 * ITEMS + i] == 0);
        }
        meed_estimator_destroy(estimate);
        meed_judge_game_close(judge_game);
    }
}

static void errors_come_from_questions(void **state)
{
    (void)state;
    static const double values[ITEMS] = {1, 3, 6};
    const struct meed_judge_game_options options = options_of(1);
    struct meed_judge_game *judge_game = NULL;
    struct meed_game game;
    double mean, se;
    must(meed_judge_game_open(&options, &judge_game, &game));
    meed_judge_game_mean(judge_game, values, &mean, &se);
    assert_true(mean == 4); /* questions 2 and 6 */
    assert_true(fabs(se - 2) < 1e-12);
    meed_judge_game_close(judge_game);
}

static void a_judge_without_words_ends_it(void **state)
{
    (void)state;
    const struct meed_judge_game_options options = options_of(4);
    struct meed_judge_game *judge_game = NULL;
    struct meed_game game;
    const double members[PLAYERS] = {1, 1, 1};
    double utilities[ITEMS];
    must(meed_judge_game_open(&options, &judge_game, &game));
    home.mute = true;
    assert_int_equal(game.evaluate(game.user, members, 1, utilities), MEED_FORMAT);
    home.mute = false;
    assert_non_null(strstr(meed_last_error(), "question 1, turn 1"));
    meed_judge_game_close(judge_game);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_shapleys),
        cmocka_unit_test(errors_come_from_questions),
        cmocka_unit_test(a_judge_without_words_ends_it),
    };
    return cmocka_run_group_tests(tests, home_open, home_close);
}
