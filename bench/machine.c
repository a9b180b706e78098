/* See machine.h. */
#include "bench/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/rng.h"
#include "base/threads.h"
#include "bench/harness.h"

enum {
    GEMM_SIDE_CPU = 2048,
    GEMM_SIDE_DEVICE = 8192,
    GEMM_SIDE_SMOKE = 128,
    COPY_COLS = 4096,
    PROBE_TURNS = 5
};

enum meed_status meed_bench_machine_open(const char *device, int threads,
                                         struct meed_bench_machine *machine)
{
    machine->device = device;
    machine->threads = threads;
    MEED_TRY(meed_pool_create(threads, &machine->pool));
    MEED_TRY(meed_backend_open_cpu(machine->pool, "generic", &machine->oracle));
    return meed_backend_open(device, machine->pool, &machine->be);
}

void meed_bench_machine_close(struct meed_bench_machine *machine)
{
    meed_backend_close(machine->be);
    meed_backend_close(machine->oracle);
    meed_pool_destroy(machine->pool);
}

double meed_bench_free_memory(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    double kilobytes = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %lf kB", &kilobytes) == 1) {
            break;
        }
    }
    if (file) {
        fclose(file);
    }
    return 1024 * kilobytes;
}

double meed_bench_floor_s(const struct meed_bench_machine *machine, enum meed_dtype dtype,
                          double flops, double bytes)
{
    double by_flops = flops / machine->gemm_flops[dtype];
    double by_bytes = bytes / machine->copy_bytes;
    return MEED_MAX(by_flops, by_bytes);
}

/* --- operands --------------------------------------------------------------------------------- */

/* Blocks of 4,096 random values repeated: generating gigabytes would outlast the measurement. */
static void fill(void *host, int64_t count, enum meed_dtype dtype, uint64_t stream, double scale)
{
    struct meed_rng rng = meed_rng_stream(1, "bench operand", stream);
    for (int64_t i = 0; i < count; i++) {
        if (dtype == MEED_DTYPE_F32) {
            float *values = host;
            values[i] = i < 4096 ? (float)(scale * (2 * meed_rng_unit(&rng) - 1))
                                 : values[(i * 31 + i / 4096) % 4096];
        } else {
            meed_bf16 *values = host;
            values[i] = i < 4096
                            ? meed_bf16_from_f32((float)(scale * (2 * meed_rng_unit(&rng) - 1)))
                            : values[(i * 31 + i / 4096) % 4096];
        }
    }
}

static void *upload(const struct meed_backend *be, const void *host, size_t bytes)
{
    void *device = NULL;
    if (be->alloc(be, bytes, &device) != MEED_OK) {
        return NULL;
    }
    if (be->copy_to(be, device, host, bytes) != MEED_OK || be->sync(be) != MEED_OK) {
        be->free(be, device);
        return NULL;
    }
    return device;
}

void *meed_bench_values(const struct meed_backend *be, int64_t count, enum meed_dtype dtype,
                        uint64_t stream, double scale)
{
    void *host = meed_heap_alloc((size_t)count, meed_dtype_bytes(dtype));
    if (!host) {
        return NULL;
    }
    fill(host, count, dtype, stream, scale);
    void *device = upload(be, host, (size_t)count * meed_dtype_bytes(dtype));
    meed_heap_free(host);
    return device;
}

int32_t *meed_bench_ints(const struct meed_backend *be, const int32_t *host, int64_t count)
{
    return upload(be, host, (size_t)count * sizeof *host);
}

struct meed_mat meed_bench_mat(const struct meed_backend *be, int64_t rows, int64_t cols,
                               enum meed_dtype dtype, uint64_t stream, double scale)
{
    return meed_mat_view(meed_bench_values(be, rows * cols, dtype, stream, scale), rows, cols, cols,
                         dtype);
}

enum meed_status meed_bench_download(const struct meed_backend *be, const void *device,
                                     int64_t count, enum meed_dtype dtype, float *host)
{
    if (dtype == MEED_DTYPE_F32) {
        MEED_TRY(be->copy_from(be, host, device, (size_t)count * sizeof *host));
        return be->sync(be);
    }
    meed_bf16 *half = meed_heap_alloc((size_t)count, sizeof *half);
    enum meed_status st = MEED_OK;
    if (!half) {
        return MEED_NOMEM;
    }
    MEED_TRY_OUT(be->copy_from(be, half, device, (size_t)count * sizeof *half));
    MEED_TRY_OUT(be->sync(be));
    for (int64_t i = 0; i < count; i++) {
        host[i] = meed_bf16_to_f32(half[i]);
    }
out:
    meed_heap_free(half);
    return st;
}

