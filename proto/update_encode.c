/* The encoder of updates: see update.h for the layout.
 *
 * One tensor at a time: select, quantise, drop what rounded to zero, code the index the shorter
 * way. What the receiver will see is not computed beside the bytes but decoded from them, by the
 * receiver's own function: the client's error feedback can never drift from the server's view.
 */
#include <string.h>

#include "proto/codec.h"
#include "proto/quantize.h"
#include "proto/update_index.h"
#include "proto/update_wire.h"

/* Scratch of the largest tensor. */
struct scratch {
    uint32_t *indices; /* sparse only */
    int8_t *codes;
    float *decoded;
};

struct encoding {
    struct meed_buf *bytes;
    struct meed_update_form form;
    struct meed_update_record record;
    const float *values;
    int64_t count;
    struct scratch *scratch;
};

static void scratch_clear(struct scratch *scratch)
{
    meed_heap_free(scratch->indices);
    meed_heap_free(scratch->codes);
    meed_heap_free(scratch->decoded);
}

static enum meed_status scratch_init(struct scratch *scratch, const struct meed_msg_codec *codec,
                                     const struct meed_update_tensor *tensors, size_t count)
{
    int64_t most = 1, keep = 1;
    for (size_t i = 0; i < count; i++) {
        struct meed_update_form form = meed_update_wire_form(codec, &tensors[i]);
        most = MEED_MAX(most, (int64_t)tensors[i].rows * tensors[i].cols);
        keep = form.dense ? keep : MEED_MAX(keep, form.keep);
    }
    scratch->indices = meed_heap_alloc((size_t)keep, sizeof(uint32_t));
    scratch->codes = meed_heap_alloc((size_t)most, 1);
    scratch->decoded = meed_heap_alloc((size_t)most, sizeof(float));
    return scratch->indices && scratch->codes && scratch->decoded ? MEED_OK : MEED_NOMEM;
}

/* ---- dense ---------------------------------------------------------------------------------- */

static void put_plain(enum meed_value_codec codec, float value, uint8_t *out)
{
    if (codec == MEED_VALUE_BF16) {
        uint16_t bits = meed_quantize_bf16(value);
        out[0] = (uint8_t)bits;
        out[1] = (uint8_t)(bits >> 8);
    } else {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        meed_update_wire_put32(out, bits);
    }
}

static void put_codes(enum meed_value_codec codec, const int8_t *codes, int64_t count, uint8_t *out)
{
    if (codec == MEED_VALUE_INT8) {
        memcpy(out, codes, (size_t)count);
        return;
    }
    for (int64_t i = 0; i + 1 < count; i += 2) {
        out[i / 2] = (uint8_t)((codes[i] & 15) | (codes[i + 1] & 15) << 4);
    }
    if (count & 1) {
        out[count / 2] = (uint8_t)(codes[count - 1] & 15);
    }
}

static enum meed_status encode_dense(struct encoding *e)
{
    const enum meed_value_codec codec = e->form.values;
    const int64_t span = INT64_C(1) << e->form.group_shift;
    const int64_t groups = e->form.levels ? (e->count + span - 1) / span : 0;
    int64_t size = 2 * groups + meed_update_wire_value_bytes(codec, e->count);
    void *room = NULL;
    MEED_TRY(meed_buf_extend(e->bytes, (size_t)size, &room));
    uint8_t *out = room;
    e->record.kept = (uint32_t)e->count;
    e->record.payload_bytes = (uint32_t)size;
    if (!e->form.levels) {
        int64_t width = meed_update_wire_value_bytes(codec, 1);
        for (int64_t i = 0; i < e->count; i++) {
            put_plain(codec, e->values[i], out + i * width);
        }
        return MEED_OK;
    }
    for (int64_t g = 0; g < groups; g++) {
        const float *values = e->values + g * span;
        int64_t n = MEED_MIN(span, e->count - g * span);
        uint16_t scale = meed_quantize_scale(meed_quantize_max_abs(values, n), e->form.levels);
        meed_quantize_codes(values, n, scale, e->form.levels, e->scratch->codes + g * span);
        out[2 * g] = (uint8_t)scale;
        out[2 * g + 1] = (uint8_t)(scale >> 8);
    }
    put_codes(codec, e->scratch->codes, e->count, out + 2 * groups);
    return MEED_OK;
}

/* ---- sparse --------------------------------------------------------------------------------- */

