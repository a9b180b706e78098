/* The backward pass of Σ −weight·logprob, for two readers: the trainer, who wants the gradient of
 * the factors, and the valuation, who wants the gradient of the gates or, for more adapters than a
 * stack holds, of the weights themselves (net_dense.h).
 *
 * `dsum` carries the gradient of the residual stream from the last layer to the first. Of a linear
 * y = [x | T]·[W | s∘B]ᵀ, one GEMM dy·[W | s∘B] gives dx and dT together; then either lora_grad
 * turns dT into dA, dB and the low-rank part of dx, or lora_gate_grad sums dT against x·Aᵀ and
 * lora_grad adds only that part of dx. Everything the forward left is kept, nothing is computed
 * twice except that head norms need q and k as they were before rotation: rope turns them back.
 *
 * Below the lowest adapted group there is nothing to learn, so the pass ends there: that group's
 * own dx is not computed, only the R columns of dT.
 */
#include "engine/net_dense.h"
#include "engine/net_internal.h"

#include "base/rng.h"

struct backward {
    struct meed_net *net;
    const struct meed_net_pass *pass;
    float *gradients; /* flat, on the device; NULL when only the gates' are wanted */
    bool gates;
    struct meed_net_dense *dense; /* gradient of the weights, += ; NULL: not wanted */
    int64_t stop;                 /* the lowest group that anyone asks about */
};

/* y += x over count floats: lora_merge with one column of ones. */
static void add_onto(const struct meed_net *net, float *x, int64_t count, float *y)
{
    struct meed_mat to = meed_mat_view(y, 1, count, count, MEED_DTYPE_F32);
    struct meed_mat from = meed_mat_view(x, 1, count, count, MEED_DTYPE_F32);
    struct meed_mat one = meed_mat_view(net->one, 1, 1, 1, MEED_DTYPE_F32);
    net->be->lora_merge(net->be, to, one, from, net->one, to);
}

/* Slots of the adapter that is trained: they come first. */
static int32_t trained_slots(const struct meed_net_group *group)
{
    int32_t count = 0;
    while (count < group->slot_count && group->slots[count].adapter == 0) {
        count++;
    }
    return count;
}

/* dA of a group comes as one [R, K]; the flat vector wants each module's rows in its own place. A
 * group of one module whose rank fills the tail has them there already. */
static void factor_gradients(const struct backward *pass, const struct meed_net_group *group,
                             const struct meed_tail *tail, struct meed_mat dy, bool dx_wanted,
                             struct meed_mat dxt)
{
    struct meed_net *net = pass->net;
    const struct meed_backend *be = net->be;
    struct meed_mat xt = meed_net_top(group->xt, dy.rows);
    struct meed_lora_slot slots[MEED_PROJ_COUNT];
    int32_t count = trained_slots(group);
    MEED_ASSERT(count <= MEED_PROJ_COUNT);
    for (int32_t i = 0; i < count; i++) {
        const struct meed_net_slot *slot = &group->slots[i];
        slots[i] = (struct meed_lora_slot){
            .n_begin = meed_proj_row_begin(&net->config, slot->proj),
            .n_count = meed_proj_outputs(&net->config, slot->proj),
            .t_begin = slot->t_begin,
            .r = slot->r,
            .scale = slot->scale,
            .db = pass->gradients + slot->flat + slot->r * group->k,
        };
    }
    bool in_place = count == 1 && group->slots[0].r == group->r;
    float *da = in_place ? pass->gradients + group->slots[0].flat : net->da;
    if (!in_place) {
        be->zero(be, da, (size_t)(group->r * group->k) * sizeof *da);
    }
    be->lora_grad(be, dy, xt, group->k, tail, slots, count, da, dx_wanted, dxt);
    for (int32_t i = 0; i < count && !in_place; i++) {
        const struct meed_net_slot *slot = &group->slots[i];
        add_onto(net, da + slot->t_begin * group->k, slot->r * group->k,
                 pass->gradients + slot->flat);
    }
}

/* dense += −dyᵀ·x: lora_grad's dB, with all of x for a tail. */
static void weight_gradient(const struct backward *pass, int32_t layer, enum meed_group g,
                            struct meed_mat dy)
{
    struct meed_mat sum = meed_net_dense_group(pass->dense, layer, g);
    struct meed_mat x = meed_net_top(meed_net_group_at(pass->net, layer, g)->xt, dy.rows);
    if (!sum.data) {
        return;
    }
    struct meed_tail tail = {.a = meed_mat_view(sum.data, x.cols, 0, x.cols, x.dtype)};
    struct meed_lora_slot slot = {.n_count = sum.rows, .r = x.cols, .scale = -1.0f, .db = sum.data};
    pass->net->be->lora_grad(pass->net->be, dy, x, 0, &tail, &slot, 1, NULL, false, x);
}

