/* Quarantine: as a rule on single clients, and in a run that is stopped in the middle.
 *
 * Goal: k exclusions put a client out for m rounds, in which nothing counts against it; on
 * probation one more is enough; a clean probation wipes the slate. In a run, ledger lines say so
 * with the reason, a client out is neither valued nor paid, and a server that is stopped while
 * somebody is out writes the same ledger as one that is not. Method: cases by hand; federations of
 * the fixture whose value function excludes one client in chosen rounds.
 */
#include <jansson.h>
#include "server/quarantine.h"
#include "tests/loop/federation_fixture.h"

enum { CLIENTS = 3, ROUNDS = 7, BAD = 1 };

static const struct meed_quarantine_options rule = {.strikes = 2, .rounds = 2, .probation = 1};

static void quarantine_follows_its_rule(void **state)
{
    (void)state;
    /* excluded? (screens and guards; in 3 and 4 the client is out) … and whether it is held */
    static const bool excluded[] = {1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1};
    static const bool held[] = {0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0};
    struct meed_quarantine_client client = {0, 0, 0};
    for (int32_t i = 0; i < 15; i++) {
        assert_int_equal(meed_quarantine_holds(&client, i + 1), held[i]);
        meed_quarantine_note(&rule, i + 1, excluded[i], &client);
    }
    assert_int_equal(client.strikes, 1); /* round 15 came after a clean probation in 14 */
    struct meed_quarantine_options never = {0, 1, 1};
    client = (struct meed_quarantine_client){0, 0, 0};
    for (int32_t round = 1; round < 20; round++) {
        meed_quarantine_note(&never, round, true, &client);
        assert_false(meed_quarantine_holds(&client, round + 1));
    }
}

static void quarantine_refuses_what_cannot_be(void **state)
{
    (void)state;
    static const struct meed_quarantine_options bad[] = {
        {-1, 1, 0}, {1, 0, 0}, {1, -1, 0}, {1, 1, -1}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(meed_quarantine_check(&bad[i]), MEED_CONFIG);
    }
    assert_int_equal(meed_quarantine_check(&rule), MEED_OK);
}

/* BAD is harmful in rounds 1, 2 and 5; the first player takes the budget. */
static enum meed_status value(void *user, const struct meed_settle_cohort *cohort,
                              struct meed_settle_value *found, struct meed_value_client *clients)
{
    (void)user;
    for (int32_t i = 0; i < cohort->players; i++) {
        bool harmful = strcmp(cohort->names[i], "client-0001") == 0 &&
                       (cohort->round <= 2 || cohort->round == 5);
        clients[i].status = harmful ? MEED_PAY_EXCLUDED : i == 0 ? MEED_PAY_PAID : MEED_PAY_UNPAID;
        clients[i].share = i == 0 ? cohort->budget : 0;
        clients[i].weight = harmful ? 0.0 : cohort->p[i];
        clients[i].phi = harmful ? -1.0 : 1.0;
        snprintf(clients[i].reason, sizeof clients[i].reason, "%s", harmful ? "harmful" : "");
    }
    found->utilities_hash[0] = (uint8_t)cohort->round;
    return MEED_OK;
}

static void play(struct fed *fed, int32_t first, int32_t last)
{
    for (int32_t round = first; round <= last; round++) {
        for (int32_t i = 0; i < CLIENTS; i++) {
            assert_int_equal(fed_play(fed, i, round, 0.1), MEED_OK);
        }
    }
}

struct seen {
    int32_t rounds;
    struct meed_ledger_client lines[ROUNDS];
};

static void visit(void *user, const struct meed_ledger_place *place, const char *body, size_t size)
{
    struct seen *seen = user;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    if (place->kind == MEED_LEDGER_ROUND) {
        assert_int_equal(meed_ledger_parse_round(body, size, &arena, &entry), MEED_OK);
        seen->lines[seen->rounds++] = entry.clients[BAD];
    }
    meed_arena_clear(&arena);
}

/* What the page draws: where the client stood in each round, and its strikes after it. */
static void check_report(const char *path)
{
    static const char *const standings[ROUNDS] = {
        NULL, NULL, "quarantine", "quarantine", "probation", "quarantine", "quarantine"};
    static const json_int_t strikes[ROUNDS] = {1, 0, 0, 0, 0, 0, 0};
    json_t *report = json_load_file(path, 0, NULL), *rounds = json_object_get(report, "rounds");
    assert_int_equal(json_array_size(rounds), ROUNDS);
    for (size_t i = 0; i < ROUNDS; i++) {
        const json_t *clients = json_object_get(json_array_get(rounds, i), "clients");
        const json_t *bad = json_array_get(clients, BAD), *good = json_array_get(clients, 1 - BAD);
        const char *standing = json_string_value(json_object_get(bad, "standing"));
        assert_int_equal(standing == NULL, standings[i] == NULL);
        if (standing) {
            assert_string_equal(standing, standings[i]);
        }
        assert_int_equal(json_integer_value(json_object_get(bad, "strikes")), strikes[i]);
        assert_null(json_object_get(good, "standing"));
        assert_true(json_is_number(json_object_get(good, "score")));
        assert_true(json_number_value(json_object_get(good, "weight")) > 0);
        assert_true(json_number_value(json_object_get(bad, "weight")) == 0 || i < 2 || i == 4);
    }
    json_decref(report);
}

