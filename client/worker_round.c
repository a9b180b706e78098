/* One round of a client, each part skipped if its result is already on disk (worker.h). */
#include <string.h>
#include "base/log.h"
#include "client/compress.h"
#include "client/worker_control.h"
#include "client/worker_internal.h"
#include "client/worker_state.h"
#include "engine/adapter_split.h"
#include "proto/chunk.h"
#include "proto/sharing.h"

enum { RESIDUAL_MAX_AGE = 3 }; /* rounds; older error feedback answers a model long gone */

struct round_job {
    struct meed_worker *worker;
    int32_t round;
    struct meed_msg_plan plan;
    struct meed_adapter *global; /* the ranks that are trained */
    struct meed_adapter *frozen; /* those that only take part; NULL: none */
    struct meed_adapter *whole;  /* both, as they were pulled */
    struct meed_adapter *trained;
    float *residual;
    struct meed_worker_control control;
    double epsilon; /* spent so far, this update included; 0: no differential privacy */
};

static int64_t transfer_ms(int64_t bytes)
{
    return MEED_LIMIT_TRANSFER_BASE_MS + bytes / 1024;
}

static const char *state_of(const struct round_job *job)
{
    return job->worker->config->state_folder;
}

static enum meed_status write_state(const struct round_job *job, const char *name,
                                    const void *bytes, size_t size)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_worker_state_path(state_of(job), job->round, name, path));
    return meed_file_write_atomic(path, bytes, size);
}

static enum meed_status read_state(const struct round_job *job, int32_t round, const char *name,
                                   struct meed_buf *bytes)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_worker_state_path(state_of(job), round, name, path));
    return meed_file_read(path, bytes);
}

/* ---- pull -------------------------------------------------------------------------------------
 */

/* The receiving end of a pull: the plan first, then what is missing of the adapter. */
struct pull {
    struct round_job *job;
    struct meed_buf *adapter; /* what is there already, and grows */
    struct meed_chunk_receiver receiver;
    struct meed_buf control; /* SCAFFOLD: c, behind the adapter */
    struct meed_chunk_receiver control_receiver;
    bool planned;
};

static enum meed_status pull_accept(struct pull *pull, const struct meed_msg_pull_reply *reply)
{
    if (reply->part == MEED_PULL_PLAN) {
        if (pull->planned || reply->plan.round != pull->job->round) {
            return MEED_FAIL(MEED_FORMAT, "the server sent the plan of round %d for round %d",
                             reply->plan.round, pull->job->round);
        }
        const struct meed_worker_config *config = pull->job->worker->config;
        if (config->limits_sharing) {
            MEED_TRY(meed_sharing_within(&reply->plan, config->share_limit));
        }
        pull->planned = true;
        pull->job->plan = reply->plan;
        MEED_TRY(meed_chunk_receiver_init(&pull->receiver, reply->plan.adapter_bytes,
                                          MEED_ADAPTER_MAX_FILE_BYTES, reply->plan.adapter_hash));
        if (reply->plan.control_bytes > 0) {
            MEED_TRY(meed_chunk_receiver_init(&pull->control_receiver, reply->plan.control_bytes,
                                              MEED_ADAPTER_MAX_FILE_BYTES,
                                              reply->plan.control_hash));
        }
        return meed_chunk_receiver_resume(&pull->receiver, pull->adapter->data,
                                          pull->adapter->size);
    }
    if (!pull->planned) {
        return MEED_FAIL(MEED_FORMAT, "the server sent a chunk before the plan");
    }
    bool control = meed_chunk_receiver_complete(&pull->receiver) && pull->control_receiver.hash;
    MEED_TRY(meed_chunk_receiver_accept(control ? &pull->control_receiver : &pull->receiver,
                                        &reply->chunk));
    return meed_buf_append(control ? &pull->control : pull->adapter, reply->chunk.bytes,
                           reply->chunk.size);
}

