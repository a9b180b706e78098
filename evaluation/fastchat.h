/* MT-Bench files as FastChat keeps them: questions, answers, judgments (Zheng et al. 2023).
 *
 * One JSON object a line. Reading takes what FastChat writes and ignores keys it does not need;
 * writing gives what FastChat's own tools read, so answers and judgments travel both ways.
 *
 *   question.jsonl               {"question_id", "category", "turns": […], "reference"?: […]}
 *   model_answer/MODEL.jsonl     {"question_id", "answer_id", "model_id",
 *                                 "choices": [{"index": 0, "turns": […]}], "tstamp"}
 *   reference_answer/MODEL.jsonl the same; its turns become references of the questions
 *   model_judgment/…             judgment_file.h
 *
 * Of the thirty GPT-4 references that come with MT-Bench, thirteen are wrong in at least one turn
 * (FastChat pull request 3158). A file that says it is by gpt-4 has those left out, and the count
 * is reported: such a question is judged without a reference rather than against a wrong one.
 */
#ifndef MEED_EVALUATION_FASTCHAT_H
#define MEED_EVALUATION_FASTCHAT_H

#include <stdint.h>
#include "base/arena.h"

MEED_BEGIN_C

enum { MEED_FASTCHAT_MAX_TURNS = 8, MEED_FASTCHAT_MAX_QUESTIONS = 1 << 16 };

struct meed_fastchat_question {
    int64_t id;
    const char *category;
    int32_t turn_count; /* 1 … MEED_FASTCHAT_MAX_TURNS */
    const char *turns[MEED_FASTCHAT_MAX_TURNS];
    const char *references[MEED_FASTCHAT_MAX_TURNS]; /* NULL where there is none */
};

struct meed_fastchat_questions {
    struct meed_arena arena;
    int32_t count;
    struct meed_fastchat_question *items; /* in file order, ids distinct */
};

/* FORMAT "FILE:LINE: …" for a broken line, an id used twice, no question at all. */
MEED_MUST_CHECK enum meed_status
meed_fastchat_questions_load(const char *path, struct meed_fastchat_questions **questions);
void meed_fastchat_questions_destroy(struct meed_fastchat_questions *questions); /* accepts NULL */

/* Answers of one model: turns[question index * MEED_FASTCHAT_MAX_TURNS + turn], NULL where there is
 * none. */
struct meed_fastchat_answers {
    struct meed_arena arena;
    char *model; /* model_id */
    const char **turns;
};

/* Answers to questions that `questions` lacks are ignored; a question without an answer stays
 * NULL. FORMAT names file and line; a file whose lines name two models is one. */
MEED_MUST_CHECK enum meed_status
meed_fastchat_answers_load(const char *path, const struct meed_fastchat_questions *questions,
                           struct meed_fastchat_answers **answers);
/* No answers yet, for a generator to fill (texts from its arena). */
MEED_MUST_CHECK enum meed_status
meed_fastchat_answers_create(const char *model, const struct meed_fastchat_questions *questions,
                             struct meed_fastchat_answers **answers);
/* Whole file or none; questions without a first answer are left out. wall_ms is the time that the
 * lines bear. */
MEED_MUST_CHECK enum meed_status
meed_fastchat_answers_write(const char *path, const struct meed_fastchat_questions *questions,
                            const struct meed_fastchat_answers *answers, int64_t wall_ms);
void meed_fastchat_answers_destroy(struct meed_fastchat_answers *answers); /* accepts NULL */

/* Puts the answers of a reference file into the questions; *dropped counts known wrong ones. */
MEED_MUST_CHECK enum meed_status
meed_fastchat_references_load(const char *path, struct meed_fastchat_questions *questions,
                              int32_t *dropped);
/* True for MT-Bench's gpt-4 references that are wrong in at least one turn. */
bool meed_fastchat_reference_is_wrong(const char *model, int64_t question_id);

MEED_END_C
#endif
