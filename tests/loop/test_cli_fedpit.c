/* FedPIT and differential privacy by the binary: what is shared, what is said of it, what stays.
 *
 * Goal: `meed up` with method fedpit runs over mutual TLS, writes its synthetic examples, tells in
 * receipts, ledger and report what left each client, and leaves a model of its own with each of
 * them; clip and noise come with their epsilon; `meed simulate` sweeps share and beta, where β = 1
 * is FedIT to the last digit. Method: examples/tiny, a few dialogues a client, steps in twos.
 */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>

enum { SHOTS = 6 };

static void write_shots(const char *client)
{
    char path[512], name[64];
    size_t size = 0;
    snprintf(path, sizeof path, TINY "/clients/%s.jsonl", client);
    char *text = scratch_read(path, &size), *end = text;
    for (int i = 0; i < SHOTS; i++) {
        end = strchr(end, '\n') + 1;
    }
    snprintf(name, sizeof name, "%s.jsonl", client);
    scratch_write(scratch, name, text, (size_t)(end - text));
    free(text);
}

/* keys: of `training`, between its braces. */
static void write_federation(const char *name, const char *keys)
{
    char file[2048];
    snprintf(file, sizeof file,
             "model: " TINY "/model\nbenchmark: few.jsonl\nrounds: 2\nseed: 7\n"
             "training: {steps: 2, batch_tokens: 256, lr: 0.006, rank: 4, %s}\n"
             "pay: {bootstrap: 20, guard_z: 100}\nclients:\n"
             "  - {id: bank, data: bank.jsonl}\n  - {id: clinic, data: clinic.jsonl}\n",
             keys);
    write_text(name, file);
}

/* The first user's words of a client's data are in none of these files. */
static void assert_unspoken(const char *state)
{
    static const char *const files[] = {"ledger.jsonl", "report.json", "clients/bank.log",
                                        "clients/clinic.log"};
    json_error_t error;
    char path[512];
    snprintf(path, sizeof path, "%s/bank.jsonl", scratch);
    char *line = scratch_read(path, NULL);
    *strchr(line, '\n') = '\0';
    json_t *record = json_loads(line, 0, &error);
    json_t *first = json_array_get(json_object_get(record, "messages"), 0);
    const char *words = json_string_value(json_object_get(first, "content"));
    assert_non_null(words);
    for (size_t i = 0; i < MEED_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s/%s", scratch, state, files[i]);
        char *text = scratch_read(path, NULL);
        assert_null(strstr(text, words));
        free(text);
    }
    json_decref(record);
    free(line);
}

/* Every client's line of every settled round in the ledger holds the text, as does its receipt. */
static void assert_told(const char *state, const char *text)
{
    struct command_result result;
    char path[512];
    int lines = 0;
    command_good(&result, "ledger show %s/%s", scratch, state);
    for (const char *at = result.out; (at = strstr(at, text)) != NULL; at++) {
        lines++;
    }
    assert_int_equal(lines, 4);
    command_clear(&result);
    command_good(NULL, "ledger verify %s/%s", scratch, state);
    snprintf(path, sizeof path, "%s/%s/clients/bank.log", scratch, state);
    char *log = scratch_read(path, NULL);
    assert_non_null(strstr(log, text));
    free(log);
}

static void fedpit_runs_and_tells(void **state)
{
    (void)state;
    struct command_result result;
    write_federation("mix.yaml", "method: fedpit, share: mix, beta: 0.5, "
                                 "synthesis: {candidates: 4, keep: 2, instruction_demos: 2, "
                                 "response_demos: 2}");
    command_good(NULL, "up %s/mix.yaml --state %s/mix -q", scratch, scratch);
    assert_told("mix", "shared: mix (product), 0.5 of the private branch");
    assert_unspoken("mix");
    command_good(&result,
                 "eval --model " TINY "/model --adapter %s/mix/clients/bank/private --benchmark "
                 "%s/few.jsonl -q",
                 scratch, scratch);
    command_clear(&result);
}

