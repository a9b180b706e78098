/* Backward of the low-rank branch: dA, dB and its part of dx, each in one pass over its operand.
 *
 * After dxt = dy·[W | s∘B] both dx and dT stand in dxt. With U = gates ⊙ dT in fp32 (M × R, made
 * once) everything left is a product with a skinny left operand:
 *     dA   = Uᵀ·x̃       columns of x in blocks, the sum over rows as one chain per element
 *     dBᵀ  = s·Tᵀ·dy    columns of dy in blocks, per module
 *     dx  += mask ⊙ U·A rows in tiles
 * The three run as one parallel loop over output blocks that depend on shapes alone: x and dy are
 * read once, no element of an output is written by two blocks, and the order over rows is the order
 * of the batch. So gradients do not depend on the thread count, without atomics.
 */
#include "kernels/cpu/lora_tail.h"

#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"

enum { BLOCK_COLS = 192, BLOCK_DEPTH = 128, DX_ROWS = 32 };

struct job {
    struct meed_mat dy;
    struct meed_mat xt;
    struct meed_mat dxt;
    const struct meed_tail *tail;
    const struct meed_lora_slot *slots;
    int32_t slot_count;
    int64_t k;
    int64_t r;
    float *da;
    const float *u;        /* [M, R] gates ⊙ dT */
    const float *t;        /* [M, R] T */
    const float *packed_a; /* A by blocks of BLOCK_COLS columns */
    int64_t da_blocks;
    int64_t db_blocks;
};

/* acc [rank, BLOCK_COLS] = leftᵀ·src[:, col : col + cols], left [M, R] at its first column. */
static const float *columns_product(const struct job *job, const float *left, int64_t rank,
                                    struct meed_mat src, int64_t col, int64_t cols, bool dropout)
{
    int64_t width = panel_cols(cols);
    float *acc = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)(rank * width));
    float *packed = meed_cpu_scratch_floats(MEED_SCRATCH_PANEL, BLOCK_DEPTH * BLOCK_COLS);
    float *rows = meed_cpu_scratch_floats(MEED_SCRATCH_ROWS, BLOCK_DEPTH * BLOCK_COLS);
    memset(acc, 0, (size_t)(rank * width) * sizeof *acc);
    for (int64_t m = 0; m < src.rows; m += BLOCK_DEPTH) {
        int64_t depth = MEED_MIN(BLOCK_DEPTH, src.rows - m);
        int64_t at = m * src.stride + col;
        if (dropout) {
            for (int64_t i = 0; i < depth; i++) {
                vf_unpack_row(src.data, at + i * src.stride, src.dtype, cols, rows + i * cols);
                MEED_TWIN(tail_dropout)(job->tail, job->k, m + i, col, cols, rows + i * cols);
            }
            MEED_TWIN(panel_pack)(rows, MEED_DTYPE_F32, cols, false, depth, cols, packed);
        } else {
            const char *from = (const char *)src.data + (size_t)at * meed_dtype_bytes(src.dtype);
            MEED_TWIN(panel_pack)(from, src.dtype, src.stride, false, depth, cols, packed);
        }
        MEED_TWIN(panel_gemm)(left + m * job->r, 1, job->r, rank, depth, packed, cols, acc, width);
    }
    return acc;
}

static void block_da(const struct job *job, int64_t block)
{
    int64_t col = block * BLOCK_COLS;
    int64_t cols = MEED_MIN(BLOCK_COLS, job->k - col);
    const float *acc =
        columns_product(job, job->u, job->r, job->xt, col, cols, job->tail->dropout > 0.0f);
    int64_t width = panel_cols(cols);
    for (int64_t j = 0; j < job->r; j++) {
        for (int64_t i = 0; i < cols; i++) {
            job->da[j * job->k + col + i] += acc[j * width + i];
        }
    }
}

