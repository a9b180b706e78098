/* The grid of an experiment: every combination of the swept values with every seed.
 *
 * A setting is a key of one table, written into the federation's struct as text is read, so that a
 * sweep can turn what the file says without a second schema. The order of cells is that of the
 * file, seeds innermost; a cell's key names its place and its file.
 */
#ifndef MEED_CLI_SIMULATION_GRID_H
#define MEED_CLI_SIMULATION_GRID_H

#include "cli/federation_file.h"

enum { MEED_SIMULATION_KEY_BYTES = 224 };

/* Combinations of swept values, seeds not counted. */
int32_t meed_simulation_grid_rows(const struct meed_simulation_plan *plan);
/* Index of sweep i's value in combination `row`. */
int32_t meed_simulation_grid_value(const struct meed_simulation_plan *plan, int32_t row,
                                   int32_t sweep);
/* *file as this cell wants it, seed set. CONFIG for a value that does not fit its key. */
MEED_MUST_CHECK enum meed_status meed_simulation_grid_cell(const struct meed_federation_file *from,
                                                           int32_t row, int32_t seed_idx,
                                                           struct meed_federation_file *file);
/* "attack=swap,share=0.3,seed=2" */
void meed_simulation_grid_key(const struct meed_simulation_plan *plan, int32_t row,
                              int32_t seed_idx, char key[MEED_SIMULATION_KEY_BYTES]);
/* One setting. CONFIG lists the keys. */
MEED_MUST_CHECK enum meed_status meed_simulation_grid_set(struct meed_federation_file *file,
                                                          const char *key, const char *value);

#endif
