/* Kernels that ask a wrapper of kernels/cuda/port.cuh one question each, and what they leave on the
 * host: the registers of every lane, raw. The formulas that judge them are in test_probes.c. */
#ifndef MEED_EMU_PROBES_H
#define MEED_EMU_PROBES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

enum { PROBE_LANES = 32, PROBE_ROWS = 32, PROBE_COLUMNS = 8 };

/* r[lane][matrix] of ldmatrix over 8×8 matrices stacked in shared memory whose element i is i. */
void probe_ldmatrix(int matrices, bool transposed, uint32_t r[PROBE_LANES][4]);
/* d += a·b, one mma, operands given as matrices [16,16], [16,8] and loaded by ldmatrix. */
void probe_mma(const uint16_t a[256], const uint16_t b[128], float d[128]);

enum probe_shuffle { PROBE_IDX, PROBE_UP, PROBE_DOWN, PROBE_XOR };
/* What each lane gets when every lane offers its own number. */
void probe_shuffle(enum probe_shuffle kind, int operand, int width, int got[PROBE_LANES]);
/* Sixteen bytes of shared memory after a copy of the first `bytes` of 1, 2, … 16. */
void probe_copy(int bytes, unsigned char got[16]);
/* Votes of `lanes` lanes for the odd ones, in a block of that size. */
uint32_t probe_ballot(int lanes);
/* The CUDA error code of an empty launch. */
int probe_launch(unsigned grid_y, unsigned block_x, unsigned block_z);

MEED_END_C
#endif
