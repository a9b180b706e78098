/* See simulation_result.h. */
#include "cli/simulation_result.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "cli/simulation_grid.h"
#include "evaluation/statistics.h"
#include "server/aggregate.h"

#define RESULT_MAX_BYTES ((size_t)1 << 34)
enum {
    UTILITY_BEFORE,
    UTILITY_AFTER,
    BUDGET,
    PAID,
    HONEST_SHARE,
    ATTACKER_SHARE,
    AUROC,
    CAUGHT,
    FALSE_EXCLUSION,
    SPREAD,
    SPEARMAN_QUALITY,
    SPEARMAN_AMOUNT
};
const char *const meed_simulation_measures[MEED_SIMULATION_MEASURES] = {
    "utility_before", "utility_after",    "budget",
    "paid",           "honest_share",     "attacker_share",
    "auroc",          "caught",           "false_exclusion",
    "spread",         "spearman_quality", "spearman_amount"};

enum meed_status meed_simulation_result_create(int32_t rounds, int32_t clients,
                                               struct meed_simulation_result *result)
{
    void *block = NULL;
    memset(result, 0, sizeof *result);
    meed_arena_init_growing(&result->arena, "simulation result", RESULT_MAX_BYTES);
    MEED_TRY(
        meed_arena_alloc_array(&result->arena, (size_t)rounds, sizeof *result->rounds, &block));
    result->rounds = block;
    result->round_count = rounds;
    result->client_count = clients;
    for (int32_t r = 0; r < rounds; r++) {
        MEED_TRY(meed_arena_alloc_array(&result->arena, (size_t)clients,
                                        sizeof *result->rounds[r].seats, &block));
        result->rounds[r].seats = block;
    }
    return MEED_OK;
}

void meed_simulation_result_clear(struct meed_simulation_result *result)
{
    meed_arena_clear(&result->arena);
    memset(result, 0, sizeof *result);
}

/* ---- summary --------------------------------------------------------------------------------- */

/* Of one client over all rounds: credits, share of rounds in which it was excluded, mean score. */
static void add_up(const struct meed_simulation_result *result, int32_t client, double *share,
                   double *excluded, double *score)
{
    *share = *excluded = *score = 0.0;
    for (int32_t r = 0; r < result->round_count; r++) {
        const struct meed_simulation_seat *seat = &result->rounds[r].seats[client];
        *share += (double)seat->share;
        *score += fmax(seat->score, 0.0) / result->round_count;
        *excluded += seat->state == MEED_SEAT_EXCLUDED ? 1.0 / result->round_count : 0.0;
    }
}

struct tally {
    int32_t count, honest, attackers;
    double *suspicion, *pay, *quality, *amount; /* [count]; the last three of honest ones first */
    bool *positive;
};

static void tally_client(const struct meed_simulation_cast *cast,
                         const struct meed_simulation_result *result, int32_t i,
                         struct tally *tally, double *measures)
{
    const struct meed_simulation_member *member = &cast->members[i];
    double share = 0.0, excluded = 0.0, score = 0.0;
    add_up(result, i, &share, &excluded, &score);
    bool attacks = member->role.attack != MEED_ATTACK_NONE;
    tally->positive[i] = attacks;
    tally->suspicion[i] =
        excluded + 1e-2 * score / (1.0 + score) - 1e-4 * share / fmax(measures[BUDGET], 1.0);
    measures[PAID] += share;
    if (attacks) {
        tally->attackers++;
        measures[ATTACKER_SHARE] += share;
        measures[CAUGHT] += excluded;
        return;
    }
    tally->pay[tally->honest] = share;
    tally->quality[tally->honest] = member->quality;
    tally->amount[tally->honest++] = (double)member->dataset->count;
    measures[HONEST_SHARE] += share;
    measures[FALSE_EXCLUSION] += excluded;
}

