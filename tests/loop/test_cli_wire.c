/* Updates that our own client never sends, against the real aggregator.
 *
 * Goal: oversize, NaN, mis-shaped, stale, duplicate and out-of-order updates are answered with the
 * documented gRPC status and one sentence, cost nobody anything, and the right update still counts;
 * a real client that is killed while it pushes comes back and counts. Method: `meed serve` as a
 * process, a client of federation_fixture.h that lies to it over gRPC, then `meed join`. The
 * same judgements in one process: test_federation.c; byte by byte: unit/test_update.c.
 */
#include "tests/loop/cli_fixture.h"
#include "tests/loop/federation_fixture.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <jansson.h>

static struct fed fed;
static pid_t server;
static char target[64], server_log[4096];

#define SERVE "serve --config @/wire.yaml --state @/wire --insecure --threads 1 --linger 1s"

static void make_federation(void)
{
    char *text = tiny_read("federation.yaml", NULL);
    *strstr(text, "clients:") = '\0';
    static const char *const changes[][2] = {{"model: model", "model: " TINY "/model"},
                                             {"benchmark: ", "benchmark: " TINY "/"},
                                             {"rounds: 3", "rounds: 2"},
                                             {"  steps: 24", "  steps: 1"},
                                             {"values: int8", "values: f32"},
                                             {"zstd: 3", "zstd: 0"},
                                             {"rank: 16", "rank: 4"}};
    for (size_t i = 0; i < MEED_COUNT(changes); i++) {
        char *changed = replaced(text, changes[i][0], changes[i][1]);
        free(text);
        text = changed;
    }
    char file[8192];
    snprintf(file, sizeof file,
             "%sclients:\n  - {id: bank, data: " TINY "/clients/bank.jsonl}\n"
             "  - {id: clinic, data: " TINY "/clients/clinic.jsonl}\n",
             text);
    write_text("wire.yaml", file);
    free(text);
}

static void learn_run(void)
{
    struct command_result shown;
    command_good(&shown, "ledger show %s/wire --json", scratch);
    json_t *root = json_loads(shown.out, 0, NULL);
    const json_t *genesis = json_array_get(json_object_get(root, "ledger"), 0);
    const char *run = json_string_value(json_object_get(json_object_get(genesis, "body"), "run"));
    assert_non_null(run);
    snprintf(fed.terms.run_id, sizeof fed.terms.run_id, "%s", run);
    json_decref(root);
    command_clear(&shown);
}

