/* See valuation.h: the one call. Utilities (cache or model) → item values → axis values, errors →
 * verdicts → credits. Each step is a file of its own; this one only connects them and finds words.
 *
 * The paid value of a client is the benchmark's own linear function applied to the client's item
 * values, so it inherits every property of them: exact zeros, equal bits for twins, and
 * Σφ = v(N) − v(∅) up to the rounding that `residual` shows.
 *
 * A client is treated as null if the evaluator folded it away or if no item noticed it: an update
 * too small to change one log-likelihood is worth what no update is worth.
 */
#include "evaluation/valuation.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "evaluation/bootstrap.h"
#include "evaluation/payment.h"
#include "evaluation/shapley.h"
#include "evaluation/utility.h"

struct meed_valuation_options meed_valuation_defaults(void)
{
    return (struct meed_valuation_options){
        .method = MEED_VALUE_EXACT,
        .rule = MEED_PAY_SHRUNK,
        .path = MEED_PATH_AUTO,
        .budget = 0,
        .bootstrap = 1000,
        .guard_z = 2.576,
        .seed = 1,
        .batch_tokens = 2048,
    };
}

static enum meed_status options_check(const struct meed_valuation_options *options, int32_t players)
{
    if (players < 1 || players > MEED_VALUE_MAX_PLAYERS) {
        return MEED_FAIL(MEED_ARG,
                         "%d clients cannot be valued coalition by coalition; the limit is %d",
                         players, MEED_VALUE_MAX_PLAYERS);
    }
    if (options->budget < 0 || options->bootstrap < 0 || options->batch_tokens < 1 ||
        !(options->guard_z >= 0)) {
        return MEED_FAIL(MEED_ARG, "budget, bootstrap draws and guard z must be 0 or more, and "
                                   "batch tokens at least 1");
    }
    return MEED_OK;
}

static enum meed_status valuation_create(const struct meed_shapley *values,
                                         struct meed_valuation **valuation)
{
    struct meed_valuation *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "valuation", SIZE_MAX / 2);
    size_t rows = (size_t)values->coalition_count;
    const size_t counts[3] = {rows, rows, (size_t)values->players};
    const size_t bytes[3] = {sizeof(uint32_t), sizeof(double), sizeof(struct meed_value_client)};
    void *blocks[3] = {NULL};
    for (int i = 0; i < 3; i++) {
        enum meed_status st = meed_arena_alloc_array(&made->arena, counts[i], bytes[i], &blocks[i]);
        if (st != MEED_OK) {
            meed_valuation_destroy(made);
            return st;
        }
    }
    made->players = values->players;
    made->coalition_count = values->coalition_count;
    made->coalition_masks = blocks[0];
    made->coalition_values = blocks[1];
    made->clients = blocks[2];
    memcpy(made->coalition_masks, values->masks, rows * sizeof(uint32_t));
    *valuation = made;
    return MEED_OK;
}

void meed_valuation_destroy(struct meed_valuation *valuation)
{
    if (valuation) {
        meed_arena_clear(&valuation->arena);
        meed_heap_free(valuation);
    }
}

/* Coalition values, φ per client and axis, the residual, and the hash of what they came from. */
static enum meed_status values_fill(const struct meed_benchmark *benchmark,
                                    const struct meed_shapley *values, struct meed_valuation *v)
{
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_sha256_create(&hash));
    uint32_t everyone = (uint32_t)((1ull << values->players) - 1);
    for (int32_t row = 0; row < values->coalition_count; row++) {
        const double *utilities = values->utilities + (int64_t)row * values->items;
        v->coalition_values[row] = meed_benchmark_value(benchmark, utilities, NULL);
        v->value_empty = values->masks[row] == 0 ? v->coalition_values[row] : v->value_empty;
        v->value_full = values->masks[row] == everyone ? v->coalition_values[row] : v->value_full;
        meed_sha256_update(hash, utilities, (size_t)values->items * sizeof *utilities);
    }
    meed_sha256_final(hash, v->utilities_hash);
    double sum = 0;
    for (int32_t k = 0; k < values->players; k++) {
        const double *phi = values->phi + (int64_t)k * values->items;
        v->clients[k].phi = meed_benchmark_value(benchmark, phi, NULL);
        sum += v->clients[k].phi;
        for (int32_t a = 0; a < benchmark->axis_count; a++) {
            v->clients[k].axis_phi[a] = meed_benchmark_axis_value(benchmark, a, phi, NULL);
        }
    }
    v->residual = sum - (v->value_full - v->value_empty);
    return MEED_OK;
}

