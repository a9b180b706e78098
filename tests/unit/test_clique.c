/* Groups that pull together, in cohorts whose directions are known.
 *
 * A client's step is a vector of DIMENSIONS: what all share, a mixture of three domains, noise, and
 * for attackers a direction of their own. Item values follow the mixture through random weights,
 * with noise. So the truth is known: who belongs to a group, and whether its direction is good for
 * anything. The eigenvectors behind it are held against their definition.
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
#include "engine/symmetric.h"
#include "evaluation/clique.h"
#include "evaluation/spread.h"

enum { MOST = 100, DIMENSIONS = 600, DOMAINS = 3, ITEMS = 60 };

struct plan {
    int32_t clients, group; /* the group comes first */
    bool specialists;       /* one domain each instead of a mixture */
    bool asked;             /* the group's direction moves items as well */
    double pull;            /* length of the group's direction; noise has 1 */
    uint64_t seed;
};

static struct {
    double steps[MOST][DIMENSIONS], phi[MOST * ITEMS], cosines[MOST * MOST];
    double loadings[MOST * MEED_CLIQUE_DIRECTIONS], deviations[MOST];
    bool null[MOST];
    int32_t directions;
} t;

static void direction_draw(struct meed_rng *rng, double *direction)
{
    for (int i = 0; i < DIMENSIONS; i++) {
        direction[i] = meed_rng_normal(rng) / sqrt(DIMENSIONS);
    }
}

static void mixture_draw(struct meed_rng *rng, const struct plan *plan, int32_t client,
                         double *mixture)
{
    double sum = 0.0;
    for (int d = 0; d < DOMAINS; d++) {
        double drawn = -log(1.0 - meed_rng_unit(rng)); /* evenly over all mixtures */
        mixture[d] = plan->specialists ? client % DOMAINS == d : drawn;
        sum += mixture[d];
    }
    for (int d = 0; d < DOMAINS; d++) {
        mixture[d] /= sum;
    }
}

static void cohort_make(const struct plan *plan)
{
    struct meed_rng rng = meed_rng_stream(plan->seed, "clique", 0);
    double shared[DIMENSIONS], domain[DOMAINS][DIMENSIONS], group[DIMENSIONS];
    double use[DOMAINS + 1][ITEMS], mixture[DOMAINS + 1];
    memset(&t, 0, sizeof t);
    direction_draw(&rng, shared);
    direction_draw(&rng, group);
    for (int d = 0; d <= DOMAINS; d++) {
        direction_draw(&rng, d < DOMAINS ? domain[d] : shared);
        for (int i = 0; i < ITEMS; i++) {
            use[d][i] = meed_rng_normal(&rng);
        }
    }
    for (int32_t k = 0; k < plan->clients; k++) {
        bool member = k < plan->group;
        mixture_draw(&rng, plan, k, mixture);
        mixture[DOMAINS] = member && plan->asked ? 0.5 : 0.0;
        for (int i = 0; i < DIMENSIONS; i++) {
            t.steps[k][i] = shared[i] + meed_rng_normal(&rng) / sqrt(DIMENSIONS);
            t.steps[k][i] += member ? plan->pull * group[i] : 0.0;
            for (int d = 0; d < DOMAINS; d++) {
                t.steps[k][i] += 1.2 * mixture[d] * domain[d][i];
            }
        }
        for (int i = 0; i < ITEMS; i++) {
            t.phi[k * ITEMS + i] = 1.0 + 0.5 * meed_rng_normal(&rng);
            for (int d = 0; d <= DOMAINS; d++) {
                t.phi[k * ITEMS + i] += mixture[d] * use[d][i];
            }
        }
    }
    for (int32_t x = 0; x < plan->clients; x++) {
        for (int32_t y = 0; y < plan->clients; y++) {
            double xy = 0, xx = 0, yy = 0;
            for (int i = 0; i < DIMENSIONS; i++) {
                xy += t.steps[x][i] * t.steps[y][i];
                xx += t.steps[x][i] * t.steps[x][i];
                yy += t.steps[y][i] * t.steps[y][i];
            }
            t.cosines[x * plan->clients + y] = xy / sqrt(xx * yy);
        }
    }
}

static void directions_find(const struct plan *plan)
{
    assert_int_equal(meed_clique_directions(t.cosines, plan->clients, t.loadings, &t.directions),
                     MEED_OK);
}

