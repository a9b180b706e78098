/* The trainer's own struct, shared by its step (trainer.c) and its file (trainer_file.c). */
#ifndef MEED_ENGINE_TRAINER_INTERNAL_H
#define MEED_ENGINE_TRAINER_INTERNAL_H

#include "engine/graph_cache.h"
#include "engine/optimiser.h"
#include "engine/trainer.h"
#include "engine/trainer_order.h"

enum { MEED_TRAINER_MICRO_SLOTS = 16 };

struct meed_trainer {
    const struct meed_backend *be;
    struct meed_train_options options;
    struct meed_net *net;
    struct meed_batch *batch;
    struct meed_graph_cache graphs;
    struct meed_trainer_order order;
    struct meed_optimiser *optimiser;
    int64_t position; /* in the data stream */
    int64_t count;    /* values in all factors */
    int64_t span_count;
    struct meed_optimiser_span *spans; /* what is trained; [span_count] */
    float *masters_dev;                /* [count], as are the next three */
    float *gradients_dev;
    float *start_dev;        /* FedProx: where the round began */
    float *drift_dev;        /* FedProx: masters − start */
    float *constants_dev;    /* 1, −1 and mu */
    float *correction_dev;   /* SCAFFOLD: c − c_k */
    float *gradient_sum_dev; /* SCAFFOLD: Σ of the gradients before it */
    float *flat_host;        /* [count]: staging of export, save, resume */
    float *weights;          /* [batch_tokens] */
    float *logprob;          /* [micro_slots, batch_tokens] */
    float *logprob_dev;      /* the same on the device, one behind the other: losses not yet read */
    int32_t micro_slots;
    int32_t held; /* micro-batches in logprob_dev, and the loss rows of each */
    int32_t held_rows[MEED_TRAINER_MICRO_SLOTS];
    float *micro_gradients;              /* what the ops of a micro-batch add onto */
    uint8_t identity[MEED_SHA256_BYTES]; /* of model, start, data and options */
    struct meed_collective *collective;  /* NULL: one rank */
    float *part_dev;                     /* [count]: one micro-batch's gradient, among ranks */
};

/* INTEGRITY unless every rank has these bytes. */
MEED_MUST_CHECK enum meed_status meed_trainer_agree(struct meed_trainer *trainer, const void *bytes,
                                                    size_t size);
/* The step's micro-batches, shared (trainer_ranks.c): gradients_dev holds the sum of all on every
 * rank, *loss the sum of −log p in micro-batch order, without those that are still held on the
 * device; position moves behind them. `weight` is that of every scored row; *launches grows by what
 * ran inside graphs. */
MEED_MUST_CHECK enum meed_status meed_trainer_accumulate(struct meed_trainer *trainer, float weight,
                                                         int64_t *position, double *loss,
                                                         int64_t *launches);
/* Waits for the device and adds the held ones. */
MEED_MUST_CHECK enum meed_status meed_trainer_collect_loss(struct meed_trainer *trainer,
                                                           double *loss);
/* Sequences that a net must take for batches of `sequences` and their padding. */
int32_t meed_trainer_sequence_room(int32_t sequences);

/* SHA-256 over everything that decides the bits of step t. */
MEED_MUST_CHECK enum meed_status meed_trainer_identity(const struct meed_checkpoint *checkpoint,
                                                       const struct meed_adapter *start,
                                                       const struct meed_sequence *data,
                                                       int64_t data_count,
                                                       const struct meed_train_options *options,
                                                       uint8_t identity[MEED_SHA256_BYTES]);

#endif
