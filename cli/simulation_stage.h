/* What all cells of an experiment share, and what every kind of cell does with a model: score it,
 * and ask it for what it was trained on. */
#ifndef MEED_CLI_SIMULATION_STAGE_H
#define MEED_CLI_SIMULATION_STAGE_H

#include <signal.h>
#include "cli/simulation_result.h"
#include "engine/checkpoint.h"

struct meed_simulation_stage {
    struct meed_pool *threads;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_benchmark *benchmark;
    enum meed_dtype dtype;
    const volatile sig_atomic_t *stop;
    /* Visits done of all visits of this cell; may be NULL. */
    void (*progress)(void *user, int64_t done, int64_t total, const char *phase);
    void *progress_user;
};

bool meed_simulation_stage_stopping(const struct meed_simulation_stage *stage);
void meed_simulation_stage_report(const struct meed_simulation_stage *stage, int64_t done,
                                  int64_t total, const char *phase);
/* adapter NULL: the plain base. *utility is the paid value; values, ses [axes] may be NULL. */
MEED_MUST_CHECK enum meed_status
meed_simulation_stage_score(const struct meed_simulation_stage *stage,
                            const struct meed_adapter *adapter, uint64_t seed, double *utility,
                            double *values, double *ses);

/* What the models of a cell are asked for, by the file's `leakage:`. Borrows all three. */
struct meed_simulation_leakage_job
meed_simulation_stage_leakage(const struct meed_simulation_stage *stage,
                              const struct meed_federation_file *file,
                              const struct meed_simulation_cast *cast);

#endif
