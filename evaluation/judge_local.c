/* See judge_local.h. */
#include "evaluation/judge_local.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "engine/generate.h"
#include "engine/net.h"

enum { PAIR_MARKS = 3, MAX_TEXT_BYTES = 16 << 20, MAX_ARENA_BYTES = 1 << 30 };

struct local {
    struct meed_judge_local_options options;
    char name[128];
};

static int32_t marks_of(const struct meed_judge_request *request)
{
    return request->pair ? PAIR_MARKS : MEED_JUDGE_MARKS;
}

/* The reply that gives mark s, behind the reasons. */
static enum meed_status verdict_text(const char *reasons, bool pair, int32_t s,
                                     struct meed_buf *text)
{
    meed_buf_reset(text);
    if (*reasons) {
        MEED_TRY(meed_buf_printf(text, "%s\n", reasons));
    }
    return pair ? meed_buf_printf(text, "[[%c]]", 'A' + s)
                : meed_buf_printf(text, "Rating: [[%d]]", s + 1);
}

static int32_t dialogue_of(const struct meed_judge_request *request, const char *reply,
                           struct meed_message messages[3])
{
    int32_t count = 0;
    if (*request->system) {
        messages[count++] = (struct meed_message){MEED_ROLE_SYSTEM, request->system};
    }
    messages[count++] = (struct meed_message){MEED_ROLE_USER, request->user};
    if (reply) {
        messages[count++] = (struct meed_message){MEED_ROLE_ASSISTANT, reply};
    }
    return count;
}

/* --- reasons ---------------------------------------------------------------------------------- */
static enum meed_status prompt_encode(const struct local *local,
                                      const struct meed_judge_request *request,
                                      struct meed_arena *arena, struct meed_prompt *prompt)
{
    struct meed_message messages[3];
    struct meed_sequence sequence;
    const struct meed_dialogue dialogue = {messages, dialogue_of(request, NULL, messages)};
    MEED_TRY(meed_chat_encode(local->options.chat, &dialogue, true, 0, arena, &sequence));
    *prompt = (struct meed_prompt){sequence.ids, sequence.length, 0};
    return MEED_OK;
}

/* Text up to the mark, if the judge wrote one of its own, without trailing blanks. */
static enum meed_status reasons_decode(const struct local *local, const struct meed_reply *reply,
                                       struct meed_arena *arena, const char **reasons)
{
    struct meed_buf text;
    meed_buf_init(&text, MAX_TEXT_BYTES);
    enum meed_status st = meed_tokenizer_decode(local->options.tokenizer, reply->ids,
                                                (size_t)reply->length, false, &text);
    if (st == MEED_OK) {
        char *mark = text.data ? strstr(text.data, "[[") : NULL;
        size_t length = mark ? (size_t)(mark - text.data) : text.size;
        static const char lead[] = "Rating: ";
        if (mark && length >= strlen(lead) &&
            memcmp(mark - strlen(lead), lead, strlen(lead)) == 0) {
            length -= strlen(lead);
        }
        while (length > 0 && strchr(" \n\t", text.data[length - 1])) {
            length--;
        }
        char *copy;
        st = meed_arena_strdup(arena, text.data ? text.data : "", length, &copy);
        *reasons = st == MEED_OK ? copy : NULL;
    }
    meed_buf_clear(&text);
    return st;
}

