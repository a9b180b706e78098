/* Whole federations in one process: every call, every refusal, from the first join to the receipts.
 *
 * Goal: three rounds end with a ledger that verifies, receipts that agree with it and conserved
 * credits; the order in which updates arrive changes nothing; each kind of bad, late, doubled,
 * broken or foreign call gets its status and changes nothing; a thousand clients fit. Method: the
 * in-process transport and a value function that needs no model (federation_fixture.h).
 */
#include "tests/loop/federation_fixture.h"

static void check_ledger(struct fed *fed, int64_t entries)
{
    char path[MEED_PATH_BYTES];
    uint8_t key[MEED_SHA256_BYTES];
    struct meed_buf text;
    fed_read(fed->folder, "ledger.pub", &text);
    text.data[64] = '\0';
    assert_int_equal(meed_sha256_from_hex(text.data, key), MEED_OK);
    meed_buf_clear(&text);
    assert_int_equal(meed_file_join(fed->folder, "ledger.jsonl", path, sizeof path), MEED_OK);
    assert_int_equal(meed_ledger_verify(path, key, NULL, NULL), MEED_OK);
    fed_read(fed->folder, "ledger.jsonl", &text);
    int64_t lines = 0;
    for (size_t i = 0; i < text.size; i++) {
        lines += text.data[i] == '\n';
    }
    assert_int_equal(lines, entries);
    meed_buf_clear(&text);
}

static void federation_runs_three_rounds(void **state)
{
    (void)state;
    static struct fed fed;
    char report[256];
    fed_init(&fed, 8);
    snprintf(report, sizeof report, "%s/report.json", fed.folder);
    fed.report = report;
    fed_start(&fed);
    for (int32_t round = 1; round <= 3; round++) {
        for (int32_t i = 0; i < 8; i++) {
            assert_int_equal(fed_play(&fed, i, round, i == 3 ? 0.0 : 0.1), MEED_OK);
        }
    }
    int64_t paid[3] = {0, 0, 0};
    for (int32_t round = 1; round <= 3; round++) {
        fed_collect(&fed, round);
        for (int32_t i = 0; i < 8; i++) {
            struct meed_rpc_client *rpc = fed_client(&fed, i);
            struct meed_msg_receipt receipt;
            assert_int_equal(fed_receipt(&fed, rpc, round, &receipt), MEED_OK);
            assert_string_equal(receipt.client_id, fed.ids[i]);
            assert_int_equal(receipt.round_budget, round == 3 ? 334 : 333);
            assert_true(receipt.bytes_up > 0 && receipt.bytes_down > 0);
            assert_int_equal(receipt.axis_count, 1);
            assert_non_null(strstr(receipt.privacy, "shared: all, trained on the client's data (as "
                                                    "declared); rank "));
            if (i == 3) {
                assert_int_equal(receipt.state, MEED_RECEIPT_UNPAID);
                assert_true(receipt.phi == 0.0 && receipt.share == 0);
            }
            paid[round - 1] += receipt.share;
            meed_rpc_client_close(rpc);
        }
    }
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    assert_int_equal(paid[0] + paid[1] + paid[2], 1000);
    check_ledger(&fed, 5);
    struct meed_buf text;
    fed_read(fed.folder, "report.json", &text);
    assert_non_null(strstr(text.data, "\"utility_after\""));
    assert_non_null(strstr(text.data, "\"bytes_up\""));
    meed_buf_clear(&text);
    assert_true(meed_file_exists(report));
    fed_remove(fed.folder);
}

static void federation_does_not_see_the_order_of_arrival(void **state)
{
    (void)state;
    static struct fed forth, back;
    struct fed *both[] = {&forth, &back};
    char key[256];
    for (int f = 0; f < 2; f++) {
        struct fed *fed = both[f];
        fed_init(fed, 6);
        snprintf(key, sizeof key, "%s/ledger.key", forth.folder);
        fed->ledger_key = f == 1 ? key : NULL;
        fed_start(fed);
        for (int32_t round = 1; round <= 3; round++) {
            for (int32_t i = 0; i < 6; i++) {
                assert_int_equal(fed_play(fed, f == 0 ? i : 5 - i, round, 0.1), MEED_OK);
            }
        }
        fed_collect(fed, 3);
        assert_int_equal(fed_stop(fed, true), MEED_OK);
    }
    assert_true(fed_same_file(forth.folder, back.folder, "ledger.jsonl"));
    assert_true(fed_same_file(forth.folder, back.folder, "adapter/adapter_model.safetensors"));
    fed_remove(forth.folder);
    fed_remove(back.folder);
}

