/* Rows gathered from a table, and rows scattered back. Pure copies, so bits are the source's
 * (a scale of 1 changes no number); another scale multiplies in fp32 and rounds once.
 *
 * 2·K·size bytes a row and next to no arithmetic: lanes of 16 bytes (lanes.cuh) are all there is to
 * do. A copy between dtypes goes through fp32, which is exact one way and one rounding the other.
 * Ids are the engine's own and in range; a device cannot assert what the twin asserts without a
 * wait.
 */
#include "kernels/cuda/lanes.cuh"

template <typename From, typename To> struct copy_job {
    const From *from;
    To *to;
    const int32_t *ids;
    int64_t from_stride;
    int64_t to_stride;
    int64_t rows; /* of ids */
    int64_t cols;
    float scale;
    bool gather;
    bool from_aligned;
    bool to_aligned;
};

template <typename From, typename To>
static __global__ void __launch_bounds__(32 * SWEEP_ROWS) rows_copy_kernel(copy_job<From, To> job)
{
    constexpr int N = LANE_COUNT<From>;
    sweep<N>(job.rows, job.cols, [&](int64_t row, int64_t col) {
        int64_t id = job.ids[row];
        const From *from = job.from + (job.gather ? id : row) * job.from_stride + col;
        To *to = job.to + (job.gather ? row : id) * job.to_stride + col;
        float v[N];
        lanes_get(v, from, job.cols - col, job.from_aligned, 0.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] *= job.scale;
        }
        lanes_put(to, v, job.cols - col, job.to_aligned);
    });
}

template <typename From, typename To>
static void rows_copy(const struct meed_backend *be, struct meed_mat from, const int32_t *ids,
                      bool gather, float scale, struct meed_mat to)
{
    copy_job<From, To> job;
    job.from = (const From *)from.data;
    job.to = (To *)to.data;
    job.ids = ids;
    job.from_stride = from.stride;
    job.to_stride = to.stride;
    job.rows = gather ? to.rows : from.rows;
    job.cols = from.cols;
    job.scale = scale;
    job.gather = gather;
    job.from_aligned = lanes_aligned(from);
    job.to_aligned = lanes_aligned(to);
    dim3 grid = sweep_grid(job.rows, job.cols, LANE_COUNT<From>);
    MEED_LAUNCH((rows_copy_kernel<From, To>), grid, sweep_block(), 0, meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), gather ? "embed" : "scatter");
}

static void rows_copy_typed(const struct meed_backend *be, struct meed_mat from, const int32_t *ids,
                            bool gather, float scale, struct meed_mat to)
{
    MEED_ASSERT(from.cols == to.cols);
    if ((gather ? to.rows : from.rows) == 0 || from.cols == 0) {
        return;
    }
    bool wide = to.dtype == MEED_DTYPE_F32;
    if (from.dtype == MEED_DTYPE_F32) {
        (wide ? rows_copy<float, float> : rows_copy<float, meed_bf16>)(be, from, ids, gather, scale,
                                                                       to);
    } else {
        (wide ? rows_copy<meed_bf16, float> : rows_copy<meed_bf16, meed_bf16>)(be, from, ids,
                                                                               gather, scale, to);
    }
}

extern "C" void meed_cuda_embed(const struct meed_backend *be, struct meed_mat table, float scale,
                                const int32_t *ids, struct meed_mat out)
{
    rows_copy_typed(be, table, ids, true, scale, out);
}

extern "C" void meed_cuda_scatter(const struct meed_backend *be, struct meed_mat in,
                                  const int32_t *ids, struct meed_mat out)
{
    rows_copy_typed(be, in, ids, false, 1.0f, out);
}
