/* See judge_cache.h. */
#include "evaluation/judge_cache.h"

#include <sqlite3.h>
#include <string.h>
#include "base/buf.h"
#include "base/hash.h"

enum { BUSY_MS = 10000, GROUP = 16 };

struct cache {
    struct meed_judge inner;
    sqlite3 *db;
    sqlite3_stmt *select;
    sqlite3_stmt *insert;
    char *identity;
    char *path;
    struct meed_arena arena;
};

static enum meed_status sqlite_failed(const struct cache *cache, const char *verb)
{
    int code = cache->db ? sqlite3_errcode(cache->db) & 0xFF : SQLITE_CANTOPEN;
    bool foreign = code == SQLITE_NOTADB || code == SQLITE_CORRUPT;
    return MEED_FAIL(foreign ? MEED_FORMAT : MEED_IO, "cannot %s the judgments kept in %s: %s%s",
                     verb, cache->path, cache->db ? sqlite3_errmsg(cache->db) : "no memory",
                     foreign ? "; name another file" : "");
}

/* --- keys and rows ---------------------------------------------------------------------------- */
static enum meed_status key_of(const struct cache *cache, const struct meed_judge_request *request,
                               uint8_t key[MEED_SHA256_BYTES])
{
    struct meed_sha256 *hash = NULL;
    const uint8_t pair = request->pair ? 1 : 0;
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, cache->identity, strlen(cache->identity) + 1);
    meed_sha256_update(hash, request->system, strlen(request->system) + 1);
    meed_sha256_update(hash, request->user, strlen(request->user) + 1);
    meed_sha256_update(hash, &pair, 1);
    meed_sha256_final(hash, key);
    return MEED_OK;
}

static enum meed_status checksum_of(const uint8_t key[MEED_SHA256_BYTES], const char *text,
                                    const double *mass, int spread,
                                    uint8_t checksum[MEED_SHA256_BYTES])
{
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, key, MEED_SHA256_BYTES);
    meed_sha256_update(hash, text, strlen(text) + 1);
    meed_sha256_update(hash, mass, MEED_JUDGE_MARKS * sizeof *mass);
    meed_sha256_update(hash, &spread, sizeof spread);
    meed_sha256_final(hash, checksum);
    return MEED_OK;
}

static enum meed_status row_read(struct cache *cache, const uint8_t key[MEED_SHA256_BYTES],
                                 struct meed_arena *arena, struct meed_judge_reply *reply,
                                 bool *found)
{
    sqlite3_stmt *row = cache->select;
    *found = false;
    sqlite3_reset(row);
    if (sqlite3_bind_blob(row, 1, key, MEED_SHA256_BYTES, SQLITE_STATIC) != SQLITE_OK) {
        return sqlite_failed(cache, "read");
    }
    int step = sqlite3_step(row);
    if (step == SQLITE_DONE) {
        return MEED_OK;
    }
    if (step != SQLITE_ROW) {
        return sqlite_failed(cache, "read");
    }
    const char *text = (const char *)sqlite3_column_text(row, 0);
    const size_t mass_bytes = sizeof reply->mass;
    if (!text || sqlite3_column_bytes(row, 1) != (int)mass_bytes ||
        sqlite3_column_bytes(row, 3) != MEED_SHA256_BYTES) {
        return MEED_OK;
    }
    struct meed_judge_reply read = {0};
    uint8_t checksum[MEED_SHA256_BYTES];
    int spread = sqlite3_column_int(row, 2);
    memcpy(read.mass, sqlite3_column_blob(row, 1), mass_bytes);
    MEED_TRY(checksum_of(key, text, read.mass, spread, checksum));
    if (memcmp(checksum, sqlite3_column_blob(row, 3), MEED_SHA256_BYTES) != 0) {
        return MEED_OK;
    }
    char *copy;
    MEED_TRY(meed_arena_strdup(arena, text, strlen(text), &copy));
    read.text = copy;
    read.spread = spread != 0;
    *reply = read;
    *found = true;
    return MEED_OK;
}

static enum meed_status row_write(struct cache *cache, const uint8_t key[MEED_SHA256_BYTES],
                                  const struct meed_judge_reply *reply)
{
    uint8_t checksum[MEED_SHA256_BYTES];
    sqlite3_stmt *row = cache->insert;
    MEED_TRY(checksum_of(key, reply->text, reply->mass, reply->spread, checksum));
    sqlite3_reset(row);
    bool bound =
        sqlite3_bind_blob(row, 1, key, MEED_SHA256_BYTES, SQLITE_STATIC) == SQLITE_OK &&
        sqlite3_bind_text(row, 2, reply->text, -1, SQLITE_STATIC) == SQLITE_OK &&
        sqlite3_bind_blob(row, 3, reply->mass, sizeof reply->mass, SQLITE_STATIC) == SQLITE_OK &&
        sqlite3_bind_int(row, 4, reply->spread) == SQLITE_OK &&
        sqlite3_bind_blob(row, 5, checksum, MEED_SHA256_BYTES, SQLITE_STATIC) == SQLITE_OK;
    return bound && sqlite3_step(row) == SQLITE_DONE ? MEED_OK : sqlite_failed(cache, "write");
}

