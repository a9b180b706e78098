/* The transport's contract, proved on all three transports by the same tests. */
#include "rpc_fixture.h"

static void echo(struct meed_rpc_client *client, const char *text)
{
    struct meed_buf reply;
    meed_buf_init(&reply, MEED_LIMIT_MESSAGE_BYTES);
    assert_int_equal(
        meed_rpc_client_unary(client, "/toy.Toy/Echo", text, strlen(text), 5000, &reply), MEED_OK);
    assert_int_equal(reply.size, strlen(text));
    assert_memory_equal(reply.data ? reply.data : "", text, reply.size);
    meed_buf_clear(&reply);
}

static void rpc_echoes_text_and_nothing(void **state)
{
    struct bed *bed = *state;
    echo(bed->client, "hello");
    echo(bed->client, "");
    assert_true(reaches(&bed->toy.done, 2));
}

/* Every status and its sentence come back as they left, newline, % and UTF-8 included. */
static void rpc_carries_every_status(void **state)
{
    struct bed *bed = *state;
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    for (int i = 1; i < MEED_STATUS_COUNT; i++) {
        uint8_t code = (uint8_t)i;
        enum meed_status st =
            meed_rpc_client_unary(bed->client, "/toy.Toy/Fail", &code, 1, 5000, &reply);
        assert_int_equal(st, i);
        assert_string_equal(meed_last_error(), "line 1\nline 2 %20 ünïcode");
    }
    assert_int_equal(reply.size, 0);
    meed_buf_clear(&reply);
}

static void rpc_refuses_unknown_method(void **state)
{
    struct bed *bed = *state;
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    enum meed_status st = meed_rpc_client_unary(bed->client, "/toy.Toy/No", "x", 1, 5000, &reply);
    assert_int_equal(st, MEED_UNSUPPORTED);
    meed_buf_clear(&reply);
}

static void rpc_names_the_caller(void **state)
{
    struct bed *bed = *state;
    struct meed_buf reply;
    meed_buf_init(&reply, 1000);
    assert_int_equal(meed_rpc_client_unary(bed->client, "/toy.Toy/Who", "", 0, 5000, &reply),
                     MEED_OK);
    char want[256], hex[MEED_SHA256_HEX_BYTES];
    uint8_t digest[MEED_SHA256_BYTES] = {0};
    if (bed->transport == TRANSPORT_TLS) {
        unsigned length = 0;
        X509_digest(bed->client_id.x509, EVP_sha256(), digest, &length);
    } else if (bed->transport == TRANSPORT_LOOP) {
        meed_sha256("alice", 5, digest);
    }
    meed_sha256_hex(digest, hex);
    snprintf(want, sizeof want, "alice|%d|%s", bed->transport != TRANSPORT_PLAIN, hex);
    assert_string_equal(reply.data, want);
    meed_buf_clear(&reply);
}

static void rpc_deadline_ends_a_mute_call(void **state)
{
    struct bed *bed = *state;
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    int64_t start_ns = meed_clock_monotonic_ns();
    enum meed_status st = meed_rpc_client_unary(bed->client, "/toy.Toy/Mute", "", 0, 150, &reply);
    assert_int_equal(st, MEED_TIMEOUT);
    double seconds = meed_clock_seconds_since(start_ns);
    assert_true(seconds > 0.1 && seconds < 2.0);
    assert_true(reaches(&bed->toy.done, 1));
    assert_int_equal(atomic_load(&bed->toy.cancelled), 1);
    meed_buf_clear(&reply);
}

static void rpc_timer_rings_once(void **state)
{
    struct bed *bed = *state;
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    assert_int_equal(meed_rpc_client_unary(bed->client, "/toy.Toy/Timer", "", 0, 5000, &reply),
                     MEED_OK);
    assert_string_equal(reply.data, "rang");
    assert_int_equal(atomic_load(&bed->toy.timers), 1);
    meed_buf_clear(&reply);
}

static struct meed_rpc_stream *count_open(struct bed *bed, int32_t messages, int32_t bytes)
{
    struct meed_rpc_stream *stream = NULL;
    int32_t request[2] = {messages, bytes};
    assert_int_equal(meed_rpc_stream_open(bed->client, "/toy.Toy/Count", 20000, &stream), MEED_OK);
    assert_int_equal(meed_rpc_stream_send(stream, request, sizeof request), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    return stream;
}

static void rpc_downloads_in_order(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = count_open(bed, 40, 1 << 20);
    struct meed_buf message;
    meed_buf_init(&message, MEED_LIMIT_MESSAGE_BYTES);
    enum meed_rpc_event event = MEED_RPC_MESSAGE;
    int count = 0;
    while (event == MEED_RPC_MESSAGE) {
        meed_buf_reset(&message);
        assert_int_equal(meed_rpc_stream_receive(stream, -1, &message, &event), MEED_OK);
        if (event == MEED_RPC_MESSAGE) {
            assert_int_equal(message.size, 1 << 20);
            assert_int_equal(message.data[77], 40 - count);
            count++;
        }
    }
    assert_int_equal(count, 40);
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_OK);
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&message);
}

