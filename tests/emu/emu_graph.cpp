/* Stream capture and graphs: calls are kept as bytes, and each launch of the graph runs them.
 *
 * What a node keeps is what CUDA keeps: the kernel, its shape, and its arguments by value. So a
 * pointer to memory that is gone by the time of the launch is followed then (AddressSanitizer sees
 * it), and a number that should have changed since has not (results differ from the same calls run
 * one by one, which is what tests compare).
 *
 * Stricter than CUDA in one place: copies from and to plain host memory are refused, where some
 * versions record them and read the memory at launch. Like CUDA, a call that may not be made while
 * a stream records makes the whole capture invalid; unlike CUDA, it is named on stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include "tests/emu/emu_engine.h"

struct meed_emu_node {
    struct meed_emu_node *next;
    emu_replay_fn *replay;
    void *record;
    void *arguments;
};
struct meed_emu_graph {
    struct meed_emu_node *first;
    struct meed_emu_node *last;
    size_t count;
    int owners; /* the recorded graph and what was instantiated from it */
};

static cudaStream_t capturing;
static struct meed_emu_graph *recorded;
static bool invalid;

static void *bytes_keep(const void *from, size_t bytes)
{
    void *kept = malloc(bytes > 0 ? bytes : 1);
    if (!kept) {
        perror("emulator: a graph");
        abort();
    }
    if (bytes > 0) {
        memcpy(kept, from, bytes);
    }
    return kept;
}

bool emu_graph_record(cudaStream_t stream, emu_replay_fn *replay, const void *record, size_t bytes,
                      const void *arguments, size_t argument_bytes)
{
    if (!capturing || stream != capturing) {
        return false;
    }
    struct meed_emu_node node = {NULL, replay, bytes_keep(record, bytes),
                                 bytes_keep(arguments, argument_bytes)};
    struct meed_emu_node *made = (struct meed_emu_node *)bytes_keep(&node, sizeof node);
    if (recorded->last) {
        recorded->last->next = made;
    } else {
        recorded->first = made;
    }
    recorded->last = made;
    recorded->count++;
    return true;
}

bool emu_graph_refuse(cudaStream_t stream, const char *what)
{
    if (!capturing || (stream && stream != capturing)) {
        return false;
    }
    fprintf(stderr, "emulator: %s while a graph is recorded\n", what);
    invalid = true;
    return true;
}

static void release(struct meed_emu_graph *graph)
{
    if (--graph->owners > 0) {
        return;
    }
    for (struct meed_emu_node *node = graph->first; node;) {
        struct meed_emu_node *next = node->next;
        free(node->record);
        free(node->arguments);
        free(node);
        node = next;
    }
    free(graph);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)mode;
    if (capturing || !stream) {
        return emu_error_keep(cudaErrorStreamCaptureUnsupported);
    }
    const struct meed_emu_graph empty = {NULL, NULL, 0, 1};
    recorded = (struct meed_emu_graph *)bytes_keep(&empty, sizeof empty);
    capturing = stream;
    invalid = false;
    return emu_stream_check(stream);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    if (!capturing || stream != capturing) {
        return emu_error_keep(cudaErrorInvalidValue);
    }
    capturing = NULL;
    *graph = invalid ? NULL : recorded;
    if (invalid) {
        release(recorded);
        return emu_error_keep(cudaErrorStreamCaptureInvalidated);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    *count = graph->count;
    return nodes ? emu_error_keep(cudaErrorInvalidValue) : cudaSuccess; /* nobody asks for them */
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    (void)flags;
    graph->owners++;
    *exec = graph;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (emu_graph_refuse(stream, "cudaGraphLaunch")) {
        return emu_error_keep(cudaErrorStreamCaptureUnsupported);
    }
    for (const struct meed_emu_node *node = exec->first; node; node = node->next) {
        if (!node->replay(node->record, node->arguments)) {
            return emu_error_keep(cudaErrorLaunchFailure);
        }
    }
    return emu_stream_check(stream);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    release(exec);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    release(graph);
    return cudaSuccess;
}
