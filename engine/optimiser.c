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
    if (optimiser->m) {
        optimiser->be->free(optimiser->be, optimiser->m);
    }
    if (optimiser->v) {
        optimiser->be->free(optimiser->be, optimiser->v);
    }
    meed_heap_free(optimiser->spans);
    meed_heap_free(optimiser);
}

enum meed_status meed_optimiser_step(struct meed_optimiser *optimiser, double lr,
                                     const float *gradient_dev, float *parameter_dev, double *norm)
{
    const struct meed_backend *be = optimiser->be;
    const struct meed_optimiser_options *options = &optimiser->options;
    double sum = 0.0;
    for (int64_t i = 0; i < optimiser->span_count; i++) {
        const struct meed_optimiser_span *span = &optimiser->spans[i];
        be->sqnorm(be, gradient_dev + span->begin, span->count, &sum);
    }
    if (!isfinite(sum)) {
        return MEED_FAIL(MEED_NUMERIC,
                         "optimiser step %lld: the gradient is not finite; lower the "
                         "learning rate or look for broken data",
                         (long long)optimiser->steps);
    }
    double length = sqrt(sum);
    double scale = options->clip_norm > 0.0f && length > (double)options->clip_norm
                       ? (double)options->clip_norm / length
                       : 1.0;
    struct meed_adamw_step step = {
        .lr = (float)lr,
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .epsilon = options->epsilon,
        .weight_decay = options->weight_decay,
        .gradient_scale = (float)scale,
        .step = optimiser->steps + 1,
    };
    for (int64_t i = 0; i < optimiser->span_count; i++) {
        int64_t begin = optimiser->spans[i].begin;
        be->adamw(be, &step, optimiser->spans[i].count, gradient_dev + begin, optimiser->m + begin,
                  optimiser->v + begin, parameter_dev + begin);
    }
    optimiser->steps++;
    *norm = length;
    return MEED_OK;
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
