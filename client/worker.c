/* See worker.h. The loop: connect (join, watch), take in events, act on the state they leave; any
 * failure that may mend itself drops the connection, waits and starts over. */
#include "client/worker.h"

#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "client/worker_internal.h"
#include "client/worker_state.h"

enum {
    POLL_MS = 200,
    HEARTBEAT_MS = 10000,
    DEFAULT_BACKOFF_MS = 250,
    BACKOFF_DOUBLINGS = 6,
    LAST_TRIES = 4
};

bool meed_worker_goes_on(struct meed_worker *worker, int32_t round)
{
    /* A broken event stream is the loop's business, not a reason to stop training. */
    meed_status_discard(meed_worker_drain(worker, 0));
    return !meed_worker_stopping(worker) && worker->open_round == round;
}

bool meed_worker_stopping(const struct meed_worker *worker)
{
    return worker->config->stop && *worker->config->stop != 0;
}

void meed_worker_emit(const struct meed_worker *worker, struct meed_worker_event event)
{
    event.round_count = worker->round_count;
    if (!event.text) {
        event.text = "";
    }
    if (worker->config->on_event) {
        worker->config->on_event(worker->config->user, &event);
    }
}

/* What the server says for good, however often it is asked. The rest (a full disk, a shutdown, a
 * lost connection) is worth another try. */
enum meed_status meed_worker_remote(enum meed_status st)
{
    switch (st) {
    case MEED_OK:
    case MEED_ARG:
    case MEED_FORMAT:
    case MEED_VERSION:
    case MEED_STATE:
    case MEED_NUMERIC:
    case MEED_UNSUPPORTED:
    case MEED_DENIED:
    case MEED_UNAUTHENTICATED:
    case MEED_NOT_FOUND:
        return st;
    default:
        return MEED_FAIL(MEED_RPC, "%s", meed_last_error());
    }
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void absorb(struct meed_worker *worker, const struct meed_msg_watch_event *event)
{
    bool over = event->round >= worker->open_round;
    switch (event->kind) {
    case MEED_EVENT_ROUND_OPENED:
        worker->open_round = event->round;
        break;
    case MEED_EVENT_ROUND_CLOSED:
        worker->open_round = over ? -1 : worker->open_round;
        break;
    case MEED_EVENT_ROUND_ABANDONED:
        worker->open_round = over ? -1 : worker->open_round;
        MEED_LOG_WARN("client", "round %d was abandoned: %s", event->round, event->text);
        break;
    case MEED_EVENT_ROUND_SETTLED:
        worker->open_round = over ? -1 : worker->open_round;
        worker->receipts_due = true;
        break;
    case MEED_EVENT_FINISHED:
        worker->open_round = -1;
        worker->receipts_due = true;
        worker->finished = true;
        break;
    default:
        MEED_LOG_DEBUG("client", "server: %s", event->text);
        break;
    }
}

enum meed_status meed_worker_drain(struct meed_worker *worker, int64_t timeout_ms)
{
    while (worker->watch && !worker->watch_over) {
        enum meed_rpc_event got = MEED_RPC_WAITING;
        struct meed_msg_watch_event event;
        meed_buf_reset(&worker->event_bytes);
        meed_arena_reset(&worker->event_arena);
        MEED_TRY(meed_worker_remote(
            meed_rpc_stream_receive(worker->watch, timeout_ms, &worker->event_bytes, &got)));
        if (got == MEED_RPC_WAITING) {
            return MEED_OK;
        }
        if (got == MEED_RPC_END) {
            worker->watch_over = true;
            return MEED_OK;
        }
        MEED_TRY(meed_codec_unpack_watch_event(worker->event_bytes.data, worker->event_bytes.size,
                                               &worker->event_arena, &event));
        absorb(worker, &event);
        timeout_ms = 0;
    }
    return MEED_OK;
}

/* ---- connecting -------------------------------------------------------------------------------
 */

static enum meed_status accept_terms(struct meed_worker *worker,
                                     const struct meed_msg_join_reply *reply)
{
    const struct meed_worker_config *config = worker->config;
    if (strcmp(reply->client_id, config->id) != 0) {
        return MEED_FAIL(MEED_DENIED,
                         "the server takes this client for \"%s\", not \"%.64s\"; its "
                         "certificate decides",
                         reply->client_id, config->id);
    }
    if (memcmp(reply->model_hash, config->checkpoint->hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_VERSION, "the federation trains another base model than %.512s",
                         config->checkpoint->folder);
    }
    if (worker->run_id[0] != '\0' && strcmp(worker->run_id, reply->run_id) != 0) {
        return MEED_FAIL(MEED_VERSION,
                         "%.512s belongs to run %s, the server runs %s; use another "
                         "state folder",
                         config->state_folder, worker->run_id, reply->run_id);
    }
    if (worker->run_id[0] == '\0') {
        MEED_TRY(meed_worker_state_set_run(config->state_folder, reply->run_id));
        memcpy(worker->run_id, reply->run_id, sizeof worker->run_id);
    }
    worker->round_count = reply->round_count;
    return MEED_OK;
}

static enum meed_status join(struct meed_worker *worker)
{
    enum meed_status st = MEED_OK;
    const struct meed_worker_config *config = worker->config;
    struct meed_msg_join_request request = {.protocol_version = MEED_PROTOCOL_VERSION,
                                            .sample_count = config->dataset->count};
    struct meed_msg_join_reply reply;
    struct meed_buf message, answer;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    snprintf(request.software, sizeof request.software, "meed %s", MEED_RELEASE);
    snprintf(request.device, sizeof request.device, "%s", config->be->name);
    memcpy(request.run_id, worker->run_id, sizeof request.run_id);
    memcpy(request.model_hash, config->checkpoint->hash, sizeof request.model_hash);
    MEED_TRY_OUT(meed_codec_pack_join_request(&request, &message));
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_client_unary(
        config->rpc, MEED_RPC_JOIN, message.data, message.size, MEED_LIMIT_UNARY_MS, &answer)));
    MEED_TRY_OUT(meed_codec_unpack_join_reply(answer.data, answer.size, &arena, &reply));
    MEED_TRY_OUT(accept_terms(worker, &reply));
    MEED_LOG_INFO("client", "joined run %s as %s (rounds=%d aggregation=%s payment=%s)",
                  reply.run_id, reply.client_id, reply.round_count, reply.aggregation,
                  reply.payment);
    meed_worker_emit(worker, (struct meed_worker_event){.kind = MEED_WORKER_JOINED,
                                                        .round = reply.next_round,
                                                        .text = reply.run_id});
