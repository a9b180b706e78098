/* The game over a model: cached, resumed after a kill, repaired and uncached utilities are the same
 * bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "evaluation/utility.h"
#include "tests/support/random_cohort.h"

enum { CLIENTS = 5, COALITIONS = 1 << CLIENTS, DIALOGUES = 4, ITEMS = 2 * DIALOGUES };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *clients[CLIENTS];
static const double weights[CLIENTS] = {0.2, 0.2, 0.2, 0.2, 0.2};
static char cache_path[96];
static double members[COALITIONS * CLIENTS];
static double expected[COALITIONS * ITEMS];

/* Small batches: several writes to the cache in 32 coalitions. */
static struct meed_utility *utility_open(const char *cache, meed_coalition_progress_fn progress)
{
    struct meed_utility *utility = NULL;
    struct meed_utility_options options = {.path = MEED_PATH_AUTO,
                                           .batch_tokens = 40,
                                           .coalitions_expected = COALITIONS,
                                           .cache_path = cache,
                                           .progress = progress};
    assert_int_equal(meed_utility_create(cohort.be, cohort.checkpoint, &benchmark, NULL,
                                         (const struct meed_adapter *const *)clients, CLIENTS,
                                         weights, &options, &utility),
                     MEED_OK);
    return utility;
}

/* Evaluates all coalitions, compares with `expected`, returns how many were scored. */
static int64_t evaluate_all(const char *cache)
{
    static double got[COALITIONS * ITEMS];
    struct meed_utility *utility = utility_open(cache, NULL);
    struct meed_game game = meed_utility_game(utility);
    assert_int_equal(game.evaluate(game.user, members, COALITIONS, got), MEED_OK);
    assert_memory_equal(got, expected, sizeof got);
    struct meed_utility_report report = meed_utility_report_of(utility);
    assert_true(report.tokens == report.evaluations * benchmark.tokens);
    meed_utility_destroy(utility);
    return report.evaluations;
}

static int cohort_make(void **state)
{
    (void)state;
    random_cohort_open(&cohort, 2);
    random_cohort_benchmark(DIALOGUES, 3, &benchmark);
    for (int k = 0; k < CLIENTS; k++) {
        clients[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.2f);
    }
    snprintf(cache_path, sizeof cache_path, "%s/utilities.db", cohort.folder);
    for (int mask = 0; mask < COALITIONS; mask++) {
        for (int k = 0; k < CLIENTS; k++) {
            members[mask * CLIENTS + k] = (mask >> k) & 1 ? 1.0 : 0.0;
        }
    }
    struct meed_utility *utility = utility_open(NULL, NULL);
    struct meed_game game = meed_utility_game(utility);
    enum meed_status st = game.evaluate(game.user, members, COALITIONS, expected);
    meed_utility_destroy(utility);
    return st != MEED_OK;
}

static int cache_remove(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", cache_path, suffixes[i]);
        unlink(name);
    }
    return 0;
}

static int cohort_drop(void **state)
{
    cache_remove(state);
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(clients[k]);
    }
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static void utility_is_scored_once_and_then_read(void **state)
{
    (void)state; /* Goal: 32 scored, then none, always the same bits; threads do not matter. */
    assert_true(evaluate_all(cache_path) == COALITIONS);
    assert_true(evaluate_all(cache_path) == 0);
    random_cohort_threads(&cohort, 1);
    assert_true(evaluate_all(NULL) == COALITIONS);
    random_cohort_threads(&cohort, 2);
}

static bool die_at_two_thirds(void *user, int64_t done, int64_t total)
{
    (void)user;
    if (3 * done > 2 * total) {
        _exit(9);
    }
    return true;
}

