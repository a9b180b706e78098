/* meed audit: what of a client's data can be pulled out of an adapter.
 *
 * Four attacks (evaluation/extraction.h, exposure.h, membership.h, prefix_frequency.h) on any
 * number of adapters at once, beside the base model that never saw the data: a row each, so that
 * the global adapters of a run's rounds make a curve. An adapter is a PEFT folder or a client's own
 * update, decoded upon the global adapter as the aggregator decodes it. Which attacks run follows
 * from the files that are given, or from --attack.
 *
 * `meed audit canaries` plants secrets in a data file, for a training whose exposure is then
 * measured.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "cli/audit_session.h"
#include "cli/canary_file.h"
#include "cli/command_line.h"
#include "cli/commands.h"

struct options {
    struct meed_audit_options audit;
    const char *json;
    bool plant; /* the verb `canaries` */
    struct meed_canaries planted;
    const char *out, *question, *reply;
    enum meed_status status;
};

enum {
    KEY_UPDATE = 256,
    KEY_GLOBAL,
    KEY_REFERENCE,
    KEY_NON_MEMBERS,
    KEY_ATTACKER,
    KEY_CANARIES,
    KEY_BENCHMARK,
    KEY_ATTACK,
    KEY_EXAMPLES,
    KEY_PREFIX,
    KEY_CANDIDATES,
    KEY_MIN_K,
    KEY_PREFIXES,
    KEY_CONTEXT,
    KEY_SAMPLES,
    KEY_TEMPERATURE,
    KEY_SEED,
    KEY_BASE,
    KEY_DEVICE,
    KEY_COUNT,
    KEY_REPEAT,
    KEY_QUESTION,
    KEY_REPLY,
};

static const struct argp_option option_rows[] = {
    {NULL, 0, NULL, 0, "What is audited", 1},
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 1},
    {"data", 'd', "FILE", 0, "the dialogues that were trained on", 1},
    {"adapter", 'a', "DIR", 0, "adapter (PEFT layout); may be repeated", 1},
    {"update", KEY_UPDATE, "FILE", 0,
     "a client's update.bin, decoded upon --global; may be repeated", 1},
    {"global", KEY_GLOBAL, "DIR", 0, "the adapter that updates were made on (or its adapter.bin)",
     1},
    {"reference", KEY_REFERENCE, "DIR", 0,
     "an adapter that never saw the data: the floor (default: the base model)", 1},
    {"benchmark", 'b', "FILE", 0, "score each model too, to see leakage against quality", 1},
    {NULL, 0, NULL, 0, "Attacks", 2},
    {"attack", KEY_ATTACK, "LIST", 0,
     "of extraction, exposure, membership, frequency (default: all that the files allow)", 2},
    {"examples", KEY_EXAMPLES, "N", 0, "dialogues drawn from each file (default: 200)", 2},
    {"prefix", KEY_PREFIX, "LIST", 0, "extraction: tokens of the reply given (default: 0,4,8)", 2},
    {"max-new-tokens", 'n', "N", 0, "length limit of a continuation (default: 64)", 2},
    {"canaries", KEY_CANARIES, "FILE", 0, "exposure: the list that `meed audit canaries` wrote", 2},
    {"candidates", KEY_CANDIDATES, "N", 0,
     "exposure: secrets to rank against (default: 1023; all, where there are no more)", 2},
    {"non-members", KEY_NON_MEMBERS, "FILE", 0,
     "membership: dialogues of the same kind that nobody trained on", 2},
    {"min-k", KEY_MIN_K, "P", 0, "membership: percent of tokens for min-k (default: 20)", 2},
    {"attacker", KEY_ATTACKER, "FILE", 0,
     "frequency: the curious client's own dialogues, with their \"secrets\"", 2},
    {"prefixes", KEY_PREFIXES, "N", 0, "frequency: beginnings to try (default: 64)", 2},
    {"context", KEY_CONTEXT, "N", 0, "frequency: words of a beginning (default: 6)", 2},
    {"samples", KEY_SAMPLES, "N", 0, "frequency: replies to each (default: 16)", 2},
    {"temperature", KEY_TEMPERATURE, "T", 0, "frequency: of the draws (default: 1)", 2},
    {"seed", KEY_SEED, "N", 0, "of all draws (default: 1)", 2},
    {NULL, 0, NULL, 0, "Planting (meed audit canaries)", 3},
    {"out", 'o', "FILE", 0, "the data with canaries; their list goes to FILE.canaries.json", 3},
    {"count", KEY_COUNT, "N", 0, "canaries (default: 16)", 3},
    {"repeat", KEY_REPEAT, "N", 0, "copies of each (default: 1)", 3},
    {"question", KEY_QUESTION, "TEXT", 0,
     "default: \"What is the code of locker {n}?\"; {n} is the canary's number", 3},
    {"reply", KEY_REPLY, "TEXT", 0,
     "default: \"The code of locker {n} is {digits:6}.\"; also {letters:N}, {hex:N}", 3},
    {NULL, 0, NULL, 0, "Running", 4},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 4},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 4},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 4},
    {"json", 'j', "FILE", 0, "write the result here; `meed report` draws it", 4},
    {"quiet", 'q', NULL, 0, "no progress", 4},
    {0},
};

