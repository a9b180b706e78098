/* See judge_endpoint.h. The only file that includes libcurl. */
#include "evaluation/judge_endpoint.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "evaluation/judge_completion.h"

enum { MAX_PARALLEL = 64, MAX_BODY_BYTES = 16 << 20, WAIT_MS = 200, MAX_PAUSE_MS = 60000 };

struct endpoint {
    struct meed_judge_endpoint_options options;
    struct meed_arena arena; /* url, model, key, name */
    CURLM *multi;
    struct curl_slist *headers;
    char *url;
    const char *key;
    bool logprobs;         /* until the endpoint refuses them */
    int64_t next_start_ns; /* of the next request, by the limit a minute */
};

/* One request and its tries. */
struct call {
    struct endpoint *endpoint;
    const struct meed_judge_request *request;
    CURL *easy;
    struct meed_buf sent, got;
    int32_t idx;
    int32_t tried;
    int64_t not_before_ns;
    bool asked_logprobs;
    bool running;
    bool busy; /* holds a request that is not answered */
};

struct meed_judge_endpoint_options meed_judge_endpoint_defaults(void)
{
    return (struct meed_judge_endpoint_options){
        .max_tokens = 2048, .parallel = 4, .tries = 6, .timeout_s = 120, .pause_ms = 1000};
}

/* --- one try ---------------------------------------------------------------------------------- */
static size_t body_take(char *bytes, size_t size, size_t count, void *user)
{
    struct call *call = user;
    return meed_buf_append(&call->got, bytes, size * count) == MEED_OK ? size * count : 0;
}

/* Blots out the key wherever the server repeated it. */
static void key_blot(const struct endpoint *endpoint, struct meed_buf *text)
{
    size_t length = endpoint->key ? strlen(endpoint->key) : 0;
    char *at = length >= 4 && text->data ? text->data : NULL;
    while (at && (at = strstr(at, endpoint->key)) != NULL) {
        memset(at, '*', length);
    }
}

static enum meed_status call_start(struct call *call)
{
    struct endpoint *e = call->endpoint;
    meed_buf_reset(&call->sent);
    meed_buf_reset(&call->got);
    call->asked_logprobs = e->logprobs;
    MEED_TRY(meed_judge_completion_request(e->options.model, call->request, e->options.max_tokens,
                                           call->asked_logprobs, &call->sent));
    curl_easy_reset(call->easy);
    curl_easy_setopt(call->easy, CURLOPT_URL, e->url);
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, e->headers);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->sent.data);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->sent.size);
    curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, body_take);
    curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(call->easy, CURLOPT_TIMEOUT, (long)e->options.timeout_s);
    curl_easy_setopt(call->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(call->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    if (curl_multi_add_handle(e->multi, call->easy) != CURLM_OK) {
        return MEED_FAIL(MEED_BUG, "libcurl refused a request");
    }
    call->running = true;
    call->tried++;
    if (e->options.per_minute > 0) {
        e->next_start_ns = meed_clock_monotonic_ns() + INT64_C(60000000000) / e->options.per_minute;
    }
    return MEED_OK;
}

/* Puts the call off, or fails with `code` after the last try. */
static enum meed_status call_again(struct call *call, enum meed_status code, const char *what)
{
    const struct endpoint *e = call->endpoint;
    if (call->tried >= e->options.tries) {
        return MEED_FAIL(code, "judge endpoint %s: %s, after %d tries", e->url, what, call->tried);
    }
    curl_off_t asked_s = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &asked_s);
    int64_t pause_ms = (int64_t)e->options.pause_ms << (call->tried < 16 ? call->tried - 1 : 15);
    pause_ms = asked_s > 0 ? (int64_t)asked_s * 1000 : pause_ms;
    pause_ms = pause_ms < MAX_PAUSE_MS ? pause_ms : MAX_PAUSE_MS;
    call->not_before_ns = meed_clock_monotonic_ns() + pause_ms * 1000000;
    MEED_LOG_WARN("judge", "%s; trying again in %.1f s", what, (double)pause_ms / 1000.0);
    return MEED_OK;
}

