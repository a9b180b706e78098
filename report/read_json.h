/* JSON of strangers: typed members, and complaints that say where.
 *
 * Every getter names the place as a path ("report.json: rounds[2].clients[0]: …"). A number that
 * may be missing says so in its name; a wrong type is refused in both.
 */
#ifndef MEED_REPORT_READ_JSON_H
#define MEED_REPORT_READ_JSON_H

#include <jansson.h>
#include "base/buf.h"
#include "report/run_record.h"

MEED_BEGIN_C

struct meed_read_place {
    const char *file;
    char inside[160]; /* "rounds[2].clients[0]", "" for the document */
};

/* The whole file as one JSON object; FORMAT otherwise. Free with json_decref. */
MEED_MUST_CHECK enum meed_status meed_read_json_file(const char *path, json_t **object);
/* place.name, place.name[idx] where idx ≥ 0. */
struct meed_read_place meed_read_place_in(const struct meed_read_place *place, const char *name,
                                          int32_t idx);
enum meed_status meed_read_fail(const struct meed_read_place *place, const char *key,
                                const char *wanted);

MEED_MUST_CHECK enum meed_status meed_read_text(const struct meed_read_place *place,
                                                const json_t *object, const char *key,
                                                struct meed_run_record *record, const char **text);
MEED_MUST_CHECK enum meed_status meed_read_number(const struct meed_read_place *place,
                                                  const json_t *object, const char *key,
                                                  double *number);
/* Leaves *number as it was where there is none (or null). */
MEED_MUST_CHECK enum meed_status meed_read_number_maybe(const struct meed_read_place *place,
                                                        const json_t *object, const char *key,
                                                        double *number);
MEED_MUST_CHECK enum meed_status meed_read_integer(const struct meed_read_place *place,
                                                   const json_t *object, const char *key,
                                                   int64_t *integer);
MEED_MUST_CHECK enum meed_status meed_read_integer_maybe(const struct meed_read_place *place,
                                                         const json_t *object, const char *key,
                                                         int64_t *integer);
/* An array of objects of at most `most` items. */
MEED_MUST_CHECK enum meed_status meed_read_list(const struct meed_read_place *place,
                                                const json_t *object, const char *key, size_t most,
                                                const json_t **list);
/* The clients of a record from the ids of a list of objects, each of one client only; totals are
 * made, and left 0. */
MEED_MUST_CHECK enum meed_status meed_read_clients(const struct meed_read_place *place,
                                                   const json_t *root, const char *key,
                                                   struct meed_run_record *record,
                                                   const json_t **clients);
/* What clients have in every format; the id is read by the caller. The verdict is "state" or
 * "status". */
MEED_MUST_CHECK enum meed_status meed_read_cell(const struct meed_read_place *place,
                                                const json_t *object,
                                                struct meed_run_record *record,
                                                struct meed_run_cell *cell);
/* Text facts of an object that are there, by a list of {key, name}. */
struct meed_read_fact {
    const char *key, *name;
};
MEED_MUST_CHECK enum meed_status meed_read_facts(const json_t *object,
                                                 const struct meed_read_fact *facts, size_t count,
                                                 struct meed_run_record *record);

enum { MEED_READ_CLIENTS_MOST = 4096, MEED_READ_ROUNDS_MOST = 100000 };

MEED_END_C
#endif
