/* Detectors against float64 on whole matrices, against permutation, and against attackers.
 *
 * Goal: every detector measures what detector.h says; who comes first changes no bit; attackers of
 * every kind stand out of cohorts of 10 and of 100 (AUROC of the anomaly score ≥ 0.95) while at
 * most 2 % of honest clients lose a round even if every detector excludes. Method: synthetic
 * cohorts (attacked_cohort.h); the references form ΔW and use textbook formulas (Gram–Schmidt for
 * the multiple correlation) where the code uses tables of products.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server/defence.h"
#include "tests/support/attacked_cohort.h"
#include "tests/support/dense_update.h"

enum { SMALL = 10, LARGE = 100, REFERENCE = 9 };

static struct meed_detector_report run(const struct attacked_cohort *cohort,
                                       struct meed_arena *arena)
{
    struct meed_detector_report report;
    assert_int_equal(meed_detector_run(cohort->global,
                                       (const struct meed_adapter *const *)cohort->clients,
                                       cohort->count, &cohort->past, NULL, arena, &report),
                     MEED_OK);
    return report;
}

static void arena_start(struct meed_arena *arena)
{
    meed_arena_init_growing(arena, "round", 256u << 20);
}

/* ---- references ------------------------------------------------------------------------------ */

static double *step_of(const struct meed_adapter *to, const struct meed_adapter *from)
{
    double *dense = dense_new(to);
    dense_add(to, 1.0, dense);
    dense_add(from, -1.0, dense);
    return dense;
}

static double cosine_of(const double *x, const double *y, int64_t n)
{
    return dense_dot(x, y, n) / sqrt(dense_dot(x, x, n) * dense_dot(y, y, n));
}

static void near_to(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("got %.17g, want %.17g", got, want);
    }
}

/* √(1 − ‖rest‖²/‖x‖²), the rest of step `at` outside the span of the others. */
static double multiple_correlation(double **steps, int32_t count, int32_t at, int64_t n)
{
    double *basis[REFERENCE], *rest = malloc((size_t)n * sizeof *rest);
    int32_t made = 0;
    for (int32_t j = 0; j <= count; j++) {
        if (j == at) {
            continue;
        }
        const double *from = j == count ? steps[at] : steps[j];
        double *v = j == count ? rest : malloc((size_t)n * sizeof *v);
        memcpy(v, from, (size_t)n * sizeof *v);
        for (int pass = 0; pass < 2; pass++) {
            for (int32_t b = 0; b < made; b++) {
                double dot = dense_dot(basis[b], v, n);
                for (int64_t i = 0; i < n; i++) {
                    v[i] -= dot * basis[b][i];
                }
            }
        }
        if (j < count) {
            double norm = sqrt(dense_dot(v, v, n));
            for (int64_t i = 0; i < n; i++) {
                v[i] /= norm;
            }
            basis[made++] = v;
        }
    }
    double share = dense_dot(rest, rest, n) / dense_dot(steps[at], steps[at], n);
    for (int32_t b = 0; b < made; b++) {
        free(basis[b]);
    }
    free(rest);
    return sqrt(1.0 - share);
}

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median_of(const double *values, int32_t count)
{
    double sorted[REFERENCE + 1];
    memcpy(sorted, values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, rising);
    return 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]);
}

/* The trimmed centre's members: those whose median cosine reaches the third lowest. */
static void find_core(double **steps, int32_t count, int64_t n, bool *core)
{
    double typical[REFERENCE], sorted[REFERENCE], others[REFERENCE];
    for (int32_t i = 0; i < count; i++) {
        int32_t k = 0;
        for (int32_t j = 0; j < count; j++) {
            if (j != i) {
                others[k++] = cosine_of(steps[i], steps[j], n);
            }
        }
        typical[i] = sorted[i] = median_of(others, k);
    }
    qsort(sorted, (size_t)count, sizeof *sorted, rising);
    for (int32_t i = 0; i < count; i++) {
        core[i] = typical[i] >= sorted[count * 4 / 10];
    }
}

/* Cosine of step i with the mean of the unit steps of the core, itself left out. */
static double direction_of(double **steps, const bool *core, int32_t count, int32_t at, int64_t n)
{
    double *centre = calloc((size_t)n, sizeof *centre);
    for (int32_t j = 0; j < count; j++) {
        double norm = sqrt(dense_dot(steps[j], steps[j], n));
        for (int64_t e = 0; e < n && j != at && core[j]; e++) {
            centre[e] += steps[j][e] / norm;
        }
    }
    double cosine = cosine_of(steps[at], centre, n);
    free(centre);
    return cosine;
}

