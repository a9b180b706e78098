/* First screens on a cohort: what can be seen in the updates before anything is evaluated.
 *
 * All screens look at ΔW_k = s_k B_k A_k − s_g B_g A_g and never at A and B apart, which can be
 * turned into each other without changing the model. Inner products come from small Gram matrices,
 *
 *     ⟨s_i B_i A_i, s_j B_j A_j⟩ = s_i s_j Σ (B_iᵀB_j) ∘ (A_i A_jᵀ)
 *
 * so no N × K matrix is formed; in fp64, because ΔW is a small difference of large products.
 *
 *   finite     a value that is not finite excludes (a diverged training, or an attack)
 *   replay     cosine > 0.999 with the last global step, or with an update of the round before,
 *              excludes: it is work of others, or of another round
 *   duplicate  cosine > 0.999 between two clients: the cohort counts it once. The first in id
 *              order stands, because nobody can have seen another's update before the round closed:
 *              both come from one hand
 *   norm       beyond a multiple of the cohort's median ‖ΔW‖ it is clipped: the weight p_k is cut
 *              by the same factor, which is the same as scaling ΔW_k. Needs three moving clients
 *
 * Shapes are checked where the bytes are decoded (incoming.h). An unchanged update is not a fault:
 * its ΔW is 0, it is valued, and earns exactly 0.
 */
#ifndef MEED_SERVER_DEFENCE_H
#define MEED_SERVER_DEFENCE_H

#include "base/threads.h"
#include "engine/adapter.h"
#include "proto/limits.h"

MEED_BEGIN_C

enum meed_defence_verdict {
    MEED_DEFENCE_ACCEPT,
    MEED_DEFENCE_CLIP,   /* stays, with less weight */
    MEED_DEFENCE_EXCLUDE /* not valued, not paid, not aggregated */
};

struct meed_defence_client {
    enum meed_defence_verdict verdict;
    double norm;   /* ‖ΔW_k‖ over all modules */
    double factor; /* of the weight: 1, less when clipped, 0 when excluded */
    char reason[MEED_LIMIT_REASON_BYTES];
};

/* What the cohort is compared with; NULL and 0 in the first round. */
struct meed_defence_past {
    const struct meed_adapter *base;           /* global adapter of the round before */
    const struct meed_adapter *const *clients; /* [count] its updates */
    int32_t count;
};

struct meed_defence_options {
    double clip_multiple; /* 0: never clip */
    double same_cosine;   /* 0.999 */
};

/* clients [count] in id order, names for the reasons, all of global's shape. */
MEED_MUST_CHECK enum meed_status
meed_defence_screen(const struct meed_adapter *global, const struct meed_adapter *const *clients,
                    const char *const *names, int32_t count, const struct meed_defence_past *past,
                    const struct meed_defence_options *options, struct meed_pool *pool,
                    struct meed_defence_client *verdicts);

MEED_END_C
#endif
