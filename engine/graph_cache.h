/* Work on the device that comes again and again in a few shapes, recorded once per shape.
 *
 * The caller gives a shape, a key of four numbers, and a function that enqueues ops and nothing
 * else: no copy from or to the host, no wait, no allocation, and nothing in the arguments that
 * changes while the key stays the same (backend.h). On a backend with graphs the first run of a key
 * is an ordinary one (scratch grows, algorithms are chosen), the second is recorded, and from then
 * on the graph is launched. Without graphs the function is called each time. Results are the same.
 *
 * A few keys are kept, the least recently used gives way. A batch is padded to one of few shapes by
 * whoever makes it (batch.h), for the sake of this cache alone.
 */
#ifndef MEED_ENGINE_GRAPH_CACHE_H
#define MEED_ENGINE_GRAPH_CACHE_H

#include "kernels/backend.h"

MEED_BEGIN_C

enum { MEED_GRAPH_CACHE_SLOTS = 16, MEED_GRAPH_KEY = 4 };

struct meed_graph_key {
    int64_t parts[MEED_GRAPH_KEY];
};

/* Enqueues ops on the backend. */
typedef void meed_graph_enqueue_fn(void *user);

struct meed_graph_cache {
    const struct meed_backend *be;
    int64_t clock;
    int64_t recorded; /* graphs made so far */
    int64_t launched; /* runs that were launches of a graph */
    struct meed_graph_slot {
        struct meed_graph_key key;
        int64_t used; /* clock of the last run, 0: empty */
        struct meed_graph *graph;
        int64_t nodes;
    } slots[MEED_GRAPH_CACHE_SLOTS];
};

void meed_graph_cache_init(struct meed_graph_cache *cache, const struct meed_backend *be);
/* Frees all graphs; before the memory that their ops name. Accepts a zeroed struct. */
void meed_graph_cache_clear(struct meed_graph_cache *cache);
/* Whether runs become graphs: whether padding to few shapes is worth anything. */
bool meed_graph_cache_useful(const struct meed_graph_cache *cache);
/* Runs the work of this key. `nodes` (may be NULL): launches inside the graph, 0 where there is
 * none yet. Failures of ops arrive at the next sync, as always; the status is of recording. */
MEED_MUST_CHECK enum meed_status meed_graph_cache_run(struct meed_graph_cache *cache,
                                                      struct meed_graph_key key,
                                                      meed_graph_enqueue_fn *enqueue, void *user,
                                                      int64_t *nodes);

MEED_END_C
#endif
