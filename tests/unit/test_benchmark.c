/* Benchmark loading: Meed's format and MT-Bench-101 on the embedded tokenizer, what items mean, and
 * a table of broken files with the sentence each must end in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "engine/coalition.h"
#include "evaluation/benchmark.h"

#define MODEL MEED_SOURCE_DIR "/examples/tiny/model"
#define HEADER                                                                                     \
    "{\"meed_benchmark\": 1, \"name\": \"t\", \"axes\": ["                                         \
    "{\"name\": \"talk\", \"kind\": \"likelihood\"},"                                              \
    "{\"name\": \"fit\", \"kind\": \"contrast\", \"guard\": true},"                                \
    "{\"name\": \"safe\", \"kind\": \"preference\", \"guard\": true}]}\n"
#define USER(text) "{\"role\": \"user\", \"content\": \"" text "\"}"
#define BOT(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define ITEM(id, axes, messages)                                                                   \
    "{\"id\": \"" id "\", \"category\": \"c\", \"axes\": [" axes "], \"messages\": [" messages     \
    "]}\n"

static struct meed_tokenizer *tokenizer;
static struct meed_chat *chat;

static int model_open(void **state)
{
    (void)state;
    return meed_tokenizer_open(MODEL, &tokenizer) != MEED_OK ||
           meed_chat_open(MODEL, tokenizer, &chat) != MEED_OK;
}

static int model_close(void **state)
{
    (void)state;
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
    return 0;
}

static enum meed_status load_text(const char *text, int32_t max_length,
                                  struct meed_benchmark **benchmark)
{
    char path[] = "/tmp/meed-benchmark-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    enum meed_status st = meed_benchmark_load(path, chat, max_length, benchmark);
    unlink(path);
    return st;
}

static void benchmark_loads_the_embedded_file(void **state)
{
    /* Goal: axes, categories and items of examples/tiny; sequences are shared between axes; rows
     * count equal token sequences once. */
    (void)state;
    struct meed_benchmark *b = NULL;
    assert_int_equal(
        meed_benchmark_load(MEED_SOURCE_DIR "/examples/tiny/benchmark.jsonl", chat, 512, &b),
        MEED_OK);
    assert_int_equal(b->axis_count, 3);
    assert_true(b->axes[0].weight == 1 && b->axes[1].guard && b->axes[2].guard);
    assert_true(b->axes[1].kind == MEED_AXIS_CONTRAST && b->axes[2].kind == MEED_AXIS_PREFERENCE);
    assert_true(b->dialogue_count > 0 && b->item_count > b->dialogue_count);
    assert_true(b->sequence_count <= 2 * b->item_count);
    int64_t rows = 0;
    for (int32_t i = 0; i < b->sequence_count; i++) {
        rows += b->sequences[i].length - 1;
        assert_true(b->scored_tokens[i] > 0);
    }
    assert_true(b->tokens > 0 && b->tokens < rows);
    uint8_t hash[MEED_SHA256_BYTES];
    assert_int_equal(meed_sha256_file(MEED_SOURCE_DIR "/examples/tiny/benchmark.jsonl", hash),
                     MEED_OK);
    assert_memory_equal(hash, b->hash, sizeof hash);
    meed_benchmark_destroy(b);
}

