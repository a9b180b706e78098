/* The layout of updates: round trips, canonical bytes, golden bad messages, error feedback. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "proto/update.h"

enum { TENSORS = 4 };
static const int shapes[TENSORS][2] = {{16, 192}, {320, 16}, {3, 37}, {1, 1}};
static const char *const names[TENSORS] = {"layers.0.q.A", "layers.0.q.B", "odd", "single"};

/* Two sets of arrays of the negotiated shapes. */
struct set {
    struct meed_update_tensor tensors[TENSORS];
    float *arrays[TENSORS];
};

static int64_t count_of(int t)
{
    return (int64_t)shapes[t][0] * shapes[t][1];
}

static void set_init(struct set *set)
{
    for (int t = 0; t < TENSORS; t++) {
        set->arrays[t] = calloc((size_t)count_of(t), sizeof(float));
        set->tensors[t] = (struct meed_update_tensor){
            names[t], shapes[t][0], shapes[t][1],
            t % 2 ? MEED_UPDATE_FACTOR_B : MEED_UPDATE_FACTOR_A, set->arrays[t]};
    }
}

static void set_clear(struct set *set)
{
    for (int t = 0; t < TENSORS; t++) {
        free(set->arrays[t]);
    }
}

static void set_fill(struct set *set, uint64_t seed)
{
    for (int t = 0; t < TENSORS; t++) {
        struct meed_rng rng = meed_rng_stream(seed, "test", (uint64_t)t);
        for (int64_t i = 0; i < count_of(t); i++) {
            set->arrays[t][i] = (float)(1e-3 * meed_rng_normal(&rng));
        }
    }
}

static struct meed_update_header header(void)
{
    struct meed_update_header h = {.run_id = "run-1", .client_id = "alice", .round = 7, .seed = 99};
    memset(h.base_adapter_hash, 0xAB, sizeof h.base_adapter_hash);
    return h;
}

static struct meed_msg_codec codec(enum meed_value_codec values, double density)
{
    return (struct meed_msg_codec){values, density, density, 64, 0};
}

static enum meed_status decode(const struct meed_buf *bytes, const struct meed_msg_codec *spec,
                               struct set *set)
{
    struct meed_update_header h = header();
    return meed_update_decode(bytes->data, bytes->size, &h, spec, set->tensors, TENSORS);
}

static void encode(const struct set *set, const struct meed_msg_codec *spec, float *const *decoded,
                   struct meed_buf *bytes, struct meed_update_stats *stats)
{
    struct meed_update_header h = header();
    meed_buf_init(bytes, 1 << 24);
    assert_int_equal(meed_update_encode(&h, spec, set->tensors, TENSORS, decoded, bytes, stats),
                     MEED_OK);
}

static const double densities[] = {1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 1e-6};

/* What the codec may lose, in float64: half a step of a group of the format, or nothing. */
static void check_error(const struct set *in, const struct set *out, enum meed_value_codec values,
                        double density)
{
    for (int t = 0; t < TENSORS; t++) {
        int64_t count = count_of(t);
        int64_t kept = 0;
        double largest_lost = 0.0, smallest_kept = 1e300, max_abs = 0.0;
        for (int64_t i = 0; i < count; i++) {
            double x = (double)in->arrays[t][i], d = (double)out->arrays[t][i];
            max_abs = fmax(max_abs, fabs(x));
            kept += d != 0.0;
            if (d == 0.0) {
                largest_lost = fmax(largest_lost, fabs(x));
            } else {
                smallest_kept = fmin(smallest_kept, fabs(x));
            }
        }
        double levels = values == MEED_VALUE_INT8 ? 127.0 : values == MEED_VALUE_INT4 ? 7.0 : 0.0;
        double step = levels > 0 ? max_abs / levels : max_abs / 256.0;
        for (int64_t i = 0; i < count; i++) {
            double x = (double)in->arrays[t][i], d = (double)out->arrays[t][i];
            if (d != 0.0) {
                double allowed = values == MEED_VALUE_F32 ? 0.0 : 0.51 * step + 4e-3 * fabs(x);
                assert_true(fabs(x - d) <= allowed);
            }
        }
        assert_true(kept <= (int64_t)ceil(density * (double)count));
        if (levels == 0.0) { /* a true top-k: nothing lost is larger than what was kept */
            assert_true(largest_lost <= smallest_kept);
        } else if (density >= 1.0) {
            assert_true(largest_lost <= 0.51 * step);
        }
    }
}