/* An answer that is no 200: try again, try without log-probabilities, or give up. */
static enum meed_status call_refused(struct call *call, long code)
{
    struct endpoint *e = call->endpoint;
    const char *sentence = "";
    char what[320];
    key_blot(e, &call->got);
    MEED_TRY(meed_judge_completion_error(call->got.data ? call->got.data : "", call->got.size,
                                         &e->arena, &sentence));
    snprintf(what, sizeof what, "answered %ld%s%s", code, *sentence ? ": " : "", sentence);
    if (code == 429) {
        return call_again(call, MEED_LIMIT, what);
    }
    if (code >= 500) {
        return call_again(call, MEED_RPC, what);
    }
    if (code == 400 && call->asked_logprobs) { /* many servers know no logprobs */
        e->logprobs = false;
        call->tried--;
        return MEED_OK;
    }
    if (code == 401 || code == 403) {
        return MEED_FAIL(MEED_UNAUTHENTICATED,
                         "judge endpoint %s %s; check the key and what it may use", e->url, what);
    }
    return MEED_FAIL(MEED_ARG, "judge endpoint %s %s; check its URL and the model's name", e->url,
                     what);
}

/* One finished transfer; *answered where reply is filled. */
static enum meed_status call_finish(struct call *call, CURLcode result, struct meed_arena *arena,
                                    struct meed_judge_reply *replies, bool *answered)
{
    long code = 0;
    *answered = false;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &code);
    curl_multi_remove_handle(call->endpoint->multi, call->easy);
    call->running = false;
    if (result != CURLE_OK) {
        return call_again(call, result == CURLE_OPERATION_TIMEDOUT ? MEED_TIMEOUT : MEED_RPC,
                          curl_easy_strerror(result));
    }
    if (code != 200) {
        return call_refused(call, code);
    }
    MEED_TRY(meed_judge_completion_read(call->got.data ? call->got.data : "", call->got.size,
                                        call->request->pair, arena, &replies[call->idx]));
    call->busy = false;
    *answered = true;
    return MEED_OK;
}

/* --- many at once ------------------------------------------------------------------------------
 */
struct round_trip {
    struct endpoint *endpoint;
    const struct meed_judge_request *requests;
    struct meed_judge_reply *replies;
    struct meed_arena *arena;
    struct call calls[MAX_PARALLEL];
    int32_t count, next, answered;
};

/* Gives idle calls the next requests and starts those whose time has come. */
static enum meed_status calls_feed(struct round_trip *trip)
{
    struct endpoint *e = trip->endpoint;
    for (int32_t i = 0; i < e->options.parallel; i++) {
        struct call *call = &trip->calls[i];
        int64_t now = meed_clock_monotonic_ns();
        if (!call->busy && trip->next < trip->count) {
            call->busy = true;
            call->tried = 0;
            call->not_before_ns = 0;
            call->idx = trip->next++;
            call->request = &trip->requests[call->idx];
        }
        if (call->busy && !call->running && now >= call->not_before_ns && now >= e->next_start_ns) {
            MEED_TRY(call_start(call));
        }
    }
    return MEED_OK;
}

static enum meed_status calls_collect(struct round_trip *trip)
{
    int running = 0;
    int left;
    if (curl_multi_perform(trip->endpoint->multi, &running) != CURLM_OK ||
        curl_multi_poll(trip->endpoint->multi, NULL, 0, WAIT_MS / (running > 0 ? 1 : 20), NULL) !=
            CURLM_OK) {
        return MEED_FAIL(MEED_BUG, "libcurl cannot run its requests");
    }
    for (CURLMsg *message; (message = curl_multi_info_read(trip->endpoint->multi, &left));) {
        char *owner = NULL;
        bool answered;
        CURLcode result = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner);
        MEED_TRY(call_finish((struct call *)(void *)owner, result, trip->arena, trip->replies,
                             &answered));
        trip->answered += answered ? 1 : 0;
    }
    return MEED_OK;
}

static void calls_close(struct round_trip *trip)
{
    for (int32_t i = 0; i < trip->endpoint->options.parallel; i++) {
        struct call *call = &trip->calls[i];
        if (call->running) {
            curl_multi_remove_handle(trip->endpoint->multi, call->easy);
        }
        curl_easy_cleanup(call->easy);
        meed_buf_clear(&call->sent);
        meed_buf_clear(&call->got);
    }
}

