/* See simulation_cell.h. */
#include "cli/simulation_cell.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/file.h"
#include "cli/audit_update.h"
#include "client/worker.h"
#include "client/worker_state.h"

enum { DEADLINE_MS = 2000000000 };

/* A member while the cell runs. */
struct actor {
    struct cell *cell;
    struct meed_simulation_member *member;
    int32_t idx;
    struct meed_adapter *pulled; /* in the round before; attackers only */
    struct meed_adapter *sent;   /* in this round; leaders only */
};

struct cell {
    const struct meed_simulation_stage *stage;
    const struct meed_federation_file *file;
    struct meed_simulation_cast *cast;
    const char *state;
    struct meed_simulation_result *result;
    struct meed_aggregator *aggregator;
    struct actor *actors;                                   /* [cast->count] */
    struct meed_adapter *kept[MEED_SIMULATION_LEAK_ROUNDS]; /* published, of result->checkpoints */
    int32_t kept_count;
    pthread_t thread;
    /* Guarded: written by the settling thread. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int32_t open_round; /* clients may take part; round_count + 1 when all are settled */
    bool ended;
    enum meed_status outcome;
    char outcome_text[1024];
};

/* ---- the aggregator's side ------------------------------------------------------------------- */

static void keep_rows(struct cell *cell, const struct meed_aggregator_event *event)
{
    struct meed_simulation_round *round = &cell->result->rounds[event->round - 1];
    round->utility_before = event->utility_before;
    round->utility_after = event->utility_after;
    for (int32_t i = 0; i < event->row_count; i++) {
        const struct meed_aggregator_row *row = &event->rows[i];
        struct meed_simulation_seat *seat = &round->seats[i];
        seat->state = row->seat;
        seat->phi = row->phi;
        seat->se = row->se;
        seat->loss = row->train_loss;
        seat->score = row->score;
        seat->verdict = row->verdict;
        seat->share = row->share;
        seat->bytes_up = row->bytes_up;
        seat->bytes_down = row->bytes_down;
        snprintf(seat->reason, sizeof seat->reason, "%s", row->reason);
        snprintf(seat->remark, sizeof seat->remark, "%s", row->remark);
    }
}

static void on_event(void *user, const struct meed_aggregator_event *event)
{
    struct cell *cell = user;
    pthread_mutex_lock(&cell->mutex);
    if (event->kind == MEED_AGGREGATOR_SETTLED) {
        keep_rows(cell, event);
    } else if (event->kind == MEED_AGGREGATOR_OPENED) {
        cell->open_round = event->round;
    } else if (event->kind == MEED_AGGREGATOR_FINISHED) {
        cell->open_round = cell->file->rounds + 1;
    }
    pthread_cond_broadcast(&cell->changed);
    pthread_mutex_unlock(&cell->mutex);
}

static void *settle(void *user)
{
    struct cell *cell = user;
    enum meed_status st = meed_aggregator_run(cell->aggregator, 0);
    pthread_mutex_lock(&cell->mutex);
    cell->outcome = st;
    cell->ended = true;
    if (st != MEED_OK) {
        snprintf(cell->outcome_text, sizeof cell->outcome_text, "%s", meed_last_error());
    }
    pthread_cond_broadcast(&cell->changed);
    pthread_mutex_unlock(&cell->mutex);
    return NULL;
}

/* Until `round` is open, or what came before it is settled. */
static enum meed_status await_round(struct cell *cell, int32_t round)
{
    pthread_mutex_lock(&cell->mutex);
    while (cell->open_round < round && !cell->ended &&
           !meed_simulation_stage_stopping(cell->stage)) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&cell->changed, &cell->mutex, &until);
    }
    bool there = cell->open_round >= round;
    enum meed_status st = cell->outcome;
    pthread_mutex_unlock(&cell->mutex);
    if (there) {
        return MEED_OK;
    }
    if (meed_simulation_stage_stopping(cell->stage)) {
        return MEED_FAIL(MEED_CANCELLED, "stopped; the same command goes on with this cell");
    }
    return MEED_FAIL(st == MEED_OK ? MEED_BUG : st, "%s",
                     st == MEED_OK ? "the run ended before its last round" : cell->outcome_text);
}

