/* `meed simulate` as a person runs it.
 *
 * Goal: a grid runs every cell through the product's own aggregator and clients; its numbers do not
 * depend on threads; a finished cell is never run again, a missing one alone is; what a file gets
 * wrong is one sentence before any training. Method: the binary on the embedded model, few clients,
 * one round of few steps; JSON documents are compared without their times. */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>

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

static void changed(const char *name, const char *from, const char *to)
{
    char whole[4096];
    snprintf(whole, sizeof whole, experiment, scratch);
    char *text = replaced(whole, from, to);
    write_text(name, text);
    free(text);
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
        {MEED_CONFIG, "simulate @/quality.yaml --out @/no", {"quality", "1.5"}, NULL},
        {MEED_CONFIG, "simulate @/unknown.yaml --out @/no", {"unknown key \"seed\""}, NULL},
        {MEED_NOT_FOUND, "simulate @/data.yaml --out @/no", {"nobank.jsonl"}, NULL},
        {MEED_ARG, "simulate @/few.yaml --out @/no", {"few_shot"}, NULL},
        {MEED_ARG, "simulate @/probe.yaml --set clients", {"KEY=VALUE"}, NULL},
        {MEED_CONFIG, "simulate @/probe.yaml --out @/no --set clients=0", {"clients"}, NULL},
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
        cmocka_unit_test(simulate_refuses_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
