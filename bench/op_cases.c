/* See op_cases.h. x[0] is the main operand by convention; every block is remembered for closing. */
#include "bench/op_cases.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "bench/machine.h"

/* --- operands --------------------------------------------------------------------------------- */

static void *keep(struct meed_op_case *c, void *block)
{
    MEED_ASSERT(c->block_count < MEED_OP_CASE_BLOCKS);
    c->blocks[c->block_count++] = block;
    return block;
}

static struct meed_mat mat(struct meed_op_case *c, int64_t rows, int64_t cols, double scale)
{
    struct meed_mat made =
        meed_bench_mat(c->be, rows, cols, c->dtype, (uint64_t)c->block_count, scale);
    keep(c, made.data);
    return made;
}

static float *floats(struct meed_op_case *c, int64_t count, double scale)
{
    return keep(c,
                meed_bench_values(c->be, count, MEED_DTYPE_F32, (uint64_t)c->block_count, scale));
}

static struct meed_mat floats_mat(struct meed_op_case *c, int64_t rows, int64_t cols, double scale)
{
    return meed_mat_view(floats(c, rows * cols, scale), rows, cols, cols, MEED_DTYPE_F32);
}

/* ids[i] = (i · step + i / row) mod limit */
static int32_t *ints(struct meed_op_case *c, int64_t count, int64_t step, int64_t limit)
{
    int32_t *host = meed_heap_alloc((size_t)count, sizeof *host);
    int32_t *device = NULL;
    for (int64_t i = 0; host && i < count; i++) {
        host[i] = (int32_t)(i * step % limit);
    }
    if (host) {
        device = keep(c, meed_bench_ints(c->be, host, count));
    }
    meed_heap_free(host);
    return device;
}

static void result(struct meed_op_case *c, struct meed_mat out)
{
    c->outs[c->out_count++] = out;
}

static double mat_bytes(struct meed_mat m)
{
    return (double)m.rows * (double)m.cols * (double)meed_dtype_bytes(m.dtype);
}

/* The tail of a producer of width k: T costs its FLOPs, A is read, T written. */
static void with_tail(struct meed_op_case *c, int64_t k)
{
    const struct meed_op_shape *s = &c->shape;
    c->tail = (struct meed_tail){.a = mat(c, s->rank, k, 0.05)};
    c->flops += 2.0 * s->rows * s->rank * (double)k;
    c->bytes +=
        mat_bytes(c->tail.a) + (double)s->rows * s->rank * (double)meed_dtype_bytes(c->dtype);
}

static void with_pack(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->pack.sequences = s->rows / s->length;
    c->pack.max_length = s->length;
    c->pack.starts = ints(c, c->pack.sequences + 1, s->length, INT32_MAX);
    c->pack.positions = c->ints[0] = ints(c, s->rows, 1, s->length);
}

static struct meed_attention_shape heads_of(const struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    return (struct meed_attention_shape){.heads = s->heads,
                                         .kv_heads = s->kv_heads,
                                         .head_dim = s->head_dim,
                                         .scale = 1.0f / sqrtf((float)s->head_dim)};
}

static int64_t qkv_cols(const struct meed_op_case *c)
{
    return (int64_t)(c->shape.heads + 2 * c->shape.kv_heads) * c->shape.head_dim;
}

/* Multiply-adds of causal attention, one product: half of rows × length. */
static double attention_macs(const struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    return 0.5 * s->rows * s->length * s->heads * (double)s->head_dim;
}

/* --- products and rows ------------------------------------------------------------------------ */

static void prepare_matmul(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden, 1);
    c->x[1] = mat(c, s->hidden, s->hidden, 0.05);
    c->x[2] = mat(c, s->rows, s->hidden, 0);
    c->flops = 2.0 * s->rows * s->hidden * (double)s->hidden;
    c->bytes = mat_bytes(c->x[0]) + mat_bytes(c->x[1]) + mat_bytes(c->x[2]);
    result(c, c->x[2]);
}
static void run_matmul(struct meed_op_case *c)
{
    c->be->matmul(c->be, MEED_MATMUL_NT, c->x[0], c->x[1], false, c->x[2]);
}

