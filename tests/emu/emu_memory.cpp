/* Device memory, which the host must not touch.
 *
 * In the plain build every block has pages of its own, and the host's access to them ends whenever
 * it waits for the stream or has copied from it, until the next kernel or copy: code that follows a
 * device pointer on the host faults here as it would beside a GPU, and is told why. (Not after each
 * launch: protecting a model's pages a thousand times a step is what the step would cost.) A block
 * ends at its last page (at a multiple of 256 bytes), where a page without
 * access follows. Under a sanitizer blocks come from malloc, exactly as long as asked for: its red
 * zones are finer than pages. New memory is 0xFF throughout, NaN in fp32 and bf16.
 *
 * Copies and fills end before they return, unless their stream records them (emu_graph.cpp). memcpy
 * and memset are the intercepted ones: to TSan they are the host's accesses.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/emu/emu_engine.h"

static constexpr size_t ALIGNMENT = 256;
static constexpr size_t PAGE = 64 << 10; /* a multiple of any */
static constexpr int BLOCKS_MAX = 1 << 16;

struct device_block {
    char *map;
    size_t bytes; /* without the page behind */
    void *data;
};
static struct device_block blocks[BLOCKS_MAX];
static int block_count;
static bool is_open = true;

static void access_set(const struct device_block *device, int access)
{
    if (mprotect(device->map, device->bytes, access) != 0) {
        perror("emulator: cannot protect device memory");
        abort();
    }
}

static void all_access_set(bool open)
{
    for (int i = 0; open != is_open && i < block_count; i++) {
        access_set(&blocks[i], open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
    is_open = open;
}
void emu_device_open(void)
{
    all_access_set(true);
}
void emu_device_close(void)
{
    all_access_set(false);
}

/* Says why, and lets the fault happen again, unhandled. */
static void fault_explain(int signal_number, siginfo_t *info, void *context)
{
    static const char text[] = "emulator: the host touched device memory\n";
    (void)context;
    const char *at = (const char *)info->si_addr;
    for (int i = 0; i < block_count; i++) {
        if (at >= blocks[i].map && at < blocks[i].map + blocks[i].bytes) {
            ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
            (void)written;
        }
    }
    signal(signal_number, SIG_DFL);
}

static void *block_map(size_t bytes)
{
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t pages = (rounded + PAGE - 1) / PAGE * PAGE;
    if (block_count == BLOCKS_MAX) {
        return NULL;
    }
    char *map = (char *)mmap(NULL, pages + PAGE, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
    if (block_count == 0) {
        struct sigaction action = {};
        action.sa_sigaction = fault_explain;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, NULL);
    }
    struct device_block *made = &blocks[block_count++];
    *made = {map, pages, map + pages - rounded};
    access_set(made, is_open ? PROT_READ | PROT_WRITE : PROT_NONE);
    return made->data;
}

static void block_unmap(void *data)
{
    for (int i = 0; i < block_count; i++) {
        if (blocks[i].data == data) {
            munmap(blocks[i].map, blocks[i].bytes + PAGE);
            blocks[i] = blocks[--block_count];
            return;
        }
    }
    emu_error_keep(cudaErrorInvalidValue);
}

cudaError_t cudaMalloc(void **block, size_t bytes)
{
    void *made = NULL;
    if (emu_graph_refuse(NULL, "cudaMalloc")) {
        return emu_error_keep(cudaErrorStreamCaptureUnsupported);
    }
    if (bytes > 0 && MEED_EMU_CHECKER == MEED_EMU_PLAIN) {
        made = block_map(bytes);
    } else if (bytes > 0 && posix_memalign(&made, ALIGNMENT, bytes) != 0) {
        made = NULL;
    }
    if (bytes > 0 && !made) {
        return emu_error_keep(cudaErrorMemoryAllocation);
    }
    if (made) {
        emu_device_open();
        memset(made, 0xFF, bytes);
    }
    *block = made;
    return cudaSuccess;
}

cudaError_t cudaFree(void *block)
{
    if (block && emu_graph_refuse(NULL, "cudaFree")) {
        return emu_error_keep(cudaErrorStreamCaptureUnsupported);
    }
    if (block && MEED_EMU_CHECKER == MEED_EMU_PLAIN) {
        block_unmap(block);
    } else {
        free(block);
    }
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **block, size_t bytes)
{
    *block = malloc(bytes);
    return emu_error_keep(*block || bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *block)
{
    free(block);
    return cudaSuccess;
}

struct copy_record {
    void *to;
    const void *from;
    size_t bytes;
};
static bool copy_replay(const void *record, const void *arguments)
{
    const struct copy_record *copy = (const struct copy_record *)record;
    (void)arguments;
    emu_device_open();
    memcpy(copy->to, copy->from, copy->bytes);
    return true;
}

/* Plain host memory has no place in a graph: it is read, or written, whenever the graph runs. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const struct copy_record copy = {to, from, bytes};
    if (kind != cudaMemcpyDeviceToDevice &&
        emu_graph_refuse(stream, "cudaMemcpyAsync of plain host memory")) {
        return emu_error_keep(cudaErrorStreamCaptureUnsupported);
    }
    if (emu_graph_record(stream, copy_replay, &copy, sizeof copy, NULL, 0)) {
        return cudaSuccess;
    }
    copy_replay(&copy, NULL);
    if (kind == cudaMemcpyDeviceToHost) {
        emu_device_close();
    }
    return emu_stream_check(stream);
}

struct fill_record {
    void *to;
    int value;
    size_t bytes;
};
static bool fill_replay(const void *record, const void *arguments)
{
    const struct fill_record *fill = (const struct fill_record *)record;
    (void)arguments;
    emu_device_open();
    memset(fill->to, fill->value, fill->bytes);
    return true;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    const struct fill_record fill = {to, value, bytes};
    if (!emu_graph_record(stream, fill_replay, &fill, sizeof fill, NULL, 0)) {
        fill_replay(&fill, NULL);
    }
    return emu_stream_check(stream);
}
