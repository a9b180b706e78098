/* Every estimator on games with known answers: voting, airport, gloves, miners, spanning tree
 * (Castro, Gómez and Tejada 2009; values recomputed exactly). Exact methods must be exact, sampling
 * ones inside their own 99 % intervals, taken jointly over the players; and intervals must cover
 * the truth as often as they say. */
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
#include "evaluation/estimator.h"
#include "evaluation/shapley.h"

enum { MAX_PLAYERS = 100 };

struct set_game {
    double (*value)(const struct set_game *game, const double *members);
    int32_t players;
    int32_t left;       /* gloves: who owns a left one */
    const double *cost; /* airport: cost; voting: weights; additive: worth */
    double quota;       /* voting */
    int32_t null;       /* declared null player, -1: none */
    int32_t twins[2];   /* declared twins, -1: none */
    double noise;       /* arbitrary: seed */
};

static enum meed_status set_evaluate(void *user, const double *members, int32_t coalitions,
                                     double *utilities)
{
    const struct set_game *game = user;
    for (int32_t i = 0; i < coalitions; i++) {
        utilities[i] = game->value(game, members + (int64_t)i * game->players);
    }
    return MEED_OK;
}

static bool set_is_null(void *user, int32_t player)
{
    return ((const struct set_game *)user)->null == player;
}

static int32_t set_twin_of(void *user, int32_t player)
{
    const struct set_game *game = user;
    return player == game->twins[1] ? game->twins[0] : player;
}

static struct meed_game seam_of(struct set_game *game)
{
    return (struct meed_game){.user = game,
                              .players = game->players,
                              .items = 1,
                              .evaluate = set_evaluate,
                              .is_null = set_is_null,
                              .twin_of = set_twin_of};
}

static struct set_game game_of(double (*value)(const struct set_game *, const double *),
                               int32_t players)
{
    return (struct set_game){.value = value, .players = players, .null = -1, .twins = {-1, -1}};
}

static struct meed_estimate *run(struct set_game *game, struct meed_estimator_options options)
{
    struct meed_game seam = seam_of(game);
    struct meed_estimate *estimate = NULL;
    assert_int_equal(meed_estimator_run(&seam, &options, &estimate), MEED_OK);
    return estimate;
}

/* --- the games ------------------------------------------------------------------------------- */
static double size_of(const struct set_game *game, const double *members)
{
    double size = 0;
    for (int32_t k = 0; k < game->players; k++) {
        size += members[k];
    }
    return size;
}

static double majority(const struct set_game *game, const double *members)
{
    return 2 * size_of(game, members) > game->players ? 1 : 0;
}

static double weighted_voting(const struct set_game *game, const double *members)
{
    double sum = 0;
    for (int32_t k = 0; k < game->players; k++) {
        sum += members[k] * game->cost[k];
    }
    return sum > game->quota ? 1 : 0;
}

static double gloves(const struct set_game *game, const double *members)
{
    double left = 0;
    for (int32_t k = 0; k < game->left; k++) {
        left += members[k];
    }
    return fmin(left, size_of(game, members) - left);
}

static double airport(const struct set_game *game, const double *members)
{
    double largest = 0;
    for (int32_t k = 0; k < game->players; k++) {
        largest = fmax(largest, members[k] * game->cost[k]);
    }
    return largest;
}

static double miners(const struct set_game *game, const double *members)
{
    return floor(size_of(game, members) / 2);
}

/* Ring of n, edge 1, edge n + 1 to the source: each run of neighbours needs one way to it. */
static double spanning_tree(const struct set_game *game, const double *members)
{
    double size = size_of(game, members);
    int32_t n = game->players, arcs = 0;
    for (int32_t k = 0; k < n; k++) {
        arcs += members[k] == 1 && members[(k + 1) % n] == 0 ? 1 : 0;
    }
    arcs = size == n ? 1 : arcs;
    return (n + 1) * arcs + (size - arcs);
}

static double additive(const struct set_game *game, const double *members)
{
    double sum = 0;
    for (int32_t k = 0; k < game->players; k++) {
        sum += members[k] * game->cost[k];
    }
    return sum;
}

/* Curved, with a player 2 that changes nothing and players 0 and 1 alike. */
static double curved(const struct set_game *game, const double *members)
{
    double sum = members[0] + members[1];
    for (int32_t k = 3; k < game->players; k++) {
        sum += members[k] * (0.3 + 0.1 * k);
    }
    return sqrt(sum);
}

