/* See signature.h. */
#include "server/signature.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include "base/buf.h"
#include "base/file.h"

struct meed_signature_key {
    EVP_PKEY *pkey;
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
};

static enum meed_status crypto_failed(const char *what)
{
    char reason[160];
    ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
    ERR_clear_error();
    return MEED_FAIL(MEED_BUG, "%s: %s", what, reason);
}

enum meed_status meed_signature_key_make(const char *path)
{
    enum meed_status st = MEED_OK;
    FILE *file = NULL;
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    if (!pkey) {
        return crypto_failed("cannot make an Ed25519 key");
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        st = MEED_FAIL(errno == EEXIST ? MEED_STATE : MEED_IO, "cannot create %s: %s", path,
                       strerror(errno));
        goto out;
    }
    file = fdopen(fd, "w");
    if (!file) {
        close(fd);
        st = MEED_FAIL(MEED_IO, "cannot write %s: %s", path, strerror(errno));
        goto out;
    }
    if (PEM_write_PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL) != 1 || fflush(file) != 0 ||
        fsync(fd) != 0) {
        st = MEED_FAIL(MEED_IO, "cannot write the key %s: %s", path, strerror(errno));
        goto out;
    }
    st = meed_file_sync_folder_of(path);
out:
    if (file) {
        fclose(file);
    }
    EVP_PKEY_free(pkey);
    if (st == MEED_IO) {
        unlink(path);
    }
    return st;
}

enum meed_status meed_signature_key_open(const char *path, struct meed_signature_key **key)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        return MEED_FAIL(errno == ENOENT ? MEED_NOT_FOUND : MEED_IO, "cannot open the key %s: %s",
                         path, strerror(errno));
    }
    struct stat info;
    if (fstat(fileno(file), &info) == 0 && (info.st_mode & 077) != 0) {
        fclose(file);
        return MEED_FAIL(MEED_DENIED, "the key %s can be read by others; chmod 600 it", path);
    }
    EVP_PKEY *pkey = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    size_t size = MEED_SIGNATURE_KEY_BYTES;
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
    if (!pkey || EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519 ||
        EVP_PKEY_get_raw_public_key(pkey, public_key, &size) != 1) {
        ERR_clear_error();
        EVP_PKEY_free(pkey);
        return MEED_FAIL(MEED_FORMAT, "%s is not an Ed25519 private key in PEM", path);
    }
    struct meed_signature_key *opened = meed_heap_alloc(1, sizeof *opened);
    if (!opened) {
        EVP_PKEY_free(pkey);
        return MEED_NOMEM;
    }
    opened->pkey = pkey;
    memcpy(opened->public_key, public_key, sizeof public_key);
    *key = opened;
    return MEED_OK;
}

void meed_signature_key_close(struct meed_signature_key *key)
{
    if (key) {
        EVP_PKEY_free(key->pkey);
        meed_heap_free(key);
    }
}

void meed_signature_key_public(const struct meed_signature_key *key,
                               uint8_t public_key[MEED_SIGNATURE_KEY_BYTES])
{
    memcpy(public_key, key->public_key, MEED_SIGNATURE_KEY_BYTES);
}

enum meed_status meed_signature_sign(const struct meed_signature_key *key, const void *bytes,
                                     size_t size, uint8_t signature[MEED_SIGNATURE_SIZE])
{
    size_t length = MEED_SIGNATURE_SIZE;
    uint8_t made[MEED_SIGNATURE_SIZE];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context && EVP_DigestSignInit(context, NULL, NULL, NULL, key->pkey) == 1 &&
                EVP_DigestSign(context, made, &length, bytes, size) == 1 &&
                length == MEED_SIGNATURE_SIZE;
    EVP_MD_CTX_free(context);
    if (!good) {
        return crypto_failed("cannot sign");
    }
    memcpy(signature, made, sizeof made);
    return MEED_OK;
}

enum meed_status meed_signature_verify(const uint8_t public_key[MEED_SIGNATURE_KEY_BYTES],
                                       const void *bytes, size_t size,
                                       const uint8_t signature[MEED_SIGNATURE_SIZE])
{
    EVP_PKEY *pkey =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, MEED_SIGNATURE_KEY_BYTES);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = pkey && context && EVP_DigestVerifyInit(context, NULL, NULL, NULL, pkey) == 1 &&
                EVP_DigestVerify(context, signature, MEED_SIGNATURE_SIZE, bytes, size) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(pkey);
    ERR_clear_error();
    return good ? MEED_OK
                : MEED_FAIL(MEED_INTEGRITY, "the signature was not made by the ledger's key");
}
