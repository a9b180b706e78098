/* ROUGE-L against other programs, and a corpus against its own pairs.
 *
 * Goal: words, common subsequences and F1 as the goldens have them (rouge_score on ASCII, a
 * quadratic table elsewhere: tests/golden/generate/make_rouge_goldens.py); a corpus scores as pairs
 * do, whatever it holds and however often its table grew; the nearest text is the best of all,
 * although most are passed over. Method: the goldens pair by pair and as one corpus; words spelled
 * out for the rules of rouge_words.h; lengths around the 64-bit blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "engine/rouge.h"
#include "engine/rouge_words.h"

enum { PAIRS = 1000 };

struct pair {
    const char *candidate;
    const char *reference;
    int common;
    int words[2];
    const json_t *google; /* NULL beyond ASCII */
};
static struct pair pairs[PAIRS];
static json_t *lines[PAIRS];

static void must(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s: %s", meed_status_name(status), meed_last_error());
    }
}

static int load_pairs(void **state)
{
    (void)state;
    FILE *file = fopen(MEED_SOURCE_DIR "/tests/golden/rouge/pairs.jsonl", "r");
    assert_non_null(file);
    for (int i = 0; i < PAIRS; i++) {
        lines[i] = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(lines[i]);
        const json_t *words = json_object_get(lines[i], "words");
        pairs[i] = (struct pair){
            .candidate = json_string_value(json_object_get(lines[i], "candidate")),
            .reference = json_string_value(json_object_get(lines[i], "reference")),
            .common = (int)json_integer_value(json_object_get(lines[i], "common")),
            .words = {(int)json_integer_value(json_array_get(words, 0)),
                      (int)json_integer_value(json_array_get(words, 1))},
            .google = json_object_get(lines[i], "google"),
        };
        assert_non_null(pairs[i].candidate);
        assert_non_null(pairs[i].reference);
    }
    fclose(file);
    return 0;
}

static int free_pairs(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        json_decref(lines[i]);
    }
    return 0;
}

static struct meed_rouge_score score_texts(const char *candidate, const char *reference)
{
    struct meed_rouge_score score;
    must(meed_rouge_l(candidate, strlen(candidate), reference, strlen(reference), &score));
    return score;
}

static struct meed_rouge_corpus *corpus_of_pairs(void)
{
    struct meed_rouge_corpus *corpus = NULL;
    must(meed_rouge_corpus_create(&corpus));
    for (int i = 0; i < PAIRS; i++) {
        must(meed_rouge_corpus_add(corpus, pairs[i].reference, strlen(pairs[i].reference)));
    }
    assert_int_equal(meed_rouge_corpus_count(corpus), PAIRS);
    return corpus;
}

static void rouge_equals_other_programs(void **state)
{
    (void)state;
    int with_google = 0;
    for (int i = 0; i < PAIRS; i++) {
        const struct pair *pair = &pairs[i];
        struct meed_rouge_score score = score_texts(pair->candidate, pair->reference);
        if (score.candidate_words != pair->words[0] || score.reference_words != pair->words[1] ||
            score.common != pair->common) {
            fail_msg("pair %d: %d of %d and %d words, want %d of %d and %d", i, (int)score.common,
                     (int)score.candidate_words, (int)score.reference_words, pair->common,
                     pair->words[0], pair->words[1]);
        }
        if (pair->google) { /* written with 12 places */
            assert_true(fabs(score.f1 - json_number_value(pair->google)) < 1e-11);
            with_google++;
        }
        double want_precision = pair->words[0] > 0 ? (double)pair->common / pair->words[0] : 0;
        double want_recall = pair->words[1] > 0 ? (double)pair->common / pair->words[1] : 0;
        assert_true(score.precision == want_precision);
        assert_true(score.recall == want_recall);
    }
    assert_true(with_google > 400);
}

static void rouge_corpus_scores_as_pairs_do(void **state)
{
    (void)state;
    struct meed_rouge_corpus *corpus = corpus_of_pairs();
    struct meed_rouge_score *scores = calloc(PAIRS, sizeof *scores);
    for (int i = 0; i < PAIRS; i += 9) {
        must(meed_rouge_corpus_scores(corpus, pairs[i].candidate, strlen(pairs[i].candidate),
                                      scores));
        assert_int_equal(scores[i].common, pairs[i].common);
        double best = 0;
        int64_t best_idx = -1;
        for (int t = 0; t < PAIRS; t++) {
            best_idx = scores[t].f1 > best ? t : best_idx;
            best = scores[t].f1 > best ? scores[t].f1 : best;
        }
        for (int t = 0; t < PAIRS; t += 37) {
            struct meed_rouge_score alone = score_texts(pairs[i].candidate, pairs[t].reference);
            assert_int_equal(alone.common, scores[t].common);
            assert_int_equal(alone.reference_words, scores[t].reference_words);
            assert_true(alone.f1 == scores[t].f1 && alone.recall == scores[t].recall);
        }
        struct meed_rouge_score nearest;
        int64_t nearest_idx = 0;
        must(meed_rouge_corpus_nearest(corpus, pairs[i].candidate, strlen(pairs[i].candidate),
                                       &nearest_idx, &nearest));
        assert_int_equal(nearest_idx, best_idx);
        assert_true(nearest.f1 == best);
    }
    free(scores);
    meed_rouge_corpus_destroy(corpus);
}

