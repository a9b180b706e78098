/* See estimator.h: one call, and the frame that all estimators share. Each estimator fills φ and
 * what sampling left open; u(∅), u(N) and the residual are filled here. */
#include "evaluation/estimator.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "evaluation/estimator_draws.h"
#include "evaluation/shapley.h"

static const char *const method_names[MEED_VALUE_METHOD_COUNT] = {
    [MEED_VALUE_EXACT] = "exact",
    [MEED_VALUE_LEAVE_ONE_OUT] = "loo",
    [MEED_VALUE_PERMUTATION] = "permutation",
    [MEED_VALUE_OWEN] = "owen",
    [MEED_VALUE_BANZHAF] = "banzhaf",
    [MEED_VALUE_GRADIENT] = "gradient",
    [MEED_VALUE_AUTO] = "auto",
};

const char *meed_estimator_name(enum meed_value_method method)
{
    MEED_ASSERT(method >= 0 && method < MEED_VALUE_METHOD_COUNT);
    return method_names[method];
}

enum meed_value_method meed_estimator_method(enum meed_value_method method, int32_t players)
{
    if (method != MEED_VALUE_AUTO) {
        return method;
    }
    return players <= MEED_ESTIMATOR_AUTO_EXACT ? MEED_VALUE_EXACT : MEED_VALUE_GRADIENT;
}

int32_t meed_estimator_nodes(const struct meed_estimator_options *options, int32_t players)
{
    enum { DEFAULT_NODES = 4 };
    if (meed_estimator_method(options->method, players) != MEED_VALUE_GRADIENT) {
        return 0;
    }
    return options->nodes ? options->nodes : DEFAULT_NODES;
}

int32_t meed_estimator_coalitions(const struct meed_estimator_options *options, int32_t players)
{
    enum { DEFAULT_DRAWS = 64 };
    int64_t count = 2;
    switch (meed_estimator_method(options->method, players)) {
    case MEED_VALUE_EXACT:
        count = players <= MEED_SHAPLEY_MAX_PLAYERS ? (int64_t)1 << players : 0;
        break;
    case MEED_VALUE_LEAVE_ONE_OUT:
        count = (int64_t)players + 2;
        break;
    case MEED_VALUE_PERMUTATION:
        count = 2 + DEFAULT_DRAWS * MEED_MAX(2 * ((int64_t)players - 1), (int64_t)1);
        break;
    case MEED_VALUE_OWEN:
        count = 2 + DEFAULT_DRAWS * 8 * ((int64_t)players + 1);
        break;
    case MEED_VALUE_BANZHAF:
        count = 2 + DEFAULT_DRAWS * 2 * (int64_t)MEED_MAX(players, 8);
        break;
    default:
        return 2;
    }
    bool sampled = meed_estimator_method(options->method, players) >= MEED_VALUE_PERMUTATION;
    count = sampled && options->budget > 0 ? options->budget : count;
    return (int32_t)MEED_MIN(count, (int64_t)INT32_MAX);
}

static enum meed_status estimate_create(const struct meed_game *game, int32_t watches,
                                        struct meed_estimate **estimate)
{
    struct meed_estimate *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "estimate", SIZE_MAX / 2);
    made->players = game->players;
    made->items = game->items;
    size_t items = (size_t)game->items;
    double **blocks[] = {&made->phi, &made->se, &made->empty, &made->full};
    const size_t counts[] = {(size_t)game->players * items, (size_t)game->players * (size_t)watches,
                             items, items};
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        void *block = NULL;
        enum meed_status st =
            meed_arena_alloc_array(&made->arena, counts[i], sizeof(double), &block);
        if (st != MEED_OK) {
            meed_estimator_destroy(made);
            return st;
        }
        *blocks[i] = block;
    }
    *estimate = made;
    return MEED_OK;
}

void meed_estimator_destroy(struct meed_estimate *estimate)
{
    if (estimate) {
        meed_shapley_destroy(estimate->table);
        meed_arena_clear(&estimate->arena);
        meed_heap_free(estimate);
    }
}

int32_t meed_estimator_watches(const struct meed_estimator_options *options)
{
    return options->watch ? options->watch_count : 1;
}

void meed_estimator_watch(const struct meed_estimator_options *options, const double *utilities,
                          int32_t items, double *values)
{
    for (int32_t w = 0; w < meed_estimator_watches(options); w++) {
        const double *watch = options->watch ? options->watch + (int64_t)w * items : NULL;
        double value = 0;
        for (int32_t i = 0; i < items; i++) {
            value += watch ? watch[i] * utilities[i] : utilities[i];
        }
        values[w] = value;
    }
}

enum meed_status meed_estimator_ask(const struct meed_game *game, const double *members,
                                    int32_t coalitions, double *utilities,
                                    struct meed_estimate *estimate)
{
    if (coalitions == 0) {
        return MEED_OK;
    }
    MEED_TRY(game->evaluate(game->user, members, coalitions, utilities));
    estimate->evaluations += coalitions;
    for (int64_t i = 0; i < (int64_t)coalitions * game->items; i++) {
        if (!isfinite(utilities[i])) {
            return MEED_FAIL(MEED_NUMERIC,
                             "the utility of item %d is not finite in a coalition; a failed score "
                             "is never replaced by a default",
                             (int)(i % game->items));
        }
    }
    return MEED_OK;
}

