/* The endpoint judge against a server that answers, stalls, refuses and gossips.
 *
 * The server is libmicrohttpd in this process; each test names what it does. Pauses are a few
 * milliseconds, so that retries are counted and not waited for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <math.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "evaluation/judge_endpoint.h"

enum behaviour { ANSWER, BUSY_TWICE, NO_LOGPROBS, WRONG_KEY, ALWAYS_500, NOT_JSON, NO_MODEL };

static struct {
    pthread_mutex_t lock;
    enum behaviour behaviour;
    int calls;
    bool logprobs_asked;
    char authorization[128];
    char url[64];
} server;

static const char key[] = "sk-very-secret-key";
static char logged[4096];

static void log_keep(void *user, const char *line)
{
    (void)user;
    strncat(logged, line, sizeof logged - strlen(logged) - 1);
}

static const char *body_for(int call, unsigned *code)
{
    *code = 200;
    switch (server.behaviour) {
    case BUSY_TWICE:
        *code = call <= 2 ? (call == 1 ? 429 : 503) : 200;
        break;
    case NO_LOGPROBS:
        *code = server.logprobs_asked ? 400 : 200;
        break;
    case WRONG_KEY:
        *code = 401;
        return "{\"error\": {\"message\": \"Incorrect API key: sk-very-secret-key, sorry\"}}";
    case ALWAYS_500:
        *code = 500;
        break;
    case NOT_JSON:
        return "<html>hello</html>";
    case NO_MODEL:
        *code = 404;
        return "{\"error\": {\"message\": \"no such model\"}}";
    default:
        break;
    }
    if (*code != 200) {
        return "{\"error\": \"not now\"}";
    }
    /* "Rating: [[7]]" in tokens; at the mark 7 has 0.5, 8 and 10 have 0.25 each. */
    return server.logprobs_asked && server.behaviour == ANSWER
               ? "{\"choices\": [{\"message\": {\"content\": \"Rating: [[7]]\"}, \"logprobs\": "
                 "{\"content\": [{\"token\": \"Rating\", \"top_logprobs\": []}, {\"token\": \": "
                 "[[\", \"top_logprobs\": []}, {\"token\": \"7\", \"top_logprobs\": [{\"token\": "
                 "\"7\", \"logprob\": -0.6931471805599453}, {\"token\": \"8\", \"logprob\": "
                 "-1.3862943611198906}, {\"token\": \"10\", \"logprob\": -1.3862943611198906}, "
                 "{\"token\": \"x\", \"logprob\": -0.1}]}, {\"token\": \"]]\"}]}}]}"
               : "{\"choices\": [{\"message\": {\"content\": \"Rating: [[7.5]]\"}}]}";
}

struct upload {
    char text[8192];
    size_t size;
};

static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **own)
{
    (void)user;
    (void)method;
    (void)version;
    struct upload *upload = *own;
    if (!upload) {
        *own = calloc(1, sizeof *upload);
        return MHD_YES;
    }
    if (*size > 0) {
        size_t take = *size < sizeof upload->text - 1 - upload->size
                          ? *size
                          : sizeof upload->text - 1 - upload->size;
        memcpy(upload->text + upload->size, data, take);
        upload->size += take;
        *size = 0;
        return MHD_YES;
    }
    pthread_mutex_lock(&server.lock);
    const char *authorization =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");
    snprintf(server.authorization, sizeof server.authorization, "%s",
             authorization ? authorization : "");
    snprintf(server.url, sizeof server.url, "%s", url);
    server.logprobs_asked = strstr(upload->text, "top_logprobs") != NULL;
    unsigned code;
    const char *body = body_for(++server.calls, &code);
    pthread_mutex_unlock(&server.lock);
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(body), (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result sent = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return sent;
}

static void upload_free(void *user, struct MHD_Connection *connection, void **own,
                        enum MHD_RequestTerminationCode code)
{
    (void)user;
    (void)connection;
    (void)code;
    free(*own);
    *own = NULL;
}

static struct MHD_Daemon *server_start(enum behaviour behaviour, char url[64])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memset(&server, 0, sizeof server);
    pthread_mutex_init(&server.lock, NULL);
    server.behaviour = behaviour;
    logged[0] = 0;
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, answer, NULL,
                         MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
                         MHD_OPTION_NOTIFY_COMPLETED, upload_free, NULL, MHD_OPTION_END);
    assert_non_null(daemon);
    snprintf(url, 64, "http://127.0.0.1:%u/v1/",
             (unsigned)MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    return daemon;
}

