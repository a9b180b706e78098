/* See trainer.h. A step in four parts: count the scored tokens of its micro-batches, run forward
 * and backward over them with weight 1/count (so accumulation is a plain sum and the loss the mean
 * over the whole step), add the proximal term, let the optimiser move the masters.
 *
 * The host prepares and copies, the device computes: what differs between two steps (tokens,
 * targets, weights, dropout keys, the rate and its corrections) is copied over before the ops that
 * read it, the norm and the clipping stay on the device, and the host waits once, at the end. Hence
 * the ops of a micro-batch, and those of the update, are the same calls in every step and become
 * graphs (graph_cache.h), where batches are padded to one of few shapes. A loss or gradient that is
 * not finite is seen by the update itself, which then writes nothing.
 *
 * The proximal term mu·(w − w_start) is written with lora_merge, whose contract out = w + Σ g·b·a
 * with one row and b = 1 is a vector sum on any device: first drift = masters − start, then
 * gradients += mu·drift. Two roundings instead of one sum of three keep the term exactly zero while
 * nothing has moved.
 */
#include "engine/trainer.h"

#include <math.h>
#include <string.h>
#include "base/clock.h"
#include "engine/schedule.h"
#include "engine/trainer_internal.h"

struct meed_train_options meed_train_defaults(void)
{
    struct meed_train_options options = {
        .steps = 100,
        .batch_tokens = 1024,
        .accumulation = 1,
        .lr = 2e-4f,
        .lr_min_ratio = 0.1f,
        .warmup_steps = 5,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .epsilon = 1e-8f,
        .clip_norm = 1.0f,
        .seed = 1,
        .dtype = MEED_DTYPE_BF16,
    };
    return options;
}

static enum meed_status check_range(const char *what, double value, double min, double max)
{
    if (!(value >= min && value <= max)) {
        return MEED_FAIL(MEED_ARG, "training: %s is %g; allowed are %g to %g", what, value, min,
                         max);
    }
    return MEED_OK;
}

static enum meed_status check_options(const struct meed_train_options *options)
{
    MEED_TRY(check_range("steps", (double)options->steps, 1, 1e9));
    MEED_TRY(check_range("batch tokens", options->batch_tokens, 1, 1 << 24));
    MEED_TRY(check_range("accumulation", options->accumulation, 1, 65536));
    MEED_TRY(check_range("the learning rate", (double)options->lr, 0, 100));
    MEED_TRY(check_range("the floor of the learning rate", (double)options->lr_min_ratio, 0, 1));
    MEED_TRY(check_range("warm-up steps", (double)options->warmup_steps, 0, 1e9));
    MEED_TRY(check_range("beta1", (double)options->beta1, 0, 0.9999999));
    MEED_TRY(check_range("beta2", (double)options->beta2, 0, 0.9999999));
    MEED_TRY(check_range("epsilon", (double)options->epsilon, 0, 1));
    MEED_TRY(check_range("weight decay", (double)options->weight_decay, 0, 1000));
    MEED_TRY(check_range("the clipping norm", (double)options->clip_norm, 0, 1e9));
    MEED_TRY(check_range("mu of the proximal term", (double)options->prox_mu, 0, 1e6));
    MEED_TRY(check_range("dropout", (double)options->dropout, 0, 0.99));
    if (options->freeze_a && options->freeze_b) {
        return MEED_FAIL(MEED_ARG, "training: both factors are frozen, nothing can move");
    }
    return MEED_OK;
}

/* One span for everything, or one a module for the factor that is trained. */
static enum meed_status make_spans(struct meed_trainer *trainer, const struct meed_adapter *start)
{
    bool all = !trainer->options.freeze_a && !trainer->options.freeze_b;
    trainer->span_count = all ? 1 : start->module_count;
    trainer->spans = meed_heap_alloc((size_t)trainer->span_count, sizeof *trainer->spans);
    if (!trainer->spans) {
        return MEED_NOMEM;
    }
    if (all) {
        trainer->spans[0].count = trainer->count;
        return MEED_OK;
    }
    int64_t begin = 0;
    for (int32_t i = 0; i < start->module_count; i++) {
        int64_t a = start->modules[i].r * start->modules[i].k;
        int64_t b = start->modules[i].n * start->modules[i].r;
        trainer->spans[i].begin = trainer->options.freeze_a ? begin + a : begin;
        trainer->spans[i].count = trainer->options.freeze_a ? b : a;
        begin += a + b;
    }
    return MEED_OK;
}

