/* The transport inside one process: the same bytes, the same callbacks, no sockets.
 *
 * A simulation runs thousands of clients against the very handlers and codecs that serve the
 * network. One object links the two ends of a call; it holds at most one message each way, so a
 * slow side throttles the other exactly as flow control does, and a server's memory is bounded by
 * live calls. A server's write counts as taken when the client has received it.
 *
 * Order of locks: link, then server. The client's end holds a reference of the call; what it
 * reports to the server stops at `over`, so it may outlive the call. Clients must be closed before
 * their server is destroyed. No thread is started here: the server side runs on the core's workers,
 * the client side on its callers.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "proto/rpc_core.h"

struct link {
    struct meed_rpc_call call;     /* server's end: first */
    struct meed_rpc_stream stream; /* client's end */
    struct meed_rpc_peer caller;
    pthread_mutex_t mutex;
    pthread_cond_t client_signal;
    struct meed_buf up, current, down;
    bool up_full, up_closed, down_full;
    bool admitted;       /* the server knows of it */
    bool server_reading; /* a read event is owed */
    bool server_writing; /* a write event is owed */
    bool send_failed;
    bool cancelled; /* by the client's end: status and text are its own */
    bool ended;     /* by the server */
    bool over;      /* the server has forgotten it */
    enum meed_status status;
    char text[MEED_LIMIT_STATUS_TEXT_BYTES];
};

struct loop_client {
    struct meed_rpc_client client;
    struct meed_rpc_server *server;
    struct meed_rpc_peer peer;
};

static struct link *link_of(struct meed_rpc_stream *stream)
{
    return (struct link *)((char *)stream - offsetof(struct link, stream));
}

/* ---- server's end --------------------------------------------------------------------------- */

static void call_identify(struct meed_rpc_call *call)
{
    call->peer = ((struct link *)call)->caller;
}

static void call_read(struct meed_rpc_call *call)
{
    struct link *link = (struct link *)call;
    pthread_mutex_lock(&link->mutex);
    if (link->up_full) {
        meed_rpc_core_post_read(call, MEED_RPC_READ_MESSAGE);
    } else if (link->cancelled) {
        meed_rpc_core_post_read(call, MEED_RPC_READ_FAILED);
    } else if (link->up_closed) {
        meed_rpc_core_post_read(call, MEED_RPC_READ_HALF_CLOSED);
    } else {
        link->server_reading = true;
    }
    pthread_mutex_unlock(&link->mutex);
}

static bool call_take_message(struct meed_rpc_call *call, const void **bytes, size_t *size)
{
    struct link *link = (struct link *)call;
    pthread_mutex_lock(&link->mutex);
    bool full = link->up_full;
    if (full) {
        struct meed_buf empty = link->current;
        link->current = link->up;
        link->up = empty;
        link->up_full = false;
        *bytes = link->current.data ? link->current.data : "";
        *size = link->current.size;
        pthread_cond_broadcast(&link->client_signal);
    }
    pthread_mutex_unlock(&link->mutex);
    return full;
}

static void call_drop_message(struct meed_rpc_call *call)
{
    meed_buf_reset(&((struct link *)call)->current);
}

/* Under the link's mutex. A reply that finds no memory ends the call instead. */
static void fill_down(struct link *link, const void *bytes, size_t size)
{
    meed_buf_reset(&link->down);
    if (size > 0 && meed_buf_append(&link->down, bytes, size) != MEED_OK) {
        link->cancelled = true;
        link->status = MEED_NOMEM;
        snprintf(link->text, sizeof link->text, "no memory for a message of %zu bytes", size);
    }
    link->down_full = !link->cancelled;
    pthread_cond_broadcast(&link->client_signal);
}

static void call_write(struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct link *link = (struct link *)call;
    pthread_mutex_lock(&link->mutex);
    if (!link->cancelled) {
        fill_down(link, bytes, size);
    }
    link->server_writing = !link->cancelled;
    if (link->cancelled) {
        meed_rpc_core_post_write(call, false);
    }
    pthread_mutex_unlock(&link->mutex);
}

