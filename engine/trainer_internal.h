/* The trainer's own struct, shared by its step (trainer.c) and its file (trainer_file.c). */
#ifndef MEED_ENGINE_TRAINER_INTERNAL_H
#define MEED_ENGINE_TRAINER_INTERNAL_H

#include "engine/optimiser.h"
#include "engine/trainer.h"
#include "engine/trainer_order.h"

struct meed_trainer {
    const struct meed_backend *be;
    struct meed_train_options options;
    struct meed_net *net;
    struct meed_batch *batch;
    struct meed_trainer_order order;
    struct meed_optimiser *optimiser;
    int64_t position; /* in the data stream */
    int64_t count;    /* values in all factors */
    int64_t span_count;
    struct meed_optimiser_span *spans; /* what is trained; [span_count] */
    float *masters_dev;                /* [count], as are the next three */
    float *gradients_dev;
    float *start_dev;                    /* FedProx: where the round began */
    float *drift_dev;                    /* FedProx: masters − start */
    float *prox_dev;                     /* FedProx: the constants 1, −1 and mu */
    float *flat_host;                    /* [count]: staging of export, save, resume */
    float *weights;                      /* [batch_tokens] */
    float *logprob;                      /* [batch_tokens] */
    uint8_t identity[MEED_SHA256_BYTES]; /* of model, start, data and options */
    struct meed_collective *collective;  /* NULL: one rank */
    float *part_dev;                     /* [count]: one micro-batch's gradient, among ranks */
};

/* INTEGRITY unless every rank has these bytes. */
MEED_MUST_CHECK enum meed_status meed_trainer_agree(struct meed_trainer *trainer, const void *bytes,
                                                    size_t size);
/* The step's micro-batches, shared (trainer_ranks.c): gradients_dev holds the sum of all on every
 * rank, *loss the sum of −log p over all in micro-batch order; position moves behind them. `weight`
 * is that of every scored row. */
MEED_MUST_CHECK enum meed_status meed_trainer_accumulate(struct meed_trainer *trainer, float weight,
                                                         int64_t *position, double *loss);

/* SHA-256 over everything that decides the bits of step t. */
MEED_MUST_CHECK enum meed_status meed_trainer_identity(const struct meed_checkpoint *checkpoint,
                                                       const struct meed_adapter *start,
                                                       const struct meed_sequence *data,
                                                       int64_t data_count,
                                                       const struct meed_train_options *options,
                                                       uint8_t identity[MEED_SHA256_BYTES]);

#endif
