/* Charts: what is drawn where, checked in the drawing's own numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/chart.h"
#include "tests/support/tags.h"

static const struct meed_chart_words words = {"A <title> & more", "a note", "x", "y"};

static void opened(struct meed_markup *markup)
{
    meed_markup_init(markup);
}

/* Well-formed, and the words of strangers escaped. */
static void closed(struct meed_markup *markup)
{
    assert_int_equal(markup->status, MEED_OK);
    assert_null(tags_fault(markup->text.data));
    assert_non_null(strstr(markup->text.data, "A &lt;title&gt; &amp; more"));
    meed_markup_clear(markup);
}

static int count_of(const char *text, const char *piece)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, piece)); at += strlen(piece)) {
        count++;
    }
    return count;
}

struct rect {
    double x, y, width, height;
};

static const char *next_bar(const char *text, struct rect *rect)
{
    const char *at = strstr(text, "<rect class=\"bar\"");
    assert_non_null(at);
    assert_int_equal(sscanf(at,
                            "<rect class=\"bar\" x=\"%lf\" y=\"%lf\" width=\"%lf\" height=\"%lf\"",
                            &rect->x, &rect->y, &rect->width, &rect->height),
                     4);
    return at + 1;
}

static void chart_bars_are_as_long_as_their_values(void **state)
{
    /* Goal: widths in the ratio of the values, a negative bar ends where a positive one begins,
     * NaN has no bar, an error bar is there where there is an error. */
    (void)state;
    static const struct meed_chart_bar bars[] = {
        {.label = "a", .value = 10, .error = 1, .mark = {"10"}},
        {.label = "b", .value = 5, .error = 0, .mark = {"5"}},
        {.label = "<c>", .value = -2.5, .error = NAN, .mark = {"−2.5"}},
        {.label = "d", .value = NAN, .error = NAN, .mark = {"–"}},
    };
    struct meed_markup m;
    struct rect a, b, c;
    opened(&m);
    meed_chart_bars(&m, &words, bars, MEED_COUNT(bars));
    next_bar(next_bar(next_bar(m.text.data, &a), &b), &c);
    assert_true(fabs(a.width / b.width - 2) < 0.001 && fabs(a.width / c.width - 4) < 0.01);
    assert_true(fabs(c.x + c.width - a.x) < 0.011 && fabs(a.x - b.x) < 0.011);
    assert_true(b.y > a.y + a.height && c.y > b.y + b.height);
    assert_int_equal(count_of(m.text.data, "<rect class=\"bar\""), 3);
    assert_int_equal(count_of(m.text.data, "class=\"error\""), 1);
    assert_non_null(strstr(m.text.data, "&lt;c&gt;"));
    closed(&m);
}

static void chart_lines_break_at_gaps(void **state)
{
    /* Goal: a NaN is neither a dot nor a bridge; a band has two edges a point; whiskers stand
     * beside each other. */
    (void)state;
    static const double x[] = {1, 2, 3, 4}, y[] = {1, NAN, 2, 3}, error[] = {0.1, 0.1, 0.2, 0.3};
    struct meed_chart_series series[] = {{"one", 4, x, y, error}, {"two", 4, x, y, error}};
    struct meed_markup m;
    opened(&m);
    meed_chart_lines(&m, &words, series, 1, MEED_CHART_BAND);
    assert_int_equal(count_of(m.text.data, "<circle"), 3);
    assert_int_equal(count_of(m.text.data, "<polygon class=\"band\""), 1);
    const char *path = strstr(m.text.data, "<path class=\"line d0\" d=\"") + 25;
    int moves = 0, steps = 0;
    for (; *path != '"'; path++) {
        moves += *path == 'M';
        steps += *path == 'L';
    }
    assert_int_equal(moves, 2);
    assert_int_equal(steps, 1);
    closed(&m);
    opened(&m);
    meed_chart_lines(&m, &words, series, 2, MEED_CHART_WHISKER);
    double first = 0, second = 0;
    const char *at = strstr(m.text.data, "<circle class=\"dot\" cx=\"");
    sscanf(at, "<circle class=\"dot\" cx=\"%lf", &first);
    at = strstr(strstr(m.text.data, "<g class=\"c1\">"), "<circle class=\"dot\" cx=\"");
    sscanf(at, "<circle class=\"dot\" cx=\"%lf", &second);
    assert_true(second - first > 3);
    assert_int_equal(count_of(m.text.data, "class=\"whisker\""), 6);
    closed(&m);
    opened(&m);
    meed_chart_lines(&m, &words, series, 0, MEED_CHART_BAND);
    assert_int_equal(m.text.size, 0); /* nothing known, nothing drawn */
    meed_markup_clear(&m);
}

