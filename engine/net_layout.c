/* The layout of a network: how wide every tail is, which columns belong to whom, and every block of
 * memory that the network will ever use.
 *
 * The order is fixed: host tables (layers, slots) first, then the plan of tails from the adapters'
 * shapes, then the device block. Both memories are laid out by functions that run twice, measuring
 * and then for real, so size and use cannot disagree. A network that trains keeps the activations
 * of all layers; one that scores hands the same buffers to every layer.
 */
#include "engine/net_internal.h"

#include <math.h>

enum {
    HEAD_BYTES_HOST = 4 << 20,     /* logits at a time: what a core's cache may still hold */
    HEAD_BYTES_DEVICE = 256 << 20, /* and what keeps a GPU busy */
    HEAD_MIN_ROWS = 64
};

/* --- host tables ------------------------------------------------------------------------------ */

static int32_t count_slots(const struct meed_net *net, int32_t layer, enum meed_group group)
{
    int32_t count = 0;
    for (int32_t i = 0; i < net->options.adapter_count; i++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            count += meed_proj_infos[proj].group == group &&
                     meed_adapter_find(net->options.adapters[i], layer, (enum meed_proj)proj);
        }
    }
    return count;
}

static enum meed_status take_host(struct meed_net *net, size_t count, size_t item_bytes,
                                  void **block)
{
    return meed_arena_alloc_array(&net->host, count, item_bytes, block);
}

static enum meed_status lay_out_host(struct meed_net *net)
{
    size_t layers = (size_t)net->config.layers;
    void *block = NULL;
    MEED_TRY(take_host(net, layers, sizeof *net->layers, &block));
    net->layers = block;
    MEED_TRY(take_host(net, layers * MEED_GROUP_COUNT, sizeof *net->layouts, &block));
    net->layouts = block;
    MEED_TRY(take_host(net, (size_t)net->options.max_rows, sizeof(int32_t), &block));
    net->rows_host = block;
    MEED_TRY(take_host(net, (size_t)net->options.max_rows * MEED_NET_FEED_WORDS, sizeof(int32_t),
                       &block));
    net->feed_host = block;
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            int32_t count = count_slots(net, layer, (enum meed_group)g);
            MEED_TRY(take_host(net, (size_t)count, sizeof(struct meed_net_slot), &block));
            if (net->layers) {
                net->layers[layer].groups[g].slots = block;
            }
        }
    }
    return MEED_OK;
}

/* --- the plan of tails ------------------------------------------------------------------------ */

/* Where a module begins in its adapter's flat vector. */
static int64_t flat_begin(const struct meed_adapter *adapter,
                          const struct meed_adapter_module *module)
{
    int64_t begin = 0;
    for (const struct meed_adapter_module *at = adapter->modules; at < module; at++) {
        begin += at->r * (at->k + at->n);
    }
    return begin;
}

static void plan_group(struct meed_net *net, int32_t layer, enum meed_group group)
{
    struct meed_net_group *plan = meed_net_group_at(net, layer, group);
    plan->k = meed_group_inputs(&net->config, group);
    plan->n = meed_group_outputs(&net->config, group);
    int64_t width = 0;
    for (int32_t i = 0; i < net->options.adapter_count; i++) {
        const struct meed_adapter *adapter = net->options.adapters[i];
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            const struct meed_adapter_module *module =
                meed_proj_infos[proj].group == group
                    ? meed_adapter_find(adapter, layer, (enum meed_proj)proj)
                    : NULL;
            if (module) {
                plan->slots[plan->slot_count++] =
                    (struct meed_net_slot){.adapter = i,
                                           .proj = (enum meed_proj)proj,
                                           .t_begin = width,
                                           .r = module->r,
                                           .scale = module->scale,
                                           .flat = flat_begin(adapter, module)};
                width += module->r;
            }
        }
    }
    /* Products of few rows run at half their speed where K + R is no multiple of 32 (oneDNN 2.6,
     * bf16: one row, 2,064 columns 650 µs, 2,080 250 µs). Training has many rows and pays for every
     * column of the tail. */
    int64_t align = net->options.backward || plan->k % MEED_NET_TAIL_WIDE ? MEED_NET_TAIL_ALIGN
                                                                          : MEED_NET_TAIL_WIDE;
    plan->r = (width + align - 1) / align * align;
    if (width > 0) {
        net->stop = MEED_MIN(net->stop, (int64_t)layer * MEED_GROUP_COUNT + (int64_t)group);
    }
}