/* A client that stops reading and goes: the server's call must end. */
static void rpc_abandoned_download_ends(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = count_open(bed, 1000, 1 << 20);
    enum meed_rpc_event event;
    assert_int_equal(meed_rpc_stream_receive(stream, -1, NULL, &event), MEED_OK);
    meed_rpc_stream_destroy(stream);
    assert_true(reaches(&bed->toy.done, 1));
    assert_int_equal(atomic_load(&bed->toy.cancelled), 1);
}

static struct meed_rpc_stream *upload_open(struct bed *bed, const char *path)
{
    struct meed_rpc_stream *stream = NULL;
    assert_int_equal(meed_rpc_stream_open(bed->client, path, 20000, &stream), MEED_OK);
    return stream;
}

static void rpc_uploads_and_half_closes(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/toy.Toy/Sum");
    char *chunk = malloc(1 << 20);
    memset(chunk, 1, 1 << 20);
    for (int i = 0; i < 32; i++) {
        assert_int_equal(meed_rpc_stream_send(stream, chunk, 1 << 20), MEED_OK);
    }
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    enum meed_rpc_event event;
    assert_int_equal(meed_rpc_stream_receive(stream, -1, &reply, &event), MEED_OK);
    assert_int_equal(event, MEED_RPC_MESSAGE);
    int64_t sum;
    memcpy(&sum, reply.data, sizeof sum);
    assert_int_equal(sum, 32 * 256);
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_OK);
    meed_rpc_stream_destroy(stream);
    assert_int_equal(atomic_load(&bed->toy.half_closed), 1);
    assert_int_equal(atomic_load(&bed->toy.failed), 0);
    assert_int_equal(atomic_load(&bed->toy.bytes), 32ll << 20);
    meed_buf_clear(&reply);
    free(chunk);
}

/* Cancelled, left and timed out uploads must never look like ended ones. */
static void rpc_broken_upload_is_failed(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/toy.Toy/Sum");
    assert_int_equal(meed_rpc_stream_send(stream, "abc", 3), MEED_OK);
    meed_rpc_stream_cancel(stream);
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_CANCELLED);
    meed_rpc_stream_destroy(stream);
    stream = upload_open(bed, "/toy.Toy/Sum");
    assert_int_equal(meed_rpc_stream_send(stream, "abc", 3), MEED_OK);
    meed_rpc_stream_destroy(stream);
    assert_int_equal(meed_rpc_stream_open(bed->client, "/toy.Toy/Sum", 100, &stream), MEED_OK);
    assert_int_equal(meed_rpc_stream_send(stream, "abc", 3), MEED_OK);
    enum meed_rpc_event event;
    assert_int_equal(meed_rpc_stream_receive(stream, -1, NULL, &event), MEED_OK);
    assert_int_equal(event, MEED_RPC_END);
    enum meed_status st = meed_rpc_stream_finish(stream);
    assert_true(st == MEED_TIMEOUT || st == MEED_CANCELLED);
    meed_rpc_stream_destroy(stream);
    assert_true(reaches(&bed->toy.done, 3));
    assert_int_equal(atomic_load(&bed->toy.failed), 3);
    assert_int_equal(atomic_load(&bed->toy.half_closed), 0);
}

static void rpc_oversize_is_refused_here(void **state)
{
    struct bed *bed = *state;
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    char *big = calloc(1, MEED_LIMIT_MESSAGE_BYTES + 1);
    assert_int_equal(meed_rpc_client_unary(bed->client, "/toy.Toy/Echo", big,
                                           MEED_LIMIT_MESSAGE_BYTES + 1, 5000, &reply),
                     MEED_LIMIT);
    free(big);
    meed_buf_clear(&reply);
}

