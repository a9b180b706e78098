/* The backend: one table of typed functions per device, and the only way to memory and arithmetic.
 *
 * The engine holds a `const struct meed_backend *` and calls ops through it; CPU and CUDA fill the
 * same table, so there is one model, one trainer and one valuation for both. Every op is
 * asynchronous to the host on devices with streams; `sync` waits. Ops write exactly what their
 * contract says and nothing else, use no memory but their arguments and the scratch they are given,
 * and are deterministic: same arguments, same bits, for any number of threads and any batch around
 * a row (`kernels/README.md` says how each op keeps that).
 *
 * Contracts stand beside each prototype; formulas use the letters of types.h. Views are checked by
 * assertions: a wrong shape is a bug in the engine, never in a user's file. In a bf16 model the
 * activations, T and weights are bf16, and sums are fp32; gradients of activations are in the
 * activation dtype; LoRA masters, their gradients, rstd, lse and optimiser state are fp32.
 */
#ifndef MEED_KERNELS_BACKEND_H
#define MEED_KERNELS_BACKEND_H

#include "kernels/block_format.h"
#include "kernels/types.h"

MEED_BEGIN_C

struct meed_pool;

enum meed_matmul_kind {
    MEED_MATMUL_NT, /* C[M,N] = A[M,K]·B[N,K]ᵀ : forward, B a weight */
    MEED_MATMUL_NN  /* C[M,N] = A[M,K]·B[K,N]  : backward, B a weight */
};

struct meed_attention_shape {
    int32_t heads;    /* H */
    int32_t kv_heads; /* G, divides H */
    int32_t head_dim; /* D */
    float scale;      /* applied to q·k, usually D^-1/2 */
    int32_t window;   /* a row sees its last `window` positions, its own included; 0: all */
};

/* The activation of a gated linear unit (Shazeer 2020). Both are g·σ(z(g)): silu with z = g, and
 * gelu in its tanh form (gelu_pytorch_tanh), ½g(1 + tanh(√(2/π)(g + 0.044715g³))), with
 * z = 2√(2/π)(g + 0.044715g³), because 1 + tanh(x) = 2σ(2x). */
enum meed_glu { MEED_GLU_SILU, MEED_GLU_GELU_TANH };

/* KV cache of one layer, in pages of 64 positions (PagedAttention, Kwon et al. 2023). Position t of
 * slot b lies in page table[b*slot_pages + t/64], at place t mod 64. A page holds 64·G·D elements
 * of k and as many of v, in an order of the backend's own: pages are written by attention_decode
 * and copied whole, nothing else. Slots may name the same page. */
enum { MEED_KV_PAGE = 64 };
struct meed_kv_layer {
    void *k; /* [pages, 64·G·D] */
    void *v;
    const int32_t *table; /* [slots, slot_pages], the device's */
    int32_t slot_pages;
    int32_t pages;
    enum meed_dtype dtype;
};

struct meed_rope_table {
    const float *cos; /* [positions, D/2] */
    const float *sin;
};

/* How op `sample` draws: divide by the temperature, keep the top_k likeliest, and of those the
 * smallest set, likeliest first, whose share is at least top_p. */
struct meed_sample_rule {
    float temperature; /* 0: the best one */
    float top_p;       /* in (0, 1]; 1: all */
    int32_t top_k;     /* 0: all */
};
enum { MEED_TOP_K_MAX = 1024, MEED_VOCAB_MAX = 1 << 24 };

/* What a step of AdamW needs beside its vectors. It lies in device memory, because everything in it
 * changes from step to step and the ops that read it may be inside a graph. The host writes it by
 * meed_adamw_step_make and copies it over; sqnorm adds to its two sums; adamw clips by them. */
