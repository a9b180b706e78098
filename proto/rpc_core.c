/* See rpc_core.h. One mutex guards queue, timers and event sets: it is held for a few instructions,
 * and forty thousand small calls a second do not contend on it measurably. */
#include "proto/rpc_core.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    EVENT_START = 1,
    EVENT_WRITE = 2,
    EVENT_READ = 4,
    EVENT_TIMER = 8,
    EVENT_WAKE = 16,
    EVENT_SENT = 32,
    EVENT_CLOSE = 64,
    EVENT_SHUTDOWN = 128,
};

/* ---- time ----------------------------------------------------------------------------------- */

int64_t meed_rpc_core_deadline_ns(int64_t delay_ms)
{
    int64_t now_ns = meed_clock_monotonic_ns();
    if (delay_ms < 0) {
        return INT64_MAX;
    }
    return delay_ms > (INT64_MAX - now_ns) / 1000000 ? INT64_MAX : now_ns + delay_ms * 1000000;
}

void meed_rpc_core_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool meed_rpc_core_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t due_ns)
{
    if (due_ns == INT64_MAX) {
        pthread_cond_wait(cond, mutex);
        return true;
    }
    struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000), .tv_nsec = due_ns % 1000000000};
    return pthread_cond_timedwait(cond, mutex, &due) != ETIMEDOUT;
}

/* ---- timers: a binary heap under the mutex --------------------------------------------------- */

static void heap_put(struct meed_rpc_server *server, int slot, struct meed_rpc_call *call)
{
    server->timers[slot] = call;
    call->timer_slot = slot;
}

