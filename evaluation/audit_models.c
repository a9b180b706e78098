/* See audit_models.h. */
#include "evaluation/audit_models.h"

#include <string.h>
#include "base/buf.h"

enum { SLOTS = 32, MAX_SEQUENCES = 64 };

struct meed_audit_models {
    struct meed_audit_models_options options;
    struct meed_net *net;
    struct meed_batch *batch;
};

/* A row of zeros for the base, then one adapter alone a row. */
static enum meed_status gates_set(struct meed_audit_models *models)
{
    const int32_t adapters = models->options.adapter_count;
    if (adapters == 0) {
        return MEED_OK;
    }
    float *gates = meed_heap_alloc((size_t)(adapters + 1) * (size_t)adapters, sizeof *gates);
    if (!gates) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < adapters; i++) {
        gates[(i + 1) * adapters + i] = 1;
    }
    enum meed_status st = meed_net_set_gates(models->net, gates, adapters + 1);
    meed_heap_free(gates);
    return st;
}

enum meed_status meed_audit_models_create(const struct meed_audit_models_options *options,
                                          struct meed_audit_models **models)
{
    enum meed_status st = MEED_OK;
    const struct meed_net_options net_options = {.dtype = MEED_DTYPE_F32,
                                                 .base = options->base,
                                                 .max_rows = options->batch_tokens,
                                                 .max_sequences = MAX_SEQUENCES,
                                                 .adapters = options->adapters,
                                                 .adapter_count = options->adapter_count};
    struct meed_audit_models *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->options = *options;
    MEED_TRY_OUT(meed_batch_create(options->batch_tokens, MAX_SEQUENCES, &made->batch));
    MEED_TRY_OUT(meed_net_create(options->be, options->checkpoint, &net_options, &made->net));
    MEED_TRY_OUT(gates_set(made));
    *models = made;
    made = NULL;
out:
    meed_audit_models_destroy(made);
    return st;
}

void meed_audit_models_destroy(struct meed_audit_models *models)
{
    if (models) {
        meed_net_destroy(models->net);
        meed_batch_destroy(models->batch);
        meed_heap_free(models);
    }
}

int32_t meed_audit_models_count(const struct meed_audit_models *models)
{
    return models->options.adapter_count + 1;
}

int32_t meed_audit_models_positions(const struct meed_audit_models *models)
{
    return models->options.checkpoint->config.max_positions;
}

/* --- scores ----------------------------------------------------------------------------------- */
int32_t meed_audit_models_scored(const struct meed_sequence *sequence)
{
    int32_t scored = 0;
    for (int32_t t = 1; t < sequence->length; t++) {
        scored += sequence->scored[t] ? 1 : 0;
    }
    return scored;
}

enum meed_status meed_audit_models_score(struct meed_audit_models *models, int32_t model,
                                         const struct meed_sequence *sequences, int32_t count,
                                         float *logprobs, meed_coalition_progress_fn progress,
                                         void *user)
{
    int64_t done = 0, total = 0;
    for (int32_t i = 0; i < count; i++) {
        total += sequences[i].length;
    }
    for (int32_t i = 0; i < count;) {
        meed_batch_reset(models->batch);
        int32_t first = i;
        while (i < count && meed_batch_add(models->batch, &sequences[i], model)) {
            done += sequences[i++].length;
        }
        if (i == first) {
            return MEED_FAIL(MEED_LIMIT, "sequence %d has %d tokens; a pass takes %d", (int)i,
                             (int)sequences[i].length, (int)models->options.batch_tokens);
        }
        MEED_TRY(meed_net_score(models->net, models->batch, logprobs));
        logprobs += models->batch->loss_rows;
        if (progress && !progress(user, done, total)) {
            return MEED_FAIL(MEED_CANCELLED, "scoring was cancelled");
        }
    }
    return MEED_OK;
}

/* --- continuations ---------------------------------------------------------------------------- */
struct counting {
    const struct meed_audit_generation *generation;
    int64_t done, total;
};

static enum meed_status on_turn(void *user, int32_t prompt_idx, const struct meed_reply *reply,
                                struct meed_prompt *next)
{
    (void)prompt_idx, (void)reply, (void)next;
    struct counting *c = user;
    c->done++;
    if (c->generation->progress &&
        !c->generation->progress(c->generation->user, c->done, c->total)) {
        return MEED_FAIL(MEED_CANCELLED, "generation was cancelled");
    }
    return MEED_OK;
}

enum meed_status meed_audit_models_generate(struct meed_audit_models *models,
                                            const struct meed_prompt *prompts, int32_t count,
                                            const struct meed_audit_generation *generation,
                                            struct meed_arena *arena, struct meed_reply *replies)
{
    const struct meed_model_config *config = &models->options.checkpoint->config;
    struct meed_generator *generator = NULL;
    struct counting counting = {generation, 0, count};
    const struct meed_generate_hooks hooks = {NULL, on_turn, &counting};
    int32_t stops[MEED_MODEL_MAX_EOS + 1] = {models->options.end_of_turn};
    struct meed_generate_options options = meed_generate_defaults();
    memcpy(stops + 1, config->eos, (size_t)config->eos_count * sizeof *stops);
    options.max_new_tokens = generation->max_new_tokens;
    options.temperature = generation->temperature;
    options.seed = generation->seed;
    options.stream_period = generation->stream_period;
    options.stop_ids = stops;
    options.stop_count = config->eos_count + 1;
    options.slots = MEED_MAX(MEED_MIN(SLOTS, count), 1);
    options.max_rows = models->options.batch_tokens;
    MEED_TRY(meed_generator_create(models->net, &options, &generator));
    enum meed_status st =
        meed_generator_run(generator, prompts, count, &options, &hooks, arena, replies);
    meed_generator_destroy(generator);
    return st;
}
