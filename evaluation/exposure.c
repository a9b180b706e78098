/* See exposure.h. The candidates of a canary are the same for all models. */
#include "evaluation/exposure.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/rng.h"

enum { MAX_ARENA_BYTES = 1 << 30 };

double meed_exposure_bits(double secret, const double *others, int32_t count, bool *capped)
{
    double rank = 1;
    for (int32_t i = 0; i < count; i++) {
        rank += others[i] > secret ? 1 : others[i] == secret ? 0.5 : 0;
    }
    *capped = rank == 1;
    return log2((double)count + 1) - log2(rank);
}

struct run {
    struct meed_audit_models *models;
    const struct meed_canaries *canaries;
    const struct meed_exposure_options *options;
    struct meed_arena arena; /* of one canary */
    int32_t count;           /* sequences of one canary: the secret, then candidates */
    struct meed_sequence *sequences;
    double *sums; /* [count] */
    float *logprobs;
    int64_t done;
};

/* Candidate j of a canary: the j-th other one where all are scored, else a draw that is not it. */
static uint64_t candidate_of(const struct run *run, struct meed_rng *rng, uint64_t secret,
                             int32_t j)
{
    const uint64_t others = run->canaries->format.space - 1;
    const bool all = others == (uint64_t)run->count - 1;
    const uint64_t idx = all ? (uint64_t)j : meed_rng_below(rng, others);
    return idx < secret ? idx : idx + 1;
}

static enum meed_status sequence_make(struct run *run, int32_t number, uint64_t idx,
                                      struct meed_sequence *sequence)
{
    const struct meed_canary_format *format = &run->canaries->format;
    char secret[MEED_CANARY_MAX_SECRET + 1];
    struct meed_message messages[2] = {{.role = MEED_ROLE_USER}, {.role = MEED_ROLE_ASSISTANT}};
    const struct meed_dialogue dialogue = {messages, 2};
    meed_canary_candidate(format, idx, secret);
    MEED_TRY(meed_canary_question(format, number, &run->arena, &messages[0].content));
    MEED_TRY(meed_canary_reply(format, number, secret, &run->arena, &messages[1].content));
    return meed_chat_encode(run->options->chat, &dialogue, false, 0, &run->arena, sequence);
}

static enum meed_status canary_prepare(struct run *run, int32_t canary)
{
    struct meed_rng rng =
        meed_rng_stream(run->options->seed, "exposure candidates", (uint64_t)canary);
    const uint64_t secret = run->canaries->secrets[canary];
    size_t scored = 0;
    void *block;
    meed_arena_clear(&run->arena);
    meed_arena_init_growing(&run->arena, "canary", MAX_ARENA_BYTES);
    MEED_TRY(
        meed_arena_alloc_array(&run->arena, (size_t)run->count, sizeof *run->sequences, &block));
    run->sequences = block;
    MEED_TRY(sequence_make(run, canary + 1, secret, &run->sequences[0]));
    for (int32_t j = 1; j < run->count; j++) {
        MEED_TRY(sequence_make(run, canary + 1, candidate_of(run, &rng, secret, j - 1),
                               &run->sequences[j]));
    }
    for (int32_t j = 0; j < run->count; j++) {
        scored += (size_t)meed_audit_models_scored(&run->sequences[j]);
    }
    MEED_TRY(meed_arena_alloc_array(&run->arena, scored, sizeof *run->logprobs, &block));
    run->logprobs = block;
    return MEED_OK;
}

static enum meed_status canary_measure(struct run *run, int32_t model, double *bits, bool *capped)
{
    MEED_TRY(meed_audit_models_score(run->models, model, run->sequences, run->count, run->logprobs,
                                     NULL, NULL));
    const float *logprobs = run->logprobs;
    for (int32_t j = 0; j < run->count; j++) {
        const int32_t scored = meed_audit_models_scored(&run->sequences[j]);
        run->sums[j] = 0;
        for (int32_t t = 0; t < scored; t++) {
            run->sums[j] += (double)logprobs[t];
        }
        logprobs += scored;
    }
    *bits = meed_exposure_bits(run->sums[0], run->sums + 1, run->count - 1, capped);
    return MEED_OK;
}

static enum meed_status canary_run(struct run *run, int32_t canary, struct meed_exposure *results)
{
    const int32_t models = meed_audit_models_count(run->models);
    const struct meed_exposure_options *o = run->options;
    MEED_TRY(canary_prepare(run, canary));
    for (int32_t model = 0; model < models; model++) {
        bool capped;
        MEED_TRY(canary_measure(run, model, &results[model].each[canary], &capped));
        results[model].capped += capped ? 1 : 0;
        run->done++;
        if (o->progress &&
            !o->progress(o->user, run->done, (int64_t)models * run->canaries->count)) {
            return MEED_FAIL(MEED_CANCELLED, "the audit was cancelled");
        }
    }
    return MEED_OK;
}

static void result_finish(struct meed_exposure *result, int32_t count)
{
    double squares = 0;
    for (int32_t i = 0; i < count; i++) {
        result->bits += result->each[i] / count;
    }
    for (int32_t i = 0; i < count; i++) {
        squares += (result->each[i] - result->bits) * (result->each[i] - result->bits);
    }
    result->se = count > 1 ? sqrt(squares / (count - 1) / count) : 0;
}

enum meed_status meed_exposure_run(struct meed_audit_models *models,
                                   const struct meed_canaries *canaries,
                                   const struct meed_exposure_options *options,
                                   struct meed_arena *arena, struct meed_exposure *results)
{
    enum meed_status st = MEED_OK;
    const int32_t model_count = meed_audit_models_count(models);
    const uint64_t others = canaries->format.space - 1;
    struct run run = {.models = models, .canaries = canaries, .options = options};
    meed_arena_init_growing(&run.arena, "canary", MAX_ARENA_BYTES);
    run.count =
        1 + (others < (uint64_t)options->candidates ? (int32_t)others : options->candidates);
    run.sums = meed_heap_alloc((size_t)run.count, sizeof *run.sums);
    if (!run.sums) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t model = 0; model < model_count; model++) {
        void *block;
        MEED_TRY_OUT(
            meed_arena_alloc_array(arena, (size_t)canaries->count, sizeof(double), &block));
        results[model] = (struct meed_exposure){.each = block};
    }
    for (int32_t canary = 0; canary < canaries->count; canary++) {
        MEED_TRY_OUT(canary_run(&run, canary, results));
    }
    for (int32_t model = 0; model < model_count; model++) {
        result_finish(&results[model], canaries->count);
    }
out:
    meed_heap_free(run.sums);
    meed_arena_clear(&run.arena);
    return st;
}
