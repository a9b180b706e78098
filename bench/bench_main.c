/* meed_bench: which suites to run, how many threads, where the JSON goes. `bench/run` calls it and
 * then, where Python has PyTorch, the peers on the same shapes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/parse.h"
#include "bench/harness.h"

static const struct {
    const char *name;
    enum meed_status (*run)(struct meed_bench_machine *machine);
    bool host; /* measures the host whatever the device */
} suites[] = {
    {"kernels", meed_suite_kernels, false},
    {"lora", meed_suite_lora, false},
    {"train", meed_suite_train, false},
    {"coalitions", meed_suite_coalitions, false},
    {"values", meed_suite_values, false},
    {"stack", meed_suite_stack, false},
    {"planner", meed_suite_planner, false},
    {"generate", meed_suite_generate, false},
    {"synthesis", meed_suite_synthesis, false},
    {"codec", meed_suite_codec, true},
    {"rpc", meed_suite_rpc, true},
    {"ranks", meed_suite_ranks, true},
};

static enum meed_status run(int argc, char **argv)
{
    int64_t threads = 2;
    const char *json = NULL;
    const char *wanted = "all";
    const char *device = "cpu";
    struct meed_bench_machine machine = {.be = NULL};
    enum meed_status st = MEED_OK;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            MEED_TRY(meed_parse_i64("--threads", argv[++i], 1, 256, &threads));
        } else if (strcmp(argv[i], "--smoke") == 0) {
            machine.smoke = true;
        } else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
            device = argv[++i];
        } else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
            json = argv[++i];
        } else {
            wanted = argv[i];
        }
    }
    bool found = false;
    MEED_TRY_OUT(meed_bench_machine_open(device, (int)threads, &machine));
    for (size_t i = 0; i < MEED_COUNT(suites); i++) {
        if (strcmp(wanted, "all") == 0 || strcmp(wanted, suites[i].name) == 0 ||
            (strcmp(wanted, "all-device") == 0 && !suites[i].host)) {
            found = true;
            MEED_TRY_OUT(suites[i].run(&machine));
        }
    }
    if (!found) {
        st = MEED_FAIL(
            MEED_ARG,
            "no suite \"%.32s\": kernels, lora, train, coalitions, values, stack, planner, "
            "generate, synthesis, codec, rpc, ranks, all, all-device",
            wanted);
    } else if (json) {
        st = meed_bench_write_json(json, machine.be->name);
    }
out:
    meed_bench_machine_close(&machine);
    return st;
}

int main(int argc, char **argv)
{
    enum meed_status status = run(argc, argv);
    if (status != MEED_OK) {
        fprintf(stderr, "meed_bench: %s: %s\n", meed_status_sentence(status), meed_last_error());
    }
    exit(meed_status_exit_code(status));
}
