/* meed synthesise: let a model write task data after a few local examples, and keep the best.
 *
 * What a FedPIT client does in every round, on one's own machine: to see what a model makes of the
 * data before a federation depends on it. The filters and the choice are client/synthesis.h's;
 * here is the command line. Run again, it goes on where it was stopped.
 */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "base/threads.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/stop_signal.h"
#include "client/synthesis.h"
#include "client/workbench.h"

struct options {
    const char *model;
    const char *adapter;
    const char *private_branch;
    const char *data;
    const char *out;
    const char *device;
    const char *json;
    int64_t threads;
    bool quiet;
    enum meed_dtype dtype;
    enum meed_block_format base;
    struct meed_synthesis_options synthesis;
    enum meed_status status; /* of parsing */
};

enum {
    KEY_BASE = 256,
    KEY_BATCH,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_INSTRUCTION_DEMOS,
    KEY_OPENING,
    KEY_RESPONSE_DEMOS,
    KEY_RETRIES,
    KEY_ROUGE,
    KEY_SCORE,
    KEY_TEMPLATE,
    KEY_TURNS,
};

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 0},
    {"data", 'd', "FILE", 0, "the local examples: dialogues in any form that train reads", 0},
    {"out", 'o', "FOLDER", 0, "candidates, scores and synthetic.jsonl go here", 0},
    {"adapter", 'a', "DIR", 0, "writes the candidates (default: the plain base)", 0},
    {"private", 'p', "DIR", 0, "scores them (default: as --adapter)", 0},
    {0, 0, NULL, 0, "Candidates:", 1},
    {"candidates", 'n', "N", 0, "to write (default: 32)", 1},
    {"keep", 'k', "M", 0, "of them, at most (default: 16)", 1},
    {"score", KEY_SCORE, "WORD", 0, "keep by ifs, ppl, ifd or random (default: ifs)", 1},
    {"rouge-max", KEY_ROUGE, "X", 0, "ROUGE-L above which a text is a copy (default: 0.7)", 1},
    {"retries", KEY_RETRIES, "N", 0, "of a refused text (default: 3)", 1},
    {"turns", KEY_TURNS, "N", 0, "exchanges (default: as many as a local dialogue)", 1},
    {0, 0, NULL, 0, "Prompts:", 2},
    {"template", KEY_TEMPLATE, "WORD", 0, "dialogue or tasks (default: dialogue)", 2},
    {"instruction-demos", KEY_INSTRUCTION_DEMOS, "N", 0,
     "local examples before a question (default: 8)", 2},
    {"response-demos", KEY_RESPONSE_DEMOS, "N", 0, "and before a reply (default: 4)", 2},
    {"opening-words", KEY_OPENING, "N", 0,
     "words that local questions share, to begin with (default: 3)", 2},
    {"temperature", 't', "T", 0, "0 takes the best token (default)", 2},
    {"seed", 's', "N", 0, "of all draws (default: 1)", 2},
    {0, 0, NULL, 0, "Machine:", 3},
    {"batch", KEY_BATCH, "N", 0, "candidates in flight (default: 16)", 3},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 3},
    {"dtype", KEY_DTYPE, "WORD", 0, "f32 or bf16, of weights and activations (default: bf16)", 3},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 3},
    {"threads", 'T', "N", 0, "worker threads (default: all cores)", 3},
    {"json", 'j', "FILE", 0, "write the counts here", 3},
    {"quiet", 'q', NULL, 0, "no progress", 3},
    {0},
};

static const char documentation[] =
    "Let a model write task data after a few local examples: questions, then replies, by turns. "
    "What copies a local text is refused, and the best of the rest are kept in "
    "FOLDER/synthetic.jsonl, which train reads. Stop it with Ctrl-C; the same command goes on.\v"
    "Examples:\n"
    "  meed synthesise --model examples/tiny/model \\\n"
    "      --data examples/tiny/clients/clinic.jsonl --out out/synthetic\n"
    "  meed synthesise --model M --data D.jsonl --out S --adapter global \\\n"
    "      --private own --candidates 64 --keep 32 --json counts.json\n"
    "  meed synthesise --model M --data D.jsonl --out S --template tasks \\\n"
    "      --turns 1   # the form of the paper";

/* --- options --------------------------------------------------------------------------------- */
static enum meed_status parse_i32(const char *what, const char *text, int32_t *value)
{
    int64_t wide = 0;
    MEED_TRY(meed_parse_i64(what, text, 0, INT32_MAX, &wide));
    *value = (int32_t)wide;
    return MEED_OK;
}

