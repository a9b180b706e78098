/* What a kernel of kernels/cuda finds under this name when the emulator compiles it: the keywords,
 * the built-in variables, the vector types, warp collectives and votes, integer atomics, the math
 * that C++ lacks, and the few calls of the CUDA runtime that the backend makes.
 *
 * The list is what the tree uses and no more: a kernel that needs another name adds it here, with
 * its meaning, or does without. Deliberately absent: atomics on floating point (their order is
 * nobody's), __activemask, cooperative groups, and `__shared__`, whose memory could not be poisoned
 * (MEED_SHARED is the way).
 *
 * Collectives take the place of their call as a defaulted argument: lanes are told apart by the
 * source line they wait at, so a divergent pair is named by both lines.
 */
#ifndef MEED_INCLUDE_CUDA_RUNTIME_H
#define MEED_INCLUDE_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ const
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static_assert(false, "declare shared memory with MEED_SHARED"),

/* --- vectors --------------------------------------------------------------------------------- */

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct uint3 {
    unsigned x, y, z;
};

#define MEED_EMU_VECTORS(T, name)                                                                  \
    struct alignas(2 * sizeof(T)) name##2                                                          \
    {                                                                                              \
        T x, y;                                                                                    \
    };                                                                                             \
    struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) name##4                                    \
    {                                                                                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##2 make_##name##2(T x, T y)                                                 \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                       \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
MEED_EMU_VECTORS(unsigned char, uchar)
MEED_EMU_VECTORS(unsigned short, ushort)
MEED_EMU_VECTORS(int, int)
MEED_EMU_VECTORS(unsigned, uint)
MEED_EMU_VECTORS(float, float)
MEED_EMU_VECTORS(double, double)
#undef MEED_EMU_VECTORS

/* Of the thread that runs now; the engine changes them at every switch. */
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
static constexpr int warpSize = 32;

/* --- engine ---------------------------------------------------------------------------------- */

struct meed_emu_place {
    const char *file;
    int line;
};
#define MEED_EMU_HERE                                                                              \
    {                                                                                              \
        __builtin_FILE(), __builtin_LINE()                                                         \
    }

extern "C" {
void meed_emu_barrier(meed_emu_place place);
void meed_emu_syncwarp(unsigned mask, meed_emu_place place);
/* Meets the lanes of `mask`; the last one to come runs `finish` over the records of all, indexed by
 * lane; entries of lanes outside the mask hold nothing. */
typedef void meed_emu_finish_fn(void *const records[32], unsigned mask);
void meed_emu_collective(unsigned mask, void *record, meed_emu_finish_fn *finish,
                         meed_emu_place place);
void meed_emu_fence(void);

enum meed_emu_shuffle_kind { MEED_EMU_IDX, MEED_EMU_UP, MEED_EMU_DOWN, MEED_EMU_XOR };
struct meed_emu_shuffle {
    uint64_t value; /* in: own; out: taken */
    int operand;
    int width;
    enum meed_emu_shuffle_kind kind;
};
meed_emu_finish_fn meed_emu_finish_shuffle;
struct meed_emu_vote {
    unsigned ballot;
    bool mine;
};
meed_emu_finish_fn meed_emu_finish_vote;
}

static inline void __syncthreads(meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_barrier(place);
}
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_syncwarp(mask, place);
}
static inline void __threadfence()
{
    meed_emu_fence();
}
static inline void __threadfence_block()
{
    meed_emu_fence();
}

