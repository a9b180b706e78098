/* A federation without a model: a runner, the in-process transport, clients of a few lines each.
 *
 * Shared by tests/loop/test_federation*.c and tests/fault/test_federation*.c; header only, because
 * each test is one program. Clients speak the wire through codec and chunks like real ones; their
 * "training" draws a change of the factors from (client, round). The value function pays each
 * client by the sum of its change, so every number of a run is a function of the seed.
 */
#ifndef MEED_LOOP_FEDERATION_FIXTURE_H
#define MEED_LOOP_FEDERATION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "engine/adapter_split.h"
#include "proto/chunk.h"
#include "proto/codec.h"
#include "proto/update.h"
#include "server/runner.h"

static const struct meed_model_config fed_model = {.hidden = 8,
                                                   .ffn = 12,
                                                   .layers = 1,
                                                   .heads = 2,
                                                   .kv_heads = 1,
                                                   .head_dim = 4,
                                                   .vocab = 16,
                                                   .max_positions = 32};

struct fed {
    char folder[128];
    int32_t client_count;
    char ids[2048][16];
    struct meed_aggregator_config config;
    struct meed_terms terms;
    struct meed_registry *registry;
    struct meed_runner *runner;
    struct meed_rpc_server *server;
    pthread_t thread;
    bool running;
    enum meed_status outcome;
    char outcome_text[256];
    const char *ledger_key;
    const char *report;
    bool identity; /* certificates are demanded */
    meed_settle_value_fn value;
    bool aligned; /* the operator has data: the config is told so in fed_open */
    meed_store_fault_fn fault;
    meed_aggregator_observer_fn observer;
    void *observer_user;
};

/* ---- folders --------------------------------------------------------------------------------- */