static enum meed_status alloc_vector(struct meed_trainer *trainer, int64_t count, float **vector)
{
    const struct meed_backend *be = trainer->be;
    return be->alloc(be, (size_t)count * sizeof(float), (void **)vector);
}

static enum meed_status make_vectors(struct meed_trainer *trainer, const struct meed_adapter *start)
{
    const struct meed_backend *be = trainer->be;
    size_t rows = (size_t)trainer->options.batch_tokens;
    size_t bytes = (size_t)trainer->count * sizeof(float);
    trainer->flat_host = meed_heap_alloc((size_t)trainer->count, sizeof(float));
    trainer->weights = meed_heap_alloc(rows, sizeof(float));
    trainer->micro_slots = MEED_MIN(trainer->options.accumulation, MEED_TRAINER_MICRO_SLOTS);
    trainer->logprob = meed_heap_alloc(rows * (size_t)trainer->micro_slots, sizeof(float));
    if (!trainer->flat_host || !trainer->weights || !trainer->logprob) {
        return MEED_NOMEM;
    }
    MEED_TRY(alloc_vector(trainer, trainer->count, &trainer->masters_dev));
    MEED_TRY(alloc_vector(trainer, trainer->count, &trainer->gradients_dev));
    MEED_TRY(alloc_vector(trainer, (int64_t)rows * trainer->micro_slots, &trainer->logprob_dev));
    meed_adapter_to_flat(start, trainer->flat_host);
    MEED_TRY(be->copy_to(be, trainer->masters_dev, trainer->flat_host, bytes));
    if (trainer->options.prox_mu > 0.0f) {
        MEED_TRY(alloc_vector(trainer, trainer->count, &trainer->start_dev));
        MEED_TRY(alloc_vector(trainer, trainer->count, &trainer->drift_dev));
        MEED_TRY(be->copy_to(be, trainer->start_dev, trainer->flat_host, bytes));
    }
    if (trainer->options.correction) {
        MEED_TRY(alloc_vector(trainer, trainer->count, &trainer->correction_dev));
        MEED_TRY(alloc_vector(trainer, trainer->count, &trainer->gradient_sum_dev));
        MEED_TRY(be->copy_to(be, trainer->correction_dev, trainer->options.correction, bytes));
    }
    const float constants[3] = {1.0f, -1.0f, trainer->options.prox_mu};
    MEED_TRY(alloc_vector(trainer, 3, &trainer->constants_dev));
    return be->copy_to(be, trainer->constants_dev, constants, sizeof constants);
}

static enum meed_status make_net(struct meed_trainer *trainer,
                                 const struct meed_checkpoint *checkpoint,
                                 const struct meed_adapter *start)
{
    const struct meed_train_options *options = &trainer->options;
    const struct meed_adapter *adapters[] = {start, options->frozen};
    struct meed_net_options net = {
        .dtype = options->dtype,
        .base = options->base,
        .max_rows = options->batch_tokens,
        .max_sequences =
            meed_trainer_sequence_room(meed_trainer_order_max_sequences(&trainer->order)),
        .backward = true,
        .dropout = options->dropout,
        .adapters = adapters,
        .adapter_count = options->frozen ? 2 : 1,
    };
    MEED_TRY(meed_net_create(trainer->be, checkpoint, &net, &trainer->net));
    MEED_ASSERT(meed_net_master_count(trainer->net) == trainer->count);
    return meed_batch_create(net.max_rows, net.max_sequences, &trainer->batch);
}