static int64_t slot_blocks(const struct meed_lora_slot *slot)
{
    return slot->db ? (slot->n_count + BLOCK_COLS - 1) / BLOCK_COLS : 0;
}

static void block_db(const struct job *job, int64_t block)
{
    const struct meed_lora_slot *slot = job->slots;
    while (block >= slot_blocks(slot)) {
        block -= slot_blocks(slot);
        slot++;
    }
    int64_t begin = block * BLOCK_COLS;
    int64_t cols = MEED_MIN(BLOCK_COLS, slot->n_count - begin);
    const float *acc = columns_product(job, job->t + slot->t_begin, slot->r, job->dy,
                                       slot->n_begin + begin, cols, false);
    int64_t width = panel_cols(cols);
    for (int64_t n = 0; n < cols; n++) {
        for (int64_t j = 0; j < slot->r; j++) {
            slot->db[(begin + n) * slot->r + j] += slot->scale * acc[j * width + n];
        }
    }
}

static void block_dx(const struct job *job, int64_t block)
{
    int64_t row = block * DX_ROWS;
    int64_t rows = MEED_MIN(DX_ROWS, job->dxt.rows - row);
    float *acc = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, DX_ROWS * BLOCK_COLS);
    for (int64_t col = 0; col < job->k; col += BLOCK_COLS) {
        int64_t cols = MEED_MIN(BLOCK_COLS, job->k - col);
        int64_t width = panel_cols(cols);
        memset(acc, 0, (size_t)(rows * width) * sizeof *acc);
        MEED_TWIN(panel_gemm)
        (job->u + row * job->r, job->r, 1, rows, job->r, job->packed_a + col * job->r, cols, acc,
         width);
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = (row + i) * job->dxt.stride + col;
            if (job->tail->dropout > 0.0f) {
                MEED_TWIN(tail_dropout)(job->tail, job->k, row + i, col, cols, acc + i * width);
            }
            for (int64_t j = 0; j < cols; j += VL) {
                vf value = vf_get_n(job->dxt.data, at + j, job->dxt.dtype, cols - j);
                vf_put_n(job->dxt.data, at + j, job->dxt.dtype, cols - j,
                         value + vf_load(acc + i * width + j));
            }
        }
    }
}

static void blocks_run(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    for (int64_t block = begin; block < end; block++) {
        if (block < job->da_blocks) {
            block_da(job, block);
        } else if (block < job->da_blocks + job->db_blocks) {
            block_db(job, block - job->da_blocks);
        } else {
            block_dx(job, block - job->da_blocks - job->db_blocks);
        }
    }
}

/* [M, R] fp32 of the last R columns of x, times the gates if asked. */
static const float *columns_unpack(struct meed_mat x, int64_t k, int64_t r,
                                   const struct meed_tail *gated, enum meed_scratch_slot slot)
{
    float *to = meed_cpu_scratch_floats(slot, (size_t)(x.rows * r));
    for (int64_t m = 0; m < x.rows; m++) {
        const float *gates = gated ? tail_gates(gated, m) : NULL;
        for (int64_t j = 0; j < r; j += VL) {
            vf value = vf_get_n(x.data, m * x.stride + k + j, x.dtype, r - j);
            if (gates) {
                value *= vf_get_n(gates, j, MEED_DTYPE_F32, r - j);
            }
            vf_put_n(to, m * r + j, MEED_DTYPE_F32, r - j, value);
        }
    }
    return to;
}

