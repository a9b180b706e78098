/* Folding low-rank factors into dense matrices: masters into [W | s∘B], and W' = W + Σ g·s·B·A.
 *
 * lora_merge sums the low-rank part first (one chain over j from 0, panel.h) and adds W last: the
 * update is small next to W, and adding its terms to W one by one would round each of them at W's
 * size. A gate of 0 contributes exactly nothing.
 */
#include "kernels/cpu/panel.h"

#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"

enum { GRAIN_ROWS = 32, TILE_ROWS = 32, TILE_COLS = 192 };

struct pack_job {
    const float *a;
    const float *b;
    float scale;
    struct meed_mat a_rows;
    struct meed_mat tail;
};

static void pack_a(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct pack_job *job = user;
    int64_t width = job->a_rows.cols;
    for (int64_t i = begin; i < end; i++) {
        for (int64_t k = 0; k < width; k += VL) {
            vf_put_n(job->a_rows.data, i * job->a_rows.stride + k, job->a_rows.dtype, width - k,
                     vf_get_n(job->a, i * width + k, MEED_DTYPE_F32, width - k));
        }
    }
}

static void pack_b(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct pack_job *job = user;
    int64_t rank = job->tail.cols;
    for (int64_t n = begin; n < end; n++) {
        for (int64_t j = 0; j < rank; j++) {
            elem_put(job->tail.data, n * job->tail.stride + j, job->tail.dtype,
                     job->scale * job->b[n * rank + j]);
        }
    }
}

void MEED_TWIN(lora_pack)(const struct meed_backend *be, const float *a, const float *b,
                          float scale, struct meed_mat a_rows, struct meed_mat tail)
{
    MEED_ASSERT(a_rows.rows == tail.cols);
    be->forget(be, tail.data);
    struct pack_job job = {a, b, scale, a_rows, tail};
    meed_pool_for(be->pool, a_rows.rows, 4, pack_a, &job);
    meed_pool_for(be->pool, tail.rows, 256, pack_b, &job);
}

struct merge_job {
    struct meed_mat w;
    struct meed_mat b;
    struct meed_mat a;
    struct meed_mat out;
    const float *gates;
    int64_t col_tiles;
    const float *packed; /* A, one block of TILE_COLS columns after another */
};

static void merge_tiles(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct merge_job *job = user;
    int64_t rank = job->b.cols;
    float *factors =
        meed_cpu_scratch_floats(MEED_SCRATCH_ROWS, (size_t)(TILE_ROWS * panel_cols(rank)));
    float *tile = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, TILE_ROWS * TILE_COLS);
    for (int64_t t = begin; t < end; t++) {
        int64_t row = t / job->col_tiles * TILE_ROWS;
        int64_t col = t % job->col_tiles * TILE_COLS;
        int64_t rows = MEED_MIN(TILE_ROWS, job->w.rows - row);
        int64_t cols = MEED_MIN(TILE_COLS, job->w.cols - col);
        int64_t width = panel_cols(cols);
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < rank; j++) {
                float gate = job->gates ? job->gates[j] : 1.0f;
                factors[i * rank + j] =
                    gate * elem_get(job->b.data, (row + i) * job->b.stride + j, job->b.dtype);
            }
        }
        memset(tile, 0, (size_t)(rows * width) * sizeof *tile);
        MEED_TWIN(panel_gemm)
        (factors, rank, 1, rows, rank, job->packed + col * rank, cols, tile, width);
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < cols; j += VL) {
                vf base = vf_get_n(job->w.data, (row + i) * job->w.stride + col + j, job->w.dtype,
                                   cols - j);
                vf_put_n(job->out.data, (row + i) * job->out.stride + col + j, job->out.dtype,
                         cols - j, base + vf_load(tile + i * width + j));
            }
        }
    }
}

void MEED_TWIN(lora_merge)(const struct meed_backend *be, struct meed_mat w, struct meed_mat b,
                           struct meed_mat a, const float *gates, struct meed_mat out)
{
    MEED_ASSERT(b.rows == w.rows && a.cols == w.cols && a.rows == b.cols);
    MEED_ASSERT(out.rows == w.rows && out.cols == w.cols);
    be->forget(be, out.data);
    int64_t col_tiles = (w.cols + TILE_COLS - 1) / TILE_COLS;
    int64_t row_tiles = (w.rows + TILE_ROWS - 1) / TILE_ROWS;
    float *packed =
        meed_cpu_scratch_floats(MEED_SCRATCH_SHARED_A, (size_t)(panel_cols(w.cols) * b.cols));
    for (int64_t col = 0; col < w.cols; col += TILE_COLS) {
        const char *from = (const char *)a.data + (size_t)col * meed_dtype_bytes(a.dtype);
        MEED_TWIN(panel_pack)
        (from, a.dtype, a.stride, false, a.rows, MEED_MIN(TILE_COLS, w.cols - col),
         packed + col * b.cols);
    }
    struct merge_job job = {w, b, a, out, gates, col_tiles, packed};
    meed_pool_for(be->pool, row_tiles * col_tiles, 1, merge_tiles, &job);
}
