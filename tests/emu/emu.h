/* The emulator as tests see it: how blocks and threads are ordered, when copies land, what failed.
 *
 * A mode is one legal way to run a launch. Seed 0 starts threads in the order of their index and
 * resumes them first in, first out; any other seed shuffles blocks, threads and resumes, repeatably
 * (the generator is seeded by seed and block). Copies land as early or as late as CUDA allows. A
 * correct kernel gives the same bits in every mode.
 *
 * Settings come from the environment, read when the first launch or meed_emu_mode_list asks:
 *   MEED_EMU_SEED    one seed; absent: seeds 0 … MEED_EMU_SEEDS − 1 (4)
 *   MEED_EMU_COPIES  early or late; absent: both
 *   MEED_EMU_FULL    large shapes in every mode, minutes a family
 */
#ifndef MEED_EMU_EMU_H
#define MEED_EMU_EMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

struct meed_emu_mode {
    uint64_t seed;
    bool late; /* copies */
};
enum { MEED_EMU_MODES = 64 };
/* The modes that the environment asks for, in the order to run them. */
int meed_emu_mode_list(struct meed_emu_mode modes[MEED_EMU_MODES]);
/* For all launches to come. */
void meed_emu_mode_set(struct meed_emu_mode mode);

enum meed_emu_checker { MEED_EMU_PLAIN, MEED_EMU_ADDRESS, MEED_EMU_THREAD };
/* What the engine and its kernels were built under. */
enum meed_emu_checker meed_emu_checker(void);

struct meed_emu_count {
    int64_t launches;
    int64_t blocks;
    int64_t threads;
    int64_t copies;   /* asynchronous, of 16 bytes */
    int64_t products; /* mma */
};
/* Since the program began. */
struct meed_emu_count meed_emu_counted(void);

/* From now on the emulated cuBLASLt has no kernel for any product, until told otherwise. */
void meed_emu_products_refuse(bool refuse);

MEED_END_C
#endif