out:
    meed_arena_clear(&arena);
    meed_buf_clear(&answer);
    meed_buf_clear(&message);
    return st;
}

static enum meed_status watch(struct meed_worker *worker)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_watch_request request;
    struct meed_buf message;
    meed_codec_buf_init(&message);
    memcpy(request.run_id, worker->run_id, sizeof request.run_id);
    MEED_TRY_OUT(meed_codec_pack_watch_request(&request, &message));
    worker->watch_over = false;
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_stream_open(worker->config->rpc, MEED_RPC_WATCH,
                                                         MEED_LIMIT_WATCH_MS, &worker->watch)));
    /* If sending fails the call has ended; the loop finds out and asks why. */
    if (meed_rpc_stream_send(worker->watch, message.data, message.size) != MEED_OK ||
        meed_rpc_stream_close_send(worker->watch) != MEED_OK) {
        worker->watch_over = true;
    }
out:
    meed_buf_clear(&message);
    return st;
}

static void disconnect(struct meed_worker *worker)
{
    if (worker->watch) {
        meed_rpc_stream_cancel(worker->watch);
        meed_rpc_stream_destroy(worker->watch);
        worker->watch = NULL;
    }
    worker->open_round = -1;
}

/* ---- receipts ---------------------------------------------------------------------------------
 */