static void conclude(const struct tally *tally, double *measures)
{
    double mean = tally->honest > 0 ? measures[HONEST_SHARE] / tally->honest : 0.0;
    measures[SPREAD] = mean > 0.0 ? 0.0 : NAN;
    for (int32_t i = 0; i < tally->honest && mean > 0.0; i++) {
        measures[SPREAD] = fmax(measures[SPREAD], fabs(tally->pay[i] / mean - 1.0));
    }
    measures[CAUGHT] = tally->attackers > 0 ? measures[CAUGHT] / tally->attackers : NAN;
    measures[FALSE_EXCLUSION] = tally->honest > 0 ? measures[FALSE_EXCLUSION] / tally->honest : NAN;
    measures[HONEST_SHARE] = measures[PAID] > 0.0 ? measures[HONEST_SHARE] / measures[PAID] : NAN;
    measures[ATTACKER_SHARE] =
        measures[PAID] > 0.0 ? measures[ATTACKER_SHARE] / measures[PAID] : NAN;
    measures[AUROC] = meed_statistics_auroc(tally->suspicion, tally->positive, tally->count);
    measures[SPEARMAN_QUALITY] =
        meed_statistics_spearman(tally->pay, tally->quality, tally->honest);
    measures[SPEARMAN_AMOUNT] = meed_statistics_spearman(tally->pay, tally->amount, tally->honest);
}

void meed_simulation_summarise(const struct meed_federation_file *file,
                               const struct meed_simulation_cast *cast,
                               const struct meed_simulation_result *result,
                               double measures[MEED_SIMULATION_MEASURES])
{
    size_t count = (size_t)cast->count;
    double *work = meed_heap_alloc(4 * count, sizeof *work);
    bool *positive = meed_heap_alloc(count, sizeof *positive);
    for (int i = 0; i < MEED_SIMULATION_MEASURES; i++) {
        measures[i] = work && positive ? 0.0 : NAN;
    }
    if (work && positive) {
        struct tally tally = {cast->count,      0,       0, work, work + count, work + 2 * count,
                              work + 3 * count, positive};
        measures[UTILITY_BEFORE] = result->rounds[0].utility_before;
        measures[UTILITY_AFTER] = result->rounds[result->round_count - 1].utility_after;
        measures[BUDGET] = (double)file->budget;
        for (int32_t i = 0; i < cast->count; i++) {
            tally_client(cast, result, i, &tally, measures);
        }
        conclude(&tally, measures);
    }
    meed_heap_free(work);
    meed_heap_free(positive);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

json_t *meed_simulation_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *meed_simulation_settings_json(const struct meed_simulation_plan *plan, int32_t row)
{
    json_t *settings = json_object();
    for (int32_t i = 0; i < plan->sweep_count; i++) {
        const struct meed_simulation_sweep *sweep = &plan->sweeps[i];
        json_object_set_new(settings, sweep->key,
                            json_string(sweep->values[meed_simulation_grid_value(plan, row, i)]));
    }
    return settings;
}

static json_t *axes_json(const struct meed_benchmark *benchmark)
{
    static const char *const kinds[] = {"likelihood", "contrast", "preference"};
    json_t *axes = json_array();
    for (int32_t i = 0; i < benchmark->axis_count; i++) {
        const struct meed_axis *axis = &benchmark->axes[i];
        json_array_append_new(axes, json_pack("{s:s, s:s, s:f, s:b}", "name", axis->name, "kind",
                                              kinds[axis->kind], "weight", axis->weight, "guard",
                                              axis->guard));
    }
    return axes;
}

static json_t *client_json(const struct meed_federation_file *file,
                           const struct meed_simulation_pool *pool,
                           const struct meed_simulation_member *member,
                           const struct meed_simulation_result *result, int32_t idx)
{
    double share = 0.0, excluded = 0.0, score = 0.0;
    json_t *labels = json_object();
    add_up(result, idx, &share, &excluded, &score);
    for (int32_t i = 0; i < pool->label_count; i++) {
        json_object_set_new(labels, pool->label_names[i], json_integer(member->label_counts[i]));
    }
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:I, s:I, s:o, s:I, s:i}", "id", member->id,
                     "group", file->simulation.groups[member->group].name, "attack",
                     meed_attack_infos[member->role.attack].name, "strength", member->role.strength,
                     "quality", member->quality, "dialogues", (json_int_t)member->dataset->count,
                     "tokens", (json_int_t)member->dataset->token_count, "labels", labels, "share",
                     (json_int_t)share, "excluded", (int)lround(excluded * result->round_count));
}

