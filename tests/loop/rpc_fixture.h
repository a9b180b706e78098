/* A toy service and a server with clients on any of the three transports, for tests/loop/test_rpc*.
 *
 * Header only, because each test is one program. Certificates are made with OpenSSL when a test
 * starts: a CA, a server (both uses, so that the probe may call itself) and clients, all valid for
 * an hour.
 */
#ifndef MEED_LOOP_RPC_FIXTURE_H
#define MEED_LOOP_RPC_FIXTURE_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "proto/rpc.h"

/* ---- certificates ---------------------------------------------------------------------------- */

struct identity {
    char certificate[8192];
    char key[4096];
    X509 *x509;
    EVP_PKEY *pkey;
};

static void identity_add(X509 *x509, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
}

static void bio_text(BIO *bio, char *text, size_t bytes)
{
    int length = BIO_read(bio, text, (int)bytes - 1);
    assert_true(length > 0);
    text[length] = 0;
    BIO_free(bio);
}

/* issuer NULL: a CA. valid_from/until in seconds from now. */
static void identity_make(struct identity *id, const struct identity *issuer, const char *name,
                          const char *san, const char *usage, long valid_until_s)
{
    id->pkey = EVP_EC_gen("P-256");
    id->x509 = X509_new();
    assert_non_null(id->pkey);
    X509_set_version(id->x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id->x509),
                     (long)(meed_clock_monotonic_ns() & 0xFFFFFFF));
    X509_gmtime_adj(X509_getm_notBefore(id->x509), -7200);
    X509_gmtime_adj(X509_getm_notAfter(id->x509), valid_until_s);
    X509_NAME *subject = X509_get_subject_name(id->x509);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509 *parent = issuer ? issuer->x509 : id->x509;
    X509_set_issuer_name(id->x509, X509_get_subject_name(parent));
    X509_set_pubkey(id->x509, id->pkey);
    identity_add(id->x509, parent, NID_basic_constraints, issuer ? "CA:FALSE" : "CA:TRUE");
    if (san) {
        identity_add(id->x509, parent, NID_subject_alt_name, san);
    }
    if (usage) {
        identity_add(id->x509, parent, NID_ext_key_usage, usage);
    }
    assert_true(X509_sign(id->x509, issuer ? issuer->pkey : id->pkey, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, id->x509);
    bio_text(bio, id->certificate, sizeof id->certificate);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, id->pkey, NULL, NULL, 0, NULL, NULL);
    bio_text(bio, id->key, sizeof id->key);
}

static void identity_free(struct identity *id)
{
    X509_free(id->x509);
    EVP_PKEY_free(id->pkey);
}

/* ---- the toy service ------------------------------------------------------------------------- */

struct toy {
    atomic_int half_closed, failed, done, cancelled, wakes, timers;
    atomic_llong bytes;
    atomic_bool owed; /* a wake came while a write was pending */
    pthread_mutex_t mutex;
    struct meed_rpc_call *watcher; /* held */
};

static void toy_echo(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    (void)user;
    meed_rpc_call_finish(call, MEED_OK, NULL, bytes, size);
}

static void toy_fail(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    (void)user;
    (void)size;
    enum meed_status status = (enum meed_status)((const uint8_t *)bytes)[0];
    meed_rpc_call_finish(call, status, "line 1\nline 2 %20 ünïcode", NULL, 0);
}

static void toy_who(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    (void)user;
    (void)bytes;
    (void)size;
    char text[256], hex[MEED_SHA256_HEX_BYTES];
    const struct meed_rpc_peer *peer = meed_rpc_call_peer(call);
    meed_sha256_hex(peer->certificate_sha256, hex);
    int length = snprintf(text, sizeof text, "%s|%d|%s", peer->client_id, peer->authenticated, hex);
    meed_rpc_call_finish(call, MEED_OK, NULL, text, (size_t)length);
}

/* Count: the request holds {messages, bytes each} as two int32. */
static void toy_count_more(void *user, struct meed_rpc_call *call)
{
    (void)user;
    int32_t *state = meed_rpc_call_state(call);
    if (state[0] <= 0) {
        meed_rpc_call_finish(call, MEED_OK, NULL, NULL, 0);
        return;
    }
    char *block = calloc(1, (size_t)state[1]);
    memset(block, state[0] & 0x7F, (size_t)state[1]);
    state[0]--;
    meed_rpc_call_write(call, block, (size_t)state[1]);
    free(block);
}

static void toy_count(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    int32_t *state = calloc(2, sizeof *state);
    assert_int_equal(size, 8);
    memcpy(state, bytes, size);
    meed_rpc_call_set_state(call, state);
    toy_count_more(user, call);
}

