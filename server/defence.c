/* See defence.h. The steps that are compared are differences of two adapters each:
 *
 *     0 … n−1   client k − global            n      global − past base
 *     n+1 …     past client − past base
 *
 * and ⟨x − y, z − w⟩ = ⟨x,z⟩ − ⟨x,w⟩ − ⟨y,z⟩ + ⟨y,w⟩, so one table of inner products of adapters
 * serves all: rows are the cohort and the global adapter, columns everything. */
#include "server/defence.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- inner products of adapters -------------------------------------------------------------- */

/* Eight running sums that a compiler keeps in vector registers; a fixed order either way. */
static double dot(const float *x, int64_t stride_x, const float *y, int64_t stride_y, int64_t count)
{
    double sums[8] = {0.0};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int64_t lane = 0; lane < 8; lane++) {
            sums[lane] += (double)x[(i + lane) * stride_x] * (double)y[(i + lane) * stride_y];
        }
    }
    for (; i < count; i++) {
        sums[0] += (double)x[i * stride_x] * (double)y[i * stride_y];
    }
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static double module_product(const struct meed_adapter_module *x,
                             const struct meed_adapter_module *y)
{
    double sum = 0.0;
    for (int64_t i = 0; i < x->r; i++) {
        for (int64_t j = 0; j < y->r; j++) {
            sum += dot(x->b + i, x->r, y->b + j, y->r, x->n) *
                   dot(x->a + i * x->k, 1, y->a + j * y->k, 1, x->k);
        }
    }
    return sum * (double)x->scale * (double)y->scale;
}

static double adapter_product(const struct meed_adapter *x, const struct meed_adapter *y)
{
    double sum = 0.0;
    for (int32_t m = 0; m < x->module_count; m++) {
        sum += module_product(&x->modules[m], &y->modules[m]);
    }
    return sum;
}

struct table {
    int32_t rows;                        /* clients, then global */
    int32_t cols;                        /* the rows, then the past base and its clients */
    const struct meed_adapter **members; /* [cols] */
    double *products;                    /* [rows, cols] */
};

static void fill_rows(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct table *table = user;
    for (int64_t row = begin; row < end; row++) {
        for (int64_t col = row; col < table->cols; col++) {
            double product = adapter_product(table->members[row], table->members[col]);
            table->products[row * table->cols + col] = product;
        }
    }
}

static double product(const struct table *table, int32_t x, int32_t y)
{
    return x <= y ? table->products[(int64_t)x * table->cols + y]
                  : table->products[(int64_t)y * table->cols + x];
}

/* ⟨client i − global, to − from⟩; one of the four has to be in the rows, and is. */
static double step_product(const struct table *table, int32_t i, int32_t to, int32_t from)
{
    int32_t global = table->rows - 1;
    return (product(table, i, to) - product(table, global, to)) -
           (product(table, i, from) - product(table, global, from));
}

/* ---- screens --------------------------------------------------------------------------------- */

struct screen {
    const struct meed_adapter *global;
    const struct meed_adapter *const *clients;
    const char *const *names;
    int32_t count;
    const struct meed_defence_past *past;
    const struct meed_defence_options *options;
    struct meed_defence_client *verdicts;
    struct table table;
    double *past_norms; /* [table.cols − table.rows]: the global step, then past updates */
};

static void exclude(struct meed_defence_client *client, const char *reason)
{
    client->verdict = MEED_DEFENCE_EXCLUDE;
    client->factor = 0.0;
    snprintf(client->reason, sizeof client->reason, "%s", reason);
}

static bool all_finite(const struct meed_adapter *adapter)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        const struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t i = 0; i < module->r * module->k; i++) {
            if (!isfinite(module->a[i])) {
                return false;
            }
        }
        for (int64_t i = 0; i < module->n * module->r; i++) {
            if (!isfinite(module->b[i])) {
                return false;
            }
        }
    }
    return true;
}

/* Norms; 0 exactly for unchanged updates, which no screen below touches. */
static void measure_norms(struct screen *screen)
{
    int32_t global = screen->count;
    for (int32_t i = 0; i < screen->count; i++) {
        struct meed_defence_client *client = &screen->verdicts[i];
        if (client->verdict == MEED_DEFENCE_EXCLUDE ||
            meed_adapter_equal(screen->clients[i], screen->global)) {
            continue;
        }
        client->norm = sqrt(fmax(step_product(&screen->table, i, i, global), 0.0));
        if (!isfinite(client->norm)) {
            client->norm = 0.0;
            exclude(client, "its numbers are too large to be a trained update");
        }
    }
}

static bool moves(const struct screen *screen, int32_t i)
{
    return screen->verdicts[i].verdict != MEED_DEFENCE_EXCLUDE && screen->verdicts[i].norm > 0.0;
}

static void screen_replays(struct screen *screen)
{
    int32_t base = screen->table.rows, global = screen->count;
    if (!screen->past) {
        return;
    }
    for (int32_t i = 0; i < screen->count; i++) {
        for (int32_t j = -1; j < screen->past->count && moves(screen, i); j++) {
            double norm = screen->past_norms[j + 1];
            double with = step_product(&screen->table, i, j < 0 ? global : base + 1 + j, base);
            if (norm > 0.0 &&
                with > screen->options->same_cosine * norm * screen->verdicts[i].norm) {
                exclude(&screen->verdicts[i],
                        j < 0 ? "a replay: it points exactly along the last global step"
                              : "a replay: it equals an update of the round before");
            }
        }
    }
}

