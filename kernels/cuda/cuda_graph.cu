/* Graphs of the CUDA backend: the stream's calls recorded, instantiated once, launched as one.
 *
 * A training step of a small model is thousands of kernels of microseconds each, and issuing them
 * costs as much again on the host. Stream capture records the very calls that would have run
 * (kernels, cuBLASLt's too, fills and copies within the device), so a graph needs no second
 * description of the step that could drift from the first. NCCL's calls are recorded as well.
 *
 * Capture is thread-local: what other threads do on the device (a copy of another backend) neither
 * fails nor spoils it. What has no place in a graph (cuda_state.h: meed_cuda_outside_graph) is
 * refused before CUDA sees it, because CUDA's own answer is an invalid capture without a reason.
 *
 * Left out: updating an instantiated graph in place. It saves an instantiation (milliseconds) for a
 * new shape, and its rules on what may differ are longer than this file.
 */
#include "kernels/cuda/cuda_backend.h"

#include "base/buf.h"
#include "kernels/cuda/cuda_state.h"
#include "kernels/cuda/port.cuh"

struct meed_graph {
    cudaGraphExec_t exec;
};

enum meed_status meed_cuda_graph_begin(const struct meed_backend *be)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    MEED_TRY(meed_cuda_outside_graph(state, "a graph"));
    MEED_TRY(be->sync(be)); /* failures of earlier ops are not the graph's */
    MEED_TRY(meed_cuda_status(
        cudaStreamBeginCapture(state->stream, cudaStreamCaptureModeThreadLocal), "graph_begin"));
    state->capturing = true;
    return MEED_OK;
}

static enum meed_status instantiate(cudaGraph_t recorded, struct meed_graph **graph, int64_t *nodes)
{
    size_t count = 0;
    MEED_TRY(meed_cuda_status(cudaGraphGetNodes(recorded, NULL, &count), "graph_end"));
    struct meed_graph *made = (struct meed_graph *)meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    enum meed_status st =
        meed_cuda_status(cudaGraphInstantiateWithFlags(&made->exec, recorded, 0), "making a graph");
    if (st != MEED_OK) {
        meed_heap_free(made);
        return st;
    }
    *graph = made;
    if (nodes) {
        *nodes = (int64_t)count;
    }
    return MEED_OK;
}

enum meed_status meed_cuda_graph_end(const struct meed_backend *be, struct meed_graph **graph,
                                     int64_t *nodes)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    cudaGraph_t recorded = NULL;
    MEED_ASSERT(state->capturing);
    state->capturing = false;
    cudaError_t error = cudaStreamEndCapture(state->stream, &recorded);
    enum meed_status st = be->sync(be); /* what failed while recording comes first */
    if (st == MEED_OK) {
        st = meed_cuda_status(error, "recording a graph");
    }
    if (st == MEED_OK) {
        st = instantiate(recorded, graph, nodes);
    }
    if (recorded) {
        cudaGraphDestroy(recorded);
    }
    state->graph_count += st == MEED_OK;
    return st;
}

enum meed_status meed_cuda_graph_launch(const struct meed_backend *be, struct meed_graph *graph)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    MEED_TRY(meed_cuda_outside_graph(state, "the launch of a graph"));
    MEED_TRY(meed_cuda_status(cudaSetDevice(state->device), "graph_launch"));
    return meed_cuda_status(cudaGraphLaunch(graph->exec, state->stream), "graph_launch");
}

void meed_cuda_graph_free(const struct meed_backend *be, struct meed_graph *graph)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    if (!graph) {
        return;
    }
    meed_cuda_check(be, cudaStreamSynchronize(state->stream), "graph_free"); /* it may still run */
    meed_cuda_check(be, cudaGraphExecDestroy(graph->exec), "graph_free");
    meed_heap_free(graph);
    if (--state->graph_count == 0) {
        meed_cuda_retired_free(state);
    }
}
