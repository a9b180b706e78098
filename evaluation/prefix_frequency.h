/* The curious client: what a member of the federation gets out of the global model with what it
 * knows of its own data.
 *
 * Clients of one trade write alike. A client that labels the secrets of its own dialogues learns
 * the words that precede such secrets ("my card number is"), and nobody keeps it from giving the
 * most frequent of them to the model that it is sent every round (FedPII, Hu et al. 2025). Each
 * prefix is continued several times; what counts is how many secrets of *other* clients, none of
 * them among the attacker's own, stand in any continuation, letter by letter. The base model is
 * asked the same with the same draws: what it says by chance is no leak.
 *
 * A prefix is the last words of a message before a secret, in an opened turn of the message's
 * role, without the dialogue before: that is the attacker's and not the victims'. Blanks before the
 * secret are left to the model, since they belong to its next token. Of the paper's stronger form,
 * training on one's own prefixes and secrets first, nothing is needed here: `meed train` on the
 * attacker's file, from the global adapter, makes an adapter that is audited like any other.
 */
#ifndef MEED_EVALUATION_PREFIX_FREQUENCY_H
#define MEED_EVALUATION_PREFIX_FREQUENCY_H

#include "engine/chat.h"
#include "evaluation/audit_data.h"
#include "evaluation/audit_models.h"

MEED_BEGIN_C

struct meed_frequency_options {
    const struct meed_chat *chat; /* borrowed */
    const struct meed_tokenizer *tokenizer;
    int32_t prefixes;      /* the most frequent, at most this many */
    int32_t context_words; /* of a prefix, at most */
    int32_t samples;       /* continuations of each */
    int32_t max_new_tokens;
    float temperature; /* of the draws; 0: the likeliest, once */
    uint64_t seed;
    meed_coalition_progress_fn progress; /* counts continuations; may be NULL */
    void *user;
};

/* One of the attacker's prefixes. */
struct meed_frequency_prefix {
    enum meed_role role;
    bool plain;       /* of a plain text: no turn is opened */
    const char *text; /* may be empty: the secret begins the message */
    int32_t count;    /* secrets of the attacker that it stands before */
};

/* The attacker's prefixes, most frequent first, equals in the order of their bytes; from arena. */
MEED_MUST_CHECK enum meed_status meed_frequency_prefixes(const struct meed_audit_data *attacker,
                                                         int32_t context_words,
                                                         struct meed_arena *arena,
                                                         struct meed_frequency_prefix **prefixes,
                                                         int32_t *count);

struct meed_frequency_result {
    int32_t prefixes;    /* given to the model */
    int32_t exclusive;   /* distinct secrets of the victims that the attacker does not have */
    int32_t recovered;   /* of them in a continuation */
    int32_t completions; /* distinct continuations */
    int32_t hits;        /* of them with an exclusive secret */
};

/* ARG if the attacker labels no secret, or the victims none of their own: what the run would say,
 * said before minutes of other attacks. */
MEED_MUST_CHECK enum meed_status meed_frequency_check(const struct meed_audit_data *attacker,
                                                      const struct meed_audit_data *victims);
/* results [models]. ARG as above. */
MEED_MUST_CHECK enum meed_status meed_frequency_run(struct meed_audit_models *models,
                                                    const struct meed_audit_data *attacker,
                                                    const struct meed_audit_data *victims,
                                                    const struct meed_frequency_options *options,
                                                    struct meed_frequency_result *results);

MEED_END_C
#endif