static enum meed_status errors_fill(const struct meed_benchmark *benchmark,
                                    const struct meed_shapley *values,
                                    const struct meed_valuation_options *options,
                                    struct meed_valuation *v)
{
    double axis_se[MEED_VALUE_MAX_PLAYERS * MEED_BENCHMARK_MAX_AXES];
    double paid_se[MEED_VALUE_MAX_PLAYERS];
    MEED_TRY(meed_bootstrap_errors(benchmark, values->phi, values->players, options->bootstrap,
                                   options->seed, axis_se, paid_se));
    for (int32_t k = 0; k < values->players; k++) {
        v->clients[k].se = paid_se[k];
        memcpy(v->clients[k].axis_se, axis_se + k * benchmark->axis_count,
               (size_t)benchmark->axis_count * sizeof(double));
    }
    return MEED_OK;
}

/* --- verdicts in words ---------------------------------------------------------------------- */

/* Guard axis that excludes the client: the one furthest below zero in standard errors, or -1. */
static int32_t guard_of(const struct meed_benchmark *benchmark,
                        const struct meed_value_client *client, double z)
{
    int32_t worst = -1;
    double worst_depth = 0;
    for (int32_t a = 0; a < benchmark->axis_count; a++) {
        double upper = client->axis_phi[a] + z * client->axis_se[a];
        double depth = client->axis_phi[a] / fmax(client->axis_se[a], 1e-300);
        if (benchmark->axes[a].guard && upper < 0 && (worst < 0 || depth < worst_depth)) {
            worst = a;
            worst_depth = depth;
        }
    }
    return worst;
}

/* "−0.0188 ± 0.0035"; four decimals, more where they would show nothing. */
static void estimate_print(double value, double se, char *text, size_t text_bytes)
{
    int decimals = 4;
    double shown = fmax(fabs(value), se);
    while (decimals < 9 && shown > 0 && shown < 5 * pow(10, -decimals)) {
        decimals++;
    }
    snprintf(text, text_bytes, "%s%.*f ± %.*f", value < 0 ? "−" : "+", decimals, fabs(value),
             decimals, se);
}

static void reason_write(const struct meed_benchmark *benchmark, int32_t guard,
                         enum meed_payment_cause cause, struct meed_value_client *client)
{
    static const char *const guard_words[] = {"makes these dialogues less likely",
                                              "answers do not fit their questions",
                                              "prefers the replies that it should refuse"};
    char number[64];
    int32_t bytes = (int32_t)sizeof client->reason;
    estimate_print(client->phi, client->se, number, sizeof number);
    switch (cause) {
    case MEED_PAYMENT_EARNED:
        client->reason[0] = '\0';
        break;
    case MEED_PAYMENT_NULL:
        snprintf(client->reason, (size_t)bytes, "the update changes nothing");
        break;
    case MEED_PAYMENT_GUARD:
        estimate_print(client->axis_phi[guard], client->axis_se[guard], number, sizeof number);
        snprintf(client->reason, (size_t)bytes, "%s %s: %s", benchmark->axes[guard].name, number,
                 guard_words[benchmark->axes[guard].kind]);
        break;
    case MEED_PAYMENT_HARMFUL:
        snprintf(client->reason, (size_t)bytes, "value %s: the update makes the model worse",
                 number);
        break;
    case MEED_PAYMENT_WORTHLESS:
        snprintf(client->reason, (size_t)bytes, "value %s: no gain to pay for", number);
        break;
    case MEED_PAYMENT_ROUNDED:
        snprintf(client->reason, (size_t)bytes, "the share rounds to 0 credits");
        break;
    }
}

static bool item_values_are_zero(const struct meed_shapley *values, int32_t player)
{
    for (int32_t item = 0; item < values->items; item++) {
        if (values->phi[(int64_t)player * values->items + item] != 0.0) {
            return false;
        }
    }
    return true;
}

