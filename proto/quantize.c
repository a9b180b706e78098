/* See quantize.h. Bit patterns of non-negative floats order like integers, which gives the range
 * check, the maximum and the selection without a branch a value. */
#include "proto/quantize.h"

#include <string.h>

#include "proto/limits.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint32_t magnitude_bits(float value)
{
    return bits_of(value) & 0x7FFFFFFFu;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t meed_quantize_bf16(float value)
{
    uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

float meed_quantize_from_bf16(uint16_t bits)
{
    return from_bits((uint32_t)bits << 16);
}

/* Eight lanes, so that the maximum of one value does not wait for the one before. */
static uint32_t max_magnitude(const float *values, int64_t count)
{
    uint32_t lanes[8] = {0}, most = 0;
    int64_t whole = count & ~INT64_C(7);
    for (int64_t i = 0; i < whole; i += 8) {
        for (int lane = 0; lane < 8; lane++) {
            uint32_t bits = magnitude_bits(values[i + lane]);
            lanes[lane] = bits > lanes[lane] ? bits : lanes[lane];
        }
    }
    for (int64_t i = whole; i < count; i++) {
        uint32_t bits = magnitude_bits(values[i]);
        most = bits > most ? bits : most;
    }
    for (int lane = 0; lane < 8; lane++) {
        most = lanes[lane] > most ? lanes[lane] : most;
    }
    return most;
}

bool meed_quantize_in_range(const float *values, int64_t count)
{
    return max_magnitude(values, count) < bits_of(MEED_LIMIT_VALUE_MAGNITUDE);
}

float meed_quantize_max_abs(const float *values, int64_t count)
{
    return from_bits(max_magnitude(values, count));
}

uint16_t meed_quantize_scale(float max_abs, int levels)
{
    uint16_t scale = meed_quantize_bf16(max_abs / (float)levels);
    return scale < 0x0080 ? 0 : scale; /* below 2^-126: the zero block */
}

/* Adding and subtracting 1.5·2^23 rounds to nearest even, as the unit does, without a call. The
 * scale's rounding moves max/scale by less than half a level, so the largest code is the level. */
void meed_quantize_codes(const float *values, int64_t count, uint16_t scale, int levels,
                         int8_t *codes)
{
    if (scale == 0) {
        memset(codes, 0, (size_t)count);
        return;
    }
    const float magic = 12582912.0f;
    const float step = meed_quantize_from_bf16(scale);
    const float top = (float)levels;
    for (int64_t i = 0; i < count; i++) {
        float x = values[i] / step;
        x = x > top ? top : x;
        x = x < -top ? -top : x;
        codes[i] = (int8_t)((x + magic) - magic);
    }
}

void meed_quantize_decode(const int8_t *codes, int64_t count, uint16_t scale, float *values)
{
    const float step = meed_quantize_from_bf16(scale);
    for (int64_t i = 0; i < count; i++) {
        values[i] = (float)codes[i] * step;
    }
}

/* One digit of the radix selection: the histogram of `bits` bits at `shift` among the magnitudes
 * whose higher bits equal `prefix`. Four interleaved counters hide the store-to-load latency of
 * equal digits. Returns the digit in which the keep-th largest lies and lowers keep by what is
 * larger. */
static uint32_t select_digit(const float *values, int64_t count, int shift, int bits,
                             uint32_t prefix, int64_t *keep)
{
    enum { DIGITS = 2048 };
    static MEED_THREAD_LOCAL uint32_t counts[4][DIGITS];
    memset(counts, 0, sizeof counts);
    const uint32_t mask = (1u << bits) - 1;
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude = magnitude_bits(values[i]);
        if (shift + bits >= 31 || magnitude >> (shift + bits) == prefix) {
            counts[i & 3][magnitude >> shift & mask]++;
        }
    }
    uint32_t digit = mask;
    for (;; digit--) {
        int64_t here =
            (int64_t)counts[0][digit] + counts[1][digit] + counts[2][digit] + counts[3][digit];
        if (here >= *keep || digit == 0) {
            return digit;
        }
        *keep -= here;
    }
}

void meed_quantize_top_k(const float *values, int64_t count, int64_t keep, uint32_t *kept_indices,
                         int64_t *kept)
{
    *kept = 0;
    if (keep <= 0) {
        return;
    }
    keep = keep > count ? count : keep;
    int64_t ties = keep;
    uint32_t threshold = select_digit(values, count, 20, 11, 0, &ties);
    threshold = threshold << 10 | select_digit(values, count, 10, 10, threshold, &ties);
    threshold = threshold << 10 | select_digit(values, count, 0, 10, threshold, &ties);
    if (threshold == 0) { /* fewer than keep are not zero */
        ties = 0;
    }
    int64_t taken = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude = magnitude_bits(values[i]);
        if (magnitude > threshold || (magnitude == threshold && ties > 0)) {
            ties -= magnitude == threshold;
            kept_indices[taken++] = (uint32_t)i;
        }
    }
    *kept = taken;
}
