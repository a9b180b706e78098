/* See sampler.h. Sorting 150,000 weights for every token would cost more than drawing from them, so
 * the kept set is taken from a heap, largest first, until it is complete. A token whose weight is
 * below (1 - p)/V of the total cannot be in the nucleus: all such tokens together weigh less than
 * 1 - p. They never enter the heap, which leaves a few hundred for a trained model.
 */
#include "engine/sampler.h"

#include <math.h>
#include <stdbool.h>

static const double least_exponent = -40.0;

enum meed_status meed_sampler_check(const struct meed_sampler_options *options)
{
    if (!(options->temperature >= 0.0f) || !isfinite(options->temperature)) {
        return MEED_FAIL(MEED_ARG, "the temperature must be 0 or more, not %g",
                         (double)options->temperature);
    }
    if (!(options->top_p > 0.0f && options->top_p <= 1.0f)) {
        return MEED_FAIL(MEED_ARG, "top-p must be above 0 and at most 1, not %g",
                         (double)options->top_p);
    }
    if (options->top_k < 0) {
        return MEED_FAIL(MEED_ARG, "top-k must be 0 (off) or more, not %d", (int)options->top_k);
    }
    return MEED_OK;
}

/* Index of the largest logit, the first of equals; NUMERIC as sampler.h says. */
static enum meed_status find_best(const float *logits, int32_t vocab, int32_t *best)
{
    int32_t found = 0;
    int32_t strange = 0;
    for (int32_t i = 0; i < vocab; i++) {
        strange += isnan(logits[i]) || logits[i] == INFINITY;
        found = logits[i] > logits[found] ? i : found;
    }
    if (strange > 0 || vocab < 1 || logits[found] == -INFINITY) {
        return MEED_FAIL(MEED_NUMERIC,
                         "the model's logits hold %d values that are no numbers; check its weights "
                         "and adapter",
                         (int)strange);
    }
    *best = found;
    return MEED_OK;
}

/* Items of non-zero weight in the order of ids; returns their count. */
static int32_t weigh(const float *logits, int32_t vocab, double best, double temperature,
                     struct meed_sampler_item *items, double *total)
{
    int32_t count = 0;
    *total = 0;
    for (int32_t i = 0; i < vocab; i++) {
        double exponent = ((double)logits[i] - best) / temperature;
        if (exponent >= least_exponent) {
            items[count] = (struct meed_sampler_item){exp(exponent), i};
            *total += items[count++].weight;
        }
    }
    return count;
}

static bool comes_first(const struct meed_sampler_item *x, const struct meed_sampler_item *y)
{
    return x->weight > y->weight || (x->weight == y->weight && x->token < y->token);
}

static void sift_down(struct meed_sampler_item *items, int32_t count, int32_t hole)
{
    struct meed_sampler_item moved = items[hole];
    for (int32_t child = 2 * hole + 1; child < count; child = 2 * hole + 1) {
        child += child + 1 < count && comes_first(&items[child + 1], &items[child]);
        if (!comes_first(&items[child], &moved)) {
            break;
        }
        items[hole] = items[child];
        hole = child;
    }
    items[hole] = moved;
}

/* Moves the largest items to the end of the array, largest last, until `keep` are there or they
 * weigh `mass`. Returns how many; *kept is their weight. */
static int32_t take_largest(struct meed_sampler_item *items, int32_t count, int32_t keep,
                            double mass, double *kept)
{
    for (int32_t i = count / 2 - 1; i >= 0; i--) {
        sift_down(items, count, i);
    }
    int32_t taken = 0;
    *kept = 0;
    while (taken < keep && taken < count && (taken == 0 || *kept < mass)) {
        int32_t end = count - 1 - taken;
        struct meed_sampler_item largest = items[0];
        items[0] = items[end];
        items[end] = largest;
        sift_down(items, end, 0);
        *kept += largest.weight;
        taken++;
    }
    return taken;
}

/* Drops what cannot be in a nucleus of mass p; keeps the order. */
static int32_t drop_light(struct meed_sampler_item *items, int32_t count, double least)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++) {
        if (items[i].weight >= least) {
            items[kept++] = items[i];
        }
    }
    return kept;
}

/* Walks `count` items from `first` in steps of `step` until the share `unit` of mass is passed. */
static int32_t draw(const struct meed_sampler_item *first, int32_t count, int step, double mass,
                    double unit)
{
    double left = unit * mass;
    int32_t token = first->token;
    for (int32_t i = 0; i < count; i++, first += step) {
        token = first->token;
        left -= first->weight;
        if (left < 0) {
            break;
        }
    }
    return token;
}

enum meed_status meed_sampler_pick(const struct meed_sampler_options *options, const float *logits,
                                   int32_t vocab, double unit, struct meed_sampler_item *items,
                                   int32_t *token)
{
    int32_t best = 0;
    MEED_TRY(find_best(logits, vocab, &best));
    if (options->temperature == 0.0f) {
        *token = best;
        return MEED_OK;
    }
    double total;
    double top_p = (double)options->top_p;
    int32_t count =
        weigh(logits, vocab, (double)logits[best], (double)options->temperature, items, &total);
    bool by_rank = options->top_k > 0 && options->top_k < count;
    if (!by_rank && options->top_p >= 1.0f) {
        *token = draw(items, count, 1, total, unit);
        return MEED_OK;
    }
    double kept;
    int32_t taken;
    if (by_rank) {
        taken = take_largest(items, count, options->top_k, INFINITY, &kept);
    } else {
        count = drop_light(items, count, (1.0 - top_p) * total / count);
        taken = take_largest(items, count, count, top_p * total, &kept);
    }
    const struct meed_sampler_item *largest = &items[count - 1];
    if (by_rank && options->top_p < 1.0f) {
        double mass = top_p * kept;
        kept = 0;
        taken = 0;
        while (taken == 0 || kept < mass) {
            kept += largest[-taken++].weight;
        }
    }
    *token = draw(largest, taken, -1, kept, unit);
    return MEED_OK;
}
