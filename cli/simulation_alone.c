/* See simulation_alone.h. */
#include "cli/simulation_alone.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "cli/simulation_leakage.h"
#include "cli/training_setting.h"
#include "client/local_train.h"
#include "server/terms.h"

/* One who trains alone. */
struct loner {
    char id[MEED_LIMIT_ID_BYTES];
    struct meed_dataset *dataset; /* a member's, or all members' sequences in one */
    struct meed_adapter *adapter;
};

struct alone {
    const struct meed_simulation_stage *stage;
    const struct meed_federation_file *file;
    struct meed_simulation_cast *cast;
    const char *state;
    struct meed_simulation_result *result;
    struct meed_msg_plan plan;
    struct meed_dataset everything; /* centralised; sequences are the members' */
    struct loner *loners;
    int32_t count;
    struct meed_adapter *kept[MEED_SIMULATION_LEAK_ROUNDS]; /* centralised, of rounds */
};

/* ---- who trains ------------------------------------------------------------------------------ */

static enum meed_status gather(struct alone *alone)
{
    const struct meed_simulation_cast *cast = alone->cast;
    struct meed_dataset *all = &alone->everything;
    size_t most = 0;
    for (int32_t i = 0; i < cast->count; i++) {
        most += (size_t)cast->members[i].dataset->count;
    }
    all->sequences = meed_heap_alloc(most, sizeof *all->sequences);
    all->lines = meed_heap_alloc(most, sizeof *all->lines);
    if (!all->sequences || !all->lines) {
        return MEED_NOMEM;
    }
    snprintf(all->path, sizeof all->path, "everybody");
    for (int32_t i = 0; i < cast->count; i++) {
        const struct meed_dataset *part = cast->members[i].dataset;
        for (int64_t s = 0; s < part->count; s++, all->count++) {
            all->sequences[all->count] = part->sequences[s];
            all->lines[all->count] = (int32_t)all->count + 1;
        }
        all->token_count += part->token_count;
        all->longest = MEED_MAX(all->longest, part->longest);
    }
    return MEED_OK;
}

static enum meed_status open_loner(struct alone *alone, struct loner *loner)
{
    const struct meed_lora_config lora = meed_terms_lora(&alone->plan);
    MEED_TRY(meed_adapter_create(&alone->stage->checkpoint->config, &lora, &loner->adapter));
    meed_adapter_init(loner->adapter, alone->file->seed);
    return MEED_OK;
}

static enum meed_status open_all(struct alone *alone)
{
    bool central = alone->file->simulation.scheme == MEED_SIMULATION_CENTRALISED;
    alone->plan = alone->file->plan;
    meed_training_setting_method(&alone->plan, MEED_METHOD_FEDIT);
    alone->plan.trained_factors = MEED_FACTOR_A | MEED_FACTOR_B;
    alone->count = central ? 1 : alone->cast->count;
    alone->plan.steps *= central ? alone->cast->count : 1;
    alone->loners = meed_heap_alloc((size_t)alone->count, sizeof *alone->loners);
    if (!alone->loners) {
        return MEED_NOMEM;
    }
    if (central) {
        MEED_TRY(gather(alone));
    }
    for (int32_t i = 0; i < alone->count; i++) {
        const struct meed_simulation_member *member = &alone->cast->members[i];
        struct loner *loner = &alone->loners[i];
        snprintf(loner->id, sizeof loner->id, "%s", central ? "everybody" : member->id);
        loner->dataset = central ? &alone->everything : member->dataset;
        MEED_TRY(open_loner(alone, loner));
    }
    return MEED_OK;
}