static bool same_layout(const struct meed_net_group *x, const struct meed_net_group *y)
{
    bool same = x->r == y->r && x->slot_count == y->slot_count;
    for (int32_t i = 0; same && i < x->slot_count; i++) {
        same = x->slots[i].adapter == y->slots[i].adapter && x->slots[i].r == y->slots[i].r;
    }
    return same;
}

static void assign_layout(struct meed_net *net, struct meed_net_group *group)
{
    group->layout = -1;
    if (group->r == 0) {
        return;
    }
    for (int32_t i = 0; i < net->layout_count; i++) {
        if (same_layout(net->layouts[i].model, group)) {
            group->layout = i;
            return;
        }
    }
    group->layout = net->layout_count++;
    net->layouts[group->layout] =
        (struct meed_net_layout){.model = group, .begin = net->layout_width};
    net->layout_width += group->r;
}

static void plan_tails(struct meed_net *net)
{
    net->stop = (int64_t)net->config.layers * MEED_GROUP_COUNT;
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            plan_group(net, layer, (enum meed_group)g);
            assign_layout(net, meed_net_group_at(net, layer, (enum meed_group)g));
        }
    }
    net->master_count =
        net->options.adapter_count > 0 ? meed_adapter_value_count(net->options.adapters[0]) : 0;
}

/* --- device memory ---------------------------------------------------------------------------- */

static float *take_floats(struct meed_net *net, int64_t count)
{
    return meed_device_arena_take(&net->device, count, sizeof(float));
}
static int32_t *take_ints(struct meed_net *net, int64_t count)
{
    return meed_device_arena_take(&net->device, count, sizeof(int32_t));
}
static struct meed_mat take_mat(struct meed_net *net, int64_t rows, int64_t cols)
{
    return meed_device_arena_mat(&net->device, rows, cols, net->options.dtype);
}

/* [W | s∘B] as one matrix, or W in blocks and s∘B beside it. */
static void lay_out_matrix(struct meed_net *net, struct meed_net_group *group)
{
    int64_t width = group->k + group->r;
    enum meed_block_format format = net->options.base;
    if (format == MEED_BLOCK_NONE) {
        group->weight = take_mat(net, group->n, width);
        group->tail = meed_mat_cols(group->weight, group->k, group->r);
        return;
    }
    int64_t blocks = group->n * meed_blocks_per_row(group->k);
    group->weight = meed_mat_view(net->unpacked, group->n, width, width, net->options.dtype);
    group->tail = take_mat(net, group->n, group->r);
    group->blocks = (struct meed_blocks){
        .codes = meed_device_arena_take(&net->device, blocks, (size_t)meed_block_bytes(format)),
        .scales = take_floats(net, blocks),
        .rows = group->n,
        .cols = group->k,
        .format = format,
    };
}

/* The widest K+R that any layer has in a group. */
static int64_t widest(const struct meed_net *net, enum meed_group group)
{
    int64_t width = 0;
    for (int32_t i = 0; i < net->config.layers; i++) {
        const struct meed_net_group *at = meed_net_group_at(net, i, group);
        width = MEED_MAX(width, at->k + at->r);
    }
    return width;
}

/* One scratch for all groups: only one product runs at a time. */
static void lay_out_unpacked(struct meed_net *net)
{
    int64_t largest = 0;
    for (int g = 0; g < MEED_GROUP_COUNT && net->options.base != MEED_BLOCK_NONE; g++) {
        largest = MEED_MAX(largest, net->layers[0].groups[g].n * widest(net, (enum meed_group)g));
    }
    size_t item_bytes = meed_dtype_bytes(net->options.dtype);
    net->unpacked = meed_device_arena_take(&net->device, largest, item_bytes);
    net->unpacked_bytes = (size_t)largest * item_bytes;
}

