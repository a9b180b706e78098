/* What tokenizer.json becomes in memory; shared by tokenizer.c, tokenizer_file.c and nobody else.
 *
 * The file's reader fills the struct once; the encoder only reads it (the reach bytes of the
 * byte-pair model are atomics, see tokenizer_bpe.h). Everything but the compiled patterns lives in
 * the arena.
 */
#ifndef MEED_ENGINE_TOKENIZER_INTERNAL_H
#define MEED_ENGINE_TOKENIZER_INTERNAL_H

#include "base/arena.h"
#include "engine/tokenizer_added.h"
#include "engine/tokenizer_bpe.h"
#include "engine/tokenizer_pretok.h"

struct meed_tokenizer {
    struct meed_arena arena;
    struct meed_tokenizer_bpe bpe;
    struct meed_tokenizer_pretok pretok;
    struct meed_tokenizer_added raw;        /* cut from the text as it comes */
    struct meed_tokenizer_added normalized; /* cut after normalisation */
    bool nfc;
    int32_t vocab_size;
    struct meed_tokenizer_text *texts; /* [vocab_size] what decoding writes */
    uint8_t *special;                  /* [vocab_size] */
};

/* Fills a zeroed tokenizer; on failure the caller closes what there is. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_file_parse(const char *name, const char *bytes,
                                                           size_t size,
                                                           struct meed_tokenizer *tokenizer);

#endif
