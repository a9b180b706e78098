/* Pushes of 64 MB, hashed chunk by chunk and synced before the reply, over mutual TLS on loopback.
 *
 * The measuring is done by the program that also tests the push (tests/loop/test_rpc_push.c, run as
 * a meter): it owns the certificates and forks the server before anything of gRPC starts, so that
 * the server's memory is its own. It counts stored pushes; a push that is not stored whole with the
 * right hash is not counted, and then nothing is reported here.
 */
#include <stdio.h>
#include "bench/harness.h"

struct meter {
    int pushes;
    double rate;     /* MB/s over all clients */
    double added_mb; /* peak of the server over its start */
};

static enum meed_status meter_run(int clients, struct meter *meter)
{
    char command[256];
    char line[256];
    int stored = 0;
    int wanted = 0;
    long peak = 0;
    long before = 0;
    double seconds = 0;
    snprintf(command, sizeof command, "%s/tests/loop_test_rpc_push %d 64", MEED_BINARY_DIR,
             clients);
    FILE *pipe = popen(command, "r");
    if (!pipe) {
        return MEED_FAIL(MEED_IO, "cannot run %s", command);
    }
    *meter = (struct meter){0};
    while (fgets(line, sizeof line, pipe)) {
        if (sscanf(line, "server: %d of %d stored; peak memory %ld MB, before %ld MB", &stored,
                   &wanted, &peak, &before) == 4) {
            meter->added_mb = (double)(peak - before);
        }
        sscanf(line, "%d pushes in %lf s: %lf MB/s", &meter->pushes, &seconds, &meter->rate);
    }
    pclose(pipe);
    if (stored != clients || meter->pushes != clients) {
        return MEED_FAIL(MEED_INTEGRITY, "%d of %d pushes were stored", stored, clients);
    }
    return MEED_OK;
}

enum meed_status meed_suite_rpc(struct meed_bench_machine *machine)
{
    struct meter meter;
    (void)machine;
    meed_bench_heading("rpc", "pushes of 64 MB, hashed and durable, mutual TLS on loopback");
    MEED_TRY(meter_run(1, &meter)); /* warms the page cache */
    MEED_TRY(meter_run(1, &meter));
    meed_bench_row("rpc", "one push", meter.rate, "MB/s", 300, '>');
    MEED_TRY(meter_run(50, &meter));
    meed_bench_row("rpc", "fifty at once, together", meter.rate, "MB/s", 0, '>');
    meed_bench_row("rpc", "fifty at once, memory added to the server", meter.added_mb, "MB", 200,
                   '<');
    return MEED_OK;
}
