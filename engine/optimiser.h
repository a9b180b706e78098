/* AdamW over one flat vector on the device, with clipping by the global norm.
 *
 * All factors of an adapter are one vector (adapter.h), so a step is one kernel call instead of two
 * a module. Training only A or only B (FFA-LoRA, RoLoRA) is a list of spans of that vector: what is
 * outside them has no moments, no weight decay and no part in the norm, hence keeps its bits.
 * Decoupled decay and bias correction as in Loshchilov & Hutter 2019; clipping scales the gradient
 * by min(1, clip/‖g‖) inside the same kernel, which reads the norm where it was summed: on the
 * device.
 */
#ifndef MEED_ENGINE_OPTIMISER_H
#define MEED_ENGINE_OPTIMISER_H

#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_optimiser_options {
    float beta1, beta2, epsilon, weight_decay;
    float clip_norm; /* 0: off */
};
struct meed_optimiser_span {
    int64_t begin, count;
};

struct meed_optimiser;

/* Moments for `count` values, zero. Spans (at least one, increasing, copied) are what is trained.
 */
MEED_MUST_CHECK enum meed_status meed_optimiser_create(const struct meed_backend *be, int64_t count,
                                                       const struct meed_optimiser_span *spans,
                                                       int64_t span_count,
                                                       const struct meed_optimiser_options *options,
                                                       struct meed_optimiser **optimiser);
void meed_optimiser_destroy(struct meed_optimiser *optimiser); /* accepts NULL */
/* One update of parameter [count] from gradient [count], both on the device. norm: ‖gradient‖ over
 * the spans before clipping. NUMERIC and no update if it is not finite. */
MEED_MUST_CHECK enum meed_status meed_optimiser_step(struct meed_optimiser *optimiser, double lr,
                                                     const float *gradient_dev,
                                                     float *parameter_dev, double *norm);
/* The same in three parts, for a caller who keeps the device busy. begin copies what changes from
 * step to step over; enqueue is ops alone, the same every step, so it may be part of a graph
 * (graph_cache.h); end waits, and counts the step unless it was refused. Between begin and enqueue
 * the caller may add (sqnorm) whatever must be finite for the update to happen to guard, a sum in
 * device memory. */
MEED_MUST_CHECK enum meed_status meed_optimiser_begin(struct meed_optimiser *optimiser, double lr);
double *meed_optimiser_guard(struct meed_optimiser *optimiser);
void meed_optimiser_enqueue(struct meed_optimiser *optimiser, const float *gradient_dev,
                            float *parameter_dev);
MEED_MUST_CHECK enum meed_status meed_optimiser_end(struct meed_optimiser *optimiser, double *norm);
/* Steps taken, settable for a resume. */
int64_t meed_optimiser_steps(const struct meed_optimiser *optimiser);
void meed_optimiser_set_steps(struct meed_optimiser *optimiser, int64_t steps);
/* The moments [count] each, on the device: for checkpoints. */
float *meed_optimiser_first_moment(struct meed_optimiser *optimiser);
float *meed_optimiser_second_moment(struct meed_optimiser *optimiser);

MEED_END_C
#endif
