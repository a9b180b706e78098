/* See audited.h. */
#include "tests/support/audited.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "base/threads.h"

void audited_ok(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
}

static struct meed_adapter *random_adapter(const struct meed_model_config *config, uint64_t seed)
{
    const struct meed_lora_config lora = {.rank = 4, .alpha = 8, .targets = MEED_PROJ_ALL};
    struct meed_rng rng = meed_rng_stream(7, "audited", seed);
    struct meed_adapter *adapter;
    audited_ok(meed_adapter_create(config, &lora, &adapter));
    meed_adapter_init(adapter, seed);
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t j = 0; j < module->n * module->r; j++) {
            module->b[j] = (float)(0.05 * meed_rng_normal(&rng));
        }
    }
    return adapter;
}

void audited_open(const char *source_dir, const char *folder, int32_t adapter_count,
                  struct audited *audited)
{
    char model[512];
    snprintf(model, sizeof model, "%s/examples/tiny/model", source_dir);
    *audited = (struct audited){0};
    meed_arena_init_growing(&audited->arena, "test", 1 << 26);
    audited_ok(meed_pool_create(1, &audited->pool));
    audited_ok(meed_backend_open(NULL, audited->pool, &audited->be));
    audited_ok(meed_checkpoint_open(model, &audited->checkpoint));
    audited_ok(meed_tokenizer_open(model, &audited->tokenizer));
    audited_ok(meed_chat_open(model, audited->tokenizer, &audited->chat));
    for (int32_t i = 0; i < adapter_count; i++) {
        if (folder) {
            audited_ok(
                meed_adapter_load(folder, &audited->checkpoint->config, &audited->adapters[i]));
        } else {
            audited->adapters[i] = random_adapter(&audited->checkpoint->config, (uint64_t)i + 1);
        }
    }
    const struct meed_audit_models_options options = {
        .be = audited->be,
        .checkpoint = audited->checkpoint,
        .adapters = (const struct meed_adapter *const *)audited->adapters,
        .adapter_count = adapter_count,
        .batch_tokens = 512,
        .end_of_turn = meed_chat_end_of_turn(audited->chat)};
    audited_ok(meed_audit_models_create(&options, &audited->models));
}

void audited_close(struct audited *audited)
{
    meed_audit_models_destroy(audited->models);
    for (int i = 0; i < AUDITED_ADAPTERS; i++) {
        meed_adapter_destroy(audited->adapters[i]);
    }
    meed_chat_close(audited->chat);
    meed_tokenizer_close(audited->tokenizer);
    meed_checkpoint_close(audited->checkpoint);
    meed_backend_close(audited->be);
    meed_pool_destroy(audited->pool);
    meed_arena_clear(&audited->arena);
}

struct meed_audit_record audited_record(struct audited *audited, const char *question,
                                        const char *reply, const char *secret)
{
    struct meed_audit_record record = {.line = 1};
    void *block;
    audited_ok(meed_arena_alloc_array(&audited->arena, 2, sizeof(struct meed_message), &block));
    struct meed_message *messages = block;
    messages[0] = (struct meed_message){MEED_ROLE_USER, question};
    messages[1] = (struct meed_message){MEED_ROLE_ASSISTANT, reply};
    record.dialogue = (struct meed_dialogue){messages, 2};
    audited_ok(meed_chat_encode(audited->chat, &record.dialogue, false, 0, &audited->arena,
                                &record.sequence));
    if (secret) {
        audited_ok(meed_arena_alloc(&audited->arena, sizeof *record.secrets, &block));
        record.secrets = block;
        record.secrets[0] = secret;
        record.secret_count = 1;
    }
    return record;
}

const char *audited_reply(struct audited *audited, int32_t model, const char *question,
                          int32_t max_new_tokens)
{
    const struct meed_message message = {MEED_ROLE_USER, question};
    const struct meed_dialogue dialogue = {&message, 1};
    const struct meed_audit_generation generation = {.max_new_tokens = max_new_tokens};
    struct meed_sequence sequence;
    struct meed_reply reply;
    struct meed_buf text;
    char *copy;
    meed_buf_init(&text, 1 << 20);
    audited_ok(meed_chat_encode(audited->chat, &dialogue, true, 0, &audited->arena, &sequence));
    const struct meed_prompt prompt = {sequence.ids, sequence.length, model};
    audited_ok(meed_audit_models_generate(audited->models, &prompt, 1, &generation, &audited->arena,
                                          &reply));
    audited_ok(
        meed_tokenizer_decode(audited->tokenizer, reply.ids, (size_t)reply.length, false, &text));
    audited_ok(meed_arena_strdup(&audited->arena, text.data ? text.data : "", text.size, &copy));
    meed_buf_clear(&text);
    return copy;
}
