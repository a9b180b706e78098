/* See serve_options.h. Flags are rows of one table: name, kind, bounds and where the value goes;
 * the argp vector is made from it. */
#include "cli/serve_options.h"

#include <argp.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "cli/command_line.h"
#include "engine/param.h"
#include "evaluation/payment.h"
#include "server/aggregate.h"

enum kind { TEXT, INT32, INT64, UINT64, REAL, DURATION, SWITCH, WORD, DEVICE, AGGREGATION, RULE };

struct choice {
    const char *word;
    int value;
};
static const struct choice methods[] = {{"exact", MEED_VALUE_EXACT},
                                        {"loo", MEED_VALUE_LEAVE_ONE_OUT},
                                        {"permutation", MEED_VALUE_PERMUTATION},
                                        {"owen", MEED_VALUE_OWEN},
                                        {"banzhaf", MEED_VALUE_BANZHAF},
                                        {"gradient", MEED_VALUE_GRADIENT},
                                        {"auto", MEED_VALUE_AUTO},
                                        {NULL, 0}};
static const struct choice paths[] = {
    {"auto", MEED_PATH_AUTO}, {"stack", MEED_PATH_STACK}, {"merge", MEED_PATH_MERGE}, {NULL, 0}};

struct flag {
    const char *name;
    int letter; /* 0: long only */
    const char *arg;
    const char *help;
    int group;
    enum kind kind;
    size_t offset; /* in struct meed_serve_options */
    double min, max;
    const struct choice *choices;
};

#define AT(member) offsetof(struct meed_serve_options, config.member)
static const struct flag flags[] = {
    {"state", 's', "DIR", "what survives a kill; the same folder goes on", 1, TEXT, AT(state), 0, 0,
     NULL},
    {"model", 'm', "DIR", "base model folder (Hugging Face layout)", 1, TEXT, AT(model), 0, 0,
     NULL},
    {"benchmark", 'b', "FILE", "dialogues that decide about pay; keep them secret", 1, TEXT,
     AT(benchmark), 0, 0, NULL},
    {"listen", 'l', "HOST:PORT", "address to listen on; port 0 picks one (default: 127.0.0.1:0)", 1,
     TEXT, AT(listen), 0, 0, NULL},
    {"roster", 'r', "FILE", "who may take part, with pinned certificates (meed provision)", 1, TEXT,
     AT(roster), 0, 0, NULL},
    {"rounds", 0, "N", "rounds of the run (default: 2)", 2, INT32, AT(rounds), 1, 1e6, NULL},
    {"quorum", 0, "N", "updates that settle a round at its deadline (default: all)", 2, INT32,
     AT(quorum), 0, 8192, NULL},
    {"deadline", 0, "TIME", "of a round, from the first client on (default: 10m)", 2, DURATION,
     AT(deadline_ms), 0, 0, NULL},
    {"budget", 'n', "N", "credits of the whole run (default: 1000000)", 2, INT64, AT(budget), 0,
     9007199254740991.0, NULL},
    {"seed", 0, "N", "of everything that is drawn (default: 1)", 2, UINT64, AT(seed), 0, 9.2e18,
     NULL},
    {"steps", 0, "N", "a client's optimiser steps a round (default: 100)", 3, INT32, AT(plan.steps),
     1, 1e6, NULL},
    {"batch-tokens", 0, "N", "tokens of a micro-batch (default: 1024)", 3, INT32,
     AT(plan.batch_tokens), 1, 16777216, NULL},
    {"sequence-tokens", 0, "N", "longest dialogue (default: 1024)", 3, INT32,
     AT(plan.sequence_tokens), 1, 1048576, NULL},
    {"lr", 0, "X", "learning rate (default: 2e-4)", 3, REAL, AT(plan.lr), 0, 1e3, NULL},
    {"lr-min", 0, "X", "end of the cosine (default: 2e-5)", 3, REAL, AT(plan.lr_min), 0, 1e3, NULL},
    {"warmup", 0, "N", "steps of warm-up (default: 5)", 3, INT32, AT(plan.warmup_steps), 0, 1e6,
     NULL},
    {"rank", 0, "N", "of the adapter (default: 8)", 3, INT32, AT(plan.rank), 1, 1024, NULL},
    {"alpha", 0, "X", "LoRA alpha (default: 16)", 3, REAL, AT(plan.alpha), 1e-6, 1e6, NULL},
    {"aggregation", 0, "WORD", "how updates are merged, as in `meed help up` (default: svd)", 4,
     AGGREGATION, AT(aggregation), 0, 0, NULL},
    {"clip", 0, "X", "cut updates to X times the median norm, 0 never (default: 3)", 4, REAL,
     AT(clip_multiple), 0, 1e6, NULL},
    {"method", 0, "WORD",
     "exact (up to 16 clients), loo, permutation, owen, banzhaf, gradient or auto (default: exact)",
     4, WORD, AT(method), 0, 0, methods},
    {"rule", 0, "WORD",
     "of pay: shrunk, proportional, equal or samples, which believes what clients declare "
     "(default: shrunk)",
     4, RULE, AT(rule), 0, 0, NULL},
    {"reputation", 0, "X", "weight of earlier pay in pay, 0 to 0.95 (default: 0)", 4, REAL,
     AT(reputation), 0, MEED_PAYMENT_MAX_REPUTATION, NULL},
    {"floor", 0, "X", "share of the budget split evenly among the honest (default: 0)", 4, REAL,
     AT(pay_floor), 0, 1, NULL},
    {"path", 0, "WORD", "auto, stack or merge (default: auto)", 4, WORD, AT(path), 0, 0, paths},
    {"guard-z", 0, "X", "standard errors below 0 that exclude (default: 2.576)", 4, REAL,
     AT(guard_z), 0, 100, NULL},
    {"device", 0, "WORD", "of the valuation: cpu, cuda or cuda:N (default: cpu)", 4, DEVICE,
     AT(device), 0, 0, NULL},
    {"threads", 't', "N", "of the valuation (default: all cores)", 4, INT32, AT(threads), 1, 256,
     NULL},
    {"tls-ca", 0, "FILE", "certificate authority of the federation", 5, TEXT, AT(tls_ca), 0, 0,
     NULL},
    {"tls-cert", 0, "FILE", "the aggregator's certificate", 5, TEXT, AT(tls_certificate), 0, 0,
     NULL},
    {"tls-key", 0, "FILE", "its private key", 5, TEXT, AT(tls_key), 0, 0, NULL},
    {"insecure", 0, NULL, "plain text, no identity check: for tests", 5, SWITCH, AT(insecure), 0, 0,
     NULL},
    {"ledger-key", 0, "FILE", "Ed25519 key (default: made in the state folder)", 5, TEXT,
     AT(ledger_key), 0, 0, NULL},
    {"metrics-port", 0, "PORT", "serve /metrics, /healthz and / on loopback (default: off)", 6,
     INT32, AT(metrics_port), 1, 65535, NULL},
    {"address-file", 0, "FILE", "write HOST:PORT here, once clients may dial", 6, TEXT,
     offsetof(struct meed_serve_options, address_file), 0, 0, NULL},
    {"json", 'j', "FILE", "write the report here, after every round", 6, TEXT, AT(report), 0, 0,
     NULL},
    {"linger", 0, "TIME", "answer so long after the end (default: 30s)", 6, DURATION,
     offsetof(struct meed_serve_options, linger_ms), 0, 0, NULL},
    {"quiet", 'q', NULL, "print the final table only", 6, SWITCH,
     offsetof(struct meed_serve_options, quiet), 0, 0, NULL},
};
#undef AT

