/* Base weights: from the checkpoint's map into the K-extended matrices, and merged variants of
 * them.
 *
 * A weight is converted a block of rows at a time (file dtype → fp32 → the net's dtype), so loading
 * needs one small scratch buffer, whatever the model's size. Where the device's memory is the
 * host's, the rows are written where they stay; elsewhere a matrix is built on the host and copied.
 *
 * A base in blocks is quantised on the way, from the file's own values and block of rows by block
 * of rows, so the peak of loading is the final size and that scratch. What is not finite is refused
 * here; kernels never see it.
 */
#include "engine/net_internal.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"

enum { SCRATCH_FLOATS = 1 << 20 };

struct filler {
    struct meed_net *net;
    const struct meed_checkpoint *checkpoint;
    float *scratch; /* [scratch_count] */
    int64_t scratch_count;
    void *staging; /* the largest matrix in the net's dtype; NULL if the host may write */
};

/* Present with the right shape: opening the checkpoint has made sure. */
static const struct meed_tensor *find(const struct filler *fill, enum meed_param_kind kind,
                                      int32_t layer, enum meed_proj proj)
{
    struct meed_param param;
    bool present = meed_param_describe(&fill->net->config, kind, layer, proj, &param);
    MEED_ASSERT(present);
    const struct meed_tensor *tensor = meed_safetensors_find(fill->checkpoint->weights, param.name);
    MEED_ASSERT(tensor);
    return tensor;
}

/* Values [begin, begin + count) of a tensor as fp32. */
static enum meed_status read_part(const struct meed_tensor *tensor, int64_t begin, int64_t count,
                                  float *out)
{
    struct meed_tensor part = *tensor;
    size_t item_bytes = tensor->size / (size_t)tensor->count;
    part.bytes = (const char *)tensor->bytes + (size_t)begin * item_bytes;
    part.count = count;
    part.size = (size_t)count * item_bytes;
    return meed_tensor_to_f32(&part, out);
}

static void round_row(const float *row, int64_t count, enum meed_dtype dtype, void *to)
{
    if (dtype == MEED_DTYPE_F32) {
        memcpy(to, row, (size_t)count * sizeof *row);
        return;
    }
    meed_bf16 *out = to;
    for (int64_t i = 0; i < count; i++) {
        out[i] = meed_bf16_from_f32(row[i]);
    }
}

/* Writes tensor [rows, cols] into rows of `to`, host memory with a stride, from row 0. */
static enum meed_status fill_rows(const struct filler *fill, const struct meed_tensor *tensor,
                                  struct meed_mat to)
{
    int64_t rows = tensor->shape[0], cols = tensor->shape[1];
    int64_t block = MEED_MAX(fill->scratch_count / cols, (int64_t)1);
    for (int64_t begin = 0; begin < rows; begin += block) {
        int64_t count = MEED_MIN(block, rows - begin);
        MEED_TRY(read_part(tensor, begin * cols, count * cols, fill->scratch));
        for (int64_t i = 0; i < count; i++) {
            round_row(fill->scratch + i * cols, cols, to.dtype,
                      meed_mat_rows(to, begin + i, 1).data);
        }
    }
    return MEED_OK;
}

/* Where the host builds a device matrix: in place, or in the zeroed staging block. */
static struct meed_mat host_view(const struct filler *fill, struct meed_mat device)
{
    if (fill->staging) {
        size_t bytes = (size_t)(device.rows * device.stride) * meed_dtype_bytes(device.dtype);
        memset(fill->staging, 0, bytes);
        device.data = fill->staging;
    }
    return device;
}

static enum meed_status host_done(const struct filler *fill, struct meed_mat device)
{
    const struct meed_backend *be = fill->net->be;
    if (!fill->staging) {
        be->forget(be, device.data);
        return MEED_OK;
    }
    size_t bytes = (size_t)(device.rows * device.stride) * meed_dtype_bytes(device.dtype);
    MEED_TRY(be->copy_to(be, device.data, fill->staging, bytes));
    return be->sync(be); /* the staging block is used again */
}

