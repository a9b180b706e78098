/* The front door: one table of commands, one place that exits.
 *
 * `meed <command> …` runs a row; `meed help` prints the table, `meed help <command>` the command's
 * own --help, `meed help exit-codes` the contract that scripts rely on. Global flags before the
 * command: --log SPEC (base/log.h) and --version. This file knows no folder but base/.
 */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/status.h"
#include "cli/commands.h"

struct command {
    const char *name;
    const char *sentence;
    enum meed_status (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"up", "run a whole federation on this machine: aggregator and clients", meed_cmd_up},
    {"serve", "run an aggregator", meed_cmd_serve},
    {"join", "take part in a federation as a client", meed_cmd_join},
    {"simulate", "run experiments: hundreds of clients in one process", meed_cmd_simulate},
    {"provision", "make the certificates and keys of a federation", meed_cmd_provision},
    {"train", "fine-tune a LoRA adapter on this machine alone", meed_cmd_train},
    {"merge", "write base and adapters as one model folder", meed_cmd_merge},
    {"synthesise", "let a model write task data after local examples", meed_cmd_synthesise},
    {"value", "price a set of adapters: who contributes what", meed_cmd_value},
    {"eval", "score a model and adapter on a dialogue benchmark", meed_cmd_eval},
    {"audit", "attack a model: what of its training data can be pulled out", meed_cmd_audit},
    {"answer", "let many adapters answer a benchmark in one batch", meed_cmd_answer},
    {"judge", "rate answers by a model or an endpoint", meed_cmd_judge},
    {"generate", "answer many prompts at once", meed_cmd_generate},
    {"chat", "talk to a model and adapter", meed_cmd_chat},
    {"ledger", "show or verify the signed ledger of a federation", meed_cmd_ledger},
    {"verify", "recompute a run from its evidence and find what is not so", meed_cmd_verify},
    {"report", "draw a run as one HTML page", meed_cmd_report},
    {"tokenize", "text to token ids and back", meed_cmd_tokenize},
    {"logits", "write the logits of a token sequence", meed_cmd_logits},
};

static void print_exit_codes(void)
{
    printf("Exit codes of every command:\n\n");
    for (int i = 0; i < MEED_STATUS_COUNT; i++) {
        enum meed_status status = (enum meed_status)i;
        printf("  %3d  %-15s  %s\n", meed_status_exit_code(status), meed_status_name(status),
               meed_status_sentence(status));
    }
}

static void print_help(FILE *to)
{
    fprintf(to, "Usage: meed [--log LEVEL] COMMAND [OPTION...]\n\n"
                "Federated LoRA fine-tuning in which every client is paid its measured share.\n\n");
    for (size_t i = 0; i < MEED_COUNT(commands); i++) {
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].sentence);
    }
    fprintf(to, "  %-10s %s\n", "help", "this text; help COMMAND; help exit-codes");
    fprintf(to, "\nExamples:\n"
                "  meed up examples/tiny/federation.yaml\n"
                "  meed chat --model examples/tiny/model --adapter out/demo/adapter\n"
                "  meed value --model M --benchmark B.jsonl --adapters A1 A2 A3 --budget 1000\n");
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < MEED_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static enum meed_status command_run(const struct command *command, int argc, char **argv)
{
    char title[64];
    snprintf(title, sizeof title, "meed %s", command->name);
    argv[0] = title;
    return command->run(argc, argv);
}

static enum meed_status help_run(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stdout);
        return MEED_OK;
    }
    if (strcmp(argv[1], "exit-codes") == 0) {
        print_exit_codes();
        return MEED_OK;
    }
    const struct command *command = command_find(argv[1]);
    if (!command) {
        return MEED_FAIL(MEED_ARG, "no command \"%.64s\"; `meed help` lists them", argv[1]);
    }
    char help_flag[] = "--help";
    char *help_argv[] = {argv[0], help_flag, NULL};
    return command_run(command, 2, help_argv);
}

static enum meed_status dispatch(int argc, char **argv)
{
    int first = 1;
    while (first < argc && argv[first][0] == '-') {
        if (strcmp(argv[first], "--log") == 0 && first + 1 < argc) {
            MEED_TRY(meed_log_configure(argv[first + 1]));
            first += 2;
        } else if (strcmp(argv[first], "--log") == 0) {
            return MEED_FAIL(MEED_ARG, "a level is missing behind \"--log\"; see `meed help`");
        } else if (strcmp(argv[first], "--version") == 0) {
            printf("meed %s\n", MEED_RELEASE);
            return MEED_OK;
        } else if (strcmp(argv[first], "--help") == 0 || strcmp(argv[first], "-h") == 0) {
            print_help(stdout);
            return MEED_OK;
        } else {
            return MEED_FAIL(MEED_ARG, "no option \"%.64s\" before the command; see `meed help`",
                             argv[first]);
        }
    }
    if (first >= argc) {
        print_help(stderr);
        return MEED_FAIL(MEED_ARG, "no command given; `meed help` lists them");
    }
    if (strcmp(argv[first], "help") == 0) {
        return help_run(argc - first, argv + first);
    }
    const struct command *command = command_find(argv[first]);
    if (!command) {
        return MEED_FAIL(MEED_ARG, "no command \"%.64s\"; `meed help` lists them", argv[first]);
    }
    return command_run(command, argc - first, argv + first);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    argp_err_exit_status = meed_status_exit_code(MEED_ARG); /* 64 otherwise */
    enum meed_status status = dispatch(argc, argv);
    if (fflush(stdout) != 0 && status == MEED_OK) {
        status = MEED_FAIL(MEED_IO, "cannot write to standard output");
    }
    if (status != MEED_OK) {
        fprintf(stderr, "meed: %s: %s\n", meed_status_sentence(status), meed_last_error());
    }
    exit(meed_status_exit_code(status));
}