/* Goal: every encoding loses what it may and no more, and the encoder reports what the decoder
 * sees. Method: random tensors of odd shapes against float64 bounds. */
static void update_round_trips_every_encoding(void **state)
{
    (void)state;
    struct set in, out, seen;
    set_init(&in);
    set_init(&out);
    set_init(&seen);
    set_fill(&in, 1);
    for (int v = MEED_VALUE_F32; v < MEED_VALUE_COUNT; v++) {
        for (size_t d = 0; d < MEED_COUNT(densities); d++) {
            struct meed_msg_codec spec = codec((enum meed_value_codec)v, densities[d]);
            struct meed_buf bytes;
            struct meed_update_stats stats;
            encode(&in, &spec, seen.arrays, &bytes, &stats);
            assert_true((int64_t)bytes.size <= meed_update_max_bytes(in.tensors, TENSORS));
            assert_int_equal(decode(&bytes, &spec, &out), MEED_OK);
            for (int t = 0; t < TENSORS; t++) {
                assert_memory_equal(out.arrays[t], seen.arrays[t],
                                    (size_t)count_of(t) * sizeof(float));
            }
            check_error(&in, &out, (enum meed_value_codec)v, densities[d]);
            assert_true(stats.retained_energy > 0.0 && stats.encoded_bytes == (int64_t)bytes.size);
            meed_buf_clear(&bytes);
        }
    }
    set_clear(&in);
    set_clear(&out);
    set_clear(&seen);
}

/* Goal: one set of values has one byte string. Method: encode what was decoded. */
static void update_reencodes_to_the_same_bytes(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    for (uint64_t seed = 0; seed < 5; seed++) {
        set_fill(&in, seed);
        for (int v = MEED_VALUE_F32; v < MEED_VALUE_COUNT; v++) {
            for (size_t d = 0; d < MEED_COUNT(densities); d++) {
                struct meed_msg_codec spec = codec((enum meed_value_codec)v, densities[d]);
                struct meed_buf first, second;
                encode(&in, &spec, NULL, &first, NULL);
                assert_int_equal(decode(&first, &spec, &out), MEED_OK);
                encode(&out, &spec, NULL, &second, NULL);
                assert_int_equal(first.size, second.size);
                assert_memory_equal(first.data, second.data, first.size);
                meed_buf_clear(&first);
                meed_buf_clear(&second);
            }
        }
    }
    set_clear(&in);
    set_clear(&out);
}

/* A free-rider's update is a bare header, whatever the codec, and decodes to exact zeros. */
static void update_of_zeros_is_a_bare_header(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    for (int v = MEED_VALUE_F32; v < MEED_VALUE_COUNT; v++) {
        struct meed_msg_codec spec = codec((enum meed_value_codec)v, v % 2 ? 1.0 : 0.1);
        struct meed_buf bytes;
        in.arrays[0][5] = -0.0f;
        in.arrays[1][5] = v == MEED_VALUE_F32 ? 0.0f : 1e-42f; /* rounds to nothing */
        set_fill(&out, 3);
        encode(&in, &spec, NULL, &bytes, NULL);
        assert_int_equal(bytes.size, MEED_UPDATE_HEADER_BYTES + MEED_SHA256_BYTES);
        assert_int_equal(decode(&bytes, &spec, &out), MEED_OK);
        for (int t = 0; t < TENSORS; t++) {
            for (int64_t i = 0; i < count_of(t); i++) {
                assert_true(out.arrays[t][i] == 0.0f && !signbit(out.arrays[t][i]));
            }
        }
        meed_buf_clear(&bytes);
    }
    set_clear(&in);
    set_clear(&out);
}

static void update_int4_saturates_at_seven(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    in.arrays[3][0] = -7.0f;
    for (int i = 0; i < 64; i++) {
        in.arrays[0][i] = (float)(i % 15 - 7);
    }
    in.arrays[0][63] = 6.6f;
    struct meed_msg_codec spec = codec(MEED_VALUE_INT4, 1.0);
    struct meed_buf bytes;
    encode(&in, &spec, NULL, &bytes, NULL);
    assert_int_equal(decode(&bytes, &spec, &out), MEED_OK);
    for (int i = 0; i < 63; i++) {
        assert_true(out.arrays[0][i] == in.arrays[0][i]);
    }
    assert_true(out.arrays[0][63] == 7.0f && out.arrays[0][64] == 0.0f);
    assert_true(out.arrays[3][0] == -7.0f);
    meed_buf_clear(&bytes);
    set_clear(&in);
    set_clear(&out);
}

