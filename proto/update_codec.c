/* The codec of an update whose plan is not at hand; see meed_update_codec in update.h. */
#include <math.h>

#include "proto/update_index.h"
#include "proto/update_wire.h"

/* What the records of one factor say. */
struct seen {
    bool dense, sparse;
    int shift; /* of the last record */
};

/* Just under one: the density that keeps everything and is still sparse. */
static const double nearly_all = 1.0 - 0x1p-20;

/* A sparse group spans the least power of two that is no less than group size / density. The
 * largest density for a span of 2^shift is just above half of it. */
static double density_of(const struct seen *seen, int32_t group_size, bool scaled)
{
    if (!seen->sparse) {
        return 1.0;
    }
    return scaled ? MEED_MIN(ldexp(group_size, 1 - seen->shift), 1.0) * nearly_all : nearly_all;
}

/* A dense group spans the group size; a sparse one, unless at the limit, at least twice as much. */
static int32_t group_size_of(const struct seen seen[2])
{
    int shift = 16;
    if (seen[0].dense || seen[1].dense) {
        shift = seen[seen[0].dense ? 0 : 1].shift;
    } else {
        for (int f = 0; f < 2; f++) {
            shift = seen[f].sparse ? MEED_MIN(shift, seen[f].shift - 1) : shift;
        }
    }
    return 1 << MEED_MIN(MEED_MAX(shift, 4), 16);
}

enum meed_status meed_update_codec(const void *bytes, size_t size,
                                   const struct meed_update_tensor *tensors, size_t count,
                                   struct meed_msg_codec *codec)
{
    const uint8_t *b = bytes;
    struct meed_update_header header;
    struct seen seen[2] = {{false, false, 0}};
    MEED_TRY(meed_update_peek(bytes, size, &header)); /* checks that the records are there */
    const uint32_t records = meed_update_wire_get32(b + 12);
    for (uint32_t i = 0; i < records; i++) {
        const uint8_t *record = b + MEED_UPDATE_HEADER_BYTES + i * MEED_UPDATE_RECORD_BYTES;
        const uint32_t idx = meed_update_wire_get32(record);
        if (idx >= count) {
            return MEED_FAIL(MEED_FORMAT, "an update with tensor %u of %zu", idx, count);
        }
        struct seen *factor = &seen[tensors[idx].factor == MEED_UPDATE_FACTOR_B];
        factor->dense = record[16] == MEED_UPDATE_INDEX_DENSE;
        factor->sparse = !factor->dense;
        factor->shift = record[18];
    }
    const enum meed_value_codec values = (enum meed_value_codec)b[5];
    const bool scaled = values == MEED_VALUE_INT8 || values == MEED_VALUE_INT4;
    const int32_t group_size = scaled ? group_size_of(seen) : MEED_LIMIT_GROUP_MIN;
    *codec = (struct meed_msg_codec){.values = values,
                                     .density_a = density_of(&seen[0], group_size, scaled),
                                     .density_b = density_of(&seen[1], group_size, scaled),
                                     .group_size = group_size};
    return MEED_OK;
}
