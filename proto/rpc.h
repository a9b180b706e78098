/* The transport: calls between clients and the server, over gRPC or inside one process.
 *
 * The seam is contiguous bytes. Above it nobody knows slices, tags or queues; below it nobody knows
 * a message. Both implementations run the same server core (rpc_core.c), so a handler tested with
 * thousands of in-process clients behaves the same behind a socket.
 *
 * SERVER. A service is a table of methods whose callbacks run on a bounded pool of workers, one at
 * a time for a given call: a handler may block (fsync, hashing, SQLite) and needs no lock for its
 * own state, and two calls run side by side. Completion events of the network are taken by other
 * threads that never block. Backpressure is the absence of read_next: the next message is fetched
 * only when the handler asks, so a slow disk slows its own uploader and nobody else.
 *
 *   unary, server stream:  start, message (exactly one), writable…, done
 *   client stream:         start, message…, then half_closed or failed, done
 *
 * half_closed and failed are two callbacks because "no more messages" alone does not say which: a
 * cancelled, cut or oversize upload looks like an end. Commit in half_closed only. done is always
 * the last callback and comes exactly once, also after failures; release the call's state there.
 *
 * CLIENT. Blocking calls from any thread, each stream used by one thread at a time; cancel may come
 * from anywhere. A receive with a time limit lets one thread attend thousands of streams.
 *
 * Statuses cross the wire: the server's meed_status and sentence come back as the client's status
 * and meed_last_error(), exactly, beside the gRPC code that foreign clients understand.
 */
#ifndef MEED_PROTO_RPC_H
#define MEED_PROTO_RPC_H

#include "base/buf.h"
#include "base/hash.h"
#include "proto/limits.h"

MEED_BEGIN_C

/* ---- who calls ------------------------------------------------------------------------------ */

struct meed_rpc_peer {
    char client_id[MEED_LIMIT_ID_BYTES]; /* URI SAN meed:client/<id>; "" if there is none */
    bool authenticated;                  /* by certificate; else the id is only claimed */
    uint8_t certificate_sha256[MEED_SHA256_BYTES]; /* of the DER; zero if not authenticated */
    char address[MEED_LIMIT_ADDRESS_BYTES];        /* for logs */
};

/* ---- server --------------------------------------------------------------------------------- */

struct meed_rpc_call; /* one call in progress, server side */
struct meed_rpc_server;

enum meed_rpc_shape { MEED_RPC_UNARY, MEED_RPC_SERVER_STREAM, MEED_RPC_CLIENT_STREAM };

/* Callbacks may be NULL where there is nothing to do. `service` is the pointer given at start. */
struct meed_rpc_method {
    const char *path;
    enum meed_rpc_shape shape;
    int32_t progress_ms; /* no event for so long while one is awaited: TIMEOUT; 0: no limit */
    bool endless;        /* a stream that waits for events: ended at once when the server stops */
    void (*start)(void *service, struct meed_rpc_call *call);
    void (*message)(void *service, struct meed_rpc_call *call, const void *bytes, size_t size);
    void (*half_closed)(void *service, struct meed_rpc_call *call);
    void (*failed)(void *service, struct meed_rpc_call *call);   /* stream broke before its end */
    void (*writable)(void *service, struct meed_rpc_call *call); /* the last write was taken */
    void (*wake)(void *service, struct meed_rpc_call *call);
    void (*timer)(void *service, struct meed_rpc_call *call);
    void (*done)(void *service, struct meed_rpc_call *call, bool cancelled);
};

/* Inside callbacks of the call only. */
const struct meed_rpc_peer *meed_rpc_call_peer(const struct meed_rpc_call *call);
void meed_rpc_call_set_state(struct meed_rpc_call *call, void *state);
void *meed_rpc_call_state(const struct meed_rpc_call *call);
/* Milliseconds to the client's deadline; INT64_MAX if it set none. */
int64_t meed_rpc_call_remaining_ms(const struct meed_rpc_call *call);
/* Client streams: fetch the next message. One at a time. */
void meed_rpc_call_read_next(struct meed_rpc_call *call);
/* Server streams: sends a copy; one at a time, `writable` follows when the next may come. */
void meed_rpc_call_write(struct meed_rpc_call *call, const void *bytes, size_t size);
bool meed_rpc_call_write_pending(const struct meed_rpc_call *call);
/* Ends the call; later operations on it are ignored. text NULL: meed_last_error() for a failure.
 * `last` is the reply of unary calls and client streams (NULL with a failure). */
void meed_rpc_call_finish(struct meed_rpc_call *call, enum meed_status status, const char *text,
                          const void *last, size_t last_size);
bool meed_rpc_call_finished(const struct meed_rpc_call *call);
/* `timer` once, after so long; replaces the one that runs; < 0 stops it. */
void meed_rpc_call_set_timer(struct meed_rpc_call *call, int64_t delay_ms);

/* Any thread that holds the call: hold inside a callback, release when nobody wakes it any more.
 * Wakes coalesce: `wake` comes at least once after the last one. */
void meed_rpc_call_hold(struct meed_rpc_call *call);
void meed_rpc_call_release(struct meed_rpc_call *call);
void meed_rpc_call_wake(struct meed_rpc_call *call);

struct meed_rpc_service {
    const char *name;                      /* for the health service: "meed.v1.Federation" */
    const struct meed_rpc_method *methods; /* borrowed for the server's life */
    size_t method_count;
    void *user;
};

