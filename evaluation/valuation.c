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
    enum meed_value_method method = meed_estimator_method(options->method, players);
    int32_t limit =
        method == MEED_VALUE_EXACT ? (int32_t)MEED_SHAPLEY_MAX_PLAYERS : MEED_VALUE_MAX_PLAYERS;
    if (players < 1 || players > limit) {
        return MEED_FAIL(MEED_ARG, "%d clients cannot be valued by %s; the limit is %d%s", players,
                         meed_estimator_name(method), limit,
                         method == MEED_VALUE_EXACT ? ", gradient takes more" : "");
    }
    bool table = method == MEED_VALUE_EXACT || method == MEED_VALUE_LEAVE_ONE_OUT;
    if (options->shard.folder && !table) {
        return MEED_FAIL(
            MEED_ARG,
            "%s cannot be valued in shards, since what it asks next depends on what it "
            "has seen; exact and loo can",
            meed_estimator_name(method));
    }
    if (options->budget < 0 || options->bootstrap < 0 || options->batch_tokens < 1 ||
        !(options->guard_z >= 0)) {
        return MEED_FAIL(MEED_ARG, "budget, bootstrap draws and guard z must be 0 or more, and "
                                   "batch tokens at least 1");
    }
    return MEED_OK;
}

static enum meed_status valuation_create(const struct meed_estimate *estimate,
                                         struct meed_valuation **valuation)
{
    const struct meed_shapley *table = estimate->table;
    struct meed_valuation *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "valuation", SIZE_MAX / 2);
    size_t rows = table ? (size_t)table->coalition_count : 0;
    const size_t counts[3] = {rows, rows, (size_t)estimate->players};
    const size_t bytes[3] = {sizeof(uint32_t), sizeof(double), sizeof(struct meed_value_client)};
    void *blocks[3] = {NULL};
    for (int i = 0; i < 3; i++) {
        enum meed_status st = meed_arena_alloc_array(&made->arena, counts[i], bytes[i], &blocks[i]);
        if (st != MEED_OK) {
            meed_valuation_destroy(made);
            return st;
        }
    }
    made->players = estimate->players;
    made->method = estimate->method;
    made->stop = estimate->stop;
    made->draws = estimate->draws;
    made->coalition_count = (int32_t)rows;
    made->coalition_masks = blocks[0];
    made->coalition_values = blocks[1];
    made->clients = blocks[2];
    if (table) {
        memcpy(made->coalition_masks, table->masks, rows * sizeof(uint32_t));
    }
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

/* Coalition values where there is a table, and the hash of what all values came from. */
static enum meed_status utilities_fill(const struct meed_benchmark *benchmark,
                                       const struct meed_estimate *estimate,
                                       struct meed_valuation *v)
{
    const struct meed_shapley *table = estimate->table;
    struct meed_sha256 *hash = NULL;
    size_t items = (size_t)estimate->items;
    MEED_TRY(meed_sha256_create(&hash));
    for (int32_t row = 0; table && row < table->coalition_count; row++) {
        const double *utilities = table->utilities + (size_t)row * items;
        v->coalition_values[row] = meed_benchmark_value(benchmark, utilities, NULL);
        meed_sha256_update(hash, utilities, items * sizeof *utilities);
    }
    if (!table) {
        meed_sha256_update(hash, estimate->empty, items * sizeof(double));
        meed_sha256_update(hash, estimate->full, items * sizeof(double));
        meed_sha256_update(hash, estimate->phi, (size_t)estimate->players * items * sizeof(double));
    }
    meed_sha256_final(hash, v->utilities_hash);
    return MEED_OK;
}

/* φ per client and axis, and the residual. */
static void values_fill(const struct meed_benchmark *benchmark,
                        const struct meed_estimate *estimate, struct meed_valuation *v)
{
    v->value_empty = meed_benchmark_value(benchmark, estimate->empty, NULL);
    v->value_full = meed_benchmark_value(benchmark, estimate->full, NULL);
    double sum = 0;
    for (int32_t k = 0; k < estimate->players; k++) {
        const double *phi = estimate->phi + (int64_t)k * estimate->items;
        v->clients[k].phi = meed_benchmark_value(benchmark, phi, NULL);
        sum += v->clients[k].phi;
        for (int32_t a = 0; a < benchmark->axis_count; a++) {
            v->clients[k].axis_phi[a] = meed_benchmark_axis_value(benchmark, a, phi, NULL);
        }
    }
    v->residual = sum - (v->value_full - v->value_empty);
}

