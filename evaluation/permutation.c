/* Shapley values from random orders.
 *
 * φ_k is the mean over all orders of what k adds to those before it (Castro, Gómez and Tejada
 * 2009). One draw is an order and its reverse: who comes early in one comes late in the other, and
 * for games that are close to additive the errors of the two nearly cancel (antithetic variates;
 * for Shapley: Mitchell et al. 2022). Every order hands out exactly v(N) − v(∅), so the estimate is
 * efficient without any correction.
 *
 * Truncation (Ghorbani and Zou 2019) ends an order once its value is within `truncation` of v(N):
 * the rest is credited 0, which saves evaluations where late players add little, gives up
 * efficiency by at most as much, and keeps an unknown null player at exactly 0. It is off by
 * default: gates are cheap, and a bias has no standard error.
 *
 * Walks of a block advance together, one player each a step, so that the game scores them in one
 * batch.
 */
#include "evaluation/estimator_draws.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/rng.h"

enum { WALKS = 2 * MEED_DRAWS_BLOCK };

struct walks {
    struct meed_draws draws;
    int64_t *order; /* [WALKS, active] */
    double *before; /* [WALKS, items]: utilities of the players so far */
    double value[WALKS][MEED_ESTIMATOR_MAX_WATCHES]; /* watched, the same */
    bool ended[WALKS];
    int32_t row[WALKS]; /* in the request of this step, -1: none */
};

static void orders_draw(struct walks *w, int32_t draws)
{
    const struct meed_draws *s = &w->draws;
    int32_t n = s->active;
    for (int32_t i = 0; i < draws; i++) {
        struct meed_rng rng =
            meed_rng_stream(s->options->seed, "permutation", (uint64_t)(s->estimate->draws + i));
        int64_t *order = w->order + (int64_t)2 * i * n;
        int64_t *reverse = order + n;
        for (int32_t k = 0; k < n; k++) {
            order[k] = s->player[k];
        }
        meed_rng_shuffle(&rng, order, n);
        for (int32_t k = 0; k < n; k++) {
            reverse[k] = order[n - 1 - k];
        }
    }
    for (int32_t i = 0; i < 2 * draws; i++) {
        memcpy(w->before + (int64_t)i * s->estimate->items, s->estimate->empty,
               (size_t)s->estimate->items * sizeof(double));
        memcpy(w->value[i], s->value_empty, sizeof w->value[i]);
        w->ended[i] = false;
    }
}

/* The coalitions of this step: each walk's players up to and with the one at `place`. */
static int32_t step_pack(struct walks *w, int32_t walks, int32_t place)
{
    struct meed_draws *s = &w->draws;
    int32_t rows = 0;
    for (int32_t i = 0; i < walks; i++) {
        double to_go = fabs(s->value_full[0] - w->value[i][0]);
        w->ended[i] = w->ended[i] || (place > 0 && to_go < s->options->truncation);
        w->row[i] = -1;
        if (w->ended[i] || place == s->active - 1) {
            continue; /* all players: known */
        }
        w->row[i] = rows++;
        double *members = meed_draws_members(s, w->row[i]);
        memset(members, 0, (size_t)s->estimate->players * sizeof *members);
        for (int32_t k = 0; k <= place; k++) {
            members[w->order[(int64_t)i * s->active + k]] = 1.0;
        }
    }
    return rows;
}

static void step_credit(struct walks *w, int32_t walks, int32_t place)
{
    struct meed_draws *s = &w->draws;
    for (int32_t i = 0; i < walks; i++) {
        if (w->ended[i]) {
            continue;
        }
        bool known = w->row[i] < 0;
        const double *now = known ? s->estimate->full : meed_draws_utilities(s, w->row[i]);
        const double *values = known ? s->value_full : meed_draws_values(s, w->row[i]);
        double *before = w->before + (int64_t)i * s->estimate->items;
        meed_draws_credit(s, i / 2, (int32_t)w->order[(int64_t)i * s->active + place], 0.5, now,
                          values, before, w->value[i]);
        memcpy(before, now, (size_t)s->estimate->items * sizeof *before);
        memcpy(w->value[i], values, (size_t)s->watches * sizeof *values);
    }
}

enum meed_status meed_permutation_run(const struct meed_game *game,
                                      const struct meed_estimator_options *options,
                                      struct meed_estimate *estimate)
{
    enum meed_status st = MEED_OK;
    struct walks w = {.draws = {.game = game, .options = options, .estimate = estimate}};
    struct meed_draws *s = &w.draws;
    int64_t cost = MEED_MAX(2 * ((int64_t)game->players - 1), (int64_t)1);
    MEED_TRY_OUT(meed_draws_open(s, WALKS, cost));
    w.order = meed_heap_alloc((size_t)WALKS * (size_t)s->active + 1, sizeof *w.order);
    w.before = meed_heap_alloc((size_t)WALKS * (size_t)game->items, sizeof *w.before);
    if (!w.order || !w.before) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t draws; (draws = meed_draws_next(s, cost)) > 0;) {
        orders_draw(&w, draws);
        for (int32_t place = 0; place < s->active; place++) {
            MEED_TRY_OUT(meed_draws_ask(s, 0, step_pack(&w, 2 * draws, place)));
            step_credit(&w, 2 * draws, place);
        }
        meed_draws_settle(s, draws);
    }
    meed_draws_finish(s);
out:
    meed_heap_free(w.order);
    meed_heap_free(w.before);
    meed_draws_close(s);
    return st;
}