template <typename T>
static inline T meed_emu_shuffle_one(unsigned mask, T value, int operand, int width,
                                     meed_emu_shuffle_kind kind, meed_emu_place place)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "what CUDA shuffles");
    meed_emu_shuffle record = {0, operand, width, kind};
    memcpy(&record.value, &value, sizeof value);
    meed_emu_collective(mask, &record, meed_emu_finish_shuffle, place);
    memcpy(&value, &record.value, sizeof value);
    return value;
}
template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                            meed_emu_place place = MEED_EMU_HERE)
{
    return meed_emu_shuffle_one(mask, value, lane, width, MEED_EMU_IDX, place);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                               meed_emu_place place = MEED_EMU_HERE)
{
    return meed_emu_shuffle_one(mask, value, (int)delta, width, MEED_EMU_UP, place);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 meed_emu_place place = MEED_EMU_HERE)
{
    return meed_emu_shuffle_one(mask, value, (int)delta, width, MEED_EMU_DOWN, place);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                                meed_emu_place place = MEED_EMU_HERE)
{
    return meed_emu_shuffle_one(mask, value, lanes, width, MEED_EMU_XOR, place);
}
static inline unsigned __ballot_sync(unsigned mask, int mine, meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_vote record = {0, mine != 0};
    meed_emu_collective(mask, &record, meed_emu_finish_vote, place);
    return record.ballot;
}
static inline int __any_sync(unsigned mask, int mine, meed_emu_place place = MEED_EMU_HERE)
{
    return __ballot_sync(mask, mine, place) != 0;
}
static inline int __all_sync(unsigned mask, int mine, meed_emu_place place = MEED_EMU_HERE)
{
    return __ballot_sync(mask, !mine, place) == 0;
}

/* Relaxed, as on the device: an ordering atomic would hide races. */
static inline int atomicAdd(int *at, int value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
static inline unsigned atomicAdd(unsigned *at, unsigned value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
static inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
static inline unsigned atomicInc(unsigned *at, unsigned last)
{
    unsigned seen = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &seen, seen >= last ? 0 : seen + 1, true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return seen;
}

/* --- numbers --------------------------------------------------------------------------------- */

static inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline float __int_as_float(int bits)
{
    return __uint_as_float((unsigned)bits);
}
static inline int __float_as_int(float value)
{
    return (int)__float_as_uint(value);
}
static inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}
static inline int __clz(int bits)
{
    return bits ? __builtin_clz((unsigned)bits) : 32;
}
static inline int __ffs(int bits)
{
    return __builtin_ffs(bits);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline uint64_t __umul64hi(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)a * b >> 64);
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
static inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
/* glibc owns these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

template <typename T> static inline T __ldg(const T *at)
{
    return *at;
}
template <typename T> static inline T __ldcs(const T *at)
{
    return *at;
}
template <typename T> static inline void __stcs(T *at, T value)
{
    *at = value;
}

#define MEED_EMU_ORDER(T)                                                                          \
    static inline T min(T a, T b)                                                                  \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    static inline T max(T a, T b)                                                                  \
    {                                                                                              \
        return a < b ? b : a;                                                                      \
    }
MEED_EMU_ORDER(int)
MEED_EMU_ORDER(unsigned)
MEED_EMU_ORDER(long)
MEED_EMU_ORDER(unsigned long)
MEED_EMU_ORDER(float)
MEED_EMU_ORDER(double)
#undef MEED_EMU_ORDER

/* --- runtime --------------------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault,
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed,
};
typedef struct CUstream_st *cudaStream_t;
typedef struct meed_emu_graph *cudaGraph_t;
typedef struct meed_emu_graph *cudaGraphExec_t;
typedef struct meed_emu_node *cudaGraphNode_t;

extern "C" {
/* A launch runs to its end before it returns. */
struct meed_emu_launch {
    const char *kernel;
    dim3 grid;
    dim3 block;
    size_t shared_bytes;
    cudaStream_t stream;
};
void meed_emu_run(const struct meed_emu_launch *launch, void (*body)(const void *arguments),
                  const void *arguments, size_t argument_bytes);

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaMalloc(void **block, size_t bytes);
cudaError_t cudaFree(void *block);
cudaError_t cudaMallocHost(void **block, size_t bytes);
cudaError_t cudaFreeHost(void *block);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);
}

#endif
