/* See codec.h. Each message is a table of fields; one engine packs and unpacks them all.
 *
 * A row names the field, how it looks on either side (offsets into protobuf-c's struct and ours)
 * and its bounds. So the checks of a message can be read in one place, no field can be copied
 * without being checked, and a new field is a line. The engine walks the same rows in both
 * directions.
 */
#include "proto/codec.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "health.pb-c.h"
#include "meed.pb-c.h"

enum kind {
    KIND_U32,
    KIND_U64, /* any value */
    KIND_I32,
    KIND_I64,
    KIND_F64,
    KIND_BOOL,
    KIND_ENUM,
    KIND_TEXT,     /* char[N] of UTF-8; lo = 1: not empty */
    KIND_ID,       /* char[N] of the id alphabet; lo = 0: may be empty */
    KIND_HASH,     /* uint8_t[N], or empty for all zeros; lo = 1: required */
    KIND_BYTES,    /* pointer + size, hi bytes at most */
    KIND_FIXED32,  /* any value */
    KIND_TEXTS,    /* repeated: char (*)[MEED_LIMIT_ID_BYTES] + count */
    KIND_MESSAGES, /* repeated: pointer + count */
    KIND_MESSAGE,  /* embedded, required */
    KIND_ONEOF,    /* embedded, present if the case says so */
};

struct shape;

struct field {
    const char *name;
    enum kind kind;
    size_t wire;       /* offset in protobuf-c's struct: of the value, or the list's pointer */
    size_t wire_count; /* of n_…, or of the oneof's case */
    size_t own;        /* offset in ours */
    size_t own_bytes;  /* size of our array */
    size_t own_count;  /* of our count or size; of the oneof's enum */
    double lo, hi;     /* hi of a oneof: its case */
    const struct shape *sub;
};

struct shape {
    const char *name;
    const ProtobufCMessageDescriptor *descriptor;
    size_t own_bytes;
    const struct field *fields;
    size_t field_count;
};

/* ---- tables --------------------------------------------------------------------------------- */

/* clang-format off */
#define OWN_SIZE(own_type, member) sizeof(((own_type *)0)->member)
#define FIELD(wire_type, own_type, member, field_kind, low, high)                                  \
    {.name = #member, .kind = KIND_##field_kind, .wire = offsetof(wire_type, member),              \
     .own = offsetof(own_type, member), .own_bytes = OWN_SIZE(own_type, member), .lo = (low),      \
     .hi = (double)(high)}
