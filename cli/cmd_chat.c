/* meed chat: a conversation with a model and an adapter, one line a turn.
 *
 * On a terminal the reply streams in as it is made; in a pipe it is the same protocol without the
 * prompt signs: a line of input, a reply and a newline of output (empty lines are skipped), so a
 * script can talk too. /reset forgets the conversation, /quit ends it, Ctrl-C stops a reply (at the
 * prompt: ends it). The whole conversation is encoded for every turn, but the generator holds what
 * was fed before: only what is new goes through the model, or what a template has rewritten. When
 * the conversation no longer fits the model's positions the oldest turns are dropped and a line on
 * stderr says so.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/parse.h"
#include "cli/chat_session.h"
#include "cli/command_line.h"
#include "cli/commands.h"

enum { MAX_MESSAGES = 4096, HISTORY_BYTES = 1 << 28, REPLY_SHARE = 4 };

struct options {
    struct meed_chat_session_options session;
    struct meed_generate_options generate;
    const char *system;
    enum meed_status status; /* of parsing */
};

enum { KEY_DEVICE = 256, KEY_BASE };

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "model folder (Hugging Face layout)", 0},
    {"adapter", 'a', "DIR", 0, "LoRA adapter folder (PEFT layout)", 0},
    {"system", 's', "TEXT", 0, "system message (default: the model's own, if it has one)", 0},
    {"max-new-tokens", 'n', "N", 0, "length limit of a reply (default: 256)", 0},
    {"temperature", 't', "T", 0, "0 takes the best token (default), 1 draws as the model says", 0},
    {"top-p", 'P', "P", 0, "draw from the likeliest tokens that make up this share (default: 1)",
     0},
    {"seed", 'S', "N", 0, "of the draws (default: 1)", 0},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 0},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 0},
    {"threads", 'T', "N", 0, "worker threads (default: all cores)", 0},
    {0},
};

static const char documentation[] =
    "Talk to a model, one line a turn. /reset forgets the conversation, /quit or end of input ends "
    "it, Ctrl-C stops a reply.\v"
    "Examples:\n"
    "  meed chat --model examples/tiny/model\n"
    "  meed chat --model examples/tiny/model --adapter out/demo/adapter \\\n"
    "      --system 'Be brief.'\n"
    "  meed chat --model M --base nf4\n"
    "  printf 'Hello\\nWhat do you know?\\n' |\n"
    "      meed chat --model M --temperature 0.7 --seed 3";

static error_t number_parse(int key, const char *text, struct options *options)
{
    int64_t integer = 0;
    double number = 0;
    switch (key) {
    case 'n':
        options->status = meed_parse_i64("--max-new-tokens", text, 1, 1 << 24, &integer);
        options->generate.max_new_tokens = (int32_t)integer;
        break;
    case 't':
        options->status = meed_parse_f64("--temperature", text, 0, 100, &number);
        options->generate.temperature = (float)number;
        break;
    case 'P':
        options->status = meed_parse_f64("--top-p", text, 0, 1, &number);
        options->generate.top_p = (float)number;
        break;
    case 'S':
        options->status = meed_parse_i64("--seed", text, 0, INT64_MAX, &integer);
        options->generate.seed = (uint64_t)integer;
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
    case 's':
        options->system = text;
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
                                    "\"%.64s\" is no option; messages come on standard "
                                    "input",
                                    text);
        return EINVAL;
    default:
        return number_parse(key, text, options);
    }
    return 0;
}

/* --- the conversation ------------------------------------------------------------------------ */
struct talk {
    const struct options *options;
    struct meed_chat_session session;
    struct meed_generator *generator; /* keeps the conversation's keys and values */
    bool terminal;
    struct meed_arena history; /* contents of messages */
    struct meed_message messages[MAX_MESSAGES];
    int32_t count;
    uint64_t turn; /* replies so far: each draws from a seed of its own */
};

static enum meed_status say(struct talk *talk, enum meed_role role, const char *content,
                            size_t size)
{
    char *copy = NULL;
    if (talk->count == MAX_MESSAGES) {
        return MEED_FAIL(MEED_LIMIT, "more than %d messages; start anew with /reset", MAX_MESSAGES);
    }
    MEED_TRY(meed_arena_strdup(&talk->history, content, size, &copy));
    talk->messages[talk->count++] = (struct meed_message){role, copy};
    return MEED_OK;
}

static enum meed_status reset(struct talk *talk)
{
    const char *system = talk->options->system;
    meed_arena_clear(&talk->history);
    meed_arena_init_growing(&talk->history, "conversation", HISTORY_BYTES);
    talk->count = 0;
    return system ? say(talk, MEED_ROLE_SYSTEM, system, strlen(system)) : MEED_OK;
}

/* Drops the oldest question and its reply, behind a system message; false if only the last
 * question is left. */
static bool drop_oldest(struct talk *talk)
{
    int32_t first = talk->messages[0].role == MEED_ROLE_SYSTEM ? 1 : 0;
    if (talk->count - first < 3) {
        return false;
    }
    memmove(&talk->messages[first], &talk->messages[first + 2],
            (size_t)(talk->count - first - 2) * sizeof talk->messages[0]);
    talk->count -= 2;
    return true;
}

