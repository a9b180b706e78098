/* See isolation.h. */
#include "client/isolation.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "client/synthesis.h"
#include "client/workbench.h"
#include "engine/adapter_split.h"
#include "proto/sharing.h"

#define BRANCH_FILE "private.bin"
#define SYNTHETIC_FILE "synthetic.jsonl"

/* A job while it runs: branches as far as they are known. */
struct isolation {
    const struct meed_isolation_job *job;
    const char *phase;
    struct meed_adapter *private_branch; /* NULL: not trained yet */
    struct meed_local_train_result private_result;
    struct meed_dataset *synthetic; /* NULL: not written yet, or nothing survived */
    int64_t synthetic_count;
};

static enum meed_status path_of(const struct isolation *iso, const char *name,
                                char path[MEED_PATH_BYTES])
{
    return meed_file_join(iso->job->folder, name, path, MEED_PATH_BYTES);
}

static bool has_file(const struct isolation *iso, const char *name)
{
    char path[MEED_PATH_BYTES];
    return path_of(iso, name, path) == MEED_OK && meed_file_exists(path);
}

/* ---- progress ---------------------------------------------------------------------------------
 */

static bool tell(const struct isolation *iso, struct meed_isolation_progress progress)
{
    progress.phase = iso->phase;
    return !iso->job->on_progress || iso->job->on_progress(iso->job->user, &progress);
}

static enum meed_status begin(struct isolation *iso, const char *phase, int64_t total)
{
    iso->phase = phase;
    return tell(iso, (struct meed_isolation_progress){.total = total})
               ? MEED_OK
               : MEED_FAIL(MEED_CANCELLED, "round %d stopped before %s; a restart goes on",
                           iso->job->train.plan->round, phase);
}

static bool on_step(void *user, const struct meed_train_report *report, int64_t step_count)
{
    double speed = report->seconds > 0.0 ? (double)report->tokens / report->seconds : 0.0;
    return tell(user, (struct meed_isolation_progress){.done = report->step + 1,
                                                       .total = step_count,
                                                       .loss = report->loss,
                                                       .tokens_per_second = speed});
}

static bool on_synthesis(void *user, const struct meed_synthesis_progress *progress)
{
    return tell(user, (struct meed_isolation_progress){.done = MEED_MAX(progress->done, 1),
                                                       .total = progress->total});
}

/* ---- a branch ---------------------------------------------------------------------------------
 */

/* Training from the start on `data`, its checkpoint at NAME.ckpt; draws of its own, unless `suffix`
 * is "", which is FedIT's. */
static enum meed_status train_branch(struct isolation *iso, struct meed_dataset *data,
                                     const char *name, const char *suffix,
                                     struct meed_adapter *trained,
                                     struct meed_local_train_result *result)
{
    char file[64], path[MEED_PATH_BYTES], stream[MEED_LIMIT_ID_BYTES + 32];
    struct meed_local_train_job train = iso->job->train;
    snprintf(file, sizeof file, "%s.ckpt", name);
    snprintf(stream, sizeof stream, "%s%s", train.client_id, suffix);
    MEED_TRY(path_of(iso, file, path));
    train.dataset = data;
    train.client_id = stream;
    train.truncate = train.truncate || data != iso->job->train.dataset;
    train.checkpoint_path = path;
    train.on_step = on_step;
    train.user = iso;
    return meed_local_train_run(&train, trained, result);
}

/* private.bin: binding, what the training told, values in flat order, SHA-256 of all before. */
struct branch_head {
    uint8_t binding[MEED_SHA256_BYTES];
    double loss, seconds;
    int64_t tokens;
};

/* What W_l depends on and a restart might find changed: start, plan's draw, data. */
static enum meed_status bind(const struct isolation *iso, uint8_t digest[MEED_SHA256_BYTES])
{
    const struct meed_local_train_job *train = &iso->job->train;
    struct meed_sha256 *hash = NULL;
    uint8_t start[MEED_SHA256_BYTES];
    MEED_TRY(meed_adapter_hash(train->start, start));
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, start, sizeof start);
    meed_sha256_update(hash, &train->plan->seed, sizeof train->plan->seed);
    for (int64_t i = 0; i < train->dataset->count; i++) {
        const struct meed_sequence *sequence = &train->dataset->sequences[i];
        size_t length = (size_t)sequence->length;
        meed_sha256_update(hash, &sequence->length, sizeof sequence->length);
        meed_sha256_update(hash, sequence->ids, length * sizeof *sequence->ids);
        meed_sha256_update(hash, sequence->scored, length * sizeof *sequence->scored);
    }
    meed_sha256_final(hash, digest);
    return MEED_OK;
}

