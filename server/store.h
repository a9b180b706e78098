/* The state folder: what the aggregator has been told and has promised, safe against kill -9.
 *
 *   state.db               SQLite, WAL, synchronous=FULL, held exclusively by one process
 *     meta(key, value)                       run id, config hash
 *     progress(one row)                      round, phase, present adapter
 *     updates(round, client, sha256, …)      the accepted updates, one a client and round
 *     privacy(round, client, line)           what left the client, as receipts tell it; not there
 *                                            in folders of earlier releases
 *     stages(round, stage, result)           what screening, valuation … found
 *     traffic(round, client, up, down)       message bytes, for reports
 *   blobs/<2 hex>/<hex>    adapters and updates, named by SHA-256; temp, fsync, rename
 *   partial/<client>-<hex> an upload under way, resumable at its size
 *
 * Everything acknowledged is on disk: an update's bytes are renamed into blobs/ (and that folder is
 * synced) before its row is committed, and only after the commit is the client answered. A crash
 * between the two leaves a blob that nobody refers to and a client that sends again. Stage results
 * are opaque here: they can always be computed again, so a result of another version is worth as
 * much as none.
 *
 * A call that cannot write (disk full, read-only) fails with MEED_IO and leaves the old state; the
 * store keeps working and says so through meed_store_writable until a write succeeds again.
 * All functions are safe from several threads; a partial belongs to one thread at a time.
 */
#ifndef MEED_SERVER_STORE_H
#define MEED_SERVER_STORE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "proto/limits.h"

MEED_BEGIN_C

struct meed_store;

/* Tests kill the process at named points; NULL in the product. */
typedef void (*meed_store_fault_fn)(const char *point);

/* Makes the folder if need be. STATE if another process holds it, VERSION for another schema. */
MEED_MUST_CHECK enum meed_status meed_store_open(const char *folder, meed_store_fault_fn fault,
                                                 struct meed_store **store);
/* For who only reads: a copy of the database in a temporary folder, the folder's own blobs; nothing
 * in the folder is made or changed, and storing anything is a bug. STATE while a process holds it,
 * NOT_FOUND where there is none. */
MEED_MUST_CHECK enum meed_status meed_store_open_copy(const char *folder,
                                                      struct meed_store **store);
void meed_store_close(struct meed_store *store); /* accepts NULL */
/* False from a failed write to the next good one. */
bool meed_store_writable(const struct meed_store *store);
/* Tries a small write; how a server finds out that the disk has room again. */
MEED_MUST_CHECK enum meed_status meed_store_probe(struct meed_store *store);
const char *meed_store_folder(const struct meed_store *store);

/* ---- meta and progress ----------------------------------------------------------------------- */

/* Keys: where the run's inputs were, and on what kind of machine it is valued. Hints to who
 * verifies, checked by hash. */
#define MEED_STORE_MODEL "model"
#define MEED_STORE_BENCHMARK "benchmark"
#define MEED_STORE_DATA "operator data"
#define MEED_STORE_MACHINE "machine"

/* Appends the value; NOT_FOUND if there is none. */
MEED_MUST_CHECK enum meed_status meed_store_get(struct meed_store *store, const char *key,
                                                struct meed_buf *value);
MEED_MUST_CHECK enum meed_status meed_store_set(struct meed_store *store, const char *key,
                                                const void *value, size_t size);

struct meed_store_progress {
    int32_t round;
    int32_t phase;                           /* enum meed_round_phase */
    uint8_t adapter_hash[MEED_SHA256_BYTES]; /* the round's base */
};
/* NOT_FOUND in a fresh folder. */
MEED_MUST_CHECK enum meed_status meed_store_load_progress(struct meed_store *store,
                                                          struct meed_store_progress *progress);
MEED_MUST_CHECK enum meed_status
meed_store_save_progress(struct meed_store *store, const struct meed_store_progress *progress);

/* ---- updates --------------------------------------------------------------------------------- */

