/* See simulation_grid.h. */
#include "cli/simulation_grid.h"

#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "server/aggregate.h"
#include "server/defence.h"

int32_t meed_simulation_grid_rows(const struct meed_simulation_plan *plan)
{
    int32_t rows = 1;
    for (int32_t i = 0; i < plan->sweep_count; i++) {
        rows *= plan->sweeps[i].value_count;
    }
    return rows;
}

int32_t meed_simulation_grid_value(const struct meed_simulation_plan *plan, int32_t row,
                                   int32_t sweep)
{
    for (int32_t i = plan->sweep_count - 1; i > sweep; i--) {
        row /= plan->sweeps[i].value_count;
    }
    return row % plan->sweeps[sweep].value_count;
}

void meed_simulation_grid_key(const struct meed_simulation_plan *plan, int32_t row,
                              int32_t seed_idx, char key[MEED_SIMULATION_KEY_BYTES])
{
    size_t used = 0;
    for (int32_t i = 0; i < plan->sweep_count; i++) {
        const struct meed_simulation_sweep *sweep = &plan->sweeps[i];
        const char *value = sweep->values[meed_simulation_grid_value(plan, row, i)];
        int size = snprintf(key + used, MEED_SIMULATION_KEY_BYTES - used, "%.20s=%.24s,",
                            sweep->key, value);
        used += (size_t)size;
    }
    snprintf(key + used, MEED_SIMULATION_KEY_BYTES - used, "seed=%llu",
             (unsigned long long)plan->seeds[seed_idx]);
}

/* ---- settings -------------------------------------------------------------------------------- */

typedef enum meed_status (*set_fn)(struct meed_federation_file *file, const char *value);

static enum meed_status set_whole(const char *key, const char *value, int64_t min, int64_t max,
                                  int32_t *target)
{
    int64_t found = 0;
    MEED_TRY(meed_parse_i64(key, value, min, max, &found));
    *target = (int32_t)found;
    return MEED_OK;
}

static enum meed_status set_attack(struct meed_federation_file *file, const char *value)
{
    struct meed_simulation_plan *plan = &file->simulation;
    MEED_TRY(meed_attack_parse(value, &plan->attack));
    if (!plan->own_strength) {
        plan->strength = meed_attack_infos[plan->attack].strength;
    }
    return MEED_OK;
}

static enum meed_status set_share(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("share", value, 0, 1, &file->simulation.share);
}

static enum meed_status set_strength(struct meed_federation_file *file, const char *value)
{
    file->simulation.own_strength = true;
    return meed_parse_f64("strength", value, 0, 1000, &file->simulation.strength);
}

static enum meed_status set_partition(struct meed_federation_file *file, const char *value)
{
    return meed_partition_parse(value, &file->simulation.partition);
}

static enum meed_status set_alpha(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("alpha", value, 1e-3, 1e6, &file->simulation.alpha);
}

static enum meed_status set_dialogues(struct meed_federation_file *file, const char *value)
{
    return meed_parse_i64("dialogues", value, 0, INT64_C(1000000000), &file->simulation.dialogues);
}

static enum meed_status set_clients(struct meed_federation_file *file, const char *value)
{
    int32_t clients = 0;
    MEED_TRY(set_whole("clients", value, 1, MEED_SIMULATION_MAX_CLIENTS, &clients));
    return meed_simulation_plan_resize(&file->simulation, clients);
}

static enum meed_status set_rounds(struct meed_federation_file *file, const char *value)
{
    return set_whole("rounds", value, 1, 100000, &file->rounds);
}

static enum meed_status set_steps(struct meed_federation_file *file, const char *value)
{
    return set_whole("steps", value, 1, 1000000, &file->plan.steps);
}

static enum meed_status set_rank(struct meed_federation_file *file, const char *value)
{
    double per_rank = file->plan.alpha / file->plan.rank;
    MEED_TRY(set_whole("rank", value, 1, MEED_ADAPTER_MAX_RANK, &file->plan.rank));
    file->plan.alpha = per_rank * file->plan.rank;
    return MEED_OK;
}

static enum meed_status set_method(struct meed_federation_file *file, const char *value)
{
    for (int i = 0; i < MEED_VALUE_METHOD_COUNT; i++) {
        if (strcmp(value, meed_estimator_name((enum meed_value_method)i)) == 0) {
            file->method = (enum meed_value_method)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "no method \"%.32s\" of valuation", value);
}

static enum meed_status set_rule(struct meed_federation_file *file, const char *value)
{
    bool proportional = strcmp(value, "proportional") == 0;
    if (!proportional && strcmp(value, "shrunk") != 0) {
        return MEED_FAIL(MEED_ARG, "no rule \"%.32s\"; there are shrunk and proportional", value);
    }
    file->rule = proportional ? MEED_PAY_PROPORTIONAL : MEED_PAY_SHRUNK;
    return MEED_OK;
}

static enum meed_status set_aggregation(struct meed_federation_file *file, const char *value)
{
    return meed_aggregate_parse(value, &file->aggregation);
}

static enum meed_status set_clip(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("clip", value, 0, 1e6, &file->clip_multiple);
}

static enum meed_status set_guard_z(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("guard_z", value, 0, 100, &file->guard_z);
}

static enum meed_status set_defence(struct meed_federation_file *file, const char *value)
{
    for (int i = 0; i < MEED_DEFENCE_ACTION_COUNT; i++) {
        if (strcmp(value, meed_defence_action_name((enum meed_defence_action)i)) == 0) {
            for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
                file->defence[d] = (enum meed_defence_action)i;
            }
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "detectors can do default, off, flag or exclude");
}

static const struct {
    const char *key;
    set_fn set;
} settings[] = {
    {"attack", set_attack},       {"share", set_share},     {"strength", set_strength},
    {"partition", set_partition}, {"alpha", set_alpha},     {"dialogues", set_dialogues},
    {"clients", set_clients},     {"rounds", set_rounds},   {"steps", set_steps},
    {"rank", set_rank},           {"method", set_method},   {"rule", set_rule},
    {"clip", set_clip},           {"guard_z", set_guard_z}, {"aggregation", set_aggregation},
    {"defence", set_defence},
};

enum meed_status meed_simulation_grid_set(struct meed_federation_file *file, const char *key,
                                          const char *value)
{
    char list[256] = "";
    for (size_t i = 0; i < MEED_COUNT(settings); i++) {
        if (strcmp(key, settings[i].key) == 0) {
            if (settings[i].set(file, value) != MEED_OK) {
                return MEED_FAIL(MEED_CONFIG, "%s cannot be \"%.32s\": %s", key, value,
                                 meed_last_error());
            }
            return MEED_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", settings[i].key);
    }
    return MEED_FAIL(MEED_CONFIG, "no setting \"%.32s\" to sweep; there are %s", key, list);
}

enum meed_status meed_simulation_grid_cell(const struct meed_federation_file *from, int32_t row,
                                           int32_t seed_idx, struct meed_federation_file *file)
{
    const struct meed_simulation_plan *plan = &from->simulation;
    *file = *from;
    file->seed = plan->seeds[seed_idx];
    for (int32_t i = 0; i < plan->sweep_count; i++) {
        const struct meed_simulation_sweep *sweep = &plan->sweeps[i];
        MEED_TRY(meed_simulation_grid_set(file, sweep->key,
                                          sweep->values[meed_simulation_grid_value(plan, row, i)]));
    }
    return MEED_OK;
}
