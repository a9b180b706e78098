/* What a cohort's values cost, by estimator, on adapters trained here from the embedded model.
 *
 * Ten clients train on slices of the example's data (24 steps, rank 4): a first round from a fresh
 * adapter, a second from the mean of the first. Exact Shapley from all 1,024 coalitions is the
 * truth for `gradient` (one to four nodes) and for orders (TMC); orders are priced by the seconds
 * of merging and scoring one coalition at a time, as published systems do, times the evaluations
 * that they need for gradient's error. A third cohort replaces four clients of the first by
 * attackers: swapped replies, a flipped update, noise of an update's size, nothing at all.
 *
 * Gradient is for more clients than ten, so the same three are looked at again with three kinds of
 * clients and one to twelve of each, where exact values of up to 36 are known (kinds.h): how fast
 * Aumann–Shapley and Shapley meet, and what orders cost there at gradient's error. Seconds are
 * those of 36 clients that all differ, since twins would be folded.
 *
 * A thousand clients are mixtures of the ten with noise on both factors; no exact value is known
 * there, so gradient is held to its own residual, and orders are priced by the evaluations of one
 * pair, below which they have no answer at all.
 *
 * Seconds are processor seconds of all threads, which a busy machine stretches less than the clock.
 * Every fifth dialogue of the benchmark: exact values are what takes the time.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "bench/harness.h"
#include "bench/kinds.h"
#include "client/dataset.h"
#include "engine/tokenizer.h"
#include "engine/trainer.h"
#include "evaluation/utility.h"
#include "evaluation/valuation.h"

enum {
    CLIENTS = 10,
    MANY = 1000,
    RANK = 4,
    STEPS = 24,
    KEEP_EVERY = 5,
    NODES = 4,
    KINDS = 3,
    COPIES = 12, /* of each kind */
    KINDS_CLIENTS = KINDS * COPIES,
    ORDERS_SEEDS = 32,
    ORDERS_MAX_PAIRS = 65536,
    FILE_BYTES = 1 << 20
};

struct values_bench {
    const struct meed_bench_machine *machine;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_benchmark *benchmark;
    struct meed_adapter *trained[CLIENTS]; /* first round */
    struct meed_adapter *global;           /* made of it */
    struct meed_adapter *second[CLIENTS];  /* from there on */
    struct meed_adapter *attackers[4];
    struct meed_adapter **many; /* [MANY] */
};

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* --- adapters -------------------------------------------------------------------------------- */

static enum meed_status fresh(const struct values_bench *b, uint64_t seed,
                              struct meed_adapter **adapter)
{
    struct meed_lora_config lora = {.rank = RANK, .alpha = 2 * RANK, .targets = MEED_PROJ_ALL};
    MEED_TRY(meed_adapter_create(&b->checkpoint->config, &lora, adapter));
    meed_adapter_init(*adapter, seed);
    return MEED_OK;
}

/* Trains on slice `part` of `parts` of an example client's data. */
static enum meed_status train(const struct values_bench *b, const char *name, int part, int parts,
                              const struct meed_adapter *start, struct meed_adapter **adapter)
{
    char path[512];
    enum meed_status st = MEED_OK;
    struct meed_dataset *data = NULL;
    struct meed_trainer *trainer = NULL;
    struct meed_train_report report;
    struct meed_train_options options = meed_train_defaults();
    options.steps = STEPS;
    options.batch_tokens = 800;
    options.lr = 6e-3f;
    options.lr_min_ratio = 1;
    options.warmup_steps = 3;
    options.dtype = MEED_DTYPE_F32;
    snprintf(path, sizeof path, MEED_SOURCE_DIR "/examples/tiny/clients/%s.jsonl", name);
    MEED_TRY_OUT(meed_dataset_load(path, b->chat, b->tokenizer, &data));
    MEED_TRY_OUT(start ? meed_adapter_clone(start, adapter) : fresh(b, 1, adapter));
    int64_t begin = data->count * part / parts, end = data->count * (part + 1) / parts;
    MEED_TRY_OUT(meed_trainer_create(b->machine->be, b->checkpoint, *adapter,
                                     data->sequences + begin, end - begin, &options, &trainer));
    for (int i = 0; i < STEPS; i++) {
        MEED_TRY_OUT(meed_trainer_step(trainer, &report));
    }
    MEED_TRY_OUT(meed_trainer_export(trainer, *adapter));
out:
    meed_trainer_destroy(trainer);
    meed_dataset_destroy(data);
    return st;
}