static void heap_sift(struct meed_rpc_server *server, int slot)
{
    struct meed_rpc_call *call = server->timers[slot];
    while (slot > 0 && server->timers[(slot - 1) / 2]->due_ns > call->due_ns) {
        heap_put(server, slot, server->timers[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        int child = 2 * slot + 1;
        if (child >= server->timer_count) {
            break;
        }
        if (child + 1 < server->timer_count &&
            server->timers[child + 1]->due_ns < server->timers[child]->due_ns) {
            child++;
        }
        if (server->timers[child]->due_ns >= call->due_ns) {
            break;
        }
        heap_put(server, slot, server->timers[child]);
        slot = child;
    }
    heap_put(server, slot, call);
}

static void heap_remove(struct meed_rpc_server *server, struct meed_rpc_call *call)
{
    int slot = call->timer_slot;
    if (slot < 0) {
        return;
    }
    call->timer_slot = -1;
    struct meed_rpc_call *last = server->timers[--server->timer_count];
    if (last != call) {
        heap_put(server, slot, last);
        heap_sift(server, slot);
    }
}

/* Files the earlier of the call's two times, or none. */
static void timer_update(struct meed_rpc_call *call)
{
    struct meed_rpc_server *server = call->server;
    int64_t due_ns = MEED_MIN(call->timer_ns, call->progress_ns);
    if (call->done) {
        due_ns = INT64_MAX;
    }
    pthread_mutex_lock(&server->mutex);
    if (due_ns == INT64_MAX) {
        heap_remove(server, call);
    } else if (call->timer_slot < 0 || call->due_ns != due_ns) {
        if (call->timer_slot < 0) {
            heap_put(server, server->timer_count++, call);
        }
        call->due_ns = due_ns;
        heap_sift(server, call->timer_slot);
        if (call->timer_slot == 0) {
            pthread_cond_signal(&server->timer_signal);
        }
    }
    pthread_mutex_unlock(&server->mutex);
}

/* ---- events --------------------------------------------------------------------------------- */

static void post_locked(struct meed_rpc_call *call, unsigned events)
{
    struct meed_rpc_server *server = call->server;
    call->events |= events;
    if (call->queued) {
        return;
    }
    call->queued = true;
    atomic_fetch_add(&call->refs, 1);
    call->next_ready = NULL;
    if (server->ready_last) {
        server->ready_last->next_ready = call;
    } else {
        server->ready_first = call;
    }
    server->ready_last = call;
    pthread_cond_signal(&server->ready_signal);
}

static void post(struct meed_rpc_call *call, unsigned events)
{
    pthread_mutex_t *mutex = &call->server->mutex;
    pthread_mutex_lock(mutex);
    post_locked(call, events);
    pthread_mutex_unlock(mutex);
}

void meed_rpc_core_post_read(struct meed_rpc_call *call, enum meed_rpc_read kind)
{
    pthread_mutex_t *mutex = &call->server->mutex;
    pthread_mutex_lock(mutex);
    call->read_kind = kind;
    post_locked(call, EVENT_READ);
    pthread_mutex_unlock(mutex);
}

void meed_rpc_core_post_write(struct meed_rpc_call *call, bool ok)
{
    pthread_mutex_t *mutex = &call->server->mutex;
    pthread_mutex_lock(mutex);
    call->write_ok = ok;
    post_locked(call, EVENT_WRITE);
    pthread_mutex_unlock(mutex);
}

void meed_rpc_core_post_sent(struct meed_rpc_call *call)
{
    post(call, EVENT_SENT);
}

void meed_rpc_core_post_close(struct meed_rpc_call *call, bool cancelled)
{
    pthread_mutex_t *mutex = &call->server->mutex;
    pthread_mutex_lock(mutex);
    call->cancelled = call->cancelled || cancelled;
    post_locked(call, EVENT_CLOSE);
    pthread_mutex_unlock(mutex);
}

void meed_rpc_call_hold(struct meed_rpc_call *call)
{
    atomic_fetch_add(&call->refs, 1);
}

void meed_rpc_call_release(struct meed_rpc_call *call)
{
    if (atomic_fetch_sub(&call->refs, 1) == 1) {
        call->ops->release(call);
    }
}

void meed_rpc_call_wake(struct meed_rpc_call *call)
{
    post(call, EVENT_WAKE);
}

/* ---- operations of handlers ------------------------------------------------------------------ */

const struct meed_rpc_peer *meed_rpc_call_peer(const struct meed_rpc_call *call)
{
    return &call->peer;
}

void meed_rpc_call_set_state(struct meed_rpc_call *call, void *state)
{
    call->state = state;
}

void *meed_rpc_call_state(const struct meed_rpc_call *call)
{
    return call->state;
}

int64_t meed_rpc_call_remaining_ms(const struct meed_rpc_call *call)
{
    if (call->deadline_ns == INT64_MAX) {
        return INT64_MAX;
    }
    int64_t left_ns = call->deadline_ns - meed_clock_monotonic_ns();
    return left_ns > 0 ? left_ns / 1000000 : 0;
}

static void expect_progress(struct meed_rpc_call *call)
{
    if (call->method->progress_ms > 0) {
        call->progress_ns = meed_rpc_core_deadline_ns(call->method->progress_ms);
        timer_update(call);
    }
}

void meed_rpc_call_read_next(struct meed_rpc_call *call)
{
    if (call->finished || call->done || call->input_ended) {
        return;
    }
    MEED_ASSERT(call->method->shape == MEED_RPC_CLIENT_STREAM && !call->read_pending);
    call->read_pending = true;
    expect_progress(call);
    call->ops->read(call);
}

void meed_rpc_call_write(struct meed_rpc_call *call, const void *bytes, size_t size)
{
    if (call->finished || call->done) {
        return;
    }
    MEED_ASSERT(call->method->shape == MEED_RPC_SERVER_STREAM && !call->write_pending);
    MEED_ASSERT(size <= MEED_LIMIT_MESSAGE_BYTES);
    call->write_pending = true;
    atomic_fetch_add_explicit(&call->server->bytes_out, (long long)size, memory_order_relaxed);
    expect_progress(call);
    call->ops->write(call, bytes, size);
}

bool meed_rpc_call_write_pending(const struct meed_rpc_call *call)
{
    return call->write_pending;
}

/* Cuts at a limit without splitting a UTF-8 sequence. */
static void copy_text(char out[MEED_LIMIT_STATUS_TEXT_BYTES], const char *text)
{
    size_t length = strnlen(text, MEED_LIMIT_STATUS_TEXT_BYTES - 1);
    if (text[length]) {
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
            length--;
        }
    }
    memcpy(out, text, length);
    out[length] = 0;
}

void meed_rpc_call_finish(struct meed_rpc_call *call, enum meed_status status, const char *text,
                          const void *last, size_t last_size)
{
    if (call->finished || call->done) {
        return;
    }
    MEED_ASSERT(!last || (!call->write_pending && last_size <= MEED_LIMIT_MESSAGE_BYTES));
    char details[MEED_LIMIT_STATUS_TEXT_BYTES];
    copy_text(details, text ? text : status == MEED_OK ? "" : meed_last_error());
    call->finished = true;
    call->finish_pending = true;
    call->progress_ns = INT64_MAX;
    call->timer_ns = INT64_MAX;
    timer_update(call);
    atomic_fetch_add_explicit(&call->server->bytes_out, (long long)last_size, memory_order_relaxed);
    call->ops->finish(call, status, details, last, last_size);
}

bool meed_rpc_call_finished(const struct meed_rpc_call *call)
{
    return call->finished;
}

void meed_rpc_call_set_timer(struct meed_rpc_call *call, int64_t delay_ms)
{
    if (call->finished || call->done) {
        return;
    }
    call->timer_ns = meed_rpc_core_deadline_ns(delay_ms);
    timer_update(call);
}

/* ---- the strand ----------------------------------------------------------------------------- */

static void tell_failed(struct meed_rpc_call *call)
{
    if (!call->input_ended && call->method->shape == MEED_RPC_CLIENT_STREAM) {
        call->input_ended = true;
        if (call->method->failed) {
            call->method->failed(call->service, call);
        }
    }
}

static void run_message(struct meed_rpc_call *call)
{
    const void *bytes = NULL;
    size_t size = 0;
    if (!call->ops->take_message(call, &bytes, &size)) {
        meed_rpc_call_finish(call, MEED_FORMAT, "the request has no message: send exactly one",
                             NULL, 0);
        return;
    }
    atomic_fetch_add_explicit(&call->server->bytes_in, (long long)size, memory_order_relaxed);
    if (!call->finished && call->method->message) {
        call->method->message(call->service, call, bytes, size);
    }
    call->ops->drop_message(call);
}

static void run_start(struct meed_rpc_call *call)
{
    call->ops->identify(call);
    if (call->method->start) {
        call->method->start(call->service, call);
    }
    if (call->method->shape != MEED_RPC_CLIENT_STREAM) {
        call->input_ended = true;
        run_message(call);
    }
}

static void run_read(struct meed_rpc_call *call, enum meed_rpc_read kind)
{
    call->read_pending = false;
    if (!call->write_pending) {
        call->progress_ns = INT64_MAX;
        timer_update(call);
    }
    if (kind == MEED_RPC_READ_MESSAGE) {
        run_message(call);
    } else if (kind == MEED_RPC_READ_FAILED) {
        tell_failed(call);
    } else if (!call->input_ended) {
        call->input_ended = true;
        if (!call->finished && call->method->half_closed) {
            call->method->half_closed(call->service, call);
        }
    }
}

static void run_timer(struct meed_rpc_call *call)
{
    int64_t now_ns = meed_clock_monotonic_ns();
    if (call->progress_ns <= now_ns) {
        char text[128];
        snprintf(text, sizeof text, "no progress for %d ms: the stream was given up",
                 (int)call->method->progress_ms);
        tell_failed(call);
        meed_rpc_call_finish(call, MEED_TIMEOUT, text, NULL, 0);
    } else if (call->timer_ns <= now_ns) {
        call->timer_ns = INT64_MAX;
        if (!call->finished && call->method->timer) {
            call->method->timer(call->service, call);
        }
    }
    timer_update(call);
}

static void run_done(struct meed_rpc_call *call, bool cancelled)
{
    struct meed_rpc_server *server = call->server;
    call->done = true;
    timer_update(call);
    tell_failed(call);
    if (call->method->done) {
        call->method->done(call->service, call, cancelled);
    }
    call->ops->end(call);
    pthread_mutex_lock(&server->mutex);
    if (call->prev_live) {
        call->prev_live->next_live = call->next_live;
    } else {
        server->live_first = call->next_live;
    }
    if (call->next_live) {
        call->next_live->prev_live = call->prev_live;
    }
    server->live_count--;
    pthread_cond_broadcast(&server->idle_signal);
    pthread_mutex_unlock(&server->mutex);
    meed_rpc_call_release(call);
}

struct taken {
    unsigned events;
    enum meed_rpc_read read_kind;
    bool write_ok, cancelled;
};

static void run(struct meed_rpc_call *call, struct taken taken)
{
    if (call->done) {
        return;
    }
    if (taken.events & EVENT_START) {
        run_start(call);
    }
    if (taken.events & EVENT_WRITE) {
        call->write_pending = false;
        call->progress_ns = INT64_MAX;
        timer_update(call);
        if (taken.write_ok && !call->finished && call->method->writable) {
            call->method->writable(call->service, call);
        }
    }
    if (taken.events & EVENT_READ) {
        run_read(call, taken.read_kind);
    }
    if (taken.events & EVENT_TIMER) {
        run_timer(call);
    }
    if ((taken.events & EVENT_WAKE) && !call->finished && call->method->wake) {
        call->method->wake(call->service, call);
    }
    if ((taken.events & EVENT_SHUTDOWN) && call->method->endless) {
        meed_rpc_call_finish(call, MEED_RPC, "the server is shutting down", NULL, 0);
    }
    if (taken.events & EVENT_SENT) {
        call->finish_pending = false;
    }
    if (taken.events & EVENT_CLOSE) {
        call->closed = true;
        if (!call->finished) {
            tell_failed(call);
            meed_rpc_call_finish(call, MEED_CANCELLED, "", NULL, 0);
        }
    }
    if (call->closed && call->finished && !call->finish_pending && !call->read_pending &&
        !call->write_pending) {
        run_done(call, taken.cancelled);
    }
}

static void *worker_main(void *user)
{
    struct meed_rpc_server *server = user;
    pthread_mutex_lock(&server->mutex);
    for (;;) {
        while (!server->ready_first && !server->threads_stop) {
            pthread_cond_wait(&server->ready_signal, &server->mutex);
        }
        struct meed_rpc_call *call = server->ready_first;
        if (!call) {
            break;
        }
        server->ready_first = call->next_ready;
        if (!server->ready_first) {
            server->ready_last = NULL;
        }
        struct taken taken = {call->events, call->read_kind, call->write_ok, call->cancelled};
        call->events = 0;
        pthread_mutex_unlock(&server->mutex);
        run(call, taken);
        pthread_mutex_lock(&server->mutex);
        call->queued = false;
        if (call->events) {
            post_locked(call, 0);
        }
        pthread_mutex_unlock(&server->mutex);
        meed_rpc_call_release(call);
        pthread_mutex_lock(&server->mutex);
    }
    pthread_mutex_unlock(&server->mutex);
    return NULL;
}

static void *timer_main(void *user)
{
    struct meed_rpc_server *server = user;
    pthread_mutex_lock(&server->mutex);
    while (!server->threads_stop) {
        if (server->timer_count == 0) {
            meed_rpc_core_wait(&server->timer_signal, &server->mutex, INT64_MAX);
            continue;
        }
        struct meed_rpc_call *first = server->timers[0];
        if (first->due_ns > meed_clock_monotonic_ns()) {
            meed_rpc_core_wait(&server->timer_signal, &server->mutex, first->due_ns);
            continue;
        }
        heap_remove(server, first);
        post_locked(first, EVENT_TIMER);
    }
    pthread_mutex_unlock(&server->mutex);
    return NULL;
}

/* ---- stand-ins ------------------------------------------------------------------------------- */

static void refuse_unknown(void *service, struct meed_rpc_call *call)
{
    (void)service;
    meed_rpc_call_finish(call, MEED_UNSUPPORTED, "this server has no such method", NULL, 0);
}

static void refuse_busy(void *service, struct meed_rpc_call *call)
{
    (void)service;
    meed_rpc_call_finish(call, MEED_LIMIT, "too many calls at once: try again later", NULL, 0);
}

static void refuse_stopping(void *service, struct meed_rpc_call *call)
{
    (void)service;
    meed_rpc_call_finish(call, MEED_RPC, "the server is shutting down", NULL, 0);
}

const struct meed_rpc_method meed_rpc_core_unknown = {
    .path = "?", .shape = MEED_RPC_CLIENT_STREAM, .start = refuse_unknown};
const struct meed_rpc_method meed_rpc_core_busy = {
    .path = "?", .shape = MEED_RPC_CLIENT_STREAM, .start = refuse_busy};
const struct meed_rpc_method meed_rpc_core_stopping = {
    .path = "?", .shape = MEED_RPC_CLIENT_STREAM, .start = refuse_stopping};

const struct meed_rpc_method *meed_rpc_core_find(struct meed_rpc_server *server, const char *path,
                                                 void **service)
{
    for (size_t i = 0; i < server->service.method_count; i++) {
        if (strcmp(server->service.methods[i].path, path) == 0) {
            *service = server->service.user;
            return &server->service.methods[i];
        }
    }
    for (size_t i = 0; i < MEED_COUNT(meed_rpc_health_methods); i++) {
        if (strcmp(meed_rpc_health_methods[i].path, path) == 0) {
            *service = server;
            return &meed_rpc_health_methods[i];
        }
    }
    return NULL;
}

void meed_rpc_core_admit(struct meed_rpc_server *server, struct meed_rpc_call *call)
{
    call->server = server;
    atomic_store(&call->refs, 1);
    call->timer_slot = -1;
    call->timer_ns = call->progress_ns = INT64_MAX;
    pthread_mutex_lock(&server->mutex);
    server->stats.calls_started++;
    if (server->stopping) {
        call->method = &meed_rpc_core_stopping;
    } else if (server->live_count >= MEED_LIMIT_LIVE_CALLS) {
        call->method = &meed_rpc_core_busy;
        server->stats.calls_refused++;
    }
    server->live_count++;
    call->next_live = server->live_first;
    if (server->live_first) {
        server->live_first->prev_live = call;
    }
    server->live_first = call;
    post_locked(call, EVENT_START);
    pthread_mutex_unlock(&server->mutex);
}

static void post_all(struct meed_rpc_server *server, const struct meed_rpc_method *method,
                     unsigned events, bool cancelled)
{
    pthread_mutex_lock(&server->mutex);
    for (struct meed_rpc_call *call = server->live_first; call; call = call->next_live) {
        if (!method || call->method == method) {
            call->cancelled = call->cancelled || cancelled;
            post_locked(call, events);
        }
    }
    pthread_mutex_unlock(&server->mutex);
}

void meed_rpc_core_wake_all(struct meed_rpc_server *server, const struct meed_rpc_method *method)
{
    post_all(server, method, EVENT_WAKE, false);
}

void meed_rpc_core_close_all(struct meed_rpc_server *server)
{
    post_all(server, NULL, EVENT_CLOSE, true);
}

bool meed_rpc_core_wait_idle(struct meed_rpc_server *server, int64_t timeout_ms)
{
    int64_t due_ns = meed_rpc_core_deadline_ns(timeout_ms);
    pthread_mutex_lock(&server->mutex);
    while (server->live_count > 0 &&
           meed_rpc_core_wait(&server->idle_signal, &server->mutex, due_ns)) {
    }
    bool idle = server->live_count == 0;
    pthread_mutex_unlock(&server->mutex);
    return idle;
}

/* ---- server --------------------------------------------------------------------------------- */

/* Threads of the transport take no signals: the process's main thread waits for them. */
int meed_rpc_core_thread(pthread_t *thread, void *(*body)(void *), void *user)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, body, user);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum meed_status meed_rpc_core_init(struct meed_rpc_server *server,
                                    const struct meed_rpc_server_ops *ops,
                                    const struct meed_rpc_service *service, int worker_count)
{
    enum meed_status st = MEED_OK;
    int error = 0;
    if (worker_count < 0 || worker_count > MEED_LIMIT_WORKERS) {
        return MEED_FAIL(MEED_ARG, "%d workers: give 1 to %d, or 0 for the default", worker_count,
                         MEED_LIMIT_WORKERS);
    }
    server->ops = ops;
    server->service = *service;
    server->serving = true;
    pthread_mutex_init(&server->mutex, NULL);
    meed_rpc_core_cond_init(&server->ready_signal);
    meed_rpc_core_cond_init(&server->timer_signal);
    meed_rpc_core_cond_init(&server->idle_signal);
    /* Stand-ins need no timers, so live calls beyond the limit never reach the heap. */
    server->timers = meed_heap_alloc(MEED_LIMIT_LIVE_CALLS, sizeof *server->timers);
    if (!server->timers) {
        st = MEED_NOMEM;
        goto out;
    }
    int wanted = worker_count ? worker_count : 8;
    while (server->worker_count < wanted && !error) {
        error = meed_rpc_core_thread(&server->workers[server->worker_count], worker_main, server);
        server->worker_count += error ? 0 : 1;
    }
    if (!error) {
        error = meed_rpc_core_thread(&server->timer_thread, timer_main, server);
        server->timer_started = !error;
    }
    if (error) {
        st = MEED_FAIL(MEED_IO, "cannot start the server's threads: %s", strerror(error));
    }
out:
    if (st != MEED_OK) {
        meed_rpc_core_clear(server);
    }
    return st;
}

