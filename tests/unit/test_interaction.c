/* Interaction and overlap of pairs on games where both are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include "base/rng.h"
#include "evaluation/interaction.h"

enum { PLAYERS = 6 };

static void interaction_of_a_quadratic_game_is_its_hessian(void **state)
{
    /* Goal: v = Σ a_i + Σ_{i<j} h_ij over members: I_ij = h_ij and the overlap −h_ij, whatever
     * v(∅).
     */
    (void)state;
    double a[PLAYERS], h[PLAYERS][PLAYERS], values[1 << PLAYERS];
    struct meed_rng rng = meed_rng_stream(1, "interaction", 0);
    for (int i = 0; i < PLAYERS; i++) {
        a[i] = meed_rng_normal(&rng);
        for (int j = 0; j < PLAYERS; j++) {
            h[i][j] = i < j ? meed_rng_normal(&rng) : 0;
        }
    }
    for (int mask = 0; mask < 1 << PLAYERS; mask++) {
        values[mask] = -3;
        for (int i = 0; i < PLAYERS; i++) {
            values[mask] += (mask >> i) & 1 ? a[i] : 0;
            for (int j = i + 1; j < PLAYERS; j++) {
                values[mask] += (mask >> i) & (mask >> j) & 1 ? h[i][j] : 0;
            }
        }
    }
    for (int i = 0; i < PLAYERS; i++) {
        for (int j = i + 1; j < PLAYERS; j++) {
            assert_true(fabs(meed_interaction_index(values, PLAYERS, i, j) - h[i][j]) < 1e-13);
            assert_true(meed_interaction_index(values, PLAYERS, j, i) ==
                        meed_interaction_index(values, PLAYERS, i, j));
            assert_true(fabs(meed_interaction_overlap(values, i, j) + h[i][j]) < 1e-13);
        }
    }
}

static void interaction_of_unanimity_and_majority_is_known(void **state)
{
    /* Goal: v = 1 for all three together: I = 1/2, by hand: S = ∅ weighs 1/2 and gives 0, S = {k}
     * weighs 1/2 and gives 1. Majority of three: S = ∅ gives 1, S = {k} gives 1 − 2 = −1: I = 0. */
    (void)state;
    double unanimity[8] = {0}, majority[8];
    unanimity[7] = 1;
    for (int mask = 0; mask < 8; mask++) {
        majority[mask] = __builtin_popcount((unsigned)mask) >= 2 ? 1 : 0;
    }
    for (int i = 0; i < 3; i++) {
        int j = (i + 1) % 3;
        assert_true(meed_interaction_index(unanimity, 3, i, j) == 0.5);
        assert_true(meed_interaction_index(majority, 3, i, j) == 0);
        assert_true(meed_interaction_overlap(majority, i, j) == -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interaction_of_a_quadratic_game_is_its_hessian),
        cmocka_unit_test(interaction_of_unanimity_and_majority_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
