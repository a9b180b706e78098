/* A run as the report knows it: one shape for federations, valuations and experiments.
 *
 * Readers (read_*.c) fill it from files, pages draw it, and neither knows the other: a new kind of
 * result is a new reader. A valuation is a record of one round. What a file does not say is NaN, −1
 * or NULL and its chart or column is left out; nothing here is computed but sums.
 *
 * Everything lives in the record's arena until meed_run_record_clear.
 */
#ifndef MEED_REPORT_RUN_RECORD_H
#define MEED_REPORT_RUN_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include "report/roc.h"

MEED_BEGIN_C

enum meed_run_state {
    MEED_RUN_ABSENT,
    MEED_RUN_PAID,
    MEED_RUN_UNPAID,
    MEED_RUN_EXCLUDED,
    MEED_RUN_STATE_COUNT
};

/* What earlier rounds have brought a client to (server/quarantine.h). */
enum meed_run_standing {
    MEED_RUN_FREE,
    MEED_RUN_QUARANTINE,
    MEED_RUN_PROBATION,
    MEED_RUN_STANDING_COUNT
};

/* One client in one round. */
struct meed_run_cell {
    enum meed_run_state state;
    double phi, se;
    int64_t share;
    const char *reason; /* why the state is what it is; "" for none */
    const char *remark; /* of the screens on an update they let pass; "" for none */
    double loss;        /* self-reported training loss */
    int64_t bytes_up, bytes_down;
    double score;    /* the detectors' anomaly score: 1 is where they call it suspicious */
    double combined; /* of a simulation: with value and guard axes, on the same scale */
    double weight;   /* in the merge */
    enum meed_run_standing standing;
};

/* What the aggregation did to a round's updates (server/report_json.h). */
struct meed_run_merge {
    const char *method; /* NULL if not said */
    double update_norm, fedit_error, retained_energy;
    int64_t updates, frozen_ranks;
};

struct meed_run_round {
    int32_t number;
    bool abandoned;     /* nothing was settled; cells are absent */
    int64_t budget;     /* −1 if not said */
    double value_empty; /* before the round */
    double value_full;  /* with every update merged */
    double value_kept;  /* with those that are not excluded */
    struct meed_run_merge merge;
    struct meed_run_cell *cells; /* [client_count] */
};

/* An axis of the benchmark in a valuation. */
struct meed_run_axis {
    const char *name;
    double *phi, *se; /* [client_count] */
};

/* An axis of the benchmark over rounds, of the published adapter. */
struct meed_run_track {
    const char *name;
    bool guard;
    double *value, *se; /* [round_count] */
};

/* What a simulation knows of a client that nobody could know of a real one. */
struct meed_run_truth {
    const char *group;
    const char *attack; /* "none" */
    bool attacks;
    double quality; /* 0 … 1 */
    int64_t dialogues;
};

/* What told updates of attackers from honest ones. */
enum meed_run_score { MEED_RUN_BY_SCREEN, MEED_RUN_BY_ALL, MEED_RUN_SCORES };

/* A kind of attack in a combination, over its seeds (cli/simulation_detection.h). */
struct meed_run_kind {
    const char *attack;
    int64_t updates;                      /* attackers' */
    double excluded, pay;                 /* 0 … 1 */
    struct meed_roc roc[MEED_RUN_SCORES]; /* `area`: the mean of the rounds' */
};

/* Results of an experiment's combinations, over seeds. */
struct meed_run_passage {
    int64_t round;
    double utility, leak; /* means over seeds */
    double leak_se;       /* over seeds; NaN for one seed or where the cells are not at hand */
};
struct meed_run_row {
    const char *label;   /* "swap, 0.3, svd" */
    const char **values; /* [key_count] "" where the row has none, "-" where the file decides */
    const char
        *threat; /* of its settings, those of the attack beside its kind: "0.3"; "" for none */
    const char *policy;  /* those that are not about the attack: "svd" */
    double *mean, *half; /* [measure_count]; half of a 95 % interval, NaN for one seed */
    int64_t count;       /* seeds, the most of any measure */
    int32_t kind_count;
    struct meed_run_kind *kinds;
    int32_t course_count; /* published models that were attacked, by round */
    struct meed_run_passage *course;
};
struct meed_run_grid {
    const char *settings; /* "attack, share, aggregation" */
    const char *policies; /* "aggregation"; "" for none */
    int32_t key_count;
    const char **keys; /* of the settings, as in the file: "training.beta" */
    int32_t measure_count;
    const char **measures;
    int32_t row_count;
    struct meed_run_row *rows;
};

