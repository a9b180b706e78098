/* Uploads and downloads as the federation does them: messages, chunks, hashes, fsync, resume.
 *
 * With arguments it is a meter: `loop_rpc_push CLIENTS MEGABYTES [plain]` pushes so many megabytes
 * from each client at once, over mTLS unless told otherwise, every chunk hashed and the whole
 * synced before the reply, and prints rate and the process's memory.
 */
#include "rpc_fixture.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/chunk.h"
#include "proto/codec.h"

/* ---- a service that stores pushes in files and serves one blob ----------------------------------
 */

struct store {
    char folder[64];
    const uint8_t *blob; /* what PullAdapter sends */
    int64_t blob_bytes;
    uint8_t blob_hash[MEED_SHA256_BYTES];
    atomic_int stored, next_file;
    atomic_llong break_after; /* > 0: the call that passes so many bytes is broken off, once */
};

struct push {
    struct meed_chunk_receiver receiver;
    bool open;
    int fd;
    char path[192];
};

static void push_start(void *user, struct meed_rpc_call *call)
{
    (void)user;
    struct push *push = calloc(1, sizeof *push);
    push->fd = -1;
    meed_rpc_call_set_state(call, push);
    meed_rpc_call_read_next(call);
}

static void file_name(const struct store *store, const uint8_t hash[MEED_SHA256_BYTES],
                      const char *client, char path[192])
{
    snprintf(path, 192, "%s/%s-%02x%02x%02x%02x", store->folder, client, hash[0], hash[1], hash[2],
             hash[3]);
}

static int64_t stored_bytes(const char *path)
{
    int fd = open(path, O_RDONLY);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    if (fd >= 0) {
        close(fd);
    }
    return size;
}

static enum meed_status push_header(struct store *store, struct meed_rpc_call *call,
                                    struct push *push, const struct meed_msg_push_header *header)
{
    MEED_TRY(
        meed_chunk_receiver_init(&push->receiver, header->total_bytes, 1 << 30, header->sha256));
    file_name(store, header->sha256, meed_rpc_call_peer(call)->client_id, push->path);
    push->fd = open(push->path, O_RDWR | O_CREAT, 0600);
    assert_true(push->fd >= 0);
    push->open = true;
    if (header->offset != stored_bytes(push->path)) {
        return MEED_FAIL(MEED_STATE, "resume at byte %lld", (long long)stored_bytes(push->path));
    }
    uint8_t block[65536];
    ssize_t got;
    while ((got = read(push->fd, block, sizeof block)) > 0) {
        MEED_TRY(meed_chunk_receiver_resume(&push->receiver, block, (size_t)got));
    }
    return MEED_OK;
}

static void push_message(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct store *store = user;
    struct push *push = meed_rpc_call_state(call);
    struct meed_msg_push_request request;
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    enum meed_status st = meed_codec_unpack_push_request(bytes, size, &arena, &request);
    if (st == MEED_OK && !push->open && request.part == MEED_PUSH_HEADER) {
        st = push_header(store, call, push, &request.header);
    } else if (st == MEED_OK && push->open && request.part == MEED_PUSH_CHUNK) {
        st = meed_chunk_receiver_accept(&push->receiver, &request.chunk);
        if (st == MEED_OK) {
            ssize_t written = write(push->fd, request.chunk.bytes, request.chunk.size);
            assert_int_equal(written, request.chunk.size);
            /* Write-back starts now, so that the final fsync finds little left to do. */
            sync_file_range(push->fd, request.chunk.offset, (off_t)written, SYNC_FILE_RANGE_WRITE);
        }
        long long limit = atomic_load(&store->break_after);
        if (limit > 0 && push->receiver.offset >= limit) {
            atomic_store(&store->break_after, 0);
            st = MEED_FAIL(MEED_RPC, "broken off on purpose");
        }
    } else if (st == MEED_OK) {
        st = MEED_FAIL(MEED_FORMAT, "one header, then chunks");
    }
    meed_arena_clear(&arena);
    if (st == MEED_OK) {
        meed_rpc_call_read_next(call);
    } else {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
    }
}