static enum meed_status pull_messages(struct pull *pull, struct meed_rpc_stream *stream)
{
    enum meed_status st = MEED_OK;
    struct meed_buf message;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_arena_init(&arena);
    for (enum meed_rpc_event event = MEED_RPC_MESSAGE;;) {
        struct meed_msg_pull_reply reply;
        meed_buf_reset(&message);
        meed_arena_reset(&arena);
        MEED_TRY_OUT(meed_worker_remote(
            meed_rpc_stream_receive(stream, MEED_LIMIT_PROGRESS_MS, &message, &event)));
        if (event == MEED_RPC_END) {
            break;
        }
        if (event == MEED_RPC_WAITING) {
            st = MEED_FAIL(MEED_TIMEOUT, "the server sent nothing of the adapter for %d s",
                           MEED_LIMIT_PROGRESS_MS / 1000);
            goto out;
        }
        MEED_TRY_OUT(meed_codec_unpack_pull_reply(message.data, message.size, &arena, &reply));
        MEED_TRY_OUT(pull_accept(pull, &reply));
        if (meed_worker_stopping(pull->job->worker)) {
            st = MEED_FAIL(MEED_CANCELLED, "stopped while pulling round %d", pull->job->round);
            goto out;
        }
    }
out:
    meed_arena_clear(&arena);
    meed_buf_clear(&message);
    return st;
}

/* Whole and right, and c taken over; else the adapter is asked for from the beginning. */
static enum meed_status pull_finish(struct pull *pull)
{
    struct round_job *job = pull->job;
    bool control = pull->control_receiver.hash != NULL;
    enum meed_status st = meed_chunk_receiver_finish(&pull->receiver);
    if (st == MEED_OK && control) {
        st = meed_chunk_receiver_finish(&pull->control_receiver);
    }
    if (st != MEED_OK) {
        meed_buf_reset(pull->adapter);
        return MEED_FAIL(MEED_RPC, "round %d: %s", job->round, meed_last_error());
    }
    return meed_worker_control_take(&job->control, &pull->control);
}

/* One attempt; `adapter` keeps what arrived, so the next one continues. */
static enum meed_status pull_once(struct round_job *job, struct meed_buf *adapter)
{
    enum meed_status st = MEED_OK;
    struct pull pull = {.job = job, .adapter = adapter};
    struct meed_rpc_stream *stream = NULL;
    struct meed_msg_pull_request request = {.round = job->round, .offset = (int64_t)adapter->size};
    struct meed_buf message;
    meed_codec_buf_init(&message);
    meed_buf_init(&pull.control, MEED_ADAPTER_MAX_FILE_BYTES);
    memcpy(request.run_id, job->worker->run_id, sizeof request.run_id);
    MEED_TRY_OUT(meed_codec_pack_pull_request(&request, &message));
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_stream_open(job->worker->config->rpc, MEED_RPC_PULL,
                                                         transfer_ms(MEED_ADAPTER_MAX_FILE_BYTES),
                                                         &stream)));
    /* A failed send means that the call has ended; finish, below, says why. */
    bool sent = meed_rpc_stream_send(stream, message.data, message.size) == MEED_OK &&
                meed_rpc_stream_close_send(stream) == MEED_OK;
    if (sent) {
        MEED_TRY_OUT(pull_messages(&pull, stream));
    }
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_stream_finish(stream)));
    if (!sent || !pull.planned || !meed_chunk_receiver_complete(&pull.receiver)) {
        st = MEED_FAIL(MEED_RPC, "the adapter of round %d stopped half way", job->round);
        goto out;
    }
    st = pull_finish(&pull);
out:
    meed_chunk_receiver_clear(&pull.receiver);
    meed_chunk_receiver_clear(&pull.control_receiver);
    meed_buf_clear(&pull.control);
    meed_rpc_stream_destroy(stream);
    meed_buf_clear(&message);
    return st;
}

