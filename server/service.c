/* See service.h: life, the shared round, Join. */
#include "server/service_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/log.h"
#include "server/aggregate.h"
#include "server/control.h"
#include "server/incoming.h"

int64_t meed_service_now_ms(void)
{
    return meed_clock_monotonic_ns() / 1000000;
}

const char *meed_service_client_id(const struct meed_service *service, int32_t client)
{
    return meed_registry_id(service->config.registry, client);
}

/* ---- the shared round ------------------------------------------------------------------------ */

void meed_service_sync_health(struct meed_service *service)
{
    pthread_mutex_lock(&service->lock);
    if (service->server) {
        meed_rpc_server_set_serving(service->server, meed_store_writable(service->config.store));
    }
    pthread_mutex_unlock(&service->lock);
}

static void tell_phase(struct meed_service *service, const struct meed_round *before)
{
    const struct meed_round *now = &service->round;
    if (before->phase == MEED_ROUND_OPEN && now->phase == MEED_ROUND_SCREEN) {
        meed_service_tell(service, MEED_EVENT_ROUND_CLOSED, now->round, "");
    }
    if (now->phase == MEED_ROUND_ABANDON) {
        char text[MEED_LIMIT_REASON_BYTES];
        snprintf(text, sizeof text, "%d of %d updates at the deadline, %d needed",
                 now->arrived_count, now->config.clients, now->config.quorum);
        meed_service_tell(service, MEED_EVENT_ROUND_ABANDONED, now->round, text);
    }
    if (before->phase == MEED_ROUND_PUBLISH) {
        service->settled_round = before->round;
        meed_service_tell(service, MEED_EVENT_ROUND_SETTLED, before->round, "");
    }
    if (now->phase == MEED_ROUND_FINISHED) {
        meed_service_tell(service, MEED_EVENT_FINISHED, now->round, "");
    } else if (now->phase == MEED_ROUND_OPEN) {
        /* Whoever watches is here, so the clock of the new round runs. */
        if (service->watchers) {
            service->round.deadline_at_ms =
                meed_service_now_ms() + service->round.config.deadline_ms;
        }
        meed_service_tell(service, MEED_EVENT_ROUND_OPENED, now->round, "");
    }
}

enum meed_status meed_service_adopt(struct meed_service *service,
                                    const struct meed_round_outcome *outcome)
{
    struct meed_round before = service->round;
    bool moved = outcome->next.phase != before.phase || outcome->next.round != before.round;
    if (moved) {
        struct meed_store_progress progress = {.round = outcome->next.round,
                                               .phase = (int32_t)outcome->next.phase};
        memcpy(progress.adapter_hash, service->adapter_hash, MEED_SHA256_BYTES);
        MEED_TRY(meed_store_save_progress(service->config.store, &progress));
    }
    service->round = outcome->next;
    if (moved) {
        tell_phase(service, &before);
        sem_post(&service->wake);
    }
    return MEED_OK;
}

void meed_service_present(struct meed_service *service, int32_t client)
{
    struct meed_round_event event = {.kind = MEED_ROUND_EVENT_PRESENT,
                                     .now_ms = meed_service_now_ms()};
    struct meed_round_outcome outcome;
    pthread_mutex_lock(&service->lock);
    service->joined[client] = true;
    meed_round_step(&service->round, &event, &outcome);
    service->round = outcome.next; /* a clock is not worth a write */
    pthread_mutex_unlock(&service->lock);
    if (meed_board_joined(service->config.board, client)) {
        struct meed_aggregator_event joined = {.kind = MEED_AGGREGATOR_JOINED, .client = client};
        meed_board_emit(service->config.board, &joined);
    }
}

void meed_service_state(struct meed_service *service, struct meed_service_state *state)
{
    pthread_mutex_lock(&service->lock);
    state->phase = service->round.phase;
    state->round = service->round.round;
    state->remaining_ms = meed_round_remaining_ms(&service->round, meed_service_now_ms());
    memcpy(state->adapter_hash, service->adapter_hash, MEED_SHA256_BYTES);
    pthread_mutex_unlock(&service->lock);
}

