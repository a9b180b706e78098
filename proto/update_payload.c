/* Payload of one tensor to fp32 values: see update.h for the layout.
 *
 * Every rule of the format is checked here, also those that only keep it canonical (a code of the
 * top level in every group, no zero among the kept, the shorter index coding): a second byte string
 * for the same values would be a second identity, and a way around the replay check.
 */
#include <string.h>

#include "proto/quantize.h"
#include "proto/update_index.h"
#include "proto/update_wire.h"

enum { BLOCK_CODES = 4096 };

struct payload {
    const struct meed_update_record *record;
    const struct meed_update_form *form;
    const char *name;
    const uint8_t *bytes;
    int64_t size;
    int64_t count; /* of the tensor */
    float *values;
};

#define MALFORMED(payload, ...) malformed((payload), __LINE__, __VA_ARGS__)

static MEED_COLD enum meed_status malformed(const struct payload *payload, int line,
                                            const char *what)
{
    return meed_fail(MEED_FORMAT, __FILE__, line, "update, tensor %s: %s", payload->name, what);
}

static enum meed_status check_scale(const struct payload *payload, uint16_t scale)
{
    if (scale != 0 && (scale < 0x0080 || scale >= 0x7F80)) {
        return MEED_FAIL(scale >= 0x7F80 && scale < 0x8000 ? MEED_NUMERIC : MEED_FORMAT,
                         "update, tensor %s: a scale is negative, subnormal or not finite",
                         payload->name);
    }
    float largest = meed_quantize_from_bf16(scale) * (float)payload->form->levels;
    if (!(largest < MEED_LIMIT_VALUE_MAGNITUDE)) {
        return MEED_FAIL(MEED_NUMERIC, "update, tensor %s: values reach %g: the training diverged",
                         payload->name, (double)largest);
    }
    return MEED_OK;
}

static int8_t nibble(const uint8_t *bytes, int64_t i)
{
    int code = bytes[i >> 1] >> (4 * (i & 1)) & 15;
    return (int8_t)(code >= 8 ? code - 16 : code);
}

/* Codes [begin, begin + count) of the value section; begin is even. */
static const int8_t *read_codes(const struct payload *payload, const uint8_t *section,
                                int64_t begin, int64_t count, int8_t *block)
{
    if (payload->form->values == MEED_VALUE_INT8) {
        return (const int8_t *)section + begin;
    }
    const uint8_t *bytes = section + begin / 2;
    for (int64_t i = 0; i + 1 < count; i += 2) {
        uint8_t pair = bytes[i / 2];
        block[i] = (int8_t)((int8_t)(uint8_t)(pair << 4) >> 4);
        block[i + 1] = (int8_t)((int8_t)pair >> 4);
    }
    if (count & 1) {
        block[count - 1] = nibble(bytes, count - 1);
    }
    return block;
}

