/* A LoRA adapter in host memory: fp32 factors by layer and projection, PEFT directories in and out.
 *
 * ΔW = scale·B·A with A [r, K], B [N, r] (Hu et al. 2021); scale is alpha/r, or alpha/√r with
 * rslora. Modules are sorted by (layer, projection), so equal adapters serialise to equal bytes;
 * the SHA-256 of those bytes is the adapter's name on the wire, in the ledger and in blob storage.
 * Directories are PEFT's: adapter_config.json + adapter_model.safetensors, F32, keys
 * base_model.model.model.layers.{i}.{path}.lora_{A,B}.weight; different ranks go to rank_pattern.
 * Refused by name on load: use_dora, modules_to_save, bias other than none, embeddings.
 */
#ifndef MEED_ENGINE_ADAPTER_H
#define MEED_ENGINE_ADAPTER_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "engine/param.h"

MEED_BEGIN_C

struct meed_lora_config {
    int32_t rank;
    float alpha;
    bool rslora;
    float dropout;
    meed_proj_set targets;
};

struct meed_adapter_module {
    int32_t layer;
    enum meed_proj proj;
    int64_t k, n, r;
    float scale; /* s of ΔW = s·B·A */
    float *a;    /* [r, K] */
    float *b;    /* [N, r] */
};

struct meed_adapter {
    struct meed_arena arena;      /* owns everything below */
    struct meed_lora_config lora; /* of a uniform adapter; rank = largest otherwise */
    int32_t layers;               /* L of the model, adapted or not */
    int32_t module_count;
    struct meed_adapter_module *modules; /* sorted by (layer, proj) */
};

enum {
    MEED_ADAPTER_MAX_RANK = 1024,
    MEED_ADAPTER_MAX_FILE_BYTES = 1 << 30,
    MEED_ADAPTER_NAME_BYTES = 48
};

/* Zero factors of the given shape. */
MEED_MUST_CHECK enum meed_status meed_adapter_create(const struct meed_model_config *model,
                                                     const struct meed_lora_config *lora,
                                                     struct meed_adapter **adapter);
/* A uniform in ±√(3/K)·√(2/6) as PEFT's kaiming_uniform(√5), i.e. ±1/√K; B zero. */
void meed_adapter_init(struct meed_adapter *adapter, uint64_t seed);
/* Same shape, same values. */
MEED_MUST_CHECK enum meed_status meed_adapter_clone(const struct meed_adapter *source,
                                                    struct meed_adapter **adapter);
/* Shape with per-module ranks (aggregation `stack`): ranks [module_count of like]. */
MEED_MUST_CHECK enum meed_status meed_adapter_create_like(const struct meed_adapter *like,
                                                          const int64_t *ranks,
                                                          struct meed_adapter **adapter);
void meed_adapter_destroy(struct meed_adapter *adapter); /* accepts NULL */
/* NULL if the module is not adapted. */
const struct meed_adapter_module *meed_adapter_find(const struct meed_adapter *adapter,
                                                    int32_t layer, enum meed_proj proj);
bool meed_adapter_same_shape(const struct meed_adapter *x, const struct meed_adapter *y);
/* Bit for bit. */
bool meed_adapter_equal(const struct meed_adapter *x, const struct meed_adapter *y);
/* Floats in all factors. The flat order is module by module, A then B. */
int64_t meed_adapter_value_count(const struct meed_adapter *adapter);
void meed_adapter_to_flat(const struct meed_adapter *adapter, float *values);
void meed_adapter_from_flat(struct meed_adapter *adapter, const float *values);
/* values += delta in flat order. A zero in delta leaves the value's bits alone (−0 included), so an
 * adapter plus an empty update equals that adapter bit for bit. */
void meed_adapter_add_flat(struct meed_adapter *adapter, const float *delta);
/* "layers.3.q.A": the name of a factor in an update's layout; factor is 'A' or 'B'. */
void meed_adapter_tensor_name(const struct meed_adapter_module *module, char factor,
                              char name[MEED_ADAPTER_NAME_BYTES]);

/* adapter_model.safetensors bytes, and back. `name` appears in messages. Scale and rank come from
 * config text (adapter_config.json). */
MEED_MUST_CHECK enum meed_status meed_adapter_to_safetensors(const struct meed_adapter *adapter,
                                                             struct meed_buf *bytes);
MEED_MUST_CHECK enum meed_status meed_adapter_config_json(const struct meed_adapter *adapter,
                                                          const char *base_model,
                                                          struct meed_buf *text);
MEED_MUST_CHECK enum meed_status meed_adapter_save(const struct meed_adapter *adapter,
                                                   const char *base_model, const char *folder);
/* Shapes are checked against the model; FORMAT names the module that does not fit. */
MEED_MUST_CHECK enum meed_status meed_adapter_load(const char *folder,
                                                   const struct meed_model_config *model,
                                                   struct meed_adapter **adapter);
/* One self-contained byte string for blobs and downloads: u32 length + config JSON + safetensors;
 * its SHA-256 names the adapter. */
MEED_MUST_CHECK enum meed_status meed_adapter_pack(const struct meed_adapter *adapter,
                                                   struct meed_buf *bytes);
MEED_MUST_CHECK enum meed_status meed_adapter_unpack(const char *name, const void *bytes,
                                                     size_t size,
                                                     const struct meed_model_config *model,
                                                     struct meed_adapter **adapter);
MEED_MUST_CHECK enum meed_status meed_adapter_hash(const struct meed_adapter *adapter,
                                                   uint8_t hash[MEED_SHA256_BYTES]);

MEED_END_C
#endif
