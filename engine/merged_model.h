/* A base model and its adapters as one model folder: W + Σ sᵢ·Bᵢ·Aᵢ in Hugging Face layout.
 *
 * What leaves a federation is an adapter; what serves it elsewhere, or starts the next federation,
 * is often a whole model. The weights are those that `meed_net_merge` makes on a device, but for a
 * file: the sum of all adapters, in their order, is taken in float64 and rounded once to the dtype
 * that the tensor has in the checkpoint. So an F32 model answers as base and adapter do but for the
 * order of sums, and a BF16 one holds, weight by weight, the nearest BF16 number. PEFT's
 * merge_and_unload sums in fp32 and rounds anew for every adapter; with one, both agree but for
 * near-ties. What no adapter touches keeps its bytes.
 *
 * A number beyond the dtype (F16 ends at 65504) is NUMERIC with the tensor's name, never infinity.
 */
#ifndef MEED_ENGINE_MERGED_MODEL_H
#define MEED_ENGINE_MERGED_MODEL_H

#include "engine/adapter.h"
#include "engine/checkpoint.h"

MEED_BEGIN_C

/* The weights are one file, held whole in memory while it is made. */
#define MEED_MERGED_MODEL_MAX_BYTES ((size_t)16 << 30)

/* Writes folder/model.safetensors, of all shards one file, and copies config.json and the files of
 * generation, tokenizer and chat template where the base has them. The folder must not exist
 * (STATE), and is made only when its weights are ready. Adapters must be of the checkpoint's shape,
 * as meed_adapter_load makes sure. LIMIT beyond MEED_MERGED_MODEL_MAX_BYTES. */
MEED_MUST_CHECK enum meed_status meed_merged_model_write(const struct meed_checkpoint *checkpoint,
                                                         const struct meed_adapter *const *adapters,
                                                         int32_t count, const char *folder);

MEED_END_C
#endif
