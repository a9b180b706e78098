/* See detector_private.h: the factors' side of the gap detector. The centre is one vector of the
 * adapter's size in float64, filled in the cohort's order. */
#include <math.h>
#include "server/detector_private.h"

/* One factor of one module, in both adapters. */
struct change {
    const float *to, *from;
    int64_t count;
};

static struct change change_of(const struct meed_adapter *client, const struct meed_adapter *global,
                               int32_t m, bool b)
{
    const struct meed_adapter_module *to = &client->modules[m], *from = &global->modules[m];
    return b ? (struct change){to->b, from->b, to->n * to->r}
             : (struct change){to->a, from->a, to->r * to->k};
}

static double change_norm(const struct meed_adapter *client, const struct meed_adapter *global,
                          bool b)
{
    double sum = 0.0;
    for (int32_t m = 0; m < global->module_count; m++) {
        struct change change = change_of(client, global, m, b);
        for (int64_t i = 0; i < change.count; i++) {
            double step = (double)change.to[i] - (double)change.from[i];
            sum += step * step;
        }
    }
    return sqrt(sum);
}

static void add_change(const struct meed_adapter *client, const struct meed_adapter *global, bool b,
                       double weight, double *centre)
{
    for (int32_t m = 0; m < global->module_count; m++) {
        struct change change = change_of(client, global, m, b);
        for (int64_t i = 0; i < change.count; i++) {
            *centre++ += weight * ((double)change.to[i] - (double)change.from[i]);
        }
    }
}

static double change_with(const struct meed_adapter *client, const struct meed_adapter *global,
                          bool b, const double *centre)
{
    double sum = 0.0;
    for (int32_t m = 0; m < global->module_count; m++) {
        struct change change = change_of(client, global, m, b);
        for (int64_t i = 0; i < change.count; i++) {
            sum += *centre++ * ((double)change.to[i] - (double)change.from[i]);
        }
    }
    return sum;
}

enum meed_status meed_detector_factor_cosines(const struct meed_detector_cohort *cohort,
                                              struct meed_arena *arena, double *best)
{
    void *block = NULL;
    int64_t values = meed_adapter_value_count(cohort->global);
    double *norms = cohort->scratch;
    for (int32_t i = 0; i < cohort->count; i++) {
        best[i] = 0.0;
    }
    for (int b = 0; b < 2; b++) {
        MEED_TRY(meed_arena_alloc_array(arena, (size_t)values, sizeof(double), &block));
        double *centre = block, square = 0.0;
        for (int32_t i = 0; i < cohort->count; i++) {
            norms[i] = change_norm(cohort->clients[i], cohort->global, b);
            if (cohort->core[i] && norms[i] > 0.0) {
                add_change(cohort->clients[i], cohort->global, b, 1.0 / norms[i], centre);
            }
        }
        for (int64_t v = 0; v < values; v++) {
            square += centre[v] * centre[v];
        }
        for (int32_t i = 0; i < cohort->count; i++) {
            if (!(norms[i] > 0.0)) {
                continue;
            }
            double with = change_with(cohort->clients[i], cohort->global, b, centre) / norms[i];
            double cosine = meed_detector_centre_cosine(with, square, cohort->core[i]);
            best[i] = b && best[i] > cosine ? best[i] : cosine;
        }
    }
    return MEED_OK;
}
