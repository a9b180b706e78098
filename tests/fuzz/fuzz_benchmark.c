/* libFuzzer target: benchmarks, Meed's own JSON lines and those of MT-Bench-101.
 *
 * What decides about pay is read from this file, so whatever is accepted must be a game: items that
 * point at axes, categories and sequences that exist, something scored in each sequence, and a
 * finite value for finite sums.
 */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "evaluation/benchmark.h"
#include "tests/fuzz/memory_file.h"

enum { MOST_TOKENS = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file;
static struct meed_tokenizer *tokenizer;
static struct meed_chat *chat;

static void fuzz_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, meed_last_error());
    abort();
}

static void open_model(void)
{
    static const char folder[] = MEED_SOURCE_DIR "/examples/tiny/model";
    if (meed_log_configure("error") != MEED_OK ||
        meed_tokenizer_open(folder, &tokenizer) != MEED_OK ||
        meed_chat_open(folder, tokenizer, &chat) != MEED_OK) {
        fuzz_fail("no model to fuzz with");
    }
}

static bool in_range(int32_t value, int32_t count)
{
    return value >= 0 && value < count;
}

static void check_parts(const struct meed_benchmark *benchmark)
{
    for (int32_t i = 0; i < benchmark->item_count; i++) {
        const struct meed_benchmark_item *item = &benchmark->items[i];
        if (!in_range(item->axis, benchmark->axis_count) ||
            !in_range(item->category, benchmark->category_count) ||
            !in_range(item->dialogue, benchmark->dialogue_count) ||
            !in_range(item->plus, benchmark->sequence_count) ||
            (item->minus != -1 && !in_range(item->minus, benchmark->sequence_count))) {
            fuzz_fail("an item that points nowhere");
        }
    }
    for (int32_t s = 0; s < benchmark->sequence_count; s++) {
        int32_t scored = 0;
        for (int32_t t = 0; t < benchmark->sequences[s].length; t++) {
            scored += benchmark->sequences[s].scored[t];
        }
        if (scored < 1 || scored != benchmark->scored_tokens[s] ||
            benchmark->sequences[s].length > MOST_TOKENS) {
            fuzz_fail("a sequence of the wrong length, or with nothing to score");
        }
    }
}

static void check_benchmark(const struct meed_benchmark *benchmark)
{
    check_parts(benchmark);
    double *sums = calloc((size_t)benchmark->sequence_count + 1, sizeof *sums);
    double *utilities = calloc((size_t)benchmark->item_count + 1, sizeof *utilities);
    for (int32_t s = 0; s < benchmark->sequence_count; s++) {
        sums[s] = -2.0 * benchmark->scored_tokens[s];
    }
    meed_benchmark_items(benchmark, sums, utilities);
    if (!isfinite(meed_benchmark_value(benchmark, utilities, NULL))) {
        fuzz_fail("a value that is not finite");
    }
    free(sums);
    free(utilities);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!chat) {
        open_model();
    }
    struct meed_benchmark *benchmark = NULL;
    if (meed_benchmark_load(memory_file_put(&file, data, size), chat, MOST_TOKENS, &benchmark) ==
        MEED_OK) {
        check_benchmark(benchmark);
        meed_benchmark_destroy(benchmark);
    }
    return 0;
}
