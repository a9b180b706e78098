/* What the update's encoder and decoder share: little-endian access, records, the plan's choices.
 * Private to proto/update*.c.
 */
#ifndef MEED_PROTO_UPDATE_WIRE_H
#define MEED_PROTO_UPDATE_WIRE_H

#include "proto/update.h"

enum { MEED_UPDATE_VERSION = 1 };

static inline uint32_t meed_update_wire_get32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static inline void meed_update_wire_put32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

static inline uint64_t meed_update_wire_get64(const uint8_t *bytes)
{
    return meed_update_wire_get32(bytes) | (uint64_t)meed_update_wire_get32(bytes + 4) << 32;
}

static inline void meed_update_wire_put64(uint8_t *bytes, uint64_t value)
{
    meed_update_wire_put32(bytes, (uint32_t)value);
    meed_update_wire_put32(bytes + 4, (uint32_t)(value >> 32));
}

static inline uint16_t meed_update_wire_get16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

struct meed_update_record {
    uint32_t tensor_idx, rows, cols, kept;
    uint8_t coding, rice_k, group_shift;
    uint32_t payload_bytes;
};

/* How the plan wants a tensor: the same function on both sides leaves nothing to negotiate. */
struct meed_update_form {
    enum meed_value_codec values;
    bool dense;
    int64_t keep;    /* entries at most */
    int group_shift; /* 0 for f32 and bf16 */
    int levels;      /* 0 for f32 and bf16 */
};

MEED_MUST_CHECK enum meed_status meed_update_wire_check_codec(const struct meed_msg_codec *codec);
/* LIMIT if shapes or sums pass limits.h. */
MEED_MUST_CHECK enum meed_status
meed_update_wire_check_layout(const struct meed_update_tensor *tensors, size_t count);
struct meed_update_form meed_update_wire_form(const struct meed_msg_codec *codec,
                                              const struct meed_update_tensor *tensor);
/* Bytes of `kept` values. */
int64_t meed_update_wire_value_bytes(enum meed_value_codec values, int64_t kept);

/* Decodes one payload into values [count], every element written. Messages name the tensor. */
MEED_MUST_CHECK enum meed_status
meed_update_wire_decode_payload(const struct meed_update_record *record,
                                const struct meed_update_form *form, const char *name,
                                const uint8_t *payload, float *values);

#endif
