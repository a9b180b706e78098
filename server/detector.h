/* Detectors: how unlike its cohort an update is, seen in the update alone.
 *
 * Each detector is one number a client, computed on the step D_i = ΔW_i − ΔW_g (step_products.h)
 * and put on one scale, its *ratio*: 1 is where it calls the client suspicious. The anomaly score
 * is the largest ratio, since an attack has to miss in one place alone to be seen. What a ratio of
 * 1 costs a client is policy and stands in defence.h.
 *
 *   idle        D_i is 0 bit for bit: a free-rider, or a client that had nothing to learn
 *   norm        ‖D_i‖ against the cohort's median, in logarithms, both ways
 *   replay      largest cosine with the last global step or an update of the round before
 *   duplicate   largest cosine with another client: copies, and the two names of one person
 *   span        multiple correlation R with all others, R² = 1 − 1/(C_ii C⁻¹_ii) from the cosines
 *               C: a split update, D_i = Σ c_j D_j. Its parts and its whole look alike in it
 *   dispersion  standard deviation over modules of log ‖D_im‖/√(N_m K_m), after the median client's
 *               profile is taken off: an update that puts its weight where others do not (the
 *               weight statistic of arXiv 2605.30189, calibrated on the cohort and not on a base)
 *   direction   cosine with the trimmed centre without the client itself: flipped and random steps
 *   gap         how far the better of cos(A), cos(B) with the factors' centre exceeds `direction`:
 *               factors of an honest look whose product is another thing (gradient assembly).
 *               The reverse, factors unlike and products alike, is a change of gauge and harmless
 *   unlike      the largest deviation z among dispersion, direction and gap, its ratio z/4. By
 * itself it proves nothing, since rare data look rare: it is evidence for the verdict on the
 *               client's value (evaluation/verdict.h) and no part of the score
 *   clique      the largest deviation of its loadings on the directions that clients share
 *               (evaluation/clique.h). A domain makes such a direction as well as a trigger does,
 *               so this too is evidence, and the verdict asks what the direction is good for
 *
 * Trimmed centre: the mean of the unit steps of the 60 % of clients whose median cosine to the
 * others is highest, so up to 40 % of attackers have no say, however long their steps are. It takes
 * a majority of moving clients that share a direction.
 *
 * Scale. norm, dispersion, direction and gap are judged against the cohort: z = (x − middle)/σ,
 * both those of most of it (evaluation/spread.h), σ at least a floor below which differences mean
 * nothing: 10 % in a norm, 5 % in a profile, 0.02 in a cosine. The ratio is z/T(n) for n moving
 * clients, T that of spread.h; under 6 there is no cohort to judge by, and these four stay 0.
 * replay, duplicate and span are judged by themselves, atanh(cos)/atanh(0.999), and the first two
 * also against the cohort from a cosine of 0.9 up, so that a copy with noise of its own is seen
 * where others are not alike.
 *
 * The clients are put into the order of their bytes first, so a permutation of the cohort permutes
 * the results, bit for bit. What it leaves out: everything that shows in behaviour and not in
 * weights (swapped answers, safety flips); that is what value and guard axes are for.
 */
#ifndef MEED_SERVER_DETECTOR_H
#define MEED_SERVER_DETECTOR_H

#include "evaluation/clique.h"
#include "server/step_products.h"

MEED_BEGIN_C

enum meed_detector {
    MEED_DETECTOR_IDLE,
    MEED_DETECTOR_NORM,
    MEED_DETECTOR_REPLAY,
    MEED_DETECTOR_DUPLICATE,
    MEED_DETECTOR_SPAN,
    MEED_DETECTOR_DISPERSION,
    MEED_DETECTOR_DIRECTION,
    MEED_DETECTOR_GAP,
    MEED_DETECTOR_UNLIKE,
    MEED_DETECTOR_CLIQUE,
    MEED_DETECTOR_COUNT
};

const char *meed_detector_name(enum meed_detector detector);

struct meed_detector_client {
    bool moves;                        /* ‖D‖ > 0 and finite; all else is 0 if not */
    bool overflows;                    /* ‖D‖ is not finite */
    double norm;                       /* ‖D‖ */
    double value[MEED_DETECTOR_COUNT]; /* norm: ‖D‖/median; others as above */
    double ratio[MEED_DETECTOR_COUNT]; /* 1: suspicious */
    double score;                      /* the largest ratio but unlike's and clique's */
    int32_t past_idx;                  /* what replay points at: 0 the last global step */
};

struct meed_detector_report {
    int32_t count, moving;
    double median_norm;                   /* of moving clients */
    struct meed_detector_client *clients; /* [count] */
    double *cosines;                      /* [count, count]; 0 where one does not move */
    double *loadings;                     /* [count, MEED_CLIQUE_DIRECTIONS]; the same */
};

/* Cosine from which two steps are the same. */
#define MEED_DETECTOR_SAME 0.999
/* Cosine from which a step that stands out by its likeness is a copy. */
#define MEED_DETECTOR_NEAR 0.9

/* clients [count] as of meed_step_products_measure; NULL entries take no part. All in arena. */
MEED_MUST_CHECK enum meed_status meed_detector_run(const struct meed_adapter *global,
                                                   const struct meed_adapter *const *clients,
                                                   int32_t count, const struct meed_step_past *past,
                                                   struct meed_pool *pool, struct meed_arena *arena,
                                                   struct meed_detector_report *report);

MEED_END_C
#endif
