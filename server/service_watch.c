/* Watch: the present state first, then every event, each client at its own pace.
 *
 * Events go into a ring; a watcher keeps a cursor and writes when the transport is ready for more.
 * One that falls behind the ring starts over with the present state, which is all it needs: the
 * state is the truth, events are haste. The present state is two events: the last settled round (so
 * that a client that was away fetches its receipt) and what the round is doing now.
 */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "server/service_private.h"

/* Under the lock. */
static void fill_event(struct meed_service *service, enum meed_event_kind kind, int32_t round,
                       const char *text, struct meed_msg_watch_event *event)
{
    int64_t remaining_ms = meed_round_remaining_ms(&service->round, meed_service_now_ms());
    memset(event, 0, sizeof *event);
    event->kind = kind;
    event->round = round;
    event->updates_in = service->round.arrived_count;
    event->updates_expected = service->round.config.clients;
    memcpy(event->adapter_hash, service->adapter_hash, MEED_SHA256_BYTES);
    if (kind == MEED_EVENT_ROUND_OPENED && remaining_ms >= 0) {
        event->remaining_ms = remaining_ms;
        event->deadline_wall_ms = meed_clock_wall_ms() + remaining_ms;
    }
    if (kind == MEED_EVENT_ROUND_SETTLED || kind == MEED_EVENT_FINISHED) {
        meed_ledger_head(service->config.ledger, event->ledger_hash);
    }
    snprintf(event->text, sizeof event->text, "%s", text);
}

void meed_service_tell(struct meed_service *service, enum meed_event_kind kind, int32_t round,
                       const char *text)
{
    uint64_t slot = service->event_count++ % MEED_SERVICE_EVENTS;
    fill_event(service, kind, round, text, &service->events[slot]);
    meed_service_wake_watchers(service);
}

void meed_service_wake_watchers(struct meed_service *service)
{
    for (struct meed_service_watcher *at = service->watchers; at; at = at->next) {
        meed_rpc_call_wake(at->call);
    }
}

static enum meed_event_kind present_kind(const struct meed_round *round)
{
    switch (round->phase) {
    case MEED_ROUND_OPEN:
        return MEED_EVENT_ROUND_OPENED;
    case MEED_ROUND_FINISHED:
        return MEED_EVENT_FINISHED;
    case MEED_ROUND_ABANDON:
        return MEED_EVENT_ROUND_ABANDONED;
    default:
        return MEED_EVENT_ROUND_CLOSED;
    }
}

/* Under the lock: what this watcher is sent next; false if it knows everything. */
static bool next_event(struct meed_service *service, struct meed_service_watcher *watcher,
                       struct meed_msg_watch_event *event)
{
    if (service->event_count - watcher->cursor > MEED_SERVICE_EVENTS) {
        watcher->snapshots = 0;
    }
    if (watcher->snapshots == 0) {
        watcher->snapshots = 1;
        if (service->settled_round > 0) {
            fill_event(service, MEED_EVENT_ROUND_SETTLED, service->settled_round, "", event);
            return true;
        }
    }
    if (watcher->snapshots == 1) {
        watcher->snapshots = 2;
        watcher->cursor = service->event_count;
        fill_event(service, present_kind(&service->round), service->round.round, "", event);
        return true;
    }
    if (watcher->cursor == service->event_count) {
        return false;
    }
    *event = service->events[watcher->cursor++ % MEED_SERVICE_EVENTS];
    if (event->kind == MEED_EVENT_ROUND_OPENED && event->round == service->round.round) {
        fill_event(service, MEED_EVENT_ROUND_OPENED, service->round.round, "", event);
    }
    return true;
}

void meed_service_watch_writable(void *user, struct meed_rpc_call *call)
{
    struct meed_service *service = user;
    struct meed_service_watcher *watcher = meed_rpc_call_state(call);
    struct meed_msg_watch_event event;
    if (!watcher || meed_rpc_call_write_pending(call)) {
        return; /* `writable` will come */
    }
    pthread_mutex_lock(&service->lock);
    bool more = next_event(service, watcher, &event);
    pthread_mutex_unlock(&service->lock);
    if (!more) {
        return;
    }
    struct meed_buf bytes;
    meed_codec_buf_init(&bytes);
    enum meed_status st = meed_codec_pack_watch_event(&event, &bytes);
    if (st == MEED_OK) {
        meed_rpc_call_write(call, bytes.data, bytes.size);
    } else {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
    }
    meed_buf_clear(&bytes);
}

static enum meed_status begin(struct meed_service *service, struct meed_rpc_call *call,
                              int32_t client, const void *bytes, size_t size)
{
    struct meed_msg_watch_request request;
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    enum meed_status st = meed_codec_unpack_watch_request(bytes, size, &arena, &request);
    meed_arena_clear(&arena);
    MEED_TRY(st);
    MEED_TRY(meed_service_check_run(service, request.run_id));
    struct meed_service_watcher *watcher = meed_heap_alloc(1, sizeof *watcher);
    if (!watcher) {
        return MEED_NOMEM;
    }
    watcher->call = call;
    watcher->client = client;
    meed_rpc_call_hold(call);
    meed_rpc_call_set_state(call, watcher);
    pthread_mutex_lock(&service->lock);
    watcher->cursor = service->event_count;
    watcher->next = service->watchers;
    if (watcher->next) {
        watcher->next->prev = watcher;
    }
    service->watchers = watcher;
    pthread_mutex_unlock(&service->lock);
    atomic_fetch_add(&service->watcher_count, 1);
    return MEED_OK;
}

void meed_service_watch_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                size_t size)
{
    struct meed_service *service = user;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    meed_service_present(service, client);
    enum meed_status st = begin(service, call, client, bytes, size);
    if (st != MEED_OK) {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
        return;
    }
    meed_service_watch_writable(service, call);
}

void meed_service_watch_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    (void)cancelled;
    struct meed_service *service = user;
    struct meed_service_watcher *watcher = meed_rpc_call_state(call);
    if (!watcher) {
        return;
    }
    pthread_mutex_lock(&service->lock);
    if (watcher->prev) {
        watcher->prev->next = watcher->next;
    } else {
        service->watchers = watcher->next;
    }
    if (watcher->next) {
        watcher->next->prev = watcher->prev;
    }
    pthread_mutex_unlock(&service->lock);
    atomic_fetch_sub(&service->watcher_count, 1);
    meed_rpc_call_release(call);
    meed_heap_free(watcher);
}
