/* Shapley and leave-one-out on games with known answers (Castro, Gómez and Tejada 2009, and games
 * worked out by hand), against brute force over all orders, and the axioms to the bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "evaluation/shapley.h"

/* A game whose one item is value(mask). */
struct table_game {
    double (*value)(const struct table_game *game, uint32_t mask);
    int32_t players;
    int32_t left;       /* shoes: the first `left` players own left shoes */
    const double *cost; /* airport, additive, quadratic: per player */
    const double *hessian;
    const int *relabel; /* player k of this game is player relabel[k] of the original */
    uint32_t null_mask;
    int32_t asked;
};

static enum meed_status table_evaluate(void *user, const double *members, int32_t coalitions,
                                       double *utilities)
{
    struct table_game *game = user;
    for (int32_t i = 0; i < coalitions; i++) {
        uint32_t mask = 0;
        for (int32_t k = 0; k < game->players; k++) {
            int to = game->relabel ? game->relabel[k] : k;
            mask |= members[i * game->players + k] > 0.5 ? 1u << to : 0u;
        }
        utilities[i] = game->value(game, mask);
    }
    game->asked += coalitions;
    return MEED_OK;
}

static bool table_is_null(void *user, int32_t player)
{
    return (((struct table_game *)user)->null_mask >> player) & 1u;
}

/* φ [players] of the game; *residual = Σφ − (v(N) − v(∅)). */
static void table_solve(struct table_game *game, double *phi, double *residual)
{
    struct meed_game seam = {game, game->players, 1, table_evaluate, table_is_null, NULL, NULL};
    struct meed_shapley *values = NULL;
    assert_int_equal(meed_shapley_exact(&seam, &values), MEED_OK);
    double sum = 0;
    for (int32_t k = 0; k < game->players; k++) {
        phi[k] = values->phi[k];
        sum += phi[k];
    }
    *residual = sum - (values->utilities[values->coalition_count - 1] - values->utilities[0]);
    meed_shapley_destroy(values);
}

static double voting(const struct table_game *game, uint32_t mask)
{
    return 2 * __builtin_popcount(mask) > game->players ? 1 : 0;
}

static double shoes(const struct table_game *game, uint32_t mask)
{
    int left = __builtin_popcount(mask & ((1u << game->left) - 1));
    int right = __builtin_popcount(mask >> game->left);
    return left < right ? left : right;
}

static double airport(const struct table_game *game, uint32_t mask)
{
    double largest = 0;
    for (int32_t k = 0; k < game->players; k++) {
        largest = (mask >> k) & 1u ? fmax(largest, game->cost[k]) : largest;
    }
    return largest;
}

static double miners(const struct table_game *game, uint32_t mask)
{
    (void)game;
    return __builtin_popcount(mask) / 2;
}

static double additive(const struct table_game *game, uint32_t mask)
{
    double sum = 0;
    for (int32_t k = 0; k < game->players; k++) {
        sum += (mask >> k) & 1u ? game->cost[k] : 0;
    }
    return sum;
}

static double quadratic(const struct table_game *game, uint32_t mask)
{
    double sum = 0;
    for (int32_t i = 0; i < game->players; i++) {
        for (int32_t j = 0; (mask >> i) & 1u && j < game->players; j++) {
            double h = (mask >> j) & 1u ? game->hessian[i * game->players + j] : 0;
            sum += 0.5 * h + (i == j ? game->cost[i] : 0);
        }
    }
    return sum;
}

/* A game without structure: a hash of the mask. */
static double arbitrary(const struct table_game *game, uint32_t mask)
{
    struct meed_rng rng = meed_rng_stream((uint64_t)game->left, "arbitrary", mask);
    return -3.0 + 0.05 * meed_rng_normal(&rng);
}

static void shapley_of_symmetric_voting_is_one_nth(void **state)
{
    /* Goal: majority voting with n even and odd up to 10 gives everyone 1/n. */
    (void)state;
    for (int32_t n = 1; n <= 10; n++) {
        struct table_game game = {.value = voting, .players = n};
        double phi[16];
        double residual;
        table_solve(&game, phi, &residual);
        for (int32_t k = 0; k < n; k++) {
            assert_true(fabs(phi[k] - 1.0 / n) < 4e-16);
            assert_true(phi[k] == phi[0]);
        }
        assert_true(fabs(residual) < 1e-15);
    }
}

static void shapley_of_shoes_matches_the_known_table(void **state)
{
    /* Goal: v = min(left, right); the scarce side earns more (fractions from the literature). */
    (void)state;
    static const struct {
        int32_t left, right;
        double of_left, of_right;
    } table[] = {{1, 1, 0.5, 0.5},
                 {1, 2, 2.0 / 3, 1.0 / 6},
                 {2, 3, 13.0 / 20, 7.0 / 30},
                 {3, 4, 67.0 / 105, 19.0 / 70}};
    for (size_t i = 0; i < MEED_COUNT(table); i++) {
        struct table_game game = {
            .value = shoes, .players = table[i].left + table[i].right, .left = table[i].left};
        double phi[16];
        double residual;
        table_solve(&game, phi, &residual);
        for (int32_t k = 0; k < game.players; k++) {
            double expected = k < game.left ? table[i].of_left : table[i].of_right;
            assert_true(fabs(phi[k] - expected) < 1e-15);
        }
        assert_true(fabs(residual) < 1e-14);
    }
}

