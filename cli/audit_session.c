/* See audit_session.h. */
#include "cli/audit_session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/threads.h"
#include "cli/audit_file.h"
#include "cli/audit_update.h"
#include "cli/canary_file.h"
#include "cli/progress.h"
#include "evaluation/score.h"

enum { DRAWS = 1000, MIN_ROWS = 1024, MAX_ARENA_BYTES = 1 << 30 };

const char *const meed_audit_attack_names[4] = {"extraction", "exposure", "membership",
                                                "frequency"};

/* Adapters of the stack: the reference, if there is one, then those under audit. */
enum { STACK = MEED_AUDIT_MAX_ADAPTERS + 1 };

struct meed_audit_session {
    const struct meed_audit_options *options;
    struct meed_arena arena; /* results */
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_benchmark *benchmark;
    struct meed_adapter *global;
    struct meed_adapter *adapters[STACK];
    int32_t adapter_count;
    struct meed_audit_models *models;
    struct meed_audit_file data, others, attacker;
    struct meed_audit_data sample, other_sample; /* of the first two */
    struct meed_canaries canaries;
    char base_hash[MEED_SHA256_HEX_BYTES];
    struct meed_progress progress;
    struct meed_audit_result result;
};

/* --- opening ---------------------------------------------------------------------------------- */
static enum meed_status attacks_choose(struct meed_audit_session *s, uint32_t *attacks)
{
    const struct meed_audit_options *o = s->options;
    const struct {
        const char *option, *path;
    } needs[] = {{"--data", o->data},
                 {"--canaries", o->canaries},
                 {"--non-members", o->non_members},
                 {"--attacker", o->attacker}};
    *attacks = 0;
    for (uint32_t i = 0; i < MEED_COUNT(needs); i++) {
        if (needs[i].path && (o->attacks == 0 || o->attacks & 1u << i)) {
            *attacks |= 1u << i;
        } else if (o->attacks & 1u << i) {
            return MEED_FAIL(MEED_ARG, "%s needs %s FILE; see `meed help audit`",
                             meed_audit_attack_names[i], needs[i].option);
        }
    }
    return MEED_OK;
}

/* Adapters to come in the stack; the model of the result is one behind it. */
static enum meed_status model_add(struct meed_audit_session *s, enum meed_audit_kind kind,
                                  const char *name, struct meed_adapter *adapter)
{
    uint8_t hash[MEED_SHA256_BYTES];
    s->adapters[s->adapter_count++] = adapter;
    struct meed_audit_model *model = &s->result.models[s->adapter_count];
    *model = (struct meed_audit_model){.kind = kind, .quality = NAN, .quality_se = NAN};
    snprintf(model->name, sizeof model->name, "%s", name);
    MEED_TRY(meed_adapter_hash(adapter, hash));
    meed_sha256_hex(hash, model->hash);
    return MEED_OK;
}

static enum meed_status adapter_open(struct meed_audit_session *s, enum meed_audit_kind kind,
                                     const char *path)
{
    struct meed_adapter *adapter;
    struct meed_update_header header;
    char name[256];
    if (kind != MEED_AUDIT_UPDATE) {
        MEED_TRY(meed_adapter_load(path, &s->checkpoint->config, &adapter));
        return model_add(s, kind, path, adapter);
    }
    MEED_TRY(meed_audit_update_load(path, s->global, &header, &adapter));
    snprintf(name, sizeof name, "%s, round %d", header.client_id, (int)header.round);
    return model_add(s, kind, name, adapter);
}

static enum meed_status models_open(struct meed_audit_session *s)
{
    const struct meed_audit_options *o = s->options;
    void *block;
    MEED_TRY(meed_arena_alloc_array(&s->arena, STACK + 1, sizeof *s->result.models, &block));
    s->result.models = block;
    s->result.models[0] = (struct meed_audit_model){
        .name = "base", .kind = MEED_AUDIT_BASE, .quality = NAN, .quality_se = NAN};
    if (o->global) {
        MEED_TRY(meed_audit_global_load(o->global, &s->checkpoint->config, &s->global));
    }
    if (o->reference) {
        MEED_TRY(adapter_open(s, MEED_AUDIT_REFERENCE, o->reference));
        s->result.floor = 1;
    }
    for (int32_t i = 0; i < o->path_count; i++) {
        MEED_TRY(
            adapter_open(s, o->is_update[i] ? MEED_AUDIT_UPDATE : MEED_AUDIT_ADAPTER, o->paths[i]));
    }
    s->result.model_count = s->adapter_count + 1;
    return MEED_OK;
}

static enum meed_status file_open(struct meed_audit_session *s, const char *path,
                                  struct meed_audit_file *file)
{
    return meed_audit_file_load(path, s->chat, s->tokenizer, s->checkpoint->config.max_positions,
                                file);
}

