/* The terms of a run: everything that is fixed before the first round and never changes.
 *
 * Whoever handles a call, values a cohort or writes the ledger reads the same struct, and nobody
 * writes it. Its hash covers whatever decides about money or about the model: model, benchmark,
 * clients, budget, seed, plan, rules; it is that of terms_text.h's text. It stands in the genesis
 * entry of the ledger and, shortened, names the run; so a state folder is refused when the operator
 * restarts with other terms, and two runs on the same terms have the same name and the same ledger.
 * Not covered, because they may change under a run: addresses, certificates, deadline, quorum,
 * threads, reports.
 */
#ifndef MEED_SERVER_TERMS_H
#define MEED_SERVER_TERMS_H

#include "evaluation/benchmark.h"
#include "proto/update.h"
#include "server/aggregator.h"

MEED_BEGIN_C

/* How a round is valued and paid. */
struct meed_terms_value {
    enum meed_value_method method;
    enum meed_pay_rule rule;
    enum meed_coalition_path path;
    int32_t bootstrap;
    double guard_z;
    double reputation, floor; /* evaluation/payment.h */
};

struct meed_terms {
    char run_id[MEED_LIMIT_ID_BYTES];
    bool named; /* the operator named the run; else its name is of the hash */
    uint8_t hash[MEED_SHA256_BYTES];
    char base_model[1024];                      /* folder name as PEFT wants it */
    char benchmark_path[1024], data_path[1024]; /* not hashed: where who verifies may look first */
    char machine[64];                           /* not hashed: kind of backend that values */
    struct meed_model_config model;
    uint8_t model_hash[MEED_SHA256_BYTES];
    uint8_t benchmark_hash[MEED_SHA256_BYTES];
    int32_t rounds;
    int32_t quorum;
    int64_t deadline_ms;
    int64_t budget; /* of all rounds */
    uint64_t seed;
    struct meed_msg_plan plan;
    struct meed_lora_config lora;
    enum meed_aggregation aggregation;
    struct meed_defence_options defence;
    struct meed_quarantine_options quarantine;
    struct meed_robust_options robust;
    int32_t frozen_rank;
    enum meed_weighting weighting;
    double sample_cap;
    struct meed_server_options server;
    int32_t repair_steps; /* 0: none */
    double repair_lr;
    uint8_t align_hash[MEED_SHA256_BYTES]; /* of the operator's data; zero: none */
    struct meed_terms_value value;
    char estimator[MEED_LIMIT_WORD_BYTES];
    char payment[MEED_LIMIT_WORD_BYTES];
    int32_t axis_count;
    struct meed_axis axes[MEED_BENCHMARK_MAX_AXES];
    uint8_t ledger_key[MEED_SHA256_BYTES]; /* public */
};

/* What the terms are made of, beside the operator's config. */
struct meed_terms_source {
    const struct meed_model_config *model;
    const uint8_t *model_hash;
    const uint8_t *benchmark_hash;
    const struct meed_axis *axes;
    int32_t axis_count;
    const char *const *clients; /* in id order */
    int32_t client_count;
    const char *machine; /* NULL: no model is run */
};

/* CONFIG names what is out of range. */
MEED_MUST_CHECK enum meed_status meed_terms_init(const struct meed_aggregator_config *config,
                                                 const struct meed_terms_source *source,
                                                 struct meed_terms *terms);
/* What follows from the rest: LoRA shape, names, the run id of who gave none. */
void meed_terms_complete(struct meed_terms *terms);
/* The rounds' budgets differ by at most 1 and add up to the run's. */
int64_t meed_terms_budget(const struct meed_terms *terms, int32_t round);
uint64_t meed_terms_seed(const struct meed_terms *terms, int32_t round);
/* The shape of the adapter that a plan trains. */
struct meed_lora_config meed_terms_lora(const struct meed_msg_plan *plan);
/* The plan that clients are sent; times and adapter as given. */
void meed_terms_plan(const struct meed_terms *terms, int32_t round,
                     const uint8_t adapter_hash[MEED_SHA256_BYTES], int64_t adapter_bytes,
                     int64_t remaining_ms, struct meed_msg_plan *plan);
/* MEED_FACTOR_A | MEED_FACTOR_B as this round trains them. */
uint32_t meed_terms_trained(const struct meed_terms *terms, int32_t round);
/* What an update of this client must say about itself. */
void meed_terms_update_header(const struct meed_terms *terms, const char *client, int32_t round,
                              const uint8_t base_hash[MEED_SHA256_BYTES],
                              struct meed_update_header *header);

MEED_END_C
#endif
