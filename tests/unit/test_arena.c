/* Arenas: measuring and carving agree, limits hold, resets forget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/arena.h"

struct layout {
    void *first;
    void *second;
};

static enum meed_status carve(struct meed_arena *arena, struct layout *layout)
{
    MEED_TRY(meed_arena_alloc(arena, 100, &layout->first));
    return meed_arena_alloc_array(arena, 7, 24, &layout->second);
}

static void arena_measures_then_carves(void **state)
{
    /* Goal: one layout function, run twice, gets exactly the memory it measured, zeroed, aligned.
     */
    (void)state;
    struct meed_arena arena;
    struct layout layout;
    meed_arena_init(&arena, "test");
    assert_int_equal(carve(&arena, &layout), MEED_OK);
    assert_null(layout.first);
    assert_int_equal(arena.used, 128 + 192);
    assert_int_equal(meed_arena_reserve(&arena), MEED_OK);
    assert_int_equal(carve(&arena, &layout), MEED_OK);
    assert_int_equal((uintptr_t)layout.second % MEED_ARENA_ALIGN, 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(((char *)layout.first)[i], 0);
    }
    memset(layout.second, 1, 7 * 24);
    assert_int_equal(arena.used, arena.capacity);
    meed_arena_reset(&arena);
    assert_int_equal(carve(&arena, &layout), MEED_OK);
    assert_int_equal(((char *)layout.second)[5], 0);
    meed_arena_clear(&arena);
}

static void arena_growing_stops_at_its_limit(void **state)
{
    /* Goal: a growing arena hands out up to its limit, then LIMIT; blocks keep their content. */
    (void)state;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "test", 1 << 20);
    char *copy = NULL;
    assert_int_equal(meed_arena_strdup(&arena, "hello world", 5, &copy), MEED_OK);
    assert_string_equal(copy, "hello");
    void *block = NULL;
    int count = 0;
    while (meed_arena_alloc(&arena, 100000, &block) == MEED_OK) {
        memset(block, 255, 100000);
        count++;
    }
    assert_int_equal(count, 10);
    assert_string_equal(copy, "hello");
    assert_int_equal(meed_arena_alloc(&arena, SIZE_MAX, &block), MEED_LIMIT);
    assert_int_equal(meed_arena_alloc_array(&arena, SIZE_MAX / 4, 8, &block), MEED_LIMIT);
    meed_arena_reset(&arena);
    assert_int_equal(meed_arena_alloc(&arena, 1 << 20, &block), MEED_OK);
    meed_arena_clear(&arena);
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_measures_then_carves),
        cmocka_unit_test(arena_growing_stops_at_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
