/* See audit_file.h. The file is read twice: by the trainer's own reader, which names what is wrong,
 * and again for what that reader does not keep. */
#include "cli/audit_file.h"

#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "cli/jsonl_reader.h"
#include "cli/secret_labels.h"
#include "client/dataset_form.h"

#define MAX_ARENA_BYTES ((size_t)1 << 36)

static enum meed_status record_read(struct meed_audit_file *file,
                                    const struct meed_jsonl_reader *reader, const json_t *object)
{
    struct meed_audit_data *data = &file->data;
    struct meed_audit_record *record = &data->records[data->count];
    struct meed_dataset_record form;
    struct meed_secret_labels labels;
    MEED_TRY(meed_dataset_form_parse(reader->line, strlen(reader->line), &data->arena, &form));
    record->dialogue = form.dialogue;
    record->text = form.text;
    record->sequence = file->dataset->sequences[data->count];
    record->line = (int32_t)reader->line_number;
    MEED_TRY(meed_secret_labels_read(object, &form.dialogue, form.text, &data->arena, &labels));
    record->secrets = labels.texts;
    record->secret_count = labels.count;
    data->secret_count += labels.count;
    data->count++;
    return MEED_OK;
}

static enum meed_status records_read(struct meed_audit_file *file)
{
    enum meed_status st = MEED_OK;
    struct meed_audit_data *data = &file->data;
    struct meed_jsonl_reader reader;
    json_t *object;
    void *block;
    MEED_TRY(meed_jsonl_reader_open(data->path, &reader));
    MEED_TRY_OUT(meed_arena_alloc_array(&data->arena, (size_t)file->dataset->count,
                                        sizeof *data->records, &block));
    data->records = block;
    MEED_TRY_OUT(meed_jsonl_reader_next(&reader, &object));
    while (object && data->count < file->dataset->count) {
        st = record_read(file, &reader, object);
        if (st != MEED_OK) {
            st = MEED_FAIL(st, "%.512s:%lld: %s", data->path, (long long)reader.line_number,
                           meed_last_error());
            goto out;
        }
        MEED_TRY_OUT(meed_jsonl_reader_next(&reader, &object));
    }
    if (object || data->count != file->dataset->count) {
        st = MEED_FAIL(MEED_STATE, "%.512s changed while it was read", data->path);
    }
out:
    meed_jsonl_reader_close(&reader);
    return st;
}

enum meed_status meed_audit_file_load(const char *path, const struct meed_chat *chat,
                                      const struct meed_tokenizer *tokenizer, int32_t positions,
                                      struct meed_audit_file *file)
{
    *file = (struct meed_audit_file){.data = {.path = path}};
    meed_arena_init_growing(&file->data.arena, "audited data", MAX_ARENA_BYTES);
    MEED_TRY(meed_dataset_load(path, chat, tokenizer, &file->dataset));
    for (int64_t i = 0; i < file->dataset->count; i++) {
        if (file->dataset->sequences[i].length > positions) {
            return MEED_FAIL(
                MEED_LIMIT, "%.512s:%d: a dialogue of %d tokens; the model has %d positions", path,
                file->dataset->lines[i], file->dataset->sequences[i].length, positions);
        }
    }
    return records_read(file);
}

void meed_audit_file_close(struct meed_audit_file *file)
{
    meed_dataset_destroy(file->dataset);
    meed_arena_clear(&file->data.arena);
    *file = (struct meed_audit_file){0};
}

static int rising(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

enum meed_status meed_audit_file_sample(const struct meed_audit_file *file, int32_t most,
                                        uint64_t seed, struct meed_audit_data *sample)
{
    const size_t all = (size_t)file->data.count;
    struct meed_rng rng = meed_rng_stream(seed, "audited dialogues", 0);
    int64_t *order = meed_heap_alloc(all, sizeof *order);
    struct meed_audit_record *records = meed_heap_alloc(all, sizeof *records);
    if (!order || !records) {
        meed_heap_free(order);
        meed_heap_free(records);
        return MEED_NOMEM;
    }
    for (size_t i = 0; i < all; i++) {
        order[i] = (int64_t)i;
    }
    meed_rng_shuffle(&rng, order, (int64_t)all);
    *sample = (struct meed_audit_data){
        .path = file->data.path, .records = records, .count = MEED_MIN(most, file->data.count)};
    qsort(order, (size_t)sample->count, sizeof *order, rising);
    for (int32_t i = 0; i < sample->count; i++) {
        records[i] = file->data.records[order[i]];
        sample->secret_count += records[i].secret_count;
    }
    meed_heap_free(order);
    return MEED_OK;
}
