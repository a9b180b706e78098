/* The readers behind reader.h, one for each kind of result. */
#ifndef MEED_REPORT_READ_KINDS_H
#define MEED_REPORT_READ_KINDS_H

#include "report/read_json.h"

MEED_BEGIN_C

/* {"run", "budget", "rounds": […], "total": […]}: the format of server/report_json.h. */
MEED_MUST_CHECK enum meed_status meed_read_federation(const char *path, const json_t *root,
                                                      struct meed_run_record *record);
/* Adds what only the ledger knows: hashes, configuration, the value with every update. */
MEED_MUST_CHECK enum meed_status meed_read_ledger(const char *path, struct meed_run_record *record);
/* {"method", "clients": […], "coalitions": […], "pairs": […]}: `meed value --json`. */
MEED_MUST_CHECK enum meed_status meed_read_valuation(const char *path, const json_t *root,
                                                     struct meed_run_record *record);

/* "schema": "meed.simulation.cell/1", one simulated federation and the truth about it. */
MEED_MUST_CHECK enum meed_status meed_read_simulation(const char *path, const json_t *root,
                                                      struct meed_run_record *record);
/* "schema": "meed.simulation/1", the combinations of an experiment over seeds. */
MEED_MUST_CHECK enum meed_status meed_read_experiment(const char *path, const json_t *root,
                                                      struct meed_run_record *record);
/* The course of a row of it, where it has one; then, from the cells that lie beside the file, how
 * far seeds spread about it. A file that was moved without its cells has means alone. */
MEED_MUST_CHECK enum meed_status meed_read_course(const struct meed_read_place *place,
                                                  const json_t *object,
                                                  struct meed_run_record *record,
                                                  struct meed_run_row *row);
MEED_MUST_CHECK enum meed_status meed_read_course_spread(const char *path, const json_t *root,
                                                         struct meed_run_record *record);

/* "schema": "meed.audit/1": `meed audit --json`. */
MEED_MUST_CHECK enum meed_status meed_read_audit(const char *path, const json_t *root,
                                                 struct meed_run_record *record);

MEED_END_C
#endif