/* A game without structure: a hash of the members. */
static double arbitrary(const struct set_game *game, const double *members)
{
    uint64_t mask = 0;
    for (int32_t k = 0; k < game->players; k++) {
        mask |= members[k] == 1 ? 1ull << k : 0;
    }
    struct meed_rng rng = meed_rng_stream((uint64_t)game->noise, "arbitrary", mask);
    return -3 + 0.05 * meed_rng_normal(&rng);
}

/* Weights of the 51 voters and their Shapley values. */
static const struct {
    int32_t count;
    double weight, value;
} voters[] = {{1, 45, .0883094}, {1, 41, .0797274}, {1, 27, .0509631}, {2, 26, .0489768},
              {1, 25, .0469989}, {1, 21, .0391693}, {2, 17, .0314656}, {1, 14, .0257669},
              {2, 13, .0238820}, {3, 12, .0220041}, {1, 11, .0201334}, {4, 10, .0182696},
              {4, 9, .0164127},  {2, 8, .0145627},  {4, 7, .0127194},  {4, 6, .0108829},
              {1, 5, .0090529},  {9, 4, .0072295},  {7, 3, .0054126}};

static void voters_fill(double *weights, double *values)
{
    int32_t k = 0;
    for (size_t i = 0; i < MEED_COUNT(voters); i++) {
        for (int32_t c = 0; c < voters[i].count; c++, k++) {
            weights[k] = voters[i].weight;
            values[k] = voters[i].value;
        }
    }
    assert_int_equal(k, 51);
}

static void airport_fill(double *costs, double *values)
{
    static const int32_t groups[10] = {8, 12, 6, 14, 8, 9, 13, 10, 10, 10};
    int32_t k = 0, left = 100;
    double value = 0;
    for (int g = 0; g < 10; g++) {
        value += 1.0 / left;
        left -= groups[g];
        for (int32_t c = 0; c < groups[g]; c++, k++) {
            costs[k] = g + 1;
            values[k] = value;
        }
    }
    assert_true(fabs(values[99] - 0.2893697) < 1e-7);
}

/* z with P(|Z| > z) = 0.01 / players: every player of the game inside at once. */
static double joint_z(int32_t players)
{
    double low = 2, high = 8;
    for (int step = 0; step < 60; step++) {
        double z = 0.5 * (low + high);
        *(erfc(z / sqrt(2)) > 0.01 / players ? &low : &high) = z;
    }
    return low;
}

static void assert_inside(struct set_game *game, enum meed_value_method method, const double *truth,
                          int64_t budget)
{
    struct meed_estimate *e =
        run(game, (struct meed_estimator_options){.method = method, .seed = 11, .budget = budget});
    double z = joint_z(game->players);
    assert_true(e->evaluations <= budget && e->draws >= MEED_ESTIMATOR_MIN_DRAWS);
    for (int32_t k = 0; k < game->players; k++) {
        assert_true(fabs(e->phi[k] - truth[k]) <= z * e->se[k] + 1e-7 /* digits of the table */);
        assert_true(e->se[k] < 0.5 * fabs(truth[k]) + 0.2);
    }
    if (method == MEED_VALUE_PERMUTATION) {
        assert_true(fabs(e->residual) < 1e-9);
    }
    meed_estimator_destroy(e);
}

static void fill(double *values, int32_t count, double value)
{
    for (int32_t k = 0; k < count; k++) {
        values[k] = value;
    }
}

static void sampling_estimates_lie_inside_their_intervals(void **state)
{
    /* Goal: permutation and Owen sampling on all games, up to 100 players. */
    (void)state;
    double truth[MAX_PLAYERS], cost[MAX_PLAYERS];
    static const enum meed_value_method methods[] = {MEED_VALUE_PERMUTATION, MEED_VALUE_OWEN};
    for (size_t m = 0; m < MEED_COUNT(methods); m++) {
        struct set_game game = game_of(majority, 8);
        fill(truth, 8, 1.0 / 8);
        assert_inside(&game, methods[m], truth, 20000);
        game = game_of(gloves, 7);
        game.left = 3;
        fill(truth, 3, 67.0 / 105);
        fill(truth + 3, 4, 19.0 / 70);
        assert_inside(&game, methods[m], truth, 20000);
        game = game_of(miners, 9);
        fill(truth, 9, 4.0 / 9);
        assert_inside(&game, methods[m], truth, 20000);
        game = game_of(spanning_tree, 8);
        fill(truth, 8, 2);
        assert_inside(&game, methods[m], truth, 20000);
        /* Beyond 1, all that a pair of orders can credit here goes to who closes the ring: with 100
         * players that is too rare an event for a normal interval. */
        game = game_of(spanning_tree, 20);
        fill(truth, 20, 2);
        assert_inside(&game, methods[m], truth, 60000);
        game = game_of(airport, 100);
        airport_fill(cost, truth);
        game.cost = cost; /* who is the costliest so far is rare too: many draws, cheap ones */
        assert_inside(&game, methods[m], truth, 1000000);
        game = game_of(weighted_voting, 51);
        voters_fill(cost, truth);
        game.cost = cost;
        game.quota = 269;
        assert_inside(&game, methods[m], truth, 60000);
    }
}