static void shapley_of_airport_shares_each_step_among_those_who_need_it(void **state)
{
    /* Goal: 16 planes in groups of 3, 5, 2, 6 with costs 1, 2, 4, 7. Every step of the runway is
     * paid equally by the planes that need it: 1/16, + 1/13, + 2/8, + 3/6. */
    (void)state;
    static const int groups[] = {3, 5, 2, 6};
    static const double costs[] = {1, 2, 4, 7};
    const double shares[] = {1.0 / 16, 1.0 / 16 + 1.0 / 13, 1.0 / 16 + 1.0 / 13 + 2.0 / 8,
                             1.0 / 16 + 1.0 / 13 + 2.0 / 8 + 3.0 / 6};
    double cost[16];
    double expected[16];
    int used = 0;
    for (int g = 0; g < 4; g++) {
        for (int i = 0; i < groups[g]; i++) {
            cost[used] = costs[g];
            expected[used++] = shares[g];
        }
    }
    struct table_game game = {.value = airport, .players = 16, .cost = cost};
    double phi[16];
    double residual;
    table_solve(&game, phi, &residual);
    for (int k = 0; k < 16; k++) {
        assert_true(fabs(phi[k] - expected[k]) < 1e-14);
    }
    assert_true(fabs(residual) < 1e-9);
}

static void shapley_of_miners_is_half_the_pairs(void **state)
{
    /* Goal: v = ⌊|S|/2⌋ gives ⌊n/2⌋/n each, even and odd n. */
    (void)state;
    for (int32_t n = 2; n <= 11; n++) {
        struct table_game game = {.value = miners, .players = n};
        double phi[16];
        double residual;
        table_solve(&game, phi, &residual);
        for (int32_t k = 0; k < n; k++) {
            assert_true(fabs(phi[k] - (double)(n / 2) / n) < 1e-15);
        }
    }
}

static void shapley_of_quadratic_is_gradient_plus_half_curvature(void **state)
{
    /* Goal: v(m) = a·m + ½ mᵀHm gives a_i + ½ Σ_j H_ij: pins the sign convention. */
    (void)state;
    enum { N = 7 };
    double a[N];
    double h[N * N];
    struct meed_rng rng = meed_rng_stream(3, "quadratic", 0);
    for (int i = 0; i < N; i++) {
        a[i] = meed_rng_normal(&rng);
        for (int j = 0; j <= i; j++) {
            h[i * N + j] = h[j * N + i] = meed_rng_normal(&rng);
        }
    }
    struct table_game game = {.value = quadratic, .players = N, .cost = a, .hessian = h};
    double phi[N];
    double residual;
    table_solve(&game, phi, &residual);
    for (int i = 0; i < N; i++) {
        double expected = a[i];
        for (int j = 0; j < N; j++) {
            expected += 0.5 * h[i * N + j];
        }
        assert_true(fabs(phi[i] - expected) < 1e-13);
    }
}

static void shapley_pays_null_zero_and_twins_alike_to_the_bit(void **state)
{
    /* Goal: an additive game with a null player and twins; 0 and equality are exact, with the null
     * player declared (fewer coalitions asked) and undeclared. */
    (void)state;
    static const double worth[] = {0.1, 0.0, 0.3, 0.1, -0.7};
    for (int declared = 0; declared < 2; declared++) {
        struct table_game game = {
            .value = additive, .players = 5, .cost = worth, .null_mask = declared ? 2u : 0u};
        double phi[5];
        double residual;
        table_solve(&game, phi, &residual);
        for (int k = 0; k < 5; k++) {
            assert_true(fabs(phi[k] - worth[k]) < 1e-15);
        }
        assert_true(phi[1] == 0.0);
        assert_int_equal(game.asked, declared ? 16 : 32);
    }
    /* Twins in a game where they interact with everything. */
    struct table_game game = {.value = shoes, .players = 7, .left = 3};
    double phi[7];
    double residual;
    table_solve(&game, phi, &residual);
    assert_true(phi[0] == phi[1] && phi[1] == phi[2]);
    assert_true(phi[3] == phi[4] && phi[4] == phi[5] && phi[5] == phi[6]);
}

/* Mean marginal over all n! orders, by recursion. */
static void orders_add(struct table_game *game, uint32_t mask, double *sums, double *orders)
{
    uint32_t everyone = (1u << game->players) - 1;
    if (mask == everyone) {
        *orders += 1;
        return;
    }
    for (int32_t k = 0; k < game->players; k++) {
        if (!((mask >> k) & 1u)) {
            double before = *orders;
            orders_add(game, mask | 1u << k, sums, orders);
            double gain = game->value(game, mask | 1u << k) - game->value(game, mask);
            sums[k] += gain * (*orders - before);
        }
    }
}

