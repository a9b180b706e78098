/* The calls of the CUDA runtime that the backend makes, on one device with four multiprocessors of
 * compute capability 8.0.
 *
 * A launch ends before it returns: streams have nothing to order. An error is kept for
 * cudaGetLastError, which clears it even after a failed kernel, where a device would stay lost: the
 * next test of a program wants to go on. Memory is in emu_memory.cpp.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/emu/emu_engine.h"

static constexpr int MULTIPROCESSORS = 4;
static constexpr unsigned GRID_YZ_MAX = 65535;
static constexpr unsigned BLOCK_Z_MAX = 64;

struct CUstream_st {
    int open;
};
static cudaError_t last_error;

cudaError_t emu_error_keep(cudaError_t error)
{
    last_error = error != cudaSuccess ? error : last_error;
    return error;
}

/* --- settings -------------------------------------------------------------------------------- */

static bool setting(const char *name, uint64_t *value)
{
    const char *text = getenv(name);
    if (text) {
        *value = strtoull(text, NULL, 10);
    }
    return text != NULL;
}

int meed_emu_mode_list(struct meed_emu_mode modes[MEED_EMU_MODES])
{
    uint64_t first = 0;
    uint64_t count = 4;
    setting("MEED_EMU_SEEDS", &count);
    if (setting("MEED_EMU_SEED", &first)) {
        count = 1;
    }
    const char *copies = getenv("MEED_EMU_COPIES");
    int made = 0;
    for (int late = 0; late <= 1; late++) {
        if (copies && strcmp(copies, late ? "late" : "early") != 0) {
            continue;
        }
        for (uint64_t seed = first; seed < first + count && made < MEED_EMU_MODES; seed++) {
            modes[made++] = {seed, late == 1};
        }
    }
    return made;
}

/* --- launches -------------------------------------------------------------------------------- */

bool emu_blocks_run(const struct meed_emu_launch *launch, void (*body)(const void *arguments),
                    const void *arguments);

static cudaError_t launch_check(const struct meed_emu_launch *launch)
{
    dim3 block = launch->block;
    dim3 grid = launch->grid;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > EMU_THREADS_MAX || block.z > BLOCK_Z_MAX || grid.x == 0 ||
        grid.y == 0 || grid.z == 0 || grid.x > INT32_MAX || grid.y > GRID_YZ_MAX ||
        grid.z > GRID_YZ_MAX) {
        return cudaErrorInvalidConfiguration;
    }
    if (launch->shared_bytes > EMU_SHARED_MAX) {
        return cudaErrorInvalidValue;
    }
    return launch->stream && !launch->stream->open ? cudaErrorInvalidResourceHandle : cudaSuccess;
}

/* A launch with its arguments behind it, as a graph keeps it. */
struct launch_record {
    struct meed_emu_launch launch;
    void (*body)(const void *arguments);
};

static bool launch_run(const struct meed_emu_launch *launch, void (*body)(const void *arguments),
                       const void *arguments)
{
    emu_device_open();
    bool right = emu_blocks_run(launch, body, arguments);
    if (!right) {
        emu_error_keep(cudaErrorLaunchFailure);
    }
    return right;
}

static bool launch_replay(const void *record, const void *arguments)
{
    const struct launch_record *kept = (const struct launch_record *)record;
    return launch_run(&kept->launch, kept->body, arguments);
}

void meed_emu_run(const struct meed_emu_launch *launch, void (*body)(const void *arguments),
                  const void *arguments, size_t argument_bytes)
{
    cudaError_t error = launch_check(launch);
    if (error != cudaSuccess) {
        fprintf(stderr,
                "emulator: kernel %s is not launched: grid (%u, %u, %u), block (%u, %u, %u), %zu "
                "bytes of shared memory\n",
                launch->kernel, launch->grid.x, launch->grid.y, launch->grid.z, launch->block.x,
                launch->block.y, launch->block.z, launch->shared_bytes);
        emu_error_keep(error);
        return;
    }
    const struct launch_record record = {*launch, body};
    if (!emu_graph_record(launch->stream, launch_replay, &record, sizeof record, arguments,
                          argument_bytes)) {
        launch_run(launch, body, arguments);
    }
}

/* --- device ---------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return emu_error_keep(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (device != 0) {
        return emu_error_keep(cudaErrorInvalidDevice);
    }
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = MULTIPROCESSORS;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 8;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = EMU_SHARED_MAX;
        return cudaSuccess;
    }
    return emu_error_keep(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize(void)
{
    emu_graph_refuse(NULL, "cudaDeviceSynchronize");
    return last_error;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *available = (size_t)sysconf(_SC_AVPHYS_PAGES) * page;
    *total = (size_t)sysconf(_SC_PHYS_PAGES) * page;
    return cudaSuccess;
}

/* --- streams and errors ---------------------------------------------------------------------- */

cudaError_t emu_stream_check(cudaStream_t stream)
{
    return stream && !stream->open ? emu_error_keep(cudaErrorInvalidResourceHandle) : cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = (cudaStream_t)calloc(1, sizeof **stream);
    if (!*stream) {
        return emu_error_keep(cudaErrorMemoryAllocation);
    }
    (*stream)->open = 1;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (emu_graph_refuse(stream, "cudaStreamSynchronize")) {
        return emu_error_keep(cudaErrorStreamCaptureUnsupported);
    }
    emu_device_close();
    return emu_stream_check(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t error = emu_stream_check(stream);
    free(stream);
    return error;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
        return "cudaErrorInvalidResourceHandle";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    }
    return "cudaErrorUnknown";
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    }
    return "unrecognized error code";
}
