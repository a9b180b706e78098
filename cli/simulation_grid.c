/* See simulation_grid.h. */
#include "cli/simulation_grid.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "cli/training_setting.h"
#include "evaluation/payment.h"
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

/* Of sweep `sweep` in combination `row`. */
static const char *value_of(const struct meed_simulation_plan *plan, int32_t row, int32_t sweep)
{
    for (int32_t i = plan->sweep_count - 1; i > sweep; i--) {
        row /= plan->sweeps[i].value_count;
    }
    return plan->sweeps[sweep].values[row % plan->sweeps[sweep].value_count];
}

/* The piece between the pluses before and after; false if there are not so many. */
static bool piece(const char *text, int32_t idx, char found[MEED_SIMULATION_SETTING_BYTES])
{
    for (; idx > 0; idx--) {
        text = strchr(text, '+');
        if (!text) {
            return false;
        }
        text++;
    }
    snprintf(found, MEED_SIMULATION_SETTING_BYTES, "%.*s", (int)strcspn(text, "+"), text);
    return true;
}

static bool about_attacks(const char *key)
{
    return strcmp(key, "attack") == 0 || strcmp(key, "share") == 0 || strcmp(key, "strength") == 0;
}

bool meed_simulation_grid_setting(const struct meed_simulation_plan *plan,
                                  const struct meed_simulation_point *point, int32_t idx,
                                  struct meed_simulation_setting *setting)
{
    for (int32_t i = 0; i < plan->sweep_count; i++) {
        const char *key = plan->sweeps[i].key, *value = value_of(plan, point->row, i);
        bool several = strchr(key, '+') != NULL;
        for (int32_t at = 0; piece(key, at, setting->key); at++) {
            if ((point->clean && about_attacks(setting->key)) || idx-- > 0) {
                continue;
            }
            if (!several || !piece(value, at, setting->value)) {
                snprintf(setting->value, sizeof setting->value, "%s", value);
            }
            return true;
        }
    }
    return false;
}

