/* What `meed simulate` finds of its clients' data in its models, and the schemes beside a
 * federation.
 *
 * Goal: memorised data are found and counted, where they are and nowhere else; what a client never
 * trains on does not come out of its update; nothing depends on threads; training alone leaves
 * nobody paid.
 * Method: two clients that learn three dialogues each by heart, one with a planted code and a
 * labelled span; a third whose replies are noise and is no witness. An update of FedIT must give
 * the codes back, one that was trained on synthetic data must not. */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>
#include <math.h>

static const char experiment[] =
    "name: leak\n"
    "model: " TINY "/model\n"
    "benchmark: %s/small.jsonl\n"
    "rounds: 1\n"
    "budget: 1000\n"
    "training: {method: fedpit, steps: 30, batch_tokens: 160, lr: 0.02, rank: 8, alpha: 16,\n"
    "  synthesis: {candidates: 8, keep: 4}}\n"
    "pay: {method: loo, bootstrap: 50}\n"
    "simulate:\n"
    "  data: [%s/labelled.jsonl]\n"
    "  seeds: [1]\n"
    "  partition: {kind: few_shot, dialogues: 3}\n"
    "  leakage: {examples: 9, canaries: 1, repeat: 2, unseen: 6}\n"
    "  clients:\n"
    "    - {name: good, count: 2}\n"
    "    - {name: noisy, count: 1, quality: 0}\n"
    "  sweep:\n"
    "    - {key: scheme+training.share, values: [federated+all, federated+synthetic,\n"
    "       centralised+all, local+all]}\n";

/* The first lines of a file of the embedded data, each with the end of its last reply labelled. */
static void write_labelled(int lines)
{
    char path[512];
    size_t size = 0;
    char *text = tiny_read("clients/bank.jsonl", &size);
    snprintf(path, sizeof path, "%s/labelled.jsonl", scratch);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("\xEF\xBB\xBF", file); /* as some editors begin a file */
    for (char *line = text; *line && lines > 0; lines--) {
        size_t length = strcspn(line, "\n");
        json_t *out = json_loadb(line, length, 0, NULL);
        json_t *messages = json_object_get(out, "messages");
        json_t *last = json_array_get(messages, json_array_size(messages) - 1);
        const char *reply = json_string_value(json_object_get(last, "content"));
        const char *space = strrchr(reply, ' ');
        json_object_set_new(out, "secrets", json_pack("[s]", space ? space + 1 : reply));
        json_dumpf(out, file, JSON_COMPACT);
        fputc('\n', file);
        json_decref(out);
        line += length + (line[length] != '\0');
    }
    fclose(file);
    free(text);
}

static int setup(void **state)
{
    (void)state;
    char text[4096];
    size_t size = 0, kept = 0;
    scratch_make(scratch);
    snprintf(text, sizeof text, experiment, scratch, scratch);
    write_text("leak.yaml", text);
    char *benchmark = tiny_read("benchmark.jsonl", &size);
    for (int lines = 0; lines < 6 && benchmark[kept]; lines++) {
        kept += strcspn(benchmark + kept, "\n") + 1;
    }
    scratch_write(scratch, "small.jsonl", benchmark, kept);
    free(benchmark);
    write_labelled(9);
    command_good(NULL, "simulate %s/leak.yaml --out %s/one -q -t 1", scratch, scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static void changed(const char *name, const char *from, const char *to)
{
    char text[4096];
    snprintf(text, sizeof text, experiment, scratch, scratch);
    char *made = replaced(text, from, to);
    write_text(name, made);
    free(made);
}

static json_t *cell(const char *out, const char *scheme, const char *share)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/cells/scheme=%s,training.share=%s,seed=1.json", scratch, out,
             scheme, share);
    json_t *found = json_load_file(path, 0, NULL);
    if (!found) {
        fail_msg("%s is no JSON document", path);
    }
    return found;
}

