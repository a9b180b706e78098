/* See simulation_plan.h. */
#include "cli/simulation_plan.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "cli/yaml_schema.h"

static const cyaml_schema_value_t text_value = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, CYAML_UNLIMITED)};
static const cyaml_schema_value_t int_value = {CYAML_VALUE_INT(CYAML_FLAG_DEFAULT, int64_t)};
static const cyaml_schema_field_t partition_fields[] = {
    OPTIONAL_TEXT("kind", struct meed_simulation_raw_partition, kind),
    OPTIONAL_FLOAT("alpha", struct meed_simulation_raw_partition, alpha),
    OPTIONAL_INT("dialogues", struct meed_simulation_raw_partition, dialogues),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t attack_fields[] = {
    TEXT("kind", struct meed_simulation_raw_attack, kind),
    OPTIONAL_FLOAT("share", struct meed_simulation_raw_attack, share),
    OPTIONAL_FLOAT("strength", struct meed_simulation_raw_attack, strength),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t leakage_fields[] = {
    OPTIONAL_INT("examples", struct meed_simulation_raw_leakage, examples),
    OPTIONAL_INT("prefix", struct meed_simulation_raw_leakage, prefix),
    OPTIONAL_INT("new_tokens", struct meed_simulation_raw_leakage, new_tokens),
    OPTIONAL_INT("canaries", struct meed_simulation_raw_leakage, canaries),
    OPTIONAL_INT("repeat", struct meed_simulation_raw_leakage, repeat),
    OPTIONAL_INT("unseen", struct meed_simulation_raw_leakage, unseen),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t group_fields[] = {
    OPTIONAL_TEXT("name", struct meed_simulation_raw_group, name),
    OPTIONAL_TEXT("attack", struct meed_simulation_raw_group, attack),
    OPTIONAL_INT("count", struct meed_simulation_raw_group, count),
    OPTIONAL_FLOAT("strength", struct meed_simulation_raw_group, strength),
    OPTIONAL_FLOAT("quality", struct meed_simulation_raw_group, quality),
    OPTIONAL_FLOAT("amount", struct meed_simulation_raw_group, amount),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t group_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct meed_simulation_raw_group, group_fields),
};
static const cyaml_schema_field_t sweep_fields[] = {
    TEXT("key", struct meed_simulation_raw_sweep, key),
    CYAML_FIELD_SEQUENCE("values", CYAML_FLAG_POINTER, struct meed_simulation_raw_sweep, values,
                         &text_value, 1, MEED_SIMULATION_MAX_VALUES),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t sweep_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct meed_simulation_raw_sweep, sweep_fields),
};
const cyaml_schema_field_t meed_simulation_fields[] = {
    CYAML_FIELD_SEQUENCE("data", CYAML_FLAG_POINTER, struct meed_simulation_raw, data, &text_value,
                         1, MEED_SIMULATION_MAX_DATA),
    CYAML_FIELD_SEQUENCE("seeds", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                         struct meed_simulation_raw, seeds, &int_value, 1,
                         MEED_SIMULATION_MAX_SEEDS),
    CYAML_FIELD_MAPPING_PTR("partition", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            struct meed_simulation_raw, partition, partition_fields),
    CYAML_FIELD_MAPPING_PTR("attack", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            struct meed_simulation_raw, attack, attack_fields),
    CYAML_FIELD_MAPPING_PTR("leakage", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            struct meed_simulation_raw, leakage, leakage_fields),
    OPTIONAL_TEXT("scheme", struct meed_simulation_raw, scheme),
    CYAML_FIELD_SEQUENCE("clients", CYAML_FLAG_POINTER, struct meed_simulation_raw, clients,
                         &group_value, 1, MEED_SIMULATION_MAX_GROUPS),
    CYAML_FIELD_SEQUENCE("sweep", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                         struct meed_simulation_raw, sweep, &sweep_value, 1,
                         MEED_SIMULATION_MAX_SWEEPS),
    CYAML_FIELD_END,
};

#define GIVEN(field, fallback) ((field) ? *(field) : (fallback))

static enum meed_status in_range(const char *path, const char *key, double value, double min,
                                 double max)
{
    if (!(value >= min && value <= max)) {
        return MEED_FAIL(MEED_CONFIG, "%s: simulate.%s is %g; write a value from %g to %g", path,
                         key, value, min, max);
    }
    return MEED_OK;
}

/* The attack of that name and its strength, given or default. */
static enum meed_status resolve_attack(const char *path, const char *name, const double *strength,
                                       enum meed_attack *attack, double *resolved)
{
    if (meed_attack_parse(name, attack) != MEED_OK) {
        return MEED_FAIL(MEED_CONFIG, "%s: simulate: %s", path, meed_last_error());
    }
    const struct meed_attack_info *info = &meed_attack_infos[*attack];
    *resolved = GIVEN(strength, info->strength);
    return in_range(path, "attack strength", *resolved, info->min, info->max);
}

static enum meed_status resolve_group(const char *path, const struct meed_simulation_raw_group *raw,
                                      unsigned idx, struct meed_simulation_group *group)
{
    int64_t count = GIVEN(raw->count, INT64_C(1));
    MEED_TRY(in_range(path, "clients.count", (double)count, 1, MEED_SIMULATION_MAX_CLIENTS));
    group->count = (int32_t)count;
    if (raw->name) {
        snprintf(group->name, sizeof group->name, "%s", raw->name);
    } else {
        snprintf(group->name, sizeof group->name, "group-%u", idx + 1);
    }
    group->quality = GIVEN(raw->quality, 1.0);
    group->amount = GIVEN(raw->amount, 0.0);
    MEED_TRY(in_range(path, "clients.quality", group->quality, 0, 1));
    MEED_TRY(in_range(path, "clients.amount", group->amount, 0, 1e6));
    return resolve_attack(path, raw->attack ? raw->attack : "none", raw->strength, &group->attack,
                          &group->strength);
}

static int pluses(const char *text)
{
    int count = 0;
    for (; *text; text++) {
        count += *text == '+';
    }
    return count;
}

static enum meed_status resolve_sweep(const char *path, const struct meed_simulation_raw_sweep *raw,
                                      struct meed_simulation_sweep *sweep)
{
    int more = pluses(raw->key);
    if (strlen(raw->key) >= sizeof sweep->key) {
        return MEED_FAIL(MEED_CONFIG, "%s: simulate.sweep: the key \"%.40s…\" is too long", path,
                         raw->key);
    }
    snprintf(sweep->key, sizeof sweep->key, "%s", raw->key);
    sweep->value_count = (int32_t)raw->values_count;
    for (unsigned i = 0; i < raw->values_count; i++) {
        size_t size = strlen(raw->values[i]);
        if (size >= sizeof sweep->values[i] ||
            strspn(raw->values[i], "abcdefghijklmnopqrstuvwxyz0123456789._-+") != size) {
            return MEED_FAIL(MEED_CONFIG, "%s: simulate.sweep: \"%.40s\" is no value of a setting",
                             path, raw->values[i]);
        }
        if (more > 0 && pluses(raw->values[i]) != more) {
            return MEED_FAIL(MEED_CONFIG,
                             "%s: simulate.sweep: \"%.40s\" must be %d values with + between, one "
                             "for each key of \"%.64s\"",
                             path, raw->values[i], more + 1, raw->key);
        }
        memcpy(sweep->values[i], raw->values[i], size + 1);
    }
    return MEED_OK;
}

static enum meed_status resolve_lists(const char *path, const char *folder,
                                      const struct meed_simulation_raw *raw,
                                      struct meed_simulation_plan *plan)
{
    plan->data_count = (int32_t)raw->data_count;
    for (unsigned i = 0; i < raw->data_count; i++) {
        MEED_TRY(meed_file_join(raw->data[i][0] == '/' ? "" : folder, raw->data[i], plan->data[i],
                                sizeof plan->data[i]));
    }
    plan->seed_count = raw->seeds ? (int32_t)raw->seeds_count : 3;
    for (int32_t i = 0; i < plan->seed_count; i++) {
        int64_t seed = raw->seeds ? raw->seeds[i] : i + 1;
        MEED_TRY(in_range(path, "seeds", (double)seed, 0, 9e15));
        plan->seeds[i] = (uint64_t)seed;
    }
    plan->group_count = (int32_t)raw->clients_count;
    for (unsigned i = 0; i < raw->clients_count; i++) {
        MEED_TRY(resolve_group(path, &raw->clients[i], i, &plan->groups[i]));
    }
    plan->sweep_count = (int32_t)raw->sweep_count;
    for (unsigned i = 0; i < raw->sweep_count; i++) {
        MEED_TRY(resolve_sweep(path, &raw->sweep[i], &plan->sweeps[i]));
    }
    return MEED_OK;
}

const char *const meed_simulation_scheme_names[MEED_SIMULATION_SCHEME_COUNT] = {
    "federated", "centralised", "local"};

enum meed_status meed_simulation_scheme_parse(const char *name, enum meed_simulation_scheme *scheme)
{
    for (int i = 0; i < MEED_SIMULATION_SCHEME_COUNT; i++) {
        if (strcmp(name, meed_simulation_scheme_names[i]) == 0) {
            *scheme = (enum meed_simulation_scheme)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "no scheme \"%.32s\"; there are federated, centralised and local",
                     name);
}

static enum meed_status resolve_leakage(const char *path,
                                        const struct meed_simulation_raw_leakage *raw,
                                        struct meed_simulation_leak_plan *leakage)
{
    if (!raw) {
        return MEED_OK;
    }
    leakage->examples = GIVEN(raw->examples, INT64_C(100));
    leakage->prefix = GIVEN(raw->prefix, INT64_C(0));
    leakage->new_tokens = GIVEN(raw->new_tokens, INT64_C(32));
    leakage->canaries = GIVEN(raw->canaries, INT64_C(0));
    leakage->repeat = GIVEN(raw->repeat, INT64_C(1));
    leakage->unseen = GIVEN(raw->unseen, INT64_C(0));
    MEED_TRY(in_range(path, "leakage.examples", (double)leakage->examples, 0, 1e6));
    MEED_TRY(in_range(path, "leakage.prefix", (double)leakage->prefix, 0, 1000));
    MEED_TRY(in_range(path, "leakage.new_tokens", (double)leakage->new_tokens, 1, 1000));
    MEED_TRY(in_range(path, "leakage.canaries", (double)leakage->canaries, 0, 100));
    MEED_TRY(in_range(path, "leakage.unseen", (double)leakage->unseen, 0, 1e6));
    return in_range(path, "leakage.repeat", (double)leakage->repeat, 1, 100);
}

enum meed_status meed_simulation_plan_resolve(const char *path, const char *folder,
                                              const struct meed_simulation_raw *raw,
                                              struct meed_simulation_plan *plan)
{
    static const struct meed_simulation_raw_partition no_partition;
    static const struct meed_simulation_raw_attack no_attack;
    const struct meed_simulation_raw_partition *partition =
        raw->partition ? raw->partition : &no_partition;
    const struct meed_simulation_raw_attack *attack = raw->attack ? raw->attack : &no_attack;
    MEED_TRY(resolve_lists(path, folder, raw, plan));
    if (meed_partition_parse(partition->kind ? partition->kind : "iid", &plan->partition) !=
        MEED_OK) {
        return MEED_FAIL(MEED_CONFIG, "%s: simulate.partition: %s", path, meed_last_error());
    }
    plan->alpha = GIVEN(partition->alpha, 1.0);
    plan->dialogues = GIVEN(partition->dialogues, INT64_C(0));
    plan->share = GIVEN(attack->share, 0.0);
    plan->own_strength = attack->strength != NULL;
    if (raw->scheme && meed_simulation_scheme_parse(raw->scheme, &plan->scheme) != MEED_OK) {
        return MEED_FAIL(MEED_CONFIG, "%s: simulate.scheme: %s", path, meed_last_error());
    }
    MEED_TRY(resolve_leakage(path, raw->leakage, &plan->leakage));
    MEED_TRY(in_range(path, "partition.alpha", plan->alpha, 1e-3, 1e6));
    MEED_TRY(in_range(path, "partition.dialogues", (double)plan->dialogues, 0, 1e9));
    MEED_TRY(in_range(path, "attack.share", plan->share, 0, 1));
    MEED_TRY(resolve_attack(path, attack->kind ? attack->kind : "none", attack->strength,
                            &plan->attack, &plan->strength));
    return in_range(path, "clients (all counts)", meed_simulation_plan_clients(plan), 1,
                    MEED_SIMULATION_MAX_CLIENTS);
}

int32_t meed_simulation_plan_clients(const struct meed_simulation_plan *plan)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < plan->group_count; i++) {
        sum += plan->groups[i].count;
    }
    return sum;
}

enum meed_status meed_simulation_plan_resize(struct meed_simulation_plan *plan, int32_t clients)
{
    int32_t largest = 0;
    for (int32_t i = 0; i < plan->group_count; i++) {
        largest = plan->groups[i].count > plan->groups[largest].count ? i : largest;
    }
    int32_t count = clients - meed_simulation_plan_clients(plan) + plan->groups[largest].count;
    if (count < 1) {
        return MEED_FAIL(MEED_CONFIG, "%d clients are fewer than the groups name", clients);
    }
    plan->groups[largest].count = count;
    return MEED_OK;
}
