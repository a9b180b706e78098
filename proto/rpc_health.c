/* The standard health service over the transport's own interface (grpc.health.v1).
 *
 * Check answers for "" (the whole server) and for the one service; Watch sends the state at once
 * and every change, and stays open for a name that is not served. It reports what the owner said
 * with meed_rpc_server_set_serving and NOT_SERVING from the first moment of a shutdown.
 */
#include "proto/rpc_core.h"

#include <stdint.h>
#include <string.h>

#include "proto/codec.h"

static enum meed_health_state state_of(struct meed_rpc_server *server, const char *name)
{
    if (name[0] && strcmp(name, server->service.name) != 0) {
        return MEED_HEALTH_SERVICE_UNKNOWN;
    }
    pthread_mutex_lock(&server->mutex);
    bool serving = server->serving;
    pthread_mutex_unlock(&server->mutex);
    return serving ? MEED_HEALTH_SERVING : MEED_HEALTH_NOT_SERVING;
}

/* Unpacks a request into `request`; on failure the call is finished and false returned. */
static bool unpack(struct meed_rpc_call *call, const void *bytes, size_t size,
                   struct meed_msg_health_request *request)
{
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    enum meed_status st = meed_codec_unpack_health_request(bytes, size, &arena, request);
    meed_arena_clear(&arena);
    if (st != MEED_OK) {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
    }
    return st == MEED_OK;
}

static void pack(enum meed_health_state state, struct meed_buf *bytes)
{
    struct meed_msg_health_reply reply = {.state = state};
    meed_codec_buf_init(bytes);
    if (meed_codec_pack_health_reply(&reply, bytes) != MEED_OK) {
        meed_buf_reset(bytes); /* an empty message reads as UNKNOWN */
    }
}

static void check_message(void *service, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct meed_msg_health_request request;
    if (!unpack(call, bytes, size, &request)) {
        return;
    }
    enum meed_health_state state = state_of(service, request.service);
    if (state == MEED_HEALTH_SERVICE_UNKNOWN) {
        meed_rpc_call_finish(call, MEED_NOT_FOUND, "no such service here", NULL, 0);
        return;
    }
    struct meed_buf reply;
    pack(state, &reply);
    meed_rpc_call_finish(call, MEED_OK, "", reply.data ? reply.data : "", reply.size);
    meed_buf_clear(&reply);
}

/* The state of a Watch fits its state pointer: (last sent << 1) | asked for an unknown service. */
static void watch_send(void *service, struct meed_rpc_call *call)
{
    uintptr_t packed = (uintptr_t)meed_rpc_call_state(call);
    bool unknown = packed & 1;
    enum meed_health_state state = unknown ? MEED_HEALTH_SERVICE_UNKNOWN : state_of(service, "");
    if ((uintptr_t)state == packed >> 1 || meed_rpc_call_write_pending(call)) {
        return;
    }
    struct meed_buf reply;
    pack(state, &reply);
    meed_rpc_call_set_state(call, (void *)((uintptr_t)state << 1 | (unknown ? 1u : 0u)));
    meed_rpc_call_write(call, reply.data ? reply.data : "", reply.size);
    meed_buf_clear(&reply);
}

static void watch_message(void *service, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct meed_msg_health_request request;
    if (unpack(call, bytes, size, &request)) {
        bool unknown = state_of(service, request.service) == MEED_HEALTH_SERVICE_UNKNOWN;
        meed_rpc_call_set_state(call, (void *)(uintptr_t)(unknown ? 1u : 0u));
        watch_send(service, call);
    }
}

const struct meed_rpc_method meed_rpc_health_methods[2] = {
    {.path = "/grpc.health.v1.Health/Check", .shape = MEED_RPC_UNARY, .message = check_message},
    {.path = "/grpc.health.v1.Health/Watch",
     .shape = MEED_RPC_SERVER_STREAM,
     .endless = true,
     .message = watch_message,
     .writable = watch_send,
     .wake = watch_send},
};

void meed_rpc_health_notify(struct meed_rpc_server *server)
{
    meed_rpc_core_wake_all(server, &meed_rpc_health_methods[1]);
}
