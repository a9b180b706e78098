/* The CUDA backend: device memory, copies, scratch, failures, and the table of launchers.
 *
 * The table is filled from ops.def, so an op without its kernel does not link. Everything is
 * enqueued on one stream of the backend's own (cuda_state.h). Copies use it too, from and to plain
 * host memory: the driver has read a pageable source, or written a pageable target, before such a
 * copy returns, so a caller may reuse its block at once; batches are kilobytes, and weights are
 * read once. Pinned staging would have to be waited for and would win nothing here.
 *
 * Memory is plain cudaMalloc: the engine's arenas measure first and reserve one block each, so a
 * pool allocator would have nothing to do. Freeing waits for the device by itself.
 *
 * Device 0 is every thread's default; each function that may be a thread's first call on this
 * backend (memory and copies) makes the device current, and a step always begins with a copy.
 */
#include "kernels/cuda/cuda_backend.h"

#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_state.h"
#include "kernels/cuda/port.cuh"

static constexpr size_t SCRATCH_STEP = (size_t)1 << 20;
static constexpr int LEAST_CAPABILITY = 8;

#define MEED_OP(name, text) extern "C" meed_op_##name##_fn meed_cuda_##name;
#include "kernels/ops.def"
#undef MEED_OP

/* --- failures -------------------------------------------------------------------------------- */

static void failure_keep(struct meed_cuda_state *state, enum meed_status status, const char *text)
{
    if (state->failure == MEED_OK) {
        state->failure = status;
        snprintf(state->failure_text, sizeof state->failure_text, "%s", text);
    }
}

void meed_cuda_check(const struct meed_backend *be, cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return;
    }
    char text[200];
    snprintf(text, sizeof text, "%s: %s (%s)", what, cudaGetErrorString(error),
             cudaGetErrorName(error));
    enum meed_status status = error == cudaErrorMemoryAllocation ? MEED_DEVICE_NOMEM : MEED_DEVICE;
    failure_keep(meed_cuda_state_of(be), status, text);
}

void meed_cuda_note(const struct meed_backend *be, enum meed_status status)
{
    if (status != MEED_OK) {
        failure_keep(meed_cuda_state_of(be), status, meed_last_error());
    }
}

enum meed_status meed_cuda_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return MEED_OK;
    }
    cudaGetLastError();
    return MEED_FAIL(MEED_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(error),
                     cudaGetErrorName(error));
}

enum meed_status meed_cuda_outside_graph(const struct meed_cuda_state *state, const char *what)
{
    return state->capturing
               ? MEED_FAIL(MEED_STATE,
                           "%s inside a graph, where only ops are recorded; move it before "
                           "graph_begin or behind graph_end",
                           what)
               : MEED_OK;
}

/* --- memory ---------------------------------------------------------------------------------- */

static enum meed_status device_take(const struct meed_cuda_state *state, size_t bytes, void **block)
{
    void *made = NULL;
    cudaError_t error = cudaMalloc(&made, MEED_MAX(bytes, (size_t)1));
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        size_t available = 0;
        size_t total = 0;
        cudaMemGetInfo(&available, &total);
        return MEED_FAIL(MEED_DEVICE_NOMEM,
                         "cannot allocate %zu bytes on device %d (%zu of %zu free); lower "
                         "batch-tokens or use a smaller model",
                         bytes, state->device, available, total);
    }
    MEED_TRY(meed_cuda_status(error, "cudaMalloc"));
    *block = made;
    return MEED_OK;
}

static enum meed_status cuda_alloc(const struct meed_backend *be, size_t bytes, void **block)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    MEED_TRY(meed_cuda_outside_graph(state, "an allocation"));
    MEED_TRY(meed_cuda_status(cudaSetDevice(state->device), "cudaSetDevice"));
    void *made = NULL;
    MEED_TRY(device_take(state, bytes, &made));
    enum meed_status st = meed_cuda_status(
        cudaMemsetAsync(made, 0, MEED_MAX(bytes, (size_t)1), state->stream), "alloc");
    if (st != MEED_OK) {
        cudaFree(made);
        return st;
    }
    *block = made;
    return MEED_OK;
}

