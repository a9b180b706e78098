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
#include "server/adapter_product.h"

/* ---- the table of products ------------------------------------------------------------------- */

struct table {
    int32_t rows;                    /* clients, then global */
    int32_t cols;                    /* the rows, then the past base and its clients */
    struct meed_adapter_pair *pairs; /* row by row, columns from the diagonal on */
};

/* Of ⟨member x, member y⟩ in table.pairs, x ≤ y. */
static int64_t pair_index(const struct table *table, int64_t x, int64_t y)
{
    return x * table->cols - x * (x - 1) / 2 + (y - x);
}

static double product(const struct table *table, int32_t x, int32_t y)
{
    return table->pairs[pair_index(table, MEED_MIN(x, y), MEED_MAX(x, y))].product;
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

/* An excluded client stands in as the global adapter, so that no NaN gets into the table. */
static const struct meed_adapter *member(const struct screen *screen, int32_t i)
{
    int32_t rows = screen->table.rows;
    if (i < screen->count && screen->verdicts[i].verdict != MEED_DEFENCE_EXCLUDE) {
        return screen->clients[i];
    }
    if (i < rows) {
        return screen->global;
    }
    return i == rows ? screen->past->base : screen->past->clients[i - rows - 1];
}

/* Of the global step and of the past updates. Two more products each stand behind the table. */
static void measure_past(struct screen *screen, const struct meed_adapter_pair *behind)
{
    const struct table *table = &screen->table;
    int32_t global = screen->count, base = table->rows;
    for (int32_t i = 0; i < table->cols - table->rows; i++) {
        const struct meed_adapter *to = i == 0 ? screen->global : member(screen, base + i);
        double own = i == 0 ? product(table, global, global) : behind[2 * i].product;
        double with = i == 0 ? product(table, global, base) : behind[2 * i + 1].product;
        bool same = meed_adapter_equal(to, screen->past->base);
        double square = same ? 0.0 : own - 2.0 * with + behind[0].product;
        screen->past_norms[i] = sqrt(fmax(square, 0.0));
    }
}

static enum meed_status build_table(struct screen *screen, struct meed_pool *pool)
{
    struct table *table = &screen->table;
    int32_t past = screen->past ? 1 + screen->past->count : 0;
    table->rows = screen->count + 1;
    table->cols = table->rows + past;
    int64_t in_table = pair_index(table, table->rows - 1, table->cols - 1) + 1;
    int64_t all = in_table + 2 * (int64_t)past;
    table->pairs = meed_heap_alloc((size_t)all, sizeof *table->pairs);
    screen->past_norms = meed_heap_alloc((size_t)past, sizeof *screen->past_norms);
    if (!table->pairs || !screen->past_norms) {
        return MEED_NOMEM;
    }
    struct meed_adapter_pair *next = table->pairs;
    for (int32_t x = 0; x < table->rows; x++) {
        for (int32_t y = x; y < table->cols; y++) {
            *next++ = (struct meed_adapter_pair){member(screen, x), member(screen, y), 0.0};
        }
    }
    for (int32_t i = 0; i < past; i++) {
        const struct meed_adapter *from = screen->past->base;
        const struct meed_adapter *to = member(screen, table->rows + i);
        *next++ = (struct meed_adapter_pair){to, to, 0.0};
        *next++ = (struct meed_adapter_pair){to, from, 0.0};
    }
    meed_adapter_products(table->pairs, (int32_t)all, pool);
    measure_past(screen, table->pairs + in_table);
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
    meed_heap_free(screen.table.pairs);
    meed_heap_free(screen.past_norms);
    return st;
}