static enum meed_status fill_matrix(const struct filler *fill, enum meed_param_kind kind,
                                    struct meed_mat to)
{
    const struct meed_tensor *tensor = find(fill, kind, 0, MEED_PROJ_Q);
    MEED_TRY(fill_rows(fill, tensor, host_view(fill, to)));
    return host_done(fill, to);
}

static enum meed_status fill_vector(const struct filler *fill, enum meed_param_kind kind,
                                    int32_t layer, enum meed_proj proj, float *to)
{
    const struct meed_backend *be = fill->net->be;
    const struct meed_tensor *tensor = find(fill, kind, layer, proj);
    MEED_TRY(read_part(tensor, 0, tensor->count, fill->scratch));
    bool plus_one = fill->net->config.norm_plus_one && kind != MEED_PARAM_BIAS;
    for (int64_t i = 0; i < tensor->count && plus_one; i++) {
        fill->scratch[i] += 1.0f;
    }
    MEED_TRY(be->copy_to(be, to, fill->scratch, (size_t)tensor->count * sizeof(float)));
    return be->sync(be);
}

static enum meed_status check_finite(const struct meed_tensor *tensor, int64_t begin,
                                     const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) {
            return MEED_FAIL(MEED_NUMERIC,
                             "tensor '%s': value %lld is not finite, and no block can hold it; "
                             "repair the file, or load the base dense",
                             tensor->name, (long long)(begin + i));
        }
    }
    return MEED_OK;
}

/* Tensor [rows, cols] into blocks. Rows pass through the unpacking scratch where the device cannot
 * read the host's memory: it is idle until the first product. */
static enum meed_status fill_blocks(const struct filler *fill, const struct meed_tensor *tensor,
                                    struct meed_blocks to)
{
    const struct meed_backend *be = fill->net->be;
    int64_t rows = tensor->shape[0], cols = tensor->shape[1], room = fill->scratch_count;
    if (!be->host_memory) {
        room = MEED_MIN(room, (int64_t)(fill->net->unpacked_bytes / sizeof(float)));
    }
    int64_t block = MEED_MAX(room / cols, (int64_t)1);
    for (int64_t begin = 0; begin < rows; begin += block) {
        int64_t count = MEED_MIN(block, rows - begin);
        void *from = fill->scratch;
        MEED_TRY(read_part(tensor, begin * cols, count * cols, fill->scratch));
        MEED_TRY(check_finite(tensor, begin * cols, fill->scratch, count * cols));
        if (!be->host_memory) {
            from = fill->net->unpacked;
            MEED_TRY(be->copy_to(be, from, fill->scratch, (size_t)(count * cols) * sizeof(float)));
        }
        be->block_pack(be, meed_mat_view(from, count, cols, cols, MEED_DTYPE_F32),
                       meed_blocks_rows(to, begin, count));
        MEED_TRY(be->sync(be)); /* the scratch is used again */
    }
    return MEED_OK;
}

static enum meed_status fill_group(const struct filler *fill, int32_t layer, enum meed_group g)
{
    const struct meed_model_config *config = &fill->net->config;
    struct meed_net_group *group = meed_net_group_at(fill->net, layer, g);
    bool dense = group->blocks.format == MEED_BLOCK_NONE;
    struct meed_mat weight = dense ? host_view(fill, group->weight) : group->weight;
    for (int p = 0; p < MEED_PROJ_COUNT; p++) {
        enum meed_proj proj = (enum meed_proj)p;
        if (meed_proj_infos[proj].group != g) {
            continue;
        }
        int64_t row = meed_proj_row_begin(config, proj);
        const struct meed_tensor *tensor = find(fill, MEED_PARAM_WEIGHT, layer, proj);
        MEED_TRY(dense ? fill_rows(fill, tensor, meed_mat_rows(weight, row, weight.rows - row))
                       : fill_blocks(fill, tensor,
                                     meed_blocks_rows(group->blocks, row, tensor->shape[0])));
        if (group->bias) {
            MEED_TRY(fill_vector(fill, MEED_PARAM_BIAS, layer, proj, group->bias + row));
        }
    }
    return dense ? host_done(fill, group->weight) : MEED_OK;
}