void meed_rpc_core_clear(struct meed_rpc_server *server)
{
    pthread_mutex_lock(&server->mutex);
    server->threads_stop = true;
    pthread_cond_broadcast(&server->ready_signal);
    pthread_cond_broadcast(&server->timer_signal);
    pthread_mutex_unlock(&server->mutex);
    for (int i = 0; i < server->worker_count; i++) {
        pthread_join(server->workers[i], NULL);
    }
    if (server->timer_started) {
        pthread_join(server->timer_thread, NULL);
    }
    meed_heap_free(server->timers);
    pthread_cond_destroy(&server->ready_signal);
    pthread_cond_destroy(&server->timer_signal);
    pthread_cond_destroy(&server->idle_signal);
    pthread_mutex_destroy(&server->mutex);
}

void meed_rpc_server_stop(struct meed_rpc_server *server, int64_t grace_ms)
{
    if (!server || server->stopped) {
        return;
    }
    meed_rpc_server_set_serving(server, false);
    pthread_mutex_lock(&server->mutex);
    server->stopping = true;
    pthread_mutex_unlock(&server->mutex);
    post_all(server, NULL, EVENT_SHUTDOWN, false);
    server->ops->stop(server, grace_ms);
    server->stopped = true;
}

void meed_rpc_server_destroy(struct meed_rpc_server *server)
{
    if (server) {
        meed_rpc_server_stop(server, MEED_LIMIT_SHUTDOWN_GRACE_MS);
        server->ops->destroy(server);
    }
}

int meed_rpc_server_port(const struct meed_rpc_server *server)
{
    return server->port;
}

void meed_rpc_server_set_serving(struct meed_rpc_server *server, bool serving)
{
    pthread_mutex_lock(&server->mutex);
    bool changed = server->serving != serving;
    server->serving = serving;
    pthread_mutex_unlock(&server->mutex);
    if (changed) {
        meed_rpc_health_notify(server);
    }
}

void meed_rpc_server_stats(const struct meed_rpc_server *server,
                           struct meed_rpc_server_stats *stats)
{
    struct meed_rpc_server *mutable_server = (struct meed_rpc_server *)server;
    pthread_mutex_lock(&mutable_server->mutex);
    *stats = server->stats;
    stats->calls_live = server->live_count;
    pthread_mutex_unlock(&mutable_server->mutex);
    stats->bytes_in = atomic_load(&mutable_server->bytes_in);
    stats->bytes_out = atomic_load(&mutable_server->bytes_out);
}
