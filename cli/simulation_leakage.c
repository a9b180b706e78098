/* See simulation_leakage.h. */
#include "cli/simulation_leakage.h"

#include <math.h>
#include <string.h>
#include "base/rng.h"

enum { MIN_ROWS = 1024, MODELS = MEED_SIMULATION_LEAK_ROUNDS + 1 };

const char *const meed_simulation_leak_names[MEED_SIMULATION_LEAK_KIND_COUNT] = {"global", "update",
                                                                                 "own"};

/* What is asked for: drawn dialogues, every canary once, and what nobody trained on. */
enum { DIALOGUES, CANARIES, UNSEEN, ASKED };
struct questions {
    struct meed_audit_data of[ASKED];
};
/* What came of it, for the base and up to MODELS − 1 models. */
struct answers {
    struct meed_extraction_row of[ASKED][MODELS];
};

static void questions_clear(struct questions *questions)
{
    for (int i = 0; i < ASKED; i++) {
        meed_heap_free(questions->of[i].records);
    }
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
        ask_for(member, order[i], &questions->of[DIALOGUES]);
    }
    for (int64_t i = 0; i < member->canary_count / job->plan->repeat; i++) {
        ask_for(member, dealt + i, &questions->of[CANARIES]);
    }
    meed_heap_free(order);
    return MEED_OK;
}

/* The share of clients `first` to before `end` in the benchmark's dialogues, in an order drawn by
 * the seed; a cohort that wants more than there are asks some twice. */
static enum meed_status unseen_add(const struct meed_simulation_leakage_job *job, int32_t first,
                                   int32_t end, struct meed_audit_data *unseen)
{
    const struct meed_benchmark *b = job->benchmark;
    int64_t share = (job->plan->unseen + job->cast->count - 1) / job->cast->count, held = 0;
    struct meed_rng rng = meed_rng_stream(job->seed, "unseen dialogues", 0);
    int64_t *order = meed_heap_alloc((size_t)MEED_MAX(b->item_count, 1), sizeof *order);
    if (!order) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < b->item_count; i++) {
        const struct meed_axis *axis = &b->axes[b->items[i].axis];
        if (axis->kind == MEED_AXIS_LIKELIHOOD && !axis->guard) {
            order[held++] = b->items[i].plus;
        }
    }
    meed_rng_shuffle(&rng, order, held);
    for (int64_t i = first * share; held > 0 && i < end * share; i++) {
        int64_t sequence = order[i % held];
        unseen->records[unseen->count++] = (struct meed_audit_record){
            .sequence = b->sequences[sequence], .line = (int32_t)sequence + 1};
    }
    meed_heap_free(order);
    return MEED_OK;
}

/* Of the clients from `first` to before `end`. */
static enum meed_status questions_make(const struct meed_simulation_leakage_job *job, int32_t first,
                                       int32_t end, struct questions *questions)
{
    static const char *const names[ASKED] = {"drawn dialogues", "canaries", "unseen dialogues"};
    size_t dealt = 0, unseen = (size_t)(job->plan->unseen + job->cast->count);
    memset(questions, 0, sizeof *questions);
    for (int32_t i = first; i < end; i++) {
        dealt += (size_t)job->cast->members[i].dataset->count;
    }
    for (int i = 0; i < ASKED; i++) {
        struct meed_audit_data *data = &questions->of[i];
        data->path = names[i];
        data->records = meed_heap_alloc(i == UNSEEN ? unseen : dealt, sizeof *data->records);
        if (!data->records) {
            return MEED_NOMEM;
        }
    }
    for (int32_t i = first; i < end; i++) {
        MEED_TRY(questions_add(job, i, questions));
    }
    bool asks = questions->of[DIALOGUES].count > 0 && job->plan->unseen > 0;
    return asks ? unseen_add(job, first, end, &questions->of[UNSEEN]) : MEED_OK;
}

/* Row 0 of the answers is the base. */
static enum meed_status extract(const struct meed_simulation_leakage_job *job,
                                struct meed_adapter *const *adapters, int32_t count,
                                const struct questions *questions, struct answers *answers)
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
    enum meed_status st = MEED_OK;
    for (int i = 0; i < ASKED && st == MEED_OK; i++) {
        st = meed_extraction_run(models, &questions->of[i], &options, answers->of[i]);
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

static void leak_add(const struct answers *answers, int32_t model,
                     struct meed_simulation_leak *leak)
{
    const struct meed_extraction_row *row = &answers->of[DIALOGUES][model],
                                     *canaries = &answers->of[CANARIES][model],
                                     *unseen = &answers->of[UNSEEN][model];
    if (row->examples > 0) {
        pool_mean(&leak->rouge, leak->examples, &row->rouge, row->examples);
        pool_mean(&leak->gain, leak->examples, &row->rouge_gain, row->examples);
        pool_mean(&leak->exact, leak->examples, &row->exact, row->examples);
        pool_mean(&leak->exact_gain, leak->examples, &row->exact_gain, row->examples);
    }
    if (unseen->examples > 0) {
        pool_mean(&leak->unseen, leak->unseen_examples, &unseen->rouge_gain, unseen->examples);
    }
    leak->examples += row->examples;
    leak->unseen_examples += unseen->examples;
    leak->secrets += row->secrets + canaries->secrets;
    leak->secrets_found += row->secrets_found + canaries->secrets_found;
}

enum meed_status meed_simulation_leakage_globals(const struct meed_simulation_leakage_job *job,
                                                 struct meed_adapter *const *adapters,
                                                 const int32_t *rounds, int32_t count,
                                                 struct meed_simulation_leak *leaks)
{
    enum meed_status st = MEED_OK;
    struct answers answers;
    struct questions questions;
    MEED_ASSERT(count <= MEED_SIMULATION_LEAK_ROUNDS);
    MEED_TRY_OUT(questions_make(job, 0, job->cast->count, &questions));
    MEED_TRY_OUT(extract(job, adapters, count, &questions, &answers));
    for (int32_t i = 0; i < count; i++) {
        leaks[i] =
            (struct meed_simulation_leak){.kind = MEED_SIMULATION_LEAK_GLOBAL, .round = rounds[i]};
        leak_add(&answers, i + 1, &leaks[i]);
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
    struct answers answers;
    struct questions questions;
    MEED_TRY_OUT(questions_make(job, client, client + 1, &questions));
    if (questions.of[DIALOGUES].count > 0) {
        MEED_TRY_OUT(extract(job, &adapter, 1, &questions, &answers));
        leak_add(&answers, 1, leak);
    }
out:
    questions_clear(&questions);
    return st;
}
