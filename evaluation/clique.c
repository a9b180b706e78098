/* See clique.h. */
#include "evaluation/clique.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "engine/symmetric.h"
#include "evaluation/spread.h"

enum { NOISE_LEAST = 8 };                /* dimensions outside the span, to know noise by */
static const double tracy_widom = 1.64;  /* half of the 99.9 % quantile for symmetric noise */
static const double normal_mad = 1.4826; /* deviation of a normal over its median deviation */
static const double hidden_effect = 3.0;
/* Of 1/√n, the size of a loading: below it differences mean nothing. */
static const double floor_loading = 0.05;
static const double smallest_column = 1e-6;

/* ---- directions ------------------------------------------------------------------------------
 */

/* centred ← HCH. */
static void centre(const double *cosines, int64_t n, double *means, double *centred)
{
    double all = 0.0;
    for (int64_t i = 0; i < n; i++) {
        means[i] = 0.0;
        for (int64_t j = 0; j < n; j++) {
            means[i] += cosines[i * n + j] / (double)n;
        }
        all += means[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            centred[i * n + j] = cosines[i * n + j] - means[i] - means[j] + all;
        }
    }
}

/* scratch [n (n − 1)/2]. */
static double spectrum_end(const double *centred, int64_t n, double *scratch)
{
    double diagonal = 0.0;
    int64_t beside = 0;
    for (int64_t i = 0; i < n; i++) {
        diagonal += centred[i * n + i] / (double)n;
        for (int64_t j = 0; j < i; j++) {
            scratch[beside++] = centred[i * n + j];
        }
    }
    double middle = meed_median(scratch, beside);
    for (int64_t i = 0; i < beside; i++) {
        scratch[i] = fabs(scratch[i] - middle);
    }
    double sigma = normal_mad * meed_median(scratch, beside), size = (double)n;
    return diagonal + 2.0 * sigma * sqrt(size) * (1.0 + tracy_widom * pow(size, -2.0 / 3.0));
}

enum meed_status meed_clique_directions(const double *cosines, int32_t clients, double *loadings,
                                        int32_t *count)
{
    enum meed_status st = MEED_OK;
    double values[MEED_CLIQUE_DIRECTIONS];
    size_t n = (size_t)clients;
    double *centred = NULL, *scratch = NULL, *vectors = NULL;
    *count = 0;
    memset(loadings, 0, n * MEED_CLIQUE_DIRECTIONS * sizeof *loadings);
    if (clients < MEED_CLIQUE_LEAST) {
        return MEED_OK;
    }
    centred = meed_heap_alloc(n * n, sizeof *centred);
    scratch = meed_heap_alloc(n * n, sizeof *scratch);
    vectors = meed_heap_alloc(n * MEED_CLIQUE_DIRECTIONS, sizeof *vectors);
    if (!centred || !scratch || !vectors) {
        st = MEED_NOMEM;
        goto out;
    }
    centre(cosines, clients, scratch, centred);
    double end = spectrum_end(centred, clients, scratch);
    MEED_TRY_OUT(meed_symmetric_largest(clients, centred, MEED_CLIQUE_DIRECTIONS, values, vectors));
    while (*count < MEED_CLIQUE_DIRECTIONS && values[*count] > end) {
        for (size_t i = 0; i < n; i++) {
            loadings[i * MEED_CLIQUE_DIRECTIONS + (size_t)*count] = vectors[(size_t)*count * n + i];
        }
        ++*count;
    }
out:
    meed_heap_free(centred);
    meed_heap_free(scratch);
    meed_heap_free(vectors);
    return st;
}

/* ---- members --------------------------------------------------------------------------------- */

/* Raises deviations [n] to those of column [n]; scratch [n]. */
static void raise_apart(const double *column, int32_t n, double *scratch, double *deviations)
{
    memcpy(scratch, column, (size_t)n * sizeof *scratch);
    struct meed_spread spread = meed_spread_of(scratch, n);
    double scale = fmax(spread.deviation, floor_loading / sqrt((double)n));
    for (int32_t i = 0; i < n; i++) {
        deviations[i] = fmax(deviations[i], fabs(column[i] - spread.middle) / scale);
    }
}

enum meed_status meed_clique_apart(const double *loadings, int32_t clients, int32_t count,
                                   double *deviations)
{
    double *column = meed_heap_alloc(2 * (size_t)clients, sizeof *column);
    if (!column) {
        return MEED_NOMEM;
    }
    memset(deviations, 0, (size_t)clients * sizeof *deviations);
    for (int32_t d = 0; d < count; d++) {
        for (int32_t i = 0; i < clients; i++) {
            column[i] = loadings[(int64_t)i * MEED_CLIQUE_DIRECTIONS + d];
        }
        raise_apart(column, clients, column + clients, deviations);
    }
    meed_heap_free(column);
    return MEED_OK;
}

/* ---- hidden directions ----------------------------------------------------------------------- */

struct search {
    const struct meed_clique_cohort *cohort;
    int32_t *seat; /* [present] of a player */
    int32_t present, directions;
    double *axes;                  /* [directions, present] orthonormal, of mean 0 */
    double *line, *scratch, *most; /* [present] */
    double effects[MEED_CLIQUE_DIRECTIONS * MEED_CLIQUE_DIRECTIONS]; /* AᵀPPᵀA */
    double outside; /* mean effect of a dimension outside the span; 0: not known */
};

