/* See rouge.h. The masks belong to the candidate, not to the references: a corpus is then nothing
 * but numbered words, and what a candidate costs is one table over its own words. Words that the
 * corpus does not know can match nothing; they take a bit and set none.
 */
#include "engine/rouge.h"

#include <string.h>
#include "engine/rouge_words.h"

enum { WORD_BITS = 64, FIRST_SLOTS = 64, UNKNOWN = -1 };

struct meed_rouge_corpus {
    struct meed_buf spelling; /* the known words, NUL behind each */
    struct meed_buf starts;   /* size_t [known]: where word w begins in spelling */
    struct meed_buf ids;      /* int32: the words of all texts end to end */
    struct meed_buf ends;     /* int64 [texts]: where each ends in ids */
    int32_t *slots;           /* [slot_count] hash table of words; UNKNOWN: free */
    uint32_t slot_count;      /* a power of two, at least twice the words */
};

struct pattern {
    int32_t length;  /* words of the candidate */
    int32_t blocks;  /* of 64 bits */
    int32_t *rows;   /* [known]: the mask of a word, 0: it is not in the candidate */
    uint64_t *masks; /* [1 + distinct, blocks]; row 0 unused */
    uint64_t *state; /* [blocks]: V */
};

/* --- the words of a corpus -------------------------------------------------------------------- */
static int32_t known_count(const struct meed_rouge_corpus *corpus)
{
    return (int32_t)(corpus->starts.size / sizeof(size_t));
}

static const char *spelled(const struct meed_rouge_corpus *corpus, int32_t id)
{
    size_t start;
    memcpy(&start, corpus->starts.data + (size_t)id * sizeof start, sizeof start);
    return corpus->spelling.data + start;
}

/* FNV-1a: words are short, and their table is a client's own data or its model's replies. */
static uint64_t hash_word(const char *word)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *word; word++) {
        hash = (hash ^ (uint8_t)*word) * 0x100000001B3u;
    }
    return hash ^ hash >> 32;
}

/* The slot that holds the word, or the free one where it belongs. */
static int32_t *slot_of(const struct meed_rouge_corpus *corpus, const char *word)
{
    uint64_t mask = corpus->slot_count - 1;
    uint64_t at = hash_word(word) & mask;
    while (corpus->slots[at] != UNKNOWN && strcmp(spelled(corpus, corpus->slots[at]), word) != 0) {
        at = (at + 1) & mask;
    }
    return &corpus->slots[at];
}

static enum meed_status make_slots(struct meed_rouge_corpus *corpus, uint32_t slot_count)
{
    int32_t *slots = meed_heap_alloc(slot_count, sizeof *slots);
    if (!slots) {
        return MEED_NOMEM;
    }
    memset(slots, 0xFF, slot_count * sizeof *slots); /* UNKNOWN */
    meed_heap_free(corpus->slots);
    corpus->slots = slots;
    corpus->slot_count = slot_count;
    for (int32_t id = 0; id < known_count(corpus); id++) {
        *slot_of(corpus, spelled(corpus, id)) = id;
    }
    return MEED_OK;
}

static enum meed_status number_word(struct meed_rouge_corpus *corpus, const char *word, int32_t *id)
{
    int32_t *slot = slot_of(corpus, word);
    if (*slot == UNKNOWN) {
        size_t start = corpus->spelling.size;
        if ((uint32_t)known_count(corpus) >= corpus->slot_count / 2) {
            MEED_TRY(make_slots(corpus, 2 * corpus->slot_count));
            slot = slot_of(corpus, word);
        }
        MEED_TRY(meed_buf_append(&corpus->spelling, word, strlen(word) + 1));
        MEED_TRY(meed_buf_append(&corpus->starts, &start, sizeof start));
        *slot = known_count(corpus) - 1;
    }
    *id = *slot;
    return MEED_OK;
}

/* The words of a text one after another, and how many there are. */
static enum meed_status read_words(const char *text, size_t size, struct meed_buf *words,
                                   int32_t *count)
{
    MEED_TRY(meed_rouge_words_append(text, size, words));
    size_t found = 0;
    for (size_t i = 0; i < words->size; i++) {
        found += words->data[i] == '\0';
    }
    if (found > MEED_ROUGE_MAX_WORDS) {
        return MEED_FAIL(MEED_LIMIT, "a text of %zu words cannot be compared; the limit is %d",
                         found, (int)MEED_ROUGE_MAX_WORDS);
    }
    *count = (int32_t)found;
    return MEED_OK;
}

