/* How a command is asked to stop at the next safe point.
 *
 * SIGTERM and SIGUSR1 are a scheduler's: Slurm sends TERM alone on preemption, USR1 where a job
 * asked for a warning, and both, some twice, within one grace time. So they only ever ask; a
 * scheduler that loses patience has SIGKILL. SIGINT is a person's: the second Ctrl-C kills.
 */
#ifndef MEED_CLI_STOP_SIGNAL_H
#define MEED_CLI_STOP_SIGNAL_H

#include <signal.h>

/* Catches the three from now on; the flag that they set. */
volatile sig_atomic_t *meed_stop_signal_catch(void);

#endif
