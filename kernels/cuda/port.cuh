/* The one header between a kernel and the machine it runs on. All inline PTX of the backend is
 * here.
 *
 * A `.cu` of this folder is compiled twice: by nvcc for sm_80 and newer, and, with -DMEED_EMU, as
 * C++20 for the emulator of tests/emu, which runs every CUDA thread as a fibre. The source is the
 * same to the byte, so what is tested without a GPU is what ships. That works because everything
 * C++ cannot say goes through a name of this header:
 *
 *   MEED_SHARED(type, name)       static shared memory; `type` may be an array: float[32][33]
 *   MEED_DYN_SHARED(T, pointer)   the block's dynamic shared memory, 16-byte aligned
 *   MEED_LAUNCH((kernel<…>), grid, block, shared_bytes, stream, args…)
 *   meed_cp_async16, …_commit, …_wait<N>, meed_ldmatrix_*, meed_mma_bf16_16816
 *   meed_bf16_float, meed_float_bf16, meed_pack_bf16x2, meed_unpack_bf16x2, meed_exp2f
 *
 * and because kernels keep to what the emulator can check: warp collectives name their true mask;
 * no return before a block barrier; one barrier a line; no spinning on memory; no atomics on
 * floating point. tests/emu/README.md has the rules with their reasons.
 *
 * Meaning of the wrappers, the same on both sides:
 *   cp_async16   copies `src_bytes` (0…16) to 16 bytes of shared memory, the rest becomes zero; 0
 *                reads nothing, and any pointer will do. Both addresses are multiples of 16. The
 *                bytes may be read after a wait that covers their commit *and* a barrier.
 *   ldmatrix     lane 8j + i supplies the address of row i of matrix j (x2: lanes 0…15); lane l
 *                gets elements 2(l mod 4), +1 of row l/4, or with trans of column l/4.
 *   mma          D[16,8] += A[16,16]·B[16,8]; with g = l/4, t = 2(l mod 4), h = 0, 1:
 *                a0 A[g][t+h], a1 A[g+8][t+h], a2 A[g][t+8+h], a3 A[g+8][t+8+h];
 *                b0 B[t+h][g], b1 B[t+8+h][g]; d0, d1 D[g][t+h]; d2, d3 D[g+8][t+h].
 *
 * Loads from shared memory are volatile with a memory clobber: the compiler must not move one above
 * the barrier that makes its bytes valid, and it cannot see through the address.
 */
#ifndef MEED_KERNELS_CUDA_PORT_CUH
#define MEED_KERNELS_CUDA_PORT_CUH

#include <cuda_runtime.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/types.h"

template <typename T> struct meed_port_self {
    typedef T type;
};
/* Makes `float[32][33]` a type that a declaration may begin with. */
template <typename T> using meed_port_same = typename meed_port_self<T>::type;
#define MEED_PORT_NAME(...) __VA_ARGS__

static __device__ __forceinline__ void meed_unpack_bf16x2(uint32_t pair, float *lo, float *hi)
{
    *lo = __uint_as_float(pair << 16);
    *hi = __uint_as_float(pair & 0xFFFF0000u);
}
static __device__ __forceinline__ float meed_bf16_float(uint16_t value)
{
    return __uint_as_float((uint32_t)value << 16);
}

#ifndef MEED_EMU

#define MEED_LAUNCH(kernel, ...) meed_port_launch(MEED_PORT_NAME kernel, __VA_ARGS__)
#define MEED_SHARED(type, name) __shared__ meed_port_same<type> name
#define MEED_DYN_SHARED(T, pointer)                                                                \
    extern __shared__ __align__(16) unsigned char meed_port_dynamic[];                             \
    T *pointer = reinterpret_cast<T *>(meed_port_dynamic)

/* More dynamic shared memory than this must be asked for, function by function. */
static constexpr size_t MEED_PORT_SHARED_FREE = 48 << 10;

/* Errors, of the attribute too, are left for cudaGetLastError. */
template <typename... P, typename... A>
static void meed_port_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                             cudaStream_t stream, A... args)
{
    if (shared_bytes > MEED_PORT_SHARED_FREE) {
        (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)shared_bytes);
    }
    kernel<<<grid, block, shared_bytes, stream>>>(args...);
}

static __device__ __forceinline__ uint32_t meed_port_shared(const void *address)
{
    return (uint32_t)__cvta_generic_to_shared(address);
}

static __device__ __forceinline__ uint16_t meed_float_bf16(float value)
{
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
static __device__ __forceinline__ uint32_t meed_pack_bf16x2(float lo, float hi)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}
/* 2^x within 2 ulp; denormal results become zero. */
static __device__ __forceinline__ float meed_exp2f(float x)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

static __device__ __forceinline__ void meed_cp_async16(void *shared, const void *global,
                                                       int src_bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(meed_port_shared(shared)),
                 "l"(global), "r"(src_bytes)
                 : "memory");
}
static __device__ __forceinline__ void meed_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits until at most N of this thread's groups are under way. */
template <int N> static __device__ __forceinline__ void meed_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

static __device__ __forceinline__ void meed_ldmatrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(meed_port_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void meed_ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(meed_port_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void meed_ldmatrix_x2(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(meed_port_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void meed_ldmatrix_x2_trans(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(meed_port_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void meed_mma_bf16_16816(float d[4], const uint32_t a[4],
                                                           const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else /* the emulator: <cuda_runtime.h> above was tests/emu/include/cuda_runtime.h */

#include <meed_emu.h>

#endif
#endif
