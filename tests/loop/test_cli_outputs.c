/* What scripts read: the outputs of the commands, field by field.
 *
 * Goal: whoever parses Meed's JSON, safetensors, ids and files finds the documented names with
 * values that agree with each other. Method: the binary itself on examples/tiny, one small run a
 * command; sums, shapes and second runs instead of remembered numbers, so that a faster kernel or
 * another machine changes nothing here. That the numbers are right is the business of the golden
 * and unit tests.
 */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>
#include <math.h>
#include "server/server_optimiser.h"
#include "server/weighting.h"

#define TRAIN                                                                                      \
    "train --model " TINY "/model --data " TINY "/clients/%s.jsonl --out %s/%s --steps 3 "         \
    "--rank 4 --lr 0.01 --batch-tokens 256 -q --json %s/%s.log"

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    static const char *const clients[] = {"bank", "clinic"};
    for (size_t i = 0; i < MEED_COUNT(clients); i++) {
        command_good(NULL, TRAIN, clients[i], scratch, clients[i], scratch, clients[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &error);
    if (!value) {
        fail_msg("not JSON: %s: %s", error.text, text);
    }
    return value;
}

static json_t *load(const char *name)
{
    char path[4096];
    char *text = scratch_read(expand(name, path), NULL);
    json_t *value = parse(text);
    free(text);
    return value;
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        fail_msg("\"%s\" is no finite number", name);
    }
    return json_number_value(value);
}

static const char *word(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    if (!value) {
        fail_msg("\"%s\" is no string", name);
    }
    return value;
}

/* The n-th line of a text, NULL behind the last; free the result. */
static json_t *line_json(const char *text, int n)
{
    for (; n > 0 && text; n--) {
        text = strchr(text, '\n');
        text += text != NULL;
    }
    if (!text || *text == '\0') {
        return NULL;
    }
    char *copy = strndup(text, strcspn(text, "\n"));
    json_t *value = parse(copy);
    free(copy);
    return value;
}

/* ---- training and scores --------------------------------------------------------------------- */

static void outputs_train(void **state)
{
    (void)state;
    char path[4096];
    char *text = scratch_read(expand("@/bank.log", path), NULL);
    for (int i = 0; i < 3; i++) {
        json_t *line = line_json(text, i);
        assert_non_null(line);
        assert_true(number(line, "step") == i + 1);
        assert_true(number(line, "loss") > 0.0);
        assert_true(number(line, "tokens") > 0.0);
        assert_true(number(line, "tokens_per_second") > 0.0);
        assert_true(number(line, "lr") > 0.0);
        assert_true(number(line, "gradient_norm") > 0.0);
        json_decref(line);
    }
    assert_null(line_json(text, 3));
    free(text);
    json_t *config = load("@/bank/adapter_config.json");
    assert_string_equal(word(config, "peft_type"), "LORA");
    assert_true(number(config, "r") == 4.0);
    json_decref(config);
}

static void check_value_client(const json_t *client, const char *id)
{
    const char *status = word(client, "status");
    assert_string_equal(word(client, "id"), id);
    assert_true(number(client, "se") >= 0.0);
    assert_true(strcmp(status, "paid") == 0 || strcmp(status, "unpaid") == 0 ||
                strcmp(status, "excluded") == 0);
    assert_true((number(client, "share") > 0.0) == (strcmp(status, "paid") == 0));
    word(client, "reason");
    const json_t *axis = json_object_get(json_object_get(client, "axes"), "dialogue");
    number(axis, "phi");
    number(axis, "se");
}

static void outputs_value(void **state)
{
    (void)state;
    command_good(NULL,
                 "value --model " TINY "/model --benchmark " TINY "/benchmark.jsonl -q "
                 "--adapters %s/bank %s/clinic --budget 1001 --json %s/value.json",
                 scratch, scratch, scratch);
    json_t *root = load("@/value.json");
    json_t *clients = json_object_get(root, "clients");
    json_t *coalitions = json_object_get(root, "coalitions");
    assert_string_equal(word(root, "method"), "exact");
    assert_string_equal(word(root, "rule"), "shrunk");
    assert_true(number(root, "budget") == 1001.0);
    assert_int_equal(json_array_size(clients), 2);
    assert_int_equal(json_array_size(coalitions), 4);
    check_value_client(json_array_get(clients, 0), "bank");
    check_value_client(json_array_get(clients, 1), "clinic");
    double shares = 0.0, phis = 0.0;
    for (size_t i = 0; i < 2; i++) {
        shares += number(json_array_get(clients, i), "share");
        phis += number(json_array_get(clients, i), "phi");
    }
    assert_true(shares == number(root, "paid"));
    assert_true(shares == 1001.0 || shares == 0.0);
    double gain = number(root, "value_full") - number(root, "value_empty");
    assert_true(fabs(gain - phis) < 1e-9);
    assert_true(fabs(number(root, "residual")) < 1e-9);
    for (size_t i = 0; i < 4; i++) {
        json_t *coalition = json_array_get(coalitions, i);
        assert_true(json_is_array(json_object_get(coalition, "members")));
        number(coalition, "value");
    }
    static const char *const hashes[] = {"model", "benchmark", "utilities"};
    for (size_t i = 0; i < MEED_COUNT(hashes); i++) {
        assert_int_equal(strlen(word(root, hashes[i])), 64);
    }
    json_decref(root);
}