static enum meed_status fill_layer(const struct filler *fill, int32_t idx)
{
    struct meed_net_layer *layer = &fill->net->layers[idx];
    MEED_TRY(fill_vector(fill, MEED_PARAM_INPUT_NORM, idx, MEED_PROJ_Q, layer->norms[0]));
    MEED_TRY(fill_vector(fill, MEED_PARAM_FFN_NORM, idx, MEED_PROJ_Q, layer->norms[1]));
    for (int i = 0; i < 2 && fill->net->config.out_norms; i++) {
        enum meed_param_kind kind =
            i == 0 ? MEED_PARAM_ATTENTION_OUT_NORM : MEED_PARAM_FFN_OUT_NORM;
        MEED_TRY(fill_vector(fill, kind, idx, MEED_PROJ_Q, layer->out_norms[i]));
    }
    if (fill->net->config.qk_norm) {
        MEED_TRY(fill_vector(fill, MEED_PARAM_Q_NORM, idx, MEED_PROJ_Q, layer->q_norm));
        MEED_TRY(fill_vector(fill, MEED_PARAM_K_NORM, idx, MEED_PROJ_Q, layer->k_norm));
    }
    for (int g = 0; g < MEED_GROUP_COUNT; g++) {
        MEED_TRY(fill_group(fill, idx, (enum meed_group)g));
    }
    return MEED_OK;
}

static enum meed_status fill_all(const struct filler *fill)
{
    struct meed_net *net = fill->net;
    MEED_TRY(fill_matrix(fill, MEED_PARAM_EMBED, net->embed));
    if (!net->config.tied) {
        MEED_TRY(fill_matrix(fill, MEED_PARAM_HEAD, net->head));
    }
    MEED_TRY(fill_vector(fill, MEED_PARAM_FINAL_NORM, 0, MEED_PROJ_Q, net->final_norm));
    for (int32_t i = 0; i < net->config.layers; i++) {
        MEED_TRY(fill_layer(fill, i));
    }
    return MEED_OK;
}

int64_t meed_net_rope_angles(const struct meed_net *net, int32_t positions)
{
    int64_t parts = net->config.rope_local_theta > 0 ? 2 : 1;
    return parts * positions * (net->config.head_dim / 2);
}

enum meed_status meed_net_fill_rope(const struct meed_net *net, int32_t positions,
                                    struct meed_rope_table table)
{
    const struct meed_backend *be = net->be;
    size_t angles = (size_t)meed_net_rope_angles(net, positions);
    size_t part = (size_t)positions * (size_t)(net->config.head_dim / 2);
    size_t bytes = angles * sizeof(float);
    float *host = meed_heap_alloc(2 * angles, sizeof *host);
    if (!host) {
        return MEED_NOMEM;
    }
    for (size_t at = 0; at < angles; at += part) {
        meed_model_config_rope(&net->config, at > 0, positions, host + at, host + angles + at);
    }
    enum meed_status st = be->copy_to(be, (void *)(uintptr_t)table.cos, host, bytes);
    MEED_KEEP_FIRST(st, be->copy_to(be, (void *)(uintptr_t)table.sin, host + angles, bytes));
    MEED_KEEP_FIRST(st, be->sync(be));
    meed_heap_free(host);
    return st;
}

/* The rotary table, and the constant one of the backward pass. */
static enum meed_status fill_tables(struct meed_net *net)
{
    const struct meed_backend *be = net->be;
    const float one = 1.0f;
    MEED_TRY(meed_net_fill_rope(net, net->rope_positions, net->rope));
    if (net->one) {
        MEED_TRY(be->copy_to(be, net->one, &one, sizeof one));
    }
    return be->sync(be);
}

static size_t largest_matrix_bytes(const struct meed_net *net)
{
    int64_t count = net->embed.rows * net->embed.stride;
    for (int32_t i = 0; i < net->config.layers; i++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            const struct meed_net_group *group = meed_net_group_at(net, i, (enum meed_group)g);
            bool dense = group->blocks.format == MEED_BLOCK_NONE;
            count = MEED_MAX(count, dense ? group->weight.rows * group->weight.stride : 0);
        }
    }
    return (size_t)count * meed_dtype_bytes(net->options.dtype);
}

