/* See judge_local.h. */
#include "evaluation/judge_local.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "engine/generate.h"
#include "engine/net_decode.h"

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
/* All replies of one request share prompt and opening words: that prefix is fed once and its pages
 * serve every mark; then the few tokens that differ are fed behind them. The factor that all
 * marks have in common cancels in the softmax and is never computed. */
struct marking {
    const struct local *local;
    struct meed_arena scratch; /* of one request */
    struct meed_net *net;
    struct meed_kv_cache *cache; /* a slot a mark */
    int32_t cache_capacity;
    int32_t max_rows;
    float *logits; /* [max_rows, vocab] */
    struct meed_sequence sequences[MEED_JUDGE_MARKS];
    int32_t longest, common;
    int32_t *slots, *positions, *wanted; /* [max_rows] */
};

static enum meed_status
sequences_encode(struct marking *m, const struct meed_judge_request *request, const char *reasons)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    const int32_t positions = m->local->options.checkpoint->config.max_positions;
    meed_buf_init(&text, MAX_TEXT_BYTES);
    m->longest = 0;
    for (int32_t s = 0; s < marks_of(request); s++) {
        struct meed_message messages[3];
        MEED_TRY_OUT(verdict_text(reasons, request->pair, s, &text));
        const struct meed_dialogue dialogue = {messages, dialogue_of(request, text.data, messages)};
        MEED_TRY_OUT(meed_chat_encode(m->local->options.chat, &dialogue, false, dialogue.count - 1,
                                      &m->scratch, &m->sequences[s]));
        m->longest = MEED_MAX(m->longest, m->sequences[s].length);
    }
    if (m->longest > positions) {
        st = MEED_FAIL(MEED_LIMIT,
                       "a judge prompt of %d tokens does not fit the %d positions of %s; take a "
                       "judge with a longer context or limit the replies",
                       m->longest, positions, m->local->name);
    }
out:
    meed_buf_clear(&text);
    return st;
}

/* Leading tokens that all marks share, all but one at most. */
static int32_t common_prefix(const struct marking *m, int32_t marks)
{
    int32_t common = m->sequences[0].length - 1;
    for (int32_t s = 1; s < marks; s++) {
        const struct meed_sequence *sequence = &m->sequences[s];
        int32_t same = 0;
        while (same < common && same < sequence->length - 1 &&
               sequence->ids[same] == m->sequences[0].ids[same]) {
            same++;
        }
        common = same;
    }
    return common;
}

static enum meed_status cache_fit(struct marking *m)
{
    if (m->longest > m->cache_capacity) {
        int32_t most = m->local->options.checkpoint->config.max_positions;
        meed_kv_cache_destroy(m->cache);
        m->cache = NULL;
        m->cache_capacity = MEED_MIN(most, MEED_MAX(m->longest, 2 * m->cache_capacity));
        MEED_TRY(meed_kv_cache_create(m->net, MEED_JUDGE_MARKS, m->cache_capacity, 0, &m->cache));
    }
    return MEED_OK;
}

/* Feeds the prefix to slot 0 and leaves the logits behind its last token in m->logits. */
static enum meed_status prefix_feed(struct marking *m)
{
    for (int32_t begin = 0; begin < m->common; begin += m->max_rows) {
        int32_t count = MEED_MIN(m->max_rows, m->common - begin);
        int32_t last = count - 1;
        for (int32_t i = 0; i < count; i++) {
            m->slots[i] = 0;
            m->positions[i] = begin + i;
        }
        const struct meed_decode_rows rows = {.count = count,
                                              .ids = m->sequences[0].ids + begin,
                                              .slots = m->slots,
                                              .positions = m->positions,
                                              .want_count = begin + count == m->common ? 1 : 0,
                                              .want_rows = &last};
        MEED_TRY(meed_net_decode(m->net, m->cache, &rows, m->logits));
    }
    return MEED_OK;
}

/* log softmax of one row at `token`, in fp64. */
static double logprob_at(const float *row, int32_t vocab, int32_t token)
{
    double best = (double)row[0];
    double total = 0;
    for (int32_t v = 1; v < vocab; v++) {
        best = (double)row[v] > best ? (double)row[v] : best;
    }
    for (int32_t v = 0; v < vocab; v++) {
        total += exp((double)row[v] - best);
    }
    return (double)row[token] - best - log(total);
}

