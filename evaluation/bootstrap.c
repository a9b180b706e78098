/* See bootstrap.h. Items collapse to contributions [dialogue, player, axis] once; a draw is then a
 * weighted sum over dialogues. Draw d uses stream ("bootstrap", d), so its numbers depend on the
 * seed and d alone. */
#include "evaluation/bootstrap.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/rng.h"

struct stratum {
    int32_t category;
    uint32_t axes; /* bit a: the dialogue has an item on axis a */
};

struct bootstrap {
    const struct meed_benchmark *benchmark;
    int32_t players;
    int32_t columns;       /* players · (axes + 1), the last one the paid utility */
    int32_t *order;        /* [dialogues], grouped by stratum */
    int32_t *stratum_ends; /* [dialogues]: end of the stratum that begins here, else 0 */
    double *contribution;  /* [dialogues, columns] */
    double *multiplicity;  /* [dialogues] */
    double *sum;           /* [columns] of one draw, then Σ and Σ of squares below */
    double *mean;
    double *squares;
};

static enum meed_status block_take(void **block, size_t count, size_t item_bytes)
{
    *block = meed_heap_alloc(count ? count : 1, item_bytes);
    return *block ? MEED_OK : MEED_NOMEM;
}

static void bootstrap_clear(struct bootstrap *b)
{
    meed_heap_free(b->order);
    meed_heap_free(b->stratum_ends);
    meed_heap_free(b->contribution);
    meed_heap_free(b->multiplicity);
    meed_heap_free(b->sum);
    meed_heap_free(b->mean);
    meed_heap_free(b->squares);
}

static enum meed_status bootstrap_init(struct bootstrap *b)
{
    size_t dialogues = (size_t)b->benchmark->dialogue_count;
    size_t columns = (size_t)b->columns;
    MEED_TRY(block_take((void **)&b->order, dialogues, sizeof *b->order));
    MEED_TRY(block_take((void **)&b->stratum_ends, dialogues, sizeof *b->stratum_ends));
    MEED_TRY(block_take((void **)&b->contribution, dialogues * columns, sizeof(double)));
    MEED_TRY(block_take((void **)&b->multiplicity, dialogues, sizeof(double)));
    MEED_TRY(block_take((void **)&b->sum, columns, sizeof(double)));
    MEED_TRY(block_take((void **)&b->mean, columns, sizeof(double)));
    return block_take((void **)&b->squares, columns, sizeof(double));
}

/* Coefficient of one item in its axis value: 1/(categories of the axis · dialogues in its own). */
static double item_coefficient(const struct meed_benchmark *benchmark,
                               const struct meed_benchmark_item *item)
{
    bool seen[MEED_BENCHMARK_MAX_CATEGORIES] = {false};
    int32_t categories = 0;
    int32_t mates = 0;
    for (int32_t i = 0; i < benchmark->item_count; i++) {
        const struct meed_benchmark_item *other = &benchmark->items[i];
        if (other->axis == item->axis) {
            categories += seen[other->category] ? 0 : 1;
            seen[other->category] = true;
            mates += other->category == item->category ? 1 : 0;
        }
    }
    return 1.0 / ((double)categories * mates);
}

static void contributions_fill(struct bootstrap *b, const double *phi)
{
    const struct meed_benchmark *benchmark = b->benchmark;
    int32_t width = benchmark->axis_count + 1;
    for (int32_t i = 0; i < benchmark->item_count; i++) {
        const struct meed_benchmark_item *item = &benchmark->items[i];
        double coefficient = item_coefficient(benchmark, item);
        double weight = benchmark->axes[item->axis].weight;
        double *row = b->contribution + (int64_t)item->dialogue * b->columns;
        for (int32_t k = 0; k < b->players; k++) {
            double amount = coefficient * phi[(int64_t)k * benchmark->item_count + i];
            row[k * width + item->axis] += amount;
            row[k * width + benchmark->axis_count] += weight * amount;
        }
    }
}

