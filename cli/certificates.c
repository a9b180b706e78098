/* See certificates.h. Everything is made in memory, then written: a failure half way leaves no
 * half-certified folder behind but files that the next call refuses to overwrite, and says so. */
#include "cli/certificates.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include "base/file.h"
#include "proto/codec.h"
#include "server/registry.h"
#include "server/signature.h"

enum { VALID_DAYS = 3650, TEXT_BYTES = 4096 };

struct identity {
    X509 *x509;
    EVP_PKEY *pkey;
};

static enum meed_status crypto_failed(const char *what)
{
    char reason[160];
    ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
    ERR_clear_error();
    return MEED_FAIL(MEED_BUG, "cannot %s: %s", what, reason);
}

static void identity_clear(struct identity *identity)
{
    X509_free(identity->x509);
    EVP_PKEY_free(identity->pkey);
    *identity = (struct identity){NULL, NULL};
}

/* ---- making ---------------------------------------------------------------------------------- */

static bool add_extension(X509 *x509, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool good = extension && X509_add_ext(x509, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return good;
}

static bool set_serial(X509 *x509)
{
    unsigned char bytes[16];
    if (RAND_bytes(bytes, sizeof bytes) != 1) {
        return false;
    }
    bytes[0] &= 0x7f;
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool good = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x509));
    BN_free(number);
    return good;
}

/* issuer NULL: a certificate authority. */
static enum meed_status make_identity(const char *name, const char *san, const char *usage,
                                      const struct identity *issuer, struct identity *identity)
{
    identity->pkey = EVP_EC_gen("P-256");
    identity->x509 = X509_new();
    X509 *x509 = identity->x509;
    if (!identity->pkey || !x509) {
        return crypto_failed("make a key");
    }
    X509 *parent = issuer ? issuer->x509 : x509;
    X509_NAME *subject = X509_get_subject_name(x509);
    bool good =
        X509_set_version(x509, 2) == 1 && set_serial(x509) &&
        X509_gmtime_adj(X509_getm_notBefore(x509), -86400L) &&
        X509_gmtime_adj(X509_getm_notAfter(x509), 86400L * VALID_DAYS) &&
        X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, (const unsigned char *)"Meed", -1,
                                   -1, 0) == 1 &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1,
                                   -1, 0) == 1 &&
        X509_set_issuer_name(x509, X509_get_subject_name(parent)) == 1 &&
        X509_set_pubkey(x509, identity->pkey) == 1 &&
        add_extension(x509, parent, NID_basic_constraints,
                      issuer ? "critical,CA:FALSE" : "critical,CA:TRUE,pathlen:0") &&
        add_extension(x509, parent, NID_key_usage,
                      issuer ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign") &&
        add_extension(x509, parent, NID_subject_key_identifier, "hash") &&
        add_extension(x509, parent, NID_authority_key_identifier, "keyid") &&
        (!usage || add_extension(x509, parent, NID_ext_key_usage, usage)) &&
        (!san || add_extension(x509, parent, NID_subject_alt_name, san)) &&
        X509_sign(x509, issuer ? issuer->pkey : identity->pkey, EVP_sha256()) > 0;
    return good ? MEED_OK : crypto_failed("make a certificate");
}

/* ---- writing --------------------------------------------------------------------------------- */

static enum meed_status open_new(const char *folder, const char *name, mode_t mode, FILE **file)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(folder, name, path, sizeof path));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!*file) {
        enum meed_status st = errno == EEXIST ? MEED_STATE : MEED_IO;
        st = MEED_FAIL(st, "cannot create %s: %s; nothing is overwritten", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return st;
    }
    return MEED_OK;
}

static enum meed_status close_new(const char *name, FILE *file, bool good)
{
    good = good && fflush(file) == 0 && fsync(fileno(file)) == 0;
    int code = errno;
    fclose(file);
    return good ? MEED_OK : MEED_FAIL(MEED_IO, "cannot write %s: %s", name, strerror(code));
}

/* NAME.pem and NAME.key. */
static enum meed_status write_identity(const char *folder, const char *name,
                                       const struct identity *identity)
{
    FILE *file = NULL;
    char leaf[128];
    snprintf(leaf, sizeof leaf, "%s.key", name);
    MEED_TRY(open_new(folder, leaf, 0600, &file));
    MEED_TRY(close_new(leaf, file,
                       PEM_write_PrivateKey(file, identity->pkey, NULL, NULL, 0, NULL, NULL) == 1));
    snprintf(leaf, sizeof leaf, "%s.pem", name);
    MEED_TRY(open_new(folder, leaf, 0644, &file));
    return close_new(leaf, file, PEM_write_X509(file, identity->x509) == 1);
}

static enum meed_status certificate_hash(const struct identity *identity,
                                         uint8_t hash[MEED_SHA256_BYTES])
{
    unsigned int size = MEED_SHA256_BYTES;
    return X509_digest(identity->x509, EVP_sha256(), hash, &size) == 1
               ? MEED_OK
               : crypto_failed("hash a certificate");
}

