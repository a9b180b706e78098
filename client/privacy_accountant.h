/* How much privacy a number of noisy updates has cost: Rényi accounting of the Gaussian mechanism.
 *
 * A mechanism whose output moves by at most Δ (in L2) between neighbouring data, plus Gaussian
 * noise of deviation σΔ in every coordinate, has Rényi divergence α/(2σ²) of order α (Mironov 2017,
 * arXiv 1702.07476). If it looks at each neighbour with probability q alone, and nobody knows
 * whether it did, the divergence of integer order α is
 *
 *     log(Σ_k C(α,k) (1−q)^(α−k) q^k exp(k(k−1)/2σ²)) / (α−1)           (Mironov et al. 2019, §3.3)
 *
 * and at other orders at most that of the next integer; those above 1024 are left out there.
 * Divergences of one order add up over rounds, whatever each round's output made of the next; over
 * all orders the best conversion to (ε, δ) is taken (Canonne, Kamath, Steinke 2020, arXiv
 * 2004.00010, proposition 12):
 *
 *     ε = Σ ε_α + log((α−1)/α) − (log δ + log α)/(α−1)
 *
 * Everything is an upper bound, about a tenth above the exact ε (tests/golden/privacy has both).
 * What Δ and neighbouring mean is privacy.h's to say.
 */
#ifndef MEED_CLIENT_PRIVACY_ACCOUNTANT_H
#define MEED_CLIENT_PRIVACY_ACCOUNTANT_H

#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

/* Orders 1.01 to 1.09, 1.1 to 65 by tenths, then each 2 % above the last, to 1e6. */
enum { MEED_PRIVACY_ORDERS = 9 + 640 + 487 };

/* Zeroed: nothing spent. */
struct meed_privacy_accountant {
    double spent[MEED_PRIVACY_ORDERS]; /* Rényi divergence of each order */
};

double meed_privacy_order(int idx);
/* `rounds` more of noise σ (> 0, in multiples of Δ) that see a neighbour with probability q, 0 to
 * 1; 1 where who takes part is known. */
void meed_privacy_accountant_add(struct meed_privacy_accountant *accountant, double sigma, double q,
                                 int64_t rounds);
/* ε at this δ, in (0, 1); never below 0. Infinity where nothing can be said. */
double meed_privacy_accountant_epsilon(const struct meed_privacy_accountant *accountant,
                                       double delta);

MEED_END_C
#endif
