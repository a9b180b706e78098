/* A client's part of a round: the plan's training on the client's data, resumable after a kill.
 *
 * Takes the plan as it came over the wire and turns it into the trainer's options. Data order and
 * dropout are drawn from (plan seed, client id, round), so a round is repeatable on any machine of
 * the same kind and no two clients draw the same masks. The checkpoint in the round's folder is
 * bound to model, start, data and options by the trainer; one that does not fit is thrown away and
 * the round begins again, because a round that waits for a person is a round lost.
 *
 * FedIT, FedProx (prox_mu), FFA and RoLoRA (trained_factors) and SCAFFOLD are run so; FedPIT runs
 * it once a branch (isolation.h).
 */
#ifndef MEED_CLIENT_LOCAL_TRAIN_H
#define MEED_CLIENT_LOCAL_TRAIN_H

#include "client/dataset.h"
#include "engine/trainer.h"
#include "proto/message.h"

MEED_BEGIN_C

/* After every step; false ends the training with a checkpoint and MEED_CANCELLED. */
typedef bool (*meed_local_train_step_fn)(void *user, const struct meed_train_report *report,
                                         int64_t step_count);

struct meed_local_train_job {
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    struct meed_dataset *dataset;
    bool truncate; /* cut over-long dialogues instead of refusing the round */
    const struct meed_msg_plan *plan;
    const char *client_id; /* names the draws; a branch adds its name to the client's */
    const struct meed_adapter *start;
    const struct meed_adapter *frozen; /* ranks that only take part; NULL: none */
    const float *correction;           /* SCAFFOLD: c − c_k [values of start]; else NULL */
    float *mean_gradient; /* with it: receives c_k', the mean gradient over the steps */
    enum meed_dtype dtype;
    enum meed_block_format base; /* of the frozen weights (net.h) */
    const char *checkpoint_path;
    int64_t checkpoint_every;         /* steps; 0: only when stopped */
    meed_local_train_step_fn on_step; /* may be NULL */
    void *user;
};

struct meed_local_train_result {
    double loss;    /* mean of the last quarter of the steps, as far as run here */
    int64_t tokens; /* fed here, not before a resume; as are seconds */
    double seconds;
};

/* FORMAT if the plan trains nothing. */
MEED_MUST_CHECK enum meed_status meed_local_train_options(const struct meed_msg_plan *plan,
                                                          const char *client_id,
                                                          enum meed_dtype dtype,
                                                          struct meed_train_options *options);
/* trained has the start's shape. */
MEED_MUST_CHECK enum meed_status meed_local_train_run(const struct meed_local_train_job *job,
                                                      struct meed_adapter *trained,
                                                      struct meed_local_train_result *result);

MEED_END_C
#endif
