/* Inside of a network: what net*.c share, and no one else includes.
 *
 * One linear group of one layer, with its K-extended weight and the buffers around it:
 *
 *            K            R                       K            R
 *      +-----------+-------------+          +-----------+-------------+
 *   M  |     x     | T = g ⊙ xAᵀ |   ·   N  |     W     |  s∘B blocks | ᵀ   =   y [M, N]
 *      +-----------+-------------+          +-----------+-------------+
 *        written by the producer               `weight`; A is `a` [R, K]
 *
 * Columns of the tail run adapter by adapter and, inside one, projection by projection, so fp32
 * sums over the tail are sums in adapter order. B of a module stands in that module's rows only.
 *
 * Activations: a training network keeps every layer's, a scoring network uses one set for all
 * layers. The code cannot tell: each layer holds its own views, which either differ or coincide.
 * The residual stream is summed in place: a linear writes its output where the norm that follows
 * adds the stream onto it.
 *
 * After the last attention only wanted rows matter (those that carry loss, or whose logits are
 * asked for). They are gathered there once: the last feed-forward and the head see nothing else.
 */
#ifndef MEED_ENGINE_NET_INTERNAL_H
#define MEED_ENGINE_NET_INTERNAL_H

#include "base/arena.h"
#include "engine/device_arena.h"
#include "engine/graph_cache.h"
#include "engine/kv_pages.h"
#include "engine/net.h"

MEED_BEGIN_C

/* Where one adapter's module stands in a group, and in the adapter's flat vector. */
struct meed_net_slot {
    int32_t adapter;
    enum meed_proj proj;
    int64_t t_begin;
    int64_t r;
    float scale;
    int64_t flat; /* A at flat, B at flat + r·K */
};

struct meed_net_group {
    int64_t k, n, r;        /* r: R, padded to TAIL_ALIGN */
    struct meed_mat weight; /* [N, K+R]; over the shared scratch where the base is in blocks */
    struct meed_mat tail;   /* [N, R], s∘B: the last columns of weight, or its own with blocks */
    struct meed_blocks blocks; /* W [N, K]; format NONE: it stands in weight */
    struct meed_mat a;         /* [R, K] */
    float *bias;               /* [N] or NULL */
    struct meed_net_slot *slots;
    int32_t slot_count;
    int32_t layout;     /* groups whose tails are laid out alike share gate vectors */
    struct meed_mat xt; /* [rows, K+R]: input and tail, kept for the backward pass */
};

struct meed_net_layer {
    struct meed_net_group groups[MEED_GROUP_COUNT];
    float *norms[2];     /* before attention and feed-forward: [hidden] */
    float *out_norms[2]; /* behind them, or NULL */
    float *q_norm;       /* [D] or NULL */
    float *k_norm;
    struct meed_mat sums[2]; /* residual stream after the addition of each norm [rows, hidden] */
    struct meed_mat qkv;     /* [rows, (H+2G)D], rotated */
    struct meed_mat gu;      /* [rows, 2F] */
    float *rstd[2];          /* [rows] */
    struct meed_mat outs[2]; /* what the out norms normalise [rows, hidden] */
    float *out_rstd[2];      /* [rows] */
    float *q_rstd;           /* [rows, H] */
    float *k_rstd;           /* [rows, G] */
    float *lse;              /* [rows, H] */
};

/* One arrangement of tail columns. Uniform adapters have at most four of them, whatever L is. */
struct meed_net_layout {
    const struct meed_net_group *model; /* the first group of this layout */
    int64_t begin;                      /* Σ R of the layouts before */
};

/* Gate vectors, expanded to the columns of every layout: layout i is [sets, R] at begin·sets. */
struct meed_net_gates {
    int32_t sets; /* 0: none given, all ones */
    int32_t capacity;
    struct meed_device_arena device;
    float *gates;
    double *dgates;
    float *gates_host; /* heap, as the device's */
    double *dgates_host;
};

struct meed_net {
    const struct meed_backend *be;
    struct meed_model_config config;
    struct meed_net_options options; /* its adapters pointer is cleared after creation */
    struct meed_arena host;
    struct meed_device_arena device;

