/* See audit_update.h. */
#include "cli/audit_update.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/file.h"

enum meed_status meed_audit_global_load(const char *path, const struct meed_model_config *model,
                                        struct meed_adapter **global)
{
    struct stat info;
    struct meed_buf bytes;
    if (stat(path, &info) != 0 || S_ISDIR(info.st_mode)) {
        return meed_adapter_load(path, model, global);
    }
    meed_buf_init(&bytes, MEED_ADAPTER_MAX_FILE_BYTES);
    enum meed_status st = meed_file_read(path, &bytes);
    if (st == MEED_OK) {
        st = meed_adapter_unpack(path, bytes.data, bytes.size, model, global);
    }
    meed_buf_clear(&bytes);
    return st;
}

/* The negotiated layout: module by module, A then B, into flat values; of SCAFFOLD's the tensors of
 * the control variate behind them, which belong to no model. */
struct layout {
    size_t count;
    struct meed_update_tensor *tensors;
    char (*names)[MEED_ADAPTER_NAME_BYTES];
    float *values;
};

static void layout_clear(struct layout *layout)
{
    meed_heap_free(layout->tensors);
    meed_heap_free(layout->names);
    meed_heap_free(layout->values);
}

static enum meed_status layout_make(const struct meed_adapter *shape, bool control,
                                    struct layout *layout)
{
    size_t parts = control ? 2 : 1, factors = 2 * (size_t)shape->module_count;
    layout->count = parts * factors;
    layout->tensors = meed_heap_alloc(layout->count, sizeof *layout->tensors);
    layout->names = meed_heap_alloc(layout->count, sizeof *layout->names);
    layout->values =
        meed_heap_alloc(parts * (size_t)meed_adapter_value_count(shape), sizeof *layout->values);
    if (!layout->tensors || !layout->names || !layout->values) {
        return MEED_NOMEM;
    }
    float *at = layout->values;
    for (size_t i = 0; i < layout->count; i++) {
        const struct meed_adapter_module *module = &shape->modules[i % factors / 2];
        const bool a = i % 2 == 0;
        char name[MEED_ADAPTER_NAME_BYTES];
        meed_adapter_tensor_name(module, a ? 'A' : 'B', name);
        snprintf(layout->names[i], sizeof layout->names[i], "%s%.36s",
                 i < factors ? "" : MEED_UPDATE_CONTROL_PREFIX, name);
        layout->tensors[i] =
            (struct meed_update_tensor){.name = layout->names[i],
                                        .rows = (int32_t)(a ? module->r : module->n),
                                        .cols = (int32_t)(a ? module->k : module->r),
                                        .factor = a ? MEED_UPDATE_FACTOR_A : MEED_UPDATE_FACTOR_B,
                                        .values = at};
        at += (int64_t)layout->tensors[i].rows * layout->tensors[i].cols;
    }
    return MEED_OK;
}

static enum meed_status decode(const struct meed_buf *packed, const struct meed_adapter *global,
                               const struct layout *layout, struct meed_update_header *header)
{
    enum meed_status st = MEED_OK;
    const int64_t most = meed_update_max_bytes(layout->tensors, layout->count);
    struct meed_msg_codec codec;
    struct meed_buf bytes;
    meed_buf_init(&bytes, (size_t)most);
    MEED_TRY_OUT(meed_update_zstd_unpack(packed->data, packed->size, most, &bytes));
    MEED_TRY_OUT(meed_update_peek(bytes.data, bytes.size, header));
    MEED_TRY_OUT(meed_adapter_hash(global, header->base_adapter_hash));
    MEED_TRY_OUT(meed_update_codec(bytes.data, bytes.size, layout->tensors, layout->count, &codec));
    MEED_TRY_OUT(
        meed_update_decode(bytes.data, bytes.size, header, &codec, layout->tensors, layout->count));
out:
    meed_buf_clear(&bytes);
    return st;
}

enum meed_status meed_audit_update_load(const char *path, const struct meed_adapter *global,
                                        struct meed_update_header *header,
                                        struct meed_adapter **adapter)
{
    enum meed_status st = MEED_OK;
    struct meed_update_header read;
    struct meed_buf packed;
    char why[512] = "";
    bool decoded = false;
    meed_buf_init(&packed, (size_t)MEED_LIMIT_TRANSFER_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &packed));
    for (int control = 0; control < 2 && !decoded; control++) {
        struct layout layout = {0};
        st = layout_make(global, control != 0, &layout);
        st = st == MEED_OK ? decode(&packed, global, &layout, &read) : st;
        if (st == MEED_OK) {
            decoded = true;
            st = meed_adapter_clone(global, adapter);
        }
        if (st == MEED_OK) {
            meed_adapter_add_flat(*adapter, layout.values);
            *header = read;
        } else if (control == 0) {
            snprintf(why, sizeof why, "%s", meed_last_error()); /* of the usual form */
        }
        layout_clear(&layout);
    }
    if (!decoded) {
        st = MEED_FAIL(st, "%.512s: %s", path, why);
    }
out:
    meed_buf_clear(&packed);
    return st;
}
