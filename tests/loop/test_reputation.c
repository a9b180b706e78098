/* Reputation and floor in a run: replayed from the ledger, through a restart, against float64.
 *
 * Goal: a standing is the pay of the last round that a client took part in, 1 the mean of those
 * paid; pay in a run is the moving average that evaluation/payment.h defines, floor included; a
 * remark of the screens and a reason of the valuation stand side by side in ledger and receipt; a
 * server stopped in the middle writes the same ledger. Method: rounds by hand; federations of the
 * fixture whose value function draws φ from (client, round) and pays by the product's own rule, and
 * the definition once more in this file, without credits.
 */
#include <math.h>
#include "evaluation/payment.h"
#include "server/reputation.h"
#include "tests/loop/federation_fixture.h"

enum { CLIENTS = 4, ROUNDS = 6, BAD = 1 };

static const double lambda = 0.3, heads_part = 0.1;
static const int64_t budget = INT64_C(6000000000000); /* of the run: rounding is far below 1e-9 */

static void reputation_reads_the_last_round_there(void **state)
{
    (void)state;
    static const char *const names[] = {"anna", "ben", "cleo", "dora", "zoe"};
    struct meed_ledger_client last[] = {{.id = "anna", .state = MEED_RECEIPT_PAID, .share = 300},
                                        {.id = "ben", .state = MEED_RECEIPT_ABSENT},
                                        {.id = "cleo", .state = MEED_RECEIPT_EXCLUDED},
                                        {.id = "dora", .state = MEED_RECEIPT_PAID, .share = 100}};
    struct meed_ledger_client kept[] = {{.id = "anna", .state = MEED_RECEIPT_UNPAID},
                                        {.id = "ben", .state = MEED_RECEIPT_UNPAID}};
    struct meed_ledger_client first[] = {{.id = "anna", .state = MEED_RECEIPT_PAID, .share = 1},
                                         {.id = "ben", .state = MEED_RECEIPT_PAID, .share = 3}};
    struct meed_ledger_round three = {.budget = 400, .client_count = 4, .clients = last};
    struct meed_ledger_round two = {
        .budget = 400, .retained = 400, .client_count = 2, .clients = kept};
    struct meed_ledger_round one = {.budget = 4, .client_count = 2, .clients = first};
    double standing[5] = {-1, -1, -1, -1, -1};
    assert_int_equal(meed_reputation_note(&three, names, 5, standing), 2);
    assert_int_equal(meed_reputation_note(&two, names, 5, standing), 2); /* paid nobody */
    assert_int_equal(meed_reputation_note(&one, names, 5, standing), 1);
    static const double want[5] = {1.5, 1.5, 0.0, 0.5, -1.0};
    for (int i = 0; i < 5; i++) {
        assert_true(standing[i] == want[i]);
    }
}

/* ---- a run ----------------------------------------------------------------------------------- */

static double drawn(const char *name, int32_t round)
{
    struct meed_rng rng = meed_rng_stream(23, name, (uint64_t)round);
    return 0.1 + meed_rng_unit(&rng);
}

static bool is_bad(const char *name, int32_t round)
{
    return strcmp(name, "client-0001") == 0 && round == 3;
}

static enum meed_status value(void *user, const struct meed_settle_cohort *cohort,
                              struct meed_settle_value *found, struct meed_value_client *clients)
{
    (void)user;
    struct meed_payment_player players[CLIENTS] = {{0}};
    struct meed_payment_policy policy = {MEED_PAY_PROPORTIONAL, 2.576, lambda, heads_part};
    int64_t paid = 0;
    for (int32_t i = 0; i < cohort->players; i++) {
        players[i] =
            (struct meed_payment_player){.phi = drawn(cohort->names[i], cohort->round),
                                         .left_out = is_bad(cohort->names[i], cohort->round),
                                         .samples = cohort->samples[i],
                                         .standing = cohort->standing[i]};
    }
    MEED_TRY(meed_payment_settle(&policy, cohort->budget, players, cohort->players, &paid));
    for (int32_t i = 0; i < cohort->players; i++) {
        assert_true(cohort->samples[i] == 10.0);
        clients[i].status = players[i].status;
        clients[i].share = players[i].share;
        clients[i].phi = players[i].phi;
        clients[i].weight = players[i].left_out ? 0.0 : cohort->p[i];
        snprintf(clients[i].reason, sizeof clients[i].reason, "%s",
                 players[i].left_out ? "harmful" : "");
    }
    found->utilities_hash[0] = (uint8_t)cohort->round;
    return MEED_OK;
}

/* BAD sends ten times as much as the others, so the norm screen cuts it and says so. */
static void play(struct fed *fed, int32_t first, int32_t last)
{
    for (int32_t round = first; round <= last; round++) {
        for (int32_t i = 0; i < CLIENTS; i++) {
            assert_int_equal(fed_play(fed, i, round, i == BAD ? 1.0 : 0.1), MEED_OK);
        }
    }
}

