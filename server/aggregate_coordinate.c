/* Median and trimmed mean, coordinate by coordinate of ΔW, cut to the rank.
 *
 *     X_k = n p_k ΔW_k          n candidates; X_k = ΔW_k for uniform weights, so that the mean of
 *                               the X_k would be Σ p_k ΔW_k
 *     M[i, j] = median or trimmed mean of X_1[i, j] … X_n[i, j]   (Yin et al. 2018)
 *     next = the best rank-r adapter for s_g B_g A_g + M
 *
 * On ΔW and not on the entries of A and B, as is usual for LoRA: the entries of a factor mean
 * nothing by themselves (B → BQ, A → Q⁻¹A leaves the model and changes all of them), so an order
 * over them can be steered by a client that just rotates its factors. The price: M has no low rank
 * and must be formed. It is formed one row of N at a time from the factors, n·r·K multiply-adds a
 * row, and stored as one fp32 matrix, N·K·4 bytes a worker.
 *
 * The cut is by subspace iteration with l = min(r + 8, N, K) columns (Halko et al. 2011), started
 * from a drawn matrix: exact where l reaches min(N, K), else within the last of PASSES powers
 * (σ_{l+1}/σ_r)^{2·PASSES + 1}. M's tail is noise that nobody wants back; what it loses is in
 * the retained energy. Even counts take the mean of the two middle values; sorted values are added
 * from the smallest up, so the result does not know the clients' order.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "server/aggregate_parts.h"

enum { OVERSAMPLE = 8, PASSES = 8 };

/* ---- M ----------------------------------------------------------------------------------------
 */

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Values sorted; `cut` from either end are left out, all but the middle for the median. */
static double middle(double *values, int32_t count, int32_t cut)
{
    qsort(values, (size_t)count, sizeof *values, rising);
    double sum = 0.0;
    for (int32_t i = cut; i < count - cut; i++) {
        sum += values[i];
    }
    return sum / (double)(count - 2 * cut);
}

static int32_t cut_of(const struct meed_aggregate_options *options, int32_t count)
{
    return options->aggregation == MEED_AGGREGATION_MEDIAN
               ? (count - 1) / 2
               : (int32_t)(options->robust.trim * (double)count);
}

/* row [K] = row n of s·B·A */
static void product_row(const struct meed_adapter_module *module, int64_t rank, int64_t n,
                        double *row)
{
    memset(row, 0, (size_t)module->k * sizeof *row);
    for (int64_t j = 0; j < rank; j++) {
        double b = (double)module->scale * (double)module->b[n * module->r + j];
        for (int64_t k = 0; k < module->k; k++) {
            row[k] += b * (double)module->a[j * module->k + k];
        }
    }
}

/* Row n of s_g B_g A_g + M; rows [slots, K], values [slots]. */
static void merge_row(const struct meed_aggregate_module *module, int64_t n, double *rows,
                      double *values, float *out)
{
    int64_t width = module->out->k;
    int32_t count = module->slots - 1;
    for (int32_t slot = 0; slot < module->slots; slot++) {
        product_row(module->inputs[slot], module->rank, n, rows + slot * width);
    }
    for (int64_t k = 0; k < width; k++) {
        for (int32_t i = 0; i < count; i++) {
            values[i] =
                (double)count * module->gates[i + 1] * (rows[(i + 1) * width + k] - rows[k]);
        }
        out[k] = (float)(rows[k] + middle(values, count, cut_of(module->options, count)));
    }
}

static enum meed_status form_target(const struct meed_aggregate_module *module, float *target)
{
    int64_t width = module->out->k;
    double *rows = meed_heap_alloc((size_t)module->slots * (size_t)width, sizeof *rows);
    double *values = meed_heap_alloc((size_t)module->slots, sizeof *values);
    for (int64_t n = 0; rows && values && n < module->out->n; n++) {
        merge_row(module, n, rows, values, target + n * width);
    }
    bool good = rows && values;
    meed_heap_free(rows);
    meed_heap_free(values);
    return good ? MEED_OK : MEED_NOMEM;
}

/* ---- the leading subspace ---------------------------------------------------------------------
 */

/* y [n, l] column by column = target·x, or x [k, l] = targetᵀ·y. */
static void times(const float *target, int64_t n, int64_t k, const double *x, int64_t l, double *y)
{
    for (int64_t c = 0; c < l; c++) {
        for (int64_t i = 0; i < n; i++) {
            double sum = 0.0;
            for (int64_t j = 0; j < k; j++) {
                sum += (double)target[i * k + j] * x[c * k + j];
            }
            y[c * n + i] = sum;
        }
    }
}

