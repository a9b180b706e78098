/* See store.h. Statements are prepared where they are used: a handful a round, not a hot path. */
#include "server/store_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sqlite3.h>

enum { SCHEMA_VERSION = 1 };

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS progress(one INTEGER PRIMARY KEY CHECK(one = 1), round INTEGER"
    " NOT NULL, phase INTEGER NOT NULL, adapter BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS updates(round INTEGER, client TEXT, sha256 BLOB NOT NULL,"
    " bytes INTEGER, samples INTEGER, tokens INTEGER, loss REAL, seconds REAL, retained REAL,"
    " PRIMARY KEY(round, client)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS updates_by_hash ON updates(sha256);"
    "CREATE TABLE IF NOT EXISTS privacy(round INTEGER, client TEXT, line TEXT NOT NULL,"
    " PRIMARY KEY(round, client)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS stages(round INTEGER, stage TEXT, result BLOB NOT NULL,"
    " PRIMARY KEY(round, stage)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS traffic(round INTEGER, client TEXT, up INTEGER NOT NULL,"
    " down INTEGER NOT NULL, PRIMARY KEY(round, client)) WITHOUT ROWID;"
    "PRAGMA user_version = 1;";

static enum meed_status sql_failed(const struct meed_store *store, const char *what)
{
    switch (sqlite3_errcode(store->db) & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return MEED_FAIL(MEED_STATE,
                         "another aggregator holds %s; stop it or choose another state "
                         "folder",
                         store->folder);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return MEED_FAIL(MEED_INTEGRITY, "%s/state.db is damaged: %s", store->folder,
                         sqlite3_errmsg(store->db));
    case SQLITE_NOMEM:
        return MEED_FAIL(MEED_NOMEM, "no memory to %s", what);
    case SQLITE_CONSTRAINT:
        return MEED_FAIL(MEED_STATE, "cannot %s: it is there already", what);
    default:
        return MEED_FAIL(MEED_IO, "cannot %s in %s/state.db: %s", what, store->folder,
                         sqlite3_errmsg(store->db));
    }
}

/* ---- one statement --------------------------------------------------------------------------- */

/* Binds by type letter: i int32, l int64, d double, t text, h hash, b blob (pointer, size). */
static int bind_all(sqlite3_stmt *statement, const char *types, va_list args)
{
    int bad = SQLITE_OK;
    for (int at = 1; *types && bad == SQLITE_OK; types++, at++) {
        if (*types == 'i') {
            bad = sqlite3_bind_int(statement, at, va_arg(args, int));
        } else if (*types == 'l') {
            bad = sqlite3_bind_int64(statement, at, va_arg(args, int64_t));
        } else if (*types == 'd') {
            bad = sqlite3_bind_double(statement, at, va_arg(args, double));
        } else if (*types == 't') {
            bad = sqlite3_bind_text(statement, at, va_arg(args, const char *), -1, SQLITE_STATIC);
        } else if (*types == 'h') {
            bad = sqlite3_bind_blob(statement, at, va_arg(args, const uint8_t *), MEED_SHA256_BYTES,
                                    SQLITE_STATIC);
        } else {
            const void *bytes = va_arg(args, const void *);
            bad = sqlite3_bind_blob64(statement, at, bytes, va_arg(args, size_t), SQLITE_STATIC);
        }
    }
    return bad;
}

/* Locks the store and runs to the first row. *row tells whether there is one; the caller reads it
 * and must call end, also after a failure. */
struct query {
    struct meed_store *store;
    sqlite3_stmt *statement;
    const char *what;
};

static enum meed_status query_step(struct query *query, bool *row)
{
    int code = sqlite3_step(query->statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return sql_failed(query->store, query->what);
    }
    *row = code == SQLITE_ROW;
    return MEED_OK;
}

static enum meed_status query_begin(struct query *query, struct meed_store *store, const char *what,
                                    const char *sql, bool *row, const char *types, ...)
{
    *query = (struct query){store, NULL, what};
    pthread_mutex_lock(&store->lock);
    if (sqlite3_prepare_v2(store->db, sql, -1, &query->statement, NULL) != SQLITE_OK) {
        return sql_failed(store, what);
    }
    va_list args;
    va_start(args, types);
    int bad = bind_all(query->statement, types, args);
    va_end(args);
    return bad != SQLITE_OK ? sql_failed(store, what) : query_step(query, row);
}

static void query_end(struct query *query)
{
    sqlite3_finalize(query->statement);
    pthread_mutex_unlock(&query->store->lock);
}

static enum meed_status copy_hash(struct query *query, int column, uint8_t *hash)
{
    if (sqlite3_column_bytes(query->statement, column) != MEED_SHA256_BYTES) {
        return MEED_FAIL(MEED_INTEGRITY, "%s/state.db holds a hash of the wrong length",
                         query->store->folder);
    }
    memcpy(hash, sqlite3_column_blob(query->statement, column), MEED_SHA256_BYTES);
    return MEED_OK;
}

/* ---- open ------------------------------------------------------------------------------------ */

static enum meed_status run_script(struct meed_store *store, const char *sql)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? MEED_OK
               : sql_failed(store, "prepare the tables");
}