static void banzhaf_estimates_lie_inside_their_intervals(void **state)
{
    /* Goal: the Banzhaf values of voting, gloves and miners; not efficient, and the residual says
     * so: 4 voters get 3/8 each, 1/2 above v(N). */
    (void)state;
    double truth[MAX_PLAYERS];
    struct set_game game = game_of(majority, 4);
    fill(truth, 4, 3.0 / 8);
    assert_inside(&game, MEED_VALUE_BANZHAF, truth, 20000);
    struct meed_estimate *e =
        run(&game, (struct meed_estimator_options){.method = MEED_VALUE_BANZHAF, .budget = 40000});
    assert_true(fabs(e->residual - 0.5) < 0.05);
    meed_estimator_destroy(e);
    game = game_of(majority, 6);
    fill(truth, 6, 5.0 / 16);
    assert_inside(&game, MEED_VALUE_BANZHAF, truth, 20000);
    game = game_of(gloves, 5);
    game.left = 2;
    fill(truth, 2, 11.0 / 16);
    fill(truth + 2, 3, 5.0 / 16);
    assert_inside(&game, MEED_VALUE_BANZHAF, truth, 20000);
    game = game_of(miners, 40);
    fill(truth, 40, 0.5);
    assert_inside(&game, MEED_VALUE_BANZHAF, truth, 20000);
}

static void exact_is_exact_through_the_same_call(void **state)
{
    /* Goal: the interface adds nothing to shapley.c: same bits, the table kept, residual ≤ 1e-9;
     * leave-one-out of 20 players as by hand. */
    (void)state;
    struct set_game game = game_of(arbitrary, 9);
    struct meed_game seam = seam_of(&game);
    struct meed_estimate *e =
        run(&game, (struct meed_estimator_options){.method = MEED_VALUE_AUTO});
    struct meed_shapley *direct = NULL;
    assert_int_equal(meed_shapley_exact(&seam, &direct), MEED_OK);
    assert_int_equal(e->method, MEED_VALUE_EXACT);
    assert_memory_equal(e->phi, direct->phi, 9 * sizeof(double));
    assert_int_equal(e->table->coalition_count, 512);
    assert_true(fabs(e->residual) < 1e-9);
    meed_shapley_destroy(direct);
    meed_estimator_destroy(e);
    double worth[20];
    for (int k = 0; k < 20; k++) {
        worth[k] = 0.25 * k;
    }
    game = game_of(airport, 20);
    game.cost = worth;
    e = run(&game, (struct meed_estimator_options){.method = MEED_VALUE_LEAVE_ONE_OUT});
    assert_true(e->phi[19] == 0.25 && e->phi[18] == 0 && e->evaluations == 22);
    meed_estimator_destroy(e);
}

static void null_players_get_zero_and_twins_equal_bits(void **state)
{
    /* Goal: player 2 exactly 0, known to be null or not (Banzhaf must be told), players 0 and 1
     * the same bits once the game calls them twins. */
    (void)state;
    static const enum meed_value_method methods[] = {MEED_VALUE_EXACT, MEED_VALUE_LEAVE_ONE_OUT,
                                                     MEED_VALUE_PERMUTATION, MEED_VALUE_OWEN,
                                                     MEED_VALUE_BANZHAF};
    for (size_t m = 0; m < MEED_COUNT(methods); m++) {
        for (int known = 0; known < 2; known++) {
            struct set_game game = game_of(curved, 7);
            game.twins[0] = 0;
            game.twins[1] = 1;
            game.null = known ? 2 : -1;
            struct meed_estimate *e =
                run(&game, (struct meed_estimator_options){.method = methods[m], .seed = 3});
            if (known || methods[m] != MEED_VALUE_BANZHAF) {
                assert_true(e->phi[2] == 0 && e->se[2] == 0);
            }
            assert_true(e->phi[0] == e->phi[1] && e->se[0] == e->se[1] && e->phi[0] > 0);
            meed_estimator_destroy(e);
        }
    }
}