/* Codes of the kept entries, group by group; entries that round to zero are dropped and the scales
 * of the groups that remain written to `scales` (room for kept). */
static int64_t code_groups(struct encoding *e, int64_t kept, uint16_t *scales, int64_t *groups)
{
    uint32_t *indices = e->scratch->indices;
    int8_t *codes = e->scratch->codes;
    float *gathered = e->scratch->decoded; /* not needed before the payload is decoded */
    int64_t taken = 0, end;
    *groups = 0;
    for (int64_t begin = 0; begin < kept; begin = end) {
        uint32_t group = indices[begin] >> e->form.group_shift;
        for (end = begin; end < kept && indices[end] >> e->form.group_shift == group; end++) {
            gathered[end - begin] = e->values[indices[end]];
        }
        int64_t n = end - begin;
        uint16_t scale = meed_quantize_scale(meed_quantize_max_abs(gathered, n), e->form.levels);
        if (scale == 0) {
            continue;
        }
        scales[(*groups)++] = scale;
        meed_quantize_codes(gathered, n, scale, e->form.levels, codes + begin);
        for (int64_t i = begin; i < end; i++) {
            if (codes[i]) {
                codes[taken] = codes[i];
                indices[taken++] = indices[i];
            }
        }
    }
    return taken;
}

static int64_t drop_zeros(struct encoding *e, int64_t kept)
{
    uint32_t *indices = e->scratch->indices;
    int64_t taken = 0;
    for (int64_t i = 0; i < kept; i++) {
        if (e->form.values != MEED_VALUE_BF16 ||
            (meed_quantize_bf16(e->values[indices[i]]) & 0x7FFF) != 0) {
            indices[taken++] = indices[i];
        }
    }
    return taken;
}

static enum meed_status write_sparse(struct encoding *e, int64_t kept, const uint16_t *scales,
                                     int64_t groups)
{
    const uint32_t *indices = e->scratch->indices;
    const enum meed_value_codec codec = e->form.values;
    int k = meed_update_index_rice_k(e->count, kept);
    int64_t bitmap_bytes = meed_update_index_bitmap_bytes(e->count);
    int64_t rice_bytes = meed_update_index_rice_bytes(indices, kept, k);
    bool rice = rice_bytes < bitmap_bytes;
    int64_t index_bytes = rice ? rice_bytes : bitmap_bytes;
    int64_t size = index_bytes + 2 * groups + meed_update_wire_value_bytes(codec, kept);
    void *room = NULL;
    MEED_TRY(meed_buf_extend(e->bytes, (size_t)size, &room));
    uint8_t *out = room;
    memset(out, 0, (size_t)index_bytes);
    e->record.kept = (uint32_t)kept;
    e->record.coding = rice ? MEED_UPDATE_INDEX_RICE : MEED_UPDATE_INDEX_BITMAP;
    e->record.rice_k = rice ? (uint8_t)k : 0;
    e->record.payload_bytes = (uint32_t)size;
    if (rice) {
        meed_update_index_write_rice(indices, kept, k, out);
    } else {
        meed_update_index_write_bitmap(indices, kept, out);
    }
    out += index_bytes;
    for (int64_t g = 0; g < groups; g++, out += 2) {
        out[0] = (uint8_t)scales[g];
        out[1] = (uint8_t)(scales[g] >> 8);
    }
    if (e->form.levels) {
        put_codes(codec, e->scratch->codes, kept, out);
        return MEED_OK;
    }
    int64_t width = meed_update_wire_value_bytes(codec, 1);
    for (int64_t i = 0; i < kept; i++) {
        put_plain(codec, e->values[indices[i]], out + i * width);
    }
    return MEED_OK;
}

static enum meed_status encode_sparse(struct encoding *e)
{
    int64_t kept = 0, groups = 0;
    uint16_t *scales = NULL;
    meed_quantize_top_k(e->values, e->count, e->form.keep, e->scratch->indices, &kept);
    if (e->form.levels) {
        int64_t most = MEED_MIN(kept, (e->count >> e->form.group_shift) + 1);
        scales = meed_heap_alloc((size_t)most + 1, sizeof *scales);
        if (!scales) {
            return MEED_NOMEM;
        }
        kept = code_groups(e, kept, scales, &groups);
    } else {
        kept = drop_zeros(e, kept);
    }
    e->record.kept = (uint32_t)kept;
    enum meed_status st = kept > 0 ? write_sparse(e, kept, scales, groups) : MEED_OK;
    meed_heap_free(scales);
    return st;
}

