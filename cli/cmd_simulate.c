/* meed simulate: experiments with hundreds of clients in one process.
 *
 * Runs the grid of a federation file with a `simulate:` section (simulation_plan.h): one cell a
 * combination of swept settings and seed, each a whole federation on one base model that is loaded
 * once. A finished cell is one JSON in OUT/cells, so a stopped grid goes on where it stood; the
 * table at the end has one row a combination with Student's 95 % intervals over seeds.
 */
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/hash.h"
#include "base/parse.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/score_session.h"
#include "cli/simulation_alone.h"
#include "cli/simulation_cell.h"
#include "cli/simulation_course.h"
#include "cli/simulation_detection.h"
#include "cli/simulation_table.h"
#include "cli/stop_signal.h"

enum {
    MAX_SETS = 16,
    KEY_SET = 256,
    KEY_KEEP,
    KEY_EVIDENCE,
    NAME_BYTES = MEED_SIMULATION_KEY_BYTES + 16
};

struct options {
    const char *file, *out, *json, *device;
    const char *sets[MAX_SETS]; /* key=value */
    int set_count;
    int64_t threads;
    bool keep, keep_evidence, quiet;
    enum meed_status status;
};

static const struct argp_option option_rows[] = {
    {"out", 'o', "DIR", 0, "finished cells and the summary (default: out/NAME)", 0},
    {"json", 'j', "FILE", 0, "write the summary here too", 0},
    {"set", KEY_SET, "KEY=VALUE", 0, "before the sweep; repeat (clients=100)", 0},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 0},
    {"device", 'd', "WORD", 0, "instead of the file's: cpu, cuda or cuda:N", 0},
    {"keep", KEY_KEEP, NULL, 0, "leave every cell's state in OUT/state/KEY", 0},
    {"keep-evidence", KEY_EVIDENCE, NULL, 0, "leave what `meed verify OUT` needs in OUT/state", 0},
    {"quiet", 'q', NULL, 0, "print the final table only", 0},
    {0},
};

static const char documentation[] =
    "Run the experiment that FILE describes: a grid of federations with simulated clients, all in "
    "this process.\v"
    "Examples:\n"
    "  meed simulate examples/experiments/poisoning.yaml\n"
    "  meed simulate FILE --set clients=100 --set method=gradient\n"
    "  meed simulate FILE --out o --keep-evidence && meed verify o\n\n"
    "Run it again to go on after a stop; finished cells are kept in OUT/cells.\n\n"
    "FILE is that of `meed up` with `simulate:` in place of `clients:`\n"
    "  data: [FILE.jsonl, …]   a pool of dialogues; a file is a label\n"
    "  seeds: [1, 2, 3]\n"
    "  partition: {kind: iid|dirichlet|domain|amount|few_shot, alpha: 1,\n"
    "    dialogues: at most so many a client}\n"
    "  clients: a list of {name, count, quality: 1, amount, attack, strength}\n"
    "  attack: {kind, share: of all clients, strength}\n"
    "  scheme: federated|centralised|local (one model of all data; one a client)\n"
    "  leakage: {examples: 100, prefix: 0, new_tokens: 32, canaries: 0 a client,\n"
    "    repeat: 1, unseen: 0 dialogues of the benchmark, for the floor}   how\n"
    "    much of the data comes out of the models again\n"
    "  sweep: a list of {key, values: […]}; {key: rule+clip, values: [equal+0, shrunk+3]}\n"
    "    turns two at once, and - leaves one as it is\n"
    "Keys to sweep and to --set: attack, share, strength, partition, alpha,\n"
    "  dialogues, clients, scheme, canaries, rounds, lr, steps, rank, method, rule,\n"
    "  reputation, floor, clip, guard_z, training.method, training.share (all is\n"
    "  fedit), training.beta, training.mix, aggregation, attackers and trim (of\n"
    "  robust:), strikes (of quarantine:),\n"
    "  defence (of all detectors: default, off, flag, exclude), defence.DETECTOR\n"
    "Attacks: swap, garbage, safety, backdoor, judge, flip, scale, gaussian, gap,\n"
    "  zero, random, replay, duplicate, sybil, collude, adaptive";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'o':
        options->out = text;
        break;
    case 'j':
        options->json = text;
        break;
    case 'd':
        options->device = text;
        options->status = meed_backend_check_device(text);
        break;
    case 't':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        break;
    case KEY_SET:
        if (options->set_count == MAX_SETS || !strchr(text, '=')) {
            options->status = MEED_FAIL(MEED_ARG, "--set %.64s; write KEY=VALUE, at most %d times",
                                        text, MAX_SETS);
            break;
        }
        options->sets[options->set_count++] = text;
        break;
    case KEY_KEEP:
        options->keep = true;
        break;
    case KEY_EVIDENCE:
        options->keep_evidence = true;
        break;
    case 'q':
        options->quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (options->file) {
            options->status = MEED_FAIL(MEED_ARG, "one file, not also \"%.64s\"", text);
            break;
        }
        options->file = text;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