/* Gradient of a group's input in dxt's first K columns; false where the pass ends. */
static bool linear_backward(const struct backward *pass, int32_t layer, enum meed_group g,
                            struct meed_mat dy, struct meed_mat *dx)
{
    struct meed_net *net = pass->net;
    const struct meed_backend *be = net->be;
    const struct meed_net_group *group = meed_net_group_at(net, layer, g);
    int64_t place = (int64_t)layer * MEED_GROUP_COUNT + (int64_t)g;
    int64_t width = group->k + group->r;
    bool dx_wanted = place > pass->stop;
    struct meed_mat dxt = meed_mat_view(net->dxt, dy.rows, width, width, net->options.dtype);
    if (place < pass->stop) {
        return false;
    }
    if (pass->dense) {
        weight_gradient(pass, layer, g, dy);
    }
    int64_t begin = dx_wanted ? 0 : group->k;
    if (begin < width) {
        struct meed_mat weight = meed_net_weight(net, group);
        be->matmul(be, MEED_MATMUL_NN, dy, meed_mat_cols(weight, begin, width - begin), false,
                   meed_mat_cols(dxt, begin, width - begin));
    }
    if (group->r > 0) {
        struct meed_tail tail = meed_net_tail(net, layer, g, pass->pass);
        struct meed_mat xt = meed_net_top(group->xt, dy.rows);
        if (pass->gates) {
            be->lora_gate_grad(be, xt, dxt, group->k, &tail, meed_net_dgates_of(net, group));
        }
        if (pass->gradients) {
            factor_gradients(pass, group, &tail, dy, dx_wanted, dxt);
        } else if (dx_wanted) {
            be->lora_grad(be, dy, xt, group->k, &tail, NULL, 0, NULL, true, dxt);
        }
    }
    *dx = meed_mat_cols(dxt, 0, group->k);
    return dx_wanted;
}

static void zero_mat(const struct meed_backend *be, struct meed_mat mat)
{
    MEED_ASSERT(mat.cols == mat.stride);
    be->zero(be, mat.data, (size_t)(mat.rows * mat.cols) * meed_dtype_bytes(mat.dtype));
}

/* From the gradient of the stream, which is that of a half layer's addend too, to that of its last
 * linear's output: the same matrix, or net->dout behind an out norm. */
static struct meed_mat out_backward(const struct meed_net *net, int32_t idx, int half,
                                    struct meed_mat dsum)
{
    const struct meed_net_layer *layer = &net->layers[idx];
    if (!net->config.out_norms) {
        return dsum;
    }
    struct meed_mat dout = meed_net_top(net->dout, dsum.rows);
    zero_mat(net->be, dout);
    net->be->rmsnorm_bwd(net->be, dsum, meed_net_top(layer->outs[half], dsum.rows),
                         layer->out_norms[half], layer->out_rstd[half], dout);
    return dout;
}

/* From the gradient of the attention's output to that of the qkv linear's. */
static void attention_backward(const struct backward *pass, int32_t idx, struct meed_mat dout,
                               struct meed_mat dqkv)
{
    const struct meed_net *net = pass->net;
    const struct meed_backend *be = net->be;
    const struct meed_model_config *config = &net->config;
    const struct meed_net_layer *layer = &net->layers[idx];
    int32_t rows = pass->pass->rows;
    int64_t q_cols = (int64_t)config->heads * config->head_dim;
    int64_t k_cols = (int64_t)config->kv_heads * config->head_dim;
    int32_t turning = config->heads + config->kv_heads;
    struct meed_mat qkv = meed_net_top(layer->qkv, rows);
    struct meed_mat qk = meed_mat_cols(qkv, 0, q_cols + k_cols);
    struct meed_mat dqk = meed_mat_cols(dqkv, 0, q_cols + k_cols);
    struct meed_mat out =
        meed_mat_cols(meed_net_top(layer->groups[MEED_GROUP_O].xt, rows), 0, q_cols);
    struct meed_attention_shape shape = meed_net_attention_of(net, idx);
    struct meed_rope_table rope = meed_net_rope_of(net, idx, pass->pass);
    be->attention_bwd(be, dout, out, qkv, layer->lse, shape, &pass->pass->pack, dqkv);
    be->rope(be, dqk, turning, config->head_dim, net->positions, rope, -1);
    if (config->qk_norm) {
        be->rope(be, qk, turning, config->head_dim, net->positions, rope, -1);
        be->headnorm_bwd(be, meed_mat_cols(qk, 0, q_cols), config->heads, layer->q_norm,
                         layer->q_rstd, meed_mat_cols(dqk, 0, q_cols));
        be->headnorm_bwd(be, meed_mat_cols(qk, q_cols, k_cols), config->kv_heads, layer->k_norm,
                         layer->k_rstd, meed_mat_cols(dqk, q_cols, k_cols));
    }
}

