/* See terms.h. */
#include "server/terms.h"

#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/rng.h"
#include "evaluation/payment.h"
#include "proto/codec.h"
#include "server/aggregate.h"
#include "server/server_optimiser.h"

static const char *estimator_name(enum meed_value_method method)
{
    return method == MEED_VALUE_LEAVE_ONE_OUT ? "leave-one-out" : meed_estimator_name(method);
}

/* One line a fact, doubles in hexadecimal: the same terms are the same text everywhere. */
static enum meed_status write_plan(const struct meed_msg_plan *plan, struct meed_buf *text)
{
    MEED_TRY(meed_buf_printf(
        text, "method %d prox %a steps %d batch %d accumulation %d length %d\n", (int)plan->method,
        plan->prox_mu, plan->steps, plan->batch_tokens, plan->accumulation, plan->sequence_tokens));
    MEED_TRY(meed_buf_printf(text, "lr %a %a warmup %d decay %a betas %a %a eps %a clip %a\n",
                             plan->lr, plan->lr_min, plan->warmup_steps, plan->weight_decay,
                             plan->beta1, plan->beta2, plan->epsilon, plan->clip_norm));
    MEED_TRY(meed_buf_printf(text, "lora %d %a %d %a %u %u\n", plan->rank, plan->alpha,
                             plan->rslora, plan->dropout, plan->target_modules,
                             plan->trained_factors));
    MEED_TRY(meed_buf_printf(text, "codec %d %a %a %d %d\n", (int)plan->codec.values,
                             plan->codec.density_a, plan->codec.density_b, plan->codec.group_size,
                             plan->codec.zstd_level));
    return meed_buf_printf(text, "share %d %a %d\n", (int)plan->share, plan->share_mix,
                           plan->synthetic_count);
}

static enum meed_status write_merge(const struct meed_terms *terms, struct meed_buf *text)
{
    const struct meed_robust_options *robust = &terms->robust;
    const struct meed_server_options *server = &terms->server;
    MEED_TRY(meed_buf_printf(text, "robust %d %d %a %a frozen %d weights %d %a\n",
                             robust->attackers, robust->selected, robust->trim,
                             robust->norm_multiple, terms->frozen_rank, (int)terms->weighting,
                             terms->sample_cap));
    char align[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(terms->align_hash, align);
    MEED_TRY(
        meed_buf_printf(text, "repair %d %a %s\n", terms->repair_steps, terms->repair_lr, align));
    return meed_buf_printf(text, "server %d %a %a %a %a\n", (int)server->rule, server->lr,
                           server->beta1, server->beta2, server->tau);
}

static enum meed_status write_defence(const struct meed_terms *terms, struct meed_buf *text)
{
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        MEED_TRY(meed_buf_printf(text, "defence %s %s\n", meed_detector_name((enum meed_detector)d),
                                 meed_defence_action_name(terms->defence.actions[d])));
    }
    return meed_buf_printf(text, "quarantine %d %d %d\n", terms->quarantine.strikes,
                           terms->quarantine.rounds, terms->quarantine.probation);
}

static enum meed_status hash_terms(const struct meed_aggregator_config *config,
                                   const struct meed_terms_source *source, struct meed_terms *terms)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    meed_buf_init(&text, 4u << 20);
    char model[MEED_SHA256_HEX_BYTES], benchmark[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(source->model_hash, model);
    meed_sha256_hex(source->benchmark_hash, benchmark);
    MEED_TRY_OUT(meed_buf_printf(&text, "meed terms 1\nrun %s\nmodel %s\nbenchmark %s\n",
                                 config->run_id ? config->run_id : "", model, benchmark));
    MEED_TRY_OUT(meed_buf_printf(&text, "rounds %d budget %lld seed %llu\n", terms->rounds,
                                 (long long)terms->budget, (unsigned long long)terms->seed));
    MEED_TRY_OUT(write_plan(&terms->plan, &text));
    MEED_TRY_OUT(meed_buf_printf(&text, "aggregation %s clip %a\n",
                                 meed_aggregate_name(terms->aggregation),
                                 terms->defence.clip_multiple));
    MEED_TRY_OUT(write_merge(terms, &text));
    MEED_TRY_OUT(write_defence(terms, &text));
    MEED_TRY_OUT(meed_buf_printf(&text, "value %s %s path %d bootstrap %d guard %a\n",
                                 terms->estimator, terms->payment, (int)config->path,
                                 config->bootstrap, config->guard_z));
    for (int32_t i = 0; i < source->client_count; i++) {
        MEED_TRY_OUT(meed_buf_printf(&text, "client %s\n", source->clients[i]));
    }
    meed_sha256(text.data, text.size, terms->hash);
out:
    meed_buf_clear(&text);
    return st;
}

