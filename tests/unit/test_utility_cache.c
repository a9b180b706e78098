/* Utility cache: what was put comes back, contexts stay apart, corruption is seen, kill −9 loses at
 * most the open transaction, and files that are no cache are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "evaluation/utility_cache.h"

enum { ITEMS = 5 };
static char folder[] = "/tmp/meed-cache-XXXXXX";
static char path[64];
static uint8_t context[MEED_SHA256_BYTES] = {1};

static int folder_make(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/cache.db", folder);
    return 0;
}

static int files_remove(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
    return 0;
}

static int folder_remove(void **state)
{
    files_remove(state);
    return rmdir(folder);
}

static void row_make(uint32_t members, double *row)
{
    for (int i = 0; i < ITEMS; i++) {
        row[i] = -1.0 / (members + 3.0) * (i + 1);
    }
}

/* Masks below 2^16, else a hash made of the number. */
static struct meed_utility_key key_of(uint32_t members)
{
    struct meed_utility_key key = {.hashed = members >> 16 != 0, .mask = members};
    if (key.hashed) {
        memcpy(key.hash, &members, sizeof members);
    }
    return key;
}

static bool row_found(struct meed_utility_cache *cache, uint32_t members)
{
    double row[ITEMS];
    double expected[ITEMS];
    bool found = false;
    row_make(members, expected);
    struct meed_utility_key key = key_of(members);
    assert_int_equal(meed_utility_cache_get(cache, &key, row, &found), MEED_OK);
    if (found) {
        assert_memory_equal(row, expected, sizeof row);
    }
    return found;
}

static struct meed_utility_cache *cache_open(const uint8_t *of)
{
    struct meed_utility_cache *cache = NULL;
    assert_int_equal(meed_utility_cache_open(path, of, ITEMS, &cache), MEED_OK);
    return cache;
}

static void rows_put(struct meed_utility_cache *cache, uint32_t first, int32_t count)
{
    struct meed_utility_key keys[64];
    double rows[64 * ITEMS];
    for (int32_t i = 0; i < count; i++) {
        keys[i] = key_of(first + (uint32_t)i);
        row_make(first + (uint32_t)i, rows + i * ITEMS);
    }
    assert_int_equal(meed_utility_cache_put(cache, keys, count, rows), MEED_OK);
}

static void utility_cache_returns_what_was_put(void **state)
{
    /* Goal: bits come back after reopening, absent rows are absent, other contexts see nothing. */
    (void)state;
    struct meed_utility_cache *cache = cache_open(context);
    rows_put(cache, 0, 32);
    meed_utility_cache_close(cache);
    cache = cache_open(context);
    for (uint32_t members = 0; members < 40; members++) {
        assert_true(row_found(cache, members) == (members < 32));
    }
    rows_put(cache, 1u << 20, 3); /* hashed keys beside masks */
    assert_true(row_found(cache, (1u << 20) + 2) && !row_found(cache, (1u << 20) + 3));
    meed_utility_cache_close(cache);
    static const uint8_t other[MEED_SHA256_BYTES] = {2};
    cache = cache_open(other);
    assert_false(row_found(cache, 0));
    meed_utility_cache_close(cache);
}

static void utility_cache_drops_a_corrupt_row(void **state)
{
    /* Goal: one bit of a stored utility flips on disk; the row is reported absent, is gone, and can
     * be written again; so is a row of the wrong length. */
    (void)state;
    struct meed_utility_cache *cache = cache_open(context);
    rows_put(cache, 0, 4);
    meed_utility_cache_close(cache);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE utility SET utilities=x'01'||substr(utilities,2) WHERE "
                                  "members=2; UPDATE utility SET utilities=x'00' WHERE members=3",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    cache = cache_open(context);
    assert_true(row_found(cache, 1));
    assert_false(row_found(cache, 2));
    assert_false(row_found(cache, 3));
    rows_put(cache, 2, 2);
    assert_true(row_found(cache, 2) && row_found(cache, 3));
    meed_utility_cache_close(cache);
}

static void utility_cache_survives_a_killed_process(void **state)
{
    /* Goal: a child writes two batches and dies without closing; both are there afterwards. */
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct meed_utility_cache *cache = NULL;
        if (meed_utility_cache_open(path, context, ITEMS, &cache) == MEED_OK) {
            rows_put(cache, 0, 8);
            rows_put(cache, 8, 8);
        }
        _exit(0);
    }
    int status = 0;
    assert_true(waitpid(child, &status, 0) == child && WIFEXITED(status));
    struct meed_utility_cache *cache = cache_open(context);
    for (uint32_t members = 0; members < 16; members++) {
        assert_true(row_found(cache, members));
    }
    meed_utility_cache_close(cache);
}

static void utility_cache_refuses_other_files(void **state)
{
    /* Goal: text is FORMAT with the way out, a later version VERSION, a missing folder IO. */
    (void)state;
    struct meed_utility_cache *cache = NULL;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 2000; i++) {
        fputs("this is not a database ", file);
    }
    fclose(file);
    assert_int_equal(meed_utility_cache_open(path, context, ITEMS, &cache), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "delete it"));
    files_remove(state);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=9", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(meed_utility_cache_open(path, context, ITEMS, &cache), MEED_VERSION);
    assert_int_equal(meed_utility_cache_open("/nonexistent/x/cache.db", context, ITEMS, &cache),
                     MEED_IO);
    assert_null(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(utility_cache_returns_what_was_put, files_remove),
        cmocka_unit_test_teardown(utility_cache_drops_a_corrupt_row, files_remove),
        cmocka_unit_test_teardown(utility_cache_survives_a_killed_process, files_remove),
        cmocka_unit_test_teardown(utility_cache_refuses_other_files, files_remove),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