static void lay_out_layer_weights(struct meed_net *net, struct meed_net_layer *layer)
{
    for (int g = 0; g < MEED_GROUP_COUNT; g++) {
        struct meed_net_group *group = &layer->groups[g];
        lay_out_matrix(net, group);
        group->a = take_mat(net, group->r, group->k);
        group->bias =
            net->config.qkv_bias && g == MEED_GROUP_QKV ? take_floats(net, group->n) : NULL;
    }
    layer->norms[0] = take_floats(net, net->config.hidden);
    layer->norms[1] = take_floats(net, net->config.hidden);
    for (int i = 0; i < 2 && net->config.out_norms; i++) {
        layer->out_norms[i] = take_floats(net, net->config.hidden);
    }
    layer->q_norm = net->config.qk_norm ? take_floats(net, net->config.head_dim) : NULL;
    layer->k_norm = net->config.qk_norm ? take_floats(net, net->config.head_dim) : NULL;
}

static void lay_out_weights(struct meed_net *net)
{
    const struct meed_model_config *config = &net->config;
    net->embed = take_mat(net, config->vocab, config->hidden);
    net->head = config->tied ? net->embed : take_mat(net, config->vocab, config->hidden);
    net->final_norm = take_floats(net, config->hidden);
    int64_t angles = meed_net_rope_angles(net, net->rope_positions);
    net->rope.cos = take_floats(net, angles);
    net->rope.sin = take_floats(net, angles);
    lay_out_unpacked(net);
    for (int32_t i = 0; i < config->layers; i++) {
        lay_out_layer_weights(net, &net->layers[i]);
    }
    net->merge_gates = take_floats(net, net->layout_width);
    int64_t largest = 0;
    for (int32_t i = 0; i < net->options.adapter_count && !net->be->host_memory; i++) {
        largest = MEED_MAX(largest, meed_adapter_value_count(net->options.adapters[i]));
    }
    net->staging_dev = take_floats(net, largest);
}

static void lay_out_batch(struct meed_net *net)
{
    int64_t rows = net->options.max_rows;
    net->feed = take_ints(net, rows * MEED_NET_FEED_WORDS);
    if (net->feed) { /* keys first: they are 8 bytes wide */
        net->draw_keys = (uint64_t *)(void *)net->feed;
        net->ids = net->feed + 2 * rows;
        net->positions = net->feed + 3 * rows;
        net->wanted = net->feed + 4 * rows;
        net->slots = net->feed + 5 * rows;
        net->draws = net->feed + 6 * rows;
        net->gate_of_row = net->feed + 7 * rows;
        net->gate_of_wanted = net->feed + 8 * rows;
    }
    net->starts = take_ints(net, (int64_t)net->options.max_sequences + 1);
    net->targets = take_ints(net, rows);
    net->row_weight = take_floats(net, rows);
    net->logprob = take_floats(net, rows);
    if (net->options.dropout > 0.0f) {
        net->dropout_keys = meed_device_arena_take(
            &net->device, (int64_t)net->config.layers * MEED_GROUP_COUNT, sizeof(uint64_t));
    }
    net->last = take_mat(net, rows, net->config.hidden);
    net->picked_sum = take_mat(net, rows, net->config.hidden);
    net->picked_stream = take_mat(net, rows, net->config.hidden);
    net->final_y = take_mat(net, rows, net->config.hidden);
    net->final_rstd = take_floats(net, rows);
    net->logits = take_floats(net, (int64_t)net->chunk * net->config.vocab);
}

/* A layer's own activations, kept for the backward pass. */
static void lay_out_activations(struct meed_net *net, struct meed_net_layer *layer)
{
    const struct meed_model_config *config = &net->config;
    int64_t rows = net->options.max_rows;
    for (int i = 0; i < 2; i++) {
        layer->sums[i] = take_mat(net, rows, config->hidden);
        layer->rstd[i] = take_floats(net, rows);
        if (config->out_norms) {
            layer->outs[i] = take_mat(net, rows, config->hidden);
            layer->out_rstd[i] = take_floats(net, rows);
        }
    }
    for (int g = 0; g < MEED_GROUP_COUNT; g++) {
        layer->groups[g].xt = take_mat(net, rows, layer->groups[g].k + layer->groups[g].r);
    }
    layer->qkv = take_mat(net, rows, layer->groups[MEED_GROUP_QKV].n);
    layer->gu = take_mat(net, rows, layer->groups[MEED_GROUP_GATE_UP].n);
    layer->lse = take_floats(net, rows * config->heads);
    if (config->qk_norm) {
        layer->q_rstd = take_floats(net, rows * config->heads);
        layer->k_rstd = take_floats(net, rows * config->kv_heads);
    }
}