static enum meed_status files_open(struct meed_audit_session *s, uint32_t attacks)
{
    const struct meed_audit_options *o = s->options;
    const int32_t examples = (int32_t)o->examples;
    const uint64_t seed = (uint64_t)o->seed;
    if (attacks & ~(uint32_t)MEED_AUDIT_EXPOSURE) {
        MEED_TRY(file_open(s, o->data, &s->data));
        MEED_TRY(meed_audit_file_sample(&s->data, examples, seed, &s->sample));
    }
    if (attacks & MEED_AUDIT_MEMBERSHIP) {
        MEED_TRY(file_open(s, o->non_members, &s->others));
        MEED_TRY(meed_audit_file_sample(&s->others, examples, seed, &s->other_sample));
    }
    if (attacks & MEED_AUDIT_FREQUENCY) {
        MEED_TRY(file_open(s, o->attacker, &s->attacker));
        MEED_TRY(meed_frequency_check(&s->attacker.data, &s->data.data));
    }
    if (attacks & MEED_AUDIT_EXPOSURE) {
        MEED_TRY(meed_canary_file_read(o->canaries, &s->arena, &s->canaries));
    }
    if (o->benchmark) {
        MEED_TRY(meed_benchmark_load(o->benchmark, s->chat, s->checkpoint->config.max_positions,
                                     &s->benchmark));
    }
    return MEED_OK;
}

static enum meed_status parts_open(struct meed_audit_session *s)
{
    const struct meed_audit_options *o = s->options;
    uint32_t attacks;
    MEED_TRY(attacks_choose(s, &attacks));
    MEED_TRY(meed_pool_create((int)o->threads, &s->pool));
    MEED_TRY(meed_backend_open(o->device, s->pool, &s->be));
    MEED_TRY(meed_checkpoint_open(o->model, &s->checkpoint));
    meed_sha256_hex(s->checkpoint->hash, s->base_hash);
    MEED_TRY(meed_tokenizer_open(o->model, &s->tokenizer));
    MEED_TRY(meed_chat_open(o->model, s->tokenizer, &s->chat));
    MEED_TRY(files_open(s, attacks));
    MEED_TRY(models_open(s));
    const struct meed_audit_models_options models = {
        .be = s->be,
        .checkpoint = s->checkpoint,
        .adapters = (const struct meed_adapter *const *)s->adapters,
        .adapter_count = s->adapter_count,
        .base = o->base,
        .batch_tokens = MEED_MAX(MIN_ROWS, s->checkpoint->config.max_positions),
        .end_of_turn = meed_chat_end_of_turn(s->chat)};
    return meed_audit_models_create(&models, &s->models);
}

enum meed_status meed_audit_session_open(const struct meed_audit_options *options,
                                         struct meed_audit_session **session)
{
    struct meed_audit_session *s = meed_heap_alloc(1, sizeof *s);
    if (!s) {
        return MEED_NOMEM;
    }
    s->options = options;
    s->result = (struct meed_audit_result){.base_hash = s->base_hash,
                                           .data = options->data,
                                           .non_members = options->non_members,
                                           .attacker = options->attacker,
                                           .benchmark = options->benchmark,
                                           .seed = (uint64_t)options->seed,
                                           .candidates = (int32_t)options->candidates,
                                           .min_k = options->min_k / 100};
    meed_arena_init_growing(&s->arena, "audit", MAX_ARENA_BYTES);
    enum meed_status st = parts_open(s);
    if (st != MEED_OK) {
        meed_audit_session_close(s);
        return st;
    }
    *session = s;
    return MEED_OK;
}

void meed_audit_session_close(struct meed_audit_session *session)
{
    struct meed_audit_session *s = session;
    if (!s) {
        return;
    }
    meed_audit_models_destroy(s->models);
    for (int32_t i = 0; i < s->adapter_count; i++) {
        meed_adapter_destroy(s->adapters[i]);
    }
    meed_adapter_destroy(s->global);
    meed_benchmark_destroy(s->benchmark);
    meed_heap_free(s->sample.records);
    meed_heap_free(s->other_sample.records);
    meed_audit_file_close(&s->data);
    meed_audit_file_close(&s->others);
    meed_audit_file_close(&s->attacker);
    meed_chat_close(s->chat);
    meed_tokenizer_close(s->tokenizer);
    meed_checkpoint_close(s->checkpoint);
    meed_backend_close(s->be);
    meed_pool_destroy(s->pool);
    meed_arena_clear(&s->arena);
    meed_heap_free(s);
}

const struct meed_audit_result *meed_audit_session_result(const struct meed_audit_session *session)
{
    return &session->result;
}

/* --- attacks ---------------------------------------------------------------------------------- */
static bool on_progress(void *user, int64_t done, int64_t total)
{
    meed_progress_update(user, done, total);
    return true;
}

