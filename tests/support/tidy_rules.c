/* See tidy_rules.h. Text in, reports out; no regular expressions, since a C lexer's four states
 * (code, comment, string, character) are all that is needed. */
#include "tests/support/tidy_rules.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/compat.h"

enum { MAX_FILE_LINES = 800, MAX_COLUMNS = 100, MAX_FUNCTION = 70, MAX_KERNEL_FUNCTION = 100 };

const struct tidy_rule tidy_rules[] = {
    {"includes point down", tidy_check_includes},
    {"third-party headers are confined", tidy_check_third_party},
    {"file and line length", tidy_check_length},
    {"function length", tidy_check_functions},
    {"include guards", tidy_check_guard},
    {"header comments", tidy_check_header_comment},
    {"banned calls and marks", tidy_check_banned},
};
const size_t tidy_rule_count = MEED_COUNT(tidy_rules);

static void report(const struct tidy_sink *sink, const struct tidy_file *file, int line,
                   const char *message)
{
    sink->report(sink->user, file->path, line, message);
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text);
    size_t suffix_length = strlen(suffix);
    return length >= suffix_length && strcmp(text + length - suffix_length, suffix) == 0;
}

/* A pattern is a path, or a path with one '*' that stands for any run without '/'. */
static bool path_matches(const char *path, const char *pattern)
{
    const char *star = strchr(pattern, '*');
    if (!star) {
        size_t length = strlen(pattern);
        return pattern[length - 1] == '/' ? starts_with(path, pattern) : strcmp(path, pattern) == 0;
    }
    size_t head = (size_t)(star - pattern);
    return strncmp(path, pattern, head) == 0 && strlen(path) >= head + strlen(star + 1) &&
           ends_with(path, star + 1) && !strchr(path + head, '/');
}

/* Calls body for every #include line: the name between the quotes or angle brackets. */
typedef void (*include_fn)(const struct tidy_file *file, const struct tidy_sink *sink, int line,
                           const char *name, bool angled);

static void each_include(const struct tidy_file *file, const struct tidy_sink *sink,
                         include_fn body)
{
    int line = 1;
    for (const char *at = file->text; at && *at; line++) {
        const char *end = strchr(at, '\n');
        char name[256];
        char opening;
        if (sscanf(at, " # include %c%255[^>\"\n]", &opening, name) == 2 ||
            sscanf(at, "#include %c%255[^>\"\n]", &opening, name) == 2) {
            body(file, sink, line, name, opening == '<');
        }
        at = end ? end + 1 : NULL;
    }
}

/* --- includes ------------------------------------------------------------------------------- */
static const struct {
    const char *folder;
    const char *may_include[9];
} house[] = {
    {"base", {"base"}},
    {"kernels", {"kernels", "base"}},
    {"proto", {"proto", "base"}},
    {"engine", {"engine", "kernels", "base"}},
    {"evaluation", {"evaluation", "engine", "kernels/types.h", "kernels/backend.h", "base"}},
    {"report", {"report", "base"}},
    {"client", {"client", "engine", "proto", "kernels/types.h", "kernels/backend.h", "base"}},
    {"server",
     {"server", "evaluation", "engine", "proto", "kernels/types.h", "kernels/backend.h", "base"}},
};

static void include_points_down(const struct tidy_file *file, const struct tidy_sink *sink,
                                int line, const char *name, bool angled)
{
    size_t folder_length = strcspn(file->path, "/");
    if (angled || !strchr(name, '/')) {
        return;
    }
    for (size_t i = 0; i < MEED_COUNT(house); i++) {
        if (strlen(house[i].folder) != folder_length ||
            strncmp(house[i].folder, file->path, folder_length) != 0) {
            continue;
        }
        for (size_t j = 0; j < MEED_COUNT(house[i].may_include) && house[i].may_include[j]; j++) {
            const char *allowed = house[i].may_include[j];
            size_t length = strlen(allowed);
            if (strcmp(name, allowed) == 0 ||
                (strncmp(name, allowed, length) == 0 && name[length] == '/')) {
                return;
            }
        }
        char message[400];
        snprintf(
            message, sizeof message,
            "includes %s, which does not stand below %s/; move the code or turn the dependency",
            name, house[i].folder);
        report(sink, file, line, message);
    }
}

