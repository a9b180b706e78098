/* The one table of named parameters: which tensors a model has, their shapes and where they live.
 *
 * Loading, shape checks, adapters, optimiser layout and error messages all walk this table; no
 * other file spells "self_attn.q_proj". Linears that read the same input are one *group* and one
 * GEMM: q, k, v stacked along N, and gate, up. A projection is one adapter module of PEFT.
 */
#ifndef MEED_ENGINE_PARAM_H
#define MEED_ENGINE_PARAM_H

#include <stddef.h>
#include <stdint.h>
#include "engine/model_config.h"

MEED_BEGIN_C

enum meed_proj {
    MEED_PROJ_Q,
    MEED_PROJ_K,
    MEED_PROJ_V,
    MEED_PROJ_O,
    MEED_PROJ_GATE,
    MEED_PROJ_UP,
    MEED_PROJ_DOWN,
    MEED_PROJ_COUNT
};
enum meed_group {
    MEED_GROUP_QKV,
    MEED_GROUP_O,
    MEED_GROUP_GATE_UP,
    MEED_GROUP_DOWN,
    MEED_GROUP_COUNT
};

struct meed_proj_info {
    const char *short_name; /* "q_proj": PEFT's target_modules */
    const char *path;       /* "self_attn.q_proj": inside a layer */
    enum meed_group group;
};
extern const struct meed_proj_info meed_proj_infos[MEED_PROJ_COUNT];

/* Set of projections, bit 1 << meed_proj. */
typedef uint32_t meed_proj_set;
enum { MEED_PROJ_ALL = (1 << MEED_PROJ_COUNT) - 1 };
/* "q_proj,v_proj", "all", "attention", "mlp"; ARG names the unknown word. */
MEED_MUST_CHECK enum meed_status meed_proj_set_parse(const char *text, meed_proj_set *set);

int64_t meed_proj_inputs(const struct meed_model_config *config, enum meed_proj proj);  /* K */
int64_t meed_proj_outputs(const struct meed_model_config *config, enum meed_proj proj); /* N */
int64_t meed_group_inputs(const struct meed_model_config *config, enum meed_group group);
int64_t meed_group_outputs(const struct meed_model_config *config, enum meed_group group);
/* First row of proj inside its group's output. */
int64_t meed_proj_row_begin(const struct meed_model_config *config, enum meed_proj proj);

/* What a checkpoint holds, by role. The kinds from INPUT_NORM on come once a layer; WEIGHT and BIAS
 * once a layer and projection. */
enum meed_param_kind {
    MEED_PARAM_EMBED,
    MEED_PARAM_HEAD,
    MEED_PARAM_FINAL_NORM,
    MEED_PARAM_INPUT_NORM,
    MEED_PARAM_FFN_NORM,
    MEED_PARAM_ATTENTION_OUT_NORM,
    MEED_PARAM_FFN_OUT_NORM,
    MEED_PARAM_Q_NORM,
    MEED_PARAM_K_NORM,
    MEED_PARAM_WEIGHT,
    MEED_PARAM_BIAS,
    MEED_PARAM_KIND_COUNT
};

struct meed_param {
    char name[96]; /* "model.layers.3.self_attn.q_proj.weight" */
    int32_t dims;
    int64_t shape[2];
};

/* False if a model of this configuration has no such parameter (a tied head, biases of a Llama).
 * layer and proj are ignored by kinds that do not repeat. */
bool meed_param_describe(const struct meed_model_config *config, enum meed_param_kind kind,
                         int32_t layer, enum meed_proj proj, struct meed_param *param);
/* The same by running number, for walks over the whole model: idx from 0 until it answers false;
 * `present` tells whether the model has the parameter. */
bool meed_param_walk(const struct meed_model_config *config, int64_t idx, bool *present,
                     struct meed_param *param);

MEED_END_C
#endif
