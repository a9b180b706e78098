/* The state folder: reads back, refuses doubles, survives kill -9 at its named points, full disks.
 *
 * Goal: what a call returned OK for is there after the process is gone; what was not is either
 * whole or absent. Method: a forked child writes and kills itself at a point; the parent opens the
 * folder and looks. A full disk is played by RLIMIT_FSIZE.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "server/store.h"

static char folder[64];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/meed_store_XXXXXX");
    assert_non_null(mkdtemp(folder));
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct meed_store *open_store(void)
{
    struct meed_store *store = NULL;
    assert_int_equal(meed_store_open(folder, NULL, &store), MEED_OK);
    return store;
}

static struct meed_store_update update_of(const char *client, uint8_t first)
{
    struct meed_store_update update = {.bytes = 10, .train_loss = 1.5, .sample_count = 3};
    snprintf(update.client, sizeof update.client, "%s", client);
    update.sha256[0] = first;
    return update;
}

static void store_reads_back(void **state)
{
    (void)state;
    struct meed_store *store = open_store();
    struct meed_store_progress progress = {.round = 3, .phase = 2, .adapter_hash = {9}}, read;
    assert_int_equal(meed_store_load_progress(store, &read), MEED_NOT_FOUND);
    assert_int_equal(meed_store_save_progress(store, &progress), MEED_OK);
    struct meed_store_update ben = update_of("ben", 2), anna = update_of("anna", 1), found;
    snprintf(anna.privacy, sizeof anna.privacy, "shared: none");
    assert_int_equal(meed_store_add_update(store, 1, &ben), MEED_OK);
    assert_int_equal(meed_store_add_update(store, 1, &anna), MEED_OK);
    assert_int_equal(meed_store_add_update(store, 1, &anna), MEED_STATE);
    assert_int_equal(meed_store_add_traffic(store, 1, "ben", 5, 7), MEED_OK);
    assert_int_equal(meed_store_add_traffic(store, 1, "ben", 5, 0), MEED_OK);
    assert_int_equal(meed_store_save_stage(store, 1, "valued", "abc", 3), MEED_OK);
    struct meed_store *second = NULL;
    assert_int_equal(meed_store_open(folder, NULL, &second), MEED_STATE);
    assert_null(second);
    meed_store_close(store);

    store = open_store();
    assert_int_equal(meed_store_load_progress(store, &read), MEED_OK);
    assert_memory_equal(&read, &progress, sizeof read);
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "round", 1 << 20);
    struct meed_store_update *list = NULL;
    int32_t count = 0;
    assert_int_equal(meed_store_list_updates(store, 1, &arena, &list, &count), MEED_OK);
    assert_int_equal(count, 2);
    assert_string_equal(list[0].client, "anna");
    assert_true(list[1].train_loss == 1.5);
    assert_int_equal(meed_store_find_update(store, 2, "anna", &found), MEED_NOT_FOUND);
    assert_int_equal(meed_store_find_update(store, 1, "anna", &found), MEED_OK);
    assert_string_equal(found.privacy, "shared: none");
    assert_string_equal(list[1].privacy, "");
    bool seen = true;
    assert_int_equal(meed_store_seen_before(store, 1, anna.sha256, &seen), MEED_OK);
    assert_false(seen);
    assert_int_equal(meed_store_seen_before(store, 2, anna.sha256, &seen), MEED_OK);
    assert_true(seen);
    int64_t up = 0, down = 0;
    assert_int_equal(meed_store_traffic(store, 1, "ben", &up, &down), MEED_OK);
    assert_int_equal(up, 10);
    assert_int_equal(down, 7);
    struct meed_buf value;
    meed_buf_init(&value, 100);
    assert_int_equal(meed_store_load_stage(store, 1, "valued", &value), MEED_OK);
    assert_string_equal(value.data, "abc");
    assert_int_equal(meed_store_get(store, "nothing", &value), MEED_NOT_FOUND);
    meed_buf_clear(&value);
    meed_arena_clear(&arena);
    meed_store_close(store);
}

static void store_keeps_blobs_by_their_names(void **state)
{
    (void)state;
    struct meed_store *store = open_store();
    uint8_t hash[MEED_SHA256_BYTES], again[MEED_SHA256_BYTES];
    assert_int_equal(meed_store_put_blob(store, "bytes", 5, hash), MEED_OK);
    assert_int_equal(meed_store_put_blob(store, "bytes", 5, again), MEED_OK);
    assert_memory_equal(hash, again, sizeof hash);
    struct meed_file_map map;
    assert_int_equal(meed_store_map_blob(store, hash, &map), MEED_OK);
    assert_memory_equal(map.bytes, "bytes", 5);
    meed_file_map_close(&map);
    char path[MEED_PATH_BYTES];
    meed_store_blob_path(store, hash, path);
    assert_int_equal(meed_file_write_atomic(path, "bytez", 5), MEED_OK);
    assert_int_equal(meed_store_map_blob(store, hash, &map), MEED_INTEGRITY);
    meed_store_close(store);
}

static void store_resumes_a_partial(void **state)
{
    (void)state;
    struct meed_store *store = open_store();
    uint8_t hash[MEED_SHA256_BYTES], other[MEED_SHA256_BYTES] = {7};
    meed_sha256("hello world", 11, hash);
    struct meed_store_partial *partial = NULL;
    int64_t size = -1;
    assert_int_equal(meed_store_partial_open(store, "a-b", hash, &partial, &size), MEED_OK);
    assert_int_equal(size, 0);
    assert_int_equal(meed_store_partial_append(partial, "hello ", 6), MEED_OK);
    meed_store_partial_close(partial);
    assert_int_equal(meed_store_partial_durable(store, "a-b", hash, &size), MEED_OK);
    assert_int_equal(size, 6);
    /* Client "a" is another one, though its files begin alike. */
    assert_int_equal(meed_store_partial_open(store, "a", other, &partial, &size), MEED_OK);
    meed_store_partial_close(partial);
    assert_int_equal(meed_store_partial_open(store, "a-b", hash, &partial, &size), MEED_OK);
    assert_int_equal(size, 6);
    assert_int_equal(meed_store_partial_append(partial, "world", 5), MEED_OK);
    char bytes[11];
    assert_int_equal(meed_store_partial_read(partial, 0, bytes, 11), MEED_OK);
    assert_memory_equal(bytes, "hello world", 11);
    assert_int_equal(meed_store_partial_adopt(partial), MEED_OK);
    meed_store_partial_close(partial);
    struct meed_file_map map;
    assert_int_equal(meed_store_map_blob(store, hash, &map), MEED_OK);
    meed_file_map_close(&map);
    assert_int_equal(meed_store_partial_durable(store, "a-b", hash, &size), MEED_OK);
    assert_int_equal(size, 0);
    /* A new upload drops the client's older one. */
    assert_int_equal(meed_store_partial_open(store, "a-b", hash, &partial, &size), MEED_OK);
    assert_int_equal(meed_store_partial_append(partial, "x", 1), MEED_OK);
    meed_store_partial_close(partial);
    assert_int_equal(meed_store_partial_open(store, "a-b", other, &partial, &size), MEED_OK);
    meed_store_partial_close(partial);
    assert_int_equal(meed_store_partial_durable(store, "a-b", hash, &size), MEED_OK);
    assert_int_equal(size, 0);
    meed_store_close(store);
}

