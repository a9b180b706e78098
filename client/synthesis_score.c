/* See synthesis.h. Every survivor is scored twice: as a dialogue, and each of its replies alone
 * behind what the chat template opens a reply with. Both go through the network as one list of
 * sequences, in batches; a sequence's log-probabilities do not depend on its batch (net.h).
 */
#include "client/synthesis_internal.h"

#include <math.h>
#include <string.h>

enum { BATCH_ROWS = 1024, BATCH_SEQUENCES = 256 };

/* Of one candidate. */
struct losses {
    double behind; /* Σ −log p of reply tokens behind the dialogue so far */
    double alone;  /* behind nothing */
    int32_t tokens;
    double score; /* as named, for people */
    double key;   /* ascending: best first */
    bool kept;
};
struct entry {
    struct meed_sequence sequence;
    double *sum;
};
struct scorer {
    const struct meed_synthesis_job *job;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_net *net;
    struct meed_batch *batch;
    float *logprob;
    struct meed_arena arena;
    struct meed_synthesis_candidate *candidates;
    struct losses *losses; /* [candidates] */
    struct meed_buf entries;
    double *sums[BATCH_SEQUENCES]; /* of the batch's sequences */
    int32_t *header;               /* what opens a reply */
    int32_t header_length;
    int32_t survivors;
    int32_t done;
};

/* --- sequences ---------------------------------------------------------------------------------
 */
/* The tokens that a generation prompt adds. */
static enum meed_status find_header(struct scorer *s)
{
    const struct meed_message message = {MEED_ROLE_USER, "x"};
    const struct meed_dialogue dialogue = {&message, 1};
    struct meed_sequence without, with;
    MEED_TRY(meed_chat_encode(s->chat, &dialogue, false, 0, &s->arena, &without));
    MEED_TRY(meed_chat_encode(s->chat, &dialogue, true, 0, &s->arena, &with));
    s->header = with.ids + without.length;
    s->header_length = with.length - without.length;
    MEED_ASSERT(s->header_length > 0);
    return MEED_OK;
}

static enum meed_status add_entry(struct scorer *s, struct meed_sequence sequence, double *sum)
{
    const struct entry entry = {sequence, sum};
    return meed_buf_append(&s->entries, &entry, sizeof entry);
}

/* The scored run [begin, end) of a dialogue behind the header alone. */
static enum meed_status add_alone(struct scorer *s, const struct meed_sequence *whole,
                                  int32_t begin, int32_t end, double *sum)
{
    void *ids, *scored;
    int32_t length = s->header_length + end - begin;
    MEED_TRY(meed_arena_alloc_array(&s->arena, (size_t)length, sizeof(int32_t), &ids));
    MEED_TRY(meed_arena_alloc(&s->arena, (size_t)length, &scored));
    struct meed_sequence made = {ids, scored, length};
    memcpy(made.ids, s->header, (size_t)s->header_length * sizeof *made.ids);
    memcpy(made.ids + s->header_length, whole->ids + begin,
           (size_t)(end - begin) * sizeof *made.ids);
    memset(made.scored + s->header_length, 1, (size_t)(end - begin));
    return add_entry(s, made, sum);
}

static enum meed_status add_candidate(struct scorer *s, int32_t c)
{
    const struct meed_synthesis_candidate *candidate = &s->candidates[c];
    const struct meed_dialogue dialogue = {candidate->messages, candidate->count};
    struct meed_sequence whole;
    MEED_TRY(meed_chat_encode(s->chat, &dialogue, false, 0, &s->arena, &whole));
    if (whole.length > s->job->checkpoint->config.max_positions) {
        s->losses[c].behind = NAN; /* dropped */
        return MEED_OK;
    }
    MEED_TRY(add_entry(s, whole, &s->losses[c].behind));
    for (int32_t t = 1; t < whole.length; t++) {
        if (!whole.scored[t]) {
            continue;
        }
        int32_t begin = t;
        while (t < whole.length && whole.scored[t]) {
            t++;
        }
        s->losses[c].tokens += t - begin;
        MEED_TRY(add_alone(s, &whole, begin, t, &s->losses[c].alone));
    }
    return MEED_OK;
}

/* --- the network -------------------------------------------------------------------------------
 */
