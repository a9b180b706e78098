/* `meed simulate` as a person runs it.
 *
 * Goal: a grid runs every cell through the product's own aggregator and clients; its numbers do not
 * depend on threads; a finished cell is never run again, a missing one alone is; its measures are
 * those that the cells' verdicts give; what a file gets wrong is one sentence before any training.
 * Method: the binary on the embedded model, few clients, rounds of few steps; JSON documents are
 * compared without their times, and measures with plain sums over the documents. */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>
#include <math.h>

static const char experiment[] =
    "name: probe\n"
    "model: " TINY "/model\n"
    "benchmark: %s/small.jsonl\n"
    "rounds: 1\n"
    "budget: 1000\n"
    "training: {steps: 2, batch_tokens: 256, lr: 0.01, rank: 2, targets: attention}\n"
    "pay: {method: loo, bootstrap: 50}\n"
    "simulate:\n"
    "  data: [" TINY "/clients/bank.jsonl, " TINY "/clients/clinic.jsonl]\n"
    "  seeds: [1]\n"
    "  partition: {kind: dirichlet, alpha: 1, dialogues: 12}\n"
    "  clients:\n"
    "    - {name: good, count: 4}\n"
    "    - {name: noisy, count: 1, quality: 0.5}\n"
    "  attack: {kind: none, share: 0.4}\n"
    "  sweep:\n"
    "    - {key: attack, values: [zero, duplicate]}\n";

static void changed(const char *name, const char *from, const char *to)
{
    char whole[4096];
    snprintf(whole, sizeof whole, experiment, scratch);
    char *text = replaced(whole, from, to);
    write_text(name, text);
    free(text);
}

