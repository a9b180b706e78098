/* See detector.h. */
#include "server/detector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "evaluation/spread.h"
#include "server/detector_private.h"

enum { COHORT_LEAST = 6 }; /* moving clients, to be judged by */
static const double core_share = 0.6;
static const double floor_norm = 0.1, floor_profile = 0.05, floor_cosine = 0.02;
static const double unlike_scale = 4.0;
static const double cosine_most = 1.0 - 1e-12; /* keeps atanh finite */

static const char *const names[MEED_DETECTOR_COUNT] = {
    [MEED_DETECTOR_IDLE] = "idle",           [MEED_DETECTOR_NORM] = "norm",
    [MEED_DETECTOR_REPLAY] = "replay",       [MEED_DETECTOR_DUPLICATE] = "duplicate",
    [MEED_DETECTOR_SPAN] = "span",           [MEED_DETECTOR_DISPERSION] = "dispersion",
    [MEED_DETECTOR_DIRECTION] = "direction", [MEED_DETECTOR_GAP] = "gap",
    [MEED_DETECTOR_UNLIKE] = "unlike",       [MEED_DETECTOR_CLIQUE] = "clique"};

const char *meed_detector_name(enum meed_detector detector)
{
    return detector >= 0 && detector < MEED_DETECTOR_COUNT ? names[detector] : "?";
}

/* ---- robust scale ----------------------------------------------------------------------------
 */

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* z/T(n) of each value against the cohort; 0 for cohorts that are too small. */
static void standardise(struct meed_detector_cohort *cohort, const double *values, double floor,
                        double *ratios)
{
    int32_t n = cohort->count;
    if (n < COHORT_LEAST) {
        memset(ratios, 0, (size_t)n * sizeof *ratios);
        return;
    }
    memcpy(cohort->scratch, values, (size_t)n * sizeof *values);
    struct meed_spread spread = meed_spread_of(cohort->scratch, n);
    double scale = fmax(spread.deviation, floor);
    for (int32_t i = 0; i < n; i++) {
        ratios[i] = (values[i] - spread.middle) / (scale * meed_spread_limit(n));
    }
}

/* ---- the cohort ------------------------------------------------------------------------------
 */

static int compare_bytes(const struct meed_adapter *x, const struct meed_adapter *y)
{
    int order = 0;
    for (int32_t m = 0; m < x->module_count && order == 0; m++) {
        const struct meed_adapter_module *left = &x->modules[m], *right = &y->modules[m];
        order = memcmp(left->b, right->b, (size_t)(left->n * left->r) * sizeof *left->b);
        order = order ? order
                      : memcmp(left->a, right->a, (size_t)(left->r * left->k) * sizeof *left->a);
    }
    return order;
}

struct seat {
    const struct meed_adapter *adapter;
    int32_t origin;
};

static int seat_order(const void *x, const void *y)
{
    return compare_bytes(((const struct seat *)x)->adapter, ((const struct seat *)y)->adapter);
}

static enum meed_status doubles(struct meed_arena *arena, int64_t count, double **block)
{
    void *made = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)count + 1, sizeof **block, &made));
    *block = made;
    return MEED_OK;
}

/* Clients that are there, in the order of their bytes, and the products of their steps. */
static enum meed_status gather(struct meed_detector_cohort *cohort,
                               const struct meed_adapter *const *clients, int32_t count,
                               const struct meed_step_past *past, struct meed_pool *pool,
                               struct meed_arena *arena)
{
    void *seats_block = NULL, *clients_block = NULL, *origin_block = NULL, *core_block = NULL;
    size_t room = (size_t)count + 1;
    MEED_TRY(meed_arena_alloc_array(arena, room, sizeof(struct seat), &seats_block));
    MEED_TRY(meed_arena_alloc_array(arena, room, sizeof *cohort->clients, &clients_block));
    MEED_TRY(meed_arena_alloc_array(arena, room, sizeof *cohort->origin, &origin_block));
    MEED_TRY(meed_arena_alloc_array(arena, room, sizeof *cohort->core, &core_block));
    struct seat *seats = seats_block;
    for (int32_t i = 0; i < count; i++) {
        if (clients[i]) {
            seats[cohort->count++] = (struct seat){clients[i], i};
        }
    }
    qsort(seats, (size_t)cohort->count, sizeof *seats, seat_order);
    cohort->clients = clients_block;
    cohort->origin = origin_block;
    cohort->core = core_block;
    for (int32_t i = 0; i < cohort->count; i++) {
        cohort->clients[i] = seats[i].adapter;
        cohort->origin[i] = seats[i].origin;
    }
    return meed_step_products_measure(cohort->global, cohort->clients, cohort->count, past, pool,
                                      arena, &cohort->products);
}