static void start(struct fed *fed)
{
    fed_init(fed, CLIENTS);
    fed->value = value;
    fed->config.rounds = ROUNDS;
    fed->config.budget = budget;
    fed->config.clip_multiple = 3.0;
    fed->config.defence[MEED_DETECTOR_NORM] = MEED_DEFENCE_REMARK;
    fed->config.sample_cap = 4.0;
    fed->config.reputation = lambda;
    fed->config.pay_floor = heads_part;
}

struct seen {
    int32_t rounds;
    double relative[CLIENTS]; /* pay of the last round by the definition, 1 the mean; −1: none */
};

/* The definition: w, blended with the past of those who have one, a floor by heads. */
static void by_definition(const struct meed_ledger_round *entry, double *relative, double *part)
{
    double weight[CLIENTS], earned = 0, past = 0, sum = 0, paid = 0;
    for (int i = 0; i < CLIENTS; i++) {
        const char *id = entry->clients[i].id;
        weight[i] = is_bad(id, entry->round) ? 0 : drawn(id, entry->round);
        paid += weight[i] > 0;
        earned += relative[i] >= 0 ? weight[i] : 0;
        past += relative[i] >= 0 && weight[i] > 0 ? relative[i] : 0;
    }
    for (int i = 0; i < CLIENTS; i++) {
        if (relative[i] >= 0 && weight[i] > 0) {
            weight[i] = (1 - lambda) * weight[i] + lambda * relative[i] / past * earned;
        }
        sum += weight[i];
    }
    for (int i = 0; i < CLIENTS; i++) {
        part[i] = (1 - heads_part) * weight[i] / sum + (weight[i] > 0 ? heads_part / paid : 0);
        relative[i] = part[i] * paid;
    }
}

static void visit(void *user, const struct meed_ledger_place *place, const char *body, size_t size)
{
    struct seen *seen = user;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    double part[CLIENTS];
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    if (place->kind == MEED_LEDGER_ROUND) {
        assert_int_equal(meed_ledger_parse_round(body, size, &arena, &entry), MEED_OK);
        assert_int_equal(entry.client_count, CLIENTS);
        assert_int_equal(entry.retained, 0);
        assert_true(entry.floor == entry.budget / 10);
        by_definition(&entry, seen->relative, part);
        for (int i = 0; i < CLIENTS; i++) { /* weights are rounded to 2^-30 of the largest */
            double share = (double)entry.clients[i].share / (double)entry.budget;
            assert_true(fabs(share - part[i]) < CLIENTS * 0x1p-30 / (1 - lambda));
        }
        assert_string_equal(entry.clients[BAD].reason, entry.round == 3 ? "harmful" : "");
        assert_non_null(strstr(entry.clients[BAD].remark, "norm"));
        assert_string_equal(entry.clients[0].remark, "");
        seen->rounds++;
    }
    meed_arena_clear(&arena);
}

static void reputation_holds_through_a_restart(void **state)
{
    (void)state;
    static struct fed whole, stopped;
    static char key[256];
    start(&whole);
    fed_start(&whole);
    play(&whole, 1, 3);
    struct meed_msg_receipt receipt = {.round = 0};
    fed_collect(&whole, 3);
    struct meed_rpc_client *rpc = fed_client(&whole, BAD);
    assert_int_equal(fed_receipt(&whole, rpc, 3, &receipt), MEED_OK);
    assert_string_equal(receipt.reason, "harmful");
    assert_non_null(strstr(receipt.remark, "norm"));
    meed_rpc_client_close(rpc);
    play(&whole, 4, ROUNDS);
    fed_collect(&whole, ROUNDS);
    assert_int_equal(fed_stop(&whole, true), MEED_OK);
    start(&stopped);
    snprintf(key, sizeof key, "%s/ledger.key", whole.folder);
    stopped.ledger_key = key;
    fed_start(&stopped);
    play(&stopped, 1, 4);
    fed_collect(&stopped, 4);
    assert_int_equal(fed_stop(&stopped, false), MEED_CANCELLED);
    fed_start(&stopped);
    play(&stopped, 5, ROUNDS);
    fed_collect(&stopped, ROUNDS);
    assert_int_equal(fed_stop(&stopped, true), MEED_OK);
    assert_true(fed_same_file(whole.folder, stopped.folder, "ledger.jsonl"));
    struct seen seen = {.relative = {-1, -1, -1, -1}};
    char path[256];
    snprintf(path, sizeof path, "%s/ledger.jsonl", whole.folder);
    assert_int_equal(meed_ledger_verify(path, NULL, visit, &seen), MEED_OK);
    assert_int_equal(seen.rounds, ROUNDS);
    fed_remove(whole.folder);
    fed_remove(stopped.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reputation_reads_the_last_round_there),
        cmocka_unit_test(reputation_holds_through_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