/* What attacks found in models (cli/audit_result.h), beside how good the models are. */
struct meed_run_leak {
    const char *name; /* "gain in ROUGE-L, reply not begun" */
    const char *unit; /* of the axis: "% of words" */
    int decimals;     /* to write */
    double *value,
        *error; /* [model_count] NaN where the attack did not run; ± one standard error */
};
struct meed_run_audit {
    const char *floor; /* the model that gains are over */
    int32_t model_count;
    const char **models;          /* [model_count] */
    double *quality, *quality_se; /* [model_count] NaN where not scored */
    int32_t leak_count;
    struct meed_run_leak *leaks;
    int32_t given_count;
    double *given;            /* [given_count] tokens of the reply, rising */
    double *curve, *curve_se; /* [model_count, given_count] gain in ROUGE-L, % */
};

struct meed_run_coalition {
    int32_t size;
    double value;
    const char *members; /* "bank, clinic"; "nobody" */
};

struct meed_run_pair {
    const char *title, *note;
    double full;    /* the size that has full colour, 0: the largest */
    double *values; /* [client_count, client_count], NaN where not known */
};

struct meed_run_fact {
    const char *name, *value;
};

enum { MEED_RUN_FACTS_MOST = 64, MEED_RUN_PAIRS_MOST = 3 };

struct meed_run_record {
    struct meed_arena arena;
    const char *title; /* what names the run among others: its path as given */
    const char *kind;  /* "federation", "valuation", "simulation", "experiment", "audit" */
    bool course;       /* rounds follow each other */
    const char *unit;  /* of utility and φ */
    int32_t client_count;
    const char **clients; /* [client_count] */
    int64_t *totals;      /* [client_count] credits of the whole run */
    int64_t budget;       /* of the whole run */
    int32_t round_count;
    struct meed_run_round *rounds;
    int32_t axis_count;
    struct meed_run_axis *axes;
    int32_t track_count;
    struct meed_run_track *tracks;
    struct meed_run_truth *truth; /* [client_count], NULL where it is not known */
    struct meed_run_grid grid;    /* settings NULL: no experiment */
    struct meed_run_audit audit;  /* model_count 0: none */
    int32_t coalition_count;
    struct meed_run_coalition *coalitions;
    int32_t pair_count;
    struct meed_run_pair pairs[MEED_RUN_PAIRS_MOST];
    int32_t fact_count;
    struct meed_run_fact facts[MEED_RUN_FACTS_MOST];
    char note[512]; /* "" or what a reader must know first */
};

void meed_run_record_init(struct meed_run_record *record);
void meed_run_record_clear(struct meed_run_record *record); /* accepts zeroed */

/* Zeroed items of the record's arena; NULL for none. */
MEED_MUST_CHECK enum meed_status meed_run_record_array(struct meed_run_record *record, size_t count,
                                                       size_t item_bytes, void **block);
MEED_MUST_CHECK enum meed_status meed_run_record_text(struct meed_run_record *record,
                                                      const char *text, const char **copy);
/* Cells of client_count absent clients. */
MEED_MUST_CHECK enum meed_status meed_run_record_cells(struct meed_run_record *record,
                                                       struct meed_run_cell **cells);
/* A row of the page's last table; value is copied. More than fit is a bug. */
MEED_MUST_CHECK enum meed_status meed_run_record_fact(struct meed_run_record *record,
                                                      const char *name, const char *format, ...)
    MEED_PRINTF(3, 4);
/* Index of the client, −1 if there is none. */
int32_t meed_run_record_find(const struct meed_run_record *record, const char *client);
/* The last round that was settled, NULL if none. */
const struct meed_run_round *meed_run_record_last(const struct meed_run_record *record);
/* a + b of counts that are not negative; stays at the largest instead of wrapping, since a file may
 * say anything. */
int64_t meed_run_record_add(int64_t a, int64_t b);
const char *meed_run_state_word(enum meed_run_state state);
const char *meed_run_standing_word(enum meed_run_standing standing); /* "" for free */

MEED_END_C
#endif
