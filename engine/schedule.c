/* See schedule.h. */
#include "engine/schedule.h"

#include <math.h>

double meed_schedule_lr(const struct meed_schedule *schedule, int64_t step)
{
    if (step < schedule->warmup_steps) {
        return schedule->lr * (double)(step + 1) / (double)schedule->warmup_steps;
    }
    int64_t decay_steps = schedule->steps - schedule->warmup_steps;
    double way =
        decay_steps > 1 ? (double)(step - schedule->warmup_steps) / (double)(decay_steps - 1) : 0.0;
    double pi = 3.14159265358979323846;
    double cosine = 0.5 * (1.0 + cos(pi * fmin(way, 1.0)));
    return schedule->lr * (schedule->floor_ratio + (1.0 - schedule->floor_ratio) * cosine);
}
