/* What the tests of the command line share: a scratch folder, changed copies of examples/tiny, and
 * rows of commands that must be refused. Header only, like federation_fixture.h, because each test
 * is one program. In every line `@` is the scratch folder and `~` is examples/tiny.
 */
#ifndef MEED_LOOP_CLI_FIXTURE_H
#define MEED_LOOP_CLI_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/support/command.h"

#define TINY MEED_SOURCE_DIR "/examples/tiny"

static char scratch[SCRATCH_BYTES];

struct row {
    enum meed_status status;
    const char *line;
    const char *says[4]; /* all of them in the sentence */
    const char *input;   /* on stdin */
};

/* `@` → scratch, `~` → examples/tiny. */
static inline const char *expand(const char *text, char *line /* [4096] */)
{
    size_t used = 0;
    for (; *text; text++) {
        const char *part = *text == '@' ? scratch : *text == '~' ? TINY : NULL;
        int wrote = part ? snprintf(line + used, 4096 - used, "%s", part)
                         : snprintf(line + used, 4096 - used, "%c", *text);
        used += (size_t)wrote;
        assert_true(used < 4096);
    }
    line[used] = '\0';
    return line;
}

static inline void check_row(const struct row *row)
{
    char line[4096], texts[4][4096];
    const char *says[5] = {NULL};
    struct command_result result;
    for (size_t i = 0; i < 4 && row->says[i]; i++) {
        says[i] = expand(row->says[i], texts[i]);
    }
    print_message("meed %s\n", row->line);
    command_run(&result, row->input, expand(row->line, line));
    command_refused(&result, row->status, says);
    command_clear(&result);
}

static inline void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_row(&rows[i]);
    }
}

/* Nothing that a refused command was told to write is there. */
static inline void check_absent(const char *name)
{
    char path[4096];
    if (access(expand(name, path), F_OK) == 0) {
        fail_msg("%s was left behind", path);
    }
}

/* ---- changed copies ---------------------------------------------------------------------------
 */

static inline void write_text(const char *name, const char *text)
{
    scratch_write(scratch, name, text, strlen(text));
}

static inline char *tiny_read(const char *name, size_t *size)
{
    char path[512];
    snprintf(path, sizeof path, TINY "/%s", name);
    return scratch_read(path, size);
}

/* Replaces the first `from` of a text by `to`, of any length; free the result. */
static inline char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    size_t bytes = strlen(text) + strlen(to) + 1;
    char *made = malloc(bytes);
    snprintf(made, bytes, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return made;
}

static const char *const model_files[] = {"config.json", "generation_config.json",
                                          "model.safetensors", "tokenizer.json",
                                          "tokenizer_config.json"};

/* A model folder with one file left out, to be written by the caller. */
static inline void model_without(const char *name, const char *left_out)
{
    char folder[512], link[1024], target[1024];
    snprintf(folder, sizeof folder, "%s/%s", scratch, name);
    assert_int_equal(mkdir(folder, 0755), 0);
    for (size_t i = 0; i < MEED_COUNT(model_files); i++) {
        if (strcmp(model_files[i], left_out) != 0) {
            snprintf(target, sizeof target, TINY "/model/%s", model_files[i]);
            snprintf(link, sizeof link, "%s/%s", folder, model_files[i]);
            assert_int_equal(symlink(target, link), 0);
        }
    }
}

static inline void change_federation(const char *name, const char *from, const char *to)
{
    char *text = tiny_read("federation.yaml", NULL);
    char *models = replaced(text, "model: model", "model: " TINY "/model");
    char *benchmarks = replaced(models, "benchmark: ", "benchmark: " TINY "/");
    char *made = replaced(benchmarks, from, to);
    write_text(name, made);
    free(made);
    free(benchmarks);
    free(models);
    free(text);
}

#endif