    /* weights */
    struct meed_net_layer *layers;
    struct meed_mat embed; /* [V, hidden] */
    struct meed_mat head;  /* [V, hidden]; the embedding if tied */
    void *unpacked;        /* the largest [W | s∘B] of the groups, shared; NULL when dense */
    size_t unpacked_bytes;
    float *final_norm;           /* [hidden] */
    float embed_scale;           /* rounded to the net's dtype */
    struct meed_rope_table rope; /* [rope_positions, D/2], and again for windowed layers */
    int32_t rope_positions;
    float *staging_dev; /* [largest adapter] where the host cannot write factors, else NULL */
    struct meed_net_layout *layouts;
    int32_t layout_count;
    int64_t layout_width; /* Σ R over layouts */
    struct meed_net_gates gates;
    float *merge_gates;      /* [layout_width] on the device, and its host copy */
    float *merge_gates_host; /* (this net being the stack of meed_net_merge) */
    int64_t master_count;
    int64_t stop; /* layer·GROUPS + group of the lowest adapted group: backward ends there */

    /* the batch, on the device; what a decoding step needs is one block, `feed`, sent at once */
    int32_t *feed;           /* [MEED_NET_FEED_WORDS, max_rows]: the next eight */
    int32_t *feed_host;      /* its staging */
    uint64_t *draw_keys;     /* [max_rows]: sampling */
    int32_t *ids;            /* [max_rows] */
    int32_t *positions;      /* [max_rows] */
    int32_t *wanted;         /* [max_rows]: rows that reach the head */
    int32_t *slots;          /* [max_rows]: decoding */
    int32_t *draws;          /* [max_rows] */
    int32_t *gate_of_row;    /* [max_rows] */
    int32_t *gate_of_wanted; /* [max_rows] */
    int32_t *starts;         /* [max_sequences + 1] */
    int32_t *targets;        /* [max_rows] */
    int32_t *rows_host;      /* [max_rows]: staging of lists of rows */
    float *row_weight;       /* [max_rows] */
    float *logprob;          /* [max_rows] */
    uint64_t *dropout_keys;  /* [layers·GROUPS], and its host copy (heap); NULL without dropout */
    uint64_t *dropout_keys_host;
    struct meed_net_pass *loaded; /* heap: the batch of meed_net_load_batch */

    /* the end of the stream, wanted rows only, each [max_rows, hidden] */
    struct meed_mat picked_sum;    /* the last layer's sums[1] */
    struct meed_mat picked_stream; /* its residual; in the backward pass the stream's gradient */
    struct meed_mat last;          /* what the final norm normalises */
    struct meed_mat final_y;       /* its result, then the gradient of that */
    float *final_rstd;
    int32_t chunk; /* rows of logits at a time */
    void *logits;  /* [chunk, V], fp32 when scoring, the net's dtype when training */

    /* backward */
    struct meed_mat dsum; /* [max_rows, hidden]: gradient of the residual stream */
    void *dxt;            /* [max_rows, K+R] of the group at hand */
    struct meed_mat dout; /* [max_rows, hidden]: gradient of what an out norm normalised */
    struct meed_mat dqkv; /* [max_rows, (H+2G)D] */
    float *da;            /* [R, K] of the group at hand */
    float *one;           /* 1.0f on the device: lora_merge serves as y += x */
};

enum { MEED_NET_TAIL_ALIGN = 8, MEED_NET_TAIL_WIDE = 32, MEED_NET_FEED_WORDS = 9 };

/* Rows in flight, and how their tails are made. Every pointer is the device's. */
struct meed_net_pass {
    int32_t rows;
    int32_t wanted; /* rows listed in net->wanted */
    bool gated;     /* false: all gates are one */
    struct meed_pack pack;
    struct meed_rope_table rope;
    int32_t rope_positions; /* in the table */
    float dropout;
    const struct meed_kv_cache *cache; /* decoding only, as slots */
    const int32_t *slots;
};

