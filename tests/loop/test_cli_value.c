/* meed value by every method: adapters of different ranks and targets in, the same document out.
 *
 * Goal: methods agree where they must, name how they ended, and say what two adapters have in
 * common; what cannot be asked is refused in one sentence. Method: three short trainings on
 * examples/tiny (one of them of another rank on attention only), priced on every eighth dialogue.
 */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>
#include <math.h>

#define VALUE                                                                                      \
    "value --model ~/model --benchmark @/bench.jsonl -q --adapters @/bank @/clinic @/other "       \
    "--budget 1000 --path stack --json @/out.json "

static int setup(void **state)
{
    (void)state;
    char line[4096];
    scratch_make(scratch);
    static const char *const trained[] = {
        "train --model ~/model --data ~/clients/bank.jsonl --out @/bank --steps 3 --rank 4 "
        "--lr 0.01 --batch-tokens 256 -q",
        "train --model ~/model --data ~/clients/clinic.jsonl --out @/clinic --steps 3 --rank 4 "
        "--lr 0.01 --batch-tokens 256 -q",
        "train --model ~/model --data ~/clients/bank.jsonl --out @/other --steps 3 --rank 2 "
        "--targets attention --lr 0.01 --batch-tokens 256 -q"};
    for (size_t i = 0; i < MEED_COUNT(trained); i++) {
        command_good(NULL, "%s", expand(trained[i], line));
    }
    size_t size = 0, used = 0;
    char *text = tiny_read("benchmark.jsonl", &size);
    char *kept = malloc(size + 1);
    assert_non_null(kept);
    int number = 0;
    for (char *at = text; at < text + size; number++) {
        char *end = strchr(at, '\n');
        size_t length = end ? (size_t)(end - at) + 1 : strlen(at);
        if (number % 8 == 0) {
            memcpy(kept + used, at, length);
            used += length;
        }
        at += length;
    }
    scratch_write(scratch, "bench.jsonl", kept, used);
    free(kept);
    free(text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static json_t *priced(const char *options)
{
    char line[4096], command[4096];
    json_error_t error;
    snprintf(command, sizeof command, VALUE "%s", options);
    command_good(NULL, "%s", expand(command, line));
    char *text = scratch_read(expand("@/out.json", line), NULL);
    json_t *root = json_loads(text, 0, &error);
    free(text);
    assert_non_null(root);
    return root;
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_number(value) && isfinite(json_number_value(value)));
    return json_number_value(value);
}

static const json_t *client(const json_t *root, size_t k)
{
    return json_array_get(json_object_get(root, "clients"), k);
}

static void value_methods_agree_and_say_how_they_ended(void **state)
{
    /* Goal: gradient within 3 % of the range of exact, permutation within 4 of its errors, each
     * document naming its method; stop, draws and sampling errors only where coalitions are drawn.
     */
    (void)state;
    json_t *exact = priced("");
    json_t *gradient = priced("--method gradient --nodes 3");
    json_t *orders = priced("--method permutation --budget-evals 34 --seed 4");
    assert_string_equal(json_string_value(json_object_get(gradient, "method")), "gradient");
    assert_string_equal(json_string_value(json_object_get(gradient, "stop")), "complete");
    assert_string_equal(json_string_value(json_object_get(orders, "stop")), "budget");
    assert_true(number(orders, "draws") == 8 && number(exact, "draws") == 0);
    assert_int_equal(json_array_size(json_object_get(exact, "coalitions")), 8);
    assert_int_equal(json_array_size(json_object_get(gradient, "coalitions")), 0);
    double low = 1e9, high = -1e9;
    for (size_t k = 0; k < 3; k++) {
        low = fmin(low, number(client(exact, k), "phi"));
        high = fmax(high, number(client(exact, k), "phi"));
    }
    for (size_t k = 0; k < 3; k++) {
        double truth = number(client(exact, k), "phi");
        assert_true(fabs(number(client(gradient, k), "phi") - truth) < 0.03 * (high - low));
        double error = number(client(orders, k), "sampling_se");
        assert_true(error > 0 && number(client(exact, k), "sampling_se") == 0);
        assert_true(fabs(number(client(orders, k), "phi") - truth) <= 4 * error + 1e-12);
    }
    json_decref(exact);
    json_decref(gradient);
    json_decref(orders);
}

static void value_pairs_tell_what_adapters_share(void **state)
{
    /* Goal: three pairs with cosines in [−1, 1]; interaction and overlap only with exact values, as
     * worked out by hand from the document's own coalitions. */
    (void)state;
    json_t *exact = priced("");
    json_t *gradient = priced("--method gradient");
    const json_t *pairs = json_object_get(exact, "pairs");
    assert_int_equal(json_array_size(pairs), 3);
    double value[8];
    const json_t *coalitions = json_object_get(exact, "coalitions");
    for (size_t mask = 0; mask < 8; mask++) {
        value[mask] = number(json_array_get(coalitions, mask), "value");
    }
    const json_t *first = json_array_get(pairs, 0); /* bank and clinic; other is bit 2 */
    double apart = value[3] - value[1] - value[2] + value[0];
    double beside = value[7] - value[5] - value[6] + value[4];
    assert_true(fabs(number(first, "interaction") - (apart + beside) / 2) < 1e-12);
    assert_true(fabs(number(first, "overlap") + apart) < 1e-12);
    for (size_t i = 0; i < 3; i++) {
        const json_t *pair = json_array_get(pairs, i);
        assert_true(fabs(number(pair, "cosine")) <= 1);
        const json_t *same = json_array_get(json_object_get(gradient, "pairs"), i);
        assert_true(number(same, "cosine") == number(pair, "cosine"));
        assert_null(json_object_get(same, "interaction"));
    }
    json_decref(exact);
    json_decref(gradient);
}

static void value_oracle_answers_the_other_question(void **state)
{
    /* Goal: four models for two clients' data, labelled as the retrained game, efficient, the same
     * number for a set whatever else is asked; no shares anywhere. */
    (void)state;
    char line[4096];
    json_error_t error;
    command_good(NULL, "%s",
                 expand("value --model ~/model --benchmark @/bench.jsonl -q --oracle retrain "
                        "--oracle-steps 2 --oracle-rank 2 ~/clients/transit.jsonl "
                        "~/clients/idle.jsonl --json @/oracle.json",
                        line));
    char *text = scratch_read(expand("@/oracle.json", line), NULL);
    json_t *root = json_loads(text, 0, &error);
    free(text);
    assert_string_equal(json_string_value(json_object_get(root, "game")), "retrained");
    const json_t *coalitions = json_object_get(root, "coalitions");
    assert_int_equal(json_array_size(coalitions), 4);
    double gain = number(json_array_get(coalitions, 3), "value") -
                  number(json_array_get(coalitions, 0), "value");
    double sum = number(client(root, 0), "phi") + number(client(root, 1), "phi");
    assert_true(fabs(sum - gain) < 1e-9 && gain > 0);
    assert_true(number(json_array_get(coalitions, 1), "value") !=
                number(json_array_get(coalitions, 3), "value"));
    assert_null(json_object_get(client(root, 0), "share"));
    json_decref(root);
}

static void value_refuses_what_a_method_cannot_do(void **state)
{
    (void)state; /* Goal: one sentence each, naming what to do instead. */
    static const struct row rows[] = {
        {MEED_ARG, VALUE "--method nonsense", {"--method", "permutation", "auto"}, NULL},
        {MEED_ARG, VALUE "--method owen --budget-evals 20", {"budget of 20", "at least 34"}, NULL},
        {MEED_ARG, VALUE "--nodes 40 --method gradient", {"--nodes"}, NULL},
        {MEED_ARG, VALUE "--oracle retrain", {"--oracle", "no --global, --budget"}, NULL},
        {MEED_ARG,
         "value --model ~/model --benchmark @/bench.jsonl -q --oracle retrain 1 2 3 4 5 6",
         {"1 to 5 data files, not 6"},
         NULL},
        {MEED_ARG, VALUE "--method banzhaf --merge @/none", {"banzhaf", "shards", "exact"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(value_methods_agree_and_say_how_they_ended),
        cmocka_unit_test(value_pairs_tell_what_adapters_share),
        cmocka_unit_test(value_oracle_answers_the_other_question),
        cmocka_unit_test(value_refuses_what_a_method_cannot_do),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