/* ---- tensors -------------------------------------------------------------------------------- */

static void put_record(const struct meed_update_record *record, uint8_t *out)
{
    memset(out, 0, MEED_UPDATE_RECORD_BYTES);
    meed_update_wire_put32(out, record->tensor_idx);
    meed_update_wire_put32(out + 4, record->rows);
    meed_update_wire_put32(out + 8, record->cols);
    meed_update_wire_put32(out + 12, record->kept);
    out[16] = record->coding;
    out[17] = record->rice_k;
    out[18] = record->group_shift;
    meed_update_wire_put32(out + 20, record->payload_bytes);
}

/* Four sums side by side: one would wait for itself at every step. */
static void add_stats(const struct encoding *e, bool present, struct meed_update_stats *stats)
{
    double energy[4] = {0}, retained[4] = {0}, error[4] = {0};
    for (int64_t i = 0; i < e->count; i++) {
        double x = (double)e->values[i], d = (double)e->scratch->decoded[i];
        energy[i & 3] += x * x;
        retained[i & 3] += d * d;
        error[i & 3] += (x - d) * (x - d);
    }
    stats->value_count += e->count;
    stats->kept_count += present ? e->record.kept : 0;
    for (int lane = 0; lane < 4; lane++) {
        stats->energy += energy[lane];
        stats->retained_energy += retained[lane];
        stats->error_energy += error[lane];
    }
}

/* True if the payload that dense blocks or plain values gave is zero everywhere. */
static bool is_absent(const struct encoding *e)
{
    if (!e->form.dense) {
        return e->record.kept == 0;
    }
    if (e->form.levels) {
        for (int64_t i = 0; i < e->count; i++) {
            if (e->scratch->codes[i]) {
                return false;
            }
        }
        return true;
    }
    for (int64_t i = 0; i < e->count; i++) {
        uint16_t bits = meed_quantize_bf16(e->values[i]);
        if (e->form.values == MEED_VALUE_BF16 ? (bits & 0x7FFF) != 0 : e->values[i] != 0.0f) {
            return false;
        }
    }
    return true;
}

/* Appends the payload, writes the record; *present is false for a tensor that is left out. */
static enum meed_status encode_tensor(struct encoding *e, const struct meed_update_tensor *tensor,
                                      uint8_t *record_out, bool *present)
{
    size_t before = e->bytes->size;
    if (!(meed_quantize_max_abs(e->values, e->count) < MEED_LIMIT_VALUE_MAGNITUDE)) {
        return MEED_FAIL(MEED_NUMERIC,
                         "tensor %s of the update holds NaN, infinity or a diverged "
                         "value: lower the learning rate or clip gradients",
                         tensor->name);
    }
    MEED_TRY(e->form.dense ? encode_dense(e) : encode_sparse(e));
    *present = !is_absent(e);
    if (!*present) {
        e->bytes->size = before;
        memset(e->scratch->decoded, 0, (size_t)e->count * sizeof(float));
        return MEED_OK;
    }
    put_record(&e->record, record_out);
    return meed_update_wire_decode_payload(&e->record, &e->form, tensor->name,
                                           (const uint8_t *)e->bytes->data + before,
                                           e->scratch->decoded);
}

static enum meed_status encode_all(const struct meed_msg_codec *codec,
                                   const struct meed_update_tensor *tensors, size_t count,
                                   float *const *decoded, struct meed_buf *bytes, size_t start,
                                   struct scratch *scratch, struct meed_update_stats *stats,
                                   uint32_t *record_count)
{
    for (size_t i = 0; i < count; i++) {
        struct encoding e = {
            .bytes = bytes,
            .form = meed_update_wire_form(codec, &tensors[i]),
            .values = tensors[i].values,
            .count = (int64_t)tensors[i].rows * tensors[i].cols,
            .scratch = scratch,
        };
        e.record = (struct meed_update_record){
            .tensor_idx = (uint32_t)i,
            .rows = (uint32_t)tensors[i].rows,
            .cols = (uint32_t)tensors[i].cols,
            .group_shift = (uint8_t)e.form.group_shift,
        };
        uint8_t record[MEED_UPDATE_RECORD_BYTES];
        bool present = false;
        MEED_TRY(encode_tensor(&e, &tensors[i], record, &present));
        if (present) {
            size_t at =
                start + MEED_UPDATE_HEADER_BYTES + (size_t)*record_count * MEED_UPDATE_RECORD_BYTES;
            memcpy(bytes->data + at, record, sizeof record);
            (*record_count)++;
        }
        if (stats) {
            add_stats(&e, present, stats);
        }
        if (decoded && decoded[i]) {
            memcpy(decoded[i], scratch->decoded, (size_t)e.count * sizeof(float));
        }
    }
    return MEED_OK;
}

