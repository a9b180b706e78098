/* The edges of gRPC core, each seen to abort, hang, swallow memory or lie when left alone. */
#include "rpc_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a raw client: what ours refuses to do ------------------------------------------------------
 */

struct raw {
    grpc_channel *channel;
    grpc_completion_queue *cq;
};

struct raw_call {
    const char *path;
    size_t message_bytes; /* SIZE_MAX: none */
    size_t metadata_bytes;
    const char *metadata_key;
    bool gzip;
    bool again; /* a second message of 4 bytes before the one of message_bytes */
};

static struct raw raw_open(const struct bed *bed)
{
    grpc_init();
    grpc_arg arg = {.type = GRPC_ARG_INTEGER,
                    .key = (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                    .value.integer = 1};
    grpc_channel_args args = {1, &arg};
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    struct raw raw = {grpc_channel_create(bed->target, plain, &args),
                      grpc_completion_queue_create_for_pluck(NULL)};
    grpc_channel_credentials_release(plain);
    return raw;
}

static void raw_close(struct raw *raw)
{
    grpc_channel_destroy(raw->channel);
    grpc_completion_queue_shutdown(raw->cq);
    grpc_completion_queue_pluck(raw->cq, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_destroy(raw->cq);
    grpc_shutdown();
}

static grpc_byte_buffer *raw_buffer(size_t bytes)
{
    char *zeros = calloc(1, bytes + 1);
    grpc_slice slice = grpc_slice_from_copied_buffer(zeros, bytes);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    free(zeros);
    return buffer;
}

static grpc_call_error raw_send(struct raw *raw, grpc_call *call, size_t bytes)
{
    grpc_byte_buffer *buffer = raw_buffer(bytes);
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    grpc_call_error error = grpc_call_start_batch(call, &op, 1, (void *)3, NULL);
    grpc_byte_buffer_destroy(buffer);
    if (error == GRPC_CALL_OK) {
        grpc_completion_queue_pluck(raw->cq, (void *)3, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    }
    return error;
}

/* Runs a call to its status. */
static grpc_status_code raw_run(struct raw *raw, struct raw_call spec)
{
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(10000, GPR_TIMESPAN));
    grpc_slice path = grpc_slice_from_copied_string(spec.path);
    grpc_call *call = grpc_channel_create_call(raw->channel, NULL, GRPC_PROPAGATE_DEFAULTS, raw->cq,
                                               path, NULL, deadline, NULL);
    grpc_slice_unref(path);
    char *value = calloc(1, spec.metadata_bytes + 1);
    memset(value, 'v', spec.metadata_bytes);
    grpc_metadata entries[2];
    size_t entry_count = 0;
    if (spec.metadata_key) {
        entries[entry_count++] =
            (grpc_metadata){.key = grpc_slice_from_copied_string(spec.metadata_key),
                            .value = grpc_slice_from_copied_string(value)};
    }
    if (spec.gzip) {
        entries[entry_count++] =
            (grpc_metadata){.key = grpc_slice_from_static_string("grpc-internal-encoding-request"),
                            .value = grpc_slice_from_static_string("gzip")};
    }
    grpc_metadata_array headers, trailers;
    grpc_metadata_array_init(&headers);
    grpc_metadata_array_init(&trailers);
    grpc_status_code code = GRPC_STATUS_UNKNOWN;
    grpc_slice details = grpc_empty_slice();
    grpc_byte_buffer *reply = NULL;
    grpc_op ops[5] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA,
         .data.send_initial_metadata = {.count = entry_count, .metadata = entries}},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &headers},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {&trailers, &code, &details, NULL}},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &reply},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
    };
    if (grpc_call_start_batch(call, ops, 4, (void *)1, NULL) == GRPC_CALL_OK) {
        if (spec.again) {
            raw_send(raw, call, 4);
        }
        if (spec.message_bytes != SIZE_MAX) {
            raw_send(raw, call, spec.message_bytes);
        }
        grpc_call_start_batch(call, &ops[4], 1, (void *)2, NULL);
        grpc_completion_queue_pluck(raw->cq, (void *)2, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        grpc_completion_queue_pluck(raw->cq, (void *)1, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    } else {
        code = GRPC_STATUS__DO_NOT_USE;
    }
    for (size_t i = 0; i < entry_count; i++) {
        grpc_slice_unref(entries[i].key);
        grpc_slice_unref(entries[i].value);
    }
    if (reply) {
        grpc_byte_buffer_destroy(reply);
    }
    free(value);
    grpc_slice_unref(details);
    grpc_metadata_array_destroy(&headers);
    grpc_metadata_array_destroy(&trailers);
    grpc_call_unref(call);
    return code;
}

static bool echoes(struct meed_rpc_client *client, int64_t deadline_ms)
{
    struct meed_buf reply;
    meed_buf_init(&reply, 100);
    enum meed_status st =
        meed_rpc_client_unary(client, "/toy.Toy/Echo", "hi", 2, deadline_ms, &reply);
    meed_buf_clear(&reply);
    return st == MEED_OK;
}

/* ---- calls that should not be ------------------------------------------------------------------
 */

static void edges_answer_odd_calls(void **state)
{
    struct bed *bed = *state;
    struct raw raw = raw_open(bed);
    const size_t none = SIZE_MAX, big = (1 << 20) + (64 << 10) + 1;
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", 4, 0, NULL, false, false}),
                     GRPC_STATUS_OK);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/no.Such/Method", 4, 0, NULL, false, false}),
                     GRPC_STATUS_UNIMPLEMENTED);
    assert_int_equal(
        raw_run(&raw, (struct raw_call){"/no.Such/Method", none, 0, NULL, false, false}),
        GRPC_STATUS_UNIMPLEMENTED);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", none, 0, NULL, false, false}),
                     GRPC_STATUS_INVALID_ARGUMENT);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", 4, 0, NULL, false, true}),
                     GRPC_STATUS_OK);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", big, 0, NULL, false, false}),
                     GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", 9000, 0, NULL, true, false}),
                     GRPC_STATUS_UNIMPLEMENTED);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", 4, 9000, "x", false, false}),
                     GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(raw_run(&raw, (struct raw_call){"/toy.Toy/Echo", 4, 4, "UPPER", false, false}),
                     GRPC_STATUS__DO_NOT_USE);
    /* The long header cost that connection only; the others are unharmed. */
    assert_true(echoes(bed->client, 5000));
    raw_close(&raw);
}

