/* See shapley.h.
 *
 * Why integers. φ_k = Σ_s w(s)·(A_k[s+1] − (T[s] − A_k[s])), with T[s] the sum of u over coalitions
 * of size s and A_k[s] the part of it that contains k. In floating point the order of the terms
 * shows in the last bits, and that order depends on how players are numbered. So every utility is
 * split once into two integers on a grid below the item's largest utility,
 *
 *     u·scale = high + low·2^-44,   |high| ≤ 2^46, |low| ≤ 2^43, scale a power of two,
 *
 * which keeps 90 bits under the largest value, more than an fp64 of any utility above 2^-37 of it
 * carries. At most C(16, 8) = 12,870 < 2^14 terms meet in a sum, so 64-bit sums cannot overflow and
 * are exact in any order. Only the last step, n products with w(s) summed by rising s, rounds, and
 * it is the same for every player.
 */
#include "evaluation/shapley.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"

enum { HIGH_BITS = 46, LOW_BITS = 44, MAX_SIZES = MEED_SHAPLEY_MAX_PLAYERS + 1 };

static enum meed_status game_check(const struct meed_game *game)
{
    if (game->players < 1 || game->players > MEED_SHAPLEY_MAX_PLAYERS || game->items < 1) {
        return MEED_FAIL(MEED_ARG,
                         "a game of %d players and %d items cannot be valued; 1 to %d players and "
                         "at least one item are needed",
                         game->players, game->items, MEED_SHAPLEY_MAX_PLAYERS);
    }
    return MEED_OK;
}

static uint32_t null_mask_of(const struct meed_game *game)
{
    uint32_t mask = 0;
    for (int32_t k = 0; game->is_null && k < game->players; k++) {
        mask |= game->is_null(game->user, k) ? 1u << k : 0u;
    }
    return mask;
}

static enum meed_status values_create(const struct meed_game *game, int32_t coalition_count,
                                      struct meed_shapley **values)
{
    struct meed_shapley *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "valuation", SIZE_MAX / 2);
    made->players = game->players;
    made->items = game->items;
    made->coalition_count = coalition_count;
    size_t rows = (size_t)coalition_count;
    size_t items = (size_t)game->items;
    void *blocks[3] = {NULL};
    const size_t bytes[3] = {sizeof(uint32_t), items * sizeof(double), items * sizeof(double)};
    const size_t counts[3] = {rows, rows, (size_t)game->players};
    for (int i = 0; i < 3; i++) {
        enum meed_status st = meed_arena_alloc_array(&made->arena, counts[i], bytes[i], &blocks[i]);
        if (st != MEED_OK) {
            meed_shapley_destroy(made);
            return st;
        }
    }
    made->masks = blocks[0];
    made->utilities = blocks[1];
    made->phi = blocks[2];
    *values = made;
    return MEED_OK;
}

void meed_shapley_destroy(struct meed_shapley *values)
{
    if (values) {
        meed_arena_clear(&values->arena);
        meed_heap_free(values);
    }
}

static enum meed_status utilities_check(const struct meed_shapley *values)
{
    for (int32_t row = 0; row < values->coalition_count; row++) {
        const double *utilities = values->utilities + (int64_t)row * values->items;
        for (int32_t item = 0; item < values->items; item++) {
            if (!isfinite(utilities[item])) {
                return MEED_FAIL(MEED_NUMERIC,
                                 "the utility of item %d is not finite in the coalition with "
                                 "members 0x%x; a failed score is never replaced by a default",
                                 item, values->masks[row]);
            }
        }
    }
    return MEED_OK;
}

/* First row that equals `row` up to null players; rows of the full table are their own masks. */
static int32_t row_alike(const struct meed_shapley *values, uint32_t null_mask, int32_t row)
{
    uint32_t folded = values->masks[row] & ~null_mask;
    if (values->coalition_count == (int32_t)1 << values->players) {
        return (int32_t)folded;
    }
    int32_t alike = 0;
    while ((values->masks[alike] & ~null_mask) != folded) {
        alike++;
    }
    return alike;
}