static enum meed_status reasons_generate(const struct local *local,
                                         const struct meed_judge_request *requests, int32_t count,
                                         struct meed_arena *arena, const char **reasons)
{
    enum meed_status st = MEED_OK;
    const struct meed_judge_local_options *o = &local->options;
    struct meed_arena scratch;
    struct meed_net *net = NULL;
    struct meed_prompt *prompts;
    struct meed_reply *replies;
    void *block;
    const int32_t stop = meed_chat_end_of_turn(o->chat);
    struct meed_generate_options options = meed_generate_defaults();
    meed_arena_init_growing(&scratch, "judge's reasons", MAX_ARENA_BYTES);
    MEED_TRY_OUT(meed_arena_alloc_array(&scratch, (size_t)count, sizeof *prompts, &block));
    prompts = block;
    MEED_TRY_OUT(meed_arena_alloc_array(&scratch, (size_t)count, sizeof *replies, &block));
    replies = block;
    for (int32_t i = 0; i < count; i++) {
        MEED_TRY_OUT(prompt_encode(local, &requests[i], &scratch, &prompts[i]));
    }
    options.max_new_tokens = o->rationale_tokens;
    options.stop_ids = &stop;
    options.stop_count = 1;
    const struct meed_net_options net_options = {
        .dtype = MEED_DTYPE_F32, .max_rows = options.max_rows, .max_sequences = options.slots};
    MEED_TRY_OUT(meed_net_create(o->be, o->checkpoint, &net_options, &net));
    MEED_TRY_OUT(meed_generate(net, prompts, count, &options, &scratch, replies, NULL, NULL));
    for (int32_t i = 0; i < count; i++) {
        MEED_TRY_OUT(reasons_decode(local, &replies[i], arena, &reasons[i]));
    }
out:
    meed_net_destroy(net);
    meed_arena_clear(&scratch);
    return st;
}

/* --- marks ------------------------------------------------------------------------------------ */
struct marking {
    const struct local *local;
    struct meed_arena scratch;
    struct meed_sequence *sequences; /* [total] */
    double *sums;                    /* [total]: log p of the whole reply */
    int32_t total;
    int32_t longest;
};

static enum meed_status sequences_encode(struct marking *m,
                                         const struct meed_judge_request *requests, int32_t count,
                                         const char *const *reasons)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    int32_t at = 0;
    const int32_t positions = m->local->options.checkpoint->config.max_positions;
    meed_buf_init(&text, MAX_TEXT_BYTES);
    for (int32_t i = 0; i < count; i++) {
        for (int32_t s = 0; s < marks_of(&requests[i]); s++, at++) {
            struct meed_message messages[3];
            MEED_TRY_OUT(verdict_text(reasons[i], requests[i].pair, s, &text));
            const struct meed_dialogue dialogue = {messages,
                                                   dialogue_of(&requests[i], text.data, messages)};
            MEED_TRY_OUT(meed_chat_encode(m->local->options.chat, &dialogue, false,
                                          dialogue.count - 1, &m->scratch, &m->sequences[at]));
            if (m->sequences[at].length > positions) {
                st = MEED_FAIL(MEED_LIMIT,
                               "a judge prompt of %d tokens does not fit the %d positions of %s; "
                               "take a judge with a longer context or limit the replies",
                               m->sequences[at].length, positions, m->local->name);
                goto out;
            }
            m->longest =
                m->sequences[at].length > m->longest ? m->sequences[at].length : m->longest;
        }
    }
out:
    meed_buf_clear(&text);
    return st;
}

/* Sums of one batch that holds sequences first … first + batch->sequences − 1. */
static enum meed_status batch_score(struct marking *m, struct meed_net *net,
                                    const struct meed_batch *batch, int32_t first, float *logprob)
{
    MEED_TRY(meed_net_score(net, batch, logprob));
    for (int32_t row = 0; row < batch->loss_rows; row++) {
        m->sums[first + batch->loss_sequence[row]] += (double)logprob[row];
    }
    return MEED_OK;
}

static enum meed_status sequences_score(struct marking *m)
{
    enum meed_status st = MEED_OK;
    const struct meed_judge_local_options *o = &m->local->options;
    struct meed_batch *batch = NULL;
    struct meed_net *net = NULL;
    float *logprob = NULL;
    const int32_t rows = o->batch_tokens > m->longest ? o->batch_tokens : m->longest;
    const struct meed_net_options options = {
        .dtype = MEED_DTYPE_F32, .max_rows = rows, .max_sequences = rows};
    MEED_TRY_OUT(meed_net_create(o->be, o->checkpoint, &options, &net));
    MEED_TRY_OUT(meed_batch_create(rows, rows, &batch));
    logprob = meed_heap_alloc((size_t)rows, sizeof *logprob);
    if (!logprob) {
        st = MEED_NOMEM;
        goto out;
    }
    int32_t first = 0;
    for (int32_t i = 0; i < m->total; i++) {
        if (!meed_batch_add(batch, &m->sequences[i], 0)) {
            MEED_TRY_OUT(batch_score(m, net, batch, first, logprob));
            meed_batch_reset(batch);
            first = i;
            MEED_ASSERT(meed_batch_add(batch, &m->sequences[i], 0)); /* rows ≥ the longest */
        }
    }
    MEED_TRY_OUT(batch_score(m, net, batch, first, logprob));
out:
    meed_heap_free(logprob);
    meed_batch_destroy(batch);
    meed_net_destroy(net);
    return st;
}

