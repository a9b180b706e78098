/* meed ledger: show or verify the signed ledger of a run.
 *
 * `verify` needs the file and the public key and nothing else: it recomputes every hash, signature,
 * link and sum, and names the first entry that is broken; whether what was signed is true says
 * `meed verify`. `show` prints what the entries say, after
 * verifying them. The key is looked for beside the ledger unless --key names it; an auditor should
 * name the one that was handed over, not the one that lies next to the file. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <jansson.h>
#include "base/file.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/ledger_key.h"
#include "cli/verdict_text.h"
#include "server/ledger.h"

struct options {
    const char *verb, *path, *key;
    bool json;
    enum meed_status status;
};

static const struct argp_option option_rows[] = {
    {"key", 'k', "FILE", 0, "public key in hex (default: ledger.pub beside the ledger)", 0},
    {"json", 'j', NULL, 0, "write JSON to stdout", 0},
    {0},
};

static const char documentation[] =
    "Show or verify the signed ledger in DIR, the aggregator's state folder (or the file "
    "itself).\v"
    "Examples:\n"
    "  meed ledger show out/demo\n"
    "  meed ledger verify run/ledger.jsonl --key keys/ledger.pub";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'k':
        options->key = text;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (!options->verb) {
            options->verb = text;
        } else if (!options->path) {
            options->path = text;
        } else {
            options->status = MEED_FAIL(MEED_ARG, "one ledger, not also \"%.64s\"", text);
            return EINVAL;
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

struct reader {
    bool show, json;
    int64_t count;
    json_t *entries;
    char head[MEED_SHA256_HEX_BYTES];
};

static const char *kept_words(const struct meed_ledger_round *entry)
{
    return entry->retained == entry->budget ? " (kept: nobody could be paid)"
                                            : " (kept but for the floor: nobody was worth more)";
}

static void print_round(const char *body, size_t size)
{
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    static const char *const words[] = {"?", "paid", "unpaid", "excluded", "absent"};
    char why[MEED_VERDICT_TEXT_BYTES];
    if (meed_ledger_parse_round(body, size, &arena, &entry) == MEED_OK) {
        printf("round %d: budget %lld%s, utility %.4f to %.4f\n", entry.round,
               (long long)entry.budget, entry.retained ? kept_words(&entry) : "", entry.value_empty,
               entry.value_kept);
        for (int32_t i = 0; i < entry.client_count; i++) {
            const struct meed_ledger_client *line = &entry.clients[i];
            meed_verdict_text(line->reason, line->remark, why);
            printf("  %-20s %-9s phi %+.5f ± %.5f %16lld%s%s\n", line->id, words[line->state],
                   line->phi, line->se, (long long)line->share, why[0] ? "  " : "", why);
            if (line->privacy[0]) {
                printf("    %s\n", line->privacy);
            }
        }
    }
    meed_arena_clear(&arena);
}

/* Genesis, abandoned and final: their few facts, as they stand. */
static void print_other(const struct meed_ledger_place *place, const char *body, size_t size)
{
    static const char *const kinds[] = {"genesis", "round", "abandoned", "final"};
    json_t *object = json_loadb(body, size, 0, NULL);
    printf("%s:", kinds[place->kind]);
    if (place->round > 0) {
        printf(" round %d:", place->round);
    }
    const char *text = json_string_value(json_object_get(object, "reason"));
    if (place->kind == MEED_LEDGER_GENESIS) {
        printf(" run %s, %zu clients, %lld rounds, budget %lld, %s, %s, %s",
               json_string_value(json_object_get(object, "run")),
               json_array_size(json_object_get(object, "clients")),
               (long long)json_integer_value(json_object_get(object, "rounds")),
               (long long)json_integer_value(json_object_get(object, "budget")),
               json_string_value(json_object_get(object, "aggregation")),
               json_string_value(json_object_get(object, "estimator")),
               json_string_value(json_object_get(object, "payment")));
    } else if (place->kind == MEED_LEDGER_FINAL) {
        printf(" adapter %.16s…", json_string_value(json_object_get(object, "adapter")));
    } else if (text) {
        printf(" %s", text);
    }
    printf("\n");
    size_t i = 0;
    json_t *total = NULL;
    json_array_foreach(json_object_get(object, "totals"), i, total)
    {
        printf("  %-20s %16lld\n", json_string_value(json_object_get(total, "id")),
               (long long)json_integer_value(json_object_get(total, "share")));
    }
    json_decref(object);
}