static void fedpit_none_keeps_all_and_noise_has_a_price(void **state)
{
    (void)state;
    write_federation("none.yaml", "method: fedpit, share: none, synthesis: {candidates: 2, keep: "
                                  "1, instruction_demos: 2, response_demos: 2}");
    command_good(NULL, "up %s/none.yaml --state %s/none -q", scratch, scratch);
    assert_told("none", "shared: none, the update changes nothing, private branch stayed");
    write_federation("noise.yaml", "privacy: {clip: 0.1, noise: 0.02}");
    command_good(NULL, "up %s/noise.yaml --state %s/noise -q", scratch, scratch);
    assert_told("noise", "clipped to 0.1, noise 0.02, epsilon ");
    check_row(&(struct row){MEED_CONFIG,
                            "up @/gauge.yaml --state @/gauge",
                            {"mix: factors", "aggregate by svd"},
                            NULL});
}

/* The utility that the first round of a cell published. */
static double utility(const char *folder, const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s/cells/%s,seed=1.json", scratch, folder, name);
    json_t *found = json_load_file(path, 0, &error);
    if (!found) {
        fail_msg("no cell %s: %s", path, error.text);
    }
    json_t *round = json_array_get(json_object_get(found, "rounds"), 0);
    json_t *after = json_object_get(round, "utility_after");
    assert_true(json_is_real(after));
    double value = json_real_value(after);
    json_decref(found);
    return value;
}

static void write_sweep(const char *name, const char *sweep)
{
    char file[2048];
    snprintf(file, sizeof file,
             "model: " TINY "/model\nbenchmark: few.jsonl\nrounds: 1\n"
             "training: {steps: 2, batch_tokens: 256, lr: 0.006, rank: 4, method: fedpit, "
             "synthesis: {candidates: 2, keep: 1, instruction_demos: 2, response_demos: 2}}\n"
             "pay: {method: exact, bootstrap: 20}\nsimulate:\n"
             "  data: [bank.jsonl, clinic.jsonl]\n  seeds: [1]\n  clients: [{count: 2}]\n"
             "  sweep: [%s]\n",
             sweep);
    write_text(name, file);
}

static void fedpit_is_swept(void **state)
{
    (void)state;
    write_sweep("beta.yaml", "{key: training.beta, values: [1, 0.5]}");
    write_sweep("share.yaml", "{key: training.share, values: [all, none]}");
    check_row(&(struct row){MEED_CONFIG,
                            "simulate @/beta.yaml --out @/bad --set training.share=some",
                            {"training.share cannot be \"some\"", "all, synthetic, mix and none"},
                            NULL});
    command_good(NULL, "simulate %s/beta.yaml --out %s/beta -q", scratch, scratch);
    command_good(NULL, "simulate %s/share.yaml --out %s/share -q", scratch, scratch);
    double fedit = utility("share", "training.share=all");
    double start = utility("share", "training.share=none");
    assert_true(utility("beta", "training.beta=1") == fedit);
    assert_true(utility("beta", "training.beta=0.5") != fedit && start != fedit);
}

static int prepare(void **state)
{
    (void)state;
    scratch_make(scratch);
    write_shots("bank");
    write_shots("clinic");
    char *benchmark = tiny_read("benchmark.jsonl", NULL), *end = benchmark;
    for (int line = 0; line < 7; line++) { /* its header and six dialogues */
        end = strchr(end, '\n') + 1;
    }
    *end = '\0';
    write_text("few.jsonl", benchmark);
    free(benchmark);
    write_federation("gauge.yaml", "method: fedpit, share: mix");
    char path[512], *text;
    snprintf(path, sizeof path, "%s/gauge.yaml", scratch);
    text = scratch_read(path, NULL);
    char *averaged = replaced(text, "rounds: 2", "aggregation: fedavg\nrounds: 2");
    write_text("gauge.yaml", averaged);
    free(averaged);
    free(text);
    return 0;
}

static int tidy_up(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fedpit_runs_and_tells),
        cmocka_unit_test(fedpit_none_keeps_all_and_noise_has_a_price),
        cmocka_unit_test(fedpit_is_swept),
    };
    return cmocka_run_group_tests(tests, prepare, tidy_up);
}
