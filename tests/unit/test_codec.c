/* Every message there and back, and every kind of message that must be refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/codec.h"

struct fixture {
    struct meed_arena arena;
    struct meed_buf bytes;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    meed_codec_arena_init(&f->arena);
    meed_codec_buf_init(&f->bytes);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    meed_arena_clear(&f->arena);
    meed_buf_clear(&f->bytes);
    free(f);
    return 0;
}

/* Packs `in`, unpacks to `out`, packs `out` and compares the bytes: every field of a message has a
 * row in the codec (codec_schema_holds), so equal bytes are equal messages. */
#define TRIP(f, name, in, out)                                                                     \
    do {                                                                                           \
        struct meed_buf again;                                                                     \
        meed_codec_buf_init(&again);                                                               \
        meed_buf_reset(&(f)->bytes);                                                               \
        assert_int_equal(meed_codec_pack_##name(&(in), &(f)->bytes), MEED_OK);                     \
        assert_int_equal(meed_codec_unpack_##name((f)->bytes.data ? (f)->bytes.data : "",          \
                                                  (f)->bytes.size, &(f)->arena, &(out)),           \
                         MEED_OK);                                                                 \
        assert_int_equal(meed_codec_pack_##name(&(out), &again), MEED_OK);                         \
        assert_int_equal(again.size, (f)->bytes.size);                                             \
        assert_memory_equal(again.data ? again.data : "", (f)->bytes.data ? (f)->bytes.data : "",  \
                            again.size);                                                           \
        meed_buf_clear(&again);                                                                    \
    } while (0)

static void fill(uint8_t *hash, int seed)
{
    for (int i = 0; i < MEED_SHA256_BYTES; i++) {
        hash[i] = (uint8_t)(seed * 17 + i);
    }
}

static void text(char *to, size_t bytes, const char *value)
{
    snprintf(to, bytes, "%s", value);
}

#define TEXT(field, value) text(field, sizeof(field), value)

static struct meed_msg_plan full_plan(void)
{
    struct meed_msg_plan plan = {.round = 3,
                                 .seed = UINT64_MAX,
                                 .deadline_wall_ms = 1800000000000,
                                 .remaining_ms = 30000,
                                 .method = MEED_METHOD_FEDPIT,
                                 .prox_mu = 0.01,
                                 .steps = 100,
                                 .batch_tokens = 4096,
                                 .accumulation = 2,
                                 .sequence_tokens = 512,
                                 .lr = 1e-4,
                                 .lr_min = 1e-5,
                                 .warmup_steps = 10,
                                 .weight_decay = 0.1,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .epsilon = 1e-8,
                                 .clip_norm = 1.0,
                                 .rank = 16,
                                 .alpha = 32,
                                 .rslora = true,
                                 .dropout = 0.05,
                                 .target_modules = 0x7F,
                                 .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B,
                                 .codec = {MEED_VALUE_INT4, 0.1, 0.2, 64, 3},
                                 .adapter_bytes = 1 << 20,
                                 .control_bytes = 77,
                                 .share = MEED_SHARE_MIX,
                                 .share_mix = 0.5,
                                 .synthetic_count = 200,
                                 .mix_space = MEED_MIX_FACTORS,
                                 .synthetic_candidates = 400,
                                 .instruction_demos = 8,
                                 .response_demos = 4,
                                 .rouge_max = 0.7,
                                 .synthetic_retries = 3,
                                 .synthetic_turns = 2,
                                 .synthetic_temperature = 0.8,
                                 .synthetic_score = MEED_SYNTHETIC_RANDOM,
                                 .dp_clip = 0.5,
                                 .dp_noise = 1.25,
                                 .dp_delta = 1e-5,
                                 .synthetic_form = MEED_SYNTHETIC_TASKS,
                                 .opening_words = 3};
    fill(plan.adapter_hash, 1);
    fill(plan.control_hash, 2);
    return plan;
}

static void codec_carries_joins(void **state)
{
    struct fixture *f = *state;
    struct meed_msg_join_request request = {.protocol_version = 1, .sample_count = 12345},
                                 request_out;
    TEXT(request.software, "meed 0.1.0 – ünïcode 漢字 🙂");
    TEXT(request.device, "cpu");
    fill(request.model_hash, 1);
    TRIP(f, join_request, request, request_out);
    static char roster[MEED_LIMIT_CLIENTS][MEED_LIMIT_ID_BYTES];
    for (int i = 0; i < MEED_LIMIT_CLIENTS; i++) { /* the largest roster fits a message */
        snprintf(roster[i], sizeof roster[i], "client-with-a-rather-long-name-%d", i);
    }
    struct meed_msg_join_reply reply = {.protocol_version = 1,
                                        .roster = roster,
                                        .roster_count = MEED_LIMIT_CLIENTS,
                                        .round_count = 10,
                                        .next_round = 4,
                                        .round_budget = MEED_LIMIT_CREDITS},
                               reply_out;
    TEXT(reply.run_id, "run-2026.01_a");
    TEXT(reply.client_id, "alice");
    TEXT(reply.aggregation, "svd");
    fill(reply.model_hash, 3);
    fill(reply.ledger_key, 4);
    TRIP(f, join_reply, reply, reply_out);
    assert_int_equal(reply_out.roster_count, MEED_LIMIT_CLIENTS);
    assert_string_equal(reply_out.roster[8191], "client-with-a-rather-long-name-8191");
    assert_int_equal(reply_out.round_budget, MEED_LIMIT_CREDITS);
    assert_memory_equal(reply_out.benchmark_hash, reply.benchmark_hash, MEED_SHA256_BYTES);
}

static void codec_carries_events_and_plans(void **state)
{
    struct fixture *f = *state;
    struct meed_msg_watch_request watch = {.run_id = "run"}, watch_out;
    TRIP(f, watch_request, watch, watch_out);
    struct meed_msg_watch_event event = {.kind = MEED_EVENT_ROUND_SETTLED,
                                         .round = 4,
                                         .remaining_ms = 5,
                                         .updates_in = 7,
                                         .updates_expected = 8},
                                event_out;
    TEXT(event.text, "7 of 8 updates");
    fill(event.adapter_hash, 1);
    fill(event.ledger_hash, 2);
    TRIP(f, watch_event, event, event_out);
    struct meed_msg_pull_reply pull = {.part = MEED_PULL_PLAN, .plan = full_plan()}, pull_out;
    TRIP(f, pull_reply, pull, pull_out);
    assert_true(pull_out.plan.seed == UINT64_MAX && pull_out.plan.codec.zstd_level == 3);
    assert_true(pull_out.plan.synthetic_count == 200 && pull_out.plan.rslora);
    assert_true(pull_out.plan.mix_space == MEED_MIX_FACTORS && pull_out.plan.dp_noise == 1.25);
    struct meed_msg_pull_request ask = {.run_id = "run", .round = 3, .offset = 1 << 20}, ask_out;
    TRIP(f, pull_request, ask, ask_out);
}

static void codec_carries_pushes(void **state)
{
    struct fixture *f = *state;
    uint8_t *block = calloc(1, MEED_LIMIT_CHUNK_BYTES);
    struct meed_msg_push_request push = {.part = MEED_PUSH_HEADER}, out;
    push.header = (struct meed_msg_push_header){.run_id = "run",
                                                .round = 3,
                                                .total_bytes = 1000,
                                                .offset = 10,
                                                .sample_count = 50,
                                                .train_loss = 1.5,
                                                .token_count = 9999,
                                                .train_seconds = 12.5,
                                                .retained_energy = 0.4,
                                                .share = MEED_SHARE_MIX,
                                                .share_mix = 0.25,
                                                .mix_space = MEED_MIX_FACTORS,
                                                .synthetic_count = 16,
                                                .dp_clip = 0.5,
                                                .dp_noise = 1.25,
                                                .dp_delta = 1e-5,
                                                .dp_epsilon = 12.5};
    fill(push.header.sha256, 1);
    fill(push.header.base_adapter_hash, 2);
    TRIP(f, push_request, push, out);
    push.part = MEED_PUSH_CHUNK;
    push.chunk =
        (struct meed_msg_chunk){INT64_C(7) << 30, block, MEED_LIMIT_CHUNK_BYTES, 0xDEADBEEF};
    TRIP(f, push_request, push, out);
    assert_int_equal(out.part, MEED_PUSH_CHUNK);
    assert_int_equal(out.chunk.crc32c, 0xDEADBEEF);
    assert_int_equal(out.chunk.size, MEED_LIMIT_CHUNK_BYTES);
    push.chunk.size = MEED_LIMIT_CHUNK_BYTES + 1;
    assert_int_equal(meed_codec_pack_push_request(&push, &f->bytes), MEED_LIMIT);
    struct meed_msg_push_reply reply = {MEED_PUSH_DUPLICATE, 1000}, reply_out;
    TRIP(f, push_reply, reply, reply_out);
    assert_int_equal(reply_out.outcome, MEED_PUSH_DUPLICATE);
    struct meed_msg_query_push_request query = {.run_id = "run", .round = 3}, query_out;
    fill(query.sha256, 9);
    TRIP(f, query_push_request, query, query_out);
    struct meed_msg_query_push_reply stored = {12345, true}, stored_out;
    TRIP(f, query_push_reply, stored, stored_out);
    assert_true(stored_out.complete && stored_out.stored_bytes == 12345);
    free(block);
}

static void codec_carries_receipts_and_ledger(void **state)
{
    struct fixture *f = *state;
    struct meed_msg_axis_value axes[2] = {{"knowledge", 0.25, 0.01, 1.0, false},
                                          {"safety", -0.5, 0.02, 0.0, true}};
    struct meed_msg_receipt receipt = {.run_id = "run",
                                       .round = 3,
                                       .client_id = "alice",
                                       .state = MEED_RECEIPT_EXCLUDED,
                                       .phi = -0.125,
                                       .standard_error = 0.01,
                                       .shrunk = 0.1,
                                       .share = 333333,
                                       .total_share = 999999,
                                       .round_budget = 1000000,
                                       .axes = axes,
                                       .axis_count = 2,
                                       .bytes_up = 5,
                                       .bytes_down = 6,
                                       .ledger_index = 7},
                            out;
    TEXT(receipt.reason, "guard axis safety is negative: −0.5 ± 0.02");
    TEXT(receipt.remark, "norm 3.1 × the median");
    TEXT(receipt.privacy, "shared: synthetic, 16 examples written by the global model");
    fill(receipt.ledger_hash, 1);
    fill(receipt.utilities_hash, 2);
    TRIP(f, receipt, receipt, out);
    assert_int_equal(out.axis_count, 2);
    assert_string_equal(out.axes[1].name, "safety");
    assert_true(out.axes[1].guard && !out.axes[0].guard && out.axes[1].phi == -0.5);
    assert_string_equal(out.reason, receipt.reason);
    assert_string_equal(out.remark, receipt.remark);
    assert_string_equal(out.privacy, receipt.privacy);
    struct meed_msg_receipt_request ask = {.run_id = "run", .round = 3}, ask_out;
    TRIP(f, receipt_request, ask, ask_out);
    struct meed_msg_ledger_entry entries[2] = {
        {.index = 5, .body = (const uint8_t *)"body", .body_size = 4},
        {.index = 6, .body = (const uint8_t *)"x", .body_size = 1}};
    fill(entries[0].hash, 5);
    fill(entries[1].hash, 6);
    memset(entries[1].signature, 9, sizeof entries[1].signature);
    struct meed_msg_ledger_reply page = {.entries = entries,
                                         .entry_page_count = 2,
                                         .entry_count = 7},
                                 page_out;
    TRIP(f, ledger_reply, page, page_out);
    assert_int_equal(page_out.entry_page_count, 2);
    assert_memory_equal(page_out.entries[0].body, "body", 4);
    assert_memory_equal(page_out.entries[1].signature, entries[1].signature, MEED_SIGNATURE_BYTES);
    struct meed_msg_ledger_request pages = {.run_id = "run", .first_index = 5, .max_entries = 2},
                                   pages_out;
    TRIP(f, ledger_request, pages, pages_out);
    struct meed_msg_health_request health = {.service = "meed.v1.Federation"}, health_out;
    TRIP(f, health_request, health, health_out);
    struct meed_msg_health_reply serving = {MEED_HEALTH_SERVING}, serving_out;
    TRIP(f, health_reply, serving, serving_out);
    assert_int_equal(serving_out.state, MEED_HEALTH_SERVING);
}

/* ---- refusals -------------------------------------------------------------------------------- */

/* A plan is the message with most bounds: one value at a time is moved past its own. */
static void codec_refuses_plans_out_of_bounds(void **state)
{
    struct fixture *f = *state;
    struct meed_msg_pull_reply good = {.part = MEED_PULL_PLAN, .plan = full_plan()}, bad;
#define BAD(change, want)                                                                          \
    do {                                                                                           \
        bad = good;                                                                                \
        bad.plan.change;                                                                           \
        assert_int_equal(meed_codec_pack_pull_reply(&bad, &f->bytes), want);                       \
    } while (0)
    BAD(round = -1, MEED_FORMAT);
    BAD(method = (enum meed_method)0, MEED_FORMAT);
    BAD(method = MEED_METHOD_COUNT, MEED_FORMAT);
    BAD(steps = 0, MEED_FORMAT);
    BAD(lr = NAN, MEED_NUMERIC);
    BAD(lr = -1, MEED_FORMAT);
    BAD(alpha = INFINITY, MEED_NUMERIC);
    BAD(rank = MEED_LIMIT_RANK + 1, MEED_FORMAT);
    BAD(dropout = 1.0, MEED_FORMAT);
    BAD(target_modules = 0, MEED_FORMAT);
    BAD(trained_factors = 4, MEED_FORMAT);
    BAD(codec.density_a = 0.0, MEED_FORMAT);
    BAD(codec.values = MEED_VALUE_COUNT, MEED_FORMAT);
    BAD(codec.zstd_level = 20, MEED_FORMAT);
    BAD(adapter_bytes = 0, MEED_FORMAT);
    BAD(adapter_bytes = MEED_LIMIT_TRANSFER_BYTES + 1, MEED_FORMAT);
    BAD(share = MEED_SHARE_COUNT, MEED_FORMAT);
    BAD(mix_space = MEED_MIX_SPACE_COUNT, MEED_FORMAT);
    BAD(synthetic_score = MEED_SYNTHETIC_SCORE_COUNT, MEED_FORMAT);
    BAD(synthetic_form = MEED_SYNTHETIC_FORM_COUNT, MEED_FORMAT);
    BAD(rouge_max = 1.5, MEED_FORMAT);
    BAD(dp_clip = -1, MEED_FORMAT);
    BAD(dp_noise = NAN, MEED_NUMERIC);
    BAD(dp_delta = 2, MEED_FORMAT);
    bad = good;
    memset(bad.plan.adapter_hash, 0, MEED_SHA256_BYTES);
    assert_int_equal(meed_codec_pack_pull_reply(&bad, &f->bytes), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "message plan, field adapter_hash"));
    assert_int_equal(f->bytes.size, 0);
}

