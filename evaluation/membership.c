/* See membership.h. */
#include "evaluation/membership.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "base/buf.h"

enum { MAX_TEXT_BYTES = 64 << 20 };

const char *meed_membership_score_name(enum meed_membership_score score)
{
    static const char *const names[MEED_MEMBERSHIP_COUNT] = {"loss", "zlib", "min-k", "reference"};
    return names[score];
}

/* --- scores of one dialogue ------------------------------------------------------------------- */
static double sum_of(const float *logprobs, int32_t count)
{
    double sum = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += (double)logprobs[i];
    }
    return sum;
}

double meed_membership_loss(const float *logprobs, int32_t count)
{
    return sum_of(logprobs, count) / count;
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

double meed_membership_min_k(const float *logprobs, int32_t count, double share, float *scratch)
{
    int32_t least = (int32_t)(share * count + 0.5);
    least = MEED_MIN(MEED_MAX(least, 1), count);
    memcpy(scratch, logprobs, (size_t)count * sizeof *scratch);
    qsort(scratch, (size_t)count, sizeof *scratch, rising);
    return sum_of(scratch, least) / least;
}

enum meed_status meed_membership_zlib_bytes(const char *text, size_t size, int64_t *bytes)
{
    uLongf made = compressBound((uLong)size);
    unsigned char *room = meed_heap_alloc((size_t)made, 1);
    if (!room) {
        return MEED_NOMEM;
    }
    int code = compress2(room, &made, (const unsigned char *)text, (uLong)size, 6);
    meed_heap_free(room);
    if (code != Z_OK) {
        return MEED_FAIL(MEED_NOMEM, "zlib could not compress %zu bytes (code %d)", size, code);
    }
    *bytes = (int64_t)made;
    return MEED_OK;
}

/* --- both files ------------------------------------------------------------------------------- */
struct run {
    struct meed_audit_models *models;
    const struct meed_membership_options *options;
    int32_t count, members;          /* dialogues: the members first */
    struct meed_sequence *sequences; /* [count] */
    int32_t *scored;                 /* [count] learned tokens */
    int64_t *zlib_bytes;             /* [count] of their text */
    int64_t tokens;                  /* learned, in all */
    float *logprobs;                 /* [tokens] of one model */
    float *scratch;                  /* [tokens] */
    double *reference;               /* [count] mean log p */
    double *scores;                  /* [MEED_MEMBERSHIP_COUNT, count] of one model */
    int64_t done, total;             /* tokens fed */
};

static enum meed_status zlib_measure(struct run *run, int32_t i, struct meed_buf *ids,
                                     struct meed_buf *text)
{
    const struct meed_sequence *sequence = &run->sequences[i];
    meed_buf_reset(ids);
    meed_buf_reset(text);
    for (int32_t t = 1; t < sequence->length; t++) {
        if (sequence->scored[t]) {
            MEED_TRY(meed_buf_append(ids, &sequence->ids[t], sizeof sequence->ids[t]));
        }
    }
    MEED_TRY(meed_tokenizer_decode(run->options->tokenizer, (const int32_t *)(void *)ids->data,
                                   (size_t)run->scored[i], false, text));
    return meed_membership_zlib_bytes(text->data ? text->data : "", text->size,
                                      &run->zlib_bytes[i]);
}

static enum meed_status texts_measure(struct run *run)
{
    enum meed_status st = MEED_OK;
    struct meed_buf ids, text;
    meed_buf_init(&ids, MAX_TEXT_BYTES);
    meed_buf_init(&text, MAX_TEXT_BYTES);
    for (int32_t i = 0; i < run->count; i++) {
        MEED_TRY_OUT(zlib_measure(run, i, &ids, &text));
    }
out:
    meed_buf_clear(&ids);
    meed_buf_clear(&text);
    return st;
}

static void run_close(struct run *run)
{
    meed_heap_free(run->sequences);
    meed_heap_free(run->scored);
    meed_heap_free(run->zlib_bytes);
    meed_heap_free(run->logprobs);
    meed_heap_free(run->scratch);
    meed_heap_free(run->reference);
    meed_heap_free(run->scores);
}

static enum meed_status run_open(struct run *run, const struct meed_audit_data *members,
                                 const struct meed_audit_data *others)
{
    const size_t count = (size_t)members->count + (size_t)others->count;
    run->members = members->count;
    run->count = (int32_t)count;
    run->sequences = meed_heap_alloc(count, sizeof *run->sequences);
    run->scored = meed_heap_alloc(count, sizeof *run->scored);
    run->zlib_bytes = meed_heap_alloc(count, sizeof *run->zlib_bytes);
    run->reference = meed_heap_alloc(count, sizeof *run->reference);
    run->scores = meed_heap_alloc(count * MEED_MEMBERSHIP_COUNT, sizeof *run->scores);
    if (!run->sequences || !run->scored || !run->zlib_bytes || !run->reference || !run->scores) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < run->count; i++) {
        run->sequences[i] = i < members->count ? members->records[i].sequence
                                               : others->records[i - members->count].sequence;
        run->scored[i] = meed_audit_models_scored(&run->sequences[i]);
        run->tokens += run->scored[i];
        run->total += run->sequences[i].length;
    }
    run->logprobs = meed_heap_alloc((size_t)run->tokens, sizeof *run->logprobs);
    run->scratch = meed_heap_alloc((size_t)run->tokens, sizeof *run->scratch);
    if (!run->logprobs || !run->scratch) {
        return MEED_NOMEM;
    }
    return texts_measure(run);
}

