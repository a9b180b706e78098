/* Commands that a scheduler stops.
 *
 * Goal: training that gets USR1 and then TERM, twice, as a preempted Slurm step does, ends with
 * exit code 13 and a checkpoint, and goes on to the adapter of an undisturbed run, byte for byte;
 * an aggregator tells its address in one piece and stops at USR1 with the same code. Method: the
 * binary itself on examples/tiny. */
#include "tests/loop/cli_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#define TRAIN                                                                                      \
    "train --model " TINY "/model --data " TINY "/clients/bank.jsonl --out %s/%s --steps 120 "     \
    "--rank 4 --lr 0.01 --batch-tokens 256 -q -t 1 "

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static int exit_code_of(pid_t process)
{
    int how = 0;
    for (int i = 0; i < COMMAND_TIMEOUT_MS / 10; i++) {
        if (waitpid(process, &how, WNOHANG) == process) {
            return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
        }
        usleep(10000);
    }
    kill(process, SIGKILL);
    fail_msg("process %d does not end", (int)process);
    return -1;
}

static void stop_in_training_costs_nothing(void **state)
{
    (void)state;
    char line[2048], log[SCRATCH_BYTES + 16], steps[SCRATCH_BYTES + 16], path[4096];
    size_t calm_size = 0, size = 0;
    snprintf(log, sizeof log, "%s/log", scratch);
    snprintf(steps, sizeof steps, "%s/steps", scratch);
    command_good(NULL, TRAIN, scratch, "calm");
    write_text("steps", "");
    snprintf(line, sizeof line, TRAIN "--json %s", scratch, "stopped", steps);
    pid_t process = command_start(log, line);
    command_wait_for(steps, "\"step\": 3");
    kill(process, SIGUSR1);
    kill(process, SIGTERM);
    usleep(1000);
    kill(process, SIGTERM);
    kill(process, SIGUSR1);
    assert_int_equal(exit_code_of(process), meed_status_exit_code(MEED_CANCELLED));
    assert_int_equal(access(expand("@/stopped/training.ckpt", path), F_OK), 0);
    check_absent("@/stopped/adapter_model.safetensors");
    command_good(NULL, TRAIN "--resume", scratch, "stopped");
    check_absent("@/stopped/training.ckpt");
    char *calm = scratch_read(expand("@/calm/adapter_model.safetensors", path), &calm_size);
    char *stopped = scratch_read(expand("@/stopped/adapter_model.safetensors", path), &size);
    assert_int_equal(size, calm_size);
    assert_memory_equal(stopped, calm, size);
    free(calm);
    free(stopped);
}

static void stop_of_a_server_that_told_its_address(void **state)
{
    (void)state;
    char line[2048], log[SCRATCH_BYTES + 16], path[4096], host[256], want[300];
    snprintf(log, sizeof log, "%s/serve.log", scratch);
    snprintf(line, sizeof line,
             "serve --state %s/run --model " TINY "/model --benchmark " TINY "/benchmark.jsonl "
             "--clients a,b --insecure --address-file %s/address",
             scratch, scratch);
    pid_t process = command_start(log, line);
    command_wait_for(log, "listening on port");
    char *said = scratch_read(log, NULL);
    const char *port = strstr(said, "listening on port ") + strlen("listening on port ");
    char *address = scratch_read(expand("@/address", path), NULL);
    assert_int_equal(gethostname(host, sizeof host), 0);
    snprintf(want, sizeof want, "%.250s:%d\n", host, (int)strtol(port, NULL, 10));
    assert_string_equal(address, want);
    kill(process, SIGUSR1);
    assert_int_equal(exit_code_of(process), meed_status_exit_code(MEED_CANCELLED));
    free(said);
    free(address);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_in_training_costs_nothing),
        cmocka_unit_test(stop_of_a_server_that_told_its_address),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
