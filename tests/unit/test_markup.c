/* Markup: strangers' words cannot become tags, and a failure in the middle stays visible. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "report/markup.h"
#include "tests/support/tags.h"

static void expect(const char *text, int most, const char *want)
{
    struct meed_markup markup;
    meed_markup_init(&markup);
    meed_markup_raw(&markup, "|");
    meed_markup_text_cut(&markup, text, most);
    assert_int_equal(markup.status, MEED_OK);
    assert_string_equal(markup.text.data + 1, want);
    meed_markup_clear(&markup);
}

static void markup_escapes_what_could_act(void **state)
{
    /* Goal: the five characters become entities, controls and broken UTF-8 become U+FFFD; good
     * UTF-8 of every length passes. Broken: stray and cut sequences, overlong '/', a surrogate,
     * above U+10FFFF. */
    (void)state;
    expect("<script a='1' b=\"2\">&", 99, "&lt;script a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;");
    expect("a\tb\x01", 99,
           "a\xEF\xBF\xBD"
           "b\xEF\xBF\xBD");
    expect("−0.5 é 𝛗", 99, "−0.5 é 𝛗");
    static const char *const broken[] = {
        "\x80", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x88"};
    for (size_t i = 0; i < MEED_COUNT(broken); i++) {
        char want[64] = "";
        size_t used = 0;
        for (size_t b = 0; b < strlen(broken[i]); b++) {
            memcpy(want + used, "\xEF\xBF\xBD", 4);
            used += 3;
        }
        expect(broken[i], 99, want);
    }
}

static void markup_cuts_between_characters(void **state)
{
    /* Goal: at most `most` characters, the last an ellipsis; no character is cut in two. */
    (void)state;
    expect("ééééé", 5, "ééééé");
    expect("éééééé", 5, "éééé…");
    expect("a&b&c", 3, "a&amp;…");
    assert_int_equal(meed_markup_length("é𝛗a"), 3);
}

static void markup_keeps_the_first_failure(void **state)
{
    /* Goal: after a failed append nothing more is written, and the status says so. */
    (void)state;
    struct meed_markup markup;
    meed_markup_init(&markup);
    markup.text.max_size = 8;
    meed_markup_raw(&markup, "12345");
    meed_markup_text(&markup, "6789");
    assert_int_equal(markup.status, MEED_LIMIT);
    meed_markup_raw(&markup, "x");
    assert_string_equal(markup.text.data, "12345678");
    meed_markup_clear(&markup);
}

static void tags_see_planted_faults(void **state)
{
    /* Goal: the checker that other tests rely on fails where it must. */
    (void)state;
    static const char *const good = "<!DOCTYPE html>\n<p class=\"a\">x &amp; y<br/></p>";
    static const char *const bad[] = {"<p>",      "<p></b>",         "</p>",     "<p a=b></p>",
                                      "a & b",    "<p a=\"<\"></p>", "<p>></p>", "<i><b></i></b>",
                                      "<style>x", "<p a=\"x></p>"};
    assert_null(tags_fault(good));
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        assert_non_null(tags_fault(bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(markup_escapes_what_could_act),
        cmocka_unit_test(markup_cuts_between_characters),
        cmocka_unit_test(markup_keeps_the_first_failure),
        cmocka_unit_test(tags_see_planted_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
