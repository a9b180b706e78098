/* The server over gRPC core: options, life, and the probe of its own listener.
 *
 * The work is done by the listener (rpc_grpc_listener.c) and the shared core (rpc_core.c). What is
 * left here is why the two are apart: a listener of this version of core that once ran out of
 * descriptors never accepts again, although all are free and it looks healthy (CVE-2023-4785). So
 * the server calls itself, over a fresh connection each time, as a connect() alone is answered by
 * the kernel's backlog and proves nothing; after two silences the listener is taken down and
 * rebuilt on the same port. Clients see a dropped connection, and uploads resume.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "proto/codec.h"
#include "proto/rpc_grpc_common.h"
#include "proto/rpc_grpc_listener.h"

struct grpc_server_owner {
    struct meed_rpc_server base;
    char address[MEED_LIMIT_ADDRESS_BYTES];
    struct meed_rpc_tls tls; /* owned copies */
    bool insecure;
    int poller_count;
    struct meed_rpc_grpc_listener *listener; /* NULL while it cannot be rebuilt */
    pthread_mutex_t listener_mutex;
    pthread_cond_t probe_signal;
    pthread_t probe_thread;
    bool probe_started, probe_stop;
    int64_t probe_period_ms;
};

/* ---- the probe ------------------------------------------------------------------------------- */

/* The address that this process reaches itself at. */
static void own_target(const struct grpc_server_owner *server, char *text, size_t text_bytes)
{
    const char *address = server->address;
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix:", 5) == 0 || !colon) {
        snprintf(text, text_bytes, "%s", address);
    } else if (strncmp(address, "0.0.0.0:", 8) == 0) {
        snprintf(text, text_bytes, "127.0.0.1%s", colon);
    } else if (strncmp(address, "[::]:", 5) == 0) {
        snprintf(text, text_bytes, "[::1]%s", colon);
    } else {
        snprintf(text, text_bytes, "%s", address);
    }
}

static bool answers(const struct grpc_server_owner *server)
{
    char target[MEED_LIMIT_ADDRESS_BYTES];
    own_target(server, target, sizeof target);
    struct meed_rpc_tls tls = server->tls;
    tls.server_name = tls.server_name ? tls.server_name : "localhost";
    struct meed_rpc_client_options options = {
        .target = target,
        .tls = server->insecure ? NULL : &tls,
        .insecure = server->insecure,
        .own_connection = true,
    };
    struct meed_rpc_client *client = NULL;
    struct meed_buf reply;
    meed_codec_buf_init(&reply);
    enum meed_status st = meed_rpc_grpc_client_open(&options, &client);
    if (st == MEED_OK) {
        st = meed_rpc_client_unary(client, "/grpc.health.v1.Health/Check", "", 0,
                                   MEED_LIMIT_PROBE_DEADLINE_MS, &reply);
    }
    meed_buf_clear(&reply);
    meed_rpc_client_close(client);
    return st == MEED_OK;
}

static enum meed_status listen_at(struct grpc_server_owner *server, const char *address, int *port)
{
    return meed_rpc_grpc_listener_start(&server->base, address,
                                        server->insecure ? NULL : &server->tls,
                                        server->poller_count, &server->listener, port);
}

/* Under listener_mutex. */
static void revive(struct grpc_server_owner *server)
{
    int port = 0;
    if (server->listener) {
        MEED_LOG_WARN("proto", "the listener on %s is deaf: building it anew", server->address);
        struct meed_rpc_grpc_listener *deaf = server->listener;
        server->listener = NULL;
        meed_rpc_grpc_listener_stop(deaf, 500);
    }
    if (listen_at(server, server->address, &port) != MEED_OK) {
        MEED_LOG_ERROR("proto", "cannot listen again on %s, will retry: %s", server->address,
                       meed_last_error());
        return;
    }
    pthread_mutex_lock(&server->base.mutex);
    server->base.stats.revivals++;
    pthread_mutex_unlock(&server->base.mutex);
}

static void *probe_main(void *user)
{
    struct grpc_server_owner *server = user;
    int strikes = 0;
    pthread_mutex_lock(&server->listener_mutex);
    while (!server->probe_stop) {
        int64_t due_ns = meed_rpc_core_deadline_ns(server->probe_period_ms);
        while (!server->probe_stop &&
               meed_rpc_core_wait(&server->probe_signal, &server->listener_mutex, due_ns)) {
        }
        if (server->probe_stop) {
            break;
        }
        pthread_mutex_unlock(&server->listener_mutex);
        strikes = answers(server) ? 0 : strikes + 1;
        pthread_mutex_lock(&server->listener_mutex);
        if (strikes >= 2 && !server->probe_stop) { /* one may be a busy machine */
            revive(server);
            strikes = 0;
        }
    }
    pthread_mutex_unlock(&server->listener_mutex);
    return NULL;
}

/* ---- server --------------------------------------------------------------------------------- */

static void server_stop(struct meed_rpc_server *base, int64_t grace_ms)
{
    struct grpc_server_owner *server = (struct grpc_server_owner *)base;
    pthread_mutex_lock(&server->listener_mutex);
    server->probe_stop = true;
    pthread_cond_broadcast(&server->probe_signal);
    pthread_mutex_unlock(&server->listener_mutex);
    if (server->probe_started) {
        pthread_join(server->probe_thread, NULL);
    }
    if (server->listener) {
        meed_rpc_grpc_listener_stop(server->listener, grace_ms);
        server->listener = NULL;
    }
    meed_rpc_core_wait_idle(base, -1);
}