static double square_of(const struct meed_step_products *products, int32_t i)
{
    return products->gram[(int64_t)i * products->count + i];
}

/* Leaves the moving clients alone in the cohort and its products; notes norms of all. */
static void keep_moving(struct meed_detector_cohort *cohort, struct meed_detector_report *report)
{
    struct meed_step_products *products = &cohort->products;
    int32_t all = products->count, kept = 0;
    int32_t *from = cohort->origin;
    double *gram = products->gram;
    for (int32_t i = 0; i < all; i++) {
        struct meed_detector_client *client = &report->clients[from[i]];
        double norm = sqrt(fmax(square_of(products, i), 0.0));
        client->overflows = !isfinite(square_of(products, i));
        client->moves = !client->overflows && norm > 0.0;
        client->norm = client->moves ? norm : 0.0;
        cohort->core[i] = client->moves;
    }
    for (int32_t i = 0; i < all; i++) {
        if (!cohort->core[i]) {
            continue;
        }
        int32_t columns = 0;
        for (int32_t j = 0; j < all; j++) {
            if (cohort->core[j]) {
                gram[(int64_t)kept * all + columns++] = gram[(int64_t)i * all + j];
            }
        }
        memmove(products->with_past + (int64_t)kept * products->past,
                products->with_past + (int64_t)i * products->past,
                (size_t)products->past * sizeof(double));
        memmove(products->by_module + (int64_t)kept * products->modules,
                products->by_module + (int64_t)i * products->modules,
                (size_t)products->modules * sizeof(double));
        cohort->clients[kept] = cohort->clients[i];
        from[kept++] = from[i];
    }
    for (int32_t i = 0; i < kept; i++) {
        memmove(gram + (int64_t)i * kept, gram + (int64_t)i * all, (size_t)kept * sizeof *gram);
    }
    products->count = cohort->count = report->moving = kept;
}

static double norm_of(const struct meed_detector_cohort *cohort, int32_t i)
{
    return sqrt(square_of(&cohort->products, i));
}

static void fill_cosines(struct meed_detector_cohort *cohort, struct meed_detector_report *report)
{
    int64_t n = cohort->count;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < n; j++) {
            double cosine =
                cohort->products.gram[i * n + j] / (norm_of(cohort, i) * norm_of(cohort, j));
            cosine = i == j ? 1.0 : cosine;
            cohort->cosines[i * n + j] = cosine;
            report->cosines[(int64_t)cohort->origin[i] * report->count + cohort->origin[j]] =
                cosine;
        }
    }
}

/* ---- detectors -------------------------------------------------------------------------------
 */

static void give(const struct meed_detector_cohort *cohort, struct meed_detector_report *report,
                 enum meed_detector detector, const double *values, const double *ratios)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        struct meed_detector_client *client = &report->clients[cohort->origin[i]];
        client->value[detector] = values[i];
        client->ratio[detector] = fmax(ratios[i], 0.0);
    }
}

static void detect_norm(struct meed_detector_cohort *cohort, struct meed_detector_report *report,
                        double *values, double *ratios)
{
    int32_t n = cohort->count;
    for (int32_t i = 0; i < n; i++) {
        cohort->scratch[i] = norm_of(cohort, i);
        values[i] = log(norm_of(cohort, i));
    }
    report->median_norm = meed_median(cohort->scratch, n);
    standardise(cohort, values, floor_norm, ratios);
    for (int32_t i = 0; i < n; i++) {
        values[i] = norm_of(cohort, i) / report->median_norm;
        ratios[i] = fabs(ratios[i]);
    }
    give(cohort, report, MEED_DETECTOR_NORM, values, ratios);
}

static double likeness(double cosine)
{
    return atanh(fmin(fmax(cosine, 0.0), cosine_most));
}

