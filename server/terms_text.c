/* See terms_text.h. */
#include "server/terms_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "evaluation/payment.h"
#include "proto/codec.h"
#include "server/aggregate.h"
#include "server/server_optimiser.h"
#include "server/weighting.h"

enum { VALUE_BYTES = 128 };

static const double any = 1e300;

/* A walk over the facts: writes them, or reads them where `out` is NULL. */
struct facts {
    struct meed_buf *out;
    const char *at, *end;
    int line;
};

/* ---- one fact -------------------------------------------------------------------------------- */

static enum meed_status take_line(struct facts *facts, const char *key, char value[VALUE_BYTES])
{
    size_t length = strlen(key);
    const char *newline = memchr(facts->at, '\n', (size_t)(facts->end - facts->at));
    size_t size = newline ? (size_t)(newline - facts->at) : 0;
    facts->line++;
    if (size < length + 1 || size - length - 1 >= VALUE_BYTES ||
        memcmp(facts->at, key, length) != 0 || facts->at[length] != ' ') {
        return MEED_FAIL(MEED_FORMAT, "terms, line %d: \"%s\" and its value should stand here",
                         facts->line, key);
    }
    snprintf(value, VALUE_BYTES, "%.*s", (int)(size - length - 1), facts->at + length + 1);
    facts->at = newline + 1;
    return MEED_OK;
}

static enum meed_status fact_i64(struct facts *facts, const char *key, int64_t min, int64_t max,
                                 int64_t *value)
{
    char text[VALUE_BYTES];
    if (facts->out) {
        return meed_buf_printf(facts->out, "%s %lld\n", key, (long long)*value);
    }
    MEED_TRY(take_line(facts, key, text));
    return meed_parse_i64(key, text, min, max, value);
}

static enum meed_status fact_i32(struct facts *facts, const char *key, int32_t min, int32_t max,
                                 int32_t *value)
{
    int64_t wide = *value;
    MEED_TRY(fact_i64(facts, key, min, max, &wide));
    *value = (int32_t)wide;
    return MEED_OK;
}

static enum meed_status fact_bits(struct facts *facts, const char *key, uint32_t most,
                                  uint32_t *value)
{
    int64_t wide = *value;
    MEED_TRY(fact_i64(facts, key, 0, most, &wide));
    *value = (uint32_t)wide;
    return MEED_OK;
}

static enum meed_status fact_flag(struct facts *facts, const char *key, bool *value)
{
    int64_t wide = *value;
    MEED_TRY(fact_i64(facts, key, 0, 1, &wide));
    *value = wide != 0;
    return MEED_OK;
}

static enum meed_status fact_real(struct facts *facts, const char *key, double *value)
{
    char text[VALUE_BYTES];
    if (facts->out) {
        return meed_buf_printf(facts->out, "%s %a\n", key, *value);
    }
    MEED_TRY(take_line(facts, key, text));
    return meed_parse_f64(key, text, -any, any, value);
}

static enum meed_status fact_hash(struct facts *facts, const char *key,
                                  uint8_t value[MEED_SHA256_BYTES])
{
    char text[VALUE_BYTES];
    if (facts->out) {
        meed_sha256_hex(value, text);
        return meed_buf_printf(facts->out, "%s %s\n", key, text);
    }
    MEED_TRY(take_line(facts, key, text));
    return meed_sha256_from_hex(text, value);
}