/* A candidate of `length` different words against itself, and against itself without every third:
 * bits at and around the edges of the blocks. */
static void rouge_counts_across_blocks(void **state)
{
    (void)state;
    static const int lengths[] = {1, 2, 63, 64, 65, 127, 128, 129, 640, 1000};
    for (size_t l = 0; l < MEED_COUNT(lengths); l++) {
        struct meed_buf whole;
        struct meed_buf part;
        meed_buf_init(&whole, 1 << 20);
        meed_buf_init(&part, 1 << 20);
        int kept = 0;
        must(meed_buf_append(&part, "", 0));
        for (int w = 0; w < lengths[l]; w++) {
            must(meed_buf_printf(&whole, "w%d ", w));
            if (w % 3 != 0) {
                must(meed_buf_printf(&part, "w%d other ", w));
                kept++;
            }
        }
        assert_int_equal(score_texts(whole.data, whole.data).common, lengths[l]);
        assert_true(score_texts(whole.data, whole.data).f1 == 1);
        assert_int_equal(score_texts(whole.data, part.data).common, kept);
        assert_int_equal(score_texts(part.data, whole.data).common, kept);
        meed_buf_clear(&whole);
        meed_buf_clear(&part);
    }
}

/* Seven of ten words: the double that 0.7 is, so that a filter "above 0.7" keeps it. */
static void rouge_seven_tenths_is_seven_tenths(void **state)
{
    (void)state;
    struct meed_rouge_score score =
        score_texts("a b c d e f g x y z", "a b c d e f g one two three");
    assert_true(score.f1 == 0.7);
    score = score_texts("a b c d e f g x", "a b c d e f g 1 2 3 4 5");
    assert_true(score.f1 == 0.7);
}

static void rouge_of_nothing_is_zero(void **state)
{
    (void)state;
    static const char *const nothing[] = {"", " ", "… – !", "\n\n", "🙂"};
    for (size_t i = 0; i < MEED_COUNT(nothing); i++) {
        assert_true(score_texts(nothing[i], "a word").f1 == 0);
        assert_true(score_texts("a word", nothing[i]).f1 == 0);
        assert_true(score_texts(nothing[i], nothing[i]).f1 == 0);
    }
    struct meed_rouge_corpus *corpus = NULL;
    struct meed_rouge_score score;
    int64_t text_idx = 5;
    must(meed_rouge_corpus_create(&corpus));
    must(meed_rouge_corpus_nearest(corpus, "a", 1, &text_idx, &score));
    assert_int_equal(text_idx, -1);
    must(meed_rouge_corpus_add(corpus, "b", 1));
    must(meed_rouge_corpus_nearest(corpus, "a", 1, &text_idx, &score));
    assert_int_equal(text_idx, -1);
    assert_true(score.f1 == 0);
    meed_rouge_corpus_destroy(corpus);
}

static void assert_words(const char *text, size_t size, const char *want)
{
    struct meed_buf words;
    meed_buf_init(&words, 1 << 20);
    must(meed_rouge_words_append(text, size, &words));
    for (size_t i = 0; i < words.size; i++) {
        words.data[i] = words.data[i] ? words.data[i] : '|';
    }
    assert_string_equal(words.data ? words.data : "", want);
    meed_buf_clear(&words);
}

static void rouge_words_follow_the_rule(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"Don't pay 7.20!", "don|t|pay|7|20|"},
        {"snake_case e-mail", "snake|case|e|mail|"},
        {"CAFÉ cafe\xCC\x81", "café|café|"},
        {"soft\xC2\xADhyphen", "softhyphen|"},
        {"Десять РУБЛЕЙ", "десять|рублей|"},
        {"図書館で3冊", "図|書|館|で|3|冊|"},
        {"カ\xE3\x82\x99", "ガ|"}, /* composed by NFC */
        {"ห้อง", "ห้|อ|ง|"},
        {"क़ीमत है", "क़ीमत|है|"},
        {"표는 일", "표는|일|"},
        {"a\xFF"
         "b",
         "a|b|"}, /* ill-formed: U+FFFD parts */
        {"\xCC\x81 a", "\xCC\x81|a|"},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        assert_words(cases[i][0], strlen(cases[i][0]), cases[i][1]);
    }
    assert_words("a\0b", 3, "a|b|");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rouge_equals_other_programs),
        cmocka_unit_test(rouge_corpus_scores_as_pairs_do),
        cmocka_unit_test(rouge_counts_across_blocks),
        cmocka_unit_test(rouge_seven_tenths_is_seven_tenths),
        cmocka_unit_test(rouge_of_nothing_is_zero),
        cmocka_unit_test(rouge_words_follow_the_rule),
    };
    return cmocka_run_group_tests_name("rouge", tests, load_pairs, free_pairs);
}
