/* What a judge is asked: prompts by name, filled with one question and its answers.
 *
 * The eight roles are MT-Bench's (Zheng et al. 2023): an answer alone or a pair of answers, the
 * first turn or the second in the sight of the first, with or without a reference. The texts built
 * in are Meed's own and ask for the same marks, [[7]] for a rating and [[A]], [[B]], [[C]] for a
 * pair, so that judgments are read by the same rule; FastChat's judge_prompts.jsonl is taken as it
 * is where results must compare with published ones.
 *
 * Texts are put in place of {names} in one pass: what an answer contains is never itself expanded.
 */
#ifndef MEED_EVALUATION_JUDGE_PROMPT_H
#define MEED_EVALUATION_JUDGE_PROMPT_H

#include "base/buf.h"
#include "evaluation/fastchat.h"

MEED_BEGIN_C

enum meed_judge_role {
    MEED_JUDGE_SINGLE,
    MEED_JUDGE_SINGLE_REFERENCE,
    MEED_JUDGE_SINGLE_TURN2,
    MEED_JUDGE_SINGLE_TURN2_REFERENCE,
    MEED_JUDGE_PAIR,
    MEED_JUDGE_PAIR_REFERENCE,
    MEED_JUDGE_PAIR_TURN2,
    MEED_JUDGE_PAIR_TURN2_REFERENCE,
    MEED_JUDGE_ROLES
};

struct meed_judge_prompts {
    struct meed_arena arena;
    struct {
        const char *name; /* FastChat's, e.g. "single-math-v1" */
        const char *system;
        const char *template;
    } roles[MEED_JUDGE_ROLES];
};

/* path NULL: the built-in ones. FORMAT for a file that lacks one of the eight names. */
MEED_MUST_CHECK enum meed_status meed_judge_prompts_open(const char *path,
                                                         struct meed_judge_prompts **prompts);
void meed_judge_prompts_close(struct meed_judge_prompts *prompts); /* accepts NULL */

/* The role for turn 0 or a later one; the reference is used where every judged turn has one. */
enum meed_judge_role meed_judge_role_of(const struct meed_fastchat_question *question, int32_t turn,
                                        bool pair);

/* Appends the user's half of the prompt. answer_a [turn + 1] and, for pairs, answer_b; turns above
 * the second are judged with the turn before as context. FORMAT for a template with an unknown
 * {name}. */
MEED_MUST_CHECK enum meed_status
meed_judge_prompt_fill(const struct meed_judge_prompts *prompts, enum meed_judge_role role,
                       const struct meed_fastchat_question *question, int32_t turn,
                       const char *const *answer_a, const char *const *answer_b,
                       struct meed_buf *text);

/* --- reading what a judge said ---------------------------------------------------------------- */
/* The number of the first [[7]] or [[7.5]], else of the first [7]; false if there is none or it is
 * outside 1 … 10. */
bool meed_judge_rating_read(const char *judgment, double *rating);
enum meed_judge_winner { MEED_JUDGE_ERROR, MEED_JUDGE_A, MEED_JUDGE_B, MEED_JUDGE_TIE };
/* The only kind of mark among [[A]], [[B]], [[C]]; ERROR for none or several kinds. */
enum meed_judge_winner meed_judge_winner_read(const char *judgment);

MEED_END_C
#endif