static void call_finish(struct meed_rpc_call *call, enum meed_status status, const char *text,
                        const void *last, size_t last_size)
{
    struct link *link = (struct link *)call;
    pthread_mutex_lock(&link->mutex);
    if (!link->cancelled) {
        if (last) {
            fill_down(link, last, last_size);
        }
        if (!link->cancelled) {
            link->status = status;
            snprintf(link->text, sizeof link->text, "%s", text);
        }
    }
    link->ended = true;
    if (link->server_reading) {
        link->server_reading = false;
        meed_rpc_core_post_read(call, MEED_RPC_READ_FAILED);
    }
    if (link->server_writing) {
        link->server_writing = false;
        meed_rpc_core_post_write(call, true);
    }
    meed_rpc_core_post_sent(call);
    meed_rpc_core_post_close(call, link->cancelled);
    pthread_cond_broadcast(&link->client_signal);
    pthread_mutex_unlock(&link->mutex);
}

static void call_end(struct meed_rpc_call *call)
{
    struct link *link = (struct link *)call;
    pthread_mutex_lock(&link->mutex);
    link->over = true;
    pthread_mutex_unlock(&link->mutex);
}

static void call_release(struct meed_rpc_call *call)
{
    struct link *link = (struct link *)call;
    meed_buf_clear(&link->up);
    meed_buf_clear(&link->current);
    meed_buf_clear(&link->down);
    pthread_cond_destroy(&link->client_signal);
    pthread_mutex_destroy(&link->mutex);
    meed_heap_free(link);
}

static const struct meed_rpc_call_ops call_ops = {
    .identify = call_identify,
    .read = call_read,
    .take_message = call_take_message,
    .drop_message = call_drop_message,
    .write = call_write,
    .finish = call_finish,
    .end = call_end,
    .release = call_release,
};

/* ---- client's end --------------------------------------------------------------------------- */

/* Under the link's mutex. */
static void cancel_locked(struct link *link, enum meed_status status, const char *text)
{
    if (link->cancelled || link->ended) {
        return;
    }
    link->cancelled = true;
    link->status = status;
    snprintf(link->text, sizeof link->text, "%s", text);
    pthread_cond_broadcast(&link->client_signal);
    if (!link->admitted || link->over) {
        return;
    }
    if (link->server_reading) {
        link->server_reading = false;
        meed_rpc_core_post_read(&link->call, MEED_RPC_READ_FAILED);
    }
    if (link->server_writing) {
        link->server_writing = false;
        meed_rpc_core_post_write(&link->call, false);
    }
    meed_rpc_core_post_close(&link->call, true);
}

/* Under the link's mutex: waits for the server; false once due_ns or the call's deadline passed. */
static bool wait_server(struct link *link, int64_t due_ns)
{
    int64_t until_ns = MEED_MIN(due_ns, link->call.deadline_ns);
    meed_rpc_core_wait(&link->client_signal, &link->mutex, until_ns);
    int64_t now_ns = until_ns == INT64_MAX ? 0 : meed_clock_monotonic_ns();
    if (now_ns >= link->call.deadline_ns) {
        cancel_locked(link, MEED_TIMEOUT, "the call's deadline passed");
    }
    return now_ns < due_ns;
}

/* Under the link's mutex, which the server's end also takes before the call's last reference goes:
 * so the hold below comes in time. */
static void admit_locked(struct link *link)
{
    if (!link->admitted && !link->cancelled) {
        link->admitted = true;
        meed_rpc_core_admit(link->call.server, &link->call);
        meed_rpc_call_hold(&link->call); /* the client's end */
    }
}

static enum meed_status stream_send(struct meed_rpc_stream *stream, const void *bytes, size_t size)
{
    struct link *link = link_of(stream);
    enum meed_status st = MEED_OK;
    pthread_mutex_lock(&link->mutex);
    while (link->up_full && !link->ended && !link->cancelled) {
        wait_server(link, INT64_MAX);
    }
    if (link->ended || link->cancelled || link->up_closed) {
        link->send_failed = true;
        st = MEED_FAIL(MEED_RPC, "the call has ended: no more can be sent");
        goto out;
    }
    meed_buf_reset(&link->up);
    if (size > 0) {
        MEED_TRY_OUT(meed_buf_append(&link->up, bytes, size));
    }
    link->up_full = true;
    if (link->server_reading) {
        link->server_reading = false;
        meed_rpc_core_post_read(&link->call, MEED_RPC_READ_MESSAGE);
    }
    admit_locked(link);
out:
    pthread_mutex_unlock(&link->mutex);
    return st;
}

