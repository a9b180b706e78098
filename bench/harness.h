/* Measuring: check first, then interleave, then take medians.
 *
 * A shared machine drifts by tens of per cent within a minute, so a number alone says little and a
 * ratio of two numbers taken apart says less. Every comparison here is a set of *contestants* run
 * in turn (A B C A B C …), each several times; the table prints the median of each and the median
 * of the ratios taken within one turn. A contestant whose result was not checked is not timed. Rows
 * are printed for people and kept as JSON for bench/results.
 */
#ifndef MEED_BENCH_HARNESS_H
#define MEED_BENCH_HARNESS_H

#include <stdint.h>
#include "base/status.h"
#include "bench/machine.h"

enum { MEED_BENCH_MAX_CONTESTANTS = 8, MEED_BENCH_MAX_TURNS = 101 };

typedef enum meed_status (*meed_bench_fn)(void *user);

struct meed_bench_contestant {
    const char *name;
    meed_bench_fn run;
    void *user;
};

struct meed_bench_result {
    double median_s[MEED_BENCH_MAX_CONTESTANTS];
    double min_s[MEED_BENCH_MAX_CONTESTANTS];
    double ratio[MEED_BENCH_MAX_CONTESTANTS]; /* median over turns of time ÷ first contestant's */
    int turns;
};

/* One warm-up turn, then `turns` (odd) turns; a contestant shorter than 2 ms is repeated inside a
 * turn until it is not. */
MEED_MUST_CHECK enum meed_status meed_bench_race(const struct meed_bench_contestant *contestants,
                                                 int count, int turns,
                                                 struct meed_bench_result *result);

/* The median of count values, which it sorts. */
double meed_bench_median(double *values, int count);

/* One row of the report: suite, name, value with unit, and the limit it is held against (0: none).
 * `better` is '<' or '>' : on which side of the limit the value should be. */
void meed_bench_row(const char *suite, const char *name, double value, const char *unit,
                    double limit, char better);
/* Prints the heading of a suite's table. */
void meed_bench_heading(const char *suite, const char *sentence);
/* Writes all rows so far, with processor, device (the backend's name), commit and date, as JSON. */
MEED_MUST_CHECK enum meed_status meed_bench_write_json(const char *path, const char *device);

/* One op: its time, the rate that bounds it (TFLOP/s or GB/s) and its floor as a share of the time.
 */
void meed_bench_floor_row(const char *suite, const char *name, double seconds, double flops,
                          double bytes, double floor_s);

/* The suites: each prints its rows; FAILs if a checked result is wrong. The last three measure the
 * host and ignore the device. */
enum meed_status meed_suite_kernels(struct meed_bench_machine *machine);
enum meed_status meed_suite_lora(struct meed_bench_machine *machine);
enum meed_status meed_suite_train(struct meed_bench_machine *machine);
enum meed_status meed_suite_coalitions(struct meed_bench_machine *machine);
enum meed_status meed_suite_values(struct meed_bench_machine *machine);
enum meed_status meed_suite_stack(struct meed_bench_machine *machine);
enum meed_status meed_suite_planner(struct meed_bench_machine *machine);
enum meed_status meed_suite_generate(struct meed_bench_machine *machine);
enum meed_status meed_suite_synthesis(struct meed_bench_machine *machine);
enum meed_status meed_suite_codec(struct meed_bench_machine *machine);
enum meed_status meed_suite_rpc(struct meed_bench_machine *machine);
enum meed_status meed_suite_ranks(struct meed_bench_machine *machine);

#endif
