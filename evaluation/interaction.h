/* What two players are worth together beyond what they are worth apart, from exact values.
 *
 *   interaction  I_ij = Σ_{S ⊆ N∖{i,j}} |S|!(n−|S|−2)!/(n−1)! · [v(S∪ij) − v(S∪i) − v(S∪j) + v(S)]
 *                (Owen 1972; Grabisch and Roubens 1999): above 0 the two help each other, below 0
 *                each does what the other does already
 *   overlap      v(i) + v(j) − v(ij) − v(∅): the same question asked of the pair alone, positive
 *                where two updates teach the same thing
 */
#ifndef MEED_EVALUATION_INTERACTION_H
#define MEED_EVALUATION_INTERACTION_H

#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

/* values [2^players], row = member mask; 2 to 16 players, first != second. */
double meed_interaction_index(const double *values, int32_t players, int32_t first, int32_t second);
double meed_interaction_overlap(const double *values, int32_t first, int32_t second);

MEED_END_C
#endif
