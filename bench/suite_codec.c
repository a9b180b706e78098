/* Encoding and decoding an update of 8 M values (a 0.5B model's rank-16 adapter), by codec.
 *
 * Prints MB/s of fp32 input, bits a value on the wire and the relative error that error feedback
 * carries into the next round. A decoded value is checked against the encoder's own view of it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/rng.h"
#include "bench/harness.h"
#include "proto/update.h"

enum { TENSORS = 64, ROWS = 128, COLS = 1024 };

struct fixture {
    struct meed_update_tensor tensors[TENSORS];
    struct meed_update_tensor received[TENSORS];
    float *decoded[TENSORS];
    float *memory;
};

static enum meed_status fixture_open(struct fixture *fixture)
{
    size_t values = (size_t)TENSORS * ROWS * COLS;
    fixture->memory = meed_heap_alloc(3 * values, sizeof(float));
    if (!fixture->memory) {
        return MEED_NOMEM;
    }
    struct meed_rng rng = meed_rng_stream(1, "bench update", 0);
    for (size_t i = 0; i < values; i++) {
        fixture->memory[i] = (float)(1e-3 * meed_rng_normal(&rng));
    }
    for (int i = 0; i < TENSORS; i++) {
        float *at = fixture->memory + (size_t)i * ROWS * COLS;
        struct meed_update_tensor tensor = {
            "bench", ROWS, COLS, i % 2 ? MEED_UPDATE_FACTOR_B : MEED_UPDATE_FACTOR_A, at};
        fixture->tensors[i] = tensor;
        fixture->decoded[i] = at + values;
        tensor.values = at + 2 * values;
        fixture->received[i] = tensor;
    }
    return MEED_OK;
}

static enum meed_status measure(struct fixture *fixture, const char *name,
                                const struct meed_msg_codec *codec)
{
    struct meed_update_header header = {.run_id = "bench", .client_id = "bench", .round = 1};
    struct meed_update_stats stats = {0};
    struct meed_buf bytes;
    char row[96];
    enum meed_status st = MEED_OK;
    size_t input_bytes = (size_t)TENSORS * ROWS * COLS * sizeof(float);
    meed_buf_init(&bytes, (size_t)256 << 20);
    for (int pass = 0; pass < 2; pass++) { /* the first warms the buffers */
        meed_buf_reset(&bytes);
        int64_t start = meed_clock_monotonic_ns();
        MEED_TRY_OUT(meed_update_encode(&header, codec, fixture->tensors, TENSORS, fixture->decoded,
                                        &bytes, &stats));
        double encode_s = meed_clock_seconds_since(start);
        start = meed_clock_monotonic_ns();
        MEED_TRY_OUT(
            meed_update_decode(bytes.data, bytes.size, &header, codec, fixture->received, TENSORS));
        double decode_s = meed_clock_seconds_since(start);
        for (int i = 0; i < TENSORS; i++) {
            if (memcmp(fixture->decoded[i], fixture->received[i].values, ROWS * COLS * 4) != 0) {
                st = MEED_FAIL(MEED_NUMERIC, "tensor %d decodes to other values", i);
                goto out;
            }
        }
        if (pass == 1) {
            snprintf(row, sizeof row, "%s encode", name);
            meed_bench_row("codec", row, 1e-6 * (double)input_bytes / encode_s, "MB/s", 0, '>');
            snprintf(row, sizeof row, "%s decode", name);
            meed_bench_row("codec", row, 1e-6 * (double)input_bytes / decode_s, "MB/s", 0, '>');
            snprintf(row, sizeof row, "%s size", name);
            meed_bench_row("codec", row, 32.0 * (double)bytes.size / (double)input_bytes,
                           "bits/value", 0, '<');
            snprintf(row, sizeof row, "%s error", name);
            meed_bench_row("codec", row, sqrt(stats.error_energy / stats.energy), "relative", 0,
                           '<');
        }
    }
out:
    meed_buf_clear(&bytes);
    return st;
}

enum meed_status meed_suite_codec(struct meed_bench_machine *machine)
{
    static const struct {
        const char *name;
        struct meed_msg_codec codec;
    } rows[] = {
        {"bf16", {MEED_VALUE_BF16, 1, 1, 64, 0}},
        {"int8", {MEED_VALUE_INT8, 1, 1, 64, 0}},
        {"int4", {MEED_VALUE_INT4, 1, 1, 64, 0}},
        {"int4, top 10 %", {MEED_VALUE_INT4, 0.1, 0.1, 64, 0}},
    };
    static struct fixture fixture;
    enum meed_status st = MEED_OK;
    (void)machine;
    meed_bench_heading("codec", "an update of 8.4 M values, one thread");
    MEED_TRY_OUT(fixture_open(&fixture));
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        MEED_TRY_OUT(measure(&fixture, rows[i].name, &rows[i].codec));
    }
out:
    meed_heap_free(fixture.memory);
    return st;
}