/* By itself, and from NEAR on against the cohort. values: cosines. other [count]: scratch. */
static void judge_likeness(struct meed_detector_cohort *cohort, const double *values, double *other,
                           double *ratios)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        other[i] = likeness(values[i]);
    }
    standardise(cohort, other, floor_norm, ratios);
    for (int32_t i = 0; i < cohort->count; i++) {
        double alone = other[i] / likeness(MEED_DETECTOR_SAME);
        ratios[i] = fmax(alone, values[i] > MEED_DETECTOR_NEAR ? ratios[i] : 0.0);
    }
}

static void detect_replay(struct meed_detector_cohort *cohort, struct meed_detector_report *report,
                          double *values, double *ratios, double *other)
{
    const struct meed_step_products *products = &cohort->products;
    for (int32_t i = 0; i < cohort->count; i++) {
        values[i] = 0.0;
        for (int32_t j = 0; j < products->past; j++) {
            double norm = products->past_norms[j] * norm_of(cohort, i);
            double with = products->with_past[(int64_t)i * products->past + j];
            if (norm > 0.0 && isfinite(norm) && with / norm > values[i]) {
                values[i] = with / norm;
                report->clients[cohort->origin[i]].past_idx = j;
            }
        }
    }
    judge_likeness(cohort, values, other, ratios);
    give(cohort, report, MEED_DETECTOR_REPLAY, values, ratios);
}

static void detect_duplicate(struct meed_detector_cohort *cohort,
                             struct meed_detector_report *report, double *values, double *ratios,
                             double *other)
{
    int64_t n = cohort->count;
    for (int32_t i = 0; i < n; i++) {
        values[i] = 0.0;
        for (int32_t j = 0; j < n; j++) {
            values[i] = i == j ? values[i] : fmax(values[i], cohort->cosines[i * n + j]);
        }
    }
    judge_likeness(cohort, values, other, ratios);
    give(cohort, report, MEED_DETECTOR_DUPLICATE, values, ratios);
}

/* The Cholesky factor of C + 1e-10, row by row, then its inverse; diag(C⁻¹)_i = Σ_k (L⁻¹)_ki². */
static enum meed_status detect_span(struct meed_detector_cohort *cohort,
                                    struct meed_detector_report *report, struct meed_arena *arena,
                                    double *values, double *ratios)
{
    static const double ridge = 1e-10;
    int64_t n = cohort->count;
    double *l = NULL, *inverse = NULL;
    MEED_TRY(doubles(arena, n * n, &l));
    MEED_TRY(doubles(arena, n * n, &inverse));
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = cohort->cosines[i * n + j] + (i == j ? ridge : 0.0);
            for (int64_t k = 0; k < j; k++) {
                sum -= l[i * n + k] * l[j * n + k];
            }
            l[i * n + j] = i == j ? sqrt(fmax(sum, ridge)) : sum / l[j * n + j];
        }
    }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = j; i < n; i++) {
            double sum = i == j ? 1.0 : 0.0;
            for (int64_t k = j; k < i; k++) {
                sum -= l[i * n + k] * inverse[k * n + j];
            }
            inverse[i * n + j] = sum / l[i * n + i];
        }
    }
    for (int64_t i = 0; i < n; i++) {
        double diagonal = 0.0;
        for (int64_t k = i; k < n; k++) {
            diagonal += inverse[k * n + i] * inverse[k * n + i];
        }
        values[i] = sqrt(fmax(1.0 - 1.0 / diagonal, 0.0));
        ratios[i] = likeness(values[i]) / likeness(MEED_DETECTOR_SAME);
    }
    give(cohort, report, MEED_DETECTOR_SPAN, values, ratios);
    return MEED_OK;
}

/* log ‖D_im‖/√(N_m K_m) less its mean over modules. A module that stands still counts as one in a
 * million of the step. */
static void fill_profile(const struct meed_detector_cohort *cohort, int32_t i, double *profile)
{
    const struct meed_step_products *products = &cohort->products;
    int32_t modules = products->modules;
    double mean = 0.0, least = 1e-12 * square_of(products, i);
    for (int32_t m = 0; m < modules; m++) {
        const struct meed_adapter_module *module = &cohort->global->modules[m];
        double square = fmax(products->by_module[(int64_t)i * modules + m], least);
        profile[m] = 0.5 * log(square / ((double)module->n * (double)module->k));
        mean += profile[m] / modules;
    }
    for (int32_t m = 0; m < modules; m++) {
        profile[m] -= mean;
    }
}

