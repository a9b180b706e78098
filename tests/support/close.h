/* Are two arrays of numbers close enough? If not, say where and by how much.
 *
 * The measure is the normalised mean squared error, Σ(got − want)² / Σ want²: one number for a
 * whole tensor, insensitive to single elements near zero, and steep enough that a wrong index or a
 * missed term stands out by ten orders of magnitude. bf16 results are judged against the ideal: the
 * same reference rounded once. A failing comparison prints the worst element, got, want and the
 * NMSE.
 */
#ifndef MEED_SUPPORT_CLOSE_H
#define MEED_SUPPORT_CLOSE_H

#include <stdint.h>

/* NMSE; 0 for count 0. A NaN or infinity in got gives infinity. */
double close_nmse(const double *got, const double *want, int64_t count);
/* Fails the running test unless NMSE ≤ nmse_max. */
void close_check(const char *what, const double *got, const double *want, int64_t count,
                 double nmse_max);
/* Fails unless the root mean square error is ≤ factor times that of want rounded to bf16. */
void close_check_bf16(const char *what, const double *got, const double *want, int64_t count,
                      double factor);
/* NMSE that sums of `terms` fp32 products may reach: each of the chain's roundings adds
 * (2^-24)²/3 of the partial sum's square, whose mean over the chain is half the final one. */
double close_f32_sum(int64_t terms);
/* Comparisons made so far by this program. */
int64_t close_count(void);

#endif
