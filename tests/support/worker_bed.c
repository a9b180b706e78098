/* See worker_bed.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "proto/chunk.h"
#include "proto/codec.h"
#include "tests/support/worker_bed.h"

enum { PUSH_MAX_BYTES = 1 << 22 };

static const uint8_t some_hash[MEED_SHA256_BYTES] = {1};

static void tell(struct fake *fake, enum meed_event_kind kind, int32_t round)
{
    MEED_ASSERT(fake->event_count < BED_MAX_EVENTS);
    struct meed_msg_watch_event *event = &fake->events[fake->event_count++];
    *event = (struct meed_msg_watch_event){
        .kind = kind, .round = round, .remaining_ms = 60000, .updates_expected = 1};
    memcpy(event->adapter_hash, fake->adapter_hash, sizeof event->adapter_hash);
    for (int i = 0; i < fake->watcher_count; i++) {
        meed_rpc_call_wake(fake->watchers[i]);
    }
}

static void close_round(struct fake *fake, int32_t round)
{
    fake->rounds[round].closed = true;
    tell(fake, MEED_EVENT_ROUND_CLOSED, round);
    tell(fake, MEED_EVENT_ROUND_SETTLED, round);
    tell(fake, round + 1 < ROUNDS ? MEED_EVENT_ROUND_OPENED : MEED_EVENT_FINISHED,
         MEED_MIN(round + 1, ROUNDS - 1));
}

static void hear(struct fake *fake, const void *bytes, size_t size)
{
    pthread_mutex_lock(&fake->mutex);
    MEED_ASSERT(meed_buf_append(&fake->heard, bytes, size) == MEED_OK);
    pthread_mutex_unlock(&fake->mutex);
}

/* Consumes one of a kind of fault. */
static bool strikes(int *faults)
{
    return *faults > 0 && (*faults)-- > 0;
}

static void on_join(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct fake *fake = user;
    struct meed_msg_join_request request;
    struct meed_msg_join_reply reply = {.protocol_version = MEED_PROTOCOL_VERSION,
                                        .software = "test",
                                        .run_id = "run-1",
                                        .round_count = ROUNDS,
                                        .aggregation = "svd",
                                        .estimator = "exact",
                                        .payment = "shrunk"};
    char roster[1][MEED_LIMIT_ID_BYTES] = {"north"};
    struct meed_buf out;
    struct meed_arena arena;
    meed_codec_buf_init(&out);
    meed_codec_arena_init(&arena);
    hear(fake, bytes, size);
    pthread_mutex_lock(&fake->mutex);
    bool refuse = strikes(&fake->refuse_joins);
    pthread_mutex_unlock(&fake->mutex);
    MEED_ASSERT(meed_codec_unpack_join_request(bytes, size, &arena, &request) == MEED_OK);
    snprintf(reply.client_id, sizeof reply.client_id, "%s", meed_rpc_call_peer(call)->client_id);
    memcpy(reply.model_hash, fake->model_hash, sizeof reply.model_hash);
    memcpy(reply.benchmark_hash, some_hash, sizeof some_hash);
    memcpy(reply.ledger_key, some_hash, sizeof some_hash);
    reply.roster = roster;
    reply.roster_count = 1;
    enum meed_status st =
        refuse ? MEED_FAIL(MEED_RPC, "not yet") : meed_codec_pack_join_reply(&reply, &out);
    meed_rpc_call_finish(call, st, NULL, out.data, out.size);
    meed_arena_clear(&arena);
    meed_buf_clear(&out);
}

struct watcher {
    int next; /* event to send */
};

static void watch_more(void *user, struct meed_rpc_call *call)
{
    struct fake *fake = user;
    struct watcher *watcher = meed_rpc_call_state(call);
    struct meed_msg_watch_event event;
    struct meed_buf out;
    pthread_mutex_lock(&fake->mutex);
    bool due = watcher && watcher->next < fake->event_count;
    bool over =
        watcher && watcher->next > 0 && fake->events[watcher->next - 1].kind == MEED_EVENT_FINISHED;
    bool cut = due && watcher->next > 0 && strikes(&fake->cut_watches);
    if (due && !cut && !meed_rpc_call_write_pending(call)) {
        event = fake->events[watcher->next++];
    } else {
        due = false;
    }
    pthread_mutex_unlock(&fake->mutex);
    if (cut) {
        meed_rpc_call_finish(call, MEED_RPC, "cut", NULL, 0);
    } else if (due) {
        meed_codec_buf_init(&out);
        MEED_ASSERT(meed_codec_pack_watch_event(&event, &out) == MEED_OK);
        meed_rpc_call_write(call, out.data, out.size);
        meed_buf_clear(&out);
    } else if (over && !meed_rpc_call_write_pending(call)) {
        meed_rpc_call_finish(call, MEED_OK, NULL, NULL, 0);
    }
}

