/* The seam between estimators and everything else: a coalition game with many small utilities.
 *
 * Shapley, leave-one-out and all later estimators see this struct and nothing of models. The game
 * maps a batch of member vectors to per-item utilities; an item is one dialogue on one axis, a
 * coalition's value on an axis is a fixed linear function of its items (axis.h of benchmark), so
 * standard errors come from resampling items without new evaluations.
 */
#ifndef MEED_EVALUATION_GAME_H
#define MEED_EVALUATION_GAME_H

#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_game {
    void *user;
    int32_t players;
    int32_t items;
    /* members [coalitions, players] in [0, 1]; utilities [coalitions, items] fp64. */
    enum meed_status (*evaluate)(void *user, const double *members, int32_t coalitions,
                                 double *utilities);
    /* True if the player is known to change nothing (its marginal is exactly 0); may be NULL. */
    bool (*is_null)(void *user, int32_t player);
};

MEED_END_C
#endif
