/* See adapter_split.h. Rows of A are contiguous, columns of B are not. */
#include "engine/adapter_split.h"

#include <string.h>
#include "engine/adapter_internal.h"

bool meed_adapter_has_rest(const struct meed_adapter *whole, int64_t front)
{
    bool more = false;
    for (int32_t m = 0; m < whole->module_count; m++) {
        more = more || whole->modules[m].r > front;
    }
    return more;
}

void meed_adapter_module_put(struct meed_adapter_module *whole, int64_t at,
                             const struct meed_adapter_module *part)
{
    memcpy(whole->a + at * whole->k, part->a, (size_t)(part->r * part->k) * sizeof *part->a);
    for (int64_t n = 0; n < whole->n; n++) {
        memcpy(whole->b + n * whole->r + at, part->b + n * part->r,
               (size_t)part->r * sizeof *part->b);
    }
}

/* Ranks [begin, begin + to->r) of a module. */
static void take_ranks(const struct meed_adapter_module *from, int64_t begin,
                       struct meed_adapter_module *to)
{
    memcpy(to->a, from->a + begin * from->k, (size_t)(to->r * to->k) * sizeof *to->a);
    for (int64_t n = 0; n < to->n; n++) {
        memcpy(to->b + n * to->r, from->b + n * from->r + begin, (size_t)to->r * sizeof *to->b);
    }
}

/* The modules' ranks from `begin` on, `count` of them or all that are left. */
static enum meed_status make_part(const struct meed_adapter *whole, int64_t begin, int64_t count,
                                  struct meed_adapter **part)
{
    struct meed_adapter_module *shapes =
        meed_heap_alloc((size_t)whole->module_count, sizeof *shapes);
    if (!shapes) {
        return MEED_NOMEM;
    }
    int32_t made = 0;
    for (int32_t m = 0; m < whole->module_count; m++) {
        shapes[made] = whole->modules[m];
        shapes[made].r = count > 0 ? count : whole->modules[m].r - begin;
        made += shapes[made].r > 0;
    }
    enum meed_status st =
        meed_adapter_create_shaped(shapes, made, &whole->lora, whole->layers, part);
    meed_heap_free(shapes);
    for (int32_t m = 0, at = 0; st == MEED_OK && m < whole->module_count; m++) {
        if (count > 0 || whole->modules[m].r > begin) {
            take_ranks(&whole->modules[m], begin, &(*part)->modules[at++]);
        }
    }
    return st;
}

enum meed_status meed_adapter_split(const struct meed_adapter *whole, int64_t front,
                                    struct meed_adapter **trained, struct meed_adapter **rest)
{
    struct meed_adapter *first = NULL, *second = NULL;
    for (int32_t m = 0; m < whole->module_count; m++) {
        if (whole->modules[m].r < front) {
            return MEED_FAIL(MEED_FORMAT, "the adapter has rank %lld where %lld are to be trained",
                             (long long)whole->modules[m].r, (long long)front);
        }
    }
    MEED_TRY(make_part(whole, 0, front, &first));
    if (meed_adapter_has_rest(whole, front)) {
        enum meed_status st = make_part(whole, front, 0, &second);
        if (st != MEED_OK) {
            meed_adapter_destroy(first);
            return st;
        }
    }
    *trained = first;
    *rest = second;
    return MEED_OK;
}

enum meed_status meed_adapter_join(const struct meed_adapter *whole,
                                   const struct meed_adapter *trained, struct meed_adapter **joined)
{
    if (trained->module_count != whole->module_count) {
        return MEED_FAIL(MEED_FORMAT, "the trained part has %d modules, the adapter %d",
                         trained->module_count, whole->module_count);
    }
    MEED_TRY(meed_adapter_clone(whole, joined));
    for (int32_t m = 0; m < whole->module_count; m++) {
        meed_adapter_module_put(&(*joined)->modules[m], 0, &trained->modules[m]);
    }
    return MEED_OK;
}
