/* See tokenizer_bpe.h. Two merge loops with the same result: words of up to SHORT_WORD symbols keep
 * the rank of every neighbouring pair in an array and scan it, which beats a heap while the array
 * fits in a few cache lines; longer runs (base64, unbroken scripts, attacks) use a linked list and
 * a binary heap of (rank, place), O(n log n). Both take the lowest rank, leftmost first.
 */
#include "engine/tokenizer_bpe.h"

#include <string.h>

enum { SHORT_WORD = 40, REACH_UNKNOWN = 0, REACH_WHOLE = 1, REACH_PARTS = 2, NO_RANK = INT32_MAX };

struct symbol {
    int32_t id;   /* -1: merged into its left neighbour */
    int32_t rank; /* of the pair that starts here; NO_RANK: none */
    int32_t merged;
    int32_t prev;
    int32_t next;
};
struct candidate {
    int32_t rank;
    int32_t at;
};

static uint32_t hash_bytes(const char *bytes, size_t size)
{
    uint64_t hash = 0x9E3779B97F4A7C15u ^ size;
    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 32;
    }
    uint64_t rest = 0;
    memcpy(&rest, bytes, size);
    hash = (hash ^ rest) * 0xC4CEB9FE1A85EC53u;
    return (uint32_t)(hash ^ hash >> 29 ^ hash >> 47);
}

static uint32_t hash_pair(uint64_t pair)
{
    pair = (pair ^ pair >> 31) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(pair >> 32);
}

/* Smallest power of two that keeps a table of count entries at most half full. */
static uint32_t table_slots(size_t count)
{
    uint32_t slots = 16;
    while (slots < 2 * count && slots < 1u << 30) {
        slots *= 2;
    }
    return slots;
}

enum meed_status meed_tokenizer_bpe_init(struct meed_tokenizer_bpe *bpe, struct meed_arena *arena,
                                         int32_t token_count, size_t merge_count)
{
    void *block;
    *bpe = (struct meed_tokenizer_bpe){.token_count = token_count, .unknown = -1};
    uint32_t words = table_slots((size_t)token_count);
    uint32_t pairs = table_slots(merge_count);
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)token_count, sizeof *bpe->tokens, &block));
    bpe->tokens = block;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)token_count, sizeof *bpe->reach, &block));
    bpe->reach = block;
    MEED_TRY(meed_arena_alloc_array(arena, words, sizeof *bpe->word_slots, &block));
    bpe->word_slots = block;
    MEED_TRY(meed_arena_alloc_array(arena, pairs, sizeof *bpe->merges, &block));
    bpe->merges = block;
    bpe->word_mask = words - 1;
    bpe->merge_mask = pairs - 1;
    memset(bpe->word_slots, 0xFF, words * sizeof *bpe->word_slots);
    memset(bpe->byte_ids, 0xFF, sizeof bpe->byte_ids);
    for (uint32_t i = 0; i < pairs; i++) {
        bpe->merges[i].pair = MEED_TOKENIZER_NO_PAIR;
    }
    return MEED_OK;
}

void meed_tokenizer_bpe_enter(struct meed_tokenizer_bpe *bpe, int32_t id)
{
    const struct meed_tokenizer_text *token = &bpe->tokens[id];
    size_t size = (size_t)token->length;
    if (size == 0 || meed_tokenizer_bpe_find(bpe, token->bytes, size) >= 0) {
        return;
    }
    uint32_t slot = hash_bytes(token->bytes, size) & bpe->word_mask;
    while (bpe->word_slots[slot] >= 0) {
        slot = (slot + 1) & bpe->word_mask;
    }
    bpe->word_slots[slot] = id;
    if (size == 1) {
        bpe->byte_ids[(uint8_t)token->bytes[0]] = id;
    }
}

int32_t meed_tokenizer_bpe_find(const struct meed_tokenizer_bpe *bpe, const char *bytes,
                                size_t size)
{
    uint32_t slot = hash_bytes(bytes, size) & bpe->word_mask;
    for (; bpe->word_slots[slot] >= 0; slot = (slot + 1) & bpe->word_mask) {
        const struct meed_tokenizer_text *token = &bpe->tokens[bpe->word_slots[slot]];
        if ((size_t)token->length == size && memcmp(token->bytes, bytes, size) == 0) {
            return bpe->word_slots[slot];
        }
    }
    return -1;
}