static void prepare_embed(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->vocab, s->hidden, 1);
    c->x[1] = mat(c, s->rows, s->hidden, 0);
    c->ints[0] = ints(c, s->rows, 7919, s->vocab);
    c->bytes = 2 * mat_bytes(c->x[1]);
    result(c, c->x[1]);
}
static void run_embed(struct meed_op_case *c)
{
    c->be->embed(c->be, c->x[0], 1.0f, c->ints[0], c->x[1]);
}

static void prepare_scatter(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden, 1);
    c->x[1] = mat(c, 2 * s->rows, s->hidden, 0);
    c->ints[0] = ints(c, s->rows, 2, 2 * s->rows);
    c->bytes = 2 * mat_bytes(c->x[0]);
    result(c, c->x[1]);
}
static void run_scatter(struct meed_op_case *c)
{
    c->be->scatter(c->be, c->x[0], c->ints[0], c->x[1]);
}

static void prepare_rmsnorm_fwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden, 1);
    c->x[1] = mat(c, s->rows, s->hidden, 1);
    c->x[2] = mat(c, s->rows, s->hidden, 0);
    c->x[3] = mat(c, s->rows, s->hidden + s->rank, 0);
    c->f[0] = floats(c, s->hidden, 1);
    c->f[1] = floats(c, s->rows, 0);
    with_tail(c, s->hidden);
    c->bytes += 4 * mat_bytes(c->x[0]);
    result(c, c->x[2]);
    result(c, c->x[3]);
}
static void run_rmsnorm_fwd(struct meed_op_case *c)
{
    c->be->rmsnorm_fwd(c->be, c->x[0], c->x[1], c->f[0], 1e-5f, &c->tail, c->x[2], c->x[3],
                       c->f[1]);
}

static void prepare_rmsnorm_bwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden, 0.1);
    c->x[1] = mat(c, s->rows, s->hidden, 1);
    c->x[2] = mat(c, s->rows, s->hidden, 0.1);
    c->f[0] = floats(c, s->hidden, 1);
    c->f[1] = floats(c, s->rows, 1);
    c->bytes = 4 * mat_bytes(c->x[0]);
    result(c, c->x[2]);
}
static void run_rmsnorm_bwd(struct meed_op_case *c)
{
    c->be->rmsnorm_bwd(c->be, c->x[0], c->x[1], c->f[0], c->f[1], c->x[2]);
}

static void prepare_headnorm_fwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, (int64_t)s->heads * s->head_dim, 1);
    c->f[0] = floats(c, s->head_dim, 1);
    c->f[1] = floats(c, (int64_t)s->rows * s->heads, 0);
    c->bytes = 2 * mat_bytes(c->x[0]);
    result(c, c->x[0]);
}
static void run_headnorm_fwd(struct meed_op_case *c)
{
    c->be->headnorm_fwd(c->be, c->x[0], c->shape.heads, c->f[0], 1e-6f, c->f[1]);
}

static void prepare_headnorm_bwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, (int64_t)s->heads * s->head_dim, 1);
    c->x[1] = mat(c, s->rows, (int64_t)s->heads * s->head_dim, 0.1);
    c->f[0] = floats(c, s->head_dim, 1);
    c->f[1] = floats(c, (int64_t)s->rows * s->heads, 1);
    c->bytes = 3 * mat_bytes(c->x[0]);
    result(c, c->x[1]);
}
static void run_headnorm_bwd(struct meed_op_case *c)
{
    c->be->headnorm_bwd(c->be, c->x[0], c->shape.heads, c->f[0], c->f[1], c->x[1]);
}

