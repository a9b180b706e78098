/* See model_config.h. One reader for all families.
 *
 * Every key that transformers itself reads for these architectures is either read here or checked
 * to be without effect; the family table says only what a file does *not* say (Qwen2's biases,
 * Qwen3's head norms). The rope keys come in three spellings: `rope_parameters` (transformers 5),
 * and `rope_theta` with `rope_scaling` (4), where the kind is `rope_type` or, older, `type`.
 */
#include "engine/model_config.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"

enum { MAX_CONFIG_BYTES = 4 << 20, MAX_DIM = 1 << 24 };

/* When a model has windowed layers. */
enum windows {
    WINDOWS_NEVER,
    WINDOWS_WITH_SIZE, /* every layer, if sliding_window is there (Mistral) */
    WINDOWS_ON_DEMAND, /* if use_sliding_window: the layers from max_window_layers on (Qwen) */
    WINDOWS_IN_TURN    /* all but every sixth layer (Gemma 3) */
};
struct family {
    const char *architecture;
    const char *model_type;
    enum windows windows;
    bool qkv_bias;
    bool qk_norm;
    bool gemma; /* Gemma's norms, embeddings, activation, scale and rotations */
};
static const struct family families[] = {
    {"LlamaForCausalLM", "llama", WINDOWS_NEVER, false, false, false},
    {"MistralForCausalLM", "mistral", WINDOWS_WITH_SIZE, false, false, false},
    {"Qwen2ForCausalLM", "qwen2", WINDOWS_ON_DEMAND, true, false, false},
    {"Qwen3ForCausalLM", "qwen3", WINDOWS_ON_DEMAND, false, true, false},
    {"Gemma3ForCausalLM", "gemma3_text", WINDOWS_IN_TURN, false, true, true},
};

/* The document being read and the name that its messages carry. */
struct reader {
    const char *name;
    const json_t *root;
};

/* A present, non-null member. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static enum meed_status read_int(const struct reader *in, const char *key, int64_t fallback,
                                 int64_t max, int32_t *value)
{
    const json_t *found = member(in->root, key);
    if (!found) {
        if (fallback < 0) {
            return MEED_FAIL(MEED_FORMAT, "%s: '%s' is missing; the model cannot be sized without",
                             in->name, key);
        }
        *value = (int32_t)fallback;
        return MEED_OK;
    }
    if (!json_is_integer(found) || json_integer_value(found) < 1 ||
        json_integer_value(found) > max) {
        return MEED_FAIL(MEED_FORMAT, "%s: '%s' must be a whole number from 1 to %lld", in->name,
                         key, (long long)max);
    }
    *value = (int32_t)json_integer_value(found);
    return MEED_OK;
}

static enum meed_status read_number(const struct reader *in, const json_t *object, const char *key,
                                    double fallback, double *value)
{
    const json_t *found = member(object, key);
    if (!found) {
        if (fallback <= 0) {
            return MEED_FAIL(MEED_FORMAT, "%s: '%s' is missing", in->name, key);
        }
        *value = fallback;
        return MEED_OK;
    }
    double number = json_number_value(found);
    if (!json_is_number(found) || !isfinite(number) || number <= 0) {
        return MEED_FAIL(MEED_FORMAT, "%s: '%s' must be a positive number", in->name, key);
    }
    *value = number;
    return MEED_OK;
}

static enum meed_status read_bool(const struct reader *in, const char *key, bool fallback,
                                  bool *value)
{
    const json_t *found = member(in->root, key);
    if (found && !json_is_boolean(found)) {
        return MEED_FAIL(MEED_FORMAT, "%s: '%s' must be true or false", in->name, key);
    }
    *value = found ? json_is_true(found) : fallback;
    return MEED_OK;
}

static enum meed_status find_family(const struct reader *in, struct meed_model_config *config,
                                    const struct family **family)
{
    const json_t *list = member(in->root, "architectures");
    const char *architecture = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(member(in->root, "model_type"));
    for (size_t i = 0; i < MEED_COUNT(families); i++) {
        if (architecture ? strcmp(architecture, families[i].architecture) == 0
                         : type && strcmp(type, families[i].model_type) == 0) {
            *family = &families[i];
            snprintf(config->architecture, sizeof config->architecture, "%s",
                     families[i].architecture);
            return MEED_OK;
        }
    }
    const char *stranger = architecture ? architecture : type ? type : "(none)";
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "%s: architecture '%.64s' is not supported; Meed runs LlamaForCausalLM, "
                     "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM and Gemma3ForCausalLM",
                     in->name, stranger);
}

static enum meed_status read_sizes(const struct reader *in, const struct family *family,
                                   struct meed_model_config *config)
{
    /* A Gemma's heads have 256 columns unless the file says otherwise, whatever hidden is. */
    bool sized = family->gemma || member(in->root, "head_dim");
    MEED_TRY(read_int(in, "hidden_size", -1, MAX_DIM, &config->hidden));
    MEED_TRY(read_int(in, "intermediate_size", -1, MAX_DIM, &config->ffn));
    MEED_TRY(read_int(in, "num_hidden_layers", -1, MEED_MODEL_MAX_LAYERS, &config->layers));
    MEED_TRY(read_int(in, "num_attention_heads", -1, 4096, &config->heads));
    MEED_TRY(read_int(in, "num_key_value_heads", config->heads, 4096, &config->kv_heads));
    MEED_TRY(read_int(in, "vocab_size", -1, MAX_DIM, &config->vocab));
    MEED_TRY(read_int(in, "max_position_embeddings", 2048, MAX_DIM, &config->max_positions));
    if (!sized && config->hidden % config->heads != 0) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: hidden_size %d is not a multiple of num_attention_heads %d and "
                         "'head_dim' is missing",
                         in->name, config->hidden, config->heads);
    }
    int32_t usual = family->gemma ? 256 : MEED_MAX(config->hidden / config->heads, 1);
    MEED_TRY(read_int(in, "head_dim", usual, 1024, &config->head_dim));
    if (config->heads % config->kv_heads != 0) {
        return MEED_FAIL(MEED_FORMAT, "%s: %d query heads cannot share %d key/value heads",
                         in->name, config->heads, config->kv_heads);
    }
    if (config->head_dim % 2 != 0) {
        return MEED_FAIL(MEED_UNSUPPORTED, "%s: head_dim %d is odd; rotary pairs need an even one",
                         in->name, config->head_dim);
    }
    double eps = 0;
    MEED_TRY(read_number(in, in->root, "rms_norm_eps", 1e-6, &eps));
    config->rms_eps = (float)eps;
    if (!(config->rms_eps > 0) || config->rms_eps >= 1.0f) {
        return MEED_FAIL(MEED_FORMAT, "%s: rms_norm_eps %g is no small positive number in fp32",
                         in->name, eps);
    }
    return MEED_OK;
}