static void hidden_find(const struct plan *plan)
{
    struct meed_clique_cohort cohort = {.players = plan->clients,
                                        .items = ITEMS,
                                        .null = t.null,
                                        .loadings = t.loadings,
                                        .phi = t.phi};
    assert_int_equal(meed_clique_hidden(&cohort, t.deviations), MEED_OK);
}

static int32_t beyond(int32_t begin, int32_t end, double limit)
{
    int32_t count = 0;
    for (int32_t k = begin; k < end; k++) {
        count += t.deviations[k] >= limit ? 1 : 0;
    }
    return count;
}

/* ---- eigenvectors ---------------------------------------------------------------------------- */

static void largest_are_eigenvectors(void **state)
{
    /* Goal: M v = λ v to 3e-12 (‖M‖ is about 11), unit length, right angles, falling, the largest
     * entry positive, and the trace where all are asked for. */
    (void)state;
    enum { N = 30 };
    struct meed_rng rng = meed_rng_stream(1, "symmetric", 0);
    double matrix[N * N], work[N * N], values[N], vectors[N * N], trace = 0.0, sum = 0.0;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j <= i; j++) {
            matrix[i * N + j] = matrix[j * N + i] = meed_rng_normal(&rng);
        }
        trace += matrix[i * N + i];
    }
    for (int wanted = 1; wanted <= N; wanted += N - 1) {
        memcpy(work, matrix, sizeof work);
        assert_int_equal(meed_symmetric_largest(N, work, wanted, values, vectors), MEED_OK);
        for (int v = 0; v < wanted; v++) {
            const double *x = vectors + v * N;
            double most = 0.0;
            assert_true(v == 0 || values[v] <= values[v - 1]);
            for (int i = 0; i < N; i++) {
                double line = -values[v] * x[i];
                for (int j = 0; j < N; j++) {
                    line += matrix[i * N + j] * x[j];
                }
                assert_true(fabs(line) < 1e-13 * N);
                most = fabs(x[i]) > fabs(most) ? x[i] : most;
            }
            assert_true(most > 0.0);
            for (int w = 0; w <= v; w++) {
                double angle = 0.0;
                for (int i = 0; i < N; i++) {
                    angle += x[i] * vectors[w * N + i];
                }
                assert_true(fabs(angle - (v == w)) < 1e-12);
            }
        }
    }
    for (int v = 0; v < N; v++) {
        sum += values[v];
    }
    assert_true(fabs(sum - trace) < 1e-11);
    matrix[3] = NAN;
    assert_int_equal(meed_symmetric_largest(N, matrix, 1, values, vectors), MEED_NUMERIC);
}

/* ---- directions ------------------------------------------------------------------------------ */

static void noise_has_no_directions(void **state)
{
    /* Goal: steps of independent noise have a direction in at most one cohort of 50, at every size
     * from the least up. */
    (void)state;
    static const int32_t sizes[3] = {MEED_CLIQUE_LEAST, 40, MOST};
    for (int s = 0; s < 3; s++) {
        int32_t n = sizes[s], found = 0, cohorts = 100;
        struct meed_rng rng = meed_rng_stream(2, "noise", (uint64_t)n);
        for (int32_t c = 0; c < cohorts; c++) {
            for (int32_t i = 0; i < n; i++) {
                t.cosines[i * n + i] = 1.0;
                for (int32_t j = 0; j < i; j++) {
                    t.cosines[i * n + j] = t.cosines[j * n + i] =
                        0.3 + 0.05 * meed_rng_normal(&rng);
                }
            }
            struct plan plan = {.clients = n};
            directions_find(&plan);
            found += t.directions > 0 ? 1 : 0;
        }
        print_message("%d clients: %d of %d cohorts of noise have a direction\n", n, found,
                      cohorts);
        assert_true(50 * found <= cohorts);
    }
}

