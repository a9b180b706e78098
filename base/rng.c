/* See rng.h. */
#include "base/rng.h"

#include <math.h>

void meed_rng_block(uint64_t key, uint64_t index, uint32_t out[4])
{
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    uint32_t key0 = (uint32_t)key;
    uint32_t key1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53u * counter[0];
        uint64_t product1 = (uint64_t)0xCD9E8D57u * counter[2];
        uint32_t next[4] = {(uint32_t)(product1 >> 32) ^ counter[1] ^ key0, (uint32_t)product1,
                            (uint32_t)(product0 >> 32) ^ counter[3] ^ key1, (uint32_t)product0};
        for (int i = 0; i < 4; i++) {
            counter[i] = next[i];
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = counter[i];
    }
}

/* SplitMix64's finaliser: a bijection that spreads every input bit. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

struct meed_rng meed_rng_stream(uint64_t seed, const char *name, uint64_t sub)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a of the name */
    for (const char *c = name; *c; c++) {
        hash = (hash ^ (unsigned char)*c) * 0x100000001B3u;
    }
    struct meed_rng rng = {mix(mix(mix(seed + 0x9E3779B97F4A7C15u) ^ hash) + sub), 0};
    return rng;
}

uint64_t meed_rng_u64(struct meed_rng *rng)
{
    uint32_t block[4];
    meed_rng_block(rng->key, rng->index++, block);
    return ((uint64_t)block[1] << 32) | block[0];
}

uint64_t meed_rng_below(struct meed_rng *rng, uint64_t bound)
{
    uint64_t reject_below = (0 - bound) % bound; /* 2^64 mod bound */
    for (;;) {
        uint64_t draw = meed_rng_u64(rng);
        if (draw >= reject_below) {
            return draw % bound;
        }
    }
}

double meed_rng_unit(struct meed_rng *rng)
{
    return (double)(meed_rng_u64(rng) >> 11) * 0x1p-53;
}

double meed_rng_normal(struct meed_rng *rng)
{
    double radius = sqrt(-2.0 * log(1.0 - meed_rng_unit(rng)));
    return radius * cos(6.283185307179586477 * meed_rng_unit(rng));
}

void meed_rng_shuffle(struct meed_rng *rng, int64_t *values, int64_t count)
{
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = (int64_t)meed_rng_below(rng, (uint64_t)i + 1);
        int64_t kept = values[i];
        values[i] = values[j];
        values[j] = kept;
    }
}
