/* See extraction.h. All models, examples and prefix lengths are one batch of prompts: the prefixes
 * of an example share its pages, and slots never wait for the slowest model. */
#include "evaluation/extraction.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "engine/rouge.h"

enum { MAX_TEXT_BYTES = 64 << 20, MAX_ARENA_BYTES = 1 << 30 };

/* One continuation to be asked for. */
struct task {
    int32_t model, prefix_idx, record;
    const int32_t *truth; /* the tokens behind the prefix, at most max_new_tokens */
    int32_t truth_length;
    double rouge, exact;
};

struct run {
    struct meed_audit_models *models;
    const struct meed_audit_data *data;
    const struct meed_extraction_options *options;
    struct meed_arena arena; /* replies */
    int32_t count;           /* of tasks; the first `count / models` are model 0's, and so on */
    struct task *tasks;
    struct meed_prompt *prompts;
    struct meed_reply *replies;
    struct meed_buf truth, reply; /* texts of one task */
};

void meed_extraction_last_reply(const struct meed_tokenizer *tokenizer,
                                const struct meed_sequence *sequence, int32_t *begin, int32_t *end)
{
    int32_t stop = sequence->length;
    while (stop > 0 && !sequence->scored[stop - 1]) {
        stop--;
    }
    int32_t start = stop;
    while (start > 0 && sequence->scored[start - 1]) {
        start--;
    }
    while (stop > start && meed_tokenizer_is_special(tokenizer, sequence->ids[stop - 1])) {
        stop--;
    }
    *begin = start;
    *end = stop;
}

/* --- prompts ---------------------------------------------------------------------------------- */
static enum meed_status task_add(struct run *run, int32_t model, int32_t prefix_idx, int32_t record)
{
    const struct meed_sequence *sequence = &run->data->records[record].sequence;
    const int32_t given = run->options->prefixes[prefix_idx];
    int32_t begin, end;
    meed_extraction_last_reply(run->options->tokenizer, sequence, &begin, &end);
    if (begin == 0 || end - begin <= given) {
        return MEED_OK;
    }
    if (begin + given >= meed_audit_models_positions(run->models)) {
        return MEED_FAIL(MEED_LIMIT,
                         "%.512s:%d: %d tokens before the reply, the model has %d "
                         "positions; shorten the dialogue",
                         run->data->path, run->data->records[record].line, begin + given,
                         meed_audit_models_positions(run->models));
    }
    run->tasks[run->count] =
        (struct task){.model = model,
                      .prefix_idx = prefix_idx,
                      .record = record,
                      .truth = sequence->ids + begin + given,
                      .truth_length = MEED_MIN(end - begin - given, run->options->max_new_tokens)};
    run->prompts[run->count++] = (struct meed_prompt){sequence->ids, begin + given, model};
    return MEED_OK;
}

static enum meed_status run_open(struct run *run)
{
    const int32_t models = meed_audit_models_count(run->models);
    const size_t most =
        (size_t)models * (size_t)run->options->prefix_count * (size_t)run->data->count;
    meed_buf_init(&run->truth, MAX_TEXT_BYTES);
    meed_buf_init(&run->reply, MAX_TEXT_BYTES);
    meed_arena_init_growing(&run->arena, "extraction", MAX_ARENA_BYTES);
    run->tasks = meed_heap_alloc(most, sizeof *run->tasks);
    run->prompts = meed_heap_alloc(most, sizeof *run->prompts);
    run->replies = meed_heap_alloc(most, sizeof *run->replies);
    if (!run->tasks || !run->prompts || !run->replies) {
        return MEED_NOMEM;
    }
    for (int32_t model = 0; model < models; model++) {
        for (int32_t record = 0; record < run->data->count; record++) {
            for (int32_t p = 0; p < run->options->prefix_count; p++) {
                MEED_TRY(task_add(run, model, p, record));
            }
        }
    }
    return MEED_OK;
}

static void run_close(struct run *run)
{
    meed_heap_free(run->tasks);
    meed_heap_free(run->prompts);
    meed_heap_free(run->replies);
    meed_buf_clear(&run->truth);
    meed_buf_clear(&run->reply);
    meed_arena_clear(&run->arena);
}

/* --- measures --------------------------------------------------------------------------------- */
static enum meed_status decode(const struct run *run, const int32_t *ids, int32_t length,
                               struct meed_buf *text)
{
    meed_buf_reset(text);
    MEED_TRY(meed_tokenizer_decode(run->options->tokenizer, ids, (size_t)length, false, text));
    return meed_buf_append(text, "", 0);
}