static enum meed_status check_config(const struct meed_aggregator_config *config)
{
    const struct meed_msg_plan *plan = &config->plan;
    if (config->budget < 0 || config->budget > MEED_LIMIT_CREDITS) {
        return MEED_FAIL(MEED_CONFIG, "budget is %lld; 0 to %lld", (long long)config->budget,
                         (long long)MEED_LIMIT_CREDITS);
    }
    if (plan->rank < 1 || plan->rank > MEED_LIMIT_RANK || !(plan->alpha > 0.0)) {
        return MEED_FAIL(MEED_CONFIG, "rank is %d and alpha %g; rank is 1 to %d, alpha positive",
                         plan->rank, plan->alpha, MEED_LIMIT_RANK);
    }
    if (plan->target_modules == 0 || (plan->target_modules & ~(uint32_t)MEED_PROJ_ALL) != 0) {
        return MEED_FAIL(MEED_CONFIG, "no projection is adapted");
    }
    if (config->run_id && !meed_codec_id_valid(config->run_id)) {
        return MEED_FAIL(MEED_CONFIG, "\"%.64s\" cannot be a run id: 1 to 63 of A-Z a-z 0-9 . _ -",
                         config->run_id);
    }
    return MEED_OK;
}

static enum meed_status check_align(const struct meed_align_options *align,
                                    const struct meed_aggregate_traits *traits)
{
    if (!align->run && (traits->wants_reference || align->repair_steps != 0)) {
        return MEED_FAIL(MEED_CONFIG, "%s needs data of the operator's own: name it as repair.data",
                         traits->wants_reference ? traits->name : "repair");
    }
    if (align->repair_steps < 0 || (align->repair_steps > 0 && !(align->repair_lr > 0.0))) {
        return MEED_FAIL(MEED_CONFIG, "repair: steps must be at least 0 and lr positive");
    }
    return MEED_OK;
}

/* Combinations that cannot keep what their parts promise. */
static enum meed_status check_merge(const struct meed_aggregator_config *config, int32_t clients)
{
    int32_t quorum = config->quorum > 0 ? config->quorum : clients;
    MEED_TRY(meed_aggregate_check(config->aggregation, &config->robust, quorum));
    const struct meed_aggregate_traits *traits = meed_aggregate_traits(config->aggregation);
    int32_t most = MEED_ADAPTER_MAX_RANK - config->plan.rank;
    MEED_TRY(check_align(&config->align, traits));
    if (traits->freezes && (config->frozen_rank < 1 || config->frozen_rank > most)) {
        return MEED_FAIL(MEED_CONFIG, "%s keeps %d ranks beside the trained ones; write 1 to %d",
                         traits->name, config->frozen_rank, most);
    }
    if (traits->freezes && config->plan.dropout > 0.0) {
        return MEED_FAIL(MEED_CONFIG,
                         "%s keeps ranks that dropout would thin out too; set dropout "
                         "to 0",
                         traits->name);
    }
    if (config->weighting < 0 || config->weighting >= MEED_WEIGHTING_COUNT ||
        (config->weighting == MEED_WEIGHTING_SAMPLES && !(config->sample_cap >= 1.0))) {
        return MEED_FAIL(MEED_CONFIG, "weights are uniform, samples (capped at 1 or more medians) "
                                      "or contribution");
    }
    if (config->plan.method == MEED_METHOD_SCAFFOLD && !traits->keeps_gauge) {
        return MEED_FAIL(MEED_CONFIG,
                         "%s does not keep coordinates that scaffold's control variates could "
                         "belong to; aggregate by fedavg, ffa, rolora or fedex",
                         traits->name);
    }
    return meed_server_optimiser_check(&config->server, traits);
}

/* The method that the aggregation asks clients for goes before the operator's FedIT. */
static void set_plan(const struct meed_aggregator_config *config, struct meed_terms *terms)
{
    const struct meed_aggregate_traits *traits = meed_aggregate_traits(config->aggregation);
    terms->plan = config->plan;
    if (config->plan.method == MEED_METHOD_FEDIT) {
        terms->plan.method = traits->method;
    }
    terms->plan.keeps_gauge = traits->keeps_gauge;
    terms->aggregation = config->aggregation;
    terms->robust = config->robust;
    terms->frozen_rank = config->frozen_rank;
    terms->weighting = config->weighting;
    terms->sample_cap = config->sample_cap;
    terms->server = config->server;
    terms->repair_steps = config->align.repair_steps;
    terms->repair_lr = config->align.repair_lr;
    if (config->align.run) {
        memcpy(terms->align_hash, config->align.data_hash, MEED_SHA256_BYTES);
    }
}

