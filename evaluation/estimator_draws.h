/* Shared by the estimators only: how samples of marginal gains become values with errors.
 *
 * A *draw* is one independent sample of every player's value: a pair of orders, a sweep over the
 * strata, a pair of coalitions. Several draws run side by side so that the game gets its coalitions
 * in batches; each credits its gains as they come and is closed once. Standard errors are those of
 * the mean over closed draws (Welford's recurrence), never of correlated gains inside one.
 */
#ifndef MEED_EVALUATION_ESTIMATOR_DRAWS_H
#define MEED_EVALUATION_ESTIMATOR_DRAWS_H

#include "evaluation/estimator.h"

enum { MEED_DRAWS_BLOCK = 8 /* draws side by side */ };

struct meed_draws {
    const struct meed_game *game;
    const struct meed_estimator_options *options;
    struct meed_estimate *estimate;
    int64_t budget;     /* coalitions */
    int32_t active;     /* players that are not null */
    int32_t *player;    /* [active]: their indices */
    int32_t *kind;      /* [players]: first twin, or the player itself */
    int32_t *kind_size; /* [players] at the first of a kind */
    int32_t capacity;   /* coalitions of one request */
    double *members;    /* [capacity, players] */
    double *utilities;  /* [capacity, items] */
    int32_t watches;
    double *values;  /* [capacity, watches] */
    double *draw;    /* [BLOCK, watches, players]: gains of the open draws */
    double *mean;    /* [watches, players] over closed draws */
    double *squares; /* [watches, players] */
    double value_empty[MEED_ESTIMATOR_MAX_WATCHES];
    double value_full[MEED_ESTIMATOR_MAX_WATCHES];
};

int32_t meed_estimator_watches(const struct meed_estimator_options *options);
/* values [watches]: Σ watch·u. */
void meed_estimator_watch(const struct meed_estimator_options *options, const double *utilities,
                          int32_t items, double *values);
/* Asks the game, counts, and refuses what is not finite. */
MEED_MUST_CHECK enum meed_status meed_estimator_ask(const struct meed_game *game,
                                                    const double *members, int32_t coalitions,
                                                    double *utilities,
                                                    struct meed_estimate *estimate);

/* Room for requests of `capacity` coalitions; asks for u(∅) and u(N). ARG if one draw of
 * draw_cost coalitions does not fit the budget. */
MEED_MUST_CHECK enum meed_status meed_draws_open(struct meed_draws *draws, int32_t capacity,
                                                 int64_t draw_cost);
/* What was zeroed or opened. */
void meed_draws_close(struct meed_draws *draws);
/* Row `row` of the next request. */
double *meed_draws_members(struct meed_draws *draws, int32_t row);
/* Watched values of row `row` [watches]. */
const double *meed_draws_values(const struct meed_draws *draws, int32_t row);
const double *meed_draws_utilities(const struct meed_draws *draws, int32_t row);
/* Scores rows begin … begin + count − 1. */
MEED_MUST_CHECK enum meed_status meed_draws_ask(struct meed_draws *draws, int32_t begin,
                                                int32_t count);
/* Credits factor·(plus − minus) to a player in open draw `draw`: item utilities and their watched
 * values. */
void meed_draws_credit(struct meed_draws *draws, int32_t draw, int32_t player, double factor,
                       const double *plus, const double *plus_values, const double *minus,
                       const double *minus_values);
/* Closes open draws 0 … count − 1, in this order. */
void meed_draws_settle(struct meed_draws *draws, int32_t count);
/* How many draws of draw_cost coalitions to open next; 0: stop, and the estimate says why. */
int32_t meed_draws_next(struct meed_draws *draws, int64_t draw_cost);
/* Means, errors, twins made equal, residual. */
void meed_draws_finish(struct meed_draws *draws);

/* More players than a table of masks holds: u(N) − u(N∖k), a few coalitions at a time. */
MEED_MUST_CHECK enum meed_status
meed_leave_one_out_run(const struct meed_game *game, const struct meed_estimator_options *options,
                       struct meed_estimate *estimate);
MEED_MUST_CHECK enum meed_status meed_permutation_run(const struct meed_game *game,
                                                      const struct meed_estimator_options *options,
                                                      struct meed_estimate *estimate);
MEED_MUST_CHECK enum meed_status meed_owen_run(const struct meed_game *game,
                                               const struct meed_estimator_options *options,
                                               struct meed_estimate *estimate);
MEED_MUST_CHECK enum meed_status meed_banzhaf_run(const struct meed_game *game,
                                                  const struct meed_estimator_options *options,
                                                  struct meed_estimate *estimate);
MEED_MUST_CHECK enum meed_status
meed_aumann_shapley_run(const struct meed_game *game, const struct meed_estimator_options *options,
                        struct meed_estimate *estimate);

#endif
