/* Shards: whatever their number and whatever happens to them, the merge has the bits of one
 * process.
 *
 * Goal: N = 1, 3 and 8 merge to the valuation of one process field by field; a missing shard is
 * named; inputs and parts of another valuation are refused; a shard killed between two files goes
 * on where it was; a damaged part is scored again. Method: a random cohort of six (one null, two
 * twins: 24 distinct coalitions) and a folder under /tmp, every chunk a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "evaluation/valuation.h"
#include "tests/support/command.h"
#include "tests/support/random_cohort.h"

enum { CLIENTS = 6, DISTINCT = 24, PATH = 512 };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *global;
static struct meed_adapter *made[CLIENTS];
static const struct meed_adapter *sent[CLIENTS];
static const double weights[CLIENTS] = {1 / 6., 1 / 6., 1 / 6., 1 / 6., 1 / 6., 1 / 6.};
static struct meed_valuation *alone;
static char folder[SCRATCH_BYTES];
static char state[SCRATCH_BYTES + 16];

static struct meed_valuation_options options_make(int idx, int count)
{
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 1000003;
    options.batch_tokens = 40; /* a chunk of two coalitions */
    options.shard.folder = state;
    options.shard.idx = idx;
    options.shard.count = count;
    return options;
}

static enum meed_status merge_try(struct meed_valuation **merged)
{
    struct meed_valuation_options options = options_make(0, 0);
    return meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent, CLIENTS,
                              weights, &options, merged);
}

static enum meed_status shard_try(const struct meed_valuation_options *options,
                                  struct meed_valuation_part *part)
{
    return meed_valuation_shard(cohort.be, cohort.checkpoint, &benchmark, global, sent, CLIENTS,
                                weights, options, part);
}

static struct meed_valuation_part shard_run(int idx, int count)
{
    struct meed_valuation_part part;
    struct meed_valuation_options options = options_make(idx, count);
    assert_int_equal(shard_try(&options, &part), MEED_OK);
    return part;
}

static void merge_check(void)
{
    struct meed_valuation *merged = NULL;
    assert_int_equal(merge_try(&merged), MEED_OK);
    assert_memory_equal(merged->utilities_hash, alone->utilities_hash, MEED_SHA256_BYTES);
    assert_int_equal(merged->coalition_count, alone->coalition_count);
    assert_memory_equal(merged->coalition_values, alone->coalition_values,
                        (size_t)alone->coalition_count * sizeof(double));
    assert_memory_equal(merged->clients, alone->clients,
                        CLIENTS * sizeof(struct meed_value_client));
    assert_true(merged->evaluations == alone->evaluations && merged->tokens == alone->tokens);
    assert_true(merged->residual == alone->residual && merged->paid == alone->paid);
    assert_true(merged->path == alone->path);
    meed_valuation_destroy(merged);
}

static int cohort_make(void **unused)
{
    (void)unused;
    random_cohort_open(&cohort, 1); /* no threads: a test forks */
    random_cohort_benchmark(8, 5, &benchmark);
    global = random_cohort_adapter(&cohort, 50, 0.1f);
    for (int k = 0; k < CLIENTS; k++) {
        made[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.25f);
        sent[k] = made[k];
    }
    sent[2] = global;
    sent[4] = made[3];
    struct meed_valuation_options options = options_make(0, 0);
    options.shard.folder = NULL;
    return meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent, CLIENTS,
                              weights, &options, &alone);
}

static int cohort_drop(void **unused)
{
    (void)unused;
    meed_valuation_destroy(alone);
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(made[k]);
    }
    meed_adapter_destroy(global);
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static int folder_make(void **unused)
{
    (void)unused;
    scratch_make(folder);
    snprintf(state, sizeof state, "%s/shards", folder);
    return 0;
}

static int folder_remove(void **unused)
{
    (void)unused;
    scratch_remove(folder);
    return 0;
}

/* How many parts there are; the name of the last one seen. */
static int parts_count(const char *of, char path[PATH])
{
    int count = 0;
    DIR *list = opendir(of);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        if (strstr(entry->d_name, ".part")) {
            snprintf(path, PATH, "%s/%s", of, entry->d_name);
            count++;
        }
    }
    closedir(list);
    return count;
}

static void utility_shard_merges_to_the_bits_of_one_process(void **unused)
{
    (void)unused;
    static const int counts[] = {1, 3, 8};
    for (size_t i = 0; i < MEED_COUNT(counts); i++) {
        int64_t scored = 0;
        for (int s = counts[i]; s >= 1; s--) {
            struct meed_valuation_part part = shard_run(s, counts[i]);
            assert_true(part.found == 0);
            assert_true(part.scored == DISTINCT / counts[i]);
            scored += part.scored;
        }
        assert_true(scored == DISTINCT);
        merge_check();
        folder_remove(NULL);
        folder_make(NULL);
    }
}