struct meed_kv_cache {
    const struct meed_backend *be;
    struct meed_device_arena device;
    struct meed_rope_table rope; /* as the net's, of `capacity` positions */
    struct meed_kv_pages *pages;
    int32_t *table;                 /* [slots, slot_pages] on the device: the pages' own, as of */
    int64_t table_version;          /* this version */
    struct meed_graph_cache graphs; /* steps that came before */
    int32_t slots;
    int32_t slot_pages;
    int32_t page_count;
    int32_t capacity;
    int32_t layer_count;
    struct meed_kv_layer *layers; /* heap */
};

/* A view of the first rows of a buffer that holds max_rows of them. */
static inline struct meed_mat meed_net_top(struct meed_mat buffer, int64_t rows)
{
    return meed_mat_rows(buffer, 0, rows);
}
static inline struct meed_net_group *meed_net_group_at(const struct meed_net *net, int32_t layer,
                                                       enum meed_group group)
{
    return &net->layers[layer].groups[group];
}

/* net_layout.c: sizes, slots and every block, each in two passes. */
MEED_MUST_CHECK enum meed_status meed_net_lay_out(struct meed_net *net);
/* net_weights.c: base weights from the checkpoint. */
MEED_MUST_CHECK enum meed_status meed_net_fill(struct meed_net *net,
                                               const struct meed_checkpoint *checkpoint);

/* Entries of a rotary table: one part for every base that the model turns by. */
int64_t meed_net_rope_angles(const struct meed_net *net, int32_t positions);
/* The part that a layer reads, and how it attends. */
struct meed_rope_table meed_net_rope_of(const struct meed_net *net, int32_t layer,
                                        const struct meed_net_pass *pass);
struct meed_attention_shape meed_net_attention_of(const struct meed_net *net, int32_t layer);

/* [W | s∘B] of a group, ready for one product: with a base in blocks it is unpacked into the
 * scratch that all groups share, and valid until the next call. */
struct meed_mat meed_net_weight(const struct meed_net *net, const struct meed_net_group *group);

/* cos and sin of a table's positions, to the device. */
MEED_MUST_CHECK enum meed_status meed_net_fill_rope(const struct meed_net *net, int32_t positions,
                                                    struct meed_rope_table table);

/* net_gates.c: where a group finds its gates [sets, R] and their gradients. */
float *meed_net_gates_of(const struct meed_net *net, const struct meed_net_group *group);
double *meed_net_dgates_of(const struct meed_net *net, const struct meed_net_group *group);
void meed_net_dgates_zero(struct meed_net *net);
/* dgates [sets, adapter_count] −= what the pass gathered (it ran on a loss, not on a value). */
MEED_MUST_CHECK enum meed_status meed_net_dgates_collect(struct meed_net *net, double *dgates);
void meed_net_gates_clear(struct meed_net *net);

/* net_forward.c: checks a batch and copies it over. */
MEED_MUST_CHECK enum meed_status
meed_net_upload(struct meed_net *net, const struct meed_batch *batch, struct meed_net_pass *pass);
MEED_MUST_CHECK enum meed_status meed_net_check_ids(const struct meed_net *net, const int32_t *ids,
                                                    int32_t count);
/* All layers and the final norm: final_y holds the wanted rows. */
void meed_net_run(struct meed_net *net, const struct meed_net_pass *pass);
/* Logits of rows [begin, begin + count) of final_y. */
struct meed_mat meed_net_head(struct meed_net *net, int32_t begin, int32_t count,
                              enum meed_dtype dtype);
/* fp32 logits of final_y's first rows [count, V], to the host. */
MEED_MUST_CHECK enum meed_status meed_net_head_to_host(struct meed_net *net, int32_t count,
                                                       float *logits);
struct meed_tail meed_net_tail(const struct meed_net *net, int32_t layer, enum meed_group group,
                               const struct meed_net_pass *pass);

/* net_dense.c: the matrix of one group, data NULL where the dense has none. */
struct meed_net_dense;
struct meed_mat meed_net_dense_group(const struct meed_net_dense *dense, int32_t layer,
                                     enum meed_group group);

MEED_END_C
#endif