/* Room for a result of every model, `each` items of it. */
static enum meed_status room_take(struct meed_audit_session *s, int32_t each, size_t item_bytes,
                                  void **block)
{
    return meed_arena_alloc_array(&s->arena, (size_t)s->result.model_count * (size_t)each,
                                  item_bytes, block);
}

static enum meed_status extraction_run(struct meed_audit_session *s)
{
    struct meed_extraction_options *o = &s->result.extraction_options;
    void *block;
    *o = s->options->extraction;
    o->tokenizer = s->tokenizer;
    o->floor = s->result.floor;
    o->progress = on_progress;
    o->user = &s->progress;
    MEED_TRY(room_take(s, o->prefix_count, sizeof *s->result.extraction, &block));
    meed_progress_start(&s->progress, "extraction", "replies", s->options->quiet);
    enum meed_status st = meed_extraction_run(s->models, &s->sample, o, block);
    meed_progress_finish(&s->progress);
    s->result.extraction = block;
    return st;
}

static enum meed_status exposure_run(struct meed_audit_session *s)
{
    const struct meed_exposure_options o = {.chat = s->chat,
                                            .candidates = s->result.candidates,
                                            .seed = s->result.seed,
                                            .progress = on_progress,
                                            .user = &s->progress};
    void *block;
    MEED_TRY(room_take(s, 1, sizeof *s->result.exposure, &block));
    meed_progress_start(&s->progress, "exposure", "secrets", s->options->quiet);
    enum meed_status st = meed_exposure_run(s->models, &s->canaries, &o, &s->arena, block);
    meed_progress_finish(&s->progress);
    s->result.exposure = block;
    s->result.canaries = &s->canaries;
    return st;
}

static enum meed_status membership_run(struct meed_audit_session *s)
{
    const struct meed_membership_options o = {.tokenizer = s->tokenizer,
                                              .min_k = s->result.min_k,
                                              .reference = s->result.floor,
                                              .draws = DRAWS,
                                              .seed = s->result.seed,
                                              .progress = on_progress,
                                              .user = &s->progress};
    void *block;
    MEED_TRY(room_take(s, MEED_MEMBERSHIP_COUNT, sizeof *s->result.membership, &block));
    meed_progress_start(&s->progress, "membership", "tokens", s->options->quiet);
    enum meed_status st = meed_membership_run(s->models, &s->sample, &s->other_sample, &o, block);
    meed_progress_finish(&s->progress);
    s->result.membership = block;
    s->result.members = s->sample.count;
    s->result.others = s->other_sample.count;
    return st;
}

static enum meed_status frequency_run(struct meed_audit_session *s)
{
    const struct meed_audit_options *options = s->options;
    const struct meed_frequency_options o = {.chat = s->chat,
                                             .tokenizer = s->tokenizer,
                                             .prefixes = (int32_t)options->prefixes,
                                             .context_words = (int32_t)options->context,
                                             .samples = (int32_t)options->samples,
                                             .max_new_tokens = options->extraction.max_new_tokens,
                                             .temperature = (float)options->temperature,
                                             .seed = s->result.seed,
                                             .progress = on_progress,
                                             .user = &s->progress};
    void *block;
    MEED_TRY(room_take(s, 1, sizeof *s->result.frequency, &block));
    meed_progress_start(&s->progress, "frequency", "replies", options->quiet);
    enum meed_status st =
        meed_frequency_run(s->models, &s->attacker.data, &s->data.data, &o, block);
    meed_progress_finish(&s->progress);
    s->result.frequency = block;
    return st;
}

static enum meed_status quality_run(struct meed_audit_session *s)
{
    struct meed_score_options how = {.batch_tokens = 2048,
                                     .base = s->options->base,
                                     .bootstrap = DRAWS,
                                     .seed = s->result.seed,
                                     .progress = on_progress,
                                     .progress_user = &s->progress};
    for (int32_t m = 0; m < s->result.model_count; m++) {
        struct meed_score score;
        meed_progress_start(&s->progress, "quality", "tokens", s->options->quiet);
        enum meed_status st = meed_score_run(s->be, s->checkpoint, s->benchmark,
                                             m > 0 ? s->adapters[m - 1] : NULL, &how, &score);
        meed_progress_finish(&s->progress);
        MEED_TRY(st);
        s->result.models[m].quality = score.value;
        s->result.models[m].quality_se = score.se;
    }
    return MEED_OK;
}

enum meed_status meed_audit_session_run(struct meed_audit_session *session)
{
    static enum meed_status (*const runs[])(struct meed_audit_session *) = {
        extraction_run, exposure_run, membership_run, frequency_run};
    uint32_t attacks;
    MEED_TRY(attacks_choose(session, &attacks));
    for (uint32_t i = 0; i < MEED_COUNT(runs); i++) {
        if (attacks & 1u << i) {
            MEED_TRY(runs[i](session));
        }
    }
    return session->benchmark ? quality_run(session) : MEED_OK;
}