#define LIST(wire_type, own_type, member, own_counter, field_kind, most, sub_shape)                \
    {.name = #member, .kind = KIND_##field_kind, .wire = offsetof(wire_type, member),              \
     .wire_count = offsetof(wire_type, n_##member), .own = offsetof(own_type, member),             \
     .own_count = offsetof(own_type, own_counter), .hi = (double)(most), .sub = (sub_shape)}
#define BYTES(wire_type, own_type, member, own_counter, least, most)                               \
    {.name = #member, .kind = KIND_BYTES, .wire = offsetof(wire_type, member),                     \
     .own = offsetof(own_type, member), .own_count = offsetof(own_type, own_counter),              \
     .lo = (least), .hi = (double)(most)}
#define SUB(wire_type, own_type, member, sub_shape)                                                \
    {.name = #member, .kind = KIND_MESSAGE, .wire = offsetof(wire_type, member),                   \
     .own = offsetof(own_type, member), .sub = (sub_shape)}
#define ONE(wire_type, own_type, member, own_case, wire_case, sub_shape)                           \
    {.name = #member, .kind = KIND_ONEOF, .wire = offsetof(wire_type, member),                     \
     .wire_count = offsetof(wire_type, body_case), .own = offsetof(own_type, member),              \
     .own_count = offsetof(own_type, own_case), .hi = (double)(wire_case), .sub = (sub_shape)}
#define SHAPE(stem, prefix, own_type)                                                              \
    static const struct shape stem##_shape = {#stem, &prefix##__descriptor, sizeof(own_type),      \
                                              stem##_fields, MEED_COUNT(stem##_fields)}

#define BIG 1e300
#define WALL_MS 9.0e15
#define ROUND MEED_LIMIT_ROUNDS
#define TRANSFER MEED_LIMIT_TRANSFER_BYTES

#define F(member, kind, low, high) FIELD(WIRE, OWN, member, kind, low, high)

#define WIRE Meed__V1__JoinRequest
#define OWN struct meed_msg_join_request
static const struct field join_request_fields[] = {
    F(protocol_version, U32, 0, 1e6), F(software, TEXT, 0, 0), F(run_id, ID, 0, 0),
    F(model_hash, HASH, 1, 0), F(sample_count, I64, 0, MEED_LIMIT_SAMPLES), F(device, TEXT, 0, 0),
};
SHAPE(join_request, meed__v1__join_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__JoinReply
#define OWN struct meed_msg_join_reply
static const struct field join_reply_fields[] = {
    F(protocol_version, U32, 0, 1e6), F(software, TEXT, 0, 0), F(run_id, ID, 1, 0),
    F(client_id, ID, 1, 0), F(model_hash, HASH, 1, 0), F(benchmark_hash, HASH, 0, 0),
    LIST(WIRE, OWN, roster, roster_count, TEXTS, MEED_LIMIT_CLIENTS, NULL),
    F(round_count, I32, 0, ROUND), F(next_round, I32, 0, ROUND), F(ledger_key, HASH, 0, 0),
    F(aggregation, TEXT, 0, 0), F(estimator, TEXT, 0, 0), F(payment, TEXT, 0, 0),
    F(round_budget, I64, 0, MEED_LIMIT_CREDITS),
};
SHAPE(join_reply, meed__v1__join_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__WatchRequest
#define OWN struct meed_msg_watch_request
static const struct field watch_request_fields[] = {F(run_id, ID, 1, 0)};
SHAPE(watch_request, meed__v1__watch_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__WatchEvent
#define OWN struct meed_msg_watch_event
static const struct field watch_event_fields[] = {
    F(kind, ENUM, 1, MEED_EVENT_KIND_COUNT - 1), F(round, I32, 0, ROUND),
    F(deadline_wall_ms, I64, 0, WALL_MS), F(remaining_ms, I64, 0, WALL_MS),
    F(updates_in, I32, 0, MEED_LIMIT_CLIENTS), F(updates_expected, I32, 0, MEED_LIMIT_CLIENTS),
    F(adapter_hash, HASH, 0, 0), F(ledger_hash, HASH, 0, 0), F(text, TEXT, 0, 0),
};
SHAPE(watch_event, meed__v1__watch_event, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Codec
#define OWN struct meed_msg_codec
static const struct field codec_fields[] = {
    F(values, ENUM, 1, MEED_VALUE_COUNT - 1), F(density_a, F64, 1e-6, 1),
    F(density_b, F64, 1e-6, 1), F(group_size, I32, MEED_LIMIT_GROUP_MIN, MEED_LIMIT_GROUP_MAX),
    F(zstd_level, I32, 0, MEED_LIMIT_ZSTD_LEVEL),
};
SHAPE(codec, meed__v1__codec, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Plan
#define OWN struct meed_msg_plan
static const struct field plan_fields[] = {
    F(round, I32, 0, ROUND), F(seed, U64, 0, 0), F(deadline_wall_ms, I64, 0, WALL_MS),
    F(remaining_ms, I64, 0, WALL_MS), F(method, ENUM, 1, MEED_METHOD_COUNT - 1),
    F(prox_mu, F64, 0, 1e6), F(steps, I32, 1, MEED_LIMIT_STEPS),
    F(batch_tokens, I32, 1, MEED_LIMIT_BATCH_TOKENS),
    F(accumulation, I32, 1, MEED_LIMIT_ACCUMULATION),
    F(sequence_tokens, I32, 1, MEED_LIMIT_SEQUENCE_TOKENS), F(lr, F64, 0, 1e3),
    F(lr_min, F64, 0, 1e3), F(warmup_steps, I32, 0, MEED_LIMIT_STEPS), F(weight_decay, F64, 0, 1e3),
    F(beta1, F64, 0, 1), F(beta2, F64, 0, 1), F(epsilon, F64, 0, 1), F(clip_norm, F64, 0, 1e9),
    F(rank, I32, 1, MEED_LIMIT_RANK), F(alpha, F64, 0, 1e6), F(rslora, BOOL, 0, 1),
    F(dropout, F64, 0, 0.999), F(target_modules, U32, 1, 0xFFFF),
    F(trained_factors, U32, 1, MEED_FACTOR_A | MEED_FACTOR_B), SUB(WIRE, OWN, codec, &codec_shape),
    F(adapter_hash, HASH, 1, 0), F(adapter_bytes, I64, 1, TRANSFER), F(control_hash, HASH, 0, 0),
    F(control_bytes, I64, 0, TRANSFER), F(share, ENUM, 0, MEED_SHARE_COUNT - 1),
    F(share_mix, F64, 0, 1), F(synthetic_count, I32, 0, MEED_LIMIT_SYNTHETIC),
    F(keeps_gauge, BOOL, 0, 1),
};
SHAPE(plan, meed__v1__plan, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Chunk
#define OWN struct meed_msg_chunk
static const struct field chunk_fields[] = {
    F(offset, I64, 0, TRANSFER), BYTES(WIRE, OWN, bytes, size, 1, MEED_LIMIT_CHUNK_BYTES),
    F(crc32c, FIXED32, 0, 0),
};
SHAPE(chunk, meed__v1__chunk, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PullRequest
#define OWN struct meed_msg_pull_request
static const struct field pull_request_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(offset, I64, 0, TRANSFER)};
SHAPE(pull_request, meed__v1__pull_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PullReply
#define OWN struct meed_msg_pull_reply
static const struct field pull_reply_fields[] = {
    ONE(WIRE, OWN, plan, part, MEED__V1__PULL_REPLY__BODY_PLAN, &plan_shape),
    ONE(WIRE, OWN, chunk, part, MEED__V1__PULL_REPLY__BODY_CHUNK, &chunk_shape),
};
SHAPE(pull_reply, meed__v1__pull_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PushHeader
#define OWN struct meed_msg_push_header
static const struct field push_header_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(sha256, HASH, 1, 0),
    F(total_bytes, I64, 1, TRANSFER), F(offset, I64, 0, TRANSFER), F(base_adapter_hash, HASH, 1, 0),
    F(sample_count, I64, 0, MEED_LIMIT_SAMPLES), F(train_loss, F64, -1e6, 1e6),
    F(token_count, I64, 0, MEED_LIMIT_TOKENS), F(train_seconds, F64, 0, 1e9),
    F(retained_energy, F64, 0, 1e3),
};
SHAPE(push_header, meed__v1__push_header, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PushRequest
#define OWN struct meed_msg_push_request
static const struct field push_request_fields[] = {
    ONE(WIRE, OWN, header, part, MEED__V1__PUSH_REQUEST__BODY_HEADER, &push_header_shape),
    ONE(WIRE, OWN, chunk, part, MEED__V1__PUSH_REQUEST__BODY_CHUNK, &chunk_shape),
};
SHAPE(push_request, meed__v1__push_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PushReply
#define OWN struct meed_msg_push_reply
static const struct field push_reply_fields[] = {
    F(outcome, ENUM, 1, MEED_PUSH_OUTCOME_COUNT - 1), F(stored_bytes, I64, 0, TRANSFER)};
SHAPE(push_reply, meed__v1__push_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__QueryPushRequest
#define OWN struct meed_msg_query_push_request
static const struct field query_push_request_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(sha256, HASH, 1, 0)};
SHAPE(query_push_request, meed__v1__query_push_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__QueryPushReply
#define OWN struct meed_msg_query_push_reply
static const struct field query_push_reply_fields[] = {F(stored_bytes, I64, 0, TRANSFER),
                                                       F(complete, BOOL, 0, 1)};
SHAPE(query_push_reply, meed__v1__query_push_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__ReceiptRequest
#define OWN struct meed_msg_receipt_request
static const struct field receipt_request_fields[] = {F(run_id, ID, 1, 0), F(round, I32, 0, ROUND)};
SHAPE(receipt_request, meed__v1__receipt_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__AxisValue
#define OWN struct meed_msg_axis_value
static const struct field axis_value_fields[] = {
    F(name, TEXT, 1, 0), F(phi, F64, -BIG, BIG), F(standard_error, F64, 0, BIG),
    F(weight, F64, -1e6, 1e6), F(guard, BOOL, 0, 1),
};
SHAPE(axis_value, meed__v1__axis_value, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Receipt
#define OWN struct meed_msg_receipt
static const struct field receipt_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(client_id, ID, 1, 0),
    F(state, ENUM, 1, MEED_RECEIPT_STATE_COUNT - 1), F(reason, TEXT, 0, 0), F(phi, F64, -BIG, BIG),
    F(standard_error, F64, 0, BIG), F(shrunk, F64, -BIG, BIG), F(share, I64, 0, MEED_LIMIT_CREDITS),
    F(total_share, I64, 0, MEED_LIMIT_CREDITS), F(round_budget, I64, 0, MEED_LIMIT_CREDITS),
    LIST(WIRE, OWN, axes, axis_count, MESSAGES, MEED_LIMIT_AXES, &axis_value_shape),
    F(bytes_up, I64, 0, WALL_MS), F(bytes_down, I64, 0, WALL_MS), F(ledger_index, I64, 0, WALL_MS),
    F(ledger_hash, HASH, 0, 0), F(update_hash, HASH, 0, 0), F(base_adapter_hash, HASH, 0, 0),
    F(next_adapter_hash, HASH, 0, 0), F(benchmark_hash, HASH, 0, 0), F(utilities_hash, HASH, 0, 0),
    F(remark, TEXT, 0, 0),
};
SHAPE(receipt, meed__v1__receipt, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__LedgerRequest
#define OWN struct meed_msg_ledger_request
static const struct field ledger_request_fields[] = {
    F(run_id, ID, 1, 0), F(first_index, I64, 0, WALL_MS),
    F(max_entries, I32, 1, MEED_LIMIT_LEDGER_PAGE)};
SHAPE(ledger_request, meed__v1__ledger_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__LedgerEntry
#define OWN struct meed_msg_ledger_entry
static const struct field ledger_entry_fields[] = {
    F(index, I64, 0, WALL_MS), BYTES(WIRE, OWN, body, body_size, 1, MEED_LIMIT_LEDGER_BODY_BYTES),
    F(hash, HASH, 1, 0), F(signature, HASH, 0, 0),
};
SHAPE(ledger_entry, meed__v1__ledger_entry, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__LedgerReply
#define OWN struct meed_msg_ledger_reply
static const struct field ledger_reply_fields[] = {
    LIST(WIRE, OWN, entries, entry_page_count, MESSAGES, MEED_LIMIT_LEDGER_PAGE,
         &ledger_entry_shape),
    F(entry_count, I64, 0, WALL_MS), F(head_hash, HASH, 0, 0), F(public_key, HASH, 0, 0),
};
SHAPE(ledger_reply, meed__v1__ledger_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Grpc__Health__V1__HealthCheckRequest
#define OWN struct meed_msg_health_request
static const struct field health_request_fields[] = {F(service, TEXT, 0, 0)};
SHAPE(health_request, grpc__health__v1__health_check_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Grpc__Health__V1__HealthCheckResponse
#define OWN struct meed_msg_health_reply
static const struct field health_reply_fields[] = {
    {.name = "status",
     .kind = KIND_ENUM,
     .wire = offsetof(WIRE, status),
     .own = offsetof(OWN, state),
     .hi = MEED_HEALTH_STATE_COUNT - 1}};
SHAPE(health_reply, grpc__health__v1__health_check_response, OWN);
#undef WIRE
#undef OWN

/* clang-format on */

/* ---- checks, the same both ways ---------------------------------------------------------------
 */

static enum meed_status refuse(const struct shape *shape, const struct field *field,
                               const char *what)
{
    return MEED_FAIL(MEED_FORMAT, "message %s, field %s: %s", shape->name, field->name, what);
}

static enum meed_status check_range(const struct shape *shape, const struct field *field,
                                    double value)
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

static enum meed_status check_count(const struct shape *shape, const struct field *field,
                                    size_t count)
{
    if ((double)count > field->hi || (double)count < field->lo) {
        return MEED_FAIL((double)count > field->hi ? MEED_LIMIT : MEED_FORMAT,
                         "message %s, field %s: %zu entries or bytes, not in %.0f to %.0f",
                         shape->name, field->name, count, field->lo, field->hi);
    }
    return MEED_OK;
}

static enum meed_status check_text(const struct shape *shape, const struct field *field,
                                   const char *text, size_t bytes)
{
    size_t length = strnlen(text, bytes);
    if (length >= bytes) {
        return refuse(shape, field, "the text is too long");
    }
    if (length == 0) {
        return field->lo >= 1 ? refuse(shape, field, "it is missing") : MEED_OK;
    }
    if (field->kind != KIND_TEXT && !meed_codec_id_valid(text)) {
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
static enum meed_status copy_number(const struct shape *shape, const struct field *field,
                                    const char *from, char *to)
{
    switch (field->kind) {
    case KIND_U32: {
        uint32_t value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case KIND_I32:
    case KIND_ENUM: {
        int32_t value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case KIND_I64: {
        int64_t value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, (double)value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case KIND_F64: {
        double value;
        memcpy(&value, from, sizeof value);
        MEED_TRY(check_range(shape, field, value));
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case KIND_U64:
        memcpy(to, from, sizeof(uint64_t));
        return MEED_OK;
    default:
        memcpy(to, from, sizeof(uint32_t));
        return MEED_OK;
    }
}

/* ---- unpacking ------------------------------------------------------------------------------- */

static enum meed_status unpack_shape(const struct shape *shape, const char *wire, char *own,
                                     struct meed_arena *arena);

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

static enum meed_status unpack_hash(const struct shape *shape, const struct field *field,
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

static enum meed_status unpack_list(const struct shape *shape, const struct field *field,
                                    const char *wire, char *own, struct meed_arena *arena)
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

static enum meed_status unpack_field(const struct shape *shape, const struct field *field,
                                     const char *wire, char *own, struct meed_arena *arena)
{
    const char *from = wire + field->wire;
    char *to = own + field->own;
    ProtobufCBinaryData data;
    const char *pointer;
    int32_t wire_case;
    switch (field->kind) {
    case KIND_BOOL: {
        protobuf_c_boolean value;
        memcpy(&value, from, sizeof value);
        *to = value != 0;
        return MEED_OK;
    }
    case KIND_TEXT:
    case KIND_ID:
        memcpy(&pointer, from, sizeof pointer);
        if (!fills_block(pointer)) {
            return refuse(shape, field, "the text has a NUL inside");
        }
        MEED_TRY(check_text(shape, field, pointer, field->own_bytes));
        memcpy(to, pointer, strlen(pointer) + 1);
        return MEED_OK;
    case KIND_HASH:
        memcpy(&data, from, sizeof data);
        return unpack_hash(shape, field, &data, to);
    case KIND_BYTES:
        memcpy(&data, from, sizeof data);
        MEED_TRY(check_count(shape, field, data.len));
        memcpy(to, &data.data, sizeof data.data);
        memcpy(own + field->own_count, &data.len, sizeof data.len);
        return MEED_OK;
    case KIND_TEXTS:
    case KIND_MESSAGES:
        return unpack_list(shape, field, wire, own, arena);
    case KIND_MESSAGE:
        memcpy(&pointer, from, sizeof pointer);
        return pointer ? unpack_shape(field->sub, pointer, to, arena)
                       : refuse(shape, field, "it is missing");
    case KIND_ONEOF:
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

static enum meed_status unpack_shape(const struct shape *shape, const char *wire, char *own,
                                     struct meed_arena *arena)
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

static enum meed_status unpack(const struct shape *shape, const void *bytes, size_t size,
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

static enum meed_status pack_shape(const struct shape *shape, const char *own,
                                   struct meed_arena *arena, void **out);

static enum meed_status pack_list(const struct shape *shape, const struct field *field,
                                  const char *own, char *wire, struct meed_arena *arena)
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

static enum meed_status pack_field(const struct shape *shape, const struct field *field,
                                   const char *own, char *wire, struct meed_arena *arena)
{
    const char *from = own + field->own;
    char *to = wire + field->wire;
    ProtobufCBinaryData data = {0};
    void *pointer = NULL;
    int32_t own_case;
    switch (field->kind) {
    case KIND_BOOL: {
        protobuf_c_boolean value = *from != 0;
        memcpy(to, &value, sizeof value);
        return MEED_OK;
    }
    case KIND_TEXT:
    case KIND_ID:
        MEED_TRY(check_text(shape, field, from, field->own_bytes));
        memcpy(to, &from, sizeof from);
        return MEED_OK;
    case KIND_HASH:
        if (is_zero((const uint8_t *)from, field->own_bytes)) {
            return field->lo >= 1 ? refuse(shape, field, "it is missing") : MEED_OK;
        }
        data.len = field->own_bytes;
        data.data = (uint8_t *)(uintptr_t)from;
        memcpy(to, &data, sizeof data);
        return MEED_OK;
    case KIND_BYTES:
        memcpy(&data.data, from, sizeof data.data);
        memcpy(&data.len, own + field->own_count, sizeof data.len);
        MEED_TRY(check_count(shape, field, data.len));
        memcpy(to, &data, sizeof data);
        return MEED_OK;
    case KIND_TEXTS:
    case KIND_MESSAGES:
        return pack_list(shape, field, own, wire, arena);
    case KIND_MESSAGE:
        MEED_TRY(pack_shape(field->sub, from, arena, &pointer));
        memcpy(to, &pointer, sizeof pointer);
        return MEED_OK;
    case KIND_ONEOF:
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

static enum meed_status pack_shape(const struct shape *shape, const char *own,
                                   struct meed_arena *arena, void **out)
{
    MEED_TRY(meed_arena_alloc(arena, shape->descriptor->sizeof_message, out));
    protobuf_c_message_init(shape->descriptor, *out);
    for (size_t i = 0; i < shape->field_count; i++) {
        MEED_TRY(pack_field(shape, &shape->fields[i], own, *out, arena));
    }
    return MEED_OK;
}

static enum meed_status pack(const struct shape *shape, const void *own, struct meed_buf *bytes)
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
        return pack(&name##_shape, message, bytes);                                                \
    }                                                                                              \
    enum meed_status meed_codec_unpack_##name(                                                     \
        const void *bytes, size_t size, struct meed_arena *arena, struct meed_msg_##name *message) \
    {                                                                                              \
        struct meed_msg_##name fresh = {0};                                                        \
        MEED_TRY(unpack(&name##_shape, bytes, size, arena, &fresh));                               \
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
    static const struct shape *const shapes[] = {
#define SHAPE_OF(name) &name##_shape,
        MEED_CODEC_MESSAGES(SHAPE_OF) & codec_shape,
        &plan_shape,
        &chunk_shape,
        &push_header_shape,
        &axis_value_shape,
        &ledger_entry_shape,
    };
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        MEED_TRY(check_depth(shapes[i]->descriptor, 0));
        if (shapes[i]->field_count != shapes[i]->descriptor->n_fields) {
            return MEED_FAIL(MEED_FORMAT, "message %s: %zu of %u fields have a row",
                             shapes[i]->name, shapes[i]->field_count,
                             shapes[i]->descriptor->n_fields);
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
