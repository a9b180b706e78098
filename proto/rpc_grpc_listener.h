/* The part of the gRPC server that can be torn down and built anew while its calls' owner lives on:
 * the grpc_server with its port, completion queues and poller threads. Private to rpc_grpc_*.c.
 */
#ifndef MEED_PROTO_RPC_GRPC_LISTENER_H
#define MEED_PROTO_RPC_GRPC_LISTENER_H

#include "proto/rpc_core.h"

struct meed_rpc_grpc_listener;

/* Listens when it returns; calls are admitted to `owner`. NULL tls: plain text. *port is the bound
 * one. IO if the address cannot be had. */
MEED_MUST_CHECK enum meed_status
meed_rpc_grpc_listener_start(struct meed_rpc_server *owner, const char *address,
                             const struct meed_rpc_tls *tls, int poller_count,
                             struct meed_rpc_grpc_listener **listener, int *port);
/* Refuses new connections, waits for running calls, cuts them after grace_ms, frees everything. */
void meed_rpc_grpc_listener_stop(struct meed_rpc_grpc_listener *listener, int64_t grace_ms);

#endif