/* dsum: the gradient of the stream after the layer on the way in, before its feed-forward on the
 * way out; sum: what the norm saw. False once the pass has reached its end. */
static bool ffn_backward(const struct backward *pass, int32_t idx, struct meed_mat sum,
                         struct meed_mat dsum)
{
    const struct meed_net *net = pass->net;
    const struct meed_backend *be = net->be;
    const struct meed_net_layer *layer = &net->layers[idx];
    struct meed_mat gu = meed_net_top(layer->gu, dsum.rows);
    struct meed_mat dx = {0};
    if (!linear_backward(pass, idx, MEED_GROUP_DOWN, out_backward(net, idx, 1, dsum), &dx)) {
        return false;
    }
    be->glu_bwd(be, net->config.glu, dx, gu, gu);
    if (!linear_backward(pass, idx, MEED_GROUP_GATE_UP, gu, &dx)) {
        return false;
    }
    be->rmsnorm_bwd(be, dx, sum, layer->norms[1], layer->rstd[1], dsum);
    return true;
}

static bool attention_half_backward(const struct backward *pass, int32_t idx, struct meed_mat dsum)
{
    const struct meed_net *net = pass->net;
    const struct meed_net_layer *layer = &net->layers[idx];
    struct meed_mat dqkv = meed_net_top(net->dqkv, dsum.rows);
    struct meed_mat dx = {0};
    if (!linear_backward(pass, idx, MEED_GROUP_O, out_backward(net, idx, 0, dsum), &dx)) {
        return false;
    }
    attention_backward(pass, idx, dx, dqkv);
    if (!linear_backward(pass, idx, MEED_GROUP_QKV, dqkv, &dx)) {
        return false;
    }
    net->be->rmsnorm_bwd(net->be, dx, meed_net_top(layer->sums[0], dsum.rows), layer->norms[0],
                         layer->rstd[0], dsum);
    return true;
}

/* Log-probabilities and, chunk by chunk, the gradient of the normalised rows over final_y. */
static void head_backward(struct meed_net *net, int32_t count)
{
    const struct meed_backend *be = net->be;
    for (int32_t begin = 0; begin < count; begin += net->chunk) {
        int32_t rows = MEED_MIN(net->chunk, count - begin);
        struct meed_mat logits = meed_net_head(net, begin, rows, net->options.dtype);
        be->xent(be, logits, net->targets + begin, net->row_weight + begin, net->logprob + begin);
        be->matmul(be, MEED_MATMUL_NN, logits, net->head, false,
                   meed_mat_rows(net->final_y, begin, rows));
    }
}

/* Through the final norm and the last feed-forward on the wanted rows, back to the rows that they
 * were gathered from, then down the layers until the pass ends. */
static void stream_backward(const struct backward *pass)
{
    struct meed_net *net = pass->net;
    const struct meed_backend *be = net->be;
    int32_t wanted = pass->pass->wanted;
    int32_t top = net->config.layers - 1;
    struct meed_mat picked = meed_net_top(net->picked_stream, wanted);
    struct meed_mat dsum = meed_net_top(net->dsum, pass->pass->rows);
    zero_mat(be, picked);
    be->rmsnorm_bwd(be, meed_net_top(net->final_y, wanted), meed_net_top(net->last, wanted),
                    net->final_norm, net->final_rstd, picked);
    if (!ffn_backward(pass, top, meed_net_top(net->picked_sum, wanted), picked)) {
        return;
    }
    zero_mat(be, dsum);
    be->scatter(be, picked, net->wanted, dsum);
    for (int32_t i = top; attention_half_backward(pass, i, dsum) && i > 0; i--) {
        struct meed_mat sum = meed_net_top(net->layers[i - 1].sums[1], dsum.rows);
        if (!ffn_backward(pass, i - 1, sum, dsum)) {
            return;
        }
    }
}

static enum meed_status check_backward(const struct meed_net *net, const float *gradients_dev,
                                       const double *dgates)
{
    if (!net->options.backward) {
        return MEED_FAIL(MEED_STATE, "this network keeps no activations; create it with backward");
    }
    if (gradients_dev && net->options.adapter_count == 0) {
        return MEED_FAIL(MEED_ARG, "factor gradients need an adapter");
    }
    if (gradients_dev && net->gates.sets > 0) {
        return MEED_FAIL(MEED_STATE, "factor gradients need a network without gates");
    }
    if (dgates && net->gates.sets == 0) {
        return MEED_FAIL(MEED_STATE, "gate gradients need gates; call meed_net_set_gates first");
    }
    return MEED_OK;
}