struct simulation {
    struct options options;
    struct meed_federation_file file;
    char out[1024];
    char source[MEED_SHA256_HEX_BYTES + 1];
    struct meed_score_session session;
    struct meed_simulation_pool pool;
    struct meed_simulation_stage stage;
    /* Of simulation.json: finished cells, rows of which every seed is finished. */
    json_t *cells, *rows;
    int32_t done, total; /* cells of the grid */
    /* The bar of the cell that runs. */
    struct meed_progress bar;
    char title[MEED_SIMULATION_KEY_BYTES + 64];
    const char *phase;
    bool drawing;
};

/* ---- files ----------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

/* A new folder for a cell's aggregator and clients: in memory where the system has such a place,
 * since every update is synced to disk. */
static enum meed_status make_state(const struct simulation *simulation, const char *key,
                                   char state[1024])
{
    const char *root = getenv("TMPDIR");
    if (simulation->options.keep || simulation->options.keep_evidence) {
        snprintf(state, 1024, "%.700s/state/%s", simulation->out, key);
        nftw(state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        return meed_file_make_folder(state);
    }
    if (!root) {
        root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    }
    snprintf(state, 1024, "%.900s/meed-simulate-XXXXXX", root);
    if (!mkdtemp(state)) {
        return MEED_FAIL(MEED_IO, "cannot make a folder in %.900s: %s", root, strerror(errno));
    }
    return MEED_OK;
}

/* Of a finished cell: everything, or nothing, or all but the aggregator's evidence. A cell that did
 * not finish leaves nothing that could be taken for evidence. */
static void clear_state(const struct simulation *simulation, const char *state, bool finished)
{
    struct dirent **names = NULL;
    char path[MEED_PATH_BYTES];
    if (simulation->options.keep) {
        return;
    }
    if (!simulation->options.keep_evidence || !finished) {
        nftw(state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        return;
    }
    int count = scandir(state, &names, NULL, NULL);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.' && strcmp(names[i]->d_name, "aggregator") != 0) {
            snprintf(path, sizeof path, "%s/%s", state, names[i]->d_name);
            nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        }
        free(names[i]);
    }
    free(names);
    snprintf(path, sizeof path, "%s/aggregator/utilities.db", state); /* what verify never asks */
    remove(path);
}

static enum meed_status write_json(const char *path, const json_t *document)
{
    char *text = document ? json_dumps(document, JSON_INDENT(1)) : NULL;
    if (!text) {
        return MEED_FAIL(MEED_NOMEM, "no memory for %.512s", path);
    }
    enum meed_status st = meed_file_write_atomic(path, text, strlen(text));
    free(text);
    return st;
}

/* A finished cell, NULL if there is none; STATE if it belongs to another file or other --set. */
static enum meed_status load_cell(const struct simulation *simulation, const char *path,
                                  json_t **cell)
{
    json_error_t error;
    *cell = NULL;
    if (!meed_file_exists(path)) {
        return MEED_OK;
    }
    json_t *found = json_load_file(path, 0, &error);
    const char *source = json_string_value(json_object_get(found, "source"));
    if (!source || strcmp(source, simulation->source) != 0) {
        json_decref(found);
        return MEED_FAIL(MEED_STATE,
                         "%s belongs to another experiment; choose another --out or "
                         "remove it",
                         path);
    }
    *cell = found;
    return MEED_OK;
}

/* ---- one cell -------------------------------------------------------------------------------- */

static void on_progress(void *user, int64_t done, int64_t total, const char *phase)
{
    struct simulation *simulation = user;
    if (!simulation->options.quiet) {
        simulation->drawing = true;
        simulation->phase = phase;
        meed_progress_update(&simulation->bar, done, total);
    }
}

static void start_bar(struct simulation *simulation, const char *key)
{
    snprintf(simulation->title, sizeof simulation->title, "%d/%d %s", simulation->done + 1,
             simulation->total, key);
    meed_progress_start(&simulation->bar, simulation->title, "visits", simulation->options.quiet);
}

