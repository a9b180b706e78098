/* See aggregator.h: opens what a runner needs from the outside world and joins it to the transport.
 */
#include "server/aggregator.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/threads.h"
#include "evaluation/shapley.h"
#include "engine/trainer.h"
#include "server/aggregate.h"
#include "server/appraisal.h"
#include "server/exposition.h"

enum { PEM_MAX_BYTES = 1 << 20, PROGRESS_MS = 100, LOOP_WORKERS = 2 };

struct meed_aggregator {
    /* The model and what scores it. */
    bool lent; /* pool, backend, checkpoint and benchmark are somebody else's */
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_benchmark *benchmark;
    struct meed_pool *pool;
    struct meed_backend *be;
    int32_t batch_tokens;
    struct meed_align_options align;
    char cache_path[MEED_PATH_BYTES];
    int64_t progress_ns;
    int32_t valued_round;
    /* The run. */
    struct meed_registry *registry;
    struct meed_runner *runner;
    struct meed_rpc_server *server;
    struct meed_metrics *metrics;
};

struct meed_aggregator_config meed_aggregator_defaults(void)
{
    struct meed_train_options train = meed_train_defaults();
    struct meed_valuation_options value = meed_valuation_defaults();
    return (struct meed_aggregator_config){
        .listen = "127.0.0.1:0",
        .rounds = 3,
        .deadline_ms = 600000,
        .budget = 1000000,
        .seed = 1,
        .plan = {.method = MEED_METHOD_FEDIT,
                 .steps = (int32_t)train.steps,
                 .batch_tokens = train.batch_tokens,
                 .accumulation = train.accumulation,
                 .sequence_tokens = 1024,
                 .lr = (double)train.lr,
                 .lr_min = (double)(train.lr * train.lr_min_ratio),
                 .warmup_steps = (int32_t)train.warmup_steps,
                 .weight_decay = (double)train.weight_decay,
                 .beta1 = (double)train.beta1,
                 .beta2 = (double)train.beta2,
                 .epsilon = (double)train.epsilon,
                 .clip_norm = (double)train.clip_norm,
                 .rank = 8,
                 .alpha = 16.0,
                 .target_modules = MEED_PROJ_ALL,
                 .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B,
                 .codec = {.values = MEED_VALUE_INT8,
                           .density_a = 1.0,
                           .density_b = 1.0,
                           .group_size = 64,
                           .zstd_level = 3}},
        .aggregation = MEED_AGGREGATION_SVD,
        .clip_multiple = 2.0,
        .quarantine = {.strikes = 0, .rounds = 1, .probation = 1},
        .robust = {.trim = 0.2, .norm_multiple = 1.0},
        .frozen_rank = 128,
        .sample_cap = 4.0,
        .method = value.method,
        .rule = value.rule,
        .path = MEED_PATH_AUTO,
        .bootstrap = 1000,
        .guard_z = 2.576,
        .eval_batch_tokens = 2048,
    };
}

/* ---- the value seam -------------------------------------------------------------------------- */

static bool on_progress(void *user, int64_t tokens_done, int64_t tokens_total)
{
    struct meed_aggregator *aggregator = user;
    bool due = tokens_done == tokens_total ||
               meed_clock_seconds_since(aggregator->progress_ns) * 1000.0 >= PROGRESS_MS;
    if (due) {
        struct meed_aggregator_event event = {.kind = MEED_AGGREGATOR_VALUING,
                                              .round = aggregator->valued_round,
                                              .client = -1,
                                              .tokens_done = tokens_done,
                                              .tokens_total = tokens_total};
        aggregator->progress_ns = meed_clock_monotonic_ns();
        meed_board_emit(meed_runner_board(aggregator->runner), &event);
    }
    return !meed_runner_stopping(aggregator->runner);
}

static enum meed_status value_cohort(void *user, const struct meed_settle_cohort *cohort,
                                     struct meed_settle_value *value,
                                     struct meed_value_client *clients)
{
    struct meed_aggregator *aggregator = user;
    struct meed_appraisal appraisal = {
        .be = aggregator->be,
        .checkpoint = aggregator->checkpoint,
        .benchmark = aggregator->benchmark,
        .value = &meed_runner_terms(aggregator->runner)->value,
        .batch_tokens = aggregator->batch_tokens,
        .cache_path = aggregator->cache_path,
        .progress = on_progress,
        .progress_user = aggregator,
    };
    aggregator->valued_round = cohort->round;
    return meed_appraisal_run(&appraisal, cohort, value, clients);
}

/* The front end's training, on the device and the base model that are open here. */
static enum meed_status align(void *user, const struct meed_align_request *request,
                              struct meed_adapter **trained)
{
    const struct meed_aggregator *aggregator = user;
    struct meed_align_request own = *request;
    own.be = aggregator->be;
    own.checkpoint = aggregator->checkpoint;
    return aggregator->align.run(aggregator->align.user, &own, trained);
}

/* ---- create ---------------------------------------------------------------------------------- */