static double size_of(const struct meed_adapter_module *module, const float *values, int64_t count)
{
    double sum = 0;
    (void)module;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)values[i] * (double)values[i];
    }
    return sqrt(sum / (double)count);
}

/* factor·B and noise of `noise` times a factor's own size on A and B. */
static void disturb(struct meed_adapter *adapter, float factor, double noise, uint64_t seed)
{
    struct meed_rng rng = meed_rng_stream(seed, "bench values", 0);
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        int64_t a_count = module->r * module->k, b_count = module->n * module->r;
        double a_size = noise * size_of(module, module->a, a_count);
        double b_size = noise * size_of(module, module->b, b_count);
        for (int64_t i = 0; i < a_count; i++) {
            module->a[i] += (float)(a_size * meed_rng_normal(&rng));
        }
        for (int64_t i = 0; i < b_count; i++) {
            module->b[i] = factor * module->b[i] + (float)(b_size * meed_rng_normal(&rng));
        }
    }
}

static const struct {
    const char *name;
    int part, parts;
} slices[CLIENTS] = {{"clinic", 0, 3},  {"clinic", 1, 3}, {"clinic", 2, 3},  {"bank", 0, 3},
                     {"bank", 1, 3},    {"bank", 2, 3},   {"library", 0, 2}, {"library", 1, 2},
                     {"transit", 0, 2}, {"transit", 1, 2}};

/* One round of honest clients, from a fresh adapter or from where the last round ended. */
static enum meed_status round_train(const struct values_bench *b, const struct meed_adapter *start,
                                    struct meed_adapter **clients)
{
    for (int k = 0; k < CLIENTS; k++) {
        MEED_TRY(train(b, slices[k].name, slices[k].part, slices[k].parts, start, &clients[k]));
    }
    return MEED_OK;
}

/* The mean of factors that began alike: what `fedavg` makes of a round. */
static enum meed_status round_merge(struct meed_adapter *const *clients,
                                    struct meed_adapter **global)
{
    MEED_TRY(meed_adapter_clone(clients[0], global));
    for (int32_t m = 0; m < (*global)->module_count; m++) {
        struct meed_adapter_module *to = &(*global)->modules[m];
        for (int64_t i = 0; i < to->r * to->k; i++) {
            double sum = 0;
            for (int k = 0; k < CLIENTS; k++) {
                sum += (double)clients[k]->modules[m].a[i];
            }
            to->a[i] = (float)(sum / CLIENTS);
        }
        for (int64_t i = 0; i < to->n * to->r; i++) {
            double sum = 0;
            for (int k = 0; k < CLIENTS; k++) {
                sum += (double)clients[k]->modules[m].b[i];
            }
            to->b[i] = (float)(sum / CLIENTS);
        }
    }
    return MEED_OK;
}

static enum meed_status cohorts_make(struct values_bench *b)
{
    MEED_TRY(round_train(b, NULL, b->trained));
    MEED_TRY(round_merge(b->trained, &b->global));
    MEED_TRY(round_train(b, b->global, b->second));
    MEED_TRY(train(b, "mixer", 0, 1, NULL, &b->attackers[0]));
    MEED_TRY(meed_adapter_clone(b->trained[0], &b->attackers[1]));
    disturb(b->attackers[1], -1, 0, 0);
    MEED_TRY(meed_adapter_clone(b->trained[3], &b->attackers[2]));
    disturb(b->attackers[2], 0, 1, 7);
    MEED_TRY(fresh(b, 1, &b->attackers[3]));
    b->many = meed_heap_alloc(MANY, sizeof(struct meed_adapter *));
    if (!b->many) {
        return MEED_NOMEM;
    }
    for (int k = 0; k < MANY; k++) {
        struct meed_rng rng = meed_rng_stream(3, "bench strength", (uint64_t)k);
        MEED_TRY(meed_adapter_clone(b->trained[k % CLIENTS], &b->many[k]));
        disturb(b->many[k], 0.5f + (float)meed_rng_unit(&rng), 0.3, (uint64_t)k);
    }
    return MEED_OK;
}

/* --- measuring ------------------------------------------------------------------------------- */

struct outcome {
    double phi[MANY];
    double residual;
    double seconds;
    int64_t evaluations;
    enum meed_coalition_path path;
};

