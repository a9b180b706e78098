/* The machine on which the engine's tests run when they are built for a GPU: device 0.
 *
 * They open their backend by meed_backend_open_cpu and the linker sends that name here (--wrap), as
 * for the emulated device. Of the CPU's instruction sets the GPU stands for "generic", so that
 * tests which walk the list run once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/backend.h"

enum meed_status __wrap_meed_backend_open_cpu(struct meed_pool *pool, const char *isa,
                                              struct meed_backend **backend);

enum meed_status __wrap_meed_backend_open_cpu(struct meed_pool *pool, const char *isa,
                                              struct meed_backend **backend)
{
    if (isa && strcmp(isa, "generic") != 0) {
        return MEED_FAIL(MEED_UNSUPPORTED, "a GPU has no instruction set %s", isa);
    }
    if (meed_backend_open("cuda", pool, backend) != MEED_OK) {
        fprintf(stderr, "%s\n", meed_last_error()); /* a test that skips what it cannot open lies */
        exit(1);
    }
    return MEED_OK;
}