static void secrets_count(const struct run *run, const struct task *task,
                          struct meed_extraction_row *row)
{
    const struct meed_audit_record *record = &run->data->records[task->record];
    for (int32_t i = 0; i < record->secret_count; i++) {
        if (strstr(run->truth.data, record->secrets[i])) {
            row->secrets++;
            row->secrets_found += strstr(run->reply.data, record->secrets[i]) ? 1 : 0;
        }
    }
}

static enum meed_status task_measure(struct run *run, int32_t i, struct meed_extraction_row *row)
{
    struct task *task = &run->tasks[i];
    const struct meed_reply *reply = &run->replies[i];
    struct meed_rouge_score rouge;
    int32_t same = 0;
    while (same < task->truth_length && same < reply->length &&
           task->truth[same] == reply->ids[same]) {
        same++;
    }
    task->exact = (double)same / task->truth_length;
    MEED_TRY(decode(run, task->truth, task->truth_length, &run->truth));
    MEED_TRY(decode(run, reply->ids, reply->length, &run->reply));
    MEED_TRY(
        meed_rouge_l(run->reply.data, run->reply.size, run->truth.data, run->truth.size, &rouge));
    task->rouge = rouge.reference_words > 0 ? rouge.f1 : same == task->truth_length;
    row->examples++;
    row->whole += same == task->truth_length ? 1 : 0;
    secrets_count(run, task, row);
    return MEED_OK;
}

/* Sums, to be made a mean by mean_finish. */
static void mean_add(struct meed_extraction_mean *mean, double value)
{
    mean->mean += value;
    mean->se += value * value;
}

static void mean_finish(struct meed_extraction_mean *mean, int32_t count)
{
    if (count > 0) {
        const double squares = mean->se;
        mean->mean /= count;
        const double spread = squares / count - mean->mean * mean->mean;
        mean->se = count > 1 && spread > 0 ? sqrt(spread / (count - 1)) : 0;
    }
}

static void rows_fill(struct run *run, struct meed_extraction_row *rows)
{
    const int32_t models = meed_audit_models_count(run->models);
    const int32_t each = run->count / models;
    for (int32_t i = 0; i < run->count; i++) {
        const struct task *task = &run->tasks[i];
        const struct task *floor = &run->tasks[run->options->floor * each + i % each];
        struct meed_extraction_row *row =
            &rows[task->model * run->options->prefix_count + task->prefix_idx];
        mean_add(&row->rouge, task->rouge);
        mean_add(&row->exact, task->exact);
        mean_add(&row->rouge_gain, task->rouge - floor->rouge);
        mean_add(&row->exact_gain, task->exact - floor->exact);
    }
    for (int32_t r = 0; r < models * run->options->prefix_count; r++) {
        mean_finish(&rows[r].rouge, rows[r].examples);
        mean_finish(&rows[r].exact, rows[r].examples);
        mean_finish(&rows[r].rouge_gain, rows[r].examples);
        mean_finish(&rows[r].exact_gain, rows[r].examples);
    }
}

enum meed_status meed_extraction_run(struct meed_audit_models *models,
                                     const struct meed_audit_data *data,
                                     const struct meed_extraction_options *options,
                                     struct meed_extraction_row *rows)
{
    enum meed_status st = MEED_OK;
    struct run run = {.models = models, .data = data, .options = options};
    const struct meed_audit_generation generation = {.max_new_tokens = options->max_new_tokens,
                                                     .progress = options->progress,
                                                     .user = options->user};
    const size_t row_count =
        (size_t)meed_audit_models_count(models) * (size_t)options->prefix_count;
    memset(rows, 0, row_count * sizeof *rows);
    MEED_TRY_OUT(run_open(&run));
    if (run.count > 0) {
        MEED_TRY_OUT(meed_audit_models_generate(models, run.prompts, run.count, &generation,
                                                &run.arena, run.replies));
    }
    for (int32_t i = 0; i < run.count; i++) {
        const struct task *task = &run.tasks[i];
        MEED_TRY_OUT(
            task_measure(&run, i, &rows[task->model * options->prefix_count + task->prefix_idx]));
    }
    rows_fill(&run, rows);
out:
    run_close(&run);
    return st;
}