static enum meed_status value(const struct values_bench *b, const struct meed_adapter *global,
                              const struct meed_adapter *const *clients, int32_t count,
                              struct meed_valuation_options options, struct outcome *outcome)
{
    double *p = meed_heap_alloc((size_t)count, sizeof *p);
    struct meed_valuation *v = NULL;
    if (!p) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < count; k++) {
        p[k] = 1.0 / count;
    }
    double start = cpu_seconds();
    enum meed_status st = meed_valuation_run(b->machine->be, b->checkpoint, b->benchmark, global,
                                             clients, count, p, &options, &v);
    outcome->seconds = cpu_seconds() - start;
    meed_heap_free(p);
    MEED_TRY(st);
    for (int32_t k = 0; k < count; k++) {
        outcome->phi[k] = v->clients[k].phi;
    }
    outcome->residual = v->residual;
    outcome->evaluations = v->evaluations;
    outcome->path = v->path;
    meed_valuation_destroy(v);
    return MEED_OK;
}

static double range_of(const struct outcome *outcome, int32_t count)
{
    double low = INFINITY, high = -INFINITY;
    for (int32_t k = 0; k < count; k++) {
        low = fmin(low, outcome->phi[k]);
        high = fmax(high, outcome->phi[k]);
    }
    return high - low;
}

/* Largest error in per cent of the range of the truth. */
static double error_of(const struct outcome *found, const struct outcome *truth)
{
    double worst = 0;
    for (int32_t k = 0; k < CLIENTS; k++) {
        worst = fmax(worst, fabs(found->phi[k] - truth->phi[k]));
    }
    return 100 * worst / range_of(truth, CLIENTS);
}

static int32_t rank_of(const struct outcome *outcome, int32_t player)
{
    int32_t rank = 0;
    for (int32_t k = 0; k < CLIENTS; k++) {
        rank += outcome->phi[k] < outcome->phi[player] ? 1 : 0;
    }
    return rank;
}

static double spearman(const struct outcome *x, const struct outcome *y)
{
    double squares = 0;
    for (int32_t k = 0; k < CLIENTS; k++) {
        double d = rank_of(x, k) - rank_of(y, k);
        squares += d * d;
    }
    return 1 - 6 * squares / (CLIENTS * (CLIENTS * CLIENTS - 1.0));
}

static struct meed_valuation_options options_of(enum meed_value_method method,
                                                enum meed_coalition_path path)
{
    struct meed_valuation_options options = meed_valuation_defaults();
    options.method = method;
    options.path = path;
    options.bootstrap = 0;
    return options;
}

static void row(const char *cohort, const char *what, double value, const char *unit, double limit,
                char better)
{
    char name[96];
    snprintf(name, sizeof name, "%s, %s", cohort, what);
    meed_bench_row("values", name, value, unit, limit, better);
}

/* Orders by merging, with budgets doubled until their error is gradient's; never more than all
 * coalitions there are, where a cache makes them exact. */
static enum meed_status orders_run(const struct values_bench *b, const char *cohort,
                                   const struct meed_adapter *global,
                                   const struct meed_adapter *const *clients,
                                   const struct outcome *truth, const struct outcome *gradient)
{
    struct outcome orders;
    double target = error_of(gradient, truth), error = INFINITY, each = 0;
    int64_t budget = 40;
    /* Values come from the stack, which is cheaper here; merging is timed on one pair of orders. */
    struct meed_valuation_options options = options_of(MEED_VALUE_PERMUTATION, MEED_PATH_MERGE);
    options.evaluations = 20;
    MEED_TRY(value(b, global, clients, CLIENTS, options, &orders));
    each = orders.seconds / (double)orders.evaluations;
    row(cohort, "merge and score one coalition", each, "cpu s", 0, '<');
    options = options_of(MEED_VALUE_PERMUTATION, MEED_PATH_STACK);
    for (; budget < 1 << CLIENTS && error > target; budget *= 2) {
        options.evaluations = budget;
        MEED_TRY(value(b, global, clients, CLIENTS, options, &orders));
        error = error_of(&orders, truth);
        char what[64];
        snprintf(what, sizeof what, "orders, %lld evaluations, error of range", (long long)budget);
        row(cohort, what, error, "%", 0, '<');
    }
    double needed = error <= target ? (double)orders.evaluations : 1 << CLIENTS;
    row(cohort,
        error <= target ? "evaluations of orders at gradient's error"
                        : "evaluations of orders at gradient's error: over 640, taken as all",
        needed, "", 0, '<');
    row(cohort, "orders by merging against gradient, seconds at equal error",
        needed * each / gradient->seconds, "x", 0, '>');
    row(cohort, "all coalitions merged one by one against gradient",
        (1 << CLIENTS) * each / gradient->seconds, "x", 20, '>');
    return MEED_OK;
}

