/* PullAdapter: the plan, then the global adapter from its blob, chunk by chunk as the client takes
 * them. The map of the blob is the only memory a pull costs. */
#include <string.h>
#include "proto/chunk.h"
#include "server/control.h"
#include "server/service_private.h"

struct pull {
    struct meed_file_map map, control; /* control.bytes NULL: none */
    struct meed_chunk_sender sender, control_sender;
    int32_t client;
    int32_t round;
    int64_t bytes_down;
};

static enum meed_status send_reply(struct meed_rpc_call *call, struct pull *pull,
                                   const struct meed_msg_pull_reply *reply)
{
    struct meed_buf bytes;
    meed_codec_buf_init(&bytes);
    enum meed_status st = meed_codec_pack_pull_reply(reply, &bytes);
    if (st == MEED_OK) {
        pull->bytes_down += (int64_t)bytes.size;
        meed_rpc_call_write(call, bytes.data, bytes.size);
    }
    meed_buf_clear(&bytes);
    return st;
}

/* The round's base while it is open. When the run is over its result, but not to who asks for a
 * round: between asking what is on and pulling it, the last round may have ended, and a client
 * would train it once more upon what it led to. */
static enum meed_status check_round(const struct meed_service_state *state, int32_t round)
{
    if (round != 0 && round != state->round) {
        return MEED_FAIL(MEED_STATE, "round %d is on, not round %d", state->round, round);
    }
    bool result = state->phase == MEED_ROUND_FINISHED && round == 0;
    if (state->phase != MEED_ROUND_OPEN && !result) {
        return MEED_FAIL(MEED_STATE, "round %d has closed; wait for the next to open",
                         state->round);
    }
    return MEED_OK;
}

/* SCAFFOLD's c follows the adapter, from its first byte whatever was there before. */
static enum meed_status add_control(struct meed_service *service, struct pull *pull,
                                    struct meed_msg_plan *plan)
{
    const struct meed_terms *terms = service->config.terms;
    enum meed_status st = MEED_NOT_FOUND;
    if (meed_control_used(terms)) {
        st = meed_control_find(service->config.store, pull->round, plan->control_hash);
    }
    if (st != MEED_OK) {
        return st == MEED_NOT_FOUND ? MEED_OK : st;
    }
    MEED_TRY(meed_store_map_blob(service->config.store, plan->control_hash, &pull->control));
    plan->control_bytes = (int64_t)pull->control.size;
    return meed_chunk_sender_init(&pull->control_sender, pull->control.bytes, plan->control_bytes,
                                  0);
}

static enum meed_status begin(struct meed_service *service, struct meed_rpc_call *call,
                              int32_t client, const void *bytes, size_t size)
{
    struct meed_msg_pull_request request;
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    enum meed_status st = meed_codec_unpack_pull_request(bytes, size, &arena, &request);
    meed_arena_clear(&arena);
    MEED_TRY(st);
    MEED_TRY(meed_service_check_run(service, request.run_id));
    struct meed_service_state state;
    meed_service_state(service, &state);
    MEED_TRY(check_round(&state, request.round));
    struct pull *pull = meed_heap_alloc(1, sizeof *pull);
    if (!pull) {
        return MEED_NOMEM;
    }
    meed_rpc_call_set_state(call, pull);
    pull->client = client;
    pull->round = state.round;
    MEED_TRY(meed_store_map_blob(service->config.store, state.adapter_hash, &pull->map));
    MEED_TRY(meed_chunk_sender_init(&pull->sender, pull->map.bytes, (int64_t)pull->map.size,
                                    request.offset));
    struct meed_msg_pull_reply reply = {.part = MEED_PULL_PLAN};
    meed_terms_plan(service->config.terms, state.round, state.adapter_hash, (int64_t)pull->map.size,
                    MEED_MAX(state.remaining_ms, 0), &reply.plan);
    MEED_TRY(add_control(service, pull, &reply.plan));
    return send_reply(call, pull, &reply);
}

void meed_service_pull_message(void *user, struct meed_rpc_call *call, const void *bytes,
                               size_t size)
{
    struct meed_service *service = user;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    meed_service_present(service, client);
    enum meed_status st = begin(service, call, client, bytes, size);
    if (st != MEED_OK) {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
    }
}

void meed_service_pull_writable(void *user, struct meed_rpc_call *call)
{
    (void)user;
    struct pull *pull = meed_rpc_call_state(call);
    struct meed_msg_pull_reply reply = {.part = MEED_PULL_CHUNK};
    if (!pull || meed_rpc_call_finished(call)) {
        return;
    }
    if (!meed_chunk_sender_next(&pull->sender, &reply.chunk) &&
        !(pull->control.bytes && meed_chunk_sender_next(&pull->control_sender, &reply.chunk))) {
        meed_rpc_call_finish(call, MEED_OK, NULL, NULL, 0);
        return;
    }
    enum meed_status st = send_reply(call, pull, &reply);
    if (st != MEED_OK) {
        meed_rpc_call_finish(call, st, NULL, NULL, 0);
    }
}

void meed_service_pull_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    (void)cancelled;
    struct meed_service *service = user;
    struct pull *pull = meed_rpc_call_state(call);
    if (!pull) {
        return;
    }
    atomic_fetch_add(&service->bytes_down, pull->bytes_down);
    meed_board_traffic(service->config.board, pull->client, 0, pull->bytes_down);
    /* Counts are for reports: a full disk is told where it matters. */
    meed_status_discard(meed_store_add_traffic(service->config.store, pull->round,
                                               meed_service_client_id(service, pull->client), 0,
                                               pull->bytes_down));
    meed_file_map_close(&pull->map);
    meed_file_map_close(&pull->control);
    meed_heap_free(pull);
}
