/* A network's life: checks of what is asked for, creation, adapters and masters, release. The
 * mathematics is in net_forward.c, net_backward.c and net_decode.c; memory in net_layout.c. */
#include "engine/net_internal.h"

#include <string.h>
#include "base/buf.h"

static enum meed_status check_adapter(const struct meed_model_config *config,
                                      const struct meed_adapter *adapter, int32_t idx)
{
    if (adapter->layers != config->layers) {
        return MEED_FAIL(MEED_ARG, "adapter %d was made for %d layers, the model has %d", idx,
                         adapter->layers, config->layers);
    }
    for (int32_t i = 0; i < adapter->module_count; i++) {
        const struct meed_adapter_module *module = &adapter->modules[i];
        if (module->k != meed_proj_inputs(config, module->proj) ||
            module->n != meed_proj_outputs(config, module->proj)) {
            return MEED_FAIL(MEED_ARG,
                             "adapter %d, layer %d %s: [%lld, %lld] does not fit the model's "
                             "[%lld, %lld]",
                             idx, module->layer, meed_proj_infos[module->proj].path,
                             (long long)module->n, (long long)module->k,
                             (long long)meed_proj_outputs(config, module->proj),
                             (long long)meed_proj_inputs(config, module->proj));
        }
    }
    return MEED_OK;
}

static enum meed_status check_options(const struct meed_model_config *config,
                                      const struct meed_net_options *options)
{
    if (options->max_rows < 1 || options->max_sequences < 1 || options->adapter_count < 0) {
        return MEED_FAIL(MEED_ARG, "a network of %d rows and %d sequences; both must be positive",
                         options->max_rows, options->max_sequences);
    }
    if (!(options->dropout >= 0.0f && options->dropout < 1.0f)) {
        return MEED_FAIL(MEED_ARG, "dropout %g; allowed is 0 to below 1", (double)options->dropout);
    }
    for (int32_t i = 0; i < options->adapter_count; i++) {
        MEED_TRY(check_adapter(config, options->adapters[i], i));
    }
    return MEED_OK;
}

enum meed_status meed_net_create(const struct meed_backend *be,
                                 const struct meed_checkpoint *checkpoint,
                                 const struct meed_net_options *options, struct meed_net **net)
{
    enum meed_status st = MEED_OK;
    MEED_TRY(check_options(&checkpoint->config, options));
    struct meed_net *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = be;
    made->config = checkpoint->config;
    made->options = *options;
    MEED_TRY_OUT(meed_net_lay_out(made));
    made->merge_gates_host =
        meed_heap_alloc((size_t)MEED_MAX(made->layout_width, (int64_t)1), sizeof(float));
    made->dropout_keys_host = meed_heap_alloc((size_t)made->config.layers * MEED_GROUP_COUNT,
                                              sizeof *made->dropout_keys_host);
    made->loaded = meed_heap_alloc(1, sizeof *made->loaded);
    if (!made->merge_gates_host || !made->dropout_keys_host || !made->loaded) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(meed_net_fill(made, checkpoint));
    made->options.adapters = NULL; /* the caller's array need not outlive this call */
    for (int32_t i = 0; i < options->adapter_count; i++) {
        MEED_TRY_OUT(meed_net_set_adapter(made, i, options->adapters[i]));
    }
    *net = made;
out:
    if (st != MEED_OK) {
        meed_net_destroy(made);
    }
    return st;
}

static void forget_group(const struct meed_net *net, const struct meed_net_group *group)
{
    const struct meed_backend *be = net->be;
    be->forget(be, group->weight.data);
    if (group->r > 0) {
        be->forget(be, group->tail.data);
        be->forget(be, group->a.data);
    }
}

/* Weights lie inside one block, so their packed copies must be dropped one by one. */
static void forget_weights(const struct meed_net *net)
{
    net->be->forget(net->be, net->embed.data);
    net->be->forget(net->be, net->head.data);
    for (int32_t i = 0; i < net->config.layers; i++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            forget_group(net, meed_net_group_at(net, i, (enum meed_group)g));
        }
    }
}

void meed_net_destroy(struct meed_net *net)
{
    if (!net) {
        return;
    }
    if (net->device.base) {
        forget_weights(net);
    }
    meed_net_gates_clear(net);
    meed_heap_free(net->merge_gates_host);
    meed_heap_free(net->dropout_keys_host);
    meed_heap_free(net->loaded);
    meed_device_arena_clear(&net->device);
    meed_arena_clear(&net->host);
    meed_heap_free(net);
}

const struct meed_model_config *meed_net_config(const struct meed_net *net)
{
    return &net->config;
}