static void outputs_eval(void **state)
{
    (void)state;
    command_good(NULL,
                 "eval --model " TINY "/model --benchmark " TINY "/benchmark.jsonl -q "
                 "--json %s/eval.json",
                 scratch);
    json_t *root = load("@/eval.json");
    json_t *axes = json_object_get(root, "axes");
    json_t *dialogue = json_array_get(axes, 0);
    assert_true(number(root, "value") < 0.0); /* a log-likelihood */
    assert_true(number(root, "se") > 0.0);
    assert_true(number(root, "dialogues") > 0.0 && number(root, "tokens") > 0.0);
    assert_int_equal(json_array_size(axes), 3);
    assert_string_equal(word(dialogue, "name"), "dialogue");
    assert_true(number(dialogue, "weight") == 1.0);
    assert_true(number(dialogue, "value") == number(root, "value"));
    assert_true(number(dialogue, "perplexity") > 1.0);
    assert_true(json_is_false(json_object_get(dialogue, "guard")));
    assert_true(json_is_true(json_object_get(json_array_get(axes, 1), "guard")));
    json_decref(root);
}

/* ---- text and numbers ------------------------------------------------------------------------ */

static void outputs_tokenize(void **state)
{
    (void)state;
    static const char texts[] = "{\"text\": \"Good morning. Caf\\u00e9, 123 \\ud83d\\ude00\"}\n"
                                "{\"text\": \"<|im_start|>user\\n\\t two  spaces\"}\n"
                                "{\"text\": \"\"}\n";
    struct command_result ids, back;
    command_run(&ids, texts, "tokenize --model " TINY "/model -");
    assert_int_equal(ids.code, 0);
    json_t *first = line_json(ids.out, 0), *last = line_json(ids.out, 2);
    assert_true(json_array_size(first) > 3 && json_is_integer(json_array_get(first, 0)));
    assert_int_equal(json_array_size(last), 0);
    command_run(&back, ids.out, "tokenize --model " TINY "/model --decode -");
    assert_int_equal(back.code, 0);
    for (int i = 0; i < 3; i++) {
        json_t *want = line_json(texts, i), *got = line_json(back.out, i);
        assert_true(got && json_equal(want, got));
        json_decref(want);
        json_decref(got);
    }
    assert_null(line_json(ids.out, 3));
    assert_null(line_json(back.out, 3));
    json_decref(first);
    json_decref(last);
    command_clear(&ids);
    command_clear(&back);
}

static void outputs_logits(void **state)
{
    (void)state;
    enum { TOKENS = 3, VOCAB = 2048 };
    char path[4096];
    size_t size = 0;
    uint64_t header_bytes = 0;
    write_text("ids.json", "[1, 20, 300]");
    command_good(NULL, "logits --model " TINY "/model --ids %s/ids.json --out %s/logits", scratch,
                 scratch);
    char *file = scratch_read(expand("@/logits", path), &size);
    memcpy(&header_bytes, file, sizeof header_bytes);
    assert_int_equal(size, 8 + header_bytes + sizeof(float) * TOKENS * VOCAB);
    char *header = strndup(file + 8, (size_t)header_bytes);
    json_t *root = parse(header), *tensor = json_object_get(root, "logits");
    json_t *shape = parse("[3, 2048]"), *offsets = parse("[0, 24576]");
    assert_string_equal(word(tensor, "dtype"), "F32");
    assert_true(json_equal(json_object_get(tensor, "shape"), shape));
    assert_true(json_equal(json_object_get(tensor, "data_offsets"), offsets));
    for (size_t i = 0; i < TOKENS * VOCAB; i++) {
        float logit;
        memcpy(&logit, file + 8 + header_bytes + sizeof logit * i, sizeof logit);
        assert_true(isfinite(logit));
    }
    json_decref(offsets);
    json_decref(shape);
    json_decref(root);
    free(header);
    free(file);
}

