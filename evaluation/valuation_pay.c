/* Who stays, who is paid what, and why, in words (valuation.h).
 *
 * A client is treated as null if the evaluator folded it away or if no item noticed it: an update
 * too small to change one log-likelihood is worth what no update is worth.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "evaluation/bootstrap.h"
#include "evaluation/clique.h"
#include "evaluation/payment.h"
#include "evaluation/valuation_private.h"
#include "evaluation/verdict.h"

/* ---- words ----------------------------------------------------------------------------------- */

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

static void verdict_write(const struct meed_benchmark *benchmark, const int32_t *guards,
                          const struct meed_verdict_cohort *cohort,
                          const struct meed_verdict *verdict, int32_t player,
                          struct meed_value_client *client)
{
    static const char *const guard_words[] = {"makes these dialogues less likely",
                                              "answers do not fit their questions",
                                              "prefers the replies that it should refuse"};
    char number[64];
    estimate_print(client->phi, client->se, number, sizeof number);
    switch (verdict->cause) {
    case MEED_VERDICT_STAYS:
        break;
    case MEED_VERDICT_HARMFUL:
        snprintf(client->reason, sizeof client->reason,
                 "value %s: the update makes the model worse", number);
        break;
    case MEED_VERDICT_GUARD: {
        const struct meed_axis *axis = &benchmark->axes[guards[verdict->guard]];
        estimate_print(client->axis_phi[guards[verdict->guard]],
                       client->axis_se[guards[verdict->guard]], number, sizeof number);
        snprintf(client->reason, sizeof client->reason, "%s %s: %s", axis->name, number,
                 guard_words[axis->kind]);
        break;
    }
    case MEED_VERDICT_UNLIKE:
        snprintf(client->reason, sizeof client->reason,
                 "unlike the others (%.1f deviations), worth less (%.1f) and better in no category",
                 cohort->unlike[player], fmax(verdict->deficit, 0.0));
        break;
    case MEED_VERDICT_CLIQUE:
        snprintf(client->reason, sizeof client->reason,
                 "pulls with a group in a direction that serves no dialogue (%.1f deviations)",
                 cohort->clique[player]);
        break;
    }
}

static void payment_write(enum meed_payment_cause cause, struct meed_value_client *client)
{
    char number[64];
    const char *floor = client->share > 0 ? ", the floor alone" : "";
    estimate_print(client->phi, client->se, number, sizeof number);
    switch (cause) {
    case MEED_PAYMENT_EARNED:
    case MEED_PAYMENT_LEFT_OUT:
        break;
    case MEED_PAYMENT_NULL:
        snprintf(client->reason, sizeof client->reason, "the update changes nothing");
        break;
    case MEED_PAYMENT_WORTHLESS:
        snprintf(client->reason, sizeof client->reason, "value %s: no gain to pay for%s", number,
                 floor);
        break;
    case MEED_PAYMENT_UNDECLARED:
        snprintf(client->reason, sizeof client->reason, "declares no samples to pay for%s", floor);
        break;
    case MEED_PAYMENT_ROUNDED:
        snprintf(client->reason, sizeof client->reason, "the share rounds to 0 credits");
        break;
    }
}

/* ---- evidence -------------------------------------------------------------------------------- */

static bool item_values_are_zero(const struct meed_estimate *estimate, int32_t player)
{
    for (int32_t item = 0; item < estimate->items; item++) {
        if (estimate->phi[(int64_t)player * estimate->items + item] != 0.0) {
            return false;
        }
    }
    return true;
}

struct evidence {
    struct meed_arena arena;
    struct meed_verdict_cohort cohort;
    int32_t guards[MEED_BENCHMARK_MAX_AXES]; /* axis of a guard */
    struct meed_verdict *verdicts;           /* [players] */
};

/* A column of zeros. */
static enum meed_status column_create(struct meed_arena *arena, int32_t players,
                                      struct meed_verdict_column *column, double **value,
                                      double **error)
{
    void *blocks[2] = {NULL};
    for (int i = 0; i < 2; i++) {
        MEED_TRY(meed_arena_alloc_array(arena, (size_t)players, sizeof(double), &blocks[i]));
        memset(blocks[i], 0, (size_t)players * sizeof(double));
    }
    *value = blocks[0];
    *error = blocks[1];
    *column = (struct meed_verdict_column){blocks[0], blocks[1]};
    return MEED_OK;
}

static enum meed_status axis_fill(const struct meed_valuation *v, int32_t axis,
                                  struct meed_arena *arena, struct meed_verdict_column *column)
{
    double *value, *error;
    MEED_TRY(column_create(arena, v->players, column, &value, &error));
    for (int32_t k = 0; k < v->players; k++) {
        value[k] = axis < 0 ? v->clients[k].phi : v->clients[k].axis_phi[axis];
        error[k] = axis < 0 ? v->clients[k].se : v->clients[k].axis_se[axis];
    }
    return MEED_OK;
}