/* ---- the parts ------------------------------------------------------------------------------- */

/* "localhost,127.0.0.1" → "DNS:localhost,IP:127.0.0.1". */
static enum meed_status server_san(const char *names, char san[TEXT_BYTES])
{
    size_t used = 0;
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, ",");
        char name[256];
        unsigned char address[16];
        if (length == 0 || length >= sizeof name ||
            strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_*") <
                length) {
            return MEED_FAIL(MEED_ARG, "\"%.64s\" is no host name or address", at);
        }
        memcpy(name, at, length);
        name[length] = '\0';
        bool ip = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
        int wrote = snprintf(san + used, TEXT_BYTES - used, "%s%s:%s", used ? "," : "",
                             ip ? "IP" : "DNS", name);
        used += (size_t)wrote;
        if (used >= TEXT_BYTES) {
            return MEED_FAIL(MEED_LIMIT, "too many server names");
        }
        at += length + (at[length] == ',');
    }
    return used > 0 ? MEED_OK : MEED_FAIL(MEED_ARG, "the server needs a name or an address");
}

static enum meed_status make_server(const char *folder, const char *names,
                                    const struct identity *ca)
{
    enum meed_status st = MEED_OK;
    struct identity server = {NULL, NULL};
    char san[TEXT_BYTES];
    MEED_TRY_OUT(server_san(names, san));
    MEED_TRY_OUT(make_identity("meed server", san, "serverAuth,clientAuth", ca, &server));
    MEED_TRY_OUT(write_identity(folder, "server", &server));
out:
    identity_clear(&server);
    return st;
}

static enum meed_status make_client(const char *folder, const char *id, const struct identity *ca,
                                    struct meed_registry_client *entry)
{
    enum meed_status st = MEED_OK;
    struct identity client = {NULL, NULL};
    char san[128], name[128];
    snprintf(san, sizeof san, "URI:meed:client/%s", id);
    snprintf(name, sizeof name, "client-%s", id);
    MEED_TRY_OUT(make_identity(id, san, "clientAuth", ca, &client));
    MEED_TRY_OUT(write_identity(folder, name, &client));
    MEED_TRY_OUT(certificate_hash(&client, entry->certificate_sha256));
    snprintf(entry->id, sizeof entry->id, "%s", id);
    entry->pinned = true;
out:
    identity_clear(&client);
    return st;
}

static enum meed_status make_clients(const char *folder, const char *const *ids, int32_t count,
                                     const struct identity *ca)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf text;
    meed_buf_init(&text, 16u << 20);
    struct meed_registry_client *entries = meed_heap_alloc((size_t)count, sizeof *entries);
    if (!entries) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        MEED_TRY_OUT(make_client(folder, ids[i], ca, &entries[i]));
    }
    MEED_TRY_OUT(meed_registry_format(entries, count, &text));
    MEED_TRY_OUT(meed_file_join(folder, "roster.json", path, sizeof path));
    MEED_TRY_OUT(meed_file_write_atomic(path, text.data, text.size));
out:
    meed_heap_free(entries);
    meed_buf_clear(&text);
    return st;
}

static enum meed_status make_ledger_key(const char *folder)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES], hex[MEED_SHA256_HEX_BYTES];
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
    struct meed_signature_key *key = NULL;
    MEED_TRY(meed_file_join(folder, "ledger.key", path, sizeof path));
    MEED_TRY(meed_signature_key_make(path));
    MEED_TRY_OUT(meed_signature_key_open(path, &key));
    meed_signature_key_public(key, public_key);
    meed_sha256_hex(public_key, hex);
    hex[MEED_SHA256_HEX_BYTES - 1] = '\n';
    MEED_TRY_OUT(meed_file_join(folder, "ledger.pub", path, sizeof path));
    MEED_TRY_OUT(meed_file_write_atomic(path, hex, MEED_SHA256_HEX_BYTES));
out:
    meed_signature_key_close(key);
    return st;
}

static enum meed_status check_ids(const char *const *ids, int32_t count)
{
    struct meed_registry *registry = NULL; /* its rules are the rules */
    MEED_TRY(meed_registry_create(ids, count, true, &registry));
    meed_registry_destroy(registry);
    return MEED_OK;
}

