/* Every aggregation, server optimiser and weighting by its name, from the first join to the report.
 *
 * Goal: each row of the tables runs three rounds of a federation, says its name in the ledger and
 * gives the same bytes whatever the order of arrival; ranks that stack and fedex keep travel to the
 * clients and grow; what does not go together is refused before anything runs. Method: the
 * in-process federation of clients without a model (federation_fixture.h); nothing here spells a
 * name, the tables do, so a row that only one side knows cannot pass (OpenFedLLM's "fedadgrad").
 */
#include "tests/loop/federation_fixture.h"

#include <math.h>
#include "server/aggregate.h"
#include "server/server_optimiser.h"
#include "server/weighting.h"

enum { CLIENTS = 5, ROUNDS = 3 };

static void init(struct fed *fed, enum meed_aggregation aggregation, enum meed_server_rule rule,
                 enum meed_weighting weighting)
{
    fed_init(fed, CLIENTS);
    fed->config.aggregation = aggregation;
    fed->config.robust =
        (struct meed_robust_options){.attackers = 1, .norm_multiple = 1.0, .trim = 0.2};
    fed->config.frozen_rank = 16;
    fed->config.server = meed_server_optimiser_defaults(rule);
    fed->config.weighting = weighting;
    fed->config.sample_cap = 2.0;
    fed->aligned = meed_aggregate_traits(aggregation)->wants_reference;
}

/* Ranks that came beside the trained ones with the last pull of round ROUNDS. */
static int64_t frozen_of_last_round(struct fed *fed)
{
    struct meed_rpc_client *rpc = fed_client(fed, 0);
    struct fed_pulled pulled = {.adapter = NULL};
    enum meed_status st = MEED_STATE;
    for (int tries = 0; st == MEED_STATE && tries < 4000; tries++) {
        st = fed_pull(fed, rpc, ROUNDS, &pulled);
        if (st == MEED_STATE) {
            meed_clock_sleep_ms(2);
        }
    }
    assert_int_equal(st, MEED_OK);
    int64_t frozen = pulled.adapter->modules[0].r - pulled.plan.rank;
    assert_int_equal(pulled.plan.keeps_gauge,
                     meed_aggregate_traits(fed->config.aggregation)->keeps_gauge);
    fed_pulled_clear(&pulled);
    meed_rpc_client_close(rpc);
    return frozen;
}

static void run(struct fed *fed, bool backwards)
{
    const struct meed_aggregate_traits *traits = meed_aggregate_traits(fed->config.aggregation);
    char report[256], word[96];
    snprintf(report, sizeof report, "%s/report.json", fed->folder);
    fed->report = report;
    fed_start(fed);
    for (int32_t round = 1; round <= ROUNDS; round++) {
        if (round == ROUNDS) {
            assert_true((frozen_of_last_round(fed) > 0) == traits->freezes);
        }
        for (int32_t i = 0; i < CLIENTS; i++) {
            int32_t client = backwards ? CLIENTS - 1 - i : i;
            assert_int_equal(fed_play(fed, client, round, client == 3 ? 0.0 : 0.1), MEED_OK);
        }
    }
    fed_collect(fed, ROUNDS);
    if (fed_stop(fed, true) != MEED_OK) {
        print_error("%s: %s\n", traits->name, fed->outcome_text);
        fail();
    }
    struct meed_buf text;
    fed_read(fed->folder, "ledger.jsonl", &text);
    snprintf(word, sizeof word, "\"method\":\"%s%s%s", traits->name,
             fed->config.server.rule == MEED_SERVER_NONE ? "" : "+",
             fed->config.server.rule == MEED_SERVER_NONE
                 ? ""
                 : meed_server_optimiser_name(fed->config.server.rule));
    assert_non_null(strstr(text.data, word));
    meed_buf_clear(&text);
    fed_read(fed->folder, "report.json", &text);
    assert_non_null(strstr(text.data, "\"fedit_error\""));
    meed_buf_clear(&text);
}

