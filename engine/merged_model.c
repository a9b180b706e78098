/* See merged_model.h. Merged tensors are made one by one in host memory; the rest are lent from the
 * checkpoint's map. Then the writer lays out the file, so the peak is the file and the merged
 * tensors. The weights are put in their place last: a folder without them does not load. */
#include "engine/merged_model.h"

#include <string.h>
#include "base/buf.h"
#include "base/file.h"

enum { MAX_SIDE_FILE_BYTES = 256 << 20 };

static const char *const side_files[] = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
};

struct merge {
    const struct meed_checkpoint *checkpoint;
    const struct meed_adapter *const *adapters;
    int32_t adapter_count;
    struct meed_tensor *tensors; /* [tensor_count], in the order of the checkpoint's file */
    void **made;                 /* [tensor_count], NULL where the bytes are the checkpoint's */
    int64_t tensor_count;
};

/* Row `row` of W as float64. */
static enum meed_status read_row(const struct meed_tensor *weight, int64_t row, float *narrow,
                                 double *out)
{
    int64_t cols = weight->shape[1];
    struct meed_tensor part = *weight;
    part.count = cols;
    part.size = weight->size / (size_t)weight->shape[0];
    part.bytes = (const char *)weight->bytes + (size_t)row * part.size;
    if (part.dtype == MEED_TENSOR_F64) {
        memcpy(out, part.bytes, part.size);
        return MEED_OK;
    }
    MEED_TRY(meed_tensor_to_f32(&part, narrow));
    for (int64_t k = 0; k < cols; k++) {
        out[k] = (double)narrow[k];
    }
    return MEED_OK;
}

static void add_row(const struct meed_adapter_module *module, int64_t row, double *sum)
{
    for (int64_t j = 0; j < module->r; j++) {
        double factor = (double)module->scale * (double)module->b[row * module->r + j];
        const float *a = module->a + j * module->k;
        for (int64_t k = 0; k < module->k; k++) {
            sum[k] += factor * (double)a[k];
        }
    }
}

static bool is_adapted(const struct merge *merge, int32_t layer, enum meed_proj proj)
{
    for (int32_t i = 0; i < merge->adapter_count; i++) {
        if (meed_adapter_find(merge->adapters[i], layer, proj)) {
            return true;
        }
    }
    return false;
}

/* Row by row: what the file says, every adapter's part, one rounding. */
static enum meed_status merge_rows(const struct merge *merge, const struct meed_tensor *weight,
                                   int32_t layer, enum meed_proj proj, void *to)
{
    enum meed_status st = MEED_OK;
    int64_t rows = weight->shape[0], cols = weight->shape[1];
    size_t row_bytes = weight->size / (size_t)rows;
    double *sum = meed_heap_alloc((size_t)cols, sizeof *sum);
    float *narrow = meed_heap_alloc((size_t)cols, sizeof *narrow);
    if (!sum || !narrow) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int64_t row = 0; row < rows; row++) {
        MEED_TRY_OUT(read_row(weight, row, narrow, sum));
        for (int32_t i = 0; i < merge->adapter_count; i++) {
            const struct meed_adapter_module *module =
                meed_adapter_find(merge->adapters[i], layer, proj);
            if (module) {
                MEED_ASSERT(module->k == cols && module->n == rows);
                add_row(module, row, sum);
            }
        }
        if (!meed_tensor_round(sum, cols, weight->dtype, (char *)to + (size_t)row * row_bytes)) {
            st = MEED_FAIL(MEED_NUMERIC,
                           "tensor '%s', row %lld: the sum is no number of the checkpoint's dtype; "
                           "merge into a wider checkpoint, or fewer adapters",
                           weight->name, (long long)row);
            goto out;
        }
    }
out:
    meed_heap_free(sum);
    meed_heap_free(narrow);
    return st;
}

static enum meed_status merge_proj(struct merge *merge, int32_t layer, enum meed_proj proj)
{
    struct meed_param param;
    const struct meed_safetensors *weights = merge->checkpoint->weights;
    bool present =
        meed_param_describe(&merge->checkpoint->config, MEED_PARAM_WEIGHT, layer, proj, &param);
    MEED_ASSERT(present);
    const struct meed_tensor *weight = meed_safetensors_find(weights, param.name);
    int64_t idx = weight - meed_safetensors_at(weights, 0);
    merge->made[idx] = meed_heap_alloc(weight->size, 1);
    if (!merge->made[idx]) {
        return MEED_NOMEM;
    }
    merge->tensors[idx].bytes = merge->made[idx];
    return merge_rows(merge, weight, layer, proj, merge->made[idx]);
}

