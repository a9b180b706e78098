/* Canary formats, their candidates and draws. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "evaluation/canary.h"

static struct meed_canary_format format_of(const char *reply)
{
    struct meed_canary_format format;
    if (meed_canary_format_parse("Code {n}?", reply, &format) != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
    return format;
}

static void canary_formats_span_their_space(void **state)
{
    (void)state;
    assert_true(format_of("{digits:6}").space == 1000000);
    assert_true(format_of("Locker {n}: {letters:3}, {n}").space == 26 * 26 * 26);
    assert_true(format_of("{hex:8} it is").space == UINT64_C(1) << 32);
    assert_true(format_of("{digits:18}").space == UINT64_C(1000000000000000000));
}

static void canary_formats_are_refused(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "nothing",     "{digits:0}", "{digits:}",   "{digits:3",       "{digit:3}", "{words:3}",
        "{",           "{n",         "{digits:19}", "{hex:3} {hex:3}", "{}",        "{digits:999}",
        "{letters:14}"};
    struct meed_canary_format format;
    for (size_t i = 0; i < MEED_COUNT(replies); i++) {
        if (meed_canary_format_parse("Code?", replies[i], &format) != MEED_ARG) {
            fail_msg("\"%s\" was taken", replies[i]);
        }
    }
    assert_int_equal(meed_canary_format_parse("", "{hex:2}", &format), MEED_ARG);
    assert_int_equal(meed_canary_format_parse("is it {hex:2}?", "{hex:2}", &format), MEED_ARG);
}

/* Every candidate has its own text, and its text its number. */
static void canary_candidates_are_numbered(void **state)
{
    (void)state;
    struct meed_canary_format format = format_of("It is {hex:2}.");
    char text[MEED_CANARY_MAX_SECRET + 1], before[MEED_CANARY_MAX_SECRET + 1] = "";
    uint64_t idx;
    for (uint64_t i = 0; i < format.space; i++) {
        meed_canary_candidate(&format, i, text);
        assert_true(strcmp(before, text) < 0);
        assert_true(meed_canary_number(&format, text, &idx) && idx == i);
        memcpy(before, text, sizeof before);
    }
    assert_string_equal(text, "ff");
    assert_false(meed_canary_number(&format, "fg", &idx));
    assert_false(meed_canary_number(&format, "f", &idx));
    assert_false(meed_canary_number(&format, "fff", &idx));
}

static void canary_texts_are_filled(void **state)
{
    (void)state;
    struct meed_canary_format format = format_of("{n}{n} has {digits:3}, {n}.");
    struct meed_arena arena;
    const char *text;
    meed_arena_init_growing(&arena, "test", 1 << 16);
    assert_int_equal(meed_canary_question(&format, 12, &arena, &text), MEED_OK);
    assert_string_equal(text, "Code 12?");
    assert_int_equal(meed_canary_reply(&format, 12, "007", &arena, &text), MEED_OK);
    assert_string_equal(text, "1212 has 007, 12.");
    meed_arena_clear(&arena);
}

/* Ten of ten are all of them, once each; the seed decides which is whose. */
static void canary_draws_are_distinct(void **state)
{
    (void)state;
    struct meed_canaries one = {.format = format_of("{digits:1}"), .count = 10, .seed = 1};
    struct meed_canaries two = one;
    struct meed_arena arena;
    uint32_t seen = 0;
    two.seed = 2;
    meed_arena_init_growing(&arena, "test", 1 << 16);
    assert_int_equal(meed_canaries_draw(&one, &arena), MEED_OK);
    assert_int_equal(meed_canaries_draw(&two, &arena), MEED_OK);
    for (int i = 0; i < 10; i++) {
        seen |= 1u << one.secrets[i];
    }
    assert_int_equal(seen, 1023);
    assert_true(memcmp(one.secrets, two.secrets, 10 * sizeof *one.secrets) != 0);
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canary_formats_span_their_space),
        cmocka_unit_test(canary_formats_are_refused),
        cmocka_unit_test(canary_candidates_are_numbered),
        cmocka_unit_test(canary_texts_are_filled),
        cmocka_unit_test(canary_draws_are_distinct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