static void benchmark_items_are_differences_of_means(void **state)
{
    /* Goal: two dialogues; likelihood = sum/tokens of all replies; contrast borrows the other's
     * question, cyclic; single-turn likelihood and contrast share a sequence. */
    (void)state;
    struct meed_benchmark *b = NULL;
    assert_int_equal(
        load_text(HEADER ITEM("a", "\"talk\", \"fit\"", USER("Where is it?") "," BOT("Upstairs."))
                      ITEM("b", "\"talk\", \"fit\"",
                           USER("Hello.") "," BOT("Yes?") "," USER("Who?") "," BOT("Nobody.")),
                  512, &b),
        MEED_OK);
    assert_int_equal(b->item_count, 4);
    assert_int_equal(b->items[0].plus, b->items[1].plus);
    assert_int_equal(b->items[0].minus, -1);
    assert_true(b->items[2].plus != b->items[3].plus);
    assert_int_equal(b->sequence_count, 5);
    /* a's contrast: b's context, then "Upstairs."; as many scored tokens as a's own. */
    const struct meed_sequence *borrowed = &b->sequences[b->items[1].minus];
    const struct meed_sequence *context = &b->sequences[b->items[3].plus];
    assert_int_equal(b->scored_tokens[b->items[1].minus], b->scored_tokens[b->items[1].plus]);
    assert_true(borrowed->ids[0] == context->ids[0] && borrowed->length > 4);
    double sums[5];
    double utilities[4];
    for (int i = 0; i < 5; i++) {
        sums[i] = -1.0 - i;
    }
    meed_benchmark_items(b, sums, utilities);
    int32_t plus = b->items[1].plus;
    int32_t minus = b->items[1].minus;
    assert_true(utilities[0] == sums[plus] / b->scored_tokens[plus]);
    assert_true(utilities[1] ==
                sums[plus] / b->scored_tokens[plus] - sums[minus] / b->scored_tokens[minus]);
    assert_true(fabs(meed_benchmark_value(b, utilities, NULL) - (utilities[0] + utilities[2]) / 2) <
                1e-15);
    const double weight[4] = {3, 3, 1, 1};
    assert_true(fabs(meed_benchmark_axis_value(b, 0, utilities, weight) -
                     (3 * utilities[0] + utilities[2]) / 4) < 1e-15);
    meed_benchmark_destroy(b);
}

static void benchmark_weighs_categories_alike(void **state)
{
    (void)state; /* Goal: the axis value is the mean over categories of means over dialogues. */
    struct meed_benchmark_item items[4] = {
        {.category = 0}, {.category = 0}, {.category = 0}, {.category = 1}};
    struct meed_benchmark b = {
        .axis_count = 1, .category_count = 2, .item_count = 4, .items = items};
    b.axes[0].weight = 2;
    const double utilities[4] = {1, 2, 3, 10};
    assert_true(meed_benchmark_axis_value(&b, 0, utilities, NULL) == 6);
    assert_true(meed_benchmark_value(&b, utilities, NULL) == 12);
}

static void benchmark_refuses_broken_files_with_file_and_line(void **state)
{
    /* Goal: every row is a file, the status, and words that the message must hold. */
    (void)state;
    static const struct {
        const char *text;
        enum meed_status status;
        const char *words;
    } table[] = {
        {"", MEED_FORMAT, "holds no dialogue"},
        {HEADER, MEED_FORMAT, "holds no dialogue"},
        {"{\"meed_benchmark\": 2, \"name\": \"t\", \"axes\": []}\n", MEED_VERSION, ":1: "},
        {"{\"meed_benchmark\": 1, \"name\": \"t\", \"axes\": []}\n", MEED_FORMAT, ":1: "},
        {"{\"meed_benchmark\": 1, \"name\": \"t\", \"axes\": [{\"name\": \"x\", \"kind\": \"y\"}]}",
         MEED_FORMAT, "known are likelihood"},
        {"{\"meed_benchmark\": 1, \"name\": \"t\", \"axes\": [{\"name\": \"x\", \"kind\": "
         "\"contrast\", \"guard\": true, \"weight\": 1}]}",
         MEED_FORMAT, "pays nothing"},
        {"{\"meed_benchmark\": 1, \"name\": \"t\", \"axes\": [{\"name\": \"x\", \"kind\": "
         "\"contrast\", \"guard\": true}]}",
         MEED_FORMAT, "no axis has a weight"},
        {"{\"meed_benchmark\": 1, \"name\": \"t\", \"axis\": []}", MEED_FORMAT,
         "unknown key \"axis\""},
        {HEADER "\n{oops}\n", MEED_FORMAT, ":3: not JSON"},
        {HEADER "[1]\n", MEED_FORMAT, ":2: the dialogue is not a JSON object"},
        {HEADER ITEM("a", "\"talk\"", USER("x")), MEED_FORMAT, "needs an assistant message"},
        {HEADER ITEM("a", "\"walk\"", USER("x") "," BOT("y")), MEED_FORMAT, "\"walk\" is not in"},
        {HEADER ITEM("a", "\"talk\", \"talk\"", USER("x") "," BOT("y")), MEED_FORMAT, "twice"},
        {HEADER ITEM("a", "", USER("x") "," BOT("y")), MEED_FORMAT, "must list the axes"},
        {HEADER ITEM("a", "\"talk\"", ""), MEED_FORMAT, "1 to 256 messages"},
        {HEADER ITEM("a", "\"talk\"", "{\"role\": \"boss\", \"content\": \"x\"}"), MEED_FORMAT,
         "\"boss\" is none"},
        {HEADER ITEM("a", "\"talk\"", "{\"role\": \"user\", \"content\": 3}"), MEED_FORMAT,
         "non-empty text \"content\""},
        {HEADER ITEM("a", "\"fit\"", USER("x") "," BOT("y")), MEED_FORMAT, "second dialogue"},
        {HEADER ITEM("a", "\"fit\"", USER("x")), MEED_FORMAT, "last message by the assistant"},
        {HEADER ITEM("a", "\"safe\"", USER("x")), MEED_FORMAT, "two different replies"},
        {HEADER ITEM("a", "\"talk\"", USER("x") "," BOT("y"))
             ITEM("a", "\"talk\"", USER("x") "," BOT("z")),
         MEED_FORMAT, ":3: id \"a\" was used on line 2"},
        {"{\"task\": \"CM\", \"id\": 1, \"history\": [{\"user\": \"x\"}]}", MEED_FORMAT,
         ":1: a turn of \"history\" needs a non-empty text \"bot\""},
    };
    for (size_t i = 0; i < MEED_COUNT(table); i++) {
        struct meed_benchmark *b = NULL;
        enum meed_status st = load_text(table[i].text, 512, &b);
        if (st != table[i].status || !strstr(meed_last_error(), table[i].words)) {
            fail_msg("row %zu: status %s, message: %s", i, meed_status_name(st), meed_last_error());
        }
        assert_non_null(strstr(meed_last_error(), "/tmp/meed-benchmark-"));
        assert_null(b);
    }
}

