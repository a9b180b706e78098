/* See valuation.h: the one call. Utilities (cache or model) → item values → axis values and errors
 * → verdicts and credits (valuation_pay.c). Each step is a file of its own; this one connects them.
 *
 * The paid value of a client is the benchmark's own linear function applied to the client's item
 * values, so it inherits every property of them: exact zeros, equal bits for twins, and
 * Σφ = v(N) − v(∅) up to the rounding that `residual` shows.
 *
 * Passes. The first values everybody, and its verdicts are final. Whoever is left out leaves its
 * weight to the others in proportion, since a federation's step must not shrink with the number of
 * its attackers; the round is then valued once more without them, so that what is paid for is what
 * is published, and no attacker's presence moves an honest client's value. With more weight a step
 * that was lost in the noise may prove too long, and steps that are harmless one by one may be
 * harmful together. So every pass leaves out who harms beyond its error, and if nobody does but the
 * round as a whole does, all that are below zero; that weight stays with the global adapter. The
 * last pass is the one that finds nothing, so no round publishes what the benchmark calls worse.
 * One pass in good rounds, two where somebody attacks, at most one for each client.
 */
#include "evaluation/valuation.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "evaluation/bootstrap.h"
#include "evaluation/shapley.h"
#include "evaluation/utility.h"
#include "evaluation/valuation_private.h"

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
    if (options->rule == MEED_PAY_SAMPLES && !options->samples) {
        return MEED_FAIL(MEED_ARG, "rule samples pays by declared counts, and there are none");
    }
    struct meed_payment_policy policy = meed_valuation_policy(options);
    return meed_payment_check(&policy);
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

/* Coalition values where there is a table; *hash takes in what all values came from. */
static void utilities_fill(const struct meed_benchmark *benchmark,
                           const struct meed_estimate *estimate, struct meed_sha256 *hash,
                           double *values)
{
    const struct meed_shapley *table = estimate->table;
    size_t items = (size_t)estimate->items;
    for (int32_t row = 0; table && row < table->coalition_count; row++) {
        const double *utilities = table->utilities + (size_t)row * items;
        if (values) {
            values[row] = meed_benchmark_value(benchmark, utilities, NULL);
        }
        meed_sha256_update(hash, utilities, items * sizeof *utilities);
    }
    if (!table) {
        meed_sha256_update(hash, estimate->empty, items * sizeof(double));
        meed_sha256_update(hash, estimate->full, items * sizeof(double));
        meed_sha256_update(hash, estimate->phi, (size_t)estimate->players * items * sizeof(double));
    }
}

/* φ per client and axis, and the residual. */
static void values_fill(const struct meed_benchmark *benchmark, const struct meed_pass *pass,
                        struct meed_valuation *v)
{
    const struct meed_estimate *estimate = pass->estimate;
    double sum = 0;
    for (int32_t k = 0; k < estimate->players; k++) {
        const double *phi = estimate->phi + (int64_t)k * estimate->items;
        struct meed_value_client *client = &v->clients[pass->of[k]];
        client->weight = pass->p[k];
        client->phi = meed_benchmark_value(benchmark, phi, NULL);
        sum += client->phi;
        for (int32_t a = 0; a < benchmark->axis_count; a++) {
            client->axis_phi[a] = meed_benchmark_axis_value(benchmark, a, phi, NULL);
        }
    }
    v->residual = sum - (meed_benchmark_value(benchmark, estimate->full, NULL) - v->value_empty);
}

/* Errors of dialogues by the bootstrap and of sampled coalitions add as variances. */
static enum meed_status errors_fill(const struct meed_benchmark *benchmark,
                                    const struct meed_pass *pass,
                                    const struct meed_valuation_options *options,
                                    struct meed_valuation *v)
{
    enum meed_status st = MEED_OK;
    const struct meed_estimate *estimate = pass->estimate;
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
        struct meed_value_client *client = &v->clients[pass->of[k]];
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

/* ---- passes ---------------------------------------------------------------------------------- */

static const double most_growth = 2.0;

/* What all passes value with. */
struct bench {
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    const struct meed_benchmark *benchmark;
    const struct meed_adapter *global;
    const struct meed_valuation_options *options;
};

static void pass_clear(struct meed_pass *pass)
{
    meed_estimator_destroy(pass->estimate);
    meed_heap_free(pass->clients);
    meed_heap_free(pass->of);
    meed_heap_free(pass->p);
}

/* What the first pass leaves out is spread over the others, up to twice their weight: beyond that
 * whoever is left is no cohort to go by. Nothing is spread of what later passes leave out, which
 * went too far with what they had. */
static double growth_after(const double *p, int32_t players, const struct meed_value_client *in)
{
    double all = 0, kept = 0;
    for (int32_t k = 0; k < players; k++) {
        all += p[k];
        kept += in[k].status != MEED_PAY_EXCLUDED ? p[k] : 0;
    }
    return kept > 0 ? fmin(all / kept, most_growth) : 1;
}

/* The clients that are in, with `growth` times their weight. in NULL: all. */
static enum meed_status pass_gather(const struct meed_adapter *const *clients, int32_t players,
                                    const double *p, const struct meed_value_client *in,
                                    double growth, struct meed_pass *pass)
{
    pass->clients = meed_heap_alloc((size_t)players, sizeof *pass->clients);
    pass->of = meed_heap_alloc((size_t)players, sizeof *pass->of);
    pass->p = meed_heap_alloc((size_t)players, sizeof *pass->p);
    if (!pass->clients || !pass->of || !pass->p) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < players; k++) {
        if (!in || in[k].status != MEED_PAY_EXCLUDED) {
            pass->of[pass->players] = k;
            pass->clients[pass->players] = clients[k];
            pass->p[pass->players++] = growth * p[k];
        }
    }
    return MEED_OK;
}