static json_t *seat_json(const struct meed_benchmark *benchmark, const char *id,
                         const struct meed_simulation_seat *seat)
{
    const char *state = seat->state == MEED_SEAT_PAID       ? "paid"
                        : seat->state == MEED_SEAT_UNPAID   ? "unpaid"
                        : seat->state == MEED_SEAT_EXCLUDED ? "excluded"
                                                            : "absent";
    json_t *axes = json_array();
    for (int32_t i = 0; seat->valued && i < benchmark->axis_count; i++) {
        json_array_append_new(axes, json_pack("{s:o, s:o}", "phi",
                                              meed_simulation_number(seat->axis_phi[i]), "se",
                                              meed_simulation_number(seat->axis_se[i])));
    }
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:o, s:o, s:I, s:I, s:o}", "id", id, "state",
                     state, "reason", seat->reason, "phi", meed_simulation_number(seat->phi), "se",
                     meed_simulation_number(seat->se), "share", (json_int_t)seat->share, "score",
                     meed_simulation_number(seat->score), "loss",
                     meed_simulation_number(seat->loss), "bytes_up", (json_int_t)seat->bytes_up,
                     "bytes_down", (json_int_t)seat->bytes_down, "axes", axes);
}

static json_t *round_json(const struct meed_benchmark *benchmark,
                          const struct meed_simulation_cast *cast,
                          const struct meed_simulation_round *round, int32_t number)
{
    json_t *axes = json_array(), *clients = json_array();
    for (int32_t i = 0; i < benchmark->axis_count; i++) {
        json_array_append_new(axes, json_pack("{s:o, s:o}", "value",
                                              meed_simulation_number(round->axis_value[i]), "se",
                                              meed_simulation_number(round->axis_se[i])));
    }
    for (int32_t i = 0; i < cast->count; i++) {
        json_array_append_new(clients, seat_json(benchmark, cast->members[i].id, &round->seats[i]));
    }
    return json_pack("{s:i, s:f, s:f, s:o, s:o, s:o, s:o}", "round", number, "seconds",
                     round->seconds, "training_seconds", round->training_seconds, "utility_before",
                     meed_simulation_number(round->utility_before), "utility_after",
                     meed_simulation_number(round->utility_after), "axes", axes, "clients",
                     clients);
}

static json_t *summary_json(const struct meed_federation_file *file,
                            const struct meed_simulation_cast *cast,
                            const struct meed_simulation_result *result)
{
    double measures[MEED_SIMULATION_MEASURES];
    json_t *summary = json_object();
    meed_simulation_summarise(file, cast, result, measures);
    for (int i = 0; i < MEED_SIMULATION_MEASURES; i++) {
        json_object_set_new(summary, meed_simulation_measures[i],
                            meed_simulation_number(measures[i]));
    }
    return summary;
}

json_t *meed_simulation_result_json(const struct meed_simulation_place *place,
                                    const struct meed_federation_file *file,
                                    const struct meed_benchmark *benchmark,
                                    const struct meed_simulation_pool *pool,
                                    const struct meed_simulation_cast *cast,
                                    const struct meed_simulation_result *result)
{
    const struct meed_simulation_plan *plan = &place->grid->simulation;
    char key[MEED_SIMULATION_KEY_BYTES];
    json_t *clients = json_array(), *rounds = json_array();
    meed_simulation_grid_key(plan, place->row, place->seed_idx, key);
    for (int32_t i = 0; i < cast->count; i++) {
        json_array_append_new(clients, client_json(file, pool, &cast->members[i], result, i));
    }
    for (int32_t r = 0; r < result->round_count; r++) {
        json_array_append_new(rounds, round_json(benchmark, cast, &result->rounds[r], r + 1));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:f, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o}",
                     "schema", "meed.simulation.cell/1", "name", file->name, "key", key, "source",
                     place->source, "settings", meed_simulation_settings_json(plan, place->row),
                     "seed", (json_int_t)file->seed, "seconds", result->seconds, "method",
                     meed_estimator_name(meed_estimator_method(file->method, cast->count)),
                     "aggregation", meed_aggregate_name(file->aggregation), "rule",
                     file->rule == MEED_PAY_SHRUNK ? "shrunk" : "proportional", "partition",
                     meed_partition_names[file->simulation.partition], "axes", axes_json(benchmark),
                     "clients", clients, "rounds", rounds, "summary",
                     summary_json(file, cast, result));
}
