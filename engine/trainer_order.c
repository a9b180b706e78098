/* See trainer_order.h. */
#include "engine/trainer_order.h"

#include "base/rng.h"

static int32_t scored_tokens(const struct meed_sequence *sequence)
{
    int32_t scored = 0;
    for (int32_t t = 1; t < sequence->length; t++) {
        scored += sequence->scored[t] != 0;
    }
    return scored;
}

static enum meed_status check_data(const struct meed_sequence *data, int64_t count,
                                   int32_t batch_tokens)
{
    if (count < 1) {
        return MEED_FAIL(MEED_ARG, "there is nothing to train on: the data holds no dialogue");
    }
    for (int64_t i = 0; i < count; i++) {
        if (data[i].length - 1 > batch_tokens) {
            return MEED_FAIL(MEED_LIMIT,
                             "sequence %lld has %d tokens, a batch takes %d; raise batch tokens",
                             (long long)i + 1, data[i].length, batch_tokens);
        }
        if (data[i].length < 2 || scored_tokens(&data[i]) == 0) {
            return MEED_FAIL(MEED_ARG,
                             "sequence %lld has no token to learn; every dialogue needs an "
                             "assistant's answer",
                             (long long)i + 1);
        }
    }
    return MEED_OK;
}

enum meed_status meed_trainer_order_init(struct meed_trainer_order *order,
                                         const struct meed_sequence *data, int64_t count,
                                         int32_t batch_tokens, uint64_t seed)
{
    MEED_TRY(check_data(data, count, batch_tokens));
    struct meed_trainer_order made = {
        .data = data, .count = count, .seed = seed, .batch_tokens = batch_tokens, .epoch = -1};
    made.order = meed_heap_alloc((size_t)count, sizeof *made.order);
    if (!made.order) {
        return MEED_NOMEM;
    }
    *order = made;
    return MEED_OK;
}

void meed_trainer_order_clear(struct meed_trainer_order *order)
{
    meed_heap_free(order->order);
    order->order = NULL;
}

int32_t meed_trainer_order_max_sequences(const struct meed_trainer_order *order)
{
    return (int32_t)MEED_MIN(order->count, (int64_t)order->batch_tokens);
}

static const struct meed_sequence *sequence_at(struct meed_trainer_order *order, int64_t position)
{
    int64_t epoch = position / order->count;
    if (epoch != order->epoch) {
        struct meed_rng rng = meed_rng_stream(order->seed, "data order", (uint64_t)epoch);
        for (int64_t i = 0; i < order->count; i++) {
            order->order[i] = i;
        }
        meed_rng_shuffle(&rng, order->order, order->count);
        order->epoch = epoch;
    }
    return &order->data[order->order[position % order->count]];
}

void meed_trainer_order_take(struct meed_trainer_order *order, int64_t *position,
                             struct meed_batch *batch, struct meed_trainer_take *take)
{
    struct meed_trainer_take sum = {0, 0, 0};
    int32_t most = meed_trainer_order_max_sequences(order);
    if (batch) {
        meed_batch_reset(batch);
    }
    while (sum.sequences < most) {
        const struct meed_sequence *next = sequence_at(order, *position);
        if (sum.rows + next->length - 1 > order->batch_tokens) {
            break;
        }
        if (batch) {
            MEED_ASSERT(meed_batch_add(batch, next, 0));
        }
        sum.sequences++;
        sum.rows += next->length - 1;
        sum.scored += scored_tokens(next);
        ++*position;
    }
    *take = sum;
}