static inline int fed_remove_one(const char *path, const struct stat *info, int kind,
                                 struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

static inline void fed_remove(const char *folder)
{
    nftw(folder, fed_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void fed_folder(char folder[128])
{
    snprintf(folder, 128, "%s/meed_fed_XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
}

/* ---- value ----------------------------------------------------------------------------------- */

static inline double fed_change(const struct meed_adapter *global,
                                const struct meed_adapter *client)
{
    double sum = 0.0;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *g = &global->modules[m], *c = &client->modules[m];
        for (int64_t i = 0; i < g->n * g->r; i++) {
            sum += (double)c->b[i] - (double)g->b[i];
        }
    }
    return sum;
}

static inline enum meed_status fed_value(void *user, const struct meed_settle_cohort *cohort,
                                         struct meed_settle_value *value,
                                         struct meed_value_client *clients)
{
    (void)user;
    int64_t left = cohort->budget;
    int32_t payable = 0;
    for (int32_t i = 0; i < cohort->players; i++) {
        clients[i].phi = cohort->p[i] * fed_change(cohort->global, cohort->clients[i]);
        clients[i].se = 0.125;
        clients[i].axis_phi[0] = clients[i].phi;
        bool good = clients[i].phi > 0.0;
        payable += good;
        clients[i].status = good                    ? MEED_PAY_PAID
                            : clients[i].phi == 0.0 ? MEED_PAY_UNPAID
                                                    : MEED_PAY_EXCLUDED;
        clients[i].weight = clients[i].status == MEED_PAY_EXCLUDED ? 0.0 : cohort->p[i];
        if (!good) {
            snprintf(clients[i].reason, sizeof clients[i].reason, "adds nothing");
        }
        value->value_full += clients[i].phi;
    }
    for (int32_t i = 0, seen = 0; i < cohort->players; i++) {
        if (clients[i].status == MEED_PAY_PAID) {
            clients[i].share = left / (payable - seen++);
            left -= clients[i].share;
        }
    }
    value->value_kept = value->value_full;
    value->utilities_hash[0] = (uint8_t)cohort->round;
    return MEED_OK;
}

/* ---- the operator's own training --------------------------------------------------------------
 */

/* A drawn change of the trained ranks, a function of the request alone. */
static inline enum meed_status fed_align(void *user, const struct meed_align_request *request,
                                         struct meed_adapter **trained)
{
    (void)user;
    MEED_TRY(meed_adapter_clone(request->start, trained));
    struct meed_rng rng = meed_rng_stream(request->seed, "align", (uint64_t)request->round);
    for (int32_t m = 0; m < (*trained)->module_count; m++) {
        struct meed_adapter_module *module = &(*trained)->modules[m];
        for (int64_t n = 0; n < module->n && request->trained_factors & MEED_FACTOR_B; n++) {
            for (int32_t j = 0; j < request->rank; j++) {
                module->b[n * module->r + j] += (float)(0.1 * (meed_rng_normal(&rng) + 0.5));
            }
        }
    }
    return MEED_OK;
}

/* ---- server ---------------------------------------------------------------------------------- */

/* Ids client-0000 …; three rounds on rank 2. Change the config before fed_start. */
static inline void fed_init(struct fed *fed, int32_t client_count)
{
    memset(fed, 0, sizeof *fed);
    fed->client_count = client_count;
    fed->value = fed_value;
    for (int32_t i = 0; i < client_count; i++) {
        snprintf(fed->ids[i], sizeof fed->ids[i], "client-%04d", i);
    }
    struct meed_msg_codec codec = {MEED_VALUE_F32, 1.0, 1.0, 64, 0};
    fed->config =
        (struct meed_aggregator_config){.model = "tiny",
                                        .rounds = 3,
                                        .deadline_ms = 60000,
                                        .budget = 1000,
                                        .seed = 5,
                                        .clip_multiple = 0.0,
                                        .plan = {.method = MEED_METHOD_FEDIT,
                                                 .steps = 1,
                                                 .batch_tokens = 16,
                                                 .accumulation = 1,
                                                 .sequence_tokens = 16,
                                                 .lr = 0.1,
                                                 .beta1 = 0.9,
                                                 .beta2 = 0.999,
                                                 .epsilon = 1e-8,
                                                 .rank = 2,
                                                 .alpha = 4.0,
                                                 .target_modules = 1u << MEED_PROJ_Q,
                                                 .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B,
                                                 .codec = codec}};
    fed_folder(fed->folder);
}

static inline void *fed_thread(void *user)
{
    struct fed *fed = user;
    fed->outcome = meed_runner_run(fed->runner, 2000);
    if (fed->outcome != MEED_OK) {
        snprintf(fed->outcome_text, sizeof fed->outcome_text, "%.250s", meed_last_error());
    }
    return NULL;
}

static inline void fed_open(struct fed *fed)
{
    const char *ids[2048];
    static const uint8_t hash[MEED_SHA256_BYTES] = {1, 2, 3};
    if (fed->aligned) {
        fed->config.align.run = fed_align;
        fed->config.align.data_hash = hash;
    }
    struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
    for (int32_t i = 0; i < fed->client_count; i++) {
        ids[i] = fed->ids[i];
    }
    struct meed_terms_source source = {.model = &fed_model,
                                       .model_hash = hash,
                                       .benchmark_hash = hash,
                                       .axes = &axis,
                                       .axis_count = 1,
                                       .clients = ids,
                                       .client_count = fed->client_count};
    assert_int_equal(meed_terms_init(&fed->config, &source, &fed->terms), MEED_OK);
    assert_int_equal(meed_registry_create(ids, fed->client_count, !fed->identity, &fed->registry),
                     MEED_OK);
    struct meed_runner_config runner = {.terms = &fed->terms,
                                        .registry = fed->registry,
                                        .state = fed->folder,
                                        .ledger_key = fed->ledger_key,
                                        .value = fed->value,
                                        .align = fed->config.align.run,
                                        .report = fed->report,
                                        .observer = fed->observer,
                                        .observer_user = fed->observer_user,
                                        .fault = fed->fault};
    enum meed_status st = meed_runner_create(&runner, &fed->runner);
    if (st != MEED_OK) {
        print_error("%s\n", meed_last_error());
    }
    assert_int_equal(st, MEED_OK);
    assert_int_equal(meed_rpc_loop_server_start(meed_runner_service(fed->runner), 4, &fed->server),
                     MEED_OK);
    meed_runner_set_server(fed->runner, fed->server);
}

static inline void fed_start(struct fed *fed)
{
    fed_open(fed);
    assert_int_equal(pthread_create(&fed->thread, NULL, fed_thread, fed), 0);
    fed->running = true;
}

/* Waits for the end of the run, or ends it. */
static inline enum meed_status fed_stop(struct fed *fed, bool wait)
{
    if (fed->running) {
        if (!wait) {
            meed_runner_request_stop(fed->runner);
        }
        pthread_join(fed->thread, NULL);
        fed->running = false;
    }
    meed_runner_set_server(fed->runner, NULL);
    meed_rpc_server_stop(fed->server, 1000);
    meed_rpc_server_destroy(fed->server);
    meed_runner_destroy(fed->runner);
    meed_registry_destroy(fed->registry);
    fed->server = NULL;
    fed->runner = NULL;
    return fed->outcome;
}

/* ---- one client ------------------------------------------------------------------------------ */

struct fed_pulled {
    struct meed_msg_plan plan;
    struct meed_adapter *adapter;
    float control[1024]; /* SCAFFOLD's c; zero where none came */
};

static inline struct meed_rpc_client *fed_client(struct fed *fed, int32_t client)
{
    struct meed_rpc_client *rpc = NULL;
    assert_int_equal(meed_rpc_loop_client_open(fed->server, fed->ids[client], fed->identity, &rpc),
                     MEED_OK);
    return rpc;
}

static inline enum meed_status fed_join(struct fed *fed, struct meed_rpc_client *rpc,
                                        int32_t *next_round)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_join_request request = {
        .protocol_version = MEED_PROTOCOL_VERSION, .software = "test", .device = "cpu"};
    struct meed_msg_join_reply reply;
    struct meed_buf message, answer;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    memcpy(request.model_hash, fed->terms.model_hash, MEED_SHA256_BYTES);
    MEED_TRY_OUT(meed_codec_pack_join_request(&request, &message));
    MEED_TRY_OUT(
        meed_rpc_client_unary(rpc, MEED_RPC_JOIN, message.data, message.size, 5000, &answer));
    MEED_TRY_OUT(meed_codec_unpack_join_reply(answer.data, answer.size, &arena, &reply));
    assert_int_equal(reply.roster_count, fed->client_count);
    *next_round = reply.next_round;
out:
    meed_buf_clear(&message);
    meed_buf_clear(&answer);
    meed_arena_clear(&arena);
    return st;
}

/* Receives one message of a stream into reply (arena reset by the caller). */
static inline enum meed_status fed_pull(struct fed *fed, struct meed_rpc_client *rpc, int32_t round,
                                        struct fed_pulled *pulled)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_pull_request request = {.round = round};
    struct meed_rpc_stream *stream = NULL;
    struct meed_buf message, adapter;
    struct meed_arena arena;
    struct meed_chunk_receiver receiver = {.total_bytes = 0}, control = {.total_bytes = 0};
    memset(pulled->control, 0, sizeof pulled->control);
    meed_codec_buf_init(&message);
    meed_buf_init(&adapter, 1 << 24);
    meed_codec_arena_init(&arena);
    snprintf(request.run_id, sizeof request.run_id, "%s", fed->terms.run_id);
    MEED_TRY_OUT(meed_codec_pack_pull_request(&request, &message));
    MEED_TRY_OUT(meed_rpc_stream_open(rpc, MEED_RPC_PULL, 10000, &stream));
    meed_status_discard(meed_rpc_stream_send(stream, message.data, message.size));
    meed_status_discard(meed_rpc_stream_close_send(stream));
    for (;;) {
        enum meed_rpc_event event = MEED_RPC_END;
        struct meed_msg_pull_reply reply;
        meed_buf_reset(&message);
        meed_arena_reset(&arena);
        MEED_TRY_OUT(meed_rpc_stream_receive(stream, -1, &message, &event));
        if (event != MEED_RPC_MESSAGE) {
            break;
        }
        MEED_TRY_OUT(meed_codec_unpack_pull_reply(message.data, message.size, &arena, &reply));
        if (reply.part == MEED_PULL_PLAN) {
            pulled->plan = reply.plan;
            MEED_TRY_OUT(meed_chunk_receiver_init(&receiver, reply.plan.adapter_bytes, 1 << 24,
                                                  reply.plan.adapter_hash));
            if (reply.plan.control_bytes > 0) {
                MEED_TRY_OUT(meed_chunk_receiver_init(&control, reply.plan.control_bytes,
                                                      sizeof pulled->control,
                                                      reply.plan.control_hash));
            }
        } else if (control.total_bytes > 0 && meed_chunk_receiver_complete(&receiver)) {
            memcpy((char *)pulled->control + control.offset, reply.chunk.bytes, reply.chunk.size);
            MEED_TRY_OUT(meed_chunk_receiver_accept(&control, &reply.chunk));
        } else {
            MEED_TRY_OUT(meed_chunk_receiver_accept(&receiver, &reply.chunk));
            MEED_TRY_OUT(meed_buf_append(&adapter, reply.chunk.bytes, reply.chunk.size));
        }
    }
    MEED_TRY_OUT(meed_rpc_stream_finish(stream));
    MEED_TRY_OUT(meed_chunk_receiver_finish(&receiver));
    if (control.total_bytes > 0) {
        MEED_TRY_OUT(meed_chunk_receiver_finish(&control));
    }
    MEED_TRY_OUT(meed_adapter_unpack("pulled", adapter.data, adapter.size, &fed->terms.model,
                                     &pulled->adapter));
out:
    meed_chunk_receiver_clear(&receiver);
    meed_chunk_receiver_clear(&control);
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&message);
    meed_buf_clear(&adapter);
    meed_arena_clear(&arena);
    return st;
}

