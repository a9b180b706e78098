/* The listener over gRPC core: queues, accepting, calls.
 *
 * A few poller threads own one completion queue each and a call stays on its queue; they turn
 * completions into events of the shared core (rpc_core.c) and never run a handler. Everything that
 * can go wrong at the edges of this API has its place here:
 *   - a call's RECV_CLOSE is a batch of its own, posted at once: the only sign of a lost peer;
 *   - "no message" means half-closed only if the batch succeeded and core saw no failure before it;
 *   - a queue is shut down by its own thread, after the server's shutdown tag arrived *and* its
 * last call is gone: earlier aborts or hangs, later never ends;
 *   - a method nobody registered is answered through the generic slot, else its client would wait.
 */
#include "proto/rpc_grpc_listener.h"

#include <string.h>

#include "base/log.h"
#include "proto/rpc_grpc_common.h"

enum { SLOTS_A_METHOD = 4, METHODS_MAX = 32 };

struct tag {
    void (*fn)(struct tag *tag, bool ok);
};

struct meed_rpc_grpc_listener;

struct queue {
    struct meed_rpc_grpc_listener *listener;
    grpc_completion_queue *cq;
    pthread_t thread;
    bool thread_started;
    struct tag shutdown_tag;
    bool shutdown_seen; /* own thread only */
    atomic_int live;    /* calls that may still use the queue */
};

/* One armed request for a call of a method; route -1 takes what is not registered. */
struct slot {
    struct tag tag;
    struct queue *queue;
    int route;
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_call_details details;
    grpc_byte_buffer *payload;
};

struct route {
    const struct meed_rpc_method *method;
    void *service;
    void *registered;
};

struct meed_rpc_grpc_listener {
    struct meed_rpc_server *owner;
    grpc_server *server;
    struct queue queues[MEED_LIMIT_POLLERS];
    int queue_count;
    struct route routes[METHODS_MAX];
    int route_count;
    struct slot *slots;
    pthread_mutex_t mutex;
    pthread_cond_t signal;
    int shutdown_count; /* tags that arrived */
};

struct server_call {
    struct meed_rpc_call base;
    grpc_call *call;
    struct queue *queue;
    struct tag close_tag, read_tag, write_tag, status_tag;
    grpc_metadata_array metadata;
    int cancelled;
    grpc_byte_buffer *message;
    grpc_slice slice;
    bool slice_held;
    bool initial_sent;
    atomic_int handovers;
};

#define CONTAINER(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

/* ---- calls ---------------------------------------------------------------------------------- */

/* A batch carries the call from its strand to a poller. Core orders the two, but sanitizers cannot
 * look into it: these show them. */
static grpc_call_error start_batch(struct server_call *call, const grpc_op *ops, size_t count,
                                   struct tag *tag)
{
    atomic_fetch_add_explicit(&call->handovers, 1, memory_order_release);
    return grpc_call_start_batch(call->call, ops, count, tag, NULL);
}

static void receive_call(struct server_call *call)
{
    atomic_load_explicit(&call->handovers, memory_order_acquire);
}

static void call_identify(struct meed_rpc_call *base)
{
    struct server_call *call = (struct server_call *)base;
    meed_rpc_grpc_common_peer(call->call, &call->metadata, &base->peer);
}

static void on_read(struct tag *tag, bool ok)
{
    struct server_call *call = CONTAINER(tag, struct server_call, read_tag);
    receive_call(call);
    enum meed_rpc_read kind = MEED_RPC_READ_FAILED;
    if (call->message && ok) {
        kind = MEED_RPC_READ_MESSAGE;
    } else if (call->message) {
        grpc_byte_buffer_destroy(call->message);
        call->message = NULL;
    } else if (ok && !grpc_call_failed_before_recv_message(call->call)) {
        kind = MEED_RPC_READ_HALF_CLOSED;
    }
    meed_rpc_core_post_read(&call->base, kind);
}