static enum meed_status pull_adapter(struct round_job *job)
{
    enum meed_status st = MEED_OK;
    const struct meed_worker_config *config = job->worker->config;
    struct meed_buf adapter;
    meed_buf_init(&adapter, MEED_ADAPTER_MAX_FILE_BYTES);
    bool cached = meed_worker_state_has(state_of(job), job->round, MEED_WORKER_ADAPTER);
    if (cached) {
        MEED_TRY_OUT(read_state(job, job->round, MEED_WORKER_ADAPTER, &adapter));
    }
    st = pull_once(job, &adapter);
    for (int again = 0; again < 2 && st == MEED_RPC && adapter.size > 0; again++) {
        st = pull_once(job, &adapter);
    }
    MEED_TRY_OUT(st);
    MEED_TRY_OUT(meed_adapter_unpack("the round's adapter", adapter.data, adapter.size,
                                     &config->checkpoint->config, &job->whole));
    MEED_TRY_OUT(meed_adapter_split(job->whole, job->plan.rank, &job->global, &job->frozen));
    if (!cached) {
        MEED_TRY_OUT(write_state(job, MEED_WORKER_ADAPTER, adapter.data, adapter.size));
    }
out:
    meed_buf_clear(&adapter);
    return st;
}

/* ---- train and compress -----------------------------------------------------------------------
 */

static bool on_step(void *user, const struct meed_train_report *report, int64_t step_count)
{
    struct round_job *job = user;
    struct meed_worker_event event = {
        .kind = MEED_WORKER_STEP,
        .round = job->round,
        .step = report->step + 1,
        .step_count = step_count,
        .loss = report->loss,
        .seconds = report->seconds,
        .tokens_per_second = report->seconds > 0.0 ? (double)report->tokens / report->seconds : 0.0,
    };
    meed_worker_emit(job->worker, event);
    return meed_worker_goes_on(job->worker, job->round);
}

/* What the plan's method makes of the global adapter, in job->trained. */
static enum meed_status train(struct round_job *job, struct meed_isolation_result *result)
{
    const struct meed_worker_config *config = job->worker->config;
    char path[MEED_PATH_BYTES];
    *result = (struct meed_isolation_result){.sample_count = config->dataset->count};
    MEED_TRY(meed_adapter_clone(job->global, &job->trained));
    if (config->behaviour == MEED_WORKER_IDLE) {
        return MEED_OK;
    }
    MEED_TRY(meed_worker_state_path(state_of(job), job->round, MEED_WORKER_TRAIN, path));
    struct meed_local_train_job train =
        meed_worker_train_job(job->worker, &job->plan, job->global, job->frozen);
    if (job->plan.method == MEED_METHOD_FEDPIT) {
        return meed_worker_isolate(job->worker, &train, job->whole, job->trained, result);
    }
    train.correction = job->control.correction;
    train.mean_gradient = job->control.change;
    train.checkpoint_path = path;
    train.on_step = on_step;
    train.user = job;
    MEED_TRY(meed_local_train_run(&train, job->trained, &result->train));
    meed_worker_control_change(&job->control);
    return MEED_OK;
}

enum meed_status meed_worker_read_push(const char *state_folder, int32_t round,
                                       struct meed_msg_push_header *header)
{
    char path[MEED_PATH_BYTES];
    enum meed_status st = MEED_OK;
    struct meed_msg_push_request request;
    struct meed_buf bytes;
    struct meed_arena arena;
    meed_codec_buf_init(&bytes);
    meed_codec_arena_init(&arena);
    MEED_TRY_OUT(meed_worker_state_path(state_folder, round, MEED_WORKER_PUSH, path));
    MEED_TRY_OUT(meed_file_read(path, &bytes));
    MEED_TRY_OUT(meed_codec_unpack_push_request(bytes.data, bytes.size, &arena, &request));
    *header = request.header;
out:
    meed_arena_clear(&arena);
    meed_buf_clear(&bytes);
    return st;
}

/* Error feedback of the last round that was pushed, in this round's coordinates; zeros if there is
 * none, it is too old, or its files cannot be used. */
