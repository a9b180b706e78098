/* See verdict.h. */
#include "evaluation/verdict.h"

#include <math.h>
#include "base/buf.h"
#include "evaluation/spread.h"

enum { COMPARED_LEAST = 3, UNLIKE_LEAST = 6, GUARDS_MOST = 32 };
static const double apart_error = 1.8; /* Z where a client's own error makes the deviation … */
static const double apart_cohort = 1.5; /* … and on top where the cohort's spread does, estimated */
static const double unlike_least = 4.0;       /* u and d together */
static const double unlike_also = 3.0;        /* u that makes do with … */
static const double apart_also = 1.5;         /* … so many deviations below the middle */
static const double unlike_least_alone = 2.0; /* u of whoever is left out as unlike */
static const double better_least = 2.5;       /* in a category, to be excused … */
static const double better_share = 0.6;       /* … and of u */

struct bench {
    const struct meed_verdict_cohort *cohort;
    int32_t moving;  /* clients that are not null */
    bool *out;       /* [players]: by a guard axis that was judged already */
    double *scratch; /* [players] */
};

static struct meed_spread spread_of(const struct bench *bench,
                                    const struct meed_verdict_column *column)
{
    int32_t count = 0;
    for (int32_t k = 0; k < bench->cohort->players; k++) {
        if (!bench->cohort->null[k]) {
            bench->scratch[count++] = column->value[k];
        }
    }
    return meed_spread_of(bench->scratch, count);
}

/* That of who is not out yet, and how many those are; of all where too few are left to compare
 * with. */
static struct meed_spread spread_of_rest(const struct bench *bench,
                                         const struct meed_verdict_column *column, int32_t *members)
{
    *members = 0;
    for (int32_t k = 0; k < bench->cohort->players; k++) {
        if (!bench->cohort->null[k] && !bench->out[k]) {
            bench->scratch[(*members)++] = column->value[k];
        }
    }
    if (*members < COMPARED_LEAST) {
        *members = bench->moving;
        return spread_of(bench, column);
    }
    return meed_spread_of(bench->scratch, *members);
}

/* (middle − x)/σ of a client, its own error included; 0 where nothing varies. */
static double deficit_of(const struct meed_verdict_column *column, struct meed_spread spread,
                         int32_t k)
{
    double scale = hypot(spread.deviation, column->error[k]);
    double below = spread.middle - column->value[k];
    return scale > 0.0 ? below / scale : 0.0;
}

/* Z of verdict.h, against a cohort of so many members. */
static double limit_of(const struct meed_verdict_column *column, struct meed_spread spread,
                       int32_t members, int32_t k)
{
    double cohort = spread.deviation * spread.deviation, own = column->error[k] * column->error[k];
    double share = cohort + own > 0.0 ? cohort / (cohort + own) : 0.0;
    return apart_error + apart_cohort * share * (1.0 + 2.0 / (members - 2));
}

static double depth_of(const struct meed_verdict_column *column, int32_t k)
{
    return -column->value[k] / fmax(column->error[k], 1e-300);
}

/* x/limit, a limit of 0 being met by all that is above 0. */
static double against(double x, double limit)
{
    return limit > 0.0 ? x / limit : x > 0.0 ? 1.0 + x : 0.0;
}

static void raise_to(struct meed_verdict *verdict, double score, enum meed_verdict_cause cause)
{
    verdict->score = fmax(verdict->score, score);
    if (score > 1.0 && verdict->cause == MEED_VERDICT_STAYS) {
        verdict->cause = cause;
    }
}

/* How far below the middle of guard axis g everybody is, in deviations, and the score that follows;
 * the middle is that of who is not out yet. */
static void weigh_guard(const struct bench *bench, int32_t g, double *below, double *score)
{
    const struct meed_verdict_cohort *cohort = bench->cohort;
    const struct meed_verdict_column *column = &cohort->guards[g];
    int32_t members = 0;
    struct meed_spread spread = spread_of_rest(bench, column, &members);
    for (int32_t k = 0; k < cohort->players; k++) {
        if (cohort->null[k]) {
            continue;
        }
        below[k] = deficit_of(column, spread, k);
        double aside =
            members < COMPARED_LEAST ? INFINITY : below[k] / limit_of(column, spread, members, k);
        if (cohort->unlike) {
            aside = fmax(aside, fmin(cohort->unlike[k] / unlike_also, below[k] / apart_also));
        }
        score[k] = fmax(0.0, fmin(against(depth_of(column, k), cohort->z), aside));
    }
}

/* The axis not yet judged on which anybody stands out most, weighed without those whom the axes
 * `judged` put out. */
static int32_t strongest_guard(const struct bench *bench, uint32_t judged, double *below,
                               double *score)
{
    int32_t strongest = -1;
    double most = -1.0;
    for (int32_t g = 0; g < bench->cohort->guard_count; g++) {
        if (judged >> g & 1) {
            continue;
        }
        double worst = 0.0;
        weigh_guard(bench, g, below, score);
        for (int32_t k = 0; k < bench->cohort->players; k++) {
            worst = bench->cohort->null[k] ? worst : fmax(worst, score[k]);
        }
        if (worst > most) {
            strongest = g;
            most = worst;
        }
    }
    weigh_guard(bench, strongest, below, score);
    return strongest;
}

/* Whoever fails by an axis is no measure of the others on the next: four who send garbage harm
 * safety a little and all alike, and would make the middle there that an honest client lies below.
 * So the clearest axis is judged first, against everybody, and each other one without those who are
 * out by then. Not the other way round: one honest client taken off the clear axis by a faint one
 * can leave four attackers of nine, who then are most of the cohort that they are measured by. */
