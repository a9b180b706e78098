/* Who is left out of a round, and on what evidence.
 *
 * A value says how much an update helps; it does not say whether to trust it. Likelihood alone pays
 * an answer-swapper well, and every client of an honest cohort may lose a little safety in its
 * first steps. So nobody is left out for a number below zero alone: it takes harm, or harm and
 * being unlike the others, or being unlike the others and of no use to anybody, or pulling with
 * others at something that serves nobody.
 *
 *   HARMFUL  φ + z·se < 0: the paid value itself is below zero beyond its error
 *   GUARD    the same on a guard axis, and the client stands apart from its cohort: it lies below
 *            the middle of that axis by Z(n) deviations, or by 1.5 with an update that stands
 *            out by u ≥ 3
 *   UNLIKE   √(u² + d²) ≥ 4, where u ≥ 2 is how far the update's geometry stands out (detector.h,
 *            in deviations) and d > 0 the client's worst deficit against the middle of any axis;
 * and no category is answered better than by the cohort by 2.5 deviations and 0.6 u: an honest
 * client whose data are like nobody else's stands out as well, but teaches what others cannot
 *   CLIQUE   the same with u the deviation along a hidden direction (clique.h) beyond T(n) of
 *            spread.h, whatever the deficit
 *
 * Middle and deviation are those of most of the cohort (spread.h), which 40 % of attackers do not
 * move, with the client's own error in quadrature, because a difference within the benchmark's
 * noise is none. Of the two the error is known and the spread of few is a rough guess, so
 * Z(n) = 1.8 + 1.5 s (1 + 2/(n − 2)), s the spread's part of the squared deviation. Null players
 * are no part of the cohort; under three members GUARD needs harm alone, and under six there is no
 * UNLIKE. Guard axes are judged one after the other, the clearest first, and who is out by one is
 * no part of the cohort on the next.
 *
 * The thresholds are a choice, made on simulated cohorts of ten with and without attackers, equal
 * and skewed (seeds 1 to 3 of examples/experiments); what they do on other seeds stands in the
 * tables there.
 *
 * `score` puts all of it on one scale: 1 is where a client is left out. It ranks attackers before
 * honest clients far below that line too, which is what experiments measure as AUROC.
 *
 * What it cannot see: an attacker that leaves the benchmark alone and the cohort's geometry too,
 * such as a single client that learns a trigger from few dialogues beside much honest work in a
 * mixed cohort, and a cohort in which most are attackers.
 */
#ifndef MEED_EVALUATION_VERDICT_H
#define MEED_EVALUATION_VERDICT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum meed_verdict_cause {
    MEED_VERDICT_STAYS,
    MEED_VERDICT_HARMFUL,
    MEED_VERDICT_GUARD,
    MEED_VERDICT_UNLIKE,
    MEED_VERDICT_CLIQUE
};

/* A column of evidence: one number and its error for each client. */
struct meed_verdict_column {
    const double *value; /* [players] */
    const double *error; /* [players] ≥ 0 */
};

struct meed_verdict_cohort {
    int32_t players;
    const bool *null; /* [players] */
    struct meed_verdict_column paid;
    int32_t guard_count;
    const struct meed_verdict_column *guards; /* [guard_count] */
    int32_t category_count;
    const struct meed_verdict_column *categories; /* [category_count] of the paid value */
    const double *unlike;                         /* [players] deviations; NULL: nobody looked */
    const double *clique;                         /* [players] of clique.h; NULL: nobody looked */
    double z;
};

struct meed_verdict {
    enum meed_verdict_cause cause;
    int32_t guard;  /* of GUARD: which; the one furthest below zero. Else -1 */
    double deficit; /* d: the worst against the cohort's middle, in deviations; may be < 0 */
    double score;   /* ≥ 0; 1 and more is left out */
};

/* ARG for no players or a negative z; NUMERIC for evidence that is not finite. */
MEED_MUST_CHECK enum meed_status meed_verdict_run(const struct meed_verdict_cohort *cohort,
                                                  struct meed_verdict *verdicts);

MEED_END_C
#endif
