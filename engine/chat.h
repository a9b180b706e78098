/* Chat templates without a template engine: dialogues to token sequences with a loss mask.
 *
 * The template text of tokenizer_config.json (or chat_template.jinja) is recognised, by hash where
 * known and by its markers otherwise (<|im_start|> ChatML, <|start_header_id|> Llama 3), and
 * rendered by code that is byte-exact with Jinja's output on the goldens. Unknown templates are
 * refused. Scored tokens: every assistant content and its end-of-turn token, nothing else. Content
 * is encoded with parse_special off.
 */
#ifndef MEED_ENGINE_CHAT_H
#define MEED_ENGINE_CHAT_H

#include "base/arena.h"
#include "engine/batch.h"
#include "engine/tokenizer.h"

MEED_BEGIN_C

enum meed_role { MEED_ROLE_SYSTEM, MEED_ROLE_USER, MEED_ROLE_ASSISTANT };

struct meed_message {
    enum meed_role role;
    const char *content; /* UTF-8, NUL-terminated */
};
struct meed_dialogue {
    const struct meed_message *messages;
    int32_t count;
};

struct meed_chat; /* template + the tokenizer's control ids */

/* Reads the template of a model folder; the tokenizer is borrowed. */
MEED_MUST_CHECK enum meed_status meed_chat_open(const char *model_folder,
                                                const struct meed_tokenizer *tokenizer,
                                                struct meed_chat **chat);
void meed_chat_close(struct meed_chat *chat); /* accepts NULL */
const char *meed_chat_template_name(const struct meed_chat *chat); /* "chatml", "llama3", "qwen2.5", "qwen3", "smollm2" */
/* Text exactly as Jinja renders it; generation_prompt opens an assistant turn. */
MEED_MUST_CHECK enum meed_status meed_chat_render(const struct meed_chat *chat,
                                                  const struct meed_dialogue *dialogue,
                                                  bool generation_prompt, struct meed_buf *text);
/* Tokens + mask. score_from: index of the first message whose assistant content is scored (0: all
 * assistant turns; count-1: the last only). Allocates from arena. */
MEED_MUST_CHECK enum meed_status meed_chat_encode(const struct meed_chat *chat,
                                                  const struct meed_dialogue *dialogue,
                                                  bool generation_prompt, int32_t score_from,
                                                  struct meed_arena *arena,
                                                  struct meed_sequence *sequence);
/* Token that ends an assistant turn. */
int32_t meed_chat_end_of_turn(const struct meed_chat *chat);

MEED_END_C
#endif