/* The present state first: the newest event. */
static void on_watch(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct fake *fake = user;
    struct watcher *watcher = calloc(1, sizeof *watcher);
    MEED_ASSERT(watcher);
    hear(fake, bytes, size);
    meed_rpc_call_hold(call);
    pthread_mutex_lock(&fake->mutex);
    MEED_ASSERT(fake->watcher_count < BED_MAX_WATCHERS);
    fake->watchers[fake->watcher_count++] = call;
    watcher->next = fake->event_count - 1;
    pthread_mutex_unlock(&fake->mutex);
    meed_rpc_call_set_state(call, watcher);
    watch_more(user, call);
}

static void watch_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    struct fake *fake = user;
    (void)cancelled;
    pthread_mutex_lock(&fake->mutex);
    for (int i = 0; i < fake->watcher_count; i++) {
        if (fake->watchers[i] == call) {
            fake->watchers[i] = fake->watchers[--fake->watcher_count];
            meed_rpc_call_release(call);
            break;
        }
    }
    pthread_mutex_unlock(&fake->mutex);
    free(meed_rpc_call_state(call));
}

struct puller {
    struct meed_msg_plan plan;
    struct meed_chunk_sender sender;
    int sent; /* messages */
};

static void pull_more(void *user, struct meed_rpc_call *call)
{
    struct fake *fake = user;
    struct puller *puller = meed_rpc_call_state(call);
    struct meed_msg_pull_reply reply = {.part = MEED_PULL_PLAN, .plan = puller->plan};
    struct meed_buf out;
    if (puller->sent++ > 0) {
        reply.part = MEED_PULL_CHUNK;
        pthread_mutex_lock(&fake->mutex);
        bool cut = strikes(&fake->cut_pulls);
        pthread_mutex_unlock(&fake->mutex);
        if (cut || !meed_chunk_sender_next(&puller->sender, &reply.chunk)) {
            meed_rpc_call_finish(call, cut ? MEED_RPC : MEED_OK, "cut", NULL, 0);
            return;
        }
    }
    meed_codec_buf_init(&out);
    MEED_ASSERT(meed_codec_pack_pull_reply(&reply, &out) == MEED_OK);
    meed_rpc_call_write(call, out.data, out.size);
    meed_buf_clear(&out);
}

static void on_pull(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct fake *fake = user;
    struct meed_msg_pull_request request;
    struct meed_arena arena;
    struct puller *puller = calloc(1, sizeof *puller);
    MEED_ASSERT(puller);
    hear(fake, bytes, size);
    meed_codec_arena_init(&arena);
    MEED_ASSERT(meed_codec_unpack_pull_request(bytes, size, &arena, &request) == MEED_OK);
    meed_arena_clear(&arena);
    puller->plan = fake->plan;
    puller->plan.round = request.round;
    MEED_ASSERT(meed_chunk_sender_init(&puller->sender, fake->adapter.data,
                                       (int64_t)fake->adapter.size, request.offset) == MEED_OK);
    meed_rpc_call_set_state(call, puller);
    pull_more(user, call);
}

static void free_state(void *user, struct meed_rpc_call *call, bool cancelled)
{
    (void)user;
    (void)cancelled;
    free(meed_rpc_call_state(call));
}

static void on_query(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct fake *fake = user;
    struct meed_msg_query_push_request request;
    struct meed_msg_query_push_reply reply = {0, false};
    struct meed_buf out;
    struct meed_arena arena;
    meed_codec_buf_init(&out);
    meed_codec_arena_init(&arena);
    hear(fake, bytes, size);
    MEED_ASSERT(meed_codec_unpack_query_push_request(bytes, size, &arena, &request) == MEED_OK);
    pthread_mutex_lock(&fake->mutex);
    struct fake_round *round = &fake->rounds[request.round];
    if (memcmp(round->sha256, request.sha256, sizeof round->sha256) == 0) {
        reply.stored_bytes = (int64_t)round->stored.size;
        reply.complete = round->counted > 0;
    }
    pthread_mutex_unlock(&fake->mutex);
    MEED_ASSERT(meed_codec_pack_query_push_reply(&reply, &out) == MEED_OK);
    meed_rpc_call_finish(call, MEED_OK, NULL, out.data ? out.data : "", out.size);
    meed_arena_clear(&arena);
    meed_buf_clear(&out);
}

