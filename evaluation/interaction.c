/* See interaction.h. Coalitions are summed by size first, so that each weight multiplies once. */
#include "evaluation/interaction.h"

#include "base/status.h"

enum { MAX_PLAYERS = 16 };

double meed_interaction_index(const double *values, int32_t players, int32_t first, int32_t second)
{
    MEED_ASSERT(players >= 2 && players <= MAX_PLAYERS && first != second);
    double by_size[MAX_PLAYERS] = {0};
    uint32_t i = 1u << first, j = 1u << second;
    for (uint32_t mask = 0; mask < 1u << players; mask++) {
        if (!(mask & (i | j))) {
            by_size[__builtin_popcount(mask)] +=
                values[mask | i | j] - (values[mask | i] + values[mask | j]) + values[mask];
        }
    }
    double index = 0;
    double binomial = 1; /* C(n − 2, s); the weight is 1/((n − 1)·C(n − 2, s)) */
    for (int32_t s = 0; s <= players - 2; s++) {
        index += by_size[s] / ((players - 1) * binomial);
        binomial = binomial * (players - 2 - s) / (s + 1);
    }
    return index;
}

double meed_interaction_overlap(const double *values, int32_t first, int32_t second)
{
    uint32_t i = 1u << first, j = 1u << second;
    return values[i] + values[j] - values[i | j] - values[0];
}
