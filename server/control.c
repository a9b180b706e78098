/* See control.h. Sums in fp64, clients in id order. */
#include "server/control.h"

#include <string.h>

static const char control_stage[] = "control";

bool meed_control_used(const struct meed_terms *terms)
{
    return terms->plan.method == MEED_METHOD_SCAFFOLD;
}

enum meed_status meed_control_find(struct meed_store *store, int32_t round,
                                   uint8_t hash[MEED_SHA256_BYTES])
{
    enum meed_status st = MEED_NOT_FOUND;
    struct meed_buf name;
    meed_buf_init(&name, 4096);
    for (int32_t before = round - 1; before > 0 && st == MEED_NOT_FOUND; before--) {
        st = meed_store_load_stage(store, before, control_stage, &name);
    }
    if (st == MEED_OK && name.size != MEED_SHA256_BYTES) {
        st = MEED_FAIL(MEED_INTEGRITY, "the record of an earlier round's control variate is "
                                       "damaged; start the run in another folder");
    }
    if (st == MEED_OK) {
        memcpy(hash, name.data, MEED_SHA256_BYTES);
    }
    meed_buf_clear(&name);
    return st;
}

/* c before the round; zeros where there is none yet. */
static enum meed_status load(struct meed_store *store, const struct meed_cohort *cohort,
                             float *control)
{
    uint8_t hash[MEED_SHA256_BYTES];
    struct meed_file_map map;
    size_t size = (size_t)cohort->control_count * sizeof *control;
    enum meed_status st = meed_control_find(store, cohort->round, hash);
    if (st != MEED_OK) {
        return st == MEED_NOT_FOUND ? MEED_OK : st;
    }
    MEED_TRY(meed_store_map_blob(store, hash, &map));
    if (map.size == size) {
        memcpy(control, map.bytes, size);
    } else {
        st = MEED_FAIL(MEED_INTEGRITY, "the control variate has another size than the adapter");
    }
    meed_file_map_close(&map);
    return st;
}

enum meed_status meed_control_advance(struct meed_store *store, const struct meed_cohort *cohort,
                                      const bool *in, int32_t clients)
{
    enum meed_status st = MEED_OK;
    uint8_t hash[MEED_SHA256_BYTES];
    size_t count = (size_t)cohort->control_count;
    float *control = meed_heap_alloc(count, sizeof *control);
    if (!control) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(load(store, cohort, control));
    for (size_t i = 0; i < count; i++) {
        double sum = 0.0;
        for (int32_t k = 0; k < cohort->count; k++) {
            sum += in[k] ? (double)cohort->controls[k][i] : 0.0;
        }
        control[i] = (float)((double)control[i] + sum / clients);
    }
    MEED_TRY_OUT(meed_store_put_blob(store, control, count * sizeof *control, hash));
    MEED_TRY_OUT(meed_store_save_stage(store, cohort->round, control_stage, hash, sizeof hash));
out:
    meed_heap_free(control);
    return st;
}
