/* The learning rate of a step: linear warm-up, then half a cosine down to a floor.
 *
 * A pure function of (options, step), so a resumed run needs no schedule state. Step s counts from
 * 0; the first warm-up step already moves (1/warmup of the rate, not 0 as in some libraries, where
 * the first batch of a short federated round would be wasted), and the last step of a run is the
 * first at the floor. floor_ratio 1 is a constant rate.
 */
#ifndef MEED_ENGINE_SCHEDULE_H
#define MEED_ENGINE_SCHEDULE_H

#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

struct meed_schedule {
    double lr;          /* the peak */
    double floor_ratio; /* of the peak, 0 to 1 */
    int64_t warmup_steps;
    int64_t steps;
};

double meed_schedule_lr(const struct meed_schedule *schedule, int64_t step);

MEED_END_C
#endif
