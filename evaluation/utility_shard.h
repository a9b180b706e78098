/* Utilities that many processes score for one valuation: files of one shared folder.
 *
 *   valuation.txt                      what is valued, one "name value" a line
 *   shard-I-of-N.<hash>.part           rows that shard I has scored; I is 1 … N
 *
 * Why not the SQLite cache: its write-ahead log needs memory shared by all writers, which a network
 * file system does not give. Here nobody writes what another one writes, and every file appears
 * whole (temporary file, fsync, rename) under the hash of its content, so a shard may be killed at
 * any time, started again, or run twice at once by a scheduler that lost sight of it.
 *
 * valuation.txt is written by the first process and compared by all others, byte for byte; the
 * first line that differs names what is not the same. A part repeats the context hash of
 * utility_cache.h, so one that was copied in from elsewhere is refused as well. A part, little
 * endian:
 *
 *   offset  bytes
 *        0      8  "MEEDPART"
 *        8      4  version, 1
 *       12      4  items
 *       16      4  rows, at least 1
 *       20      4  0
 *       24     32  context
 *       56    8·r  member masks
 *            8·r·i  utilities, fp64
 *               32  SHA-256 of all bytes before it
 *
 * Rows wait in memory for flush_ms or until they fill a few megabytes, so that a long shard leaves
 * hundreds of files and not tens of thousands; a kill loses what waits.
 */
#ifndef MEED_EVALUATION_UTILITY_SHARD_H
#define MEED_EVALUATION_UTILITY_SHARD_H

#include "base/hash.h"
#include "base/status.h"

MEED_BEGIN_C

enum { MEED_UTILITY_SHARD_MAX = 65536, MEED_UTILITY_SHARD_FLUSH_MS = 10000 };

struct meed_utility_shard_options {
    const char *folder; /* NULL: no shards */
    int32_t idx;        /* 1 … count; 0: merge, read the parts of all */
    int32_t count;      /* of shards; unused by a merge, which reads it in the folder */
    int64_t flush_ms;
};

struct meed_utility_shard;

/* identity: lines of valuation.txt but for the last, "shards N". Makes the folder (a merge does
 * not: NOT_FOUND). VERSION if the folder is another valuation's, naming the first difference. */
MEED_MUST_CHECK enum meed_status
meed_utility_shard_open(const struct meed_utility_shard_options *options, const char *identity,
                        const uint8_t context[MEED_SHA256_BYTES], int32_t items,
                        struct meed_utility_shard **shard);
void meed_utility_shard_close(struct meed_utility_shard *shard); /* accepts NULL; does not flush */
int32_t meed_utility_shard_count(const struct meed_utility_shard *shard);
bool meed_utility_shard_merges(const struct meed_utility_shard *shard);
/* True if the ordinal-th coalition of the valuation is this shard's to score. */
bool meed_utility_shard_owns(const struct meed_utility_shard *shard, int32_t ordinal);

typedef void (*meed_utility_shard_row_fn)(void *user, uint32_t members, const double *utilities);
/* Every row on disk, of this shard or, merging, of all. A damaged part of one's own is reported,
 * removed and scored again; in a merge it is INTEGRITY and names the shard to run again. */
MEED_MUST_CHECK enum meed_status meed_utility_shard_each(struct meed_utility_shard *shard,
                                                         meed_utility_shard_row_fn row, void *user);
/* members [count], utilities [count, items]; on disk at the latest after flush. */
MEED_MUST_CHECK enum meed_status meed_utility_shard_put(struct meed_utility_shard *shard,
                                                        const uint32_t *members, int32_t count,
                                                        const double *utilities);
MEED_MUST_CHECK enum meed_status meed_utility_shard_flush(struct meed_utility_shard *shard);

MEED_END_C
#endif