enum meed_status meed_trainer_create(const struct meed_backend *be,
                                     const struct meed_checkpoint *checkpoint,
                                     const struct meed_adapter *start,
                                     const struct meed_sequence *data, int64_t data_count,
                                     const struct meed_train_options *options,
                                     struct meed_trainer **trainer)
{
    enum meed_status st = MEED_OK;
    MEED_TRY(check_options(options));
    struct meed_trainer *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = be;
    meed_graph_cache_init(&made->graphs, be);
    made->options = *options;
    made->count = meed_adapter_value_count(start);
    struct meed_optimiser_options adamw = {
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .epsilon = options->epsilon,
        .weight_decay = options->weight_decay,
        .clip_norm = options->clip_norm,
    };
    MEED_TRY_OUT(meed_trainer_order_init(&made->order, data, data_count, options->batch_tokens,
                                         options->seed));
    MEED_TRY_OUT(
        meed_trainer_identity(checkpoint, start, data, data_count, options, made->identity));
    MEED_TRY_OUT(make_spans(made, start));
    MEED_TRY_OUT(make_vectors(made, start));
    MEED_TRY_OUT(meed_optimiser_create(be, made->count, made->spans, made->span_count, &adamw,
                                       &made->optimiser));
    MEED_TRY_OUT(make_net(made, checkpoint, start));
    meed_net_load_masters(made->net, made->masters_dev);
    MEED_TRY_OUT(be->sync(be));
    *trainer = made;
    made = NULL;
out:
    meed_trainer_destroy(made);
    return st;
}

void meed_trainer_destroy(struct meed_trainer *trainer)
{
    if (!trainer) {
        return;
    }
    const struct meed_backend *be = trainer->be;
    float *vectors[] = {trainer->masters_dev, trainer->gradients_dev,  trainer->start_dev,
                        trainer->drift_dev,   trainer->constants_dev,  trainer->logprob_dev,
                        trainer->part_dev,    trainer->correction_dev, trainer->gradient_sum_dev};
    meed_graph_cache_clear(&trainer->graphs);
    meed_net_destroy(trainer->net);
    meed_batch_destroy(trainer->batch);
    meed_optimiser_destroy(trainer->optimiser);
    meed_trainer_order_clear(&trainer->order);
    for (size_t i = 0; i < MEED_COUNT(vectors); i++) {
        if (vectors[i]) {
            be->free(be, vectors[i]);
        }
    }
    meed_heap_free(trainer->spans);
    meed_heap_free(trainer->flat_host);
    meed_heap_free(trainer->weights);
    meed_heap_free(trainer->logprob);
    meed_heap_free(trainer);
}

int64_t meed_trainer_steps_done(const struct meed_trainer *trainer)
{
    return meed_optimiser_steps(trainer->optimiser);
}

static struct meed_mat as_row(float *values, int64_t count)
{
    return meed_mat_view(values, 1, count, count, MEED_DTYPE_F32);
}

static void add_proximal_term(struct meed_trainer *trainer)
{
    const struct meed_backend *be = trainer->be;
    struct meed_mat one = as_row(trainer->constants_dev, 1);
    const float *minus_one = trainer->constants_dev + 1, *mu = trainer->constants_dev + 2;
    struct meed_mat drift = as_row(trainer->drift_dev, trainer->count);
    struct meed_mat gradients = as_row(trainer->gradients_dev, trainer->count);
    be->lora_merge(be, as_row(trainer->masters_dev, trainer->count), one,
                   as_row(trainer->start_dev, trainer->count), minus_one, drift);
    be->lora_merge(be, gradients, one, drift, mu, gradients);
}

/* y += x */
static void add_vector(struct meed_trainer *trainer, float *x, float *y)
{
    struct meed_mat one = as_row(trainer->constants_dev, 1);
    struct meed_mat sum = as_row(y, trainer->count);
    trainer->be->lora_merge(trainer->be, sum, one, as_row(x, trainer->count),
                            trainer->constants_dev, sum);
}

static void enqueue_update(void *user)
{
    struct meed_trainer *trainer = user;
    if (trainer->correction_dev) {
        add_vector(trainer, trainer->gradients_dev, trainer->gradient_sum_dev);
        add_vector(trainer, trainer->correction_dev, trainer->gradients_dev);
    }
    if (trainer->start_dev) {
        add_proximal_term(trainer);
    }
    meed_optimiser_enqueue(trainer->optimiser, trainer->gradients_dev, trainer->masters_dev);
    meed_net_load_masters(trainer->net, trainer->masters_dev);
}