static enum meed_status parse_score(const char *text, enum meed_synthesis_score *score)
{
    for (int s = 0; s < MEED_SYNTHESIS_SCORES; s++) {
        if (strcmp(text, meed_synthesis_score_name((enum meed_synthesis_score)s)) == 0) {
            *score = (enum meed_synthesis_score)s;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "--score %.32s; use ifs, ppl, ifd or random", text);
}

static enum meed_status parse_template(const char *text, enum meed_synthesis_template *form)
{
    for (int f = 0; f < MEED_SYNTHESIS_TEMPLATES; f++) {
        if (strcmp(text, meed_synthesis_template_name((enum meed_synthesis_template)f)) == 0) {
            *form = (enum meed_synthesis_template)f;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "--template %.32s; use dialogue or tasks", text);
}

/* Options of the synthesis; ARGP_ERR_UNKNOWN for all others. */
static error_t synthesis_parse(int key, const char *text, struct options *options)
{
    struct meed_synthesis_options *o = &options->synthesis;
    int64_t seed = 0;
    switch (key) {
    case 'n':
        options->status = parse_i32("--candidates", text, &o->candidates);
        break;
    case 'k':
        options->status = parse_i32("--keep", text, &o->keep);
        break;
    case KEY_SCORE:
        options->status = parse_score(text, &o->score);
        break;
    case KEY_ROUGE:
        options->status = meed_parse_f64("--rouge-max", text, 0, 1, &o->rouge_max);
        break;
    case KEY_RETRIES:
        options->status = parse_i32("--retries", text, &o->retries);
        break;
    case KEY_TURNS:
        options->status = parse_i32("--turns", text, &o->turns);
        break;
    case KEY_TEMPLATE:
        options->status = parse_template(text, &o->form);
        break;
    case KEY_INSTRUCTION_DEMOS:
        options->status = parse_i32("--instruction-demos", text, &o->instruction_demos);
        break;
    case KEY_RESPONSE_DEMOS:
        options->status = parse_i32("--response-demos", text, &o->response_demos);
        break;
    case KEY_OPENING:
        options->status = parse_i32("--opening-words", text, &o->opening_words);
        break;
    case 't':
        options->status = meed_parse_f64("--temperature", text, 0, 100, &o->temperature);
        break;
    case 's':
        options->status = meed_parse_i64("--seed", text, 0, INT64_MAX, &seed);
        o->seed = (uint64_t)seed;
        break;
    case KEY_BATCH:
        options->status = parse_i32("--batch", text, &o->batch);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'm':
        options->model = text;
        break;
    case 'd':
        options->data = text;
        break;
    case 'o':
        options->out = text;
        break;
    case 'a':
        options->adapter = text;
        break;
    case 'p':
        options->private_branch = text;
        break;
    case 'j':
        options->json = text;
        break;
    case 'q':
        options->quiet = true;
        break;
    case KEY_BASE:
        options->status = meed_command_line_base(text, &options->base);
        break;
    case KEY_DTYPE:
        options->status = meed_workbench_parse_dtype(text, &options->dtype);
        break;
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        break;
    case 'T':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        break;
    case ARGP_KEY_ARG:
        options->status =
            MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help synthesise`", text);
        break;
    default:
        return synthesis_parse(key, text, options);
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

/* --- results --------------------------------------------------------------------------------- */
static enum meed_status json_write(const struct options *options,
                                   const struct meed_synthesis_report *report)
{
    json_t *fates = json_object();
    json_t *texts = json_object();
    for (int f = 0; f < MEED_SYNTHESIS_FATES; f++) {
        const char *name = meed_synthesis_fate_name((enum meed_synthesis_fate)f);
        json_object_set_new(fates, name, json_integer(report->fates[f]));
        json_object_set_new(texts, name, json_integer(report->texts[f]));
    }
    json_t *root = json_pack(
        "{s:i, s:i, s:o, s:o, s:i, s:f, s:I, s:f, s:s, s:i, s:i, s:i}", "candidates",
        report->candidates, "found", report->found, "fates", fates, "texts", texts, "exchanges",
        report->exchanges, "rouge_mean", report->rouge_mean, "tokens", (json_int_t)report->tokens,
        "seconds", report->seconds, "score", meed_synthesis_score_name(options->synthesis.score),
        "scored", report->scored, "not_finite", report->not_finite, "kept", report->kept);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_NOMEM, "no memory for the JSON of the result");
    }
    enum meed_status st = meed_file_write_atomic(options->json, text, strlen(text));
    free(text);
    return st;
}

static void table_print(const struct options *options, const struct meed_synthesis_report *report)
{
    static const char *const meanings[MEED_SYNTHESIS_FATES] = {
        "", "did not end by themselves", "too short, in circles, broken, or no task",
        "asked by another candidate already", "too close to a local text"};
    printf("%d candidates, %lld tokens in %.1f s", report->candidates, (long long)report->tokens,
           report->seconds);
    printf(report->found > 0 ? "; %d were there already\n" : "\n", report->found);
    printf("  %-12s%6s%8s\n", "", "", "texts");
    for (int f = 0; f < MEED_SYNTHESIS_FATES; f++) {
        printf("  %-12s%6d%8d  ", meed_synthesis_fate_name((enum meed_synthesis_fate)f),
               report->fates[f], report->texts[f]);
        if (f == MEED_SYNTHESIS_WRITTEN) {
            printf("%d exchanges, ROUGE-L to the nearest local text %.2f\n", report->exchanges,
                   report->rouge_mean);
        } else {
            printf("%s\n", meanings[f]);
        }
    }
    printf("kept %d of %d by %s: %s/synthetic.jsonl\n", report->kept, report->scored,
           meed_synthesis_score_name(options->synthesis.score), options->out);
}

/* --- the run --------------------------------------------------------------------------------- */
struct run {
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *adapter;
    struct meed_adapter *private_branch;
    struct meed_progress progress;
    const volatile sig_atomic_t *stop;
};

static bool on_progress(void *user, const struct meed_synthesis_progress *progress)
{
    struct run *run = user;
    meed_progress_update(&run->progress, progress->done, progress->total);
    return *run->stop == 0;
}

static enum meed_status open_run(const struct options *options, struct run *run)
{
    MEED_TRY(meed_checkpoint_open(options->model, &run->checkpoint));
    const struct meed_model_config *config = &run->checkpoint->config;
    if (options->adapter) {
        MEED_TRY(meed_adapter_load(options->adapter, config, &run->adapter));
    }
    if (options->private_branch) {
        MEED_TRY(meed_adapter_load(options->private_branch, config, &run->private_branch));
    }
    MEED_TRY(meed_pool_create((int)options->threads, &run->pool));
    return meed_backend_open(options->device, run->pool, &run->be);
}

static void close_run(struct run *run)
{
    meed_adapter_destroy(run->private_branch);
    meed_adapter_destroy(run->adapter);
    meed_checkpoint_close(run->checkpoint);
    meed_backend_close(run->be);
    meed_pool_destroy(run->pool);
}

static enum meed_status synthesise(const struct options *options, struct run *run,
                                   struct meed_synthesis_report *report)
{
    const struct meed_synthesis_job job = {
        .be = run->be,
        .checkpoint = run->checkpoint,
        .model_folder = options->model,
        .global = run->adapter,
        .data_path = options->data,
        .folder = options->out,
        .dtype = options->dtype,
        .base = options->base,
        .options = options->synthesis,
        .on_progress = on_progress,
        .user = run,
    };
    meed_progress_start(&run->progress, "writing", "candidates", options->quiet);
    enum meed_status st = meed_synthesis_write(&job, report);
    meed_progress_finish(&run->progress);
    MEED_TRY(st);
    meed_progress_start(&run->progress, "scoring", "candidates", options->quiet);
    st = meed_synthesis_select(&job, run->private_branch ? run->private_branch : run->adapter,
                               report);
    meed_progress_finish(&run->progress);
    return st;
}

enum meed_status meed_cmd_synthesise(int argc, char **argv)
{
    struct options options = {.dtype = MEED_DTYPE_BF16, .synthesis = meed_synthesis_defaults()};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.model || !options.data || !options.out) {
        return MEED_FAIL(MEED_ARG, "no --%s given; see `meed help synthesise`",
                         !options.model  ? "model"
                         : !options.data ? "data"
                                         : "out");
    }
    MEED_TRY(meed_synthesis_check(&options.synthesis));
    struct run run = {.stop = meed_stop_signal_catch()};
    struct meed_synthesis_report report = {0};
    enum meed_status st;
    MEED_TRY_OUT(open_run(&options, &run));
    MEED_TRY_OUT(synthesise(&options, &run, &report));
    table_print(&options, &report);
    st = options.json ? json_write(&options, &report) : MEED_OK;
out:
    close_run(&run);
    return st;
}
