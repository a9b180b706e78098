/* See metrics.h. */
#include "server/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <microhttpd.h>

enum { PAGE_MAX_BYTES = 16 << 20, CONNECTIONS = 32, TIMEOUT_S = 10 };

struct meed_metrics {
    struct MHD_Daemon *daemon;
    meed_metrics_render_fn render;
    void *user;
    int port;
};

static const struct {
    const char *path;
    const char *type;
} pages[] = {
    [MEED_METRICS_PROMETHEUS] = {"/metrics", "text/plain; version=0.0.4; charset=utf-8"},
    [MEED_METRICS_HEALTH] = {"/healthz", "text/plain; charset=utf-8"},
    [MEED_METRICS_DASHBOARD] = {"/", "text/html; charset=utf-8"},
};

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned code, const char *type,
                             const char *text, size_t size)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(size, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (!response) {
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "Content-Security-Policy",
                            "default-src 'none'; style-src 'unsafe-inline'");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    (void)version;
    (void)upload;
    (void)upload_size;
    (void)state;
    static const char plain[] = "text/plain; charset=utf-8";
    struct meed_metrics *metrics = user;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, plain, "GET only\n", 9);
    }
    for (size_t page = 0; page < MEED_COUNT(pages); page++) {
        if (strcmp(url, pages[page].path) != 0) {
            continue;
        }
        struct meed_buf text;
        bool good = true;
        meed_buf_init(&text, PAGE_MAX_BYTES);
        enum meed_status st =
            metrics->render(metrics->user, (enum meed_metrics_page)page, &text, &good);
        enum MHD_Result result =
            st == MEED_OK ? reply(connection, good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                                  pages[page].type, text.data ? text.data : "", text.size)
                          : reply(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, plain, "failed\n", 7);
        meed_buf_clear(&text);
        return result;
    }
    return reply(connection, MHD_HTTP_NOT_FOUND, plain, "/metrics, /healthz, /\n", 22);
}

enum meed_status meed_metrics_start(int port, meed_metrics_render_fn render, void *user,
                                    struct meed_metrics **metrics)
{
    struct meed_metrics *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->render = render;
    made->user = user;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    made->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD, (uint16_t)port, NULL, NULL, answer, made,
        MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        made->daemon ? MHD_get_daemon_info(made->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info) {
        meed_metrics_stop(made);
        return MEED_FAIL(MEED_IO, "cannot serve metrics on 127.0.0.1:%d; is the port taken?", port);
    }
    made->port = info->port;
    *metrics = made;
    return MEED_OK;
}

int meed_metrics_port(const struct meed_metrics *metrics)
{
    return metrics->port;
}

void meed_metrics_stop(struct meed_metrics *metrics)
{
    if (metrics) {
        if (metrics->daemon) {
            MHD_stop_daemon(metrics->daemon);
        }
        meed_heap_free(metrics);
    }
}
