/* The client's state folder: names of its files, the run it belongs to, rounds done so far.
 *
 * The layout and the order of writes are worker.h's; this is the only place that spells the names.
 */
#ifndef MEED_CLIENT_WORKER_STATE_H
#define MEED_CLIENT_WORKER_STATE_H

#include "base/file.h"
#include "proto/limits.h"

MEED_BEGIN_C

#define MEED_WORKER_ADAPTER "adapter.bin"
#define MEED_WORKER_PLAN "plan.bin"
#define MEED_WORKER_TRAIN "train.ckpt"
#define MEED_WORKER_PRIVATE "private.bin"
#define MEED_WORKER_RESIDUAL "residual.bin"
#define MEED_WORKER_CONTROL "control.bin"
#define MEED_WORKER_PUSH "push.bin"
#define MEED_WORKER_UPDATE "update.bin"
#define MEED_WORKER_PUSHED_MARK "pushed"
#define MEED_WORKER_RECEIPT_FILE "receipt.bin"

/* Creates the folder. run_id is "" if it is new. */
MEED_MUST_CHECK enum meed_status meed_worker_state_open(const char *folder,
                                                        char run_id[MEED_LIMIT_ID_BYTES]);
MEED_MUST_CHECK enum meed_status meed_worker_state_set_run(const char *folder, const char *run_id);
/* FOLDER/round-000004/NAME; the round's folder is created. */
MEED_MUST_CHECK enum meed_status meed_worker_state_path(const char *folder, int32_t round,
                                                        const char *name,
                                                        char path[MEED_PATH_BYTES]);
bool meed_worker_state_has(const char *folder, int32_t round, const char *name);
/* Writes an empty file. */
MEED_MUST_CHECK enum meed_status meed_worker_state_mark(const char *folder, int32_t round,
                                                        const char *name);
/* Newest round below `before` that has file `name`; -1 if none. */
int32_t meed_worker_state_newest(const char *folder, int32_t before, const char *name);
/* Deletes what is not needed once `round` is pushed: its checkpoints, and adapter, residual,
 * private branch and update of every older round. Failures are logged: they cost disk, nothing
 * else. */
void meed_worker_state_clean(const char *folder, int32_t round);

MEED_END_C
#endif
