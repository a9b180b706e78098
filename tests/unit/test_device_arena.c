/* Device arenas: what was measured is what is reserved, aligned and apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/device_arena.h"

static void device_arena_carves_what_it_measured(void **state)
{
    (void)state;
    struct meed_backend *be = NULL;
    struct meed_device_arena arena;
    char *blocks[3] = {0};
    assert_int_equal(meed_backend_open_cpu(NULL, NULL, &be), MEED_OK);
    meed_device_arena_init(&arena, be);
    for (int pass = 0; pass < 2; pass++) {
        struct meed_mat mat = meed_device_arena_mat(&arena, 3, 5, MEED_DTYPE_BF16);
        blocks[0] = mat.data;
        blocks[1] = meed_device_arena_take(&arena, 1, 1);
        assert_null(meed_device_arena_take(&arena, 0, 4));
        blocks[2] = meed_device_arena_take(&arena, 100, sizeof(double));
        assert_int_equal(mat.stride, 5);
        for (int i = 0; i < 3; i++) {
            assert_true((blocks[i] != NULL) == (pass == 1));
            assert_int_equal((uintptr_t)blocks[i] % 64, 0);
        }
        if (pass == 0) {
            assert_int_equal(meed_device_arena_reserve(&arena), MEED_OK);
        }
    }
    assert_true(blocks[1] - blocks[0] >= 30 && blocks[2] - blocks[1] >= 1);
    assert_int_equal(arena.used, arena.capacity);
    for (int i = 0; i < 800; i++) {
        assert_int_equal(blocks[2][i], 0);
    }
    meed_device_arena_clear(&arena);
    meed_device_arena_clear(&arena);
    meed_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(device_arena_carves_what_it_measured)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