static bool on_tokens(void *user, int64_t done, int64_t total)
{
    struct run *run = user;
    (void)total;
    return !run->options->progress ||
           run->options->progress(run->options->user, run->done + done, run->total);
}

static enum meed_status model_score(struct run *run, int32_t model)
{
    MEED_TRY(meed_audit_models_score(run->models, model, run->sequences, run->count, run->logprobs,
                                     on_tokens, run));
    for (int32_t i = 0; i < run->count; i++) {
        run->done += run->sequences[i].length;
    }
    return MEED_OK;
}

static void model_fill(struct run *run)
{
    const float *logprobs = run->logprobs;
    double *scores = run->scores;
    for (int32_t i = 0; i < run->count; i++) {
        const int32_t scored = run->scored[i];
        const double loss = meed_membership_loss(logprobs, scored);
        scores[MEED_MEMBERSHIP_LOSS * run->count + i] = loss;
        scores[MEED_MEMBERSHIP_ZLIB * run->count + i] = loss * scored / (double)run->zlib_bytes[i];
        scores[MEED_MEMBERSHIP_MIN_K * run->count + i] =
            meed_membership_min_k(logprobs, scored, run->options->min_k, run->scratch);
        scores[MEED_MEMBERSHIP_REFERENCE * run->count + i] = loss - run->reference[i];
        logprobs += scored;
    }
}

static enum meed_status model_measure(struct run *run, struct meed_separation *results)
{
    model_fill(run);
    for (int32_t s = 0; s < MEED_MEMBERSHIP_COUNT; s++) {
        const double *scores = run->scores + (int64_t)s * run->count;
        MEED_TRY(meed_separation_measure(scores, run->members, scores + run->members,
                                         run->count - run->members, run->options->draws,
                                         run->options->seed, &results[s]));
    }
    return MEED_OK;
}

/* The reference model comes first, since every model's last score wants what it said. */
enum meed_status meed_membership_run(struct meed_audit_models *models,
                                     const struct meed_audit_data *members,
                                     const struct meed_audit_data *others,
                                     const struct meed_membership_options *options,
                                     struct meed_separation *results)
{
    enum meed_status st = MEED_OK;
    struct run run = {.models = models, .options = options};
    const int32_t count = meed_audit_models_count(models);
    MEED_TRY_OUT(run_open(&run, members, others));
    run.total *= count;
    MEED_TRY_OUT(model_score(&run, options->reference));
    const float *logprobs = run.logprobs;
    for (int32_t i = 0; i < run.count; i++) {
        run.reference[i] = meed_membership_loss(logprobs, run.scored[i]);
        logprobs += run.scored[i];
    }
    for (int32_t i = 0; i < count; i++) {
        const int32_t model = (options->reference + i) % count;
        if (i > 0) {
            MEED_TRY_OUT(model_score(&run, model));
        }
        MEED_TRY_OUT(model_measure(&run, results + (int64_t)model * MEED_MEMBERSHIP_COUNT));
    }
out:
    run_close(&run);
    return st;
}
