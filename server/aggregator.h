/* The aggregator: one run of a federation, from an empty state folder to the last receipt.
 *
 * This header is everything that a front end needs: fill a config, create, run, destroy. `create`
 * opens model, benchmark, state and listener and returns with the port known; `run` blocks on the
 * caller's thread, which is the one that screens, values, pays, aggregates and publishes, until the
 * last round is settled or a stop is requested. The rounds come from the pure machine in round.h,
 * the clients' calls are answered by service.h on the transport's workers, and every fact that
 * anybody was told is in the state folder first:
 *
 *   STATE/state.db      SQLite: run, rounds, accepted updates, verdicts, values
 *   STATE/blobs/        adapters and updates by SHA-256
 *   STATE/partial/      uploads under way
 *   STATE/terms.txt     everything that the run was agreed on (terms_text.h)
 *   STATE/ledger.jsonl  the signed ledger (ledger.h); ledger.key and ledger.pub its key pair
 *   STATE/adapter/      the present global adapter as a PEFT folder, replaced after each round
 *
 * Create on a folder that holds a run goes on with it, after a stop as after a kill -9; a folder
 * of another run (other model, benchmark, roster, plan or seed) is refused. The observer hears what
 * a person wants to see; it draws nothing here and may be NULL.
 */
#ifndef MEED_SERVER_AGGREGATOR_H
#define MEED_SERVER_AGGREGATOR_H

#include "evaluation/valuation.h"
#include "proto/message.h"
#include "proto/rpc.h"
#include "server/defence.h"
#include "server/quarantine.h"

MEED_BEGIN_C

/* How updates become the next global adapter; aggregate.h says what each does. */
enum meed_aggregation {
    MEED_AGGREGATION_SVD, /* the default */
    MEED_AGGREGATION_FEDAVG,
    MEED_AGGREGATION_FFA,
    MEED_AGGREGATION_ROLORA,
    MEED_AGGREGATION_STACK,
    MEED_AGGREGATION_FEDEX,
    MEED_AGGREGATION_MEDIAN,
    MEED_AGGREGATION_TRIMMED,
    MEED_AGGREGATION_KRUM,
    MEED_AGGREGATION_MULTIKRUM,
    MEED_AGGREGATION_NORMCLIP,
    MEED_AGGREGATION_FLTRUST,
    MEED_AGGREGATION_COUNT
};

/* What robust aggregations take for granted about the cohort. */
struct meed_robust_options {
    int32_t attackers;    /* f of krum and multikrum: n − f − 2 ≥ 1 */
    int32_t selected;     /* m of multikrum; 0: n − f */
    double trim;          /* share cut from either end by trimmed, below 1/2 */
    double norm_multiple; /* normclip's bound in medians of ‖ΔW‖ */
};

/* What p_k goes by; weighting.h. */
enum meed_weighting {
    MEED_WEIGHTING_UNIFORM, /* the default: nothing that a client says about itself */
    MEED_WEIGHTING_SAMPLES,
    MEED_WEIGHTING_CONTRIBUTION,
    MEED_WEIGHTING_COUNT
};

/* What the server makes of a merged round; server_optimiser.h. */
enum meed_server_rule {
    MEED_SERVER_NONE, /* the merged adapter is the next one */
    MEED_SERVER_AVGM,
    MEED_SERVER_ADAGRAD,
    MEED_SERVER_YOGI,
    MEED_SERVER_ADAM,
    MEED_SERVER_RULE_COUNT
};
struct meed_server_options {
    enum meed_server_rule rule;
    double lr, beta1, beta2, tau; /* η, β₁ (avgm: β), β₂, τ */
};

/* Training on data of the operator's own, for fltrust's own update and for repair. The front end
 * has the data; server/ knows none. */
struct meed_align_request {
    const struct meed_backend *be;            /* of the valuation; NULL in a run without a model */
    const struct meed_checkpoint *checkpoint; /* likewise */
    const struct meed_adapter *start;
    int32_t round;
    uint64_t seed;
    int32_t rank;             /* ranks to train; those behind them stand still */
    uint32_t trained_factors; /* MEED_FACTOR_A | MEED_FACTOR_B */
    int32_t steps;            /* 0: steps and rate of the clients' plan */
    double lr;
};
/* trained: the start's shape. The same request gives the same bits. */
typedef enum meed_status (*meed_align_fn)(void *user, const struct meed_align_request *request,
                                          struct meed_adapter **trained);