/* A server that refuses before reading: the sender sees a broken send, finish tells the reason. */
static void rpc_early_refusal_reaches_the_sender(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/toy.Toy/Refuse");
    char *chunk = calloc(1, 1 << 20);
    enum meed_status st = MEED_OK;
    for (int i = 0; i < 64 && st == MEED_OK; i++) {
        st = meed_rpc_stream_send(stream, chunk, 1 << 20);
    }
    assert_int_equal(st, MEED_RPC);
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_DENIED);
    assert_string_equal(meed_last_error(), "not on the roster");
    meed_rpc_stream_destroy(stream);
    free(chunk);
}

/* A server that never reads holds the sender back after a bounded number of bytes. */
struct pusher {
    struct meed_rpc_stream *stream;
    atomic_llong sent;
};

static void *push_all(void *user)
{
    struct pusher *pusher = user;
    char *chunk = calloc(1, 1 << 20);
    while (meed_rpc_stream_send(pusher->stream, chunk, 1 << 20) == MEED_OK) {
        atomic_fetch_add(&pusher->sent, 1 << 20);
    }
    free(chunk);
    return NULL;
}

static void rpc_deaf_server_blocks_the_sender(void **state)
{
    struct bed *bed = *state;
    struct pusher pusher = {.stream = upload_open(bed, "/toy.Toy/Deaf")};
    pthread_t thread;
    pthread_create(&thread, NULL, push_all, &pusher);
    meed_clock_sleep_ms(200);
    long long sent = atomic_load(&pusher.sent);
    assert_true(sent <= 8 << 20);
    meed_rpc_stream_cancel(pusher.stream);
    pthread_join(thread, NULL);
    assert_int_equal(meed_rpc_stream_finish(pusher.stream), MEED_CANCELLED);
    meed_rpc_stream_destroy(pusher.stream);
    assert_true(reaches(&bed->toy.done, 1));
}

static void rpc_stalled_upload_is_given_up(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/toy.Toy/Patient");
    enum meed_rpc_event event;
    assert_int_equal(meed_rpc_stream_receive(stream, 3000, NULL, &event), MEED_OK);
    assert_int_equal(event, MEED_RPC_END);
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_TIMEOUT);
    assert_string_equal(meed_last_error(), "no progress for 100 ms: the stream was given up");
    meed_rpc_stream_destroy(stream);
    assert_true(reaches(&bed->toy.failed, 1));
}

static void wake_watcher(struct bed *bed)
{
    pthread_mutex_lock(&bed->toy.mutex);
    if (bed->toy.watcher) {
        meed_rpc_call_wake(bed->toy.watcher);
    }
    pthread_mutex_unlock(&bed->toy.mutex);
}

static void rpc_wakes_a_watcher(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/toy.Toy/Watch");
    assert_int_equal(meed_rpc_stream_send(stream, "", 0), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    struct meed_buf message;
    meed_buf_init(&message, 100);
    enum meed_rpc_event event;
    assert_int_equal(meed_rpc_stream_receive(stream, -1, &message, &event), MEED_OK);
    assert_string_equal(message.data, "hello");
    assert_int_equal(meed_rpc_stream_receive(stream, 30, &message, &event), MEED_OK);
    assert_int_equal(event, MEED_RPC_WAITING);
    for (int i = 0; i < 20; i++) {
        wake_watcher(bed);
        meed_buf_reset(&message);
        assert_int_equal(meed_rpc_stream_receive(stream, 3000, &message, &event), MEED_OK);
        assert_int_equal(event, MEED_RPC_MESSAGE);
    }
    meed_rpc_stream_cancel(stream);
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_CANCELLED);
    meed_rpc_stream_destroy(stream);
    assert_true(reaches(&bed->toy.done, 1));
    wake_watcher(bed); /* after its end: harmless */
    meed_buf_clear(&message);
}

/* Wakes race with deadlines; whatever wins, the call must end once. */
static void rpc_wake_races_with_deadline(void **state)
{
    struct bed *bed = *state;
    for (int i = 0; i < 50; i++) {
        struct meed_rpc_stream *stream = NULL;
        assert_int_equal(meed_rpc_stream_open(bed->client, "/toy.Toy/Watch", 5, &stream), MEED_OK);
        if (meed_rpc_stream_send(stream, "", 0) == MEED_OK) {
            assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
        }
        for (int j = 0; j < 20; j++) {
            wake_watcher(bed);
            enum meed_rpc_event event;
            assert_int_equal(meed_rpc_stream_receive(stream, 1, NULL, &event), MEED_OK);
        }
        assert_true(meed_rpc_stream_finish(stream) != MEED_OK);
        meed_rpc_stream_destroy(stream);
        pthread_mutex_lock(&bed->toy.mutex);
        struct meed_rpc_call *held = bed->toy.watcher;
        bed->toy.watcher = NULL;
        pthread_mutex_unlock(&bed->toy.mutex);
        if (held) {
            meed_rpc_call_release(held);
        }
    }
    struct meed_rpc_server_stats stats;
    for (int i = 0; i < 2000; i++) {
        meed_rpc_server_stats(bed->server, &stats);
        if (stats.calls_live == 0) {
            break;
        }
        meed_clock_sleep_ms(1);
    }
    assert_int_equal(stats.calls_live, 0);
}

