/* What detector.c (the cohort, products) and detector_factors.c (A and B) share. */
#ifndef MEED_SERVER_DETECTOR_PRIVATE_H
#define MEED_SERVER_DETECTOR_PRIVATE_H

#include "server/detector.h"

/* The moving clients of a cohort, in the order of their bytes. */
struct meed_detector_cohort {
    const struct meed_adapter *global;
    const struct meed_adapter **clients; /* [count] */
    int32_t *origin;                     /* [count] place in the caller's order */
    int32_t count;
    struct meed_step_products products;
    double *cosines; /* [count, count] */
    bool *core;      /* [count] those that make the trimmed centre */
    double *scratch; /* [max(count, modules)] */
};

/* best [count]: the larger of the cosines of A's and of B's change with the core's mean change of
 * unit length, the client itself left out. A factor that stands still says nothing; if both do,
 * 0. */
MEED_MUST_CHECK enum meed_status
meed_detector_factor_cosines(const struct meed_detector_cohort *cohort, struct meed_arena *arena,
                             double *best);

/* ⟨x, S − own x⟩/‖S − own x‖ for a unit vector x with ⟨x, S⟩ = with and ‖S‖² = square; 0 if nothing
 * is left of S. */
double meed_detector_centre_cosine(double with, double square, bool own);

#endif
