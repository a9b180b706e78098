/* The benchmark: multi-turn dialogues with references, categories and axes.
 *
 * Meed's own JSONL: a first line {"meed_benchmark": 1, "name", "axes": [{"name", "kind", "weight",
 * "guard"}]}, then items {"id", "category", "axes": […], "messages": […]} and, for `preference`,
 * "good" and "bad" replies. MT-Bench-101 files ({"task", "id", "history": [{"user", "bot"}]}) load
 * as they are: one likelihood axis, tasks are categories.
 *
 * Axis kinds (design §6), all per dialogue, all mean log-likelihood per reference token in fp32
 * logits:
 *   likelihood   log p of every assistant turn given its own context
 *   contrast     log p(last reply | context) − log p(last reply | context of the next dialogue of
 *                the category, cyclic): what an answer-swapper destroys
 *   preference   log p(good) − log p(bad)
 * An axis value is the mean over categories of the mean over dialogues. A guard axis pays nothing;
 * a client significantly negative on it is paid 0 and left out of the aggregate.
 */
#ifndef MEED_EVALUATION_BENCHMARK_H
#define MEED_EVALUATION_BENCHMARK_H

#include "base/arena.h"
#include "base/hash.h"
#include "engine/chat.h"

MEED_BEGIN_C

enum meed_axis_kind { MEED_AXIS_LIKELIHOOD, MEED_AXIS_CONTRAST, MEED_AXIS_PREFERENCE };
enum { MEED_BENCHMARK_MAX_AXES = 8, MEED_BENCHMARK_MAX_CATEGORIES = 64 };

struct meed_axis {
    char name[32];
    enum meed_axis_kind kind;
    double weight; /* in the paid utility; 0 for guards */
    bool guard;
};

/* One dialogue on one axis: value = (Σ log p of plus)/plus_tokens − the same of minus. */
struct meed_benchmark_item {
    int32_t axis;
    int32_t category;
    int32_t dialogue; /* the unit that the bootstrap draws */
    int32_t plus;     /* sequence index */
    int32_t minus;    /* sequence index, -1 for likelihood */
    const char *id;
};

struct meed_benchmark {
    struct meed_arena arena;
    char name[64];
    uint8_t hash[MEED_SHA256_BYTES]; /* of the file's bytes */
    int32_t axis_count;
    struct meed_axis axes[MEED_BENCHMARK_MAX_AXES];
    int32_t category_count;
    const char *categories[MEED_BENCHMARK_MAX_CATEGORIES];
    int32_t dialogue_count;
    int32_t item_count;
    struct meed_benchmark_item *items;
    int32_t sequence_count;
    struct meed_sequence *sequences; /* distinct: scored once a coalition, used by many items */
    int32_t *scored_tokens;          /* [sequence_count] */
    int64_t tokens; /* rows a coalition feeds: equal ids once, whatever their masks */
};

/* FORMAT "FILE:LINE: …" for a broken line; LIMIT with file:line and lengths for a dialogue that
 * does not fit max_length tokens. */
MEED_MUST_CHECK enum meed_status meed_benchmark_load(const char *path, const struct meed_chat *chat,
                                                     int32_t max_length,
                                                     struct meed_benchmark **benchmark);
void meed_benchmark_destroy(struct meed_benchmark *benchmark); /* accepts NULL */
/* Item utilities [item_count] from sequence sums [sequence_count]. */
void meed_benchmark_items(const struct meed_benchmark *benchmark, const double *sums,
                          double *utilities);
/* Axis value from item utilities; item_weight [item_count] (bootstrap multiplicities of the item's
 * dialogue) may be NULL for all ones. */
double meed_benchmark_axis_value(const struct meed_benchmark *benchmark, int32_t axis,
                                 const double *utilities, const double *item_weight);
/* Weighted sum over axes: the paid utility. */
double meed_benchmark_value(const struct meed_benchmark *benchmark, const double *utilities,
                            const double *item_weight);

/* The same functions as coefficients of item utilities: rows [1 + axis_count, item_count], the paid
 * utility first, then every axis. Values through them agree with the functions above to rounding.
 */
void meed_benchmark_coefficients(const struct meed_benchmark *benchmark, double *rows);

MEED_END_C
#endif
