/* See privacy_accountant.h. Binomial sums are taken in logarithms, largest term apart. */
#include "client/privacy_accountant.h"

#include <math.h>

enum { SMALL_ORDERS = 9, TENTH_ORDERS = 640, SAMPLED_MAX = 1024 };

double meed_privacy_order(int idx)
{
    if (idx < SMALL_ORDERS) {
        return 1.0 + 0.01 * (idx + 1);
    }
    idx -= SMALL_ORDERS;
    return idx < TENTH_ORDERS ? (double)(idx + 11) / 10.0
                              : 65.0 * pow(1.02, idx + 1 - TENTH_ORDERS);
}

/* log(exp(x) + exp(y)) */
static double log_add(double x, double y)
{
    double high = fmax(x, y), low = fmin(x, y);
    return isinf(high) ? high : high + log1p(exp(low - high));
}

/* Divergence of integer order alpha ≥ 2 with q below 1. */
static double sampled(double sigma, double q, double alpha)
{
    double sum = -INFINITY;
    for (double k = 0.0; k <= alpha; k += 1.0) {
        double term = lgamma(alpha + 1.0) - lgamma(k + 1.0) - lgamma(alpha - k + 1.0);
        term += (alpha - k) * log1p(-q) + k * log(q) + k * (k - 1.0) / (2.0 * sigma * sigma);
        sum = log_add(sum, term);
    }
    return fmax(sum, 0.0) / (alpha - 1.0);
}

void meed_privacy_accountant_add(struct meed_privacy_accountant *accountant, double sigma, double q,
                                 int64_t rounds)
{
    double last_alpha = 0.0, last = 0.0;
    for (int i = 0; i < MEED_PRIVACY_ORDERS && q > 0.0; i++) {
        double alpha = meed_privacy_order(i);
        double each = alpha / (2.0 * sigma * sigma);
        if (q < 1.0) {
            double whole = ceil(alpha - 1e-9);
            last = whole > SAMPLED_MAX   ? INFINITY
                   : whole == last_alpha ? last
                                         : sampled(sigma, q, whole);
            last_alpha = whole;
            each = last;
        }
        accountant->spent[i] += (double)rounds * each;
    }
}

double meed_privacy_accountant_epsilon(const struct meed_privacy_accountant *accountant,
                                       double delta)
{
    double best = INFINITY;
    for (int i = 0; i < MEED_PRIVACY_ORDERS; i++) {
        double alpha = meed_privacy_order(i);
        double epsilon =
            accountant->spent[i] + log1p(-1.0 / alpha) - (log(delta) + log(alpha)) / (alpha - 1.0);
        best = fmin(best, epsilon);
    }
    return fmax(best, 0.0);
}
