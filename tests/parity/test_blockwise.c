/* Weights in blocks against float64: scales, codes, values, and the error that each format
 * promises.
 *
 * Goal: every bit. A scale is one division, a code one division and one rounding, a value one
 * product, each correctly rounded, so float64 rounded once to float gives what every backend must
 * write, and the comparison is for equal bytes. Method: widths around the block of 64, both dtypes,
 * blocks of zeros, of one value, of numbers too small for a scale, exact ties; rows alone.
 */
#define PARITY_BLOCKWISE(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { ROWS = 11 };
static const int64_t widths[] = {1, 31, 33, 64, 72, 200};

struct packed {
    struct meed_blocks blocks; /* on the device */
    int64_t blocks_in_row, code_bytes, scale_count;
};

static struct packed packed_make(struct parity *p, enum meed_block_format format, int64_t rows,
                                 int64_t cols)
{
    struct packed made = {.blocks_in_row = meed_blocks_per_row(cols)};
    made.scale_count = rows * made.blocks_in_row;
    made.code_bytes = made.scale_count * meed_block_bytes(format);
    made.blocks = (struct meed_blocks){
        .codes = (uint8_t *)parity_floats(p, made.code_bytes / (int64_t)sizeof(float), 1.0),
        .scales = parity_floats(p, made.scale_count, 1.0),
        .rows = rows,
        .cols = cols,
        .format = format,
    };
    return made;
}

/* Codes, then scales, on the host. */
static uint8_t *packed_fetch(struct parity *p, const struct packed *packed)
{
    size_t scale_bytes = (size_t)packed->scale_count * sizeof(float);
    uint8_t *host = (uint8_t *)parity_doubles(p, (packed->code_bytes + 4 * packed->scale_count));
    assert_int_equal(
        p->be->copy_from(p->be, host, packed->blocks.codes, (size_t)packed->code_bytes), MEED_OK);
    assert_int_equal(
        p->be->copy_from(p->be, host + packed->code_bytes, packed->blocks.scales, scale_bytes),
        MEED_OK);
    assert_int_equal(p->be->sync(p->be), MEED_OK);
    return host;
}

/* Random rows, some of them with a story: zeros, one spike, below any scale, ties of int8. */
static struct meed_mat weights_make(struct parity *p, int64_t cols, enum meed_dtype dtype)
{
    struct meed_mat w = parity_mat(p, ROWS, cols, cols % 8 == 0 ? 8 : 3, dtype, 0.4);
    float row[256];
    for (int story = 0; story < 4; story++) {
        for (int64_t j = 0; j < cols; j++) {
            float tie = 127.0f - 0.5f * (float)(j % 64);
            row[j] = story == 0   ? 0.0f
                     : story == 1 ? (j == cols - 1 ? -3.0f : 0.0f)
                     : story == 2 ? 1e-37f * (float)parity_unit(p)
                                  : tie;
        }
        meed_bf16 half[256];
        for (int64_t j = 0; j < cols; j++) {
            half[j] = meed_bf16_from_f32(row[j]);
        }
        const void *from = dtype == MEED_DTYPE_F32 ? (const void *)row : (const void *)half;
        size_t bytes = (size_t)cols * meed_dtype_bytes(dtype);
        assert_int_equal(p->be->copy_to(p->be, meed_mat_rows(w, 2 * story, 1).data, from, bytes),
                         MEED_OK);
        assert_int_equal(p->be->sync(p->be), MEED_OK);
    }
    return w;
}

static int want_code(enum meed_block_format format, double value, float scale)
{
    float ratio = scale > 0 ? (float)(value / (double)scale) : 0.0f;
    if (format != MEED_BLOCK_NF4) {
        return (int)nearbyint((double)ratio) + (format == MEED_BLOCK_INT4 ? 8 : 0);
    }
    float book[MEED_BLOCK_BOOK];
    int best = 0;
    meed_block_book(format, book);
    for (int i = 1; i < MEED_BLOCK_BOOK; i++) {
        double bound = (double)(float)(((double)book[i - 1] + (double)book[i]) / 2);
        best = (double)ratio > bound ? i : best;
    }
    return best;
}

static int code_at(const uint8_t *codes, enum meed_block_format format, int64_t block, int64_t i)
{
    if (format == MEED_BLOCK_INT8) {
        return (int8_t)codes[block * MEED_BLOCK + i];
    }
    int byte = codes[block * MEED_BLOCK_HALF + i % MEED_BLOCK_HALF];
    return i < MEED_BLOCK_HALF ? byte & 15 : byte >> 4;
}

static float value_of(enum meed_block_format format, int code, float scale)
{
    float book[MEED_BLOCK_BOOK];
    meed_block_book(format, book);
    double unit = format == MEED_BLOCK_INT8 ? (double)code : (double)book[code];
    return (float)(unit * (double)scale);
}

static void check_block(enum meed_block_format format, const double *values, int64_t count,
                        const uint8_t *codes, int64_t block, float scale)
{
    /* half a step of each format, in scales */
    const double promise = format == MEED_BLOCK_NF4 ? 0.15191 : 0.5;
    double peak = 0;
    for (int64_t i = 0; i < count; i++) {
        peak = fmax(peak, fabs(values[i]));
    }
    float want = (float)(peak / (double)meed_block_peak(format));
    want = want >= FLT_MIN ? want : 0.0f;
    assert_memory_equal(&scale, &want, sizeof want);
    for (int64_t i = 0; i < MEED_BLOCK; i++) {
        double value = i < count ? values[i] : 0.0;
        int code = code_at(codes, format, block, i);
        assert_int_equal(code, want_code(format, value, scale));
        double error = fabs((double)value_of(format, code, scale) - value);
        /* a scale, a ratio and a value are rounded once each, 2⁻²⁴ of up to 127 steps */
        assert_true(error <= (double)scale * (promise + 127 * 3 * 0x1p-24) ||
                    fpclassify(scale) == FP_ZERO);
    }
}