/* Keys whose effect Meed does not compute: absent, null or without effect, else refused by name. */
static enum meed_status refuse_strangers(const struct reader *in, const struct family *family)
{
    static const char *const must_be_false[] = {"mlp_bias", "attention_bias",
                                                "use_bidirectional_attention"};
    static const char *const must_be_absent[] = {
        "quantization_config", "attn_logit_softcapping", "final_logit_softcapping",
        "logit_scale",         "num_local_experts",      "query_pre_attn_scalar"};
    /* The last of them is Gemma's own. */
    size_t absent = MEED_COUNT(must_be_absent) - (family->gemma ? 1 : 0);
    for (size_t i = 0; i < MEED_COUNT(must_be_false); i++) {
        bool on = false;
        MEED_TRY(read_bool(in, must_be_false[i], false, &on));
        if (on) {
            return MEED_FAIL(MEED_UNSUPPORTED, "%s: '%s': true is not supported", in->name,
                             must_be_false[i]);
        }
    }
    for (size_t i = 0; i < absent; i++) {
        if (member(in->root, must_be_absent[i])) {
            return MEED_FAIL(MEED_UNSUPPORTED,
                             "%s: '%s' changes the mathematics and is not supported", in->name,
                             must_be_absent[i]);
        }
    }
    return MEED_OK;
}