static enum meed_status ten_run(const struct values_bench *b, const char *cohort,
                                const struct meed_adapter *global,
                                const struct meed_adapter *const *clients, bool honest)
{
    static struct outcome truth, gradient, projected;
    MEED_TRY(
        value(b, global, clients, CLIENTS, options_of(MEED_VALUE_EXACT, MEED_PATH_STACK), &truth));
    row(cohort, "exact, 1,024 coalitions by gates", truth.seconds, "cpu s", 0, '<');
    for (int nodes = 1; nodes <= NODES; nodes++) {
        struct meed_valuation_options options = options_of(MEED_VALUE_GRADIENT, MEED_PATH_STACK);
        char what[64];
        options.nodes = nodes;
        MEED_TRY(value(b, global, clients, CLIENTS, options, &gradient));
        snprintf(what, sizeof what, "gradient, %d nodes by gates", nodes);
        row(cohort, what, gradient.seconds, "cpu s", 0, '<');
        snprintf(what, sizeof what, "gradient, %d nodes, error of range", nodes);
        row(cohort, what, error_of(&gradient, &truth), "%", nodes == NODES ? 1 : 0, '<');
        snprintf(what, sizeof what, "gradient, %d nodes, residual of range", nodes);
        row(cohort, what, 100 * fabs(gradient.residual) / range_of(&truth, CLIENTS), "%", 0, '<');
    }
    struct meed_valuation_options options = options_of(MEED_VALUE_GRADIENT, MEED_PATH_MERGE);
    options.nodes = NODES;
    MEED_TRY(value(b, global, clients, CLIENTS, options, &projected));
    row(cohort, "gradient by projection", projected.seconds, "cpu s", 0, '<');
    row(cohort, "gradient by projection, error of range", error_of(&projected, &truth), "%", 1,
        '<');
    row(cohort, "gradient, Spearman", spearman(&gradient, &truth), "", honest ? 0.99 : 0, '>');
    for (int k = CLIENTS - 4; !honest && k < CLIENTS; k++) {
        static const char *const names[4] = {"swapped replies", "flipped update", "noise", "idle"};
        char what[64];
        snprintf(what, sizeof what, "%s, gradient less exact", names[k - CLIENTS + 4]);
        row(cohort, what, 100 * (gradient.phi[k] - truth.phi[k]) / range_of(&truth, CLIENTS), "%",
            0, '<');
    }
    return orders_run(b, cohort, global, clients, &truth, &gradient);
}

/* --- kinds ----------------------------------------------------------------------------------- */

/* One client of each kind has the values that the exact estimator gives; many share all there is.
 */
static enum meed_status kinds_check(const struct meed_game *game, const double *coefficients,
                                    const struct meed_bench_kinds *table)
{
    struct meed_estimate *exact = NULL;
    const struct meed_estimator_options how = {.method = MEED_VALUE_EXACT};
    double one[KINDS], many[KINDS], sum = 0;
    MEED_TRY(meed_estimator_run(game, &how, &exact));
    meed_bench_kinds_shapley(table, 1, one);
    meed_bench_kinds_shapley(table, COPIES, many);
    for (int32_t k = 0; k < KINDS; k++) {
        sum += COPIES * many[k] - one[k];
        for (int32_t i = 0; i < game->items; i++) {
            one[k] -= coefficients[i] * exact->phi[(int64_t)k * game->items + i];
        }
    }
    meed_estimator_destroy(exact);
    for (int32_t k = 0; k < KINDS; k++) {
        if (!(fabs(one[k]) < 1e-9) || !(fabs(sum) < 1e-9)) {
            return MEED_FAIL(MEED_NUMERIC, "values by kinds are off by %g, their sum by %g", one[k],
                             sum);
        }
    }
    return MEED_OK;
}

/* Their game without verdicts, which would leave somebody out and value the others anew: all
 * utilities of COPIES clients of each kind, and gradient's values [KINDS] of one of each. */
