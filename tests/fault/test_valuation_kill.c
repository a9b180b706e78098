/* kill -9 inside a valuation, at many instants, then the same valuation again.
 *
 * Goal: at most the batch in flight is scored a second time, and values, errors, shares and hashes
 * are those of an undisturbed run. Method: a child values six random adapters with a utility cache
 * and raises SIGKILL at a chosen call of its progress function, telling through shared memory how
 * far it was; the parent goes on from the cache and counts what it scores. Deaths follow each other
 * on one cache too. How a server survives the same is tests/fault/processes.sh, moment `valuing`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "evaluation/valuation.h"
#include "tests/support/random_cohort.h"

/* Of utility.c: forwards between two writes of the cache. */
enum { CLIENTS = 6, COALITIONS = 64, CHUNK_BATCHES = 6, BATCH_TOKENS = 150 };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *sent[CLIENTS];
static const double weights[CLIENTS] = {1 / 6., 1 / 6., 1 / 6., 1 / 6., 1 / 6., 1 / 6.};
static char cache[128];
static int64_t batch; /* coalitions between two writes */

/* What the child says before it dies. */
static struct shared {
    int64_t calls, tokens;
    int64_t fatal_call; /* 0: none */
} * shared;

static int setup(void **state)
{
    (void)state;
    random_cohort_open(&cohort, 1); /* no threads: a test forks */
    random_cohort_benchmark(8, 5, &benchmark);
    for (int k = 0; k < CLIENTS; k++) {
        sent[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.25f);
    }
    snprintf(cache, sizeof cache, "%s/utilities.db", cohort.folder);
    batch = ((int64_t)CHUNK_BATCHES * BATCH_TOKENS + benchmark.tokens - 1) / benchmark.tokens;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    return 0;
}

static void drop_cache(void)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < MEED_COUNT(suffixes); i++) {
        char name[160];
        snprintf(name, sizeof name, "%s%s", cache, suffixes[i]);
        remove(name);
    }
}

static int teardown(void **state)
{
    (void)state;
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(sent[k]);
    }
    drop_cache();
    munmap(shared, sizeof *shared);
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static bool on_progress(void *user, int64_t done, int64_t total)
{
    (void)user;
    (void)total;
    shared->tokens = done;
    if (++shared->calls == shared->fatal_call) {
        raise(SIGKILL);
    }
    return true;
}

static struct meed_valuation *value(const char *cache_path)
{
    struct meed_valuation *valuation = NULL;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 100003;
    options.batch_tokens = BATCH_TOKENS;
    options.cache_path = cache_path;
    options.progress = on_progress;
    shared->calls = 0;
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, NULL,
                                        (const struct meed_adapter *const *)sent, CLIENTS, weights,
                                        &options, &valuation),
                     MEED_OK);
    return valuation;
}

/* A child that dies at the n-th call of its progress, or lives if there are fewer. */
static bool dies(int64_t call)
{
    *shared = (struct shared){.fatal_call = call};
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        meed_valuation_destroy(value(cache));
        _exit(0);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    shared->fatal_call = 0;
    assert_true(WIFSIGNALED(how) ? WTERMSIG(how) == SIGKILL : WEXITSTATUS(how) == 0);
    return WIFSIGNALED(how);
}

static void expect_same(const struct meed_valuation *x, const struct meed_valuation *y)
{
    assert_memory_equal(x->utilities_hash, y->utilities_hash, MEED_SHA256_BYTES);
    assert_memory_equal(x->coalition_values, y->coalition_values, COALITIONS * sizeof(double));
    assert_true(x->paid == y->paid && x->value_kept == y->value_kept);
    for (int k = 0; k < CLIENTS; k++) {
        assert_true(x->clients[k].phi == y->clients[k].phi);
        assert_true(x->clients[k].se == y->clients[k].se);
        assert_true(x->clients[k].share == y->clients[k].share);
        assert_int_equal(x->clients[k].status, y->clients[k].status);
    }
}

/* Dead at one instant of the whole way, from the first forward to the last. */
static void valuation_killed_loses_a_batch_at_most(void **state)
{
    (void)state;
    struct meed_valuation *calm = value(NULL);
    int64_t calls = shared->calls, most = 0;
    int deaths = 0;
    assert_int_equal(calm->evaluations, COALITIONS);
    assert_true(calls > 12 && batch > 1 && batch < COALITIONS / 4);
    for (int64_t at = 1; at <= calls; at += 7, deaths++) { /* 7: no divisor of a batch's calls */
        drop_cache();
        assert_true(dies(at));
        int64_t done = shared->tokens / benchmark.tokens; /* whole coalitions behind it */
        struct meed_valuation *again = value(cache);
        int64_t twice = done - (COALITIONS - again->evaluations);
        assert_true(again->evaluations <= COALITIONS);
        assert_true(twice <= batch);
        most = MEED_MAX(most, twice);
        expect_same(calm, again);
        meed_valuation_destroy(again);
    }
    print_message("%d deaths: at most %lld of %d coalitions scored twice, %lld a batch\n", deaths,
                  (long long)most, COALITIONS, (long long)batch);
    assert_true(deaths > 12 && most > 0); /* else nobody died inside a batch */
    meed_valuation_destroy(calm);
}

/* Dead again and again on one cache: every life that lasts a batch gets a batch further. */
static void valuation_killed_often_still_ends(void **state)
{
    (void)state;
    struct meed_valuation *calm = value(NULL);
    int64_t life = shared->calls / 4; /* a quarter of the way, four times and a bit */
    int deaths = 0;
    drop_cache();
    while (dies(life)) {
        assert_true(++deaths < 20);
    }
    assert_true(deaths >= 3);
    struct meed_valuation *last = value(cache);
    assert_int_equal(last->evaluations, 0);
    expect_same(calm, last);
    meed_valuation_destroy(last);
    meed_valuation_destroy(calm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valuation_killed_loses_a_batch_at_most),
        cmocka_unit_test(valuation_killed_often_still_ends),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
