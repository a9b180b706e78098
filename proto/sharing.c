/* See sharing.h. */
#include "proto/sharing.h"

#include <stdio.h>
#include <string.h>
#include "base/parse.h"

const char *meed_sharing_rule_name(enum meed_share_rule rule)
{
    static const char *const names[MEED_SHARE_COUNT] = {"all", "synthetic", "mix", "none"};
    return (unsigned)rule < MEED_SHARE_COUNT ? names[rule] : "?";
}

const char *meed_sharing_space_name(enum meed_mix_space space)
{
    static const char *const names[MEED_MIX_SPACE_COUNT] = {"product", "factors"};
    return (unsigned)space < MEED_MIX_SPACE_COUNT ? names[space] : "?";
}

const char *meed_sharing_method_name(enum meed_method method)
{
    static const char *const names[MEED_METHOD_COUNT] = {"?",   "fedit",  "fedprox", "scaffold",
                                                         "ffa", "rolora", "fedpit"};
    return (unsigned)method < MEED_METHOD_COUNT ? names[method] : "?";
}

bool meed_sharing_takes_local(enum meed_share_rule rule, double share_mix)
{
    return rule == MEED_SHARE_ALL || (rule == MEED_SHARE_MIX && share_mix > 0.0);
}

bool meed_sharing_takes_synthetic(enum meed_share_rule rule, double share_mix)
{
    return rule == MEED_SHARE_SYNTHETIC || (rule == MEED_SHARE_MIX && share_mix < 1.0);
}

enum meed_status meed_sharing_limit_parse(const char *text, double *limit)
{
    static const struct {
        const char *word;
        double limit;
    } words[] = {{"all", 1.0}, {"synthetic", 0.0}, {"none", MEED_SHARING_NOTHING}};
    for (size_t i = 0; i < MEED_COUNT(words); i++) {
        if (strcmp(text, words[i].word) == 0) {
            *limit = words[i].limit;
            return MEED_OK;
        }
    }
    if (meed_parse_f64("the limit", text, 0.0, 1.0, limit) != MEED_OK) {
        return MEED_FAIL(
            MEED_ARG,
            "\"%.32s\" limits no sharing; write all, synthetic, none or the β of a mix, "
            "from 0 to 1",
            text);
    }
    return MEED_OK;
}

enum meed_status meed_sharing_within(const struct meed_msg_plan *plan, double limit)
{
    double asked = plan->share == MEED_SHARE_NOTHING     ? MEED_SHARING_NOTHING
                   : plan->share == MEED_SHARE_SYNTHETIC ? 0.0
                   : plan->share == MEED_SHARE_MIX       ? plan->share_mix
                                                         : 1.0;
    if (asked <= limit) {
        return MEED_OK;
    }
    char wanted[48], allowed[48] = "nothing";
    if (plan->share == MEED_SHARE_MIX) {
        snprintf(wanted, sizeof wanted, "a mix with β %g", plan->share_mix);
    } else {
        snprintf(wanted, sizeof wanted, "%s", meed_sharing_rule_name(plan->share));
    }
    if (limit == 0.0) {
        snprintf(allowed, sizeof allowed, "synthetic");
    } else if (limit > 0.0) {
        snprintf(allowed, sizeof allowed, "a mix with β %g", limit);
    }
    return MEED_FAIL(MEED_DENIED,
                     "round %d asks for %s, this client shares %s at most; nothing was trained or "
                     "sent",
                     plan->round, wanted, allowed);
}

static enum meed_status check_synthesis(const struct meed_msg_plan *plan)
{
    if (plan->synthetic_count < 1 || plan->synthetic_candidates < plan->synthetic_count) {
        return MEED_FAIL(MEED_FORMAT,
                         "fedpit keeps %d of %d synthetic examples; keep at least 1 and no more "
                         "than are written",
                         plan->synthetic_count, plan->synthetic_candidates);
    }
    if (plan->instruction_demos < 1 || plan->response_demos < 1) {
        return MEED_FAIL(MEED_FORMAT, "fedpit writes examples from at least one demonstration, not "
                                      "from none");
    }
    return MEED_OK;
}