static void pack_shape(struct parity *p, enum meed_block_format format, int64_t cols,
                       enum meed_dtype dtype)
{
    struct meed_mat w = weights_make(p, cols, dtype);
    struct packed packed = packed_make(p, format, ROWS, cols);
    const double *values = parity_values(p, w);
    p->be->block_pack(p->be, w, packed.blocks);
    const uint8_t *codes = packed_fetch(p, &packed);
    const uint8_t *scales = codes + packed.code_bytes;
    for (int64_t at = 0; at < packed.scale_count; at++) {
        int64_t row = at / packed.blocks_in_row, col = at % packed.blocks_in_row * MEED_BLOCK;
        float scale;
        memcpy(&scale, scales + at * 4, sizeof scale);
        check_block(format, values + row * cols + col, MEED_MIN(MEED_BLOCK, cols - col), codes, at,
                    scale);
    }
    parity_record_bytes(p, codes, (size_t)(packed.code_bytes + 4 * packed.scale_count));
    struct packed alone = packed_make(p, format, 1, cols);
    p->be->block_pack(p->be, meed_mat_rows(w, 9, 1), alone.blocks);
    const uint8_t *got = packed_fetch(p, &alone);
    parity_same("a row alone", got, codes + 9 * alone.code_bytes, (size_t)alone.code_bytes);
    parity_same("its scales", got + alone.code_bytes, scales + 9 * 4 * alone.scale_count,
                (size_t)(4 * alone.scale_count));
    p->be->block_pack(p->be, meed_mat_rows(w, 0, 0), meed_blocks_rows(packed.blocks, 0, 0));
    parity_release(p);
}

static void unpack_shape(struct parity *p, enum meed_block_format format, int64_t cols,
                         int64_t rank, enum meed_dtype dtype)
{
    struct meed_mat w = weights_make(p, cols, MEED_DTYPE_F32);
    struct packed packed = packed_make(p, format, ROWS, cols);
    struct meed_mat tail = {0};
    tail.dtype = dtype;
    if (rank > 0) {
        tail = parity_mat(p, ROWS, rank, 0, dtype, 1.0);
    }
    struct meed_mat out = parity_mat(p, ROWS, cols + rank, cols % 8 == 0 ? 8 : 5, dtype, 1.0);
    p->be->block_pack(p->be, w, packed.blocks);
    p->be->block_unpack(p->be, packed.blocks, tail, out);
    const uint8_t *codes = packed_fetch(p, &packed);
    const double *got = parity_values(p, out);
    const double *low_rank = rank > 0 ? parity_values(p, tail) : NULL;
    for (int64_t i = 0; i < ROWS * (cols + rank); i++) {
        int64_t row = i / (cols + rank), col = i % (cols + rank);
        double want = col >= cols ? low_rank[row * rank + col - cols] : 0;
        if (col < cols) {
            int64_t block = row * packed.blocks_in_row + col / MEED_BLOCK;
            float scale;
            memcpy(&scale, codes + packed.code_bytes + block * 4, sizeof scale);
            float value = value_of(format, code_at(codes, format, block, col % MEED_BLOCK), scale);
            want = dtype == MEED_DTYPE_F32 ? (double)value
                                           : (double)meed_bf16_to_f32(meed_bf16_from_f32(value));
        }
        assert_memory_equal(&got[i], &want, sizeof want);
    }
    parity_record(p, out);
    struct meed_mat alone = parity_mat(p, 1, cols + rank, 8, dtype, 1.0);
    struct meed_mat its_tail = rank > 0 ? meed_mat_rows(tail, 9, 1) : tail;
    p->be->block_unpack(p->be, meed_blocks_rows(packed.blocks, 9, 1), its_tail, alone);
    parity_same_rows(p, "a row alone", alone, meed_mat_rows(out, 9, 1));
    parity_release(p);
}

static void parity_case_block_pack(struct parity *p)
{
    for (int format = MEED_BLOCK_INT8; format < MEED_BLOCK_FORMATS; format++) {
        for (size_t i = 0; i < MEED_COUNT(widths); i++) {
            pack_shape(p, (enum meed_block_format)format, widths[i], MEED_DTYPE_F32);
            pack_shape(p, (enum meed_block_format)format, widths[i], MEED_DTYPE_BF16);
        }
    }
}

static void parity_case_block_unpack(struct parity *p)
{
    for (int format = MEED_BLOCK_INT8; format < MEED_BLOCK_FORMATS; format++) {
        for (size_t i = 0; i < MEED_COUNT(widths); i++) {
            unpack_shape(p, (enum meed_block_format)format, widths[i], 8, MEED_DTYPE_F32);
            unpack_shape(p, (enum meed_block_format)format, widths[i], 16, MEED_DTYPE_BF16);
            unpack_shape(p, (enum meed_block_format)format, widths[i], 0, MEED_DTYPE_BF16);
        }
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
