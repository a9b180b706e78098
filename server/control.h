/* SCAFFOLD's control variate on the server (Karimireddy et al. 2020).
 *
 * c is one vector in the flat order of the trained ranks, sent with every plan; an update carries
 * Δc_k = c_k' − c_k behind its factors. After a round
 *
 *     c ← c + (1/N) Σ_{k in S} Δc_k       N all clients of the run, S those that were not excluded
 *
 * so c stays the mean of the clients' variates. What a client's variate is, with AdamW, says
 * client/worker.h. c lives in coordinates and goes with merges that keep them; an excluded client's
 * Δc_k is left out like its update. Kept as the blob that the round's "control" stage names, as the
 * moments of a server optimiser are; before the first such round c is zero and is not sent.
 */
#ifndef MEED_SERVER_CONTROL_H
#define MEED_SERVER_CONTROL_H

#include "server/cohort.h"

MEED_BEGIN_C

/* True where the plan is SCAFFOLD's. */
bool meed_control_used(const struct meed_terms *terms);
/* The blob of c for this round: NOT_FOUND where it is still zero. */
MEED_MUST_CHECK enum meed_status meed_control_find(struct meed_store *store, int32_t round,
                                                   uint8_t hash[MEED_SHA256_BYTES]);
/* c after the round, stored; in [cohort->count]: whose Δc counts. clients: N. */
MEED_MUST_CHECK enum meed_status meed_control_advance(struct meed_store *store,
                                                      const struct meed_cohort *cohort,
                                                      const bool *in, int32_t clients);

MEED_END_C
#endif
