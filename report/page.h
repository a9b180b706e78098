/* The page: one HTML file that says what happened in a run, or how several runs compare.
 *
 * Self-contained: style inside, drawings inline, no script, no font, nothing fetched; it can be
 * mailed, archived beside the ledger and opened in ten years. Deterministic: the same records give
 * the same bytes; the page has no date of its own. Sections appear where their data is there:
 *
 *   who earned what        table and bars of the whole run
 *   defence                verdicts over rounds, their reasons and remarks
 *   utility, value         over rounds; pay against value; axes of a valuation
 *   coalitions, pairs      what was measured
 *   rounds, loss, traffic  the course of a federation
 *   truth                  of a simulation: axes over rounds, detector ROC, pay against truth
 *   results                of an experiment: combinations over seeds
 *   attacks and defences   of an experiment: what each policy made of each attack, detector ROC
 *   leakage and quality    of an experiment: what comes out of its models, and how good they are
 *   over a number          of an experiment: utility and leakage along a setting that is one
 *   leakage                of an audit: against quality, and over what the attacker was given
 *   provenance             hashes and options
 */
#ifndef MEED_REPORT_PAGE_H
#define MEED_REPORT_PAGE_H

#include "report/markup.h"
#include "report/numeral.h"
#include "report/run_record.h"

MEED_BEGIN_C

/* Writes the document of count ≥ 1 records. */
void meed_page_write(struct meed_markup *markup, const struct meed_run_record *const *records,
                     int32_t count);

/* ---- inside the folder: the parts ------------------------------------------------------------
 */
extern const char meed_page_style[]; /* CSS */

/* Sections of one record. */
void meed_page_pay(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_defence(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_value(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_coalitions(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_course(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_truth(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_experiment(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_leakage(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_sweep(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_detection(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_audit(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_provenance(struct meed_markup *markup, const struct meed_run_record *record);
/* Runs side by side. */
void meed_page_comparison(struct meed_markup *markup, const struct meed_run_record *const *records,
                          int32_t count);

/* How a measure of an experiment is called and written; an unknown one by its own name. */
enum meed_page_form {
    MEED_PAGE_ESTIMATE, /* +0.117 ± 0.007 */
    MEED_PAGE_SHARE,    /* of 1, written in per cent */
    MEED_PAGE_AREA      /* 0 … 1, written as it is */
};
struct meed_page_measure {
    char title[96];
    enum meed_page_form form;
    bool charted;     /* of interest beside the other rows */
    bool apart;       /* has a section and table of its own */
    double low, high; /* what it can be at all; ∓∞ */
};
struct meed_page_measure meed_page_measure_of(const char *name);
struct meed_numeral meed_page_measure_text(const struct meed_page_measure *measure, double mean,
                                           double half);
/* Index of a measure of the grid, −1 if it has none. */
int32_t meed_page_measure_find(const struct meed_run_grid *grid, const char *name);
/* Some row has a mean of it. */
bool meed_page_measure_known(const struct meed_run_grid *grid, const char *name);

/* What a row is called in a drawing, "fedpit, beta 0.5": what is as the file has it and the scheme
 * that goes without saying are left out, as is the key `except` (−1: none). */
struct meed_page_name {
    char text[128];
};
struct meed_page_name meed_page_row_name(const struct meed_run_grid *grid, int32_t row,
                                         int32_t except);

/* Tables: one row of heads, then cells in order; numbers are right-aligned. */
struct meed_page_column {
    const char *name;
    bool number;
};
void meed_page_table_open(struct meed_markup *markup, const char *caption,
                          const struct meed_page_column *columns, size_t count);
/* Inside <table>: stays in sight while a wide table scrolls. */
void meed_page_caption(struct meed_markup *markup, const char *text);
void meed_page_table_close(struct meed_markup *markup);
void meed_page_row_open(struct meed_markup *markup);
void meed_page_row_close(struct meed_markup *markup);
void meed_page_cell(struct meed_markup *markup, const char *text);
void meed_page_cell_number(struct meed_markup *markup, struct meed_numeral numeral);
void meed_page_cell_state(struct meed_markup *markup, enum meed_run_state state);
void meed_page_heading(struct meed_markup *markup, const char *text);

MEED_END_C
#endif