static void shapley_equals_the_mean_over_all_orders(void **state)
{
    /* Goal: brute force over n! orders agrees for games without structure, n ≤ 6. */
    (void)state;
    for (int32_t n = 1; n <= 6; n++) {
        for (int32_t seed = 0; seed < 5; seed++) {
            struct table_game game = {.value = arbitrary, .players = n, .left = seed};
            double phi[6];
            double residual;
            table_solve(&game, phi, &residual);
            double sums[6] = {0};
            double orders = 0;
            orders_add(&game, 0, sums, &orders);
            for (int32_t k = 0; k < n; k++) {
                assert_true(fabs(phi[k] - sums[k] / orders) < 1e-14);
            }
            assert_true(fabs(residual) < 1e-12);
        }
    }
}

static void shapley_renaming_players_renames_values_to_the_bit(void **state)
{
    /* Goal: φ of a relabelled game is the relabelled φ, bit for bit, 50 random labellings, n = 9.
     */
    (void)state;
    enum { N = 9 };
    struct table_game game = {.value = arbitrary, .players = N, .left = 11};
    double phi[N];
    double residual;
    table_solve(&game, phi, &residual);
    for (uint64_t trial = 0; trial < 50; trial++) {
        int64_t order[N];
        int relabel[N];
        struct meed_rng rng = meed_rng_stream(5, "relabel", trial);
        for (int k = 0; k < N; k++) {
            order[k] = k;
        }
        meed_rng_shuffle(&rng, order, N);
        for (int k = 0; k < N; k++) {
            relabel[k] = (int)order[k];
        }
        struct table_game renamed = game;
        renamed.relabel = relabel;
        double other[N];
        table_solve(&renamed, other, &residual);
        for (int k = 0; k < N; k++) {
            assert_memory_equal(&other[k], &phi[relabel[k]], sizeof(double));
        }
    }
}

static void shapley_is_efficient_at_sixteen_players(void **state)
{
    /* Goal: Σφ − (v(N) − v(∅)) stays below 1e-9 with 65,536 coalitions and widely spread values. */
    (void)state;
    struct table_game game = {.value = arbitrary, .players = 16, .left = 2};
    double phi[16];
    double residual;
    table_solve(&game, phi, &residual);
    assert_true(fabs(residual) < 1e-9);
}

static void leave_one_out_is_the_last_marginal(void **state)
{
    /* Goal: u(N) − u(N∖k) on voting and additive games; null player declared: exactly 0. */
    (void)state;
    static const double worth[] = {0.25, 0.0, 0.5, -1.0};
    struct table_game game = {.value = additive, .players = 4, .cost = worth, .null_mask = 2u};
    struct meed_game seam = {&game, 4, 1, table_evaluate, table_is_null, NULL, NULL};
    struct meed_shapley *values = NULL;
    assert_int_equal(meed_shapley_leave_one_out(&seam, &values), MEED_OK);
    assert_int_equal(values->coalition_count, 6);
    assert_int_equal(values->requested, 5);
    for (int k = 0; k < 4; k++) {
        assert_true(values->phi[k] == worth[k]);
    }
    meed_shapley_destroy(values);
    struct table_game majority = {.value = voting, .players = 4};
    seam.user = &majority;
    assert_int_equal(meed_shapley_leave_one_out(&seam, &values), MEED_OK);
    for (int k = 0; k < 4; k++) {
        assert_true(values->phi[k] == 0.0);
    }
    meed_shapley_destroy(values);
}

static double broken(const struct table_game *game, uint32_t mask)
{
    (void)game;
    return mask == 5 ? NAN : 1.0;
}

static void shapley_refuses_bad_games(void **state)
{
    /* Goal: too many players and utilities that are not finite are named, never replaced. */
    (void)state;
    struct table_game game = {.value = broken, .players = 3};
    struct meed_game seam = {&game, 3, 1, table_evaluate, NULL, NULL, NULL};
    struct meed_shapley *values = NULL;
    assert_int_equal(meed_shapley_exact(&seam, &values), MEED_NUMERIC);
    assert_non_null(strstr(meed_last_error(), "0x5"));
    seam.players = 17;
    assert_int_equal(meed_shapley_exact(&seam, &values), MEED_ARG);
    seam.players = 3;
    seam.items = 0;
    assert_int_equal(meed_shapley_leave_one_out(&seam, &values), MEED_ARG);
    assert_null(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapley_of_symmetric_voting_is_one_nth),
        cmocka_unit_test(shapley_of_shoes_matches_the_known_table),
        cmocka_unit_test(shapley_of_airport_shares_each_step_among_those_who_need_it),
        cmocka_unit_test(shapley_of_miners_is_half_the_pairs),
        cmocka_unit_test(shapley_of_quadratic_is_gradient_plus_half_curvature),
        cmocka_unit_test(shapley_pays_null_zero_and_twins_alike_to_the_bit),
        cmocka_unit_test(shapley_equals_the_mean_over_all_orders),
        cmocka_unit_test(shapley_renaming_players_renames_values_to_the_bit),
        cmocka_unit_test(shapley_is_efficient_at_sixteen_players),
        cmocka_unit_test(leave_one_out_is_the_last_marginal),
        cmocka_unit_test(shapley_refuses_bad_games),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