static void rpc_health_answers(void **state)
{
    struct bed *bed = *state;
    static const uint8_t own[] = {0x0A, 7, 't', 'o', 'y', '.', 'T', 'o', 'y'};
    static const uint8_t other[] = {0x0A, 1, 'x'};
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    const char *path = "/grpc.health.v1.Health/Check";
    assert_int_equal(meed_rpc_client_unary(bed->client, path, own, sizeof own, 5000, &reply),
                     MEED_OK);
    assert_memory_equal(reply.data, "\x08\x01", 2);
    assert_int_equal(meed_rpc_client_unary(bed->client, path, other, sizeof other, 5000, &reply),
                     MEED_NOT_FOUND);
    meed_rpc_server_set_serving(bed->server, false);
    meed_buf_reset(&reply);
    assert_int_equal(meed_rpc_client_unary(bed->client, path, "", 0, 5000, &reply), MEED_OK);
    assert_memory_equal(reply.data, "\x08\x02", 2);
    assert_int_equal(meed_rpc_client_unary(bed->client, path, "\xff\xff\xff", 3, 5000, &reply),
                     MEED_FORMAT);
    meed_buf_clear(&reply);
}

static void rpc_health_watch_sends_changes(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/grpc.health.v1.Health/Watch");
    assert_int_equal(meed_rpc_stream_send(stream, "", 0), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    struct meed_buf message;
    meed_buf_init(&message, 100);
    enum meed_rpc_event event;
    for (int i = 0; i < 4; i++) {
        meed_buf_reset(&message);
        assert_int_equal(meed_rpc_stream_receive(stream, 3000, &message, &event), MEED_OK);
        assert_int_equal(event, MEED_RPC_MESSAGE);
        assert_memory_equal(message.data, i % 2 ? "\x08\x02" : "\x08\x01", 2);
        meed_rpc_server_set_serving(bed->server, i % 2 == 1);
    }
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&message);
}

/* Stopping ends watchers with a reason, lets an upload finish and refuses what comes later. */
struct stopper {
    struct meed_rpc_server *server;
    atomic_int stopped;
};

static void *stop_server(void *user)
{
    struct stopper *stopper = user;
    meed_rpc_server_stop(stopper->server, 3000);
    atomic_store(&stopper->stopped, 1);
    return NULL;
}

static void rpc_stops_gracefully(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *watch = upload_open(bed, "/toy.Toy/Watch");
    struct meed_rpc_stream *upload = upload_open(bed, "/toy.Toy/Sum");
    enum meed_rpc_event event;
    assert_int_equal(meed_rpc_stream_send(watch, "", 0), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(watch), MEED_OK);
    assert_int_equal(meed_rpc_stream_receive(watch, 3000, NULL, &event), MEED_OK);
    assert_int_equal(meed_rpc_stream_send(upload, "abc", 3), MEED_OK);
    for (int i = 0; i < 2000 && atomic_load(&bed->toy.bytes) < 3; i++) {
        meed_clock_sleep_ms(1);
    }
    struct stopper stopper = {.server = bed->server};
    pthread_t thread;
    pthread_create(&thread, NULL, stop_server, &stopper);
    assert_int_equal(meed_rpc_stream_receive(watch, 3000, NULL, &event), MEED_OK);
    assert_int_equal(event, MEED_RPC_END);
    assert_int_equal(meed_rpc_stream_finish(watch), MEED_RPC);
    assert_string_equal(meed_last_error(), "the server is shutting down");
    assert_int_equal(atomic_load(&stopper.stopped), 0);
    assert_int_equal(meed_rpc_stream_send(upload, "abc", 3), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(upload), MEED_OK);
    assert_int_equal(meed_rpc_stream_receive(upload, 3000, NULL, &event), MEED_OK);
    assert_int_equal(event, MEED_RPC_MESSAGE);
    assert_int_equal(meed_rpc_stream_finish(upload), MEED_OK);
    meed_rpc_stream_destroy(watch);
    meed_rpc_stream_destroy(upload);
    pthread_join(thread, NULL);
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    assert_true(meed_rpc_client_unary(bed->client, "/toy.Toy/Echo", "", 0, 300, &reply) != MEED_OK);
    meed_buf_clear(&reply);
}

