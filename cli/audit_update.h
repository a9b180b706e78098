/* From a client's update.bin to the adapter that it makes of the global one: what the aggregator
 * sees of a client, for an audit.
 *
 * The update is decoded without the round's plan (meed_update_codec), so that whoever holds the
 * file and the global adapter it was made on can look. Both lie in a client's state folder, in
 * round-N/update.bin and round-N/adapter.bin; a published adapter may also be a PEFT folder.
 */
#ifndef MEED_CLI_AUDIT_UPDATE_H
#define MEED_CLI_AUDIT_UPDATE_H

#include "engine/adapter.h"
#include "proto/update.h"

/* A PEFT folder, or the packed file of a client's state. */
MEED_MUST_CHECK enum meed_status meed_audit_global_load(const char *path,
                                                        const struct meed_model_config *model,
                                                        struct meed_adapter **global);
/* VERSION if the update was made on another adapter; else what update.h says of bad bytes, with the
 * path. header is who sent it, and when. */
MEED_MUST_CHECK enum meed_status meed_audit_update_load(const char *path,
                                                        const struct meed_adapter *global,
                                                        struct meed_update_header *header,
                                                        struct meed_adapter **adapter);

#endif