static void update_top_k_breaks_ties_by_index(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    for (int64_t i = 0; i < count_of(0); i++) {
        in.arrays[0][i] = i % 2 ? 0.25f : -0.25f;
    }
    struct meed_msg_codec spec = codec(MEED_VALUE_F32, 0.1);
    struct meed_buf bytes;
    encode(&in, &spec, NULL, &bytes, NULL);
    assert_int_equal(decode(&bytes, &spec, &out), MEED_OK);
    int64_t keep = (int64_t)ceil(0.1 * (double)count_of(0));
    for (int64_t i = 0; i < count_of(0); i++) {
        assert_true(out.arrays[0][i] == (i < keep ? in.arrays[0][i] : 0.0f));
    }
    meed_buf_clear(&bytes);
    set_clear(&in);
    set_clear(&out);
}

static void update_refuses_numbers_that_are_none(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f};
    struct set in;
    set_init(&in);
    struct meed_update_header h = header();
    for (int v = MEED_VALUE_F32; v < MEED_VALUE_COUNT; v++) {
        for (size_t b = 0; b < MEED_COUNT(bad); b++) {
            set_fill(&in, 1);
            in.arrays[1][77] = bad[b];
            struct meed_msg_codec spec = codec((enum meed_value_codec)v, v % 2 ? 1.0 : 0.05);
            struct meed_buf bytes;
            meed_buf_init(&bytes, 1 << 24);
            assert_int_equal(meed_update_encode(&h, &spec, in.tensors, TENSORS, NULL, &bytes, NULL),
                             MEED_NUMERIC);
            assert_non_null(strstr(meed_last_error(), "layers.0.q.B"));
            assert_int_equal(bytes.size, 0);
            meed_buf_clear(&bytes);
        }
    }
    set_clear(&in);
}

/* Goal: error feedback loses nothing. Method: 40 rounds; Σ decoded = Σ updates − final residual. */
static void update_error_feedback_keeps_the_sum(void **state)
{
    (void)state;
    struct set residual, update, seen;
    set_init(&residual);
    set_init(&update);
    set_init(&seen);
    double *sent = calloc((size_t)count_of(0), sizeof *sent);
    double *wanted = calloc((size_t)count_of(0), sizeof *wanted);
    struct meed_msg_codec spec = codec(MEED_VALUE_INT4, 0.1);
    for (uint64_t round = 0; round < 40; round++) {
        struct meed_buf bytes;
        set_fill(&update, round);
        for (int64_t i = 0; i < count_of(0); i++) {
            wanted[i] += (double)update.arrays[0][i];
        }
        for (int t = 0; t < TENSORS; t++) {
            for (int64_t i = 0; i < count_of(t); i++) {
                update.arrays[t][i] += residual.arrays[t][i];
            }
        }
        encode(&update, &spec, seen.arrays, &bytes, NULL);
        for (int t = 0; t < TENSORS; t++) {
            for (int64_t i = 0; i < count_of(t); i++) {
                residual.arrays[t][i] = update.arrays[t][i] - seen.arrays[t][i];
            }
        }
        for (int64_t i = 0; i < count_of(0); i++) {
            sent[i] += (double)seen.arrays[0][i];
        }
        meed_buf_clear(&bytes);
    }
    for (int64_t i = 0; i < count_of(0); i++) {
        double got = sent[i] + (double)residual.arrays[0][i];
        assert_true(fabs(got - wanted[i]) < 1e-7);
    }
    free(sent);
    free(wanted);
    set_clear(&residual);
    set_clear(&update);
    set_clear(&seen);
}

/* ---- golden bad messages ----------------------------------------------------------------------
 */

static void reseal(struct meed_buf *bytes)
{
    meed_sha256(bytes->data, bytes->size - MEED_SHA256_BYTES,
                (uint8_t *)bytes->data + bytes->size - MEED_SHA256_BYTES);
}

struct bad {
    const char *what;
    size_t offset;
    uint8_t value; /* XORed */
    bool sealed;   /* with the trailer made right again */
    enum meed_status status;
    const char *words;
};

enum { RECORD = MEED_UPDATE_HEADER_BYTES, SECOND = RECORD + MEED_UPDATE_RECORD_BYTES };

