/* A ledger in a forger's hands: read, changed, and written back in two ways.
 *
 * `book_scribble` is somebody with a text editor: bodies change, hashes and signatures stay.
 * `book_sign` is the operator: index, prev, hash and signature of every entry made anew with a key,
 * as the aggregator would have made them. Header only, like cli_fixture.h, which stands before it.
 */
#ifndef MEED_LOOP_FORGER_H
#define MEED_LOOP_FORGER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "server/signature.h"
#include "tests/support/command.h"

enum { BOOK_ENTRIES = 8 };

struct book {
    int count;
    json_t *bodies[BOOK_ENTRIES];
    char *lines[BOOK_ENTRIES]; /* as they stood */
};

static inline void book_read(const char *path, struct book *book)
{
    char *text = scratch_read(path, NULL);
    memset(book, 0, sizeof *book);
    for (char *at = text, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        *end = '\0';
        assert_true(book->count < BOOK_ENTRIES);
        book->lines[book->count] = strdup(at);
        book->bodies[book->count] = json_loads(at + 64 + 1 + 128 + 1, 0, NULL);
        assert_non_null(book->bodies[book->count++]);
    }
    free(text);
}

static inline void book_clear(struct book *book)
{
    for (int i = 0; i < BOOK_ENTRIES; i++) {
        json_decref(book->bodies[i]);
        free(book->lines[i]);
    }
}

static inline char *body_text(const json_t *body)
{
    return json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
}

/* As the aggregator would have: index, prev, hash and signature of every entry. */
static inline void book_sign(struct book *book, const char *key_path, const char *path)
{
    struct meed_signature_key *key = NULL;
    uint8_t hash[MEED_SHA256_BYTES] = {0}, signature[MEED_SIGNATURE_SIZE], message[46];
    char hex[MEED_SHA256_HEX_BYTES];
    struct meed_buf text;
    meed_buf_init(&text, 1 << 20);
    assert_int_equal(meed_signature_key_open(key_path, &key), MEED_OK);
    for (int i = 0; i < book->count; i++) {
        meed_sha256_hex(hash, hex);
        json_object_set_new(book->bodies[i], "prev", json_string(hex));
        json_object_set_new(book->bodies[i], "index", json_integer(i));
        char *body = body_text(book->bodies[i]);
        meed_sha256(body, strlen(body), hash);
        memcpy(message, "meed ledger 1\n", 14);
        memcpy(message + 14, hash, sizeof hash);
        assert_int_equal(meed_signature_sign(key, message, sizeof message, signature), MEED_OK);
        meed_sha256_hex(hash, hex);
        assert_int_equal(meed_buf_printf(&text, "%s ", hex), MEED_OK);
        for (size_t b = 0; b < sizeof signature; b++) {
            assert_int_equal(meed_buf_printf(&text, "%02x", signature[b]), MEED_OK);
        }
        assert_int_equal(meed_buf_printf(&text, " %s\n", body), MEED_OK);
        free(body);
    }
    meed_signature_key_close(key);
    assert_int_equal(meed_file_write_atomic(path, text.data, text.size), MEED_OK);
    meed_buf_clear(&text);
}

/* As somebody with a text editor would: bodies alone. */
static inline void book_scribble(const struct book *book, const char *path)
{
    struct meed_buf text;
    meed_buf_init(&text, 1 << 20);
    for (int i = 0; i < book->count; i++) {
        char *body = body_text(book->bodies[i]);
        assert_int_equal(meed_buf_printf(&text, "%.194s%s\n", book->lines[i], body), MEED_OK);
        free(body);
    }
    assert_int_equal(meed_file_write_atomic(path, text.data, text.size), MEED_OK);
    meed_buf_clear(&text);
}

static inline json_t *client_of(const struct book *book, int entry, size_t client)
{
    return json_array_get(json_object_get(book->bodies[entry], "clients"), client);
}

static inline int64_t share_of(const struct book *book, int entry, size_t client)
{
    return json_integer_value(json_object_get(client_of(book, entry, client), "share"));
}

static inline void set_share(const struct book *book, int entry, size_t client, int64_t share)
{
    json_object_set_new(client_of(book, entry, client), "share", json_integer(share));
}

static inline void set_text(json_t *object, const char *key, const char *value)
{
    json_object_set_new(object, key, json_string(value));
}

static inline const char *text_of(const struct book *book, int entry, const char *key)
{
    return json_string_value(json_object_get(book->bodies[entry], key));
}

/* A member's number a little larger. */
static inline void nudge(json_t *object, const char *key)
{
    double value = json_real_value(json_object_get(object, key));
    json_object_set_new(object, key, json_real(value * (1.0 + 1e-15) + 1e-300));
}

/* Another digit of a hash. */
static inline void bend(json_t *object, const char *key)
{
    char hex[MEED_SHA256_HEX_BYTES];
    snprintf(hex, sizeof hex, "%s", json_string_value(json_object_get(object, key)));
    hex[10] = hex[10] == '0' ? '1' : '0';
    set_text(object, key, hex);
}

#endif
