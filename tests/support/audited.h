/* The example model with random adapters, under audit: what the tests of attacks share. Like
 * golden.h, functions fail the running cmocka test rather than return statuses. */
#ifndef MEED_SUPPORT_AUDITED_H
#define MEED_SUPPORT_AUDITED_H

#include "engine/chat.h"
#include "evaluation/audit_data.h"
#include "evaluation/audit_models.h"

enum { AUDITED_ADAPTERS = 4 };

struct audited {
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_adapter *adapters[AUDITED_ADAPTERS];
    struct meed_audit_models *models;
    struct meed_arena arena; /* of records */
};

void audited_ok(enum meed_status status);
/* source_dir is MEED_SOURCE_DIR. Adapters are random unless `folder` names one to take instead. */
void audited_open(const char *source_dir, const char *folder, int32_t adapter_count,
                  struct audited *audited);
void audited_close(struct audited *audited);
/* A dialogue of one question and one reply, tokenised; secrets may be NULL. */
struct meed_audit_record audited_record(struct audited *audited, const char *question,
                                        const char *reply, const char *secret);
/* What a model says to the question, greedily; from the arena. */
const char *audited_reply(struct audited *audited, int32_t model, const char *question,
                          int32_t max_new_tokens);

#endif
