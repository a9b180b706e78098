/* See net_decode.h. The same layers run as in scoring; only the attention differs, which appends
 * its rows to the cache and reads all of a slot. A cache brings its own rotary table, because it
 * may be longer than any batch.
 *
 * A step's numbers (ids, slots, positions, wanted rows, keys, draws, gate sets) are copied in one
 * piece into buffers that stay where they are, the table where it changed, and what follows
 * (launch_step) depends on the counts of rows and wanted rows and on nothing else. So the next step
 * of as many rows is the same launches on the same pointers: a graph, where the device has them.
 */
#include "engine/net_decode.h"

#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "engine/net_internal.h"

static void lay_out_cache(const struct meed_net *net, struct meed_kv_cache *cache)
{
    const struct meed_model_config *config = &net->config;
    struct meed_device_arena *arena = &cache->device;
    int64_t angles = meed_net_rope_angles(net, cache->capacity);
    int64_t cells = (int64_t)cache->page_count * MEED_KV_PAGE * config->kv_heads * config->head_dim;
    size_t item_bytes = meed_dtype_bytes(net->options.dtype);
    cache->rope.cos = meed_device_arena_take(arena, angles, sizeof(float));
    cache->rope.sin = meed_device_arena_take(arena, angles, sizeof(float));
    cache->table = meed_device_arena_take(arena, (int64_t)cache->slots * cache->slot_pages,
                                          sizeof *cache->table);
    for (int32_t i = 0; i < cache->layer_count; i++) {
        cache->layers[i] = (struct meed_kv_layer){
            .k = meed_device_arena_take(arena, cells, item_bytes),
            .v = meed_device_arena_take(arena, cells, item_bytes),
            .table = cache->table,
            .slot_pages = cache->slot_pages,
            .pages = cache->page_count,
            .dtype = net->options.dtype,
        };
    }
}

static enum meed_status check_size(const struct meed_net *net, int32_t slots, int32_t capacity,
                                   int32_t pages)
{
    if (slots < 1 || capacity < 1 || capacity > net->config.max_positions || pages < 0) {
        return MEED_FAIL(MEED_ARG,
                         "a cache of %d slots, %d positions and %d pages; the model allows 1 to %d "
                         "positions",
                         slots, capacity, pages, net->config.max_positions);
    }
    if (pages == 0 && (int64_t)slots * meed_kv_pages_of(capacity) > INT32_MAX) {
        return MEED_FAIL(MEED_LIMIT,
                         "a cache of %d slots of %d positions; lower the number of slots", slots,
                         capacity);
    }
    return MEED_OK;
}

enum meed_status meed_kv_cache_create(const struct meed_net *net, int32_t slots, int32_t capacity,
                                      int32_t pages, struct meed_kv_cache **cache)
{
    enum meed_status st = MEED_OK;
    MEED_TRY(check_size(net, slots, capacity, pages));
    struct meed_kv_cache *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = net->be;
    made->slots = slots;
    made->capacity = capacity;
    made->slot_pages = meed_kv_pages_of(capacity);
    made->page_count = pages > 0 ? pages : slots * made->slot_pages;
    made->layer_count = net->config.layers;
    made->layers = meed_heap_alloc((size_t)made->layer_count, sizeof *made->layers);
    if (!made->layers) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(meed_kv_pages_create(slots, made->slot_pages, made->page_count, &made->pages));
    meed_device_arena_init(&made->device, net->be);
    lay_out_cache(net, made);
    st = meed_device_arena_reserve(&made->device);
    if (st != MEED_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", meed_last_error());
        MEED_TRY_OUT(MEED_FAIL(st,
                               "no room for a KV cache of %d pages of %d positions (%d slots of "
                               "%d): %s; lower the number of slots or the length of replies",
                               made->page_count, MEED_KV_PAGE, slots, capacity, why));
    }
    lay_out_cache(net, made);
    MEED_TRY_OUT(meed_net_fill_rope(net, capacity, made->rope));
    made->table_version = -1;
    meed_graph_cache_init(&made->graphs, net->be);
    *cache = made;
out:
    if (st != MEED_OK) {
        meed_kv_cache_destroy(made);
    }
    return st;
}

void meed_kv_cache_destroy(struct meed_kv_cache *cache)
{
    if (cache) {
        meed_graph_cache_clear(&cache->graphs);
        meed_device_arena_clear(&cache->device);
        meed_kv_pages_destroy(cache->pages);
        meed_heap_free(cache->layers);
        meed_heap_free(cache);
    }
}

int32_t meed_kv_cache_length(const struct meed_kv_cache *cache, int32_t slot)
{
    return meed_kv_pages_length(cache->pages, slot);
}

