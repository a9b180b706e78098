/* Files: atomic replacement, limits, maps, and errors that name the path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "base/hash.h"

static char folder[] = "/tmp/meed-file-XXXXXX";

static void path_of(const char *name, char path[MEED_PATH_BYTES])
{
    assert_int_equal(meed_file_join(folder, name, path, MEED_PATH_BYTES), MEED_OK);
}

static void file_write_is_old_or_new(void **state)
{
    /* Goal: a write replaces whole; a failing one leaves the old content and no litter. */
    (void)state;
    char path[MEED_PATH_BYTES];
    path_of("a", path);
    assert_int_equal(meed_file_write_atomic(path, "old", 3), MEED_OK);
    assert_int_equal(meed_file_write_atomic(path, "newer", 5), MEED_OK);
    struct meed_buf buf;
    meed_buf_init(&buf, 100);
    assert_int_equal(meed_file_read(path, &buf), MEED_OK);
    assert_string_equal(buf.data, "newer");
    char in_file[MEED_PATH_BYTES];
    path_of("a/b", in_file);
    assert_int_equal(meed_file_write_atomic(in_file, "x", 1), MEED_IO);
    meed_buf_reset(&buf);
    assert_int_equal(meed_file_read(path, &buf), MEED_OK);
    assert_string_equal(buf.data, "newer");
    meed_buf_clear(&buf);
}

static void file_read_names_what_is_wrong(void **state)
{
    /* Goal: missing, too large and not-a-file each have their status and the path in the text. */
    (void)state;
    char path[MEED_PATH_BYTES];
    struct meed_buf buf;
    meed_buf_init(&buf, 4);
    path_of("missing", path);
    assert_int_equal(meed_file_read(path, &buf), MEED_NOT_FOUND);
    assert_non_null(strstr(meed_last_error(), path));
    path_of("five", path);
    assert_int_equal(meed_file_write_atomic(path, "12345", 5), MEED_OK);
    assert_int_equal(meed_file_read(path, &buf), MEED_LIMIT);
    assert_non_null(strstr(meed_last_error(), path));
    assert_int_equal(meed_file_read(folder, &buf), MEED_IO);
    struct meed_file_map map;
    assert_int_equal(meed_file_map_open(folder, &map), MEED_IO);
    meed_buf_clear(&buf);
}

static void file_map_and_folders(void **state)
{
    /* Goal: maps show the content, an empty file maps to NULL, folders are made with parents. */
    (void)state;
    char path[MEED_PATH_BYTES];
    struct meed_file_map map;
    path_of("x/y/z", path);
    assert_int_equal(meed_file_make_folder(path), MEED_OK);
    assert_int_equal(meed_file_make_folder(path), MEED_OK);
    path_of("x/y/z/empty", path);
    assert_int_equal(meed_file_write_atomic(path, "", 0), MEED_OK);
    assert_int_equal(meed_file_map_open(path, &map), MEED_OK);
    assert_null(map.bytes);
    meed_file_map_close(&map);
    path_of("five", path);
    assert_int_equal(meed_file_map_open(path, &map), MEED_OK);
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.bytes, "12345", 5);
    meed_file_map_close(&map);
}

static void hash_known_answers_and_hex(void **state)
{
    /* Goal: SHA-256 of "abc" and of nothing; running equals one-shot; only strict hex is read. */
    (void)state;
    uint8_t digest[MEED_SHA256_BYTES];
    uint8_t again[MEED_SHA256_BYTES];
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256("abc", 3, digest);
    meed_sha256_hex(digest, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct meed_sha256 *hash = NULL;
    assert_int_equal(meed_sha256_create(&hash), MEED_OK);
    meed_sha256_update(hash, "a", 1);
    meed_sha256_update(hash, "bc", 2);
    meed_sha256_final(hash, again);
    assert_memory_equal(digest, again, sizeof digest);
    assert_int_equal(meed_sha256_from_hex(hex, again), MEED_OK);
    assert_memory_equal(digest, again, sizeof digest);
    hex[5] = 'G';
    assert_int_equal(meed_sha256_from_hex(hex, again), MEED_FORMAT);
    assert_int_equal(meed_sha256_from_hex("ba78", again), MEED_FORMAT);
    char path[MEED_PATH_BYTES];
    path_of("x/y/z/empty", path);
    assert_int_equal(meed_sha256_file(path, digest), MEED_OK);
    meed_sha256_hex(digest, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

int main(void)
{
    assert_non_null(mkdtemp(folder));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_write_is_old_or_new),
        cmocka_unit_test(file_read_names_what_is_wrong),
        cmocka_unit_test(file_map_and_folders),
        cmocka_unit_test(hash_known_answers_and_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
