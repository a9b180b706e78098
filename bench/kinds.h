/* Exact values of more clients than can be enumerated: cohorts whose clients come in a few kinds.
 *
 * With `copies` clients of each kind, all of weight 1/n, a coalition is fully told by how many of
 * each kind are in it, and the model of counts c is that of one adapter a kind with its gate at
 * c/copies. So (copies + 1)^kinds utilities hold the whole game of n = kinds·copies clients, 2,197
 * in place of 2^36, and with them every smaller cohort whose copies divide these. Shapley's sum
 * over coalitions becomes one over counts, weighted by how many coalitions have them.
 *
 * What this is for: Aumann–Shapley values do not change when a client is split into equal parts
 * (its own axiom), Shapley values do, and approach them. How far apart the two still are at n
 * clients is what a gradient's error is made of, and can be measured here where it cannot be
 * enumerated. What it leaves out: cohorts whose clients all differ.
 */
#ifndef MEED_BENCH_KINDS_H
#define MEED_BENCH_KINDS_H

#include "evaluation/game.h"

enum { MEED_BENCH_KINDS_MAX = 4 };

struct meed_bench_kinds {
    int32_t kinds, copies;
    double *values; /* [(copies + 1)^kinds]: row Σ count_k·(copies + 1)^k; the caller frees it */
};

/* The table of a game of `kinds` players, weighted items summed: value = Σ coefficients[i]·u_i. */
MEED_MUST_CHECK enum meed_status meed_bench_kinds_score(const struct meed_game *game,
                                                        const double *coefficients, int32_t copies,
                                                        struct meed_bench_kinds *table);
/* phi [kinds]: Shapley value of one client of each kind where there are `copies` of each, a divisor
 * of the table's. */
void meed_bench_kinds_shapley(const struct meed_bench_kinds *table, int32_t copies, double *phi);
/* Largest error over all kinds·copies clients of the mean of `pairs` random orders and their
 * reverses, which do not know who is like whom; `truth` [kinds] as above, of the table's copies. */
MEED_MUST_CHECK enum meed_status meed_bench_kinds_orders(const struct meed_bench_kinds *table,
                                                         const double *truth, int32_t pairs,
                                                         uint64_t seed, double *error);

#endif
