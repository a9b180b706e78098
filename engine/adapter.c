/* See adapter.h. Memory is one fixed arena an adapter: the module table and one block of factors in
 * flat order, laid out by one function that runs twice (measure, then carve). */
#include "engine/adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "engine/adapter_internal.h"

float meed_adapter_scale(double alpha, int64_t rank, bool rslora)
{
    double r = (double)rank;
    return (float)(alpha / (rslora ? sqrt(r) : r));
}

static int64_t module_values(const struct meed_adapter_module *module)
{
    return module->r * (module->k + module->n);
}

static enum meed_status lay_out(struct meed_adapter *adapter,
                                const struct meed_adapter_module *shapes, int32_t count)
{
    int64_t values = 0;
    for (int32_t i = 0; i < count; i++) {
        values += module_values(&shapes[i]);
    }
    void *modules = NULL, *factors = NULL;
    MEED_TRY(meed_arena_alloc_array(&adapter->arena, (size_t)count, sizeof *shapes, &modules));
    MEED_TRY(meed_arena_alloc_array(&adapter->arena, (size_t)values, sizeof(float), &factors));
    if (!modules || !factors) {
        return MEED_OK; /* measuring */
    }
    adapter->modules = modules;
    float *next = factors;
    for (int32_t i = 0; i < count; i++) {
        struct meed_adapter_module *module = &adapter->modules[i];
        *module = shapes[i];
        module->a = next;
        module->b = next + module->r * module->k;
        next += module_values(module);
    }
    return MEED_OK;
}

static enum meed_status check_shapes(const struct meed_adapter_module *shapes, int32_t count)
{
    if (count <= 0) {
        return MEED_FAIL(MEED_ARG, "an adapter needs at least one target module");
    }
    for (int32_t i = 0; i < count; i++) {
        const struct meed_adapter_module *at = &shapes[i];
        if (at->r < 1 || at->r > MEED_ADAPTER_MAX_RANK) {
            return MEED_FAIL(MEED_LIMIT, "layer %d %s: rank %lld; allowed are 1 to %d", at->layer,
                             meed_proj_infos[at->proj].path, (long long)at->r,
                             MEED_ADAPTER_MAX_RANK);
        }
        MEED_ASSERT(i == 0 || at[-1].layer < at->layer ||
                    (at[-1].layer == at->layer && at[-1].proj < at->proj));
    }
    return MEED_OK;
}

enum meed_status meed_adapter_create_shaped(const struct meed_adapter_module *shapes, int32_t count,
                                            const struct meed_lora_config *lora, int32_t layers,
                                            struct meed_adapter **adapter)
{
    enum meed_status st = MEED_OK;
    MEED_TRY(check_shapes(shapes, count));
    struct meed_adapter *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->lora = *lora;
    made->lora.rank = 0;
    made->lora.targets = 0;
    for (int32_t i = 0; i < count; i++) {
        made->lora.rank = (int32_t)MEED_MAX((int64_t)made->lora.rank, shapes[i].r);
        made->lora.targets |= 1u << shapes[i].proj;
    }
    made->layers = layers;
    made->module_count = count;
    meed_arena_init(&made->arena, "adapter");
    MEED_TRY_OUT(lay_out(made, shapes, count));
    MEED_TRY_OUT(meed_arena_reserve(&made->arena));
    MEED_TRY_OUT(lay_out(made, shapes, count));
    meed_arena_seal(&made->arena);
    *adapter = made;
    made = NULL;
out:
    meed_adapter_destroy(made);
    return st;
}