static enum meed_status stream_close_send(struct meed_rpc_stream *stream)
{
    struct link *link = link_of(stream);
    pthread_mutex_lock(&link->mutex);
    link->up_closed = true;
    if (link->server_reading && !link->up_full) {
        link->server_reading = false;
        meed_rpc_core_post_read(&link->call, MEED_RPC_READ_HALF_CLOSED);
    }
    admit_locked(link);
    pthread_mutex_unlock(&link->mutex);
    return MEED_OK;
}

static enum meed_status take_down(struct link *link, struct meed_buf *message)
{
    link->down_full = false;
    if (link->server_writing) {
        link->server_writing = false;
        meed_rpc_core_post_write(&link->call, true);
    }
    enum meed_status st = MEED_OK;
    if (message && link->down.size > 0) {
        st = meed_buf_append(message, link->down.data, link->down.size);
    }
    if (st != MEED_OK) {
        cancel_locked(link, st, meed_last_error());
    }
    return st;
}

static enum meed_status stream_receive(struct meed_rpc_stream *stream, int64_t timeout_ms,
                                       struct meed_buf *message, enum meed_rpc_event *event)
{
    struct link *link = link_of(stream);
    int64_t due_ns = meed_rpc_core_deadline_ns(timeout_ms);
    enum meed_status st = MEED_OK;
    pthread_mutex_lock(&link->mutex);
    for (bool in_time = true;; in_time = wait_server(link, due_ns)) {
        if (link->down_full && !link->cancelled) {
            st = take_down(link, message);
            *event = MEED_RPC_MESSAGE;
            break;
        }
        if (link->ended || link->cancelled) {
            *event = MEED_RPC_END;
            break;
        }
        if (!in_time) {
            *event = MEED_RPC_WAITING;
            break;
        }
    }
    pthread_mutex_unlock(&link->mutex);
    return st;
}

static enum meed_status stream_finish(struct meed_rpc_stream *stream)
{
    struct link *link = link_of(stream);
    pthread_mutex_lock(&link->mutex);
    if (!link->up_closed && !link->send_failed) {
        cancel_locked(link, MEED_CANCELLED, "left before its end");
    }
    while (!link->ended && !link->cancelled) {
        if (link->down_full) {
            cancel_locked(link, MEED_CANCELLED, "left before its end");
        } else {
            wait_server(link, INT64_MAX);
        }
    }
    enum meed_status status = link->status;
    pthread_mutex_unlock(&link->mutex);
    return status == MEED_OK ? MEED_OK : MEED_FAIL(status, "%s", link->text);
}

static void stream_cancel(struct meed_rpc_stream *stream)
{
    struct link *link = link_of(stream);
    pthread_mutex_lock(&link->mutex);
    cancel_locked(link, MEED_CANCELLED, "cancelled by this client");
    pthread_mutex_unlock(&link->mutex);
}

static void stream_destroy(struct meed_rpc_stream *stream)
{
    struct link *link = link_of(stream);
    pthread_mutex_lock(&link->mutex);
    cancel_locked(link, MEED_CANCELLED, "left before its end");
    bool admitted = link->admitted;
    if (!link->over && link->server_writing) { /* it ended, but its last message stays unread */
        link->server_writing = false;
        meed_rpc_core_post_write(&link->call, false);
    }
    pthread_mutex_unlock(&link->mutex);
    if (admitted) {
        meed_rpc_call_release(&link->call);
    } else {
        call_release(&link->call);
    }
}

static const struct meed_rpc_stream_ops stream_ops = {
    .send = stream_send,
    .close_send = stream_close_send,
    .receive = stream_receive,
    .finish = stream_finish,
    .cancel = stream_cancel,
    .destroy = stream_destroy,
};

