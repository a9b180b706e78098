/* The byte layout of a compressed adapter update, its encoder and its decoder.
 *
 * An update is what a client sends: the difference to the round's base adapter, tensor by tensor,
 * in the order both sides derive from the plan (the *negotiated layout*: module by module, A then
 * B; SCAFFOLD appends its control variate's tensors). Names are not sent: a hash of the layout is.
 * A tensor that is zero everywhere is left out, so a free-rider's update is a bare header and its
 * value exactly 0. Everything is little-endian, nothing is padded, and one set of values has one
 * byte string for a given codec, so a hash is an identity and a replay is visible.
 *
 * The decoder checks all of the table below, writes into arrays of the negotiated sizes that the
 * caller owns and allocates nothing that grows with the message. Idempotency key: (run, round,
 * client, SHA-256 of the transferred bytes), the first three readable without decoding
 * (meed_update_peek).
 */
#ifndef MEED_PROTO_UPDATE_H
#define MEED_PROTO_UPDATE_H

#include "base/buf.h"
#include "base/hash.h"
#include "proto/message.h"

MEED_BEGIN_C

/*   header, 256 bytes
 *     0    4  magic "MUPD"
 *     4    1  version 1
 *     5    1  value codec: 1 f32, 2 bf16, 3 int8, 4 int4
 *     6    2  0
 *     8    4  round
 *    12    4  tensor count n
 *    16    8  payload bytes (Σ of the records' byte lengths)
 *    24    8  seed of the round
 *    32   64  run id, padded with NULs
 *    96   64  client id, padded with NULs
 *   160   32  SHA-256 of the base adapter
 *   192   32  SHA-256 of the layout
 *   224   32  SHA-256 of the base model's quantiser, zero for none
 *   n records, 24 bytes each, tensor index strictly increasing
 *     0    4  tensor index in the layout
 *     4    4  rows
 *     8    4  columns
 *    12    4  kept entries: rows × columns when dense
 *    16    1  index coding: 0 dense, 1 bitmap, 2 Rice
 *    17    1  Rice parameter k
 *    18    1  group shift: 2^shift flat positions share a scale (4 to 16; 0 for f32, bf16)
 *    19    1  0
 *    20    4  byte length of the payload
 *   payloads, in the same order: [index] [scales] [values]
 *     index   dense: none. Bitmap: bit i of byte i/8 (lowest first), trailing bits 0. Rice: for
 *             each kept entry the gap g to its predecessor, less one: g >> k ones and a zero, then
 *             the k low bits of g, lowest first; filled up with 0 bits to a byte
 *     scales  bf16, one a group that holds a kept entry (dense: every group), 0 only when dense
 *     values  f32 4 bytes; bf16 2; int8 1, never -128; int4 two a byte, low nibble first, never -8,
 *             last nibble 0 if odd. Sparse values are never zero.
 *   trailer
 *    32  SHA-256 of everything before it
 *
 * Canonical: k = floor(log2(125 · zeros / (128 · kept))) in integers, at least 0; the shorter index
 * coding is used, bitmap on a tie; in every group with a scale the largest code is ± the top level;
 * a group spans the plan's size divided by the density, as a power of two, so that a scale is
 * shared by about as many kept entries whatever the density. A tensor is dense if its density is 1.
 */

/* Names of a control variate's tensors begin with it: "control layers.3.q.A". */
#define MEED_UPDATE_CONTROL_PREFIX "control "

enum { MEED_UPDATE_HEADER_BYTES = 256, MEED_UPDATE_RECORD_BYTES = 24 };

/* Which density applies. */
enum meed_update_factor { MEED_UPDATE_FACTOR_A, MEED_UPDATE_FACTOR_B };

/* One tensor of the negotiated layout and the caller's array for it. */
struct meed_update_tensor {
    const char *name; /* for messages and the layout hash: "layers.3.q.A" */
    int32_t rows;
    int32_t cols;
    enum meed_update_factor factor;
    float *values; /* [rows, cols] */
};

/* Who, when and from where; the same on both sides. */
struct meed_update_header {
    char run_id[MEED_LIMIT_ID_BYTES];
    char client_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    uint64_t seed;
    uint8_t base_adapter_hash[MEED_SHA256_BYTES];
    uint8_t quantiser_hash[MEED_SHA256_BYTES];
};

struct meed_update_stats {
    int64_t value_count;
    int64_t kept_count;
    int64_t encoded_bytes;
    double energy;          /* Σ x² of the input */
    double retained_energy; /* Σ d² of the decoded values */
    double error_energy;    /* Σ (x − d)² */
};

/* Identity of a layout: SHA-256 over names and shapes. */
MEED_MUST_CHECK enum meed_status meed_update_layout_hash(const struct meed_update_tensor *tensors,
                                                         size_t count,
                                                         uint8_t digest[MEED_SHA256_BYTES]);
/* A safe maximum for the encoding's size: what the receiver may be asked to store. */
int64_t meed_update_max_bytes(const struct meed_update_tensor *tensors, size_t count);

/* Appends the encoding of the tensors. decoded[i], if decoded is not NULL, receives what the server
 * will see of tensor i ([rows, cols]); residual = values − decoded is the client's error feedback.
 * decoded[i] may be the tensor's own values. NUMERIC names the tensor that holds NaN, infinity or a
 * diverged value. stats may be NULL. */
MEED_MUST_CHECK enum meed_status
meed_update_encode(const struct meed_update_header *header, const struct meed_msg_codec *codec,
                   const struct meed_update_tensor *tensors, size_t count, float *const *decoded,
                   struct meed_buf *bytes, struct meed_update_stats *stats);

/* Reads the header only (after the sizes were checked): cheap, for logs and early refusal. */
MEED_MUST_CHECK enum meed_status meed_update_peek(const void *bytes, size_t size,
                                                  struct meed_update_header *header);

/* A codec that these bytes can be decoded with, for readers that hold no plan: the widest densities
 * that its records allow. The aggregator never asks an update what it may look like. FORMAT for
 * bytes that are no update or name a tensor beyond `count`; what else is wrong, decoding says. */
MEED_MUST_CHECK enum meed_status meed_update_codec(const void *bytes, size_t size,
                                                   const struct meed_update_tensor *tensors,
                                                   size_t count, struct meed_msg_codec *codec);

/* Decodes into tensors[i].values, every element written (absent tensors become zero). `expected`
 * must match field by field: another round's update is MEED_STATE, another base MEED_VERSION. A
 * shape that differs from the negotiated one is MEED_FORMAT naming tensor and both shapes, a wrong
 * trailer MEED_INTEGRITY, NaN or infinity MEED_NUMERIC. On failure the arrays hold rubbish. */
MEED_MUST_CHECK enum meed_status meed_update_decode(const void *bytes, size_t size,
                                                    const struct meed_update_header *expected,
                                                    const struct meed_msg_codec *codec,
                                                    const struct meed_update_tensor *tensors,
                                                    size_t count);

/* The whole update under zstd, if level > 0 and it pays; else appended as it is. */
MEED_MUST_CHECK enum meed_status meed_update_zstd_pack(const void *bytes, size_t size, int level,
                                                       struct meed_buf *packed);
/* The reverse, told apart by the magic. The size that the frame declares is compared with
 * max_bytes before anything is inflated, and must be declared. */
MEED_MUST_CHECK enum meed_status meed_update_zstd_unpack(const void *packed, size_t size,
                                                         int64_t max_bytes, struct meed_buf *bytes);

MEED_END_C
#endif