static enum meed_status check_lora(const struct meed_lora_config *lora)
{
    if (lora->rank < 1 || lora->rank > MEED_ADAPTER_MAX_RANK) {
        return MEED_FAIL(MEED_ARG, "LoRA rank %d; allowed are 1 to %d", lora->rank,
                         MEED_ADAPTER_MAX_RANK);
    }
    if (!(lora->alpha > 0.0f) || !isfinite(lora->alpha)) {
        return MEED_FAIL(MEED_ARG, "LoRA alpha %g; it must be a positive number",
                         (double)lora->alpha);
    }
    if (!(lora->dropout >= 0.0f && lora->dropout < 1.0f)) {
        return MEED_FAIL(MEED_ARG, "LoRA dropout %g; allowed is 0 up to, not including, 1",
                         (double)lora->dropout);
    }
    if (lora->targets == 0 || (lora->targets & ~(meed_proj_set)MEED_PROJ_ALL) != 0) {
        return MEED_FAIL(MEED_ARG, "LoRA needs target modules, for example q_proj,v_proj or all");
    }
    return MEED_OK;
}

enum meed_status meed_adapter_create(const struct meed_model_config *model,
                                     const struct meed_lora_config *lora,
                                     struct meed_adapter **adapter)
{
    MEED_TRY(check_lora(lora));
    struct meed_adapter_module *shapes =
        meed_heap_alloc((size_t)model->layers * MEED_PROJ_COUNT, sizeof *shapes);
    if (!shapes) {
        return MEED_NOMEM;
    }
    int32_t count = 0;
    for (int32_t layer = 0; layer < model->layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            if (!(lora->targets & 1u << proj)) {
                continue;
            }
            shapes[count++] = (struct meed_adapter_module){
                .layer = layer,
                .proj = (enum meed_proj)proj,
                .k = meed_proj_inputs(model, (enum meed_proj)proj),
                .n = meed_proj_outputs(model, (enum meed_proj)proj),
                .r = lora->rank,
                .scale = meed_adapter_scale((double)lora->alpha, lora->rank, lora->rslora),
            };
        }
    }
    enum meed_status st = meed_adapter_create_shaped(shapes, count, lora, model->layers, adapter);
    meed_heap_free(shapes);
    return st;
}

/* A module's numbers come from its own sub-stream, so they do not depend on which other modules are
 * trained. */
void meed_adapter_init(struct meed_adapter *adapter, uint64_t seed)
{
    for (int32_t i = 0; i < adapter->module_count; i++) {
        struct meed_adapter_module *module = &adapter->modules[i];
        uint64_t sub = (uint64_t)module->layer * MEED_PROJ_COUNT + (uint64_t)module->proj;
        struct meed_rng rng = meed_rng_stream(seed, "adapter init", sub);
        double bound = 1.0 / sqrt((double)module->k);
        for (int64_t j = 0; j < module->r * module->k; j++) {
            module->a[j] = (float)((2.0 * meed_rng_unit(&rng) - 1.0) * bound);
        }
        memset(module->b, 0, (size_t)(module->n * module->r) * sizeof(float));
    }
}

enum meed_status meed_adapter_clone(const struct meed_adapter *source,
                                    struct meed_adapter **adapter)
{
    struct meed_adapter *made = NULL;
    MEED_TRY(meed_adapter_create_shaped(source->modules, source->module_count, &source->lora,
                                        source->layers, &made));
    meed_adapter_to_flat(source, made->modules[0].a);
    *adapter = made;
    return MEED_OK;
}

enum meed_status meed_adapter_create_like(const struct meed_adapter *like, const int64_t *ranks,
                                          struct meed_adapter **adapter)
{
    struct meed_adapter_module *shapes =
        meed_heap_alloc((size_t)like->module_count, sizeof *shapes);
    if (!shapes) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < like->module_count; i++) {
        shapes[i] = like->modules[i];
        shapes[i].r = ranks[i];
    }
    enum meed_status st =
        meed_adapter_create_shaped(shapes, like->module_count, &like->lora, like->layers, adapter);
    meed_heap_free(shapes);
    return st;
}

void meed_adapter_destroy(struct meed_adapter *adapter)
{
    if (adapter) {
        meed_arena_clear(&adapter->arena);
        meed_heap_free(adapter);
    }
}

