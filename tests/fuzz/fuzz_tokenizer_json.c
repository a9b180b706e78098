/* Fuzz target: tokenizer.json bytes, then a text through whatever tokenizer they make.
 *
 * A model folder comes from the network as often as not, so its files are a stranger's bytes. The
 * input is a tokenizer.json; if it opens, a fixed text with blanks, digits, accents and broken
 * UTF-8 is encoded both ways and decoded. Seeds: tests/golden/tokenizer.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "base/log.h"
#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const char text[] =
    "The 12 cafe\xCC\x81s don't  pay\r\n\n twice\xFF <|im_end|> word [BOTH] \xF0\x9F\x99";

static void encode_and_decode(const struct meed_tokenizer *tokenizer, bool parse_special)
{
    struct meed_buf ids;
    struct meed_buf back;
    meed_buf_init(&ids, 1 << 20);
    meed_buf_init(&back, 1 << 24);
    if (meed_tokenizer_encode(tokenizer, text, sizeof text - 1, parse_special, &ids) == MEED_OK) {
        const int32_t *id = (const int32_t *)(const void *)ids.data;
        size_t count = ids.size / sizeof *id;
        for (size_t i = 0; i < count; i++) {
            if (id[i] < 0 || id[i] >= meed_tokenizer_vocab_size(tokenizer) ||
                (!parse_special && meed_tokenizer_is_special(tokenizer, id[i]))) {
                abort();
            }
        }
        meed_status_discard(meed_tokenizer_decode(tokenizer, id, count, true, &back));
    }
    meed_buf_clear(&ids);
    meed_buf_clear(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct meed_tokenizer *tokenizer = NULL;
    meed_status_discard(meed_log_configure("error"));
    if (meed_tokenizer_open_bytes("fuzz", bytes, size, &tokenizer) == MEED_OK) {
        encode_and_decode(tokenizer, false);
        encode_and_decode(tokenizer, true);
        meed_tokenizer_close(tokenizer);
    }
    return 0;
}
