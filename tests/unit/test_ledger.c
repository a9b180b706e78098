/* The ledger's chain, signatures and sums, and everything that can be done to break them.
 *
 * Goal: what was written reads back; whatever one changes afterwards is found, with the number of
 * the first broken entry; a torn last line costs nothing. Method: small ledgers in a temporary
 * folder, changed byte by byte and line by line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "server/ledger.h"

static char folder[64];
static char path[128];
static char key_path[128];
static struct meed_signature_key *key;

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/meed_ledger_XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/ledger.jsonl", folder);
    snprintf(key_path, sizeof key_path, "%s/ledger.key", folder);
    assert_int_equal(meed_signature_key_make(key_path), MEED_OK);
    assert_int_equal(meed_signature_key_open(key_path, &key), MEED_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    meed_signature_key_close(key);
    unlink(path);
    unlink(key_path);
    rmdir(folder);
    return 0;
}

static struct meed_ledger_client clients[3];

static struct meed_ledger_round round_entry(int32_t round)
{
    static const char *const ids[] = {"anna", "ben", "cleo"};
    for (int i = 0; i < 3; i++) {
        memset(&clients[i], 0, sizeof clients[i]);
        snprintf(clients[i].id, sizeof clients[i].id, "%s", ids[i]);
        clients[i].state = MEED_RECEIPT_PAID;
        clients[i].phi = 0.1 * (i + 1);
        clients[i].se = 1.0 / 3.0;
        clients[i].share = 100 * (i + 1);
        clients[i].update_hash[0] = (uint8_t)(i + 1);
    }
    snprintf(clients[1].reason, sizeof clients[1].reason, "no gain");
    snprintf(clients[1].remark, sizeof clients[1].remark, "norm 3.1 × the median");
    snprintf(clients[1].privacy, sizeof clients[1].privacy, "shared: none");
    struct meed_ledger_round entry = {.run_id = "run",
                                      .round = round,
                                      .budget = 600,
                                      .value_empty = -2.5,
                                      .value_full = -1.25,
                                      .client_count = 3,
                                      .clients = clients};
    return entry;
}

static void write_small(int32_t rounds)
{
    unlink(path);
    struct meed_ledger *ledger = NULL;
    static const char *const ids[] = {"anna", "ben", "cleo"};
    struct meed_ledger_genesis genesis = {.run_id = "run",
                                          .clients = ids,
                                          .client_count = 3,
                                          .rounds = rounds,
                                          .budget = 600 * rounds,
                                          .aggregation = "svd",
                                          .estimator = "exact",
                                          .payment = "shrunk"};
    assert_int_equal(meed_ledger_open(path, key, &ledger), MEED_OK);
    assert_int_equal(meed_ledger_append_genesis(ledger, &genesis), MEED_OK);
    for (int32_t round = 1; round <= rounds; round++) {
        struct meed_ledger_round entry = round_entry(round);
        assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_OK);
    }
    meed_ledger_close(ledger);
}

static void read_file(struct meed_buf *bytes)
{
    meed_buf_init(bytes, 1 << 20);
    assert_int_equal(meed_file_read(path, bytes), MEED_OK);
}

static void ledger_reads_back_what_was_written(void **state)
{
    (void)state;
    write_small(2);
    struct meed_ledger *ledger = NULL;
    assert_int_equal(meed_ledger_open(path, key, &ledger), MEED_OK);
    assert_int_equal(meed_ledger_count(ledger), 3);
    struct meed_ledger_place place;
    assert_true(meed_ledger_find(ledger, 2, &place));
    assert_int_equal(place.index, 2);
    assert_false(meed_ledger_find(ledger, 3, &place));
    assert_false(meed_ledger_find(ledger, 0, &place));
    struct meed_buf body;
    meed_buf_init(&body, 1 << 20);
    assert_int_equal(meed_ledger_read(ledger, 2, &place, &body), MEED_OK);
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", 1 << 20);
    struct meed_ledger_round entry;
    assert_int_equal(meed_ledger_parse_round(body.data, body.size, &arena, &entry), MEED_OK);
    struct meed_ledger_round wrote = round_entry(2);
    assert_int_equal(entry.client_count, 3);
    assert_memory_equal(&entry.clients[1], &wrote.clients[1], sizeof wrote.clients[1]);
    assert_true(entry.value_full == wrote.value_full);
    const char *line = strstr(body.data, "\"privacy\":\"shared: none\"");
    assert_non_null(line); /* of one client; the others' entries read as ever */
    assert_null(strstr(line + 1, "\"privacy\""));
    assert_true(strstr(body.data, "\"privacy\"") == line && !entry.clients[0].privacy[0]);
    assert_int_equal(meed_ledger_read(ledger, 3, &place, &body), MEED_NOT_FOUND);
    struct meed_ledger_total totals[] = {{"anna", 200}, {"ben", 400}};
    assert_int_equal(meed_ledger_append_final(ledger, "run", place.hash, totals, 2), MEED_OK);
    assert_true(meed_ledger_find(ledger, 0, &place));
    assert_int_equal(meed_ledger_append_abandoned(ledger, "run", 3, place.hash, "nobody \"came\""),
                     MEED_OK);
    meed_ledger_close(ledger);
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
    meed_signature_key_public(key, public_key);
    assert_int_equal(meed_ledger_verify(path, public_key, NULL, NULL), MEED_OK);
    public_key[0] ^= 1;
    assert_int_equal(meed_ledger_verify(path, public_key, NULL, NULL), MEED_INTEGRITY);
    assert_int_equal(meed_ledger_verify(path, NULL, NULL, NULL), MEED_OK);
    meed_arena_clear(&arena);
    meed_buf_clear(&body);
}