static void chart_scatter_labels_do_not_hit(void **state)
{
    /* Goal: labels of points on one spot are not written over each other; the identity line is
     * there when asked for, and only then. */
    (void)state;
    static const struct meed_chart_point points[] = {
        {.label = "north", .x = 1, .y = 1},
        {.label = "south", .x = 1, .y = 1},
        {.label = "west", .x = 2, .y = 2, .x_error = 0.5},
        {.label = "lost", .x = NAN, .y = 2},
    };
    struct meed_markup m;
    opened(&m);
    static const struct meed_chart_guide identity = {.identity = true};
    meed_chart_scatter(&m, &words, points, MEED_COUNT(points), &identity);
    double north[2], south[2];
    const char *text = strstr(m.text.data, ">north</text>"), *begin = text;
    while (strncmp(begin, "<text", 5) != 0) {
        begin--;
    }
    assert_int_equal(sscanf(begin, "<text x=\"%lf\" y=\"%lf\"", &north[0], &north[1]), 2);
    text = begin = strstr(m.text.data, ">south</text>");
    while (strncmp(begin, "<text", 5) != 0) {
        begin--;
    }
    assert_int_equal(sscanf(begin, "<text x=\"%lf\" y=\"%lf\"", &south[0], &south[1]), 2);
    assert_true(fabs(north[1] - south[1]) >= 12 || fabs(north[0] - south[0]) > 30);
    assert_int_equal(count_of(m.text.data, "<circle"), 3);
    assert_int_equal(count_of(m.text.data, "class=\"identity\""), 1);
    closed(&m);
    opened(&m);
    meed_chart_scatter(&m, &words, points, MEED_COUNT(points), NULL);
    assert_int_equal(count_of(m.text.data, "class=\"identity\""), 0);
    closed(&m);
}

/* Where the point or tick of this text stands; its x or y. */
static double text_at(const char *page, const char *text, const char *axis)
{
    char piece[64];
    double at = NAN;
    snprintf(piece, sizeof piece, ">%s</text>", text);
    const char *begin = strstr(page, piece);
    assert_non_null(begin);
    while (strncmp(begin, "<text", 5) != 0) {
        begin--;
    }
    begin = strstr(begin, axis);
    assert_int_equal(sscanf(begin + strlen(axis), "=\"%lf\"", &at), 1);
    return at;
}

static void chart_scatter_is_guided(void **state)
{
    /* Goal: a neighbour's points widen the axes and are not drawn; the better corner is named; a
     * label without room, one that would be cut and one of a course are in the key, others are not.
     */
    (void)state;
    static const struct meed_chart_point points[] = {
        {.label = "here", .x = 1, .y = 1},
        {.label = "a name of far more than 24 letters", .x = 0, .y = 0},
        {.label = "from", .x = 0, .y = 1},
        {.label = "course", .x = 1, .y = 0.5, .joined = true},
    };
    static const struct meed_chart_point beside[] = {{.label = "remote", .x = 100, .y = 3}};
    static const struct meed_chart_guide guide = {
        .low_right = true, .compact = true, .beside = beside, .beside_count = 1};
    struct meed_markup m;
    opened(&m);
    meed_chart_scatter(&m, &words, points, MEED_COUNT(points), &guide);
    assert_int_equal(count_of(m.text.data, "<circle"), 4);
    assert_null(strstr(m.text.data, "remote"));
    text_at(m.text.data, "100", " x"); /* a tick */
    assert_non_null(strstr(m.text.data, "better: right and low"));
    assert_non_null(strstr(m.text.data, ">here</text>"));
    assert_null(strstr(m.text.data, "</svg>here"));
    assert_null(strstr(m.text.data, ">course</text>"));
    assert_non_null(strstr(m.text.data, "</svg>course"));
    assert_non_null(strstr(m.text.data, "</svg>a name of far more than 24 letters"));
    assert_null(strstr(m.text.data, "from</text>"));
    closed(&m);
    struct meed_chart_point crowd[8]; /* on one spot: six places around it */
    for (int i = 0; i < 8; i++) {
        crowd[i] = (struct meed_chart_point){.label = "crowd", .x = 1, .y = 1};
    }
    opened(&m);
    meed_chart_scatter(&m, &words, crowd, 8, &guide);
    int beside_point = count_of(m.text.data, ">crowd</text>");
    assert_in_range(beside_point, 1, 6);
    assert_int_equal(count_of(m.text.data, "</svg>crowd"), 8 - beside_point);
    closed(&m);
}