static const char *fatal_point;

static void die_at(const char *point)
{
    if (strcmp(point, fatal_point) == 0) {
        raise(SIGKILL);
    }
}

/* Everything a client's update goes through, in a process that may die on the way. */
static void upload(const uint8_t *hash)
{
    struct meed_store *store = NULL;
    struct meed_store_partial *partial = NULL;
    int64_t size = 0;
    struct meed_store_progress progress = {.round = 1, .phase = 1};
    struct meed_store_update update = update_of("anna", 1);
    memcpy(update.sha256, hash, sizeof update.sha256);
    if (meed_store_open(folder, die_at, &store) != MEED_OK ||
        meed_store_partial_open(store, "anna", hash, &partial, &size) != MEED_OK ||
        meed_store_partial_append(partial, "bytes", 5) != MEED_OK ||
        meed_store_partial_adopt(partial) != MEED_OK ||
        meed_store_add_update(store, 1, &update) != MEED_OK ||
        meed_store_save_progress(store, &progress) != MEED_OK) {
        _exit(1);
    }
    _exit(0);
}

static void store_survives_kill_at_every_point(void **state)
{
    (void)state;
    static const struct {
        const char *point;
        int partial, row, progress;
    } cases[] = {{"partial.whole", 1, 0, 0},
                 {"partial.adopted", 0, 0, 0},
                 {"update.committed", 0, 1, 0},
                 {"progress", 0, 1, 0},
                 {"progress.written", 0, 1, 1}};
    uint8_t hash[MEED_SHA256_BYTES];
    meed_sha256("bytes", 5, hash);
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        fatal_point = cases[i].point;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            upload(hash);
        }
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
        struct meed_store *store = open_store();
        int64_t size = 0;
        struct meed_store_update update;
        struct meed_store_progress progress;
        assert_int_equal(meed_store_partial_durable(store, "anna", hash, &size), MEED_OK);
        assert_int_equal(size, cases[i].partial ? 5 : 0);
        assert_int_equal(meed_store_find_update(store, 1, "anna", &update) == MEED_OK,
                         cases[i].row);
        assert_int_equal(meed_store_load_progress(store, &progress) == MEED_OK, cases[i].progress);
        if (cases[i].row) {
            struct meed_file_map map;
            assert_int_equal(meed_store_map_blob(store, update.sha256, &map), MEED_OK);
            meed_file_map_close(&map);
        }
        meed_store_close(store);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static void store_says_when_the_disk_is_full(void **state)
{
    (void)state;
    struct meed_store *store = open_store();
    uint8_t hash[MEED_SHA256_BYTES] = {5};
    struct meed_store_partial *partial = NULL;
    int64_t size = 0;
    static char block[1 << 16];
    assert_int_equal(meed_store_partial_open(store, "anna", hash, &partial, &size), MEED_OK);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit kept, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    tight = kept;
    tight.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(meed_store_partial_append(partial, block, sizeof block), MEED_IO);
    assert_false(meed_store_writable(store));
    assert_int_equal(meed_store_probe(store), MEED_IO);
    struct meed_store_progress progress = {.round = 1};
    assert_int_equal(meed_store_save_progress(store, &progress), MEED_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    assert_int_equal(meed_store_partial_append(partial, block, sizeof block), MEED_OK);
    assert_true(meed_store_writable(store));
    assert_int_equal(meed_store_save_progress(store, &progress), MEED_OK);
    assert_int_equal(meed_store_partial_durable(store, "anna", hash, &size), MEED_OK);
    assert_int_equal(size, sizeof block);
    meed_store_partial_close(partial);
    meed_store_close(store);
}

static void store_refuses_what_it_did_not_write(void **state)
{
    (void)state;
    char path[MEED_PATH_BYTES];
    snprintf(path, sizeof path, "%s/state.db", folder);
    static char rubbish[8192];
    memset(rubbish, 'x', sizeof rubbish);
    assert_int_equal(meed_file_write_atomic(path, rubbish, sizeof rubbish), MEED_OK);
    struct meed_store *store = NULL;
    assert_int_equal(meed_store_open(folder, NULL, &store), MEED_INTEGRITY);
    assert_null(store);
}

/* Who only reads: the committed rows of a store that died with its log full, not a byte changed in
 * the folder, and a plain refusal while a process is at work there. */
static void store_opens_a_copy_without_a_trace(void **state)
{
    (void)state;
    struct meed_store *store = NULL;
    struct meed_store_update update = update_of("anna", 7), found;
    uint8_t ready = 0;
    int told[2], end[2], how = 0;
    assert_true(pipe(told) == 0 && pipe(end) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(end[1]);
        store = open_store();
        ready = meed_store_add_update(store, 1, &update) == MEED_OK;
        ready = write(told[1], &ready, 1) == 1 && read(end[0], &ready, 1) >= 0;
        raise(SIGKILL);
    }
    assert_true(read(told[0], &ready, 1) == 1 && ready);
    assert_int_equal(meed_store_open_copy(folder, &store), MEED_STATE);
    assert_true(close(end[1]) == 0 && waitpid(child, &how, 0) == child && WIFSIGNALED(how));
    char path[MEED_PATH_BYTES];
    uint8_t before[2][MEED_SHA256_BYTES], after[2][MEED_SHA256_BYTES];
    static const char *const names[] = {"state.db", "state.db-wal"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(meed_file_join(folder, names[i], path, sizeof path), MEED_OK);
        assert_int_equal(meed_sha256_file(path, before[i]), MEED_OK);
    }
    assert_int_equal(meed_store_open_copy(folder, &store), MEED_OK);
    assert_int_equal(meed_store_find_update(store, 1, "anna", &found), MEED_OK);
    assert_memory_equal(found.sha256, update.sha256, sizeof found.sha256);
    meed_store_close(store);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(meed_file_join(folder, names[i], path, sizeof path), MEED_OK);
        assert_int_equal(meed_sha256_file(path, after[i]), MEED_OK);
        assert_memory_equal(before[i], after[i], sizeof before[i]);
    }
    assert_int_equal(unlink(path), 0); /* and where there is no store at all */
    assert_int_equal(meed_file_join(folder, "nowhere", path, sizeof path), MEED_OK);
    assert_int_equal(meed_store_open_copy(path, &store), MEED_NOT_FOUND);
    close(told[0]);
    close(told[1]);
    close(end[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(store_reads_back, setup, teardown),
        cmocka_unit_test_setup_teardown(store_keeps_blobs_by_their_names, setup, teardown),
        cmocka_unit_test_setup_teardown(store_resumes_a_partial, setup, teardown),
        cmocka_unit_test_setup_teardown(store_survives_kill_at_every_point, setup, teardown),
        cmocka_unit_test_setup_teardown(store_says_when_the_disk_is_full, setup, teardown),
        cmocka_unit_test_setup_teardown(store_refuses_what_it_did_not_write, setup, teardown),
        cmocka_unit_test_setup_teardown(store_opens_a_copy_without_a_trace, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
