/* See panel.h. Register blocks: 8×3 vectors where there are 32 registers, 4×3 where there are 16;
 * the leftover rows and narrow panels have kernels of their own, all with the same chain per
 * element. */
#include "kernels/cpu/panel.h"

/* acc[i][j] over the block; A elements are broadcast, P is read as it lies. Inlined with constants
 * for the block and, below, for one of the steps: sixteen row addresses do not fit the integer
 * registers unless the row step is known. */
VEC_INLINE void block_run(int rows, int vectors, const float *a, int64_t row_step, int64_t col_step,
                          int64_t k, const float *panel, float *c, int64_t c_stride)
{
    vf acc[16][3];
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
    {
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            acc[i][j] = vf_load(c + i * c_stride + j * VL);
        }
    }
    for (int64_t step = 0; step < k; step++) {
        vf b[3];
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            b[j] = vf_load(panel + j * VL);
        }
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
        {
            vf x = vf_set1(a[i * row_step]);
            _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
            {
                acc[i][j] = vf_fma(x, b[j], acc[i][j]);
            }
        }
        a += col_step;
        panel += vectors * VL;
    }
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
    {
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            vf_store(c + i * c_stride + j * VL, acc[i][j]);
        }
    }
}

typedef void (*panel_kernel_fn)(const float *a, int64_t row_step, int64_t col_step, int64_t k,
                                const float *panel, float *c, int64_t c_stride);

/* One kernel for any steps, one for rows PANEL_STEP apart, one for a transposed A. */
#define PANEL_KERNEL(MR, NV)                                                                       \
    static void any_##MR##_##NV(const float *a, int64_t row_step, int64_t col_step, int64_t k,     \
                                const float *panel, float *c, int64_t c_stride)                    \
    {                                                                                              \
        block_run(MR, NV, a, row_step, col_step, k, panel, c, c_stride);                           \
    }                                                                                              \
    static void rows_##MR##_##NV(const float *a, int64_t row_step, int64_t col_step, int64_t k,    \
                                 const float *panel, float *c, int64_t c_stride)                   \
    {                                                                                              \
        (void)row_step;                                                                            \
        (void)col_step;                                                                            \
        block_run(MR, NV, a, PANEL_STEP, 1, k, panel, c, c_stride);                                \
    }                                                                                              \
    static void cols_##MR##_##NV(const float *a, int64_t row_step, int64_t col_step, int64_t k,    \
                                 const float *panel, float *c, int64_t c_stride)                   \
    {                                                                                              \
        (void)row_step;                                                                            \
        block_run(MR, NV, a, 1, col_step, k, panel, c, c_stride);                                  \
    }

