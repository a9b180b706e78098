/* What the files of synthesis share: local texts, prompts, judgements, the candidates file.
 *
 *   synthesis_source.c   the client's dialogues as text, and draws from them
 *   synthesis_prompt.c   both templates: prompts in, messages out
 *   synthesis_judge.c    the filters
 *   synthesis_file.c     JSON lines
 *   synthesis.c          groups, attempts, turns
 *   synthesis_score.c    losses and the choice
 */
#ifndef MEED_CLIENT_SYNTHESIS_INTERNAL_H
#define MEED_CLIENT_SYNTHESIS_INTERNAL_H

#include "base/arena.h"
#include "base/rng.h"
#include "client/synthesis.h"
#include "engine/generate.h"
#include "engine/rouge.h"

enum { MEED_SYNTHESIS_MAX_DEMOS = 64, MEED_SYNTHESIS_MAX_TURNS = 16 };

/* --- local data ------------------------------------------------------------------------------ */
/* A local dialogue: user and assistant by turns, without system messages. */
struct meed_synthesis_text {
    struct meed_message *messages;
    int32_t exchanges;
    int32_t first_tokens; /* of the first exchange in the chat template */
    int32_t tokens;       /* of all */
};
struct meed_synthesis_source {
    struct meed_arena arena;
    struct meed_synthesis_text *texts;
    int64_t count;
    struct meed_rouge_corpus *users; /* every local message of a role */
    struct meed_rouge_corpus *replies;
    int32_t longest_message; /* tokens */
    bool multiline;          /* some reply has a line break */
};
MEED_MUST_CHECK enum meed_status meed_synthesis_source_load(const struct meed_synthesis_job *job,
                                                            const struct meed_tokenizer *tokenizer,
                                                            const struct meed_chat *chat,
                                                            struct meed_synthesis_source *source);
void meed_synthesis_source_clear(struct meed_synthesis_source *source); /* accepts zeroed */
/* Draws up to `wanted` different texts that fit into `tokens` together (whole, or their first
 * exchanges) into drawn, in the order drawn; returns how many. */
MEED_MUST_CHECK enum meed_status
meed_synthesis_source_draw(const struct meed_synthesis_source *source, struct meed_rng rng,
                           int32_t wanted, bool whole, int32_t tokens, int64_t *drawn,
                           int32_t *count);
/* Bytes of the user message of an exchange that at most `words` words take, and that begin a
 * different local user message too; 0: not even one word does. */
size_t meed_synthesis_source_opening(const struct meed_synthesis_source *source,
                                     const struct meed_synthesis_text *text, int32_t exchange,
                                     int32_t words);

/* --- candidates ------------------------------------------------------------------------------ */
struct meed_synthesis_candidate {
    enum meed_synthesis_fate fate;
    struct meed_message messages[2 * MEED_SYNTHESIS_MAX_TURNS]; /* texts from an arena */
    double rouge[2 * MEED_SYNTHESIS_MAX_TURNS]; /* F1 of each with its nearest local message */
    int32_t count;
    int32_t texts[MEED_SYNTHESIS_FATES]; /* asked for, by what became of them */
    int64_t shape_idx;                   /* the local dialogue whose length and openings it takes */
    bool ended;                          /* no further turns */
};

/* --- prompts --------------------------------------------------------------------------------- */
struct meed_synthesis_prompter {
    const struct meed_tokenizer *tokenizer;
    const struct meed_chat *chat;
    const struct meed_model_config *model;
    const struct meed_synthesis_source *source;
    enum meed_synthesis_template form;
    int32_t stop_ids[MEED_MODEL_MAX_EOS + 3];
    int32_t stop_count;
    int32_t line_stop_count; /* with line breaks behind them */
    int32_t max_new_tokens;
};
/* Demonstrations of one group and attempt. */
struct meed_synthesis_demos {
    int64_t idx[MEED_SYNTHESIS_MAX_DEMOS];
    int32_t count;
    bool whole; /* all exchanges, not the first */
};
void meed_synthesis_prompter_init(const struct meed_tokenizer *tokenizer,
                                  const struct meed_chat *chat,
                                  const struct meed_model_config *model,
                                  const struct meed_synthesis_source *source,
                                  enum meed_synthesis_template form,
                                  struct meed_synthesis_prompter *prompter);
/* The prompt that asks for the candidate's next message, which begins with opening (DIALOGUE). ids
 * from the arena. */
MEED_MUST_CHECK enum meed_status
meed_synthesis_prompt_next(const struct meed_synthesis_prompter *prompter,
                           const struct meed_synthesis_demos *demos,
                           const struct meed_synthesis_candidate *candidate, const char *opening,
                           struct meed_arena *arena, struct meed_prompt *prompt);
/* What a reply to that prompt says, NUL-terminated, from the arena; and whether it can be used at
 * all: WRITTEN, UNFINISHED or MALFORMED. */
MEED_MUST_CHECK enum meed_status
meed_synthesis_prompt_read(const struct meed_synthesis_prompter *prompter,
                           const struct meed_reply *reply, enum meed_role role, const char *opening,
                           struct meed_arena *arena, const char **text,
                           enum meed_synthesis_fate *fate);

/* --- filters --------------------------------------------------------------------------------- */
/* Judges one text; own holds the user messages of other candidates. rouge is F1 with the nearest
 * local message, 0 where an earlier filter refused it. */
MEED_MUST_CHECK enum meed_status
meed_synthesis_judge(const struct meed_synthesis_source *source,
                     const struct meed_rouge_corpus *own, enum meed_role role, double rouge_max,
                     const char *text, enum meed_synthesis_fate *fate, double *rouge);

/* --- files ----------------------------------------------------------------------------------- */
/* What binds a candidates file to its job: hex SHA-256 over model, adapter, data and options. */
MEED_MUST_CHECK enum meed_status meed_synthesis_key(const struct meed_synthesis_job *job,
                                                    char key[MEED_SHA256_HEX_BYTES]);
/* Appends the file's first line, a candidate's line, a line of synthetic.jsonl. */
MEED_MUST_CHECK enum meed_status meed_synthesis_file_head(const char *key, struct meed_buf *text);
MEED_MUST_CHECK enum meed_status
meed_synthesis_file_candidate(const struct meed_synthesis_candidate *candidate, int32_t idx,
                              struct meed_buf *text);
MEED_MUST_CHECK enum meed_status
meed_synthesis_file_dialogue(const struct meed_synthesis_candidate *candidate,
                             struct meed_buf *text);
/* Reads the whole lines of FOLDER/candidates.jsonl that belong to key, in order; none is no error,
 * nor is a torn or strange line: it ends the reading. */
MEED_MUST_CHECK enum meed_status
meed_synthesis_file_read(const struct meed_synthesis_job *job, const char *key,
                         struct meed_arena *arena, struct meed_synthesis_candidate *candidates,
                         int32_t *count);
MEED_MUST_CHECK enum meed_status meed_synthesis_file_write(const struct meed_synthesis_job *job,
                                                           const char *name,
                                                           const struct meed_buf *text);

/* Asks the callback of the job; CANCELLED where it says stop. */
MEED_MUST_CHECK enum meed_status meed_synthesis_tell(const struct meed_synthesis_job *job,
                                                     const char *phase, int64_t done, int64_t total,
                                                     int64_t tokens);

#endif
