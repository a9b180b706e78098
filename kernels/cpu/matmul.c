/* C (+)= A·Bᵀ or A·B: oneDNN where it keeps a row's bits, the own panel kernel everywhere else.
 *
 * oneDNN's batch-reduce kernels on AVX-512 give every row of C the same bits whatever M is; its
 * other implementations do not (matmul_onednn.h). So only the AVX-512 table asks it, and it may
 * refuse. The own kernel cuts C into tiles of TILE_ROWS × TILE_COLS, packs the columns of B that a
 * tile needs block by block along K, and runs the chain of panel.h; tiles go to the pool in both
 * dimensions. With `accumulate` the chain starts at C, else at 0.
 */
#include "kernels/cpu/panel.h"

#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/matmul_onednn.h"

enum { TILE_ROWS = 512, TILE_COLS = 192, TILE_DEPTH = 256, ROW_GROUP = 64 };

struct job {
    struct meed_mat a;
    struct meed_mat b;
    struct meed_mat c;
    enum meed_matmul_kind kind;
    bool accumulate;
    int64_t depth; /* K */
    int64_t col_tiles;
    int64_t rows_per_tile;
};

static void tile_load(const struct job *job, int64_t row, int64_t rows, int64_t col, int64_t cols,
                      float *tile)
{
    int64_t width = panel_cols(cols);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j += VL) {
            vf start = {0};
            if (job->accumulate) {
                start = vf_get_n(job->c.data, (row + i) * job->c.stride + col + j, job->c.dtype,
                                 cols - j);
            }
            vf_store(tile + i * width + j, start);
        }
    }
}

static void tile_run(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    float *packed = meed_cpu_scratch_floats(MEED_SCRATCH_PANEL, TILE_DEPTH * TILE_COLS);
    float *tile = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, TILE_ROWS * TILE_COLS);
    float *group = meed_cpu_scratch_floats(MEED_SCRATCH_ROWS, ROW_GROUP * PANEL_STEP);
    for (int64_t t = begin; t < end; t++) {
        int64_t row = t / job->col_tiles * job->rows_per_tile;
        int64_t col = t % job->col_tiles * TILE_COLS;
        int64_t rows = MEED_MIN(job->rows_per_tile, job->c.rows - row);
        int64_t cols = MEED_MIN(TILE_COLS, job->c.cols - col);
        int64_t width = panel_cols(cols);
        tile_load(job, row, rows, col, cols, tile);
        for (int64_t k = 0; k < job->depth; k += TILE_DEPTH) {
            int64_t depth = MEED_MIN(TILE_DEPTH, job->depth - k);
            bool transposed = job->kind == MEED_MATMUL_NT;
            int64_t at = transposed ? col * job->b.stride + k : k * job->b.stride + col;
            const char *b = (const char *)job->b.data + (size_t)at * meed_dtype_bytes(job->b.dtype);
            MEED_TWIN(panel_pack)(b, job->b.dtype, job->b.stride, transposed, depth, cols, packed);
            for (int64_t i = 0; i < rows; i += ROW_GROUP) {
                int64_t count = MEED_MIN(ROW_GROUP, rows - i);
                for (int64_t r = 0; r < count; r++) {
                    vf_unpack_row(job->a.data, (row + i + r) * job->a.stride + k, job->a.dtype,
                                  depth, group + r * PANEL_STEP);
                }
                MEED_TWIN(panel_gemm)
                (group, PANEL_STEP, 1, count, depth, packed, cols, tile + i * width, width);
            }
        }
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < cols; j += VL) {
                vf_put_n(job->c.data, (row + i) * job->c.stride + col + j, job->c.dtype, cols - j,
                         vf_load(tile + i * width + j));
            }
        }
    }
}

void MEED_TWIN(matmul)(const struct meed_backend *be, enum meed_matmul_kind kind, struct meed_mat a,
                       struct meed_mat b, bool accumulate, struct meed_mat c)
{
    bool transposed = kind == MEED_MATMUL_NT;
    MEED_ASSERT(a.dtype == b.dtype && (c.dtype == a.dtype || c.dtype == MEED_DTYPE_F32));
    MEED_ASSERT(a.rows == c.rows && a.cols == (transposed ? b.cols : b.rows));
    MEED_ASSERT(c.cols == (transposed ? b.rows : b.cols));
    if (c.rows == 0 || c.cols == 0) {
        return;
    }
#if defined(__AVX512F__)
    if (meed_matmul_onednn_run(be->pool, be->state, kind, a, b, accumulate, c)) {
        return;
    }
#endif
    struct job job = {a, b, c, kind, accumulate, a.cols, 0, TILE_ROWS};
    job.col_tiles = (c.cols + TILE_COLS - 1) / TILE_COLS;
    /* Tall tiles pack B less often; shorter ones when there are too few for the workers. */
    int64_t wanted = 2 * meed_pool_thread_count(be->pool);
    while (job.rows_per_tile > ROW_GROUP &&
           job.col_tiles * ((c.rows + job.rows_per_tile - 1) / job.rows_per_tile) < wanted) {
        job.rows_per_tile /= 2;
    }
    int64_t row_tiles = (c.rows + job.rows_per_tile - 1) / job.rows_per_tile;
    meed_pool_for(be->pool, row_tiles * job.col_tiles, 1, tile_run, &job);
}