enum meed_status meed_service_tick(struct meed_service *service)
{
    if (!meed_store_writable(service->config.store)) {
        meed_status_discard(meed_store_probe(service->config.store));
    }
    meed_service_sync_health(service);
    meed_registry_refresh(service->config.registry);
    struct meed_round_event event = {.kind = MEED_ROUND_EVENT_TICK,
                                     .now_ms = meed_service_now_ms()};
    struct meed_round_outcome outcome;
    pthread_mutex_lock(&service->lock);
    meed_round_step(&service->round, &event, &outcome);
    enum meed_status st = meed_service_adopt(service, &outcome);
    pthread_mutex_unlock(&service->lock);
    return st;
}

enum meed_status meed_service_advance(struct meed_service *service,
                                      enum meed_round_event_kind stage,
                                      const uint8_t adapter_hash[MEED_SHA256_BYTES])
{
    struct meed_round_event event = {.kind = stage};
    struct meed_round_outcome outcome;
    uint8_t kept[MEED_SHA256_BYTES];
    pthread_mutex_lock(&service->lock);
    meed_round_step(&service->round, &event, &outcome);
    enum meed_status st = meed_round_verdict_status(&service->round, outcome.verdict, 0);
    if (st == MEED_OK) {
        memcpy(kept, service->adapter_hash, sizeof kept);
        if (adapter_hash) {
            memcpy(service->adapter_hash, adapter_hash, MEED_SHA256_BYTES);
        }
        st = meed_service_adopt(service, &outcome);
        if (st != MEED_OK) {
            memcpy(service->adapter_hash, kept, sizeof kept);
        }
    }
    pthread_mutex_unlock(&service->lock);
    return st;
}