static enum meed_status run_cell(struct simulation *simulation,
                                 const struct meed_simulation_point *point, const char *key,
                                 json_t **document)
{
    enum meed_status st = MEED_OK;
    struct meed_simulation_cast cast = {.count = 0};
    struct meed_simulation_result result = {.round_count = 0};
    struct meed_simulation_place place = {&simulation->file, *point, simulation->source};
    char state[1024] = "";
    struct meed_federation_file *file = meed_heap_alloc(1, sizeof *file);
    if (!file) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(meed_simulation_grid_cell(&simulation->file, point, file));
    MEED_TRY_OUT(
        meed_simulation_cast_deal(file, &simulation->pool, simulation->session.chat, &cast));
    MEED_TRY_OUT(meed_simulation_result_create(file->rounds, cast.count, &result));
    MEED_TRY_OUT(make_state(simulation, key, state));
    start_bar(simulation, key);
    st = file->simulation.scheme == MEED_SIMULATION_FEDERATED
             ? meed_simulation_cell_run(&simulation->stage, file, &cast, state, &result)
             : meed_simulation_alone_run(&simulation->stage, file, &cast, state, &result);
    MEED_TRY_OUT(st);
    *document = meed_simulation_result_json(&place, file, simulation->session.benchmark,
                                            &simulation->pool, &cast, &result);
out:
    if (simulation->drawing) {
        meed_progress_finish(&simulation->bar);
        simulation->drawing = false;
    }
    if (state[0]) {
        clear_state(simulation, state, st == MEED_OK);
    }
    meed_simulation_result_clear(&result);
    meed_simulation_cast_clear(&cast);
    meed_heap_free(file);
    return st;
}

/* The point's document, from its file if it is finished, and that file's name in OUT. */
static enum meed_status find_cell(struct simulation *simulation,
                                  const struct meed_simulation_point *point, char name[NAME_BYTES],
                                  json_t **cell)
{
    char key[MEED_SIMULATION_KEY_BYTES], path[MEED_PATH_BYTES];
    json_t *found = NULL;
    MEED_TRY(meed_simulation_grid_key(&simulation->file.simulation, point, key));
    snprintf(name, NAME_BYTES, "cells/%s.json", key);
    snprintf(path, sizeof path, "%s/%s", simulation->out, name);
    MEED_TRY(load_cell(simulation, path, &found));
    if (!found) {
        MEED_TRY(run_cell(simulation, point, key, &found));
        enum meed_status st = write_json(path, found);
        if (st != MEED_OK) {
            json_decref(found);
            return st;
        }
    }
    *cell = found;
    return MEED_OK;
}

/* ---- the grid -------------------------------------------------------------------------------- */

static bool was_attacked(const json_t *cell)
{
    const json_t *clients = json_object_get(cell, "clients");
    bool found = false;
    for (size_t i = 0; i < json_array_size(clients); i++) {
        const char *attack =
            json_string_value(json_object_get(json_array_get(clients, i), "attack"));
        found = found || (attack && strcmp(attack, "none") != 0);
    }
    return found;
}