static void toy_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    struct toy *toy = user;
    free(meed_rpc_call_state(call));
    atomic_fetch_add(&toy->cancelled, cancelled ? 1 : 0);
    atomic_fetch_add(&toy->done, 1);
}

static void toy_sum_start(void *user, struct meed_rpc_call *call)
{
    (void)user;
    meed_rpc_call_set_state(call, calloc(1, sizeof(int64_t)));
    meed_rpc_call_read_next(call);
}

static void toy_sum_message(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct toy *toy = user;
    int64_t *sum = meed_rpc_call_state(call);
    for (size_t i = 0; i < size; i += 4096) {
        *sum += ((const uint8_t *)bytes)[i];
    }
    atomic_fetch_add(&toy->bytes, (long long)size);
    meed_rpc_call_read_next(call);
}

static void toy_sum_half_closed(void *user, struct meed_rpc_call *call)
{
    struct toy *toy = user;
    atomic_fetch_add(&toy->half_closed, 1);
    meed_rpc_call_finish(call, MEED_OK, NULL, meed_rpc_call_state(call), sizeof(int64_t));
}

static void toy_failed(void *user, struct meed_rpc_call *call)
{
    struct toy *toy = user;
    (void)call;
    atomic_fetch_add(&toy->failed, 1);
}

static void toy_refuse(void *user, struct meed_rpc_call *call)
{
    (void)user;
    meed_rpc_call_finish(call, MEED_DENIED, "not on the roster", NULL, 0);
}

static void toy_watch(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct toy *toy = user;
    (void)bytes;
    (void)size;
    pthread_mutex_lock(&toy->mutex);
    if (!toy->watcher) {
        meed_rpc_call_hold(call);
        toy->watcher = call;
    }
    pthread_mutex_unlock(&toy->mutex);
    meed_rpc_call_write(call, "hello", 5);
}

static void toy_watch_wake(void *user, struct meed_rpc_call *call)
{
    struct toy *toy = user;
    int count = atomic_fetch_add(&toy->wakes, 1) + 1;
    if (meed_rpc_call_write_pending(call)) {
        atomic_store(&toy->owed, true);
    } else {
        meed_rpc_call_write(call, &count, sizeof count);
    }
}

static void toy_watch_writable(void *user, struct meed_rpc_call *call)
{
    struct toy *toy = user;
    if (atomic_exchange(&toy->owed, false)) {
        meed_rpc_call_write(call, "owed", 4);
    }
}

static void toy_timer_message(void *user, struct meed_rpc_call *call, const void *bytes,
                              size_t size)
{
    (void)user;
    (void)bytes;
    (void)size;
    meed_rpc_call_set_timer(call, 20);
}

static void toy_timer(void *user, struct meed_rpc_call *call)
{
    struct toy *toy = user;
    atomic_fetch_add(&toy->timers, 1);
    meed_rpc_call_finish(call, MEED_OK, NULL, "rang", 4);
}

static void toy_read(void *user, struct meed_rpc_call *call)
{
    (void)user;
    meed_rpc_call_read_next(call);
}

static const struct meed_rpc_method toy_methods[] = {
    {.path = "/toy.Toy/Echo", .message = toy_echo, .done = toy_done},
    {.path = "/toy.Toy/Fail", .message = toy_fail, .done = toy_done},
    {.path = "/toy.Toy/Who", .message = toy_who, .done = toy_done},
    {.path = "/toy.Toy/Mute", .done = toy_done}, /* never answers */
    {.path = "/toy.Toy/Timer", .message = toy_timer_message, .timer = toy_timer, .done = toy_done},
    {.path = "/toy.Toy/Count",
     .shape = MEED_RPC_SERVER_STREAM,
     .message = toy_count,
     .writable = toy_count_more,
     .done = toy_done},
    {.path = "/toy.Toy/Sum",
     .shape = MEED_RPC_CLIENT_STREAM,
     .start = toy_sum_start,
     .message = toy_sum_message,
     .half_closed = toy_sum_half_closed,
     .failed = toy_failed,
     .done = toy_done},
    {.path = "/toy.Toy/Refuse",
     .shape = MEED_RPC_CLIENT_STREAM,
     .start = toy_refuse,
     .failed = toy_failed,
     .done = toy_done},
    {.path = "/toy.Toy/Deaf", .shape = MEED_RPC_CLIENT_STREAM, .done = toy_done}, /* never reads */
    {.path = "/toy.Toy/Patient",
     .shape = MEED_RPC_CLIENT_STREAM,
     .progress_ms = 100,
     .start = toy_read,
     .failed = toy_failed,
     .done = toy_done},
    {.path = "/toy.Toy/Watch",
     .shape = MEED_RPC_SERVER_STREAM,
     .endless = true,
     .message = toy_watch,
     .writable = toy_watch_writable,
     .wake = toy_watch_wake,
     .done = toy_done},
};