/* Asks `count` equal questions and returns the status; replies keep what came. */
static enum meed_status ask(enum behaviour behaviour, int32_t count,
                            struct meed_judge_reply *replies, struct meed_arena *arena)
{
    char url[64];
    struct meed_judge judge = {0};
    struct meed_judge_request requests[8];
    struct MHD_Daemon *daemon = server_start(behaviour, url);
    struct meed_judge_endpoint_options options = meed_judge_endpoint_defaults();
    options.url = url;
    options.model = "grader";
    options.key = key;
    options.pause_ms = 1;
    options.tries = 4;
    for (int32_t i = 0; i < count; i++) {
        requests[i] = (struct meed_judge_request){.system = "Grade.", .user = "\"Hi\" \xC3\xA9"};
    }
    meed_arena_init_growing(arena, "test", 1 << 20);
    assert_int_equal(meed_judge_endpoint_open(&options, &judge), MEED_OK);
    enum meed_status status = judge.ask(judge.user, requests, count, arena, replies, NULL, NULL);
    meed_judge_close(&judge);
    MHD_stop_daemon(daemon);
    assert_null(strstr(logged, "secret"));
    assert_null(strstr(meed_last_error(), "secret"));
    return status;
}

static void the_marks_distribution_is_the_rating(void **state)
{
    (void)state;
    struct meed_judge_reply replies[8];
    struct meed_arena arena;
    double rating = 0;
    assert_int_equal(ask(ANSWER, 8, replies, &arena), MEED_OK);
    assert_int_equal(server.calls, 8);
    assert_string_equal(server.url, "/v1/chat/completions");
    assert_string_equal(server.authorization, "Bearer sk-very-secret-key");
    for (int i = 0; i < 8; i++) {
        assert_string_equal(replies[i].text, "Rating: [[7]]");
        assert_true(replies[i].spread);
        assert_true(meed_judge_rating(&replies[i], &rating));
        assert_true(fabs(rating - (0.5 * 7 + 0.25 * 8 + 0.25 * 10)) < 1e-12);
    }
    meed_arena_clear(&arena);
}

static void busy_servers_are_asked_again(void **state)
{
    (void)state;
    struct meed_judge_reply reply;
    struct meed_arena arena;
    double rating = 0;
    assert_int_equal(ask(BUSY_TWICE, 1, &reply, &arena), MEED_OK);
    assert_int_equal(server.calls, 3);
    assert_true(meed_judge_rating(&reply, &rating));
    assert_true(rating == 7.5); /* half on 7, half on 8 */
    assert_false(reply.spread);
    meed_arena_clear(&arena);
}

static void logprobs_are_given_up_where_refused(void **state)
{
    (void)state;
    struct meed_judge_reply replies[3];
    struct meed_arena arena;
    assert_int_equal(ask(NO_LOGPROBS, 3, replies, &arena), MEED_OK);
    assert_false(replies[2].spread);
    assert_true(server.calls >= 4);
    meed_arena_clear(&arena);
}

static void failures_say_what_and_where(void **state)
{
    (void)state;
    static const struct {
        enum behaviour behaviour;
        enum meed_status status;
        int calls; /* logprobs are given up first where the code is 400 only */
        const char *says;
    } rows[] = {
        {WRONG_KEY, MEED_UNAUTHENTICATED, 1, "Incorrect API key: ****"},
        {ALWAYS_500, MEED_RPC, 4, "answered 500: not now, after 4 tries"},
        {NOT_JSON, MEED_FORMAT, 1, "no chat completion"},
        {NO_MODEL, MEED_ARG, 1, "no such model"},
    };
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        struct meed_judge_reply reply;
        struct meed_arena arena;
        assert_int_equal(ask(rows[i].behaviour, 1, &reply, &arena), rows[i].status);
        assert_int_equal(server.calls, rows[i].calls);
        assert_non_null(strstr(meed_last_error(), rows[i].says));
        meed_arena_clear(&arena);
    }
}

static void nobody_listens(void **state)
{
    (void)state;
    struct meed_judge judge = {0};
    struct meed_judge_reply reply;
    struct meed_arena arena;
    struct meed_judge_endpoint_options options = meed_judge_endpoint_defaults();
    options.url = "http://127.0.0.1:9";
    options.model = "grader";
    options.tries = 2;
    options.pause_ms = 1;
    const struct meed_judge_request request = {.system = "", .user = "Hi"};
    meed_arena_init_growing(&arena, "test", 1 << 20);
    assert_int_equal(meed_judge_endpoint_open(&options, &judge), MEED_OK);
    assert_int_equal(judge.ask(judge.user, &request, 1, &arena, &reply, NULL, NULL), MEED_RPC);
    assert_non_null(strstr(meed_last_error(), "after 2 tries"));
    meed_judge_close(&judge);
    meed_arena_clear(&arena);
    options.url = "file:///etc/passwd";
    assert_int_equal(meed_judge_endpoint_open(&options, &judge), MEED_ARG);
}

int main(void)
{
    meed_log_redirect(log_keep, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_marks_distribution_is_the_rating),
        cmocka_unit_test(busy_servers_are_asked_again),
        cmocka_unit_test(logprobs_are_given_up_where_refused),
        cmocka_unit_test(failures_say_what_and_where),
        cmocka_unit_test(nobody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