static void ledger_refuses_shares_that_do_not_add_up(void **state)
{
    (void)state;
    write_small(0);
    struct meed_ledger *ledger = NULL;
    assert_int_equal(meed_ledger_open(path, key, &ledger), MEED_OK);
    struct meed_ledger_round entry = round_entry(1);
    clients[0].share += 1;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    entry = round_entry(1);
    clients[0].share = -100;
    clients[1].share = 400;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    entry = round_entry(1);
    clients[2].state = MEED_RECEIPT_EXCLUDED;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    entry = round_entry(1);
    entry.retained = 600;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    clients[0].share = clients[1].share = clients[2].share = 0;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_OK);
    /* half of it is kept, which only a floor explains */
    entry = round_entry(2);
    entry.retained = 300;
    clients[2].share = 0;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    entry.floor = 200;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    entry.floor = 700;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_BUG);
    entry.floor = 300;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_OK);
    entry = round_entry(3);
    clients[1].phi = NAN;
    assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_NUMERIC);
    assert_int_equal(meed_ledger_count(ledger), 3);
    meed_ledger_close(ledger);
}

static void ledger_finds_every_changed_byte(void **state)
{
    (void)state;
    write_small(2);
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
    meed_signature_key_public(key, public_key);
    struct meed_buf bytes;
    read_file(&bytes);
    int line = 0;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t i = 0; i < bytes.size; i++) {
        char kept = bytes.data[i];
        char expected[32];
        snprintf(expected, sizeof expected, "entry %d:", line);
        char changed = (char)(kept ^ 1);
        assert_int_equal(pwrite(fd, &changed, 1, (off_t)i), 1);
        assert_int_equal(meed_ledger_verify(path, public_key, NULL, NULL), MEED_INTEGRITY);
        if (kept != '\n') {
            assert_non_null(strstr(meed_last_error(), expected));
        }
        assert_int_equal(pwrite(fd, &kept, 1, (off_t)i), 1);
        line += kept == '\n';
    }
    close(fd);
    meed_buf_clear(&bytes);
}

static void ledger_finds_lost_doubled_and_swapped_lines(void **state)
{
    (void)state;
    write_small(2);
    struct meed_buf bytes;
    read_file(&bytes);
    const char *first = strchr(bytes.data, '\n') + 1;
    const char *second = strchr(first, '\n') + 1;
    size_t head = (size_t)(first - bytes.data), one = (size_t)(second - first);
    size_t two = bytes.size - head - one;
    struct meed_buf made;
    meed_buf_init(&made, 1 << 20);
    for (int fault = 0; fault < 3; fault++) {
        meed_buf_reset(&made);
        assert_int_equal(meed_buf_append(&made, bytes.data, head), MEED_OK);
        if (fault != 0) {
            const char *next = fault == 1 ? first : second;
            assert_int_equal(meed_buf_append(&made, next, fault == 1 ? one : two), MEED_OK);
        }
        assert_int_equal(
            meed_buf_append(&made, fault == 0 ? second : first, fault == 0 ? two : one), MEED_OK);
        assert_int_equal(meed_file_write_atomic(path, made.data, made.size), MEED_OK);
        assert_int_equal(meed_ledger_verify(path, NULL, NULL, NULL), MEED_INTEGRITY);
        assert_non_null(strstr(meed_last_error(), fault == 1 ? "entry 2" : "entry 1"));
        struct meed_ledger *ledger = NULL;
        assert_int_equal(meed_ledger_open(path, key, &ledger), MEED_INTEGRITY);
        assert_null(ledger);
    }
    meed_buf_clear(&made);
    meed_buf_clear(&bytes);
}

/* Takes a piece out of the last line's body and hashes the body anew. */
static void strike(struct meed_buf *bytes, const char *piece)
{
    char *line = strchr(bytes->data, '\n') + 1;
    char *body = strchr(line, '{');
    char *at = strstr(body, piece);
    assert_non_null(at);
    memmove(at, at + strlen(piece), strlen(at + strlen(piece)) + 1);
    bytes->size -= strlen(piece);
    uint8_t digest[MEED_SHA256_BYTES];
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256(body, strlen(body) - 1, digest);
    meed_sha256_hex(digest, hex);
    memcpy(line, hex, 64);
}

