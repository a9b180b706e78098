/* A step's micro-batches, on one rank or on many (trainer.h).
 *
 * Alone, backward after backward adds onto one vector of gradients: each value gets one rounded
 * addition a micro-batch, in line (the contract of lora_grad: += a finished sum). Ranks repeat
 * exactly that: each computes the gradient of its micro-batch onto zeros, and the collective adds
 * the parts in line. The last round of a step may have fewer micro-batches than ranks; who has none
 * adds nothing and gets the sum all the same.
 *
 * Each rank walks the whole data order, which costs microseconds, so nothing about the data is ever
 * sent. Before a sum the ranks tell each other the losses of the round: a rank that failed says so
 * there, and nobody enters a sum on a device that would wait for it for ever.
 *
 * Alone, nothing waits in here: log-probabilities are kept on the device, a few micro-batches of
 * them, until the step is over.
 */
#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "engine/trainer_internal.h"

/* --- one micro-batch -------------------------------------------------------------------------- */

/* Padding adds a sixteenth of the largest batch at most. */
enum { PAD_PARTS = 16, PAD_LEAST = 64 };

static int32_t power_of_two_from(int32_t count)
{
    int32_t power = 1;
    while (power < count) {
        power *= 2;
    }
    return power;
}

static int32_t round_up(int32_t count, int32_t step)
{
    return (count + step - 1) / step * step;
}

int32_t meed_trainer_sequence_room(int32_t sequences)
{
    return power_of_two_from(sequences + 1); /* one for the padding rows */
}

/* To one of few shapes, so that graphs come back. */
static void pad(const struct meed_trainer *trainer)
{
    struct meed_batch *batch = trainer->batch;
    int32_t most = trainer->options.batch_tokens;
    int32_t step = MEED_MAX(power_of_two_from(most / PAD_PARTS), PAD_LEAST);
    int32_t rows = MEED_MIN(round_up(batch->rows, step), most);
    int32_t loss_rows = MEED_MIN(round_up(batch->loss_rows, step), rows);
    meed_batch_pad(batch, rows, meed_trainer_sequence_room(batch->sequences), loss_rows);
}

static void enqueue_micro(void *user)
{
    struct meed_trainer *trainer = user;
    const struct meed_backend *be = trainer->be;
    meed_net_enqueue_gradients(trainer->net, trainer->micro_gradients);
    be->sqnorm(be, meed_net_logprobs_dev(trainer->net), trainer->batch->loss_rows,
               meed_optimiser_guard(trainer->optimiser));
}

/* Keeps the log-probabilities of the batch just computed; the next one overwrites the net's. */
static enum meed_status hold_loss(struct meed_trainer *trainer, double *loss)
{
    const struct meed_backend *be = trainer->be;
    int64_t begin = 0;
    if (trainer->held == trainer->micro_slots) {
        MEED_TRY(meed_trainer_collect_loss(trainer, loss));
    }
    for (int32_t i = 0; i < trainer->held; i++) {
        begin += trainer->held_rows[i];
    }
    trainer->held_rows[trainer->held++] = trainer->batch->loss_rows;
    be->copy_within(be, trainer->logprob_dev + begin, meed_net_logprobs_dev(trainer->net),
                    (size_t)trainer->batch->loss_rows * sizeof(float));
    return MEED_OK;
}

enum meed_status meed_trainer_collect_loss(struct meed_trainer *trainer, double *loss)
{
    const struct meed_backend *be = trainer->be;
    size_t rows = 0;
    for (int32_t i = 0; i < trainer->held; i++) {
        rows += (size_t)trainer->held_rows[i];
    }
    MEED_TRY(be->copy_from(be, trainer->logprob, trainer->logprob_dev, rows * sizeof(float)));
    MEED_TRY(be->sync(be));
    const float *next = trainer->logprob;
    for (int32_t i = 0; i < trainer->held; i++) {
        double sum = 0.0;
        for (int32_t row = 0; row < trainer->held_rows[i]; row++) {
            sum -= (double)*next++;
        }
        *loss += sum;
    }
    trainer->held = 0;
    return MEED_OK;
}

/* Takes micro-batch i of the step from *position on and, if it is `mine`, enqueues forward and
 * backward of it, onto `gradients`. */
static enum meed_status micro_batch(struct meed_trainer *trainer, int32_t i, bool mine,
                                    float weight, int64_t *position, float *gradients, double *loss,
                                    int64_t *launches)
{
    const struct meed_train_options *options = &trainer->options;
    struct meed_batch *batch = trainer->batch;
    struct meed_trainer_take take;
    int64_t nodes = 0;
    meed_trainer_order_take(&trainer->order, position, mine ? batch : NULL, &take);
    if (!mine) {
        return MEED_OK;
    }
    int32_t scored = batch->loss_rows;
    if (meed_graph_cache_useful(&trainer->graphs)) {
        pad(trainer);
    }
    for (int32_t row = 0; row < batch->loss_rows; row++) {
        trainer->weights[row] = row < scored ? weight : 0.0f;
    }
    uint64_t step = (uint64_t)meed_trainer_steps_done(trainer);
    struct meed_rng rng = meed_rng_stream(options->seed, "dropout",
                                          step * (uint64_t)options->accumulation + (uint64_t)i);
    const struct meed_graph_key shape = {
        {batch->rows, batch->sequences, batch->loss_rows, gradients == trainer->part_dev ? 2 : 0}};
    trainer->micro_gradients = gradients;
    MEED_TRY(meed_net_load_batch(trainer->net, batch, trainer->weights, rng.key));
    MEED_TRY(meed_graph_cache_run(&trainer->graphs, shape, enqueue_micro, trainer, &nodes));
    *launches += nodes;
    return hold_loss(trainer, loss);
}