/* The word of one of `count` values. */
static enum meed_status fact_word(struct facts *facts, const char *key, const char *(*word)(int),
                                  int count, int *value)
{
    char text[VALUE_BYTES];
    if (facts->out) {
        return meed_buf_printf(facts->out, "%s %s\n", key, word(*value));
    }
    MEED_TRY(take_line(facts, key, text));
    for (int i = 0; i < count; i++) {
        if (text[0] != '?' && strcmp(text, word(i)) == 0) {
            *value = i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_FORMAT,
                     "terms, line %d: %s is \"%.32s\", which this version does not "
                     "know",
                     facts->line, key, text);
}

/* ---- words ----------------------------------------------------------------------------------- */

static const char *method_word(int value)
{
    static const char *const words[MEED_METHOD_COUNT] = {"?",   "fedit",  "fedprox", "scaffold",
                                                         "ffa", "rolora", "fedpit"};
    return words[value];
}

static const char *codec_word(int value)
{
    static const char *const words[MEED_VALUE_COUNT] = {"?", "f32", "bf16", "int8", "int4"};
    return words[value];
}

static const char *space_word(int value)
{
    static const char *const words[MEED_MIX_SPACE_COUNT] = {"product", "factors"};
    return words[value];
}

static const char *form_word(int value)
{
    static const char *const words[MEED_SYNTHETIC_FORM_COUNT] = {"dialogue", "tasks"};
    return words[value];
}

static const char *score_word(int value)
{
    static const char *const words[MEED_SYNTHETIC_SCORE_COUNT] = {"ifs", "ppl", "ifd", "random"};
    return words[value];
}

static const char *share_word(int value)
{
    static const char *const words[MEED_SHARE_COUNT] = {"none", "synthetic", "mix", "nothing"};
    return words[value];
}

static const char *path_word(int value)
{
    static const char *const words[] = {
        [MEED_PATH_AUTO] = "auto", [MEED_PATH_STACK] = "stack", [MEED_PATH_MERGE] = "merge"};
    return words[value];
}

static const char *aggregation_word(int value)
{
    return meed_aggregate_name((enum meed_aggregation)value);
}

static const char *weighting_word(int value)
{
    return meed_weighting_name((enum meed_weighting)value);
}

static const char *server_word(int value)
{
    return meed_server_optimiser_name((enum meed_server_rule)value);
}

static const char *action_word(int value)
{
    return meed_defence_action_name((enum meed_defence_action)value);
}

static const char *estimator_word(int value)
{
    return meed_estimator_name((enum meed_value_method)value);
}

static const char *rule_word(int value)
{
    return meed_payment_rule_name((enum meed_pay_rule)value);
}

/* ---- the list -------------------------------------------------------------------------------- */

/* True if the optional fact `key` is there: in the terms, or on the next line. */
static bool has_fact(const struct facts *f, const char *key, bool written)
{
    size_t length = strlen(key);
    return f->out ? written
                  : (size_t)(f->end - f->at) > length && memcmp(f->at, key, length) == 0 &&
                        f->at[length] == ' ';
}

/* What came after the second version of this text: there only where it is used, so that others
 * keep their hash. */
static enum meed_status walk_sharing(struct facts *f, struct meed_msg_plan *plan)
{
    int space = (int)plan->mix_space, score = (int)plan->synthetic_score;
    int form = (int)plan->synthetic_form;
    if (plan->method == MEED_METHOD_FEDPIT) {
        const int32_t most = MEED_LIMIT_SYNTHETIC;
        MEED_TRY(fact_word(f, "mix", space_word, MEED_MIX_SPACE_COUNT, &space));
        MEED_TRY(fact_i32(f, "candidates", 0, most, &plan->synthetic_candidates));
        MEED_TRY(fact_i32(f, "instruction-demos", 0, most, &plan->instruction_demos));
        MEED_TRY(fact_i32(f, "response-demos", 0, most, &plan->response_demos));
        MEED_TRY(fact_real(f, "rouge-max", &plan->rouge_max));
        MEED_TRY(fact_i32(f, "retries", 0, most, &plan->synthetic_retries));
        MEED_TRY(fact_i32(f, "turns", 0, most, &plan->synthetic_turns));
        MEED_TRY(fact_real(f, "temperature", &plan->synthetic_temperature));
        MEED_TRY(fact_word(f, "score", score_word, MEED_SYNTHETIC_SCORE_COUNT, &score));
        MEED_TRY(fact_word(f, "form", form_word, MEED_SYNTHETIC_FORM_COUNT, &form));
        MEED_TRY(fact_i32(f, "opening-words", 0, most, &plan->opening_words));
    }
    if (has_fact(f, "dp-clip", plan->dp_clip > 0.0)) {
        MEED_TRY(fact_real(f, "dp-clip", &plan->dp_clip));
        MEED_TRY(fact_real(f, "dp-noise", &plan->dp_noise));
        MEED_TRY(fact_real(f, "dp-delta", &plan->dp_delta));
    }
    plan->mix_space = (enum meed_mix_space)space;
    plan->synthetic_score = (enum meed_synthetic_score)score;
    plan->synthetic_form = (enum meed_synthetic_form)form;
    return MEED_OK;
}

static enum meed_status walk_plan(struct facts *f, struct meed_msg_plan *plan)
{
    int method = (int)plan->method, share = (int)plan->share;
    MEED_TRY(fact_word(f, "method", method_word, MEED_METHOD_COUNT, &method));
    MEED_TRY(fact_real(f, "prox", &plan->prox_mu));
    MEED_TRY(fact_i32(f, "steps", 0, MEED_LIMIT_STEPS, &plan->steps));
    MEED_TRY(fact_i32(f, "batch-tokens", 0, MEED_LIMIT_BATCH_TOKENS, &plan->batch_tokens));
    MEED_TRY(fact_i32(f, "accumulation", 0, MEED_LIMIT_ACCUMULATION, &plan->accumulation));
    MEED_TRY(fact_i32(f, "sequence-tokens", 0, MEED_LIMIT_SEQUENCE_TOKENS, &plan->sequence_tokens));
    MEED_TRY(fact_real(f, "lr", &plan->lr));
    MEED_TRY(fact_real(f, "lr-min", &plan->lr_min));
    MEED_TRY(fact_i32(f, "warmup", 0, MEED_LIMIT_STEPS, &plan->warmup_steps));
    MEED_TRY(fact_real(f, "weight-decay", &plan->weight_decay));
    MEED_TRY(fact_real(f, "beta1", &plan->beta1));
    MEED_TRY(fact_real(f, "beta2", &plan->beta2));
    MEED_TRY(fact_real(f, "epsilon", &plan->epsilon));
    MEED_TRY(fact_real(f, "clip-norm", &plan->clip_norm));
    MEED_TRY(fact_i32(f, "rank", 1, MEED_LIMIT_RANK, &plan->rank));
    MEED_TRY(fact_real(f, "alpha", &plan->alpha));
    MEED_TRY(fact_flag(f, "rslora", &plan->rslora));
    MEED_TRY(fact_real(f, "dropout", &plan->dropout));
    MEED_TRY(fact_bits(f, "targets", MEED_PROJ_ALL, &plan->target_modules));
    MEED_TRY(fact_bits(f, "factors", MEED_FACTOR_A | MEED_FACTOR_B, &plan->trained_factors));
    MEED_TRY(fact_word(f, "share", share_word, MEED_SHARE_COUNT, &share));
    MEED_TRY(fact_real(f, "share-mix", &plan->share_mix));
    MEED_TRY(fact_i32(f, "synthetic", 0, MEED_LIMIT_SYNTHETIC, &plan->synthetic_count));
    plan->method = (enum meed_method)method;
    plan->share = (enum meed_share_rule)share;
    return walk_sharing(f, plan);
}

static enum meed_status walk_codec(struct facts *f, struct meed_msg_codec *codec)
{
    int values = (int)codec->values;
    MEED_TRY(fact_word(f, "codec", codec_word, MEED_VALUE_COUNT, &values));
    MEED_TRY(fact_real(f, "density-a", &codec->density_a));
    MEED_TRY(fact_real(f, "density-b", &codec->density_b));
    MEED_TRY(fact_i32(f, "group", MEED_LIMIT_GROUP_MIN, MEED_LIMIT_GROUP_MAX, &codec->group_size));
    MEED_TRY(fact_i32(f, "zstd", 0, MEED_LIMIT_ZSTD_LEVEL, &codec->zstd_level));
    codec->values = (enum meed_value_codec)values;
    return MEED_OK;
}

static enum meed_status walk_merge(struct facts *f, struct meed_terms *terms)
{
    struct meed_robust_options *robust = &terms->robust;
    struct meed_server_options *server = &terms->server;
    int aggregation = (int)terms->aggregation, weighting = (int)terms->weighting;
    int rule = (int)server->rule;
    MEED_TRY(fact_word(f, "aggregation", aggregation_word, MEED_AGGREGATION_COUNT, &aggregation));
    MEED_TRY(fact_i32(f, "attackers", 0, MEED_LIMIT_CLIENTS, &robust->attackers));
    MEED_TRY(fact_i32(f, "selected", 0, MEED_LIMIT_CLIENTS, &robust->selected));
    MEED_TRY(fact_real(f, "trim", &robust->trim));
    MEED_TRY(fact_real(f, "norm-multiple", &robust->norm_multiple));
    MEED_TRY(fact_i32(f, "frozen-rank", 0, MEED_ADAPTER_MAX_RANK, &terms->frozen_rank));
    MEED_TRY(fact_word(f, "weights", weighting_word, MEED_WEIGHTING_COUNT, &weighting));
    MEED_TRY(fact_real(f, "sample-cap", &terms->sample_cap));
    MEED_TRY(fact_i32(f, "repair-steps", 0, MEED_LIMIT_STEPS, &terms->repair_steps));
    MEED_TRY(fact_real(f, "repair-lr", &terms->repair_lr));
    MEED_TRY(fact_hash(f, "operator-data", terms->align_hash));
    MEED_TRY(fact_word(f, "server", server_word, MEED_SERVER_RULE_COUNT, &rule));
    MEED_TRY(fact_real(f, "server-lr", &server->lr));
    MEED_TRY(fact_real(f, "server-beta1", &server->beta1));
    MEED_TRY(fact_real(f, "server-beta2", &server->beta2));
    MEED_TRY(fact_real(f, "server-tau", &server->tau));
    terms->aggregation = (enum meed_aggregation)aggregation;
    terms->weighting = (enum meed_weighting)weighting;
    server->rule = (enum meed_server_rule)rule;
    return MEED_OK;
}

static enum meed_status walk_defence(struct facts *f, struct meed_terms *terms)
{
    struct meed_quarantine_options *quarantine = &terms->quarantine;
    MEED_TRY(fact_real(f, "clip", &terms->defence.clip_multiple));
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        char key[64];
        int action = (int)terms->defence.actions[d];
        snprintf(key, sizeof key, "defence-%s", meed_detector_name((enum meed_detector)d));
        MEED_TRY(fact_word(f, key, action_word, MEED_DEFENCE_ACTION_COUNT, &action));
        terms->defence.actions[d] = (enum meed_defence_action)action;
    }
    MEED_TRY(fact_i32(f, "strikes", 0, MEED_LIMIT_ROUNDS, &quarantine->strikes));
    MEED_TRY(fact_i32(f, "quarantine", 0, MEED_LIMIT_ROUNDS, &quarantine->rounds));
    return fact_i32(f, "probation", 0, MEED_LIMIT_ROUNDS, &quarantine->probation);
}

