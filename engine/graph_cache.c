/* See graph_cache.h. */
#include "engine/graph_cache.h"

#include <string.h>

void meed_graph_cache_init(struct meed_graph_cache *cache, const struct meed_backend *be)
{
    *cache = (struct meed_graph_cache){.be = be};
}

static void slot_clear(const struct meed_graph_cache *cache, struct meed_graph_slot *slot)
{
    if (slot->graph) {
        cache->be->graph_free(cache->be, slot->graph);
    }
    *slot = (struct meed_graph_slot){.used = 0};
}

void meed_graph_cache_clear(struct meed_graph_cache *cache)
{
    for (int i = 0; i < MEED_GRAPH_CACHE_SLOTS; i++) {
        slot_clear(cache, &cache->slots[i]);
    }
}

bool meed_graph_cache_useful(const struct meed_graph_cache *cache)
{
    return cache->be->graph_begin != NULL;
}

/* The key's own slot, or the one to give to it: empty or least recently used. */
static struct meed_graph_slot *slot_find(struct meed_graph_cache *cache,
                                         const struct meed_graph_key *key, bool *known)
{
    struct meed_graph_slot *oldest = &cache->slots[0];
    for (int i = 0; i < MEED_GRAPH_CACHE_SLOTS; i++) {
        struct meed_graph_slot *slot = &cache->slots[i];
        if (slot->used > 0 && memcmp(&slot->key, key, sizeof *key) == 0) {
            *known = true;
            return slot;
        }
        oldest = slot->used < oldest->used ? slot : oldest;
    }
    *known = false;
    return oldest;
}

static enum meed_status record(struct meed_graph_cache *cache, struct meed_graph_slot *slot,
                               meed_graph_enqueue_fn *enqueue, void *user)
{
    const struct meed_backend *be = cache->be;
    MEED_TRY(be->graph_begin(be));
    enqueue(user);
    MEED_TRY(be->graph_end(be, &slot->graph, &slot->nodes));
    cache->recorded++;
    return MEED_OK;
}

enum meed_status meed_graph_cache_run(struct meed_graph_cache *cache, struct meed_graph_key key,
                                      meed_graph_enqueue_fn *enqueue, void *user, int64_t *nodes)
{
    bool known = false;
    if (nodes) {
        *nodes = 0;
    }
    if (!meed_graph_cache_useful(cache)) {
        enqueue(user);
        return MEED_OK;
    }
    struct meed_graph_slot *slot = slot_find(cache, &key, &known);
    if (!known) {
        slot_clear(cache, slot);
        slot->key = key;
    }
    slot->used = ++cache->clock;
    if (!known) {
        enqueue(user);
        return MEED_OK;
    }
    if (!slot->graph) {
        MEED_TRY(record(cache, slot, enqueue, user));
    }
    if (nodes) {
        *nodes = slot->nodes;
    }
    cache->launched++;
    return cache->be->graph_launch(cache->be, slot->graph);
}
