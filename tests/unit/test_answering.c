/* Many models answering in one batch: each as if it were alone.
 *
 * Three models over two adapters of the example model: the base, one adapter, and half of both.
 * The reference generates turn by turn with a network that holds one model, whole prompts fed anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "engine/generate.h"
#include "evaluation/answering.h"

enum { MODELS = 3, ADAPTERS = 2 };

static const char model_folder[] = MEED_SOURCE_DIR "/examples/tiny/model";

static struct {
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_adapter *adapters[ADAPTERS];
} home;

static struct meed_fastchat_question items[] = {
    {.id = 1, .category = "a", .turn_count = 2, .turns = {"How long can I keep a film?", "Why?"}},
    {.id = 2, .category = "a", .turn_count = 1, .turns = {"When does the tram leave?"}},
    {.id = 3,
     .category = "b",
     .turn_count = 3,
     .turns = {"Hi!", "What does a ticket cost?", "Thank you."}},
};
static const struct meed_fastchat_questions questions = {.count = 3, .items = items};
static const float gates[MODELS * ADAPTERS] = {0, 0, 1, 0, 0.5f, 0.5f};

static void must(enum meed_status st)
{
    if (st != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
}

static int home_open(void **state)
{
    (void)state;
    const struct meed_lora_config lora = {.rank = 4, .alpha = 8, .targets = MEED_PROJ_ALL};
    must(meed_backend_open_cpu(NULL, NULL, &home.be));
    must(meed_checkpoint_open(model_folder, &home.checkpoint));
    must(meed_tokenizer_open(model_folder, &home.tokenizer));
    must(meed_chat_open(model_folder, home.tokenizer, &home.chat));
    for (int i = 0; i < ADAPTERS; i++) {
        must(meed_adapter_create(&home.checkpoint->config, &lora, &home.adapters[i]));
        meed_adapter_init(home.adapters[i], (uint64_t)i + 1);
        struct meed_rng rng = meed_rng_stream(7, "answering", (uint64_t)i);
        for (int32_t m = 0; m < home.adapters[i]->module_count; m++) {
            struct meed_adapter_module *module = &home.adapters[i]->modules[m];
            for (int64_t j = 0; j < module->n * module->r; j++) {
                module->b[j] = (float)(0.05 * meed_rng_normal(&rng));
            }
        }
    }
    return 0;
}

static int home_close(void **state)
{
    (void)state;
    for (int i = 0; i < ADAPTERS; i++) {
        meed_adapter_destroy(home.adapters[i]);
    }
    meed_chat_close(home.chat);
    meed_tokenizer_close(home.tokenizer);
    meed_checkpoint_close(home.checkpoint);
    meed_backend_close(home.be);
    return 0;
}

static struct meed_answering_options options_of(int32_t models, const float *of, float temperature)
{
    struct meed_answering_options options = meed_answering_defaults();
    options.be = home.be;
    options.checkpoint = home.checkpoint;
    options.tokenizer = home.tokenizer;
    options.chat = home.chat;
    options.adapters = (const struct meed_adapter *const *)home.adapters;
    options.adapter_count = ADAPTERS;
    options.gates = of;
    options.models = models;
    options.max_new_tokens = 24;
    options.temperature = temperature;
    options.slots = 4;
    options.max_rows = 64;
    return options;
}

static void answer(int32_t models, const float *of, float temperature,
                   struct meed_fastchat_answers **answers)
{
    const struct meed_answering_options options = options_of(models, of, temperature);
    for (int32_t m = 0; m < models; m++) {
        must(meed_fastchat_answers_create("m", &questions, &answers[m]));
    }
    must(meed_answering_run(&options, &questions, answers));
}

static void answers_equal(const struct meed_fastchat_answers *x,
                          const struct meed_fastchat_answers *y)
{
    for (int32_t q = 0; q < questions.count; q++) {
        for (int32_t t = 0; t < items[q].turn_count; t++) {
            int32_t at = q * MEED_FASTCHAT_MAX_TURNS + t;
            assert_non_null(x->turns[at]);
            assert_string_equal(x->turns[at], y->turns[at]);
        }
    }
}

/* Greedy reply to the dialogue so far by a net of its own. */
static void reply_alone(int32_t model, const struct meed_fastchat_answers *so_far, int32_t question,
                        int32_t turn, struct meed_buf *text)
{
    struct meed_net *net = NULL;
    struct meed_arena arena;
    struct meed_sequence sequence;
    struct meed_reply reply;
    struct meed_message messages[8];
    int32_t count = 0;
    const int32_t stop = meed_chat_end_of_turn(home.chat);
    struct meed_generate_options options = meed_generate_defaults();
    const struct meed_net_options net_options = {
        .dtype = MEED_DTYPE_F32,
        .max_rows = options.max_rows,
        .max_sequences = 1,
        .adapters = (const struct meed_adapter *const *)home.adapters,
        .adapter_count = ADAPTERS};
    meed_arena_init_growing(&arena, "test", 1 << 22);
    for (int32_t t = 0; t <= turn; t++) {
        messages[count++] = (struct meed_message){MEED_ROLE_USER, items[question].turns[t]};
        if (t < turn) {
            const char *said = so_far->turns[question * MEED_FASTCHAT_MAX_TURNS + t];
            messages[count++] = (struct meed_message){MEED_ROLE_ASSISTANT, said};
        }
    }
    const struct meed_dialogue dialogue = {messages, count};
    must(meed_chat_encode(home.chat, &dialogue, true, 0, &arena, &sequence));
    must(meed_net_create(home.be, home.checkpoint, &net_options, &net));
    must(meed_net_set_gates(net, gates + (ptrdiff_t)model * ADAPTERS, 1));
    options.max_new_tokens = 24;
    options.stop_ids = &stop;
    options.stop_count = 1;
    const struct meed_prompt prompt = {sequence.ids, sequence.length, 0};
    must(meed_generate(net, &prompt, 1, &options, &arena, &reply, NULL, NULL));
    must(meed_tokenizer_decode(home.tokenizer, reply.ids, (size_t)reply.length, false, text));
    meed_net_destroy(net);
    meed_arena_clear(&arena);
}

