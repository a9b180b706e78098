/* The client over gRPC core: one channel a client, one pluck queue a call.
 *
 * Blocking by design: a client has few calls and its threads have nothing better to do. Every call
 * has a deadline and waits for the server to come up within it (a restart of the server, and core's
 * own spurious connect failures, are ridden out that way). On a stream three batches are started at
 * once and apart: sending the headers, receiving them, receiving the status. Left out, a receive
 * never completes; joined, a client stream waits for ever for headers that come with the reply.
 * A failed send says nothing: the status does.
 */
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"
#include "proto/rpc_grpc_common.h"

enum op_tag { TAG_HEAD = 1, TAG_HEADERS, TAG_STATUS, TAG_SEND, TAG_CLOSE, TAG_RECEIVE };

struct grpc_client {
    struct meed_rpc_client client;
    grpc_channel *channel;
    char target[MEED_LIMIT_ADDRESS_BYTES];
    char client_id[MEED_LIMIT_ID_BYTES]; /* plain text only */
    bool tls;
};

struct grpc_client_stream {
    struct meed_rpc_stream stream;
    const struct grpc_client *client;
    grpc_completion_queue *cq;
    grpc_call *call;
    grpc_metadata_array headers, trailers;
    grpc_status_code code;
    grpc_slice details;
    grpc_byte_buffer *incoming;
    bool receiving;   /* a receive batch is outstanding */
    bool input_ended; /* a receive came back empty */
    bool send_closed, send_failed;
    bool headers_done, status_done;
    bool distrusts; /* cancelled because the server's certificate is a stranger's */
};

static void *tag_of(enum op_tag tag)
{
    return (void *)(intptr_t)tag;
}

static gpr_timespec forever(void)
{
    return gpr_inf_future(GPR_CLOCK_MONOTONIC);
}

/* Waits for a tag that will come: the call's deadline sees to it. */
static bool pluck(struct grpc_client_stream *self, enum op_tag tag)
{
    grpc_event event = grpc_completion_queue_pluck(self->cq, tag_of(tag), forever(), NULL);
    return event.type == GRPC_OP_COMPLETE && event.success;
}

static bool start(struct grpc_client_stream *self, const grpc_op *ops, size_t count,
                  enum op_tag tag)
{
    return grpc_call_start_batch(self->call, ops, count, tag_of(tag), NULL) == GRPC_CALL_OK;
}

static struct grpc_client_stream *self_of(struct meed_rpc_stream *stream)
{
    return (struct grpc_client_stream *)stream;
}

/* ---- verdict -------------------------------------------------------------------------------- */

static bool proxy_is_set(void)
{
    return getenv("grpc_proxy") || getenv("https_proxy") || getenv("http_proxy");
}

/* Turns the call's status into ours; core's own words get the advice that they lack. */
static enum meed_status verdict(const struct grpc_client_stream *self)
{
    if (self->code == GRPC_STATUS_OK) {
        return MEED_OK;
    }
    char text[MEED_LIMIT_STATUS_TEXT_BYTES];
    size_t length = MEED_MIN(GRPC_SLICE_LENGTH(self->details), sizeof text - 1);
    memcpy(text, GRPC_SLICE_START_PTR(self->details), length);
    text[length] = 0;
    char name[MEED_LIMIT_WORD_BYTES];
    bool from_meed =
        meed_rpc_grpc_common_metadata(&self->trailers, MEED_RPC_GRPC_STATUS_KEY, name, sizeof name);
    enum meed_status status = meed_rpc_grpc_common_status(self->code, &self->trailers);
    if (from_meed) {
        return MEED_FAIL(status, "%s", text);
    }
    if (self->distrusts) {
        return MEED_FAIL(MEED_UNAUTHENTICATED,
                         "%s shows a certificate that this authority did not issue; take ca.pem "
                         "and the client's pair from the same `meed provision`",
                         self->client->target);
    }
    if (self->code == GRPC_STATUS_UNAVAILABLE) {
        return MEED_FAIL(status, "%s: %s; is the server running there%s%s?", self->client->target,
                         text, self->client->tls ? ", and does it accept this certificate" : "",
                         proxy_is_set() ? " (a proxy variable is set)" : "");
    }
    if (self->code == GRPC_STATUS_DEADLINE_EXCEEDED) {
        char trouble[200] = "";
        if (self->client->tls) {
            meed_rpc_grpc_common_tls_trouble(trouble);
        }
        return MEED_FAIL(status, "%s did not answer in time%s%s%s", self->client->target,
                         proxy_is_set() ? " (a proxy variable is set)" : "",
                         trouble[0] ? "; last TLS trouble: "
                         : self->client->tls
                             ? "; if it never does, see whether it accepts this certificate"
                             : "",
                         trouble);
    }
    return MEED_FAIL(status, "%s: %s", self->client->target, text);
}

