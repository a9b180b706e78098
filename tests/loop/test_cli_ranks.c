/* Training shared by ranks, as processes.
 *
 * Goal: any number of ranks gives the adapter of one, byte for byte, also when a rank is killed, or
 * all are stopped, and another number goes on; a rank that dies ends the run with one sentence and
 * leaves nobody behind; what contradicts itself is refused. Method: the binary itself on
 * examples/tiny, --ranks and the variables that Slurm sets. */
#include "tests/loop/cli_fixture.h"

#include <signal.h>
#include <sys/wait.h>

/* Five micro-batches a step: two ranks and three leave one of them idle in a last round. */
#define TRAIN                                                                                      \
    "train --model " TINY "/model --data " TINY "/clients/bank.jsonl --steps 18 --rank 4 "         \
    "--lr 0.01 --batch-tokens 128 --truncate --accumulation 5 --dropout 0.1 --checkpoint-every 2 " \
    "-q "

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    command_good(NULL, TRAIN "-t 1 --out %s/one", scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static void check_same_as_one(const char *name)
{
    char path[4096], other[4096];
    size_t want_size = 0, size = 0;
    snprintf(path, sizeof path, "%s/one/adapter_model.safetensors", scratch);
    snprintf(other, sizeof other, "%s/%s/adapter_model.safetensors", scratch, name);
    char *want = scratch_read(path, &want_size);
    char *got = scratch_read(other, &size);
    assert_int_equal(size, want_size);
    assert_memory_equal(got, want, size);
    free(want);
    free(got);
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

/* The two ranks that a process of three has started. */
static void ranks_of(pid_t process, pid_t ranks[2])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)process, (int)process);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    int found = fscanf(file, "%d %d", &ranks[0], &ranks[1]);
    fclose(file);
    assert_int_equal(found, 2);
    assert_true(ranks[0] > 1 && ranks[1] > 1);
}

struct run {
    char log[128], steps[128];
    pid_t process;
};

/* Starts ranks and waits until they are past the checkpoint of step 2. */
static struct run start_run(const char *name, const char *options)
{
    struct run run;
    char line[4096], file[64];
    snprintf(run.log, sizeof run.log, "%s/%s.log", scratch, name);
    snprintf(run.steps, sizeof run.steps, "%s/%s.steps", scratch, name);
    snprintf(file, sizeof file, "%s.steps", name);
    write_text(file, "");
    snprintf(line, sizeof line, TRAIN "--out %s/%s --json %s %s", scratch, name, run.steps,
             options);
    run.process = command_start(run.log, line);
    command_wait_for(run.steps, "\"step\": 3");
    return run;
}

static void any_number_of_ranks_gives_the_same_bytes(void **state)
{
    (void)state;
    command_good(NULL, TRAIN "--out %s/two --ranks 2", scratch);
    command_good(NULL, TRAIN "--out %s/three --ranks 3", scratch);
    check_same_as_one("two");
    check_same_as_one("three");
}

static void a_killed_rank_ends_the_run_and_another_number_goes_on(void **state)
{
    (void)state;
    pid_t ranks[2];
    struct run run = start_run("killed", "--ranks 3");
    ranks_of(run.process, ranks);
    kill(ranks[1], SIGKILL);
    assert_int_equal(exit_code_of(run.process), meed_status_exit_code(MEED_RPC));
    char *said = scratch_read(run.log, NULL);
    assert_string_equal(said, "meed: the peer cannot be reached: rank 2 of 3 has gone without a "
                              "word: it was killed, or its node failed\n");
    free(said);
    assert_int_not_equal(kill(ranks[0], 0), 0);
    command_good(NULL, TRAIN "--out %s/killed --ranks 2 --resume", scratch);
    check_same_as_one("killed");
}

static void ranks_do_not_outlive_the_first(void **state)
{
    (void)state;
    pid_t ranks[2];
    struct run run = start_run("orphaned", "--ranks 3");
    ranks_of(run.process, ranks);
    kill(run.process, SIGKILL);
    assert_int_equal(exit_code_of(run.process), 128 + SIGKILL);
    for (int r = 0; r < 2; r++) {
        char path[64], state_of[8] = "R";
        snprintf(path, sizeof path, "/proc/%d/stat", (int)ranks[r]);
        for (int i = 0; i < 1000 && access(path, F_OK) == 0 && state_of[0] != 'Z'; i++) {
            FILE *file = fopen(path, "r");
            if (file && fscanf(file, "%*d (%*[^)]) %1s", state_of) != 1) {
                state_of[0] = 'Z';
            }
            if (file) {
                fclose(file);
            }
            usleep(10000);
        }
        assert_true(access(path, F_OK) != 0 || state_of[0] == 'Z');
    }
    command_good(NULL, TRAIN "--out %s/orphaned --resume", scratch);
    check_same_as_one("orphaned");
}