struct pusher {
    struct fake_round *round;
    int32_t idx;
    struct meed_chunk_receiver receiver;
};

static void push_start(void *user, struct meed_rpc_call *call)
{
    struct pusher *pusher = calloc(1, sizeof *pusher);
    (void)user;
    MEED_ASSERT(pusher);
    meed_rpc_call_set_state(call, pusher);
    meed_rpc_call_read_next(call);
}

static enum meed_status push_header(struct fake *fake, struct pusher *pusher,
                                    const struct meed_msg_push_header *header)
{
    pusher->idx = header->round;
    pusher->round = &fake->rounds[header->round];
    if (strikes(&fake->refuse_pushes)) {
        close_round(fake, header->round);
    }
    if (pusher->round->closed) {
        return MEED_FAIL(MEED_STATE, "round %d is closed", header->round);
    }
    MEED_ASSERT(memcmp(header->base_adapter_hash, fake->adapter_hash, MEED_SHA256_BYTES) == 0);
    if (memcmp(pusher->round->sha256, header->sha256, MEED_SHA256_BYTES) != 0) {
        memcpy(pusher->round->sha256, header->sha256, MEED_SHA256_BYTES);
        meed_buf_reset(&pusher->round->stored);
    }
    pusher->round->first_offset = header->offset;
    pusher->round->header = *header;
    MEED_ASSERT(header->offset == (int64_t)pusher->round->stored.size);
    MEED_TRY(meed_chunk_receiver_init(&pusher->receiver, header->total_bytes, PUSH_MAX_BYTES,
                                      header->sha256));
    return meed_chunk_receiver_resume(&pusher->receiver, pusher->round->stored.data,
                                      pusher->round->stored.size);
}

/* A cut keeps half of the chunk, as if the disk had got so far. */
static enum meed_status push_chunk(struct fake *fake, struct pusher *pusher,
                                   const struct meed_msg_chunk *chunk)
{
    MEED_TRY(meed_chunk_receiver_accept(&pusher->receiver, chunk));
    if (strikes(&fake->cut_pushes)) {
        MEED_TRY(meed_buf_append(&pusher->round->stored, chunk->bytes, chunk->size / 2));
        return MEED_FAIL(MEED_RPC, "cut");
    }
    return meed_buf_append(&pusher->round->stored, chunk->bytes, chunk->size);
}

static void push_message(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct fake *fake = user;
    struct pusher *pusher = meed_rpc_call_state(call);
    struct meed_msg_push_request request;
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    hear(fake, bytes, size);
    MEED_ASSERT(meed_codec_unpack_push_request(bytes, size, &arena, &request) == MEED_OK);
    pthread_mutex_lock(&fake->mutex);
    enum meed_status st = request.part == MEED_PUSH_HEADER
                              ? push_header(fake, pusher, &request.header)
                              : push_chunk(fake, pusher, &request.chunk);
    pthread_mutex_unlock(&fake->mutex);
    meed_arena_clear(&arena);
    if (st == MEED_OK) {
        meed_rpc_call_read_next(call);
    } else {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
    }
}

static void push_half_closed(void *user, struct meed_rpc_call *call)
{
    struct fake *fake = user;
    struct pusher *pusher = meed_rpc_call_state(call);
    struct meed_msg_push_reply reply = {MEED_PUSH_ACCEPTED, pusher->receiver.total_bytes};
    struct meed_buf out;
    meed_codec_buf_init(&out);
    enum meed_status st = meed_chunk_receiver_finish(&pusher->receiver);
    pthread_mutex_lock(&fake->mutex);
    bool lose = strikes(&fake->lose_replies);
    if (st == MEED_OK && pusher->round->counted++ == 0) {
        close_round(fake, pusher->idx);
    }
    pthread_mutex_unlock(&fake->mutex);
    if (st == MEED_OK && lose) {
        st = MEED_FAIL(MEED_RPC, "the reply was lost");
    }
    MEED_ASSERT(meed_codec_pack_push_reply(&reply, &out) == MEED_OK);
    meed_rpc_call_finish(call, st, NULL, out.data, out.size);
    meed_buf_clear(&out);
}

