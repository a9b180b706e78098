/* meed generate: answers to many prompts at once.
 *
 * Prompts are JSON lines: {"messages": [{"role", "content"}, …]} goes through the model's chat
 * template, {"prompt": "…"} is continued as it stands, nothing added. A reply does not depend on
 * the prompts around it, nor on --slots or --threads. Results come in the order of the prompts, one
 * {"index", "reply", "tokens", "stopped"} a line, when all are there.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "cli/chat_session.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/jsonl_reader.h"
#include "cli/progress.h"

enum { MAX_PROMPTS = 1 << 20, MAX_MESSAGES = 4096 };

struct options {
    struct meed_chat_session_options session;
    struct meed_generate_options generate;
    const char *prompts;
    const char *json;
    bool quiet;
    enum meed_status status; /* of parsing */
};

enum { KEY_TOP_K = 256, KEY_DEVICE, KEY_BASE };

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "model folder (Hugging Face layout)", 0},
    {"adapter", 'a', "DIR", 0, "LoRA adapter folder (PEFT layout)", 0},
    {"prompts", 'p', "FILE", 0, "JSON lines with \"messages\" or \"prompt\"; - is standard input",
     0},
    {"max-new-tokens", 'n', "N", 0, "length limit of a reply (default: 256)", 0},
    {"temperature", 't', "T", 0, "0 takes the best token (default), 1 draws as the model says", 0},
    {"top-p", 'P', "P", 0, "draw from the likeliest tokens that make up this share (default: 1)",
     0},
    {"top-k", KEY_TOP_K, "K", 0, "draw from the K likeliest tokens (default: 0, off)", 0},
    {"seed", 'S', "N", 0, "of the draws (default: 1)", 0},
    {"slots", 's', "N", 0, "prompts in flight (default: 8)", 0},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 0},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 0},
    {"threads", 'T', "N", 0, "worker threads (default: all cores)", 0},
    {"json", 'j', "FILE", 0, "write the replies here instead of standard output", 0},
    {"quiet", 'q', NULL, 0, "no progress", 0},
    {0},
};

static const char documentation[] =
    "Answer the prompts of a file. Progress goes to standard error, replies to standard output, "
    "one JSON object a line.\v"
    "Examples:\n"
    "  meed generate --model examples/tiny/model --prompts prompts.jsonl\n"
    "  meed generate --model M --adapter A --prompts p.jsonl --json out.jsonl\n"
    "  meed generate --model M --prompts p.jsonl --base int8\n"
    "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' |\n"
    "    meed generate --model M --prompts - --temperature 0.7 --top-p 0.9";

static enum meed_status parse_i32(const char *what, const char *text, int64_t min, int32_t *value)
{
    int64_t wide = 0;
    MEED_TRY(meed_parse_i64(what, text, min, 1 << 24, &wide));
    *value = (int32_t)wide;
    return MEED_OK;
}

static enum meed_status parse_f32(const char *what, const char *text, double max, float *value)
{
    double wide = 0;
    MEED_TRY(meed_parse_f64(what, text, 0, max, &wide));
    *value = (float)wide;
    return MEED_OK;
}

/* Options with numbers; ARGP_ERR_UNKNOWN for all others. */
static error_t number_parse(int key, const char *text, struct options *options)
{
    struct meed_generate_options *generate = &options->generate;
    int64_t seed = 0;
    switch (key) {
    case 'n':
        options->status = parse_i32("--max-new-tokens", text, 1, &generate->max_new_tokens);
        break;
    case 't':
        options->status = parse_f32("--temperature", text, 100, &generate->temperature);
        break;
    case 'P':
        options->status = parse_f32("--top-p", text, 1, &generate->top_p);
        break;
    case KEY_TOP_K:
        options->status = parse_i32("--top-k", text, 0, &generate->top_k);
        break;
    case 'S':
        options->status = meed_parse_i64("--seed", text, 0, INT64_MAX, &seed);
        generate->seed = (uint64_t)seed;
        break;
    case 's':
        options->status = parse_i32("--slots", text, 1, &generate->slots);
        break;
    case 'T':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->session.threads);
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
        options->session.model = text;
        break;
    case 'a':
        options->session.adapter = text;
        break;
    case 'p':
        options->prompts = text;
        break;
    case 'j':
        options->json = text;
        break;
    case 'q':
        options->quiet = true;
        break;
    case KEY_BASE:
        options->status = meed_command_line_base(text, &options->session.base);
        return options->status == MEED_OK ? 0 : EINVAL;
    case KEY_DEVICE:
        options->session.device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    case ARGP_KEY_ARG:
        options->status = MEED_FAIL(MEED_ARG,
                                    "\"%.64s\" is no option; prompts go in a file behind "
                                    "--prompts",
                                    text);
        return EINVAL;
    default:
        return number_parse(key, text, options);
    }
    return 0;
}