static enum meed_status check_version(struct meed_store *store)
{
    struct query query;
    bool row = false;
    int version = 0;
    enum meed_status st =
        query_begin(&query, store, "read the version", "PRAGMA user_version", &row, "");
    if (st == MEED_OK && row) {
        version = sqlite3_column_int(query.statement, 0);
    }
    query_end(&query);
    if (st == MEED_OK && version != 0 && version != SCHEMA_VERSION) {
        st = MEED_FAIL(MEED_VERSION,
                       "%s was written by another version of Meed (schema %d, here "
                       "%d)",
                       store->folder, version, SCHEMA_VERSION);
    }
    return st;
}

static enum meed_status open_database(struct meed_store *store)
{
    char path[MEED_PATH_BYTES];
    const char *home = store->copy[0] ? store->copy : store->folder;
    MEED_TRY(meed_file_join(home, "state.db", path, sizeof path));
    if (sqlite3_open_v2(path, &store->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
                        NULL) != SQLITE_OK) {
        return store->db ? sql_failed(store, "open")
                         : MEED_FAIL(MEED_NOMEM, "no memory for SQLite");
    }
    MEED_TRY(run_script(store, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                               "PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;"));
    MEED_TRY(check_version(store));
    return run_script(store, schema);
}

static enum meed_status create(const char *folder, struct meed_store **store)
{
    struct meed_store *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    pthread_mutex_init(&made->lock, NULL);
    atomic_init(&made->writable, true);
    if (snprintf(made->folder, sizeof made->folder, "%s", folder) >= (int)sizeof made->folder) {
        meed_store_close(made);
        return MEED_FAIL(MEED_LIMIT, "the state folder's path is too long: %.80s…", folder);
    }
    *store = made;
    return MEED_OK;
}

/* One file of the database and its log, as it lies there. */
static enum meed_status copy_one(const struct meed_store *store, const char *name, bool needed)
{
    char from[MEED_PATH_BYTES], to[MEED_PATH_BYTES];
    struct meed_file_map map = {NULL, 0};
    MEED_TRY(meed_file_join(store->folder, name, from, sizeof from));
    MEED_TRY(meed_file_join(store->copy, name, to, sizeof to));
    if (!meed_file_exists(from)) {
        return needed ? MEED_FAIL(MEED_NOT_FOUND, "%s holds no run: there is no state.db",
                                  store->folder)
                      : MEED_OK;
    }
    MEED_TRY(meed_file_map_open(from, &map));
    enum meed_status st = meed_file_write_atomic(to, map.bytes, map.size);
    meed_file_map_close(&map);
    return st;
}

