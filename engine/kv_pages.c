/* See kv_pages.h. Free pages stand on a stack, so which page comes next is a function of the calls
 * alone. */
#include "engine/kv_pages.h"

#include <string.h>
#include "base/buf.h"

struct meed_kv_pages {
    int32_t slots;
    int32_t slot_pages;
    int32_t pages;
    int32_t free_count;
    int64_t version;
    int32_t *table;      /* [slots, slot_pages] */
    int32_t *lengths;    /* [slots] */
    int32_t *references; /* [pages] */
    int32_t *free_pages; /* [pages], a stack */
};

enum meed_status meed_kv_pages_create(int32_t slots, int32_t slot_pages, int32_t pages,
                                      struct meed_kv_pages **made)
{
    MEED_ASSERT(slots >= 1 && slot_pages >= 1 && pages >= 1);
    struct meed_kv_pages *p = meed_heap_alloc(1, sizeof *p);
    if (!p) {
        return MEED_NOMEM;
    }
    size_t cells = (size_t)slots * (size_t)slot_pages;
    *p = (struct meed_kv_pages){
        .slots = slots,
        .slot_pages = slot_pages,
        .pages = pages,
        .free_count = pages,
        .table = meed_heap_alloc(cells, sizeof *p->table),
        .lengths = meed_heap_alloc((size_t)slots, sizeof *p->lengths),
        .references = meed_heap_alloc((size_t)pages, sizeof *p->references),
        .free_pages = meed_heap_alloc((size_t)pages, sizeof *p->free_pages),
    };
    if (!p->table || !p->lengths || !p->references || !p->free_pages) {
        meed_kv_pages_destroy(p);
        return MEED_NOMEM;
    }
    for (size_t i = 0; i < cells; i++) {
        p->table[i] = -1;
    }
    for (int32_t i = 0; i < pages; i++) {
        p->free_pages[i] = pages - 1 - i;
    }
    *made = p;
    return MEED_OK;
}

void meed_kv_pages_destroy(struct meed_kv_pages *pages)
{
    if (pages) {
        meed_heap_free(pages->table);
        meed_heap_free(pages->lengths);
        meed_heap_free(pages->references);
        meed_heap_free(pages->free_pages);
        meed_heap_free(pages);
    }
}

const int32_t *meed_kv_pages_table(const struct meed_kv_pages *pages)
{
    return pages->table;
}

int64_t meed_kv_pages_version(const struct meed_kv_pages *pages)
{
    return pages->version;
}

int32_t meed_kv_pages_length(const struct meed_kv_pages *pages, int32_t slot)
{
    return pages->lengths[slot];
}

int32_t meed_kv_pages_free(const struct meed_kv_pages *pages)
{
    return pages->free_count;
}

static int32_t *row_of(struct meed_kv_pages *pages, int32_t slot)
{
    MEED_ASSERT(slot >= 0 && slot < pages->slots);
    return pages->table + (int64_t)slot * pages->slot_pages;
}

static int32_t page_take(struct meed_kv_pages *pages)
{
    int32_t page = pages->free_pages[--pages->free_count];
    pages->references[page] = 1;
    return page;
}

static void page_drop(struct meed_kv_pages *pages, int32_t page)
{
    if (--pages->references[page] == 0) {
        pages->free_pages[pages->free_count++] = page;
    }
}

enum meed_status meed_kv_pages_extend(struct meed_kv_pages *pages, int32_t slot, int32_t length,
                                      struct meed_kv_copy *copy)
{
    int32_t *row = row_of(pages, slot);
    int32_t held = pages->lengths[slot];
    int32_t first = meed_kv_pages_of(held);
    int32_t last = meed_kv_pages_of(length);
    MEED_ASSERT(length >= held && last <= pages->slot_pages);
    bool shared =
        length > held && held % MEED_KV_PAGE != 0 && pages->references[row[first - 1]] > 1;
    if (last - first + (shared ? 1 : 0) > pages->free_count) {
        return MEED_FAIL(
            MEED_DEVICE_NOMEM,
            "all %d pages of %d positions of the KV cache are in use; lower the number "
            "of slots or the length of replies, or give it more pages",
            pages->pages, MEED_KV_PAGE);
    }
    *copy = (struct meed_kv_copy){-1, -1};
    if (shared) {
        *copy = (struct meed_kv_copy){row[first - 1], page_take(pages)};
        page_drop(pages, copy->from);
        row[first - 1] = copy->to;
    }
    for (int32_t i = first; i < last; i++) {
        row[i] = page_take(pages);
    }
    pages->version += shared || last > first;
    pages->lengths[slot] = length;
    return MEED_OK;
}

void meed_kv_pages_truncate(struct meed_kv_pages *pages, int32_t slot, int32_t length)
{
    int32_t *row = row_of(pages, slot);
    MEED_ASSERT(length >= 0 && length <= pages->lengths[slot]);
    int32_t kept = meed_kv_pages_of(length);
    for (int32_t i = meed_kv_pages_of(pages->lengths[slot]) - 1; i >= kept; i--) {
        page_drop(pages, row[i]);
        row[i] = -1;
        pages->version++;
    }
    pages->lengths[slot] = length;
}

void meed_kv_pages_share(struct meed_kv_pages *pages, int32_t from, int32_t to, int32_t length)
{
    const int32_t *source = row_of(pages, from);
    int32_t *target = row_of(pages, to);
    MEED_ASSERT(from != to && length >= 0 && length <= pages->lengths[from]);
    meed_kv_pages_truncate(pages, to, 0);
    for (int32_t i = 0; i < meed_kv_pages_of(length); i++) {
        target[i] = source[i];
        pages->references[source[i]]++;
    }
    pages->lengths[to] = length;
    pages->version++;
}
