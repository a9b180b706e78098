/* Weights in blocks against another implementation: tests/golden/blocks, made with numpy and torch.
 *
 * Goal: int8 and int4 give the same floats, NF4 the same codes, and its book is the one that the
 * normal quantiles define. Bound of the book: the paper's table was computed from the offset
 * rounded to 0.9677083, which moves entries by up to 1.8e-7; so NF4 values are compared
 * within 2.5e-7 of their block's largest weight, while a wrong code would be off by at least 0.079.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "engine/safetensors.h"
#include "tests/support/golden.h"

enum { ROWS = 6, COLS = 150, CODE_BYTES = ROWS * 3 * MEED_BLOCK };
static const double BOOK_BOUND = 2.5e-7;

static struct meed_safetensors *expected;

static void expected_values(const char *name, float *out, int64_t count)
{
    const struct meed_tensor *tensor = meed_safetensors_find(expected, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->count, count);
    golden_ok(meed_tensor_to_f32(tensor, out));
}

static void through_blocks(enum meed_block_format format, float *weights, float *out)
{
    _Alignas(16) uint8_t codes[CODE_BYTES];
    float scales[ROWS * 3];
    struct meed_backend *be = NULL;
    struct meed_blocks blocks = {codes, scales, ROWS, COLS, format};
    struct meed_mat none = {.dtype = MEED_DTYPE_F32};
    golden_ok(meed_backend_open_cpu(NULL, NULL, &be));
    be->block_pack(be, meed_mat_view(weights, ROWS, COLS, COLS, MEED_DTYPE_F32), blocks);
    be->block_unpack(be, blocks, none, meed_mat_view(out, ROWS, COLS, COLS, MEED_DTYPE_F32));
    meed_backend_close(be);
}

static void blocks_of_integers_are_the_same_floats(void **state)
{
    (void)state;
    float weights[ROWS * COLS], got[ROWS * COLS], want[ROWS * COLS];
    expected_values("weight", weights, ROWS * COLS);
    for (int format = MEED_BLOCK_INT8; format <= MEED_BLOCK_INT4; format++) {
        through_blocks((enum meed_block_format)format, weights, got);
        expected_values(meed_block_format_name((enum meed_block_format)format), want, ROWS * COLS);
        for (int i = 0; i < ROWS * COLS; i++) {
            assert_true(got[i] == want[i]); /* −0 of numpy is 0 here */
        }
    }
}

static void blocks_of_nf4_take_the_same_codes(void **state)
{
    (void)state;
    float weights[ROWS * COLS], got[ROWS * COLS], want[ROWS * COLS];
    expected_values("weight", weights, ROWS * COLS);
    expected_values("nf4", want, ROWS * COLS);
    through_blocks(MEED_BLOCK_NF4, weights, got);
    for (int i = 0; i < ROWS * COLS; i++) {
        int first = i / COLS * COLS + i % COLS / MEED_BLOCK * MEED_BLOCK;
        float peak = 0;
        for (int j = first; j < first + MEED_BLOCK && j / COLS == i / COLS; j++) {
            peak = fmaxf(peak, fabsf(weights[j]));
        }
        assert_true(fabs((double)got[i] - (double)want[i]) <= BOOK_BOUND * (double)peak);
    }
}

/* Φ⁻¹ by bisection of erfc, in float64. */
static double normal_quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / sqrt(2.0)) < p) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (low + high) / 2;
}

static void blocks_book_is_its_definition(void **state)
{
    (void)state;
    float book[MEED_BLOCK_BOOK], torch_book[MEED_BLOCK_BOOK];
    const double top = (1.0 - 1.0 / 30 + 1.0 - 1.0 / 32) / 2;
    const double largest = normal_quantile(top);
    meed_block_book(MEED_BLOCK_NF4, book);
    expected_values("nf4.book", torch_book, MEED_BLOCK_BOOK);
    for (int i = 0; i < MEED_BLOCK_BOOK; i++) {
        int steps = i < 7 ? 7 : 8, step = i < 7 ? i : 15 - i;
        double want = normal_quantile(top + (0.5 - top) * step / steps) / largest;
        want = i < 7 ? -want : i == 7 ? 0.0 : want;
        assert_true(fabs((double)book[i] - want) <= BOOK_BOUND);
        assert_true(fabs((double)torch_book[i] - want) <= 6e-8); /* a float of it */
    }
}

static int set_up(void **state)
{
    (void)state;
    golden_ok(meed_safetensors_open(MEED_SOURCE_DIR "/tests/golden/blocks/expected.safetensors",
                                    &expected));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    meed_safetensors_close(expected);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_integers_are_the_same_floats),
        cmocka_unit_test(blocks_of_nf4_take_the_same_codes),
        cmocka_unit_test(blocks_book_is_its_definition),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
