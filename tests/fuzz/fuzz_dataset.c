/* libFuzzer target: JSON lines of dialogues, in all the forms a client may have.
 *
 * The tokenizer and template are those of the embedded model. Whatever is accepted must be ready to
 * train on: ids of the vocabulary, a mask of zeros and ones that begins with zero, lines that
 * increase; and cutting it short must not break that.
 */
#include <string.h>

#include "base/log.h"
#include "client/dataset.h"
#include "tests/fuzz/memory_file.h"

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

static void check_sequence(const struct meed_sequence *sequence)
{
    if (sequence->length < 1 || sequence->scored[0] != 0) {
        fuzz_fail("a sequence that begins with a target");
    }
    for (int32_t t = 0; t < sequence->length; t++) {
        if (sequence->ids[t] < 0 || sequence->ids[t] >= meed_tokenizer_vocab_size(tokenizer) ||
            sequence->scored[t] > 1) {
            fuzz_fail("an id outside the vocabulary, or a mask of something else");
        }
    }
}

static void check_dataset(struct meed_dataset *dataset)
{
    for (int64_t i = 0; i < dataset->count; i++) {
        check_sequence(&dataset->sequences[i]);
        if (dataset->lines[i] < 1 || (i > 0 && dataset->lines[i] <= dataset->lines[i - 1])) {
            fuzz_fail("lines that do not increase");
        }
    }
    struct meed_sequence *sequences = NULL;
    int64_t count = 0;
    if (meed_dataset_limit(dataset, 16, true, &sequences, &count) == MEED_OK) {
        for (int64_t i = 0; i < count; i++) {
            check_sequence(&sequences[i]);
            if (sequences[i].length > 16) {
                fuzz_fail("not cut");
            }
        }
        meed_heap_free(sequences);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!chat) {
        open_model();
    }
    struct meed_dataset *dataset = NULL;
    if (meed_dataset_load(memory_file_put(&file, data, size), chat, tokenizer, &dataset) ==
        MEED_OK) {
        check_dataset(dataset);
        meed_dataset_destroy(dataset);
    }
    return 0;
}
