/* safetensors: round trips, and files that lie.
 *
 * Goal: what is written is read back bit for bit and with repeatable bytes; every way in which a
 * header may disagree with its file ends in FORMAT and a sentence naming file and fault. Method:
 * files built from a header text and a byte count, one fault each; truncation at every length.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "engine/safetensors.h"

static char folder[64];
static char path[128];

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/meed-safetensors-%ld", (long)getpid());
    assert_int_equal(meed_file_make_folder(folder), MEED_OK);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_file(const char *header, size_t header_bytes, size_t data_bytes)
{
    struct meed_buf buf;
    unsigned char prefix[8];
    meed_buf_init(&buf, 1 << 20);
    for (int i = 0; i < 8; i++) {
        prefix[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
    }
    assert_int_equal(meed_buf_append(&buf, prefix, 8), MEED_OK);
    assert_int_equal(meed_buf_append(&buf, header, strlen(header)), MEED_OK);
    for (size_t i = 0; i < data_bytes; i++) {
        assert_int_equal(meed_buf_append(&buf, &"abcd"[i % 4], 1), MEED_OK);
    }
    assert_int_equal(meed_file_write_atomic(path, buf.data, buf.size), MEED_OK);
    meed_buf_clear(&buf);
}

static void expect_refusal(const char *header, size_t data_bytes, const char *word)
{
    struct meed_safetensors *file = NULL;
    write_file(header, strlen(header), data_bytes);
    enum meed_status st = meed_safetensors_open(path, &file);
    if (st != MEED_FORMAT || !strstr(meed_last_error(), word) ||
        !strstr(meed_last_error(), "model.safetensors") || file) {
        fail_msg("%s\n  gave %s: %s", header, meed_status_name(st), meed_last_error());
    }
}

static void safetensors_refuses_lying_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *word;
    } cases[] = {
        {"", 0, "start with"},
        {"[]", 0, "start with"},
        {"{\"a\":", 0, "header"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "duplicate"},
        {"{\"a\":7}", 0, "no object"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F31"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "impossible"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "impossible"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4,
         "impossible"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]}}", 4,
         "dtype and shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}}", 4, "dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "dtype and shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "no tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "overlaps"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "strings"},
        {"{\"__metadata__\":[]}", 0, "strings"},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        expect_refusal(cases[i].header, cases[i].data_bytes, cases[i].word);
    }
}

static void safetensors_refuses_impossible_header_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {3, (size_t)200 << 20, SIZE_MAX, SIZE_MAX - 7};
    struct meed_safetensors *file = NULL;
    for (size_t i = 0; i < MEED_COUNT(sizes); i++) {
        write_file("{}", sizes[i], 0);
        assert_int_equal(meed_safetensors_open(path, &file), MEED_FORMAT);
        assert_non_null(strstr(meed_last_error(), "header"));
    }
    assert_int_equal(meed_safetensors_open("/nonexistent/x.safetensors", &file), MEED_NOT_FOUND);
}

static const float numbers[] = {1.0f, -0.0f, 3.25e38f, 1e-40f, 0.333333343f, -7.0f};

static void make_tensors(struct meed_tensor tensors[3])
{
    static const uint16_t halves[] = {0x3C00, 0x0001, 0xFC00, 0x8400};
    static const double doubles[] = {0.1, -2.0};
    tensors[0] = (struct meed_tensor){"b.second", MEED_TENSOR_F32, 2, {2, 3}, 6, numbers, 24};
    tensors[1] = (struct meed_tensor){"a.half", MEED_TENSOR_F16, 1, {4}, 4, halves, 8};
    tensors[2] = (struct meed_tensor){"c.double", MEED_TENSOR_F64, 1, {2}, 2, doubles, 16};
}

static void safetensors_reads_what_it_wrote(void **state)
{
    (void)state;
    struct meed_tensor tensors[3], swapped[3];
    struct meed_buf buf, again;
    struct meed_safetensors *file = NULL;
    float values[6];
    meed_buf_init(&buf, 1 << 16);
    meed_buf_init(&again, 1 << 16);
    make_tensors(tensors);
    for (int i = 0; i < 3; i++) {
        swapped[i] = tensors[2 - i];
    }
    assert_int_equal(meed_safetensors_write(tensors, 3, &buf), MEED_OK);
    assert_int_equal(meed_safetensors_write(swapped, 3, &again), MEED_OK);
    assert_int_equal(buf.size, again.size);
    assert_memory_equal(buf.data, again.data, buf.size);
    assert_int_equal(meed_file_write_atomic(path, buf.data, buf.size), MEED_OK);
    assert_int_equal(meed_safetensors_open_folder(folder, &file), MEED_OK);
    assert_int_equal(meed_safetensors_count(file), 3);
    assert_string_equal(meed_safetensors_at(file, 0)->name, "a.half");
    assert_null(meed_safetensors_find(file, "b"));
    const struct meed_tensor *b = meed_safetensors_find(file, "b.second");
    assert_non_null(b);
    assert_int_equal(b->dims, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(meed_tensor_to_f32(b, values), MEED_OK);
    assert_memory_equal(values, numbers, sizeof numbers);
    assert_int_equal(meed_tensor_to_f32(meed_safetensors_find(file, "a.half"), values), MEED_OK);
    const float want[] = {1.0f, 0x1p-24f, -INFINITY, -0x1p-14f};
    assert_memory_equal(values, want, sizeof want);
    assert_int_equal(meed_tensor_to_f32(meed_safetensors_find(file, "c.double"), values), MEED_OK);
    assert_true(fabs((double)values[0] - 0.1) < 1e-8);
    meed_safetensors_close(file);
    meed_buf_clear(&buf);
    meed_buf_clear(&again);
}

static void safetensors_refuses_every_truncation(void **state)
{
    (void)state;
    struct meed_tensor tensors[3];
    struct meed_buf buf;
    struct meed_safetensors *file = NULL;
    meed_buf_init(&buf, 1 << 16);
    make_tensors(tensors);
    assert_int_equal(meed_safetensors_write(tensors, 3, &buf), MEED_OK);
    for (size_t size = 0; size < buf.size; size++) {
        assert_int_equal(meed_file_write_atomic(path, buf.data, size), MEED_OK);
        assert_int_equal(meed_safetensors_open(path, &file), MEED_FORMAT);
    }
    meed_buf_clear(&buf);
}

/* Any changed byte of the header opens or is refused; it never reads outside the file. */
static void safetensors_survives_changed_bytes(void **state)
{
    (void)state;
    static const char replacements[] = {0, ' ', '"', '{', ']', ',', '0', '9', '-', (char)0xFF};
    struct meed_tensor tensors[3];
    struct meed_buf buf;
    meed_buf_init(&buf, 1 << 16);
    make_tensors(tensors);
    assert_int_equal(meed_safetensors_write(tensors, 3, &buf), MEED_OK);
    size_t header_end = buf.size - 48;
    for (size_t at = 0; at < header_end; at++) {
        for (size_t i = 0; i < MEED_COUNT(replacements); i++) {
            char before = buf.data[at];
            struct meed_safetensors *file = NULL;
            float values[64];
            buf.data[at] = replacements[i];
            assert_int_equal(meed_file_write_atomic(path, buf.data, buf.size), MEED_OK);
            buf.data[at] = before;
            if (meed_safetensors_open(path, &file) != MEED_OK) {
                continue;
            }
            for (int64_t t = 0; t < meed_safetensors_count(file); t++) {
                const struct meed_tensor *tensor = meed_safetensors_at(file, t);
                assert_true(tensor->count <= 64);
                meed_status_discard(meed_tensor_to_f32(tensor, values));
            }
            meed_safetensors_close(file);
        }
    }
    meed_buf_clear(&buf);
}

