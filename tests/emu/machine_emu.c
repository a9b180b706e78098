/* The machine on which tests of the engine run when they are linked against the emulated CUDA
 * backend: whole models, forward, backward and decode, with the formulas and goldens of the CPU.
 *
 * Each machine runs in the next mode of the environment's list (tests/emu/emu.h), so a program of
 * several tests sees several; results that must not depend on the thread count must then not depend
 * on the mode either.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"
#include "tests/support/small_net.h"

const char *small_machine_isa;

void small_machine_open(int threads, struct small_machine *machine)
{
    static int opened;
    struct meed_emu_mode modes[MEED_EMU_MODES];
    struct meed_cuda_caller caller = {MEED_RELEASE, sizeof(struct meed_backend)};
    int count = meed_emu_mode_list(modes);
    (void)threads;
    assert_true(count > 0);
    meed_emu_mode_set(modes[opened++ % count]);
    machine->pool = NULL;
    golden_ok(meed_cuda_open(caller, 0, &machine->be));
}

void small_machine_close(struct small_machine *machine)
{
    meed_backend_close(machine->be);
}
