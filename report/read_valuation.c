/* The JSON of `meed value --json`; see read_kinds.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/read_kinds.h"

enum { COALITIONS_MOST = 1 << 20, PAIRS_MOST = 1 << 23 };

static enum meed_status read_axes(const struct meed_read_place *place, const json_t *client,
                                  int32_t k, struct meed_run_record *record)
{
    const json_t *axes = json_object_get(client, "axes");
    void *block = NULL;
    if (k == 0) { /* the first client names them */
        size_t axis_count = json_object_size(axes), count = (size_t)record->client_count;
        MEED_TRY(meed_run_record_array(record, axis_count, sizeof *record->axes, &block));
        record->axes = block;
        const char *name = NULL;
        const json_t *value = NULL;
        json_object_foreach((json_t *)axes, name, value)
        {
            struct meed_run_axis *axis = &record->axes[record->axis_count++];
            MEED_TRY(meed_run_record_text(record, name, &axis->name));
            MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
            axis->phi = block;
            MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
            axis->se = block;
        }
    }
    for (int32_t a = 0; a < record->axis_count; a++) {
        const struct meed_run_axis *axis = &record->axes[a];
        struct meed_read_place here = meed_read_place_in(place, "axes", -1);
        struct meed_read_place inner = meed_read_place_in(&here, axis->name, -1);
        const json_t *value = json_object_get(axes, axis->name);
        MEED_TRY(meed_read_number(&inner, value, "phi", &axis->phi[k]));
        axis->se[k] = NAN;
        MEED_TRY(meed_read_number_maybe(&inner, value, "se", &axis->se[k]));
    }
    return MEED_OK;
}

static enum meed_status read_clients(const struct meed_read_place *place, const json_t *root,
                                     struct meed_run_record *record)
{
    const json_t *clients = NULL;
    MEED_TRY(meed_read_clients(place, root, "clients", record, &clients));
    struct meed_run_round *round = record->rounds;
    MEED_TRY(meed_run_record_cells(record, &round->cells));
    for (int32_t k = 0; k < record->client_count; k++) {
        struct meed_read_place here = meed_read_place_in(place, "clients", k);
        const json_t *client = json_array_get(clients, (size_t)k);
        MEED_TRY(meed_read_cell(&here, client, record, &round->cells[k]));
        MEED_TRY(read_axes(&here, client, k, record));
        record->totals[k] = round->cells[k].share;
    }
    return MEED_OK;
}

/* "bank, clinic" in the arena. */
static enum meed_status members_text(const struct meed_read_place *place, const json_t *coalition,
                                     struct meed_run_record *record,
                                     struct meed_run_coalition *made)
{
    const json_t *members = json_object_get(coalition, "members");
    char text[512];
    size_t used = 0;
    if (!json_is_array(members)) {
        return meed_read_fail(place, "members", "a list of clients");
    }
    made->size = (int32_t)json_array_size(members);
    text[0] = '\0';
    for (size_t i = 0; i < json_array_size(members); i++) {
        const char *id = json_string_value(json_array_get(members, i));
        if (!id || meed_run_record_find(record, id) < 0) {
            return meed_read_fail(place, "members", "a list of clients");
        }
        if (used < sizeof text) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? ", " : "", id);
        }
    }
    return meed_run_record_text(record, made->size ? text : "nobody", &made->members);
}

static enum meed_status read_coalitions(const struct meed_read_place *place, const json_t *root,
                                        struct meed_run_record *record)
{
    const json_t *coalitions = NULL;
    void *block = NULL;
    MEED_TRY(meed_read_list(place, root, "coalitions", COALITIONS_MOST, &coalitions));
    size_t count = json_array_size(coalitions);
    MEED_TRY(meed_run_record_array(record, count, sizeof *record->coalitions, &block));
    record->coalitions = block;
    for (size_t i = 0; i < count; i++) {
        struct meed_read_place here = meed_read_place_in(place, "coalitions", (int32_t)i);
        const json_t *coalition = json_array_get(coalitions, i);
        struct meed_run_coalition *made = &record->coalitions[i];
        MEED_TRY(meed_read_number(&here, coalition, "value", &made->value));
        MEED_TRY(members_text(&here, coalition, record, made));
        record->coalition_count++;
    }
    return MEED_OK;
}

