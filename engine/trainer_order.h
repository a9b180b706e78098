/* Which sequences a step sees: an endless stream of shuffled epochs, cut into micro-batches.
 *
 * Position p of the stream is entry p mod n of epoch p / n, and the order of an epoch is a pure
 * function of (seed, epoch): nothing has to be replayed to continue anywhere. A micro-batch takes
 * the stream's next sequences, in order, while they fit into batch_tokens rows, and never more
 * sequences than the data holds: a client whose data fits into one batch trains on all of it once a
 * step instead of on copies. Order is never bent to fill a batch better; packed sequences leave at
 * most one sequence's rows unused.
 */
#ifndef MEED_ENGINE_TRAINER_ORDER_H
#define MEED_ENGINE_TRAINER_ORDER_H

#include "engine/batch.h"

MEED_BEGIN_C

struct meed_trainer_order {
    const struct meed_sequence *data; /* borrowed */
    int64_t count;
    uint64_t seed;
    int32_t batch_tokens;
    int64_t epoch;  /* of `order`; -1: none yet */
    int64_t *order; /* [count] */
};

MEED_MUST_CHECK enum meed_status meed_trainer_order_init(struct meed_trainer_order *order,
                                                         const struct meed_sequence *data,
                                                         int64_t count, int32_t batch_tokens,
                                                         uint64_t seed);
void meed_trainer_order_clear(struct meed_trainer_order *order); /* accepts a zeroed struct */
/* Sequences of one micro-batch at most. */
int32_t meed_trainer_order_max_sequences(const struct meed_trainer_order *order);

struct meed_trainer_take {
    int64_t sequences;
    int64_t rows;
    int64_t scored;
};
/* Takes the next micro-batch from *position on, into `batch` (reset first) unless it is NULL. */
void meed_trainer_order_take(struct meed_trainer_order *order, int64_t *position,
                             struct meed_batch *batch, struct meed_trainer_take *take);

MEED_END_C
#endif
