/* The engine's own seams: fibres below, the block in the middle, shared memory, copies and
 * collectives beside it.
 *
 * One OS thread, the caller of the launch, runs everything: blocks one after another, the threads
 * of a block in turns. So nothing here needs a lock, every failure repeats, and the sanitizers see
 * one schedule. A fibre that must wait picks what runs next by itself; there is no scheduler to
 * return to.
 *
 * The engine is compiled without any sanitizer, in all builds, and while fibres run it calls no
 * function that a sanitizer intercepts (copies excepted, on purpose): its bookkeeping crosses
 * fibres without synchronising, and under TSan an interceptor would act for whichever fibre runs.
 */
#ifndef MEED_EMU_EMU_ENGINE_H
#define MEED_EMU_EMU_ENGINE_H

#include "kernels/cuda/port.cuh"
#include "tests/emu/emu.h"

#if MEED_EMU_CHECKER == 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if MEED_EMU_CHECKER == 2
#include <sanitizer/tsan_interface.h>
#endif

enum {
    EMU_THREADS_MAX = 1024,
    EMU_WARP = 32,
    EMU_WARPS_MAX = EMU_THREADS_MAX / EMU_WARP,
    /* Of compute capability 8.0, the least that the backend serves. */
    EMU_SHARED_MAX = 163 << 10,
    EMU_SHARED_STATIC_MAX = 48 << 10,
};

/* --- fibres (fibre.cpp) ---------------------------------------------------------------------- */

enum { EMU_HOST = -1, EMU_FIBRES_MAX = 2 * (EMU_THREADS_MAX + 1) };
/* Makes fibres [0, count) exist and ready to enter emu_fibre_main. */
void emu_fibres_reserve(int count);
/* All fibres begin anew: after a failure left some inside a kernel. */
void emu_fibres_reset(void);
/* From whatever runs to a fibre, or to EMU_HOST. Orders nothing in memory. */
void emu_fibre_switch(int to);
int emu_fibre_now(void);
/* What a fibre does (emu_block.cpp); does not return. */
void emu_fibre_main(int fibre);

/* --- the block (emu_block.cpp) --------------------------------------------------------------- */

/* The running thread waits until emu_thread_wake; returns then. */
void emu_thread_wait(const char *what, meed_emu_place place);
void emu_thread_wake(int thread);
int emu_thread_now(void);
/* Prints kernel, block, thread and place, fails the launch and leaves it. */
[[noreturn]] void emu_fail(meed_emu_place place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- shared memory (emu_shared.cpp) ---------------------------------------------------------- */

/* Poisoned, dynamic memory given out. Failing to map it ends the program. */
void emu_shared_begin(size_t dynamic_bytes);
bool emu_shared_holds(const void *address, size_t bytes);
/* Addresses that stand for barriers towards TSan; fresh for every block. */
enum { EMU_SYNC_POINTS = 4096 };
void *emu_sync_point(int index);

/* --- device memory and errors (emu_memory.cpp, emu_runtime.cpp) ------------------------------ */

/* From open to close device memory may be touched; again is nothing. */
void emu_device_open(void);
void emu_device_close(void);
/* Remembers a failure for cudaGetLastError; returns it. */
cudaError_t emu_error_keep(cudaError_t error);
cudaError_t emu_stream_check(cudaStream_t stream);

/* emu_graph.cpp. What a node does when its graph runs; false where it failed. */
typedef bool emu_replay_fn(const void *record, const void *arguments);
/* True where the stream records: both blocks are copied and the caller does nothing more. */
bool emu_graph_record(cudaStream_t stream, emu_replay_fn *replay, const void *record, size_t bytes,
                      const void *arguments, size_t argument_bytes);
/* True, said so and the capture spoiled, where the stream (NULL: any) records: `what` may not be
 * called now. */
bool emu_graph_refuse(cudaStream_t stream, const char *what);

/* --- collectives and copies ------------------------------------------------------------------ */

void emu_warps_begin(int threads);
void emu_warp_exit(int thread);
void emu_copies_begin(int threads);
/* Fails the launch if the thread leaves copies under way. */
void emu_copies_end(int thread);
bool emu_copies_late(void);

extern struct meed_emu_count emu_count;

/* --- TSan ------------------------------------------------------------------------------------ */

static inline void emu_acquire(void *point)
{
#if MEED_EMU_CHECKER == 2
    __tsan_acquire(point);
#else
    (void)point;
#endif
}
static inline void emu_release(void *point)
{
#if MEED_EMU_CHECKER == 2
    __tsan_release(point);
#else
    (void)point;
#endif
}

#endif
