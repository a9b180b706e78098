/* Leave-one-out of more players than shapley.c tabulates: φ_k = u(N) − u(N∖k), streamed.
 *
 * Linear in n and the cheapest question that evaluation answers, but another one than what a player
 * is worth: two clients with the same data are both worth nothing to each other's company. */
#include "evaluation/estimator_draws.h"

enum { CHUNK = 64 };

enum meed_status meed_leave_one_out_run(const struct meed_game *game,
                                        const struct meed_estimator_options *options,
                                        struct meed_estimate *estimate)
{
    enum meed_status st = MEED_OK;
    struct meed_draws s = {.game = game, .options = options, .estimate = estimate};
    int32_t items = estimate->items;
    MEED_TRY_OUT(meed_draws_open(&s, CHUNK, game->players));
    for (int32_t begin = 0; begin < s.active; begin += CHUNK) {
        int32_t count = MEED_MIN(CHUNK, s.active - begin);
        for (int32_t i = 0; i < count; i++) {
            double *members = meed_draws_members(&s, i);
            for (int32_t k = 0; k < estimate->players; k++) {
                members[k] = 0.0;
            }
            for (int32_t k = 0; k < s.active; k++) {
                members[s.player[k]] = k == begin + i ? 0.0 : 1.0;
            }
        }
        MEED_TRY_OUT(meed_draws_ask(&s, 0, count));
        for (int32_t i = 0; i < count; i++) {
            double *phi = estimate->phi + (int64_t)s.player[begin + i] * items;
            for (int32_t item = 0; item < items; item++) {
                phi[item] = estimate->full[item] - meed_draws_utilities(&s, i)[item];
            }
        }
    }
out:
    meed_draws_close(&s);
    return st;
}
