/* See terms.h. */
#include "server/terms.h"

#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/rng.h"
#include "evaluation/payment.h"
#include "proto/codec.h"
#include "proto/sharing.h"
#include "server/aggregate.h"
#include "server/server_optimiser.h"
#include "server/terms_text.h"

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
    struct meed_payment_policy policy = {.reputation = config->reputation,
                                         .floor = config->pay_floor};
    return meed_payment_check(&policy);
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

static const char *estimator_name(enum meed_value_method method)
{
    return method == MEED_VALUE_LEAVE_ONE_OUT ? "leave-one-out" : meed_estimator_name(method);
}

struct meed_lora_config meed_terms_lora(const struct meed_msg_plan *plan)
{
    return (struct meed_lora_config){.rank = plan->rank,
                                     .alpha = (float)plan->alpha,
                                     .rslora = plan->rslora,
                                     .dropout = (float)plan->dropout,
                                     .targets = plan->target_modules};
}

void meed_terms_complete(struct meed_terms *terms)
{
    terms->plan.keeps_gauge = meed_aggregate_traits(terms->aggregation)->keeps_gauge;
    terms->lora = meed_terms_lora(&terms->plan);
    snprintf(terms->estimator, sizeof terms->estimator, "%s", estimator_name(terms->value.method));
    snprintf(terms->payment, sizeof terms->payment, "%s",
             meed_payment_rule_name(terms->value.rule));
    if (!terms->named) {
        char hex[MEED_SHA256_HEX_BYTES];
        meed_sha256_hex(terms->hash, hex);
        snprintf(terms->run_id, sizeof terms->run_id, "run-%.12s", hex);
    }
}

static enum meed_status hash_terms(const struct meed_terms_source *source, struct meed_terms *terms)
{
    struct meed_buf text;
    meed_buf_init(&text, MEED_TERMS_TEXT_MAX_BYTES);
    enum meed_status st =
        meed_terms_text_write(terms, source->clients, source->client_count, &text);
    if (st == MEED_OK) {
        meed_sha256(text.data, text.size, terms->hash);
    }
    meed_buf_clear(&text);
    return st;
}

/* What a client would refuse of the first round's plan, said before there are clients. */
static enum meed_status check_training(const struct meed_terms *terms)
{
    struct meed_msg_plan first = terms->plan;
    first.trained_factors = meed_terms_trained(terms, 1);
    return meed_sharing_check(&first) == MEED_OK
               ? MEED_OK
               : MEED_FAIL(MEED_CONFIG, "training: %s", meed_last_error());
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
    snprintf(terms->benchmark_path, sizeof terms->benchmark_path, "%s",
             config->benchmark ? config->benchmark : "");
    snprintf(terms->data_path, sizeof terms->data_path, "%s",
             config->align.data_path ? config->align.data_path : "");
    snprintf(terms->machine, sizeof terms->machine, "%s", source->machine ? source->machine : "");
    terms->rounds = config->rounds;
    terms->quorum = config->quorum > 0 ? config->quorum : source->client_count;
    terms->deadline_ms = config->deadline_ms;
    terms->budget = config->budget;
    terms->seed = config->seed;
    set_plan(config, terms);
    terms->value = (struct meed_terms_value){.method = config->method,
                                             .rule = config->rule,
                                             .path = config->path,
                                             .bootstrap = config->bootstrap,
                                             .guard_z = config->guard_z,
                                             .reputation = config->reputation,
                                             .floor = config->pay_floor};
    terms->quarantine = config->quarantine;
    terms->defence.clip_multiple = config->clip_multiple;
    memcpy(terms->defence.actions, config->defence, sizeof terms->defence.actions);
    MEED_TRY(meed_quarantine_check(&terms->quarantine));
    MEED_TRY(meed_defence_check(&terms->defence));
    terms->axis_count = MEED_MIN(source->axis_count, MEED_BENCHMARK_MAX_AXES);
    for (int32_t i = 0; i < terms->axis_count; i++) {
        terms->axes[i] = source->axes[i];
    }
    terms->named = config->run_id != NULL;
    snprintf(terms->run_id, sizeof terms->run_id, "%s", terms->named ? config->run_id : "");
    MEED_TRY(hash_terms(source, terms));
    meed_terms_complete(terms);
    return check_training(terms);
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