/* Adds to sums [marks] the log-probabilities of the tokens behind the prefix. */
static enum meed_status tails_score(struct marking *m, int32_t marks, double *sums)
{
    const int32_t vocab = m->local->options.checkpoint->config.vocab;
    for (int32_t s = 0; s < marks; s++) {
        sums[s] = logprob_at(m->logits, vocab, m->sequences[s].ids[m->common]);
        if (s > 0) {
            meed_kv_cache_share(m->cache, 0, s, m->common);
        }
    }
    for (int32_t s = 0; s < marks; s++) {
        const struct meed_sequence *sequence = &m->sequences[s];
        for (int32_t begin = m->common; begin < sequence->length - 1; begin += m->max_rows) {
            int32_t count = MEED_MIN(m->max_rows, sequence->length - 1 - begin);
            for (int32_t i = 0; i < count; i++) {
                m->slots[i] = s;
                m->positions[i] = begin + i;
                m->wanted[i] = i;
            }
            const struct meed_decode_rows rows = {.count = count,
                                                  .ids = sequence->ids + begin,
                                                  .slots = m->slots,
                                                  .positions = m->positions,
                                                  .want_count = count,
                                                  .want_rows = m->wanted};
            MEED_TRY(meed_net_decode(m->net, m->cache, &rows, m->logits));
            for (int32_t i = 0; i < count; i++) {
                sums[s] +=
                    logprob_at(m->logits + (int64_t)i * vocab, vocab, sequence->ids[begin + i + 1]);
            }
        }
    }
    return MEED_OK;
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

/* Mass and the likeliest mark's text. */
static enum meed_status request_mark(struct marking *m, const struct meed_judge_request *request,
                                     const char *reasons, struct meed_arena *arena,
                                     struct meed_judge_reply *reply)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    double sums[MEED_JUDGE_MARKS];
    int32_t best = 0;
    char *copy;
    meed_buf_init(&text, MAX_TEXT_BYTES);
    MEED_TRY_OUT(sequences_encode(m, request, reasons));
    m->common = common_prefix(m, marks_of(request));
    MEED_TRY_OUT(cache_fit(m));
    MEED_TRY_OUT(prefix_feed(m));
    MEED_TRY_OUT(tails_score(m, marks_of(request), sums));
    *reply = (struct meed_judge_reply){0};
    mass_fill(sums, marks_of(request), reply);
    for (int32_t s = 1; s < marks_of(request); s++) {
        best = reply->mass[s] > reply->mass[best] ? s : best;
    }
    MEED_TRY_OUT(verdict_text(reasons, request->pair, best, &text));
    MEED_TRY_OUT(meed_arena_strdup(arena, text.data, text.size, &copy));
    reply->text = copy;
out:
    meed_arena_clear(&m->scratch);
    meed_arena_init_growing(&m->scratch, "judging", MAX_ARENA_BYTES);
    meed_buf_clear(&text);
    return st;
}

static enum meed_status marking_open(struct marking *m)
{
    const struct meed_judge_local_options *o = &m->local->options;
    const struct meed_net_options options = {
        .dtype = MEED_DTYPE_F32, .max_rows = o->batch_tokens, .max_sequences = MEED_JUDGE_MARKS};
    const size_t rows = (size_t)o->batch_tokens;
    meed_arena_init_growing(&m->scratch, "judging", MAX_ARENA_BYTES);
    m->max_rows = o->batch_tokens;
    MEED_TRY(meed_net_create(o->be, o->checkpoint, &options, &m->net));
    m->logits = meed_heap_alloc(rows * (size_t)o->checkpoint->config.vocab, sizeof *m->logits);
    m->slots = meed_heap_alloc(rows, sizeof *m->slots);
    m->positions = meed_heap_alloc(rows, sizeof *m->positions);
    m->wanted = meed_heap_alloc(rows, sizeof *m->wanted);
    return m->logits && m->slots && m->positions && m->wanted ? MEED_OK : MEED_NOMEM;
}

static void marking_close(struct marking *m)
{
    meed_heap_free(m->logits);
    meed_heap_free(m->slots);
    meed_heap_free(m->positions);
    meed_heap_free(m->wanted);
    meed_kv_cache_destroy(m->cache);
    meed_net_destroy(m->net);
    meed_arena_clear(&m->scratch);
}

static enum meed_status local_ask(void *user, const struct meed_judge_request *requests,
                                  int32_t count, struct meed_arena *arena,
                                  struct meed_judge_reply *replies,
                                  void (*done)(void *done_user, int64_t done, int64_t total),
                                  void *done_user)
{
    enum meed_status st = MEED_OK;
    struct marking m = {.local = user};
    const char **reasons = meed_heap_alloc((size_t)count, sizeof *reasons);
    if (!reasons) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        reasons[i] = "";
    }
    if (m.local->options.rationale_tokens > 0) {
        MEED_TRY_OUT(reasons_generate(m.local, requests, count, arena, reasons));
    }
    MEED_TRY_OUT(marking_open(&m));
    for (int32_t i = 0; i < count; i++) {
        MEED_TRY_OUT(request_mark(&m, &requests[i], reasons[i], arena, &replies[i]));
        if (done) {
            done(done_user, i + 1, count);
        }
    }
out:
    marking_close(&m);
    meed_heap_free(reasons);
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