static const struct bad bads[] = {
    {"magic", 0, 1, true, MEED_FORMAT, "MUPD"},
    {"version", 4, 3, true, MEED_VERSION, "format 2"},
    {"value codec", 5, 1, true, MEED_FORMAT, "value codec"},
    {"zero byte of the header", 7, 1, true, MEED_FORMAT, "add up"},
    {"another round", 8, 1, true, MEED_STATE, "round 6"},
    {"tensor count", 12, 4, true, MEED_FORMAT, "add up"},
    {"tensor count far too large", 15, 0x7F, true, MEED_FORMAT, "add up"},
    {"payload bytes", 16, 1, true, MEED_FORMAT, "add up"},
    {"another seed", 24, 1, true, MEED_STATE, "run run-1"},
    {"another run", 32, 1, true, MEED_STATE, "this is run"},
    {"padding of the run id", 90, 1, true, MEED_FORMAT, "cannot be"},
    {"another client", 96, 2, true, MEED_DENIED, "sent by alice"},
    {"another base adapter", 160, 1, true, MEED_VERSION, "base adapter"},
    {"another layout", 192, 1, true, MEED_FORMAT, "other tensors"},
    {"another quantiser", 224, 1, true, MEED_VERSION, "quantiser"},
    {"tensor given twice", SECOND, 1, true, MEED_FORMAT, "given twice"},
    {"tensor not in the plan", RECORD, 0x80, true, MEED_FORMAT, "not in the plan"},
    {"rows", RECORD + 4, 1, true, MEED_FORMAT, "shape 17 × 192, the plan says 16 × 192"},
    {"columns", SECOND + 8, 2, true, MEED_FORMAT, "layers.0.q.B: shape 320 × 18"},
    {"kept beyond the density", RECORD + 14, 1, true, MEED_FORMAT, "the plan allows"},
    {"index coding", RECORD + 16, 2, true, MEED_FORMAT, "coding"},
    {"Rice parameter", RECORD + 17, 1, true, MEED_FORMAT, "Rice"},
    {"group shift", RECORD + 18, 1, true, MEED_FORMAT, "coding"},
    {"zero byte of a record", RECORD + 19, 1, true, MEED_FORMAT, "coding"},
    {"payload leaves the update", RECORD + 23, 0x40, true, MEED_FORMAT, "leaves"},
    {"payload length", RECORD + 20, 1, true, MEED_FORMAT, "length"},
    {"a flipped bit", 300, 1, false, MEED_INTEGRITY, "SHA-256"},
};

static void update_refuses_bad_messages(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    set_fill(&in, 1);
    struct meed_msg_codec spec = codec(MEED_VALUE_INT4, 0.1);
    for (size_t i = 0; i < MEED_COUNT(bads); i++) {
        struct meed_buf bytes;
        encode(&in, &spec, NULL, &bytes, NULL);
        bytes.data[bads[i].offset] = (char)((uint8_t)bytes.data[bads[i].offset] ^ bads[i].value);
        if (bads[i].sealed) {
            reseal(&bytes);
        }
        enum meed_status st = decode(&bytes, &spec, &out);
        if (st != bads[i].status || !strstr(meed_last_error(), bads[i].words)) {
            fail_msg("%s: got %s, \"%s\"", bads[i].what, meed_status_name(st), meed_last_error());
        }
        meed_buf_clear(&bytes);
    }
    set_clear(&in);
    set_clear(&out);
}

/* Every truncation is refused, and so is every appended byte. */
static void update_refuses_truncations(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    set_fill(&in, 1);
    struct meed_msg_codec spec = codec(MEED_VALUE_INT8, 0.05);
    struct meed_buf bytes;
    encode(&in, &spec, NULL, &bytes, NULL);
    struct meed_buf cut = bytes;
    for (size_t size = 0; size < bytes.size; size++) {
        cut.size = size;
        assert_int_not_equal(decode(&cut, &spec, &out), MEED_OK);
    }
    assert_int_equal(meed_buf_append(&bytes, "", 1), MEED_OK);
    assert_int_not_equal(decode(&bytes, &spec, &out), MEED_OK);
    meed_buf_clear(&bytes);
    set_clear(&in);
    set_clear(&out);
}

