/* Chat templates without a template engine: dialogues to token sequences with a loss mask.
 *
 * The template text of tokenizer_config.json (or chat_template.jinja) is recognised, by hash where
 * known and by its markers otherwise (<|im_start|> ChatML, <|start_header_id|> Llama 3), and
 * rendered by code that is byte-exact with Jinja's output on the goldens. Unknown templates are
 * refused. Scored tokens: every assistant content and its end-of-turn token, nothing else. Content
 * is encoded with parse_special off.
 *
 * Pinned, so that runs repeat: Llama 3.1's date is 26 Jul 2024; Qwen3 renders with
 * enable_thinking=false. Qwen3 puts an empty think block before the reply that follows the last
 * question (prompt, not scored) and none before earlier replies: a dialogue scored in all its turns
 * shows earlier replies without the block they were generated behind. Score the last turn alone
 * (score_from) where that difference matters.
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
    int32_t count; /* at least 1 */
};

struct meed_chat; /* template + the tokenizer's control ids */

/* Reads the template of a model folder; the tokenizer is borrowed. NOT_FOUND: the folder has none
 * (a base model); UNSUPPORTED: none that Meed knows. */
MEED_MUST_CHECK enum meed_status meed_chat_open(const char *model_folder,
                                                const struct meed_tokenizer *tokenizer,
                                                struct meed_chat **chat);
void meed_chat_close(struct meed_chat *chat); /* accepts NULL */
/* "chatml", "smollm2", "qwen2.5", "qwen3", "llama3", "llama3.1". */
const char *meed_chat_template_name(const struct meed_chat *chat);
/* Text exactly as Jinja renders it; generation_prompt opens an assistant turn. */
MEED_MUST_CHECK enum meed_status meed_chat_render(const struct meed_chat *chat,
                                                  const struct meed_dialogue *dialogue,
                                                  bool generation_prompt, struct meed_buf *text);
/* Tokens + mask. score_from: index of the first message whose assistant content is scored (0: all
 * assistant turns; count-1: the last only). Allocates from arena. The tokens are those of the
 * rendered text, except that a reply starts a token of its own, as it does when it is generated
 * (differs only for replies that begin with a blank), and that no content yields a control token.
 * So the tokens of a prompt are a prefix of the tokens of prompt and reply. */
MEED_MUST_CHECK enum meed_status meed_chat_encode(const struct meed_chat *chat,
                                                  const struct meed_dialogue *dialogue,
                                                  bool generation_prompt, int32_t score_from,
                                                  struct meed_arena *arena,
                                                  struct meed_sequence *sequence);
/* Token that ends an assistant turn. */
int32_t meed_chat_end_of_turn(const struct meed_chat *chat);

MEED_END_C
#endif
