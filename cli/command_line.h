/* One way to read a command's arguments, so that every mistake ends the same way.
 *
 * argp reports an unknown option itself, in two lines that begin with the command's name, and
 * leaves with a code of its own. The contract of the command line is one sentence on stderr,
 * `meed: bad argument: …`, and the exit code of base/status.def. So the line is walked once before
 * argp sees it, against the command's own option rows: what argp would refuse is refused here, and
 * argp is left to do what it does well, values and help. `-h` means --help wherever a command has
 * no option of that letter.
 */
#ifndef MEED_CLI_COMMAND_LINE_H
#define MEED_CLI_COMMAND_LINE_H

#include <argp.h>
#include "base/status.h"
#include "kernels/block_format.h"

/* argv[0] is "meed <command>". `failed` is where the command's parser keeps the status of a value
 * that it refused. --help and --usage print and end the process, as argp does. */
MEED_MUST_CHECK enum meed_status meed_command_line_parse(const struct argp *argp, int argc,
                                                         char **argv, void *input,
                                                         const enum meed_status *failed);
/* --base: dense, int8, int4 or nf4; ARG for other words. */
MEED_MUST_CHECK enum meed_status meed_command_line_base(const char *text,
                                                        enum meed_block_format *base);

#endif
