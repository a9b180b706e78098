/* See panel.h. Register blocks: 8×3 vectors where there are 32 registers, 4×3 where there are 16;
 * the leftover rows and narrow panels have kernels of their own, all with the same chain per
 * element. */
#include "kernels/cpu/panel.h"

/* acc[i][j] over the block; A elements are broadcast, P is read as it lies. */
#define PANEL_KERNEL(MR, NV)                                                                       \
    static void kernel_##MR##_##NV(const float *a, int64_t row_step, int64_t col_step, int64_t k,  \
                                   const float *panel, float *c, int64_t c_stride)                 \
    {                                                                                              \
        vf acc[MR][NV];                                                                            \
        _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                      \
        {                                                                                          \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++)                                   \
            {                                                                                      \
                acc[i][j] = vf_load(c + i * c_stride + j * VL);                                    \
            }                                                                                      \
        }                                                                                          \
        for (int64_t step = 0; step < k; step++) {                                                 \
            vf b[NV];                                                                              \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++)                                   \
            {                                                                                      \
                b[j] = vf_load(panel + j * VL);                                                    \
            }                                                                                      \
            _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                  \
            {                                                                                      \
                vf x = vf_set1(a[i * row_step]);                                                   \
                _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++)                               \
                {                                                                                  \
                    acc[i][j] = vf_fma(x, b[j], acc[i][j]);                                        \
                }                                                                                  \
            }                                                                                      \
            a += col_step;                                                                         \
            panel += NV * VL;                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                      \
        {                                                                                          \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++)                                   \
            {                                                                                      \
                vf_store(c + i * c_stride + j * VL, acc[i][j]);                                    \
            }                                                                                      \
        }                                                                                          \
    }

typedef void (*panel_kernel_fn)(const float *a, int64_t row_step, int64_t col_step, int64_t k,
                                const float *panel, float *c, int64_t c_stride);

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
enum { ROWS_1 = 16, ROWS_2 = 8, ROWS_3 = 8 };
#else
enum { ROWS_1 = 8, ROWS_2 = 4, ROWS_3 = 4 };
#endif

static const struct {
    int rows[4]; /* block heights, highest first */
    panel_kernel_fn kernel[5];
} ladder[3] = {
#if defined(__AVX512F__)
    {{16, 8, 4, 2}, {kernel_16_1, kernel_8_1, kernel_4_1, kernel_2_1, kernel_1_1}},
    {{8, 8, 4, 2}, {kernel_8_2, kernel_8_2, kernel_4_2, kernel_2_2, kernel_1_2}},
    {{8, 8, 4, 2}, {kernel_8_3, kernel_8_3, kernel_4_3, kernel_2_3, kernel_1_3}},
#else
    {{8, 8, 4, 2}, {kernel_8_1, kernel_8_1, kernel_4_1, kernel_2_1, kernel_1_1}},
    {{4, 4, 4, 2}, {kernel_4_2, kernel_4_2, kernel_4_2, kernel_2_2, kernel_1_2}},
    {{4, 4, 4, 2}, {kernel_4_3, kernel_4_3, kernel_4_3, kernel_2_3, kernel_1_3}},
#endif
};

void MEED_TWIN(panel_gemm)(const float *a, int64_t row_step, int64_t col_step, int64_t rows,
                           int64_t k, const float *packed, int64_t n, float *c, int64_t c_stride)
{
    int64_t vectors = panel_cols(n) / VL;
    while (vectors > 0) {
        int nv = panel_next(vectors);
        int64_t row = 0;
        for (int step = 0; step < 5; step++) {
            int height = step < 4 ? ladder[nv - 1].rows[step] : 1;
            for (; row + height <= rows; row += height) {
                ladder[nv - 1].kernel[step](a + row * row_step, row_step, col_step, k, packed,
                                            c + row * c_stride, c_stride);
            }
        }
        packed += k * nv * VL;
        c += nv * VL;
        vectors -= nv;
    }
}

/* One VL×VL block of a transposed source: rows of src become columns of the panel. */
static void pack_transposed_block(const void *src, enum meed_dtype dtype, int64_t at,
                                  int64_t stride, int64_t cols, int64_t depth, float *to,
                                  int64_t to_stride)
{
    float rows[VL][VL];
    for (int64_t j = 0; j < VL; j++) {
        vf value = j < cols ? vf_get_n(src, at + j * stride, dtype, depth) : (vf){0};
        vf_store(rows[j], value);
    }
    for (int64_t i = 0; i < depth; i++) {
        for (int64_t j = 0; j < VL; j++) {
            to[i * to_stride + j] = rows[j][i];
        }
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