enum meed_status meed_certificates_provision(const char *folder, const char *server_names,
                                             const char *const *client_ids, int32_t client_count)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES], san[TEXT_BYTES];
    struct identity ca = {NULL, NULL};
    MEED_TRY(check_ids(client_ids, client_count));
    MEED_TRY(server_san(server_names, san));
    MEED_TRY(meed_file_join(folder, "ca.pem", path, sizeof path));
    if (meed_file_exists(path)) {
        return MEED_FAIL(MEED_STATE, "%s is there already; choose another folder", path);
    }
    MEED_TRY(meed_file_make_folder(folder));
    if (chmod(folder, 0700) != 0) {
        return MEED_FAIL(MEED_IO, "cannot close %s to others: %s", folder, strerror(errno));
    }
    MEED_TRY_OUT(make_identity("meed federation CA", NULL, NULL, NULL, &ca));
    MEED_TRY_OUT(make_server(folder, server_names, &ca));
    MEED_TRY_OUT(make_clients(folder, client_ids, client_count, &ca));
    MEED_TRY_OUT(make_ledger_key(folder));
    MEED_TRY_OUT(write_identity(folder, "ca", &ca)); /* last: its presence means all is there */
    MEED_TRY_OUT(meed_file_sync_folder_of(path));
out:
    identity_clear(&ca);
    return st;
}

/* ---- checking -------------------------------------------------------------------------------- */

struct pair {
    X509_STORE *trusted;
    STACK_OF(X509) * chain; /* the certificate, then what else its file holds */
    EVP_PKEY *pkey;
};

static void pair_clear(struct pair *pair)
{
    X509_STORE_free(pair->trusted);
    sk_X509_pop_free(pair->chain, X509_free);
    EVP_PKEY_free(pair->pkey);
    ERR_clear_error();
}

static enum meed_status open_pem(const char *path, FILE **file)
{
    *file = fopen(path, "re");
    if (!*file) {
        int code = errno;
        return MEED_FAIL(code == ENOENT ? MEED_NOT_FOUND : MEED_IO, "cannot open %.512s: %s", path,
                         strerror(code));
    }
    return MEED_OK;
}

static enum meed_status not_pem(const char *path, const char *what)
{
    return MEED_FAIL(MEED_CONFIG, "%.512s holds no %s in PEM form; `meed provision` writes them",
                     path, what);
}

static enum meed_status read_chain(const char *path, STACK_OF(X509) * chain)
{
    FILE *file = NULL;
    MEED_TRY(open_pem(path, &file));
    for (X509 *x509 = NULL; (x509 = PEM_read_X509(file, NULL, NULL, NULL)) != NULL;) {
        if (sk_X509_push(chain, x509) <= 0) {
            X509_free(x509);
            break;
        }
    }
    fclose(file);
    return sk_X509_num(chain) > 0 ? MEED_OK : not_pem(path, "certificate");
}

static enum meed_status read_pair(const char *ca_path, const char *certificate_path,
                                  const char *key_path, struct pair *pair)
{
    enum meed_status st = MEED_OK;
    FILE *file = NULL;
    STACK_OF(X509) *authorities = sk_X509_new_null();
    pair->trusted = X509_STORE_new();
    pair->chain = sk_X509_new_null();
    if (!authorities || !pair->trusted || !pair->chain) {
        st = crypto_failed("hold certificates");
        goto out;
    }
    MEED_TRY_OUT(read_chain(ca_path, authorities));
    for (int i = 0; i < sk_X509_num(authorities); i++) {
        X509_STORE_add_cert(pair->trusted, sk_X509_value(authorities, i));
    }
    MEED_TRY_OUT(read_chain(certificate_path, pair->chain));
    MEED_TRY_OUT(open_pem(key_path, &file));
    pair->pkey = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    if (!pair->pkey) {
        st = not_pem(key_path, "private key");
    } else if (X509_check_private_key(sk_X509_value(pair->chain, 0), pair->pkey) != 1) {
        st = MEED_FAIL(MEED_CONFIG,
                       "%.400s is not the key of %.400s; give two files that `meed provision` made "
                       "together",
                       key_path, certificate_path);
    }
out:
    sk_X509_pop_free(authorities, X509_free);
    return st;
}

enum meed_status meed_certificates_check_server(const char *ca_path, const char *certificate_path,
                                                const char *key_path)
{
    struct pair pair = {NULL, NULL, NULL};
    enum meed_status st = read_pair(ca_path, certificate_path, key_path, &pair);
    pair_clear(&pair);
    return st;
}

enum meed_status meed_certificates_check_client(const char *ca_path, const char *certificate_path,
                                                const char *key_path)
{
    enum meed_status st = MEED_OK;
    struct pair pair = {NULL, NULL, NULL};
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    MEED_TRY_OUT(read_pair(ca_path, certificate_path, key_path, &pair));
    if (!context ||
        X509_STORE_CTX_init(context, pair.trusted, sk_X509_value(pair.chain, 0), pair.chain) != 1) {
        st = crypto_failed("check a certificate");
        goto out;
    }
    X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_CLIENT);
    if (X509_verify_cert(context) != 1) {
        st = MEED_FAIL(MEED_UNAUTHENTICATED,
                       "%.400s is no client certificate of the authority in %.400s (%s); ask the "
                       "aggregator's operator for a new one",
                       certificate_path, ca_path,
                       X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
    }
out:
    X509_STORE_CTX_free(context);
    pair_clear(&pair);
    return st;
}