/* ---- streams -------------------------------------------------------------------------------- */

static void stream_release(struct grpc_client_stream *self)
{
    if (self->call) {
        grpc_call_unref(self->call);
    }
    grpc_completion_queue_shutdown(self->cq);
    grpc_completion_queue_pluck(self->cq, NULL, forever(), NULL); /* → QUEUE_SHUTDOWN */
    grpc_completion_queue_destroy(self->cq);
    grpc_metadata_array_destroy(&self->headers);
    grpc_metadata_array_destroy(&self->trailers);
    grpc_slice_unref(self->details);
    if (self->incoming) {
        grpc_byte_buffer_destroy(self->incoming);
    }
    meed_heap_free(self);
}

static void await_end(struct grpc_client_stream *self)
{
    if (self->receiving) {
        pluck(self, TAG_RECEIVE);
        self->receiving = false;
    }
    if (!self->headers_done) {
        pluck(self, TAG_HEADERS);
        self->headers_done = true;
    }
    if (!self->status_done) {
        pluck(self, TAG_STATUS);
        self->status_done = true;
    }
}

static enum meed_status stream_send(struct meed_rpc_stream *stream, const void *bytes, size_t size)
{
    struct grpc_client_stream *self = self_of(stream);
    if (!self->send_closed && !self->send_failed) {
        grpc_byte_buffer *buffer = meed_rpc_grpc_common_buffer(bytes, size);
        grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
        bool started = start(self, &op, 1, TAG_SEND);
        grpc_byte_buffer_destroy(buffer);
        self->send_failed = !started || !pluck(self, TAG_SEND);
    }
    if (self->send_closed || self->send_failed) {
        return MEED_FAIL(MEED_RPC, "the call has ended: no more can be sent");
    }
    return MEED_OK;
}

static enum meed_status stream_close_send(struct meed_rpc_stream *stream)
{
    struct grpc_client_stream *self = self_of(stream);
    if (!self->send_closed && !self->send_failed) {
        grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
        self->send_failed = !start(self, &op, 1, TAG_CLOSE) || !pluck(self, TAG_CLOSE);
        self->send_closed = true;
    }
    return MEED_OK;
}

static enum meed_status take(struct grpc_client_stream *self, struct meed_buf *message)
{
    grpc_slice slice;
    bool readable = meed_rpc_grpc_common_slice(self->incoming, &slice);
    grpc_byte_buffer_destroy(self->incoming);
    self->incoming = NULL;
    if (!readable) {
        return MEED_FAIL(MEED_FORMAT, "a message from %s cannot be read", self->client->target);
    }
    enum meed_status st = MEED_OK;
    if (message && GRPC_SLICE_LENGTH(slice) > 0) {
        st = meed_buf_append(message, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
    }
    grpc_slice_unref(slice);
    return st;
}

static enum meed_status stream_receive(struct meed_rpc_stream *stream, int64_t timeout_ms,
                                       struct meed_buf *message, enum meed_rpc_event *event)
{
    struct grpc_client_stream *self = self_of(stream);
    *event = MEED_RPC_END;
    if (self->input_ended) {
        return MEED_OK;
    }
    if (!self->receiving) {
        grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
                      .data.recv_message.recv_message = &self->incoming};
        self->receiving = start(self, &op, 1, TAG_RECEIVE);
    }
    if (self->receiving) {
        grpc_event got = grpc_completion_queue_pluck(
            self->cq, tag_of(TAG_RECEIVE), meed_rpc_grpc_common_deadline(timeout_ms), NULL);
        if (got.type == GRPC_QUEUE_TIMEOUT) {
            *event = MEED_RPC_WAITING;
            return MEED_OK;
        }
        self->receiving = false;
    }
    if (!self->incoming) {
        self->input_ended = true;
        return MEED_OK;
    }
    *event = MEED_RPC_MESSAGE;
    return take(self, message);
}

