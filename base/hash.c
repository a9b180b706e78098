/* See hash.h. */
#include "base/hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"

struct meed_sha256 {
    EVP_MD_CTX *context;
};

void meed_sha256(const void *bytes, size_t size, uint8_t digest[MEED_SHA256_BYTES])
{
    MEED_ASSERT(EVP_Digest(bytes, size, digest, NULL, EVP_sha256(), NULL) == 1);
}

enum meed_status meed_sha256_create(struct meed_sha256 **hash)
{
    struct meed_sha256 *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->context = EVP_MD_CTX_new();
    if (!made->context || EVP_DigestInit_ex(made->context, EVP_sha256(), NULL) != 1) {
        meed_sha256_destroy(made);
        return MEED_FAIL(MEED_NOMEM, "cannot start a SHA-256");
    }
    *hash = made;
    return MEED_OK;
}

void meed_sha256_update(struct meed_sha256 *hash, const void *bytes, size_t size)
{
    MEED_ASSERT(EVP_DigestUpdate(hash->context, bytes, size) == 1);
}

void meed_sha256_final(struct meed_sha256 *hash, uint8_t digest[MEED_SHA256_BYTES])
{
    MEED_ASSERT(EVP_DigestFinal_ex(hash->context, digest, NULL) == 1);
    meed_sha256_destroy(hash);
}

void meed_sha256_destroy(struct meed_sha256 *hash)
{
    if (hash) {
        EVP_MD_CTX_free(hash->context);
        meed_heap_free(hash);
    }
}

void meed_sha256_hex(const uint8_t digest[MEED_SHA256_BYTES], char hex[MEED_SHA256_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < MEED_SHA256_BYTES; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * MEED_SHA256_BYTES] = '\0';
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum meed_status meed_sha256_from_hex(const char *text, uint8_t digest[MEED_SHA256_BYTES])
{
    uint8_t parsed[MEED_SHA256_BYTES];
    bool ok = strlen(text) == 2 * MEED_SHA256_BYTES;
    for (int i = 0; ok && i < MEED_SHA256_BYTES; i++) {
        int high = hex_value(text[2 * i]);
        int low = hex_value(text[2 * i + 1]);
        ok = high >= 0 && low >= 0;
        parsed[i] = (uint8_t)(high * 16 + low);
    }
    if (!ok) {
        return MEED_FAIL(MEED_FORMAT, "\"%.80s\" is not a SHA-256 in hex", text);
    }
    memcpy(digest, parsed, sizeof parsed);
    return MEED_OK;
}

enum meed_status meed_sha256_file(const char *path, uint8_t digest[MEED_SHA256_BYTES])
{
    struct meed_file_map map;
    MEED_TRY(meed_file_map_open(path, &map));
    meed_sha256(map.bytes ? map.bytes : "", map.size, digest);
    meed_file_map_close(&map);
    return MEED_OK;
}
