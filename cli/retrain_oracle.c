/* See retrain_oracle.h: a game whose evaluate trains. The estimator is the one of every other
 * game. */
#include "cli/retrain_oracle.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "client/dataset.h"
#include "engine/coalition.h"
#include "engine/trainer.h"
#include "evaluation/bootstrap.h"
#include "evaluation/estimator.h"
#include "evaluation/shapley.h"

struct oracle {
    struct meed_score_session *session;
    const struct meed_retrain_options *options;
    int32_t clients;
    struct meed_dataset *data[MEED_RETRAIN_MAX_CLIENTS];
    struct meed_sequence *usable[MEED_RETRAIN_MAX_CLIENTS]; /* cut to the model's length */
    int64_t usable_count[MEED_RETRAIN_MAX_CLIENTS];
    struct meed_adapter *start;
    struct meed_sequence *pool; /* [Σ usable_count] */
    double *sums;               /* [sequences of the benchmark] */
};

/* The adapter of the pooled data of the members; the start itself for nobody. */
static enum meed_status oracle_train(struct oracle *o, const double *members,
                                     struct meed_adapter *trained)
{
    enum meed_status st = MEED_OK;
    struct meed_trainer *trainer = NULL;
    struct meed_train_report report;
    struct meed_train_options options = meed_train_defaults();
    int64_t count = 0;
    for (int32_t k = 0; k < o->clients; k++) {
        if (members[k] > 0) {
            memcpy(o->pool + count, o->usable[k], (size_t)o->usable_count[k] * sizeof *o->pool);
            count += o->usable_count[k];
        }
    }
    if (count == 0) {
        return MEED_OK;
    }
    options.steps = o->options->steps;
    options.batch_tokens = o->options->batch_tokens;
    options.lr = o->options->lr;
    options.warmup_steps = MEED_MIN((int64_t)5, o->options->steps / 2);
    options.seed = o->options->seed;
    options.dtype = MEED_DTYPE_F32;
    MEED_TRY_OUT(meed_trainer_create(o->session->be, o->session->checkpoint, o->start, o->pool,
                                     count, &options, &trainer));
    for (int64_t step = 0; step < options.steps; step++) {
        MEED_TRY_OUT(meed_trainer_step(trainer, &report));
    }
    MEED_TRY_OUT(meed_trainer_export(trainer, trained));
out:
    meed_trainer_destroy(trainer);
    return st;
}

static enum meed_status oracle_score(struct oracle *o, const struct meed_adapter *adapter,
                                     double *utilities)
{
    const struct meed_benchmark *b = o->session->benchmark;
    struct meed_coalition *coalition = NULL;
    const double one = 1.0;
    const struct meed_coalition_options how = {
        .path = MEED_PATH_STACK, .dtype = MEED_DTYPE_F32, .batch_tokens = 2048};
    MEED_TRY(meed_coalition_create(o->session->be, o->session->checkpoint, NULL, &adapter, 1, &one,
                                   &how, &coalition));
    enum meed_status st = meed_coalition_score(coalition, &one, 1, b->sequences, b->sequence_count,
                                               o->sums, NULL, NULL);
    meed_coalition_destroy(coalition);
    if (st == MEED_OK) {
        meed_benchmark_items(b, o->sums, utilities);
    }
    return st;
}

static enum meed_status oracle_evaluate(void *user, const double *members, int32_t coalitions,
                                        double *utilities)
{
    struct oracle *o = user;
    for (int32_t i = 0; i < coalitions; i++) {
        struct meed_adapter *trained = NULL;
        MEED_TRY(meed_adapter_clone(o->start, &trained));
        enum meed_status st = oracle_train(o, members + (int64_t)i * o->clients, trained);
        if (st == MEED_OK) {
            st = oracle_score(o, trained,
                              utilities + (int64_t)i * o->session->benchmark->item_count);
        }
        meed_adapter_destroy(trained);
        MEED_TRY(st);
        meed_score_session_progress(o->session, i + 1, coalitions);
    }
    return MEED_OK;
}

static enum meed_status oracle_open(struct oracle *o, const char *const *data)
{
    const struct meed_model_config *config = &o->session->checkpoint->config;
    struct meed_lora_config lora = {
        .rank = o->options->rank, .alpha = (float)(2 * o->options->rank), .targets = MEED_PROJ_ALL};
    int64_t total = 0;
    int32_t longest = MEED_MIN(config->max_positions, o->options->batch_tokens);
    for (int32_t k = 0; k < o->clients; k++) {
        MEED_TRY(meed_dataset_load(data[k], o->session->chat, o->session->tokenizer, &o->data[k]));
        MEED_TRY(meed_dataset_limit(o->data[k], longest, true, &o->usable[k], &o->usable_count[k]));
        total += o->usable_count[k];
    }
    MEED_TRY(meed_adapter_create(config, &lora, &o->start));
    meed_adapter_init(o->start, o->options->seed);
    o->pool = meed_heap_alloc((size_t)total + 1, sizeof *o->pool);
    o->sums = meed_heap_alloc((size_t)o->session->benchmark->sequence_count, sizeof *o->sums);
    return o->pool && o->sums ? MEED_OK : MEED_NOMEM;
}