/* One set for all layers. Each layer views the shared memory with its own widths; rstd and lse are
 * for the backward pass only. */
static void share_activations(struct meed_net *net)
{
    int64_t rows = net->options.max_rows;
    struct meed_mat stream = take_mat(net, rows, net->config.hidden);
    struct meed_mat out = net->config.out_norms ? take_mat(net, rows, net->config.hidden) : stream;
    struct meed_mat qkv = take_mat(net, rows, net->layers[0].groups[MEED_GROUP_QKV].n);
    struct meed_mat gu = take_mat(net, rows, net->layers[0].groups[MEED_GROUP_GATE_UP].n);
    struct meed_mat xt[MEED_GROUP_COUNT];
    for (int g = 0; g < MEED_GROUP_COUNT; g++) {
        xt[g] = take_mat(net, rows, widest(net, (enum meed_group)g));
    }
    for (int32_t i = 0; i < net->config.layers; i++) {
        struct meed_net_layer *layer = &net->layers[i];
        layer->sums[0] = net->last;
        layer->sums[1] = stream;
        layer->outs[0] = layer->outs[1] = out;
        layer->qkv = qkv;
        layer->gu = gu;
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            int64_t width = layer->groups[g].k + layer->groups[g].r;
            layer->groups[g].xt = meed_mat_view(xt[g].data, rows, width, width, net->options.dtype);
        }
    }
}

static void lay_out_backward(struct meed_net *net)
{
    int64_t rows = net->options.max_rows;
    int64_t width = 0, factors = 0;
    for (int32_t i = 0; i < net->config.layers; i++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            const struct meed_net_group *group = meed_net_group_at(net, i, (enum meed_group)g);
            width = MEED_MAX(width, group->k + group->r);
            factors = MEED_MAX(factors, group->r * group->k);
        }
    }
    net->dsum = take_mat(net, rows, net->config.hidden);
    net->dxt = take_mat(net, rows, width).data;
    net->dout = take_mat(net, net->config.out_norms ? rows : 0, net->config.hidden);
    net->dqkv = take_mat(net, rows, net->layers[0].groups[MEED_GROUP_QKV].n);
    net->da = take_floats(net, factors);
    net->one = take_floats(net, 1);
}

static void lay_out_device(struct meed_net *net)
{
    lay_out_weights(net);
    lay_out_batch(net);
    if (!net->options.backward) {
        share_activations(net);
        return;
    }
    for (int32_t i = 0; i < net->config.layers; i++) {
        lay_out_activations(net, &net->layers[i]);
    }
    lay_out_backward(net);
}

/* Rows of logits at a time: never M × V, but enough to fill the machine. */
static int32_t head_chunk(const struct meed_net *net)
{
    int64_t budget = net->be->host_memory ? HEAD_BYTES_HOST : HEAD_BYTES_DEVICE;
    int64_t rows = budget / ((int64_t)net->config.vocab * (int64_t)sizeof(float));
    rows = MEED_MAX(rows, (int64_t)HEAD_MIN_ROWS);
    return (int32_t)MEED_MIN(rows, (int64_t)net->options.max_rows);
}

/* As Hugging Face does: the factor itself is a number of the model's dtype. */
static float embed_scale(const struct meed_net *net)
{
    float scale = net->config.embed_scaled ? (float)sqrt((double)net->config.hidden) : 1.0f;
    return net->options.dtype == MEED_DTYPE_BF16 ? meed_bf16_to_f32(meed_bf16_from_f32(scale))
                                                 : scale;
}

enum meed_status meed_net_lay_out(struct meed_net *net)
{
    meed_arena_init(&net->host, "network");
    MEED_TRY(lay_out_host(net));
    MEED_TRY(meed_arena_reserve(&net->host));
    MEED_TRY(lay_out_host(net));
    meed_arena_seal(&net->host);
    plan_tails(net);
    net->rope_positions = MEED_MIN(net->config.max_positions, net->options.max_rows);
    net->chunk = head_chunk(net);
    net->embed_scale = embed_scale(net);
    meed_device_arena_init(&net->device, net->be);
    lay_out_device(net);
    MEED_TRY(meed_device_arena_reserve(&net->device));
    lay_out_device(net);
    return MEED_OK;
}