static void quarantine_holds_through_a_restart(void **state)
{
    (void)state;
    static struct fed whole, stopped;
    static char key[256];
    fed_init(&whole, CLIENTS);
    whole.value = value;
    whole.config.rounds = ROUNDS;
    whole.config.quarantine = rule;
    char report[256];
    snprintf(report, sizeof report, "%s/report.json", whole.folder);
    whole.report = report;
    fed_start(&whole);
    play(&whole, 1, ROUNDS);
    fed_collect(&whole, ROUNDS);
    assert_int_equal(fed_stop(&whole, true), MEED_OK);
    fed_init(&stopped, CLIENTS);
    stopped.value = value;
    stopped.config.rounds = ROUNDS;
    stopped.config.quarantine = rule;
    snprintf(key, sizeof key, "%s/ledger.key", whole.folder);
    stopped.ledger_key = key;
    fed_start(&stopped);
    play(&stopped, 1, 3);
    fed_collect(&stopped, 3);
    assert_int_equal(fed_stop(&stopped, false), MEED_CANCELLED);
    fed_start(&stopped);
    play(&stopped, 4, ROUNDS);
    fed_collect(&stopped, ROUNDS);
    assert_int_equal(fed_stop(&stopped, true), MEED_OK);
    assert_true(fed_same_file(whole.folder, stopped.folder, "ledger.jsonl"));
    char path[256];
    struct seen seen = {0};
    snprintf(path, sizeof path, "%s/ledger.jsonl", whole.folder);
    assert_int_equal(meed_ledger_verify(path, NULL, visit, &seen), MEED_OK);
    assert_int_equal(seen.rounds, ROUNDS);
    static const char *const reasons[ROUNDS] = {"harmful",
                                                "harmful",
                                                "in quarantine up to round 4",
                                                "in quarantine up to round 4",
                                                "harmful",
                                                "in quarantine up to round 7",
                                                "in quarantine up to round 7"};
    for (int32_t i = 0; i < ROUNDS; i++) {
        assert_int_equal(seen.lines[i].state, MEED_RECEIPT_EXCLUDED);
        assert_non_null(strstr(seen.lines[i].reason, reasons[i]));
        assert_true(seen.lines[i].phi == (reasons[i][0] == 'h' ? -1.0 : 0.0));
        assert_int_equal(seen.lines[i].share, 0);
    }
    check_report(report);
    fed_remove(whole.folder);
    fed_remove(stopped.folder);
}

/* Everybody is harmful in rounds 1 and 2, and what remains is worth less and less. */
static enum meed_status value_of_nobody(void *user, const struct meed_settle_cohort *cohort,
                                        struct meed_settle_value *found,
                                        struct meed_value_client *clients)
{
    (void)user;
    for (int32_t i = 0; i < cohort->players; i++) {
        clients[i].status = MEED_PAY_EXCLUDED;
        clients[i].phi = -1.0;
        snprintf(clients[i].reason, sizeof clients[i].reason, "harmful");
    }
    found->value_empty = -1.0 - cohort->round;
    found->value_full = -9.0;
    found->value_kept = -1.25 - cohort->round;
    return MEED_OK;
}

/* A round in which nobody may take part leaves the model as it was, and its entry says what that is
 * worth. */
static void worth_stays_where_nobody_is_valued(void **state)
{
    (void)state;
    enum { HELD = 3 };
    static struct fed fed;
    char path[256];
    json_t *report = NULL;
    fed_init(&fed, CLIENTS);
    fed.value = value_of_nobody;
    fed.config.rounds = HELD;
    fed.config.quarantine = rule;
    snprintf(path, sizeof path, "%s/report.json", fed.folder);
    fed.report = path;
    fed_start(&fed);
    play(&fed, 1, HELD);
    fed_collect(&fed, HELD);
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    report = json_load_file(path, 0, NULL);
    const json_t *rounds = json_object_get(report, "rounds");
    assert_int_equal(json_array_size(rounds), HELD);
    static const double before[HELD] = {-2.0, -3.0, -3.25}, after[HELD] = {-2.25, -3.25, -3.25};
    for (size_t i = 0; i < HELD; i++) {
        const json_t *round = json_array_get(rounds, i);
        assert_true(json_number_value(json_object_get(round, "utility_before")) == before[i]);
        assert_true(json_number_value(json_object_get(round, "utility_after")) == after[i]);
    }
    json_decref(report);
    fed_remove(fed.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quarantine_follows_its_rule),
        cmocka_unit_test(quarantine_refuses_what_cannot_be),
        cmocka_unit_test(quarantine_holds_through_a_restart),
        cmocka_unit_test(worth_stays_where_nobody_is_valued),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