static void benchmark_names_the_dialogue_that_is_too_long(void **state)
{
    (void)state; /* Goal: LIMIT with file, line and both lengths. */
    struct meed_benchmark *b = NULL;
    assert_int_equal(load_text(HEADER ITEM("a", "\"talk\"", USER("x") "," BOT("y"))
                                   ITEM("b", "\"talk\"",
                                        USER("one two three four five six seven") "," BOT(
                                            "eight nine ten eleven twelve thirteen")),
                               16, &b),
                     MEED_LIMIT);
    assert_non_null(strstr(meed_last_error(), ":3: the dialogue takes "));
    assert_non_null(strstr(meed_last_error(), "at most 16"));
}

static void benchmark_reads_mt_bench_101(void **state)
{
    /* Goal: a file in its format, and the published one where it is at hand: 1,388 dialogues in 13
     * tasks (counts of the paper), one likelihood axis. */
    (void)state;
    struct meed_benchmark *b = NULL;
    assert_int_equal(load_text("{\"task\": \"GR\", \"id\": 1, \"history\": [{\"user\": \"Who?\", "
                               "\"bot\": \"Me.\"}, {\"user\": \"Why?\", \"bot\": \"So.\"}]}\n"
                               "{\"task\": \"CM\", \"id\": 1, \"history\": [{\"user\": \"Hi\", "
                               "\"bot\": \"Hello.\"}]}\n",
                               512, &b),
                     MEED_OK);
    assert_int_equal(b->category_count, 2);
    assert_string_equal(b->items[0].id, "GR-1");
    assert_int_equal(b->item_count, 2);
    meed_benchmark_destroy(b);
    const char *path = MEED_SHARED_DATA "/bench/mtbench101/mtbench101.jsonl";
    if (!meed_file_exists(path)) {
        print_message("MT-Bench-101 is not at hand: skipped\n");
        skip();
    }
    assert_int_equal(meed_benchmark_load(path, chat, 1 << 20, &b), MEED_OK);
    assert_int_equal(b->dialogue_count, 1388);
    assert_int_equal(b->category_count, 13);
    meed_benchmark_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(benchmark_loads_the_embedded_file),
        cmocka_unit_test(benchmark_items_are_differences_of_means),
        cmocka_unit_test(benchmark_weighs_categories_alike),
        cmocka_unit_test(benchmark_refuses_broken_files_with_file_and_line),
        cmocka_unit_test(benchmark_names_the_dialogue_that_is_too_long),
        cmocka_unit_test(benchmark_reads_mt_bench_101),
    };
    return cmocka_run_group_tests(tests, model_open, model_close);
}
