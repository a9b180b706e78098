/* See codec.h. Each message is a table of fields (codec_shape.c); one engine packs and unpacks them
 * all, walking the same rows in both directions. */
#include "proto/codec.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "health.pb-c.h"
#include "meed.pb-c.h"
#include "proto/codec_shape.h"

/* ---- checks, the same both ways ---------------------------------------------------------------
 */

static enum meed_status refuse(const struct meed_codec_shape *shape,
                               const struct meed_codec_field *field, const char *what)
{
    return MEED_FAIL(MEED_FORMAT, "message %s, field %s: %s", shape->name, field->name, what);
}

static enum meed_status check_range(const struct meed_codec_shape *shape,
                                    const struct meed_codec_field *field, double value)
{
    if (!isfinite(value)) {
        return MEED_FAIL(MEED_NUMERIC, "message %s, field %s is not a finite number", shape->name,
                         field->name);
    }
    if (value < field->lo || value > field->hi) {
        return MEED_FAIL(MEED_FORMAT, "message %s, field %s: %.17g is not in %.17g to %.17g",
                         shape->name, field->name, value, field->lo, field->hi);
    }
    return MEED_OK;
}

static enum meed_status check_count(const struct meed_codec_shape *shape,
                                    const struct meed_codec_field *field, size_t count)
{
    if ((double)count > field->hi || (double)count < field->lo) {
        return MEED_FAIL((double)count > field->hi ? MEED_LIMIT : MEED_FORMAT,
                         "message %s, field %s: %zu entries or bytes, not in %.0f to %.0f",
                         shape->name, field->name, count, field->lo, field->hi);
    }
    return MEED_OK;
}

static enum meed_status check_text(const struct meed_codec_shape *shape,
                                   const struct meed_codec_field *field, const char *text,
                                   size_t bytes)
{
    size_t length = strnlen(text, bytes);
    if (length >= bytes) {
        return refuse(shape, field, "the text is too long");
    }
    if (length == 0) {
        return field->lo >= 1 ? refuse(shape, field, "it is missing") : MEED_OK;
    }
    if (field->kind != MEED_CODEC_TEXT && !meed_codec_id_valid(text)) {
        return refuse(shape, field, "an id is 1 to 63 of A-Z a-z 0-9 . _ -");
    }
    return meed_codec_text_valid(text, length) ? MEED_OK : refuse(shape, field, "it is not UTF-8");
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i]) {
            return false;
        }
    }
    return true;
}

