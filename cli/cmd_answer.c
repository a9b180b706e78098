/* meed answer: what many adapters say to a multi-turn benchmark, in one batch.
 *
 * The base model is held once; every adapter is a row of gates over one stack, so ten adapters cost
 * little more memory than one, and their dialogues fill each other's pauses. Out come FastChat's
 * model_answer files, one an adapter, ready for `meed judge` and for FastChat itself.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "base/threads.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "evaluation/answering.h"

enum { MAX_ADAPTERS = 64, NAME_BYTES = 128 };

struct options {
    const char *model;
    const char *questions;
    const char *out;
    const char *adapters[MAX_ADAPTERS];
    int32_t adapter_count;
    const char *device; /* NULL: the CPU */
    int64_t threads;
    struct meed_answering_options answering;
    bool base, quiet;
    enum meed_status status;
};

enum { KEY_BASE = 256, KEY_SYSTEM, KEY_DEVICE };

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "model folder (Hugging Face layout)", 0},
    {"adapter", 'a', "DIR", 0, "an adapter that answers (PEFT layout); may be repeated", 0},
    {"base", KEY_BASE, NULL, 0, "let the plain model answer too", 0},
    {"questions", 'Q', "FILE", 0, "questions, FastChat's question.jsonl", 0},
    {"out", 'o', "DIR", 0, "folder for NAME.jsonl, one a model", 0},
    {"system", KEY_SYSTEM, "TEXT", 0, "a system turn before every dialogue", 0},
    {"max-new-tokens", 'n', "N", 0, "length limit of a reply (default: 256)", 0},
    {"temperature", 't', "T", 0, "0 takes the best token (default), 1 draws as the model says", 0},
    {"top-p", 'P', "P", 0, "draw from the likeliest tokens that make up this share (default: 1)",
     0},
    {"seed", 'S', "N", 0, "of the draws (default: 1)", 0},
    {"slots", 's', "N", 0, "dialogues in flight (default: 16)", 0},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 0},
    {"threads", 'T', "N", 0, "worker threads (default: all cores)", 0},
    {"quiet", 'q', NULL, 0, "no progress", 0},
    {0},
};

static const char documentation[] =
    "Let adapters answer a multi-turn benchmark, all of them in one batch.\v"
    "Where replies are drawn, all models draw the same numbers for a question, so that their "
    "differences are paired.\n\n"
    "Examples:\n"
    "  meed answer --model M --adapter north --adapter south --base \\\n"
    "    --questions question.jsonl --out answers\n"
    "  meed judge --questions question.jsonl --judge J answers/north.jsonl answers/south.jsonl";

/* --- arguments -------------------------------------------------------------------------------- */
static enum meed_status number(const char *what, const char *text, int64_t max, int32_t *value)
{
    int64_t wide = 0;
    MEED_TRY(meed_parse_i64(what, text, 1, max, &wide));
    *value = (int32_t)wide;
    return MEED_OK;
}

static enum meed_status real(const char *what, const char *text, double max, float *value)
{
    double wide = 0;
    MEED_TRY(meed_parse_f64(what, text, 0, max, &wide));
    *value = (float)wide;
    return MEED_OK;
}

