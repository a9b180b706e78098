/* See value_pairs.h. ⟨ΔW_i, ΔW_j⟩ with ΔW_k = s_k B_k A_k − s_g B_g A_g comes from products of
 * adapters (server/adapter_product.h), so no ΔW is ever formed. */
#include "cli/value_pairs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "cli/score_session.h"
#include "evaluation/interaction.h"
#include "server/adapter_product.h"

enum { VALUED_MOST = 10, SHOWN_MOST = 5, ID_COLUMNS = 36 };

/* Products of every two of count adapters, the upper triangle by rows. */
static enum meed_status products_make(const struct meed_adapter *const *adapters, int32_t count,
                                      struct meed_pool *pool, double *gram)
{
    int32_t rows = 0;
    struct meed_adapter_pair *pairs =
        meed_heap_alloc((size_t)count * (size_t)(count + 1) / 2, sizeof *pairs);
    if (!pairs) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        for (int32_t j = i; j < count; j++) {
            pairs[rows++] = (struct meed_adapter_pair){.x = adapters[i], .y = adapters[j]};
        }
    }
    meed_adapter_products(pairs, rows, pool);
    rows = 0;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t j = i; j < count; j++, rows++) {
            gram[i * count + j] = gram[j * count + i] = pairs[rows].product;
        }
    }
    meed_heap_free(pairs);
    return MEED_OK;
}

/* Clients' products less the global adapter, which is the last row if there is one. */
static double update_product(const double *gram, int32_t width, int32_t players, int32_t i,
                             int32_t j)
{
    double product = gram[i * width + j];
    if (width > players) {
        const double *global = gram + (int64_t)players * width;
        product += global[players] - global[i] - global[j];
    }
    return product;
}

static void pair_fill(const struct meed_valuation *v, const double *gram, int32_t width,
                      struct meed_value_pair *pair)
{
    int32_t i = pair->first, j = pair->second;
    double norms = sqrt(fmax(update_product(gram, width, v->players, i, i), 0)) *
                   sqrt(fmax(update_product(gram, width, v->players, j, j), 0));
    pair->cosine = norms > 0 ? update_product(gram, width, v->players, i, j) / norms : 0;
    pair->valued = v->method == MEED_VALUE_EXACT && v->players <= VALUED_MOST;
    if (pair->valued) {
        pair->interaction = meed_interaction_index(v->coalition_values, v->players, i, j);
        pair->overlap = meed_interaction_overlap(v->coalition_values, i, j);
    }
}

enum meed_status meed_value_pairs_make(const struct meed_valuation *valuation,
                                       const struct meed_adapter *global,
                                       const struct meed_adapter *const *adapters,
                                       struct meed_pool *pool, struct meed_value_pairs *pairs)
{
    enum meed_status st = MEED_OK;
    int32_t n = valuation->players, width = n + (global ? 1 : 0);
    const struct meed_adapter *all[MEED_VALUE_PAIRS_MAX + 1];
    *pairs = (struct meed_value_pairs){0};
    if (n > MEED_VALUE_PAIRS_MAX || n < 2) {
        return MEED_OK;
    }
    memcpy(all, adapters, (size_t)n * sizeof *all);
    all[n] = global;
    double *gram = meed_heap_alloc((size_t)width * (size_t)width, sizeof *gram);
    pairs->pairs = meed_heap_alloc((size_t)n * (size_t)n / 2, sizeof *pairs->pairs);
    if (!gram || !pairs->pairs) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(products_make(all, width, pool, gram));
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = i + 1; j < n; j++) {
            struct meed_value_pair *pair = &pairs->pairs[pairs->count++];
            pair->first = i;
            pair->second = j;
            pair_fill(valuation, gram, width, pair);
        }
    }
out:
    meed_heap_free(gram);
    return st;
}

void meed_value_pairs_clear(struct meed_value_pairs *pairs)
{
    meed_heap_free(pairs->pairs);
    *pairs = (struct meed_value_pairs){0};
}

static double weight_of(const struct meed_value_pair *pair)
{
    return fabs(pair->valued ? pair->interaction : pair->cosine);
}

static int heavier_first(const void *left, const void *right)
{
    const struct meed_value_pair *x = *(const struct meed_value_pair *const *)left;
    const struct meed_value_pair *y = *(const struct meed_value_pair *const *)right;
    if (weight_of(x) != weight_of(y)) {
        return weight_of(x) > weight_of(y) ? -1 : 1;
    }
    return x < y ? -1 : 1;
}

void meed_value_pairs_print(const struct meed_value_pairs *pairs, const char *const *ids)
{
    const struct meed_value_pair *order[MEED_VALUE_PAIRS_MAX * MEED_VALUE_PAIRS_MAX / 2];
    if (pairs->count == 0) {
        return;
    }
    for (int32_t i = 0; i < pairs->count; i++) {
        order[i] = &pairs->pairs[i];
    }
    qsort(order, (size_t)pairs->count, sizeof(void *), heavier_first);
    printf("\n");
    meed_score_session_cell("pair", ID_COLUMNS, false);
    meed_score_session_cell("cosine", 8, true);
    if (pairs->pairs[0].valued) {
        meed_score_session_cell("overlap", 12, true);
        meed_score_session_cell("interaction", 14, true);
    }
    printf("\n");
    for (int32_t i = 0; i < pairs->count && i < SHOWN_MOST; i++) {
        char name[2 * MEED_VALUE_REASON_BYTES];
        snprintf(name, sizeof name, "%s, %s", ids[order[i]->first], ids[order[i]->second]);
        meed_score_session_cell(name, ID_COLUMNS, false);
        printf("%+8.3f", order[i]->cosine);
        if (order[i]->valued) {
            printf("%+12.5f%+14.5f", order[i]->overlap, order[i]->interaction);
        }
        printf("\n");
    }
}

json_t *meed_value_pairs_json(const struct meed_value_pairs *pairs, const char *const *ids)
{
    json_t *rows = json_array();
    for (int32_t i = 0; i < pairs->count; i++) {
        const struct meed_value_pair *pair = &pairs->pairs[i];
        json_t *row = json_pack("{s:[s,s], s:f}", "members", ids[pair->first], ids[pair->second],
                                "cosine", pair->cosine);
        if (pair->valued) {
            json_object_set_new(row, "overlap", json_real(pair->overlap));
            json_object_set_new(row, "interaction", json_real(pair->interaction));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}
