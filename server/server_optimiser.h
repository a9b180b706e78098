/* Server optimisers: what is made of a merged round beyond taking it over.
 *
 * With the merged adapter x̄ and the global one x, Δ = x̄ − x is a pseudo-gradient (Reddi et al.
 * 2003.00295); m and v are fp32, one of each a factor entry, and start at m = 0, v = τ²:
 *
 *     avgm      m ← β₁ m + Δ                                  x ← x + η m      (Hsu 1909.06335)
 *     adagrad   m = Δ,  v ← v + Δ²
 *     yogi      m ← β₁ m + (1 − β₁) Δ,  v ← v − (1 − β₂) Δ² sign(v − Δ²)
 *     adam      m as yogi,  v ← β₂ v + (1 − β₂) Δ²            x ← x + η m/(√v + τ), all three
 *
 * No bias correction, as in the paper; avgm is the form without (1 − β₁), so that η = 1, β₁ = 0 is
 * no optimiser at all. Entries whose factor a round does not train (ffa, rolora) keep x, m and v.
 *
 * Where it applies. m and v belong to coordinates. svd, and every robust rule that ends in it,
 * writes another pair (B', A') each round: turning it back onto the old pair (orthogonal
 * Procrustes) undoes the rotation but not the scale, which in the first round takes A from the
 * initialiser's length to √σ, and resetting m and v each round leaves sign descent. stack starts
 * its factors anew. fedex promises the exact mean and would lose it. Applying the rule to ΔW itself
 * needs moments of N × K. So only merges whose coordinates stay take one: fedavg, ffa, rolora.
 *
 * Values are measured on plain deltas, before any optimiser: a coalition of a non-linear round map
 * would have no ΔW of its own.
 */
#ifndef MEED_SERVER_SERVER_OPTIMISER_H
#define MEED_SERVER_SERVER_OPTIMISER_H

#include "base/buf.h"
#include "server/aggregate.h"

MEED_BEGIN_C

/* "none", "avgm" …; "?" outside the list. */
const char *meed_server_optimiser_name(enum meed_server_rule rule);
/* η 1 (avgm) or 1e-3, β 0.9 and 0.99, τ 1e-3: what language models were tuned with. */
struct meed_server_options meed_server_optimiser_defaults(enum meed_server_rule rule);
/* CONFIG says what is out of range or does not go with the aggregation. */
MEED_MUST_CHECK enum meed_status
meed_server_optimiser_check(const struct meed_server_options *options,
                            const struct meed_aggregate_traits *traits);

/* One step: `merged` becomes the next adapter. m and v [values] in flat order, as the last round
 * left them or as meed_server_optimiser_start made them. trained: MEED_FACTOR_* of this round. */
void meed_server_optimiser_start(const struct meed_server_options *options, int64_t count, float *m,
                                 float *v);
void meed_server_optimiser_step(const struct meed_server_options *options,
                                const struct meed_adapter *global, uint32_t trained, float *m,
                                float *v, struct meed_adapter *merged);

MEED_END_C
#endif