static void oracle_close(struct oracle *o)
{
    for (int32_t k = 0; k < o->clients; k++) {
        meed_dataset_destroy(o->data[k]);
        meed_heap_free(o->usable[k]);
    }
    meed_adapter_destroy(o->start);
    meed_heap_free(o->pool);
    meed_heap_free(o->sums);
}

static void table_print(const struct oracle *o, const char *const *data,
                        const struct meed_estimate *e, const double *se)
{
    const struct meed_benchmark *b = o->session->benchmark;
    printf("game (a), retrained: %d trainings of %" PRId64 " steps on pooled data. Not what a "
           "federation pays on.\n",
           (1 << o->clients) - 1, o->options->steps);
    for (int32_t k = 0; k < o->clients; k++) {
        char text[64];
        double phi = meed_benchmark_value(b, e->phi + (int64_t)k * e->items, NULL);
        meed_score_session_cell(data[k], 40, false);
        meed_score_session_estimate(phi, se[k], true, text);
        meed_score_session_cell(text, 19, true);
        printf("\n");
    }
    printf("%.5f untrained, %.5f on everybody's data (nats per token); residual %.1e\n",
           meed_benchmark_value(b, e->empty, NULL), meed_benchmark_value(b, e->full, NULL),
           e->residual);
}

static enum meed_status json_write(const struct oracle *o, const char *const *data,
                                   const struct meed_estimate *e, const double *se)
{
    const struct meed_benchmark *b = o->session->benchmark;
    json_t *clients = json_array(), *coalitions = json_array();
    for (int32_t k = 0; k < o->clients; k++) {
        double phi = meed_benchmark_value(b, e->phi + (int64_t)k * e->items, NULL);
        json_array_append_new(
            clients, json_pack("{s:s, s:f, s:f}", "data", data[k], "phi", phi, "se", se[k]));
    }
    for (int32_t row = 0; row < e->table->coalition_count; row++) {
        json_t *members = json_array();
        for (int32_t k = 0; k < o->clients; k++) {
            if ((e->table->masks[row] >> k) & 1u) {
                json_array_append_new(members, json_string(data[k]));
            }
        }
        double value = meed_benchmark_value(b, e->table->utilities + (int64_t)row * e->items, NULL);
        json_array_append_new(coalitions,
                              json_pack("{s:o, s:f}", "members", members, "value", value));
    }
    json_t *root = json_pack("{s:s, s:s, s:I, s:f, s:o, s:o}", "game", "retrained", "method",
                             "exact", "steps", (json_int_t)o->options->steps, "residual",
                             e->residual, "clients", clients, "coalitions", coalitions);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_NOMEM, "no memory for the JSON of the result");
    }
    enum meed_status st = meed_file_write_atomic(o->options->json, text, strlen(text));
    free(text);
    return st;
}

enum meed_status meed_retrain_oracle_run(struct meed_score_session *session,
                                         const char *const *data, int32_t count,
                                         const struct meed_retrain_options *options)
{
    enum meed_status st = MEED_OK;
    struct oracle o = {.session = session, .options = options, .clients = count};
    struct meed_estimate *estimate = NULL;
    const struct meed_benchmark *b = session->benchmark;
    double axis_se[MEED_RETRAIN_MAX_CLIENTS * MEED_BENCHMARK_MAX_AXES];
    double se[MEED_RETRAIN_MAX_CLIENTS];
    double *watch = NULL;
    if (count < 1 || count > MEED_RETRAIN_MAX_CLIENTS) {
        return MEED_FAIL(MEED_ARG,
                         "--oracle retrain trains once for every set of clients; it takes 1 to %d "
                         "data files, not %d",
                         MEED_RETRAIN_MAX_CLIENTS, count);
    }
    MEED_TRY_OUT(oracle_open(&o, data));
    watch = meed_heap_alloc((size_t)(1 + b->axis_count) * (size_t)b->item_count, sizeof *watch);
    if (!watch) {
        st = MEED_NOMEM;
        goto out;
    }
    meed_benchmark_coefficients(b, watch);
    struct meed_game game = {
        .user = &o, .players = count, .items = b->item_count, .evaluate = oracle_evaluate};
    struct meed_estimator_options exact = {
        .method = MEED_VALUE_EXACT, .watch = watch, .watch_count = 1};
    MEED_TRY_OUT(meed_estimator_run(&game, &exact, &estimate));
    MEED_TRY_OUT(meed_bootstrap_errors(b, estimate->phi, count, options->bootstrap, options->seed,
                                       axis_se, se));
    meed_progress_finish(&session->progress);
    table_print(&o, data, estimate, se);
    st = options->json ? json_write(&o, data, estimate, se) : MEED_OK;
out:
    meed_estimator_destroy(estimate);
    meed_heap_free(watch);
    oracle_close(&o);
    return st;
}
