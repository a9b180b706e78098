/* meed verify: recompute a run from its evidence.
 *
 * RUN is what `meed up` or `meed serve` left behind, one cell of a simulation, or a simulation's
 * whole folder, whose cells are then verified one after the other on a model that is loaded once.
 * server/verification.h does the work and says what it can and cannot see; this file finds the
 * inputs (where the run's folder says they were, unless an option says otherwise; all are checked
 * by hash) and prints a row a round. */
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/ledger_key.h"
#include "cli/operator_data.h"
#include "cli/score_session.h"
#include "cli/stop_signal.h"
#include "server/verification.h"

struct options {
    const char *run, *key, *model, *benchmark, *data, *device;
    int64_t round, threads; /* 0: all */
    bool json, quiet;
    enum meed_status status;
};

enum { KEY_DATA = 256 };

static const struct argp_option option_rows[] = {
    {"round", 'r', "N", 0, "recompute this round only (the chain is checked whole)", 0},
    {"key", 'k', "FILE", 0, "public key in hex (default: ledger.pub beside the ledger)", 0},
    {"model", 'm', "DIR", 0, "base model (default: where the run had it)", 0},
    {"benchmark", 'b', "FILE", 0, "benchmark (default: where the run had it)", 0},
    {"data", KEY_DATA, "FILE", 0, "the operator's own data, for fltrust and repair", 0},
    {"device", 'd', "WORD", 0, "cpu, cuda or cuda:N: as the run was valued (default: cpu)", 0},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 0},
    {"json", 'j', NULL, 0, "write JSON to stdout", 0},
    {"quiet", 'q', NULL, 0, "no progress", 0},
    {0},
};

static const char documentation[] =
    "Recompute a run from its evidence and compare with its ledger: hashes and signatures, stored "
    "updates, screening, values (all coalitions anew, bit for bit), pay and the aggregate. Nothing "
    "is written.\v"
    "RUN is the folder of `meed up` or `meed serve --state`, or what\n"
    "`meed simulate --keep-evidence` wrote, one cell or all.\n\n"
    "Examples:\n"
    "  meed verify out/demo\n"
    "  meed verify run --round 3 --key keys/ledger.pub --benchmark bench.jsonl\n"
    "  meed verify out/iid --json\n\n"
    "Ends with 0 if everything was recomputed and agrees, with 15 at the first\n"
    "difference, which the last line names, and with 20 where nothing differs but\n"
    "evidence is not kept. `meed ledger verify` checks the chain alone.";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'r':
        options->status = meed_parse_i64("--round", text, 1, MEED_LIMIT_ROUNDS, &options->round);
        break;
    case 'k':
        options->key = text;
        break;
    case 'm':
        options->model = text;
        break;
    case 'b':
        options->benchmark = text;
        break;
    case KEY_DATA:
        options->data = text;
        break;
    case 'd':
        options->device = text;
        options->status = meed_backend_check_device(text);
        break;
    case 't':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        break;
    case 'j':
        options->json = true;
        break;
    case 'q':
        options->quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (options->run) {
            options->status = MEED_FAIL(MEED_ARG, "one run, not also \"%.64s\"", text);
            break;
        }
        options->run = text;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

struct verify {
    struct options options;
    const volatile sig_atomic_t *stop;
    struct meed_score_session session;
    char model[MEED_PATH_BYTES], benchmark[MEED_PATH_BYTES]; /* of the session; "": none is open */
    json_t *runs;
    /* The first difference of all, and the first evidence that is missing. */
    char wrong[MEED_PATH_BYTES], missing[MEED_PATH_BYTES];
    int32_t rounds_good, rounds_wrong, rounds_missing;
};

/* ---- inputs ---------------------------------------------------------------------------------- */

static bool on_progress(void *user, int64_t done, int64_t total)
{
    struct verify *verify = user;
    return meed_score_session_progress(&verify->session, done, total) && *verify->stop == 0;
}

static enum meed_status choose(const char *given, const char *hint, const char *option,
                               const char **path)
{
    *path = given ? given : hint;
    if (!(*path)[0] || !meed_file_exists(*path)) {
        return MEED_FAIL(MEED_NOT_FOUND,
                         "%s is not where the run had it (\"%.400s\"); name it by "
                         "--%s",
                         option, *path, option);
    }
    return MEED_OK;
}

