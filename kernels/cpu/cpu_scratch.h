/* Scratch memory of the CPU twins: a few blocks per thread, grown and kept.
 *
 * Ops need small work areas (a packed panel, a tile in fp32) whose size is bounded by shapes that
 * repeat every step. Each thread keeps one block per slot, so a step allocates nothing once it has
 * run, workers never share, and two nets may use one backend from two threads. The content of a
 * block survives until the same thread asks for the same slot again. Blocks are freed with their
 * thread. Memory that runs out here is an abort: ops are void and the sizes are small next to the
 * activations that were measured and reserved before.
 */
#ifndef MEED_CPU_CPU_SCRATCH_H
#define MEED_CPU_CPU_SCRATCH_H

#include <stddef.h>

enum meed_scratch_slot {
    /* Written by the caller before its parallel loop, read by all workers inside it. */
    MEED_SCRATCH_SHARED_A,
    MEED_SCRATCH_SHARED_B,
    MEED_SCRATCH_SHARED_C,
    /* A worker's own, inside the loop. */
    MEED_SCRATCH_PANEL,
    MEED_SCRATCH_TILE,
    MEED_SCRATCH_ROWS,
    MEED_SCRATCH_LIBRARY,
    MEED_SCRATCH_SLOTS
};

/* 64-byte aligned, not cleared. */
void *meed_cpu_scratch_get(enum meed_scratch_slot slot, size_t bytes);
static inline float *meed_cpu_scratch_floats(enum meed_scratch_slot slot, size_t count)
{
    return (float *)meed_cpu_scratch_get(slot, count * sizeof(float));
}

#endif