void tidy_check_includes(const struct tidy_file *file, const struct tidy_sink *sink)
{
    each_include(file, sink, include_points_down);
}

static const struct {
    const char *header; /* prefix of the include name */
    const char *files[16];
} confined[] = {
    {"oneapi/", {"kernels/cpu/matmul_onednn.c"}},
    {"dnnl", {"kernels/cpu/matmul_onednn.c"}},
    {"cublas", {"kernels/cuda/blas_cublaslt.cu"}},
    {"cuda_", {"kernels/cuda/port.cuh"}},
    {"dlfcn", {"kernels/cuda_plugin.c", "kernels/cuda/comm_nccl.cu", "engine/symmetric.c"}},
    {"nccl", {"kernels/cuda/comm_nccl.cu"}},
    {"jansson",
     {"engine/model_config.c", "engine/safetensors*.c", "engine/adapter_peft.c",
      "engine/tokenizer*.c", "engine/chat*.c", "server/*.c", "client/dataset*.c",
      "client/synthesis_file.c", "evaluation/benchmark*.c", "evaluation/jsonl_file.*",
      "evaluation/fastchat.c", "evaluation/judge*.c", "evaluation/judgment_file.c",
      "report/read*"}},
    {"pcre2", {"engine/tokenizer*.c"}},
    {"utf8proc", {"engine/tokenizer*.c", "engine/rouge_words.c"}},
    {"protobuf-c", {"proto/codec*.c"}},
    {"grpc/", {"proto/rpc_grpc*.c", "proto/rpc_grpc*.h"}},
    {"zlib", {"evaluation/membership.c"}},
    {"zstd", {"proto/update*.c", "proto/chunk*.c"}},
    {"sqlite3", {"server/store*.c", "evaluation/utility_cache.c", "evaluation/judge_cache.c"}},
    {"openssl/", {"base/hash.c", "server/signature.c", "cli/certificates.c"}},
    {"microhttpd", {"server/metrics.c"}},
    {"lapacke", {"engine/low_rank.c", "engine/symmetric.c"}},
    {"cyaml", {"cli/yaml_schema.h"}},
    {"curl/", {"evaluation/judge_endpoint.c"}},
};

static void include_is_confined(const struct tidy_file *file, const struct tidy_sink *sink,
                                int line, const char *name, bool angled)
{
    (void)angled;
    bool exempt = starts_with(file->path, "tests/") || starts_with(file->path, "bench/") ||
                  (starts_with(file->path, "cli/") && starts_with(name, "jansson"));
    for (size_t i = 0; !exempt && i < MEED_COUNT(confined); i++) {
        if (!starts_with(name, confined[i].header)) {
            continue;
        }
        bool allowed = false;
        for (size_t j = 0; j < MEED_COUNT(confined[i].files) && confined[i].files[j]; j++) {
            allowed = allowed || path_matches(file->path, confined[i].files[j]);
        }
        if (!allowed) {
            char message[400];
            snprintf(message, sizeof message, "<%s> belongs to %s alone; call through that file",
                     name, confined[i].files[0]);
            report(sink, file, line, message);
        }
    }
}

void tidy_check_third_party(const struct tidy_file *file, const struct tidy_sink *sink)
{
    each_include(file, sink, include_is_confined);
}

