/* The commands of the one binary: a function each, a row each in main.c, nothing else.
 *
 * A command parses its own arguments (argp), wires the folders below and prints; logic lives there,
 * not here. argv[0] is "meed <command>", so that usage lines read right. Results go to stdout or to
 * the file named by --json, progress and logs to stderr. A command returns a status; main turns it
 * into the last line on stderr and the exit code (base/status.def).
 */
#ifndef MEED_CLI_COMMANDS_H
#define MEED_CLI_COMMANDS_H

#include "base/status.h"

enum meed_status meed_cmd_answer(int argc, char **argv);
enum meed_status meed_cmd_audit(int argc, char **argv);
enum meed_status meed_cmd_chat(int argc, char **argv);
enum meed_status meed_cmd_eval(int argc, char **argv);
enum meed_status meed_cmd_generate(int argc, char **argv);
enum meed_status meed_cmd_join(int argc, char **argv);
enum meed_status meed_cmd_judge(int argc, char **argv);
enum meed_status meed_cmd_ledger(int argc, char **argv);
enum meed_status meed_cmd_logits(int argc, char **argv);
enum meed_status meed_cmd_merge(int argc, char **argv);
enum meed_status meed_cmd_provision(int argc, char **argv);
enum meed_status meed_cmd_report(int argc, char **argv);
enum meed_status meed_cmd_serve(int argc, char **argv);
enum meed_status meed_cmd_simulate(int argc, char **argv);
enum meed_status meed_cmd_synthesise(int argc, char **argv);
enum meed_status meed_cmd_tokenize(int argc, char **argv);
enum meed_status meed_cmd_train(int argc, char **argv);
enum meed_status meed_cmd_up(int argc, char **argv);
enum meed_status meed_cmd_value(int argc, char **argv);
enum meed_status meed_cmd_verify(int argc, char **argv);

#endif
