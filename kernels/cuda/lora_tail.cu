/* The low-rank tail over a finished x: lora_down, the tails of attention, and the gates' gradient.
 *
 * Two kernels around tail.cuh: a block sums one slice of K for 16 rows and up to 48 ranks, a second
 * kernel adds the slices in order, gates and rounds. Where K is one slice (2,048 columns), the
 * first does it all. Between them travel S·M·R floats: at K 4,096 and R 16 a 64th of x, twice. The
 * grid is rows/16 × slices × ranks/48, so a decode step still has a block for every 2,048 columns.
 *
 * The gates' gradient wants u = x·Aᵀ itself, in fp32: the sums of the first kernel, unrounded. Then
 * dgate[set of row m] += dT[m]·u[m] in fp64. How many sets there are and which rows are whose the
 * op is not told, and a set's rows usually stand together (the tokens of one dialogue). So rows are
 * cut into chunks of 64; a thread walks one rank down one chunk and writes a sum wherever the set
 * changes; then one thread a rank goes over the runs of all chunks in order and adds each to its
 * set. Any pattern of sets is correct, and the usual one leaves M/64 steps to that last walk. The
 * partition depends on M alone, and nothing is added atomically.
 */
#include "kernels/cuda/tail.cuh"

static constexpr int FLAT_THREADS = 256;
static constexpr int RUN_ROWS = 64;
static constexpr int RUN_THREADS = 64;

/* parts[(slice·M + m)·R + j] = sum of the block's slice; NULL where the one slice is T already. */
template <typename T, int NT>
static __global__ void __launch_bounds__(TAIL_THREADS, 2)
    tail_slices_kernel(tail_job<T> job, float *parts)
{
    constexpr int FLOATS = TAIL_SHARED<T, NT>;
    MEED_SHARED(float4[FLOATS / 4], shared);
    int64_t row = (int64_t)blockIdx.x * TAIL_ROWS;
    int32_t rank = (int32_t)blockIdx.z * 8 * NT;
    int32_t slice = (int32_t)blockIdx.y;
    float sums[TAIL_OWN<NT>];
    tail_slice<NT>(sums, (float *)shared, job, row, rank, slice);
#pragma unroll
    for (int i = 0; i < TAIL_OWN<NT>; i++) {
        int own = (int)threadIdx.x + i * TAIL_THREADS;
        int64_t m = row + own / (8 * NT);
        int32_t j = rank + own % (8 * NT);
        if (m < job.rows && j < job.r) {
            if (parts) {
                parts[(slice * job.rows + m) * job.r + j] = sums[i];
            } else {
                tail_put(job, m, j, sums[i]);
            }
        }
    }
}

/* The slices of element (m, j) in order. */
static __device__ __forceinline__ float tail_total(const float *parts, int64_t element,
                                                   int64_t elements, int32_t slices)
{
    float total = parts[element];
    for (int32_t slice = 1; slice < slices; slice++) {
        total += parts[slice * elements + element];
    }
    return total;
}

template <typename T>
static __global__ void __launch_bounds__(FLAT_THREADS)
    tail_finish_kernel(tail_job<T> job, const float *parts, int32_t slices)
{
    int64_t element = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x;
    int64_t elements = job.rows * job.r;
    if (element < elements) {
        tail_put(job, element / job.r, (int32_t)(element % job.r),
                 tail_total(parts, element, elements, slices));
    }
}

template <typename T>
static void slices_launch(const struct meed_backend *be, const tail_job<T> &job, float *parts)
{
    tail_dispatch(job.r, [&](auto width) {
        constexpr int NT = decltype(width)::TILES;
        dim3 grid((unsigned)((job.rows + TAIL_ROWS - 1) / TAIL_ROWS),
                  (unsigned)tail_slice_count(job.k), (unsigned)((job.r + 8 * NT - 1) / (8 * NT)));
        MEED_LAUNCH((tail_slices_kernel<T, NT>), grid, dim3(TAIL_THREADS), 0, meed_cuda_stream(be),
                    job, parts);
    });
}

template <typename T>
static void tail_launch(const struct meed_backend *be, struct meed_mat xt, int64_t k,
                        const struct meed_tail *tail)
{
    tail_job<T> job = tail_job_make<T>(xt, k, tail);
    int64_t slices = tail_slice_count(k);
    int64_t elements = job.rows * job.r;
    if (slices <= 1) {
        slices_launch(be, job, NULL);
        return;
    }
    float *parts = (float *)meed_cuda_scratch(be, (size_t)(slices * elements) * sizeof *parts);
    if (!parts) {
        return;
    }
    slices_launch(be, job, parts);
    int64_t blocks = (elements + FLAT_THREADS - 1) / FLAT_THREADS;
    MEED_ASSERT(blocks <= INT32_MAX);
    MEED_LAUNCH((tail_finish_kernel<T>), dim3((unsigned)blocks), dim3(FLAT_THREADS), 0,
                meed_cuda_stream(be), job, parts, (int32_t)slices);
}

void meed_cuda_tail_apply(const struct meed_backend *be, struct meed_mat xt, int64_t k,
                          const struct meed_tail *tail)
{
    if (tail_rank(tail) == 0 || xt.rows == 0) {
        return;
    }
    (xt.dtype == MEED_DTYPE_F32 ? tail_launch<float> : tail_launch<meed_bf16>)(be, xt, k, tail);
    meed_cuda_check(be, cudaGetLastError(), "tail");
}

extern "C" void meed_cuda_lora_down(const struct meed_backend *be, struct meed_mat xt, int64_t k,
                                    const struct meed_tail *tail)
{
    meed_cuda_tail_apply(be, xt, k, tail);
}

