/* JSON Lines, a value a line, from a file or standard input.
 *
 * Errors carry the place a person can go to: "FILE:LINE: what". Blank lines are skipped. The value
 * is a jansson object owned by the reader until the next call.
 */
#ifndef MEED_CLI_JSONL_READER_H
#define MEED_CLI_JSONL_READER_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include "base/buf.h"

enum { MEED_JSONL_MAX_LINE_BYTES = 1 << 28 };

struct meed_jsonl_reader {
    const char *name; /* for messages */
    FILE *file;
    char *line; /* getline's */
    size_t line_capacity;
    int64_t line_number;
    json_t *value;
};

/* "-" is standard input. */
MEED_MUST_CHECK enum meed_status meed_jsonl_reader_open(const char *path,
                                                        struct meed_jsonl_reader *reader);
/* The next value, NULL at the end. FORMAT for a line that is no JSON. */
MEED_MUST_CHECK enum meed_status meed_jsonl_reader_next(struct meed_jsonl_reader *reader,
                                                        json_t **value);
void meed_jsonl_reader_close(struct meed_jsonl_reader *reader); /* accepts zeroed */

/* The string at key; FORMAT names place and key if it is missing or no string. */
MEED_MUST_CHECK enum meed_status meed_jsonl_reader_text(const struct meed_jsonl_reader *reader,
                                                        const json_t *object, const char *key,
                                                        const char **text, size_t *size);
/* Appends text as a JSON string with quotes; what is not UTF-8 is replaced. */
MEED_MUST_CHECK enum meed_status meed_jsonl_reader_quote(const char *text, size_t size,
                                                         struct meed_buf *json);

#endif
