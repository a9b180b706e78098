/* The forward pass, from token ids to log-probabilities of the scored rows.
 *
 * Per layer: rmsnorm (+ residual, + tail) → qkv → [bias] → [head norm] → rope → attention (+ tail)
 * → o → [out norm] → rmsnorm (+ residual, + tail) → gate, up → glu (+ tail) → down → [out norm].
 * Every linear is one GEMM over [x | T]. The output of o and of down is not added to the stream
 * here: the norm that follows reads both, so the stream is touched once. After the last attention
 * the wanted rows are gathered; the last feed-forward, the final norm and the head, a chunk of rows
 * at a time, run on them alone.
 */
#include "engine/net_internal.h"

struct meed_tail meed_net_tail(const struct meed_net *net, int32_t layer, enum meed_group group,
                               const struct meed_net_pass *pass)
{
    const struct meed_net_group *at = meed_net_group_at(net, layer, group);
    struct meed_tail tail = {0};
    if (at->r == 0) {
        return tail;
    }
    tail.a = at->a;
    if (pass->gated) {
        bool picked = layer == net->config.layers - 1 && group >= MEED_GROUP_GATE_UP;
        tail.gates = meed_net_gates_of(net, at);
        tail.gate_of_row = picked ? net->gate_of_wanted : net->gate_of_row;
    }
    if (pass->dropout > 0.0f) {
        tail.dropout = pass->dropout;
        tail.dropout_key = net->dropout_keys + layer * MEED_GROUP_COUNT + (int32_t)group;
    }
    return tail;
}

/* --- the batch -------------------------------------------------------------------------------- */

enum meed_status meed_net_check_ids(const struct meed_net *net, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= net->config.vocab) {
            return MEED_FAIL(MEED_ARG,
                             "token id %d lies outside the model's vocabulary of %d; the tokenizer "
                             "belongs to another model",
                             ids[i], net->config.vocab);
        }
    }
    return MEED_OK;
}

static enum meed_status check_batch(const struct meed_net *net, const struct meed_batch *batch)
{
    if (batch->rows < 1 || batch->rows > net->options.max_rows ||
        batch->sequences > net->options.max_sequences) {
        return MEED_FAIL(MEED_LIMIT,
                         "a batch of %d rows in %d sequences; the network was built for 1 to %d "
                         "rows in at most %d",
                         batch->rows, batch->sequences, net->options.max_rows,
                         net->options.max_sequences);
    }
    if (batch->max_length > net->rope_positions) {
        return MEED_FAIL(MEED_LIMIT, "a sequence of %d tokens; the model has %d positions",
                         batch->max_length, net->rope_positions);
    }
    for (int32_t i = 0; net->gates.sets > 0 && batch->gate_set && i < batch->sequences; i++) {
        if (batch->gate_set[i] < 0 || batch->gate_set[i] >= net->gates.sets) {
            return MEED_FAIL(MEED_ARG, "sequence %d asks for gate set %d of %d", i,
                             batch->gate_set[i], net->gates.sets);
        }
    }
    int32_t targets = batch->loss_rows;
    while (targets > 0 && batch->loss_target[targets - 1] == -1) {
        targets--; /* padding comes last */
    }
    MEED_TRY(meed_net_check_ids(net, batch->ids, batch->rows));
    return meed_net_check_ids(net, batch->loss_target, targets);
}

static enum meed_status send_ints(const struct meed_net *net, int32_t *to, const int32_t *from,
                                  int32_t count)
{
    return net->be->copy_to(net->be, to, from, (size_t)count * sizeof *from);
}

static enum meed_status send_gate_of_rows(const struct meed_net *net,
                                          const struct meed_batch *batch, int32_t *to)
{
    for (int32_t s = 0; s < batch->sequences; s++) {
        for (int32_t m = batch->starts[s]; m < batch->starts[s + 1]; m++) {
            net->rows_host[m] = batch->gate_set ? batch->gate_set[s] : 0;
        }
    }
    return send_ints(net, to, net->rows_host, batch->rows);
}

