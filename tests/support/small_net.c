/* See small_net.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/small_net.h"

#include "base/buf.h"
#include "base/rng.h"
#include "base/threads.h"

const char *small_machine_isa;

void small_machine_open(int threads, struct small_machine *machine)
{
    golden_ok(meed_pool_create(threads, &machine->pool));
    golden_ok(meed_backend_open_cpu(machine->pool, small_machine_isa, &machine->be));
}

void small_machine_close(struct small_machine *machine)
{
    meed_backend_close(machine->be);
    meed_pool_destroy(machine->pool);
}

struct meed_net *small_net(const struct small_machine *machine, const struct golden *golden,
                           enum meed_dtype dtype, bool backward,
                           const struct meed_adapter *const *adapters, int32_t count)
{
    struct meed_net_options options = {
        .dtype = dtype,
        .max_rows = golden->batch->rows,
        .max_sequences = golden->batch->sequences,
        .backward = backward,
        .adapters = adapters,
        .adapter_count = count,
    };
    struct meed_net *net = NULL;
    golden_ok(meed_net_create(machine->be, golden->checkpoint, &options, &net));
    return net;
}

struct meed_adapter *small_adapter(const struct golden *golden, meed_proj_set targets, int32_t rank,
                                   uint64_t seed, float size)
{
    struct meed_lora_config lora = {.rank = rank, .alpha = (float)rank, .targets = targets};
    struct meed_adapter *adapter = NULL;
    golden_ok(meed_adapter_create(&golden->checkpoint->config, &lora, &adapter));
    for (int32_t i = 0; i < adapter->module_count; i++) {
        struct meed_adapter_module *module = &adapter->modules[i];
        uint64_t place = (uint64_t)module->layer * MEED_PROJ_COUNT + (uint64_t)module->proj;
        struct meed_rng rng = meed_rng_stream(seed, "small adapter", place);
        for (int64_t j = 0; j < module->r * module->k; j++) {
            module->a[j] = size * (float)(2 * meed_rng_unit(&rng) - 1);
        }
        for (int64_t j = 0; j < module->r * module->n; j++) {
            module->b[j] = size * (float)(2 * meed_rng_unit(&rng) - 1);
        }
    }
    return adapter;
}

float *small_fetch(const struct meed_backend *be, const void *device, size_t count)
{
    float *host = meed_heap_alloc(count, sizeof *host);
    assert_non_null(host);
    golden_ok(be->copy_from(be, host, device, count * sizeof *host));
    golden_ok(be->sync(be));
    return host;
}

float *small_gradient(const struct small_machine *machine, struct meed_net *net,
                      const struct meed_batch *batch, uint64_t step_key)
{
    const struct meed_backend *be = machine->be;
    size_t count = (size_t)meed_net_master_count(net);
    float weight[GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH], logprob[MEED_COUNT(weight)];
    void *device = NULL;
    golden_ok(be->alloc(be, count * sizeof(float), &device));
    for (int32_t m = 0; m < batch->loss_rows; m++) {
        weight[m] = 1.0f / (float)batch->loss_rows;
    }
    golden_ok(meed_net_backward(net, batch, weight, step_key, logprob, device, NULL));
    float *host = small_fetch(be, device, count);
    be->free(be, device);
    return host;
}