static void few_clients_have_no_directions(void **state)
{
    /* Goal: a group that stands out of a cohort of 20 is nothing in one of 19, where nobody is
     * apart either, and nothing where one of the 20 takes no part. */
    (void)state;
    for (int32_t n = MEED_CLIQUE_LEAST - 1; n <= MEED_CLIQUE_LEAST; n++) {
        struct plan plan = {.clients = n, .group = 5, .pull = 2.0, .seed = 3};
        cohort_make(&plan);
        directions_find(&plan);
        assert_int_equal(t.directions > 0, n == MEED_CLIQUE_LEAST);
        assert_int_equal(meed_clique_apart(t.loadings, n, t.directions, t.deviations), MEED_OK);
        assert_int_equal(beyond(0, n, 1e-9) > 0, n == MEED_CLIQUE_LEAST);
        hidden_find(&plan);
        assert_int_equal(beyond(0, 5, meed_spread_limit(n)) > 0, n == MEED_CLIQUE_LEAST);
        t.null[n - 1] = true;
        hidden_find(&plan);
        assert_int_equal(beyond(0, n, 1e-9), 0);
    }
}

/* ---- hidden directions ----------------------------------------------------------------------- */

static void honest_cohorts_hide_nothing(void **state)
{
    /* Goal: mixtures and specialists have directions, specialists even lie far apart on them, and
     * nobody is beyond the limit on a hidden one in any of 40 cohorts. */
    (void)state;
    int32_t apart = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct plan plan = {
            .clients = seed % 4 < 2 ? MOST : 40, .specialists = seed % 2 == 1, .seed = 100 + seed};
        cohort_make(&plan);
        directions_find(&plan);
        assert_true(t.directions >= 2);
        assert_int_equal(meed_clique_apart(t.loadings, plan.clients, t.directions, t.deviations),
                         MEED_OK);
        apart += beyond(0, plan.clients, meed_spread_limit(plan.clients));
        hidden_find(&plan);
        assert_int_equal(beyond(0, plan.clients, meed_spread_limit(plan.clients)), 0);
    }
    print_message("%d honest specialists apart by a useful direction\n", apart);
    assert_true(apart > 0);
}

static void groups_are_found_whole(void **state)
{
    /* Goal: of a hundred, groups of 10, 20 and 35 that pull as far as their noise does
     * at something of no use are all beyond the limit, and none of the others. */
    (void)state;
    static const int32_t groups[3] = {10, 20, 35};
    for (int g = 0; g < 3; g++) {
        for (uint64_t seed = 0; seed < 6; seed++) {
            struct plan plan = {.clients = MOST,
                                .group = groups[g],
                                .specialists = seed % 2 == 1,
                                .pull = 1.0,
                                .seed = 200 + seed};
            cohort_make(&plan);
            directions_find(&plan);
            hidden_find(&plan);
            assert_int_equal(beyond(0, groups[g], meed_spread_limit(MOST)), groups[g]);
            assert_int_equal(beyond(groups[g], MOST, meed_spread_limit(MOST)), 0);
        }
    }
}

static void use_clears_a_group(void **state)
{
    /* Goal: the same group is nobody's business where items depend on its direction. */
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        struct plan plan = {
            .clients = MOST, .group = 20, .asked = asked == 1, .pull = 0.8, .seed = 300};
        cohort_make(&plan);
        directions_find(&plan);
        hidden_find(&plan);
        assert_int_equal(beyond(0, 20, meed_spread_limit(MOST)), asked ? 0 : 20);
        assert_int_equal(beyond(20, MOST, meed_spread_limit(MOST)), 0);
    }
}

static void absent_clients_have_no_say(void **state)
{
    /* Goal: with clients taken out after the directions were found (some of the group, some of the
     * others, their values 0), those who are left are told apart as before. */
    (void)state;
    struct plan plan = {.clients = MOST, .group = 20, .pull = 0.8, .seed = 400};
    cohort_make(&plan);
    directions_find(&plan);
    for (int32_t k = 0; k < MOST; k += 3) {
        t.null[k] = true;
        memset(t.phi + k * ITEMS, 0, ITEMS * sizeof *t.phi);
    }
    hidden_find(&plan);
    for (int32_t k = 0; k < MOST; k++) {
        bool out = t.deviations[k] >= meed_spread_limit(66);
        assert_int_equal(out, k < 20 && !t.null[k]);
        assert_true(!t.null[k] || t.deviations[k] == 0.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(largest_are_eigenvectors),
        cmocka_unit_test(noise_has_no_directions),
        cmocka_unit_test(few_clients_have_no_directions),
        cmocka_unit_test(honest_cohorts_hide_nothing),
        cmocka_unit_test(groups_are_found_whole),
        cmocka_unit_test(use_clears_a_group),
        cmocka_unit_test(absent_clients_have_no_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
