/* See judge_prompt.h. */
#include "evaluation/judge_prompt.h"

#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "evaluation/jsonl_file.h"

enum { MAX_ARENA_BYTES = 16 << 20 };

static const char *const role_names[MEED_JUDGE_ROLES] = {
    [MEED_JUDGE_SINGLE] = "single-v1",
    [MEED_JUDGE_SINGLE_REFERENCE] = "single-math-v1",
    [MEED_JUDGE_SINGLE_TURN2] = "single-v1-multi-turn",
    [MEED_JUDGE_SINGLE_TURN2_REFERENCE] = "single-math-v1-multi-turn",
    [MEED_JUDGE_PAIR] = "pair-v2",
    [MEED_JUDGE_PAIR_REFERENCE] = "pair-math-v1",
    [MEED_JUDGE_PAIR_TURN2] = "pair-v2-multi-turn",
    [MEED_JUDGE_PAIR_TURN2_REFERENCE] = "pair-math-v1-multi-turn",
};

/* --- the built-in texts ----------------------------------------------------------------------- */
#define RATE                                                                                       \
    "You grade replies of a chat assistant. Say in one or two sentences what is good and what is " \
    "wrong, looking at whether the reply does what was asked, is true, complete and clear. "       \
    "Length by itself earns nothing. "
#define RATE_MARK "Close with your grade from 1 (useless) to 10 (flawless) as: Rating: [[5]]"
#define AGAINST "A reference answer is given: where the reply contradicts it, the reply is wrong. "
#define SECOND "Grade the assistant's last reply; the earlier ones are there as context. "
#define COMPARE                                                                                    \
    "Two assistants answered the same user. Say in one or two sentences how their replies differ " \
    "in doing what was asked, truth, completeness and clarity. Neither the order nor the length "  \
    "of the replies counts. "
#define COMPARE_MARK                                                                               \
    "Close with your verdict: [[A]] if assistant A is better, [[B]] if assistant B is better, "    \
    "[[C]] for a draw."
#define COMPARE_SECOND "Judge by the last replies; the earlier ones are there as context. "

#define ASKED "<question>\n{question}\n</question>\n\n"
#define ASKED_TWICE(who, one, two)                                                                 \
    "<dialogue" who ">\nUser: {question_1}\n\nAssistant: {" one                                    \
    "}\n\nUser: {question_2}\n\nAssistant: {" two "}\n</dialogue" who ">\n\n"
#define REFERENCE "<reference>\n{ref_answer_1}\n</reference>\n\n"
#define REFERENCE_TWICE                                                                            \
    "<reference>\nUser: {question_1}\n\nReference: {ref_answer_1}\n\nUser: {question_2}\n\n"       \
    "Reference: {ref_answer_2}\n</reference>\n\n"
#define ONE "<reply>\n{answer}\n</reply>"
#define BOTH "<reply A>\n{answer_a}\n</reply A>\n\n<reply B>\n{answer_b}\n</reply B>"
#define BOTH_TWICE                                                                                 \
    ASKED_TWICE(" A", "answer_a_1", "answer_a_2") ASKED_TWICE(" B", "answer_b_1", "answer_b_2")

static const struct {
    const char *system;
    const char *template;
} built_in[MEED_JUDGE_ROLES] = {
    [MEED_JUDGE_SINGLE] = {RATE RATE_MARK, ASKED ONE},
    [MEED_JUDGE_SINGLE_REFERENCE] = {RATE AGAINST RATE_MARK, ASKED REFERENCE ONE},
    [MEED_JUDGE_SINGLE_TURN2] = {RATE SECOND RATE_MARK, ASKED_TWICE("", "answer_1", "answer_2")},
    [MEED_JUDGE_SINGLE_TURN2_REFERENCE] = {RATE AGAINST SECOND RATE_MARK,
                                           REFERENCE_TWICE ASKED_TWICE("", "answer_1", "answer_2")},
    [MEED_JUDGE_PAIR] = {COMPARE COMPARE_MARK, ASKED BOTH},
    [MEED_JUDGE_PAIR_REFERENCE] = {COMPARE AGAINST COMPARE_MARK, ASKED REFERENCE BOTH},
    [MEED_JUDGE_PAIR_TURN2] = {COMPARE COMPARE_SECOND COMPARE_MARK, BOTH_TWICE},
    [MEED_JUDGE_PAIR_TURN2_REFERENCE] = {COMPARE AGAINST COMPARE_SECOND COMPARE_MARK,
                                         REFERENCE_TWICE BOTH_TWICE},
};