PANEL_KERNEL(1, 1)
PANEL_KERNEL(1, 2)
PANEL_KERNEL(1, 3)
PANEL_KERNEL(2, 1)
PANEL_KERNEL(2, 2)
PANEL_KERNEL(2, 3)
PANEL_KERNEL(4, 1)
PANEL_KERNEL(4, 2)
PANEL_KERNEL(4, 3)
PANEL_KERNEL(8, 1)
#if defined(__AVX512F__)
PANEL_KERNEL(8, 2)
PANEL_KERNEL(8, 3)
PANEL_KERNEL(16, 1)
/* clang-format off */
#define LADDER(kind)                                                                               \
    {                                                                                              \
        {{16, 8, 4, 2, 1}, {kind##_16_1, kind##_8_1, kind##_4_1, kind##_2_1, kind##_1_1}},         \
        {{8, 8, 4, 2, 1}, {kind##_8_2, kind##_8_2, kind##_4_2, kind##_2_2, kind##_1_2}},           \
        {{8, 8, 4, 2, 1}, {kind##_8_3, kind##_8_3, kind##_4_3, kind##_2_3, kind##_1_3}},           \
    }
#else
#define LADDER(kind)                                                                               \
    {                                                                                              \
        {{8, 8, 4, 2, 1}, {kind##_8_1, kind##_8_1, kind##_4_1, kind##_2_1, kind##_1_1}},           \
        {{4, 4, 4, 2, 1}, {kind##_4_2, kind##_4_2, kind##_4_2, kind##_2_2, kind##_1_2}},           \
        {{4, 4, 4, 2, 1}, {kind##_4_3, kind##_4_3, kind##_4_3, kind##_2_3, kind##_1_3}},           \
    }
#endif
/* clang-format on */

/* Block heights, highest first, for panels of one, two and three vectors. */
static const struct {
    int rows[5];
    panel_kernel_fn kernel[5];
} ladders[3][3] = {LADDER(any), LADDER(rows), LADDER(cols)};

void MEED_TWIN(panel_gemm)(const float *a, int64_t row_step, int64_t col_step, int64_t rows,
                           int64_t k, const float *packed, int64_t n, float *c, int64_t c_stride)
{
    int64_t vectors = panel_cols(n) / VL;
    int kind = row_step == PANEL_STEP && col_step == 1 ? 1 : row_step == 1 ? 2 : 0;
    while (vectors > 0) {
        int nv = panel_next(vectors);
        int64_t row = 0;
        for (int step = 0; step < 5; step++) {
            int height = ladders[kind][nv - 1].rows[step];
            for (; row + height <= rows; row += height) {
                ladders[kind][nv - 1].kernel[step](a + row * row_step, row_step, col_step, k,
                                                   packed, c + row * c_stride, c_stride);
            }
        }
        packed += k * nv * VL;
        c += nv * VL;
        vectors -= nv;
    }
}

/* Exchanges the bit `width` between row and lane numbers; once per bit, that transposes. */
VEC_INLINE void rows_exchange(vf *rows, int width)
{
    vi low = {0};
    vi high = {0};
    for (int lane = 0; lane < VL; lane++) {
        low[lane] = lane & width ? VL + lane - width : lane;
        high[lane] = lane & width ? VL + lane : lane + width;
    }
    for (int i = 0; i < VL; i++) {
        if (!(i & width)) {
            vf a = rows[i];
            vf b = rows[i + width];
            rows[i] = vf_pick(a, b, low);
            rows[i + width] = vf_pick(a, b, high);
        }
    }
}

/* One VL×VL block of a transposed source: rows of src become columns of the panel. */
static void pack_transposed_block(const void *src, enum meed_dtype dtype, int64_t at,
                                  int64_t stride, int64_t cols, int64_t depth, float *to,
                                  int64_t to_stride)
{
    vf rows[VL];
    for (int64_t j = 0; j < VL; j++) {
        rows[j] = j < cols ? vf_get_n(src, at + j * stride, dtype, depth) : (vf){0};
    }
    rows_exchange(rows, 1);
    rows_exchange(rows, 2);
#if defined(__AVX512F__) || defined(__AVX2__)
    rows_exchange(rows, 4);
#endif
#if defined(__AVX512F__)
    rows_exchange(rows, 8);
#endif
    for (int64_t i = 0; i < depth; i++) {
        vf_store(to + i * to_stride, rows[i]);
    }
}

void MEED_TWIN(panel_pack)(const void *src, enum meed_dtype dtype, int64_t stride, bool transposed,
                           int64_t k, int64_t n, float *packed)
{
    for (int64_t begin = 0; begin < n;) {
        int64_t width = panel_next((panel_cols(n) - begin) / VL) * VL;
        if (!transposed) {
            for (int64_t i = 0; i < k; i++) {
                for (int64_t j = 0; j < width; j += VL) {
                    int64_t left = n - begin - j;
                    vf value =
                        left > 0 ? vf_get_n(src, i * stride + begin + j, dtype, left) : (vf){0};
                    vf_store(packed + i * width + j, value);
                }
            }
        } else {
            for (int64_t j = 0; j < width; j += VL) {
                for (int64_t i = 0; i < k; i += VL) {
                    pack_transposed_block(src, dtype, (begin + j) * stride + i, stride,
                                          n - begin - j, MEED_MIN(VL, k - i),
                                          packed + i * width + j, width);
                }
            }
        }
        packed += k * width;
        begin += width;
    }
}
