/* See runner.h. */
#include "server/runner.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

enum { TICK_MS = 500, WAITING_LOG_MS = 10000, RETRY_MS = 2000 };

struct meed_runner {
    struct meed_terms terms;
    struct meed_store *store;
    struct meed_signature_key *key;
    struct meed_ledger *ledger;
    struct meed_registry *registry; /* borrowed */
    struct meed_board *board;
    struct meed_service *service;
    struct meed_settle *settle;
    atomic_bool stop;
    int64_t said_ns; /* last line about waiting */
};

/* ---- life ------------------------------------------------------------------------------------ */

/* The key pair of the ledger; the public half beside it, as hex, for auditors. */
static enum meed_status open_key(struct meed_runner *runner, const char *state, const char *given)
{
    char path[MEED_PATH_BYTES], hex[MEED_SHA256_HEX_BYTES + 1];
    MEED_TRY(meed_file_join(state, "ledger.key", path, sizeof path));
    const char *from = given ? given : path;
    if (!given && !meed_file_exists(path)) {
        MEED_TRY(meed_signature_key_make(path));
    }
    MEED_TRY(meed_signature_key_open(from, &runner->key));
    meed_signature_key_public(runner->key, runner->terms.ledger_key);
    meed_sha256_hex(runner->terms.ledger_key, hex);
    hex[MEED_SHA256_HEX_BYTES - 1] = '\n';
    MEED_TRY(meed_file_join(state, "ledger.pub", path, sizeof path));
    return meed_file_write_atomic(path, hex, MEED_SHA256_HEX_BYTES);
}

static enum meed_status build(struct meed_runner *runner, const struct meed_runner_config *config)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_adapter *shape = NULL;
    MEED_TRY_OUT(meed_store_open(config->state, config->fault, &runner->store));
    MEED_TRY_OUT(open_key(runner, config->state, config->ledger_key));
    MEED_TRY_OUT(meed_file_join(config->state, "ledger.jsonl", path, sizeof path));
    MEED_TRY_OUT(meed_ledger_open(path, runner->key, &runner->ledger));
    MEED_TRY_OUT(
        meed_settle_prepare(&runner->terms, runner->store, runner->ledger, config->registry));
    MEED_TRY_OUT(meed_board_create(config->registry, runner->terms.rounds, config->observer,
                                   config->observer_user, &runner->board));
    MEED_TRY_OUT(meed_adapter_create(&runner->terms.model, &runner->terms.lora, &shape));
    struct meed_service_config service = {.terms = &runner->terms,
                                          .store = runner->store,
                                          .ledger = runner->ledger,
                                          .registry = config->registry,
                                          .board = runner->board,
                                          .shape = shape};
    MEED_TRY_OUT(meed_service_create(&service, &runner->service));
    shape = NULL; /* the service keeps it */
    struct meed_settle_config settle = {.terms = &runner->terms,
                                        .store = runner->store,
                                        .ledger = runner->ledger,
                                        .registry = config->registry,
                                        .board = runner->board,
                                        .service = runner->service,
                                        .pool = config->pool,
                                        .value = config->value,
                                        .value_user = config->value_user,
                                        .align = config->align,
                                        .align_user = config->align_user,
                                        .report_path = config->report,
                                        .fault = config->fault};
    MEED_TRY_OUT(meed_settle_create(&settle, &runner->settle));
out:
    meed_adapter_destroy(shape);
    return st;
}

enum meed_status meed_runner_create(const struct meed_runner_config *config,
                                    struct meed_runner **runner)
{
    struct meed_runner *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->terms = *config->terms;
    made->registry = config->registry;
    atomic_init(&made->stop, false);
    enum meed_status st = build(made, config);
    if (st != MEED_OK) {
        meed_runner_destroy(made);
        return st;
    }
    *runner = made;
    return MEED_OK;
}

void meed_runner_destroy(struct meed_runner *runner)
{
    if (!runner) {
        return;
    }
    meed_settle_destroy(runner->settle);
    meed_service_destroy(runner->service);
    meed_board_destroy(runner->board);
    meed_ledger_close(runner->ledger);
    meed_signature_key_close(runner->key);
    meed_store_close(runner->store);
    meed_heap_free(runner);
}

const struct meed_rpc_service *meed_runner_service(const struct meed_runner *runner)
{
    return meed_service_table(runner->service);
}

void meed_runner_set_server(struct meed_runner *runner, struct meed_rpc_server *server)
{
    meed_service_set_server(runner->service, server);
}

const struct meed_terms *meed_runner_terms(const struct meed_runner *runner)
{
    return &runner->terms;
}

struct meed_board *meed_runner_board(struct meed_runner *runner)
{
    return runner->board;
}

