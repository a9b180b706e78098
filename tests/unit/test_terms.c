/* The terms: budgets that add up, hashes that see every change, plans that say what was agreed.
 *
 * Goal: the rounds' budgets differ by at most one and sum to the run's, also near the largest
 * budget; whatever decides about money or model changes the hash and what does not, does not.
 * Method: one config, changed member by member.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "server/terms.h"

static const char *const ids[] = {"anna", "ben"};
static const struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
static const struct meed_model_config model = {.hidden = 8, .layers = 1};
static const uint8_t hash[MEED_SHA256_BYTES] = {7};

static struct meed_aggregator_config base(void)
{
    struct meed_aggregator_config config = meed_aggregator_defaults();
    config.model = "model";
    return config;
}

static struct meed_terms terms_of(const struct meed_aggregator_config *config)
{
    struct meed_terms terms;
    struct meed_terms_source source = {&model, hash, hash, &axis, 1, ids, 2};
    assert_int_equal(meed_terms_init(config, &source, &terms), MEED_OK);
    return terms;
}

static void terms_spread_the_budget(void **state)
{
    (void)state;
    static const int64_t budgets[] = {0, 1, 7, 1000, MEED_LIMIT_CREDITS};
    for (size_t b = 0; b < MEED_COUNT(budgets); b++) {
        for (int32_t rounds = 1; rounds < 40; rounds += 6) {
            struct meed_aggregator_config config = base();
            config.budget = budgets[b];
            config.rounds = rounds;
            struct meed_terms terms = terms_of(&config);
            int64_t sum = 0, least = INT64_MAX, most = 0;
            for (int32_t round = 1; round <= rounds; round++) {
                int64_t one = meed_terms_budget(&terms, round);
                sum += one;
                least = MEED_MIN(least, one);
                most = MEED_MAX(most, one);
            }
            assert_true(sum == budgets[b]);
            assert_true(most - least <= 1);
        }
    }
}

static bool changes(const struct meed_aggregator_config *config)
{
    struct meed_aggregator_config before = base();
    struct meed_terms old = terms_of(&before), now = terms_of(config);
    bool other = memcmp(old.hash, now.hash, sizeof old.hash) != 0;
    assert_int_equal(other, strcmp(old.run_id, now.run_id) != 0);
    return other;
}

static void terms_hash_what_matters(void **state)
{
    (void)state;
    struct meed_aggregator_config config = base();
    assert_false(changes(&config));
    config.deadline_ms++;
    config.threads = 7;
    config.listen = "0.0.0.0:1";
    config.metrics_port = 9;
    config.quorum = 1;
    assert_false(changes(&config));
#define CHANGE(member, value)                                                                      \
    do {                                                                                           \
        config = base();                                                                           \
        config.member = value;                                                                     \
        assert_true(changes(&config));                                                             \
    } while (0)
    CHANGE(rounds, 4);
    CHANGE(budget, 5);
    CHANGE(seed, 99);
    CHANGE(plan.lr, 1e-3);
    CHANGE(plan.steps, 7);
    CHANGE(plan.rank, 4);
    CHANGE(plan.alpha, 4);
    CHANGE(plan.target_modules, 1);
    CHANGE(plan.codec.values, MEED_VALUE_INT4);
    CHANGE(aggregation, MEED_AGGREGATION_FEDAVG);
    CHANGE(clip_multiple, 2);
    CHANGE(defence[MEED_DETECTOR_GAP], MEED_DEFENCE_REFUSE);
    CHANGE(quarantine.strikes, 2);
    CHANGE(rule, MEED_PAY_PROPORTIONAL);
    CHANGE(rule, MEED_PAY_EQUAL);
    CHANGE(method, MEED_VALUE_LEAVE_ONE_OUT);
    CHANGE(guard_z, 1);
    CHANGE(bootstrap, 10);
#undef CHANGE
}

static void terms_refuse_what_cannot_be(void **state)
{
    (void)state;
    struct meed_terms terms;
    struct meed_terms_source source = {&model, hash, hash, &axis, 1, ids, 2};
    struct meed_aggregator_config config = base();
    config.budget = -1;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.plan.rank = 0;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.plan.target_modules = 0;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.defence[MEED_DETECTOR_SPAN] = MEED_DEFENCE_REFUSE;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.clip_multiple = -1;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.quarantine = (struct meed_quarantine_options){1, 0, 0};
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.run_id = "no/path";
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config.run_id = "named";
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_OK);
    assert_string_equal(terms.run_id, "named");
    assert_int_equal(terms.quorum, 2);
}

static void terms_make_plans_and_headers(void **state)
{
    (void)state;
    struct meed_aggregator_config config = base();
    struct meed_terms terms = terms_of(&config);
    struct meed_msg_plan plan;
    struct meed_update_header header;
    meed_terms_plan(&terms, 2, hash, 77, 1234, &plan);
    assert_int_equal(plan.round, 2);
    assert_int_equal(plan.adapter_bytes, 77);
    assert_int_equal(plan.remaining_ms, 1234);
    assert_true(plan.seed == meed_terms_seed(&terms, 2));
    assert_true(plan.seed != meed_terms_seed(&terms, 1));
    meed_terms_update_header(&terms, "ben", 2, hash, &header);
    assert_string_equal(header.client_id, "ben");
    assert_true(header.seed == plan.seed && header.round == 2);
    assert_memory_equal(header.base_adapter_hash, hash, sizeof hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_spread_the_budget),
        cmocka_unit_test(terms_hash_what_matters),
        cmocka_unit_test(terms_refuse_what_cannot_be),
        cmocka_unit_test(terms_make_plans_and_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