void meed_service_wait(struct meed_service *service, int64_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    int64_t ns = until.tv_nsec + timeout_ms % 1000 * 1000000;
    until.tv_sec += (time_t)(timeout_ms / 1000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    while (sem_timedwait(&service->wake, &until) != 0 && errno == EINTR) {
    }
    while (sem_trywait(&service->wake) == 0) {
    }
}

void meed_service_nudge(struct meed_service *service)
{
    sem_post(&service->wake);
}

bool meed_service_all_served(struct meed_service *service)
{
    bool all = true;
    pthread_mutex_lock(&service->lock);
    for (int32_t i = 0; i < service->round.config.clients; i++) {
        all = all && (!service->joined[i] || service->served[i]);
    }
    pthread_mutex_unlock(&service->lock);
    return all;
}

/* ---- every call ------------------------------------------------------------------------------ */

bool meed_service_admit(struct meed_service *service, struct meed_rpc_call *call, int32_t *client)
{
    const struct meed_rpc_peer *peer = meed_rpc_call_peer(call);
    enum meed_status st = meed_registry_identify(service->config.registry, peer, client);
    if (st != MEED_OK) {
        MEED_LOG_WARN("server", "refused a call (peer=%.120s id=%.64s): %s", peer->address,
                      peer->client_id, meed_last_error());
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
        return false;
    }
    return true;
}

enum meed_status meed_service_check_run(const struct meed_service *service, const char *run_id)
{
    if (strcmp(run_id, service->config.terms->run_id) != 0) {
        return MEED_FAIL(MEED_VERSION, "this server runs %s, not \"%.64s\"; join again",
                         service->config.terms->run_id, run_id);
    }
    return MEED_OK;
}

/* ---- Join ------------------------------------------------------------------------------------ */

static enum meed_status check_join(const struct meed_service *service,
                                   const struct meed_msg_join_request *request)
{
    const struct meed_terms *terms = service->config.terms;
    if (request->protocol_version != MEED_PROTOCOL_VERSION) {
        return MEED_FAIL(MEED_VERSION,
                         "this server speaks protocol %d, the client %u; use the "
                         "same release",
                         MEED_PROTOCOL_VERSION, request->protocol_version);
    }
    if (memcmp(request->model_hash, terms->model_hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_VERSION, "the client has another base model; it needs the folder "
                                       "that this server was started with");
    }
    return request->run_id[0] ? meed_service_check_run(service, request->run_id) : MEED_OK;
}

static void fill_reply(struct meed_service *service, int32_t client,
                       struct meed_msg_join_reply *reply)
{
    const struct meed_terms *terms = service->config.terms;
    struct meed_service_state state;
    meed_service_state(service, &state);
    reply->protocol_version = MEED_PROTOCOL_VERSION;
    snprintf(reply->software, sizeof reply->software, "meed %s", MEED_RELEASE);
    snprintf(reply->run_id, sizeof reply->run_id, "%s", terms->run_id);
    snprintf(reply->client_id, sizeof reply->client_id, "%s",
             meed_service_client_id(service, client));
    memcpy(reply->model_hash, terms->model_hash, MEED_SHA256_BYTES);
    memcpy(reply->benchmark_hash, terms->benchmark_hash, MEED_SHA256_BYTES);
    memcpy(reply->ledger_key, terms->ledger_key, MEED_SHA256_BYTES);
    reply->round_count = terms->rounds;
    reply->next_round = state.round;
    snprintf(reply->aggregation, sizeof reply->aggregation, "%s",
             meed_aggregate_name(terms->aggregation));
    snprintf(reply->estimator, sizeof reply->estimator, "%s", terms->estimator);
    snprintf(reply->payment, sizeof reply->payment, "%s", terms->payment);
    reply->round_budget = meed_terms_budget(terms, state.round);
    for (size_t i = 0; i < reply->roster_count; i++) {
        snprintf(reply->roster[i], MEED_LIMIT_ID_BYTES, "%s",
                 meed_service_client_id(service, (int32_t)i));
    }
}

static void join_message(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct meed_service *service = user;
    enum meed_status st = MEED_OK;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    struct meed_msg_join_request request;
    struct meed_msg_join_reply reply = {.roster_count =
                                            (size_t)meed_registry_count(service->config.registry)};
    struct meed_arena arena;
    struct meed_buf answer;
    void *block = NULL;
    meed_codec_arena_init(&arena);
    meed_codec_buf_init(&answer);
    MEED_TRY_OUT(meed_codec_unpack_join_request(bytes, size, &arena, &request));
    MEED_TRY_OUT(check_join(service, &request));
    meed_service_present(service, client);
    MEED_TRY_OUT(meed_arena_alloc_array(&arena, reply.roster_count, MEED_LIMIT_ID_BYTES, &block));
    reply.roster = block;
    fill_reply(service, client, &reply);
    MEED_TRY_OUT(meed_codec_pack_join_reply(&reply, &answer));
    MEED_LOG_INFO("server", "%s joined (software=%s device=%s samples=%lld)", reply.client_id,
                  request.software, request.device, (long long)request.sample_count);
out:
    meed_rpc_call_finish(call, st, NULL, answer.data, st == MEED_OK ? answer.size : 0);
    meed_arena_clear(&arena);
    meed_buf_clear(&answer);
}

/* ---- life ------------------------------------------------------------------------------------ */

static const struct meed_rpc_method methods[] = {
    {.path = MEED_RPC_JOIN, .shape = MEED_RPC_UNARY, .message = join_message},
    {.path = MEED_RPC_WATCH,
     .shape = MEED_RPC_SERVER_STREAM,
     .endless = true,
     .message = meed_service_watch_message,
     .writable = meed_service_watch_writable,
     .wake = meed_service_watch_writable,
     .done = meed_service_watch_done},
    {.path = MEED_RPC_PULL,
     .shape = MEED_RPC_SERVER_STREAM,
     .progress_ms = MEED_LIMIT_PROGRESS_MS,
     .message = meed_service_pull_message,
     .writable = meed_service_pull_writable,
     .done = meed_service_pull_done},
    {.path = MEED_RPC_QUERY_PUSH, .shape = MEED_RPC_UNARY, .message = meed_service_query_message},
    {.path = MEED_RPC_PUSH,
     .shape = MEED_RPC_CLIENT_STREAM,
     .progress_ms = MEED_LIMIT_PROGRESS_MS,
     .start = meed_service_push_start,
     .message = meed_service_push_message,
     .half_closed = meed_service_push_half_closed,
     .done = meed_service_push_done},
    {.path = MEED_RPC_RECEIPT, .shape = MEED_RPC_UNARY, .message = meed_service_receipt_message},
    {.path = MEED_RPC_LEDGER, .shape = MEED_RPC_UNARY, .message = meed_service_ledger_message},
};

/* The stored round with the stored arrivals. */
static enum meed_status resume_round(struct meed_service *service)
{
    enum meed_status st = MEED_OK;
    const struct meed_terms *terms = service->config.terms;
    struct meed_round_config config = {terms->rounds, meed_registry_count(service->config.registry),
                                       terms->quorum, terms->deadline_ms};
    struct meed_store_progress progress;
    struct meed_store_update *updates = NULL;
    int32_t count = 0;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "round", 64u << 20);
    MEED_TRY_OUT(meed_store_load_progress(service->config.store, &progress));
    MEED_TRY_OUT(meed_round_resume(&config, progress.round, (enum meed_round_phase)progress.phase,
                                   &service->round));
    memcpy(service->adapter_hash, progress.adapter_hash, MEED_SHA256_BYTES);
    MEED_TRY_OUT(
        meed_store_list_updates(service->config.store, progress.round, &arena, &updates, &count));
    meed_board_open(service->config.board, progress.round);
    for (int32_t i = 0; i < count; i++) {
        int32_t client = meed_registry_find(service->config.registry, updates[i].client);
        MEED_TRY_OUT(meed_round_mark(&service->round, client));
        meed_board_update(service->config.board, client, updates[i].train_loss);
    }
    struct meed_ledger_place place;
    for (int32_t round = progress.round; round > 0 && service->settled_round == 0; round--) {
        if (meed_ledger_find(service->config.ledger, round, &place) &&
            place.kind == MEED_LEDGER_ROUND &&
            (round < progress.round || progress.phase == MEED_ROUND_FINISHED)) {
            service->settled_round = round;
        }
    }
out:
    meed_arena_clear(&arena);
    return st;
}