/* Softmax of the marks' sums. */
static void mass_fill(const double *sums, int32_t marks, struct meed_judge_reply *reply)
{
    double best = sums[0];
    double total = 0;
    for (int32_t s = 1; s < marks; s++) {
        best = sums[s] > best ? sums[s] : best;
    }
    for (int32_t s = 0; s < marks; s++) {
        reply->mass[s] = exp(sums[s] - best);
        total += reply->mass[s];
    }
    for (int32_t s = 0; s < marks; s++) {
        reply->mass[s] /= total;
    }
    reply->spread = true;
}

static enum meed_status replies_fill(const struct marking *m,
                                     const struct meed_judge_request *requests, int32_t count,
                                     const char *const *reasons, struct meed_arena *arena,
                                     struct meed_judge_reply *replies)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    const double *sums = m->sums;
    meed_buf_init(&text, MAX_TEXT_BYTES);
    for (int32_t i = 0; i < count; i++) {
        int32_t best = 0;
        char *copy;
        replies[i] = (struct meed_judge_reply){0};
        mass_fill(sums, marks_of(&requests[i]), &replies[i]);
        for (int32_t s = 1; s < marks_of(&requests[i]); s++) {
            best = replies[i].mass[s] > replies[i].mass[best] ? s : best;
        }
        MEED_TRY_OUT(verdict_text(reasons[i], requests[i].pair, best, &text));
        MEED_TRY_OUT(meed_arena_strdup(arena, text.data, text.size, &copy));
        replies[i].text = copy;
        sums += marks_of(&requests[i]);
    }
out:
    meed_buf_clear(&text);
    return st;
}

static enum meed_status local_ask(void *user, const struct meed_judge_request *requests,
                                  int32_t count, struct meed_arena *arena,
                                  struct meed_judge_reply *replies,
                                  void (*done)(void *done_user, int64_t done, int64_t total),
                                  void *done_user)
{
    enum meed_status st = MEED_OK;
    struct marking m = {.local = user};
    const char **reasons;
    void *block;
    meed_arena_init_growing(&m.scratch, "judging", MAX_ARENA_BYTES);
    for (int32_t i = 0; i < count; i++) {
        m.total += marks_of(&requests[i]);
    }
    MEED_TRY_OUT(meed_arena_alloc_array(&m.scratch, (size_t)count, sizeof *reasons, &block));
    reasons = block;
    MEED_TRY_OUT(meed_arena_alloc_array(&m.scratch, (size_t)m.total, sizeof *m.sequences, &block));
    m.sequences = block;
    MEED_TRY_OUT(meed_arena_alloc_array(&m.scratch, (size_t)m.total, sizeof *m.sums, &block));
    m.sums = block;
    for (int32_t i = 0; i < count; i++) {
        reasons[i] = "";
    }
    if (m.local->options.rationale_tokens > 0) {
        MEED_TRY_OUT(reasons_generate(m.local, requests, count, arena, reasons));
    }
    MEED_TRY_OUT(sequences_encode(&m, requests, count, reasons));
    MEED_TRY_OUT(sequences_score(&m));
    MEED_TRY_OUT(replies_fill(&m, requests, count, reasons, arena, replies));
    if (done) {
        done(done_user, count, count);
    }
out:
    meed_arena_clear(&m.scratch);
    return st;
}

static void local_destroy(void *user)
{
    meed_heap_free(user);
}

enum meed_status meed_judge_local_open(const struct meed_judge_local_options *options,
                                       struct meed_judge *judge)
{
    struct local *local = meed_heap_alloc(1, sizeof *local);
    if (!local) {
        return MEED_NOMEM;
    }
    local->options = *options;
    snprintf(local->name, sizeof local->name, "%s", options->name);
    *judge = (struct meed_judge){
        .name = local->name, .user = local, .ask = local_ask, .destroy = local_destroy};
    return MEED_OK;
}
