/* The running of a run, without a model: state folder, ledger, service and settlement in one
 * object.
 *
 * It stands between aggregator.c, which knows models, benchmarks, certificates and ports, and the
 * parts that know none of these. Tests start here: with any transport and any value function, a
 * whole federation is a page of code. The caller's thread is the settling thread; meed_runner_run
 * blocks on it. Writes that fail for want of space are tried again every two seconds, with a
 * warning, because a full disk is mended by a person while the run waits.
 */
#ifndef MEED_SERVER_RUNNER_H
#define MEED_SERVER_RUNNER_H

#include "server/settle.h"

MEED_BEGIN_C

struct meed_runner_config {
    const struct meed_terms *terms; /* copied; its ledger_key is filled in */
    struct meed_registry *registry; /* borrowed */
    const char *state;
    const char *ledger_key; /* NULL: STATE/ledger.key, made if need be */
    struct meed_pool *pool; /* borrowed, may be NULL */
    meed_settle_value_fn value;
    void *value_user;
    meed_align_fn align; /* NULL: the operator has no data */
    void *align_user;
    const char *report; /* NULL: none */
    meed_aggregator_observer_fn observer;
    void *observer_user;
    meed_store_fault_fn fault; /* tests; NULL in the product */
};

struct meed_runner;

MEED_MUST_CHECK enum meed_status meed_runner_create(const struct meed_runner_config *config,
                                                    struct meed_runner **runner);
/* After the transport was stopped; accepts NULL. */
void meed_runner_destroy(struct meed_runner *runner);
/* For the transport's start; then tell which server it is, and NULL before that one ends. */
const struct meed_rpc_service *meed_runner_service(const struct meed_runner *runner);
void meed_runner_set_server(struct meed_runner *runner, struct meed_rpc_server *server);
const struct meed_terms *meed_runner_terms(const struct meed_runner *runner);
struct meed_board *meed_runner_board(struct meed_runner *runner);

/* As meed_aggregator_run. */
MEED_MUST_CHECK enum meed_status meed_runner_run(struct meed_runner *runner, int64_t linger_ms);
void meed_runner_request_stop(struct meed_runner *runner); /* any thread, signal handlers */
bool meed_runner_stopping(const struct meed_runner *runner);

/* For pages: a consistent enough picture of everything. */
struct meed_runner_picture {
    struct meed_service_state state;
    struct meed_service_counts service;
    struct meed_settle_counts settle;
    bool writable;
    int64_t ledger_entries;
};
void meed_runner_picture(struct meed_runner *runner, struct meed_runner_picture *picture);

MEED_END_C
#endif
