/* A client's own data: a JSONL file of dialogues, tokenised once, with the line of each.
 *
 * One object a line, in any of the usual forms (told apart by their keys, line by line):
 *
 *   {"messages": [{"role", "content"}, …]}                    OpenAI, TRL
 *   {"prompt": …, "completion": …}                            TRL; strings or lists of messages
 *   {"conversations": [{"from", "value"}, …], "system"}       ShareGPT
 *   {"instruction", "input", "output", "system", "history"}   Alpaca
 *   {"history": [{"user", "bot"}, …]}                         MT-Bench-101
 *   {"text": …}                                               plain text: every token is learned
 *
 * All but the last become dialogues, rendered by the model's chat template; what is learned is
 * every assistant turn and its end (of prompt/completion the completion only). An Alpaca record
 * becomes a user turn, instruction and input on two lines, without the original's preamble, which
 * the chat template replaces.
 *
 * A line that cannot be used is an error naming FILE:LINE, never skipped: silently dropped data
 * would make a client's pay depend on what it cannot see. Messages name the fault and never quote
 * the data. Nothing is cut unless asked: an over-long dialogue is refused with its line and length.
 */
#ifndef MEED_CLIENT_DATASET_H
#define MEED_CLIENT_DATASET_H

#include "base/arena.h"
#include "engine/chat.h"

MEED_BEGIN_C

struct meed_dataset {
    struct meed_arena arena; /* owns the sequences and lines */
    char path[1024];
    struct meed_sequence *sequences; /* [count], borrowed by trainers */
    int32_t *lines;                  /* [count]: 1 for the first */
    int64_t count;
    int64_t token_count;
    int32_t longest;   /* tokens */
    int64_t cut_count; /* sequences shortened by meed_dataset_limit */
};

/* Reads and tokenises; nothing is borrowed afterwards. FORMAT with FILE:LINE for a bad line. */
MEED_MUST_CHECK enum meed_status meed_dataset_load(const char *path, const struct meed_chat *chat,
                                                   const struct meed_tokenizer *tokenizer,
                                                   struct meed_dataset **dataset);
/* The same from dialogues in memory; `name` stands for the file, an index for the line. */
MEED_MUST_CHECK enum meed_status meed_dataset_build(const char *name,
                                                    const struct meed_dialogue *dialogues,
                                                    int64_t count, const struct meed_chat *chat,
                                                    struct meed_dataset **dataset);
void meed_dataset_destroy(struct meed_dataset *dataset); /* accepts NULL */

/* Sequences of at most max_tokens, as an array that the caller frees with meed_heap_free. Longer
 * ones are LIMIT naming the first, its length and how many there are; with `cut` they lose their
 * end instead, and those left with nothing to learn are dropped. The ids stay the dataset's. */
MEED_MUST_CHECK enum meed_status meed_dataset_limit(struct meed_dataset *dataset,
                                                    int32_t max_tokens, bool cut,
                                                    struct meed_sequence **sequences,
                                                    int64_t *count);

MEED_END_C
#endif