/* The slot that holds the pair, or the free one where it belongs. */
static struct meed_tokenizer_merge *merge_slot(const struct meed_tokenizer_bpe *bpe, uint64_t pair)
{
    uint32_t slot = hash_pair(pair) & bpe->merge_mask;
    while (bpe->merges[slot].pair != pair && bpe->merges[slot].pair != MEED_TOKENIZER_NO_PAIR) {
        slot = (slot + 1) & bpe->merge_mask;
    }
    return &bpe->merges[slot];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void meed_tokenizer_bpe_add_merge(struct meed_tokenizer_bpe *bpe, int32_t left, int32_t right,
                                  int32_t rank, int32_t merged)
{
    struct meed_tokenizer_merge *merge = merge_slot(bpe, pair_of(left, right));
    *merge = (struct meed_tokenizer_merge){pair_of(left, right), rank, merged};
}

/* Fills rank and merged of the pair (symbol, right). */
static void symbol_pair(const struct meed_tokenizer_bpe *bpe, struct symbol *symbol, int32_t right)
{
    const struct meed_tokenizer_merge *merge = merge_slot(bpe, pair_of(symbol->id, right));
    bool known = merge->pair != MEED_TOKENIZER_NO_PAIR;
    symbol->rank = known ? merge->rank : NO_RANK;
    symbol->merged = merge->merged;
}

/* One symbol a byte; bytes without a token become the unknown id, or nothing. */
static int32_t symbols_from_bytes(const struct meed_tokenizer_bpe *bpe, const char *word,
                                  size_t size, struct symbol *symbols)
{
    int32_t count = 0;
    bool unknown_before = false;
    for (size_t i = 0; i < size; i++) {
        int32_t id = bpe->byte_ids[(uint8_t)word[i]];
        bool unknown = id < 0;
        if (unknown && (bpe->unknown < 0 || (unknown_before && bpe->fuse_unknown))) {
            continue;
        }
        unknown_before = unknown;
        symbols[count++].id = unknown ? bpe->unknown : id;
    }
    return count;
}

static int32_t merge_short(const struct meed_tokenizer_bpe *bpe, struct symbol *symbols,
                           int32_t count)
{
    for (int32_t i = 0; i + 1 < count; i++) {
        symbol_pair(bpe, &symbols[i], symbols[i + 1].id);
    }
    while (count > 1) {
        int32_t best = 0;
        for (int32_t i = 1; i + 1 < count; i++) {
            best = symbols[i].rank < symbols[best].rank ? i : best;
        }
        if (symbols[best].rank == NO_RANK) {
            break;
        }
        symbols[best].id = symbols[best].merged;
        count--;
        memmove(&symbols[best + 1], &symbols[best + 2],
                (size_t)(count - best - 1) * sizeof *symbols);
        if (best + 1 < count) {
            symbol_pair(bpe, &symbols[best], symbols[best + 1].id);
        }
        if (best > 0) {
            symbol_pair(bpe, &symbols[best - 1], symbols[best].id);
        }
    }
    return count;
}

static bool comes_first(struct candidate x, struct candidate y)
{
    return x.rank < y.rank || (x.rank == y.rank && x.at < y.at);
}

static enum meed_status heap_push(struct meed_buf *heap, int32_t rank, int32_t at)
{
    if (rank == NO_RANK) {
        return MEED_OK;
    }
    struct candidate made = {rank, at};
    MEED_TRY(meed_buf_append(heap, &made, sizeof made));
    struct candidate *items = (struct candidate *)(void *)heap->data;
    size_t child = heap->size / sizeof made - 1;
    while (child > 0 && comes_first(made, items[(child - 1) / 2])) {
        items[child] = items[(child - 1) / 2];
        child = (child - 1) / 2;
    }
    items[child] = made;
    return MEED_OK;
}

static struct candidate heap_pop(struct meed_buf *heap)
{
    struct candidate *items = (struct candidate *)(void *)heap->data;
    struct candidate first = items[0];
    size_t count = heap->size / sizeof first - 1;
    struct candidate last = items[count];
    heap->size -= sizeof first;
    size_t hole = 0;
    for (size_t child = 1; child < count; child = 2 * hole + 1) {
        child += child + 1 < count && comes_first(items[child + 1], items[child]);
        if (!comes_first(items[child], last)) {
            break;
        }
        items[hole] = items[child];
        hole = child;
    }
    if (count > 0) {
        items[hole] = last;
    }
    return first;
}

/* An entry of the heap is stale when the pair at its place has another rank by now. */
static enum meed_status merge_long(const struct meed_tokenizer_bpe *bpe, struct symbol *symbols,
                                   int32_t *count, struct meed_buf *heap)
{
    meed_buf_reset(heap);
    for (int32_t i = 0; i < *count; i++) {
        symbols[i].prev = i - 1;
        symbols[i].next = i + 1 < *count ? i + 1 : -1;
        symbols[i].rank = NO_RANK;
        if (symbols[i].next >= 0) {
            symbol_pair(bpe, &symbols[i], symbols[i + 1].id);
            MEED_TRY(heap_push(heap, symbols[i].rank, i));
        }
    }
    while (heap->size > 0) {
        struct candidate top = heap_pop(heap);
        struct symbol *left = &symbols[top.at];
        if (left->id < 0 || left->rank != top.rank) {
            continue;
        }
        struct symbol *right = &symbols[left->next];
        left->id = left->merged;
        left->next = right->next;
        left->rank = NO_RANK;
        right->id = -1;
        if (left->next >= 0) {
            symbols[left->next].prev = top.at;
            symbol_pair(bpe, left, symbols[left->next].id);
            MEED_TRY(heap_push(heap, left->rank, top.at));
        }
        if (left->prev >= 0) {
            symbol_pair(bpe, &symbols[left->prev], left->id);
            MEED_TRY(heap_push(heap, symbols[left->prev].rank, left->prev));
        }
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < *count; i++) {
        if (symbols[i].id >= 0) {
            symbols[kept++].id = symbols[i].id;
        }
    }
    *count = kept;
    return MEED_OK;
}

enum meed_status meed_tokenizer_bpe_encode(const struct meed_tokenizer_bpe *bpe, const char *word,
                                           size_t size, struct meed_tokenizer_scratch *scratch,
                                           struct meed_buf *ids)
{
    int32_t whole = meed_tokenizer_bpe_find(bpe, word, size);
    uint8_t reach =
        whole < 0 ? REACH_PARTS : atomic_load_explicit(&bpe->reach[whole], memory_order_relaxed);
    if (whole >= 0 && (bpe->ignore_merges || reach == REACH_WHOLE)) {
        return meed_buf_append(ids, &whole, sizeof whole);
    }
    struct symbol short_word[SHORT_WORD];
    struct symbol *symbols = short_word;
    if (size > SHORT_WORD) {
        void *block;
        meed_buf_reset(&scratch->symbols);
        MEED_TRY(meed_buf_extend(&scratch->symbols, size * sizeof *symbols, &block));
        symbols = block;
    }
    int32_t count = symbols_from_bytes(bpe, word, size, symbols);
    if (size > SHORT_WORD) {
        MEED_TRY(merge_long(bpe, symbols, &count, &scratch->heap));
    } else {
        count = merge_short(bpe, symbols, count);
    }
    if (reach == REACH_UNKNOWN) {
        bool is_whole = count == 1 && symbols[0].id == whole;
        atomic_store_explicit(&bpe->reach[whole], is_whole ? REACH_WHOLE : REACH_PARTS,
                              memory_order_relaxed);
    }
    void *block;
    MEED_TRY(meed_buf_extend(ids, (size_t)count * sizeof(int32_t), &block));
    for (int32_t i = 0; i < count; i++) {
        memcpy((char *)block + (size_t)i * sizeof(int32_t), &symbols[i].id, sizeof(int32_t));
    }
    return MEED_OK;
}

void meed_tokenizer_bpe_scratch_init(struct meed_tokenizer_scratch *scratch)
{
    meed_buf_init(&scratch->symbols, SIZE_MAX / 4);
    meed_buf_init(&scratch->heap, SIZE_MAX / 4);
}

void meed_tokenizer_bpe_scratch_clear(struct meed_tokenizer_scratch *scratch)
{
    meed_buf_clear(&scratch->symbols);
    meed_buf_clear(&scratch->heap);
}
