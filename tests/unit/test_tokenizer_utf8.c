/* UTF-8 checks at their edges.
 *
 * Goal: exactly the well-formed sequences pass, and a cut character is told from a wrong one.
 * Method: every code point there and back; table of edges; every cut of a text of all lengths. That
 * replacement agrees with the definition is tested through the tokenizer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "engine/tokenizer_utf8.h"

static size_t put(uint32_t point, char text[4])
{
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const uint32_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = length; i-- > 1; point >>= 6) {
        text[i] = (char)(0x80 | (point & 0x3F));
    }
    text[0] = (char)(leads[length] | point);
    return length;
}

static void tokenizer_utf8_knows_every_character(void **state)
{
    (void)state;
    for (uint32_t point = 0; point < 0x120000; point++) {
        char text[4];
        size_t length = put(point, text);
        bool good = point < 0x110000 && (point < 0xD800 || point > 0xDFFF);
        assert_int_equal(meed_tokenizer_utf8_prefix(text, length), good ? length : 0);
        assert_int_equal(meed_tokenizer_utf8_unfinished(text, length), 0);
        for (size_t cut = 1; good && cut < length; cut++) {
            assert_int_equal(meed_tokenizer_utf8_prefix(text, cut), 0);
            assert_int_equal(meed_tokenizer_utf8_unfinished(text, cut), cut);
        }
    }
}

static void tokenizer_utf8_finds_the_unfinished_end(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t prefix;
        size_t unfinished;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 0},
        {"ab\xC3", 2, 1},
        {"ab\xE4\xB8", 2, 2},
        {"ab\xF0\x9F\x99", 2, 3},
        {"ab\xE0\x80", 2, 0}, /* overlong: wrong already */
        {"ab\xED\xA0", 2, 0}, /* a surrogate */
        {"ab\x80", 2, 0},     /* no lead */
        {"\xC0", 0, 0},       /* never a lead */
        {"\xE4\xB8\xC3", 0, 1},
        {"\xC3\xA9\xC3", 2, 1},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        size_t size = strlen(cases[i].text);
        assert_int_equal(meed_tokenizer_utf8_prefix(cases[i].text, size), cases[i].prefix);
        assert_int_equal(meed_tokenizer_utf8_unfinished(cases[i].text, size), cases[i].unfinished);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_utf8_knows_every_character),
        cmocka_unit_test(tokenizer_utf8_finds_the_unfinished_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
