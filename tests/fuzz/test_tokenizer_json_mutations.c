/* tokenizer.json under deterministic mutations; see fuzz_tokenizer_json.c for what must hold.
 *
 * Flipped bits mostly break the JSON, so the edits here keep it close to valid: a word of the file
 * takes the place of another, a number changes, a stretch is left out or doubled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "fuzz_tokenizer_json.c"

static const char seed[] =
    "{\"added_tokens\":[{\"id\":5,\"content\":\"<|im_end|>\",\"special\":true},"
    "{\"id\":6,\"content\":\"word\",\"single_word\":true,\"normalized\":true},"
    "{\"id\":7,\"content\":\"[BOTH]\",\"lstrip\":true,\"rstrip\":true}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}| "
    "?\\\\p{L}+|\\\\s+(?!\\\\S)|\\\\s+\"},"
    "\"behavior\":\"Isolated\"},{\"type\":\"Digits\",\"individual_digits\":true},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}]},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\",\"fuse_unk\":true,\"ignore_merges\":false,"
    "\"vocab\":{\"a\":0,\"t\":1,\"w\":2,\"at\":3,\"\\u0120\":4},\"merges\":[[\"a\",\"t\"]]}}";

/* Where a word of letters, or a digit, starts at or behind a random place; its length. */
static size_t find_word(struct meed_rng *rng, const char *bytes, size_t size, size_t *length)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    size_t at = (size_t)meed_rng_below(rng, size);
    at += strcspn(bytes + at, letters);
    *length = strspn(bytes + at, letters);
    return at;
}

/* Replaces [at, at + old_length) by new bytes; false if they do not fit. */
static bool splice(char *bytes, size_t *size, size_t at, size_t old_length, const char *fresh,
                   size_t fresh_length, size_t capacity)
{
    if (*size - old_length + fresh_length + 1 > capacity) {
        return false;
    }
    memmove(bytes + at + fresh_length, bytes + at + old_length, *size - at - old_length + 1);
    memcpy(bytes + at, fresh, fresh_length);
    *size += fresh_length - old_length;
    return true;
}

static void tokenizer_json_survives_mutations(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(1, "tokenizer_json", 0);
    for (int i = 0; i < 20000; i++) {
        char bytes[4096];
        size_t size = sizeof seed - 1;
        memcpy(bytes, seed, sizeof seed);
        for (uint64_t edits = 1 + meed_rng_below(&rng, 4); edits > 0; edits--) {
            char fresh[512];
            size_t length;
            size_t other_length;
            size_t at = find_word(&rng, bytes, size, &length);
            size_t other = find_word(&rng, seed, sizeof seed - 1, &other_length);
            uint64_t kind = meed_rng_below(&rng, 4);
            if (kind == 0) { /* any stretch of the seed in front of the word */
                length = 0;
                other_length = (size_t)meed_rng_below(&rng, MEED_MIN(sizeof seed - other, 200));
            } else if (kind == 1) { /* a number */
                other_length =
                    (size_t)snprintf(fresh, sizeof fresh, "%d", (int)meed_rng_below(&rng, 9) - 1);
            }
            if (kind != 1) {
                memcpy(fresh, seed + other, other_length);
            }
            splice(bytes, &size, at, length, fresh, kind == 3 ? 0 : other_length, sizeof bytes);
        }
        LLVMFuzzerTestOneInput((const uint8_t *)bytes, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokenizer_json_survives_mutations)};
    return cmocka_run_group_tests_name("tokenizer_json_mutations", tests, NULL, NULL);
}