/* Model and benchmark, kept open for the next run on the same. */
static enum meed_status open_session(struct verify *verify,
                                     const struct meed_verification_facts *facts)
{
    const char *model = NULL, *benchmark = NULL;
    MEED_TRY(choose(verify->options.model, facts->model, "model", &model));
    MEED_TRY(choose(verify->options.benchmark, facts->benchmark, "benchmark", &benchmark));
    if (strcmp(verify->model, model) == 0 && strcmp(verify->benchmark, benchmark) == 0) {
        return MEED_OK;
    }
    meed_score_session_close(&verify->session);
    snprintf(verify->model, sizeof verify->model, "%s", model);
    snprintf(verify->benchmark, sizeof verify->benchmark, "%s", benchmark);
    return meed_score_session_open(model, benchmark, verify->options.device,
                                   verify->options.threads, "verifying", verify->options.quiet,
                                   &verify->session);
}

static enum meed_status open_data(const struct verify *verify,
                                  const struct meed_verification_facts *facts,
                                  struct meed_operator_data **data)
{
    const char *path = verify->options.data ? verify->options.data : facts->data;
    if (!facts->data_hash || !path[0] || !meed_file_exists(path)) {
        return MEED_OK; /* the aggregate's column says that it is missing */
    }
    MEED_TRY(meed_operator_data_open(path, verify->model, facts->plan, data));
    if (memcmp(meed_operator_data_hash(*data), facts->data_hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_VERSION,
                         "%.400s is not the operator's data of this run; name the "
                         "run's own by --data",
                         path);
    }
    return MEED_OK;
}