static void cuda_free(const struct meed_backend *be, void *block)
{
    if (block) {
        meed_cuda_note(be, meed_cuda_outside_graph(meed_cuda_state_of(be), "a release of memory"));
        meed_cuda_check(be, cudaSetDevice(meed_cuda_state_of(be)->device), "free");
        meed_cuda_check(be, cudaFree(block), "free");
    }
}

static enum meed_status cuda_copy(const struct meed_backend *be, void *to, const void *from,
                                  size_t bytes, cudaMemcpyKind kind, const char *what)
{
    if (bytes == 0) {
        return MEED_OK;
    }
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    MEED_TRY(meed_cuda_outside_graph(state, what));
    MEED_TRY(meed_cuda_status(cudaSetDevice(state->device), what));
    return meed_cuda_status(cudaMemcpyAsync(to, from, bytes, kind, state->stream), what);
}

static enum meed_status cuda_copy_to(const struct meed_backend *be, void *device, const void *host,
                                     size_t bytes)
{
    return cuda_copy(be, device, host, bytes, cudaMemcpyHostToDevice, "a copy to the device");
}

static enum meed_status cuda_copy_from(const struct meed_backend *be, void *host,
                                       const void *device, size_t bytes)
{
    return cuda_copy(be, host, device, bytes, cudaMemcpyDeviceToHost, "a copy from the device");
}

static void cuda_zero(const struct meed_backend *be, void *device, size_t bytes)
{
    if (bytes > 0) {
        meed_cuda_check(be, cudaMemsetAsync(device, 0, bytes, meed_cuda_stream(be)), "zero");
    }
}

static void cuda_copy_within(const struct meed_backend *be, void *to, const void *from,
                             size_t bytes)
{
    if (bytes > 0) {
        meed_cuda_check(
            be, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, meed_cuda_stream(be)),
            "copy within the device");
    }
}

/* Nothing is cached under a weight's pointer: cuBLASLt reads weights where they lie. */
static void cuda_forget(const struct meed_backend *be, const void *weight)
{
    (void)be;
    (void)weight;
}

void meed_cuda_retired_free(struct meed_cuda_state *state)
{
    while (state->retired) {
        struct meed_cuda_retired *first = state->retired;
        state->retired = first->next;
        cudaFree(first->block);
        meed_heap_free(first);
    }
}

/* Gives the outgrown block up: to the graphs that name it, or to the device. */
static enum meed_status scratch_leave(const struct meed_backend *be)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    if (state->scratch && state->graph_count > 0) {
        struct meed_cuda_retired *kept =
            (struct meed_cuda_retired *)meed_heap_alloc(1, sizeof *kept);
        if (!kept) {
            return MEED_NOMEM;
        }
        kept->block = state->scratch;
        kept->next = state->retired;
        state->retired = kept;
    } else {
        cuda_free(be, state->scratch);
    }
    state->scratch = NULL;
    state->scratch_bytes = 0;
    return MEED_OK;
}

static enum meed_status scratch_grow(const struct meed_backend *be, size_t bytes)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    size_t least = state->graph_count > 0 ? 2 * state->scratch_bytes : 0;
    size_t wanted = MEED_MAX(bytes, least);
    size_t rounded = (wanted + SCRATCH_STEP - 1) / SCRATCH_STEP * SCRATCH_STEP;
    MEED_TRY(meed_cuda_outside_graph(state, "an op that needs more scratch"));
    MEED_TRY(scratch_leave(be));
    MEED_TRY(device_take(state, rounded, &state->scratch));
    state->scratch_bytes = rounded;
    return MEED_OK;
}

void *meed_cuda_scratch(const struct meed_backend *be, size_t bytes)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    if (bytes > state->scratch_bytes) {
        enum meed_status st = scratch_grow(be, bytes);
        meed_cuda_note(be, st);
        return st == MEED_OK ? state->scratch : NULL;
    }
    return state->scratch;
}

/* --- life ------------------------------------------------------------------------------------ */

