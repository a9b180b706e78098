/* Decoding: new rows against cached keys and values.
 *
 * The same layers run as in scoring; only the attention differs, which appends its rows to the
 * cache and reads all of a slot. A cache brings its own rotary table, because it may be longer than
 * any batch. Where gates are set, every row decodes with the first gate set.
 */
#include "engine/net_internal.h"

#include <string.h>
#include "base/buf.h"

static void lay_out_cache(const struct meed_net *net, struct meed_kv_cache *cache)
{
    const struct meed_model_config *config = &net->config;
    struct meed_device_arena *arena = &cache->device;
    int64_t angles = (int64_t)cache->capacity * (config->head_dim / 2);
    int64_t cells =
        (int64_t)cache->slots * cache->capacity * ((int64_t)config->kv_heads * config->head_dim);
    size_t item_bytes = meed_dtype_bytes(net->options.dtype);
    cache->rope.cos = meed_device_arena_take(arena, angles, sizeof(float));
    cache->rope.sin = meed_device_arena_take(arena, angles, sizeof(float));
    for (int32_t i = 0; i < cache->layer_count; i++) {
        cache->layers[i] = (struct meed_kv_layer){
            .k = meed_device_arena_take(arena, cells, item_bytes),
            .v = meed_device_arena_take(arena, cells, item_bytes),
            .capacity = cache->capacity,
            .dtype = net->options.dtype,
        };
    }
}

enum meed_status meed_kv_cache_create(const struct meed_net *net, int32_t slots, int32_t capacity,
                                      struct meed_kv_cache **cache)
{
    enum meed_status st = MEED_OK;
    if (slots < 1 || capacity < 1 || capacity > net->config.max_positions) {
        return MEED_FAIL(MEED_ARG,
                         "a cache of %d slots and %d positions; the model allows 1 to %d positions",
                         slots, capacity, net->config.max_positions);
    }
    struct meed_kv_cache *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = net->be;
    made->slots = slots;
    made->capacity = capacity;
    made->layer_count = net->config.layers;
    made->layers = meed_heap_alloc((size_t)made->layer_count, sizeof *made->layers);
    if (!made->layers) {
        st = MEED_NOMEM;
        goto out;
    }
    meed_device_arena_init(&made->device, net->be);
    lay_out_cache(net, made);
    MEED_TRY_OUT(meed_device_arena_reserve(&made->device));
    lay_out_cache(net, made);
    MEED_TRY_OUT(meed_net_fill_rope(net, capacity, made->rope));
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
        meed_device_arena_clear(&cache->device);
        meed_heap_free(cache->layers);
        meed_heap_free(cache);
    }
}

static enum meed_status check_rows(const struct meed_net *net, const struct meed_kv_cache *cache,
                                   int32_t rows, const int32_t *slots, const int32_t *positions,
                                   const int32_t *want_rows, int32_t want_count)
{
    if (rows < 1 || rows > net->options.max_rows || want_count < 0 || want_count > rows) {
        return MEED_FAIL(MEED_LIMIT,
                         "decoding %d rows (%d wanted); the network was built for 1 to %d", rows,
                         want_count, net->options.max_rows);
    }
    for (int32_t i = 0; i < rows; i++) {
        if (slots[i] < 0 || slots[i] >= cache->slots || positions[i] < 0 ||
            positions[i] >= cache->capacity) {
            return MEED_FAIL(MEED_LIMIT,
                             "row %d goes to slot %d, position %d of a cache of %d slots and %d "
                             "positions",
                             i, slots[i], positions[i], cache->slots, cache->capacity);
        }
    }
    for (int32_t i = 0; i < want_count; i++) {
        if (want_rows[i] < 0 || want_rows[i] >= rows) {
            return MEED_FAIL(MEED_ARG, "row %d of %d is wanted", want_rows[i], rows);
        }
    }
    return MEED_OK;
}

enum meed_status meed_net_decode(struct meed_net *net, struct meed_kv_cache *cache, int32_t rows,
                                 const int32_t *ids, const int32_t *slots, const int32_t *positions,
                                 const int32_t *want_rows, int32_t want_count, float *logits)
{
    const struct meed_backend *be = net->be;
    size_t bytes = (size_t)rows * sizeof *ids;
    MEED_TRY(check_rows(net, cache, rows, slots, positions, want_rows, want_count));
    MEED_TRY(meed_net_check_ids(net, ids, rows));
    MEED_TRY(be->copy_to(be, net->ids, ids, bytes));
    MEED_TRY(be->copy_to(be, net->slots, slots, bytes));
    MEED_TRY(be->copy_to(be, net->positions, positions, bytes));
    MEED_TRY(be->copy_to(be, net->wanted, want_rows, (size_t)want_count * sizeof *want_rows));
    struct meed_net_pass pass = {
        .rows = rows,
        .wanted = want_count,
        .gated = net->gates.sets > 0,
        .rope = cache->rope,
        .cache = cache,
        .slots = net->slots,
    };
    if (pass.gated) {
        be->zero(be, net->gate_of_row, bytes);
        be->zero(be, net->gate_of_wanted, bytes);
    }
    meed_net_run(net, &pass);
    return meed_net_head_to_host(net, want_count, logits);
}