struct wire {
    const char *what;
    const char *bytes;
    size_t size;
    enum meed_status status;
};
#define WIRE_ROW(what, text, status)                                                               \
    {                                                                                              \
        what, text, sizeof(text) - 1, status                                                       \
    }

/* ReceiptRequest: run_id = 1 (string), round = 2 (int32). */
static const struct wire wires[] = {
    WIRE_ROW("good", "\x0A\x03run\x10\x02", MEED_OK),
    WIRE_ROW("unknown field is skipped", "\x0A\x03run\x10\x02\x98\x06\x01", MEED_OK),
    WIRE_ROW("empty", "", MEED_FORMAT),
    WIRE_ROW("garbage", "\xff\xff\xff", MEED_FORMAT),
    WIRE_ROW("length beyond the end", "\x0A\x7F", MEED_FORMAT),
    WIRE_ROW("group", "\x0B", MEED_FORMAT),
    WIRE_ROW("invalid UTF-8", "\x0A\x03r\xffn", MEED_FORMAT),
    WIRE_ROW("inner NUL", "\x0A\x04run\0\x10\x02", MEED_FORMAT),
    WIRE_ROW("NUL in the middle", "\x0A\x03r\0n", MEED_FORMAT),
    WIRE_ROW("letter outside the alphabet", "\x0A\x03r/n", MEED_FORMAT),
    WIRE_ROW("too long",
             "\x0A\x40"
             "0123456789012345678901234567890123456789012345678901234567890123",
             MEED_FORMAT),
    WIRE_ROW("negative round", "\x0A\x03run\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
             MEED_FORMAT),
    WIRE_ROW("round too large", "\x0A\x03run\x10\xC1\x84\x3D", MEED_FORMAT),
    WIRE_ROW("wrong wire type", "\x0D\x01\x02\x03\x04", MEED_FORMAT),
};

