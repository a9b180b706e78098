/* Membership inference: was this dialogue in the training data?
 *
 * Two files are told apart, one that a client trained on and one from the same source that nobody
 * did, by four scores of a model's log-probabilities; larger means "member":
 *
 *   loss        mean log p of the learned tokens (Yeom et al. 2018)
 *   zlib        Σ log p over the bytes that zlib needs for their text: what is likely though it
 *               does not compress well (Carlini et al. 2021)
 *   min-k       mean of the k % least likely tokens: a text that was seen has no surprises
 *               (Shi et al. 2024)
 *   reference   mean log p less the same of a model that never saw the data, which takes out how
 *               easy a text is by itself (Carlini et al. 2021; Watson et al. 2022)
 *
 * The last one is as good as its reference: a base model that does not know the trade at all adds
 * its own surprise to the score and hides what the first three show.
 *
 * Only learned tokens count, a reply and its end of turn: a client's loss never touched the rest.
 * What this cannot say: two files that differ in anything but membership (time, topic, length) are
 * told apart by that. The base model is the check: it saw neither file, so an area of its own that
 * is not one half is a difference of the files.
 */
#ifndef MEED_EVALUATION_MEMBERSHIP_H
#define MEED_EVALUATION_MEMBERSHIP_H

#include "engine/tokenizer.h"
#include "evaluation/audit_data.h"
#include "evaluation/audit_models.h"
#include "evaluation/separation.h"

MEED_BEGIN_C

enum meed_membership_score {
    MEED_MEMBERSHIP_LOSS,
    MEED_MEMBERSHIP_ZLIB,
    MEED_MEMBERSHIP_MIN_K,
    MEED_MEMBERSHIP_REFERENCE,
    MEED_MEMBERSHIP_COUNT
};
/* "loss", "zlib", "min-k", "reference". */
const char *meed_membership_score_name(enum meed_membership_score score);

/* The scores from one dialogue's log-probabilities [count ≥ 1], float64. */
double meed_membership_loss(const float *logprobs, int32_t count);
/* `share` of the tokens, rounded to the nearest whole number, at least one. scratch [count]. */
double meed_membership_min_k(const float *logprobs, int32_t count, double share, float *scratch);
/* Bytes of zlib's stream (level 6) of a text. */
MEED_MUST_CHECK enum meed_status meed_membership_zlib_bytes(const char *text, size_t size,
                                                            int64_t *bytes);

struct meed_membership_options {
    const struct meed_tokenizer *tokenizer; /* borrowed */
    double min_k;                           /* share: 0.2 */
    int32_t reference;                      /* model of the calibration, 0: the base */
    int32_t draws;                          /* of the bootstrap */
    uint64_t seed;
    meed_coalition_progress_fn progress; /* counts tokens; may be NULL */
    void *user;
};

/* results [models, MEED_MEMBERSHIP_COUNT]; the reference model's own row of that score is one half,
 * since it differs from itself by nothing. */
MEED_MUST_CHECK enum meed_status meed_membership_run(struct meed_audit_models *models,
                                                     const struct meed_audit_data *members,
                                                     const struct meed_audit_data *others,
                                                     const struct meed_membership_options *options,
                                                     struct meed_separation *results);

MEED_END_C
#endif