/* Tensors of a part's factors over `at`, those that the plan does not train zeroed. */
static inline size_t fed_tensors(const struct meed_adapter *part, const struct meed_msg_plan *plan,
                                 const char *prefix, float *at, struct meed_update_tensor *tensors,
                                 char (*names)[MEED_ADAPTER_NAME_BYTES])
{
    size_t count = 0;
    for (int32_t m = 0; m < part->module_count; m++) {
        const struct meed_adapter_module *module = &part->modules[m];
        for (int half = 0; half < 2; half++, count++) {
            char name[MEED_ADAPTER_NAME_BYTES];
            meed_adapter_tensor_name(module, half ? 'B' : 'A', name);
            snprintf(names[count], sizeof names[count], "%s%.36s", prefix, name);
            tensors[count] =
                (struct meed_update_tensor){names[count], (int32_t)(half ? module->n : module->r),
                                            (int32_t)(half ? module->r : module->k),
                                            half ? MEED_UPDATE_FACTOR_B : MEED_UPDATE_FACTOR_A, at};
            int64_t size = (int64_t)tensors[count].rows * tensors[count].cols;
            if (!(plan->trained_factors & (half ? MEED_FACTOR_B : MEED_FACTOR_A))) {
                memset(at, 0, (size_t)size * sizeof *at);
            }
            at += size;
        }
    }
    return count;
}