enum { FLAG_KEY = 256, KEY_CONFIG = 1024, KEY_CLIENTS, KEY_TARGETS };

static const char documentation[] =
    "Run an aggregator. It waits for its clients, values and pays each round, writes the signed "
    "ledger and publishes the next adapter. Stop it or kill it: the same command goes on.\v"
    "Examples:\n"
    "  meed serve --config federation.yaml --state run --listen 0.0.0.0:7443 \\\n"
    "      --roster keys/roster.json --ledger-key keys/ledger.key \\\n"
    "      --tls-ca keys/ca.pem --tls-cert keys/server.pem \\\n"
    "      --tls-key keys/server.key\n"
    "  meed serve --state run --model M --benchmark B.jsonl \\\n"
    "      --clients a,b --insecure";

/* ---- one flag -------------------------------------------------------------------------------- */

static enum meed_status set_word(const char *label, const struct choice *choices, const char *text,
                                 int *value)
{
    for (; choices->word; choices++) {
        if (strcmp(text, choices->word) == 0) {
            *value = choices->value;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "%s does not know \"%.32s\"; see `meed help serve`", label, text);
}

static enum meed_status set_number(const struct flag *flag, const char *label, const char *text,
                                   void *place)
{
    int64_t value = 0;
    if (flag->kind == REAL) {
        return meed_parse_f64(label, text, flag->min, flag->max, place);
    }
    MEED_TRY(meed_parse_i64(label, text, (int64_t)flag->min, (int64_t)flag->max, &value));
    if (flag->kind == INT32) {
        *(int32_t *)place = (int32_t)value;
    } else if (flag->kind == UINT64) {
        *(uint64_t *)place = (uint64_t)value;
    } else {
        *(int64_t *)place = value;
    }
    return MEED_OK;
}

static enum meed_status set_flag(const struct flag *flag, const char *text,
                                 struct meed_serve_options *options)
{
    char label[64];
    void *place = (char *)options + flag->offset;
    snprintf(label, sizeof label, "--%s", flag->name);
    switch (flag->kind) {
    case TEXT:
        *(const char **)place = text;
        return MEED_OK;
    case DEVICE:
        *(const char **)place = text;
        return meed_backend_check_device(text);
    case AGGREGATION:
        return meed_aggregate_parse(text, place);
    case RULE:
        return meed_payment_rule_parse(text, place);
    case SWITCH:
        *(bool *)place = true;
        return MEED_OK;
    case DURATION:
        return meed_parse_duration_ms(label, text, place);
    case WORD:
        return set_word(label, flag->choices, text, place); /* enums are ints here */
    default:
        return set_number(flag, label, text, place);
    }
}

/* ---- the whole line -------------------------------------------------------------------------- */

struct parse {
    struct meed_serve_options *options;
    bool config_pass; /* first pass: --config alone */
    enum meed_status status;
};

static enum meed_status load_config(const char *path, struct meed_serve_options *options)
{
    MEED_TRY(meed_federation_file_load(path, &options->file));
    meed_federation_file_config(&options->file, &options->config);
    options->config.listen = options->file.listen;
    for (int32_t i = 0; i < options->file.client_count; i++) {
        options->file_ids[i] = options->file.clients[i].id;
    }
    options->config.clients = options->file_ids;
    options->config.client_count = options->file.client_count;
    return MEED_OK;
}

static enum meed_status take(int key, const char *text, struct meed_serve_options *options)
{
    if (key == KEY_CLIENTS) {
        meed_client_list_clear(&options->clients);
        MEED_TRY(meed_client_list_parse(text, &options->clients));
        options->config.clients = options->clients.ids;
        options->config.client_count = options->clients.count;
        return MEED_OK;
    }
    if (key == KEY_TARGETS) {
        return meed_proj_set_parse(text, &options->config.plan.target_modules);
    }
    if (key == ARGP_KEY_ARG) {
        return MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help serve`", text);
    }
    for (size_t i = 0; i < MEED_COUNT(flags); i++) {
        if (key == (flags[i].letter ? flags[i].letter : FLAG_KEY + (int)i)) {
            return set_flag(&flags[i], text, options);
        }
    }
    return MEED_UNSUPPORTED;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct parse *parse = state->input;
    /* argp's own events stand above every key of ours */
    bool own =
        (key >= FLAG_KEY && key < ARGP_KEY_END) || key == ARGP_KEY_ARG || (key > 32 && key < 127);
    if (!own || (key == ARGP_KEY_ARG && parse->config_pass)) {
        return own ? 0 : ARGP_ERR_UNKNOWN;
    }
    if ((key == KEY_CONFIG) != parse->config_pass) {
        return 0;
    }
    parse->status =
        key == KEY_CONFIG ? load_config(text, parse->options) : take(key, text, parse->options);
    return parse->status == MEED_OK ? 0 : EINVAL;
}

static void make_rows(struct argp_option *rows)
{
    size_t at = 0;
    rows[at++] = (struct argp_option){
        "config", KEY_CONFIG, "FILE", 0, "federation file; flags override it", 1};
    for (size_t i = 0; i < MEED_COUNT(flags); i++) {
        rows[at++] = (struct argp_option){
            flags[i].name, flags[i].letter ? flags[i].letter : FLAG_KEY + (int)i,
            flags[i].arg,  0,
            flags[i].help, flags[i].group};
    }
    rows[at++] = (struct argp_option){
        "clients", KEY_CLIENTS, "ID[,ID]", 0, "who may take part, without pinned certificates", 1};
    rows[at++] = (struct argp_option){
        "targets", KEY_TARGETS, "LIST", 0, "adapted projections, all, attention or mlp", 3};
    rows[at] = (struct argp_option){0};
}

enum meed_status meed_serve_options_parse(int argc, char **argv, struct meed_serve_options *options)
{
    struct argp_option rows[MEED_COUNT(flags) + 4];
    make_rows(rows);
    *options =
        (struct meed_serve_options){.config = meed_aggregator_defaults(), .linger_ms = 30000};
    struct argp argp = {rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    for (int pass = 0; pass < 2; pass++) {
        struct parse parse = {options, pass == 0, MEED_OK};
        MEED_TRY(meed_command_line_parse(&argp, argc, argv, &parse, &parse.status));
    }
    if (!options->config.state || !options->config.model || !options->config.benchmark) {
        return MEED_FAIL(MEED_ARG, "--state, --model and --benchmark are needed (or --config); see "
                                   "`meed help serve`");
    }
    return MEED_OK;
}

void meed_serve_options_clear(struct meed_serve_options *options)
{
    meed_client_list_clear(&options->clients);
}
