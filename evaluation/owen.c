/* Shapley values from coalitions of random density: Owen's multilinear extension.
 *
 *   φ_k = ∫₀¹ E[v(S_q ∪ k) − v(S_q ∖ k)] dq,   every player in S_q with probability q  (Owen 1972)
 *
 * One draw is a sweep of the densities in [0, ½]: one q uniform in each of STRATA equal parts, one
 * coalition S at that density, and its complement, which is a coalition at density 1 − q (Okhrati
 * and Lipani 2021 halve the interval so). Around each, all players are flipped one by one. The
 * strata make densities even and the complement makes q symmetric; both stay unbiased, since every
 * density has the probability that the integral gives it.
 *
 * A sweep costs 2·STRATA·(n + 1) coalitions, most of them one flip from another, so orders
 * (permutation.c) are cheaper where only values are wanted. What Owen sampling has instead: the
 * density of coalitions is a knob, and gains never come from truncated or nested coalitions. It is
 * not efficient; the residual shows it.
 */
#include "evaluation/estimator_draws.h"

#include <string.h>
#include "base/rng.h"

enum { STRATA = 4, CENTRES = 2 * STRATA };

/* The coalition at stratum/STRATA of [0, ½] in row `row`, its complement in the next. */
static void centres_draw(struct meed_draws *s, struct meed_rng *rng, int32_t stratum, int32_t row)
{
    double q = 0.5 * (stratum + meed_rng_unit(rng)) / STRATA;
    double *in = meed_draws_members(s, row);
    double *out = meed_draws_members(s, row + 1);
    memset(in, 0, 2 * (size_t)s->estimate->players * sizeof *in);
    for (int32_t i = 0; i < s->active; i++) {
        bool member = meed_rng_unit(rng) < q;
        in[s->player[i]] = member ? 1.0 : 0.0;
        out[s->player[i]] = member ? 0.0 : 1.0;
    }
}

/* Rows after the centre: the centre with one player flipped. */
static void flips_pack(struct meed_draws *s, int32_t centre)
{
    size_t width = (size_t)s->estimate->players;
    const double *from = meed_draws_members(s, centre);
    for (int32_t i = 0; i < s->active; i++) {
        double *to = meed_draws_members(s, CENTRES + i);
        memcpy(to, from, width * sizeof *to);
        to[s->player[i]] = 1.0 - to[s->player[i]];
    }
}

static void flips_credit(struct meed_draws *s, int32_t centre, const double *utilities,
                         const double *values)
{
    const double *members = meed_draws_members(s, centre);
    for (int32_t i = 0; i < s->active; i++) {
        double sign = members[s->player[i]] == 1.0 ? 1.0 : -1.0;
        meed_draws_credit(s, 0, s->player[i], sign / CENTRES, utilities, values,
                          meed_draws_utilities(s, CENTRES + i), meed_draws_values(s, CENTRES + i));
    }
}

/* One sweep. Centres stand in rows 0 … CENTRES − 1, the flips of one of them behind. */
static enum meed_status sweep(struct meed_draws *s)
{
    struct meed_rng rng = meed_rng_stream(s->options->seed, "owen", (uint64_t)s->estimate->draws);
    for (int32_t stratum = 0; stratum < STRATA; stratum++) {
        centres_draw(s, &rng, stratum, 2 * stratum);
    }
    MEED_TRY(meed_draws_ask(s, 0, CENTRES));
    for (int32_t centre = 0; centre < CENTRES; centre++) {
        flips_pack(s, centre);
        MEED_TRY(meed_draws_ask(s, CENTRES, s->active));
        flips_credit(s, centre, meed_draws_utilities(s, centre), meed_draws_values(s, centre));
    }
    meed_draws_settle(s, 1);
    return MEED_OK;
}

enum meed_status meed_owen_run(const struct meed_game *game,
                               const struct meed_estimator_options *options,
                               struct meed_estimate *estimate)
{
    enum meed_status st = MEED_OK;
    struct meed_draws s = {.game = game, .options = options, .estimate = estimate};
    int64_t cost = (int64_t)CENTRES * (game->players + 1);
    MEED_TRY_OUT(meed_draws_open(&s, CENTRES + game->players, cost));
    while (meed_draws_next(&s, cost) > 0) {
        MEED_TRY_OUT(sweep(&s));
    }
    meed_draws_finish(&s);
out:
    meed_draws_close(&s);
    return st;
}
