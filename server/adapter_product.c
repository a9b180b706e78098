/* See adapter_product.h. Both Gram matrices of a module are cut into tiles of 8 × 8; for a tile the
 * factors are packed, a block of the long dimension at a time, into two float64 panels that one
 * kernel multiplies. So ranks below 8 are padded by zeros and A and B differ in packing alone.
 *
 * The kernel is compiled for three vector widths and without contraction to fused operations: all
 * three round alike. */
#include "server/adapter_product.h"

enum { TILE = 8, DEPTH = 128 };

typedef double tile_row __attribute__((vector_size(TILE * sizeof(double))));

struct panel {
    tile_row rows[DEPTH];
};

typedef void (*tile_multiply_fn)(const struct panel *x, const struct panel *y, int64_t depth,
                                 tile_row sums[TILE]);

static inline __attribute__((always_inline)) void
multiply(const struct panel *x, const struct panel *y, int64_t depth, tile_row sums[TILE])
{
    tile_row acc[TILE];
    for (int i = 0; i < TILE; i++) {
        acc[i] = sums[i];
    }
    for (int64_t d = 0; d < depth; d++) {
        const double *left = (const double *)&x->rows[d];
        _Pragma("GCC unroll 8") for (int i = 0; i < TILE; i++)
        {
            acc[i] += left[i] * y->rows[d];
        }
    }
    for (int i = 0; i < TILE; i++) {
        sums[i] = acc[i];
    }
}

static void multiply_plain(const struct panel *x, const struct panel *y, int64_t depth,
                           tile_row sums[TILE])
{
    multiply(x, y, depth, sums);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void
multiply_avx2(const struct panel *x, const struct panel *y, int64_t depth, tile_row sums[TILE])
{
    multiply(x, y, depth, sums);
}

__attribute__((target("avx512f"))) static void
multiply_avx512(const struct panel *x, const struct panel *y, int64_t depth, tile_row sums[TILE])
{
    multiply(x, y, depth, sums);
}
#endif

static tile_multiply_fn best_multiply(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        return multiply_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        return multiply_avx2;
    }
#endif
    return multiply_plain;
}

/* A factor as `count` long vectors side by side: element d of vector i at values[i*step + d*along].
 */
struct factor {
    const float *values;
    int64_t step, along, count, length;
};

static void pack(const struct factor *factor, int64_t first, int64_t begin, int64_t depth,
                 struct panel *panel)
{
    int64_t count = MEED_MIN(TILE, factor->count - first);
    for (int64_t d = 0; d < depth; d++) {
        const float *from = factor->values + first * factor->step + (begin + d) * factor->along;
        double *to = (double *)&panel->rows[d];
        for (int64_t i = 0; i < TILE; i++) {
            to[i] = i < count ? (double)from[i * factor->step] : 0.0;
        }
    }
}

/* sums[i][j] = ⟨vector first_x + i of x, vector first_y + j of y⟩ */
static void gram_tile(tile_multiply_fn kernel, const struct factor *x, int64_t first_x,
                      const struct factor *y, int64_t first_y, tile_row sums[TILE])
{
    struct panel left, right;
    for (int i = 0; i < TILE; i++) {
        sums[i] = (tile_row){0};
    }
    for (int64_t begin = 0; begin < x->length; begin += DEPTH) {
        int64_t depth = MEED_MIN(DEPTH, x->length - begin);
        pack(x, first_x, begin, depth, &left);
        pack(y, first_y, begin, depth, &right);
        kernel(&left, &right, depth, sums);
    }
}

static double module_product(tile_multiply_fn kernel, const struct meed_adapter_module *x,
                             const struct meed_adapter_module *y)
{
    struct factor xa = {x->a, x->k, 1, x->r, x->k}, ya = {y->a, y->k, 1, y->r, y->k};
    struct factor xb = {x->b, 1, x->r, x->r, x->n}, yb = {y->b, 1, y->r, y->r, y->n};
    double sum = 0.0;
    for (int64_t i = 0; i < x->r; i += TILE) {
        for (int64_t j = 0; j < y->r; j += TILE) {
            tile_row in_a[TILE], in_b[TILE];
            gram_tile(kernel, &xa, i, &ya, j, in_a);
            gram_tile(kernel, &xb, i, &yb, j, in_b);
            for (int64_t at = 0; at < TILE * TILE; at++) {
                sum += in_a[at / TILE][at % TILE] * in_b[at / TILE][at % TILE];
            }
        }
    }
    return sum * (double)x->scale * (double)y->scale;
}

/* Modules are sorted by layer and projection; one that only one adapter has meets a zero. */
static int module_order(const struct meed_adapter_module *x, const struct meed_adapter_module *y)
{
    if (x->layer != y->layer) {
        return x->layer < y->layer ? -1 : 1;
    }
    return x->proj == y->proj ? 0 : x->proj < y->proj ? -1 : 1;
}

static void pairs_run(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    struct meed_adapter_pair *pairs = user;
    tile_multiply_fn kernel = best_multiply();
    for (int64_t p = begin; p < end; p++) {
        const struct meed_adapter *x = pairs[p].x, *y = pairs[p].y;
        pairs[p].product = 0.0;
        for (int32_t m = 0; pairs[p].by_module && m < x->module_count; m++) {
            pairs[p].by_module[m] = 0.0;
        }
        for (int32_t i = 0, j = 0; i < x->module_count && j < y->module_count;) {
            int order = module_order(&x->modules[i], &y->modules[j]);
            if (order == 0) {
                double product = module_product(kernel, &x->modules[i], &y->modules[j]);
                pairs[p].product += product;
                if (pairs[p].by_module) {
                    pairs[p].by_module[i] = product;
                }
            }
            i += order <= 0 ? 1 : 0;
            j += order >= 0 ? 1 : 0;
        }
    }
}

void meed_adapter_products(struct meed_adapter_pair *pairs, int32_t count, struct meed_pool *pool)
{
    meed_pool_for(pool, count, 1, pairs_run, pairs);
}
