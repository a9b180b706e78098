/* JSON Lines of strangers, read into memory with places in every complaint.
 *
 * `evaluation/` reads several kinds of line files (FastChat's, judge prompts); this is the part
 * they share: the bytes, the lines, the typed getters whose failures say "FILE:LINE: what". Values
 * are borrowed from the reader until its next line.
 */
#ifndef MEED_EVALUATION_JSONL_FILE_H
#define MEED_EVALUATION_JSONL_FILE_H

#include <jansson.h>
#include <stdint.h>
#include "base/buf.h"

MEED_BEGIN_C

struct meed_jsonl_file {
    const char *path; /* borrowed */
    struct meed_buf bytes;
    size_t at;
    int32_t line;
    json_t *value; /* of the present line */
};

MEED_MUST_CHECK enum meed_status meed_jsonl_file_open(const char *path,
                                                      struct meed_jsonl_file *file);
/* The next object, NULL at the end; blank lines are skipped. FORMAT if a line is no JSON object. */
MEED_MUST_CHECK enum meed_status meed_jsonl_file_next(struct meed_jsonl_file *file,
                                                      json_t **object);
void meed_jsonl_file_close(struct meed_jsonl_file *file); /* accepts zeroed */

/* "FILE:LINE: what". */
enum meed_status meed_jsonl_file_fail(const struct meed_jsonl_file *file, enum meed_status code,
                                      const char *format, ...) MEED_PRINTF(3, 4);
/* A text that is there and not empty. */
MEED_MUST_CHECK enum meed_status meed_jsonl_file_text(const struct meed_jsonl_file *file,
                                                      const json_t *object, const char *key,
                                                      const char **text);
MEED_MUST_CHECK enum meed_status meed_jsonl_file_integer(const struct meed_jsonl_file *file,
                                                         const json_t *object, const char *key,
                                                         int64_t *value);

MEED_END_C
#endif