static void prepare_bias_add(struct meed_op_case *c)
{
    c->x[0] = mat(c, c->shape.rows, c->shape.hidden, 1);
    c->f[0] = floats(c, c->shape.hidden, 0.01);
    c->bytes = 2 * mat_bytes(c->x[0]);
    result(c, c->x[0]);
}
static void run_bias_add(struct meed_op_case *c)
{
    c->be->bias_add(c->be, c->x[0], c->f[0]);
}

static void prepare_rope(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, (int64_t)(s->heads + s->kv_heads) * s->head_dim, 1);
    c->f[0] = floats(c, (int64_t)s->length * s->head_dim / 2, 0.7);
    c->f[1] = floats(c, (int64_t)s->length * s->head_dim / 2, 0.7);
    with_pack(c);
    c->bytes = 2 * mat_bytes(c->x[0]);
    result(c, c->x[0]);
}
static void run_rope(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    struct meed_rope_table table = {c->f[0], c->f[1]};
    c->be->rope(c->be, c->x[0], s->heads + s->kv_heads, s->head_dim, c->ints[0], table, 1);
}

/* --- attention -------------------------------------------------------------------------------- */

static void prepare_attention_fwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    int64_t width = (int64_t)s->heads * s->head_dim;
    c->x[0] = mat(c, s->rows, qkv_cols(c), 1);
    c->x[1] = mat(c, s->rows, width + s->rank, 0);
    c->f[0] = floats(c, (int64_t)s->rows * s->heads, 0);
    with_pack(c);
    with_tail(c, width);
    c->flops += 4 * attention_macs(c);
    c->bytes += mat_bytes(c->x[0]) + mat_bytes(c->x[1]);
    result(c, c->x[1]);
}
static void run_attention_fwd(struct meed_op_case *c)
{
    c->be->attention_fwd(c->be, c->x[0], heads_of(c), &c->pack, &c->tail, c->x[1], c->f[0]);
}

/* Gemma's local layers: a row sees a quarter of its sequence. */
static void prepare_attention_window(struct meed_op_case *c)
{
    double length = c->shape.length, seen = length / 4;
    prepare_attention_fwd(c);
    c->flops -= 4 * attention_macs(c) * (1 - seen * (2 * length - seen) / (length * length));
}
static void run_attention_window(struct meed_op_case *c)
{
    struct meed_attention_shape shape = heads_of(c);
    shape.window = c->shape.length / 4;
    c->be->attention_fwd(c->be, c->x[0], shape, &c->pack, &c->tail, c->x[1], c->f[0]);
}

static void prepare_attention_bwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    int64_t width = (int64_t)s->heads * s->head_dim;
    const struct meed_tail none = {.dropout = 0};
    c->x[0] = mat(c, s->rows, width, 0.1);
    c->x[1] = mat(c, s->rows, width, 0);
    c->x[2] = mat(c, s->rows, qkv_cols(c), 1);
    c->x[3] = mat(c, s->rows, qkv_cols(c), 0);
    c->f[0] = floats(c, (int64_t)s->rows * s->heads, 0);
    with_pack(c);
    c->flops = 10 * attention_macs(c);
    c->bytes = 2 * mat_bytes(c->x[0]) + 2 * mat_bytes(c->x[2]);
    if (c->x[1].data && c->x[2].data && c->f[0]) { /* out and lse of a real forward */
        c->be->attention_fwd(c->be, c->x[2], heads_of(c), &c->pack, &none, c->x[1], c->f[0]);
    }
    result(c, c->x[3]);
}
static void run_attention_bwd(struct meed_op_case *c)
{
    c->be->attention_bwd(c->be, c->x[0], c->x[1], c->x[2], c->f[0], heads_of(c), &c->pack, c->x[3]);
}

/* One new row for each of 16 slots that hold eight times `length` rows: a prompt, fed with a window
 * of one position, which costs nothing but its writing. */
enum { SLOTS = 16, SLOT_LENGTHS = 8 };