struct meed_store_update {
    char client[MEED_LIMIT_ID_BYTES];
    uint8_t sha256[MEED_SHA256_BYTES];
    int64_t bytes;
    int64_t sample_count; /* self-reported, like the rest */
    int64_t token_count;
    double train_loss;
    double train_seconds;
    double retained_energy;
    char privacy[MEED_LIMIT_PRIVACY_BYTES]; /* "" where an earlier release took the update */
};
/* The row; its blob must be there. STATE if the client has one for this round. */
MEED_MUST_CHECK enum meed_status meed_store_add_update(struct meed_store *store, int32_t round,
                                                       const struct meed_store_update *update);
/* NOT_FOUND if the client has none. */
MEED_MUST_CHECK enum meed_status meed_store_find_update(struct meed_store *store, int32_t round,
                                                        const char *client,
                                                        struct meed_store_update *update);
/* Sorted by client id. */
MEED_MUST_CHECK enum meed_status meed_store_list_updates(struct meed_store *store, int32_t round,
                                                         struct meed_arena *arena,
                                                         struct meed_store_update **updates,
                                                         int32_t *count);
/* True if these bytes were accepted before this round, by anyone. */
MEED_MUST_CHECK enum meed_status meed_store_seen_before(struct meed_store *store, int32_t round,
                                                        const uint8_t sha256[MEED_SHA256_BYTES],
                                                        bool *seen);

/* ---- stages and traffic ---------------------------------------------------------------------- */

MEED_MUST_CHECK enum meed_status meed_store_save_stage(struct meed_store *store, int32_t round,
                                                       const char *stage, const void *result,
                                                       size_t size);
MEED_MUST_CHECK enum meed_status meed_store_load_stage(struct meed_store *store, int32_t round,
                                                       const char *stage, struct meed_buf *result);
/* Adds to the counts. */
MEED_MUST_CHECK enum meed_status meed_store_add_traffic(struct meed_store *store, int32_t round,
                                                        const char *client, int64_t bytes_up,
                                                        int64_t bytes_down);
MEED_MUST_CHECK enum meed_status meed_store_traffic(struct meed_store *store, int32_t round,
                                                    const char *client, int64_t *bytes_up,
                                                    int64_t *bytes_down);

/* ---- blobs ----------------------------------------------------------------------------------- */

MEED_MUST_CHECK enum meed_status meed_store_put_blob(struct meed_store *store, const void *bytes,
                                                     size_t size,
                                                     uint8_t sha256[MEED_SHA256_BYTES]);
void meed_store_blob_path(const struct meed_store *store, const uint8_t sha256[MEED_SHA256_BYTES],
                          char path[MEED_PATH_BYTES]);
/* Read-only map, checked against its name: INTEGRITY if the disk changed it. */
MEED_MUST_CHECK enum meed_status meed_store_map_blob(const struct meed_store *store,
                                                     const uint8_t sha256[MEED_SHA256_BYTES],
                                                     struct meed_file_map *map);

/* ---- partial uploads ------------------------------------------------------------------------- */

struct meed_store_partial; /* an open partial file */

/* Opens or makes it; other partials of this client are dropped. *size is what is there. */
MEED_MUST_CHECK enum meed_status meed_store_partial_open(struct meed_store *store,
                                                         const char *client,
                                                         const uint8_t sha256[MEED_SHA256_BYTES],
                                                         struct meed_store_partial **partial,
                                                         int64_t *size);
/* Closes the file and keeps it; accepts NULL. */
void meed_store_partial_close(struct meed_store_partial *partial);
MEED_MUST_CHECK enum meed_status meed_store_partial_read(struct meed_store_partial *partial,
                                                         int64_t offset, void *bytes, size_t size);
MEED_MUST_CHECK enum meed_status meed_store_partial_append(struct meed_store_partial *partial,
                                                           const void *bytes, size_t size);
/* Cuts the file to its first `size` bytes. */
MEED_MUST_CHECK enum meed_status meed_store_partial_truncate(struct meed_store_partial *partial,
                                                             int64_t size);
/* Syncs and renames it into blobs/ under its name; the caller has checked the hash. */
MEED_MUST_CHECK enum meed_status meed_store_partial_adopt(struct meed_store_partial *partial);
/* Size of a partial that would survive a power cut; 0 if there is none. */
MEED_MUST_CHECK enum meed_status meed_store_partial_durable(struct meed_store *store,
                                                            const char *client,
                                                            const uint8_t sha256[MEED_SHA256_BYTES],
                                                            int64_t *size);

MEED_END_C
#endif
