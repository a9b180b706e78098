/* Shared by coalition*.c only: the evaluator's state, its cost model and its list of runs.
 *
 * A *slot* is an adapter in the stack (the global one first where it matters, then every distinct
 * client adapter); a *run* is a distinct token sequence that goes through the network once per
 * coalition, on behalf of all scored sequences with the same ids and their own masks.
 */
#ifndef MEED_ENGINE_COALITION_INTERNAL_H
#define MEED_ENGINE_COALITION_INTERNAL_H

#include "engine/coalition.h"
#include "engine/net_dense.h"

enum { MEED_COALITION_NULL = -1 };

struct meed_coalition {
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    struct meed_coalition_options options;
    int32_t count;                     /* clients */
    int32_t slot_count;                /* adapters of the stack */
    bool has_global;                   /* slot 0 is the global adapter, gate g_0 */
    const struct meed_adapter **slots; /* [count + 1], borrowed */
    int32_t *slot_of;                  /* [count], or MEED_COALITION_NULL */
    int32_t *kind_of;                  /* [count]: first client of the same slot and weight */
    double *weights;                   /* [count] */
    double *gates;                     /* [count + 1]: scratch of meed_coalition_gates */
    enum meed_coalition_path path;     /* AUTO until the first score */
    int32_t rows_capacity;             /* of the nets and the batch below */
    bool backward;                     /* the nets below keep what derivatives need */
    struct meed_net *stack;            /* streamed: the plain base weights */
    struct meed_net *merged;           /* MERGE only */
    struct meed_net_dense *dense;      /* streamed: Σ gates·ΔW */
    struct meed_batch *batch;
    float *logprob;           /* [rows_capacity] */
    int32_t *batch_coalition; /* [sequence capacity]: coalition and run of a batch's sequence */
    int32_t *batch_run;
    float *batch_gates; /* [sequence capacity, slot_count] */
};

struct coalition_run {
    struct meed_sequence sequence; /* ids borrowed; scored is the union of the members' masks */
    int32_t first;                 /* first member: index into the caller's sequences */
};
struct coalition_runs {
    int32_t count;
    struct coalition_run *runs; /* [count] */
    int32_t *next;              /* [sequence_count]: next member of the same run, -1 at the end */
    uint8_t *masks;             /* storage of the union masks */
    int64_t rows;               /* of one coalition */
    int32_t longest;            /* rows of the longest run */
};
/* Sequences without a scored token join no run; their sum is 0. */
MEED_MUST_CHECK enum meed_status meed_coalition_runs_init(const struct meed_sequence *sequences,
                                                          int32_t sequence_count,
                                                          struct coalition_runs *runs);
void meed_coalition_runs_clear(struct coalition_runs *runs);

/* Seconds that a coalition of `tokens` rows costs beyond the base forward, per path. */
struct coalition_cost {
    double stack;
    double merge;
};
struct coalition_cost meed_coalition_plan_cost(const struct meed_coalition *coalition,
                                               int64_t tokens, int32_t coalitions);

/* Seconds of the derivatives at node_count nodes, per path; stack is infinite if it does not fit.
 */
struct coalition_cost meed_coalition_slope_cost(const struct meed_coalition *coalition,
                                                int64_t tokens, int32_t node_count, int32_t groups);
/* coalition_score.c: networks and batch for runs of up to `longest` rows, kept from call to call;
 * on failure nothing is kept. */
MEED_MUST_CHECK enum meed_status meed_coalition_nets_ready(struct meed_coalition *coalition,
                                                           int32_t longest, bool backward);
MEED_MUST_CHECK enum meed_status
meed_coalition_check_sequences(const struct meed_model_config *config,
                               const struct meed_sequence *sequences, int32_t count);

/* Gates [slot_count] of a canonical member vector; valid until the next call. */
const double *meed_coalition_gates(struct meed_coalition *coalition, const double *canonical);

#endif