static void all_stop_after_the_same_step(void **state)
{
    (void)state;
    pid_t ranks[2];
    char path[4096];
    struct run run = start_run("stopped", "--ranks 3");
    ranks_of(run.process, ranks);
    kill(ranks[1], SIGUSR1); /* one of them is enough */
    assert_int_equal(exit_code_of(run.process), meed_status_exit_code(MEED_CANCELLED));
    char *said = scratch_read(run.log, NULL);
    assert_non_null(strstr(said, "meed: interrupted: stopped after step"));
    free(said);
    assert_int_equal(access(expand("@/stopped/training.ckpt", path), F_OK), 0);
    command_good(NULL, TRAIN "--out %s/stopped --ranks 5 --resume", scratch);
    check_same_as_one("stopped");
}

/* ---- Slurm's variables, without Slurm ----------------------------------------------------------
 */

static void set_task(const char *rank, const char *world)
{
    setenv("SLURM_PROCID", rank, 1);
    setenv("SLURM_LOCALID", rank, 1);
    setenv("SLURM_STEP_NUM_TASKS", world, 1);
    setenv("SLURM_STEP_NUM_NODES", "1", 1);
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_STEP_ID", "0", 1);
}

static void forget_task(void)
{
    static const char *const names[] = {"SLURM_PROCID",         "SLURM_LOCALID",
                                        "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES",
                                        "SLURM_JOB_ID",         "SLURM_STEP_ID"};
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        unsetenv(names[i]);
    }
}

static void tasks_of_slurm_meet_in_the_output_folder(void **state)
{
    (void)state;
    char line[4096], log[128];
    pid_t tasks[2];
    snprintf(line, sizeof line, TRAIN "--out %s/tasks --ranks slurm -t 1", scratch);
    for (int r = 0; r < 2; r++) {
        set_task(r == 0 ? "0" : "1", "2");
        snprintf(log, sizeof log, "%s/task%d.log", scratch, r);
        tasks[r] = command_start(log, line);
    }
    forget_task();
    assert_int_equal(exit_code_of(tasks[0]), 0);
    assert_int_equal(exit_code_of(tasks[1]), 0);
    check_absent("@/tasks/rendezvous-4711.0.0");
    check_same_as_one("tasks");
}

static void tasks_with_other_options_are_told_apart(void **state)
{
    (void)state;
    char line[4096], log[2][128];
    pid_t tasks[2];
    for (int r = 0; r < 2; r++) {
        set_task(r == 0 ? "0" : "1", "2");
        snprintf(log[r], sizeof log[r], "%s/unlike%d.log", scratch, r);
        snprintf(line, sizeof line, TRAIN "--out %s/unlike --ranks slurm -t 1 --seed %d", scratch,
                 r + 1);
        tasks[r] = command_start(log[r], line);
    }
    forget_task();
    for (int r = 0; r < 2; r++) {
        assert_int_equal(exit_code_of(tasks[r]), meed_status_exit_code(MEED_VERSION));
        char *said = scratch_read(log[r], NULL);
        assert_non_null(strstr(said, "rank 1 has not rank 0's model, start, data or options"));
        free(said);
    }
}

static void contradictions_are_refused(void **state)
{
    (void)state;
#define BASE                                                                                       \
    "train --model ~/model --data ~/clients/bank.jsonl --out @/refused -q -t 1 --batch-tokens "    \
    "256 "
    static const struct row rows[] = {
        {MEED_ARG, BASE "--ranks 2", {"2 ranks share", "raise --accumulation to 2"}, NULL},
        {MEED_ARG, BASE "--ranks 0", {"--ranks"}, NULL},
        {MEED_ARG, BASE "--ranks some", {"--ranks"}, NULL},
        {MEED_ARG, BASE "--ranks 2 --gpus 2", {"leave those two out"}, NULL},
        {MEED_ARG, BASE "--gpus 2 --device cpu", {"leave those two out"}, NULL},
        {MEED_ARG, BASE "--ranks 2 --rendezvous @", {"--rendezvous is for --ranks slurm"}, NULL},
        {MEED_ARG, BASE "--ranks slurm", {"SLURM_", "is not set; start meed with srun"}, NULL},
        {MEED_NOT_FOUND,
         "train --model @/none --data ~/clients/bank.jsonl --out @/refused -q --ranks 3",
         {"none"},
         NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/refused");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bytes),
        cmocka_unit_test(a_killed_rank_ends_the_run_and_another_number_goes_on),
        cmocka_unit_test(ranks_do_not_outlive_the_first),
        cmocka_unit_test(all_stop_after_the_same_step),
        cmocka_unit_test(tasks_of_slurm_meet_in_the_output_folder),
        cmocka_unit_test(tasks_with_other_options_are_told_apart),
        cmocka_unit_test(contradictions_are_refused),
    };
    forget_task();
    return cmocka_run_group_tests(tests, setup, teardown);
}
