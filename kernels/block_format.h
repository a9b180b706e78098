/* Weights in blocks: 64 neighbours of a row share one fp32 scale, each keeps a code of 8 or 4 bits.
 *
 *   format   bits an element   value of a code                 scale s          |w − w'| at most
 *   int8           8.5         s·q, q in −127…127              absmax / 127     s/2 = absmax/254
 *   int4           4.5         s·q, q in −7…7, stored q + 8    absmax / 7       s/2 = absmax/14
 *   nf4            4.5         s·book[code]                    absmax           0.152 s
 *
 * The formats are symmetric: zero is exact, the largest value of a block nearly so. q is w/s
 * rounded to nearest, ties to even; an NF4 code is the nearest entry of the book, ties to the lower
 * one. NF4 (Dettmers et al. 2023, QLoRA) puts its 16 values at quantiles of the normal
 * distribution, which weights of a trained linear follow, so its mean error is below int4's though
 * its worst is not. A block whose scale would be below the smallest normal float is written as
 * zeros with scale 0.
 *
 * Layout: row-major, each row padded with zeros to whole blocks, so a block never spans rows and a
 * slice of rows is a view. Four-bit codes share bytes half a block apart: byte i of a block holds
 * element i low and element i + 32 high, so a vector of bytes unpacks into two runs of neighbours.
 *
 * Scales stay fp32: half a bit an element, exact. A bf16 scale would save a quarter of a bit and
 * add an error of 2⁻⁹ of every value, twice int8's own mean error; fp16 would lose blocks below
 * 6e-8. QLoRA's second quantisation of the scales (0.37 bit less) is left out: it adds a level to
 * every kernel and format for 8 % of NF4.
 */
#ifndef MEED_KERNELS_BLOCK_FORMAT_H
#define MEED_KERNELS_BLOCK_FORMAT_H

#include <string.h>
#include "kernels/types.h"

MEED_BEGIN_C

enum meed_block_format { MEED_BLOCK_NONE, MEED_BLOCK_INT8, MEED_BLOCK_INT4, MEED_BLOCK_NF4 };
enum { MEED_BLOCK_FORMATS = 4, MEED_BLOCK = 64, MEED_BLOCK_HALF = 32, MEED_BLOCK_BOOK = 16 };

struct meed_blocks {
    uint8_t *codes; /* [rows, blocks of a row, 64 or 32 bytes], 16-byte aligned */
    float *scales;  /* [rows, blocks of a row] */
    int64_t rows;
    int64_t cols;
    enum meed_block_format format;
};

/* NONE is "dense": the words of --base. */
static inline const char *meed_block_format_name(enum meed_block_format format)
{
    static const char *const names[MEED_BLOCK_FORMATS] = {"dense", "int8", "int4", "nf4"};
    return names[format];
}
static inline int64_t meed_block_bytes(enum meed_block_format format)
{
    return format == MEED_BLOCK_INT8 ? MEED_BLOCK : MEED_BLOCK_HALF;
}
static inline int64_t meed_blocks_per_row(int64_t cols)
{
    return (cols + MEED_BLOCK - 1) / MEED_BLOCK;
}
/* Rows [begin, begin + count). */
static inline struct meed_blocks meed_blocks_rows(struct meed_blocks blocks, int64_t begin,
                                                  int64_t count)
{
    int64_t first = begin * meed_blocks_per_row(blocks.cols);
    blocks.codes += first * meed_block_bytes(blocks.format);
    blocks.scales += first;
    blocks.rows = count;
    return blocks;
}
/* absmax / this is the scale. */
static inline float meed_block_peak(enum meed_block_format format)
{
    return format == MEED_BLOCK_INT8 ? 127.0f : format == MEED_BLOCK_INT4 ? 7.0f : 1.0f;
}

/* The sixteen values of a four-bit format by code. NF4: with Φ⁻¹ the normal quantile, e = 0.9677083
 * (the mean of 1 − 1/30 and 1 − 1/32) and p running evenly from e to 1/2, the eight positive values
 * are Φ⁻¹(p)/Φ⁻¹(e) at 8 steps, the seven negative ones −Φ⁻¹(p)/Φ⁻¹(e) at 7, and zero. */
static inline void meed_block_book(enum meed_block_format format, float book[MEED_BLOCK_BOOK])
{
    static const float nf4[MEED_BLOCK_BOOK] = {
        -1.0f,          -0.6961928010f, -0.5250730515f, -0.3949174881f,
        -0.2844413817f, -0.1847734302f, -0.0910500363f, 0.0f,
        0.0795802996f,  0.1609302014f,  0.2461123019f,  0.3379152417f,
        0.4407098293f,  0.5626170039f,  0.7229568362f,  1.0f};
    for (int i = 0; i < MEED_BLOCK_BOOK; i++) {
        book[i] = format == MEED_BLOCK_NF4 ? nf4[i] : (float)(i - 8);
    }
}
/* An NF4 code is the number of bounds that lie below w/s: midpoints of neighbours in the book. */
static inline void meed_block_bounds(float bounds[MEED_BLOCK_BOOK - 1])
{
    float book[MEED_BLOCK_BOOK];
    meed_block_book(MEED_BLOCK_NF4, book);
    for (int i = 0; i + 1 < MEED_BLOCK_BOOK; i++) {
        bounds[i] = 0.5f * (book[i] + book[i + 1]);
    }
}

MEED_END_C
#endif
