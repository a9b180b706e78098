/* Ranks that train one model together: what they say to each other between two micro-batches.
 *
 * A collective is a set of processes, ranks 0 … world − 1, each with a whole replica of the model.
 * Every function below but `open` and `close` is called by all of them in the same order, and does
 * on all of them the same. A NULL collective is one rank alone: the functions then do nothing but
 * what that means.
 *
 * The sum is ordered: sum = (…((sum + part_0) + part_1) + …), by rank, whatever arrives first, in
 * fp32 and with the same bits on every rank. This is more than NCCL's and MPI's all-reduce promise
 * (their order is the algorithm's, which changes with the number of ranks), and it is what makes a
 * training independent of how many ranks share it: part_r is the gradient of the micro-batch that
 * stands r-th in line, and adding it in line is what one process does (engine/trainer.h). The price
 * is small. A device splits the vector into `world` pieces, sends piece j to rank j, which adds the
 * pieces it got in rank order, and gathers the results: 2·(world − 1)/world·4n bytes sent by each
 * rank, exactly those of a ring all-reduce. What a rank cannot do is add up several micro-batches
 * first: a sum is due for each `world` of them, not one a step. For LoRA that is cheap: rank 16 on
 * all modules of an 8 B model is 42 M values, 168 MB, 0.3 GB a micro-batch and GPU: 1 ms over
 * NVLink (300 GB/s), 12 ms over a 200 Gb/s network, beside 300 ms for 4,096 tokens.
 *
 * There are two ways for the sum. The ranks' own connections, a star around rank 0 over TCP, serve
 * the CPU and every test; devices have NCCL (`meed_device_comm`), and where it is missing the star
 * carries their values too, with the same bits. Small things (losses, stop flags, hashes) always go
 * by the star. Its cost: rank 0 receives and sends (world − 1)·4n bytes.
 *
 * A rank that ends takes the others with it: whoever fails says why (`meed_collective_fail`), and
 * the next call of every other rank fails with the same status and that sentence; of a rank that
 * was killed the operating system tells by closing its connection.
 */
#ifndef MEED_KERNELS_COLLECTIVE_H
#define MEED_KERNELS_COLLECTIVE_H

#include "kernels/backend.h"
#include "kernels/rendezvous.h"

MEED_BEGIN_C

struct meed_collective;

/* Waits for all ranks (rendezvous.h). TIMEOUT where one does not come; ARG for impossible ranks. */
MEED_MUST_CHECK enum meed_status meed_collective_open(const struct meed_rendezvous *place,
                                                      struct meed_collective **collective);
void meed_collective_close(struct meed_collective *collective);          /* accepts NULL */
int32_t meed_collective_rank(const struct meed_collective *collective);  /* 0 for NULL */
int32_t meed_collective_world(const struct meed_collective *collective); /* 1 for NULL */

/* all [world, bytes] = every rank's `mine` [bytes], in rank order; bytes ≤ 64 KiB. Also the
 * barrier: none returns before all have called. */
MEED_MUST_CHECK enum meed_status meed_collective_gather(struct meed_collective *collective,
                                                        const void *mine, size_t bytes, void *all);
/* *any: whether a rank said so. */
MEED_MUST_CHECK enum meed_status meed_collective_any(struct meed_collective *collective, bool mine,
                                                     bool *any);
/* VERSION unless all ranks bring the same bytes (≤ 64 KiB); `what` says of what, for the sentence.
 */
MEED_MUST_CHECK enum meed_status meed_collective_same(struct meed_collective *collective,
                                                      const void *mine, size_t bytes,
                                                      const char *what);
/* sum [count] += part_0, then part_1 … part_(parts − 1), in fp32, each the `part` [count] of that
 * rank; both are be's memory. `sum` holds the same bits on every rank before and after; `part` of
 * rank ≥ parts is not read. */
MEED_MUST_CHECK enum meed_status meed_collective_sum(struct meed_collective *collective,
                                                     const struct meed_backend *be, float *sum,
                                                     const float *part, int64_t count,
                                                     int32_t parts);
/* Lets the devices do the sums among themselves, if every rank's can; otherwise says in the log, in
 * one line, what is missing, and the connections carry them. Before the backend is closed:
 * meed_collective_close. */
MEED_MUST_CHECK enum meed_status meed_collective_use_devices(struct meed_collective *collective,
                                                             const struct meed_backend *be);
/* Whether they do. */
bool meed_collective_on_devices(const struct meed_collective *collective);
/* Tells the others that this rank ends with `status` (nothing if OK, or if they know) and this
 * thread's last message; returns `status`, message kept. */
enum meed_status meed_collective_fail(struct meed_collective *collective, enum meed_status status);

MEED_END_C
#endif