/* --- the gates' gradient --------------------------------------------------------------------- */

/* Run i of chunk c stands at c·RUN_ROWS + i: its sums [R] and its set. */
template <typename T> struct gate_job {
    const T *dt; /* [M, R], the tail of dxt */
    const float *parts;
    const int32_t *gate_of_row; /* or NULL: one set */
    double *runs;               /* [M, R] */
    int32_t *run_set;           /* [M] */
    int32_t *run_count;         /* [chunks] */
    double *dgate;
    int64_t dt_stride;
    int64_t rows;
    int64_t chunks;
    int32_t r;
    int32_t slices;
    float scale; /* of u, under dropout */
};

template <typename T>
static __global__ void __launch_bounds__(RUN_THREADS) gate_runs_kernel(gate_job<T> job)
{
    int32_t j = (int32_t)(blockIdx.y * RUN_THREADS + threadIdx.x);
    int64_t first = (int64_t)blockIdx.x * RUN_ROWS;
    int64_t end = min(first + RUN_ROWS, job.rows);
    if (j >= job.r) {
        return;
    }
    int32_t set = job.gate_of_row ? job.gate_of_row[first] : 0;
    int32_t run = 0;
    double sum = 0.0;
    for (int64_t m = first; m < end; m++) {
        int32_t own = job.gate_of_row ? job.gate_of_row[m] : 0;
        if (own != set) {
            job.runs[(first + run) * job.r + j] = sum;
            if (j == 0) {
                job.run_set[first + run] = set;
            }
            run++;
            set = own;
            sum = 0.0;
        }
        float u = job.scale * tail_total(job.parts, m * job.r + j, job.rows * job.r, job.slices);
        sum += (double)elem_get(job.dt + m * job.dt_stride + j) * (double)u;
    }
    job.runs[(first + run) * job.r + j] = sum;
    if (j == 0) {
        job.run_set[first + run] = set;
        job.run_count[blockIdx.x] = run + 1;
    }
}

template <typename T>
static __global__ void __launch_bounds__(RUN_THREADS) gate_sets_kernel(gate_job<T> job)
{
    int32_t j = (int32_t)(blockIdx.x * RUN_THREADS + threadIdx.x);
    if (j >= job.r) {
        return;
    }
    int32_t set = job.run_set[0];
    double sum = job.dgate[(int64_t)set * job.r + j];
    for (int64_t chunk = 0; chunk < job.chunks; chunk++) {
        int64_t first = chunk * RUN_ROWS;
        int32_t count = job.run_count[chunk];
        for (int32_t run = 0; run < count; run++) {
            int32_t own = job.run_set[first + run];
            if (own != set) {
                job.dgate[(int64_t)set * job.r + j] = sum;
                set = own;
                sum = job.dgate[(int64_t)set * job.r + j];
            }
            sum += job.runs[(first + run) * job.r + j];
        }
    }
    job.dgate[(int64_t)set * job.r + j] = sum;
}

template <typename T>
static void gate_launch(const struct meed_backend *be, struct meed_mat xt, struct meed_mat dxt,
                        int64_t k, const struct meed_tail *tail, double *dgate)
{
    tail_job<T> down = tail_job_make<T>(xt, k, tail);
    gate_job<T> job;
    job.dt = (const T *)dxt.data + k;
    job.gate_of_row = tail->gate_of_row;
    job.dgate = dgate;
    job.dt_stride = dxt.stride;
    job.rows = xt.rows;
    job.chunks = (xt.rows + RUN_ROWS - 1) / RUN_ROWS;
    job.r = down.r;
    job.slices = (int32_t)tail_slice_count(k);
    job.scale = down.mask.scale;
    int64_t elements = job.rows * job.r;
    size_t bytes = (size_t)elements * (sizeof(double) + (size_t)job.slices * sizeof(float)) +
                   (size_t)(job.rows + job.chunks) * sizeof(int32_t);
    job.runs = (double *)meed_cuda_scratch(be, bytes);
    if (!job.runs) {
        return;
    }
    float *parts = (float *)(job.runs + elements);
    job.parts = parts;
    job.run_set = (int32_t *)(parts + elements * job.slices);
    job.run_count = job.run_set + job.rows;
    MEED_ASSERT(job.chunks <= INT32_MAX);
    slices_launch(be, down, parts);
    unsigned groups = (unsigned)((job.r + RUN_THREADS - 1) / RUN_THREADS);
    MEED_LAUNCH((gate_runs_kernel<T>), dim3((unsigned)job.chunks, groups), dim3(RUN_THREADS), 0,
                meed_cuda_stream(be), job);
    MEED_LAUNCH((gate_sets_kernel<T>), dim3(groups), dim3(RUN_THREADS), 0, meed_cuda_stream(be),
                job);
    meed_cuda_check(be, cudaGetLastError(), "lora_gate_grad");
}

extern "C" void meed_cuda_lora_gate_grad(const struct meed_backend *be, struct meed_mat xt,
                                         struct meed_mat dxt, int64_t k,
                                         const struct meed_tail *tail, double *dgate)
{
    int64_t r = tail_rank(tail);
    if (r == 0 || xt.rows == 0) {
        return;
    }
    MEED_ASSERT(dxt.cols == k + r && xt.rows == dxt.rows && xt.dtype == dxt.dtype);
    (xt.dtype == MEED_DTYPE_F32 ? gate_launch<float> : gate_launch<meed_bf16>)(be, xt, dxt, k, tail,
                                                                               dgate);
}