enum meed_status meed_store_open_copy(const char *folder, struct meed_store **store)
{
    enum meed_status st = MEED_OK;
    struct meed_store *opened = NULL;
    MEED_TRY(create(folder, &opened));
    MEED_TRY_OUT(meed_store_check_free(opened));
    snprintf(opened->copy, sizeof opened->copy, "/tmp/meed-store-XXXXXX");
    if (!mkdtemp(opened->copy)) {
        st = MEED_FAIL(MEED_IO, "cannot make a folder for a copy of the state in /tmp");
        opened->copy[0] = '\0';
        goto out;
    }
    MEED_TRY_OUT(copy_one(opened, "state.db", true));
    MEED_TRY_OUT(copy_one(opened, "state.db-wal", false));
    MEED_TRY_OUT(open_database(opened));
    *store = opened;
    opened = NULL;
out:
    meed_store_close(opened);
    return st;
}

enum meed_status meed_store_open(const char *folder, meed_store_fault_fn fault,
                                 struct meed_store **store)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_store *opened = NULL;
    MEED_TRY(create(folder, &opened));
    opened->fault = fault;
    MEED_TRY_OUT(meed_file_join(folder, "blobs", path, sizeof path));
    MEED_TRY_OUT(meed_file_make_folder(path));
    MEED_TRY_OUT(meed_file_join(folder, "partial", path, sizeof path));
    MEED_TRY_OUT(meed_file_make_folder(path));
    MEED_TRY_OUT(open_database(opened));
    MEED_TRY_OUT(meed_file_sync_folder_of(path));
    *store = opened;
    opened = NULL;
out:
    meed_store_close(opened);
    return st;
}

void meed_store_close(struct meed_store *store)
{
    if (store) {
        sqlite3_close(store->db);
        meed_store_drop_copy(store);
        pthread_mutex_destroy(&store->lock);
        meed_heap_free(store);
    }
}

bool meed_store_writable(const struct meed_store *store)
{
    return atomic_load(&store->writable);
}

const char *meed_store_folder(const struct meed_store *store)
{
    return store->folder;
}

/* ---- meta and progress ----------------------------------------------------------------------- */

enum meed_status meed_store_get(struct meed_store *store, const char *key, struct meed_buf *value)
{
    struct query query;
    bool row = false;
    enum meed_status st = query_begin(&query, store, "read a setting",
                                      "SELECT value FROM meta WHERE key = ?", &row, "t", key);
    if (st == MEED_OK && !row) {
        st = MEED_FAIL(MEED_NOT_FOUND, "%s/state.db has no \"%s\"", store->folder, key);
    } else if (st == MEED_OK) {
        st = meed_buf_append(value, sqlite3_column_blob(query.statement, 0),
                             (size_t)sqlite3_column_bytes(query.statement, 0));
    }
    query_end(&query);
    return st;
}

enum meed_status meed_store_set(struct meed_store *store, const char *key, const void *value,
                                size_t size)
{
    struct query query;
    bool row = false;
    enum meed_status st =
        query_begin(&query, store, "write a setting", "INSERT OR REPLACE INTO meta VALUES(?, ?)",
                    &row, "tb", key, value, size);
    query_end(&query);
    return meed_store_note(store, st);
}

enum meed_status meed_store_probe(struct meed_store *store)
{
    return meed_store_set(store, "probe", "1", 1);
}

enum meed_status meed_store_load_progress(struct meed_store *store,
                                          struct meed_store_progress *progress)
{
    struct query query;
    bool row = false;
    struct meed_store_progress read = {.round = 0};
    enum meed_status st = query_begin(&query, store, "read the progress",
                                      "SELECT round, phase, adapter FROM progress", &row, "");
    if (st == MEED_OK && !row) {
        st = MEED_FAIL(MEED_NOT_FOUND, "%s holds no run yet", store->folder);
    } else if (st == MEED_OK) {
        read.round = sqlite3_column_int(query.statement, 0);
        read.phase = sqlite3_column_int(query.statement, 1);
        st = copy_hash(&query, 2, read.adapter_hash);
    }
    query_end(&query);
    if (st == MEED_OK) {
        *progress = read;
    }
    return st;
}

