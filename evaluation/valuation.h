/* One round's valuation: from a cohort's adapters to values, errors, shares and verdicts.
 *
 * This is the one call that server/ and `meed value` make. It builds the coalition evaluator,
 * reads what the utility cache already holds, evaluates the rest, runs the estimator, the bootstrap
 * and the payment rule. Everything in the result can be recomputed from (model, benchmark, global
 * adapter, client adapters, weights, seed).
 */
#ifndef MEED_EVALUATION_VALUATION_H
#define MEED_EVALUATION_VALUATION_H

#include "engine/coalition.h"
#include "evaluation/benchmark.h"
#include "evaluation/estimator.h"
#include "evaluation/utility_shard.h"

MEED_BEGIN_C

enum meed_pay_rule {
    MEED_PAY_SHRUNK,
    MEED_PAY_PROPORTIONAL,
    MEED_PAY_EQUAL,
    MEED_PAY_SAMPLES,
    MEED_PAY_RULE_COUNT
};
enum meed_pay_status { MEED_PAY_PAID, MEED_PAY_UNPAID, MEED_PAY_EXCLUDED };

enum { MEED_VALUE_MAX_PLAYERS = 16384, MEED_VALUE_REASON_BYTES = 160 };

struct meed_valuation_options {
    enum meed_value_method method;
    enum meed_pay_rule rule;
    enum meed_coalition_path path;
    enum meed_block_format base; /* of the frozen weights (net.h); default dense */
    int64_t budget;              /* credits of this round, ≥ 0 */
    double precision;            /* of sampling methods: see estimator.h */
    int64_t evaluations;         /* their budget of coalitions; 0: 64 draws */
    double truncation;           /* of permutation; 0: never */
    int32_t nodes;               /* of gradient; 0: 4 */
    int32_t bootstrap;           /* draws, e.g. 1000 */
    double guard_z;              /* of verdict.h; e.g. 2.576 */
    const double *unlike; /* [players] how far an update's geometry stands out (verdict.h), or NULL;
                           * borrowed */
    const double *loadings; /* [players, MEED_CLIQUE_DIRECTIONS] of clique.h, or NULL; borrowed */
    double reputation; /* weight of the past in pay, and the share of the budget split by heads:
                        * payment.h; 0: none */
    double floor;
    const double *samples;  /* [players] declared, for rule samples; else may be NULL; borrowed */
    const double *standing; /* [players] pay when last here, 1 the mean; below 0, or NULL: none */
    uint64_t seed;
    int32_t batch_tokens;
    const char *cache_path;                  /* SQLite utility cache; NULL: none */
    struct meed_utility_shard_options shard; /* of meed_valuation_shard, or a merge's folder */
    meed_coalition_progress_fn progress;
    void *progress_user;
};
struct meed_valuation_options meed_valuation_defaults(void);

struct meed_value_client {
    double phi;         /* paid utility, nats per token */
    double se;          /* both errors: of dialogues and, where coalitions are sampled, of those */
    double sampling_se; /* the second alone */
    double axis_phi[MEED_BENCHMARK_MAX_AXES];
    double axis_se[MEED_BENCHMARK_MAX_AXES];
    double weight; /* p_k of what is published; 0 where it is left out */
    double score;  /* of the verdict: 1 and more is left out */
    bool null;     /* changes no item */
    int64_t share; /* credits */
    enum meed_pay_status status;
    char reason[MEED_VALUE_REASON_BYTES]; /* "" when paid without remark */
};

struct meed_valuation {
    int32_t players;
    enum meed_value_method method; /* never AUTO */
    enum meed_estimator_stop stop;
    int64_t draws;
    /* The table of coalitions, of the methods that make one for up to 16 clients: exact has
     * 2^players rows, row = mask; loo ∅, N, N∖0, N∖1 …; others none. */
    int32_t coalition_count;
    uint32_t *coalition_masks; /* [coalition_count]: members, bit k = client k */
    double *coalition_values;  /* [coalition_count]; paid utility */
    double residual;           /* Σφ − (v − v(∅)), of those who stayed and value_kept */
    double value_empty, value_full;
    double value_kept;   /* of the clients that are not excluded, with the weight of all */
    double kept_se;      /* of value_kept − value_empty, over dialogues */
    int64_t evaluations; /* coalitions really scored */
    double seconds;
    int64_t tokens;                     /* rows fed */
    enum meed_coalition_path path;      /* STACK or MERGE */
    int64_t paid;                       /* Σ shares: payment.h says when it is not the budget */
    char note[MEED_VALUE_REASON_BYTES]; /* "" or what a reader must know: why nothing was paid */
    uint8_t utilities_hash[MEED_SHA256_BYTES]; /* of all item utilities in row order; with no table,
                                                * of u(∅), u(N) and all item values */
    struct meed_value_client *clients;         /* [players] */
    struct meed_arena arena;
};

/* p [players]: weights of the cohort, fixed but for those of whom the verdict leaves out. global
 * may be NULL. */
MEED_MUST_CHECK enum meed_status
meed_valuation_run(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                   const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                   const struct meed_adapter *const *clients, int32_t players, const double *p,
                   const struct meed_valuation_options *options, struct meed_valuation **valuation);

struct meed_valuation_part {
    int64_t scored, found; /* coalitions of this shard: by this process, by earlier ones */
    int64_t tokens;
    double seconds;
};
/* Scores the coalitions of one shard into options->shard.folder and values nothing; pay, bootstrap
 * and seed are the merge's (meed_valuation_run with shard.idx 0). CANCELLED if progress said so:
 * what was scored is kept. */
MEED_MUST_CHECK enum meed_status
meed_valuation_shard(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                     const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                     const struct meed_adapter *const *clients, int32_t players, const double *p,
                     const struct meed_valuation_options *options,
                     struct meed_valuation_part *part);
void meed_valuation_destroy(struct meed_valuation *valuation); /* accepts NULL */

MEED_END_C
#endif
