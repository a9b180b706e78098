/* The best rank-r factors of a stack, without the N × K matrix.
 *
 *     B = Q_B R_B,  Aᵀ = Q_A R_A                 (thin QR, m_B = min(N, R), m_A = min(K, R))
 *     S = B D A = Q_B (R_B D R_Aᵀ) Q_Aᵀ          D = diag(gate·scale)
 *     R_B D R_Aᵀ = U Σ Vᵀ                        (m_B × m_A)
 *     b = Q_B U_r √(Σ_r/s),  a = √(Σ_r/s) V_rᵀ Q_Aᵀ
 *
 * Q_B and Q_A have orthonormal columns, so every Frobenius norm that is wanted is the norm of a
 * core with another matrix in place of D. Each singular pair is given the sign that makes the
 * largest entry of its column of b positive (the first of equals): SVD leaves it open, ours does
 * not.
 *
 * Determinism: LAPACK is called on one thread with fixed shapes (symmetric.h).
 */
#include <math.h>
#include <string.h>
#include <lapacke.h>
#include "engine/low_rank.h"
#include "engine/symmetric.h"

/* Below this fraction of the largest, a singular value is rounding: fp32 factors carry 24 bits. */
static const double zero_ratio = 1e-9;

/* One side's QR, column-major: q [rows × m] and rfactor [m × cols], m = min(rows, cols). */
struct side {
    lapack_int rows, cols, m;
    double *q;       /* the stack's array, overwritten */
    double *rfactor; /* [m × cols] */
};

static enum meed_status side_factor(struct side *side)
{
    enum meed_status st = MEED_OK;
    double *tau = meed_heap_alloc((size_t)side->m, sizeof *tau);
    side->rfactor = meed_heap_alloc((size_t)side->m * (size_t)side->cols, sizeof *side->rfactor);
    if (!tau || !side->rfactor) {
        st = MEED_NOMEM;
        goto out;
    }
    if (LAPACKE_dgeqrf(LAPACK_COL_MAJOR, side->rows, side->cols, side->q, side->rows, tau) != 0) {
        st = MEED_FAIL(MEED_NUMERIC, "QR of the stacked factors failed");
        goto out;
    }
    for (int64_t col = 0; col < side->cols; col++) {
        for (int64_t row = 0; row < side->m && row <= col; row++) {
            side->rfactor[col * side->m + row] = side->q[col * side->rows + row];
        }
    }
    if (LAPACKE_dorgqr(LAPACK_COL_MAJOR, side->rows, side->m, side->m, side->q, side->rows, tau) !=
        0) {
        st = MEED_FAIL(MEED_NUMERIC, "QR of the stacked factors failed");
    }
out:
    meed_heap_free(tau);
    return st;
}

/* core [m_B × m_A] column-major = R_B diag(d) R_Aᵀ, summed over the stack's rank in order. */
static void core_diagonal(const struct side *b, const struct side *a, const double *d, double *core)
{
    memset(core, 0, (size_t)b->m * (size_t)a->m * sizeof *core);
    for (int64_t i = 0; i < b->cols; i++) {
        const double *rb = b->rfactor + i * b->m, *ra = a->rfactor + i * a->m;
        for (int64_t col = 0; col < a->m; col++) {
            double factor = d[i] * ra[col];
            for (int64_t row = 0; row < b->m; row++) {
                core[col * b->m + row] += factor * rb[row];
            }
        }
    }
}

static double norm_squared(const double *values, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += values[i] * values[i];
    }
    return sum;
}

/* mean [m × r] = Σ over slots of gate·(that slot's columns of the R factor): Q·mean is the mean. */
static void mean_columns(const struct meed_low_rank_stack *stack, const struct side *side,
                         double *mean)
{
    memset(mean, 0, (size_t)side->m * (size_t)stack->r * sizeof *mean);
    for (int32_t slot = 0; slot < stack->slots; slot++) {
        for (int64_t i = 0; i < stack->r; i++) {
            const double *from = side->rfactor + (slot * stack->r + i) * side->m;
            for (int64_t row = 0; row < side->m; row++) {
                mean[i * side->m + row] += stack->gates[slot] * from[row];
            }
        }
    }
}