static enum meed_status flush(struct scorer *s)
{
    if (s->batch->sequences == 0) {
        return MEED_OK;
    }
    MEED_TRY(meed_net_score(s->net, s->batch, s->logprob));
    for (int32_t r = 0; r < s->batch->loss_rows; r++) {
        *s->sums[s->batch->loss_sequence[r]] -= (double)s->logprob[r];
    }
    meed_batch_reset(s->batch);
    return MEED_OK;
}

static enum meed_status score_entries(struct scorer *s)
{
    const struct entry *entries = (const struct entry *)(const void *)s->entries.data;
    int64_t count = (int64_t)(s->entries.size / sizeof *entries);
    for (int64_t e = 0; e < count; e++) {
        if (!meed_batch_add(s->batch, &entries[e].sequence, 0)) {
            MEED_TRY(flush(s));
            MEED_TRY(
                meed_synthesis_tell(s->job, "scoring", e * s->survivors / count, s->survivors, 0));
            bool fits = meed_batch_add(s->batch, &entries[e].sequence, 0);
            MEED_ASSERT(fits);
        }
        s->sums[s->batch->sequences - 1] = entries[e].sum;
    }
    MEED_TRY(flush(s));
    return meed_synthesis_tell(s->job, "scoring", s->survivors, s->survivors, 0);
}

static int32_t longest_rows(const struct scorer *s)
{
    int32_t longest = BATCH_ROWS;
    const struct entry *entries = (const struct entry *)(const void *)s->entries.data;
    for (size_t e = 0; e < s->entries.size / sizeof *entries; e++) {
        longest = MEED_MAX(longest, entries[e].sequence.length);
    }
    return longest;
}

static enum meed_status open_net(struct scorer *s, const struct meed_adapter *adapter)
{
    const struct meed_adapter *adapters[] = {adapter};
    const struct meed_net_options options = {.dtype = s->job->dtype,
                                             .base = s->job->base,
                                             .max_rows = longest_rows(s),
                                             .max_sequences = BATCH_SEQUENCES,
                                             .adapters = adapters,
                                             .adapter_count = adapter ? 1 : 0};
    MEED_TRY(meed_net_create(s->job->be, s->job->checkpoint, &options, &s->net));
    s->logprob = meed_heap_alloc((size_t)options.max_rows, sizeof *s->logprob);
    return s->logprob ? meed_batch_create(options.max_rows, BATCH_SEQUENCES, &s->batch)
                      : MEED_NOMEM;
}

/* --- the choice --------------------------------------------------------------------------------
 */
static void set_score(struct scorer *s, int32_t c)
{
    struct losses *l = &s->losses[c];
    double mean = l->behind / l->tokens;
    double ratio = l->behind / l->alone;
    struct meed_rng rng = meed_rng_stream(s->job->options.seed, "synthesis score", (uint64_t)c);
    switch (s->job->options.score) {
    case MEED_SYNTHESIS_PPL:
        l->score = l->key = exp(mean);
        break;
    case MEED_SYNTHESIS_IFD: /* at 1 and above the question does not help: behind all others */
        l->score = ratio;
        l->key = ratio < 1 ? -ratio : ratio;
        break;
    case MEED_SYNTHESIS_RANDOM:
        l->score = l->key = isfinite(ratio) ? meed_rng_unit(&rng) : NAN;
        break;
    default:
        l->score = l->key = ratio;
    }
}

/* Keeps the best, the first of equals, by selection: candidates are few. */
static void choose(struct scorer *s, struct meed_synthesis_report *report)
{
    int32_t count = s->job->options.candidates;
    for (int32_t round = 0; round < s->job->options.keep; round++) {
        int32_t best = -1;
        for (int32_t c = 0; c < count; c++) {
            const struct losses *l = &s->losses[c];
            if (s->candidates[c].fate == MEED_SYNTHESIS_WRITTEN && !l->kept && isfinite(l->key) &&
                (best < 0 || l->key < s->losses[best].key)) {
                best = c;
            }
        }
        if (best < 0) {
            break;
        }
        s->losses[best].kept = true;
        report->kept++;
    }
}