static enum meed_status kinds_value(const struct values_bench *b, const struct meed_adapter *global,
                                    const struct meed_adapter *const *clients,
                                    const double *coefficients, struct meed_bench_kinds *table,
                                    double *gradient)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *gates = NULL, *slopes = NULL;
    struct meed_estimate *estimate = NULL;
    double p[KINDS] = {0};
    struct meed_utility_options options = {
        .path = MEED_PATH_STACK, .batch_tokens = 2048, .coalitions_expected = 1};
    const struct meed_estimator_options how = {.method = MEED_VALUE_GRADIENT, .nodes = NODES};
    for (int32_t k = 0; k < KINDS; k++) {
        p[k] = 1.0 / KINDS;
    }
    MEED_TRY_OUT(meed_utility_create(b->machine->be, b->checkpoint, b->benchmark, global, clients,
                                     KINDS, p, &options, &gates));
    struct meed_game game = meed_utility_game(gates);
    MEED_TRY_OUT(meed_bench_kinds_score(&game, coefficients, COPIES, table));
    MEED_TRY_OUT(kinds_check(&game, coefficients, table));
    options.nodes = NODES;
    MEED_TRY_OUT(meed_utility_create(b->machine->be, b->checkpoint, b->benchmark, global, clients,
                                     KINDS, p, &options, &slopes));
    game = meed_utility_game(slopes);
    MEED_TRY_OUT(meed_estimator_run(&game, &how, &estimate));
    for (int32_t k = 0; k < KINDS; k++) {
        gradient[k] = 0;
        for (int32_t i = 0; i < game.items; i++) {
            gradient[k] += coefficients[i] * estimate->phi[(int64_t)k * game.items + i];
        }
    }
out:
    meed_estimator_destroy(estimate);
    meed_utility_destroy(slopes);
    meed_utility_destroy(gates);
    return st;
}

/* The fewest pairs of orders, of powers of two, whose mean error is no larger than `error`. */
static enum meed_status pairs_needed(const struct meed_bench_kinds *table, const double *truth,
                                     double error, int32_t *pairs)
{
    double mean = INFINITY;
    for (int32_t next = 1; next <= ORDERS_MAX_PAIRS && mean > error; next *= 2) {
        *pairs = next;
        mean = 0;
        for (uint64_t seed = 0; seed < ORDERS_SEEDS; seed++) {
            double found = 0;
            MEED_TRY(meed_bench_kinds_orders(table, truth, *pairs, seed, &found));
            mean += found / ORDERS_SEEDS;
        }
    }
    return MEED_OK;
}

/* Seconds of gradient and of one merged coalition, of KINDS_CLIENTS that all differ. */
static enum meed_status kinds_price(const struct values_bench *b, const struct meed_adapter *global,
                                    double *gradient, double *each)
{
    static struct outcome outcome;
    const struct meed_adapter *const *clients = (const struct meed_adapter *const *)b->many;
    struct meed_valuation_options options = options_of(MEED_VALUE_GRADIENT, MEED_PATH_AUTO);
    options.nodes = NODES;
    MEED_TRY(value(b, global, clients, KINDS_CLIENTS, options, &outcome));
    *gradient = outcome.seconds;
    options = options_of(MEED_VALUE_PERMUTATION, MEED_PATH_MERGE);
    options.evaluations = 2 * KINDS_CLIENTS;
    MEED_TRY(value(b, global, clients, KINDS_CLIENTS, options, &outcome));
    *each = outcome.seconds / (double)outcome.evaluations;
    return MEED_OK;
}