static void push_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    struct pusher *pusher = meed_rpc_call_state(call);
    meed_chunk_receiver_clear(&pusher->receiver);
    free_state(user, call, cancelled);
}

static void on_receipt(void *user, struct meed_rpc_call *call, const void *bytes, size_t size)
{
    struct fake *fake = user;
    struct meed_msg_receipt_request request;
    struct meed_msg_receipt receipt = {.run_id = "run-1",
                                       .client_id = "north",
                                       .state = MEED_RECEIPT_PAID,
                                       .phi = 0.25,
                                       .share = 5,
                                       .total_share = 5,
                                       .round_budget = 10};
    struct meed_buf out;
    struct meed_arena arena;
    meed_codec_buf_init(&out);
    meed_codec_arena_init(&arena);
    hear(fake, bytes, size);
    MEED_ASSERT(meed_codec_unpack_receipt_request(bytes, size, &arena, &request) == MEED_OK);
    receipt.round = request.round;
    pthread_mutex_lock(&fake->mutex);
    bool there = fake->rounds[request.round].counted > 0;
    pthread_mutex_unlock(&fake->mutex);
    enum meed_status st =
        there ? meed_codec_pack_receipt(&receipt, &out) : MEED_FAIL(MEED_NOT_FOUND, "no receipt");
    meed_rpc_call_finish(call, st, NULL, out.data, out.size);
    meed_arena_clear(&arena);
    meed_buf_clear(&out);
}

static const struct meed_rpc_method methods[] = {
    {.path = MEED_RPC_JOIN, .message = on_join},
    {.path = MEED_RPC_WATCH,
     .shape = MEED_RPC_SERVER_STREAM,
     .endless = true,
     .message = on_watch,
     .writable = watch_more,
     .wake = watch_more,
     .done = watch_done},
    {.path = MEED_RPC_PULL,
     .shape = MEED_RPC_SERVER_STREAM,
     .message = on_pull,
     .writable = pull_more,
     .done = free_state},
    {.path = MEED_RPC_QUERY_PUSH, .message = on_query},
    {.path = MEED_RPC_PUSH,
     .shape = MEED_RPC_CLIENT_STREAM,
     .start = push_start,
     .message = push_message,
     .half_closed = push_half_closed,
     .done = push_done},
    {.path = MEED_RPC_RECEIPT, .message = on_receipt},
};

/* ---- the bed ----------------------------------------------------------------------------------
 */

struct meed_workbench bed_bench;
static char scratch[] = "/tmp/meed-worker-XXXXXX";
static int bed_count, data_count;

