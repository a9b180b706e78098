/* The machine on which tests of the engine run when they are linked against the emulated CUDA
 * backend: whole models, forward, backward and decode, with the goldens and bounds of the CPU.
 *
 * The tests are those of the CPU, built a second time. They open their backend by
 * meed_backend_open_cpu, and the linker sends that name here (--wrap). Every machine takes the next
 * mode of the environment's list (tests/emu/emu.h): what a test says does not depend on the thread
 * count does not depend on the mode either. Of the CPU's instruction sets it stands for the last,
 * "generic", so that tests which walk the list run once.
 */
#include <string.h>
#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"

enum meed_status __wrap_meed_backend_open_cpu(struct meed_pool *pool, const char *isa,
                                              struct meed_backend **backend);

enum meed_status __wrap_meed_backend_open_cpu(struct meed_pool *pool, const char *isa,
                                              struct meed_backend **backend)
{
    static int opened;
    struct meed_emu_mode modes[MEED_EMU_MODES];
    struct meed_cuda_caller caller = {MEED_RELEASE, sizeof(struct meed_backend)};
    int count = meed_emu_mode_list(modes);
    (void)pool;
    if (isa && strcmp(isa, "generic") != 0) {
        return MEED_FAIL(MEED_UNSUPPORTED, "the emulated device has no instruction set %s", isa);
    }
    MEED_ASSERT(count > 0);
    meed_emu_mode_set(modes[opened++ % count]);
    return meed_cuda_open(caller, 0, backend);
}
