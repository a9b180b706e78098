/* See local_train.h. */
#include "client/local_train.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "proto/sharing.h"

static enum meed_status check_plan(const struct meed_msg_plan *plan)
{
    MEED_TRY(meed_sharing_check(plan));
    if ((plan->trained_factors & (MEED_FACTOR_A | MEED_FACTOR_B)) == 0) {
        return MEED_FAIL(MEED_FORMAT, "round %d trains neither A nor B", plan->round);
    }
    return MEED_OK;
}

enum meed_status meed_local_train_options(const struct meed_msg_plan *plan, const char *client_id,
                                          enum meed_dtype dtype, struct meed_train_options *options)
{
    MEED_TRY(check_plan(plan));
    *options = (struct meed_train_options){
        .steps = plan->steps,
        .batch_tokens = plan->batch_tokens,
        .accumulation = plan->accumulation,
        .lr = (float)plan->lr,
        .lr_min_ratio = plan->lr > 0.0 ? (float)(plan->lr_min / plan->lr) : 1.0f,
        .warmup_steps = plan->warmup_steps,
        .beta1 = (float)plan->beta1,
        .beta2 = (float)plan->beta2,
        .epsilon = (float)plan->epsilon,
        .weight_decay = (float)plan->weight_decay,
        .clip_norm = (float)plan->clip_norm,
        .prox_mu = (float)plan->prox_mu,
        .dropout = (float)plan->dropout,
        .freeze_a = (plan->trained_factors & MEED_FACTOR_A) == 0,
        .freeze_b = (plan->trained_factors & MEED_FACTOR_B) == 0,
        .seed = meed_rng_stream(plan->seed, client_id, (uint64_t)plan->round).key,
        .dtype = dtype,
    };
    return MEED_OK;
}

/* Tokens of the longest sequence: the plan's limit, what fits into a batch, what the model knows.
 */
static int32_t max_tokens(const struct meed_local_train_job *job)
{
    int32_t most = MEED_MIN(job->plan->batch_tokens + 1, job->checkpoint->config.max_positions);
    if (job->plan->sequence_tokens > 0) {
        most = MEED_MIN(most, job->plan->sequence_tokens);
    }
    return most;
}

/* Continues where a checkpoint stands; one that cannot be used is no reason to lose the round. */
static void try_resume(const struct meed_local_train_job *job, struct meed_trainer *trainer)
{
    if (!meed_file_exists(job->checkpoint_path)) {
        return;
    }
    if (meed_trainer_resume(trainer, job->checkpoint_path) != MEED_OK) {
        MEED_LOG_WARN("client", "round %d begins again: %s", job->plan->round, meed_last_error());
        return;
    }
    MEED_LOG_INFO("client", "round %d continues (steps_done=%lld steps=%d)", job->plan->round,
                  (long long)meed_trainer_steps_done(trainer), job->plan->steps);
}

static enum meed_status run_steps(const struct meed_local_train_job *job,
                                  struct meed_trainer *trainer,
                                  struct meed_local_train_result *result)
{
    int64_t steps = job->plan->steps, averaged = 0;
    double loss = 0.0;
    while (meed_trainer_steps_done(trainer) < steps) {
        struct meed_train_report report;
        MEED_TRY(meed_trainer_step(trainer, &report));
        int64_t done = report.step + 1;
        result->tokens += report.tokens;
        result->seconds += report.seconds;
        if (done > steps - MEED_MAX(steps / 4, 1)) {
            loss += report.loss;
            result->loss = loss / (double)++averaged;
        }
        if (job->on_step && !job->on_step(job->user, &report, steps)) {
            MEED_TRY(meed_trainer_save(trainer, job->checkpoint_path));
            return MEED_FAIL(MEED_CANCELLED, "training of round %d stopped after step %lld of %lld",
                             job->plan->round, (long long)done, (long long)steps);
        }
        if (job->checkpoint_every > 0 && done % job->checkpoint_every == 0 && done < steps) {
            MEED_TRY(meed_trainer_save(trainer, job->checkpoint_path));
        }
    }
    return MEED_OK;
}

enum meed_status meed_local_train_run(const struct meed_local_train_job *job,
                                      struct meed_adapter *trained,
                                      struct meed_local_train_result *result)
{
    enum meed_status st = MEED_OK;
    struct meed_train_options options;
    struct meed_sequence *sequences = NULL;
    struct meed_trainer *trainer = NULL;
    int64_t count = 0;
    *result = (struct meed_local_train_result){.loss = 0.0};
    MEED_TRY_OUT(meed_local_train_options(job->plan, job->client_id, job->dtype, &options));
    options.base = job->base;
    options.frozen = job->frozen;
    options.correction = job->correction;
    MEED_TRY_OUT(
        meed_dataset_limit(job->dataset, max_tokens(job), job->truncate, &sequences, &count));
    MEED_TRY_OUT(meed_trainer_create(job->be, job->checkpoint, job->start, sequences, count,
                                     &options, &trainer));
    try_resume(job, trainer);
    MEED_TRY_OUT(run_steps(job, trainer, result));
    MEED_TRY_OUT(meed_trainer_export(trainer, trained));
    if (job->correction) {
        MEED_TRY_OUT(meed_trainer_mean_gradient(trainer, job->mean_gradient));
    }
out:
    meed_trainer_destroy(trainer);
    meed_heap_free(sequences);
    return st;
}