/* Errors of dialogues by the bootstrap and of sampled coalitions add as variances. */
static enum meed_status errors_fill(const struct meed_benchmark *benchmark,
                                    const struct meed_estimate *estimate,
                                    const struct meed_valuation_options *options,
                                    struct meed_valuation *v)
{
    enum meed_status st = MEED_OK;
    int32_t axes = benchmark->axis_count;
    size_t players = (size_t)estimate->players;
    double *axis_se = meed_heap_alloc(players * (size_t)axes + 1, sizeof *axis_se);
    double *paid_se = meed_heap_alloc(players, sizeof *paid_se);
    if (!axis_se || !paid_se) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(meed_bootstrap_errors(benchmark, estimate->phi, estimate->players,
                                       options->bootstrap, options->seed, axis_se, paid_se));
    for (int32_t k = 0; k < estimate->players; k++) {
        struct meed_value_client *client = &v->clients[k];
        client->sampling_se = estimate->se[k];
        client->se = hypot(paid_se[k], client->sampling_se);
        for (int32_t a = 0; a < axes; a++) {
            double sampled = estimate->se[(int64_t)(1 + a) * estimate->players + k];
            client->axis_se[a] = hypot(axis_se[k * axes + a], sampled);
        }
    }
out:
    meed_heap_free(axis_se);
    meed_heap_free(paid_se);
    return st;
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

static bool item_values_are_zero(const struct meed_estimate *estimate, int32_t player)
{
    for (int32_t item = 0; item < estimate->items; item++) {
        if (estimate->phi[(int64_t)player * estimate->items + item] != 0.0) {
            return false;
        }
    }
    return true;
}

static enum meed_status pay(const struct meed_benchmark *benchmark,
                            const struct meed_estimate *estimate,
                            const struct meed_valuation_options *options, struct meed_valuation *v)
{
    enum meed_status st = MEED_OK;
    struct meed_payment_player *players = meed_heap_alloc((size_t)v->players, sizeof *players);
    int32_t *guards = meed_heap_alloc((size_t)v->players, sizeof *guards);
    if (!players || !guards) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t k = 0; k < v->players; k++) {
        guards[k] = guard_of(benchmark, &v->clients[k], options->guard_z);
        players[k].phi = v->clients[k].phi;
        players[k].se = v->clients[k].se;
        players[k].null = item_values_are_zero(estimate, k);
        players[k].guarded = guards[k] >= 0;
    }
    MEED_TRY_OUT(meed_payment_settle(options->rule, options->guard_z, options->budget, players,
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
out:
    meed_heap_free(players);
    meed_heap_free(guards);
    return st;
}

/* Value of those who are not excluded: from the table where there is one (leave-one-out knows it
 * only if nobody, or one, is excluded, and else says v(N)), otherwise one coalition more. */
static enum meed_status kept_fill(const struct meed_game *game,
                                  const struct meed_benchmark *benchmark, struct meed_valuation *v)
{
    enum meed_status st = MEED_OK;
    uint32_t mask = 0;
    int32_t kept = 0;
    double *members = meed_heap_alloc((size_t)v->players, sizeof *members);
    double *utilities = meed_heap_alloc((size_t)game->items, sizeof *utilities);
    if (!members || !utilities) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t k = 0; k < v->players; k++) {
        bool in = v->clients[k].status != MEED_PAY_EXCLUDED;
        members[k] = in ? 1.0 : 0.0;
        kept += in ? 1 : 0;
        mask |= in && k < MEED_SHAPLEY_MAX_PLAYERS ? 1u << k : 0u;
    }
    v->value_kept = kept == 0 ? v->value_empty : v->value_full;
    if (kept == 0 || kept == v->players) {
        goto out;
    }
    for (int32_t row = 0; row < v->coalition_count; row++) {
        if (v->coalition_masks[row] == mask) {
            v->value_kept = v->coalition_values[row];
            goto out;
        }
    }
    if (v->coalition_count == 0) {
        MEED_TRY_OUT(game->evaluate(game->user, members, 1, utilities));
        v->value_kept = meed_benchmark_value(benchmark, utilities, NULL);
    }
out:
    meed_heap_free(members);
    meed_heap_free(utilities);
    return st;
}

static struct meed_estimator_options
estimator_options_of(const struct meed_valuation_options *options)
{
    return (struct meed_estimator_options){
        .method = options->method,
        .seed = options->seed,
        .precision = options->precision,
        .budget = options->evaluations,
        .truncation = options->truncation,
        .nodes = options->nodes,
    };
}

static struct meed_utility_options utility_options_of(const struct meed_valuation_options *options,
                                                      int32_t players)
{
    struct meed_estimator_options estimator = estimator_options_of(options);
    return (struct meed_utility_options){
        .path = options->path,
        .base = options->base,
        .batch_tokens = options->batch_tokens,
        .coalitions_expected = meed_estimator_coalitions(&estimator, players),
        .nodes = meed_estimator_nodes(&estimator, players),
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
    MEED_TRY_OUT(meed_shapley_coalitions(
        &game, meed_estimator_method(options->method, players) == MEED_VALUE_EXACT, &members,
        &count));
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
    struct meed_estimate *estimate = NULL;
    struct meed_valuation *made = NULL;
    double *watch = NULL;
    MEED_TRY(options_check(options, players));
    struct meed_utility_options utility_options = utility_options_of(options, players);
    struct meed_estimator_options estimator = estimator_options_of(options);
    MEED_TRY_OUT(meed_utility_create(be, checkpoint, benchmark, global, clients, players, p,
                                     &utility_options, &utility));
    struct meed_game game = meed_utility_game(utility);
    estimator.watch_count = 1 + benchmark->axis_count;
    watch = meed_heap_alloc((size_t)estimator.watch_count * (size_t)benchmark->item_count,
                            sizeof *watch);
    if (!watch) {
        st = MEED_NOMEM;
        goto out;
    }
    meed_benchmark_coefficients(benchmark, watch);
    estimator.watch = watch;
    MEED_TRY_OUT(meed_estimator_run(&game, &estimator, &estimate));
    MEED_TRY_OUT(valuation_create(estimate, &made));
    MEED_TRY_OUT(utilities_fill(benchmark, estimate, made));
    values_fill(benchmark, estimate, made);
    MEED_TRY_OUT(errors_fill(benchmark, estimate, options, made));
    MEED_TRY_OUT(pay(benchmark, estimate, options, made));
    MEED_TRY_OUT(kept_fill(&game, benchmark, made));
    struct meed_utility_report report = meed_utility_report_of(utility);
    made->evaluations = report.evaluations;
    made->seconds = report.seconds;
    made->tokens = report.tokens;
    made->path = meed_utility_path(utility);
    *valuation = made;
    made = NULL;
out:
    meed_heap_free(watch);
    meed_valuation_destroy(made);
    meed_estimator_destroy(estimate);
    meed_utility_destroy(utility);
    return st;
}
