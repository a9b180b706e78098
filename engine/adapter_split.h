/* An adapter in two parts: ranks that a round trains, and ranks that only take part.
 *
 * Some aggregations (stack, fedex) keep what was learnt in ranks that nobody trains any more, so
 * that the base weights stay untouched and may stay quantised. The whole is still one adapter,
 * ΔW = s·[B_front B_rest]·[A_front; A_rest], and travels, is stored and loads in PEFT as one: the
 * first `front` ranks of every module are trained, the others stand still. A plan's rank tells a
 * client how many that is.
 */
#ifndef MEED_ENGINE_ADAPTER_SPLIT_H
#define MEED_ENGINE_ADAPTER_SPLIT_H

#include "engine/adapter.h"

MEED_BEGIN_C

/* True if some module has more than `front` ranks. */
bool meed_adapter_has_rest(const struct meed_adapter *whole, int64_t front);
/* Copies of both parts, with the whole's scales. *rest is NULL where nothing is left; modules
 * without remaining ranks are not in it. FORMAT if a module has fewer than `front` ranks. */
MEED_MUST_CHECK enum meed_status meed_adapter_split(const struct meed_adapter *whole, int64_t front,
                                                    struct meed_adapter **trained,
                                                    struct meed_adapter **rest);
/* The whole with the trained part in place of its first ranks. */
MEED_MUST_CHECK enum meed_status meed_adapter_join(const struct meed_adapter *whole,
                                                   const struct meed_adapter *trained,
                                                   struct meed_adapter **joined);
/* Ranks [at, at + part's r) of the whole's module become those of the part. */
void meed_adapter_module_put(struct meed_adapter_module *whole, int64_t at,
                             const struct meed_adapter_module *part);

MEED_END_C
#endif
