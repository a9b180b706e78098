/* See federation_file.h. libcyaml loads into a struct of pointers (NULL = left out), which is then
 * resolved against defaults and ranges; its log callback is kept, because the place of an error is
 * only there. */
#include "cli/federation_file.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "cli/training_setting.h"
#include "cli/yaml_schema.h"
#include "evaluation/payment.h"
#include "server/aggregate.h"
#include "server/server_optimiser.h"
#include "server/weighting.h"

struct raw_synthesis {
    int64_t *candidates, *keep, *instruction_demos, *response_demos, *retries, *turns,
        *opening_words;
    double *rouge_max, *temperature;
    int *score; /* enum meed_synthetic_score */
    int *form;  /* enum meed_synthetic_form */
};
struct raw_privacy {
    double *clip, *noise, *delta;
};
struct raw_training {
    int *method; /* enum meed_method */
    int *share;  /* enum meed_share_rule */
    int *mix;    /* enum meed_mix_space */
    double *beta;
    struct raw_synthesis *synthesis;
    struct raw_privacy *privacy;
    int64_t *steps, *batch_tokens, *accumulation, *warmup, *rank, *sequence_tokens;
    double *lr, *lr_min, *alpha, *dropout, *weight_decay, *clip, *prox_mu;
    bool *rslora;
    char *targets;
};
struct raw_codec {
    int *values; /* enum meed_value_codec */
    double *density, *density_a, *density_b;
    int64_t *group, *zstd;
};
struct raw_pay {
    int *rule;
    int *method;
    int *path;
    int64_t *bootstrap;
    double *guard_z, *reputation, *floor;
};
struct raw_robust {
    int64_t *attackers, *selected;
    double *trim, *norm_multiple;
};
struct raw_repair {
    char *data;
    int64_t *steps;
    double *lr;
};
struct raw_quarantine {
    int64_t *strikes, *rounds, *probation;
};
struct raw_defence {
    int *actions[MEED_DETECTOR_COUNT]; /* enum meed_defence_action */
    struct raw_quarantine *quarantine;
};
struct raw_server {
    int *optimiser; /* enum meed_server_rule */
    double *lr, *beta1, *beta2, *tau;
};
struct raw_client {
    char *id, *data, *device;
    int *behaviour;
};
struct raw_file {
    char *name, *model, *benchmark, *listen, *deadline, *device;
    int64_t *rounds, *quorum, *budget, *seed, *server_threads, *client_threads, *frozen_rank;
    int *aggregation, *weights;
    double *clip, *sample_cap;
    struct raw_robust *robust;
    struct raw_defence *defence;
    struct raw_server *server;
    struct raw_repair *repair;
    struct raw_training *training;
    struct raw_codec *codec;
    struct raw_pay *pay;
    struct raw_client *clients;
    unsigned clients_count;
    struct meed_simulation_raw *simulate;
};

static const cyaml_strval_t methods[] = {{"fedit", MEED_METHOD_FEDIT},
                                         {"fedprox", MEED_METHOD_FEDPROX},
                                         {"scaffold", MEED_METHOD_SCAFFOLD},
                                         {"fedpit", MEED_METHOD_FEDPIT}};
static const cyaml_strval_t shares[] = {
    {"synthetic", MEED_SHARE_SYNTHETIC}, {"mix", MEED_SHARE_MIX}, {"none", MEED_SHARE_NOTHING}};
static const cyaml_strval_t mixes[] = {{"product", MEED_MIX_PRODUCT},
                                       {"factors", MEED_MIX_FACTORS}};
static const cyaml_strval_t scores[] = {{"ifs", MEED_SYNTHETIC_IFS},
                                        {"ppl", MEED_SYNTHETIC_PPL},
                                        {"ifd", MEED_SYNTHETIC_IFD},
                                        {"random", MEED_SYNTHETIC_RANDOM}};
static const cyaml_strval_t forms[] = {{"dialogue", MEED_SYNTHETIC_DIALOGUE},
                                       {"tasks", MEED_SYNTHETIC_TASKS}};
static const cyaml_strval_t value_codecs[] = {{"f32", MEED_VALUE_F32},
                                              {"bf16", MEED_VALUE_BF16},
                                              {"int8", MEED_VALUE_INT8},
                                              {"int4", MEED_VALUE_INT4}};
static const cyaml_strval_t estimators[] = {{"exact", MEED_VALUE_EXACT},
                                            {"loo", MEED_VALUE_LEAVE_ONE_OUT},
                                            {"permutation", MEED_VALUE_PERMUTATION},
                                            {"owen", MEED_VALUE_OWEN},
                                            {"banzhaf", MEED_VALUE_BANZHAF},
                                            {"gradient", MEED_VALUE_GRADIENT},
                                            {"auto", MEED_VALUE_AUTO}};
