/* See scale.h. */
#include "report/scale.h"

#include <math.h>

/* The smallest of 1, 2, 5, 10 × 10^k that is not below `rough`. */
static double nice_step(double rough)
{
    double power = pow(10, floor(log10(rough)));
    double lead = rough / power;
    double nice = lead <= 1 + 1e-9 ? 1 : lead <= 2 + 1e-9 ? 2 : lead <= 5 + 1e-9 ? 5 : 10;
    return nice * power;
}

static struct meed_scale spanned(double low, double high, double step)
{
    struct meed_scale scale = {.step = step};
    /* Forgive the rounding of a bound that is a multiple already. */
    double first = floor(low / step + 1e-9), last = ceil(high / step - 1e-9);
    scale.low = first * step;
    scale.high = last * step;
    scale.tick_count = (int)(last - first) + 1;
    scale.decimals = (int)fmax(0, -floor(log10(step) + 1e-9));
    return scale;
}

struct meed_scale meed_scale_nice(double low, double high, int most_ticks)
{
    MEED_ASSERT(isfinite(low) && isfinite(high) && low <= high && most_ticks >= 2);
    double least = 1e-12 + fabs(low) * 1e-9; /* below this, labels could not tell ticks apart */
    if (high - low < least) {
        double half = fmax(fabs(low) * 0.1, 0.5);
        low -= half;
        high += half;
    }
    return spanned(low, high, nice_step((high - low) / (most_ticks - 1)));
}

struct meed_scale meed_scale_whole(int first, int last, int most_ticks)
{
    double step = (double)(last - first) / (most_ticks - 1);
    return spanned(first, last > first ? last : first + 1, step <= 1 ? 1 : nice_step(step));
}

struct meed_scale meed_scale_log(double low, double high, int most_ticks)
{
    MEED_ASSERT(low >= 1e-12 && low <= high && high <= 1e12 && most_ticks >= 2);
    double first = floor(log10(low) + 1e-9), last = ceil(log10(high) - 1e-9);
    last = fmax(last, first + 1);
    double step = ceil((last - first) / (most_ticks - 1));
    int steps = (int)ceil((last - first) / step);
    return (struct meed_scale){.low = pow(10, first),
                               .high = pow(10, first + steps * step),
                               .step = step,
                               .logarithmic = true,
                               .tick_count = steps + 1};
}

double meed_scale_place(const struct meed_scale *scale, double value)
{
    if (scale->logarithmic) {
        double part = log(value / scale->low) / log(scale->high / scale->low);
        return scale->from + part * (scale->to - scale->from);
    }
    double part = (value - scale->low) / (scale->high - scale->low);
    return scale->from + part * (scale->to - scale->from);
}

double meed_scale_tick(const struct meed_scale *scale, int idx)
{
    return scale->logarithmic ? pow(10, round(log10(scale->low)) + idx * scale->step)
                              : scale->low + idx * scale->step;
}

struct meed_numeral meed_scale_label(const struct meed_scale *scale, int idx)
{
    double tick = meed_scale_tick(scale, idx);
    if (scale->logarithmic) {
        return meed_numeral_fixed(tick, (int)fmax(0, -round(log10(tick))), false);
    }
    return scale->decimals == 0 && fabs(tick) < 1e15
               ? meed_numeral_count((int64_t)llround(tick))
               : meed_numeral_fixed(tick, scale->decimals, false);
}
