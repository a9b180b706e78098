/* See cohort.h. */
#include "server/cohort.h"

#include <stdio.h>
#include <string.h>
#include "server/control.h"
#include "server/incoming.h"

enum { LISTS_MAX_BYTES = 64 << 20 };

enum meed_status meed_cohort_adapter(const struct meed_terms *terms, struct meed_store *store,
                                     const uint8_t hash[MEED_SHA256_BYTES],
                                     struct meed_adapter **adapter)
{
    struct meed_file_map map;
    MEED_TRY(meed_store_map_blob(store, hash, &map));
    enum meed_status st =
        meed_adapter_unpack("a stored adapter", map.bytes, map.size, &terms->model, adapter);
    meed_file_map_close(&map);
    return st;
}

static enum meed_status keep_control(const struct meed_incoming *incoming,
                                     struct meed_cohort *cohort, int32_t at)
{
    size_t count = (size_t)cohort->control_count;
    cohort->controls[at] = meed_heap_alloc(count, sizeof **cohort->controls);
    if (!cohort->controls[at]) {
        return MEED_NOMEM;
    }
    memcpy(cohort->controls[at], meed_incoming_control(incoming), count * sizeof(float));
    return MEED_OK;
}

static enum meed_status load_client(const struct meed_terms *terms, struct meed_store *store,
                                    struct meed_incoming *incoming, struct meed_cohort *cohort,
                                    int32_t at)
{
    const struct meed_store_update *update = &cohort->updates[at];
    struct meed_file_map map;
    MEED_TRY(meed_store_map_blob(store, update->sha256, &map));
    enum meed_status st = meed_incoming_decode(incoming, terms, update->client, cohort->round,
                                               cohort->base_hash, map.bytes, map.size);
    meed_file_map_close(&map);
    if (st != MEED_OK) {
        char why[512];
        snprintf(why, sizeof why, "%.511s", meed_last_error());
        return MEED_FAIL(st, "the stored update of %s: %s", update->client, why);
    }
    MEED_TRY(meed_incoming_apply(incoming, cohort->global, &cohort->adapters[at]));
    return cohort->control_count > 0 ? keep_control(incoming, cohort, at) : MEED_OK;
}

enum meed_status meed_cohort_load(const struct meed_terms *terms, struct meed_store *store,
                                  int32_t round, const uint8_t base_hash[MEED_SHA256_BYTES],
                                  struct meed_cohort **cohort)
{
    enum meed_status st = MEED_OK;
    struct meed_incoming *incoming = NULL;
    struct meed_adapter *shape = NULL; /* what an update covers */
    void *block = NULL;
    struct meed_cohort *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "round", LISTS_MAX_BYTES);
    made->round = round;
    memcpy(made->base_hash, base_hash, MEED_SHA256_BYTES);
    MEED_TRY_OUT(meed_cohort_adapter(terms, store, base_hash, &made->global));
    MEED_TRY_OUT(meed_store_list_updates(store, round, &made->arena, &made->updates, &made->count));
    MEED_TRY_OUT(
        meed_arena_alloc_array(&made->arena, (size_t)made->count, sizeof *made->names, &block));
    made->names = block;
    MEED_TRY_OUT(
        meed_arena_alloc_array(&made->arena, (size_t)made->count, sizeof *made->adapters, &block));
    made->adapters = block;
    MEED_TRY_OUT(meed_adapter_create(&terms->model, &terms->lora, &shape));
    MEED_TRY_OUT(meed_incoming_create(shape, meed_control_used(terms), &incoming));
    made->control_count = meed_control_used(terms) ? meed_adapter_value_count(shape) : 0;
    MEED_TRY_OUT(
        meed_arena_alloc_array(&made->arena, (size_t)made->count, sizeof *made->controls, &block));
    made->controls = block;
    for (int32_t i = 0; i < made->count; i++) {
        made->names[i] = made->updates[i].client;
        MEED_TRY_OUT(load_client(terms, store, incoming, made, i));
    }
    *cohort = made;
    made = NULL;
out:
    meed_incoming_destroy(incoming);
    meed_adapter_destroy(shape);
    meed_cohort_destroy(made);
    return st;
}

void meed_cohort_destroy(struct meed_cohort *cohort)
{
    if (!cohort) {
        return;
    }
    for (int32_t i = 0; i < cohort->count && cohort->adapters; i++) {
        meed_adapter_destroy(cohort->adapters[i]);
        if (cohort->controls) {
            meed_heap_free(cohort->controls[i]);
        }
    }
    meed_adapter_destroy(cohort->global);
    meed_arena_clear(&cohort->arena);
    meed_heap_free(cohort);
}