/* Both orders of arrival, one ledger key. */
static void run_both(enum meed_aggregation aggregation, enum meed_server_rule rule,
                     enum meed_weighting weighting)
{
    static struct fed forth, back;
    static char key[256];
    init(&forth, aggregation, rule, weighting);
    run(&forth, false);
    init(&back, aggregation, rule, weighting);
    snprintf(key, sizeof key, "%s/ledger.key", forth.folder);
    back.ledger_key = key;
    run(&back, true);
    assert_true(fed_same_file(forth.folder, back.folder, "ledger.jsonl"));
    assert_true(fed_same_file(forth.folder, back.folder, "adapter/adapter_model.safetensors"));
    fed_remove(forth.folder);
    fed_remove(back.folder);
}

static void strategies_run_end_to_end(void **state)
{
    (void)state;
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        enum meed_aggregation aggregation = MEED_AGGREGATION_COUNT;
        assert_int_equal(
            meed_aggregate_parse(meed_aggregate_name((enum meed_aggregation)i), &aggregation),
            MEED_OK);
        run_both(aggregation, MEED_SERVER_NONE, MEED_WEIGHTING_UNIFORM);
    }
}

static void strategies_take_server_optimisers_where_coordinates_stay(void **state)
{
    (void)state;
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        enum meed_aggregation aggregation = (enum meed_aggregation)i;
        bool takes = meed_aggregate_traits(aggregation)->wants_optimiser;
        for (int rule = MEED_SERVER_NONE + 1; rule < MEED_SERVER_RULE_COUNT; rule++) {
            if (takes) {
                run_both(aggregation, (enum meed_server_rule)rule, MEED_WEIGHTING_UNIFORM);
                continue;
            }
            struct fed fed;
            struct meed_terms terms;
            const char *ids[] = {"a", "b", "c", "d", "e"};
            uint8_t hash[MEED_SHA256_BYTES] = {1};
            struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
            struct meed_terms_source source = {&fed_model, hash, hash, &axis, 1, ids, 5, NULL};
            init(&fed, aggregation, (enum meed_server_rule)rule, MEED_WEIGHTING_UNIFORM);
            assert_int_equal(meed_terms_init(&fed.config, &source, &terms), MEED_CONFIG);
            fed_remove(fed.folder);
        }
    }
}

static void strategies_weigh_by_every_rule(void **state)
{
    (void)state;
    for (int i = 0; i < MEED_WEIGHTING_COUNT; i++) {
        run_both(MEED_AGGREGATION_SVD, MEED_SERVER_NONE, (enum meed_weighting)i);
    }
}

/* A hash in the first entry of this kind; whether it is set. */
static bool is_set(const struct meed_buf *ledger, const char *key)
{
    char word[32];
    snprintf(word, sizeof word, "\"%s\":\"", key);
    const char *at = strstr(ledger->data, word);
    assert_non_null(at);
    return strspn(at + strlen(word), "0") < 64;
}

static void strategies_are_repaired(void **state)
{
    (void)state;
    static struct fed fed;
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        struct meed_buf ledger;
        init(&fed, (enum meed_aggregation)i, MEED_SERVER_NONE, MEED_WEIGHTING_UNIFORM);
        fed.aligned = true;
        fed.config.align.repair_steps = 3;
        fed.config.align.repair_lr = 0.1;
        run(&fed, false);
        fed_read(fed.folder, "ledger.jsonl", &ledger);
        assert_true(is_set(&ledger, "merged"));
        assert_int_equal(is_set(&ledger, "reference"),
                         meed_aggregate_traits((enum meed_aggregation)i)->wants_reference);
        assert_non_null(strstr(ledger.data, "+repair\""));
        meed_buf_clear(&ledger);
        fed_remove(fed.folder);
    }
    struct meed_terms terms;
    const char *ids[] = {"a"};
    uint8_t hash[MEED_SHA256_BYTES] = {1};
    struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
    struct meed_terms_source source = {&fed_model, hash, hash, &axis, 1, ids, 1, NULL};
    init(&fed, MEED_AGGREGATION_SVD, MEED_SERVER_NONE, MEED_WEIGHTING_UNIFORM);
    fed.config.align.repair_steps = 3; /* on what? */
    assert_int_equal(meed_terms_init(&fed.config, &source, &terms), MEED_CONFIG);
    fed_remove(fed.folder);
}

