/* What adapter.c and adapter_peft.c share: building an adapter from a list of module shapes.
 *
 * Every way to make an adapter (from a configuration, from ranks, from a file) ends in one
 * function, so there is one place that lays out memory. All factors of an adapter lie in one block
 * in flat order (module by module, A then B): copying, comparing and flattening are one memcpy
 * each.
 */
#ifndef MEED_ENGINE_ADAPTER_INTERNAL_H
#define MEED_ENGINE_ADAPTER_INTERNAL_H

#include "engine/adapter.h"

MEED_BEGIN_C

/* Zero factors for `count` modules of a model with `layers` layers, given by layer, proj, k, n, r
 * and scale (a, b ignored), sorted by (layer, proj). lora.rank and lora.targets are set from the
 * shapes. LIMIT names the module whose rank is out of bounds. */
MEED_MUST_CHECK enum meed_status
meed_adapter_create_shaped(const struct meed_adapter_module *shapes, int32_t count,
                           const struct meed_lora_config *lora, int32_t layers,
                           struct meed_adapter **adapter);
/* alpha/r, or alpha/√r with rslora, in double and then rounded. */
float meed_adapter_scale(double alpha, int64_t rank, bool rslora);
/* NUMERIC names the first module that holds NaN or infinity. */
MEED_MUST_CHECK enum meed_status meed_adapter_check_finite(const struct meed_adapter *adapter,
                                                           const char *name);

MEED_END_C
#endif
