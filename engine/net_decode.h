/* Decoding: new rows of many sequences against cached keys and values.
 *
 * A cache has slots, one sequence each, whose positions lie in pages shared by all layers
 * (kv_pages.h). Slots with a common beginning share its pages, so a prompt prefix is computed and
 * kept once. Feeding a position that a slot already holds drops everything from there on: a
 * sequence may turn back, and position 0 starts anew.
 *
 * The bits of a row depend on its own sequence alone: not on how the tokens before it were fed, in
 * which slot, beside whom, or from whose pages. They do depend on adapters, merged weights and
 * gates: after a change of those, a cache must be emptied (meed_kv_cache_truncate).
 */
#ifndef MEED_ENGINE_NET_DECODE_H
#define MEED_ENGINE_NET_DECODE_H

#include "engine/net.h"

MEED_BEGIN_C

struct meed_kv_cache;

/* Slots of up to `capacity` positions each, in the net's dtype; `pages` of MEED_KV_PAGE positions
 * are shared by all (0: enough for every slot at full length). ARG: a number out of range;
 * DEVICE_NOMEM: says how large the cache would be. */
MEED_MUST_CHECK enum meed_status meed_kv_cache_create(const struct meed_net *net, int32_t slots,
                                                      int32_t capacity, int32_t pages,
                                                      struct meed_kv_cache **cache);
void meed_kv_cache_destroy(struct meed_kv_cache *cache); /* accepts NULL; before the net */
/* Positions that a slot holds. */
int32_t meed_kv_cache_length(const struct meed_kv_cache *cache, int32_t slot);
int32_t meed_kv_cache_free_pages(const struct meed_kv_cache *cache);
/* Steps that were one launch of a recorded graph (graph_cache.h). */
int64_t meed_kv_cache_graph_steps(const struct meed_kv_cache *cache);
/* Keeps the first `length` positions of a slot. */
void meed_kv_cache_truncate(struct meed_kv_cache *cache, int32_t slot, int32_t length);
/* Slot `to` becomes the first `length` positions of slot `from`, another one. Costs no memory. */
void meed_kv_cache_share(struct meed_kv_cache *cache, int32_t from, int32_t to, int32_t length);

/* Rows to feed: rows of one slot in order, positions continuing what the slot holds (or turning
 * back, with the first of them). Rows listed in want_rows go through the head. */
struct meed_decode_rows {
    int32_t count;
    const int32_t *ids; /* [count] */
    const int32_t *slots;
    const int32_t *positions;
    int32_t want_count;
    const int32_t *want_rows; /* [want_count] */
    const int32_t *gate_sets; /* [count]; NULL: the first gate set. One for all rows of a slot. */
    const int32_t *want_gate_sets; /* [want_count]: those of the wanted rows; NULL with the above */
};

/* fp32 logits [want_count, V] on the host. LIMIT: more rows than the net was built for, a slot or a
 * position that the cache does not have; ARG: an id or a gap in positions; DEVICE_NOMEM: no page is
 * free. */
MEED_MUST_CHECK enum meed_status meed_net_decode(struct meed_net *net, struct meed_kv_cache *cache,
                                                 const struct meed_decode_rows *rows,
                                                 float *logits);
/* One token for every wanted row, drawn on the device by `rule`: keys and draws [want_count] as op
 * `sample` takes them. Only ids leave the device. NUMERIC: a row's logits are no numbers. */
MEED_MUST_CHECK enum meed_status
meed_net_decode_sample(struct meed_net *net, struct meed_kv_cache *cache,
                       const struct meed_decode_rows *rows, const struct meed_sample_rule *rule,
                       const uint64_t *keys, const int32_t *draws, int32_t *tokens);

MEED_END_C
#endif