static enum meed_status read_activation(const struct reader *in, const struct family *family,
                                        struct meed_model_config *config)
{
    static const struct {
        const char *word;
        enum meed_glu glu;
    } words[] = {{"silu", MEED_GLU_SILU},
                 {"swish", MEED_GLU_SILU},
                 {"gelu_pytorch_tanh", MEED_GLU_GELU_TANH}};
    const char *key = family->gemma ? "hidden_activation" : "hidden_act";
    const char *act = json_string_value(member(in->root, key));
    act = act ? act : family->gemma ? "gelu_pytorch_tanh" : "silu";
    for (size_t i = 0; i < MEED_COUNT(words); i++) {
        if (strcmp(act, words[i].word) == 0) {
            config->glu = words[i].glu;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "%s: %s '%.32s' is not supported; silu and gelu_pytorch_tanh are", in->name,
                     key, act);
}

/* --- windows ---------------------------------------------------------------------------------- */

static void set_windowed(struct meed_model_config *config, int32_t layer)
{
    config->window_layers[layer / 32] |= 1u << (layer % 32);
}

/* layer_types, where a file lists them: true if any layer is windowed. */
static enum meed_status read_layer_types(const struct reader *in, const json_t *types,
                                         struct meed_model_config *config, bool *any)
{
    size_t idx;
    const json_t *type;
    if (!json_is_array(types) || json_array_size(types) != (size_t)config->layers) {
        return MEED_FAIL(MEED_FORMAT, "%s: 'layer_types' must list all %d layers", in->name,
                         config->layers);
    }
    json_array_foreach(types, idx, type)
    {
        const char *text = json_string_value(type);
        bool windowed = text && strcmp(text, "sliding_attention") == 0;
        if (!windowed && (!text || strcmp(text, "full_attention") != 0)) {
            return MEED_FAIL(MEED_UNSUPPORTED, "%s: layer_types[%zu] '%.32s' is not supported",
                             in->name, idx, text ? text : "?");
        }
        if (windowed) {
            set_windowed(config, (int32_t)idx);
            *any = true;
        }
    }
    return MEED_OK;
}

/* The layers that a family makes windowed where the file does not list them. */
static enum meed_status derive_layer_types(const struct reader *in, enum windows windows,
                                           struct meed_model_config *config)
{
    int32_t first = 0, every = 0;
    if (windows == WINDOWS_ON_DEMAND) {
        MEED_TRY(read_int(in, "max_window_layers", 28, MEED_MODEL_MAX_LAYERS, &first));
    } else if (windows == WINDOWS_IN_TURN) {
        const char *key = member(in->root, "sliding_window_pattern") ? "sliding_window_pattern"
                                                                     : "_sliding_window_pattern";
        MEED_TRY(read_int(in, key, 6, MEED_MODEL_MAX_LAYERS, &every));
    }
    for (int32_t i = first; i < config->layers; i++) {
        if (every == 0 || (i + 1) % every != 0) {
            set_windowed(config, i);
        }
    }
    return MEED_OK;
}

static enum meed_status read_windows(const struct reader *in, const struct family *family,
                                     struct meed_model_config *config)
{
    bool on = false, listed = false;
    const json_t *types = member(in->root, "layer_types");
    bool sized = member(in->root, "sliding_window") != NULL;
    bool usual = family->windows == WINDOWS_WITH_SIZE || family->windows == WINDOWS_IN_TURN;
    MEED_TRY(read_bool(in, "use_sliding_window", usual, &on));
    if (on && family->windows == WINDOWS_NEVER) {
        return MEED_FAIL(MEED_UNSUPPORTED, "%s: 'use_sliding_window' is not supported in a %s",
                         in->name, family->architecture);
    }
    on = on && (sized || family->windows == WINDOWS_IN_TURN);
    if (types) {
        MEED_TRY(read_layer_types(in, types, config, &listed));
    }
    if (listed && !on) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: 'layer_types' has sliding_attention, but no 'sliding_window' is in "
                         "force",
                         in->name);
    }
    if (!on) {
        return MEED_OK;
    }
    MEED_TRY(read_int(in, "sliding_window", 4096, MAX_DIM, &config->window));
    return types ? MEED_OK : derive_layer_types(in, family->windows, config);
}

/* --- rotations -------------------------------------------------------------------------------- */

static enum meed_status read_llama3(const struct reader *in, const json_t *rope,
                                    struct meed_model_config *config)
{
    double original = 0;
    MEED_TRY(read_number(in, rope, "low_freq_factor", 0, &config->rope_low_freq));
    MEED_TRY(read_number(in, rope, "high_freq_factor", 0, &config->rope_high_freq));
    MEED_TRY(read_number(in, rope, "original_max_position_embeddings", 0, &original));
    if (config->rope_high_freq <= config->rope_low_freq || original > MAX_DIM) {
        return MEED_FAIL(MEED_FORMAT, "%s: llama3 rope needs high_freq_factor > low_freq_factor",
                         in->name);
    }
    config->rope_original_positions = (int32_t)original;
    return MEED_OK;
}

/* Gemma 3: windowed layers have a base of their own. Version 5 nests both by kind of layer; then
 * `*global` becomes that of the others. */
