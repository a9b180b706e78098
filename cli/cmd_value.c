/* meed value: price any set of PEFT adapters, with no federation at all.
 *
 * The adapters of a folder list play the cooperative game of evaluation/ with fixed weights 1/n:
 * the same call, the same bits and the same rules that settle a round of a federation. A valuation
 * that is stopped goes on where it was if --cache names a file.
 *
 * Many processes may share the work: each scores one --shard into a folder, and --merge prices what
 * they left there. The JSON is a function of the inputs alone (how long it took stands in the table
 * only), so a merge writes the bytes that one process would have written.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "base/parse.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/retrain_oracle.h"
#include "cli/score_session.h"
#include "cli/stop_signal.h"
#include "cli/value_pairs.h"
#include "evaluation/payment.h"
#include "proto/limits.h"

enum { ID_BYTES = 64, BAR_CELLS = 12 };

struct options {
    const char *model;
    const char *benchmark;
    const char *global;
    const char *json;
    const char *device;
    const char **adapters; /* [adapter_count], room for every argument */
    int32_t adapter_count;
    int64_t threads;
    bool quiet;
    bool budget_given;
    const char *state, *merge;
    const char *samples; /* "120,80", NULL: not given */
    bool oracle;
    struct meed_retrain_options retrain;
    struct meed_valuation_options valuation;
    enum meed_status status; /* of parsing */
};

enum {
    KEY_METHOD = 256,
    KEY_RULE,
    KEY_SAMPLES,
    KEY_FLOOR,
    KEY_PATH,
    KEY_CACHE,
    KEY_BATCH,
    KEY_GUARD_Z,
    KEY_DRAWS,
    KEY_DEVICE,
    KEY_SHARD,
    KEY_STATE,
    KEY_MERGE,
    KEY_BASE,
    KEY_PRECISION,
    KEY_EVALUATIONS,
    KEY_TRUNCATE,
    KEY_NODES,
    KEY_ORACLE,
    KEY_ORACLE_STEPS,
    KEY_ORACLE_LR,
    KEY_ORACLE_RANK,
};

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 1},
    {"benchmark", 'b', "FILE", 0, "dialogues: Meed JSONL or MT-Bench-101", 1},
    {"adapters", 'a', "DIR", 0, "the adapters to price: PEFT folders of any ranks and targets", 1},
    {"global", 'g', "DIR", 0, "the adapter they started from (default: the plain base)", 1},
    {"method", KEY_METHOD, "WORD", 0,
     "exact (Shapley, all 2^n coalitions, 16 adapters at most), loo, permutation, owen, banzhaf, "
     "gradient (any number) or auto (default: exact)",
     2},
    {"precision", KEY_PRECISION, "X", 0,
     "sampling stops once no value's standard error is above X (default: go to the budget)", 2},
    {"budget-evals", KEY_EVALUATIONS, "N", 0,
     "coalitions that sampling may score (default: 64 draws)", 2},
    {"truncate", KEY_TRUNCATE, "X", 0,
     "end an order of permutation this close to all adapters' value (default: never)", 2},
    {"nodes", KEY_NODES, "N", 0, "of gradient, 1 to 32 (default: 4)", 2},
    {"budget", 'n', "N", 0, "credits to share", 2},
    {"rule", KEY_RULE, "WORD", 0, "shrunk, proportional, equal or samples (default: shrunk)", 2},
    {"samples", KEY_SAMPLES, "N[,N]", 0,
     "of rule samples: how much each adapter was trained on, in their order", 2},
    {"floor", KEY_FLOOR, "X", 0, "share of the budget split evenly among the honest (default: 0)",
     2},
    {"guard-z", KEY_GUARD_Z, "X", 0, "standard errors below 0 that exclude (default: 2.576)", 2},
    {"draws", KEY_DRAWS, "N", 0, "bootstrap draws (default: 1000)", 2},
    {"seed", 's', "N", 0, "of the bootstrap (default: 1)", 2},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 3},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 3},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 3},
    {"path", KEY_PATH, "WORD", 0, "auto, stack or merge (default: auto)", 3},
    {"batch-tokens", KEY_BATCH, "N", 0, "rows of one forward (default: 2048)", 3},
    {"cache", KEY_CACHE, "FILE", 0, "keep utilities here; a stopped valuation goes on", 3},
    {"shard", KEY_SHARD, "I/N", 0, "score part I of N (1 to N) into --state, price nothing", 3},
    {"state", KEY_STATE, "DIR", 0, "folder that the shards of one valuation share", 3},
    {"merge", KEY_MERGE, "DIR", 0, "price what the shards have scored in this folder", 3},
    {"oracle", KEY_ORACLE, "retrain", 0,
     "another question, for a check: the arguments are data files of 1 to 5 clients, and an "
     "adapter "
     "is trained anew for every set of them; prices nothing",
     4},
    {"oracle-steps", KEY_ORACLE_STEPS, "N", 0, "of every training (default: 60)", 4},
    {"oracle-lr", KEY_ORACLE_LR, "X", 0, "its learning rate (default: 3e-3)", 4},
    {"oracle-rank", KEY_ORACLE_RANK, "N", 0, "its rank (default: 8)", 4},
    {"json", 'j', "FILE", 0, "write the result here", 3},
    {"quiet", 'q', NULL, 0, "no progress", 3},
    {0},
};

