/* See answering.h. */
#include "evaluation/answering.h"

#include <inttypes.h>
#include <string.h>
#include "base/buf.h"
#include "engine/generate.h"
#include "engine/net.h"
#include "engine/tokenizer_utf8.h"

enum { MAX_TEXT_BYTES = 64 << 20, MAX_ARENA_BYTES = 1 << 30 };

struct run {
    const struct meed_answering_options *options;
    const struct meed_fastchat_questions *questions;
    struct meed_fastchat_answers *const *answers;
    struct meed_arena arena; /* prompts of all turns, replies */
    int64_t done, total;
};

/* --- prompts ---------------------------------------------------------------------------------- */
static const char **turns_of(const struct run *run, int32_t model, int32_t question)
{
    return run->answers[model]->turns + (int64_t)question * MEED_FASTCHAT_MAX_TURNS;
}

/* The dialogue up to the question of `turn`. */
static enum meed_status prompt_encode(struct run *run, int32_t model, int32_t question,
                                      int32_t turn, struct meed_prompt *prompt)
{
    const struct meed_fastchat_question *q = &run->questions->items[question];
    struct meed_message messages[2 * MEED_FASTCHAT_MAX_TURNS + 1];
    struct meed_sequence sequence;
    int32_t count = 0;
    if (run->options->system) {
        messages[count++] = (struct meed_message){MEED_ROLE_SYSTEM, run->options->system};
    }
    for (int32_t t = 0; t <= turn; t++) {
        messages[count++] = (struct meed_message){MEED_ROLE_USER, q->turns[t]};
        if (t < turn) {
            messages[count++] =
                (struct meed_message){MEED_ROLE_ASSISTANT, turns_of(run, model, question)[t]};
        }
    }
    const struct meed_dialogue dialogue = {messages, count};
    MEED_TRY(meed_chat_encode(run->options->chat, &dialogue, true, 0, &run->arena, &sequence));
    *prompt = (struct meed_prompt){sequence.ids, sequence.length, model};
    return MEED_OK;
}

static enum meed_status first_prompts(struct run *run, struct meed_prompt *prompts)
{
    const int32_t positions = run->options->checkpoint->config.max_positions;
    for (int32_t model = 0; model < run->options->models; model++) {
        for (int32_t q = 0; q < run->questions->count; q++) {
            struct meed_prompt *prompt = &prompts[(int64_t)model * run->questions->count + q];
            MEED_TRY(prompt_encode(run, model, q, 0, prompt));
            if (prompt->length >= positions) {
                return MEED_FAIL(MEED_LIMIT,
                                 "question %" PRId64 " has %d tokens; the model has %d positions",
                                 run->questions->items[q].id, prompt->length, positions);
            }
        }
    }
    return MEED_OK;
}

/* --- replies ---------------------------------------------------------------------------------- */
static enum meed_status reply_keep(struct run *run, int32_t model, int32_t question, int32_t turn,
                                   const struct meed_reply *reply)
{
    struct meed_buf raw;
    struct meed_buf
        clean; /* a reply may end inside a character or hold a NUL; text files may not */
    enum meed_status st;
    char *copy;
    meed_buf_init(&raw, MAX_TEXT_BYTES);
    meed_buf_init(&clean, MAX_TEXT_BYTES);
    MEED_TRY_OUT(meed_tokenizer_decode(run->options->tokenizer, reply->ids, (size_t)reply->length,
                                       false, &raw));
    const char *bytes = raw.data ? raw.data : "";
    MEED_TRY_OUT(meed_tokenizer_utf8_clean(bytes, strlen(bytes), &clean));
    bytes = clean.data ? clean.data : "";
    MEED_TRY_OUT(meed_arena_strdup(&run->answers[model]->arena, bytes, strlen(bytes), &copy));
    turns_of(run, model, question)[turn] = copy;
out:
    meed_buf_clear(&clean);
    meed_buf_clear(&raw);
    return st;
}

