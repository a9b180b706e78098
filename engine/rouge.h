/* ROUGE-L: how much of one text stands, in order, in another (Lin 2004).
 *
 * The longest common subsequence of the words of both, as precision, recall and F1. Two users: the
 * filter that keeps synthetic data from being copies of what they were written after, and audits
 * that ask a model for its training data. Both compare one candidate with every example of a client
 * and mostly want the nearest, so the examples are read once into a corpus: its words get numbers,
 * and a candidate becomes one bit mask a word. The subsequence is then found 64 words of the
 * candidate at a time (Crochemore et al. 2001; the form of Hyyrö 2004): with V all ones, for each
 * word w of the reference
 *
 *     U = V & mask[w],   V = (V + U) | (V − U)
 *
 * and the zeros of V count the subsequence. Against a hundred words that is two additions for each
 * reference word, instead of a hundred comparisons.
 *
 * Scores equal Google's rouge_score without stemming on ASCII text (rouge_words.h says what a word
 * is elsewhere). F1 is computed as 2·common / (candidate + reference words), a single division: a
 * score that is 7/10 compares equal to 0.7. A text without words has score 0 against everything.
 */
#ifndef MEED_ENGINE_ROUGE_H
#define MEED_ENGINE_ROUGE_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"

MEED_BEGIN_C

struct meed_rouge_score {
    double precision; /* common / candidate_words */
    double recall;    /* common / reference_words */
    double f1;
    int32_t common; /* words of the longest common subsequence */
    int32_t candidate_words;
    int32_t reference_words;
};

/* Texts beyond this many words are LIMIT. */
enum { MEED_ROUGE_MAX_WORDS = 1 << 24 };

/* One pair. */
MEED_MUST_CHECK enum meed_status meed_rouge_l(const char *candidate, size_t candidate_size,
                                              const char *reference, size_t reference_size,
                                              struct meed_rouge_score *score);

/* Texts to be compared with, in order. Any number of threads may compare while none adds. */
struct meed_rouge_corpus;
MEED_MUST_CHECK enum meed_status meed_rouge_corpus_create(struct meed_rouge_corpus **corpus);
void meed_rouge_corpus_destroy(struct meed_rouge_corpus *corpus); /* accepts NULL */
/* The text is read, not kept. */
MEED_MUST_CHECK enum meed_status meed_rouge_corpus_add(struct meed_rouge_corpus *corpus,
                                                       const char *text, size_t size);
int64_t meed_rouge_corpus_count(const struct meed_rouge_corpus *corpus);
/* scores [count], one a text. */
MEED_MUST_CHECK enum meed_status meed_rouge_corpus_scores(const struct meed_rouge_corpus *corpus,
                                                          const char *candidate, size_t size,
                                                          struct meed_rouge_score *scores);
/* The text with the highest F1, the first of equals; -1 and a score of zeros where none has a word
 * in common. Texts whose length alone rules them out are passed over. */
MEED_MUST_CHECK enum meed_status meed_rouge_corpus_nearest(const struct meed_rouge_corpus *corpus,
                                                           const char *candidate, size_t size,
                                                           int64_t *text_idx,
                                                           struct meed_rouge_score *score);

MEED_END_C
#endif