static void check_old(void *user, const struct meed_ledger_place *place, const char *body,
                      size_t size)
{
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", 1 << 20);
    if (place->kind == MEED_LEDGER_ROUND) {
        assert_int_equal(meed_ledger_parse_round(body, size, &arena, &entry), MEED_OK);
        assert_int_equal(entry.floor, 0);
        assert_string_equal(entry.clients[1].reason, "no gain");
        assert_string_equal(entry.clients[1].remark, "");
        ++*(int *)user;
    }
    meed_arena_clear(&arena);
}

/* Entries of releases that knew neither floor nor remark stay valid, word for word. */
static void ledger_verifies_what_earlier_releases_wrote(void **state)
{
    (void)state;
    write_small(1);
    struct meed_buf bytes;
    int rounds = 0;
    read_file(&bytes);
    strike(&bytes, "\"floor\":0,");
    strike(&bytes, "\"remark\":\"norm 3.1 × the median\",");
    assert_int_equal(meed_file_write_atomic(path, bytes.data, bytes.size), MEED_OK);
    assert_int_equal(meed_ledger_verify(path, NULL, check_old, &rounds), MEED_OK);
    assert_int_equal(rounds, 1);
    strike(&bytes, "\"reason\":\"no gain\",");
    assert_int_equal(meed_file_write_atomic(path, bytes.data, bytes.size), MEED_OK);
    assert_int_equal(meed_ledger_verify(path, NULL, NULL, NULL), MEED_INTEGRITY);
    meed_buf_clear(&bytes);
}

/* A forger without the key who re-computes the hash of a changed body is caught by the signature.
 */
static void ledger_finds_a_rehashed_body(void **state)
{
    (void)state;
    write_small(1);
    struct meed_buf bytes;
    read_file(&bytes);
    char *line = strchr(bytes.data, '\n') + 1;
    char *body = strchr(line, '{');
    char *phi = strstr(body, "\"phi\":0.1");
    phi[8] = '9';
    uint8_t digest[MEED_SHA256_BYTES];
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256(body, strlen(body) - 1, digest);
    meed_sha256_hex(digest, hex);
    memcpy(line, hex, 64);
    assert_int_equal(meed_file_write_atomic(path, bytes.data, bytes.size), MEED_OK);
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
    meed_signature_key_public(key, public_key);
    assert_int_equal(meed_ledger_verify(path, NULL, NULL, NULL), MEED_OK);
    assert_int_equal(meed_ledger_verify(path, public_key, NULL, NULL), MEED_INTEGRITY);
    assert_non_null(strstr(meed_last_error(), "entry 1: not signed"));
    meed_buf_clear(&bytes);
}

static void ledger_cuts_a_torn_line_and_goes_on_with_the_same_bytes(void **state)
{
    (void)state;
    write_small(3);
    struct meed_buf whole, bytes;
    read_file(&whole);
    read_file(&bytes);
    size_t third = bytes.size - 1;
    while (bytes.data[third - 1] != '\n') {
        third--;
    }
    for (size_t cut = third; cut < whole.size; cut += 37) {
        assert_int_equal(meed_file_write_atomic(path, whole.data, cut), MEED_OK);
        if (cut > third) {
            assert_int_equal(meed_ledger_verify(path, NULL, NULL, NULL), MEED_INTEGRITY);
        }
        struct meed_ledger *ledger = NULL;
        assert_int_equal(meed_ledger_open(path, key, &ledger), MEED_OK);
        assert_int_equal(meed_ledger_count(ledger), 3);
        struct meed_ledger_round entry = round_entry(3);
        assert_int_equal(meed_ledger_append_round(ledger, &entry), MEED_OK);
        meed_ledger_close(ledger);
        meed_buf_reset(&bytes);
        assert_int_equal(meed_file_read(path, &bytes), MEED_OK);
        assert_int_equal(bytes.size, whole.size);
        assert_memory_equal(bytes.data, whole.data, whole.size);
    }
    meed_buf_clear(&whole);
    meed_buf_clear(&bytes);
}

static void ledger_key_is_private(void **state)
{
    (void)state;
    assert_int_equal(meed_signature_key_make(key_path), MEED_STATE);
    struct stat info;
    assert_int_equal(stat(key_path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    struct meed_signature_key *other = NULL;
    assert_int_equal(chmod(key_path, 0644), 0);
    assert_int_equal(meed_signature_key_open(key_path, &other), MEED_DENIED);
    assert_int_equal(chmod(key_path, 0600), 0);
    assert_int_equal(meed_file_write_atomic(path, "hello\n", 6), MEED_OK);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(meed_signature_key_open(path, &other), MEED_FORMAT);
    assert_int_equal(meed_signature_key_open("/nonexistent", &other), MEED_NOT_FOUND);
    assert_null(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ledger_reads_back_what_was_written),
        cmocka_unit_test(ledger_refuses_shares_that_do_not_add_up),
        cmocka_unit_test(ledger_finds_every_changed_byte),
        cmocka_unit_test(ledger_finds_lost_doubled_and_swapped_lines),
        cmocka_unit_test(ledger_finds_a_rehashed_body),
        cmocka_unit_test(ledger_verifies_what_earlier_releases_wrote),
        cmocka_unit_test(ledger_cuts_a_torn_line_and_goes_on_with_the_same_bytes),
        cmocka_unit_test(ledger_key_is_private),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