static enum meed_status detect_dispersion(struct meed_detector_cohort *cohort,
                                          struct meed_detector_report *report,
                                          struct meed_arena *arena, double *values, double *ratios)
{
    int32_t n = cohort->count, modules = cohort->products.modules;
    double *profiles = NULL, *middle = NULL;
    MEED_TRY(doubles(arena, (int64_t)n * modules, &profiles));
    MEED_TRY(doubles(arena, modules, &middle));
    for (int32_t i = 0; i < n; i++) {
        fill_profile(cohort, i, profiles + (int64_t)i * modules);
    }
    for (int32_t m = 0; m < modules; m++) {
        for (int32_t i = 0; i < n; i++) {
            cohort->scratch[i] = profiles[(int64_t)i * modules + m];
        }
        middle[m] = meed_median(cohort->scratch, n);
    }
    for (int32_t i = 0; i < n; i++) {
        double mean = 0.0, spread = 0.0;
        const double *own = profiles + (int64_t)i * modules;
        for (int32_t m = 0; m < modules; m++) {
            mean += (own[m] - middle[m]) / modules;
        }
        for (int32_t m = 0; m < modules; m++) {
            double off = own[m] - middle[m] - mean;
            spread += off * off;
        }
        values[i] = modules > 1 ? sqrt(spread / (modules - 1)) : 0.0;
    }
    standardise(cohort, values, floor_profile, ratios);
    give(cohort, report, MEED_DETECTOR_DISPERSION, values, ratios);
    return MEED_OK;
}

double meed_detector_centre_cosine(double with, double square, bool own)
{
    double rest = own ? square - 2.0 * with + 1.0 : square;
    return rest > 1e-12 ? (with - (own ? 1.0 : 0.0)) / sqrt(rest) : 0.0;
}

/* The core: everybody whose median cosine to the others reaches the quantile. */
static void trim(struct meed_detector_cohort *cohort, double *typical)
{
    int64_t n = cohort->count;
    for (int32_t i = 0; i < n; i++) {
        int32_t others = 0;
        for (int32_t j = 0; j < n; j++) {
            if (j != i) {
                cohort->scratch[others++] = cohort->cosines[i * n + j];
            }
        }
        typical[i] = meed_median(cohort->scratch, others);
    }
    memcpy(cohort->scratch, typical, (size_t)n * sizeof *typical);
    qsort(cohort->scratch, (size_t)n, sizeof *typical, rising);
    int32_t out = (int32_t)((1.0 - core_share) * (double)n);
    for (int32_t i = 0; i < n; i++) {
        cohort->core[i] = typical[i] >= cohort->scratch[out];
    }
}

/* Direction, then gap, which compares with it. */
static enum meed_status detect_direction(struct meed_detector_cohort *cohort,
                                         struct meed_detector_report *report,
                                         struct meed_arena *arena, double *values, double *ratios,
                                         double *other)
{
    int64_t n = cohort->count;
    double square = 0.0;
    trim(cohort, values);
    for (int64_t i = 0; i < n; i++) {
        other[i] = 0.0;
        for (int64_t j = 0; j < n; j++) {
            other[i] += cohort->core[j] ? cohort->cosines[i * n + j] : 0.0;
        }
        square += cohort->core[i] ? other[i] : 0.0;
    }
    for (int32_t i = 0; i < n; i++) {
        values[i] = meed_detector_centre_cosine(other[i], square, cohort->core[i]);
        other[i] = -values[i];
    }
    standardise(cohort, other, floor_cosine, ratios);
    give(cohort, report, MEED_DETECTOR_DIRECTION, values, ratios);
    MEED_TRY(meed_detector_factor_cosines(cohort, arena, other));
    for (int32_t i = 0; i < n; i++) {
        values[i] = other[i] - values[i];
    }
    standardise(cohort, values, floor_cosine, ratios);
    give(cohort, report, MEED_DETECTOR_GAP, values, ratios);
    return MEED_OK;
}