/* Mean and standard error over a category's items on paying axes; *found says if there are two. */
static enum meed_status category_fill(const struct meed_benchmark *benchmark,
                                      const struct meed_estimate *estimate, int32_t category,
                                      struct meed_arena *arena, struct meed_verdict_column *column,
                                      bool *found)
{
    double *value, *error;
    MEED_TRY(column_create(arena, estimate->players, column, &value, &error));
    for (int32_t k = 0; k < estimate->players; k++) {
        const double *phi = estimate->phi + (int64_t)k * estimate->items;
        double sum = 0, squares = 0;
        int32_t count = 0;
        for (int32_t i = 0; i < benchmark->item_count; i++) {
            const struct meed_benchmark_item *item = &benchmark->items[i];
            if (item->category == category && benchmark->axes[item->axis].weight > 0) {
                sum += phi[i];
                squares += phi[i] * phi[i];
                count++;
            }
        }
        *found = count > 1;
        if (!*found) {
            return MEED_OK;
        }
        value[k] = sum / count;
        error[k] = sqrt(fmax(0.0, squares / count - value[k] * value[k]) / (count - 1));
    }
    return MEED_OK;
}

static enum meed_status evidence_gather(const struct meed_benchmark *benchmark,
                                        const struct meed_pass *pass,
                                        const struct meed_valuation_options *options,
                                        const struct meed_valuation *v, struct evidence *evidence)
{
    struct meed_verdict_cohort *cohort = &evidence->cohort;
    void *null = NULL, *columns = NULL, *verdicts = NULL;
    size_t most = MEED_BENCHMARK_MAX_AXES + MEED_BENCHMARK_MAX_CATEGORIES;
    size_t players = (size_t)v->players;
    MEED_TRY(meed_arena_alloc_array(&evidence->arena, players, sizeof(bool), &null));
    MEED_TRY(meed_arena_alloc_array(&evidence->arena, most, sizeof *cohort->guards, &columns));
    MEED_TRY(
        meed_arena_alloc_array(&evidence->arena, players, sizeof *evidence->verdicts, &verdicts));
    evidence->verdicts = verdicts;
    struct meed_verdict_column *guards = columns, *categories = guards + MEED_BENCHMARK_MAX_AXES;
    *cohort = (struct meed_verdict_cohort){.players = v->players,
                                           .null = null,
                                           .guards = guards,
                                           .categories = categories,
                                           .unlike = options->unlike,
                                           .z = options->guard_z};
    for (int32_t k = 0; k < v->players; k++) {
        ((bool *)null)[k] = v->clients[k].null;
    }
    if (options->loadings) {
        void *clique = NULL;
        struct meed_clique_cohort directions = {.players = v->players,
                                                .items = pass->estimate->items,
                                                .null = null,
                                                .loadings = options->loadings,
                                                .phi = pass->estimate->phi};
        MEED_TRY(meed_arena_alloc_array(&evidence->arena, players, sizeof(double), &clique));
        MEED_TRY(meed_clique_hidden(&directions, clique));
        cohort->clique = clique;
    }
    MEED_TRY(axis_fill(v, -1, &evidence->arena, &cohort->paid));
    for (int32_t a = 0; a < benchmark->axis_count; a++) {
        if (benchmark->axes[a].guard) {
            evidence->guards[cohort->guard_count] = a;
            MEED_TRY(axis_fill(v, a, &evidence->arena, &guards[cohort->guard_count++]));
        }
    }
    for (int32_t c = 0; c < benchmark->category_count; c++) {
        bool found = false;
        MEED_TRY(category_fill(benchmark, pass->estimate, c, &evidence->arena,
                               &categories[cohort->category_count], &found));
        cohort->category_count += found ? 1 : 0;
    }
    return MEED_OK;
}

static enum meed_status judge(const struct meed_benchmark *benchmark, const struct meed_pass *pass,
                              const struct meed_valuation_options *options,
                              struct meed_valuation *v)
{
    enum meed_status st = MEED_OK;
    struct evidence evidence = {0};
    meed_arena_init_growing(&evidence.arena, "verdict", SIZE_MAX / 2);
    for (int32_t k = 0; k < v->players; k++) {
        v->clients[k].null = item_values_are_zero(pass->estimate, k);
    }
    MEED_TRY_OUT(evidence_gather(benchmark, pass, options, v, &evidence));
    MEED_TRY_OUT(meed_verdict_run(&evidence.cohort, evidence.verdicts));
    for (int32_t k = 0; k < v->players; k++) {
        struct meed_value_client *client = &v->clients[k];
        const struct meed_verdict *verdict = &evidence.verdicts[k];
        client->score = verdict->score;
        client->status = verdict->cause == MEED_VERDICT_STAYS ? MEED_PAY_UNPAID : MEED_PAY_EXCLUDED;
        verdict_write(benchmark, evidence.guards, &evidence.cohort, verdict, k, client);
    }
out:
    meed_arena_clear(&evidence.arena);
    return st;
}