/* The last model of a kind; NULL if none was attacked. Borrowed. */
static const json_t *model(const json_t *document, const char *kind)
{
    const json_t *models = json_object_get(json_object_get(document, "leakage"), "models"),
                 *found = NULL;
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *at = json_array_get(models, i);
        found = strcmp(json_string_value(json_object_get(at, "kind")), kind) == 0 ? at : found;
    }
    return found;
}

static json_int_t whole(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Two witnesses with three dialogues, each labelled, and a code each; the noisy one is none. */
static void every_witness_is_asked_once(void **state)
{
    (void)state;
    json_t *fedit = cell("one", "federated", "all"), *local = cell("one", "local", "all");
    const json_t *asked[] = {model(fedit, "global"), model(fedit, "update"), model(local, "own")};
    for (size_t i = 0; i < MEED_COUNT(asked); i++) {
        assert_non_null(asked[i]);
        assert_int_equal(whole(asked[i], "examples"), 6);
        assert_int_equal(whole(asked[i], "secrets"), 8);
        /* A third of them each; the noisy one's share is nobody's update. */
        assert_int_equal(whole(asked[i], "unseen_examples"), i == 0 ? 6 : 4);
    }
    assert_null(model(fedit, "own"));
    assert_null(model(local, "global"));
    json_decref(fedit);
    json_decref(local);
}

static void what_was_learned_by_heart_comes_out(void **state)
{
    (void)state;
    json_t *fedit = cell("one", "federated", "all"), *pit = cell("one", "federated", "synthetic");
    const json_t *open = model(fedit, "update"), *held = model(pit, "update");
    /* Thirty steps on three dialogues: every token is known (1.00 is seen), every label and code
     * found; a model that saw none of it gets the first words of a reply right at most (0.01). */
    assert_true(number(open, "exact") > 0.8);
    assert_int_equal(whole(open, "secrets_found"), whole(open, "secrets"));
    assert_true(number(held, "exact") < 0.3);
    assert_true(whole(held, "secrets_found") <= 2); /* a word of small talk guessed right */
    const json_t *summary = json_object_get(fedit, "summary");
    assert_true(number(summary, "leak_update") == number(open, "gain"));
    /* Three dialogues by heart say nothing of others (−0.03 is seen, beside a gain of 0.88). */
    assert_true(number(summary, "memory_update") == number(open, "gain") - number(open, "unseen"));
    assert_true(fabs(number(open, "unseen")) < 0.2);
    assert_true(number(summary, "secrets_update") ==
                (double)whole(open, "secrets_found") / (double)whole(open, "secrets"));
    assert_true(isnan(number(summary, "utility_own")));
    /* the model at home has learned them all the same */
    assert_true(number(json_object_get(pit, "summary"), "leak_own") > number(held, "gain"));
    assert_true(number(json_object_get(pit, "summary"), "utility_own") < 0);
    json_decref(fedit);
    json_decref(pit);
}

static void alone_nobody_is_paid(void **state)
{
    (void)state;
    static const char *const schemes[] = {"centralised", "local"};
    for (size_t i = 0; i < MEED_COUNT(schemes); i++) {
        json_t *alone = cell("one", schemes[i], "all");
        const json_t *summary = json_object_get(alone, "summary");
        assert_string_equal(json_string_value(json_object_get(alone, "scheme")), schemes[i]);
        assert_true(json_is_null(json_object_get(summary, "paid")));
        assert_true(json_is_null(json_object_get(summary, "false_exclusion")));
        assert_true(fabs(number(summary, "utility_after") - number(summary, "utility_before")) > 0);
        json_decref(alone);
    }
}

static void threads_change_nothing(void **state)
{
    (void)state;
    static const char whole_grid[] =
        "federated+all, federated+synthetic,\n       centralised+all, local+all";
    changed("two.yaml", whole_grid, "federated+synthetic");
    command_good(NULL, "simulate %s/two.yaml --out %s/two -q -t 2", scratch, scratch);
    json_t *one = cell("one", "federated", "synthetic"),
           *two = cell("two", "federated", "synthetic");
    assert_true(json_equal(json_object_get(one, "leakage"), json_object_get(two, "leakage")));
    assert_true(json_equal(json_object_get(one, "summary"), json_object_get(two, "summary")));
    json_decref(one);
    json_decref(two);
}

/* The control variates beside an update are no part of the model that it makes. */
static void updates_of_scaffold_are_decoded(void **state)
{
    (void)state;
    char path[512];
    changed("scaffold.yaml",
            "scheme+training.share, values: [federated+all, federated+synthetic,\n"
            "       centralised+all, local+all]",
            "aggregation+training.method+training.share, values: [fedavg+scaffold+-]");
    command_good(NULL, "simulate %s/scaffold.yaml --out %s/scaffold -q -t 1", scratch, scratch);
    snprintf(path, sizeof path,
             "%s/scaffold/cells/aggregation=fedavg,training.method=scaffold,training.share=-,"
             "seed=1.json",
             scratch);
    json_t *found = json_load_file(path, 0, NULL);
    const json_t *update = model(found, "update");
    assert_non_null(update);
    assert_int_equal(whole(update, "examples"), 6);
    assert_true(number(update, "exact") > 0.8);
    json_decref(found);
}

/* A course for whoever published models, and a page that draws it. */
static void the_report_draws_leakage_against_quality(void **state)
{
    (void)state;
    char path[512];
    size_t size = 0;
    snprintf(path, sizeof path, "%s/one/simulation.json", scratch);
    json_t *simulation = json_load_file(path, 0, NULL), *fedit = cell("one", "federated", "all");
    const json_t *rows = json_object_get(simulation, "rows");
    const json_t *course = json_object_get(json_array_get(rows, 0), "course");
    const json_t *passage = json_array_get(course, 0);
    assert_int_equal(json_array_size(course), 1);
    assert_true(number(passage, "leak") == number(model(fedit, "global"), "gain"));
    assert_true(number(passage, "utility") ==
                number(json_object_get(fedit, "summary"), "utility_after"));
    assert_int_equal(json_array_size(json_object_get(json_array_get(rows, 3), "course")), 0);
    json_decref(simulation);
    json_decref(fedit);
    command_good(NULL, "report %s/one --out %s/page.html", scratch, scratch);
    snprintf(path, sizeof path, "%s/page.html", scratch);
    char *page = scratch_read(path, &size);
    assert_non_null(strstr(page, "Leakage and quality"));
    assert_non_null(strstr(page, "Leakage on the way"));
    assert_non_null(strstr(page, "Out of a client&#39;s update"));
    assert_null(strstr(page, "nan"));
    free(page);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    changed("scheme.yaml", "values: [federated+all", "values: [swarm+all");
    changed("canaries.yaml", "canaries: 1", "canaries: 101");
    changed("label.yaml", "labelled.jsonl", "wrong.jsonl");
    write_text("wrong.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
                              "\"assistant\",\"content\":\"b\"}],\"secrets\":[\"zz\"]}\n");
    static const struct row rows[] = {
        {MEED_CONFIG, "simulate @/scheme.yaml --out @/no", {"swarm", "centralised"}, NULL},
        {MEED_CONFIG, "simulate @/canaries.yaml --out @/no", {"leakage.canaries", "101"}, NULL},
        {MEED_FORMAT, "simulate @/label.yaml --out @/no", {"wrong.jsonl:1", "secret 1"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_witness_is_asked_once),
        cmocka_unit_test(what_was_learned_by_heart_comes_out),
        cmocka_unit_test(alone_nobody_is_paid),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(updates_of_scaffold_are_decoded),
        cmocka_unit_test(the_report_draws_leakage_against_quality),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
