/* Dialogues of the operator's own, and training on them: `repair` of a federation file.
 *
 * fltrust compares clients with what the operator's own training makes of the same start; repair
 * lets what was merged unlearn poison on data that the operator trusts (and wants kept: safety,
 * refusals, known triggers). Both are a client's training with other data and a seed of its own, so
 * this file is glue between server/, which may not know client/, and client/local_train.h.
 */
#ifndef MEED_CLI_OPERATOR_DATA_H
#define MEED_CLI_OPERATOR_DATA_H

#include "cli/federation_file.h"

struct meed_operator_data;

/* Reads and tokenises; the plan is the federation's (copied). FORMAT with FILE:LINE. */
MEED_MUST_CHECK enum meed_status meed_operator_data_open(const char *path, const char *model_folder,
                                                         const struct meed_msg_plan *plan,
                                                         struct meed_operator_data **data);
/* Opens the data that a federation file names and hands it to the config; NULL where it names none.
 * Data has to outlive the aggregator. */
MEED_MUST_CHECK enum meed_status meed_operator_data_attach(const struct meed_federation_file *file,
                                                           struct meed_aggregator_config *config,
                                                           struct meed_operator_data **data);
void meed_operator_data_close(struct meed_operator_data *data); /* accepts NULL */
/* SHA-256 of the file's bytes. */
const uint8_t *meed_operator_data_hash(const struct meed_operator_data *data);
/* A meed_align_fn; user is the struct. */
MEED_MUST_CHECK enum meed_status meed_operator_data_train(void *user,
                                                          const struct meed_align_request *request,
                                                          struct meed_adapter **trained);

#endif
