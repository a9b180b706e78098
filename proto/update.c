/* The decoder of updates, and what both directions agree on. See update.h. */
#include "proto/update.h"

#include <math.h>
#include <string.h>

#include "proto/codec.h"
#include "proto/quantize.h"
#include "proto/update_index.h"
#include "proto/update_wire.h"

/* ---- the plan's choices ---------------------------------------------------------------------- */

static int log2_exact(int64_t value)
{
    int shift = 0;
    while ((INT64_C(1) << shift) < value) {
        shift++;
    }
    return shift;
}

enum meed_status meed_update_wire_check_codec(const struct meed_msg_codec *codec)
{
    bool dense_fit = codec->density_a > 0.0 && codec->density_a <= 1.0 && codec->density_b > 0.0 &&
                     codec->density_b <= 1.0;
    if (codec->values < MEED_VALUE_F32 || codec->values >= MEED_VALUE_COUNT || !dense_fit) {
        return MEED_FAIL(MEED_CONFIG, "update codec: values f32, bf16, int8 or int4, densities in "
                                      "(0, 1]");
    }
    if (codec->group_size < MEED_LIMIT_GROUP_MIN || codec->group_size > MEED_LIMIT_GROUP_MAX ||
        (codec->group_size & (codec->group_size - 1)) != 0) {
        return MEED_FAIL(MEED_CONFIG,
                         "update codec: group size %d is not a power of two in %d to "
                         "%d; 64 is usual",
                         codec->group_size, MEED_LIMIT_GROUP_MIN, MEED_LIMIT_GROUP_MAX);
    }
    return MEED_OK;
}

struct meed_update_form meed_update_wire_form(const struct meed_msg_codec *codec,
                                              const struct meed_update_tensor *tensor)
{
    double density = tensor->factor == MEED_UPDATE_FACTOR_A ? codec->density_a : codec->density_b;
    int64_t count = (int64_t)tensor->rows * tensor->cols;
    struct meed_update_form form = {
        .values = codec->values,
        .dense = density >= 1.0,
        .keep = density >= 1.0 ? count : MEED_MIN(count, (int64_t)ceil(density * (double)count)),
        .levels = codec->values == MEED_VALUE_INT8   ? MEED_QUANTIZE_LEVELS_INT8
                  : codec->values == MEED_VALUE_INT4 ? MEED_QUANTIZE_LEVELS_INT4
                                                     : 0,
    };
    if (form.levels) {
        double span = MEED_MIN((double)codec->group_size / density, (double)MEED_LIMIT_GROUP_MAX);
        form.group_shift = log2_exact((int64_t)ceil(span));
    }
    return form;
}

int64_t meed_update_wire_value_bytes(enum meed_value_codec values, int64_t kept)
{
    switch (values) {
    case MEED_VALUE_F32:
        return 4 * kept;
    case MEED_VALUE_BF16:
        return 2 * kept;
    case MEED_VALUE_INT8:
        return kept;
    default:
        return (kept + 1) / 2;
    }
}

enum meed_status meed_update_wire_check_layout(const struct meed_update_tensor *tensors,
                                               size_t count)
{
    int64_t values = 0;
    if (count > MEED_LIMIT_TENSORS) {
        return MEED_FAIL(MEED_LIMIT, "an update of %zu tensors: at most %d", count,
                         MEED_LIMIT_TENSORS);
    }
    for (size_t i = 0; i < count; i++) {
        int64_t here = (int64_t)tensors[i].rows * tensors[i].cols;
        if (tensors[i].rows < 1 || tensors[i].cols < 1 ||
            tensors[i].rows > MEED_LIMIT_TENSOR_SIDE || tensors[i].cols > MEED_LIMIT_TENSOR_SIDE ||
            here > MEED_LIMIT_TENSOR_VALUES || here > MEED_LIMIT_UPDATE_VALUES - values ||
            strnlen(tensors[i].name, MEED_LIMIT_TENSOR_NAME_BYTES) ==
                MEED_LIMIT_TENSOR_NAME_BYTES) {
            return MEED_FAIL(MEED_LIMIT, "tensor %.160s of %d × %d passes the limits of an update",
                             tensors[i].name, (int)tensors[i].rows, (int)tensors[i].cols);
        }
        values += here;
    }
    return MEED_OK;
}

enum meed_status meed_update_layout_hash(const struct meed_update_tensor *tensors, size_t count,
                                         uint8_t digest[MEED_SHA256_BYTES])
{
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_update_wire_check_layout(tensors, count));
    MEED_TRY(meed_sha256_create(&hash));
    for (size_t i = 0; i < count; i++) {
        uint8_t shape[12];
        meed_update_wire_put32(shape, (uint32_t)tensors[i].rows);
        meed_update_wire_put32(shape + 4, (uint32_t)tensors[i].cols);
        meed_update_wire_put32(shape + 8, (uint32_t)tensors[i].factor);
        meed_sha256_update(hash, tensors[i].name, strlen(tensors[i].name) + 1);
        meed_sha256_update(hash, shape, sizeof shape);
    }
    meed_sha256_final(hash, digest);
    return MEED_OK;
}