int32_t meed_kv_cache_free_pages(const struct meed_kv_cache *cache)
{
    return meed_kv_pages_free(cache->pages);
}

int64_t meed_kv_cache_graph_steps(const struct meed_kv_cache *cache)
{
    return cache->graphs.launched;
}

void meed_kv_cache_truncate(struct meed_kv_cache *cache, int32_t slot, int32_t length)
{
    meed_kv_pages_truncate(cache->pages, slot, length);
}

void meed_kv_cache_share(struct meed_kv_cache *cache, int32_t from, int32_t to, int32_t length)
{
    meed_kv_pages_share(cache->pages, from, to, length);
}

/* --- rows ------------------------------------------------------------------------------------- */

static enum meed_status check_rows(const struct meed_net *net, const struct meed_kv_cache *cache,
                                   const struct meed_decode_rows *rows)
{
    if (rows->count < 1 || rows->count > net->options.max_rows || rows->want_count < 0 ||
        rows->want_count > rows->count) {
        return MEED_FAIL(MEED_LIMIT,
                         "%d rows to decode, %d of them wanted; the network was built for 1 to %d",
                         rows->count, rows->want_count, net->options.max_rows);
    }
    for (int32_t i = 0; i < rows->count; i++) {
        if (rows->slots[i] < 0 || rows->slots[i] >= cache->slots || rows->positions[i] < 0 ||
            rows->positions[i] >= cache->capacity) {
            return MEED_FAIL(MEED_LIMIT,
                             "row %d goes to slot %d, position %d of a cache of %d slots and %d "
                             "positions",
                             i, rows->slots[i], rows->positions[i], cache->slots, cache->capacity);
        }
    }
    for (int32_t i = 0; i < rows->want_count; i++) {
        if (rows->want_rows[i] < 0 || rows->want_rows[i] >= rows->count) {
            return MEED_FAIL(MEED_ARG, "row %d of %d is wanted", rows->want_rows[i], rows->count);
        }
    }
    return meed_net_check_ids(net, rows->ids, rows->count);
}

/* Copies a page of every layer. */
static void copy_page(const struct meed_kv_cache *cache, struct meed_kv_copy copy,
                      int64_t page_cells)
{
    for (int32_t i = 0; i < cache->layer_count; i++) {
        const struct meed_kv_layer *layer = &cache->layers[i];
        size_t bytes = (size_t)page_cells * meed_dtype_bytes(layer->dtype);
        char *pools[] = {layer->k, layer->v};
        for (int j = 0; j < 2; j++) {
            cache->be->copy_within(cache->be, pools[j] + (size_t)copy.to * bytes,
                                   pools[j] + (size_t)copy.from * bytes, bytes);
        }
    }
}

/* Gives every row its place, and the table to the device. */
static enum meed_status place_rows(const struct meed_net *net, struct meed_kv_cache *cache,
                                   const struct meed_decode_rows *rows)
{
    int64_t page_cells = (int64_t)MEED_KV_PAGE * net->config.kv_heads * net->config.head_dim;
    for (int32_t i = 0; i < rows->count; i++) {
        int32_t slot = rows->slots[i];
        int32_t position = rows->positions[i];
        int32_t held = meed_kv_pages_length(cache->pages, slot);
        struct meed_kv_copy copy;
        if (position > held) {
            return MEED_FAIL(MEED_ARG, "row %d is position %d of a slot that holds %d", i, position,
                             held);
        }
        meed_kv_pages_truncate(cache->pages, slot, position);
        MEED_TRY(meed_kv_pages_extend(cache->pages, slot, position + 1, &copy));
        if (copy.from >= 0) {
            copy_page(cache, copy, page_cells);
        }
    }
    int64_t version = meed_kv_pages_version(cache->pages);
    if (version != cache->table_version) {
        size_t cells = (size_t)cache->slots * (size_t)cache->slot_pages;
        MEED_TRY(cache->be->copy_to(cache->be, cache->table, meed_kv_pages_table(cache->pages),
                                    cells * sizeof *cache->table));
        cache->table_version = version;
    }
    return MEED_OK;
}