static enum meed_status read_local_rope(const struct reader *in, const json_t **global,
                                        struct meed_model_config *config)
{
    const json_t *local = member(*global, "sliding_attention");
    if (!local) {
        return read_number(in, in->root, "rope_local_base_freq", 10000.0,
                           &config->rope_local_theta);
    }
    const char *kind = json_string_value(member(local, "rope_type"));
    if (kind && strcmp(kind, "default") != 0) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "%s: rope_type '%.32s' of sliding_attention is not supported", in->name,
                         kind);
    }
    *global = member(*global, "full_attention");
    return read_number(in, local, "rope_theta", 10000.0, &config->rope_local_theta);
}

static enum meed_status read_rope(const struct reader *in, const struct family *family,
                                  struct meed_model_config *config)
{
    const json_t *rope = member(in->root, "rope_parameters");
    const json_t *scaling = rope ? rope : member(in->root, "rope_scaling");
    if (scaling && !json_is_object(scaling)) {
        return MEED_FAIL(MEED_FORMAT, "%s: the rope parameters must be an object", in->name);
    }
    if (family->gemma) {
        MEED_TRY(read_local_rope(in, &scaling, config));
    }
    const json_t *theta_home = member(scaling, "rope_theta") ? scaling : in->root;
    MEED_TRY(read_number(in, theta_home, "rope_theta", family->gemma ? 1e6 : 10000.0,
                         &config->rope_theta));
    double partial = 1;
    const json_t *partial_home = member(scaling, "partial_rotary_factor") ? scaling : in->root;
    MEED_TRY(read_number(in, partial_home, "partial_rotary_factor", 1.0, &partial));
    if (partial < 1.0 || partial > 1.0) {
        return MEED_FAIL(MEED_UNSUPPORTED, "%s: partial_rotary_factor %g is not supported",
                         in->name, partial);
    }
    config->rope_factor = 1.0;
    const json_t *kind = member(scaling, "rope_type");
    kind = kind ? kind : member(scaling, "type");
    const char *text = kind ? json_string_value(kind) : "default";
    if (text && strcmp(text, "default") == 0) {
        config->rope = MEED_ROPE_DEFAULT;
        return MEED_OK;
    }
    if (text && strcmp(text, "linear") == 0) {
        config->rope = MEED_ROPE_LINEAR;
        return read_number(in, scaling, "factor", 0, &config->rope_factor);
    }
    if (text && strcmp(text, "llama3") == 0) {
        config->rope = MEED_ROPE_LLAMA3;
        MEED_TRY(read_number(in, scaling, "factor", 0, &config->rope_factor));
        return read_llama3(in, scaling, config);
    }
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "%s: rope_type '%.32s' is not supported; Meed knows default, linear and "
                     "llama3",
                     in->name, text ? text : "?");
}

/* A token id, or nothing: out of range values are errors, null and absence are not. */
static enum meed_status read_token(const struct reader *in, const char *key, const json_t *value,
                                   int32_t vocab, int32_t *id)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= vocab) {
        return MEED_FAIL(MEED_FORMAT, "%s: '%s' must be token ids below vocab_size %d", in->name,
                         key, vocab);
    }
    *id = (int32_t)json_integer_value(value);
    return MEED_OK;
}

static enum meed_status read_eos(const struct reader *in, struct meed_model_config *config)
{
    const json_t *eos = member(in->root, "eos_token_id");
    if (!eos) {
        return MEED_OK;
    }
    size_t count = json_is_array(eos) ? json_array_size(eos) : 1;
    if (count > MEED_MODEL_MAX_EOS) {
        return MEED_FAIL(MEED_LIMIT, "%s: %zu end tokens; at most %d are supported", in->name,
                         count, MEED_MODEL_MAX_EOS);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_array(eos) ? json_array_get(eos, i) : eos;
        MEED_TRY(read_token(in, "eos_token_id", one, config->vocab, &config->eos[i]));
    }
    config->eos_count = (int32_t)count;
    return MEED_OK;
}

static enum meed_status read_all(const struct reader *in, struct meed_model_config *config)
{
    const struct family *family = NULL;
    double scalar = 0;
    MEED_TRY(find_family(in, config, &family));
    MEED_TRY(refuse_strangers(in, family));
    MEED_TRY(read_sizes(in, family, config));
    MEED_TRY(read_activation(in, family, config));
    MEED_TRY(read_windows(in, family, config));
    MEED_TRY(read_rope(in, family, config));
    MEED_TRY(read_bool(in, "tie_word_embeddings", family->gemma, &config->tied));
    MEED_TRY(read_number(in, in->root, "query_pre_attn_scalar",
                         family->gemma ? 256.0 : config->head_dim, &scalar));
    config->attention_scale = (float)(1.0 / sqrt(scalar));
    config->qkv_bias = family->qkv_bias;
    config->qk_norm = family->qk_norm;
    config->out_norms = config->norm_plus_one = config->embed_scaled = family->gemma;
    config->bos = -1;
    if (member(in->root, "bos_token_id")) {
        MEED_TRY(read_token(in, "bos_token_id", member(in->root, "bos_token_id"), config->vocab,
                            &config->bos));
    }
    return read_eos(in, config);
}