int64_t meed_update_max_bytes(const struct meed_update_tensor *tensors, size_t count)
{
    int64_t bytes = MEED_UPDATE_HEADER_BYTES + MEED_SHA256_BYTES;
    for (size_t i = 0; i < count; i++) {
        int64_t values = (int64_t)tensors[i].rows * tensors[i].cols;
        bytes += MEED_UPDATE_RECORD_BYTES + 4 * values + meed_update_index_bitmap_bytes(values) +
                 2 * (values / MEED_LIMIT_GROUP_MIN + 1);
    }
    return bytes;
}

/* ---- header --------------------------------------------------------------------------------- */

/* A padded id: valid letters, then NULs only. */
static bool get_id(const uint8_t *bytes, char id[MEED_LIMIT_ID_BYTES])
{
    memcpy(id, bytes, MEED_LIMIT_ID_BYTES);
    for (size_t i = strnlen(id, MEED_LIMIT_ID_BYTES); i < MEED_LIMIT_ID_BYTES; i++) {
        if (id[i]) {
            return false;
        }
    }
    return meed_codec_id_valid(id);
}

static enum meed_status check_frame(const uint8_t *bytes, size_t size)
{
    if (size < MEED_UPDATE_HEADER_BYTES + MEED_SHA256_BYTES || memcmp(bytes, "MUPD", 4) != 0) {
        return MEED_FAIL(MEED_FORMAT, "%zu bytes that are not an update (magic MUPD)", size);
    }
    if (bytes[4] != MEED_UPDATE_VERSION) {
        return MEED_FAIL(MEED_VERSION, "an update of format %d: this Meed reads %d", bytes[4],
                         MEED_UPDATE_VERSION);
    }
    uint64_t tensor_count = meed_update_wire_get32(bytes + 12);
    uint64_t payload_bytes = meed_update_wire_get64(bytes + 16);
    uint64_t fixed =
        MEED_UPDATE_HEADER_BYTES + MEED_SHA256_BYTES + tensor_count * MEED_UPDATE_RECORD_BYTES;
    if (bytes[6] || bytes[7] || tensor_count > MEED_LIMIT_TENSORS || fixed > size ||
        payload_bytes != size - fixed) {
        return MEED_FAIL(MEED_FORMAT, "an update whose header does not add up to its %zu bytes",
                         size);
    }
    return MEED_OK;
}

enum meed_status meed_update_peek(const void *bytes, size_t size, struct meed_update_header *header)
{
    const uint8_t *b = bytes;
    struct meed_update_header read = {0};
    MEED_TRY(check_frame(b, size));
    uint32_t round = meed_update_wire_get32(b + 8);
    if (!get_id(b + 32, read.run_id) || !get_id(b + 96, read.client_id) ||
        round > MEED_LIMIT_ROUNDS) {
        return MEED_FAIL(MEED_FORMAT, "an update whose run, client or round cannot be");
    }
    read.round = (int32_t)round;
    read.seed = meed_update_wire_get64(b + 24);
    memcpy(read.base_adapter_hash, b + 160, MEED_SHA256_BYTES);
    memcpy(read.quantiser_hash, b + 224, MEED_SHA256_BYTES);
    *header = read;
    return MEED_OK;
}

static enum meed_status check_header(const uint8_t *bytes, const struct meed_update_header *got,
                                     const struct meed_update_header *expected,
                                     const struct meed_msg_codec *codec)
{
    if (strcmp(got->run_id, expected->run_id) != 0 || got->round != expected->round ||
        got->seed != expected->seed) {
        return MEED_FAIL(MEED_STATE, "an update of run %s, round %d: this is run %s, round %d",
                         got->run_id, (int)got->round, expected->run_id, (int)expected->round);
    }
    if (strcmp(got->client_id, expected->client_id) != 0) {
        return MEED_FAIL(MEED_DENIED, "an update of client %s, sent by %s", got->client_id,
                         expected->client_id);
    }
    if (memcmp(got->base_adapter_hash, expected->base_adapter_hash, MEED_SHA256_BYTES) != 0 ||
        memcmp(got->quantiser_hash, expected->quantiser_hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_VERSION, "an update to another base adapter or base quantiser than "
                                       "this round's");
    }
    if (bytes[5] != (uint8_t)codec->values) {
        return MEED_FAIL(MEED_FORMAT, "an update with value codec %d: the plan says %d", bytes[5],
                         (int)codec->values);
    }
    return MEED_OK;
}

/* ---- records -------------------------------------------------------------------------------- */

static struct meed_update_record get_record(const uint8_t *b)
{
    return (struct meed_update_record){
        .tensor_idx = meed_update_wire_get32(b),
        .rows = meed_update_wire_get32(b + 4),
        .cols = meed_update_wire_get32(b + 8),
        .kept = meed_update_wire_get32(b + 12),
        .coding = b[16],
        .rice_k = b[17],
        .group_shift = b[18],
        .payload_bytes = meed_update_wire_get32(b + 20),
    };
}