static const char documentation[] =
    "Price a set of adapters: what each adds to a benchmark, with standard errors, and its share "
    "of a budget. All share one base model; weights are 1/n.\v"
    "Examples:\n"
    "  meed value --model M --benchmark B.jsonl --adapters A1 A2 A3 \\\n"
    "      --budget 1000 --json out.json\n"
    "  meed value --model M --benchmark B.jsonl --adapters round/* --global G \\\n"
    "      --budget 1000 --cache u.db\n"
    "  meed value --model M --benchmark mtbench101.jsonl --adapters A B \\\n"
    "      --budget 1000 --method gradient\n"
    "  meed value --model M --benchmark B.jsonl --adapters A B --base nf4 \\\n"
    "      --budget 1000                # on the stack path\n"
    "  meed value --model M --benchmark B.jsonl --adapters round/* \\\n"
    "      --shard 3/8 --state D        # in eight processes, on any machines\n"
    "  meed value --model M --benchmark B.jsonl --adapters round/* \\\n"
    "      --merge D --budget 1000 --json out.json\n"
    "  meed value --model M --benchmark B.jsonl --oracle retrain a.jsonl b.jsonl";

static error_t word_parse(struct options *options, const char *name, const char *text,
                          const char *const *words, int count, int *choice)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], text) == 0) {
            *choice = i;
            return 0;
        }
    }
    char list[128] = "";
    for (int i = 0; i < count; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
    }
    options->status = MEED_FAIL(MEED_ARG, "%s: \"%.64s\" is not one of %s", name, text, list);
    return EINVAL;
}

static const char *const path_words[] = {"auto", "stack", "merge"};
static const char *const stop_words[] = {"complete", "precision", "budget"};
static const char *const status_words[] = {"paid", "unpaid", "excluded"};

static error_t number_parse(struct options *options, const char *name, const char *text,
                            int64_t min, int64_t max, int64_t *value)
{
    options->status = meed_parse_i64(name, text, min, max, value);
    return options->status == MEED_OK ? 0 : EINVAL;
}

static enum meed_status shard_parse(const char *text, struct meed_utility_shard_options *shard)
{
    char first[16];
    int64_t idx = 0, count = 0;
    size_t length = strcspn(text, "/");
    if (text[length] != '/' || length >= sizeof first) {
        return MEED_FAIL(MEED_ARG, "--shard: \"%.32s\" is not I/N, such as 3/8", text);
    }
    snprintf(first, sizeof first, "%.*s", (int)length, text);
    MEED_TRY(meed_parse_i64("--shard: N", text + length + 1, 1, MEED_UTILITY_SHARD_MAX, &count));
    MEED_TRY(meed_parse_i64("--shard: I", first, 1, count, &idx));
    shard->idx = (int32_t)idx;
    shard->count = (int32_t)count;
    return MEED_OK;
}

