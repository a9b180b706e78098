/* See step_products.h. The table's members stand in this order, and its pairs row by row from the
 * diagonal on:
 *
 *     0 … n−1  clients      n  global      n+1  past base      n+2 …  past clients
 *
 * Behind the table stand ⟨P, P⟩ and ⟨P, past base⟩ of the past clients, which no row holds. */
#include "server/step_products.h"

#include <math.h>
#include <string.h>
#include "server/adapter_product.h"

struct table {
    const struct meed_adapter *global;
    const struct meed_adapter *const *clients;
    const struct meed_step_past *past; /* NULL: none */
    int32_t count, cols;
    struct meed_adapter_pair *pairs;
};

/* Of ⟨member x, member y⟩ in table.pairs, x ≤ y. */
static int64_t pair_index(const struct table *table, int64_t x, int64_t y)
{
    return x * table->cols - x * (x - 1) / 2 + (y - x);
}

static const struct meed_adapter_pair *pair(const struct table *table, int32_t x, int32_t y)
{
    return &table->pairs[pair_index(table, MEED_MIN(x, y), MEED_MAX(x, y))];
}

static const struct meed_adapter *member(const struct table *table, int32_t i)
{
    int32_t rows = table->count + 1;
    if (i < table->count) {
        return table->clients[i];
    }
    if (i == table->count) {
        return table->global;
    }
    return i == rows ? table->past->base : table->past->clients[i - rows - 1];
}

/* ⟨client i − global, to − from⟩ */
static double step_product(const struct table *table, int32_t i, int32_t to, int32_t from)
{
    int32_t global = table->count;
    return (pair(table, i, to)->product - pair(table, global, to)->product) -
           (pair(table, i, from)->product - pair(table, global, from)->product);
}

/* module_products: room for the n clients' ⟨x, x⟩ and ⟨x, g⟩ and for ⟨g, g⟩ by module. */
static enum meed_status build(struct table *table, double *module_products, int32_t modules,
                              struct meed_pool *pool, struct meed_arena *arena)
{
    void *block = NULL;
    int32_t past = table->cols - table->count - 1;
    int64_t in_table = pair_index(table, table->count, table->cols - 1) + 1;
    int64_t all = in_table + 2 * (int64_t)past;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)all, sizeof *table->pairs, &block));
    struct meed_adapter_pair *next = table->pairs = block;
    for (int32_t x = 0; x <= table->count; x++) {
        for (int32_t y = x; y < table->cols; y++) {
            bool wanted = y == x || y == table->count;
            *next++ = (struct meed_adapter_pair){.x = member(table, x),
                                                 .y = member(table, y),
                                                 .by_module = wanted ? module_products : NULL};
            module_products += wanted ? modules : 0;
        }
    }
    for (int32_t i = 0; i < past; i++) {
        const struct meed_adapter *to = member(table, table->count + 1 + i);
        *next++ = (struct meed_adapter_pair){.x = to, .y = to};
        *next++ = (struct meed_adapter_pair){.x = to, .y = table->past->base};
    }
    meed_adapter_products(table->pairs, (int32_t)all, pool);
    return MEED_OK;
}

static void fill_clients(const struct table *table, struct meed_step_products *out)
{
    int32_t global = table->count;
    const double *own = pair(table, global, global)->by_module;
    for (int32_t i = 0; i < out->count; i++) {
        if (meed_adapter_equal(table->clients[i], table->global)) {
            continue; /* products of 0 */
        }
        for (int32_t j = i; j < out->count; j++) {
            bool still = meed_adapter_equal(table->clients[j], table->global);
            double product = still ? 0.0 : step_product(table, i, j, global);
            out->gram[(int64_t)i * out->count + j] = product;
            out->gram[(int64_t)j * out->count + i] = product;
        }
        const double *square = pair(table, i, i)->by_module;
        const double *with = pair(table, i, global)->by_module;
        for (int32_t m = 0; m < out->modules; m++) {
            double norm = (square[m] - with[m]) - (with[m] - own[m]);
            out->by_module[(int64_t)i * out->modules + m] = norm < 0.0 ? 0.0 : norm;
        }
    }
}

static void fill_past(const struct table *table, struct meed_step_products *out)
{
    int32_t global = table->count, base = global + 1;
    const struct meed_adapter_pair *behind =
        table->pairs + pair_index(table, global, table->cols - 1) + 1;
    for (int32_t j = 0; j < out->past; j++) {
        int32_t at = j == 0 ? global : base + j;
        double own = j == 0 ? pair(table, global, global)->product : behind[2 * j].product;
        double with = j == 0 ? pair(table, global, base)->product : behind[2 * j + 1].product;
        double square = own - 2.0 * with + behind[0].product;
        bool still = meed_adapter_equal(member(table, at), table->past->base);
        out->past_norms[j] = still ? 0.0 : sqrt(fmax(square, 0.0));
        for (int32_t i = 0; i < out->count; i++) {
            bool moves = out->gram[(int64_t)i * out->count + i] != 0.0;
            out->with_past[(int64_t)i * out->past + j] =
                moves ? step_product(table, i, at, base) : 0.0;
        }
    }
}

static enum meed_status reserve(struct meed_arena *arena, int64_t count, double **block)
{
    void *made = NULL;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)count + 1, sizeof **block, &made));
    *block = made;
    return MEED_OK;
}

enum meed_status meed_step_products_measure(const struct meed_adapter *global,
                                            const struct meed_adapter *const *clients,
                                            int32_t count, const struct meed_step_past *past,
                                            struct meed_pool *pool, struct meed_arena *arena,
                                            struct meed_step_products *products)
{
    int32_t past_count = past ? 1 + past->count : 0;
    int64_t n = count, modules = global->module_count;
    struct table table = {global, clients, past, count, count + 1 + past_count, NULL};
    double *module_products = NULL;
    *products = (struct meed_step_products){
        .count = count, .past = past_count, .modules = global->module_count};
    MEED_TRY(reserve(arena, n * n, &products->gram));
    MEED_TRY(reserve(arena, n * past_count, &products->with_past));
    MEED_TRY(reserve(arena, past_count, &products->past_norms));
    MEED_TRY(reserve(arena, n * modules, &products->by_module));
    MEED_TRY(reserve(arena, (2 * n + 1) * modules, &module_products));
    MEED_TRY(build(&table, module_products, products->modules, pool, arena));
    fill_clients(&table, products);
    fill_past(&table, products);
    return MEED_OK;
}
