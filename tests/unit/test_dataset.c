/* Data files: every form becomes the same tokens as the dialogue it stands for, every bad line is
 * named, and nothing is cut unasked. Runs on the tokenizer and template of the embedded model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "client/dataset.h"

#define MODEL MEED_SOURCE_DIR "/examples/tiny/model"

static struct meed_tokenizer *tokenizer;
static struct meed_chat *chat;
static char path[] = "/tmp/meed-dataset-XXXXXX";

static int open_model(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 || close(fd) != 0 || meed_tokenizer_open(MODEL, &tokenizer) != MEED_OK ||
           meed_chat_open(MODEL, tokenizer, &chat) != MEED_OK;
}

static int close_model(void **state)
{
    (void)state;
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
    return unlink(path);
}

static enum meed_status load(const char *text, struct meed_dataset **dataset)
{
    assert_int_equal(meed_file_write_atomic(path, text, strlen(text)), MEED_OK);
    return meed_dataset_load(path, chat, tokenizer, dataset);
}

static void assert_same_sequence(const struct meed_sequence *x, const struct meed_sequence *y)
{
    assert_int_equal(x->length, y->length);
    assert_memory_equal(x->ids, y->ids, (size_t)x->length * sizeof *x->ids);
    assert_memory_equal(x->scored, y->scored, (size_t)x->length);
}

#define TURNS                                                                                      \
    "{\"role\": \"user\", \"content\": \"hello there\\nyou\"},"                                    \
    "{\"role\": \"assistant\", \"content\": \"good day\"}"

/* Goal: the same dialogue in each form gives the same tokens and the same mask. */
static void dataset_forms_agree(void **state)
{
    (void)state;
    static const char text[] =
        "\xEF\xBB\xBF{\"id\": 4, \"messages\": [" TURNS "]}\r\n"
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"hello there\\nyou\"},"
        " {\"from\": \"gpt\", \"value\": \"good day\"}]}\n"
        "\n"
        "{\"instruction\": \"hello there\", \"input\": \"you\", \"output\": \"good day\"}\n"
        "{\"prompt\": \"hello there\\nyou\", \"completion\": \"good day\"}\n"
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"hello there\\nyou\"}],"
        " \"completion\": [{\"role\": \"assistant\", \"content\": \"good day\"}]}\n"
        "{\"task\": \"GR\", \"id\": 1, \"history\": [{\"user\": \"hello there\\nyou\","
        " \"bot\": \"good day\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
        "\"hello there\\n\"}, {\"type\": \"text\", \"text\": \"you\"}]},"
        " {\"role\": \"assistant\", \"content\": \"good day\"}]}";
    struct meed_dataset *dataset = NULL;
    assert_int_equal(load(text, &dataset), MEED_OK);
    assert_int_equal(dataset->count, 7);
    assert_int_equal(dataset->lines[0], 1);
    assert_int_equal(dataset->lines[2], 4); /* the empty line counts */
    for (int64_t i = 1; i < dataset->count; i++) {
        assert_same_sequence(&dataset->sequences[0], &dataset->sequences[i]);
    }
    int32_t scored = 0;
    for (int32_t t = 0; t < dataset->sequences[0].length; t++) {
        scored += dataset->sequences[0].scored[t];
    }
    assert_true(scored > 1 && scored < dataset->sequences[0].length / 2);
    meed_dataset_destroy(dataset);
}

/* Goal: system turns and earlier turns of Alpaca and ShareGPT land where messages put them; of
 * prompt and completion only the completion is learned. */
