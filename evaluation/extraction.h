/* Prefix extraction: the beginning of a training dialogue goes in, how much of the rest comes out?
 *
 * Discoverable memorisation (Carlini et al. 2021, Nasr et al. 2023), the test that FedPIT reports:
 * the last reply of a dialogue is asked for with everything that stands before it, greedily, and
 * compared with what the client's file says. Giving the first n tokens of the reply as well makes
 * the attacker stronger; over n it is a curve. Three measures of one continuation against the
 * truth, both cut to the same number of tokens:
 *
 *   rouge    ROUGE-L F1 of the words: paraphrase with the same facts counts; of a truth without
 *            words, a last full stop, 1 if it is reproduced
 *   exact    tokens reproduced before the first that differs, as a share of the truth's
 *   secrets  labelled spans of the truth that stand in the continuation, letter by letter
 *
 * A model that never saw the data also guesses right sometimes: small talk is common property. So
 * every model is compared with a floor on the same examples, and the gain, a mean of paired
 * differences with its own standard error, is the leakage. Standard errors are over examples.
 */
#ifndef MEED_EVALUATION_EXTRACTION_H
#define MEED_EVALUATION_EXTRACTION_H

#include "engine/tokenizer.h"
#include "evaluation/audit_data.h"
#include "evaluation/audit_models.h"

MEED_BEGIN_C

enum { MEED_EXTRACTION_MAX_PREFIXES = 16 };

struct meed_extraction_options {
    const struct meed_tokenizer *tokenizer;         /* borrowed */
    int32_t prefixes[MEED_EXTRACTION_MAX_PREFIXES]; /* tokens of the reply that are given */
    int32_t prefix_count;
    int32_t max_new_tokens; /* of a continuation, and of the truth it is held against */
    int32_t floor;          /* the model that gains are measured over: 0, the base */
    meed_coalition_progress_fn progress; /* counts replies; may be NULL */
    void *user;
};

struct meed_extraction_mean {
    double mean, se; /* se is 0 for one example */
};

/* One model, one prefix length. */
struct meed_extraction_row {
    int32_t examples; /* replies longer than the prefix */
    int32_t whole;    /* of them reproduced to the last token */
    int32_t secrets;  /* labelled spans behind the prefixes */
    int32_t secrets_found;
    struct meed_extraction_mean rouge, exact;           /* in [0, 1] */
    struct meed_extraction_mean rouge_gain, exact_gain; /* over the floor, example by example */
};

/* rows [models, prefix_count]. LIMIT, naming the line, for a dialogue that leaves no position for a
 * reply. A prefix that no reply is longer than has 0 examples and means of 0. */
MEED_MUST_CHECK enum meed_status meed_extraction_run(struct meed_audit_models *models,
                                                     const struct meed_audit_data *data,
                                                     const struct meed_extraction_options *options,
                                                     struct meed_extraction_row *rows);

/* [begin, end) of the last reply of a sequence, its end of turn and other control tokens left out;
 * empty (begin = end) if nothing is learned. */
void meed_extraction_last_reply(const struct meed_tokenizer *tokenizer,
                                const struct meed_sequence *sequence, int32_t *begin, int32_t *end);

MEED_END_C
#endif
