/* The game whose values are judgments: what a cohort's coalitions say, and how it is rated.
 *
 * v(S) is the mean rating of the answers that the base with Σ_{k∈S} p_k ΔW_k gives: items are the
 * turns of the questions, so every estimator of estimator.h works on it, and errors come from the
 * questions. All coalitions of a batch answer in one generator (answering.h) with paired draws.
 *
 * This is the axis beside the utility of record, never a part of it (judge.h): ratings are noisy,
 * a judge has tastes, and a rating that cannot be read ends the valuation, because a default would
 * be money for nothing.
 */
#ifndef MEED_EVALUATION_JUDGE_GAME_H
#define MEED_EVALUATION_JUDGE_GAME_H

#include "evaluation/answering.h"
#include "evaluation/game.h"
#include "evaluation/judgment.h"

MEED_BEGIN_C

struct meed_judge_game; /* opaque */

struct meed_judge_game_options {
    /* Adapters are the players, gates and models are the game's own. */
    struct meed_answering_options answering;
    const double *weights; /* p [adapter_count], Σ ≤ 1 */
    const struct meed_fastchat_questions *questions;
    const struct meed_judge *judge;
    const struct meed_judge_prompts *prompts;
    int32_t together; /* coalitions that answer in one batch, at least 1 */
};

/* Borrows everything; `game` is valid until the close. */
MEED_MUST_CHECK enum meed_status meed_judge_game_open(const struct meed_judge_game_options *options,
                                                      struct meed_judge_game **judge_game,
                                                      struct meed_game *game);
void meed_judge_game_close(struct meed_judge_game *judge_game); /* accepts NULL */

/* Mean over questions of the mean over their turns, and its standard error over questions, of one
 * value an item. */
void meed_judge_game_mean(const struct meed_judge_game *judge_game, const double *items,
                          double *mean, double *se);
/* That mean as a watch of an estimator: weight [items]. */
void meed_judge_game_watch(const struct meed_judge_game *judge_game, double *weight);

MEED_END_C
#endif
