/* The byte-pair model: one word of bytes to ids, by merge rank.
 *
 * Tokens are kept as raw bytes: the byte-level alphabet of the file ("Ġthe") is undone once, when
 * the file is read, so the encoder never sees it and a lookup compares what the text holds. Two
 * hash tables carry everything: token bytes to id, and a pair of ids to (rank, id of the pair).
 *
 * A word that is itself a token need not be merged to that token: it may be unreachable, or another
 * order of merges may win. Whether it is reachable never changes, so the answer is kept beside the
 * token in one byte after the first time it was asked. That is the word cache: no growth, no locks
 * (a relaxed atomic byte that every thread would set to the same value), no eviction.
 */
#ifndef MEED_ENGINE_TOKENIZER_BPE_H
#define MEED_ENGINE_TOKENIZER_BPE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"

struct meed_tokenizer_text {
    const char *bytes; /* NULL: there is no token with this id */
    int32_t length;
};

struct meed_tokenizer_merge {
    uint64_t pair; /* left << 32 | right; MEED_TOKENIZER_NO_PAIR: free */
    int32_t rank;
    int32_t merged;
};
#define MEED_TOKENIZER_NO_PAIR UINT64_MAX

struct meed_tokenizer_bpe {
    int32_t token_count;                /* ids are below this */
    struct meed_tokenizer_text *tokens; /* [token_count] */
    _Atomic uint8_t *reach;             /* [token_count] the word cache, see above */
    int32_t *word_slots;                /* [word_mask + 1] id or -1 */
    uint32_t word_mask;
    struct meed_tokenizer_merge *merges; /* [merge_mask + 1] */
    uint32_t merge_mask;
    int32_t byte_ids[256]; /* -1: no token of this one byte */
    bool ignore_merges;    /* a word that is a token is that token (Llama 3) */
    bool fuse_unknown;
    int32_t unknown; /* id for bytes without token; -1: they are dropped */
};

/* Working memory of one encoding thread. */
struct meed_tokenizer_scratch {
    struct meed_buf symbols;
    struct meed_buf heap;
};

/* Tables for token_count ids and merge_count merges; tokens start empty. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_bpe_init(struct meed_tokenizer_bpe *bpe,
                                                         struct meed_arena *arena,
                                                         int32_t token_count, size_t merge_count);
/* Enters tokens[id] into the word table. The bytes are borrowed. */
void meed_tokenizer_bpe_enter(struct meed_tokenizer_bpe *bpe, int32_t id);
/* -1 if no entered token has these bytes. */
int32_t meed_tokenizer_bpe_find(const struct meed_tokenizer_bpe *bpe, const char *bytes,
                                size_t size);
/* A later merge of the same pair replaces the earlier, as in the reference. */
void meed_tokenizer_bpe_add_merge(struct meed_tokenizer_bpe *bpe, int32_t left, int32_t right,
                                  int32_t rank, int32_t merged);
/* Appends the ids of one word, int32 each. Thread-safe with a scratch per thread. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_bpe_encode(const struct meed_tokenizer_bpe *bpe,
                                                           const char *word, size_t size,
                                                           struct meed_tokenizer_scratch *scratch,
                                                           struct meed_buf *ids);
void meed_tokenizer_bpe_scratch_init(struct meed_tokenizer_scratch *scratch);
void meed_tokenizer_bpe_scratch_clear(struct meed_tokenizer_scratch *scratch);

#endif