/* --- all of a step ---------------------------------------------------------------------------- */

/* Micro-batches [first, first + parts) of the step, one a rank. */
static enum meed_status shared_round(struct meed_trainer *trainer, int32_t first, int32_t parts,
                                     float weight, int64_t *position, double *loss,
                                     int64_t *launches)
{
    const struct meed_backend *be = trainer->be;
    int32_t rank = meed_collective_rank(trainer->collective);
    double mine = 0.0, losses[MEED_RENDEZVOUS_MAX_RANKS];
    if (rank < parts) {
        be->zero(be, trainer->part_dev, (size_t)trainer->count * sizeof(float));
    }
    for (int32_t i = 0; i < parts; i++) {
        MEED_TRY(micro_batch(trainer, first + i, i == rank, weight, position, trainer->part_dev,
                             &mine, launches));
    }
    MEED_TRY(meed_trainer_collect_loss(trainer, &mine)); /* a device that failed does so here */
    MEED_TRY(meed_collective_gather(trainer->collective, &mine, sizeof mine, losses));
    for (int32_t i = 0; i < parts; i++) {
        *loss += losses[i];
    }
    return meed_collective_sum(trainer->collective, be, trainer->gradients_dev, trainer->part_dev,
                               trainer->count, parts);
}

enum meed_status meed_trainer_accumulate(struct meed_trainer *trainer, float weight,
                                         int64_t *position, double *loss, int64_t *launches)
{
    int32_t count = trainer->options.accumulation;
    int32_t world = meed_collective_world(trainer->collective);
    *loss = 0.0;
    trainer->held = 0;
    for (int32_t first = 0; first < count; first += world) {
        if (world > 1) {
            int32_t parts = MEED_MIN(world, count - first);
            MEED_TRY(shared_round(trainer, first, parts, weight, position, loss, launches));
        } else {
            MEED_TRY(micro_batch(trainer, first, true, weight, position, trainer->gradients_dev,
                                 loss, launches));
        }
    }
    return MEED_OK;
}

enum meed_status meed_trainer_agree(struct meed_trainer *trainer, const void *bytes, size_t size)
{
    if (meed_collective_world(trainer->collective) == 1) {
        return MEED_OK;
    }
    uint8_t digest[MEED_SHA256_BYTES];
    meed_sha256(bytes, size, digest);
    if (meed_collective_same(trainer->collective, digest, sizeof digest, "weights") ==
        MEED_VERSION) {
        char who[200];
        snprintf(who, sizeof who, "%s", meed_last_error());
        return MEED_FAIL(MEED_INTEGRITY,
                         "after step %lld %s; run all ranks on nodes and devices of one kind, and "
                         "have the odd one out checked",
                         (long long)meed_trainer_steps_done(trainer), who);
    }
    return MEED_OK;
}

/* What must be the same on all ranks before they take a step together. */
static enum meed_status check_ranks(struct meed_trainer *trainer,
                                    struct meed_collective *collective)
{
    struct {
        int64_t steps, position;
        char kind[32];
    } state = {.steps = meed_trainer_steps_done(trainer), .position = trainer->position};
    snprintf(state.kind, sizeof state.kind, "%s", trainer->be->name);
    MEED_TRY(meed_collective_same(collective, trainer->identity, sizeof trainer->identity,
                                  "model, start, data or options"));
    MEED_TRY(meed_collective_same(collective, state.kind, sizeof state.kind,
                                  "kind of processor or device"));
    return meed_collective_same(collective, &state, sizeof state,
                                "checkpoint: the output folder must be on a file system that all "
                                "nodes see");
}

enum meed_status meed_trainer_share(struct meed_trainer *trainer,
                                    struct meed_collective *collective)
{
    const struct meed_backend *be = trainer->be;
    int32_t world = meed_collective_world(collective);
    if (world == 1) {
        return MEED_OK;
    }
    if (trainer->options.accumulation < world) {
        return MEED_FAIL(MEED_ARG,
                         "%d ranks share the micro-batches of a step, and a step has %d; raise "
                         "--accumulation to %d or a multiple",
                         world, trainer->options.accumulation, world);
    }
    MEED_TRY(check_ranks(trainer, collective));
    MEED_TRY(be->alloc(be, (size_t)trainer->count * sizeof(float), (void **)&trainer->part_dev));
    trainer->collective = collective;
    return meed_collective_use_devices(collective, be);
}