/* --- prompts --------------------------------------------------------------------------------- */
struct work {
    const struct options *options;
    struct meed_chat_session session;
    struct meed_arena arena; /* prompts and replies */
    struct meed_prompt *prompts;
    int32_t count;
    int32_t capacity;
    struct meed_reply *replies;
    struct meed_progress progress;
    int64_t tokens; /* made so far */
};

static enum meed_status bad_line(const struct meed_jsonl_reader *reader, const char *what)
{
    return MEED_FAIL(MEED_FORMAT, "%s:%" PRId64 ": %s", reader->name, reader->line_number, what);
}

static enum meed_status read_role(const struct meed_jsonl_reader *reader, const char *role,
                                  enum meed_role *value)
{
    static const char *const names[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        if (strcmp(role, names[i]) == 0) {
            *value = (enum meed_role)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_FORMAT,
                     "%s:%" PRId64 ": the role is system, user or assistant, not \"%.32s\"",
                     reader->name, reader->line_number, role);
}

static enum meed_status encode_messages(struct work *work, const struct meed_jsonl_reader *reader,
                                        const json_t *list, struct meed_prompt *prompt)
{
    size_t count = json_array_size(list);
    if (count < 1 || count > MAX_MESSAGES) {
        return bad_line(reader, "\"messages\" is no list of 1 to 4096 messages");
    }
    if (!work->session.chat) {
        return MEED_FAIL(
            MEED_NOT_FOUND,
            "%s has no chat template for \"messages\"; use a chat model, or lines with "
            "\"prompt\"",
            work->options->session.model);
    }
    void *block;
    MEED_TRY(meed_arena_alloc_array(&work->arena, count, sizeof(struct meed_message), &block));
    struct meed_message *messages = block;
    for (size_t i = 0; i < count; i++) {
        const char *text = NULL;
        size_t size = 0;
        const json_t *message = json_array_get(list, i);
        MEED_TRY(meed_jsonl_reader_text(reader, message, "role", &text, &size));
        MEED_TRY(read_role(reader, text, &messages[i].role));
        MEED_TRY(meed_jsonl_reader_text(reader, message, "content", &messages[i].content, &size));
        if (strlen(messages[i].content) != size) {
            return bad_line(reader, "a message holds a NUL character");
        }
    }
    struct meed_sequence sequence = {NULL, NULL, 0};
    const struct meed_dialogue dialogue = {messages, (int32_t)count};
    MEED_TRY(meed_chat_encode(work->session.chat, &dialogue, true, 0, &work->arena, &sequence));
    *prompt = (struct meed_prompt){sequence.ids, sequence.length, 0};
    return MEED_OK;
}

static enum meed_status encode_text(struct work *work, const char *text, size_t size,
                                    struct meed_prompt *prompt)
{
    struct meed_buf ids;
    meed_buf_init(&ids, (size_t)4 * MEED_TOKENIZER_MAX_TEXT_BYTES);
    enum meed_status st;
    void *block;
    MEED_TRY_OUT(meed_tokenizer_encode(work->session.tokenizer, text, size, true, &ids));
    MEED_TRY_OUT(meed_arena_alloc(&work->arena, ids.size, &block));
    if (ids.size > 0) {
        memcpy(block, ids.data, ids.size);
    }
    *prompt = (struct meed_prompt){block, (int32_t)(ids.size / sizeof(int32_t)), 0};
out:
    meed_buf_clear(&ids);
    return st;
}

/* Room for one more prompt. */
static enum meed_status grow(struct work *work)
{
    if (work->count < work->capacity) {
        return MEED_OK;
    }
    if (work->count == MAX_PROMPTS) {
        return MEED_FAIL(MEED_LIMIT, "more than %d prompts in one file; split it", MAX_PROMPTS);
    }
    int32_t capacity = work->capacity > 0 ? 2 * work->capacity : 64;
    void *block;
    MEED_TRY(meed_arena_alloc_array(&work->arena, (size_t)capacity, sizeof *work->prompts, &block));
    if (work->count > 0) {
        memcpy(block, work->prompts, (size_t)work->count * sizeof *work->prompts);
    }
    work->prompts = block;
    work->capacity = capacity;
    return MEED_OK;
}

static enum meed_status read_prompt(struct work *work, const struct meed_jsonl_reader *reader,
                                    const json_t *value)
{
    struct meed_prompt *prompt = &work->prompts[work->count];
    const json_t *messages = json_object_get(value, "messages");
    if (messages) {
        MEED_TRY(encode_messages(work, reader, messages, prompt));
    } else {
        const char *text = NULL;
        size_t size = 0;
        if (!json_object_get(value, "prompt")) {
            return bad_line(reader, "neither \"messages\" nor \"prompt\"");
        }
        MEED_TRY(meed_jsonl_reader_text(reader, value, "prompt", &text, &size));
        MEED_TRY(encode_text(work, text, size, prompt));
    }
    int32_t positions = work->session.checkpoint->config.max_positions;
    if (prompt->length < 1 || prompt->length >= positions) {
        return MEED_FAIL(
            MEED_LIMIT, "%s:%" PRId64 ": %d tokens; the model takes 1 to %d and a reply",
            reader->name, reader->line_number, (int)prompt->length, (int)positions - 1);
    }
    work->count++;
    return MEED_OK;
}

static enum meed_status read_prompts(struct work *work)
{
    struct meed_jsonl_reader reader = {.name = NULL};
    enum meed_status st;
    json_t *value = NULL;
    MEED_TRY_OUT(meed_jsonl_reader_open(work->options->prompts, &reader));
    MEED_TRY_OUT(meed_jsonl_reader_next(&reader, &value));
    while (value) {
        MEED_TRY_OUT(grow(work));
        MEED_TRY_OUT(read_prompt(work, &reader, value));
        MEED_TRY_OUT(meed_jsonl_reader_next(&reader, &value));
    }
out:
    meed_jsonl_reader_close(&reader);
    return st;
}

/* --- replies --------------------------------------------------------------------------------- */
static bool on_token(void *user, int32_t prompt_idx, int32_t token)
{
    struct work *work = user;
    (void)prompt_idx;
    (void)token;
    work->tokens++;
    int64_t total = (int64_t)work->count * work->options->generate.max_new_tokens;
    meed_progress_update(&work->progress, work->tokens, total);
    return !meed_chat_session_interrupted();
}

static enum meed_status print_reply(const struct work *work, int32_t idx, struct meed_buf *out)
{
    const struct meed_reply *reply = &work->replies[idx];
    struct meed_buf text;
    meed_buf_init(&text, SIZE_MAX / 4);
    enum meed_status st;
    MEED_TRY_OUT(meed_tokenizer_decode(work->session.tokenizer, reply->ids, (size_t)reply->length,
                                       false, &text));
    MEED_TRY_OUT(meed_buf_printf(out, "{\"index\": %d, \"reply\": ", (int)idx));
    MEED_TRY_OUT(meed_jsonl_reader_quote(text.data, text.size, out));
    MEED_TRY_OUT(meed_buf_printf(out, ", \"tokens\": %d, \"stopped\": %s}\n", (int)reply->length,
                                 reply->stopped ? "true" : "false"));
out:
    meed_buf_clear(&text);
    return st;
}

static enum meed_status print_replies(const struct work *work)
{
    struct meed_buf out;
    meed_buf_init(&out, SIZE_MAX / 4);
    enum meed_status st = MEED_OK;
    for (int32_t i = 0; st == MEED_OK && i < work->count; i++) {
        st = print_reply(work, i, &out);
    }
    if (st == MEED_OK && work->options->json) {
        st = meed_file_write_atomic(work->options->json, out.data ? out.data : "", out.size);
    } else if (st == MEED_OK && out.size > 0 && fwrite(out.data, 1, out.size, stdout) != out.size) {
        st = MEED_FAIL(MEED_IO, "cannot write to standard output: %s", strerror(errno));
    }
    meed_buf_clear(&out);
    return st;
}

static enum meed_status generate_all(struct work *work)
{
    void *block;
    MEED_TRY(
        meed_arena_alloc_array(&work->arena, (size_t)work->count, sizeof *work->replies, &block));
    work->replies = block;
    struct meed_generate_options generate = work->options->generate;
    generate.max_rows = MEED_CHAT_SESSION_ROWS;
    generate.stop_ids = work->session.stop_ids;
    generate.stop_count = work->session.stop_count;
    bool quiet = work->options->quiet || isatty(STDERR_FILENO) != 1;
    meed_progress_start(&work->progress, "generating", "tokens", quiet);
    int64_t start_ns = meed_clock_monotonic_ns();
    enum meed_status st = meed_generate(work->session.net, work->prompts, work->count, &generate,
                                        &work->arena, work->replies, on_token, work);
    double seconds = meed_clock_seconds_since(start_ns);
    meed_progress_finish(&work->progress);
    if (st == MEED_OK && !work->options->quiet) {
        fprintf(stderr, "%d replies, %" PRId64 " tokens in %.1f s, %.0f tokens/s\n",
                (int)work->count, work->tokens, seconds,
                seconds > 0 ? (double)work->tokens / seconds : 0.0);
    }
    return st;
}

enum meed_status meed_cmd_generate(int argc, char **argv)
{
    struct options options = {.generate = meed_generate_defaults()};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.session.model || !options.prompts) {
        return MEED_FAIL(MEED_ARG, "no %s given; see `meed help generate`",
                         options.session.model ? "--prompts" : "--model");
    }
    struct work work = {.options = &options};
    meed_arena_init_growing(&work.arena, "prompts", (size_t)1 << 34);
    enum meed_status st;
    MEED_TRY_OUT(meed_chat_session_open(&options.session, &work.session));
    MEED_TRY_OUT(read_prompts(&work));
    MEED_TRY_OUT(generate_all(&work));
    MEED_TRY_OUT(print_replies(&work));
out:
    meed_chat_session_close(&work.session);
    meed_arena_clear(&work.arena);
    return st;
}
