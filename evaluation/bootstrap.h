/* Standard errors of values: a seeded bootstrap over dialogues.
 *
 * A value φ is linear in item utilities with fixed coefficients, so one dialogue contributes a
 * fixed amount to it and a resample of dialogues reweights contributions: no coalition is scored
 * again. Dialogues are drawn with replacement inside strata (Efron and Tibshirani 1993, §8): a
 * stratum is the dialogues of one category that carry the same axes, so every resample keeps each
 * category and each axis populated and the coefficients stay fixed. All axes of a dialogue move
 * together. The plain bootstrap of a stratum of m dialogues shows only (m−1)/m of the variance, so
 * multiplicities are stretched about 1 by √(m/(m−1)) (Rao and Wu 1988).
 *
 * What it measures: how much values would move with other dialogues of the same kind. What it does
 * not: training noise, other seeds, other rounds. A stratum with a single dialogue shows no spread.
 */
#ifndef MEED_EVALUATION_BOOTSTRAP_H
#define MEED_EVALUATION_BOOTSTRAP_H

#include "evaluation/benchmark.h"

MEED_BEGIN_C

/* phi [players, items]; axis_se [players, axis_count] and paid_se [players] are written. `draws` 0
 * gives zeros; a player whose item values are all 0 gets exactly 0. */
MEED_MUST_CHECK enum meed_status meed_bootstrap_errors(const struct meed_benchmark *benchmark,
                                                       const double *phi, int32_t players,
                                                       int32_t draws, uint64_t seed,
                                                       double *axis_se, double *paid_se);

MEED_END_C
#endif