enum meed_status meed_net_upload(struct meed_net *net, const struct meed_batch *batch,
                                 struct meed_net_pass *pass)
{
    MEED_TRY(check_batch(net, batch));
    MEED_TRY(send_ints(net, net->ids, batch->ids, batch->rows));
    MEED_TRY(send_ints(net, net->positions, batch->positions, batch->rows));
    MEED_TRY(send_ints(net, net->starts, batch->starts, batch->sequences + 1));
    MEED_TRY(send_ints(net, net->wanted, batch->loss_row, batch->loss_rows));
    MEED_TRY(send_ints(net, net->targets, batch->loss_target, batch->loss_rows));
    *pass = (struct meed_net_pass){
        .rows = batch->rows,
        .wanted = batch->loss_rows,
        .gated = net->gates.sets > 0,
        .pack = {.starts = net->starts,
                 .sequences = batch->sequences,
                 .max_length = batch->max_length,
                 .positions = net->positions},
        .rope = net->rope,
        .rope_positions = net->rope_positions,
    };
    if (!pass->gated) {
        return MEED_OK;
    }
    MEED_TRY(send_gate_of_rows(net, batch, net->gate_of_row));
    for (int32_t i = 0; i < batch->loss_rows; i++) {
        net->rows_host[i] = batch->gate_set ? batch->gate_set[batch->loss_sequence[i]] : 0;
    }
    return send_ints(net, net->gate_of_wanted, net->rows_host, batch->loss_rows);
}

/* --- the layers ------------------------------------------------------------------------------- */

/* y = [x | T]·[W | s∘B]ᵀ, plus the bias where there is one. */
static void linear(const struct meed_net *net, const struct meed_net_group *group, int32_t rows,
                   struct meed_mat y)
{
    const struct meed_backend *be = net->be;
    be->matmul(be, MEED_MATMUL_NT, meed_net_top(group->xt, rows), meed_net_weight(net, group),
               false, y);
    if (group->bias) {
        be->bias_add(be, y, group->bias);
    }
}

struct meed_rope_table meed_net_rope_of(const struct meed_net *net, int32_t layer,
                                        const struct meed_net_pass *pass)
{
    struct meed_rope_table table = pass->rope;
    if (net->config.rope_local_theta > 0 && meed_model_config_windowed(&net->config, layer)) {
        int64_t part = (int64_t)pass->rope_positions * (net->config.head_dim / 2);
        table.cos += part;
        table.sin += part;
    }
    return table;
}

struct meed_attention_shape meed_net_attention_of(const struct meed_net *net, int32_t layer)
{
    const struct meed_model_config *config = &net->config;
    return (struct meed_attention_shape){
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .head_dim = config->head_dim,
        .window = meed_model_config_windowed(config, layer) ? config->window : 0,
        .scale = config->attention_scale,
    };
}

static void run_attention(const struct meed_net *net, int32_t idx, const struct meed_net_pass *pass)
{
    const struct meed_backend *be = net->be;
    const struct meed_model_config *config = &net->config;
    const struct meed_net_layer *layer = &net->layers[idx];
    int64_t q_cols = (int64_t)config->heads * config->head_dim;
    int64_t k_cols = (int64_t)config->kv_heads * config->head_dim;
    struct meed_mat qkv = meed_net_top(layer->qkv, pass->rows);
    struct meed_mat out = meed_net_top(layer->groups[MEED_GROUP_O].xt, pass->rows);
    struct meed_tail tail = meed_net_tail(net, idx, MEED_GROUP_O, pass);
    struct meed_attention_shape shape = meed_net_attention_of(net, idx);
    linear(net, &layer->groups[MEED_GROUP_QKV], pass->rows, qkv);
    if (config->qk_norm) {
        be->headnorm_fwd(be, meed_mat_cols(qkv, 0, q_cols), config->heads, layer->q_norm,
                         config->rms_eps, layer->q_rstd);
        be->headnorm_fwd(be, meed_mat_cols(qkv, q_cols, k_cols), config->kv_heads, layer->k_norm,
                         config->rms_eps, layer->k_rstd);
    }
    be->rope(be, meed_mat_cols(qkv, 0, q_cols + k_cols), config->heads + config->kv_heads,
             config->head_dim, net->positions, meed_net_rope_of(net, idx, pass), 1);
    if (pass->cache) {
        be->attention_decode(be, qkv, shape, pass->cache->layers[idx], pass->slots, net->positions,
                             &tail, out);
    } else {
        be->attention_fwd(be, qkv, shape, &pass->pack, &tail, out, layer->lse);
    }
}

