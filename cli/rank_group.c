/* See rank_group.h. */
#include "cli/rank_group.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/parse.h"

enum {
    MEET_HERE_MS = 60000,
    MEET_NODES_MS = 300000, /* nodes start apart, and a shared folder may show a file late */
    END_MS = 20000,
    END_AFTER_FAILURE_MS = 2000, /* rank 0 alone writes: nothing is lost with the others */
};

/* ---- where a rank computes --------------------------------------------------------------------
 */

/* "cuda" becomes the local-th of the devices that this process may see; other words stand. */
static enum meed_status choose_device(const char *device, int32_t local,
                                      struct meed_rank_group *group)
{
    if (!device || strcmp(device, "cuda") != 0) {
        snprintf(group->device, sizeof group->device, "%s", device ? device : "cpu");
        return MEED_OK;
    }
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    bool own = visible && *visible && !strchr(visible, ','); /* srun --gpus-per-task */
    snprintf(group->device, sizeof group->device, "cuda:%d", own ? 0 : local);
    return MEED_OK;
}

/* Ranks of one machine share its cores instead of each taking all. */
static int threads_of(int asked, int32_t world)
{
    cpu_set_t allowed;
    if (asked > 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return asked;
    }
    return MEED_MAX(CPU_COUNT(&allowed) / world, 1);
}

/* ---- ranks of this machine ---------------------------------------------------------------------
 */

/* One sentence is enough, and it is rank 0's. */
static void hush(void)
{
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0) {
        dup2(nowhere, STDERR_FILENO);
        close(nowhere);
    }
}

static enum meed_status fork_ranks(struct meed_rank_group *group)
{
    fflush(NULL);
    for (int32_t rank = 1; rank < group->world; rank++) {
        pid_t child = fork();
        if (child < 0) {
            return MEED_FAIL(MEED_IO, "cannot start rank %d of %d: %s", rank, group->world,
                             strerror(errno));
        }
        if (child == 0) {
            memset(group->children, 0, sizeof group->children);
            group->rank = rank;
            hush();
            return MEED_OK;
        }
        group->children[rank] = child;
    }
    return MEED_OK;
}

static enum meed_status open_here(const struct meed_rank_options *options,
                                  struct meed_rank_group *group)
{
    char folder[] = "/tmp/meed-ranks.XXXXXX", key[MEED_RENDEZVOUS_KEY_BYTES];
    if (!mkdtemp(folder)) {
        return MEED_FAIL(MEED_IO, "no folder in /tmp for the ranks to meet: %s", strerror(errno));
    }
    snprintf(key, sizeof key, "%ld", (long)getpid());
    MEED_TRY(fork_ranks(group));
    MEED_TRY(choose_device(options->device, group->rank, group));
    group->threads = threads_of(options->threads, group->world);
    struct meed_rendezvous place = {.rank = group->rank,
                                    .world = group->world,
                                    .folder = folder,
                                    .key = key,
                                    .one_machine = true,
                                    .patience_ms = MEET_HERE_MS};
    enum meed_status st = meed_collective_open(&place, &group->collective);
    if (group->rank == 0) {
        rmdir(folder); /* its file went when all had come, or did not */
    }
    return st;
}

/* ---- tasks of Slurm ----------------------------------------------------------------------------
 */

static enum meed_status slurm_number(const char *name, int64_t absent, int64_t max, int64_t *value)
{
    const char *text = getenv(name);
    if (text) {
        return meed_parse_i64(name, text, 0, max, value);
    }
    if (absent < 0) {
        return MEED_FAIL(MEED_ARG, "--ranks slurm: %s is not set; start meed with srun", name);
    }
    *value = absent;
    return MEED_OK;
}

