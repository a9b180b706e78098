/* See thin.h. One inlined block with every choice a constant, and a ladder of heights per choice.
 */
#include "kernels/cpu/thin.h"

#include "kernels/cpu/vec.h"

struct thin {
    const float *a;
    int64_t a_row; /* steps of a along rows of c and along k */
    int64_t a_col;
    int64_t k;
    const void *src;
    int64_t src_stride;
    void *c;
    int64_t c_stride;
    int64_t lanes; /* of the last vector that exist */
};

/* rows × vectors of c at column `col`. */
VEC_INLINE void block_run(const struct thin *t, int rows, int vectors, int64_t row, int64_t col,
                          enum meed_dtype src_dtype, enum meed_dtype c_dtype, bool transposed)
{
    vf acc[8][3];
    int64_t lanes = vectors == 1 ? t->lanes : VL;
    int64_t at = row * t->c_stride + col;
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
    {
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            acc[i][j] = vf_get_n(t->c, at + i * t->c_stride + j * VL, c_dtype, lanes);
        }
    }
    int64_t a_row = transposed ? 1 : t->a_row;
    int64_t a_col = transposed ? t->a_col : 1;
    const float *a = t->a + row * a_row;
    int64_t from = col;
    for (int64_t step = 0; step < t->k; step++) {
        vf b[3];
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            b[j] = vf_get_n(t->src, from + j * VL, src_dtype, lanes);
        }
        _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
        {
            vf x = vf_set1(a[i * a_row]);
            _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
            {
                acc[i][j] = vf_fma(x, b[j], acc[i][j]);
            }
        }
        a += a_col;
        from += t->src_stride;
    }
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
    {
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            vf_put_n(t->c, at + i * t->c_stride + j * VL, c_dtype, lanes, acc[i][j]);
        }
    }
}

typedef void (*thin_kernel_fn)(const struct thin *t, int64_t row, int64_t col);

#define THIN_KERNEL(kind, MR, NV, src_dtype, c_dtype, transposed)                                  \
    static void kind##_##MR##_##NV(const struct thin *t, int64_t row, int64_t col)                 \
    {                                                                                              \
        block_run(t, MR, NV, row, col, src_dtype, c_dtype, transposed);                            \
    }
#define THIN_KERNELS(kind, src_dtype, c_dtype, transposed)                                         \
    THIN_KERNEL(kind, 8, 3, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 4, 3, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 2, 3, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 1, 3, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 8, 1, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 4, 1, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 2, 1, src_dtype, c_dtype, transposed)                                        \
    THIN_KERNEL(kind, 1, 1, src_dtype, c_dtype, transposed)

THIN_KERNELS(sum_f32, MEED_DTYPE_F32, MEED_DTYPE_F32, true)
THIN_KERNELS(sum_bf16, MEED_DTYPE_BF16, MEED_DTYPE_F32, true)
THIN_KERNELS(add_f32, MEED_DTYPE_F32, MEED_DTYPE_F32, false)
THIN_KERNELS(add_bf16, MEED_DTYPE_F32, MEED_DTYPE_BF16, false)

/* Heights 8, 4, 2, 1 for three vectors and for one. */
struct ladder {
    thin_kernel_fn wide[4];
    thin_kernel_fn narrow[4];
};
#define THIN_LADDER(kind)                                                                          \
    {                                                                                              \
        {kind##_8_3, kind##_4_3, kind##_2_3, kind##_1_3},                                          \
        {                                                                                          \
            kind##_8_1, kind##_4_1, kind##_2_1, kind##_1_1                                         \
        }                                                                                          \
    }
static const struct ladder sum_ladders[2] = {THIN_LADDER(sum_f32), THIN_LADDER(sum_bf16)};
static const struct ladder add_ladders[2] = {THIN_LADDER(add_f32), THIN_LADDER(add_bf16)};

#if defined(__AVX512F__)
enum { WIDE_TOP = 0 };
#else
enum { WIDE_TOP = 1 }; /* 8×3 needs 32 registers */
#endif

static void column_run(const struct thin *t, const thin_kernel_fn *kernels, int top, int64_t rows,
                       int64_t col)
{
    int64_t row = 0;
    for (int step = top; step < 4; step++) {
        int64_t height = 8 >> step;
        for (; row + height <= rows; row += height) {
            kernels[step](t, row, col);
        }
    }
}

static void ladder_run(struct thin *t, const struct ladder *ladder, int64_t rows, int64_t n)
{
    int64_t col = 0;
    for (; col + 3 * VL <= n; col += 3 * VL) {
        column_run(t, ladder->wide, WIDE_TOP, rows, col);
    }
    for (; col < n; col += VL) {
        t->lanes = MEED_MIN(VL, n - col);
        column_run(t, ladder->narrow, 0, rows, col);
    }
}

void MEED_TWIN(thin_sum)(const float *a, int64_t a_stride, int64_t rows, int64_t k, const void *src,
                         enum meed_dtype dtype, int64_t src_stride, int64_t n, float *c,
                         int64_t c_stride)
{
    struct thin t = {a, 1, a_stride, k, src, src_stride, c, c_stride, VL};
    ladder_run(&t, &sum_ladders[dtype == MEED_DTYPE_BF16], rows, n);
}

void MEED_TWIN(thin_add)(const float *a, int64_t a_stride, int64_t rows, int64_t k,
                         const float *src, int64_t src_stride, int64_t n, void *c,
                         enum meed_dtype dtype, int64_t c_stride)
{
    struct thin t = {a, a_stride, 1, k, src, src_stride, c, c_stride, VL};
    ladder_run(&t, &add_ladders[dtype == MEED_DTYPE_BF16], rows, n);
}
