/* QueryPush and PushUpdate: resumable uploads, acknowledged when they are on disk.
 *
 *   header    who, run, round, base, size      judged by the round machine before a byte is stored
 *   chunk     offset and CRC checked, appended to partial/<client>-<sha256>
 *   end       hash of the whole, decoded once, renamed into blobs/, row, round, reply
 *
 * The hash runs over what is received; bytes that a resumed upload finds in its partial file are
 * read back into it. A partial whose whole does not match its name is emptied, so that the next
 * attempt starts clean.
 */
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "proto/chunk.h"
#include "proto/sharing.h"
#include "server/control.h"
#include "server/incoming.h"
#include "server/service_private.h"

struct meed_service_upload {
    pthread_mutex_t lock; /* against the stream that takes over */
    bool revoked;
    int32_t client;
    bool opened; /* the header was accepted */
    struct meed_msg_push_header header;
    struct meed_chunk_receiver receiver;
    struct meed_store_partial *partial;
    int64_t bytes_up;
};

static void count_verdict(struct meed_service *service, enum meed_round_verdict verdict)
{
    atomic_fetch_add(&service->verdicts[verdict], 1);
}

/* Answers a refused upload; the client may still be sending and learns it at its next receive. */
static void refuse(struct meed_service *service, struct meed_rpc_call *call, int32_t client,
                   enum meed_status st)
{
    struct meed_aggregator_event event = {.kind = MEED_AGGREGATOR_REFUSED, .client = client};
    snprintf(event.text, sizeof event.text, "%.500s", meed_last_error());
    MEED_LOG_WARN("server", "%s: update refused: %s", meed_service_client_id(service, client),
                  event.text);
    meed_rpc_call_finish(call, st, event.text, NULL, 0);
    meed_board_emit(service->config.board, &event);
    meed_service_sync_health(service);
}

static void reply(struct meed_rpc_call *call, enum meed_push_outcome outcome, int64_t stored_bytes)
{
    struct meed_msg_push_reply message = {outcome, stored_bytes};
    struct meed_buf bytes;
    meed_codec_buf_init(&bytes);
    enum meed_status st = meed_codec_pack_push_reply(&message, &bytes);
    meed_rpc_call_finish(call, st, NULL, bytes.data, st == MEED_OK ? bytes.size : 0);
    meed_buf_clear(&bytes);
}

/* ---- judging --------------------------------------------------------------------------------- */

/* What the machine says to this header now, with the stored update of the same client looked up. */
static enum meed_status judge(struct meed_service *service, int32_t client,
                              const struct meed_msg_push_header *header, bool shape_fits,
                              struct meed_round_event *event)
{
    struct meed_store_update stored;
    *event = (struct meed_round_event){.kind = MEED_ROUND_EVENT_UPDATE,
                                       .client = client,
                                       .round = header->round,
                                       .shape_fits = shape_fits};
    enum meed_status st = meed_store_find_update(service->config.store, header->round,
                                                 meed_service_client_id(service, client), &stored);
    if (st == MEED_OK) {
        event->same_bytes = memcmp(stored.sha256, header->sha256, MEED_SHA256_BYTES) == 0;
    }
    return st == MEED_NOT_FOUND ? MEED_OK : st;
}

/* TAKEN or DUPLICATE, or a failure that says why not. */
static enum meed_status check_header(struct meed_service *service, int32_t client,
                                     const struct meed_msg_push_header *header,
                                     enum meed_round_verdict *verdict)
{
    struct meed_round_event event;
    MEED_TRY(meed_service_check_run(service, header->run_id));
    MEED_TRY(
        judge(service, client, header, header->total_bytes <= service->max_update_bytes, &event));
    pthread_mutex_lock(&service->lock);
    *verdict = meed_round_judge(&service->round, &event);
    bool other_base = memcmp(header->base_adapter_hash, service->adapter_hash, MEED_SHA256_BYTES);
    enum meed_status st = meed_round_verdict_status(&service->round, *verdict, header->round);
    pthread_mutex_unlock(&service->lock);
    if (st != MEED_OK) {
        return st;
    }
    return *verdict == MEED_ROUND_TAKEN && other_base
               ? MEED_FAIL(MEED_VERSION,
                           "the update was trained from another adapter than round "
                           "%d's; pull again",
                           header->round)
               : MEED_OK;
}

/* ---- the header ------------------------------------------------------------------------------ */