enum meed_status meed_store_save_progress(struct meed_store *store,
                                          const struct meed_store_progress *progress)
{
    meed_store_fault(store, "progress");
    struct query query;
    bool row = false;
    enum meed_status st = query_begin(
        &query, store, "write the progress", "INSERT OR REPLACE INTO progress VALUES(1, ?, ?, ?)",
        &row, "iih", progress->round, progress->phase, progress->adapter_hash);
    query_end(&query);
    meed_store_fault(store, "progress.written");
    return meed_store_note(store, st);
}

/* ---- updates --------------------------------------------------------------------------------- */

static enum meed_status add_privacy(struct meed_store *store, int32_t round,
                                    const struct meed_store_update *update)
{
    struct query query;
    bool row = false;
    enum meed_status st = query_begin(&query, store, "write an update's privacy line",
                                      "INSERT OR REPLACE INTO privacy VALUES(?, ?, ?)", &row, "itt",
                                      round, update->client, update->privacy);
    query_end(&query);
    return meed_store_note(store, st);
}

/* The line first: one without its update is replaced when the client sends again. */
enum meed_status meed_store_add_update(struct meed_store *store, int32_t round,
                                       const struct meed_store_update *update)
{
    struct query query;
    bool row = false;
    MEED_TRY(add_privacy(store, round, update));
    enum meed_status st = query_begin(
        &query, store, "accept the update", "INSERT INTO updates VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        &row, "ithlllddd", round, update->client, update->sha256, update->bytes,
        update->sample_count, update->token_count, update->train_loss, update->train_seconds,
        update->retained_energy);
    query_end(&query);
    meed_store_fault(store, "update.committed");
    return meed_store_note(store, st);
}

#define UPDATE_SELECT                                                                              \
    "SELECT client, sha256, bytes, samples, tokens, loss, seconds, retained, line FROM updates "   \
    "LEFT JOIN privacy USING (round, client) WHERE round = ?"

static enum meed_status read_update(struct query *query, struct meed_store_update *update)
{
    sqlite3_stmt *statement = query->statement;
    const unsigned char *client = sqlite3_column_text(statement, 0);
    snprintf(update->client, sizeof update->client, "%s", client ? (const char *)client : "");
    update->bytes = sqlite3_column_int64(statement, 2);
    update->sample_count = sqlite3_column_int64(statement, 3);
    update->token_count = sqlite3_column_int64(statement, 4);
    update->train_loss = sqlite3_column_double(statement, 5);
    update->train_seconds = sqlite3_column_double(statement, 6);
    update->retained_energy = sqlite3_column_double(statement, 7);
    const unsigned char *line = sqlite3_column_text(statement, 8);
    snprintf(update->privacy, sizeof update->privacy, "%s", line ? (const char *)line : "");
    return copy_hash(query, 1, update->sha256);
}

enum meed_status meed_store_find_update(struct meed_store *store, int32_t round, const char *client,
                                        struct meed_store_update *update)
{
    struct query query;
    bool row = false;
    struct meed_store_update read;
    enum meed_status st = query_begin(&query, store, "find an update",
                                      UPDATE_SELECT " AND client = ?", &row, "it", round, client);
    if (st == MEED_OK && !row) {
        st = MEED_FAIL(MEED_NOT_FOUND, "%s has no update in round %d", client, round);
    } else if (st == MEED_OK) {
        st = read_update(&query, &read);
    }
    query_end(&query);
    if (st == MEED_OK) {
        *update = read;
    }
    return st;
}

static enum meed_status count_updates(struct meed_store *store, int32_t round, int32_t *count)
{
    struct query query;
    bool row = false;
    enum meed_status st =
        query_begin(&query, store, "count the updates",
                    "SELECT count(*) FROM updates WHERE round = ?", &row, "i", round);
    *count = st == MEED_OK && row ? sqlite3_column_int(query.statement, 0) : 0;
    query_end(&query);
    return st;
}