static enum meed_status start_aggregator(struct cell *cell)
{
    const struct meed_simulation_stage *stage = cell->stage;
    struct meed_aggregator_config config;
    char folder[MEED_PATH_BYTES];
    size_t count = (size_t)cell->cast->count;
    snprintf(folder, sizeof folder, "%s/aggregator", cell->state);
    const char **ids = meed_heap_alloc(count, sizeof *ids);
    if (!ids) {
        return MEED_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = cell->cast->members[i].id;
    }
    meed_federation_file_config(cell->file, &config);
    config.state = folder;
    config.clients = ids;
    config.client_count = cell->cast->count;
    config.quorum = 0;
    config.deadline_ms = DEADLINE_MS;
    config.insecure = true;
    config.in_process = true;
    config.lent_pool = stage->threads;
    config.lent_be = stage->be;
    config.lent_checkpoint = stage->checkpoint;
    config.lent_benchmark = stage->benchmark;
    config.observer = on_event;
    config.observer_user = cell;
    enum meed_status st = meed_aggregator_create(&config, &cell->aggregator);
    meed_heap_free(ids);
    if (st == MEED_OK && pthread_create(&cell->thread, NULL, settle, cell) != 0) {
        meed_aggregator_destroy(cell->aggregator);
        cell->aggregator = NULL;
        st = MEED_FAIL(MEED_NOMEM, "no thread for the aggregator");
    }
    return st;
}

static void stop_aggregator(struct cell *cell)
{
    if (cell->aggregator) {
        meed_aggregator_request_stop(cell->aggregator);
        pthread_join(cell->thread, NULL);
        meed_aggregator_destroy(cell->aggregator);
        cell->aggregator = NULL;
    }
}

/* ---- the clients' side ----------------------------------------------------------------------- */

static unsigned stages_of(const struct actor *actor)
{
    return meed_attack_infos[actor->member->role.attack].stages;
}

static enum meed_status rewrite(void *user, int32_t round, const struct meed_adapter *global,
                                struct meed_adapter *trained)
{
    struct actor *actor = user, *leader = &actor->cell->actors[actor->member->leader];
    struct meed_attack_view view = {.round = round,
                                    .global = global,
                                    .previous = actor->pulled,
                                    .leader = leader == actor ? NULL : leader->sent,
                                    .clip_multiple = actor->cell->file->clip_multiple};
    MEED_TRY(meed_attack_update(&actor->member->role, &view, trained));
    meed_adapter_destroy(actor->pulled);
    actor->pulled = NULL;
    MEED_TRY(meed_adapter_clone(global, &actor->pulled));
    if (leader == actor && (stages_of(actor) & MEED_ATTACK_LED)) {
        meed_adapter_destroy(actor->sent);
        actor->sent = NULL;
        MEED_TRY(meed_adapter_clone(trained, &actor->sent));
    }
    return MEED_OK;
}

static void keep_receipt(struct actor *actor, const struct meed_msg_receipt *receipt)
{
    struct meed_simulation_seat *seat =
        &actor->cell->result->rounds[receipt->round - 1].seats[actor->idx];
    seat->valued = receipt->axis_count > 0 && receipt->axis_count <= MEED_BENCHMARK_MAX_AXES;
    for (size_t i = 0; seat->valued && i < receipt->axis_count; i++) {
        seat->axis_phi[i] = receipt->axes[i].phi;
        seat->axis_se[i] = receipt->axes[i].standard_error;
    }
}

static void on_worker(void *user, const struct meed_worker_event *event)
{
    if (event->kind == MEED_WORKER_RECEIPT) {
        keep_receipt(user, event->receipt);
    }
}

/* FedPIT's clients train a model for themselves when the run is over. */
static bool keeps_own(const struct cell *cell)
{
    return cell->file->plan.method == MEED_METHOD_FEDPIT;
}