/* Directions in the cohort's order, loadings in the caller's. */
static enum meed_status detect_clique(struct meed_detector_cohort *cohort,
                                      struct meed_detector_report *report, struct meed_arena *arena,
                                      double *values, double *ratios)
{
    int32_t n = cohort->count, found = 0;
    double *loadings = NULL;
    MEED_TRY(doubles(arena, (int64_t)n * MEED_CLIQUE_DIRECTIONS, &loadings));
    MEED_TRY(meed_clique_directions(cohort->cosines, n, loadings, &found));
    MEED_TRY(meed_clique_apart(loadings, n, found, values));
    for (int32_t i = 0; i < n; i++) {
        memcpy(report->loadings + (int64_t)cohort->origin[i] * MEED_CLIQUE_DIRECTIONS,
               loadings + (int64_t)i * MEED_CLIQUE_DIRECTIONS,
               MEED_CLIQUE_DIRECTIONS * sizeof *loadings);
        ratios[i] = values[i] > 0.0 ? values[i] / meed_spread_limit(n) : 0.0;
    }
    give(cohort, report, MEED_DETECTOR_CLIQUE, values, ratios);
    return MEED_OK;
}

/* ---- the whole -------------------------------------------------------------------------------
 */

static enum meed_status detect(struct meed_detector_cohort *cohort,
                               struct meed_detector_report *report, struct meed_arena *arena)
{
    double *values = NULL, *ratios = NULL, *other = NULL;
    MEED_TRY(doubles(arena, cohort->count, &values));
    MEED_TRY(doubles(arena, cohort->count, &ratios));
    MEED_TRY(doubles(arena, cohort->count, &other));
    detect_norm(cohort, report, values, ratios);
    detect_replay(cohort, report, values, ratios, other);
    detect_duplicate(cohort, report, values, ratios, other);
    MEED_TRY(detect_span(cohort, report, arena, values, ratios));
    MEED_TRY(detect_dispersion(cohort, report, arena, values, ratios));
    MEED_TRY(detect_clique(cohort, report, arena, values, ratios));
    return detect_direction(cohort, report, arena, values, ratios, other);
}

static void fill_unlike(struct meed_detector_client *client, int32_t moving)
{
    double most = 0.0;
    for (int d = MEED_DETECTOR_DISPERSION; d <= MEED_DETECTOR_GAP; d++) {
        most = fmax(most, client->ratio[d]);
    }
    double deviations = most > 0.0 ? most * meed_spread_limit(moving) : 0.0;
    client->value[MEED_DETECTOR_UNLIKE] = deviations;
    client->ratio[MEED_DETECTOR_UNLIKE] = deviations / unlike_scale;
}

enum meed_status meed_detector_run(const struct meed_adapter *global,
                                   const struct meed_adapter *const *clients, int32_t count,
                                   const struct meed_step_past *past, struct meed_pool *pool,
                                   struct meed_arena *arena, struct meed_detector_report *report)
{
    struct meed_detector_cohort cohort = {.global = global};
    void *block = NULL;
    int64_t n = count;
    *report = (struct meed_detector_report){.count = count};
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)count + 1, sizeof *report->clients, &block));
    report->clients = block;
    MEED_TRY(doubles(arena, n * n, &report->cosines));
    MEED_TRY(doubles(arena, n * MEED_CLIQUE_DIRECTIONS, &report->loadings));
    MEED_TRY(doubles(arena, n * n, &cohort.cosines));
    MEED_TRY(doubles(arena, MEED_MAX(count, global->module_count), &cohort.scratch));
    MEED_TRY(gather(&cohort, clients, count, past, pool, arena));
    keep_moving(&cohort, report);
    if (cohort.count > 0) {
        fill_cosines(&cohort, report);
        MEED_TRY(detect(&cohort, report, arena));
    }
    for (int32_t i = 0; i < count; i++) {
        struct meed_detector_client *client = &report->clients[i];
        bool idle = clients[i] && !client->moves && !client->overflows;
        client->value[MEED_DETECTOR_IDLE] = client->ratio[MEED_DETECTOR_IDLE] = idle;
        for (int d = 0; d < MEED_DETECTOR_UNLIKE; d++) {
            client->score = fmax(client->score, client->ratio[d]);
        }
        fill_unlike(client, report->moving);
    }
    return MEED_OK;
}