static void close_all(struct alone *alone)
{
    for (int32_t i = 0; alone->loners && i < alone->count; i++) {
        meed_adapter_destroy(alone->loners[i].adapter);
    }
    for (int32_t i = 0; i < MEED_SIMULATION_LEAK_ROUNDS; i++) {
        meed_adapter_destroy(alone->kept[i]);
    }
    meed_heap_free(alone->loners);
    meed_heap_free(alone->everything.sequences);
    meed_heap_free(alone->everything.lines);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static bool on_step(void *user, const struct meed_train_report *report, int64_t step_count)
{
    (void)report;
    (void)step_count;
    return !meed_simulation_stage_stopping(user);
}

static enum meed_status train(struct alone *alone, struct loner *loner, int32_t round)
{
    char path[MEED_PATH_BYTES];
    struct meed_adapter *trained = NULL;
    struct meed_local_train_result result;
    snprintf(path, sizeof path, "%s/%s.ckpt", alone->state, loner->id);
    alone->plan.round = round;
    alone->plan.seed = alone->file->seed;
    MEED_TRY(meed_adapter_clone(loner->adapter, &trained));
    struct meed_local_train_job job = {.be = alone->stage->be,
                                       .checkpoint = alone->stage->checkpoint,
                                       .dataset = loner->dataset,
                                       .truncate = true,
                                       .plan = &alone->plan,
                                       .client_id = loner->id,
                                       .start = loner->adapter,
                                       .dtype = alone->stage->dtype,
                                       .checkpoint_path = path,
                                       .on_step = on_step,
                                       .user = (void *)(uintptr_t)alone->stage};
    enum meed_status st = meed_local_train_run(&job, trained, &result);
    struct meed_adapter *old = st == MEED_OK ? loner->adapter : trained;
    loner->adapter = st == MEED_OK ? trained : loner->adapter;
    meed_adapter_destroy(old);
    return st;
}

/* Means over the loners. */
static enum meed_status score_round(struct alone *alone, struct meed_simulation_round *into)
{
    double values[MEED_BENCHMARK_MAX_AXES], ses[MEED_BENCHMARK_MAX_AXES];
    for (int32_t i = 0; i < alone->count; i++) {
        double utility = 0.0;
        MEED_TRY(meed_simulation_stage_score(alone->stage, alone->loners[i].adapter,
                                             alone->file->seed, &utility, values, ses));
        into->utility_after += utility / alone->count;
        for (int32_t a = 0; a < alone->stage->benchmark->axis_count; a++) {
            into->axis_value[a] += values[a] / alone->count;
            into->axis_se[a] = hypot(into->axis_se[a], ses[a] / alone->count);
        }
    }
    return MEED_OK;
}

static void sit_out(const struct alone *alone, struct meed_simulation_round *round)
{
    for (int32_t i = 0; i < alone->cast->count; i++) {
        round->seats[i] = (struct meed_simulation_seat){.state = MEED_SEAT_ABSENT,
                                                        .phi = NAN,
                                                        .se = NAN,
                                                        .loss = NAN,
                                                        .score = NAN,
                                                        .verdict = NAN};
    }
}

static enum meed_status play_round(struct alone *alone, int32_t round)
{
    struct meed_simulation_round *into = &alone->result->rounds[round - 1];
    int64_t start_ns = meed_clock_monotonic_ns();
    int32_t rounds = alone->file->rounds;
    for (int32_t i = 0; i < alone->count; i++) {
        meed_simulation_stage_report(alone->stage, (int64_t)(round - 1) * alone->count + i,
                                     (int64_t)rounds * alone->count, "training");
        MEED_TRY(train(alone, &alone->loners[i], round));
    }
    into->training_seconds = meed_clock_seconds_since(start_ns);
    sit_out(alone, into);
    MEED_TRY(score_round(alone, into));
    if (round < rounds) {
        into[1].utility_before = into->utility_after;
    }
    into->seconds = meed_clock_seconds_since(start_ns);
    return MEED_OK;
}

/* ---- leakage --------------------------------------------------------------------------------- */

static enum meed_status leak(struct alone *alone)
{
    struct meed_simulation_result *result = alone->result;
    const struct meed_simulation_leakage_job job =
        meed_simulation_stage_leakage(alone->stage, alone->file, alone->cast);
    bool central = alone->file->simulation.scheme == MEED_SIMULATION_CENTRALISED;
    if (job.plan->examples == 0) {
        return MEED_OK;
    }
    if (central) {
        result->leak_count = result->checkpoint_count;
        return meed_simulation_leakage_globals(&job, alone->kept, result->checkpoints,
                                               result->checkpoint_count, result->leaks);
    }
    result->leaks[0] = (struct meed_simulation_leak){.kind = MEED_SIMULATION_LEAK_OWN,
                                                     .round = alone->file->rounds};
    result->leak_count = 1;
    for (int32_t i = 0; i < alone->count; i++) {
        MEED_TRY(meed_simulation_leakage_client(&job, i, alone->loners[i].adapter, result->leaks));
    }
    return MEED_OK;
}

enum meed_status meed_simulation_alone_run(const struct meed_simulation_stage *stage,
                                           const struct meed_federation_file *file,
                                           struct meed_simulation_cast *cast, const char *state,
                                           struct meed_simulation_result *result)
{
    enum meed_status st = MEED_OK;
    int64_t start_ns = meed_clock_monotonic_ns();
    int32_t kept = 0;
    struct alone alone = {
        .stage = stage, .file = file, .cast = cast, .state = state, .result = result};
    MEED_TRY_OUT(open_all(&alone));
    MEED_TRY_OUT(meed_simulation_stage_score(stage, NULL, file->seed,
                                             &result->rounds[0].utility_before, NULL, NULL));
    for (int32_t round = 1; round <= file->rounds; round++) {
        MEED_TRY_OUT(play_round(&alone, round));
        if (alone.everything.count > 0 && kept < result->checkpoint_count &&
            result->checkpoints[kept] == round) {
            MEED_TRY_OUT(meed_adapter_clone(alone.loners[0].adapter, &alone.kept[kept]));
            kept++;
        }
    }
    MEED_TRY_OUT(leak(&alone));
    result->seconds = meed_clock_seconds_since(start_ns);
out:
    close_all(&alone);
    return st;
}