static struct meed_kv_layer decode_cache(const struct meed_op_case *c)
{
    int32_t pages = c->shape.length * SLOT_LENGTHS / MEED_KV_PAGE;
    return (struct meed_kv_layer){.k = c->x[2].data,
                                  .v = c->x[3].data,
                                  .table = c->ints[2],
                                  .slot_pages = pages,
                                  .pages = SLOTS * pages,
                                  .dtype = c->dtype};
}

static void decode_fill(struct meed_op_case *c, int32_t length)
{
    struct meed_attention_shape shape = heads_of(c);
    struct meed_mat qkv = mat(c, length, qkv_cols(c), 1);
    struct meed_mat out = mat(c, length, (int64_t)shape.heads * shape.head_dim, 0);
    int32_t *positions = ints(c, length, 1, length);
    shape.window = 1;
    for (int32_t slot = 0; slot < SLOTS; slot++) {
        int32_t *slots = meed_heap_alloc((size_t)length, sizeof *slots);
        for (int32_t i = 0; slots && i < length; i++) {
            slots[i] = slot;
        }
        int32_t *device = slots ? keep(c, meed_bench_ints(c->be, slots, length)) : NULL;
        if (device && qkv.data && out.data && positions) {
            c->be->attention_decode(c->be, qkv, shape, decode_cache(c), device, positions, NULL,
                                    out);
        }
        meed_heap_free(slots);
    }
}

static void prepare_attention_decode(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    int64_t width = (int64_t)s->heads * s->head_dim, kv = (int64_t)s->kv_heads * s->head_dim;
    int32_t length = s->length * SLOT_LENGTHS;
    int32_t pages = length / MEED_KV_PAGE * SLOTS;
    c->x[0] = mat(c, SLOTS, qkv_cols(c), 1);
    c->x[1] = mat(c, SLOTS, width + s->rank, 0);
    c->x[2] = mat(c, pages, MEED_KV_PAGE * kv, 0);
    c->x[3] = mat(c, pages, MEED_KV_PAGE * kv, 0);
    c->ints[0] = ints(c, SLOTS, 1, SLOTS);
    int32_t last[SLOTS];
    for (int i = 0; i < SLOTS; i++) {
        last[i] = length - 1;
    }
    c->ints[1] = keep(c, meed_bench_ints(c->be, last, SLOTS));
    c->ints[2] = ints(c, pages, 7, pages); /* in no order: 7 divides no power of two */
    c->tail = (struct meed_tail){.a = mat(c, s->rank, width, 0.05)};
    c->flops = 4.0 * SLOTS * length * (double)width + 2.0 * SLOTS * s->rank * (double)width;
    c->bytes = mat_bytes(c->x[2]) + mat_bytes(c->x[3]) + mat_bytes(c->x[0]) + mat_bytes(c->x[1]);
    if (c->x[2].data && c->x[3].data && c->ints[2]) {
        decode_fill(c, length);
    }
    result(c, c->x[1]);
}
static void run_attention_decode(struct meed_op_case *c)
{
    c->be->attention_decode(c->be, c->x[0], heads_of(c), decode_cache(c), c->ints[0], c->ints[1],
                            &c->tail, c->x[1]);
}

/* --- feed-forward and the low-rank branch ----------------------------------------------------- */

static void prepare_glu_fwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, 2 * (int64_t)s->ffn, 1);
    c->x[1] = mat(c, s->rows, s->ffn + s->rank, 0);
    with_tail(c, s->ffn);
    c->bytes += 1.5 * mat_bytes(c->x[0]);
    result(c, c->x[1]);
}
static void run_glu_fwd(struct meed_op_case *c)
{
    c->be->glu_fwd(c->be, MEED_GLU_SILU, c->x[0], &c->tail, c->x[1]);
}

