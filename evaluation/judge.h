/* A judge: something that grades a dialogue when asked in words.
 *
 * One interface, two implementations: a model held here (judge_local.c) and an OpenAI-compatible
 * endpoint (judge_endpoint.c). Both answer with a distribution where they can, because the expected
 * rating Σ s·p(s) moves smoothly where the likeliest rating jumps by whole points, and with text
 * where they were asked to think first.
 *
 * Judges err by as much as one client's marginal is worth (reference: MT-Bench re-scorings move by
 * 0.16 to 0.2 points). Their scores are therefore a second axis beside the likelihood, never mixed
 * into it, and never a default: a judge that cannot be reached is an error, not a score.
 */
#ifndef MEED_EVALUATION_JUDGE_H
#define MEED_EVALUATION_JUDGE_H

#include <stdint.h>
#include "base/arena.h"

MEED_BEGIN_C

enum { MEED_JUDGE_MARKS = 10 }; /* ratings 1 … 10; for pairs A, B, C use the first three */

struct meed_judge_request {
    const char *system; /* may be "" */
    const char *user;
    bool pair; /* verdict among A, B, C instead of a rating */
};

struct meed_judge_reply {
    const char *text;              /* what was said, from the arena; never NULL */
    double mass[MEED_JUDGE_MARKS]; /* p(mark), sums to 1; all 0 if nothing could be read */
    bool spread;                   /* mass is the judge's own distribution, not one parsed mark */
};

struct meed_judge {
    const char *name; /* for files and tables */
    void *user;
    /* Replies [count] in the order of requests. A reply that holds no mark is one with mass 0; a
     * judge that failed is a failure of the call. done may be NULL. */
    enum meed_status (*ask)(void *user, const struct meed_judge_request *requests, int32_t count,
                            struct meed_arena *arena, struct meed_judge_reply *replies,
                            void (*done)(void *done_user, int64_t done, int64_t total),
                            void *done_user);
    void (*destroy)(void *user);
};

/* Expected rating; false where the reply holds none. */
bool meed_judge_rating(const struct meed_judge_reply *reply, double *rating);
void meed_judge_close(struct meed_judge *judge); /* accepts zeroed */

MEED_END_C
#endif
