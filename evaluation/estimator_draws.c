/* See estimator_draws.h: draws of marginal gains, their means and their errors. Sums run in the
 * order of draws and, inside one, in the order in which the estimator credits, so that a valuation
 * repeats to the bit. */
#include "evaluation/estimator_draws.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"

static void players_fold(struct meed_draws *s)
{
    const struct meed_game *game = s->game;
    for (int32_t k = 0; k < game->players; k++) {
        bool null = game->is_null && game->is_null(game->user, k);
        s->kind[k] = game->twin_of ? game->twin_of(game->user, k) : k;
        s->kind_size[s->kind[k]]++;
        if (!null) {
            s->player[s->active++] = k;
        }
    }
}

enum meed_status meed_draws_open(struct meed_draws *s, int32_t capacity, int64_t draw_cost)
{
    size_t players = (size_t)s->game->players;
    size_t items = (size_t)s->game->items;
    size_t rows = (size_t)capacity;
    s->capacity = capacity;
    s->player = meed_heap_alloc(players, sizeof *s->player);
    s->kind = meed_heap_alloc(players, sizeof *s->kind);
    s->kind_size = meed_heap_alloc(players, sizeof *s->kind_size);
    s->members = meed_heap_alloc(rows * players, sizeof *s->members);
    s->utilities = meed_heap_alloc(rows * items, sizeof *s->utilities);
    s->watches = meed_estimator_watches(s->options);
    size_t numbers = players * (size_t)s->watches;
    s->values = meed_heap_alloc(rows * (size_t)s->watches, sizeof *s->values);
    s->draw = meed_heap_alloc(MEED_DRAWS_BLOCK * numbers, sizeof *s->draw);
    s->mean = meed_heap_alloc(numbers, sizeof *s->mean);
    s->squares = meed_heap_alloc(numbers, sizeof *s->squares);
    if (!s->player || !s->kind || !s->kind_size || !s->members || !s->utilities || !s->values ||
        !s->draw || !s->mean || !s->squares) {
        return MEED_NOMEM;
    }
    players_fold(s);
    s->budget = meed_estimator_coalitions(s->options, s->game->players);
    if (s->active > 0 && s->budget < draw_cost + s->estimate->evaluations) {
        return MEED_FAIL(MEED_ARG,
                         "a budget of %lld evaluations is too small: %s needs at least %lld for %d "
                         "clients",
                         (long long)s->budget, meed_estimator_name(s->estimate->method),
                         (long long)(draw_cost + s->estimate->evaluations), s->game->players);
    }
    meed_estimator_watch(s->options, s->estimate->empty, s->game->items, s->value_empty);
    meed_estimator_watch(s->options, s->estimate->full, s->game->items, s->value_full);
    return MEED_OK;
}

void meed_draws_close(struct meed_draws *s)
{
    meed_heap_free(s->player);
    meed_heap_free(s->kind);
    meed_heap_free(s->kind_size);
    meed_heap_free(s->members);
    meed_heap_free(s->utilities);
    meed_heap_free(s->values);
    meed_heap_free(s->draw);
    meed_heap_free(s->mean);
    meed_heap_free(s->squares);
}

double *meed_draws_members(struct meed_draws *s, int32_t row)
{
    MEED_ASSERT(row >= 0 && row < s->capacity);
    return s->members + (int64_t)row * s->game->players;
}

const double *meed_draws_utilities(const struct meed_draws *s, int32_t row)
{
    return s->utilities + (int64_t)row * s->game->items;
}

enum meed_status meed_draws_ask(struct meed_draws *s, int32_t begin, int32_t count)
{
    MEED_ASSERT(begin + count <= s->capacity);
    MEED_TRY(meed_estimator_ask(s->game, s->members + (int64_t)begin * s->game->players, count,
                                s->utilities + (int64_t)begin * s->game->items, s->estimate));
    for (int32_t row = begin; row < begin + count; row++) {
        meed_estimator_watch(s->options, meed_draws_utilities(s, row), s->game->items,
                             s->values + (int64_t)row * s->watches);
    }
    return MEED_OK;
}

