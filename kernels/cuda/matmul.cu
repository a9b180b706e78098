/* C (+)= A·Bᵀ or A·B: shapes are checked here, the product is behind blas.h.
 *
 * A LoRA linear is this product over K + R columns, [x | T]·[W | s∘B]ᵀ: the low-rank branch costs
 * its share of the FLOPs and no pass of its own over y.
 *
 * cuBLASLt does not promise a kernel for every stride (blas.h says UNSUPPORTED then); for those the
 * kernel of this file serves: plain FMA, one chain over k for each element, in tiles of 64 × 64 and
 * PLAIN_DEPTH steps through shared memory, 16 sums a thread. It reads 8 numbers for 16 FMAs and
 * uses no tensor cores, a tenth of the machine or less: correct, deterministic, and only there so
 * that an odd shape is slow and not an error. Which of the two serves depends on the weight, the
 * strides and alignment alone, never on M, so a row keeps its bits.
 */
#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_state.h"
#include "kernels/cuda/lanes.cuh"

static constexpr int PLAIN_THREADS = 256;
static constexpr int PLAIN_TILE = 64;
static constexpr int PLAIN_DEPTH = 16;
static constexpr int PLAIN_SUMS = 4; /* a thread's rows, and its columns */
static constexpr int PLAIN_PITCH = PLAIN_TILE + 1;

template <typename In, typename Out> struct plain_job {
    const In *a;
    const In *b;
    Out *c;
    int64_t a_stride;
    int64_t b_n_step; /* from one column of op(B) to the next */
    int64_t b_k_step;
    int64_t c_stride;
    int64_t m;
    int64_t n;
    int64_t k;
    bool accumulate;
};

/* tile[k][i] = matrix[first + i, k_first + k], zeros outside. */
template <typename In>
static __device__ __forceinline__ void plain_load(float (*tile)[PLAIN_PITCH], const In *matrix,
                                                  int64_t step, int64_t k_step, int64_t first,
                                                  int64_t count, int64_t k_first, int64_t k_count)
{
    for (int i = (int)threadIdx.x; i < PLAIN_TILE * PLAIN_DEPTH; i += PLAIN_THREADS) {
        int64_t at = first + i / PLAIN_DEPTH;
        int64_t k = k_first + i % PLAIN_DEPTH;
        tile[i % PLAIN_DEPTH][i / PLAIN_DEPTH] =
            at < count && k < k_count ? elem_get(matrix + at * step + k * k_step) : 0.0f;
    }
}

template <typename In, typename Out>
static __global__ void __launch_bounds__(PLAIN_THREADS) matmul_plain_kernel(plain_job<In, Out> job)
{
    MEED_SHARED(float[PLAIN_DEPTH][PLAIN_PITCH], left);
    MEED_SHARED(float[PLAIN_DEPTH][PLAIN_PITCH], right);
    int64_t tiles = (job.n + PLAIN_TILE - 1) / PLAIN_TILE;
    int64_t row = blockIdx.x / tiles * PLAIN_TILE;
    int64_t col = blockIdx.x % tiles * PLAIN_TILE;
    int own_row = (int)threadIdx.x / 16 * PLAIN_SUMS;
    int own_col = (int)threadIdx.x % 16 * PLAIN_SUMS;
    float sums[PLAIN_SUMS][PLAIN_SUMS] = {};
    for (int64_t k = 0; k < job.k; k += PLAIN_DEPTH) {
        plain_load(left, job.a, job.a_stride, 1, row, job.m, k, job.k);
        plain_load(right, job.b, job.b_n_step, job.b_k_step, col, job.n, k, job.k);
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < PLAIN_DEPTH; depth++) {
#pragma unroll
            for (int i = 0; i < PLAIN_SUMS * PLAIN_SUMS; i++) {
                int r = i / PLAIN_SUMS;
                int c = i % PLAIN_SUMS;
                sums[r][c] = fmaf(left[depth][own_row + r], right[depth][own_col + c], sums[r][c]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < PLAIN_SUMS * PLAIN_SUMS; i++) {
        int64_t m = row + own_row + i / PLAIN_SUMS;
        int64_t n = col + own_col + i % PLAIN_SUMS;
        if (m < job.m && n < job.n) {
            Out *at = job.c + m * job.c_stride + n;
            float start = job.accumulate ? elem_get(at) : 0.0f;
            elem_put(at, start + sums[i / PLAIN_SUMS][i % PLAIN_SUMS]);
        }
    }
}

template <typename In, typename Out>
static void plain_launch(const struct meed_backend *be, bool transposed, struct meed_mat a,
                         struct meed_mat b, bool accumulate, struct meed_mat c)
{
    plain_job<In, Out> job;
    job.a = (const In *)a.data;
    job.b = (const In *)b.data;
    job.c = (Out *)c.data;
    job.a_stride = a.stride;
    job.b_n_step = transposed ? b.stride : 1;
    job.b_k_step = transposed ? 1 : b.stride;
    job.c_stride = c.stride;
    job.m = c.rows;
    job.n = c.cols;
    job.k = a.cols;
    job.accumulate = accumulate;
    int64_t blocks =
        (job.m + PLAIN_TILE - 1) / PLAIN_TILE * ((job.n + PLAIN_TILE - 1) / PLAIN_TILE);
    MEED_ASSERT(blocks <= INT32_MAX);
    MEED_LAUNCH((matmul_plain_kernel<In, Out>), dim3((unsigned)blocks), dim3(PLAIN_THREADS), 0,
                meed_cuda_stream(be), job);
    meed_cuda_check(be, cudaGetLastError(), "matmul");
}

extern "C" void meed_cuda_matmul(const struct meed_backend *be, enum meed_matmul_kind kind,
                                 struct meed_mat a, struct meed_mat b, bool accumulate,
                                 struct meed_mat c)
{
    bool transposed = kind == MEED_MATMUL_NT;
    MEED_ASSERT(a.dtype == b.dtype && (c.dtype == a.dtype || c.dtype == MEED_DTYPE_F32));
    MEED_ASSERT(a.rows == c.rows && a.cols == (transposed ? b.cols : b.rows));
    MEED_ASSERT(c.cols == (transposed ? b.rows : b.cols) && a.cols > 0);
    if (c.rows == 0 || c.cols == 0) {
        return;
    }
    enum meed_status st = meed_cuda_blas_matmul(meed_cuda_state_of(be)->blas, meed_cuda_stream(be),
                                                kind, a, b, accumulate, c);
    if (st != MEED_UNSUPPORTED) {
        meed_cuda_note(be, st);
    } else if (a.dtype == MEED_DTYPE_F32) {
        plain_launch<float, float>(be, transposed, a, b, accumulate, c);
    } else if (c.dtype == MEED_DTYPE_F32) {
        plain_launch<meed_bf16, float>(be, transposed, a, b, accumulate, c);
    } else {
        plain_launch<meed_bf16, meed_bf16>(be, transposed, a, b, accumulate, c);
    }
}
