/* The CPU backend: memory functions, one table of twins per instruction set, and the choice.
 *
 * Compiled once, for the baseline processor: nothing here may run an instruction that the machine
 * lacks before the choice is made. The tables are filled from ops.def, so a twin that is missing
 * for one instruction set is a link error. "Device" memory is the host's: 64-byte aligned, and
 * copies are memcpy. Whatever changes a weight's memory through the table (copy_to, zero, free,
 * lora_pack, lora_merge) drops its packed copy itself; forget() is for writes past the table.
 */
#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/buf.h"
#include "kernels/cpu/matmul_onednn.h"

static void cpu_forget(const struct meed_backend *be, const void *weight)
{
    meed_matmul_onednn_forget(be->state, weight);
}

static enum meed_status cpu_alloc(const struct meed_backend *be, size_t bytes, void **block)
{
    (void)be;
    size_t rounded = (MEED_MAX(bytes, 1) + 63) / 64 * 64;
    void *made = rounded < bytes ? NULL : aligned_alloc(64, rounded);
    if (!made) {
        long pages = sysconf(_SC_AVPHYS_PAGES);
        long page_bytes = sysconf(_SC_PAGESIZE);
        return MEED_FAIL(MEED_DEVICE_NOMEM,
                         "cannot allocate %zu bytes of memory (%lld available); use a smaller "
                         "batch or model",
                         bytes, (long long)pages * page_bytes);
    }
    memset(made, 0, rounded);
    *block = made;
    return MEED_OK;
}

static void cpu_free(const struct meed_backend *be, void *block)
{
    if (block) {
        cpu_forget(be, block);
    }
    free(block);
}

static enum meed_status cpu_copy_to(const struct meed_backend *be, void *device, const void *host,
                                    size_t bytes)
{
    if (bytes > 0) {
        cpu_forget(be, device);
        memmove(device, host, bytes);
    }
    return MEED_OK;
}

static enum meed_status cpu_copy_from(const struct meed_backend *be, void *host, const void *device,
                                      size_t bytes)
{
    (void)be;
    if (bytes > 0) {
        memmove(host, device, bytes);
    }
    return MEED_OK;
}

static void cpu_zero(const struct meed_backend *be, void *device, size_t bytes)
{
    if (bytes > 0) {
        cpu_forget(be, device);
        memset(device, 0, bytes);
    }
}

static void cpu_copy_within(const struct meed_backend *be, void *to, const void *from, size_t bytes)
{
    if (bytes > 0) {
        cpu_forget(be, to);
        memcpy(to, from, bytes);
    }
}

static enum meed_status cpu_sync(const struct meed_backend *be)
{
    (void)be;
    return MEED_OK;
}

static void cpu_destroy(struct meed_backend *be)
{
    meed_matmul_onednn_destroy(be->state);
    meed_heap_free(be);
}

#define MEED_OP(name, text) meed_op_##name##_fn meed_cpu_##name##_generic;
#include "kernels/ops.def"
#undef MEED_OP
static void fill_generic(struct meed_backend *be)
{
    be->name = "cpu-generic";
#define MEED_OP(name, text) be->name = meed_cpu_##name##_generic;
#include "kernels/ops.def"
#undef MEED_OP
}

#if defined(__x86_64__)
#define MEED_OP(name, text)                                                                        \
    meed_op_##name##_fn meed_cpu_##name##_avx2;                                                    \
    meed_op_##name##_fn meed_cpu_##name##_avx512;
#include "kernels/ops.def"
#undef MEED_OP
static void fill_avx2(struct meed_backend *be)
{
    be->name = "cpu-avx2";
#define MEED_OP(name, text) be->name = meed_cpu_##name##_avx2;
#include "kernels/ops.def"
#undef MEED_OP
}
static void fill_avx512(struct meed_backend *be)
{
    be->name = "cpu-avx512";
#define MEED_OP(name, text) be->name = meed_cpu_##name##_avx512;
#include "kernels/ops.def"
#undef MEED_OP
}
static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma");
}
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#endif

static bool has_always(void)
{
    return true;
}

static const struct {
    const char *name;
    bool (*supported)(void);
    void (*fill)(struct meed_backend *be);
} isas[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, fill_avx512},
    {"avx2", has_avx2, fill_avx2},
#endif
    {"generic", has_always, fill_generic},
};

enum meed_status meed_backend_open_cpu(struct meed_pool *pool, const char *isa,
                                       struct meed_backend **backend)
{
    size_t chosen = MEED_COUNT(isas);
    for (size_t i = 0; i < MEED_COUNT(isas) && chosen == MEED_COUNT(isas); i++) {
        if (isa ? strcmp(isa, isas[i].name) == 0 : isas[i].supported()) {
            chosen = i;
        }
    }
    if (chosen == MEED_COUNT(isas)) {
        return MEED_FAIL(MEED_ARG, "instruction set '%s' is not one of avx512, avx2, generic", isa);
    }
    if (!isas[chosen].supported()) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "this processor has no %s; leave the instruction set out to take the best",
                         isa);
    }
    struct meed_backend *be = meed_heap_alloc(1, sizeof *be);
    if (!be) {
        return MEED_NOMEM;
    }
    struct meed_matmul_onednn *state = NULL;
    enum meed_status st = meed_matmul_onednn_create(&state);
    if (st != MEED_OK) {
        meed_heap_free(be);
        return st;
    }
    isas[chosen].fill(be);
    be->host_memory = true;
    be->pool = pool;
    be->state = state;
    be->alloc = cpu_alloc;
    be->free = cpu_free;
    be->copy_to = cpu_copy_to;
    be->copy_from = cpu_copy_from;
    be->zero = cpu_zero;
    be->copy_within = cpu_copy_within;
    be->forget = cpu_forget;
    be->sync = cpu_sync;
    be->destroy = cpu_destroy;
    *backend = be;
    return MEED_OK;
}

void meed_backend_close(struct meed_backend *backend)
{
    if (backend) {
        backend->destroy(backend);
    }
}
