/* A network on a device: base weights, a stack of adapters, one forward and one backward.
 *
 * Every linear group holds one dense matrix [W | s∘B] of N rows and K + R columns; activations live
 * in dense buffers [x | T] of the same width, so base and low-rank part are one GEMM (design §1).
 * R stacks the ranks of all modules of the group and of all adapters, padded to a multiple of 8; it
 * is 0 without adapters. One adapter is training and chat; n + 1 adapters with per-row gates are a
 * coalition stack. B of a module stands in the rows of that module only (block structure), zeros
 * elsewhere.
 *
 * Memory: weights are converted from the checkpoint's map when the net is created; activations come
 * from one block measured for `max_rows` and reserved; nothing is allocated afterwards. A net is
 * used by one thread at a time; its ops use the backend's pool.
 */
#ifndef MEED_ENGINE_NET_H
#define MEED_ENGINE_NET_H

#include "engine/adapter.h"
#include "engine/batch.h"
#include "engine/checkpoint.h"
#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_net; /* opaque; internals in engine/net_internal.h */

struct meed_net_options {
    enum meed_dtype dtype; /* of weights and activations */
    /* How the frozen W of every linear group is held. NONE: dense, in dtype. Otherwise in blocks, a
     * half (int8) or a quarter (int4, nf4) of bf16, and unpacked before each product into a scratch
     * of the largest group; results are those of a dense network of the unpacked values, to the
     * bit. Embedding, head, norms and biases stay in dtype: ids gather rows of the one, the other
     * is read in chunks at the end of every pass, and their error would go straight into the
     * logits. */
    enum meed_block_format base;
    int32_t max_rows; /* M of the largest batch */
    int32_t max_sequences;
    bool backward;                              /* keep activations and gradients */
    float dropout;                              /* of the low-rank branch, training only */
    const struct meed_adapter *const *adapters; /* NULL entries not allowed */
    int32_t adapter_count;                      /* 0: plain base */
};

MEED_MUST_CHECK enum meed_status meed_net_create(const struct meed_backend *be,
                                                 const struct meed_checkpoint *checkpoint,
                                                 const struct meed_net_options *options,
                                                 struct meed_net **net);
void meed_net_destroy(struct meed_net *net); /* accepts NULL */
const struct meed_model_config *meed_net_config(const struct meed_net *net);
int64_t meed_net_device_bytes(const struct meed_net *net);

/* Gates of a stack: gates [gate_sets, adapter_count]; sequence i of the next batches uses row
 * batch->gate_set[i] (row 0 if that is NULL). Copied. Not called, or gate_sets
 * 0: all ones. Room is taken here when there are more sets than ever before: gate_sets × Σ R floats
 * over the distinct tail layouts, and as many doubles; batches then take none. */
MEED_MUST_CHECK enum meed_status meed_net_set_gates(struct meed_net *net, const float *gates,
                                                    int32_t gate_sets);
int32_t meed_net_gate_sets(const struct meed_net *net); /* 0: none were set */
/* Overwrites factors of adapter idx (same shape). */
MEED_MUST_CHECK enum meed_status meed_net_set_adapter(struct meed_net *net, int32_t idx,
                                                      const struct meed_adapter *adapter);

/* fp32 masters of a training net's first adapter live in one flat device vector in the order of
 * meed_adapter_to_flat (A then B, module by module). Further adapters take part and stand still. */
int64_t meed_net_master_count(const struct meed_net *net);
/* Rounds masters into A and [W | s∘B] of the first adapter. */
void meed_net_load_masters(struct meed_net *net, const float *masters_dev);

/* Forward over a batch; logprob [loss_rows] fp32 on the host: log p(target). Bit-equal per sequence
 * alone or in any batch. */
MEED_MUST_CHECK enum meed_status meed_net_score(struct meed_net *net,
                                                const struct meed_batch *batch, float *logprob);
/* Forward and backward of Σ_i −weight_i·logprob_i (weight [loss_rows], host). gradients_dev (flat,
 * += ) may be NULL if dgates is given: dgates [gate_sets, adapter_count] fp64 on the host, +=
 * d(Σ weight·logprob)/d gate — the sign of a value, not of a loss. step_key keys the dropout. */
MEED_MUST_CHECK enum meed_status
meed_net_backward(struct meed_net *net, const struct meed_batch *batch, const float *weight,
                  uint64_t step_key, float *logprob, float *gradients_dev, double *dgates);
/* The trainer's backward in two parts. load_batch checks a batch and copies it, its weights and its
 * dropout keys over. enqueue_gradients is ops alone, forward and backward of the loaded batch,
 * gradients_dev +=, the same calls for every batch of as many rows, sequences and loss rows: it may
 * be part of a graph (graph_cache.h). Log-probabilities [loss_rows] stay on the device, at
 * logprobs_dev, until the next pass. */
MEED_MUST_CHECK enum meed_status meed_net_load_batch(struct meed_net *net,
                                                     const struct meed_batch *batch,
                                                     const float *weight, uint64_t step_key);
void meed_net_enqueue_gradients(struct meed_net *net, float *gradients_dev);
const float *meed_net_logprobs_dev(const struct meed_net *net);
/* All logits of a batch, fp32 [M, V] on the host (tests and `meed logits`). */
MEED_MUST_CHECK enum meed_status meed_net_logits(struct meed_net *net,
                                                 const struct meed_batch *batch, float *logits);

/* --- merging (the oracle and the cheap path for few coalitions) ------------------------------ */
/* Rewrites every group of `net` (created with adapter_count 0) as W + Σ_i gates[i]·s_i·B_i·A_i from
 * the stack's base weights and adapters; sums in fp32 in adapter order. UNSUPPORTED with a base in
 * blocks: the merged weights would be dense, the memory that the blocks save, or rounded to blocks
 * again, an error the size of the update. */
MEED_MUST_CHECK enum meed_status meed_net_merge(struct meed_net *net, const struct meed_net *stack,
                                                const float *gates);

MEED_END_C
#endif
