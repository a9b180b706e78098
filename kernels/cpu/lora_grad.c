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
#include "kernels/cpu/thin.h"

enum { BLOCK_COLS = 192, BLOCK_COLS_MIN = 48, BLOCK_DEPTH = 128, DX_ROWS = 32 };

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
    const float *u; /* [M, R] gates ⊙ dT */
    const float *t; /* [M, R] T */
    const float *a; /* [R, K] A in fp32 */
    int64_t block;  /* columns of a dA or dB block */
    int64_t da_blocks;
    int64_t db_blocks;
};

/* Asks for the rows that the next step reads: they lie a stride apart, which no hardware
 * prefetcher follows across pages. */
static void rows_prefetch(struct meed_mat src, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    int64_t item = (int64_t)meed_dtype_bytes(src.dtype);
    for (int64_t i = row; i < MEED_MIN(row + rows, src.rows); i++) {
        const char *from = (const char *)src.data + (i * src.stride + col) * item;
        for (int64_t at = 0; at < cols * item; at += 64) {
            __builtin_prefetch(from + at);
        }
    }
}

/* acc [rank, block] = leftᵀ·src[:, col : col + cols], left [M, R] at its first column. */
static const float *columns_product(const struct job *job, const float *left, int64_t rank,
                                    struct meed_mat src, int64_t col, int64_t cols, bool dropout)
{
    int64_t width = panel_cols(cols);
    float *acc = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)(rank * width));
    float *rows = meed_cpu_scratch_floats(MEED_SCRATCH_ROWS, BLOCK_DEPTH * BLOCK_COLS);
    memset(acc, 0, (size_t)(rank * width) * sizeof *acc);
    for (int64_t m = 0; m < src.rows; m += BLOCK_DEPTH) {
        int64_t depth = MEED_MIN(BLOCK_DEPTH, src.rows - m);
        const char *from =
            (const char *)src.data + (size_t)(m * src.stride + col) * meed_dtype_bytes(src.dtype);
        enum meed_dtype dtype = src.dtype;
        int64_t stride = src.stride;
        if (dropout) {
            for (int64_t i = 0; i < depth; i++) {
                vf_unpack_row(from, i * stride, dtype, cols, rows + i * cols);
                MEED_TWIN(tail_dropout)(job->tail, job->k, m + i, col, cols, rows + i * cols);
            }
            from = (const char *)rows;
            dtype = MEED_DTYPE_F32;
            stride = cols;
        }
        rows_prefetch(src, m + depth, BLOCK_DEPTH, col, cols);
        MEED_TWIN(thin_sum)
        (left + m * job->r, job->r, rank, depth, from, dtype, stride, cols, acc, width);
    }
    return acc;
}

static void block_da(const struct job *job, int64_t block)
{
    int64_t col = block * job->block;
    int64_t cols = MEED_MIN(job->block, job->k - col);
    const float *acc =
        columns_product(job, job->u, job->r, job->xt, col, cols, job->tail->dropout > 0.0f);
    int64_t width = panel_cols(cols);
    for (int64_t j = 0; j < job->r; j++) {
        for (int64_t i = 0; i < cols; i++) {
            job->da[j * job->k + col + i] += acc[j * width + i];
        }
    }
}

static int64_t slot_blocks(const struct meed_lora_slot *slot, int64_t block)
{
    return slot->db ? (slot->n_count + block - 1) / block : 0;
}