static void search_clear(struct search *s)
{
    meed_heap_free(s->seat);
    meed_heap_free(s->axes);
}

static enum meed_status search_init(const struct meed_clique_cohort *cohort, struct search *s)
{
    size_t players = (size_t)cohort->players;
    *s = (struct search){.cohort = cohort};
    s->seat = meed_heap_alloc(players, sizeof *s->seat);
    s->axes = meed_heap_alloc(players * (MEED_CLIQUE_DIRECTIONS + 3), sizeof *s->axes);
    if (!s->seat || !s->axes) {
        return MEED_NOMEM;
    }
    s->line = s->axes + players * MEED_CLIQUE_DIRECTIONS;
    s->scratch = s->line + players;
    s->most = s->scratch + players;
    for (int32_t k = 0; k < cohort->players; k++) {
        if (!cohort->null[k]) {
            s->seat[s->present++] = k;
        }
    }
    return MEED_OK;
}

static double product(const double *x, const double *y, int32_t count)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* Takes the mean off and returns the sum of squares. */
static double mean_off(double *values, int32_t count)
{
    double mean = 0.0;
    for (int32_t i = 0; i < count; i++) {
        mean += values[i] / count;
    }
    for (int32_t i = 0; i < count; i++) {
        values[i] -= mean;
    }
    return product(values, values, count);
}

/* An orthonormal base of the loadings of those who are present (Gram and Schmidt): screening may
 * have taken clients out since the loadings were found. */
static void axes_fill(struct search *s)
{
    for (int32_t d = 0; d < MEED_CLIQUE_DIRECTIONS; d++) {
        double *axis = s->axes + (int64_t)s->directions * s->present;
        for (int32_t i = 0; i < s->present; i++) {
            axis[i] = s->cohort->loadings[(int64_t)s->seat[i] * MEED_CLIQUE_DIRECTIONS + d];
        }
        double square = mean_off(axis, s->present);
        for (int32_t before = 0; before < s->directions; before++) {
            const double *other = s->axes + (int64_t)before * s->present;
            double along = product(axis, other, s->present);
            for (int32_t i = 0; i < s->present; i++) {
                axis[i] -= along * other[i];
            }
            square = product(axis, axis, s->present);
        }
        for (int32_t i = 0; square > smallest_column && i < s->present; i++) {
            axis[i] /= sqrt(square);
        }
        s->directions += square > smallest_column ? 1 : 0;
    }
}

static void effects_measure(struct search *s)
{
    double along[MEED_CLIQUE_DIRECTIONS], inside = 0.0;
    int32_t varying = 0, rest = s->present - 1 - s->directions;
    memset(s->effects, 0, sizeof s->effects);
    for (int32_t item = 0; item < s->cohort->items; item++) {
        for (int32_t i = 0; i < s->present; i++) {
            s->line[i] = s->cohort->phi[(int64_t)s->seat[i] * s->cohort->items + item];
        }
        double square = mean_off(s->line, s->present);
        if (!(square > 0.0) || !isfinite(square)) {
            continue;
        }
        varying++;
        for (int32_t d = 0; d < s->directions; d++) {
            along[d] =
                product(s->line, s->axes + (int64_t)d * s->present, s->present) / sqrt(square);
            inside += along[d] * along[d];
        }
        for (int32_t d = 0; d < s->directions; d++) {
            for (int32_t e = 0; e < s->directions; e++) {
                s->effects[d * s->directions + e] += along[d] * along[e];
            }
        }
    }
    s->outside = rest >= NOISE_LEAST ? (varying - inside) / rest : 0.0;
}

static enum meed_status hidden_find(struct search *s, double *deviations)
{
    double effects[MEED_CLIQUE_DIRECTIONS];
    double vectors[MEED_CLIQUE_DIRECTIONS * MEED_CLIQUE_DIRECTIONS];
    axes_fill(s);
    if (s->directions == 0) {
        return MEED_OK;
    }
    effects_measure(s);
    MEED_TRY(meed_symmetric_largest(s->directions, s->effects, s->directions, effects, vectors));
    memset(s->most, 0, (size_t)s->present * sizeof *s->most);
    for (int32_t d = 0; d < s->directions; d++) {
        if (!(effects[d] < hidden_effect * s->outside)) {
            continue;
        }
        memset(s->line, 0, (size_t)s->present * sizeof *s->line);
        for (int32_t e = 0; e < s->directions; e++) {
            double weight = vectors[d * s->directions + e];
            for (int32_t i = 0; i < s->present; i++) {
                s->line[i] += weight * s->axes[(int64_t)e * s->present + i];
            }
        }
        raise_apart(s->line, s->present, s->scratch, s->most);
    }
    for (int32_t i = 0; i < s->present; i++) {
        deviations[s->seat[i]] = s->most[i];
    }
    return MEED_OK;
}

enum meed_status meed_clique_hidden(const struct meed_clique_cohort *cohort, double *deviations)
{
    struct search s;
    memset(deviations, 0, (size_t)cohort->players * sizeof *deviations);
    enum meed_status st = search_init(cohort, &s);
    if (st == MEED_OK && s.present >= MEED_CLIQUE_LEAST) {
        st = hidden_find(&s, deviations);
    }
    search_clear(&s);
    return st;
}