static enum meed_status save_branch(const struct isolation *iso)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct branch_head head;
    uint8_t digest[MEED_SHA256_BYTES];
    void *room = NULL;
    size_t values = (size_t)meed_adapter_value_count(iso->private_branch) * sizeof(float);
    struct meed_buf bytes;
    meed_buf_init(&bytes, MEED_ADAPTER_MAX_FILE_BYTES);
    memset(&head, 0, sizeof head);
    head.loss = iso->private_result.loss;
    head.seconds = iso->private_result.seconds;
    head.tokens = iso->private_result.tokens;
    MEED_TRY_OUT(path_of(iso, BRANCH_FILE, path));
    MEED_TRY_OUT(bind(iso, head.binding));
    MEED_TRY_OUT(meed_buf_append(&bytes, &head, sizeof head));
    MEED_TRY_OUT(meed_buf_extend(&bytes, values, &room));
    meed_adapter_to_flat(iso->private_branch, room);
    meed_sha256(bytes.data, bytes.size, digest);
    MEED_TRY_OUT(meed_buf_append(&bytes, digest, sizeof digest));
    MEED_TRY_OUT(meed_file_write_atomic(path, bytes.data, bytes.size));
out:
    meed_buf_clear(&bytes);
    return st;
}

/* Into private_branch; INTEGRITY where the file is damaged or of other data, NOT_FOUND. */
static enum meed_status load_branch(struct isolation *iso)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct branch_head head;
    uint8_t digest[MEED_SHA256_BYTES], binding[MEED_SHA256_BYTES];
    size_t values = (size_t)meed_adapter_value_count(iso->private_branch) * sizeof(float);
    struct meed_buf bytes;
    meed_buf_init(&bytes, MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(path_of(iso, BRANCH_FILE, path));
    if (!meed_file_exists(path)) {
        st = MEED_NOT_FOUND;
        goto out;
    }
    MEED_TRY_OUT(meed_file_read(path, &bytes));
    MEED_TRY_OUT(bind(iso, binding));
    size_t body = sizeof head + values;
    meed_sha256(bytes.data, MEED_MIN(body, bytes.size), digest);
    if (bytes.size != body + sizeof digest ||
        memcmp(bytes.data + body, digest, sizeof digest) != 0) {
        st = MEED_FAIL(MEED_INTEGRITY, "%.512s is damaged", path);
        goto out;
    }
    memcpy(&head, bytes.data, sizeof head);
    if (memcmp(head.binding, binding, sizeof binding) != 0) {
        st = MEED_FAIL(MEED_INTEGRITY, "%.512s was trained on other data", path);
        goto out;
    }
    memcpy(iso->private_branch->modules[0].a, bytes.data + sizeof head, values); /* flat order */
    iso->private_result = (struct meed_local_train_result){head.loss, head.tokens, head.seconds};
out:
    meed_buf_clear(&bytes);
    return st;
}

/* W_l, from its file or by training. */
static enum meed_status need_private(struct isolation *iso)
{
    const struct meed_local_train_job *train = &iso->job->train;
    if (iso->private_branch) {
        return MEED_OK;
    }
    MEED_TRY(meed_adapter_clone(train->start, &iso->private_branch));
    enum meed_status st = load_branch(iso);
    if (st == MEED_OK) {
        return MEED_OK;
    }
    if (st == MEED_INTEGRITY) {
        MEED_LOG_WARN("client", "the private branch of round %d is trained again: %s",
                      train->plan->round, meed_last_error());
    }
    MEED_TRY(begin(iso, "private branch", train->plan->steps));
    MEED_TRY(train_branch(iso, train->dataset, "private", "", iso->private_branch,
                          &iso->private_result));
    return save_branch(iso);
}

/* ---- synthetic data ---------------------------------------------------------------------------
 */

