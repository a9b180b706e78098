/* The client's entry points: each calls the transport that made the object. What both transports
 * owe their callers (size limits, argument checks) is checked here, once. */
#include "proto/rpc_core.h"

static enum meed_status check_size(size_t size)
{
    if (size > MEED_LIMIT_MESSAGE_BYTES) {
        return MEED_FAIL(MEED_LIMIT, "a message of %zu bytes: at most %d may be sent at once", size,
                         MEED_LIMIT_MESSAGE_BYTES);
    }
    return MEED_OK;
}

void meed_rpc_client_close(struct meed_rpc_client *client)
{
    if (client) {
        client->ops->close(client);
    }
}

enum meed_status meed_rpc_client_unary(struct meed_rpc_client *client, const char *path,
                                       const void *request, size_t request_size,
                                       int64_t deadline_ms, struct meed_buf *reply)
{
    MEED_TRY(check_size(request_size));
    return client->ops->unary(client, path, request, request_size, deadline_ms, reply);
}

enum meed_status meed_rpc_stream_open(struct meed_rpc_client *client, const char *path,
                                      int64_t deadline_ms, struct meed_rpc_stream **stream)
{
    return client->ops->open(client, path, deadline_ms, stream);
}

enum meed_status meed_rpc_stream_send(struct meed_rpc_stream *stream, const void *bytes,
                                      size_t size)
{
    MEED_TRY(check_size(size));
    return stream->ops->send(stream, bytes, size);
}

enum meed_status meed_rpc_stream_close_send(struct meed_rpc_stream *stream)
{
    return stream->ops->close_send(stream);
}

enum meed_status meed_rpc_stream_receive(struct meed_rpc_stream *stream, int64_t timeout_ms,
                                         struct meed_buf *message, enum meed_rpc_event *event)
{
    return stream->ops->receive(stream, timeout_ms, message, event);
}

enum meed_status meed_rpc_stream_finish(struct meed_rpc_stream *stream)
{
    return stream->ops->finish(stream);
}

void meed_rpc_stream_cancel(struct meed_rpc_stream *stream)
{
    stream->ops->cancel(stream);
}

void meed_rpc_stream_destroy(struct meed_rpc_stream *stream)
{
    if (stream) {
        stream->ops->destroy(stream);
    }
}
