/* β of one adapter and 1 − β of another, both trained from the same global one.
 *
 *   product   the mix of what they do, β B₁A₁ + (1−β) B₂A₂, cut back to the rank (low_rank.h)
 *   factors   βA₁ + (1−β)A₂ and βB₁ + (1−β)B₂, as FedPIT's authors mix them: what that misses is
 *             −β(1−β)(B₁−B₂)(A₁−A₂), second order in how far the two have parted
 *
 * The raw stack [B₁ B₂], [βA₁; (1−β)A₂] would be exact without a cut, and would hand both adapters
 * to whoever reads it. The pair written here is a function of the mixed product and of the global
 * adapter alone: coordinates are chosen by the latter, so nothing of A₁ or B₁ is told but what the
 * mix does. Coordinates near the global's also keep the change of the factors small, which is what
 * an update's codec quantises.
 */
#ifndef MEED_ENGINE_ADAPTER_MIX_H
#define MEED_ENGINE_ADAPTER_MIX_H

#include "engine/adapter.h"

MEED_BEGIN_C

/* Over all modules, as shares of ‖mix − global‖. */
struct meed_adapter_mix_report {
    double discarded; /* ‖mix − cut‖² / ‖mix − global‖²: energy that the rank had no room for */
    double factor_error; /* ‖mix − mix of the factors‖ / ‖mix − global‖ */
};

/* out, of everybody's shape, is overwritten; it may be none of the others. FORMAT if shapes differ.
 * Where a direction does not exist or nothing was trained, out keeps the global's. */
MEED_MUST_CHECK enum meed_status meed_adapter_mix_product(const struct meed_adapter *global,
                                                          const struct meed_adapter *first,
                                                          const struct meed_adapter *second,
                                                          double beta, struct meed_adapter *out,
                                                          struct meed_adapter_mix_report *report);
/* In fp64, rounded once; a value that both share stays as it is, bit for bit. */
MEED_MUST_CHECK enum meed_status meed_adapter_mix_factors(const struct meed_adapter *first,
                                                          const struct meed_adapter *second,
                                                          double beta, struct meed_adapter *out);

MEED_END_C
#endif