/* Sends all numbers of a step in one copy; keys and draws may be NULL. */
static enum meed_status send_feed(struct meed_net *net, const struct meed_decode_rows *rows,
                                  const uint64_t *keys, const int32_t *draws)
{
    size_t all = (size_t)net->options.max_rows * sizeof(int32_t);
    char *feed = (char *)net->feed_host;
    size_t count = (size_t)rows->count;
    size_t wants = (size_t)rows->want_count;
    const struct {
        const void *from;
        size_t to;
        size_t bytes;
    } parts[] = {
        {keys, 0, wants * sizeof *keys},
        {rows->ids, 2 * all, count * sizeof *rows->ids},
        {rows->positions, 3 * all, count * sizeof *rows->positions},
        {rows->want_rows, 4 * all, wants * sizeof *rows->want_rows},
        {rows->slots, 5 * all, count * sizeof *rows->slots},
        {draws, 6 * all, wants * sizeof *draws},
        {rows->gate_sets, 7 * all, count * sizeof *rows->gate_sets},
        {rows->want_gate_sets, 8 * all, wants * sizeof *rows->want_gate_sets},
    };
    if (!rows->gate_sets) { /* the first set */
        memset(feed + 7 * all, 0, 2 * all);
    }
    for (size_t i = 0; i < MEED_COUNT(parts); i++) {
        if (parts[i].from && parts[i].bytes > 0) {
            memcpy(feed + parts[i].to, parts[i].from, parts[i].bytes);
        }
    }
    return net->be->copy_to(net->be, net->feed, feed, MEED_NET_FEED_WORDS * all);
}

/* Launches alone: no copy to or from the host, no wait, every pointer and shape a function of the
 * two counts. Leaves the wanted rows in final_y. */
static void launch_layers(struct meed_net *net, const struct meed_kv_cache *cache, int32_t rows,
                          int32_t wanted)
{
    struct meed_net_pass pass = {
        .rows = rows,
        .wanted = wanted,
        .gated = net->gates.sets > 0,
        .rope = cache->rope,
        .rope_positions = cache->capacity,
        .cache = cache,
        .slots = net->slots,
    };
    meed_net_run(net, &pass);
}

struct step {
    struct meed_net *net;
    const struct meed_kv_cache *cache;
    int32_t rows;
    int32_t wanted;
    struct meed_sample_rule rule;
};

/* The same and one token for every wanted row, in net->targets. */
static void launch_step(void *user)
{
    const struct step *step = user;
    struct meed_net *net = step->net;
    launch_layers(net, step->cache, step->rows, step->wanted);
    for (int32_t begin = 0; begin < step->wanted; begin += net->chunk) {
        int32_t count = MEED_MIN(net->chunk, step->wanted - begin);
        net->be->sample(net->be, meed_net_head(net, begin, count, MEED_DTYPE_F32), step->rule,
                        net->draw_keys + begin, net->draws + begin, net->targets + begin);
    }
}

/* Steps in which every row is wanted come again; those that feed prompts hardly do. */
static enum meed_status run_step(struct meed_kv_cache *cache, struct step *step)
{
    struct meed_graph_key key = {{step->rows, 0, step->rule.top_k, 0}};
    const float drawing[] = {step->rule.temperature, step->rule.top_p};
    if (step->rows != step->wanted) {
        launch_step(step);
        return MEED_OK;
    }
    memcpy(&key.parts[1], drawing, sizeof drawing);
    if (step->net->gates.sets > 0) { /* how many there are decides where each one lies */
        key.parts[2] |= (int64_t)step->net->gates.sets << 32;
        key.parts[3] = (int64_t)(uintptr_t)step->net->gates.gates;
    }
    return meed_graph_cache_run(&cache->graphs, key, launch_step, step, NULL);
}

enum meed_status meed_net_decode(struct meed_net *net, struct meed_kv_cache *cache,
                                 const struct meed_decode_rows *rows, float *logits)
{
    MEED_TRY(check_rows(net, cache, rows));
    MEED_TRY(place_rows(net, cache, rows));
    MEED_TRY(send_feed(net, rows, NULL, NULL));
    launch_layers(net, cache, rows->count, rows->want_count);
    return meed_net_head_to_host(net, rows->want_count, logits);
}

enum meed_status meed_net_decode_sample(struct meed_net *net, struct meed_kv_cache *cache,
                                        const struct meed_decode_rows *rows,
                                        const struct meed_sample_rule *rule, const uint64_t *keys,
                                        const int32_t *draws, int32_t *tokens)
{
    const struct meed_backend *be = net->be;
    MEED_TRY(check_rows(net, cache, rows));
    MEED_TRY(place_rows(net, cache, rows));
    MEED_TRY(send_feed(net, rows, keys, draws));
    struct step step = {net, cache, rows->count, rows->want_count, *rule};
    MEED_TRY(run_step(cache, &step));
    MEED_TRY(be->copy_from(be, tokens, net->targets, (size_t)rows->want_count * sizeof *tokens));
    MEED_TRY(be->sync(be));
    for (int32_t i = 0; i < rows->want_count; i++) {
        if (tokens[i] < 0) {
            return MEED_FAIL(MEED_NUMERIC,
                             "the model's logits hold values that are no numbers; check its "
                             "weights and adapter");
        }
    }
    return MEED_OK;
}