static void chart_trend_is_even_in_decades(void **state)
{
    /* Goal: 0.1, 1 and 10 stand at equal distances and under their points; a series without points
     * keeps its tint to itself and has no key. */
    (void)state;
    static const double x[] = {0.1, 1, 10}, y[] = {1, 2, 3};
    struct meed_chart_series series[] = {
        {"kept", 3, x, y, NULL}, {"lost", 0, x, y, NULL}, {"third", 3, x, y, NULL}};
    struct meed_markup m;
    double dots[3];
    opened(&m);
    meed_chart_trend(&m, &words, series, MEED_COUNT(series), MEED_CHART_BAND, MEED_CHART_LOG);
    const char *at = m.text.data;
    for (int i = 0; i < 3; i++) {
        at = strstr(at, "<circle class=\"dot\" cx=\"");
        assert_int_equal(sscanf(at, "<circle class=\"dot\" cx=\"%lf", &dots[i]), 1);
        at++;
    }
    assert_true(fabs((dots[2] - dots[1]) - (dots[1] - dots[0])) < 0.03 && dots[1] - dots[0] > 50);
    assert_true(fabs(text_at(m.text.data, "0.1", " x") - dots[0]) < 0.011);
    assert_true(fabs(text_at(m.text.data, "10", " x") - dots[2]) < 0.011);
    assert_non_null(strstr(m.text.data, "kept, 0.1: "));
    assert_non_null(strstr(m.text.data, "</svg>kept"));
    assert_null(strstr(m.text.data, "</svg>lost"));
    assert_non_null(strstr(m.text.data, "<svg class=\"key c2\""));
    closed(&m);
}

static void chart_roc_and_heat_hold_together(void **state)
{
    /* Goal: the area stands in the key, cells have the colour of their sign, empty ones none. */
    (void)state;
    static double x[] = {0, 0, 1}, y[] = {0, 0.5, 1};
    static const struct meed_chart_detector detector = {"φ < 0", {3, x, y, 0.75}};
    static const char *const names[] = {"one", "two"};
    static const double values[] = {NAN, 0.5, -0.25, NAN};
    struct meed_markup m;
    opened(&m);
    meed_chart_roc(&m, &words, &detector, 1);
    assert_non_null(strstr(m.text.data, "φ &lt; 0 <b>0.750</b>"));
    assert_int_equal(count_of(m.text.data, "class=\"line d0\" d=\"M"), 1);
    closed(&m);
    opened(&m);
    meed_chart_heat(&m, &words, names, 2, values, 0);
    assert_non_null(strstr(m.text.data, "<rect class=\"plus\" fill-opacity=\"0.600\""));
    assert_non_null(strstr(m.text.data, "<rect class=\"minus\" fill-opacity=\"0.300\""));
    assert_int_equal(count_of(m.text.data, "<rect"), 2);
    closed(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chart_bars_are_as_long_as_their_values),
        cmocka_unit_test(chart_lines_break_at_gaps),
        cmocka_unit_test(chart_scatter_labels_do_not_hit),
        cmocka_unit_test(chart_scatter_is_guided),
        cmocka_unit_test(chart_trend_is_even_in_decades),
        cmocka_unit_test(chart_roc_and_heat_hold_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
