/* Merges that ask more of a client than the default, by the binary and with real training.
 *
 * Goal: clients train beside ranks that stand still (stack, fedex), one factor at a time (rolora)
 * and with control variates (scaffold); the operator's data serves fltrust and repair; every run
 * ends with a ledger that verifies, a report that says what was merged, an adapter that loads, and
 * the same adapter when it is run again. Method: `meed up` on examples/tiny, two clients, two
 * rounds of two steps; nothing is asked of the numbers but to agree.
 */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>
#include <math.h>

struct merge {
    const char *name;
    const char *method; /* of training */
    const char *keys;   /* lines of the federation file */
    const char *says;   /* the ledger's method */
    bool frozen;        /* leaves ranks that stand still */
    int runs;           /* 2: the same again gives the same adapter */
};
static const struct merge merges[] = {
    {"stack", "fedit",
     "aggregation: stack\ndefence: {gap: exclude, norm: off, quarantine: {strikes: 2}}\n", "stack",
     true, 1},
    {"fedex", "fedit", "aggregation: fedex\nfrozen_rank: 24\n", "fedex", true, 1},
    {"rolora", "fedprox", "aggregation: rolora\nserver: {optimiser: yogi}\n", "rolora+yogi", false,
     1},
    {"scaffold", "scaffold", "aggregation: fedavg\nweights: samples\n", "fedavg", false, 2},
    {"fltrust", "fedit", "aggregation: fltrust\nrepair: {data: %s, steps: 1}\n", "fltrust+repair",
     false, 2},
};

static void write_federation(const struct merge *merge)
{
    char file[8192], keys[1024], name[64];
    snprintf(keys, sizeof keys, "%s", merge->keys);
    char *data = strstr(keys, "%s");
    if (data) {
        char *named = replaced(keys, "%s", TINY "/clients/library.jsonl");
        snprintf(keys, sizeof keys, "%s", named);
        free(named);
    }
    snprintf(file, sizeof file,
             "model: " TINY "/model\nbenchmark: few.jsonl\nrounds: 2\nseed: 7\n%s"
             "training: {method: %s, steps: 2, batch_tokens: 256, lr: 0.006, rank: 8}\n"
             "pay: {bootstrap: 20, guard_z: 100}\nclients:\n"
             "  - {id: bank, data: " TINY "/clients/bank.jsonl}\n"
             "  - {id: clinic, data: " TINY "/clients/clinic.jsonl}\n",
             keys, merge->method);
    snprintf(name, sizeof name, "%s.yaml", merge->name);
    write_text(name, file);
}

static json_t *read_report(const char *name)
{
    char path[4096], line[128];
    json_error_t error;
    snprintf(line, sizeof line, "@/%s/report.json", name);
    json_t *report = json_load_file(expand(line, path), 0, &error);
    assert_non_null(report);
    return report;
}

static void check_report(const struct merge *merge)
{
    json_t *report = read_report(merge->name), *rounds = json_object_get(report, "rounds");
    assert_int_equal(json_array_size(rounds), 2);
    for (size_t i = 0; i < 2; i++) {
        json_t *part = json_object_get(json_array_get(rounds, i), "merge");
        assert_string_equal(json_string_value(json_object_get(part, "method")), merge->says);
        double norm = json_number_value(json_object_get(part, "update_norm"));
        assert_true(i == 0 ? norm > 0.0 : norm >= 0.0); /* two steps may be worth nothing later */
        assert_true(json_integer_value(json_object_get(part, "bytes_up")) > 0);
        assert_int_equal(json_integer_value(json_object_get(part, "frozen_ranks")) > 0,
                         merge->frozen);
    }
    json_decref(report);
}

static void merges_train_value_and_publish(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(merges); i++) {
        const struct merge *merge = &merges[i];
        struct command_result result;
        char path[4096], line[256];
        char *adapters[2] = {NULL, NULL};
        size_t bytes[2];
        print_message("%s\n", merge->name);
        write_federation(merge);
        for (int again = 0; again < merge->runs; again++) {
            snprintf(line, sizeof line, "@/%s%s", merge->name, again ? "-again" : "");
            expand(line, path);
            command_good(NULL, "up %s/%s.yaml --state %s --json %s/report.json -q", scratch,
                         merge->name, path, path);
            command_good(&result, "ledger verify %s", path);
            assert_non_null(strstr(result.out, "4 entries"));
            command_clear(&result);
            snprintf(line + strlen(line), sizeof line - strlen(line),
                     "/adapter/adapter_model.safetensors");
            expand(line, path);
            adapters[again] = scratch_read(path, &bytes[again]);
        }
        if (merge->runs == 2) {
            assert_int_equal(bytes[0], bytes[1]);
            assert_memory_equal(adapters[0], adapters[1], bytes[0]);
        }
        check_report(merge);
        command_good(&result,
                     "eval --model " TINY "/model --adapter %s/%s/adapter --benchmark "
                     "%s/few.jsonl -q",
                     scratch, merge->name, scratch);
        command_clear(&result);
        free(adapters[0]);
        free(adapters[1]);
    }
}

static void merges_refuse_what_does_not_go_together(void **state)
{
    (void)state;
    static const struct {
        struct merge merge;
        const char *says[3];
    } cases[] = {
        {{"bad", "fedit", "aggregation: fedadgrad\n", "", false, 0},
         {"aggregation", "fedadgrad", "meed help up"}},
        {{"bad", "fedit", "aggregation: fltrust\n", "", false, 0}, {"fltrust", "repair.data"}},
        {{"bad", "fedit", "server: {optimiser: adam}\n", "", false, 0}, {"svd", "adam", "fedavg"}},
        {{"bad", "scaffold", "", "", false, 0}, {"svd", "scaffold", "fedavg"}},
        {{"bad", "fedit", "aggregation: krum\nrobust: {attackers: 4}\n", "", false, 0},
         {"krum", "4", "7"}},
        {{"bad", "fedit", "defence: {span: exclude}\n", "", false, 0}, {"span", "off or flag"}},
        {{"bad", "fedit", "defence: {gap: maybe}\n", "", false, 0}, {"gap", "maybe"}},
        {{"bad", "fedit", "defence: {quarantine: {rounds: 0}}\n", "", false, 0},
         {"defence.quarantine.rounds", "0"}},
        {{"bad", "fedit", "robust: {trim: 0.5}\n", "", false, 0}, {"robust.trim", "0.5"}},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct row row = {MEED_CONFIG,
                          "up @/bad.yaml --state @/bad -q",
                          {cases[i].says[0], cases[i].says[1], cases[i].says[2]},
                          NULL};
        write_federation(&cases[i].merge);
        check_row(&row);
    }
}

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    char *text = tiny_read("benchmark.jsonl", NULL), *end = text;
    for (int line = 0; line < 7; line++) { /* its header and six dialogues */
        end = strchr(end, '\n') + 1;
    }
    *end = '\0';
    write_text("few.jsonl", text);
    free(text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_train_value_and_publish),
        cmocka_unit_test(merges_refuse_what_does_not_go_together),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