static void additive_games_are_exact_by_orders(void **state)
{
    /* Goal: where gains do not depend on who is there, every order and every flip says the same:
     * no error is left, and the standard error knows. */
    (void)state;
    static const double worth[5] = {0.5, -0.25, 0, 1, 1};
    static const enum meed_value_method methods[] = {MEED_VALUE_PERMUTATION, MEED_VALUE_OWEN};
    for (size_t m = 0; m < MEED_COUNT(methods); m++) {
        struct set_game game = game_of(additive, 5);
        game.cost = worth;
        struct meed_estimate *e = run(&game, (struct meed_estimator_options){.method = methods[m]});
        for (int k = 0; k < 5; k++) {
            assert_true(fabs(e->phi[k] - worth[k]) < 1e-12 && e->se[k] < 1e-12);
        }
        meed_estimator_destroy(e);
    }
}

static void standard_errors_cover_the_truth_as_often_as_they_say(void **state)
{
    /* Goal: over 400 seeds and 6 players, |φ̂ − φ| ≤ 1.96·se in 95 % of cases. 2,400 correlated
     * cases at 40 to 64 draws: between 92.5 and 97 %. Errors twice too small would cover 67 %. */
    (void)state;
    static const enum meed_value_method methods[] = {MEED_VALUE_PERMUTATION, MEED_VALUE_OWEN,
                                                     MEED_VALUE_BANZHAF};
    static const int64_t budgets[] = {2 + 64 * 10, 2 + 40 * 56, 2 + 64 * 2};
    struct set_game game = game_of(arbitrary, 6);
    struct meed_estimate *exact =
        run(&game, (struct meed_estimator_options){.method = MEED_VALUE_EXACT});
    double banzhaf[6] = {0};
    for (int mask = 0; mask < 64; mask++) {
        for (int k = 0; k < 6; k++) {
            banzhaf[k] += ((mask >> k) & 1 ? 1 : -1) * exact->table->utilities[mask] / 32;
        }
    }
    for (size_t m = 0; m < MEED_COUNT(methods); m++) {
        const double *truth = methods[m] == MEED_VALUE_BANZHAF ? banzhaf : exact->phi;
        int inside = 0;
        for (uint64_t seed = 0; seed < 400; seed++) {
            struct meed_estimate *e =
                run(&game, (struct meed_estimator_options){
                               .method = methods[m], .seed = seed, .budget = budgets[m]});
            for (int k = 0; k < 6; k++) {
                inside += fabs(e->phi[k] - truth[k]) <= 1.96 * e->se[k];
            }
            meed_estimator_destroy(e);
        }
        assert_in_range(inside, 2220, 2328);
    }
    meed_estimator_destroy(exact);
}

static void runs_stop_by_precision_or_budget_and_repeat(void **state)
{
    /* Goal: the stopping rules hold and name themselves, the seed decides every bit, a budget below
     * one draw is refused, truncation saves evaluations and loses at most what it says. */
    (void)state;
    struct set_game game = game_of(curved, 12);
    struct meed_estimator_options options = {
        .method = MEED_VALUE_PERMUTATION, .seed = 5, .precision = 5e-3, .budget = 1000000};
    struct meed_estimate *precise = run(&game, options);
    assert_int_equal(precise->stop, MEED_STOP_PRECISION);
    assert_true(precise->evaluations < 100000);
    for (int k = 0; k < 12; k++) {
        assert_true(precise->se[k] <= 5e-3);
    }
    struct meed_estimate *again = run(&game, options);
    assert_memory_equal(again->phi, precise->phi, 12 * sizeof(double));
    meed_estimator_destroy(again);
    options.seed = 6;
    again = run(&game, options);
    assert_memory_not_equal(again->phi, precise->phi, 12 * sizeof(double));
    meed_estimator_destroy(again);
    meed_estimator_destroy(precise);
    options.budget = 500;
    options.precision = 0;
    struct meed_estimate *short_run = run(&game, options);
    assert_int_equal(short_run->stop, MEED_STOP_BUDGET);
    assert_int_equal(short_run->evaluations, 2 + 22 * 22);
    options.truncation = 0.25;
    struct meed_estimate *cut = run(&game, options);
    assert_true(cut->draws > short_run->draws && fabs(cut->residual) <= 0.25);
    assert_true(fabs(cut->residual) > 0);
    meed_estimator_destroy(cut);
    meed_estimator_destroy(short_run);
    struct meed_game seam = seam_of(&game);
    struct meed_estimate *none = NULL;
    options.budget = 10;
    assert_int_equal(meed_estimator_run(&seam, &options, &none), MEED_ARG);
    options = (struct meed_estimator_options){.method = MEED_VALUE_GRADIENT};
    assert_int_equal(meed_estimator_run(&seam, &options, &none), MEED_ARG);
    assert_null(none);
}