static void push_half_closed(void *user, struct meed_rpc_call *call)
{
    struct store *store = user;
    struct push *push = meed_rpc_call_state(call);
    enum meed_status st = push->open ? meed_chunk_receiver_finish(&push->receiver)
                                     : MEED_FAIL(MEED_FORMAT, "no header came");
    if (st != MEED_OK) {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
        return;
    }
    assert_int_equal(fsync(push->fd), 0);
    struct meed_msg_push_reply reply = {MEED_PUSH_ACCEPTED, push->receiver.total_bytes};
    struct meed_buf bytes;
    meed_codec_buf_init(&bytes);
    assert_int_equal(meed_codec_pack_push_reply(&reply, &bytes), MEED_OK);
    atomic_fetch_add(&store->stored, 1);
    meed_rpc_call_finish(call, MEED_OK, NULL, bytes.data, bytes.size);
    meed_buf_clear(&bytes);
}

static void push_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    (void)user;
    (void)cancelled;
    struct push *push = meed_rpc_call_state(call);
    if (push) {
        meed_chunk_receiver_clear(&push->receiver);
        if (push->fd >= 0) {
            close(push->fd);
        }
        free(push);
    }
}

static void query_message(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct meed_msg_query_push_request request;
    struct meed_arena arena;
    char path[192];
    meed_codec_arena_init(&arena);
    enum meed_status st = meed_codec_unpack_query_push_request(bytes, size, &arena, &request);
    meed_arena_clear(&arena);
    if (st != MEED_OK) {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
        return;
    }
    file_name(user, request.sha256, meed_rpc_call_peer(call)->client_id, path);
    struct meed_msg_query_push_reply reply = {stored_bytes(path), false};
    struct meed_buf out;
    meed_codec_buf_init(&out);
    assert_int_equal(meed_codec_pack_query_push_reply(&reply, &out), MEED_OK);
    meed_rpc_call_finish(call, MEED_OK, NULL, out.data ? out.data : "", out.size);
    meed_buf_clear(&out);
}

static void pull_more(void *user, struct meed_rpc_call *call)
{
    struct meed_chunk_sender *sender = meed_rpc_call_state(call);
    struct meed_msg_pull_reply reply = {.part = MEED_PULL_CHUNK};
    (void)user;
    if (!meed_chunk_sender_next(sender, &reply.chunk)) {
        meed_rpc_call_finish(call, MEED_OK, NULL, NULL, 0);
        return;
    }
    struct meed_buf bytes;
    meed_codec_buf_init(&bytes);
    assert_int_equal(meed_codec_pack_pull_reply(&reply, &bytes), MEED_OK);
    meed_rpc_call_write(call, bytes.data, bytes.size);
    meed_buf_clear(&bytes);
}

static void pull_message(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct store *store = user;
    struct meed_msg_pull_request request;
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    assert_int_equal(meed_codec_unpack_pull_request(bytes, size, &arena, &request), MEED_OK);
    meed_arena_clear(&arena);
    struct meed_chunk_sender *sender = calloc(1, sizeof *sender);
    meed_rpc_call_set_state(call, sender);
    assert_int_equal(meed_chunk_sender_init(sender, store->blob, store->blob_bytes, request.offset),
                     MEED_OK);
    pull_more(user, call);
}

static void pull_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    (void)user;
    (void)cancelled;
    free(meed_rpc_call_state(call));
}

static const struct meed_rpc_method store_methods[] = {
    {.path = "/meed.v1.Federation/PushUpdate",
     .shape = MEED_RPC_CLIENT_STREAM,
     .progress_ms = 30000,
     .start = push_start,
     .message = push_message,
     .half_closed = push_half_closed,
     .done = push_done},
    {.path = "/meed.v1.Federation/QueryPush", .message = query_message},
    {.path = "/meed.v1.Federation/PullAdapter",
     .shape = MEED_RPC_SERVER_STREAM,
     .message = pull_message,
     .writable = pull_more,
     .done = pull_done},
};

/* ---- client side ------------------------------------------------------------------------------
 */

static enum meed_status send_push(struct meed_rpc_stream *stream,
                                  const struct meed_msg_push_request *request,
                                  struct meed_buf *scratch)
{
    meed_buf_reset(scratch);
    MEED_TRY(meed_codec_pack_push_request(request, scratch));
    return meed_rpc_stream_send(stream, scratch->data, scratch->size);
}

