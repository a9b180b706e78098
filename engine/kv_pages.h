/* Which page of a KV cache holds which positions of which slot: a page allocator without a device.
 *
 * Memory for keys and values is cut into pages of MEED_KV_PAGE positions (PagedAttention, Kwon et
 * al. 2023), so a slot takes what its sequence needs and not what the longest one might, and two
 * slots with a common beginning name the same pages. A page has as many references as slots that
 * name it. Full pages are never written again and may be shared for good; the last, partial page of
 * a slot is copied when the slot grows while others hold it (copy on write).
 *
 * This file moves numbers only: the table that attention reads (kernels/backend.h), and the copies
 * that the caller must make on the device before it feeds rows. Not here: swapping pages to the
 * host, and eviction, which the scheduler decides (generate.h).
 */
#ifndef MEED_ENGINE_KV_PAGES_H
#define MEED_ENGINE_KV_PAGES_H

#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_kv_pages;

/* A page whose content must be copied before the slot's next row is fed; from −1: none. */
struct meed_kv_copy {
    int32_t from;
    int32_t to;
};

/* Pages that `length` positions take. */
static inline int32_t meed_kv_pages_of(int32_t length)
{
    return (length + MEED_KV_PAGE - 1) / MEED_KV_PAGE;
}

/* Empty slots of up to slot_pages pages each out of `pages` in all; all at least 1. */
MEED_MUST_CHECK enum meed_status meed_kv_pages_create(int32_t slots, int32_t slot_pages,
                                                      int32_t pages, struct meed_kv_pages **made);
void meed_kv_pages_destroy(struct meed_kv_pages *pages); /* accepts NULL */

/* [slots, slot_pages]: page of each block of positions, −1 where there is none. */
const int32_t *meed_kv_pages_table(const struct meed_kv_pages *pages);
/* Grows with every change of the table. */
int64_t meed_kv_pages_version(const struct meed_kv_pages *pages);
int32_t meed_kv_pages_length(const struct meed_kv_pages *pages, int32_t slot);
int32_t meed_kv_pages_free(const struct meed_kv_pages *pages);

/* The slot grows to `length` positions, at least what it holds and at most slot_pages pages. What
 * it will write belongs to it alone afterwards. DEVICE_NOMEM if too few pages are free: nothing
 * has changed then. */
MEED_MUST_CHECK enum meed_status meed_kv_pages_extend(struct meed_kv_pages *pages, int32_t slot,
                                                      int32_t length, struct meed_kv_copy *copy);
/* The slot keeps its first `length` positions, at most what it holds. */
void meed_kv_pages_truncate(struct meed_kv_pages *pages, int32_t slot, int32_t length);
/* Slot `to` drops what it holds and takes the first `length` positions of `from`, at most what that
 * holds. Another slot than `from`. */
void meed_kv_pages_share(struct meed_kv_pages *pages, int32_t from, int32_t to, int32_t length);

MEED_END_C
#endif