/* What (client, round) changes [values]: factors or, with another word, the control variate. */
static inline void fed_draw(const char *id, const char *word, int32_t round, double scale,
                            int64_t values, float *flat)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", word, id);
    struct meed_rng rng = meed_rng_stream(17, name, (uint64_t)round);
    for (int64_t i = 0; i < values; i++) {
        flat[i] = (float)(scale * (meed_rng_normal(&rng) + 0.5));
    }
}

/* The update of (client, round): a drawn change, scaled; 0 is the unchanged adapter. */
static inline void fed_encode(struct fed *fed, int32_t client, const struct fed_pulled *pulled,
                              double scale, struct meed_buf *bytes)
{
    struct meed_update_tensor tensors[256];
    char names[256][MEED_ADAPTER_NAME_BYTES];
    struct meed_adapter *part = NULL, *rest = NULL;
    assert_int_equal(meed_adapter_split(pulled->adapter, pulled->plan.rank, &part, &rest), MEED_OK);
    int64_t values = meed_adapter_value_count(part);
    float *flat = calloc(2 * (size_t)values, sizeof *flat);
    fed_draw(fed->ids[client], "", pulled->plan.round, scale, values, flat);
    size_t count = fed_tensors(part, &pulled->plan, "", flat, tensors, names);
    if (pulled->plan.method == MEED_METHOD_SCAFFOLD) {
        fed_draw(fed->ids[client], "control ", pulled->plan.round, scale, values, flat + values);
        count += fed_tensors(part, &pulled->plan, MEED_UPDATE_CONTROL_PREFIX, flat + values,
                             tensors + count, names + count);
    }
    struct meed_update_header header = {.round = pulled->plan.round, .seed = pulled->plan.seed};
    snprintf(header.run_id, sizeof header.run_id, "%s", fed->terms.run_id);
    snprintf(header.client_id, sizeof header.client_id, "%s", fed->ids[client]);
    memcpy(header.base_adapter_hash, pulled->plan.adapter_hash, MEED_SHA256_BYTES);
    assert_int_equal(
        meed_update_encode(&header, &pulled->plan.codec, tensors, count, NULL, bytes, NULL),
        MEED_OK);
    free(flat);
    meed_adapter_destroy(part);
    meed_adapter_destroy(rest);
}

