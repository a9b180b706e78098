/* tests/emu/test_probes.c on hardware: there is one mode, and nobody chooses it. */
#include "tests/emu/emu.h"

void meed_emu_mode_set(struct meed_emu_mode mode)
{
    (void)mode;
}
