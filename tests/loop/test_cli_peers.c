/* Bad input that shows while something runs: peers, ports, keys and disks.
 *
 * Goal and rows as in test_cli_errors.c: one sentence, the documented code, nothing lost. Method:
 * real aggregators and clients on loopback, an occupied port, keys of two federations, and
 * RLIMIT_FSIZE in place of a full disk.
 */
#include "tests/loop/cli_fixture.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    write_text("data.jsonl", "{\"text\": \"a good line\"}\n{\"messages\": [\n");
    write_text("good.json", "[1, 2, 3]");
    model_without("other", "model.safetensors");
    size_t size = 0;
    char *bytes = tiny_read("model/model.safetensors", &size);
    bytes[size - 1000] ^= 1;
    scratch_write(scratch, "other/model.safetensors", bytes, size);
    free(bytes);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

/* A client that cannot go on ends `meed up` with its own sentence and code, at once. */
static void errors_client_gives_up(void **state)
{
    (void)state;
    char *text = tiny_read("federation.yaml", NULL);
    *strstr(text, "clients:") = '\0';
    char *models = replaced(text, "model: model", "model: " TINY "/model");
    char *benchmarks = replaced(models, "benchmark: ", "benchmark: " TINY "/");
    char file[8192];
    snprintf(file, sizeof file,
             "%sclients:\n  - {id: bank, data: " TINY "/clients/bank.jsonl}\n"
             "  - {id: broken, data: data.jsonl}\n",
             benchmarks);
    write_text("gives_up.yaml", file);
    check_row(&(struct row){MEED_FORMAT,
                            "up @/gives_up.yaml --state @/gives_up -q",
                            {"client broken gave up", "@/data.jsonl:2: "},
                            NULL});
    char *devices = replaced(file, "data.jsonl}", "data.jsonl, device: 'cuda:1023'}");
    write_text("no_device.yaml", devices);
    check_row(&(struct row){MEED_DEVICE,
                            "up @/no_device.yaml --state @/no_device -q",
                            {"client broken gave up"},
                            NULL});
    char *everywhere = replaced(file, "clients:", "device: cuda:1023\nclients:");
    write_text("no_devices.yaml", everywhere);
    check_row(&(struct row){
        MEED_DEVICE, "up @/no_devices.yaml --state @/no_devices -q", {"cuda"}, NULL});
    free(everywhere);
    free(devices);
    free(benchmarks);
    free(models);
    free(text);
}

