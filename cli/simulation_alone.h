/* What an experiment holds a federation against: training without one.
 *
 *   centralised   one model on everybody's dialogues: what could be had if nobody minded
 *   local         a model a client, on its dialogues alone: what can be had without the others
 *
 * Rounds, rates and batches are a client's of the plan, and so are steps; the centralised model
 * takes those of all clients together, so that every dialogue is seen as often in each scheme. The
 * optimiser begins anew every round as a client's does, and the start is the adapter that the
 * aggregator would hand out. Nobody is valued or paid, nothing is compressed. Utilities are means
 * over the models (of `local`, over clients).
 */
#ifndef MEED_CLI_SIMULATION_ALONE_H
#define MEED_CLI_SIMULATION_ALONE_H

#include "cli/simulation_stage.h"

/* Fills utilities, axis values and leaks of *result; its seats say that nobody sent anything.
 * CANCELLED if *stop is set. */
MEED_MUST_CHECK enum meed_status meed_simulation_alone_run(
    const struct meed_simulation_stage *stage, const struct meed_federation_file *file,
    struct meed_simulation_cast *cast, const char *state, struct meed_simulation_result *result);

#endif