/* --- opening ---------------------------------------------------------------------------------- */
static enum meed_status keep(struct meed_judge_prompts *prompts, const char *text,
                             const char **kept)
{
    char *made;
    MEED_TRY(meed_arena_strdup(&prompts->arena, text, strlen(text), &made));
    *kept = made;
    return MEED_OK;
}

static enum meed_status prompt_read(const struct meed_jsonl_file *file, const json_t *object,
                                    struct meed_judge_prompts *prompts)
{
    const char *name;
    const char *template;
    MEED_TRY(meed_jsonl_file_text(file, object, "name", &name));
    MEED_TRY(meed_jsonl_file_text(file, object, "prompt_template", &template));
    const char *system = json_string_value(json_object_get(object, "system_prompt"));
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        if (strcmp(name, role_names[role]) == 0) {
            MEED_TRY(keep(prompts, template, &prompts->roles[role].template));
            MEED_TRY(keep(prompts, system ? system : "", &prompts->roles[role].system));
        }
    }
    return MEED_OK;
}

static enum meed_status prompts_read(const char *path, struct meed_judge_prompts *prompts)
{
    enum meed_status st = MEED_OK;
    struct meed_jsonl_file file = {0};
    json_t *object = NULL;
    MEED_TRY_OUT(meed_jsonl_file_open(path, &file));
    do {
        MEED_TRY_OUT(meed_jsonl_file_next(&file, &object));
        if (object) {
            MEED_TRY_OUT(prompt_read(&file, object, prompts));
        }
    } while (object);
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        if (!prompts->roles[role].template) {
            st = MEED_FAIL(MEED_FORMAT, "%s has no prompt \"%s\"", path, role_names[role]);
            goto out;
        }
    }
out:
    meed_jsonl_file_close(&file);
    return st;
}

enum meed_status meed_judge_prompts_open(const char *path, struct meed_judge_prompts **prompts)
{
    enum meed_status st = MEED_OK;
    struct meed_judge_prompts *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "judge prompts", MAX_ARENA_BYTES);
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        made->roles[role].name = role_names[role];
        made->roles[role].system = path ? NULL : built_in[role].system;
        made->roles[role].template = path ? NULL : built_in[role].template;
    }
    if (path) {
        MEED_TRY_OUT(prompts_read(path, made));
    }
    *prompts = made;
    made = NULL;
out:
    meed_judge_prompts_close(made);
    return st;
}

void meed_judge_prompts_close(struct meed_judge_prompts *prompts)
{
    if (prompts) {
        meed_arena_clear(&prompts->arena);
        meed_heap_free(prompts);
    }
}

/* --- filling ---------------------------------------------------------------------------------- */
enum meed_judge_role meed_judge_role_of(const struct meed_fastchat_question *question, int32_t turn,
                                        bool pair)
{
    bool reference =
        question->references[turn] != NULL && (turn == 0 || question->references[turn - 1] != NULL);
    int role = pair ? MEED_JUDGE_PAIR : MEED_JUDGE_SINGLE;
    return (enum meed_judge_role)(role + (turn > 0 ? 2 : 0) + (reference ? 1 : 0));
}

/* The text that stands for a name: "_1" is the turn before the judged one, "_2" the judged one; in
 * the prompts of a first turn the judged one has no number, or 1. */
