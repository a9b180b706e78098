/* Provisioned keys: what each certificate may do, who can read what, and that nothing is
 * overwritten.
 *
 * Goal: the folder is what server, clients and roster expect of it. Method: the command's own
 * source is compiled into this test (the front end is no library); certificates are checked with
 * OpenSSL's verifier for both purposes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include "cli/certificates.c"

static char folder[64];

static X509 *load(const char *name)
{
    char path[MEED_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    X509 *x509 = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    assert_non_null(x509);
    return x509;
}

static bool good_for(X509 *x509, X509 *ca, int purpose)
{
    X509_STORE *trusted = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    X509_STORE_add_cert(trusted, ca);
    X509_STORE_CTX_init(context, trusted, x509, NULL);
    X509_STORE_CTX_set_purpose(context, purpose);
    bool good = X509_verify_cert(context) == 1;
    X509_STORE_CTX_free(context);
    X509_STORE_free(trusted);
    return good;
}

static mode_t mode_of(const char *name)
{
    char path[MEED_PATH_BYTES];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(stat(path, &info), 0);
    return info.st_mode & 0777;
}

static void certificates_are_what_each_side_needs(void **state)
{
    (void)state;
    static const char *const ids[] = {"north", "south"};
    assert_int_equal(meed_certificates_provision(folder, "localhost,127.0.0.1,::1", ids, 2),
                     MEED_OK);
    X509 *ca = load("ca.pem"), *server = load("server.pem"), *north = load("client-north.pem");
    assert_true(good_for(server, ca, X509_PURPOSE_SSL_SERVER));
    assert_true(good_for(server, ca, X509_PURPOSE_SSL_CLIENT));
    assert_true(good_for(north, ca, X509_PURPOSE_SSL_CLIENT));
    assert_false(good_for(north, ca, X509_PURPOSE_SSL_SERVER));
    assert_int_equal(X509_check_host(server, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(server, "127.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(server, "::1", 0), 1);
    assert_int_equal(X509_check_host(server, "example.org", 0, 0, NULL), 0);
    static const char *const secret[] = {"ca.key", "server.key", "client-south.key", "ledger.key"};
    for (size_t i = 0; i < MEED_COUNT(secret); i++) {
        assert_int_equal(mode_of(secret[i]), 0600);
    }
    assert_int_equal(mode_of("."), 0700);

    char path[MEED_PATH_BYTES];
    struct meed_registry *registry = NULL;
    int32_t client = -1;
    struct meed_rpc_peer peer = {.client_id = "north", .authenticated = true};
    unsigned int size = MEED_SHA256_BYTES;
    X509_digest(north, EVP_sha256(), peer.certificate_sha256, &size);
    snprintf(path, sizeof path, "%s/roster.json", folder);
    assert_int_equal(meed_registry_load(path, false, &registry), MEED_OK);
    assert_int_equal(meed_registry_identify(registry, &peer, &client), MEED_OK);
    peer.certificate_sha256[0] ^= 1;
    assert_int_equal(meed_registry_identify(registry, &peer, &client), MEED_DENIED);
    meed_registry_destroy(registry);
    X509_free(ca);
    X509_free(server);
    X509_free(north);
    assert_int_equal(meed_certificates_provision(folder, "localhost", ids, 2), MEED_STATE);
}

static void certificates_refuse_bad_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a"}, *const bad[] = {"a/b"}, *const twice[] = {"a", "a"};
    assert_int_equal(meed_certificates_provision("/nonexistent/x", "", good, 1), MEED_ARG);
    assert_int_equal(meed_certificates_provision("/nonexistent/x", "a,,b", good, 1), MEED_ARG);
    assert_int_equal(meed_certificates_provision("/nonexistent/x", "a b", good, 1), MEED_ARG);
    assert_int_equal(meed_certificates_provision("/nonexistent/x", "a", bad, 1), MEED_CONFIG);
    assert_int_equal(meed_certificates_provision("/nonexistent/x", "a", twice, 2), MEED_CONFIG);
    assert_int_equal(meed_certificates_provision("/nonexistent/x", "a", good, 0), MEED_CONFIG);
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/meed_keys_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"ca.pem",           "ca.key",          "server.pem",
                                        "server.key",       "ledger.key",      "ledger.pub",
                                        "client-north.pem", "roster.json",     "client-north.key",
                                        "client-south.pem", "client-south.key"};
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        char path[MEED_PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificates_are_what_each_side_needs),
        cmocka_unit_test(certificates_refuse_bad_names),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