/* A half layer's last linear to where the stream is added: straight, or through its out norm. */
static void run_out(const struct meed_net *net, const struct meed_net_layer *layer, int half,
                    int32_t rows, struct meed_mat to)
{
    const struct meed_net_group *group = &layer->groups[half == 0 ? MEED_GROUP_O : MEED_GROUP_DOWN];
    const struct meed_tail no_tail = {0};
    struct meed_mat none = {0};
    if (!net->config.out_norms) {
        linear(net, group, rows, to);
        return;
    }
    struct meed_mat out = meed_net_top(layer->outs[half], rows);
    linear(net, group, rows, out);
    net->be->rmsnorm_fwd(net->be, out, none, layer->out_norms[half], net->config.rms_eps, &no_tail,
                         none, to, layer->out_rstd[half]);
}

static void run_attention_half(const struct meed_net *net, int32_t idx,
                               const struct meed_net_pass *pass)
{
    const struct meed_net_layer *layer = &net->layers[idx];
    struct meed_mat none = {0};
    struct meed_mat in = meed_net_top(layer->sums[0], pass->rows);
    struct meed_mat before =
        idx > 0 ? meed_net_top(net->layers[idx - 1].sums[1], pass->rows) : none;
    struct meed_tail tail = meed_net_tail(net, idx, MEED_GROUP_QKV, pass);
    net->be->rmsnorm_fwd(
        net->be, in, before, layer->norms[0], net->config.rms_eps, &tail, idx > 0 ? in : none,
        meed_net_top(layer->groups[MEED_GROUP_QKV].xt, pass->rows), layer->rstd[0]);
    run_attention(net, idx, pass);
    run_out(net, layer, 0, pass->rows, meed_net_top(layer->sums[1], pass->rows));
}

/* From the attention's output `mid` and the stream before it to the feed-forward's output. */
static void run_ffn_half(const struct meed_net *net, int32_t idx, const struct meed_net_pass *pass,
                         struct meed_mat mid, struct meed_mat before, struct meed_mat out)
{
    const struct meed_backend *be = net->be;
    const struct meed_net_layer *layer = &net->layers[idx];
    int32_t rows = (int32_t)mid.rows;
    struct meed_mat gu = meed_net_top(layer->gu, rows);
    struct meed_tail tail = meed_net_tail(net, idx, MEED_GROUP_GATE_UP, pass);
    be->rmsnorm_fwd(be, mid, before, layer->norms[1], net->config.rms_eps, &tail, mid,
                    meed_net_top(layer->groups[MEED_GROUP_GATE_UP].xt, rows), layer->rstd[1]);
    linear(net, &layer->groups[MEED_GROUP_GATE_UP], rows, gu);
    tail = meed_net_tail(net, idx, MEED_GROUP_DOWN, pass);
    be->glu_fwd(be, net->config.glu, gu, &tail,
                meed_net_top(layer->groups[MEED_GROUP_DOWN].xt, rows));
    run_out(net, layer, 1, rows, out);
}