static void stream_cancel(struct meed_rpc_stream *stream)
{
    grpc_call_cancel(self_of(stream)->call, NULL);
}

static enum meed_status stream_finish(struct meed_rpc_stream *stream)
{
    struct grpc_client_stream *self = self_of(stream);
    if (!self->send_closed && !self->send_failed) {
        stream_cancel(stream);
    }
    while (!self->input_ended && !self->status_done) {
        enum meed_rpc_event event;
        if (stream_receive(stream, -1, NULL, &event) != MEED_OK || event == MEED_RPC_MESSAGE) {
            stream_cancel(stream);
        }
    }
    await_end(self);
    return verdict(self);
}

static void stream_destroy(struct meed_rpc_stream *stream)
{
    struct grpc_client_stream *self = self_of(stream);
    if (!self->status_done) {
        stream_cancel(stream);
    }
    await_end(self);
    stream_release(self);
}

static const struct meed_rpc_stream_ops stream_ops = {
    .send = stream_send,
    .close_send = stream_close_send,
    .receive = stream_receive,
    .finish = stream_finish,
    .cancel = stream_cancel,
    .destroy = stream_destroy,
};

/* A call without a batch yet. */
static enum meed_status call_create(struct grpc_client *client, const char *path,
                                    int64_t deadline_ms, struct grpc_client_stream **out)
{
    struct grpc_client_stream *self = meed_heap_alloc(1, sizeof *self);
    if (!self) {
        return MEED_NOMEM;
    }
    self->stream.ops = &stream_ops;
    self->client = client;
    self->cq = grpc_completion_queue_create_for_pluck(NULL);
    grpc_metadata_array_init(&self->headers);
    grpc_metadata_array_init(&self->trailers);
    self->details = grpc_empty_slice();
    grpc_slice method = grpc_slice_from_copied_string(path);
    self->call =
        grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, self->cq, method,
                                 NULL, meed_rpc_grpc_common_deadline(deadline_ms), NULL);
    grpc_slice_unref(method);
    *out = self;
    return MEED_OK;
}

/* The op that sends the headers, the caller's name among them on plain text. */
static grpc_op head_op(const struct grpc_client *client, grpc_metadata *entry)
{
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA,
                  .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY |
                           GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET};
    if (client->client_id[0]) {
        *entry = (grpc_metadata){
            .key = grpc_slice_from_static_string(MEED_RPC_GRPC_CLIENT_KEY),
            .value = grpc_slice_from_copied_string(client->client_id),
        };
        op.data.send_initial_metadata.count = 1;
        op.data.send_initial_metadata.metadata = entry;
    }
    return op;
}

static grpc_op headers_op(struct grpc_client_stream *self)
{
    return (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA,
                     .data.recv_initial_metadata.recv_initial_metadata = &self->headers};
}

static grpc_op status_op(struct grpc_client_stream *self)
{
    return (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                     .data.recv_status_on_client = {.trailing_metadata = &self->trailers,
                                                    .status = &self->code,
                                                    .status_details = &self->details}};
}

static void drop_entry(const grpc_op *head)
{
    if (head->data.send_initial_metadata.count > 0) {
        grpc_slice_unref(head->data.send_initial_metadata.metadata[0].value);
    }
}

static enum meed_status client_open(struct meed_rpc_client *base, const char *path,
                                    int64_t deadline_ms, struct meed_rpc_stream **stream)
{
    struct grpc_client *client = (struct grpc_client *)base;
    struct grpc_client_stream *self = NULL;
    MEED_TRY(call_create(client, path, deadline_ms, &self));
    grpc_metadata entry;
    grpc_op head = head_op(client, &entry), headers = headers_op(self), status = status_op(self);
    bool started = start(self, &head, 1, TAG_HEAD);
    drop_entry(&head);
    if (!started) {
        self->headers_done = self->status_done = true;
        stream_release(self);
        return MEED_FAIL(MEED_BUG, "gRPC core refuses the headers of %s", path);
    }
    self->status_done = !start(self, &status, 1, TAG_STATUS);
    self->headers_done = !start(self, &headers, 1, TAG_HEADERS);
    self->send_failed = !pluck(self, TAG_HEAD);
    *stream = &self->stream;
    return MEED_OK;
}

/* Waits for the call's end. Core tries a server with a foreign certificate again and again until
 * the deadline; more tries will not make it ours. */
