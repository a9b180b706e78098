/* Utilities on disk: what a stopped valuation has already computed.
 *
 * One SQLite file, one row a coalition:
 *
 *   utility(context BLOB 32, members INTEGER, utilities BLOB, checksum BLOB 32)
 *   key (context, members)
 *
 * `context` is the SHA-256 of everything that a utility depends on but its members: model,
 * benchmark, adapters, weights, path, dtype, base format, instruction set, release. So a file may
 * serve many rounds, a changed input finds nothing, and nothing is ever stale. `members` is the
 * canonical member mask of a set of up to 16 players; for more players, or members that are
 * fractions, it is a BLOB instead: the SHA-256 of the canonical member vector. `utilities` are fp64
 * in item order; `checksum` is the SHA-256 of context, members and utilities: a row that fails it
 * is dropped, reported and computed again, never used.
 *
 * Rows are written in one transaction per batch under WAL, so kill −9 loses at most the batch that
 * was running, and several processes may share a file.
 */
#ifndef MEED_EVALUATION_UTILITY_CACHE_H
#define MEED_EVALUATION_UTILITY_CACHE_H

#include "base/hash.h"
#include "base/status.h"

MEED_BEGIN_C

struct meed_utility_cache;

/* Which coalition of the context. */
struct meed_utility_key {
    bool hashed; /* false: mask */
    uint32_t mask;
    uint8_t hash[MEED_SHA256_BYTES];
};

/* Opens or creates the file for one context and vectors of `items` utilities. FORMAT if the file is
 * not a cache, VERSION if it is a later one's. */
MEED_MUST_CHECK enum meed_status meed_utility_cache_open(const char *path,
                                                         const uint8_t context[MEED_SHA256_BYTES],
                                                         int32_t items,
                                                         struct meed_utility_cache **cache);
void meed_utility_cache_close(struct meed_utility_cache *cache); /* accepts NULL */
/* *found is false if the row is absent or was corrupt (and is now gone); utilities [items]. */
MEED_MUST_CHECK enum meed_status meed_utility_cache_get(struct meed_utility_cache *cache,
                                                        const struct meed_utility_key *key,
                                                        double *utilities, bool *found);
/* One transaction for count rows: keys [count], utilities [count, items]. */
MEED_MUST_CHECK enum meed_status meed_utility_cache_put(struct meed_utility_cache *cache,
                                                        const struct meed_utility_key *keys,
                                                        int32_t count, const double *utilities);

MEED_END_C
#endif