static enum meed_status client_open(struct meed_rpc_client *client, const char *path,
                                    int64_t deadline_ms, struct meed_rpc_stream **stream)
{
    struct loop_client *self = (struct loop_client *)client;
    struct link *link = meed_heap_alloc(1, sizeof *link);
    if (!link) {
        return MEED_NOMEM;
    }
    pthread_mutex_init(&link->mutex, NULL);
    meed_rpc_core_cond_init(&link->client_signal);
    meed_buf_init(&link->up, MEED_LIMIT_MESSAGE_BYTES);
    meed_buf_init(&link->current, MEED_LIMIT_MESSAGE_BYTES);
    meed_buf_init(&link->down, MEED_LIMIT_MESSAGE_BYTES);
    link->caller = self->peer;
    link->stream.ops = &stream_ops;
    link->call.ops = &call_ops;
    link->call.server = self->server;
    link->call.deadline_ns = meed_rpc_core_deadline_ns(deadline_ms);
    link->call.method = meed_rpc_core_find(self->server, path, &link->call.service);
    if (!link->call.method) {
        link->call.method = &meed_rpc_core_unknown;
    }
    /* Other shapes start with their one message, as on the wire. */
    if (link->call.method->shape == MEED_RPC_CLIENT_STREAM) {
        pthread_mutex_lock(&link->mutex);
        admit_locked(link);
        pthread_mutex_unlock(&link->mutex);
    }
    *stream = &link->stream;
    return MEED_OK;
}

static enum meed_status client_unary(struct meed_rpc_client *client, const char *path,
                                     const void *request, size_t request_size, int64_t deadline_ms,
                                     struct meed_buf *reply)
{
    struct meed_rpc_stream *stream = NULL;
    enum meed_rpc_event event = MEED_RPC_END;
    size_t size_before = reply->size;
    MEED_TRY(client_open(client, path, deadline_ms, &stream));
    /* A send that fails means that the server has ended the call: finish says why. */
    enum meed_status st = stream_send(stream, request, request_size);
    if (st == MEED_OK) {
        st = stream_close_send(stream);
    }
    if (st == MEED_OK || st == MEED_RPC) {
        st = stream_receive(stream, -1, reply, &event);
    }
    if (st == MEED_OK) {
        st = stream_finish(stream);
    }
    if (st == MEED_OK && event != MEED_RPC_MESSAGE) {
        st = MEED_FAIL(MEED_FORMAT, "the reply to %s has no message", path);
    }
    if (st != MEED_OK) {
        reply->size = size_before;
    }
    stream_destroy(stream);
    return st;
}

static void client_close(struct meed_rpc_client *client)
{
    meed_heap_free(client);
}

static const struct meed_rpc_client_ops client_ops = {
    .unary = client_unary, .open = client_open, .close = client_close};

enum meed_status meed_rpc_loop_client_open(struct meed_rpc_server *server, const char *client_id,
                                           bool authenticated, struct meed_rpc_client **client)
{
    if (strlen(client_id) >= MEED_LIMIT_ID_BYTES) {
        return MEED_FAIL(MEED_ARG, "client id \"%.80s\": at most %d letters", client_id,
                         MEED_LIMIT_ID_BYTES - 1);
    }
    struct loop_client *self = meed_heap_alloc(1, sizeof *self);
    if (!self) {
        return MEED_NOMEM;
    }
    self->client.ops = &client_ops;
    self->server = server;
    self->peer.authenticated = authenticated;
    snprintf(self->peer.client_id, sizeof self->peer.client_id, "%s", client_id);
    snprintf(self->peer.address, sizeof self->peer.address, "in process");
    if (authenticated) { /* stands in for a certificate, so that pinning can be tested */
        meed_sha256(client_id, strlen(client_id), self->peer.certificate_sha256);
    }
    *client = &self->client;
    return MEED_OK;
}

/* ---- server --------------------------------------------------------------------------------- */

static void server_stop(struct meed_rpc_server *server, int64_t grace_ms)
{
    if (!meed_rpc_core_wait_idle(server, grace_ms)) {
        meed_rpc_core_close_all(server);
        meed_rpc_core_wait_idle(server, -1);
    }
}

static void server_destroy(struct meed_rpc_server *server)
{
    meed_rpc_core_clear(server);
    meed_heap_free(server);
}

static const struct meed_rpc_server_ops server_ops = {.stop = server_stop,
                                                      .destroy = server_destroy};

enum meed_status meed_rpc_loop_server_start(const struct meed_rpc_service *service,
                                            int worker_count, struct meed_rpc_server **server)
{
    struct meed_rpc_server *self = meed_heap_alloc(1, sizeof *self);
    if (!self) {
        return MEED_NOMEM;
    }
    enum meed_status st = meed_rpc_core_init(self, &server_ops, service, worker_count);
    if (st != MEED_OK) {
        meed_heap_free(self);
        return st;
    }
    *server = self;
    return MEED_OK;
}