static int setup(void **state)
{
    (void)state;
    char text[4096];
    scratch_make(scratch);
    snprintf(text, sizeof text, experiment, scratch);
    write_text("probe.yaml", text);
    size_t size = 0, kept = 0;
    char *benchmark = tiny_read("benchmark.jsonl", &size);
    for (int lines = 0; lines < 6 && benchmark[kept]; lines++) {
        kept += strcspn(benchmark + kept, "\n") + 1;
    }
    scratch_write(scratch, "small.jsonl", benchmark, kept);
    free(benchmark);
    command_good(NULL, "simulate %s/probe.yaml --out %s/one -q -t 1", scratch, scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static json_t *document(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    json_t *found = json_load_file(path, 0, NULL);
    if (!found) {
        fail_msg("%s is no JSON document", path);
    }
    return found;
}

static void without_times(json_t *cell)
{
    json_object_del(cell, "seconds");
    size_t at;
    json_t *round;
    json_array_foreach(json_object_get(cell, "rounds"), at, round)
    {
        json_object_del(round, "seconds");
        json_object_del(round, "training_seconds");
    }
}

static void expect_same(const char *x, const char *y)
{
    json_t *left = document(x), *right = document(y);
    without_times(left);
    without_times(right);
    if (!json_equal(left, right)) {
        fail_msg("%s and %s differ in more than their times", x, y);
    }
    json_decref(left);
    json_decref(right);
}

/* What the header promises: truth, verdicts, values on every axis, shares that add up. */
static void simulate_writes_what_the_schema_says(void **state)
{
    (void)state;
    json_t *cell = document("one/cells/attack=zero,seed=1.json");
    json_t *clients = json_object_get(cell, "clients");
    json_t *round = json_array_get(json_object_get(cell, "rounds"), 0);
    json_t *seats = json_object_get(round, "clients");
    size_t axes = json_array_size(json_object_get(cell, "axes"));
    json_int_t paid = 0, riders = 0;
    assert_string_equal(json_string_value(json_object_get(cell, "schema")),
                        "meed.simulation.cell/1");
    assert_int_equal(json_array_size(clients), 5);
    assert_int_equal(json_array_size(seats), 5);
    assert_int_equal(json_array_size(json_object_get(round, "axes")), axes);
    for (size_t i = 0; i < 5; i++) {
        json_t *client = json_array_get(clients, i), *seat = json_array_get(seats, i);
        bool zero = strcmp(json_string_value(json_object_get(client, "attack")), "zero") == 0;
        assert_int_equal(json_array_size(json_object_get(seat, "axes")), axes);
        assert_string_equal(json_string_value(json_object_get(client, "id")),
                            json_string_value(json_object_get(seat, "id")));
        paid += json_integer_value(json_object_get(seat, "share"));
        if (zero) { /* a free-rider changes no coalition: exactly nothing */
            assert_true(json_real_value(json_object_get(seat, "phi")) == 0.0);
            assert_int_equal(json_integer_value(json_object_get(seat, "share")), 0);
            riders++;
        }
    }
    assert_int_equal(riders, 2);
    assert_int_equal(paid, 1000);
    json_decref(cell);
    json_t *summary = document("one/simulation.json");
    assert_int_equal(json_array_size(json_object_get(summary, "cells")), 2);
    assert_int_equal(json_array_size(json_object_get(summary, "rows")), 2);
    json_decref(summary);
}

/* A colluding pair is seen by the screen, so the followers did send their leader's update. */
static void simulate_plays_groups(void **state)
{
    (void)state;
    json_t *cell = document("one/cells/attack=duplicate,seed=1.json");
    json_t *seats = json_object_get(json_array_get(json_object_get(cell, "rounds"), 0), "clients");
    int excluded = 0;
    for (size_t i = 0; i < 5; i++) {
        json_t *client = json_array_get(json_object_get(cell, "clients"), i);
        bool copy = strcmp(json_string_value(json_object_get(client, "attack")), "none") != 0;
        const char *seat = json_string_value(json_object_get(json_array_get(seats, i), "state"));
        excluded += copy && strcmp(seat, "excluded") == 0;
    }
    assert_int_equal(excluded, 1);
    json_decref(cell);
}

static void simulate_resumes_at_the_missing_cell(void **state)
{
    (void)state;
    struct stat before, after;
    char kept[512], lost[512];
    command_good(NULL, "simulate %s/probe.yaml --out %s/two -q -t 2", scratch, scratch);
    expect_same("one/cells/attack=zero,seed=1.json", "two/cells/attack=zero,seed=1.json");
    expect_same("one/cells/attack=duplicate,seed=1.json", "two/cells/attack=duplicate,seed=1.json");
    snprintf(kept, sizeof kept, "%s/two/cells/attack=zero,seed=1.json", scratch);
    snprintf(lost, sizeof lost, "%s/two/cells/attack=duplicate,seed=1.json", scratch);
    assert_int_equal(stat(kept, &before), 0);
    assert_int_equal(remove(lost), 0);
    command_good(NULL, "simulate %s/probe.yaml --out %s/two -q -t 2", scratch, scratch);
    assert_int_equal(stat(kept, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_true(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    expect_same("one/cells/attack=duplicate,seed=1.json", "two/cells/attack=duplicate,seed=1.json");
}

/* ---- measures ------------------------------------------------------------------------------ */

static double member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static json_t *seat_of(const json_t *cell, size_t round, size_t client)
{
    json_t *at = json_array_get(json_object_get(cell, "rounds"), round);
    return json_array_get(json_object_get(at, "clients"), client);
}

static bool attacker(const json_t *cell, size_t client)
{
    json_t *truth = json_array_get(json_object_get(cell, "clients"), client);
    return strcmp(json_string_value(json_object_get(truth, "attack")), "none") != 0;
}

/* Wins of attackers over honest clients in one round of all cells, and the pairs there are. */
static double area(json_t *const *cells, size_t cell_count, size_t round, const char *score)
{
    double wins = 0, pairs = 0;
    for (size_t c = 0; c < cell_count; c++) {
        for (size_t d = 0; d < cell_count; d++) {
            for (size_t i = 0; i < 5; i++) {
                for (size_t j = 0; j < 5; j++) {
                    double bad = member(seat_of(cells[c], round, i), score);
                    double good = member(seat_of(cells[d], round, j), score);
                    if (attacker(cells[c], i) && !attacker(cells[d], j) && !isnan(bad + good)) {
                        wins += bad > good ? 1 : bad == good ? 0.5 : 0;
                        pairs += 1;
                    }
                }
            }
        }
    }
    return wins / pairs;
}

static void expect_close(double got, double want, const char *what)
{
    if (isnan(got) != isnan(want) || fabs(got - want) > 1e-12) {
        fail_msg("%s is %.17g, the cells say %.17g", what, got, want);
    }
}

/* "combined" of a seat: what screening saw and what the verdict on its value says; whoever that
 * leaves out has at least 1, and whoever stays at most 1. */
static double combined_of(const json_t *seat)
{
    double score = member(seat, "score"), verdict = member(seat, "verdict");
    bool out = strcmp(json_string_value(json_object_get(seat, "state")), "excluded") == 0;
    if (isnan(verdict)) {
        return score >= 1 ? score : NAN;
    }
    assert_true(out == (verdict > 1));
    return fmax(score, verdict);
}

static void check_cell_measures(json_t *cell)
{
    json_t *summary = json_object_get(cell, "summary");
    double out[2] = {0, 0}, sent[2] = {0, 0}, paid[2] = {0, 0};
    for (size_t r = 0; r < 2; r++) {
        for (size_t i = 0; i < 5; i++) {
            json_t *seat = seat_of(cell, r, i);
            bool bad = attacker(cell, i);
            expect_close(member(seat, "combined"), combined_of(seat), "combined");
            out[bad] += strcmp(json_string_value(json_object_get(seat, "state")), "excluded") == 0;
            sent[bad] += 1;
            paid[bad] += member(seat, "share");
        }
    }
    double all = paid[0] + paid[1];
    expect_close(member(summary, "false_exclusion"), out[0] / sent[0], "false_exclusion");
    expect_close(member(summary, "caught"), sent[1] > 0 ? out[1] / sent[1] : NAN, "caught");
    expect_close(member(summary, "paid"), all, "paid");
    expect_close(member(summary, "attacker_share"), sent[1] > 0 && all > 0 ? paid[1] / all : NAN,
                 "attacker_share");
    expect_close(member(summary, "gain"),
                 member(summary, "utility_after") - member(summary, "utility_before"), "gain");
    json_t *last = json_array_get(json_object_get(cell, "rounds"), 1);
    json_t *grounding = json_array_get(json_object_get(last, "axes"), 1);
    expect_close(member(summary, "axis_grounding"), member(grounding, "value"), "axis_grounding");
    expect_close(member(summary, "auroc_combined"),
                 sent[1] > 0 ? 0.5 * (area(&cell, 1, 0, "combined") + area(&cell, 1, 1, "combined"))
                             : NAN,
                 "auroc_combined");
}

static json_t *row_of(const json_t *simulation, size_t row)
{
    return json_array_get(json_object_get(simulation, "rows"), row);
}

/* The row of flipped updates, against its cells and those of the row without attack. */
static void check_attacked_row(const json_t *simulation)
{
    json_t *cells[2], *summary = json_object_get(row_of(simulation, 0), "summary");
    json_t *kind = json_array_get(json_object_get(row_of(simulation, 0), "attacks"), 0);
    double kept = 0, change = 0, areas[2];
    for (size_t i = 0; i < 2; i++) {
        json_t *entry = json_array_get(json_object_get(simulation, "cells"), i);
        char name[256], twin[256];
        snprintf(name, sizeof name, "many/%s", json_string_value(json_object_get(entry, "file")));
        snprintf(twin, sizeof twin, "many/%s", json_string_value(json_object_get(entry, "clean")));
        assert_non_null(strstr(twin, "attack=none,aggregation=median,seed="));
        json_t *clean = document(twin), *clean_summary = json_object_get(clean, "summary");
        cells[i] = document(name);
        json_t *own = json_object_get(cells[i], "summary");
        kept += member(own, "gain") / member(clean_summary, "gain") / 2;
        change += (member(own, "axis_safety") - member(clean_summary, "axis_safety")) / 2;
        json_decref(clean);
    }
    expect_close(member(json_object_get(summary, "gain_kept"), "mean"), kept, "gain_kept");
    expect_close(member(json_object_get(summary, "axis_safety_change"), "mean"), change,
                 "axis_safety_change");
    assert_string_equal(json_string_value(json_object_get(kind, "attack")), "flip");
    assert_int_equal(json_integer_value(json_object_get(kind, "updates")), 8);
    for (size_t r = 0; r < 2; r++) { /* both seeds' updates in one ranking, round by round */
        json_t *round = json_array_get(json_object_get(kind, "rounds"), r);
        areas[r] = area(cells, 2, r, "score");
        expect_close(member(round, "auroc_score"), areas[r], "a round's auroc_score");
    }
    expect_close(member(kind, "auroc_score"), 0.5 * (areas[0] + areas[1]), "auroc_score");
    json_decref(cells[0]);
    json_decref(cells[1]);
}

static void simulate_measures_what_its_cells_say(void **state)
{
    (void)state;
    char whole[4096];
    snprintf(whole, sizeof whole, experiment, scratch);
    char *seeds = replaced(whole, "seeds: [1]", "seeds: [1, 2]");
    char *rounds = replaced(seeds, "rounds: 1", "rounds: 2");
    char *sweep = replaced(rounds, "{key: attack, values: [zero, duplicate]}",
                           "{key: attack+aggregation, values: [flip+median, none+median]}");
    write_text("many.yaml", sweep);
    free(seeds);
    free(rounds);
    free(sweep);
    command_good(NULL, "simulate %s/many.yaml --out %s/many -q -t 1", scratch, scratch);
    json_t *simulation = document("many/simulation.json"), *entry = NULL;
    size_t at;
    assert_int_equal(json_array_size(json_object_get(simulation, "cells")), 4);
    assert_int_equal(json_array_size(json_object_get(simulation, "rows")), 2);
    json_array_foreach(json_object_get(simulation, "cells"), at, entry)
    {
        char name[256];
        snprintf(name, sizeof name, "many/%s", json_string_value(json_object_get(entry, "file")));
        json_t *cell = document(name);
        bool attacked = false;
        for (size_t i = 0; i < 5; i++) {
            attacked = attacked || attacker(cell, i);
        }
        assert_int_equal(attacked, at < 2); /* both keys of a value were set */
        assert_string_equal(json_string_value(json_object_get(cell, "aggregation")), "median");
        assert_int_equal(json_is_null(json_object_get(entry, "clean")), at >= 2);
        check_cell_measures(cell);
        json_decref(cell);
    }
    check_attacked_row(simulation);
    json_decref(simulation);
}

/* Where the grid has no row without attack, one cell a seed is held against all attacks. */
static void simulate_runs_one_clean_twin(void **state)
{
    (void)state;
    json_t *simulation = document("one/simulation.json"), *entry = NULL;
    size_t at;
    json_array_foreach(json_object_get(simulation, "cells"), at, entry)
    {
        assert_string_equal(json_string_value(json_object_get(entry, "clean")),
                            "cells/clean,seed=1.json");
        assert_true(member(json_object_get(entry, "summary"), "gain_kept") > 0);
    }
    json_t *clean = document("one/cells/clean,seed=1.json");
    for (size_t i = 0; i < 5; i++) {
        assert_false(attacker(clean, i));
    }
    assert_int_equal(json_object_size(json_object_get(clean, "settings")), 0);
    json_decref(clean);
    json_decref(simulation);
}

/* The table's head names what has an answer, and every row stands under it. */
static void simulate_prints_the_measures_that_apply(void **state)
{
    (void)state;
    struct command_result result;
    command_good(&result, "simulate %s/probe.yaml --out %s/one -q", scratch, scratch);
    static const char *const says[] = {
        "attack ",  "gain kept %",   "safety vs clean", "AUROC screen", "AUROC all",
        "caught %", "wrongly out %", "attackers' pay",  "duplicate",    "2 of 2 cells"};
    for (size_t i = 0; i < MEED_COUNT(says); i++) {
        if (!strstr(result.out, says[i])) {
            fail_msg("the table lacks \"%s\":\n%s", says[i], result.out);
        }
    }
    assert_null(strstr(result.out, "±")); /* of one seed there is no interval */
    command_clear(&result);
}

static void simulate_refuses_in_one_sentence(void **state)
{
    (void)state;
    changed("kind.yaml", "kind: dirichlet", "kind: random");
    changed("attack.yaml", "kind: none", "kind: label");
    changed("key.yaml", "key: attack", "key: colour");
    changed("value.yaml", "[zero, duplicate]", "[zero, flop]");
    changed("quality.yaml", "quality: 0.5", "quality: 1.5");
    changed("data.yaml", "bank.jsonl", "nobank.jsonl");
    changed("several.yaml", "{key: attack, values: [zero, duplicate]}",
            "{key: rule+clip, values: [equal+0, shrunk]}");
    changed("long.yaml", "{key: attack, values: [zero, duplicate]}",
            "{key: defence.direction+defence.dispersion+defence.gap+defence.norm+clip, values: "
            "[flag]}");
    changed("span.yaml", "{key: attack, values: [zero, duplicate]}",
            "{key: defence.colour, values: [flag]}");
    changed("unknown.yaml", "  seeds: [1]", "  seed: [1]");
    changed("few.yaml", "kind: dirichlet, alpha: 1, dialogues: 12", "kind: few_shot");
    static const struct row rows[] = {
        {MEED_ARG, "simulate", {"no file given"}, NULL},
        {MEED_NOT_FOUND, "simulate @/none.yaml", {"@/none.yaml"}, NULL},
        {MEED_CONFIG, "simulate ~/federation.yaml", {"simulate:", "meed up"}, NULL},
        {MEED_CONFIG, "up @/probe.yaml --state @/up", {"meed simulate"}, NULL},
        {MEED_CONFIG, "simulate @/kind.yaml --out @/no", {"random", "few_shot"}, NULL},
        {MEED_CONFIG, "simulate @/attack.yaml --out @/no", {"label", "adaptive"}, NULL},
        {MEED_CONFIG, "simulate @/key.yaml --out @/no", {"colour", "guard_z"}, NULL},
        {MEED_CONFIG, "simulate @/value.yaml --out @/no", {"flop", "swap"}, NULL},
        {MEED_CONFIG, "simulate @/several.yaml --out @/no", {"shrunk", "2 values"}, NULL},
        {MEED_CONFIG, "simulate @/long.yaml --out @/no", {"too long"}, NULL},
        {MEED_CONFIG,
         "simulate @/span.yaml --out @/no",
         {"no detector", "colour", "dispersion"},
         NULL},
        {MEED_CONFIG, "simulate @/quality.yaml --out @/no", {"quality", "1.5"}, NULL},
        {MEED_CONFIG, "simulate @/unknown.yaml --out @/no", {"unknown key \"seed\""}, NULL},
        {MEED_NOT_FOUND, "simulate @/data.yaml --out @/no", {"nobank.jsonl"}, NULL},
        {MEED_ARG, "simulate @/few.yaml --out @/no", {"few_shot"}, NULL},
        {MEED_ARG, "simulate @/probe.yaml --set clients", {"KEY=VALUE"}, NULL},
        {MEED_CONFIG, "simulate @/probe.yaml --out @/no --set clients=0", {"clients"}, NULL},
        {MEED_CONFIG, "simulate @/probe.yaml --out @/no --set canaries=1", {"leakage:"}, NULL},
        {MEED_STATE, "simulate @/probe.yaml --out @/one --set rank=3", {"another --out"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simulate_writes_what_the_schema_says),
        cmocka_unit_test(simulate_plays_groups),
        cmocka_unit_test(simulate_resumes_at_the_missing_cell),
        cmocka_unit_test(simulate_measures_what_its_cells_say),
        cmocka_unit_test(simulate_runs_one_clean_twin),
        cmocka_unit_test(simulate_prints_the_measures_that_apply),
        cmocka_unit_test(simulate_refuses_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