static enum meed_status on_turn(void *user, int32_t prompt_idx, const struct meed_reply *reply,
                                struct meed_prompt *next)
{
    struct run *run = user;
    const int32_t model = prompt_idx / run->questions->count;
    const int32_t question = prompt_idx % run->questions->count;
    const int32_t turns = run->questions->items[question].turn_count;
    const char *const *given = turns_of(run, model, question);
    int32_t turn = 0;
    while (turn < turns && given[turn]) {
        turn++;
    }
    MEED_TRY(reply_keep(run, model, question, turn, reply));
    run->done++;
    if (run->options->progress &&
        !run->options->progress(run->options->progress_user, run->done, run->total)) {
        return MEED_FAIL(MEED_CANCELLED, "answering was cancelled");
    }
    if (turn + 1 < turns) {
        struct meed_prompt later;
        MEED_TRY(prompt_encode(run, model, question, turn + 1, &later));
        if (later.length < run->options->checkpoint->config.max_positions) {
            *next = later;
        } else {
            run->total -= turns - turn - 1;
        }
    }
    return MEED_OK;
}

/* --- running ---------------------------------------------------------------------------------- */
struct meed_answering_options meed_answering_defaults(void)
{
    return (struct meed_answering_options){
        .models = 1, .max_new_tokens = 256, .top_p = 1.0f, .seed = 1, .slots = 16, .max_rows = 256};
}

static enum meed_status net_open(const struct meed_answering_options *options,
                                 struct meed_net **net)
{
    const struct meed_net_options net_options = {.dtype = MEED_DTYPE_F32,
                                                 .max_rows = options->max_rows,
                                                 .max_sequences = options->slots,
                                                 .adapters = options->adapters,
                                                 .adapter_count = options->adapter_count};
    MEED_TRY(meed_net_create(options->be, options->checkpoint, &net_options, net));
    return options->adapter_count > 0 ? meed_net_set_gates(*net, options->gates, options->models)
                                      : MEED_OK;
}

static enum meed_status generate(struct run *run, struct meed_net *net)
{
    enum meed_status st = MEED_OK;
    const struct meed_answering_options *o = run->options;
    const int32_t count = o->models * run->questions->count;
    struct meed_generator *generator = NULL;
    struct meed_prompt *prompts = meed_heap_alloc((size_t)count, sizeof *prompts);
    struct meed_reply *replies = meed_heap_alloc((size_t)count, sizeof *replies);
    int32_t stops[MEED_MODEL_MAX_EOS + 1];
    int32_t stop_count = 0;
    const struct meed_generate_hooks hooks = {NULL, on_turn, run};
    struct meed_generate_options options = meed_generate_defaults();
    if (!prompts || !replies) {
        st = MEED_NOMEM;
        goto out;
    }
    stops[stop_count++] = meed_chat_end_of_turn(o->chat);
    for (int32_t i = 0; i < o->checkpoint->config.eos_count; i++) {
        stops[stop_count++] = o->checkpoint->config.eos[i];
    }
    options.max_new_tokens = o->max_new_tokens;
    options.temperature = o->temperature;
    options.top_p = o->top_p;
    options.seed = o->seed;
    options.stream_period = run->questions->count;
    options.stop_ids = stops;
    options.stop_count = stop_count;
    options.slots = o->slots < count ? o->slots : count;
    options.max_rows = o->max_rows;
    options.capacity = o->checkpoint->config.max_positions;
    MEED_TRY_OUT(first_prompts(run, prompts));
    MEED_TRY_OUT(meed_generator_create(net, &options, &generator));
    MEED_TRY_OUT(
        meed_generator_run(generator, prompts, count, &options, &hooks, &run->arena, replies));
out:
    meed_generator_destroy(generator);
    meed_heap_free(replies);
    meed_heap_free(prompts);
    return st;
}

enum meed_status meed_answering_run(const struct meed_answering_options *options,
                                    const struct meed_fastchat_questions *questions,
                                    struct meed_fastchat_answers *const *answers)
{
    enum meed_status st = MEED_OK;
    struct meed_net *net = NULL;
    struct run run = {.options = options, .questions = questions, .answers = answers};
    for (int32_t q = 0; q < questions->count; q++) {
        run.total += (int64_t)questions->items[q].turn_count * options->models;
    }
    meed_arena_init_growing(&run.arena, "answering", MAX_ARENA_BYTES);
    MEED_TRY_OUT(net_open(options, &net));
    MEED_TRY_OUT(generate(&run, net));
out:
    meed_net_destroy(net);
    meed_arena_clear(&run.arena);
    return st;
}
