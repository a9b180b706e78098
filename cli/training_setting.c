/* See training_setting.h. */
#include "cli/training_setting.h"

#include <string.h>
#include "base/parse.h"
#include "client/synthesis.h"
#include "proto/sharing.h"

static void clear_fedpit(struct meed_msg_plan *plan)
{
    plan->share = MEED_SHARE_ALL;
    plan->share_mix = 0.0;
    plan->mix_space = MEED_MIX_PRODUCT;
    plan->synthetic_candidates = plan->synthetic_count = 0;
    plan->instruction_demos = plan->response_demos = 0;
    plan->synthetic_retries = plan->synthetic_turns = plan->opening_words = 0;
    plan->rouge_max = plan->synthetic_temperature = 0.0;
    plan->synthetic_score = MEED_SYNTHETIC_IFS;
    plan->synthetic_form = MEED_SYNTHETIC_DIALOGUE;
}

void meed_training_setting_method(struct meed_msg_plan *plan, enum meed_method method)
{
    const struct meed_synthesis_options usual = meed_synthesis_defaults();
    bool there = method == MEED_METHOD_FEDPIT && plan->method == method;
    if (plan->method != 0 && plan->method != method) {
        plan->prox_mu = method == MEED_METHOD_FEDPROX ? 0.01 : 0.0;
    }
    plan->method = method;
    if (there) {
        return;
    }
    clear_fedpit(plan);
    if (method == MEED_METHOD_FEDPIT) {
        plan->share = MEED_SHARE_SYNTHETIC;
        plan->synthetic_candidates = usual.candidates;
        plan->synthetic_count = usual.keep;
        plan->instruction_demos = usual.instruction_demos;
        plan->response_demos = usual.response_demos;
        plan->rouge_max = usual.rouge_max;
        plan->synthetic_retries = usual.retries;
        plan->synthetic_turns = usual.turns;
        plan->opening_words = usual.opening_words;
        plan->synthetic_temperature = usual.temperature;
        plan->synthetic_score = (enum meed_synthetic_score)usual.score;
        plan->synthetic_form = (enum meed_synthetic_form)usual.form;
    }
}

void meed_training_setting_share(struct meed_msg_plan *plan, enum meed_share_rule share)
{
    if (share == MEED_SHARE_ALL) {
        meed_training_setting_method(plan, MEED_METHOD_FEDIT);
        return;
    }
    meed_training_setting_method(plan, MEED_METHOD_FEDPIT);
    if (share != MEED_SHARE_MIX) {
        plan->share_mix = 0.0;
        plan->mix_space = MEED_MIX_PRODUCT;
    } else if (plan->share != MEED_SHARE_MIX) {
        plan->share_mix = 0.5;
    }
    plan->share = share;
}

static enum meed_status set_method(struct meed_msg_plan *plan, const char *value)
{
    static const enum meed_method methods[] = {MEED_METHOD_FEDIT, MEED_METHOD_FEDPROX,
                                               MEED_METHOD_SCAFFOLD, MEED_METHOD_FEDPIT};
    for (size_t i = 0; i < MEED_COUNT(methods); i++) {
        if (strcmp(value, meed_sharing_method_name(methods[i])) == 0) {
            meed_training_setting_method(plan, methods[i]);
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "no method \"%.32s\"; there are fedit, fedprox, scaffold and fedpit",
                     value);
}

static enum meed_status set_share(struct meed_msg_plan *plan, const char *value)
{
    for (int i = 0; i < MEED_SHARE_COUNT; i++) {
        if (strcmp(value, meed_sharing_rule_name((enum meed_share_rule)i)) == 0) {
            meed_training_setting_share(plan, (enum meed_share_rule)i);
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "no rule \"%.32s\"; there are all, synthetic, mix and none", value);
}

static enum meed_status set_beta(struct meed_msg_plan *plan, const char *value)
{
    double beta = 0.0;
    MEED_TRY(meed_parse_f64("beta", value, 0, 1, &beta));
    meed_training_setting_share(plan, MEED_SHARE_MIX);
    plan->share_mix = beta;
    return MEED_OK;
}

static enum meed_status set_mix(struct meed_msg_plan *plan, const char *value)
{
    for (int i = 0; i < MEED_MIX_SPACE_COUNT; i++) {
        if (strcmp(value, meed_sharing_space_name((enum meed_mix_space)i)) == 0) {
            meed_training_setting_share(plan, MEED_SHARE_MIX);
            plan->mix_space = (enum meed_mix_space)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "no space \"%.32s\" to mix in; there are product and factors",
                     value);
}

enum meed_status meed_training_setting_set(struct meed_msg_plan *plan, const char *key,
                                           const char *value)
{
    static const struct {
        const char *key;
        enum meed_status (*set)(struct meed_msg_plan *plan, const char *value);
    } settings[] = {
        {"method", set_method}, {"share", set_share}, {"beta", set_beta}, {"mix", set_mix}};
    for (size_t i = 0; i < MEED_COUNT(settings); i++) {
        if (strcmp(key, settings[i].key) == 0) {
            return settings[i].set(plan, value);
        }
    }
    return MEED_FAIL(MEED_ARG, "no setting training.%.32s; there are method, share, beta and mix",
                     key);
}
