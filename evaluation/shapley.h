/* Values of players from coalition values: exact Shapley and leave-one-out, item by item.
 *
 * Both are linear in the game, so they are computed once for every item (one dialogue on one axis);
 * a client's value on an axis or in the paid utility is then the same linear function of its item
 * values that turns item utilities into an axis value, and a bootstrap needs no new evaluations.
 *
 *   exact          φ_k = Σ_{S∌k} |S|!(n−|S|−1)!/n! · [u(S∪k) − u(S)]         (Shapley 1953)
 *   leave-one-out  φ_k = u(N) − u(N∖k); not efficient: Σφ misses u(N) − u(∅) in general
 *
 * Sums over coalitions are exact integers (see shapley.c), hence the axioms hold to the bit and not
 * to rounding: a player that changes nothing gets exactly 0, two players that are interchangeable
 * get equal bits, and renaming the players renames the values and nothing else.
 */
#ifndef MEED_EVALUATION_SHAPLEY_H
#define MEED_EVALUATION_SHAPLEY_H

#include "base/arena.h"
#include "evaluation/game.h"

MEED_BEGIN_C

enum { MEED_SHAPLEY_MAX_PLAYERS = 16 };

struct meed_shapley {
    struct meed_arena arena; /* owns everything below */
    int32_t players;
    int32_t items;
    int32_t coalition_count; /* exact: 2^players, row = mask; leave-one-out: ∅, N, N∖0, N∖1 … */
    int32_t requested;       /* coalitions asked of the game: null players folded away */
    uint32_t *masks;         /* [coalition_count], bit k = player k */
    double *utilities;       /* [coalition_count, items] */
    double *phi;             /* [players, items] */
};

/* ARG for more than 16 players (exact) or a game without players or items; NUMERIC if the game
 * returns a utility that is not finite, naming the coalition. */
MEED_MUST_CHECK enum meed_status meed_shapley_exact(const struct meed_game *game,
                                                    struct meed_shapley **values);
MEED_MUST_CHECK enum meed_status meed_shapley_leave_one_out(const struct meed_game *game,
                                                            struct meed_shapley **values);
/* What the exact or the leave-one-out estimator will ask of this game, in order: members
 * [*count, players], free with meed_heap_free. For those who score in parts (utility.h). */
MEED_MUST_CHECK enum meed_status meed_shapley_coalitions(const struct meed_game *game, bool exact,
                                                         double **members, int32_t *count);
void meed_shapley_destroy(struct meed_shapley *values); /* accepts NULL */

MEED_END_C
#endif
