/* FedPIT in the worker: isolation.h's job from the worker's parts, its progress as events, and the
 * client's own model at the end of the run.
 *
 * STATE/over is written before the own model is begun, so that a worker killed while it trains can
 * go on without an aggregator, which need not be there any more. */
#include <string.h>
#include "base/log.h"
#include "client/worker_internal.h"
#include "client/worker_state.h"
#include "engine/adapter_split.h"

#define OVER_FILE "over"
#define OWN_FOLDER "private"

struct listener {
    struct meed_worker *worker;
    int32_t round;
    bool bound; /* to the round being open */
};

static bool on_progress(void *user, const struct meed_isolation_progress *progress)
{
    struct listener *listener = user;
    bool begins = progress->done == 0;
    meed_worker_emit(listener->worker, (struct meed_worker_event){
                                           .kind = begins ? MEED_WORKER_PHASE : MEED_WORKER_STEP,
                                           .round = listener->round,
                                           .step = progress->done,
                                           .step_count = progress->total,
                                           .loss = progress->loss,
                                           .tokens_per_second = progress->tokens_per_second,
                                           .text = begins ? progress->phase : NULL});
    return listener->bound ? meed_worker_goes_on(listener->worker, listener->round)
                           : !meed_worker_stopping(listener->worker);
}

struct meed_local_train_job meed_worker_train_job(const struct meed_worker *worker,
                                                  const struct meed_msg_plan *plan,
                                                  const struct meed_adapter *global,
                                                  const struct meed_adapter *frozen)
{
    const struct meed_worker_config *config = worker->config;
    return (struct meed_local_train_job){
        .be = config->be,
        .checkpoint = config->checkpoint,
        .dataset = config->dataset,
        .truncate = config->truncate,
        .plan = plan,
        .client_id = config->id,
        .start = global,
        .frozen = frozen,
        .dtype = config->dtype,
        .base = config->base,
        .checkpoint_every = config->checkpoint_every,
    };
}

/* folder: the round's, MEED_PATH_BYTES. */
static enum meed_status isolation_job(struct listener *listener,
                                      const struct meed_local_train_job *train,
                                      const struct meed_adapter *whole, char *folder,
                                      struct meed_isolation_job *job)
{
    const struct meed_worker_config *config = listener->worker->config;
    MEED_TRY(meed_worker_state_path(config->state_folder, listener->round, "", folder));
    *job = (struct meed_isolation_job){.train = *train,
                                       .whole = whole,
                                       .folder = folder,
                                       .dialogues = config->dialogues,
                                       .dialogue_count = config->dialogue_count,
                                       .on_progress = on_progress,
                                       .user = listener};
    return MEED_OK;
}

enum meed_status meed_worker_isolate(struct meed_worker *worker,
                                     const struct meed_local_train_job *train,
                                     const struct meed_adapter *whole, struct meed_adapter *trained,
                                     struct meed_isolation_result *result)
{
    char folder[MEED_PATH_BYTES];
    struct listener listener = {worker, train->plan->round, true};
    struct meed_isolation_job job;
    MEED_TRY(isolation_job(&listener, train, whole, folder, &job));
    return meed_isolation_run(&job, trained, result);
}

/* ---- the own model ----------------------------------------------------------------------------
 */

static bool own_exists(const char *state_folder)
{
    char folder[MEED_PATH_BYTES], path[MEED_PATH_BYTES];
    return meed_file_join(state_folder, OWN_FOLDER, folder, sizeof folder) == MEED_OK &&
           meed_file_join(folder, "adapter_config.json", path, sizeof path) == MEED_OK &&
           meed_file_exists(path);
}

bool meed_worker_own_due(const char *state_folder)
{
    char path[MEED_PATH_BYTES];
    return meed_file_join(state_folder, OVER_FILE, path, sizeof path) == MEED_OK &&
           meed_file_exists(path) && !own_exists(state_folder);
}

static enum meed_status read_bytes(const char *state_folder, int32_t round, const char *name,
                                   struct meed_buf *bytes)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_worker_state_path(state_folder, round, name, path));
    return meed_file_read(path, bytes);
}

static enum meed_status read_plan(const char *state_folder, int32_t round,
                                  struct meed_msg_plan *plan)
{
    enum meed_status st = MEED_OK;
    struct meed_msg_pull_reply reply;
    struct meed_buf bytes;
    struct meed_arena arena;
    meed_codec_buf_init(&bytes);
    meed_codec_arena_init(&arena);
    MEED_TRY_OUT(read_bytes(state_folder, round, MEED_WORKER_PLAN, &bytes));
    MEED_TRY_OUT(meed_codec_unpack_pull_reply(bytes.data, bytes.size, &arena, &reply));
    *plan = reply.plan;
out:
    meed_arena_clear(&arena);
    meed_buf_clear(&bytes);
    return st;
}

/* Trains it and saves it as a PEFT folder, the configuration last. */
static enum meed_status make_own(struct meed_worker *worker, int32_t round, const char *folder)
{
    const struct meed_worker_config *config = worker->config;
    enum meed_status st = MEED_OK;
    struct listener listener = {worker, round, false};
    struct meed_adapter *whole = NULL, *global = NULL, *frozen = NULL, *own = NULL;
    struct meed_msg_plan plan;
    struct meed_isolation_job job;
    char round_folder[MEED_PATH_BYTES];
    struct meed_buf packed;
    meed_buf_init(&packed, MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(read_plan(config->state_folder, round, &plan));
    MEED_TRY_OUT(read_bytes(config->state_folder, round, MEED_WORKER_ADAPTER, &packed));
    MEED_TRY_OUT(meed_adapter_unpack("the last round's adapter", packed.data, packed.size,
                                     &config->checkpoint->config, &whole));
    MEED_TRY_OUT(meed_adapter_split(whole, plan.rank, &global, &frozen));
    struct meed_local_train_job train = meed_worker_train_job(worker, &plan, global, frozen);
    MEED_TRY_OUT(isolation_job(&listener, &train, whole, round_folder, &job));
    MEED_TRY_OUT(meed_isolation_own(&job, &own));
    MEED_TRY_OUT(meed_adapter_save(own, config->checkpoint->folder, folder));
out:
    meed_adapter_destroy(whole);
    meed_adapter_destroy(global);
    meed_adapter_destroy(frozen);
    meed_adapter_destroy(own);
    meed_buf_clear(&packed);
    return st;
}

enum meed_status meed_worker_own(struct meed_worker *worker)
{
    const struct meed_worker_config *config = worker->config;
    char folder[MEED_PATH_BYTES], over[MEED_PATH_BYTES];
    int32_t round = meed_worker_state_newest(config->state_folder, INT32_MAX, MEED_WORKER_PLAN);
    bool whole =
        round >= 0 && meed_worker_state_has(config->state_folder, round, MEED_WORKER_ADAPTER);
    if (!whole || config->behaviour == MEED_WORKER_IDLE || own_exists(config->state_folder)) {
        return MEED_OK;
    }
    MEED_TRY(meed_file_join(config->state_folder, OVER_FILE, over, sizeof over));
    MEED_TRY(meed_file_join(config->state_folder, OWN_FOLDER, folder, sizeof folder));
    MEED_TRY(meed_file_write_atomic(over, "", 0));
    MEED_TRY(make_own(worker, round, folder));
    MEED_LOG_INFO("client", "own model saved (folder=%.512s)", folder);
    meed_worker_emit(worker, (struct meed_worker_event){
                                 .kind = MEED_WORKER_OWN, .round = round, .text = folder});
    return MEED_OK;
}
