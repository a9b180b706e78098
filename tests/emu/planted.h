/* Kernels with one fault each, and the same kernels without: what proves that the emulator sees.
 *
 * A detector that has never fired is decoration. Each row of planted.def is a small kernel of a
 * kind that the backend has; planted_<name>(true) launches it with its fault, (false) without.
 */
#ifndef MEED_EMU_PLANTED_H
#define MEED_EMU_PLANTED_H

#include <stdbool.h>
#include "base/compat.h"

MEED_BEGIN_C

enum planted_outcome { PLANTED_RIGHT, PLANTED_WRONG, PLANTED_FAILED };
#define PLANTED(name, when, plain, address, thread) enum planted_outcome planted_##name(bool fault);
#include "tests/emu/planted.def"
#undef PLANTED

MEED_END_C
#endif