static void call_read(struct meed_rpc_call *base)
{
    struct server_call *call = (struct server_call *)base;
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->message};
    if (start_batch(call, &op, 1, &call->read_tag) != GRPC_CALL_OK) {
        meed_rpc_core_post_read(base, MEED_RPC_READ_FAILED);
    }
}

static bool call_take_message(struct meed_rpc_call *base, const void **bytes, size_t *size)
{
    struct server_call *call = (struct server_call *)base;
    if (!call->message) {
        return false;
    }
    call->slice_held = meed_rpc_grpc_common_slice(call->message, &call->slice);
    grpc_byte_buffer_destroy(call->message);
    call->message = NULL;
    if (call->slice_held) {
        *bytes = GRPC_SLICE_START_PTR(call->slice);
        *size = GRPC_SLICE_LENGTH(call->slice);
    }
    return call->slice_held;
}

static void call_drop_message(struct meed_rpc_call *base)
{
    struct server_call *call = (struct server_call *)base;
    if (call->slice_held) {
        grpc_slice_unref(call->slice);
        call->slice_held = false;
    }
}

static size_t add_initial(struct server_call *call, grpc_op *ops)
{
    if (call->initial_sent) {
        return 0;
    }
    call->initial_sent = true;
    ops[0] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    return 1;
}

static void on_write(struct tag *tag, bool ok)
{
    struct server_call *call = CONTAINER(tag, struct server_call, write_tag);
    receive_call(call);
    meed_rpc_core_post_write(&call->base, ok);
}

static void call_write(struct meed_rpc_call *base, const void *bytes, size_t size)
{
    struct server_call *call = (struct server_call *)base;
    grpc_op ops[2];
    size_t count = add_initial(call, ops);
    grpc_byte_buffer *buffer = meed_rpc_grpc_common_buffer(bytes, size);
    ops[count++] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    grpc_call_error error = start_batch(call, ops, count, &call->write_tag);
    grpc_byte_buffer_destroy(buffer);
    if (error != GRPC_CALL_OK) {
        MEED_LOG_ERROR("proto", "a write was refused by gRPC core (code=%d)", (int)error);
        meed_rpc_core_post_write(base, false);
    }
}

static void on_status(struct tag *tag, bool ok)
{
    struct server_call *call = CONTAINER(tag, struct server_call, status_tag);
    (void)ok;
    receive_call(call);
    meed_rpc_core_post_sent(&call->base);
}

static void call_finish(struct meed_rpc_call *base, enum meed_status status, const char *text,
                        const void *last, size_t last_size)
{
    struct server_call *call = (struct server_call *)base;
    grpc_op ops[3];
    size_t count = add_initial(call, ops);
    grpc_byte_buffer *buffer = last ? meed_rpc_grpc_common_buffer(last, last_size) : NULL;
    if (buffer) {
        ops[count++] =
            (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    }
    grpc_slice details = grpc_slice_from_copied_string(text);
    grpc_metadata trailer = {
        .key = grpc_slice_from_static_string(MEED_RPC_GRPC_STATUS_KEY),
        .value = grpc_slice_from_copied_string(meed_status_name(status)),
    };
    ops[count++] = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                             .data.send_status_from_server = {
                                 .trailing_metadata_count = status == MEED_OK ? 0 : 1,
                                 .trailing_metadata = &trailer,
                                 .status = (grpc_status_code)meed_status_grpc_code(status),
                                 .status_details = &details,
                             }};
    grpc_call_error error = start_batch(call, ops, count, &call->status_tag);
    grpc_slice_unref(trailer.value);
    grpc_slice_unref(details);
    if (buffer) {
        grpc_byte_buffer_destroy(buffer);
    }
    if (error != GRPC_CALL_OK) {
        MEED_LOG_ERROR("proto", "a status was refused by gRPC core (code=%d)", (int)error);
        grpc_call_cancel(call->call, NULL);
        meed_rpc_core_post_sent(base);
    }
}