/* --- the gradient path on a polynomial game --------------------------------------------------- */

/* u = (Σ a_k m_k)^degree, so ∂u/∂m_k at t·1 is degree·a_k·(Σa)^(degree−1)·t^(degree−1). */
static int polynomial_degree;
static const double polynomial_a[4] = {0.5, 0.25, -0.125, 1};

static double polynomial(const struct set_game *game, const double *members)
{
    (void)game;
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        sum += polynomial_a[k] * members[k];
    }
    return pow(sum, polynomial_degree);
}

static enum meed_status polynomial_gradient(void *user, const double *nodes, const double *weights,
                                            int32_t count, double *phi)
{
    (void)user;
    double total = 0;
    for (int k = 0; k < 4; k++) {
        total += polynomial_a[k];
        phi[k] = 0;
    }
    for (int32_t q = 0; q < count; q++) {
        double slope = polynomial_degree * pow(total * nodes[q], polynomial_degree - 1);
        for (int k = 0; k < 4; k++) {
            phi[k] += weights[q] * slope * polynomial_a[k];
        }
    }
    return MEED_OK;
}

static void gradient_is_exact_up_to_its_degree_and_says_when_not(void **state)
{
    /* Goal: Q nodes leave no residual up to degree 2Q in the mask and one beyond; a quadratic
     * game's values are Shapley's. */
    (void)state;
    struct set_game game = game_of(polynomial, 4);
    struct meed_game seam = seam_of(&game);
    seam.gradient = polynomial_gradient;
    for (int nodes = 1; nodes <= 8; nodes++) {
        for (polynomial_degree = 1; polynomial_degree <= 2 * nodes + 1; polynomial_degree++) {
            struct meed_estimator_options options = {.method = MEED_VALUE_GRADIENT, .nodes = nodes};
            struct meed_estimate *e = NULL, *exact = NULL;
            assert_int_equal(meed_estimator_run(&seam, &options, &e), MEED_OK);
            double value = fabs(polynomial(&game, (double[]){1, 1, 1, 1}));
            bool over = polynomial_degree > 2 * nodes;
            /* The quadrature's own error term at this degree is above 1e-11 up to 8 nodes. */
            assert_true(over ? fabs(e->residual) > 1e-12 * value
                             : fabs(e->residual) < 1e-13 * value);
            if (polynomial_degree <= 2) {
                options.method = MEED_VALUE_EXACT;
                assert_int_equal(meed_estimator_run(&seam, &options, &exact), MEED_OK);
                for (int k = 0; k < 4; k++) {
                    assert_true(fabs(e->phi[k] - exact->phi[k]) < 1e-13);
                }
                meed_estimator_destroy(exact);
            }
            meed_estimator_destroy(e);
        }
    }
}

static void legendre_weights_integrate_powers(void **state)
{
    /* Goal: ∫₀¹ x^p dx = 1/(p+1) to rounding for p < 2Q, every Q. */
    (void)state;
    for (int32_t count = 1; count <= MEED_ESTIMATOR_MAX_NODES; count++) {
        double nodes[MEED_ESTIMATOR_MAX_NODES], weights[MEED_ESTIMATOR_MAX_NODES];
        meed_estimator_legendre(count, nodes, weights);
        for (int p = 0; p < 2 * count; p++) {
            double sum = 0;
            for (int32_t i = 0; i < count; i++) {
                sum += weights[i] * pow(nodes[i], p);
            }
            assert_true(fabs(sum * (p + 1) - 1) < 2e-13);
        }
        assert_true(count == 1 || nodes[0] < nodes[count - 1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampling_estimates_lie_inside_their_intervals),
        cmocka_unit_test(banzhaf_estimates_lie_inside_their_intervals),
        cmocka_unit_test(exact_is_exact_through_the_same_call),
        cmocka_unit_test(null_players_get_zero_and_twins_equal_bits),
        cmocka_unit_test(additive_games_are_exact_by_orders),
        cmocka_unit_test(standard_errors_cover_the_truth_as_often_as_they_say),
        cmocka_unit_test(runs_stop_by_precision_or_budget_and_repeat),
        cmocka_unit_test(gradient_is_exact_up_to_its_degree_and_says_when_not),
        cmocka_unit_test(legendre_weights_integrate_powers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
