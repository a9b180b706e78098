/* Screening: what the detectors' findings (detector.h) cost an update before anything is evaluated.
 *
 *   shape, finite  another shape than the plan's or a value that is not finite excludes (a diverged
 *                  training, or an attack)
 *   detectors      a ratio of 1 or more does what the policy says of that detector: nothing, a
 *                  remark, or exclusion
 *   clip           beyond a multiple of the cohort's median ‖ΔW‖ the weight p_k is cut by the same
 *                  factor, which is the same as scaling ΔW_k. Needs three moving clients
 *
 * By default replay and duplicate exclude, because a cosine of 0.999 with other work is no matter
 * of taste, and so does a norm that stands out and is beyond the clip: nobody trains to that. What
 * compares a client with its cohort otherwise makes a remark: a remark costs nobody money, stands
 * in ledger and receipt with its number, and the operator may raise it to an exclusion when the
 * cohort is large and alike enough. `unlike` never excludes here. Where it is `exclude`, the
 * default, its deviations go to the verdict, which leaves out who is unlike the others and of no
 * use to anybody (evaluation/verdict.h). The same goes for `clique`: the verdict leaves out who
 * pulls with others in a direction that serves no dialogue. `span` is never more than a remark,
 * since the parts of a split and the whole look the same in it. Of duplicates the first in id order
 * stands, because nobody can have seen another's update before the round closed: both come from one
 * hand. An unchanged update is not a fault: its ΔW is 0, it is valued, and earns exactly 0.
 */
#ifndef MEED_SERVER_DEFENCE_H
#define MEED_SERVER_DEFENCE_H

#include "base/threads.h"
#include "engine/adapter.h"
#include "proto/limits.h"
#include "server/detector.h"

MEED_BEGIN_C

enum meed_defence_verdict {
    MEED_DEFENCE_ACCEPT,
    MEED_DEFENCE_FLAG,   /* stays as it is, with a remark */
    MEED_DEFENCE_CLIP,   /* stays, with less weight */
    MEED_DEFENCE_EXCLUDE /* not valued, not paid, not aggregated */
};

struct meed_defence_client {
    enum meed_defence_verdict verdict;
    double norm;   /* ‖ΔW_k‖ over all modules */
    double factor; /* of the weight: 1, less when clipped, 0 when excluded */
    double score;  /* the detectors' anomaly score */
    /* For the verdict on its value; 0 where the policy asks for none. */
    double unlike;                           /* deviations */
    double loadings[MEED_CLIQUE_DIRECTIONS]; /* on directions that clients share */
    char reason[MEED_LIMIT_REASON_BYTES];    /* "" when accepted */
};

/* What a detector's finding costs. */
enum meed_defence_action {
    MEED_DEFENCE_DEFAULT, /* norm, replay, duplicate, unlike, clique: exclude; idle: off; others:
                              flag */
    MEED_DEFENCE_OFF,
    MEED_DEFENCE_REMARK,
    MEED_DEFENCE_REFUSE,
    MEED_DEFENCE_ACTION_COUNT
};

struct meed_defence_options {
    double clip_multiple; /* 0: never clip */
    enum meed_defence_action actions[MEED_DETECTOR_COUNT];
};

/* "default", "off", "flag", "exclude". */
const char *meed_defence_action_name(enum meed_defence_action action);
/* CONFIG if a detector cannot do what is asked of it. */
MEED_MUST_CHECK enum meed_status meed_defence_check(const struct meed_defence_options *options);

/* clients [count] in id order, names for the reasons. past NULL: the first round. */
MEED_MUST_CHECK enum meed_status
meed_defence_screen(const struct meed_adapter *global, const struct meed_adapter *const *clients,
                    const char *const *names, int32_t count, const struct meed_step_past *past,
                    const struct meed_defence_options *options, struct meed_pool *pool,
                    struct meed_defence_client *verdicts);

MEED_END_C
#endif
