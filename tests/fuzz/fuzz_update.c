/* libFuzzer target: the decoder of updates.
 *
 * Two bytes choose codec and density, the rest is an update whose identity, sizes and trailer are
 * made right, so that mutations reach the records and payloads behind the hash. Whatever is
 * accepted must be canonical: encoding the decoded values must give the very bytes back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/update.h"

enum { FUZZ_TENSORS = 3, FUZZ_VALUES = 16 * 40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static float fuzz_arrays[FUZZ_TENSORS][FUZZ_VALUES];
static const struct meed_update_tensor fuzz_tensors[FUZZ_TENSORS] = {
    {"a", 16, 40, MEED_UPDATE_FACTOR_A, fuzz_arrays[0]},
    {"b", 33, 7, MEED_UPDATE_FACTOR_B, fuzz_arrays[1]},
    {"c", 1, 5, MEED_UPDATE_FACTOR_A, fuzz_arrays[2]},
};
static const struct meed_update_header fuzz_header = {
    .run_id = "run", .client_id = "client", .round = 1, .seed = 2};

static struct meed_msg_codec fuzz_codec(const uint8_t *choice)
{
    static const double densities[] = {1.0, 0.5, 0.1, 0.02};
    return (struct meed_msg_codec){
        .values = (enum meed_value_codec)(1 + choice[0] % 4),
        .density_a = densities[choice[1] & 3],
        .density_b = densities[choice[1] >> 2 & 3],
        .group_size = 16 << (choice[1] >> 4 & 3),
    };
}

/* Makes right what a mutation could only break. */
static void fuzz_repair(uint8_t *bytes, size_t size, const struct meed_msg_codec *codec)
{
    size_t records = bytes[12] % (FUZZ_TENSORS + 2);
    size_t fixed = MEED_UPDATE_HEADER_BYTES + records * MEED_UPDATE_RECORD_BYTES + 32;
    uint64_t payload = size > fixed ? size - fixed : 0;
    memset(bytes, 0, 160);
    memcpy(bytes, "MUPD\1", 5);
    bytes[5] = (uint8_t)codec->values;
    bytes[8] = 1;
    bytes[12] = (uint8_t)records;
    memcpy(bytes + 16, &payload, sizeof payload);
    bytes[24] = 2;
    memcpy(bytes + 32, "run", 3);
    memcpy(bytes + 96, "client", 6);
    memset(bytes + 160, 0, 96);
    if (meed_update_layout_hash(fuzz_tensors, FUZZ_TENSORS, bytes + 192) != MEED_OK) {
        abort();
    }
    meed_sha256(bytes, size - 32, bytes + size - 32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 + MEED_UPDATE_HEADER_BYTES + 32 || size > 1 << 16) {
        return 0;
    }
    struct meed_msg_codec codec = fuzz_codec(data);
    size -= 2;
    uint8_t *bytes = malloc(size); /* exact, so that ASan sees the first byte too far */
    memcpy(bytes, data + 2, size);
    if (!(data[1] & 0x80)) {
        fuzz_repair(bytes, size, &codec);
    }
    if (meed_update_decode(bytes, size, &fuzz_header, &codec, fuzz_tensors, FUZZ_TENSORS) ==
        MEED_OK) {
        struct meed_buf again;
        meed_buf_init(&again, 1 << 20);
        if (meed_update_encode(&fuzz_header, &codec, fuzz_tensors, FUZZ_TENSORS, NULL, &again,
                               NULL) != MEED_OK ||
            again.size != size || memcmp(again.data, bytes, size) != 0) {
            fprintf(stderr, "accepted, but not canonical: %s\n", meed_last_error());
            abort();
        }
        meed_buf_clear(&again);
    }
    free(bytes);
    return 0;
}