static enum meed_status open_files(struct meed_aggregator *aggregator,
                                   const struct meed_aggregator_config *config)
{
    if (config->lent_checkpoint) {
        aggregator->lent = true;
        aggregator->pool = config->lent_pool;
        aggregator->be = config->lent_be;
        aggregator->checkpoint = config->lent_checkpoint;
        aggregator->benchmark = config->lent_benchmark;
        return MEED_OK;
    }
    MEED_TRY(meed_pool_create(config->threads, &aggregator->pool));
    MEED_TRY(meed_backend_open(config->device, aggregator->pool, &aggregator->be));
    MEED_TRY(meed_checkpoint_open(config->model, &aggregator->checkpoint));
    MEED_TRY(meed_tokenizer_open(config->model, &aggregator->tokenizer));
    MEED_TRY(meed_chat_open(config->model, aggregator->tokenizer, &aggregator->chat));
    MEED_TRY(meed_benchmark_load(config->benchmark, aggregator->chat,
                                 aggregator->checkpoint->config.max_positions,
                                 &aggregator->benchmark));
    return MEED_OK;
}

static enum meed_status open_model(struct meed_aggregator *aggregator,
                                   const struct meed_aggregator_config *config)
{
    MEED_TRY(open_files(aggregator, config));
    aggregator->align = config->align;
    aggregator->batch_tokens = config->eval_batch_tokens;
    return MEED_OK;
}

static enum meed_status check_config(const struct meed_aggregator_config *config)
{
    if (!config->state || !config->model || !config->benchmark || !config->listen) {
        return MEED_FAIL(MEED_CONFIG, "state folder, model, benchmark and listen address are "
                                      "needed");
    }
    if (!config->roster && config->client_count < 1) {
        return MEED_FAIL(MEED_CONFIG, "nobody may take part: name clients or a roster");
    }
    bool all = config->tls_ca && config->tls_certificate && config->tls_key;
    bool any = config->tls_ca || config->tls_certificate || config->tls_key;
    if (config->insecure ? any : !all) {
        return MEED_FAIL(MEED_CONFIG, "give CA, certificate and key (`meed provision` makes them), "
                                      "or --insecure for plain text, not both");
    }
    return MEED_OK;
}

static enum meed_status make_terms(const struct meed_aggregator *aggregator,
                                   const struct meed_aggregator_config *config,
                                   struct meed_terms *terms)
{
    int32_t count = meed_registry_count(aggregator->registry);
    if (config->method == MEED_VALUE_EXACT && count > MEED_SHAPLEY_MAX_PLAYERS) {
        return MEED_FAIL(MEED_CONFIG,
                         "exact values of %d clients need 2^%d coalitions; exact takes at most %d "
                         "clients, choose gradient or auto",
                         count, count, MEED_SHAPLEY_MAX_PLAYERS);
    }
    const char **ids = meed_heap_alloc((size_t)count, sizeof *ids);
    if (!ids) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        ids[i] = meed_registry_id(aggregator->registry, i);
    }
    struct meed_terms_source source = {.model = &aggregator->checkpoint->config,
                                       .model_hash = aggregator->checkpoint->hash,
                                       .benchmark_hash = aggregator->benchmark->hash,
                                       .axes = aggregator->benchmark->axes,
                                       .axis_count = aggregator->benchmark->axis_count,
                                       .clients = ids,
                                       .client_count = count,
                                       .machine = aggregator->be->name};
    enum meed_status st = meed_terms_init(config, &source, terms);
    meed_heap_free(ids);
    return st;
}

static enum meed_status open_run(struct meed_aggregator *aggregator,
                                 const struct meed_aggregator_config *config)
{
    struct meed_terms *terms = meed_heap_alloc(1, sizeof *terms);
    if (!terms) {
        return MEED_NOMEM;
    }
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(config->roster
                     ? meed_registry_load(config->roster, config->insecure, &aggregator->registry)
                     : meed_registry_create(config->clients, config->client_count, config->insecure,
                                            &aggregator->registry));
    MEED_TRY_OUT(make_terms(aggregator, config, terms));
    MEED_TRY_OUT(meed_file_make_folder(config->state));
    MEED_TRY_OUT(meed_file_join(config->state, "utilities.db", aggregator->cache_path,
                                sizeof aggregator->cache_path));
    struct meed_runner_config runner = {.terms = terms,
                                        .registry = aggregator->registry,
                                        .state = config->state,
                                        .ledger_key = config->ledger_key,
                                        .pool = aggregator->pool,
                                        .value = value_cohort,
                                        .value_user = aggregator,
                                        .align = config->align.run ? align : NULL,
                                        .align_user = aggregator,
                                        .report = config->report,
                                        .observer = config->observer,
                                        .observer_user = config->observer_user};
    MEED_TRY_OUT(meed_runner_create(&runner, &aggregator->runner));
out:
    meed_heap_free(terms);
    return st;
}