/* One key a group of each layer, from the step's. */
static enum meed_status send_dropout_keys(struct meed_net *net, uint64_t step_key)
{
    uint64_t count = (uint64_t)net->config.layers * MEED_GROUP_COUNT;
    for (uint64_t place = 0; place < count; place++) {
        net->dropout_keys_host[place] = meed_rng_stream(step_key, "lora dropout", place).key;
    }
    return net->be->copy_to(net->be, net->dropout_keys, net->dropout_keys_host,
                            (size_t)count * sizeof *net->dropout_keys_host);
}

static enum meed_status load(struct meed_net *net, const struct meed_batch *batch,
                             const float *weight, struct meed_net_pass *pass)
{
    MEED_TRY(meed_net_upload(net, batch, pass));
    return net->be->copy_to(net->be, net->row_weight, weight,
                            (size_t)batch->loss_rows * sizeof *weight);
}

static void enqueue(const struct backward *back)
{
    meed_net_run(back->net, back->pass);
    head_backward(back->net, back->pass->wanted);
    if (back->gradients || back->gates || back->dense) {
        stream_backward(back);
    }
}

enum meed_status meed_net_load_batch(struct meed_net *net, const struct meed_batch *batch,
                                     const float *weight, uint64_t step_key)
{
    MEED_ASSERT(net->options.backward && net->options.adapter_count > 0);
    MEED_ASSERT(net->gates.sets == 0 && batch->loss_rows > 0);
    MEED_TRY(load(net, batch, weight, net->loaded));
    net->loaded->dropout = net->options.dropout;
    return net->options.dropout > 0.0f ? send_dropout_keys(net, step_key) : MEED_OK;
}

void meed_net_enqueue_gradients(struct meed_net *net, float *gradients_dev)
{
    const struct backward back = {net, net->loaded, gradients_dev, false, NULL, net->stop};
    enqueue(&back);
}

const float *meed_net_logprobs_dev(const struct meed_net *net)
{
    return net->logprob;
}

enum meed_status meed_net_backward(struct meed_net *net, const struct meed_batch *batch,
                                   const float *weight, uint64_t step_key, float *logprob,
                                   float *gradients_dev, double *dgates)
{
    const struct meed_backend *be = net->be;
    struct meed_net_pass pass;
    MEED_TRY(check_backward(net, gradients_dev, dgates));
    MEED_TRY(load(net, batch, weight, &pass));
    if (batch->loss_rows == 0) {
        return MEED_OK;
    }
    if (gradients_dev && net->options.dropout > 0.0f) {
        pass.dropout = net->options.dropout;
        MEED_TRY(send_dropout_keys(net, step_key));
    }
    const struct backward back = {net, &pass, gradients_dev, dgates != NULL, NULL, net->stop};
    if (dgates) {
        meed_net_dgates_zero(net);
    }
    enqueue(&back);
    MEED_TRY(be->copy_from(be, logprob, net->logprob, (size_t)batch->loss_rows * sizeof *logprob));
    if (dgates) {
        MEED_TRY(meed_net_dgates_collect(net, dgates));
    }
    return be->sync(be);
}

enum meed_status meed_net_backward_dense(struct meed_net *net, const struct meed_batch *batch,
                                         const float *weight, float *logprob,
                                         struct meed_net_dense *dense)
{
    const struct meed_backend *be = net->be;
    struct meed_net_pass pass;
    if (!net->options.backward || net->options.adapter_count != 0 ||
        net->options.dtype != MEED_DTYPE_F32 || net->options.base != MEED_BLOCK_NONE) {
        return MEED_FAIL(MEED_ARG, "gradients of weights need an fp32 network without adapters, "
                                   "created with backward");
    }
    MEED_TRY(load(net, batch, weight, &pass));
    if (batch->loss_rows == 0) {
        return MEED_OK;
    }
    struct backward back = {.net = net, .pass = &pass, .dense = dense};
    int64_t places = (int64_t)net->config.layers * MEED_GROUP_COUNT;
    while (back.stop < places &&
           !meed_net_dense_group(dense, (int32_t)(back.stop / MEED_GROUP_COUNT),
                                 (enum meed_group)(back.stop % MEED_GROUP_COUNT))
                .data) {
        back.stop++;
    }
    enqueue(&back);
    MEED_TRY(be->copy_from(be, logprob, net->logprob, (size_t)batch->loss_rows * sizeof *logprob));
    return be->sync(be);
}