static void codec_refuses_bad_bytes(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < MEED_COUNT(wires); i++) {
        struct meed_msg_receipt_request request;
        enum meed_status st =
            meed_codec_unpack_receipt_request(wires[i].bytes, wires[i].size, &f->arena, &request);
        if (st != wires[i].status) {
            fail_msg("%s: got %s, \"%s\"", wires[i].what, meed_status_name(st), meed_last_error());
        }
    }
}

static void codec_refuses_texts_that_are_not_utf8(void **state)
{
    (void)state;
    assert_true(meed_codec_text_valid("aé漢🙂", strlen("aé漢🙂")));
    assert_false(meed_codec_text_valid("\xC0\x80", 2));         /* overlong NUL */
    assert_false(meed_codec_text_valid("\xE0\x80\x80", 3));     /* overlong */
    assert_false(meed_codec_text_valid("\xED\xA0\x80", 3));     /* surrogate */
    assert_false(meed_codec_text_valid("\xF4\x90\x80\x80", 4)); /* beyond U+10FFFF */
    assert_false(meed_codec_text_valid("\xE2\x82", 2));         /* cut */
    assert_false(meed_codec_text_valid("a\0b", 3));
    assert_false(meed_codec_id_valid(""));
    assert_false(meed_codec_id_valid("a b"));
    assert_true(meed_codec_id_valid("Az09._-"));
}