static enum meed_status check_mix(const struct meed_msg_plan *plan)
{
    bool both = plan->trained_factors == (MEED_FACTOR_A | MEED_FACTOR_B);
    if (plan->share == MEED_SHARE_MIX && plan->mix_space == MEED_MIX_PRODUCT && both &&
        plan->keeps_gauge) {
        return MEED_FAIL(MEED_FORMAT, "mix: product gives A and B new coordinates, which this "
                                      "aggregation averages as they are; use mix: factors, or "
                                      "aggregate by svd");
    }
    return MEED_OK;
}

static enum meed_status check_privacy(const struct meed_msg_plan *plan)
{
    if (plan->dp_clip == 0.0) {
        return plan->dp_noise == 0.0
                   ? MEED_OK
                   : MEED_FAIL(MEED_FORMAT, "differential privacy needs a clip for its noise");
    }
    if (!(plan->dp_noise > 0.0) || !(plan->dp_delta > 0.0 && plan->dp_delta < 1.0)) {
        return MEED_FAIL(MEED_FORMAT,
                         "differential privacy needs noise above 0 and a delta between 0 and 1, "
                         "not %g and %g",
                         plan->dp_noise, plan->dp_delta);
    }
    if (plan->method == MEED_METHOD_SCAFFOLD) {
        return MEED_FAIL(MEED_FORMAT, "scaffold sends gradients beside the update, which the noise "
                                      "of differential privacy does not cover");
    }
    return MEED_OK;
}

enum meed_status meed_sharing_check(const struct meed_msg_plan *plan)
{
    bool fedpit = plan->method == MEED_METHOD_FEDPIT;
    if (fedpit != (plan->share != MEED_SHARE_ALL)) {
        return MEED_FAIL(MEED_FORMAT, "the method fedpit shares synthetic, mix or none, and no "
                                      "other method does");
    }
    if (fedpit && plan->share != MEED_SHARE_NOTHING &&
        meed_sharing_takes_synthetic(plan->share, plan->share_mix)) {
        MEED_TRY(check_synthesis(plan));
    }
    MEED_TRY(check_mix(plan));
    return check_privacy(plan);
}

/* ---- the line -------------------------------------------------------------------------------- */

/* 1234567 as "1,234,567". */
static void group_digits(int64_t value, char text[32])
{
    char digits[24];
    int size = snprintf(digits, sizeof digits, "%lld", (long long)value), used = 0;
    for (int i = 0; i < size; i++) {
        if (i > 0 && (size - i) % 3 == 0) {
            text[used++] = ',';
        }
        text[used++] = digits[i];
    }
    text[used] = '\0';
}

/* What the update was trained on, in the client's words. */
static int declared_text(const struct meed_msg_push_header *header, char *text, size_t size)
{
    const char *space = meed_sharing_space_name(header->mix_space);
    switch (header->share) {
    case MEED_SHARE_SYNTHETIC:
        return snprintf(text, size, "synthetic, %d examples written by the global model",
                        header->synthetic_count);
    case MEED_SHARE_MIX:
        return snprintf(text, size,
                        "mix (%s), %g of the private branch and %g of one trained on %d examples "
                        "written by the global model",
                        space, header->share_mix, 1.0 - header->share_mix, header->synthetic_count);
    case MEED_SHARE_NOTHING:
        return snprintf(text, size, "none, the update changes nothing");
    default:
        return snprintf(text, size, "all, trained on the client's data");
    }
}

void meed_sharing_line(const struct meed_msg_push_header *header, const struct meed_msg_plan *plan,
                       char line[MEED_LIMIT_PRIVACY_BYTES])
{
    static const char *const codings[MEED_VALUE_COUNT] = {"?", "f32", "bf16", "int8", "int4"};
    char declared[192], bytes[32], noise[128] = "";
    group_digits(header->total_bytes, bytes);
    declared_text(header, declared, sizeof declared);
    if (header->dp_clip > 0.0) {
        snprintf(noise, sizeof noise, "; clipped to %g, noise %g, epsilon %.4g at delta %g so far",
                 header->dp_clip, header->dp_noise, header->dp_epsilon, header->dp_delta);
    }
    bool stayed = header->share == MEED_SHARE_SYNTHETIC || header->share == MEED_SHARE_NOTHING;
    snprintf(line, MEED_LIMIT_PRIVACY_BYTES, "shared: %s%s%s (as declared); rank %d, %s, %s bytes",
             declared, stayed ? ", private branch stayed" : "", noise, plan->rank,
             codings[plan->codec.values], bytes);
}