static struct meed_synthesis_job synthesis_job(struct isolation *iso)
{
    const struct meed_isolation_job *job = iso->job;
    const struct meed_msg_plan *plan = job->train.plan;
    char stream[MEED_LIMIT_ID_BYTES + 32];
    struct meed_synthesis_job made = {
        .be = job->train.be,
        .checkpoint = job->train.checkpoint,
        .model_folder = job->train.checkpoint->folder,
        .global = job->whole,
        .data_path = job->dialogues ? NULL : job->train.dataset->path,
        .dialogues = job->dialogues,
        .dialogue_count = job->dialogue_count,
        .folder = job->folder,
        .dtype = job->train.dtype,
        .base = job->train.base,
        .options = meed_synthesis_defaults(),
        .on_progress = on_synthesis,
        .user = iso,
    };
    snprintf(stream, sizeof stream, "%s synthesis", job->train.client_id);
    made.options.candidates = plan->synthetic_candidates;
    made.options.keep = plan->synthetic_count;
    made.options.instruction_demos = plan->instruction_demos;
    made.options.response_demos = plan->response_demos;
    made.options.rouge_max = plan->rouge_max;
    made.options.retries = plan->synthetic_retries;
    made.options.turns = plan->synthetic_turns;
    made.options.opening_words = plan->opening_words;
    made.options.temperature = plan->synthetic_temperature;
    made.options.form = (enum meed_synthesis_template)plan->synthetic_form;
    made.options.score = (enum meed_synthesis_score)plan->synthetic_score;
    made.options.seed = meed_rng_stream(plan->seed, stream, (uint64_t)plan->round).key;
    return made;
}

/* Candidates, the private branch, the choice. */
static enum meed_status write_synthetic(struct isolation *iso)
{
    enum meed_status st = MEED_OK;
    struct meed_synthesis_job job = synthesis_job(iso);
    struct meed_synthesis_report report;
    struct meed_adapter *whole = NULL;
    MEED_TRY_OUT(begin(iso, "writing examples", job.options.candidates));
    MEED_TRY_OUT(meed_synthesis_write(&job, &report));
    MEED_TRY_OUT(need_private(iso));
    MEED_TRY_OUT(meed_adapter_join(iso->job->whole, iso->private_branch, &whole));
    MEED_TRY_OUT(begin(iso, "choosing examples", job.options.candidates));
    MEED_TRY_OUT(meed_synthesis_select(&job, whole, &report));
    MEED_LOG_INFO("client", "round %d: %d synthetic examples (candidates=%d scored=%d)",
                  iso->job->train.plan->round, report.kept, job.options.candidates, report.scored);
out:
    meed_adapter_destroy(whole);
    return st;
}

/* Writes them if need be and reads what is there; none is no error. */
static enum meed_status need_synthetic(struct isolation *iso)
{
    char path[MEED_PATH_BYTES];
    struct meed_buf text;
    if (iso->synthetic) {
        return MEED_OK;
    }
    if (!has_file(iso, SYNTHETIC_FILE)) {
        MEED_TRY(write_synthetic(iso));
    }
    MEED_TRY(path_of(iso, SYNTHETIC_FILE, path));
    meed_buf_init(&text, (size_t)MEED_LIMIT_TRANSFER_BYTES);
    enum meed_status st = meed_file_read(path, &text);
    bool empty = text.size == 0;
    meed_buf_clear(&text);
    MEED_TRY(st);
    if (empty) {
        MEED_LOG_WARN("client", "round %d: no synthetic example survived the filters",
                      iso->job->train.plan->round);
        return MEED_OK;
    }
    MEED_TRY(meed_workbench_read_data(iso->job->train.checkpoint->folder, path, &iso->synthetic));
    iso->synthetic_count = iso->synthetic->count;
    return MEED_OK;
}

/* ---- what leaves ------------------------------------------------------------------------------
 */

/* W_s; the start where there is nothing to learn from. */
static enum meed_status synthetic_branch(struct isolation *iso, struct meed_adapter *trained,
                                         struct meed_local_train_result *result)
{
    MEED_TRY(need_synthetic(iso));
    if (!iso->synthetic) {
        return MEED_OK;
    }
    MEED_TRY(begin(iso, "synthetic branch", iso->job->train.plan->steps));
    return train_branch(iso, iso->synthetic, "synthetic", " synthetic", trained, result);
}

static enum meed_status mix(const struct isolation *iso, const struct meed_adapter *synthetic,
                            struct meed_adapter *trained, struct meed_isolation_result *result)
{
    const struct meed_msg_plan *plan = iso->job->train.plan;
    bool both = plan->trained_factors == (MEED_FACTOR_A | MEED_FACTOR_B);
    if (plan->mix_space == MEED_MIX_FACTORS || !both) { /* one factor alone: its mean is exact */
        return meed_adapter_mix_factors(iso->private_branch, synthetic, plan->share_mix, trained);
    }
    MEED_TRY(meed_adapter_mix_product(iso->job->train.start, iso->private_branch, synthetic,
                                      plan->share_mix, trained, &result->mix));
    MEED_LOG_INFO("client",
                  "round %d: branches mixed (beta=%g discarded_energy=%.2e factor_mix_error=%.2e)",
                  plan->round, plan->share_mix, result->mix.discarded, result->mix.factor_error);
    return MEED_OK;
}

