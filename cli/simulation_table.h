/* An experiment's rows: every measure over the seeds of a combination, and the table of those that
 * have an answer.
 *
 * Measures are whatever the cells' summaries name (simulation_result.h), so a new one needs no word
 * here; the printed table picks those that a reader asks first, in the order of the questions: what
 * was learned, who was seen, who was paid.
 */
#ifndef MEED_CLI_SIMULATION_TABLE_H
#define MEED_CLI_SIMULATION_TABLE_H

#include <jansson.h>
#include "cli/simulation_plan.h"

/* {"gain": {"mean", "half", "count"}, …}: Student's 95 % intervals over summaries, an array of
 * [seeds] objects with the same members. */
json_t *meed_simulation_table_intervals(const json_t *summaries);
/* rows: array of {"settings", "summary"}, printed to stdout; nothing if it is empty. Columns are as
 * wide as what stands in them; one that has no answer in any row is left out. */
void meed_simulation_table_print(const json_t *rows);

#endif