static void visit(void *user, const struct meed_ledger_place *place, const char *body, size_t size)
{
    struct reader *reader = user;
    reader->count++;
    meed_sha256_hex(place->hash, reader->head);
    if (reader->json) {
        json_t *entry = json_object();
        json_object_set_new(entry, "hash", json_string(reader->head));
        json_object_set_new(entry, "body", json_loadb(body, size, 0, NULL));
        json_array_append_new(reader->entries, entry);
    } else if (reader->show && place->kind == MEED_LEDGER_ROUND) {
        print_round(body, size);
    } else if (reader->show) {
        print_other(place, body, size);
    }
}

/* DIR or DIR/ledger.jsonl → the file and its folder. */
static enum meed_status find_files(const struct options *options, char ledger[MEED_PATH_BYTES],
                                   char folder[MEED_PATH_BYTES])
{
    struct stat info;
    if (stat(options->path, &info) != 0) {
        return MEED_FAIL(MEED_NOT_FOUND, "no folder or file %s", options->path);
    }
    if (S_ISDIR(info.st_mode)) {
        snprintf(folder, MEED_PATH_BYTES, "%s", options->path);
        return meed_file_join(folder, "ledger.jsonl", ledger, MEED_PATH_BYTES);
    }
    const char *slash = strrchr(options->path, '/');
    int length = slash ? (int)(slash - options->path) : 1;
    snprintf(folder, MEED_PATH_BYTES, "%.*s", length, slash ? options->path : ".");
    snprintf(ledger, MEED_PATH_BYTES, "%s", options->path);
    return MEED_OK;
}

/* A broken entry with the file it stands in and the next step. */
static enum meed_status verify(const char *path, const uint8_t *key, struct reader *reader)
{
    char broken[512];
    enum meed_status st = meed_ledger_verify(path, key, visit, reader);
    if (st != MEED_INTEGRITY && st != MEED_FORMAT) {
        return st;
    }
    snprintf(broken, sizeof broken, "%.500s", meed_last_error());
    return MEED_FAIL(st,
                     "%.512s: %s; compare it with another copy, and the key with the one "
                     "that was handed over",
                     path, broken);
}

static enum meed_status print_json(const struct reader *reader)
{
    json_t *root = json_object();
    json_object_set_new(root, "entries", json_integer(reader->count));
    json_object_set_new(root, "head", json_string(reader->head));
    json_object_set_new(root, "valid", json_true());
    if (reader->show) {
        json_object_set(root, "ledger", reader->entries);
    }
    int failed = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    printf("\n");
    json_decref(root);
    return failed ? MEED_FAIL(MEED_IO, "cannot write to standard output") : MEED_OK;
}

enum meed_status meed_cmd_ledger(int argc, char **argv)
{
    struct options options = {NULL, NULL, NULL, false, MEED_OK};
    struct argp argp = {option_rows, option_parse, "show|verify DIR", documentation, NULL,
                        NULL,        NULL};
    char ledger[MEED_PATH_BYTES], folder[MEED_PATH_BYTES];
    uint8_t key[MEED_SIGNATURE_KEY_BYTES];
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    bool show = options.verb && strcmp(options.verb, "show") == 0;
    if (!options.path || (!show && strcmp(options.verb, "verify") != 0)) {
        return MEED_FAIL(MEED_ARG, "say `meed ledger show DIR` or `meed ledger verify DIR`");
    }
    MEED_TRY(find_files(&options, ledger, folder));
    MEED_TRY(meed_ledger_key_read(options.key, folder, key));
    struct reader reader = {.show = show, .json = options.json, .entries = json_array()};
    enum meed_status st = verify(ledger, key, &reader);
    if (st == MEED_OK && options.json) {
        st = print_json(&reader);
    } else if (st == MEED_OK) {
        printf("%s: %lld entries, hashes, signatures and sums are right\nhead %s\n", ledger,
               (long long)reader.count, reader.head);
    }
    json_decref(reader.entries);
    return st;
}