/* The update by the rule, and what is told of its making. */
static enum meed_status share(struct isolation *iso, struct meed_adapter *trained,
                              struct meed_isolation_result *result)
{
    const struct meed_msg_plan *plan = iso->job->train.plan;
    bool local = meed_sharing_takes_local(plan->share, plan->share_mix);
    bool synthetic = meed_sharing_takes_synthetic(plan->share, plan->share_mix);
    double beta = local ? (synthetic ? plan->share_mix : 1.0) : 0.0;
    struct meed_local_train_result other = {.loss = 0.0};
    struct meed_adapter *branch = NULL;
    enum meed_status st = MEED_OK;
    if (local) {
        MEED_TRY_OUT(need_private(iso));
    }
    if (synthetic) {
        MEED_TRY_OUT(meed_adapter_clone(iso->job->train.start, &branch));
        MEED_TRY_OUT(synthetic_branch(iso, branch, &other));
    }
    if (local && synthetic) {
        MEED_TRY_OUT(mix(iso, branch, trained, result));
    } else if (local || synthetic) {
        meed_adapter_from_flat(trained, (local ? iso->private_branch : branch)->modules[0].a);
    }
    static const struct meed_local_train_result none = {.loss = 0.0};
    const struct meed_local_train_result *own = local ? &iso->private_result : &none;
    result->train.loss = beta * own->loss + (1.0 - beta) * other.loss;
    result->train.tokens = own->tokens + other.tokens;
    result->train.seconds = own->seconds + other.seconds;
    result->synthetic_count = synthetic ? (int32_t)iso->synthetic_count : 0;
    result->sample_count = local ? iso->job->train.dataset->count : result->synthetic_count;
out:
    meed_adapter_destroy(branch);
    return st;
}

static void isolation_clear(struct isolation *iso)
{
    meed_adapter_destroy(iso->private_branch);
    meed_dataset_destroy(iso->synthetic);
}

enum meed_status meed_isolation_run(const struct meed_isolation_job *job,
                                    struct meed_adapter *trained,
                                    struct meed_isolation_result *result)
{
    struct isolation iso = {.job = job};
    memset(result, 0, sizeof *result);
    MEED_TRY(meed_sharing_check(job->train.plan));
    enum meed_status st = share(&iso, trained, result);
    isolation_clear(&iso);
    return st;
}

/* ---- the client's own model -------------------------------------------------------------------
 */

/* Both data sets as one; sequences are borrowed, the arrays are the caller's to free. */
static enum meed_status join_data(const struct meed_dataset *local,
                                  const struct meed_dataset *synthetic, struct meed_dataset *both)
{
    int64_t more = synthetic ? synthetic->count : 0;
    memset(both, 0, sizeof *both);
    snprintf(both->path, sizeof both->path, "%.900s and synthetic data", local->path);
    both->count = local->count + more;
    both->sequences = meed_heap_alloc((size_t)both->count, sizeof *both->sequences);
    both->lines = meed_heap_alloc((size_t)both->count, sizeof *both->lines);
    if (!both->sequences || !both->lines) {
        return MEED_NOMEM;
    }
    for (int64_t i = 0; i < both->count; i++) {
        const struct meed_dataset *from = i < local->count ? local : synthetic;
        int64_t at = i < local->count ? i : i - local->count;
        both->sequences[i] = from->sequences[at];
        both->lines[i] = from->lines[at];
    }
    both->token_count = local->token_count + (synthetic ? synthetic->token_count : 0);
    both->longest = MEED_MAX(local->longest, synthetic ? synthetic->longest : 0);
    return MEED_OK;
}

enum meed_status meed_isolation_own(const struct meed_isolation_job *job, struct meed_adapter **own)
{
    enum meed_status st = MEED_OK;
    struct isolation iso = {.job = job};
    struct meed_adapter *trained = NULL;
    struct meed_local_train_result result;
    struct meed_dataset both = {.count = 0};
    MEED_TRY_OUT(need_synthetic(&iso));
    MEED_TRY_OUT(join_data(job->train.dataset, iso.synthetic, &both));
    MEED_TRY_OUT(meed_adapter_clone(job->train.start, &trained));
    MEED_TRY_OUT(begin(&iso, "own model", job->train.plan->steps));
    MEED_TRY_OUT(train_branch(&iso, &both, "own", " own", trained, &result));
    MEED_TRY_OUT(meed_adapter_join(job->whole, trained, own));
out:
    meed_adapter_destroy(trained);
    meed_heap_free(both.sequences);
    meed_heap_free(both.lines);
    isolation_clear(&iso);
    return st;
}