struct meed_align_options {
    meed_align_fn run; /* NULL: no such data */
    void *user;
    const uint8_t *data_hash; /* [MEED_SHA256_BYTES] of the data */
    const char *data_path;    /* where it came from, for who verifies; NULL: unknown */
    int32_t repair_steps;     /* after each merge; 0: no repair */
    double repair_lr;
};

/* What a client's row of the live table shows. */
enum meed_aggregator_seat {
    MEED_SEAT_AWAY,   /* has not been seen since the start of this process */
    MEED_SEAT_JOINED, /* has called; no update of the present round yet */
    MEED_SEAT_IN,     /* its update of the present round is on disk */
    MEED_SEAT_PAID,   /* verdicts of the last settled round */
    MEED_SEAT_UNPAID,
    MEED_SEAT_EXCLUDED,
    MEED_SEAT_ABSENT
};

struct meed_aggregator_row {
    char id[MEED_LIMIT_ID_BYTES];
    enum meed_aggregator_seat seat;
    double train_loss; /* self-reported, of the present update */
    int64_t bytes_up;  /* of the present round */
    int64_t bytes_down;
    double score; /* the detectors' anomaly score of the present update, once it is screened */
    double
        verdict; /* score of the verdict on its value (evaluation/verdict.h), once it is valued */
    double phi;  /* of the last settled round, like the next four */
    double se;
    int64_t share;
    char reason[MEED_LIMIT_REASON_BYTES]; /* why the seat is what it is; "" when paid in full */
    char remark[MEED_LIMIT_REASON_BYTES]; /* of the screens on an update they let pass */
    int64_t total_share;
};

enum meed_aggregator_event_kind {
    MEED_AGGREGATOR_LISTENING, /* port is set; sent by create */
    MEED_AGGREGATOR_JOINED,    /* client */
    MEED_AGGREGATOR_OPENED,    /* round; clients may pull and train */
    MEED_AGGREGATOR_UPDATE,    /* client; its update is on disk */
    MEED_AGGREGATOR_REFUSED,   /* client; text says why its update was not taken */
    MEED_AGGREGATOR_CLOSED,    /* round; no more updates */
    MEED_AGGREGATOR_SCREENED,  /* round; text sums up who was excluded before valuation */
    MEED_AGGREGATOR_VALUING,   /* tokens_done of tokens_total; many times */
    MEED_AGGREGATOR_SETTLED,   /* round; rows hold φ, share, status, reason and remark */
    MEED_AGGREGATOR_ABANDONED, /* round; text says why */
    MEED_AGGREGATOR_WAITING,   /* every ten seconds of nothing; text says what for */
    MEED_AGGREGATOR_FINISHED
};

struct meed_aggregator_event {
    enum meed_aggregator_event_kind kind;
    int port;
    int32_t round; /* 1 to round_count */
    int32_t round_count;
    int32_t client; /* index into rows, -1 */
    int32_t updates_in;
    int32_t row_count;
    const struct meed_aggregator_row *rows; /* in id order; borrowed during the call */
    int64_t tokens_done;
    int64_t tokens_total;
    int64_t remaining_ms;  /* to the deadline; -1: it has not begun (nobody has joined) */
    double utility_before; /* SETTLED: v of the base and of what is published, nats a token */
    double utility_after;
    char text[MEED_LIMIT_REASON_BYTES];
};

/* Called from several threads, one at a time; must not call back into the aggregator, except
 * meed_aggregator_request_stop. */
typedef void (*meed_aggregator_observer_fn)(void *user, const struct meed_aggregator_event *event);

/* Texts are copied by create. Start from meed_aggregator_defaults(). */
struct meed_aggregator_config {
    const char *state;     /* folder, made if need be */
    const char *model;     /* Hugging Face folder */
    const char *benchmark; /* JSONL */
    const char *listen;    /* "127.0.0.1:0" */
    const char *run_id;    /* NULL: derived from everything that defines the run */

