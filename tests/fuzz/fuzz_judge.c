/* libFuzzer target: what judges and benchmarks of strangers send, first byte chooses the reader.
 *
 * 0: an endpoint's chat completion; an accepted one has text and a mass that sums to 1 or is 0.
 * 1: FastChat questions, whose answers the same bytes may be too; 2: judge prompts.
 */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "evaluation/judge_completion.h"
#include "evaluation/judge_prompt.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file;

static void completion(const uint8_t *data, size_t size, bool pair)
{
    struct meed_arena arena;
    struct meed_judge_reply reply;
    const char *sentence = "";
    meed_arena_init_growing(&arena, "fuzz", 64 << 20);
    if (meed_judge_completion_read((const char *)data, size, pair, &arena, &reply) == MEED_OK) {
        double sum = 0;
        for (int s = 0; s < MEED_JUDGE_MARKS; s++) {
            sum += reply.mass[s];
        }
        if (!reply.text || !(sum == 0 || fabs(sum - 1) < 1e-9)) {
            abort();
        }
    }
    if (meed_judge_completion_error((const char *)data, size, &arena, &sentence) != MEED_OK ||
        strlen(sentence) > 200) {
        abort();
    }
    meed_arena_clear(&arena);
}

static void questions(const uint8_t *data, size_t size)
{
    const char *path = memory_file_put(&file, data, size);
    struct meed_fastchat_questions *q = NULL;
    struct meed_fastchat_answers *answers = NULL;
    int32_t dropped = 0;
    if (meed_fastchat_questions_load(path, &q) != MEED_OK) {
        return;
    }
    for (int32_t i = 0; i < q->count; i++) {
        if (q->items[i].turn_count < 1 || q->items[i].turn_count > MEED_FASTCHAT_MAX_TURNS ||
            !q->items[i].turns[q->items[i].turn_count - 1]) {
            abort();
        }
    }
    if (meed_fastchat_answers_load(path, q, &answers) == MEED_OK) {
        meed_fastchat_answers_destroy(answers);
    }
    meed_status_discard(meed_fastchat_references_load(path, q, &dropped));
    meed_fastchat_questions_destroy(q);
}

static void prompts(const uint8_t *data, size_t size)
{
    static const struct meed_fastchat_question question = {
        .category = "c", .turn_count = 2, .turns = {"q", "r"}};
    static const char *const answers[] = {"{answer}", "b"};
    struct meed_judge_prompts *read = NULL;
    if (meed_judge_prompts_open(memory_file_put(&file, data, size), &read) != MEED_OK) {
        return;
    }
    for (int role = 0; role < MEED_JUDGE_ROLES; role++) {
        struct meed_buf text;
        meed_buf_init(&text, 1 << 20);
        meed_status_discard(meed_judge_prompt_fill(read, (enum meed_judge_role)role, &question,
                                                   role & 2 ? 1 : 0, answers, answers, &text));
        meed_buf_clear(&text);
    }
    meed_judge_prompts_close(read);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || meed_log_configure("error") != MEED_OK) {
        return 0;
    }
    switch (data[0] % 4) {
    case 0:
    case 3:
        completion(data + 1, size - 1, data[0] % 4 == 3);
        break;
    case 1:
        questions(data + 1, size - 1);
        break;
    default:
        prompts(data + 1, size - 1);
        break;
    }
    return 0;
}
