/* See utility_cache.h. The only file of evaluation/ that includes SQLite.
 *
 * synchronous = NORMAL: under WAL a crash of the process loses nothing that was committed, and a
 * power cut may lose the last transactions but never the file. That is the right price for values
 * that can be computed again; the ledger, which cannot, syncs fully (server/).
 */
#include "evaluation/utility_cache.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/log.h"

enum { CACHE_VERSION = 1, BUSY_MS = 10000 };

struct meed_utility_cache {
    sqlite3 *db;
    sqlite3_stmt *select;
    sqlite3_stmt *insert;
    sqlite3_stmt *drop;
    int32_t items;
    uint8_t context[MEED_SHA256_BYTES];
    char path[1024];
};

static enum meed_status sqlite_failed(const struct meed_utility_cache *cache, const char *verb)
{
    int code = cache->db ? sqlite3_errcode(cache->db) & 0xFF : SQLITE_CANTOPEN;
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s is not a usable utility cache (%s); delete it, its values will be "
                         "computed again",
                         cache->path, sqlite3_errmsg(cache->db));
    }
    return MEED_FAIL(code == SQLITE_NOMEM ? MEED_NOMEM : MEED_IO,
                     "cannot %s the utility cache %s: %s", verb, cache->path,
                     cache->db ? sqlite3_errmsg(cache->db) : "no memory");
}

static enum meed_status run(const struct meed_utility_cache *cache, const char *sql,
                            const char *verb)
{
    return sqlite3_exec(cache->db, sql, NULL, NULL, NULL) == SQLITE_OK ? MEED_OK
                                                                       : sqlite_failed(cache, verb);
}