/* The better of the cosines of A's and of B's change with the core's mean unit change, less the
 * direction. */
static double gap_of(const struct attacked_cohort *cohort, const bool *core, int32_t at,
                     double direction)
{
    double best = -1.0;
    int32_t count = cohort->count;
    int64_t values = meed_adapter_value_count(cohort->global), all = 0;
    for (int b = 0; b < 2; b++) {
        double *changes[REFERENCE] = {NULL}, *centre = calloc((size_t)values, sizeof *centre);
        for (int32_t i = 0; i < count; i++) {
            changes[i] = calloc((size_t)values, sizeof **changes);
            all = 0;
            for (int32_t m = 0; m < cohort->global->module_count; m++) {
                const struct meed_adapter_module *to = &cohort->clients[i]->modules[m];
                const struct meed_adapter_module *from = &cohort->global->modules[m];
                int64_t size = b ? to->n * to->r : to->r * to->k;
                for (int64_t e = 0; e < size; e++) {
                    changes[i][all++] =
                        b ? (double)to->b[e] - from->b[e] : (double)to->a[e] - from->a[e];
                }
            }
        }
        for (int32_t j = 0; j < count; j++) {
            double norm = sqrt(dense_dot(changes[j], changes[j], all));
            bool in_core = j != at && core[j] && norm > 0.0;
            for (int64_t e = 0; e < all && in_core; e++) {
                centre[e] += changes[j][e] / norm;
            }
        }
        double own = dense_dot(changes[at], changes[at], all);
        best = own > 0.0 ? fmax(best, cosine_of(changes[at], centre, all)) : best;
        for (int32_t i = 0; i < count; i++) {
            free(changes[i]);
        }
        free(centre);
    }
    return best - direction;
}

static double dispersion_of(const struct attacked_cohort *cohort, double **steps, int32_t at)
{
    double profile[REFERENCE][16], middle[16], column[REFERENCE], off[16], mean, sum = 0.0;
    int32_t modules = cohort->global->module_count;
    for (int32_t i = 0; i < cohort->count; i++) {
        const double *from = steps[i];
        mean = 0.0;
        for (int32_t m = 0; m < modules; m++) {
            int64_t size = cohort->global->modules[m].n * cohort->global->modules[m].k;
            profile[i][m] = log(sqrt(dense_dot(from, from, size) / (double)size));
            mean += profile[i][m] / modules;
            from += size;
        }
        for (int32_t m = 0; m < modules; m++) {
            profile[i][m] -= mean;
        }
    }
    mean = 0.0;
    for (int32_t m = 0; m < modules; m++) {
        for (int32_t i = 0; i < cohort->count; i++) {
            column[i] = profile[i][m];
        }
        middle[m] = median_of(column, cohort->count);
        off[m] = profile[at][m] - middle[m];
        mean += off[m] / modules;
    }
    for (int32_t m = 0; m < modules; m++) {
        sum += (off[m] - mean) * (off[m] - mean);
    }
    return sqrt(sum / (modules - 1));
}

