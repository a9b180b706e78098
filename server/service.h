/* The handlers of the Federation service, and the present round that they share with settlement.
 *
 * Handlers run on the transport's workers (proto/rpc.h): they check who calls, decode, judge by the
 * round machine, write to the store and answer. The thread that settles rounds waits here until the
 * machine says that a stage is due, runs it, and hands the result back with meed_service_advance.
 * Both sides change the round in one way: ask meed_round_step what would be, make it durable, adopt
 * it, tell the watchers. That happens under one lock, so a round closes between two updates and
 * never in the middle of one.
 *
 * An update is acknowledged in this order: bytes in partial/, hash, decoded once to see that it
 * fits, renamed into blobs/, row committed, round adopted, reply. A client has one upload at a
 * time; a second stream takes over from the first, which is refused from then on: the usual reason
 * is a connection that died without our noticing.
 *
 * Every call passes the roster. A receipt is given to its client only.
 */
#ifndef MEED_SERVER_SERVICE_H
#define MEED_SERVER_SERVICE_H

#include "engine/adapter.h"
#include "proto/rpc.h"
#include "server/board.h"
#include "server/ledger.h"
#include "server/registry.h"
#include "server/round.h"
#include "server/store.h"
#include "server/terms.h"

MEED_BEGIN_C

struct meed_service;

struct meed_service_config {
    const struct meed_terms *terms; /* all borrowed */
    struct meed_store *store;
    struct meed_ledger *ledger;
    struct meed_registry *registry;
    struct meed_board *board;
    struct meed_adapter *shape; /* any adapter of the run's shape; owned from create on */
};

/* Takes up the round where the store left it. */
MEED_MUST_CHECK enum meed_status meed_service_create(const struct meed_service_config *config,
                                                     struct meed_service **service);
/* After the transport was stopped; accepts NULL. */
void meed_service_destroy(struct meed_service *service);
/* The method table, for meed_rpc_…_server_start. */
const struct meed_rpc_service *meed_service_table(const struct meed_service *service);
/* Whose health tells whether the store can be written; NULL takes it away. */
void meed_service_set_server(struct meed_service *service, struct meed_rpc_server *server);

/* ---- for the settling thread ----------------------------------------------------------------- */

struct meed_service_state {
    enum meed_round_phase phase;
    int32_t round;
    int64_t remaining_ms; /* -1: not begun */
    uint8_t adapter_hash[MEED_SHA256_BYTES];
};
void meed_service_state(struct meed_service *service, struct meed_service_state *state);
/* Lets time pass: closes or abandons the round at its deadline, tends health and roster. */
MEED_MUST_CHECK enum meed_status meed_service_tick(struct meed_service *service);
/* A stage is done. adapter_hash is the next global adapter with PUBLISHED, else NULL. */
MEED_MUST_CHECK enum meed_status
meed_service_advance(struct meed_service *service, enum meed_round_event_kind stage,
                     const uint8_t adapter_hash[MEED_SHA256_BYTES]);
/* Sleeps until something happened, at most timeout_ms. */
void meed_service_wait(struct meed_service *service, int64_t timeout_ms);
/* Ends a wait; for signal handlers too. */
void meed_service_nudge(struct meed_service *service);
/* True when every client that joined has fetched the receipt of the last round. */
bool meed_service_all_served(struct meed_service *service);

/* What receipts hold beside the ledger; stage "receipts" is an array of these by roster index. */
struct meed_service_detail {
    double axis_phi[MEED_BENCHMARK_MAX_AXES];
    double axis_se[MEED_BENCHMARK_MAX_AXES];
    int64_t total_share;
};
#define MEED_SERVICE_STAGE_RECEIPTS "receipts"

/* ---- for /metrics ---------------------------------------------------------------------------- */

struct meed_service_counts {
    int64_t verdicts[MEED_ROUND_VERDICT_COUNT]; /* of updates */
    int64_t broken;                             /* uploads that failed hash or decoding */
    int64_t bytes_up, bytes_down;
    int64_t watchers;
};
void meed_service_counts(struct meed_service *service, struct meed_service_counts *counts);

MEED_END_C
#endif