static void call_end(struct meed_rpc_call *base)
{
    struct server_call *call = (struct server_call *)base;
    call_drop_message(base);
    if (call->message) {
        grpc_byte_buffer_destroy(call->message);
        call->message = NULL;
    }
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_unref(call->call);
    atomic_fetch_sub(&call->queue->live, 1); /* last: the queue may go now */
}

static void call_release(struct meed_rpc_call *base)
{
    meed_heap_free(base);
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

static void on_close(struct tag *tag, bool ok)
{
    struct server_call *call = CONTAINER(tag, struct server_call, close_tag);
    receive_call(call);
    meed_rpc_core_post_close(&call->base, !ok || call->cancelled != 0);
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void arm(struct slot *slot)
{
    struct meed_rpc_grpc_listener *listener = slot->queue->listener;
    grpc_completion_queue *cq = slot->queue->cq;
    grpc_metadata_array_init(&slot->metadata);
    slot->payload = NULL;
    grpc_call_error error;
    if (slot->route < 0) {
        grpc_call_details_init(&slot->details);
        error = grpc_server_request_call(listener->server, &slot->call, &slot->details,
                                         &slot->metadata, cq, cq, &slot->tag);
    } else {
        const struct route *route = &listener->routes[slot->route];
        bool read_initial = route->method->shape != MEED_RPC_CLIENT_STREAM;
        error = grpc_server_request_registered_call(
            listener->server, route->registered, &slot->call, &slot->deadline, &slot->metadata,
            read_initial ? &slot->payload : NULL, cq, cq, &slot->tag);
    }
    if (error != GRPC_CALL_OK) {
        MEED_LOG_ERROR("proto", "gRPC core refused to accept calls (code=%d)", (int)error);
    }
}

/* Absolute deadline on our clock; core's monotonic clock starts elsewhere. */
static int64_t deadline_ns(gpr_timespec deadline)
{
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
        return INT64_MAX;
    }
    gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    int64_t left_ms = gpr_time_to_millis(left);
    return meed_rpc_core_deadline_ns(MEED_MAX(left_ms, 0));
}

static void begin(struct slot *taken)
{
    struct meed_rpc_grpc_listener *listener = taken->queue->listener;
    struct server_call *call = meed_heap_alloc(1, sizeof *call);
    if (!call) { /* core tells the client; nothing of ours is needed for that */
        grpc_metadata_array_destroy(&taken->metadata);
        grpc_call_cancel_with_status(taken->call, GRPC_STATUS_RESOURCE_EXHAUSTED, "no memory",
                                     NULL);
        grpc_call_unref(taken->call);
        return;
    }
    call->base.ops = &call_ops;
    call->base.method = &meed_rpc_core_unknown;
    call->base.deadline_ns = deadline_ns(taken->deadline);
    if (taken->route >= 0) {
        call->base.method = listener->routes[taken->route].method;
        call->base.service = listener->routes[taken->route].service;
    }
    call->call = taken->call;
    call->queue = taken->queue;
    call->metadata = taken->metadata;
    call->message = taken->payload;
    call->close_tag.fn = on_close;
    call->read_tag.fn = on_read;
    call->write_tag.fn = on_write;
    call->status_tag.fn = on_status;
    atomic_fetch_add(&call->queue->live, 1);
    /* Posted before the strand may use the call; this very thread will see it complete. */
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                  .data.recv_close_on_server.cancelled = &call->cancelled};
    grpc_call_error error = start_batch(call, &op, 1, &call->close_tag);
    meed_rpc_core_admit(listener->owner, &call->base);
    if (error != GRPC_CALL_OK) {
        meed_rpc_core_post_close(&call->base, true);
    }
}

static void on_accept(struct tag *tag, bool ok)
{
    struct slot *slot = CONTAINER(tag, struct slot, tag);
    if (!ok) { /* shutting down: there is no call */
        grpc_metadata_array_destroy(&slot->metadata);
        if (slot->route < 0) {
            grpc_call_details_destroy(&slot->details);
        }
        return;
    }
    struct slot taken = *slot;
    if (slot->route < 0) {
        taken.deadline = slot->details.deadline;
        grpc_call_details_destroy(&slot->details);
    }
    arm(slot);
    begin(&taken);
}