static void run_geglu_fwd(struct meed_op_case *c)
{
    c->be->glu_fwd(c->be, MEED_GLU_GELU_TANH, c->x[0], &c->tail, c->x[1]);
}

static void prepare_glu_bwd(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->ffn, 0.1);
    c->x[1] = mat(c, s->rows, 2 * (int64_t)s->ffn, 1);
    c->x[2] = mat(c, s->rows, 2 * (int64_t)s->ffn, 0);
    c->bytes = 5 * mat_bytes(c->x[0]);
    result(c, c->x[2]);
}
static void run_glu_bwd(struct meed_op_case *c)
{
    c->be->glu_bwd(c->be, MEED_GLU_SILU, c->x[0], c->x[1], c->x[2]);
}

static void run_geglu_bwd(struct meed_op_case *c)
{
    c->be->glu_bwd(c->be, MEED_GLU_GELU_TANH, c->x[0], c->x[1], c->x[2]);
}

static void prepare_lora_down(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden + s->rank, 1);
    with_tail(c, s->hidden);
    c->bytes += mat_bytes(c->x[0]);
    result(c, c->x[0]);
}
static void run_lora_down(struct meed_op_case *c)
{
    c->be->lora_down(c->be, c->x[0], c->shape.hidden, &c->tail);
}

static void prepare_lora_pack(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->f[0] = floats(c, (int64_t)s->rank * s->hidden, 1);
    c->f[1] = floats(c, (int64_t)s->rank * s->hidden, 1);
    c->x[0] = mat(c, s->rank, s->hidden, 0);
    c->x[1] = mat(c, s->hidden, s->rank, 0);
    c->bytes = 8.0 * s->rank * s->hidden + mat_bytes(c->x[0]) + mat_bytes(c->x[1]);
    result(c, c->x[0]);
    result(c, c->x[1]);
}
static void run_lora_pack(struct meed_op_case *c)
{
    c->be->lora_pack(c->be, c->f[0], c->f[1], 2.0f, c->x[0], c->x[1]);
}

static void prepare_lora_grad(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden, 0.1);
    c->x[1] = mat(c, s->rows, s->hidden + s->rank, 1);
    c->x[2] = mat(c, s->rows, s->hidden + s->rank, 0.1);
    c->f[0] = floats(c, (int64_t)s->rank * s->hidden, 0);
    c->f[1] = floats(c, (int64_t)s->rank * s->hidden, 0);
    c->tail = (struct meed_tail){.a = mat(c, s->rank, s->hidden, 0.05)};
    c->flops = 6.0 * s->rows * s->rank * (double)s->hidden;
    c->bytes = mat_bytes(c->x[0]) + mat_bytes(c->x[1]) + 2 * mat_bytes(c->x[2]);
    result(c, c->x[2]);
    result(c, meed_mat_view(c->f[0], s->rank, s->hidden, s->hidden, MEED_DTYPE_F32));
    result(c, meed_mat_view(c->f[1], s->hidden, s->rank, s->rank, MEED_DTYPE_F32));
}
static void run_lora_grad(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    struct meed_lora_slot slot = {0, s->hidden, 0, s->rank, 2.0f, c->f[1]};
    c->be->lora_grad(c->be, c->x[0], c->x[1], s->hidden, &c->tail, &slot, 1, c->f[0], true,
                     c->x[2]);
}

static void prepare_lora_gate_grad(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->hidden + s->rank, 1);
    c->x[1] = mat(c, s->rows, s->hidden + s->rank, 0.1);
    c->sums = keep(c, meed_bench_values(c->be, 2 * (int64_t)s->rank, MEED_DTYPE_F32, 0, 0));
    with_tail(c, s->hidden);
    c->bytes = mat_bytes(c->x[0]) + mat_bytes(c->tail.a);
}
static void run_lora_gate_grad(struct meed_op_case *c)
{
    c->be->lora_gate_grad(c->be, c->x[0], c->x[1], c->shape.hidden, &c->tail, c->sums);
}

