/* The local judge: its rating is the distribution of its own model over ten whole replies.
 *
 * The reference takes the full logits of each reply (another path through the network), does the
 * softmax in float64, and normalises over the marks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "engine/net.h"
#include "evaluation/judge_local.h"

static const char model[] = MEED_SOURCE_DIR "/examples/tiny/model";

static struct {
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
} home;

static const struct meed_judge_request requests[] = {
    {.system = "Grade.", .user = "Can I keep a film for a week?"},
    {.system = "", .user = "Which reply is better? A: yes. B: no.", .pair = true},
    {.system = "Grade.", .user = "How are you?"},
};

static int home_open(void **state)
{
    (void)state;
    assert_int_equal(meed_backend_open_cpu(NULL, NULL, &home.be), MEED_OK);
    assert_int_equal(meed_checkpoint_open(model, &home.checkpoint), MEED_OK);
    assert_int_equal(meed_tokenizer_open(model, &home.tokenizer), MEED_OK);
    assert_int_equal(meed_chat_open(model, home.tokenizer, &home.chat), MEED_OK);
    return 0;
}

static int home_close(void **state)
{
    (void)state;
    meed_chat_close(home.chat);
    meed_tokenizer_close(home.tokenizer);
    meed_checkpoint_close(home.checkpoint);
    meed_backend_close(home.be);
    return 0;
}

static struct meed_judge judge_open(int32_t rationale)
{
    struct meed_judge judge = {0};
    const struct meed_judge_local_options options = {.be = home.be,
                                                     .checkpoint = home.checkpoint,
                                                     .tokenizer = home.tokenizer,
                                                     .chat = home.chat,
                                                     .name = "tiny",
                                                     .batch_tokens = 128,
                                                     .rationale_tokens = rationale};
    assert_int_equal(meed_judge_local_open(&options, &judge), MEED_OK);
    return judge;
}

static void ask(const struct meed_judge *judge, const struct meed_judge_request *asked,
                int32_t count, struct meed_arena *arena, struct meed_judge_reply *replies)
{
    enum meed_status st = judge->ask(judge->user, asked, count, arena, replies, NULL, NULL);
    if (st != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
}

/* log p of a reply from the full logits, softmax in float64. */
static double reply_logprob(const struct meed_judge_request *request, const char *reply)
{
    struct meed_message messages[3];
    int32_t count = 0;
    struct meed_arena arena;
    struct meed_sequence sequence;
    struct meed_batch *batch = NULL;
    struct meed_net *net = NULL;
    const int32_t vocab = home.checkpoint->config.vocab;
    meed_arena_init_growing(&arena, "test", 1 << 24);
    if (*request->system) {
        messages[count++] = (struct meed_message){MEED_ROLE_SYSTEM, request->system};
    }
    messages[count++] = (struct meed_message){MEED_ROLE_USER, request->user};
    messages[count++] = (struct meed_message){MEED_ROLE_ASSISTANT, reply};
    const struct meed_dialogue dialogue = {messages, count};
    assert_int_equal(meed_chat_encode(home.chat, &dialogue, false, count - 1, &arena, &sequence),
                     MEED_OK);
    const struct meed_net_options options = {
        .dtype = MEED_DTYPE_F32, .max_rows = 256, .max_sequences = 1};
    assert_int_equal(meed_net_create(home.be, home.checkpoint, &options, &net), MEED_OK);
    assert_int_equal(meed_batch_create(256, 1, &batch), MEED_OK);
    assert_true(meed_batch_add(batch, &sequence, 0));
    float *logits = calloc((size_t)batch->rows * (size_t)vocab, sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(meed_net_logits(net, batch, logits), MEED_OK);
    double sum = 0;
    for (int32_t t = 1; t < sequence.length; t++) {
        const float *row = logits + (int64_t)(t - 1) * vocab;
        double total = 0;
        for (int32_t v = 0; v < vocab; v++) {
            total += exp((double)row[v]);
        }
        sum += sequence.scored[t] ? (double)row[sequence.ids[t]] - log(total) : 0;
    }
    free(logits);
    meed_batch_destroy(batch);
    meed_net_destroy(net);
    meed_arena_clear(&arena);
    return sum;
}

static void mass_is_the_models_own(void **state)
{
    (void)state;
    struct meed_judge judge = judge_open(0);
    struct meed_judge_reply replies[3];
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "test", 1 << 20);
    ask(&judge, requests, 3, &arena, replies);
    for (int i = 0; i < 3; i++) {
        int marks = requests[i].pair ? 3 : MEED_JUDGE_MARKS;
        double p[MEED_JUDGE_MARKS];
        double total = 0;
        for (int s = 0; s < marks; s++) {
            char text[32];
            if (requests[i].pair) {
                snprintf(text, sizeof text, "[[%c]]", 'A' + s);
            } else {
                snprintf(text, sizeof text, "Rating: [[%d]]", s + 1);
            }
            p[s] = exp(reply_logprob(&requests[i], text));
            total += p[s];
        }
        assert_true(replies[i].spread);
        for (int s = 0; s < marks; s++) {
            /* sums of ten fp32 log-probabilities near 10: 1e-5 in the exponent */
            assert_true(fabs(replies[i].mass[s] - p[s] / total) < 1e-5);
        }
        for (int s = marks; s < MEED_JUDGE_MARKS; s++) {
            assert_true(replies[i].mass[s] == 0);
        }
    }
    meed_arena_clear(&arena);
    meed_judge_close(&judge);
}

static void alone_or_among_others(void **state)
{
    (void)state;
    for (int32_t rationale = 0; rationale <= 6; rationale += 6) {
        struct meed_judge judge = judge_open(rationale);
        struct meed_judge_reply together[3];
        struct meed_judge_reply alone;
        struct meed_arena arena;
        meed_arena_init_growing(&arena, "test", 1 << 20);
        ask(&judge, requests, 3, &arena, together);
        for (int i = 0; i < 3; i++) {
            ask(&judge, &requests[i], 1, &arena, &alone);
            assert_memory_equal(alone.mass, together[i].mass, sizeof alone.mass);
            assert_string_equal(alone.text, together[i].text);
        }
        assert_int_equal(strlen(together[0].text) > strlen("Rating: [[10]]"), rationale > 0);
        meed_arena_clear(&arena);
        meed_judge_close(&judge);
    }
}

static void a_prompt_too_long_is_refused(void **state)
{
    (void)state;
    struct meed_judge judge = judge_open(0);
    struct meed_judge_reply reply;
    struct meed_arena arena;
    char *text = malloc(40001);
    assert_non_null(text);
    for (int i = 0; i < 40000; i++) {
        text[i] = "abc "[i % 4];
    }
    text[40000] = 0;
    const struct meed_judge_request request = {.system = "", .user = text};
    meed_arena_init_growing(&arena, "test", 1 << 20);
    assert_int_equal(judge.ask(judge.user, &request, 1, &arena, &reply, NULL, NULL), MEED_LIMIT);
    assert_non_null(strstr(meed_last_error(), "positions of tiny"));
    free(text);
    meed_arena_clear(&arena);
    meed_judge_close(&judge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mass_is_the_models_own),
        cmocka_unit_test(alone_or_among_others),
        cmocka_unit_test(a_prompt_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, home_open, home_close);
}
