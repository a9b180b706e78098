/* The wrappers of port.cuh against the layouts that the PTX ISA documents.
 *
 * Goal: a misreading that ldmatrix and mma share would cancel out in every product, so each is
 * judged alone, by formulas written here from the documentation: registers of every lane, one-hot
 * products, shuffles at the edges of their segments, the bytes of a short copy, limits of a launch.
 * Limit: nothing here has been compared with a GPU; there, the same probes are the first to run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "kernels/types.h"
#include "tests/emu/emu.h"
#include "tests/emu/probes.h"

static void probes_ldmatrix_gives_rows_or_columns(void **state)
{
    (void)state;
    for (int matrices = 2; matrices <= 4; matrices += 2) {
        for (int transposed = 0; transposed < 2; transposed++) {
            uint32_t r[PROBE_LANES][4];
            probe_ldmatrix(matrices, transposed == 1, r);
            for (int lane = 0; lane < PROBE_LANES; lane++) {
                for (int j = 0; j < matrices; j++) {
                    int pair = lane % 4 * 2;
                    int line = lane / 4;
                    int low = transposed ? pair * 8 + line : line * 8 + pair;
                    int high = transposed ? low + 8 : low + 1;
                    assert_int_equal(r[lane][j] & 0xFFFF, j * 64 + low);
                    assert_int_equal(r[lane][j] >> 16, j * 64 + high);
                }
            }
        }
    }
}

/* One element of A at a time: row i of D is that element's row of B, and nothing else is. */
static void probes_mma_is_a_product(void **state)
{
    (void)state;
    uint16_t b[128];
    for (int i = 0; i < 128; i++) {
        b[i] = meed_bf16_from_f32((float)(i + 1));
    }
    for (int hot = 0; hot < 256; hot++) {
        uint16_t a[256] = {0};
        float d[128];
        a[hot] = meed_bf16_from_f32(2.0f);
        for (int i = 0; i < 128; i++) {
            d[i] = (float)(1000 * i);
        }
        probe_mma(a, b, d);
        for (int i = 0; i < 128; i++) {
            int add = i / 8 == hot / 16 ? 2 * (hot % 16 * 8 + i % 8 + 1) : 0;
            assert_int_equal((int)d[i], 1000 * i + add);
        }
    }
}

static void probes_shuffle_stays_in_its_segment(void **state)
{
    (void)state;
    for (int width = 8; width <= 32; width *= 2) {
        for (int operand = 0; operand < 32; operand++) {
            int got[4][PROBE_LANES];
            for (int kind = 0; kind < 4; kind++) {
                probe_shuffle((enum probe_shuffle)kind, operand, width, got[kind]);
            }
            for (int lane = 0; lane < PROBE_LANES; lane++) {
                int first = lane / width * width;
                int end = first + width;
                int flipped = lane ^ operand;
                assert_int_equal(got[PROBE_IDX][lane], first + operand % width);
                assert_int_equal(got[PROBE_UP][lane],
                                 lane - operand < first ? lane : lane - operand);
                assert_int_equal(got[PROBE_DOWN][lane],
                                 lane + operand >= end ? lane : lane + operand);
                assert_int_equal(got[PROBE_XOR][lane], flipped >= end ? lane : flipped);
            }
        }
    }
}

static void probes_short_copy_ends_in_zeros(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        meed_emu_mode_set((struct meed_emu_mode){0, late == 1});
        for (int bytes = 0; bytes <= 16; bytes++) {
            unsigned char got[16];
            probe_copy(bytes, got);
            for (int i = 0; i < 16; i++) {
                assert_int_equal(got[i], i < bytes ? i + 1 : 0);
            }
        }
    }
}

static void probes_ballot_counts_existing_lanes(void **state)
{
    (void)state;
    assert_int_equal(probe_ballot(32), 0xAAAAAAAAu);
    assert_int_equal(probe_ballot(5), 0x0000000Au);
}

static void probes_launch_has_limits(void **state)
{
    (void)state;
    enum { INVALID_CONFIGURATION = 9 };
    assert_int_equal(probe_launch(1, 1024, 1), 0);
    assert_int_equal(probe_launch(65535, 1, 1), 0);
    assert_int_equal(probe_launch(1, 1025, 1), INVALID_CONFIGURATION);
    assert_int_equal(probe_launch(65536, 1, 1), INVALID_CONFIGURATION);
    assert_int_equal(probe_launch(0, 1, 1), INVALID_CONFIGURATION);
    assert_int_equal(probe_launch(1, 1, 65), INVALID_CONFIGURATION);
    assert_int_equal(probe_launch(1, 0, 1), INVALID_CONFIGURATION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probes_ldmatrix_gives_rows_or_columns),
        cmocka_unit_test(probes_mma_is_a_product),
        cmocka_unit_test(probes_shuffle_stays_in_its_segment),
        cmocka_unit_test(probes_short_copy_ends_in_zeros),
        cmocka_unit_test(probes_ballot_counts_existing_lanes),
        cmocka_unit_test(probes_launch_has_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
