/* GetReceipt and ReadLedger: what can be read afterwards, straight from the ledger.
 *
 * A receipt is the client's own line of a round's entry with the details that the public ledger
 * leaves out (values per axis, totals, traffic). Ledger pages pass the stored bodies through
 * untouched, so that a client can check hashes and signatures itself.
 */
#include <stdio.h>
#include <string.h>
#include "server/service_private.h"

enum { PAGE_BYTES = 1 << 20, DETAILS_MAX_BYTES = 64 << 20 };

/* ---- GetReceipt ------------------------------------------------------------------------------ */

static enum meed_status find_entry(struct meed_service *service, int32_t round,
                                   struct meed_arena *arena, struct meed_ledger_place *place,
                                   struct meed_ledger_round *entry)
{
    pthread_mutex_lock(&service->lock);
    bool settled = round >= 1 && round <= service->settled_round;
    pthread_mutex_unlock(&service->lock);
    if (!meed_ledger_find(service->config.ledger, MEED_MAX(round, 1), place) ||
        (place->kind == MEED_LEDGER_ROUND && !settled)) {
        return MEED_FAIL(MEED_STATE, "round %d is not settled; watch for it", round);
    }
    if (place->kind != MEED_LEDGER_ROUND) {
        return MEED_FAIL(MEED_NOT_FOUND, "round %d was abandoned: nobody was paid", round);
    }
    return meed_ledger_read_round(service->config.ledger, place->index, arena, entry);
}

/* Details are computed again by nobody: without them the receipt has no axes. */
static void fill_detail(struct meed_service *service, int32_t client, struct meed_arena *arena,
                        struct meed_msg_receipt *receipt)
{
    const struct meed_terms *terms = service->config.terms;
    struct meed_buf bytes;
    void *block = NULL;
    struct meed_service_detail detail;
    meed_buf_init(&bytes, DETAILS_MAX_BYTES);
    size_t begin = (size_t)client * sizeof detail;
    bool found = meed_store_load_stage(service->config.store, receipt->round,
                                       MEED_SERVICE_STAGE_RECEIPTS, &bytes) == MEED_OK &&
                 bytes.size >= begin + sizeof detail &&
                 meed_arena_alloc_array(arena, (size_t)terms->axis_count, sizeof *receipt->axes,
                                        &block) == MEED_OK;
    if (found) {
        memcpy(&detail, bytes.data + begin, sizeof detail);
        receipt->total_share = detail.total_share;
        receipt->axes = block;
        receipt->axis_count = (size_t)terms->axis_count;
        for (int32_t i = 0; i < terms->axis_count; i++) {
            struct meed_msg_axis_value *axis = &receipt->axes[i];
            snprintf(axis->name, sizeof axis->name, "%s", terms->axes[i].name);
            axis->phi = detail.axis_phi[i];
            axis->standard_error = detail.axis_se[i];
            axis->weight = terms->axes[i].weight;
            axis->guard = terms->axes[i].guard;
        }
    }
    meed_buf_clear(&bytes);
}

static enum meed_status fill_receipt(struct meed_service *service, int32_t client, int32_t round,
                                     struct meed_arena *arena, struct meed_msg_receipt *receipt)
{
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    MEED_TRY(find_entry(service, round, arena, &place, &entry));
    if (client >= entry.client_count) {
        return MEED_FAIL(MEED_BUG, "round %d has no line for client %d", round, client);
    }
    const struct meed_ledger_client *line = &entry.clients[client]; /* both in id order */
    snprintf(receipt->run_id, sizeof receipt->run_id, "%s", entry.run_id);
    snprintf(receipt->client_id, sizeof receipt->client_id, "%s", line->id);
    snprintf(receipt->reason, sizeof receipt->reason, "%s", line->reason);
    snprintf(receipt->remark, sizeof receipt->remark, "%s", line->remark);
    snprintf(receipt->privacy, sizeof receipt->privacy, "%s", line->privacy);
    receipt->round = round;
    receipt->state = line->state;
    receipt->phi = line->phi;
    receipt->standard_error = line->se;
    receipt->shrunk = line->phi;
    receipt->share = line->share;
    receipt->total_share = line->share;
    receipt->round_budget = entry.budget;
    receipt->ledger_index = place.index;
    memcpy(receipt->ledger_hash, place.hash, MEED_SHA256_BYTES);
    memcpy(receipt->update_hash, line->update_hash, MEED_SHA256_BYTES);
    memcpy(receipt->base_adapter_hash, entry.before_hash, MEED_SHA256_BYTES);
    memcpy(receipt->next_adapter_hash, entry.after_hash, MEED_SHA256_BYTES);
    memcpy(receipt->benchmark_hash, entry.benchmark_hash, MEED_SHA256_BYTES);
    memcpy(receipt->utilities_hash, entry.utilities_hash, MEED_SHA256_BYTES);
    fill_detail(service, client, arena, receipt);
    return meed_store_traffic(service->config.store, round, line->id, &receipt->bytes_up,
                              &receipt->bytes_down);
}

