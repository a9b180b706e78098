/* Arithmetic of compressed values: bf16, int8 and int4 blocks, top-k. No bytes of strangers here.
 *
 * Blocks are 2^shift consecutive flat positions with one bf16 scale = max|x| / levels. Rounding is
 * to nearest, ties to even, so that a block of decoded values quantises to itself again: encoding
 * is idempotent and one value has one byte string. A block whose scale would be subnormal is the
 * zero block: scale 0, all codes 0. Top-k keeps the k largest magnitudes; among equals the lowest
 * index wins, on every machine. The loops are plain C that compilers vectorise (bit pattern
 * arithmetic, no branches): encoding must cost below a percent of the training it ships.
 */
#ifndef MEED_PROTO_QUANTIZE_H
#define MEED_PROTO_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum { MEED_QUANTIZE_LEVELS_INT8 = 127, MEED_QUANTIZE_LEVELS_INT4 = 7 };

uint16_t meed_quantize_bf16(float value); /* nearest even; value finite */
float meed_quantize_from_bf16(uint16_t bits);

/* True if all are finite and below MEED_LIMIT_VALUE_MAGNITUDE. */
bool meed_quantize_in_range(const float *values, int64_t count);
float meed_quantize_max_abs(const float *values, int64_t count);

/* The bf16 scale of a block whose largest magnitude is max_abs; 0 for the zero block. */
uint16_t meed_quantize_scale(float max_abs, int levels);
/* codes[i] = clamp(round(values[i] / scale)), 0 where scale is 0. */
void meed_quantize_codes(const float *values, int64_t count, uint16_t scale, int levels,
                         int8_t *codes);
void meed_quantize_decode(const int8_t *codes, int64_t count, uint16_t scale, float *values);

/* Ascending flat indices of the `keep` largest magnitudes among count finite values; zeros are
 * never kept, so *kept may be smaller. kept_indices must hold `keep`. */
void meed_quantize_top_k(const float *values, int64_t count, int64_t keep, uint32_t *kept_indices,
                         int64_t *kept);

MEED_END_C
#endif