/* ‖S − s·mean(B)·mean(A)‖² from the core of S, which is overwritten. */
static enum meed_status fedit_energy(const struct meed_low_rank_stack *stack, const struct side *b,
                                     const struct side *a, double *core, double *energy)
{
    enum meed_status st = MEED_OK;
    double *mean_b = meed_heap_alloc((size_t)b->m * (size_t)stack->r, sizeof *mean_b);
    double *mean_a = meed_heap_alloc((size_t)a->m * (size_t)stack->r, sizeof *mean_a);
    if (!mean_b || !mean_a) {
        st = MEED_NOMEM;
        goto out;
    }
    mean_columns(stack, b, mean_b);
    mean_columns(stack, a, mean_a);
    for (int64_t i = 0; i < stack->r; i++) {
        for (int64_t col = 0; col < a->m; col++) {
            double factor = stack->scale * mean_a[i * a->m + col];
            for (int64_t row = 0; row < b->m; row++) {
                core[col * b->m + row] -= factor * mean_b[i * b->m + row];
            }
        }
    }
    *energy = norm_squared(core, (int64_t)b->m * a->m);
out:
    meed_heap_free(mean_b);
    meed_heap_free(mean_a);
    return st;
}

/* Energies; leaves the core of S in `core` (fedit works on the copy in `spare`). */
static enum meed_status measure(const struct meed_low_rank_stack *stack, const struct side *b,
                                const struct side *a, double *d, double *core, double *spare,
                                struct meed_low_rank_energy *energy)
{
    int64_t count = (int64_t)b->m * a->m;
    for (int64_t i = 0; i < b->cols; i++) {
        int64_t slot = i / stack->r;
        d[i] = (stack->gates[slot] - (slot == 0 ? 1.0 : 0.0)) * stack->scales[slot];
    }
    core_diagonal(b, a, d, spare);
    energy->update = norm_squared(spare, count);
    for (int64_t i = 0; i < b->cols; i++) {
        d[i] = stack->gates[i / stack->r] * stack->scales[i / stack->r];
    }
    core_diagonal(b, a, d, core);
    energy->full = norm_squared(core, count);
    memcpy(spare, core, (size_t)count * sizeof *spare);
    return fedit_energy(stack, b, a, spare, &energy->fedit);
}

/* out [rows] = q [rows × m] · x [m] (x with a stride). */
static void lift(const struct side *side, const double *x, int64_t stride, double *out)
{
    memset(out, 0, (size_t)side->rows * sizeof *out);
    for (int64_t i = 0; i < side->m; i++) {
        for (int64_t row = 0; row < side->rows; row++) {
            out[row] += x[i * stride] * side->q[i * side->rows + row];
        }
    }
}

static double sign_of_largest(const double *values, int64_t count)
{
    int64_t largest = 0;
    for (int64_t i = 1; i < count; i++) {
        if (fabs(values[i]) > fabs(values[largest])) {
            largest = i;
        }
    }
    return values[largest] < 0.0 ? -1.0 : 1.0;
}

/* u [m_B × q], vt [q × m_A], sigma [q]: columns j < keep of the result. */
static enum meed_status write_factors(const struct meed_low_rank_stack *stack,
                                      const struct side *side_b, const struct side *side_a,
                                      const double *u, const double *vt, const double *sigma,
                                      const float *fallback_a, float *b, float *a)
{
    enum meed_status st = MEED_OK;
    int64_t found = MEED_MIN(side_b->m, side_a->m);
    double *column = meed_heap_alloc((size_t)side_b->rows, sizeof *column);
    double *row = meed_heap_alloc((size_t)side_a->rows, sizeof *row);
    if (!column || !row) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int64_t j = 0; j < stack->keep; j++) {
        bool used = j < found && sigma[j] > zero_ratio * sigma[0];
        if (j >= found || sigma[0] == 0.0) {
            memcpy(a + j * stack->k, fallback_a + j * stack->k, (size_t)stack->k * sizeof *a);
            for (int64_t n = 0; n < stack->n; n++) {
                b[n * stack->keep + j] = 0.0f;
            }
            continue;
        }
        lift(side_b, u + j * side_b->m, 1, column);
        lift(side_a, vt + j, found, row);
        double sign = sign_of_largest(column, side_b->rows);
        double length = used ? sqrt(sigma[j] / stack->scale) : sqrt(1.0 / 3.0);
        for (int64_t n = 0; n < stack->n; n++) {
            b[n * stack->keep + j] = used ? (float)(sign * length * column[n]) : 0.0f;
        }
        for (int64_t k = 0; k < stack->k; k++) {
            a[j * stack->k + k] = (float)(sign * length * row[k]);
        }
    }
out:
    meed_heap_free(column);
    meed_heap_free(row);
    return st;
}