static enum meed_status load_residual(struct round_job *job)
{
    enum meed_status st = MEED_OK;
    const struct meed_worker_config *config = job->worker->config;
    int64_t count = meed_adapter_value_count(job->global);
    struct meed_adapter *whole = NULL, *old = NULL, *rest = NULL;
    char path[MEED_PATH_BYTES];
    struct meed_msg_push_header pushed;
    struct meed_buf packed;
    meed_buf_init(&packed, MEED_ADAPTER_MAX_FILE_BYTES);
    job->residual = meed_heap_alloc((size_t)count, sizeof(float));
    if (!job->residual) {
        return MEED_NOMEM;
    }
    int32_t last = meed_worker_state_newest(state_of(job), job->round, MEED_WORKER_PUSHED_MARK);
    if (config->behaviour == MEED_WORKER_IDLE || job->plan.share == MEED_SHARE_NOTHING ||
        last < job->round - RESIDUAL_MAX_AGE || last < 0) {
        goto out;
    }
    MEED_TRY_OUT(meed_worker_read_push(state_of(job), last, &pushed));
    if (pushed.share != job->plan.share || pushed.share_mix != job->plan.share_mix) {
        MEED_LOG_WARN("client",
                      "round %d starts without error feedback: round %d shared by "
                      "another rule",
                      job->round, last);
        goto out;
    }
    MEED_TRY_OUT(meed_worker_state_path(state_of(job), last, MEED_WORKER_RESIDUAL, path));
    MEED_TRY_OUT(meed_compress_load(path, count, job->residual));
    MEED_TRY_OUT(read_state(job, last, MEED_WORKER_ADAPTER, &packed));
    MEED_TRY_OUT(meed_adapter_unpack("the last round's adapter", packed.data, packed.size,
                                     &config->checkpoint->config, &whole));
    MEED_TRY_OUT(meed_adapter_split(whole, job->plan.rank, &old, &rest));
    if (!job->plan.keeps_gauge) {
        MEED_TRY_OUT(meed_compress_carry(old, job->global, job->residual));
    }
out:
    meed_adapter_destroy(whole);
    meed_adapter_destroy(old);
    meed_adapter_destroy(rest);
    meed_buf_clear(&packed);
    if (st == MEED_NOT_FOUND || st == MEED_INTEGRITY || st == MEED_FORMAT) {
        MEED_LOG_WARN("client", "round %d starts without error feedback: %s", job->round,
                      meed_last_error());
        memset(job->residual, 0, (size_t)count * sizeof(float));
        st = MEED_OK;
    }
    return st;
}

/* SCAFFOLD: c_k of the last round that was pushed. */
static enum meed_status open_control(struct round_job *job)
{
    char path[MEED_PATH_BYTES] = "";
    int32_t last = meed_worker_state_newest(state_of(job), job->round, MEED_WORKER_PUSHED_MARK);
    if (job->plan.method != MEED_METHOD_SCAFFOLD) {
        return MEED_OK;
    }
    if (last >= 0) {
        MEED_TRY(meed_worker_state_path(state_of(job), last, MEED_WORKER_CONTROL, path));
    }
    return meed_worker_control_open(&job->control, meed_adapter_value_count(job->global), path,
                                    job->round);
}

static enum meed_status save_control(const struct round_job *job)
{
    char path[MEED_PATH_BYTES];
    if (!job->control.change) {
        return MEED_OK;
    }
    MEED_TRY(meed_worker_state_path(state_of(job), job->round, MEED_WORKER_CONTROL, path));
    return meed_worker_control_save(&job->control, path);
}

static void fill_header(const struct round_job *job, struct meed_update_header *header)
{
    *header = (struct meed_update_header){.round = job->round, .seed = job->plan.seed};
    memcpy(header->run_id, job->worker->run_id, sizeof header->run_id);
    memcpy(header->client_id, job->worker->config->id,
           MEED_MIN(strlen(job->worker->config->id), sizeof header->client_id - 1));
    memcpy(header->base_adapter_hash, job->plan.adapter_hash, sizeof header->base_adapter_hash);
}

/* What is declared. Who returns the start unchanged shares nothing, whatever the plan. */
static enum meed_share_rule shared_rule(const struct round_job *job)
{
    bool idle = job->worker->config->behaviour == MEED_WORKER_IDLE;
    return idle ? MEED_SHARE_NOTHING : job->plan.share;
}

/* residual.bin, control.bin, push.bin, update.bin, in this order: the last one commits the round's
 * work. */