/* One attempt from `offset`; finish's verdict. */
static enum meed_status push_once(struct meed_rpc_client *client, const uint8_t *bytes,
                                  int64_t size, const uint8_t hash[MEED_SHA256_BYTES],
                                  int64_t offset)
{
    struct meed_rpc_stream *stream = NULL;
    struct meed_buf scratch;
    struct meed_chunk_sender sender;
    struct meed_msg_push_request request = {.part = MEED_PUSH_HEADER};
    enum meed_rpc_event event = MEED_RPC_END;
    meed_codec_buf_init(&scratch);
    snprintf(request.header.run_id, sizeof request.header.run_id, "run");
    memcpy(request.header.sha256, hash, MEED_SHA256_BYTES);
    memset(request.header.base_adapter_hash, 1, MEED_SHA256_BYTES);
    request.header.total_bytes = size;
    request.header.offset = offset;
    MEED_TRY(meed_rpc_stream_open(client, MEED_RPC_PUSH, 120000, &stream));
    enum meed_status st = send_push(stream, &request, &scratch);
    assert_int_equal(meed_chunk_sender_init(&sender, bytes, size, offset), MEED_OK);
    request.part = MEED_PUSH_CHUNK;
    while (st == MEED_OK && meed_chunk_sender_next(&sender, &request.chunk)) {
        st = send_push(stream, &request, &scratch);
    }
    if (st == MEED_OK) {
        st = meed_rpc_stream_close_send(stream);
        meed_buf_reset(&scratch);
        assert_int_equal(meed_rpc_stream_receive(stream, -1, &scratch, &event), MEED_OK);
    }
    st = meed_rpc_stream_finish(stream);
    if (st == MEED_OK) {
        struct meed_msg_push_reply reply;
        struct meed_arena arena;
        meed_codec_arena_init(&arena);
        assert_int_equal(event, MEED_RPC_MESSAGE);
        st = meed_codec_unpack_push_reply(scratch.data, scratch.size, &arena, &reply);
        assert_int_equal(reply.stored_bytes, size);
        meed_arena_clear(&arena);
    }
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&scratch);
    return st;
}

static int64_t query(struct meed_rpc_client *client, const uint8_t hash[MEED_SHA256_BYTES])
{
    struct meed_msg_query_push_request request = {.run_id = "run"};
    struct meed_msg_query_push_reply reply;
    struct meed_buf out, in;
    struct meed_arena arena;
    memcpy(request.sha256, hash, MEED_SHA256_BYTES);
    meed_codec_buf_init(&out);
    meed_codec_buf_init(&in);
    meed_codec_arena_init(&arena);
    assert_int_equal(meed_codec_pack_query_push_request(&request, &out), MEED_OK);
    assert_int_equal(
        meed_rpc_client_unary(client, MEED_RPC_QUERY_PUSH, out.data, out.size, 5000, &in), MEED_OK);
    assert_int_equal(meed_codec_unpack_query_push_reply(in.data, in.size, &arena, &reply), MEED_OK);
    meed_arena_clear(&arena);
    meed_buf_clear(&out);
    meed_buf_clear(&in);
    return reply.stored_bytes;
}

/* ---- tests ---------------------------------------------------------------------------------- */

struct push_bed {
    struct bed *bed;
    struct store store;
    uint8_t *bytes;
    int64_t size;
    uint8_t hash[MEED_SHA256_BYTES];
};