static enum meed_status equip(struct verify *verify, const struct meed_verification_facts *facts,
                              struct meed_verification *verification,
                              struct meed_operator_data **data)
{
    if (!facts->known) {
        return MEED_OK;
    }
    MEED_TRY(open_session(verify, facts));
    MEED_TRY(open_data(verify, facts, data));
    struct meed_verification_tools tools = {.pool = verify->session.pool,
                                            .be = verify->session.be,
                                            .checkpoint = verify->session.checkpoint,
                                            .benchmark = verify->session.benchmark,
                                            .align = *data ? meed_operator_data_train : NULL,
                                            .align_user = *data,
                                            .progress = on_progress,
                                            .progress_user = verify};
    return meed_verification_equip(verification, &tools);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static const char *state_word(enum meed_verification_state state)
{
    static const char *const words[] = {"-", "ok", "differs", "not kept"};
    return words[state];
}

static void print_head(const char *folder, const struct meed_verification_facts *facts)
{
    char head[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(facts->head, head);
    printf("%s: %s, %lld entries, head %.16s…\n  %5s", folder, facts->run_id,
           (long long)facts->entries, head, "round");
    for (int p = 0; p < MEED_VERIFICATION_PART_COUNT; p++) {
        printf("  %-9s", meed_verification_part_name((enum meed_verification_part)p));
    }
    printf("\n");
}

static void print_row(const struct meed_verification_round *row)
{
    char name[16] = "end";
    if (row->round > 0) {
        snprintf(name, sizeof name, "%d", row->round);
    }
    printf("  %5s", name);
    for (int p = 0; p < MEED_VERIFICATION_PART_COUNT; p++) {
        printf("  %-9s", state_word(row->parts[p]));
    }
    printf("%s\n", row->abandoned ? "  abandoned" : "");
    if (row->text[0]) {
        printf("         %s\n", row->text);
    }
    fflush(stdout);
}

static json_t *row_json(const struct meed_verification_round *row)
{
    json_t *object = json_object();
    json_object_set_new(object, "round", row->round > 0 ? json_integer(row->round) : json_null());
    json_object_set_new(object, "abandoned", json_boolean(row->abandoned));
    for (int p = 0; p < MEED_VERIFICATION_PART_COUNT; p++) {
        json_object_set_new(object, meed_verification_part_name((enum meed_verification_part)p),
                            row->parts[p] == MEED_VERIFICATION_UNSEEN
                                ? json_null()
                                : json_string(state_word(row->parts[p])));
    }
    json_object_set_new(object, "text", json_string(row->text));
    return object;
}

/* Keeps the first sentence of its kind, with its run. */
static void keep_first(char kept[MEED_PATH_BYTES], const char *folder, const char *text)
{
    if (!kept[0]) {
        snprintf(kept, MEED_PATH_BYTES, "%.900s: %.1024s", folder, text);
    }
}

static void take_row(struct verify *verify, const char *folder,
                     const struct meed_verification_round *row, json_t *rows)
{
    enum meed_verification_state state = meed_verification_state_of(row);
    if (state == MEED_VERIFICATION_WRONG) {
        keep_first(verify->wrong, folder, row->text);
        verify->rounds_wrong++;
    } else if (state == MEED_VERIFICATION_NOT_KEPT) {
        keep_first(verify->missing, folder, row->text);
        verify->rounds_missing++;
    } else {
        verify->rounds_good++;
    }
    if (!verify->options.json) {
        print_row(row);
    }
    json_array_append_new(rows, row_json(row));
}

/* ---- one run --------------------------------------------------------------------------------- */

static enum meed_status run_rounds(struct verify *verify, const char *folder,
                                   const struct meed_verification_facts *facts,
                                   struct meed_verification *verification, json_t *rows)
{
    struct meed_verification_round row;
    char title[64];
    int32_t first = verify->options.round > 0 ? (int32_t)verify->options.round : 1;
    int32_t last = verify->options.round > 0 ? first : facts->rounds;
    if (first > facts->rounds && verify->options.round > 0) {
        return MEED_FAIL(MEED_ARG, "%s has %d rounds, not %d", folder, facts->rounds, first);
    }
    for (int32_t round = first; round <= last; round++) {
        snprintf(title, sizeof title, "round %d of %d", round, facts->rounds);
        meed_progress_start(&verify->session.progress, title, "tokens", verify->options.quiet);
        enum meed_status st = meed_verification_run(verification, round, &row);
        meed_progress_finish(&verify->session.progress);
        MEED_TRY(st);
        take_row(verify, folder, &row, rows);
    }
    if (verify->options.round == 0) {
        MEED_TRY(meed_verification_end(verification, &row));
        if (row.parts[MEED_VERIFICATION_CHAIN] != MEED_VERIFICATION_UNSEEN) {
            take_row(verify, folder, &row, rows);
        }
    }
    return MEED_OK;
}

static json_t *run_json(const char *folder, const struct meed_verification_facts *facts,
                        json_t *rows)
{
    char head[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(facts->head, head);
    return json_pack("{s:s, s:s, s:I, s:s, s:O}", "folder", folder, "run", facts->run_id, "entries",
                     (json_int_t)facts->entries, "head", head, "rounds", rows);
}

/* A broken chain is a finding about this run; the next one is still looked at. */
static enum meed_status take_broken(struct verify *verify, const char *folder, enum meed_status st)
{
    char text[1024];
    if (st != MEED_INTEGRITY && st != MEED_FORMAT) {
        return st;
    }
    snprintf(text, sizeof text, "%.1000s", meed_last_error());
    keep_first(verify->wrong, folder, text);
    verify->rounds_wrong++;
    if (!verify->options.json) {
        printf("%s: the chain is broken\n         %s\n", folder, text);
    }
    json_array_append_new(verify->runs, json_pack("{s:s, s:s}", "folder", folder, "broken", text));
    return MEED_OK;
}

static enum meed_status run_one(struct verify *verify, const char *folder)
{
    enum meed_status st = MEED_OK;
    struct meed_verification *verification = NULL;
    struct meed_operator_data *data = NULL;
    struct meed_verification_facts facts;
    uint8_t key[MEED_SIGNATURE_KEY_BYTES];
    json_t *rows = json_array();
    MEED_TRY_OUT(meed_ledger_key_read(verify->options.key, folder, key));
    st = meed_verification_open(folder, key, &verification);
    if (st != MEED_OK) {
        st = take_broken(verify, folder, st);
        goto out;
    }
    meed_verification_facts(verification, &facts);
    MEED_TRY_OUT(equip(verify, &facts, verification, &data));
    if (!verify->options.json) {
        print_head(folder, &facts);
    }
    MEED_TRY_OUT(run_rounds(verify, folder, &facts, verification, rows));
    json_array_append_new(verify->runs, run_json(folder, &facts, rows));
out:
    json_decref(rows);
    meed_verification_close(verification);
    meed_operator_data_close(data);
    return st;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool has_ledger(const char *folder)
{
    char path[MEED_PATH_BYTES];
    return meed_file_join(folder, "ledger.jsonl", path, sizeof path) == MEED_OK &&
           meed_file_exists(path);
}

/* The cells of a simulation, in the order of their names. */
static enum meed_status run_cells(struct verify *verify, int *found)
{
    struct dirent **names = NULL;
    char states[MEED_PATH_BYTES], folder[MEED_PATH_BYTES];
    enum meed_status st = MEED_OK;
    MEED_TRY(meed_file_join(verify->options.run, "state", states, sizeof states));
    int count = scandir(states, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        int size = snprintf(folder, sizeof folder, "%s/%s/aggregator", states, names[i]->d_name);
        if (st == MEED_OK && size < (int)sizeof folder && has_ledger(folder)) {
            *found += 1;
            st = run_one(verify, folder);
        }
        free(names[i]);
    }
    free(names);
    return st;
}

static enum meed_status run_all(struct verify *verify)
{
    char inner[MEED_PATH_BYTES];
    int found = 0;
    const char *run = verify->options.run;
    if (has_ledger(run)) {
        return run_one(verify, run);
    }
    MEED_TRY(meed_file_join(run, "aggregator", inner, sizeof inner));
    if (has_ledger(inner)) {
        return run_one(verify, inner);
    }
    MEED_TRY(run_cells(verify, &found));
    return found > 0 ? MEED_OK
                     : MEED_FAIL(MEED_NOT_FOUND,
                                 "no ledger in %.512s; a simulation keeps those of its cells with "
                                 "--keep-evidence",
                                 run);
}

static enum meed_status print_json(const struct verify *verify)
{
    json_t *root =
        json_pack("{s:s, s:O, s:b, s:b}", "schema", "meed.verify/1", "runs", verify->runs, "agrees",
                  verify->wrong[0] == '\0', "complete", verify->missing[0] == '\0');
    if (verify->wrong[0]) {
        json_object_set_new(root, "first", json_string(verify->wrong));
    }
    int failed = json_dumpf(root, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(root);
    return failed ? MEED_FAIL(MEED_IO, "cannot write to standard output") : MEED_OK;
}

static enum meed_status sum_up(const struct verify *verify)
{
    if (verify->wrong[0]) {
        return MEED_FAIL(MEED_INTEGRITY, "%s", verify->wrong);
    }
    if (verify->missing[0]) {
        return MEED_FAIL(MEED_NOT_FOUND,
                         "nothing differs, but not everything could be recomputed: "
                         "%s",
                         verify->missing);
    }
    if (!verify->options.json) {
        printf("everything was recomputed and agrees with the ledger%s\n",
               json_array_size(verify->runs) > 1 ? "s" : "");
    }
    return MEED_OK;
}

enum meed_status meed_cmd_verify(int argc, char **argv)
{
    static struct verify verify;
    verify = (struct verify){.runs = json_array()};
    struct argp argp = {option_rows, option_parse, "RUN", documentation, NULL, NULL, NULL};
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(
        meed_command_line_parse(&argp, argc, argv, &verify.options, &verify.options.status));
    if (!verify.options.run) {
        st = MEED_FAIL(MEED_ARG, "no run given; say `meed verify out/demo`");
        goto out;
    }
    verify.stop = meed_stop_signal_catch();
    MEED_TRY_OUT(run_all(&verify));
    if (verify.options.json) {
        MEED_TRY_OUT(print_json(&verify));
    }
    st = sum_up(&verify);
out:
    json_decref(verify.runs);
    meed_score_session_close(&verify.session);
    return st;
}