static enum meed_status fetch_receipt(struct meed_worker *worker, int32_t round)
{
    enum meed_status st = MEED_OK;
    const struct meed_worker_config *config = worker->config;
    struct meed_msg_receipt_request request = {.round = round};
    struct meed_msg_receipt receipt;
    char path[MEED_PATH_BYTES];
    struct meed_buf message, answer;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    memcpy(request.run_id, worker->run_id, sizeof request.run_id);
    MEED_TRY_OUT(meed_codec_pack_receipt_request(&request, &message));
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_client_unary(
        config->rpc, MEED_RPC_RECEIPT, message.data, message.size, MEED_LIMIT_UNARY_MS, &answer)));
    MEED_TRY_OUT(meed_codec_unpack_receipt(answer.data, answer.size, &arena, &receipt));
    MEED_TRY_OUT(
        meed_worker_state_path(config->state_folder, round, MEED_WORKER_RECEIPT_FILE, path));
    MEED_TRY_OUT(meed_file_write_atomic(path, answer.data, answer.size));
    meed_worker_emit(worker, (struct meed_worker_event){
                                 .kind = MEED_WORKER_RECEIPT, .round = round, .receipt = &receipt});
out:
    meed_arena_clear(&arena);
    meed_buf_clear(&answer);
    meed_buf_clear(&message);
    return st;
}

/* Receipts of all pushed rounds that have none yet, newest first. A round that is not settled, or
 * that the server no longer knows, is passed over until the next event. */
static enum meed_status fetch_receipts(struct meed_worker *worker)
{
    const char *state = worker->config->state_folder;
    int32_t round = INT32_MAX;
    while ((round = meed_worker_state_newest(state, round, MEED_WORKER_PUSHED_MARK)) >= 0) {
        if (meed_worker_state_has(state, round, MEED_WORKER_RECEIPT_FILE)) {
            continue;
        }
        enum meed_status st = fetch_receipt(worker, round);
        if (st != MEED_OK && st != MEED_STATE && st != MEED_NOT_FOUND) {
            return st;
        }
    }
    worker->receipts_due = false;
    return MEED_OK;
}

/* ---- the loop ---------------------------------------------------------------------------------
 */

static bool round_is_due(const struct meed_worker *worker)
{
    return worker->open_round >= 0 && worker->open_round != worker->left_round &&
           !meed_worker_state_has(worker->config->state_folder, worker->open_round,
                                  MEED_WORKER_PUSHED_MARK);
}

static enum meed_status do_round(struct meed_worker *worker)
{
    int32_t round = worker->open_round;
    enum meed_status st = meed_worker_round(worker, round);
    bool closed_meanwhile = st == MEED_CANCELLED && !meed_worker_stopping(worker);
    if (st == MEED_STATE || closed_meanwhile) {
        MEED_LOG_WARN("client", "round %d goes on without this client: %s", round,
                      meed_last_error());
        worker->left_round = round;
        meed_worker_emit(worker, (struct meed_worker_event){.kind = MEED_WORKER_LEFT,
                                                            .round = round,
                                                            .text = meed_last_error()});
        return MEED_OK;
    }
    return st;
}

/* Until the run is over, the worker is stopped or the connection fails. */
static enum meed_status attend(struct meed_worker *worker)
{
    int64_t heard_ns = meed_clock_monotonic_ns();
    while (!meed_worker_stopping(worker)) {
        MEED_TRY(meed_worker_drain(worker, POLL_MS));
        if (worker->receipts_due) {
            int32_t before = worker->open_round >= 0 ? worker->open_round : INT32_MAX;
            MEED_TRY(meed_worker_confirm(worker, before));
            MEED_TRY(fetch_receipts(worker));
        }
        if (worker->finished) {
            return MEED_OK;
        }
        if (round_is_due(worker)) {
            MEED_TRY(do_round(worker));
            heard_ns = meed_clock_monotonic_ns();
        } else if (worker->watch_over) {
            MEED_TRY(meed_worker_remote(meed_rpc_stream_finish(worker->watch)));
            return MEED_FAIL(MEED_RPC, "the server ended the stream of events");
        } else if (meed_clock_seconds_since(heard_ns) * 1000.0 >= HEARTBEAT_MS) {
            MEED_LOG_INFO("client", "connected, waiting for the next round");
            meed_worker_emit(worker, (struct meed_worker_event){.kind = MEED_WORKER_WAITING});
            heard_ns = meed_clock_monotonic_ns();
        }
    }
    return MEED_FAIL(MEED_CANCELLED, "stopped on request; a restart goes on from %.512s",
                     worker->config->state_folder);
}

/* Half to one and a half times backoff · 2^failures, so that clients of a restarted server do not
 * come back all at once. */