enum meed_status meed_rouge_corpus_create(struct meed_rouge_corpus **corpus)
{
    struct meed_rouge_corpus *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    struct meed_buf *const buffers[] = {&made->spelling, &made->starts, &made->ids, &made->ends};
    for (size_t i = 0; i < MEED_COUNT(buffers); i++) {
        meed_buf_init(buffers[i], (size_t)1 << 33);
    }
    enum meed_status st = make_slots(made, FIRST_SLOTS);
    if (st != MEED_OK) {
        meed_rouge_corpus_destroy(made);
        return st;
    }
    *corpus = made;
    return MEED_OK;
}

void meed_rouge_corpus_destroy(struct meed_rouge_corpus *corpus)
{
    if (!corpus) {
        return;
    }
    meed_buf_clear(&corpus->spelling);
    meed_buf_clear(&corpus->starts);
    meed_buf_clear(&corpus->ids);
    meed_buf_clear(&corpus->ends);
    meed_heap_free(corpus->slots);
    meed_heap_free(corpus);
}

enum meed_status meed_rouge_corpus_add(struct meed_rouge_corpus *corpus, const char *text,
                                       size_t size)
{
    struct meed_buf words;
    meed_buf_init(&words, SIZE_MAX / 4);
    enum meed_status st;
    int32_t count = 0;
    size_t ids_before = corpus->ids.size;
    MEED_TRY_OUT(read_words(text, size, &words, &count));
    for (const char *word = words.data; count > 0; count--, word += strlen(word) + 1) {
        int32_t id = 0;
        MEED_TRY_OUT(number_word(corpus, word, &id));
        MEED_TRY_OUT(meed_buf_append(&corpus->ids, &id, sizeof id));
    }
    int64_t end = (int64_t)(corpus->ids.size / sizeof(int32_t));
    MEED_TRY_OUT(meed_buf_append(&corpus->ends, &end, sizeof end));
out:
    if (st != MEED_OK) {
        corpus->ids.size = ids_before;
    }
    meed_buf_clear(&words);
    return st;
}

int64_t meed_rouge_corpus_count(const struct meed_rouge_corpus *corpus)
{
    return (int64_t)(corpus->ends.size / sizeof(int64_t));
}

static const int32_t *words_of(const struct meed_rouge_corpus *corpus, int64_t text_idx,
                               int32_t *count)
{
    const int64_t *ends = (const int64_t *)(const void *)corpus->ends.data;
    int64_t begin = text_idx > 0 ? ends[text_idx - 1] : 0;
    *count = (int32_t)(ends[text_idx] - begin);
    return *count > 0 ? (const int32_t *)(const void *)corpus->ids.data + begin : NULL;
}

/* --- a candidate against them ------------------------------------------------------------------
 */
static void pattern_clear(struct pattern *pattern)
{
    meed_heap_free(pattern->rows);
    meed_heap_free(pattern->masks);
    meed_heap_free(pattern->state);
}

static enum meed_status pattern_make(const struct meed_rouge_corpus *corpus, const char *text,
                                     size_t size, struct pattern *pattern)
{
    struct meed_buf words;
    meed_buf_init(&words, SIZE_MAX / 4);
    enum meed_status st;
    MEED_TRY_OUT(read_words(text, size, &words, &pattern->length));
    pattern->blocks = (pattern->length + WORD_BITS - 1) / WORD_BITS;
    size_t known = (size_t)known_count(corpus);
    size_t distinct = MEED_MIN(known, (size_t)pattern->length);
    pattern->rows = meed_heap_alloc(known + 1, sizeof *pattern->rows);
    pattern->masks =
        meed_heap_alloc((distinct + 1) * (size_t)pattern->blocks + 1, sizeof *pattern->masks);
    pattern->state = meed_heap_alloc((size_t)pattern->blocks + 1, sizeof *pattern->state);
    if (!pattern->rows || !pattern->masks || !pattern->state) {
        st = MEED_NOMEM;
        goto out;
    }
    int32_t row_count = 0;
    const char *word = words.data;
    for (int32_t i = 0; i < pattern->length; i++, word += strlen(word) + 1) {
        int32_t id = *slot_of(corpus, word);
        if (id == UNKNOWN) {
            continue;
        }
        if (pattern->rows[id] == 0) {
            pattern->rows[id] = ++row_count;
        }
        size_t block = (size_t)pattern->rows[id] * (size_t)pattern->blocks + (size_t)i / WORD_BITS;
        pattern->masks[block] |= (uint64_t)1 << (i % WORD_BITS);
    }
out:
    meed_buf_clear(&words);
    return st;
}