static void prepare_lora_merge(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->hidden, s->hidden, 0.05);
    c->x[1] = mat(c, s->hidden, s->rank, 0.05);
    c->x[2] = mat(c, s->rank, s->hidden, 0.05);
    c->x[3] = mat(c, s->hidden, s->hidden, 0);
    c->f[0] = floats(c, s->rank, 1);
    c->flops = 2.0 * s->hidden * s->rank * (double)s->hidden;
    c->bytes = 2 * mat_bytes(c->x[0]) + mat_bytes(c->x[1]) + mat_bytes(c->x[2]);
    result(c, c->x[3]);
}
static void run_lora_merge(struct meed_op_case *c)
{
    c->be->lora_merge(c->be, c->x[0], c->x[1], c->x[2], c->f[0], c->x[3]);
}

/* --- the end of a step ------------------------------------------------------------------------ */

static void prepare_xent(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, s->rows, s->vocab, 3);
    c->ints[0] = ints(c, s->rows, 7919, s->vocab);
    c->f[0] = floats(c, s->rows, 1);
    c->x[1] = floats_mat(c, 1, s->rows, 0);
    c->bytes = 2 * mat_bytes(c->x[0]);
    result(c, c->x[0]);
    result(c, c->x[1]);
}
static void run_xent(struct meed_op_case *c)
{
    c->be->xent(c->be, c->x[0], c->ints[0], c->f[0], c->x[1].data);
}

/* Rows of logits as a decoding batch has them. */
static void prepare_top_k(struct meed_op_case *c)
{
    const struct meed_op_shape *s = &c->shape;
    c->x[0] = mat(c, SLOTS, s->vocab, 10);
    c->x[1] = floats_mat(c, SLOTS, 8, 0);
    c->ints[0] = ints(c, SLOTS * 8, 1, 1);
    c->bytes = mat_bytes(c->x[0]) + 2 * mat_bytes(c->x[1]);
    result(c, c->x[1]);
}
static void run_top_k(struct meed_op_case *c)
{
    c->be->top_k(c->be, c->x[0], 8, c->x[1].data, c->ints[0]);
}

/* Ids are judged by tests/parity: a draw may hang on the last bit of an exponential. */
static void prepare_sample(struct meed_op_case *c)
{
    c->x[0] = mat(c, SLOTS, c->shape.vocab, 10);
    c->ints[0] = ints(c, 2 * SLOTS, 77, INT32_MAX); /* keys */
    c->ints[1] = ints(c, SLOTS, 1, SLOTS);
    c->ints[2] = ints(c, SLOTS, 1, SLOTS);
    c->bytes = mat_bytes(c->x[0]);
}
static void run_sample(struct meed_op_case *c)
{
    const struct meed_sample_rule rule = {.temperature = 0.7f, .top_p = 0.9f};
    c->be->sample(c->be, c->x[0], rule, (const uint64_t *)(const void *)c->ints[0], c->ints[1],
                  c->ints[2]);
}

enum { PARAMETERS = 1 << 22 };

static void prepare_adamw(struct meed_op_case *c)
{
    for (int i = 0; i < 3; i++) {
        c->f[i] = floats(c, PARAMETERS, i == 2 ? 0 : 0.1);
    }
    c->x[0] = floats_mat(c, 1, PARAMETERS, 1);
    const struct meed_adamw_step step =
        meed_adamw_step_make(1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 1.0f, 3);
    int32_t words[sizeof step / sizeof(int32_t)];
    memcpy(words, &step, sizeof step);
    c->ints[0] = keep(c, meed_bench_ints(c->be, words, MEED_COUNT(words)));
    c->bytes = 7.0 * 4 * PARAMETERS;
    result(c, c->x[0]);
}
static void run_adamw(struct meed_op_case *c)
{
    c->be->adamw(c->be, (const void *)c->ints[0], PARAMETERS, c->f[0], c->f[1], c->f[2],
                 c->x[0].data);
}

