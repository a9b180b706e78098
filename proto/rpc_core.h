/* The half of the server that both transports share: strands, workers, timers, life of a call.
 *
 * A transport reports completions (rpc_core_post_*) from threads that must not block; the core
 * marks them in the call's event set and queues the call, once, for the worker pool. A worker takes
 * all events of a call at once and runs the callbacks in a fixed order: start, writable, message or
 * end, timer, wake, close. So a call is a strand: its callbacks never overlap, handlers may block,
 * and the run queue is bounded by the number of live calls. There is no event list to overflow,
 * because every kind of event can be pending only once (one read, one write, coalesced wakes).
 *
 * Alternatives not taken: callbacks on the polling threads (a handler that fsyncs would stall every
 * call of its queue), a thread a call (a thousand Watch streams would be a thousand stacks).
 *
 * References: one for the transport's life of the call (until done), one while queued, one a hold.
 * Private to proto/rpc*.c.
 */
#ifndef MEED_PROTO_RPC_CORE_H
#define MEED_PROTO_RPC_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include "proto/rpc.h"

enum meed_rpc_read { MEED_RPC_READ_MESSAGE, MEED_RPC_READ_HALF_CLOSED, MEED_RPC_READ_FAILED };

/* What a transport does for a call. All but `release` run on the call's strand. */
struct meed_rpc_call_ops {
    void (*identify)(struct meed_rpc_call *call); /* fills call->peer */
    void (*read)(struct meed_rpc_call *call);     /* → meed_rpc_core_post_read */
    /* The message that post_read announced, borrowed until drop_message. False: it is not there. */
    bool (*take_message)(struct meed_rpc_call *call, const void **bytes, size_t *size);
    void (*drop_message)(struct meed_rpc_call *call);
    void (*write)(struct meed_rpc_call *call, const void *bytes, size_t size); /* → post_write */
    void (*finish)(struct meed_rpc_call *call, enum meed_status status, const char *text,
                   const void *last, size_t last_size); /* → post_sent */
    void (*end)(struct meed_rpc_call *call);     /* nothing is outstanding: give the call back */
    void (*release)(struct meed_rpc_call *call); /* last reference: free the memory */
};

/* First member of a transport's call. */
struct meed_rpc_call {
    const struct meed_rpc_call_ops *ops;
    struct meed_rpc_server *server;
    const struct meed_rpc_method *method;
    void *service;
    void *state;
    struct meed_rpc_peer peer;
    int64_t deadline_ns; /* monotonic; INT64_MAX: none */
    atomic_int refs;

    /* Under server->mutex. */
    unsigned events;
    bool queued;
    enum meed_rpc_read read_kind;
    bool write_ok;
    bool cancelled;
    struct meed_rpc_call *next_ready;
    struct meed_rpc_call *next_live, *prev_live;
    int64_t due_ns; /* key in the timer heap */
    int timer_slot; /* -1: not in the heap */

    /* Strand only. */
    bool read_pending, write_pending, finish_pending, closed;
    bool finished;    /* finish was asked for */
    bool input_ended; /* half_closed or failed was told, or the one request was taken */
    bool done;
    int64_t timer_ns;    /* INT64_MAX: not set */
    int64_t progress_ns; /* INT64_MAX: nothing awaited */
};

struct meed_rpc_server_ops {
    /* No new calls; wait until none lives, cancel the rest after grace_ms. */
    void (*stop)(struct meed_rpc_server *server, int64_t grace_ms);
    void (*destroy)(struct meed_rpc_server *server);
};

/* First member of a transport's server. */
struct meed_rpc_server {
    const struct meed_rpc_server_ops *ops;
    struct meed_rpc_service service;
    int port;
    pthread_mutex_t mutex;
    pthread_cond_t ready_signal;
    pthread_cond_t timer_signal;
    pthread_cond_t idle_signal; /* a call ended */
    struct meed_rpc_call *ready_first, *ready_last;
    struct meed_rpc_call *live_first;
    int64_t live_count;
    struct meed_rpc_call **timers; /* heap by due_ns */
    int timer_count;
    bool stopping, stopped, threads_stop, serving;
    pthread_t workers[MEED_LIMIT_WORKERS];
    int worker_count;
    pthread_t timer_thread;
    bool timer_started;
    struct meed_rpc_server_stats stats;
    atomic_llong bytes_in, bytes_out;
};