static int setup(void **state)
{
    (void)state;
    char line[4096];
    scratch_make(scratch);
    make_federation();
    snprintf(fed.ids[0], sizeof fed.ids[0], "bank");
    snprintf(fed.ids[1], sizeof fed.ids[1], "clinic");
    assert_int_equal(meed_model_config_load(TINY "/model", &fed.terms.model), MEED_OK);
    server = command_start(expand("@/serve.log", server_log), expand(SERVE, line));
    command_wait_for(server_log, "listening on port ");
    char *text = scratch_read(server_log, NULL);
    const char *number = strstr(text, "listening on port ") + strlen("listening on port ");
    snprintf(target, sizeof target, "127.0.0.1:%.*s", (int)strspn(number, "0123456789"), number);
    free(text);
    learn_run();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static void refused(struct meed_rpc_client *rpc, const char *what,
                    const struct meed_msg_push_header *header, const struct meed_buf *bytes,
                    enum meed_status want, const char *says)
{
    enum meed_push_outcome outcome = MEED_PUSH_ACCEPTED;
    enum meed_status st = fed_push_bytes(rpc, header, bytes, 1 << 16, -1, &outcome);
    print_message("%s\n  gRPC %d %s: %s\n", what, meed_status_grpc_code(st), meed_status_name(st),
                  meed_last_error());
    if (st != want || !strstr(meed_last_error(), says)) {
        fail_msg("%s: expected %s with \"%s\"", what, meed_status_name(want), says);
    }
}

/* The update with its last value made NaN and its trailer right again. */
static void make_nan(struct meed_buf *bytes)
{
    const float bad = NAN;
    size_t end = bytes->size - MEED_SHA256_BYTES;
    memcpy(bytes->data + end - sizeof bad, &bad, sizeof bad);
    meed_sha256(bytes->data, end, (uint8_t *)bytes->data + end);
}

/* The same tensors with another rank. */
static void encode_misshapen(const struct fed_pulled *pulled, struct meed_buf *bytes)
{
    struct fed_pulled other = *pulled;
    struct meed_lora_config lora = {.rank = 2, .alpha = 4.0f, .targets = MEED_PROJ_ALL};
    other.plan.rank = lora.rank;
    assert_int_equal(meed_adapter_create(&fed.terms.model, &lora, &other.adapter), MEED_OK);
    fed_encode(&fed, 0, &other, 0.001, bytes);
    meed_adapter_destroy(other.adapter);
}

static void check_contents(struct meed_rpc_client *rpc, const struct fed_pulled *pulled)
{
    struct meed_msg_push_header header;
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 24);
    fed_encode(&fed, 0, pulled, 0.001, &bytes);
    make_nan(&bytes);
    fed_header(&fed, pulled, &bytes, &header);
    refused(rpc, "NaN", &header, &bytes, MEED_NUMERIC, "NaN");
    meed_buf_reset(&bytes);
    encode_misshapen(pulled, &bytes);
    fed_header(&fed, pulled, &bytes, &header);
    refused(rpc, "mis-shaped", &header, &bytes, MEED_FORMAT, "shape");
    meed_buf_reset(&bytes);
    fed_encode(&fed, 1, pulled, 0.001, &bytes);
    fed_header(&fed, pulled, &bytes, &header);
    refused(rpc, "another client's", &header, &bytes, MEED_DENIED, "clinic");
    meed_buf_clear(&bytes);
}

/* The first one stands: the same again is told so, another one is refused. */
static void check_duplicates(struct meed_rpc_client *rpc, const struct fed_pulled *pulled,
                             struct meed_buf *bytes)
{
    struct meed_msg_push_header header;
    enum meed_push_outcome outcome = MEED_PUSH_DUPLICATE;
    fed_header(&fed, pulled, bytes, &header);
    assert_int_equal(fed_push_bytes(rpc, &header, bytes, 1 << 16, -1, &outcome), MEED_OK);
    assert_int_equal(outcome, MEED_PUSH_ACCEPTED);
    assert_int_equal(fed_push_bytes(rpc, &header, bytes, 1 << 16, -1, &outcome), MEED_OK);
    assert_int_equal(outcome, MEED_PUSH_DUPLICATE);
    meed_buf_reset(bytes);
    fed_encode(&fed, 0, pulled, 0.002, bytes);
    fed_header(&fed, pulled, bytes, &header);
    refused(rpc, "a second one", &header, bytes, MEED_STATE, "stands");
}

static void wire_refuses_bad_updates(void **state)
{
    (void)state;
    struct meed_rpc_client *rpc = NULL;
    struct meed_rpc_client_options options = {
        .target = target, .insecure = true, .client_id = "bank"};
    struct fed_pulled pulled = {.adapter = NULL};
    struct meed_msg_push_header header, bad;
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 24);
    assert_int_equal(meed_rpc_grpc_client_open(&options, &rpc), MEED_OK);
    assert_int_equal(fed_pull(&fed, rpc, 1, &pulled), MEED_OK);
    fed_encode(&fed, 0, &pulled, 0.001, &bytes);
    fed_header(&fed, &pulled, &bytes, &header);
    bad = header;
    bad.total_bytes = 1 << 30;
    refused(rpc, "oversize", &bad, &bytes, MEED_FORMAT, "");
    bad = header;
    bad.round = 2;
    refused(rpc, "out of order: a round ahead", &bad, &bytes, MEED_STATE, "round");
    bad = header;
    bad.offset = (int64_t)bytes.size - 100;
    refused(rpc, "out of order: the tail first", &bad, &bytes, MEED_RPC, "stored");
    bad = header;
    bad.base_adapter_hash[0] ^= 1;
    refused(rpc, "stale: from another adapter", &bad, &bytes, MEED_VERSION, "pull again");
    bad = header;
    bad.sha256[0] ^= 1;
    refused(rpc, "not the announced bytes", &bad, &bytes, MEED_INTEGRITY, "");
    check_contents(rpc, &pulled);
    check_duplicates(rpc, &pulled, &bytes);
    meed_buf_clear(&bytes);
    fed_pulled_clear(&pulled);
    meed_rpc_client_close(rpc);
}

