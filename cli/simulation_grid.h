/* The grid of an experiment: every combination of the swept values with every seed.
 *
 * A setting is a key of one table, written into the federation's struct as text is read, so that a
 * sweep can turn what the file says without a second schema. A sweep may turn several at once: its
 * key names them with + between (`aggregation+guard_z`) and so do its values (`median+100`); a -
 * among these leaves its key as the file has it (`-+100`). The
 * order of cells is that of the file, seeds innermost; a cell's key names its place and its file.
 */
#ifndef MEED_CLI_SIMULATION_GRID_H
#define MEED_CLI_SIMULATION_GRID_H

#include "cli/federation_file.h"

#define MEED_SIMULATION_AS_IT_IS "-"

enum { MEED_SIMULATION_KEY_BYTES = 224 };

/* Where a cell stands. */
struct meed_simulation_point {
    int32_t row; /* of the swept combinations */
    int32_t seed_idx;
    bool clean; /* the same without attack, and without the settings that are about attacks */
};

struct meed_simulation_setting {
    char key[MEED_SIMULATION_SETTING_BYTES];
    char value[MEED_SIMULATION_SETTING_BYTES];
};

/* Combinations of swept values, seeds not counted. */
int32_t meed_simulation_grid_rows(const struct meed_simulation_plan *plan);
/* Swept setting `idx` of the point, from 0; false past the last one. */
bool meed_simulation_grid_setting(const struct meed_simulation_plan *plan,
                                  const struct meed_simulation_point *point, int32_t idx,
                                  struct meed_simulation_setting *setting);
/* *file as this cell wants it, seed set. CONFIG for a value that does not fit its key. */
MEED_MUST_CHECK enum meed_status
meed_simulation_grid_cell(const struct meed_federation_file *from,
                          const struct meed_simulation_point *point,
                          struct meed_federation_file *file);
/* "attack=swap,share=0.3,seed=2", "clean,seed=2". CONFIG if it is no name for a file. */
MEED_MUST_CHECK enum meed_status meed_simulation_grid_key(const struct meed_simulation_plan *plan,
                                                          const struct meed_simulation_point *point,
                                                          char key[MEED_SIMULATION_KEY_BYTES]);
/* The twin of the point's cell without attack: the first row that is it already, else the point
 * itself with `clean` set. */
MEED_MUST_CHECK enum meed_status
meed_simulation_grid_twin(const struct meed_federation_file *from,
                          const struct meed_simulation_point *point,
                          struct meed_simulation_point *twin);
/* One setting. CONFIG lists the keys. */
MEED_MUST_CHECK enum meed_status meed_simulation_grid_set(struct meed_federation_file *file,
                                                          const char *key, const char *value);

#endif