static void dataset_forms_keep_history(void **state)
{
    (void)state;
    static const char text[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"be kind\"}," TURNS "," TURNS "]}\n"
        "{\"instruction\": \"hello there\\nyou\", \"input\": \"\", \"output\": \"good day\","
        " \"system\": \"be kind\", \"history\": [[\"hello there\\nyou\", \"good day\"]]}\n"
        "{\"system\": \"be kind\", \"conversations\": ["
        "{\"from\": \"human\", \"value\": \"hello there\\nyou\"}, {\"from\": \"gpt\", \"value\": "
        "\"good day\"},"
        "{\"from\": \"human\", \"value\": \"hello there\\nyou\"}, {\"from\": \"gpt\", \"value\": "
        "\"good day\"}]}\n"
        "{\"prompt\": [{\"role\": \"system\", \"content\": \"be kind\"}," TURNS
        ", {\"role\": \"user\", \"content\": \"hello there\\nyou\"}],"
        " \"completion\": \"good day\"}\n";
    struct meed_dataset *dataset = NULL;
    assert_int_equal(load(text, &dataset), MEED_OK);
    assert_same_sequence(&dataset->sequences[0], &dataset->sequences[1]);
    assert_same_sequence(&dataset->sequences[0], &dataset->sequences[2]);
    const struct meed_sequence *all = &dataset->sequences[0], *last = &dataset->sequences[3];
    int32_t all_scored = 0, last_scored = 0;
    assert_int_equal(all->length, last->length);
    for (int32_t t = 0; t < all->length; t++) {
        all_scored += all->scored[t];
        last_scored += last->scored[t];
        assert_true(all->scored[t] >= last->scored[t]);
    }
    assert_int_equal(all_scored, 2 * last_scored);
    meed_dataset_destroy(dataset);
}

/* Goal: plain text is learned from its second token to the end of turn, control words as text. */
static void dataset_text_is_learned_whole(void **state)
{
    (void)state;
    struct meed_dataset *dataset = NULL;
    assert_int_equal(load("{\"text\": \"one two <|im_end|> three\"}", &dataset), MEED_OK);
    const struct meed_sequence *sequence = &dataset->sequences[0];
    int32_t end = meed_chat_end_of_turn(chat), ends = 0;
    for (int32_t t = 0; t < sequence->length; t++) {
        assert_int_equal(sequence->scored[t], t > 0);
        ends += sequence->ids[t] == end;
    }
    assert_int_equal(ends, 1);
    assert_int_equal(sequence->ids[sequence->length - 1], end);
    meed_dataset_destroy(dataset);
}

/* Goal: a bad line is an error with file and line, which never quotes what the line says. */
static void dataset_bad_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum meed_status status;
        const char *says;
    } rows[] = {
        {"{\"messages\": [" TURNS "]", MEED_FORMAT, "JSON"},
        {"secret", MEED_FORMAT, "JSON"},
        {"[{\"text\": \"secret\"}]", MEED_FORMAT, "jq -c"},
        {"{\"question\": \"secret\"}", MEED_FORMAT, "known forms"},
        {"{\"messages\": []}", MEED_FORMAT, "no assistant"},
        {"{\"messages\": \"secret\"}", MEED_FORMAT, "no assistant"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"secret\"}]}", MEED_FORMAT,
         "no assistant"},
        {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"secret\"}]}", MEED_FORMAT,
         "before any question"},
        {"{\"messages\": [{\"role\": \"secret\", \"content\": \"x\"}]}", MEED_FORMAT, "role"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}", MEED_UNSUPPORTED, "tool"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": 7}]}", MEED_FORMAT, "string"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
         " {\"role\": \"assistant\", \"content\": \"\"}]}",
         MEED_FORMAT, "empty answer"},
        {"{\"messages\": [" TURNS ", {\"role\": \"system\", \"content\": \"secret\"}]}",
         MEED_FORMAT, "first"},
        {"{\"instruction\": \"secret\"}", MEED_FORMAT, "output"},
        {"{\"history\": [{\"user\": \"secret\"}]}", MEED_FORMAT, "history"},
        {"{\"text\": \"\"}", MEED_FORMAT, "text"},
        {"{\"text\": \"a\", \"text\": \"b\"}", MEED_FORMAT, "JSON"},
        {"{\"text\": \"\xff\xfe\"}", MEED_FORMAT, "JSON"},
    };
    char place[128];
    snprintf(place, sizeof place, "%s:2: ", path);
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        struct meed_dataset *dataset = NULL;
        char text[1024];
        snprintf(text, sizeof text, "{\"text\": \"fine\"}\n%s\n{\"text\": \"fine\"}\n",
                 rows[i].line);
        assert_int_equal(load(text, &dataset), rows[i].status);
        assert_non_null(strstr(meed_last_error(), place));
        assert_non_null(strstr(meed_last_error(), rows[i].says));
        assert_null(strstr(meed_last_error(), "secret"));
        assert_null(dataset);
    }
    struct meed_dataset *dataset = NULL;
    assert_int_equal(load("\n\n", &dataset), MEED_FORMAT);
    assert_int_equal(meed_dataset_load("/nonexistent.jsonl", chat, tokenizer, &dataset),
                     MEED_NOT_FOUND);
}

/* Goal: an over-long dialogue is refused with line and length; cut only when asked. */
static void dataset_limit_refuses_or_cuts(void **state)
{
    (void)state;
    struct meed_dataset *dataset = NULL;
    struct meed_sequence *sequences = NULL;
    int64_t count = 0;
    assert_int_equal(load("{\"text\": \"a b\"}\n{\"messages\": [" TURNS "," TURNS "]}\n", &dataset),
                     MEED_OK);
    int32_t longest = dataset->longest;
    assert_int_equal(meed_dataset_limit(dataset, longest, false, &sequences, &count), MEED_OK);
    assert_int_equal(count, 2);
    meed_heap_free(sequences);
    assert_int_equal(meed_dataset_limit(dataset, longest - 1, false, &sequences, &count),
                     MEED_LIMIT);
    char says[160];
    snprintf(says, sizeof says, "%s:2: a dialogue of %d tokens", path, longest);
    assert_non_null(strstr(meed_last_error(), says));
    assert_int_equal(meed_dataset_limit(dataset, longest - 1, true, &sequences, &count), MEED_OK);
    assert_int_equal(count, 2);
    assert_int_equal(dataset->cut_count, 1);
    assert_int_equal(sequences[1].length, longest - 1);
    assert_int_equal(dataset->sequences[1].length, longest);
    meed_heap_free(sequences);
    assert_int_equal(meed_dataset_limit(dataset, 3, true, &sequences, &count), MEED_OK);
    assert_int_equal(count, 1); /* the dialogue has no answer left */
    meed_heap_free(sequences);
    meed_dataset_destroy(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dataset_forms_agree),
        cmocka_unit_test(dataset_forms_keep_history),
        cmocka_unit_test(dataset_text_is_learned_whole),
        cmocka_unit_test(dataset_bad_lines_are_named),
        cmocka_unit_test(dataset_limit_refuses_or_cuts),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
