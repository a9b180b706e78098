/* The worker pool: parallel loops whose results do not depend on the number of workers.
 *
 * A loop is cut into fixed chunks by the caller's grain, chunks are handed out in order to whoever
 * is free, and no two chunks may write the same place: so a loop computes the same bits on one
 * thread and on sixty-four. Workers sleep on a condition variable after a short spin, because on a
 * laptop a server and several clients share the cores and a spinning worker steals from them
 * (measured: libgomp's spinning cuts three processes on two cores to a quarter of their speed).
 *
 * One loop runs at a time on a pool; a loop started inside a loop, or on a NULL pool, runs on the
 * calling thread. The caller takes part as worker 0.
 */
#ifndef MEED_BASE_THREADS_H
#define MEED_BASE_THREADS_H

#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_pool;

/* thread_count workers in all (the caller included), 1 to 256; 0 means one a core allowed to this
 * process. Destroy accepts NULL. */
MEED_MUST_CHECK enum meed_status meed_pool_create(int thread_count, struct meed_pool **pool);
void meed_pool_destroy(struct meed_pool *pool);
int meed_pool_thread_count(const struct meed_pool *pool); /* 1 for NULL */

/* body(user, begin, end, worker_idx) over [0, count) in chunks of `grain` (≥ 1). Returns when all
 * chunks are done; everything written by them is visible. */
typedef void (*meed_pool_body_fn)(void *user, int64_t begin, int64_t end, int worker_idx);
void meed_pool_for(struct meed_pool *pool, int64_t count, int64_t grain, meed_pool_body_fn body,
                   void *user);

MEED_END_C
#endif