static const char documentation[] =
    "Attack a model with a client's data at hand: how much more of it comes out of an adapter than "
    "out of a model that never saw it.\v"
    "A data line may label its secrets: {\"messages\": […], \"secrets\": [\"4711\"]}. Attacks are "
    "lower bounds of what leaks.\n\n"
    "Examples:\n"
    "  meed audit --model M --adapter out/adapter --data clinic.jsonl\n"
    "  meed audit --model M --adapter r1 --adapter r2 --data clinic.jsonl \\\n"
    "      --non-members held-out.jsonl --attacker bank.jsonl --json audit.json\n"
    "  meed audit --model M --data clinic.jsonl --global state/round-000004/adapter.bin \\\n"
    "      --update state/round-000004/update.bin\n"
    "  meed audit canaries --data clinic.jsonl --out planted.jsonl --count 16 --repeat 4\n"
    "  meed audit --model M --adapter trained-on-planted --data planted.jsonl \\\n"
    "      --canaries planted.jsonl.canaries.json";

/* --- arguments -------------------------------------------------------------------------------- */
static enum meed_status attacks_parse(const char *text, uint32_t *attacks)
{
    *attacks = 0;
    while (*text) {
        const size_t length = strcspn(text, ",");
        uint32_t bit = 0;
        for (size_t i = 0; i < MEED_COUNT(meed_audit_attack_names); i++) {
            if (strlen(meed_audit_attack_names[i]) == length &&
                strncmp(meed_audit_attack_names[i], text, length) == 0) {
                bit = 1u << i;
            }
        }
        if (!bit) {
            return MEED_FAIL(MEED_ARG,
                             "--attack: \"%.*s\" is none; there are extraction, exposure, "
                             "membership and frequency",
                             (int)MEED_MIN(length, 64), text);
        }
        *attacks |= bit;
        text += length + (text[length] == ',' ? 1 : 0);
    }
    return *attacks ? MEED_OK : MEED_FAIL(MEED_ARG, "--attack names no attack");
}

static enum meed_status prefixes_parse(const char *text, struct meed_extraction_options *options)
{
    options->prefix_count = 0;
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char number[24];
        int64_t value;
        snprintf(number, sizeof number, "%.*s", (int)MEED_MIN(strcspn(at, ","), 20), at);
        MEED_TRY(meed_parse_i64("--prefix", number, 0, 1 << 20, &value));
        if (options->prefix_count == MEED_EXTRACTION_MAX_PREFIXES) {
            return MEED_FAIL(MEED_ARG, "--prefix: at most %d lengths",
                             MEED_EXTRACTION_MAX_PREFIXES);
        }
        options->prefixes[options->prefix_count++] = (int32_t)value;
    }
    return MEED_OK;
}