static enum meed_status check_record(const uint8_t *bytes, const struct meed_update_record *record,
                                     const struct meed_update_tensor *tensor,
                                     const struct meed_update_form *form)
{
    if (record->rows != (uint32_t)tensor->rows || record->cols != (uint32_t)tensor->cols) {
        return MEED_FAIL(MEED_FORMAT, "update, tensor %s: shape %u × %u, the plan says %d × %d",
                         tensor->name, record->rows, record->cols, (int)tensor->rows,
                         (int)tensor->cols);
    }
    bool coding_fits = form->dense ? record->coding == MEED_UPDATE_INDEX_DENSE
                                   : record->coding == MEED_UPDATE_INDEX_BITMAP ||
                                         record->coding == MEED_UPDATE_INDEX_RICE;
    if (!coding_fits || record->group_shift != form->group_shift || bytes[19] ||
        (form->dense && record->rice_k)) {
        return MEED_FAIL(MEED_FORMAT, "update, tensor %s: its coding is not the plan's",
                         tensor->name);
    }
    if (record->kept < 1 || (int64_t)record->kept > form->keep ||
        (form->dense && (int64_t)record->kept != form->keep)) {
        return MEED_FAIL(MEED_FORMAT, "update, tensor %s: %u entries, the plan allows %lld",
                         tensor->name, record->kept, (long long)form->keep);
    }
    return MEED_OK;
}

static void clear_tensors(const struct meed_update_tensor *tensors, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++) {
        memset(tensors[i].values, 0,
               (size_t)tensors[i].rows * (size_t)tensors[i].cols * sizeof(float));
    }
}

static enum meed_status decode_records(const uint8_t *bytes, size_t size,
                                       const struct meed_msg_codec *codec,
                                       const struct meed_update_tensor *tensors, uint32_t count)
{
    uint32_t record_count = meed_update_wire_get32(bytes + 12);
    uint32_t next = 0;
    const uint8_t *at = bytes + MEED_UPDATE_HEADER_BYTES;
    const uint8_t *payload = at + (size_t)record_count * MEED_UPDATE_RECORD_BYTES;
    const uint8_t *end = bytes + size - MEED_SHA256_BYTES;
    for (uint32_t i = 0; i < record_count; i++, at += MEED_UPDATE_RECORD_BYTES) {
        struct meed_update_record record = get_record(at);
        if (record.tensor_idx < next || record.tensor_idx >= count) {
            return MEED_FAIL(MEED_FORMAT,
                             "update, record %u: tensor %u is out of order, given "
                             "twice, or not in the plan's %u tensors",
                             i, record.tensor_idx, count);
        }
        const struct meed_update_tensor *tensor = &tensors[record.tensor_idx];
        struct meed_update_form form = meed_update_wire_form(codec, tensor);
        MEED_TRY(check_record(at, &record, tensor, &form));
        if ((int64_t)record.payload_bytes > end - payload) {
            return MEED_FAIL(MEED_FORMAT, "update, tensor %s: its payload leaves the update",
                             tensor->name);
        }
        clear_tensors(tensors, next, record.tensor_idx);
        MEED_TRY(
            meed_update_wire_decode_payload(&record, &form, tensor->name, payload, tensor->values));
        payload += record.payload_bytes;
        next = record.tensor_idx + 1;
    }
    if (payload != end) {
        return MEED_FAIL(MEED_FORMAT, "an update with %lld bytes that no tensor owns",
                         (long long)(end - payload));
    }
    clear_tensors(tensors, next, count);
    return MEED_OK;
}

enum meed_status meed_update_decode(const void *bytes, size_t size,
                                    const struct meed_update_header *expected,
                                    const struct meed_msg_codec *codec,
                                    const struct meed_update_tensor *tensors, size_t count)
{
    const uint8_t *b = bytes;
    struct meed_update_header got;
    uint8_t digest[MEED_SHA256_BYTES];
    MEED_TRY(meed_update_wire_check_codec(codec));
    MEED_TRY(meed_update_layout_hash(tensors, count, digest));
    MEED_TRY(meed_update_peek(bytes, size, &got));
    MEED_TRY(check_header(b, &got, expected, codec));
    bool same_layout = memcmp(digest, b + 192, sizeof digest) == 0;
    meed_sha256(b, size - MEED_SHA256_BYTES, digest);
    if (memcmp(digest, b + size - MEED_SHA256_BYTES, sizeof digest) != 0) {
        return MEED_FAIL(MEED_INTEGRITY, "an update whose SHA-256 trailer does not match");
    }
    MEED_TRY(decode_records(b, size, codec, tensors, (uint32_t)count));
    if (!same_layout) { /* last: a wrong shape is named above */
        return MEED_FAIL(MEED_FORMAT, "an update of other tensors than the plan's");
    }
    return MEED_OK;
}