static enum meed_status cut(const struct meed_low_rank_stack *stack, const struct side *side_b,
                            const struct side *side_a, double *core, const float *fallback_a,
                            float *b, float *a, struct meed_low_rank_energy *energy)
{
    enum meed_status st = MEED_OK;
    lapack_int found = MEED_MIN(side_b->m, side_a->m);
    double *sigma = meed_heap_alloc((size_t)found, sizeof *sigma);
    double *u = meed_heap_alloc((size_t)side_b->m * (size_t)found, sizeof *u);
    double *vt = meed_heap_alloc((size_t)found * (size_t)side_a->m, sizeof *vt);
    if (!sigma || !u || !vt) {
        st = MEED_NOMEM;
        goto out;
    }
    if (LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', side_b->m, side_a->m, core, side_b->m, sigma, u,
                       side_b->m, vt, found) != 0) {
        st = MEED_FAIL(MEED_NUMERIC, "the SVD of the aggregate did not converge");
        goto out;
    }
    energy->kept = norm_squared(sigma, MEED_MIN((int64_t)found, stack->keep));
    st = write_factors(stack, side_b, side_a, u, vt, sigma, fallback_a, b, a);
out:
    meed_heap_free(sigma);
    meed_heap_free(u);
    meed_heap_free(vt);
    return st;
}

enum meed_status meed_low_rank_cut(struct meed_low_rank_stack *stack, const float *fallback_a,
                                   float *b, float *a, struct meed_low_rank_energy *energy)
{
    meed_lapack_one_thread();
    enum meed_status st = MEED_OK;
    lapack_int total = (lapack_int)(stack->slots * stack->r);
    struct side side_b = {.rows = (lapack_int)stack->n, .cols = total, .q = stack->b};
    struct side side_a = {.rows = (lapack_int)stack->k, .cols = total, .q = stack->a};
    side_b.m = MEED_MIN(side_b.rows, total);
    side_a.m = MEED_MIN(side_a.rows, total);
    size_t count = (size_t)side_b.m * (size_t)side_a.m;
    double *d = meed_heap_alloc((size_t)total, sizeof *d);
    double *core = meed_heap_alloc(count, sizeof *core);
    double *spare = meed_heap_alloc(count, sizeof *spare);
    if (!d || !core || !spare) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(side_factor(&side_b));
    MEED_TRY_OUT(side_factor(&side_a));
    MEED_TRY_OUT(measure(stack, &side_b, &side_a, d, core, spare, energy));
    energy->kept = energy->full;
    if (b && a) {
        MEED_TRY_OUT(cut(stack, &side_b, &side_a, core, fallback_a, b, a, energy));
    }
out:
    meed_heap_free(side_b.rfactor);
    meed_heap_free(side_a.rfactor);
    meed_heap_free(d);
    meed_heap_free(core);
    meed_heap_free(spare);
    return st;
}

/* ---- coordinates ------------------------------------------------------------------------------
 */

static const double gauge_condition = 100.0;

/* All [r, r] row-major; x = left·diag(sigma)·right_t after decompose, which destroys x. LAPACK
 * works on columns, so it is given xᵀ, and left and right change places. */
struct gauge {
    int64_t r;
    double *x, *left, *right_t;
    double *for_b, *for_a; /* b ← b·for_b, a ← for_a·a */
    double *sigma, *line, *sizes;
};

static enum meed_status gauge_init(struct gauge *gauge, int64_t r)
{
    double *block = meed_heap_alloc((size_t)(5 * r * r + 3 * r), sizeof *block);
    if (!block) {
        return MEED_NOMEM;
    }
    *gauge = (struct gauge){.r = r,
                            .x = block,
                            .left = block + r * r,
                            .right_t = block + 2 * r * r,
                            .for_b = block + 3 * r * r,
                            .for_a = block + 4 * r * r,
                            .sigma = block + 5 * r * r,
                            .line = block + 5 * r * r + r,
                            .sizes = block + 5 * r * r + 2 * r};
    return MEED_OK;
}

static enum meed_status decompose(struct gauge *gauge)
{
    lapack_int r = (lapack_int)gauge->r;
    return LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', r, r, gauge->x, r, gauge->sigma, gauge->right_t, r,
                          gauge->left, r) == 0
               ? MEED_OK
               : MEED_FAIL(MEED_NUMERIC, "the SVD of a change of coordinates did not converge");
}

/* x [r, r] += p·qᵀ of the rows of p and q [r, k]. */
static void add_row_products(const float *p, const float *q, int64_t k, struct gauge *gauge)
{
    for (int64_t i = 0; i < gauge->r; i++) {
        for (int64_t j = 0; j < gauge->r; j++) {
            double sum = 0.0;
            for (int64_t col = 0; col < k; col++) {
                sum += (double)p[i * k + col] * (double)q[j * k + col];
            }
            gauge->x[i * gauge->r + j] += sum;
        }
    }
}