static void note_served(struct meed_service *service, int32_t client, int32_t round)
{
    pthread_mutex_lock(&service->lock);
    if (service->round.phase == MEED_ROUND_FINISHED && round >= service->settled_round) {
        service->served[client] = true;
        sem_post(&service->wake);
    }
    pthread_mutex_unlock(&service->lock);
}

void meed_service_receipt_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                  size_t size)
{
    struct meed_service *service = user;
    enum meed_status st = MEED_OK;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    struct meed_msg_receipt_request request;
    struct meed_msg_receipt receipt = {.round = 0};
    struct meed_arena message, entry;
    struct meed_buf answer;
    meed_codec_arena_init(&message);
    meed_arena_init_growing(&entry, "message", MEED_LIMIT_CLIENTS * 1024u);
    meed_codec_buf_init(&answer);
    MEED_TRY_OUT(meed_codec_unpack_receipt_request(bytes, size, &message, &request));
    MEED_TRY_OUT(meed_service_check_run(service, request.run_id));
    MEED_TRY_OUT(fill_receipt(service, client, request.round, &entry, &receipt));
    MEED_TRY_OUT(meed_codec_pack_receipt(&receipt, &answer));
out:
    meed_rpc_call_finish(call, st, NULL, answer.data, st == MEED_OK ? answer.size : 0);
    if (st == MEED_OK) {
        note_served(service, client, request.round);
    }
    meed_arena_clear(&message);
    meed_arena_clear(&entry);
    meed_buf_clear(&answer);
}

/* ---- ReadLedger ------------------------------------------------------------------------------ */

/* Bodies of the page one after the other in `bodies`; entries point into it only at the end. */
static enum meed_status collect(struct meed_service *service,
                                const struct meed_msg_ledger_request *request,
                                struct meed_arena *arena, struct meed_buf *bodies,
                                struct meed_msg_ledger_reply *page)
{
    struct meed_ledger *ledger = service->config.ledger;
    void *block = NULL;
    int64_t count = meed_ledger_count(ledger);
    int64_t most = MEED_MIN((int64_t)request->max_entries, count - request->first_index);
    page->entry_count = count;
    memcpy(page->public_key, service->config.terms->ledger_key, MEED_SHA256_BYTES);
    meed_ledger_head(ledger, page->head_hash);
    MEED_TRY(
        meed_arena_alloc_array(arena, (size_t)MEED_MAX(most, 0), sizeof *page->entries, &block));
    page->entries = block;
    for (int64_t i = 0; i < most; i++) {
        struct meed_ledger_place place;
        size_t before = bodies->size;
        MEED_TRY(meed_ledger_read(ledger, request->first_index + i, &place, bodies));
        if (i > 0 && bodies->size > PAGE_BYTES - (size_t)(i + 1) * 256) {
            bodies->size = before;
            break;
        }
        struct meed_msg_ledger_entry *entry = &page->entries[page->entry_page_count++];
        entry->index = place.index;
        entry->body_size = bodies->size - before;
        memcpy(entry->hash, place.hash, MEED_SHA256_BYTES);
        memcpy(entry->signature, place.signature, MEED_SIGNATURE_BYTES);
    }
    size_t at = 0;
    for (size_t i = 0; i < page->entry_page_count; i++) {
        page->entries[i].body = (const uint8_t *)bodies->data + at;
        at += page->entries[i].body_size;
    }
    return MEED_OK;
}

void meed_service_ledger_message(void *user, struct meed_rpc_call *call, const void *bytes,
                                 size_t size)
{
    struct meed_service *service = user;
    enum meed_status st = MEED_OK;
    int32_t client = -1;
    if (!meed_service_admit(service, call, &client)) {
        return;
    }
    struct meed_msg_ledger_request request;
    struct meed_msg_ledger_reply page = {.entries = NULL};
    struct meed_arena arena;
    struct meed_buf bodies, answer;
    meed_codec_arena_init(&arena);
    meed_codec_buf_init(&answer);
    meed_buf_init(&bodies, 2 * PAGE_BYTES);
    MEED_TRY_OUT(meed_codec_unpack_ledger_request(bytes, size, &arena, &request));
    MEED_TRY_OUT(meed_service_check_run(service, request.run_id));
    MEED_TRY_OUT(collect(service, &request, &arena, &bodies, &page));
    MEED_TRY_OUT(meed_codec_pack_ledger_reply(&page, &answer));
out:
    meed_rpc_call_finish(call, st, NULL, answer.data, st == MEED_OK ? answer.size : 0);
    meed_arena_clear(&arena);
    meed_buf_clear(&bodies);
    meed_buf_clear(&answer);
}