enum meed_status meed_net_fill(struct meed_net *net, const struct meed_checkpoint *checkpoint)
{
    enum meed_status st = MEED_OK;
    struct filler fill = {.net = net, .checkpoint = checkpoint};
    fill.scratch_count = MEED_MAX((int64_t)SCRATCH_FLOATS, (int64_t)net->config.ffn);
    fill.scratch_count = MEED_MAX(fill.scratch_count, net->layers[0].groups[MEED_GROUP_QKV].n);
    fill.scratch_count = MEED_MAX(fill.scratch_count, net->layers[0].groups[MEED_GROUP_O].k);
    fill.scratch = meed_heap_alloc((size_t)fill.scratch_count, sizeof(float));
    fill.staging = net->be->host_memory ? NULL : meed_heap_alloc(1, largest_matrix_bytes(net));
    if (!fill.scratch || (!fill.staging && !net->be->host_memory)) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(fill_all(&fill));
    MEED_TRY_OUT(fill_tables(net));
out:
    meed_heap_free(fill.scratch);
    meed_heap_free(fill.staging);
    return st;
}

struct meed_mat meed_net_weight(const struct meed_net *net, const struct meed_net_group *group)
{
    if (group->blocks.format != MEED_BLOCK_NONE) {
        net->be->block_unpack(net->be, group->blocks, group->tail, group->weight);
    }
    return group->weight;
}

/* --- merging ---------------------------------------------------------------------------------- */

static enum meed_status check_pair(const struct meed_net *net, const struct meed_net *stack)
{
    const struct meed_model_config *x = &net->config, *y = &stack->config;
    if (net->options.base != MEED_BLOCK_NONE || stack->options.base != MEED_BLOCK_NONE) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "merging needs dense base weights, not %s; score with gates (the stack "
                         "path) instead",
                         meed_block_format_name(net->options.base != MEED_BLOCK_NONE
                                                    ? net->options.base
                                                    : stack->options.base));
    }
    bool same = net->be == stack->be && net->options.dtype == stack->options.dtype &&
                x->layers == y->layers && x->hidden == y->hidden && x->ffn == y->ffn &&
                x->heads == y->heads && x->kv_heads == y->kv_heads && x->head_dim == y->head_dim;
    if (!same || net->options.adapter_count != 0) {
        return MEED_FAIL(MEED_ARG, "merging needs an adapter-free network of the stack's model, "
                                   "number type and backend");
    }
    return MEED_OK;
}

/* Gates by adapter, spread over the columns of each of the stack's layouts. */
static void spread_gates(const struct meed_net *stack, const float *gates)
{
    for (int32_t i = 0; i < stack->layout_count; i++) {
        const struct meed_net_layout *layout = &stack->layouts[i];
        float *to = stack->merge_gates_host + layout->begin;
        memset(to, 0, (size_t)layout->model->r * sizeof *to);
        for (int32_t s = 0; s < layout->model->slot_count; s++) {
            const struct meed_net_slot *slot = &layout->model->slots[s];
            for (int64_t j = 0; j < slot->r; j++) {
                to[slot->t_begin + j] = gates[slot->adapter];
            }
        }
    }
}

enum meed_status meed_net_merge(struct meed_net *net, const struct meed_net *stack,
                                const float *gates)
{
    const struct meed_backend *be = net->be;
    MEED_TRY(check_pair(net, stack));
    spread_gates(stack, gates);
    MEED_TRY(be->copy_to(be, stack->merge_gates, stack->merge_gates_host,
                         (size_t)stack->layout_width * sizeof(float)));
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            struct meed_net_group *to = meed_net_group_at(net, layer, (enum meed_group)g);
            struct meed_net_group *from = meed_net_group_at(stack, layer, (enum meed_group)g);
            if (from->r == 0) {
                continue; /* no adapter touches this group: it never left the base weights */
            }
            be->forget(be, to->weight.data);
            be->lora_merge(be, meed_mat_cols(from->weight, 0, from->k), from->tail, from->a,
                           stack->merge_gates + stack->layouts[from->layout].begin, to->weight);
        }
    }
    return be->sync(be);
}