/* One upload a client: whoever had one is refused from now on. */
static void take_over(struct meed_service *service, struct meed_service_upload *upload)
{
    pthread_mutex_lock(&service->uploads_lock);
    struct meed_service_upload *other = service->uploads[upload->client];
    if (other && other != upload) {
        pthread_mutex_lock(&other->lock);
        other->revoked = true;
        pthread_mutex_unlock(&other->lock);
    }
    service->uploads[upload->client] = upload;
    pthread_mutex_unlock(&service->uploads_lock);
}

/* Feeds what is stored already to the running hash. */
static enum meed_status read_back(struct meed_service_upload *upload, int64_t size)
{
    enum { BLOCK = 1 << 20 };
    enum meed_status st = MEED_OK;
    void *block = meed_heap_alloc(1, BLOCK);
    if (!block) {
        return MEED_NOMEM;
    }
    for (int64_t at = 0; at < size && st == MEED_OK;) {
        size_t piece = (size_t)MEED_MIN((int64_t)BLOCK, size - at);
        st = meed_store_partial_read(upload->partial, at, block, piece);
        if (st == MEED_OK) {
            st = meed_chunk_receiver_resume(&upload->receiver, block, piece);
        }
        at += (int64_t)piece;
    }
    meed_heap_free(block);
    return st;
}

static enum meed_status open_upload(struct meed_service *service,
                                    struct meed_service_upload *upload)
{
    const struct meed_msg_push_header *header = &upload->header;
    int64_t size = 0;
    take_over(service, upload);
    MEED_TRY(meed_store_partial_open(service->config.store,
                                     meed_service_client_id(service, upload->client),
                                     header->sha256, &upload->partial, &size));
    if (header->offset > size) {
        return MEED_FAIL(MEED_RPC, "only %lld bytes of this update are stored, not %lld; ask again",
                         (long long)size, (long long)header->offset);
    }
    if (header->offset < size) {
        MEED_TRY(meed_store_partial_truncate(upload->partial, header->offset));
    }
    MEED_TRY(meed_chunk_receiver_init(&upload->receiver, header->total_bytes,
                                      service->max_update_bytes, header->sha256));
    MEED_TRY(read_back(upload, header->offset));
    upload->opened = true;
    return MEED_OK;
}

