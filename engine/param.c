/* See param.h. The table of projections, and the arithmetic of shapes that follows from it: every
 * other file asks here how wide a linear is and where it stands inside its group. */
#include "engine/param.h"

#include <stdio.h>
#include <string.h>

const struct meed_proj_info meed_proj_infos[MEED_PROJ_COUNT] = {
    [MEED_PROJ_Q] = {"q_proj", "self_attn.q_proj", MEED_GROUP_QKV},
    [MEED_PROJ_K] = {"k_proj", "self_attn.k_proj", MEED_GROUP_QKV},
    [MEED_PROJ_V] = {"v_proj", "self_attn.v_proj", MEED_GROUP_QKV},
    [MEED_PROJ_O] = {"o_proj", "self_attn.o_proj", MEED_GROUP_O},
    [MEED_PROJ_GATE] = {"gate_proj", "mlp.gate_proj", MEED_GROUP_GATE_UP},
    [MEED_PROJ_UP] = {"up_proj", "mlp.up_proj", MEED_GROUP_GATE_UP},
    [MEED_PROJ_DOWN] = {"down_proj", "mlp.down_proj", MEED_GROUP_DOWN},
};

static const struct {
    const char *word;
    meed_proj_set set;
} set_words[] = {
    {"all", MEED_PROJ_ALL},
    {"attention", 1u << MEED_PROJ_Q | 1u << MEED_PROJ_K | 1u << MEED_PROJ_V | 1u << MEED_PROJ_O},
    {"mlp", 1u << MEED_PROJ_GATE | 1u << MEED_PROJ_UP | 1u << MEED_PROJ_DOWN},
};

static bool same_word(const char *word, const char *text, size_t length)
{
    return strlen(word) == length && memcmp(word, text, length) == 0;
}

/* The projections that one word names, 0 if it names none. */
static meed_proj_set word_set(const char *text, size_t length)
{
    for (size_t i = 0; i < MEED_COUNT(set_words); i++) {
        if (same_word(set_words[i].word, text, length)) {
            return set_words[i].set;
        }
    }
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        if (same_word(meed_proj_infos[proj].short_name, text, length)) {
            return 1u << proj;
        }
    }
    return 0;
}

enum meed_status meed_proj_set_parse(const char *text, meed_proj_set *set)
{
    meed_proj_set found = 0;
    for (const char *word = text;; word++) {
        size_t length = strcspn(word, ",");
        meed_proj_set one = word_set(word, length);
        if (one == 0) {
            return MEED_FAIL(MEED_ARG,
                             "'%.*s' is not a projection; use all, attention, mlp or a list of "
                             "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
                             (int)MEED_MIN(length, (size_t)64), word);
        }
        found |= one;
        word += length;
        if (*word == '\0') {
            break;
        }
    }
    *set = found;
    return MEED_OK;
}

int64_t meed_proj_inputs(const struct meed_model_config *config, enum meed_proj proj)
{
    return meed_group_inputs(config, meed_proj_infos[proj].group);
}

int64_t meed_proj_outputs(const struct meed_model_config *config, enum meed_proj proj)
{
    switch (proj) {
    case MEED_PROJ_Q:
        return (int64_t)config->heads * config->head_dim;
    case MEED_PROJ_K:
    case MEED_PROJ_V:
        return (int64_t)config->kv_heads * config->head_dim;
    case MEED_PROJ_GATE:
    case MEED_PROJ_UP:
        return config->ffn;
    case MEED_PROJ_O:
    case MEED_PROJ_DOWN:
        return config->hidden;
    case MEED_PROJ_COUNT:
        break;
    }
    MEED_ASSERT(!"a projection outside the table");
    return 0;
}

int64_t meed_group_inputs(const struct meed_model_config *config, enum meed_group group)
{
    switch (group) {
    case MEED_GROUP_QKV:
    case MEED_GROUP_GATE_UP:
        return config->hidden;
    case MEED_GROUP_O:
        return (int64_t)config->heads * config->head_dim;
    case MEED_GROUP_DOWN:
        return config->ffn;
    case MEED_GROUP_COUNT:
        break;
    }
    MEED_ASSERT(!"a group outside the table");
    return 0;
}

int64_t meed_group_outputs(const struct meed_model_config *config, enum meed_group group)
{
    int64_t outputs = 0;
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        if (meed_proj_infos[proj].group == group) {
            outputs += meed_proj_outputs(config, (enum meed_proj)proj);
        }
    }
    return outputs;
}

int64_t meed_proj_row_begin(const struct meed_model_config *config, enum meed_proj proj)
{
    int64_t begin = 0;
    for (int before = 0; before < (int)proj; before++) {
        if (meed_proj_infos[before].group == meed_proj_infos[proj].group) {
            begin += meed_proj_outputs(config, (enum meed_proj)before);
        }
    }
    return begin;
}

