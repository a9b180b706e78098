/* See judge.h. */
#include "evaluation/judge.h"

#include <string.h>

bool meed_judge_rating(const struct meed_judge_reply *reply, double *rating)
{
    double mass = 0;
    double sum = 0;
    for (int s = 0; s < MEED_JUDGE_MARKS; s++) {
        mass += reply->mass[s];
        sum += (s + 1) * reply->mass[s];
    }
    if (mass <= 0) {
        return false;
    }
    *rating = sum / mass;
    return true;
}

void meed_judge_close(struct meed_judge *judge)
{
    if (judge->destroy) {
        judge->destroy(judge->user);
    }
    memset(judge, 0, sizeof *judge);
}
