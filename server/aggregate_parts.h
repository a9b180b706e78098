/* What the strategy table and the files that work for it share.
 *
 * aggregate.c knows the names and walks the modules; engine/low_rank.c cuts, aggregate_factors.c
 * averages and stacks, aggregate_coordinate.c orders coordinates, aggregate_robust.c turns weights.
 * Each works on one module, or on weights, and knows nothing of the rest.
 */
#ifndef MEED_SERVER_AGGREGATE_PARTS_H
#define MEED_SERVER_AGGREGATE_PARTS_H

#include "engine/low_rank.h"
#include "server/aggregate.h"

MEED_BEGIN_C

/* One module of all slots: what a merge reads and where it writes. */
struct meed_aggregate_module {
    const struct meed_aggregate_options *options;
    int64_t rank;                              /* trained ranks r */
    int32_t slots;                             /* global first */
    const struct meed_adapter_module **inputs; /* [slots] */
    const double *gates;                       /* [slots] g_0, p_1 … */
    const struct meed_adapter_module *restart; /* [r] fresh factors where the strategy restarts */
    bool stack_global;                         /* the global's trained ranks are not zero */
    uint64_t place;                            /* names the module: layer and projection */
    struct meed_adapter_module *out;
};
typedef enum meed_status (*meed_aggregate_merge_fn)(const struct meed_aggregate_module *module,
                                                    struct meed_low_rank_energy *energy);
/* Energies of the trained ranks, nothing written. */
MEED_MUST_CHECK enum meed_status meed_aggregate_measure(const struct meed_aggregate_module *module,
                                                        struct meed_low_rank_energy *energy);
/* aggregate_factors.c; `out` has the ranks that meed_aggregate_frozen_after says. */
MEED_MUST_CHECK enum meed_status
meed_aggregate_merge_cut(const struct meed_aggregate_module *module,
                         struct meed_low_rank_energy *energy);
MEED_MUST_CHECK enum meed_status
meed_aggregate_merge_mean(const struct meed_aggregate_module *module,
                          struct meed_low_rank_energy *energy);
MEED_MUST_CHECK enum meed_status
meed_aggregate_merge_stack(const struct meed_aggregate_module *module,
                           struct meed_low_rank_energy *energy);
MEED_MUST_CHECK enum meed_status
meed_aggregate_merge_fedex(const struct meed_aggregate_module *module,
                           struct meed_low_rank_energy *energy);
/* Ranks beside the trained ones when `added` join a module's `frozen`. */
int64_t meed_aggregate_frozen_after(const struct meed_adapter_module *module, int64_t frozen,
                                    int64_t added, int64_t cap);
/* aggregate_coordinate.c: here gates[slot] weighs ΔW of slot ≥ 1, and all candidates are slots. */
MEED_MUST_CHECK enum meed_status
meed_aggregate_merge_coordinate(const struct meed_aggregate_module *module,
                                struct meed_low_rank_energy *energy);

/* Turns p [count] into the weights q [count] that svd merges with (aggregate_robust.c). */
struct meed_aggregate_weigh {
    const struct meed_aggregate_options *options;
    const struct meed_adapter *global;
    const struct meed_adapter *const *clients;
    const double *p;
    int32_t count;
};
typedef enum meed_status (*meed_aggregate_weigh_fn)(const struct meed_aggregate_weigh *job,
                                                    double *q);
MEED_MUST_CHECK enum meed_status meed_aggregate_weigh_krum(const struct meed_aggregate_weigh *job,
                                                           double *q);
MEED_MUST_CHECK enum meed_status
meed_aggregate_weigh_multikrum(const struct meed_aggregate_weigh *job, double *q);
MEED_MUST_CHECK enum meed_status
meed_aggregate_weigh_normclip(const struct meed_aggregate_weigh *job, double *q);
MEED_MUST_CHECK enum meed_status
meed_aggregate_weigh_fltrust(const struct meed_aggregate_weigh *job, double *q);

MEED_END_C
#endif
