/* One block of attention: up to 64 consecutive positions of one sequence against all its keys.
 *
 * FlashAttention's recurrence (Dao et al. 2022) for the query heads that share one key/value head:
 * keys are taken in blocks of ATTEND_BLOCK from position 0; a row keeps its running maximum, its
 * sum of exponentials and its unnormalised output, and rescales them when the maximum grows. Blocks
 * begin at multiples of 64 positions of the *sequence*, and inside a block every score and every
 * output is one chain (panel.h), so a row's bits depend on its own sequence up to itself: not on
 * how many rows are computed with it, nor on where they stand in a batch or a cache. Masked scores
 * contribute exactly 0.
 */
#ifndef MEED_CPU_ATTEND_H
#define MEED_CPU_ATTEND_H

#include "kernels/cpu/panel.h"

enum { ATTEND_BLOCK = 64 };

struct attend_block {
    const void *q; /* first row's first head of the group; rows q_stride apart, heads D apart */
    const void *k; /* position 0 of the sequence; positions kv_stride apart */
    const void *v;
    void *out;  /* as q */
    float *lse; /* [row, head] at lse[row*lse_stride + head], or NULL */
    int64_t q_stride;
    int64_t kv_stride;
    int64_t out_stride;
    int64_t lse_stride;
    int64_t first; /* position of the first row */
    int64_t rows;  /* ≤ ATTEND_BLOCK, and first/64 == (first + rows − 1)/64 */
    int64_t heads; /* query heads of the group */
    int64_t size;  /* D */
    float scale;
    enum meed_dtype dtype;    /* of q and out */
    enum meed_dtype kv_dtype; /* of k and v */
};

void MEED_TWIN(attend_rows)(const struct attend_block *block);
/* scores[i, j] of `rows` positions from `first` against keys from `key_first`: −inf above the
 * diagonal and in the padding up to `width`. */
void MEED_TWIN(attend_mask)(float *scores, int64_t rows, int64_t first, int64_t key_first,
                            int64_t keys, int64_t width);
/* Scores [width] of a row become probabilities relative to its running maximum; where that grows,
 * what was summed before shrinks. At least one score is finite, or the row has seen one before. */
void MEED_TWIN(attend_softmax)(float *score, int64_t width, float *peak, float *sum, float *out,
                               int64_t out_width);

#endif