/* Scores and estimates; adds to the totals of *v where there is one. */
static enum meed_status pass_run(const struct bench *bench, struct meed_pass *pass,
                                 struct meed_utility_report *total, enum meed_coalition_path *path)
{
    enum meed_status st = MEED_OK;
    const struct meed_benchmark *benchmark = bench->benchmark;
    struct meed_utility *utility = NULL;
    double *watch = NULL;
    struct meed_utility_options utility_options = utility_options_of(bench->options, pass->players);
    struct meed_estimator_options estimator = estimator_options_of(bench->options);
    if (!pass->first) {
        utility_options.shard = (struct meed_utility_shard_options){0};
    }
    MEED_TRY_OUT(meed_utility_create(bench->be, bench->checkpoint, benchmark, bench->global,
                                     pass->clients, pass->players, pass->p, &utility_options,
                                     &utility));
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
    MEED_TRY_OUT(meed_estimator_run(&game, &estimator, &pass->estimate));
    struct meed_utility_report report = meed_utility_report_of(utility);
    total->evaluations += report.evaluations;
    total->seconds += report.seconds;
    total->tokens += report.tokens;
    *path = meed_utility_path(utility);
out:
    meed_heap_free(watch);
    meed_utility_destroy(utility);
    return st;
}

static enum meed_status pass_fill(const struct bench *bench, const struct meed_pass *pass,
                                  struct meed_sha256 *hash, struct meed_valuation *v)
{
    utilities_fill(bench->benchmark, pass->estimate, hash,
                   pass->first ? v->coalition_values : NULL);
    values_fill(bench->benchmark, pass, v);
    return errors_fill(bench->benchmark, pass, bench->options, v);
}

/* Leaves out who must be and values the others again until nobody must. pass is the first, and the
 * caller's to clear. */
static enum meed_status value_rest(const struct bench *bench,
                                   const struct meed_adapter *const *clients, int32_t players,
                                   const double *p, struct meed_pass *pass,
                                   struct meed_utility_report *total, struct meed_sha256 *hash,
                                   struct meed_valuation *v)
{
    enum meed_coalition_path path;
    bool again = true;
    double growth = 1;
    v->value_kept = v->value_full;
    while (again) {
        MEED_TRY(meed_valuation_leave_out(bench->benchmark, pass, bench->options, v, &again));
        if (!again) {
            break;
        }
        growth = pass->first ? growth_after(p, players, v->clients) : growth;
        pass_clear(pass);
        *pass = (struct meed_pass){.first = false};
        MEED_TRY(pass_gather(clients, players, p, v->clients, growth, pass));
        for (int32_t k = 0; k < players; k++) {
            bool out = v->clients[k].status == MEED_PAY_EXCLUDED;
            v->clients[k].weight = out ? 0 : v->clients[k].weight;
        }
        if (pass->players == 0) {
            v->value_kept = v->value_empty;
            v->kept_se = 0;
            break;
        }
        MEED_TRY(pass_run(bench, pass, total, &path));
        MEED_TRY(pass_fill(bench, pass, hash, v));
        v->value_kept = meed_benchmark_value(bench->benchmark, pass->estimate->full, NULL);
    }
    return MEED_OK;
}

enum meed_status
meed_valuation_run(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                   const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                   const struct meed_adapter *const *clients, int32_t players, const double *p,
                   const struct meed_valuation_options *options, struct meed_valuation **valuation)
{
    enum meed_status st = MEED_OK;
    struct bench bench = {be, checkpoint, benchmark, global, options};
    struct meed_pass pass = {.first = true};
    struct meed_utility_report total = {0};
    struct meed_valuation *made = NULL;
    struct meed_sha256 *hash = NULL;
    enum meed_coalition_path path;
    MEED_TRY(options_check(options, players));
    MEED_TRY_OUT(pass_gather(clients, players, p, NULL, 1, &pass));
    MEED_TRY_OUT(pass_run(&bench, &pass, &total, &path));
    MEED_TRY_OUT(valuation_create(pass.estimate, &made));
    MEED_TRY_OUT(meed_sha256_create(&hash));
    made->value_empty = meed_benchmark_value(benchmark, pass.estimate->empty, NULL);
    made->value_full = meed_benchmark_value(benchmark, pass.estimate->full, NULL);
    MEED_TRY_OUT(pass_fill(&bench, &pass, hash, made));
    MEED_TRY_OUT(value_rest(&bench, clients, players, p, &pass, &total, hash, made));
    MEED_TRY_OUT(meed_valuation_pay(options, made));
    meed_sha256_final(hash, made->utilities_hash);
    hash = NULL;
    made->evaluations = total.evaluations;
    made->seconds = total.seconds;
    made->tokens = total.tokens;
    made->path = path;
    *valuation = made;
    made = NULL;
out:
    meed_sha256_destroy(hash);
    meed_valuation_destroy(made);
    pass_clear(&pass);
    return st;
}