static enum meed_status merge_all(struct merge *merge)
{
    for (int32_t layer = 0; layer < merge->checkpoint->config.layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            if (is_adapted(merge, layer, (enum meed_proj)proj)) {
                MEED_TRY(merge_proj(merge, layer, (enum meed_proj)proj));
            }
        }
    }
    return MEED_OK;
}

static enum meed_status copy_side_file(const char *from_folder, const char *to_folder,
                                       const char *name)
{
    enum meed_status st = MEED_OK;
    char from[MEED_PATH_BYTES], to[MEED_PATH_BYTES];
    struct meed_buf bytes;
    meed_buf_init(&bytes, MAX_SIDE_FILE_BYTES);
    MEED_TRY_OUT(meed_file_join(from_folder, name, from, sizeof from));
    MEED_TRY_OUT(meed_file_join(to_folder, name, to, sizeof to));
    if (meed_file_exists(from)) {
        MEED_TRY_OUT(meed_file_read(from, &bytes));
        MEED_TRY_OUT(meed_file_write_atomic(to, bytes.data, bytes.size));
    }
out:
    meed_buf_clear(&bytes);
    return st;
}

static enum meed_status write_folder(const struct merge *merge, const char *folder)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf file;
    meed_buf_init(&file, MEED_MERGED_MODEL_MAX_BYTES);
    MEED_TRY_OUT(meed_safetensors_write(merge->tensors, merge->tensor_count, &file));
    MEED_TRY_OUT(meed_file_join(folder, "model.safetensors", path, sizeof path));
    MEED_TRY_OUT(meed_file_make_folder(folder));
    for (size_t i = 0; i < MEED_COUNT(side_files); i++) {
        MEED_TRY_OUT(copy_side_file(merge->checkpoint->folder, folder, side_files[i]));
    }
    MEED_TRY_OUT(meed_file_write_atomic(path, file.data, file.size));
out:
    meed_buf_clear(&file);
    return st;
}

static enum meed_status check_size(const struct meed_checkpoint *checkpoint)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < meed_safetensors_count(checkpoint->weights); i++) {
        bytes += meed_safetensors_at(checkpoint->weights, i)->size;
    }
    if (bytes > MEED_MERGED_MODEL_MAX_BYTES) {
        return MEED_FAIL(MEED_LIMIT,
                         "%s: the weights are %zu bytes; up to %zu can be merged into one file",
                         checkpoint->folder, bytes, MEED_MERGED_MODEL_MAX_BYTES);
    }
    return MEED_OK;
}

enum meed_status meed_merged_model_write(const struct meed_checkpoint *checkpoint,
                                         const struct meed_adapter *const *adapters, int32_t count,
                                         const char *folder)
{
    enum meed_status st = MEED_OK;
    struct merge merge = {.checkpoint = checkpoint,
                          .adapters = adapters,
                          .adapter_count = count,
                          .tensor_count = meed_safetensors_count(checkpoint->weights)};
    if (meed_file_exists(folder)) {
        return MEED_FAIL(MEED_STATE, "%s is there already; choose another folder", folder);
    }
    MEED_TRY(check_size(checkpoint));
    merge.tensors = meed_heap_alloc((size_t)merge.tensor_count, sizeof *merge.tensors);
    merge.made = meed_heap_alloc((size_t)merge.tensor_count, sizeof *merge.made);
    if (!merge.tensors || !merge.made) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int64_t i = 0; i < merge.tensor_count; i++) {
        merge.tensors[i] = *meed_safetensors_at(checkpoint->weights, i);
    }
    MEED_TRY_OUT(merge_all(&merge));
    MEED_TRY_OUT(write_folder(&merge, folder));
out:
    for (int64_t i = 0; merge.made && i < merge.tensor_count; i++) {
        meed_heap_free(merge.made[i]);
    }
    meed_heap_free(merge.made);
    meed_heap_free(merge.tensors);
    return st;
}
