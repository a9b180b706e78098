/* The worker pool: every chunk once, on any number of threads, loops inside loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include "base/threads.h"

enum { COUNT = 10007 };
static int visits[COUNT];

static void visit(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    (void)user;
    for (int64_t i = begin; i < end; i++) {
        visits[i]++;
    }
}

static void threads_visit_every_index_once(void **state)
{
    /* Goal: whatever the number of workers and the grain, each index is visited exactly once. */
    (void)state;
    static const int thread_counts[] = {1, 2, 3, 8};
    for (size_t t = 0; t < MEED_COUNT(thread_counts); t++) {
        struct meed_pool *pool = NULL;
        assert_int_equal(meed_pool_create(thread_counts[t], &pool), MEED_OK);
        assert_int_equal(meed_pool_thread_count(pool), thread_counts[t]);
        for (int round = 0; round < 200; round++) {
            meed_pool_for(pool, COUNT, 1 + round, visit, NULL);
        }
        meed_pool_destroy(pool);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(visits[i], 800);
    }
}

struct nested {
    struct meed_pool *pool;
    _Atomic int64_t sum;
};

static void inner(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    struct nested *nested = user;
    for (int64_t i = begin; i < end; i++) {
        atomic_fetch_add(&nested->sum, i);
    }
}

static void outer(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    struct nested *nested = user;
    for (int64_t i = begin; i < end; i++) {
        meed_pool_for(nested->pool, 100, 10, inner, nested);
    }
}

static void threads_loop_inside_a_loop_runs_in_place(void **state)
{
    /* Goal: nesting neither deadlocks nor loses work; a NULL pool is one thread; counts of 0. */
    (void)state;
    struct nested nested = {NULL, 0};
    assert_int_equal(meed_pool_create(4, &nested.pool), MEED_OK);
    meed_pool_for(nested.pool, 50, 1, outer, &nested);
    assert_int_equal(atomic_load(&nested.sum), 50 * 4950);
    meed_pool_for(nested.pool, 0, 1, outer, &nested);
    meed_pool_for(NULL, 1, 1, inner, &nested);
    assert_int_equal(atomic_load(&nested.sum), 50 * 4950);
    meed_pool_destroy(nested.pool);
    meed_pool_destroy(NULL);
    struct meed_pool *pool = NULL;
    assert_int_equal(meed_pool_create(-1, &pool), MEED_ARG);
    assert_int_equal(meed_pool_create(257, &pool), MEED_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_visit_every_index_once),
        cmocka_unit_test(threads_loop_inside_a_loop_runs_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
