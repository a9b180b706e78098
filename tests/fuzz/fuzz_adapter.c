/* libFuzzer target: packed adapters, as a client downloads them.
 *
 * Two bytes give the length of the configuration, two that of the safetensors header, the rest is
 * the text and bytes; both lengths are written where they belong, so that mutations reach the
 * parsers. Whatever is accepted must pack, and the pack must unpack to an equal adapter.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/adapter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two layers, small enough that a whole adapter fits into a seed. */
static const struct meed_model_config model = {
    .architecture = "LlamaForCausalLM",
    .hidden = 4,
    .ffn = 6,
    .layers = 2,
    .heads = 2,
    .kv_heads = 1,
    .head_dim = 2,
    .vocab = 8,
    .max_positions = 16,
    .rms_eps = 1e-5f,
    .rope_theta = 1e4,
};

static void fuzz_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, meed_last_error());
    abort();
}

static void round_trip(const struct meed_adapter *adapter)
{
    struct meed_buf bytes;
    struct meed_adapter *again = NULL;
    meed_buf_init(&bytes, 1 << 24);
    if (meed_adapter_pack(adapter, &bytes) != MEED_OK) {
        fuzz_fail("accepted, but not packable");
    }
    if (meed_adapter_unpack("again", bytes.data, bytes.size, &model, &again) != MEED_OK) {
        fuzz_fail("packed, but refused");
    }
    if (!meed_adapter_equal(adapter, again)) {
        fuzz_fail("not the same after packing");
    }
    meed_adapter_destroy(again);
    meed_buf_clear(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) {
        return 0;
    }
    size_t text = MEED_MIN((size_t)(data[0] | data[1] << 8), size - 4);
    uint64_t header = (uint64_t)(data[2] | data[3] << 8);
    size_t rest = size - 4 - text;
    size_t packed = 4 + text + 8 + rest;
    uint8_t *bytes = malloc(packed); /* exact, for ASan */
    uint32_t length = (uint32_t)text;
    memcpy(bytes, &length, 4);
    memcpy(bytes + 4, data + 4, text);
    memcpy(bytes + 4 + text, &header, 8);
    memcpy(bytes + 12 + text, data + 4 + text, rest);
    struct meed_adapter *adapter = NULL;
    if (meed_adapter_unpack("fuzz", bytes, packed, &model, &adapter) == MEED_OK) {
        round_trip(adapter);
        meed_adapter_destroy(adapter);
    }
    free(bytes);
    return 0;
}
