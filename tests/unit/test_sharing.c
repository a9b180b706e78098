/* Sharing rules: which plans make sense, what trains on what, and the line of a receipt. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "proto/sharing.h"

static struct meed_msg_plan fedpit(enum meed_share_rule share, double mix)
{
    return (struct meed_msg_plan){.method = MEED_METHOD_FEDPIT,
                                  .share = share,
                                  .share_mix = mix,
                                  .rank = 8,
                                  .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B,
                                  .codec = {.values = MEED_VALUE_INT8},
                                  .synthetic_count = 16,
                                  .synthetic_candidates = 32,
                                  .instruction_demos = 8,
                                  .response_demos = 4};
}

/* Goal: β = 1 and β = 0 are the two rules in between which a mix lies. */
static void sharing_knows_its_branches(void **state)
{
    (void)state;
    assert_true(meed_sharing_takes_local(MEED_SHARE_ALL, 0.0));
    assert_false(meed_sharing_takes_synthetic(MEED_SHARE_ALL, 0.0));
    assert_false(meed_sharing_takes_local(MEED_SHARE_SYNTHETIC, 0.5));
    assert_true(meed_sharing_takes_synthetic(MEED_SHARE_SYNTHETIC, 0.5));
    assert_true(meed_sharing_takes_local(MEED_SHARE_MIX, 1.0));
    assert_false(meed_sharing_takes_synthetic(MEED_SHARE_MIX, 1.0));
    assert_false(meed_sharing_takes_local(MEED_SHARE_MIX, 0.0));
    assert_true(meed_sharing_takes_synthetic(MEED_SHARE_MIX, 0.0));
    assert_false(meed_sharing_takes_local(MEED_SHARE_NOTHING, 0.5));
    assert_false(meed_sharing_takes_synthetic(MEED_SHARE_NOTHING, 0.5));
}

/* Goal: a client's limit lets through what is less, and names both sides of what is more. */
static void sharing_keeps_within_a_limit(void **state)
{
    (void)state;
    const struct meed_msg_plan plans[] = {fedpit(MEED_SHARE_NOTHING, 0.5),
                                          fedpit(MEED_SHARE_SYNTHETIC, 0.5),
                                          fedpit(MEED_SHARE_MIX, 0.3),
                                          fedpit(MEED_SHARE_MIX, 0.7),
                                          {.method = MEED_METHOD_FEDIT, .share = MEED_SHARE_ALL}};
    static const char *const limits[] = {"none", "synthetic", "0.3", "0.7", "all"};
    for (size_t l = 0; l < MEED_COUNT(limits); l++) {
        double limit = NAN;
        assert_int_equal(meed_sharing_limit_parse(limits[l], &limit), MEED_OK);
        for (size_t p = 0; p < MEED_COUNT(plans); p++) {
            assert_int_equal(meed_sharing_within(&plans[p], limit), p <= l ? MEED_OK : MEED_DENIED);
        }
    }
    double limit = NAN;
    assert_int_equal(meed_sharing_within(&plans[3], 0.0), MEED_DENIED);
    assert_non_null(strstr(meed_last_error(), "a mix with β 0.7"));
    assert_non_null(strstr(meed_last_error(), "synthetic at most"));
    assert_int_equal(meed_sharing_limit_parse("1.5", &limit), MEED_ARG);
    assert_int_equal(meed_sharing_limit_parse("some", &limit), MEED_ARG);
}

/* Goal: contradictions of a plan are refused, each by its own sentence. */
static void sharing_refuses_contradictions(void **state)
{
    (void)state;
    const struct meed_msg_plan good = fedpit(MEED_SHARE_MIX, 0.5);
    struct meed_msg_plan bad;
    assert_int_equal(meed_sharing_check(&good), MEED_OK);
#define BAD(change, word)                                                                          \
    do {                                                                                           \
        bad = good;                                                                                \
        bad.change;                                                                                \
        assert_int_equal(meed_sharing_check(&bad), MEED_FORMAT);                                   \
        assert_non_null(strstr(meed_last_error(), word));                                          \
    } while (0)
    BAD(share = MEED_SHARE_ALL, "the method fedpit");
    BAD(method = MEED_METHOD_FEDIT, "the method fedpit");
    BAD(synthetic_count = 0, "keeps 0 of 32");
    BAD(synthetic_candidates = 8, "keeps 16 of 8");
    BAD(response_demos = 0, "demonstration");
    BAD(keeps_gauge = true, "mix: factors");
    BAD(dp_noise = 1.0, "needs a clip");
    BAD(dp_clip = 1.0, "needs noise above 0");
    bad = good;
    bad.keeps_gauge = true;
    bad.trained_factors = MEED_FACTOR_B; /* with A held still the product is linear in B */
    assert_int_equal(meed_sharing_check(&bad), MEED_OK);
    bad = fedpit(MEED_SHARE_MIX, 1.0);
    bad.synthetic_count = 0; /* β = 1 writes nothing */
    assert_int_equal(meed_sharing_check(&bad), MEED_OK);
    bad = (struct meed_msg_plan){
        .method = MEED_METHOD_SCAFFOLD, .dp_clip = 1.0, .dp_noise = 1.0, .dp_delta = 1e-5};
    assert_int_equal(meed_sharing_check(&bad), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "scaffold"));
}

/* Goal: the line says what, how much and under which rule, and the longest one fits. */
static void sharing_writes_the_line(void **state)
{
    (void)state;
    char line[MEED_LIMIT_PRIVACY_BYTES];
    struct meed_msg_plan plan = fedpit(MEED_SHARE_SYNTHETIC, 0.0);
    struct meed_msg_push_header header = {
        .total_bytes = 34112, .share = MEED_SHARE_SYNTHETIC, .synthetic_count = 16};
    meed_sharing_line(&header, &plan, line);
    assert_string_equal(line, "shared: synthetic, 16 examples written by the global model, private "
                              "branch stayed (as declared); rank 8, int8, 34,112 bytes");
    header.share = MEED_SHARE_NOTHING;
    header.total_bytes = 275;
    meed_sharing_line(&header, &plan, line);
    assert_string_equal(line, "shared: none, the update changes nothing, private branch stayed (as "
                              "declared); rank 8, int8, 275 bytes");
    header = (struct meed_msg_push_header){.total_bytes = INT64_C(1) << 33,
                                           .share = MEED_SHARE_MIX,
                                           .share_mix = 0.123456,
                                           .synthetic_count = 1000000,
                                           .dp_clip = 1.23456e-8,
                                           .dp_noise = 1.23456e-8,
                                           .dp_delta = 1.23456e-8,
                                           .dp_epsilon = 1.23456e+300};
    plan.rank = 1024;
    meed_sharing_line(&header, &plan, line);
    assert_non_null(strstr(line, "epsilon 1.235e+300 at delta 1.23456e-08 so far"));
    assert_non_null(strstr(line, "rank 1024, int8, 8,589,934,592 bytes"));
    header = (struct meed_msg_push_header){.total_bytes = 268000};
    meed_sharing_line(&header, &plan, line);
    assert_string_equal(line, "shared: all, trained on the client's data (as declared); rank 1024, "
                              "int8, 268,000 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharing_knows_its_branches),
        cmocka_unit_test(sharing_keeps_within_a_limit),
        cmocka_unit_test(sharing_refuses_contradictions),
        cmocka_unit_test(sharing_writes_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