static int largest_code(const int8_t *codes, int64_t count)
{
    int most = 0;
    for (int64_t i = 0; i < count; i++) {
        int magnitude = codes[i] < 0 ? -codes[i] : codes[i];
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

static bool padding_is_zero(const struct payload *payload, const uint8_t *section, int64_t kept)
{
    return payload->form->values != MEED_VALUE_INT4 || !(kept & 1) || section[kept / 2] >> 4 == 0;
}

static enum meed_status decode_dense_blocks(const struct payload *payload)
{
    const int64_t span = INT64_C(1) << payload->form->group_shift;
    const int64_t groups = (payload->count + span - 1) / span;
    const uint8_t *section = payload->bytes + 2 * groups;
    int8_t block[BLOCK_CODES];
    if (payload->size !=
        2 * groups + meed_update_wire_value_bytes(payload->form->values, payload->count)) {
        return MALFORMED(payload, "its byte length is wrong");
    }
    for (int64_t g = 0; g < groups; g++) {
        uint16_t scale = meed_update_wire_get16(payload->bytes + 2 * g);
        MEED_TRY(check_scale(payload, scale));
        int most = 0;
        int64_t end = MEED_MIN((g + 1) * span, payload->count);
        for (int64_t i = g * span; i < end; i += BLOCK_CODES) {
            int64_t n = MEED_MIN(end - i, BLOCK_CODES);
            const int8_t *codes = read_codes(payload, section, i, n, block);
            int here = largest_code(codes, n);
            most = here > most ? here : most;
            meed_quantize_decode(codes, n, scale, payload->values + i);
        }
        if (most != (scale ? payload->form->levels : 0)) {
            return MALFORMED(payload, "a group's codes do not fit its scale");
        }
    }
    return padding_is_zero(payload, section, payload->count)
               ? MEED_OK
               : MALFORMED(payload, "the last half byte is not zero");
}

static float plain_value(const struct payload *payload, const uint8_t *section, int64_t i)
{
    if (payload->form->values == MEED_VALUE_BF16) {
        return meed_quantize_from_bf16(meed_update_wire_get16(section + 2 * i));
    }
    uint32_t bits = meed_update_wire_get32(section + 4 * i);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static enum meed_status decode_dense_plain(const struct payload *payload)
{
    if (payload->size != meed_update_wire_value_bytes(payload->form->values, payload->count)) {
        return MALFORMED(payload, "its byte length is wrong");
    }
    for (int64_t i = 0; i < payload->count; i++) {
        payload->values[i] = plain_value(payload, payload->bytes, i);
    }
    return MEED_OK;
}

struct sections {
    int64_t index_bytes, groups;
};

/* First walk over the index: proves it and measures it. */
static enum meed_status measure_index(const struct payload *payload, struct sections *sections)
{
    const struct meed_update_record *record = payload->record;
    int k = meed_update_index_rice_k(payload->count, record->kept);
    if (record->rice_k != (record->coding == MEED_UPDATE_INDEX_RICE ? k : 0)) {
        return MALFORMED(payload, "its Rice parameter is not the one that the counts give");
    }
    struct meed_update_index it;
    meed_update_index_begin(&it, payload->bytes, (size_t)payload->size, payload->count,
                            record->coding, k);
    int64_t group = -1, next = 0, rice_bits = 0;
    sections->groups = 0;
    for (uint32_t i = 0; i < record->kept; i++) {
        int64_t index;
        if (!meed_update_index_next(&it, &index)) {
            return MALFORMED(payload, "its index ends early or leaves the tensor");
        }
        rice_bits += ((index - next) >> k) + k + 1;
        next = index + 1;
        sections->groups += index >> payload->form->group_shift != group;
        group = index >> payload->form->group_shift;
    }
    sections->index_bytes = meed_update_index_end(&it);
    if (sections->index_bytes < 0) {
        return MALFORMED(payload, "its index has bits after its end");
    }
    bool rice = (rice_bits + 7) / 8 < meed_update_index_bitmap_bytes(payload->count);
    if (rice != (record->coding == MEED_UPDATE_INDEX_RICE)) {
        return MALFORMED(payload, "its index does not use the shorter coding");
    }
    return MEED_OK;
}

static int8_t code_at(const struct payload *payload, const uint8_t *section, int64_t i)
{
    return payload->form->values == MEED_VALUE_INT8 ? (int8_t)section[i] : nibble(section, i);
}

/* Second walk: places the values, group by group. */
static enum meed_status place_blocks(const struct payload *payload, const uint8_t *scales,
                                     const uint8_t *section)
{
    struct meed_update_index it;
    meed_update_index_begin(&it, payload->bytes, (size_t)payload->size, payload->count,
                            payload->record->coding, payload->record->rice_k);
    int64_t group = -1, index = 0;
    int most = payload->form->levels;
    float step = 0.0f;
    for (uint32_t i = 0; i < payload->record->kept; i++) {
        if (!meed_update_index_next(&it, &index)) {
            return MALFORMED(payload, "its index ends early");
        }
        if (index >> payload->form->group_shift != group) {
            uint16_t scale = meed_update_wire_get16(scales);
            MEED_TRY(check_scale(payload, scale));
            if (scale == 0 || most != payload->form->levels) {
                return MALFORMED(payload, "a group's codes do not fit its scale");
            }
            step = meed_quantize_from_bf16(scale);
            scales += 2;
            group = index >> payload->form->group_shift;
            most = 0;
        }
        int code = code_at(payload, section, i);
        int magnitude = code < 0 ? -code : code;
        if (magnitude == 0 || magnitude > payload->form->levels) {
            return MALFORMED(payload, "a kept entry's code is zero or out of range");
        }
        most = magnitude > most ? magnitude : most;
        payload->values[index] = (float)code * step;
    }
    return most == payload->form->levels
               ? MEED_OK
               : MALFORMED(payload, "a group's codes do not fit its scale");
}

static enum meed_status place_plain(const struct payload *payload, const uint8_t *section)
{
    struct meed_update_index it;
    meed_update_index_begin(&it, payload->bytes, (size_t)payload->size, payload->count,
                            payload->record->coding, payload->record->rice_k);
    for (uint32_t i = 0; i < payload->record->kept; i++) {
        int64_t index = 0;
        if (!meed_update_index_next(&it, &index)) {
            return MALFORMED(payload, "its index ends early");
        }
        payload->values[index] = plain_value(payload, section, i);
        if (payload->values[index] == 0.0f) {
            return MALFORMED(payload, "a kept entry is zero");
        }
    }
    return MEED_OK;
}

static enum meed_status decode_sparse(const struct payload *payload)
{
    struct sections sections = {0};
    const struct meed_update_form *form = payload->form;
    MEED_TRY(measure_index(payload, &sections));
    int64_t scale_bytes = form->levels ? 2 * sections.groups : 0;
    int64_t kept = payload->record->kept;
    if (payload->size !=
        sections.index_bytes + scale_bytes + meed_update_wire_value_bytes(form->values, kept)) {
        return MALFORMED(payload, "its byte length is wrong");
    }
    memset(payload->values, 0, (size_t)payload->count * sizeof(float));
    const uint8_t *scales = payload->bytes + sections.index_bytes;
    const uint8_t *section = scales + scale_bytes;
    if (!padding_is_zero(payload, section, kept)) {
        return MALFORMED(payload, "the last half byte is not zero");
    }
    return form->levels ? place_blocks(payload, scales, section) : place_plain(payload, section);
}

enum meed_status meed_update_wire_decode_payload(const struct meed_update_record *record,
                                                 const struct meed_update_form *form,
                                                 const char *name, const uint8_t *bytes,
                                                 float *values)
{
    struct payload payload = {
        .record = record,
        .form = form,
        .name = name,
        .bytes = bytes,
        .size = record->payload_bytes,
        .count = (int64_t)record->rows * record->cols,
        .values = values,
    };
    if (form->dense) {
        MEED_TRY(form->levels ? decode_dense_blocks(&payload) : decode_dense_plain(&payload));
    } else {
        MEED_TRY(decode_sparse(&payload));
    }
    if (!meed_quantize_in_range(values, payload.count)) {
        return MEED_FAIL(MEED_NUMERIC, "update, tensor %s: a value is NaN, infinite or diverged",
                         name);
    }
    if (meed_quantize_max_abs(values, payload.count) == 0.0f) {
        return MALFORMED(&payload, "it is zero everywhere and must be left out");
    }
    return MEED_OK;
}
