/* Oniguruma patterns in PCRE2's dialect: what is kept, rewritten, refused.
 *
 * Goal: no pattern whose meaning could differ gets through unseen. Method: a table of patterns with
 * the text expected, or with the construct that the refusal must name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "engine/tokenizer_pattern.h"

static const struct {
    const char *pattern;
    const char *part; /* must appear in the translation; or, when refused, in the message */
    enum meed_status status;
} cases[] = {
    {"(?i:'s|'t)| ?\\p{L}+|\\p{N}{1,3}", "(?i:'s|'t)| ?\\p{L}+|\\p{N}{1,3}", MEED_OK},
    {"\\s+(?!\\S)", "\\x{3000}]+(?![^", MEED_OK},
    {"[^\\s\\p{L}\\p{N}]+[\\r\\n]*", "[^\\x{9}-\\x{D}", MEED_OK},
    {"[\\S]", "[\\x{0}-\\x{8}", MEED_OK},
    {"\\d\\D", "\\p{Nd}\\P{Nd}", MEED_OK},
    {"\\w", "[\\p{L}\\p{M}\\p{Nd}\\p{Pc}]", MEED_OK},
    {"\\v", "\\x{B}", MEED_OK},
    {"\\.\\[\\]\\-[\\]\\-]", "\\.\\[\\]\\-[\\]\\-]", MEED_OK},
    {"\\x{4E00}-", "\\x{4E00}-", MEED_OK},
    {"a?+b*+c++", "a?+b*+c++", MEED_OK},
    {"(?<=a)b(?<!c)(?>d)", "(?<=a)b(?<!c)(?>d)", MEED_OK},
    {"\\h", "\\h", MEED_UNSUPPORTED},
    {"\\bword", "\\b", MEED_UNSUPPORTED},
    {"\\p{Han}", "\\p{Han}", MEED_UNSUPPORTED},
    {"\\p{^L}", "\\p{^L}", MEED_UNSUPPORTED},
    {"\\pL", "\\p", MEED_UNSUPPORTED},
    {"\\x41", "\\x", MEED_UNSUPPORTED},
    {"a{1,3}+", "{1,3}+", MEED_UNSUPPORTED},
    {"a{,3}", "{,3}", MEED_UNSUPPORTED},
    {"(?i)a", "(?i)", MEED_UNSUPPORTED},
    {"(?<name>a)", "(?<n", MEED_UNSUPPORTED},
    {"[a[bc]]", "\"[\"", MEED_UNSUPPORTED},
    {"[a&&b]", "&&", MEED_UNSUPPORTED},
    {"[]a]", "[]", MEED_UNSUPPORTED},
    {"(a)\\1", "\\1", MEED_UNSUPPORTED},
    {"[\\W]", "\\W", MEED_UNSUPPORTED},
    {"\\", "\\", MEED_UNSUPPORTED},
};

static void tokenizer_pattern_translates_or_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct meed_buf text;
        meed_buf_init(&text, 1 << 16);
        enum meed_status status =
            meed_tokenizer_pattern_translate("t.json", cases[i].pattern, &text);
        const char *result = status == MEED_OK ? text.data : meed_last_error();
        if (status != cases[i].status || !strstr(result, cases[i].part)) {
            fail_msg("%s: %s, %s", cases[i].pattern, meed_status_name(status), result);
        }
        meed_buf_clear(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_pattern_translates_or_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
