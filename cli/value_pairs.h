/* Pairs of priced adapters: how alike their updates are, and what that does to their worth. */
#ifndef MEED_CLI_VALUE_PAIRS_H
#define MEED_CLI_VALUE_PAIRS_H

#include <jansson.h>
#include "evaluation/valuation.h"

struct meed_pool;

enum { MEED_VALUE_PAIRS_MAX = 64 /* clients; more have too many pairs to read */ };

struct meed_value_pair {
    int32_t first, second;
    double cosine; /* of ΔW, both less the global adapter; 0 if one is zero */
    bool valued;   /* exact values of at most 10 clients: the two below are known */
    double interaction, overlap;
};

struct meed_value_pairs {
    int32_t count;
    struct meed_value_pair *pairs; /* [count], (0,1), (0,2) …; heap */
};

/* No pairs beyond MEED_VALUE_PAIRS_MAX clients. global may be NULL. */
MEED_MUST_CHECK enum meed_status meed_value_pairs_make(const struct meed_valuation *valuation,
                                                       const struct meed_adapter *global,
                                                       const struct meed_adapter *const *adapters,
                                                       struct meed_pool *pool,
                                                       struct meed_value_pairs *pairs);
void meed_value_pairs_clear(struct meed_value_pairs *pairs);
/* The most telling rows to stdout; ids [players]. */
void meed_value_pairs_print(const struct meed_value_pairs *pairs, const char *const *ids);
json_t *meed_value_pairs_json(const struct meed_value_pairs *pairs, const char *const *ids);

#endif