/* Length of the longest common subsequence of the candidate and ids [count]. Beyond the candidate's
 * last bit the masks are zero, so V − U keeps the ones there whatever is carried into them. */
static int32_t common_words(const struct pattern *pattern, const int32_t *ids, int32_t count)
{
    uint64_t *v = pattern->state;
    memset(v, 0xFF, (size_t)pattern->blocks * sizeof *v);
    for (int32_t i = 0; i < count; i++) {
        int32_t row = pattern->rows[ids[i]];
        if (row == 0) {
            continue;
        }
        const uint64_t *mask = pattern->masks + (size_t)row * (size_t)pattern->blocks;
        uint64_t carry = 0;
        for (int32_t b = 0; b < pattern->blocks; b++) {
            uint64_t u = v[b] & mask[b];
            uint64_t partial = v[b] + u;
            uint64_t sum = partial + carry;
            carry = (partial < u) | (sum < partial);
            v[b] = sum | (v[b] & ~mask[b]);
        }
    }
    int32_t common = 0;
    for (int32_t b = 0; b < pattern->blocks; b++) {
        common += __builtin_popcountll(~v[b]);
    }
    return common;
}

static double f1_of(int32_t common, int32_t candidate_words, int32_t reference_words)
{
    return common > 0 ? 2.0 * common / ((double)candidate_words + reference_words) : 0;
}

static struct meed_rouge_score score_of(const struct pattern *pattern, const int32_t *ids,
                                        int32_t count)
{
    int32_t common = common_words(pattern, ids, count);
    return (struct meed_rouge_score){
        .precision = common > 0 ? (double)common / pattern->length : 0,
        .recall = common > 0 ? (double)common / count : 0,
        .f1 = f1_of(common, pattern->length, count),
        .common = common,
        .candidate_words = pattern->length,
        .reference_words = count,
    };
}

enum meed_status meed_rouge_corpus_scores(const struct meed_rouge_corpus *corpus,
                                          const char *candidate, size_t size,
                                          struct meed_rouge_score *scores)
{
    struct pattern pattern = {0};
    enum meed_status st = pattern_make(corpus, candidate, size, &pattern);
    for (int64_t t = 0; st == MEED_OK && t < meed_rouge_corpus_count(corpus); t++) {
        int32_t count = 0;
        const int32_t *ids = words_of(corpus, t, &count);
        scores[t] = score_of(&pattern, ids, count);
    }
    pattern_clear(&pattern);
    return st;
}

enum meed_status meed_rouge_corpus_nearest(const struct meed_rouge_corpus *corpus,
                                           const char *candidate, size_t size, int64_t *text_idx,
                                           struct meed_rouge_score *score)
{
    struct pattern pattern = {0};
    enum meed_status st = pattern_make(corpus, candidate, size, &pattern);
    int64_t nearest = -1;
    struct meed_rouge_score best = {.candidate_words = pattern.length};
    for (int64_t t = 0; st == MEED_OK && t < meed_rouge_corpus_count(corpus); t++) {
        int32_t count = 0;
        const int32_t *ids = words_of(corpus, t, &count);
        int32_t at_most = MEED_MIN(count, pattern.length);
        if (f1_of(at_most, pattern.length, count) <= best.f1) {
            continue;
        }
        struct meed_rouge_score found = score_of(&pattern, ids, count);
        if (found.f1 > best.f1) {
            best = found;
            nearest = t;
        }
    }
    pattern_clear(&pattern);
    if (st == MEED_OK) {
        *text_idx = nearest;
        *score = best;
    }
    return st;
}

enum meed_status meed_rouge_l(const char *candidate, size_t candidate_size, const char *reference,
                              size_t reference_size, struct meed_rouge_score *score)
{
    struct meed_rouge_corpus *corpus = NULL;
    enum meed_status st;
    MEED_TRY(meed_rouge_corpus_create(&corpus));
    MEED_TRY_OUT(meed_rouge_corpus_add(corpus, reference, reference_size));
    MEED_TRY_OUT(meed_rouge_corpus_scores(corpus, candidate, candidate_size, score));
out:
    meed_rouge_corpus_destroy(corpus);
    return st;
}