/* ---- server and clients on a transport ---------------------------------------------------------
 */

enum transport { TRANSPORT_LOOP, TRANSPORT_PLAIN, TRANSPORT_TLS };

struct bed {
    enum transport transport;
    struct toy toy;
    struct identity ca, server_id, client_id;
    struct meed_rpc_tls client_tls;
    struct meed_rpc_server *server;
    struct meed_rpc_client *client;
    char target[64];
};

static struct meed_rpc_client *bed_client(struct bed *bed, const char *id)
{
    struct meed_rpc_client *client = NULL;
    if (bed->transport == TRANSPORT_LOOP) {
        assert_int_equal(meed_rpc_loop_client_open(bed->server, id, true, &client), MEED_OK);
        return client;
    }
    bool tls = bed->transport == TRANSPORT_TLS;
    struct meed_rpc_client_options options = {
        .target = bed->target,
        .tls = tls ? &bed->client_tls : NULL,
        .insecure = !tls,
        .client_id = id,
        .own_connection = true,
    };
    assert_int_equal(meed_rpc_grpc_client_open(&options, &client), MEED_OK);
    return client;
}

static inline const struct meed_rpc_service *toy_service(struct bed *bed)
{
    static struct meed_rpc_service service;
    service = (struct meed_rpc_service){
        .name = "toy.Toy",
        .methods = toy_methods,
        .method_count = MEED_COUNT(toy_methods),
        .user = &bed->toy,
    };
    return &service;
}

/* Certificates only; nothing of gRPC has started. */
static struct bed *bed_prepare(enum transport transport)
{
    struct bed *bed = calloc(1, sizeof *bed);
    bed->transport = transport;
    pthread_mutex_init(&bed->toy.mutex, NULL);
    identity_make(&bed->ca, NULL, "Test CA", NULL, NULL, 3600);
    identity_make(&bed->server_id, &bed->ca, "server", "DNS:localhost,IP:127.0.0.1",
                  "serverAuth,clientAuth", 3600);
    identity_make(&bed->client_id, &bed->ca, "Alice", "URI:meed:client/alice", "clientAuth", 3600);
    bed->client_tls = (struct meed_rpc_tls){bed->ca.certificate, bed->client_id.certificate,
                                            bed->client_id.key, NULL};
    return bed;
}

static void bed_serve(struct bed *bed, const struct meed_rpc_service *service, bool probe)
{
    if (bed->transport == TRANSPORT_LOOP) {
        assert_int_equal(meed_rpc_loop_server_start(service, 4, &bed->server), MEED_OK);
        return;
    }
    struct meed_rpc_tls tls = {bed->ca.certificate, bed->server_id.certificate, bed->server_id.key,
                               NULL};
    struct meed_rpc_server_options options = {
        .address = "127.0.0.1:0",
        .tls = bed->transport == TRANSPORT_TLS ? &tls : NULL,
        .insecure = bed->transport == TRANSPORT_PLAIN,
        .probe = probe,
        .probe_period_ms = 200,
    };
    assert_int_equal(meed_rpc_grpc_server_start(&options, service, &bed->server), MEED_OK);
    snprintf(bed->target, sizeof bed->target, "127.0.0.1:%d", meed_rpc_server_port(bed->server));
}

static inline struct bed *bed_open(enum transport transport, bool probe)
{
    struct bed *bed = bed_prepare(transport);
    bed_serve(bed, toy_service(bed), probe);
    bed->client = bed_client(bed, "alice");
    return bed;
}

static void bed_close(struct bed *bed)
{
    meed_rpc_client_close(bed->client);
    if (bed->toy.watcher) {
        meed_rpc_call_release(bed->toy.watcher);
    }
    meed_rpc_server_destroy(bed->server);
    identity_free(&bed->ca);
    identity_free(&bed->server_id);
    identity_free(&bed->client_id);
    pthread_mutex_destroy(&bed->toy.mutex);
    free(bed);
}

/* Waits up to two seconds until a counter reaches a value. */
static inline bool reaches(atomic_int *counter, int value)
{
    for (int i = 0; i < 2000 && atomic_load(counter) < value; i++) {
        meed_clock_sleep_ms(1);
    }
    return atomic_load(counter) >= value;
}

#endif