static void take_header(struct meed_service *service, struct meed_rpc_call *call,
                        struct meed_service_upload *upload,
                        const struct meed_msg_push_header *header)
{
    enum meed_round_verdict verdict = MEED_ROUND_TAKEN;
    upload->header = *header;
    enum meed_status st = check_header(service, upload->client, header, &verdict);
    if (st == MEED_OK && verdict == MEED_ROUND_DUPLICATE) {
        count_verdict(service, verdict);
        reply(call, MEED_PUSH_DUPLICATE, header->total_bytes);
        return;
    }
    if (st != MEED_OK && verdict != MEED_ROUND_TAKEN) {
        count_verdict(service, verdict);
    }
    if (st == MEED_OK) {
        st = open_upload(service, upload);
    }
    if (st != MEED_OK) {
        refuse(service, call, upload->client, st);
        return;
    }
    meed_rpc_call_read_next(call);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static enum meed_status take_chunk(struct meed_service_upload *upload,
                                   const struct meed_msg_chunk *chunk)
{
    enum meed_status st = MEED_OK;
    pthread_mutex_lock(&upload->lock);
    if (upload->revoked) {
        st = MEED_FAIL(MEED_STATE, "another upload of this client took over");
        goto out;
    }
    MEED_TRY_OUT(meed_chunk_receiver_accept(&upload->receiver, chunk));
    MEED_TRY_OUT(meed_store_partial_append(upload->partial, chunk->bytes, chunk->size));
out:
    pthread_mutex_unlock(&upload->lock);
    return st;
}

void meed_service_push_start(void *user, struct meed_rpc_call *call)
{
    struct meed_service *service = user;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    struct meed_service_upload *upload = meed_heap_alloc(1, sizeof *upload);
    if (!upload) {
        meed_rpc_call_finish(call, MEED_NOMEM, NULL, NULL, 0);
        return;
    }
    pthread_mutex_init(&upload->lock, NULL);
    upload->client = client;
    meed_rpc_call_set_state(call, upload);
    meed_service_present(service, client);
    meed_rpc_call_read_next(call);
}

void meed_service_push_message(void *user, struct meed_rpc_call *call, const void *bytes,
                               size_t size)
{
    struct meed_service *service = user;
    struct meed_service_upload *upload = meed_rpc_call_state(call);
    enum meed_status st = MEED_OK;
    struct meed_msg_push_request request;
    struct meed_arena arena;
    if (!upload || meed_rpc_call_finished(call)) {
        return;
    }
    upload->bytes_up += (int64_t)size;
    meed_codec_arena_init(&arena);
    MEED_TRY_OUT(meed_codec_unpack_push_request(bytes, size, &arena, &request));
    if (!upload->opened && request.part == MEED_PUSH_HEADER) {
        take_header(service, call, upload, &request.header);
        goto out;
    }
    if (!upload->opened || request.part != MEED_PUSH_CHUNK) {
        st = MEED_FAIL(MEED_FORMAT, "a push is one header, then chunks");
        goto out;
    }
    MEED_TRY_OUT(take_chunk(upload, &request.chunk));
    meed_rpc_call_read_next(call);
out:
    if (st != MEED_OK) {
        refuse(service, call, upload->client, st);
    }
    meed_arena_clear(&arena);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Decodes the partial file as settlement will decode the blob. */
static enum meed_status check_content(struct meed_service *service,
                                      const struct meed_service_upload *upload)
{
    enum meed_status st = MEED_OK;
    size_t size = (size_t)upload->header.total_bytes;
    struct meed_incoming *incoming = NULL;
    struct meed_buf bytes;
    void *content = NULL;
    meed_buf_init(&bytes, size);
    MEED_TRY_OUT(meed_buf_extend(&bytes, size, &content));
    MEED_TRY_OUT(meed_store_partial_read(upload->partial, 0, content, size));
    MEED_TRY_OUT(meed_incoming_create(service->config.shape,
                                      meed_control_used(service->config.terms), &incoming));
    MEED_TRY_OUT(meed_incoming_decode(
        incoming, service->config.terms, meed_service_client_id(service, upload->client),
        upload->header.round, upload->header.base_adapter_hash, content, size));
out:
    meed_incoming_destroy(incoming);
    meed_buf_clear(&bytes);
    return st;
}

/* Row and round under one lock: the decision, whatever happened while the bytes came in. */
static enum meed_status commit(struct meed_service *service, struct meed_service_upload *upload,
                               enum meed_round_verdict *verdict)
{
    enum meed_status st = MEED_OK;
    struct meed_round_event event;
    struct meed_round_outcome outcome;
    const struct meed_msg_push_header *header = &upload->header;
    struct meed_store_update update = {.bytes = header->total_bytes,
                                       .sample_count = header->sample_count,
                                       .token_count = header->token_count,
                                       .train_loss = header->train_loss,
                                       .train_seconds = header->train_seconds,
                                       .retained_energy = header->retained_energy};
    snprintf(update.client, sizeof update.client, "%s",
             meed_service_client_id(service, upload->client));
    memcpy(update.sha256, header->sha256, MEED_SHA256_BYTES);
    meed_sharing_line(header, &service->config.terms->plan, update.privacy);
    pthread_mutex_lock(&service->lock);
    MEED_TRY_OUT(judge(service, upload->client, header, true, &event));
    meed_round_step(&service->round, &event, &outcome);
    *verdict = outcome.verdict;
    MEED_TRY_OUT(meed_round_verdict_status(&service->round, outcome.verdict, header->round));
    if (outcome.actions & MEED_ROUND_DO_STORE) {
        MEED_TRY_OUT(meed_store_add_update(service->config.store, header->round, &update));
        meed_board_update(service->config.board, upload->client, header->train_loss);
        MEED_TRY_OUT(meed_service_adopt(service, &outcome));
    }
out:
    pthread_mutex_unlock(&service->lock);
    return st;
}

static enum meed_status finish(struct meed_service *service, struct meed_service_upload *upload,
                               enum meed_round_verdict *verdict)
{
    enum meed_status st = MEED_OK;
    pthread_mutex_lock(&upload->lock);
    if (!upload->opened || upload->revoked) {
        st = MEED_FAIL(MEED_STATE, "%s",
                       upload->opened ? "another upload took over" : "the push had no header");
        goto out;
    }
    if (!meed_chunk_receiver_complete(&upload->receiver)) {
        st = MEED_FAIL(MEED_RPC, "the push ended after %lld of %lld bytes; it can go on there",
                       (long long)upload->receiver.offset, (long long)upload->header.total_bytes);
        goto out;
    }
    st = meed_chunk_receiver_finish(&upload->receiver);
    if (st == MEED_OK) {
        st = check_content(service, upload);
    }
    if (st != MEED_OK) {
        char why[MEED_LIMIT_REASON_BYTES];
        snprintf(why, sizeof why, "%.500s", meed_last_error());
        atomic_fetch_add(&service->broken, 1);
        meed_status_discard(meed_store_partial_truncate(upload->partial, 0));
        st = MEED_FAIL(st, "%s", why);
        goto out;
    }
    MEED_TRY_OUT(meed_store_partial_adopt(upload->partial));
    MEED_TRY_OUT(commit(service, upload, verdict));
out:
    pthread_mutex_unlock(&upload->lock);
    return st;
}

void meed_service_push_half_closed(void *user, struct meed_rpc_call *call)
{
    struct meed_service *service = user;
    struct meed_service_upload *upload = meed_rpc_call_state(call);
    enum meed_round_verdict verdict = MEED_ROUND_VERDICT_COUNT;
    if (!upload || meed_rpc_call_finished(call)) {
        return;
    }
    enum meed_status st = finish(service, upload, &verdict);
    if (verdict < MEED_ROUND_VERDICT_COUNT) {
        count_verdict(service, verdict);
    }
    if (st != MEED_OK) {
        refuse(service, call, upload->client, st);
        return;
    }
    reply(call, verdict == MEED_ROUND_DUPLICATE ? MEED_PUSH_DUPLICATE : MEED_PUSH_ACCEPTED,
          upload->header.total_bytes);
    MEED_LOG_INFO("server", "round %d: update of %s is in (bytes=%lld loss=%.4f)",
                  upload->header.round, meed_service_client_id(service, upload->client),
                  (long long)upload->header.total_bytes, upload->header.train_loss);
    struct meed_aggregator_event event = {
        .kind = MEED_AGGREGATOR_UPDATE, .client = upload->client, .round = upload->header.round};
    meed_board_emit(service->config.board, &event);
    meed_service_sync_health(service);
}

void meed_service_push_done(void *user, struct meed_rpc_call *call, bool cancelled)
{
    (void)cancelled;
    struct meed_service *service = user;
    struct meed_service_upload *upload = meed_rpc_call_state(call);
    if (!upload) {
        return;
    }
    pthread_mutex_lock(&service->uploads_lock);
    if (service->uploads[upload->client] == upload) {
        service->uploads[upload->client] = NULL;
    }
    pthread_mutex_unlock(&service->uploads_lock);
    const char *id = meed_service_client_id(service, upload->client);
    atomic_fetch_add(&service->bytes_up, upload->bytes_up);
    if (upload->header.round > 0) {
        meed_board_traffic(service->config.board, upload->client, upload->bytes_up, 0);
        meed_status_discard(meed_store_add_traffic(service->config.store, upload->header.round, id,
                                                   upload->bytes_up, 0));
    }
    meed_chunk_receiver_clear(&upload->receiver);
    meed_store_partial_close(upload->partial);
    pthread_mutex_destroy(&upload->lock);
    meed_heap_free(upload);
}

/* ---- QueryPush ------------------------------------------------------------------------------- */

static enum meed_status query(struct meed_service *service, int32_t client,
                              const struct meed_msg_query_push_request *request,
                              struct meed_msg_query_push_reply *answer)
{
    struct meed_store_update stored;
    const char *id = meed_service_client_id(service, client);
    MEED_TRY(meed_service_check_run(service, request->run_id));
    enum meed_status st =
        meed_store_find_update(service->config.store, request->round, id, &stored);
    if (st == MEED_OK && memcmp(stored.sha256, request->sha256, MEED_SHA256_BYTES) == 0) {
        *answer = (struct meed_msg_query_push_reply){stored.bytes, true};
        return MEED_OK;
    }
    if (st != MEED_OK && st != MEED_NOT_FOUND) {
        return st;
    }
    answer->complete = false;
    return meed_store_partial_durable(service->config.store, id, request->sha256,
                                      &answer->stored_bytes);
}

void meed_service_query_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                size_t size)
{
    struct meed_service *service = user;
    enum meed_status st = MEED_OK;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    struct meed_msg_query_push_request request;
    struct meed_msg_query_push_reply answer = {0, false};
    struct meed_arena arena;
    struct meed_buf text;
    meed_codec_arena_init(&arena);
    meed_codec_buf_init(&text);
    meed_service_present(service, client);
    MEED_TRY_OUT(meed_codec_unpack_query_push_request(bytes, size, &arena, &request));
    MEED_TRY_OUT(query(service, client, &request, &answer));
    MEED_TRY_OUT(meed_codec_pack_query_push_reply(&answer, &text));
out:
    meed_rpc_call_finish(call, st, NULL, text.data, st == MEED_OK ? text.size : 0);
    meed_arena_clear(&arena);
    meed_buf_clear(&text);
}
