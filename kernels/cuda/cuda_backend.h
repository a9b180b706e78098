/* The door of the CUDA backend: what kernels/cuda_plugin.c looks up in libmeed_cuda.so, and what
 * the emulated build calls directly. No CUDA header is needed to include it.
 *
 * Program and library are built from one tree but are two files, so they can be mixed up. The
 * program says who it is, and the library refuses any other: the table of functions between them
 * has no version of its own.
 */
#ifndef MEED_KERNELS_CUDA_CUDA_BACKEND_H
#define MEED_KERNELS_CUDA_CUDA_BACKEND_H

#include "kernels/backend.h"

MEED_BEGIN_C

/* Who opens: MEED_RELEASE and sizeof(struct meed_backend) of the caller's build. */
struct meed_cuda_caller {
    const char *release;
    size_t backend_bytes;
};

/* Opens device `device` (as CUDA counts). VERSION for a caller of another build, DEVICE where there
 * is no driver or no such device, UNSUPPORTED below compute capability 8.0. */
typedef enum meed_status meed_cuda_open_fn(struct meed_cuda_caller caller, int device,
                                           struct meed_backend **backend);
MEED_MUST_CHECK meed_cuda_open_fn meed_cuda_open;

/* cuda_graph.cu: the table's graph_begin and its companions. */
MEED_MUST_CHECK enum meed_status meed_cuda_graph_begin(const struct meed_backend *be);
MEED_MUST_CHECK enum meed_status meed_cuda_graph_end(const struct meed_backend *be,
                                                     struct meed_graph **graph, int64_t *nodes);
MEED_MUST_CHECK enum meed_status meed_cuda_graph_launch(const struct meed_backend *be,
                                                        struct meed_graph *graph);
void meed_cuda_graph_free(const struct meed_backend *be, struct meed_graph *graph);

MEED_END_C
#endif