/* Named by the tables of evaluation/ and server/, before a file is read. */
static cyaml_strval_t rules[MEED_PAY_RULE_COUNT];
static cyaml_strval_t aggregations[MEED_AGGREGATION_COUNT];
static cyaml_strval_t weightings[MEED_WEIGHTING_COUNT];
static cyaml_strval_t server_rules[MEED_SERVER_RULE_COUNT];
static const cyaml_strval_t actions[] = {
    {"off", MEED_DEFENCE_OFF}, {"flag", MEED_DEFENCE_REMARK}, {"exclude", MEED_DEFENCE_REFUSE}};
static const cyaml_strval_t paths[] = {
    {"auto", MEED_PATH_AUTO}, {"stack", MEED_PATH_STACK}, {"merge", MEED_PATH_MERGE}};
static const cyaml_strval_t behaviours[] = {{"honest", 0}, {"idle", 1}};

static const cyaml_schema_field_t synthesis_fields[] = {
    OPTIONAL_INT("candidates", struct raw_synthesis, candidates),
    OPTIONAL_INT("keep", struct raw_synthesis, keep),
    OPTIONAL_INT("instruction_demos", struct raw_synthesis, instruction_demos),
    OPTIONAL_INT("response_demos", struct raw_synthesis, response_demos),
    OPTIONAL_INT("retries", struct raw_synthesis, retries),
    OPTIONAL_INT("turns", struct raw_synthesis, turns),
    OPTIONAL_FLOAT("rouge_max", struct raw_synthesis, rouge_max),
    OPTIONAL_FLOAT("temperature", struct raw_synthesis, temperature),
    OPTIONAL_ENUM("score", struct raw_synthesis, score, scores),
    OPTIONAL_ENUM("form", struct raw_synthesis, form, forms),
    OPTIONAL_INT("opening_words", struct raw_synthesis, opening_words),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t privacy_fields[] = {
    OPTIONAL_FLOAT("clip", struct raw_privacy, clip),
    OPTIONAL_FLOAT("noise", struct raw_privacy, noise),
    OPTIONAL_FLOAT("delta", struct raw_privacy, delta),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t training_fields[] = {
    OPTIONAL_ENUM("method", struct raw_training, method, methods),
    OPTIONAL_ENUM("share", struct raw_training, share, shares),
    OPTIONAL_ENUM("mix", struct raw_training, mix, mixes),
    OPTIONAL_FLOAT("beta", struct raw_training, beta),
    CYAML_FIELD_MAPPING_PTR("synthesis", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            struct raw_training, synthesis, synthesis_fields),
    CYAML_FIELD_MAPPING_PTR("privacy", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            struct raw_training, privacy, privacy_fields),
    OPTIONAL_INT("steps", struct raw_training, steps),
    OPTIONAL_INT("batch_tokens", struct raw_training, batch_tokens),
    OPTIONAL_INT("accumulation", struct raw_training, accumulation),
    OPTIONAL_INT("sequence_tokens", struct raw_training, sequence_tokens),
    OPTIONAL_INT("warmup", struct raw_training, warmup),
    OPTIONAL_INT("rank", struct raw_training, rank),
    OPTIONAL_FLOAT("lr", struct raw_training, lr),
    OPTIONAL_FLOAT("lr_min", struct raw_training, lr_min),
    OPTIONAL_FLOAT("alpha", struct raw_training, alpha),
    OPTIONAL_FLOAT("dropout", struct raw_training, dropout),
    OPTIONAL_FLOAT("weight_decay", struct raw_training, weight_decay),
    OPTIONAL_FLOAT("clip", struct raw_training, clip),
    OPTIONAL_FLOAT("prox_mu", struct raw_training, prox_mu),
    CYAML_FIELD_BOOL_PTR("rslora", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_training,
                         rslora),
    OPTIONAL_TEXT("targets", struct raw_training, targets),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t codec_fields[] = {
    OPTIONAL_ENUM("values", struct raw_codec, values, value_codecs),
    OPTIONAL_FLOAT("density", struct raw_codec, density),
    OPTIONAL_FLOAT("density_a", struct raw_codec, density_a),
    OPTIONAL_FLOAT("density_b", struct raw_codec, density_b),
    OPTIONAL_INT("group", struct raw_codec, group),
    OPTIONAL_INT("zstd", struct raw_codec, zstd),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t pay_fields[] = {
    OPTIONAL_ENUM("rule", struct raw_pay, rule, rules),
    OPTIONAL_ENUM("method", struct raw_pay, method, estimators),
    OPTIONAL_ENUM("path", struct raw_pay, path, paths),
    OPTIONAL_INT("bootstrap", struct raw_pay, bootstrap),
    OPTIONAL_FLOAT("guard_z", struct raw_pay, guard_z),
    OPTIONAL_FLOAT("reputation", struct raw_pay, reputation),
    OPTIONAL_FLOAT("floor", struct raw_pay, floor),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t robust_fields[] = {
    OPTIONAL_INT("attackers", struct raw_robust, attackers),
    OPTIONAL_INT("selected", struct raw_robust, selected),
    OPTIONAL_FLOAT("trim", struct raw_robust, trim),
    OPTIONAL_FLOAT("norm_multiple", struct raw_robust, norm_multiple),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t quarantine_fields[] = {
    OPTIONAL_INT("strikes", struct raw_quarantine, strikes),
    OPTIONAL_INT("rounds", struct raw_quarantine, rounds),
    OPTIONAL_INT("probation", struct raw_quarantine, probation),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t defence_fields[] = {
    OPTIONAL_ENUM("idle", struct raw_defence, actions[MEED_DETECTOR_IDLE], actions),
    OPTIONAL_ENUM("norm", struct raw_defence, actions[MEED_DETECTOR_NORM], actions),
    OPTIONAL_ENUM("replay", struct raw_defence, actions[MEED_DETECTOR_REPLAY], actions),
    OPTIONAL_ENUM("duplicate", struct raw_defence, actions[MEED_DETECTOR_DUPLICATE], actions),
    OPTIONAL_ENUM("span", struct raw_defence, actions[MEED_DETECTOR_SPAN], actions),
    OPTIONAL_ENUM("dispersion", struct raw_defence, actions[MEED_DETECTOR_DISPERSION], actions),
    OPTIONAL_ENUM("direction", struct raw_defence, actions[MEED_DETECTOR_DIRECTION], actions),
    OPTIONAL_ENUM("gap", struct raw_defence, actions[MEED_DETECTOR_GAP], actions),
    OPTIONAL_ENUM("unlike", struct raw_defence, actions[MEED_DETECTOR_UNLIKE], actions),
    OPTIONAL_ENUM("clique", struct raw_defence, actions[MEED_DETECTOR_CLIQUE], actions),
    CYAML_FIELD_MAPPING_PTR("quarantine", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            struct raw_defence, quarantine, quarantine_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t repair_fields[] = {
    TEXT("data", struct raw_repair, data),
    OPTIONAL_INT("steps", struct raw_repair, steps),
    OPTIONAL_FLOAT("lr", struct raw_repair, lr),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t server_fields[] = {
    OPTIONAL_ENUM("optimiser", struct raw_server, optimiser, server_rules),
    OPTIONAL_FLOAT("lr", struct raw_server, lr),
    OPTIONAL_FLOAT("beta1", struct raw_server, beta1),
    OPTIONAL_FLOAT("beta2", struct raw_server, beta2),
    OPTIONAL_FLOAT("tau", struct raw_server, tau),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t client_fields[] = {
    TEXT("id", struct raw_client, id),
    TEXT("data", struct raw_client, data),
    OPTIONAL_ENUM("behaviour", struct raw_client, behaviour, behaviours),
    OPTIONAL_TEXT("device", struct raw_client, device),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t client_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_client, client_fields),
};
static const cyaml_schema_field_t file_fields[] = {
    OPTIONAL_TEXT("name", struct raw_file, name),
    TEXT("model", struct raw_file, model),
    TEXT("benchmark", struct raw_file, benchmark),
    OPTIONAL_TEXT("listen", struct raw_file, listen),
    OPTIONAL_TEXT("deadline", struct raw_file, deadline),
    OPTIONAL_TEXT("device", struct raw_file, device),
    OPTIONAL_INT("rounds", struct raw_file, rounds),
    OPTIONAL_INT("quorum", struct raw_file, quorum),
    OPTIONAL_INT("budget", struct raw_file, budget),
    OPTIONAL_INT("seed", struct raw_file, seed),
    OPTIONAL_INT("server_threads", struct raw_file, server_threads),
    OPTIONAL_INT("client_threads", struct raw_file, client_threads),
    OPTIONAL_ENUM("aggregation", struct raw_file, aggregation, aggregations),
    OPTIONAL_FLOAT("clip", struct raw_file, clip),
    OPTIONAL_ENUM("weights", struct raw_file, weights, weightings),
    OPTIONAL_FLOAT("sample_cap", struct raw_file, sample_cap),
    OPTIONAL_INT("frozen_rank", struct raw_file, frozen_rank),
    CYAML_FIELD_MAPPING_PTR("robust", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            robust, robust_fields),
    CYAML_FIELD_MAPPING_PTR("defence", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            defence, defence_fields),
    CYAML_FIELD_MAPPING_PTR("server", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            server, server_fields),
    CYAML_FIELD_MAPPING_PTR("repair", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            repair, repair_fields),
    CYAML_FIELD_MAPPING_PTR("training", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            training, training_fields),
    CYAML_FIELD_MAPPING_PTR("codec", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            codec, codec_fields),
    CYAML_FIELD_MAPPING_PTR("pay", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file, pay,
                            pay_fields),
    CYAML_FIELD_SEQUENCE("clients", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                         clients, &client_value, 1, MEED_FEDERATION_MAX_CLIENTS),
    CYAML_FIELD_MAPPING_PTR("simulate", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            simulate, meed_simulation_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t file_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_file, file_fields),
};

/* Keeps the first error sentence, and the line and field of the innermost place, of libcyaml's
 * report. */
struct report {
    char sentence[256];
    char field[64];
    int line; /* 0: not said */
};

static void keep_report(cyaml_log_t level, void *context, const char *format, va_list args)
{
    struct report *report = context;
    char text[256];
    (void)level;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    const char *line = strstr(text, "(line: ");
    const char *field = strstr(text, "field '");
    if (line && report->line == 0) {
        char digits[16];
        int64_t number = 0;
        snprintf(digits, sizeof digits, "%.*s", (int)strcspn(line + 7, ","), line + 7);
        meed_status_discard(meed_parse_i64("line", digits, 1, INT32_MAX, &number));
        report->line = (int)number;
        if (field) {
            snprintf(report->field, sizeof report->field, "%.*s", (int)strcspn(field + 7, "'"),
                     field + 7);
        }
    } else if (!line && !report->sentence[0]) {
        const char *body = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
        snprintf(report->sentence, sizeof report->sentence, "%s", body);
    }
}

/* libcyaml places an unknown key at the key before it, and a value that it took nowhere: the first
 * line from there on that has the key and, behind it, the value ("" for any). */
static int key_line(const char *path, const char *key, const char *value, int from)
{
    struct meed_buf text;
    meed_buf_init(&text, 16u << 20);
    int found = from, line = 1;
    bool done = meed_file_read(path, &text) != MEED_OK;
    for (const char *at = text.data; at && !done && *at; line++) {
        size_t length = strcspn(at, "\n");
        const char *hit = line >= from ? strstr(at, key) : NULL;
        const char *word = hit ? strstr(hit, value) : NULL;
        if (word && word < at + length && hit[strlen(key)] == ':') {
            found = line;
            done = true;
        }
        at += length + (at[length] == '\n');
    }
    meed_buf_clear(&text);
    return found;
}

static enum meed_status report_fail(const char *path, const struct report *report)
{
    static const char unknown[] = "Unexpected key: ", word[] = "Invalid ENUM value: ";
    static const char help[] = "see the keys in `meed help up`";
    const char *sentence = report->sentence;
    if (strncmp(sentence, unknown, sizeof unknown - 1) == 0) {
        const char *key = sentence + sizeof unknown - 1;
        return MEED_FAIL(MEED_CONFIG, "%s:%d: unknown key \"%s\"; %s", path,
                         key_line(path, key, "", report->line), key, help);
    }
    if (strncmp(sentence, word, sizeof word - 1) == 0) {
        return MEED_FAIL(MEED_CONFIG, "%s:%d: %s cannot be \"%s\"; %s", path, report->line,
                         report->field, sentence + sizeof word - 1, help);
    }
    const char *field = strncmp(sentence, "Invalid", 7) == 0 ? report->field : "";
    return MEED_FAIL(MEED_CONFIG, "%s:%d: %s%s%s; %s", path, report->line, field,
                     field[0] ? ": " : "", sentence, help);
}

#define GIVEN(field, fallback) ((field) ? *(field) : (fallback))

static enum meed_status range_check(const char *path, const char *key, double value, double min,
                                    double max)
{
    if (!(value >= min && value <= max)) {
        return MEED_FAIL(MEED_CONFIG, "%s: %s is %g; write a value from %g to %g", path, key, value,
                         min, max);
    }
    return MEED_OK;
}

/* Whole numbers: key, raw pointer, default, bounds, target. */
#define WHOLE(key, raw, fallback, min, max, target)                                                \
    do {                                                                                           \
        int64_t whole_ = GIVEN(raw, (int64_t)(fallback));                                          \
        MEED_TRY(range_check(path, key, (double)whole_, (double)(min), (double)(max)));            \
        (target) = (__typeof__(target))whole_;                                                     \
    } while (0)
#define NUMBER(key, raw, fallback, min, max, target)                                               \
    do {                                                                                           \
        (target) = GIVEN(raw, (double)(fallback));                                                 \
        MEED_TRY(range_check(path, key, (target), (min), (max)));                                  \
    } while (0)

static enum meed_status resolve_synthesis(const char *path, const struct raw_synthesis *raw,
                                          struct meed_msg_plan *plan)
{
    int32_t most = MEED_LIMIT_DEMONSTRATIONS;
    WHOLE("training.synthesis.candidates", raw->candidates, plan->synthetic_candidates, 1,
          MEED_LIMIT_SYNTHETIC, plan->synthetic_candidates);
    WHOLE("training.synthesis.keep", raw->keep, MEED_MAX(plan->synthetic_candidates / 2, 1), 1,
          plan->synthetic_candidates, plan->synthetic_count);
    WHOLE("training.synthesis.instruction_demos", raw->instruction_demos, plan->instruction_demos,
          1, most, plan->instruction_demos);
    WHOLE("training.synthesis.response_demos", raw->response_demos, plan->response_demos, 1, most,
          plan->response_demos);
    WHOLE("training.synthesis.retries", raw->retries, plan->synthetic_retries, 0, 100,
          plan->synthetic_retries);
    WHOLE("training.synthesis.turns", raw->turns, plan->synthetic_turns, 0, 16,
          plan->synthetic_turns);
    WHOLE("training.synthesis.opening_words", raw->opening_words, plan->opening_words, 0, most,
          plan->opening_words);
    NUMBER("training.synthesis.rouge_max", raw->rouge_max, plan->rouge_max, 0, 1, plan->rouge_max);
    NUMBER("training.synthesis.temperature", raw->temperature, plan->synthetic_temperature, 0, 10,
           plan->synthetic_temperature);
    plan->synthetic_score =
        (enum meed_synthetic_score)GIVEN(raw->score, (int)plan->synthetic_score);
    plan->synthetic_form = (enum meed_synthetic_form)GIVEN(raw->form, (int)plan->synthetic_form);
    return MEED_OK;
}

/* The method, and of fedpit its keys over their defaults. */
static enum meed_status resolve_sharing(const char *path, const struct raw_training *raw,
                                        struct meed_msg_plan *plan)
{
    static const struct raw_synthesis no_synthesis;
    meed_training_setting_method(plan,
                                 (enum meed_method)GIVEN(raw->method, (int)MEED_METHOD_FEDIT));
    if (plan->method != MEED_METHOD_FEDPIT) {
        return raw->share || raw->beta || raw->mix || raw->synthesis
                   ? MEED_FAIL(MEED_CONFIG,
                               "%s: training.share, beta, mix and synthesis go with method: fedpit",
                               path)
                   : MEED_OK;
    }
    meed_training_setting_share(plan,
                                (enum meed_share_rule)GIVEN(raw->share, (int)MEED_SHARE_SYNTHETIC));
    if (plan->share == MEED_SHARE_MIX) {
        NUMBER("training.beta", raw->beta, plan->share_mix, 0, 1, plan->share_mix);
        plan->mix_space = (enum meed_mix_space)GIVEN(raw->mix, (int)MEED_MIX_PRODUCT);
    } else if (raw->beta || raw->mix) {
        return MEED_FAIL(MEED_CONFIG, "%s: training.beta and mix go with share: mix", path);
    }
    return resolve_synthesis(path, raw->synthesis ? raw->synthesis : &no_synthesis, plan);
}

static enum meed_status resolve_privacy(const char *path, const struct raw_privacy *raw,
                                        struct meed_msg_plan *plan)
{
    if (!raw) {
        return MEED_OK;
    }
    if (!raw->clip || !raw->noise) {
        return MEED_FAIL(MEED_CONFIG,
                         "%s: training.privacy needs clip (the norm that an update is cut to) and "
                         "noise (in multiples of it)",
                         path);
    }
    NUMBER("training.privacy.clip", raw->clip, 1, 1e-9, 1e9, plan->dp_clip);
    NUMBER("training.privacy.noise", raw->noise, 1, 1e-3, 1e6, plan->dp_noise);
    NUMBER("training.privacy.delta", raw->delta, 1e-5, 1e-15, 0.5, plan->dp_delta);
    return MEED_OK;
}

static enum meed_status resolve_training(const char *path, const struct raw_training *raw,
                                         struct meed_msg_plan *plan)
{
    WHOLE("training.steps", raw->steps, 50, 1, 1000000, plan->steps);
    WHOLE("training.batch_tokens", raw->batch_tokens, 1024, 16, 1 << 20, plan->batch_tokens);
    WHOLE("training.accumulation", raw->accumulation, 1, 1, 4096, plan->accumulation);
    WHOLE("training.sequence_tokens", raw->sequence_tokens, 512, 8, 1 << 17, plan->sequence_tokens);
    WHOLE("training.warmup", raw->warmup, 2, 0, 1000000, plan->warmup_steps);
    WHOLE("training.rank", raw->rank, 8, 1, MEED_ADAPTER_MAX_RANK, plan->rank);
    NUMBER("training.lr", raw->lr, 2e-4, 0, 1, plan->lr);
    NUMBER("training.lr_min", raw->lr_min, plan->lr * 0.1, 0, 1, plan->lr_min);
    NUMBER("training.alpha", raw->alpha, 2.0 * plan->rank, 1e-6, 1e6, plan->alpha);
    NUMBER("training.dropout", raw->dropout, 0, 0, 0.9, plan->dropout);
    NUMBER("training.weight_decay", raw->weight_decay, 0, 0, 1, plan->weight_decay);
    NUMBER("training.clip", raw->clip, 1, 0, 1e6, plan->clip_norm);
    bool proximal = GIVEN(raw->method, (int)MEED_METHOD_FEDIT) == (int)MEED_METHOD_FEDPROX;
    NUMBER("training.prox_mu", raw->prox_mu, proximal ? 0.01 : 0.0, 0, 1e6, plan->prox_mu);
    plan->rslora = GIVEN(raw->rslora, false);
    plan->beta1 = 0.9;
    plan->beta2 = 0.999;
    plan->epsilon = 1e-8;
    plan->trained_factors = MEED_FACTOR_A | MEED_FACTOR_B;
    meed_proj_set targets = 0;
    if (meed_proj_set_parse(raw->targets ? raw->targets : "all", &targets) != MEED_OK) {
        return MEED_FAIL(MEED_CONFIG, "%s: training.targets: %s", path, meed_last_error());
    }
    plan->target_modules = targets;
    MEED_TRY(resolve_sharing(path, raw, plan));
    return resolve_privacy(path, raw->privacy, plan);
}

static enum meed_status resolve_codec(const char *path, const struct raw_codec *raw,
                                      struct meed_msg_codec *codec)
{
    codec->values = (enum meed_value_codec)GIVEN(raw->values, (int)MEED_VALUE_INT8);
    double density = 1;
    NUMBER("codec.density", raw->density, 1, 1e-4, 1, density);
    NUMBER("codec.density_a", raw->density_a, density, 1e-4, 1, codec->density_a);
    NUMBER("codec.density_b", raw->density_b, density, 1e-4, 1, codec->density_b);
    WHOLE("codec.group", raw->group, 64, 8, 4096, codec->group_size);
    WHOLE("codec.zstd", raw->zstd, 3, 0, 19, codec->zstd_level);
    if (codec->group_size & (codec->group_size - 1)) {
        return MEED_FAIL(MEED_CONFIG, "%s: codec.group is %d; write a power of two", path,
                         codec->group_size);
    }
    return MEED_OK;
}

static enum meed_status resolve_path(const char *folder, const char *name, char path[1024])
{
    return name[0] == '/' ? meed_file_join("", name, path, 1024)
                          : meed_file_join(folder, name, path, 1024);
}

static enum meed_status resolve_device(const char *path, const char *word, const char *fallback,
                                       char device[MEED_FEDERATION_DEVICE_BYTES])
{
    const char *chosen = word ? word : fallback;
    if (strlen(chosen) >= MEED_FEDERATION_DEVICE_BYTES ||
        meed_backend_check_device(chosen) != MEED_OK) {
        return MEED_FAIL(MEED_CONFIG, "%s:%d: device cannot be \"%.32s\"; use cpu, cuda or cuda:N",
                         path, key_line(path, "device", chosen, 1), chosen);
    }
    snprintf(device, MEED_FEDERATION_DEVICE_BYTES, "%s", chosen);
    return MEED_OK;
}

static enum meed_status resolve_merge(const char *path, const struct raw_file *raw,
                                      struct meed_federation_file *file)
{
    static const struct raw_robust no_robust;
    static const struct raw_server no_server;
    const struct raw_robust *robust = raw->robust ? raw->robust : &no_robust;
    const struct raw_server *server = raw->server ? raw->server : &no_server;
    file->aggregation = (enum meed_aggregation)GIVEN(raw->aggregation, (int)MEED_AGGREGATION_SVD);
    file->weighting = (enum meed_weighting)GIVEN(raw->weights, (int)MEED_WEIGHTING_UNIFORM);
    NUMBER("sample_cap", raw->sample_cap, 4, 1, 1e6, file->sample_cap);
    WHOLE("frozen_rank", raw->frozen_rank, 128, 1, MEED_ADAPTER_MAX_RANK, file->frozen_rank);
    WHOLE("robust.attackers", robust->attackers, 0, 0, MEED_LIMIT_CLIENTS, file->robust.attackers);
    WHOLE("robust.selected", robust->selected, 0, 0, MEED_LIMIT_CLIENTS, file->robust.selected);
    NUMBER("robust.trim", robust->trim, 0.2, 0, 0.4999, file->robust.trim);
    NUMBER("robust.norm_multiple", robust->norm_multiple, 1, 1e-6, 1e6, file->robust.norm_multiple);
    file->server = meed_server_optimiser_defaults(
        (enum meed_server_rule)GIVEN(server->optimiser, (int)MEED_SERVER_NONE));
    NUMBER("server.lr", server->lr, file->server.lr, 1e-9, 100, file->server.lr);
    NUMBER("server.beta1", server->beta1, file->server.beta1, 0, 0.999999, file->server.beta1);
    NUMBER("server.beta2", server->beta2, file->server.beta2, 0, 0.999999, file->server.beta2);
    NUMBER("server.tau", server->tau, file->server.tau, 1e-12, 1, file->server.tau);
    return MEED_OK;
}

static enum meed_status resolve_repair(const char *path, const char *folder,
                                       const struct raw_repair *raw,
                                       struct meed_federation_file *file)
{
    if (!raw) {
        return MEED_OK;
    }
    MEED_TRY(resolve_path(folder, raw->data, file->repair_data));
    WHOLE("repair.steps", raw->steps, 0, 0, 1000000, file->repair_steps);
    NUMBER("repair.lr", raw->lr, file->plan.lr, 1e-12, 1, file->repair_lr);
    return MEED_OK;
}

static enum meed_status resolve_clients(const char *path, const char *folder,
                                        const struct raw_file *raw,
                                        struct meed_federation_file *file)
{
    file->client_count = (int32_t)raw->clients_count;
    for (int32_t i = 0; i < file->client_count; i++) {
        struct meed_federation_client *client = &file->clients[i];
        size_t length = strlen(raw->clients[i].id);
        if (length == 0 || length >= sizeof client->id ||
            strspn(raw->clients[i].id, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != length) {
            return MEED_FAIL(MEED_CONFIG, "%s: client id \"%.64s\": use up to %zu of a-z 0-9 - _ .",
                             path, raw->clients[i].id, sizeof client->id - 1);
        }
        memcpy(client->id, raw->clients[i].id, length + 1);
        for (int32_t j = 0; j < i; j++) {
            if (strcmp(client->id, file->clients[j].id) == 0) {
                return MEED_FAIL(MEED_CONFIG, "%s: two clients are called %s; rename one", path,
                                 client->id);
            }
        }
        client->idle = GIVEN(raw->clients[i].behaviour, 0) == 1;
        MEED_TRY(resolve_device(path, raw->clients[i].device, file->device, client->device));
        MEED_TRY(resolve_path(folder, raw->clients[i].data, client->data));
    }
    return MEED_OK;
}

static enum meed_status resolve_defence(const char *path, const struct raw_defence *raw,
                                        struct meed_federation_file *file)
{
    static const struct raw_quarantine none;
    static const struct raw_defence all_default;
    raw = raw ? raw : &all_default;
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        file->defence[d] =
            (enum meed_defence_action)GIVEN(raw->actions[d], (int)MEED_DEFENCE_DEFAULT);
    }
    const struct raw_quarantine *held = raw->quarantine ? raw->quarantine : &none;
    WHOLE("defence.quarantine.strikes", held->strikes, 0, 0, MEED_LIMIT_ROUNDS,
          file->quarantine.strikes);
    WHOLE("defence.quarantine.rounds", held->rounds, 1, 1, MEED_LIMIT_ROUNDS,
          file->quarantine.rounds);
    WHOLE("defence.quarantine.probation", held->probation, 1, 0, MEED_LIMIT_ROUNDS,
          file->quarantine.probation);
    return MEED_OK;
}

static enum meed_status resolve(const char *path, const struct raw_file *raw,
                                struct meed_federation_file *file)
{
    char folder[1024];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    snprintf(file->name, sizeof file->name, "%s", raw->name ? raw->name : "federation");
    snprintf(file->listen, sizeof file->listen, "%s", raw->listen ? raw->listen : "127.0.0.1:0");
    MEED_TRY(resolve_path(folder, raw->model, file->model));
    MEED_TRY(resolve_path(folder, raw->benchmark, file->benchmark));
    MEED_TRY(resolve_device(path, raw->device, "cpu", file->device));
    MEED_TRY(resolve_clients(path, folder, raw, file));
    if (raw->simulate) {
        MEED_TRY(meed_simulation_plan_resolve(path, folder, raw->simulate, &file->simulation));
    } else if (file->client_count == 0) {
        return MEED_FAIL(MEED_CONFIG, "%s names no clients; `meed help up` lists its keys", path);
    }
    WHOLE("rounds", raw->rounds, 3, 1, MEED_LIMIT_ROUNDS, file->rounds);
    if (file->client_count > 0) {
        WHOLE("quorum", raw->quorum, file->client_count, 1, file->client_count, file->quorum);
    }
    WHOLE("budget", raw->budget, 1000 * file->rounds, 0, INT64_C(1000000000000), file->budget);
    WHOLE("seed", raw->seed, 1, 0, INT64_MAX, file->seed);
    WHOLE("server_threads", raw->server_threads, 0, 0, 256, file->server_threads);
    WHOLE("client_threads", raw->client_threads, 1, 0, 256, file->client_threads);
    file->deadline_ms = 600000;
    if (raw->deadline &&
        meed_parse_duration_ms("deadline", raw->deadline, &file->deadline_ms) != MEED_OK) {
        return MEED_FAIL(MEED_CONFIG, "%s: %s", path, meed_last_error());
    }
    static const struct raw_training no_training;
    static const struct raw_codec no_codec;
    static const struct raw_pay no_pay;
    MEED_TRY(resolve_training(path, raw->training ? raw->training : &no_training, &file->plan));
    MEED_TRY(resolve_codec(path, raw->codec ? raw->codec : &no_codec, &file->plan.codec));
    const struct raw_pay *pay = raw->pay ? raw->pay : &no_pay;
    file->rule = (enum meed_pay_rule)GIVEN(pay->rule, (int)MEED_PAY_SHRUNK);
    file->method = (enum meed_value_method)GIVEN(
        pay->method, raw->simulate ? (int)MEED_VALUE_AUTO : (int)MEED_VALUE_EXACT);
    file->path = (enum meed_coalition_path)GIVEN(pay->path, (int)MEED_PATH_AUTO);
    NUMBER("clip", raw->clip, 2, 0, 1e6, file->clip_multiple);
    WHOLE("pay.bootstrap", pay->bootstrap, 1000, 10, 1000000, file->bootstrap);
    NUMBER("pay.guard_z", pay->guard_z, 2.576, 0, 100, file->guard_z);
    NUMBER("pay.reputation", pay->reputation, 0, 0, MEED_PAYMENT_MAX_REPUTATION, file->reputation);
    NUMBER("pay.floor", pay->floor, 0, 0, 1, file->pay_floor);
    MEED_TRY(resolve_defence(path, raw->defence, file));
    MEED_TRY(resolve_repair(path, folder, raw->repair, file));
    return resolve_merge(path, raw, file);
}

static void name_choices(void)
{
    for (int i = 0; i < MEED_PAY_RULE_COUNT; i++) {
        rules[i] = (cyaml_strval_t){meed_payment_rule_name((enum meed_pay_rule)i), i};
    }
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        aggregations[i] = (cyaml_strval_t){meed_aggregate_name((enum meed_aggregation)i), i};
    }
    for (int i = 0; i < MEED_WEIGHTING_COUNT; i++) {
        weightings[i] = (cyaml_strval_t){meed_weighting_name((enum meed_weighting)i), i};
    }
    for (int i = 0; i < MEED_SERVER_RULE_COUNT; i++) {
        server_rules[i] = (cyaml_strval_t){meed_server_optimiser_name((enum meed_server_rule)i), i};
    }
}

enum meed_status meed_federation_file_load(const char *path, struct meed_federation_file *file)
{
    if (!meed_file_exists(path)) {
        return MEED_FAIL(MEED_NOT_FOUND, "no file %s", path);
    }
    struct report report = {.line = 0};
    name_choices();
    cyaml_config_t config = {.log_fn = keep_report,
                             .log_ctx = &report,
                             .mem_fn = cyaml_mem,
                             .log_level = CYAML_LOG_ERROR};
    struct raw_file *raw = NULL;
    cyaml_err_t error = cyaml_load_file(path, &config, &file_value, (cyaml_data_t **)&raw, NULL);
    if (error != CYAML_OK) {
        if (!report.sentence[0]) {
            snprintf(report.sentence, sizeof report.sentence, "%s", cyaml_strerror(error));
        }
        return report_fail(path, &report);
    }
    if (!raw) {
        return MEED_FAIL(MEED_CONFIG, "%s is empty; `meed help up` lists its keys", path);
    }
    *file = (struct meed_federation_file){.client_count = 0};
    enum meed_status st = resolve(path, raw, file);
    cyaml_free(&config, &file_value, raw, 0);
    return st;
}

void meed_federation_file_config(const struct meed_federation_file *file,
                                 struct meed_aggregator_config *config)
{
    *config = meed_aggregator_defaults();
    config->model = file->model;
    config->benchmark = file->benchmark;
    config->rounds = file->rounds;
    config->quorum = file->quorum;
    config->deadline_ms = file->deadline_ms;
    config->budget = file->budget;
    config->seed = file->seed;
    config->plan = file->plan;
    config->aggregation = file->aggregation;
    config->clip_multiple = file->clip_multiple;
    memcpy(config->defence, file->defence, sizeof config->defence);
    config->quarantine = file->quarantine;
    config->robust = file->robust;
    config->frozen_rank = file->frozen_rank;
    config->weighting = file->weighting;
    config->sample_cap = file->sample_cap;
    config->server = file->server;
    config->method = file->method;
    config->rule = file->rule;
    config->path = file->path;
    config->bootstrap = file->bootstrap;
    config->guard_z = file->guard_z;
    config->reputation = file->reputation;
    config->pay_floor = file->pay_floor;
    config->threads = file->server_threads;
    config->device = file->device;
}
