/* meed merge: base model and adapters as one model folder, for any program that serves models.
 *
 * Also how a federation goes on from an earlier one with a fresh adapter: its model is the merged
 * folder. The work is engine/merged_model.h's.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include "cli/command_line.h"
#include "cli/commands.h"
#include "engine/merged_model.h"

enum { MAX_ADAPTERS = 64 };

struct options {
    const char *model;
    const char *adapters[MAX_ADAPTERS];
    int32_t adapter_count;
    const char *out;
    enum meed_status status; /* of parsing */
};

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 0},
    {"adapter", 'a', "DIR", 0, "PEFT adapter to add; may be repeated", 0},
    {"out", 'o', "DIR", 0, "folder of the merged model; must not exist", 0},
    {0},
};

static const char documentation[] =
    "Write base and adapters as one model folder.\v"
    "Weights keep the checkpoint's dtype; the sum of all adapters is rounded to it once. Shards "
    "become one model.safetensors of at most 16 GiB, which is made in memory. config.json, "
    "tokenizer and chat template are copied. An adapter is refused if its shapes are not the "
    "model's; that it was trained on another model of the same shape cannot be seen.\n\n"
    "Examples:\n"
    "  meed merge --model M --adapter out/demo/adapter --out merged\n"
    "  meed merge --model M --adapter first --adapter second --out merged\n"
    "  meed chat --model merged";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'm':
        options->model = text;
        break;
    case 'a':
        if (options->adapter_count == MAX_ADAPTERS) {
            options->status = MEED_FAIL(MEED_LIMIT, "more than %d adapters", MAX_ADAPTERS);
            return EINVAL;
        }
        options->adapters[options->adapter_count++] = text;
        break;
    case 'o':
        options->out = text;
        break;
    case ARGP_KEY_ARG:
        options->status =
            MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help merge`", text);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

enum meed_status meed_cmd_merge(int argc, char **argv)
{
    enum meed_status st = MEED_OK;
    struct options options = {.status = MEED_OK};
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_adapter *adapters[MAX_ADAPTERS] = {NULL};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.model || options.adapter_count == 0 || !options.out) {
        return MEED_FAIL(MEED_ARG, "no --%s given; see `meed help merge`",
                         !options.model               ? "model"
                         : options.adapter_count == 0 ? "adapter"
                                                      : "out");
    }
    MEED_TRY_OUT(meed_checkpoint_open(options.model, &checkpoint));
    for (int32_t i = 0; i < options.adapter_count; i++) {
        MEED_TRY_OUT(meed_adapter_load(options.adapters[i], &checkpoint->config, &adapters[i]));
    }
    MEED_TRY_OUT(meed_merged_model_write(checkpoint, (const struct meed_adapter *const *)adapters,
                                         options.adapter_count, options.out));
    fprintf(stderr, "%d adapter%s merged into %s\n", options.adapter_count,
            options.adapter_count == 1 ? "" : "s", options.out);
out:
    for (int32_t i = 0; i < options.adapter_count; i++) {
        meed_adapter_destroy(adapters[i]);
    }
    meed_checkpoint_close(checkpoint);
    return st;
}
