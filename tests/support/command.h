/* The command line under test: build/meed as a process, as a script sees it.
 *
 * Arguments are given as one line and split at spaces (no test path has one). Output goes to
 * unnamed files rather than pipes, so no amount of it can block. Everything has a time limit, after
 * which the process is killed and the test fails: a command that waits for ever is a finding, not a
 * hang of the suite. Like golden.h, functions fail the running cmocka test.
 */
#ifndef MEED_SUPPORT_COMMAND_H
#define MEED_SUPPORT_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/compat.h"
#include "base/status.h"

enum { COMMAND_TIMEOUT_MS = 60000 };

struct command_result {
    int code;  /* exit code; 128 + signal if killed by one */
    char *out; /* stdout, NUL-terminated; freed by command_clear */
    char *err;
    size_t out_bytes;
};

/* Runs "meed <line>" to its end with `input` (may be NULL) on stdin. */
void command_run(struct command_result *result, const char *input, const char *line);
void command_clear(struct command_result *result);
/* Runs the line and demands exit code 0; *result may be NULL. */
void command_good(struct command_result *result, const char *format, ...) MEED_PRINTF(2, 3);
/* Demands the code of `status` and one error sentence, `meed: <sentence>: …`, as the last line of
 * stderr, with every one of the texts (NULL ends them) in it. */
void command_refused(const struct command_result *result, enum meed_status status,
                     const char *const *says);

/* A process that goes on beside the test; output is appended to `log`. */
pid_t command_start(const char *log, const char *line);
/* Waits until `text` stands in the log. */
void command_wait_for(const char *log, const char *text);
/* SIGTERM, then the exit code. */
int command_stop(pid_t process);

/* A fresh folder under /tmp, and its end with all that is in it. */
enum { SCRATCH_BYTES = 64 };
void scratch_make(char folder[SCRATCH_BYTES]);
void scratch_remove(const char *folder);
void scratch_write(const char *folder, const char *name, const void *bytes, size_t size);
/* The whole file, NUL-terminated, free with free(); *size may be NULL. */
char *scratch_read(const char *path, size_t *size);

#endif
