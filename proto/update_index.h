/* Which entries of a sparse tensor are kept: bitmap or Rice-coded gaps, written and read.
 *
 * Reading is an iterator, so a decoder needs no array of indices: one walk validates the section
 * (bounds, padding, canonical choice) and tells where it ends, a second one places the values. The
 * bytes are a stranger's; a walk never reads past `size` nor yields an index ≥ count.
 */
#ifndef MEED_PROTO_UPDATE_INDEX_H
#define MEED_PROTO_UPDATE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum { MEED_UPDATE_INDEX_DENSE, MEED_UPDATE_INDEX_BITMAP, MEED_UPDATE_INDEX_RICE };

/* The Rice parameter that a tensor of these counts must use. */
int meed_update_index_rice_k(int64_t count, int64_t kept);
/* Bytes of either coding for ascending indices. */
int64_t meed_update_index_bitmap_bytes(int64_t count);
int64_t meed_update_index_rice_bytes(const uint32_t *indices, int64_t kept, int k);
/* out holds exactly the bytes that the functions above say, zeroed. */
void meed_update_index_write_bitmap(const uint32_t *indices, int64_t kept, uint8_t *out);
void meed_update_index_write_rice(const uint32_t *indices, int64_t kept, int k, uint8_t *out);

struct meed_update_index {
    const uint8_t *bytes;
    size_t size;
    size_t next_byte; /* first that is not in `bits` yet */
    uint64_t bits;    /* lowest first */
    int bit_count;
    int coding, k;
    int64_t count; /* of the tensor */
    int64_t next;  /* smallest index that may come */
};

void meed_update_index_begin(struct meed_update_index *it, const uint8_t *bytes, size_t size,
                             int64_t count, int coding, int k);
/* False at the end of the bytes or for an index ≥ count: the section is malformed if more were due.
 */
bool meed_update_index_next(struct meed_update_index *it, int64_t *index);
/* After the last index: bytes used, or -1 if padding is not zero. */
int64_t meed_update_index_end(const struct meed_update_index *it);

#endif