/* The one tensor of 16 entries whose payload a test writes by hand. */
static enum meed_status decode_by_hand(enum meed_value_codec values, double density, uint32_t kept,
                                       uint8_t coding, uint8_t k, const void *payload,
                                       size_t payload_bytes)
{
    float array[16];
    struct meed_update_tensor tensor = {"hand", 1, 16, MEED_UPDATE_FACTOR_A, array};
    struct meed_msg_codec spec = codec(values, density);
    struct meed_update_header h = header();
    struct meed_buf bytes;
    for (int i = 0; i < 16; i++) {
        array[i] = 1.0f;
    }
    meed_buf_init(&bytes, 1 << 16);
    struct meed_msg_codec plain = codec(MEED_VALUE_F32, 1.0);
    assert_int_equal(meed_update_encode(&h, &plain, &tensor, 1, NULL, &bytes, NULL), MEED_OK);
    bytes.size = MEED_UPDATE_HEADER_BYTES + MEED_UPDATE_RECORD_BYTES;
    bytes.data[5] = (char)values;
    bytes.data[16] = (char)payload_bytes;
    char *record = bytes.data + MEED_UPDATE_HEADER_BYTES;
    record[12] = (char)kept;
    record[16] = (char)coding;
    record[17] = (char)k;
    int span = (int)(64.0 / density), shift = 0;
    while (1 << shift < span) {
        shift++;
    }
    record[18] = (char)(values >= MEED_VALUE_INT8 ? shift : 0);
    record[20] = (char)payload_bytes;
    assert_int_equal(meed_buf_append(&bytes, payload, payload_bytes), MEED_OK);
    uint8_t trailer[MEED_SHA256_BYTES] = {0};
    assert_int_equal(meed_buf_append(&bytes, trailer, sizeof trailer), MEED_OK);
    reseal(&bytes);
    enum meed_status st = meed_update_decode(bytes.data, bytes.size, &h, &spec, &tensor, 1);
    meed_buf_clear(&bytes);
    return st;
}

#define HAND(values, density, kept, coding, k, ...)                                                \
    decode_by_hand(values, density, kept, coding, k, (const uint8_t[]){__VA_ARGS__},               \
                   sizeof((const uint8_t[]){__VA_ARGS__}))

static void update_refuses_bad_payloads(void **state)
{
    (void)state;
    const enum meed_value_codec i4 = MEED_VALUE_INT4, i8 = MEED_VALUE_INT8, b16 = MEED_VALUE_BF16;
    /* 4 of 16 kept: bitmap of 2 bytes. Scale 1.0 is 0x3F80. */
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0x3F, 0x17, 0x7F), MEED_OK);
    assert_int_equal(HAND(i8, 0.25, 3, 1, 0, 7, 0, 0x80, 0x3F, 127, 1, 0x81), MEED_OK);
    /* A bit after the last kept one; too few bits. */
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x0F, 0x80, 0x80, 0x3F, 0x17, 0x7F), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x00, 0x80, 0x3F, 0x17, 0x7F), MEED_FORMAT);
    /* Scales: NaN, infinite, negative, zero, subnormal, diverged. */
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0xC0, 0x7F, 0x17, 0x7F), MEED_NUMERIC);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0x7F, 0x17, 0x7F), MEED_NUMERIC);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0xBF, 0x17, 0x7F), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x00, 0x00, 0x17, 0x7F), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x01, 0x00, 0x17, 0x7F), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0x7E, 0x17, 0x7F), MEED_NUMERIC);
    /* Codes: -8, a zero among the kept, none at the top level, padding of the last half byte. */
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0x3F, 0x18, 0x7F), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0x3F, 0x10, 0x7F), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 4, 1, 0, 0x07, 0x80, 0x80, 0x3F, 0x11, 0x11), MEED_FORMAT);
    assert_int_equal(HAND(i4, 0.25, 3, 1, 0, 7, 0, 0x80, 0x3F, 0x17, 0x17), MEED_FORMAT);
    assert_int_equal(HAND(i8, 0.25, 1, 2, 3, 0x70, 0x80, 0x3F, 0x80), MEED_FORMAT);
    /* Rice, k = 3 for 1 of 16: gap 0 is code 0000, gap 15 is 10 111; stream ends in mid-code. */
    assert_int_equal(HAND(i8, 0.25, 1, 2, 3, 0x00, 0x80, 0x3F, 127), MEED_OK);
    assert_int_equal(HAND(i8, 0.25, 1, 2, 3, 0x1D, 0x80, 0x3F, 127), MEED_OK);
    assert_int_equal(HAND(i8, 0.25, 1, 2, 3, 0x3D, 0x80, 0x3F, 127), MEED_FORMAT); /* padding */
    assert_int_equal(HAND(i8, 0.25, 1, 2, 3, 0x03, 0x80, 0x3F, 127), MEED_FORMAT); /* gap ≥ 16 */
    assert_int_equal(HAND(i8, 0.25, 1, 2, 3, 0xFF), MEED_FORMAT);
    assert_int_equal(HAND(i8, 0.25, 1, 1, 0, 1, 0, 0x80, 0x3F, 127), MEED_FORMAT); /* longer */
    /* bf16: NaN, zero among the kept. */
    assert_int_equal(HAND(b16, 0.25, 1, 2, 3, 0x00, 0x80, 0x3F), MEED_OK);
    assert_int_equal(HAND(b16, 0.25, 1, 2, 3, 0x00, 0xC0, 0x7F), MEED_NUMERIC);
    assert_int_equal(HAND(b16, 0.25, 1, 2, 3, 0x00, 0x00, 0x80), MEED_FORMAT);
}