/* The logits of a file that `meed logits` wrote; free the result. */
static float *logits_load(const char *name, size_t count)
{
    char path[4096];
    size_t size = 0;
    char *file = scratch_read(expand(name, path), &size);
    float *values = malloc(count * sizeof *values);
    assert_true(size > count * sizeof *values);
    memcpy(values, file + size - count * sizeof *values, count * sizeof *values);
    free(file);
    return values;
}

static double farthest(const float *x, const float *y, size_t count)
{
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    }
    return worst;
}

/* A merged folder is a model of its own: it chats, and its logits are those of base and adapter but
 * for BF16 weights, which are less than a tenth as far off as the adapter moves them. */
static void outputs_merge(void **state)
{
    (void)state;
    enum { COUNT = 3 * 2048 };
    static const char *const from[] = {"--model " TINY "/model", "--model " TINY "/model",
                                       "--model @/merged"};
    static const char *const names[] = {"@/base.logits", "@/adapted.logits", "@/merged.logits"};
    float *logits[3];
    char line[4096];
    write_text("ids.json", "[1, 20, 300]");
    command_good(NULL, "merge --model " TINY "/model --adapter %s/bank --out %s/merged", scratch,
                 scratch);
    for (int i = 0; i < 3; i++) {
        char text[512];
        snprintf(text, sizeof text, "logits %s --ids @/ids.json --out %s%s", from[i], names[i],
                 i == 1 ? " --adapter @/bank" : "");
        command_good(NULL, "%s", expand(text, line));
        logits[i] = logits_load(names[i], COUNT);
    }
    double moved = farthest(logits[0], logits[1], COUNT);
    double off = farthest(logits[1], logits[2], COUNT);
    print_message("the adapter moves logits by %.4f, merging by %.5f\n", moved, off);
    assert_true(moved > 0.1 && off < 0.1 * moved);
    for (int i = 0; i < 3; i++) {
        free(logits[i]);
    }
    write_text("prompt.jsonl", "{\"prompt\": \"Good morning\"}\n");
    command_good(NULL, "generate --model %s/merged --prompts %s/prompt.jsonl -n 4 -q", scratch,
                 scratch);
    check_row(&(struct row){MEED_STATE,
                            "merge --model ~/model --adapter @/clinic --out @/merged",
                            {"@/merged is there already", "another folder"},
                            NULL});
}

/* Lines in the order of the prompts; the seed decides about the draws and nothing else does. */
static void outputs_generate(void **state)
{
    (void)state;
    static const char prompts[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"When is the bank open?\"}]}\n"
        "{\"prompt\": \"Good morning\"}\n";
    static const char *const tails[] = {"--seed 7 --threads 1 --slots 1", "--seed 7", "--seed 8"};
    struct command_result runs[MEED_COUNT(tails)];
    for (size_t i = 0; i < MEED_COUNT(tails); i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "generate --model " TINY "/model --prompts - -q --max-new-tokens 24 "
                 "--temperature 1 %s",
                 tails[i]);
        command_run(&runs[i], prompts, line);
        assert_int_equal(runs[i].code, 0);
    }
    assert_string_equal(runs[0].out, runs[1].out);
    assert_string_not_equal(runs[0].out, runs[2].out);
    for (int i = 0; i < 2; i++) {
        json_t *line = line_json(runs[0].out, i);
        assert_true(number(line, "index") == i);
        assert_true(number(line, "tokens") >= 1.0 && number(line, "tokens") <= 24.0);
        assert_true(json_is_boolean(json_object_get(line, "stopped")));
        word(line, "reply");
        json_decref(line);
    }
    assert_null(line_json(runs[0].out, 2));
    for (size_t i = 0; i < MEED_COUNT(tails); i++) {
        command_clear(&runs[i]);
    }
}

/* ---- keys and the ledger --------------------------------------------------------------------- */

