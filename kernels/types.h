/* Types shared by every kernel contract: dtypes, the matrix view, the dimension letters.
 *
 * Dimension letters mean the same everywhere in the tree, comments included:
 *   M rows (tokens of a packed batch)   K inputs of a linear   N outputs of a linear
 *   r rank of one adapter               R stacked low-rank width of a linear group, padded
 *   H query heads   G key/value heads   D head size   F ffn width   V vocabulary   L layers
 *
 * A matrix is a row-major 2-D view: element (i, j) of a view lies at data + (i*stride + j)*size.
 * Views do not own memory and know no device: a backend interprets the pointer as its own.
 */
#ifndef MEED_KERNELS_TYPES_H
#define MEED_KERNELS_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum meed_dtype { MEED_DTYPE_F32, MEED_DTYPE_BF16 };

static inline size_t meed_dtype_bytes(enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? 4 : 2;
}
static inline const char *meed_dtype_name(enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? "f32" : "bf16";
}

/* bf16 is the upper half of an fp32; rounding is to nearest even, NaN becomes 0x7FFF. */
typedef uint16_t meed_bf16;
static inline float meed_bf16_to_f32(meed_bf16 value)
{
    union {
        uint32_t bits;
        float number;
    } u;
    u.bits = (uint32_t)value << 16;
    return u.number;
}
static inline meed_bf16 meed_bf16_from_f32(float number)
{
    union {
        uint32_t bits;
        float number;
    } u;
    u.number = number;
    if ((u.bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return 0x7FFF;
    }
    return (meed_bf16)((u.bits + 0x7FFFu + ((u.bits >> 16) & 1u)) >> 16);
}

struct meed_mat {
    void *data;
    int64_t rows;
    int64_t cols;
    int64_t stride; /* elements from one row to the next, ≥ cols */
    enum meed_dtype dtype;
};

static inline struct meed_mat meed_mat_view(void *data, int64_t rows, int64_t cols, int64_t stride,
                                            enum meed_dtype dtype)
{
    struct meed_mat view = {data, rows, cols, stride, dtype};
    return view;
}
/* Columns [begin, begin + count) of a view. */
static inline struct meed_mat meed_mat_cols(struct meed_mat mat, int64_t begin, int64_t count)
{
    char *data = mat.data ? (char *)mat.data + (size_t)begin * meed_dtype_bytes(mat.dtype) : NULL;
    return meed_mat_view(data, mat.rows, count, mat.stride, mat.dtype);
}
/* Rows [begin, begin + count) of a view. */
static inline struct meed_mat meed_mat_rows(struct meed_mat mat, int64_t begin, int64_t count)
{
    char *data = mat.data
                     ? (char *)mat.data + (size_t)(begin * mat.stride) * meed_dtype_bytes(mat.dtype)
                     : NULL;
    return meed_mat_view(data, count, mat.cols, mat.stride, mat.dtype);
}

/* The low-rank tail that a producer of x fills beside it: T = gates ⊙ (x Aᵀ).
 *
 * x lives in the first K columns of a dense buffer of width K + R; T goes into its last R columns.
 * `a` stacks the A factors of every module that reads this x, and of every adapter of a coalition
 * stack, row by row: [R, K]. `gates` scales T per row of the batch: row m uses
 * gates[gate_of_row[m]*R + j]; both NULL means all ones (training, one adapter). Padding rows of
 * `a` are zero. A producer given tail.a.data == NULL (R = 0) writes x alone. */
struct meed_tail {
    struct meed_mat a;           /* [R, K], same dtype as x */
    const float *gates;          /* [gate sets, R] or NULL */
    const int32_t *gate_of_row;  /* [M] or NULL */
    float dropout;               /* 0 in evaluation */
    const uint64_t *dropout_key; /* device; read where dropout is not 0 */
};

/* A packed batch: sequences laid end to end, no padding. Sequence s owns rows
 * [starts[s], starts[s+1]); attention never crosses. positions[m] is the row's place in its
 * sequence (RoPE). */
struct meed_pack {
    const int32_t *starts; /* [sequences + 1], starts[0] = 0, last = M */
    int32_t sequences;
    int32_t max_length;
    const int32_t *positions; /* [M] */
};

MEED_END_C
#endif