static enum meed_status cuda_sync(const struct meed_backend *be)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    MEED_TRY(meed_cuda_outside_graph(state, "a wait"));
    meed_cuda_check(be, cudaSetDevice(state->device), "sync");
    meed_cuda_check(be, cudaStreamSynchronize(state->stream), "sync");
    enum meed_status st = state->failure;
    if (st == MEED_OK) {
        return MEED_OK;
    }
    state->failure = MEED_OK;
    cudaGetLastError();
    return MEED_FAIL(st, "%s", state->failure_text);
}

static void cuda_destroy(struct meed_backend *be)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    if (state) {
        cudaSetDevice(state->device);
        if (state->stream) {
            cudaStreamSynchronize(state->stream);
        }
        meed_cuda_blas_destroy(state->blas);
        cudaFree(state->scratch);
        meed_cuda_retired_free(state);
        if (state->stream) {
            cudaStreamDestroy(state->stream);
        }
        cudaGetLastError();
    }
    meed_heap_free(state);
    meed_heap_free(be);
}

static enum meed_status check_device(int device)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return MEED_FAIL(MEED_DEVICE, "no CUDA device can be used: %s; use --device cpu",
                         cudaGetErrorString(error));
    }
    if (device < 0 || device >= count) {
        return MEED_FAIL(MEED_DEVICE,
                         "there is no CUDA device %d, %d are visible; use --device "
                         "cpu or a smaller number",
                         device, count);
    }
    int major = 0;
    int minor = 0;
    MEED_TRY(meed_cuda_status(
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "capability"));
    MEED_TRY(meed_cuda_status(
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "capability"));
    if (major < LEAST_CAPABILITY) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "CUDA device %d has compute capability %d.%d, and %d.0 is needed; use "
                         "--device cpu",
                         device, major, minor, LEAST_CAPABILITY);
    }
    return MEED_OK;
}

static enum meed_status state_open(struct meed_cuda_state *state, int device)
{
    state->device = device;
    int shared = 0;
    MEED_TRY(meed_cuda_status(cudaSetDevice(device), "cudaSetDevice"));
    MEED_TRY(meed_cuda_status(
        cudaDeviceGetAttribute(&state->sm_count, cudaDevAttrMultiProcessorCount, device),
        "multiprocessors"));
    MEED_TRY(meed_cuda_status(
        cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "shared memory"));
    state->shared_bytes = (size_t)shared;
    MEED_TRY(meed_cuda_status(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking),
                              "cudaStreamCreate"));
    return meed_cuda_blas_create(&state->blas);
}

static void table_fill(struct meed_backend *be)
{
    be->name = "cuda";
    be->host_memory = false;
    be->comm = &meed_cuda_comm_table;
    be->alloc = cuda_alloc;
    be->free = cuda_free;
    be->copy_to = cuda_copy_to;
    be->copy_from = cuda_copy_from;
    be->zero = cuda_zero;
    be->copy_within = cuda_copy_within;
    be->forget = cuda_forget;
    be->sync = cuda_sync;
    be->graph_begin = meed_cuda_graph_begin;
    be->graph_end = meed_cuda_graph_end;
    be->graph_launch = meed_cuda_graph_launch;
    be->graph_free = meed_cuda_graph_free;
    be->destroy = cuda_destroy;
#define MEED_OP(name, text) be->name = meed_cuda_##name;
#include "kernels/ops.def"
#undef MEED_OP
}

enum meed_status meed_cuda_open(struct meed_cuda_caller caller, int device,
                                struct meed_backend **backend)
{
    if (strcmp(caller.release, MEED_RELEASE) != 0 || caller.backend_bytes != sizeof **backend) {
        return MEED_FAIL(MEED_VERSION,
                         "the CUDA backend is of Meed %s and the program of %s; install both from "
                         "one build",
                         MEED_RELEASE, caller.release);
    }
    MEED_TRY(check_device(device));
    struct meed_backend *be = (struct meed_backend *)meed_heap_alloc(1, sizeof *be);
    if (!be) {
        return MEED_NOMEM;
    }
    table_fill(be);
    be->state = meed_heap_alloc(1, sizeof(struct meed_cuda_state));
    enum meed_status st = be->state ? state_open(meed_cuda_state_of(be), device) : MEED_NOMEM;
    if (st != MEED_OK) {
        cuda_destroy(be);
        return st;
    }
    *backend = be;
    return MEED_OK;
}