/* The last feed-forward and the final norm, on the wanted rows. */
static void run_end(const struct meed_net *net, const struct meed_net_pass *pass)
{
    const struct meed_backend *be = net->be;
    const struct meed_tail no_tail = {0};
    int32_t idx = net->config.layers - 1;
    struct meed_mat mid = meed_net_top(net->picked_sum, pass->wanted);
    struct meed_mat before = meed_net_top(net->picked_stream, pass->wanted);
    struct meed_mat out = meed_net_top(net->last, pass->wanted);
    be->embed(be, net->layers[idx].sums[1], 1.0f, net->wanted, mid);
    be->embed(be, net->layers[idx].sums[0], 1.0f, net->wanted, before);
    run_ffn_half(net, idx, pass, mid, before, out);
    be->rmsnorm_fwd(be, out, mid, net->final_norm, net->config.rms_eps, &no_tail, out,
                    meed_net_top(net->final_y, pass->wanted), net->final_rstd);
}

void meed_net_run(struct meed_net *net, const struct meed_net_pass *pass)
{
    int32_t rows = pass->rows;
    net->be->embed(net->be, net->embed, net->embed_scale, net->ids,
                   meed_net_top(net->layers[0].sums[0], rows));
    for (int32_t i = 0; i < net->config.layers; i++) {
        run_attention_half(net, i, pass);
        if (i + 1 < net->config.layers) {
            run_ffn_half(net, i, pass, meed_net_top(net->layers[i].sums[1], rows),
                         meed_net_top(net->layers[i].sums[0], rows),
                         meed_net_top(net->layers[i + 1].sums[0], rows));
        }
    }
    if (pass->wanted > 0) {
        run_end(net, pass);
    }
}

/* --- the head --------------------------------------------------------------------------------- */

struct meed_mat meed_net_head(struct meed_net *net, int32_t begin, int32_t count,
                              enum meed_dtype dtype)
{
    int64_t vocab = net->config.vocab;
    struct meed_mat logits = meed_mat_view(net->logits, count, vocab, vocab, dtype);
    net->be->matmul(net->be, MEED_MATMUL_NT, meed_mat_rows(net->final_y, begin, count), net->head,
                    false, logits);
    return logits;
}

enum meed_status meed_net_head_to_host(struct meed_net *net, int32_t count, float *logits)
{
    for (int32_t begin = 0; begin < count; begin += net->chunk) {
        int32_t rows = MEED_MIN(net->chunk, count - begin);
        struct meed_mat part = meed_net_head(net, begin, rows, MEED_DTYPE_F32);
        MEED_TRY(net->be->copy_from(net->be, logits + (int64_t)begin * part.cols, part.data,
                                    (size_t)(part.rows * part.cols) * sizeof *logits));
    }
    return net->be->sync(net->be);
}

enum meed_status meed_net_score(struct meed_net *net, const struct meed_batch *batch,
                                float *logprob)
{
    const struct meed_backend *be = net->be;
    struct meed_net_pass pass;
    MEED_TRY(meed_net_upload(net, batch, &pass));
    if (batch->loss_rows == 0) {
        return MEED_OK;
    }
    meed_net_run(net, &pass);
    for (int32_t begin = 0; begin < batch->loss_rows; begin += net->chunk) {
        int32_t rows = MEED_MIN(net->chunk, batch->loss_rows - begin);
        be->xent(be, meed_net_head(net, begin, rows, MEED_DTYPE_F32), net->targets + begin, NULL,
                 net->logprob + begin);
    }
    MEED_TRY(be->copy_from(be, logprob, net->logprob, (size_t)batch->loss_rows * sizeof *logprob));
    return be->sync(be);
}

enum meed_status meed_net_logits(struct meed_net *net, const struct meed_batch *batch,
                                 float *logits)
{
    struct meed_net_pass pass;
    MEED_TRY(meed_net_upload(net, batch, &pass));
    for (int32_t m = 0; m < batch->rows; m++) {
        net->rows_host[m] = m;
    }
    MEED_TRY(send_ints(net, net->wanted, net->rows_host, batch->rows));
    if (pass.gated) {
        MEED_TRY(send_gate_of_rows(net, batch, net->gate_of_wanted));
    }
    pass.wanted = batch->rows;
    meed_net_run(net, &pass);
    return meed_net_head_to_host(net, batch->rows, logits);
}