int64_t meed_net_device_bytes(const struct meed_net *net)
{
    return (int64_t)(net->device.capacity + net->gates.device.capacity);
}

int64_t meed_net_master_count(const struct meed_net *net)
{
    return net->master_count;
}

/* --- factors into A and [W | s∘B] --------------------------------------------------------------
 */

static void pack_slot(const struct meed_net *net, const struct meed_net_group *group,
                      const struct meed_net_slot *slot, const float *a, const float *b)
{
    struct meed_mat a_rows = meed_mat_rows(group->a, slot->t_begin, slot->r);
    struct meed_mat module =
        meed_mat_rows(group->tail, meed_proj_row_begin(&net->config, slot->proj),
                      meed_proj_outputs(&net->config, slot->proj));
    struct meed_mat tail = meed_mat_cols(module, slot->t_begin, slot->r);
    net->be->lora_pack(net->be, a, b, slot->scale, a_rows, tail);
}

void meed_net_load_masters(struct meed_net *net, const float *masters_dev)
{
    MEED_ASSERT(net->options.adapter_count > 0);
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            struct meed_net_group *group = meed_net_group_at(net, layer, (enum meed_group)g);
            if (group->slot_count > 0) {
                forget_group(net, group);
            }
            for (int32_t i = 0; i < group->slot_count; i++) {
                const struct meed_net_slot *slot = &group->slots[i];
                const float *a = masters_dev + slot->flat;
                if (slot->adapter == 0) {
                    pack_slot(net, group, slot, a, a + slot->r * group->k);
                }
            }
        }
    }
}

/* One module, by way of the staging block where the device cannot read the host's memory. */
static enum meed_status set_slot(struct meed_net *net, struct meed_net_group *group,
                                 struct meed_net_slot *slot,
                                 const struct meed_adapter_module *module)
{
    const struct meed_backend *be = net->be;
    const float *a = module->a, *b = module->b;
    if (!be->host_memory) {
        float *to = net->staging_dev + slot->flat;
        size_t a_count = (size_t)(module->r * module->k);
        size_t b_count = (size_t)(module->n * module->r);
        MEED_TRY(be->copy_to(be, to, a, a_count * sizeof(float)));
        MEED_TRY(be->copy_to(be, to + a_count, b, b_count * sizeof(float)));
        a = to;
        b = to + a_count;
    }
    slot->scale = module->scale;
    forget_group(net, group);
    pack_slot(net, group, slot, a, b);
    return MEED_OK;
}

static enum meed_status check_same_shape(const struct meed_net *net, int32_t idx,
                                         const struct meed_adapter *adapter)
{
    int32_t found = 0;
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            const struct meed_net_group *group = meed_net_group_at(net, layer, (enum meed_group)g);
            for (int32_t i = 0; i < group->slot_count; i++) {
                const struct meed_net_slot *slot = &group->slots[i];
                if (slot->adapter != idx) {
                    continue;
                }
                const struct meed_adapter_module *module =
                    meed_adapter_find(adapter, layer, slot->proj);
                if (!module || module->r != slot->r) {
                    return MEED_FAIL(MEED_ARG,
                                     "adapter %d, layer %d %s: rank %lld where the network was "
                                     "built for %lld",
                                     idx, layer, meed_proj_infos[slot->proj].path,
                                     module ? (long long)module->r : 0, (long long)slot->r);
                }
                found++;
            }
        }
    }
    if (found != adapter->module_count) {
        return MEED_FAIL(MEED_ARG, "adapter %d has %d modules, the network was built for %d", idx,
                         adapter->module_count, found);
    }
    return MEED_OK;
}

enum meed_status meed_net_set_adapter(struct meed_net *net, int32_t idx,
                                      const struct meed_adapter *adapter)
{
    if (idx < 0 || idx >= net->options.adapter_count) {
        return MEED_FAIL(MEED_ARG, "adapter %d of a network with %d", idx,
                         net->options.adapter_count);
    }
    MEED_TRY(check_adapter(&net->config, adapter, idx));
    MEED_TRY(check_same_shape(net, idx, adapter));
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            struct meed_net_group *group = meed_net_group_at(net, layer, (enum meed_group)g);
            for (int32_t i = 0; i < group->slot_count; i++) {
                struct meed_net_slot *slot = &group->slots[i];
                if (slot->adapter == idx) {
                    MEED_TRY(
                        set_slot(net, group, slot, meed_adapter_find(adapter, layer, slot->proj)));
                }
            }
        }
    }
    return net->be->sync(net->be);
}