static void utility_resumes_after_a_kill(void **state)
{
    /* Goal: a child dies inside its evaluation; the parent scores what is missing and nothing else,
     * and ends with the bits of an undisturbed run. */
    (void)state;
    random_cohort_threads(&cohort, 1); /* other threads do not survive a fork */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static double got[COALITIONS * ITEMS];
        struct meed_utility *utility = utility_open(cache_path, die_at_two_thirds);
        struct meed_game game = meed_utility_game(utility);
        meed_status_discard(game.evaluate(game.user, members, COALITIONS, got));
        _exit(1);
    }
    int status = 0;
    assert_true(waitpid(child, &status, 0) == child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 9);
    random_cohort_threads(&cohort, 2);
    int64_t scored = evaluate_all(cache_path);
    assert_true(scored > 0 && scored < COALITIONS * 2 / 3);
    assert_true(evaluate_all(cache_path) == 0);
}

static void utility_repairs_a_corrupt_entry(void **state)
{
    (void)
        state; /* Goal: one flipped byte on disk: one coalition is scored again, bits as before. */
    assert_true(evaluate_all(cache_path) == COALITIONS);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(cache_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE utility SET utilities=x'5A'||substr(utilities,2) WHERE "
                                  "members=7",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    assert_true(evaluate_all(cache_path) == 1);
    assert_true(evaluate_all(cache_path) == 0);
}

static void utility_context_follows_its_inputs(void **state)
{
    /* Goal: another adapter, weight, benchmark or path is another context; the same inputs are the
     * same. */
    (void)state;
    uint8_t contexts[6][MEED_SHA256_BYTES];
    struct meed_adapter *other = random_cohort_adapter(&cohort, 99, 0.2f);
    double p[CLIENTS];
    memcpy(p, weights, sizeof p);
    for (int variant = 0; variant < 6; variant++) {
        const struct meed_adapter *of[CLIENTS] = {clients[0], clients[1], clients[2], clients[3],
                                                  variant == 1 ? other : clients[4]};
        p[0] = variant == 2 ? 0.1 : 0.2;
        benchmark.hash[0] ^= variant == 3 ? 1 : 0;
        struct meed_utility_options options = {.path =
                                                   variant == 4 ? MEED_PATH_MERGE : MEED_PATH_STACK,
                                               .batch_tokens = variant == 5 ? 99 : 40,
                                               .coalitions_expected = COALITIONS};
        struct meed_utility *utility = NULL;
        assert_int_equal(meed_utility_create(cohort.be, cohort.checkpoint, &benchmark, NULL, of,
                                             CLIENTS, p, &options, &utility),
                         MEED_OK);
        memcpy(contexts[variant], meed_utility_context(utility), MEED_SHA256_BYTES);
        meed_utility_destroy(utility);
        benchmark.hash[0] ^= variant == 3 ? 1 : 0;
        bool same = memcmp(contexts[variant], contexts[0], MEED_SHA256_BYTES) == 0;
        assert_true(same == (variant == 0 || variant == 5));
    }
    meed_adapter_destroy(other);
}

static void utility_of_fractional_members_passes_the_cache_by(void **state)
{
    (void)state; /* Goal: members of ½ are scored every time and are not confused with sets. */
    const double half[2 * CLIENTS] = {0.5, 1, 0, 0, 0, 1, 1, 0, 0, 0};
    double got[2 * ITEMS];
    for (int i = 0; i < 2; i++) {
        struct meed_utility *utility = utility_open(cache_path, NULL);
        struct meed_game game = meed_utility_game(utility);
        assert_int_equal(game.evaluate(game.user, half, 2, got), MEED_OK);
        assert_memory_equal(got + ITEMS, expected + 3 * ITEMS, ITEMS * sizeof *got);
        assert_memory_not_equal(got, got + ITEMS, ITEMS * sizeof *got);
        meed_utility_destroy(utility);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(utility_is_scored_once_and_then_read, cache_remove),
        cmocka_unit_test_teardown(utility_resumes_after_a_kill, cache_remove),
        cmocka_unit_test_teardown(utility_repairs_a_corrupt_entry, cache_remove),
        cmocka_unit_test_teardown(utility_context_follows_its_inputs, cache_remove),
        cmocka_unit_test_teardown(utility_of_fractional_members_passes_the_cache_by, cache_remove),
    };
    return cmocka_run_group_tests(tests, cohort_make, cohort_drop);
}
