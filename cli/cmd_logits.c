/* meed logits: the raw output of the model for one token sequence, as a safetensors file.
 *
 * For comparing Meed with another implementation, token by token: ids in, fp32 logits out, a row a
 * token, no chat format and no sampling in between.
 */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "base/threads.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "engine/net.h"

enum { MAX_INPUT_BYTES = 64 << 20 };

struct options {
    const char *model;
    const char *adapter;
    const char *ids;
    const char *out;
    const char *device;
    int64_t threads;
    enum meed_status status; /* of parsing */
};

enum { KEY_DEVICE = 256 };

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 0},
    {"adapter", 'a', "DIR", 0, "PEFT adapter (default: the plain base)", 0},
    {"ids", 'i', "FILE", 0, "a JSON array of token ids", 0},
    {"out", 'o', "FILE", 0, "safetensors file with the tensor \"logits\", fp32, a row a token", 0},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 0},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 0},
    {0},
};

static const char documentation[] =
    "Write the logits of a token sequence.\v"
    "Examples:\n"
    "  meed tokenize --model M text.jsonl | head -n 1 > ids.json\n"
    "  meed logits --model M --ids ids.json --out logits.safetensors\n"
    "  meed logits --model M --adapter A --ids ids.json --out logits.safetensors";

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
    case 'i':
        options->ids = text;
        break;
    case 'o':
        options->out = text;
        break;
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    case 't':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        return options->status == MEED_OK ? 0 : EINVAL;
    case ARGP_KEY_ARG:
        options->status =
            MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help logits`", text);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

struct job {
    const struct options *options;
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *adapter;
    struct meed_net *net;
    struct meed_batch *batch;
    struct meed_sequence sequence; /* one token longer than the input: the last has no row */
    float *logits;                 /* [rows, V] */
    int32_t rows;
};

static enum meed_status ids_read(struct job *job)
{
    enum meed_status st = MEED_OK;
    const struct meed_model_config *config = &job->checkpoint->config;
    const char *path = job->options->ids;
    struct meed_buf text;
    json_t *list = NULL;
    json_error_t problem;
    meed_buf_init(&text, MAX_INPUT_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &text));
    list = json_loadb(text.data, text.size, 0, &problem);
    size_t count = json_array_size(list);
    if (count < 1 || count > (size_t)config->max_positions) {
        st = MEED_FAIL(MEED_FORMAT, "%s: not a JSON array of 1 to %d token ids", path,
                       config->max_positions);
        goto out;
    }
    job->rows = (int32_t)count;
    job->sequence.length = job->rows + 1;
    job->sequence.ids = meed_heap_alloc(count + 1, sizeof(int32_t));
    job->sequence.scored = meed_heap_alloc(count + 1, 1);
    if (!job->sequence.ids || !job->sequence.scored) {
        st = MEED_NOMEM;
        goto out;
    }
    for (size_t t = 0; t < count; t++) {
        json_t *id = json_array_get(list, t);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= config->vocab) {
            st = MEED_FAIL(MEED_FORMAT, "%s: entry %zu is not a token id from 0 to %d", path, t,
                           config->vocab - 1);
            goto out;
        }
        job->sequence.ids[t] = (int32_t)json_integer_value(id);
    }
out:
    json_decref(list);
    meed_buf_clear(&text);
    return st;
}

static enum meed_status logits_write(const struct job *job)
{
    enum meed_status st = MEED_OK;
    int64_t vocab = job->checkpoint->config.vocab;
    size_t bytes = (size_t)job->rows * (size_t)vocab * sizeof(float);
    struct meed_tensor tensor = {.name = "logits",
                                 .dtype = MEED_TENSOR_F32,
                                 .dims = 2,
                                 .shape = {job->rows, vocab},
                                 .count = job->rows * vocab,
                                 .bytes = job->logits,
                                 .size = bytes};
    struct meed_buf file;
    meed_buf_init(&file, bytes + 65536);
    MEED_TRY_OUT(meed_safetensors_write(&tensor, 1, &file));
    MEED_TRY_OUT(meed_file_write_atomic(job->options->out, file.data, file.size));
out:
    meed_buf_clear(&file);
    return st;
}

static enum meed_status job_run(struct job *job)
{
    const struct options *options = job->options;
    const struct meed_adapter *adapters[1];
    MEED_TRY(meed_pool_create((int)options->threads, &job->pool));
    MEED_TRY(meed_backend_open(options->device, job->pool, &job->be));
    MEED_TRY(meed_checkpoint_open(options->model, &job->checkpoint));
    MEED_TRY(ids_read(job));
    if (options->adapter) {
        MEED_TRY(meed_adapter_load(options->adapter, &job->checkpoint->config, &job->adapter));
    }
    adapters[0] = job->adapter;
    struct meed_net_options how = {.dtype = MEED_DTYPE_F32,
                                   .max_rows = job->rows,
                                   .max_sequences = 1,
                                   .adapters = adapters,
                                   .adapter_count = job->adapter ? 1 : 0};
    MEED_TRY(meed_net_create(job->be, job->checkpoint, &how, &job->net));
    MEED_TRY(meed_batch_create(job->rows, 1, &job->batch));
    MEED_ASSERT(meed_batch_add(job->batch, &job->sequence, 0));
    job->logits =
        meed_heap_alloc((size_t)job->rows * (size_t)job->checkpoint->config.vocab, sizeof(float));
    if (!job->logits) {
        return MEED_NOMEM;
    }
    MEED_TRY(meed_net_logits(job->net, job->batch, job->logits));
    return logits_write(job);
}

enum meed_status meed_cmd_logits(int argc, char **argv)
{
    struct options options = {.status = MEED_OK};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.model || !options.ids || !options.out) {
        return MEED_FAIL(MEED_ARG, "no --%s given; see `meed help logits`",
                         !options.model ? "model"
                         : !options.ids ? "ids"
                                        : "out");
    }
    struct job job = {.options = &options};
    enum meed_status st = job_run(&job);
    meed_heap_free(job.logits);
    meed_heap_free(job.sequence.ids);
    meed_heap_free(job.sequence.scored);
    meed_batch_destroy(job.batch);
    meed_net_destroy(job.net);
    meed_adapter_destroy(job.adapter);
    meed_backend_close(job.be);
    meed_pool_destroy(job.pool);
    meed_checkpoint_close(job.checkpoint);
    return st;
}