static error_t choice_parse(int key, const char *text, struct options *options)
{
    struct meed_valuation_options *v = &options->valuation;
    int choice = 0;
    int64_t number = 0;
    error_t failed = ARGP_ERR_UNKNOWN;
    if (key == KEY_METHOD) {
        const char *words[MEED_VALUE_METHOD_COUNT];
        for (int i = 0; i < MEED_VALUE_METHOD_COUNT; i++) {
            words[i] = meed_estimator_name((enum meed_value_method)i);
        }
        failed = word_parse(options, "--method", text, words, MEED_VALUE_METHOD_COUNT, &choice);
        v->method = (enum meed_value_method)choice;
    } else if (key == KEY_RULE) {
        options->status = meed_payment_rule_parse(text, &v->rule);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_FLOOR) {
        options->status = meed_parse_f64("--floor", text, 0, 1, &v->floor);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_PATH) {
        failed = word_parse(options, "--path", text, path_words, 3, &choice);
        v->path = (enum meed_coalition_path)choice;
    } else if (key == 's') {
        failed = number_parse(options, "--seed", text, 0, INT64_MAX, &number);
        v->seed = (uint64_t)number;
    } else if (key == KEY_BATCH) {
        failed = number_parse(options, "--batch-tokens", text, 1, 1 << 20, &number);
        v->batch_tokens = (int32_t)number;
    } else if (key == KEY_DRAWS) {
        failed = number_parse(options, "--draws", text, 0, 1000000, &number);
        v->bootstrap = (int32_t)number;
    } else if (key == KEY_BASE) {
        options->status = meed_command_line_base(text, &v->base);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_SHARD) {
        options->status = shard_parse(text, &v->shard);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_PRECISION) {
        options->status = meed_parse_f64("--precision", text, 0, 1e6, &v->precision);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_TRUNCATE) {
        options->status = meed_parse_f64("--truncate", text, 0, 1e6, &v->truncation);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_EVALUATIONS) {
        failed = number_parse(options, "--budget-evals", text, 3, 1 << 30, &v->evaluations);
    } else if (key == KEY_NODES) {
        failed = number_parse(options, "--nodes", text, 1, MEED_ESTIMATOR_MAX_NODES, &number);
        v->nodes = (int32_t)number;
    } else if (key == KEY_ORACLE) {
        static const char *const oracles[] = {"retrain"};
        failed = word_parse(options, "--oracle", text, oracles, 1, &choice);
        options->oracle = true;
    } else if (key == KEY_ORACLE_STEPS) {
        failed = number_parse(options, "--oracle-steps", text, 1, 1000000, &options->retrain.steps);
    } else if (key == KEY_ORACLE_RANK) {
        failed = number_parse(options, "--oracle-rank", text, 1, MEED_ADAPTER_MAX_RANK, &number);
        options->retrain.rank = (int32_t)number;
    } else if (key == KEY_ORACLE_LR) {
        double lr = 0;
        options->status = meed_parse_f64("--oracle-lr", text, 1e-9, 1, &lr);
        options->retrain.lr = (float)lr;
        failed = options->status == MEED_OK ? 0 : EINVAL;
    } else if (key == KEY_GUARD_Z) {
        options->status = meed_parse_f64("--guard-z", text, 0, 1e6, &v->guard_z);
        failed = options->status == MEED_OK ? 0 : EINVAL;
    }
    return failed;
}

static error_t adapter_add(struct options *options, const char *folder)
{
    if (options->adapter_count == MEED_VALUE_MAX_PLAYERS) {
        options->status = MEED_FAIL(MEED_ARG, "--adapters: at most %d can be priced at once",
                                    MEED_VALUE_MAX_PLAYERS);
        return EINVAL;
    }
    options->adapters[options->adapter_count++] = folder;
    return 0;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'm':
        options->model = text;
        return 0;
    case 'b':
        options->benchmark = text;
        return 0;
    case 'g':
        options->global = text;
        return 0;
    case 'j':
        options->json = text;
        return 0;
    case 'q':
        options->quiet = true;
        return 0;
    case KEY_CACHE:
        options->valuation.cache_path = text;
        return 0;
    case KEY_STATE:
        options->state = text;
        return 0;
    case KEY_MERGE:
        options->merge = text;
        return 0;
    case KEY_SAMPLES:
        options->samples = text;
        return 0;
    case 'n':
        options->budget_given = true;
        return number_parse(options, "--budget", text, 0, (int64_t)1 << 62,
                            &options->valuation.budget);
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    case 't':
        return number_parse(options, "--threads", text, 1, 256, &options->threads);
    case 'a':
    case ARGP_KEY_ARG:
        return adapter_add(options, text);
    default:
        return choice_parse(key, text, options);
    }
}

