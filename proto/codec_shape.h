/* The tables that the codec walks: what every message holds, on either side, within which bounds.
 *
 * A row names the field, how it looks on either side (offsets into protobuf-c's struct and ours)
 * and its bounds. So the checks of a message can be read in one place (codec_shape.c), no field can
 * be copied without being checked, and a new field is a line. codec.c alone reads them.
 */
#ifndef MEED_PROTO_CODEC_SHAPE_H
#define MEED_PROTO_CODEC_SHAPE_H

#include "proto/codec.h"

MEED_BEGIN_C

enum meed_codec_kind {
    MEED_CODEC_U32,
    MEED_CODEC_U64, /* any value */
    MEED_CODEC_I32,
    MEED_CODEC_I64,
    MEED_CODEC_F64,
    MEED_CODEC_BOOL,
    MEED_CODEC_ENUM,
    MEED_CODEC_TEXT,     /* char[N] of UTF-8; lo = 1: not empty */
    MEED_CODEC_ID,       /* char[N] of the id alphabet; lo = 0: may be empty */
    MEED_CODEC_HASH,     /* uint8_t[N], or empty for all zeros; lo = 1: required */
    MEED_CODEC_BYTES,    /* pointer + size, hi bytes at most */
    MEED_CODEC_FIXED32,  /* any value */
    MEED_CODEC_TEXTS,    /* repeated: char (*)[MEED_LIMIT_ID_BYTES] + count */
    MEED_CODEC_MESSAGES, /* repeated: pointer + count */
    MEED_CODEC_MESSAGE,  /* embedded, required */
    MEED_CODEC_ONEOF,    /* embedded, present if the case says so */
};

struct meed_codec_shape;

struct meed_codec_field {
    const char *name;
    enum meed_codec_kind kind;
    size_t wire;       /* offset in protobuf-c's struct: of the value, or the list's pointer */
    size_t wire_count; /* of n_…, or of the oneof's case */
    size_t own;        /* offset in ours */
    size_t own_bytes;  /* size of our array */
    size_t own_count;  /* of our count or size; of the oneof's enum */
    double lo, hi;     /* hi of a oneof: its case */
    const struct meed_codec_shape *sub;
};

struct meed_codec_shape {
    const char *name;
    const void *descriptor; /* protobuf-c's ProtobufCMessageDescriptor */
    size_t own_bytes;
    const struct meed_codec_field *fields;
    size_t field_count;
};

/* Messages that only stand inside others. */
#define MEED_CODEC_PARTS(X) X(codec) X(plan) X(chunk) X(push_header) X(axis_value) X(ledger_entry)

#define MEED_CODEC_SHAPE(name) extern const struct meed_codec_shape meed_codec_shape_##name;
MEED_CODEC_MESSAGES(MEED_CODEC_SHAPE)
MEED_CODEC_PARTS(MEED_CODEC_SHAPE)
#undef MEED_CODEC_SHAPE

MEED_END_C
#endif
