/* Exposure: how many bits of a planted secret a model knows.
 *
 *     exposure = log2 |R| − log2 rank
 *
 * with R all texts of the canary's format and rank the secret's place among them by the model's
 * log-likelihood of the reply (Carlini et al. 2019). A model that never saw the secret has it at a
 * random place: log2 e = 1.44 bits on the average of large spaces, which is the floor to compare
 * with. The whole log2 |R| means that the secret is the first that the model would name.
 *
 * Where R is small, all of it is scored and the rank is exact, ties at half. Else m candidates are
 * drawn from the rest of R and the secret's place among them estimates the quantile:
 *
 *     exposure = −log2 ((1 + better + ties/2) / (m + 1))
 *
 * The paper's other way, a skew-normal fitted to the candidates' log-likelihoods and integrated
 * below the secret's, is not used. It promises numbers beyond what was sampled, from the tail of a
 * fit, where a fit is worst; tokens make the likelihoods of digits lumpy, not normal. The place in
 * a sample assumes nothing and is a valid p-value, but it saturates: a secret before all m
 * candidates reads log2(m + 1), "at least", and `capped` says so.
 */
#ifndef MEED_EVALUATION_EXPOSURE_H
#define MEED_EVALUATION_EXPOSURE_H

#include "engine/chat.h"
#include "evaluation/audit_models.h"
#include "evaluation/canary.h"

MEED_BEGIN_C

/* Of the secret's log-likelihood among those of `count` other candidates, all of R or a draw. */
double meed_exposure_bits(double secret, const double *others, int32_t count, bool *capped);

struct meed_exposure_options {
    const struct meed_chat *chat; /* borrowed */
    int32_t candidates;           /* scored for each canary; all, if the space is not larger */
    uint64_t seed;                /* of their draw */
    meed_coalition_progress_fn progress; /* counts canaries, over all models; may be NULL */
    void *user;
};

/* Of one model, over the canaries. */
struct meed_exposure {
    double bits; /* mean */
    double se;
    int32_t capped; /* secrets before every candidate scored: all that can be known of them */
    double *each;   /* [count] bits, from the arena */
};

/* results [models]. */
MEED_MUST_CHECK enum meed_status meed_exposure_run(struct meed_audit_models *models,
                                                   const struct meed_canaries *canaries,
                                                   const struct meed_exposure_options *options,
                                                   struct meed_arena *arena,
                                                   struct meed_exposure *results);

MEED_END_C
#endif