static void safetensors_writer_refuses_bad_tensors(void **state)
{
    (void)state;
    struct meed_tensor tensors[3];
    struct meed_buf buf;
    meed_buf_init(&buf, 1 << 16);
    make_tensors(tensors);
    tensors[1].name = "b.second";
    tensors[1].dtype = MEED_TENSOR_F32;
    tensors[1].size = 16;
    static const float four[4];
    tensors[1].bytes = four;
    assert_int_equal(meed_safetensors_write(tensors, 3, &buf), MEED_ARG);
    tensors[1].name = "quote\"";
    assert_int_equal(meed_safetensors_write(tensors, 3, &buf), MEED_ARG);
    tensors[1].dtype = MEED_TENSOR_OTHER;
    assert_int_equal(meed_safetensors_write(tensors, 3, &buf), MEED_UNSUPPORTED);
    assert_int_equal(buf.size, 0);
    meed_buf_clear(&buf);
}

static void write_index(const char *text)
{
    char index[160];
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", folder);
    assert_int_equal(meed_file_write_atomic(index, text, strlen(text)), MEED_OK);
}

static void safetensors_index_must_agree(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum meed_status status;
        const char *word;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"one.safetensors\"}}", MEED_OK, ""},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", MEED_FORMAT, "beside"},
        {"{\"weight_map\":{\"a\":\"/one.safetensors\"}}", MEED_FORMAT, "beside"},
        {"{\"weight_map\":{\"a\":3}}", MEED_FORMAT, "beside"},
        {"{\"weight_map\":{\"b\":\"one.safetensors\"}}", MEED_FORMAT, "'b' is not in shard"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\"}}", MEED_NOT_FOUND, "two"},
        {"{\"weight_map\":{}}", MEED_FORMAT, "no tensor"},
        {"{\"weights\":{}}", MEED_FORMAT, "weight_map"},
        {"{", MEED_FORMAT, "weight_map"},
    };
    char shard[160], index[160];
    unlink(path);
    snprintf(shard, sizeof shard, "%s/one.safetensors", folder);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", folder);
    struct meed_tensor tensor = {"a", MEED_TENSOR_F32, 1, {6}, 6, numbers, 24};
    struct meed_buf buf;
    meed_buf_init(&buf, 1 << 16);
    assert_int_equal(meed_safetensors_write(&tensor, 1, &buf), MEED_OK);
    assert_int_equal(meed_file_write_atomic(shard, buf.data, buf.size), MEED_OK);
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct meed_safetensors *file = NULL;
        write_index(cases[i].text);
        enum meed_status st = meed_safetensors_open_folder(folder, &file);
        if (st != cases[i].status || (st != MEED_OK && !strstr(meed_last_error(), cases[i].word))) {
            fail_msg("%s gave %s: %s", cases[i].text, meed_status_name(st), meed_last_error());
        }
        meed_safetensors_close(file);
    }
    meed_buf_clear(&buf);
    unlink(shard);
    unlink(index);
    struct meed_safetensors *none = NULL;
    assert_int_equal(meed_safetensors_open_folder(folder, &none), MEED_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_refuses_lying_headers),
        cmocka_unit_test(safetensors_refuses_impossible_header_sizes),
        cmocka_unit_test(safetensors_reads_what_it_wrote),
        cmocka_unit_test(safetensors_refuses_every_truncation),
        cmocka_unit_test(safetensors_survives_changed_bytes),
        cmocka_unit_test(safetensors_writer_refuses_bad_tensors),
        cmocka_unit_test(safetensors_index_must_agree),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