static void federation_refuses_bad_pushes(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 3);
    fed_start(&fed);
    struct meed_rpc_client *rpc = fed_client(&fed, 0);
    struct fed_pulled pulled = {.adapter = NULL};
    struct meed_msg_push_header header, bad;
    enum meed_push_outcome outcome = MEED_PUSH_ACCEPTED;
    struct meed_buf bytes, other;
    meed_buf_init(&bytes, 1 << 20);
    meed_buf_init(&other, 1 << 20);
    assert_int_equal(fed_pull(&fed, rpc, 1, &pulled), MEED_OK);
    assert_int_equal(fed_pull(&fed, rpc, 2, &pulled), MEED_STATE);
    fed_encode(&fed, 0, &pulled, 0.1, &bytes);
    fed_header(&fed, &pulled, &bytes, &header);

    bad = header;
    bad.round = 2;
    assert_int_equal(fed_push_bytes(rpc, &bad, &bytes, 500, -1, &outcome), MEED_STATE);
    bad = header;
    bad.base_adapter_hash[0] ^= 1;
    assert_int_equal(fed_push_bytes(rpc, &bad, &bytes, 500, -1, &outcome), MEED_VERSION);
    bad = header;
    snprintf(bad.run_id, sizeof bad.run_id, "other");
    assert_int_equal(fed_push_bytes(rpc, &bad, &bytes, 500, -1, &outcome), MEED_VERSION);
    bad = header;
    bad.total_bytes = 1 << 30;
    assert_int_equal(fed_push_bytes(rpc, &bad, &bytes, 500, -1, &outcome), MEED_FORMAT);
    bad = header;
    bad.sha256[5] ^= 1; /* the bytes are not what was announced */
    assert_int_equal(fed_push_bytes(rpc, &bad, &bytes, 500, -1, &outcome), MEED_INTEGRITY);
    /* Client 1's update under client 0's name: the content says whose it is. */
    fed_encode(&fed, 1, &pulled, 0.1, &other);
    fed_header(&fed, &pulled, &other, &bad);
    enum meed_status st = fed_push_bytes(rpc, &bad, &other, 500, -1, &outcome);
    assert_true(st != MEED_OK);
    /* Rubbish with a right hash. */
    meed_buf_reset(&other);
    assert_int_equal(meed_buf_append(&other, "not an update at all", 20), MEED_OK);
    fed_header(&fed, &pulled, &other, &bad);
    assert_true(fed_push_bytes(rpc, &bad, &other, 500, -1, &outcome) != MEED_OK);

    assert_int_equal(fed_push_bytes(rpc, &header, &bytes, 500, -1, &outcome), MEED_OK);
    assert_int_equal(outcome, MEED_PUSH_ACCEPTED);
    assert_int_equal(fed_push_bytes(rpc, &header, &bytes, 500, -1, &outcome), MEED_OK);
    assert_int_equal(outcome, MEED_PUSH_DUPLICATE);
    meed_buf_reset(&other);
    fed_encode(&fed, 0, &pulled, 0.2, &other);
    fed_header(&fed, &pulled, &other, &bad);
    assert_int_equal(fed_push_bytes(rpc, &bad, &other, 500, -1, &outcome), MEED_STATE);
    assert_non_null(strstr(meed_last_error(), "stands"));
    struct meed_runner_picture picture;
    meed_runner_picture(fed.runner, &picture);
    assert_int_equal(picture.service.verdicts[MEED_ROUND_TAKEN], 1);
    assert_int_equal(picture.service.verdicts[MEED_ROUND_DUPLICATE], 1);
    assert_int_equal(picture.service.verdicts[MEED_ROUND_CONFLICT], 1);
    assert_int_equal(picture.service.verdicts[MEED_ROUND_EARLY], 1);
    assert_int_equal(picture.service.verdicts[MEED_ROUND_MISSHAPEN], 1);
    assert_int_equal(picture.service.broken, 3);
    fed_pulled_clear(&pulled);
    meed_buf_clear(&bytes);
    meed_buf_clear(&other);
    meed_rpc_client_close(rpc);
    assert_int_equal(fed_stop(&fed, false), MEED_CANCELLED);
    fed_remove(fed.folder);
}