static enum meed_status commit(struct round_job *job, const struct meed_isolation_result *result,
                               const struct meed_update_stats *stats, const struct meed_buf *update)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf message;
    meed_codec_buf_init(&message);
    struct meed_msg_push_request request = {.part = MEED_PUSH_HEADER};
    struct meed_msg_push_header *header = &request.header;
    memcpy(header->run_id, job->worker->run_id, sizeof header->run_id);
    memcpy(header->base_adapter_hash, job->plan.adapter_hash, sizeof header->base_adapter_hash);
    meed_sha256(update->data, update->size, header->sha256);
    header->round = job->round;
    header->total_bytes = (int64_t)update->size;
    header->sample_count = result->sample_count;
    header->train_loss = result->train.loss;
    header->token_count = result->train.tokens;
    header->train_seconds = result->train.seconds;
    header->share = shared_rule(job);
    header->share_mix = job->plan.share_mix;
    header->mix_space = job->plan.mix_space;
    header->synthetic_count = result->synthetic_count;
    if (job->epsilon > 0.0) {
        header->dp_clip = job->plan.dp_clip;
        header->dp_noise = job->plan.dp_noise;
        header->dp_delta = job->plan.dp_delta;
        header->dp_epsilon = job->epsilon;
    }
    header->retained_energy =
        stats->energy > 0.0 ? MEED_MIN(stats->retained_energy / stats->energy, 1.0) : 1.0;
    MEED_TRY_OUT(meed_codec_pack_push_request(&request, &message));
    MEED_TRY_OUT(meed_worker_state_path(state_of(job), job->round, MEED_WORKER_RESIDUAL, path));
    MEED_TRY_OUT(meed_compress_save(job->residual, meed_adapter_value_count(job->global), path));
    MEED_TRY_OUT(save_control(job));
    MEED_TRY_OUT(write_state(job, MEED_WORKER_PUSH, message.data, message.size));
    MEED_TRY_OUT(write_state(job, MEED_WORKER_UPDATE, update->data, update->size));
out:
    meed_buf_clear(&message);
    return st;
}

/* Noise, where the plan asks for it and anything is shared; with it, nothing else that tells of the
 * data. */
static enum meed_status privatise(struct round_job *job, struct meed_isolation_result *result)
{
    if (job->plan.dp_clip <= 0.0 || shared_rule(job) == MEED_SHARE_NOTHING) {
        return MEED_OK;
    }
    *result = (struct meed_isolation_result){.synthetic_count = result->synthetic_count};
    return meed_worker_privatise(job->worker, &job->plan, job->global, job->trained, &job->epsilon);
}

/* FedPIT's own model is trained when the run is over and nobody can be asked any more. */
static enum meed_status keep_plan(const struct round_job *job)
{
    struct meed_msg_pull_reply reply = {.part = MEED_PULL_PLAN, .plan = job->plan};
    struct meed_buf bytes;
    if (job->plan.method != MEED_METHOD_FEDPIT) {
        return MEED_OK;
    }
    meed_codec_buf_init(&bytes);
    enum meed_status st = meed_codec_pack_pull_reply(&reply, &bytes);
    st = st == MEED_OK ? write_state(job, MEED_WORKER_PLAN, bytes.data, bytes.size) : st;
    meed_buf_clear(&bytes);
    return st;
}