static inline void fed_header(struct fed *fed, const struct fed_pulled *pulled,
                              const struct meed_buf *bytes, struct meed_msg_push_header *header)
{
    memset(header, 0, sizeof *header);
    snprintf(header->run_id, sizeof header->run_id, "%s", fed->terms.run_id);
    header->round = pulled->plan.round;
    meed_sha256(bytes->data, bytes->size, header->sha256);
    header->total_bytes = (int64_t)bytes->size;
    memcpy(header->base_adapter_hash, pulled->plan.adapter_hash, MEED_SHA256_BYTES);
    header->sample_count = 10;
    header->train_loss = 1.25;
    header->retained_energy = 1.0;
}

/* Pieces of `piece` bytes; stops after `stop_at` bytes (−1: all) without ending the stream. */
static inline enum meed_status fed_push_bytes(struct meed_rpc_client *rpc,
                                              const struct meed_msg_push_header *header,
                                              const struct meed_buf *bytes, int64_t piece,
                                              int64_t stop_at, enum meed_push_outcome *outcome)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_push_request request = {.part = MEED_PUSH_HEADER, .header = *header};
    struct meed_msg_push_reply reply = {MEED_PUSH_ACCEPTED, 0};
    struct meed_rpc_stream *stream = NULL;
    enum meed_rpc_event event = MEED_RPC_END;
    struct meed_buf message;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_arena_init(&arena);
    MEED_TRY_OUT(meed_rpc_stream_open(rpc, MEED_RPC_PUSH, 10000, &stream));
    MEED_TRY_OUT(meed_codec_pack_push_request(&request, &message));
    bool alive = meed_rpc_stream_send(stream, message.data, message.size) == MEED_OK;
    int64_t end = stop_at < 0 ? (int64_t)bytes->size : stop_at;
    for (int64_t at = header->offset; alive && at < end; at += piece) {
        size_t size = (size_t)MEED_MIN(piece, end - at);
        const uint8_t *from = (const uint8_t *)bytes->data + at;
        request.part = MEED_PUSH_CHUNK;
        request.chunk = (struct meed_msg_chunk){at, from, size, meed_chunk_crc32c(0, from, size)};
        meed_buf_reset(&message);
        MEED_TRY_OUT(meed_codec_pack_push_request(&request, &message));
        alive = meed_rpc_stream_send(stream, message.data, message.size) == MEED_OK;
    }
    if (stop_at >= 0) {
        meed_clock_sleep_ms(20); /* let what was sent arrive, then cut the line */
        meed_rpc_stream_cancel(stream);
        st = MEED_CANCELLED;
        goto out;
    }
    meed_status_discard(meed_rpc_stream_close_send(stream));
    meed_buf_reset(&message);
    MEED_TRY_OUT(meed_rpc_stream_receive(stream, -1, &message, &event));
    MEED_TRY_OUT(meed_rpc_stream_finish(stream));
    assert_int_equal(event, MEED_RPC_MESSAGE);
    MEED_TRY_OUT(meed_codec_unpack_push_reply(message.data, message.size, &arena, &reply));
    *outcome = reply.outcome;
out:
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&message);
    meed_arena_clear(&arena);
    return st;
}

static inline enum meed_status fed_query(struct fed *fed, struct meed_rpc_client *rpc,
                                         const struct meed_msg_push_header *header,
                                         struct meed_msg_query_push_reply *reply)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_query_push_request request = {.round = header->round};
    struct meed_buf message, answer;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    snprintf(request.run_id, sizeof request.run_id, "%s", fed->terms.run_id);
    memcpy(request.sha256, header->sha256, MEED_SHA256_BYTES);
    MEED_TRY_OUT(meed_codec_pack_query_push_request(&request, &message));
    MEED_TRY_OUT(
        meed_rpc_client_unary(rpc, MEED_RPC_QUERY_PUSH, message.data, message.size, 5000, &answer));
    MEED_TRY_OUT(meed_codec_unpack_query_push_reply(answer.data, answer.size, &arena, reply));
