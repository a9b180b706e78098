/* The page: one HTML file that says what happened in a run, or how several runs compare.
 *
 * Self-contained: style inside, drawings inline, no script, no font, nothing fetched; it can be
 * mailed, archived beside the ledger and opened in ten years. Deterministic: the same records give
 * the same bytes; the page has no date of its own. Sections appear where their data is there:
 *
 *   who earned what        table and bars of the whole run
 *   not paid               verdicts with their reasons
 *   utility, value         over rounds; pay against value; axes of a valuation
 *   coalitions, pairs      what was measured
 *   rounds, loss, traffic  the course of a federation
 *   truth                  of a simulation: axes over rounds, detector ROC, pay against truth
 *   results                of an experiment: combinations over seeds
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
void meed_page_value(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_coalitions(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_course(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_truth(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_experiment(struct meed_markup *markup, const struct meed_run_record *record);
void meed_page_provenance(struct meed_markup *markup, const struct meed_run_record *record);
/* Runs side by side. */
void meed_page_comparison(struct meed_markup *markup, const struct meed_run_record *const *records,
                          int32_t count);

/* Tables: one row of heads, then cells in order; numbers are right-aligned. */
struct meed_page_column {
    const char *name;
    bool number;
};
void meed_page_table_open(struct meed_markup *markup, const char *caption,
                          const struct meed_page_column *columns, size_t count);
void meed_page_table_close(struct meed_markup *markup);
void meed_page_row_open(struct meed_markup *markup);
void meed_page_row_close(struct meed_markup *markup);
void meed_page_cell(struct meed_markup *markup, const char *text);
void meed_page_cell_number(struct meed_markup *markup, struct meed_numeral numeral);
void meed_page_cell_state(struct meed_markup *markup, enum meed_run_state state);
void meed_page_heading(struct meed_markup *markup, const char *text);

MEED_END_C
#endif
