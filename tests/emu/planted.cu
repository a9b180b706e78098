/* See planted.h. Every kernel is a template over `bool FAULT`, and its fault one line. */
#include "tests/emu/planted.h"

#include "kernels/cuda/port.cuh"

static constexpr int THREADS = 64;
static constexpr int BLOCKS = 3;
static constexpr int COUNT = THREADS * BLOCKS;

/* One float per thread in and out, in device memory. */
struct numbers {
    float *in;
    float *out;
    int *blocks_done;
};

/* Launches, compares with `want` of each index, and gives the outcome. */
template <typename Want>
static enum planted_outcome run(void (*kernel)(struct numbers), size_t shared_bytes, Want want)
{
    struct numbers n = {NULL, NULL, NULL};
    cudaMalloc((void **)&n.in, COUNT * sizeof(float));
    cudaMalloc((void **)&n.out, COUNT * sizeof(float));
    cudaMalloc((void **)&n.blocks_done, sizeof(int));
    cudaMemsetAsync(n.blocks_done, 0, sizeof(int), NULL);
    float host[COUNT];
    for (int i = 0; i < COUNT; i++) {
        host[i] = (float)(i % 17 + 1);
    }
    cudaMemcpyAsync(n.in, host, sizeof host, cudaMemcpyHostToDevice, NULL);
    cudaMemsetAsync(n.out, 0, sizeof host, NULL);
    MEED_LAUNCH((kernel), dim3(BLOCKS), dim3(THREADS), shared_bytes, NULL, n);
    cudaError_t error = cudaGetLastError();
    float got[COUNT];
    cudaMemcpyAsync(got, n.out, sizeof got, cudaMemcpyDeviceToHost, NULL);
    cudaFree(n.in);
    cudaFree(n.out);
    cudaFree(n.blocks_done);
    bool right = true;
    for (int i = 0; i < COUNT; i++) {
        right = right && got[i] == want(host, i);
    }
    return error != cudaSuccess ? PLANTED_FAILED : right ? PLANTED_RIGHT : PLANTED_WRONG;
}
/* The usual answer: thread i of a block gives what its mirror image was given. */
static float mirrored(const float *in, int i)
{
    return in[i / THREADS * THREADS + THREADS - 1 - i % THREADS];
}
#define RUN(name, shared_bytes, want)                                                              \
    enum planted_outcome planted_##name(bool fault)                                                \
    {                                                                                              \
        return fault ? run(name##_kernel<true>, shared_bytes, want)                                \
                     : run(name##_kernel<false>, shared_bytes, want);                              \
    }

static __device__ int thread_id()
{
    return (int)(blockIdx.x * THREADS + threadIdx.x);
}

/* --- order within a block -------------------------------------------------------------------- */

template <bool FAULT> __global__ void missing_barrier_kernel(struct numbers n)
{
    MEED_SHARED(float[THREADS], tile);
    tile[threadIdx.x] = n.in[thread_id()];
    if (!FAULT) {
        __syncthreads();
    }
    n.out[thread_id()] = tile[THREADS - 1 - threadIdx.x];
}
RUN(missing_barrier, 0, mirrored)

/* Four floats a thread through shared memory; the mirror image of the first of each four. */
template <bool FAULT> __global__ void missing_copy_wait_kernel(struct numbers n)
{
    MEED_DYN_SHARED(float, tile);
    const float *block = n.in + blockIdx.x * THREADS;
    if (threadIdx.x < THREADS / 4) {
        meed_cp_async16(tile + 4 * threadIdx.x, block + 4 * threadIdx.x, 16);
    }
    meed_cp_async_commit();
    if (!FAULT) {
        meed_cp_async_wait<0>();
    }
    __syncthreads();
    n.out[thread_id()] = tile[THREADS - 1 - threadIdx.x];
    if (FAULT) {
        meed_cp_async_wait<0>();
    }
}
RUN(missing_copy_wait, THREADS * sizeof(float), mirrored)

/* A second copy into the buffer that others still read. */
template <bool FAULT> __global__ void early_overwrite_kernel(struct numbers n)
{
    MEED_DYN_SHARED(float, tile);
    const float *block = n.in + blockIdx.x * THREADS;
    float sum = 0.0f;
    for (int step = 0; step < 2; step++) {
        if (threadIdx.x < THREADS / 4) {
            meed_cp_async16(tile + 4 * threadIdx.x, block + 4 * threadIdx.x, step == 0 ? 16 : 0);
        }
        meed_cp_async_commit();
        meed_cp_async_wait<0>();
        __syncthreads();
        sum += tile[THREADS - 1 - threadIdx.x];
        if (!FAULT) {
            __syncthreads();
        }
    }
    n.out[thread_id()] = sum;
}
RUN(early_overwrite, THREADS * sizeof(float), mirrored)

template <bool FAULT> __global__ void uninitialised_shared_kernel(struct numbers n)
{
    MEED_SHARED(float[THREADS], tile);
    if (!FAULT || threadIdx.x > 0) {
        tile[threadIdx.x] = n.in[thread_id()];
    }
    __syncthreads();
    n.out[thread_id()] = tile[THREADS - 1 - threadIdx.x];
}
RUN(uninitialised_shared, 0, mirrored)

template <bool FAULT> __global__ void missing_syncwarp_kernel(struct numbers n)
{
    MEED_SHARED(float[THREADS], tile);
    tile[threadIdx.x] = n.in[thread_id()];
    __syncwarp();
    float next = tile[threadIdx.x ^ 1];
    if (!FAULT) {
        __syncwarp();
    }
    tile[threadIdx.x] = next;
    __syncwarp();
    n.out[thread_id()] = tile[threadIdx.x ^ 1];
}
RUN(missing_syncwarp, 0, [](const float *in, int i) { return in[i]; })

template <bool FAULT> __global__ void thread_race_kernel(struct numbers n)
{
    n.out[thread_id()] = n.in[thread_id()];
    if (FAULT && threadIdx.x < 2) {
        n.out[COUNT - 1 - blockIdx.x * THREADS] = n.in[COUNT - 1 - blockIdx.x * THREADS];
    }
}
RUN(thread_race, 0, [](const float *in, int i) { return in[i]; })

/* --- order between blocks -------------------------------------------------------------------- */

/* Every block writes what is the last block's to write; the value is the same. */
template <bool FAULT> __global__ void block_race_kernel(struct numbers n)
{
    n.out[thread_id()] = n.in[thread_id()];
    if (FAULT && threadIdx.x == 0) {
        n.out[COUNT - THREADS] = n.in[COUNT - THREADS];
    }
}
RUN(block_race, 0, [](const float *in, int i) { return in[i]; })

/* The block that counts last reads what all wrote. */
template <bool FAULT> __global__ void missing_fence_kernel(struct numbers n)
{
    MEED_SHARED(int, last);
    n.out[thread_id()] = n.in[thread_id()];
    if (!FAULT) {
        __threadfence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(n.blocks_done, 1) == BLOCKS - 1;
    }
    __syncthreads();
    if (last) {
        __threadfence();
        for (int i = (int)threadIdx.x; i < COUNT; i += THREADS) {
            n.out[i] = n.out[i] * 2.0f;
        }
    }
}
RUN(missing_fence, 0, [](const float *in, int i) { return 2.0f * in[i]; })

/* --- memory ---------------------------------------------------------------------------------- */

template <bool FAULT> __global__ void shared_bounds_kernel(struct numbers n)
{
    MEED_SHARED(float[THREADS], tile);
    tile[threadIdx.x] = n.in[thread_id()];
    __syncthreads();
    n.out[thread_id()] = (&tile[0])[THREADS - 1 - (int)threadIdx.x + (FAULT ? 1 : 0)];
}
RUN(shared_bounds, 0, mirrored)

template <bool FAULT> __global__ void global_bounds_kernel(struct numbers n)
{
    n.out[thread_id()] = n.in[thread_id() + (FAULT ? 1 : 0)];
}
RUN(global_bounds, 0, [](const float *in, int i) { return in[i]; })

template <bool FAULT> __global__ void misaligned_vector_kernel(struct numbers n)
{
    const float *at = n.in + (FAULT && threadIdx.x == 5 ? 1 : 0);
    n.out[thread_id()] = ((const float4 *)at)->x;
}
RUN(misaligned_vector, 0, [](const float *in, int) { return in[0]; })

template <bool FAULT> __global__ void misaligned_copy_kernel(struct numbers n)
{
    MEED_DYN_SHARED(float, tile);
    if (threadIdx.x < THREADS / 4) {
        meed_cp_async16(tile + 4 * threadIdx.x,
                        n.in + blockIdx.x * THREADS + 4 * threadIdx.x + (FAULT ? 1 : 0), 16);
    }
    meed_cp_async_commit();
    meed_cp_async_wait<0>();
    __syncthreads();
    n.out[thread_id()] = tile[THREADS - 1 - threadIdx.x];
}
RUN(misaligned_copy, THREADS * sizeof(float), mirrored)

template <bool FAULT> __global__ void abandoned_copy_kernel(struct numbers n)
{
    MEED_DYN_SHARED(float, tile);
    n.out[thread_id()] = n.in[thread_id()];
    meed_cp_async16(tile, n.in, 0);
    meed_cp_async_commit();
    if (!FAULT) {
        meed_cp_async_wait<0>();
    }
}
enum planted_outcome planted_abandoned_copy(bool fault)
{
    auto same = [](const float *in, int i) { return in[i]; };
    return fault ? run(abandoned_copy_kernel<true>, 16, same) : PLANTED_RIGHT;
}

template <bool FAULT> __global__ void too_much_shared_kernel(struct numbers n)
{
    n.out[thread_id()] = n.in[thread_id()];
}
enum planted_outcome planted_too_much_shared(bool fault)
{
    auto same = [](const float *in, int i) { return in[i]; };
    size_t most = (size_t)163 << 10;
    return run(too_much_shared_kernel<false>, fault ? most + 1 : most, same);
}

/* --- collectives ----------------------------------------------------------------------------- */

template <bool FAULT> __global__ void shuffle_outside_mask_kernel(struct numbers n)
{
    float value = n.in[thread_id()];
    if (threadIdx.x % 32 < 16) {
        value = __shfl_sync(0x0000FFFFu, value, FAULT ? 16 : (int)threadIdx.x % 32);
    }
    n.out[thread_id()] = value;
}
RUN(shuffle_outside_mask, 0, [](const float *in, int i) { return in[i]; })

template <bool FAULT> __global__ void divergent_barrier_kernel(struct numbers n)
{
    if (FAULT && threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    n.out[thread_id()] = n.in[thread_id()];
}
enum planted_outcome planted_divergent_barrier(bool fault)
{
    auto same = [](const float *in, int i) { return in[i]; };
    return fault ? run(divergent_barrier_kernel<true>, 0, same)
                 : run(divergent_barrier_kernel<false>, 0, same);
}

template <bool FAULT> __global__ void divergent_collective_kernel(struct numbers n)
{
    float value = n.in[thread_id()];
    if (FAULT && threadIdx.x % 2 == 0) {
        value = __shfl_sync(0xFFFFFFFFu, value, (int)threadIdx.x % 32);
    } else {
        value = __shfl_sync(0xFFFFFFFFu, value, (int)threadIdx.x % 32);
    }
    n.out[thread_id()] = value;
}
RUN(divergent_collective, 0, [](const float *in, int i) { return in[i]; })

/* A warp at the barrier waits for lanes that wait for a lane that waits at the barrier. */
template <bool FAULT> __global__ void deadlock_kernel(struct numbers n)
{
    if (!FAULT || threadIdx.x != 0) {
        __syncwarp();
    }
    __syncthreads();
    n.out[thread_id()] = n.in[thread_id()];
}
RUN(deadlock, 0, [](const float *in, int i) { return in[i]; })

template <bool FAULT> __global__ void foreign_mask_kernel(struct numbers n)
{
    n.out[thread_id()] =
        __shfl_sync(FAULT ? 0x0000FFFFu : 0xFFFFFFFFu, n.in[thread_id()], (int)threadIdx.x % 32);
}
RUN(foreign_mask, 0, [](const float *in, int i) { return in[i]; })

template <bool FAULT> __global__ void overlapping_masks_kernel(struct numbers n)
{
    bool low = threadIdx.x % 32 < 16;
    unsigned mask = low ? (FAULT ? 0x0001FFFFu : 0x0000FFFFu) : 0xFFFF0000u;
    n.out[thread_id()] = __shfl_sync(mask, n.in[thread_id()], (int)threadIdx.x % 32);
}
RUN(overlapping_masks, 0, [](const float *in, int i) { return in[i]; })

template <bool FAULT> __global__ void exited_barrier_kernel(struct numbers n)
{
    n.out[thread_id()] = n.in[thread_id()];
    if (FAULT && threadIdx.x == 7) {
        return;
    }
    __syncthreads();
}
RUN(exited_barrier, 0, [](const float *in, int i) { return in[i]; })

/* --- graphs: `record` puts a step into a graph, which runs twice; between the runs the step's rate
 * changes from 1 to 3 in device memory, so out becomes in·1 + in·3. --- */

struct graph_step {
    struct numbers n;
    float *rate; /* device */
    float *rate_on_heap;
    cudaStream_t stream;
};

static __global__ void graph_add_kernel(struct numbers n, const float *rate)
{
    n.out[thread_id()] += n.in[thread_id()] * *rate;
}
static __global__ void graph_add_value_kernel(struct numbers n, float rate)
{
    n.out[thread_id()] += n.in[thread_id()] * rate;
}

static void graph_step_open(struct graph_step *step)
{
    float host[COUNT];
    for (int i = 0; i < COUNT; i++) {
        host[i] = (float)(i % 17 + 1);
    }
    step->n.blocks_done = NULL;
    cudaStreamCreateWithFlags(&step->stream, cudaStreamNonBlocking);
    cudaMalloc((void **)&step->n.in, sizeof host);
    cudaMalloc((void **)&step->n.out, sizeof host);
    cudaMalloc((void **)&step->rate, sizeof(float));
    cudaMallocHost((void **)&step->rate_on_heap, sizeof(float));
    *step->rate_on_heap = 1.0f;
    cudaMemcpyAsync(step->n.in, host, sizeof host, cudaMemcpyHostToDevice, step->stream);
    cudaMemsetAsync(step->n.out, 0, sizeof host, step->stream);
}

static bool graph_step_right(struct graph_step *step)
{
    float in[COUNT];
    float out[COUNT];
    bool right = true;
    cudaMemcpyAsync(in, step->n.in, sizeof in, cudaMemcpyDeviceToHost, step->stream);
    cudaMemcpyAsync(out, step->n.out, sizeof out, cudaMemcpyDeviceToHost, step->stream);
    for (int i = 0; i < COUNT; i++) {
        right = right && out[i] == in[i] * 4.0f;
    }
    cudaFree(step->n.in);
    cudaFree(step->n.out);
    cudaFree(step->rate);
    cudaStreamDestroy(step->stream);
    return right;
}

template <typename Record> static enum planted_outcome run_graph(Record record)
{
    struct graph_step step;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    graph_step_open(&step);
    cudaStreamBeginCapture(step.stream, cudaStreamCaptureModeThreadLocal);
    record(&step);
    cudaError_t error = cudaStreamEndCapture(step.stream, &graph);
    cudaFreeHost(step.rate_on_heap);
    if (error != cudaSuccess) {
        return PLANTED_FAILED;
    }
    cudaGraphInstantiateWithFlags(&exec, graph, 0);
    cudaGraphDestroy(graph);
    for (int i = 0; i < 2; i++) {
        const float rate = i == 0 ? 1.0f : 3.0f;
        cudaMemcpyAsync(step.rate, &rate, sizeof rate, cudaMemcpyHostToDevice, step.stream);
        cudaGraphLaunch(exec, step.stream);
    }
    cudaGraphExecDestroy(exec);
    return graph_step_right(&step) ? PLANTED_RIGHT : PLANTED_WRONG;
}

static void graph_add(const struct graph_step *step, const float *rate)
{
    MEED_LAUNCH((graph_add_kernel), dim3(BLOCKS), dim3(THREADS), 0, step->stream, step->n, rate);
}

/* The rate of the step at hand goes in as a number and stays what it was. */
enum planted_outcome planted_graph_baked_value(bool fault)
{
    return run_graph([fault](struct graph_step *step) {
        if (fault) {
            MEED_LAUNCH((graph_add_value_kernel), dim3(BLOCKS), dim3(THREADS), 0, step->stream,
                        step->n, *step->rate_on_heap);
        } else {
            graph_add(step, step->rate);
        }
    });
}

/* A pointer to a variable of the host that is gone when the graph runs. */
enum planted_outcome planted_graph_dead_argument(bool fault)
{
    return run_graph([fault](struct graph_step *step) {
        graph_add(step, fault ? step->rate_on_heap : step->rate);
    });
}

enum planted_outcome planted_graph_host_copy(bool fault)
{
    return run_graph([fault](struct graph_step *step) {
        if (fault) {
            cudaMemcpyAsync(step->rate, step->rate_on_heap, sizeof(float), cudaMemcpyHostToDevice,
                            step->stream);
        }
        graph_add(step, step->rate);
    });
}

enum planted_outcome planted_graph_wait(bool fault)
{
    return run_graph([fault](struct graph_step *step) {
        graph_add(step, step->rate);
        if (fault) {
            cudaStreamSynchronize(step->stream);
        }
    });
}