static void detector_measures_what_it_says(void **state)
{
    (void)state;
    struct attacked_cohort cohort = attacked_cohort_make(ATTACKED_SCALE, REFERENCE, 7);
    struct meed_arena arena;
    arena_start(&arena);
    struct meed_detector_report report = run(&cohort, &arena);
    int64_t n = dense_count(cohort.global);
    double *steps[REFERENCE], norms[REFERENCE], *last = step_of(cohort.global, cohort.base);
    for (int32_t i = 0; i < REFERENCE; i++) {
        steps[i] = step_of(cohort.clients[i], cohort.global);
        norms[i] = sqrt(dense_dot(steps[i], steps[i], n));
    }
    bool core[REFERENCE];
    find_core(steps, REFERENCE, n, core);
    for (int32_t i = 0; i < REFERENCE; i++) {
        double direction = direction_of(steps, core, REFERENCE, i, n);
        const double *value = report.clients[i].value;
        double nearest = -1.0;
        for (int32_t j = 0; j < REFERENCE; j++) {
            double cosine = cosine_of(steps[i], steps[j], n);
            near_to(report.cosines[i * REFERENCE + j], cosine, 1e-11);
            nearest = j == i ? nearest : fmax(nearest, cosine);
        }
        near_to(report.clients[i].norm, norms[i], 1e-11 * norms[i]);
        near_to(value[MEED_DETECTOR_NORM], norms[i] / median_of(norms, REFERENCE), 1e-10);
        near_to(value[MEED_DETECTOR_REPLAY], fmax(cosine_of(steps[i], last, n), 0.0), 1e-11);
        near_to(value[MEED_DETECTOR_DUPLICATE], nearest, 1e-11);
        near_to(value[MEED_DETECTOR_SPAN], multiple_correlation(steps, REFERENCE, i, n), 1e-8);
        near_to(value[MEED_DETECTOR_DIRECTION], direction, 1e-11);
        near_to(value[MEED_DETECTOR_GAP], gap_of(&cohort, core, i, direction), 1e-11);
        near_to(value[MEED_DETECTOR_DISPERSION], dispersion_of(&cohort, steps, i), 1e-9);
    }
    for (int32_t i = 0; i < REFERENCE; i++) {
        free(steps[i]);
    }
    free(last);
    meed_arena_clear(&arena);
    attacked_cohort_free(&cohort);
}

/* A split: the third client's step is the sum of halves of the first two. Its parts and itself have
 * multiple correlation 1, the others not. */
static void detector_sees_a_split(void **state)
{
    (void)state;
    struct attacked_cohort cohort = attacked_cohort_make(ATTACKED_NONE, SMALL, 11);
    for (int32_t m = 0; m < cohort.global->module_count; m++) {
        const struct meed_adapter_module *g = &cohort.global->modules[m];
        for (int c = 0; c < 3; c++) { /* A fixed, so that ΔW is linear in B */
            memcpy(cohort.clients[c]->modules[m].a, g->a, (size_t)(g->r * g->k) * sizeof *g->a);
        }
        for (int64_t i = 0; i < g->n * g->r; i++) {
            float first = cohort.clients[0]->modules[m].b[i] - g->b[i];
            float second = cohort.clients[1]->modules[m].b[i] - g->b[i];
            cohort.clients[2]->modules[m].b[i] = g->b[i] + 0.5f * (first + second);
        }
    }
    struct meed_arena arena;
    arena_start(&arena);
    struct meed_detector_report report = run(&cohort, &arena);
    for (int32_t i = 0; i < SMALL; i++) {
        assert_true((report.clients[i].ratio[MEED_DETECTOR_SPAN] >= 1.0) == (i < 3));
    }
    meed_arena_clear(&arena);
    attacked_cohort_free(&cohort);
}

/* Every order of arrival gives the same bits, copies and idle clients included. */
static void detector_is_blind_to_order(void **state)
{
    (void)state;
    struct attacked_cohort cohort = attacked_cohort_make(ATTACKED_GAP, SMALL, 5);
    struct meed_adapter *idle = cohort.clients[1], *copy = cohort.clients[4], *kept[SMALL];
    assert_int_equal(meed_adapter_clone(cohort.global, &cohort.clients[1]), MEED_OK);
    assert_int_equal(meed_adapter_clone(cohort.clients[0], &cohort.clients[4]), MEED_OK);
    meed_adapter_destroy(idle);
    meed_adapter_destroy(copy);
    struct meed_arena arena, again;
    arena_start(&arena);
    arena_start(&again);
    struct meed_detector_report first = run(&cohort, &arena);
    memcpy(kept, cohort.clients, sizeof kept);
    for (int32_t i = 0; i < SMALL; i++) {
        cohort.clients[(7 * i + 3) % SMALL] = kept[i];
    }
    struct meed_detector_report second = run(&cohort, &again);
    for (int32_t i = 0; i < SMALL; i++) {
        assert_memory_equal(&first.clients[i], &second.clients[(7 * i + 3) % SMALL],
                            sizeof first.clients[i]);
    }
    assert_true(first.clients[1].ratio[MEED_DETECTOR_IDLE] == 1.0);
    meed_arena_clear(&arena);
    meed_arena_clear(&again);
    attacked_cohort_free(&cohort);
}

/* ---- attackers ------------------------------------------------------------------------------- */

