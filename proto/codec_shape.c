/* See codec_shape.h. A field's bounds are those of limits.h wherever a stranger could use the room.
 */
#include "proto/codec_shape.h"

#include <stddef.h>

#include "health.pb-c.h"
#include "meed.pb-c.h"

/* clang-format off */
#define OWN_SIZE(own_type, member) sizeof(((own_type *)0)->member)
#define FIELD(wire_type, own_type, member, field_kind, low, high)                                  \
    {.name = #member, .kind = MEED_CODEC_##field_kind, .wire = offsetof(wire_type, member),        \
     .own = offsetof(own_type, member), .own_bytes = OWN_SIZE(own_type, member), .lo = (low),      \
     .hi = (double)(high)}
#define LIST(wire_type, own_type, member, own_counter, field_kind, most, sub_shape)                \
    {.name = #member, .kind = MEED_CODEC_##field_kind, .wire = offsetof(wire_type, member),        \
     .wire_count = offsetof(wire_type, n_##member), .own = offsetof(own_type, member),             \
     .own_count = offsetof(own_type, own_counter), .hi = (double)(most), .sub = (sub_shape)}
#define BYTES(wire_type, own_type, member, own_counter, least, most)                               \
    {.name = #member, .kind = MEED_CODEC_BYTES, .wire = offsetof(wire_type, member),               \
     .own = offsetof(own_type, member), .own_count = offsetof(own_type, own_counter),              \
     .lo = (least), .hi = (double)(most)}
#define SUB(wire_type, own_type, member, sub_shape)                                                \
    {.name = #member, .kind = MEED_CODEC_MESSAGE, .wire = offsetof(wire_type, member),             \
     .own = offsetof(own_type, member), .sub = (sub_shape)}
#define ONE(wire_type, own_type, member, own_case, wire_case, sub_shape)                           \
    {.name = #member, .kind = MEED_CODEC_ONEOF, .wire = offsetof(wire_type, member),               \
     .wire_count = offsetof(wire_type, body_case), .own = offsetof(own_type, member),              \
     .own_count = offsetof(own_type, own_case), .hi = (double)(wire_case), .sub = (sub_shape)}
#define SHAPE(stem, prefix, own_type)                                                              \
    const struct meed_codec_shape meed_codec_shape_##stem = {#stem, &prefix##__descriptor,         \
                                                              sizeof(own_type), stem##_fields,     \
                                                              MEED_COUNT(stem##_fields)}

#define BIG 1e300
#define WALL_MS 9.0e15
#define ROUND MEED_LIMIT_ROUNDS
#define TRANSFER MEED_LIMIT_TRANSFER_BYTES

#define F(member, kind, low, high) FIELD(WIRE, OWN, member, kind, low, high)

#define WIRE Meed__V1__JoinRequest
#define OWN struct meed_msg_join_request
static const struct meed_codec_field join_request_fields[] = {
    F(protocol_version, U32, 0, 1e6), F(software, TEXT, 0, 0), F(run_id, ID, 0, 0),
    F(model_hash, HASH, 1, 0), F(sample_count, I64, 0, MEED_LIMIT_SAMPLES), F(device, TEXT, 0, 0),
};
SHAPE(join_request, meed__v1__join_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__JoinReply
#define OWN struct meed_msg_join_reply
static const struct meed_codec_field join_reply_fields[] = {
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
static const struct meed_codec_field watch_request_fields[] = {F(run_id, ID, 1, 0)};
SHAPE(watch_request, meed__v1__watch_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__WatchEvent
#define OWN struct meed_msg_watch_event
static const struct meed_codec_field watch_event_fields[] = {
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
static const struct meed_codec_field codec_fields[] = {
    F(values, ENUM, 1, MEED_VALUE_COUNT - 1), F(density_a, F64, 1e-6, 1),
    F(density_b, F64, 1e-6, 1), F(group_size, I32, MEED_LIMIT_GROUP_MIN, MEED_LIMIT_GROUP_MAX),
    F(zstd_level, I32, 0, MEED_LIMIT_ZSTD_LEVEL),
};
SHAPE(codec, meed__v1__codec, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Plan
#define OWN struct meed_msg_plan
static const struct meed_codec_field plan_fields[] = {
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
    F(trained_factors, U32, 1, MEED_FACTOR_A | MEED_FACTOR_B),
    SUB(WIRE, OWN, codec, &meed_codec_shape_codec),
    F(adapter_hash, HASH, 1, 0), F(adapter_bytes, I64, 1, TRANSFER), F(control_hash, HASH, 0, 0),
    F(control_bytes, I64, 0, TRANSFER), F(share, ENUM, 0, MEED_SHARE_COUNT - 1),
    F(share_mix, F64, 0, 1), F(synthetic_count, I32, 0, MEED_LIMIT_SYNTHETIC),
    F(keeps_gauge, BOOL, 0, 1), F(mix_space, ENUM, 0, MEED_MIX_SPACE_COUNT - 1),
    F(synthetic_candidates, I32, 0, MEED_LIMIT_SYNTHETIC),
    F(instruction_demos, I32, 0, MEED_LIMIT_DEMONSTRATIONS),
    F(response_demos, I32, 0, MEED_LIMIT_DEMONSTRATIONS), F(rouge_max, F64, 0, 1),
    F(synthetic_retries, I32, 0, MEED_LIMIT_SYNTHETIC),
    F(synthetic_turns, I32, 0, MEED_LIMIT_SYNTHETIC), F(synthetic_temperature, F64, 0, 100),
    F(synthetic_score, ENUM, 0, MEED_SYNTHETIC_SCORE_COUNT - 1), F(dp_clip, F64, 0, 1e9),
    F(dp_noise, F64, 0, 1e9), F(dp_delta, F64, 0, 1),
    F(synthetic_form, ENUM, 0, MEED_SYNTHETIC_FORM_COUNT - 1),
    F(opening_words, I32, 0, MEED_LIMIT_DEMONSTRATIONS),
};
SHAPE(plan, meed__v1__plan, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Chunk
#define OWN struct meed_msg_chunk
static const struct meed_codec_field chunk_fields[] = {
    F(offset, I64, 0, TRANSFER), BYTES(WIRE, OWN, bytes, size, 1, MEED_LIMIT_CHUNK_BYTES),
    F(crc32c, FIXED32, 0, 0),
};
SHAPE(chunk, meed__v1__chunk, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PullRequest
#define OWN struct meed_msg_pull_request
static const struct meed_codec_field pull_request_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(offset, I64, 0, TRANSFER)};
SHAPE(pull_request, meed__v1__pull_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PullReply
#define OWN struct meed_msg_pull_reply
static const struct meed_codec_field pull_reply_fields[] = {
    ONE(WIRE, OWN, plan, part, MEED__V1__PULL_REPLY__BODY_PLAN, &meed_codec_shape_plan),
    ONE(WIRE, OWN, chunk, part, MEED__V1__PULL_REPLY__BODY_CHUNK, &meed_codec_shape_chunk),
};
SHAPE(pull_reply, meed__v1__pull_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PushHeader
#define OWN struct meed_msg_push_header
static const struct meed_codec_field push_header_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(sha256, HASH, 1, 0),
    F(total_bytes, I64, 1, TRANSFER), F(offset, I64, 0, TRANSFER), F(base_adapter_hash, HASH, 1, 0),
    F(sample_count, I64, 0, MEED_LIMIT_SAMPLES), F(train_loss, F64, -1e6, 1e6),
    F(token_count, I64, 0, MEED_LIMIT_TOKENS), F(train_seconds, F64, 0, 1e9),
    F(retained_energy, F64, 0, 1e3), F(share, ENUM, 0, MEED_SHARE_COUNT - 1),
    F(share_mix, F64, 0, 1), F(mix_space, ENUM, 0, MEED_MIX_SPACE_COUNT - 1),
    F(synthetic_count, I32, 0, MEED_LIMIT_SYNTHETIC), F(dp_clip, F64, 0, 1e9),
    F(dp_noise, F64, 0, 1e9), F(dp_delta, F64, 0, 1), F(dp_epsilon, F64, 0, BIG),
};
SHAPE(push_header, meed__v1__push_header, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PushRequest
#define OWN struct meed_msg_push_request
static const struct meed_codec_field push_request_fields[] = {
    ONE(WIRE, OWN, header, part, MEED__V1__PUSH_REQUEST__BODY_HEADER,
        &meed_codec_shape_push_header),
    ONE(WIRE, OWN, chunk, part, MEED__V1__PUSH_REQUEST__BODY_CHUNK, &meed_codec_shape_chunk),
};
SHAPE(push_request, meed__v1__push_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__PushReply
#define OWN struct meed_msg_push_reply
static const struct meed_codec_field push_reply_fields[] = {
    F(outcome, ENUM, 1, MEED_PUSH_OUTCOME_COUNT - 1), F(stored_bytes, I64, 0, TRANSFER)};
SHAPE(push_reply, meed__v1__push_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__QueryPushRequest
#define OWN struct meed_msg_query_push_request
static const struct meed_codec_field query_push_request_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(sha256, HASH, 1, 0)};
SHAPE(query_push_request, meed__v1__query_push_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__QueryPushReply
#define OWN struct meed_msg_query_push_reply
static const struct meed_codec_field query_push_reply_fields[] = {F(stored_bytes, I64, 0, TRANSFER),
                                                       F(complete, BOOL, 0, 1)};
SHAPE(query_push_reply, meed__v1__query_push_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__ReceiptRequest
#define OWN struct meed_msg_receipt_request
static const struct meed_codec_field receipt_request_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND)};
SHAPE(receipt_request, meed__v1__receipt_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__AxisValue
#define OWN struct meed_msg_axis_value
static const struct meed_codec_field axis_value_fields[] = {
    F(name, TEXT, 1, 0), F(phi, F64, -BIG, BIG), F(standard_error, F64, 0, BIG),
    F(weight, F64, -1e6, 1e6), F(guard, BOOL, 0, 1),
};
SHAPE(axis_value, meed__v1__axis_value, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__Receipt
#define OWN struct meed_msg_receipt
static const struct meed_codec_field receipt_fields[] = {
    F(run_id, ID, 1, 0), F(round, I32, 0, ROUND), F(client_id, ID, 1, 0),
    F(state, ENUM, 1, MEED_RECEIPT_STATE_COUNT - 1), F(reason, TEXT, 0, 0), F(phi, F64, -BIG, BIG),
    F(standard_error, F64, 0, BIG), F(shrunk, F64, -BIG, BIG), F(share, I64, 0, MEED_LIMIT_CREDITS),
    F(total_share, I64, 0, MEED_LIMIT_CREDITS), F(round_budget, I64, 0, MEED_LIMIT_CREDITS),
    LIST(WIRE, OWN, axes, axis_count, MESSAGES, MEED_LIMIT_AXES, &meed_codec_shape_axis_value),
    F(bytes_up, I64, 0, WALL_MS), F(bytes_down, I64, 0, WALL_MS), F(ledger_index, I64, 0, WALL_MS),
    F(ledger_hash, HASH, 0, 0), F(update_hash, HASH, 0, 0), F(base_adapter_hash, HASH, 0, 0),
    F(next_adapter_hash, HASH, 0, 0), F(benchmark_hash, HASH, 0, 0), F(utilities_hash, HASH, 0, 0),
    F(remark, TEXT, 0, 0), F(privacy, TEXT, 0, 0),
};
SHAPE(receipt, meed__v1__receipt, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__LedgerRequest
#define OWN struct meed_msg_ledger_request
static const struct meed_codec_field ledger_request_fields[] = {
    F(run_id, ID, 1, 0), F(first_index, I64, 0, WALL_MS),
    F(max_entries, I32, 1, MEED_LIMIT_LEDGER_PAGE)};
SHAPE(ledger_request, meed__v1__ledger_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__LedgerEntry
#define OWN struct meed_msg_ledger_entry
static const struct meed_codec_field ledger_entry_fields[] = {
    F(index, I64, 0, WALL_MS), BYTES(WIRE, OWN, body, body_size, 1, MEED_LIMIT_LEDGER_BODY_BYTES),
    F(hash, HASH, 1, 0), F(signature, HASH, 0, 0),
};
SHAPE(ledger_entry, meed__v1__ledger_entry, OWN);
#undef WIRE
#undef OWN

#define WIRE Meed__V1__LedgerReply
#define OWN struct meed_msg_ledger_reply
static const struct meed_codec_field ledger_reply_fields[] = {
    LIST(WIRE, OWN, entries, entry_page_count, MESSAGES, MEED_LIMIT_LEDGER_PAGE,
         &meed_codec_shape_ledger_entry),
    F(entry_count, I64, 0, WALL_MS), F(head_hash, HASH, 0, 0), F(public_key, HASH, 0, 0),
};
SHAPE(ledger_reply, meed__v1__ledger_reply, OWN);
#undef WIRE
#undef OWN

#define WIRE Grpc__Health__V1__HealthCheckRequest
#define OWN struct meed_msg_health_request
static const struct meed_codec_field health_request_fields[] = {F(service, TEXT, 0, 0)};
SHAPE(health_request, grpc__health__v1__health_check_request, OWN);
#undef WIRE
#undef OWN

#define WIRE Grpc__Health__V1__HealthCheckResponse
#define OWN struct meed_msg_health_reply
static const struct meed_codec_field health_reply_fields[] = {
    {.name = "status",
     .kind = MEED_CODEC_ENUM,
     .wire = offsetof(WIRE, status),
     .own = offsetof(OWN, state),
     .hi = MEED_HEALTH_STATE_COUNT - 1}};
SHAPE(health_reply, grpc__health__v1__health_check_response, OWN);
#undef WIRE
#undef OWN

/* clang-format on */