static bool kept_in(struct fed *fed, int32_t client, int32_t round)
{
    struct meed_rpc_client *rpc = fed_client(fed, client);
    struct meed_msg_receipt receipt;
    assert_int_equal(fed_receipt(fed, rpc, round, &receipt), MEED_OK);
    meed_rpc_client_close(rpc);
    return receipt.state != MEED_RECEIPT_EXCLUDED;
}

/* c is the mean of what clients that were not excluded sent, comes with the next plan, and does not
 * know their order. */
static void strategies_carry_control_variates(void **state)
{
    (void)state;
    static struct fed both[2];
    static char key[256];
    static struct fed_pulled pulled;
    for (int f = 0; f < 2; f++) {
        struct fed *fed = &both[f];
        init(fed, MEED_AGGREGATION_FEDAVG, MEED_SERVER_NONE, MEED_WEIGHTING_UNIFORM);
        fed->config.plan.method = MEED_METHOD_SCAFFOLD;
        snprintf(key, sizeof key, "%s/ledger.key", both[0].folder);
        fed->ledger_key = f == 1 ? key : NULL;
        fed_start(fed);
        double want[1024] = {0.0};
        for (int32_t round = 1; round <= ROUNDS; round++) {
            struct meed_rpc_client *rpc = fed_client(fed, 0);
            enum meed_status st = MEED_STATE;
            for (int tries = 0; st == MEED_STATE && tries < 4000; tries++) {
                meed_clock_sleep_ms(2);
                st = fed_pull(fed, rpc, round, &pulled);
            }
            assert_int_equal(st, MEED_OK);
            int64_t values = meed_adapter_value_count(pulled.adapter);
            float drawn[1024];
            assert_true(values < 1024);
            assert_int_equal(pulled.plan.control_bytes,
                             round == 1 ? 0 : values * (int64_t)sizeof(float));
            for (int64_t i = 0; i < values; i++) {
                double miss = fabs((double)pulled.control[i] - want[i]);
                assert_true(miss <= 1e-7 * round);
            }
            for (int32_t i = 0; i < CLIENTS; i++) {
                int32_t client = f == 0 ? i : CLIENTS - 1 - i;
                assert_int_equal(fed_play(fed, client, round, 0.1), MEED_OK);
            }
            fed_collect(fed, round);
            for (int32_t i = 0; i < CLIENTS; i++) {
                fed_draw(fed->ids[i], "control ", round, 0.1, values, drawn);
                bool in = kept_in(fed, i, round);
                for (int64_t j = 0; j < values; j++) {
                    want[j] += in ? (double)drawn[j] / CLIENTS : 0.0;
                }
            }
            fed_pulled_clear(&pulled);
            meed_rpc_client_close(rpc);
        }
        fed_collect(fed, ROUNDS);
        assert_int_equal(fed_stop(fed, true), MEED_OK);
    }
    assert_true(fed_same_file(both[0].folder, both[1].folder, "ledger.jsonl"));
    fed_remove(both[0].folder);
    fed_remove(both[1].folder);
}

/* Variates have coordinates: merges that change them are refused. */
static void strategies_refuse_variates_without_coordinates(void **state)
{
    (void)state;
    struct fed fed;
    struct meed_terms terms;
    const char *ids[] = {"a", "b", "c", "d", "e"};
    uint8_t hash[MEED_SHA256_BYTES] = {1};
    struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
    struct meed_terms_source source = {&fed_model, hash, hash, &axis, 1, ids, 5, NULL};
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        enum meed_aggregation aggregation = (enum meed_aggregation)i;
        init(&fed, aggregation, MEED_SERVER_NONE, MEED_WEIGHTING_UNIFORM);
        fed.config.plan.method = MEED_METHOD_SCAFFOLD;
        fed.config.align.run = fed_align;
        fed.config.align.data_hash = hash;
        assert_int_equal(meed_terms_init(&fed.config, &source, &terms),
                         meed_aggregate_traits(aggregation)->keeps_gauge ? MEED_OK : MEED_CONFIG);
        fed_remove(fed.folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strategies_run_end_to_end),
        cmocka_unit_test(strategies_take_server_optimisers_where_coordinates_stay),
        cmocka_unit_test(strategies_weigh_by_every_rule),
        cmocka_unit_test(strategies_are_repaired),
        cmocka_unit_test(strategies_carry_control_variates),
        cmocka_unit_test(strategies_refuse_variates_without_coordinates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