static double measure(const json_t *summary, const char *name)
{
    const json_t *value = json_object_get(summary, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* What only the pair says: the gain that is left, and what became of the guard axes. */
static void hold_against(json_t *summary, const json_t *clean)
{
    double clean_gain = measure(clean, "gain");
    double kept = clean_gain > 0.0 ? measure(summary, "gain") / clean_gain : NAN;
    json_object_set_new(summary, "gain_kept", meed_simulation_number(kept));
    const char *name = NULL;
    json_t *value = NULL, *copy = json_copy(summary);
    json_object_foreach(copy, name, value)
    {
        char change[MEED_SIMULATION_MEASURE_BYTES];
        if (strncmp(name, "axis_", 5) == 0) {
            snprintf(change, sizeof change, "%s_change", name);
            json_object_set_new(
                summary, change,
                meed_simulation_number(measure(summary, name) - measure(clean, name)));
        }
    }
    json_decref(copy);
}

/* The cell, its twin where it needs one, and its line in simulation.json. *cell is the caller's. */
static enum meed_status do_cell(struct simulation *simulation,
                                const struct meed_simulation_point *point, json_t **cell)
{
    enum meed_status st = MEED_OK;
    struct meed_simulation_point twin;
    char name[NAME_BYTES], twin_name[NAME_BYTES];
    json_t *found = NULL, *clean = NULL;
    MEED_TRY_OUT(find_cell(simulation, point, name, &found));
    json_t *summary = json_copy(json_object_get(found, "summary"));
    json_t *entry =
        json_pack("{s:O, s:s, s:O, s:O, s:n, s:o}", "key", json_object_get(found, "key"), "file",
                  name, "settings", json_object_get(found, "settings"), "seed",
                  json_object_get(found, "seed"), "clean", "summary", summary);
    json_array_append_new(simulation->cells, entry);
    if (was_attacked(found)) {
        MEED_TRY_OUT(meed_simulation_grid_twin(&simulation->file, point, &twin));
        MEED_TRY_OUT(find_cell(simulation, &twin, twin_name, &clean));
        json_object_set_new(entry, "clean", json_string(twin_name));
        hold_against(summary, json_object_get(clean, "summary"));
    }
    simulation->done++;
    *cell = found;
    found = NULL;
out:
    json_decref(found);
    json_decref(clean);
    return st;
}

static enum meed_status write_summary(const struct simulation *simulation)
{
    const struct meed_simulation_plan *plan = &simulation->file.simulation;
    char path[MEED_PATH_BYTES];
    json_t *seeds = json_array(), *sweep = json_array();
    for (int32_t i = 0; i < plan->seed_count; i++) {
        json_array_append_new(seeds, json_integer((json_int_t)plan->seeds[i]));
    }
    for (int32_t i = 0; i < plan->sweep_count; i++) {
        json_t *values = json_array();
        for (int32_t v = 0; v < plan->sweeps[i].value_count; v++) {
            json_array_append_new(values, json_string(plan->sweeps[i].values[v]));
        }
        json_array_append_new(
            sweep, json_pack("{s:s, s:o}", "key", plan->sweeps[i].key, "values", values));
    }
    json_t *document =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:O, s:O}", "schema", "meed.simulation/1", "name",
                  simulation->file.name, "source", simulation->source, "seeds", seeds, "sweep",
                  sweep, "cells", simulation->cells, "rows", simulation->rows);
    snprintf(path, sizeof path, "%s/simulation.json", simulation->out);
    enum meed_status st = write_json(path, document);
    if (st == MEED_OK && simulation->options.json) {
        st = write_json(simulation->options.json, document);
    }
    json_decref(document);
    return st;
}