/* An oversize message in mid-stream must be `failed`, never `half_closed`. */
static void edges_oversize_in_mid_stream_fails(void **state)
{
    struct bed *bed = *state;
    struct raw raw = raw_open(bed);
    for (int i = 1; i <= 20; i++) {
        struct raw_call call = {"/toy.Toy/Sum", (2 << 20), 0, NULL, false, true};
        assert_int_equal(raw_run(&raw, call), GRPC_STATUS_RESOURCE_EXHAUSTED);
        assert_true(reaches(&bed->toy.failed, i));
    }
    assert_int_equal(atomic_load(&bed->toy.half_closed), 0);
    raw_close(&raw);
}

/* A plain-text caller names itself; what is not an id is no name. */
static void edges_take_no_odd_names(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_client *client = NULL;
    struct meed_rpc_client_options options = {
        .target = bed->target, .insecure = true, .client_id = "not an id"};
    assert_int_equal(meed_rpc_grpc_client_open(&options, &client), MEED_ARG);
    options.client_id = NULL;
    assert_int_equal(meed_rpc_grpc_client_open(&options, &client), MEED_OK);
    struct meed_buf reply;
    meed_buf_init(&reply, 1000);
    assert_int_equal(meed_rpc_client_unary(client, "/toy.Toy/Who", "", 0, 5000, &reply), MEED_OK);
    assert_memory_equal(reply.data, "|0|", 3);
    meed_buf_clear(&reply);
    meed_rpc_client_close(client);
}

