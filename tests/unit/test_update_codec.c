/* Updates read without their plan: whatever codec wrote them, the same values come out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/rng.h"
#include "proto/update.h"

enum { TENSORS = 4, MOST = 64 * 192 };

static float given[TENSORS][MOST], planned[TENSORS][MOST], found[TENSORS][MOST];
static struct meed_update_header header = {
    .run_id = "run-1", .client_id = "alice", .round = 3, .seed = 5};

static void layout(float (*values)[MOST], struct meed_update_tensor tensors[TENSORS])
{
    static const int32_t shapes[TENSORS][2] = {{8, 192}, {64, 8}, {64, 192}, {3, 5}};
    static const char *const names[TENSORS] = {"layers.0.q.A", "layers.0.q.B", "layers.0.up.A",
                                               "layers.0.up.B"};
    for (int t = 0; t < TENSORS; t++) {
        tensors[t] = (struct meed_update_tensor){
            names[t], shapes[t][0], shapes[t][1],
            t % 2 ? MEED_UPDATE_FACTOR_B : MEED_UPDATE_FACTOR_A, values[t]};
    }
}

static void encode(const struct meed_msg_codec *codec, struct meed_buf *bytes)
{
    struct meed_update_tensor tensors[TENSORS];
    layout(given, tensors);
    meed_buf_init(bytes, 1 << 24);
    assert_int_equal(meed_update_encode(&header, codec, tensors, TENSORS, NULL, bytes, NULL),
                     MEED_OK);
}

static void decode(const struct meed_buf *bytes, const struct meed_msg_codec *codec,
                   float (*values)[MOST])
{
    struct meed_update_tensor tensors[TENSORS];
    layout(values, tensors);
    if (meed_update_decode(bytes->data, bytes->size, &header, codec, tensors, TENSORS) != MEED_OK) {
        fail_msg("values %d, densities %g %g, groups of %d: %s", (int)codec->values,
                 codec->density_a, codec->density_b, (int)codec->group_size, meed_last_error());
    }
}

static void check(const struct meed_msg_codec *codec)
{
    struct meed_update_tensor tensors[TENSORS];
    struct meed_msg_codec read;
    struct meed_buf bytes;
    encode(codec, &bytes);
    layout(found, tensors);
    assert_int_equal(meed_update_codec(bytes.data, bytes.size, tensors, TENSORS, &read), MEED_OK);
    decode(&bytes, codec, planned);
    decode(&bytes, &read, found);
    assert_memory_equal(planned, found, sizeof planned);
    meed_buf_clear(&bytes);
}

static void fill(void)
{
    for (int t = 0; t < TENSORS; t++) {
        struct meed_rng rng = meed_rng_stream(1, "test", (uint64_t)t);
        for (int i = 0; i < MOST; i++) {
            given[t][i] = (float)(1e-3 * meed_rng_normal(&rng));
        }
    }
}

static void any_codec_is_read(void **state)
{
    (void)state;
    static const double densities[] = {1, 0.95, 0.51, 0.5, 0.25, 0.1, 0.013};
    static const int32_t groups[] = {16, 64, 4096, 65536};
    fill();
    for (int values = 1; values < MEED_VALUE_COUNT; values++) {
        for (size_t a = 0; a < MEED_COUNT(densities); a++) {
            for (size_t b = 0; b < MEED_COUNT(densities); b++) {
                for (size_t g = 0; g < MEED_COUNT(groups); g++) {
                    check(&(struct meed_msg_codec){(enum meed_value_codec)values, densities[a],
                                                   densities[b], groups[g], 0});
                }
            }
        }
    }
}

/* Rounds that train one factor send nothing of the other; idle clients send nothing at all. */
static void absent_tensors_are_no_obstacle(void **state)
{
    (void)state;
    fill();
    memset(given[0], 0, sizeof given[0]);
    memset(given[2], 0, sizeof given[2]);
    check(&(struct meed_msg_codec){MEED_VALUE_INT8, 0.25, 0.1, 64, 0});
    memset(given, 0, sizeof given);
    check(&(struct meed_msg_codec){MEED_VALUE_INT4, 0.25, 0.1, 64, 0});
}

static void rubbish_is_refused(void **state)
{
    (void)state;
    struct meed_update_tensor tensors[TENSORS];
    struct meed_msg_codec read;
    struct meed_buf bytes;
    fill();
    layout(found, tensors);
    encode(&(struct meed_msg_codec){MEED_VALUE_INT8, 0.25, 0.1, 64, 0}, &bytes);
    assert_int_equal(meed_update_codec(bytes.data, 100, tensors, TENSORS, &read), MEED_FORMAT);
    assert_int_equal(meed_update_codec(bytes.data, bytes.size, tensors, 2, &read), MEED_FORMAT);
    meed_buf_clear(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_codec_is_read),
        cmocka_unit_test(absent_tensors_are_no_obstacle),
        cmocka_unit_test(rubbish_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