static enum meed_status endpoint_ask(void *user, const struct meed_judge_request *requests,
                                     int32_t count, struct meed_arena *arena,
                                     struct meed_judge_reply *replies,
                                     void (*done)(void *done_user, int64_t done, int64_t total),
                                     void *done_user)
{
    enum meed_status st = MEED_OK;
    struct endpoint *e = user;
    struct round_trip *trip = meed_heap_alloc(1, sizeof *trip);
    if (!trip) {
        return MEED_NOMEM;
    }
    trip->endpoint = e;
    trip->requests = requests;
    trip->replies = replies;
    trip->arena = arena;
    trip->count = count;
    for (int32_t i = 0; i < e->options.parallel; i++) {
        struct call *call = &trip->calls[i];
        call->endpoint = e;
        meed_buf_init(&call->sent, MAX_BODY_BYTES);
        meed_buf_init(&call->got, MAX_BODY_BYTES);
        call->easy = curl_easy_init();
        if (!call->easy) {
            st = MEED_FAIL(MEED_NOMEM, "no memory for a request");
            goto out;
        }
    }
    while (trip->answered < count) {
        MEED_TRY_OUT(calls_feed(trip));
        MEED_TRY_OUT(calls_collect(trip));
        if (done) {
            done(done_user, trip->answered, count);
        }
    }
out:
    calls_close(trip);
    meed_heap_free(trip);
    return st;
}

/* --- opening ---------------------------------------------------------------------------------- */
static void endpoint_destroy(void *user)
{
    struct endpoint *e = user;
    curl_multi_cleanup(e->multi);
    curl_slist_free_all(e->headers);
    meed_arena_clear(&e->arena);
    meed_heap_free(e);
}

static enum meed_status headers_make(struct endpoint *e)
{
    struct meed_buf line;
    enum meed_status st = MEED_OK;
    meed_buf_init(&line, 1 << 16);
    e->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (e->headers && e->key) {
        MEED_TRY_OUT(meed_buf_printf(&line, "Authorization: Bearer %s", e->key));
        struct curl_slist *longer = curl_slist_append(e->headers, line.data);
        memset(line.data, 0, line.size);
        e->headers = longer ? longer : (curl_slist_free_all(e->headers), NULL);
    }
    st = e->headers ? MEED_OK : MEED_FAIL(MEED_NOMEM, "no memory for a request");
out:
    meed_buf_clear(&line);
    return st;
}

static enum meed_status texts_keep(struct endpoint *e,
                                   const struct meed_judge_endpoint_options *options)
{
    char *text;
    size_t length = strlen(options->url);
    while (length > 0 && options->url[length - 1] == '/') {
        length--;
    }
    struct meed_buf url;
    meed_buf_init(&url, 1 << 16);
    enum meed_status st = meed_buf_printf(&url, "%.*s/chat/completions", (int)length, options->url);
    st = st == MEED_OK ? meed_arena_strdup(&e->arena, url.data, url.size, &e->url) : st;
    meed_buf_clear(&url);
    MEED_TRY(st);
    MEED_TRY(meed_arena_strdup(&e->arena, options->model, strlen(options->model), &text));
    e->options.model = text;
    if (options->key) {
        MEED_TRY(meed_arena_strdup(&e->arena, options->key, strlen(options->key), &text));
        e->key = text;
    }
    return MEED_OK;
}

static void curl_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

enum meed_status meed_judge_endpoint_open(const struct meed_judge_endpoint_options *options,
                                          struct meed_judge *judge)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    enum meed_status st = MEED_OK;
    if (strncasecmp(options->url, "http://", 7) != 0 &&
        strncasecmp(options->url, "https://", 8) != 0) {
        return MEED_FAIL(MEED_ARG,
                         "judge endpoint \"%.100s\" begins with neither http:// nor "
                         "https://",
                         options->url);
    }
    if (options->parallel < 1 || options->parallel > MAX_PARALLEL || options->tries < 1) {
        return MEED_FAIL(MEED_ARG,
                         "a judge endpoint takes 1 to %d requests at once and at least "
                         "one try",
                         MAX_PARALLEL);
    }
    pthread_once(&once, curl_init);
    struct endpoint *e = meed_heap_alloc(1, sizeof *e);
    if (!e) {
        return MEED_NOMEM;
    }
    e->options = *options;
    e->options.key = NULL;
    e->logprobs = true;
    meed_arena_init_growing(&e->arena, "judge endpoint", 16 << 20);
    MEED_TRY_OUT(texts_keep(e, options));
    MEED_TRY_OUT(headers_make(e));
    e->multi = curl_multi_init();
    if (!e->multi) {
        st = MEED_FAIL(MEED_NOMEM, "no memory for requests");
        goto out;
    }
    *judge = (struct meed_judge){
        .name = e->options.model, .user = e, .ask = endpoint_ask, .destroy = endpoint_destroy};
    e = NULL;
out:
    if (e) {
        endpoint_destroy(e);
    }
    return st;
}
