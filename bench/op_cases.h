/* Every op of the registry once, at the shape of a layer: operands, the call, what it must move.
 *
 * A case is built on any backend from the same values, so one run on the device and one on the
 * oracle must agree before anything is timed. FLOPs and bytes are those of the op's contract: each
 * operand once, nothing for what a kernel reads twice.
 */
#ifndef MEED_BENCH_OP_CASES_H
#define MEED_BENCH_OP_CASES_H

#include "kernels/backend.h"

enum { MEED_OP_CASE_BLOCKS = 32, MEED_OP_CASE_OUTS = 3 };

/* One layer's shape; the vocabulary is a chunk of the head. */
struct meed_op_shape {
    int32_t rows, hidden, ffn, heads, kv_heads, head_dim, rank, vocab, length;
};

struct meed_op_case {
    const struct meed_backend *be;
    struct meed_op_shape shape;
    enum meed_dtype dtype;
    double flops, bytes;
    int out_count; /* results, compared after one run */
    struct meed_mat outs[MEED_OP_CASE_OUTS];
    struct meed_mat x[8];
    float *f[6];
    int32_t *ints[3];
    double *sums; /* where an op gives float64 */
    struct meed_tail tail;
    struct meed_pack pack;
    struct meed_blocks packed;
    int block_count;
    void *blocks[MEED_OP_CASE_BLOCKS];
};

struct meed_op_case_info {
    const char *name;
    void (*prepare)(struct meed_op_case *c);
    void (*run)(struct meed_op_case *c);
};
/* In the order of ops.def, an op without a case does not link; then variants that networks run
 * beside the usual form: a window, GELU. */
extern const struct meed_op_case_info meed_op_cases[];
extern const int meed_op_case_count;

/* NOMEM where the backend refuses memory. */
MEED_MUST_CHECK enum meed_status meed_op_case_open(struct meed_op_case *c, int idx,
                                                   const struct meed_backend *be,
                                                   const struct meed_op_shape *shape,
                                                   enum meed_dtype dtype);
void meed_op_case_close(struct meed_op_case *c);

#endif