    /* Who may take part: a roster file (registry.h), or ids without pinned certificates. */
    const char *roster;
    const char *const *clients;
    int32_t client_count;

    int32_t rounds;
    int32_t quorum;      /* updates that settle a round at its deadline; 0: all clients */
    int64_t deadline_ms; /* of one round, from the first client's call on */
    int64_t budget;      /* of the whole run; spread evenly, so that the rounds' budgets add up */
    uint64_t seed;
    struct meed_msg_plan plan; /* hyper-parameters and codec; round, seed, times, hashes are ours */
    enum meed_aggregation aggregation;
    enum meed_defence_action defence[MEED_DETECTOR_COUNT];
    struct meed_quarantine_options quarantine;
    double clip_multiple; /* ‖ΔW_k‖ is cut to this multiple of the cohort's median; 0: never */
    struct meed_robust_options robust;
    int32_t frozen_rank; /* most ranks that stack and fedex keep beside the trained ones */
    enum meed_weighting weighting;
    double sample_cap; /* claimed sample counts count up to this multiple of their median */
    struct meed_server_options server;
    struct meed_align_options align;

    enum meed_value_method method;
    enum meed_pay_rule rule;
    enum meed_coalition_path path;
    int32_t bootstrap;
    double guard_z;
    double reputation;         /* weight of the past in pay; 0: each round by itself */
    double pay_floor;          /* share of each budget that is split by heads; 0: none */
    int32_t eval_batch_tokens; /* rows of one forward of the valuation */
    int32_t threads;           /* of the valuation; 0: one a core */
    const char *device;        /* of the valuation, for meed_backend_open; NULL: the CPU */

    /* A process that plays the clients too (a simulation): no listener, calls come through
     * meed_aggregator_transport; and what it has loaded already is lent, all four or none. */
    bool in_process;
    struct meed_pool *lent_pool;
    struct meed_backend *lent_be;
    struct meed_checkpoint *lent_checkpoint; /* of `model` */
    struct meed_benchmark *lent_benchmark;   /* of `benchmark` */

    const char *tls_ca; /* PEM files; all three, or insecure */
    const char *tls_certificate;
    const char *tls_key;
    bool insecure;
    const char *ledger_key; /* PEM; NULL: STATE/ledger.key, made on the first start */
    int metrics_port;       /* 0: none; -1: any free one */
    const char *report;     /* JSON path, written after each round; kept, not copied; NULL: none */

    meed_aggregator_observer_fn observer;
    void *observer_user;
};

/* 3 rounds, all clients, 10 min, budget 1,000,000, seed 1, svd, clip 3, no server optimiser,
 * uniform weights (sample cap 4), trim 0.2, 128 frozen ranks, exact, shrunk, 1,000 draws,
 * guard 2.576, 2,048 tokens, insecure false; the plan's defaults are those of the trainer. */
struct meed_aggregator_config meed_aggregator_defaults(void);

struct meed_aggregator;

/* Listens when it returns. CONFIG and STATE say what does not fit, and to what. */
MEED_MUST_CHECK enum meed_status meed_aggregator_create(const struct meed_aggregator_config *config,
                                                        struct meed_aggregator **aggregator);
/* In process only: for meed_rpc_loop_client_open; close the clients before destroy. */
struct meed_rpc_server *meed_aggregator_transport(const struct meed_aggregator *aggregator);
int meed_aggregator_port(const struct meed_aggregator *aggregator);
int meed_aggregator_metrics_port(const struct meed_aggregator *aggregator);
const char *meed_aggregator_run_id(const struct meed_aggregator *aggregator);
/* Blocks until the run is finished (OK) or stopped (CANCELLED, everything kept). After FINISHED it
 * keeps answering for linger_ms, so that clients fetch the last receipt; it returns earlier once
 * every client that joined has done so. */
MEED_MUST_CHECK enum meed_status meed_aggregator_run(struct meed_aggregator *aggregator,
                                                     int64_t linger_ms);
/* Any thread and signal handlers. */
void meed_aggregator_request_stop(struct meed_aggregator *aggregator);
void meed_aggregator_destroy(struct meed_aggregator *aggregator); /* accepts NULL */

MEED_END_C
#endif