static enum meed_status open_slurm(const struct meed_rank_options *options,
                                   struct meed_rank_group *group)
{
    const int64_t most = MEED_RENDEZVOUS_MAX_RANKS, any = INT64_MAX;
    int64_t rank, world, local, job, step, restarts, nodes;
    char key[MEED_RENDEZVOUS_KEY_BYTES];
    MEED_TRY(slurm_number("SLURM_PROCID", -1, most - 1, &rank));
    MEED_TRY(slurm_number("SLURM_STEP_NUM_TASKS", -1, most, &world));
    MEED_TRY(slurm_number("SLURM_LOCALID", -1, most - 1, &local));
    MEED_TRY(slurm_number("SLURM_JOB_ID", -1, any, &job));
    MEED_TRY(slurm_number("SLURM_STEP_ID", -1, any, &step));
    MEED_TRY(slurm_number("SLURM_RESTART_COUNT", 0, any, &restarts));
    MEED_TRY(slurm_number("SLURM_STEP_NUM_NODES", most, any, &nodes));
    MEED_TRY(choose_device(options->device, (int32_t)local, group));
    group->rank = (int32_t)rank;
    group->world = (int32_t)world;
    if (world == 1) {
        return MEED_OK;
    }
    snprintf(key, sizeof key, "%lld.%lld.%lld", (long long)job, (long long)step,
             (long long)restarts);
    struct meed_rendezvous place = {.rank = group->rank,
                                    .world = group->world,
                                    .folder =
                                        options->rendezvous ? options->rendezvous : options->out,
                                    .key = key,
                                    .one_machine = nodes == 1,
                                    .patience_ms = MEET_NODES_MS};
    return meed_collective_open(&place, &group->collective);
}

/* ---- both
 * ---------------------------------------------------------------------------------------- */

enum meed_status meed_rank_group_open(const struct meed_rank_options *options,
                                      struct meed_rank_group *group)
{
    struct meed_rank_options wanted = *options;
    int64_t world = 1;
    *group = (struct meed_rank_group){.world = 1, .threads = options->threads};
    bool slurm = options->ranks && strcmp(options->ranks, "slurm") == 0;
    if (options->gpus > 0) {
        if (options->ranks || options->device) {
            return MEED_FAIL(MEED_ARG, "--gpus N is --ranks N --device cuda; leave those two out");
        }
        wanted.device = "cuda";
        world = options->gpus;
    } else if (options->ranks && !slurm) {
        MEED_TRY(meed_parse_i64("--ranks", options->ranks, 1, MEED_RENDEZVOUS_MAX_RANKS, &world));
    }
    if (options->rendezvous && !slurm) {
        return MEED_FAIL(MEED_ARG, "--rendezvous is for --ranks slurm; ranks of one machine need "
                                   "no folder");
    }
    if (slurm) {
        return open_slurm(&wanted, group);
    }
    group->world = (int32_t)world;
    if (world > 1) {
        return open_here(&wanted, group);
    }
    snprintf(group->device, sizeof group->device, "%s", wanted.device ? wanted.device : "cpu");
    return MEED_OK;
}

/* waitpid with a limit, after which the process is killed; its exit code, or 128 + signal. */
static int wait_for(pid_t child, int64_t patience_ms)
{
    int how = 0;
    int64_t start_ns = meed_clock_monotonic_ns();
    while (waitpid(child, &how, WNOHANG) == 0) {
        if ((meed_clock_monotonic_ns() - start_ns) / 1000000 > patience_ms) {
            kill(child, SIGKILL);
        }
        meed_clock_sleep_ms(2);
    }
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

enum meed_status meed_rank_group_close(struct meed_rank_group *group, enum meed_status st)
{
    for (int32_t rank = 1; rank < group->world; rank++) {
        int64_t patience_ms = st == MEED_OK ? END_MS : END_AFTER_FAILURE_MS;
        pid_t child = group->children[rank];
        int code = child > 0 ? wait_for(child, patience_ms) : 0;
        if (code != 0 && st == MEED_OK) {
            st = MEED_FAIL(MEED_RPC, "rank %d of %d ended with exit code %d", rank, group->world,
                           code);
        }
    }
    return st;
}
