/* The product of our own that serves where cuBLASLt has no kernel (kernels/cuda/matmul.cu).
 *
 * Goal: the fallback is right, keeps out of padding and is as deterministic as the rest, though
 * the emulated cuBLASLt never needs it. Method: the emulator refuses, and what the kernel writes
 * must be the bytes of the emulator's own loop: both are one chain of fma over k and one rounding.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"

struct shape {
    int64_t m, n, k, pad;
};
static const struct shape shapes[] = {{1, 1, 1, 0}, {3, 5, 7, 3}, {70, 33, 40, 1}, {64, 64, 16, 0}};

static struct meed_mat random_mat(const struct meed_backend *be, struct meed_rng *rng, int64_t rows,
                                  int64_t cols, int64_t pad, enum meed_dtype dtype)
{
    struct meed_mat mat = meed_mat_view(NULL, rows, cols, cols + pad, dtype);
    size_t count = (size_t)(rows * mat.stride);
    float *wide = calloc(count, sizeof *wide);
    meed_bf16 *narrow = calloc(count, sizeof *narrow);
    assert_true(wide && narrow);
    for (size_t i = 0; i < count; i++) {
        wide[i] = (float)(2.0 * meed_rng_unit(rng) - 1.0);
        narrow[i] = meed_bf16_from_f32(wide[i]);
    }
    size_t bytes = count * meed_dtype_bytes(dtype);
    const void *host = dtype == MEED_DTYPE_F32 ? (const void *)wide : (const void *)narrow;
    assert_int_equal(be->alloc(be, bytes, &mat.data), MEED_OK);
    assert_int_equal(be->copy_to(be, mat.data, host, bytes), MEED_OK);
    free(wide);
    free(narrow);
    return mat;
}

static void *bytes_of(const struct meed_backend *be, struct meed_mat mat)
{
    size_t bytes = (size_t)(mat.rows * mat.stride) * meed_dtype_bytes(mat.dtype);
    void *host = malloc(bytes);
    assert_non_null(host);
    assert_int_equal(be->copy_from(be, host, mat.data, bytes), MEED_OK);
    assert_int_equal(be->sync(be), MEED_OK);
    return host;
}

static void both_ways(const struct meed_backend *be, struct shape s, enum meed_matmul_kind kind,
                      enum meed_dtype in, enum meed_dtype out, bool accumulate)
{
    struct meed_rng rng = meed_rng_stream(7, "plain product", 0);
    bool transposed = kind == MEED_MATMUL_NT;
    struct meed_mat a = random_mat(be, &rng, s.m, s.k, s.pad, in);
    struct meed_mat b =
        random_mat(be, &rng, transposed ? s.n : s.k, transposed ? s.k : s.n, s.pad, in);
    struct meed_rng again = rng;
    struct meed_mat c = random_mat(be, &rng, s.m, s.n, s.pad, out);
    struct meed_mat d = random_mat(be, &again, s.m, s.n, s.pad, out);
    be->matmul(be, kind, a, b, accumulate, c);
    meed_emu_products_refuse(true);
    be->matmul(be, kind, a, b, accumulate, d);
    meed_emu_products_refuse(false);
    void *want = bytes_of(be, c);
    void *got = bytes_of(be, d);
    assert_memory_equal(got, want, (size_t)(c.rows * c.stride) * meed_dtype_bytes(out));
    free(want);
    free(got);
    void *blocks[] = {a.data, b.data, c.data, d.data};
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        be->free(be, blocks[i]);
    }
}

static void plain_product_gives_the_bytes_of_the_loop(void **state)
{
    (void)state;
    struct meed_emu_mode modes[MEED_EMU_MODES];
    int count = meed_emu_mode_list(modes);
    struct meed_cuda_caller caller = {MEED_RELEASE, sizeof(struct meed_backend)};
    struct meed_backend *be = NULL;
    int64_t launches = meed_emu_counted().launches;
    assert_int_equal(meed_cuda_open(caller, 0, &be), MEED_OK);
    for (int mode = 0; mode < count; mode++) {
        meed_emu_mode_set(modes[mode]);
        for (size_t i = 0; i < MEED_COUNT(shapes) * 4; i++) {
            struct shape s = shapes[i / 4];
            enum meed_matmul_kind kind = i % 2 ? MEED_MATMUL_NN : MEED_MATMUL_NT;
            bool accumulate = i / 2 % 2;
            both_ways(be, s, kind, MEED_DTYPE_F32, MEED_DTYPE_F32, accumulate);
            both_ways(be, s, kind, MEED_DTYPE_BF16, MEED_DTYPE_F32, accumulate);
            both_ways(be, s, kind, MEED_DTYPE_BF16, MEED_DTYPE_BF16, accumulate);
        }
    }
    launches = meed_emu_counted().launches - launches;
    assert_int_equal(launches, (int64_t)count * (int64_t)MEED_COUNT(shapes) * 12);
    meed_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_product_gives_the_bytes_of_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