/* What to ask the game: one row for all that differ by null players only. members
 * [coalition_count, players] gets `requested` rows; answer [coalition_count] says which of them
 * each row of the table stands for. */
static void members_fold(const struct meed_game *game, struct meed_shapley *values, double *members,
                         int32_t *answer)
{
    uint32_t null_mask = null_mask_of(game);
    size_t players = (size_t)game->players;
    for (int32_t row = 0; row < values->coalition_count; row++) {
        int32_t alike = row_alike(values, null_mask, row);
        if (alike < row) {
            answer[row] = answer[alike];
            continue;
        }
        answer[row] = values->requested++;
        for (size_t k = 0; k < players; k++) {
            bool in = ((values->masks[row] & ~null_mask) >> k) & 1u;
            members[(size_t)answer[row] * players + k] = in ? 1.0 : 0.0;
        }
    }
}

/* Asks once, then copies each answer to the rows it stands for. Answer r belongs to a row ≥ r, so
 * copying from the last row backwards never overwrites what is still to be read. */
static enum meed_status utilities_request(const struct meed_game *game, struct meed_shapley *values)
{
    enum meed_status st = MEED_OK;
    size_t row_bytes = (size_t)game->items * sizeof(double);
    size_t rows = (size_t)values->coalition_count;
    double *members = meed_heap_alloc(rows * (size_t)game->players, sizeof *members);
    int32_t *answer = meed_heap_alloc(rows, sizeof *answer);
    if (!members || !answer) {
        st = MEED_NOMEM;
        goto out;
    }
    members_fold(game, values, members, answer);
    MEED_TRY_OUT(game->evaluate(game->user, members, values->requested, values->utilities));
    for (size_t row = rows; row-- > 0;) {
        memmove((char *)values->utilities + row * row_bytes,
                (char *)values->utilities + (size_t)answer[row] * row_bytes, row_bytes);
    }
    st = utilities_check(values);
out:
    meed_heap_free(members);
    meed_heap_free(answer);
    return st;
}

struct grid_value {
    int64_t high;
    int64_t low;
};

static struct grid_value grid_split(double value, double scale)
{
    double scaled = value * scale;
    double high = nearbyint(scaled);
    return (struct grid_value){(int64_t)high, (int64_t)nearbyint(ldexp(scaled - high, LOW_BITS))};
}

static double grid_join(struct grid_value value, double scale)
{
    return ((double)value.high + ldexp((double)value.low, -LOW_BITS)) / scale;
}

/* Power of two that puts the item's largest |utility| just below 2^HIGH_BITS. */
static double grid_scale(const struct meed_shapley *values, int32_t item)
{
    double largest = 0;
    for (int32_t row = 0; row < values->coalition_count; row++) {
        largest = fmax(largest, fabs(values->utilities[(int64_t)row * values->items + item]));
    }
    int exponent = 0;
    frexp(largest, &exponent);
    int shift = HIGH_BITS - exponent;
    return largest > 0 ? ldexp(1.0, shift < 1000 ? shift : 1000) : 1.0;
}

/* φ of one item from the full table of 2^n rows. */
static void item_exact(struct meed_shapley *values, int32_t item, const double *weights)
{
    struct grid_value total[MAX_SIZES] = {{0, 0}};
    struct grid_value with[MEED_SHAPLEY_MAX_PLAYERS][MAX_SIZES] = {{{0, 0}}};
    double scale = grid_scale(values, item);
    for (int32_t mask = 0; mask < values->coalition_count; mask++) {
        struct grid_value u =
            grid_split(values->utilities[(int64_t)mask * values->items + item], scale);
        int size = __builtin_popcount((uint32_t)mask);
        total[size].high += u.high;
        total[size].low += u.low;
        for (uint32_t left = (uint32_t)mask; left; left &= left - 1) {
            struct grid_value *sum = &with[__builtin_ctz(left)][size];
            sum->high += u.high;
            sum->low += u.low;
        }
    }
    for (int32_t k = 0; k < values->players; k++) {
        double phi = 0;
        for (int32_t s = 0; s < values->players; s++) {
            struct grid_value gain = {
                with[k][s + 1].high - (total[s].high - with[k][s].high),
                with[k][s + 1].low - (total[s].low - with[k][s].low),
            };
            phi += weights[s] * grid_join(gain, scale);
        }
        values->phi[(int64_t)k * values->items + item] = phi;
    }
}