out:
    meed_buf_clear(&message);
    meed_buf_clear(&answer);
    meed_arena_clear(&arena);
    return st;
}

static inline enum meed_status fed_receipt(struct fed *fed, struct meed_rpc_client *rpc,
                                           int32_t round, struct meed_msg_receipt *receipt)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_receipt_request request = {.round = round};
    struct meed_buf message, answer;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    snprintf(request.run_id, sizeof request.run_id, "%s", fed->terms.run_id);
    MEED_TRY_OUT(meed_codec_pack_receipt_request(&request, &message));
    MEED_TRY_OUT(
        meed_rpc_client_unary(rpc, MEED_RPC_RECEIPT, message.data, message.size, 5000, &answer));
    MEED_TRY_OUT(meed_codec_unpack_receipt(answer.data, answer.size, &arena, receipt));
    receipt->axes = NULL; /* lived in the arena */
out:
    meed_buf_clear(&message);
    meed_buf_clear(&answer);
    meed_arena_clear(&arena);
    return st;
}

static inline void fed_pulled_clear(struct fed_pulled *pulled)
{
    meed_adapter_destroy(pulled->adapter);
    pulled->adapter = NULL;
}

/* Pull (waiting for the round), train, push, resuming what is there; done too if it was before. */
static inline enum meed_status fed_play(struct fed *fed, int32_t client, int32_t round,
                                        double scale)
{
    enum meed_status st = MEED_OK;
    struct meed_rpc_client *rpc = fed_client(fed, client);
    struct fed_pulled pulled = {.adapter = NULL};
    struct meed_msg_push_header header;
    struct meed_msg_query_push_reply stored;
    struct meed_msg_receipt receipt;
    enum meed_push_outcome outcome = MEED_PUSH_ACCEPTED;
    struct meed_buf bytes;
    int32_t next_round = 0;
    meed_buf_init(&bytes, 1 << 24);
    MEED_TRY_OUT(fed_join(fed, rpc, &next_round));
    for (int tries = 0;; tries++) {
        if (next_round > round || fed_receipt(fed, rpc, round, &receipt) == MEED_OK) {
            goto out;
        }
        st = fed_pull(fed, rpc, round, &pulled);
        if (st != MEED_STATE || tries > 4000) {
            break;
        }
        meed_clock_sleep_ms(2);
        MEED_TRY_OUT(fed_join(fed, rpc, &next_round));
    }
    MEED_TRY_OUT(st);
    fed_encode(fed, client, &pulled, scale, &bytes);
    fed_header(fed, &pulled, &bytes, &header);
    MEED_TRY_OUT(fed_query(fed, rpc, &header, &stored));
    if (!stored.complete) {
        header.offset = stored.stored_bytes;
        MEED_TRY_OUT(fed_push_bytes(rpc, &header, &bytes, 300, -1, &outcome));
    }
out:
    fed_pulled_clear(&pulled);
    meed_buf_clear(&bytes);
    meed_rpc_client_close(rpc);
    return st;
}

/* Every client's last receipt, so that the runner need not linger. */
static inline void fed_collect(struct fed *fed, int32_t round)
{
    for (int32_t i = 0; i < fed->client_count; i++) {
        struct meed_rpc_client *rpc = fed_client(fed, i);
        struct meed_msg_receipt receipt;
        enum meed_status st = MEED_STATE;
        for (int tries = 0; st == MEED_STATE && tries < 4000; tries++) {
            st = fed_receipt(fed, rpc, round, &receipt);
            if (st == MEED_STATE) {
                meed_clock_sleep_ms(2);
            }
        }
        assert_int_equal(st, MEED_OK);
        meed_rpc_client_close(rpc);
    }
}

static inline void fed_read(const char *folder, const char *name, struct meed_buf *bytes)
{
    char path[MEED_PATH_BYTES];
    meed_buf_init(bytes, 1 << 26);
    assert_int_equal(meed_file_join(folder, name, path, sizeof path), MEED_OK);
    assert_int_equal(meed_file_read(path, bytes), MEED_OK);
}

static inline bool fed_same_file(const char *x, const char *y, const char *name)
{
    struct meed_buf left, right;
    fed_read(x, name, &left);
    fed_read(y, name, &right);
    bool same = left.size == right.size && memcmp(left.data, right.data, left.size) == 0;
    meed_buf_clear(&left);
    meed_buf_clear(&right);
    return same;
}

#endif
