/* A client of a federation: join, watch, pull, train, push, receipt, until the run is over.
 *
 * One thread, dialling out only. The worker holds no plan of its own: the server's events say which
 * round is open, and what is already done for it is read from the state folder. So every fault ends
 * in the same place, the top of the loop: a cut connection, a restarted server and a killed client
 * all reconnect (jittered back-off), see the open round and go on from the last thing on disk.
 *
 *   STATE/run                  the run's id; another run refuses to use the folder
 *   STATE/round-000004/
 *       adapter.bin            the round's global adapter, whole and checked
 *       train.ckpt             the training, every few steps and on a stop
 *       residual.bin           error feedback after this round
 *       control.bin            SCAFFOLD: the control variate c_k after this round
 *       push.bin               the push's header
 *       update.bin             the bytes to push; its presence means the round is trained
 *       pushed                 the server has acknowledged all of them
 *       receipt.bin            the receipt as it came
 *       plan.bin, candidates.jsonl, private.bin, synthetic.jsonl, …   FedPIT (isolation.h)
 *   STATE/noise.key            differential privacy: the noise's secret (privacy.h)
 *   STATE/over                 FedPIT: the run is over, the own model is due
 *   STATE/private/             FedPIT: the client's own model as a PEFT folder; never sent
 *
 * Files are written in that order, each old or new. Once update.bin is there it is what will be
 * pushed, however often the process dies: bytes, hash and place in the server's queue stay the
 * same. Before, the training repeats with the same bits. While training the event stream is looked
 * at after every step, so a round that closes without us is left at once.
 *
 * SCAFFOLD (Karimireddy et al. 2020) with AdamW: the variate c_k is the mean of the loss's
 * gradients over the local steps, before correction and clipping, and a step's gradient is
 * corrected by c − c_k. The paper's other form, (x − y)/(K η), is a mean gradient under SGD alone:
 * AdamW's step is not η times a gradient. c_k belongs to the last round that the server
 * acknowledged; where its file is lost it starts again from zero, with a warning.
 *
 * FedPIT: when the run is over the worker trains the client's own model (isolation.h) from its last
 * round's global adapter, before it ends; a worker that visits does so when asked (own_at_end).
 * Limit: the last merge is not in it, because the aggregator may be gone by then.
 *
 * Behaviours other than honest exist for demonstrations: `idle` pushes the global adapter
 * unchanged, which is worth exactly nothing.
 */
#ifndef MEED_CLIENT_WORKER_H
#define MEED_CLIENT_WORKER_H

#include <signal.h>
#include "client/local_train.h"
#include "proto/rpc.h"

MEED_BEGIN_C

enum meed_worker_behaviour { MEED_WORKER_HONEST, MEED_WORKER_IDLE };

enum meed_worker_event_kind {
    MEED_WORKER_JOINED,
    MEED_WORKER_WAITING,  /* heartbeat: nothing to do */
    MEED_WORKER_RETRYING, /* text says why, seconds how long from now */
    MEED_WORKER_ROUND,    /* a round begins here */
    MEED_WORKER_PHASE,    /* FedPIT: a part of it begins; text names it, step_count its length */
    MEED_WORKER_STEP,
    MEED_WORKER_PUSHED,
    MEED_WORKER_LEFT, /* a round went on without us; text says why */
    MEED_WORKER_RECEIPT,
    MEED_WORKER_OWN, /* FedPIT: the client's own model is in the folder that text names */
    MEED_WORKER_FINISHED
};

struct meed_worker_event {
    enum meed_worker_event_kind kind;
    int32_t round;
    int32_t round_count;
    int64_t step; /* done so far */
    int64_t step_count;
    double loss;
    double tokens_per_second;
    double seconds;
    int64_t bytes;         /* of the update */
    double retained_ratio; /* energy that the codec kept */
    double epsilon, delta; /* PUSHED: privacy spent so far (privacy.h); 0 without noise */
    const struct meed_msg_receipt *receipt; /* RECEIPT only */
    const char *text;                       /* never NULL */
};
typedef void (*meed_worker_event_fn)(void *user, const struct meed_worker_event *event);

/* Experiments alone: may replace what was trained before it is compressed. `global` is the part of
 * the round's adapter that is trained; trained has its shape. */
typedef enum meed_status (*meed_worker_rewrite_fn)(void *user, int32_t round,
                                                   const struct meed_adapter *global,
                                                   struct meed_adapter *trained);

struct meed_worker_config {
    struct meed_rpc_client *rpc;
    const char *id; /* this client's name */
    const char *state_folder;
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    struct meed_dataset *dataset;
    const struct meed_dialogue *dialogues; /* [dialogue_count] of a dataset that is in no file */
    int64_t dialogue_count;                /* (a simulation's); NULL: its path is one */
    bool truncate;
    bool limits_sharing; /* a plan that asks for more than share_limit (proto/sharing.h) ends the */
    double share_limit;  /* worker with DENIED before anything is trained */
    enum meed_dtype dtype;
    enum meed_block_format base; /* of the frozen weights (net.h) */
    int64_t checkpoint_every;    /* steps */
    enum meed_worker_behaviour behaviour;
    int64_t backoff_ms;                /* of the first retry; doubles up to 64 times that. 0: 250 */
    const volatile sig_atomic_t *stop; /* non-zero: checkpoint and return; may be NULL */
    meed_worker_event_fn on_event;     /* may be NULL */
    void *user;
    meed_worker_rewrite_fn rewrite; /* NULL but in a simulation */
    void *rewrite_user;
    bool own_at_end; /* of a visit: with no round left, FedPIT's own model is made */
};

/* Runs until the federation has finished (OK), *stop is set (CANCELLED) or something is wrong that
 * waiting does not mend. Everything is borrowed. */
MEED_MUST_CHECK enum meed_status meed_worker_run(const struct meed_worker_config *config);

/* One round and go, for a process that plays many clients in turn: joins, fetches the receipts that
 * are due, takes part in `round` (0: in none) and hangs up. No events are watched and nothing is
 * tried again; whoever calls knows that the round is open. What must last between visits is in the
 * state folder, as ever. */
MEED_MUST_CHECK enum meed_status meed_worker_visit(const struct meed_worker_config *config,
                                                   int32_t round);

MEED_END_C
#endif