struct meed_adamw_step {
    double sqnorm; /* Σ gradient²: starts at 0 */
    double guard;  /* Σ of whatever else must be finite: starts at 0 */
    float beta1;
    float beta2;
    float epsilon;
    float decay;      /* lr·λ */
    float rate;       /* lr / (1 − β₁^t) */
    float correction; /* 1 / √(1 − β₂^t) */
    float clip_norm;  /* 0: off */
};
/* t is 1 for the first step; corrections are computed in float64. */
struct meed_adamw_step meed_adamw_step_make(float lr, float beta1, float beta2, float epsilon,
                                            float weight_decay, float clip_norm, int64_t t);

struct meed_backend;
struct meed_graph; /* the backend's own */

/* C (+)= A·op(B). `accumulate` adds onto C. A and B share a dtype; C is F32 or that dtype. B is
 * read often (a weight): the backend may keep a packed copy keyed by its pointer until
 * forget(B.data). Rows of C do not depend on M. */
typedef void meed_op_matmul_fn(const struct meed_backend *be, enum meed_matmul_kind kind,
                               struct meed_mat a, struct meed_mat b, bool accumulate,
                               struct meed_mat c);
/* out[m, :] = scale·table[ids[m], :]; ids [M], all in range. Scale 1 copies. */
typedef void meed_op_embed_fn(const struct meed_backend *be, struct meed_mat table, float scale,
                              const int32_t *ids, struct meed_mat out);
/* out[ids[m], :] = in[m, :]; ids distinct; other rows of out untouched. */
typedef void meed_op_scatter_fn(const struct meed_backend *be, struct meed_mat in,
                                const int32_t *ids, struct meed_mat out);
/* sum = x + residual (residual.data may be NULL: sum = x; sum.data may equal x.data or be NULL when
 * not wanted); y = sum * rstd ⊙ w with rstd = (mean(sum²) + eps)^-1/2; y's first K columns, then
 * the tail T in its next R columns. rstd [M] fp32 may be NULL in inference. w [K] fp32. */
typedef void meed_op_rmsnorm_fwd_fn(const struct meed_backend *be, struct meed_mat x,
                                    struct meed_mat residual, const float *w, float eps,
                                    const struct meed_tail *tail, struct meed_mat sum,
                                    struct meed_mat y, float *rstd);
/* dsum += d(rmsnorm)ᵀ·dy (dy [M,K]; the low-rank part of dy was added by lora_grad). sum, rstd as
 * the forward left them. */
typedef void meed_op_rmsnorm_bwd_fn(const struct meed_backend *be, struct meed_mat dy,
                                    struct meed_mat sum, const float *w, const float *rstd,
                                    struct meed_mat dsum);
/* In place on `heads` heads of size D side by side in x [M, heads*D]; w [D]; rstd [M, heads]. */
typedef void meed_op_headnorm_fwd_fn(const struct meed_backend *be, struct meed_mat x,
                                     int32_t heads, const float *w, float eps, float *rstd);
/* dx in place from y = the forward's *output* and rstd: x/rms = y/w. Entries of w are non-zero. */
typedef void meed_op_headnorm_bwd_fn(const struct meed_backend *be, struct meed_mat y,
                                     int32_t heads, const float *w, const float *rstd,
                                     struct meed_mat dx);
/* x[m, :] += bias; bias [cols] fp32. */
typedef void meed_op_bias_add_fn(const struct meed_backend *be, struct meed_mat x,
                                 const float *bias);
/* Half-split rotation (Hugging Face): pairs (i, i + D/2) of every head turn by ±position angle.
 * direction +1 forward, -1 backward. positions [M]. */
typedef void meed_op_rope_fn(const struct meed_backend *be, struct meed_mat x, int32_t heads,
                             int32_t head_dim, const int32_t *positions,
                             struct meed_rope_table table, int direction);
/* out[m, h*D:] = softmax(scale·q·kᵀ, causal within sequence and window)·v, then the tail in out's
 * last R columns. qkv is [M, (H + 2G)·D]: q heads, then k, then v. lse [M, H] fp32, may be NULL. */