/* The conversation as a prompt that leaves room for a reply. */
static enum meed_status make_prompt(struct talk *talk, struct meed_arena *arena,
                                    struct meed_prompt *prompt)
{
    int32_t positions = talk->session.checkpoint->config.max_positions;
    int32_t room = MEED_MIN(talk->options->generate.max_new_tokens, positions / REPLY_SHARE);
    bool dropped = false;
    for (;;) {
        const struct meed_dialogue dialogue = {talk->messages, talk->count};
        struct meed_sequence sequence = {NULL, NULL, 0};
        MEED_TRY(meed_chat_encode(talk->session.chat, &dialogue, true, 0, arena, &sequence));
        *prompt = (struct meed_prompt){sequence.ids, sequence.length, 0};
        if (sequence.length + room <= positions || !drop_oldest(talk)) {
            break;
        }
        dropped = true;
    }
    if (prompt->length >= positions) {
        return MEED_FAIL(
            MEED_LIMIT,
            "the message makes %d tokens of prompt and the model has %d positions; say "
            "it shorter",
            (int)prompt->length, (int)positions);
    }
    if (dropped) {
        fprintf(stderr, "(the oldest turns no longer fit and were dropped)\n");
    }
    return MEED_OK;
}

struct speech {
    struct meed_chat_session_stream stream;
    enum meed_status status;
};

static bool on_token(void *user, int32_t prompt_idx, int32_t token)
{
    struct speech *speech = user;
    (void)prompt_idx;
    speech->status = meed_chat_session_stream_add(&speech->stream, token);
    return speech->status == MEED_OK && !meed_chat_session_interrupted();
}

/* A reply that was stopped by Ctrl-C stays in the conversation as far as it came. */
static enum meed_status speak(struct talk *talk, const struct meed_prompt *prompt,
                              struct meed_arena *arena, struct speech *speech)
{
    struct meed_generate_options generate = talk->options->generate;
    const struct meed_generate_hooks hooks = {.on_token = on_token, .user = speech};
    struct meed_reply reply;
    generate.seed += talk->turn++;
    generate.stop_ids = talk->session.stop_ids;
    generate.stop_count = talk->session.stop_count;
    enum meed_status st =
        meed_generator_run(talk->generator, prompt, 1, &generate, &hooks, arena, &reply);
    if (st == MEED_CANCELLED) {
        st = speech->status;
    }
    MEED_TRY(st);
    MEED_TRY(meed_chat_session_stream_end(&speech->stream));
    putchar('\n');
    fflush(stdout);
    const struct meed_buf *text = &speech->stream.reply;
    size_t size = text->size > 0 ? strlen(text->data) : 0; /* a NUL ends what can be said again */
    return say(talk, MEED_ROLE_ASSISTANT, size > 0 ? text->data : "", size);
}

static enum meed_status answer(struct talk *talk, const char *line, size_t size)
{
    struct meed_arena arena;
    struct meed_prompt prompt = {.ids = NULL};
    struct speech speech = {.status = MEED_OK};
    meed_arena_init_growing(&arena, "turn", (size_t)4 * HISTORY_BYTES);
    meed_chat_session_stream_start(&speech.stream, talk->session.tokenizer);
    enum meed_status st;
    MEED_TRY_OUT(say(talk, MEED_ROLE_USER, line, size));
    st = make_prompt(talk, &arena, &prompt);
    if (st == MEED_OK) {
        st = speak(talk, &prompt, &arena, &speech);
    }
    if (st == MEED_LIMIT && talk->terminal) { /* one message too long: say so and go on */
        fprintf(stderr, "%s: %s\n", meed_status_sentence(st), meed_last_error());
        talk->count--;
        st = MEED_OK;
    }
out:
    meed_chat_session_stream_clear(&speech.stream);
    meed_arena_clear(&arena);
    return st;
}

/* Runs until /quit, end of input or an interrupt at the prompt. */
static enum meed_status converse(struct talk *talk)
{
    char *line = NULL;
    size_t capacity = 0;
    enum meed_status st = MEED_OK;
    while (st == MEED_OK) {
        if (talk->terminal) {
            fputs("> ", stderr);
        }
        ssize_t got = getline(&line, &capacity, stdin);
        if (got < 0) {
            if (talk->terminal) {
                fputc('\n', stderr);
            }
            break;
        }
        size_t size = strcspn(line, "\r\n");
        line[size] = '\0';
        if (strcmp(line, "/quit") == 0) {
            break;
        }
        if (strcmp(line, "/reset") == 0) {
            st = reset(talk);
        } else if (size > 0) {
            st = answer(talk, line, size);
        }
    }
    free(line);
    return st;
}

static enum meed_status run(struct talk *talk)
{
    struct meed_generate_options generate = talk->options->generate;
    generate.slots = 1;
    generate.max_rows = MEED_CHAT_SESSION_ROWS;
    MEED_TRY(meed_chat_session_open(&talk->options->session, &talk->session));
    MEED_TRY(meed_generator_create(talk->session.net, &generate, &talk->generator));
    MEED_TRY(reset(talk));
    talk->terminal = isatty(STDIN_FILENO) == 1;
    if (talk->terminal) {
        fprintf(stderr, "%s%s%s, format %s. /reset forgets, /quit ends, Ctrl-C stops a reply.\n",
                talk->options->session.model, talk->options->session.adapter ? " + " : "",
                talk->options->session.adapter ? talk->options->session.adapter : "",
                meed_chat_template_name(talk->session.chat));
    }
    return converse(talk);
}

enum meed_status meed_cmd_chat(int argc, char **argv)
{
    struct options options = {.generate = meed_generate_defaults()};
    options.session.template_wanted = true;
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.session.model) {
        return MEED_FAIL(MEED_ARG, "no --model given; see `meed help chat`");
    }
    struct talk *talk = meed_heap_alloc(1, sizeof *talk);
    if (!talk) {
        return MEED_NOMEM;
    }
    talk->options = &options;
    enum meed_status st = run(talk);
    meed_generator_destroy(talk->generator);
    meed_chat_session_close(&talk->session);
    meed_arena_clear(&talk->history);
    meed_heap_free(talk);
    return st;
}