static void block_db(const struct job *job, int64_t block)
{
    const struct meed_lora_slot *slot = job->slots;
    while (block >= slot_blocks(slot, job->block)) {
        block -= slot_blocks(slot, job->block);
        slot++;
    }
    int64_t begin = block * job->block;
    int64_t cols = MEED_MIN(job->block, slot->n_count - begin);
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
    struct meed_mat dx = meed_mat_rows(job->dxt, row, rows);
    const float *u = job->u + row * job->r;
    if (job->tail->dropout == 0.0f) {
        /* Eight rows at a time, so that they stay in the first cache along K. */
        for (int64_t i = 0; i < rows; i += 8) {
            struct meed_mat part = meed_mat_rows(dx, i, MEED_MIN(8, rows - i));
            MEED_TWIN(thin_add)
            (u + i * job->r, job->r, part.rows, job->r, job->a, job->k, job->k, part.data, dx.dtype,
             dx.stride);
        }
        return;
    }
    float *acc = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)(DX_ROWS * job->k));
    memset(acc, 0, (size_t)(rows * job->k) * sizeof *acc);
    MEED_TWIN(thin_add)
    (u, job->r, rows, job->r, job->a, job->k, job->k, acc, MEED_DTYPE_F32, job->k);
    for (int64_t i = 0; i < rows; i++) {
        float *low = acc + i * job->k;
        MEED_TWIN(tail_dropout)(job->tail, job->k, row + i, 0, job->k, low);
        for (int64_t j = 0; j < job->k; j += VL) {
            vf value = vf_get_n(dx.data, i * dx.stride + j, dx.dtype, job->k - j);
            value += vf_get_n(low, j, MEED_DTYPE_F32, job->k - j);
            vf_put_n(dx.data, i * dx.stride + j, dx.dtype, job->k - j, value);
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
    struct job job = {.dy = dy, .xt = xt, .dxt = dxt, .tail = tail, .slots = slots, .k = k};
    job.slot_count = slot_count;
    job.r = tail->a.rows;
    job.da = da;
    MEED_ASSERT(tail->a.cols == k && xt.cols == k + job.r && dxt.cols == k + job.r);
    MEED_ASSERT(dy.rows == xt.rows && dxt.rows == xt.rows);
    job.u = columns_unpack(dxt, k, job.r, tail, MEED_SCRATCH_SHARED_B);
    /* Narrower blocks where there are too few for the workers; the sums stay the same. */
    job.block = BLOCK_COLS;
    int64_t wanted = 4 * (int64_t)meed_pool_thread_count(be->pool);
    while (job.block > BLOCK_COLS_MIN && (k + dy.cols) / job.block < wanted) {
        job.block /= 2;
    }
    job.da_blocks = da ? (k + job.block - 1) / job.block : 0;
    for (int32_t i = 0; i < slot_count; i++) {
        MEED_ASSERT(slots[i].n_begin + slots[i].n_count <= dy.cols);
        MEED_ASSERT(slots[i].t_begin + slots[i].r <= job.r);
        job.db_blocks += slot_blocks(&slots[i], job.block);
    }
    if (job.db_blocks > 0) {
        job.t = columns_unpack(xt, k, job.r, NULL, MEED_SCRATCH_SHARED_C);
    }
    int64_t dx_blocks = 0;
    if (dx_wanted) {
        float *factors = meed_cpu_scratch_floats(MEED_SCRATCH_SHARED_A, (size_t)(k * job.r));
        for (int64_t j = 0; j < job.r; j++) {
            vf_unpack_row(tail->a.data, j * tail->a.stride, tail->a.dtype, k, factors + j * k);
        }
        job.a = factors;
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
    struct gate_job job = {MEED_TWIN(tail_prepare)(tail, k, xt.dtype), xt, dxt, NULL, dgate};
    if (!job.tail.packed || xt.rows == 0) {
        return;
    }
    MEED_ASSERT(xt.cols == k + job.tail.r && dxt.cols == k + job.tail.r && xt.rows == dxt.rows);
    job.product =
        meed_cpu_scratch_floats(MEED_SCRATCH_SHARED_B, (size_t)(xt.rows * panel_cols(job.tail.r)));
    meed_pool_for(be->pool, xt.rows, TAIL_ROWS, rows_product, &job);
    meed_pool_for(be->pool, job.tail.r, 64, columns_sum, &job);
}