void meed_runner_picture(struct meed_runner *runner, struct meed_runner_picture *picture)
{
    meed_service_state(runner->service, &picture->state);
    meed_service_counts(runner->service, &picture->service);
    meed_settle_counts(runner->settle, &picture->settle);
    picture->writable = meed_store_writable(runner->store);
    picture->ledger_entries = meed_ledger_count(runner->ledger);
}

/* ---- run ------------------------------------------------------------------------------------- */

void meed_runner_request_stop(struct meed_runner *runner)
{
    atomic_store(&runner->stop, true);
    meed_service_nudge(runner->service);
}

bool meed_runner_stopping(const struct meed_runner *runner)
{
    return atomic_load(&runner->stop);
}

static void say_waiting(struct meed_runner *runner, const struct meed_service_state *state)
{
    struct meed_aggregator_event event = {.kind = MEED_AGGREGATOR_WAITING,
                                          .round = state->round,
                                          .client = -1,
                                          .remaining_ms = state->remaining_ms};
    char missing[256];
    if (meed_clock_seconds_since(runner->said_ns) * 1000.0 < WAITING_LOG_MS) {
        return;
    }
    runner->said_ns = meed_clock_monotonic_ns();
    meed_board_missing(runner->board, missing, sizeof missing);
    if (state->remaining_ms < 0) {
        snprintf(event.text, sizeof event.text, "waiting for the first client");
    } else {
        snprintf(event.text, sizeof event.text, "waiting for %s (%lld s left)", missing,
                 (long long)(state->remaining_ms / 1000));
    }
    MEED_LOG_INFO("server", "round %d: %s (updates=%d/%d deadline_ms=%lld)", state->round,
                  event.text, meed_board_updates_in(runner->board),
                  meed_registry_count(runner->registry), (long long)state->remaining_ms);
    meed_board_emit(runner->board, &event);
}

/* One turn: time, then the stage that is due or a sleep. *finished at the end of the run. */
static enum meed_status turn(struct meed_runner *runner, bool *finished)
{
    struct meed_service_state state;
    MEED_TRY(meed_service_tick(runner->service));
    meed_service_state(runner->service, &state);
    if (state.phase == MEED_ROUND_FINISHED) {
        *finished = true;
        return MEED_OK;
    }
    if (state.phase != MEED_ROUND_OPEN) {
        runner->said_ns = meed_clock_monotonic_ns();
        return meed_settle_stage(runner->settle, &state);
    }
    say_waiting(runner, &state);
    int64_t sleep_ms = state.remaining_ms >= 0 ? MEED_MIN(state.remaining_ms, TICK_MS) : TICK_MS;
    meed_service_wait(runner->service, MEED_MAX(sleep_ms, 1));
    return MEED_OK;
}

/* The last receipts. */
static void linger(struct meed_runner *runner, int64_t linger_ms)
{
    int64_t start_ns = meed_clock_monotonic_ns();
    while (!meed_runner_stopping(runner) && !meed_service_all_served(runner->service)) {
        double left_ms = (double)linger_ms - meed_clock_seconds_since(start_ns) * 1000.0;
        if (left_ms <= 0.0) {
            return;
        }
        meed_service_wait(runner->service, (int64_t)MEED_MIN(left_ms, (double)TICK_MS) + 1);
    }
}

/* A sleep that calls do not end, only a stop. */
static void pause_ms(struct meed_runner *runner, int64_t duration_ms)
{
    int64_t start_ns = meed_clock_monotonic_ns();
    while (!meed_runner_stopping(runner) &&
           meed_clock_seconds_since(start_ns) * 1000.0 < (double)duration_ms) {
        meed_clock_sleep_ms(50);
    }
}

enum meed_status meed_runner_run(struct meed_runner *runner, int64_t linger_ms)
{
    bool finished = false;
    struct meed_service_state state;
    struct meed_aggregator_event event = {.kind = MEED_AGGREGATOR_OPENED, .client = -1};
    meed_service_state(runner->service, &state);
    if (state.phase == MEED_ROUND_OPEN) {
        event.round = state.round;
        meed_board_emit(runner->board, &event);
    }
    runner->said_ns = meed_clock_monotonic_ns();
    while (!finished) {
        if (meed_runner_stopping(runner)) {
            return MEED_FAIL(MEED_CANCELLED,
                             "stopped in round %d; start again with the same state "
                             "folder to go on",
                             state.round);
        }
        enum meed_status st = turn(runner, &finished);
        if (st == MEED_IO) {
            MEED_LOG_WARN("server", "trying again in %d s: %s", RETRY_MS / 1000, meed_last_error());
            pause_ms(runner, RETRY_MS);
        } else if (st != MEED_OK) {
            return st;
        }
        meed_service_state(runner->service, &state);
    }
    MEED_TRY(meed_settle_report(runner->settle));
    linger(runner, linger_ms);
    return MEED_OK;
}
