/* See simulation_result.h. */
#include "cli/simulation_result.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "evaluation/payment.h"
#include "evaluation/statistics.h"
#include "server/aggregate.h"

#define RESULT_MAX_BYTES ((size_t)1 << 34)
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
    result->utility_own = NAN;
    result->checkpoint_count = MEED_MIN(rounds, MEED_SIMULATION_LEAK_ROUNDS);
    for (int32_t i = 0; i < result->checkpoint_count; i++) {
        result->checkpoints[i] = (i + 1) * rounds / result->checkpoint_count;
    }
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

/* ---- scores ---------------------------------------------------------------------------------- */

static double screened(const struct meed_simulation_seat *seat)
{
    return seat->state == MEED_SEAT_ABSENT ? NAN : seat->score;
}

/* What was never valued (a screen took it out, or quarantine) has nothing but its score, and that
 * only says something if it is why. */
static double combined(const struct meed_simulation_seat *seat)
{
    double score = screened(seat);
    if (!seat->valued) {
        return score >= 1.0 ? score : NAN;
    }
    return fmax(score, seat->verdict);
}

/* ---- summary --------------------------------------------------------------------------------- */

/* What the figures of one cell are made of. */
struct tally {
    const struct meed_benchmark *benchmark;
    const struct meed_simulation_cast *cast;
    const struct meed_simulation_result *result;
    /* [clients] each; the last three of honest ones, as they come */
    double *score, *pay, *quality, *amount;
    bool *positive;
    int32_t honest;
    int64_t sent[2], excluded[2]; /* updates of honest clients, of attackers */
    double paid[2];
};

static bool attacks(const struct meed_simulation_member *member)
{
    return member->role.attack != MEED_ATTACK_NONE;
}

static int64_t rounds_in(const struct meed_simulation_result *result, int32_t client,
                         enum meed_aggregator_seat state)
{
    int64_t rounds = 0;
    for (int32_t r = 0; r < result->round_count; r++) {
        rounds += result->rounds[r].seats[client].state == state;
    }
    return rounds;
}

static int64_t credits(const struct meed_simulation_result *result, int32_t client)
{
    int64_t sum = 0;
    for (int32_t r = 0; r < result->round_count; r++) {
        sum += result->rounds[r].seats[client].share;
    }
    return sum;
}

static void add_client(struct tally *tally, int32_t i)
{
    const struct meed_simulation_member *member = &tally->cast->members[i];
    int side = attacks(member);
    double paid = (double)credits(tally->result, i);
    tally->sent[side] += tally->result->round_count - rounds_in(tally->result, i, MEED_SEAT_ABSENT);
    tally->excluded[side] += rounds_in(tally->result, i, MEED_SEAT_EXCLUDED);
    tally->paid[side] += paid;
    if (!side) {
        tally->pay[tally->honest] = paid;
        tally->quality[tally->honest] = member->quality;
        tally->amount[tally->honest++] = (double)member->dataset->count;
    }
}

/* Mean over the rounds in which both sides have updates that were scored. */
static double auroc(struct tally *tally, bool with_values)
{
    double sum = 0.0;
    int32_t rounds = 0;
    for (int32_t r = 0; r < tally->result->round_count; r++) {
        int64_t count = 0;
        for (int32_t i = 0; i < tally->cast->count; i++) {
            const struct meed_simulation_seat *seat = &tally->result->rounds[r].seats[i];
            tally->score[count] = with_values ? combined(seat) : screened(seat);
            tally->positive[count] = attacks(&tally->cast->members[i]);
            count += !isnan(tally->score[count]);
        }
        double area = meed_statistics_auroc(tally->score, tally->positive, count);
        sum += isnan(area) ? 0.0 : area;
        rounds += !isnan(area);
    }
    return rounds > 0 ? sum / rounds : NAN;
}

/* Largest |pay/mean − 1| of honest clients. */
static double spread(const struct tally *tally)
{
    double mean = tally->honest > 0 ? tally->paid[0] / tally->honest : 0.0;
    double largest = mean > 0.0 ? 0.0 : NAN;
    for (int32_t i = 0; i < tally->honest && mean > 0.0; i++) {
        largest = fmax(largest, fabs(tally->pay[i] / mean - 1.0));
    }
    return largest;
}