static double auroc(const struct meed_detector_report *report, const bool *attacker)
{
    double wins = 0.0, pairs = 0.0;
    for (int32_t i = 0; i < report->count; i++) {
        for (int32_t j = 0; j < report->count; j++) {
            if (attacker[i] && !attacker[j]) {
                double x = report->clients[i].score, y = report->clients[j].score;
                wins += x > y ? 1.0 : x == y ? 0.5 : 0.0;
                pairs += 1.0;
            }
        }
    }
    return wins / pairs;
}

static void attackers_stand_out(int32_t count, int seeds)
{
    for (enum attacked_kind kind = ATTACKED_FLIP; kind < ATTACKED_COUNT; kind++) {
        double worst = 1.0, mean = 0.0;
        for (int seed = 0; seed < seeds; seed++) {
            struct attacked_cohort cohort =
                attacked_cohort_make(kind, count, (uint64_t)(100 * count + seed));
            struct meed_arena arena;
            arena_start(&arena);
            struct meed_detector_report report = run(&cohort, &arena);
            double area = auroc(&report, cohort.attacker);
            worst = fmin(worst, area);
            mean += area / seeds;
            meed_arena_clear(&arena);
            attacked_cohort_free(&cohort);
        }
        printf("%-9s n %3d: AUROC mean %.4f worst of %d seeds %.4f\n", attacked_cohort_name(kind),
               count, mean, seeds, worst);
        assert_true(mean >= 0.95);
    }
}

static void attackers_stand_out_of_ten(void **state)
{
    (void)state;
    attackers_stand_out(SMALL, 10);
}

static void attackers_stand_out_of_a_hundred(void **state)
{
    (void)state;
    attackers_stand_out(LARGE, 2);
}

/* With every detector that may exclude set to exclude. */
static void honest_clients_keep_their_round(int32_t count, int seeds, enum attacked_kind kind)
{
    struct meed_defence_options options = {.clip_multiple = 3.0};
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        options.actions[d] = d == MEED_DETECTOR_SPAN ? MEED_DEFENCE_REMARK : MEED_DEFENCE_REFUSE;
    }
    assert_int_equal(meed_defence_check(&options), MEED_OK);
    const char **names = calloc((size_t)count, sizeof *names);
    struct meed_defence_client *verdicts = calloc((size_t)count, sizeof *verdicts);
    int32_t honest = 0, lost = 0, caught = 0, attackers = 0;
    for (int seed = 0; seed < seeds; seed++) {
        struct attacked_cohort cohort =
            attacked_cohort_make(kind, count, (uint64_t)(7000 + 100 * count + seed));
        for (int32_t i = 0; i < count; i++) {
            names[i] = "someone";
        }
        assert_int_equal(meed_defence_screen(cohort.global,
                                             (const struct meed_adapter *const *)cohort.clients,
                                             names, count, &cohort.past, &options, NULL, verdicts),
                         MEED_OK);
        for (int32_t i = 0; i < count; i++) {
            bool out = verdicts[i].verdict == MEED_DEFENCE_EXCLUDE;
            honest += !cohort.attacker[i];
            attackers += cohort.attacker[i];
            lost += out && !cohort.attacker[i];
            caught += out && cohort.attacker[i];
        }
        attacked_cohort_free(&cohort);
    }
    printf("%-9s n %3d: %d of %d honest excluded, %d of %d attackers\n", attacked_cohort_name(kind),
           count, lost, honest, caught, attackers);
    assert_true(50 * lost <= honest);
    free(names);
    free(verdicts);
}

static void honest_clients_are_rarely_excluded(void **state)
{
    (void)state;
    honest_clients_keep_their_round(SMALL, 40, ATTACKED_NONE);
    honest_clients_keep_their_round(SMALL, 20, ATTACKED_FLIP);
    honest_clients_keep_their_round(SMALL, 20, ATTACKED_DUPLICATE);
    honest_clients_keep_their_round(LARGE, 2, ATTACKED_NONE);
    honest_clients_keep_their_round(LARGE, 1, ATTACKED_RANDOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detector_measures_what_it_says),
        cmocka_unit_test(detector_sees_a_split),
        cmocka_unit_test(detector_is_blind_to_order),
        cmocka_unit_test(attackers_stand_out_of_ten),
        cmocka_unit_test(attackers_stand_out_of_a_hundred),
        cmocka_unit_test(honest_clients_are_rarely_excluded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
