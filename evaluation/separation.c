/* See separation.h. All scores are sorted once; a bootstrap draw is then a weight for each of them
 * and one walk. */
#include "evaluation/separation.h"

#include <math.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/rng.h"

struct entry {
    double score;
    double weight;
    bool member;
    int32_t idx; /* in its own list */
};

struct sorted {
    struct entry *entries; /* [count], scores falling */
    int32_t count, members;
};

static int falling(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score ? 1 : 0;
}

static enum meed_status fill(struct sorted *s, const double *scores, int32_t count, bool member)
{
    for (int32_t i = 0; i < count; i++) {
        if (!isfinite(scores[i])) {
            return MEED_FAIL(MEED_NUMERIC, "the score of %s %d is not a finite number",
                             member ? "member" : "non-member", (int)i + 1);
        }
        s->entries[s->count++] = (struct entry){scores[i], 1, member, i};
    }
    return MEED_OK;
}

/* End of the run of equal scores that begins at `at`; its weights by class. */
static int32_t run_of(const struct sorted *s, int32_t at, double weights[2])
{
    int32_t end = at;
    weights[0] = weights[1] = 0;
    for (; end < s->count && s->entries[end].score == s->entries[at].score; end++) {
        weights[s->entries[end].member] += s->entries[end].weight;
    }
    return end;
}

static double area_of(const struct sorted *s)
{
    double wins = 0, members = 0, others = 0, weights[2];
    for (int32_t at = 0; at < s->count;) {
        at = run_of(s, at, weights);
        wins += weights[0] * (members + 0.5 * weights[1]);
        members += weights[1];
        others += weights[0];
    }
    return wins / (members * others);
}

static double found_at(const struct sorted *s, double alarm_share)
{
    const double most = alarm_share * (double)(s->count - s->members) + 1e-9;
    double found = 0, alarms = 0, weights[2];
    for (int32_t at = 0; at < s->count;) {
        at = run_of(s, at, weights);
        alarms += weights[0];
        if (alarms > most) {
            break;
        }
        found += weights[1];
    }
    return found / (double)s->members;
}

/* Multiplicities of one draw, members and others each with replacement. */
static void resample(struct sorted *s, double *multiplicity, uint64_t seed, int32_t draw)
{
    struct meed_rng rng = meed_rng_stream(seed, "separation", (uint64_t)draw);
    const int32_t others = s->count - s->members;
    for (int32_t i = 0; i < s->count; i++) {
        multiplicity[i] = 0;
    }
    for (int32_t i = 0; i < s->members; i++) {
        multiplicity[meed_rng_below(&rng, (uint64_t)s->members)] += 1;
    }
    for (int32_t i = 0; i < others; i++) {
        multiplicity[s->members + (int32_t)meed_rng_below(&rng, (uint64_t)others)] += 1;
    }
    for (int32_t i = 0; i < s->count; i++) {
        struct entry *entry = &s->entries[i];
        entry->weight = multiplicity[entry->member ? entry->idx : s->members + entry->idx];
    }
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

enum meed_status meed_separation_measure(const double *members, int32_t count, const double *others,
                                         int32_t other_count, int32_t draws, uint64_t seed,
                                         struct meed_separation *separation)
{
    enum meed_status st = MEED_OK;
    const size_t all = (size_t)count + (size_t)other_count;
    struct meed_separation made;
    struct sorted sorted = {.entries = meed_heap_alloc(all, sizeof(struct entry)),
                            .members = count};
    double *multiplicity = meed_heap_alloc(all, sizeof *multiplicity);
    double *areas = meed_heap_alloc((size_t)draws, sizeof *areas);
    MEED_ASSERT(count >= 1 && other_count >= 1 && draws >= 40);
    if (!sorted.entries || !multiplicity || !areas) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(fill(&sorted, members, count, true));
    MEED_TRY_OUT(fill(&sorted, others, other_count, false));
    qsort(sorted.entries, all, sizeof *sorted.entries, falling);
    made.area = area_of(&sorted);
    made.found_1 = found_at(&sorted, 0.01);
    made.found_5 = found_at(&sorted, 0.05);
    for (int32_t d = 0; d < draws; d++) {
        resample(&sorted, multiplicity, seed, d);
        areas[d] = area_of(&sorted);
    }
    qsort(areas, (size_t)draws, sizeof *areas, rising);
    made.low = areas[(int32_t)(0.025 * draws)];
    made.high = areas[draws - 1 - (int32_t)(0.025 * draws)];
    *separation = made;
out:
    meed_heap_free(sorted.entries);
    meed_heap_free(multiplicity);
    meed_heap_free(areas);
    return st;
}
