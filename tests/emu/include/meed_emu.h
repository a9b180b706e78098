/* The emulator's half of kernels/cuda/port.cuh, which includes it in place of inline PTX.
 *
 * Who touches memory matters to the sanitizers, which see only code compiled with them. So whatever
 * stands for an access of the kernel is done here, in the kernel's own translation unit: the row
 * reads of ldmatrix. The engine, compiled without them, only tells lanes about each other. Copies
 * are the exception that proves it: the engine makes them through memcpy, which the sanitizers
 * intercept.
 *
 * Limits, all on the strict side: conversions and exp2 are exactly rounded where the hardware may
 * be one unit off or flush denormals, and mma sums its sixteen products in fp32 in order of k,
 * where the hardware's order is its own. Results are compared with float64, never with a GPU's
 * bits.
 */
#ifndef MEED_INCLUDE_MEED_EMU_H
#define MEED_INCLUDE_MEED_EMU_H

#include <cuda_runtime.h>
#include "kernels/types.h"

extern "C" {
void *meed_emu_dynamic_shared(void);
void *meed_emu_static_shared(const void *key, size_t bytes, meed_emu_place place);
void meed_emu_copy16(void *shared, const void *global, int src_bytes, meed_emu_place place);
void meed_emu_copy_commit(void);
void meed_emu_copy_wait(int groups, meed_emu_place place);

enum { MEED_EMU_ROWS = 8 };
/* Lane l takes the addresses of the rows it reads: `per_matrix` of each of `matrices`. */
struct meed_emu_matrix {
    const void *row;                 /* what this lane supplies */
    const void *rows[MEED_EMU_ROWS]; /* what it takes */
    int matrices;
    bool transposed;
    meed_emu_place place;
};
meed_emu_finish_fn meed_emu_finish_matrix;
struct meed_emu_mma {
    float *d;
    const uint32_t *a;
    const uint32_t *b;
    meed_emu_place place;
};
meed_emu_finish_fn meed_emu_finish_mma;
}

/* A static per use, one per instance of a template, is the key of the memory. */
#define MEED_SHARED(type, name)                                                                    \
    static char meed_emu_key_##name;                                                               \
    meed_port_same<type> &name = *reinterpret_cast<meed_port_same<type> *>(meed_emu_static_shared( \
        &meed_emu_key_##name, sizeof(meed_port_same<type>), {__FILE__, __LINE__}))
#define MEED_DYN_SHARED(T, pointer) T *pointer = reinterpret_cast<T *>(meed_emu_dynamic_shared())

#define MEED_EMU_TEXT(...) #__VA_ARGS__
#define MEED_LAUNCH(kernel, ...)                                                                   \
    meed_port_launch(MEED_EMU_TEXT kernel, MEED_PORT_NAME kernel, __VA_ARGS__)

template <typename... P, typename... A>
static void meed_port_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                             size_t shared_bytes, cudaStream_t stream, A... args)
{
    auto body = [=] { kernel(args...); };
    const meed_emu_launch launch = {name, grid, block, shared_bytes, stream};
    static_assert(__is_trivially_copyable(decltype(body)), "a graph keeps arguments as bytes");
    meed_emu_run(
        &launch, [](const void *arguments) { (*static_cast<const decltype(body) *>(arguments))(); },
        &body, sizeof body);
}

static inline uint16_t meed_float_bf16(float value)
{
    return meed_bf16_from_f32(value);
}
static inline uint32_t meed_pack_bf16x2(float lo, float hi)
{
    return meed_bf16_from_f32(lo) | (uint32_t)meed_bf16_from_f32(hi) << 16;
}
static inline float meed_exp2f(float x)
{
    return exp2f(x);
}

static inline void meed_cp_async16(void *shared, const void *global, int src_bytes,
                                   meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_copy16(shared, global, src_bytes, place);
}
static inline void meed_cp_async_commit()
{
    meed_emu_copy_commit();
}
template <int N> static inline void meed_cp_async_wait(meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_copy_wait(N, place);
}

static inline void meed_emu_ldmatrix(uint32_t *r, const void *row, int matrices, bool transposed,
                                     meed_emu_place place)
{
    meed_emu_matrix record = {row, {}, matrices, transposed, place};
    meed_emu_collective(0xFFFFFFFFu, &record, meed_emu_finish_matrix, place);
    int lane = (int)(threadIdx.x & 31);
    for (int j = 0; j < matrices; j++) {
        if (transposed) {
            const uint16_t *low = (const uint16_t *)record.rows[2 * j];
            const uint16_t *high = (const uint16_t *)record.rows[2 * j + 1];
            r[j] = low[lane / 4] | (uint32_t)high[lane / 4] << 16;
        } else {
            memcpy(&r[j], (const uint16_t *)record.rows[j] + lane % 4 * 2, sizeof r[j]);
        }
    }
}
static inline void meed_ldmatrix_x4(uint32_t r[4], const void *row,
                                    meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_ldmatrix(r, row, 4, false, place);
}
static inline void meed_ldmatrix_x4_trans(uint32_t r[4], const void *row,
                                          meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_ldmatrix(r, row, 4, true, place);
}
static inline void meed_ldmatrix_x2(uint32_t r[2], const void *row,
                                    meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_ldmatrix(r, row, 2, false, place);
}
static inline void meed_ldmatrix_x2_trans(uint32_t r[2], const void *row,
                                          meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_ldmatrix(r, row, 2, true, place);
}
static inline void meed_mma_bf16_16816(float d[4], const uint32_t a[4], const uint32_t b[2],
                                       meed_emu_place place = MEED_EMU_HERE)
{
    meed_emu_mma record = {d, a, b, place};
    meed_emu_collective(0xFFFFFFFFu, &record, meed_emu_finish_mma, place);
}

#endif