static double ratio(double part, double whole)
{
    return whole > 0.0 ? part / whole : NAN;
}

static void put(json_t *summary, const char *name, double value)
{
    json_object_set_new(summary, name, meed_simulation_number(value));
}

static void conclude_leakage(const struct meed_simulation_result *result, json_t *summary)
{
    const struct meed_simulation_leak *last[MEED_SIMULATION_LEAK_KIND_COUNT] = {NULL};
    for (int32_t i = 0; i < result->leak_count; i++) {
        last[result->leaks[i].kind] = &result->leaks[i];
    }
    put(summary, "utility_own", result->utility_own);
    for (int k = 0; k < MEED_SIMULATION_LEAK_KIND_COUNT; k++) {
        char name[MEED_SIMULATION_MEASURE_BYTES];
        bool found = last[k] && last[k]->examples > 0;
        snprintf(name, sizeof name, "leak_%s", meed_simulation_leak_names[k]);
        put(summary, name, found ? last[k]->gain.mean : NAN);
        snprintf(name, sizeof name, "memory_%s", meed_simulation_leak_names[k]);
        bool told = found && last[k]->unseen_examples > 0;
        put(summary, name, told ? last[k]->gain.mean - last[k]->unseen.mean : NAN);
        if (k != MEED_SIMULATION_LEAK_OWN) {
            snprintf(name, sizeof name, "secrets_%s", meed_simulation_leak_names[k]);
            put(summary, name,
                last[k] ? ratio((double)last[k]->secrets_found, (double)last[k]->secrets) : NAN);
        }
    }
}

static void conclude(const struct meed_federation_file *file, struct tally *tally, json_t *summary)
{
    const struct meed_simulation_round *first = tally->result->rounds,
                                       *last = first + tally->result->round_count - 1;
    double paid = tally->paid[0] + tally->paid[1];
    put(summary, "utility_before", first->utility_before);
    put(summary, "utility_after", last->utility_after);
    put(summary, "gain", last->utility_after - first->utility_before);
    put(summary, "budget", (double)file->budget);
    put(summary, "paid", tally->sent[0] + tally->sent[1] > 0 ? paid : NAN);
    put(summary, "honest_share", ratio(tally->paid[0], paid));
    put(summary, "attacker_share", tally->sent[1] > 0 ? ratio(tally->paid[1], paid) : NAN);
    put(summary, "auroc_score", auroc(tally, false));
    put(summary, "auroc_combined", auroc(tally, true));
    put(summary, "caught", ratio((double)tally->excluded[1], (double)tally->sent[1]));
    put(summary, "false_exclusion", ratio((double)tally->excluded[0], (double)tally->sent[0]));
    put(summary, "spread", spread(tally));
    put(summary, "spearman_quality",
        meed_statistics_spearman(tally->pay, tally->quality, tally->honest));
    put(summary, "spearman_amount",
        meed_statistics_spearman(tally->pay, tally->amount, tally->honest));
    conclude_leakage(tally->result, summary);
    for (int32_t i = 0; i < tally->benchmark->axis_count; i++) {
        char name[MEED_SIMULATION_MEASURE_BYTES];
        snprintf(name, sizeof name, "axis_%s", tally->benchmark->axes[i].name);
        if (tally->benchmark->axes[i].guard) {
            put(summary, name, last->axis_value[i]);
        }
    }
}

