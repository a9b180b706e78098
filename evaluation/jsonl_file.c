/* See jsonl_file.h. */
#include "evaluation/jsonl_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"

enum { MAX_FILE_BYTES = 1 << 30 };

enum meed_status meed_jsonl_file_fail(const struct meed_jsonl_file *file, enum meed_status code,
                                      const char *format, ...)
{
    char text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return MEED_FAIL(code, "%s:%d: %s", file->path, file->line, text);
}

enum meed_status meed_jsonl_file_open(const char *path, struct meed_jsonl_file *file)
{
    memset(file, 0, sizeof *file);
    file->path = path;
    meed_buf_init(&file->bytes, MAX_FILE_BYTES);
    return meed_file_read(path, &file->bytes);
}

enum meed_status meed_jsonl_file_next(struct meed_jsonl_file *file, json_t **object)
{
    json_decref(file->value);
    file->value = NULL;
    *object = NULL;
    while (file->at < file->bytes.size) {
        const char *line = file->bytes.data + file->at;
        size_t rest = file->bytes.size - file->at;
        const char *end = memchr(line, '\n', rest);
        size_t length = end ? (size_t)(end - line) : rest;
        file->at += length + (end ? 1 : 0);
        file->line++;
        if (strspn(line, " \t\r") >= length) {
            continue;
        }
        json_error_t error;
        file->value = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
        if (!json_is_object(file->value)) {
            return meed_jsonl_file_fail(file, MEED_FORMAT, "not a JSON object (%s)",
                                        file->value ? "another value" : error.text);
        }
        *object = file->value;
        return MEED_OK;
    }
    return MEED_OK;
}

void meed_jsonl_file_close(struct meed_jsonl_file *file)
{
    json_decref(file->value);
    meed_buf_clear(&file->bytes);
    memset(file, 0, sizeof *file);
}

enum meed_status meed_jsonl_file_text(const struct meed_jsonl_file *file, const json_t *object,
                                      const char *key, const char **text)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value) || !*json_string_value(value)) {
        return meed_jsonl_file_fail(file, MEED_FORMAT, "needs a non-empty text \"%s\"", key);
    }
    *text = json_string_value(value);
    return MEED_OK;
}

enum meed_status meed_jsonl_file_integer(const struct meed_jsonl_file *file, const json_t *object,
                                         const char *key, int64_t *number)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) {
        return meed_jsonl_file_fail(file, MEED_FORMAT, "needs a whole number \"%s\"", key);
    }
    *number = (int64_t)json_integer_value(value);
    return MEED_OK;
}
