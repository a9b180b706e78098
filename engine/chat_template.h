/* The chat formats themselves: which one a template text is, and what it writes for a dialogue.
 *
 * A format is a walk over the dialogue that hands pieces to a sink: control tokens and text, each
 * marked with the assistant message it belongs to. Rendering concatenates the pieces, encoding
 * turns them into ids and a mask; both see the same pieces, so text and tokens cannot drift apart.
 */
#ifndef MEED_ENGINE_CHAT_TEMPLATE_H
#define MEED_ENGINE_CHAT_TEMPLATE_H

#include "engine/chat.h"

enum meed_chat_format { MEED_CHAT_CHATML, MEED_CHAT_QWEN3, MEED_CHAT_LLAMA3, MEED_CHAT_LLAMA31 };

enum { MEED_CHAT_MAX_SYSTEM_BYTES = 1024, MEED_CHAT_MAX_BOS_BYTES = 64 };

struct meed_chat_template {
    enum meed_chat_format format;
    const char *name;
    bool default_system; /* written where the dialogue does not open with a system message */
    char system[MEED_CHAT_MAX_SYSTEM_BYTES];
    char bos[MEED_CHAT_MAX_BOS_BYTES]; /* written first; "": nothing */
};

/* Recognises template text; bos is the model's bos_token or "". `name` is for messages. */
MEED_MUST_CHECK enum meed_status meed_chat_template_detect(const char *name, const char *text,
                                                           size_t size, const char *bos,
                                                           struct meed_chat_template *made);

struct meed_chat_piece {
    bool control; /* bytes are one control token */
    const char *bytes;
    size_t size;
    int32_t reply_idx; /* the assistant message whose content or end this is; -1: none */
};
typedef enum meed_status (*meed_chat_piece_fn)(void *user, const struct meed_chat_piece *piece);

MEED_MUST_CHECK enum meed_status meed_chat_template_walk(const struct meed_chat_template *template_,
                                                         const struct meed_dialogue *dialogue,
                                                         bool generation_prompt,
                                                         meed_chat_piece_fn on_piece, void *user);
/* Control tokens that a tokenizer must have for this format; ends with NULL. The last one ends an
 * assistant turn. */
const char *const *meed_chat_template_controls(const struct meed_chat_template *template_);

#endif