static void every_model_answers_as_if_alone(void **state)
{
    (void)state;
    struct meed_fastchat_answers *answers[MODELS];
    answer(MODELS, gates, 0, answers);
    for (int32_t m = 0; m < MODELS; m++) {
        for (int32_t q = 0; q < questions.count; q++) {
            for (int32_t t = 0; t < items[q].turn_count; t++) {
                struct meed_buf text;
                meed_buf_init(&text, 1 << 16);
                reply_alone(m, answers[m], q, t, &text);
                const char *said = answers[m]->turns[q * MEED_FASTCHAT_MAX_TURNS + t];
                assert_string_equal(said, text.data ? text.data : "");
                meed_buf_clear(&text);
            }
        }
    }
    /* the gates do something */
    assert_true(strcmp(answers[0]->turns[0], answers[1]->turns[0]) != 0);
    for (int32_t m = 0; m < MODELS; m++) {
        meed_fastchat_answers_destroy(answers[m]);
    }
}

/* The same model twice draws the same numbers; so does one model alone. */
static void draws_are_paired(void **state)
{
    (void)state;
    static const float twice[2 * ADAPTERS] = {1, 0, 1, 0};
    struct meed_fastchat_answers *both[2];
    struct meed_fastchat_answers *alone[1];
    answer(2, twice, 0.9f, both);
    answer(1, twice, 0.9f, alone);
    answers_equal(both[0], both[1]);
    answers_equal(both[0], alone[0]);
    meed_fastchat_answers_destroy(both[0]);
    meed_fastchat_answers_destroy(both[1]);
    meed_fastchat_answers_destroy(alone[0]);
}

static bool stop_after_two(void *user, int64_t done, int64_t total)
{
    (void)user;
    assert_int_equal(total, MODELS * 6);
    return done < 2;
}

static void answering_can_be_cancelled(void **state)
{
    (void)state;
    struct meed_fastchat_answers *answers[MODELS];
    struct meed_answering_options options = options_of(MODELS, gates, 0);
    options.progress = stop_after_two;
    for (int32_t m = 0; m < MODELS; m++) {
        must(meed_fastchat_answers_create("m", &questions, &answers[m]));
    }
    assert_int_equal(meed_answering_run(&options, &questions, answers), MEED_CANCELLED);
    for (int32_t m = 0; m < MODELS; m++) {
        meed_fastchat_answers_destroy(answers[m]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_model_answers_as_if_alone),
        cmocka_unit_test(draws_are_paired),
        cmocka_unit_test(answering_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, home_open, home_close);
}