/* Bytes, certificates and a folder; no server yet. */
static struct push_bed *push_bed_prepare(enum transport transport, int64_t size)
{
    struct push_bed *self = calloc(1, sizeof *self);
    self->bed = bed_prepare(transport);
    snprintf(self->store.folder, sizeof self->store.folder, "push-XXXXXX");
    assert_non_null(mkdtemp(self->store.folder));
    self->size = size;
    self->bytes = malloc((size_t)size);
    for (int64_t i = 0; i < size; i++) {
        self->bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    meed_sha256(self->bytes, (size_t)size, self->hash);
    self->store.blob = self->bytes;
    self->store.blob_bytes = size;
    return self;
}

static void push_bed_serve(struct push_bed *self)
{
    struct meed_rpc_service service = {"meed.v1.Federation", store_methods,
                                       MEED_COUNT(store_methods), &self->store};
    bed_serve(self->bed, &service, false);
}

static struct push_bed *push_bed_open(enum transport transport, int64_t size)
{
    struct push_bed *self = push_bed_prepare(transport, size);
    push_bed_serve(self);
    self->bed->client = bed_client(self->bed, "alice");
    return self;
}

static void push_bed_close(struct push_bed *self, int clients)
{
    char path[192], name[32];
    bed_close(self->bed);
    for (int i = -1; i < clients; i++) {
        snprintf(name, sizeof name, i < 0 ? "alice" : "client-%d", i);
        file_name(&self->store, self->hash, name, path);
        unlink(path);
    }
    assert_int_equal(rmdir(self->store.folder), 0);
    free(self->bytes);
    free(self);
}

static void push_stores_and_resumes(enum transport transport)
{
    struct push_bed *self = push_bed_open(transport, (5 << 20) + 12345);
    struct meed_rpc_client *client = self->bed->client;
    atomic_store(&self->store.break_after, 2 << 20);
    assert_int_equal(push_once(client, self->bytes, self->size, self->hash, 0), MEED_RPC);
    assert_string_equal(meed_last_error(), "broken off on purpose");
    int64_t stored = query(client, self->hash);
    assert_true(stored >= 2 << 20 && stored < self->size);
    assert_int_equal(push_once(client, self->bytes, self->size, self->hash, 0), MEED_STATE);
    assert_int_equal(push_once(client, self->bytes, self->size, self->hash, stored), MEED_OK);
    assert_int_equal(atomic_load(&self->store.stored), 1);
    push_bed_close(self, 0);
}

static void push_refuses_wrong_hash(enum transport transport)
{
    struct push_bed *self = push_bed_open(transport, 1 << 20);
    uint8_t other[MEED_SHA256_BYTES];
    memcpy(other, self->hash, sizeof other);
    other[31] ^= 1;
    assert_int_equal(push_once(self->bed->client, self->bytes, self->size, other, 0),
                     MEED_INTEGRITY);
    assert_int_equal(atomic_load(&self->store.stored), 0);
    push_bed_close(self, 0);
}

static void pull_receives_the_blob(enum transport transport)
{
    struct push_bed *self = push_bed_open(transport, (3 << 20) + 7);
    struct meed_rpc_stream *stream = NULL;
    struct meed_msg_pull_request request = {.run_id = "run"};
    struct meed_buf scratch;
    struct meed_chunk_receiver receiver = {0};
    enum meed_rpc_event event;
    meed_codec_buf_init(&scratch);
    assert_int_equal(meed_codec_pack_pull_request(&request, &scratch), MEED_OK);
    assert_int_equal(meed_rpc_stream_open(self->bed->client, MEED_RPC_PULL, 20000, &stream),
                     MEED_OK);
    assert_int_equal(meed_rpc_stream_send(stream, scratch.data, scratch.size), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    assert_int_equal(meed_chunk_receiver_init(&receiver, self->size, 1 << 30, self->hash), MEED_OK);
    for (;;) {
        struct meed_msg_pull_reply reply;
        struct meed_arena arena;
        meed_buf_reset(&scratch);
        assert_int_equal(meed_rpc_stream_receive(stream, -1, &scratch, &event), MEED_OK);
        if (event == MEED_RPC_END) {
            break;
        }
        meed_codec_arena_init(&arena);
        assert_int_equal(meed_codec_unpack_pull_reply(scratch.data, scratch.size, &arena, &reply),
                         MEED_OK);
        assert_int_equal(reply.part, MEED_PULL_CHUNK);
        assert_int_equal(meed_chunk_receiver_accept(&receiver, &reply.chunk), MEED_OK);
        meed_arena_clear(&arena);
    }
    assert_int_equal(meed_rpc_stream_finish(stream), MEED_OK);
    assert_int_equal(meed_chunk_receiver_finish(&receiver), MEED_OK);
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&scratch);
    push_bed_close(self, 0);
}

#define ON_ALL(test)                                                                               \
    static void test##_loop(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        test(TRANSPORT_LOOP);                                                                      \
    }                                                                                              \
    static void test##_plain(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        test(TRANSPORT_PLAIN);                                                                     \
    }                                                                                              \
    static void test##_tls(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        test(TRANSPORT_TLS);                                                                       \
    }
