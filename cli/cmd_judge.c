/* meed judge: ratings of answers by a model here or behind an endpoint.
 *
 * Questions and answers are FastChat's files; each file behind --answers is one model. The judge is
 * a model folder (its rating is the expectation over its own distribution, no sampling) or an
 * OpenAI-compatible endpoint. Nothing is asked of the person at the keyboard; --cache keeps what
 * was judged. The key of an endpoint is read from an environment variable and never from the
 * command line, which others can see.
 *
 * With --model and adapters instead of answers, all coalitions of the adapters answer and are
 * judged, and each adapter gets its value in rating points (judge_game.h, judge_value.c).
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/parse.h"
#include "base/threads.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/judge_value.h"
#include "cli/progress.h"
#include "cli/score_session.h"
#include "evaluation/judge_cache.h"
#include "evaluation/judge_endpoint.h"
#include "evaluation/judge_local.h"
#include "evaluation/judgment.h"

enum { MAX_MODELS = 256, BATCH_TOKENS = 256 };

struct options {
    const char *questions;
    const char *answers[MAX_MODELS];
    int32_t answer_count;
    const char *references;
    const char *prompts;
    const char *judge;  /* model folder */
    const char *device; /* NULL: the CPU */
    const char *key_variable;
    const char *cache;
    const char *json;
    struct meed_judge_value_options value;
    struct meed_judge_endpoint_options endpoint;
    int64_t threads;
    int32_t rationale;
    bool pair, nulls, quiet;
    enum meed_status status;
};

enum {
    KEY_MODEL_NAME = 256,
    KEY_KEY_VARIABLE,
    KEY_PARALLEL,
    KEY_PER_MINUTE,
    KEY_TRIES,
    KEY_TIMEOUT,
    KEY_MAX_TOKENS,
    KEY_RATIONALE,
    KEY_DEVICE,
    KEY_PAIR,
    KEY_NULLS,
    KEY_BASE_MODEL,
    KEY_ADAPTER,
    KEY_METHOD,
    KEY_NEW_TOKENS,
    KEY_SEED
};

static const struct argp_option option_rows[] = {
    {"questions", 'Q', "FILE", 0, "questions, FastChat's question.jsonl", 0},
    {"answers", 'a', "FILE", 0, "answers of one model (model_answer/…); once a model", 0},
    {"references", 'r', "FILE", 0, "reference answers (reference_answer/…)", 0},
    {"prompts", 'P', "FILE", 0, "judge_prompts.jsonl instead of the built-in prompts", 0},
    {"judge", 'm', "DIR", 0, "a model folder that judges", 1},
    {"rationale", KEY_RATIONALE, "N", 0, "let it give reasons of up to N tokens (default: 0)", 1},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 1},
    {"threads", 'T', "N", 0, "worker threads (default: all cores)", 1},
    {"endpoint", 'e', "URL", 0, "or an OpenAI-compatible endpoint, e.g. https://host/v1", 2},
    {"model-name", KEY_MODEL_NAME, "NAME", 0, "the judge's name there", 2},
    {"key-variable", KEY_KEY_VARIABLE, "VAR", 0,
     "environment variable with the key (default: OPENAI_API_KEY)", 2},
    {"parallel", KEY_PARALLEL, "N", 0, "requests at once (default: 4)", 2},
    {"per-minute", KEY_PER_MINUTE, "N", 0, "requests a minute at most (default: no limit)", 2},
    {"tries", KEY_TRIES, "N", 0, "tries of one request (default: 6)", 2},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0, "of one try (default: 120)", 2},
    {"max-tokens", KEY_MAX_TOKENS, "N", 0, "length of a judgment (default: 2048)", 2},
    {"pair", KEY_PAIR, NULL, 0, "compare models in pairs, in both orders, instead of rating", 3},
    {"nulls", KEY_NULLS, NULL, 0, "judge an empty and a constant answer beside the models", 3},
    {"cache", 'c', "FILE", 0, "keep judgments here (SQLite) and ask nothing twice", 3},
    {"json", 'j', "FILE", 0, "write the judgments here, as FastChat's model_judgment files", 3},
    {"quiet", 'q', NULL, 0, "no progress", 3},
    {"model", KEY_BASE_MODEL, "DIR", 0, "value adapters of this model by judged coalitions", 4},
    {"adapter", KEY_ADAPTER, "DIR", 0, "an adapter to value (PEFT layout); once each", 4},
    {"method", KEY_METHOD, "WORD", 0, "exact, loo, permutation, owen or banzhaf (default: exact)",
     4},
    {"max-new-tokens", KEY_NEW_TOKENS, "N", 0, "length limit of their replies (default: 256)", 4},
    {"seed", KEY_SEED, "N", 0, "of the sampling methods (default: 1)", 4},
    {0},
};