/* Everything up to update.bin. */
static enum meed_status produce(struct round_job *job)
{
    enum meed_status st = MEED_OK;
    struct meed_isolation_result result;
    struct meed_update_stats stats;
    struct meed_update_header header;
    struct meed_buf update;
    meed_buf_init(&update, (size_t)MEED_LIMIT_TRANSFER_BYTES);
    MEED_TRY_OUT(pull_adapter(job));
    meed_worker_emit(job->worker, (struct meed_worker_event){.kind = MEED_WORKER_ROUND,
                                                             .round = job->round,
                                                             .step_count = job->plan.steps});
    MEED_TRY_OUT(keep_plan(job));
    MEED_TRY_OUT(open_control(job));
    MEED_TRY_OUT(train(job, &result));
    MEED_TRY_OUT(privatise(job, &result));
    const struct meed_worker_config *config = job->worker->config;
    if (config->rewrite) {
        MEED_TRY_OUT(config->rewrite(config->rewrite_user, job->round, job->global, job->trained));
    }
    MEED_TRY_OUT(load_residual(job));
    fill_header(job, &header);
    struct meed_compress_job compress = {
        .header = &header,
        .codec = &job->plan.codec,
        .global = job->global,
        .trained = job->trained,
        .trained_factors = job->plan.trained_factors,
        .control = job->control.change,
        .control_sent = job->control.sent,
    };
    MEED_TRY_OUT(meed_compress_update(&compress, job->residual, &update, &stats));
    MEED_TRY_OUT(commit(job, &result, &stats, &update));
out:
    meed_buf_clear(&update);
    return st;
}

/* ---- push -------------------------------------------------------------------------------------
 */

static enum meed_status query_stored(const struct round_job *job,
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
    memcpy(request.run_id, header->run_id, sizeof request.run_id);
    memcpy(request.sha256, header->sha256, sizeof request.sha256);
    MEED_TRY_OUT(meed_codec_pack_query_push_request(&request, &message));
    MEED_TRY_OUT(meed_worker_remote(
        meed_rpc_client_unary(job->worker->config->rpc, MEED_RPC_QUERY_PUSH, message.data,
                              message.size, MEED_LIMIT_UNARY_MS, &answer)));
    MEED_TRY_OUT(meed_codec_unpack_query_push_reply(answer.data, answer.size, &arena, reply));
out:
    meed_arena_clear(&arena);
    meed_buf_clear(&answer);
    meed_buf_clear(&message);
    return st;
}

/* Header and chunks. A send that fails ends the sending, not the call: its verdict comes from
 * finish. */
static enum meed_status send_all(const struct round_job *job, struct meed_rpc_stream *stream,
                                 const struct meed_msg_push_header *header,
                                 const struct meed_buf *update)
{
    enum meed_status st = MEED_OK;
    struct meed_chunk_sender sender;
    struct meed_buf message;
    meed_codec_buf_init(&message);
    struct meed_msg_push_request request = {.part = MEED_PUSH_HEADER, .header = *header};
    MEED_TRY_OUT(
        meed_chunk_sender_init(&sender, update->data, (int64_t)update->size, header->offset));
    do {
        if (meed_worker_stopping(job->worker)) {
            st = MEED_FAIL(MEED_CANCELLED, "stopped while pushing round %d; a restart goes on",
                           job->round);
            goto out;
        }
        meed_buf_reset(&message);
        MEED_TRY_OUT(meed_codec_pack_push_request(&request, &message));
        if (meed_rpc_stream_send(stream, message.data, message.size) != MEED_OK) {
            goto out;
        }
        request.part = MEED_PUSH_CHUNK;
    } while (meed_chunk_sender_next(&sender, &request.chunk));
    meed_status_discard(meed_rpc_stream_close_send(stream));
out:
    meed_buf_clear(&message);
    return st;
}

static enum meed_status push_once(const struct round_job *job,
                                  const struct meed_msg_push_header *header,
                                  const struct meed_buf *update)
{
    enum meed_status st = MEED_OK;
    struct meed_rpc_stream *stream = NULL;
    struct meed_msg_push_reply reply;
    enum meed_rpc_event event = MEED_RPC_END;
    struct meed_buf answer;
    struct meed_arena arena;
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_stream_open(
        job->worker->config->rpc, MEED_RPC_PUSH, transfer_ms(header->total_bytes), &stream)));
    MEED_TRY_OUT(send_all(job, stream, header, update));
    MEED_TRY_OUT(meed_worker_remote(
        meed_rpc_stream_receive(stream, MEED_LIMIT_PROGRESS_MS, &answer, &event)));
    MEED_TRY_OUT(meed_worker_remote(meed_rpc_stream_finish(stream)));
    if (event != MEED_RPC_MESSAGE) {
        st = MEED_FAIL(MEED_RPC, "the push of round %d was not acknowledged", job->round);
        goto out;
    }
    MEED_TRY_OUT(meed_codec_unpack_push_reply(answer.data, answer.size, &arena, &reply));
    if (reply.stored_bytes != header->total_bytes) {
        st = MEED_FAIL(MEED_RPC, "round %d: the server stored %lld of %lld bytes", job->round,
                       (long long)reply.stored_bytes, (long long)header->total_bytes);
    }