static const char *value_of(const char *name, size_t length,
                            const struct meed_fastchat_question *question, int32_t turn,
                            const char *const *answer_a, const char *const *answer_b)
{
    const struct {
        const char *name;
        const char *const *texts;
    } kinds[] = {{"question", question->turns},
                 {"answer_a", answer_a},
                 {"answer_b", answer_b},
                 {"answer", answer_a},
                 {"ref_answer", question->references}};
    int32_t at = turn;
    size_t stem = length;
    if (length > 2 && name[length - 2] == '_' &&
        (name[length - 1] == '1' || name[length - 1] == '2')) {
        stem = length - 2;
        at = turn > 0 && name[length - 1] == '1' ? turn - 1 : turn;
    }
    for (size_t i = 0; i < MEED_COUNT(kinds); i++) {
        if (strlen(kinds[i].name) == stem && memcmp(kinds[i].name, name, stem) == 0 &&
            kinds[i].texts) {
            return kinds[i].texts[at] ? kinds[i].texts[at] : "";
        }
    }
    return NULL;
}

enum meed_status meed_judge_prompt_fill(const struct meed_judge_prompts *prompts,
                                        enum meed_judge_role role,
                                        const struct meed_fastchat_question *question, int32_t turn,
                                        const char *const *answer_a, const char *const *answer_b,
                                        struct meed_buf *text)
{
    const char *at = prompts->roles[role].template;
    while (*at) {
        size_t plain = strcspn(at, "{");
        MEED_TRY(meed_buf_append(text, at, plain));
        at += plain;
        if (!*at) {
            break;
        }
        const char *name = at + 1;
        size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789");
        if (name[length] != '}') { /* a brace of the text itself */
            MEED_TRY(meed_buf_append(text, at, 1));
            at++;
            continue;
        }
        const char *value = value_of(name, length, question, turn, answer_a, answer_b);
        if (!value) {
            return MEED_FAIL(MEED_FORMAT,
                             "judge prompt \"%s\" asks for {%.*s}, which it cannot get",
                             prompts->roles[role].name, (int)length, name);
        }
        MEED_TRY(meed_buf_append(text, value, strlen(value)));
        at = name + length + 1;
    }
    return MEED_OK;
}

/* --- reading ---------------------------------------------------------------------------------- */
/* The number between `open` and `close` at or after `text`. */
static bool number_between(const char *text, const char *open, const char *close, double *value)
{
    for (const char *at = strstr(text, open); at; at = strstr(at + 1, open)) {
        const char *digits = at + strlen(open);
        size_t whole = strspn(digits, "0123456789");
        size_t length = whole;
        if (whole > 0 && digits[whole] == '.') {
            length += 1 + strspn(digits + whole + 1, "0123456789");
        }
        if (whole > 0 && strncmp(digits + length, close, strlen(close)) == 0) {
            char number[16];
            snprintf(number, sizeof number, "%.*s", (int)length, digits);
            return length < sizeof number &&
                   meed_parse_f64("rating", number, 0, 1e15, value) == MEED_OK;
        }
    }
    return false;
}

bool meed_judge_rating_read(const char *judgment, double *rating)
{
    double value = 0;
    if ((!number_between(judgment, "[[", "]]", &value) &&
         !number_between(judgment, "[", "]", &value)) ||
        !(value >= 1 && value <= 10)) {
        return false;
    }
    *rating = value;
    return true;
}

enum meed_judge_winner meed_judge_winner_read(const char *judgment)
{
    static const struct {
        const char *mark;
        enum meed_judge_winner winner;
    } marks[] = {{"[[A]]", MEED_JUDGE_A}, {"[[B]]", MEED_JUDGE_B}, {"[[C]]", MEED_JUDGE_TIE}};
    enum meed_judge_winner winner = MEED_JUDGE_ERROR;
    for (size_t i = 0; i < MEED_COUNT(marks); i++) {
        if (strstr(judgment, marks[i].mark)) {
            if (winner != MEED_JUDGE_ERROR) {
                return MEED_JUDGE_ERROR;
            }
            winner = marks[i].winner;
        }
    }
    return winner;
}