static enum meed_status load_json(const char *name, const char *text, size_t size, json_t **root)
{
    json_error_t error;
    json_t *parsed = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!parsed) {
        return MEED_FAIL(MEED_FORMAT, "%s, line %d: %s", name, error.line, error.text);
    }
    if (!json_is_object(parsed)) {
        json_decref(parsed);
        return MEED_FAIL(MEED_FORMAT, "%s: a JSON object was expected", name);
    }
    *root = parsed;
    return MEED_OK;
}

enum meed_status meed_model_config_parse(const char *name, const char *text, size_t size,
                                         struct meed_model_config *config)
{
    json_t *root = NULL;
    MEED_TRY(load_json(name, text, size, &root));
    struct meed_model_config parsed = {.bos = -1};
    struct reader in = {name, root};
    enum meed_status st = read_all(&in, &parsed);
    json_decref(root);
    if (st == MEED_OK) {
        *config = parsed;
    }
    return st;
}

/* generation_config.json is where chat models list all their end tokens; its absence is normal. */
static enum meed_status read_generation(const char *folder, struct meed_model_config *config)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    json_t *root = NULL;
    char path[MEED_PATH_BYTES];
    meed_buf_init(&text, MAX_CONFIG_BYTES);
    MEED_TRY_OUT(meed_file_join(folder, "generation_config.json", path, sizeof path));
    if (!meed_file_exists(path)) {
        goto out;
    }
    MEED_TRY_OUT(meed_file_read(path, &text));
    MEED_TRY_OUT(load_json(path, text.data ? text.data : "", text.size, &root));
    struct reader in = {path, root};
    MEED_TRY_OUT(read_eos(&in, config));
out:
    json_decref(root);
    meed_buf_clear(&text);
    return st;
}

enum meed_status meed_model_config_load(const char *folder, struct meed_model_config *config)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    char path[MEED_PATH_BYTES];
    struct meed_model_config loaded;
    meed_buf_init(&text, MAX_CONFIG_BYTES);
    MEED_TRY_OUT(meed_file_join(folder, "config.json", path, sizeof path));
    MEED_TRY_OUT(meed_file_read(path, &text));
    MEED_TRY_OUT(meed_model_config_parse(path, text.data ? text.data : "", text.size, &loaded));
    MEED_TRY_OUT(read_generation(folder, &loaded));
    *config = loaded;
out:
    meed_buf_clear(&text);
    return st;
}

/* Llama 3's rule: long waves are slowed by the factor, short ones stay, those between are blended
 * by how often they turn within the original context. */
static double scaled_frequency(const struct meed_model_config *config, double frequency)
{
    if (config->rope == MEED_ROPE_LINEAR) {
        return frequency / config->rope_factor;
    }
    if (config->rope == MEED_ROPE_DEFAULT) {
        return frequency;
    }
    const double tau = 6.283185307179586476925286766559;
    double turns = config->rope_original_positions * frequency / tau;
    if (turns < config->rope_low_freq) {
        return frequency / config->rope_factor;
    }
    if (turns > config->rope_high_freq) {
        return frequency;
    }
    double blend =
        (turns - config->rope_low_freq) / (config->rope_high_freq - config->rope_low_freq);
    return (1.0 - blend) * frequency / config->rope_factor + blend * frequency;
}

void meed_model_config_rope(const struct meed_model_config *config, bool local, int32_t positions,
                            float *cosines, float *sines)
{
    bool plain = local && config->rope_local_theta > 0;
    int32_t pairs = config->head_dim / 2;
    for (int32_t pair = 0; pair < pairs; pair++) {
        double exponent = -2.0 * pair / config->head_dim;
        double frequency = plain ? pow(config->rope_local_theta, exponent)
                                 : scaled_frequency(config, pow(config->rope_theta, exponent));
        for (int32_t position = 0; position < positions; position++) {
            size_t at = (size_t)position * (size_t)pairs + (size_t)pair;
            cosines[at] = (float)cos(position * frequency);
            sines[at] = (float)sin(position * frequency);
        }
    }
}