static void await_reply(struct grpc_client_stream *self)
{
    enum { LOOK_MS = 250 };
    while (grpc_completion_queue_pluck(self->cq, tag_of(TAG_HEAD),
                                       meed_rpc_grpc_common_deadline(LOOK_MS), NULL)
               .type == GRPC_QUEUE_TIMEOUT) {
        if (self->client->tls && !self->distrusts && meed_rpc_grpc_common_distrusts()) {
            self->distrusts = true;
            grpc_call_cancel(self->call, NULL);
        }
    }
}

static enum meed_status client_unary(struct meed_rpc_client *base, const char *path,
                                     const void *request, size_t request_size, int64_t deadline_ms,
                                     struct meed_buf *reply)
{
    struct grpc_client *client = (struct grpc_client *)base;
    struct grpc_client_stream *self = NULL;
    MEED_TRY(call_create(client, path, deadline_ms, &self));
    grpc_metadata entry;
    grpc_byte_buffer *buffer = meed_rpc_grpc_common_buffer(request, request_size);
    grpc_op ops[6] = {
        head_op(client, &entry),
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        headers_op(self),
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &self->incoming},
        status_op(self),
    };
    meed_rpc_grpc_common_tls_forget();
    bool started = start(self, ops, MEED_COUNT(ops), TAG_HEAD);
    drop_entry(&ops[0]);
    grpc_byte_buffer_destroy(buffer);
    self->headers_done = self->status_done = true;
    enum meed_status st = MEED_OK;
    if (!started) {
        st = MEED_FAIL(MEED_BUG, "gRPC core refuses a call of %s", path);
    } else {
        await_reply(self);
        st = verdict(self);
    }
    if (st == MEED_OK) {
        st = self->incoming ? take(self, reply)
                            : MEED_FAIL(MEED_FORMAT, "the reply to %s has no message", path);
    }
    stream_release(self);
    return st;
}

/* ---- client --------------------------------------------------------------------------------- */

static void client_close(struct meed_rpc_client *base)
{
    struct grpc_client *client = (struct grpc_client *)base;
    grpc_channel_destroy(client->channel);
    meed_heap_free(client);
    meed_rpc_grpc_common_stop();
}

static const struct meed_rpc_client_ops client_ops = {
    .unary = client_unary, .open = client_open, .close = client_close};

static enum meed_status check_options(const struct meed_rpc_client_options *options)
{
    if (!options->target || !options->target[0] ||
        strlen(options->target) >= MEED_LIMIT_ADDRESS_BYTES) {
        return MEED_FAIL(MEED_ARG, "the server's address is missing or too long: give HOST:PORT");
    }
    if (!options->tls && !options->insecure) {
        return MEED_FAIL(MEED_CONFIG, "no certificates: give them (`meed provision` makes them), "
                                      "or ask for plain text with --insecure");
    }
    if (options->client_id && options->client_id[0] && !meed_codec_id_valid(options->client_id)) {
        return MEED_FAIL(MEED_ARG, "client id \"%.80s\": 1 to %d of A-Z a-z 0-9 . _ -",
                         options->client_id, MEED_LIMIT_ID_BYTES - 1);
    }
    return MEED_OK;
}

enum meed_status meed_rpc_grpc_client_open(const struct meed_rpc_client_options *options,
                                           struct meed_rpc_client **client)
{
    grpc_channel_credentials *credentials = NULL;
    MEED_TRY(check_options(options));
    struct grpc_client *self = meed_heap_alloc(1, sizeof *self);
    if (!self) {
        return MEED_NOMEM;
    }
    self->client.ops = &client_ops;
    self->tls = options->tls != NULL;
    snprintf(self->target, sizeof self->target, "%s", options->target);
    if (!options->tls && options->client_id) {
        snprintf(self->client_id, sizeof self->client_id, "%s", options->client_id);
    }
    meed_rpc_grpc_common_start();
    enum meed_status st = meed_rpc_grpc_common_client_credentials(options->tls, &credentials);
    if (st != MEED_OK) {
        meed_heap_free(self);
        meed_rpc_grpc_common_stop();
        return st;
    }
    struct meed_rpc_grpc_args args;
    meed_rpc_grpc_common_client_args(&args, options->target,
                                     options->tls ? options->tls->server_name : NULL,
                                     options->own_connection);
    self->channel = grpc_channel_create(self->target, credentials, &args.args);
    grpc_channel_credentials_release(credentials);
    *client = &self->client;
    return MEED_OK;
}
