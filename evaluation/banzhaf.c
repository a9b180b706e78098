/* Banzhaf values from random coalitions, each used for every player.
 *
 *   φ_k = E[v(S) | k ∈ S] − E[v(S) | k ∉ S],   every player in S with probability ½
 *
 * is the mean marginal gain over all coalitions alike (Banzhaf 1965), and needs no flips: any
 * coalition says something about all players ("maximum sample reuse", Wang and Jia 2023, who also
 * show that it is the semivalue least moved by noise in v). One draw is a coalition and its
 * complement, so that each player is in exactly one of them: the draw's estimate is ±(v(S) −
 * v(Sᶜ)), in which the level of v cancels. That is an independent unbiased sample, hence a plain
 * standard error, which the two-means form has not.
 *
 * Not efficient: Σφ misses v(N) − v(∅) and the residual says by how much. The value of record of a
 * game whose utilities are noisy, such as a judge's.
 */
#include "evaluation/estimator_draws.h"

#include <string.h>
#include "base/rng.h"

static void pair_draw(struct meed_draws *s, int32_t draw)
{
    struct meed_rng rng =
        meed_rng_stream(s->options->seed, "banzhaf", (uint64_t)(s->estimate->draws + draw));
    double *in = meed_draws_members(s, 2 * draw);
    double *out = meed_draws_members(s, 2 * draw + 1);
    memset(in, 0, 2 * (size_t)s->estimate->players * sizeof *in);
    for (int32_t i = 0; i < s->active; i++) {
        bool member = meed_rng_below(&rng, 2) == 1;
        in[s->player[i]] = member ? 1.0 : 0.0;
        out[s->player[i]] = member ? 0.0 : 1.0;
    }
}

enum meed_status meed_banzhaf_run(const struct meed_game *game,
                                  const struct meed_estimator_options *options,
                                  struct meed_estimate *estimate)
{
    enum meed_status st = MEED_OK;
    struct meed_draws s = {.game = game, .options = options, .estimate = estimate};
    MEED_TRY_OUT(meed_draws_open(&s, 2 * MEED_DRAWS_BLOCK, 2));
    for (int32_t draws; (draws = meed_draws_next(&s, 2)) > 0;) {
        for (int32_t i = 0; i < draws; i++) {
            pair_draw(&s, i);
        }
        MEED_TRY_OUT(meed_draws_ask(&s, 0, 2 * draws));
        for (int32_t i = 0; i < draws; i++) {
            const double *members = meed_draws_members(&s, 2 * i);
            for (int32_t k = 0; k < s.active; k++) {
                meed_draws_credit(&s, i, s.player[k], members[s.player[k]] == 1.0 ? 1.0 : -1.0,
                                  meed_draws_utilities(&s, 2 * i), meed_draws_values(&s, 2 * i),
                                  meed_draws_utilities(&s, 2 * i + 1),
                                  meed_draws_values(&s, 2 * i + 1));
            }
        }
        meed_draws_settle(&s, draws);
    }
    meed_draws_finish(&s);
out:
    meed_draws_close(&s);
    return st;
}