/* --- asking ----------------------------------------------------------------------------------- */
/* Asks for the requests at `missing` and stores what came. */
static enum meed_status group_ask(struct cache *cache, const struct meed_judge_request *requests,
                                  const int32_t *missing, int32_t count, struct meed_arena *arena,
                                  struct meed_judge_reply *replies)
{
    struct meed_judge_request asked[GROUP];
    struct meed_judge_reply told[GROUP];
    for (int32_t i = 0; i < count; i++) {
        asked[i] = requests[missing[i]];
    }
    MEED_TRY(cache->inner.ask(cache->inner.user, asked, count, arena, told, NULL, NULL));
    if (sqlite3_exec(cache->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK) {
        return sqlite_failed(cache, "write");
    }
    for (int32_t i = 0; i < count; i++) {
        uint8_t key[MEED_SHA256_BYTES];
        enum meed_status st = key_of(cache, &asked[i], key);
        st = st == MEED_OK ? row_write(cache, key, &told[i]) : st;
        if (st != MEED_OK) {
            sqlite3_exec(cache->db, "ROLLBACK", NULL, NULL, NULL);
            return st;
        }
        replies[missing[i]] = told[i];
    }
    return sqlite3_exec(cache->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK
               ? MEED_OK
               : sqlite_failed(cache, "write");
}

static enum meed_status cache_ask(void *user, const struct meed_judge_request *requests,
                                  int32_t count, struct meed_arena *arena,
                                  struct meed_judge_reply *replies,
                                  void (*done)(void *done_user, int64_t done, int64_t total),
                                  void *done_user)
{
    struct cache *cache = user;
    int32_t missing[GROUP];
    int32_t waiting = 0;
    for (int32_t i = 0; i < count; i++) {
        uint8_t key[MEED_SHA256_BYTES];
        bool found;
        MEED_TRY(key_of(cache, &requests[i], key));
        MEED_TRY(row_read(cache, key, arena, &replies[i], &found));
        if (!found) {
            missing[waiting++] = i;
        }
        if (waiting == GROUP || (i == count - 1 && waiting > 0)) {
            sqlite3_reset(cache->select);
            MEED_TRY(group_ask(cache, requests, missing, waiting, arena, replies));
            waiting = 0;
        }
        if (done && waiting == 0) {
            done(done_user, i + 1, count);
        }
    }
    sqlite3_reset(cache->select);
    return MEED_OK;
}

static void cache_destroy(void *user)
{
    struct cache *cache = user;
    sqlite3_finalize(cache->select);
    sqlite3_finalize(cache->insert);
    sqlite3_close(cache->db);
    meed_judge_close(&cache->inner);
    meed_arena_clear(&cache->arena);
    meed_heap_free(cache);
}

/* --- opening ---------------------------------------------------------------------------------- */
static enum meed_status database_open(struct cache *cache)
{
    static const char schema[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        "CREATE TABLE IF NOT EXISTS judgment(key BLOB PRIMARY KEY, text TEXT NOT NULL,"
        " mass BLOB NOT NULL, spread INTEGER NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID";
    if (sqlite3_open(cache->path, &cache->db) != SQLITE_OK) {
        return sqlite_failed(cache, "open");
    }
    sqlite3_busy_timeout(cache->db, BUSY_MS);
    if (sqlite3_exec(cache->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(cache->db,
                           "SELECT text, mass, spread, checksum FROM judgment WHERE key=?1", -1,
                           &cache->select, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(cache->db, "INSERT OR REPLACE INTO judgment VALUES(?1,?2,?3,?4,?5)", -1,
                           &cache->insert, NULL) != SQLITE_OK) {
        return sqlite_failed(cache, "open");
    }
    return MEED_OK;
}

enum meed_status meed_judge_cache_open(const char *path, const char *identity,
                                       struct meed_judge *inner, struct meed_judge *judge)
{
    enum meed_status st = MEED_OK;
    struct cache *cache = meed_heap_alloc(1, sizeof *cache);
    if (!cache) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&cache->arena, "judgment cache", 1 << 20);
    MEED_TRY_OUT(meed_arena_strdup(&cache->arena, path, strlen(path), &cache->path));
    MEED_TRY_OUT(meed_arena_strdup(&cache->arena, identity, strlen(identity), &cache->identity));
    MEED_TRY_OUT(database_open(cache));
    cache->inner = *inner;
    memset(inner, 0, sizeof *inner);
    *judge = (struct meed_judge){
        .name = cache->inner.name, .user = cache, .ask = cache_ask, .destroy = cache_destroy};
    cache = NULL;
out:
    if (cache) {
        cache_destroy(cache);
    }
    return st;
}