static void federation_resumes_a_cut_upload(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 2);
    fed_start(&fed);
    struct meed_rpc_client *rpc = fed_client(&fed, 0);
    struct fed_pulled pulled = {.adapter = NULL};
    struct meed_msg_push_header header;
    struct meed_msg_query_push_reply stored;
    enum meed_push_outcome outcome = MEED_PUSH_ACCEPTED;
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 20);
    assert_int_equal(fed_pull(&fed, rpc, 1, &pulled), MEED_OK);
    fed_encode(&fed, 0, &pulled, 0.1, &bytes);
    fed_header(&fed, &pulled, &bytes, &header);
    assert_true(bytes.size > 400);
    assert_int_equal(fed_push_bytes(rpc, &header, &bytes, 100, 300, &outcome), MEED_CANCELLED);
    assert_int_equal(fed_query(&fed, rpc, &header, &stored), MEED_OK);
    assert_int_equal(stored.stored_bytes, 300);
    assert_false(stored.complete);
    /* The server stops and starts; what was stored is there. */
    meed_rpc_client_close(rpc);
    assert_int_equal(fed_stop(&fed, false), MEED_CANCELLED);
    fed_start(&fed);
    rpc = fed_client(&fed, 0);
    assert_int_equal(fed_query(&fed, rpc, &header, &stored), MEED_OK);
    assert_int_equal(stored.stored_bytes, 300);
    header.offset = 900000;
    assert_int_equal(fed_push_bytes(rpc, &header, &bytes, 100, -1, &outcome), MEED_RPC);
    header.offset = 200; /* behind what is stored: cut back and go on */
    assert_int_equal(fed_push_bytes(rpc, &header, &bytes, 100, -1, &outcome), MEED_OK);
    assert_int_equal(fed_query(&fed, rpc, &header, &stored), MEED_OK);
    assert_true(stored.complete);
    fed_pulled_clear(&pulled);
    meed_buf_clear(&bytes);
    meed_rpc_client_close(rpc);
    assert_int_equal(fed_stop(&fed, false), MEED_CANCELLED);
    fed_remove(fed.folder);
}

static void federation_settles_at_the_deadline_and_abandons_without_quorum(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 3);
    fed.config.rounds = 2;
    fed.config.quorum = 2;
    fed.config.deadline_ms = 400;
    fed_start(&fed);
    struct meed_msg_receipt receipt;
    assert_int_equal(fed_play(&fed, 0, 1, 0.1), MEED_OK); /* alone: the round is abandoned */
    assert_int_equal(fed_play(&fed, 0, 2, 0.1), MEED_OK);
    assert_int_equal(fed_play(&fed, 1, 2, 0.1), MEED_OK);
    fed_collect(&fed, 2);
    struct meed_rpc_client *rpc = fed_client(&fed, 2);
    assert_int_equal(fed_receipt(&fed, rpc, 2, &receipt), MEED_OK);
    assert_int_equal(receipt.state, MEED_RECEIPT_ABSENT);
    assert_int_equal(fed_receipt(&fed, rpc, 1, &receipt), MEED_NOT_FOUND);
    assert_int_equal(fed_receipt(&fed, rpc, 7, &receipt), MEED_STATE);
    meed_rpc_client_close(rpc);
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    check_ledger(&fed, 4);
    fed_remove(fed.folder);
}

static void federation_knows_its_clients(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 2);
    fed.identity = true;
    fed_start(&fed);
    struct meed_rpc_client *rpc = NULL;
    int32_t next_round = 0;
    struct fed_pulled pulled = {.adapter = NULL};
    struct meed_msg_receipt receipt;
    assert_int_equal(meed_rpc_loop_client_open(fed.server, "stranger", true, &rpc), MEED_OK);
    assert_int_equal(fed_join(&fed, rpc, &next_round), MEED_DENIED);
    assert_int_equal(fed_pull(&fed, rpc, 1, &pulled), MEED_DENIED);
    assert_int_equal(fed_receipt(&fed, rpc, 1, &receipt), MEED_DENIED);
    meed_rpc_client_close(rpc);
    assert_int_equal(meed_rpc_loop_client_open(fed.server, fed.ids[0], false, &rpc), MEED_OK);
    assert_int_equal(fed_join(&fed, rpc, &next_round), MEED_UNAUTHENTICATED);
    meed_rpc_client_close(rpc);
    rpc = fed_client(&fed, 0);
    assert_int_equal(fed_join(&fed, rpc, &next_round), MEED_OK);
    fed.terms.model_hash[0] ^= 1;
    assert_int_equal(fed_join(&fed, rpc, &next_round), MEED_VERSION);
    meed_rpc_client_close(rpc);
    assert_int_equal(fed_stop(&fed, false), MEED_CANCELLED);
    fed_remove(fed.folder);
}

static void federation_refuses_another_runs_folder(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 2);
    fed_start(&fed);
    assert_int_equal(fed_stop(&fed, false), MEED_CANCELLED);
    fed.config.budget++;
    static const uint8_t hash[MEED_SHA256_BYTES] = {1, 2, 3};
    const char *ids[] = {fed.ids[0], fed.ids[1]};
    struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
    struct meed_terms_source source = {&fed_model, hash, hash, &axis, 1, ids, 2, NULL};
    assert_int_equal(meed_terms_init(&fed.config, &source, &fed.terms), MEED_OK);
    assert_int_equal(meed_registry_create(ids, 2, true, &fed.registry), MEED_OK);
    struct meed_runner_config config = {
        .terms = &fed.terms, .registry = fed.registry, .state = fed.folder, .value = fed_value};
    assert_int_equal(meed_runner_create(&config, &fed.runner), MEED_STATE);
    assert_null(fed.runner);
    meed_registry_destroy(fed.registry);
    fed_remove(fed.folder);
}