/* --- names ---------------------------------------------------------------------------------- */
struct job {
    const struct options *options;
    struct meed_score_session session;
    struct meed_adapter *global;
    struct meed_adapter **adapters; /* [adapter_count] */
    char (*ids)[ID_BYTES];          /* [adapter_count] */
    double *weights;                /* [adapter_count] */
    double *samples;                /* [adapter_count] declared; 0 without --samples */
    struct meed_valuation *valuation;
    struct meed_value_pairs pairs;
    const char **names;                /* [adapter_count]: ids once more */
    const volatile sig_atomic_t *stop; /* of a shard */
};

static bool id_taken(const struct job *job, int32_t before, const char *id)
{
    for (int32_t k = 0; k < before; k++) {
        if (strcmp(job->ids[k], id) == 0) {
            return true;
        }
    }
    return false;
}

/* The folder's base name; "-2", "-3" … where it was used before. */
static void id_make(struct job *job, int32_t k)
{
    const char *path = job->options->adapters[k];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        length--;
    }
    size_t begin = length;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    int shown = (int)MEED_MIN(length - begin, (size_t)40);
    snprintf(job->ids[k], ID_BYTES, "%.*s", shown, path + begin);
    for (int copy = 2; id_taken(job, k, job->ids[k]); copy++) {
        snprintf(job->ids[k], ID_BYTES, "%.*s-%d", shown, path + begin, copy);
    }
}

/* --- JSON ----------------------------------------------------------------------------------- */
static json_t *coalitions_json(const struct job *job)
{
    const struct meed_valuation *v = job->valuation;
    json_t *rows = json_array();
    for (int32_t i = 0; i < v->coalition_count; i++) {
        json_t *members = json_array();
        for (int32_t k = 0; k < v->players; k++) {
            if ((v->coalition_masks[i] >> k) & 1u) {
                json_array_append_new(members, json_string(job->ids[k]));
            }
        }
        json_array_append_new(
            rows, json_pack("{s:o, s:f}", "members", members, "value", v->coalition_values[i]));
    }
    return rows;
}