/* Starts workers and timers; on failure everything is undone. Clear joins them. */
MEED_MUST_CHECK enum meed_status meed_rpc_core_init(struct meed_rpc_server *server,
                                                    const struct meed_rpc_server_ops *ops,
                                                    const struct meed_rpc_service *service,
                                                    int worker_count);
void meed_rpc_core_clear(struct meed_rpc_server *server);

/* Finds "/pkg.Service/Method" among the service's and the health methods; *service is its user
 * pointer. NULL if unknown. */
const struct meed_rpc_method *meed_rpc_core_find(struct meed_rpc_server *server, const char *path,
                                                 void **service);
/* Stand-ins: a call of an unknown path, a call beyond the limit, a call while stopping. */
extern const struct meed_rpc_method meed_rpc_core_unknown, meed_rpc_core_busy,
    meed_rpc_core_stopping;

/* Enters a call that the transport filled in (ops, method, service, deadline; rest zero) and queues
 * its start. The method becomes a stand-in if the server is full or stopping. */
void meed_rpc_core_admit(struct meed_rpc_server *server, struct meed_rpc_call *call);
void meed_rpc_core_post_read(struct meed_rpc_call *call, enum meed_rpc_read kind);
void meed_rpc_core_post_write(struct meed_rpc_call *call, bool ok);
void meed_rpc_core_post_sent(struct meed_rpc_call *call);
void meed_rpc_core_post_close(struct meed_rpc_call *call, bool cancelled);
/* Waits until no call lives; false after timeout_ms. */
bool meed_rpc_core_wait_idle(struct meed_rpc_server *server, int64_t timeout_ms);
/* Wakes every live call of a method. */
void meed_rpc_core_wake_all(struct meed_rpc_server *server, const struct meed_rpc_method *method);
/* Reports every live call as closed by the peer: the end of a grace. */
void meed_rpc_core_close_all(struct meed_rpc_server *server);

/* rpc_health.c: the standard health service; its user pointer is the server. */
extern const struct meed_rpc_method meed_rpc_health_methods[2];
/* Wakes the health watchers. */
void meed_rpc_health_notify(struct meed_rpc_server *server);

/* Client side, one vtable a transport. */
struct meed_rpc_client_ops {
    enum meed_status (*unary)(struct meed_rpc_client *client, const char *path, const void *request,
                              size_t request_size, int64_t deadline_ms, struct meed_buf *reply);
    enum meed_status (*open)(struct meed_rpc_client *client, const char *path, int64_t deadline_ms,
                             struct meed_rpc_stream **stream);
    void (*close)(struct meed_rpc_client *client);
};
struct meed_rpc_client {
    const struct meed_rpc_client_ops *ops;
};

struct meed_rpc_stream_ops {
    enum meed_status (*send)(struct meed_rpc_stream *stream, const void *bytes, size_t size);
    enum meed_status (*close_send)(struct meed_rpc_stream *stream);
    enum meed_status (*receive)(struct meed_rpc_stream *stream, int64_t timeout_ms,
                                struct meed_buf *message, enum meed_rpc_event *event);
    enum meed_status (*finish)(struct meed_rpc_stream *stream);
    void (*cancel)(struct meed_rpc_stream *stream);
    void (*destroy)(struct meed_rpc_stream *stream);
};
struct meed_rpc_stream {
    const struct meed_rpc_stream_ops *ops;
};

/* pthread_create with all signals blocked in the new thread; an errno value. */
int meed_rpc_core_thread(pthread_t *thread, void *(*body)(void *), void *user);
/* Monotonic absolute deadline of a relative one; saturates. */
int64_t meed_rpc_core_deadline_ns(int64_t delay_ms);
/* Waits on a CLOCK_MONOTONIC condition until due_ns (INT64_MAX: for ever); false on timeout. */
bool meed_rpc_core_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t due_ns);
void meed_rpc_core_cond_init(pthread_cond_t *cond);

#endif