/* A socket that listens on a port of its own. */
static int occupy(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void errors_port_in_use(void **state)
{
    (void)state;
    int port = 0;
    int fd = occupy(&port);
    char line[512], where[64], listen_line[128];
    snprintf(where, sizeof where, "127.0.0.1:%d", port);
    snprintf(line, sizeof line,
             "serve --state @/port --model ~/model --benchmark ~/benchmark.jsonl --clients a "
             "--insecure --listen %s",
             where);
    check_row(&(struct row){MEED_IO, line, {where, "taken", "another port"}, NULL});
    snprintf(listen_line, sizeof listen_line, "listen: %s\nrounds: 3", where);
    change_federation("port.yaml", "rounds: 3", listen_line);
    char data[256];
    snprintf(data, sizeof data, "%s/clients", scratch);
    assert_int_equal(symlink(TINY "/clients", data), 0);
    check_row(&(struct row){MEED_IO, "up @/port.yaml --state @/port_up", {where, "taken"}, NULL});
    close(fd);
}

static void errors_provision(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {MEED_CONFIG, "provision @/pki --server localhost --clients a/b", {"a/b", "a-z"}, NULL},
        {MEED_CONFIG, "provision @/pki --server localhost --clients a,a", {"twice"}, NULL},
        {MEED_ARG, "provision @/pki --server localhost --clients a,,b", {"a,,b"}, NULL},
        {MEED_ARG, "provision @/pki --server local/host --clients a", {"local/host"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/pki");
    command_good(NULL, "provision %s/pki --server 127.0.0.1 --clients a,b", scratch);
    char path[512];
    snprintf(path, sizeof path, "%s/pki/ca.pem", scratch);
    char *before = scratch_read(path, NULL);
    check_row(&(struct row){MEED_STATE,
                            "provision @/pki --server localhost --clients a",
                            {"@/pki/ca.pem", "another folder"},
                            NULL});
    char *after = scratch_read(path, NULL);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

#define DIAL "join --server 127.0.0.1:PORT --data ~/clients/bank.jsonl --state @/join --threads 1 "
#define PAIR(pki, name)                                                                            \
    "--tls-cert @/" pki "/client-" name ".pem --tls-key @/" pki "/client-" name ".key "

static const struct row identity_rows[] = {
    {MEED_ARG, DIAL "--id a --model ~/model", {"--tls-ca", "meed provision"}, NULL},
    {MEED_ARG,
     DIAL "--id a --model ~/model --insecure --tls-ca @/pki/ca.pem",
     {"--insecure", "exclude"},
     NULL},
    {MEED_NOT_FOUND,
     DIAL "--id a --model ~/model --tls-ca @/pki/ca.pem " PAIR("pki", "nobody"),
     {"cannot open @/pki/client-nobody.pem"},
     NULL},
    {MEED_CONFIG,
     DIAL "--id a --model ~/model --tls-ca ~/benchmark.jsonl " PAIR("pki", "a"),
     {"~/benchmark.jsonl", "PEM", "meed provision"},
     NULL},
    {MEED_CONFIG,
     DIAL "--id a --model ~/model --tls-ca @/pki/ca.pem --tls-cert @/pki/client-a.pem "
          "--tls-key @/pki/client-b.key",
     {"@/pki/client-b.key is not the key of @/pki/client-a.pem"},
     NULL},
    {MEED_UNAUTHENTICATED,
     DIAL "--id a --model ~/model --tls-ca @/pki/ca.pem " PAIR("foreign", "a"),
     {"@/foreign/client-a.pem", "@/pki/ca.pem", "operator"},
     NULL},
    {MEED_UNAUTHENTICATED,
     DIAL "--id a --model ~/model --tls-ca @/foreign/ca.pem " PAIR("foreign", "a"),
     {"127.0.0.1:PORT", "authority", "meed provision"},
     NULL},
    {MEED_DENIED,
     DIAL "--id b --model ~/model --tls-ca @/pki/ca.pem " PAIR("pki", "a"),
     {"\"a\"", "\"b\"", "certificate"},
     NULL},
    {MEED_VERSION,
     DIAL "--id a --model @/other --tls-ca @/pki/ca.pem " PAIR("pki", "a"),
     {"another base model", "folder"},
     NULL},
};

/* Needs the folder of errors_provision. */
static void errors_identity(void **state)
{
    (void)state;
    char log[4096], line[4096], serve[4096], port[16];
    command_good(NULL, "provision %s/foreign --server 127.0.0.1 --clients a", scratch);
    check_row(&(struct row){MEED_CONFIG,
                            "serve --state @/serve --model ~/model --benchmark ~/benchmark.jsonl "
                            "--roster @/pki/roster.json --tls-ca @/pki/ca.pem --tls-cert "
                            "@/pki/server.pem --tls-key @/foreign/server.key",
                            {"@/foreign/server.key is not the key of @/pki/server.pem"},
                            NULL});
    check_absent("@/serve");
    expand("@/serve.log", log);
    pid_t server = command_start(
        log, expand("serve --state @/serve --model ~/model --benchmark ~/benchmark.jsonl --roster "
                    "@/pki/roster.json --tls-ca @/pki/ca.pem --tls-cert @/pki/server.pem --tls-key "
                    "@/pki/server.key --threads 1",
                    serve));
    command_wait_for(log, "listening on port ");
    char *text = scratch_read(log, NULL);
    const char *number = strstr(text, "listening on port ") + strlen("listening on port ");
    snprintf(port, sizeof port, "%.*s", (int)strspn(number, "0123456789"), number);
    free(text);
    for (size_t i = 0; i < MEED_COUNT(identity_rows); i++) {
        struct row row = identity_rows[i];
        char *made = replaced(row.line, "PORT", port);
        row.line = made;
        snprintf(line, sizeof line, "127.0.0.1:%s", port);
        row.says[0] = strcmp(row.says[0], "127.0.0.1:PORT") == 0 ? line : row.says[0];
        check_row(&row);
        free(made);
    }
    assert_int_equal(command_stop(server), meed_status_exit_code(MEED_CANCELLED));
}

/* ---- outputs ------------------------------------------------------------------------------------
 */

/* A disk that takes no more than so many bytes of a file, for the processes started meanwhile. */
static void disk_limit(rlim_t bytes, struct rlimit *kept)
{
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, kept), 0);
    struct rlimit tight = {bytes, kept->rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
}

/* The disk is full: the sentence names the file, and what was there before stands. */
static void errors_full_disk(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {MEED_IO,
         "train --model ~/model --data ~/clients/bank.jsonl --out @/kept --steps 1 --rank 8 "
         "--batch-tokens 256 --threads 1 -q",
         {"@/kept/adapter_model.safetensors"},
         NULL},
        {MEED_IO, "logits --model ~/model --ids @/good.json --out @/kept.st", {"@/kept.st"}, NULL},
        {MEED_IO,
         "serve --state @/full --model ~/model --benchmark ~/benchmark.jsonl --clients a "
         "--insecure",
         {"@/full"},
         NULL},
    };
    struct rlimit kept;
    char path[512];
    size_t size[2], again = 0;
    command_good(NULL,
                 "train --model " TINY "/model --data " TINY "/clients/bank.jsonl --out %s/kept "
                 "--steps 1 --rank 4 --batch-tokens 256 --threads 1 -q",
                 scratch);
    write_text("kept.st", "what was there before");
    snprintf(path, sizeof path, "%s/kept/adapter_model.safetensors", scratch);
    char *before = scratch_read(path, &size[0]);
    disk_limit(4096, &kept);
    check_rows(rows, MEED_COUNT(rows));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    char *after = scratch_read(path, &again);
    assert_int_equal(size[0], again);
    assert_memory_equal(before, after, again);
    free(after);
    snprintf(path, sizeof path, "%s/kept.st", scratch);
    after = scratch_read(path, &size[1]);
    assert_string_equal(after, "what was there before");
    free(before);
    free(after);
    check_row(&(struct row){MEED_IO, /* a stream, not a file */
                            "train --model ~/model --data ~/clients/bank.jsonl --out @/noted "
                            "--steps 1 --batch-tokens 256 --threads 1 -q --json /dev/full",
                            {"/dev/full", "No space"},
                            NULL});
    check_row(&(struct row){MEED_NOT_FOUND,
                            "eval --model ~/model --benchmark ~/benchmark.jsonl -q --json "
                            "@/nowhere/out.json",
                            {"@/nowhere/out.json"},
                            NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_client_gives_up), cmocka_unit_test(errors_port_in_use),
        cmocka_unit_test(errors_provision),       cmocka_unit_test(errors_identity),
        cmocka_unit_test(errors_full_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
