/* Every way to value the players of a game, behind one call.
 *
 * - exact: Shapley (1953) from all 2^n coalitions, n ≤ 16 (shapley.c)
 * - loo: leave-one-out from n + 2 coalitions (shapley.c)
 * - permutation: Shapley from random orders, each with its reverse, cut short (permutation.c)
 * - owen: Shapley from coalitions of random density, stratified (owen.c)
 * - banzhaf: the Banzhaf value from random coalitions, each used for everybody (banzhaf.c)
 * - gradient: Aumann–Shapley by Gauss–Legendre nodes, any n (aumann_shapley.c)
 *
 * Which axioms hold: exact, permutation and owen estimate one and the same value. Leave-one-out and
 * Banzhaf are not efficient: their Σφ is not v(N) − v(∅), and the residual says by how much. The
 * gradient value is efficient up to its nodes, and equals Shapley where the game is at most
 * quadratic; beyond that it is another value, with axioms of its own (Aumann and Shapley 1974).
 * For all of them a player that the game calls null gets exactly 0 and takes part in no draw, and
 * players that the game calls twins get equal bits.
 *
 * A sampling estimator stops for one of two reasons: its largest standard error reached the wished
 * precision, or the next draws would pass the budget of evaluations. Draws are functions of (seed,
 * index), so a valuation can be repeated, resumed from the utility cache and audited. The standard
 * error here is that of sampling coalitions; how much values would move with other dialogues is the
 * bootstrap's business (bootstrap.h), and the two add as variances.
 */
#ifndef MEED_EVALUATION_ESTIMATOR_H
#define MEED_EVALUATION_ESTIMATOR_H

#include "base/arena.h"
#include "evaluation/game.h"

MEED_BEGIN_C

/* AUTO: exact up to MEED_ESTIMATOR_AUTO_EXACT players, else gradient. */
enum meed_value_method {
    MEED_VALUE_EXACT,
    MEED_VALUE_LEAVE_ONE_OUT,
    MEED_VALUE_PERMUTATION,
    MEED_VALUE_OWEN,
    MEED_VALUE_BANZHAF,
    MEED_VALUE_GRADIENT,
    MEED_VALUE_AUTO,
    MEED_VALUE_METHOD_COUNT
};
enum {
    MEED_ESTIMATOR_AUTO_EXACT = 10,
    MEED_ESTIMATOR_MAX_NODES = 32,
    MEED_ESTIMATOR_MAX_WATCHES = 16,
    MEED_ESTIMATOR_MIN_DRAWS = 8 /* before a standard error is believed */
};

enum meed_estimator_stop {
    MEED_STOP_COMPLETE,  /* nothing is sampled: exact, loo, gradient */
    MEED_STOP_PRECISION, /* every standard error is at most the wished one */
    MEED_STOP_BUDGET     /* the next draws would have passed the budget */
};

struct meed_estimator_options {
    enum meed_value_method method;
    uint64_t seed;
    double precision; /* largest wished standard error; 0: run to the budget */
    int64_t budget;   /* coalitions to ask for at most; 0: 64 draws */
    /* permutation: an order ends where the watched value is closer than this to that of all
     * players; who comes later is credited 0 for it, so a bias of at most truncation. 0: never. */
    double truncation;
    int32_t
        nodes; /* of gradient; 0: 4, exact for games of degree 8 in the mask along the diagonal */
    /* What errors are kept of: functions Σ_i watch[w, i]·u_i, linear in items. The first one is
     * what precision, truncation and residual refer to. NULL: one, the plain sum. */
    const double *watch; /* [watch_count, items] */
    int32_t watch_count;
};

struct meed_shapley;

struct meed_estimate {
    struct meed_arena arena;       /* owns all arrays but the table */
    enum meed_value_method method; /* never AUTO */
    enum meed_estimator_stop stop;
    int32_t players, items;
    double *phi;                /* [players, items] */
    double *se;                 /* [watch_count, players]: by sampling alone */
    double *empty, *full;       /* [items]: u(∅), u(N) */
    double residual;            /* Σφ − (v(N) − v(∅)) of the first watch */
    int64_t evaluations;        /* coalitions asked of the game */
    int64_t draws;              /* independent samples; 0 where nothing is sampled */
    struct meed_shapley *table; /* exact and loo up to 16 players: all they asked for; else NULL */
};

/* ARG for a method that this game or these options do not allow, NUMERIC for a utility that is not
 * finite: a failed score is never replaced by a default. */
MEED_MUST_CHECK enum meed_status meed_estimator_run(const struct meed_game *game,
                                                    const struct meed_estimator_options *options,
                                                    struct meed_estimate **estimate);
void meed_estimator_destroy(struct meed_estimate *estimate); /* accepts NULL */

/* "exact", "loo", "permutation", "owen", "banzhaf", "gradient", "auto". */
const char *meed_estimator_name(enum meed_value_method method);
/* What AUTO stands for. */
enum meed_value_method meed_estimator_method(enum meed_value_method method, int32_t players);
/* Coalitions that a run will ask for, at most; decides the evaluation path once. */
int32_t meed_estimator_coalitions(const struct meed_estimator_options *options, int32_t players);

/* Nodes that gradient uses; 0 for other methods. */
int32_t meed_estimator_nodes(const struct meed_estimator_options *options, int32_t players);

/* Nodes and weights of Gauss and Legendre on [0, 1], rising; count 1 … 32. */
void meed_estimator_legendre(int32_t count, double *nodes, double *weights);

MEED_END_C
#endif
