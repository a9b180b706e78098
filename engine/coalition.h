/* Coalitions of clients, scored in batches: the bridge from gate vectors to log-likelihoods.
 *
 * With the round's global adapter g and client adapters k, coalition S stands for
 *     W + s_g B_g A_g + Σ_{k∈S} p_k (s_k B_k A_k − s_g B_g A_g)
 * with p_k fixed over the cohort (design §1): gates g_k = p_k·1[k∈S] and g_0 = 1 − Σ_{k∈S} p_k.
 * A client whose factors equal the global adapter bit for bit has ΔW_k = 0: it is folded into slot
 * 0 (its gate never leaves g_0), so its marginal is exactly 0 and coalitions that differ only by
 * such clients are the same coalition. So is a client whose product B·A is zero beside a global
 * adapter that is absent or zero as well, and one of weight 0. Clients that sent equal factors
 * share one slot, whose gate is the sum of theirs; where their weights are equal too, the
 * coalitions {i} and {j} are the same coalition and are scored once: twins are twins to the bit.
 * Gate weights need not be 0/1 multiples: fractional members serve Owen sampling and the gradient
 * path.
 *
 * Paths: STACK runs all coalitions of a batch through one network with per-sequence gates; MERGE
 * folds one coalition at a time into a copy of W, cheaper when a coalition scores more tokens than
 * the crossover of coalition_plan.c; AUTO asks that cost model at the first score and then keeps
 * its answer, so that the values of one evaluator never mix paths. Both paths give the same value
 * to fp32 rounding; each is bit-equal alone, in any batch and for any thread count. With a base in
 * blocks (net.h) there is only STACK: AUTO takes it, MERGE is refused.
 *
 * Derivatives by membership come on both paths too (Aumann–Shapley): STACK reads them off the gates
 * in one backward pass, sequence by sequence; MERGE gathers one gradient G of the weights for a
 * weighted sum of sequences and projects every client on it, ⟨G, p_k ΔW_k⟩, so that passes over the
 * sequences and memory do not depend on how many clients there are.
 */
#ifndef MEED_ENGINE_COALITION_H
#define MEED_ENGINE_COALITION_H

#include "engine/net.h"

MEED_BEGIN_C

enum meed_coalition_path { MEED_PATH_AUTO, MEED_PATH_STACK, MEED_PATH_MERGE };

struct meed_coalition_options {
    enum meed_coalition_path path;
    enum meed_dtype dtype;       /* F32 for the utility of record */
    int32_t batch_tokens;        /* rows of one forward */
    enum meed_block_format base; /* of the frozen weights; NONE for the utility of record */
    /* MERGE only: adapters pass to the device a block at a time and none stays there, so memory
     * does not grow with the cohort. Implied where the stack's factors would take more than a
     * quarter of a gigabyte. */
    bool streamed;
};

struct meed_coalition; /* evaluator for one cohort */

/* global may be NULL (plain base); weights p [count], each ≥ 0, Σ ≤ 1 + 1e-6. Borrows everything.
 */
MEED_MUST_CHECK enum meed_status meed_coalition_create(const struct meed_backend *be,
                                                       const struct meed_checkpoint *checkpoint,
                                                       const struct meed_adapter *global,
                                                       const struct meed_adapter *const *clients,
                                                       int32_t count, const double *weights,
                                                       const struct meed_coalition_options *options,
                                                       struct meed_coalition **coalition);
void meed_coalition_destroy(struct meed_coalition *coalition); /* accepts NULL */
enum meed_coalition_path meed_coalition_path_of(const struct meed_coalition *coalition,
                                                int64_t tokens_per_coalition, int32_t coalitions);
/* True if client idx returned the global adapter unchanged. */
bool meed_coalition_is_null(const struct meed_coalition *coalition, int32_t idx);

/* The first client that this one is interchangeable with: equal factors and weight; often itself.
 */
int32_t meed_coalition_twin_of(const struct meed_coalition *coalition, int32_t idx);
/* True if the MERGE path streams its adapters (options.streamed, or too many for a stack). */
bool meed_coalition_streams(const struct meed_coalition *coalition);

/* The member vector [count] that stands for `members` [count]: nulls out, twins moved to the front
 * of their kind. Equal canonical vectors are the same coalition. */
void meed_coalition_canonical(const struct meed_coalition *coalition, const double *members,
                              double *canonical);
/* Rows that one coalition feeds through the network: sequences of equal ids are run once. */
int64_t meed_coalition_rows(const struct meed_sequence *sequences, int32_t sequence_count);

/* members [coalitions, count] in [0, 1] (1 = in). sums [coalitions, sequence_count] fp64: Σ log p
 * of scored tokens per sequence; token counts are the caller's (they do not depend on S). progress
 * may be NULL; returning false cancels. */
typedef bool (*meed_coalition_progress_fn)(void *user, int64_t tokens_done, int64_t tokens_total);
MEED_MUST_CHECK enum meed_status
meed_coalition_score(struct meed_coalition *coalition, const double *members, int32_t coalitions,
                     const struct meed_sequence *sequences, int32_t sequence_count, double *sums,
                     meed_coalition_progress_fn progress, void *user);

/* slopes [sequence_count, count]: Σ_q node_weights[q]·∂(Σ log p of the sequence)/∂m_k at
 * m = (nodes[q], …, nodes[q]), fp64, by the gates of the stack. Exactly 0 for null clients, equal
 * bits for equal ones. STATE on the MERGE path. */
MEED_MUST_CHECK enum meed_status
meed_coalition_slopes(struct meed_coalition *coalition, const double *nodes,
                      const double *node_weights, int32_t node_count,
                      const struct meed_sequence *sequences, int32_t sequence_count, double *slopes,
                      meed_coalition_progress_fn progress, void *user);
/* The same summed over sequences with sequence_weights [groups, sequence_count], group by group:
 * slopes [groups, count]. Sequences of weight 0 cost nothing. STATE unless streamed. */
MEED_MUST_CHECK enum meed_status
meed_coalition_project(struct meed_coalition *coalition, const double *nodes,
                       const double *node_weights, int32_t node_count,
                       const struct meed_sequence *sequences, int32_t sequence_count,
                       const double *sequence_weights, int32_t groups, double *slopes,
                       meed_coalition_progress_fn progress, void *user);
/* What AUTO means for derivatives: STACK where the tail of all adapters is cheaper than gradients
 * of the weights and one projection a client and group, and fits. */
enum meed_coalition_path meed_coalition_slope_path(const struct meed_coalition *coalition,
                                                   int64_t tokens, int32_t node_count,
                                                   int32_t groups);

MEED_END_C
#endif