/* Numbers have the same representation on both sides, so one copy serves both directions. */
static enum meed_status copy_number(const struct meed_codec_shape *shape,
                                    const struct meed_codec_field *field, const char *from,
                                    char *to)
{
    switch (field->kind) {
    case MEED_CODEC_U32: {
        uint32_t value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case MEED_CODEC_I32:
    case MEED_CODEC_ENUM: {
        int32_t value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case MEED_CODEC_I64: {
        int64_t value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, (double)value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case MEED_CODEC_F64: {
        double value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case MEED_CODEC_U64:
        memcpy(to, from, sizeof(uint64_t));
        return MEED_OK;
    default:
        memcpy(to, from, sizeof(uint32_t));
        return MEED_OK;
    }
}

/* ---- unpacking ------------------------------------------------------------------------------- */

static enum meed_status unpack_shape(const struct meed_codec_shape *shape, const char *wire,
                                     char *own, struct meed_arena *arena);

enum { SIZE_PREFIX = 16 };

/* True if the text, as protobuf-c allocated it, ends where its block ends. */
static bool fills_block(const char *text)
{
    size_t size;
    if (text == (const char *)&protobuf_c_empty_string) {
        return true;
    }
    memcpy(&size, text - SIZE_PREFIX, sizeof size);
    return strlen(text) + 1 == size;
}

static enum meed_status unpack_hash(const struct meed_codec_shape *shape,
                                    const struct meed_codec_field *field,
                                    const ProtobufCBinaryData *data, char *to)
{
    if (data->len == 0 && field->lo < 1) {
        memset(to, 0, field->own_bytes);
        return MEED_OK;
    }
    if (data->len != field->own_bytes) {
        return refuse(shape, field, data->len ? "its length is wrong" : "it is missing");
    }
    memcpy(to, data->data, data->len);
    return MEED_OK;
}

static enum meed_status unpack_list(const struct meed_codec_shape *shape,
                                    const struct meed_codec_field *field, const char *wire,
                                    char *own, struct meed_arena *arena)
{
    size_t count;
    void *items = NULL;
    char **from;
    memcpy(&count, wire + field->wire_count, sizeof count);
    memcpy(&from, wire + field->wire, sizeof from);
    MEED_TRY(check_count(shape, field, count));
    size_t item_bytes = field->sub ? field->sub->own_bytes : MEED_LIMIT_ID_BYTES;
    MEED_TRY(meed_arena_alloc_array(arena, count, item_bytes, &items));
    for (size_t i = 0; i < count; i++) {
        char *item = (char *)items + i * item_bytes;
        if (field->sub) {
            MEED_TRY(unpack_shape(field->sub, from[i], item, arena));
        } else if (!fills_block(from[i]) || !meed_codec_id_valid(from[i])) {
            return refuse(shape, field, "an id is 1 to 63 of A-Z a-z 0-9 . _ -");
        } else {
            memcpy(item, from[i], strlen(from[i]) + 1);
        }
    }
    memcpy(own + field->own, &items, sizeof items);
    memcpy(own + field->own_count, &count, sizeof count);
    return MEED_OK;
}

static enum meed_status unpack_field(const struct meed_codec_shape *shape,
                                     const struct meed_codec_field *field, const char *wire,
                                     char *own, struct meed_arena *arena)
{
    const char *from = wire + field->wire;
    char *to = own + field->own;
    ProtobufCBinaryData data;
    const char *pointer;
    int32_t wire_case;
    switch (field->kind) {
    case MEED_CODEC_BOOL: {
        protobuf_c_boolean value;
        memcpy(&value, from, sizeof value);
        *to = value != 0;
        return MEED_OK;
    }
    case MEED_CODEC_TEXT:
    case MEED_CODEC_ID:
        memcpy(&pointer, from, sizeof pointer);
        if (!fills_block(pointer)) {
            return refuse(shape, field, "the text has a NUL inside");
        }
        MEED_TRY(check_text(shape, field, pointer, field->own_bytes));
        memcpy(to, pointer, strlen(pointer) + 1);
        return MEED_OK;
    case MEED_CODEC_HASH:
        memcpy(&data, from, sizeof data);
        return unpack_hash(shape, field, &data, to);
    case MEED_CODEC_BYTES:
        memcpy(&data, from, sizeof data);
        MEED_TRY(check_count(shape, field, data.len));
        memcpy(to, &data.data, sizeof data.data);
        memcpy(own + field->own_count, &data.len, sizeof data.len);
        return MEED_OK;
    case MEED_CODEC_TEXTS:
    case MEED_CODEC_MESSAGES:
        return unpack_list(shape, field, wire, own, arena);
    case MEED_CODEC_MESSAGE:
        memcpy(&pointer, from, sizeof pointer);
        return pointer ? unpack_shape(field->sub, pointer, to, arena)
                       : refuse(shape, field, "it is missing");
    case MEED_CODEC_ONEOF:
        memcpy(&wire_case, wire + field->wire_count, sizeof wire_case);
        if (wire_case == 0) {
            return refuse(shape, field, "neither it nor one of its alternatives is there");
        }
        memcpy(own + field->own_count, &wire_case, sizeof wire_case);
        memcpy(&pointer, from, sizeof pointer);
        return wire_case == (int32_t)field->hi ? unpack_shape(field->sub, pointer, to, arena)
                                               : MEED_OK;
    default:
        return copy_number(shape, field, from, to);
    }
}

static enum meed_status unpack_shape(const struct meed_codec_shape *shape, const char *wire,
                                     char *own, struct meed_arena *arena)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        MEED_TRY(unpack_field(shape, &shape->fields[i], wire, own, arena));
    }
    return MEED_OK;
}

/* protobuf-c forgets the length of a string, so an inner NUL would cut it silently. Each block
 * therefore carries its size in front, and a string must fill its block. */
struct unpacking {
    struct meed_arena *arena;
    bool full;
};

static void *arena_alloc(void *user, size_t size)
{
    struct unpacking *unpacking = user;
    void *block = NULL;
    if (size > MEED_LIMIT_UNPACKED_BYTES ||
        meed_arena_alloc(unpacking->arena, size + SIZE_PREFIX, &block) != MEED_OK) {
        unpacking->full = true;
        return NULL;
    }
    memcpy(block, &size, sizeof size);
    return (char *)block + SIZE_PREFIX;
}

static void arena_free(void *user, void *block)
{
    (void)user;
    (void)block;
}

static enum meed_status unpack(const struct meed_codec_shape *shape, const void *bytes, size_t size,
                               struct meed_arena *arena, void *own)
{
    struct unpacking unpacking = {.arena = arena};
    ProtobufCAllocator allocator = {arena_alloc, arena_free, &unpacking};
    if (size > MEED_LIMIT_MESSAGE_BYTES) {
        return MEED_FAIL(MEED_LIMIT, "message %s has %zu bytes, more than %d", shape->name, size,
                         MEED_LIMIT_MESSAGE_BYTES);
    }
    ProtobufCMessage *message = protobuf_c_message_unpack(shape->descriptor, &allocator, size,
                                                          size > 0 ? bytes : (const uint8_t *)"");
    if (!message) {
        return unpacking.full
                   ? MEED_FAIL(MEED_LIMIT, "message %s unpacks to more than %d bytes", shape->name,
                               MEED_LIMIT_UNPACKED_BYTES)
                   : MEED_FAIL(MEED_FORMAT, "message %s is not valid protobuf", shape->name);
    }
    return unpack_shape(shape, (const char *)message, own, arena);
}

/* ---- packing --------------------------------------------------------------------------------- */

static enum meed_status pack_shape(const struct meed_codec_shape *shape, const char *own,
                                   struct meed_arena *arena, void **out);

static enum meed_status pack_list(const struct meed_codec_shape *shape,
                                  const struct meed_codec_field *field, const char *own, char *wire,
                                  struct meed_arena *arena)
{
    size_t count;
    char *from;
    void *items = NULL;
    memcpy(&count, own + field->own_count, sizeof count);
    memcpy(&from, own + field->own, sizeof from);
    MEED_TRY(check_count(shape, field, count));
    MEED_TRY(meed_arena_alloc_array(arena, count, sizeof(void *), &items));
    for (size_t i = 0; i < count; i++) {
        void **item = (void **)items + i;
        if (field->sub) {
            MEED_TRY(pack_shape(field->sub, from + i * field->sub->own_bytes, arena, item));
        } else if (!meed_codec_id_valid(from + i * MEED_LIMIT_ID_BYTES)) {
            return refuse(shape, field, "an id is 1 to 63 of A-Z a-z 0-9 . _ -");
        } else {
            *item = from + i * MEED_LIMIT_ID_BYTES;
        }
    }
    memcpy(wire + field->wire, &items, sizeof items);
    memcpy(wire + field->wire_count, &count, sizeof count);
    return MEED_OK;
}

static enum meed_status pack_field(const struct meed_codec_shape *shape,
                                   const struct meed_codec_field *field, const char *own,
                                   char *wire, struct meed_arena *arena)
{
    const char *from = own + field->own;
    char *to = wire + field->wire;
    ProtobufCBinaryData data = {0};
    void *pointer = NULL;
    int32_t own_case;
    switch (field->kind) {
    case MEED_CODEC_BOOL: {
        protobuf_c_boolean value = *from != 0;
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case MEED_CODEC_TEXT:
    case MEED_CODEC_ID:
        MEED_TRY(check_text(shape, field, from, field->own_bytes));
        memcpy(to, &from, sizeof from);
        return MEED_OK;
    case MEED_CODEC_HASH:
        if (is_zero((const uint8_t *)from, field->own_bytes)) {
            return field->lo >= 1 ? refuse(shape, field, "it is missing") : MEED_OK;
        }
        data.len = field->own_bytes;
        data.data = (uint8_t *)(uintptr_t)from;
        memcpy(to, &data, sizeof data);
        return MEED_OK;
    case MEED_CODEC_BYTES:
        memcpy(&data.data, from, sizeof data.data);
        memcpy(&data.len, own + field->own_count, sizeof data.len);
        MEED_TRY(check_count(shape, field, data.len));
        memcpy(to, &data, sizeof data);
        return MEED_OK;
    case MEED_CODEC_TEXTS:
    case MEED_CODEC_MESSAGES:
        return pack_list(shape, field, own, wire, arena);
    case MEED_CODEC_MESSAGE:
        MEED_TRY(pack_shape(field->sub, from, arena, &pointer));
        memcpy(to, &pointer, sizeof pointer);
        return MEED_OK;
    case MEED_CODEC_ONEOF:
        memcpy(&own_case, own + field->own_count, sizeof own_case);
        if (own_case != (int32_t)field->hi) {
            return MEED_OK;
        }
        MEED_TRY(pack_shape(field->sub, from, arena, &pointer));
        memcpy(to, &pointer, sizeof pointer);
        memcpy(wire + field->wire_count, &own_case, sizeof own_case);
        return MEED_OK;
    default:
        return copy_number(shape, field, from, to);
    }
}

static enum meed_status pack_shape(const struct meed_codec_shape *shape, const char *own,
                                   struct meed_arena *arena, void **out)
{
    const ProtobufCMessageDescriptor *descriptor = shape->descriptor;
    MEED_TRY(meed_arena_alloc(arena, descriptor->sizeof_message, out));
    protobuf_c_message_init(descriptor, *out);
    for (size_t i = 0; i < shape->field_count; i++) {
        MEED_TRY(pack_field(shape, &shape->fields[i], own, *out, arena));
    }
    return MEED_OK;
}

static enum meed_status pack(const struct meed_codec_shape *shape, const void *own,
                             struct meed_buf *bytes)
{
    enum meed_status st = MEED_OK;
    void *message = NULL, *room = NULL;
    struct meed_arena arena;
    meed_codec_arena_init(&arena);
    MEED_TRY_OUT(pack_shape(shape, own, &arena, &message));
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > MEED_LIMIT_MESSAGE_BYTES) {
        st = MEED_FAIL(MEED_LIMIT, "message %s would have %zu bytes, more than %d", shape->name,
                       size, MEED_LIMIT_MESSAGE_BYTES);
        goto out;
    }
    MEED_TRY_OUT(meed_buf_extend(bytes, size, &room));
    if (size > 0) {
        protobuf_c_message_pack(message, room);
    }
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- the list -------------------------------------------------------------------------------- */

#define DEFINE(name)                                                                               \
    enum meed_status meed_codec_pack_##name(const struct meed_msg_##name *message,                 \
                                            struct meed_buf *bytes)                                \
    {                                                                                              \
        return pack(&meed_codec_shape_##name, message, bytes);                                     \
    }                                                                                              \
    enum meed_status meed_codec_unpack_##name(                                                     \
        const void *bytes, size_t size, struct meed_arena *arena, struct meed_msg_##name *message) \
    {                                                                                              \
        struct meed_msg_##name fresh = {0};                                                        \
        MEED_TRY(unpack(&meed_codec_shape_##name, bytes, size, arena, &fresh));                    \
        *message = fresh;                                                                          \
        return MEED_OK;                                                                            \
    }
MEED_CODEC_MESSAGES(DEFINE)

void meed_codec_arena_init(struct meed_arena *arena)
{
    meed_arena_init_growing(arena, "message", MEED_LIMIT_UNPACKED_BYTES);
}

void meed_codec_buf_init(struct meed_buf *bytes)
{
    meed_buf_init(bytes, MEED_LIMIT_MESSAGE_BYTES);
}

/* ---- the schema ------------------------------------------------------------------------------ */

static enum meed_status check_depth(const ProtobufCMessageDescriptor *descriptor, int depth)
{
    if (depth > 4) {
        return MEED_FAIL(MEED_FORMAT, "message type %s nests deeper than 4 or contains itself",
                         descriptor->name);
    }
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
            MEED_TRY(check_depth(descriptor->fields[i].descriptor, depth + 1));
        }
    }
    return MEED_OK;
}

enum meed_status meed_codec_check_schema(void)
{
    static const struct meed_codec_shape *const shapes[] = {
#define SHAPE_OF(name) &meed_codec_shape_##name,
        MEED_CODEC_MESSAGES(SHAPE_OF) MEED_CODEC_PARTS(SHAPE_OF)
#undef SHAPE_OF
    };
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        MEED_TRY(check_depth(shapes[i]->descriptor, 0));
        const ProtobufCMessageDescriptor *descriptor = shapes[i]->descriptor;
        if (shapes[i]->field_count != descriptor->n_fields) {
            return MEED_FAIL(MEED_FORMAT, "message %s: %zu of %u fields have a row",
                             shapes[i]->name, shapes[i]->field_count, descriptor->n_fields);
        }
    }
    return MEED_OK;
}

bool meed_codec_schema_has_method(const char *path)
{
    const ProtobufCServiceDescriptor *services[] = {&meed__v1__federation__descriptor,
                                                    &grpc__health__v1__health__descriptor};
    for (size_t s = 0; s < MEED_COUNT(services); s++) {
        size_t length = strlen(services[s]->name);
        if (path[0] != '/' || strncmp(path + 1, services[s]->name, length) != 0 ||
            path[length + 1] != '/') {
            continue;
        }
        for (unsigned m = 0; m < services[s]->n_methods; m++) {
            if (strcmp(path + length + 2, services[s]->methods[m].name) == 0) {
                return true;
            }
        }
    }
    return false;
}