static void judge_guards(const struct bench *bench, double *below, double *score,
                         struct meed_verdict *verdicts)
{
    const struct meed_verdict_cohort *cohort = bench->cohort;
    uint32_t judged = 0;
    for (int32_t turn = 0; turn < cohort->guard_count; turn++) {
        int32_t g = strongest_guard(bench, judged, below, score);
        judged |= UINT32_C(1) << g;
        for (int32_t k = 0; k < cohort->players; k++) {
            struct meed_verdict *verdict = &verdicts[k];
            if (cohort->null[k]) {
                continue;
            }
            verdict->deficit = fmax(verdict->deficit, below[k]);
            bench->out[k] = bench->out[k] || score[k] > 1.0;
            if (score[k] > 1.0 &&
                (verdict->guard < 0 ||
                 depth_of(&cohort->guards[g], k) > depth_of(&cohort->guards[verdict->guard], k))) {
                verdict->guard = g;
            }
            raise_to(verdict, score[k], MEED_VERDICT_GUARD);
        }
    }
}

/* better [players]: than the cohort in a client's best category, in deviations. */
static void find_better(const struct bench *bench, double *better)
{
    const struct meed_verdict_cohort *cohort = bench->cohort;
    for (int32_t c = 0; c < cohort->category_count; c++) {
        struct meed_spread spread = spread_of(bench, &cohort->categories[c]);
        for (int32_t k = 0; k < cohort->players; k++) {
            better[k] = fmax(better[k], -deficit_of(&cohort->categories[c], spread, k));
        }
    }
}

static enum meed_status check(const struct meed_verdict_cohort *cohort)
{
    MEED_ASSERT(cohort->guard_count <= GUARDS_MOST);
    if (cohort->players < 1 || !(cohort->z >= 0.0)) {
        return MEED_FAIL(MEED_ARG, "a verdict needs at least one client and a z of 0 or more");
    }
    for (int32_t k = 0; k < cohort->players; k++) {
        double sum = cohort->paid.value[k] + cohort->paid.error[k];
        for (int32_t g = 0; g < cohort->guard_count; g++) {
            sum += cohort->guards[g].value[k] + cohort->guards[g].error[k];
        }
        sum += cohort->unlike ? cohort->unlike[k] : 0.0;
        sum += cohort->clique ? cohort->clique[k] : 0.0;
        if (!isfinite(sum)) {
            return MEED_FAIL(MEED_NUMERIC, "the value of client %d is %g ± %g, not a number", k,
                             cohort->paid.value[k], cohort->paid.error[k]);
        }
    }
    return MEED_OK;
}

/* How much better in some category excuses an update that stands out by u. */
static double enough_for(double u)
{
    return fmax(better_least, better_share * u);
}

/* Out by its update, if it is of no use: unlike all others, or like those of a group. */
static void judge_updates(const struct bench *bench, const double *better,
                          struct meed_verdict *verdicts)
{
    const struct meed_verdict_cohort *cohort = bench->cohort;
    for (int32_t k = 0; k < cohort->players; k++) {
        if (cohort->null[k] || bench->moving < UNLIKE_LEAST) {
            continue;
        }
        if (cohort->unlike && better[k] < enough_for(cohort->unlike[k])) {
            double together = hypot(cohort->unlike[k], fmax(verdicts[k].deficit, 0.0));
            bool stands = cohort->unlike[k] >= unlike_least_alone && verdicts[k].deficit > 0.0;
            double score = together / unlike_least;
            raise_to(&verdicts[k], stands ? score : fmin(score, 1.0), MEED_VERDICT_UNLIKE);
        }
        if (cohort->clique && better[k] < enough_for(cohort->clique[k])) {
            raise_to(&verdicts[k], cohort->clique[k] / meed_spread_limit(bench->moving),
                     MEED_VERDICT_CLIQUE);
        }
    }
}

static void judge_paid(const struct bench *bench, struct meed_verdict *verdicts)
{
    const struct meed_verdict_cohort *cohort = bench->cohort;
    struct meed_spread paid = spread_of(bench, &cohort->paid);
    for (int32_t k = 0; k < cohort->players; k++) {
        verdicts[k] = (struct meed_verdict){.cause = MEED_VERDICT_STAYS, .guard = -1};
        if (!cohort->null[k]) {
            verdicts[k].deficit = deficit_of(&cohort->paid, paid, k);
            raise_to(&verdicts[k], fmax(0.0, against(depth_of(&cohort->paid, k), cohort->z)),
                     MEED_VERDICT_HARMFUL);
        }
        bench->out[k] = false;
    }
}

enum meed_status meed_verdict_run(const struct meed_verdict_cohort *cohort,
                                  struct meed_verdict *verdicts)
{
    enum meed_status st = MEED_OK;
    struct bench bench = {.cohort = cohort};
    double *columns = NULL;
    MEED_TRY(check(cohort));
    size_t players = (size_t)cohort->players;
    columns = meed_heap_alloc(4 * players, sizeof *columns);
    bench.out = meed_heap_alloc(players, sizeof *bench.out);
    if (!columns || !bench.out) {
        st = MEED_NOMEM;
        goto out;
    }
    double *better = columns + players;
    bench.scratch = columns;
    for (int32_t k = 0; k < cohort->players; k++) {
        bench.moving += cohort->null[k] ? 0 : 1;
    }
    judge_paid(&bench, verdicts);
    judge_guards(&bench, columns + 2 * players, columns + 3 * players, verdicts);
    find_better(&bench, better);
    judge_updates(&bench, better, verdicts);
out:
    meed_heap_free(bench.out);
    meed_heap_free(columns);
    return st;
}
