/* meed eval: score a model, with or without an adapter, on a dialogue benchmark.
 *
 * Axis values as a valuation sees them, category by category, with standard errors, and perplexity
 * per token for comparison with other tools. Log-likelihoods are fp32 and repeat to the bit.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/score_session.h"
#include "evaluation/score.h"

struct options {
    const char *model;
    const char *adapter;
    const char *benchmark;
    const char *json;
    const char *device;
    enum meed_block_format base;
    int64_t threads;
    bool quiet;
    enum meed_status status; /* of parsing */
};

enum { KEY_DEVICE = 256, KEY_BASE };

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 0},
    {"adapter", 'a', "DIR", 0, "PEFT adapter (default: the plain base)", 0},
    {"benchmark", 'b', "FILE", 0, "dialogues: Meed JSONL or MT-Bench-101", 0},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 0},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 0},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 0},
    {"json", 'j', "FILE", 0, "write the result here", 0},
    {"quiet", 'q', NULL, 0, "no progress", 0},
    {0},
};

static const char documentation[] =
    "Score a model on a benchmark: mean log-likelihood per token of the reference replies, by axis "
    "and category, with standard errors.\v"
    "Examples:\n"
    "  meed eval --model examples/tiny/model \\\n"
    "      --benchmark examples/tiny/benchmark.jsonl\n"
    "  meed eval --model M --adapter out/bank --benchmark mtbench101.jsonl \\\n"
    "      --json score.json\n"
    "  meed eval --model M --benchmark B.jsonl --base nf4   # a quarter of bf16";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'm':
        options->model = text;
        break;
    case 'a':
        options->adapter = text;
        break;
    case 'b':
        options->benchmark = text;
        break;
    case 'j':
        options->json = text;
        break;
    case 'q':
        options->quiet = true;
        break;
    case KEY_BASE:
        options->status = meed_command_line_base(text, &options->base);
        return options->status == MEED_OK ? 0 : EINVAL;
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    case 't':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        return options->status == MEED_OK ? 0 : EINVAL;
    case ARGP_KEY_ARG:
        options->status = MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help eval`", text);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static json_t *axis_json(const struct meed_benchmark *b, int32_t axis,
                         const struct meed_score_axis *score)
{
    json_t *categories = json_object();
    for (int32_t c = 0; c < b->category_count; c++) {
        const struct meed_score_mean *mean = &score->categories[c];
        if (mean->dialogues > 0) {
            json_object_set_new(categories, b->categories[c],
                                json_pack("{s:f, s:f, s:i}", "value", mean->value, "se", mean->se,
                                          "dialogues", (int)mean->dialogues));
        }
    }
    json_t *object = json_pack("{s:s, s:f, s:b, s:f, s:f, s:i, s:o}", "name", b->axes[axis].name,
                               "weight", b->axes[axis].weight, "guard", (int)b->axes[axis].guard,
                               "value", score->all.value, "se", score->all.se, "dialogues",
                               (int)score->all.dialogues, "categories", categories);
    if (object && score->scored_tokens > 0) {
        json_object_set_new(object, "perplexity", json_real(score->perplexity));
        json_object_set_new(object, "scored_tokens", json_integer(score->scored_tokens));
    }
    return object;
}

static enum meed_status json_write(const char *path, const struct meed_score_session *session,
                                   const struct meed_score *score)
{
    char model[MEED_SHA256_HEX_BYTES];
    char benchmark[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(session->checkpoint->hash, model);
    meed_sha256_hex(session->benchmark->hash, benchmark);
    json_t *axes = json_array();
    for (int32_t a = 0; a < session->benchmark->axis_count; a++) {
        json_array_append_new(axes, axis_json(session->benchmark, a, &score->axes[a]));
    }
    json_t *root = json_pack("{s:s, s:s, s:f, s:f, s:i, s:I, s:f, s:o}", "model", model,
                             "benchmark", benchmark, "value", score->value, "se", score->se,
                             "dialogues", (int)session->benchmark->dialogue_count, "tokens",
                             (json_int_t)score->tokens, "seconds", score->seconds, "axes", axes);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_NOMEM, "no memory for the JSON of the result");
    }
    enum meed_status st = meed_file_write_atomic(path, text, strlen(text));
    free(text);
    return st;
}

static void row_print(const char *name, int columns, const struct meed_score_mean *mean)
{
    char text[64];
    meed_score_session_cell(name, columns, false);
    meed_score_session_estimate(mean->value, mean->se, false, text);
    meed_score_session_cell(text, 19, true);
    printf("%11d\n", mean->dialogues);
}

static void table_print(const struct meed_benchmark *b, const struct meed_score *score)
{
    int columns = 24;
    for (int32_t c = 0; c < b->category_count; c++) {
        columns = MEED_MAX(columns, (int)strlen(b->categories[c]) + 4);
    }
    meed_score_session_cell("axis, category", columns, false);
    meed_score_session_cell("value ± se", 19, true);
    printf("%11s\n", "dialogues");
    for (int32_t a = 0; a < b->axis_count; a++) {
        row_print(b->axes[a].name, columns, &score->axes[a].all);
        for (int32_t c = 0; c < b->category_count; c++) {
            const struct meed_score_mean *mean = &score->axes[a].categories[c];
            if (mean->dialogues > 0) {
                printf("  ");
                row_print(b->categories[c], columns - 2, mean);
            }
        }
        if (score->axes[a].scored_tokens > 0) {
            printf("  perplexity %.4f per token (%" PRId64 " tokens)\n", score->axes[a].perplexity,
                   score->axes[a].scored_tokens);
        }
    }
    char text[64];
    meed_score_session_estimate(score->value, score->se, false, text);
    printf("\n%s: %s nats per token, %d dialogues; %" PRId64 " tokens in %.2f s (%.0f tokens/s)\n",
           b->name, text, b->dialogue_count, score->tokens, score->seconds,
           score->seconds > 0 ? (double)score->tokens / score->seconds : 0);
}

static enum meed_status run(const struct options *options, struct meed_score_session *session,
                            struct meed_adapter **adapter)
{
    MEED_TRY(meed_score_session_open(options->model, options->benchmark, options->device,
                                     options->threads, "scoring", options->quiet, session));
    if (options->adapter) {
        MEED_TRY(meed_adapter_load(options->adapter, &session->checkpoint->config, adapter));
    }
    struct meed_score_options how = {.batch_tokens = 2048,
                                     .base = options->base,
                                     .bootstrap = 1000,
                                     .seed = 1,
                                     .progress = meed_score_session_progress,
                                     .progress_user = session};
    struct meed_score score;
    enum meed_status st = meed_score_run(session->be, session->checkpoint, session->benchmark,
                                         *adapter, &how, &score);
    meed_progress_finish(&session->progress);
    MEED_TRY(st);
    table_print(session->benchmark, &score);
    return options->json ? json_write(options->json, session, &score) : MEED_OK;
}

enum meed_status meed_cmd_eval(int argc, char **argv)
{
    struct options options = {.status = MEED_OK};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.model || !options.benchmark) {
        return MEED_FAIL(MEED_ARG, "no --%s given; see `meed help eval`",
                         options.model ? "benchmark" : "model");
    }
    struct meed_score_session session = {0};
    struct meed_adapter *adapter = NULL;
    enum meed_status st = run(&options, &session, &adapter);
    meed_adapter_destroy(adapter);
    meed_score_session_close(&session);
    return st;
}