void MEED_TWIN(lora_grad)(const struct meed_backend *be, struct meed_mat dy, struct meed_mat xt,
                          int64_t k, const struct meed_tail *tail,
                          const struct meed_lora_slot *slots, int32_t slot_count, float *da,
                          bool dx_wanted, struct meed_mat dxt)
{
    if (!tail || !tail->a.data || tail->a.rows == 0 || dy.rows == 0) {
        return;
    }
    struct job job = {dy,           xt, dxt,  tail, slots, slot_count, k,
                      tail->a.rows, da, NULL, NULL, NULL,  0,          0};
    MEED_ASSERT(tail->a.cols == k && xt.cols == k + job.r && dxt.cols == k + job.r);
    MEED_ASSERT(dy.rows == xt.rows && dxt.rows == xt.rows);
    job.u = columns_unpack(dxt, k, job.r, tail, MEED_SCRATCH_SHARED_B);
    job.da_blocks = da ? (k + BLOCK_COLS - 1) / BLOCK_COLS : 0;
    for (int32_t i = 0; i < slot_count; i++) {
        MEED_ASSERT(slots[i].n_begin + slots[i].n_count <= dy.cols);
        MEED_ASSERT(slots[i].t_begin + slots[i].r <= job.r);
        job.db_blocks += slot_blocks(&slots[i]);
    }
    if (job.db_blocks > 0) {
        job.t = columns_unpack(xt, k, job.r, NULL, MEED_SCRATCH_SHARED_C);
    }
    int64_t dx_blocks = 0;
    if (dx_wanted) {
        float *packed =
            meed_cpu_scratch_floats(MEED_SCRATCH_SHARED_A, (size_t)(panel_cols(k) * job.r));
        for (int64_t col = 0; col < k; col += BLOCK_COLS) {
            const char *from =
                (const char *)tail->a.data + (size_t)col * meed_dtype_bytes(tail->a.dtype);
            MEED_TWIN(panel_pack)
            (from, tail->a.dtype, tail->a.stride, false, job.r, MEED_MIN(BLOCK_COLS, k - col),
             packed + col * job.r);
        }
        job.packed_a = packed;
        dx_blocks = (dy.rows + DX_ROWS - 1) / DX_ROWS;
    }
    meed_pool_for(be->pool, job.da_blocks + job.db_blocks + dx_blocks, 1, blocks_run, &job);
}

struct gate_job {
    struct tail_job tail;
    struct meed_mat xt;
    struct meed_mat dxt;
    float *product; /* [M, panel_cols(R)] x·Aᵀ */
    double *dgate;
};

static void rows_product(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct gate_job *job = user;
    MEED_TWIN(tail_product)
    (&job->tail, job->xt, begin, end, job->product + begin * panel_cols(job->tail.r));
}

/* Columns of the product: each gate's sum runs over the rows in order, in float64. */
static void columns_sum(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct gate_job *job = user;
    int64_t r = job->tail.r;
    int64_t width = panel_cols(r);
    const struct meed_tail *tail = job->tail.tail;
    for (int64_t m = 0; m < job->xt.rows; m++) {
        double *to = job->dgate + (tail->gate_of_row ? tail->gate_of_row[m] : 0) * r;
        for (int64_t j = begin; j < end; j++) {
            float grad =
                elem_get(job->dxt.data, m * job->dxt.stride + job->tail.k + j, job->dxt.dtype);
            to[j] += (double)grad * (double)job->product[m * width + j];
        }
    }
}

void MEED_TWIN(lora_gate_grad)(const struct meed_backend *be, struct meed_mat xt,
                               struct meed_mat dxt, int64_t k, const struct meed_tail *tail,
                               double *dgate)
{
    struct gate_job job = {MEED_TWIN(tail_prepare)(tail, k), xt, dxt, NULL, dgate};
    if (!job.tail.packed || xt.rows == 0) {
        return;
    }
    MEED_ASSERT(xt.cols == k + job.tail.r && dxt.cols == k + job.tail.r && xt.rows == dxt.rows);
    job.product =
        meed_cpu_scratch_floats(MEED_SCRATCH_SHARED_B, (size_t)(xt.rows * panel_cols(job.tail.r)));
    meed_pool_for(be->pool, xt.rows, TAIL_ROWS, rows_product, &job);
    meed_pool_for(be->pool, job.tail.r, 64, columns_sum, &job);
}