/* Calls that never end are cut when the grace is over. */
static void rpc_stop_cuts_after_grace(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_stream *stream = upload_open(bed, "/toy.Toy/Deaf");
    echo(bed->client, "the deaf call has started before this one ended");
    int64_t start_ns = meed_clock_monotonic_ns();
    meed_rpc_server_stop(bed->server, 100);
    double seconds = meed_clock_seconds_since(start_ns);
    assert_true(seconds > 0.09 && seconds < 2.0);
    assert_true(meed_rpc_stream_finish(stream) != MEED_OK);
    meed_rpc_stream_destroy(stream);
}

/* Three thousand clients watch at once, attended by one thread; all hear the end. */
static void rpc_loop_serves_thousands(void **state)
{
    enum { CLIENTS = 3000 };
    struct bed *bed = *state;
    struct meed_rpc_client **clients = calloc(CLIENTS, sizeof *clients);
    struct meed_rpc_stream **streams = calloc(CLIENTS, sizeof *streams);
    enum meed_rpc_event event;
    char name[32];
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(name, sizeof name, "client-%d", i);
        clients[i] = bed_client(bed, name);
        assert_int_equal(meed_rpc_stream_open(clients[i], "/toy.Toy/Watch", -1, &streams[i]),
                         MEED_OK);
        assert_int_equal(meed_rpc_stream_send(streams[i], "", 0), MEED_OK);
        assert_int_equal(meed_rpc_stream_close_send(streams[i]), MEED_OK);
        echo(clients[i], name);
    }
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(meed_rpc_stream_receive(streams[i], -1, NULL, &event), MEED_OK);
        assert_int_equal(event, MEED_RPC_MESSAGE);
        assert_int_equal(meed_rpc_stream_receive(streams[i], 0, NULL, &event), MEED_OK);
        assert_int_equal(event, MEED_RPC_WAITING);
    }
    struct meed_rpc_server_stats stats;
    meed_rpc_server_stats(bed->server, &stats);
    assert_int_equal(stats.calls_live, CLIENTS);
    meed_rpc_server_stop(bed->server, 5000);
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(meed_rpc_stream_finish(streams[i]), MEED_RPC);
        meed_rpc_stream_destroy(streams[i]);
        meed_rpc_client_close(clients[i]);
    }
    free(clients);
    free(streams);
}

static int open_loop(void **state)
{
    *state = bed_open(TRANSPORT_LOOP, false);
    return 0;
}

static int open_plain(void **state)
{
    *state = bed_open(TRANSPORT_PLAIN, false);
    return 0;
}

static int open_tls(void **state)
{
    *state = bed_open(TRANSPORT_TLS, false);
    return 0;
}

static int close_bed(void **state)
{
    bed_close(*state);
    return 0;
}

#define ON(test, transport)                                                                        \
    {                                                                                              \
        "on " #transport ": " #test, test, open_##transport, close_bed, NULL                       \
    }
#define ON_ALL(test) ON(test, loop), ON(test, plain), ON(test, tls)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(rpc_echoes_text_and_nothing),
        ON_ALL(rpc_carries_every_status),
        ON_ALL(rpc_refuses_unknown_method),
        ON_ALL(rpc_names_the_caller),
        ON_ALL(rpc_deadline_ends_a_mute_call),
        ON_ALL(rpc_timer_rings_once),
        ON_ALL(rpc_downloads_in_order),
        ON_ALL(rpc_abandoned_download_ends),
        ON_ALL(rpc_uploads_and_half_closes),
        ON_ALL(rpc_broken_upload_is_failed),
        ON_ALL(rpc_oversize_is_refused_here),
        ON_ALL(rpc_early_refusal_reaches_the_sender),
        ON_ALL(rpc_deaf_server_blocks_the_sender),
        ON_ALL(rpc_stalled_upload_is_given_up),
        ON_ALL(rpc_wakes_a_watcher),
        ON_ALL(rpc_wake_races_with_deadline),
        ON_ALL(rpc_health_answers),
        ON_ALL(rpc_health_watch_sends_changes),
        ON_ALL(rpc_stops_gracefully),
        ON_ALL(rpc_stop_cuts_after_grace),
        ON(rpc_loop_serves_thousands, loop),
    };
    return cmocka_run_group_tests_name("rpc", tests, NULL, NULL);
}