static void outputs_provision(void **state)
{
    (void)state;
    static const char *const names[] = {
        "@/keys/ca.pem",       "@/keys/ca.key",       "@/keys/server.pem",   "@/keys/server.key",
        "@/keys/client-a.pem", "@/keys/client-a.key", "@/keys/client-b.pem", "@/keys/client-b.key",
        "@/keys/ledger.key",   "@/keys/ledger.pub"};
    char path[4096];
    struct stat info;
    command_good(NULL, "provision %s/keys --server localhost,127.0.0.1 --clients a,b", scratch);
    assert_int_equal(stat(expand("@/keys", path), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        assert_int_equal(stat(expand(names[i], path), &info), 0);
        if (strstr(names[i], ".key")) {
            assert_int_equal(info.st_mode & 077, 0);
        }
    }
    json_t *roster = load("@/keys/roster.json");
    json_decref(roster);
}

/* Two clients, one round of one step: the smallest run that has a ledger. The file asks for devices
 * that no machine has; the command line overrules them. */
static void run_federation(void)
{
    char *text = tiny_read("federation.yaml", NULL);
    *strstr(text, "clients:") = '\0';
    char *models = replaced(text, "model: model", "model: " TINY "/model");
    char *benchmarks = replaced(models, "benchmark: ", "benchmark: " TINY "/");
    char *rounds = replaced(benchmarks, "rounds: 3", "rounds: 1");
    char *steps = replaced(rounds, "  steps: 24", "  steps: 1");
    char file[8192];
    snprintf(file, sizeof file,
             "%sdevice: cuda:1022\nclients:\n"
             "  - {id: bank, data: " TINY "/clients/bank.jsonl, device: 'cuda:1023'}\n"
             "  - {id: clinic, data: " TINY "/clients/clinic.jsonl}\n",
             steps);
    write_text("run.yaml", file);
    free(steps);
    free(rounds);
    free(benchmarks);
    free(models);
    free(text);
    command_good(NULL, "up %s/run.yaml --device cpu --state %s/run -q", scratch, scratch);
}

/* The ledger proves itself; with one digit changed, or another key, it does not. */
static void outputs_ledger(void **state)
{
    (void)state;
    struct command_result result;
    char path[4096];
    run_federation();
    json_t *report = load("@/run/report.json");
    json_decref(report);
    command_good(&result, "ledger verify %s/run", scratch);
    assert_non_null(strstr(result.out, "3 entries, hashes, signatures and sums are right"));
    command_clear(&result);
    command_good(&result, "ledger show %s/run --json", scratch);
    json_t *root = parse(result.out);
    assert_true(json_is_true(json_object_get(root, "valid")));
    assert_true(number(root, "entries") == 3.0);
    assert_int_equal(strlen(word(root, "head")), 64);
    assert_int_equal(json_array_size(json_object_get(root, "ledger")), 3);
    json_decref(root);
    command_clear(&result);
    char *ledger = scratch_read(expand("@/run/ledger.jsonl", path), NULL);
    char *changed = replaced(ledger, "30000", "30001");
    write_text("changed.jsonl", changed);
    char *key = scratch_read(expand("@/run/ledger.pub", path), NULL);
    write_text("ledger.pub", key);
    check_row(&(struct row){MEED_INTEGRITY,
                            "ledger verify @/changed.jsonl",
                            {"@/changed.jsonl: entry 0", "copy"},
                            NULL});
    key[0] = key[0] == '0' ? '1' : '0';
    write_text("other.pub", key);
    check_row(&(struct row){MEED_INTEGRITY,
                            "ledger verify @/run --key @/other.pub",
                            {"@/run/ledger.jsonl", "key"},
                            NULL});
    check_row(&(struct row){MEED_NOT_FOUND, "ledger verify @/nothing", {"@/nothing"}, NULL});
    free(key);
    free(changed);
    free(ledger);
}

/* ---- help ------------------------------------------------------------------------------------ */

static void outputs_help_names_every_choice(void **state)
{
    (void)state;
    struct command_result result;
    command_good(&result, "help up");
    const char *text = result.out;
    for (int i = 0; i < MEED_AGGREGATION_COUNT; i++) {
        assert_non_null(strstr(text, meed_aggregate_name((enum meed_aggregation)i)));
    }
    for (int i = 0; i < MEED_SERVER_RULE_COUNT; i++) {
        assert_non_null(strstr(text, meed_server_optimiser_name((enum meed_server_rule)i)));
    }
    for (int i = 0; i < MEED_WEIGHTING_COUNT; i++) {
        assert_non_null(strstr(text, meed_weighting_name((enum meed_weighting)i)));
    }
    command_clear(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_help_names_every_choice),
        cmocka_unit_test(outputs_train),
        cmocka_unit_test(outputs_value),
        cmocka_unit_test(outputs_eval),
        cmocka_unit_test(outputs_tokenize),
        cmocka_unit_test(outputs_logits),
        cmocka_unit_test(outputs_merge),
        cmocka_unit_test(outputs_generate),
        cmocka_unit_test(outputs_provision),
        cmocka_unit_test(outputs_ledger),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
