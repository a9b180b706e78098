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

/* A status for calls that return one; clears what CUDA remembers of an error that is not fatal. */
static enum meed_status error_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return MEED_OK;
    }
    cudaGetLastError();
    return MEED_FAIL(MEED_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(error),
                     cudaGetErrorName(error));
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
    MEED_TRY(error_status(error, "cudaMalloc"));
    *block = made;
    return MEED_OK;
}

static enum meed_status cuda_alloc(const struct meed_backend *be, size_t bytes, void **block)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    MEED_TRY(error_status(cudaSetDevice(state->device), "cudaSetDevice"));
    void *made = NULL;
    MEED_TRY(device_take(state, bytes, &made));
    enum meed_status st =
        error_status(cudaMemsetAsync(made, 0, MEED_MAX(bytes, (size_t)1), state->stream), "alloc");
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
    MEED_TRY(error_status(cudaSetDevice(state->device), what));
    return error_status(cudaMemcpyAsync(to, from, bytes, kind, state->stream), what);
}

static enum meed_status cuda_copy_to(const struct meed_backend *be, void *device, const void *host,
                                     size_t bytes)
{
    return cuda_copy(be, device, host, bytes, cudaMemcpyHostToDevice, "copy to the device");
}

static enum meed_status cuda_copy_from(const struct meed_backend *be, void *host,
                                       const void *device, size_t bytes)
{
    return cuda_copy(be, host, device, bytes, cudaMemcpyDeviceToHost, "copy from the device");
}

static void cuda_zero(const struct meed_backend *be, void *device, size_t bytes)
{
    if (bytes > 0) {
        meed_cuda_check(be, cudaMemsetAsync(device, 0, bytes, meed_cuda_stream(be)), "zero");
    }
}

/* Nothing is cached under a weight's pointer: cuBLASLt reads weights where they lie. */
static void cuda_forget(const struct meed_backend *be, const void *weight)
{
    (void)be;
    (void)weight;
}

void *meed_cuda_scratch(const struct meed_backend *be, size_t bytes)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    if (bytes <= state->scratch_bytes) {
        return state->scratch;
    }
    size_t rounded = (bytes + SCRATCH_STEP - 1) / SCRATCH_STEP * SCRATCH_STEP;
    cuda_free(be, state->scratch);
    state->scratch = NULL;
    state->scratch_bytes = 0;
    enum meed_status st = device_take(state, rounded, &state->scratch);
    meed_cuda_note(be, st);
    state->scratch_bytes = st == MEED_OK ? rounded : 0;
    return state->scratch;
}

/* --- life ------------------------------------------------------------------------------------ */

static enum meed_status cuda_sync(const struct meed_backend *be)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
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
        cudaFreeHost(state->sum_host);
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
    MEED_TRY(error_status(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                          "capability"));
    MEED_TRY(error_status(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
                          "capability"));
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
    MEED_TRY(error_status(cudaSetDevice(device), "cudaSetDevice"));
    MEED_TRY(error_status(
        cudaDeviceGetAttribute(&state->sm_count, cudaDevAttrMultiProcessorCount, device),
        "multiprocessors"));
    MEED_TRY(error_status(
        cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "shared memory"));
    state->shared_bytes = (size_t)shared;
    MEED_TRY(error_status(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking),
                          "cudaStreamCreate"));
    MEED_TRY(error_status(cudaMallocHost((void **)&state->sum_host, sizeof *state->sum_host),
                          "cudaMallocHost"));
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
    be->forget = cuda_forget;
    be->sync = cuda_sync;
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