static void federation_watches(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 2);
    fed.config.rounds = 2;
    fed_start(&fed);
    struct meed_rpc_client *rpc = fed_client(&fed, 0);
    struct meed_rpc_stream *stream = NULL;
    struct meed_msg_watch_request request;
    struct meed_buf message;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_arena_init(&arena);
    snprintf(request.run_id, sizeof request.run_id, "%s", fed.terms.run_id);
    assert_int_equal(meed_codec_pack_watch_request(&request, &message), MEED_OK);
    assert_int_equal(meed_rpc_stream_open(rpc, MEED_RPC_WATCH, 60000, &stream), MEED_OK);
    assert_int_equal(meed_rpc_stream_send(stream, message.data, message.size), MEED_OK);
    assert_int_equal(meed_rpc_stream_close_send(stream), MEED_OK);
    static const struct {
        enum meed_event_kind kind;
        int32_t round;
    } expected[] = {{MEED_EVENT_ROUND_OPENED, 1},  {MEED_EVENT_ROUND_CLOSED, 1},
                    {MEED_EVENT_ROUND_SETTLED, 1}, {MEED_EVENT_ROUND_OPENED, 2},
                    {MEED_EVENT_ROUND_CLOSED, 2},  {MEED_EVENT_ROUND_SETTLED, 2},
                    {MEED_EVENT_FINISHED, 2}};
    for (size_t i = 0; i < MEED_COUNT(expected); i++) {
        enum meed_rpc_event got = MEED_RPC_END;
        struct meed_msg_watch_event event;
        meed_buf_reset(&message);
        meed_arena_reset(&arena);
        assert_int_equal(meed_rpc_stream_receive(stream, 10000, &message, &got), MEED_OK);
        assert_int_equal(got, MEED_RPC_MESSAGE);
        assert_int_equal(meed_codec_unpack_watch_event(message.data, message.size, &arena, &event),
                         MEED_OK);
        assert_int_equal(event.kind, expected[i].kind);
        assert_int_equal(event.round, expected[i].round);
        if (event.kind == MEED_EVENT_ROUND_OPENED) {
            assert_true(event.remaining_ms > 0);
            assert_int_equal(fed_play(&fed, 0, event.round, 0.1), MEED_OK);
            assert_int_equal(fed_play(&fed, 1, event.round, 0.1), MEED_OK);
        }
    }
    meed_rpc_stream_cancel(stream);
    meed_rpc_stream_destroy(stream);
    meed_rpc_client_close(rpc);
    meed_buf_clear(&message);
    meed_arena_clear(&arena);
    fed_collect(&fed, 2);
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    fed_remove(fed.folder);
}

/* ---- many ------------------------------------------------------------------------------------ */

enum { MANY = 1000, DRIVERS = 8 };

struct driver {
    struct fed *fed;
    int32_t first;
    int failures;
};

static void *drive(void *user)
{
    struct driver *driver = user;
    for (int32_t i = driver->first; i < MANY; i += DRIVERS) {
        driver->failures += fed_play(driver->fed, i, 1, 0.1) != MEED_OK;
    }
    return NULL;
}

static void federation_takes_a_thousand_clients(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, MANY);
    fed.config.rounds = 1;
    fed_start(&fed);
    int64_t start_ns = meed_clock_monotonic_ns();
    pthread_t threads[DRIVERS];
    struct driver drivers[DRIVERS];
    for (int32_t i = 0; i < DRIVERS; i++) {
        drivers[i] = (struct driver){&fed, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, drive, &drivers[i]), 0);
    }
    for (int32_t i = 0; i < DRIVERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(drivers[i].failures, 0);
    }
    fed_collect(&fed, 1);
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    print_message("%d clients, one round: %.1f s\n", MANY, meed_clock_seconds_since(start_ns));
    check_ledger(&fed, 3);
    fed_remove(fed.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(federation_runs_three_rounds),
        cmocka_unit_test(federation_does_not_see_the_order_of_arrival),
        cmocka_unit_test(federation_refuses_bad_pushes),
        cmocka_unit_test(federation_resumes_a_cut_upload),
        cmocka_unit_test(federation_settles_at_the_deadline_and_abandons_without_quorum),
        cmocka_unit_test(federation_knows_its_clients),
        cmocka_unit_test(federation_refuses_another_runs_folder),
        cmocka_unit_test(federation_watches),
        cmocka_unit_test(federation_takes_a_thousand_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
