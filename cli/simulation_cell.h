/* One cell: a whole federation in this process, on one base model.
 *
 * The aggregator is the product's, with its store, ledger and receipts in a temporary folder; the
 * transport is the one inside a process, so every update is encoded, chunked, hashed and decoded as
 * on a wire. Clients are played one after the other by meed_worker_visit: each has a dataset and a
 * state folder, and a network only while it trains, so hundreds take the memory of one; kernels use
 * all threads. Playing in id order keeps a cell's numbers independent of threads and lets the
 * members of a colluding group see what their leader sent.
 */
#ifndef MEED_CLI_SIMULATION_CELL_H
#define MEED_CLI_SIMULATION_CELL_H

#include "cli/simulation_stage.h"

/* state: a folder that is new. CANCELLED if *stop is set. */
MEED_MUST_CHECK enum meed_status meed_simulation_cell_run(const struct meed_simulation_stage *stage,
                                                          const struct meed_federation_file *file,
                                                          struct meed_simulation_cast *cast,
                                                          const char *state,
                                                          struct meed_simulation_result *result);

#endif
