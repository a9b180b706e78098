/* See command_line.h. The walk follows getopt_long: options and arguments in any order, `--` ends
 * the options, a single `-` is an argument, long names may be cut short while they stay unique. */
#include "cli/command_line.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct walk {
    const struct argp_option *rows;
    int argc;
    char **argv;
    int at;
};

static bool is_last(const struct argp_option *row)
{
    return !row->name && !row->key && !row->doc && !row->group;
}

static const struct argp_option *find_letter(const struct argp_option *rows, char letter)
{
    while (!is_last(rows) && rows->key != letter) {
        rows++;
    }
    return is_last(rows) ? NULL : rows;
}

/* The row of a long name of `length` bytes; *matches counts the rows that it could mean. */
static const struct argp_option *find_name(const struct argp_option *rows, const char *name,
                                           size_t length, int *matches)
{
    static const struct argp_option own[] = {{"help", '?', NULL, 0, NULL, 0},
                                             {"usage", '?', NULL, 0, NULL, 0}};
    const struct argp_option *found = NULL;
    *matches = 0;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strncmp(own[i].name, name, length) == 0) {
            found = &own[i];
            *matches += 1;
        }
    }
    for (; !is_last(rows); rows++) {
        if (rows->name && strncmp(rows->name, name, length) == 0) {
            found = rows;
            *matches += 1;
            if (rows->name[length] == '\0') {
                *matches = 1;
                break;
            }
        }
    }
    return found;
}

static enum meed_status refuse(const struct walk *walk, const char *what)
{
    const char *command = walk->argv[0] + strcspn(walk->argv[0], " ");
    return MEED_FAIL(MEED_ARG, "%s \"%.64s\"; see `meed help%s`", what, walk->argv[walk->at],
                     command);
}

static enum meed_status check_long(struct walk *walk)
{
    const char *name = walk->argv[walk->at] + 2;
    size_t length = strcspn(name, "=");
    int matches = 0;
    const struct argp_option *row = find_name(walk->rows, name, length, &matches);
    if (matches != 1) {
        return refuse(walk, matches == 0 ? "no option" : "more than one option begins with");
    }
    bool given = name[length] == '=';
    if (given && !row->arg) {
        return refuse(walk, "no value belongs to");
    }
    if (row->arg && !given) {
        if (walk->at + 1 == walk->argc) {
            return refuse(walk, "a value is missing behind");
        }
        walk->at++;
    }
    return MEED_OK;
}

/* "-q", "-n5", "-qn 5": letters until one takes a value. */
static enum meed_status check_letters(struct walk *walk)
{
    const char *letter = walk->argv[walk->at] + 1;
    for (; *letter; letter++) {
        const struct argp_option *row = find_letter(walk->rows, *letter);
        if (!row && *letter != '?') {
            return refuse(walk, "no option");
        }
        if (row && row->arg) {
            if (letter[1] == '\0' && walk->at + 1 == walk->argc) {
                return refuse(walk, "a value is missing behind");
            }
            walk->at += letter[1] == '\0';
            break;
        }
    }
    return MEED_OK;
}

static enum meed_status check(struct walk *walk)
{
    static char help[] = "--help";
    for (walk->at = 1; walk->at < walk->argc; walk->at++) {
        const char *text = walk->argv[walk->at];
        if (strcmp(text, "--") == 0) {
            break;
        }
        if (strcmp(text, "-h") == 0 && !find_letter(walk->rows, 'h')) {
            walk->argv[walk->at] = help;
        } else if (text[0] == '-' && text[1] == '-') {
            MEED_TRY(check_long(walk));
        } else if (text[0] == '-' && text[1] != '\0') {
            MEED_TRY(check_letters(walk));
        }
    }
    return MEED_OK;
}

enum meed_status meed_command_line_parse(const struct argp *argp, int argc, char **argv,
                                         void *input, const enum meed_status *failed)
{
    struct walk walk = {argp->options, argc, argv, 0};
    MEED_TRY(check(&walk));
    if (argp_parse(argp, argc, argv, 0, NULL, input) != 0) {
        return *failed != MEED_OK ? *failed : MEED_FAIL(MEED_ARG, "cannot read the options");
    }
    return MEED_OK;
}

enum meed_status meed_command_line_base(const char *text, enum meed_block_format *base)
{
    for (int i = 0; i < MEED_BLOCK_FORMATS; i++) {
        if (strcmp(text, meed_block_format_name((enum meed_block_format)i)) == 0) {
            *base = (enum meed_block_format)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "--base %.32s; use dense, int8, int4 or nf4", text);
}