static void update_zstd_checks_before_inflating(void **state)
{
    (void)state;
    struct set in, out;
    set_init(&in);
    set_init(&out);
    set_fill(&in, 1);
    struct meed_msg_codec spec = codec(MEED_VALUE_INT8, 0.5);
    struct meed_buf bytes, packed, plain;
    encode(&in, &spec, NULL, &bytes, NULL);
    meed_buf_init(&packed, 1 << 24);
    meed_buf_init(&plain, 1 << 24);
    int64_t most = meed_update_max_bytes(in.tensors, TENSORS);
    assert_int_equal(meed_update_zstd_pack(bytes.data, bytes.size, 3, &packed), MEED_OK);
    assert_true(packed.size < bytes.size);
    assert_int_equal(meed_update_zstd_unpack(packed.data, packed.size, most, &plain), MEED_OK);
    assert_int_equal(plain.size, bytes.size);
    assert_memory_equal(plain.data, bytes.data, bytes.size);
    assert_int_equal(
        meed_update_zstd_unpack(packed.data, packed.size, (int64_t)bytes.size - 1, &plain),
        MEED_LIMIT);
    assert_int_equal(meed_update_zstd_unpack(packed.data, packed.size - 1, most, &plain),
                     MEED_FORMAT);
    assert_int_equal(meed_buf_append(&packed, packed.data, 10), MEED_OK);
    assert_int_equal(meed_update_zstd_unpack(packed.data, packed.size, most, &plain), MEED_FORMAT);
    /* A bomb: 64 MiB of zeros in a few kilobytes declares its size and is refused by it. */
    char *zeros = calloc(1, 64 << 20);
    struct meed_buf bomb;
    meed_buf_init(&bomb, 128 << 20);
    assert_int_equal(meed_update_zstd_pack(zeros, 64 << 20, 3, &bomb), MEED_OK);
    assert_int_equal(meed_update_zstd_unpack(bomb.data, bomb.size, most, &plain), MEED_LIMIT);
    free(zeros);
    meed_buf_clear(&bomb);
    meed_buf_clear(&bytes);
    meed_buf_clear(&packed);
    meed_buf_clear(&plain);
    set_clear(&in);
    set_clear(&out);
}

static void update_peek_reads_the_key(void **state)
{
    (void)state;
    struct set in;
    set_init(&in);
    set_fill(&in, 1);
    struct meed_msg_codec spec = codec(MEED_VALUE_INT8, 0.5);
    struct meed_buf bytes;
    struct meed_update_header h;
    encode(&in, &spec, NULL, &bytes, NULL);
    assert_int_equal(meed_update_peek(bytes.data, bytes.size, &h), MEED_OK);
    assert_string_equal(h.run_id, "run-1");
    assert_string_equal(h.client_id, "alice");
    assert_int_equal(h.round, 7);
    assert_int_equal(h.seed, 99);
    meed_buf_clear(&bytes);
    set_clear(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(update_round_trips_every_encoding),
        cmocka_unit_test(update_reencodes_to_the_same_bytes),
        cmocka_unit_test(update_of_zeros_is_a_bare_header),
        cmocka_unit_test(update_int4_saturates_at_seven),
        cmocka_unit_test(update_top_k_breaks_ties_by_index),
        cmocka_unit_test(update_refuses_numbers_that_are_none),
        cmocka_unit_test(update_error_feedback_keeps_the_sum),
        cmocka_unit_test(update_refuses_bad_messages),
        cmocka_unit_test(update_refuses_truncations),
        cmocka_unit_test(update_refuses_bad_payloads),
        cmocka_unit_test(update_zstd_checks_before_inflating),
        cmocka_unit_test(update_peek_reads_the_key),
    };
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
