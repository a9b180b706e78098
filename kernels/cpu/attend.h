/* One block of attention: up to 64 consecutive positions of one sequence against the keys they see.
 *
 * FlashAttention's recurrence (Dao et al. 2022) for the query heads that share one key/value head:
 * keys are taken in blocks of ATTEND_BLOCK from the first that the window of any row reaches; a row
 * keeps its running maximum, its sum of exponentials and its unnormalised output, and rescales them
 * when the maximum grows. Blocks begin at multiples of 64 positions of the *sequence*, and inside a
 * block every score and every output is one chain (panel.h), so a row's bits depend on its own
 * sequence up to itself: not on how many rows are computed with it, nor on where they stand in a
 * batch or a cache. Masked scores contribute exactly 0, and a block that a row does not see at all
 * leaves its state as it was.
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
    int64_t first;  /* position of the first row */
    int64_t rows;   /* ≤ ATTEND_BLOCK, and first/64 == (first + rows − 1)/64 */
    int64_t heads;  /* query heads of the group */
    int64_t size;   /* D */
    int64_t window; /* > 0; attend_window of the shape's */
    float scale;
    enum meed_dtype dtype;    /* of q and out */
    enum meed_dtype kv_dtype; /* of k and v */
};

/* Keys a query sees, itself included: no sequence is as long as the window of a shape without. */
static inline int64_t attend_window(struct meed_attention_shape shape)
{
    return shape.window > 0 ? shape.window : INT32_MAX;
}

void MEED_TWIN(attend_rows)(const struct attend_block *block);
/* scores[i, j] of `rows` positions from `first` against keys from `key_first`: −inf above the
 * diagonal, below the window and in the padding up to `width`. */
void MEED_TWIN(attend_mask)(float *scores, int64_t rows, int64_t first, int64_t key_first,
                            int64_t keys, int64_t window, int64_t width);
/* Scores [width] of a row become probabilities relative to its running maximum; where that grows,
 * what was summed before shrinks. Before the first key that the row sees there is no maximum: then
 * it counts as 0, which makes every probability 0, not NaN. */
void MEED_TWIN(attend_softmax)(float *score, int64_t width, float *peak, float *sum, float *out,
                               int64_t out_width);

#endif
