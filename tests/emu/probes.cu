/* See probes.h. */
#include "tests/emu/probes.h"

#include "kernels/cuda/port.cuh"

/* Device memory for a result and its way back. */
template <typename T, typename Launch> static void fetch(T *host, int count, Launch launch)
{
    T *device = NULL;
    cudaMalloc((void **)&device, (size_t)count * sizeof(T));
    launch(device);
    cudaMemcpyAsync(host, device, (size_t)count * sizeof(T), cudaMemcpyDeviceToHost, NULL);
    cudaFree(device);
}
template <typename T> static T *send(const T *host, int count)
{
    T *device = NULL;
    cudaMalloc((void **)&device, (size_t)count * sizeof(T));
    cudaMemcpyAsync(device, host, (size_t)count * sizeof(T), cudaMemcpyHostToDevice, NULL);
    return device;
}

template <int MATRICES, bool TRANSPOSED> __global__ void ldmatrix_kernel(uint32_t *out)
{
    MEED_SHARED(meed_bf16[PROBE_ROWS * PROBE_COLUMNS], tile);
    uint32_t r[4] = {0, 0, 0, 0};
    for (int i = (int)threadIdx.x; i < PROBE_ROWS * PROBE_COLUMNS; i += PROBE_LANES) {
        tile[i] = (meed_bf16)i;
    }
    __syncthreads();
    const meed_bf16 *row = tile + threadIdx.x * PROBE_COLUMNS;
    if (MATRICES == 4) {
        TRANSPOSED ? meed_ldmatrix_x4_trans(r, row) : meed_ldmatrix_x4(r, row);
    } else {
        TRANSPOSED ? meed_ldmatrix_x2_trans(r, row) : meed_ldmatrix_x2(r, row);
    }
    for (int j = 0; j < 4; j++) {
        out[threadIdx.x * 4 + j] = r[j];
    }
}

void probe_ldmatrix(int matrices, bool transposed, uint32_t r[PROBE_LANES][4])
{
    fetch(&r[0][0], PROBE_LANES * 4, [=](uint32_t *out) {
        void (*kernel)(uint32_t *) =
            matrices == 4 ? (transposed ? ldmatrix_kernel<4, true> : ldmatrix_kernel<4, false>)
                          : (transposed ? ldmatrix_kernel<2, true> : ldmatrix_kernel<2, false>);
        MEED_LAUNCH((kernel), dim3(1), dim3(PROBE_LANES), 0, NULL, out);
    });
}

__global__ void mma_kernel(const uint16_t *a, const uint16_t *b, float *out)
{
    MEED_SHARED(meed_bf16[16][16], a_tile);
    MEED_SHARED(meed_bf16[16][8], b_tile);
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += PROBE_LANES) {
        a_tile[i / 16][i % 16] = a[i];
    }
    for (int i = lane; i < 128; i += PROBE_LANES) {
        b_tile[i / 8][i % 8] = b[i];
    }
    __syncthreads();
    uint32_t fa[4];
    uint32_t fb[2];
    float d[4];
    int g = lane / 4;
    int t = lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
        d[i] = out[(g + 8 * (i / 2)) * 8 + t + i % 2];
    }
    meed_ldmatrix_x4(fa, &a_tile[lane % 16][lane / 16 * 8]);
    meed_ldmatrix_x2_trans(fb, &b_tile[lane % 16][0]);
    meed_mma_bf16_16816(d, fa, fb);
    for (int i = 0; i < 4; i++) {
        out[(g + 8 * (i / 2)) * 8 + t + i % 2] = d[i];
    }
}

void probe_mma(const uint16_t a[256], const uint16_t b[128], float d[128])
{
    uint16_t *a_dev = send(a, 256);
    uint16_t *b_dev = send(b, 128);
    fetch(d, 128, [=](float *out) {
        cudaMemcpyAsync(out, d, 128 * sizeof(float), cudaMemcpyHostToDevice, NULL);
        MEED_LAUNCH((mma_kernel), dim3(1), dim3(PROBE_LANES), 0, NULL, a_dev, b_dev, out);
    });
    cudaFree(a_dev);
    cudaFree(b_dev);
}

__global__ void shuffle_kernel(enum probe_shuffle kind, int operand, int width, int *out)
{
    int own = (int)threadIdx.x;
    int got = -1;
    if (kind == PROBE_IDX) {
        got = __shfl_sync(0xFFFFFFFFu, own, operand, width);
    } else if (kind == PROBE_UP) {
        got = __shfl_up_sync(0xFFFFFFFFu, own, (unsigned)operand, width);
    } else if (kind == PROBE_DOWN) {
        got = __shfl_down_sync(0xFFFFFFFFu, own, (unsigned)operand, width);
    } else {
        got = __shfl_xor_sync(0xFFFFFFFFu, own, operand, width);
    }
    out[threadIdx.x] = got;
}

void probe_shuffle(enum probe_shuffle kind, int operand, int width, int got[PROBE_LANES])
{
    fetch(got, PROBE_LANES, [=](int *out) {
        MEED_LAUNCH((shuffle_kernel), dim3(1), dim3(PROBE_LANES), 0, NULL, kind, operand, width,
                    out);
    });
}

__global__ void copy_kernel(const unsigned char *from, int bytes, unsigned char *out)
{
    MEED_DYN_SHARED(unsigned char, tile);
    if (threadIdx.x == 0) {
        meed_cp_async16(tile, from, bytes);
    }
    meed_cp_async_commit();
    meed_cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

void probe_copy(int bytes, unsigned char got[16])
{
    unsigned char host[16];
    for (int i = 0; i < 16; i++) {
        host[i] = (unsigned char)(i + 1);
    }
    unsigned char *from = send(host, 16);
    fetch(got, 16, [=](unsigned char *out) {
        MEED_LAUNCH((copy_kernel), dim3(1), dim3(16), 16, NULL, from, bytes, out);
    });
    cudaFree(from);
}

__global__ void ballot_kernel(uint32_t *out)
{
    uint32_t votes = __ballot_sync(0xFFFFFFFFu, threadIdx.x % 2 == 1);
    if (threadIdx.x == 0) {
        *out = votes;
    }
}

uint32_t probe_ballot(int lanes)
{
    uint32_t votes = 0;
    fetch(&votes, 1, [=](uint32_t *out) {
        MEED_LAUNCH((ballot_kernel), dim3(1), dim3((unsigned)lanes), 0, NULL, out);
    });
    return votes;
}

__global__ void empty_kernel(int nothing)
{
    (void)nothing;
}

int probe_launch(unsigned grid_y, unsigned block_x, unsigned block_z)
{
    MEED_LAUNCH((empty_kernel), dim3(1, grid_y), dim3(block_x, 1, block_z), 0, NULL, 0);
    return (int)cudaGetLastError();
}
