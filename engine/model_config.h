/* What config.json says, checked: every number the forward pass depends on.
 *
 * The forward pass is driven by this struct, never by a family name: a family is only how the file
 * is read (Hugging Face spells the same thing in several ways; transformers 4 and 5 differ). Keys
 * that change the mathematics and are not implemented are refused by name with MEED_UNSUPPORTED,
 * because a model that loads and computes something else is worse than one that does not load.
 * Families: LlamaForCausalLM (Llama 2/3.x, SmolLM2), MistralForCausalLM, Qwen2ForCausalLM (2, 2.5),
 * Qwen3ForCausalLM, Gemma3ForCausalLM (text).
 */
#ifndef MEED_ENGINE_MODEL_CONFIG_H
#define MEED_ENGINE_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "kernels/backend.h"

MEED_BEGIN_C

enum meed_rope_kind { MEED_ROPE_DEFAULT, MEED_ROPE_LINEAR, MEED_ROPE_LLAMA3 };

enum { MEED_MODEL_MAX_EOS = 8, MEED_MODEL_MAX_LAYERS = 1024 };

struct meed_model_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    int32_t hidden;        /* K of most linears */
    int32_t ffn;           /* F */
    int32_t layers;        /* L */
    int32_t heads;         /* H */
    int32_t kv_heads;      /* G */
    int32_t head_dim;      /* D */
    int32_t vocab;         /* V */
    int32_t max_positions;
    float rms_eps;
    bool tied;      /* lm_head is the embedding */
    bool qkv_bias;  /* Qwen2 */
    bool qk_norm;   /* Qwen3, Gemma 3 */
    bool out_norms; /* attention and feed-forward are normalised once more before they are added */
    bool norm_plus_one; /* norms multiply by 1 + weight (Gemma) */
    bool embed_scaled;  /* embeddings times √hidden, rounded to the model's dtype (Gemma) */
    enum meed_glu glu;
    float attention_scale;                              /* D^-1/2 or query_pre_attn_scalar^-1/2 */
    int32_t window;                                     /* keys a query sees in windowed layers */
    uint32_t window_layers[MEED_MODEL_MAX_LAYERS / 32]; /* bit i: layer i is one */
    enum meed_rope_kind rope;
    double rope_theta;
    double rope_local_theta; /* of windowed layers, unscaled; 0: they turn as the others do */
    double rope_factor;      /* linear and llama3 */
    double rope_low_freq;    /* llama3 */
    double rope_high_freq;
    int32_t rope_original_positions;
    int32_t bos;                     /* -1: none */
    int32_t eos[MEED_MODEL_MAX_EOS]; /* of generation_config.json where present, else config.json */
    int32_t eos_count;
};

/* Reads DIR/config.json (and generation_config.json where present). */
MEED_MUST_CHECK enum meed_status meed_model_config_load(const char *folder,
                                                        struct meed_model_config *config);
/* The same from text; `name` appears in error messages. */
MEED_MUST_CHECK enum meed_status meed_model_config_parse(const char *name, const char *text,
                                                         size_t size,
                                                         struct meed_model_config *config);
static inline bool meed_model_config_windowed(const struct meed_model_config *config, int32_t layer)
{
    return (config->window_layers[layer / 32] >> (layer % 32) & 1u) != 0;
}
/* cos and sin of every position and pair, [positions, D/2] fp32, computed in fp64: of the model, or
 * of its windowed layers where those have a table of their own. */
void meed_model_config_rope(const struct meed_model_config *config, bool local, int32_t positions,
                            float *cosines, float *sines);

MEED_END_C
#endif
