/* The small HTTP server: its three pages, its refusals, its health code.
 *
 * Goal: a scraper gets text it can read, a supervisor a code, a browser nothing from elsewhere;
 * other methods and paths are refused. Method: raw requests over loopback against rendered
 * stand-ins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/metrics.h"

static bool healthy = true;
static bool broken;

static enum meed_status render(void *user, enum meed_metrics_page page, struct meed_buf *text,
                               bool *good)
{
    (void)user;
    *good = healthy;
    if (broken) {
        return MEED_FAIL(MEED_BUG, "on purpose");
    }
    return meed_buf_printf(text, "page %d\n", (int)page);
}

static void ask(int port, const char *request, char answer[4096])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    size_t used = 0;
    for (ssize_t got = 1; got > 0 && used<4095; used += got> 0 ? (size_t)got : 0) {
        got = read(fd, answer + used, 4095 - used);
    }
    answer[used] = '\0';
    close(fd);
}

static void metrics_serve_their_pages(void **state)
{
    (void)state;
    struct meed_metrics *metrics = NULL, *second = NULL;
    char answer[4096];
    assert_int_equal(meed_metrics_start(0, render, NULL, &metrics), MEED_OK);
    int port = meed_metrics_port(metrics);
    assert_true(port > 0);
    assert_int_equal(meed_metrics_start(port, render, NULL, &second), MEED_IO);
    static const struct {
        const char *path;
        const char *expected;
    } pages[] = {{"/metrics", "page 0"}, {"/healthz", "page 1"}, {"/", "page 2"}};
    for (size_t i = 0; i < MEED_COUNT(pages); i++) {
        char request[128];
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                 pages[i].path);
        ask(port, request, answer);
        assert_non_null(strstr(answer, " 200 "));
        assert_non_null(strstr(answer, pages[i].expected));
        assert_non_null(strstr(answer, "default-src 'none'"));
    }
    healthy = false;
    ask(port, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer);
    assert_non_null(strstr(answer, " 503 "));
    healthy = true;
    broken = true;
    ask(port, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer);
    assert_non_null(strstr(answer, " 500 "));
    broken = false;
    ask(port, "GET /secrets HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer);
    assert_non_null(strstr(answer, " 404 "));
    ask(port, "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        answer);
    assert_non_null(strstr(answer, " 405 "));
    meed_metrics_stop(metrics);
    meed_metrics_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(metrics_serve_their_pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
