/* Networks over golden models, random adapters and batches: what the tests of net*.c share. Like
 * golden.h, functions fail the running cmocka test rather than return statuses. */
#ifndef MEED_SUPPORT_SMALL_NET_H
#define MEED_SUPPORT_SMALL_NET_H

#include "tests/support/golden.h"

struct small_machine {
    struct meed_pool *pool;
    struct meed_backend *be;
};
/* NULL, the best instruction set, unless a test chooses. */
extern const char *small_machine_isa;
void small_machine_open(int threads, struct small_machine *machine);
void small_machine_close(struct small_machine *machine);

/* A network sized for the golden batch. */
struct meed_net *small_net(const struct small_machine *machine, const struct golden *golden,
                           enum meed_dtype dtype, bool backward,
                           const struct meed_adapter *const *adapters, int32_t count);
/* Uniform factors in ±size; the same seed gives the same values for a module, whatever else the
 * adapter has. */
struct meed_adapter *small_adapter(const struct golden *golden, meed_proj_set targets, int32_t rank,
                                   uint64_t seed, float size);
/* Host copy of device floats; free with meed_heap_free. */
float *small_fetch(const struct meed_backend *be, const void *device, size_t count);
/* Host copy of the flat gradient of −mean log p; free with meed_heap_free. */
float *small_gradient(const struct small_machine *machine, struct meed_net *net,
                      const struct meed_batch *batch, uint64_t step_key);

#endif
