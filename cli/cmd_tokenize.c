/* meed tokenize: text to ids and back, line by line.
 *
 * In: {"text": "…"} lines; out: one JSON array of ids a line, nothing added. --decode turns arrays
 * into {"text": "…"} lines. It needs a tokenizer.json and nothing else, so it is also the way to
 * compare Meed's tokenizer with any other.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/jsonl_reader.h"
#include "engine/tokenizer.h"

struct options {
    const char *model;
    const char *input;
    bool decode;
    bool plain;
    enum meed_status status; /* of parsing */
};

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "folder with tokenizer.json, or the file itself", 0},
    {"decode", 'd', NULL, 0, "ids in, text out", 0},
    {"plain", 'p', NULL, 0, "special tokens in the text are ordinary text", 0},
    {0},
};

static const char documentation[] =
    "Turn the texts of FILE ({\"text\": …} a line; - for standard input) into token ids, an array "
    "a line. No token is added.\v"
    "Examples:\n"
    "  meed tokenize --model examples/tiny/model texts.jsonl > ids.jsonl\n"
    "  meed tokenize --model examples/tiny/model --decode ids.jsonl\n"
    "  echo '{\"text\": \"Hello\"}' | meed tokenize --model tokenizer.json -";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'm':
        options->model = text;
        break;
    case 'd':
        options->decode = true;
        break;
    case 'p':
        options->plain = true;
        break;
    case ARGP_KEY_ARG:
        if (options->input) {
            options->status = MEED_FAIL(MEED_ARG, "one input file, not also \"%.64s\"", text);
            return EINVAL;
        }
        options->input = text;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static enum meed_status bad_line(const struct meed_jsonl_reader *reader, const char *what)
{
    return MEED_FAIL(MEED_FORMAT, "%s:%" PRId64 ": %s", reader->name, reader->line_number, what);
}

/* {"text"} → [ids] */
static enum meed_status encode_line(const struct meed_tokenizer *tokenizer,
                                    const struct meed_jsonl_reader *reader, const json_t *value,
                                    bool plain, struct meed_buf *line)
{
    const char *text = NULL;
    size_t size = 0;
    struct meed_buf ids;
    meed_buf_init(&ids, (size_t)4 * MEED_TOKENIZER_MAX_TEXT_BYTES);
    enum meed_status st;
    MEED_TRY_OUT(meed_jsonl_reader_text(reader, value, "text", &text, &size));
    MEED_TRY_OUT(meed_tokenizer_encode(tokenizer, text, size, !plain, &ids));
    MEED_TRY_OUT(meed_buf_append(line, "[", 1));
    const int32_t *id = (const int32_t *)(const void *)ids.data;
    for (size_t i = 0; i < ids.size / sizeof *id; i++) {
        MEED_TRY_OUT(meed_buf_printf(line, i > 0 ? ",%d" : "%d", (int)id[i]));
    }
    MEED_TRY_OUT(meed_buf_append(line, "]\n", 2));
out:
    meed_buf_clear(&ids);
    return st;
}

/* [ids] → {"text"} */
static enum meed_status decode_line(const struct meed_tokenizer *tokenizer,
                                    const struct meed_jsonl_reader *reader, const json_t *value,
                                    struct meed_buf *line)
{
    struct meed_buf text;
    meed_buf_init(&text, (size_t)4 * MEED_TOKENIZER_MAX_TEXT_BYTES);
    enum meed_status st = json_is_array(value) ? MEED_OK : bad_line(reader, "no array of ids");
    MEED_TRY_OUT(st);
    size_t index;
    const json_t *item;
    json_array_foreach(value, index, item)
    {
        json_int_t number = json_is_integer(item) ? json_integer_value(item) : -1;
        if (number < 0 || number > INT32_MAX) {
            st = bad_line(reader, "an id is no number of 0 or more");
            goto out;
        }
        int32_t id = (int32_t)number;
        MEED_TRY_OUT(meed_tokenizer_decode(tokenizer, &id, 1, true, &text));
    }
    static const char head[] = "{\"text\": ";
    MEED_TRY_OUT(meed_buf_append(line, head, strlen(head)));
    MEED_TRY_OUT(meed_jsonl_reader_quote(text.data, text.size, line));
    MEED_TRY_OUT(meed_buf_append(line, "}\n", 2));
out:
    meed_buf_clear(&text);
    return st;
}

static enum meed_status run_lines(const struct options *options,
                                  const struct meed_tokenizer *tokenizer,
                                  struct meed_jsonl_reader *reader)
{
    struct meed_buf line;
    meed_buf_init(&line, SIZE_MAX / 4);
    enum meed_status st;
    for (;;) {
        json_t *value = NULL;
        MEED_TRY_OUT(meed_jsonl_reader_next(reader, &value));
        if (!value) {
            break;
        }
        meed_buf_reset(&line);
        MEED_TRY_OUT(options->decode
                         ? decode_line(tokenizer, reader, value, &line)
                         : encode_line(tokenizer, reader, value, options->plain, &line));
        if (fwrite(line.data, 1, line.size, stdout) != line.size) {
            st = MEED_FAIL(MEED_IO, "cannot write to standard output: %s", strerror(errno));
            goto out;
        }
    }
out:
    meed_buf_clear(&line);
    return st;
}

enum meed_status meed_cmd_tokenize(int argc, char **argv)
{
    struct options options = {.status = MEED_OK};
    const struct argp argp = {option_rows, option_parse, "FILE", documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.model || !options.input) {
        return MEED_FAIL(MEED_ARG, "%s; see `meed help tokenize`",
                         options.model ? "no input file given (- is standard input)"
                                       : "no --model given");
    }
    struct meed_tokenizer *tokenizer = NULL;
    struct meed_jsonl_reader reader = {.name = NULL};
    enum meed_status st;
    MEED_TRY_OUT(meed_tokenizer_open(options.model, &tokenizer));
    MEED_TRY_OUT(meed_jsonl_reader_open(options.input, &reader));
    MEED_TRY_OUT(run_lines(&options, tokenizer, &reader));
out:
    meed_jsonl_reader_close(&reader);
    meed_tokenizer_close(tokenizer);
    return st;
}