/* Groups dialogues by (category, axes) in order of first appearance; false if one has no items. */
static enum meed_status strata_fill(struct bootstrap *b)
{
    int32_t dialogues = b->benchmark->dialogue_count;
    struct stratum *strata = meed_heap_alloc((size_t)dialogues + 1, sizeof *strata);
    bool *placed = meed_heap_alloc((size_t)dialogues + 1, sizeof *placed);
    if (!strata || !placed) {
        meed_heap_free(strata);
        meed_heap_free(placed);
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < b->benchmark->item_count; i++) {
        const struct meed_benchmark_item *item = &b->benchmark->items[i];
        strata[item->dialogue].category = item->category;
        strata[item->dialogue].axes |= 1u << item->axis;
    }
    int32_t used = 0;
    for (int32_t first = 0; first < dialogues; first++) {
        int32_t begin = used;
        for (int32_t d = first; d < dialogues && !placed[first]; d++) {
            if (strata[d].category == strata[first].category &&
                strata[d].axes == strata[first].axes) {
                b->order[used++] = d;
            }
        }
        for (int32_t i = begin; i < used; i++) {
            placed[b->order[i]] = true;
        }
        if (used > begin) {
            b->stratum_ends[begin] = used;
        }
    }
    meed_heap_free(strata);
    meed_heap_free(placed);
    return MEED_OK;
}

static void multiplicities_draw(struct bootstrap *b, struct meed_rng *rng)
{
    int32_t dialogues = b->benchmark->dialogue_count;
    memset(b->multiplicity, 0, (size_t)dialogues * sizeof(double));
    for (int32_t begin = 0; begin < dialogues; begin = b->stratum_ends[begin]) {
        int32_t end = b->stratum_ends[begin];
        double size = end - begin;
        double stretch = size > 1 ? sqrt(size / (size - 1)) : 0;
        for (int32_t i = begin; i < end; i++) {
            int32_t drawn = begin + (int32_t)meed_rng_below(rng, (uint64_t)(end - begin));
            b->multiplicity[b->order[drawn]] += 1;
        }
        for (int32_t i = begin; i < end; i++) {
            double *multiplicity = &b->multiplicity[b->order[i]];
            *multiplicity = stretch * (*multiplicity - 1); /* departure from 1 */
        }
    }
}

/* Welford's running mean and sum of squares over draws. */
static void draw_add(struct bootstrap *b, int32_t draw_idx)
{
    memset(b->sum, 0, (size_t)b->columns * sizeof(double));
    for (int32_t d = 0; d < b->benchmark->dialogue_count; d++) {
        double departure = b->multiplicity[d];
        const double *row = b->contribution + (int64_t)d * b->columns;
        for (int32_t c = 0; c < b->columns && departure != 0; c++) {
            b->sum[c] += departure * row[c];
        }
    }
    for (int32_t c = 0; c < b->columns; c++) {
        double delta = b->sum[c] - b->mean[c];
        b->mean[c] += delta / (draw_idx + 1);
        b->squares[c] += delta * (b->sum[c] - b->mean[c]);
    }
}

enum meed_status meed_bootstrap_errors(const struct meed_benchmark *benchmark, const double *phi,
                                       int32_t players, int32_t draws, uint64_t seed,
                                       double *axis_se, double *paid_se)
{
    enum meed_status st = MEED_OK;
    int32_t width = benchmark->axis_count + 1;
    struct bootstrap b = {.benchmark = benchmark, .players = players, .columns = players * width};
    MEED_TRY_OUT(bootstrap_init(&b));
    contributions_fill(&b, phi);
    MEED_TRY_OUT(strata_fill(&b));
    for (int32_t draw = 0; draw < draws; draw++) {
        struct meed_rng rng = meed_rng_stream(seed, "bootstrap", (uint64_t)draw);
        multiplicities_draw(&b, &rng);
        draw_add(&b, draw);
    }
    for (int32_t k = 0; k < players; k++) {
        for (int32_t a = 0; a < width; a++) {
            double variance = draws > 1 ? b.squares[k * width + a] / (draws - 1) : 0;
            double *target =
                a < benchmark->axis_count ? &axis_se[k * benchmark->axis_count + a] : &paid_se[k];
            *target = sqrt(variance);
        }
    }
out:
    bootstrap_clear(&b);
    return st;
}