/* ---- listener ------------------------------------------------------------------------------- */

static void on_shutdown(struct tag *tag, bool ok)
{
    (void)ok;
    struct queue *queue = CONTAINER(tag, struct queue, shutdown_tag);
    queue->shutdown_seen = true;
    pthread_mutex_lock(&queue->listener->mutex);
    queue->listener->shutdown_count++;
    pthread_cond_broadcast(&queue->listener->signal);
    pthread_mutex_unlock(&queue->listener->mutex);
}

static void *poller_main(void *user)
{
    struct queue *queue = user;
    bool down = false;
    for (;;) {
        /* After the shutdown tag the last call ends on a worker, which cannot wake this queue. */
        int64_t wait_ms = queue->shutdown_seen && !down ? 5 : -1;
        grpc_event event =
            grpc_completion_queue_next(queue->cq, meed_rpc_grpc_common_deadline(wait_ms), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            return NULL;
        }
        if (event.type == GRPC_OP_COMPLETE) {
            struct tag *tag = event.tag;
            tag->fn(tag, event.success != 0);
        }
        if (queue->shutdown_seen && !down && atomic_load(&queue->live) == 0) {
            grpc_completion_queue_shutdown(queue->cq);
            down = true;
        }
    }
}

/* A server that never served: core wants its end announced all the same. */
static void unused_shutdown(struct meed_rpc_grpc_listener *listener)
{
    struct queue *queue = &listener->queues[0];
    grpc_server_shutdown_and_notify(listener->server, queue->cq, &queue->shutdown_tag);
}

static void listener_free(struct meed_rpc_grpc_listener *listener)
{
    if (listener->queue_count > 0 && !listener->queues[0].thread_started) {
        unused_shutdown(listener);
    }
    for (int i = 0; i < listener->queue_count; i++) {
        struct queue *queue = &listener->queues[i];
        if (!queue->thread_started) { /* never polled: nothing but its own end to drain */
            grpc_completion_queue_shutdown(queue->cq);
            while (grpc_completion_queue_next(queue->cq, meed_rpc_grpc_common_deadline(-1), NULL)
                       .type != GRPC_QUEUE_SHUTDOWN) {
            }
        }
        grpc_completion_queue_destroy(queue->cq);
    }
    if (listener->server) {
        grpc_server_destroy(listener->server);
    }
    pthread_cond_destroy(&listener->signal);
    pthread_mutex_destroy(&listener->mutex);
    meed_heap_free(listener->slots);
    meed_heap_free(listener);
}

/* The one order that neither aborts nor hangs; see the head of this file. */
void meed_rpc_grpc_listener_stop(struct meed_rpc_grpc_listener *listener, int64_t grace_ms)
{
    int64_t due_ns = meed_rpc_core_deadline_ns(grace_ms);
    for (int i = 0; i < listener->queue_count; i++) {
        grpc_server_shutdown_and_notify(listener->server, listener->queues[i].cq,
                                        &listener->queues[i].shutdown_tag);
    }
    pthread_mutex_lock(&listener->mutex);
    bool in_time = true;
    while (listener->shutdown_count < listener->queue_count && in_time) {
        in_time = meed_rpc_core_wait(&listener->signal, &listener->mutex, due_ns);
    }
    pthread_mutex_unlock(&listener->mutex);
    if (!in_time) {
        grpc_server_cancel_all_calls(listener->server);
    }
    for (int i = 0; i < listener->queue_count; i++) {
        pthread_join(listener->queues[i].thread, NULL);
    }
    listener_free(listener);
}