/* --- the probes ------------------------------------------------------------------------------- */

struct probe {
    const struct meed_backend *be;
    struct meed_mat a, b, c;
    int32_t *ids;
};

static void probe_clear(struct probe *probe)
{
    probe->be->forget(probe->be, probe->b.data);
    probe->be->free(probe->be, probe->a.data);
    probe->be->free(probe->be, probe->b.data);
    probe->be->free(probe->be, probe->c.data);
    probe->be->free(probe->be, probe->ids);
}

static enum meed_status run_gemm(void *user)
{
    struct probe *probe = user;
    probe->be->matmul(probe->be, MEED_MATMUL_NT, probe->a, probe->b, false, probe->c);
    return probe->be->sync(probe->be);
}

static enum meed_status run_copy(void *user)
{
    struct probe *probe = user;
    probe->be->embed(probe->be, probe->a, 1.0f, probe->ids, probe->c);
    return probe->be->sync(probe->be);
}

static enum meed_status race_best(meed_bench_fn run, struct probe *probe, double *best_s)
{
    struct meed_bench_contestant contestant = {"probe", run, probe};
    struct meed_bench_result result;
    MEED_TRY(meed_bench_race(&contestant, 1, PROBE_TURNS, &result));
    *best_s = result.min_s[0];
    return MEED_OK;
}

static enum meed_status probe_gemm(struct meed_bench_machine *machine, enum meed_dtype dtype)
{
    int64_t side = machine->smoke             ? GEMM_SIDE_SMOKE
                   : machine->be->host_memory ? GEMM_SIDE_CPU
                                              : GEMM_SIDE_DEVICE;
    struct probe probe = {.be = machine->be};
    double seconds = 0;
    enum meed_status st = MEED_OK;
    probe.a = meed_bench_mat(probe.be, side, side, dtype, 1, 1);
    probe.b = meed_bench_mat(probe.be, side, side, dtype, 2, 0.05);
    probe.c = meed_bench_mat(probe.be, side, side, dtype, 3, 0);
    if (!probe.a.data || !probe.b.data || !probe.c.data) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(race_best(run_gemm, &probe, &seconds));
    machine->gemm_flops[dtype] = 2.0 * (double)side * (double)side * (double)side / seconds;
out:
    probe_clear(&probe);
    return st;
}

static enum meed_status probe_copy(struct meed_bench_machine *machine)
{
    int64_t rows = machine->smoke             ? 1 << 6
                   : machine->be->host_memory ? 1 << 14  /* 256 MiB */
                                              : 1 << 16; /* 1 GiB */
    struct probe probe = {.be = machine->be};
    double seconds = 0;
    enum meed_status st = MEED_OK;
    int32_t *ids = meed_heap_alloc((size_t)rows, sizeof *ids);
    probe.a = meed_bench_mat(probe.be, rows, COPY_COLS, MEED_DTYPE_F32, 1, 1);
    probe.c = meed_bench_mat(probe.be, rows, COPY_COLS, MEED_DTYPE_F32, 2, 0);
    for (int64_t i = 0; ids && i < rows; i++) {
        ids[i] = (int32_t)i;
    }
    probe.ids = ids ? meed_bench_ints(probe.be, ids, rows) : NULL;
    if (!probe.a.data || !probe.c.data || !probe.ids) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(race_best(run_copy, &probe, &seconds));
    machine->copy_bytes = 2.0 * (double)rows * COPY_COLS * 4 / seconds;
out:
    probe_clear(&probe);
    meed_heap_free(ids);
    return st;
}

enum meed_status meed_bench_machine_probe(struct meed_bench_machine *machine, const char *suite)
{
    if (machine->probed) {
        return MEED_OK;
    }
    MEED_TRY(probe_gemm(machine, MEED_DTYPE_F32));
    MEED_TRY(probe_gemm(machine, MEED_DTYPE_BF16));
    MEED_TRY(probe_copy(machine));
    machine->probed = true;
    meed_bench_row(suite, "ceiling: GEMM f32", 1e-12 * machine->gemm_flops[MEED_DTYPE_F32],
                   "TFLOP/s", 0, '>');
    meed_bench_row(suite, "ceiling: GEMM bf16", 1e-12 * machine->gemm_flops[MEED_DTYPE_BF16],
                   "TFLOP/s", 0, '>');
    meed_bench_row(suite, "ceiling: copy", 1e-9 * machine->copy_bytes, "GB/s", 0, '>');
    return MEED_OK;
}
