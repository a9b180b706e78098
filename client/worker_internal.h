/* What worker.c (the loop) and worker_round.c (one round) share.
 *
 * The worker's knowledge of the federation is what the events said last, folded into four fields;
 * events are never queued, so a client that trained through ten of them acts on the state they
 * left.
 */
#ifndef MEED_CLIENT_WORKER_INTERNAL_H
#define MEED_CLIENT_WORKER_INTERNAL_H

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
/* The last update of a round below `before`, if its acknowledgement was lost: asks the server
 * whether it counted, and notes it. Its error feedback and its receipt depend on that. */
MEED_MUST_CHECK enum meed_status meed_worker_confirm(struct meed_worker *worker, int32_t before);
/* Pull, train, compress, push: whatever of it is left to do. STATE: the round is closed. CANCELLED:
 * stopped, or the round closed while training. */
MEED_MUST_CHECK enum meed_status meed_worker_round(struct meed_worker *worker, int32_t round);

#endif
