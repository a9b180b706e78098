/* See update_index.h. Bits are taken from a 64-bit window, lowest first, so a Rice code costs a
 * count of trailing ones and two shifts. */
#include "proto/update_index.h"

#include <string.h>

int meed_update_index_rice_k(int64_t count, int64_t kept)
{
    int64_t mean = kept > 0 ? (count - kept) * 125 / (kept * 128) : 0;
    int k = 0;
    while (mean >= 2) {
        mean >>= 1;
        k++;
    }
    return k;
}

int64_t meed_update_index_bitmap_bytes(int64_t count)
{
    return (count + 7) / 8;
}

int64_t meed_update_index_rice_bytes(const uint32_t *indices, int64_t kept, int k)
{
    int64_t bits = kept * (k + 1), next = 0;
    for (int64_t i = 0; i < kept; i++) {
        bits += ((int64_t)indices[i] - next) >> k;
        next = (int64_t)indices[i] + 1;
    }
    return (bits + 7) / 8;
}

void meed_update_index_write_bitmap(const uint32_t *indices, int64_t kept, uint8_t *out)
{
    for (int64_t i = 0; i < kept; i++) {
        out[indices[i] >> 3] |= (uint8_t)(1u << (indices[i] & 7));
    }
}

void meed_update_index_write_rice(const uint32_t *indices, int64_t kept, int k, uint8_t *out)
{
    uint64_t bits = 0;
    int bit_count = 0;
    int64_t next = 0;
    for (int64_t i = 0; i < kept; i++) {
        int64_t gap = (int64_t)indices[i] - next;
        next = (int64_t)indices[i] + 1;
        for (int64_t ones = gap >> k; ones > 0;) {
            int step = ones > 32 ? 32 : (int)ones;
            bits |= ((UINT64_C(1) << step) - 1) << bit_count;
            bit_count += step;
            ones -= step;
            for (; bit_count >= 8; bit_count -= 8, bits >>= 8) {
                *out++ = (uint8_t)bits;
            }
        }
        bits |= ((uint64_t)gap & ((UINT64_C(1) << k) - 1)) << (bit_count + 1);
        bit_count += k + 1;
        for (; bit_count >= 8; bit_count -= 8, bits >>= 8) {
            *out++ = (uint8_t)bits;
        }
    }
    if (bit_count > 0) {
        *out = (uint8_t)bits;
    }
}

void meed_update_index_begin(struct meed_update_index *it, const uint8_t *bytes, size_t size,
                             int64_t count, int coding, int k)
{
    *it = (struct meed_update_index){
        .bytes = bytes, .size = size, .coding = coding, .k = k, .count = count};
    if (coding == MEED_UPDATE_INDEX_BITMAP) {
        size_t whole = (size_t)meed_update_index_bitmap_bytes(count);
        it->size = whole < size ? whole : size;
    }
}

static void refill(struct meed_update_index *it)
{
    while (it->bit_count <= 56 && it->next_byte < it->size) {
        it->bits |= (uint64_t)it->bytes[it->next_byte++] << it->bit_count;
        it->bit_count += 8;
    }
}

static void consume(struct meed_update_index *it, int count)
{
    it->bits = count < 64 ? it->bits >> count : 0;
    it->bit_count -= count;
}

static bool next_rice(struct meed_update_index *it, int64_t *index)
{
    int64_t quotient = 0;
    for (;;) {
        refill(it);
        if (it->bit_count == 0) {
            return false;
        }
        int ones = ~it->bits ? __builtin_ctzll(~it->bits) : 64;
        if (ones < it->bit_count) {
            quotient += ones;
            consume(it, ones + 1);
            break;
        }
        quotient += it->bit_count;
        consume(it, it->bit_count);
        if (quotient > it->count) {
            return false;
        }
    }
    refill(it);
    if (it->bit_count < it->k || quotient > it->count) {
        return false;
    }
    int64_t gap = quotient << it->k | (int64_t)(it->bits & ((UINT64_C(1) << it->k) - 1));
    consume(it, it->k);
    if (gap >= it->count - it->next) {
        return false;
    }
    *index = it->next + gap;
    it->next = *index + 1;
    return true;
}

/* `next` is the position of the lowest bit in the window. */
static bool next_bitmap(struct meed_update_index *it, int64_t *index)
{
    for (;;) {
        if (it->bits) {
            int skip = __builtin_ctzll(it->bits);
            *index = it->next + skip;
            consume(it, skip + 1);
            it->next = *index + 1;
            return *index < it->count;
        }
        it->next += it->bit_count;
        it->bit_count = 0;
        if (it->next_byte >= it->size) {
            return false;
        }
        refill(it);
    }
}

bool meed_update_index_next(struct meed_update_index *it, int64_t *index)
{
    return it->coding == MEED_UPDATE_INDEX_RICE ? next_rice(it, index) : next_bitmap(it, index);
}

int64_t meed_update_index_end(const struct meed_update_index *it)
{
    if (it->coding == MEED_UPDATE_INDEX_BITMAP) {
        /* Nothing may follow in the window or in the rest of the map. */
        if (it->bits) {
            return -1;
        }
        for (size_t i = it->next_byte; i < it->size; i++) {
            if (it->bytes[i]) {
                return -1;
            }
        }
        return it->size == (size_t)meed_update_index_bitmap_bytes(it->count) ? (int64_t)it->size
                                                                             : -1;
    }
    int padding = it->bit_count & 7;
    if (it->bits & ((UINT64_C(1) << padding) - 1)) {
        return -1;
    }
    return (int64_t)it->next_byte - it->bit_count / 8;
}
