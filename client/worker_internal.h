/* What worker.c (the loop) and worker_round.c (one round) share.
 *
 * The worker's knowledge of the federation is what the events said last, folded into four fields;
 * events are never queued, so a client that trained through ten of them acts on the state they
 * left.
 */
#ifndef MEED_CLIENT_WORKER_INTERNAL_H
#define MEED_CLIENT_WORKER_INTERNAL_H

#include "client/isolation.h"
#include "client/worker.h"
#include "proto/codec.h"

struct meed_worker {
    const struct meed_worker_config *config;
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round_count;
    struct meed_rpc_stream *watch; /* NULL: not connected */
    bool watch_over;               /* ended; finish tells why */
    struct meed_buf event_bytes;
    struct meed_arena event_arena;
    int32_t open_round; /* -1: none */
    int32_t left_round; /* given up in this process; -1: none */
    bool receipts_due;
    bool finished;
};

bool meed_worker_stopping(const struct meed_worker *worker);
/* Fills text and round_count, and calls. */
void meed_worker_emit(const struct meed_worker *worker, struct meed_worker_event event);
/* A failure of a call: kept if it is for good, else MEED_RPC with the same sentence. */
MEED_MUST_CHECK enum meed_status meed_worker_remote(enum meed_status st);
/* Takes in the events that are there, waiting at most timeout_ms for the first. */
MEED_MUST_CHECK enum meed_status meed_worker_drain(struct meed_worker *worker, int64_t timeout_ms);
/* False where a round's training is to end: it has closed meanwhile, or the worker stops. */
bool meed_worker_goes_on(struct meed_worker *worker, int32_t round);
/* The part of a training that every method has in common; paths and callbacks are left out. */
struct meed_local_train_job meed_worker_train_job(const struct meed_worker *worker,
                                                  const struct meed_msg_plan *plan,
                                                  const struct meed_adapter *global,
                                                  const struct meed_adapter *frozen);
/* FedPIT: both branches and what leaves of them (isolation.h), in the round's folder. */
MEED_MUST_CHECK enum meed_status meed_worker_isolate(struct meed_worker *worker,
                                                     const struct meed_local_train_job *train,
                                                     const struct meed_adapter *whole,
                                                     struct meed_adapter *trained,
                                                     struct meed_isolation_result *result);
/* Differential privacy by the plan: `trained` becomes what may leave (privacy.h). *epsilon is what
 * the run's updates have spent, this one included. FORMAT if an earlier one went without noise. */
MEED_MUST_CHECK enum meed_status meed_worker_privatise(const struct meed_worker *worker,
                                                       const struct meed_msg_plan *plan,
                                                       const struct meed_adapter *global,
                                                       struct meed_adapter *trained,
                                                       double *epsilon);
/* The header of a round's push.bin. */
MEED_MUST_CHECK enum meed_status meed_worker_read_push(const char *state_folder, int32_t round,
                                                       struct meed_msg_push_header *header);
/* FedPIT, when the run is over: the client's own model from its last round, in STATE/private. OK
 * and nothing done where it is there or the run had none. */
MEED_MUST_CHECK enum meed_status meed_worker_own(struct meed_worker *worker);
/* True if the run was over and its own model is not done: nobody need be asked any more. */
bool meed_worker_own_due(const char *state_folder);
/* The last update of a round below `before`, if its acknowledgement was lost: asks the server
 * whether it counted, and notes it. Its error feedback and its receipt depend on that. */
MEED_MUST_CHECK enum meed_status meed_worker_confirm(struct meed_worker *worker, int32_t before);
/* Pull, train, compress, push: whatever of it is left to do. STATE: the round is closed. CANCELLED:
 * stopped, or the round closed while training. */
MEED_MUST_CHECK enum meed_status meed_worker_round(struct meed_worker *worker, int32_t round);

#endif
