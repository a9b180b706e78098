/* The processes that share one training: started here, or by Slurm.
 *
 * --ranks N   forks N − 1 times before anything else exists (no thread, no device): the caller is
 *             rank 0, and the only one whose words and files a person sees. The ranks meet on
 *             loopback, in a private folder that is gone afterwards.
 * --gpus N    the same with a device each.
 * --ranks slurm
 *             this process is one task of a step of srun; who it is stands in Slurm's variables
 *             (SLURM_PROCID of SLURM_STEP_NUM_TASKS, SLURM_LOCALID for the device). It is a word
 * and not a guess, because a process inside an allocation need not want to be a rank.
 *
 * A rank that fails ends the others with its sentence and its exit code.
 */
#ifndef MEED_CLI_RANK_GROUP_H
#define MEED_CLI_RANK_GROUP_H

#include <sys/types.h>
#include "kernels/collective.h"

struct meed_rank_options { /* as given; NULL or 0 where not */
    const char *ranks, *rendezvous, *device, *out;
    int64_t gpus;
    int threads;
};

struct meed_rank_group {
    int32_t rank, world;
    struct meed_collective *collective;        /* NULL for one rank; the caller's to close */
    char device[32];                           /* of this rank, as meed_backend_open takes it */
    int threads;                               /* 0: all cores */
    pid_t children[MEED_RENDEZVOUS_MAX_RANKS]; /* rank 0 of --ranks N: of rank r; else 0 */
};

/* ARG for options that contradict each other or Slurm's variables; as meed_collective_open. With
 * --ranks N it returns in each of N processes. On failure, too, meed_rank_group_close is due. */
MEED_MUST_CHECK enum meed_status meed_rank_group_open(const struct meed_rank_options *options,
                                                      struct meed_rank_group *group);
/* After the collective is closed: waits for the other processes, ends those that do not, and
 * returns `st`, or RPC where all was well here and a rank ended otherwise. */
enum meed_status meed_rank_group_close(struct meed_rank_group *group, enum meed_status st);

#endif