typedef void meed_op_attention_fwd_fn(const struct meed_backend *be, struct meed_mat qkv,
                                      struct meed_attention_shape shape,
                                      const struct meed_pack *pack, const struct meed_tail *tail,
                                      struct meed_mat out, float *lse);
/* dqkv (written) from dout [M, H·D], out, qkv, lse. */
typedef void meed_op_attention_bwd_fn(const struct meed_backend *be, struct meed_mat dout,
                                      struct meed_mat out, struct meed_mat qkv, const float *lse,
                                      struct meed_attention_shape shape,
                                      const struct meed_pack *pack, struct meed_mat dqkv);
/* Appends rows' k, v at positions[m] of slot slots[m], then attends to 0..positions[m] of that
 * slot. All rows are appended before any attends, so a prompt may be fed as many rows at once. The
 * pages of these positions belong to no other slot; those before may be shared. */
typedef void meed_op_attention_decode_fn(const struct meed_backend *be, struct meed_mat qkv,
                                         struct meed_attention_shape shape,
                                         struct meed_kv_layer cache, const int32_t *slots,
                                         const int32_t *positions, const struct meed_tail *tail,
                                         struct meed_mat out);
/* gu is [M, 2F]: gate, then up. out[:, :F] = act(gate)·up; then the tail. */
typedef void meed_op_glu_fwd_fn(const struct meed_backend *be, enum meed_glu act,
                                struct meed_mat gu, const struct meed_tail *tail,
                                struct meed_mat out);
/* dgu (written, may alias gu) from dout [M, F] and gu. */
typedef void meed_op_glu_bwd_fn(const struct meed_backend *be, enum meed_glu act,
                                struct meed_mat dout, struct meed_mat gu, struct meed_mat dgu);
/* xt [M, K+R]: fills the last R columns from the first K. */
typedef void meed_op_lora_down_fn(const struct meed_backend *be, struct meed_mat xt, int64_t k,
                                  const struct meed_tail *tail);

/* a_rows [r, K] = a (rounded to its dtype); tail [N, r] = scale·b: a view of the module's rows and
 * tail columns of [W | s∘B]. a and b are the fp32 masters, [r, K] and [N, r]. */
typedef void meed_op_lora_pack_fn(const struct meed_backend *be, const float *a, const float *b,
                                  float scale, struct meed_mat a_rows, struct meed_mat tail);

/* One adapted module inside a linear group: its rows of W and its columns of the tail. */
struct meed_lora_slot {
    int64_t n_begin; /* rows of the group's output */
    int64_t n_count; /* N of this module */
    int64_t t_begin; /* columns of the tail */
    int64_t r;       /* rank */
    float scale;     /* s, already folded into the tail columns of [W | s∘B] */
    float *db;       /* [N, r] fp32, += */
};
/* Low-rank backward of a group, after dxt = dy·[W | s∘B] was computed into dxt [M, K+R]:
 *   dT = dxt[:, K:];  da [R, K] fp32 += dTᵀ·x̃;  db_slot += scale·dy[:, slot]ᵀ·T[:, slot];
 *   dxt[:, :K] += keep/(1−dropout) ⊙ (dT·A).
 * xt is the forward's [x | T]; tail is the forward's. With dx_wanted false the last line is left
 * out (layer 0 under frozen embeddings). Training has one adapter and gates NULL; gates, where
 * given, multiply dT in dA and dx. A coalition stack asks for dx alone: da NULL, slot_count 0, and
 * the last line becomes += (gates ⊙ dT)·A. */
typedef void meed_op_lora_grad_fn(const struct meed_backend *be, struct meed_mat dy,
                                  struct meed_mat xt, int64_t k, const struct meed_tail *tail,
                                  const struct meed_lora_slot *slots, int32_t slot_count, float *da,
                                  bool dx_wanted, struct meed_mat dxt);
/* Gradient of the gates of a stack: dgate[gate_of_row[m]*R + j] += dT[m, j]·(x·Aᵀ)[m, j], fp64. */
typedef void meed_op_lora_gate_grad_fn(const struct meed_backend *be, struct meed_mat xt,
                                       struct meed_mat dxt, int64_t k, const struct meed_tail *tail,
                                       double *dgate);
