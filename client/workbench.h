/* What a training process opens once and keeps: threads, backend, base model, tokenised data.
 *
 * `meed train` and `meed join` need the same five things in the same order, and the base weights of
 * a federation's client must be loaded once a job, not once a round. Tokenizer and chat template
 * are only needed to read the data and are gone afterwards.
 */
#ifndef MEED_CLIENT_WORKBENCH_H
#define MEED_CLIENT_WORKBENCH_H

#include "client/dataset.h"
#include "engine/checkpoint.h"
#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_pool;

struct meed_workbench {
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_dataset *dataset;
};

/* device as meed_backend_open knows it, NULL for the CPU; thread_count 0: all cores allowed to the
 * process. */
MEED_MUST_CHECK enum meed_status meed_workbench_open(const char *model_folder,
                                                     const char *data_path, const char *device,
                                                     int thread_count,
                                                     struct meed_workbench *bench);
/* A data file by the tokenizer and chat template of a model folder, for data that come later. */
MEED_MUST_CHECK enum meed_status meed_workbench_read_data(const char *model_folder,
                                                          const char *data_path,
                                                          struct meed_dataset **dataset);
void meed_workbench_close(struct meed_workbench *bench); /* accepts a zeroed struct */
/* "f32" or "bf16"; ARG for other words. */
MEED_MUST_CHECK enum meed_status meed_workbench_parse_dtype(const char *text,
                                                            enum meed_dtype *dtype);

MEED_END_C
#endif
