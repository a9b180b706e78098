/* The seam between estimators and everything else: a coalition game with many small utilities.
 *
 * Every estimator sees this struct and nothing of models. The game maps a batch of member vectors
 * to per-item utilities; an item is one dialogue on one axis, a coalition's value on an axis is a
 * fixed linear function of its items (benchmark.h), so standard errors come from resampling items
 * without new evaluations.
 *
 * Members are numbers in [0, 1]: what lies between is the game's own extension of sets to fractions
 * (gates), and its derivative along the diagonal is what the gradient estimator integrates.
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
    /* The first player that this one is known to be interchangeable with, often itself; may be
     * NULL. */
    int32_t (*twin_of)(void *user, int32_t player);
    /* phi [players, items] = Σ_q weights[q]·∂u/∂m_k at m = (nodes[q], nodes[q], …); NULL if the
     * game has no derivative. The sum over nodes is the game's, since a game may add up what it
     * differentiates before it looks at any player. Exactly 0 for null players, equal bits for
     * twins. */
    enum meed_status (*gradient)(void *user, const double *nodes, const double *weights,
                                 int32_t count, double *phi);
};

MEED_END_C
#endif