static enum meed_status add_routes(struct meed_rpc_grpc_listener *listener)
{
    const struct meed_rpc_service *service = &listener->owner->service;
    size_t own = service->method_count;
    if (own + MEED_COUNT(meed_rpc_health_methods) > METHODS_MAX) {
        return MEED_FAIL(MEED_BUG, "a service of %zu methods", own);
    }
    for (size_t i = 0; i < own + MEED_COUNT(meed_rpc_health_methods); i++) {
        struct route *route = &listener->routes[listener->route_count++];
        route->method = i < own ? &service->methods[i] : &meed_rpc_health_methods[i - own];
        route->service = i < own ? service->user : (void *)listener->owner;
        route->registered =
            grpc_server_register_method(listener->server, route->method->path, NULL,
                                        route->method->shape == MEED_RPC_CLIENT_STREAM
                                            ? GRPC_SRM_PAYLOAD_NONE
                                            : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
                                        0);
        if (!route->registered) {
            return MEED_FAIL(MEED_BUG, "method %s is registered twice", route->method->path);
        }
    }
    return MEED_OK;
}

static enum meed_status bind_port(struct meed_rpc_grpc_listener *listener, const char *address,
                                  const struct meed_rpc_tls *tls, int *port)
{
    grpc_server_credentials *credentials = NULL;
    MEED_TRY(meed_rpc_grpc_common_server_credentials(tls, &credentials));
    *port = grpc_server_add_http2_port(listener->server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (*port == 0) {
        return MEED_FAIL(MEED_IO,
                         "cannot listen on %s: the port is taken, the address is not of this "
                         "machine, or the certificate and key do not fit; choose another port or "
                         "stop the other server",
                         address);
    }
    return MEED_OK;
}

static enum meed_status start_queues(struct meed_rpc_grpc_listener *listener)
{
    int slot_count = 0;
    listener->slots = meed_heap_alloc((size_t)listener->queue_count *
                                          (size_t)(listener->route_count * SLOTS_A_METHOD + 1),
                                      sizeof *listener->slots);
    if (!listener->slots) {
        return MEED_NOMEM;
    }
    grpc_server_start(listener->server);
    for (int q = 0; q < listener->queue_count; q++) {
        for (int r = -1; r < listener->route_count; r++) {
            for (int i = 0; i < (r < 0 ? 1 : SLOTS_A_METHOD); i++) {
                struct slot *slot = &listener->slots[slot_count++];
                slot->tag.fn = on_accept;
                slot->queue = &listener->queues[q];
                slot->route = r;
                arm(slot);
            }
        }
    }
    for (int q = 0; q < listener->queue_count; q++) {
        int error =
            meed_rpc_core_thread(&listener->queues[q].thread, poller_main, &listener->queues[q]);
        /* A server that is started but not polled cannot be taken apart again. */
        MEED_ASSERT(error == 0);
        listener->queues[q].thread_started = true;
    }
    return MEED_OK;
}

enum meed_status meed_rpc_grpc_listener_start(struct meed_rpc_server *owner, const char *address,
                                              const struct meed_rpc_tls *tls, int poller_count,
                                              struct meed_rpc_grpc_listener **out, int *port)
{
    enum meed_status st = MEED_OK;
    struct meed_rpc_grpc_args args;
    struct meed_rpc_grpc_listener *listener = meed_heap_alloc(1, sizeof *listener);
    if (!listener) {
        return MEED_NOMEM;
    }
    listener->owner = owner;
    pthread_mutex_init(&listener->mutex, NULL);
    meed_rpc_core_cond_init(&listener->signal);
    meed_rpc_grpc_common_server_args(&args);
    listener->server = grpc_server_create(&args.args, NULL);
    grpc_resource_quota_unref(args.quota);
    MEED_TRY_OUT(add_routes(listener));
    for (int i = 0; i < poller_count; i++) {
        struct queue *queue = &listener->queues[listener->queue_count++];
        queue->listener = listener;
        queue->shutdown_tag.fn = on_shutdown;
        queue->cq = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(listener->server, queue->cq, NULL);
    }
    MEED_TRY_OUT(bind_port(listener, address, tls, port));
    MEED_TRY_OUT(start_queues(listener));
    *out = listener;
out:
    if (st != MEED_OK) {
        listener_free(listener);
    }
    return st;
}
