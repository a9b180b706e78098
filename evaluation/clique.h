/* Groups that pull together at something which the benchmark does not see.
 *
 * A trigger that many clients plant costs no dialogue anything and leaves every single update
 * looking like its neighbours. But those who plant it push one way, and a direction that many share
 * shows in the spectrum of the cohort long before it shows in one of them (spectral signatures,
 * Tran, Li and Madry 2018, there of examples in one data set). Honest clients share directions as
 * well, those of their domains; the difference is what the direction is for. Along a domain's the
 * values of dialogues differ between clients, along a hidden one no more than along noise.
 *
 * Directions, from the steps alone. C are the cosines of a cohort of n, H takes the mean off.
 * Eigenvectors of HCH count whose eigenvalue passes
 *
 *     d + 2 σ √n (1 + 1.64 n^(−2/3))    d: mean of the diagonal; σ: deviation of entries beside it
 *
 * since 2 σ √n is where the spectrum of symmetric noise ends (Wigner 1955, Füredi and Komlós 1981),
 * and the second term where the largest eigenvalue stays in 99.9 % of cases (Tracy and Widom 1996).
 * σ is the scaled median deviation, which the few large entries of a group do not move. A cohort of
 * specialists spreads its cosines by itself, so there σ is large and weak groups go unseen.
 *
 * Hidden directions, from the values. In the span of the directions those are sought along which
 * item values, each brought to mean 0 and deviation 1 over the cohort, vary least: eigenvectors of
 * AᵀPPᵀA with A the loadings and P the item values. Their effect is the eigenvalue over its mean
 * outside the span, 1 for noise. Below 3 a direction is hidden. (When that
 * was chosen, on cohorts of 40 and 100 clients with ten dialogues each, honest directions had 4 to
 * 19, and that of a trigger or of none 1.3 to 2.1.)
 *
 * Members. How far a loading lies from those of most of the cohort, in deviations (spread.h): many
 * are near the middle of a direction that comes of mixed data, a group stands far off.
 *
 * What it leaves out: groups of nearly half of the cohort, for which the rest is the group; a
 * single attacker, who shares nothing; and honest clients who teach what no dialogue of the
 * benchmark asks for look just the same: a benchmark that leaves out what a member is for should be
 * mended.
 */
#ifndef MEED_EVALUATION_CLIQUE_H
#define MEED_EVALUATION_CLIQUE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum {
    MEED_CLIQUE_DIRECTIONS = 16, /* of a cohort, at most: the strongest */
    MEED_CLIQUE_LEAST = 20       /* clients; under them no spectrum is told from noise */
};

/* Loadings of the directions that clients share: loadings [clients, MEED_CLIQUE_DIRECTIONS], 0
 * beyond *count and for fewer clients than MEED_CLIQUE_LEAST. cosines [clients, clients],
 * symmetric. */
MEED_MUST_CHECK enum meed_status meed_clique_directions(const double *cosines, int32_t clients,
                                                        double *loadings, int32_t *count);

struct meed_clique_cohort {
    int32_t players, items;
    const bool *null;       /* [players]: take no part */
    const double *loadings; /* [players, MEED_CLIQUE_DIRECTIONS], 0 for directions that are none */
    const double *phi;      /* [players, items] item values */
};

/* deviations [players]: the largest of a client's loading on a hidden direction, 0 where there is
 * none. */
MEED_MUST_CHECK enum meed_status meed_clique_hidden(const struct meed_clique_cohort *cohort,
                                                    double *deviations);

/* deviations [clients]: the largest of |loading − middle| of the column, as above, of any direction
 * whatever its use. */
MEED_MUST_CHECK enum meed_status meed_clique_apart(const double *loadings, int32_t clients,
                                                   int32_t count, double *deviations);

MEED_END_C
#endif