/* ---- killed peers, restarts, ports
 * --------------------------------------------------------------- */

/* A client process that is killed in mid-upload. It is forked before gRPC starts here. */
static void edges_killed_client_fails_its_upload(void **state)
{
    (void)state;
    int to_child[2];
    assert_int_equal(pipe(to_child), 0);
    struct bed *bed = bed_prepare(TRANSPORT_PLAIN);
    pid_t child = fork();
    if (child == 0) {
        struct meed_rpc_stream *stream = NULL;
        if (read(to_child[0], bed->target, sizeof bed->target) > 0) {
            struct meed_rpc_client *client = bed_client(bed, "alice");
            char block[4096] = {0};
            if (meed_rpc_stream_open(client, "/toy.Toy/Sum", 60000, &stream) == MEED_OK) {
                while (meed_rpc_stream_send(stream, block, sizeof block) == MEED_OK) {
                    meed_clock_sleep_ms(1);
                }
            }
        }
        _exit(0);
    }
    bed_serve(bed, toy_service(bed), false);
    assert_int_equal(write(to_child[1], bed->target, sizeof bed->target), sizeof bed->target);
    for (int i = 0; i < 5000 && atomic_load(&bed->toy.bytes) < 20000; i++) {
        meed_clock_sleep_ms(1);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(reaches(&bed->toy.failed, 1));
    assert_true(reaches(&bed->toy.done, 1));
    assert_int_equal(atomic_load(&bed->toy.half_closed), 0);
    close(to_child[0]);
    close(to_child[1]);
    bed_close(bed);
}

static void edges_second_server_on_a_port_is_refused(void **state)
{
    struct bed *bed = *state;
    struct meed_rpc_server *second = NULL;
    struct meed_rpc_server_options options = {.address = bed->target, .insecure = true};
    assert_int_equal(meed_rpc_grpc_server_start(&options, toy_service(bed), &second), MEED_IO);
    assert_non_null(strstr(meed_last_error(), bed->target));
    options.insecure = false;
    assert_int_equal(meed_rpc_grpc_server_start(&options, toy_service(bed), &second), MEED_CONFIG);
    assert_null(second);
    assert_true(echoes(bed->client, 5000));
}

/* A call started while the server is down is answered by the next one on the port. */
static void *restart(void *user)
{
    struct bed *bed = user;
    meed_clock_sleep_ms(300);
    struct meed_rpc_server_options options = {.address = bed->target, .insecure = true};
    for (int i = 0; i < 50 && !bed->server; i++) {
        if (meed_rpc_grpc_server_start(&options, toy_service(bed), &bed->server) != MEED_OK) {
            meed_clock_sleep_ms(50);
        }
    }
    return NULL;
}

static void edges_client_rides_out_a_restart(void **state)
{
    struct bed *bed = *state;
    pthread_t thread;
    assert_true(echoes(bed->client, 5000));
    meed_rpc_server_destroy(bed->server);
    bed->server = NULL;
    assert_false(echoes(bed->client, 100));
    pthread_create(&thread, NULL, restart, bed);
    assert_true(echoes(bed->client, 10000));
    pthread_join(thread, NULL);
}

/* ---- stopping under load --------------------------------------------------------------------- */

struct load {
    struct bed *bed;
    atomic_bool stop;
};

static void *load_main(void *user)
{
    struct load *load = user;
    struct meed_rpc_client *client = bed_client(load->bed, "alice");
    char *block = calloc(1, 1 << 18);
    for (int i = 0; !atomic_load(&load->stop); i++) {
        struct meed_rpc_stream *stream = NULL;
        if (i % 3 == 0) {
            echoes(client, 500);
        } else if (meed_rpc_stream_open(client, i % 3 == 1 ? "/toy.Toy/Sum" : "/toy.Toy/Watch", 500,
                                        &stream) == MEED_OK) {
            enum meed_rpc_event event;
            for (int j = 0; j < 4 && meed_rpc_stream_send(stream, block, 1 << 18) == MEED_OK; j++) {
            }
            assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
            assert_int_equal(meed_rpc_stream_receive(stream, 20, NULL, &event), MEED_OK);
            meed_rpc_stream_destroy(stream);
        }
    }
    free(block);
    meed_rpc_client_close(client);
    return NULL;
}

static void edges_stop_under_load(void **state)
{
    (void)state;
    for (int round = 0; round < 15; round++) {
        struct bed *bed = bed_open(round % 3 == 2 ? TRANSPORT_TLS : TRANSPORT_PLAIN, false);
        struct load load = {.bed = bed};
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) {
            pthread_create(&threads[i], NULL, load_main, &load);
        }
        meed_clock_sleep_ms(30 + round * 3);
        meed_rpc_server_stop(bed->server, 500);
        struct meed_rpc_server_stats stats;
        meed_rpc_server_stats(bed->server, &stats);
        assert_int_equal(stats.calls_live, 0);
        atomic_store(&load.stop, true);
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
        bed_close(bed);
    }
}

