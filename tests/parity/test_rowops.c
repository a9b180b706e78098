/* Ops on rows against float64: gather, scatter, bias, rotary positions.
 *
 * Goal: exact copies, untouched rows of a scatter's target, and rotations that equal the complex
 * product and undo themselves backwards. Method: random matrices at odd widths, padded strides;
 * where the width allows, the padding keeps rows at multiples of 16 bytes, as the engine does.
 */
#define PARITY_ROWS(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>

static const int64_t widths[] = {1, 7, 16, 33, 192};

static int64_t pad_of(int64_t width, int64_t odd)
{
    return width % 8 == 0 ? 8 : odd;
}

static void parity_case_embed(struct parity *p)
{
    const int32_t ids_host[] = {4, 0, 10, 4, 9, 1, 1};
    enum { COUNT = 7, VOCABULARY = 11 };
    for (size_t i = 0; i < MEED_COUNT(widths); i++) {
        for (int dtype = 0; dtype < 2; dtype++) {
            enum meed_dtype t = (enum meed_dtype)dtype;
            struct meed_mat table =
                parity_mat(p, VOCABULARY, widths[i], pad_of(widths[i], 3), t, 1.0);
            struct meed_mat out = parity_mat(p, COUNT, widths[i], pad_of(widths[i], 5), t, 1.0);
            const int32_t *ids = parity_ints(p, ids_host, COUNT);
            p->be->embed(p->be, table, 1.0f, ids, out);
            for (int64_t m = 0; m < COUNT; m++) {
                parity_same_rows(p, "embedded row", meed_mat_rows(out, m, 1),
                                 meed_mat_rows(table, ids_host[m], 1));
            }
            p->be->embed(p->be, table, 1.0f, ids, meed_mat_rows(out, 0, 0));
            parity_record(p, out);
            p->be->embed(p->be, table, 25.25f, ids, out);
            const double *values = parity_values(p, table);
            double *want = parity_doubles(p, COUNT * widths[i]);
            for (int64_t j = 0; j < COUNT * widths[i]; j++) {
                want[j] = 25.25 * values[ids_host[j / widths[i]] * widths[i] + j % widths[i]];
            }
            parity_close(p, "scaled rows", out, want, 1e-14, 1.01);
        }
    }
}

static void parity_case_scatter(struct parity *p)
{
    const int32_t ids_host[] = {4, 0, 10, 9};
    enum { COUNT = 4, ROWS = 11 };
    for (size_t i = 0; i < MEED_COUNT(widths); i++) {
        for (int dtype = 0; dtype < 2; dtype++) {
            enum meed_dtype t = (enum meed_dtype)dtype;
            struct meed_mat in = parity_mat(p, COUNT, widths[i], pad_of(widths[i], 3), t, 1.0);
            struct meed_mat out =
                parity_mat(p, ROWS, widths[i], i % 2 ? 5 : pad_of(widths[i], 5), t, 1.0);
            struct meed_mat before = parity_copy(p, out);
            p->be->scatter(p->be, in, parity_ints(p, ids_host, COUNT), out);
            for (int32_t row = 0; row < ROWS; row++) {
                struct meed_mat want = meed_mat_rows(before, row, 1);
                for (int64_t m = 0; m < COUNT; m++) {
                    want = ids_host[m] == row ? meed_mat_rows(in, m, 1) : want;
                }
                parity_same_rows(p, "scattered row", meed_mat_rows(out, row, 1), want);
            }
            parity_record(p, out);
        }
    }
}

static void parity_case_bias_add(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(widths); i++) {
        for (int dtype = 0; dtype < 2; dtype++) {
            enum meed_dtype t = (enum meed_dtype)dtype;
            struct meed_mat x = parity_mat(p, 37, widths[i], pad_of(widths[i], 2), t, 1.0);
            float *bias = parity_floats(p, widths[i], 1.0);
            double *want = parity_values(p, x);
            const double *add = parity_from_floats(p, bias, widths[i]);
            for (int64_t j = 0; j < 37 * widths[i]; j++) {
                want[j] += add[j % widths[i]];
            }
            p->be->bias_add(p->be, x, bias);
            parity_close(p, "bias_add", x, want, 1e-14, 1.01);
        }
    }
}

static void rope_shape(struct parity *p, int64_t rows, int64_t heads, int64_t size,
                       enum meed_dtype dtype)
{
    enum { POSITIONS = 50 };
    int64_t half = size / 2;
    struct meed_mat angles = parity_mat(p, POSITIONS, half, 0, MEED_DTYPE_F32, 3.0);
    struct meed_mat cosine = parity_copy(p, angles);
    struct meed_mat sine = parity_copy(p, angles);
    double *c = parity_values(p, cosine);
    double *s = parity_values(p, sine);
    float table[2][POSITIONS * 128];
    for (int64_t i = 0; i < POSITIONS * half; i++) {
        table[0][i] = (float)cos(c[i]);
        table[1][i] = (float)sin(s[i]);
    }
    size_t bytes = (size_t)(POSITIONS * half) * sizeof(float);
    assert_int_equal(p->be->copy_to(p->be, cosine.data, table[0], bytes), MEED_OK);
    assert_int_equal(p->be->copy_to(p->be, sine.data, table[1], bytes), MEED_OK);
    int32_t host[64];
    for (int64_t m = 0; m < rows; m++) {
        host[m] = (int32_t)((m * 7) % POSITIONS);
    }
    const int32_t *positions = parity_ints(p, host, rows);
    struct meed_rope_table rope = {cosine.data, sine.data};
    struct meed_mat x = parity_mat(p, rows, heads * size, pad_of(size, 3), dtype, 1.0);
    double *start = parity_values(p, x);
    double *want = parity_values(p, x);
    for (int64_t m = 0; m < rows; m++) {
        for (int64_t h = 0; h < heads; h++) {
            for (int64_t i = 0; i < half; i++) {
                double *a = &want[m * heads * size + h * size + i];
                double cs = (double)table[0][host[m] * half + i];
                double sn = (double)table[1][host[m] * half + i];
                double low = a[0] * cs - a[half] * sn;
                double high = a[half] * cs + a[0] * sn;
                a[0] = low;
                a[half] = high;
            }
        }
    }
    p->be->rope(p->be, x, (int32_t)heads, (int32_t)size, positions, rope, 1);
    parity_close(p, "rope", x, want, 1e-14, 1.02);
    p->be->rope(p->be, x, (int32_t)heads, (int32_t)size, positions, rope, -1);
    if (dtype == MEED_DTYPE_F32) { /* in bf16 the start is exact and the way back is not */
        parity_close(p, "rope there and back", x, start, 1e-13, 1.0);
    }
    parity_release(p);
}

static void parity_case_rope(struct parity *p)
{
    for (int dtype = 0; dtype < 2; dtype++) {
        rope_shape(p, 0, 2, 8, (enum meed_dtype)dtype);
        rope_shape(p, 1, 1, 2, (enum meed_dtype)dtype);
        rope_shape(p, 13, 3, 34, (enum meed_dtype)dtype);
        rope_shape(p, 64, 4, 64, (enum meed_dtype)dtype);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MEED_OP(name, text) PARITY_FAMILY_##name(name)
#include "kernels/ops.def"
#undef MEED_OP
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