static enum meed_status listen_on(struct meed_aggregator *aggregator,
                                  const struct meed_aggregator_config *config)
{
    enum meed_status st = MEED_OK;
    if (config->in_process) {
        MEED_TRY(meed_rpc_loop_server_start(meed_runner_service(aggregator->runner), LOOP_WORKERS,
                                            &aggregator->server));
        meed_runner_set_server(aggregator->runner, aggregator->server);
        return MEED_OK;
    }
    struct meed_buf ca, certificate, key;
    meed_buf_init(&ca, PEM_MAX_BYTES);
    meed_buf_init(&certificate, PEM_MAX_BYTES);
    meed_buf_init(&key, PEM_MAX_BYTES);
    struct meed_rpc_tls tls = {NULL, NULL, NULL, NULL};
    if (!config->insecure) {
        MEED_TRY_OUT(meed_file_read(config->tls_ca, &ca));
        MEED_TRY_OUT(meed_file_read(config->tls_certificate, &certificate));
        MEED_TRY_OUT(meed_file_read(config->tls_key, &key));
        tls = (struct meed_rpc_tls){ca.data, certificate.data, key.data, NULL};
    } else {
        MEED_LOG_WARN("server", "plain text: clients are who they say they are, and everything "
                                "can be read on the way");
    }
    struct meed_rpc_server_options options = {.address = config->listen,
                                              .tls = config->insecure ? NULL : &tls,
                                              .insecure = config->insecure,
                                              .probe = !config->insecure};
    MEED_TRY_OUT(meed_rpc_grpc_server_start(&options, meed_runner_service(aggregator->runner),
                                            &aggregator->server));
    meed_runner_set_server(aggregator->runner, aggregator->server);
    if (config->metrics_port != 0) {
        MEED_TRY_OUT(meed_metrics_start(MEED_MAX(config->metrics_port, 0), meed_exposition_render,
                                        aggregator->runner, &aggregator->metrics));
    }
out:
    meed_buf_clear(&ca);
    meed_buf_clear(&certificate);
    meed_buf_clear(&key);
    return st;
}

enum meed_status meed_aggregator_create(const struct meed_aggregator_config *config,
                                        struct meed_aggregator **aggregator)
{
    enum meed_status st = MEED_OK;
    MEED_TRY(check_config(config));
    struct meed_aggregator *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(open_model(made, config));
    MEED_TRY_OUT(open_run(made, config));
    MEED_TRY_OUT(listen_on(made, config));
    struct meed_aggregator_event event = {.kind = MEED_AGGREGATOR_LISTENING,
                                          .client = -1,
                                          .port = meed_rpc_server_port(made->server)};
    MEED_LOG_INFO("server", "run %s: listening (port=%d clients=%d rounds=%d)",
                  meed_aggregator_run_id(made), event.port, meed_registry_count(made->registry),
                  config->rounds);
    const struct meed_aggregate_traits *traits = meed_aggregate_traits(config->aggregation);
    MEED_LOG_INFO("server", "rounds are merged by %s: %s", traits->name, traits->text);
    meed_board_emit(meed_runner_board(made->runner), &event);
    *aggregator = made;
    made = NULL;
out:
    meed_aggregator_destroy(made);
    return st;
}

/* ---- life ------------------------------------------------------------------------------------ */

struct meed_rpc_server *meed_aggregator_transport(const struct meed_aggregator *aggregator)
{
    return aggregator->server;
}

int meed_aggregator_port(const struct meed_aggregator *aggregator)
{
    return meed_rpc_server_port(aggregator->server);
}

int meed_aggregator_metrics_port(const struct meed_aggregator *aggregator)
{
    return aggregator->metrics ? meed_metrics_port(aggregator->metrics) : 0;
}

const char *meed_aggregator_run_id(const struct meed_aggregator *aggregator)
{
    return meed_runner_terms(aggregator->runner)->run_id;
}

enum meed_status meed_aggregator_run(struct meed_aggregator *aggregator, int64_t linger_ms)
{
    return meed_runner_run(aggregator->runner, linger_ms);
}

void meed_aggregator_request_stop(struct meed_aggregator *aggregator)
{
    meed_runner_request_stop(aggregator->runner);
}

/* Pages and calls end before what they read. */
void meed_aggregator_destroy(struct meed_aggregator *aggregator)
{
    if (!aggregator) {
        return;
    }
    meed_metrics_stop(aggregator->metrics);
    if (aggregator->runner) {
        meed_runner_set_server(aggregator->runner, NULL);
    }
    if (aggregator->server) {
        meed_rpc_server_stop(aggregator->server, MEED_LIMIT_SHUTDOWN_GRACE_MS);
        meed_rpc_server_destroy(aggregator->server);
    }
    meed_runner_destroy(aggregator->runner);
    meed_registry_destroy(aggregator->registry);
    if (!aggregator->lent) {
        meed_backend_close(aggregator->be);
        meed_pool_destroy(aggregator->pool);
        meed_benchmark_destroy(aggregator->benchmark);
        meed_chat_close(aggregator->chat);
        meed_tokenizer_close(aggregator->tokenizer);
        meed_checkpoint_close(aggregator->checkpoint);
    }
    meed_heap_free(aggregator);
}