enum meed_status meed_store_list_updates(struct meed_store *store, int32_t round,
                                         struct meed_arena *arena,
                                         struct meed_store_update **updates, int32_t *count)
{
    int32_t room = 0;
    void *block = NULL;
    MEED_TRY(count_updates(store, round, &room));
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)room, sizeof **updates, &block));
    struct meed_store_update *list = block;
    struct query query;
    bool row = false;
    int32_t read = 0;
    enum meed_status st = query_begin(&query, store, "list the updates",
                                      UPDATE_SELECT " ORDER BY client", &row, "i", round);
    while (st == MEED_OK && row && read < room) {
        st = read_update(&query, &list[read++]);
        if (st == MEED_OK) {
            st = query_step(&query, &row);
        }
    }
    query_end(&query);
    if (st == MEED_OK) {
        *updates = list;
        *count = read;
    }
    return st;
}

enum meed_status meed_store_seen_before(struct meed_store *store, int32_t round,
                                        const uint8_t sha256[MEED_SHA256_BYTES], bool *seen)
{
    struct query query;
    enum meed_status st = query_begin(&query, store, "look for a replay",
                                      "SELECT 1 FROM updates WHERE sha256 = ? AND round < ?", seen,
                                      "hi", sha256, round);
    query_end(&query);
    return st;
}

/* ---- stages and traffic ---------------------------------------------------------------------- */

enum meed_status meed_store_save_stage(struct meed_store *store, int32_t round, const char *stage,
                                       const void *result, size_t size)
{
    struct query query;
    bool row = false;
    enum meed_status st = query_begin(&query, store, "write a stage's result",
                                      "INSERT OR REPLACE INTO stages VALUES(?, ?, ?)", &row, "itb",
                                      round, stage, result, size);
    query_end(&query);
    return meed_store_note(store, st);
}

enum meed_status meed_store_load_stage(struct meed_store *store, int32_t round, const char *stage,
                                       struct meed_buf *result)
{
    struct query query;
    bool row = false;
    enum meed_status st = query_begin(&query, store, "read a stage's result",
                                      "SELECT result FROM stages WHERE round = ? AND stage = ?",
                                      &row, "it", round, stage);
    if (st == MEED_OK && !row) {
        st = MEED_FAIL(MEED_NOT_FOUND, "round %d has no result of stage %s", round, stage);
    } else if (st == MEED_OK) {
        st = meed_buf_append(result, sqlite3_column_blob(query.statement, 0),
                             (size_t)sqlite3_column_bytes(query.statement, 0));
    }
    query_end(&query);
    return st;
}

enum meed_status meed_store_add_traffic(struct meed_store *store, int32_t round, const char *client,
                                        int64_t bytes_up, int64_t bytes_down)
{
    struct query query;
    bool row = false;
    enum meed_status st =
        query_begin(&query, store, "count the traffic",
                    "INSERT INTO traffic VALUES(?1, ?2, ?3, ?4) ON CONFLICT(round, client) DO "
                    "UPDATE SET up = up + ?3, down = down + ?4",
                    &row, "itll", round, client, bytes_up, bytes_down);
    query_end(&query);
    return meed_store_note(store, st);
}

enum meed_status meed_store_traffic(struct meed_store *store, int32_t round, const char *client,
                                    int64_t *bytes_up, int64_t *bytes_down)
{
    struct query query;
    bool row = false;
    enum meed_status st = query_begin(&query, store, "read the traffic",
                                      "SELECT up, down FROM traffic WHERE round = ? AND client = ?",
                                      &row, "it", round, client);
    if (st == MEED_OK) {
        *bytes_up = row ? sqlite3_column_int64(query.statement, 0) : 0;
        *bytes_down = row ? sqlite3_column_int64(query.statement, 1) : 0;
    }
    query_end(&query);
    return st;
}
