/* See server_optimiser.h. Arithmetic in fp64, one rounding where a value is stored. */
#include "server/server_optimiser.h"

#include <math.h>

static const char *const names[MEED_SERVER_RULE_COUNT] = {"none", "avgm", "adagrad", "yogi",
                                                          "adam"};

const char *meed_server_optimiser_name(enum meed_server_rule rule)
{
    return rule >= 0 && rule < MEED_SERVER_RULE_COUNT ? names[rule] : "?";
}

struct meed_server_options meed_server_optimiser_defaults(enum meed_server_rule rule)
{
    return (struct meed_server_options){.rule = rule,
                                        .lr = rule == MEED_SERVER_AVGM ? 1.0 : 1e-3,
                                        .beta1 = 0.9,
                                        .beta2 = 0.99,
                                        .tau = 1e-3};
}

enum meed_status meed_server_optimiser_check(const struct meed_server_options *options,
                                             const struct meed_aggregate_traits *traits)
{
    if (options->rule < 0 || options->rule >= MEED_SERVER_RULE_COUNT) {
        return MEED_FAIL(MEED_CONFIG, "no such server optimiser");
    }
    if (options->rule == MEED_SERVER_NONE) {
        return MEED_OK;
    }
    if (!traits->wants_optimiser) {
        return MEED_FAIL(MEED_CONFIG,
                         "%s does not keep coordinates that the moments of %s could belong to; "
                         "aggregate by fedavg, ffa or rolora",
                         traits->name, names[options->rule]);
    }
    if (!(options->lr > 0.0 && options->lr <= 100.0) ||
        !(options->beta1 >= 0.0 && options->beta1 < 1.0) ||
        !(options->beta2 >= 0.0 && options->beta2 < 1.0) ||
        !(options->tau > 0.0 && options->tau <= 1.0)) {
        return MEED_FAIL(MEED_CONFIG, "server: lr in (0, 100], beta1 and beta2 in [0, 1), tau in "
                                      "(0, 1]");
    }
    return MEED_OK;
}

void meed_server_optimiser_start(const struct meed_server_options *options, int64_t count, float *m,
                                 float *v)
{
    for (int64_t i = 0; i < count; i++) {
        m[i] = 0.0f;
        v[i] = (float)(options->tau * options->tau);
    }
}

static double second_moment(const struct meed_server_options *options, double v, double square)
{
    double fresh = 1.0 - options->beta2;
    switch (options->rule) {
    case MEED_SERVER_ADAGRAD:
        return v + square;
    case MEED_SERVER_YOGI:
        return v - fresh * square * (v > square ? 1.0 : v < square ? -1.0 : 0.0);
    default:
        return options->beta2 * v + fresh * square;
    }
}

/* The step of one entry; m and v move. */
static double step_of(const struct meed_server_options *options, double delta, float *m, float *v)
{
    if (options->rule == MEED_SERVER_AVGM) {
        *m = (float)(options->beta1 * (double)*m + delta);
        return options->lr * (double)*m;
    }
    double beta = options->rule == MEED_SERVER_ADAGRAD ? 0.0 : options->beta1;
    *m = (float)(beta * (double)*m + (1.0 - beta) * delta);
    *v = (float)second_moment(options, (double)*v, delta * delta);
    return options->lr * (double)*m / (sqrt((double)*v) + options->tau);
}

static void step_factor(const struct meed_server_options *options, const float *from, float *m,
                        float *v, int64_t count, float *to)
{
    for (int64_t i = 0; i < count; i++) {
        double delta = (double)to[i] - (double)from[i];
        double step = step_of(options, delta, &m[i], &v[i]);
        to[i] = step == 0.0 ? from[i] : (float)((double)from[i] + step);
    }
}

void meed_server_optimiser_step(const struct meed_server_options *options,
                                const struct meed_adapter *global, uint32_t trained, float *m,
                                float *v, struct meed_adapter *merged)
{
    MEED_ASSERT(meed_adapter_same_shape(global, merged));
    int64_t at = 0;
    for (int32_t i = 0; i < global->module_count; i++) {
        const struct meed_adapter_module *from = &global->modules[i];
        int64_t a_count = from->r * from->k, b_count = from->n * from->r;
        if (trained & MEED_FACTOR_A) {
            step_factor(options, from->a, m + at, v + at, a_count, merged->modules[i].a);
        }
        at += a_count;
        if (trained & MEED_FACTOR_B) {
            step_factor(options, from->b, m + at, v + at, b_count, merged->modules[i].b);
        }
        at += b_count;
    }
}