int bed_open_model(void **state)
{
    static const char model[] = MEED_SOURCE_DIR "/examples/tiny/model";
    static const char lines[] =
        "{\"prompt\": \"What is a savings account?\", \"completion\": \"A place for money.\"}\n"
        "{\"prompt\": \"When does the bank open?\", \"completion\": \"At nine.\"}\n"
        "{\"prompt\": \"Hello\", \"completion\": \"Good day, how can I help?\"}\n";
    char path[128];
    (void)state;
    if (!mkdtemp(scratch)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/data.jsonl", scratch);
    enum meed_status st = meed_file_write_atomic(path, lines, strlen(lines));
    st = st == MEED_OK ? meed_workbench_open(model, path, NULL, 2, &bed_bench) : st;
    if (st != MEED_OK) {
        print_error("%s\n", meed_last_error());
    }
    return st != MEED_OK;
}

struct meed_dataset *bed_data(const char *lines)
{
    struct meed_dataset *dataset = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/data-%d.jsonl", scratch, data_count++);
    assert_int_equal(meed_file_write_atomic(path, lines, strlen(lines)), MEED_OK);
    assert_int_equal(meed_workbench_read_data(bed_bench.checkpoint->folder, path, &dataset),
                     MEED_OK);
    return dataset;
}

int bed_close_model(void **state)
{
    (void)state;
    meed_workbench_close(&bed_bench);
    return 0;
}

static void on_event(void *user, const struct meed_worker_event *event)
{
    struct bed *bed = user;
    bed->pushed += event->kind == MEED_WORKER_PUSHED;
    bed->receipts += event->kind == MEED_WORKER_RECEIPT && event->receipt->share == 5;
    bed->retries += event->kind == MEED_WORKER_RETRYING;
    bed->left += event->kind == MEED_WORKER_LEFT;
    bed->finished += event->kind == MEED_WORKER_FINISHED;
    bed->owns += event->kind == MEED_WORKER_OWN;
    bed->steps += event->kind == MEED_WORKER_STEP;
    if ((event->kind == MEED_WORKER_STEP && bed->steps == bed->stop_at_step) ||
        (event->kind == MEED_WORKER_RETRYING && bed->stop_at_retry)) {
        bed->stop = 1;
    }
}

static void make_plan(struct meed_msg_plan *plan, const struct fake *fake)
{
    *plan = (struct meed_msg_plan){
        .seed = 11,
        .remaining_ms = 60000,
        .method = MEED_METHOD_FEDIT,
        .steps = STEPS,
        .batch_tokens = 40,
        .accumulation = 1,
        .sequence_tokens = 41,
        .lr = 1e-2,
        .lr_min = 1e-3,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .epsilon = 1e-8,
        .clip_norm = 1.0,
        .rank = 2,
        .alpha = 4.0,
        .target_modules = MEED_PROJ_ALL,
        .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B,
        .codec = {MEED_VALUE_INT8, 0.25, 0.5, 64, 3},
        .adapter_bytes = (int64_t)fake->adapter.size,
    };
    memcpy(plan->adapter_hash, fake->adapter_hash, sizeof plan->adapter_hash);
}

struct bed *bed_open(void)
{
    struct bed *bed = calloc(1, sizeof *bed);
    struct meed_lora_config lora = {.rank = 2, .alpha = 4.0f, .targets = MEED_PROJ_ALL};
    struct meed_adapter *global = NULL;
    struct fake *fake = &bed->fake;
    assert_non_null(bed);
    pthread_mutex_init(&fake->mutex, NULL);
    meed_buf_init(&fake->adapter, 1 << 24);
    meed_buf_init(&fake->heard, 1 << 26);
    assert_int_equal(meed_adapter_create(&bed_bench.checkpoint->config, &lora, &global), MEED_OK);
    meed_adapter_init(global, 3);
    assert_int_equal(meed_adapter_pack(global, &fake->adapter), MEED_OK);
    meed_adapter_destroy(global);
    meed_sha256(fake->adapter.data, fake->adapter.size, fake->adapter_hash);
    memcpy(fake->model_hash, bed_bench.checkpoint->hash, sizeof fake->model_hash);
    make_plan(&fake->plan, fake);
    for (int i = 0; i < ROUNDS; i++) {
        meed_buf_init(&fake->rounds[i].stored, PUSH_MAX_BYTES);
    }
    tell(fake, MEED_EVENT_ROUND_OPENED, 0);
    struct meed_rpc_service service = {"meed.v1.Federation", methods, MEED_COUNT(methods), fake};
    assert_int_equal(meed_rpc_loop_server_start(&service, 2, &bed->server), MEED_OK);
    assert_int_equal(meed_rpc_loop_client_open(bed->server, "north", true, &bed->rpc), MEED_OK);
    snprintf(bed->folder, sizeof bed->folder, "%s/state-%d", scratch, bed_count++);
    bed->config = (struct meed_worker_config){
        .rpc = bed->rpc,
        .id = "north",
        .state_folder = bed->folder,
        .be = bed_bench.be,
        .checkpoint = bed_bench.checkpoint,
        .dataset = bed_bench.dataset,
        .dtype = MEED_DTYPE_F32,
        .checkpoint_every = 1,
        .backoff_ms = 1,
        .stop = &bed->stop,
        .on_event = on_event,
        .user = bed,
    };
    return bed;
}

void bed_close(struct bed *bed)
{
    meed_rpc_client_close(bed->rpc);
    meed_rpc_server_stop(bed->server, 1000);
    meed_rpc_server_destroy(bed->server);
    for (int i = 0; i < ROUNDS; i++) {
        meed_buf_clear(&bed->fake.rounds[i].stored);
    }
    meed_buf_clear(&bed->fake.adapter);
    meed_buf_clear(&bed->fake.heard);
    pthread_mutex_destroy(&bed->fake.mutex);
    free(bed);
}

void bed_run(struct bed *bed, enum meed_status want)
{
    bed->stop = 0;
    enum meed_status st = meed_worker_run(&bed->config);
    if (st != want) {
        print_error("%s: %s\n", meed_status_name(st), meed_last_error());
    }
    assert_int_equal(st, want);
}