static enum meed_status kinds_compare(const struct values_bench *b, const char *cohort,
                                      const struct meed_adapter *global,
                                      const struct meed_bench_kinds *table, const double *gradient)
{
    double truth[KINDS], worst = 0, seconds = 0, each = 0;
    int32_t pairs = 0;
    char what[64];
    for (int32_t copies = 1; copies <= COPIES; copies++) {
        double low = INFINITY, high = -INFINITY;
        if (COPIES % copies != 0) {
            continue;
        }
        meed_bench_kinds_shapley(table, copies, truth);
        worst = 0;
        for (int32_t k = 0; k < KINDS; k++) {
            low = fmin(low, truth[k]);
            high = fmax(high, truth[k]);
            worst = fmax(worst, fabs(gradient[k] / copies - truth[k]));
        }
        snprintf(what, sizeof what, "%d clients of three kinds, gradient's error of range",
                 KINDS * copies);
        row(cohort, what, 100 * worst / (high - low), "%", copies == COPIES ? 1 : 0, '<');
    }
    MEED_TRY(pairs_needed(table, truth, worst, &pairs));
    MEED_TRY(kinds_price(b, global, &seconds, &each));
    double needed = 2.0 * pairs * (KINDS_CLIENTS - 1);
    snprintf(what, sizeof what, "%d clients, evaluations of orders at gradient's error",
             KINDS_CLIENTS);
    row(cohort, what, needed, "", 0, '<');
    snprintf(what, sizeof what, "%d clients, gradient", KINDS_CLIENTS);
    row(cohort, what, seconds, "cpu s", 0, '<');
    snprintf(what, sizeof what, "%d clients, orders by merging, at equal error", KINDS_CLIENTS);
    row(cohort, what, needed * each / seconds, "x", 20, '>');
    return MEED_OK;
}

static enum meed_status kinds_run(const struct values_bench *b, const char *cohort,
                                  const struct meed_adapter *global,
                                  const struct meed_adapter *const *clients)
{
    double gradient[KINDS];
    struct meed_bench_kinds table = {.values = NULL};
    size_t rows = (size_t)(1 + b->benchmark->axis_count);
    double *coefficients =
        meed_heap_alloc(rows * (size_t)b->benchmark->item_count, sizeof *coefficients);
    if (!coefficients) {
        return MEED_NOMEM;
    }
    meed_benchmark_coefficients(b->benchmark, coefficients);
    enum meed_status st = kinds_value(b, global, clients, coefficients, &table, gradient);
    if (st == MEED_OK) {
        st = kinds_compare(b, cohort, global, &table, gradient);
    }
    meed_heap_free(table.values);
    meed_heap_free(coefficients);
    return st;
}

/* Three updates sent over and over: a first round, a second, and one whose third kind flips its
 * update. */
static enum meed_status all_kinds_run(const struct values_bench *b)
{
    const struct meed_adapter *first[] = {b->trained[0], b->trained[3], b->trained[6]};
    const struct meed_adapter *second[] = {b->second[0], b->second[3], b->second[6]};
    const struct meed_adapter *attacked[] = {b->trained[0], b->trained[3], b->attackers[1]};
    MEED_TRY(kinds_run(b, "round 1", NULL, first));
    MEED_TRY(kinds_run(b, "round 2", b->global, second));
    return kinds_run(b, "attacked", NULL, attacked);
}

static enum meed_status many_run(const struct values_bench *b)
{
    static struct outcome gradient, one;
    const struct meed_adapter *const *clients = (const struct meed_adapter *const *)b->many;
    const char *cohort = "n=1000";
    struct meed_valuation_options options = options_of(MEED_VALUE_GRADIENT, MEED_PATH_MERGE);
    options.nodes = NODES;
    MEED_TRY(value(b, NULL, clients, MANY, options, &gradient));
    row(cohort, "gradient, 4 nodes by projection", gradient.seconds, "cpu s", 0, '<');
    double sum = 0;
    for (int k = 0; k < MANY; k++) {
        sum += gradient.phi[k];
    }
    row(cohort, "residual of the sum of values", 100 * fabs(gradient.residual / sum), "%", 1, '<');
    options.nodes = 1;
    MEED_TRY(value(b, NULL, clients, MANY, options, &one));
    row(cohort, "a node more", (gradient.seconds - one.seconds) / (NODES - 1), "cpu s", 0, '<');
    struct meed_coalition_options how = {
        .path = MEED_PATH_MERGE, .dtype = MEED_DTYPE_F32, .batch_tokens = 2048, .streamed = true};
    struct meed_coalition *coalition = NULL;
    double *members = meed_heap_alloc(2 * MANY, sizeof *members);
    double *p = meed_heap_alloc(MANY, sizeof *p);
    double *sums = meed_heap_alloc(2 * (size_t)b->benchmark->sequence_count, sizeof *sums);
    enum meed_status st = members && p && sums ? MEED_OK : MEED_NOMEM;
    for (int k = 0; st == MEED_OK && k < MANY; k++) {
        p[k] = 1.0 / MANY;
        members[k] = k % 2;
        members[MANY + k] = 1;
    }
    MEED_KEEP_FIRST(st, st != MEED_OK ? st
                                      : meed_coalition_create(b->machine->be, b->checkpoint, NULL,
                                                              clients, MANY, p, &how, &coalition));
    double start = cpu_seconds();
    if (st == MEED_OK) {
        st = meed_coalition_score(coalition, members, 2, b->benchmark->sequences,
                                  b->benchmark->sequence_count, sums, NULL, NULL);
    }
    double each = (cpu_seconds() - start) / 2;
    row(cohort, "merge and score one coalition", each, "cpu s", 0, '<');
    row(cohort, "one pair of orders (1,998 coalitions) against gradient",
        1998 * each / gradient.seconds, "x", 20, '>');
    meed_coalition_destroy(coalition);
    meed_heap_free(members);
    meed_heap_free(p);
    meed_heap_free(sums);
    return st;
}