static enum meed_status pay(const struct meed_benchmark *benchmark,
                            const struct meed_shapley *values,
                            const struct meed_valuation_options *options, struct meed_valuation *v)
{
    struct meed_payment_player players[MEED_VALUE_MAX_PLAYERS] = {{0}};
    int32_t guards[MEED_VALUE_MAX_PLAYERS];
    for (int32_t k = 0; k < v->players; k++) {
        guards[k] = guard_of(benchmark, &v->clients[k], options->guard_z);
        players[k].phi = v->clients[k].phi;
        players[k].se = v->clients[k].se;
        players[k].null = item_values_are_zero(values, k);
        players[k].guarded = guards[k] >= 0;
    }
    MEED_TRY(meed_payment_settle(options->rule, options->guard_z, options->budget, players,
                                 v->players, &v->paid));
    for (int32_t k = 0; k < v->players; k++) {
        v->clients[k].share = players[k].share;
        v->clients[k].status = players[k].status;
        reason_write(benchmark, guards[k], players[k].cause, &v->clients[k]);
    }
    if (v->paid == 0 && options->budget > 0) {
        snprintf(v->note, sizeof v->note,
                 "nothing was paid: no client has a value above zero; the budget is kept");
    }
    return MEED_OK;
}

static struct meed_utility_options utility_options_of(const struct meed_valuation_options *options,
                                                      int32_t players)
{
    bool exact = options->method == MEED_VALUE_EXACT;
    return (struct meed_utility_options){
        .path = options->path,
        .batch_tokens = options->batch_tokens,
        .coalitions_expected = exact ? (int32_t)1 << players : players + 2,
        .cache_path = options->cache_path,
        .shard = options->shard,
        .progress = options->progress,
        .progress_user = options->progress_user,
    };
}

enum meed_status
meed_valuation_shard(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                     const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                     const struct meed_adapter *const *clients, int32_t players, const double *p,
                     const struct meed_valuation_options *options, struct meed_valuation_part *part)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *utility = NULL;
    double *members = NULL;
    int32_t count = 0;
    MEED_TRY(options_check(options, players));
    struct meed_utility_options utility_options = utility_options_of(options, players);
    MEED_TRY_OUT(meed_utility_create(be, checkpoint, benchmark, global, clients, players, p,
                                     &utility_options, &utility));
    struct meed_game game = meed_utility_game(utility);
    MEED_TRY_OUT(
        meed_shapley_coalitions(&game, options->method == MEED_VALUE_EXACT, &members, &count));
    st = meed_utility_score_shard(utility, members, count);
    struct meed_utility_report report = meed_utility_report_of(utility);
    *part = (struct meed_valuation_part){report.evaluations, report.found, report.tokens,
                                         report.seconds};
out:
    meed_heap_free(members);
    meed_utility_destroy(utility);
    return st;
}

enum meed_status
meed_valuation_run(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                   const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                   const struct meed_adapter *const *clients, int32_t players, const double *p,
                   const struct meed_valuation_options *options, struct meed_valuation **valuation)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *utility = NULL;
    struct meed_shapley *values = NULL;
    struct meed_valuation *made = NULL;
    MEED_TRY(options_check(options, players));
    bool exact = options->method == MEED_VALUE_EXACT;
    struct meed_utility_options utility_options = utility_options_of(options, players);
    MEED_TRY_OUT(meed_utility_create(be, checkpoint, benchmark, global, clients, players, p,
                                     &utility_options, &utility));
    struct meed_game game = meed_utility_game(utility);
    MEED_TRY_OUT(exact ? meed_shapley_exact(&game, &values)
                       : meed_shapley_leave_one_out(&game, &values));
    MEED_TRY_OUT(valuation_create(values, &made));
    MEED_TRY_OUT(values_fill(benchmark, values, made));
    MEED_TRY_OUT(errors_fill(benchmark, values, options, made));
    MEED_TRY_OUT(pay(benchmark, values, options, made));
    struct meed_utility_report report = meed_utility_report_of(utility);
    made->evaluations = report.evaluations;
    made->seconds = report.seconds;
    made->tokens = report.tokens;
    made->path = meed_utility_path(utility);
    *valuation = made;
    made = NULL;
out:
    meed_valuation_destroy(made);
    meed_shapley_destroy(values);
    meed_utility_destroy(utility);
    return st;
}