static void times_transposed(const float *target, int64_t n, int64_t k, const double *y, int64_t l,
                             double *x)
{
    memset(x, 0, (size_t)(l * k) * sizeof *x);
    for (int64_t c = 0; c < l; c++) {
        for (int64_t i = 0; i < n; i++) {
            double factor = y[c * n + i];
            for (int64_t j = 0; j < k; j++) {
                x[c * k + j] += factor * (double)target[i * k + j];
            }
        }
    }
}

static double dot(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* Gram–Schmidt, twice over, which is enough; columns that are combinations of others become 0. */
static void orthonormalise(double *columns, int64_t length, int64_t count)
{
    for (int64_t c = 0; c < count; c++) {
        double *column = columns + c * length;
        double before = sqrt(dot(column, column, length));
        for (int twice = 0; twice < 2; twice++) {
            for (int64_t d = 0; d < c; d++) {
                double part = dot(columns + d * length, column, length);
                for (int64_t i = 0; i < length; i++) {
                    column[i] -= part * columns[d * length + i];
                }
            }
        }
        double after = sqrt(dot(column, column, length));
        double factor = after > 1e-12 * before ? 1.0 / after : 0.0;
        for (int64_t i = 0; i < length; i++) {
            column[i] *= factor;
        }
    }
}

/* left [N, l] orthonormal, right [K, l] = targetᵀ·left, so that target ≈ left·rightᵀ. */
static void find_subspace(const float *target, int64_t n, int64_t k, int64_t l,
                          struct meed_rng *rng, double *left, double *right)
{
    for (int64_t i = 0; i < k * l; i++) {
        right[i] = meed_rng_normal(rng);
    }
    for (int pass = 0; pass <= PASSES; pass++) {
        orthonormalise(right, k, l);
        times(target, n, k, right, l, left);
        orthonormalise(left, n, l);
        times_transposed(target, n, k, left, l, right);
    }
}

/* ---- the module -------------------------------------------------------------------------------
 */

static enum meed_status cut_target(const struct meed_aggregate_module *module, const float *target,
                                   struct meed_low_rank_energy *energy)
{
    struct meed_adapter_module *out = module->out;
    enum meed_status st = MEED_OK;
    int64_t l = MEED_MIN(module->rank + OVERSAMPLE, MEED_MIN(out->n, out->k));
    const double one = 1.0, scale = (double)out->scale;
    struct meed_low_rank_energy found;
    struct meed_rng rng = meed_rng_stream(1, "aggregate subspace", module->place);
    double *left = meed_heap_alloc((size_t)(l * out->n), sizeof *left);
    double *right = meed_heap_alloc((size_t)(l * out->k), sizeof *right);
    if (!left || !right) {
        st = MEED_NOMEM;
        goto out;
    }
    find_subspace(target, out->n, out->k, l, &rng, left, right);
    struct meed_low_rank_stack stack = {.n = out->n,
                                        .k = out->k,
                                        .r = l,
                                        .keep = module->rank,
                                        .slots = 1,
                                        .scale = scale,
                                        .gates = &one,
                                        .scales = &one,
                                        .b = left,
                                        .a = right};
    MEED_TRY_OUT(meed_low_rank_cut(&stack, module->inputs[0]->a, out->b, out->a, &found));
    energy->kept = found.kept;
out:
    meed_heap_free(left);
    meed_heap_free(right);
    return st;
}

enum meed_status meed_aggregate_merge_coordinate(const struct meed_aggregate_module *module,
                                                 struct meed_low_rank_energy *energy)
{
    int64_t count = module->out->n * module->out->k;
    float *target = meed_heap_alloc((size_t)count, sizeof *target);
    if (!target) {
        return MEED_NOMEM;
    }
    enum meed_status st = meed_aggregate_measure(module, energy);
    if (st == MEED_OK) {
        st = form_target(module, target);
    }
    energy->full = 0.0;
    for (int64_t i = 0; st == MEED_OK && i < count; i++) {
        energy->full += (double)target[i] * (double)target[i];
    }
    if (st == MEED_OK) {
        st = cut_target(module, target, energy);
    }
    meed_heap_free(target);
    return st;
}