enum meed_status meed_terms_init(const struct meed_aggregator_config *config,
                                 const struct meed_terms_source *source, struct meed_terms *terms)
{
    MEED_TRY(check_config(config));
    MEED_TRY(check_merge(config, source->client_count));
    memset(terms, 0, sizeof *terms);
    terms->model = *source->model;
    memcpy(terms->model_hash, source->model_hash, MEED_SHA256_BYTES);
    memcpy(terms->benchmark_hash, source->benchmark_hash, MEED_SHA256_BYTES);
    snprintf(terms->base_model, sizeof terms->base_model, "%s", config->model);
    terms->rounds = config->rounds;
    terms->quorum = config->quorum > 0 ? config->quorum : source->client_count;
    terms->deadline_ms = config->deadline_ms;
    terms->budget = config->budget;
    terms->seed = config->seed;
    set_plan(config, terms);
    terms->lora = (struct meed_lora_config){.rank = config->plan.rank,
                                            .alpha = (float)config->plan.alpha,
                                            .rslora = config->plan.rslora,
                                            .dropout = (float)config->plan.dropout,
                                            .targets = config->plan.target_modules};
    terms->quarantine = config->quarantine;
    terms->defence.clip_multiple = config->clip_multiple;
    memcpy(terms->defence.actions, config->defence, sizeof terms->defence.actions);
    MEED_TRY(meed_quarantine_check(&terms->quarantine));
    MEED_TRY(meed_defence_check(&terms->defence));
    snprintf(terms->estimator, sizeof terms->estimator, "%s", estimator_name(config->method));
    snprintf(terms->payment, sizeof terms->payment, "%s", meed_payment_rule_name(config->rule));
    terms->axis_count = MEED_MIN(source->axis_count, MEED_BENCHMARK_MAX_AXES);
    for (int32_t i = 0; i < terms->axis_count; i++) {
        terms->axes[i] = source->axes[i];
    }
    MEED_TRY(hash_terms(config, source, terms));
    if (config->run_id) {
        snprintf(terms->run_id, sizeof terms->run_id, "%s", config->run_id);
    } else {
        char hex[MEED_SHA256_HEX_BYTES];
        meed_sha256_hex(terms->hash, hex);
        snprintf(terms->run_id, sizeof terms->run_id, "run-%.12s", hex);
    }
    return MEED_OK;
}

/* budget·r/rounds without overflow: the quotient and the remainder are spread apart. */
static int64_t spent_before(const struct meed_terms *terms, int64_t rounds_done)
{
    int64_t each = terms->budget / terms->rounds, rest = terms->budget % terms->rounds;
    return each * rounds_done + rest * rounds_done / terms->rounds;
}

int64_t meed_terms_budget(const struct meed_terms *terms, int32_t round)
{
    return spent_before(terms, round) - spent_before(terms, round - 1);
}

uint32_t meed_terms_trained(const struct meed_terms *terms, int32_t round)
{
    return terms->plan.trained_factors & meed_aggregate_trained(terms->aggregation, round);
}

uint64_t meed_terms_seed(const struct meed_terms *terms, int32_t round)
{
    struct meed_rng rng = meed_rng_stream(terms->seed, "round", (uint64_t)round);
    return meed_rng_u64(&rng);
}

void meed_terms_plan(const struct meed_terms *terms, int32_t round,
                     const uint8_t adapter_hash[MEED_SHA256_BYTES], int64_t adapter_bytes,
                     int64_t remaining_ms, struct meed_msg_plan *plan)
{
    *plan = terms->plan;
    plan->round = round;
    plan->trained_factors = meed_terms_trained(terms, round);
    plan->seed = meed_terms_seed(terms, round);
    plan->remaining_ms = remaining_ms;
    plan->deadline_wall_ms = meed_clock_wall_ms() + remaining_ms;
    memcpy(plan->adapter_hash, adapter_hash, MEED_SHA256_BYTES);
    plan->adapter_bytes = adapter_bytes;
}

void meed_terms_update_header(const struct meed_terms *terms, const char *client, int32_t round,
                              const uint8_t base_hash[MEED_SHA256_BYTES],
                              struct meed_update_header *header)
{
    memset(header, 0, sizeof *header);
    snprintf(header->run_id, sizeof header->run_id, "%s", terms->run_id);
    snprintf(header->client_id, sizeof header->client_id, "%s", client);
    header->round = round;
    header->seed = meed_terms_seed(terms, round);
    memcpy(header->base_adapter_hash, base_hash, MEED_SHA256_BYTES);
}
