/* `meed value` in shards, as a job array runs it.
 *
 * Goal: three processes into one folder and a merge write the JSON of one process, byte for byte,
 * also when one of them was stopped by a signal on the way; options that do not go together are
 * refused. Method: the binary itself on examples/tiny with three adapters of two steps. */
#include "tests/loop/cli_fixture.h"

#define VALUE                                                                                      \
    "value --model " TINY "/model --benchmark %s/small.jsonl -q -t 1 --path stack "                \
    "--batch-tokens 256 --adapters %s/bank %s/clinic %s/transit "

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    static const char *const clients[] = {"bank", "clinic", "transit"};
    for (size_t i = 0; i < MEED_COUNT(clients); i++) {
        command_good(NULL,
                     "train --model " TINY "/model --data " TINY "/clients/%s.jsonl --out %s/%s "
                     "--steps 2 --rank 4 --lr 0.01 --batch-tokens 256 -q -t 1",
                     clients[i], scratch, clients[i]);
    }
    size_t size = 0, kept = 0;
    char *text = tiny_read("benchmark.jsonl", &size);
    for (int lines = 0; lines < 24 && text[kept]; lines++) {
        kept += strcspn(text + kept, "\n") + 1;
    }
    scratch_write(scratch, "small.jsonl", text, kept);
    free(text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static char *json_of(const char *name)
{
    char path[SCRATCH_BYTES + 32];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return scratch_read(path, NULL);
}

static void shards_merge_to_the_bytes_of_one_process(void **state)
{
    (void)state;
    struct command_result result;
    char line[4096];
    const char *s = scratch;
    command_good(NULL, VALUE "--budget 1001 --json %s/one.json", s, s, s, s, s);
    command_good(NULL, VALUE "--shard 1/3 --state %s/shards", s, s, s, s, s);
    command_good(NULL, VALUE "--shard 3/3 --state %s/shards", s, s, s, s, s);
    snprintf(line, sizeof line, VALUE "--budget 1001 --merge %s/shards --json %s/many.json", s, s,
             s, s, s, s);
    command_run(&result, NULL, line);
    command_refused(&result, MEED_STATE, (const char *const[]){"--shard 2/3 first", NULL});
    command_clear(&result);
    check_absent("@/many.json");
    command_good(&result, VALUE "--shard 2/3 --state %s/shards", s, s, s, s, s);
    assert_non_null(strstr(result.out, "shard 2/3: 3 coalitions scored, 0 found"));
    command_clear(&result);
    command_good(NULL, VALUE "--budget 1001 --merge %s/shards --json %s/many.json", s, s, s, s, s,
                 s);
    char *one = json_of("one.json"), *many = json_of("many.json");
    assert_string_equal(one, many);
    assert_non_null(strstr(one, "\"evaluations\": 8"));
    free(one);
    free(many);
}

/* A signal at a random moment: before the first coalition, on the way or too late; each time the
 * shard ends as documented and the next run of the same command ends the work. */
static void shards_stop_at_a_signal_and_go_on(void **state)
{
    (void)state;
    char line[4096], log[SCRATCH_BYTES + 16];
    const char *s = scratch;
    int stopped = 0;
    for (int i = 0; i < 5; i++) {
        snprintf(log, sizeof log, "%s/log%d", scratch, i);
        snprintf(line, sizeof line, VALUE "--shard 1/1 --state %s/stop%d", s, s, s, s, s, i);
        pid_t shard = command_start(log, line);
        usleep((useconds_t)(100000 * (i + 1)));
        int code = command_stop(shard);
        stopped += code == meed_status_exit_code(MEED_CANCELLED);
        assert_true(code == 0 || code == 128 + 15 || code == meed_status_exit_code(MEED_CANCELLED));
        command_good(NULL, VALUE "--shard 1/1 --state %s/stop%d", s, s, s, s, s, i);
        command_good(NULL, VALUE "--budget 1001 --merge %s/stop%d --json %s/stop.json", s, s, s, s,
                     s, i, s);
        char *one = json_of("one.json"), *many = json_of("stop.json");
        assert_string_equal(one, many);
        free(one);
        free(many);
    }
    assert_true(stopped > 0);
}

static void shards_options_that_do_not_go_together(void **state)
{
    (void)state;
#define GIVEN "value --model ~/model --benchmark ~/benchmark.jsonl --adapters @/bank "
    static const struct row rows[] = {
        {MEED_ARG, GIVEN "--shard 1/2", {"--state"}, NULL},
        {MEED_ARG, GIVEN "--state @/d --budget 1", {"--shard"}, NULL},
        {MEED_ARG, GIVEN "--shard 3/2 --state @/d", {"--shard", "\"3\"", "1 to 2"}, NULL},
        {MEED_ARG, GIVEN "--shard 0/2 --state @/d", {"--shard", "\"0\""}, NULL},
        {MEED_ARG, GIVEN "--shard 2 --state @/d", {"\"2\" is not I/N"}, NULL},
        {MEED_ARG, GIVEN "--shard 1/x --state @/d", {"--shard", "\"x\""}, NULL},
        {MEED_ARG, GIVEN "--shard 1/2 --state @/d --json @/j", {"--json"}, NULL},
        {MEED_ARG, GIVEN "--shard 1/2 --state @/d --cache @/c", {"--cache"}, NULL},
        {MEED_ARG, GIVEN "--merge @/d", {"--budget"}, NULL},
        {MEED_ARG, GIVEN "--merge @/d --budget 1 --cache @/c", {"--cache"}, NULL},
        {MEED_NOT_FOUND, GIVEN "--merge @/d --budget 1", {"@/d", "--shard"}, NULL},
        {MEED_IO, GIVEN "--shard 1/2 --state @/small.jsonl/d", {"@/small.jsonl"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_merge_to_the_bytes_of_one_process),
        cmocka_unit_test(shards_stop_at_a_signal_and_go_on),
        cmocka_unit_test(shards_options_that_do_not_go_together),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
