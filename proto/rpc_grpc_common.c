/* See rpc_grpc_common.h. */
#include "proto/rpc_grpc_common.h"

#include <grpc/grpc_security_constants.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "proto/codec.h"

/* ---- core ----------------------------------------------------------------------------------- */

/* The latest TLS failure: core tells it to the log only, and the person who waits for a deadline
 * needs it most. */
static pthread_mutex_t tls_mutex = PTHREAD_MUTEX_INITIALIZER;
static char tls_trouble[200];
static bool serves; /* this process has been a server */

static void note_tls(const char *text)
{
    if (strstr(text, "Handshake failed") || strstr(text, "No match found for server name")) {
        pthread_mutex_lock(&tls_mutex);
        snprintf(tls_trouble, sizeof tls_trouble, "%.199s", text);
        pthread_mutex_unlock(&tls_mutex);
    }
}

void meed_rpc_grpc_common_tls_trouble(char text[200])
{
    pthread_mutex_lock(&tls_mutex);
    memcpy(text, tls_trouble, sizeof tls_trouble);
    pthread_mutex_unlock(&tls_mutex);
}

void meed_rpc_grpc_common_tls_forget(void)
{
    pthread_mutex_lock(&tls_mutex);
    tls_trouble[0] = 0;
    pthread_mutex_unlock(&tls_mutex);
}

bool meed_rpc_grpc_common_distrusts(void)
{
    pthread_mutex_lock(&tls_mutex);
    bool distrusts = !serves && strstr(tls_trouble, "certificate verify failed") != NULL;
    pthread_mutex_unlock(&tls_mutex);
    return distrusts;
}

void meed_rpc_grpc_common_serves(void)
{
    pthread_mutex_lock(&tls_mutex);
    serves = true;
    pthread_mutex_unlock(&tls_mutex);
}

/* Core logs peers' header values and TLS errors: escaped, cut, at most ten lines a second. */
static void log_line(gpr_log_func_args *args)
{
    static atomic_llong window_second, window_lines;
    if (args->severity != GPR_LOG_SEVERITY_ERROR) {
        return;
    }
    char text[400];
    size_t length = 0;
    for (const char *c = args->message; *c && length < sizeof text - 1; c++) {
        text[length++] = (*c >= 0x20 && *c < 0x7F) ? *c : '?';
    }
    text[length] = 0;
    note_tls(text);
    long long second = meed_clock_monotonic_ns() / 1000000000;
    if (atomic_exchange(&window_second, second) != second) {
        atomic_store(&window_lines, 0);
    }
    if (atomic_fetch_add(&window_lines, 1) < 10) {
        MEED_LOG_WARN("proto", "gRPC: %s", text);
    }
}

static void install_log(void)
{
    gpr_set_log_function(log_line);
}

void meed_rpc_grpc_common_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_once(&once, install_log);
    grpc_init();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void meed_rpc_grpc_common_stop(void)
{
    grpc_shutdown();
}

/* ---- channel arguments ----------------------------------------------------------------------- */

static void add_int(struct meed_rpc_grpc_args *args, const char *key, int value)
{
    MEED_ASSERT(args->args.num_args < MEED_RPC_GRPC_ARGS);
    args->items[args->args.num_args++] =
        (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};
}

static void add_text(struct meed_rpc_grpc_args *args, const char *key, const char *value)
{
    MEED_ASSERT(args->args.num_args < MEED_RPC_GRPC_ARGS);
    args->items[args->args.num_args++] = (grpc_arg){.type = GRPC_ARG_STRING,
                                                    .key = (char *)(uintptr_t)key,
                                                    .value.string = (char *)(uintptr_t)value};
}