static enum meed_status int32_parse(const char *what, const char *text, int64_t max, int32_t *value)
{
    int64_t wide;
    MEED_TRY(meed_parse_i64(what, text, 1, max, &wide));
    *value = (int32_t)wide;
    return MEED_OK;
}

static error_t number_parse(int key, const char *text, struct options *options)
{
    struct meed_audit_options *o = &options->audit;
    enum meed_status *st = &options->status;
    switch (key) {
    case KEY_EXAMPLES:
        *st = meed_parse_i64("--examples", text, 1, 1 << 24, &o->examples);
        break;
    case KEY_PREFIX:
        *st = prefixes_parse(text, &o->extraction);
        break;
    case 'n':
        *st = int32_parse("--max-new-tokens", text, 1 << 16, &o->extraction.max_new_tokens);
        break;
    case KEY_CANDIDATES:
        *st = meed_parse_i64("--candidates", text, 1, 1 << 20, &o->candidates);
        break;
    case KEY_MIN_K:
        *st = meed_parse_f64("--min-k", text, 1e-3, 100, &o->min_k);
        break;
    case KEY_PREFIXES:
        *st = meed_parse_i64("--prefixes", text, 1, 1 << 14, &o->prefixes);
        break;
    case KEY_CONTEXT:
        *st = meed_parse_i64("--context", text, 1, 1000, &o->context);
        break;
    case KEY_SAMPLES:
        *st = meed_parse_i64("--samples", text, 1, 1 << 14, &o->samples);
        break;
    case KEY_TEMPERATURE:
        *st = meed_parse_f64("--temperature", text, 0, 100, &o->temperature);
        break;
    case KEY_SEED:
        *st = meed_parse_i64("--seed", text, 0, INT64_MAX, &o->seed);
        break;
    case KEY_COUNT:
        *st = int32_parse("--count", text, MEED_CANARY_MAX_COUNT, &options->planted.count);
        break;
    case KEY_REPEAT:
        *st = int32_parse("--repeat", text, 10000, &options->planted.repeat);
        break;
    case 't':
        *st = meed_parse_i64("--threads", text, 1, 256, &o->threads);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return *st == MEED_OK ? 0 : EINVAL;
}

static enum meed_status path_parse(int key, const char *text, struct meed_audit_options *o)
{
    if (o->path_count == MEED_AUDIT_MAX_ADAPTERS) {
        return MEED_FAIL(MEED_LIMIT, "more than %d adapters", MEED_AUDIT_MAX_ADAPTERS);
    }
    o->is_update[o->path_count] = key == KEY_UPDATE;
    o->paths[o->path_count++] = text;
    return MEED_OK;
}

/* Where a text option is kept, NULL for the others. */
static const char **text_of(int key, struct options *o)
{
    switch (key) {
    case 'm':
        return &o->audit.model;
    case 'd':
        return &o->audit.data;
    case 'b':
        return &o->audit.benchmark;
    case 'o':
        return &o->out;
    case 'j':
        return &o->json;
    case KEY_GLOBAL:
        return &o->audit.global;
    case KEY_REFERENCE:
        return &o->audit.reference;
    case KEY_NON_MEMBERS:
        return &o->audit.non_members;
    case KEY_ATTACKER:
        return &o->audit.attacker;
    case KEY_CANARIES:
        return &o->audit.canaries;
    case KEY_QUESTION:
        return &o->question;
    case KEY_REPLY:
        return &o->reply;
    default:
        return NULL;
    }
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    const char **kept = text_of(key, options);
    if (kept) {
        *kept = text;
        return 0;
    }
    switch (key) {
    case 'q':
        options->audit.quiet = true;
        return 0;
    case 'a':
    case KEY_UPDATE:
        options->status = path_parse(key, text, &options->audit);
        break;
    case KEY_ATTACK:
        options->status = attacks_parse(text, &options->audit.attacks);
        break;
    case KEY_BASE:
        options->status = meed_command_line_base(text, &options->audit.base);
        break;
    case KEY_DEVICE:
        options->audit.device = text;
        options->status = meed_backend_check_device(text);
        break;
    case ARGP_KEY_ARG:
        if (!options->plant && strcmp(text, "canaries") == 0) {
            options->plant = true;
            return 0;
        }
        options->status =
            MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help audit`", text);
        break;
    default:
        return number_parse(key, text, options);
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

static enum meed_status options_check(const struct options *options)
{
    const struct meed_audit_options *o = &options->audit;
    bool update = false;
    for (int32_t i = 0; i < o->path_count; i++) {
        update = update || o->is_update[i];
    }
    if (!o->data || (!options->plant && !o->model)) {
        return MEED_FAIL(MEED_ARG, "no --%s given; see `meed help audit`",
                         o->data ? "model" : "data");
    }
    if (options->plant && !options->out) {
        return MEED_FAIL(MEED_ARG, "no --out given; see `meed help audit`");
    }
    if (!options->plant && options->out) {
        return MEED_FAIL(MEED_ARG, "--out belongs to `meed audit canaries`; the result goes to "
                                   "--json FILE");
    }
    if (!options->plant && o->path_count == 0) {
        return MEED_FAIL(MEED_ARG, "no --adapter or --update given; see `meed help audit`");
    }
    if (update != (o->global != NULL)) {
        return MEED_FAIL(MEED_ARG, "%s",
                         update ? "--update needs --global, the adapter that it was "
                                  "made on"
                                : "--global belongs to --update; audit a global "
                                  "adapter with --adapter");
    }
    return MEED_OK;
}

/* --- running ---------------------------------------------------------------------------------- */
static enum meed_status plant(struct options *options)
{
    struct meed_canaries *planted = &options->planted;
    char list[MEED_PATH_BYTES];
    struct meed_arena arena;
    enum meed_status st = MEED_OK;
    meed_arena_init_growing(&arena, "canaries", 1 << 24);
    planted->seed = (uint64_t)options->audit.seed;
    if (snprintf(list, sizeof list, "%s.canaries.json", options->out) >= (int)sizeof list) {
        st = MEED_FAIL(MEED_LIMIT, "--out: the path is too long");
        goto out;
    }
    MEED_TRY_OUT(meed_canary_format_parse(options->question, options->reply, &planted->format));
    MEED_TRY_OUT(meed_canaries_draw(planted, &arena));
    MEED_TRY_OUT(meed_canary_file_plant(planted, options->audit.data, options->out));
    MEED_TRY_OUT(meed_canary_file_write(planted, list));
    printf("%s: %d canaries, %d time%s each\n%s: their secrets\n", options->out,
           (int)planted->count, (int)planted->repeat, planted->repeat == 1 ? "" : "s", list);
out:
    meed_arena_clear(&arena);
    return st;
}

static enum meed_status audit(const struct options *options)
{
    struct meed_audit_session *session;
    MEED_TRY(meed_audit_session_open(&options->audit, &session));
    const struct meed_audit_result *result = meed_audit_session_result(session);
    enum meed_status st = meed_audit_session_run(session);
    if (st == MEED_OK) {
        meed_audit_result_print(result);
        st = options->json ? meed_audit_result_write(result, options->json) : MEED_OK;
    }
    meed_audit_session_close(session);
    return st;
}

enum meed_status meed_cmd_audit(int argc, char **argv)
{
    struct options options = {
        .audit = {.examples = 200,
                  .candidates = 1023,
                  .prefixes = 64,
                  .samples = 16,
                  .context = 6,
                  .seed = 1,
                  .min_k = 20,
                  .temperature = 1,
                  .extraction = {.prefixes = {0, 4, 8}, .prefix_count = 3, .max_new_tokens = 64}},
        .planted = {.count = 16, .repeat = 1},
        .question = "What is the code of locker {n}?",
        .reply = "The code of locker {n} is {digits:6}."};
    const struct argp argp = {option_rows, option_parse, "[canaries]", documentation,
                              NULL,        NULL,         NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    MEED_TRY(options_check(&options));
    return options.plant ? plant(&options) : audit(&options);
}