static error_t number_parse(int key, const char *text, struct options *options)
{
    struct meed_answering_options *a = &options->answering;
    int64_t seed = 0;
    switch (key) {
    case 'n':
        options->status = number("--max-new-tokens", text, 1 << 20, &a->max_new_tokens);
        break;
    case 't':
        options->status = real("--temperature", text, 100, &a->temperature);
        break;
    case 'P':
        options->status = real("--top-p", text, 1, &a->top_p);
        break;
    case 'S':
        options->status = meed_parse_i64("--seed", text, 0, INT64_MAX, &seed);
        a->seed = (uint64_t)seed;
        break;
    case 's':
        options->status = number("--slots", text, 1024, &a->slots);
        break;
    case 'T':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

static error_t adapter_parse(struct options *options, const char *text)
{
    if (options->adapter_count == MAX_ADAPTERS) {
        options->status = MEED_FAIL(MEED_LIMIT, "more than %d adapters", MAX_ADAPTERS);
        return EINVAL;
    }
    options->adapters[options->adapter_count++] = text;
    return 0;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'm':
        options->model = text;
        return 0;
    case 'Q':
        options->questions = text;
        return 0;
    case 'o':
        options->out = text;
        return 0;
    case 'a':
    case ARGP_KEY_ARG:
        return adapter_parse(options, text);
    case 'q':
        options->quiet = true;
        return 0;
    case KEY_BASE:
        options->base = true;
        return 0;
    case KEY_SYSTEM:
        options->answering.system = text;
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
    const char *missing = !o->model                           ? "--model"
                          : !o->questions                     ? "--questions"
                          : !o->out                           ? "--out"
                          : o->adapter_count == 0 && !o->base ? "--adapter and no --base"
                                                              : NULL;
    return missing ? MEED_FAIL(MEED_ARG, "no %s given; see `meed help answer`", missing) : MEED_OK;
}

/* --- work ------------------------------------------------------------------------------------- */
struct work {
    struct options *options;
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_adapter *adapters[MAX_ADAPTERS];
    struct meed_fastchat_questions *questions;
    struct meed_fastchat_answers *answers[MAX_ADAPTERS + 1];
    float gates[(MAX_ADAPTERS + 1) * MAX_ADAPTERS];
    struct meed_progress progress;
};

/* The last part of a path names the model. */
static enum meed_status name_of(const char *path, char name[NAME_BYTES])
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    if (end == begin || end - begin >= NAME_BYTES) {
        return MEED_FAIL(MEED_ARG, "adapter \"%.100s\" has no name of 1 to %d bytes at its end",
                         path, NAME_BYTES - 1);
    }
    memcpy(name, path + begin, end - begin);
    name[end - begin] = 0;
    return MEED_OK;
}

static enum meed_status model_add(struct work *w, int32_t idx, const char *name)
{
    for (int32_t i = 0; i < idx; i++) {
        if (strcmp(w->answers[i]->model, name) == 0) {
            return MEED_FAIL(MEED_ARG, "two models are called \"%s\"; rename a folder", name);
        }
    }
    return meed_fastchat_answers_create(name, w->questions, &w->answers[idx]);
}

static enum meed_status models_open(struct work *w)
{
    const struct options *o = w->options;
    int32_t models = o->adapter_count;
    for (int32_t i = 0; i < o->adapter_count; i++) {
        char name[NAME_BYTES];
        MEED_TRY(name_of(o->adapters[i], name));
        MEED_TRY(model_add(w, i, name));
        MEED_TRY(meed_adapter_load(o->adapters[i], &w->checkpoint->config, &w->adapters[i]));
        w->gates[i * o->adapter_count + i] = 1;
    }
    if (o->base) { /* a row of zeros */
        MEED_TRY(model_add(w, models++, "base"));
    }
    w->options->answering.models = models;
    return MEED_OK;
}

static bool on_progress(void *user, int64_t done, int64_t total)
{
    meed_progress_update(user, done, total);
    return true;
}

static enum meed_status work_open(struct work *w)
{
    const struct options *o = w->options;
    struct meed_answering_options *a = &w->options->answering;
    MEED_TRY(meed_fastchat_questions_load(o->questions, &w->questions));
    MEED_TRY(meed_pool_create((int)o->threads, &w->pool));
    MEED_TRY(meed_backend_open(o->device, w->pool, &w->be));
    MEED_TRY(meed_checkpoint_open(o->model, &w->checkpoint));
    MEED_TRY(meed_tokenizer_open(o->model, &w->tokenizer));
    MEED_TRY(meed_chat_open(o->model, w->tokenizer, &w->chat));
    MEED_TRY(models_open(w));
    MEED_TRY(meed_file_make_folder(o->out));
    a->be = w->be;
    a->checkpoint = w->checkpoint;
    a->tokenizer = w->tokenizer;
    a->chat = w->chat;
    a->adapters = (const struct meed_adapter *const *)w->adapters;
    a->adapter_count = o->adapter_count;
    a->gates = w->gates;
    a->progress = on_progress;
    a->progress_user = &w->progress;
    return MEED_OK;
}

static enum meed_status answers_write(const struct work *w)
{
    const int64_t now = meed_clock_wall_ms();
    for (int32_t i = 0; i < w->options->answering.models; i++) {
        char file[NAME_BYTES + 16];
        char path[MEED_PATH_BYTES];
        snprintf(file, sizeof file, "%s.jsonl", w->answers[i]->model);
        MEED_TRY(meed_file_join(w->options->out, file, path, sizeof path));
        MEED_TRY(meed_fastchat_answers_write(path, w->questions, w->answers[i], now));
        printf("%s\n", path);
    }
    return MEED_OK;
}

static void work_close(struct work *w)
{
    for (int32_t i = 0; i <= MAX_ADAPTERS; i++) {
        meed_fastchat_answers_destroy(w->answers[i]);
    }
    for (int32_t i = 0; i < MAX_ADAPTERS; i++) {
        meed_adapter_destroy(w->adapters[i]);
    }
    meed_fastchat_questions_destroy(w->questions);
    meed_chat_close(w->chat);
    meed_tokenizer_close(w->tokenizer);
    meed_checkpoint_close(w->checkpoint);
    meed_backend_close(w->be);
    meed_pool_destroy(w->pool);
}

enum meed_status meed_cmd_answer(int argc, char **argv)
{
    struct options options = {.answering = meed_answering_defaults()};
    const struct argp argp = {option_rows, option_parse, "[ADAPTER…]", documentation,
                              NULL,        NULL,         NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    MEED_TRY(options_check(&options));
    struct work *w = meed_heap_alloc(1, sizeof *w);
    if (!w) {
        return MEED_NOMEM;
    }
    enum meed_status st = MEED_OK;
    w->options = &options;
    MEED_TRY_OUT(work_open(w));
    meed_progress_start(&w->progress, "answering", "replies", options.quiet);
    st = meed_answering_run(&options.answering, w->questions, w->answers);
    meed_progress_finish(&w->progress);
    if (st == MEED_OK) {
        st = answers_write(w);
    }
out:
    work_close(w);
    meed_heap_free(w);
    return st;
}