const struct meed_adapter_module *meed_adapter_find(const struct meed_adapter *adapter,
                                                    int32_t layer, enum meed_proj proj)
{
    int32_t begin = 0, end = adapter->module_count;
    while (begin < end) {
        int32_t mid = begin + (end - begin) / 2;
        const struct meed_adapter_module *at = &adapter->modules[mid];
        if (at->layer == layer && at->proj == proj) {
            return at;
        }
        if (at->layer < layer || (at->layer == layer && at->proj < proj)) {
            begin = mid + 1;
        } else {
            end = mid;
        }
    }
    return NULL;
}

bool meed_adapter_same_shape(const struct meed_adapter *x, const struct meed_adapter *y)
{
    if (x->module_count != y->module_count) {
        return false;
    }
    for (int32_t i = 0; i < x->module_count; i++) {
        const struct meed_adapter_module *p = &x->modules[i], *q = &y->modules[i];
        if (p->layer != q->layer || p->proj != q->proj || p->k != q->k || p->n != q->n ||
            p->r != q->r || memcmp(&p->scale, &q->scale, sizeof p->scale) != 0) {
            return false;
        }
    }
    return true;
}

bool meed_adapter_equal(const struct meed_adapter *x, const struct meed_adapter *y)
{
    return meed_adapter_same_shape(x, y) &&
           memcmp(x->modules[0].a, y->modules[0].a,
                  (size_t)meed_adapter_value_count(x) * sizeof(float)) == 0;
}

int64_t meed_adapter_value_count(const struct meed_adapter *adapter)
{
    int64_t count = 0;
    for (int32_t i = 0; i < adapter->module_count; i++) {
        count += module_values(&adapter->modules[i]);
    }
    return count;
}

void meed_adapter_to_flat(const struct meed_adapter *adapter, float *values)
{
    memcpy(values, adapter->modules[0].a,
           (size_t)meed_adapter_value_count(adapter) * sizeof(float));
}

void meed_adapter_from_flat(struct meed_adapter *adapter, const float *values)
{
    memcpy(adapter->modules[0].a, values,
           (size_t)meed_adapter_value_count(adapter) * sizeof(float));
}

void meed_adapter_add_flat(struct meed_adapter *adapter, const float *delta)
{
    float *values = adapter->modules[0].a;
    int64_t count = meed_adapter_value_count(adapter);
    for (int64_t i = 0; i < count; i++) {
        if (delta[i] != 0.0f) {
            values[i] += delta[i];
        }
    }
}

void meed_adapter_tensor_name(const struct meed_adapter_module *module, char factor,
                              char name[MEED_ADAPTER_NAME_BYTES])
{
    const char *proj = meed_proj_infos[module->proj].short_name;
    snprintf(name, MEED_ADAPTER_NAME_BYTES, "layers.%d.%.*s.%c", module->layer,
             (int)strcspn(proj, "_"), proj, factor);
}

enum meed_status meed_adapter_check_finite(const struct meed_adapter *adapter, const char *name)
{
    for (int32_t i = 0; i < adapter->module_count; i++) {
        const struct meed_adapter_module *module = &adapter->modules[i];
        for (int64_t j = 0; j < module_values(module); j++) {
            if (!isfinite(module->a[j])) {
                return MEED_FAIL(MEED_NUMERIC,
                                 "%s: layer %d %s holds a value that is not finite; the training "
                                 "that wrote it diverged",
                                 name, module->layer, meed_proj_infos[module->proj].path);
            }
        }
    }
    return MEED_OK;
}

enum meed_status meed_adapter_hash(const struct meed_adapter *adapter,
                                   uint8_t hash[MEED_SHA256_BYTES])
{
    enum meed_status st = MEED_OK;
    struct meed_buf bytes;
    meed_buf_init(&bytes, MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(meed_adapter_pack(adapter, &bytes));
    meed_sha256(bytes.data, bytes.size, hash);
out:
    meed_buf_clear(&bytes);
    return st;
}