/* ---- the deaf listener -------------------------------------------------------------------------
 */

/* Runs the process out of descriptors while strangers connect, then gives all back. Without the
 * probe no connection would ever be accepted again. */
static void edges_listener_revives_after_a_storm(void **state)
{
    (void)state;
    struct bed *bed = bed_open(TRANSPORT_TLS, true);
    assert_true(echoes(bed->client, 5000));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)meed_rpc_server_port(bed->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit before, tight;
    getrlimit(RLIMIT_NOFILE, &before);
    int sockets[64], count = 0, fillers[512], filler_count = 0;
    for (; count < 32; count++) { /* strangers first, so that their accepts meet the wall */
        sockets[count] = socket(AF_INET, SOCK_STREAM, 0);
    }
    int lowest = dup(0);
    tight = before;
    tight.rlim_cur = (rlim_t)lowest + 8;
    close(lowest);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    while (filler_count < 512 && (fillers[filler_count] = dup(0)) >= 0) {
        filler_count++;
    }
    for (int i = 0; i < count; i++) {
        fcntl(sockets[i], F_SETFL, O_NONBLOCK);
        connect(sockets[i], (struct sockaddr *)&address, sizeof address);
    }
    meed_clock_sleep_ms(300);
    for (int i = 0; i < filler_count; i++) {
        close(fillers[i]);
    }
    for (int i = 0; i < count; i++) {
        close(sockets[i]);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    bool answered = false;
    struct meed_rpc_server_stats stats = {0};
    for (int i = 0; i < 30 && !answered; i++) {
        struct meed_rpc_client *fresh = bed_client(bed, "alice");
        answered = echoes(fresh, 1000);
        meed_rpc_client_close(fresh);
    }
    meed_rpc_server_stats(bed->server, &stats);
    print_message("answered after %d revivals\n", (int)stats.revivals);
    assert_true(answered);
    bed_close(bed);
}

/* ---- proxies and certificates ------------------------------------------------------------------
 */

static void edges_loopback_ignores_proxies(void **state)
{
    struct bed *bed = *state;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("grpc_proxy", "http://127.0.0.1:1", 1);
    struct meed_rpc_client *client = bed_client(bed, "alice");
    bool answered = echoes(client, 3000);
    meed_rpc_client_close(client);
    unsetenv("http_proxy");
    unsetenv("grpc_proxy");
    assert_true(answered);
}

/* Tries to call with an identity; the status. */
static enum meed_status call_as(struct bed *bed, const char *ca, const struct identity *id,
                                const char *server_name)
{
    struct meed_rpc_tls tls = {ca, id->certificate, id->key, server_name};
    struct meed_rpc_client_options options = {
        .target = bed->target, .tls = &tls, .own_connection = true};
    struct meed_rpc_client *client = NULL;
    struct meed_buf reply;
    meed_buf_init(&reply, 1000);
    assert_int_equal(meed_rpc_grpc_client_open(&options, &client), MEED_OK);
    enum meed_status st = meed_rpc_client_unary(client, "/toy.Toy/Who", "", 0, 700, &reply);
    if (st == MEED_OK) {
        print_message("caller: %.20s\n", reply.data);
    }
    meed_buf_clear(&reply);
    meed_rpc_client_close(client);
    return st;
}

static void edges_certificates_decide(void **state)
{
    struct bed *bed = *state;
    struct identity other_ca, stranger, expired, server_only, nameless;
    identity_make(&other_ca, NULL, "Other CA", NULL, NULL, 3600);
    identity_make(&stranger, &other_ca, "Mallory", "URI:meed:client/alice", "clientAuth", 3600);
    identity_make(&expired, &bed->ca, "Old", "URI:meed:client/alice", "clientAuth", -60);
    identity_make(&server_only, &bed->ca, "Server", "URI:meed:client/alice", "serverAuth", 3600);
    identity_make(&nameless, &bed->ca, "alice", "URI:meed:client/a/b", "clientAuth", 3600);
    const char *ca = bed->ca.certificate;
    assert_int_equal(call_as(bed, ca, &bed->client_id, NULL), MEED_OK);
    assert_int_equal(call_as(bed, ca, &bed->client_id, "localhost"), MEED_OK);
    assert_int_equal(call_as(bed, ca, &nameless, NULL), MEED_OK); /* known, but nobody */
    assert_int_not_equal(call_as(bed, ca, &stranger, NULL), MEED_OK);
    assert_int_not_equal(call_as(bed, ca, &expired, NULL), MEED_OK);
    assert_int_not_equal(call_as(bed, ca, &server_only, NULL), MEED_OK);
    assert_int_not_equal(call_as(bed, ca, &bed->client_id, "elsewhere"), MEED_OK);
    assert_int_not_equal(call_as(bed, other_ca.certificate, &bed->client_id, NULL), MEED_OK);
    print_message("refused with: %s\n", meed_last_error());
    struct meed_rpc_client_options plain = {.target = bed->target, .insecure = true};
    struct meed_rpc_client *client = NULL;
    assert_int_equal(meed_rpc_grpc_client_open(&plain, &client), MEED_OK);
    assert_false(echoes(client, 1000));
    meed_rpc_client_close(client);
    plain.insecure = false;
    assert_int_equal(meed_rpc_grpc_client_open(&plain, &client), MEED_CONFIG);
    struct meed_rpc_tls broken = {ca, "no certificate", bed->client_id.key, NULL};
    plain.tls = &broken;
    assert_int_equal(meed_rpc_grpc_client_open(&plain, &client), MEED_CONFIG);
    identity_free(&other_ca);
    identity_free(&stranger);
    identity_free(&expired);
    identity_free(&server_only);
    identity_free(&nameless);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* First: it forks, which is only allowed before gRPC has started. */
        cmocka_unit_test(edges_killed_client_fails_its_upload),
        cmocka_unit_test_setup_teardown(edges_answer_odd_calls, open_plain, close_bed),
        cmocka_unit_test_setup_teardown(edges_oversize_in_mid_stream_fails, open_plain, close_bed),
        cmocka_unit_test_setup_teardown(edges_take_no_odd_names, open_plain, close_bed),
        cmocka_unit_test_setup_teardown(edges_second_server_on_a_port_is_refused, open_plain,
                                        close_bed),
        cmocka_unit_test_setup_teardown(edges_client_rides_out_a_restart, open_plain, close_bed),
        cmocka_unit_test(edges_stop_under_load),
        cmocka_unit_test(edges_listener_revives_after_a_storm),
        cmocka_unit_test_setup_teardown(edges_loopback_ignores_proxies, open_plain, close_bed),
        cmocka_unit_test_setup_teardown(edges_certificates_decide, open_tls, close_bed),
    };
    return cmocka_run_group_tests_name("rpc_edges", tests, NULL, NULL);
}
