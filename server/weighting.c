/* See weighting.h. */
#include "server/weighting.h"

#include <stdlib.h>
#include <string.h>

static const double even_share = 0.25, memory = 0.5;

static const char *const names[MEED_WEIGHTING_COUNT] = {"uniform", "samples", "contribution"};

const char *meed_weighting_name(enum meed_weighting weighting)
{
    return weighting >= 0 && weighting < MEED_WEIGHTING_COUNT ? names[weighting] : "?";
}

static void set_uniform(int32_t count, double *p)
{
    for (int32_t i = 0; i < count; i++) {
        p[i] = 1.0 / count;
    }
}

/* ---- samples ----------------------------------------------------------------------------------
 */

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

enum meed_status meed_weighting_counts(const int64_t *samples, int32_t count, double cap,
                                       double *counts)
{
    double *sorted = meed_heap_alloc((size_t)count + 1, sizeof *sorted);
    if (!sorted) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        counts[i] = sorted[i] = (double)MEED_MAX(samples[i], (int64_t)0);
    }
    qsort(sorted, (size_t)count, sizeof *sorted, rising);
    double most = count > 0 ? cap * 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]) : 0.0;
    for (int32_t i = 0; i < count; i++) {
        counts[i] = most > 0.0 ? MEED_MIN(counts[i], most) : 0.0;
    }
    meed_heap_free(sorted);
    return MEED_OK;
}

enum meed_status meed_weighting_claims(const struct meed_cohort *cohort, double cap, double *counts)
{
    int64_t *samples = meed_heap_alloc((size_t)cohort->count + 1, sizeof *samples);
    if (!samples) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < cohort->count; i++) {
        samples[i] = cohort->updates[i].sample_count;
    }
    enum meed_status st = meed_weighting_counts(samples, cohort->count, cap, counts);
    meed_heap_free(samples);
    return st;
}

/* Counts to shares of 1; only zeros are uniform. */
static void normalise(int32_t count, double *p)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        sum += p[i];
    }
    for (int32_t i = 0; i < count; i++) {
        p[i] /= sum > 0.0 ? sum : 1.0;
    }
    if (!(sum > 0.0)) {
        set_uniform(count, p);
    }
}

enum meed_status meed_weighting_samples(const int64_t *samples, int32_t count, double cap,
                                        double *p)
{
    MEED_TRY(meed_weighting_counts(samples, count, cap, p));
    normalise(count, p);
    return MEED_OK;
}

/* ---- contribution -----------------------------------------------------------------------------
 */

void meed_weighting_reputation(const double *reputation, int32_t count, double *p)
{
    double known = 0.0;
    int32_t seen = 0;
    for (int32_t i = 0; i < count; i++) {
        known += reputation[i] >= 0.0 ? reputation[i] : 0.0;
        seen += reputation[i] >= 0.0;
    }
    if (!(known > 0.0)) {
        set_uniform(count, p);
        return;
    }
    double newcomer = known / seen, sum = known + newcomer * (count - seen);
    for (int32_t i = 0; i < count; i++) {
        double own = reputation[i] >= 0.0 ? reputation[i] : newcomer;
        p[i] = even_share / count + (1.0 - even_share) * own / sum;
    }
}

static void add_round(const struct meed_ledger_round *entry, const struct meed_cohort *cohort,
                      double *reputation)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        for (int32_t c = 0; c < entry->client_count; c++) {
            const struct meed_ledger_client *line = &entry->clients[c];
            if (line->state == MEED_RECEIPT_ABSENT || strcmp(line->id, cohort->names[i]) != 0) {
                continue;
            }
            bool counts = line->state != MEED_RECEIPT_EXCLUDED && line->weight > 0.0;
            double now = counts && line->phi > 0.0 ? line->phi / line->weight : 0.0;
            reputation[i] =
                reputation[i] < 0.0 ? now : memory * reputation[i] + (1.0 - memory) * now;
        }
    }
}

static enum meed_status read_reputations(struct meed_ledger *ledger,
                                         const struct meed_cohort *cohort, double *reputation)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    for (int32_t round = 1; round < cohort->round; round++) {
        if (!meed_ledger_find(ledger, round, &place) || place.kind != MEED_LEDGER_ROUND) {
            continue;
        }
        meed_arena_reset(&arena);
        MEED_TRY_OUT(meed_ledger_read_round(ledger, place.index, &arena, &entry));
        add_round(&entry, cohort, reputation);
    }
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- the rule ----------------------------------------------------------------------------------
 */

static enum meed_status by_samples(const struct meed_cohort *cohort, double cap, double *p)
{
    MEED_TRY(meed_weighting_claims(cohort, cap, p));
    normalise(cohort->count, p);
    return MEED_OK;
}

static enum meed_status by_contribution(struct meed_ledger *ledger,
                                        const struct meed_cohort *cohort, double *p)
{
    double *reputation = meed_heap_alloc((size_t)cohort->count + 1, sizeof *reputation);
    if (!reputation) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < cohort->count; i++) {
        reputation[i] = -1.0;
    }
    enum meed_status st = read_reputations(ledger, cohort, reputation);
    if (st == MEED_OK) {
        meed_weighting_reputation(reputation, cohort->count, p);
    }
    meed_heap_free(reputation);
    return st;
}

enum meed_status meed_weighting_run(const struct meed_terms *terms, struct meed_ledger *ledger,
                                    const struct meed_cohort *cohort, double *p)
{
    switch (terms->weighting) {
    case MEED_WEIGHTING_SAMPLES:
        return by_samples(cohort, terms->sample_cap, p);
    case MEED_WEIGHTING_CONTRIBUTION:
        return by_contribution(ledger, cohort, p);
    default:
        set_uniform(cohort->count, p);
        return MEED_OK;
    }
}