const double *meed_draws_values(const struct meed_draws *s, int32_t row)
{
    return s->values + (int64_t)row * s->watches;
}

void meed_draws_credit(struct meed_draws *s, int32_t draw, int32_t player, double factor,
                       const double *plus, const double *plus_values, const double *minus,
                       const double *minus_values)
{
    double *phi = s->estimate->phi + (int64_t)player * s->game->items;
    for (int32_t i = 0; i < s->game->items; i++) {
        phi[i] += factor * (plus[i] - minus[i]);
    }
    for (int32_t w = 0; w < s->watches; w++) {
        double *gain = s->draw + ((int64_t)draw * s->watches + w) * s->game->players + player;
        *gain += factor * (plus_values[w] - minus_values[w]);
    }
}

/* Replaces every twin's number by the mean of its kind; stride apart in memory. */
static void kinds_average(const struct meed_draws *s, double *numbers, int32_t stride)
{
    for (int32_t k = 0; k < s->game->players; k++) {
        int32_t first = s->kind[k];
        if (first != k) {
            numbers[(int64_t)first * stride] += numbers[(int64_t)k * stride];
        }
    }
    for (int32_t k = 0; k < s->game->players; k++) {
        int32_t first = s->kind[k];
        if (first == k && s->kind_size[k] > 1) {
            numbers[(int64_t)k * stride] /= s->kind_size[k];
        } else if (first != k) {
            numbers[(int64_t)k * stride] = numbers[(int64_t)first * stride];
        }
    }
}

void meed_draws_settle(struct meed_draws *s, int32_t count)
{
    int32_t numbers = s->watches * s->game->players;
    for (int32_t i = 0; i < count; i++) {
        double *draw = s->draw + (int64_t)i * numbers;
        for (int32_t w = 0; w < s->watches; w++) {
            kinds_average(s, draw + (int64_t)w * s->game->players, 1);
        }
        s->estimate->draws++;
        for (int32_t k = 0; k < numbers; k++) {
            double delta = draw[k] - s->mean[k];
            s->mean[k] += delta / (double)s->estimate->draws;
            s->squares[k] += delta * (draw[k] - s->mean[k]);
        }
        memset(draw, 0, (size_t)numbers * sizeof *draw);
    }
}

static void errors_fill(struct meed_draws *s)
{
    double draws = (double)s->estimate->draws;
    for (int32_t k = 0; k < s->watches * s->game->players; k++) {
        s->estimate->se[k] = draws > 1 ? sqrt(s->squares[k] / (draws - 1) / draws) : 0;
    }
}

static bool precise_enough(struct meed_draws *s)
{
    if (s->options->precision == 0 || s->estimate->draws < MEED_ESTIMATOR_MIN_DRAWS) {
        return false;
    }
    errors_fill(s);
    for (int32_t i = 0; i < s->active; i++) {
        if (s->estimate->se[s->player[i]] > s->options->precision) {
            return false;
        }
    }
    return true;
}

int32_t meed_draws_next(struct meed_draws *s, int64_t draw_cost)
{
    if (s->active == 0) {
        s->estimate->stop = MEED_STOP_COMPLETE;
        return 0;
    }
    if (precise_enough(s)) {
        s->estimate->stop = MEED_STOP_PRECISION;
        return 0;
    }
    int64_t fit = (s->budget - s->estimate->evaluations) / draw_cost;
    s->estimate->stop = MEED_STOP_BUDGET;
    return (int32_t)MEED_MIN(fit, (int64_t)MEED_DRAWS_BLOCK);
}

void meed_draws_finish(struct meed_draws *s)
{
    int32_t items = s->game->items;
    double draws = (double)MEED_MAX(s->estimate->draws, (int64_t)1);
    for (int64_t i = 0; i < (int64_t)s->game->players * items; i++) {
        s->estimate->phi[i] /= draws;
    }
    for (int32_t item = 0; item < items; item++) {
        kinds_average(s, s->estimate->phi + item, items);
    }
    errors_fill(s);
}