/* Every KEEP_EVERY-th dialogue of the example's benchmark. */
static enum meed_status benchmark_open(struct values_bench *b)
{
    enum meed_status st = MEED_OK;
    const char *path = MEED_BINARY_DIR "/bench_values.jsonl";
    struct meed_buf all, kept;
    int32_t line = 0;
    meed_buf_init(&all, FILE_BYTES);
    meed_buf_init(&kept, FILE_BYTES);
    MEED_TRY_OUT(meed_file_read(MEED_SOURCE_DIR "/examples/tiny/benchmark.jsonl", &all));
    for (size_t at = 0; at < all.size; line++) {
        size_t end = at;
        while (end < all.size && all.data[end++] != '\n') {
        }
        if (line % KEEP_EVERY == 0) {
            MEED_TRY_OUT(meed_buf_append(&kept, all.data + at, end - at));
        }
        at = end;
    }
    MEED_TRY_OUT(meed_file_write_atomic(path, kept.data, kept.size));
    st = meed_benchmark_load(path, b->chat, b->checkpoint->config.max_positions, &b->benchmark);
out:
    meed_buf_clear(&all);
    meed_buf_clear(&kept);
    return st;
}

enum meed_status meed_suite_values(struct meed_bench_machine *machine)
{
    enum meed_status st = MEED_OK;
    struct values_bench b = {.machine = machine};
    const char *model = MEED_SOURCE_DIR "/examples/tiny/model";
    const struct meed_adapter *clients[CLIENTS];
    MEED_TRY_OUT(meed_checkpoint_open(model, &b.checkpoint));
    MEED_TRY_OUT(meed_tokenizer_open(model, &b.tokenizer));
    MEED_TRY_OUT(meed_chat_open(model, b.tokenizer, &b.chat));
    MEED_TRY_OUT(benchmark_open(&b));
    char heading[128];
    snprintf(heading, sizeof heading,
             "rank 4 adapters of the embedded model, %d items, %lld rows a coalition, fp32",
             b.benchmark->item_count, (long long)b.benchmark->tokens);
    meed_bench_heading("values", heading);
    if (machine->smoke) {
        printf("  left out: adapters that mean something take minutes to train\n");
        goto out;
    }
    MEED_TRY_OUT(cohorts_make(&b));
    for (int k = 0; k < CLIENTS; k++) {
        clients[k] = b.trained[k];
    }
    MEED_TRY_OUT(many_run(&b));
    MEED_TRY_OUT(all_kinds_run(&b));
    MEED_TRY_OUT(ten_run(&b, "round 1", NULL, clients, true));
    MEED_TRY_OUT(
        ten_run(&b, "round 2", b.global, (const struct meed_adapter *const *)b.second, true));
    for (int k = 0; k < 4; k++) {
        clients[CLIENTS - 4 + k] = b.attackers[k];
    }
    MEED_TRY_OUT(ten_run(&b, "attacked", NULL, clients, false));
out:
    for (int k = 0; b.many && k < MANY; k++) {
        meed_adapter_destroy(b.many[k]);
    }
    meed_heap_free(b.many);
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(b.trained[k]);
        meed_adapter_destroy(b.second[k]);
        meed_adapter_destroy(k < 4 ? b.attackers[k] : NULL);
    }
    meed_adapter_destroy(b.global);
    meed_benchmark_destroy(b.benchmark);
    meed_chat_close(b.chat);
    meed_tokenizer_close(b.tokenizer);
    meed_checkpoint_close(b.checkpoint);
    return st;
}