/* ---- a death in mid-push ----------------------------------------------------------------------
 */

#define JOIN                                                                                       \
    "join --server %s --id %s --model ~/model --data ~/clients/%s.jsonl --state @/%s --insecure "  \
    "--threads 1"

static pid_t join(const char *id)
{
    char format[1024], line[4096], log[4096], name[64];
    snprintf(format, sizeof format, JOIN, target, id, id, id);
    snprintf(name, sizeof name, "@/%s.log", id);
    return command_start(expand(name, log), expand(format, line));
}

/* update.bin stands before the first byte goes out: who dies then dies around its push. */
static void kill_while_pushing(pid_t client)
{
    char path[4096];
    expand("@/clinic/round-000001/update.bin", path);
    for (int i = 0; i < COMMAND_TIMEOUT_MS && access(path, F_OK) != 0; i++) {
        meed_clock_sleep_ms(1);
    }
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(kill(client, SIGKILL), 0);
    assert_int_equal(waitpid(client, NULL, 0), client);
}

static int end_of(pid_t process)
{
    int how = 0;
    for (int i = 0; i < COMMAND_TIMEOUT_MS / 10; i++) {
        if (waitpid(process, &how, WNOHANG) == process) {
            return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
        }
        meed_clock_sleep_ms(10);
    }
    kill(process, SIGKILL);
    return -1;
}

/* Round 2 as the lying client: what was meant for round 1 is stale now, what is right counts. */
static void play_second_round(void)
{
    struct meed_rpc_client *rpc = NULL;
    struct meed_rpc_client_options options = {
        .target = target, .insecure = true, .client_id = "bank"};
    struct fed_pulled pulled = {.adapter = NULL};
    struct meed_msg_push_header header, stale;
    enum meed_push_outcome outcome = MEED_PUSH_DUPLICATE;
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 24);
    command_wait_for(server_log, "round 2 of 2 is open");
    assert_int_equal(meed_rpc_grpc_client_open(&options, &rpc), MEED_OK);
    assert_int_equal(fed_pull(&fed, rpc, 2, &pulled), MEED_OK);
    fed_encode(&fed, 0, &pulled, 0.001, &bytes);
    fed_header(&fed, &pulled, &bytes, &header);
    stale = header;
    stale.round = 1;
    refused(rpc, "stale: a round behind", &stale, &bytes, MEED_STATE, "round 1");
    assert_int_equal(fed_push_bytes(rpc, &header, &bytes, 1 << 16, -1, &outcome), MEED_OK);
    assert_int_equal(outcome, MEED_PUSH_ACCEPTED);
    meed_buf_clear(&bytes);
    fed_pulled_clear(&pulled);
    meed_rpc_client_close(rpc);
}

/* After all the refusals: the killed client comes back, both count, the ledger is right. */
static void wire_takes_a_killed_client_back(void **state)
{
    (void)state;
    struct command_result shown;
    kill_while_pushing(join("clinic"));
    pid_t clinic = join("clinic");
    play_second_round();
    assert_int_equal(end_of(clinic), 0);
    assert_int_equal(end_of(server), 0);
    command_good(&shown, "ledger show %s/wire", scratch);
    assert_non_null(strstr(shown.out, "4 entries, hashes, signatures and sums are right"));
    assert_non_null(strstr(shown.out, "bank"));
    assert_non_null(strstr(shown.out, "clinic"));
    assert_null(strstr(shown.out, "absent"));
    command_clear(&shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wire_refuses_bad_updates),
        cmocka_unit_test(wire_takes_a_killed_client_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