static enum meed_status walk_value(struct facts *f, struct meed_terms_value *value)
{
    int method = (int)value->method, rule = (int)value->rule, path = (int)value->path;
    MEED_TRY(fact_word(f, "estimator", estimator_word, MEED_VALUE_METHOD_COUNT, &method));
    MEED_TRY(fact_word(f, "payment", rule_word, MEED_PAY_RULE_COUNT, &rule));
    MEED_TRY(fact_word(f, "path", path_word, MEED_PATH_MERGE + 1, &path));
    MEED_TRY(fact_i32(f, "bootstrap", 0, 1 << 20, &value->bootstrap));
    MEED_TRY(fact_real(f, "guard", &value->guard_z));
    MEED_TRY(fact_real(f, "reputation", &value->reputation));
    MEED_TRY(fact_real(f, "floor", &value->floor));
    value->method = (enum meed_value_method)method;
    value->rule = (enum meed_pay_rule)rule;
    value->path = (enum meed_coalition_path)path;
    return MEED_OK;
}

static enum meed_status walk_run_id(struct facts *f, struct meed_terms *terms)
{
    char text[VALUE_BYTES];
    if (f->out) {
        return meed_buf_printf(f->out, "run %s\n", terms->named ? terms->run_id : "-");
    }
    MEED_TRY(take_line(f, "run", text));
    terms->named = strcmp(text, "-") != 0;
    if (terms->named && !meed_codec_id_valid(text)) {
        return MEED_FAIL(MEED_FORMAT, "terms, line %d: \"%.64s\" cannot be a run id", f->line,
                         text);
    }
    snprintf(terms->run_id, sizeof terms->run_id, "%.63s", text);
    return MEED_OK;
}