static bool has_param(const struct meed_model_config *config, enum meed_param_kind kind,
                      enum meed_proj proj)
{
    switch (kind) {
    case MEED_PARAM_HEAD:
        return !config->tied;
    case MEED_PARAM_ATTENTION_OUT_NORM:
    case MEED_PARAM_FFN_OUT_NORM:
        return config->out_norms;
    case MEED_PARAM_Q_NORM:
    case MEED_PARAM_K_NORM:
        return config->qk_norm;
    case MEED_PARAM_BIAS:
        return config->qkv_bias && meed_proj_infos[proj].group == MEED_GROUP_QKV;
    default:
        return true;
    }
}

static const char *const param_paths[MEED_PARAM_KIND_COUNT] = {
    [MEED_PARAM_EMBED] = "model.embed_tokens.weight",
    [MEED_PARAM_HEAD] = "lm_head.weight",
    [MEED_PARAM_FINAL_NORM] = "model.norm.weight",
    [MEED_PARAM_INPUT_NORM] = "input_layernorm.weight",
    [MEED_PARAM_FFN_NORM] = "post_attention_layernorm.weight",
    [MEED_PARAM_ATTENTION_OUT_NORM] = "post_attention_layernorm.weight",
    [MEED_PARAM_FFN_OUT_NORM] = "post_feedforward_layernorm.weight",
    [MEED_PARAM_Q_NORM] = "self_attn.q_norm.weight",
    [MEED_PARAM_K_NORM] = "self_attn.k_norm.weight",
    [MEED_PARAM_WEIGHT] = "weight",
    [MEED_PARAM_BIAS] = "bias",
};

bool meed_param_describe(const struct meed_model_config *config, enum meed_param_kind kind,
                         int32_t layer, enum meed_proj proj, struct meed_param *param)
{
    /* The norm that follows the attention is the feed-forward's own, unless each has one before and
     * one after. */
    const char *path = kind == MEED_PARAM_FFN_NORM && config->out_norms
                           ? "pre_feedforward_layernorm.weight"
                           : param_paths[kind];
    if (!has_param(config, kind, proj)) {
        return false;
    }
    *param = (struct meed_param){.dims = 1, .shape = {config->hidden, 1}};
    if (kind <= MEED_PARAM_FINAL_NORM) {
        snprintf(param->name, sizeof param->name, "%s", path);
    } else if (kind < MEED_PARAM_WEIGHT) {
        snprintf(param->name, sizeof param->name, "model.layers.%d.%s", layer, path);
    } else {
        snprintf(param->name, sizeof param->name, "model.layers.%d.%s.%s", layer,
                 meed_proj_infos[proj].path, path);
    }
    if (kind == MEED_PARAM_EMBED || kind == MEED_PARAM_HEAD) {
        param->dims = 2;
        param->shape[0] = config->vocab;
        param->shape[1] = config->hidden;
    } else if (kind == MEED_PARAM_Q_NORM || kind == MEED_PARAM_K_NORM) {
        param->shape[0] = config->head_dim;
    } else if (kind == MEED_PARAM_BIAS) {
        param->shape[0] = meed_proj_outputs(config, proj);
    } else if (kind == MEED_PARAM_WEIGHT) {
        param->dims = 2;
        param->shape[0] = meed_proj_outputs(config, proj);
        param->shape[1] = meed_proj_inputs(config, proj);
    }
    return true;
}

bool meed_param_walk(const struct meed_model_config *config, int64_t idx, bool *present,
                     struct meed_param *param)
{
    enum { ONCE = MEED_PARAM_INPUT_NORM, NORMS = MEED_PARAM_WEIGHT - MEED_PARAM_INPUT_NORM };
    enum { PER_LAYER = NORMS + 2 * MEED_PROJ_COUNT };
    if (idx < ONCE) {
        *present = meed_param_describe(config, (enum meed_param_kind)idx, 0, MEED_PROJ_Q, param);
        return true;
    }
    int64_t layer = (idx - ONCE) / PER_LAYER;
    int64_t part = (idx - ONCE) % PER_LAYER;
    if (layer >= config->layers) {
        return false;
    }
    enum meed_param_kind kind = (enum meed_param_kind)(MEED_PARAM_INPUT_NORM + part);
    enum meed_proj proj = MEED_PROJ_Q;
    if (part >= NORMS) {
        proj = (enum meed_proj)((part - NORMS) % MEED_PROJ_COUNT);
        kind = part - NORMS < MEED_PROJ_COUNT ? MEED_PARAM_WEIGHT : MEED_PARAM_BIAS;
    }
    *present = meed_param_describe(config, kind, (int32_t)layer, proj, param);
    return true;
}