/* out[n, k] = w[n, k] + Σ_j gates[j]·b[n, j]·a[j, k]; fp32 sums in the order of j; b [N, R], s
 * folded in. out may alias w. */
typedef void meed_op_lora_merge_fn(const struct meed_backend *be, struct meed_mat w,
                                   struct meed_mat b, struct meed_mat a, const float *gates,
                                   struct meed_mat out);
/* logits [M, V] F32 or bf16: logprob[m] = log softmax(logits[m])[target[m]] in fp32. If weight is
 * not NULL the logits are overwritten by weight[m]·(softmax − onehot): the gradient of
 * Σ_m −weight[m]·logprob[m]. target −1: logprob 0, gradient 0. */
typedef void meed_op_xent_fn(const struct meed_backend *be, struct meed_mat logits,
                             const int32_t *target, const float *weight, float *logprob);
/* The k ≤ MEED_TOP_K_MAX largest of every row of logits [M, V], largest first, ties to the lower
 * id: values and ids [M, k]. No NaN. */
typedef void meed_op_top_k_fn(const struct meed_backend *be, struct meed_mat logits, int32_t k,
                              float *values, int32_t *ids);
/* ids[m] drawn from row m of logits [M, V] with the uniform number number draws[m] of the random
 * stream keys[m] (base/rng.h). Weights are integers, floor(2^40·exp((logit − best)/temperature)),
 * so every sum is exact and an id depends on its row, key and draw alone; CPU and CUDA differ where
 * the last bits of exp decide. Kept tokens are walked in the order of ids; ties of logits rank by
 * the lower id. −1 where a row has a NaN or +inf, or nothing but −inf. */
typedef void meed_op_sample_fn(const struct meed_backend *be, struct meed_mat logits,
                               struct meed_sample_rule rule, const uint64_t *keys,
                               const int32_t *draws, int32_t *ids);
/* Over count parameters, all fp32; step on the device. The gradient is multiplied by
 * min(1, clip_norm / √sqnorm). Writes nothing where sqnorm or guard is not finite. */
typedef void meed_op_adamw_fn(const struct meed_backend *be, const struct meed_adamw_step *step,
                              int64_t count, const float *gradient, float *m, float *v,
                              float *parameter);
/* *sum += Σ values², fp64, fixed order; sum on the device. */
typedef void meed_op_sqnorm_fn(const struct meed_backend *be, const float *values, int64_t count,
                               double *sum);
/* Frozen weights into blocks along K (block_format.h): out.rows = w.rows, out.cols = w.cols. Values
 * are finite; elements past the last column count as zero and are written so. A block's codes and
 * scale depend on its own values alone, and are the same bits on every backend. */
typedef void meed_op_block_pack_fn(const struct meed_backend *be, struct meed_mat w,
                                   struct meed_blocks out);
/* out [N, K+R]: its first K columns are scale·value(code), one fp32 product rounded to out's dtype;
 * the last R are tail [N, R], of the same dtype (R = 0: data NULL). Same bits on every backend. */
typedef void meed_op_block_unpack_fn(const struct meed_backend *be, struct meed_blocks blocks,
                                     struct meed_mat tail, struct meed_mat out);

/* How the devices of a collective's ranks add among themselves (collective.h); one group at a time.
 * All ranks call each of them, in the same order. */
enum { MEED_DEVICE_COMM_ID_BYTES = 128 };
struct meed_device_comm {
    /* A name for a group to be; UNSUPPORTED where the machine lacks what it takes, with the reason.
     */
    enum meed_status (*make_id)(const struct meed_backend *be,
                                uint8_t id[MEED_DEVICE_COMM_ID_BYTES]);
    enum meed_status (*open)(const struct meed_backend *be,
                             const uint8_t id[MEED_DEVICE_COMM_ID_BYTES], int32_t rank,
                             int32_t world);
    /* meed_collective_sum on device memory, enqueued. */
    enum meed_status (*sum)(const struct meed_backend *be, float *sum, const float *part,
                            int64_t count, int32_t parts);
    void (*close)(const struct meed_backend *be);
};