static void free_texts(struct grpc_server_owner *server)
{
    meed_heap_free((void *)(uintptr_t)server->tls.ca_pem);
    meed_heap_free((void *)(uintptr_t)server->tls.certificate_pem);
    meed_heap_free((void *)(uintptr_t)server->tls.key_pem);
    meed_heap_free((void *)(uintptr_t)server->tls.server_name);
}

static void server_destroy(struct meed_rpc_server *base)
{
    struct grpc_server_owner *server = (struct grpc_server_owner *)base;
    meed_rpc_core_clear(base);
    pthread_cond_destroy(&server->probe_signal);
    pthread_mutex_destroy(&server->listener_mutex);
    free_texts(server);
    meed_heap_free(server);
    meed_rpc_grpc_common_stop();
}

static const struct meed_rpc_server_ops server_ops = {.stop = server_stop,
                                                      .destroy = server_destroy};

static enum meed_status copy_pem(const char *text, const char **copy)
{
    if (text) {
        char *block = meed_heap_alloc(strlen(text) + 1, 1);
        if (!block) {
            return MEED_NOMEM;
        }
        memcpy(block, text, strlen(text) + 1);
        *copy = block;
    }
    return MEED_OK;
}

static enum meed_status copy_options(struct grpc_server_owner *server,
                                     const struct meed_rpc_server_options *options)
{
    if (!options->tls && !options->insecure) {
        return MEED_FAIL(MEED_CONFIG, "no certificates: give them (`meed provision` makes them), "
                                      "or ask for plain text with --insecure");
    }
    if (options->poller_count < 0 || options->poller_count > MEED_LIMIT_POLLERS) {
        return MEED_FAIL(MEED_ARG, "%d pollers: give 1 to %d, or 0 for the default",
                         options->poller_count, MEED_LIMIT_POLLERS);
    }
    if (!options->address || strlen(options->address) >= sizeof server->address - 8) {
        return MEED_FAIL(MEED_ARG, "the address to listen on is missing or too long: give "
                                   "\"HOST:PORT\" or \"unix:PATH\"");
    }
    server->insecure = !options->tls;
    server->poller_count = options->poller_count ? options->poller_count : 2;
    server->probe_period_ms =
        options->probe_period_ms ? options->probe_period_ms : MEED_LIMIT_PROBE_PERIOD_MS;
    if (options->tls) {
        MEED_TRY(copy_pem(options->tls->ca_pem, &server->tls.ca_pem));
        MEED_TRY(copy_pem(options->tls->certificate_pem, &server->tls.certificate_pem));
        MEED_TRY(copy_pem(options->tls->key_pem, &server->tls.key_pem));
        MEED_TRY(copy_pem(options->tls->server_name, &server->tls.server_name));
    }
    return MEED_OK;
}

/* Every connection is a descriptor, and running out of them is what kills a listener. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            MEED_LOG_WARN("proto", "cannot raise the limit of open files: %s", strerror(errno));
        }
    }
}

/* Remembers the bound port, so that a rebuilt listener comes back where the clients look. */
static void note_port(struct grpc_server_owner *server, const char *address, int port)
{
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix:", 5) == 0 || !colon) {
        snprintf(server->address, sizeof server->address, "%s", address);
        return;
    }
    server->base.port = port;
    snprintf(server->address, sizeof server->address, "%.*s:%d", (int)(colon - address), address,
             port);
}

enum meed_status meed_rpc_grpc_server_start(const struct meed_rpc_server_options *options,
                                            const struct meed_rpc_service *service,
                                            struct meed_rpc_server **out)
{
    enum meed_status st = MEED_OK;
    bool core_started = false;
    int port = 0;
    struct grpc_server_owner *server = meed_heap_alloc(1, sizeof *server);
    if (!server) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(copy_options(server, options));
    raise_descriptor_limit();
    meed_rpc_grpc_common_serves();
    meed_rpc_grpc_common_start();
    st = meed_rpc_core_init(&server->base, &server_ops, service, options->worker_count);
    core_started = st == MEED_OK;
    if (st == MEED_OK) {
        pthread_mutex_init(&server->listener_mutex, NULL);
        meed_rpc_core_cond_init(&server->probe_signal);
        st = listen_at(server, options->address, &port);
    }
    if (st != MEED_OK) {
        meed_rpc_grpc_common_stop();
        goto out;
    }
    note_port(server, options->address, port);
    if (options->probe) {
        int error = meed_rpc_core_thread(&server->probe_thread, probe_main, server);
        server->probe_started = error == 0;
        if (error) {
            MEED_LOG_WARN("proto", "the listener's probe does not run: %s", strerror(error));
        }
    }
    *out = &server->base;
out:
    if (st != MEED_OK) {
        if (core_started) {
            meed_rpc_core_clear(&server->base);
            pthread_cond_destroy(&server->probe_signal);
            pthread_mutex_destroy(&server->listener_mutex);
        }
        free_texts(server);
        meed_heap_free(server);
    }
    return st;
}
