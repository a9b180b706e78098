/* The update decoder under 60,000 deterministic mutations of good updates: what the fuzzer does for
 * minutes, this repeats in seconds and on every run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"
#include "fuzz_update.c"

/* A good update in the fuzzer's own form: two bytes of choice, then the bytes. */
static size_t make_seed(uint64_t seed, uint8_t *out)
{
    struct meed_rng rng = meed_rng_stream(seed, "update", 0);
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 15);
    out[0] = (uint8_t)(seed % 4);
    out[1] = (uint8_t)(meed_rng_u64(&rng) & 0x3F);
    for (int t = 0; t < FUZZ_TENSORS; t++) {
        for (int i = 0; i < FUZZ_VALUES; i++) {
            fuzz_arrays[t][i] = (float)meed_rng_normal(&rng);
        }
    }
    struct meed_msg_codec codec = fuzz_codec(out);
    assert_int_equal(
        meed_update_encode(&fuzz_header, &codec, fuzz_tensors, FUZZ_TENSORS, NULL, &bytes, NULL),
        MEED_OK);
    size_t size = bytes.size;
    memcpy(out + 2, bytes.data, size);
    meed_buf_clear(&bytes);
    return size + 2;
}

static size_t mutate(struct meed_rng *rng, uint8_t *bytes, size_t size)
{
    uint64_t edits = 1 + meed_rng_below(rng, 4);
    for (uint64_t e = 0; e < edits; e++) {
        size_t header = 2 + MEED_UPDATE_HEADER_BYTES;
        /* Half of the edits in the records, where a byte decides most. */
        size_t span = meed_rng_below(rng, 2) ? size - header : 3 * MEED_UPDATE_RECORD_BYTES;
        size_t at =
            header + (size_t)meed_rng_below(rng, span < size - header ? span : size - header);
        switch (meed_rng_below(rng, 4)) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << meed_rng_below(rng, 8));
            break;
        case 1:
            bytes[at] = (uint8_t)meed_rng_u64(rng);
            break;
        case 2:
            size = size - 1 > header + 32 ? size - 1 : size;
            break;
        default:
            bytes[14] = (uint8_t)meed_rng_u64(rng); /* how many records the repair claims */
            break;
        }
    }
    return size;
}

static void update_survives_mutations(void **state)
{
    (void)state;
    static uint8_t seed_bytes[1 << 15], bytes[1 << 15];
    for (uint64_t seed = 0; seed < 120; seed++) {
        size_t seed_size = make_seed(seed, seed_bytes);
        LLVMFuzzerTestOneInput(seed_bytes, seed_size);
        struct meed_rng rng = meed_rng_stream(seed, "mutation", 0);
        for (int i = 0; i < 500; i++) {
            memcpy(bytes, seed_bytes, seed_size);
            size_t size = mutate(&rng, bytes, seed_size);
            LLVMFuzzerTestOneInput(bytes, size);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(update_survives_mutations)};
    return cmocka_run_group_tests_name("update_mutations", tests, NULL, NULL);
}