/* round 0: what is left when the run is over. */
static enum meed_status play(struct actor *actor, int32_t round)
{
    const struct meed_simulation_stage *stage = actor->cell->stage;
    struct meed_rpc_client *rpc = NULL;
    char folder[MEED_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/%s", actor->cell->state, actor->member->id);
    MEED_TRY(meed_rpc_loop_client_open(meed_aggregator_transport(actor->cell->aggregator),
                                       actor->member->id, true, &rpc));
    unsigned stages = stages_of(actor);
    bool follows = (stages & MEED_ATTACK_LED) && actor->member->leader != actor->idx;
    bool idle = (stages & MEED_ATTACK_UNTRAINED) || follows;
    struct meed_worker_config config = {
        .rpc = rpc,
        .id = actor->member->id,
        .state_folder = folder,
        .be = stage->be,
        .checkpoint = stage->checkpoint,
        .dataset = actor->member->dataset,
        .dialogues = actor->member->dialogues,
        .dialogue_count = actor->member->dialogue_count,
        .truncate = true,
        .dtype = stage->dtype,
        .behaviour = idle ? MEED_WORKER_IDLE : MEED_WORKER_HONEST,
        .stop = stage->stop,
        .on_event = on_worker,
        .user = actor,
        .rewrite = (stages & MEED_ATTACK_ON_UPDATE) ? rewrite : NULL,
        .rewrite_user = actor,
        .own_at_end = keeps_own(actor->cell),
    };
    enum meed_status st = meed_worker_visit(&config, round);
    meed_rpc_client_close(rpc);
    return st;
}

/* Axis values of what the round published, and the adapter itself where it will be attacked. */
static enum meed_status score_round(struct cell *cell, int32_t round)
{
    const struct meed_simulation_stage *stage = cell->stage;
    struct meed_simulation_result *result = cell->result;
    struct meed_simulation_round *into = &result->rounds[round - 1];
    struct meed_adapter *adapter = NULL;
    double utility = 0.0;
    char folder[MEED_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/aggregator/adapter", cell->state);
    MEED_TRY(meed_adapter_load(folder, &stage->checkpoint->config, &adapter));
    enum meed_status st = meed_simulation_stage_score(stage, adapter, cell->file->seed, &utility,
                                                      into->axis_value, into->axis_se);
    if (cell->kept_count < result->checkpoint_count &&
        result->checkpoints[cell->kept_count] == round) {
        cell->kept[cell->kept_count++] = adapter;
    } else {
        meed_adapter_destroy(adapter);
    }
    return st;
}

static enum meed_status play_round(struct cell *cell, int32_t round)
{
    int32_t count = cell->cast->count;
    int64_t start_ns = meed_clock_monotonic_ns(), visits = (int64_t)cell->file->rounds * count;
    struct meed_simulation_round *into = &cell->result->rounds[round - 1];
    for (int32_t i = 0; i < count; i++) {
        meed_simulation_stage_report(cell->stage, (int64_t)(round - 1) * count + i, visits,
                                     "training");
        MEED_TRY(play(&cell->actors[i], round));
    }
    into->training_seconds = meed_clock_seconds_since(start_ns);
    meed_simulation_stage_report(cell->stage, (int64_t)round * count, visits, "valuing");
    MEED_TRY(await_round(cell, round + 1));
    into->seconds = meed_clock_seconds_since(start_ns);
    return score_round(cell, round);
}

static enum meed_status play_all(struct cell *cell)
{
    MEED_TRY(await_round(cell, 1));
    for (int32_t round = 1; round <= cell->file->rounds; round++) {
        MEED_TRY(play_round(cell, round));
    }
    for (int32_t i = 0; i < cell->cast->count; i++) {
        MEED_TRY(play(&cell->actors[i], 0));
    }
    return MEED_OK;
}

/* ---- leakage --------------------------------------------------------------------------------- */

/* A client's update of the last round, as whoever receives it can decode it. */
static enum meed_status load_update(const struct cell *cell, int32_t client,
                                    struct meed_adapter **adapter)
{
    char folder[MEED_PATH_BYTES], path[MEED_PATH_BYTES];
    struct meed_adapter *global = NULL;
    struct meed_update_header header;
    int32_t round = cell->file->rounds;
    snprintf(folder, sizeof folder, "%s/%s", cell->state, cell->cast->members[client].id);
    MEED_TRY(meed_worker_state_path(folder, round, MEED_WORKER_ADAPTER, path));
    MEED_TRY(meed_audit_global_load(path, &cell->stage->checkpoint->config, &global));
    enum meed_status st = meed_worker_state_path(folder, round, MEED_WORKER_UPDATE, path);
    if (st == MEED_OK) {
        st = meed_audit_update_load(path, global, &header, adapter);
    }
    meed_adapter_destroy(global);
    return st;
}

static enum meed_status load_own(const struct cell *cell, int32_t client,
                                 struct meed_adapter **adapter)
{
    char folder[MEED_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/%s/private", cell->state, cell->cast->members[client].id);
    return meed_adapter_load(folder, &cell->stage->checkpoint->config, adapter);
}

/* Those who train: an attacker's update is no client's leak. */
static bool is_honest(const struct cell *cell, int32_t client)
{
    return cell->cast->members[client].role.attack == MEED_ATTACK_NONE;
}

static enum meed_status leak_of_clients(struct cell *cell,
                                        const struct meed_simulation_leakage_job *job,
                                        enum meed_simulation_leak_kind kind)
{
    struct meed_simulation_leak *leak = &cell->result->leaks[cell->result->leak_count++];
    *leak = (struct meed_simulation_leak){.kind = kind, .round = cell->file->rounds};
    for (int32_t i = 0; i < cell->cast->count; i++) {
        struct meed_adapter *adapter = NULL;
        if (is_honest(cell, i)) {
            MEED_TRY(kind == MEED_SIMULATION_LEAK_OWN ? load_own(cell, i, &adapter)
                                                      : load_update(cell, i, &adapter));
            enum meed_status st = meed_simulation_leakage_client(job, i, adapter, leak);
            meed_adapter_destroy(adapter);
            MEED_TRY(st);
        }
    }
    return MEED_OK;
}

/* Mean utility of the models at home. */
static enum meed_status score_own(struct cell *cell)
{
    double sum = 0.0;
    int32_t count = 0;
    for (int32_t i = 0; i < cell->cast->count; i++) {
        struct meed_adapter *adapter = NULL;
        double utility = 0.0;
        if (is_honest(cell, i)) {
            MEED_TRY(load_own(cell, i, &adapter));
            enum meed_status st = meed_simulation_stage_score(
                cell->stage, adapter, cell->file->seed, &utility, NULL, NULL);
            meed_adapter_destroy(adapter);
            MEED_TRY(st);
            sum += utility;
            count++;
        }
    }
    cell->result->utility_own = count > 0 ? sum / count : NAN;
    return MEED_OK;
}

static enum meed_status attack_models(struct cell *cell)
{
    const struct meed_simulation_stage *stage = cell->stage;
    struct meed_simulation_result *result = cell->result;
    const struct meed_simulation_leakage_job job =
        meed_simulation_stage_leakage(stage, cell->file, cell->cast);
    int64_t visits = (int64_t)cell->file->rounds * cell->cast->count;
    bool own = keeps_own(cell);
    if (own) {
        MEED_TRY(score_own(cell));
    }
    if (job.plan->examples == 0) {
        return MEED_OK;
    }
    meed_simulation_stage_report(stage, visits, visits, "extracting");
    MEED_TRY(meed_simulation_leakage_globals(&job, cell->kept, result->checkpoints,
                                             result->checkpoint_count, result->leaks));
    result->leak_count = result->checkpoint_count;
    MEED_TRY(leak_of_clients(cell, &job, MEED_SIMULATION_LEAK_UPDATE));
    return own ? leak_of_clients(cell, &job, MEED_SIMULATION_LEAK_OWN) : MEED_OK;
}

static void clear_all(struct cell *cell)
{
    for (int32_t i = 0; cell->actors && i < cell->cast->count; i++) {
        meed_adapter_destroy(cell->actors[i].pulled);
        meed_adapter_destroy(cell->actors[i].sent);
    }
    for (int32_t i = 0; i < cell->kept_count; i++) {
        meed_adapter_destroy(cell->kept[i]);
    }
    meed_heap_free(cell->actors);
}

enum meed_status meed_simulation_cell_run(const struct meed_simulation_stage *stage,
                                          const struct meed_federation_file *file,
                                          struct meed_simulation_cast *cast, const char *state,
                                          struct meed_simulation_result *result)
{
    enum meed_status st = MEED_OK;
    int64_t start_ns = meed_clock_monotonic_ns();
    struct cell cell = {
        .stage = stage, .file = file, .cast = cast, .state = state, .result = result};
    pthread_mutex_init(&cell.mutex, NULL);
    pthread_cond_init(&cell.changed, NULL);
    cell.actors = meed_heap_alloc((size_t)cast->count, sizeof *cell.actors);
    if (!cell.actors) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t i = 0; i < cast->count; i++) {
        cell.actors[i] = (struct actor){.cell = &cell, .member = &cast->members[i], .idx = i};
    }
    MEED_TRY_OUT(start_aggregator(&cell));
    MEED_TRY_OUT(play_all(&cell));
    MEED_TRY_OUT(attack_models(&cell));
    result->seconds = meed_clock_seconds_since(start_ns);
out:
    stop_aggregator(&cell);
    clear_all(&cell);
    pthread_cond_destroy(&cell.changed);
    pthread_mutex_destroy(&cell.mutex);
    return st;
}