static enum meed_status walk(struct facts *f, struct meed_terms *terms)
{
    int64_t seed = (int64_t)terms->seed;
    int32_t version = 2;
    MEED_TRY(fact_i32(f, "meed terms", version, version, &version));
    MEED_TRY(walk_run_id(f, terms));
    MEED_TRY(fact_hash(f, "model", terms->model_hash));
    MEED_TRY(fact_hash(f, "benchmark", terms->benchmark_hash));
    MEED_TRY(fact_i32(f, "rounds", 1, MEED_LIMIT_ROUNDS, &terms->rounds));
    MEED_TRY(fact_i64(f, "budget", 0, MEED_LIMIT_CREDITS, &terms->budget));
    MEED_TRY(fact_i64(f, "seed", INT64_MIN, INT64_MAX, &seed));
    MEED_TRY(walk_plan(f, &terms->plan));
    MEED_TRY(walk_codec(f, &terms->plan.codec));
    MEED_TRY(walk_merge(f, terms));
    MEED_TRY(walk_defence(f, terms));
    MEED_TRY(walk_value(f, &terms->value));
    terms->seed = (uint64_t)seed;
    return MEED_OK;
}

/* ---- both ways ------------------------------------------------------------------------------- */

enum meed_status meed_terms_text_write(const struct meed_terms *terms, const char *const *clients,
                                       int32_t count, struct meed_buf *text)
{
    struct facts facts = {.out = text};
    struct meed_terms *copy = meed_heap_alloc(1, sizeof *copy);
    if (!copy) {
        return MEED_NOMEM;
    }
    *copy = *terms; /* the walk may write what it reads */
    enum meed_status st = walk(&facts, copy);
    for (int32_t i = 0; i < count && st == MEED_OK; i++) {
        st = meed_buf_printf(text, "client %s\n", clients[i]);
    }
    meed_heap_free(copy);
    return st;
}