/* PEM texts, in memory: where they come from is not the transport's business. */
struct meed_rpc_tls {
    const char *ca_pem;
    const char *certificate_pem;
    const char *key_pem;
    const char *server_name; /* client: the name to expect instead of the target's; NULL: target */
};

struct meed_rpc_server_options {
    const char *address;            /* "0.0.0.0:7443"; port 0 picks one; "unix:PATH" */
    const struct meed_rpc_tls *tls; /* NULL: plain text, refused unless insecure is set */
    bool insecure;
    int worker_count; /* 0: 8 */
    int poller_count; /* 0: 2 */
    bool probe;       /* watch the own listener and revive it; needs a certificate good for both */
    int32_t probe_period_ms; /* 0: MEED_LIMIT_PROBE_PERIOD_MS */
};

/* The gRPC server: listens when it returns. IO with the reason if the port is taken. */
MEED_MUST_CHECK enum meed_status
meed_rpc_grpc_server_start(const struct meed_rpc_server_options *options,
                           const struct meed_rpc_service *service, struct meed_rpc_server **server);
/* The in-process server: clients reach it by meed_rpc_loop_client_open. */
MEED_MUST_CHECK enum meed_status meed_rpc_loop_server_start(const struct meed_rpc_service *service,
                                                            int worker_count,
                                                            struct meed_rpc_server **server);
/* The bound port, 0 in process and for unix sockets. */
int meed_rpc_server_port(const struct meed_rpc_server *server);
/* What the health service answers. True after start; false while the store refuses writes. */
void meed_rpc_server_set_serving(struct meed_rpc_server *server, bool serving);
/* Graceful end: no new calls, streams are told "shutting down", running calls get grace_ms. Then
 * nothing of the service is called any more. Once only. */
void meed_rpc_server_stop(struct meed_rpc_server *server, int64_t grace_ms);
void meed_rpc_server_destroy(struct meed_rpc_server *server); /* stops if need be; accepts NULL */

struct meed_rpc_server_stats {
    int64_t calls_started;
    int64_t calls_live;
    int64_t calls_refused; /* beyond MEED_LIMIT_LIVE_CALLS */
    int64_t bytes_in;      /* messages, without framing */
    int64_t bytes_out;
    int64_t revivals; /* of the listener by the probe */
};
void meed_rpc_server_stats(const struct meed_rpc_server *server,
                           struct meed_rpc_server_stats *stats);

/* ---- client --------------------------------------------------------------------------------- */

struct meed_rpc_client;
struct meed_rpc_stream;

struct meed_rpc_client_options {
    const char *target;             /* "host:port" */
    const struct meed_rpc_tls *tls; /* NULL: plain text, refused unless insecure is set */
    bool insecure;
    const char *client_id; /* plain text only: who this client says it is */
    bool own_connection;   /* never share a connection with other clients of this process */
};

/* Does not connect yet. */
MEED_MUST_CHECK enum meed_status
meed_rpc_grpc_client_open(const struct meed_rpc_client_options *options,
                          struct meed_rpc_client **client);
/* In process: the id is taken as given; authenticated stands in for a certificate. */
MEED_MUST_CHECK enum meed_status meed_rpc_loop_client_open(struct meed_rpc_server *server,
                                                           const char *client_id,
                                                           bool authenticated,
                                                           struct meed_rpc_client **client);
void meed_rpc_client_close(struct meed_rpc_client *client); /* after its streams; accepts NULL */

/* Waits for the server to come up within the deadline. Appends the reply. */
MEED_MUST_CHECK enum meed_status meed_rpc_client_unary(struct meed_rpc_client *client,
                                                       const char *path, const void *request,
                                                       size_t request_size, int64_t deadline_ms,
                                                       struct meed_buf *reply);

/* Streams of either direction. A server stream: open, send, close_send, receive…, finish. A client
 * stream: open, send…, close_send, receive (the reply), finish. */
MEED_MUST_CHECK enum meed_status meed_rpc_stream_open(struct meed_rpc_client *client,
                                                      const char *path, int64_t deadline_ms,
                                                      struct meed_rpc_stream **stream);
/* Blocks while flow control is closed. A failure means the call has ended: `finish` tells why. */
MEED_MUST_CHECK enum meed_status meed_rpc_stream_send(struct meed_rpc_stream *stream,
                                                      const void *bytes, size_t size);
MEED_MUST_CHECK enum meed_status meed_rpc_stream_close_send(struct meed_rpc_stream *stream);

enum meed_rpc_event {
    MEED_RPC_MESSAGE, /* appended to the buffer */
    MEED_RPC_END,     /* no more; whether that is good only finish knows */
    MEED_RPC_WAITING, /* nothing within timeout_ms */
};
/* timeout_ms < 0 waits as long as the call lives. LIMIT if the buffer is too small. */
MEED_MUST_CHECK enum meed_status meed_rpc_stream_receive(struct meed_rpc_stream *stream,
                                                         int64_t timeout_ms,
                                                         struct meed_buf *message,
                                                         enum meed_rpc_event *event);
/* Waits for the server's verdict. A stream whose sending side is still open, or that has unread
 * messages, is cancelled by this; to leave an endless stream, cancel first. */
MEED_MUST_CHECK enum meed_status meed_rpc_stream_finish(struct meed_rpc_stream *stream);
void meed_rpc_stream_cancel(struct meed_rpc_stream *stream);  /* any thread */
void meed_rpc_stream_destroy(struct meed_rpc_stream *stream); /* cancels; accepts NULL */

MEED_END_C
#endif
