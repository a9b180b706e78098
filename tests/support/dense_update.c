/* See dense_update.h. */
#include "tests/support/dense_update.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "proto/message.h"

static void must(enum meed_status st)
{
    if (st != MEED_OK) {
        fprintf(stderr, "dense_update: %s: %s\n", meed_status_name(st), meed_last_error());
        abort();
    }
}

int64_t dense_count(const struct meed_adapter *adapter)
{
    int64_t count = 0;
    for (int32_t m = 0; m < adapter->module_count; m++) {
        count += adapter->modules[m].n * adapter->modules[m].k;
    }
    return count;
}

void dense_add(const struct meed_adapter *adapter, double weight, double *dense)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        const struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t n = 0; n < module->n; n++) {
            for (int64_t i = 0; i < module->r; i++) {
                double b = weight * (double)module->scale * (double)module->b[n * module->r + i];
                for (int64_t k = 0; k < module->k; k++) {
                    dense[n * module->k + k] += b * (double)module->a[i * module->k + k];
                }
            }
        }
        dense += module->n * module->k;
    }
}

double *dense_new(const struct meed_adapter *adapter)
{
    double *dense = calloc((size_t)dense_count(adapter), sizeof *dense);
    if (!dense) {
        abort();
    }
    return dense;
}

double dense_dot(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

static void turn(double *x, int64_t rows, int64_t cols, int64_t p, int64_t q, double c, double s)
{
    for (int64_t i = 0; i < rows; i++) {
        double left = x[i * cols + p], right = x[i * cols + q];
        x[i * cols + p] = c * left - s * right;
        x[i * cols + q] = s * left + c * right;
    }
}

void dense_decompose(double *x, int64_t rows, int64_t cols, double *v)
{
    for (int64_t i = 0; v && i < cols * cols; i++) {
        v[i] = i % (cols + 1) == 0 ? 1.0 : 0.0;
    }
    for (int sweep = 0; sweep < 60; sweep++) {
        for (int64_t p = 0; p < cols; p++) {
            for (int64_t q = p + 1; q < cols; q++) {
                double pp = 0, qq = 0, pq = 0;
                for (int64_t i = 0; i < rows; i++) {
                    pp += x[i * cols + p] * x[i * cols + p];
                    qq += x[i * cols + q] * x[i * cols + q];
                    pq += x[i * cols + p] * x[i * cols + q];
                }
                if (fabs(pq) <= 1e-16 * sqrt(pp * qq) || pq == 0.0) {
                    continue;
                }
                double zeta = (qq - pp) / (2 * pq);
                double t = (zeta >= 0 ? 1 : -1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
                double c = 1 / sqrt(1 + t * t);
                turn(x, rows, cols, p, q, c, c * t);
                if (v) {
                    turn(v, cols, cols, p, q, c, c * t);
                }
            }
        }
    }
}

void dense_cut(double *x, int64_t rows, int64_t cols, int64_t rank)
{
    double *v = calloc((size_t)(cols * cols + rows * cols), sizeof *v);
    if (!v) {
        abort();
    }
    double *turned = v + cols * cols;
    memcpy(turned, x, (size_t)(rows * cols) * sizeof *x);
    dense_decompose(turned, rows, cols, v);
    memset(x, 0, (size_t)(rows * cols) * sizeof *x);
    for (int64_t found = 0; found < rank && found < cols; found++) {
        int64_t longest = 0;
        double most = -1.0;
        for (int64_t p = 0; p < cols; p++) {
            double size = 0.0;
            for (int64_t i = 0; i < rows; i++) {
                size += turned[i * cols + p] * turned[i * cols + p];
            }
            longest = size > most ? p : longest;
            most = size > most ? size : most;
        }
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < cols; j++) {
                x[i * cols + j] += turned[i * cols + longest] * v[j * cols + longest];
            }
            turned[i * cols + longest] = 0.0;
        }
    }
    free(v);
}

struct meed_model_config dense_model(void)
{
    return (struct meed_model_config){.hidden = 12,
                                      .ffn = 20,
                                      .layers = 2,
                                      .heads = 2,
                                      .kv_heads = 1,
                                      .head_dim = 8,
                                      .vocab = 32,
                                      .max_positions = 64};
}

static float draw(struct meed_rng *rng, double size, bool whole)
{
    return whole ? (float)((int64_t)meed_rng_below(rng, 7) - 3)
                 : (float)(size * meed_rng_normal(rng));
}

struct meed_adapter *dense_changed(const struct meed_adapter *from, int64_t front, uint64_t seed,
                                   double size, bool whole, uint32_t factors)
{
    struct meed_adapter *made = NULL;
    must(meed_adapter_clone(from, &made));
    struct meed_rng rng = meed_rng_stream(seed, "dense", 0);
    for (int32_t m = 0; m < made->module_count; m++) {
        struct meed_adapter_module *module = &made->modules[m];
        for (int64_t i = 0; i < front * module->k && factors & MEED_FACTOR_A; i++) {
            module->a[i] = draw(&rng, size, whole);
        }
        for (int64_t i = 0; i < module->n * front && factors & MEED_FACTOR_B; i++) {
            module->b[i / front * module->r + i % front] = draw(&rng, size, whole);
        }
    }
    return made;
}

struct meed_adapter *dense_adapter(int32_t rank, uint64_t seed, double size, bool whole)
{
    struct meed_model_config model = dense_model();
    struct meed_lora_config lora = {.rank = rank,
                                    .alpha = 2.0f * (float)rank,
                                    .targets = 1u << MEED_PROJ_Q | 1u << MEED_PROJ_UP};
    struct meed_adapter *zero = NULL;
    must(meed_adapter_create(&model, &lora, &zero));
    struct meed_adapter *made =
        dense_changed(zero, rank, seed, size, whole, MEED_FACTOR_A | MEED_FACTOR_B);
    meed_adapter_destroy(zero);
    return made;
}