static enum meed_status read_clients(struct facts *facts, struct meed_arena *arena,
                                     const char *const **clients, int32_t *count)
{
    int64_t lines = 0;
    void *ids = NULL, *list = NULL;
    for (const char *at = facts->at; at < facts->end; at++) {
        lines += *at == '\n';
    }
    if (lines < 1 || lines > MEED_LIMIT_CLIENTS) {
        return MEED_FAIL(MEED_FORMAT, "terms, line %d: 1 to %d clients should stand here",
                         facts->line + 1, MEED_LIMIT_CLIENTS);
    }
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)lines, MEED_LIMIT_ID_BYTES, &ids));
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)lines, sizeof(char *), &list));
    for (int64_t i = 0; i < lines; i++) {
        char *id = (char *)ids + i * MEED_LIMIT_ID_BYTES, text[VALUE_BYTES];
        MEED_TRY(take_line(facts, "client", text));
        if (!meed_codec_id_valid(text) || (i > 0 && strcmp(id - MEED_LIMIT_ID_BYTES, text) >= 0)) {
            return MEED_FAIL(MEED_FORMAT, "terms, line %d: \"%.64s\" is no id, or out of order",
                             facts->line, text);
        }
        snprintf(id, MEED_LIMIT_ID_BYTES, "%.63s", text);
        ((const char **)list)[i] = id;
    }
    if (facts->at != facts->end) {
        return MEED_FAIL(MEED_FORMAT, "terms, line %d: the last line does not end",
                         facts->line + 1);
    }
    *clients = list;
    *count = (int32_t)lines;
    return MEED_OK;
}

enum meed_status meed_terms_text_read(const char *text, size_t size, struct meed_arena *arena,
                                      struct meed_terms *terms, const char *const **clients,
                                      int32_t *count)
{
    struct facts facts = {.at = text, .end = text + size};
    memset(terms, 0, sizeof *terms);
    MEED_TRY(walk(&facts, terms));
    MEED_TRY(read_clients(&facts, arena, clients, count));
    meed_sha256(text, size, terms->hash);
    meed_terms_complete(terms);
    return MEED_OK;
}
