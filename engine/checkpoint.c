/* See checkpoint.h. Opening walks the parameter table once in each direction: every parameter of
 * the table must be in the files with its shape, and every tensor in the files must be in the
 * table. The second half matters as much as the first: a stray bias or an extra norm means that the
 * model computes something that Meed would not. Two strangers are known to be harmless: saved
 * rotary frequencies of old conversions, and the copy of a tied head. */
#include "engine/checkpoint.h"

#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "engine/param.h"

enum { MAX_CONFIG_BYTES = 4 << 20 };

static enum meed_status check_tensor(const struct meed_checkpoint *checkpoint,
                                     const struct meed_param *param, uint8_t *seen)
{
    const struct meed_tensor *tensor = meed_safetensors_find(checkpoint->weights, param->name);
    if (!tensor) {
        return MEED_FAIL(MEED_FORMAT, "%s: the weights lack tensor '%s'", checkpoint->folder,
                         param->name);
    }
    bool fits = tensor->dims == param->dims && tensor->shape[0] == param->shape[0] &&
                (param->dims < 2 || tensor->shape[1] == param->shape[1]);
    if (!fits) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: tensor '%s' is [%lld, %lld] where config.json asks for [%lld, %lld]",
                         checkpoint->folder, param->name, (long long)tensor->shape[0],
                         (long long)(tensor->dims > 1 ? tensor->shape[1] : 1),
                         (long long)param->shape[0], (long long)param->shape[1]);
    }
    if (tensor->dtype == MEED_TENSOR_OTHER) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "%s: tensor '%s' is quantised or integer; F32, F16, BF16 and F64 load",
                         checkpoint->folder, param->name);
    }
    seen[tensor - meed_safetensors_at(checkpoint->weights, 0)] = 1;
    return MEED_OK;
}

static bool is_harmless(const struct meed_checkpoint *checkpoint, const char *name)
{
    return strstr(name, "rotary_emb.inv_freq") != NULL ||
           (checkpoint->config.tied && strcmp(name, "lm_head.weight") == 0);
}

static enum meed_status check_table(const struct meed_checkpoint *checkpoint, uint8_t *seen)
{
    struct meed_param param;
    bool present = false;
    for (int64_t i = 0; meed_param_walk(&checkpoint->config, i, &present, &param); i++) {
        if (present) {
            MEED_TRY(check_tensor(checkpoint, &param, seen));
        }
    }
    for (int64_t i = 0; i < meed_safetensors_count(checkpoint->weights); i++) {
        const char *name = meed_safetensors_at(checkpoint->weights, i)->name;
        if (!seen[i] && !is_harmless(checkpoint, name)) {
            return MEED_FAIL(MEED_UNSUPPORTED,
                             "%s: tensor '%.128s' has no place in a %s; the model would compute "
                             "something else without it",
                             checkpoint->folder, name, checkpoint->config.architecture);
        }
    }
    return MEED_OK;
}

static enum meed_status check_weights(const struct meed_checkpoint *checkpoint)
{
    int64_t count = meed_safetensors_count(checkpoint->weights);
    uint8_t *seen = meed_heap_alloc((size_t)MEED_MAX(count, (int64_t)1), 1);
    if (!seen) {
        return MEED_NOMEM;
    }
    enum meed_status st =
        count > 0 ? check_table(checkpoint, seen)
                  : MEED_FAIL(MEED_FORMAT, "%s: the weights hold no tensor", checkpoint->folder);
    meed_heap_free(seen);
    return st;
}

static enum meed_status hash_folder(struct meed_checkpoint *checkpoint)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf text;
    struct meed_sha256 *hash = NULL;
    meed_buf_init(&text, MAX_CONFIG_BYTES);
    MEED_TRY_OUT(meed_file_join(checkpoint->folder, "config.json", path, sizeof path));
    MEED_TRY_OUT(meed_file_read(path, &text));
    MEED_TRY_OUT(meed_sha256_create(&hash));
    meed_sha256_update(hash, text.data, text.size);
    meed_safetensors_hash(checkpoint->weights, hash);
    meed_sha256_final(hash, checkpoint->hash);
out:
    meed_buf_clear(&text);
    return st;
}

enum meed_status meed_checkpoint_open(const char *folder, struct meed_checkpoint **checkpoint)
{
    enum meed_status st = MEED_OK;
    struct meed_checkpoint *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    if (strlen(folder) >= sizeof made->folder) {
        st = MEED_FAIL(MEED_LIMIT, "the path '%.64s…' is longer than %zu bytes", folder,
                       sizeof made->folder - 1);
        goto out;
    }
    memcpy(made->folder, folder, strlen(folder) + 1);
    MEED_TRY_OUT(meed_model_config_load(folder, &made->config));
    MEED_TRY_OUT(meed_safetensors_open_folder(folder, &made->weights));
    MEED_TRY_OUT(check_weights(made));
    MEED_TRY_OUT(hash_folder(made));
    *checkpoint = made;
out:
    if (st != MEED_OK) {
        meed_checkpoint_close(made);
    }
    return st;
}

void meed_checkpoint_close(struct meed_checkpoint *checkpoint)
{
    if (checkpoint) {
        meed_safetensors_close(checkpoint->weights);
        meed_heap_free(checkpoint);
    }
}