/* A combination with all its seeds. */
static enum meed_status do_row(struct simulation *simulation, int32_t row)
{
    enum meed_status st = MEED_OK;
    const struct meed_simulation_plan *plan = &simulation->file.simulation;
    struct meed_simulation_point point = {row, 0, false};
    json_t *documents = json_array(), *summaries = json_array(), *attacks = NULL;
    for (; point.seed_idx < plan->seed_count; point.seed_idx++) {
        json_t *cell = NULL;
        MEED_TRY_OUT(do_cell(simulation, &point, &cell));
        json_array_append_new(documents, cell);
        const json_t *entry =
            json_array_get(simulation->cells, json_array_size(simulation->cells) - 1);
        json_array_append(summaries, json_object_get(entry, "summary"));
        MEED_TRY_OUT(write_summary(simulation));
    }
    MEED_TRY_OUT(meed_simulation_detection(documents, &attacks));
    json_array_append_new(simulation->rows,
                          json_pack("{s:o, s:o, s:o, s:o}", "settings",
                                    meed_simulation_settings_json(plan, &point), "summary",
                                    meed_simulation_table_intervals(summaries), "course",
                                    meed_simulation_course(documents), "attacks", attacks));
    MEED_TRY_OUT(write_summary(simulation));
out:
    json_decref(documents);
    json_decref(summaries);
    return st;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* What a cell depends on: the file's bytes and what --set changed. */
static enum meed_status fingerprint(struct simulation *simulation)
{
    struct meed_buf text;
    uint8_t digest[MEED_SHA256_BYTES];
    meed_buf_init(&text, 16u << 20);
    enum meed_status st = meed_file_read(simulation->options.file, &text);
    for (int i = 0; i < simulation->options.set_count && st == MEED_OK; i++) {
        st = meed_buf_append(&text, simulation->options.sets[i],
                             strlen(simulation->options.sets[i]) + 1);
    }
    meed_sha256(text.data, text.size, digest);
    meed_sha256_hex(digest, simulation->source);
    meed_buf_clear(&text);
    return st;
}

/* Every setting, before hours are spent. */
static enum meed_status try_grid(const struct simulation *simulation)
{
    enum meed_status st = MEED_OK;
    const struct meed_simulation_plan *plan = &simulation->file.simulation;
    struct meed_simulation_point point = {0, 0, false};
    char key[MEED_SIMULATION_KEY_BYTES];
    struct meed_federation_file *file = meed_heap_alloc(1, sizeof *file);
    if (!file) {
        return MEED_NOMEM;
    }
    for (; point.row < meed_simulation_grid_rows(plan); point.row++) {
        MEED_TRY_OUT(meed_simulation_grid_key(plan, &point, key));
        MEED_TRY_OUT(meed_simulation_grid_cell(&simulation->file, &point, file));
    }
out:
    meed_heap_free(file);
    return st;
}

static enum meed_status open_all(struct simulation *simulation)
{
    struct options *options = &simulation->options;
    struct meed_federation_file *file = &simulation->file;
    char folder[MEED_PATH_BYTES];
    MEED_TRY(meed_federation_file_load(options->file, file));
    if (file->simulation.group_count == 0) {
        return MEED_FAIL(MEED_CONFIG,
                         "%s has no `simulate:`; `meed up` runs it, and `meed help "
                         "simulate` tells what to add",
                         options->file);
    }
    for (int i = 0; i < options->set_count; i++) {
        char key[MEED_SIMULATION_SETTING_BYTES];
        const char *equals = strchr(options->sets[i], '=');
        snprintf(key, sizeof key, "%.*s", (int)(equals - options->sets[i]), options->sets[i]);
        MEED_TRY(meed_simulation_grid_set(file, key, equals + 1));
    }
    MEED_TRY(try_grid(simulation));
    MEED_TRY(fingerprint(simulation));
    snprintf(simulation->out, sizeof simulation->out, "%s%s", options->out ? "" : "out/",
             options->out ? options->out : file->name);
    snprintf(folder, sizeof folder, "%s/cells", simulation->out);
    MEED_TRY(meed_file_make_folder(folder));
    MEED_TRY(meed_simulation_pool_load(&file->simulation, &simulation->pool));
    return meed_score_session_open(
        file->model, file->benchmark, options->device ? options->device : file->device,
        options->threads, "simulating", options->quiet, &simulation->session);
}

static enum meed_status run_grid(struct simulation *simulation)
{
    const struct meed_simulation_plan *plan = &simulation->file.simulation;
    const struct meed_score_session *session = &simulation->session;
    int32_t rows = meed_simulation_grid_rows(plan);
    simulation->total = rows * plan->seed_count;
    simulation->stage = (struct meed_simulation_stage){.threads = session->pool,
                                                       .be = session->be,
                                                       .checkpoint = session->checkpoint,
                                                       .tokenizer = session->tokenizer,
                                                       .chat = session->chat,
                                                       .benchmark = session->benchmark,
                                                       .dtype = MEED_DTYPE_F32,
                                                       .stop = meed_stop_signal_catch(),
                                                       .progress = on_progress,
                                                       .progress_user = simulation};
    for (int32_t row = 0; row < rows; row++) {
        MEED_TRY(do_row(simulation, row));
    }
    return MEED_OK;
}

static void print_end(const struct simulation *simulation)
{
    meed_simulation_table_print(simulation->rows);
    printf("\n  %d of %d cells, 95 %% intervals over %d seeds\n  summary: %s/simulation.json\n",
           simulation->done, simulation->total, simulation->file.simulation.seed_count,
           simulation->out);
}

enum meed_status meed_cmd_simulate(int argc, char **argv)
{
    static struct simulation simulation;
    simulation = (struct simulation){.cells = json_array(), .rows = json_array()};
    struct argp argp = {option_rows, option_parse, "FILE", documentation, NULL, NULL, NULL};
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(meed_command_line_parse(&argp, argc, argv, &simulation.options,
                                         &simulation.options.status));
    if (!simulation.options.file) {
        st = MEED_FAIL(MEED_ARG, "no file given; try examples/experiments/iid.yaml");
        goto out;
    }
    MEED_TRY_OUT(open_all(&simulation));
    MEED_TRY_OUT(run_grid(&simulation));
    print_end(&simulation);
out:
    json_decref(simulation.cells);
    json_decref(simulation.rows);
    meed_simulation_pool_clear(&simulation.pool);
    meed_score_session_close(&simulation.session);
    return st;
}