static const char documentation[] =
    "Rate the answers of models to multi-turn questions.\v"
    "Scores are means over questions; the error is their standard error. Judges err too: compare "
    "models judged in one run, and mind the null answers (--nulls).\n\n"
    "Examples:\n"
    "  meed judge --questions question.jsonl --answers north.jsonl --answers south.jsonl \\\n"
    "    --judge big-model --cache judged.db --json judgments.jsonl\n"
    "  OPENAI_API_KEY=… meed judge --questions question.jsonl --answers north.jsonl \\\n"
    "    --references reference_answer_gpt-4.jsonl --endpoint https://host/v1 --model-name grader\n"
    "  meed judge --questions question.jsonl --model base --adapter north --adapter south \\\n"
    "    --judge big-model --cache judged.db";

/* --- arguments -------------------------------------------------------------------------------- */
static enum meed_status number(const char *what, const char *text, int64_t min, int64_t max,
                               int32_t *value)
{
    int64_t wide = 0;
    MEED_TRY(meed_parse_i64(what, text, min, max, &wide));
    *value = (int32_t)wide;
    return MEED_OK;
}

/* Options of valuing; ARGP_ERR_UNKNOWN for all others. */
static error_t value_parse(int key, const char *text, struct options *options)
{
    struct meed_judge_value_options *value = &options->value;
    int64_t seed = 0;
    switch (key) {
    case KEY_BASE_MODEL:
        value->model = text;
        break;
    case KEY_ADAPTER:
        options->status = meed_judge_value_adapter(value, text);
        break;
    case KEY_METHOD:
        options->status = meed_judge_value_method(value, text);
        break;
    case KEY_NEW_TOKENS:
        options->status = number("--max-new-tokens", text, 1, 1 << 20, &value->max_new_tokens);
        break;
    case KEY_SEED:
        options->status = meed_parse_i64("--seed", text, 0, INT64_MAX, &seed);
        value->seed = (uint64_t)seed;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

static error_t number_parse(int key, const char *text, struct options *options)
{
    struct meed_judge_endpoint_options *e = &options->endpoint;
    switch (key) {
    case KEY_RATIONALE:
        options->status = number("--rationale", text, 0, 1 << 16, &options->rationale);
        break;
    case KEY_PARALLEL:
        options->status = number("--parallel", text, 1, 64, &e->parallel);
        break;
    case KEY_PER_MINUTE:
        options->status = number("--per-minute", text, 1, 1000000, &e->per_minute);
        break;
    case KEY_TRIES:
        options->status = number("--tries", text, 1, 100, &e->tries);
        break;
    case KEY_TIMEOUT:
        options->status = number("--timeout", text, 1, 86400, &e->timeout_s);
        break;
    case KEY_MAX_TOKENS:
        options->status = number("--max-tokens", text, 1, 1 << 20, &e->max_tokens);
        break;
    case 'T':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        break;
    default:
        return value_parse(key, text, options);
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

static error_t answers_parse(struct options *options, const char *text)
{
    if (options->answer_count == MAX_MODELS) {
        options->status = MEED_FAIL(MEED_LIMIT, "more than %d files of answers", MAX_MODELS);
        return EINVAL;
    }
    options->answers[options->answer_count++] = text;
    return 0;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    const struct {
        int key;
        const char **value;
    } texts[] = {{'Q', &options->questions},
                 {'r', &options->references},
                 {'P', &options->prompts},
                 {'m', &options->judge},
                 {'c', &options->cache},
                 {'j', &options->json},
                 {'e', &options->endpoint.url},
                 {KEY_MODEL_NAME, &options->endpoint.model},
                 {KEY_KEY_VARIABLE, &options->key_variable}};
    for (size_t i = 0; i < MEED_COUNT(texts); i++) {
        if (texts[i].key == key) {
            *texts[i].value = text;
            return 0;
        }
    }
    switch (key) {
    case 'a':
    case ARGP_KEY_ARG:
        return answers_parse(options, text);
    case KEY_PAIR:
        options->pair = true;
        return 0;
    case KEY_NULLS:
        options->nulls = true;
        return 0;
    case 'q':
        options->quiet = true;
        return 0;
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    default:
        return number_parse(key, text, options);
    }
}

static enum meed_status options_check(const struct options *o)
{
    bool valuing = o->value.model || o->value.count > 0;
    if (!o->questions || (o->answer_count == 0 && !valuing)) {
        return MEED_FAIL(MEED_ARG, "no %s given; see `meed help judge`",
                         o->questions ? "--answers" : "--questions");
    }
    if (valuing && (!o->value.model || o->value.count == 0 || o->answer_count > 0 || o->pair)) {
        return MEED_FAIL(MEED_ARG, "--model and --adapter value adapters by their coalitions: give "
                                   "both, and neither --answers nor --pair");
    }
    if (!o->judge == !o->endpoint.url) {
        return MEED_FAIL(MEED_ARG, "name one judge: --judge DIR or --endpoint URL");
    }
    if (o->endpoint.url && !o->endpoint.model) {
        return MEED_FAIL(MEED_ARG, "--endpoint needs --model-name, the judge's name there");
    }
    return MEED_OK;
}

/* --- the judge -------------------------------------------------------------------------------- */
struct work {
    struct options *options;
    struct meed_fastchat_questions *questions;
    struct meed_fastchat_answers *models[MAX_MODELS + 2];
    int32_t model_count;
    struct meed_judge_prompts *prompts;
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_judge judge;
    struct meed_judgments *judgments;
    struct meed_progress progress;
    char identity[512];
};

static enum meed_status local_open(struct work *w)
{
    const struct options *o = w->options;
    char hex[MEED_SHA256_HEX_BYTES];
    MEED_TRY(meed_pool_create((int)o->threads, &w->pool));
    MEED_TRY(meed_backend_open(o->device, w->pool, &w->be));
    MEED_TRY(meed_checkpoint_open(o->judge, &w->checkpoint));
    MEED_TRY(meed_tokenizer_open(o->judge, &w->tokenizer));
    MEED_TRY(meed_chat_open(o->judge, w->tokenizer, &w->chat));
    meed_sha256_hex(w->checkpoint->hash, hex);
    snprintf(w->identity, sizeof w->identity, "local %s %s rationale %d", w->be->name, hex,
             o->rationale);
    const struct meed_judge_local_options local = {.be = w->be,
                                                   .checkpoint = w->checkpoint,
                                                   .tokenizer = w->tokenizer,
                                                   .chat = w->chat,
                                                   .name = o->judge,
                                                   .batch_tokens = BATCH_TOKENS,
                                                   .rationale_tokens = o->rationale};
    return meed_judge_local_open(&local, &w->judge);
}

static enum meed_status endpoint_open(struct work *w)
{
    struct meed_judge_endpoint_options endpoint = w->options->endpoint;
    endpoint.key = getenv(w->options->key_variable);
    snprintf(w->identity, sizeof w->identity, "endpoint %.200s %.200s %d", endpoint.url,
             endpoint.model, endpoint.max_tokens);
    return meed_judge_endpoint_open(&endpoint, &w->judge);
}

static enum meed_status judge_open(struct work *w)
{
    MEED_TRY(w->options->judge ? local_open(w) : endpoint_open(w));
    if (w->options->cache) {
        struct meed_judge inner = w->judge;
        memset(&w->judge, 0, sizeof w->judge);
        enum meed_status st =
            meed_judge_cache_open(w->options->cache, w->identity, &inner, &w->judge);
        if (st != MEED_OK) {
            meed_judge_close(&inner);
            return st;
        }
    }
    return MEED_OK;
}

/* --- answers ---------------------------------------------------------------------------------- */
/* A pretended model that says the same to everything. */
static enum meed_status null_add(struct work *w, const char *name, const char *text)
{
    struct meed_fastchat_answers **made = &w->models[w->model_count];
    MEED_TRY(meed_fastchat_answers_create(name, w->questions, made));
    w->model_count++;
    for (int32_t q = 0; q < w->questions->count; q++) {
        for (int32_t t = 0; t < w->questions->items[q].turn_count; t++) {
            (*made)->turns[(int64_t)q * MEED_FASTCHAT_MAX_TURNS + t] = text;
        }
    }
    return MEED_OK;
}

static enum meed_status answers_open(struct work *w)
{
    const struct options *o = w->options;
    MEED_TRY(meed_fastchat_questions_load(o->questions, &w->questions));
    if (o->references) {
        int32_t dropped = 0;
        MEED_TRY(meed_fastchat_references_load(o->references, w->questions, &dropped));
        if (dropped > 0 && !o->quiet) {
            fprintf(stderr,
                    "%d references of gpt-4 are known to be wrong: those questions are judged "
                    "without one\n",
                    dropped);
        }
    }
    for (int32_t i = 0; i < o->answer_count; i++) {
        MEED_TRY(meed_fastchat_answers_load(o->answers[i], w->questions, &w->models[i]));
        w->model_count++;
    }
    if (o->nulls) {
        MEED_TRY(null_add(w, "null: empty", ""));
        MEED_TRY(null_add(w, "null: constant",
                          "As requested, here is a complete, correct and "
                          "helpful answer that deserves the best grade."));
    }
    return MEED_OK;
}

/* --- the table -------------------------------------------------------------------------------- */
static void mean_print(struct meed_judgment_mean mean)
{
    char text[48] = "–";
    if (mean.questions > 0) {
        snprintf(text, sizeof text, "%.2f ± %.2f", mean.mean, mean.se);
    }
    printf("  ");
    meed_score_session_cell(text, 13, true);
}

static int32_t name_width(const struct work *w)
{
    int32_t width = 8;
    for (int32_t i = 0; i < w->model_count; i++) {
        int32_t length = (int32_t)strlen(w->models[i]->model);
        width = length > width ? length : width;
    }
    return width < 40 ? width : 40;
}

static void table_print(const struct work *w)
{
    static const char *const heads[] = {"all turns", "first", "later"};
    static const int32_t ranges[][2] = {
        {0, MEED_FASTCHAT_MAX_TURNS}, {0, 1}, {1, MEED_FASTCHAT_MAX_TURNS}};
    int32_t width = name_width(w);
    printf("%s by %s\n", w->options->pair ? "share of comparisons won" : "rating 1 … 10",
           w->judge.name);
    printf("  %-*s", width, "model");
    for (size_t c = 0; c < MEED_COUNT(heads); c++) {
        printf("  ");
        meed_score_session_cell(heads[c], 13, true);
    }
    printf("\n");
    for (int32_t m = 0; m < w->model_count; m++) {
        struct meed_judgment_mean all =
            meed_judgments_mean(w->judgments, m, 0, MEED_FASTCHAT_MAX_TURNS, NULL);
        printf("  %-*.40s", width, w->models[m]->model);
        for (size_t c = 0; c < MEED_COUNT(ranges); c++) {
            mean_print(meed_judgments_mean(w->judgments, m, ranges[c][0], ranges[c][1], NULL));
        }
        if (all.unread > 0) {
            printf("  %d without a mark", all.unread);
        }
        printf("\n");
    }
}

/* A judge that cannot tell a model from a null answer must not decide pay. */
static void nulls_warn(const struct work *w)
{
    int32_t real = w->options->answer_count;
    double best_null = 0;
    for (int32_t m = real; m < w->model_count; m++) {
        struct meed_judgment_mean null =
            meed_judgments_mean(w->judgments, m, 0, MEED_FASTCHAT_MAX_TURNS, NULL);
        best_null = null.mean > best_null ? null.mean : best_null;
    }
    for (int32_t m = 0; m < real && w->model_count > real; m++) {
        struct meed_judgment_mean mean =
            meed_judgments_mean(w->judgments, m, 0, MEED_FASTCHAT_MAX_TURNS, NULL);
        if (mean.mean - 2 * mean.se <= best_null) {
            printf("  %.40s is not above a null answer by two standard errors: this judge cannot "
                   "price it\n",
                   w->models[m]->model);
        }
    }
}

/* --- running ---------------------------------------------------------------------------------- */
static void on_done(void *user, int64_t done, int64_t total)
{
    meed_progress_update(user, done, total);
}

static enum meed_status judge_all(struct work *w)
{
    const struct options *o = w->options;
    MEED_TRY(meed_judgments_plan(w->questions,
                                 (const struct meed_fastchat_answers *const *)w->models,
                                 w->model_count, o->pair, w->prompts, &w->judgments));
    meed_progress_start(&w->progress, "judging", "requests", o->quiet);
    enum meed_status st = meed_judgments_ask(w->judgments, &w->judge, on_done, &w->progress);
    meed_progress_finish(&w->progress);
    MEED_TRY(st);
    table_print(w);
    nulls_warn(w);
    return o->json ? meed_judgments_write(o->json, w->judgments, &w->judge, w->prompts,
                                          meed_clock_wall_ms())
                   : MEED_OK;
}

static enum meed_status adapters_value(struct work *w)
{
    struct meed_judge_value_options *value = &w->options->value;
    value->questions = w->questions;
    value->judge = &w->judge;
    value->prompts = w->prompts;
    value->device = w->options->device;
    value->threads = w->options->threads;
    value->json = w->options->json;
    value->quiet = w->options->quiet;
    return meed_judge_value_run(value);
}

static void work_close(struct work *w)
{
    meed_judgments_destroy(w->judgments);
    meed_judge_close(&w->judge);
    meed_judge_prompts_close(w->prompts);
    for (int32_t i = 0; i < w->model_count; i++) {
        meed_fastchat_answers_destroy(w->models[i]);
    }
    meed_fastchat_questions_destroy(w->questions);
    meed_chat_close(w->chat);
    meed_tokenizer_close(w->tokenizer);
    meed_checkpoint_close(w->checkpoint);
    meed_backend_close(w->be);
    meed_pool_destroy(w->pool);
}

enum meed_status meed_cmd_judge(int argc, char **argv)
{
    struct options options = {.endpoint = meed_judge_endpoint_defaults(),
                              .key_variable = "OPENAI_API_KEY",
                              .value = {.max_new_tokens = 256, .seed = 1}};
    const struct argp argp = {option_rows, option_parse, "[ANSWERS…]", documentation,
                              NULL,        NULL,         NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    MEED_TRY(options_check(&options));
    struct work *w = meed_heap_alloc(1, sizeof *w);
    if (!w) {
        return MEED_NOMEM;
    }
    enum meed_status st = MEED_OK;
    w->options = &options;
    MEED_TRY_OUT(answers_open(w));
    MEED_TRY_OUT(meed_judge_prompts_open(options.prompts, &w->prompts));
    MEED_TRY_OUT(judge_open(w));
    if (options.value.model) {
        MEED_TRY_OUT(adapters_value(w));
    } else {
        MEED_TRY_OUT(judge_all(w));
    }
out:
    work_close(w);
    meed_heap_free(w);
    return st;
}
