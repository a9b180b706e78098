/* From a path to a record: which kind of result it is, and who reads it.
 *
 *   a folder   of `meed up` or `meed serve` (--state): report.json, and ledger.jsonl beside it;
 *              of `meed simulate` (--out): simulation.json
 *   a file     the JSON of one of them, of `meed value --json` or `meed audit --json`, or a cell of
 *              `meed simulate`, told apart by its members
 *
 * The files are strangers' input: sizes have limits, numbers must be finite, and what is wrong is
 * named by file and place. Nothing is verified against the ledger's key; `meed ledger verify` does.
 */
#ifndef MEED_REPORT_READER_H
#define MEED_REPORT_READER_H

#include "report/run_record.h"

MEED_BEGIN_C

/* record is freshly initialised. NOT_FOUND, FORMAT, LIMIT. */
MEED_MUST_CHECK enum meed_status meed_reader_read(const char *path, struct meed_run_record *record);

MEED_END_C
#endif
