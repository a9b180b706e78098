/* libFuzzer target: every message of the codec.
 *
 * One byte chooses the message, the rest is its encoding. What is accepted must pack again, and
 * what was packed must be a fixed point: unpacked and packed once more it gives the same bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_fail(const char *name, const char *what)
{
    fprintf(stderr, "message %s: %s: %s\n", name, what, meed_last_error());
    abort();
}

#define ROUND_TRIP(name)                                                                           \
    static void trip_##name(const uint8_t *bytes, size_t size)                                     \
    {                                                                                              \
        struct meed_msg_##name message;                                                            \
        struct meed_arena arena;                                                                   \
        struct meed_buf first, second;                                                             \
        meed_codec_arena_init(&arena);                                                             \
        meed_codec_buf_init(&first);                                                               \
        meed_codec_buf_init(&second);                                                              \
        if (meed_codec_unpack_##name(bytes, size, &arena, &message) == MEED_OK) {                  \
            if (meed_codec_pack_##name(&message, &first) != MEED_OK) {                             \
                fuzz_fail(#name, "accepted, but not packable");                                    \
            }                                                                                      \
            if (meed_codec_unpack_##name(first.data ? first.data : "", first.size, &arena,         \
                                         &message) != MEED_OK ||                                   \
                meed_codec_pack_##name(&message, &second) != MEED_OK ||                            \
                first.size != second.size ||                                                       \
                (first.size > 0 && memcmp(first.data, second.data, first.size) != 0)) {            \
                fuzz_fail(#name, "packed, but not stable");                                        \
            }                                                                                      \
        }                                                                                          \
        meed_buf_clear(&first);                                                                    \
        meed_buf_clear(&second);                                                                   \
        meed_arena_clear(&arena);                                                                  \
    }
MEED_CODEC_MESSAGES(ROUND_TRIP)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const trips[])(const uint8_t *, size_t) = {
#define TRIP(name) trip_##name,
        MEED_CODEC_MESSAGES(TRIP)};
    if (size < 1) {
        return 0;
    }
    uint8_t *bytes = malloc(size); /* exact, for ASan; the first byte stays unused */
    memcpy(bytes, data, size);
    trips[data[0] % MEED_COUNT(trips)](bytes + 1, size - 1);
    free(bytes);
    return 0;
}