/* --- length --------------------------------------------------------------------------------- */
void tidy_check_length(const struct tidy_file *file, const struct tidy_sink *sink)
{
    int line = 1;
    int columns = 0;
    for (const char *c = file->text; *c; c++) {
        if (*c == '\n') {
            if (columns > MAX_COLUMNS) {
                report(sink, file, line, "line over 100 columns; break it");
            }
            line++;
            columns = 0;
        } else if (((unsigned char)*c & 0xC0) != 0x80) { /* count characters, not UTF-8 bytes */
            columns++;
        }
    }
    if (line - 1 > MAX_FILE_LINES) {
        report(sink, file, line - 1,
               "file over 800 lines; it holds two concepts, give each a file");
    }
}

char *tidy_blank_literals(const char *text)
{
    size_t length = strlen(text);
    char *out = malloc(length + 1);
    if (!out) {
        abort();
    }
    memcpy(out, text, length + 1);
    enum { CODE, BLOCK, LINE, STRING, CHARACTER } state = CODE;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        char next = text[i + 1];
        if (state == CODE) {
            state = c == '/' && next == '*'   ? BLOCK
                    : c == '/' && next == '/' ? LINE
                    : c == '"'                ? STRING
                    : c == '\''               ? CHARACTER
                                              : CODE;
            if (state == BLOCK || state == LINE) {
                out[i] = out[i + 1] = ' ';
                i++;
            } else if (state != CODE) {
                out[i] = ' ';
            }
            continue;
        }
        bool ends = (state == BLOCK && c == '*' && next == '/') || (state == LINE && c == '\n') ||
                    (state == STRING && c == '"') || (state == CHARACTER && c == '\'');
        if (c != '\n') {
            out[i] = ' ';
        }
        if (ends && state == BLOCK) {
            out[++i] = ' ';
        } else if (!ends && (state == STRING || state == CHARACTER) && c == '\\' && next) {
            i++;
            if (text[i] != '\n') {
                out[i] = ' ';
            }
        }
        state = ends ? CODE : state;
    }
    return out;
}

/* A function body opens with a brace in column 0 (the tree's format) after a line ending in ')'. */
void tidy_check_functions(const struct tidy_file *file, const struct tidy_sink *sink)
{
    int cap = starts_with(file->path, "kernels/") || ends_with(file->path, ".cu")
                  ? MAX_KERNEL_FUNCTION
                  : MAX_FUNCTION;
    char *code = tidy_blank_literals(file->text);
    int line = 1;
    int opened = 0;
    int depth = 0;
    char before = '\n';
    for (const char *c = code; *c; c++) {
        if (*c == '\n') {
            line++;
        }
        if (*c == '{') {
            if (depth == 0) {
                opened = before == ')' ? line : 0;
            }
            depth++;
        } else if (*c == '}' && depth > 0) {
            depth--;
            if (depth == 0 && opened && line - opened + 1 > cap) {
                char message[120];
                snprintf(message, sizeof message, "function of %d lines; the cap is %d, split it",
                         line - opened + 1, cap);
                report(sink, file, opened, message);
            }
        }
        if (!isspace((unsigned char)*c)) {
            before = *c;
        }
    }
    free(code);
}

/* --- guards, comments, bans ------------------------------------------------------------------ */
static void guard_of(const char *path, char guard[256])
{
    int used = snprintf(guard, 256, "#ifndef MEED_");
    for (const char *c = path; *c && used < 255; c++) {
        guard[used++] = isalnum((unsigned char)*c) ? (char)toupper((unsigned char)*c) : '_';
    }
    guard[used] = '\0';
}

/* The guard spells the whole path, or the last folder and the stem. */
void tidy_check_guard(const struct tidy_file *file, const struct tidy_sink *sink)
{
    if (!ends_with(file->path, ".h")) {
        return;
    }
    const char *folder = strrchr(file->path, '/');
    while (folder && folder > file->path && folder[-1] != '/') {
        folder--;
    }
    char whole[256];
    char last[256];
    guard_of(file->path, whole);
    guard_of(folder ? folder : file->path, last);
    if (!strstr(file->text, whole) && !strstr(file->text, last)) {
        char message[320];
        snprintf(message, sizeof message, "no include guard; open with \"%s\"", whole);
        report(sink, file, 1, message);
    }
}