enum meed_status meed_simulation_grid_key(const struct meed_simulation_plan *plan,
                                          const struct meed_simulation_point *point,
                                          char key[MEED_SIMULATION_KEY_BYTES])
{
    struct meed_simulation_setting setting;
    size_t used = (size_t)snprintf(key, MEED_SIMULATION_KEY_BYTES, point->clean ? "clean," : "");
    for (int32_t i = 0; meed_simulation_grid_setting(plan, point, i, &setting); i++) {
        used += (size_t)snprintf(key + used, MEED_SIMULATION_KEY_BYTES - used, "%s=%s,",
                                 setting.key, setting.value);
        if (used >= MEED_SIMULATION_KEY_BYTES) {
            return MEED_FAIL(MEED_CONFIG,
                             "simulate.sweep: the settings of one cell are longer than a file's "
                             "name can be; sweep fewer at once");
        }
    }
    int size = snprintf(key + used, MEED_SIMULATION_KEY_BYTES - used, "seed=%llu",
                        (unsigned long long)plan->seeds[point->seed_idx]);
    return used + (size_t)size < MEED_SIMULATION_KEY_BYTES
               ? MEED_OK
               : MEED_FAIL(MEED_CONFIG, "simulate.sweep: no room for the seed in a file's name");
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

static enum meed_status set_scheme(struct meed_federation_file *file, const char *value)
{
    return meed_simulation_scheme_parse(value, &file->simulation.scheme);
}

static enum meed_status set_canaries(struct meed_federation_file *file, const char *value)
{
    if (file->simulation.leakage.examples == 0) {
        return MEED_FAIL(MEED_CONFIG,
                         "canaries are planted where leakage is measured; add leakage: "
                         "{examples: 100} to simulate:");
    }
    return meed_parse_i64("canaries", value, 0, 100, &file->simulation.leakage.canaries);
}

static enum meed_status set_lr(struct meed_federation_file *file, const char *value)
{
    double floor_ratio = file->plan.lr_min / file->plan.lr;
    MEED_TRY(meed_parse_f64("lr", value, 1e-9, 10, &file->plan.lr));
    file->plan.lr_min = floor_ratio * file->plan.lr;
    return MEED_OK;
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
    return meed_payment_rule_parse(value, &file->rule);
}

static enum meed_status set_reputation(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("reputation", value, 0, MEED_PAYMENT_MAX_REPUTATION, &file->reputation);
}

static enum meed_status set_floor(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("floor", value, 0, 1, &file->pay_floor);
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

static enum meed_status set_attackers(struct meed_federation_file *file, const char *value)
{
    return set_whole("attackers", value, 0, MEED_LIMIT_CLIENTS, &file->robust.attackers);
}

static enum meed_status set_trim(struct meed_federation_file *file, const char *value)
{
    return meed_parse_f64("trim", value, 0, 0.4999, &file->robust.trim);
}

static enum meed_status set_strikes(struct meed_federation_file *file, const char *value)
{
    return set_whole("strikes", value, 0, 100000, &file->quarantine.strikes);
}

static enum meed_status parse_action(const char *value, enum meed_defence_action *action)
{
    for (int i = 0; i < MEED_DEFENCE_ACTION_COUNT; i++) {
        if (strcmp(value, meed_defence_action_name((enum meed_defence_action)i)) == 0) {
            *action = (enum meed_defence_action)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "detectors can do default, off, flag or exclude");
}

/* Of all detectors; `span` does not exclude (defence.h) and makes its remark. */
static enum meed_status set_defence(struct meed_federation_file *file, const char *value)
{
    enum meed_defence_action action = MEED_DEFENCE_DEFAULT;
    MEED_TRY(parse_action(value, &action));
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        bool remark = action == MEED_DEFENCE_REFUSE && d == MEED_DETECTOR_SPAN;
        file->defence[d] = remark ? MEED_DEFENCE_REMARK : action;
    }
    return MEED_OK;
}

/* defence.norm, defence.gap … */
static enum meed_status set_detector(struct meed_federation_file *file, const char *name,
                                     const char *value)
{
    char list[128] = "";
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        const char *known = meed_detector_name((enum meed_detector)d);
        size_t used = strlen(list);
        if (strcmp(name, known) == 0) {
            return parse_action(value, &file->defence[d]);
        }
        snprintf(list + used, sizeof list - used, "%s%s", d > 0 ? ", " : "", known);
    }
    return MEED_FAIL(MEED_ARG, "no detector \"%.32s\"; there are %s", name, list);
}

static const struct {
    const char *key;
    set_fn set;
} settings[] = {
    {"attack", set_attack},
    {"share", set_share},
    {"strength", set_strength},
    {"partition", set_partition},
    {"alpha", set_alpha},
    {"dialogues", set_dialogues},
    {"clients", set_clients},
    {"scheme", set_scheme},
    {"canaries", set_canaries},
    {"rounds", set_rounds},
    {"lr", set_lr},
    {"steps", set_steps},
    {"rank", set_rank},
    {"method", set_method},
    {"rule", set_rule},
    {"clip", set_clip},
    {"guard_z", set_guard_z},
    {"aggregation", set_aggregation},
    {"attackers", set_attackers},
    {"trim", set_trim},
    {"strikes", set_strikes},
    {"defence", set_defence},
    {"reputation", set_reputation},
    {"floor", set_floor},
};

enum meed_status meed_simulation_grid_set(struct meed_federation_file *file, const char *key,
                                          const char *value)
{
    static const char detector[] = "defence.", training[] = "training.";
    enum meed_status st = MEED_NOT_FOUND;
    char list[256] = "";
    for (size_t i = 0; i < MEED_COUNT(settings) && st == MEED_NOT_FOUND; i++) {
        if (strcmp(key, settings[i].key) == 0) {
            st = settings[i].set(file, value);
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s, ", settings[i].key);
    }
    if (strncmp(key, detector, strlen(detector)) == 0) {
        st = set_detector(file, key + strlen(detector), value);
    }
    if (strncmp(key, training, strlen(training)) == 0) {
        st = meed_training_setting_set(&file->plan, key + strlen(training), value);
    }
    if (st == MEED_NOT_FOUND) {
        return MEED_FAIL(MEED_CONFIG,
                         "no setting \"%.32s\" to sweep; there are %sdefence.DETECTOR, "
                         "training.method, training.share, training.beta and training.mix",
                         key, list);
    }
    return st == MEED_OK ? MEED_OK
                         : MEED_FAIL(MEED_CONFIG, "%s cannot be \"%.32s\": %s", key, value,
                                     meed_last_error());
}

/* ---- cells ----------------------------------------------------------------------------------- */

static void take_attacks_away(struct meed_simulation_plan *plan)
{
    plan->attack = MEED_ATTACK_NONE;
    for (int32_t g = 0; g < plan->group_count; g++) {
        plan->groups[g].attack = MEED_ATTACK_NONE;
    }
}

static bool has_attackers(const struct meed_simulation_plan *plan)
{
    bool found = plan->attack != MEED_ATTACK_NONE &&
                 lround(plan->share * meed_simulation_plan_clients(plan)) > 0;
    for (int32_t g = 0; g < plan->group_count; g++) {
        found = found || plan->groups[g].attack != MEED_ATTACK_NONE;
    }
    return found;
}

enum meed_status meed_simulation_grid_cell(const struct meed_federation_file *from,
                                           const struct meed_simulation_point *point,
                                           struct meed_federation_file *file)
{
    struct meed_simulation_setting setting;
    *file = *from;
    file->seed = from->simulation.seeds[point->seed_idx];
    for (int32_t i = 0; meed_simulation_grid_setting(&from->simulation, point, i, &setting); i++) {
        if (strcmp(setting.value, MEED_SIMULATION_AS_IT_IS) != 0) {
            MEED_TRY(meed_simulation_grid_set(file, setting.key, setting.value));
        }
    }
    if (point->clean) {
        take_attacks_away(&file->simulation);
    }
    return MEED_OK;
}

enum meed_status meed_simulation_grid_twin(const struct meed_federation_file *from,
                                           const struct meed_simulation_point *point,
                                           struct meed_simulation_point *twin)
{
    enum meed_status st = MEED_OK;
    const struct meed_simulation_plan *plan = &from->simulation;
    struct meed_simulation_point found = {point->row, point->seed_idx, true}, other = found;
    char wanted[MEED_SIMULATION_KEY_BYTES], key[MEED_SIMULATION_KEY_BYTES];
    struct meed_federation_file *file = meed_heap_alloc(1, sizeof *file);
    if (!file) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(meed_simulation_grid_key(plan, &found, wanted));
    int32_t rows = meed_simulation_grid_rows(plan);
    for (other.row = 0; other.row < rows; other.row++) {
        struct meed_simulation_point as_is = {other.row, point->seed_idx, false};
        MEED_TRY_OUT(meed_simulation_grid_key(plan, &other, key));
        MEED_TRY_OUT(meed_simulation_grid_cell(from, &as_is, file));
        if (strcmp(key, wanted) == 0 && !has_attackers(&file->simulation)) {
            found = as_is;
            break;
        }
    }
    *twin = found;
out:
    meed_heap_free(file);
    return st;
}
