/* See optimiser.h. */
#include "engine/optimiser.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"

struct meed_optimiser {
    const struct meed_backend *be;
    struct meed_optimiser_options options;
    int64_t steps;
    int64_t span_count;
    struct meed_optimiser_span *spans;
    float *m; /* [count] on the device */
    float *v;
    struct meed_adamw_step *step; /* on the device */
};

enum meed_status meed_optimiser_create(const struct meed_backend *be, int64_t count,
                                       const struct meed_optimiser_span *spans, int64_t span_count,
                                       const struct meed_optimiser_options *options,
                                       struct meed_optimiser **optimiser)
{
    enum meed_status st = MEED_OK;
    MEED_ASSERT(span_count > 0);
    struct meed_optimiser *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = be;
    made->options = *options;
    made->spans = meed_heap_alloc((size_t)span_count, sizeof *spans);
    if (!made->spans) {
        st = MEED_NOMEM;
        goto out;
    }
    made->span_count = span_count;
    memcpy(made->spans, spans, (size_t)span_count * sizeof *spans);
    MEED_TRY_OUT(be->alloc(be, (size_t)count * sizeof(float), (void **)&made->m));
    MEED_TRY_OUT(be->alloc(be, (size_t)count * sizeof(float), (void **)&made->v));
    MEED_TRY_OUT(be->alloc(be, sizeof *made->step, (void **)&made->step));
    *optimiser = made;
    made = NULL;
out:
    meed_optimiser_destroy(made);
    return st;
}

void meed_optimiser_destroy(struct meed_optimiser *optimiser)
{
    if (!optimiser) {
        return;
    }
    void *blocks[] = {optimiser->m, optimiser->v, optimiser->step};
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        if (blocks[i]) {
            optimiser->be->free(optimiser->be, blocks[i]);
        }
    }
    meed_heap_free(optimiser->spans);
    meed_heap_free(optimiser);
}

enum meed_status meed_optimiser_begin(struct meed_optimiser *optimiser, double lr)
{
    const struct meed_optimiser_options *options = &optimiser->options;
    struct meed_adamw_step step =
        meed_adamw_step_make((float)lr, options->beta1, options->beta2, options->epsilon,
                             options->weight_decay, options->clip_norm, optimiser->steps + 1);
    return optimiser->be->copy_to(optimiser->be, optimiser->step, &step, sizeof step);
}

double *meed_optimiser_guard(struct meed_optimiser *optimiser)
{
    return &optimiser->step->guard;
}

void meed_optimiser_enqueue(struct meed_optimiser *optimiser, const float *gradient_dev,
                            float *parameter_dev)
{
    const struct meed_backend *be = optimiser->be;
    for (int64_t i = 0; i < optimiser->span_count; i++) {
        const struct meed_optimiser_span *span = &optimiser->spans[i];
        be->sqnorm(be, gradient_dev + span->begin, span->count, &optimiser->step->sqnorm);
    }
    for (int64_t i = 0; i < optimiser->span_count; i++) {
        int64_t begin = optimiser->spans[i].begin;
        be->adamw(be, optimiser->step, optimiser->spans[i].count, gradient_dev + begin,
                  optimiser->m + begin, optimiser->v + begin, parameter_dev + begin);
    }
}

enum meed_status meed_optimiser_end(struct meed_optimiser *optimiser, double *norm)
{
    const struct meed_backend *be = optimiser->be;
    struct meed_adamw_step step;
    MEED_TRY(be->copy_from(be, &step, optimiser->step, sizeof step));
    MEED_TRY(be->sync(be));
    if (!isfinite(step.sqnorm) || !isfinite(step.guard)) {
        return MEED_FAIL(MEED_NUMERIC,
                         "optimiser step %lld: the %s is not finite; lower the "
                         "learning rate or look for broken data",
                         (long long)optimiser->steps, isfinite(step.guard) ? "gradient" : "loss");
    }
    optimiser->steps++;
    *norm = sqrt(step.sqnorm);
    return MEED_OK;
}

enum meed_status meed_optimiser_step(struct meed_optimiser *optimiser, double lr,
                                     const float *gradient_dev, float *parameter_dev, double *norm)
{
    MEED_TRY(meed_optimiser_begin(optimiser, lr));
    meed_optimiser_enqueue(optimiser, gradient_dev, parameter_dev);
    return meed_optimiser_end(optimiser, norm);
}

int64_t meed_optimiser_steps(const struct meed_optimiser *optimiser)
{
    return optimiser->steps;
}

void meed_optimiser_set_steps(struct meed_optimiser *optimiser, int64_t steps)
{
    optimiser->steps = steps;
}

float *meed_optimiser_first_moment(struct meed_optimiser *optimiser)
{
    return optimiser->m;
}

float *meed_optimiser_second_moment(struct meed_optimiser *optimiser)
{
    return optimiser->v;
}
