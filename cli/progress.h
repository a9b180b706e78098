/* A progress bar with a rate, for people; silence or plain lines for scripts.
 *
 *   valuing  [##########----------]  51 %  1.2 M of 2.4 M tokens  143 k tokens/s  8 s left
 *
 * On a terminal the bar redraws one line of stderr at most ten times a second; elsewhere a line is
 * printed at every tenth of the way, so logs stay short.
 */
#ifndef MEED_CLI_PROGRESS_H
#define MEED_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct meed_progress {
    const char *title; /* "valuing" */
    const char *unit;  /* "tokens" */
    bool terminal;
    bool quiet;
    int64_t start_ns;
    int64_t drawn_ns;
    int decile; /* last printed when piped */
};

void meed_progress_start(struct meed_progress *progress, const char *title, const char *unit,
                         bool quiet);
void meed_progress_update(struct meed_progress *progress, int64_t done, int64_t total);
/* Ends the line. */
void meed_progress_finish(struct meed_progress *progress);
/* 1234567 → "1.23 M"; text holds 16 bytes. */
void meed_progress_quantity(double value, char text[16]);

#endif
