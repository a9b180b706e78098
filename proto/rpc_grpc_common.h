/* What both ends of the gRPC transport share: channel arguments, credentials, bytes, life of core.
 *
 * Only rpc_grpc_*.c see gRPC's headers. The channel arguments are the transport's safety: message
 * limits, no compression (core inflates without a bound), no flow-control probing on the server
 * (four times the memory), keep-alives that fit each other, a handshake limit against silent
 * connections, no port sharing. The numbers live in limits.h.
 */
#ifndef MEED_PROTO_RPC_GRPC_COMMON_H
#define MEED_PROTO_RPC_GRPC_COMMON_H

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include "proto/rpc_core.h"

/* grpc_init with our log sink and the calling thread's signals blocked, so that core's threads take
 * none. One grpc_shutdown each. */
void meed_rpc_grpc_common_start(void);
void meed_rpc_grpc_common_stop(void);

enum { MEED_RPC_GRPC_ARGS = 24 };
struct meed_rpc_grpc_args {
    grpc_arg items[MEED_RPC_GRPC_ARGS];
    grpc_channel_args args;     /* points into items */
    grpc_resource_quota *quota; /* server: unref after the server has copied the arguments */
};
void meed_rpc_grpc_common_server_args(struct meed_rpc_grpc_args *args);
/* The texts must live until the channel was created. */
void meed_rpc_grpc_common_client_args(struct meed_rpc_grpc_args *args, const char *target,
                                      const char *server_name, bool own_connection);

/* NULL tls: plain. CONFIG if a PEM text is missing or core refuses it. */
MEED_MUST_CHECK enum meed_status
meed_rpc_grpc_common_server_credentials(const struct meed_rpc_tls *tls,
                                        grpc_server_credentials **credentials);
MEED_MUST_CHECK enum meed_status
meed_rpc_grpc_common_client_credentials(const struct meed_rpc_tls *tls,
                                        grpc_channel_credentials **credentials);

/* Copies. */
grpc_byte_buffer *meed_rpc_grpc_common_buffer(const void *bytes, size_t size);
/* Contiguous bytes of a received buffer; false if it cannot be read. Unref the slice. */
bool meed_rpc_grpc_common_slice(grpc_byte_buffer *buffer, grpc_slice *slice);

/* Key of the metadata entry by which a plain-text client names itself. */
#define MEED_RPC_GRPC_CLIENT_KEY "meed-client"
/* Trailer with the exact status' name. */
#define MEED_RPC_GRPC_STATUS_KEY "meed-status"

/* Copies the value of a key, if it fits and holds no NUL; else "" and false. */
bool meed_rpc_grpc_common_metadata(const grpc_metadata_array *metadata, const char *key, char *text,
                                   size_t text_bytes);
/* The exact status if the trailer names one that has this code, else the code's first. */
enum meed_status meed_rpc_grpc_common_status(grpc_status_code code,
                                             const grpc_metadata_array *trailers);
/* Who is behind a call: certificate, or the claimed id. */
void meed_rpc_grpc_common_peer(grpc_call *call, const grpc_metadata_array *metadata,
                               struct meed_rpc_peer *peer);
/* The process's latest TLS failure in core's words, "" if none since it was last forgotten. */
void meed_rpc_grpc_common_tls_trouble(char text[200]);
void meed_rpc_grpc_common_tls_forget(void);
/* That failure is a server whose certificate our authority did not issue. Never true in a process
 * that serves too: there it may be a stranger's certificate that was refused. */
bool meed_rpc_grpc_common_distrusts(void);
void meed_rpc_grpc_common_serves(void);
gpr_timespec meed_rpc_grpc_common_deadline(int64_t delay_ms);

#endif
