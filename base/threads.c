/* See threads.h. Generation counter, atomic next-chunk index, atomic count of busy workers.
 *
 * A training step of a small model is hundreds of loops of some 50 us: a sleeping hand-over (a
 * futex wake takes as long as such a loop) would halve its rate. So both sides spin first, on an
 * atomic that also orders the hand-over (a loop is written before the generation grows, its results
 * before the count falls), and sleep only after about 0.1 ms without news: workers on a condition
 * that is broadcast, the caller on a semaphore. A condition that is *signalled* would not do: in
 * glibc before 2.41 a signal can be lost (bug 25847), and a caller then sleeps for ever with the
 * work done. */
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include "base/buf.h"

enum { MAX_THREADS = 256, SPIN_ROUNDS = 2000 };

struct loop {
    meed_pool_body_fn body;
    void *user;
    int64_t count;
    int64_t grain;
    _Atomic int64_t next_chunk;
};

struct meed_pool {
    int thread_count;
    pthread_t threads[MAX_THREADS];
    int started;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    sem_t done; /* posted once a loop, by the last worker */
    struct loop loop;
    _Atomic uint64_t generation; /* of the current loop */
    _Atomic int running;         /* workers that have not finished it */
    bool stopping;               /* written before the generation grows */
    pthread_mutex_t caller;      /* one loop at a time */
};

struct worker_start {
    struct meed_pool *pool;
    int worker_idx;
};

static MEED_THREAD_LOCAL bool inside_loop;

static void loop_run(struct loop *loop, int worker_idx)
{
    inside_loop = true;
    for (;;) {
        int64_t begin = atomic_fetch_add(&loop->next_chunk, 1) * loop->grain;
        if (begin >= loop->count) {
            break;
        }
        int64_t end = begin + loop->grain < loop->count ? begin + loop->grain : loop->count;
        loop->body(loop->user, begin, end, worker_idx);
    }
    inside_loop = false;
}

static void *worker_main(void *argument)
{
    struct worker_start start = *(struct worker_start *)argument;
    meed_heap_free(argument);
    struct meed_pool *pool = start.pool;
    uint64_t seen = 0;
    for (;;) {
        for (int spin = 0; spin < SPIN_ROUNDS && atomic_load(&pool->generation) == seen; spin++) {
            MEED_SPIN_HINT();
        }
        if (atomic_load(&pool->generation) == seen) {
            pthread_mutex_lock(&pool->mutex);
            while (atomic_load(&pool->generation) == seen) {
                pthread_cond_wait(&pool->work, &pool->mutex);
            }
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = atomic_load(&pool->generation);
        if (pool->stopping) {
            return NULL;
        }
        loop_run(&pool->loop, start.worker_idx);
        if (atomic_fetch_sub(&pool->running, 1) == 1) {
            sem_post(&pool->done);
        }
    }
}

static int cores_allowed(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    return CPU_COUNT(&set);
}

enum meed_status meed_pool_create(int thread_count, struct meed_pool **pool)
{
    if (thread_count == 0) {
        thread_count = MEED_MIN(cores_allowed(), MAX_THREADS);
    }
    if (thread_count < 1 || thread_count > MAX_THREADS) {
        return MEED_FAIL(MEED_ARG, "threads: %d is not from 1 to %d", thread_count, MAX_THREADS);
    }
    struct meed_pool *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    pthread_mutex_init(&made->mutex, NULL);
    pthread_mutex_init(&made->caller, NULL);
    pthread_cond_init(&made->work, NULL);
    sem_init(&made->done, 0, 0);
    made->thread_count = 1;
    for (int i = 1; i < thread_count; i++) {
        struct worker_start *start = meed_heap_alloc(1, sizeof *start);
        if (start) {
            *start = (struct worker_start){made, i};
        }
        if (!start || pthread_create(&made->threads[i], NULL, worker_main, start) != 0) {
            meed_heap_free(start);
            meed_pool_destroy(made);
            return MEED_FAIL(MEED_NOMEM, "cannot start worker thread %d of %d", i, thread_count);
        }
        made->thread_count = i + 1;
    }
    *pool = made;
    return MEED_OK;
}

void meed_pool_destroy(struct meed_pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->stopping = true;
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 1; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->work);
    sem_destroy(&pool->done);
    pthread_mutex_destroy(&pool->mutex);
    pthread_mutex_destroy(&pool->caller);
    meed_heap_free(pool);
}

int meed_pool_thread_count(const struct meed_pool *pool)
{
    return pool ? pool->thread_count : 1;
}

void meed_pool_for(struct meed_pool *pool, int64_t count, int64_t grain, meed_pool_body_fn body,
                   void *user)
{
    MEED_ASSERT(grain >= 1);
    if (count <= 0) {
        return;
    }
    if (!pool || pool->thread_count == 1 || inside_loop || count <= grain) {
        for (int64_t begin = 0; begin < count; begin += grain) {
            body(user, begin, begin + grain < count ? begin + grain : count, 0);
        }
        return;
    }
    pthread_mutex_lock(&pool->caller);
    pool->loop.body = body;
    pool->loop.user = user;
    pool->loop.count = count;
    pool->loop.grain = grain;
    atomic_store(&pool->loop.next_chunk, 0);
    atomic_store(&pool->running, pool->thread_count - 1);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    loop_run(&pool->loop, 0);
    for (int spin = 0; spin < SPIN_ROUNDS && atomic_load(&pool->running) > 0; spin++) {
        MEED_SPIN_HINT();
    }
    while (sem_wait(&pool->done) != 0) { /* a signal handler ran */
    }
    pthread_mutex_unlock(&pool->caller);
}