void tidy_check_header_comment(const struct tidy_file *file, const struct tidy_sink *sink)
{
    if (!starts_with(file->text, "/*") && !starts_with(file->text, "// ")) {
        report(sink, file, 1, "no header comment; say what the file is for and why it is so");
    }
}

struct ban {
    const char *word;
    const char *instead;
    const char *allowed[6];
};
static const struct ban banned[] = {
    {"strcpy", "snprintf or memcpy", {NULL}},
    {"strcat", "meed_buf", {NULL}},
    {"sprintf", "snprintf", {NULL}},
    {"gets", "meed_file_read", {NULL}},
    {"strtok", "strcspn", {NULL}},
    {"atoi", "meed_parse_i64", {NULL}},
    {"atof", "meed_parse_f64", {NULL}},
    {"system", "posix_spawn", {"tests/"}},
    {"exit", "a status", {"cli/main.c", "tests/", "bench/"}},
    {"strtol", "meed_parse_i64", {"base/parse.c", "tests/"}},
    {"strtoll", "meed_parse_i64", {"base/parse.c", "tests/"}},
    {"strtoul", "meed_parse_i64", {"base/parse.c", "tests/"}},
    {"strtod", "meed_parse_f64", {"base/parse.c"}},
    {"malloc",
     "an arena, meed_buf or meed_heap_alloc",
     {"base/arena.c", "base/buf.c", "kernels/cpu/cpu_*.c", "tests/", "bench/"}},
    {"calloc",
     "an arena, meed_buf or meed_heap_alloc",
     {"base/arena.c", "base/buf.c", "kernels/cpu/cpu_*.c", "tests/", "bench/"}},
    {"realloc", "meed_buf", {"base/arena.c", "base/buf.c", "tests/", "bench/"}},
};

static bool word_at(const char *code, const char *at, size_t length)
{
    bool left = at == code || !(isalnum((unsigned char)at[-1]) || at[-1] == '_' || at[-1] == '.' ||
                                at[-1] == '>');
    const char *after = at + length;
    return left && *after == '(';
}

static int line_of(const char *text, const char *at)
{
    int line = 1;
    for (const char *c = text; c < at; c++) {
        line += *c == '\n';
    }
    return line;
}

static void check_marks(const struct tidy_file *file, const struct tidy_sink *sink)
{
    static const char *const marks[] = {"TO"
                                        "DO",
                                        "FIX"
                                        "ME",
                                        "XX"
                                        "X",
                                        "/wo"
                                        "rk/",
                                        "/ro"
                                        "ot/"};
    for (size_t i = 0; i < MEED_COUNT(marks); i++) {
        const char *at = strstr(file->text, marks[i]);
        bool template = at && at[3] == 'X'; /* mkdtemp's six */
        if (at && !template) {
            report(sink, file, line_of(file->text, at),
                   "unfinished mark or a path of one machine; write a Limit: comment and an issue");
        }
    }
}

void tidy_check_banned(const struct tidy_file *file, const struct tidy_sink *sink)
{
    char *code = tidy_blank_literals(file->text);
    for (size_t i = 0; i < MEED_COUNT(banned); i++) {
        bool allowed = false;
        for (size_t j = 0; j < MEED_COUNT(banned[i].allowed) && banned[i].allowed[j]; j++) {
            allowed = allowed || path_matches(file->path, banned[i].allowed[j]);
        }
        size_t length = strlen(banned[i].word);
        for (const char *at = code; !allowed && (at = strstr(at, banned[i].word)); at += length) {
            if (word_at(code, at, length)) {
                char message[160];
                snprintf(message, sizeof message, "%s is banned; use %s", banned[i].word,
                         banned[i].instead);
                report(sink, file, line_of(code, at), message);
            }
        }
    }
    free(code);
    check_marks(file, sink);
}