struct meed_backend {
    const char *name; /* "cpu-avx512", "cpu-avx2", "cpu-generic", "cuda" */
    bool host_memory; /* pointers may be dereferenced by the host */
    struct meed_pool *pool;
    void *state;                         /* the backend's own */
    const struct meed_device_comm *comm; /* NULL: the host carries what ranks add */

    /* Device memory, zeroed, 64-byte aligned; DEVICE_NOMEM says wanted and available bytes. */
    enum meed_status (*alloc)(const struct meed_backend *be, size_t bytes, void **block);
    void (*free)(const struct meed_backend *be, void *block);
    enum meed_status (*copy_to)(const struct meed_backend *be, void *device, const void *host,
                                size_t bytes);
    enum meed_status (*copy_from)(const struct meed_backend *be, void *host, const void *device,
                                  size_t bytes);
    void (*zero)(const struct meed_backend *be, void *device, size_t bytes);
    /* From device memory to device memory, blocks that do not overlap. */
    void (*copy_within)(const struct meed_backend *be, void *to, const void *from, size_t bytes);
    /* Drops anything cached for a weight pointer before its memory changes or dies. */
    void (*forget)(const struct meed_backend *be, const void *weight);
    /* Waits; returns the first failure of any op since the last sync. */
    enum meed_status (*sync)(const struct meed_backend *be);
    /* Graphs: ops that are recorded once and launched together ever after. All four are NULL in a
     * backend without them; engine/graph_cache.h runs the ops one by one there.
     *
     * Between graph_begin and graph_end the calls of ops, zero and copy_within are recorded and do
     * not run. Arguments are recorded by value, pointers included: what changes between launches
     * lies in device memory. alloc, free, copy_to, copy_from and sync do not belong there, nor does
     * an op that needs more scratch than any op before it (run the same ops once in advance): each
     * is a failure, STATE. graph_end returns the first failure since graph_begin, no graph then,
     * and the backend goes on as if nothing had been recorded. `nodes` (may be NULL) tells how many
     * launches, fills and copies a graph holds. A graph is freed before the memory it names. */
    enum meed_status (*graph_begin)(const struct meed_backend *be);
    enum meed_status (*graph_end)(const struct meed_backend *be, struct meed_graph **graph,
                                  int64_t *nodes);
    enum meed_status (*graph_launch)(const struct meed_backend *be, struct meed_graph *graph);
    void (*graph_free)(const struct meed_backend *be, struct meed_graph *graph); /* takes NULL */
    void (*destroy)(struct meed_backend *be);

#define MEED_OP(name, text) meed_op_##name##_fn *name;
#include "kernels/ops.def"
#undef MEED_OP
};

/* Opens the CPU backend with the best instruction set of this processor (or the named one:
 * "avx512", "avx2", "generic"; NULL = best). The pool is borrowed and may be NULL (one thread). */
MEED_MUST_CHECK enum meed_status meed_backend_open_cpu(struct meed_pool *pool, const char *isa,
                                                       struct meed_backend **backend);
/* Opens the device that a person named: "cpu" (or NULL), "cuda", "cuda:1". ARG for other words.
 * DEVICE where the machine has no driver or no such device, UNSUPPORTED where this program comes
 * without a CUDA backend; each message ends in what to do. */
MEED_MUST_CHECK enum meed_status meed_backend_open(const char *device, struct meed_pool *pool,
                                                   struct meed_backend **backend);
/* ARG where meed_backend_open would not know the word; opens nothing. For option parsers. */
MEED_MUST_CHECK enum meed_status meed_backend_check_device(const char *device);
void meed_backend_close(struct meed_backend *backend); /* accepts NULL */

MEED_END_C
#endif