static json_t *clients_json(const struct job *job)
{
    const struct meed_benchmark *b = job->session.benchmark;
    json_t *rows = json_array();
    for (int32_t k = 0; k < job->valuation->players; k++) {
        const struct meed_value_client *client = &job->valuation->clients[k];
        json_t *axes = json_object();
        for (int32_t a = 0; a < b->axis_count; a++) {
            json_object_set_new(
                axes, b->axes[a].name,
                json_pack("{s:f, s:f}", "phi", client->axis_phi[a], "se", client->axis_se[a]));
        }
        json_t *row = json_pack(
            "{s:s, s:f, s:f, s:f, s:I, s:s, s:s, s:o}", "id", job->ids[k], "phi", client->phi, "se",
            client->se, "sampling_se", client->sampling_se, "share", (json_int_t)client->share,
            "status", status_words[client->status], "reason", client->reason, "axes", axes);
        if (row && job->options->samples) {
            json_object_set_new(row, "samples", json_integer((json_int_t)job->samples[k]));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static enum meed_status json_write(const struct job *job)
{
    const struct meed_valuation *v = job->valuation;
    const struct meed_valuation_options *o = &job->options->valuation;
    char utilities[MEED_SHA256_HEX_BYTES];
    char model[MEED_SHA256_HEX_BYTES];
    char benchmark[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(v->utilities_hash, utilities);
    meed_sha256_hex(job->session.checkpoint->hash, model);
    meed_sha256_hex(job->session.benchmark->hash, benchmark);
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:s, s:s, s:I, "
        "s:I, "
        "s:o, s:o, s:o}",
        "method", meed_estimator_name(v->method), "stop", stop_words[v->stop], "rule",
        meed_payment_rule_name(o->rule), "budget", (json_int_t)o->budget, "floor",
        (json_int_t)meed_payment_floor(o->budget, o->floor), "paid", (json_int_t)v->paid, "draws",
        (json_int_t)v->draws, "residual", v->residual, "value_empty", v->value_empty, "value_full",
        v->value_full, "value_kept", v->value_kept, "path", path_words[v->path], "model", model,
        "benchmark", benchmark, "utilities", utilities, "note", v->note, "evaluations",
        (json_int_t)v->evaluations, "tokens", (json_int_t)v->tokens, "clients", clients_json(job),
        "pairs", meed_value_pairs_json(&job->pairs, job->names), "coalitions",
        coalitions_json(job));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_NOMEM, "no memory for the JSON of the result");
    }
    enum meed_status st = meed_file_write_atomic(job->options->json, text, strlen(text));
    free(text);
    return st;
}

/* --- table ---------------------------------------------------------------------------------- */
static void bar_print(double value, double largest)
{
    int cells = largest > 0 ? (int)lround(fabs(value) / largest * BAR_CELLS) : 0;
    char bar[BAR_CELLS + 1];
    memset(bar, ' ', sizeof bar - 1);
    memset(bar, value < 0 ? '-' : '#', (size_t)cells);
    bar[BAR_CELLS] = '\0';
    printf("  %s", bar);
}

static void table_header(const struct job *job, int id_columns)
{
    const struct meed_benchmark *b = job->session.benchmark;
    meed_score_session_cell("client", id_columns, false);
    meed_score_session_cell("value ± se", 19, true);
    for (int32_t a = 0; a < b->axis_count; a++) {
        if (b->axes[a].guard) {
            meed_score_session_cell(b->axes[a].name, 19, true);
        }
    }
    meed_score_session_cell("share", 12, true);
    printf("  status    %*s  why\n", BAR_CELLS, "");
}

static double largest_error(const struct meed_valuation *v)
{
    double largest = 0;
    for (int32_t k = 0; k < v->players; k++) {
        largest = fmax(largest, v->clients[k].sampling_se);
    }
    return largest;
}

static void table_print(const struct job *job)
{
    const struct meed_benchmark *b = job->session.benchmark;
    const struct meed_valuation *v = job->valuation;
    int id_columns = 8;
    double largest = 0;
    for (int32_t k = 0; k < v->players; k++) {
        id_columns = MEED_MAX(id_columns, (int)strlen(job->ids[k]) + 1);
        largest = fmax(largest, fabs(v->clients[k].phi));
    }
    table_header(job, id_columns);
    for (int32_t k = 0; k < v->players; k++) {
        const struct meed_value_client *client = &v->clients[k];
        char text[64];
        meed_score_session_cell(job->ids[k], id_columns, false);
        meed_score_session_estimate(client->phi, client->se, true, text);
        meed_score_session_cell(text, 19, true);
        for (int32_t a = 0; a < b->axis_count; a++) {
            if (b->axes[a].guard) {
                meed_score_session_estimate(client->axis_phi[a], client->axis_se[a], true, text);
                meed_score_session_cell(text, 19, true);
            }
        }
        printf("%12" PRId64 "  %-8s", client->share, status_words[client->status]);
        bar_print(client->phi, largest);
        printf("  %s\n", client->reason);
    }
    printf("\n%s: %.5f without clients, %.5f with all (nats per token); residual %.1e\n", b->name,
           v->value_empty, v->value_full, v->residual);
    printf("%" PRId64 " of %" PRId64 " credits paid; %d coalitions, %" PRId64
           " scored by %s, %" PRId64 " tokens in %.1f s\n",
           v->paid, job->options->valuation.budget, v->coalition_count, v->evaluations,
           path_words[v->path], v->tokens, v->seconds);
    if (v->draws > 0) {
        printf("%s: %" PRId64 " draws, stopped by %s; largest sampling error %.1e\n",
               meed_estimator_name(v->method), v->draws, stop_words[v->stop], largest_error(v));
    }
    if (v->note[0]) {
        printf("%s\n", v->note);
    }
    meed_value_pairs_print(&job->pairs, job->names);
}

/* --- the run -------------------------------------------------------------------------------- */
static bool progress_until_stopped(void *user, int64_t done, int64_t total)
{
    struct job *job = user;
    return meed_score_session_progress(&job->session, done, total) && !*job->stop;
}

static enum meed_status shard_run(struct job *job, struct meed_valuation_options *valuation)
{
    const struct meed_utility_shard_options *shard = &valuation->shard;
    struct meed_valuation_part part = {0};
    job->stop = meed_stop_signal_catch();
    valuation->progress = progress_until_stopped; /* a shard can stop at any forward */
    valuation->progress_user = job;
    enum meed_status st =
        meed_valuation_shard(job->session.be, job->session.checkpoint, job->session.benchmark,
                             job->global, (const struct meed_adapter *const *)job->adapters,
                             job->options->adapter_count, job->weights, valuation, &part);
    meed_progress_finish(&job->session.progress);
    if (st == MEED_CANCELLED) {
        return MEED_FAIL(MEED_CANCELLED,
                         "shard %d/%d has %" PRId64 " coalitions in %s; the same command goes on",
                         shard->idx, shard->count, part.found + part.scored, shard->folder);
    }
    MEED_TRY(st);
    printf("shard %d/%d: %" PRId64 " coalitions scored, %" PRId64 " found in %s, %" PRId64
           " tokens in %.1f s\n",
           shard->idx, shard->count, part.scored, part.found, shard->folder, part.tokens,
           part.seconds);
    return MEED_OK;
}

static enum meed_status oracle_run(struct job *job)
{
    const struct options *options = job->options;
    struct meed_retrain_options retrain = options->retrain;
    retrain.seed = options->valuation.seed;
    retrain.bootstrap = options->valuation.bootstrap;
    retrain.json = options->json;
    MEED_TRY(meed_score_session_open(options->model, options->benchmark, options->device,
                                     options->threads, "training", options->quiet, &job->session));
    return meed_retrain_oracle_run(&job->session, options->adapters, options->adapter_count,
                                   &retrain);
}

/* --samples to job->samples: one count an adapter. */
static enum meed_status samples_read(struct job *job)
{
    const char *text = job->options->samples;
    int32_t count = 0;
    for (bool more = text != NULL; more; count++) {
        size_t length = strcspn(text, ",");
        char word[32];
        int64_t samples = 0;
        snprintf(word, sizeof word, "%.*s", (int)MEED_MIN(length, sizeof word - 1), text);
        MEED_TRY(meed_parse_i64("--samples", word, 0, MEED_LIMIT_SAMPLES, &samples));
        if (count < job->options->adapter_count) {
            job->samples[count] = (double)samples;
        }
        more = text[length] == ',';
        text += length + more;
    }
    if (job->options->samples && count != job->options->adapter_count) {
        return MEED_FAIL(MEED_ARG,
                         "--samples has %d counts for %d adapters; give one each, in "
                         "their order",
                         count, job->options->adapter_count);
    }
    return MEED_OK;
}

static enum meed_status job_run(struct job *job)
{
    const struct options *options = job->options;
    struct meed_valuation_options valuation = options->valuation;
    MEED_TRY(samples_read(job));
    valuation.samples = job->samples;
    MEED_TRY(meed_score_session_open(options->model, options->benchmark, options->device,
                                     options->threads, "valuing", options->quiet, &job->session));
    const struct meed_model_config *config = &job->session.checkpoint->config;
    if (options->global) {
        MEED_TRY(meed_adapter_load(options->global, config, &job->global));
    }
    for (int32_t k = 0; k < options->adapter_count; k++) {
        MEED_TRY(meed_adapter_load(options->adapters[k], config, &job->adapters[k]));
        job->weights[k] = 1.0 / options->adapter_count;
        id_make(job, k);
        job->names[k] = job->ids[k];
    }
    valuation.progress = meed_score_session_progress;
    valuation.progress_user = &job->session;
    valuation.shard.folder = options->merge ? options->merge : options->state;
    valuation.shard.flush_ms = MEED_UTILITY_SHARD_FLUSH_MS;
    if (options->state) {
        return shard_run(job, &valuation);
    }
    enum meed_status st =
        meed_valuation_run(job->session.be, job->session.checkpoint, job->session.benchmark,
                           job->global, (const struct meed_adapter *const *)job->adapters,
                           options->adapter_count, job->weights, &valuation, &job->valuation);
    meed_progress_finish(&job->session.progress);
    MEED_TRY(st);
    MEED_TRY(meed_value_pairs_make(job->valuation, job->global,
                                   (const struct meed_adapter *const *)job->adapters,
                                   job->session.pool, &job->pairs));
    table_print(job);
    return options->json ? json_write(job) : MEED_OK;
}

static enum meed_status options_check(const struct options *options)
{
    bool shard = options->valuation.shard.idx > 0;
    bool by_samples = options->valuation.rule == MEED_PAY_SAMPLES;
    if (!options->model || !options->benchmark || options->adapter_count == 0 ||
        (!options->budget_given && !shard && !options->oracle)) {
        return MEED_FAIL(MEED_ARG, "no --%s given; see `meed help value`",
                         !options->model           ? "model"
                         : !options->benchmark     ? "benchmark"
                         : !options->adapter_count ? "adapters"
                                                   : "budget");
    }
    if (by_samples != (options->samples != NULL)) {
        return MEED_FAIL(MEED_ARG, "--rule samples and --samples go together: an adapter does not "
                                   "say how much it was trained on, so one count for each is "
                                   "needed");
    }
    if (options->oracle && (options->global || options->merge || options->state ||
                            options->valuation.cache_path || options->budget_given)) {
        return MEED_FAIL(MEED_ARG, "--oracle trains from the plain base and prices nothing: no "
                                   "--global, --budget, --cache, --state or --merge");
    }
    if (shard != (options->state != NULL)) {
        return MEED_FAIL(MEED_ARG, "--shard and --state go together: part I of N, and the folder "
                                   "that all parts share");
    }
    if (shard && (options->merge || options->json)) {
        return MEED_FAIL(MEED_ARG, "--shard prices nothing; --merge and --json belong to the one "
                                   "command after all shards");
    }
    if ((shard || options->merge) && options->valuation.cache_path) {
        return MEED_FAIL(MEED_ARG, "--cache does not go with --shard or --merge, whose folder "
                                   "keeps what is scored");
    }
    return MEED_OK;
}

enum meed_status meed_cmd_value(int argc, char **argv)
{
    struct options options = {
        .status = MEED_OK,
        .valuation = meed_valuation_defaults(),
        .retrain = {.steps = 60, .lr = 3e-3f, .rank = 8, .batch_tokens = 1024},
    };
    const struct argp argp = {option_rows, option_parse, "[DIR...]", documentation,
                              NULL,        NULL,         NULL};
    struct job job = {.options = &options};
    enum meed_status st = MEED_OK;
    options.adapters = meed_heap_alloc((size_t)argc + 1, sizeof *options.adapters);
    if (!options.adapters) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    MEED_TRY_OUT(options_check(&options));
    size_t count = (size_t)options.adapter_count;
    job.adapters = meed_heap_alloc(count, sizeof *job.adapters);
    job.ids = meed_heap_alloc(count, sizeof *job.ids);
    job.weights = meed_heap_alloc(count, sizeof *job.weights);
    job.samples = meed_heap_alloc(count, sizeof *job.samples);
    job.names = meed_heap_alloc(count, sizeof *job.names);
    if (!job.adapters || !job.ids || !job.weights || !job.samples || !job.names) {
        st = MEED_NOMEM;
        goto out;
    }
    st = options.oracle ? oracle_run(&job) : job_run(&job);
out:
    meed_valuation_destroy(job.valuation);
    for (int32_t k = 0; job.adapters && k < options.adapter_count; k++) {
        meed_adapter_destroy(job.adapters[k]);
    }
    meed_heap_free(job.adapters);
    meed_heap_free(job.ids);
    meed_heap_free(job.weights);
    meed_heap_free(job.samples);
    meed_heap_free((void *)job.names);
    meed_value_pairs_clear(&job.pairs);
    meed_heap_free((void *)options.adapters);
    meed_adapter_destroy(job.global);
    meed_score_session_close(&job.session);
    return st;
}