static void utility_shard_names_what_is_missing(void **unused)
{
    (void)unused;
    struct meed_valuation *merged = NULL;
    assert_int_equal(merge_try(&merged), MEED_NOT_FOUND);
    shard_run(1, 3);
    assert_int_equal(merge_try(&merged), MEED_STATE);
    assert_non_null(strstr(meed_last_error(), "16 of 24 coalitions"));
    assert_non_null(strstr(meed_last_error(), "--shard 2/3, 3/3 first"));
    shard_run(3, 3);
    assert_int_equal(merge_try(&merged), MEED_STATE);
    assert_non_null(strstr(meed_last_error(), "--shard 2/3 first"));
    assert_null(merged);
}

static void utility_shard_refuses_another_valuation(void **unused)
{
    /* Inputs that differ, each by its name; then a sound part of another valuation. */
    (void)unused;
    struct meed_valuation_part part;
    struct meed_valuation_options options = options_make(1, 3);
    char path[PATH], copy[PATH];
    size_t size = 0;
    shard_run(2, 3);
    options.method = MEED_VALUE_LEAVE_ONE_OUT;
    assert_int_equal(shard_try(&options, &part), MEED_VERSION);
    assert_non_null(strstr(meed_last_error(), "\"method\""));
    options = options_make(1, 4);
    assert_int_equal(shard_try(&options, &part), MEED_VERSION);
    assert_non_null(strstr(meed_last_error(), "\"shards\""));
    sent[1] = made[0];
    options = options_make(1, 3);
    assert_int_equal(shard_try(&options, &part), MEED_VERSION);
    assert_non_null(strstr(meed_last_error(), "\"adapter-2\""));
    snprintf(state, sizeof state, "%s/other", folder);
    shard_run(1, 3);
    sent[1] = made[1];
    assert_true(parts_count(state, path) > 0);
    char *bytes = scratch_read(path, &size);
    snprintf(state, sizeof state, "%s/shards", folder);
    scratch_write(state, strrchr(path, '/') + 1, bytes, size);
    free(bytes);
    struct meed_valuation *merged = NULL;
    assert_int_equal(merge_try(&merged), MEED_VERSION);
    snprintf(copy, sizeof copy, "%s", strrchr(path, '/'));
    assert_non_null(strstr(meed_last_error(), copy));
    assert_non_null(strstr(meed_last_error(), "another valuation"));
}

/* Dies half way through the shard, as kill -9 would. */
static bool die_half_way(void *user, int64_t done, int64_t total)
{
    (void)user;
    if (2 * done > total) {
        _exit(9);
    }
    return true;
}

static void utility_shard_goes_on_after_a_kill(void **unused)
{
    (void)unused;
    int how = 0;
    char path[PATH];
    pid_t child = fork();
    if (child == 0) {
        struct meed_valuation_part part;
        struct meed_valuation_options options = options_make(2, 3);
        options.progress = die_half_way;
        _exit(shard_try(&options, &part) == MEED_OK ? 0 : 1);
    }
    assert_true(waitpid(child, &how, 0) == child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 9);
    assert_true(parts_count(state, path) > 0);
    struct meed_valuation_part part = shard_run(2, 3);
    assert_true(part.found > 0 && part.scored > 0);
    assert_true(part.found + part.scored == 8);
    shard_run(1, 3);
    shard_run(3, 3);
    part = shard_run(3, 3);
    assert_true(part.found == 8 && part.scored == 0);
    merge_check();
}

static void utility_shard_scores_a_damaged_part_again(void **unused)
{
    (void)unused;
    char path[PATH];
    size_t size = 0;
    struct meed_valuation *merged = NULL;
    shard_run(1, 1);
    parts_count(state, path);
    char *bytes = scratch_read(path, &size);
    bytes[size / 2] ^= 1;
    scratch_write(state, strrchr(path, '/') + 1, bytes, size);
    free(bytes);
    assert_int_equal(merge_try(&merged), MEED_INTEGRITY);
    assert_non_null(strstr(meed_last_error(), strrchr(path, '/')));
    struct meed_valuation_part part = shard_run(1, 1);
    assert_true(part.scored > 0 && part.scored + part.found == DISTINCT);
    merge_check();
    scratch_write(state, strrchr(path, '/') + 1, "MEEDPART", 8);
    assert_int_equal(merge_try(&merged), MEED_INTEGRITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(utility_shard_merges_to_the_bits_of_one_process,
                                        folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(utility_shard_names_what_is_missing, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(utility_shard_refuses_another_valuation, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(utility_shard_goes_on_after_a_kill, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(utility_shard_scores_a_damaged_part_again, folder_make,
                                        folder_remove),
    };
    return cmocka_run_group_tests(tests, cohort_make, cohort_drop);
}