/* ---- later passes ---------------------------------------------------------------------------- */

static void leave_out(const char *why, struct meed_value_client *client)
{
    char number[64];
    estimate_print(client->phi, client->se, number, sizeof number);
    snprintf(client->reason, sizeof client->reason, "value %s: %s", number, why);
    client->status = MEED_PAY_EXCLUDED;
    client->score = fmax(client->score, 1.0);
}

/* The verdict's HARMFUL, with the weight that a client has by now. */
static bool harmful_found(const struct meed_pass *pass, double z, struct meed_valuation *v)
{
    bool found = false;
    for (int32_t i = 0; i < pass->players; i++) {
        struct meed_value_client *client = &v->clients[pass->of[i]];
        if (client->phi + z * client->se < 0) {
            leave_out("the update makes the model worse", client);
            found = true;
        }
    }
    return found;
}

/* v->kept_se, and whether the round is below zero beyond it. */
static enum meed_status round_judge(const struct meed_benchmark *benchmark,
                                    const struct meed_pass *pass,
                                    const struct meed_valuation_options *options,
                                    struct meed_valuation *v, bool *worse)
{
    const struct meed_estimate *estimate = pass->estimate;
    double axis_se[MEED_BENCHMARK_MAX_AXES];
    double *gains = meed_heap_alloc((size_t)estimate->items, sizeof *gains);
    if (!gains) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < estimate->items; i++) {
        gains[i] = estimate->full[i] - estimate->empty[i];
    }
    enum meed_status st = meed_bootstrap_errors(benchmark, gains, 1, options->bootstrap,
                                                options->seed, axis_se, &v->kept_se);
    double gain = meed_benchmark_value(benchmark, gains, NULL);
    *worse = gain + options->guard_z * v->kept_se < 0;
    meed_heap_free(gains);
    return st;
}

enum meed_status meed_valuation_leave_out(const struct meed_benchmark *benchmark,
                                          const struct meed_pass *pass,
                                          const struct meed_valuation_options *options,
                                          struct meed_valuation *v, bool *more)
{
    bool worse = false;
    *more = false;
    if (pass->first) {
        MEED_TRY(judge(benchmark, pass, options, v));
        for (int32_t k = 0; k < v->players; k++) {
            *more |= v->clients[k].status == MEED_PAY_EXCLUDED;
        }
    } else {
        *more = harmful_found(pass, options->guard_z, v);
    }
    MEED_TRY(round_judge(benchmark, pass, options, v, &worse));
    worse = worse && !*more;
    for (int32_t i = 0; worse && i < pass->players; i++) {
        struct meed_value_client *client = &v->clients[pass->of[i]];
        if (client->phi < 0) {
            leave_out("together these updates make the model worse", client);
            *more = true;
        }
    }
    return MEED_OK;
}

/* ---- credits --------------------------------------------------------------------------------- */

struct meed_payment_policy meed_valuation_policy(const struct meed_valuation_options *options)
{
    return (struct meed_payment_policy){.rule = options->rule,
                                        .z = options->guard_z,
                                        .reputation = options->reputation,
                                        .floor = options->floor};
}

enum meed_status meed_valuation_pay(const struct meed_valuation_options *options,
                                    struct meed_valuation *v)
{
    enum meed_status st = MEED_OK;
    struct meed_payment_player *players = meed_heap_alloc((size_t)v->players, sizeof *players);
    if (!players) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < v->players; k++) {
        players[k].phi = v->clients[k].phi;
        players[k].se = v->clients[k].se;
        players[k].null = v->clients[k].null;
        players[k].left_out = v->clients[k].status == MEED_PAY_EXCLUDED;
        players[k].samples = options->samples ? options->samples[k] : 0;
        players[k].standing = options->standing ? options->standing[k] : -1;
    }
    struct meed_payment_policy policy = meed_valuation_policy(options);
    MEED_TRY_OUT(meed_payment_settle(&policy, options->budget, players, v->players, &v->paid));
    for (int32_t k = 0; k < v->players; k++) {
        v->clients[k].share = players[k].share;
        v->clients[k].status = players[k].status;
        payment_write(players[k].cause, &v->clients[k]);
    }
    if (v->paid < options->budget) {
        snprintf(v->note, sizeof v->note, "%s was paid: no client %s; the %sbudget is kept",
                 v->paid > 0 ? "the floor alone" : "nothing",
                 options->rule == MEED_PAY_SAMPLES ? "that is left declares samples"
                                                   : "has a value above zero",
                 v->paid > 0 ? "rest of the " : "");
    }
out:
    meed_heap_free(players);
    return st;
}