static enum meed_status measure_updates(struct meed_service *service)
{
    struct meed_incoming *incoming = NULL;
    MEED_TRY(meed_incoming_create(service->config.shape, meed_control_used(service->config.terms),
                                  &incoming));
    service->max_update_bytes = meed_incoming_max_bytes(incoming);
    meed_incoming_destroy(incoming);
    return MEED_OK;
}

enum meed_status meed_service_create(const struct meed_service_config *config,
                                     struct meed_service **service)
{
    enum meed_status st = MEED_OK;
    struct meed_service *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    size_t clients = (size_t)meed_registry_count(config->registry);
    made->config = *config;
    made->table = (struct meed_rpc_service){.name = "meed.v1.Federation",
                                            .methods = methods,
                                            .method_count = MEED_COUNT(methods),
                                            .user = made};
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->uploads_lock, NULL);
    sem_init(&made->wake, 0, 0);
    made->joined = meed_heap_alloc(clients, sizeof *made->joined);
    made->served = meed_heap_alloc(clients, sizeof *made->served);
    made->uploads = meed_heap_alloc(clients, sizeof *made->uploads);
    if (!made->joined || !made->served || !made->uploads) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(measure_updates(made));
    MEED_TRY_OUT(resume_round(made));
    *service = made;
    made = NULL;
out:
    if (made) {
        made->config.shape = NULL; /* stays the caller's */
    }
    meed_service_destroy(made);
    return st;
}

void meed_service_destroy(struct meed_service *service)
{
    if (!service) {
        return;
    }
    meed_adapter_destroy(service->config.shape);
    sem_destroy(&service->wake);
    pthread_mutex_destroy(&service->lock);
    pthread_mutex_destroy(&service->uploads_lock);
    meed_heap_free(service->joined);
    meed_heap_free(service->served);
    meed_heap_free(service->uploads);
    meed_heap_free(service);
}

const struct meed_rpc_service *meed_service_table(const struct meed_service *service)
{
    return &service->table;
}

void meed_service_set_server(struct meed_service *service, struct meed_rpc_server *server)
{
    pthread_mutex_lock(&service->lock);
    service->server = server;
    pthread_mutex_unlock(&service->lock);
}

void meed_service_counts(struct meed_service *service, struct meed_service_counts *counts)
{
    for (int i = 0; i < MEED_ROUND_VERDICT_COUNT; i++) {
        counts->verdicts[i] = atomic_load(&service->verdicts[i]);
    }
    counts->broken = atomic_load(&service->broken);
    counts->bytes_up = atomic_load(&service->bytes_up);
    counts->bytes_down = atomic_load(&service->bytes_down);
    counts->watchers = atomic_load(&service->watcher_count);
}
