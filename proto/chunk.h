/* Transfers in chunks: the sender's cursor and the receiver's ledger of what has arrived.
 *
 * A transfer is a byte string announced by size and SHA-256 and cut into pieces of at most 1 MiB.
 * Each piece carries its offset and a CRC-32C: the offset must continue exactly where the last one
 * ended (a stream is ordered, so anything else is a confused peer), the CRC refuses a bad piece
 * before it is stored, and the hash decides at the end whether the whole is what was announced.
 * Neither side stores anything: the receiver's owner writes the bytes where it likes, and after a
 * restart tells the state what it already has by feeding it once more (meed_chunk_receiver_resume).
 * No allocation but the hash's.
 */
#ifndef MEED_PROTO_CHUNK_H
#define MEED_PROTO_CHUNK_H

#include "base/hash.h"
#include "proto/message.h"

MEED_BEGIN_C

uint32_t meed_chunk_crc32c(uint32_t crc, const void *bytes, size_t size); /* start with 0 */

struct meed_chunk_sender {
    const uint8_t *bytes; /* borrowed until the transfer ends */
    int64_t total_bytes;
    int64_t offset; /* of the next piece */
};

/* offset is where the receiver wants to go on; LIMIT beyond the end. */
MEED_MUST_CHECK enum meed_status meed_chunk_sender_init(struct meed_chunk_sender *sender,
                                                        const void *bytes, int64_t total_bytes,
                                                        int64_t offset);
/* False at the end. */
bool meed_chunk_sender_next(struct meed_chunk_sender *sender, struct meed_msg_chunk *chunk);

struct meed_chunk_receiver {
    int64_t total_bytes;
    int64_t offset; /* received and checked */
    uint8_t expected[MEED_SHA256_BYTES];
    struct meed_sha256 *hash;
};

/* LIMIT if total_bytes is not in 1 … max_bytes. Clear accepts a zeroed struct. */
MEED_MUST_CHECK enum meed_status meed_chunk_receiver_init(struct meed_chunk_receiver *receiver,
                                                          int64_t total_bytes, int64_t max_bytes,
                                                          const uint8_t sha256[MEED_SHA256_BYTES]);
void meed_chunk_receiver_clear(struct meed_chunk_receiver *receiver);
/* Bytes that are already stored, in order, any sizes: brings hash and offset up to them. */
MEED_MUST_CHECK enum meed_status meed_chunk_receiver_resume(struct meed_chunk_receiver *receiver,
                                                            const void *bytes, size_t size);
/* Checks a piece and counts it. INTEGRITY for a wrong CRC, FORMAT for offset, emptiness or size. */
MEED_MUST_CHECK enum meed_status meed_chunk_receiver_accept(struct meed_chunk_receiver *receiver,
                                                            const struct meed_msg_chunk *chunk);
bool meed_chunk_receiver_complete(const struct meed_chunk_receiver *receiver);
/* INTEGRITY unless all bytes came and their hash is the announced one. Ends the hash. */
MEED_MUST_CHECK enum meed_status meed_chunk_receiver_finish(struct meed_chunk_receiver *receiver);

MEED_END_C
#endif
