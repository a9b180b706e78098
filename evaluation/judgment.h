/* Judging the answers of models: requests out, ratings in, a file that FastChat reads.
 *
 *   single   each answered turn gets a rating 1 … 10; a model's score is the mean over its turns
 *   pair     two models' answers are shown in both orders, since judges favour a place (GPT-4
 *            agrees with itself on the swapped order in 65 % of pairs, Zheng et al. 2023); the
 * score is the mean over both orders of p(better) + ½·p(draw)
 *
 * Scores are the expectation of the judge's distribution where it gives one. Errors are standard
 * errors over questions, because the two turns of a question are not independent. A reply without
 * a readable mark is score −1, as in FastChat: written, counted, and left out of the means.
 *
 * Null answers (an empty one, and one fixed sentence) are judged beside the models on request: a
 * constant answer has fooled strong judges (Zheng X. et al. 2024), and a judge that rates a null
 * answer near the models cannot decide pay.
 */
#ifndef MEED_EVALUATION_JUDGMENT_H
#define MEED_EVALUATION_JUDGMENT_H

#include "evaluation/judge.h"
#include "evaluation/judge_prompt.h"

MEED_BEGIN_C

struct meed_judgment {
    int32_t question; /* index */
    int32_t turn;     /* from 0 */
    int32_t model_a;  /* index */
    int32_t model_b;  /* -1: single */
    enum meed_judge_role role;
    struct meed_judge_request request; /* a first */
    struct meed_judge_reply reply;
    struct meed_judge_request swapped; /* pair: b first */
    struct meed_judge_reply swapped_reply;
    double score; /* single: expected rating, -1 unread; pair: share of a in [0, 1], -1 unread */
};

struct meed_judgments {
    struct meed_arena arena;
    const struct meed_fastchat_questions *questions; /* borrowed, as are the models */
    const struct meed_fastchat_answers *const *models;
    int32_t model_count;
    bool pair;
    int32_t count;
    struct meed_judgment *items; /* by model (pair), question, turn */
};

/* Builds the requests: turns that a model answered; for pairs, turns that both did, over all pairs
 * of models. ARG if there is nothing to judge. */
MEED_MUST_CHECK enum meed_status
meed_judgments_plan(const struct meed_fastchat_questions *questions,
                    const struct meed_fastchat_answers *const *models, int32_t model_count,
                    bool pair, const struct meed_judge_prompts *prompts,
                    struct meed_judgments **judgments);
MEED_MUST_CHECK enum meed_status
meed_judgments_ask(struct meed_judgments *judgments, const struct meed_judge *judge,
                   void (*done)(void *user, int64_t done, int64_t total), void *user);
void meed_judgments_destroy(struct meed_judgments *judgments); /* accepts NULL */

struct meed_judgment_mean {
    int32_t questions; /* that count */
    int32_t unread;    /* turns without a mark */
    double mean;
    double se; /* over questions; 0 for a single one */
};
/* Of one model over turns [turn_from, turn_to), one category (NULL: all). Single: ratings; pair:
 * shares against all other models. */
struct meed_judgment_mean meed_judgments_mean(const struct meed_judgments *judgments, int32_t model,
                                              int32_t turn_from, int32_t turn_to,
                                              const char *category);

/* FastChat's …_single.jsonl or …_pair.jsonl, whole file or none; "expected" and "mass" are added to
 * its keys. */
MEED_MUST_CHECK enum meed_status meed_judgments_write(const char *path,
                                                      const struct meed_judgments *judgments,
                                                      const struct meed_judge *judge,
                                                      const struct meed_judge_prompts *prompts,
                                                      int64_t wall_ms);

MEED_END_C
#endif
