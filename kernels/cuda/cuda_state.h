/* What a CUDA backend holds, and the three things a launcher asks of it: stream, scratch, a place
 * to report.
 *
 * One backend is one device, one stream and one thread at a time. Everything runs in the order of
 * its calls on that stream, so ops need no events between them, scratch may be handed to the next
 * op while the last one still reads it, and `sync` is the only place where the host waits.
 *
 * Launchers return nothing (backend.h), so failures are kept here: the first one stands until sync
 * returns it. Out of device memory is told apart from a failing device, because the first has a
 * remedy and the second has none.
 *
 * Graphs (cuda_graph.cu) hold the address of the scratch that their ops got. So scratch that is
 * outgrown while there are graphs is not freed but retired until the last of them is gone; it grows
 * to twice its size then, and what is retired is never more than what is in use.
 */
#ifndef MEED_KERNELS_CUDA_CUDA_STATE_H
#define MEED_KERNELS_CUDA_CUDA_STATE_H

#include "kernels/cuda/port.cuh"
#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_cuda_blas; /* blas.h */
struct meed_cuda_comm; /* comm_nccl.cu */
extern const struct meed_device_comm meed_cuda_comm_table;
struct meed_cuda_retired {
    struct meed_cuda_retired *next;
    void *block;
};

struct meed_cuda_state {
    cudaStream_t stream;
    void *scratch; /* grow-only; use meed_cuda_scratch */
    size_t scratch_bytes;
    bool capturing; /* between graph_begin and graph_end (cuda_graph.cu) */
    int64_t graph_count;
    struct meed_cuda_retired *retired; /* scratch that has grown out, but that graphs still name */
    struct meed_cuda_blas *blas;
    struct meed_cuda_comm *comm; /* NULL: no ranks */
    int device;
    int sm_count;
    size_t shared_bytes; /* the most a block may ask for */
    /* The first failure since the last sync; MEED_OK where there is none. */
    enum meed_status failure;
    char failure_text[256];
};

static inline struct meed_cuda_state *meed_cuda_state_of(const struct meed_backend *be)
{
    return (struct meed_cuda_state *)be->state;
}
static inline cudaStream_t meed_cuda_stream(const struct meed_backend *be)
{
    return meed_cuda_state_of(be)->stream;
}

/* Device scratch of at least `bytes`, 256-byte aligned, contents undefined, the caller's until its
 * op ends: the next op gets the same memory, and so does a second call of the same op. NULL where
 * the device has no room: the failure is already noted and the launcher returns. */
void *meed_cuda_scratch(const struct meed_backend *be, size_t bytes);
/* Frees what is retired; once no graph is left, or the backend goes. */
void meed_cuda_retired_free(struct meed_cuda_state *state);
/* A status for calls that return one; clears what CUDA remembers of an error that is not fatal. */
MEED_MUST_CHECK enum meed_status meed_cuda_status(cudaError_t error, const char *what);
/* STATE, and said so, while a graph is being recorded: `what` waits, or would be gone by then. */
MEED_MUST_CHECK enum meed_status meed_cuda_outside_graph(const struct meed_cuda_state *state,
                                                         const char *what);
/* Notes an error under the name of an op; cudaSuccess is nothing. After a launch:
 * meed_cuda_check(be, cudaGetLastError(), "rope"). */
void meed_cuda_check(const struct meed_backend *be, cudaError_t error, const char *what);
/* Notes a failure that already has a status and this thread's message (MEED_FAIL). */
void meed_cuda_note(const struct meed_backend *be, enum meed_status status);

MEED_END_C
#endif
