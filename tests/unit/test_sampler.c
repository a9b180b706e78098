/* The sampler against the definition of its options.
 *
 * Goal: the kept set is exactly that of temperature, top-k and top-p, draws follow the weights, and
 * bad rows are refused. Method: hand-made rows with known shares; every draw at many values of the
 * uniform number; a plain sort-based formula over random rows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "engine/sampler.h"

enum { VOCAB = 200 };

static int32_t pick(struct meed_sampler_options options, const float *logits, int32_t vocab,
                    double unit)
{
    struct meed_sampler_item items[VOCAB];
    int32_t token = -1;
    assert_int_equal(meed_sampler_pick(&options, logits, vocab, unit, items, &token), MEED_OK);
    return token;
}

static void sampler_greedy_takes_the_first_best(void **state)
{
    (void)state;
    static const float logits[] = {0.5f, 2.0f, -INFINITY, 2.0f, 1.0f};
    struct meed_sampler_options greedy = {0, 1, 0};
    int32_t token = -1;
    assert_int_equal(meed_sampler_pick(&greedy, logits, 5, 0.9, NULL, &token), MEED_OK);
    assert_int_equal(token, 1);
    struct meed_sampler_options one = {1, 1, 1};
    assert_int_equal(pick(one, logits, 5, 0.99), 1);
    struct meed_sampler_options cold = {1e-6f, 1, 0};
    assert_int_equal(pick(cold, logits, 5, 0.49), 1);
    assert_int_equal(pick(cold, logits, 5, 0.51), 3);
}

static void sampler_draws_by_weight(void **state)
{
    (void)state;
    const float logits[] = {logf(1), logf(2), logf(3), logf(4)}; /* shares .1 .2 .3 .4 */
    struct meed_sampler_options plain = {1, 1, 0};
    static const double edges[] = {0.1, 0.3, 0.6, 1.0};
    for (int i = 0; i < 1000; i++) {
        double unit = (i + 0.5) / 1000;
        int32_t want = 0;
        while (unit >= edges[want]) {
            want++;
        }
        assert_int_equal(pick(plain, logits, 4, unit), want);
    }
    struct meed_sampler_options warm = {2, 1, 0}; /* shares of √weight */
    double total = 1 + sqrt(2) + sqrt(3) + 2;
    assert_int_equal(pick(warm, logits, 4, 0.999 / total), 0);
    assert_int_equal(pick(warm, logits, 4, 1.001 / total), 1);
}

static void sampler_keeps_the_nucleus(void **state)
{
    (void)state;
    const float logits[] = {logf(1), logf(2), logf(3), logf(4)};
    static const struct {
        float top_p;
        int32_t top_k;
        int kept; /* the `kept` most likely of 3, 2, 1, 0 */
    } cases[] = {
        {0.39f, 0, 1}, {0.41f, 0, 2}, {0.69f, 0, 2}, {0.71f, 0, 3}, {0.95f, 0, 4}, {1, 2, 2},
        {1, 9, 4},     {0.5f, 2, 1},  {0.6f, 2, 2},  {0.01f, 3, 1}, {0.99f, 3, 3},
    };
    for (size_t c = 0; c < MEED_COUNT(cases); c++) {
        struct meed_sampler_options options = {1, cases[c].top_p, cases[c].top_k};
        bool seen[4] = {false};
        for (int i = 0; i < 1000; i++) {
            seen[pick(options, logits, 4, (i + 0.5) / 1000)] = true;
        }
        for (int t = 0; t < 4; t++) {
            assert_int_equal(seen[t], t >= 4 - cases[c].kept);
        }
    }
}

struct ranked {
    double share;
    int32_t token;
};

static int by_share(const void *left, const void *right)
{
    const struct ranked *x = left;
    const struct ranked *y = right;
    int order = (x->share < y->share) - (x->share > y->share);
    return order ? order : x->token - y->token;
}

/* Sort everything, cut, renormalise, walk. */
static int32_t by_definition(struct meed_sampler_options options, const float *logits, double unit)
{
    struct ranked items[VOCAB];
    double total = 0;
    for (int32_t i = 0; i < VOCAB; i++) {
        items[i].share = exp((double)logits[i] / (double)options.temperature);
        items[i].token = i;
        total += items[i].share;
    }
    qsort(items, VOCAB, sizeof *items, by_share);
    int32_t keep = options.top_k > 0 ? options.top_k : VOCAB;
    double kept = 0;
    for (int32_t i = 0; i < keep; i++) {
        kept += items[i].share;
    }
    double mass = 0;
    int32_t count = 0;
    while (count < keep && (count == 0 || mass < (double)options.top_p * kept)) {
        mass += items[count++].share;
    }
    int32_t i = 0;
    for (double walked = items[0].share; walked <= unit * mass && i + 1 < count; i++) {
        walked += items[i + 1].share;
    }
    return items[i].token;
}

static void sampler_follows_the_definition(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(5, "sampler", 0);
    for (int round = 0; round < 3000; round++) {
        float logits[VOCAB];
        for (int i = 0; i < VOCAB; i++) {
            logits[i] = (float)(3 * meed_rng_normal(&rng));
        }
        struct meed_sampler_options options = {
            .temperature = 0.3f + (float)meed_rng_unit(&rng),
            .top_p = round % 3 == 0 ? 1.0f : 0.05f + 0.9f * (float)meed_rng_unit(&rng),
            .top_k = round % 2 == 0 ? 0 : 1 + (int32_t)meed_rng_below(&rng, 60),
        };
        if (options.top_k == 0 && options.top_p == 1.0f) {
            continue; /* drawn in the order of ids, not of weights */
        }
        double unit = meed_rng_unit(&rng);
        assert_int_equal(pick(options, logits, VOCAB, unit), by_definition(options, logits, unit));
    }
}

static void sampler_refuses(void **state)
{
    (void)state;
    static const struct meed_sampler_options wrong[] = {
        {-1, 1, 0}, {NAN, 1, 0}, {INFINITY, 1, 0}, {1, 0, 0}, {1, 1.5f, 0}, {1, NAN, 0}, {1, 1, -1},
    };
    for (size_t i = 0; i < MEED_COUNT(wrong); i++) {
        assert_int_equal(meed_sampler_check(&wrong[i]), MEED_ARG);
    }
    static const float rows[][3] = {
        {0, NAN, 1}, {0, INFINITY, 1}, {-INFINITY, -INFINITY, -INFINITY}, {NAN, NAN, NAN}};
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        struct meed_sampler_options options = {0, 1, 0};
        int32_t token = 7;
        assert_int_equal(meed_sampler_pick(&options, rows[i], 3, 0, NULL, &token), MEED_NUMERIC);
        assert_int_equal(token, 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampler_greedy_takes_the_first_best),
        cmocka_unit_test(sampler_draws_by_weight),
        cmocka_unit_test(sampler_keeps_the_nucleus),
        cmocka_unit_test(sampler_follows_the_definition),
        cmocka_unit_test(sampler_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