static void back_off(struct meed_worker *worker, struct meed_rng *rng, int failures)
{
    int64_t base = worker->config->backoff_ms > 0 ? worker->config->backoff_ms : DEFAULT_BACKOFF_MS;
    double delay_ms = (double)(base << MEED_MIN(failures, BACKOFF_DOUBLINGS));
    delay_ms *= 0.5 + meed_rng_unit(rng);
    MEED_LOG_WARN("client", "trying again: %s (wait_ms=%.0f)", meed_last_error(), delay_ms);
    meed_worker_emit(worker, (struct meed_worker_event){.kind = MEED_WORKER_RETRYING,
                                                        .seconds = delay_ms / 1000.0,
                                                        .text = meed_last_error()});
    int64_t start_ns = meed_clock_monotonic_ns();
    while (!meed_worker_stopping(worker)) {
        double left_ms = delay_ms - meed_clock_seconds_since(start_ns) * 1000.0;
        if (left_ms <= 0.0) {
            break;
        }
        meed_clock_sleep_ms((int64_t)MEED_MIN(left_ms, 50.0) + 1);
    }
}

/* One connection's life. failures counts those in a row without a join, and all once the run is
 * over (a server that has finished may be gone before the last receipts were fetched). */
static enum meed_status connect_and_attend(struct meed_worker *worker, int *failures)
{
    enum meed_status st = MEED_OK;
    ++*failures;
    MEED_TRY_OUT(join(worker));
    if (!worker->finished) {
        *failures = 0;
    }
    MEED_TRY_OUT(watch(worker));
    MEED_TRY_OUT(attend(worker));
out:
    disconnect(worker);
    return st;
}

enum meed_status meed_worker_run(const struct meed_worker_config *config)
{
    enum meed_status st = MEED_OK;
    struct meed_worker worker = {.config = config, .open_round = -1, .left_round = -1};
    struct meed_rng rng = meed_rng_stream((uint64_t)meed_clock_wall_ms(), config->id, 0);
    int failures = 0;
    meed_codec_buf_init(&worker.event_bytes);
    meed_codec_arena_init(&worker.event_arena);
    MEED_TRY_OUT(meed_worker_state_open(config->state_folder, worker.run_id));
    worker.finished = meed_worker_own_due(config->state_folder);
    while (!worker.finished || (worker.receipts_due && failures < LAST_TRIES)) {
        st = connect_and_attend(&worker, &failures);
        if (st != MEED_OK && !meed_status_retryable(st)) {
            goto out;
        }
        if (st != MEED_OK) {
            back_off(&worker, &rng, failures);
        }
        if (meed_worker_stopping(&worker)) {
            st = MEED_FAIL(MEED_CANCELLED, "stopped on request; a restart goes on from %.512s",
                           config->state_folder);
            goto out;
        }
    }
    if (worker.receipts_due) {
        MEED_LOG_WARN("client", "the run is over, but receipts are missing: %s", meed_last_error());
    }
    MEED_TRY_OUT(meed_worker_own(&worker));
    meed_worker_emit(&worker, (struct meed_worker_event){.kind = MEED_WORKER_FINISHED});
out:
    disconnect(&worker);
    meed_arena_clear(&worker.event_arena);
    meed_buf_clear(&worker.event_bytes);
    return st;
}

enum meed_status meed_worker_visit(const struct meed_worker_config *config, int32_t round)
{
    enum meed_status st = MEED_OK;
    struct meed_worker worker = {
        .config = config, .open_round = round > 0 ? round : -1, .left_round = -1};
    meed_buf_init(&worker.event_bytes, 1);
    MEED_TRY_OUT(meed_worker_state_open(config->state_folder, worker.run_id));
    MEED_TRY_OUT(join(&worker));
    MEED_TRY_OUT(meed_worker_confirm(&worker, round > 0 ? round : INT32_MAX));
    MEED_TRY_OUT(fetch_receipts(&worker));
    if (round_is_due(&worker)) {
        MEED_TRY_OUT(do_round(&worker));
    }
    if (round == 0 && config->own_at_end) {
        MEED_TRY_OUT(meed_worker_own(&worker));
    }
out:
    meed_buf_clear(&worker.event_bytes);
    return st;
}