out:
    meed_rpc_stream_destroy(stream);
    meed_arena_clear(&arena);
    meed_buf_clear(&answer);
    return st;
}

static enum meed_status push(struct round_job *job)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_push_header header;
    struct meed_msg_query_push_reply stored;
    uint8_t digest[MEED_SHA256_BYTES];
    struct meed_buf update;
    meed_buf_init(&update, (size_t)MEED_LIMIT_TRANSFER_BYTES);
    MEED_TRY_OUT(meed_worker_read_push(state_of(job), job->round, &header));
    MEED_TRY_OUT(read_state(job, job->round, MEED_WORKER_UPDATE, &update));
    meed_sha256(update.data, update.size, digest);
    if (memcmp(digest, header.sha256, sizeof digest) != 0) {
        st = MEED_FAIL(MEED_INTEGRITY,
                       "the update of round %d on disk is damaged; remove the "
                       "round's folder from the state folder",
                       job->round);
        goto out;
    }
    MEED_TRY_OUT(query_stored(job, &header, &stored));
    if (!stored.complete) {
        header.offset = stored.stored_bytes;
        MEED_TRY_OUT(push_once(job, &header, &update));
    }
    MEED_TRY_OUT(meed_worker_state_mark(state_of(job), job->round, MEED_WORKER_PUSHED_MARK));
    meed_worker_state_clean(state_of(job), job->round);
    meed_worker_emit(job->worker, (struct meed_worker_event){
                                      .kind = MEED_WORKER_PUSHED,
                                      .round = job->round,
                                      .loss = header.train_loss,
                                      .seconds = header.train_seconds,
                                      .bytes = header.total_bytes,
                                      .retained_ratio = header.retained_energy,
                                      .epsilon = header.dp_epsilon,
                                      .delta = header.dp_delta,
                                  });
out:
    meed_buf_clear(&update);
    return st;
}

enum meed_status meed_worker_confirm(struct meed_worker *worker, int32_t before)
{
    const char *folder = worker->config->state_folder;
    int32_t last = meed_worker_state_newest(folder, before, MEED_WORKER_UPDATE);
    struct round_job job = {.worker = worker, .round = last};
    struct meed_msg_push_header header;
    struct meed_msg_query_push_reply stored = {0, false};
    if (last < 0 || meed_worker_state_has(folder, last, MEED_WORKER_PUSHED_MARK)) {
        return MEED_OK;
    }
    MEED_TRY(meed_worker_read_push(folder, last, &header));
    enum meed_status st = query_stored(&job, &header, &stored);
    if (st != MEED_OK && st != MEED_STATE && st != MEED_NOT_FOUND) {
        return st;
    }
    if (stored.complete) {
        MEED_TRY(meed_worker_state_mark(folder, last, MEED_WORKER_PUSHED_MARK));
        meed_worker_state_clean(folder, last);
        worker->receipts_due = true;
    }
    return MEED_OK;
}

enum meed_status meed_worker_round(struct meed_worker *worker, int32_t round)
{
    enum meed_status st = MEED_OK;
    struct round_job job = {.worker = worker, .round = round};
    MEED_TRY(meed_worker_confirm(worker, round));
    if (!meed_worker_state_has(worker->config->state_folder, round, MEED_WORKER_UPDATE)) {
        MEED_TRY_OUT(produce(&job));
    }
    MEED_TRY_OUT(push(&job));
out:
    meed_adapter_destroy(job.global);
    meed_adapter_destroy(job.frozen);
    meed_adapter_destroy(job.whole);
    meed_adapter_destroy(job.trained);
    meed_heap_free(job.residual);
    meed_worker_control_clear(&job.control);
    return st;
}
