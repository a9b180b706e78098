/* See roc.h. */
#include "report/roc.h"

#include <math.h>
#include <stdlib.h>

struct member {
    double score;
    bool bad;
};

static int by_falling_score(const void *left, const void *right)
{
    double a = ((const struct member *)left)->score, b = ((const struct member *)right)->score;
    return (a < b) - (a > b);
}

enum meed_status meed_roc_trace(const double *score, const bool *bad, int32_t count,
                                struct meed_arena *arena, struct meed_roc *roc)
{
    void *block = NULL;
    *roc = (struct meed_roc){.area = NAN};
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)count, sizeof(struct member), &block));
    struct member *members = block;
    int32_t bads = 0;
    for (int32_t i = 0; i < count; i++) {
        members[i] = (struct member){score[i], bad[i]};
        bads += bad[i];
    }
    if (bads == 0 || bads == count) {
        return MEED_OK;
    }
    qsort(members, (size_t)count, sizeof *members, by_falling_score);
    size_t corners = (size_t)count + 1;
    MEED_TRY(meed_arena_alloc_array(arena, corners, sizeof(double), &block));
    roc->false_positive = block;
    MEED_TRY(meed_arena_alloc_array(arena, corners, sizeof(double), &block));
    roc->true_positive = block;
    roc->area = 0;
    roc->count = 1; /* (0, 0) */
    int32_t caught = 0;
    for (int32_t i = 0; i < count; i++) {
        caught += members[i].bad;
        if (i + 1 < count && members[i + 1].score == members[i].score) {
            continue;
        }
        double x = (double)(i + 1 - caught) / (count - bads), y = (double)caught / bads;
        int32_t last = roc->count - 1;
        roc->area += (x - roc->false_positive[last]) * (y + roc->true_positive[last]) / 2;
        roc->false_positive[roc->count] = x;
        roc->true_positive[roc->count++] = y;
    }
    return MEED_OK;
}