/* The table of an estimator with its masks, nothing asked yet. */
static enum meed_status rows_create(const struct meed_game *game, bool exact,
                                    struct meed_shapley **values)
{
    MEED_TRY(game_check(game));
    int32_t n = game->players;
    MEED_TRY(values_create(game, exact ? (int32_t)1 << n : n + 2, values));
    struct meed_shapley *made = *values;
    uint32_t everyone = (uint32_t)((1ull << n) - 1);
    for (int32_t row = 0; row < made->coalition_count; row++) {
        made->masks[row] = exact     ? (uint32_t)row
                           : row < 2 ? everyone * (uint32_t)row
                                     : everyone & ~(1u << (row - 2));
    }
    return MEED_OK;
}

enum meed_status meed_shapley_coalitions(const struct meed_game *game, bool exact, double **members,
                                         int32_t *count)
{
    enum meed_status st = MEED_OK;
    struct meed_shapley *rows = NULL;
    int32_t *answer = NULL;
    MEED_TRY(rows_create(game, exact, &rows));
    size_t most = (size_t)rows->coalition_count;
    double *made = meed_heap_alloc(most * (size_t)game->players, sizeof *made);
    answer = meed_heap_alloc(most, sizeof *answer);
    if (!made || !answer) {
        st = MEED_NOMEM;
        goto out;
    }
    members_fold(game, rows, made, answer);
    *count = rows->requested;
    *members = made;
    made = NULL;
out:
    meed_heap_free(made);
    meed_heap_free(answer);
    meed_shapley_destroy(rows);
    return st;
}

enum meed_status meed_shapley_exact(const struct meed_game *game, struct meed_shapley **values)
{
    enum meed_status st = MEED_OK;
    struct meed_shapley *made = NULL;
    int32_t n = game->players;
    MEED_TRY(rows_create(game, true, &made));
    MEED_TRY_OUT(utilities_request(game, made));
    /* w(s) = s!(n−s−1)!/n! = 1/(n·C(n−1, s)); the binomials are exact in fp64. */
    double weights[MEED_SHAPLEY_MAX_PLAYERS];
    double binomial = 1;
    for (int32_t s = 0; s < n; s++) {
        weights[s] = 1.0 / (n * binomial);
        binomial = binomial * (n - 1 - s) / (s + 1);
    }
    for (int32_t item = 0; item < made->items; item++) {
        item_exact(made, item, weights);
    }
    *values = made;
    made = NULL;
out:
    meed_shapley_destroy(made);
    return st;
}

enum meed_status meed_shapley_leave_one_out(const struct meed_game *game,
                                            struct meed_shapley **values)
{
    enum meed_status st = MEED_OK;
    struct meed_shapley *made = NULL;
    int32_t n = game->players;
    MEED_TRY(rows_create(game, false, &made));
    MEED_TRY_OUT(utilities_request(game, made));
    const double *full = made->utilities + made->items;
    for (int32_t k = 0; k < n; k++) {
        const double *without = made->utilities + (int64_t)(2 + k) * made->items;
        for (int32_t item = 0; item < made->items; item++) {
            made->phi[(int64_t)k * made->items + item] = full[item] - without[item];
        }
    }
    *values = made;
    made = NULL;
out:
    meed_shapley_destroy(made);
    return st;
}