static void prepare_sqnorm(struct meed_op_case *c)
{
    c->f[0] = floats(c, PARAMETERS, 1);
    c->sums = (double *)(void *)floats(c, 2, 0);
    c->bytes = 4.0 * PARAMETERS;
}
static void run_sqnorm(struct meed_op_case *c)
{
    c->be->sqnorm(c->be, c->f[0], PARAMETERS, c->sums);
}

/* --- frozen weights in blocks ----------------------------------------------------------------- */

/* NF4 codes and scales of x[0] [hidden, hidden]: the dearest format to unpack. */
static void prepare_block_pack(struct meed_op_case *c)
{
    int64_t hidden = c->shape.hidden, blocks = hidden * meed_blocks_per_row(hidden);
    int64_t code_floats = blocks * meed_block_bytes(MEED_BLOCK_NF4) / (int64_t)sizeof(float);
    c->x[0] = mat(c, hidden, hidden, 0.05);
    c->x[1] = floats_mat(c, 1, blocks, 0);
    c->packed = (struct meed_blocks){.codes = (uint8_t *)floats(c, code_floats, 0),
                                     .scales = c->x[1].data,
                                     .rows = hidden,
                                     .cols = hidden,
                                     .format = MEED_BLOCK_NF4};
    c->bytes = mat_bytes(c->x[0]) + 4.0 * (double)(code_floats + blocks);
    result(c, c->x[1]);
}
static void run_block_pack(struct meed_op_case *c)
{
    c->be->block_pack(c->be, c->x[0], c->packed);
}

static void prepare_block_unpack(struct meed_op_case *c)
{
    prepare_block_pack(c);
    c->x[2] = mat(c, c->shape.hidden, c->shape.rank, 1);
    c->x[3] = mat(c, c->shape.hidden, c->shape.hidden + c->shape.rank, 0);
    c->bytes += mat_bytes(c->x[2]) + mat_bytes(c->x[3]) - mat_bytes(c->x[0]);
    if (c->x[0].data && c->packed.codes && c->packed.scales) {
        run_block_pack(c);
    }
    c->out_count = 0;
    result(c, c->x[3]);
}
static void run_block_unpack(struct meed_op_case *c)
{
    c->be->block_unpack(c->be, c->packed, c->x[2], c->x[3]);
}

/* --- the table -------------------------------------------------------------------------------- */

const struct meed_op_case_info meed_op_cases[] = {
#define MEED_OP(name, text) {#name, prepare_##name, run_##name},
#include "kernels/ops.def"
#undef MEED_OP
    {"attention_fwd, window", prepare_attention_window, run_attention_window},
    {"glu_fwd, gelu", prepare_glu_fwd, run_geglu_fwd},
    {"glu_bwd, gelu", prepare_glu_bwd, run_geglu_bwd},
};
const int meed_op_case_count = (int)MEED_COUNT(meed_op_cases);

enum meed_status meed_op_case_open(struct meed_op_case *c, int idx, const struct meed_backend *be,
                                   const struct meed_op_shape *shape, enum meed_dtype dtype)
{
    *c = (struct meed_op_case){.be = be, .shape = *shape, .dtype = dtype};
    meed_op_cases[idx].prepare(c);
    for (int i = 0; i < c->block_count; i++) {
        if (!c->blocks[i]) {
            meed_op_case_close(c);
            return MEED_FAIL(MEED_NOMEM, "%s: no memory for the operands: %s",
                             meed_op_cases[idx].name, meed_last_error());
        }
    }
    return be->sync(be);
}

void meed_op_case_close(struct meed_op_case *c)
{
    for (int i = 0; i < c->block_count; i++) {
        if (c->blocks[i]) {
            c->be->forget(c->be, c->blocks[i]);
            c->be->free(c->be, c->blocks[i]);
        }
    }
    c->block_count = 0;
}
