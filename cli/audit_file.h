/* A client's data file as an audit reads it: the sequences that training sees, the dialogues behind
 * them, and the secrets that its lines label.
 *
 * Sequences come from client/dataset.h, so that an audit asks for the very tokens that were
 * learned; labels from secret_labels.h.
 */
#ifndef MEED_CLI_AUDIT_FILE_H
#define MEED_CLI_AUDIT_FILE_H

#include "client/dataset.h"
#include "evaluation/audit_data.h"

struct meed_audit_file {
    struct meed_dataset *dataset; /* owns the sequences */
    struct meed_audit_data data;
};

/* FORMAT with FILE:LINE for a bad line or a secret that is not in its messages; LIMIT for a
 * dialogue of more than `positions` tokens. */
MEED_MUST_CHECK enum meed_status meed_audit_file_load(const char *path,
                                                      const struct meed_chat *chat,
                                                      const struct meed_tokenizer *tokenizer,
                                                      int32_t positions,
                                                      struct meed_audit_file *file);
void meed_audit_file_close(struct meed_audit_file *file); /* accepts zeroed */
/* At most `most` records drawn without replacement, in the file's order; borrows the rest of the
 * file. Free records with meed_heap_free. */
MEED_MUST_CHECK enum meed_status meed_audit_file_sample(const struct meed_audit_file *file,
                                                        int32_t most, uint64_t seed,
                                                        struct meed_audit_data *sample);

#endif
