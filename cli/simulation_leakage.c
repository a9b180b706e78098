/* See simulation_leakage.h. */
#include "cli/simulation_leakage.h"

#include <math.h>
#include "base/rng.h"

enum { MIN_ROWS = 1024, MODELS = MEED_SIMULATION_LEAK_ROUNDS + 1 };

const char *const meed_simulation_leak_names[MEED_SIMULATION_LEAK_KIND_COUNT] = {"global", "update",
                                                                                 "own"};

/* What is asked for: drawn dialogues, and every canary once. */
struct questions {
    struct meed_audit_data dialogues, canaries;
};

static void questions_clear(struct questions *questions)
{
    meed_heap_free(questions->dialogues.records);
    meed_heap_free(questions->canaries.records);
}

static void ask_for(const struct meed_simulation_member *member, int64_t idx,
                    struct meed_audit_data *data)
{
    data->records[data->count++] =
        (struct meed_audit_record){.sequence = member->dataset->sequences[idx],
                                   .secrets = member->secrets[idx].texts,
                                   .secret_count = member->secrets[idx].count,
                                   .line = (int32_t)idx + 1};
    data->secret_count += member->secrets[idx].count;
}

/* The client's part: an equal share of the dialogues, drawn without replacement. */
static enum meed_status questions_add(const struct meed_simulation_leakage_job *job, int32_t client,
                                      struct questions *questions)
{
    const struct meed_simulation_member *member = &job->cast->members[client];
    if (!member->secrets) {
        return MEED_OK;
    }
    int64_t dealt = member->dataset->count - member->canary_count;
    int64_t share = (job->plan->examples + job->cast->count - 1) / job->cast->count;
    struct meed_rng rng = meed_rng_stream(job->seed, "extracted dialogues", (uint64_t)client);
    int64_t *order = meed_heap_alloc((size_t)MEED_MAX(dealt, 1), sizeof *order);
    if (!order) {
        return MEED_NOMEM;
    }
    for (int64_t i = 0; i < dealt; i++) {
        order[i] = i;
    }
    meed_rng_shuffle(&rng, order, dealt);
    for (int64_t i = 0; i < MEED_MIN(share, dealt); i++) {
        ask_for(member, order[i], &questions->dialogues);
    }
    for (int64_t i = 0; i < member->canary_count / job->plan->repeat; i++) {
        ask_for(member, dealt + i, &questions->canaries);
    }
    meed_heap_free(order);
    return MEED_OK;
}

/* Of the clients from `first` to before `end`. */
static enum meed_status questions_make(const struct meed_simulation_leakage_job *job, int32_t first,
                                       int32_t end, struct questions *questions)
{
    size_t most = 0;
    for (int32_t i = first; i < end; i++) {
        most += (size_t)job->cast->members[i].dataset->count;
    }
    *questions =
        (struct questions){.dialogues.path = "drawn dialogues", .canaries.path = "canaries"};
    questions->dialogues.records = meed_heap_alloc(most, sizeof *questions->dialogues.records);
    questions->canaries.records = meed_heap_alloc(most, sizeof *questions->canaries.records);
    if (!questions->dialogues.records || !questions->canaries.records) {
        return MEED_NOMEM;
    }
    for (int32_t i = first; i < end; i++) {
        MEED_TRY(questions_add(job, i, questions));
    }
    return MEED_OK;
}

/* rows, canary_rows [count + 1], the base first. */
static enum meed_status extract(const struct meed_simulation_leakage_job *job,
                                struct meed_adapter *const *adapters, int32_t count,
                                const struct questions *questions, struct meed_extraction_row *rows,
                                struct meed_extraction_row *canary_rows)
{
    struct meed_audit_models *models = NULL;
    const struct meed_audit_models_options stack = {
        .be = job->be,
        .checkpoint = job->checkpoint,
        .adapters = (const struct meed_adapter *const *)adapters,
        .adapter_count = count,
        .batch_tokens = MEED_MAX(MIN_ROWS, job->checkpoint->config.max_positions),
        .end_of_turn = meed_chat_end_of_turn(job->chat)};
    const struct meed_extraction_options options = {.tokenizer = job->tokenizer,
                                                    .prefixes = {(int32_t)job->plan->prefix},
                                                    .prefix_count = 1,
                                                    .max_new_tokens =
                                                        (int32_t)job->plan->new_tokens};
    MEED_TRY(meed_audit_models_create(&stack, &models));
    enum meed_status st = meed_extraction_run(models, &questions->dialogues, &options, rows);
    if (st == MEED_OK) {
        st = meed_extraction_run(models, &questions->canaries, &options, canary_rows);
    }
    meed_audit_models_destroy(models);
    return st;
}

/* The mean of both, weighted by examples; strata are independent. */
static void pool_mean(struct meed_extraction_mean *mean, int64_t count,
                      const struct meed_extraction_mean *more, int64_t more_count)
{
    double all = (double)(count + more_count), old = (double)count / all,
           new = (double)more_count / all;
    mean->mean = old * mean->mean + new * more->mean;
    mean->se = hypot(old * mean->se, new * more->se);
}

static void leak_add(const struct meed_extraction_row *row,
                     const struct meed_extraction_row *canaries, struct meed_simulation_leak *leak)
{
    if (row->examples > 0) {
        pool_mean(&leak->rouge, leak->examples, &row->rouge, row->examples);
        pool_mean(&leak->gain, leak->examples, &row->rouge_gain, row->examples);
        pool_mean(&leak->exact, leak->examples, &row->exact, row->examples);
        pool_mean(&leak->exact_gain, leak->examples, &row->exact_gain, row->examples);
    }
    leak->examples += row->examples;
    leak->secrets += row->secrets + canaries->secrets;
    leak->secrets_found += row->secrets_found + canaries->secrets_found;
}

enum meed_status meed_simulation_leakage_globals(const struct meed_simulation_leakage_job *job,
                                                 struct meed_adapter *const *adapters,
                                                 const int32_t *rounds, int32_t count,
                                                 struct meed_simulation_leak *leaks)
{
    enum meed_status st = MEED_OK;
    struct meed_extraction_row rows[MODELS], canaries[MODELS];
    struct questions questions;
    MEED_ASSERT(count <= MEED_SIMULATION_LEAK_ROUNDS);
    MEED_TRY_OUT(questions_make(job, 0, job->cast->count, &questions));
    MEED_TRY_OUT(extract(job, adapters, count, &questions, rows, canaries));
    for (int32_t i = 0; i < count; i++) {
        leaks[i] =
            (struct meed_simulation_leak){.kind = MEED_SIMULATION_LEAK_GLOBAL, .round = rounds[i]};
        leak_add(&rows[i + 1], &canaries[i + 1], &leaks[i]);
    }
out:
    questions_clear(&questions);
    return st;
}

enum meed_status meed_simulation_leakage_client(const struct meed_simulation_leakage_job *job,
                                                int32_t client, struct meed_adapter *adapter,
                                                struct meed_simulation_leak *leak)
{
    enum meed_status st = MEED_OK;
    struct meed_extraction_row rows[2], canaries[2];
    struct questions questions;
    MEED_TRY_OUT(questions_make(job, client, client + 1, &questions));
    if (questions.dialogues.count > 0) {
        MEED_TRY_OUT(extract(job, &adapter, 1, &questions, rows, canaries));
        leak_add(&rows[1], &canaries[1], leak);
    }
out:
    questions_clear(&questions);
    return st;
}