/* ---- whole ---------------------------------------------------------------------------------- */

static void put_header(const struct meed_update_header *header, const struct meed_msg_codec *codec,
                       const uint8_t layout[MEED_SHA256_BYTES], uint32_t record_count,
                       uint64_t payload_bytes, uint8_t *out)
{
    memset(out, 0, MEED_UPDATE_HEADER_BYTES);
    memcpy(out, "MUPD", 4);
    out[4] = MEED_UPDATE_VERSION;
    out[5] = (uint8_t)codec->values;
    meed_update_wire_put32(out + 8, (uint32_t)header->round);
    meed_update_wire_put32(out + 12, record_count);
    meed_update_wire_put64(out + 16, payload_bytes);
    meed_update_wire_put64(out + 24, header->seed);
    memcpy(out + 32, header->run_id, strlen(header->run_id));
    memcpy(out + 96, header->client_id, strlen(header->client_id));
    memcpy(out + 160, header->base_adapter_hash, MEED_SHA256_BYTES);
    memcpy(out + 192, layout, MEED_SHA256_BYTES);
    memcpy(out + 224, header->quantiser_hash, MEED_SHA256_BYTES);
}

/* Closes the gap that absent tensors' records left, writes header and trailer. */
static enum meed_status seal(const struct meed_update_header *header,
                             const struct meed_msg_codec *codec,
                             const uint8_t layout[MEED_SHA256_BYTES], size_t count,
                             uint32_t record_count, size_t start, struct meed_buf *bytes)
{
    size_t reserved = start + MEED_UPDATE_HEADER_BYTES + count * MEED_UPDATE_RECORD_BYTES;
    size_t wanted = start + MEED_UPDATE_HEADER_BYTES + record_count * MEED_UPDATE_RECORD_BYTES;
    size_t payload_bytes = bytes->size - reserved;
    memmove(bytes->data + wanted, bytes->data + reserved, payload_bytes);
    bytes->size = wanted + payload_bytes;
    put_header(header, codec, layout, record_count, payload_bytes, (uint8_t *)bytes->data + start);
    uint8_t digest[MEED_SHA256_BYTES];
    meed_sha256(bytes->data + start, bytes->size - start, digest);
    return meed_buf_append(bytes, digest, sizeof digest);
}

enum meed_status meed_update_encode(const struct meed_update_header *header,
                                    const struct meed_msg_codec *codec,
                                    const struct meed_update_tensor *tensors, size_t count,
                                    float *const *decoded, struct meed_buf *bytes,
                                    struct meed_update_stats *stats)
{
    enum meed_status st = MEED_OK;
    struct scratch scratch = {0};
    struct meed_update_stats sums = {0};
    uint8_t layout[MEED_SHA256_BYTES];
    uint32_t record_count = 0;
    size_t start = bytes->size;
    void *room = NULL;
    MEED_TRY(meed_update_wire_check_codec(codec));
    MEED_TRY(meed_update_layout_hash(tensors, count, layout));
    if (!meed_codec_id_valid(header->run_id) || !meed_codec_id_valid(header->client_id) ||
        header->round < 0 || header->round > MEED_LIMIT_ROUNDS) {
        return MEED_FAIL(MEED_ARG, "an update needs a run, a client and a round");
    }
    MEED_TRY_OUT(scratch_init(&scratch, codec, tensors, count));
    MEED_TRY_OUT(
        meed_buf_extend(bytes, MEED_UPDATE_HEADER_BYTES + count * MEED_UPDATE_RECORD_BYTES, &room));
    MEED_TRY_OUT(encode_all(codec, tensors, count, decoded, bytes, start, &scratch,
                            stats ? &sums : NULL, &record_count));
    MEED_TRY_OUT(seal(header, codec, layout, count, record_count, start, bytes));
    sums.encoded_bytes = (int64_t)(bytes->size - start);
    if (stats) {
        *stats = sums;
    }
out:
    if (st != MEED_OK) {
        bytes->size = start;
    }
    scratch_clear(&scratch);
    return st;
}