/* u(∅) and u(N), without the null players: they change neither. */
static enum meed_status ends_ask(const struct meed_game *game, struct meed_estimate *estimate)
{
    enum meed_status st = MEED_OK;
    size_t items = (size_t)game->items;
    double *members = meed_heap_alloc(2 * (size_t)game->players, sizeof *members);
    double *utilities = meed_heap_alloc(2 * items, sizeof *utilities);
    if (!members || !utilities) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t k = 0; k < game->players; k++) {
        bool null = game->is_null && game->is_null(game->user, k);
        members[game->players + k] = null ? 0.0 : 1.0;
    }
    MEED_TRY_OUT(meed_estimator_ask(game, members, 2, utilities, estimate));
    memcpy(estimate->empty, utilities, items * sizeof *utilities);
    memcpy(estimate->full, utilities + items, items * sizeof *utilities);
out:
    meed_heap_free(members);
    meed_heap_free(utilities);
    return st;
}

/* Exact, and leave-one-out of a few: the table is kept, φ and the ends are read off it. */
static enum meed_status table_run(const struct meed_game *game, struct meed_estimate *estimate)
{
    size_t items = (size_t)game->items;
    bool exact = estimate->method == MEED_VALUE_EXACT;
    MEED_TRY(exact ? meed_shapley_exact(game, &estimate->table)
                   : meed_shapley_leave_one_out(game, &estimate->table));
    const struct meed_shapley *table = estimate->table;
    const double *full =
        table->utilities + (exact ? (size_t)table->coalition_count - 1 : 1) * items;
    memcpy(estimate->phi, table->phi, (size_t)game->players * items * sizeof(double));
    memcpy(estimate->empty, table->utilities, items * sizeof(double));
    memcpy(estimate->full, full, items * sizeof(double));
    estimate->evaluations = table->requested;
    return MEED_OK;
}

static enum meed_status method_run(const struct meed_game *game,
                                   const struct meed_estimator_options *options,
                                   struct meed_estimate *estimate)
{
    bool small = game->players <= MEED_SHAPLEY_MAX_PLAYERS;
    if (estimate->method == MEED_VALUE_EXACT ||
        (estimate->method == MEED_VALUE_LEAVE_ONE_OUT && small)) {
        return table_run(game, estimate);
    }
    MEED_TRY(ends_ask(game, estimate));
    switch (estimate->method) {
    case MEED_VALUE_LEAVE_ONE_OUT:
        return meed_leave_one_out_run(game, options, estimate);
    case MEED_VALUE_PERMUTATION:
        return meed_permutation_run(game, options, estimate);
    case MEED_VALUE_OWEN:
        return meed_owen_run(game, options, estimate);
    case MEED_VALUE_BANZHAF:
        return meed_banzhaf_run(game, options, estimate);
    default:
        return meed_aumann_shapley_run(game, options, estimate);
    }
}

static void residual_fill(const struct meed_estimator_options *options,
                          struct meed_estimate *estimate)
{
    double value[MEED_ESTIMATOR_MAX_WATCHES], full[MEED_ESTIMATOR_MAX_WATCHES];
    double sum = 0;
    for (int32_t k = 0; k < estimate->players; k++) {
        meed_estimator_watch(options, estimate->phi + (int64_t)k * estimate->items, estimate->items,
                             value);
        sum += value[0];
    }
    meed_estimator_watch(options, estimate->full, estimate->items, full);
    meed_estimator_watch(options, estimate->empty, estimate->items, value);
    estimate->residual = sum - (full[0] - value[0]);
}

enum meed_status meed_estimator_run(const struct meed_game *game,
                                    const struct meed_estimator_options *options,
                                    struct meed_estimate **estimate)
{
    enum meed_status st = MEED_OK;
    struct meed_estimate *made = NULL;
    if (game->players < 1 || game->items < 1) {
        return MEED_FAIL(MEED_ARG,
                         "a game of %d players and %d items cannot be valued; at least one of each "
                         "is needed",
                         game->players, game->items);
    }
    MEED_ASSERT(meed_estimator_watches(options) >= 1 &&
                meed_estimator_watches(options) <= MEED_ESTIMATOR_MAX_WATCHES);
    if (!(options->precision >= 0) || !(options->truncation >= 0) || options->budget < 0) {
        return MEED_FAIL(MEED_ARG, "precision, truncation and budget of evaluations must be 0 or "
                                   "more");
    }
    MEED_TRY(estimate_create(game, meed_estimator_watches(options), &made));
    made->method = meed_estimator_method(options->method, game->players);
    MEED_TRY_OUT(method_run(game, options, made));
    residual_fill(options, made);
    *estimate = made;
    made = NULL;
out:
    meed_estimator_destroy(made);
    return st;
}