/* ---- pairs -----------------------------------------------------------------------------------
 */
static const struct {
    const char *key, *title, *note;
    double full;
} pair_kinds[MEED_RUN_PAIRS_MOST] = {
    {"interaction", "Interaction",
     "Shapley interaction: below zero the two replace each other, "
     "above zero they complete each other.",
     0},
    {"overlap", "Overlap", "v(i) + v(j) − v(ij) − v(∅): above zero two updates teach the same.", 0},
    {"cosine", "Cosine of updates", "near one: the same update sent twice.", 1},
};

static enum meed_status read_pair(const struct meed_read_place *place, const json_t *pair,
                                  const char *key, struct meed_run_record *record, double *values)
{
    const json_t *members = json_object_get(pair, "members");
    const char *first = json_string_value(json_array_get(members, 0));
    const char *second = json_string_value(json_array_get(members, 1));
    int32_t i = first ? meed_run_record_find(record, first) : -1;
    int32_t j = second ? meed_run_record_find(record, second) : -1;
    if (i < 0 || j < 0 || i == j) {
        return meed_read_fail(place, "members", "a pair of clients");
    }
    MEED_TRY(meed_read_number_maybe(place, pair, key, &values[i * record->client_count + j]));
    values[j * record->client_count + i] = values[i * record->client_count + j];
    return MEED_OK;
}

static enum meed_status read_pairs(const struct meed_read_place *place, const json_t *root,
                                   struct meed_run_record *record)
{
    const json_t *pairs = NULL;
    if (!json_object_get(root, "pairs")) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_list(place, root, "pairs", PAIRS_MOST, &pairs));
    size_t cells = (size_t)record->client_count * (size_t)record->client_count;
    for (size_t kind = 0; kind < MEED_COUNT(pair_kinds); kind++) {
        void *block = NULL;
        bool known = false;
        MEED_TRY(meed_run_record_array(record, cells, sizeof(double), &block));
        double *values = block;
        for (size_t i = 0; i < cells; i++) {
            values[i] = NAN;
        }
        for (size_t i = 0; i < json_array_size(pairs); i++) {
            struct meed_read_place here = meed_read_place_in(place, "pairs", (int32_t)i);
            const json_t *pair = json_array_get(pairs, i);
            known = known || json_object_get(pair, pair_kinds[kind].key);
            MEED_TRY(read_pair(&here, pair, pair_kinds[kind].key, record, values));
        }
        if (known) {
            record->pairs[record->pair_count++] = (struct meed_run_pair){
                pair_kinds[kind].title, pair_kinds[kind].note, pair_kinds[kind].full, values};
        }
    }
    return MEED_OK;
}

enum meed_status meed_read_valuation(const char *path, const json_t *root,
                                     struct meed_run_record *record)
{
    static const struct meed_read_fact facts[] = {
        {"method", "estimator"},
        {"rule", "payment rule"},
        {"path", "scored by"},
        {"evaluations", "coalitions scored"},
        {"tokens", "tokens"},
        {"draws", "draws"},
        {"stop", "stopped by"},
        {"residual", "residual"},
        {"value_kept", "value without the excluded"},
        {"model", "model"},
        {"benchmark", "benchmark"},
        {"utilities", "utilities"},
    };
    struct meed_read_place place = {.file = path};
    void *block = NULL;
    record->kind = "valuation";
    MEED_TRY(meed_read_integer(&place, root, "budget", &record->budget));
    MEED_TRY(meed_run_record_array(record, 1, sizeof *record->rounds, &block));
    record->rounds = block;
    record->rounds[0] = (struct meed_run_round){
        .number = 1, .budget = record->budget, .value_kept = NAN, .value_full = NAN};
    record->round_count = 1;
    MEED_TRY(meed_read_number(&place, root, "value_empty", &record->rounds[0].value_empty));
    MEED_TRY(meed_read_number(&place, root, "value_full", &record->rounds[0].value_full));
    MEED_TRY(read_clients(&place, root, record));
    MEED_TRY(read_coalitions(&place, root, record));
    MEED_TRY(read_pairs(&place, root, record));
    const char *note = json_string_value(json_object_get(root, "note"));
    snprintf(record->note, sizeof record->note, "%s", note ? note : "");
    return meed_read_facts(root, facts, MEED_COUNT(facts), record);
}
