/* The block function of base/rng.h (Philox 4x32-10, Salmon et al. 2011) on the device, bit for bit:
 * what a kernel draws at (key, index) is what the host draws there. */
#ifndef MEED_CUDA_PHILOX_CUH
#define MEED_CUDA_PHILOX_CUH

#include "kernels/cuda/port.cuh"

struct philox_words {
    uint32_t x, y, z, w;
};

static __device__ __forceinline__ struct philox_words philox_block(uint64_t key, uint64_t index)
{
    struct philox_words at = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    uint32_t key_x = (uint32_t)key;
    uint32_t key_z = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t from_z = __umulhi(0xCD9E8D57u, at.z) ^ at.y ^ key_x;
        uint32_t from_x = __umulhi(0xD2511F53u, at.x) ^ at.w ^ key_z;
        at.y = 0xCD9E8D57u * at.z;
        at.w = 0xD2511F53u * at.x;
        at.x = from_z;
        at.z = from_x;
        key_x += 0x9E3779B9u;
        key_z += 0xBB67AE85u;
    }
    return at;
}

#endif
