/* See incoming.h. */
#include "server/incoming.h"

#include <stdio.h>
#include <string.h>

struct meed_incoming {
    size_t tensor_count;
    struct meed_update_tensor *tensors;
    char (*names)[MEED_ADAPTER_NAME_BYTES];
    float *values;        /* flat, in the adapter's order: module by module, A then B */
    const float *control; /* behind them; NULL: none */
    int64_t value_count;
};

/* One run over the shape's factors from tensor `first` on; returns the end of their values. */
static float *lay_out(struct meed_incoming *incoming, const struct meed_adapter *shape,
                      size_t first, const char *prefix, float *at)
{
    for (int32_t m = 0; m < shape->module_count; m++) {
        const struct meed_adapter_module *module = &shape->modules[m];
        for (size_t half = 0; half < 2; half++) {
            size_t i = first + 2 * (size_t)m + half;
            struct meed_update_tensor *tensor = &incoming->tensors[i];
            char name[MEED_ADAPTER_NAME_BYTES];
            meed_adapter_tensor_name(module, half == 0 ? 'A' : 'B', name);
            snprintf(incoming->names[i], sizeof incoming->names[i], "%s%.36s", prefix, name);
            tensor->name = incoming->names[i];
            tensor->rows = (int32_t)(half == 0 ? module->r : module->n);
            tensor->cols = (int32_t)(half == 0 ? module->k : module->r);
            tensor->factor = half == 0 ? MEED_UPDATE_FACTOR_A : MEED_UPDATE_FACTOR_B;
            tensor->values = at;
            at += (int64_t)tensor->rows * tensor->cols;
        }
    }
    return at;
}

enum meed_status meed_incoming_create(const struct meed_adapter *shape, bool control,
                                      struct meed_incoming **incoming)
{
    struct meed_incoming *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    size_t parts = control ? 2 : 1, factors = 2 * (size_t)shape->module_count;
    made->tensor_count = parts * factors;
    made->value_count = (int64_t)parts * meed_adapter_value_count(shape);
    made->tensors = meed_heap_alloc(made->tensor_count, sizeof *made->tensors);
    made->names = meed_heap_alloc(made->tensor_count, sizeof *made->names);
    made->values = meed_heap_alloc((size_t)made->value_count, sizeof *made->values);
    if (!made->tensors || !made->names || !made->values) {
        meed_incoming_destroy(made);
        return MEED_NOMEM;
    }
    float *end = lay_out(made, shape, 0, "", made->values);
    if (control) {
        made->control = end;
        lay_out(made, shape, factors, MEED_UPDATE_CONTROL_PREFIX, end);
    }
    *incoming = made;
    return MEED_OK;
}

void meed_incoming_destroy(struct meed_incoming *incoming)
{
    if (incoming) {
        meed_heap_free(incoming->tensors);
        meed_heap_free(incoming->names);
        meed_heap_free(incoming->values);
        meed_heap_free(incoming);
    }
}

int64_t meed_incoming_max_bytes(const struct meed_incoming *incoming)
{
    return MEED_MIN(meed_update_max_bytes(incoming->tensors, incoming->tensor_count),
                    MEED_LIMIT_TRANSFER_BYTES);
}

/* A factor that the plan holds fixed must come back unchanged. */
static enum meed_status check_frozen(const struct meed_incoming *incoming, uint32_t trained)
{
    for (size_t i = 0; i < incoming->tensor_count; i++) {
        const struct meed_update_tensor *tensor = &incoming->tensors[i];
        uint32_t bit = tensor->factor == MEED_UPDATE_FACTOR_A ? MEED_FACTOR_A : MEED_FACTOR_B;
        int64_t count = (int64_t)tensor->rows * tensor->cols;
        for (int64_t j = 0; (trained & bit) == 0 && j < count; j++) {
            if (tensor->values[j] != 0.0f) {
                return MEED_FAIL(MEED_FORMAT,
                                 "the update changes %s, which this round does not "
                                 "train",
                                 tensor->name);
            }
        }
    }
    return MEED_OK;
}

enum meed_status meed_incoming_decode(struct meed_incoming *incoming,
                                      const struct meed_terms *terms, const char *client,
                                      int32_t round, const uint8_t base_hash[MEED_SHA256_BYTES],
                                      const void *bytes, size_t size)
{
    enum meed_status st = MEED_OK;
    int64_t most = meed_incoming_max_bytes(incoming);
    struct meed_update_header header;
    struct meed_buf plain;
    meed_buf_init(&plain, (size_t)most);
    meed_terms_update_header(terms, client, round, base_hash, &header);
    MEED_TRY_OUT(meed_update_zstd_unpack(bytes, size, most, &plain));
    MEED_TRY_OUT(meed_update_decode(plain.data, plain.size, &header, &terms->plan.codec,
                                    incoming->tensors, incoming->tensor_count));
    MEED_TRY_OUT(check_frozen(incoming, meed_terms_trained(terms, round)));
out:
    meed_buf_clear(&plain);
    return st;
}

const float *meed_incoming_control(const struct meed_incoming *incoming)
{
    return incoming->control;
}

/* Onto the first `cols` columns of each row of the target. */
static void add(const struct meed_update_tensor *change, float *target, int64_t stride)
{
    for (int64_t i = 0; i < (int64_t)change->rows * change->cols; i++) {
        if (change->values[i] != 0.0f) {
            target[i / change->cols * stride + i % change->cols] += change->values[i];
        }
    }
}

enum meed_status meed_incoming_apply(const struct meed_incoming *incoming,
                                     const struct meed_adapter *global,
                                     struct meed_adapter **adapter)
{
    struct meed_adapter *made = NULL;
    MEED_TRY(meed_adapter_clone(global, &made));
    for (int32_t m = 0; m < made->module_count; m++) {
        struct meed_adapter_module *module = &made->modules[m];
        const struct meed_update_tensor *change = &incoming->tensors[2 * (size_t)m];
        MEED_ASSERT(change[0].rows <= module->r && change[0].cols == module->k);
        add(&change[0], module->a, module->k);
        add(&change[1], module->b, module->r);
    }
    *adapter = made;
    return MEED_OK;
}