/* NULL when out of memory. */
static json_t *summary_json(const struct meed_federation_file *file,
                            const struct meed_benchmark *benchmark,
                            const struct meed_simulation_cast *cast,
                            const struct meed_simulation_result *result)
{
    size_t count = (size_t)cast->count;
    json_t *summary = NULL;
    double *work = meed_heap_alloc(4 * count, sizeof *work);
    bool *positive = meed_heap_alloc(count, sizeof *positive);
    if (work && positive) {
        struct tally tally = {.benchmark = benchmark,
                              .cast = cast,
                              .result = result,
                              .score = work,
                              .pay = work + count,
                              .quality = work + 2 * count,
                              .amount = work + 3 * count,
                              .positive = positive};
        for (int32_t i = 0; i < cast->count; i++) {
            add_client(&tally, i);
        }
        summary = json_object();
        conclude(file, &tally, summary);
    }
    meed_heap_free(work);
    meed_heap_free(positive);
    return summary;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

json_t *meed_simulation_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *meed_simulation_settings_json(const struct meed_simulation_plan *plan,
                                      const struct meed_simulation_point *point)
{
    json_t *settings = json_object();
    struct meed_simulation_setting setting;
    for (int32_t i = 0; meed_simulation_grid_setting(plan, point, i, &setting); i++) {
        json_object_set_new(settings, setting.key, json_string(setting.value));
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
    json_t *labels = json_object();
    for (int32_t i = 0; i < pool->label_count; i++) {
        json_object_set_new(labels, pool->label_names[i], json_integer(member->label_counts[i]));
    }
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:I, s:I, s:o, s:I, s:I}", "id", member->id,
                     "group", file->simulation.groups[member->group].name, "attack",
                     meed_attack_infos[member->role.attack].name, "strength", member->role.strength,
                     "quality", member->quality, "dialogues", (json_int_t)member->dataset->count,
                     "tokens", (json_int_t)member->dataset->token_count, "labels", labels, "share",
                     (json_int_t)credits(result, idx), "excluded",
                     (json_int_t)rounds_in(result, idx, MEED_SEAT_EXCLUDED));
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
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:o}", "id",
                     id, "state", state, "reason", seat->reason, "remark", seat->remark, "phi",
                     meed_simulation_number(seat->phi), "se", meed_simulation_number(seat->se),
                     "share", (json_int_t)seat->share, "score",
                     meed_simulation_number(screened(seat)), "verdict",
                     meed_simulation_number(seat->valued ? seat->verdict : NAN), "combined",
                     meed_simulation_number(combined(seat)), "loss",
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

static json_t *leak_json(const struct meed_simulation_leak *leak)
{
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f}",
                     "kind", meed_simulation_leak_names[leak->kind], "round", leak->round,
                     "examples", (json_int_t)leak->examples, "secrets", (json_int_t)leak->secrets,
                     "secrets_found", (json_int_t)leak->secrets_found, "rouge", leak->rouge.mean,
                     "rouge_se", leak->rouge.se, "gain", leak->gain.mean, "gain_se", leak->gain.se,
                     "exact", leak->exact.mean, "exact_gain", leak->exact_gain.mean,
                     "unseen_examples", (json_int_t)leak->unseen_examples, "unseen",
                     leak->unseen.mean, "unseen_se", leak->unseen.se);
}

static json_t *leakage_json(const struct meed_simulation_leak_plan *plan,
                            const struct meed_simulation_result *result)
{
    json_t *models = json_array();
    if (result->leak_count == 0) {
        json_decref(models);
        return json_null();
    }
    for (int32_t i = 0; i < result->leak_count; i++) {
        json_array_append_new(models, leak_json(&result->leaks[i]));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "prefix", (json_int_t)plan->prefix, "new_tokens",
                     (json_int_t)plan->new_tokens, "canaries", (json_int_t)plan->canaries, "repeat",
                     (json_int_t)plan->repeat, "models", models);
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
    if (meed_simulation_grid_key(plan, &place->point, key) != MEED_OK) {
        return NULL;
    }
    json_t *clients = json_array(), *rounds = json_array();
    for (int32_t i = 0; i < cast->count; i++) {
        json_array_append_new(clients, client_json(file, pool, &cast->members[i], result, i));
    }
    for (int32_t r = 0; r < result->round_count; r++) {
        json_array_append_new(rounds, round_json(benchmark, cast, &result->rounds[r], r + 1));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:f, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, "
                     "s:o, s:o}",
                     "schema", "meed.simulation.cell/1", "name", file->name, "key", key, "source",
                     place->source, "settings", meed_simulation_settings_json(plan, &place->point),
                     "seed", (json_int_t)file->seed, "seconds", result->seconds, "scheme",
                     meed_simulation_scheme_names[file->simulation.scheme], "method",
                     meed_estimator_name(meed_estimator_method(file->method, cast->count)),
                     "aggregation", meed_aggregate_name(file->aggregation), "rule",
                     meed_payment_rule_name(file->rule), "partition",
                     meed_partition_names[file->simulation.partition], "axes", axes_json(benchmark),
                     "clients", clients, "rounds", rounds, "leakage",
                     leakage_json(&file->simulation.leakage, result), "summary",
                     summary_json(file, benchmark, cast, result));
}
