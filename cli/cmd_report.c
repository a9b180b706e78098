/* meed report: one HTML page of one run, or of several side by side.
 *
 * Reads what other commands wrote (report/reader.h) and writes one file; runs no model. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include "base/file.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "report/page.h"
#include "report/reader.h"

enum { RUNS_MOST = 64 };

struct options {
    const char *runs[RUNS_MOST];
    int32_t run_count;
    const char *out;
    enum meed_status status;
};

static const struct argp_option option_rows[] = {
    {"out", 'o', "FILE", 0, "the page (default: report.html)", 0},
    {0},
};

static const char documentation[] =
    "Draw runs as one self-contained HTML page: who earned what and why, values with their errors, "
    "utility over rounds, coalitions, traffic, hashes; of simulations also detectors and pay "
    "against the truth. RUN is the state folder of `meed up` or `meed serve`, the output folder of "
    "`meed simulate` or one of its cells, or a JSON file of `meed up`, `meed value` or `meed "
    "audit`; several are "
    "compared side by side.\v"
    "Examples:\n"
    "  meed report out/demo\n"
    "  meed report out/demo value.json --out both.html\n"
    "  meed report out/poisoning out/poisoning/cells/attack=swap,seed=1.json\n\n"
    "The page needs no network and no script: mail it, archive it beside the ledger.";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'o':
        options->out = text;
        return 0;
    case ARGP_KEY_ARG:
        if (options->run_count == RUNS_MOST) {
            options->status = MEED_FAIL(MEED_ARG, "at most %d runs on one page", RUNS_MOST);
            return EINVAL;
        }
        options->runs[options->run_count++] = text;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

enum meed_status meed_cmd_report(int argc, char **argv)
{
    enum meed_status st = MEED_OK;
    struct options options = {.out = "report.html", .status = MEED_OK};
    const struct argp argp = {option_rows, option_parse, "RUN...", documentation, NULL, NULL, NULL};
    struct meed_run_record *records = NULL;
    const struct meed_run_record *pointers[RUNS_MOST];
    struct meed_markup page;
    meed_markup_init(&page);
    MEED_TRY_OUT(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (options.run_count == 0) {
        st = MEED_FAIL(MEED_ARG, "no RUN given: a state folder or a JSON file; see `meed help "
                                 "report`");
        goto out;
    }
    records = meed_heap_alloc((size_t)options.run_count, sizeof *records);
    if (!records) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t i = 0; i < options.run_count; i++) {
        meed_run_record_init(&records[i]);
        pointers[i] = &records[i];
        MEED_TRY_OUT(meed_reader_read(options.runs[i], &records[i]));
    }
    meed_page_write(&page, pointers, options.run_count);
    MEED_TRY_OUT(page.status);
    MEED_TRY_OUT(meed_file_write_atomic(options.out, page.text.data, page.text.size));
    printf("%s: %d run%s, %zu kB\n", options.out, options.run_count,
           options.run_count > 1 ? "s" : "", page.text.size / 1000 + 1);
out:
    for (int32_t i = 0; records && i < options.run_count; i++) {
        meed_run_record_clear(&records[i]);
    }
    meed_heap_free(records);
    meed_markup_clear(&page);
    return st;
}
