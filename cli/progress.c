/* See progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

enum { BAR_CELLS = 20, REDRAW_NS = 100000000 };

void meed_progress_quantity(double value, char text[16])
{
    static const char *const suffixes[] = {"", " k", " M", " G", " T"};
    int idx = 0;
    while (value >= 1000.0 && idx < 4) {
        value /= 1000.0;
        idx++;
    }
    snprintf(text, 16,
             idx == 0      ? "%.0f%s"
             : value < 10  ? "%.2f%s"
             : value < 100 ? "%.1f%s"
                           : "%.0f%s",
             value, suffixes[idx]);
}

void meed_progress_start(struct meed_progress *progress, const char *title, const char *unit,
                         bool quiet)
{
    *progress = (struct meed_progress){
        .title = title,
        .unit = unit,
        .terminal = isatty(STDERR_FILENO) == 1,
        .quiet = quiet,
        .start_ns = meed_clock_monotonic_ns(),
    };
}

void meed_progress_update(struct meed_progress *progress, int64_t done, int64_t total)
{
    int64_t now = meed_clock_monotonic_ns();
    total = MEED_MAX(total, done); /* whoever guessed too little finds out on the way */
    int decile = total > 0 ? (int)(done * 10 / total) : 0;
    bool due = progress->terminal ? now - progress->drawn_ns > REDRAW_NS || done == total
                                  : decile > progress->decile;
    if (progress->quiet || total <= 0 || !due) {
        return;
    }
    progress->drawn_ns = now;
    progress->decile = decile;
    double seconds = (double)(now - progress->start_ns) * 1e-9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    char done_text[16];
    char total_text[16];
    char rate_text[16];
    meed_progress_quantity((double)done, done_text);
    meed_progress_quantity((double)total, total_text);
    meed_progress_quantity(rate, rate_text);
    int full = (int)(done * BAR_CELLS / total);
    char bar[BAR_CELLS + 1];
    memset(bar, '-', BAR_CELLS);
    memset(bar, '#', (size_t)full);
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "%s%s  [%s] %3d %%  %s of %s %s  %s %s/s  %.0f s left%s",
            progress->terminal ? "\r" : "", progress->title, bar, (int)(done * 100 / total),
            done_text, total_text, progress->unit, rate_text, progress->unit,
            rate > 0 ? (double)(total - done) / rate : 0.0, progress->terminal ? "\033[K" : "\n");
    fflush(stderr);
}

void meed_progress_finish(struct meed_progress *progress)
{
    if (progress->terminal && !progress->quiet && progress->drawn_ns) {
        fputc('\n', stderr);
    }
}
