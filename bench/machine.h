/* What the device suites run on: a backend, an oracle to check it with, and its own ceilings.
 *
 * A fraction of a data sheet's peak says as much about the sheet as about a kernel. So two probes
 * measure what this machine gives today through the same backend: a large GEMM per dtype, and rows
 * copied from one large buffer to another. The floor of an op is then the larger of FLOPs / GEMM
 * rate and bytes / copy rate (the roofline model of Williams, Waterman, Patterson 2009).
 */
#ifndef MEED_BENCH_MACHINE_H
#define MEED_BENCH_MACHINE_H

#include "kernels/backend.h"

struct meed_bench_machine {
    const char *device; /* "cpu", "cuda", "cuda:1" */
    int threads;
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_backend *oracle; /* plain C on the CPU: no instruction set, no library */
    bool smoke; /* small shapes and one turn: a test that the suites run, not a measurement */
    bool probed;
    double gemm_flops[2]; /* by dtype, FLOP/s */
    double copy_bytes;    /* read + written, bytes/s */
};

/* machine is zeroed but for smoke; to be closed whatever comes back. */
MEED_MUST_CHECK enum meed_status meed_bench_machine_open(const char *device, int threads,
                                                         struct meed_bench_machine *machine);
void meed_bench_machine_close(struct meed_bench_machine *machine);
/* Measures the ceilings once and prints them as rows of `suite`. */
MEED_MUST_CHECK enum meed_status meed_bench_machine_probe(struct meed_bench_machine *machine,
                                                          const char *suite);
/* Bytes of host memory that can be had without swapping; 0 where the system does not say. */
double meed_bench_free_memory(void);
/* Seconds below which an op of so many FLOPs and bytes cannot go on a probed machine. */
double meed_bench_floor_s(const struct meed_bench_machine *machine, enum meed_dtype dtype,
                          double flops, double bytes);

/* --- operands ---------------------------------------------------------------------------------
 * Device memory of the backend; content depends on the stream alone, so two backends hold the same.
 * NULL on failure (meed_last_error says why). Freed with be->free. */
void *meed_bench_values(const struct meed_backend *be, int64_t count, enum meed_dtype dtype,
                        uint64_t stream, double scale);
int32_t *meed_bench_ints(const struct meed_backend *be, const int32_t *host, int64_t count);
/* A dense matrix of such values; data NULL on failure. */
struct meed_mat meed_bench_mat(const struct meed_backend *be, int64_t rows, int64_t cols,
                               enum meed_dtype dtype, uint64_t stream, double scale);
/* host [count] fp32. */
MEED_MUST_CHECK enum meed_status meed_bench_download(const struct meed_backend *be,
                                                     const void *device, int64_t count,
                                                     enum meed_dtype dtype, float *host);

#endif