static void add_shared(struct meed_rpc_grpc_args *args)
{
    args->args.args = args->items;
    add_int(args, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MEED_LIMIT_MESSAGE_BYTES);
    add_int(args, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, MEED_LIMIT_MESSAGE_BYTES);
    add_int(args, GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1); /* identity only */
    add_int(args, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

void meed_rpc_grpc_common_server_args(struct meed_rpc_grpc_args *args)
{
    memset(args, 0, sizeof *args);
    add_shared(args);
    add_int(args, GRPC_ARG_HTTP2_BDP_PROBE, 0);
    add_int(args, GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, MEED_LIMIT_READ_CHUNK_BYTES);
    add_int(args, GRPC_ARG_KEEPALIVE_TIME_MS, MEED_LIMIT_SERVER_KEEPALIVE_MS);
    add_int(args, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, MEED_LIMIT_SERVER_KEEPALIVE_TIMEOUT_MS);
    add_int(args, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
            MEED_LIMIT_SERVER_MIN_PING_MS);
    add_int(args, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, MEED_LIMIT_HANDSHAKE_MS);
    add_int(args, GRPC_ARG_MAX_CONNECTION_IDLE_MS, MEED_LIMIT_IDLE_CONNECTION_MS);
    add_int(args, GRPC_ARG_MAX_CONCURRENT_STREAMS, MEED_LIMIT_STREAMS_PER_CONNECTION);
    add_int(args, GRPC_ARG_ALLOW_REUSEPORT, 0);
    args->quota = grpc_resource_quota_create("meed");
    grpc_resource_quota_resize(args->quota, MEED_LIMIT_QUOTA_BYTES);
    args->items[args->args.num_args++] =
        (grpc_arg){.type = GRPC_ARG_POINTER,
                   .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
                   .value.pointer = {args->quota, grpc_resource_quota_arg_vtable()}};
}

static bool is_loopback(const char *target)
{
    return strncmp(target, "127.", 4) == 0 || strncmp(target, "localhost", 9) == 0 ||
           strncmp(target, "[::1]", 5) == 0 || strncmp(target, "unix:", 5) == 0;
}

/* The idempotent unary methods are retried by core; PushUpdate resumes in the application. */
static const char retry_config[] =
    "{\"methodConfig\":[{\"name\":["
    "{\"service\":\"meed.v1.Federation\",\"method\":\"Join\"},"
    "{\"service\":\"meed.v1.Federation\",\"method\":\"QueryPush\"},"
    "{\"service\":\"meed.v1.Federation\",\"method\":\"GetReceipt\"},"
    "{\"service\":\"meed.v1.Federation\",\"method\":\"ReadLedger\"}],"
    "\"retryPolicy\":{\"maxAttempts\":5,\"initialBackoff\":\"0.05s\",\"maxBackoff\":\"1s\","
    "\"backoffMultiplier\":2.0,\"retryableStatusCodes\":[\"UNAVAILABLE\"]}}]}";

void meed_rpc_grpc_common_client_args(struct meed_rpc_grpc_args *args, const char *target,
                                      const char *server_name, bool own_connection)
{
    memset(args, 0, sizeof *args);
    add_shared(args);
    add_int(args, GRPC_ARG_KEEPALIVE_TIME_MS, MEED_LIMIT_CLIENT_KEEPALIVE_MS);
    add_int(args, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, MEED_LIMIT_CLIENT_KEEPALIVE_TIMEOUT_MS);
    add_int(args, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    add_int(args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    add_int(args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 10000);
    add_text(args, GRPC_ARG_SERVICE_CONFIG, retry_config);
    if (own_connection) {
        add_int(args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    }
    if (is_loopback(target)) { /* a proxy variable would send even 127.0.0.1 elsewhere */
        add_int(args, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    }
    if (server_name) {
        add_text(args, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, server_name);
    }
}

/* ---- credentials ----------------------------------------------------------------------------- */

static enum meed_status check_tls(const struct meed_rpc_tls *tls)
{
    if (!tls->ca_pem || !tls->certificate_pem || !tls->key_pem) {
        return MEED_FAIL(MEED_CONFIG,
                         "mTLS needs a CA certificate, a certificate and its key: make "
                         "them with `meed provision`, or ask for --insecure");
    }
    if (!strstr(tls->ca_pem, "-----BEGIN CERTIFICATE-----") ||
        !strstr(tls->certificate_pem, "-----BEGIN CERTIFICATE-----") ||
        !strstr(tls->key_pem, "PRIVATE KEY-----")) {
        return MEED_FAIL(MEED_CONFIG, "a certificate or key is not in PEM form: expected text "
                                      "between -----BEGIN … and -----END … lines");
    }
    return MEED_OK;
}

enum meed_status meed_rpc_grpc_common_server_credentials(const struct meed_rpc_tls *tls,
                                                         grpc_server_credentials **credentials)
{
    if (!tls) {
        *credentials = grpc_insecure_server_credentials_create();
        return MEED_OK;
    }
    MEED_TRY(check_tls(tls));
    grpc_ssl_pem_key_cert_pair pair = {tls->key_pem, tls->certificate_pem};
    grpc_ssl_server_certificate_config *config =
        grpc_ssl_server_certificate_config_create(tls->ca_pem, &pair, 1);
    grpc_ssl_server_credentials_options *options =
        config ? grpc_ssl_server_credentials_create_options_using_config(
                     GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, config)
               : NULL;
    *credentials = options ? grpc_ssl_server_credentials_create_with_options(options) : NULL;
    if (!*credentials) {
        return MEED_FAIL(MEED_CONFIG, "TLS refuses the server's certificate or key");
    }
    return MEED_OK;
}

enum meed_status meed_rpc_grpc_common_client_credentials(const struct meed_rpc_tls *tls,
                                                         grpc_channel_credentials **credentials)
{
    if (!tls) {
        *credentials = grpc_insecure_credentials_create();
        return MEED_OK;
    }
    MEED_TRY(check_tls(tls));
    grpc_ssl_pem_key_cert_pair pair = {tls->key_pem, tls->certificate_pem};
    *credentials = grpc_ssl_credentials_create_ex(tls->ca_pem, &pair, NULL, NULL);
    if (!*credentials) {
        return MEED_FAIL(MEED_CONFIG, "TLS refuses the client's certificate or key");
    }
    return MEED_OK;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

grpc_byte_buffer *meed_rpc_grpc_common_buffer(const void *bytes, size_t size)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(size > 0 ? bytes : "", size);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

bool meed_rpc_grpc_common_slice(grpc_byte_buffer *buffer, grpc_slice *slice)
{
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, buffer)) {
        return false;
    }
    *slice = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    return true;
}

gpr_timespec meed_rpc_grpc_common_deadline(int64_t delay_ms)
{
    if (delay_ms < 0) {
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    }
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(delay_ms, GPR_TIMESPAN));
}

/* ---- metadata, status, identity ---------------------------------------------------------------
 */

static bool copy_value(const char *bytes, size_t length, char *text, size_t text_bytes)
{
    text[0] = 0;
    if (length >= text_bytes || memchr(bytes, 0, length)) {
        return false;
    }
    memcpy(text, bytes, length);
    text[length] = 0;
    return true;
}

bool meed_rpc_grpc_common_metadata(const grpc_metadata_array *metadata, const char *key, char *text,
                                   size_t text_bytes)
{
    text[0] = 0;
    for (size_t i = 0; i < metadata->count; i++) {
        const grpc_metadata *entry = &metadata->metadata[i];
        if (grpc_slice_str_cmp(entry->key, key) == 0) {
            return copy_value((const char *)GRPC_SLICE_START_PTR(entry->value),
                              GRPC_SLICE_LENGTH(entry->value), text, text_bytes);
        }
    }
    return false;
}

enum meed_status meed_rpc_grpc_common_status(grpc_status_code code,
                                             const grpc_metadata_array *trailers)
{
    char name[MEED_LIMIT_WORD_BYTES];
    if (meed_rpc_grpc_common_metadata(trailers, MEED_RPC_GRPC_STATUS_KEY, name, sizeof name)) {
        for (int i = 0; i < MEED_STATUS_COUNT; i++) {
            enum meed_status status = (enum meed_status)i;
            if (strcmp(meed_status_name(status), name) == 0 &&
                meed_status_grpc_code(status) == (int)code) {
                return status;
            }
        }
    }
    return meed_status_from_grpc((int)code);
}

static int base64_value(char c)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

/* The certificate's name is the SHA-256 of its DER bytes, as `openssl x509 -fingerprint` prints. */
static bool hash_pem(const char *pem, size_t length, uint8_t digest[MEED_SHA256_BYTES])
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    if (length < sizeof begin || memcmp(pem, begin, sizeof begin - 1) != 0) {
        return false;
    }
    uint8_t der[16384];
    size_t size = 0;
    uint32_t bits = 0;
    int bit_count = 0;
    for (size_t i = sizeof begin - 1; i < length && pem[i] != '-' && pem[i] != '='; i++) {
        int value = base64_value(pem[i]);
        if (value < 0) {
            continue; /* line ends */
        }
        bits = bits << 6 | (uint32_t)value;
        bit_count += 6;
        if (bit_count >= 8) {
            bit_count -= 8;
            if (size == sizeof der) {
                return false;
            }
            der[size++] = (uint8_t)(bits >> bit_count);
        }
    }
    meed_sha256(der, size, digest);
    return size > 0;
}

/* The one URI SAN of the form meed:client/<id>; two of them are none. */
static void read_uri(grpc_auth_context *context, struct meed_rpc_peer *peer)
{
    static const char scheme[] = "meed:client/";
    int found = 0;
    grpc_auth_property_iterator uris =
        grpc_auth_context_find_properties_by_name(context, GRPC_PEER_URI_PROPERTY_NAME);
    const grpc_auth_property *uri;
    while ((uri = grpc_auth_property_iterator_next(&uris)) != NULL) {
        if (uri->value_length > sizeof scheme - 1 &&
            memcmp(uri->value, scheme, sizeof scheme - 1) == 0) {
            found++;
            copy_value(uri->value + sizeof scheme - 1, uri->value_length - (sizeof scheme - 1),
                       peer->client_id, sizeof peer->client_id);
        }
    }
    if (found != 1) {
        peer->client_id[0] = 0;
    }
}

void meed_rpc_grpc_common_peer(grpc_call *call, const grpc_metadata_array *metadata,
                               struct meed_rpc_peer *peer)
{
    char *address = grpc_call_get_peer(call);
    snprintf(peer->address, sizeof peer->address, "%s", address ? address : "");
    gpr_free(address);
    grpc_auth_context *context = grpc_call_auth_context(call);
    if (context && grpc_auth_context_peer_is_authenticated(context)) {
        grpc_auth_property_iterator certificates =
            grpc_auth_context_find_properties_by_name(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
        const grpc_auth_property *pem = grpc_auth_property_iterator_next(&certificates);
        peer->authenticated =
            pem && hash_pem(pem->value, pem->value_length, peer->certificate_sha256);
        if (peer->authenticated) {
            read_uri(context, peer);
        }
    } else {
        meed_rpc_grpc_common_metadata(metadata, MEED_RPC_GRPC_CLIENT_KEY, peer->client_id,
                                      sizeof peer->client_id);
    }
    grpc_auth_context_release(context);
    if (!meed_codec_id_valid(peer->client_id)) {
        peer->client_id[0] = 0;
    }
}