/* A hash of another length, an oneof without a body, an enum of tomorrow. */
static void codec_refuses_wrong_members(void **state)
{
    struct fixture *f = *state;
    struct meed_msg_query_push_request query;
    assert_int_equal(
        meed_codec_unpack_query_push_request("\x0A\x01r\x1A\x02xy", 7, &f->arena, &query),
        MEED_FORMAT);
    assert_int_equal(meed_codec_unpack_query_push_request("\x0A\x01r", 3, &f->arena, &query),
                     MEED_FORMAT);
    struct meed_msg_push_request push;
    assert_int_equal(meed_codec_unpack_push_request("", 0, &f->arena, &push), MEED_FORMAT);
    assert_int_equal(meed_codec_unpack_push_request("\x12\x00", 2, &f->arena, &push), MEED_FORMAT);
    struct meed_msg_push_reply reply;
    assert_int_equal(meed_codec_unpack_push_reply("\x08\x63", 2, &f->arena, &reply), MEED_FORMAT);
    /* A chunk that is given twice: protobuf would merge, the codec takes the last and checks it. */
    assert_int_equal(
        meed_codec_unpack_push_request("\x12\x02\x08\x01\x12\x00", 6, &f->arena, &push),
        MEED_FORMAT);
}

/* Four megabytes of empty sub-messages would become two hundred: the arena's cap stops it. */
static void codec_caps_amplification(void **state)
{
    struct fixture *f = *state;
    size_t size = 1 << 20;
    char *bytes = malloc(size);
    for (size_t i = 0; i + 1 < size; i += 2) {
        bytes[i] = 0x62; /* Receipt.axes */
        bytes[i + 1] = 0;
    }
    struct meed_msg_receipt receipt;
    assert_int_equal(meed_codec_unpack_receipt(bytes, size, &f->arena, &receipt), MEED_LIMIT);
    for (size_t i = 0; i + 1 < size; i += 2) {
        bytes[i] = 0x78; /* unknown fields */
        bytes[i + 1] = 0;
    }
    struct meed_msg_watch_request watch;
    enum meed_status st = meed_codec_unpack_watch_request(bytes, size, &f->arena, &watch);
    assert_true(st == MEED_LIMIT || st == MEED_FORMAT);
    assert_true(f->arena.used <= MEED_LIMIT_UNPACKED_BYTES);
    char *big = calloc(1, MEED_LIMIT_MESSAGE_BYTES + 1);
    assert_int_equal(
        meed_codec_unpack_watch_request(big, MEED_LIMIT_MESSAGE_BYTES + 1, &f->arena, &watch),
        MEED_LIMIT);
    free(big);
    free(bytes);
}

static void codec_schema_holds(void **state)
{
    (void)state;
    if (meed_codec_check_schema() != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
    static const char *const paths[] = {MEED_RPC_JOIN,
                                        MEED_RPC_WATCH,
                                        MEED_RPC_PULL,
                                        MEED_RPC_PUSH,
                                        MEED_RPC_QUERY_PUSH,
                                        MEED_RPC_RECEIPT,
                                        MEED_RPC_LEDGER,
                                        "/grpc.health.v1.Health/Check",
                                        "/grpc.health.v1.Health/Watch"};
    for (size_t i = 0; i < MEED_COUNT(paths); i++) {
        assert_true(meed_codec_schema_has_method(paths[i]));
    }
    assert_false(meed_codec_schema_has_method("/meed.v1.Federation/Leave"));
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(codec_carries_joins),
        CASE(codec_carries_events_and_plans),
        CASE(codec_carries_pushes),
        CASE(codec_carries_receipts_and_ledger),
        CASE(codec_refuses_plans_out_of_bounds),
        CASE(codec_refuses_bad_bytes),
        CASE(codec_refuses_texts_that_are_not_utf8),
        CASE(codec_refuses_wrong_members),
        CASE(codec_caps_amplification),
        CASE(codec_schema_holds),
    };
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