ON_ALL(push_stores_and_resumes)
ON_ALL(push_refuses_wrong_hash)
ON_ALL(pull_receives_the_blob)
#define THREE(test)                                                                                \
    cmocka_unit_test(test##_loop), cmocka_unit_test(test##_plain), cmocka_unit_test(test##_tls)

/* ---- the meter ------------------------------------------------------------------------------ */

struct racer {
    struct push_bed *self;
    struct meed_rpc_client *client;
};

static void *race(void *user)
{
    struct racer *racer = user;
    struct push_bed *self = racer->self;
    if (push_once(racer->client, self->bytes, self->size, self->hash, 0) != MEED_OK) {
        fprintf(stderr, "a push failed: %s\n", meed_last_error());
    }
    return NULL;
}

/* All clients of a meter, in the calling process. */
static void race_all(struct push_bed *self, int clients)
{
    struct racer *racers = calloc((size_t)clients, sizeof *racers);
    pthread_t *threads = calloc((size_t)clients, sizeof *threads);
    struct identity *ids = calloc((size_t)clients, sizeof *ids);
    for (int i = 0; i < clients; i++) {
        struct bed bed = *self->bed;
        char name[32], san[64];
        snprintf(name, sizeof name, "client-%d", i);
        snprintf(san, sizeof san, "URI:meed:client/%s", name);
        identity_make(&ids[i], &bed.ca, name, san, "clientAuth", 3600);
        bed.client_tls =
            (struct meed_rpc_tls){bed.ca.certificate, ids[i].certificate, ids[i].key, NULL};
        racers[i] = (struct racer){self, bed_client(&bed, name)};
    }
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    int64_t start_ns = meed_clock_monotonic_ns();
    for (int i = 0; i < clients; i++) {
        pthread_create(&threads[i], NULL, race, &racers[i]);
    }
    for (int i = 0; i < clients; i++) {
        pthread_join(threads[i], NULL);
    }
    double seconds = meed_clock_seconds_since(start_ns);
    getrusage(RUSAGE_SELF, &after);
    double megabytes = (double)clients * (double)self->size * 1e-6;
    double cpu_s = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                   1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) +
                   (double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
                   1e-6 * (double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    printf("%d pushes in %.2f s: %.0f MB/s; %.2f CPU seconds on the clients' side\n", clients,
           seconds, megabytes / seconds, cpu_s);
    for (int i = 0; i < clients; i++) {
        meed_rpc_client_close(racers[i].client);
        identity_free(&ids[i]);
    }
    free(racers);
    free(threads);
    free(ids);
}

/* The server runs in a child that is forked before anything of gRPC starts, so that its memory and
 * time are its own; the parent holds the clients. */
static int meter(int clients, int megabytes, enum transport transport)
{
    int64_t size = (int64_t)megabytes << 20;
    int to_parent[2], to_child[2];
    assert_int_equal(pipe(to_parent), 0);
    assert_int_equal(pipe(to_child), 0);
    struct push_bed *self = push_bed_prepare(transport, size);
    pid_t child = transport == TRANSPORT_LOOP ? 0 : fork();
    if (child == 0) {
        struct rusage before, after;
        push_bed_serve(self);
        getrusage(RUSAGE_SELF, &before);
        if (transport == TRANSPORT_LOOP) {
            race_all(self, clients);
        } else {
            char done;
            assert_int_equal(write(to_parent[1], self->bed->target, sizeof self->bed->target),
                             sizeof self->bed->target);
            assert_int_equal(read(to_child[0], &done, 1), 1);
        }
        getrusage(RUSAGE_SELF, &after);
        printf("server: %d of %d stored; peak memory %ld MB, before %ld MB; %.2f CPU seconds\n",
               atomic_load(&self->store.stored), clients, after.ru_maxrss >> 10,
               before.ru_maxrss >> 10,
               (double)(after.ru_utime.tv_sec + after.ru_stime.tv_sec) +
                   1e-6 * (double)(after.ru_utime.tv_usec + after.ru_stime.tv_usec));
        push_bed_close(self, clients);
        return 0;
    }
    assert_int_equal(read(to_parent[0], self->bed->target, sizeof self->bed->target),
                     sizeof self->bed->target);
    race_all(self, clients);
    assert_int_equal(write(to_child[1], "x", 1), 1);
    return waitpid(child, NULL, 0) == child ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc >= 3) {
        enum transport transport = argc < 4                        ? TRANSPORT_TLS
                                   : strcmp(argv[3], "plain") == 0 ? TRANSPORT_PLAIN
                                                                   : TRANSPORT_LOOP;
        return meter((int)strtol(argv[1], NULL, 10), (int)strtol(argv[2], NULL, 10), transport);
    }
    const struct CMUnitTest tests[] = {
        THREE(push_stores_and_resumes),
        THREE(push_refuses_wrong_hash),
        THREE(pull_receives_the_blob),
    };
    return cmocka_run_group_tests_name("rpc_push", tests, NULL, NULL);
}
