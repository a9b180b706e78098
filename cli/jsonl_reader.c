/* See jsonl_reader.h. */
#include "cli/jsonl_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/parse.h"
#include "engine/tokenizer_utf8.h"

enum meed_status meed_jsonl_reader_open(const char *path, struct meed_jsonl_reader *reader)
{
    bool standard = strcmp(path, "-") == 0;
    *reader = (struct meed_jsonl_reader){.name = standard ? "(standard input)" : path};
    reader->file = standard ? stdin : fopen(path, "re");
    if (!reader->file) {
        int code = errno;
        return MEED_FAIL(code == ENOENT ? MEED_NOT_FOUND : MEED_IO, "cannot open %s: %s", path,
                         strerror(code));
    }
    return MEED_OK;
}

static bool is_blank(const char *line, size_t size)
{
    return strspn(line, " \t\r\n") >= size;
}

enum meed_status meed_jsonl_reader_next(struct meed_jsonl_reader *reader, json_t **value)
{
    json_decref(reader->value);
    reader->value = NULL;
    *value = NULL;
    ssize_t got;
    do {
        got = getline(&reader->line, &reader->line_capacity, reader->file);
        reader->line_number++;
    } while (got >= 0 && is_blank(reader->line, (size_t)got));
    if (got < 0) {
        return feof(reader->file)
                   ? MEED_OK
                   : MEED_FAIL(MEED_IO, "cannot read %s: %s", reader->name, strerror(errno));
    }
    if (got > MEED_JSONL_MAX_LINE_BYTES) {
        return MEED_FAIL(MEED_LIMIT, "%s:%" PRId64 ": the line is longer than %d MiB", reader->name,
                         reader->line_number, MEED_JSONL_MAX_LINE_BYTES >> 20);
    }
    size_t mark = reader->line_number == 1 ? meed_parse_order_mark(reader->line, (size_t)got) : 0;
    got -= (ssize_t)mark;
    memmove(reader->line, reader->line + mark, (size_t)got + 1);
    json_error_t error;
    reader->value = json_loadb(reader->line, (size_t)got, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!reader->value) {
        return MEED_FAIL(MEED_FORMAT, "%s:%" PRId64 ": %s (column %d)", reader->name,
                         reader->line_number, error.text, error.column);
    }
    *value = reader->value;
    return MEED_OK;
}

void meed_jsonl_reader_close(struct meed_jsonl_reader *reader)
{
    json_decref(reader->value);
    free(reader->line);
    if (reader->file && reader->file != stdin) {
        fclose(reader->file);
    }
    *reader = (struct meed_jsonl_reader){.name = NULL};
}

enum meed_status meed_jsonl_reader_text(const struct meed_jsonl_reader *reader,
                                        const json_t *object, const char *key, const char **text,
                                        size_t *size)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) {
        return MEED_FAIL(MEED_FORMAT, "%s:%" PRId64 ": no string \"%s\"", reader->name,
                         reader->line_number, key);
    }
    *text = json_string_value(value);
    *size = json_string_length(value);
    return MEED_OK;
}

enum meed_status meed_jsonl_reader_quote(const char *text, size_t size, struct meed_buf *json)
{
    struct meed_buf clean;
    meed_buf_init(&clean, (size_t)4 * MEED_JSONL_MAX_LINE_BYTES);
    char *quoted = NULL;
    enum meed_status st;
    MEED_TRY_OUT(meed_tokenizer_utf8_clean(text, size, &clean));
    json_t *string = json_stringn(clean.size > 0 ? clean.data : "", clean.size);
    quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    if (!quoted) {
        st = MEED_FAIL(MEED_NOMEM, "no memory for a text of %zu bytes", size);
        goto out;
    }
    MEED_TRY_OUT(meed_buf_append(json, quoted, strlen(quoted)));
out:
    free(quoted);
    meed_buf_clear(&clean);
    return st;
}