/* With unit rows V of a and G = a_near·Vᵀ: a″ = G·V and b″ = b·diag(‖a_i‖)·G⁻¹. */
static void project(struct gauge *gauge)
{
    int64_t r = gauge->r;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j < r; j++) {
            double sum = 0.0;
            for (int64_t p = 0; p < r; p++) {
                sum += gauge->right_t[p * r + i] / gauge->sigma[p] * gauge->left[j * r + p];
            }
            gauge->for_b[i * r + j] = gauge->sizes[i] * sum;
        }
    }
}

/* Q = left·right_t: b″ = b·Q, a″ = Qᵀ·a (Schönemann 1966). */
static void rotate(struct gauge *gauge)
{
    int64_t r = gauge->r;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j < r; j++) {
            double sum = 0.0;
            for (int64_t p = 0; p < r; p++) {
                sum += gauge->left[i * r + p] * gauge->right_t[p * r + j];
            }
            gauge->for_b[i * r + j] = sum;
            gauge->for_a[j * r + i] = sum;
        }
    }
}

static enum meed_status choose(struct gauge *gauge, int64_t n, int64_t k, const float *b_near,
                               const float *a_near, const float *b, const float *a)
{
    int64_t r = gauge->r;
    add_row_products(a_near, a, k, gauge);
    for (int64_t i = 0; i < r * r; i++) {
        int64_t j = i % r;
        gauge->for_a[i] = gauge->x[i] / (gauge->sizes[j] * gauge->sizes[j]);
        gauge->x[i] /= gauge->sizes[j];
    }
    MEED_TRY(decompose(gauge));
    if (gauge->sigma[r - 1] * gauge_condition >= gauge->sigma[0] && gauge->sigma[0] > 0.0) {
        project(gauge);
        return MEED_OK;
    }
    memset(gauge->x, 0, (size_t)(r * r) * sizeof *gauge->x);
    add_row_products(a, a_near, k, gauge);
    for (int64_t row = 0; row < n; row++) {
        for (int64_t i = 0; i < r * r; i++) {
            gauge->x[i] += (double)b[row * r + i / r] * (double)b_near[row * r + i % r];
        }
    }
    MEED_TRY(decompose(gauge));
    rotate(gauge);
    return MEED_OK;
}

static void apply(struct gauge *gauge, int64_t n, int64_t k, float *b, float *a)
{
    int64_t r = gauge->r;
    double *line = gauge->line;
    for (int64_t row = 0; row < n; row++) {
        memset(line, 0, (size_t)r * sizeof *line);
        for (int64_t i = 0; i < r * r; i++) {
            line[i % r] += (double)b[row * r + i / r] * gauge->for_b[i];
        }
        for (int64_t j = 0; j < r; j++) {
            b[row * r + j] = (float)line[j];
        }
    }
    for (int64_t col = 0; col < k; col++) {
        memset(line, 0, (size_t)r * sizeof *line);
        for (int64_t i = 0; i < r * r; i++) {
            line[i / r] += gauge->for_a[i] * (double)a[i % r * k + col];
        }
        for (int64_t j = 0; j < r; j++) {
            a[j * k + col] = (float)line[j];
        }
    }
}

/* Directions that the product does not have are taken from the near pair: what the stack held in
 * them is nobody's business. True if there were any. */
static bool fill_empty(int64_t n, int64_t k, int64_t r, const float *a_near, const float *b,
                       float *a)
{
    bool any = false;
    for (int64_t j = 0; j < r; j++) {
        bool empty = true;
        for (int64_t row = 0; empty && row < n; row++) {
            empty = b[row * r + j] == 0.0f;
        }
        if (empty) {
            memcpy(a + j * k, a_near + j * k, (size_t)k * sizeof *a);
            any = true;
        }
    }
    return any;
}

enum meed_status meed_low_rank_gauge(int64_t n, int64_t k, int64_t r, const float *b_near,
                                     const float *a_near, float *b, float *a)
{
    meed_lapack_one_thread();
    struct gauge gauge = {.r = 0};
    if (fill_empty(n, k, r, a_near, b, a)) {
        return MEED_OK;
    }
    MEED_TRY(gauge_init(&gauge, r));
    for (int64_t j = 0; j < r; j++) {
        double sum = 0.0;
        for (int64_t col = 0; col < k; col++) {
            sum += (double)a[j * k + col] * (double)a[j * k + col];
        }
        gauge.sizes[j] = sqrt(sum);
    }
    enum meed_status st = choose(&gauge, n, k, b_near, a_near, b, a);
    if (st == MEED_OK) {
        apply(&gauge, n, k, b, a);
    }
    meed_heap_free(gauge.x);
    return st;
}
