/* The codec under deterministic mutations of good messages; see fuzz_codec.c for what must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"
#include "fuzz_codec.c"

/* A plausible wire message: fields in order with the usual types, so that many mutants are close to
 * something valid. The first byte is the message's number. */
static size_t make_message(struct meed_rng *rng, uint8_t *out)
{
    size_t size = 0;
    out[size++] = (uint8_t)meed_rng_u64(rng);
    uint32_t fields = 1 + (uint32_t)meed_rng_below(rng, 12);
    for (uint32_t f = 1; f <= fields; f++) {
        static const uint8_t wire_types[] = {0, 0, 1, 2, 2, 2, 5};
        uint8_t type = wire_types[meed_rng_below(rng, sizeof wire_types)];
        out[size++] = (uint8_t)(f << 3 | type);
        size_t bytes = type == 0 ? 1 : type == 1 ? 8 : type == 5 ? 4 : 0;
        if (type == 2) {
            static const uint8_t lengths[] = {0, 1, 3, 12, 32, 64};
            bytes = lengths[meed_rng_below(rng, sizeof lengths)];
            out[size++] = (uint8_t)bytes;
        }
        for (size_t i = 0; i < bytes; i++) {
            out[size++] = type == 2 && bytes <= 12 ? (uint8_t)('a' + meed_rng_below(rng, 26))
                                                   : (uint8_t)meed_rng_below(rng, 64);
        }
    }
    return size;
}

static void codec_survives_mutations(void **state)
{
    (void)state;
    static uint8_t bytes[4096];
    struct meed_rng rng = meed_rng_stream(1, "codec", 0);
    for (int i = 0; i < 60000; i++) {
        size_t size = make_message(&rng, bytes);
        for (uint64_t edits = meed_rng_below(&rng, 4); edits > 0; edits--) {
            bytes[meed_rng_below(&rng, size)] ^= (uint8_t)(1u << meed_rng_below(&rng, 8));
        }
        LLVMFuzzerTestOneInput(bytes, size - (size_t)meed_rng_below(&rng, 2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codec_survives_mutations)};
    return cmocka_run_group_tests_name("codec_mutations", tests, NULL, NULL);
}