static enum meed_status write_results(const struct scorer *s)
{
    struct meed_buf scores, kept;
    enum meed_status st;
    meed_buf_init(&scores, (size_t)1 << 30);
    meed_buf_init(&kept, (size_t)1 << 30);
    for (int32_t c = 0; c < s->job->options.candidates; c++) {
        const struct losses *l = &s->losses[c];
        if (s->candidates[c].fate != MEED_SYNTHESIS_WRITTEN) {
            continue;
        }
        if (isfinite(l->key)) {
            MEED_TRY_OUT(meed_buf_printf(
                &scores,
                "{\"index\": %d, \"tokens\": %d, \"loss\": %.9g, \"loss_alone\": %.9g, "
                "\"%s\": %.9g, \"kept\": %s}\n",
                c, l->tokens, l->behind / l->tokens, l->alone / l->tokens,
                meed_synthesis_score_name(s->job->options.score), l->score,
                l->kept ? "true" : "false"));
        }
        if (l->kept) {
            MEED_TRY_OUT(meed_synthesis_file_dialogue(&s->candidates[c], &kept));
        }
    }
    MEED_TRY_OUT(meed_synthesis_file_write(s->job, "scores.jsonl", &scores));
    MEED_TRY_OUT(meed_synthesis_file_write(s->job, "synthetic.jsonl", &kept));
out:
    meed_buf_clear(&scores);
    meed_buf_clear(&kept);
    return st;
}

static enum meed_status read_candidates(struct scorer *s)
{
    char key[MEED_SHA256_HEX_BYTES];
    int32_t found = 0;
    size_t count = (size_t)s->job->options.candidates;
    s->candidates = meed_heap_alloc(count, sizeof *s->candidates);
    s->losses = meed_heap_alloc(count, sizeof *s->losses);
    if (!s->candidates || !s->losses) {
        return MEED_NOMEM;
    }
    MEED_TRY(meed_synthesis_key(s->job, key));
    MEED_TRY(meed_synthesis_file_read(s->job, key, &s->arena, s->candidates, &found));
    if (found < s->job->options.candidates) {
        return MEED_FAIL(MEED_STATE,
                         "%.512s/candidates.jsonl has %d of %d candidates of this job; write them "
                         "first",
                         s->job->folder, found, s->job->options.candidates);
    }
    return MEED_OK;
}

static enum meed_status score_all(struct scorer *s, const struct meed_adapter *adapter,
                                  struct meed_synthesis_report *report)
{
    int32_t count = s->job->options.candidates;
    MEED_TRY(meed_tokenizer_open(s->job->model_folder, &s->tokenizer));
    MEED_TRY(meed_chat_open(s->job->model_folder, s->tokenizer, &s->chat));
    MEED_TRY(find_header(s));
    for (int32_t c = 0; c < count; c++) {
        if (s->candidates[c].fate == MEED_SYNTHESIS_WRITTEN) {
            s->survivors++;
            MEED_TRY(add_candidate(s, c));
        }
    }
    if (s->entries.size > 0) {
        MEED_TRY(open_net(s, adapter));
        MEED_TRY(score_entries(s));
    }
    for (int32_t c = 0; c < count; c++) {
        if (s->candidates[c].fate == MEED_SYNTHESIS_WRITTEN) {
            set_score(s, c);
            report->scored++;
            report->not_finite += !isfinite(s->losses[c].key);
        }
    }
    choose(s, report);
    return write_results(s);
}

enum meed_status meed_synthesis_select(const struct meed_synthesis_job *job,
                                       const struct meed_adapter *private_branch,
                                       struct meed_synthesis_report *report)
{
    struct scorer s = {.job = job};
    report->scored = report->not_finite = report->kept = 0;
    meed_arena_init_growing(&s.arena, "scored texts", (size_t)1 << 34);
    meed_buf_init(&s.entries, (size_t)1 << 32);
    enum meed_status st;
    MEED_TRY_OUT(meed_synthesis_check(&job->options));
    MEED_TRY_OUT(read_candidates(&s));
    MEED_TRY_OUT(score_all(&s, private_branch, report));
out:
    meed_batch_destroy(s.batch);
    meed_net_destroy(s.net);
    meed_chat_close(s.chat);
    meed_tokenizer_close(s.tokenizer);
    meed_buf_clear(&s.entries);
    meed_heap_free(s.logprob);
    meed_heap_free(s.candidates);
    meed_heap_free(s.losses);
    meed_arena_clear(&s.arena);
    return st;
}
