/* See harness.h. */
#include "bench/harness.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"

static json_t *rows;

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

double meed_bench_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

/* Seconds of one run, repeated until 2 ms have passed. */
static enum meed_status timed(const struct meed_bench_contestant *contestant, double *seconds)
{
    int64_t start = meed_clock_monotonic_ns();
    int runs = 0;
    do {
        MEED_TRY(contestant->run(contestant->user));
        runs++;
    } while (meed_clock_seconds_since(start) < 2e-3);
    *seconds = meed_clock_seconds_since(start) / runs;
    return MEED_OK;
}

enum meed_status meed_bench_race(const struct meed_bench_contestant *contestants, int count,
                                 int turns, struct meed_bench_result *result)
{
    static double seconds[MEED_BENCH_MAX_CONTESTANTS][MEED_BENCH_MAX_TURNS];
    static double ratios[MEED_BENCH_MAX_CONTESTANTS][MEED_BENCH_MAX_TURNS];
    MEED_ASSERT(count <= MEED_BENCH_MAX_CONTESTANTS && turns <= MEED_BENCH_MAX_TURNS);
    for (int turn = -1; turn < turns; turn++) {
        for (int i = 0; i < count; i++) {
            double taken = 0;
            MEED_TRY(timed(&contestants[i], &taken));
            if (turn >= 0) {
                seconds[i][turn] = taken;
                ratios[i][turn] = taken / seconds[0][turn];
            }
        }
    }
    result->turns = turns;
    for (int i = 0; i < count; i++) {
        result->ratio[i] = meed_bench_median(ratios[i], turns);
        result->median_s[i] = meed_bench_median(seconds[i], turns);
        result->min_s[i] = seconds[i][0];
    }
    return MEED_OK;
}

void meed_bench_heading(const char *suite, const char *sentence)
{
    printf("\n%s: %s\n", suite, sentence);
}

void meed_bench_row(const char *suite, const char *name, double value, const char *unit,
                    double limit, char better)
{
    const char *verdict = "";
    if (limit > 0) {
        verdict = (better == '<' ? value <= limit : value >= limit) ? "ok" : "MISSED";
    }
    printf("  %-58s %12.4g %-14s", name, value, unit);
    if (limit > 0) {
        printf(" (goal %c= %g) %s", better, limit, verdict);
    }
    printf("\n");
    fflush(stdout);
    if (!rows) {
        rows = json_array();
    }
    json_array_append_new(rows, json_pack("{s:s, s:s, s:f, s:s, s:f, s:s}", "suite", suite, "name",
                                          name, "value", value, "unit", unit, "goal", limit,
                                          "verdict", verdict));
}

void meed_bench_floor_row(const char *suite, const char *name, double seconds, double flops,
                          double bytes, double floor_s)
{
    bool by_bytes =
        flops < 8 * bytes; /* below 8 FLOPs a byte no machine of today is compute-bound */
    double rate = by_bytes ? 1e-9 * bytes / seconds : 1e-12 * flops / seconds;
    const char *unit = by_bytes ? "GB/s" : "TFLOP/s";
    printf("  %-28s %10.1f us %10.4g %-8s %5.0f %% of the floor's rate\n", name, 1e6 * seconds,
           rate, unit, 100 * floor_s / seconds);
    fflush(stdout);
    if (!rows) {
        rows = json_array();
    }
    json_array_append_new(rows,
                          json_pack("{s:s, s:s, s:f, s:s, s:f, s:f, s:f}", "suite", suite, "name",
                                    name, "value", 1e6 * seconds, "unit", "us", "flops", flops,
                                    "bytes", bytes, "floor", floor_s / seconds));
}

static void read_line(const char *command, char *text, size_t text_bytes)
{
    text[0] = '\0';
    FILE *pipe = popen(command, "r");
    if (pipe) {
        if (fgets(text, (int)text_bytes, pipe)) {
            text[strcspn(text, "\n")] = '\0';
        }
        pclose(pipe);
    }
}

enum meed_status meed_bench_write_json(const char *path, const char *device)
{
    char processor[256];
    char commit[64];
    char date[32];
    read_line("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1", processor,
              sizeof processor);
    read_line("git rev-parse --short HEAD 2>/dev/null", commit, sizeof commit);
    meed_clock_format_utc(meed_clock_wall_ms(), date);
    json_t *report =
        json_pack("{s:i, s:s, s:s, s:s, s:s, s:O}", "schema", 1, "processor", processor, "device",
                  device, "commit", commit, "date", date, "rows", rows ? rows : json_array());
    int failed = json_dump_file(report, path, JSON_INDENT(2));
    json_decref(report);
    return failed ? MEED_FAIL(MEED_IO, "cannot write %s", path) : MEED_OK;
}