static struct meed_trainer_take look_ahead(struct meed_trainer *trainer)
{
    struct meed_trainer_take sum = {0, 0, 0};
    int64_t position = trainer->position;
    for (int32_t i = 0; i < trainer->options.accumulation; i++) {
        struct meed_trainer_take take;
        meed_trainer_order_take(&trainer->order, &position, NULL, &take);
        sum.rows += take.rows;
        sum.scored += take.scored;
    }
    return sum;
}

static enum meed_status check_loss(int64_t step, double loss)
{
    if (!isfinite(loss)) {
        return MEED_FAIL(MEED_NUMERIC,
                         "training step %lld: the loss is not finite; lower the "
                         "learning rate or start from another adapter",
                         (long long)step);
    }
    return MEED_OK;
}

enum meed_status meed_trainer_step(struct meed_trainer *trainer, struct meed_train_report *report)
{
    const struct meed_backend *be = trainer->be;
    const struct meed_train_options *options = &trainer->options;
    int64_t step = meed_trainer_steps_done(trainer);
    if (step >= options->steps) {
        return MEED_FAIL(MEED_STATE, "all %lld training steps are done", (long long)options->steps);
    }
    int64_t start_ns = meed_clock_monotonic_ns();
    struct meed_trainer_take ahead = look_ahead(trainer);
    int64_t position = trainer->position;
    struct meed_schedule schedule = {.lr = (double)options->lr,
                                     .floor_ratio = (double)options->lr_min_ratio,
                                     .warmup_steps = options->warmup_steps,
                                     .steps = options->steps};
    const struct meed_graph_key update = {{0, 0, 0, 1}};
    double lr = meed_schedule_lr(&schedule, step), loss = 0.0, norm = 0.0;
    int64_t launches = 0, nodes = 0;
    MEED_TRY(meed_optimiser_begin(trainer->optimiser, lr));
    be->zero(be, trainer->gradients_dev, (size_t)trainer->count * sizeof(float));
    MEED_TRY(meed_trainer_accumulate(trainer, (float)(1.0 / (double)ahead.scored), &position, &loss,
                                     &launches));
    MEED_TRY(check_loss(step, loss));
    MEED_TRY(meed_graph_cache_run(&trainer->graphs, update, enqueue_update, trainer, &nodes));
    MEED_TRY(meed_trainer_collect_loss(trainer, &loss));
    loss /= (double)ahead.scored;
    MEED_TRY(check_loss(step, loss));
    MEED_TRY(meed_optimiser_end(trainer->optimiser, &norm));
    trainer->position = position;
    *report = (struct meed_train_report){
        .step = step,
        .loss = loss,
        .lr = lr,
        .gradient_norm = norm,
        .tokens = ahead.rows,
        .launches = launches + nodes,
        .seconds = meed_clock_seconds_since(start_ns),
    };
    return MEED_OK;
}

enum meed_status meed_trainer_export(struct meed_trainer *trainer, struct meed_adapter *adapter)
{
    const struct meed_backend *be = trainer->be;
    if (meed_adapter_value_count(adapter) != trainer->count) {
        return MEED_FAIL(MEED_ARG, "the adapter to export into has another shape than the trained "
                                   "one; clone the start");
    }
    size_t bytes = (size_t)trainer->count * sizeof(float);
    MEED_TRY(be->copy_from(be, trainer->flat_host, trainer->masters_dev, bytes));
    MEED_TRY(meed_trainer_agree(trainer, trainer->flat_host, bytes));
    meed_adapter_from_flat(adapter, trainer->flat_host);
    return MEED_OK;
}

enum meed_status meed_trainer_mean_gradient(struct meed_trainer *trainer, float *mean)
{
    const struct meed_backend *be = trainer->be;
    int64_t steps = meed_trainer_steps_done(trainer);
    if (!trainer->gradient_sum_dev) {
        return MEED_FAIL(MEED_STATE, "gradients are summed in a training with a correction only");
    }
    MEED_TRY(
        be->copy_from(be, mean, trainer->gradient_sum_dev, (size_t)trainer->count * sizeof(float)));
    for (int64_t i = 0; i < trainer->count; i++) {
        mean[i] = (float)((double)mean[i] / (double)MEED_MAX(steps, (int64_t)1));
    }
    return MEED_OK;
}