static void screen_duplicates(struct screen *screen)
{
    int32_t global = screen->count;
    for (int32_t i = 0; i < screen->count; i++) {
        for (int32_t j = i + 1; j < screen->count && moves(screen, i); j++) {
            double both = screen->verdicts[i].norm * screen->verdicts[j].norm;
            if (!moves(screen, j) || !(step_product(&screen->table, i, j, global) >
                                       screen->options->same_cosine * both)) {
                continue;
            }
            char reason[MEED_LIMIT_REASON_BYTES];
            snprintf(reason, sizeof reason, "the same update as %s's: counted once",
                     screen->names[i]);
            exclude(&screen->verdicts[j], reason);
        }
    }
}

static int by_value(const void *x, const void *y)
{
    double left = *(const double *)x, right = *(const double *)y;
    return (left > right) - (left < right);
}

static enum meed_status screen_norms(struct screen *screen)
{
    double *norms = meed_heap_alloc((size_t)screen->count, sizeof *norms);
    if (!norms) {
        return MEED_NOMEM;
    }
    int32_t moving = 0;
    for (int32_t i = 0; i < screen->count; i++) {
        if (moves(screen, i)) {
            norms[moving++] = screen->verdicts[i].norm;
        }
    }
    qsort(norms, (size_t)moving, sizeof *norms, by_value);
    double median = moving > 0 ? 0.5 * (norms[(moving - 1) / 2] + norms[moving / 2]) : 0.0;
    meed_heap_free(norms);
    double most = screen->options->clip_multiple * median;
    for (int32_t i = 0; i < screen->count && moving >= 3 && most > 0.0; i++) {
        struct meed_defence_client *client = &screen->verdicts[i];
        if (!moves(screen, i) || client->norm <= most) {
            continue;
        }
        client->verdict = MEED_DEFENCE_CLIP;
        client->factor = most / client->norm;
        snprintf(client->reason, sizeof client->reason,
                 "clipped: %.3g times the median norm, cut to %.3g", client->norm / median,
                 screen->options->clip_multiple);
    }
    return MEED_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static enum meed_status build_table(struct screen *screen, struct meed_pool *pool)
{
    struct table *table = &screen->table;
    int32_t past = screen->past ? 1 + screen->past->count : 0;
    table->rows = screen->count + 1;
    table->cols = table->rows + past;
    table->members = meed_heap_alloc((size_t)table->cols, sizeof *table->members);
    table->products =
        meed_heap_alloc((size_t)table->rows * (size_t)table->cols, sizeof *table->products);
    screen->past_norms = meed_heap_alloc((size_t)past, sizeof *screen->past_norms);
    if (!table->members || !table->products || !screen->past_norms) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < screen->count; i++) {
        /* An excluded one stands in as the global adapter, so that no NaN gets into the table. */
        bool out = screen->verdicts[i].verdict == MEED_DEFENCE_EXCLUDE;
        table->members[i] = out ? screen->global : screen->clients[i];
    }
    table->members[screen->count] = screen->global;
    for (int32_t i = 0; i < past; i++) {
        table->members[table->rows + i] =
            i == 0 ? screen->past->base : screen->past->clients[i - 1];
    }
    meed_pool_for(pool, table->rows, 1, fill_rows, table);
    for (int32_t i = 0; i < past; i++) {
        const struct meed_adapter *base = screen->past->base;
        const struct meed_adapter *to = i == 0 ? screen->global : screen->past->clients[i - 1];
        double square = meed_adapter_equal(to, base)
                            ? 0.0
                            : adapter_product(to, to) - 2.0 * adapter_product(to, base) +
                                  adapter_product(base, base);
        screen->past_norms[i] = sqrt(fmax(square, 0.0));
    }
    return MEED_OK;
}

enum meed_status meed_defence_screen(const struct meed_adapter *global,
                                     const struct meed_adapter *const *clients,
                                     const char *const *names, int32_t count,
                                     const struct meed_defence_past *past,
                                     const struct meed_defence_options *options,
                                     struct meed_pool *pool, struct meed_defence_client *verdicts)
{
    enum meed_status st = MEED_OK;
    struct screen screen = {global, clients, names, count, past, options, verdicts, {0}, NULL};
    for (int32_t i = 0; i < count; i++) {
        verdicts[i] = (struct meed_defence_client){.verdict = MEED_DEFENCE_ACCEPT, .factor = 1.0};
        if (!meed_adapter_same_shape(global, clients[i])) {
            exclude(&verdicts[i], "its shapes are not those of the plan");
        } else if (!all_finite(clients[i])) {
            exclude(&verdicts[i], "it holds a value that is not finite");
        }
    }
    MEED_TRY_OUT(build_table(&screen, pool));
    measure_norms(&screen);
    screen_replays(&screen);
    screen_duplicates(&screen);
    MEED_TRY_OUT(screen_norms(&screen));
out:
    meed_heap_free(screen.table.members);
    meed_heap_free(screen.table.products);
    meed_heap_free(screen.past_norms);
    return st;
}
