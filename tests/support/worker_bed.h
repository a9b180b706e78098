/* A worker in a bed: a server of our own in the same process, which deals out rounds, remembers
 * what is pushed and breaks what it is told to break. The model is the embedded one, the data three
 * short dialogues. Failures fail the test.
 */
#ifndef MEED_SUPPORT_WORKER_BED_H
#define MEED_SUPPORT_WORKER_BED_H

#include <pthread.h>
#include "client/workbench.h"
#include "client/worker.h"

enum { ROUNDS = 2, STEPS = 4, BED_MAX_EVENTS = 16, BED_MAX_WATCHERS = 64 };

struct fake_round {
    struct meed_msg_push_header header; /* of the last upload */
    struct meed_buf stored;             /* of the upload */
    uint8_t sha256[MEED_SHA256_BYTES];
    int64_t first_offset; /* of the last upload's header */
    int counted;          /* complete uploads */
    bool closed;
};

struct fake {
    pthread_mutex_t mutex;
    struct meed_buf adapter; /* packed; the base of every round */
    uint8_t adapter_hash[MEED_SHA256_BYTES];
    uint8_t model_hash[MEED_SHA256_BYTES];
    struct meed_msg_plan plan;
    struct fake_round rounds[ROUNDS];
    struct meed_buf heard; /* every message of the client, one behind the other */
    struct meed_msg_watch_event events[BED_MAX_EVENTS];
    int event_count;
    struct meed_rpc_call *watchers[BED_MAX_WATCHERS]; /* held */
    int watcher_count;
    /* faults still to happen */
    int refuse_joins, cut_watches, cut_pulls, cut_pushes, lose_replies, refuse_pushes;
};

struct bed {
    struct fake fake;
    struct meed_rpc_server *server;
    struct meed_rpc_client *rpc;
    struct meed_worker_config config;
    volatile sig_atomic_t stop;
    char folder[128];
    int pushed, receipts, retries, left, finished, steps, owns;
    int stop_at_step; /* of the whole run; 0: never */
    bool stop_at_retry;
};

/* A group's setup and teardown, with what they open. */
extern struct meed_workbench bed_bench;
int bed_open_model(void **state);
int bed_close_model(void **state);
/* The same model over other dialogues: the text of a JSONL file. */
struct meed_dataset *bed_data(const char *lines);

struct bed *bed_open(void);
void bed_close(struct bed *bed);
void bed_run(struct bed *bed, enum meed_status want);

#endif
