/* What the files of the service share; nobody else includes this.
 *
 * Locks, outermost first: uploads_lock, one upload's lock, lock (round, watchers, adapter), then
 * those of store, ledger, board and transport, which know nothing of us.
 */
#ifndef MEED_SERVER_SERVICE_PRIVATE_H
#define MEED_SERVER_SERVICE_PRIVATE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "proto/codec.h"
#include "server/service.h"

enum { MEED_SERVICE_EVENTS = 64 };

struct meed_service_watcher {
    struct meed_rpc_call *call; /* held */
    int32_t client;
    int snapshots;   /* of the present state, sent before events: 0, 1, 2 (all) */
    uint64_t cursor; /* next event */
    struct meed_service_watcher *next, *prev;
};

struct meed_service_upload; /* service_push.c */

struct meed_service {
    struct meed_service_config config;
    struct meed_rpc_service table;
    int64_t max_update_bytes;
    sem_t wake;

    pthread_mutex_t lock;
    struct meed_round round;
    uint8_t adapter_hash[MEED_SHA256_BYTES];
    int32_t settled_round; /* last one with a receipt; 0: none */
    bool finished_once;
    struct meed_service_watcher *watchers;
    struct meed_msg_watch_event events[MEED_SERVICE_EVENTS]; /* ring */
    uint64_t event_count;
    bool *joined; /* [clients] */
    bool *served; /* [clients] has fetched the last receipt */
    struct meed_rpc_server *server;

    pthread_mutex_t uploads_lock;
    struct meed_service_upload **uploads; /* [clients] */

    atomic_llong verdicts[MEED_ROUND_VERDICT_COUNT];
    atomic_llong broken, bytes_up, bytes_down, watcher_count;
};

/* Who calls; on failure the call is finished. */
bool meed_service_admit(struct meed_service *service, struct meed_rpc_call *call, int32_t *client);
/* A client is here: its seat, and the round's clock. */
void meed_service_present(struct meed_service *service, int32_t client);
/* VERSION unless the caller means this run. */
MEED_MUST_CHECK enum meed_status meed_service_check_run(const struct meed_service *service,
                                                        const char *run_id);
/* Health after an operation on the store. */
void meed_service_sync_health(struct meed_service *service);
/* Under the lock: makes the outcome durable where the phase or round changes, adopts it, tells. */
MEED_MUST_CHECK enum meed_status meed_service_adopt(struct meed_service *service,
                                                    const struct meed_round_outcome *outcome);
int64_t meed_service_now_ms(void);
const char *meed_service_client_id(const struct meed_service *service, int32_t client);

/* service_watch.c; the first two under the lock. */
void meed_service_tell(struct meed_service *service, enum meed_event_kind kind, int32_t round,
                       const char *text);
void meed_service_wake_watchers(struct meed_service *service);
void meed_service_watch_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                size_t size);
void meed_service_watch_writable(void *user, struct meed_rpc_call *call);
void meed_service_watch_done(void *user, struct meed_rpc_call *call, bool cancelled);

/* service_pull.c */
void meed_service_pull_message(void *user, struct meed_rpc_call *call, const void *bytes,
                               size_t size);
void meed_service_pull_writable(void *user, struct meed_rpc_call *call);
void meed_service_pull_done(void *user, struct meed_rpc_call *call, bool cancelled);

/* service_push.c */
void meed_service_query_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                size_t size);
void meed_service_push_start(void *user, struct meed_rpc_call *call);
void meed_service_push_message(void *user, struct meed_rpc_call *call, const void *bytes,
                               size_t size);
void meed_service_push_half_closed(void *user, struct meed_rpc_call *call);
void meed_service_push_done(void *user, struct meed_rpc_call *call, bool cancelled);

/* service_read.c */
void meed_service_receipt_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                  size_t size);
void meed_service_ledger_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                 size_t size);

#endif