static enum meed_status version_check(const struct meed_utility_cache *cache)
{
    sqlite3_stmt *statement = NULL;
    int version = -1;
    if (sqlite3_prepare_v2(cache->db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        version = sqlite3_column_int(statement, 0);
    }
    sqlite3_finalize(statement);
    if (version < 0) {
        return sqlite_failed(cache, "read");
    }
    if (version > CACHE_VERSION) {
        return MEED_FAIL(MEED_VERSION,
                         "%s was written by a later release; delete it or use another",
                         cache->path);
    }
    return MEED_OK;
}

static enum meed_status schema_make(const struct meed_utility_cache *cache)
{
    MEED_TRY(run(cache, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", "open"));
    MEED_TRY(version_check(cache));
    return run(cache,
               "CREATE TABLE IF NOT EXISTS utility(context BLOB NOT NULL, members INTEGER NOT NULL,"
               " utilities BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY(context, members))"
               " WITHOUT ROWID; PRAGMA user_version=1",
               "create");
}

static enum meed_status prepare(const struct meed_utility_cache *cache, const char *sql,
                                sqlite3_stmt **statement)
{
    return sqlite3_prepare_v2(cache->db, sql, -1, statement, NULL) == SQLITE_OK
               ? MEED_OK
               : sqlite_failed(cache, "prepare");
}

enum meed_status meed_utility_cache_open(const char *path, const uint8_t context[MEED_SHA256_BYTES],
                                         int32_t items, struct meed_utility_cache **cache)
{
    enum meed_status st = MEED_OK;
    struct meed_utility_cache *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->items = items;
    memcpy(made->context, context, sizeof made->context);
    snprintf(made->path, sizeof made->path, "%s", path);
    if (sqlite3_open(path, &made->db) != SQLITE_OK) {
        st = sqlite_failed(made, "open");
        goto out;
    }
    sqlite3_busy_timeout(made->db, BUSY_MS);
    MEED_TRY_OUT(schema_make(made));
    MEED_TRY_OUT(prepare(made,
                         "SELECT utilities, checksum FROM utility WHERE context=?1 AND members=?2",
                         &made->select));
    MEED_TRY_OUT(
        prepare(made, "INSERT OR REPLACE INTO utility VALUES(?1, ?2, ?3, ?4)", &made->insert));
    MEED_TRY_OUT(prepare(made, "DELETE FROM utility WHERE context=?1 AND members=?2", &made->drop));
    *cache = made;
    made = NULL;
out:
    meed_utility_cache_close(made);
    return st;
}

void meed_utility_cache_close(struct meed_utility_cache *cache)
{
    if (cache) {
        sqlite3_finalize(cache->select);
        sqlite3_finalize(cache->insert);
        sqlite3_finalize(cache->drop);
        sqlite3_close(cache->db);
        meed_heap_free(cache);
    }
}

static enum meed_status checksum_of(const struct meed_utility_cache *cache,
                                    const struct meed_utility_key *key, const double *utilities,
                                    uint8_t digest[MEED_SHA256_BYTES])
{
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, cache->context, sizeof cache->context);
    meed_sha256_update(hash, key->hashed ? (const void *)key->hash : &key->mask,
                       key->hashed ? sizeof key->hash : sizeof key->mask);
    meed_sha256_update(hash, utilities, (size_t)cache->items * sizeof *utilities);
    meed_sha256_final(hash, digest);
    return MEED_OK;
}

static bool key_bind(const struct meed_utility_cache *cache, sqlite3_stmt *statement,
                     const struct meed_utility_key *key)
{
    int code = key->hashed
                   ? sqlite3_bind_blob(statement, 2, key->hash, sizeof key->hash, SQLITE_STATIC)
                   : sqlite3_bind_int64(statement, 2, key->mask);
    return code == SQLITE_OK &&
           sqlite3_bind_blob(statement, 1, cache->context, sizeof cache->context, SQLITE_STATIC) ==
               SQLITE_OK;
}

/* Copies the selected row out and says whether it is what was written. */
static enum meed_status row_read(struct meed_utility_cache *cache,
                                 const struct meed_utility_key *key, double *utilities,
                                 bool *intact)
{
    int bytes = (int)((size_t)cache->items * sizeof *utilities);
    uint8_t digest[MEED_SHA256_BYTES];
    *intact = false;
    if (sqlite3_column_bytes(cache->select, 0) != bytes ||
        sqlite3_column_bytes(cache->select, 1) != MEED_SHA256_BYTES) {
        return MEED_OK;
    }
    double *copy = meed_heap_alloc((size_t)cache->items, sizeof *copy);
    if (!copy) {
        return MEED_NOMEM;
    }
    memcpy(copy, sqlite3_column_blob(cache->select, 0), (size_t)bytes);
    enum meed_status st = checksum_of(cache, key, copy, digest);
    if (st == MEED_OK) {
        *intact = memcmp(digest, sqlite3_column_blob(cache->select, 1), sizeof digest) == 0;
    }
    if (*intact) {
        memcpy(utilities, copy, (size_t)bytes);
    }
    meed_heap_free(copy);
    return st;
}

enum meed_status meed_utility_cache_get(struct meed_utility_cache *cache,
                                        const struct meed_utility_key *key, double *utilities,
                                        bool *found)
{
    enum meed_status st = MEED_OK;
    bool intact = false;
    sqlite3_reset(cache->select);
    int code = key_bind(cache, cache->select, key) ? sqlite3_step(cache->select) : SQLITE_ERROR;
    if (code == SQLITE_ROW) {
        st = row_read(cache, key, utilities, &intact);
    } else if (code != SQLITE_DONE) {
        st = sqlite_failed(cache, "read");
    }
    sqlite3_reset(cache->select);
    if (st == MEED_OK && code == SQLITE_ROW && !intact) {
        MEED_LOG_WARN("evaluation",
                      "a cached utility fails its checksum and is computed again "
                      "(members=0x%x)",
                      key->hashed ? 0 : key->mask);
        bool dropped =
            key_bind(cache, cache->drop, key) && sqlite3_step(cache->drop) == SQLITE_DONE;
        sqlite3_reset(cache->drop);
        st = dropped ? MEED_OK : sqlite_failed(cache, "repair");
    }
    if (st == MEED_OK) {
        *found = intact;
    }
    return st;
}

static enum meed_status row_write(struct meed_utility_cache *cache,
                                  const struct meed_utility_key *key, const double *utilities)
{
    uint8_t digest[MEED_SHA256_BYTES];
    MEED_TRY(checksum_of(cache, key, utilities, digest));
    sqlite3_stmt *insert = cache->insert;
    int bytes = (int)((size_t)cache->items * sizeof *utilities);
    bool written =
        key_bind(cache, insert, key) &&
        sqlite3_bind_blob(insert, 3, utilities, bytes, SQLITE_STATIC) == SQLITE_OK &&
        sqlite3_bind_blob(insert, 4, digest, sizeof digest, SQLITE_STATIC) == SQLITE_OK &&
        sqlite3_step(insert) == SQLITE_DONE;
    enum meed_status st = written ? MEED_OK : sqlite_failed(cache, "write");
    sqlite3_reset(insert);
    sqlite3_clear_bindings(insert);
    return st;
}

enum meed_status meed_utility_cache_put(struct meed_utility_cache *cache,
                                        const struct meed_utility_key *keys, int32_t count,
                                        const double *utilities)
{
    enum meed_status st = MEED_OK;
    MEED_TRY(run(cache, "BEGIN IMMEDIATE", "write"));
    for (int32_t i = 0; i < count && st == MEED_OK; i++) {
        st = row_write(cache, &keys[i], utilities + (int64_t)i * cache->items);
    }
    if (st == MEED_OK) {
        st = run(cache, "COMMIT", "write");
    }
    if (st != MEED_OK) {
        sqlite3_exec(cache->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return st;
}
